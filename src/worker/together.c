/*
 * together.c: runs several jobs of an executor in one transaction, with one flush.
 *
 * Each call of a handler is a subtransaction: an error undoes only its own effects, and the
 * job's failure is recorded beside the others' completion.  The effects are those of
 * separate transactions:
 *
 * - All jobs of one transaction have the same owner, and what one leaves in the session is
 *   reset before the next (clean.c), or the transaction ends.
 * - Nobody waits for them for long.  The transaction ends after
 *   event_queue.handler_batch_time; a job that others wait for, in the transaction or after
 *   it, may take twice that.  A job that takes longer, also by waiting for a lock, is
 *   undone; those before it are committed, those after it are released, and it runs again,
 *   alone and with its full time limit.  So a long job costs at most that little more, once:
 *   afterwards only as many jobs of its handler are taken as will end in time.
 * - If the transaction itself fails (a deferred trigger, the commit), the jobs that ran are
 *   run alone and the others released, so that the error is that of its job.
 *
 * A handler that takes an array is called for several jobs of one tenant at once.  If that
 * fails, it is called for each half, and so on, so that the error is that of its job.  Jobs
 * that have failed or stalled before are run alone.
 */
#include "postgres.h"

#include "access/xact.h"
#include "commands/trigger.h"
#include "miscadmin.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timeout.h"
#include "utils/timestamp.h"

#include "common/leftovers.h"
#include "common/try.h"
#include "event_queue.h"
#include "queue/queue.h"
#include "rules/rules.h"
#include "store/store.h"
#include "worker/executor.h"

#define MAX_JOBS_PER_TRANSACTION                                                    \
	50 /* with more, their subtransactions would overflow a snapshot */

/* A transaction of several jobs. */
typedef struct Together
{
	EqHand *hand;
	int first; /* index of its first job in hand->jobs */
	EqRunEnd *ends;
	int n_ends; /* of the jobs from first on */
	Oid owner;
	TimestampTz started_at;
	int n_tried;   /* likewise, with those of the last call */
	bool settling; /* that one, whose handler has ended */
	int n_again;   /* those after them, which have to run again, */
	bool singly;   /* one by one */
	bool over;	   /* the jobs behind these are given back */
} Together;

static int64
batch_us(void)
{
	return eq_handler_batch_ms * INT64CONST(1000);
}

/*
 * Must each job have a transaction, and so a snapshot, of its own?  Then the next claim, too, has
 * one: it reads what others write, and a conflict would be the job's failure.
 */
bool
eq_jobs_are_isolated(void)
{
	return DefaultXactIsoLevel > XACT_READ_COMMITTED;
}

/* Returns the maximum number of jobs of this handler that an executor claims at once. */
int
eq_claim_limit(const EqQueue *queue, const EqHandler *handler)
{
	/*
	 * A job that is claimed early would hold a seat or a token that another executor
	 * could use.  With max_stalled = 0 a crash buries every job that shares it.
	 */
	if (!OidIsValid(handler->owner) || eq_queue_is_limited(queue) ||
		queue->group_rate_limit > 0 || queue->max_stalled == 0)
		return 1;
	return handler->batch > 0		? handler->batch
		   : eq_jobs_are_isolated() ? 1
									: MAX_JOBS_PER_TRANSACTION;
}

/*
 * Claims a further job after this one?  An executor takes what it will have done in time,
 * by the mean time of each job's handler, or an array; so the first job whose handler takes
 * long, or is not known yet, is the last one.
 */
bool
eq_claim_goes_on(EqClaim *claim, const EqClaimedJob *job)
{
	EqHandler *handler = eq_find_handler(claim->queue->queue_id, job->name);

	if (handler == NULL)
		return false;
	handler->claimed++;
	if (handler->batch > 0)
		return handler->claimed < handler->batch;
	claim->expected_us += handler->mean_us;
	return handler->mean_us > 0 && claim->expected_us < batch_us() &&
		   claim->n_jobs < MAX_JOBS_PER_TRANSACTION;
}

