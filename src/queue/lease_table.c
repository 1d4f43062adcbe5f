/*
 * lease_table.c: the leases of queues with max_concurrency, in shared memory.
 *
 * One hash table has room for event_queue.max_limited_leases; entries are reserved by
 * a counter (taken) before they are added, so that adding one can't fail.
 * Each queue has its leases in a list, too.  No queue and no database takes all of
 * the room.
 */
#include "postgres.h"

#include "common/hashfn.h"
#include "miscadmin.h"
#include "storage/shmem.h"
#include "utils/hsearch.h"
#include "utils/timestamp.h"

#include "queue/limits.h"
#include "wake/wake.h"

#define SWEEP_US   100000 /* how often leases of all queues are expired for room */
#define FEW_LEASES 8	  /* that a queue has without asking for its share */
#define SHARE_OF_QUEUE                                                              \
	1 /* as EQ_SHARE_OF_DATABASE: at most as much as it leaves free */

/* How many a database has, as counted lately. */
typedef struct LeaseCount
{
	pg_atomic_uint32 leases;
	pg_atomic_uint64 at; /* when */
} LeaseCount;

typedef struct LeaseTable
{
	pg_atomic_uint32 taken;					  /* of eq_max_limited_leases */
	pg_atomic_uint64 swept_at;				  /* when, for room */
	LeaseCount counts[FLEXIBLE_ARRAY_MEMBER]; /* by the number of the database */
} LeaseTable;

LWLockPadded *eq_limit_locks = NULL;
static LeaseTable *table = NULL;
static HTAB *leases = NULL;

/* Hashes so that the last bits give the lock: one for each bucket of the table. */
static uint32
lease_hash(const void *key, Size size)
{
	const EqLeaseKey *lease = key;
	uint32 hash = hash_combine(
		murmurhash32((uint32) lease->job_id),
		murmurhash32((uint32) (lease->job_id >> 32) ^ lease->slot));

	return (hash & ~(uint32) (EQ_LIMIT_LOCKS - 1)) | (lease->slot % EQ_LIMIT_LOCKS);
}

static Size
lease_table_size(void)
{
	return add_size(offsetof(LeaseTable, counts),
					mul_size(eq_max_databases, sizeof(LeaseCount)));
}

static Size
leases_size(void)
{
	return hash_estimate_size(eq_max_limited_leases, sizeof(EqLease));
}

static void
attach_leases(void *memory, LWLockPadded *locks, bool is_new)
{
	HASHCTL ctl = {.keysize = sizeof(EqLeaseKey),
				   .entrysize = sizeof(EqLease),
				   .hash = lease_hash,
				   .num_partitions = EQ_LIMIT_LOCKS};

	table = memory;
	eq_limit_locks = locks;
	if (is_new)
	{
		pg_atomic_init_u32(&table->taken, 0);
		pg_atomic_init_u64(&table->swept_at, 0);
		for (int i = 0; i < eq_max_databases; i++)
		{
			pg_atomic_init_u32(&table->counts[i].leases, 0);
			pg_atomic_init_u64(&table->counts[i].at, 0);
		}
	}
	leases = ShmemInitHash(
		"event_queue leases", eq_max_limited_leases, eq_max_limited_leases, &ctl,
		HASH_ELEM | HASH_FUNCTION | HASH_PARTITION | HASH_FIXED_SIZE);
}

static void
begin_database(int number)
{
	pg_atomic_write_u32(&table->counts[number].leases, 0);
	pg_atomic_write_u64(&table->counts[number].at, 0);
}

const EqSharedPart eq_leases_part = {
	.name = "event_queue limits",
	.n_locks = EQ_LIMIT_LOCKS,
	.size = lease_table_size,
	.size_beside = leases_size,
	.attach = attach_leases,
	.begin_database = begin_database,
};

/* How many leases of all queues with max_concurrency there are. */
int
eq_leases_taken(void)
{
	return (int) pg_atomic_read_u32(&table->taken);
}

