/*
 * slot.h: what shared memory keeps of each queue and notify channel.
 */
#ifndef EQ_SLOT_H
#define EQ_SLOT_H

#include "event_queue.h"
#include "port/atomics.h"

/* What is counted of each queue, at commit.  observe/counters.c names them. */
typedef enum EqCounter
{
	EQ_COUNT_ENQUEUED,
	EQ_COUNT_CLAIMED,
	EQ_COUNT_COMPLETED,
	EQ_COUNT_FAILED,
	EQ_COUNT_RELEASED,
	EQ_COUNT_STALLED,
	EQ_COUNT_DEAD,
	EQ_COUNT_CANCELLED,
	EQ_COUNT_LATE,	  /* completed past the SLA */
	EQ_COUNT_WAIT_US, /* sum from due to claimed, microseconds */
	EQ_COUNT_RUN_US,  /* sum from claimed to completed */
	EQ_COUNT_RETRIED, /* failed, and to be tried again */
	EQ_COUNT_LEASED,  /* how many jobs have a lease now: goes up and down */
	EQ_COUNTERS
} EqCounter;

/*
 * One queue (id > 0) or one NOTIFY channel (id < 0) of one database; slot.c says how it
 * is found, and how long it stays.
 */
typedef struct EqWakeSlot
{
	pg_atomic_uint64 key;		   /* database and id; 0: none */
	pg_atomic_uint32 pins;		   /* transactions that use it */
	uint32 next;				   /* of its chain, or list: its number + 1 */
	pg_atomic_uint32 pending;	   /* something to do or to say */
	pg_atomic_uint32 waiters;	   /* sessions that sleep in claim_wait */
	pg_atomic_uint64 living;	   /* jobs in the table; see observe/counters.c */
	pg_atomic_uint64 dead_letters; /* likewise */
	pg_atomic_uint64 claimed_at; /* when the last job was; 0: none since the start */
	pg_atomic_uint64 counters[EQ_COUNTERS];
} EqWakeSlot;

extern EqWakeSlot *eq_wake_slots; /* eq_max_queues */
extern const EqSharedPart eq_slots_part;

/* Held to take a slot and to give it back, and by who must know whose it is. */
extern LWLock *eq_slots_lock;

/* Under this number other parts of shared memory keep what is theirs of it. */
static inline int
eq_slot_number(const EqWakeSlot *slot)
{
	return slot - eq_wake_slots;
}

static inline Oid
eq_slot_database(EqWakeSlot *slot)
{
	return (Oid) (pg_atomic_read_u64(&slot->key) >> 32);
}

static inline int32
eq_slot_id(EqWakeSlot *slot)
{
	return (int32) pg_atomic_read_u64(&slot->key);
}

extern EqWakeSlot *eq_wake_slot(int32 id);
extern EqWakeSlot *eq_find_wake_slot(int32 id);
extern int eq_n_slots(void);
extern int eq_slots_taken(void);
extern int eq_idle_slots(int32 **ids);
extern void eq_give_back_slot(int32 id);
extern void eq_give_back_idle_slot(int32 id);
extern void eq_give_back_all_slots(Oid dboid);
extern bool eq_has_fair_share_of_slots(void);
extern bool eq_take_pending(int32 id, EqWakeSlot **slot);

#endif /* EQ_SLOT_H */
