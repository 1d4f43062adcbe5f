/*
 * run.c: calls a handler for an executor, and runs a job in a transaction of its own.
 *
 * The handler's transaction runs and commits as the role that created the handler: deferred
 * triggers fire at commit, and must not fire as the superuser that the worker is.  What a
 * handler sets (settings, advisory locks, temporary tables) is reset before the next job,
 * which may be another tenant's.
 */
#include "postgres.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "storage/proc.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timeout.h"
#include "utils/timestamp.h"

#include "common/function.h"
#include "common/log_line.h"
#include "common/try.h"
#include "event_queue.h"
#include "queue/queue.h"
#include "rules/rules.h"
#include "store/store.h"
#include "worker/executor.h"

#define MAX_TRIES 10

/* How long the handler of these jobs may take, at most as long as they are leased. */
static int
run_limit_ms(const EqHand *hand, int first, int n)
{
	int64 limit_ms = hand->handlers[first]->time_limit_ms;
	TimestampTz now = GetCurrentTimestamp();

	for (int i = first; i < first + n; i++)
		limit_ms = Min(limit_ms, (hand->jobs[i].leased_until - now) / 1000);
	return (int) Max(limit_ms, 1);
}

/*
 * In the transaction of the call: from here on it is the handler's time.  It is cancelled
 * after its timeout, and terminated some time after the limit of run_limit_ms.
 */