/* May the jobs in hand share a transaction?  Jobs of the extension itself run as different roles. */
bool
eq_may_run_together(const EqHand *hand)
{
	const EqHandler *handler = hand->handlers[hand->next];

	if (hand->alone > 0 || !OidIsValid(handler->owner))
		return false;
	return handler->batch > 0 ||
		   (hand->n - hand->next > 1 && batch_us() > 0 && !eq_jobs_are_isolated());
}

static bool
is_suspect(const EqClaimedJob *job)
{
	return job->failures > 0 || job->stalled > 0;
}

/*
 * How many of the jobs from i on go to one call; those that do are moved there, in their
 * order.
 */
static int
gather(EqHand *hand, int i)
{
	EqHandler *handler = hand->handlers[i];
	int n = 1;

	if (handler->batch == 0 || is_suspect(&hand->jobs[i]))
		return 1;
	for (int k = i + 1; k < hand->n && n < handler->batch; k++)
	{
		EqClaimedJob job = hand->jobs[k];

		if (hand->handlers[k] != handler || is_suspect(&job) ||
			strcmp(job.tenant, hand->jobs[i].tenant) != 0 ||
			!eq_may_share_call(job.metadata, hand->jobs[i].metadata))
			continue;
		memmove(&hand->jobs[i + n + 1], &hand->jobs[i + n],
				(k - i - n) * sizeof(EqClaimedJob));
		memmove(&hand->handlers[i + n + 1], &hand->handlers[i + n],
				(k - i - n) * sizeof(EqHandler *));
		hand->jobs[i + n] = job;
		hand->handlers[i + n] = handler;
		n++;
	}
	return n;
}

/* Calls the handler, within the subtransaction of the call. */
static void
make_call(void *argument)
{
	EqCall *call = argument;

	eq_make_call(call);
	/* The handler may have caught the cancellation, and have done something else. */
	if (call->timeout_ms != 0 &&
		TimestampDifferenceExceeds(call->started_at, GetCurrentTimestamp(),
								   call->timeout_ms))
		ereport(ERROR, (errcode(ERRCODE_QUERY_CANCELED),
						errmsg("canceling statement due to statement timeout")));
}

static void
add_ends(Together *together, const EqCall *call)
{
	for (int i = 0; i < call->n; i++)
	{
		const EqClaimedJob *job = &call->hand->jobs[call->first + i];

		together->ends[together->n_ends++] = (EqRunEnd){
			.job = job,
			.outcome = eq_is_suspended(job->job_id, &job->token) ? "suspended"
																 : "completed",
			.started_at = call->started_at,
			.ended_at = GetCurrentTimestamp()};
	}
}

/*
 * Are they to run again, for what is no fault of theirs, or of only one of them?
 * (Waits for locks end at the timeout, but deadlock_timeout may be shorter.)
 */
static bool
runs_again(Together *together, const EqCall *call, const ErrorData *error)
{
	if (error->sqlerrcode == ERRCODE_T_R_DEADLOCK_DETECTED &&
		call->first > together->first)
		return true;
	/* All would fail by the same snapshot: each is to run in a transaction of its own. */
	if (error->sqlerrcode == ERRCODE_T_R_SERIALIZATION_FAILURE &&
		eq_jobs_are_isolated())
		return (together->singly = call->n > 1);
	if (error->sqlerrcode != ERRCODE_QUERY_CANCELED)
		return false;
	/* Without the one that was cancelled (eq_may_run_still). */
	if (eq_was_stopped(call->hand, call->first, call->n, error))
		return call->n > 1;
	/* Halves would take the limit again, each. */
	together->singly = call->timeout_ms == 0;
	return call->timeout_ms != 0 || call->n > 1;
}

