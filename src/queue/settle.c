/*
 * settle.c: how a leased job ends: complete, fail, release; what its worker says
 * meanwhile: heartbeat and progress; and what others do to a job: cancel it, change
 * its priority.
 *
 * Each call names the lease by its token.  The row is found where the token says
 * (or, if it has moved, by its id), and locked in its newest version, waiting for
 * whoever is changing it; only then the token is compared: so a worker that lost
 * its lease gets EQ016 and changes nothing, whatever another session does at the
 * same time.  A complete spares the lock: it deletes the version with its token,
 * which fails if there is a newer one.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/array.h"
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
PG_FUNCTION_INFO_V1(eq_complete_many);
PG_FUNCTION_INFO_V1(eq_fail_sql);
PG_FUNCTION_INFO_V1(eq_release_sql);
PG_FUNCTION_INFO_V1(eq_extend_lease_sql);
PG_FUNCTION_INFO_V1(eq_report_progress);
PG_FUNCTION_INFO_V1(eq_cancel_job);
PG_FUNCTION_INFO_V1(eq_change_priority);

/* The table, and a job in it whose lease the caller holds. */
typedef struct Leased
{
	EqTable jobs;
	Snapshot snapshot;
	TupleTableSlot *slot; /* all columns fetched */
	const EqQueue *queue; /* of the job */
	const char *tenant;	  /* the caller is confined to; NULL: none */
	TimestampTz now;
	bool weak; /* the writes need not be durable */
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

static void
open_jobs(Leased *leased)
{
	memset(leased, 0, sizeof(Leased));
	leased->tenant = eq_confined_tenant();
	eq_table_open(&leased->jobs, eq_relation_oid(EQ_JOB), JOB_COLUMNS);
	leased->now = GetCurrentTimestamp();
	leased->snapshot = RegisterSnapshot(GetLatestSnapshot());
	leased->slot = table_slot_create(leased->jobs.rel, NULL);
}

static void
close_jobs(Leased *leased)
{
	ExecDropSingleTupleTableSlot(leased->slot);
	UnregisterSnapshot(leased->snapshot);
	eq_table_close(&leased->jobs);
	CommandCounterIncrement();
	if (leased->weak)
		eq_weak_writes_end();
}

static int64
slot_job_id(TupleTableSlot *slot)
{
	bool isnull;

	return DatumGetInt64(slot_getattr(slot, JOB_ID, &isnull));
}

/* The version of a job's row that the snapshot sees, into leased->slot. */
static bool
find_job(Leased *leased, int64 job_id, const pg_uuid_t *token)
{
	EqScan scan;
	ScanKeyData key;
	ItemPointerData root;
	bool found;

	if (token)
	{
		eq_token_place(token, &root);
		if (eq_table_fetch(&leased->jobs, &root, leased->snapshot, leased->slot) &&
			slot_job_id(leased->slot) == job_id)
			return true;
		/* Another job's row, or none: nobody may take it for this one. */
		ExecClearTuple(leased->slot);
	}
	eq_scan_begin(&scan, leased->jobs.rel, eq_relation_oid(EQ_JOB_PKEY),
				  leased->snapshot, 1);
	eq_scan_key(&scan, &key, 1, BTEqualStrategyNumber, F_INT8EQ,
				Int64GetDatum(job_id));
	eq_scan_start(&scan, &key, 1);
	found = eq_scan_next(&scan, ForwardScanDirection);
	if (found)
		ExecCopySlot(leased->slot, scan.slot);
	eq_scan_end(&scan);
	return found;
}

/* Locks the row that find_job found, in its newest version. */
static bool
lock_job(Leased *leased)
{
	TM_FailureData failure;
	ItemPointerData tid = leased->slot->tts_tid;

	return table_tuple_lock(leased->jobs.rel, &tid, leased->snapshot, leased->slot,
							GetCurrentCommandId(false), LockTupleExclusive,
							LockWaitBlock, TUPLE_LOCK_FLAG_FIND_LAST_VERSION,
							&failure) == TM_Ok;
}

static bool
has_token(TupleTableSlot *slot, const pg_uuid_t *token)
{
	slot_getallattrs(slot);
	return !slot->tts_isnull[JOB_LEASE_TOKEN - 1] &&
		   memcmp(DatumGetUUIDP(slot->tts_values[JOB_LEASE_TOKEN - 1])->data,
				  token->data, UUID_LEN) == 0;
}

/* The job in the slot: is it the caller's to see, and of which queue? */
static bool
take_queue(Leased *leased, int64 job_id)
{
	Datum *values = leased->slot->tts_values;
	int32 queue_id = DatumGetInt32(values[JOB_QUEUE - 1]);

	if (leased->tenant &&
		strcmp(TextDatumGetCString(values[JOB_TENANT - 1]), leased->tenant) != 0)
		return false;
	if (leased->queue == NULL || leased->queue->queue_id != queue_id)
		leased->queue = eq_get_queue_by_id(queue_id);
	if (leased->queue == NULL)
		ereport(ERROR, (errcode(ERRCODE_EQ_UNKNOWN_QUEUE),
						errmsg("job " INT64_FORMAT " belongs to no queue", job_id)));
	return true;
}

/* What is written from here on may be lost in a crash. */
static void
begin_weak(Leased *leased)
{
	if (!leased->weak)
		eq_weak_writes_begin();
	leased->weak = true;
}

/* Locks the job's row, or raises EQ016. */
static void
open_leased(Leased *leased, int64 job_id, const pg_uuid_t *token, bool weak)
{
	open_jobs(leased);
	if (!find_job(leased, job_id, token))
		lease_lost(job_id);
	slot_getallattrs(leased->slot);
	if (!take_queue(leased, job_id))
		lease_lost(job_id); /* whose it is, is not said */
	if (weak || !leased->queue->durable)
		begin_weak(leased);
	if (!lock_job(leased) || !has_token(leased->slot, token))
		lease_lost(job_id);
}

/* Ends the lease in the row that is to be written. */
static void
clear_lease(bool *nulls)
{
	nulls[JOB_LEASE_TOKEN - 1] = true;
	nulls[JOB_LEASED_UNTIL - 1] = true;
	nulls[JOB_LEASED_BY - 1] = true;
	nulls[JOB_CLAIMED_AT - 1] = true;
	nulls[JOB_LEASE_PID - 1] = true;
}

/* The job gave up its place among the running ones, or in its group. */
static void
after_lease(Leased *leased, int64 job_id, bool leaves_group)
{
	TupleTableSlot *slot = leased->slot;

	if (leased->queue->max_concurrency > 0)
	{
		eq_free_claim(
			leased->queue, job_id,
			slot->tts_isnull[JOB_LEASED_UNTIL - 1]
				? 0
				: DatumGetTimestampTz(slot->tts_values[JOB_LEASED_UNTIL - 1]));
		eq_wake_queue(leased->queue->queue_id);
	}
	if (leaves_group && !slot->tts_isnull[JOB_GROUP_KEY - 1])
		eq_review_group(leased->queue->queue_id, slot->tts_values[JOB_TENANT - 1],
						slot->tts_values[JOB_GROUP_KEY - 1]);
}

/* Plain SQL has deleted a job: what it had of its queue's limits goes to others. */
void
eq_job_deleted(int32 queue_id, HeapTuple row, TupleDesc desc)
{
	const EqQueue *queue = eq_get_queue_by_id(queue_id);
	bool isnull;
	Datum until = heap_getattr(row, JOB_LEASED_UNTIL, desc, &isnull);

	if (isnull || queue == NULL || queue->max_concurrency == 0)
		return;
	eq_free_claim(queue, DatumGetInt64(heap_getattr(row, JOB_ID, desc, &isnull)),
				  DatumGetTimestampTz(until));
	eq_wake_queue(queue_id);
}

/* The job in the slot, whose token has been seen, is done. */
static void
finish(Leased *leased, int64 job_id, const pg_uuid_t *token, Jsonb *result)
{
	Datum *job = leased->slot->tts_values;
	TimestampTz run_at = DatumGetTimestampTz(job[JOB_RUN_AT - 1]);
	TimestampTz claimed_at = DatumGetTimestampTz(job[JOB_CLAIMED_AT - 1]);

	if (!eq_table_delete_unchanged(&leased->jobs, leased->slot, leased->snapshot))
	{
		if (!lock_job(leased) || !has_token(leased->slot, token))
			lease_lost(job_id);
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
	after_lease(leased, job_id, true);
}

/* Of many, some settled before in this transaction are not seen by a snapshot. */
static void
complete_one(Leased *leased, int64 job_id, const pg_uuid_t *token, Jsonb *result)
{
	if (!find_job(leased, job_id, token) || !has_token(leased->slot, token) ||
		!take_queue(leased, job_id))
	{
		/* Perhaps a version that the snapshot can't see, or a lost lease. */
		if (TTS_EMPTY(leased->slot) || !lock_job(leased) ||
			!has_token(leased->slot, token) || !take_queue(leased, job_id))
			lease_lost(job_id);
	}
	if (!leased->queue->durable)
		begin_weak(leased);
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
	Leased leased;

	open_jobs(&leased);
	complete_one(&leased, job_id, token, result);
	close_jobs(&leased);
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
	Leased leased;

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
	open_jobs(&leased);
	for (int nth = 0; nth < n_ids; nth++)
	{
		int i = given[nth].place;
		Jsonb *result = NULL;

		CHECK_FOR_INTERRUPTS();
		if (nth > 0 && given[nth].job_id == given[nth - 1].job_id)
			lease_lost(given[nth].job_id); /* by the one before */
		if (n_results > 0 && !result_nulls[i])
		{
			result = DatumGetJsonbP(results[i]);
			eq_check_payload("job result", result);
		}
		complete_one(&leased, DatumGetInt64(ids[i]), DatumGetUUIDP(tokens[i]),
					 result);
	}
	close_jobs(&leased);
	return n_ids;
}

/* The row that is to be written waits until then. */
static void
set_run_at(Leased *leased, Datum *values, TimestampTz run_at)
{
	values[JOB_RUN_AT - 1] = TimestampTzGetDatum(run_at);
	if (leased->queue->fair)
		values[JOB_LANE - 1] = Int32GetDatum(eq_job_lane(
			leased->queue, TextDatumGetCString(values[JOB_TENANT - 1]), run_at));
}

/* The row was written as one that waits. */
static void
note_waiting(Leased *leased, const Datum *values)
{
	eq_note_ready(DatumGetInt32(values[JOB_QUEUE - 1]),
				  DatumGetInt32(values[JOB_LANE - 1]),
				  DatumGetInt16(values[JOB_PRIORITY - 1]),
				  DatumGetTimestampTz(values[JOB_RUN_AT - 1]),
				  DatumGetInt64(values[JOB_ID - 1]));
	eq_wake_queue(leased->queue->queue_id);
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
	bool leaves_group = true;

	open_leased(&leased, job_id, token, false);
	job = leased.slot->tts_values;
	isnull = leased.slot->tts_isnull;
	failures = DatumGetInt32(job[JOB_FAILURES - 1]) + 1;
	max_attempts = isnull[JOB_MAX_ATTEMPTS - 1]
					   ? leased.queue->max_attempts
					   : DatumGetInt32(job[JOB_MAX_ATTEMPTS - 1]);
	errors = eq_add_error(leased.slot, failures, sqlstate, message, context);

	if (final || failures >= max_attempts)
		eq_bury(&leased.jobs, leased.slot, leased.snapshot,
				final ? "final" : "attempts", errors, failures,
				DatumGetInt32(job[JOB_STALLED - 1]));
	else
	{
		Datum values[JOB_COLUMNS];
		bool nulls[JOB_COLUMNS];
		bool passes = leased.queue->group_pass && !isnull[JOB_GROUP_KEY - 1];
		const Datum *retry = isnull[JOB_RETRY - 1] ? NULL : &job[JOB_RETRY - 1];

		next = leased.now + (retry_after >= 0
								 ? retry_after
								 : eq_backoff(leased.queue, retry, failures));
		memcpy(values, job, sizeof(values));
		memcpy(nulls, isnull, sizeof(nulls));
		values[JOB_FAILURES - 1] = Int32GetDatum(failures);
		values[JOB_ERRORS - 1] = JsonbPGetDatum(errors);
		set_run_at(&leased, values, next);
		nulls[JOB_ERRORS - 1] = false;
		clear_lease(nulls);
		if (passes)
			values[JOB_BLOCKED - 1] = Int16GetDatum(JOB_BLOCKED_BY_GROUP);
		eq_table_update(&leased.jobs, leased.slot, leased.snapshot, values, nulls);
		note_waiting(&leased, values);
		leaves_group = passes;
	}
	eq_count(leased.queue->queue_id, EQ_COUNT_FAILED, 1);
	after_lease(&leased, job_id, leaves_group);
	close_jobs(&leased);
	return next;
}

void
eq_release(int64 job_id, const pg_uuid_t *token, int64 delay)
{
	Leased leased;
	Datum values[JOB_COLUMNS];
	bool nulls[JOB_COLUMNS];

	open_leased(&leased, job_id, token, false);
	memcpy(values, leased.slot->tts_values, sizeof(values));
	memcpy(nulls, leased.slot->tts_isnull, sizeof(nulls));
	if (delay > 0)
		set_run_at(&leased, values, leased.now + delay);
	clear_lease(nulls);
	eq_table_update(&leased.jobs, leased.slot, leased.snapshot, values, nulls);
	eq_count(leased.queue->queue_id, EQ_COUNT_RELEASED, 1);
	note_waiting(&leased, values);
	after_lease(&leased, job_id, false);
	close_jobs(&leased);
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
eq_complete_many(PG_FUNCTION_ARGS)
{
	PG_RETURN_INT32(eq_complete_all(fcinfo, 2));
}

/* The worker is told here that the job was cancelled. */
static void
check_not_cancelled(Leased *leased, int64 job_id)
{
	if (DatumGetBool(leased->slot->tts_values[JOB_CANCEL - 1]))
		ereport(
			ERROR,
			(errcode(ERRCODE_EQ_JOB_CANCELLED),
			 errmsg("job " INT64_FORMAT " was cancelled", job_id),
			 errhint("Stop the work and call event_queue.fail with final => true,"
					 " or complete if it is done.")));
}

Datum
eq_extend_lease_sql(PG_FUNCTION_ARGS)
{
	int64 job_id = job_id_argument(fcinfo);
	int64 lease = eq_lease_argument(fcinfo, 2);
	Leased leased;
	Datum values[JOB_COLUMNS];
	bool nulls[JOB_COLUMNS];
	TimestampTz until;

	/* Lost in a crash, the lease ends as it would have without this call. */
	open_leased(&leased, job_id, PG_GETARG_UUID_P(1), true);
	check_not_cancelled(&leased, job_id);
	until = leased.now + (lease ? lease : leased.queue->lease);
	memcpy(values, leased.slot->tts_values, sizeof(values));
	memcpy(nulls, leased.slot->tts_isnull, sizeof(nulls));
	if (!nulls[JOB_TIME_LIMIT - 1])
		until = Min(until, DatumGetTimestampTz(values[JOB_CLAIMED_AT - 1]) +
							   eq_interval_us(
								   DatumGetIntervalP(values[JOB_TIME_LIMIT - 1])));
	if (leased.queue->max_concurrency > 0 &&
		!eq_prolong_claim(leased.queue, job_id,
						  DatumGetTimestampTz(values[JOB_LEASED_UNTIL - 1]), until))
		lease_lost(job_id);
	values[JOB_LEASED_UNTIL - 1] = TimestampTzGetDatum(until);
	eq_table_update(&leased.jobs, leased.slot, leased.snapshot, values, nulls);
	close_jobs(&leased);
	PG_RETURN_TIMESTAMPTZ(until);
}

Datum
eq_report_progress(PG_FUNCTION_ARGS)
{
	int64 job_id = job_id_argument(fcinfo);
	Leased leased;
	Datum values[JOB_COLUMNS];
	bool nulls[JOB_COLUMNS];

	if (!PG_ARGISNULL(2))
		eq_check_payload("job progress", PG_GETARG_JSONB_P(2));
	open_leased(&leased, job_id, PG_GETARG_UUID_P(1), true);
	check_not_cancelled(&leased, job_id);
	memcpy(values, leased.slot->tts_values, sizeof(values));
	memcpy(nulls, leased.slot->tts_isnull, sizeof(nulls));
	nulls[JOB_PROGRESS - 1] = PG_ARGISNULL(2);
	values[JOB_PROGRESS - 1] = PG_ARGISNULL(2) ? (Datum) 0 : PG_GETARG_DATUM(2);
	eq_table_update(&leased.jobs, leased.slot, leased.snapshot, values, nulls);
	close_jobs(&leased);
	PG_RETURN_VOID();
}

static bool
is_leased_now(Leased *leased)
{
	slot_getallattrs(leased->slot);
	return !leased->slot->tts_isnull[JOB_LEASED_UNTIL - 1] &&
		   DatumGetTimestampTz(leased->slot->tts_values[JOB_LEASED_UNTIL - 1]) >
			   leased->now;
}

/* A job of which the caller has no token, locked; false if it is not there. */
static bool
take_job(Leased *leased, int64 job_id)
{
	if (!find_job(leased, job_id, NULL) || !lock_job(leased))
		return false;
	slot_getallattrs(leased->slot);
	return take_queue(leased, job_id);
}

Datum
eq_cancel_job(PG_FUNCTION_ARGS)
{
	int64 job_id = PG_ARGISNULL(0) ? 0 : PG_GETARG_INT64(0);
	Leased leased;
	bool leased_now;

	open_jobs(&leased);
	if (!take_job(&leased, job_id))
		ereport(ERROR, (errcode(ERRCODE_EQ_UNKNOWN_JOB),
						errmsg("job " INT64_FORMAT " does not exist", job_id),
						errdetail("It is finished, dead, or was never there.")));
	leased_now = is_leased_now(&leased);
	if (leased_now)
	{
		Datum values[JOB_COLUMNS];
		bool nulls[JOB_COLUMNS];

		memcpy(values, leased.slot->tts_values, sizeof(values));
		memcpy(nulls, leased.slot->tts_isnull, sizeof(nulls));
		values[JOB_CANCEL - 1] = BoolGetDatum(true);
		eq_table_update(&leased.jobs, leased.slot, leased.snapshot, values, nulls);
		eq_wake_cancels();
	}
	else
	{
		eq_hold_marks();
		eq_table_delete(&leased.jobs, leased.slot, leased.snapshot);
		if (DatumGetBool(leased.slot->tts_values[JOB_HAS_DEPENDENTS - 1]))
			eq_settle_dependents(job_id, NULL, true);
		eq_count(leased.queue->queue_id, EQ_COUNT_CANCELLED, 1);
		after_lease(&leased, job_id, true);
	}
	close_jobs(&leased);
	PG_RETURN_TEXT_P(cstring_to_text(leased_now ? "requested" : "cancelled"));
}

Datum
eq_change_priority(PG_FUNCTION_ARGS)
{
	int64 job_id = PG_ARGISNULL(0) ? 0 : PG_GETARG_INT64(0);
	int priority = eq_check_priority(PG_ARGISNULL(1) ? -1 : PG_GETARG_INT32(1));
	Leased leased;
	Datum values[JOB_COLUMNS];
	bool nulls[JOB_COLUMNS];

	open_jobs(&leased);
	if (!take_job(&leased, job_id) || is_leased_now(&leased))
		ereport(ERROR, (errcode(ERRCODE_EQ_UNKNOWN_JOB),
						errmsg("job " INT64_FORMAT " does not wait", job_id)));
	memcpy(values, leased.slot->tts_values, sizeof(values));
	memcpy(nulls, leased.slot->tts_isnull, sizeof(nulls));
	values[JOB_PRIORITY - 1] = Int16GetDatum(priority);
	eq_hold_marks();
	eq_table_update(&leased.jobs, leased.slot, leased.snapshot, values, nulls);
	if (DatumGetInt16(values[JOB_BLOCKED - 1]) == JOB_NOT_BLOCKED)
		note_waiting(&leased, values);
	close_jobs(&leased);
	PG_RETURN_VOID();
}
