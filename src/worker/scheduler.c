/*
 * scheduler.c: the scheduler, one per database: wake-ups, schedules, retention, supervision
 * of the processes that run user code.  It runs no user code itself, so that its rounds
 * always end (cycle.c).
 *
 * It sleeps on its latch, which commits set (wake/wake.c), until the next job or schedule is
 * due, and at most until the next sweep.
 *
 * Its own transactions commit asynchronously: what a crash undoes is done again.  It waits
 * for locks only briefly, so that a lock on one of our tables delays the chore that needs
 * it and no other.
 *
 * JIT is off: chores have enable_seqscan off, which raises the cost of plans before 18 so
 * much that each sweep would compile some for tens of milliseconds.
 */
#include "postgres.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "event_queue.h"
#include "observe/metrics.h"
#include "queue/queue.h"
#include "store/store.h"
#include "table/table.h"
#include "wake/wake.h"
#include "worker/executor.h"
#include "worker/scheduler.h"

#define HOLD_MS		 5000 /* looks at a copy are so far apart */
#define LOCK_WAIT_MS "50"

static EqDatabase *db;
static MemoryContext cycle_context;

/*
 * Under load each commit would have one more cycle run.  After a quiet time the
 * first one comes at once; then they are at least so far apart, and stand for
 * many commits each.
 */
static void
pause_between_cycles(void)
{
	static TimestampTz last = 0;
	TimestampTz now = GetCurrentTimestamp();

	if (now - last < EQ_CYCLE_US && now >= last)
		pg_usleep(EQ_CYCLE_US - (now - last));
	last = GetCurrentTimestamp();
}

/*
 * Cleans up after the scheduler before this one, or after a crash: ends leases of
 * executors and sessions that have ended, and has rows counted whose number is not known.
 */
static void
start_afresh(void)
{
	PG_TRY();
	{
		eq_end_all_orphaned_leases();
		StartTransactionCommand();
		PushActiveSnapshot(GetTransactionSnapshot());
		eq_end_leases(
			"WHERE j.lease_pid IS NOT NULL AND j.leased_until > pg_catalog.clock_timestamp()"
			" AND NOT EXISTS (SELECT FROM pg_catalog.pg_stat_activity a WHERE a.pid = j.lease_pid)",
			0, NULL, NULL);
		PopActiveSnapshot();
		CommitTransactionCommand();
		if (eq_count_rows() > 0)
			pg_atomic_write_u32(&db->recount, 1);
	}
	PG_CATCH();
	{
		HOLD_INTERRUPTS();
		EmitErrorReport();
		AbortCurrentTransaction();
		FlushErrorState();
		pg_atomic_write_u32(&db->recount, 1);
		RESUME_INTERRUPTS();
	}
	PG_END_TRY();
}

/*
 * Sleeps until the extension is of the library's version and the store in service
 * here, or the extension is dropped.
 */
static void
wait_until_in_service(void)
{
	volatile bool said = false;

	while (eq_extension_is_here())
	{
		volatile bool active = false;
		volatile bool due = false;
		MemoryContext context = CurrentMemoryContext;

		PG_TRY();
		{
			due = eq_update_is_due();
			active = !due && eq_in_service();
		}
		PG_CATCH();
		{
			HOLD_INTERRUPTS();
			EmitErrorReport();
			AbortCurrentTransaction();
			FlushErrorState();
			RESUME_INTERRUPTS();
		}
		PG_END_TRY();
		MemoryContextSwitchTo(context);
		if (active)
			return;
		if (!said && !due)
			ereport(
				LOG,
				(errmsg("event_queue: the store of database %u is a copy that is"
						" not in service: nothing runs",
						MyDatabaseId),
				 errhint("SELECT event_queue.activate() takes it into service.")));
		said = said || !due;
		pgstat_report_stat(true);
		eq_worker_wait(HOLD_MS);
	}
}

void
eq_scheduler_main(Datum arg)
{
	Oid dboid = DatumGetObjectId(arg);

	uint32 drops;

	eq_init_worker(EQ_WORKER_SCHEDULER, dboid, 0);
	db = eq_find_database(dboid);
	drops = db ? pg_atomic_read_u32(&db->drops) : 0;
	if (!eq_extension_is_here())
		proc_exit(0);
	db = eq_database();
	pg_atomic_write_u32(&db->absent, 0);
	pg_atomic_write_u32(&db->scheduler, EQ_MY_PROC_NUMBER + 1);
	pg_atomic_write_u32(&db->events_pending, 1);
	SetConfigOption("synchronous_commit", "off", PGC_SUSET, PGC_S_OVERRIDE);
	SetConfigOption("jit", "off", PGC_SUSET, PGC_S_OVERRIDE);
	SetConfigOption("lock_timeout", LOCK_WAIT_MS, PGC_SUSET, PGC_S_OVERRIDE);

	cycle_context = AllocSetContextCreate(
		TopMemoryContext, "event_queue scheduler cycle", ALLOCSET_DEFAULT_SIZES);
	wait_until_in_service();
	eq_clear_faults(dboid, "scheduler", NULL);
	start_afresh();
	before_shmem_exit(eq_sample_last_metrics, (Datum) 0);
	while (pg_atomic_read_u32(&db->drops) == drops && eq_extension_is_here())
	{
		volatile TimestampTz wake_at = 0;

		MemoryContextSwitchTo(cycle_context);
		pause_between_cycles();
		pg_atomic_write_u64(&db->scheduler_tick, GetCurrentTimestamp());
		pg_atomic_write_u64(&db->scheduler_due,
							GetCurrentTimestamp() + EQ_SCHEDULER_GRACE_US);
		PG_TRY();
		{
			wake_at = eq_run_cycle();
		}
		PG_CATCH();
		{
			/* Say so, and try again later: the next round starts afresh. */
			HOLD_INTERRUPTS();
			EmitErrorReport();
			AbortCurrentTransaction();
			FlushErrorState();
			eq_forget_queues();
			pg_atomic_write_u32(&db->events_pending, 1);
			pg_atomic_write_u32(&db->look_everywhere, 1);
			RESUME_INTERRUPTS();
		}
		PG_END_TRY();
		if (wake_at == 0)
			eq_worker_back_off();
		MemoryContextReset(cycle_context);
		pgstat_report_stat(true);
		pg_atomic_write_u64(&db->scheduler_due, Max(wake_at, GetCurrentTimestamp()) +
													EQ_SCHEDULER_GRACE_US);
		eq_worker_wait(
			Max(TimestampDifferenceMilliseconds(GetCurrentTimestamp(), wake_at), 0) +
			1);
	}
	/*
	 * It was dropped; if it is there again, the launcher starts another scheduler, which
	 * knows nothing of the one that was.
	 */
	pg_atomic_write_u32(&db->absent, 1);
	if (eq_extension_is_here())
	{
		pg_atomic_write_u32(&db->absent, 0);
		eq_ask_launcher();
	}
	else
		eq_give_back_all_slots(dboid);
	eq_wake_executors(); /* they see it, too */
	eq_wake_rule_runner(db);
	proc_exit(0);
}
