/*
 * event_queue.h: settings and shared memory, as every room sees them.
 *
 * Shared memory holds nothing that a restart may not lose: what must survive
 * is in tables, and is read again by whoever needs it first.
 */
#ifndef EQ_EVENT_QUEUE_H
#define EQ_EVENT_QUEUE_H

#include "datatype/timestamp.h"
#include "lib/ilist.h"
#include "port/atomics.h"
#include "storage/condition_variable.h"
#include "storage/itemptr.h"
#include "storage/lwlock.h"
#include "storage/spin.h"

#include "errors.h"
#include "update/version.h"

#define EQ_SCHEMA		  "event_queue"
#define EQ_INTERNAL		  "event_queue_internal"
#define EQ_EXTENSION	  "event_queue"
#define EQ_VERSION		  "0.2.0"
#define EQ_DEFAULT_TENANT "default"
#define EQ_MAX_NAME		  255 /* bytes of a tenant, type, id or job name */
#define EQ_MAX_QUEUE_NAME 50  /* so that the NOTIFY channel fits in 63 */
#define EQ_MAX_EXECUTORS  64

/* Settings (event_queue.c defines and documents them). */
typedef enum EqNotifyMode
{
	EQ_NOTIFY_WORKER,	   /* the scheduler notifies, after commit */
	EQ_NOTIFY_TRANSACTION, /* each enqueue notifies, in its transaction */
	EQ_NOTIFY_OFF
} EqNotifyMode;

extern char *eq_tenant;
extern char *eq_actor;
extern char *eq_correlation_id;
extern char *eq_causation_id;
extern char *eq_rule_chain;
extern int eq_publish_interval_ms;
extern bool eq_require_tenant;
extern int eq_max_payload_kb;
extern int eq_notify_mode;
extern int eq_executors;
extern int eq_executor_memory_kb;
extern char *eq_databases;
extern bool eq_activate_copies;
extern int eq_rule_batch;
extern int eq_condition_timeout;
#define EQ_MAX_RULE_DEPTH 100
extern int eq_rule_depth; /* rules/chain.c */
extern int eq_stuck_after_ms;
extern int eq_append_timeout;
extern int eq_keep_audit_min;
extern int eq_alert_interval_ms;
extern int eq_max_databases;
extern int eq_max_queues;
extern int eq_max_limited_leases;

#define EQ_EVENTS_FOR_RULES		1 /* the rule runner */
#define EQ_EVENTS_FOR_SNAPSHOTS 2 /* the scheduler */

/* A scheduler whose next cycle is so late counts as stuck. */
#define EQ_SCHEDULER_GRACE_US (10 * USECS_PER_SEC)

/*
 * One database that has the extension.  Entries are taken and freed under
 * EqShared->lock; an entry's dboid doesn't change while a session of that
 * database lives.
 */
typedef struct EqDatabase
{
	Oid dboid; /* InvalidOid: free */

	/* The position counter; see store/watermark.c. */
	slock_t position_mutex;
	Oid position_sequence; /* of which they come; InvalidOid: not begun */
	int64 next_position;   /* the next one to give */
	int64 block_end;	   /* last one that may be given, -> a new block */

	/* Who to wake, and what for; see wake/wake.c. */
	pg_atomic_uint32 scheduler;		 /* proc number + 1; 0: none */
	pg_atomic_uint64 scheduler_due;	 /* when its next cycle must have begun */
	pg_atomic_uint64 scheduler_tick; /* when its last one began */
	pg_atomic_uint32 rule_runner;	 /* likewise */
	pg_atomic_uint32 events_pending; /* events were appended or freed: snapshots */
	pg_atomic_uint32 rules_pending;	 /* likewise: rules */
	pg_atomic_uint32 events_wanted;	 /* who reads them: EQ_EVENTS_FOR_... */
	pg_atomic_uint32
		readers_waiting;		   /* some session sleeps; store/wait_for_events.c */
	pg_atomic_uint32 jobs_awaited; /* some session sleeps in await_job */
	pg_atomic_uint32 reviews_pending;	/* job_review has rows */
	pg_atomic_uint32 cancels_pending;	/* a leased job was cancelled */
	pg_atomic_uint32 look_everywhere;	/* jobs came that name no queue */
	pg_atomic_uint32 recount;			/* commits passed the counters by */
	pg_atomic_uint32 config_generation; /* configuration changed */
	pg_atomic_uint32 active_at;	   /* config_generation + 1; store/activation.c */
	pg_atomic_uint64 restored_at;  /* when a restore was last at work */
	pg_atomic_uint64 rings_voided; /* jobs came by plain SQL; queue/ring.c */
	pg_atomic_uint64 sampled_at;   /* the last round of samples; observe/sample.c */

	/* What it has of the rooms that all databases share. */
	int n_slots;				/* under EqShared->lock; see wake/slot.c */
	int without_slots;			/* as the scheduler saw */
	pg_atomic_uint32 leases;	/* as counted then; see queue/limits.c */
	pg_atomic_uint64 leases_at; /* when */

	/* For the launcher; see worker/launcher.c. */
	pg_atomic_uint32 absent;  /* the extension was dropped */
	pg_atomic_uint32 drops;	  /* how often it was */
	pg_atomic_uint32 blocked; /* > 0: workers must stay away (DROP DATABASE) */
} EqDatabase;

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

