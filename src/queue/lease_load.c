/*
 * lease_load.c: loads the leases of a queue from its rows.
 *
 * After a restart, and when a queue is given max_concurrency, its leases are not in
 * shared memory.  The first claimer loads them, while others wait, up to a second:
 * what is committed, without what its own transaction has settled; and what open and
 * prepared transactions have claimed, which counts until it runs out, whatever
 * becomes of them, or until it is loaded anew.  Leases that belong to open transactions are kept.  If a job is
 * settled or released meanwhile, it looks again at the rows that it has read.
 */
#include "postgres.h"

#include "access/table.h"
#include "access/tableam.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "storage/bufmgr.h"
#include "utils/fmgroids.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "queue/limits.h"
#include "table/table.h"
#include "wake/wake.h"

#define MAX_WAIT_MS		  1000 /* for another session that loads them */
#define MAX_READS		  10   /* of the rows, while jobs are settled */
#define ROWS_WORTH_A_PAGE 4	   /* by an index, for a page of the table */
#define ROWS_WORTH_A_SCAN 1000

/* The queue whose leases this session is loading. */
static EqWakeSlot *loading = NULL;
static uint32 loading_epoch;

/* Leases as the rows have them. */
typedef struct LeaseRow
{
	int64 job_id;
	TimestampTz until;
	bool is_over; /* no longer leased when it was looked at again */
} LeaseRow;

typedef struct LeaseRows
{
	LeaseRow *rows; /* NULL: none */
	int n;
	int max;
} LeaseRows;

/* Adds the row in the slot, if it is leased. */
static void
add_row(LeaseRows *rows_read, TupleTableSlot *slot, TimestampTz now)
{
	bool isnull;
	Datum until = slot_getattr(slot, JOB_LEASED_UNTIL, &isnull);

	CHECK_FOR_INTERRUPTS();
	if (isnull || DatumGetTimestampTz(until) <= now)
		return;
	if (rows_read->n == rows_read->max)
	{
		rows_read->max = rows_read->max ? rows_read->max * 2 : 64;
		rows_read->rows = rows_read->rows
							  ? repalloc_huge(rows_read->rows,
											  rows_read->max * sizeof(LeaseRow))
							  : palloc(rows_read->max * sizeof(LeaseRow));
	}
	rows_read->rows[rows_read->n].until = DatumGetTimestampTz(until);
	rows_read->rows[rows_read->n].is_over = false;
	rows_read->rows[rows_read->n++].job_id = DatumGetInt64(
		slot_getattr(slot, JOB_ID, &isnull));
}

/*
 * Reads by the index, or, if the queue turns out to be a large part of the table, by
 * the table's pages: a lease is in no index, and most jobs of a long queue wait.
 */
static void
read_rows(const EqQueue *queue, Snapshot snapshot, LeaseRows *rows_read)
{
	Relation jobs = table_open(eq_relation_oid(EQ_JOB), AccessShareLock);
	TimestampTz now = GetCurrentTimestamp();
	int64 worth = ROWS_WORTH_A_PAGE * (int64) RelationGetNumberOfBlocks(jobs) +
				  ROWS_WORTH_A_SCAN;
	int before = rows_read->n;
	TableScanDesc pages;
	TupleTableSlot *slot;
	EqScan scan;
	ScanKeyData key;
	bool isnull;

	eq_scan_begin(&scan, jobs, eq_relation_oid(EQ_JOB_ORDER), snapshot, 1);
	eq_scan_key(&scan, &key, ORDER_QUEUE, BTEqualStrategyNumber, F_INT4EQ,
				Int32GetDatum(queue->queue_id));
	eq_scan_start(&scan, &key, 1);
	while (worth >= 0 && eq_scan_next(&scan, ForwardScanDirection))
	{
		add_row(rows_read, scan.slot, now);
		worth--;
	}
	eq_scan_end(&scan);
	if (worth < 0)
	{
		rows_read->n = before;
		pages = table_beginscan(jobs, snapshot, 0, NULL);
		slot = table_slot_create(jobs, NULL);
		while (table_scan_getnextslot(pages, ForwardScanDirection, slot))
		{
			if (DatumGetInt32(slot_getattr(slot, JOB_QUEUE, &isnull)) ==
				queue->queue_id)
				add_row(rows_read, slot, now);
		}
		ExecDropSingleTupleTableSlot(slot);
		table_endscan(pages);
	}
	table_close(jobs, AccessShareLock);
}

/* Takes a snapshot of what is committed, whatever this transaction has done to it. */
static Snapshot
committed_snapshot(void)
{
	Snapshot snapshot = RegisterSnapshot(GetLatestSnapshot());

	snapshot->curcid = FirstCommandId; /* a copy: before our first command */
	return snapshot;
}

/*
 * Reads the queue's leases that are committed, whatever this transaction has done to them,
 * and those that are not committed yet.
 */
static void
read_committed_and_dirty(const EqQueue *queue, LeaseRows *rows_read)
{
	Snapshot snapshot;
	SnapshotData dirty;

	InitDirtySnapshot(dirty);
	read_rows(queue, &dirty, rows_read);
	snapshot = committed_snapshot();
	read_rows(queue, snapshot, rows_read);
	UnregisterSnapshot(snapshot);
}

