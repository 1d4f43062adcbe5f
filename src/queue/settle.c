/*
 * settle.c: settles leased jobs: complete, fail, release.  lease.c finds them by the lease.
 *
 * complete takes no row lock: it deletes the row version that has the token, which fails if
 * there is a newer one.
 */
#include "postgres.h"

#include "fmgr.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "common/argument.h"
#include "common/log_line.h"
#include "queue/lease.h"
#include "steps/steps.h"
#include "wake/series.h"
#include "wake/wake.h"
#include "tenant/tenant.h"

PG_FUNCTION_INFO_V1(eq_complete_sql);
PG_FUNCTION_INFO_V1(eq_fail_sql);
PG_FUNCTION_INFO_V1(eq_release_sql);
PG_FUNCTION_INFO_V1(eq_postpone_leased_queue);

/*
 * The line in the log of a run by a worker outside, with event_queue.log_attempts = all.
 * Executors and run_jobs write theirs themselves.
 */
static void
log_settled(EqLeased *leased, int64 job_id, const char *outcome,
			const char *sqlstate, const char *message)
{
	Datum *job = leased->slot->tts_values;
	bool *isnull = leased->slot->tts_isnull;
	char *worker = isnull[JOB_LEASED_BY - 1]
					   ? NULL
					   : TextDatumGetCString(job[JOB_LEASED_BY - 1]);
	EqAttempt attempt = {.queue = leased->queue->name,
						 .name = TextDatumGetCString(job[JOB_NAME - 1]),
						 .job_id = job_id,
						 .tenant = TextDatumGetCString(job[JOB_TENANT - 1]),
						 .worker = worker,
						 .attempt = DatumGetInt32(job[JOB_FAILURES - 1]) + 1,
						 .outcome = outcome,
						 .us = leased->now -
							   DatumGetTimestampTz(job[JOB_CLAIMED_AT - 1]),
						 .sqlstate = sqlstate,
						 .message = message,
						 .metadata = isnull[JOB_METADATA - 1]
										 ? NULL
										 : DatumGetJsonbP(job[JOB_METADATA - 1])};

	if (MyBackendType != B_BG_WORKER &&
		(worker == NULL || strcmp(worker, EQ_RUN_JOBS_WORKER) != 0))
		eq_log_attempt(&attempt);
}

/* Completes the job in the slot, whose token was compared; false if the lease is lost. */
static bool
finish(EqLeased *leased, int64 job_id, const pg_uuid_t *token, Jsonb *result)
{
	Datum *job = leased->slot->tts_values;
	TimestampTz run_at = DatumGetTimestampTz(job[JOB_RUN_AT - 1]);
	TimestampTz claimed_at = DatumGetTimestampTz(job[JOB_CLAIMED_AT - 1]);
	int64 run_us;
	int keep_count;
	int64 keep = eq_job_keep(leased->queue, leased->slot, &keep_count);

	if (leased->unless_cancelled)
		eq_check_not_cancelled(leased, job_id);
	if (!eq_table_delete_if_unchanged(&leased->jobs, leased->slot, leased->snapshot))
	{
		if (!eq_lock_job(leased) || !eq_has_token(leased->slot, token))
			return false;
		if (leased->unless_cancelled)
			eq_check_not_cancelled(leased, job_id);
		eq_table_delete(&leased->jobs, leased->slot, leased->snapshot);
	}
	if (keep > 0)
		eq_insert_history(leased->slot, leased->now, keep, keep_count, result);
	if (eq_keep_trace_s > 0)
		eq_insert_trace(keep, leased->slot, leased->now);
	if (DatumGetBool(leased->slot->tts_values[JOB_HAS_DEPENDENTS - 1]))
		eq_settle_dependents(job_id, result, false);
	if (DatumGetBool(leased->slot->tts_values[JOB_HAS_STEPS - 1]))
		eq_forget_steps(job_id);
	if (leased->queue->job_events)
		eq_tell_end(leased->queue, leased->slot->tts_values,
					leased->slot->tts_isnull,
					DatumGetInt32(leased->slot->tts_values[JOB_FAILURES - 1]),
					result, NULL, NULL);

	if (eq_log_attempts == EQ_LOG_ALL)
		log_settled(leased, job_id, "completed", NULL, NULL);
	job = leased->slot->tts_values;
	run_us = Max(leased->now - claimed_at, 0);
	eq_count(leased->queue->queue_id, EQ_COUNT_COMPLETED, 1);
	eq_count(leased->queue->queue_id, EQ_COUNT_RUN_US, run_us);
	eq_count_job_row(job, EQ_COUNT_COMPLETED, run_us, false);
	eq_count_lease_gone(leased->slot);
	if (leased->queue->sla > 0 && leased->now - run_at > leased->queue->sla)
	{
		eq_count(leased->queue->queue_id, EQ_COUNT_LATE, 1);
		eq_count_job_row(job, EQ_COUNT_LATE, 0, false);
	}
	eq_after_lease(leased, job_id, true);
	return true;
}

