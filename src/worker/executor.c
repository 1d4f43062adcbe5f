/*
 * executor.c: runs jobs by their handlers, inside the database.
 *
 * Exactly once: the claim is committed first, so that a handler that takes the
 * server down is counted; then the handler's effects, the job's completion and
 * the claim of the next job commit together, one flush for a job.  An error
 * rolls the effects back, and is recorded with the claim of the next job.
 *
 * The handler's transaction runs and commits as the role that created the
 * handler: deferred triggers fire in the commit, and must not fire as the
 * superuser that the worker is.  What a handler sets (settings, advisory locks,
 * temporary tables) is gone before the next job, which may be another tenant's.
 */
#include "postgres.h"

#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/namespace.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/lmgr.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timeout.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"

#include "common/exit.h"
#include "common/function.h"
#include "common/log_line.h"
#include "common/try.h"
#include "compat.h"
#include "event_queue.h"
#include "queue/queue.h"
#include "rules/rules.h"
#include "store/store.h"
#include "table/table.h"
#include "tenant/tenant.h"
#include "wake/wake.h"
#include "worker/handlers.h"
#include "worker/worker.h"

#define IDLE_MS		60000
#define JOBS_A_LOOK 100	  /* at the memory that is kept */
#define STAND_IN_MS 30000 /* of idling, before an executor that stands in ends */

/* The job in hand; lives in job_context. */
typedef struct Job
{
	bool in_hand;
	EqQueue queue;
	EqClaimedJob claimed;
	const EqHandler *handler;
	TimestampTz started_at; /* its run */
} Job;

static Job current;
static EqDatabase *db;
static EqWorker *me;
static bool stands_in;			   /* for executors whose jobs take long */
static char claiming[NAMEDATALEN]; /* the queue that is claimed from */
static char worker_name[64];
static MemoryContext job_context;  /* the job in hand */
static MemoryContext next_context; /* the job after it */
static int first_handler;		   /* where the next look for a job begins */
static TimestampTz retry_at;	   /* a rate limit ends then; 0: none met */

/*
 * Not for now.  A handler whose last job did not end at its time limit gets one
 * executor at a time, so that the others are free for other handlers.  One that
 * stands in for executors whose jobs take long does not take up more of the same.
 * And a handler that can't be called waits.
 */
static bool
is_left_alone(const EqHandler *handler)
{
	TimestampTz at;
	/* Calls of one rule say nothing about those of another. */
	bool may_be_endless = handler->queue_id != EQ_RULE_CALLS &&
						  eq_failures_of("time limit", handler->label, &at) > 0;

	if ((may_be_endless || stands_in) &&
		eq_is_under_way(handler->work, !may_be_endless))
		return true;
	if (may_be_endless && stands_in)
		return true;
	if (eq_failures_of("handler", handler->label, &at) == 0 ||
		at <= GetCurrentTimestamp())
		return false;
	if (retry_at == 0 || at < retry_at)
		retry_at = at;
	return true;
}

/* A queue from which no job could be claimed: other queues go on meanwhile. */
static bool
queue_fails(const EqQueue *queue)
{
	TimestampTz at;

	if (eq_failures_of("queue", queue->name, &at) == 0 ||
		at <= GetCurrentTimestamp())
		return false;
	if (retry_at == 0 || at < retry_at)
		retry_at = at;
	return true;
}

static void
note_claim_error(const ErrorData *error)
{
	(void) eq_note_fault("queue", claiming, unpack_sql_state(error->sqlerrcode),
						 error->message, 1000, 60000);
	claiming[0] = '\0';
}

/*
 * Claims the next job, in the current transaction, into next_context.  Queues
 * take turns: the look begins where the last one found something.
 */
