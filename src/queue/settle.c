/*
 * settle.c: how a leased job ends: complete, fail, release; and the heartbeat.
 *
 * Each call names the lease by its token.  The row is found by its id, locked
 * in its newest version (waiting for whoever is changing it), and only then the
 * token is compared: so a worker that lost its lease gets EQ016 and changes
 * nothing, whatever another session does at the same time.
 */
#include "postgres.h"

#include "access/tableam.h"
#include "access/xact.h"
#include "fmgr.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "queue/queue.h"
#include "store/store.h"
#include "table/table.h"
#include "tenant/tenant.h"
#include "wake/wake.h"

PG_FUNCTION_INFO_V1(eq_complete_sql);
PG_FUNCTION_INFO_V1(eq_fail_sql);
PG_FUNCTION_INFO_V1(eq_release_sql);
PG_FUNCTION_INFO_V1(eq_extend_lease_sql);

/* A job whose lease the caller holds, with its row locked. */
typedef struct Leased
{
	EqTable jobs;
	Snapshot snapshot;
	TupleTableSlot *slot; /* all columns fetched */
	const EqQueue *queue;
	TimestampTz now;
} Leased;

static void
lease_lost(int64 job_id)
{
	ereport(
		ERROR,
		(errcode(ERRCODE_EQ_LEASE_LOST),
		 errmsg("lease of job " INT64_FORMAT " is lost", job_id),
		 errdetail(
			 "The job is finished, or its lease ran out and another worker has claimed it."),
		 errhint(
			 "Undo the work, or let it be safe to repeat; take a longer lease or call event_queue.extend_lease.")));
}

/* Locks the job's row, or raises EQ016. */
static void
open_leased(Leased *leased, int64 job_id, const pg_uuid_t *token)
{
	const char *tenant = eq_confined_tenant();
	EqScan scan;
	ScanKeyData key;
	bool found;
	Datum *values;

	eq_table_open(&leased->jobs, eq_relation_oid(EQ_JOB), JOB_COLUMNS);
	leased->now = GetCurrentTimestamp();
	leased->snapshot = RegisterSnapshot(GetLatestSnapshot());
	leased->slot = table_slot_create(leased->jobs.rel, NULL);

	eq_scan_begin(&scan, leased->jobs.rel, eq_relation_oid(EQ_JOB_PKEY),
				  leased->snapshot, 1);
	eq_scan_key(&scan, &key, 1, BTEqualStrategyNumber, F_INT8EQ,
				Int64GetDatum(job_id));
	eq_scan_start(&scan, &key, 1);
	found = eq_scan_next(&scan, ForwardScanDirection);
	if (found)
	{
		TM_FailureData failure;

		found = table_tuple_lock(leased->jobs.rel, &scan.slot->tts_tid,
								 leased->snapshot, leased->slot,
								 GetCurrentCommandId(false), LockTupleExclusive,
								 LockWaitBlock, TUPLE_LOCK_FLAG_FIND_LAST_VERSION,
								 &failure) == TM_Ok;
	}
	eq_scan_end(&scan);
	if (!found)
		lease_lost(job_id);

	slot_getallattrs(leased->slot);
	values = leased->slot->tts_values;
	if (leased->slot->tts_isnull[JOB_LEASE_TOKEN - 1] ||
		memcmp(DatumGetUUIDP(values[JOB_LEASE_TOKEN - 1])->data, token->data,
			   UUID_LEN) != 0)
		lease_lost(job_id);
	if (tenant && strcmp(TextDatumGetCString(values[JOB_TENANT - 1]), tenant) != 0)
		lease_lost(job_id); /* whose it is, is not said */

	leased->queue = eq_get_queue_by_id(DatumGetInt32(values[JOB_QUEUE - 1]));
	if (leased->queue == NULL)
		elog(ERROR, "job " INT64_FORMAT " belongs to no queue", job_id);
}

static void
close_leased(Leased *leased)
{
	ExecDropSingleTupleTableSlot(leased->slot);
	UnregisterSnapshot(leased->snapshot);
	eq_table_close(&leased->jobs);
	CommandCounterIncrement();
}

/* Ends the lease in the row that is to be written. */
static void
clear_lease(bool *nulls)
{
	nulls[JOB_LEASE_TOKEN - 1] = true;
	nulls[JOB_LEASED_UNTIL - 1] = true;
	nulls[JOB_LEASED_BY - 1] = true;
}

/* The job gave up its place among the running ones. */
static void
after_lease(Leased *leased, int64 job_id)
{
	if (leased->queue->max_concurrency > 0)
	{
		eq_free_claim(leased->queue, job_id);
		eq_wake_queue(leased->queue->queue_id);
	}
}

