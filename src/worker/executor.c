/*
 * executor.c: runs jobs by their handlers, inside the database.
 *
 * Exactly once: the claim is committed first, so that a handler that takes the
 * server down is counted; then the handler's effects, the job's completion and
 * the claim of the next jobs commit together, one flush for a job that runs long
 * (run.c), and one for many that do not (together.c).  An error rolls the effects back,
 * and is recorded.
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
#include "storage/proc.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timeout.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"

#include "common/exit.h"
#include "common/try.h"
#include "compat.h"
#include "event_queue.h"
#include "queue/queue.h"
#include "rules/rules.h"
#include "store/store.h"
#include "table/table.h"
#include "tenant/tenant.h"
#include "wake/wake.h"
#include "worker/executor.h"

#define IDLE_MS		60000
#define JOBS_A_LOOK 100	  /* at the memory that is kept */
#define MAX_TRIES	3	  /* to give jobs back */
#define STAND_IN_MS 30000 /* of idling, before an executor that stands in ends */

static EqHand hand;
static EqDatabase *db;
EqWorker *eq_executor;
static bool stands_in;			   /* for executors whose jobs take long */
static char claiming[NAMEDATALEN]; /* the queue that is claimed from */
char eq_executor_name[64];
static MemoryContext hand_context; /* the jobs in hand */
static MemoryContext next_context; /* those after them */
static int first_handler;		   /* where the next look for a job begins */
static TimestampTz retry_at;	   /* a rate limit ends then; 0: none met */
static uint32 seat;				   /* of the handler in hand; 0: it has none */

/*
 * Must this executor leave the handler's jobs alone for now?  A handler whose last job did not
 * end at its time limit gets one executor at a time, so that the others are free for other
 * handlers.  A stand-in takes no jobs of handlers that keep executors busy for long.  A handler
 * that can't be called waits.
 */
static bool
is_left_alone(const EqHandler *handler)
{
	TimestampTz at;
	/* Calls of one rule say nothing about those of another. */
	bool may_be_endless = handler->queue_id != EQ_RULE_CALLS &&
						  eq_failures_of("time limit", handler->label, &at) > 0;

	if ((may_be_endless || (stands_in && handler->most_executors == 0)) &&
		eq_is_under_way(handler->work, !may_be_endless))
		return true;
	if (may_be_endless && stands_in)
		return true;
	if (eq_failures_of("handler", handler->label, &at) > 0 &&
		at > GetCurrentTimestamp())
	{
		if (retry_at == 0 || at < retry_at)
			retry_at = at;
		return true;
	}
	return handler->most_executors > 0 &&
		   !eq_take_seat(handler->work, handler->most_executors);
}

/* May one claim be for both handlers?  One with max_executors, which takes a seat, is alone. */
static bool
is_claimed_with(const EqHandler *handler, const EqHandler *first)
{
	return handler == first ||
		   (handler->queue_id == first->queue_id && handler->most_executors == 0);
}

/*
 * Which jobs of the queue are for the handlers from first on that may be claimed for:
 * by their names, or by those of all others for the one that takes what is left.
 */