static void
claim_next(Job *next)
{
	MemoryContext old = MemoryContextSwitchTo(next_context);
	int i = 0;

	MemoryContextReset(next_context);
	next->in_hand = false;
	retry_at = 0;
	while (i < eq_n_handlers && !next->in_hand)
	{
		int start = (first_handler + i) % eq_n_handlers;
		int32 queue_id = eq_handlers[start].queue_id;
		const EqQueue *queue = eq_get_queue_by_id(queue_id);
		char **names = palloc(eq_n_handlers * sizeof(char *));
		int n_names = 0;
		bool any = false;
		EqClaim claim = {0};

		/* All handlers of one queue stand together. */
		for (; i < eq_n_handlers; i++)
		{
			const EqHandler *h = &eq_handlers[(first_handler + i) % eq_n_handlers];

			if (h->queue_id != queue_id)
				break;
			if (queue == NULL || is_left_alone(h))
				continue;
			any = any || strcmp(h->job_name, "*") == 0;
			names[n_names++] = h->job_name;
		}
		/* One with limits that has no room in shared memory must not stop the others. */
		if (queue == NULL || n_names == 0 || queue_fails(queue) ||
			(eq_queue_is_limited(queue) && eq_wake_slot(queue_id) == NULL))
			continue;
		claim.queue = queue;
		claim.limit = 1;
		claim.worker = worker_name;
		claim.names = any ? NULL : names;
		claim.n_names = n_names;
		strlcpy(claiming, queue->name, sizeof(claiming));
		eq_claim(&claim);
		claiming[0] = '\0';
		(void) eq_clear_fault("queue", queue->name);
		if (claim.n_jobs == 1)
		{
			next->in_hand = true;
			next->queue = *queue;
			next->claimed = claim.jobs[0];
			next->handler = eq_find_handler(queue_id, claim.jobs[0].name);
			first_handler = (first_handler + i) % eq_n_handlers;
		}
		else if (claim.retry_at != 0 && (retry_at == 0 || claim.retry_at < retry_at))
			retry_at = claim.retry_at;
	}
	MemoryContextSwitchTo(old);
}

/* The claimed job becomes the one in hand. */
static void
take_over(Job *job, const Job *next)
{
	MemoryContext done = job_context;

	/*
	 * A claim commits without waiting for the disk.  Here the handler may take the
	 * server down, and a lost claim would not be counted.
	 */
	if (next->in_hand)
		XLogFlush(XactLastCommitEnd);
	job_context = next_context;
	next_context = done;
	*job = *next;
	pg_atomic_write_u64(&me->current_job, job->in_hand ? job->claimed.job_id : 0);
}

/* Calls the handler in the present transaction; the role that must commit it. */
static Oid
call_handler(Job *job, Jsonb **result)
{
	const EqHandler *handler = job->handler;

	*result = NULL;
	if (handler->queue_id == EQ_RULE_CALLS)
		return eq_run_rule_call(job->claimed.tenant, job->claimed.payload);
	if (handler->queue_id == EQ_SNAPSHOTS)
	{
		eq_run_snapshot_job(job->claimed.tenant, job->claimed.payload);
		return InvalidOid;
	}
	eq_call_handler(&job->queue, &job->claimed, handler->label, handler->owner,
					handler->function, SECURITY_LOCAL_USERID_CHANGE, result);
	return handler->owner;
}

/*
 * The job's transaction: effects, completion, next claim.  Throws if the
 * handler, or the commit, fails.
 */
