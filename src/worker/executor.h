/*
 * executor.h: the jobs that an executor has in hand.
 *
 *   executor.c  the loop: claims, has jobs run, gives back
 *   run.c       a call of a handler; a job in a transaction of its own
 *   together.c  several jobs in one transaction
 *   running.c   what a dead executor was running
 */
#ifndef EQ_EXECUTOR_H
#define EQ_EXECUTOR_H

#include "queue/queue.h"
#include "worker/handlers.h"
#include "worker/worker.h"

/* Jobs of one queue that were claimed together; they live in the executor's memory. */
typedef struct EqHand
{
	EqQueue queue;
	int n;
	int next;	   /* those before it have ended; n: no job is in hand */
	int running;   /* whose handler was called last, */
	int n_running; /* and how many after it, by the same call */
	int alone;	   /* from next on, each in a transaction of its own */
	int runs;	   /* transactions, since they were claimed */
	int unwanted;  /* they are given back: so many times that was tried */
	EqClaimedJob *jobs;
	EqHandler **handlers; /* of the jobs; NULL: it has none any more */
} EqHand;

/* One call of a handler, for one job or, if it takes an array, for several. */
typedef struct EqCall
{
	EqHand *hand;
	int first;
	int n;
	int timeout_ms; /* 0: as long as it may ever take */
	TimestampTz started_at;

	Oid owner;	   /* out: the role that must commit it; InvalidOid: none */
	Jsonb *result; /* out; NULL: none */
	bool settling; /* out: its jobs are being completed */
	int n_suspended;

	/* State that eq_end_call restores. */
	int guc_level;
	Oid worker_role;
	int sec_context;
} EqCall;

/* Outcome of a job's run, for the log; strings are in the caller's memory. */
typedef struct EqRunEnd
{
	const EqClaimedJob *job;
	const char *outcome; /* NULL: it did not run */
	char *sqlstate;		 /* NULL: none */
	char *message;
	TimestampTz started_at;
	TimestampTz ended_at;
} EqRunEnd;

/* How long an executor waits for the lock of a job's row when it settles the job. */
#define EQ_SETTLE_WAIT_MS 3000

#define EQ_EXECUTOR_NAME "event_queue executor %d"

/* executor.c */
extern EqWorker *eq_executor;
extern char eq_executor_name[64];
extern void eq_begin_own_transaction(void);
extern void eq_claim_next(EqHand *next);
extern bool eq_note_claim_error(const ErrorData *error);
extern void eq_jobs_ended(EqHand *hand, int n, const EqHand *next);
extern void eq_release_from(EqHand *hand, int from);
extern void eq_give_back(EqHand *hand, int from);
extern void eq_commit_as(Oid owner);

/* run.c */
extern void eq_begin_call(EqCall *call);
extern void eq_make_call(EqCall *call);
extern void eq_end_call(EqCall *call);
extern void eq_complete_call(EqCall *call);
extern void eq_abandon_call(void);
extern bool eq_was_stopped(const EqHand *hand, int first, int n,
						   const ErrorData *error);
extern void eq_note_time_limit(const EqHandler *handler, const char *message);
extern bool eq_settle_failure(EqHand *hand, int i, const ErrorData *error,
							  EqRunEnd *end);
extern bool eq_try_to_settle(void (*settle)(void *), EqClaimedJob *job, int wait_ms);
extern void eq_release_claimed(void *argument);
extern bool eq_may_run_still(EqHand *hand, int i, EqRunEnd *end);
extern void eq_log_run(const EqHand *hand, const EqRunEnd *end);

/* The fault of a handler whose jobs' failures can't be recorded */
#define EQ_UNRECORDED "failures of handler"
extern void eq_clear_handler_faults(const EqHandler *handler);
extern void eq_run_alone(EqHand *hand);

/* together.c */
extern bool eq_jobs_are_isolated(void);
extern int eq_claim_limit(const EqQueue *queue, const EqHandler *handler);
extern bool eq_claim_goes_on(EqClaim *claim, const EqClaimedJob *job);
extern bool eq_may_run_together(const EqHand *hand);
extern void eq_run_together(EqHand *hand);

/* running.c */
extern void eq_open_running(int index);
extern void eq_note_running(const EqClaimedJob *jobs, int n);
extern void eq_note_nothing_runs(void);
extern int eq_read_call(int index, int64 **jobs);
extern void eq_end_orphaned_leases(int index);
extern void eq_end_all_orphaned_leases(void);

#endif /* EQ_EXECUTOR_H */
