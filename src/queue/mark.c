/*
 * mark.c: the ready mark: where a claim's walk begins.
 *
 * While an old snapshot is open, vacuum can't remove finished jobs, and each walk
 * from the start of the index would wade through all of them.  So for each queue,
 * lane and priority shared memory holds a place (run_at, job_id) below which no
 * job can be claimed.  A lost mark is never wrong, only slower.  So the marks are a
 * cache: a key has a few entries where it may be, and if all are in use one of
 * them gives way, first one that was never raised, then one of a tenant's lane,
 * since lanes are many.  Whoever acts on an entry looks at its key with its lock
 * held.
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
 *     generation, then looks for the mark, and lowers it if that is above the place.  A claimer
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
 *     sweep (the shortest stalled_interval, at most 5 s), and after plain SQL at once, it raises the generation,
 *     walks from the start up to each mark and lowers it to the first job that can
 *     be claimed (look.c).
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "commands/trigger.h"
#include "common/hashfn.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "storage/spin.h"
#include "utils/rel.h"
#include "utils/timestamp.h"

#include "queue/queue_slot.h"
#include "table/table.h"
#include "wake/wake.h"

PG_FUNCTION_INFO_V1(eq_note_written);

#define FRESH_US	   5000	 /* (3) of a commit */
#define RAISE_LIMIT_US 10000 /* (1) of a claimer */

#define LOOK_BACK 16 /* among the notes, for one of the same segment */

/* Nothing below the place can be claimed. */
typedef struct Mark
{
	slock_t mutex; /* of all of it */
	Oid dboid;	   /* InvalidOid: free */
	int32 queue_id;
	int32 lane;
	int32 priority;
	EqPlace place;
} Mark;

#define MAX_MARKS 65536
#define MARK_WAYS 8 /* places where a key may be */

static Mark *marks = NULL;
static LWLock *marks_lock = NULL; /* held to make and to free a mark */

/* A segment in which this transaction makes jobs claimable, and the lowest place of these. */
typedef struct Noted
{
	int32 queue_id;
	int32 lane;
	int32 priority;
	EqWakeSlot *queue;
	EqPlace lowest;
} Noted;

/* This transaction has taken jobs out of its own sight; see (1). */
static bool raise_forbidden = false;

static bool
is_mark_of(Mark *mark, int32 queue_id, int32 lane, int32 priority)
{
	return mark->queue_id == queue_id && mark->lane == lane &&
		   mark->priority == priority && mark->dboid == MyDatabaseId;
}

/* Finds the entries where a mark may be. */
static Mark *
entries_of(int32 queue_id, int32 lane, int32 priority)
{
	uint32 hash = hash_combine(
		hash_combine(murmurhash32(queue_id), murmurhash32(lane)),
		hash_combine(murmurhash32(priority), murmurhash32(MyDatabaseId)));

	return &marks[hash % (MAX_MARKS / MARK_WAYS) * MARK_WAYS];
}

/* Finds the mark and locks it; NULL if there is none. */
static Mark *
lock_mark(int32 queue_id, int32 lane, int32 priority)
{
	static Mark *last = NULL;
	Mark *entries;

	if (last && is_mark_of(last, queue_id, lane, priority))
	{
		SpinLockAcquire(&last->mutex);
		if (is_mark_of(last, queue_id, lane, priority))
			return last;
		SpinLockRelease(&last->mutex);
	}
	entries = entries_of(queue_id, lane, priority);
	for (int i = 0; i < MARK_WAYS; i++)
	{
		/* Keys change rarely: a look without the lock first. */
		if (!is_mark_of(&entries[i], queue_id, lane, priority))
			continue;
		SpinLockAcquire(&entries[i].mutex);
		if (is_mark_of(&entries[i], queue_id, lane, priority))
			return last = &entries[i];
		SpinLockRelease(&entries[i].mutex);
	}
	return NULL;
}

/* Ranks entries for replacement: the highest goes first. */
static int
uselessness(const Mark *mark)
{
	if (!OidIsValid(mark->dboid))
		return 3;
	if (mark->place.run_at == PG_INT64_MIN)
		return 2;
	return mark->lane != 0 ? 1 : 0;
}