/*
 * Returns how many leases this database has, as counted at most ten times a second.
 */
static int64
leases_of_database(EqDatabase *db, TimestampTz now)
{
	LeaseCount *count = &table->counts[eq_database_number(db)];
	TimestampTz at = pg_atomic_read_u64(&count->at);
	uint32 n = 0;

	if (now >= at && now < at + SWEEP_US)
		return pg_atomic_read_u32(&count->leases);
	for (int i = 0; i < eq_n_slots(); i++)
	{
		EqWakeSlot *slot = &eq_wake_slots[i];

		if (eq_slot_database(slot) == MyDatabaseId)
			n += eq_limits_of(slot)->active + eq_limits_of(slot)->reserved_leases;
	}
	pg_atomic_write_u32(&count->leases, n);
	pg_atomic_write_u64(&count->at, now);
	return n;
}

/*
 * Tells whether the queue may have n more leases.  No queue and no database takes the room
 * of all; but a queue that has few is only refused if there is no room at all, or
 * if its database has all but an eighth.
 */
static bool
is_fair(EqWakeSlot *slot, EqDatabase *db, int n, int64 free)
{
	bool few = eq_limits_of(slot)->active + eq_limits_of(slot)->reserved_leases +
				   n <=
			   FEW_LEASES;

	if (free - n >= eq_max_limited_leases / 2)
		return true; /* more than anyone is refused for */
	return (few || eq_is_fair_share(eq_limits_of(slot)->active +
										eq_limits_of(slot)->reserved_leases,
									n, free, SHARE_OF_QUEUE)) &&
		   eq_is_fair_share(leases_of_database(db, GetCurrentTimestamp()), n, free,
							few ? 7 : EQ_SHARE_OF_DATABASE);
}

/*
 * Reserves entries of the table for up to n more leases of this queue, with its lock
 * held; returns how many.  db: the entry of this database, since the caller
 * must not throw.
 */
int
eq_reserve_lease_entries(EqWakeSlot *slot, EqDatabase *db, int n)
{
	uint32 had = pg_atomic_fetch_add_u32(&table->taken, n);
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
	pg_atomic_fetch_sub_u32(&table->taken, n - room);
	return room;
}

/* Reserves an entry for a lease that a row has already; false if there is none. */
bool
eq_reserve_lease_entry(void)
{
	if (pg_atomic_fetch_add_u32(&table->taken, 1) < (uint32) eq_max_limited_leases)
		return true;
	pg_atomic_fetch_sub_u32(&table->taken, 1);
	return false;
}

/* Releases entries that were reserved. */
void
eq_release_lease_entries(int n)
{
	if (n > 0)
		pg_atomic_fetch_sub_u32(&table->taken, n);
}

/* Finds a lease.  This and the following functions: with the lock held. */
EqLease *
eq_find_lease(EqWakeSlot *slot, int64 job_id)
{
	EqLeaseKey key = {job_id, eq_slot_number(slot), 0};

	return hash_search(leases, &key, HASH_FIND, NULL);
}

/* Adds a lease, for which the caller has reserved an entry. */
EqLease *
eq_add_lease(EqWakeSlot *slot, int64 job_id, TimestampTz until)
{
	EqLeaseKey key = {job_id, eq_slot_number(slot), 0};
	EqLease *lease = hash_search(leases, &key, HASH_ENTER_NULL, NULL);

	if (lease == NULL)
		return NULL; /* can't be: it was reserved */
	lease->until = until;
	lease->owner = 0;
	lease->state = EQ_LEASE_CLAIMED;
	dlist_push_tail(&eq_limits_of(slot)->leases, &lease->node);
	eq_limits_of(slot)->active++;
	eq_limits_of(slot)->next_expiry = Min(eq_limits_of(slot)->next_expiry, until);
	return lease;
}

