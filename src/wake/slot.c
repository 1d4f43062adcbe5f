/*
 * slot.c: assigns slots in shared memory to queues and notify channels.
 *
 * A slot is found by a hash of (database, id), whose chains change with eq_slots_lock held
 * exclusively.  It is taken when its queue or channel is created, which fails if there is
 * no room, or at the first use after a restart.  It is freed by the transaction that drops
 * the queue, or that created it and is rolled back, by DROP EXTENSION, by DROP DATABASE, and
 * by the scheduler, which looks for slots of dropped queues.
 *
 * A session that uses a slot pins it until the end of its transaction, so that what it
 * counts and wakes then is its own queue.  A freed slot loses its key at once, and is reused
 * when no one has it pinned and no one sleeps on it.  A session that pins does so first and
 * compares the key after; the one that frees clears the key first and looks at the pins
 * after: one of them sees the other.
 *
 * A slot that is freed too early, because the server can't know better, is never wrong:
 * limits are read from the tables again, marks are found by keys of their own, and counters
 * begin again.
 */
#include "postgres.h"

#include "access/xact.h"
#include "common/hashfn.h"
#include "miscadmin.h"
#include "utils/timestamp.h"

#include "wake/series.h"
#include "wake/wake.h"

#define CACHED 64

/* Cache of this session, by the last bits of the id. */
typedef struct Cached
{
	int32 id;
	EqWakeSlot *slot;	/* NULL: none */
	uint64 transaction; /* in which it was pinned */
} Cached;

static Cached cache[CACHED];

static uint64 transaction = 1; /* counts those that have pinned something */

typedef struct Slots
{
	int n;								  /* that were ever in use: the first ones */
	uint32 given_back;					  /* a list of them */
	uint32 n_chains;					  /* a power of two */
	uint32 chains[FLEXIBLE_ARRAY_MEMBER]; /* by the hash of the key */
} Slots;

EqWakeSlot *eq_wake_slots = NULL;
LWLock *eq_slots_lock = NULL;
static Slots *slots = NULL;

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

	return &slots->chains[hash & (slots->n_chains - 1)];
}

static EqWakeSlot *
slot_at(uint32 number)
{
	return number == 0 ? NULL : &eq_wake_slots[number - 1];
}

static uint32
number_of(EqWakeSlot *slot)
{
	return eq_slot_number(slot) + 1;
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

static Size
size_without_slots(void)
{
	return MAXALIGN(add_size(offsetof(Slots, chains),
							 mul_size(chains_wanted(), sizeof(uint32))));
}

static Size
slots_size(void)
{
	return add_size(size_without_slots(),
					mul_size(eq_max_queues, sizeof(EqWakeSlot)));
}

/* Leaves slots untouched until they are used: unused ones take no memory. */
static void
attach_slots(void *memory, LWLockPadded *locks, bool is_new)
{
	slots = memory;
	eq_wake_slots = (EqWakeSlot *) ((char *) memory + size_without_slots());
	eq_slots_lock = &locks->lock;
	if (is_new)
	{
		memset(slots, 0, size_without_slots());
		slots->n_chains = chains_wanted();
	}
}

const EqSharedPart eq_slots_part = {
	.name = "event_queue slots",
	.n_locks = 1,
	.size = slots_size,
	.attach = attach_slots,
};

/* How many were ever in use: the first ones. */
int
eq_n_slots(void)
{
	return slots->n;
}

/* Looks up a slot, with the lock held. */
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

/* Frees a slot, with the lock held exclusively. */
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
		if (eq_database_entries[i].dboid == eq_slot_database(slot))
			eq_database_entries[i].n_slots--;
	}
	pg_atomic_write_u64(&slot->key, 0);
	eq_end_slot(eq_slot_number(slot));
	slot->next = slots->given_back;
	slots->given_back = number_of(slot);
}