/* Makes the mark, unless another session did meanwhile. */
static void
make_mark(int32 queue_id, int32 lane, int32 priority)
{
	static uint32 turn = 0;
	Mark *entries = entries_of(queue_id, lane, priority);
	Mark *room = NULL;

	/* Exclusive, so that two sessions don't add the same key; look-ups don't take this lock. */
	LWLockAcquire(marks_lock, LW_EXCLUSIVE);
	turn++;
	for (int i = 0; i < MARK_WAYS; i++)
	{
		Mark *mark = &entries[(turn + i) % MARK_WAYS];

		if (is_mark_of(mark, queue_id, lane, priority))
		{
			LWLockRelease(marks_lock);
			return;
		}
		if (room == NULL || uselessness(mark) > uselessness(room))
			room = mark;
	}
	SpinLockAcquire(&room->mutex);
	room->dboid = MyDatabaseId;
	room->queue_id = queue_id;
	room->lane = lane;
	room->priority = priority;
	room->place.run_at = PG_INT64_MIN;
	room->place.job_id = 0;
	SpinLockRelease(&room->mutex);
	LWLockRelease(marks_lock);
}

static Size
marks_size(void)
{
	return MAX_MARKS * sizeof(Mark);
}

static void
attach_marks(void *memory, LWLockPadded *locks, bool is_new)
{
	marks = memory;
	marks_lock = &locks->lock;
	if (!is_new)
		return;
	memset(marks, 0, marks_size());
	for (int i = 0; i < MAX_MARKS; i++)
		SpinLockInit(&marks[i].mutex);
}

/* Frees the marks of a database that dropped the extension.  Can't throw. */
static void
free_marks(Oid dboid)
{
	LWLockAcquire(marks_lock, LW_EXCLUSIVE);
	for (int i = 0; i < MAX_MARKS; i++)
	{
		Mark *mark = &marks[i];

		if (mark->dboid != dboid)
			continue;
		SpinLockAcquire(&mark->mutex);
		mark->dboid = InvalidOid;
		SpinLockRelease(&mark->mutex);
	}
	LWLockRelease(marks_lock);
}

const EqSharedPart eq_marks_part = {
	.name = "event_queue marks",
	.n_locks = 1,
	.size = marks_size,
	.attach = attach_marks,
	.end_database = free_marks,
};

static bool
is_below(const EqPlace *a, const EqPlace *b)
{
	return a->run_at < b->run_at ||
		   (a->run_at == b->run_at && a->job_id < b->job_id);
}

/*
 * Reads where the walk of a segment begins: at the mark, or at what this transaction has
 * made claimable below it, for which the mark is lowered at commit only.
 */
void
eq_mark_read(int32 queue_id, int32 lane, int32 priority, EqPlace *place)
{
	Mark *mark = lock_mark(queue_id, lane, priority);

	place->run_at = PG_INT64_MIN;
	place->job_id = 0;
	if (mark == NULL)
		return;
	*place = mark->place;
	SpinLockRelease(&mark->mutex);
	for (int i = 0; i < eq_noted_marks.n; i++)
	{
		Noted *noted = EQ_XACT_ENTRY(eq_noted_marks, Noted, i);

		if (noted->queue_id == queue_id && noted->lane == lane &&
			noted->priority == priority && is_below(&noted->lowest, place))
			*place = noted->lowest;
	}
}

/* Raises the mark by (1), or makes it; now: from before the snapshot. */
void
eq_mark_raise(EqWakeSlot *queue, int32 queue_id, int32 lane, int32 priority,
			  uint64 generation, EqPlace place, TimestampTz now)
{
	Mark *mark;

	if (pg_atomic_read_u64(&eq_queue_slot(queue)->mark_generation) != generation)
		return;
	mark = lock_mark(queue_id, lane, priority);
	if (mark == NULL)
	{
		make_mark(queue_id, lane, priority);
		mark = lock_mark(queue_id, lane, priority);
	}
	if (mark == NULL)
		return; /* gone again */
	if (place.run_at > now - RAISE_LIMIT_US)
	{
		place.run_at = now - RAISE_LIMIT_US;
		place.job_id = 0;
	}
	if (is_below(&mark->place, &place) &&
		pg_atomic_read_u64(&eq_queue_slot(queue)->mark_generation) == generation)
		mark->place = place;
	SpinLockRelease(&mark->mutex);
}

static void
lower(int32 queue_id, int32 lane, int32 priority, const EqPlace *place)
{
	Mark *mark = lock_mark(queue_id, lane, priority);

	if (mark == NULL)
		return;
	if (is_below(place, &mark->place))
		mark->place = *place;
	SpinLockRelease(&mark->mutex);
}

/* Lowers the mark to a claimable job that the sweep has found below it. */
void
eq_mark_lower(EqWakeSlot *queue, int32 queue_id, int32 lane, int32 priority,
			  EqPlace place)
{
	if (queue)
		pg_atomic_fetch_add_u64(&eq_queue_slot(queue)->mark_generation, 1);
	lower(queue_id, lane, priority, &place);
}

