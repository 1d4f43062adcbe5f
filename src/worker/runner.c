/*
 * runner.c: the rule runner and the keeper: processes apart from the scheduler that run
 * user code.
 *
 * The rule runner (one per database that has rules) reads events and evaluates conditions
 * and templates.  The keeper creates, archives and drops partitions of events, for which it
 * calls reducers; the scheduler starts it when it is due, and it ends when there is nothing
 * to do.  Both may be lost at any time: what they did not commit is done again.
 *
 * The rule runner's transactions commit asynchronously: jobs and the checkpoint are lost
 * together or not at all, and lost jobs are enqueued again.
 */
#include "postgres.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "storage/ipc.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timeout.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "event_queue.h"
#include "rules/rules.h"
#include "store/store.h"
#include "table/table.h"
#include "wake/wake.h"
#include "worker/worker.h"

#define SWEEP_MS 5000

/* No one waits for the keeper; a reducer that does not end is not waited for either. */
#define KEEPER_LIMIT_MS (10 * 60 * 1000)

static EqDatabase *db;

static void
rules_chore(void)
{
	static TimestampTz next_sweep = 0;
	TimestampTz now = GetCurrentTimestamp();

	if (pg_atomic_exchange_u32(&db->rules_pending, 0) == 0 && now < next_sweep &&
		!eq_backfill_is_due() &&
		next_sweep <=
			now + SWEEP_MS * INT64CONST(1000)) /* else the clock was set back */
		return;
	next_sweep = now + SWEEP_MS * INT64CONST(1000);
	PG_TRY();
	{
		bool more = true;

		while (more)
		{
			CHECK_FOR_INTERRUPTS();
			more = eq_run_rules();
			eq_worker_reload();
		}
	}
	PG_CATCH();
	{
		pg_atomic_write_u32(&db->rules_pending, 1);
		PG_RE_THROW();
	}
	PG_END_TRY();
}

static EqChore rules = {rules_chore, "rules"};

/*
 * A condition has taken the process with it: it did not end, or its error was fatal, as by
 * SET exit_on_error in it.
 */
static void
leave_runner(int code, Datum arg)
{
	if (eq_was_past_limit() || !eq_end_was_asked_for())
		eq_note_condition_lost();
}

void
eq_runner_main(Datum arg)
{
	Oid dboid = DatumGetObjectId(arg);
	MemoryContext cycle_context;

	eq_watch_me(eq_init_worker(EQ_WORKER_RULES, dboid, 0));
	if (!eq_extension_is_current())
		proc_exit(0);
	before_shmem_exit(leave_runner, (Datum) 0);
	db = eq_database();
	pg_atomic_write_u32(&db->rule_runner, EQ_MY_PROC_NUMBER + 1);
	pg_atomic_write_u32(&db->rules_pending, 1);
	eq_clear_faults(dboid, "rule runner", NULL);
	SetConfigOption("synchronous_commit", "off", PGC_SUSET, PGC_S_OVERRIDE);

	cycle_context = AllocSetContextCreate(
		TopMemoryContext, "event_queue rule runner", ALLOCSET_DEFAULT_SIZES);
	while ((pg_atomic_read_u32(&db->events_wanted) & EQ_EVENTS_FOR_RULES) != 0 &&
		   eq_extension_is_current() && eq_is_active_here())
	{
		long timeout = SWEEP_MS;

		MemoryContextSwitchTo(cycle_context);
		pgstat_report_activity(STATE_RUNNING, "event_queue rule runner");
		eq_attempt_chore("rule runner", &rules);
		if (rules.failures > 0)
			timeout = Min(TimestampDifferenceMilliseconds(GetCurrentTimestamp(),
														  rules.retry_at) +
							  1,
						  SWEEP_MS * 10);
		MemoryContextReset(cycle_context);
		pgstat_report_stat(true);
		eq_worker_wait(rules.failures > 0 ? timeout : eq_until_backfill(timeout));
	}
	proc_exit(0);
}

/* Does one piece of what partitions of events need; true if there was one. */
static bool
maintain_partitions(void)
{
	int64 watched;
	int64 done;

	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	watched = eq_watch_begin(KEEPER_LIMIT_MS * INT64CONST(1000), 0);
	enable_timeout_after(STATEMENT_TIMEOUT, KEEPER_LIMIT_MS);
	done = eq_query_int64(
		"SELECT event_queue_internal.maintain_partitions()::int::bigint", 0);
	disable_timeout(STATEMENT_TIMEOUT, false);
	eq_watch_end(watched);
	PopActiveSnapshot();
	CommitTransactionCommand();
	return done != 0;
}

static void
partitions_chore(void)
{
	while (maintain_partitions())
		CHECK_FOR_INTERRUPTS();
}

static EqChore partitions = {partitions_chore, "partitions of events"};

static void
leave_keeper(int code, Datum arg)
{
	if (eq_was_past_limit())
		(void) eq_note_fault("keeper", partitions.name, "57014",
							 "a reducer did not end and was terminated", 60000,
							 3600000);
}

void
eq_keeper_main(Datum arg)
{
	Oid dboid = DatumGetObjectId(arg);

	eq_watch_me(eq_init_worker(EQ_WORKER_KEEPER, dboid, 0));
	before_shmem_exit(leave_keeper, (Datum) 0);
	if (eq_extension_is_current() && eq_is_active_here())
	{
		pgstat_report_activity(STATE_RUNNING, "event_queue keeper");
		eq_attempt_chore("keeper", &partitions);
		if (partitions.failures == 0)
			(void) eq_clear_fault("keeper", partitions.name);
		pgstat_report_stat(true);
	}
	proc_exit(0);
}