/* Removes a lease, and releases its entry. */
void
eq_remove_lease(EqWakeSlot *slot, EqLease *lease)
{
	EqLeaseKey key = lease->key;

	dlist_delete(&lease->node);
	(void) hash_search(leases, &key, HASH_REMOVE, NULL);
	eq_limits_of(slot)->active--;
	eq_release_lease_entries(1);
}

/* Leaves a lease without an owner: it counts until it runs out. */
void
eq_release_lease_owner(EqWakeSlot *slot, EqLease *lease)
{
	lease->owner = 0;
	eq_limits_of(slot)->next_expiry = Min(eq_limits_of(slot)->next_expiry,
										  lease->until);
}

/* Removes leases that have no owner and ran out by then. */
void
eq_expire_leases(EqWakeSlot *slot, TimestampTz ran_out)
{
	EqLimits *limits = eq_limits_of(slot);
	dlist_mutable_iter i;

	limits->next_expiry = EQ_NEVER;
	dlist_foreach_modify(i, &limits->leases)
	{
		EqLease *lease = dlist_container(EqLease, node, i.cur);

		if (lease->owner != 0)
			continue;
		if (lease->until <= ran_out)
			eq_remove_lease(slot, lease);
		else
			limits->next_expiry = Min(limits->next_expiry, lease->until);
	}
}

/* If the table is nearly full, expires leases of all queues.  Without the lock. */
void
eq_expire_leases_for_room(int wanted)
{
	TimestampTz now = GetCurrentTimestamp();
	uint64 last = pg_atomic_read_u64(&table->swept_at);

	if (pg_atomic_read_u32(&table->taken) + (int64) wanted <=
			eq_max_limited_leases ||
		(now >= (TimestampTz) last && now < (TimestampTz) last + SWEEP_US) ||
		!pg_atomic_compare_exchange_u64(&table->swept_at, &last, now))
		return;
	for (int i = 0; i < eq_n_slots(); i++)
	{
		EqWakeSlot *slot = &eq_wake_slots[i];

		if (eq_limits_of(slot)->active == 0)
			continue;
		if (now >= eq_lock_limits(slot)->next_expiry)
			eq_expire_leases(slot, now);
		eq_unlock_limits(slot);
	}
}

/* Warns, at most once a minute.  Without the lock. */
void
eq_warn_lease_table_full(EqWakeSlot *slot)
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
		 errdetail(
			 "%u of %d are taken, %d of them by this queue; a single queue or database cannot use all of them.",
			 pg_atomic_read_u32(&table->taken), eq_max_limited_leases,
			 eq_limits_of(slot)->active),
		 errhint(
			 "Raise event_queue.max_limited_leases (now %d) and restart the server.",
			 eq_max_limited_leases)));
}

/*
 * Removes the leases of a dropped queue at once, so that others have the entries;
 * eq_forget_limits does the rest when the slot is taken for another queue: then no
 * transaction uses it.  Can't throw.
 */
void
eq_forget_leases(EqWakeSlot *slot)
{
	dlist_mutable_iter i;

	eq_lock_limits(slot);
	dlist_foreach_modify(i, &eq_limits_of(slot)->leases)
		eq_remove_lease(slot, dlist_container(EqLease, node, i.cur));
	eq_unlock_limits(slot);
}

/*
 * Has all leases of this database loaded again: after the scheduler corrected their times
 * in the rows, or, with forget, after the rows went.  Can't throw.
 */
void
eq_reload_leases(bool forget)
{
	for (int i = 0; i < eq_n_slots(); i++)
	{
		EqWakeSlot *slot = &eq_wake_slots[i];

		if (eq_slot_database(slot) != MyDatabaseId)
			continue;
		eq_lock_limits(slot);
		eq_limits_of(slot)->load_state = EQ_LEASES_NOT_LOADED;
		eq_limits_of(slot)->epoch++;
		if (forget)
			eq_expire_leases(slot, EQ_NEVER);
		eq_unlock_limits(slot);
	}
}
