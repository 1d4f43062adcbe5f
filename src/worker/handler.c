/*
 * handler.c: calls a job's handler, for executors; and run_jobs, which runs jobs as
 * executors do, in the caller's own session and transaction.
 *
 * run_jobs gives nobody more rights.  Its caller must be able to become the owner of each
 * handler of the queue: a session is not as clean as an executor's, and a caller that
 * prepares it (temporary tables, settings) can make a handler do what its owner may do.
 * Conversely, a handler of another role runs as a security-restricted operation: nothing that
 * it leaves in the session (a deferred trigger, a held cursor, a temporary table) runs with
 * the caller's rights later.
 */
#include "postgres.h"

#include <ctype.h>

#include "access/xact.h"
#include "commands/trigger.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/resowner.h"
#include "utils/timestamp.h"
#include "utils/typcache.h"

#include "common/audit.h"
#include "common/function.h"
#include "common/log_line.h"
#include "compat.h"
#include "event_queue.h"
#include "queue/lease.h"
#include "queue/queue.h"
#include "store/store.h"
#include "table/table.h"
#include "tenant/tenant.h"
#include "worker/worker.h"

PG_FUNCTION_INFO_V1(eq_run_jobs);
PG_FUNCTION_INFO_V1(eq_give_up_job);
PG_FUNCTION_INFO_V1(eq_retry_job_after);
PG_FUNCTION_INFO_V1(eq_postpone_job);
PG_FUNCTION_INFO_V1(eq_postpone_queue);

#define MAX_RUNS 100000
/*
 * One by one, as executors claim; but each claim walks over all jobs that this
 * transaction has finished, and for whom runs many that adds up.
 */
#define BY_ONE 100
#define BATCH  100

#define POSTPONE_US		  USECS_PER_SEC /* the least, and where nothing is said */
#define MAX_DELAY_SECONDS (100 * 365.25 * 86400)
#define RUN_COLUMNS		  8
#define RUN_AS_OTHERS	  (SECURITY_LOCAL_USERID_CHANGE | SECURITY_RESTRICTED_OPERATION)

/* The results of an array's handler: none, or one for each job. */
static void
check_results(const char *function, const Jsonb *results, int n)
{
	if (results == NULL)
		return;
	if (!JB_ROOT_IS_ARRAY(results) || JB_ROOT_IS_SCALAR(results) ||
		JB_ROOT_COUNT(results) != n)
		ereport(
			ERROR,
			(errcode(ERRCODE_EQ_WRONG_SIGNATURE),
			 errmsg("handler %s did not return a result for each job", function),
			 errdetail("It was called for %d jobs.", n),
			 errhint("Return a jsonb array in the order of the jobs, or NULL.")));
}

