/*
 * queue.h: queues and one job's life, as other rooms see them.
 */
#ifndef EQ_QUEUE_H
#define EQ_QUEUE_H

#include "datatype/timestamp.h"
#include "executor/tuptable.h"
#include "fmgr.h"
#include "utils/array.h"
#include "utils/snapshot.h"
#include "utils/jsonb.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"

#include "compat.h"
#include "event_queue.h"
#include "queue/tables.h"
#include "wake/slot.h"
#include "xact/xact.h"

/* Its parts of shared memory: mark.c, reserve.c, queue_slot.c, lease_table.c. */
extern const EqSharedPart eq_marks_part;
extern const EqSharedPart eq_reservations_part;
extern const EqSharedPart eq_queue_slots_part;
extern const EqSharedPart eq_leases_part;

/* A place in the order of one priority of one lane of one queue. */
typedef struct EqPlace
{
	int64 run_at;
	int64 job_id;
} EqPlace;

#define EQ_PRIORITY_FIRST	0
#define EQ_PRIORITY_LAST	9
#define EQ_PRIORITY_DEFAULT 5
#define EQ_MAX_BATCH		1000 /* jobs of one call of a handler */
#define EQ_RULE_CALLS		1	 /* queue_id of "rule-calls" */
#define EQ_SNAPSHOTS		2	 /* queue_id of "snapshots" */

#define EQ_MAX_INTERVALS 100
#define EQ_FOREVER		 PG_INT64_MAX

typedef enum EqBackoff
{
	EQ_BACKOFF_EXPONENTIAL,
	EQ_BACKOFF_BULL,
	EQ_BACKOFF_LINEAR,
	EQ_BACKOFF_FIXED,
	EQ_BACKOFF_LIST
} EqBackoff;

/* When a failed job is tried again (backoff.c). */
typedef struct EqRetry
{
	EqBackoff backoff;
	int64 delay;
	int64 max;
	double jitter;
	int32 n_intervals;
	int64 intervals[EQ_MAX_INTERVALS];
} EqRetry;

/* A queue's settings (queue.c keeps them per session). Times in microseconds. */
typedef struct EqQueue
{
	int32 queue_id; /* hash key */
	char name[NAMEDATALEN];
	int64 lease;
	int64 stalled_interval;
	int32 max_stalled;
	int32 max_attempts;
	int64 keep_completed; /* 0: not; EQ_FOREVER */
	int32 rate_limit;	  /* 0: none */
	int64 rate_interval;
	int32 max_concurrency; /* 0: none */
	int64 sla;			   /* 0: none */
	bool paused;
	bool draining;
	bool fair;
	bool durable;
	bool job_events; /* the end of a job is an event */
	bool group_pass; /* others of a group go on while one waits to be retried */
	int32 group_concurrency;
	int32 group_rate_limit; /* 0: none */
	int64 group_rate_interval;
	EqRetry retry;
} EqQueue;

/* queue.c */
extern const EqQueue *eq_get_queue(const char *name);
extern const EqQueue *eq_get_queue_by_id(int32 queue_id);
extern const EqQueue *eq_get_own_queue(int32 queue_id);
extern int32 eq_job_lane(const EqQueue *queue, const char *tenant,
						 TimestampTz run_at);

