/*
 * limits.c: rate_limit and max_concurrency of a queue.
 *
 * Both are kept in shared memory, in the queue's slot, under one of a few LWLocks
 * that are held for some hundred instructions, with nothing inside that throws.
 * Queues without limits never come here.
 *
 * The rate is a token bucket: it fills at rate_limit per rate_interval up to
 * rate_limit.  A claim takes its tokens at once.  Why no span of t has more than
 * rate_limit * (1 + t / rate_interval) claims that are committed:
 *
 * (1) A claim under way holds as many tokens as it may take jobs, and gives back
 *     what it did not need.  Meanwhile the bucket fills only so far that these would
 *     still fit: as if it had taken only what it did need, and perhaps less.
 * (2) A transaction that is rolled back gives back the tokens that it took, less
 *     what has flowed since.  For had it not taken them, the bucket would have been
 *     full that much earlier, and at most what flowed would have been lost.
 *
 * The leases of a queue with max_concurrency are in a hash table, and in a list in
 * the queue's slot, which counts them:
 *
 * (3) A claim under way counts as many places as it may take jobs; the jobs that it
 *     took have an entry each, with the time at which the lease runs out.
 * (4) An entry belongs to the transaction that last wrote it, until that has ended:
 *     so long it counts, whatever the time.  Rolled back, the entry is as before;
 *     committed, it is gone if the job was settled.  Those that belong to no one
 *     count until their lease runs out.  A transaction's own settled jobs leave it
 *     their places.
 * (5) A commit is visible before the entries follow it.  Whoever claims or settles a
 *     job in between takes the entry over; its former owner then leaves it alone.
 * (6) A job whose lease ran out lost its place.  If it is taken by another one, the
 *     lease can't be extended.
 *
 * After a restart, and when a queue is given max_concurrency, its leases are not
 * known.  The first claimer reads them from the table, while others wait, up to a second:
 * what is committed, without what its own transaction has settled; and what open and
 * prepared transactions have claimed, which counts until it runs out, whatever
 * becomes of them.  Entries that belong to open transactions are kept.  If a job is
 * settled or given back meanwhile, it reads again.  The bucket begins empty after a
 * restart, since it is not known what was claimed before it; of a queue that had no
 * rate it begins full.
 */
#include "postgres.h"

#include <math.h>

#include "access/table.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "common/hashfn.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "storage/bufmgr.h"
#include "storage/shmem.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "common/interval.h"
#include "queue/queue.h"
#include "table/table.h"
#include "tenant/tenant.h"
#include "wake/wake.h"

PG_FUNCTION_INFO_V1(eq_limits_changed);
PG_FUNCTION_INFO_V1(eq_queue_limits);
PG_FUNCTION_INFO_V1(eq_age_bucket);

#define WHOLE			  1e-6	 /* a token may lack so much, of rounding */
#define READING_US		  10000	 /* when to come again while leases are read */
#define MAX_WAIT_MS		  1000	 /* for another one that reads them */
#define SWEEP_US		  100000 /* how often all queues are swept for room */
#define MAX_READS		  10	 /* of the leases, while jobs are settled */
#define ROWS_WORTH_A_PAGE 4		 /* by an index, for a page of the table */
#define ROWS_WORTH_A_SCAN 1000
#define FEW_LEASES		  8 /* that a queue has without asking for its share */
#define SHARE_OF_QUEUE	  1 /* as EQ_SHARE_OF_DATABASE */
#define SHOWN_LEASES	  100
#define NEVER			  PG_INT64_MAX

/* A lease of a queue with max_concurrency. */
typedef struct LeaseKey
{
	int64 job_id;
	int32 slot; /* number of the queue's slot */
	int32 unused;
} LeaseKey;

typedef enum LeaseState
{
	LEASE_CLAIMED,
	LEASE_SETTLED,
	LEASE_PROLONGED
} LeaseState;

typedef struct Lease
{
	LeaseKey key;
	dlist_node node; /* of the queue's list */
	TimestampTz until;
	uint64 owner;	  /* the open transaction that wrote it; 0: none */
	LeaseState state; /* for its owner */
} Lease;

static HTAB *leases = NULL;

/* What this transaction did, in this order. */
typedef enum MarkKind
{
	MARK_RESERVED, /* a claim under way */
	MARK_TOKENS,
	MARK_CLAIMED,
	MARK_SETTLED,
	MARK_PROLONGED,
	MARK_SETTINGS,
	MARK_NOTHING
} MarkKind;

typedef struct Mark
{
	MarkKind kind;
	SubTransactionId subid;
	EqWakeSlot *slot;

	/* RESERVED, TOKENS */
	int32 tokens;
	int32 places;
	uint32 bucket; /* of which the tokens are */
	double flowed; /* until they were taken */

	/* CLAIMED, SETTLED, PROLONGED: the entry before */
	int64 job_id;
	bool was_there;
	bool was_mine;
	bool was_nobodys;
	LeaseState was_state;
	TimestampTz was_until;

	/* SETTINGS */
	int32 rate_limit;
	int64 rate_interval;
	bool began;			 /* a bucket */
	bool leases_changed; /* max_concurrency was set, or lifted */
	bool counts;		 /* it is set */
} Mark;

/* In TopMemoryContext, as callbacks at the end of a transaction need it. */
static Mark *marks = NULL;
static int n_marks = 0;
static int max_marks = 0;
static int n_settings = 0; /* of the marks, those of kind SETTINGS */

/* Places of jobs that this transaction has settled: its own to use again. */
typedef struct Freed
{
	EqWakeSlot *slot;
	int32 n;
} Freed;

static Freed *freed = NULL;
static int n_freed = 0;
static int max_freed = 0;

static uint64 my_stamp = 0; /* of this transaction, as owner of entries */

/* The queue whose leases this session is reading. */
static EqWakeSlot *reading = NULL;
static uint32 reading_epoch;

static int32
slot_number(EqWakeSlot *slot)
{
	return slot - eq_shared->wake_slots;
}

static LWLock *
lock_of(EqWakeSlot *slot)
{
	return &eq_shared->limit_locks[slot_number(slot) % EQ_LIMIT_LOCKS].lock;
}

static EqLimits *
lock_limits(EqWakeSlot *slot)
{
	LWLockAcquire(lock_of(slot), LW_EXCLUSIVE);
	return &slot->limits;
}

static void
unlock_limits(EqWakeSlot *slot)
{
	LWLockRelease(lock_of(slot));
}