/* Into job_history, for queues that keep completed jobs. */
static void
keep_completed(Leased *leased, Jsonb *result)
{
	EqTable history;
	Datum values[HISTORY_COLUMNS];
	bool nulls[HISTORY_COLUMNS] = {false};
	Datum *job = leased->slot->tts_values;

	values[HISTORY_ID - 1] = job[JOB_ID - 1];
	values[HISTORY_QUEUE - 1] = job[JOB_QUEUE - 1];
	values[HISTORY_TENANT - 1] = job[JOB_TENANT - 1];
	values[HISTORY_NAME - 1] = job[JOB_NAME - 1];
	values[HISTORY_PRIORITY - 1] = job[JOB_PRIORITY - 1];
	values[HISTORY_CREATED_AT - 1] = job[JOB_CREATED_AT - 1];
	values[HISTORY_RUN_AT - 1] = job[JOB_RUN_AT - 1];
	values[HISTORY_COMPLETED_AT - 1] = TimestampTzGetDatum(leased->now);
	values[HISTORY_LEASED_BY - 1] = job[JOB_LEASED_BY - 1];
	values[HISTORY_FAILURES - 1] = job[JOB_FAILURES - 1];
	values[HISTORY_STALLED - 1] = job[JOB_STALLED - 1];
	values[HISTORY_PAYLOAD - 1] = PointerGetDatum(
		PG_DETOAST_DATUM(job[JOB_PAYLOAD - 1]));
	values[HISTORY_METADATA - 1] = PointerGetDatum(
		PG_DETOAST_DATUM(job[JOB_METADATA - 1]));
	values[HISTORY_ERRORS - 1] = PointerGetDatum(
		PG_DETOAST_DATUM(job[JOB_ERRORS - 1]));
	values[HISTORY_RESULT - 1] = JsonbPGetDatum(result);
	nulls[HISTORY_RESULT - 1] = result == NULL;
	eq_table_open(&history, eq_relation_oid(EQ_JOB_HISTORY), HISTORY_COLUMNS);
	eq_table_insert(&history, values, nulls);
	eq_table_close(&history);
}

void
eq_complete(int64 job_id, const pg_uuid_t *token, Jsonb *result)
{
	Leased leased;
	TimestampTz run_at;
	TimestampTz leased_until;

	open_leased(&leased, job_id, token);
	run_at = DatumGetTimestampTz(leased.slot->tts_values[JOB_RUN_AT - 1]);
	leased_until = DatumGetTimestampTz(
		leased.slot->tts_values[JOB_LEASED_UNTIL - 1]);

	if (leased.queue->keeps_completed)
		keep_completed(&leased, result);
	eq_table_delete(&leased.jobs, leased.slot, leased.snapshot);

	eq_count(leased.queue->queue_id, EQ_COUNT_COMPLETED, 1);
	/* The claim's time isn't stored: counted back from the lease's end. */
	eq_count(leased.queue->queue_id, EQ_COUNT_RUN_US,
			 Max(leased.now - (leased_until - leased.queue->lease), 0));
	if (leased.queue->sla > 0 && leased.now - run_at > leased.queue->sla)
		eq_count(leased.queue->queue_id, EQ_COUNT_LATE, 1);
	after_lease(&leased, job_id);
	close_leased(&leased);
}

/* retry_after < 0: by the backoff.  Returns 0 if the job is a dead letter now. */
TimestampTz
eq_fail(int64 job_id, const pg_uuid_t *token, const char *message,
		const char *sqlstate, const char *context, int64 retry_after, bool final)
{
	Leased leased;
	Datum *job;
	bool *isnull;
	int failures;
	int max_attempts;
	Jsonb *errors;
	TimestampTz next = 0;

	open_leased(&leased, job_id, token);
	job = leased.slot->tts_values;
	isnull = leased.slot->tts_isnull;
	failures = DatumGetInt32(job[JOB_FAILURES - 1]) + 1;
	max_attempts = isnull[JOB_MAX_ATTEMPTS - 1]
					   ? leased.queue->max_attempts
					   : DatumGetInt32(job[JOB_MAX_ATTEMPTS - 1]);
	errors = eq_add_error(DatumGetJsonbP(job[JOB_ERRORS - 1]), failures,
						  isnull[JOB_LEASED_BY - 1]
							  ? NULL
							  : TextDatumGetCString(job[JOB_LEASED_BY - 1]),
						  sqlstate, message, context);

	if (final || failures >= max_attempts)
		eq_bury(&leased.jobs, leased.slot, leased.snapshot,
				final ? "final" : "attempts", errors, failures,
				DatumGetInt32(job[JOB_STALLED - 1]));
	else
	{
		Datum values[JOB_COLUMNS];
		bool nulls[JOB_COLUMNS];
		bool exponential = leased.queue->exponential;
		int64 delay = leased.queue->backoff_delay;

		if (!isnull[JOB_BACKOFF - 1])
			exponential = strcmp(TextDatumGetCString(job[JOB_BACKOFF - 1]),
								 "exponential") == 0;
		if (!isnull[JOB_BACKOFF_DELAY - 1])
			delay = eq_interval_us(DatumGetIntervalP(job[JOB_BACKOFF_DELAY - 1]));
		next = leased.now + (retry_after >= 0 ? retry_after
											  : eq_backoff(leased.queue, exponential,
														   delay, failures));

		memcpy(values, job, sizeof(values));
		memcpy(nulls, isnull, sizeof(nulls));
		values[JOB_FAILURES - 1] = Int32GetDatum(failures);
		values[JOB_ERRORS - 1] = JsonbPGetDatum(errors);
		values[JOB_RUN_AT - 1] = TimestampTzGetDatum(next);
		clear_lease(nulls);
		eq_table_update(&leased.jobs, leased.slot, leased.snapshot, values, nulls);
		eq_wake_queue(leased.queue->queue_id);
	}
	eq_count(leased.queue->queue_id, EQ_COUNT_FAILED, 1);
	after_lease(&leased, job_id);
	close_leased(&leased);
	return next;
}