/* The options of a job, in the list of option_list.c; one bit each */
typedef enum EqJobOption
{
	/* Which job it is; not in the argument options. */
	EQ_OPTION_QUEUE,
	EQ_OPTION_NAME,
	EQ_OPTION_PAYLOAD,
	EQ_OPTION_TENANT_ID,
	EQ_OPTION_CHILDREN, /* in a flow only */
	/* Arguments of enqueue, too. */
	EQ_OPTION_DELAY,
	EQ_OPTION_RUN_AT,
	EQ_OPTION_PRIORITY,
	EQ_OPTION_UNIQUE_KEY,
	EQ_OPTION_GROUP_KEY,
	EQ_OPTION_DEPENDS_ON,
	EQ_OPTION_MAX_ATTEMPTS,
	EQ_OPTION_BACKOFF,
	EQ_OPTION_BACKOFF_DELAY,
	EQ_OPTION_BACKOFF_MAX,
	EQ_OPTION_BACKOFF_JITTER,
	EQ_OPTION_BACKOFF_INTERVALS,
	EQ_OPTION_TIME_LIMIT,
	EQ_OPTION_UNIQUE_MODE,
	EQ_OPTION_UNIQUE_UNTIL,
	EQ_OPTION_UNIQUE_WINDOW,
	EQ_OPTION_METADATA,
	EQ_OPTION_KEEP_COMPLETED,
	EQ_OPTION_KEEP_COMPLETED_COUNT,
	EQ_OPTION_KEEP_FAILED,
	EQ_OPTION_KEEP_FAILED_COUNT,
	EQ_OPTION_CALENDAR,
	EQ_N_OPTIONS
} EqJobOption;

#define EQ_OPTION_BIT(option) ((uint32) 1 << (option))
#define EQ_IN_FLOW			  (EQ_OPTION_BIT(EQ_N_OPTIONS) - 1)
#define EQ_IN_JOB			  (EQ_IN_FLOW & ~EQ_OPTION_BIT(EQ_OPTION_CHILDREN))
#define EQ_IN_OPTIONS		  (EQ_IN_JOB & ~(EQ_OPTION_BIT(EQ_OPTION_CHILDREN) - 1))

typedef enum EqUniqueMode
{
	EQ_UNIQUE_REJECT,
	EQ_UNIQUE_REPLACE,
	EQ_UNIQUE_DEBOUNCE,
	EQ_UNIQUE_THROTTLE
} EqUniqueMode;

/* What a job overrides of its queue's backoff: columns of retry_options. */
typedef struct EqRetryOptions
{
	Datum values[5];
	bool nulls[5];
} EqRetryOptions;

/* What a job overrides of how long its queue keeps it: columns of keep_options. */
typedef struct EqKeepOptions
{
	Datum values[4];
	bool nulls[4];
} EqKeepOptions;

typedef struct EqNewJob
{
	uint32 given;			/* EQ_OPTION_BITs of what was set by options.c */
	int64 job_id;			/* 0: to be drawn */
	const char *queue_name; /* for options.c's callers; NULL: not given */
	const char *name;
	const char *tenant;
	Jsonb *payload;	 /* NULL: {} */
	Jsonb *metadata; /* NULL: {} */
	TimestampTz run_at;
	int64 delay;				 /* eq_check_job_options adds it to the time */
	const Interval *given_delay; /* the same, with its days; NULL: not known yet */
	const char *calendar;		 /* whose working time the delay is; NULL: none */
	int priority;
	int max_attempts;		/* 0: the queue's */
	EqRetryOptions *retry;	/* NULL: the queue's */
	EqKeepOptions *keep;	/* NULL: the queue's */
	const char *unique_key; /* NULL: none */
	EqUniqueMode unique_mode;
	bool unique_until_claim;
	int64 unique_window;	  /* of throttle */
	bool has_time;			  /* run_at was asked for */
	const char *group_key;	  /* NULL: none */
	Interval *time_limit;	  /* NULL: none */
	ArrayType *depends_on;	  /* NULL: nothing */
	JsonbContainer *children; /* of a flow; NULL: none */
} EqNewJob;

static inline bool
eq_is_given(const EqNewJob *job, EqJobOption option)
{
	return (job->given & EQ_OPTION_BIT(option)) != 0;
}

extern void eq_set_job_option(EqNewJob *job, EqJobOption option, Datum value);
extern void eq_read_job_options(EqNewJob *job, JsonbContainer *options,
								uint32 allowed, bool template);
extern void eq_check_job_options(EqNewJob *job, const EqQueue *queue,
								 TimestampTz now);
extern void eq_check_new_job(EqNewJob *job, const EqQueue *queue, TimestampTz now);
extern TimestampTz eq_business_time(const char *calendar, TimestampTz from,
									const Interval *delay);
extern int64 eq_check_delay(const Interval *delay, const char *what);
extern int eq_check_priority(int priority);

