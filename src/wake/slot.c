/*
 * slot.c: what shared memory keeps of each queue and notify channel.
 *
 * A slot is found by a hash of (database, id), whose chains change with
 * EqShared->lock held exclusively.  It is taken when its queue or channel is
 * created, which fails if there is no room, or by the first use after a restart;
 * it is freed by the transaction that drops the queue, by one that created it
 * and is rolled back, by DROP EXTENSION, by DROP DATABASE, and by the scheduler,
 * which looks for slots whose queues are no more.
 *
 * Who is given a slot has it pinned until the end of its transaction, so that what
 * it counts and wakes then is its own queue.  A slot that is freed loses its
 * key at once, and is taken for another queue when no one has it pinned and no one
 * sleeps on it.  A pinner pins first and looks at the key afterwards; who gives
 * back clears the key first and looks at the pins afterwards: one of them sees the
 * other.
 *
 * A slot that is freed too early, because the server can't know better, is
 * never wrong: limits are read from the tables again, marks are found by keys of
 * their own, and counters begin again.
 */
#include "postgres.h"

#include "access/xact.h"
#include "common/hashfn.h"
#include "miscadmin.h"
#include "utils/timestamp.h"

#include "queue/queue.h"
#include "wake/series.h"
#include "wake/wake.h"

#define CACHED 64

/* What this session has found lately, by the last bits of the id. */
typedef struct Cached
{
	int32 id;
	EqWakeSlot *slot;	/* NULL: none */
	uint64 transaction; /* in which it was pinned */
} Cached;

static Cached cache[CACHED];

static uint64 transaction = 1; /* counts those that have pinned something */

static uint64
key_of(int32 id)
{
	return (uint64) MyDatabaseId << 32 | (uint32) id;
}

static uint32 *
chain_of(uint64 key)
{
	uint32 hash = hash_combine(murmurhash32((uint32) key),
							   murmurhash32((uint32) (key >> 32)));

	return &eq_shared->slot_chains[hash & (eq_shared->n_slot_chains - 1)];
}

static EqWakeSlot *
slot_at(uint32 number)
{
	return number == 0 ? NULL : &eq_shared->wake_slots[number - 1];
}

static uint32
number_of(EqWakeSlot *slot)
{
	return slot - eq_shared->wake_slots + 1;
}

/* As many as there may be slots, so that chains are short. */
static uint32
chains_wanted(void)
{
	uint32 n = 16;

	while (n < (uint32) eq_max_queues)
		n *= 2;
	return n;
}

Size
eq_slots_size(void)
{
	return add_size(MAXALIGN(mul_size(eq_max_queues, sizeof(EqWakeSlot))),
					MAXALIGN(mul_size(chains_wanted(), sizeof(uint32))));
}

/* In memory that is zero.  Slots are not touched before they are needed. */
void
eq_init_slots(char *memory)
{
	eq_shared->wake_slots = (EqWakeSlot *) memory;
	eq_shared->n_slot_chains = chains_wanted();
	eq_shared->slot_chains = (uint32 *) (memory + MAXALIGN(eq_max_queues *
														   sizeof(EqWakeSlot)));
}

/* With the lock held. */
static EqWakeSlot *
look_up(uint64 key)
{
	EqWakeSlot *slot = slot_at(*chain_of(key));

	while (slot && pg_atomic_read_u64(&slot->key) != key)
		slot = slot_at(slot->next);
	return slot;
}

static bool
pin(EqWakeSlot *slot, uint64 key)
{
	pg_atomic_fetch_add_u32(&slot->pins, 1); /* a full barrier */
	if (pg_atomic_read_u64(&slot->key) == key)
		return true;
	pg_atomic_fetch_sub_u32(&slot->pins, 1);
	return false;
}

/* With the lock held exclusively. */
static void
give_back(EqWakeSlot *slot)
{
	uint64 key = pg_atomic_read_u64(&slot->key);
	uint32 *link = chain_of(key);

	while (*link != number_of(slot))
		link = &slot_at(*link)->next;
	*link = slot->next;
	for (int i = 0; i < eq_max_databases; i++)
	{
		if (eq_shared->databases[i].dboid == eq_slot_database(slot))
			eq_shared->databases[i].n_slots--;
	}
	pg_atomic_write_u64(&slot->key, 0);
	eq_forget_leases(slot);
	slot->next = eq_shared->slots_given_back;
	eq_shared->slots_given_back = number_of(slot);
}

/* A slot that nobody uses any more; NULL if there is none.  Likewise. */
static EqWakeSlot *
take_given_back(void)
{
	uint32 *link = &eq_shared->slots_given_back;

	pg_memory_barrier();
	while (*link != 0)
	{
		EqWakeSlot *slot = slot_at(*link);

		if (pg_atomic_read_u32(&slot->pins) == 0 &&
			pg_atomic_read_u32(&slot->waiters) == 0)
		{
			*link = slot->next;
			return slot;
		}
		link = &slot->next;
	}
	return NULL;
}