/* The last bits say which lock it is, so that a bucket of the table has one lock. */
static uint32
lease_hash(const void *key, Size size)
{
	const LeaseKey *lease = key;
	uint32 hash = hash_combine(
		murmurhash32((uint32) lease->job_id),
		murmurhash32((uint32) (lease->job_id >> 32) ^ lease->slot));

	return (hash & ~(uint32) (EQ_LIMIT_LOCKS - 1)) | (lease->slot % EQ_LIMIT_LOCKS);
}

Size
eq_leases_size(void)
{
	return hash_estimate_size(eq_max_limited_leases, sizeof(Lease));
}

void
eq_init_leases(void)
{
	HASHCTL ctl = {.keysize = sizeof(LeaseKey),
				   .entrysize = sizeof(Lease),
				   .hash = lease_hash,
				   .num_partitions = EQ_LIMIT_LOCKS};

	leases = ShmemInitHash(
		"event_queue leases", eq_max_limited_leases, eq_max_limited_leases, &ctl,
		HASH_ELEM | HASH_FUNCTION | HASH_PARTITION | HASH_FIXED_SIZE);
}

/* Of a slot that is used for the first time. */
void
eq_init_limits(EqWakeSlot *slot)
{
	memset(&slot->limits, 0, sizeof(EqLimits));
	dlist_init(&slot->limits.leases);
	ConditionVariableInit(&slot->limits.read);
}

static EqWakeSlot *
slot_of(const EqQueue *queue)
{
	EqWakeSlot *slot = eq_wake_slot(queue->queue_id);

	if (slot == NULL)
		ereport(
			ERROR,
			(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
			 errmsg("no room in shared memory for the limits of queue \"%s\"",
					queue->name),
			 errhint("Raise event_queue.max_queues (now %d) and restart the server.",
					 eq_max_queues)));
	return slot;
}

/* Room for so many more marks, and what the callbacks need. */
static void
need_marks(int n)
{
	static uint32 transactions = 0;

	(void) eq_database(); /* take the entry now: it may throw */
	if (my_stamp == 0)
		my_stamp = (uint64) MyProcPid << 32 | ++transactions;
	eq_grow_list((void **) &marks, &max_marks, n_marks + n, sizeof(Mark));
}

/* After need_marks it can't throw. */
static Mark *
add_mark(MarkKind kind, EqWakeSlot *slot)
{
	Mark *mark = &marks[n_marks++];

	memset(mark, 0, sizeof(Mark));
	mark->kind = kind;
	mark->subid = GetCurrentSubTransactionId();
	mark->slot = slot;
	return mark;
}

/* How many places of jobs that it has settled are this transaction's own. */
static int32 *
freed_places(EqWakeSlot *slot)
{
	static int32 none;

	none = 0;
	for (int i = 0; i < n_freed; i++)
	{
		if (freed[i].slot == slot)
			return &freed[i].n;
	}
	return &none;
}

static void
need_freed(EqWakeSlot *slot)
{
	for (int i = 0; i < n_freed; i++)
	{
		if (freed[i].slot == slot)
			return;
	}
	eq_grow_list((void **) &freed, &max_freed, n_freed + 1, sizeof(Freed));
	freed[n_freed].slot = slot;
	freed[n_freed++].n = 0;
}

/*
 * How many leases this database has, counted when there is need, and at most ten
 * times a second.
 */
static int64
leases_of_database(EqDatabase *db, TimestampTz now)
{
	TimestampTz at = pg_atomic_read_u64(&db->leases_at);
	uint32 n = 0;

	if (now >= at && now < at + SWEEP_US)
		return pg_atomic_read_u32(&db->leases);
	for (int i = 0; i < eq_shared->n_slots; i++)
	{
		EqWakeSlot *slot = &eq_shared->wake_slots[i];

		if (eq_slot_database(slot) == MyDatabaseId)
			n += slot->limits.active + slot->limits.reserved;
	}
	pg_atomic_write_u32(&db->leases, n);
	pg_atomic_write_u64(&db->leases_at, now);
	return n;
}

/*
 * May the queue have so many more leases?  No queue and no database takes the room
 * of all; but a queue that has few is only refused if there is no room at all, or
 * if its database has all but an eighth.
 */
static bool
is_fair(EqWakeSlot *slot, EqDatabase *db, int n, int64 free)
{
	bool few = slot->limits.active + slot->limits.reserved + n <= FEW_LEASES;

	if (free - n >= eq_max_limited_leases / 2)
		return true; /* more than anyone is refused for */
	return (few || eq_is_fair_share(slot->limits.active + slot->limits.reserved, n,
									free, SHARE_OF_QUEUE)) &&
		   eq_is_fair_share(leases_of_database(db, GetCurrentTimestamp()), n, free,
							few ? 7 : EQ_SHARE_OF_DATABASE);
}

/*
 * Takes room in the table for up to n more leases of this queue, with its lock
 * held; for how many there was.  db: the entry of this database, since the caller
 * must not throw.
 */
static int
take_room(EqWakeSlot *slot, EqDatabase *db, int n)
{
	uint32 had = pg_atomic_fetch_add_u32(&eq_shared->leases_taken, n);
	int64 free = (int64) eq_max_limited_leases - had;
	int room = Max(Min(free, n), 0);

	if (room > 0 && !is_fair(slot, db, room, free))
	{
		int too_many = room;

		room = 0;
		while (room + 1 < too_many)
		{
			int middle = (room + too_many) / 2;

			if (is_fair(slot, db, middle, free))
				room = middle;
			else
				too_many = middle;
		}
	}
	pg_atomic_fetch_sub_u32(&eq_shared->leases_taken, n - room);
	return room;
}

/* For a lease that is there already. */
static bool
take_any_room(void)
{
	if (pg_atomic_fetch_add_u32(&eq_shared->leases_taken, 1) <
		(uint32) eq_max_limited_leases)
		return true;
	pg_atomic_fetch_sub_u32(&eq_shared->leases_taken, 1);
	return false;
}

static void
give_room(int n)
{
	if (n > 0)
		pg_atomic_fetch_sub_u32(&eq_shared->leases_taken, n);
}

/* The entries; all with the lock held. */
static Lease *
find_lease(EqWakeSlot *slot, int64 job_id)
{
	LeaseKey key = {job_id, slot_number(slot), 0};

	return hash_search(leases, &key, HASH_FIND, NULL);
}

