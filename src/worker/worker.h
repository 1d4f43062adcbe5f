/*
 * worker.h: the background workers.
 *
 *   launcher (one a server)    finds databases that have the extension
 *     scheduler (one a database)   wake-ups, schedules, retention, supervision
 *       executor 0 .. n-1            run handlers
 *       rule runner                  conditions and templates of rules
 *       keeper                       partitions of events; ends when done
 *
 * README.md of the folder draws who starts and wakes whom.
 */
#ifndef EQ_WORKER_H
#define EQ_WORKER_H

#include "datatype/timestamp.h"
#include "event_queue.h"
#include "nodes/nodes.h"
#include "postmaster/bgworker.h"
#include "queue/queue.h"
#include "utils/jsonb.h"
#include "watch/watch.h"
#include "xact/xact.h"

/* launcher.c, for the front door */
extern void eq_register_launcher(void);
extern const char *eq_database_emptied_by(Node *stmt);
extern void eq_send_workers_away_until_end(Oid dboid);
extern EqXactKind eq_workers_away; /* order.c */

/* chores.c: what a worker does in each round */
typedef struct EqChore
{
	void (*run)(void);
	const char *name;
	int limit_ms; /* for triggers of users on tables that it writes; 0: none */
	int failures; /* in a row */
	TimestampTz retry_at;  /* 0: it did not fail */
	MemoryContext context; /* it is called in */
} EqChore;

extern void eq_attempt_chore(const char *worker, EqChore *chore);

/* clean.c */
extern void eq_note_constraints_set(void);
extern bool eq_constraints_were_set(void);
extern void eq_clean_session(void);
extern bool eq_session_is_clean(void);

/* handler.c */
extern void eq_pin_search_path(const char *function);
extern void eq_call_handler(const EqQueue *queue, const EqClaimedJob *jobs, int n,
							bool as_array, const char *label, Oid owner,
							const char *function, int32 version, int sec_flags,
							Jsonb **result);
extern Jsonb *eq_result_of(Jsonb *results, int i, bool as_array);
extern void eq_fire_deferred(void);

/* Meaning of a handler's error; delay in microseconds, -1: the queue's backoff. */
typedef struct EqVerdict
{
	bool final;			  /* no further attempt */
	bool postponed;		  /* not now, and no attempt counted */
	bool postpones_queue; /* nor any other job of the queue */
	int64 delay;
	const char *detail; /* of the error, unless it is the delay */
} EqVerdict;
extern EqVerdict eq_read_verdict(const ErrorData *error);

/* stop.c */
extern void eq_stop_cancelled_jobs(void);

/* registry.c, for the workers */
extern bool eq_worker_is_alive(Oid dboid, EqWorkerKind kind, int index);
extern void eq_wake_executors(void);
extern bool eq_start_worker(EqWorkerKind kind, Oid dboid, int index,
							BackgroundWorkerHandle **handle);
extern EqWorker *eq_init_worker(EqWorkerKind kind, Oid dboid, int index);
extern bool eq_extension_is_here(void);
extern bool eq_extension_is_current(void);
extern void eq_worker_wait(long timeout_ms);
extern void eq_worker_back_off(void);
extern void eq_worker_reload(void);
extern void eq_forget_children(void);
extern bool eq_end_was_asked_for(void);

extern PGDLLEXPORT void eq_launcher_main(Datum arg);
extern PGDLLEXPORT void eq_scheduler_main(Datum arg);
extern PGDLLEXPORT void eq_executor_main(Datum arg);
extern PGDLLEXPORT void eq_runner_main(Datum arg);
extern PGDLLEXPORT void eq_keeper_main(Datum arg);

/* snapshot_jobs.c: for the scheduler, true if there may be more; for an executor */
extern bool eq_order_snapshots(void);
extern void eq_run_snapshot_job(const char *tenant, Jsonb *payload);

#endif /* EQ_WORKER_H */