/* Sets the search_path for a call of a handler, and for what the handler defers. */
void
eq_pin_search_path(const char *function)
{
	(void) set_config_option(
		"search_path",
		psprintf("pg_catalog, %s, pg_temp", eq_function_schema(function)),
		PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
}

/*
 * Calls a handler in the present transaction, as its owner, who is the present role
 * afterwards, too: what is deferred until the commit is to run with no other rights.
 * Settings are made and undone by the caller.  as_array: it takes an array of jobs.
 */
void
eq_call_handler(const EqQueue *queue, const EqClaimedJob *jobs, int n, bool as_array,
				const char *label, Oid owner, const char *function, int32 version,
				int sec_flags, Jsonb **result)
{
	Oid type = eq_claimed_job_type_oid();
	TupleDesc desc = lookup_rowtype_tupdesc(type, -1);
	Datum argument;

	if (as_array)
	{
		Datum *elements = palloc(n * sizeof(Datum));

		for (int i = 0; i < n; i++)
			elements[i] = eq_claimed_job_datum(queue, &jobs[i], desc);
		argument = PointerGetDatum(
			construct_array(elements, n, type, -1, false, TYPALIGN_DOUBLE));
		type = get_array_type(type);
	}
	else
		argument = eq_claimed_job_datum(queue, jobs, desc);
	ReleaseTupleDesc(desc);
	eq_note_handler(function,
					eq_require_callable("handler", label, owner, function, type),
					version);
	SetUserIdAndSecContext(owner, sec_flags);
	eq_audit_role = owner;
	*result = eq_call_function(function, type, argument);
	if (as_array)
		check_results(function, *result, n);
}

/* The result of one of the jobs of a call: of an array's handler the element in its place. */
Jsonb *
eq_result_of(Jsonb *results, int i, bool as_array)
{
	JsonbValue *value;

	if (results == NULL || !as_array)
		return results;
	value = getIthJsonbValueFromContainer(&results->root, i);
	return value->type == jbvNull ? NULL : JsonbValueToJsonb(value);
}

/* What is deferred until the commit is done now, as the present role: SET CONSTRAINTS ALL IMMEDIATE. */
void
eq_fire_deferred(void)
{
	static ConstraintsSetStmt all_immediate = {.type = T_ConstraintsSetStmt};

	AfterTriggerSetState(&all_immediate);
}

/* DETAIL of EQ060, EQ061 and EQ064: seconds, as in Retry-After.  Throws nothing. */
static bool
read_seconds(const char *text, int64 *us)
{
	char *end;
	double seconds = strtod(text, &end);

	while (isspace((unsigned char) *end))
		end++;
	if (end == text || *end != '\0' ||
		!(seconds >= 0 && seconds <= MAX_DELAY_SECONDS))
		return false;
	*us = (int64) (seconds * USECS_PER_SEC);
	return true;
}

/*
 * Reads what a handler's SQLSTATE asks for.  If DETAIL is no number of seconds, it asks for
 * nothing: the job fails as by any other error, with this SQLSTATE.
 */
EqVerdict
eq_read_verdict(const ErrorData *error)
{
	EqVerdict verdict = {.delay = -1, .detail = error->detail};
	bool has_detail = error->detail != NULL && error->detail[0] != '\0';

	if (error->sqlerrcode == ERRCODE_EQ_JOB_CANCELLED)
		verdict.final = true;
	else if (error->sqlerrcode == ERRCODE_EQ_HANDLER_FAILED)
	{
		if (!has_detail)
			verdict.final = true;
		else if (read_seconds(error->detail, &verdict.delay))
			verdict.detail = NULL;
	}
	else if (error->sqlerrcode == ERRCODE_EQ_HANDLER_SNOOZED ||
			 error->sqlerrcode == ERRCODE_EQ_QUEUE_SNOOZED)
	{
		int64 us = POSTPONE_US;

		if (!has_detail || read_seconds(error->detail, &us))
		{
			/* At least a second, or the job could be postponed in an endless loop. */
			verdict.postponed = true;
			verdict.postpones_queue = error->sqlerrcode == ERRCODE_EQ_QUEUE_SNOOZED;
			verdict.delay = Max(us, POSTPONE_US);
		}
	}
	return verdict;
}

/*
 * Raises the error of give_up_job and its kin.  otherwise: the message if no reason is given;
 * delay_argno: -1 if the function has no delay.
 */
static void
end_attempt(FunctionCallInfo fcinfo, int sqlstate, int delay_argno, int reason_argno,
			const char *otherwise)
{
	char *reason = PG_ARGISNULL(reason_argno)
					   ? NULL
					   : text_to_cstring(PG_GETARG_TEXT_PP(reason_argno));
	int64 us = 0;

	if (delay_argno >= 0)
	{
		if (PG_ARGISNULL(delay_argno))
			ereport(ERROR, (errcode(ERRCODE_EQ_INVALID_DELAY),
							errmsg("delay must not be null")));
		us = eq_check_delay(PG_GETARG_INTERVAL_P(delay_argno), "delay");
	}
	ereport(ERROR, (errcode(sqlstate),
					errmsg("%s", reason && reason[0] != '\0' ? reason : otherwise),
					delay_argno >= 0
						? errdetail_internal("%.15g", us / (double) USECS_PER_SEC)
						: 0));
}

Datum
eq_give_up_job(PG_FUNCTION_ARGS)
{
	end_attempt(fcinfo, ERRCODE_EQ_HANDLER_FAILED, -1, 0, "given up");
	PG_RETURN_BOOL(false);
}

Datum
eq_retry_job_after(PG_FUNCTION_ARGS)
{
	end_attempt(fcinfo, ERRCODE_EQ_HANDLER_FAILED, 0, 1, "failed for now");
	PG_RETURN_BOOL(false);
}

Datum
eq_postpone_job(PG_FUNCTION_ARGS)
{
	end_attempt(fcinfo, ERRCODE_EQ_HANDLER_SNOOZED, 0, 1, "not now");
	PG_RETURN_BOOL(false);
}

Datum
eq_postpone_queue(PG_FUNCTION_ARGS)
{
	end_attempt(fcinfo, ERRCODE_EQ_QUEUE_SNOOZED, 0, 1,
				"not now, nor any other job of the queue");
	PG_RETURN_BOOL(false);
}

typedef struct RunHandler
{
	char *job_name;
	Oid owner;
	char *function;
	int32 version;
	bool as_array;
} RunHandler;

typedef struct Run
{
	const EqQueue *queue;
	RunHandler *handlers; /* '*' is the last */
	int n_handlers;
	char **names; /* of jobs; NULL: any */
} Run;

/* The handlers of the queue, all of which the caller may run. */
static void
read_run_handlers(Run *run)
{
	MemoryContext context = CurrentMemoryContext;
	Oid type = INT4OID;
	Datum value = Int32GetDatum(run->queue->queue_id);
	EqSpi spi;

	eq_spi_begin(&spi, eq_extension_owner(), SECURITY_LOCAL_USERID_CHANGE);
	if (SPI_execute_with_args(
			"SELECT job_name, owner, function, batch_size IS NOT NULL, version FROM event_queue.handler"
			" WHERE queue_id = $1 ORDER BY job_name = '*', job_name",
			1, &type, &value, NULL, true, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not read table handler");
	run->n_handlers = SPI_processed;
	run->handlers = MemoryContextAllocZero(context, Max(run->n_handlers, 1) *
														sizeof(RunHandler));
	for (int i = 0; i < run->n_handlers; i++)
	{
		HeapTuple row = SPI_tuptable->vals[i];
		TupleDesc desc = SPI_tuptable->tupdesc;
		RunHandler *h = &run->handlers[i];
		bool isnull;

		h->job_name = MemoryContextStrdup(context, SPI_getvalue(row, desc, 1));
		h->owner = DatumGetObjectId(SPI_getbinval(row, desc, 2, &isnull));
		h->function = MemoryContextStrdup(context, SPI_getvalue(row, desc, 3));
		h->as_array = DatumGetBool(SPI_getbinval(row, desc, 4, &isnull));
		h->version = DatumGetInt32(SPI_getbinval(row, desc, 5, &isnull));
	}
	eq_spi_end(&spi);

	if (run->n_handlers == 0)
		ereport(ERROR, (errcode(ERRCODE_EQ_UNKNOWN_OBJECT),
						errmsg("queue \"%s\" has no handler", run->queue->name),
						errhint("Create one with event_queue.create_handler.")));
	run->names = palloc(run->n_handlers * sizeof(char *));
	for (int i = 0; i < run->n_handlers; i++)
	{
		RunHandler *h = &run->handlers[i];

		if (!eq_can_become(GetUserId(), h->owner))
			ereport(
				ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied to run jobs of queue \"%s\"",
						run->queue->name),
				 errdetail(
					 "The handler for job \"%s\" runs as role \"%s\", and role \"%s\" may not become that.",
					 h->job_name, GetUserNameFromId(h->owner, true),
					 GetUserNameFromId(GetUserId(), true))));
		run->names[i] = h->job_name;
	}
	if (strcmp(run->handlers[run->n_handlers - 1].job_name, "*") == 0)
		run->names = NULL;
}

static const RunHandler *
find_run_handler(const Run *run, const char *job_name)
{
	for (int i = 0; i < run->n_handlers; i++)
	{
		if (strcmp(run->handlers[i].job_name, job_name) == 0)
			return &run->handlers[i];
	}
	return &run->handlers[run->n_handlers - 1];
}

/*
 * The handler's effects and the job's completion, in a subtransaction; the error if it
 * failed and nothing of it is left.
 */
static ErrorData *
run_one(const Run *run, const EqClaimedJob *job, Jsonb **result, bool *suspended)
{
	const RunHandler *const volatile handler = find_run_handler(run, job->name);
	MemoryContext context = CurrentMemoryContext;
	ResourceOwner resources = CurrentResourceOwner;
	ErrorData *volatile error = NULL;
	Oid caller;
	int sec_context;
	int sec_flags;

	GetUserIdAndSecContext(&caller, &sec_context);
	sec_flags = sec_context |
				(handler->owner == caller ? SECURITY_LOCAL_USERID_CHANGE
										  : RUN_AS_OTHERS);
	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(context);
	PG_TRY();
	{
		int guc_level = NewGUCNestLevel();

		(void) set_config_option("event_queue.tenant", job->tenant, PGC_USERSET,
								 PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
		eq_enter_job(job->job_id, job->metadata);
		eq_pin_search_path(handler->function);
		eq_call_handler(run->queue, job, 1, handler->as_array,
						psprintf("%s/%s", run->queue->name, handler->job_name),
						handler->owner, handler->function, handler->version,
						sec_flags, result);
		eq_fire_deferred();
		eq_leave_job();
		AtEOXact_GUC(false, guc_level);
		SetUserIdAndSecContext(caller, sec_context);
		*result = eq_result_of(*result, 0, handler->as_array);
		*suspended = !eq_complete_unless_suspended(job->job_id, &job->token,
												   *result);
		ReleaseCurrentSubTransaction();
		MemoryContextSwitchTo(context);
		CurrentResourceOwner = resources;
	}
	PG_CATCH();
	{
		eq_leave_job();
		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction(); /* and the role, and the settings */
		MemoryContextSwitchTo(context);
		CurrentResourceOwner = resources;
		/* The cancellation was meant for the caller's statement, not for the job. */
		if (error->sqlerrcode == ERRCODE_QUERY_CANCELED)
			ReThrowError(error);
	}
	PG_END_TRY();
	return error;
}

/* Records a failed run, as an executor does; what became of the job. */
static const char *
record_run(const EqQueue *queue, const EqClaimedJob *job, const ErrorData *error,
		   TimestampTz *next)
{
	const char *kind;
	EqLeased leased;
	EqVerdict verdict = eq_read_verdict(error);

	if (eq_refused_call(&kind) != NULL)
	{
		eq_release(job->job_id, &job->token, POSTPONE_US);
		*next = GetCurrentTimestamp() + POSTPONE_US;
		return "postponed";
	}
	if (!eq_try_leased(&leased, job->job_id, &job->token, false))
	{
		eq_close_jobs(&leased);
		return "lost"; /* another job's handler has deleted it */
	}
	if (verdict.postponed)
	{
		eq_close_jobs(&leased);
		eq_release(job->job_id, &job->token, verdict.delay);
		/* As postpone_queue with a lease: the queue is for all tenants. */
		if (verdict.postpones_queue && eq_confined_tenant() == NULL)
			eq_hold_queue(queue, verdict.delay);
		*next = GetCurrentTimestamp() + verdict.delay;
		return "postponed";
	}
	*next = eq_fail_leased(&leased, job->job_id, error->message, verdict.detail,
						   unpack_sql_state(error->sqlerrcode), error->context,
						   verdict.delay, verdict.final);
	eq_close_jobs(&leased);
	return *next != 0 ? "failed" : "dead";
}

static void
put_run(ReturnSetInfo *rsinfo, const EqQueue *queue, const EqClaimedJob *job,
		TimestampTz start, const ErrorData *error, Jsonb *result, bool suspended)
{
	TimestampTz next = 0;
	const char *outcome = error		  ? record_run(queue, job, error, &next)
						  : suspended ? "suspended"
									  : "completed";
	Datum values[RUN_COLUMNS] = {0};
	bool nulls[RUN_COLUMNS] = {false};
	EqAttempt attempt = {.queue = queue->name,
						 .name = job->name,
						 .job_id = job->job_id,
						 .tenant = job->tenant,
						 .worker = EQ_RUN_JOBS_WORKER,
						 .attempt = job->failures + 1,
						 .outcome = outcome,
						 .us = GetCurrentTimestamp() - start,
						 .sqlstate = error ? unpack_sql_state(error->sqlerrcode)
										   : NULL,
						 .message = error ? error->message : NULL,
						 .metadata = job->metadata};

	if (eq_log_attempts == EQ_LOG_ALL ||
		(eq_log_attempts == EQ_LOG_FAILURES && error))
		eq_log_attempt(&attempt);

	values[0] = Int64GetDatum(job->job_id);
	values[1] = CStringGetTextDatum(job->name);
	values[2] = Int32GetDatum(job->failures + 1);
	values[3] = CStringGetTextDatum(outcome);
	values[4] = JsonbPGetDatum(result);
	nulls[4] = error != NULL || result == NULL || suspended;
	nulls[5] = nulls[6] = error == NULL;
	if (error)
	{
		values[5] = CStringGetTextDatum(error->message);
		values[6] = CStringGetTextDatum(unpack_sql_state(error->sqlerrcode));
	}
	values[7] = TimestampTzGetDatum(next);
	nulls[7] = next == 0;
	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
}

Datum
eq_run_jobs(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	int limit = PG_ARGISNULL(1) ? 0 : PG_GETARG_INT32(1);
	int n_runs = 0;
	MemoryContext batch_context;
	MemoryContext job_context;
	MemoryContext old;
	Run run = {0};
	Oid caller;
	int sec_context;

	run.queue = eq_get_queue(
		PG_ARGISNULL(0) ? NULL : text_to_cstring(PG_GETARG_TEXT_PP(0)));
	if (limit < 1 || limit > MAX_RUNS)
		ereport(ERROR, (errcode(ERRCODE_EQ_INVALID_ARGUMENT),
						errmsg("max_jobs must be between 1 and %d", MAX_RUNS)));
	if (eq_is_in_job())
		ereport(ERROR,
				(errcode(ERRCODE_EQ_NOT_SUPPORTED_HERE),
				 errmsg("a handler cannot run jobs"), errhint("Enqueue them.")));
	InitMaterializedSRF(fcinfo, 0);
	read_run_handlers(&run);

	/*
	 * The caller's own triggers fire now: not as a handler's owner, nor as a job's failure.
	 * One that defers itself again is refused, as it would fire after the first job.
	 */
	GetUserIdAndSecContext(&caller, &sec_context);
	SetUserIdAndSecContext(caller, sec_context | RUN_AS_OTHERS);
	eq_fire_deferred();
	SetUserIdAndSecContext(caller, sec_context);

	batch_context = AllocSetContextCreate(CurrentMemoryContext, "event_queue batch",
										  ALLOCSET_DEFAULT_SIZES);
	job_context = AllocSetContextCreate(CurrentMemoryContext, "event_queue run",
										ALLOCSET_DEFAULT_SIZES);
	old = MemoryContextSwitchTo(batch_context);
	for (;;)
	{
		EqClaim claim = {.queue = run.queue, .worker = EQ_RUN_JOBS_WORKER};

		MemoryContextReset(batch_context);
		claim.limit = Min(limit - n_runs, n_runs < BY_ONE ? 1 : BATCH);
		if (claim.limit == 0)
			break;
		claim.names = run.names;
		claim.n_names = run.names ? run.n_handlers : 0;
		claim.tenant = eq_confined_tenant();
		eq_claim(&claim);
		if (claim.n_jobs == 0)
			break;
		n_runs += claim.n_jobs;
		for (int i = 0; i < claim.n_jobs; i++)
		{
			Jsonb *result = NULL;
			ErrorData *error;
			bool suspended = false;
			TimestampTz start = GetCurrentTimestamp();

			CHECK_FOR_INTERRUPTS();
			MemoryContextReset(job_context);
			MemoryContextSwitchTo(job_context);
			eq_forget_handler();
			error = run_one(&run, &claim.jobs[i], &result, &suspended);
			put_run(rsinfo, run.queue, &claim.jobs[i], start, error, result,
					suspended);
			eq_forget_handler();
			CommandCounterIncrement();
			MemoryContextSwitchTo(batch_context);
		}
	}
	MemoryContextSwitchTo(old);
	return (Datum) 0;
}