/* One that is not there, for which the caller has taken room. */
static Lease *
add_lease(EqWakeSlot *slot, int64 job_id, TimestampTz until)
{
	LeaseKey key = {job_id, slot_number(slot), 0};
	Lease *lease = hash_search(leases, &key, HASH_ENTER_NULL, NULL);

	if (lease == NULL)
		return NULL; /* can't be: there was room */
	lease->until = until;
	lease->owner = 0;
	lease->state = LEASE_CLAIMED;
	dlist_push_tail(&slot->limits.leases, &lease->node);
	slot->limits.active++;
	slot->limits.next_expiry = Min(slot->limits.next_expiry, until);
	return lease;
}

static void
remove_lease(EqWakeSlot *slot, Lease *lease)
{
	LeaseKey key = lease->key;

	dlist_delete(&lease->node);
	(void) hash_search(leases, &key, HASH_REMOVE, NULL);
	slot->limits.active--;
	give_room(1);
}

/* It belongs to no one any more, and counts until it runs out. */
static void
let_go(EqWakeSlot *slot, Lease *lease)
{
	lease->owner = 0;
	slot->limits.next_expiry = Min(slot->limits.next_expiry, lease->until);
}

/* Removes those that belong to no one and ran out by then. */
static void
drop_leases(EqWakeSlot *slot, TimestampTz ran_out)
{
	EqLimits *limits = &slot->limits;
	dlist_mutable_iter i;

	limits->next_expiry = NEVER;
	dlist_foreach_modify(i, &limits->leases)
	{
		Lease *lease = dlist_container(Lease, node, i.cur);

		if (lease->owner != 0)
			continue;
		if (lease->until <= ran_out)
			remove_lease(slot, lease);
		else
			limits->next_expiry = Min(limits->next_expiry, lease->until);
	}
}

/*
 * The slot's queue is no more.  Leases go at once, so that others have their room;
 * what is left of claims under way goes when the slot is taken for another queue:
 * then no transaction uses it.  Neither throws.
 */
void
eq_forget_leases(EqWakeSlot *slot)
{
	dlist_mutable_iter i;

	lock_limits(slot);
	dlist_foreach_modify(i, &slot->limits.leases)
		remove_lease(slot, dlist_container(Lease, node, i.cur));
	unlock_limits(slot);
}

void
eq_forget_limits(EqWakeSlot *slot)
{
	EqLimits *limits = &slot->limits;

	eq_forget_leases(slot);
	lock_limits(slot);
	limits->rate_limit = 0;
	limits->reserved = 0;
	limits->reserved_tokens = 0;
	limits->refused = false;
	limits->bucket++;
	limits->knowledge = EQ_LEASES_UNKNOWN;
	limits->epoch++;
	limits->next_expiry = NEVER;
	unlock_limits(slot);
}

/* For the scheduler: times of leases were corrected in the table. */
void
eq_read_leases_anew(void)
{
	for (int i = 0; i < eq_shared->n_slots; i++)
	{
		EqWakeSlot *slot = &eq_shared->wake_slots[i];

		if (eq_slot_database(slot) != MyDatabaseId)
			continue;
		lock_limits(slot);
		slot->limits.knowledge = EQ_LEASES_UNKNOWN;
		slot->limits.epoch++;
		unlock_limits(slot);
	}
}

static int
free_places(EqWakeSlot *slot, int32 max_concurrency, int wanted, TimestampTz now)
{
	EqLimits *limits = &slot->limits;
	int64 own = *freed_places(slot);
	int64 left = (int64) max_concurrency + own - limits->active - limits->reserved;

	if (left < wanted && now >= limits->next_expiry)
	{
		drop_leases(slot, now);
		left = (int64) max_concurrency + own - limits->active - limits->reserved;
	}
	return Max(Min(left, wanted), 0);
}

/* The table is nearly full: looks for leases of other queues that have run out. */
static void
sweep_for_room(int wanted)
{
	TimestampTz now = GetCurrentTimestamp();
	uint64 last = pg_atomic_read_u64(&eq_shared->leases_swept);

	if (pg_atomic_read_u32(&eq_shared->leases_taken) + (int64) wanted <=
			eq_max_limited_leases ||
		(now >= (TimestampTz) last && now < (TimestampTz) last + SWEEP_US) ||
		!pg_atomic_compare_exchange_u64(&eq_shared->leases_swept, &last, now))
		return;
	for (int i = 0; i < eq_shared->n_slots; i++)
	{
		EqWakeSlot *slot = &eq_shared->wake_slots[i];

		if (slot->limits.active == 0)
			continue;
		if (now >= lock_limits(slot)->next_expiry)
			drop_leases(slot, now);
		unlock_limits(slot);
	}
}

/* Without the lock held. */
static void
warn_of_full_table(EqWakeSlot *slot)
{
	static TimestampTz last = 0;
	TimestampTz now = GetCurrentTimestamp();

	if (now < last + 60 * USECS_PER_SEC && now >= last)
		return;
	last = now;
	ereport(
		WARNING,
		(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
		 errmsg(
			 "event_queue: no room for more leases of queues with max_concurrency"),
		 errdetail("%u of %d are taken, %d of them by this queue; no queue and no"
				   " database may have the room of all.",
				   pg_atomic_read_u32(&eq_shared->leases_taken),
				   eq_max_limited_leases, slot->limits.active),
		 errhint(
			 "Raise event_queue.max_limited_leases (now %d) and restart the server.",
			 eq_max_limited_leases)));
}

/* The bucket; all with the lock held. */
static void
begin_bucket(EqLimits *limits, int32 rate_limit, int64 rate_interval, bool full)
{
	limits->rate_limit = rate_limit;
	limits->rate_interval = rate_interval;
	limits->tokens = full ? rate_limit : 0;
	limits->reserved_tokens = 0;
	limits->flowed = 0;
	limits->refilled_at = GetCurrentTimestamp();
	limits->bucket++; /* nothing that was taken from another one comes back */
}

static void
refill(EqLimits *limits, TimestampTz now)
{
	double come = Max(now - limits->refilled_at, 0) * (double) limits->rate_limit /
				  limits->rate_interval;

	limits->flowed += come;
	limits->tokens = Min(limits->tokens + come,
						 (double) limits->rate_limit - limits->reserved_tokens);
	limits->refilled_at = now;
}

