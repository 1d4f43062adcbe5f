/*
 * executor.c: runs jobs by their handlers, inside the database.
 *
 * Exactly once: the claim is committed first, so that a handler that takes the
 * server down is counted; then the handler's effects, the job's completion and
 * the claim of the next job commit together, one flush for a job.  An error
 * rolls the effects back, and is recorded with the claim of the next job.
 *
 * The handler's transaction runs and commits as the role that registered the
 * handler: deferred triggers fire in the commit, and must not fire as the
 * superuser that the worker is.  What a handler sets (settings, advisory locks,
 * temporary tables) is gone before the next job, which may be another tenant's.
 */
#include "postgres.h"

#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/namespace.h"
#include "catalog/pg_type.h"
#include "commands/async.h"
#include "commands/prepare.h"
#include "commands/sequence.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/lock.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/portal.h"
#include "utils/snapmgr.h"
#include "utils/timeout.h"
#include "utils/timestamp.h"
#include "utils/typcache.h"

#include "compat.h"
#include "event_queue.h"
#include "queue/queue.h"
#include "rules/rules.h"
#include "store/store.h"
#include "table/table.h"
#include "tenant/tenant.h"
#include "wake/wake.h"
#include "worker/worker.h"

#define IDLE_MS 60000

typedef struct Handler
{
	int32 queue_id;
	char *job_name; /* "*": all others of the queue */
	Oid owner;		/* InvalidOid: one of own_queues */
	char *function;
	int time_limit_ms;
} Handler;

/* Queues whose jobs are run by the extension itself. */
static const int32 own_queues[] = {EQ_RULE_CALLS, EQ_SNAPSHOTS};

/* The job in hand; lives in job_context. */
typedef struct Job
{
	bool in_hand;
	EqQueue queue;
	EqClaimedJob claimed;
	const Handler *handler;
} Job;

static EqDatabase *db;
static EqWorker *me;
static char worker_name[64];
static MemoryContext config_context; /* handlers */
static MemoryContext job_context;	 /* the job in hand */
static MemoryContext next_context;	 /* the job after it */
static Handler *handlers;
static int n_handlers;
static int first_handler; /* where the next look for a job begins */
static uint32 config_seen;
static bool config_known = false;
static TimestampTz retry_at; /* a rate limit ends then; 0: none met */

