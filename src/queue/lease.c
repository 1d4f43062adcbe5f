/*
 * lease.c: finds and locks the job of a lease; heartbeat and progress.
 *
 * Each call names the lease by its token.  The row is found by the TID in the token (or, if
 * it has moved, by the job's id), and locked in its newest version, waiting for concurrent
 * changes; only then is the token compared.  So a worker that lost its lease gets EQ016 and
 * changes nothing, whatever other sessions do at the same time.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "fmgr.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "common/argument.h"
#include "common/interval.h"
#include "queue/lease.h"
#include "tenant/tenant.h"
#include "wake/wake.h"

PG_FUNCTION_INFO_V1(eq_extend_lease_sql);
PG_FUNCTION_INFO_V1(eq_report_progress);

void
eq_lease_lost(int64 job_id)
{
	ereport(
		ERROR,
		(errcode(ERRCODE_EQ_LEASE_LOST),
		 errmsg("lease of job " INT64_FORMAT " is lost", job_id),
		 errdetail(
			 "The job is finished, or its lease ran out and another worker has claimed it, or it ran out and others have its place under max_concurrency, or this is not the token of its claim."),
		 errhint(
			 "Undo the work, or let it be safe to repeat; take a longer lease or call event_queue.extend_lease.")));
}

void
eq_open_jobs(EqLeased *leased)
{
	memset(leased, 0, sizeof(EqLeased));
	leased->tenant = eq_confined_tenant();
	eq_table_open(&leased->jobs, eq_relation_oid(EQ_JOB), JOB_COLUMNS);
	leased->now = GetCurrentTimestamp();
	leased->snapshot = RegisterSnapshot(GetLatestSnapshot());
	leased->slot = table_slot_create(leased->jobs.rel, NULL);
}

void
eq_close_jobs(EqLeased *leased)
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
bool
eq_find_job(EqLeased *leased, int64 job_id, const pg_uuid_t *token)
{
	EqScan scan;
	ScanKeyData key;
	ItemPointerData root;
	bool found;

	if (token)
	{
		eq_token_tid(token, &root);
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

/* Locks the row that eq_find_job found, in its newest version. */
bool
eq_lock_job(EqLeased *leased)
{
	TM_FailureData failure;
	ItemPointerData tid = leased->slot->tts_tid;

	return table_tuple_lock(leased->jobs.rel, &tid, leased->snapshot, leased->slot,
							GetCurrentCommandId(false), LockTupleExclusive,
							LockWaitBlock, TUPLE_LOCK_FLAG_FIND_LAST_VERSION,
							&failure) == TM_Ok;
}

bool
eq_has_token(TupleTableSlot *slot, const pg_uuid_t *token)
{
	slot_getallattrs(slot);
	return !slot->tts_isnull[JOB_LEASE_TOKEN - 1] &&
		   memcmp(DatumGetUUIDP(slot->tts_values[JOB_LEASE_TOKEN - 1])->data,
				  token->data, UUID_LEN) == 0;
}

/* Loads the queue of the job in the slot; false if the job is another tenant's. */
bool
eq_load_queue_if_visible(EqLeased *leased, int64 job_id)
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

/* Begins weak writes (table/durability.c), which a crash may undo, until the job is closed. */
void
eq_begin_weak(EqLeased *leased)
{
	if (!leased->weak)
		eq_weak_writes_begin();
	leased->weak = true;
}

/* Locks the job's row; false if the lease is lost. */
bool
eq_try_leased(EqLeased *leased, int64 job_id, const pg_uuid_t *token, bool weak)
{
	eq_open_jobs(leased);
	if (!eq_find_job(leased, job_id, token))
		return false;
	slot_getallattrs(leased->slot);
	if (!eq_load_queue_if_visible(leased, job_id))
		return false; /* whose it is, is not said */
	if (weak || !leased->queue->durable)
		eq_begin_weak(leased);
	return eq_lock_job(leased) && eq_has_token(leased->slot, token);
}

/* Locks the job's row, or raises EQ016. */
void
eq_open_leased(EqLeased *leased, int64 job_id, const pg_uuid_t *token, bool weak)
{
	if (!eq_try_leased(leased, job_id, token, weak))
		eq_lease_lost(job_id);
}