/* Tokens that came until now came at the old rate; none is above the new limit. */
static void
change_rate(EqLimits *limits, int32 rate_limit, int64 rate_interval)
{
	refill(limits, GetCurrentTimestamp());
	if (rate_limit < limits->rate_limit)
		limits->flowed += limits->rate_limit - rate_limit; /* as in (2) */
	limits->rate_limit = rate_limit;
	limits->rate_interval = rate_interval;
	limits->tokens = Min(limits->tokens,
						 (double) rate_limit - limits->reserved_tokens);
}

/* Does this transaction change the queue's limits? */
static bool
changes_settings(EqWakeSlot *slot)
{
	for (int i = 0; i < n_marks && n_settings > 0; i++)
	{
		if (marks[i].kind == MARK_SETTINGS && marks[i].slot == slot)
			return true;
	}
	return false;
}

/*
 * Brings the bucket up to date.  A change of the settings comes with its commit; who
 * meets others than its own has missed it (COMMIT PREPARED, a restart), unless the
 * change is its own and not committed: until then the old ones hold.
 */
static void
settle_bucket(EqWakeSlot *slot, const EqQueue *queue, bool changes, TimestampTz now)
{
	EqLimits *limits = &slot->limits;

	if (limits->rate_limit == 0)
		begin_bucket(limits, queue->rate_limit, queue->rate_interval, false);
	else if ((limits->rate_limit != queue->rate_limit ||
			  limits->rate_interval != queue->rate_interval) &&
			 !changes)
		change_rate(limits, queue->rate_limit, queue->rate_interval);
	else
		refill(limits, now);
}

/* Leases as the table has them. */
typedef struct Read
{
	int64 job_id;
	TimestampTz until;
	bool is_over; /* no more leased when it was looked at again */
} Read;

typedef struct Reads
{
	Read *rows; /* NULL: none */
	int n;
	int max;
} Reads;

/* Keeps the row in the slot, if it is leased. */
static void
keep_read(Reads *reads, TupleTableSlot *slot, TimestampTz now)
{
	bool isnull;
	Datum until = slot_getattr(slot, JOB_LEASED_UNTIL, &isnull);

	CHECK_FOR_INTERRUPTS();
	if (isnull || DatumGetTimestampTz(until) <= now)
		return;
	if (reads->n == reads->max)
	{
		reads->max = reads->max ? reads->max * 2 : 64;
		reads->rows = reads->rows
						  ? repalloc_huge(reads->rows, reads->max * sizeof(Read))
						  : palloc(reads->max * sizeof(Read));
	}
	reads->rows[reads->n].until = DatumGetTimestampTz(until);
	reads->rows[reads->n].is_over = false;
	reads->rows[reads->n++].job_id = DatumGetInt64(
		slot_getattr(slot, JOB_ID, &isnull));
}

/*
 * By the index, or, if the queue turns out to be a large part of the table, by the
 * table's pages: a lease is in no index, and most jobs of a long queue wait.
 */
static void
read_rows(const EqQueue *queue, Snapshot snapshot, Reads *reads)
{
	Relation jobs = table_open(eq_relation_oid(EQ_JOB), AccessShareLock);
	TimestampTz now = GetCurrentTimestamp();
	int64 worth = ROWS_WORTH_A_PAGE * (int64) RelationGetNumberOfBlocks(jobs) +
				  ROWS_WORTH_A_SCAN;
	int before = reads->n;
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
		keep_read(reads, scan.slot, now);
		worth--;
	}
	eq_scan_end(&scan);
	if (worth < 0)
	{
		reads->n = before;
		pages = table_beginscan(jobs, snapshot, 0, NULL);
		slot = table_slot_create(jobs, NULL);
		while (table_scan_getnextslot(pages, ForwardScanDirection, slot))
		{
			if (DatumGetInt32(slot_getattr(slot, JOB_QUEUE, &isnull)) ==
				queue->queue_id)
				keep_read(reads, slot, now);
		}
		ExecDropSingleTupleTableSlot(slot);
		table_endscan(pages);
	}
	table_close(jobs, AccessShareLock);
}

/* A snapshot of what is committed, whatever this transaction has done to it. */
static Snapshot
committed_snapshot(void)
{
	Snapshot snapshot = RegisterSnapshot(GetLatestSnapshot());

	snapshot->curcid = FirstCommandId; /* a copy: before our first command */
	return snapshot;
}

/*
 * The queue's leases that are committed, whatever this transaction has done to them,
 * and those that are not committed yet.
 */
static void
read_leases(const EqQueue *queue, Reads *reads)
{
	Snapshot snapshot;
	SnapshotData dirty;

	InitDirtySnapshot(dirty);
	read_rows(queue, &dirty, reads);
	snapshot = committed_snapshot();
	read_rows(queue, snapshot, reads);
	UnregisterSnapshot(snapshot);
}

/* Is the job still leased? */
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

/* Jobs were settled since they were read: which of the leases are over? */
static void
read_leases_again(Reads *reads)
{
	Relation jobs = table_open(eq_relation_oid(EQ_JOB), AccessShareLock);
	TimestampTz now = GetCurrentTimestamp();
	Snapshot snapshot = committed_snapshot();
	SnapshotData dirty;

	InitDirtySnapshot(dirty);
	for (int i = 0; i < reads->n; i++)
	{
		Read *read = &reads->rows[i];

		CHECK_FOR_INTERRUPTS();
		if (!read->is_over)
			read->is_over = !is_leased(jobs, &dirty, read->job_id, now) &&
							!is_leased(jobs, snapshot, read->job_id, now);
	}
	UnregisterSnapshot(snapshot);
	table_close(jobs, AccessShareLock);
}

/* Jobs that this transaction settled while their leases were not known. */
static void
own_settled(EqWakeSlot *slot)
{
	for (int i = 0; i < n_marks; i++)
	{
		Mark *mark = &marks[i];
		Lease *lease;

		if (mark->kind != MARK_SETTLED || mark->slot != slot || mark->was_there)
			continue;
		lease = find_lease(slot, mark->job_id);
		if (lease == NULL || lease->owner != 0)
			continue;
		mark->was_there = true;
		mark->was_until = lease->until;
		lease->owner = my_stamp;
		lease->state = LEASE_SETTLED;
		(*freed_places(slot))++;
	}
}