static bool
choose_names(EqClaim *claim, const EqHandler *first)
{
	bool takes_all = false;
	bool *chosen = palloc0(eq_n_handlers * sizeof(bool));

	for (int i = 0; i < eq_n_handlers; i++)
	{
		EqHandler *h = &eq_handlers[i];

		if (!is_claimed_with(h, first) || is_left_alone(h))
			continue;
		chosen[i] = true;
		takes_all = takes_all || strcmp(h->job_name, "*") == 0;
		claim->limit = Max(claim->limit, eq_claim_limit(claim->queue, h));
		h->claimed = 0;
		claim->n_names++;
	}
	if (claim->n_names == 0)
		return false;
	claim->names = palloc(eq_n_handlers * sizeof(char *));
	claim->n_names = 0;
	claim->all_but = takes_all;
	for (int i = 0; i < eq_n_handlers; i++)
	{
		if (eq_handlers[i].queue_id == first->queue_id && chosen[i] != takes_all)
			claim->names[claim->n_names++] = eq_handlers[i].job_name;
	}
	if (takes_all && claim->n_names == 0)
		claim->names = NULL;
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

/* True if the next claim failed, and not the job.  Then its queue waits for a while. */
bool
eq_note_claim_error(const ErrorData *error)
{
	if (claiming[0] == '\0')
		return false;
	(void) eq_note_fault("queue", claiming, unpack_sql_state(error->sqlerrcode),
						 error->message, 1000, 60000);
	claiming[0] = '\0';
	return true;
}

/* The handlers of the jobs in hand, when these are claimed and when others were read. */
static void
find_handlers(EqHand *jobs)
{
	for (int i = jobs->next; i < jobs->n; i++)
		jobs->handlers[i] = eq_find_handler(jobs->queue.queue_id,
											jobs->jobs[i].name);
}

/*
 * Begins a transaction without user code.  Serializable ones read and write what all
 * others do, and would fail, or make others fail; only handlers run as the settings say.
 */
void
eq_begin_own_transaction(void)
{
	StartTransactionCommand();
	XactIsoLevel = XACT_READ_COMMITTED;
}

/*
 * Claims the next jobs, in the current transaction, into next_context.  Queues
 * take turns: the look begins where the last one found something.
 */
void
eq_claim_next(EqHand *next)
{
	MemoryContext old = MemoryContextSwitchTo(next_context);
	int i = 0;

	MemoryContextReset(next_context);
	*next = (EqHand){0};
	retry_at = 0;
	eq_forget_handler(); /* what this buries is another's */
	PushActiveSnapshot(GetTransactionSnapshot());
	while (i < eq_n_handlers && next->n == 0)
	{
		const EqHandler *first = &eq_handlers[(first_handler + i) % eq_n_handlers];
		const EqQueue *queue = eq_get_queue_by_id(first->queue_id);
		EqClaim claim = {.queue = queue,
						 .limit = 1,
						 .worker = eq_executor_name,
						 .goes_on = eq_claim_goes_on};

		/* Skip the handlers that were claimed for with the first: eq_handlers has them side by side. */
		do
			i++;
		while (i < eq_n_handlers && first->most_executors == 0 &&
			   is_claimed_with(&eq_handlers[(first_handler + i) % eq_n_handlers],
							   first));
		/* Skips a queue with limits that has no room in shared memory, so that others go on. */
		if (queue == NULL || queue_fails(queue) ||
			(eq_queue_is_limited(queue) && eq_wake_slot(queue->queue_id) == NULL) ||
			!choose_names(&claim, first))
			continue;
		strlcpy(claiming, queue->name, sizeof(claiming));
		eq_claim(&claim);
		claiming[0] = '\0';
		(void) eq_clear_fault("queue", queue->name);
		if (claim.n_jobs > 0)
		{
			next->queue = *queue;
			next->n = claim.n_jobs;
			next->jobs = claim.jobs;
			next->handlers = palloc(claim.n_jobs * sizeof(EqHandler *));
			find_handlers(next);
			first_handler = (first_handler + i) % eq_n_handlers;
		}
		else if (claim.retry_at != 0 && (retry_at == 0 || claim.retry_at < retry_at))
			retry_at = claim.retry_at;
		if (claim.n_jobs == 0)
			(void) eq_keep_seat(0);
	}
	PopActiveSnapshot();
	MemoryContextSwitchTo(old);
}

/* The transaction of a handler, or of several with the same owner, ends as his. */
void
eq_commit_as(Oid owner)
{
	Oid worker_role;
	int sec_context;

	GetUserIdAndSecContext(&worker_role, &sec_context);
	if (OidIsValid(owner))
		SetUserIdAndSecContext(owner, SECURITY_LOCAL_USERID_CHANGE);
	CommitTransactionCommand();
	SetUserIdAndSecContext(worker_role, sec_context);
}

static uint32
seat_of(const EqHand *jobs)
{
	const EqHandler *handler = jobs->n > 0 ? jobs->handlers[0] : NULL;

	return handler && handler->most_executors > 0 ? handler->work : 0;
}

/* The claimed jobs become those in hand. */
static void
take_over(const EqHand *next)
{
	MemoryContext done = hand_context;
	uint32 kept;

	/*
	 * A claim commits without waiting for the disk.  Here the handler may take the
	 * server down, and a lost claim would not be counted.
	 */
	if (next->n > 0)
		XLogFlush(XactLastCommitEnd);
	hand_context = next_context;
	next_context = done;
	hand = *next;
	/* Others may have been waiting for its seat, or for what a failed claim took. */
	kept = eq_keep_seat(seat_of(&hand));
	if ((seat != 0 && seat != seat_of(&hand)) ||
		(kept != 0 && kept != seat_of(&hand)))
		eq_wake_executors();
	seat = seat_of(&hand);
	pg_atomic_write_u64(&eq_executor->current_job,
						hand.n > 0 ? hand.jobs[0].job_id : 0);
}

/*
 * Notes that so many of the jobs in hand have ended, and that the next may have been
 * claimed.
 */
void
eq_jobs_ended(EqHand *jobs, int n, const EqHand *next)
{
	jobs->next += n;
	jobs->n_running = 0;
	pg_atomic_fetch_add_u64(&eq_executor->jobs_done, n);
	if (jobs->next == jobs->n)
		take_over(next);
}

/*
 * In a transaction, the jobs in hand go back uncounted.  Those whose rows someone holds
 * come back when their leases have run out: for all together it does not wait for long.
 */
void
eq_release_from(EqHand *jobs, int from)
{
	TimestampTz until = GetCurrentTimestamp() + EQ_SETTLE_WAIT_MS * INT64CONST(1000);

	for (int i = from; i < jobs->n; i++)
	{
		int64 left_ms = (until - GetCurrentTimestamp()) / 1000;

		eq_try_to_settle(eq_release_claimed, &jobs->jobs[i], (int) Max(left_ms, 1));
	}
}

/* The same in a transaction of its own: no handler any more, or this process is to end. */
void
eq_give_back(EqHand *jobs, int from)
{
	MemoryContext context = CurrentMemoryContext;

	if (from >= jobs->n)
		return;
	eq_begin_own_transaction();
	MemoryContextSwitchTo(context);
	eq_release_from(jobs, from);
	CommitTransactionCommand();
	MemoryContextSwitchTo(context);
	jobs->n = from;
	if (jobs->next == jobs->n)
		pg_atomic_write_u64(&eq_executor->current_job, 0);
}

/* Claims the first jobs after idling, and commits the claim. */
static void
claim_first(void)
{
	EqHand next = {0};

	eq_begin_own_transaction();
	eq_claim_next(&next);
	CommitTransactionCommand();
	take_over(&next);
}

/* Is the lease still this process's, and free to change without waiting? */
static bool
holds_lease(const EqClaimedJob *job)
{
	static const char *const query =
		"SELECT FROM event_queue.job WHERE job_id = $1 AND lease_token = $2"
		" FOR UPDATE SKIP LOCKED";
	Oid types[2] = {INT8OID, UUIDOID};
	Datum values[2] = {Int64GetDatum(job->job_id), UUIDPGetDatum(&job->token)};
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

/* Fails a job whose handler did not end and was terminated with this process. */
static void
fail_terminated(const EqClaimedJob *job, bool cancelled)
{
	EqRunEnd end = {
		.job = job,
		.outcome = cancelled ? "cancelled" : "failed",
		.sqlstate = pstrdup(unpack_sql_state(cancelled ? ERRCODE_EQ_JOB_CANCELLED
													   : ERRCODE_EQ_NOT_ENDED)),
		.message = "it did not end and was terminated with its process",
		.started_at = pg_atomic_read_u64(&eq_executor->busy_since),
		.ended_at = GetCurrentTimestamp()};

	(void) eq_fail(
		job->job_id, &job->token,
		cancelled
			? "job was cancelled, did not end, and was terminated"
			: "it did not end at its time limit, nor when it was cancelled, and was terminated",
		NULL, end.sqlstate, NULL, -1, cancelled);
	eq_log_run(&hand, &end);
}

/*
 * This process ends with jobs in hand (a FATAL error).  Terminated since a job did not
 * end, that job has failed; asked to end, it gives all back and nothing is counted.
 * Otherwise the job itself ended the process, as it may end the server: the leases stay,
 * and the one that ran counts as stalled (running.c).  As RemoveTempRelationsCallback does
 * it: a last transaction.
 */
static void
leave_executor(int code, Datum arg)
{
	bool past_limit = eq_was_past_limit();
	int64 cancelled_job = pg_atomic_read_u64(&eq_executor->cancelled_job);
	bool cancelled = false; /* one of the call, which is why it was to end */

	if (past_limit)
	{
		for (int i = hand.running; i < hand.running + hand.n_running; i++)
			cancelled = cancelled || hand.jobs[i].job_id == cancelled_job;
		if (!cancelled)
			eq_note_condition_lost();
		if (!cancelled && hand.n_running > 0 && hand.handlers[hand.running])
			eq_note_time_limit(
				hand.handlers[hand.running],
				"its job did not end at its time limit and was terminated");
	}
	if (hand.next == hand.n || (!past_limit && !eq_end_was_asked_for()))
		return;
	eq_begin_exit_transaction();
	for (int i = hand.next; i < hand.n; i++)
	{
		const EqClaimedJob *job = &hand.jobs[i];

		if (!holds_lease(job))
			ereport(LOG, (errmsg("job " INT64_FORMAT " could not be released",
								 job->job_id)));
		else if (past_limit && i >= hand.running &&
				 i < hand.running + hand.n_running &&
				 (!cancelled || job->job_id == cancelled_job))
			fail_terminated(job, cancelled);
		else
			eq_release(job->job_id, &job->token, 0);
	}
	eq_commit_exit_transaction();
	hand.next = hand.n;
	eq_note_nothing_runs();
}

/* One turn: jobs, or a look for some and a sleep. */
static void
take_turn(void)
{
	long timeout = stands_in ? STAND_IN_MS : IDLE_MS;
	uint32 idle = EQ_LOOKS;

	SetCurrentStatementStartTimestamp(); /* transactions take now() from it */
	if (eq_read_handlers())
	{
		first_handler = 0;
		find_handlers(&hand);
	}
	if (hand.next < hand.n)
	{
		if (hand.unwanted > 0 || hand.handlers[hand.next] == NULL)
			eq_give_back(&hand, hand.next);
		else if (eq_may_run_together(&hand))
			eq_run_together(&hand);
		else
			eq_run_alone(&hand);
		return;
	}

	/* Before the look: who commits a job after it sets the latch. */
	pg_atomic_write_u32(&eq_executor->idle, EQ_LOOKS);
	pg_memory_barrier();
	claim_first();
	if (hand.n > 0)
	{
		pg_atomic_write_u32(&eq_executor->idle, EQ_AWAKE);
		return;
	}
	if (retry_at != 0)
		timeout = Min(
			timeout,
			TimestampDifferenceMilliseconds(GetCurrentTimestamp(), retry_at) + 1);
	pgstat_report_stat(true);
	/* Else it was woken meanwhile; of that its latch may tell no more, if the look had to wait. */
	if (pg_atomic_compare_exchange_u32(&eq_executor->idle, &idle, EQ_SLEEPS))
		eq_worker_wait(timeout);
	pg_atomic_write_u32(&eq_executor->idle, EQ_AWAKE);
}

/*
 * After an error that belongs to no job or could not be recorded: jobs whose call was under way
 * keep their leases, since they may be the reason; the others are given back, or, if that has
 * failed, keep their leases, too.
 */
static void
put_hand_right(void)
{
	if (hand.n_running > 0)
		hand.next = Min(hand.running + hand.n_running, hand.n);
	else if (hand.unwanted == MAX_TRIES)
		hand.next = hand.n;
	hand.unwanted++;
	hand.n_running = hand.alone = 0;
	pg_atomic_write_u64(&eq_executor->current_job, 0);
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
	MemoryContext turn_context;
	TimestampTz last_job = GetCurrentTimestamp();
	uint64 looked_at = 0; /* so many jobs */

	memcpy(&index, MyBgworkerEntry->bgw_extra, sizeof(index));
	eq_executor = eq_init_worker(EQ_WORKER_EXECUTOR, dboid, index);
	if (!eq_extension_is_current() || !eq_is_active_here())
		proc_exit(0);
	db = eq_database();
	snprintf(eq_executor_name, sizeof(eq_executor_name), EQ_EXECUTOR_NAME, index);
	hand_context = AllocSetContextCreate(TopMemoryContext, "event_queue jobs",
										 ALLOCSET_DEFAULT_SIZES);
	next_context = AllocSetContextCreate(TopMemoryContext, "event_queue next jobs",
										 ALLOCSET_DEFAULT_SIZES);
	turn_context = AllocSetContextCreate(TopMemoryContext, "event_queue turn",
										 ALLOCSET_DEFAULT_SIZES);
	eq_watch_me(eq_executor);
	eq_end_orphaned_leases(index);
	eq_open_running(index);
	before_shmem_exit(leave_executor, (Datum) 0);

	/* Those numbered event_queue.executors and above stand in (children.c). */
	for (;;)
	{
		volatile bool failed = false;

		eq_worker_reload();
		if (index >= 2 * eq_executors ||
			(hand.next == hand.n && !eq_extension_is_current()) ||
			!eq_is_active_here())
			break;
		stands_in = index >= eq_executors;
		if (hand.next < hand.n)
			last_job = GetCurrentTimestamp();
		else if (stands_in && TimestampDifferenceExceeds(
								  last_job, GetCurrentTimestamp(), STAND_IN_MS))
			break;

		MemoryContextReset(turn_context);
		MemoryContextSwitchTo(turn_context);
		QueryCancelPending = false; /* nothing runs: it came too late */
		CHECK_FOR_INTERRUPTS();
		PG_TRY();
		{
			take_turn();
		}
		PG_CATCH();
		{
			HOLD_INTERRUPTS();
			eq_watch_end(0);
			disable_all_timeouts(false);
			EmitErrorReport();
			MemoryContextSwitchTo(turn_context);
			(void) eq_note_claim_error(CopyErrorData());
			FlushErrorState();
			AbortCurrentTransaction();
			eq_forget_handlers();
			put_hand_right();
			failed = true;
			RESUME_INTERRUPTS();
		}
		PG_END_TRY();
		if (!eq_session_is_clean())
			break; /* the next process is */
		if (failed)
			eq_worker_back_off();
		if (pg_atomic_read_u64(&eq_executor->jobs_done) - looked_at >= JOBS_A_LOOK)
		{
			if (keeps_too_much())
				break;
			looked_at = pg_atomic_read_u64(&eq_executor->jobs_done);
		}
	}
	eq_give_back(&hand, hand.next);
	eq_note_nothing_runs();
	proc_exit(0);
}
