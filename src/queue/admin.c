/*
 * admin.c: cancels jobs and changes their priority, payload and time, for sessions that do
 * not hold them; the payload also for who does.
 */
#include "postgres.h"

#include "fmgr.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "common/argument.h"
#include "common/audit.h"
#include "common/json.h"
#include "queue/lease.h"
#include "steps/steps.h"
#include "tenant/tenant.h"
#include "wake/wake.h"

PG_FUNCTION_INFO_V1(eq_cancel_job);
PG_FUNCTION_INFO_V1(eq_change_priority);
PG_FUNCTION_INFO_V1(eq_change_payload);
PG_FUNCTION_INFO_V1(eq_promote_job);

static bool
is_leased_now(EqLeased *leased)
{
	slot_getallattrs(leased->slot);
	return !leased->slot->tts_isnull[JOB_LEASED_UNTIL - 1] &&
		   DatumGetTimestampTz(leased->slot->tts_values[JOB_LEASED_UNTIL - 1]) >
			   leased->now;
}

/* A job of which the caller has no token, locked; false if it is not there. */
static bool
lock_job_by_id(EqLeased *leased, int64 job_id)
{
	if (!eq_find_job(leased, job_id, NULL))
		return false;
	slot_getallattrs(leased->slot);
	if (!eq_load_queue_if_visible(leased, job_id) || !eq_lock_job(leased))
		return false; /* another tenant's is not waited for */
	slot_getallattrs(leased->slot);
	return true;
}

/* Writes to the audit log what was done to a job, which the slot still shows as it was. */
static void
tell(const char *outcome, const char *action, EqLeased *leased, int64 job_id)
{
	Datum *row = leased->slot->tts_values;
	JsonbParseState *before = NULL;
	JsonbParseState *after = NULL;
	char id[32];

	snprintf(id, sizeof(id), INT64_FORMAT, job_id);
	pushJsonbValue(&before, WJB_BEGIN_OBJECT, NULL);
	eq_json_add_string(&before, "queue", leased->queue->name, EQ_MAX_NAME);
	eq_json_add_string(&before, "name", TextDatumGetCString(row[JOB_NAME - 1]),
					   EQ_MAX_NAME);
	eq_json_add_int64(&before, "priority", DatumGetInt16(row[JOB_PRIORITY - 1]));
	pushJsonbValue(&after, WJB_BEGIN_OBJECT, NULL);
	eq_json_add_string(&after, "outcome", outcome, EQ_MAX_NAME);
	eq_audit(action, "job", id, TextDatumGetCString(row[JOB_TENANT - 1]),
			 JsonbValueToJsonb(pushJsonbValue(&before, WJB_END_OBJECT, NULL)),
			 JsonbValueToJsonb(pushJsonbValue(&after, WJB_END_OBJECT, NULL)));
}

Datum
eq_cancel_job(PG_FUNCTION_ARGS)
{
	int64 job_id = PG_ARGISNULL(0) ? 0 : PG_GETARG_INT64(0);
	EqLeased leased;
	bool leased_now;

	eq_open_jobs(&leased);
	if (!lock_job_by_id(&leased, job_id))
		ereport(ERROR,
				(errcode(ERRCODE_EQ_UNKNOWN_JOB),
				 errmsg("job " INT64_FORMAT " does not exist", job_id),
				 errdetail("It is finished or dead, or there never was one.")));
	leased_now = is_leased_now(&leased);
	if (leased_now)
	{
		EqJobEdit edit;

		eq_edit_job(&edit, leased.slot);
		eq_edit_set(&edit, JOB_CANCEL, BoolGetDatum(true));
		eq_write_job(&leased.jobs, leased.snapshot, &edit);
		eq_wake_cancels();
	}
	else
	{
		Jsonb *metadata = leased.slot->tts_isnull[JOB_METADATA - 1]
							  ? NULL
							  : DatumGetJsonbPCopy(
									leased.slot->tts_values[JOB_METADATA - 1]);

		eq_forbid_mark_raise();
		eq_table_delete(&leased.jobs, leased.slot, leased.snapshot);
		if (DatumGetBool(leased.slot->tts_values[JOB_HAS_DEPENDENTS - 1]))
			eq_settle_dependents(job_id, NULL, true);
		if (DatumGetBool(leased.slot->tts_values[JOB_HAS_STEPS - 1]))
			eq_undo_steps(job_id, metadata, false);
		eq_count(leased.queue->queue_id, EQ_COUNT_CANCELLED, 1);
		eq_count_job_row(leased.slot->tts_values, EQ_COUNT_CANCELLED, 0, false);
		eq_count_lease_gone(leased.slot);
		eq_after_lease(&leased, job_id, true);
	}
	tell(leased_now ? "requested" : "cancelled", "cancel_job", &leased, job_id);
	eq_close_jobs(&leased);
	PG_RETURN_TEXT_P(cstring_to_text(leased_now ? "requested" : "cancelled"));
}