/* Waits while another session reads the leases; without a lock, and not for long. */
static void
await_reader(EqWakeSlot *slot)
{
	TimestampTz until = GetCurrentTimestamp() + MAX_WAIT_MS * INT64CONST(1000);
	EqLimits *limits = &slot->limits;
	bool wait = true;

	ConditionVariablePrepareToSleep(&limits->read);
	while (wait)
	{
		lock_limits(slot);
		wait = limits->knowledge == EQ_LEASES_READING;
		unlock_limits(slot);
		wait = wait &&
			   !ConditionVariableTimedSleep(
				   &limits->read,
				   TimestampDifferenceMilliseconds(GetCurrentTimestamp(), until) + 1,
				   PG_WAIT_EXTENSION);
	}
	ConditionVariableCancelSleep();
}

/* Reads them, as this session has said that it would; false if there is no room. */
static bool
read_them(EqWakeSlot *slot, const EqQueue *queue)
{
	EqLimits *limits = &slot->limits;
	Reads reads = {0};
	bool known = false;
	bool full = false;
	bool again = true;

	for (int i = 0; again && !full; i++)
	{
		uint32 settled;

		lock_limits(slot);
		if (i == 0)
			drop_leases(slot, NEVER);
		settled = limits->settled;
		unlock_limits(slot);

		if (i == 0)
			read_leases(queue, &reads);
		else
			read_leases_again(&reads);
		sweep_for_room(reads.n);

		lock_limits(slot);
		for (int j = 0; j < reads.n && !full; j++)
		{
			Read *read = &reads.rows[j];
			Lease *lease = find_lease(slot, read->job_id);

			if (read->is_over)
			{
				if (lease && lease->owner == 0 && lease->until == read->until)
					remove_lease(slot, lease);
			}
			else if (lease == NULL)
				full = !take_any_room() ||
					   add_lease(slot, read->job_id, read->until) == NULL;
			else if (lease->owner == 0)
				lease->until = Max(lease->until, read->until);
		}
		/* A lease of a job that is settled since counts until it runs out. */
		again = limits->settled != settled && i + 1 < MAX_READS;
		if (!again || full)
		{
			if (limits->epoch == reading_epoch)
			{
				limits->knowledge = full ? EQ_LEASES_UNKNOWN : EQ_LEASES_KNOWN;
				known = !full;
			}
			if (known)
				own_settled(slot);
			reading = NULL;
		}
		unlock_limits(slot);
	}
	ConditionVariableBroadcast(&limits->read);
	if (reads.rows)
		pfree(reads.rows);
	if (full)
		warn_of_full_table(slot);
	return known;
}

/* Has the queue's leases in shared memory; false if they can't be for now. */
static bool
know_leases(EqWakeSlot *slot, const EqQueue *queue)
{
	EqLimits *limits = &slot->limits;
	EqKnowledge knowledge;

	need_marks(0);
	lock_limits(slot);
	knowledge = limits->knowledge;
	unlock_limits(slot);
	if (knowledge == EQ_LEASES_READING)
		await_reader(slot);

	lock_limits(slot);
	knowledge = limits->knowledge;
	if (knowledge == EQ_LEASES_UNKNOWN)
	{
		limits->knowledge = EQ_LEASES_READING;
		reading_epoch = limits->epoch;
		reading = slot;
	}
	unlock_limits(slot);
	if (knowledge == EQ_LEASES_UNKNOWN)
		return read_them(slot, queue);
	return knowledge == EQ_LEASES_KNOWN;
}

/*
 * How many of the wanted jobs may be claimed now.  They are the caller's until
 * eq_use_claims says how many it took.  If there is none, *retry_at says when there
 * will be one, if that is known.
 */
int
eq_reserve_claims(const EqQueue *queue, int wanted, TimestampTz *retry_at)
{
	EqWakeSlot *slot = slot_of(queue);
	EqLimits *limits = &slot->limits;
	EqDatabase *db = eq_database();
	bool changes = changes_settings(slot);
	bool no_room = false;
	int allowed;
	TimestampTz now;
	Mark *mark;

	if (queue->max_concurrency > 0)
		sweep_for_room(wanted);
	need_marks(1);
	for (;;)
	{
		lock_limits(slot);
		if (queue->max_concurrency == 0 || limits->knowledge == EQ_LEASES_KNOWN)
			break;
		unlock_limits(slot);
		if (!know_leases(slot, queue))
		{
			*retry_at = GetCurrentTimestamp() + READING_US;
			return 0;
		}
	}
	allowed = wanted;
	now = GetCurrentTimestamp();
	if (queue->rate_limit > 0)
	{
		settle_bucket(slot, queue, changes, now);
		if (limits->tokens + WHOLE < 1)
		{
			allowed = 0;
			*retry_at = now +
						(int64) ceil((1 - limits->tokens) * limits->rate_interval /
									 limits->rate_limit);
		}
		else
			allowed = Min(Min(wanted, queue->rate_limit),
						  (int) floor(limits->tokens + WHOLE));
		limits->refused |= allowed < wanted && limits->reserved_tokens > 0;
	}
	if (queue->max_concurrency > 0 && allowed > 0)
	{
		int places = free_places(slot, queue->max_concurrency, allowed, now);

		limits->refused |= places < allowed && limits->reserved > 0;
		allowed = take_room(slot, db, places);
		no_room = places > 0 && allowed == 0;
	}
	if (allowed > 0)
	{
		mark = add_mark(MARK_RESERVED, slot);
		if (queue->rate_limit > 0)
		{
			mark->tokens = allowed;
			mark->bucket = limits->bucket;
			mark->flowed = limits->flowed;
			limits->tokens -= allowed;
			limits->reserved_tokens += allowed;
		}
		if (queue->max_concurrency > 0)
		{
			mark->places = allowed;
			limits->reserved += allowed;
		}
	}
	unlock_limits(slot);
	if (no_room)
		warn_of_full_table(slot);
	return allowed;
}

/* Wakes those who found a limit reached; can't throw. */
static void
wake_refused(EqWakeSlot *slot)
{
	/* Whoever raised the flag first has woken the scheduler. */
	if (pg_atomic_exchange_u32(&slot->pending, 1) == 0)
		eq_wake_scheduler(eq_database());
	eq_wake_waiters(slot, PG_INT64_MAX);
}

