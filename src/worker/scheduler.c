/*
 * scheduler.c: one per database: wake-ups, schedules, retention, and watching over
 * those that run user code.  It runs none itself, so that it always ends its round.
 *
 * Sleeps on its latch, which commits set (wake/wake.c), until the next job or
 * schedule is due, and at most until the next sweep.  A sweep looks at every
 * queue whatever the flags say, so that expired leases and jobs that came by
 * another way (COPY, prepared transactions, a restore) are found within a
 * stalled_interval.
 *
 * Its own transactions commit asynchronously: what a crash undoes is done again.
 * It waits for locks for a moment only, so that whoever locks one of our tables
 * holds up the step that needs it and no other.
 */
#include "postgres.h"

#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/pg_type.h"
#include "commands/async.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "common/compare.h"
#include "common/exit.h"
#include "compat.h"
#include "event_queue.h"
#include "observe/metrics.h"
#include "queue/queue.h"
#include "store/members.h"
#include "store/store.h"
#include "table/table.h"
#include "wake/wake.h"
#include "worker/scheduler.h"

#define RETENTION_US  (60 * USECS_PER_SEC)
#define PLACES_US	  (10 * USECS_PER_SEC)
#define CYCLE_US	  2000				   /* cycles under load are so far apart */
#define COUNT_US	  (10 * USECS_PER_SEC) /* rows are not counted more often */
#define CLOCK_BACK_US (1 * USECS_PER_SEC)  /* less is no matter */
#define HEALTH_ROUNDS 3					   /* looks at alerts for one at health() */
#define HOLD_MS		  5000				   /* looks at a copy are so far apart */
#define LOCK_WAIT_MS  "50"
#define FAILING_US	  20000 /* cycles are so far apart while a step fails */
#define KEEP_US		  (100 * INT64CONST(1000))
#define WATCH_US	  USECS_PER_SEC /* workers are looked at so often */

static EqDatabase *db;
static MemoryContext cycle_context;

/* Enqueues what the schedules want; when to come back, 0: no need. */
static TimestampTz
run_schedules(void)
{
	EqSpi spi;
	TimestampTz next = 0;
	bool isnull;
	Datum value;

	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	eq_spi_begin(&spi, eq_extension_owner(), SECURITY_LOCAL_USERID_CHANGE);
	if (SPI_execute("SELECT event_queue_internal.run_due_schedules()", false, 1) !=
		SPI_OK_SELECT)
		elog(ERROR, "could not run schedules");
	value = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull);
	if (!isnull)
		next = DatumGetTimestampTz(value);
	eq_spi_end(&spi);
	PopActiveSnapshot();
	CommitTransactionCommand();
	return next;
}

/* Runs one statement in a transaction of its own, as the owner. */
static void
run_statement(const char *sql)
{
	EqSpi spi;

	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	eq_spi_begin(&spi, eq_extension_owner(), SECURITY_LOCAL_USERID_CHANGE);
	if (SPI_execute(sql, false, 0) < 0)
		elog(ERROR, "could not run \"%s\"", sql);
	eq_spi_end(&spi);
	PopActiveSnapshot();
	CommitTransactionCommand();
}

/* Has executors stop the jobs in their hands that were cancelled. */
static void
stop_cancelled_jobs(void)
{
	EqSpi spi;

	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	eq_spi_begin(&spi, eq_extension_owner(), SECURITY_LOCAL_USERID_CHANGE);
	if (SPI_execute("SELECT j.job_id FROM event_queue.workers() w"
					" JOIN event_queue.job j ON j.job_id = w.current_job"
					" WHERE j.cancel",
					true, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not look for cancelled jobs");
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		bool isnull;

		eq_stop_job(DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[i],
												SPI_tuptable->tupdesc, 1, &isnull)));
	}
	eq_spi_end(&spi);
	PopActiveSnapshot();
	CommitTransactionCommand();
}

