/*
 * claim.c: leases jobs that are due.
 *
 * Walks the index job_order (queue, priority, run_at, id) from the front, so
 * that order needs no sort; at the first job of a priority that is not due yet
 * it starts again at the next priority, so that future jobs are never walked
 * over.  Each candidate is locked with LockWaitSkip: a row that another session
 * is changing is skipped, never waited for.  Once locked, the row is the newest
 * version and ours, and the lease is written to columns that no index has: a
 * HOT update.
 *
 * The snapshot is a fresh one at every isolation level: a claim wants the jobs
 * that are there now.
 *
 * A lease that ran out is met by the same walk: the job stalled, and is leased
 * again, or buried after max_stalled times.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/guc.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "access/table.h"
#include "queue/queue.h"
#include "table/table.h"
#include "tenant/tenant.h"
#include "wake/wake.h"

PG_FUNCTION_INFO_V1(eq_claim_sql);

#define MAX_CLAIM 10000

/* The walk over a queue's jobs that are due. */
typedef struct Walk
{
	EqScan scan;
	const EqQueue *queue;
	TimestampTz now;
} Walk;

/* Starts at the first job of the first priority that is at least this. */
static void
walk_from(Walk *walk, int priority)
{
	ScanKeyData keys[2];

	eq_scan_key(&walk->scan, &keys[0], 1, BTEqualStrategyNumber, F_INT4EQ,
				Int32GetDatum(walk->queue->queue_id));
	eq_scan_key(&walk->scan, &keys[1], 2, BTGreaterEqualStrategyNumber, F_INT2GE,
				Int16GetDatum(priority));
	eq_scan_start(&walk->scan, keys, 2);
}

static void
walk_begin(Walk *walk, Relation jobs, const EqQueue *queue, Snapshot snapshot,
		   TimestampTz now)
{
	walk->queue = queue;
	walk->now = now;
	eq_scan_begin(&walk->scan, jobs, eq_relation_oid(EQ_JOB_ORDER), snapshot, 2);
	walk_from(walk, EQ_PRIORITY_FIRST);
}

/* The next job that is due; its row is in walk->scan.slot. */
static bool
walk_next(Walk *walk)
{
	TupleTableSlot *slot = walk->scan.slot;

	while (eq_scan_next(&walk->scan, ForwardScanDirection))
	{
		bool isnull;
		TimestampTz run_at = DatumGetTimestampTz(
			slot_getattr(slot, JOB_RUN_AT, &isnull));

		if (run_at <= walk->now)
			return true;
		walk_from(walk,
				  DatumGetInt16(slot_getattr(slot, JOB_PRIORITY, &isnull)) + 1);
	}
	return false;
}

/* Does another worker hold the job? */
static bool
is_leased(TupleTableSlot *slot, TimestampTz now, bool *stalled)
{
	bool isnull;
	Datum until = slot_getattr(slot, JOB_LEASED_UNTIL, &isnull);

	*stalled = !isnull && DatumGetTimestampTz(until) <= now;
	return !isnull && !*stalled;
}

static bool
is_wanted(const EqClaim *claim, TupleTableSlot *slot)
{
	bool isnull;

	if (claim->tenant &&
		strcmp(TextDatumGetCString(slot_getattr(slot, JOB_TENANT, &isnull)),
			   claim->tenant) != 0)
		return false;
	if (claim->names)
	{
		char *name = TextDatumGetCString(slot_getattr(slot, JOB_NAME, &isnull));

		for (int i = 0; i < claim->n_names; i++)
		{
			if (strcmp(claim->names[i], name) == 0)
				return true;
		}
		return false;
	}
	return true;
}