/* enqueue.c */
struct EqTable;
extern int64 eq_enqueue(const EqQueue *queue, const EqNewJob *job);
extern Jsonb *eq_new_job_metadata(Jsonb *given);
extern void eq_require_accepting(const EqQueue *queue);
extern void eq_fill_job_row(struct EqTable *jobs, const EqQueue *queue,
							const EqNewJob *job, int64 job_id, int32 lane,
							TimestampTz now, int blocked, Datum *values,
							bool *nulls);
extern void eq_count_new_job(const EqQueue *queue, const EqNewJob *job);
extern void eq_after_enqueue(const EqQueue *queue, const EqNewJob *job, int64 job_id,
							 int32 lane, int blocked, int64 n);

/* claim.c */
typedef struct EqClaimedJob
{
	int64 job_id;
	pg_uuid_t token;
	char *name;
	char *tenant;
	Jsonb *payload;
	Jsonb *metadata;
	int32 failures;
	int32 stalled;
	int32 max_attempts;
	int32 priority;
	bool cancelled; /* in an earlier lease, which it outlived */
	TimestampTz created_at;
	TimestampTz run_at;
	TimestampTz leased_until;
	char *group_key;  /* NULL: none */
	int64 time_limit; /* 0: none */
} EqClaimedJob;

#define EQ_RUN_JOBS_WORKER "run_jobs" /* who claims for run_jobs */

typedef struct EqClaim
{
	const EqQueue *queue;
	int limit;
	const char *worker;
	int64 lease;		/* microseconds; 0: the queue's */
	const char *tenant; /* NULL: any */
	char **names;		/* job names wanted; NULL: any */
	int n_names;
	bool all_but;		/* these */
	bool session_bound; /* the leases end with this session */

	/* NULL, or false: this job, just leased, is the last one. */
	bool (*goes_on)(struct EqClaim *claim, const EqClaimedJob *job);
	int64 expected_us; /* for goes_on */

	int n_jobs; /* out */
	EqClaimedJob *jobs;
	TimestampTz retry_at; /* no claim before, as limited or held; 0: not known */
} EqClaim;

extern void eq_claim(EqClaim *claim);

extern TimestampTz eq_queue_held_until(const EqQueue *queue); /* queue_slot.c */
extern void eq_hold_queue(const EqQueue *queue, int64 delay);
extern bool eq_peek(const EqQueue *queue, TimestampTz *next_due);
extern int eq_move_due_jobs(const EqQueue *queue, int limit);
extern TimestampTz eq_oldest_ready(const EqQueue *queue);
extern bool eq_any_leased(const EqQueue *queue, int look_at);
extern int64 eq_count_due(const EqQueue *queue, int64 limit);
extern int64 eq_count_scheduled(const EqQueue *queue, int64 limit);
extern void eq_sweep_marks(const EqQueue *queue);

/* claim_sql.c */
extern Datum eq_claimed_job_datum(const EqQueue *queue, const EqClaimedJob *job,
								  TupleDesc desc);
extern void eq_check_claim_limit(int limit);
extern const char *eq_worker_argument(FunctionCallInfo fcinfo, int argno);
extern int64 eq_lease_argument(FunctionCallInfo fcinfo, int argno);
extern const char *eq_claim_tenant(FunctionCallInfo fcinfo, int argno);

/* token.c */
#define EQ_TOKEN_RANDOM 10 /* bytes */

extern void eq_draw_token_random(uint8 *random);
extern void eq_make_token(pg_uuid_t *token, const uint8 *random, ItemPointer root);
extern void eq_token_tid(const pg_uuid_t *token, ItemPointer root);

/* mark.c: where claims begin */
extern void eq_mark_read(int32 queue_id, int32 lane, int32 priority, EqPlace *place);
extern void eq_mark_raise(EqWakeSlot *queue, int32 queue_id, int32 lane,
						  int32 priority, uint64 generation, EqPlace place,
						  TimestampTz now);
extern void eq_mark_lower(EqWakeSlot *queue, int32 queue_id, int32 lane,
						  int32 priority, EqPlace place);
