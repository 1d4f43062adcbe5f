/*
 * queue_slot.h: what shared memory keeps of a queue, beside its slot, for claims; for
 * the files that claim and settle.
 */
#ifndef EQ_QUEUE_SLOT_H
#define EQ_QUEUE_SLOT_H

#include "lib/ilist.h"
#include "storage/condition_variable.h"
#include "storage/itemptr.h"
#include "storage/spin.h"

#include "queue/queue.h"
#include "wake/database.h"
#include "wake/slot.h"

#define EQ_RING_SIZE 64

/* The next jobs of a queue; see ring.c. */
typedef struct EqRing
{
	slock_t mutex; /* of all but the atomics, which are written with it held */
	uint64 generation;
	int64 begun_at;	  /* when a walk from the ready mark began it */
	int64 filling_at; /* since when someone is filling it; 0: no one is */
	EqPlace end;	  /* of the last candidate */
	int next;
	int n;
	ItemPointerData candidates[EQ_RING_SIZE];
	pg_atomic_uint64 segment; /* lane and priority of them all */
	pg_atomic_uint64 end_run_at;
	pg_atomic_uint64 voided; /* how often a job came before its end */
} EqRing;

/* Are a queue's leases in shared memory? */
typedef enum EqLeaseLoadState
{
	EQ_LEASES_NOT_LOADED,
	EQ_LEASES_LOADING, /* by a claimer */
	EQ_LEASES_LOADED
} EqLeaseLoadState;

/* rate_limit and max_concurrency of a queue, under its LWLock; see limits.c. */
typedef struct EqLimits
{
	int32 rate_limit; /* at which the bucket fills; 0: no bucket */
	int64 rate_interval;
	double tokens;
	double flowed; /* into the bucket, with what it could not hold */
	int64 refilled_at;
	uint32 bucket;		   /* which one since the start */
	int32 reserved_tokens; /* of claims under way */

	EqLeaseLoadState load_state;
	uint32 epoch;		   /* how often they ceased to be loaded */
	int32 active;		   /* leases in the list */
	int32 reserved_leases; /* of claims in progress */
	int64 next_expiry;	   /* none of the list runs out before */
	uint32 settled;		   /* leases that ended, so far */
	bool refused;		   /* someone, for what is reserved */
	dlist_head leases;
	ConditionVariable loaded; /* for sessions that wait while leases are loaded */
} EqLimits;

typedef struct EqQueueSlot
{
	bool is_initialized;			  /* the place was used before */
	pg_atomic_uint32 last_lane;		  /* of a fair queue: whose turn it was */
	pg_atomic_uint64 last_segment;	  /* where a job was claimed lately */
	pg_atomic_uint64 mark_generation; /* see mark.c */
	pg_atomic_uint64 held_until;	  /* no claims before; 0: not held */
	pg_atomic_uint64 held_at;		  /* when that was said */
	EqRing ring;
	EqLimits limits;
} EqQueueSlot;

extern EqQueueSlot *eq_queue_slots; /* by the number of the slot */

static inline EqQueueSlot *
eq_queue_slot(const EqWakeSlot *slot)
{
	return &eq_queue_slots[eq_slot_number(slot)];
}

#endif /* EQ_QUEUE_SLOT_H */