/* Copies what the worker is told out of the row, before the row is changed. */
static void
fill_job(EqClaimedJob *job, const EqQueue *queue, TupleTableSlot *slot)
{
	Datum *values = slot->tts_values;

	job->job_id = DatumGetInt64(values[JOB_ID - 1]);
	job->name = TextDatumGetCString(values[JOB_NAME - 1]);
	job->tenant = TextDatumGetCString(values[JOB_TENANT - 1]);
	job->payload = DatumGetJsonbPCopy(values[JOB_PAYLOAD - 1]);
	job->metadata = DatumGetJsonbPCopy(values[JOB_METADATA - 1]);
	job->failures = DatumGetInt32(values[JOB_FAILURES - 1]);
	job->stalled = DatumGetInt32(values[JOB_STALLED - 1]);
	job->max_attempts = slot->tts_isnull[JOB_MAX_ATTEMPTS - 1]
							? queue->max_attempts
							: DatumGetInt32(values[JOB_MAX_ATTEMPTS - 1]);
	job->priority = DatumGetInt16(values[JOB_PRIORITY - 1]);
	job->created_at = DatumGetTimestampTz(values[JOB_CREATED_AT - 1]);
	job->run_at = DatumGetTimestampTz(values[JOB_RUN_AT - 1]);
}

/* Writes the lease into the locked row. */
static void
lease_job(EqTable *jobs, TupleTableSlot *slot, Snapshot snapshot,
		  const EqClaim *claim, TimestampTz now, bool was_stalled, EqClaimedJob *job)
{
	Datum values[JOB_COLUMNS];
	bool nulls[JOB_COLUMNS];

	fill_job(job, claim->queue, slot);
	if (!pg_strong_random(job->token.data, UUID_LEN))
		ereport(ERROR, (errcode(ERRCODE_INTERNAL_ERROR),
						errmsg("could not generate a lease token")));
	job->token.data[6] = 0x40 | (job->token.data[6] & 0x0f);
	job->token.data[8] = 0x80 | (job->token.data[8] & 0x3f);
	job->leased_until = now + (claim->lease ? claim->lease : claim->queue->lease);
	if (was_stalled)
		job->stalled++;

	memcpy(values, slot->tts_values, sizeof(values));
	memcpy(nulls, slot->tts_isnull, sizeof(nulls));
	values[JOB_STALLED - 1] = Int32GetDatum(job->stalled);
	values[JOB_LEASE_TOKEN - 1] = UUIDPGetDatum(&job->token);
	nulls[JOB_LEASE_TOKEN - 1] = false;
	values[JOB_LEASED_UNTIL - 1] = TimestampTzGetDatum(job->leased_until);
	nulls[JOB_LEASED_UNTIL - 1] = false;
	values[JOB_LEASED_BY - 1] = CStringGetTextDatum(claim->worker);
	nulls[JOB_LEASED_BY - 1] = false;
	eq_table_update(jobs, slot, snapshot, values, nulls);

	eq_count(claim->queue->queue_id, EQ_COUNT_CLAIMED, 1);
	if (was_stalled)
		eq_count(claim->queue->queue_id, EQ_COUNT_STALLED, 1);
	eq_count(claim->queue->queue_id, EQ_COUNT_WAIT_US, Max(now - job->run_at, 0));
}

/* The lease ran out once too often. */
static void
bury_stalled(EqTable *jobs, TupleTableSlot *slot, Snapshot snapshot, int stalled)
{
	int failures = DatumGetInt32(slot->tts_values[JOB_FAILURES - 1]);
	Jsonb *errors;

	errors = eq_add_error(
		DatumGetJsonbP(slot->tts_values[JOB_ERRORS - 1]), failures + 1,
		slot->tts_isnull[JOB_LEASED_BY - 1]
			? NULL
			: TextDatumGetCString(slot->tts_values[JOB_LEASED_BY - 1]),
		NULL, "job stalled more often than max_stalled allows", NULL);
	eq_bury(jobs, slot, snapshot, "stalled", errors, failures, stalled);
}

/*
 * Leases up to claim->limit jobs into claim->jobs, in the caller's memory.
 */