static TimestampTz
earlier(TimestampTz a, TimestampTz b)
{
	return b == 0 || a < b ? a : b;
}

static bool
is_over(TimestampTz at)
{
	return at != 0 && at <= GetCurrentTimestamp();
}

/* What the present cycle is about, and when steps are due. */
static bool config_changed;
static bool sweep;
static TimestampTz next_sweep = 0;
static TimestampTz next_keep = 0;
static TimestampTz next_schedule = 0;
static TimestampTz next_partitions = 0;
static TimestampTz next_history = 0;
static TimestampTz next_retention = 0;
static TimestampTz next_publish = 0;
static TimestampTz next_sample = 0;
static TimestampTz next_metrics = 0;
static TimestampTz metrics_round = 0; /* one that has begun */
static TimestampTz next_places = 0;
static TimestampTz next_alerts = 0;
static TimestampTz next_health = 0;
static bool clock_set_back = true; /* perhaps, before this process was there */

static void
configuration_step(void)
{
	/* What was read last holds until it can be read again. */
	config_changed = eq_read_queues();
	if (config_changed)
		eq_retry_items_now();
}

static EqStep config_step = {configuration_step, "configuration"};

static void
snapshots_step(void)
{
	if (pg_atomic_exchange_u32(&db->events_pending, 0) == 0 && !sweep)
		return;
	PG_TRY();
	{
		while (eq_order_snapshots())
			CHECK_FOR_INTERRUPTS();
	}
	PG_CATCH();
	{
		pg_atomic_write_u32(&db->events_pending, 1);
		PG_RE_THROW();
	}
	PG_END_TRY();
}

static void
timed_reviews_step(void)
{
	if (sweep || is_over(eq_next_timed_review()))
		eq_take_timed_reviews();
}

static void
reviews_step(void)
{
	if (pg_atomic_exchange_u32(&db->reviews_pending, 0) == 0 && !sweep)
		return;
	PG_TRY();
	{
		while (eq_review_jobs())
			CHECK_FOR_INTERRUPTS();
	}
	PG_CATCH();
	{
		pg_atomic_write_u32(&db->reviews_pending, 1);
		PG_RE_THROW();
	}
	PG_END_TRY();
}

static void
cancels_step(void)
{
	if (pg_atomic_exchange_u32(&db->cancels_pending, 0) == 0 && !sweep)
		return;
	PG_TRY();
	{
		stop_cancelled_jobs();
	}
	PG_CATCH();
	{
		pg_atomic_write_u32(&db->cancels_pending, 1);
		PG_RE_THROW();
	}
	PG_END_TRY();
}

static void
publish_step(void)
{
	if (eq_publish_interval_ms <= 0 || GetCurrentTimestamp() < next_publish)
		return;
	eq_publish_watermark();
	next_publish = GetCurrentTimestamp() + eq_publish_interval_ms * INT64CONST(1000);
}

static void
appends_step(void)
{
	if (sweep)
		eq_end_old_appends();
}

static void
schedules_step(void)
{
	if (!sweep && GetCurrentTimestamp() < next_schedule)
		return;
	next_schedule = run_schedules();
	if (next_schedule == 0)
		next_schedule = PG_INT64_MAX;
}

static void
lanes_step(void)
{
	if (sweep)
		run_statement("SELECT event_queue_internal.move_lanes()");
}

static void
counts_step(void)
{
	static bool wanted = false;
	static TimestampTz next = 0;

	if (pg_atomic_exchange_u32(&db->recount, 0) != 0)
		wanted = true;
	if (!wanted || GetCurrentTimestamp() < next)
		return;
	next = GetCurrentTimestamp() + COUNT_US;
	wanted = eq_count_rows();
}

static void
queues_step(void)
{
	PG_TRY();
	{
		eq_look_at_queues(sweep, sweep);
	}
	PG_CATCH();
	{
		pg_atomic_write_u32(&db->look_everywhere, 1);
		PG_RE_THROW();
	}
	PG_END_TRY();
}

