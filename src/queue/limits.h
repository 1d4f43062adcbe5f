/*
 * limits.h: rate_limit and max_concurrency of a queue; for the files of limits only.
 *
 *   limits.c          reserves claims within the limits; the proof
 *   bucket.c          the token bucket of rate_limit
 *   lease_table.c     the leases of queues with max_concurrency, in shared memory
 *   lease_load.c      loads the leases of a queue from its rows
 *   limit_changes.c   what this transaction changed, and how it is undone
 *   limit_settings.c  the trigger on the queue's settings; what explain_job shows
 *
 * All of a queue's EqLimits, and its leases, are protected by an LWLock, which
 * several queues share.
 */
#ifndef EQ_LIMITS_H
#define EQ_LIMITS_H

#include "queue/queue_slot.h"
#include "storage/lwlock.h"

#define EQ_NEVER PG_INT64_MAX

/* A lease of a queue with max_concurrency. */
typedef struct EqLeaseKey
{
	int64 job_id;
	int32 slot; /* number of the queue's slot */
	int32 unused;
} EqLeaseKey;

typedef enum EqLeaseState
{
	EQ_LEASE_CLAIMED,
	EQ_LEASE_SETTLED,
	EQ_LEASE_EXTENDED
} EqLeaseState;

typedef struct EqLease
{
	EqLeaseKey key;
	dlist_node node; /* of the queue's list */
	TimestampTz until;
	uint64 owner;		/* the open transaction that wrote it; 0: none */
	EqLeaseState state; /* for its owner */
} EqLease;

typedef enum EqLimitChangeKind
{
	EQ_LIMIT_RESERVED, /* a claim in progress */
	EQ_LIMIT_TOKENS,
	EQ_LIMIT_CLAIMED,
	EQ_LIMIT_SETTLED,
	EQ_LIMIT_EXTENDED,
	EQ_LIMIT_SETTINGS,
	EQ_LIMIT_TRUNCATED, /* table job; of no slot */
	EQ_LIMIT_NOTHING
} EqLimitChangeKind;

/* A change of limits by this transaction: an entry of its log. */
typedef struct EqLimitChange
{
	SubTransactionId subid; /* first: xact.h */
	EqLimitChangeKind kind;
	EqWakeSlot *slot;

	/* RESERVED, TOKENS */
	int32 tokens;
	int32 leases;
	uint32 bucket; /* from which the tokens were taken */
	double flowed; /* until they were taken */

	/* CLAIMED, SETTLED, EXTENDED: the lease before the change */
	int64 job_id;
	bool was_there;
	bool was_own;
	bool was_unowned;
	EqLeaseState was_state;
	TimestampTz was_until;

	/* SETTINGS */
	int32 rate_limit;
	int64 rate_interval;
	bool began;			 /* a bucket */
	bool leases_changed; /* max_concurrency was set, or lifted */
	bool counts;		 /* it is set */
} EqLimitChange;

#define EQ_LIMIT_LOCKS 16

extern LWLockPadded *eq_limit_locks; /* for queues by their slots' numbers */

static inline EqLimits *
eq_limits_of(const EqWakeSlot *slot)
{
	return &eq_queue_slot(slot)->limits;
}

static inline LWLock *
eq_limits_lock(const EqWakeSlot *slot)
{
	return &eq_limit_locks[eq_slot_number(slot) % EQ_LIMIT_LOCKS].lock;
}

static inline EqLimits *
eq_lock_limits(EqWakeSlot *slot)
{
	LWLockAcquire(eq_limits_lock(slot), LW_EXCLUSIVE);
	return eq_limits_of(slot);
}

static inline void
eq_unlock_limits(EqWakeSlot *slot)
{
	LWLockRelease(eq_limits_lock(slot));
}

/* limits.c: for a slot that is taken for another queue, or given back; never throw */
extern void eq_forget_limits(EqWakeSlot *slot);
extern void eq_forget_leases(EqWakeSlot *slot);

/* bucket.c; all with the lock held */
extern void eq_begin_bucket(EqLimits *limits, int32 rate_limit, int64 rate_interval,
							bool full);
extern void eq_change_bucket_rate(EqLimits *limits, int32 rate_limit,
								  int64 rate_interval);
extern void eq_update_bucket(EqLimits *limits, const EqQueue *queue, bool changes,
							 TimestampTz now);
extern void eq_return_tokens(EqLimits *limits, int32 tokens, double flowed);

/* lease_table.c; these without the lock */
extern void eq_expire_leases_for_room(int wanted);
extern void eq_release_lease_entries(int n);
extern bool eq_reserve_lease_entry(void);
extern void eq_warn_lease_table_full(EqWakeSlot *slot);

/* and these with the lock held */
extern int eq_reserve_lease_entries(EqWakeSlot *slot, EqDatabase *db, int n);
extern EqLease *eq_find_lease(EqWakeSlot *slot, int64 job_id);
extern EqLease *eq_add_lease(EqWakeSlot *slot, int64 job_id, TimestampTz until);
extern void eq_remove_lease(EqWakeSlot *slot, EqLease *lease);
extern void eq_release_lease_owner(EqWakeSlot *slot, EqLease *lease);
extern void eq_expire_leases(EqWakeSlot *slot, TimestampTz ran_out);

/* lease_load.c */
extern bool eq_load_leases(EqWakeSlot *slot, const EqQueue *queue);
extern void eq_stop_loading_leases(void);

/* limit_changes.c */
extern uint64 eq_lease_owner; /* identifies this transaction in leases; 0: not yet */
extern void eq_prepare_limit_changes(int n);
extern EqLimitChange *eq_log_limit_change(EqLimitChangeKind kind, EqWakeSlot *slot);
extern bool eq_pop_reservation(EqWakeSlot *slot, EqLimitChange *reservation);
extern bool eq_end_reservation(EqLimits *limits, const EqLimitChange *reservation,
							   int n);
extern void eq_prepare_freed_leases(EqWakeSlot *slot);
extern int32 *eq_freed_leases(EqWakeSlot *slot);
extern void eq_adopt_own_settled(EqWakeSlot *slot);
extern bool eq_changes_limits(EqWakeSlot *slot);
extern void eq_wake_refused_claimers(EqWakeSlot *slot);

#endif /* EQ_LIMITS_H */
