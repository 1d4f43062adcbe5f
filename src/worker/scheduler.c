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
#include "utils/resowner.h"
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

#define RETENTION_US  (60 * USECS_PER_SEC)
#define PLACES_US	  (10 * USECS_PER_SEC)
#define CYCLE_US	  2000				   /* cycles under load are so far apart */
#define COUNT_US	  (10 * USECS_PER_SEC) /* rows are not counted more often */
#define MOVE_BATCH	  1000				  /* of jobs that came due in a fair queue */
#define CLOCK_BACK_US (1 * USECS_PER_SEC) /* less is no matter */
#define LOOK_BATCH	  100  /* queues that are looked at with one snapshot */
#define RESTART_MS	  1000 /* before a worker that ended is started again */
#define HOLD_MS		  5000 /* looks at a copy are so far apart */
#define LOCK_WAIT_MS  "50"
#define FAILING_US	  20000 /* cycles are so far apart while a step fails */
#define KEEP_US		  (100 * INT64CONST(1000))
#define WATCH_US	  USECS_PER_SEC /* workers are looked at so often */

/* A queue or a channel, as the scheduler keeps it. */
typedef struct Watched
{
	int32 id;		  /* queue_id, or - channel_id */
	EqWakeSlot *slot; /* where it was found last; NULL: not yet */
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
static int64 sweep_interval = 5 * USECS_PER_SEC;
static uint32 config_seen;
static bool config_known = false;

/* A worker that the scheduler has started. */
typedef struct Child
{
	BackgroundWorkerHandle *handle; /* NULL: none */
	TimestampTz started_at;
} Child;

static Child executors[2 * EQ_MAX_EXECUTORS]; /* with those that stand in */
static Child rule_runner;
static Child keeper;
static bool work_waits = false; /* jobs of handlers, when last looked */

/* Reads queues and channels, if they changed. True if it did. */
static bool
read_config(void)
{
	uint32 generation = pg_atomic_read_u32(&db->config_generation);
	uint32 events_wanted = 0;
	int n_without = 0;
	static int warned_of = 0;
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
			" UNION ALL SELECT - c.channel_id, c.name, false, NULL FROM event_queue_internal.channel c"
			" UNION ALL SELECT 0, '', EXISTS (SELECT FROM event_queue.rule WHERE enabled),"
			" (EXISTS (SELECT FROM event_queue.reducer WHERE snapshot_every > 0))::int::bigint",
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
		if (w->id == 0) /* no queue: who wants events */
		{
			if (DatumGetBool(SPI_getbinval(row, desc, 3, &isnull)))
				events_wanted |= EQ_EVENTS_FOR_RULES;
			if (DatumGetInt64(SPI_getbinval(row, desc, 4, &isnull)) != 0)
				events_wanted |= EQ_EVENTS_FOR_SNAPSHOTS;
			continue;
		}
		n_watched++;
		strlcpy(w->channel, SPI_getvalue(row, desc, 2), NAMEDATALEN);
		w->slot = eq_wake_slot(w->id);
		if (w->slot == NULL)
			n_without++;
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
	if (n_without > 0 && n_without != warned_of)
		ereport(
			WARNING,
			(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
			 errmsg(
				 "event_queue: %d queues and channels of this database have no room in shared memory",
				 n_without),
			 errdetail(
				 "They have no counters, workers are woken for them late, and those with limits can't be claimed from."),
			 errhint("Raise event_queue.max_queues (now %d) and restart the server.",
					 eq_max_queues)));
	warned_of = db->without_slots = n_without;
	/* What was missing may be there; what is not is found out again. */
	eq_clear_faults(MyDatabaseId, "handler", NULL);
	eq_clear_faults(MyDatabaseId, "rule function", NULL);
	eq_clear_faults(MyDatabaseId, "queue", NULL);
	/* A full barrier: whoever reads events looks at his flag afterwards. */
	pg_atomic_exchange_u32(&db->events_wanted, events_wanted);
	eq_wake_rule_runner(db);
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
 * Looks at one queue.  A sweep also has a look below the ready marks (queue/mark.c).
 */
static void
look_at_queue(Watched *w, bool pending, bool all, bool sweep_marks)
{
	const EqQueue *queue = eq_get_queue_by_id(w->id);
	EqWakeSlot *slot;

	if (queue == NULL)
		return;
	slot = eq_wake_slot(w->id);
	if (sweep_marks)
		eq_sweep_marks(queue);
	if (queue->fair)
		move_due_jobs(queue, slot);
	w->has_work = eq_peek(queue, &w->next_due);
	/* Jobs that came due; for those that came, their commit did it. */
	if (w->has_work && slot && (!pending || all))
		eq_wake_waiters(slot, PG_INT64_MAX);
}

/*
 * The same, so that an error in it is this queue's own.  A lock that can't be had is
 * one on a table: it is the others' error, too.
 */
static void
try_queue(Watched *w, bool pending, bool all, bool sweep_marks)
{
	const char *name = w->channel + strlen(EQ_SCHEMA ".");
	MemoryContext context = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	TimestampTz retry_at;
	int failures = eq_failures_of("wake-ups of queue", name, &retry_at);

	if (failures > 0 && retry_at > GetCurrentTimestamp())
	{
		w->next_due = retry_at;
		return;
	}
	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(context);
	PG_TRY();
	{
		look_at_queue(w, pending, all, sweep_marks);
		ReleaseCurrentSubTransaction();
		MemoryContextSwitchTo(context);
		CurrentResourceOwner = owner;
		if (failures > 0)
			eq_clear_item("wake-ups of queue", name, false);
	}
	PG_CATCH();
	{
		ErrorData *error;

		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
		MemoryContextSwitchTo(context);
		CurrentResourceOwner = owner;
		if (error->sqlerrcode == ERRCODE_LOCK_NOT_AVAILABLE ||
			error->sqlerrcode == ERRCODE_QUERY_CANCELED)
			ReThrowError(error);
		w->has_work = false;
		w->next_due = eq_note_item("wake-ups of queue", name, NULL,
								   error->sqlerrcode, error->message, error->hint);
	}
	PG_END_TRY();
}

/*
 * Looks at the queues that have their flag up or a job due, or at all of them,
 * sends NOTIFY for those with work, and wakes the executors.
 */
static void
look_at_queues(bool all, bool sweep)
{
	TimestampTz now = GetCurrentTimestamp();
	bool plain_sql = false;
	bool wake = false;
	bool open = false;
	int looked = 0;

	if (pg_atomic_exchange_u32(&db->look_everywhere, 0) != 0)
		all = plain_sql = true;

	for (int i = 0; i < n_watched; i++)
	{
		Watched *w = &watched[i];
		bool pending = eq_take_pending(w->id, &w->slot);

		w->has_work = false;
		if (!pending && !all && !(w->next_due != 0 && w->next_due <= now))
			continue;
		if (open && ++looked % LOOK_BATCH == 0)
		{
			PopActiveSnapshot();
			CommitTransactionCommand();
			open = false;
		}
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
			try_queue(w, pending, all, sweep || plain_sql);
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
	{
		work_waits = true;
		eq_wake_executors();
	}
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

/*
 * Starts a worker unless it is there or has just been started.  Without a free
 * place for it, that is a fault until there is one.
 */
static void
keep_running(EqWorkerKind kind, int index, Child *child)
{
	TimestampTz now = GetCurrentTimestamp();
	MemoryContext old;
	char name[64];
	pid_t pid;
	bool started;

	if (child->handle && GetBackgroundWorkerPid(child->handle, &pid) == BGWH_STOPPED)
	{
		pfree(child->handle);
		child->handle = NULL;
	}
	/* One may be left from a scheduler before this one. */
	if (child->handle || eq_worker_is_alive(MyDatabaseId, kind, index) ||
		!TimestampDifferenceExceeds(child->started_at, now, RESTART_MS))
		return;
	child->started_at = now;
	if (kind == EQ_WORKER_EXECUTOR)
		snprintf(name, sizeof(name), "start of executor %d", index);
	else
		snprintf(name, sizeof(name), "start of the %s",
				 kind == EQ_WORKER_RULES ? "rule runner" : "keeper");
	old = MemoryContextSwitchTo(TopMemoryContext); /* for the handle */
	started = eq_start_worker(kind, MyDatabaseId, index, &child->handle);
	MemoryContextSwitchTo(old);
	if (started)
		eq_clear_item("scheduler", name, false);
	else if (kind != EQ_WORKER_EXECUTOR || index < eq_executors)
		(void) eq_note_item("scheduler", name, NULL,
							ERRCODE_CONFIGURATION_LIMIT_EXCEEDED,
							"no free background worker (max_worker_processes)",
							"Raise max_worker_processes and restart the server.");
}

static void
keep_workers_running(void)
{
	for (int i = 0; i < eq_executors; i++)
		keep_running(EQ_WORKER_EXECUTOR, i, &executors[i]);
	if ((pg_atomic_read_u32(&db->events_wanted) & EQ_EVENTS_FOR_RULES) != 0)
		keep_running(EQ_WORKER_RULES, 0, &rule_runner);
}

/*
 * Jobs wait and every executor is at one for long: another one stands in, for jobs
 * of other handlers (executor.c), up to as many again.  When to look again; 0: no
 * need.
 */
static TimestampTz
send_stand_in(void)
{
	TimestampTz busy_at;

	if (!work_waits)
		return 0;
	busy_at = eq_all_busy_at();
	if (busy_at > GetCurrentTimestamp())
		return busy_at;
	work_waits = false;
	for (int i = eq_executors; busy_at != 0 && i < 2 * eq_executors; i++)
	{
		if (!eq_worker_is_alive(MyDatabaseId, EQ_WORKER_EXECUTOR, i))
		{
			keep_running(EQ_WORKER_EXECUTOR, i, &executors[i]);
			break;
		}
	}
	return 0;
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
static TimestampTz next_places = 0;
static bool clock_set_back = true; /* perhaps, before this process was there */

static int
compare_ids(const void *a, const void *b)
{
	int32 x = *(const int32 *) a;
	int32 y = *(const int32 *) b;

	return x < y ? -1 : x > y;
}

static void
configuration_step(void)
{
	/* What was read last holds until it can be read again. */
	config_changed = read_config();
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
		TimestampTz before = keeper.started_at;

		keep_running(EQ_WORKER_KEEPER, 0, &keeper);
		/* One is at work yet, or has just ended: it may not have seen the change. */
		if (keeper.started_at == before)
			next_retention = GetCurrentTimestamp() + RESTART_MS * INT64CONST(1000);
	}
	else
		eq_clear_faults(MyDatabaseId, "keeper", NULL);
}

/* What must not grow for ever: history, dead letters. */
static void
history_step(void)
{
	if (GetCurrentTimestamp() < next_history)
		return;
	run_statement("SELECT event_queue_internal.maintain_history()");
	next_history = GetCurrentTimestamp() + RETENTION_US;
}

/* Gives back places in shared memory whose queues or channels are no more. */
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
	qsort(idle, n, sizeof(int32), compare_ids);
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

/* The clock was ahead, and is set right: so are times that come from it. */
static void
clock_step(void)
{
	if (!clock_set_back)
		return;
	run_statement("SELECT event_queue_internal.correct_times()");
	eq_read_leases_anew();
	clock_set_back = false;
}

/* The steps of a cycle, in their order (steps.c). */
static EqStep steps[] = {
	{clock_step, "clock"},
	{snapshots_step, "snapshots"},
	{timed_reviews_step, "groups whose time has come"},
	{reviews_step, "groups and dependencies"},
	{cancels_step, "cancelled jobs"},
	{publish_step, "watermark for standbys"},
	{schedules_step, "schedules"},
	{lanes_step, "lanes"},
	{counts_step, "counts of jobs"},
	{queues_step, "queues"},
	{history_partitions_step, "partitions of history"},
	{samples_step, "samples of counters"},
	{places_step, "places in shared memory"},
	{event_partitions_step, "partitions of events"},
	{history_step, "history and dead letters"},
};

/* Nothing that is due by the clock as it was waits until it is there again. */
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
		next_keep = rule_runner.started_at = keeper.started_at = 0;
		for (int i = 0; i < lengthof(executors); i++)
			executors[i].started_at = 0;
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
		next_sweep = now + sweep_interval;
	if (sweep || now >= next_keep)
	{
		/* A restore into this database; the next scheduler holds. */
		if (sweep && !eq_hold_copy())
		{
			eq_wake_executors(); /* they see it, too */
			eq_wake_rule_runner(db);
			proc_exit(0);
		}
		keep_workers_running();
		next_keep = now + KEEP_US;
	}
	for (int i = 0; i < lengthof(steps); i++)
		attempt(&steps[i]);

	/* A step that backs off is not due before it is tried again. */
	now = GetCurrentTimestamp();
	wake_at = earlier(next_sweep, Max(next_schedule, now + CYCLE_US));
	wake_at = earlier(wake_at, Max(next_sample, now + CYCLE_US));
	wake_at = earlier(wake_at, Max(next_retention, now + CYCLE_US));
	wake_at = earlier(wake_at, eq_next_timed_review());
	wake_at = earlier(wake_at, now + WATCH_US);
	wake_at = earlier(wake_at, eq_watch_workers());
	wake_at = earlier(wake_at, send_stand_in());
	if (eq_publish_interval_ms > 0)
		wake_at = earlier(wake_at, Max(next_publish, now + CYCLE_US));
	for (int i = 0; i < n_watched; i++)
		wake_at = earlier(wake_at, watched[i].next_due);
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

	config_context = AllocSetContextCreate(TopMemoryContext,
										   "event_queue scheduler configuration",
										   ALLOCSET_DEFAULT_SIZES);
	cycle_context = AllocSetContextCreate(
		TopMemoryContext, "event_queue scheduler cycle", ALLOCSET_DEFAULT_SIZES);
	hold_while_copy();
	eq_clear_faults(dboid, "scheduler", NULL);
	start_afresh();
	while (pg_atomic_read_u32(&db->drops) == drops && eq_extension_is_here())
	{
		volatile TimestampTz wake_at = 0;

		MemoryContextSwitchTo(cycle_context);
		pause_between_cycles();
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
