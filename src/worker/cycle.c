/*
 * cycle.c: one round of the scheduler (scheduler.c): its chores, and when each is due.
 *
 * A sweep looks at every queue whatever the flags say, so that expired leases and jobs
 * that came by another way (COPY, prepared transactions, a restore) are found within a
 * stalled_interval.
 */
#include "postgres.h"

#include "access/xact.h"
#include "access/xlog.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "storage/ipc.h"
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
#define SLOTS_US	  (10 * USECS_PER_SEC)
#define COUNT_US	  (10 * USECS_PER_SEC) /* rows are not counted more often */
#define CLOCK_BACK_US (1 * USECS_PER_SEC)  /* less is no matter */
#define HEALTH_ROUNDS 3					   /* looks at alerts for one at health() */
#define FAILING_US	  20000 /* cycles are so far apart while a chore fails */
#define KEEP_US		  (100 * INT64CONST(1000))
#define WATCH_US	  USECS_PER_SEC /* workers are looked at so often */
#define TURN_US                                                                     \
	(100 * INT64CONST(1000)) /* after which a chore lets others have theirs */
#define DELETE_US	  (20 * INT64CONST(1000)) /* history: so long, then a pause */
#define LIMIT_MS	  10000 /* of chores whose tables may have triggers of users */
#define LONG_LIMIT_MS 60000 /* of those that read all tables */

static EqDatabase *db;

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

/* State of the present cycle, and when chores are due. */
static bool config_changed;
static bool sweep;
static TimestampTz next_sweep = 0;
static TimestampTz next_keep = 0;
static TimestampTz next_schedule = 0;
static TimestampTz next_partitions = 0;
static TimestampTz next_history = 0;
static int64 history_task = 0; /* of the round that is under way; 0: none is */
static TimestampTz next_retention = 0;
static TimestampTz next_publish = 0;
static TimestampTz next_sample = 0;
static TimestampTz next_metrics = 0;
static TimestampTz metrics_round = 0; /* one that has begun */
static TimestampTz next_slots = 0;
static TimestampTz next_count = 0;
static TimestampTz next_alerts = 0;
static TimestampTz next_health = 0;
static bool clock_set_back = true; /* perhaps, before this process was there */

static void
configuration_chore(void)
{
	/* Until it can be read again, the configuration that was read last holds. */
	config_changed = eq_read_queues();
	if (config_changed)
		eq_retry_items_now();
}

static EqChore config_chore = {configuration_chore, "configuration"};

/*
 * Does what is pending, in transactions of step's, as long as there is more and the turn is
 * not over: one tenant may bring more than is done in seconds, and other chores wait.
 */
static void
take_turn(bool (*step)(void), pg_atomic_uint32 *pending)
{
	if (pg_atomic_exchange_u32(pending, 0) == 0 && !sweep)
		return;
	PG_TRY();
	{
		TimestampTz until = GetCurrentTimestamp() + TURN_US;
		bool more = true;

		while (more && GetCurrentTimestamp() < until)
		{
			CHECK_FOR_INTERRUPTS();
			more = step();
		}
		if (more)
		{
			pg_atomic_write_u32(pending, 1);
			SetLatch(MyLatch);
		}
	}
	PG_CATCH();
	{
		pg_atomic_write_u32(pending, 1);
		PG_RE_THROW();
	}
	PG_END_TRY();
}

static void
snapshots_chore(void)
{
	take_turn(eq_order_snapshots, &db->events_pending);
}

static void
timed_reviews_chore(void)
{
	if (sweep || is_over(eq_next_timed_review()))
		eq_take_timed_reviews(config_changed);
}

static void
reviews_chore(void)
{
	take_turn(eq_review_jobs, &db->reviews_pending);
}

/*
 * Gives events to the steps that wait for them, and wakes jobs that were busy.  Where much
 * is awaited, other chores of the cycle have their turn in between.
 */
