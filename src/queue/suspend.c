/*
 * suspend.c: suspends jobs that wait for a step, resumes them, and completes a handler's
 * job unless the handler has settled or suspended it.
 *
 * A suspended job is a waiting job: it has no lease, and its run_at is the time at which it
 * stops waiting (100 years from now: never).  The step that it waits for is a row of
 * job_step (src/steps); resume_job brings run_at forward.  The job keeps its turn in its
 * group: jobs of one key stay in order.  No attempt is counted.
 */
#include "postgres.h"

#include "access/tableam.h"
#include "fmgr.h"
#include "utils/timestamp.h"

#include "queue/lease.h"
#include "wake/wake.h"

PG_FUNCTION_INFO_V1(eq_resume_job_sql);

/* A lease that was given back in this transaction by suspending its job. */
typedef struct Suspended
{
	SubTransactionId subid;
	int64 job_id;
	pg_uuid_t token;
} Suspended;

EqXactKind eq_suspended_jobs = {.entry_size = sizeof(Suspended)};

/* Was the job of this lease suspended in this transaction, and not rolled back? */
bool
eq_is_suspended(int64 job_id, const pg_uuid_t *token)
{
	for (int i = eq_suspended_jobs.n - 1; i >= 0; i--)
	{
		Suspended *entry = EQ_XACT_ENTRY(eq_suspended_jobs, Suspended, i);

		if (entry->job_id == job_id &&
			memcmp(&entry->token, token, sizeof(pg_uuid_t)) == 0)
			return true;
	}
	return false;
}

/* Suspends the leased job, which the caller has locked, until then. */
void
eq_suspend_leased(EqLeased *leased, int64 job_id, const pg_uuid_t *token,
				  TimestampTz until)
{
	EqJobEdit edit;
	Suspended *entry = eq_xact_add(&eq_suspended_jobs);

	entry->job_id = job_id;
	entry->token = *token;
	eq_edit_job(&edit, leased->slot);
	eq_edit_set_run_at(&edit, leased->queue, until);
	eq_edit_clear_lease(&edit);
	eq_edit_set(&edit, JOB_SUSPENDED, BoolGetDatum(true));
	eq_edit_set(&edit, JOB_HAS_STEPS, BoolGetDatum(true));
	eq_write_job(&leased->jobs, leased->snapshot, &edit);
	eq_count(leased->queue->queue_id, EQ_COUNT_RELEASED, 1);
	eq_count_job_row(leased->slot->tts_values, EQ_COUNT_RELEASED, 0, false);
	eq_after_lease(leased, job_id, false);
}

/*
 * For whoever runs handlers, in the handler's (sub)transaction: completes its job, EQ033 if
 * it was cancelled; false if the handler has suspended it, which is to be committed as it is.
 */
bool
eq_complete_unless_suspended(int64 job_id, const pg_uuid_t *token, Jsonb *result)
{
	if (eq_is_suspended(job_id, token))
		return false;
	eq_complete(job_id, token, result, true);
	return true;
}

/*
 * resume_job(job_id bigint): a suspended job is due now.  False if it could not be done,
 * since another transaction has the job's row: waits for nobody, as its callers hold
 * what that one may want.
 */
Datum
eq_resume_job_sql(PG_FUNCTION_ARGS)
{
	int64 job_id = PG_GETARG_INT64(0);
	EqLeased leased;
	TM_FailureData failure;
	TM_Result result = TM_Deleted;

	eq_open_jobs(&leased);
	if (eq_find_job(&leased, job_id, NULL))
	{
		ItemPointerData tid = leased.slot->tts_tid;

		result = table_tuple_lock(leased.jobs.rel, &tid, leased.snapshot,
								  leased.slot, GetCurrentCommandId(false),
								  LockTupleExclusive, LockWaitSkip,
								  TUPLE_LOCK_FLAG_FIND_LAST_VERSION, &failure);
	}
	if (result == TM_Ok)
	{
		slot_getallattrs(leased.slot);
		leased.queue = eq_get_queue_by_id(
			DatumGetInt32(leased.slot->tts_values[JOB_QUEUE - 1]));
		/* If it is leased by now, its worker looks itself. */
		if (DatumGetBool(leased.slot->tts_values[JOB_SUSPENDED - 1]) &&
			leased.slot->tts_isnull[JOB_LEASED_UNTIL - 1] && leased.queue != NULL)
		{
			EqJobEdit edit;

			eq_edit_job(&edit, leased.slot);
			eq_edit_set(&edit, JOB_SUSPENDED, BoolGetDatum(false));
			eq_edit_set_run_at(
				&edit, leased.queue,
				Min(leased.now, DatumGetTimestampTz(edit.values[JOB_RUN_AT - 1])));
			eq_write_job(&leased.jobs, leased.snapshot, &edit);
		}
	}
	eq_close_jobs(&leased);
	PG_RETURN_BOOL(result != TM_WouldBlock);
}
