/*
 * walk.c: the walk over a queue's jobs that are due.
 *
 * Over the index job_order (queue, lane, priority, run_at, id) from the front, so that
 * order needs no sort.  A segment is one priority of one lane: its walk begins at the
 * segment's ready mark (mark.c) and ends at the first job that is not due yet, so that
 * neither finished nor future jobs are walked over.  In a fair queue each tenant has a
 * lane.
 *
 * The snapshot is a fresh one at every isolation level: a claim wants the jobs that
 * are there now.  The generations are read before it (mark.c, ring.c say why).
 */
#include "postgres.h"

#include "access/tableam.h"
#include "miscadmin.h"
#include "utils/fmgroids.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "queue/queue_slot.h"
#include "queue/walk.h"
#include "wake/wake.h"

/* Reads the generations, then the time, and then takes the snapshot. */
void
eq_walk_prepare(EqWalk *walk, const EqQueue *queue, bool raises)
{
	memset(walk, 0, sizeof(EqWalk));
	walk->queue = queue;
	walk->slot = eq_wake_slot(queue->queue_id);
	walk->raises = raises && walk->slot != NULL && !eq_mark_raise_is_forbidden();
	if (walk->slot)
	{
		walk->generation = pg_atomic_read_u64(
			&eq_queue_slot(walk->slot)->mark_generation);
		walk->ring_generation = eq_ring_generation(walk->slot);
	}
	walk->now = GetCurrentTimestamp();
	pg_memory_barrier();
	walk->snapshot = RegisterSnapshot(eq_latest_snapshot());
	walk->end_lane = PG_INT32_MAX;
}

void
eq_walk_open(EqWalk *walk, Relation jobs)
{
	eq_scan_begin(&walk->scan, jobs, eq_relation_oid(EQ_JOB_ORDER), walk->snapshot,
				  4);
	walk->scan.desc->xs_want_itup = true;
	walk->row = walk->scan.slot;
	walk->is_open = true;
}

void
eq_walk_begin(EqWalk *walk, Relation jobs, const EqQueue *queue)
{
	eq_walk_prepare(walk, queue, false);
	eq_walk_open(walk, jobs);
}

static Datum
entry_column(EqWalk *walk, IndexTuple entry, int column)
{
	bool isnull;

	return index_getattr(entry, column, walk->scan.desc->xs_itupdesc, &isnull);
}

/*
 * Finds the next segment that has entries; false if there is none.  At the front
 * of the index many entries may be dead, and each look there would read them; so
 * a segment that had jobs lately is taken for granted, and only the range before
 * it is looked at.
 */
static bool
find_segment(EqWalk *walk)
{
	ScanKeyData keys[4];
	IndexTuple entry = NULL;
	uint64 hint = walk->slot && !walk->from_start
					  ? pg_atomic_read_u64(&eq_queue_slot(walk->slot)->last_segment)
					  : 0;
	bool hinted = (int32) (hint >> 8) == walk->next_lane &&
				  (int32) (hint & 0xff) >= walk->next_priority;

	eq_scan_key(&walk->scan, &keys[0], ORDER_QUEUE, BTEqualStrategyNumber, F_INT4EQ,
				Int32GetDatum(walk->queue->queue_id));
	if (!hinted)
	{
		eq_scan_row_key(&walk->scan, &keys[1], walk->members, ORDER_LANE,
						F_BTINT4CMP, Int32GetDatum(walk->next_lane), F_BTINT2CMP,
						Int16GetDatum(walk->next_priority));
		eq_scan_start(&walk->scan, keys, 2);
		entry = eq_scan_next_entry(&walk->scan);
		if (entry == NULL)
			return false;
	}
	else if ((int32) (hint & 0xff) > walk->next_priority)
	{
		/* Not by a row comparison, which would not end the scan. */
		eq_scan_key(&walk->scan, &keys[1], ORDER_LANE, BTEqualStrategyNumber,
					F_INT4EQ, Int32GetDatum(walk->next_lane));
		eq_scan_key(&walk->scan, &keys[2], ORDER_PRIORITY,
					BTGreaterEqualStrategyNumber, F_INT2GE,
					Int16GetDatum(walk->next_priority));
		eq_scan_key(&walk->scan, &keys[3], ORDER_PRIORITY, BTLessStrategyNumber,
					F_INT2LT, Int16GetDatum((int16) (hint & 0xff)));
		eq_scan_start(&walk->scan, keys, 4);
		entry = eq_scan_next_entry(&walk->scan);
	}
	if (entry)
	{
		walk->lane = DatumGetInt32(entry_column(walk, entry, ORDER_LANE));
		walk->priority = DatumGetInt16(entry_column(walk, entry, ORDER_PRIORITY));
	}
	else
	{
		walk->lane = (int32) (hint >> 8);
		walk->priority = (int32) (hint & 0xff);
	}
	return walk->lane <= walk->end_lane;
}