/* The job gave up its place among the running ones, or in its group. */
void
eq_after_lease(EqLeased *leased, int64 job_id, bool leaves_group)
{
	TupleTableSlot *slot = leased->slot;

	if (leased->queue->max_concurrency > 0)
	{
		eq_free_lease(
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

	if (!isnull && eq_find_wake_slot(queue_id) != NULL)
		eq_count(queue_id, EQ_COUNT_LEASED, -1);
	if (isnull || queue == NULL || queue->max_concurrency == 0)
		return;
	eq_free_lease(queue, DatumGetInt64(heap_getattr(row, JOB_ID, desc, &isnull)),
				  DatumGetTimestampTz(until));
	eq_wake_queue(queue_id);
}

int64
eq_job_id_argument(FunctionCallInfo fcinfo)
{
	if (PG_ARGISNULL(0) || PG_ARGISNULL(1))
		ereport(ERROR, (errcode(ERRCODE_EQ_INVALID_ARGUMENT),
						errmsg("job_id and lease_token must not be null")));
	return PG_GETARG_INT64(0);
}

/* The worker is told here that the job was cancelled. */
void
eq_check_not_cancelled(EqLeased *leased, int64 job_id)
{
	if (DatumGetBool(leased->slot->tts_values[JOB_CANCEL - 1]))
		ereport(
			ERROR,
			(errcode(ERRCODE_EQ_JOB_CANCELLED),
			 errmsg("job " INT64_FORMAT " was cancelled", job_id),
			 errhint("Stop the work and call event_queue.fail with final => true,"
					 " or complete if it is done.")));
}

/* lease: from now, in microseconds; 0: the queue's.  0 if the lease is lost. */
TimestampTz
eq_extend_leased(EqLeased *leased, int64 job_id, int64 lease)
{
	EqJobEdit edit;
	TimestampTz until = leased->now + (lease ? lease : leased->queue->lease);

	eq_edit_job(&edit, leased->slot);
	if (!edit.nulls[JOB_TIME_LIMIT - 1])
		until = Min(until, DatumGetTimestampTz(edit.values[JOB_CLAIMED_AT - 1]) +
							   eq_interval_us(DatumGetIntervalP(
								   edit.values[JOB_TIME_LIMIT - 1])));
	if (leased->queue->max_concurrency > 0 &&
		!eq_extend_lease(leased->queue, job_id,
						 DatumGetTimestampTz(edit.values[JOB_LEASED_UNTIL - 1]),
						 until))
		return 0;
	eq_edit_set(&edit, JOB_LEASED_UNTIL, TimestampTzGetDatum(until));
	eq_write_job(&leased->jobs, leased->snapshot, &edit);
	return until;
}

/* Finds the job and extends its lease by the queue's; EQ016 if the lease is lost. */
TimestampTz
eq_renew_lease(int64 job_id, const pg_uuid_t *token)
{
	EqLeased leased;
	TimestampTz until;

	eq_open_leased(&leased, job_id, token, true);
	until = eq_extend_leased(&leased, job_id, 0);
	if (until == 0)
		eq_lease_lost(job_id);
	eq_close_jobs(&leased);
	return until;
}

/* Returns the state of a lease that was taken some time ago, without waiting. */
EqHeldLease
eq_look_at_lease(int64 job_id, const pg_uuid_t *token)
{
	EqLeased leased;
	EqHeldLease state = EQ_NOT_HELD;

	eq_open_jobs(&leased);
	if (eq_find_job(&leased, job_id, token) && eq_has_token(leased.slot, token))
		state = DatumGetBool(leased.slot->tts_values[JOB_CANCEL - 1])
					? EQ_HELD_CANCELLED
					: EQ_HELD;
	eq_close_jobs(&leased);
	return state;
}

Datum
eq_extend_lease_sql(PG_FUNCTION_ARGS)
{
	int64 job_id = eq_job_id_argument(fcinfo);
	int64 lease = eq_lease_argument(fcinfo, 2);
	EqLeased leased;
	TimestampTz until;

	/* Lost in a crash, the lease ends as it would have without this call. */
	eq_open_leased(&leased, job_id, PG_GETARG_UUID_P(1), true);
	eq_check_not_cancelled(&leased, job_id);
	until = eq_extend_leased(&leased, job_id, lease);
	if (until == 0)
		eq_lease_lost(job_id);
	eq_close_jobs(&leased);
	PG_RETURN_TIMESTAMPTZ(until);
}

Datum
eq_report_progress(PG_FUNCTION_ARGS)
{
	int64 job_id = eq_job_id_argument(fcinfo);
	EqLeased leased;
	EqJobEdit edit;

	if (!PG_ARGISNULL(2))
		eq_check_payload("job progress", PG_GETARG_JSONB_P(2));
	eq_open_leased(&leased, job_id, PG_GETARG_UUID_P(1), true);
	eq_check_not_cancelled(&leased, job_id);
	eq_edit_job(&edit, leased.slot);
	if (PG_ARGISNULL(2))
		eq_edit_set_null(&edit, JOB_PROGRESS);
	else
		eq_edit_set(&edit, JOB_PROGRESS, PG_GETARG_DATUM(2));
	eq_write_job(&leased.jobs, leased.snapshot, &edit);
	eq_close_jobs(&leased);
	PG_RETURN_BOOL(true);
}
