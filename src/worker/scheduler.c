/*
 * scheduler.c: one per database: rules, wake-ups, schedules, retention.
 *
 * Sleeps on its latch, which commits set (wake/wake.c), until the next job or
 * schedule is due, and at most until the next sweep.  A sweep looks at every
 * queue whatever the flags say, so that expired leases and jobs that came by
 * another way (COPY, prepared transactions, a restore) are found within a
 * stalled_interval.
 *
 * Its own transactions commit asynchronously: rules and their checkpoint are
 * lost together or not at all, and what a lost one enqueued is enqueued again.
 */
#include "postgres.h"

#include "access/xact.h"
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

#include "compat.h"
#include "event_queue.h"
#include "queue/queue.h"
#include "rules/rules.h"
#include "store/store.h"
#include "table/table.h"
#include "wake/wake.h"
#include "worker/worker.h"

#define RETENTION_US (60 * USECS_PER_SEC)
#define CYCLE_US	 2000				  /* cycles under load are so far apart */
#define COUNT_US	 (10 * USECS_PER_SEC) /* rows are not counted more often */
#define MOVE_BATCH	 1000				  /* of jobs that came due in a fair queue */
#define RESTART_MS	 1000 /* before an executor that ended is started again */

/* A queue or a channel, as the scheduler keeps it. */
typedef struct Watched
{
	int32 id; /* queue_id, or - channel_id */
	char channel[NAMEDATALEN];
	bool has_handlers;
	TimestampTz next_due; /* of its jobs; 0: unknown */
	bool has_work;		  /* found in this cycle */
} Watched;

static EqDatabase *db;
static MemoryContext config_context;
static MemoryContext cycle_context;
static Watched *watched;
static int n_watched;
static int64 sweep_interval;
static uint32 config_seen;
static bool config_known = false;
static BackgroundWorkerHandle *executors[EQ_MAX_EXECUTORS];
static TimestampTz executor_started[EQ_MAX_EXECUTORS];

