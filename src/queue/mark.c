/*
 * mark.c: the ready mark: where a claim's walk begins.
 *
 * While an old snapshot is open, vacuum can't remove finished jobs, and each walk
 * from the start of the index would wade through all of them.  So for each queue,
 * lane and priority shared memory holds a place (run_at, job_id) below which no
 * job can be claimed.  A lost mark is never wrong, only slower.
 *
 * Why no job stays hidden below a mark:
 *
 * (1) A claimer raises the mark only to a place below which its walk, by a
 *     snapshot S taken after it had read the queue's generation g, met no job
 *     that it could not leave behind: nothing, or jobs that committed leases
 *     hold.  Jobs that it claimed itself, that another session had locked, or
 *     that it did not want, stop the raise: if that claim is rolled back, they
 *     are above the mark.  A transaction that has claimed, moved or removed jobs
 *     before raises no more: it does not see what is there again if it is rolled
 *     back.  It raises only if the generation is still g (checked with the mark's
 *     lock held), and never above S's time - 10 ms.
 * (2) A transaction that makes a job claimable (enqueue, fail, release, review)
 *     notes its place.  After its commit is visible it first raises the
 *     generation, then lowers the mark if that is above the place.  A claimer
 *     whose snapshot does not see the job has read the generation before; so
 *     either it raises before that, and the mark is lowered after, or it sees the
 *     new generation and does not raise.
 * (3) If the job's run_at lies less than 5 ms before the commit, the generation
 *     need not change: who does not see the job has a snapshot from before, and
 *     raises no higher than 10 ms before that, which is below the job.  So most
 *     enqueues cost no more than a look at the mark.
 *     Plain SQL that writes jobs (retry_dead, alter_queue, anyone's) does the same by
 *     a trigger.
 * (4) What none of this sees - leases that run out, replication, prepared
 *     transactions, a clock that is set back - is found by the scheduler: each
 *     stalled_interval, and after plain SQL at once, it raises the generation,
 *     walks from the start up to each mark and lowers it to the first job that can
 *     be claimed (claim.c).
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "commands/trigger.h"
#include "common/hashfn.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "storage/spin.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/timestamp.h"

#include "queue/queue.h"
#include "table/table.h"
#include "wake/wake.h"

PG_FUNCTION_INFO_V1(eq_note_written);

#define PROBES		   64
#define FRESH_US	   5000	 /* (3) of a commit */
#define RAISE_LIMIT_US 10000 /* (1) of a claimer */

/* What this transaction makes claimable; in TopMemoryContext. */
typedef struct Noted
{
	EqMark *mark;
	EqWakeSlot *queue;
	EqPlace lowest;
} Noted;

static Noted *noted = NULL;
static int n_noted = 0;
static int max_noted = 0;

/* This transaction has taken jobs out of its own sight; see (1). */
static bool held = false;

static bool
is_mark_of(EqMark *mark, int32 queue_id, int32 lane, int32 priority)
{
	return mark->queue_id == queue_id && mark->lane == lane &&
		   mark->priority == priority && mark->dboid == MyDatabaseId;
}

/* The mark, made if there is none; NULL if there is no room for it. */
static EqMark *
find_mark(int32 queue_id, int32 lane, int32 priority)
{
	static EqMark *last = NULL;
	uint32 hash;
	EqMark *found = NULL;
	EqMark *room = NULL;

	if (last && is_mark_of(last, queue_id, lane, priority))
		return last; /* of this database, so it stays */
	hash = hash_combine(hash_combine(murmurhash32(queue_id), murmurhash32(lane)),
						hash_combine(murmurhash32(priority), MyDatabaseId));
	for (int i = 0; i < PROBES && found == NULL; i++)
	{
		EqMark *mark = &eq_shared->marks[(hash + i) % EQ_MAX_MARKS];

		if (pg_atomic_read_u32(&mark->key_set) == 0)
			break;
		if (is_mark_of(mark, queue_id, lane, priority))
			found = mark;
	}
	if (found == NULL)
	{
		LWLockAcquire(eq_shared->lock, LW_EXCLUSIVE);
		for (int i = 0; i < PROBES && found == NULL; i++)
		{
			EqMark *mark = &eq_shared->marks[(hash + i) % EQ_MAX_MARKS];
			bool used = pg_atomic_read_u32(&mark->key_set) != 0;

			if (used && is_mark_of(mark, queue_id, lane, priority))
				found = mark;
			if (room == NULL && (!used || !OidIsValid(mark->dboid)))
				room = mark;
			if (!used)
				break;
		}
		if (found == NULL && room != NULL)
		{
			room->queue_id = queue_id;
			room->lane = lane;
			room->priority = priority;
			room->place.run_at = PG_INT64_MIN;
			room->place.job_id = 0;
			room->dboid = MyDatabaseId;
			pg_write_barrier();
			pg_atomic_write_u32(&room->key_set, 1);
			found = room;
		}
		LWLockRelease(eq_shared->lock);
	}
	if (found)
		last = found;
	return found;
}

static bool
is_below(const EqPlace *a, const EqPlace *b)
{
	return a->run_at < b->run_at ||
		   (a->run_at == b->run_at && a->job_id < b->job_id);
}