/* Queues that keep finished jobs need their partitions before the next minute. */
static void
history_partitions_step(void)
{
	if (!config_changed && GetCurrentTimestamp() < next_partitions)
		return;
	run_statement("SELECT event_queue_internal.maintain_history_partitions()");
	next_partitions = GetCurrentTimestamp() + RETENTION_US;
}

static void
samples_step(void)
{
	if (GetCurrentTimestamp() < next_sample)
		return;
	eq_sample_counters();
	next_sample = GetCurrentTimestamp() + EQ_SAMPLE_US;
}

/* What was counted of each queue, job name and tenant goes to tables. */
static void
metrics_step(void)
{
	static bool begun = false;

	if (GetCurrentTimestamp() < next_metrics)
		return;
	if (!begun)
		run_statement("SELECT event_queue_internal.begin_samples()");
	begun = true;
	if (metrics_round == 0)
	{
		run_statement("SELECT event_queue_internal.make_room_for_samples()");
		run_statement("SELECT event_queue_internal.sample_queues()");
		next_metrics = 0;
	}
	if (!eq_sample_metrics(&metrics_round))
		next_metrics = GetCurrentTimestamp() + EQ_METRICS_US;
}

/*
 * A planned end loses nothing: as session.c does it, by last transactions.  Not if it
 * ends by itself (code 0): then there is no extension, or it is a copy.
 */
static void
sample_last_metrics(int code, Datum arg)
{
	if (code != 1 || RecoveryInProgress())
		return;
	AbortOutOfAnyTransaction();
	metrics_round = 0;
	do
		eq_limit_exit();
	while (eq_sample_metrics(&metrics_round));
	run_statement("SELECT event_queue_internal.end_samples()");
	eq_end_exit_limit();
}

/* Archiving calls reducers: that is for the keeper. */
static void
event_partitions_step(void)
{
	int64 wanted;

	if (!config_changed && GetCurrentTimestamp() < next_retention)
		return;
	StartTransactionCommand();
	wanted = eq_query_int64(
		"SELECT count(*) FROM event_queue_internal.partition_policy WHERE every IS NOT NULL OR keep IS NOT NULL",
		0);
	CommitTransactionCommand();
	next_retention = GetCurrentTimestamp() + RETENTION_US;
	if (wanted > 0)
	{
		/* One is at work yet, or has just ended: it may not have seen the change. */
		if (!eq_start_keeper())
			next_retention = GetCurrentTimestamp() +
							 EQ_RESTART_MS * INT64CONST(1000);
	}
	else
		eq_clear_faults(MyDatabaseId, "keeper", NULL);
}

/* Deletes what would grow forever: history, dead letters. */
static void
history_step(void)
{
	if (GetCurrentTimestamp() < next_history)
		return;
	run_statement("SELECT event_queue_internal.maintain_history()");
	next_history = GetCurrentTimestamp() + RETENTION_US;
}