/* Reads queues and channels, if they changed. True if it did. */
static bool
read_config(void)
{
	uint32 generation = pg_atomic_read_u32(&db->config_generation);
	bool events_wanted = false;
	EqSpi spi;

	if (config_known && generation == config_seen)
		return false;

	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	eq_spi_begin(&spi, eq_extension_owner(), SECURITY_LOCAL_USERID_CHANGE);
	if (SPI_execute(
			"SELECT q.queue_id, 'event_queue.' || q.name, q.queue_id <= 2 OR EXISTS"
			" (SELECT FROM event_queue.handler h WHERE h.queue_id = q.queue_id),"
			" (EXTRACT(epoch FROM q.stalled_interval) * 1000000)::bigint"
			" FROM event_queue.queue q"
			" UNION ALL SELECT - c.channel_id, c.name, false, NULL FROM event_queue.channel c"
			" UNION ALL SELECT 0, '', false, NULL WHERE EXISTS"
			" (SELECT FROM event_queue.rule WHERE enabled) OR EXISTS"
			" (SELECT FROM event_queue.reducer WHERE snapshot_every > 0)",
			true, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not read tables queue and channel");
	MemoryContextReset(config_context);
	watched = MemoryContextAllocZero(config_context,
									 Max(SPI_processed, 1) * sizeof(Watched));
	n_watched = 0;
	sweep_interval = 5 * USECS_PER_SEC;
	for (int i = 0; i < SPI_processed; i++)
	{
		HeapTuple row = SPI_tuptable->vals[i];
		TupleDesc desc = SPI_tuptable->tupdesc;
		Watched *w = &watched[n_watched];
		bool isnull;
		Datum interval;

		w->id = DatumGetInt32(SPI_getbinval(row, desc, 1, &isnull));
		if (w->id == 0) /* no queue: someone wants events */
		{
			events_wanted = true;
			continue;
		}
		n_watched++;
		strlcpy(w->channel, SPI_getvalue(row, desc, 2), NAMEDATALEN);
		w->has_handlers = DatumGetBool(SPI_getbinval(row, desc, 3, &isnull));
		interval = SPI_getbinval(row, desc, 4, &isnull);
		if (!isnull)
			sweep_interval = Min(sweep_interval, DatumGetInt64(interval));
	}
	eq_spi_end(&spi);
	PopActiveSnapshot();
	CommitTransactionCommand();
	config_seen = generation;
	config_known = true;
	/* A full barrier: run_cycle looks at events_pending afterwards. */
	pg_atomic_exchange_u32(&db->events_wanted, events_wanted);
	return true;
}

/* Of a fair queue, in the present transaction; comes back soon if there are more. */
static void
move_due_jobs(const EqQueue *queue, EqWakeSlot *slot)
{
	if (eq_move_due_jobs(queue, MOVE_BATCH) == MOVE_BATCH && slot)
	{
		pg_atomic_write_u32(&slot->pending, 1);
		SetLatch(MyLatch);
	}
}

/*
 * Looks at the queues that have their flag up or a job due, or at all of them,
 * sends NOTIFY for those with work, and wakes the executors.  A sweep also has a
 * look below the ready marks (queue/mark.c).
 */
static void
look_at_queues(bool all, bool sweep)
{
	TimestampTz now = GetCurrentTimestamp();
	bool plain_sql = false;
	static bool count_wanted = false;
	static TimestampTz next_count = 0;
	bool wake = false;
	bool open = false;

	if (pg_atomic_exchange_u32(&db->look_everywhere, 0) != 0)
		all = plain_sql = true;
	if (pg_atomic_exchange_u32(&db->recount, 0) != 0)
		count_wanted = true;
	if (count_wanted && now >= next_count)
	{
		count_wanted = eq_count_rows();
		next_count = now + COUNT_US;
	}

	for (int i = 0; i < n_watched; i++)
	{
		Watched *w = &watched[i];
		bool pending = eq_take_pending(w->id);

		w->has_work = false;
		if (!pending && !all && !(w->next_due != 0 && w->next_due <= now))
			continue;
		if (!open)
		{
			StartTransactionCommand();
			PushActiveSnapshot(GetTransactionSnapshot());
			open = true;
		}
		if (w->id < 0)
			w->has_work = pending;
		else
		{
			const EqQueue *queue = eq_get_queue_by_id(w->id);

			if (queue != NULL)
			{
				EqWakeSlot *slot = eq_wake_slot(w->id);

				if (sweep || plain_sql)
					eq_sweep_marks(queue);
				if (queue->fair)
					move_due_jobs(queue, slot);
				w->has_work = eq_peek(queue, &w->next_due);
				/* Jobs that came due; for those that came, their commit did it. */
				if (w->has_work && slot && (!pending || all))
					eq_wake_waiters(slot, PG_INT64_MAX);
			}
			wake = wake || (w->has_work && w->has_handlers);
		}
		if (w->has_work && (w->id < 0 || eq_notify_mode == EQ_NOTIFY_WORKER))
			Async_Notify(w->channel, "");
	}
	if (open)
	{
		PopActiveSnapshot();
		CommitTransactionCommand();
	}
	if (wake)
		eq_wake_executors();
}

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
	if (SPI_execute("SELECT event_queue.run_due_schedules()", false, 1) !=
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

/* One step of what partitions of events need; true if there was one. */
static bool
maintain_partitions(void)
{
	int64 done;

	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	done = eq_query_int64("SELECT event_queue.maintain_partitions()::int::bigint",
						  0);
	PopActiveSnapshot();
	CommitTransactionCommand();
	return done != 0;
}

/* Starts executors that are missing. */
static void
keep_executors_running(void)
{
	for (int i = 0; i < eq_executors; i++)
	{
		TimestampTz now = GetCurrentTimestamp();
		pid_t pid;

		if (executors[i] &&
			GetBackgroundWorkerPid(executors[i], &pid) == BGWH_STOPPED)
		{
			pfree(executors[i]);
			executors[i] = NULL;
		}
		/* One may be left from a scheduler before this one. */
		if (executors[i] ||
			eq_worker_is_alive(MyDatabaseId, EQ_WORKER_EXECUTOR, i) ||
			!TimestampDifferenceExceeds(executor_started[i], now, RESTART_MS))
			continue;
		executor_started[i] = now;
		MemoryContextSwitchTo(TopMemoryContext); /* for the handle */
		if (!eq_start_worker(EQ_WORKER_EXECUTOR, MyDatabaseId, i, &executors[i]))
			ereport(
				WARNING,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg(
					 "event_queue: no free background worker for executor %d of database %u",
					 i, MyDatabaseId),
				 errhint("Raise max_worker_processes and restart the server.")));
	}
	MemoryContextSwitchTo(cycle_context);
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
static TimestampTz next_schedule = 0;
static TimestampTz next_partitions = 0;
static TimestampTz next_history = 0;
static TimestampTz next_retention = 0;
static TimestampTz next_publish = 0;
static TimestampTz next_sample = 0;

static void
rules_step(void)
{
	if (pg_atomic_exchange_u32(&db->events_pending, 0) == 0 && !sweep)
		return;
	PG_TRY();
	{
		while (eq_run_rules())
		{
			CHECK_FOR_INTERRUPTS();
			/* executors need not wait for all of them */
			look_at_queues(false, false);
		}
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
reviews_step(void)
{
	if (pg_atomic_exchange_u32(&db->reviews_pending, 0) == 0 && !sweep &&
		!is_over(eq_next_timed_review()))
		return;
	PG_TRY();
	{
		while (eq_review_jobs(sweep))
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
		run_statement("SELECT event_queue.move_lanes()");
}

static void
queues_step(void)
{
	PG_TRY();
	{
		look_at_queues(sweep, sweep);
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
	run_statement("SELECT event_queue.maintain_history_partitions()");
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

static void
event_partitions_step(void)
{
	if (GetCurrentTimestamp() < next_retention)
		return;
	while (maintain_partitions())
		CHECK_FOR_INTERRUPTS();
	next_retention = GetCurrentTimestamp() + RETENTION_US;
}

/* What must not grow for ever: history, dead letters. */
static void
history_step(void)
{
	if (GetCurrentTimestamp() < next_history)
		return;
	run_statement("SELECT event_queue.maintain_history()");
	next_history = GetCurrentTimestamp() + RETENTION_US;
}

/* The steps of a cycle, in their order (steps.c). */
static EqStep steps[] = {
	{rules_step, "rules"},
	{reviews_step, "groups and dependencies"},
	{cancels_step, "cancelled jobs"},
	{publish_step, "watermark for standbys"},
	{schedules_step, "schedules"},
	{lanes_step, "lanes"},
	{queues_step, "queues"},
	{history_partitions_step, "partitions of history"},
	{samples_step, "samples of counters"},
	{event_partitions_step, "partitions of events"},
	{history_step, "history and dead letters"},
};

/* One round; returns when the next one is needed at the latest. */
static TimestampTz
run_cycle(void)
{
	TimestampTz now;
	TimestampTz wake_at;

	config_changed = read_config();
	sweep = config_changed || GetCurrentTimestamp() >= next_sweep;
	pgstat_report_activity(STATE_RUNNING, "event_queue scheduler");
	if (sweep)
	{
		keep_executors_running();
		next_sweep = GetCurrentTimestamp() + sweep_interval;
	}
	for (int i = 0; i < lengthof(steps); i++)
		eq_attempt_step("scheduler", &steps[i]);

	/* A step that backs off is not due before it is tried again. */
	now = GetCurrentTimestamp();
	wake_at = earlier(next_sweep, Max(next_schedule, now + CYCLE_US));
	wake_at = earlier(wake_at, Max(next_sample, now + CYCLE_US));
	wake_at = earlier(wake_at, eq_next_timed_review());
	if (eq_publish_interval_ms > 0)
		wake_at = earlier(wake_at, Max(next_publish, now + CYCLE_US));
	for (int i = 0; i < n_watched; i++)
		wake_at = earlier(wake_at, watched[i].next_due);
	for (int i = 0; i < lengthof(steps); i++)
	{
		/* What is overdue because its step fails must not make this loop spin. */
		if (steps[i].failures > 0)
			wake_at = Max(wake_at, now + 50000);
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

void
eq_scheduler_main(Datum arg)
{
	Oid dboid = DatumGetObjectId(arg);

	eq_init_worker(EQ_WORKER_SCHEDULER, dboid, 0);
	if (!eq_extension_is_here())
		proc_exit(0);
	db = eq_database();
	pg_atomic_write_u32(&db->absent, 0);
	pg_atomic_write_u32(&db->scheduler, EQ_MY_PROC_NUMBER + 1);
	pg_atomic_write_u32(&db->events_pending, 1);
	SetConfigOption("synchronous_commit", "off", PGC_SUSET, PGC_S_OVERRIDE);

	config_context = AllocSetContextCreate(TopMemoryContext,
										   "event_queue scheduler configuration",
										   ALLOCSET_DEFAULT_SIZES);
	cycle_context = AllocSetContextCreate(
		TopMemoryContext, "event_queue scheduler cycle", ALLOCSET_DEFAULT_SIZES);
	eq_clear_faults(dboid, "scheduler");
	start_afresh();
	while (eq_extension_is_here())
	{
		volatile TimestampTz wake_at = 0;

		MemoryContextSwitchTo(cycle_context);
		pause_between_cycles();
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
			config_known = false;
			pg_atomic_write_u32(&db->events_pending, 1);
			pg_atomic_write_u32(&db->look_everywhere, 1);
			RESUME_INTERRUPTS();
		}
		PG_END_TRY();
		if (wake_at == 0)
			eq_worker_back_off();
		MemoryContextReset(cycle_context);
		pgstat_report_stat(true);
		eq_worker_wait(
			Max(TimestampDifferenceMilliseconds(GetCurrentTimestamp(), wake_at), 0) +
			1);
	}
	pg_atomic_write_u32(&db->absent, 1);
	eq_wake_executors(); /* they see it, too */
	proc_exit(0);
}