/*
 * Completes a job, perhaps one of many in a call; false, and nothing is changed, if its lease
 * is lost.
 */
bool
eq_try_complete(EqLeased *leased, int64 job_id, const pg_uuid_t *token,
				Jsonb *result)
{
	bool completed;
	bool is_here = eq_find_job(leased, job_id, token);

	if (is_here)
		slot_getallattrs(leased->slot);
	/* Another tenant's is not waited for; perhaps a version that the snapshot can't see. */
	if (!is_here || !eq_load_queue_if_visible(leased, job_id) ||
		(!eq_has_token(leased->slot, token) &&
		 (!eq_lock_job(leased) || !eq_has_token(leased->slot, token))))
	{
		ExecClearTuple(leased->slot);
		return false;
	}
	if (!leased->queue->durable)
		eq_begin_weak(leased);
	else if (leased->weak)
	{
		eq_weak_writes_end();
		leased->weak = false;
	}
	completed = finish(leased, job_id, token, result);
	ExecClearTuple(leased->slot);
	return completed;
}

/*
 * unless_cancelled, for handlers: raises EQ033 if the job was cancelled, which rolls the
 * handler's effects back.  Workers outside may complete such a job: what they did can't be
 * undone.
 */
void
eq_complete(int64 job_id, const pg_uuid_t *token, Jsonb *result,
			bool unless_cancelled)
{
	EqLeased leased;

	eq_open_jobs(&leased);
	leased.unless_cancelled = unless_cancelled;
	if (!eq_try_complete(&leased, job_id, token, result))
		eq_lease_lost(job_id);
	eq_close_jobs(&leased);
}

/* retry_after < 0: by the backoff.  Returns 0 if the job is a dead letter now. */
TimestampTz
eq_fail_leased(EqLeased *leased, int64 job_id, const char *message,
			   const char *detail, const char *sqlstate, const char *context,
			   int64 retry_after, bool final)
{
	Datum *job;
	bool *isnull;
	int failures;
	int max_attempts;
	Jsonb *errors;
	TimestampTz next = 0;
	bool leaves_group = true;

	job = leased->slot->tts_values;
	isnull = leased->slot->tts_isnull;
	failures = DatumGetInt32(job[JOB_FAILURES - 1]) + 1;
	final = final || DatumGetBool(job[JOB_CANCEL - 1]); /* it is not to run again */
	max_attempts = isnull[JOB_MAX_ATTEMPTS - 1]
					   ? leased->queue->max_attempts
					   : DatumGetInt32(job[JOB_MAX_ATTEMPTS - 1]);
	errors = eq_add_error(leased->slot, failures, sqlstate, message, detail,
						  context);
	if (eq_log_attempts == EQ_LOG_ALL)
		log_settled(leased, job_id,
					final || failures >= max_attempts ? "dead" : "failed", sqlstate,
					message);

	if (final || failures >= max_attempts)
		eq_bury(&leased->jobs, leased->slot, leased->snapshot,
				final ? "final" : "attempts", errors, failures,
				DatumGetInt32(job[JOB_STALLED - 1]));
	else
	{
		EqJobEdit edit;
		bool passes = leased->queue->group_pass && !isnull[JOB_GROUP_KEY - 1];
		const Datum *retry = isnull[JOB_RETRY - 1] ? NULL : &job[JOB_RETRY - 1];

		next = leased->now + (retry_after >= 0
								  ? retry_after
								  : eq_backoff(leased->queue, retry, failures));
		eq_edit_job(&edit, leased->slot);
		eq_edit_set(&edit, JOB_FAILURES, Int32GetDatum(failures));
		eq_edit_set(&edit, JOB_ERRORS, JsonbPGetDatum(errors));
		eq_edit_set_run_at(&edit, leased->queue, next);
		eq_edit_clear_lease(&edit);
		if (passes)
			eq_edit_set(&edit, JOB_BLOCKED, Int16GetDatum(JOB_BLOCKED_BY_GROUP));
		eq_write_job(&leased->jobs, leased->snapshot, &edit);
		leaves_group = passes;
		eq_count(leased->queue->queue_id, EQ_COUNT_RETRIED, 1);
		eq_count_job_row(job, EQ_COUNT_RETRIED, 0, false);
	}
	eq_count(leased->queue->queue_id, EQ_COUNT_FAILED, 1);
	eq_count_job_row(job, EQ_COUNT_FAILED, 0, false);
	eq_after_lease(leased, job_id, leaves_group);
	return next;
}