static void
waits_chore(void)
{
	if (pg_atomic_exchange_u32(&db->waits_pending, 0) == 0 && !sweep)
		return;
	/* Before the look: who begins to wait later says so at the commit. */
	if (pg_atomic_exchange_u32(&db->event_waiters, 0) == 0 && !sweep)
		return;
	PG_TRY();
	{
		bool more = true;
		TimestampTz until = GetCurrentTimestamp() + TURN_US;

		StartTransactionCommand();
		if (eq_query_int64(
				"SELECT event_queue_internal.events_are_awaited()::int::bigint", 0))
			pg_atomic_exchange_u32(&db->event_waiters, 1);
		CommitTransactionCommand();
		while (more && GetCurrentTimestamp() < until)
		{
			CHECK_FOR_INTERRUPTS();
			StartTransactionCommand();
			PushActiveSnapshot(GetTransactionSnapshot());
			more = eq_query_int64(
					   "SELECT event_queue_internal.match_events()::int::bigint",
					   0) != 0;
			PopActiveSnapshot();
			CommitTransactionCommand();
		}
		if (more)
		{
			pg_atomic_exchange_u32(&db->event_waiters, 1);
			pg_atomic_exchange_u32(&db->waits_pending, 1);
			SetLatch(MyLatch);
		}
	}
	PG_CATCH();
	{
		pg_atomic_write_u32(&db->event_waiters, 1);
		pg_atomic_write_u32(&db->waits_pending, 1);
		PG_RE_THROW();
	}
	PG_END_TRY();
}

static void
cancels_chore(void)
{
	if (pg_atomic_exchange_u32(&db->cancels_pending, 0) == 0 && !sweep)
		return;
	PG_TRY();
	{
		eq_stop_cancelled_jobs();
	}
	PG_CATCH();
	{
		pg_atomic_write_u32(&db->cancels_pending, 1);
		PG_RE_THROW();
	}
	PG_END_TRY();
}

static void
publish_chore(void)
{
	if (eq_publish_interval_ms <= 0 || GetCurrentTimestamp() < next_publish)
		return;
	eq_publish_watermark();
	next_publish = GetCurrentTimestamp() + eq_publish_interval_ms * INT64CONST(1000);
}

static void
appends_chore(void)
{
	if (sweep)
		eq_end_old_appends();
}

static void
schedules_chore(void)
{
	if (!sweep && GetCurrentTimestamp() < next_schedule)
		return;
	next_schedule = run_schedules();
	if (next_schedule == 0)
		next_schedule = PG_INT64_MAX;
}

static void
lanes_chore(void)
{
	if (sweep)
		run_statement("SELECT event_queue_internal.move_lanes()");
}

static void
counts_chore(void)
{
	static bool wanted = false;
	static bool any_since = false; /* prepared since the last count, perhaps */
	static int64 n_prepared = 0;   /* then */
	int64 n;

	if (pg_atomic_exchange_u32(&db->recount, 0) != 0)
		wanted = any_since = true;
	if (!wanted || GetCurrentTimestamp() < next_count)
		return;
	next_count = GetCurrentTimestamp() + COUNT_US;
	n = eq_count_rows();
	wanted = n > 0;
	/* Leases of prepared transactions that were rolled back must not count. */
	if (any_since || n < n_prepared)
		eq_reload_leases(false);
	n_prepared = n;
	any_since = false;
}

static void
queues_chore(void)
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
history_partitions_chore(void)
{
	if (!config_changed && GetCurrentTimestamp() < next_partitions)
		return;
	run_statement("SELECT event_queue_internal.maintain_history_partitions()");
	next_partitions = GetCurrentTimestamp() + RETENTION_US;
}

static void
samples_chore(void)
{
	if (GetCurrentTimestamp() < next_sample)
		return;
	eq_sample_counters();
	next_sample = GetCurrentTimestamp() + EQ_RATES_US;
}