/* What is initialised once; generations go on from one queue to the next. */
static void
init_slot(EqWakeSlot *slot)
{
	pg_atomic_init_u64(&slot->key, 0);
	pg_atomic_init_u32(&slot->pins, 0);
	pg_atomic_init_u32(&slot->pending, 0);
	pg_atomic_init_u32(&slot->waiters, 0);
	pg_atomic_init_u32(&slot->last_lane, 0);
	pg_atomic_init_u64(&slot->last_segment, 0);
	pg_atomic_init_u64(&slot->mark_generation, 0);
	pg_atomic_init_u64(&slot->living, 0);
	pg_atomic_init_u64(&slot->dead_letters, 0);
	SpinLockInit(&slot->ring.mutex);
	pg_atomic_init_u64(&slot->ring.segment, 0);
	pg_atomic_init_u64(&slot->ring.end_run_at, 0);
	pg_atomic_init_u64(&slot->ring.voided, 0);
	for (int c = 0; c < EQ_COUNTERS; c++)
		pg_atomic_init_u64(&slot->counters[c], 0);
	pg_atomic_init_u64(&slot->claimed_at, 0);
	eq_init_limits(slot);
}

static void
begin_slot(EqWakeSlot *slot)
{
	pg_atomic_write_u32(&slot->pending, 0);
	pg_atomic_write_u32(&slot->last_lane, 0);
	pg_atomic_write_u64(&slot->last_segment, 0);
	pg_atomic_fetch_add_u64(&slot->mark_generation, 1);
	pg_atomic_write_u64(&slot->living, 0);
	pg_atomic_write_u64(&slot->dead_letters, 0);
	slot->ring.n = 0;
	slot->ring.next = 0;
	slot->ring.begun_at = 0;
	slot->ring.filling_at = 0;
	for (int c = 0; c < EQ_COUNTERS; c++)
		pg_atomic_write_u64(&slot->counters[c], 0);
	pg_atomic_write_u64(&slot->claimed_at, 0);
	memset(slot->sampled, 0, sizeof(slot->sampled));
	slot->sampled_at = GetCurrentTimestamp();
	memset(slot->samples, 0, sizeof(slot->samples));
	slot->samples[0].at = GetCurrentTimestamp();
	slot->last_sample = 0;
}

/*
 * Of what there is of some room, one may have so many times as much as it leaves
 * free: whoever comes first, something is left for the others.
 */
bool
eq_is_fair_share(int64 has, int64 wants, int64 free, int times)
{
	return has + wants <= times * (free - wants);
}

/* A new slot, pinned; NULL if there is none. */
static EqWakeSlot *
take_slot(uint64 key, EqDatabase *db)
{
	EqWakeSlot *slot = take_given_back();

	if (slot == NULL && eq_shared->n_slots < eq_max_queues)
	{
		slot = &eq_shared->wake_slots[eq_shared->n_slots];
		init_slot(slot);
		pg_write_barrier(); /* for those who go over all slots without the lock */
		eq_shared->n_slots++;
	}
	if (slot == NULL)
		return NULL;
	eq_forget_limits(slot);
	begin_slot(slot);
	slot->next = *chain_of(key);
	*chain_of(key) = number_of(slot);
	db->n_slots++;
	pg_atomic_fetch_add_u32(&slot->pins, 1);
	pg_atomic_write_u64(&slot->key, key);
	return slot;
}

/* Logs that this transaction has pinned the slot; there is room in the log. */
static void
note_pinned(EqWakeSlot *slot)
{
	*(EqWakeSlot **) eq_xact_add(&eq_pinned_slots) = slot;
}

/* The slot of a queue (id > 0) or channel (id < 0), pinned; NULL if it has none. */
static EqWakeSlot *
find_slot(int32 id, bool take)
{
	Cached *cached = &cache[id & (CACHED - 1)];
	uint64 key = key_of(id);
	EqWakeSlot *slot;
	EqDatabase *db;

	Assert(IsTransactionState());
	if (cached->slot && cached->id == id && cached->transaction == transaction)
		return cached->slot;
	eq_xact_prepare(&eq_pinned_slots, 1);
	if (cached->slot && cached->id == id && pin(cached->slot, key))
	{
		cached->transaction = transaction;
		note_pinned(cached->slot);
		return cached->slot;
	}

	db = eq_database(); /* takes the lock, and may throw */
	LWLockAcquire(eq_shared->lock, LW_SHARED);
	slot = look_up(key);
	if (slot)
		pg_atomic_fetch_add_u32(&slot->pins, 1);
	LWLockRelease(eq_shared->lock);
	if (slot == NULL && take)
	{
		LWLockAcquire(eq_shared->lock, LW_EXCLUSIVE);
		slot = look_up(key);
		if (slot)
			pg_atomic_fetch_add_u32(&slot->pins, 1);
		else
			slot = take_slot(key, db);
		LWLockRelease(eq_shared->lock);
	}
	if (slot == NULL)
		return NULL;
	note_pinned(slot);
	cached->id = id;
	cached->slot = slot;
	cached->transaction = transaction;
	return slot;
}