/*
 * Notes that this transaction makes a job claimable.  Every function that does so calls
 * this and eq_wake_queue; without this the job is found only by the sweep.
 */
void
eq_lower_mark_at_commit(int32 queue_id, int32 lane, int32 priority,
						TimestampTz run_at, int64 job_id)
{
	EqWakeSlot *queue = eq_wake_slot(queue_id);
	EqPlace place = {run_at, job_id};
	Noted *noted;

	if (queue == NULL)
		return; /* nobody raises marks of it */
	for (int i = eq_noted_marks.n - 1; i >= Max(eq_noted_marks.n - LOOK_BACK, 0);
		 i--)
	{
		noted = EQ_XACT_ENTRY(eq_noted_marks, Noted, i);
		if (noted->queue == queue && noted->lane == lane &&
			noted->priority == priority)
		{
			if (is_below(&place, &noted->lowest))
				noted->lowest = place;
			return;
		}
	}
	noted = eq_xact_add(&eq_noted_marks);
	noted->queue_id = queue_id;
	noted->lane = lane;
	noted->priority = priority;
	noted->queue = queue;
	noted->lowest = place;
}

static Datum
job_column(HeapTuple row, TupleDesc desc, int column)
{
	bool isnull;

	return heap_getattr(row, column, desc, &isnull);
}

/* Trigger: lowers the mark for a job that plain SQL wrote. */
Datum
eq_note_written(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;
	TupleDesc desc;
	HeapTuple row;

	if (!CALLED_AS_TRIGGER(fcinfo) || !TRIGGER_FIRED_FOR_ROW(trigger->tg_event) ||
		RelationGetRelid(trigger->tg_relation) != eq_relation_oid(EQ_JOB))
		ereport(ERROR, (errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
						errmsg("note_written: not called by its trigger")));
	desc = RelationGetDescr(trigger->tg_relation);
	row = TRIGGER_FIRED_BY_UPDATE(trigger->tg_event) ? trigger->tg_newtuple
													 : trigger->tg_trigtuple;
	if (eq_get_queue_by_id(DatumGetInt32(job_column(row, desc, JOB_QUEUE))) == NULL)
		PG_RETURN_POINTER(NULL); /* no queue, no place in shared memory */
	eq_lower_mark_at_commit(DatumGetInt32(job_column(row, desc, JOB_QUEUE)),
							DatumGetInt32(job_column(row, desc, JOB_LANE)),
							DatumGetInt16(job_column(row, desc, JOB_PRIORITY)),
							DatumGetTimestampTz(job_column(row, desc, JOB_RUN_AT)),
							DatumGetInt64(job_column(row, desc, JOB_ID)));
	PG_RETURN_POINTER(NULL);
}

/* Notes that this transaction leases, moves or removes a job that could be claimed. */
void
eq_forbid_mark_raise(void)
{
	raise_forbidden = true;
}

bool
eq_mark_raise_is_forbidden(void)
{
	return raise_forbidden || eq_wrote_plain_sql();
}

/* Tells whether this transaction made jobs claimable, which others can't see yet. */
bool
eq_lowers_marks_at_commit(void)
{
	return eq_noted_marks.n > 0;
}

/* Lowers marks by (2) and (3), when the commit is visible. */
static void
lower_marks(void)
{
	TimestampTz now;

	raise_forbidden = false;
	if (eq_noted_marks.n == 0)
		return;
	now = GetCurrentTimestamp();
	for (int i = 0; i < eq_noted_marks.n; i++)
	{
		Noted *noted = EQ_XACT_ENTRY(eq_noted_marks, Noted, i);

		if (noted->lowest.run_at < now - FRESH_US)
			pg_atomic_fetch_add_u64(&eq_queue_slot(noted->queue)->mark_generation,
									1);
		else
			pg_memory_barrier();
		lower(noted->queue_id, noted->lane, noted->priority, &noted->lowest);
		eq_ring_void_if_before(noted->queue,
							   eq_segment(noted->lane, noted->priority),
							   noted->lowest.run_at);
	}
}

/* Jobs of a prepared transaction are found by the scheduler's sweep. */
static void
allow_raise(void)
{
	raise_forbidden = false;
}

/* A rolled-back subtransaction's notes stay: a mark that is too low is only slower. */
EqXactKind eq_noted_marks = {
	.entry_size = sizeof(Noted),
	.top_only = true,
	.at_commit = lower_marks,
	.at_prepare = allow_raise,
	.at_abort = allow_raise,
};