static void
run_job(Job *job, Job *next)
{
	MemoryContext context;
	int guc_level;
	Oid worker_role;
	Oid owner;
	int sec_context;
	Jsonb *result;
	int64 left_ms = (job->claimed.leased_until - GetCurrentTimestamp()) / 1000;
	int limit_ms = Max(Min(job->handler->time_limit_ms, left_ms), 1);

	QueryCancelPending = false; /* it was for the job before */
	eq_forget_children();
	StartTransactionCommand();
	context = CurrentMemoryContext;
	GetUserIdAndSecContext(&worker_role, &sec_context);
	PushActiveSnapshot(GetTransactionSnapshot());
	guc_level = NewGUCNestLevel();
	(void) set_config_option("event_queue.tenant", job->claimed.tenant, PGC_USERSET,
							 PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
	enable_timeout_after(STATEMENT_TIMEOUT, limit_ms);
	(void) eq_watch_begin(limit_ms * INT64CONST(1000),
						  Max(left_ms - limit_ms, 1) * INT64CONST(1000));
	eq_enter_job(job->claimed.job_id, job->claimed.metadata);
	owner = call_handler(job, &result);
	/* Deferred triggers and constraints are the handler's, and under its limit. */
	if (OidIsValid(owner))
		eq_fire_deferred();
	eq_leave_job();
	disable_timeout(STATEMENT_TIMEOUT, false);
	eq_watch_end(0);
	MemoryContextSwitchTo(context);

	/* Undoes what the handler has set, also by plain SET. */
	AtEOXact_GUC(false, guc_level);
	SetUserIdAndSecContext(worker_role, sec_context);
	eq_complete(job->claimed.job_id, &job->claimed.token, result);
	claim_next(next);
	PopActiveSnapshot();
	if (OidIsValid(owner))
		SetUserIdAndSecContext(owner, SECURITY_LOCAL_USERID_CHANGE);
	CommitTransactionCommand();
	SetUserIdAndSecContext(worker_role, sec_context);
}

static void
note_time_limit(const EqHandler *handler, const char *message)
{
	/* That would be the rule's (rules/engine.c). */
	if (handler->queue_id == EQ_RULE_CALLS)
		return;
	(void) eq_note_fault("time limit", handler->label,
						 unpack_sql_state(ERRCODE_EQ_NOT_ENDED), message, 0, 0);
}

/* The line in the log of a run that has ended; sqlstate and message: NULL if it is done. */
static void
log_run(const Job *job, const char *outcome, const char *sqlstate,
		const char *message)
{
	EqAttempt attempt = {.queue = job->queue.name,
						 .name = job->claimed.name,
						 .job_id = job->claimed.job_id,
						 .tenant = job->claimed.tenant,
						 .worker = worker_name,
						 .attempt = job->claimed.failures + 1,
						 .outcome = outcome,
						 .us = GetCurrentTimestamp() - job->started_at,
						 .sqlstate = sqlstate,
						 .message = message,
						 .metadata = job->claimed.metadata};

	if (eq_log_attempts == EQ_LOG_ALL ||
		(eq_log_attempts == EQ_LOG_FAILURES && sqlstate != NULL))
		eq_log_attempt(&attempt);
}

/*
 * Records the failure of a job.  That its function is missing, or may not be called,
 * is a fault of the deployment: attempts are kept, and jobs of this handler wait.
 * A handler that raises EQ060 or EQ061 says itself what is to become of the job.
 */
static void
record_failure(Job *job, const ErrorData *error)
{
	bool dead = false;
	bool stopped = error->sqlerrcode == ERRCODE_QUERY_CANCELED &&
				   pg_atomic_read_u64(&me->cancelled_job) == job->claimed.job_id;
	bool cancelled = stopped || error->sqlerrcode == ERRCODE_EQ_JOB_CANCELLED;
	const char *kind;
	const char *refused = eq_refused_call(&kind);
	EqVerdict verdict = eq_read_verdict(error);

	if (error->sqlerrcode == ERRCODE_QUERY_CANCELED && !stopped)
		note_time_limit(job->handler, "its job was cancelled at its time limit");
	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	if (refused)
	{
		TimestampTz at = eq_note_fault(kind, refused,
									   unpack_sql_state(error->sqlerrcode),
									   error->message, 1000, 60000);

		eq_release(job->claimed.job_id, &job->claimed.token,
				   Max(at - GetCurrentTimestamp(), 1));
	}
	else if (verdict.snoozed)
		eq_release(job->claimed.job_id, &job->claimed.token, verdict.delay);
	else
		dead = eq_fail(job->claimed.job_id, &job->claimed.token,
					   stopped ? "job was cancelled" : error->message,
					   unpack_sql_state(stopped ? ERRCODE_EQ_JOB_CANCELLED
												: error->sqlerrcode),
					   error->context, verdict.delay,
					   cancelled || verdict.final) == 0;
	if (!refused && !verdict.snoozed && job->handler->queue_id == EQ_RULE_CALLS)
		eq_count_rule_call_failed(job->claimed.payload, error->message);
	PopActiveSnapshot();
	CommitTransactionCommand();
	log_run(job,
			refused || verdict.snoozed ? "postponed"
			: cancelled				   ? "cancelled"
			: dead					   ? "dead"
									   : "failed",
			unpack_sql_state(error->sqlerrcode), error->message);
}

/* The job goes back uncounted: no handler any more, or this process is to end. */
static void
give_back(Job *job)
{
	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	eq_release(job->claimed.job_id, &job->claimed.token, 0);
	PopActiveSnapshot();
	CommitTransactionCommand();
	job->in_hand = false;
	pg_atomic_write_u64(&me->current_job, 0);
}

/* Runs the job in hand; afterwards the next one is in hand, or none. */
static void
do_job(Job *job)
{
	MemoryContext context = CurrentMemoryContext;
	ErrorData *volatile error = NULL;
	Job next = {0};
	Job done; /* what it points to lives until the next claim */

	job->started_at = GetCurrentTimestamp();
	done = *job;
	pgstat_report_activity(
		STATE_RUNNING,
		psprintf("event_queue job " INT64_FORMAT ": %s of queue %s",
				 job->claimed.job_id, job->claimed.name, job->queue.name));
	eq_begin_work(job->handler->work);
	PG_TRY();
	{
		run_job(job, &next);
		(void) eq_clear_fault("handler", job->handler->label);
		(void) eq_clear_fault("time limit", job->handler->label);
		take_over(job, &next);
	}
	PG_CATCH();
	{
		HOLD_INTERRUPTS();
		eq_leave_job();
		eq_watch_end(0);
		MemoryContextSwitchTo(context);
		error = eq_abort_transaction();
		RESUME_INTERRUPTS();
	}
	PG_END_TRY();

	QueryCancelPending = false; /* it came too late */
	eq_note_condition_error(error && error->sqlerrcode == ERRCODE_QUERY_CANCELED);
	eq_clean_session();
	if (!error)
		log_run(&done, "completed", NULL, NULL);
	else
	{
		if (claiming[0] != '\0')
		{
			/* The error is not the job's: the next one could not be claimed. */
			note_claim_error(error);
			give_back(job);
		}
		else
			record_failure(job, error);
		take_over(job, &next);
	}
	pg_atomic_fetch_add_u64(&me->jobs_done, 1);
}

/* Claims the first job after idling, and commits the claim. */
static void
claim_first(Job *job)
{
	Job next = {0};

	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	claim_next(&next);
	PopActiveSnapshot();
	CommitTransactionCommand();
	take_over(job, &next);
}

/*
 * Ends the leases of a dead executor with this number, which was killed, or
 * took the server down.  They count as stalled.
 */
static void
end_orphaned_leases(void)
{
	Oid type = TEXTOID;
	Datum value;

	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	value = CStringGetTextDatum(worker_name);
	eq_end_leases(
		"WHERE j.leased_by = $1 AND j.leased_until > pg_catalog.clock_timestamp()",
		1, &type, &value);
	PopActiveSnapshot();
	CommitTransactionCommand();
}

/* Is the lease still this process's, and free to change without waiting? */
static bool
holds_lease(const Job *job)
{
	static const char *const query =
		"SELECT FROM event_queue.job WHERE job_id = $1 AND lease_token = $2"
		" FOR UPDATE SKIP LOCKED";
	Oid types[2] = {INT8OID, UUIDOID};
	Datum values[2] = {Int64GetDatum(job->claimed.job_id),
					   UUIDPGetDatum(&job->claimed.token)};
	EqSpi spi;
	bool holds;

	if (!ConditionalLockRelationOid(eq_relation_oid(EQ_JOB), RowExclusiveLock))
		return false;
	eq_spi_begin(&spi, eq_extension_owner(), SECURITY_LOCAL_USERID_CHANGE);
	holds = SPI_execute_with_args(query, 2, types, values, NULL, false, 1) ==
				SPI_OK_SELECT &&
			SPI_processed == 1;
	eq_spi_end(&spi);
	return holds;
}

/*
 * This process ends with a job in hand (a FATAL error).  Terminated since the job did
 * not end, the job has failed; asked to end, it gives the job back and nothing is
 * counted.  Otherwise the job itself ended the process, as it may end the server: the
 * lease stays, and counts as stalled (end_orphaned_leases).  As
 * RemoveTempRelationsCallback does it: a last transaction.
 */
static void
leave_executor(int code, Datum arg)
{
	bool past_limit = eq_was_past_limit();
	bool cancelled = current.in_hand && pg_atomic_read_u64(&me->cancelled_job) ==
											current.claimed.job_id;

	if (past_limit && !cancelled)
	{
		eq_note_condition_lost();
		if (current.in_hand && current.handler)
			note_time_limit(
				current.handler,
				"its job did not end at its time limit and was terminated");
	}
	if (!current.in_hand || (!past_limit && !eq_end_was_asked_for()))
		return;
	AbortOutOfAnyTransaction();
	eq_limit_exit();
	StartTransactionCommand();
	XactReadOnly = false;
	XactIsoLevel = XACT_READ_COMMITTED;
	PushActiveSnapshot(GetTransactionSnapshot());
	if (!holds_lease(&current))
		ereport(LOG, (errmsg("job " INT64_FORMAT " could not be released",
							 current.claimed.job_id)));
	else if (past_limit)
		(void) eq_fail(
			current.claimed.job_id, &current.claimed.token,
			cancelled
				? "job was cancelled, did not end, and was terminated"
				: "it did not end at its time limit, nor when it was cancelled, and was terminated",
			unpack_sql_state(cancelled ? ERRCODE_EQ_JOB_CANCELLED
									   : ERRCODE_EQ_NOT_ENDED),
			NULL, -1, cancelled);
	else
		eq_release(current.claimed.job_id, &current.claimed.token, 0);
	PopActiveSnapshot();
	CommitTransactionCommand();
	if (past_limit)
		log_run(&current, cancelled ? "cancelled" : "failed",
				unpack_sql_state(cancelled ? ERRCODE_EQ_JOB_CANCELLED
										   : ERRCODE_EQ_NOT_ENDED),
				"it did not end and was terminated with its process");
	eq_end_exit_limit();
	current.in_hand = false;
}

/* One step: a job, or a look for one and a sleep. */
static void
run_step(Job *job)
{
	long timeout = stands_in ? STAND_IN_MS : IDLE_MS;

	if (eq_read_handlers())
	{
		first_handler = 0;
		if (job->in_hand)
			job->handler = eq_find_handler(job->queue.queue_id, job->claimed.name);
	}
	if (job->in_hand)
	{
		if (job->handler)
			do_job(job);
		else
			give_back(job);
		return;
	}

	/* Before the look: who commits a job after it sets the latch. */
	pg_atomic_write_u32(&me->idle, 1);
	pg_memory_barrier();
	claim_first(job);
	if (job->in_hand)
	{
		pg_atomic_write_u32(&me->idle, 0);
		return;
	}
	if (retry_at != 0)
		timeout = Min(
			timeout,
			TimestampDifferenceMilliseconds(GetCurrentTimestamp(), retry_at) + 1);
	pgstat_report_stat(true);
	eq_worker_wait(timeout);
}

/*
 * Between two jobs: caches grow with what handlers touch (tables, functions, plans), and
 * nothing ever takes that back but the end of the process.
 */
static bool
keeps_too_much(void)
{
	return eq_executor_memory_kb != 0 &&
		   MemoryContextMemAllocated(TopMemoryContext, true) / 1024 >
			   (Size) eq_executor_memory_kb;
}

void
eq_executor_main(Datum arg)
{
	Oid dboid = DatumGetObjectId(arg);
	int index;
	MemoryContext step_context;
	TimestampTz last_job = GetCurrentTimestamp();
	int n_jobs = 0; /* modulo JOBS_A_LOOK */

	memcpy(&index, MyBgworkerEntry->bgw_extra, sizeof(index));
	me = eq_init_worker(EQ_WORKER_EXECUTOR, dboid, index);
	if (!eq_extension_is_current() || !eq_is_active_here())
		proc_exit(0);
	db = eq_database();
	snprintf(worker_name, sizeof(worker_name), "event_queue executor %d", index);
	job_context = AllocSetContextCreate(TopMemoryContext, "event_queue job",
										ALLOCSET_DEFAULT_SIZES);
	next_context = AllocSetContextCreate(TopMemoryContext, "event_queue next job",
										 ALLOCSET_DEFAULT_SIZES);
	step_context = AllocSetContextCreate(TopMemoryContext, "event_queue step",
										 ALLOCSET_DEFAULT_SIZES);
	eq_watch_me(me);
	end_orphaned_leases();
	before_shmem_exit(leave_executor, (Datum) 0);

	/* Those above the setting stand in (scheduler.c). */
	for (;;)
	{
		volatile bool failed = false;

		eq_worker_reload();
		if (index >= 2 * eq_executors ||
			(!current.in_hand && !eq_extension_is_current()) || !eq_is_active_here())
			break;
		stands_in = index >= eq_executors;
		if (current.in_hand)
		{
			last_job = GetCurrentTimestamp();
			n_jobs++;
		}
		else if (stands_in && TimestampDifferenceExceeds(
								  last_job, GetCurrentTimestamp(), STAND_IN_MS))
			break;

		MemoryContextReset(step_context);
		MemoryContextSwitchTo(step_context);
		CHECK_FOR_INTERRUPTS();
		PG_TRY();
		{
			run_step(&current);
		}
		PG_CATCH();
		{
			/* Not the job's own error, or it could not be recorded. */
			HOLD_INTERRUPTS();
			eq_watch_end(0);
			disable_all_timeouts(false);
			EmitErrorReport();
			if (claiming[0] != '\0')
			{
				ErrorData *error;

				MemoryContextSwitchTo(step_context);
				error = CopyErrorData();
				note_claim_error(error);
			}
			FlushErrorState();
			AbortCurrentTransaction();
			eq_forget_handlers();
			current.in_hand = false; /* its lease runs out */
			pg_atomic_write_u64(&me->current_job, 0);
			failed = true;
			RESUME_INTERRUPTS();
		}
		PG_END_TRY();
		if (failed)
			eq_worker_back_off();
		if (n_jobs == JOBS_A_LOOK)
		{
			if (keeps_too_much())
				break;
			n_jobs = 0;
		}
	}
	if (current.in_hand)
		give_back(&current);
	proc_exit(0);
}