/* Tells whether the job is still leased. */
static bool
is_leased(Relation jobs, Snapshot snapshot, int64 job_id, TimestampTz now)
{
	EqScan scan;
	ScanKeyData key;
	bool leased = false;

	eq_scan_begin(&scan, jobs, eq_relation_oid(EQ_JOB_PKEY), snapshot, 1);
	eq_scan_key(&scan, &key, 1, BTEqualStrategyNumber, F_INT8EQ,
				Int64GetDatum(job_id));
	eq_scan_start(&scan, &key, 1);
	while (!leased && eq_scan_next(&scan, ForwardScanDirection))
	{
		bool isnull;
		Datum until = slot_getattr(scan.slot, JOB_LEASED_UNTIL, &isnull);

		leased = !isnull && DatumGetTimestampTz(until) > now;
	}
	eq_scan_end(&scan);
	return leased;
}

/* Looks which leases are over, since jobs were settled after they were read. */
static void
read_leases_again(LeaseRows *rows_read)
{
	Relation jobs = table_open(eq_relation_oid(EQ_JOB), AccessShareLock);
	TimestampTz now = GetCurrentTimestamp();
	Snapshot snapshot = committed_snapshot();
	SnapshotData dirty;

	InitDirtySnapshot(dirty);
	for (int i = 0; i < rows_read->n; i++)
	{
		LeaseRow *read = &rows_read->rows[i];

		CHECK_FOR_INTERRUPTS();
		if (!read->is_over)
			read->is_over = !is_leased(jobs, &dirty, read->job_id, now) &&
							!is_leased(jobs, snapshot, read->job_id, now);
	}
	UnregisterSnapshot(snapshot);
	table_close(jobs, AccessShareLock);
}

/* Waits while another session loads the leases; without a lock, and not for long. */
static void
await_loader(EqWakeSlot *slot)
{
	TimestampTz until = GetCurrentTimestamp() + MAX_WAIT_MS * INT64CONST(1000);
	EqLimits *limits = eq_limits_of(slot);
	bool wait = true;

	ConditionVariablePrepareToSleep(&limits->loaded);
	while (wait)
	{
		eq_lock_limits(slot);
		wait = limits->load_state == EQ_LEASES_LOADING;
		eq_unlock_limits(slot);
		wait = wait &&
			   !ConditionVariableTimedSleep(
				   &limits->loaded,
				   TimestampDifferenceMilliseconds(GetCurrentTimestamp(), until) + 1,
				   PG_WAIT_EXTENSION);
	}
	ConditionVariableCancelSleep();
}

/* Loads the leases, after load_state was set to LOADING; false if there is no room. */
static bool
read_leases(EqWakeSlot *slot, const EqQueue *queue)
{
	EqLimits *limits = eq_limits_of(slot);
	LeaseRows rows_read = {0};
	bool known = false;
	bool full = false;
	bool again = true;

	for (int i = 0; again && !full; i++)
	{
		uint32 settled;

		eq_lock_limits(slot);
		if (i == 0)
			eq_expire_leases(slot, EQ_NEVER);
		settled = limits->settled;
		eq_unlock_limits(slot);

		if (i == 0)
			read_committed_and_dirty(queue, &rows_read);
		else
			read_leases_again(&rows_read);
		eq_expire_leases_for_room(rows_read.n);

		eq_lock_limits(slot);
		for (int j = 0; j < rows_read.n && !full; j++)
		{
			LeaseRow *read = &rows_read.rows[j];
			EqLease *lease = eq_find_lease(slot, read->job_id);

			if (read->is_over)
			{
				if (lease && lease->owner == 0 && lease->until == read->until)
					eq_remove_lease(slot, lease);
			}
			else if (lease == NULL)
				full = !eq_reserve_lease_entry() ||
					   eq_add_lease(slot, read->job_id, read->until) == NULL;
			else if (lease->owner == 0)
				lease->until = Max(lease->until, read->until);
		}
		/* A lease of a job that is settled since counts until it runs out. */
		again = limits->settled != settled && i + 1 < MAX_READS;
		if (!again || full)
		{
			if (limits->epoch == loading_epoch)
			{
				limits->load_state = full ? EQ_LEASES_NOT_LOADED : EQ_LEASES_LOADED;
				known = !full;
			}
			if (known)
				eq_adopt_own_settled(slot);
			loading = NULL;
		}
		eq_unlock_limits(slot);
	}
	ConditionVariableBroadcast(&limits->loaded);
	if (rows_read.rows)
		pfree(rows_read.rows);
	if (full)
		eq_warn_lease_table_full(slot);
	return known;
}

/* Loads the queue's leases unless they are loaded; false if that is not possible now. */
bool
eq_load_leases(EqWakeSlot *slot, const EqQueue *queue)
{
	EqLimits *limits = eq_limits_of(slot);
	EqLeaseLoadState load_state;

	eq_prepare_limit_changes(0);
	eq_lock_limits(slot);
	load_state = limits->load_state;
	eq_unlock_limits(slot);
	if (load_state == EQ_LEASES_LOADING)
		await_loader(slot);

	eq_lock_limits(slot);
	load_state = limits->load_state;
	if (load_state == EQ_LEASES_NOT_LOADED)
	{
		limits->load_state = EQ_LEASES_LOADING;
		loading_epoch = limits->epoch;
		loading = slot;
	}
	eq_unlock_limits(slot);
	if (load_state == EQ_LEASES_NOT_LOADED)
		return read_leases(slot, queue);
	return load_state == EQ_LEASES_LOADED;
}

/* Lets another session load the leases, when an error ended it in this one. */
void
eq_stop_loading_leases(void)
{
	if (loading == NULL)
		return;
	eq_lock_limits(loading);
	if (eq_limits_of(loading)->epoch == loading_epoch)
		eq_limits_of(loading)->load_state = EQ_LEASES_NOT_LOADED;
	eq_unlock_limits(loading);
	ConditionVariableBroadcast(&eq_limits_of(loading)->loaded);
	loading = NULL;
}