/* What shared memory keeps of a queue or channel that is there; NULL if there is no room. */
EqWakeSlot *
eq_wake_slot(int32 id)
{
	return find_slot(id, true);
}

/* The same for whoever does not know whether it is there: takes none. */
EqWakeSlot *
eq_find_wake_slot(int32 id)
{
	return find_slot(id, false);
}

/*
 * Has this database no more places than it may have?  Asked when a queue is created;
 * those that are there keep theirs, also after a restart.
 */
bool
eq_has_fair_share_of_slots(void)
{
	EqDatabase *db = eq_database();
	int64 used = 0;
	bool fair;

	LWLockAcquire(eq_shared->lock, LW_SHARED);
	for (int i = 0; i < eq_max_databases; i++)
		used += eq_shared->databases[i].n_slots;
	fair = eq_is_fair_share(db->n_slots, 0, eq_max_queues - used,
							EQ_SHARE_OF_DATABASE);
	LWLockRelease(eq_shared->lock);
	return fair;
}

/* At the end of a transaction. */
static void
unpin_slots(void)
{
	if (eq_pinned_slots.n == 0)
		return;
	for (int i = 0; i < eq_pinned_slots.n; i++)
		pg_atomic_fetch_sub_u32(
			&(*EQ_XACT_ENTRY(eq_pinned_slots, EqWakeSlot *, i))->pins, 1);
	transaction++;
}

EqXactKind eq_pinned_slots = {
	.entry_size = sizeof(EqWakeSlot *),
	.top_only = true,
	.at_commit = unpin_slots,
	.at_prepare = unpin_slots,
	.at_abort = unpin_slots,
};

/*
 * For the scheduler, also outside of transactions: is the flag of this queue or
 * channel up?  Lowers it.  The place where it was found last time is kept by the
 * caller.
 */
bool
eq_take_pending(int32 id, EqWakeSlot **place)
{
	uint64 key = key_of(id);
	bool pending;

	if (*place == NULL || pg_atomic_read_u64(&(*place)->key) != key)
	{
		LWLockAcquire(eq_shared->lock, LW_SHARED);
		*place = look_up(key);
		LWLockRelease(eq_shared->lock);
	}
	if (*place == NULL)
		return true; /* no one had anything to say yet, or there is no room */
	/* Who raises it sets the latch afterwards, and so this is looked at again. */
	if (pg_atomic_read_u32(&(*place)->pending) == 0)
		return false;
	if (!pin(*place, key))
		return true;
	pending = pg_atomic_exchange_u32(&(*place)->pending, 0) != 0;
	pg_atomic_fetch_sub_u32(&(*place)->pins, 1);
	return pending;
}

/* Its queue or channel is no more.  Can't throw. */
void
eq_give_back_slot(int32 id)
{
	EqWakeSlot *slot;

	LWLockAcquire(eq_shared->lock, LW_EXCLUSIVE);
	slot = look_up(key_of(id));
	if (slot)
		give_back(slot);
	LWLockRelease(eq_shared->lock);
	eq_forget_series(MyDatabaseId, id);
}

/* All slots and marks of a database.  Can't throw. */
void
eq_give_back_all_slots(Oid dboid)
{
	LWLockAcquire(eq_shared->lock, LW_EXCLUSIVE);
	for (int i = 0; i < eq_shared->n_slots; i++)
	{
		EqWakeSlot *slot = &eq_shared->wake_slots[i];

		if (eq_slot_database(slot) == dboid)
			give_back(slot);
	}
	LWLockRelease(eq_shared->lock);
	eq_give_back_marks(dboid);
	eq_forget_series(dboid, 0);
}

/* The ids of this database's slots that no one has in use; how many they are. */
int
eq_idle_slots(int32 **ids)
{
	int room = eq_database()->n_slots; /* what comes in the meantime is in use */
	int n = 0;

	*ids = palloc(Max(room, 1) * sizeof(int32));
	LWLockAcquire(eq_shared->lock, LW_SHARED);
	for (int i = 0; i < eq_shared->n_slots && n < room; i++)
	{
		EqWakeSlot *slot = &eq_shared->wake_slots[i];

		if (eq_slot_database(slot) == MyDatabaseId &&
			pg_atomic_read_u32(&slot->pins) == 0)
			(*ids)[n++] = eq_slot_id(slot);
	}
	LWLockRelease(eq_shared->lock);
	return n;
}

/* Likewise, if no one has it in use now. */
void
eq_give_back_idle_slot(int32 id)
{
	EqWakeSlot *slot;

	LWLockAcquire(eq_shared->lock, LW_EXCLUSIVE);
	slot = look_up(key_of(id));
	if (slot && pg_atomic_read_u32(&slot->pins) == 0)
		give_back(slot);
	else
		slot = NULL;
	LWLockRelease(eq_shared->lock);
	if (slot)
		eq_forget_series(MyDatabaseId, id);
}