/*
 * Calls the handler for n jobs from first on, and settles them; false if some have to
 * run again.  timeout_ms: how long they may take; 0: as long as ever.
 */
static bool
run_range(Together *together, int first, int n, int timeout_ms)
{
	EqHand *hand = together->hand;
	EqCall call = {.hand = hand, .first = first, .n = n, .timeout_ms = timeout_ms};
	ErrorData *error;
	EqRunEnd end = {0};

	QueryCancelPending = false;
	CHECK_FOR_INTERRUPTS();
	eq_begin_call(&call);
	error = eq_try(make_call, &call);
	/* Deferred triggers run as the handler, within its time limit; their error ends the transaction. */
	if (!error)
		AfterTriggerFireDeferred();
	eq_end_call(&call);
	if (!error)
	{
		together->settling = true;
		eq_complete_call(&call);
		together->settling = false;
		add_ends(together, &call);
		return true;
	}
	if (runs_again(together, &call, error))
		return false;
	/* The whole queue is to wait: halves would fare no better. */
	if (n > 1 && eq_read_verdict(error).postpones_queue)
	{
		for (int i = first; i < first + n; i++)
		{
			EqRunEnd *one = &together->ends[together->n_ends++];

			*one = (EqRunEnd){.started_at = call.started_at};
			(void) eq_settle_failure(hand, i, error, one);
		}
		return true;
	}
	if (n > 1)
		return run_range(together, first, n / 2, timeout_ms) &&
			   run_range(together, first + n / 2, n - n / 2, timeout_ms);
	end.started_at = call.started_at;
	/* The handler can't be called: its other jobs wait, too. */
	if (!eq_settle_failure(hand, first, error, &end))
		together->over = true;
	together->ends[together->n_ends++] = end;
	return true;
}

/*
 * Is what the last job did to the transaction to be seen by no other?  (Of what it did
 * to the session nothing is left.)
 */
static bool
is_spoilt(void)
{
	return (MyXactFlags & XACT_FLAGS_ACCESSEDTEMPNAMESPACE) != 0 ||
		   eq_constraints_were_set();
}

/* May the next job in hand join the transaction? */
static bool
may_join(const Together *together)
{
	EqHand *hand = together->hand;
	int i = together->first + together->n_ends;
	const EqHandler *handler;

	if (i == hand->n || together->over || is_spoilt())
		return false;
	handler = hand->handlers[i];
	return handler && eq_queue_held_until(&hand->queue) == 0 &&
		   handler->batch == 0 && handler->owner == together->owner &&
		   hand->handlers[i - 1]->batch == 0 && handler->mean_us > 0 &&
		   GetCurrentTimestamp() - together->started_at + handler->mean_us <
			   batch_us();
}

/* Were the jobs claimed just now, so that their leases need not be checked? */
static bool
are_fresh(const Together *together)
{
	return together->hand->runs == 1 && together->n_ends == 0;
}

/* Returns how many of n jobs a call can have: those before the first that must not run. */
static int
count_held(const Together *together, int i, int n)
{
	const EqClaimedJob *jobs = together->hand->jobs;
	int k = 1;

	if (n == 1)
		return n;
	PushActiveSnapshot(GetTransactionSnapshot());
	while (k < n && !jobs[i + k].cancelled &&
		   (are_fresh(together) ||
			eq_look_at_lease(jobs[i + k].job_id, &jobs[i + k].token) == EQ_HELD))
		k++;
	PopActiveSnapshot();
	return k;
}