void
eq_begin_call(EqCall *call)
{
	EqHand *hand = call->hand;
	const EqClaimedJob *job = &hand->jobs[call->first];
	EqHandler *handler = hand->handlers[call->first];
	int limit_ms = run_limit_ms(hand, call->first, call->n);
	int64 left_ms;

	hand->running = call->first;
	hand->n_running = call->n;
	call->started_at = GetCurrentTimestamp();
	left_ms = (job->leased_until - call->started_at) / 1000;
	QueryCancelPending = false; /* it was for the job before */
	eq_forget_children();
	eq_forget_handler();
	eq_begin_work(handler->work);
	pgstat_report_activity(
		STATE_RUNNING,
		call->n == 1
			? psprintf("event_queue job " INT64_FORMAT ": %s of queue %s",
					   job->job_id, job->name, hand->queue.name)
			: psprintf("event_queue jobs " INT64_FORMAT
					   " and %d more: %s of queue %s",
					   job->job_id, call->n - 1, job->name, hand->queue.name));
	pg_atomic_write_u64(&eq_executor->current_job, job->job_id);
	eq_note_running(job, call->n);

	GetUserIdAndSecContext(&call->worker_role, &call->sec_context);
	call->owner = InvalidOid;
	call->result = NULL;
	PushActiveSnapshot(GetTransactionSnapshot());
	call->guc_level = NewGUCNestLevel();
	(void) set_config_option("event_queue.tenant", job->tenant, PGC_USERSET,
							 PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
	/* Here, as a setting of the call's subtransaction would end before what it defers. */
	if (handler->function)
		eq_pin_search_path(handler->function);
	enable_timeout_after(STATEMENT_TIMEOUT, call->timeout_ms != 0
												? Min(call->timeout_ms, limit_ms)
												: limit_ms);
	(void) eq_watch_begin(limit_ms * INT64CONST(1000),
						  Max(left_ms - limit_ms, 1) * INT64CONST(1000));
	if (call->n == 1)
		eq_enter_job(job->job_id, job->metadata);
	else
		eq_enter_jobs(job->metadata);
}

/* The handler itself, as its owner, who is the present role afterwards, too. */
void
eq_make_call(EqCall *call)
{
	const EqHand *hand = call->hand;
	const EqHandler *handler = hand->handlers[call->first];
	const EqClaimedJob *jobs = &hand->jobs[call->first];

	if (handler->queue_id == EQ_RULE_CALLS)
		call->owner = eq_run_rule_call(jobs->tenant, jobs->payload);
	else if (handler->queue_id == EQ_SNAPSHOTS)
		eq_run_snapshot_job(jobs->tenant, jobs->payload);
	else
	{
		eq_call_handler(&hand->queue, jobs, call->n, handler->batch > 0,
						handler->label, handler->owner, handler->function,
						handler->version, SECURITY_LOCAL_USERID_CHANGE,
						&call->result);
		call->owner = handler->owner;
	}
}

/*
 * After it, and what was deferred in it: undoes what the handler has set, also by plain
 * SET.  (If the transaction is rolled back, eq_abandon_call is enough.)
 */
void
eq_end_call(EqCall *call)
{
	EqHandler *handler = call->hand->handlers[call->first];
	int64 us = Max(GetCurrentTimestamp() - call->started_at, 1);

	eq_leave_job();
	disable_timeout(STATEMENT_TIMEOUT, false);
	QueryCancelPending = false;
	eq_watch_end(0);
	AtEOXact_GUC(false, call->guc_level);
	SetUserIdAndSecContext(call->worker_role, call->sec_context);
	PopActiveSnapshot();
	handler->mean_us = handler->mean_us == 0 ? us : (3 * handler->mean_us + us) / 4;
}

void
eq_abandon_call(void)
{
	eq_leave_job();
	eq_watch_end(0);
}

/* Completes the jobs of a call, but those that it has suspended. */
static void
complete_jobs(EqCall *call)
{
	bool as_array = call->hand->handlers[call->first]->batch > 0;

	PushActiveSnapshot(GetTransactionSnapshot());
	for (int i = 0; i < call->n; i++)
	{
		const EqClaimedJob *job = &call->hand->jobs[call->first + i];

		if (!eq_complete_unless_suspended(job->job_id, &job->token,
										  eq_result_of(call->result, i, as_array)))
			call->n_suspended++;
	}
	PopActiveSnapshot();
}

/*
 * Completes the jobs of a call.  A session may hold a job's row for as long as its
 * transaction is open, as by cancel_job or by a job that depends on it; executors are
 * for all tenants, so they don't wait for long.  Then the jobs' effects are undone,
 * and they run again when their leases have run out.
 */
void
eq_complete_call(EqCall *call)
{
	int lock_timeout = LockTimeout;

	call->settling = true;
	PG_TRY();
	{
		LockTimeout = call->timeout_ms != 0 ? call->timeout_ms : EQ_SETTLE_WAIT_MS;
		complete_jobs(call);
	}
	PG_CATCH();
	{
		LockTimeout = lock_timeout;
		PG_RE_THROW();
	}
	PG_END_TRY();
	LockTimeout = lock_timeout;
	call->settling = false; /* what fails in the commit is the handler's */
	eq_forget_handler();
}

/* Has someone cancelled one of the jobs of this call while it ran? */
bool
eq_was_stopped(const EqHand *hand, int first, int n, const ErrorData *error)
{
	int64 job_id = pg_atomic_read_u64(&eq_executor->cancelled_job);

	if (error->sqlerrcode != ERRCODE_QUERY_CANCELED)
		return false;
	for (int i = first; i < first + n; i++)
	{
		if (hand->jobs[i].job_id == job_id)
			return true;
	}
	return false;
}

void
eq_note_time_limit(const EqHandler *handler, const char *message)
{
	/* Faults of rules are noted by their conditions (rules/condition.c). */
	if (handler->queue_id == EQ_RULE_CALLS)
		return;
	(void) eq_note_fault("time limit", handler->label,
						 unpack_sql_state(ERRCODE_EQ_NOT_ENDED), message, 0, 0);
}

static bool
settle_failure(EqHand *hand, int i, const ErrorData *error, EqRunEnd *end)
{
	const EqClaimedJob *job = &hand->jobs[i];
	const EqHandler *handler = hand->handlers[i];
	bool dead = false;
	bool stopped = eq_was_stopped(hand, i, 1, error);
	bool cancelled = stopped || error->sqlerrcode == ERRCODE_EQ_JOB_CANCELLED;
	const char *kind;
	const char *refused = eq_refused_call(&kind);
	EqVerdict verdict = eq_read_verdict(error);

	if (error->sqlerrcode == ERRCODE_QUERY_CANCELED && !stopped)
		eq_note_time_limit(handler, "its job was cancelled at its time limit");
	PushActiveSnapshot(GetTransactionSnapshot());
	if (refused)
	{
		TimestampTz at = eq_note_fault(kind, refused,
									   unpack_sql_state(error->sqlerrcode),
									   error->message, 1000, 60000);

		eq_release(job->job_id, &job->token, Max(at - GetCurrentTimestamp(), 1));
	}
	else if (verdict.postponed)
	{
		eq_release(job->job_id, &job->token, verdict.delay);
		if (verdict.postpones_queue)
			eq_hold_queue(&hand->queue, verdict.delay);
	}
	else
		dead = eq_fail(job->job_id, &job->token,
					   stopped ? "job was cancelled" : error->message,
					   stopped ? NULL : verdict.detail,
					   unpack_sql_state(stopped ? ERRCODE_EQ_JOB_CANCELLED
												: error->sqlerrcode),
					   error->context, verdict.delay,
					   cancelled || verdict.final) == 0;
	if (!refused && !verdict.postponed && handler->queue_id == EQ_RULE_CALLS)
		eq_count_rule_call_failed(job->payload, error->message);
	PopActiveSnapshot();
	end->job = job;
	end->outcome = refused || verdict.postponed ? "postponed"
				   : cancelled					? "cancelled"
				   : dead						? "dead"
												: "failed";
	end->sqlstate = pstrdup(unpack_sql_state(error->sqlerrcode));
	end->message = error->message;
	end->ended_at = GetCurrentTimestamp();
	return refused == NULL;
}

/*
 * Records the failure of a job, in the present transaction.  That its function is
 * missing, or may not be called, is a fault of the deployment: attempts are kept, and jobs
 * of this handler wait; then the result is false.  A handler that raises EQ060, EQ061 or
 * EQ064 says itself what is to become of the job.  Waits as eq_complete_call does.
 */
bool
eq_settle_failure(EqHand *hand, int i, const ErrorData *error, EqRunEnd *end)
{
	int lock_timeout = LockTimeout;
	volatile bool is_failure = false;

	PG_TRY();
	{
		LockTimeout = EQ_SETTLE_WAIT_MS;
		is_failure = settle_failure(hand, i, error, end);
	}
	PG_CATCH();
	{
		LockTimeout = lock_timeout;
		PG_RE_THROW();
	}
	PG_END_TRY();
	LockTimeout = lock_timeout;
	eq_forget_handler();
	return is_failure;
}

/* Settles in a subtransaction; tries again if a late signal, meant for the call, cancels it. */
static ErrorData *
try_settling(void (*settle)(void *), void *argument)
{
	ErrorData *error = NULL;

	for (int i = 0; i < MAX_TRIES; i++)
	{
		QueryCancelPending = false;
		error = eq_try(settle, argument);
		if (error == NULL || error->sqlerrcode != ERRCODE_QUERY_CANCELED)
			break;
	}
	return error;
}

/*
 * Settles a job that has not run, in a subtransaction; false if its lease is lost, or
 * its row was held for so long.
 */
bool
eq_try_to_settle(void (*settle)(void *), EqClaimedJob *job, int wait_ms)
{
	int lock_timeout = LockTimeout;
	ErrorData *error;

	LockTimeout = wait_ms;
	error = try_settling(settle, job);
	LockTimeout = lock_timeout;
	if (error && error->sqlerrcode != ERRCODE_EQ_LEASE_LOST &&
		error->sqlerrcode != ERRCODE_LOCK_NOT_AVAILABLE)
		ReThrowError(error);
	return error == NULL;
}

static void
fail_cancelled(void *argument)
{
	const EqClaimedJob *job = argument;

	PushActiveSnapshot(GetTransactionSnapshot());
	(void) eq_fail(job->job_id, &job->token, "job was cancelled", NULL,
				   unpack_sql_state(ERRCODE_EQ_JOB_CANCELLED), NULL, -1, true);
	PopActiveSnapshot();
}

/* For eq_try_to_settle: the job goes back uncounted. */
void
eq_release_claimed(void *argument)
{
	const EqClaimedJob *job = argument;

	PushActiveSnapshot(GetTransactionSnapshot());
	eq_release(job->job_id, &job->token, 0);
	PopActiveSnapshot();
}

/*
 * Jobs that wait in hand for those before them may be cancelled or deleted meanwhile, by
 * these or by others, or their queue be held: then they don't run.
 */
bool
eq_may_run_still(EqHand *hand, int i, EqRunEnd *end)
{
	EqClaimedJob *job = &hand->jobs[i];
	EqHeldLease state = EQ_HELD_CANCELLED;

	if (!job->cancelled)
	{
		PushActiveSnapshot(GetTransactionSnapshot());
		state = eq_look_at_lease(job->job_id, &job->token);
		PopActiveSnapshot();
	}
	*end = (EqRunEnd){.job = job};
	if (state == EQ_HELD && eq_queue_held_until(&hand->queue) != 0)
	{
		(void) eq_try_to_settle(eq_release_claimed, job, EQ_SETTLE_WAIT_MS);
		return false;
	}
	if (state == EQ_HELD)
		return true;
	if (state == EQ_HELD_CANCELLED &&
		eq_try_to_settle(fail_cancelled, job, EQ_SETTLE_WAIT_MS))
	{
		end->outcome = "cancelled";
		end->sqlstate = pstrdup(unpack_sql_state(ERRCODE_EQ_JOB_CANCELLED));
		end->message = "job was cancelled";
		end->started_at = end->ended_at = GetCurrentTimestamp();
	}
	return false;
}

/*
 * Clears the handler's faults: it can be called, ends in time, and its end was
 * recorded.
 */
void
eq_clear_handler_faults(const EqHandler *handler)
{
	(void) eq_clear_fault("handler", handler->label);
	(void) eq_clear_fault("time limit", handler->label);
	(void) eq_clear_fault(EQ_UNRECORDED, handler->label);
}

/* The line in the log of a run that has ended. */
void
eq_log_run(const EqHand *hand, const EqRunEnd *end)
{
	const EqClaimedJob *job = end->job;
	EqAttempt attempt = {.queue = hand->queue.name,
						 .name = job->name,
						 .job_id = job->job_id,
						 .tenant = job->tenant,
						 .worker = eq_executor_name,
						 .attempt = job->failures + 1,
						 .outcome = end->outcome,
						 .us = end->ended_at - end->started_at,
						 .sqlstate = end->sqlstate,
						 .message = end->message,
						 .metadata = job->metadata};

	if (end->outcome == NULL)
		return;
	if (eq_log_attempts == EQ_LOG_ALL ||
		(eq_log_attempts == EQ_LOG_FAILURES && end->sqlstate != NULL))
		eq_log_attempt(&attempt);
}

/*
 * The job's transaction: effects, completion and, after the last one in hand, the next
 * claim, unless it would conflict there.  Throws if the handler, or the commit, fails.
 */
static void
run_alone(EqCall *call, EqHand *next)
{
	StartTransactionCommand();
	eq_begin_call(call);
	eq_make_call(call);
	/* Deferred triggers and constraints are the handler's, and under its limit. */
	if (OidIsValid(call->owner))
		eq_fire_deferred();
	eq_end_call(call);
	eq_complete_call(call);
	if (call->first + 1 == call->hand->n && !eq_jobs_are_isolated())
		eq_claim_next(next);
	eq_commit_as(call->owner);
}

static void
renew_lease(void *argument)
{
	EqClaimedJob *job = argument;

	PushActiveSnapshot(GetTransactionSnapshot());
	job->leased_until = eq_renew_lease(job->job_id, &job->token);
	PopActiveSnapshot();
}

/*
 * In a transaction of its own, for a job that has waited in hand: it may have been
 * cancelled or deleted meanwhile, and have little left of its lease.  False if it is not
 * to run.
 */
static bool
prepare_to_run(EqHand *hand, EqRunEnd *end)
{
	MemoryContext context = CurrentMemoryContext;
	EqClaimedJob *job = &hand->jobs[hand->next];
	bool runs;

	if (hand->runs == 1 && !job->cancelled)
		return true;
	eq_begin_own_transaction();
	MemoryContextSwitchTo(context);
	runs = eq_may_run_still(hand, hand->next, end);
	if (runs && run_limit_ms(hand, hand->next, 1) <
					hand->handlers[hand->next]->time_limit_ms)
	{
		runs = eq_try_to_settle(renew_lease, job, EQ_SETTLE_WAIT_MS);
		if (!runs)
			end->outcome = NULL;
	}
	CommitTransactionCommand();
	MemoryContextSwitchTo(context);
	if (!runs)
		pg_atomic_write_u64(&eq_executor->current_job, 0);
	return runs;
}

/* A job whose failure could not be recorded. */
typedef struct Unrecorded
{
	const EqClaimedJob *job;
	int64 delay;
} Unrecorded;

typedef struct Failure
{
	EqHand *hand;
	const ErrorData *error;
	EqRunEnd *end;
} Failure;

static void
record_failure(void *argument)
{
	Failure *failure = argument;

	(void) eq_settle_failure(failure->hand, failure->hand->next, failure->error,
							 failure->end);
}

static void
postpone_unrecorded(void *argument)
{
	Unrecorded *this = argument;

	PushActiveSnapshot(GetTransactionSnapshot());
	eq_release(this->job->job_id, &this->job->token, this->delay);
	PopActiveSnapshot();
}

/*
 * A failure that can't be recorded (who locks the dead letters, say) does not leave its
 * job to the lease: it is given back for a while, each time longer, and health() tells.
 */
static bool
give_back_unrecorded(EqHand *hand, const ErrorData *settling)
{
	Unrecorded this = {.job = &hand->jobs[hand->next]};
	const char *label = hand->handlers[hand->next]->label;
	TimestampTz at;
	bool is_new = eq_failures_of(EQ_UNRECORDED, label, &at) == 0;
	int lock_timeout = LockTimeout;
	ErrorData *error;

	at = eq_note_fault(EQ_UNRECORDED, label, unpack_sql_state(settling->sqlerrcode),
					   settling->message, 1000, 60000);
	this.delay = Max(at - GetCurrentTimestamp(), 1);
	LockTimeout = EQ_SETTLE_WAIT_MS;
	error = try_settling(postpone_unrecorded, &this);
	LockTimeout = lock_timeout;
	/* One line in the log, not one for each job. */
	if (error == NULL && is_new)
		ereport(LOG, (errcode(settling->sqlerrcode),
					  errmsg("the failure of job " INT64_FORMAT
							 " could not be recorded: %s",
							 this.job->job_id, settling->message),
					  errdetail("It is due again, and no attempt is counted.")));
	return error == NULL;
}

/* The failure of the job that ran, in a transaction of its own; one that was deleted has none. */
static void
settle_alone(EqHand *hand, const ErrorData *error, EqRunEnd *end)
{
	MemoryContext context = CurrentMemoryContext;
	Failure failure = {.hand = hand, .error = error, .end = end};
	ErrorData *settling;

	eq_begin_own_transaction();
	MemoryContextSwitchTo(context);
	settling = try_settling(record_failure, &failure);
	if (settling && settling->sqlerrcode != ERRCODE_EQ_LEASE_LOST)
	{
		if (!give_back_unrecorded(hand, settling))
			ReThrowError(settling);
		end->outcome = "postponed";
	}
	else if (!settling)
		(void) eq_clear_fault(EQ_UNRECORDED, hand->handlers[hand->next]->label);
	else
	{
		end->outcome = NULL;
		ereport(LOG, (errmsg("job " INT64_FORMAT
							 " was deleted, or its lease ran out, while it ran",
							 hand->jobs[hand->next].job_id),
					  errdetail("What it did is rolled back.")));
	}
	CommitTransactionCommand();
	MemoryContextSwitchTo(context);
}

/* Runs the first job in hand; afterwards the one after it is in hand, or none. */
void
eq_run_alone(EqHand *hand)
{
	MemoryContext context = CurrentMemoryContext;
	ErrorData *volatile error = NULL;
	EqHandler *handler = hand->handlers[hand->next];
	EqCall call = {.hand = hand, .first = hand->next, .n = 1};
	EqRunEnd end = {.job = &hand->jobs[hand->next], .outcome = "completed"};
	EqHand next = {0};

	hand->runs++;
	hand->alone = Max(hand->alone - 1, 0);
	if (!prepare_to_run(hand, &end))
	{
		eq_log_run(hand, &end);
		eq_jobs_ended(hand, 1, &next);
		return;
	}
	PG_TRY();
	{
		run_alone(&call, &next);
	}
	PG_CATCH();
	{
		eq_end_if_terminated();
		HOLD_INTERRUPTS();
		eq_abandon_call();
		MemoryContextSwitchTo(context);
		error = eq_abort_transaction();
		RESUME_INTERRUPTS();
	}
	PG_END_TRY();

	/* Nothing may come between the commit and the note that its claim is in hand. */
	HOLD_INTERRUPTS();
	MemoryContextSwitchTo(context);
	QueryCancelPending = false; /* it came too late */
	end.started_at = call.started_at;
	end.ended_at = GetCurrentTimestamp();
	if (!error)
	{
		if (call.n_suspended > 0)
			end.outcome = "suspended";
		eq_clear_handler_faults(handler);
		eq_log_run(hand, &end);
		eq_jobs_ended(hand, 1, &next);
	}
	RESUME_INTERRUPTS();
	eq_note_condition_error(error && error->sqlerrcode == ERRCODE_QUERY_CANCELED);
	eq_clean_session();
	if (error && eq_note_claim_error(error))
	{
		/* The error is not the job's: the next one could not be claimed. */
		hand->n_running = 0;
		eq_give_back(hand, hand->next);
		return;
	}
	/* Its row is held: it can't be settled otherwise, either. */
	if (error && call.settling && error->sqlerrcode == ERRCODE_LOCK_NOT_AVAILABLE)
		ReThrowError(error);
	if (error)
	{
		settle_alone(hand, error, &end);
		eq_log_run(hand, &end);
		eq_jobs_ended(hand, 1, &next);
	}
}