/* Writes samples of the counters of queues, job names and tenants to tables. */
static void
metrics_chore(void)
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
void
eq_sample_last_metrics(int code, Datum arg)
{
	if (code != 1 || RecoveryInProgress())
		return;
	AbortOutOfAnyTransaction();
	DefaultXactReadOnly = false; /* of this process, which ends */
	metrics_round = 0;
	do
		eq_limit_exit();
	while (eq_sample_metrics(&metrics_round));
	run_statement("SELECT event_queue_internal.end_samples()");
	eq_end_exit_limit();
}

/* Archiving calls reducers: that is for the keeper. */
static void
event_partitions_chore(void)
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

/*
 * Deletes what would grow forever: history, dead letters.  Some at a time, each in a
 * transaction of its own, with pauses: millions may have come of age at once.
 */
static void
history_chore(void)
{
	TimestampTz began = GetCurrentTimestamp();

	if (began < next_history)
		return;
	do
	{
		CHECK_FOR_INTERRUPTS();
		StartTransactionCommand();
		history_task = eq_query_int64(
			"SELECT event_queue_internal.maintain_history($1)", history_task);
		CommitTransactionCommand();
	} while (history_task != 0 && GetCurrentTimestamp() < began + DELETE_US);
	next_history = GetCurrentTimestamp() +
				   (history_task != 0 ? DELETE_US : RETENTION_US);
}

/* Releases slots of shared memory whose queues or channels were dropped. */
static void
slots_chore(void)
{
	EqSpi spi;
	int32 *idle;
	int n;
	int at = 0;

	if (!config_changed && GetCurrentTimestamp() < next_slots)
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
	next_slots = GetCurrentTimestamp() + SLOTS_US;
}

/* Corrects times in tables after the clock was set back. */
static void
clock_chore(void)
{
	if (!clock_set_back)
		return;
	run_statement("SELECT event_queue_internal.correct_times()");
	run_statement("SELECT event_queue_internal.correct_waits()");
	eq_reload_leases(false);
	clock_set_back = false;
}

/* Raises and resolves alerts; health(), which looks at tables, is asked less often. */
static void
alerts_chore(void)
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

/* The chores of a cycle, in their order (chores.c). */
static EqChore chores[] = {
	{clock_chore, "clock"},
	{snapshots_chore, "snapshots"},
	{timed_reviews_chore, "groups whose time has come", .limit_ms = LIMIT_MS},
	{reviews_chore, "groups and dependencies"},
	{waits_chore, "waiting steps", .limit_ms = LIMIT_MS},
	{cancels_chore, "cancelled jobs"},
	{publish_chore, "watermark for standbys", .limit_ms = LIMIT_MS},
	{appends_chore, "old appends"},
	{schedules_chore, "schedules", .limit_ms = LIMIT_MS},
	{lanes_chore, "lanes"},
	{counts_chore, "counts of jobs"},
	{queues_chore, "queues"}, /* also between others: look_meanwhile */
	{eq_send_notifications, "notifications"}, /* likewise */
	{history_partitions_chore, "partitions of history"},
	{samples_chore, "samples of counters", .limit_ms = LIMIT_MS},
	{metrics_chore, "samples of metrics", .limit_ms = LIMIT_MS},
	{slots_chore, "slots in shared memory"},
	{event_partitions_chore, "partitions of events"},
	{history_chore, "history and dead letters", .limit_ms = LIMIT_MS},
	{alerts_chore, "alerts", .limit_ms = LONG_LIMIT_MS},
};

/* Notices a clock that was set back: forgets when chores are due by the old time. */
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
		next_retention = next_publish = next_sample = next_slots = 0;
		next_alerts = next_health = 0;
		next_metrics = next_count = 0;
		next_keep = 0;
		eq_forget_starts();
		for (int i = 0; i < lengthof(chores); i++)
			chores[i].retry_at = 0;
		clock_set_back = true;
	}
	last = now;
}