/* A slot that nobody uses any more; NULL if there is none.  Likewise. */
static EqWakeSlot *
take_given_back(void)
{
	uint32 *link = &slots->given_back;

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

static void
init_slot(EqWakeSlot *slot)
{
	pg_atomic_init_u64(&slot->key, 0);
	pg_atomic_init_u32(&slot->pins, 0);
	pg_atomic_init_u32(&slot->pending, 0);
	pg_atomic_init_u32(&slot->waiters, 0);
	pg_atomic_init_u64(&slot->living, 0);
	pg_atomic_init_u64(&slot->dead_letters, 0);
	pg_atomic_init_u64(&slot->claimed_at, 0);
	for (int c = 0; c < EQ_COUNTERS; c++)
		pg_atomic_init_u64(&slot->counters[c], 0);
}

static void
begin_slot(EqWakeSlot *slot)
{
	pg_atomic_write_u32(&slot->pending, 0);
	pg_atomic_write_u64(&slot->living, 0);
	pg_atomic_write_u64(&slot->dead_letters, 0);
	pg_atomic_write_u64(&slot->claimed_at, 0);
	for (int c = 0; c < EQ_COUNTERS; c++)
		pg_atomic_write_u64(&slot->counters[c], 0);
	eq_begin_slot(eq_slot_number(slot));
}

/* A new slot, pinned; NULL if there is none. */
static EqWakeSlot *
take_slot(uint64 key, EqDatabase *db)
{
	EqWakeSlot *slot = take_given_back();
	bool is_new = false;

	if (slot == NULL && slots->n < eq_max_queues)
	{
		slot = &eq_wake_slots[slots->n];
		init_slot(slot);
		is_new = true;
	}
	if (slot == NULL)
		return NULL;
	begin_slot(slot);
	if (is_new)
	{
		pg_write_barrier(); /* for those who go over all slots without the lock */
		slots->n++;
	}
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
	LWLockAcquire(eq_slots_lock, LW_SHARED);
	slot = look_up(key);
	if (slot)
		pg_atomic_fetch_add_u32(&slot->pins, 1);
	LWLockRelease(eq_slots_lock);
	if (slot == NULL && take)
	{
		LWLockAcquire(eq_slots_lock, LW_EXCLUSIVE);
		slot = look_up(key);
		if (slot)
			pg_atomic_fetch_add_u32(&slot->pins, 1);
		else
			slot = take_slot(key, db);
		LWLockRelease(eq_slots_lock);
	}
	if (slot == NULL)
		return NULL;
	note_pinned(slot);
	cached->id = id;
	cached->slot = slot;
	cached->transaction = transaction;
	return slot;
}

/* Returns the slot of an existing queue or channel; NULL if all slots are in use. */
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

/* How many are in use, of all databases. */
int
eq_slots_taken(void)
{
	int taken = 0;

	LWLockAcquire(eq_slots_lock, LW_SHARED);
	for (int i = 0; i < eq_max_databases; i++)
		taken += eq_database_entries[i].n_slots;
	LWLockRelease(eq_slots_lock);
	return taken;
}

/*
 * Has this database no more slots than it may have?  Asked when a queue is created;
 * those that are there keep theirs, also after a restart.
 */
bool
eq_has_fair_share_of_slots(void)
{
	int taken = eq_slots_taken();

	return eq_is_fair_share(eq_database()->n_slots, 0, eq_max_queues - taken,
							EQ_SHARE_OF_DATABASE);
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
 * channel up?  Lowers it.  The slot where it was found last time is kept by the
 * caller.
 */
bool
eq_take_pending(int32 id, EqWakeSlot **slot)
{
	uint64 key = key_of(id);
	bool pending;

	if (*slot == NULL || pg_atomic_read_u64(&(*slot)->key) != key)
	{
		LWLockAcquire(eq_slots_lock, LW_SHARED);
		*slot = look_up(key);
		LWLockRelease(eq_slots_lock);
	}
	if (*slot == NULL)
		return true; /* no one had anything to say yet, or there is no room */
	/* If the flag is raised after this look, its raiser sets our latch, so we look again. */
	if (pg_atomic_read_u32(&(*slot)->pending) == 0)
		return false;
	if (!pin(*slot, key))
		return true;
	pending = pg_atomic_exchange_u32(&(*slot)->pending, 0) != 0;
	pg_atomic_fetch_sub_u32(&(*slot)->pins, 1);
	return pending;
}

/* Releases the slot of a dropped queue or channel.  Can't throw. */
void
eq_give_back_slot(int32 id)
{
	EqWakeSlot *slot;

	LWLockAcquire(eq_slots_lock, LW_EXCLUSIVE);
	slot = look_up(key_of(id));
	if (slot)
		give_back(slot);
	LWLockRelease(eq_slots_lock);
	eq_forget_series(MyDatabaseId, id);
}

/* All slots of a database, and what else shared memory keeps of it.  Can't throw. */
void
eq_give_back_all_slots(Oid dboid)
{
	LWLockAcquire(eq_slots_lock, LW_EXCLUSIVE);
	for (int i = 0; i < slots->n; i++)
	{
		EqWakeSlot *slot = &eq_wake_slots[i];

		if (eq_slot_database(slot) == dboid)
			give_back(slot);
	}
	LWLockRelease(eq_slots_lock);
	eq_end_database(dboid);
}

/* The ids of this database's slots that no one has in use; how many they are. */
int
eq_idle_slots(int32 **ids)
{
	int room = eq_database()->n_slots; /* what comes in the meantime is in use */
	int n = 0;

	*ids = palloc(Max(room, 1) * sizeof(int32));
	LWLockAcquire(eq_slots_lock, LW_SHARED);
	for (int i = 0; i < slots->n && n < room; i++)
	{
		EqWakeSlot *slot = &eq_wake_slots[i];

		if (eq_slot_database(slot) == MyDatabaseId &&
			pg_atomic_read_u32(&slot->pins) == 0)
			(*ids)[n++] = eq_slot_id(slot);
	}
	LWLockRelease(eq_slots_lock);
	return n;
}

/* Likewise, if no one has it in use now. */
void
eq_give_back_idle_slot(int32 id)
{
	EqWakeSlot *slot;

	LWLockAcquire(eq_slots_lock, LW_EXCLUSIVE);
	slot = look_up(key_of(id));
	if (slot && pg_atomic_read_u32(&slot->pins) == 0)
		give_back(slot);
	else
		slot = NULL;
	LWLockRelease(eq_slots_lock);
	if (slot)
		eq_forget_series(MyDatabaseId, id);
}