void
eq_release(int64 job_id, const pg_uuid_t *token, int64 delay)
{
	Leased leased;
	Datum values[JOB_COLUMNS];
	bool nulls[JOB_COLUMNS];

	open_leased(&leased, job_id, token);
	memcpy(values, leased.slot->tts_values, sizeof(values));
	memcpy(nulls, leased.slot->tts_isnull, sizeof(nulls));
	if (delay > 0)
		values[JOB_RUN_AT - 1] = TimestampTzGetDatum(leased.now + delay);
	clear_lease(nulls);
	eq_table_update(&leased.jobs, leased.slot, leased.snapshot, values, nulls);
	eq_count(leased.queue->queue_id, EQ_COUNT_RELEASED, 1);
	eq_wake_queue(leased.queue->queue_id);
	after_lease(&leased, job_id);
	close_leased(&leased);
}

static int64
job_id_argument(FunctionCallInfo fcinfo)
{
	if (PG_ARGISNULL(0) || PG_ARGISNULL(1))
		ereport(ERROR, (errcode(ERRCODE_EQ_INVALID_ARGUMENT),
						errmsg("job_id and lease_token must not be null")));
	return PG_GETARG_INT64(0);
}

Datum
eq_complete_sql(PG_FUNCTION_ARGS)
{
	int64 job_id = job_id_argument(fcinfo);
	Jsonb *result = PG_ARGISNULL(2) ? NULL : PG_GETARG_JSONB_P(2);

	if (result)
		eq_check_payload("job result", result);
	eq_complete(job_id, PG_GETARG_UUID_P(1), result);
	PG_RETURN_VOID();
}

Datum
eq_fail_sql(PG_FUNCTION_ARGS)
{
	int64 job_id = job_id_argument(fcinfo);
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
	int64 job_id = job_id_argument(fcinfo);
	int64 delay = 0;

	if (!PG_ARGISNULL(2))
		delay = eq_check_delay(PG_GETARG_INTERVAL_P(2), "delay");
	eq_release(job_id, PG_GETARG_UUID_P(1), delay);
	PG_RETURN_VOID();
}

Datum
eq_extend_lease_sql(PG_FUNCTION_ARGS)
{
	int64 job_id = job_id_argument(fcinfo);
	int64 lease = 0;
	Leased leased;
	Datum values[JOB_COLUMNS];
	bool nulls[JOB_COLUMNS];
	TimestampTz until;

	if (!PG_ARGISNULL(2))
	{
		lease = eq_interval_us(PG_GETARG_INTERVAL_P(2));
		if (lease <= 0 || lease > 7 * USECS_PER_DAY)
			ereport(ERROR, (errcode(ERRCODE_EQ_INVALID_SETTING),
							errmsg("lease must be positive and at most 7 days")));
	}
	open_leased(&leased, job_id, PG_GETARG_UUID_P(1));
	until = leased.now + (lease ? lease : leased.queue->lease);
	memcpy(values, leased.slot->tts_values, sizeof(values));
	memcpy(nulls, leased.slot->tts_isnull, sizeof(nulls));
	values[JOB_LEASED_UNTIL - 1] = TimestampTzGetDatum(until);
	eq_table_update(&leased.jobs, leased.slot, leased.snapshot, values, nulls);
	if (leased.queue->max_concurrency > 0)
		eq_prolong_claim(leased.queue, job_id, until);
	close_leased(&leased);
	PG_RETURN_TIMESTAMPTZ(until);
}
