/*
 * settle.c: how a leased job ends: complete, fail, release.  (Finding it by its lease
 * is lease.c.)
 *
 * A complete spares the lock: it deletes the version with its token, which fails if
 * there is a newer one.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "common/argument.h"
#include "queue/lease.h"
#include "wake/wake.h"

PG_FUNCTION_INFO_V1(eq_complete_sql);
PG_FUNCTION_INFO_V1(eq_complete_many);
PG_FUNCTION_INFO_V1(eq_fail_sql);
PG_FUNCTION_INFO_V1(eq_release_sql);

/* The job in the slot, whose token has been seen, is done. */
static void
finish(EqLeased *leased, int64 job_id, const pg_uuid_t *token, Jsonb *result)
{
	Datum *job = leased->slot->tts_values;
	TimestampTz run_at = DatumGetTimestampTz(job[JOB_RUN_AT - 1]);
	TimestampTz claimed_at = DatumGetTimestampTz(job[JOB_CLAIMED_AT - 1]);

	if (!eq_table_delete_unchanged(&leased->jobs, leased->slot, leased->snapshot))
	{
		if (!eq_lock_job(leased) || !eq_has_token(leased->slot, token))
			eq_lease_lost(job_id);
		eq_table_delete(&leased->jobs, leased->slot, leased->snapshot);
	}
	if (leased->queue->keep_completed > 0)
		eq_keep_completed(leased->slot, leased->now, leased->queue->keep_completed,
						  result);
	if (DatumGetBool(leased->slot->tts_values[JOB_HAS_DEPENDENTS - 1]))
		eq_settle_dependents(job_id, result, false);

	eq_count(leased->queue->queue_id, EQ_COUNT_COMPLETED, 1);
	eq_count(leased->queue->queue_id, EQ_COUNT_RUN_US,
			 Max(leased->now - claimed_at, 0));
	if (leased->queue->sla > 0 && leased->now - run_at > leased->queue->sla)
		eq_count(leased->queue->queue_id, EQ_COUNT_LATE, 1);
	eq_after_lease(leased, job_id, true);
}

/* Of many, some settled before in this transaction are not seen by a snapshot. */
static void
complete_one(EqLeased *leased, int64 job_id, const pg_uuid_t *token, Jsonb *result)
{
	if (!eq_find_job(leased, job_id, token) || !eq_has_token(leased->slot, token) ||
		!eq_load_job_queue(leased, job_id))
	{
		/* Perhaps a version that the snapshot can't see, or a lost lease. */
		if (TTS_EMPTY(leased->slot) || !eq_lock_job(leased) ||
			!eq_has_token(leased->slot, token) || !eq_load_job_queue(leased, job_id))
			eq_lease_lost(job_id);
	}
	if (!leased->queue->durable)
		eq_begin_weak(leased);
	else if (leased->weak)
	{
		eq_weak_writes_end();
		leased->weak = false;
	}
	finish(leased, job_id, token, result);
	ExecClearTuple(leased->slot);
}

void
eq_complete(int64 job_id, const pg_uuid_t *token, Jsonb *result)
{
	EqLeased leased;

	eq_open_jobs(&leased);
	complete_one(&leased, job_id, token, result);
	eq_close_jobs(&leased);
}

static void
array_argument(FunctionCallInfo fcinfo, int argno, Oid type, int length, char align,
			   bool by_value, Datum **values, bool **nulls, int *n)
{
	*n = 0;
	if (PG_ARGISNULL(argno))
		return;
	deconstruct_array(PG_GETARG_ARRAYTYPE_P(argno), type, length, by_value, align,
					  values, nulls, n);
}

/* Where a job stands in the arguments of complete_many. */
typedef struct Given
{
	int64 job_id;
	int place;
} Given;

static int
compare_given(const void *a, const void *b)
{
	const Given *x = a;
	const Given *y = b;

	if (x->job_id != y->job_id)
		return x->job_id < y->job_id ? -1 : 1;
	return x->place - y->place;
}

/*
 * complete_many: in the order of ids, as all do who take many jobs, so that two who
 * have some in common don't deadlock.  job_ids and lease_tokens are the first arguments, results the
 * one at this place.
 */