/* Sets the first three keys of a scan to the segment. */
void
eq_walk_segment_keys(EqWalk *walk, ScanKey keys)
{
	eq_scan_key(&walk->scan, &keys[0], ORDER_QUEUE, BTEqualStrategyNumber, F_INT4EQ,
				Int32GetDatum(walk->queue->queue_id));
	eq_scan_key(&walk->scan, &keys[1], ORDER_LANE, BTEqualStrategyNumber, F_INT4EQ,
				Int32GetDatum(walk->lane));
	eq_scan_key(&walk->scan, &keys[2], ORDER_PRIORITY, BTEqualStrategyNumber,
				F_INT2EQ, Int16GetDatum(walk->priority));
}

/* Begins the walk over (lane, priority), at walk->begin. */
void
eq_walk_start_segment(EqWalk *walk)
{
	ScanKeyData keys[4];

	walk->kept = false;
	walk->in_segment = true;

	eq_walk_segment_keys(walk, keys);
	if (walk->from_start)
	{
		eq_scan_start(&walk->scan, keys, 3);
		return;
	}
	eq_scan_row_key(&walk->scan, &keys[3], walk->members, ORDER_RUN_AT,
					F_TIMESTAMP_CMP, TimestampTzGetDatum(walk->begin.run_at),
					F_BTINT8CMP, Int64GetDatum(walk->begin.job_id));
	eq_scan_start(&walk->scan, keys, 4);
}

/* Begins the next segment; false if there is none. */
bool
eq_walk_enter_segment(EqWalk *walk)
{
	if (!find_segment(walk))
		return false;
	eq_mark_read(walk->queue->queue_id, walk->lane, walk->priority, &walk->begin);
	eq_walk_start_segment(walk);
	return true;
}

/* Ends a segment: raises its mark to the kept job, or to the present place. */
static void
leave_segment(EqWalk *walk, EqPlace place)
{
	walk->in_segment = false;
	if (walk->raises)
		eq_mark_raise(walk->slot, walk->queue->queue_id, walk->lane, walk->priority,
					  walk->generation, walk->kept ? walk->kept_at : place,
					  walk->now);
}

/* Keeps the ready mark from rising over the present job. */
void
eq_walk_limit_raise(EqWalk *walk)
{
	if (!walk->kept)
		walk->kept_at = walk->place;
	walk->kept = true;
}

/* Steps to the next entry of the segment that is due; its row may be dead. */
bool
eq_walk_next_entry(EqWalk *walk)
{
	IndexTuple entry = eq_scan_next_entry(&walk->scan);

	if (entry == NULL)
	{
		walk->place.run_at = walk->now;
		return false;
	}
	walk->place.run_at = DatumGetTimestampTz(
		entry_column(walk, entry, ORDER_RUN_AT));
	walk->place.job_id = DatumGetInt64(entry_column(walk, entry, ORDER_JOB_ID));
	return walk->place.run_at <= walk->now;
}

/* Steps to the next job that is due; its row is in walk->row. */
bool
eq_walk_next(EqWalk *walk)
{
	for (;;)
	{
		if (!walk->in_segment && !eq_walk_enter_segment(walk))
			return false;
		while (eq_walk_next_entry(walk))
		{
			if (!eq_scan_fetch(&walk->scan))
				continue;
			walk->root = walk->scan.root;
			return true;
		}
		walk->next_lane = walk->lane;
		walk->next_priority = walk->priority + 1;
		leave_segment(walk, walk->place);
	}
}

/* Moves the walk to the front of lane from, to end with lane to. */
void
eq_walk_lanes(EqWalk *walk, int32 from, int32 to)
{
	if (walk->in_segment)
		leave_segment(walk, walk->place);
	walk->next_lane = from;
	walk->next_priority = 0;
	walk->end_lane = to;
}

void
eq_walk_end(EqWalk *walk)
{
	if (walk->in_segment)
		leave_segment(walk, walk->place);
	if (walk->is_open)
		eq_scan_end(&walk->scan);
	UnregisterSnapshot(walk->snapshot);
}

/* Tells whether the job is leased, or was, until the lease ran out. */
bool
eq_is_leased(TupleTableSlot *slot, TimestampTz now, bool *stalled)
{
	bool isnull;
	Datum until = slot_getattr(slot, JOB_LEASED_UNTIL, &isnull);

	*stalled = !isnull && DatumGetTimestampTz(until) <= now;
	return !isnull && !*stalled;
}
