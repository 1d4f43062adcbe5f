/*
 * look.c: examines a queue's waiting jobs without claiming any, for the scheduler, which
 * wakes workers, lowers marks and moves jobs that came due, and for views that show the age
 * of the oldest job.
 */
#include "postgres.h"

#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "queue/job_row.h"
#include "queue/queue_slot.h"
#include "queue/walk.h"
#include "wake/wake.h"

/* Has the walk go on with the next segment; the mark of this one stays. */
static void
skip_segment(EqWalk *walk)
{
	walk->in_segment = false;
	walk->next_lane = walk->lane;
	walk->next_priority = walk->priority + 1;
}

/* When the first job of a segment comes due that is not due yet. */
static TimestampTz
first_due_after(EqWalk *walk)
{
	ScanKeyData keys[4];
	bool isnull;

	eq_walk_segment_keys(walk, keys);
	eq_scan_key(&walk->scan, &keys[3], ORDER_RUN_AT, BTGreaterStrategyNumber,
				F_TIMESTAMPTZ_GT, TimestampTzGetDatum(walk->now));
	eq_scan_start(&walk->scan, keys, 4);
	if (!eq_scan_next(&walk->scan, ForwardScanDirection))
		return 0;
	return DatumGetTimestampTz(slot_getattr(walk->scan.slot, JOB_RUN_AT, &isnull));
}

/*
 * For the scheduler: is there a job that may be claimed, and when does the next
 * one come due?  Stops at the first one that may be claimed, so a long queue
 * costs no more than a short one.
 */
bool
eq_peek(const EqQueue *queue, TimestampTz *next_due)
{
	Relation jobs = table_open(eq_relation_oid(EQ_JOB), AccessShareLock);
	EqWalk walk;
	bool found = false;
	bool stalled;

	eq_walk_begin(&walk, jobs, queue);
	while (!found && eq_walk_next(&walk))
		found = !eq_is_leased(walk.row, walk.now, &stalled);
	/* In a fair queue lane 0 has all that are not due. */
	eq_walk_lanes(&walk, 0, queue->fair ? 0 : PG_INT32_MAX);
	*next_due = 0;
	while (eq_walk_enter_segment(&walk))
	{
		TimestampTz due = first_due_after(&walk);

		if (due != 0 && (*next_due == 0 || due < *next_due))
			*next_due = due;
		skip_segment(&walk);
	}
	eq_walk_end(&walk);
	table_close(jobs, AccessShareLock);
	return found && !queue->paused && eq_queue_held_until(queue) == 0;
}

/*
 * Is the queue fair, by a snapshot that is not older than the one that showed its jobs?  The
 * cached queue may be older: rows that alter_queue moved are visible before its
 * invalidation arrives.  If fair changes after this, the update of the job fails.
 */
static bool
is_fair_now(const EqQueue *queue)
{
	static EqStatement look = {
		.sql = "SELECT FROM event_queue.queue WHERE queue_id = $1 AND fair",
		.n_arguments = 1,
		.types = {INT4OID}};
	Datum value = Int32GetDatum(queue->queue_id);
	bool fair;
	EqSpi spi;

	eq_spi_begin(&spi, eq_extension_owner(), SECURITY_LOCAL_USERID_CHANGE);
	eq_spi_run(&look, &value, NULL);
	fair = SPI_processed > 0;
	eq_spi_end(&spi);
	return fair;
}

/*
 * For the scheduler: jobs of a fair queue that have come due leave lane 0 for their
 * tenants' lanes, at most so many.  Returns how many did.
 */
int
eq_move_due_jobs(const EqQueue *queue, int limit)
{
	EqTable jobs;
	EqWalk walk;
	int n = 0;
	bool stalled;
	bool checked = false;

	eq_table_open(&jobs, eq_relation_oid(EQ_JOB), JOB_COLUMNS);
	eq_walk_begin(&walk, jobs.rel, queue);
	eq_walk_lanes(&walk, 0, 0);
	while (n < limit && eq_walk_next(&walk))
	{
		EqJobEdit edit;

		if (!checked && !is_fair_now(queue))
			break; /* it was altered just now, and its jobs moved here */
		checked = true;
		if (eq_is_leased(walk.row, walk.now, &stalled) || stalled ||
			eq_reserve_row(&walk.root) != EQ_RESERVED || eq_row_is_busy(walk.row))
			continue;
		eq_edit_job(&edit, walk.row);
		eq_edit_set_run_at(&edit, queue, walk.place.run_at);
		/* The scheduler looks at the queue after this, and wakes claimers then. */
		if (eq_write_job_if_unchanged(&jobs, walk.snapshot, &edit, false))
			n++;
	}
	eq_walk_end(&walk);
	eq_table_close(&jobs);
	CommandCounterIncrement();
	return n;
}