int
eq_complete_all(FunctionCallInfo fcinfo, int results_argno)
{
	Datum *ids;
	Datum *tokens;
	Datum *results;
	bool *id_nulls;
	bool *token_nulls;
	bool *result_nulls;
	int n_ids;
	int n_tokens;
	int n_results;
	Given *given;
	EqLeased leased;

	array_argument(fcinfo, 0, INT8OID, 8, TYPALIGN_DOUBLE, FLOAT8PASSBYVAL, &ids,
				   &id_nulls, &n_ids);
	array_argument(fcinfo, 1, UUIDOID, UUID_LEN, TYPALIGN_CHAR, false, &tokens,
				   &token_nulls, &n_tokens);
	array_argument(fcinfo, results_argno, JSONBOID, -1, TYPALIGN_INT, false,
				   &results, &result_nulls, &n_results);
	if (n_ids != n_tokens || (n_results != 0 && n_results != n_ids))
		ereport(ERROR,
				(errcode(ERRCODE_EQ_INVALID_ARGUMENT),
				 errmsg("job_ids, lease_tokens and results must be equally long")));
	if (n_ids == 0)
		return 0;
	given = palloc(n_ids * sizeof(Given));
	for (int i = 0; i < n_ids; i++)
	{
		if (id_nulls[i] || token_nulls[i])
			ereport(ERROR, (errcode(ERRCODE_EQ_INVALID_ARGUMENT),
							errmsg("job_id and lease_token must not be null")));
		given[i].job_id = DatumGetInt64(ids[i]);
		given[i].place = i;
	}
	qsort(given, n_ids, sizeof(Given), compare_given);
	eq_open_jobs(&leased);
	for (int nth = 0; nth < n_ids; nth++)
	{
		int i = given[nth].place;
		Jsonb *result = NULL;

		CHECK_FOR_INTERRUPTS();
		if (nth > 0 && given[nth].job_id == given[nth - 1].job_id)
			eq_lease_lost(given[nth].job_id); /* by the one before */
		if (n_results > 0 && !result_nulls[i])
		{
			result = DatumGetJsonbP(results[i]);
			eq_check_payload("job result", result);
		}
		complete_one(&leased, DatumGetInt64(ids[i]), DatumGetUUIDP(tokens[i]),
					 result);
	}
	eq_close_jobs(&leased);
	return n_ids;
}

/* retry_after < 0: by the backoff.  Returns 0 if the job is a dead letter now. */
TimestampTz
eq_fail_leased(EqLeased *leased, int64 job_id, const char *message,
			   const char *sqlstate, const char *context, int64 retry_after,
			   bool final)
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
	max_attempts = isnull[JOB_MAX_ATTEMPTS - 1]
					   ? leased->queue->max_attempts
					   : DatumGetInt32(job[JOB_MAX_ATTEMPTS - 1]);
	errors = eq_add_error(leased->slot, failures, sqlstate, message, context);

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
	}
	eq_count(leased->queue->queue_id, EQ_COUNT_FAILED, 1);
	eq_after_lease(leased, job_id, leaves_group);
	return next;
}

TimestampTz
eq_fail(int64 job_id, const pg_uuid_t *token, const char *message,
		const char *sqlstate, const char *context, int64 retry_after, bool final)
{
	EqLeased leased;
	TimestampTz next;

	eq_open_leased(&leased, job_id, token, false);
	next = eq_fail_leased(&leased, job_id, message, sqlstate, context, retry_after,
						  final);
	eq_close_jobs(&leased);
	return next;
}

void
eq_release(int64 job_id, const pg_uuid_t *token, int64 delay)
{
	EqLeased leased;
	EqJobEdit edit;

	eq_open_leased(&leased, job_id, token, false);
	eq_edit_job(&edit, leased.slot);
	if (delay > 0)
		eq_edit_set_run_at(&edit, leased.queue, leased.now + delay);
	eq_edit_clear_lease(&edit);
	eq_write_job(&leased.jobs, leased.snapshot, &edit);
	eq_count(leased.queue->queue_id, EQ_COUNT_RELEASED, 1);
	eq_after_lease(&leased, job_id, false);
	eq_close_jobs(&leased);
}

Datum
eq_complete_sql(PG_FUNCTION_ARGS)
{
	int64 job_id = eq_job_id_argument(fcinfo);
	Jsonb *result = PG_ARGISNULL(2) ? NULL : PG_GETARG_JSONB_P(2);

	if (result)
		eq_check_payload("job result", result);
	eq_complete(job_id, PG_GETARG_UUID_P(1), result);
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
				   PG_ARGISNULL(3) ? NULL : text_to_cstring(PG_GETARG_TEXT_PP(3)),
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
	eq_release(job_id, PG_GETARG_UUID_P(1), delay);
	PG_RETURN_BOOL(true);
}

Datum
eq_complete_many(PG_FUNCTION_ARGS)
{
	PG_RETURN_INT32(eq_complete_all(fcinfo, 2));
}
