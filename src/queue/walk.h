/*
 * walk.h: the walk over a queue's jobs that are due, in the order of claims; for the
 * files of this room only.
 */
#ifndef EQ_WALK_H
#define EQ_WALK_H

#include "access/skey.h"

#include "queue/queue.h"
#include "table/table.h"

/* The walk over a queue's jobs that are due. */
typedef struct EqWalk
{
	const EqQueue *queue;
	EqWakeSlot *slot;
	uint64 generation; /* of the marks, from before the snapshot */
	uint64 ring_generation;
	TimestampTz now; /* likewise */
	Snapshot snapshot;
	bool raises;	 /* marks may be raised */
	bool from_start; /* marks are not heeded */

	EqScan scan;
	bool is_open;			/* the scan is */
	ScanKeyData members[2]; /* the scan's key points to them */
	TupleTableSlot *row;	/* the present job */
	ItemPointerData root;	/* where the index says that it is */

	/* The segment. */
	bool in_segment;
	int32 lane;
	int32 priority;
	EqPlace begin;	 /* the mark, as the walk began */
	EqPlace place;	 /* of the present job */
	bool kept;		 /* a job that the mark must not leave behind was met */
	EqPlace kept_at; /* the first one */

	/* Where the next segment is looked for, and in which lanes. */
	int32 next_lane;
	int32 next_priority;
	int32 end_lane;
} EqWalk;

extern void eq_walk_prepare(EqWalk *walk, const EqQueue *queue, bool raises);
extern void eq_walk_open(EqWalk *walk, Relation jobs);
extern void eq_walk_begin(EqWalk *walk, Relation jobs, const EqQueue *queue);
extern void eq_walk_segment_keys(EqWalk *walk, ScanKey keys);
extern void eq_walk_start_segment(EqWalk *walk);
extern bool eq_walk_enter_segment(EqWalk *walk);
extern bool eq_walk_next_entry(EqWalk *walk);
extern bool eq_walk_next(EqWalk *walk);
extern void eq_walk_limit_raise(EqWalk *walk);
extern void eq_walk_lanes(EqWalk *walk, int32 from, int32 to);
extern void eq_walk_end(EqWalk *walk);
extern bool eq_is_leased(TupleTableSlot *slot, TimestampTz now, bool *stalled);

#endif /* EQ_WALK_H */