extern void eq_lower_mark_at_commit(int32 queue_id, int32 lane, int32 priority,
									TimestampTz run_at, int64 job_id);
extern bool eq_lowers_marks_at_commit(void);
extern EqXactKind eq_noted_marks;
extern void eq_forbid_mark_raise(void);
extern bool eq_mark_raise_is_forbidden(void);

/* Where (lane, priority) lies in the order in which a queue is walked. */
static inline uint64
eq_segment(int32 lane, int32 priority)
{
	Assert(lane >= 0 && priority >= 0 && priority < 256);
	return ((uint64) lane << 8) | priority;
}

/* ring.c: the next jobs of a queue */
typedef enum EqRingAnswer
{
	EQ_RING_CANDIDATE,
	EQ_RING_FILL,  /* none: fill it, from the ready mark on */
	EQ_RING_GO_ON, /* none: fill it, from its end on */
	EQ_RING_EMPTY  /* none, and someone else is filling it */
} EqRingAnswer;

extern uint64 eq_ring_generation(EqWakeSlot *slot);
extern EqRingAnswer eq_ring_take(EqWakeSlot *slot, uint64 generation,
								 TimestampTz now, ItemPointer candidate,
								 uint64 *segment, EqPlace *end);
extern int eq_ring_wanted(EqWakeSlot *slot, TimestampTz now);
extern void eq_ring_fill(EqWakeSlot *slot, uint64 generation, TimestampTz now,
						 bool goes_on, uint64 segment, EqPlace end,
						 const ItemPointerData *candidates, int n);
extern void eq_ring_void_if_before(EqWakeSlot *slot, uint64 segment,
								   TimestampTz run_at);

/* reserve.c: rows that claimers have reserved */
typedef enum EqReservation
{
	EQ_RESERVED,
	EQ_RESERVED_BY_OTHER,
	EQ_NO_ROOM
} EqReservation;

extern EqReservation eq_reserve_row(ItemPointer tid);
extern EqReservation eq_reserve_key(uint64 hash);
extern EqXactKind eq_reserved_rows;
extern bool eq_row_is_busy(TupleTableSlot *slot);

/* session.c: leases that end with the session */
extern void eq_end_leases(const char *which, int n_arguments, Oid *types,
						  Datum *values);
extern void eq_bind_to_session(const EqClaimedJob *jobs, int n_jobs);

/* review.c: jobs that wait for others */
extern void eq_review_group(int32 queue_id, Datum tenant, Datum group_key);
extern bool eq_review_jobs(void);
extern void eq_take_timed_reviews(bool retry);
extern TimestampTz eq_next_timed_review(void);

/* bulk.c: who takes many waits for nobody meanwhile */
extern void eq_conflict_with_xact(TransactionId xid) pg_attribute_noreturn();
extern void eq_conflict_with_row(bool is_job, int64 job_id) pg_attribute_noreturn();
extern void eq_await_conflict(void);
/* job_event.c */
extern void eq_tell_end(const EqQueue *queue, const Datum *job, const bool *isnull,
						int failures, Jsonb *result, const char *reason,
						Jsonb *errors);

extern bool eq_enqueue_may_wait(void);
extern bool eq_look_again(bool is_patient, int *looks);
extern bool eq_enqueue_looks_again(int *looks);
extern bool eq_is_enqueue_attempt(void);
extern void eq_enqueue_by_attempts(void (*enqueue)(void *), void *argument);

/* depend.c: jobs that depend on others */
extern bool eq_add_dependencies(int64 job_id, const char *tenant,
								ArrayType *depends_on);
extern void eq_add_follower(int64 job_id, const char *tenant, int64 after);
extern void eq_release_followers(int64 job_id);
extern void eq_settle_dependents(int64 job_id, Jsonb *result, bool gone);

/* history.c */
extern int eq_keep_trace_s;
extern void eq_insert_trace(int64 keep, TupleTableSlot *slot, TimestampTz now);
extern void eq_insert_history(TupleTableSlot *job, TimestampTz now, int64 keep,
							  int keep_count, Jsonb *result);