/* Locks a job that is not leased, or raises EQ032. */
static void
open_waiting_job(EqLeased *leased, int64 job_id, const char *hint)
{
	eq_open_jobs(leased);
	if (!lock_job_by_id(leased, job_id) || is_leased_now(leased))
		ereport(ERROR, (errcode(ERRCODE_EQ_UNKNOWN_JOB),
						errmsg("job " INT64_FORMAT " is not waiting", job_id),
						hint ? errhint("%s", hint) : 0));
}

Datum
eq_change_priority(PG_FUNCTION_ARGS)
{
	int64 job_id = PG_ARGISNULL(0) ? 0 : PG_GETARG_INT64(0);
	int priority = eq_check_priority(PG_ARGISNULL(1) ? -1 : PG_GETARG_INT32(1));
	EqLeased leased;
	EqJobEdit edit;

	open_waiting_job(&leased, job_id, NULL);
	eq_edit_job(&edit, leased.slot);
	eq_edit_set(&edit, JOB_PRIORITY, Int16GetDatum(priority));
	eq_write_job(&leased.jobs, leased.snapshot, &edit);
	tell(psprintf("priority %d", priority), "change_priority", &leased, job_id);
	eq_close_jobs(&leased);
	PG_RETURN_BOOL(true);
}

Datum
eq_change_payload(PG_FUNCTION_ARGS)
{
	int64 job_id = PG_ARGISNULL(0) ? 0 : PG_GETARG_INT64(0);
	bool by_worker = !PG_ARGISNULL(2);
	EqLeased leased;
	EqJobEdit edit;

	if (PG_ARGISNULL(1))
		ereport(ERROR, (errcode(ERRCODE_EQ_INVALID_ARGUMENT),
						errmsg("payload must not be null"),
						errhint("An empty one is '{}'.")));
	eq_check_payload("job payload", PG_GETARG_JSONB_P(1));
	if (by_worker)
	{
		eq_open_leased(&leased, job_id, PG_GETARG_UUID_P(2), false);
		eq_check_not_cancelled(&leased, job_id);
	}
	else
		open_waiting_job(
			&leased, job_id,
			"A leased job is its worker's to change, with the lease_token; a dead letter gets a new payload from event_queue.retry_dead.");
	if (leased.queue->queue_id <= EQ_SNAPSHOTS)
		ereport(ERROR,
				(errcode(ERRCODE_EQ_INTERNAL_QUEUE),
				 errmsg("job " INT64_FORMAT " is of an internal queue", job_id)));
	eq_edit_job(&edit, leased.slot);
	eq_edit_set(&edit, JOB_PAYLOAD, PG_GETARG_DATUM(1));
	eq_write_job(&leased.jobs, leased.snapshot, &edit);
	/* A worker's change of its own job is no act of administration: not audited. */
	if (!by_worker)
		tell("payload changed", "change_payload", &leased, job_id);
	eq_close_jobs(&leased);
	PG_RETURN_BOOL(true);
}

Datum
eq_promote_job(PG_FUNCTION_ARGS)
{
	int64 job_id = PG_ARGISNULL(0) ? 0 : PG_GETARG_INT64(0);
	EqLeased leased;
	EqJobEdit edit;

	open_waiting_job(
		&leased, job_id,
		"A dead letter goes back into its queue by event_queue.retry_dead.");
	eq_edit_job(&edit, leased.slot);
	if (DatumGetTimestampTz(edit.values[JOB_RUN_AT - 1]) <= leased.now ||
		DatumGetBool(edit.values[JOB_SUSPENDED - 1]))
		ereport(ERROR,
				(errcode(ERRCODE_EQ_UNKNOWN_JOB),
				 errmsg("job " INT64_FORMAT " does not wait for its time", job_id),
				 errdetail("It is due already, or suspended by sleep_job, "
						   "await_signal or await_event.")));
	eq_edit_set_run_at(&edit, leased.queue, leased.now);
	eq_write_job(&leased.jobs, leased.snapshot, &edit);
	/* Others of its group may have passed the job: the scheduler decides which one runs. */
	if (!edit.nulls[JOB_GROUP_KEY - 1])
		eq_review_group(leased.queue->queue_id, edit.values[JOB_TENANT - 1],
						edit.values[JOB_GROUP_KEY - 1]);
	tell("due now", "promote_job", &leased, job_id);
	eq_close_jobs(&leased);
	PG_RETURN_BOOL(true);
}