/* Gives back all of a reservation but n jobs; true if someone was refused for it. */
static bool
end_reservation(EqLimits *limits, const Mark *mark, int n)
{
	bool refused = limits->refused && n < Max(mark->tokens, mark->places);

	if (mark->tokens > 0 && mark->bucket == limits->bucket && limits->rate_limit > 0)
	{
		limits->reserved_tokens -= mark->tokens;
		limits->tokens += mark->tokens - n;
	}
	limits->reserved -= mark->places;
	if (limits->reserved == 0 && limits->reserved_tokens == 0)
		limits->refused = false;
	return refused;
}

/* Of the reserved claims, these were made. */
void
eq_use_claims(const EqQueue *queue, const EqClaimedJob *jobs, int n_jobs)
{
	EqWakeSlot *slot = slot_of(queue);
	EqLimits *limits = &slot->limits;
	int at = n_marks - 1;
	int unused_room = 0;
	bool failed = false;
	bool refused;
	Mark reservation;

	need_marks(n_jobs + 1);
	while (at >= 0 && (marks[at].kind != MARK_RESERVED || marks[at].slot != slot))
		at--;
	if (at < 0)
		elog(ERROR, "claims of queue \"%s\" were not reserved", queue->name);
	reservation = marks[at];
	if (at == n_marks - 1)
		n_marks--;
	else
		marks[at].kind = MARK_NOTHING;

	lock_limits(slot);
	refused = end_reservation(limits, &reservation, n_jobs);
	if (reservation.tokens > 0 && n_jobs > 0)
	{
		Mark *mark = add_mark(MARK_TOKENS, slot);

		mark->tokens = n_jobs;
		mark->bucket = reservation.bucket;
		mark->flowed = reservation.flowed;
	}
	if (reservation.places > 0)
		unused_room = reservation.places - n_jobs;
	for (int i = 0; i < n_jobs && reservation.places > 0 && !failed; i++)
	{
		Lease *lease = find_lease(slot, jobs[i].job_id);
		Mark *mark;

		if (lease == NULL)
		{
			lease = add_lease(slot, jobs[i].job_id, jobs[i].leased_until);
			if (lease == NULL)
			{
				failed = true;
				break;
			}
			mark = add_mark(MARK_CLAIMED, slot);
		}
		else
		{
			/* It ran out, or was settled: by us, or a moment ago. */
			unused_room++;
			mark = add_mark(MARK_CLAIMED, slot);
			mark->was_there = true;
			mark->was_mine = lease->owner == my_stamp;
			mark->was_nobodys = lease->owner == 0;
			mark->was_state = lease->state;
			mark->was_until = lease->until;
			if (mark->was_mine && lease->state == LEASE_SETTLED)
				(*freed_places(slot))--;
		}
		mark->job_id = jobs[i].job_id;
		lease->owner = my_stamp;
		lease->state = LEASE_CLAIMED;
		lease->until = jobs[i].leased_until;
	}
	unlock_limits(slot);
	give_room(unused_room);
	if (failed)
		elog(ERROR, "table of leases is full");
	if (refused)
		wake_refused(slot);
}

/* A job of a queue with max_concurrency is settled, whose lease was until then. */
void
eq_free_claim(const EqQueue *queue, int64 job_id, TimestampTz until)
{
	EqWakeSlot *slot = eq_wake_slot(queue->queue_id);
	Lease *lease;
	Mark *mark;

	if (slot == NULL)
		return; /* claimed while there was no limit */
	need_marks(1);
	need_freed(slot);
	lock_limits(slot);
	mark = add_mark(MARK_SETTLED, slot);
	mark->job_id = job_id;
	mark->was_until = until;
	lease = find_lease(slot, job_id);
	if (lease)
	{
		mark->was_there = true;
		mark->was_mine = lease->owner == my_stamp;
		mark->was_state = lease->state;
		mark->was_until = lease->until;
		lease->owner = my_stamp;
		lease->state = LEASE_SETTLED;
		(*freed_places(slot))++;
	}
	unlock_limits(slot);
}

/*
 * A lease is extended, at once: that it counts for too long, if it is rolled back,
 * does no harm.  False if it had run out, and its place is taken.
 */
bool
eq_prolong_claim(const EqQueue *queue, int64 job_id, TimestampTz was_until,
				 TimestampTz until)
{
	EqWakeSlot *slot = eq_wake_slot(queue->queue_id);
	EqDatabase *db = eq_database();
	EqLimits *limits;
	TimestampTz now = GetCurrentTimestamp();
	Lease *lease;
	Mark *mark;

	if (slot == NULL)
		return true;
	limits = &slot->limits;
	need_marks(1);
	sweep_for_room(1);
	if (was_until <= now)
		(void) know_leases(slot, queue);
	lock_limits(slot);
	lease = find_lease(slot, job_id);
	if (lease)
	{
		mark = add_mark(MARK_PROLONGED, slot);
		mark->was_there = true;
		mark->was_mine = lease->owner == my_stamp;
		mark->was_state = lease->state;
		lease->until = Max(lease->until, until);
	}
	else
	{
		/* What has not run out has its place, though it may not be known yet. */
		bool has_place = limits->knowledge != EQ_LEASES_KNOWN && was_until > now;

		if ((!has_place &&
			 (limits->knowledge != EQ_LEASES_KNOWN ||
			  free_places(slot, queue->max_concurrency, 1, now) == 0)) ||
			take_room(slot, db, 1) == 0 ||
			(lease = add_lease(slot, job_id, until)) == NULL)
		{
			unlock_limits(slot);
			return false;
		}
		mark = add_mark(MARK_PROLONGED, slot);
		mark->was_there = has_place;
	}
	mark->job_id = job_id;
	if (!mark->was_mine)
	{
		lease->owner = my_stamp;
		lease->state = LEASE_PROLONGED;
	}
	unlock_limits(slot);
	return true;
}

/* The callbacks: none of them throws.  All with the lock held. */
static void
commit_lease(const Mark *mark)
{
	Lease *lease = find_lease(mark->slot, mark->job_id);

	if (mark->kind == MARK_SETTLED)
		mark->slot->limits.settled++;
	if (lease == NULL)
		return;
	if (lease->owner == my_stamp)
	{
		if (lease->state == LEASE_SETTLED)
			remove_lease(mark->slot, lease);
		else
			let_go(mark->slot, lease);
	}
	/* Someone has read it from the table, before the commit. */
	else if (mark->kind == MARK_SETTLED && !mark->was_there && lease->owner == 0 &&
			 lease->until == mark->was_until)
		remove_lease(mark->slot, lease);
}