/* Reads the handlers, if the configuration changed. True if it did. */
static bool
read_handlers(void)
{
	uint32 generation = pg_atomic_read_u32(&db->config_generation);
	EqSpi spi;

	if (config_known && generation == config_seen)
		return false;

	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	eq_spi_begin(&spi, eq_extension_owner(), SECURITY_LOCAL_USERID_CHANGE);
	/* '*' sorts behind the names, so that a job meets its own handler first. */
	if (SPI_execute(
			"SELECT queue_id, job_name, owner, function,"
			" (EXTRACT(epoch FROM time_limit) * 1000)::int FROM event_queue.handler"
			" ORDER BY queue_id, job_name = '*', job_name",
			true, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not read table handler");
	MemoryContextReset(config_context);
	n_handlers = SPI_processed + lengthof(own_queues);
	handlers = MemoryContextAllocZero(config_context, n_handlers * sizeof(Handler));
	for (int i = 0; i < SPI_processed; i++)
	{
		HeapTuple row = SPI_tuptable->vals[i];
		TupleDesc desc = SPI_tuptable->tupdesc;
		bool isnull;

		handlers[i].queue_id = DatumGetInt32(SPI_getbinval(row, desc, 1, &isnull));
		handlers[i].job_name = MemoryContextStrdup(config_context,
												   SPI_getvalue(row, desc, 2));
		handlers[i].owner = DatumGetObjectId(SPI_getbinval(row, desc, 3, &isnull));
		handlers[i].function = MemoryContextStrdup(config_context,
												   SPI_getvalue(row, desc, 4));
		handlers[i].time_limit_ms = DatumGetInt32(
			SPI_getbinval(row, desc, 5, &isnull));
	}
	for (int i = 0; i < lengthof(own_queues); i++)
	{
		Handler *own = &handlers[n_handlers - 1 - i];

		own->queue_id = own_queues[i];
		own->job_name = "*";
		own->time_limit_ms = 27000;
	}
	eq_spi_end(&spi);
	PopActiveSnapshot();
	CommitTransactionCommand();
	first_handler = 0;
	config_seen = generation;
	config_known = true;
	return true;
}

/* The handler of a job, or NULL. */
static const Handler *
find_handler(int32 queue_id, const char *job_name)
{
	for (int i = 0; i < n_handlers; i++)
	{
		if (handlers[i].queue_id == queue_id &&
			(strcmp(handlers[i].job_name, job_name) == 0 ||
			 strcmp(handlers[i].job_name, "*") == 0))
			return &handlers[i];
	}
	return NULL;
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
	while (i < n_handlers && !next->in_hand)
	{
		int start = (first_handler + i) % n_handlers;
		int32 queue_id = handlers[start].queue_id;
		const EqQueue *queue = eq_get_queue_by_id(queue_id);
		char **names = palloc(n_handlers * sizeof(char *));
		int n_names = 0;
		bool any = false;
		EqClaim claim = {0};

		/* All handlers of one queue stand together. */
		for (; i < n_handlers; i++)
		{
			const Handler *h = &handlers[(first_handler + i) % n_handlers];

			if (h->queue_id != queue_id)
				break;
			any = any || strcmp(h->job_name, "*") == 0;
			names[n_names++] = h->job_name;
		}
		/* One with limits that has no room in shared memory must not stop the others. */
		if (queue == NULL ||
			(eq_queue_is_limited(queue) && eq_wake_slot(queue_id) == NULL))
			continue;
		claim.queue = queue;
		claim.limit = 1;
		claim.worker = worker_name;
		claim.names = any ? NULL : names;
		claim.n_names = n_names;
		eq_claim(&claim);
		if (claim.n_jobs == 1)
		{
			next->in_hand = true;
			next->queue = *queue;
			next->claimed = claim.jobs[0];
			next->handler = find_handler(queue_id, claim.jobs[0].name);
			first_handler = (first_handler + i) % n_handlers;
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
	const Handler *handler = job->handler;
	Oid type = eq_claimed_job_type_oid();
	Oid owner;
	TupleDesc desc;
	Datum argument;
	const char *schema;

	*result = NULL;
	if (handler->queue_id == EQ_RULE_CALLS)
		return eq_run_rule_call(job->claimed.tenant, job->claimed.payload);
	if (handler->queue_id == EQ_SNAPSHOTS)
	{
		eq_run_snapshot_job(job->claimed.tenant, job->claimed.payload);
		return InvalidOid;
	}

	desc = lookup_rowtype_tupdesc(type, -1);
	argument = eq_claimed_job_datum(&job->queue, &job->claimed, desc);
	ReleaseTupleDesc(desc);
	owner = handler->owner;
	eq_check_owner(owner, "handler", handler->function);
	SetUserIdAndSecContext(owner, SECURITY_LOCAL_USERID_CHANGE);

	schema = eq_function_schema(handler->function);
	(void) set_config_option(
		"search_path", psprintf("pg_catalog, %s, pg_temp", schema), PGC_USERSET,
		PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
	*result = eq_call_function(handler->function, type, argument);
	return owner;
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

	QueryCancelPending = false; /* it was for the job before */
	StartTransactionCommand();
	context = CurrentMemoryContext;
	GetUserIdAndSecContext(&worker_role, &sec_context);
	PushActiveSnapshot(GetTransactionSnapshot());
	guc_level = NewGUCNestLevel();
	(void) set_config_option("event_queue.tenant", job->claimed.tenant, PGC_USERSET,
							 PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
	enable_timeout_after(STATEMENT_TIMEOUT,
						 Max(Min(job->handler->time_limit_ms, left_ms), 1));
	eq_enter_job(job->claimed.job_id, job->claimed.metadata);
	owner = call_handler(job, &result);
	eq_leave_job();
	disable_timeout(STATEMENT_TIMEOUT, false);
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

/*
 * What a handler may have left in the session, by its deferred triggers, too: all
 * that DISCARD ALL covers but cached plans, which show nothing to anyone.
 */
static void
clean_session(void)
{
	StartTransactionCommand();
	PortalHashTableDeleteAll();
	Async_UnlistenAll();
	CommitTransactionCommand();
	ResetAllOptions();
	LockReleaseAll(USER_LOCKMETHOD, true);
	DropAllPreparedStatements();
	ResetSequenceCaches();
	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot()); /* dropping may need one */
	ResetTempTableNamespace();
	PopActiveSnapshot();
	CommitTransactionCommand();
}

/* Records the failure of a job and claims the next one. */
static void
record_failure(Job *job, const ErrorData *error, Job *next)
{
	bool stopped = error->sqlerrcode == ERRCODE_QUERY_CANCELED &&
				   pg_atomic_read_u64(&me->cancelled_job) == job->claimed.job_id;
	bool cancelled = stopped || error->sqlerrcode == ERRCODE_EQ_JOB_CANCELLED;

	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	(void) eq_fail(
		job->claimed.job_id, &job->claimed.token,
		stopped ? "job was cancelled" : error->message,
		unpack_sql_state(stopped ? ERRCODE_EQ_JOB_CANCELLED : error->sqlerrcode),
		error->context, -1, cancelled);
	claim_next(next);
	PopActiveSnapshot();
	CommitTransactionCommand();
}

/* Runs the job in hand; afterwards the next one is in hand, or none. */
static void
do_job(Job *job)
{
	MemoryContext context = CurrentMemoryContext;
	ErrorData *volatile error = NULL;
	Job next = {0};

	pgstat_report_activity(
		STATE_RUNNING,
		psprintf("event_queue job " INT64_FORMAT ": %s of queue %s",
				 job->claimed.job_id, job->claimed.name, job->queue.name));
	PG_TRY();
	{
		run_job(job, &next);
	}
	PG_CATCH();
	{
		HOLD_INTERRUPTS();
		eq_leave_job();
		disable_all_timeouts(false);
		QueryCancelPending = false;
		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		FlushErrorState();
		AbortCurrentTransaction();
		MemoryContextSwitchTo(context);
		RESUME_INTERRUPTS();
	}
	PG_END_TRY();

	QueryCancelPending = false; /* it came too late */
	clean_session();
	if (error)
	{
		ereport(LOG, (errmsg("job " INT64_FORMAT " (%s of queue %s) failed: %s",
							 job->claimed.job_id, job->claimed.name, job->queue.name,
							 error->message)));
		record_failure(job, error, &next);
	}
	pg_atomic_fetch_add_u64(&me->jobs_done, 1);
	take_over(job, &next);
}

/* The handler was unregistered between claim and run. */
static void
give_back(Job *job)
{
	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	eq_release(job->claimed.job_id, &job->claimed.token, 0);
	PopActiveSnapshot();
	CommitTransactionCommand();
	job->in_hand = false;
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
 * Leases of an executor with this number that is no more: it was killed, or
 * took the server down.  They end now, and count as stalled.
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

/* One step: a job, or a look for one and a sleep. */
static void
run_step(Job *job)
{
	long timeout = IDLE_MS;

	if (read_handlers() && job->in_hand)
		job->handler = find_handler(job->queue.queue_id, job->claimed.name);
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

void
eq_executor_main(Datum arg)
{
	Oid dboid = DatumGetObjectId(arg);
	int index;
	Job job = {0};
	MemoryContext step_context;

	memcpy(&index, MyBgworkerEntry->bgw_extra, sizeof(index));
	me = eq_init_worker(EQ_WORKER_EXECUTOR, dboid, index);
	if (!eq_extension_is_here() || !eq_is_active_here())
		proc_exit(0);
	db = eq_database();
	snprintf(worker_name, sizeof(worker_name), "event_queue executor %d", index);
	config_context = AllocSetContextCreate(TopMemoryContext, "event_queue handlers",
										   ALLOCSET_DEFAULT_SIZES);
	job_context = AllocSetContextCreate(TopMemoryContext, "event_queue job",
										ALLOCSET_DEFAULT_SIZES);
	next_context = AllocSetContextCreate(TopMemoryContext, "event_queue next job",
										 ALLOCSET_DEFAULT_SIZES);
	step_context = AllocSetContextCreate(TopMemoryContext, "event_queue step",
										 ALLOCSET_DEFAULT_SIZES);
	end_orphaned_leases();

	while (index < eq_executors && (job.in_hand || eq_extension_is_here()) &&
		   eq_is_active_here())
	{
		volatile bool failed = false;

		MemoryContextReset(step_context);
		MemoryContextSwitchTo(step_context);
		CHECK_FOR_INTERRUPTS();
		PG_TRY();
		{
			run_step(&job);
		}
		PG_CATCH();
		{
			/* Not the job's own error, or it could not be recorded. */
			HOLD_INTERRUPTS();
			disable_all_timeouts(false);
			EmitErrorReport();
			AbortCurrentTransaction();
			FlushErrorState();
			config_known = false;
			job.in_hand = false; /* its lease runs out */
			failed = true;
			RESUME_INTERRUPTS();
		}
		PG_END_TRY();
		if (failed)
			eq_worker_back_off();
	}
	proc_exit(0);
}