TimestampTz
eq_fail(int64 job_id, const pg_uuid_t *token, const char *message,
		const char *detail, const char *sqlstate, const char *context,
		int64 retry_after, bool final)
{
	EqLeased leased;
	TimestampTz next;

	eq_open_leased(&leased, job_id, token, false);
	next = eq_fail_leased(&leased, job_id, message, detail, sqlstate, context,
						  retry_after, final);
	eq_close_jobs(&leased);
	return next;
}

/* Returns the queue's number. */
int32
eq_release(int64 job_id, const pg_uuid_t *token, int64 delay)
{
	EqLeased leased;
	EqJobEdit edit;
	int32 queue_id;

	eq_open_leased(&leased, job_id, token, false);
	queue_id = leased.queue->queue_id;
	if (DatumGetBool(leased.slot->tts_values[JOB_CANCEL - 1]))
	{
		(void) eq_fail_leased(&leased, job_id, "job was cancelled", NULL,
							  unpack_sql_state(ERRCODE_EQ_JOB_CANCELLED), NULL, -1,
							  true);
		eq_close_jobs(&leased);
		return queue_id;
	}
	eq_edit_job(&edit, leased.slot);
	if (delay > 0)
		eq_edit_set_run_at(&edit, leased.queue, leased.now + delay);
	eq_edit_clear_lease(&edit);
	eq_write_job(&leased.jobs, leased.snapshot, &edit);
	eq_count(queue_id, EQ_COUNT_RELEASED, 1);
	eq_count_job_row(leased.slot->tts_values, EQ_COUNT_RELEASED, 0, false);
	eq_after_lease(&leased, job_id, false);
	eq_close_jobs(&leased);
	return queue_id;
}

Datum
eq_complete_sql(PG_FUNCTION_ARGS)
{
	int64 job_id = eq_job_id_argument(fcinfo);
	Jsonb *result = PG_ARGISNULL(2) ? NULL : PG_GETARG_JSONB_P(2);

	if (result)
		eq_check_payload("job result", result);
	eq_complete(job_id, PG_GETARG_UUID_P(1), result, false);
	PG_RETURN_BOOL(true);
}

Datum
eq_fail_sql(PG_FUNCTION_ARGS)
{
	int64 job_id = eq_job_id_argument(fcinfo);
	int64 retry_after = -1;
	TimestampTz next;

	if (!PG_ARGISNULL(5))
		retry_after = eq_check_delay(PG_GETARG_INTERVAL_P(5), "retry_after");
	next = eq_fail(job_id, PG_GETARG_UUID_P(1),
				   PG_ARGISNULL(2) ? NULL : text_to_cstring(PG_GETARG_TEXT_PP(2)),
				   NULL, eq_sqlstate_argument(fcinfo, 3),
				   PG_ARGISNULL(4) ? NULL : text_to_cstring(PG_GETARG_TEXT_PP(4)),
				   retry_after, !PG_ARGISNULL(6) && PG_GETARG_BOOL(6));
	if (next == 0)
		PG_RETURN_NULL();
	PG_RETURN_TIMESTAMPTZ(next);
}

Datum
eq_release_sql(PG_FUNCTION_ARGS)
{
	int64 job_id = eq_job_id_argument(fcinfo);
	int64 delay = 0;

	if (!PG_ARGISNULL(2))
		delay = eq_check_delay(PG_GETARG_INTERVAL_P(2), "delay");
	(void) eq_release(job_id, PG_GETARG_UUID_P(1), delay);
	PG_RETURN_BOOL(true);
}

/* postpone_queue with a lease.  A worker of one tenant postpones its job only: queues are shared. */
Datum
eq_postpone_leased_queue(PG_FUNCTION_ARGS)
{
	int64 job_id = eq_job_id_argument(fcinfo);
	const EqQueue *queue;
	int64 delay;

	if (PG_ARGISNULL(2))
		ereport(ERROR, (errcode(ERRCODE_EQ_INVALID_DELAY),
						errmsg("delay must not be null")));
	delay = eq_check_delay(PG_GETARG_INTERVAL_P(2), "delay");
	queue = eq_get_queue_by_id(eq_release(job_id, PG_GETARG_UUID_P(1), delay));
	if (queue == NULL || eq_confined_tenant() != NULL)
		PG_RETURN_BOOL(false);
	eq_hold_queue(queue, delay);
	PG_RETURN_BOOL(true);
}