/* Releases slots of shared memory whose queues or channels were dropped. */
static void
places_step(void)
{
	EqSpi spi;
	int32 *idle;
	int n;
	int at = 0;

	if (!config_changed && GetCurrentTimestamp() < next_places)
		return;
	StartTransactionCommand();
	/* Before the snapshot: what was in use by one that created it is not among them. */
	n = eq_idle_slots(&idle);
	qsort(idle, n, sizeof(int32), eq_compare_int32);
	PushActiveSnapshot(GetLatestSnapshot());
	eq_spi_begin(&spi, eq_extension_owner(), SECURITY_LOCAL_USERID_CHANGE);
	if (SPI_execute(
			"SELECT - c.channel_id FROM event_queue_internal.channel c"
			" UNION ALL SELECT q.queue_id FROM event_queue.queue q ORDER BY 1",
			true, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not read tables queue and channel");
	for (uint64 i = 0; i < SPI_processed && at < n; i++)
	{
		bool isnull;
		int32 id = DatumGetInt32(
			SPI_getbinval(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 1, &isnull));

		while (at < n && idle[at] < id)
			eq_give_back_idle_slot(idle[at++]);
		if (at < n && idle[at] == id)
			at++;
	}
	while (at < n)
		eq_give_back_idle_slot(idle[at++]);
	eq_spi_end(&spi);
	eq_forget_members();
	PopActiveSnapshot();
	CommitTransactionCommand();
	next_places = GetCurrentTimestamp() + PLACES_US;
}

/* Corrects times in tables after the clock was set back. */
static void
clock_step(void)
{
	if (!clock_set_back)
		return;
	run_statement("SELECT event_queue_internal.correct_times()");
	eq_reload_leases(false);
	clock_set_back = false;
}

/* Raises and resolves alerts; health(), which looks at tables, is asked less often. */
static void
alerts_step(void)
{
	TimestampTz now = GetCurrentTimestamp();
	int64 interval = eq_alert_interval_ms * INT64CONST(1000);
	bool with_health = now >= next_health;

	if (interval <= 0 || now < next_alerts)
		return;
	run_statement(with_health
					  ? "SELECT event_queue_internal.evaluate_alerts(true)"
					  : "SELECT event_queue_internal.evaluate_alerts(false)");
	if (with_health)
		next_health = now + HEALTH_ROUNDS * interval;
	next_alerts = now + interval;
}

/* The steps of a cycle, in their order (steps.c). */
static EqStep steps[] = {
	{clock_step, "clock"},
	{snapshots_step, "snapshots"},
	{timed_reviews_step, "groups whose time has come"},
	{reviews_step, "groups and dependencies"},
	{cancels_step, "cancelled jobs"},
	{publish_step, "watermark for standbys"},
	{appends_step, "old appends"},
	{schedules_step, "schedules"},
	{lanes_step, "lanes"},
	{counts_step, "counts of jobs"},
	{queues_step, "queues"},
	{history_partitions_step, "partitions of history"},
	{samples_step, "samples of counters"},
	{metrics_step, "samples of metrics"},
	{places_step, "places in shared memory"},
	{event_partitions_step, "partitions of events"},
	{history_step, "history and dead letters"},
	{alerts_step, "alerts"},
};

/* Notices a clock that was set back: forgets when steps are due by the old time. */
static void
watch_clock(void)
{
	static TimestampTz last = 0;
	TimestampTz now = GetCurrentTimestamp();

	if (now < last - CLOCK_BACK_US)
	{
		ereport(
			LOG,
			(errmsg("event_queue scheduler: the clock was set back by %.0f seconds",
					(last - now) / (double) USECS_PER_SEC)));
		next_sweep = next_schedule = next_partitions = next_history = 0;
		next_retention = next_publish = next_sample = next_places = 0;
		next_alerts = next_health = 0;
		next_metrics = 0;
		next_keep = 0;
		eq_forget_starts();
		for (int i = 0; i < lengthof(steps); i++)
			steps[i].retry_at = 0;
		clock_set_back = true;
	}
	last = now;
}

/*
 * A step that has failed does all that it has to do, due or not: else doing nothing
 * would count as success.  And it is tried at once when the configuration changed.
 */
static void
attempt(EqStep *step)
{
	bool was_sweep = sweep;
	bool was_changed = config_changed;
	bool has_failed = step->failures > 0;

	if (has_failed && config_changed)
		step->retry_at = 0;
	if (has_failed)
		sweep = config_changed = true;
	eq_attempt_step("scheduler", step);
	if (has_failed)
	{
		sweep = was_sweep;
		config_changed = was_changed;
	}
}

/* One round; returns when the next one is needed at the latest. */
static TimestampTz
run_cycle(void)
{
	TimestampTz now;
	TimestampTz wake_at;

	watch_clock();
	config_changed = false;
	eq_attempt_step("scheduler", &config_step);
	now = GetCurrentTimestamp();
	sweep = config_changed || now >= next_sweep;
	pgstat_report_activity(STATE_RUNNING, "event_queue scheduler");
	if (sweep)
		next_sweep = now + eq_sweep_interval();
	if (sweep || now >= next_keep)
	{
		/* A restore into this database; the next scheduler holds. */
		if (sweep && !eq_hold_copy())
		{
			eq_wake_executors(); /* they see it, too */
			eq_wake_rule_runner(db);
			proc_exit(0);
		}
		eq_keep_workers_running();
		next_keep = now + KEEP_US;
	}
	for (int i = 0; i < lengthof(steps); i++)
		attempt(&steps[i]);

	/* A step that backs off is not due before it is tried again. */
	now = GetCurrentTimestamp();
	wake_at = earlier(next_sweep, Max(next_schedule, now + CYCLE_US));
	wake_at = earlier(wake_at, Max(next_sample, now + CYCLE_US));
	wake_at = earlier(wake_at, Max(next_metrics, now + CYCLE_US));
	wake_at = earlier(wake_at, Max(next_retention, now + CYCLE_US));
	if (eq_alert_interval_ms > 0)
		wake_at = earlier(wake_at, Max(next_alerts, now + CYCLE_US));
	wake_at = earlier(wake_at, eq_next_timed_review());
	wake_at = earlier(wake_at, now + WATCH_US);
	wake_at = earlier(wake_at, eq_watch_workers());
	wake_at = earlier(wake_at, eq_send_stand_in());
	if (eq_publish_interval_ms > 0)
		wake_at = earlier(wake_at, Max(next_publish, now + CYCLE_US));
	wake_at = earlier(wake_at, eq_next_due_of_queues(wake_at));
	for (int i = 0; i < lengthof(steps); i++)
	{
		/* What is overdue because its step fails must not make this loop spin. */
		if (steps[i].failures > 0)
			wake_at = Max(earlier(wake_at, steps[i].retry_at), now + FAILING_US);
	}
	return wake_at;
}

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

	if (now - last < CYCLE_US && now >= last)
		pg_usleep(CYCLE_US - (now - last));
	last = GetCurrentTimestamp();
}

/*
 * What the scheduler before this one, or the server that crashed, has left: leases
 * of sessions that are no more, and counts that are not known.
 */
static void
start_afresh(void)
{
	PG_TRY();
	{
		StartTransactionCommand();
		PushActiveSnapshot(GetTransactionSnapshot());
		eq_end_leases(
			"WHERE j.lease_pid IS NOT NULL AND j.leased_until > pg_catalog.clock_timestamp()"
			" AND NOT EXISTS (SELECT FROM pg_catalog.pg_stat_activity a WHERE a.pid = j.lease_pid)",
			0, NULL, NULL);
		PopActiveSnapshot();
		CommitTransactionCommand();
		if (eq_count_rows())
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
hold_while_copy(void)
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
			active = !due && eq_hold_copy();
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
	SetConfigOption("lock_timeout", LOCK_WAIT_MS, PGC_SUSET, PGC_S_OVERRIDE);

	cycle_context = AllocSetContextCreate(
		TopMemoryContext, "event_queue scheduler cycle", ALLOCSET_DEFAULT_SIZES);
	hold_while_copy();
	eq_clear_faults(dboid, "scheduler", NULL);
	start_afresh();
	before_shmem_exit(sample_last_metrics, (Datum) 0);
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
			wake_at = run_cycle();
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
		pg_atomic_write_u32(&eq_shared->probe, 1);
	}
	else
		eq_give_back_all_slots(dboid);
	eq_wake_executors(); /* they see it, too */
	eq_wake_rule_runner(db);
	proc_exit(0);
}