static void
commit_settings(const Mark *mark)
{
	EqLimits *limits = &mark->slot->limits;

	if (mark->rate_limit == 0)
		limits->rate_limit = 0;
	else if (limits->rate_limit != 0)
		change_rate(limits, mark->rate_limit, mark->rate_interval);
	if (mark->leases_changed)
	{
		limits->knowledge = EQ_LEASES_UNKNOWN;
		limits->epoch++;
		if (!mark->counts)
			drop_leases(mark->slot, NEVER);
	}
}

static void
undo_lease(const Mark *mark)
{
	EqWakeSlot *slot = mark->slot;
	Lease *lease = find_lease(slot, mark->job_id);

	/* Its own places, also if the entry is another one's by now (5). */
	if (mark->kind == MARK_SETTLED && mark->was_there)
		(*freed_places(slot))--;
	if (mark->kind == MARK_CLAIMED && mark->was_mine &&
		mark->was_state == LEASE_SETTLED)
		(*freed_places(slot))++;
	if (lease == NULL || lease->owner != my_stamp)
		return;
	if (mark->was_mine)
	{
		lease->state = mark->was_state;
		if (mark->kind != MARK_PROLONGED)
			lease->until = mark->was_until;
	}
	else if (mark->was_nobodys)
	{
		lease->until = mark->was_until;
		let_go(slot, lease);
	}
	else if (mark->kind == MARK_CLAIMED ||
			 (mark->kind == MARK_PROLONGED && !mark->was_there))
		remove_lease(slot, lease);
	else
		let_go(slot, lease);
}

/* True if it makes room for others. */
static bool
undo(const Mark *mark)
{
	EqLimits *limits = &mark->slot->limits;

	switch (mark->kind)
	{
		case MARK_RESERVED:
			(void) end_reservation(limits, mark, 0);
			give_room(mark->places);
			return true;
		case MARK_TOKENS:
			if (limits->rate_limit > 0 && mark->bucket == limits->bucket)
			{
				refill(limits, GetCurrentTimestamp());
				limits->tokens += Max(mark->tokens - (limits->flowed - mark->flowed),
									  0);
				limits->tokens = Min(limits->tokens, (double) limits->rate_limit -
														 limits->reserved_tokens);
			}
			return true;
		case MARK_CLAIMED:
			undo_lease(mark);
			limits->settled++; /* for who is reading */
			return true;
		case MARK_SETTLED:
		case MARK_PROLONGED:
			undo_lease(mark);
			return false;
		case MARK_SETTINGS:
			n_settings--;
			if (mark->began)
				limits->rate_limit = 0;
			return false;
		default:
			return false;
	}
}

/* Undoes the marks from this one on, in reverse. */
static void
undo_marks(int first)
{
	EqWakeSlot *slot = NULL;
	bool wake = false;

	while (n_marks > first)
	{
		Mark *mark = &marks[--n_marks];

		if (mark->slot != slot)
		{
			if (slot)
				unlock_limits(slot);
			if (wake)
				wake_refused(slot);
			slot = mark->slot;
			wake = false;
			lock_limits(slot);
		}
		if (undo(mark))
			wake = true;
	}
	if (slot)
		unlock_limits(slot);
	if (wake)
		wake_refused(slot);
}

static void
forget_all(void)
{
	n_marks = 0;
	n_settings = 0;
	n_freed = 0;
	my_stamp = 0;
}

/* The reading of leases was broken off. */
static void
stop_reading(void)
{
	if (reading == NULL)
		return;
	lock_limits(reading);
	if (reading->limits.epoch == reading_epoch)
		reading->limits.knowledge = EQ_LEASES_UNKNOWN;
	unlock_limits(reading);
	ConditionVariableBroadcast(&reading->limits.read);
	reading = NULL;
}

/* The commit, or abort, is visible. */
void
eq_limits_at_commit(void)
{
	EqWakeSlot *slot = NULL;

	for (int i = 0; i < n_marks; i++)
	{
		Mark *mark = &marks[i];

		if (mark->kind == MARK_TOKENS || mark->kind == MARK_NOTHING)
			continue;
		if (mark->slot != slot)
		{
			if (slot)
				unlock_limits(slot);
			slot = mark->slot;
			lock_limits(slot);
		}
		if (mark->kind == MARK_SETTINGS)
			commit_settings(mark);
		else if (mark->kind == MARK_RESERVED)
			(void) undo(mark);
		else
			commit_lease(mark);
	}
	if (slot)
		unlock_limits(slot);
	forget_all();
}

/*
 * COMMIT PREPARED comes without these marks.  Whatever it will be, entries count
 * until they run out by time.
 */
void
eq_limits_at_prepare(void)
{
	for (int i = 0; i < n_marks; i++)
	{
		Mark *mark = &marks[i];
		EqLimits *limits = lock_limits(mark->slot);
		Lease *lease = find_lease(mark->slot, mark->job_id);

		if (mark->kind == MARK_RESERVED)
			(void) undo(mark);
		else if (mark->kind == MARK_SETTINGS && mark->leases_changed)
		{
			limits->knowledge = EQ_LEASES_UNKNOWN;
			limits->epoch++;
		}
		else if (lease && lease->owner == my_stamp)
			let_go(mark->slot, lease);
		unlock_limits(mark->slot);
	}
	forget_all();
}

void
eq_limits_at_abort(void)
{
	stop_reading();
	if (n_marks > 0)
		undo_marks(0);
	forget_all();
}

/* Marks of a subtransaction, and of its own, stand at the end. */
void
eq_undo_subxact_limits(SubTransactionId subid)
{
	int first = n_marks;

	stop_reading();
	while (first > 0 && marks[first - 1].subid == subid)
		first--;
	undo_marks(first);
}

void
eq_keep_subxact_limits(SubTransactionId subid, SubTransactionId parent)
{
	for (int i = n_marks - 1; i >= 0 && marks[i].subid == subid; i--)
		marks[i].subid = parent;
}

static int64
new_setting(HeapTuple row, TupleDesc desc, const char *name)
{
	int column = SPI_fnumber(desc, name);
	bool isnull;
	Datum value;

	if (row == NULL)
		return 0;
	if (column <= 0)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_COLUMN),
				 errmsg("limits_changed: the table has no column \"%s\"", name)));
	value = heap_getattr(row, column, desc, &isnull);
	if (isnull)
		return 0;
	if (TupleDescAttr(desc, column - 1)->atttypid == INTERVALOID)
		return eq_interval_us(DatumGetIntervalP(value));
	return DatumGetInt32(value);
}

