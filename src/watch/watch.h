/*
 * watch.h: user code and the time it may take, and what fails at present.
 */
#ifndef EQ_WATCH_H
#define EQ_WATCH_H

#include "datatype/timestamp.h"
#include "event_queue.h"
#include "port/atomics.h"

typedef enum EqWorkerKind
{
	EQ_WORKER_NONE,
	EQ_WORKER_SCHEDULER,
	EQ_WORKER_EXECUTOR,
	EQ_WORKER_RULES, /* the rule runner */
	EQ_WORKER_KEEPER /* partitions of events */
} EqWorkerKind;

/* One per background worker, entered and left by it under eq_workers_lock. */
typedef struct EqWorker
{
	EqWorkerKind kind;
	Oid dboid;
	int index; /* executors: 0, 1, ... */
	int pid;
	int proc_number;
	pg_atomic_uint32 idle; /* executors: wants to be woken; see below */
	pg_atomic_uint64 jobs_done;
	pg_atomic_uint64 current_job;
	pg_atomic_uint64 cancelled_job; /* executors: stop, if it is the current one */

	/* User code that it runs; see watch.c. */
	pg_atomic_uint32 work;		 /* executors: hash of the handler */
	pg_atomic_uint32 seat;		 /* executors: the same, of one with max_executors */
	pg_atomic_uint64 busy_since; /* 0: none */
	pg_atomic_uint64 deadline;	 /* of it; 0: none */
	pg_atomic_uint64 terminated; /* the deadline that it was terminated for */
	pg_atomic_uint32 signals;	 /* sent since the deadline */
	pg_atomic_uint32 signal_us;	 /* so far apart */
} EqWorker;

/* Above these: when it was woken, in ms; it has not begun to run since. */
#define EQ_AWAKE  0
#define EQ_LOOKS  1 /* for jobs, or at other things */
#define EQ_SLEEPS 2

#define EQ_MAX_WORKERS 1024

extern EqWorker *eq_worker_list; /* EQ_MAX_WORKERS */
extern LWLock *eq_workers_lock;
extern const EqSharedPart eq_workers_part;

/* faults.c: what can't be done at present */
extern const EqSharedPart eq_faults_part;
extern TimestampTz eq_note_fault(const char *kind, const char *name,
								 const char *sqlstate, const char *message,
								 int first_ms, int most_ms);
extern bool eq_clear_fault(const char *kind, const char *name);
#define EQ_FAULT_NAME                                                               \
	(EQ_MAX_NAME + 65) /* a name of its own, and what tells where */

extern void eq_retry_now(const char *kind, const char *name);
extern void eq_clear_faults(Oid dboid, const char *kind,
							bool (*is_known)(const char *name));
extern int eq_failures_of(const char *kind, const char *name, TimestampTz *retry_at);

/* Likewise, for what is tried again for itself and said in the log once. */
extern TimestampTz eq_note_item(const char *kind, const char *name,
								const char *tenant, int sqlerrcode,
								const char *message, const char *hint);
extern void eq_clear_item(const char *kind, const char *name, bool quietly);
extern void eq_retry_items_now(void);

/* watch.c: user code that does not end */
extern void eq_watch_me(EqWorker *worker);
extern int64 eq_watch_begin(int64 limit_us, int64 spare_us);
extern void eq_watch_end(int64 before);
extern void eq_end_limit(EqWorker *worker);
extern bool eq_stir_worker(EqWorker *worker);
extern int64 eq_asleep_us(EqWorker *worker);
extern void eq_end_if_terminated(void);
extern bool eq_was_past_limit(void);
extern TimestampTz eq_watch_workers(void);
extern uint32 eq_work_of(int32 queue_id, const char *job_name);
extern void eq_begin_work(uint32 work);
extern bool eq_take_seat(uint32 work, int most);
extern uint32 eq_keep_seat(uint32 work);
extern bool eq_is_under_way(uint32 work, bool for_long);
extern TimestampTz eq_all_busy_at(void);

#endif /* EQ_WATCH_H */
