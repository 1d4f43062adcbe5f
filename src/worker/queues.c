/*
 * queues.c: checks which queues have work, and when the next job is due, for the scheduler.
 */
#include "postgres.h"

#include "access/xact.h"
#include "commands/async.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "storage/latch.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "common/try.h"
#include "queue/queue.h"
#include "rules/rules.h"
#include "table/table.h"
#include "wake/wake.h"
#include "worker/executor.h"
#include "worker/scheduler.h"

#define MOVE_BATCH 1000 /* of jobs that came due in a fair queue */
#define LOOK_BATCH 100	/* queues that are looked at with one snapshot */

/* A queue or a channel, as the scheduler keeps it. */
typedef struct Watched
{
	int32 id;		  /* queue_id, or - channel_id */
	EqWakeSlot *slot; /* where it was found last; NULL: not yet */
	char channel[NAMEDATALEN];
	bool has_handlers;
	TimestampTz next_due; /* of its jobs; 0: unknown */
	bool has_work;		  /* found in this cycle */
	bool to_notify;		  /* listeners have not been told of it */
} Watched;

static MemoryContext config_context = NULL;
static Watched *watched;
static int n_watched = 0;
static bool any_to_notify = false;
static int64 sweep_interval = 5 * USECS_PER_SEC;
static uint32 config_seen;
static bool config_known = false;

/* Reads queues and channels, if they changed. True if it did. */
bool
eq_read_queues(void)
{
	EqDatabase *db = eq_database();
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
	if (config_context == NULL)
		config_context = AllocSetContextCreate(TopMemoryContext,
											   "event_queue scheduler configuration",
											   ALLOCSET_DEFAULT_SIZES);
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
		w->to_notify = any_to_notify && w->id < 0; /* perhaps it was */
		strlcpy(w->channel, SPI_getvalue(row, desc, 2), NAMEDATALEN);
		w->slot = eq_wake_slot(w->id);
		if (w->slot == NULL)
			n_without++;
		w->has_handlers = DatumGetBool(SPI_getbinval(row, desc, 3, &isnull));
		interval = SPI_getbinval(row, desc, 4, &isnull);
		if (!isnull)
			sweep_interval = Min(sweep_interval, DatumGetInt64(interval));
	}
	/*
	 * Executors would do it, too, at their next job: perhaps none is left for any.  The own
	 * queues have handlers that are in no table.
	 */
	if (SPI_execute(
			"SELECT event_queue_internal.clear_fault(f.what, f.item, true) FROM event_queue.faults() f"
			" WHERE f.what IN ('time limit', '" EQ_UNRECORDED
			"') AND NOT EXISTS (SELECT"
			" FROM event_queue.queue q LEFT JOIN event_queue.handler h USING (queue_id)"
			" WHERE q.name || '/' || CASE WHEN q.queue_id > 2 THEN h.job_name ELSE '*' END = f.item)",
			false, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not clear faults of handlers");
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
				 "They have no counters, workers are woken late for them, and no jobs can be claimed from those with limits."),
			 errhint("Raise event_queue.max_queues (now %d) and restart the server.",
					 eq_max_queues)));
	warned_of = db->without_slots = n_without;
	/* Functions and queues may be there now: try again; what still fails is noted anew. */
	eq_clear_faults(MyDatabaseId, "handler", NULL);
	eq_clear_faults(MyDatabaseId, "rule function", NULL);
	eq_clear_faults(MyDatabaseId, "queue", NULL);
	/* A full barrier: whoever reads events looks at his flag afterwards. */
	pg_atomic_exchange_u32(&db->events_wanted, events_wanted);
	eq_wake_rule_runner(db);
	return true;
}

/*
 * Moves due jobs of a fair queue to their lanes, in the present transaction; comes
 * back soon if there are more.
 */
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
	/* Jobs that came due, and after a change of the queue; for those that came, their commit did it. */
	if (w->has_work && slot && (!pending || all))
		eq_wake_waiters(slot, PG_INT64_MAX);
}

typedef struct Look
{
	Watched *watched;
	bool pending;
	bool all;
	bool sweep_marks;
} Look;

static void
do_look(void *argument)
{
	Look *look = argument;

	look_at_queue(look->watched, look->pending, look->all, look->sweep_marks);
}

/*
 * The same, so that an error in it is this queue's own.  A lock that can't be had is
 * one on a table: it is the others' error, too.
 */
static void
try_queue(Watched *w, bool pending, bool all, bool sweep_marks)
{
	const char *name = w->channel + strlen(EQ_SCHEMA ".");
	Look look = {w, pending, all, sweep_marks};
	TimestampTz retry_at;
	int failures = eq_failures_of("wake-ups of queue", name, &retry_at);
	ErrorData *error;

	if (failures > 0 && retry_at > GetCurrentTimestamp())
	{
		w->next_due = retry_at;
		return;
	}
	error = eq_try(do_look, &look);
	if (error == NULL)
	{
		if (failures > 0)
			eq_clear_item("wake-ups of queue", name, false);
		return;
	}
	if (error->sqlerrcode == ERRCODE_LOCK_NOT_AVAILABLE ||
		error->sqlerrcode == ERRCODE_QUERY_CANCELED)
		ReThrowError(error);
	w->has_work = false;
	w->next_due = eq_note_item("wake-ups of queue", name, NULL, error->sqlerrcode,
							   error->message, error->hint);
}

/*
 * Looks at the queues that have their flag up or a job due, or at all of them,
 * notes for which of them to send NOTIFY, and wakes the executors.
 */
void
eq_look_at_queues(bool all, bool sweep)
{
	TimestampTz now = GetCurrentTimestamp();
	bool plain_sql = false;
	bool wake = false;
	bool open = false;
	int looked = 0;

	if (pg_atomic_exchange_u32(&eq_database()->look_everywhere, 0) != 0)
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
			w->to_notify = any_to_notify = true;
	}
	if (open)
	{
		PopActiveSnapshot();
		CommitTransactionCommand();
	}
	if (wake)
	{
		eq_note_work_waits();
		eq_wake_executors();
	}
}

/*
 * Sends NOTIFY for queues and channels, in a transaction of its own: the NOTIFY queue of the
 * server may be full, as any session that listens can leave it, and then the commit fails.
 */
void
eq_send_notifications(void)
{
	static bool has_failed = false;

	if (!any_to_notify)
		return;
	if (has_failed)
		eq_refuse_full_notify_queue();
	has_failed = true;
	StartTransactionCommand();
	for (int i = 0; i < n_watched; i++)
	{
		if (watched[i].to_notify)
			Async_Notify(watched[i].channel, "");
	}
	CommitTransactionCommand();
	for (int i = 0; i < n_watched; i++)
		watched[i].to_notify = false;
	any_to_notify = has_failed = false;
}

/* The earliest time at which a job of a queue is due, if it is before the limit. */
TimestampTz
eq_next_due_of_queues(TimestampTz limit)
{
	for (int i = 0; i < n_watched; i++)
	{
		if (watched[i].next_due != 0 && watched[i].next_due < limit)
			limit = watched[i].next_due;
	}
	return limit;
}

/* Microseconds after which all queues are looked at: the shortest stalled_interval, at most 5 s. */
int64
eq_sweep_interval(void)
{
	return sweep_interval;
}

/* Has the next eq_read_queues read, changed or not. */
void
eq_forget_queues(void)
{
	config_known = false;
}
