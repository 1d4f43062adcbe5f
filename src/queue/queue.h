/*
 * queue.h: queues and one job's life, as other rooms see them.
 */
#ifndef EQ_QUEUE_H
#define EQ_QUEUE_H

#include "datatype/timestamp.h"
#include "executor/tuptable.h"
#include "utils/snapshot.h"
#include "utils/jsonb.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"

#include "event_queue.h"

#define EQ_PRIORITY_FIRST	0
#define EQ_PRIORITY_LAST	9
#define EQ_PRIORITY_DEFAULT 5
#define EQ_RULE_CALLS		1 /* queue_id of "rule-calls" */
#define EQ_SNAPSHOTS		2 /* queue_id of "snapshots" */

/* A queue's settings (queue.c keeps them per session). Times in microseconds. */
typedef struct EqQueue
{
	int32 queue_id; /* hash key */
	char name[NAMEDATALEN];
	int64 lease;
	int64 stalled_interval;
	int32 max_stalled;
	int32 max_attempts;
	bool exponential;
	int64 backoff_delay;
	int64 backoff_max;
	double backoff_jitter;
	bool keeps_completed;
	int32 rate_limit; /* 0: none */
	int64 rate_interval;
	int32 max_concurrency; /* 0: none */
	int64 sla;			   /* 0: none */
	bool paused;
} EqQueue;

/* queue.c */
extern const EqQueue *eq_get_queue(const char *name);
extern const EqQueue *eq_get_queue_by_id(int32 queue_id);
extern int64 eq_interval_us(const Interval *interval);

/* enqueue.c */
typedef struct EqNewJob
{
	const char *name;
	const char *tenant;
	Jsonb *payload;	 /* NULL: {} */
	Jsonb *metadata; /* NULL: {} */
	TimestampTz run_at;
	int priority;
	int max_attempts;		 /* 0: the queue's */
	const char *backoff;	 /* NULL: the queue's */
	Interval *backoff_delay; /* NULL: the queue's */
	const char *unique_key;	 /* NULL: none */
} EqNewJob;

extern int64 eq_enqueue(const EqQueue *queue, const EqNewJob *job);
extern int64 eq_check_delay(const Interval *delay, const char *what);
extern int eq_check_priority(int priority);

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
	TimestampTz created_at;
	TimestampTz run_at;
	TimestampTz leased_until;
} EqClaimedJob;

typedef struct EqClaim
{
	const EqQueue *queue;
	int limit;
	const char *worker;
	int64 lease;		/* microseconds; 0: the queue's */
	const char *tenant; /* NULL: any */
	char **names;		/* job names wanted; NULL: any */
	int n_names;

	int n_jobs; /* out */
	EqClaimedJob *jobs;
	TimestampTz retry_at; /* rate limited until then; 0: not */
} EqClaim;

extern void eq_claim(EqClaim *claim);
extern Datum eq_claimed_job_datum(const EqQueue *queue, const EqClaimedJob *job,
								  TupleDesc desc);

/* Is there a job that may be claimed, and when does the next one come due? */
extern bool eq_peek(const EqQueue *queue, TimestampTz now, TimestampTz *next_due);

/* settle.c */
extern void eq_complete(int64 job_id, const pg_uuid_t *token, Jsonb *result);
extern TimestampTz eq_fail(int64 job_id, const pg_uuid_t *token, const char *message,
						   const char *sqlstate, const char *context,
						   int64 retry_after, bool final);
extern void eq_release(int64 job_id, const pg_uuid_t *token, int64 delay);

/* dead.c: the row in slot (a locked job) becomes a dead letter */
struct EqTable;
extern void eq_bury(struct EqTable *jobs, TupleTableSlot *slot, Snapshot snapshot,
					const char *reason, Jsonb *errors, int failures, int stalled);
extern Jsonb *eq_add_error(Jsonb *errors, int attempt, const char *worker,
						   const char *sqlstate, const char *message,
						   const char *context);

/* backoff.c */
extern int64 eq_backoff(const EqQueue *queue, bool exponential, int64 delay,
						int failures);

/* limits.c */
extern int eq_reserve_claims(const EqQueue *queue, int wanted, TimestampTz now,
							 TimestampTz *retry_at);
extern void eq_use_claims(const EqQueue *queue, const EqClaimedJob *jobs,
						  int n_jobs);
extern void eq_free_claim(const EqQueue *queue, int64 job_id);
extern void eq_prolong_claim(const EqQueue *queue, int64 job_id, TimestampTz until);

static inline bool
eq_queue_is_limited(const EqQueue *queue)
{
	return queue->rate_limit > 0 || queue->max_concurrency > 0;
}

#endif /* EQ_QUEUE_H */