/*
 * Trigger on table queue: limits are set, changed or lifted.  That holds from the
 * commit on; but a bucket that was not there begins at once, full.
 */
Datum
eq_limits_changed(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;
	TupleDesc desc;
	HeapTuple before;
	HeapTuple after;
	int32 queue_id;
	int32 rate_limit;
	int64 rate_interval;
	int32 old_rate_limit;
	bool counts;
	bool counted;
	EqWakeSlot *slot;
	EqLimits *limits;
	bool changes;
	Mark *mark;

	if (!CALLED_AS_TRIGGER(fcinfo) || !TRIGGER_FIRED_AFTER(trigger->tg_event) ||
		!TRIGGER_FIRED_FOR_ROW(trigger->tg_event))
		ereport(ERROR, (errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
						errmsg("limits_changed: not called by its trigger")));
	desc = RelationGetDescr(trigger->tg_relation);
	before = TRIGGER_FIRED_BY_INSERT(trigger->tg_event) ? NULL
														: trigger->tg_trigtuple;
	after = TRIGGER_FIRED_BY_INSERT(trigger->tg_event)	 ? trigger->tg_trigtuple
			: TRIGGER_FIRED_BY_UPDATE(trigger->tg_event) ? trigger->tg_newtuple
														 : NULL;
	queue_id = new_setting(after ? after : before, desc, "queue_id");
	rate_limit = new_setting(after, desc, "rate_limit");
	rate_interval = new_setting(after, desc, "rate_interval");
	old_rate_limit = new_setting(before, desc, "rate_limit");
	counts = new_setting(after, desc, "max_concurrency") > 0;
	counted = new_setting(before, desc, "max_concurrency") > 0;
	if (rate_limit == old_rate_limit && counts == counted &&
		(rate_limit == 0 ||
		 rate_interval == new_setting(before, desc, "rate_interval")))
		PG_RETURN_POINTER(NULL);
	slot = eq_wake_slot(queue_id);
	if (slot == NULL)
		PG_RETURN_POINTER(NULL); /* a claim will say so */

	changes = changes_settings(slot);
	need_marks(1);
	limits = lock_limits(slot);
	mark = add_mark(MARK_SETTINGS, slot);
	n_settings++;
	mark->rate_limit = rate_limit;
	mark->rate_interval = rate_interval;
	mark->leases_changed = counts != counted;
	mark->counts = counts;
	if (before == NULL)
	{
		/* No one knows it: what the slot has is of a queue of before. */
		limits->rate_limit = 0;
		limits->knowledge = EQ_LEASES_UNKNOWN;
		limits->epoch++;
	}
	/* If it is lifted and set in one transaction, the old one is in force till then. */
	if (rate_limit > 0 && old_rate_limit == 0 &&
		(!changes || limits->rate_limit == 0))
	{
		begin_bucket(limits, rate_limit, rate_interval, true);
		mark->began = true;
	}
	unlock_limits(slot);
	PG_RETURN_POINTER(NULL);
}

/* Of these jobs, those that this session may know of; how many they are. */
static int
visible_jobs(Datum *ids, int n)
{
	const char *tenant = eq_confined_tenant();
	Relation jobs;
	int kept = 0;

	if (tenant == NULL)
		return n;
	jobs = table_open(eq_relation_oid(EQ_JOB), AccessShareLock);
	for (int i = 0; i < n; i++)
	{
		EqScan scan;
		ScanKeyData key;
		bool isnull;

		eq_scan_begin(&scan, jobs, eq_relation_oid(EQ_JOB_PKEY), GetActiveSnapshot(),
					  1);
		eq_scan_key(&scan, &key, 1, BTEqualStrategyNumber, F_INT8EQ, ids[i]);
		eq_scan_start(&scan, &key, 1);
		if (eq_scan_next(&scan, ForwardScanDirection) &&
			strcmp(TextDatumGetCString(slot_getattr(scan.slot, JOB_TENANT, &isnull)),
				   tenant) == 0)
			ids[kept++] = ids[i];
		eq_scan_end(&scan);
	}
	table_close(jobs, AccessShareLock);
	return kept;
}

/* For explain_job: the tokens, and the jobs that are leased. */
Datum
eq_queue_limits(PG_FUNCTION_ARGS)
{
	const EqQueue *queue = eq_get_queue_by_id(PG_GETARG_INT32(0));
	EqWakeSlot *slot = queue && eq_queue_is_limited(queue)
						   ? eq_wake_slot(queue->queue_id)
						   : NULL;
	Datum jobs[SHOWN_LEASES];
	Datum values[3] = {0};
	bool nulls[3] = {true, true, true};
	TupleDesc desc;

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	if (slot && queue->rate_limit > 0)
	{
		bool changes = changes_settings(slot);
		double tokens;

		lock_limits(slot);
		settle_bucket(slot, queue, changes, GetCurrentTimestamp());
		tokens = slot->limits.tokens;
		unlock_limits(slot);
		values[0] = Float8GetDatum(tokens);
		nulls[0] = false;
	}
	if (slot && queue->max_concurrency > 0 && know_leases(slot, queue))
	{
		TimestampTz now = GetCurrentTimestamp();
		int64 active = 0;
		int n = 0;
		dlist_iter i;

		lock_limits(slot);
		dlist_foreach(i, &slot->limits.leases)
		{
			Lease *lease = dlist_container(Lease, node, i.cur);

			if (lease->owner == 0 && lease->until <= now)
				continue;
			if (n < SHOWN_LEASES)
				jobs[n++] = Int64GetDatum(lease->key.job_id);
			active++;
		}
		unlock_limits(slot);
		n = visible_jobs(jobs, n);
		values[1] = Int64GetDatum(active);
		values[2] = PointerGetDatum(construct_array(
			jobs, n, INT8OID, sizeof(int64), FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));
		nulls[1] = nulls[2] = false;
	}
	PG_RETURN_DATUM(
		HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values, nulls)));
}

/* For tests, which declare it: as if the bucket had been refilled earlier. */
Datum
eq_age_bucket(PG_FUNCTION_ARGS)
{
	EqWakeSlot *slot = eq_find_wake_slot(PG_GETARG_INT32(0));

	if (slot)
	{
		lock_limits(slot)->refilled_at -= eq_interval_us(PG_GETARG_INTERVAL_P(1));
		unlock_limits(slot);
	}
	PG_RETURN_VOID();
}