/* keep.c */
extern void eq_set_keep_completed(EqNewJob *job, Datum value);
extern void eq_set_keep_completed_count(EqNewJob *job, Datum value);
extern void eq_set_keep_failed(EqNewJob *job, Datum value);
extern void eq_set_keep_failed_count(EqNewJob *job, Datum value);
extern int64 eq_job_keep(const EqQueue *queue, TupleTableSlot *job, int *count);

/* lease.c */
typedef enum EqHeldLease
{
	EQ_HELD,
	EQ_HELD_CANCELLED, /* held, but the job is to end */
	EQ_NOT_HELD
} EqHeldLease;

extern EqHeldLease eq_look_at_lease(int64 job_id, const pg_uuid_t *token);
extern TimestampTz eq_renew_lease(int64 job_id, const pg_uuid_t *token);
extern void eq_job_deleted(int32 queue_id, HeapTuple row, TupleDesc desc);

/* settle.c */
extern void eq_complete(int64 job_id, const pg_uuid_t *token, Jsonb *result,
						bool unless_cancelled);
extern void eq_complete_all(FunctionCallInfo fcinfo, int results_argno);
extern TimestampTz eq_fail(int64 job_id, const pg_uuid_t *token, const char *message,
						   const char *detail, const char *sqlstate,
						   const char *context, int64 retry_after, bool final);
extern int32 eq_release(int64 job_id, const pg_uuid_t *token, int64 delay);

/* suspend.c */
struct EqLeased;
extern void eq_suspend_leased(struct EqLeased *leased, int64 job_id,
							  const pg_uuid_t *token, TimestampTz until);
extern bool eq_is_suspended(int64 job_id, const pg_uuid_t *token);
extern bool eq_complete_unless_suspended(int64 job_id, const pg_uuid_t *token,
										 Jsonb *result);
extern EqXactKind eq_suspended_jobs;

/* handled.c: which code does the present job */
extern void eq_note_handler(const char *name, Oid function, int32 version);
extern void eq_forget_handler(void);
extern Jsonb *eq_present_handler(void);

/* dead.c: the row in slot (a locked job) becomes a dead letter */
struct EqTable;
extern void eq_bury(struct EqTable *jobs, TupleTableSlot *slot, Snapshot snapshot,
					const char *reason, Jsonb *errors, int failures, int stalled);
extern Jsonb *eq_add_error(TupleTableSlot *job, int attempt, const char *sqlstate,
						   const char *message, const char *detail,
						   const char *context);

/* backoff.c */
extern EqBackoff eq_parse_backoff(const char *name);
extern void eq_read_intervals(EqRetry *retry, Datum array);
extern const char *eq_retry_complaint(EqRetryOptions *own, int n_intervals);
extern const char *eq_max_attempts_complaint(int max_attempts);
extern Datum eq_row_datum(Oid type, const Datum *values, const bool *nulls);
extern int64 eq_backoff(const EqQueue *queue, const Datum *own, int failures);

/* group_rate.c */
extern bool eq_try_reserve_group_rate(const EqQueue *queue, const char *tenant,
									  const char *group_key);
extern TimestampTz eq_use_group_rate(const EqQueue *queue, const char *tenant,
									 const char *group_key);

/* limits.c, lease_table.c, limit_changes.c */
extern int eq_reserve_claims(const EqQueue *queue, int wanted,
							 TimestampTz *retry_at);
extern void eq_use_claims(const EqQueue *queue, const EqClaimedJob *jobs,
						  int n_jobs);
extern void eq_free_lease(const EqQueue *queue, int64 job_id, TimestampTz until);
extern bool eq_extend_lease(const EqQueue *queue, int64 job_id,
							TimestampTz was_until, TimestampTz until);
extern int eq_leases_taken(void);
extern void eq_reload_leases(bool forget);
extern EqXactKind eq_limit_changes;
extern EqXactKind eq_freed_seats;

static inline bool
eq_queue_is_limited(const EqQueue *queue)
{
	return queue->rate_limit > 0 || queue->max_concurrency > 0;
}

#endif /* EQ_QUEUE_H */