/* The transaction; throws if that fails as a whole. */
static void
run_together(Together *together, EqHand *next)
{
	EqHand *hand = together->hand;
	MemoryContext context = CurrentMemoryContext;
	int behind;

	StartTransactionCommand();
	MemoryContextSwitchTo(context);
	do
	{
		int i = together->first + together->n_ends;
		int n = count_held(together, i, gather(hand, i));
		bool company = i > together->first || i + n < hand->n;
		EqRunEnd end;

		together->n_tried = i + n - together->first;
		if ((!are_fresh(together) || hand->jobs[i].cancelled) &&
			!eq_may_run_still(hand, i, &end))
		{
			together->ends[together->n_ends++] = end;
			continue;
		}
		if (!run_range(together, i, n, company ? 2 * eq_handler_batch_ms : 0))
		{
			together->n_again = i + n - together->first - together->n_ends;
			together->over = true;
		}
		CommandCounterIncrement();
		eq_drop_leftovers();
	} while (may_join(together));

	behind = together->first + together->n_ends + together->n_again;
	if (together->over)
		eq_release_from(hand, behind);
	if (together->n_again == 0 && (together->over || behind == hand->n) &&
		!eq_jobs_are_isolated())
		eq_claim_next(next);
	eq_commit_as(together->owner);
}

/* Nobody waits behind an array that will take long. */
static void
make_way(EqHand *hand)
{
	int behind = hand->next + gather(hand, hand->next);

	if (behind < hand->n && hand->handlers[hand->next]->mean_us > batch_us())
		eq_give_back(hand, behind);
}

static void
note_ends(const Together *together)
{
	const EqHandler *cleared = NULL;

	for (int i = 0; i < together->n_ends; i++)
	{
		const EqRunEnd *end = &together->ends[i];
		const EqHandler *handler = together->hand->handlers[together->first + i];

		eq_log_run(together->hand, end);
		if (end->outcome == NULL || end->sqlstate != NULL || handler == cleared)
			continue;
		eq_clear_handler_faults(handler);
		cleared = handler;
	}
}

/* Runs jobs in hand in one transaction; afterwards those after them are in hand. */
void
eq_run_together(EqHand *hand)
{
	MemoryContext context = CurrentMemoryContext;
	ErrorData *volatile error = NULL;
	EqHand next = {0};
	Together together = {.hand = hand,
						 .first = hand->next,
						 .ends = palloc((hand->n - hand->next) * sizeof(EqRunEnd)),
						 .owner = hand->handlers[hand->next]->owner,
						 .started_at = GetCurrentTimestamp()};

	hand->runs++;
	make_way(hand);
	PG_TRY();
	{
		run_together(&together, &next);
	}
	PG_CATCH();
	{
		eq_end_if_terminated();
		HOLD_INTERRUPTS();
		eq_abandon_call();
		MemoryContextSwitchTo(context);
		error = eq_abort_transaction();
		hand->n_running = 0;
		RESUME_INTERRUPTS();
	}
	PG_END_TRY();

	/* Nothing may come between the commit and the note that its claim is in hand. */
	HOLD_INTERRUPTS();
	MemoryContextSwitchTo(context);
	QueryCancelPending = false; /* it came too late */
	if (!error)
	{
		note_ends(&together);
		/* A job that was cut short runs alone, with its whole time limit. */
		hand->alone = together.singly || together.n_again == 1 ? together.n_again
															   : 0;
		if (together.over)
			hand->n = together.first + together.n_ends + together.n_again;
		eq_jobs_ended(hand, together.n_ends, &next);
	}
	RESUME_INTERRUPTS();
	eq_note_condition_error(false);
	eq_clean_session();
	if (error && eq_note_claim_error(error))
		eq_give_back(hand, hand->next);
	else if (error)
	{
		/*
		 * Which job it was is not known: those that ran run again, each alone.  Not if one
		 * was cancelled or deleted at the end of its call: eq_may_run_still finds that one.
		 */
		int n = Max(together.n_tried, 1);
		bool is_found = together.settling &&
						(error->sqlerrcode == ERRCODE_EQ_JOB_CANCELLED ||
						 error->sqlerrcode == ERRCODE_EQ_LEASE_LOST);

		eq_give_back(hand, hand->next + n);
		hand->alone = is_found ? 0 : n;
	}
}