/* Where the walk of a segment begins; NULL if it has no mark. */
EqMark *
eq_mark_read(int32 queue_id, int32 lane, int32 priority, EqPlace *place)
{
	EqMark *mark = find_mark(queue_id, lane, priority);

	place->run_at = PG_INT64_MIN;
	place->job_id = 0;
	if (mark)
	{
		SpinLockAcquire(&mark->mutex);
		*place = mark->place;
		SpinLockRelease(&mark->mutex);
	}
	return mark;
}

/* (1); now: from before the snapshot. */
void
eq_mark_raise(EqMark *mark, EqWakeSlot *queue, uint64 generation, EqPlace place,
			  TimestampTz now)
{
	if (place.run_at > now - RAISE_LIMIT_US)
	{
		place.run_at = now - RAISE_LIMIT_US;
		place.job_id = 0;
	}
	SpinLockAcquire(&mark->mutex);
	if (is_below(&mark->place, &place) &&
		pg_atomic_read_u64(&queue->mark_generation) == generation)
		mark->place = place;
	SpinLockRelease(&mark->mutex);
}

static void
lower(EqMark *mark, const EqPlace *place)
{
	SpinLockAcquire(&mark->mutex);
	if (is_below(place, &mark->place))
		mark->place = *place;
	SpinLockRelease(&mark->mutex);
}

/* For the sweep: a job below the mark can be claimed. */
void
eq_mark_lower(EqMark *mark, EqWakeSlot *queue, EqPlace place)
{
	pg_atomic_fetch_add_u64(&queue->mark_generation, 1);
	lower(mark, &place);
}

/* This transaction makes a job claimable. */
void
eq_note_ready(int32 queue_id, int32 lane, int32 priority, TimestampTz run_at,
			  int64 job_id)
{
	EqWakeSlot *queue = eq_wake_slot(queue_id);
	EqMark *mark = queue ? find_mark(queue_id, lane, priority) : NULL;
	EqPlace place = {run_at, job_id};

	if (mark == NULL)
		return;
	for (int i = n_noted - 1; i >= 0; i--)
	{
		if (noted[i].mark == mark)
		{
			if (is_below(&place, &noted[i].lowest))
				noted[i].lowest = place;
			return;
		}
	}
	eq_grow_list((void **) &noted, &max_noted, n_noted + 1, sizeof(Noted));
	noted[n_noted].mark = mark;
	noted[n_noted].queue = queue;
	noted[n_noted++].lowest = place;
}

static Datum
job_column(HeapTuple row, TupleDesc desc, int column)
{
	bool isnull;

	return heap_getattr(row, column, desc, &isnull);
}

/* Trigger: plain SQL wrote a job that may be one to be claimed. */
Datum
eq_note_written(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;
	TupleDesc desc;
	HeapTuple row;

	if (!CALLED_AS_TRIGGER(fcinfo) || !TRIGGER_FIRED_FOR_ROW(trigger->tg_event) ||
		RelationGetRelid(trigger->tg_relation) != eq_relation_oid(EQ_JOB))
		elog(ERROR, "note_written: not called by its trigger");
	desc = RelationGetDescr(trigger->tg_relation);
	row = TRIGGER_FIRED_BY_UPDATE(trigger->tg_event) ? trigger->tg_newtuple
													 : trigger->tg_trigtuple;
	eq_note_ready(DatumGetInt32(job_column(row, desc, JOB_QUEUE)),
				  DatumGetInt32(job_column(row, desc, JOB_LANE)),
				  DatumGetInt16(job_column(row, desc, JOB_PRIORITY)),
				  DatumGetTimestampTz(job_column(row, desc, JOB_RUN_AT)),
				  DatumGetInt64(job_column(row, desc, JOB_ID)));
	PG_RETURN_POINTER(NULL);
}

/* This transaction leases, moves or removes a job that could be claimed. */
void
eq_hold_marks(void)
{
	held = true;
}

bool
eq_marks_are_held(void)
{
	return held || eq_wrote_plain_sql();
}

/* Has this transaction made jobs claimable, which others can't know of? */
bool
eq_has_noted_ready(void)
{
	return n_noted > 0;
}

/* (2) and (3); the commit is visible.  Can't throw. */
void
eq_marks_at_commit(void)
{
	TimestampTz now;

	held = false;
	if (n_noted == 0)
		return;
	now = GetCurrentTimestamp();
	for (int i = 0; i < n_noted; i++)
	{
		if (noted[i].lowest.run_at < now - FRESH_US)
			pg_atomic_fetch_add_u64(&noted[i].queue->mark_generation, 1);
		else
			pg_memory_barrier();
		lower(noted[i].mark, &noted[i].lowest);
		eq_ring_passed_by(noted[i].queue,
						  eq_segment(noted[i].mark->lane, noted[i].mark->priority),
						  noted[i].lowest.run_at);
	}
	n_noted = 0;
}

/* A subtransaction's notes may stay: a mark that is too low is only slower. */
void
eq_forget_marks(void)
{
	held = false;
	n_noted = 0;
}