/*
 * A chore that has failed does all that it has to do, due or not: else doing nothing
 * would count as success.  And it is tried at once when the configuration changed.
 */
static void
attempt(EqChore *chore)
{
	bool was_sweep = sweep;
	bool was_changed = config_changed;
	bool has_failed = chore->failures > 0;

	if (has_failed && config_changed)
		chore->retry_at = 0;
	if (has_failed)
		sweep = config_changed = true;
	eq_attempt_chore("scheduler", chore);
	if (has_failed)
	{
		sweep = was_sweep;
		config_changed = was_changed;
	}
}

/*
 * Jobs that came do not wait for chores that take their time: queues whose flag is up
 * are looked at first, and again after what took longer than a cycle should.
 */
static void
look_meanwhile(void)
{
	static TimestampTz last = 0;
	TimestampTz now = GetCurrentTimestamp();
	bool was_sweep = sweep;

	if (now - last < EQ_CYCLE_US && now >= last)
		return;
	sweep = false;
	for (int i = 0; i < lengthof(chores); i++)
	{
		if (chores[i].run == queues_chore || chores[i].run == eq_send_notifications)
			attempt(&chores[i]);
	}
	sweep = was_sweep;
	last = GetCurrentTimestamp();
}

/* One round; returns when the next one is needed at the latest. */
TimestampTz
eq_run_cycle(void)
{
	TimestampTz now;
	TimestampTz wake_at;

	db = eq_database();
	watch_clock();
	config_changed = false;
	eq_attempt_chore("scheduler", &config_chore);
	now = GetCurrentTimestamp();
	sweep = config_changed || now >= next_sweep;
	pgstat_report_activity(STATE_RUNNING, "event_queue scheduler");
	if (sweep)
		next_sweep = now + eq_sweep_interval();
	if (sweep || now >= next_keep)
	{
		/* A restore into this database; the next scheduler holds. */
		if (sweep && !eq_in_service())
		{
			eq_wake_executors(); /* they see it, too */
			eq_wake_rule_runner(db);
			proc_exit(0);
		}
		eq_keep_workers_running();
		next_keep = now + KEEP_US;
	}
	for (int i = 0; i < lengthof(chores); i++)
	{
		look_meanwhile();
		attempt(&chores[i]);
	}

	/* A chore that backs off is not due before it is tried again. */
	now = GetCurrentTimestamp();
	wake_at = earlier(next_sweep, Max(next_schedule, now + EQ_CYCLE_US));
	wake_at = earlier(wake_at, Max(next_sample, now + EQ_CYCLE_US));
	wake_at = earlier(wake_at, Max(next_metrics, now + EQ_CYCLE_US));
	wake_at = earlier(wake_at, Max(next_retention, now + EQ_CYCLE_US));
	if (history_task != 0)
		wake_at = earlier(wake_at, Max(next_history, now + EQ_CYCLE_US));
	if (eq_alert_interval_ms > 0)
		wake_at = earlier(wake_at, Max(next_alerts, now + EQ_CYCLE_US));
	wake_at = earlier(wake_at, eq_next_timed_review());
	wake_at = earlier(wake_at, now + WATCH_US);
	wake_at = earlier(wake_at, eq_watch_workers());
	wake_at = earlier(wake_at, eq_send_stand_in());
	if (eq_publish_interval_ms > 0)
		wake_at = earlier(wake_at, Max(next_publish, now + EQ_CYCLE_US));
	wake_at = earlier(wake_at, eq_next_due_of_queues(wake_at));
	for (int i = 0; i < lengthof(chores); i++)
	{
		/* A chore that fails is overdue, and must not make this loop spin. */
		if (chores[i].failures > 0)
			wake_at = Max(earlier(wake_at, chores[i].retry_at), now + FAILING_US);
	}
	return wake_at;
}