/* When the first job came due that waits now; 0 if none does. */
TimestampTz
eq_oldest_ready(const EqQueue *queue)
{
	Relation jobs = table_open(eq_relation_oid(EQ_JOB), AccessShareLock);
	EqWalk walk;
	TimestampTz oldest = 0;
	bool stalled;

	eq_walk_begin(&walk, jobs, queue);
	while (eq_walk_next(&walk))
	{
		if (eq_is_leased(walk.row, walk.now, &stalled))
			continue;
		if (oldest == 0 || walk.place.run_at < oldest)
			oldest = walk.place.run_at;
		skip_segment(&walk);
	}
	eq_walk_end(&walk);
	table_close(jobs, AccessShareLock);
	return oldest;
}

/*
 * How many jobs of a queue are due and not leased, up to a limit; those that others
 * hold are walked over, up to ten times as many.
 */
int64
eq_count_due(const EqQueue *queue, int64 limit)
{
	Relation jobs = table_open(eq_relation_oid(EQ_JOB), AccessShareLock);
	EqWalk walk;
	int64 n = 0;
	int64 walked = 0;
	bool stalled;

	eq_walk_begin(&walk, jobs, queue);
	while (n < limit && walked++ < limit * 10 && eq_walk_next(&walk))
	{
		CHECK_FOR_INTERRUPTS();
		if (!eq_is_leased(walk.row, walk.now, &stalled))
			n++;
	}
	eq_walk_end(&walk);
	table_close(jobs, AccessShareLock);
	return n;
}

/* How many jobs of a queue are not due yet (delayed, or wait for their next attempt), up to a limit. */
int64
eq_count_scheduled(const EqQueue *queue, int64 limit)
{
	Relation jobs = table_open(eq_relation_oid(EQ_JOB), AccessShareLock);
	EqWalk walk;
	int64 n = 0;

	eq_walk_begin(&walk, jobs, queue);
	/* In a fair queue lane 0 has all that are not due. */
	eq_walk_lanes(&walk, 0, queue->fair ? 0 : PG_INT32_MAX);
	while (n < limit && eq_walk_enter_segment(&walk))
	{
		ScanKeyData keys[4];

		eq_walk_segment_keys(&walk, keys);
		eq_scan_key(&walk.scan, &keys[3], ORDER_RUN_AT, BTGreaterStrategyNumber,
					F_TIMESTAMPTZ_GT, TimestampTzGetDatum(walk.now));
		eq_scan_start(&walk.scan, keys, 4);
		while (n < limit && eq_scan_next(&walk.scan, ForwardScanDirection))
		{
			CHECK_FOR_INTERRUPTS();
			n++;
		}
		skip_segment(&walk);
	}
	eq_walk_end(&walk);
	table_close(jobs, AccessShareLock);
	return n;
}

/*
 * Is one of the first jobs of a queue leased?  Of each segment so many index entries are
 * looked at, from its front: below the ready mark, where leased jobs stand.
 */
bool
eq_any_leased(const EqQueue *queue, int look_at)
{
	Relation jobs = table_open(eq_relation_oid(EQ_JOB), AccessShareLock);
	EqWalk walk;
	bool found = false;
	bool stalled;

	eq_walk_begin(&walk, jobs, queue);
	walk.from_start = true;
	while (!found && eq_walk_enter_segment(&walk))
	{
		for (int i = 0; i < look_at && !found && eq_walk_next_entry(&walk); i++)
		{
			CHECK_FOR_INTERRUPTS();
			found = eq_scan_fetch(&walk.scan) &&
					eq_is_leased(walk.row, walk.now, &stalled);
		}
		skip_segment(&walk);
	}
	eq_walk_end(&walk);
	table_close(jobs, AccessShareLock);
	return found;
}

/*
 * The sweep of mark.c: lowers each mark of a queue below which a job can be
 * claimed, to that job.  A claimer whose snapshot is older than the sweep's must not
 * raise a mark afterwards.
 */
void
eq_sweep_marks(const EqQueue *queue)
{
	EqWakeSlot *slot = eq_wake_slot(queue->queue_id);
	Relation jobs = table_open(eq_relation_oid(EQ_JOB), AccessShareLock);
	EqWalk walk;
	bool stalled;

	if (slot)
		pg_atomic_fetch_add_u64(&eq_queue_slot(slot)->mark_generation, 1);
	eq_walk_begin(&walk, jobs, queue);
	walk.from_start = true;
	while (eq_walk_next(&walk))
	{
		bool below = walk.place.run_at < walk.begin.run_at ||
					 (walk.place.run_at == walk.begin.run_at &&
					  walk.place.job_id < walk.begin.job_id);

		if (below && eq_is_leased(walk.row, walk.now, &stalled))
			continue;
		if (below)
			eq_mark_lower(walk.slot, queue->queue_id, walk.lane, walk.priority,
						  walk.place);
		/* Claims find the jobs above the mark. */
		skip_segment(&walk);
	}
	eq_walk_end(&walk);
	table_close(jobs, AccessShareLock);
}