/* A place in the order of one priority of one lane of one queue. */
typedef struct EqPlace
{
	int64 run_at;
	int64 job_id;
} EqPlace;

#define EQ_RING_SIZE 64

/* The next jobs of a queue; see queue/ring.c. */
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

/* What counters were at a time; rates are differences (observe/counters.c). */
#define EQ_SAMPLES	 13
#define EQ_SAMPLE_US INT64CONST(5000000)
typedef struct EqSample
{
	int64 at; /* 0: none */
	uint64 enqueued;
	uint64 completed;
	uint64 failed;
} EqSample;

/* Are a queue's leases in shared memory? */
typedef enum EqLeaseLoadState
{
	EQ_LEASES_NOT_LOADED,
	EQ_LEASES_LOADING, /* by a claimer */
	EQ_LEASES_LOADED
} EqLeaseLoadState;

/* rate_limit and max_concurrency of a queue, under its LWLock; see queue/limits.c. */
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

#define EQ_LIMIT_LOCKS 16

/*
 * One queue (id > 0) or one NOTIFY channel (id < 0) of one database; wake/slot.c
 * says how it is found, and how long it stays.
 */
typedef struct EqWakeSlot
{
	pg_atomic_uint64 key;			  /* database and id; 0: none */
	pg_atomic_uint32 pins;			  /* transactions that use it */
	uint32 next;					  /* of its chain, or list: its number + 1 */
	pg_atomic_uint32 pending;		  /* something to do or to say */
	pg_atomic_uint32 waiters;		  /* sessions that sleep in claim_wait */
	pg_atomic_uint32 last_lane;		  /* of a fair queue: whose turn it was */
	pg_atomic_uint64 last_segment;	  /* where a job was claimed lately */
	pg_atomic_uint64 mark_generation; /* see queue/mark.c */
	pg_atomic_uint64 living;		  /* jobs in the table; see observe/counters.c */
	pg_atomic_uint64 dead_letters;	  /* likewise */
	pg_atomic_uint64 counters[EQ_COUNTERS];
	uint64 sampled[EQ_COUNTERS]; /* by the last sample; see observe/sample.c */
	int64 sampled_at;			 /* these two under the lock of series */
	pg_atomic_uint64 claimed_at; /* when the last job was; 0: none since the start */
	EqRing ring;
	EqLimits limits;
	EqSample samples[EQ_SAMPLES]; /* a ring, under EqShared->lock */
	int last_sample;
} EqWakeSlot;

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

/* Nothing below the place can be claimed; see queue/mark.c. */
typedef struct EqMark
{
	slock_t mutex; /* of all of it */
	Oid dboid;	   /* InvalidOid: free */
	int32 queue_id;
	int32 lane;
	int32 priority;
	EqPlace place;
} EqMark;

#define EQ_MARK_WAYS	8 /* places where a key may be */
#define EQ_MAX_MARKS	65536
#define EQ_MAX_RESERVED 65536

/* What one database may have of a room: so many times as much as stays free. */
#define EQ_SHARE_OF_DATABASE 3

/* One per backend: the lowest position its open transaction took; 0: none. */
typedef struct EqAppender
{
	pg_atomic_uint64 lowest_position;
	pg_atomic_uint32 reader_waits;	  /* sleeps in wait_for_events */
	pg_atomic_uint32 waits_for_queue; /* sleeps in claim_wait: wake slot + 1 */
	pg_atomic_uint32 awaits_job;	  /* sleeps in await_job */
	Oid dboid;						  /* these are written before lowest_position */
	int pid;
	bool is_bound;	   /* to a tenant, so that append_timeout holds */
	TimestampTz since; /* of lowest_position */
} EqAppender;

typedef struct EqShared
{
	/*
	 * Protects taking and giving back of databases, wake slots, workers, and
	 * members' buckets (store/members.c).  Held for some thousand instructions at most, with nothing inside that can throw,
	 * and with no other lock inside but those of limits.
	 */
	LWLock *lock;
	pg_atomic_uint32 launcher; /* proc number + 1; 0: none */
	pg_atomic_uint32 probe;	   /* the launcher should look for new databases */
	int max_appenders;
	EqDatabase *databases;		/* eq_max_databases */
	EqWakeSlot *wake_slots;		/* eq_max_queues */
	int n_slots;				/* that were ever in use: the first ones */
	uint32 slots_given_back;	/* a list of them */
	uint32 n_slot_chains;		/* a power of two */
	uint32 *slot_chains;		/* by the hash of the key */
	EqAppender *appenders;		/* max_appenders */
	EqMark *marks;				/* EQ_MAX_MARKS */
	pg_atomic_uint64 *reserved; /* EQ_MAX_RESERVED; see queue/reserve.c */

	/* See queue/limits.c. */
	LWLockPadded *limit_locks;	   /* EQ_LIMIT_LOCKS, for queues by their slots */
	pg_atomic_uint32 leases_taken; /* of eq_max_limited_leases */
	pg_atomic_uint64 leases_swept; /* when, for room */
} EqShared;

extern EqShared *eq_shared;

extern EqDatabase *eq_database(void);
extern EqDatabase *eq_find_database(Oid dboid);

/* observe/counters.c, for the scheduler */
extern bool eq_count_rows(void);
extern void eq_sample_counters(void);

#endif /* EQ_EVENT_QUEUE_H */