void
eq_claim(EqClaim *claim)
{
	EqTable jobs;
	Walk walk;
	Snapshot snapshot;
	TupleTableSlot *locked;
	TimestampTz now = GetCurrentTimestamp();
	int limit = claim->limit;

	claim->n_jobs = 0;
	claim->jobs = NULL;
	claim->retry_at = 0;
	if (claim->queue->paused)
		return;
	if (eq_queue_is_limited(claim->queue))
	{
		limit = eq_reserve_claims(claim->queue, limit, now, &claim->retry_at);
		if (limit == 0)
			return;
	}
	claim->jobs = palloc(limit * sizeof(EqClaimedJob));

	eq_table_open(&jobs, eq_relation_oid(EQ_JOB), JOB_COLUMNS);
	locked = table_slot_create(jobs.rel, NULL);
	snapshot = RegisterSnapshot(GetLatestSnapshot());
	walk_begin(&walk, jobs.rel, claim->queue, snapshot, now);
	while (claim->n_jobs < limit && walk_next(&walk))
	{
		TM_FailureData failure;
		bool stalled;
		int stalls;

		if (is_leased(walk.scan.slot, now, &stalled) ||
			!is_wanted(claim, walk.scan.slot))
			continue;
		if (table_tuple_lock(jobs.rel, &walk.scan.slot->tts_tid, snapshot, locked,
							 GetCurrentCommandId(false), LockTupleNoKeyExclusive,
							 LockWaitSkip, 0, &failure) != TM_Ok)
			continue; /* someone else has it */

		slot_getallattrs(locked);
		stalls = DatumGetInt32(locked->tts_values[JOB_STALLED - 1]) +
				 (stalled ? 1 : 0);
		if (stalled && stalls > claim->queue->max_stalled)
			bury_stalled(&jobs, locked, snapshot, stalls);
		else
			lease_job(&jobs, locked, snapshot, claim, now, stalled,
					  &claim->jobs[claim->n_jobs++]);
		ExecClearTuple(locked);
	}
	eq_scan_end(&walk.scan);
	ExecDropSingleTupleTableSlot(locked);
	UnregisterSnapshot(snapshot);
	eq_table_close(&jobs);
	CommandCounterIncrement();

	if (claim->n_jobs > 0 && eq_queue_is_limited(claim->queue))
		eq_use_claims(claim->queue, claim->jobs, claim->n_jobs);
}

/* When the first job comes due that is not due yet; 0 if there is none. */
static TimestampTz
find_next_due(Relation jobs, const EqQueue *queue, Snapshot snapshot,
			  TimestampTz now)
{
	EqScan scan;
	TimestampTz next_due = 0;

	eq_scan_begin(&scan, jobs, eq_relation_oid(EQ_JOB_ORDER), snapshot, 3);
	for (int p = EQ_PRIORITY_FIRST; p <= EQ_PRIORITY_LAST; p++)
	{
		ScanKeyData keys[3];

		eq_scan_key(&scan, &keys[0], 1, BTEqualStrategyNumber, F_INT4EQ,
					Int32GetDatum(queue->queue_id));
		eq_scan_key(&scan, &keys[1], 2, BTEqualStrategyNumber, F_INT2EQ,
					Int16GetDatum(p));
		eq_scan_key(&scan, &keys[2], 3, BTGreaterStrategyNumber, F_TIMESTAMPTZ_GT,
					TimestampTzGetDatum(now));
		eq_scan_start(&scan, keys, 3);
		if (eq_scan_next(&scan, ForwardScanDirection))
		{
			bool isnull;
			TimestampTz run_at = DatumGetTimestampTz(
				slot_getattr(scan.slot, JOB_RUN_AT, &isnull));

			if (next_due == 0 || run_at < next_due)
				next_due = run_at;
		}
	}
	eq_scan_end(&scan);
	return next_due;
}

/*
 * For the scheduler.  Stops at the first job that may be claimed, so a long
 * queue costs no more than a short one.
 */
bool
eq_peek(const EqQueue *queue, TimestampTz now, TimestampTz *next_due)
{
	Relation jobs = table_open(eq_relation_oid(EQ_JOB), AccessShareLock);
	Snapshot snapshot = RegisterSnapshot(GetLatestSnapshot());
	Walk walk;
	bool found = false;
	bool stalled;

	walk_begin(&walk, jobs, queue, snapshot, now);
	while (!found && walk_next(&walk))
		found = !is_leased(walk.scan.slot, now, &stalled);
	eq_scan_end(&walk.scan);
	*next_due = find_next_due(jobs, queue, snapshot, now);
	UnregisterSnapshot(snapshot);
	table_close(jobs, AccessShareLock);
	return found && !queue->paused;
}

/* A job as the composite type claimed_job. */
Datum
eq_claimed_job_datum(const EqQueue *queue, const EqClaimedJob *job, TupleDesc desc)
{
	Datum values[14];
	bool nulls[14] = {false};
	int i = 0;

	values[i++] = Int64GetDatum(job->job_id);
	values[i++] = UUIDPGetDatum(&job->token);
	values[i++] = CStringGetTextDatum(queue->name);
	values[i++] = CStringGetTextDatum(job->name);
	values[i++] = CStringGetTextDatum(job->tenant);
	values[i++] = JsonbPGetDatum(job->payload);
	values[i++] = JsonbPGetDatum(job->metadata);
	values[i++] = Int32GetDatum(job->failures + 1);
	values[i++] = Int32GetDatum(job->max_attempts);
	values[i++] = Int32GetDatum(job->stalled);
	values[i++] = Int32GetDatum(job->priority);
	values[i++] = TimestampTzGetDatum(job->created_at);
	values[i++] = TimestampTzGetDatum(job->run_at);
	values[i++] = TimestampTzGetDatum(job->leased_until);
	return HeapTupleGetDatum(heap_form_tuple(desc, values, nulls));
}

Datum
eq_claim_sql(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	EqClaim claim = {0};

	claim.queue = eq_get_queue(
		PG_ARGISNULL(0) ? NULL : text_to_cstring(PG_GETARG_TEXT_PP(0)));
	claim.limit = PG_ARGISNULL(1) ? 1 : PG_GETARG_INT32(1);
	if (claim.limit < 1 || claim.limit > MAX_CLAIM)
		ereport(ERROR, (errcode(ERRCODE_EQ_INVALID_ARGUMENT),
						errmsg("limit must be between 1 and %d", MAX_CLAIM)));
	if (PG_ARGISNULL(2))
		claim.worker = psprintf("%s %d", application_name ? application_name : "",
								MyProcPid);
	else
	{
		claim.worker = text_to_cstring(PG_GETARG_TEXT_PP(2));
		eq_check_name("worker", claim.worker, EQ_MAX_NAME);
	}
	if (!PG_ARGISNULL(3))
	{
		claim.lease = eq_interval_us(PG_GETARG_INTERVAL_P(3));
		if (claim.lease <= 0 || claim.lease > 7 * USECS_PER_DAY)
			ereport(ERROR, (errcode(ERRCODE_EQ_INVALID_SETTING),
							errmsg("lease must be positive and at most 7 days")));
	}
	if (!PG_ARGISNULL(4))
	{
		Datum *names;
		bool *nulls;
		int n;

		deconstruct_array(PG_GETARG_ARRAYTYPE_P(4), TEXTOID, -1, false, TYPALIGN_INT,
						  &names, &nulls, &n);
		claim.names = palloc0(Max(n, 1) * sizeof(char *));
		for (int i = 0; i < n; i++)
		{
			if (!nulls[i])
				claim.names[claim.n_names++] = TextDatumGetCString(names[i]);
		}
	}
	claim.tenant = eq_confined_tenant();
	if (!PG_ARGISNULL(5))
		claim.tenant = eq_resolve_tenant(text_to_cstring(PG_GETARG_TEXT_PP(5)));

	InitMaterializedSRF(fcinfo, 0);
	eq_claim(&claim);
	for (int i = 0; i < claim.n_jobs; i++)
	{
		Datum row = eq_claimed_job_datum(claim.queue, &claim.jobs[i],
										 rsinfo->setDesc);
		HeapTupleData tuple;

		tuple.t_data = DatumGetHeapTupleHeader(row);
		tuple.t_len = HeapTupleHeaderGetDatumLength(tuple.t_data);
		ItemPointerSetInvalid(&tuple.t_self);
		tuple.t_tableOid = InvalidOid;
		tuplestore_puttuple(rsinfo->setResult, &tuple);
	}
	return (Datum) 0;
}
