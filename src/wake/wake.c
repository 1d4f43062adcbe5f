/*
 * wake.c: who is waiting and who to wake.
 *
 * NOTIFY inside a transaction holds a cluster-wide lock across its commit.  So
 * a transaction only remembers here which queues it touched; when its commit
 * is visible, the callback raises flags in shared memory and sets the latch of
 * the database's scheduler, which wakes executors and sends one NOTIFY for
 * many commits.  The marks of an aborted subtransaction are forgotten with it (xact.h).
 *
 * Counters travel with the same marks, so that they count what was committed.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "commands/async.h"
#include "commands/trigger.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "storage/latch.h"
#include "storage/proc.h"
#include "utils/builtins.h"
#include "utils/inval.h"
#include "utils/rel.h"
#include "utils/timestamp.h"

#include "wake/wake.h"

PG_FUNCTION_INFO_V1(eq_config_changed);
PG_FUNCTION_INFO_V1(eq_jobs_loaded);
PG_FUNCTION_INFO_V1(eq_notify_change);
PG_FUNCTION_INFO_V1(eq_place_changed);

/* What one (sub)transaction did to one queue or channel. */
typedef struct Mark
{
	SubTransactionId subid;
	EqWakeSlot *slot; /* NULL: no slot was free, or config */
	bool wake;
	bool everywhere;
	bool config;
	bool review;
	bool cancel;
	bool recount;
	int64 living;		/* rows that plain SQL wrote or deleted */
	int64 dead_letters; /* likewise */
	int32 created;		/* a queue or channel: its id, if it is rolled back */
	int32 dropped;		/* likewise, if it is committed */
	bool all_dropped;	/* with the extension */
	int64 n_wake;		/* sessions in claim_wait that will find a job */
	int64 counts[EQ_COUNTERS];
} Mark;

static Mark *
mark_at(int i)
{
	return EQ_XACT_ENTRY(eq_wakes, Mark, i);
}

/* This subtransaction's mark for a slot, made if there is none. */
static Mark *
get_mark(EqWakeSlot *slot)
{
	SubTransactionId subid = GetCurrentSubTransactionId();
	Mark *mark;

	for (int i = eq_wakes.n - 1; i >= 0; i--)
	{
		mark = mark_at(i);
		if (mark->subid != subid)
			break; /* the parent's, and so are all before it */
		if (mark->slot == slot)
			return mark;
	}

	(void) eq_database(); /* take the entry now: it may throw */
	mark = eq_xact_add(&eq_wakes);
	memset(mark, 0, sizeof(Mark));
	mark->subid = subid;
	mark->slot = slot;
	return mark;
}

/* After commit, have the scheduler, and a waiting session, look at this queue. */
void
eq_wake_queue(int32 queue_id)
{
	eq_wake_queue_for(queue_id, 1);
}

/* The same for n jobs. */
void
eq_wake_queue_for(int32 queue_id, int64 n)
{
	EqWakeSlot *slot = eq_wake_slot(queue_id);
	Mark *mark = get_mark(slot);

	mark->wake = true;
	mark->n_wake += n;
	if (slot == NULL)
		mark->everywhere = true;
}

/* Has this transaction written the table of jobs by plain SQL? */
bool
eq_wrote_plain_sql(void)
{
	for (int i = 0; i < eq_wakes.n; i++)
	{
		if (mark_at(i)->everywhere)
			return true;
	}
	return false;
}

/* After commit, have the scheduler read job_review. */
void
eq_wake_reviews(void)
{
	get_mark(NULL)->review = true;
}

/* After commit, have the scheduler stop handlers of cancelled jobs. */
void
eq_wake_cancels(void)
{
	get_mark(NULL)->cancel = true;
}

/* After commit, add to a counter of this queue. */
void
eq_count(int32 queue_id, EqCounter counter, int64 n)
{
	EqWakeSlot *slot = eq_wake_slot(queue_id);

	if (slot)
		get_mark(slot)->counts[counter] += n;
}

/* The same for rows of job and dead_letter that plain SQL wrote (or deleted: < 0). */
void
eq_count_written(int32 queue_id, int64 jobs, int64 dead_letters)
{
	EqWakeSlot *slot = eq_find_wake_slot(queue_id); /* there may be no such queue */

	if (slot)
	{
		Mark *mark = get_mark(slot);

		mark->living += jobs;
		mark->dead_letters += dead_letters;
	}
}

/* After commit, have the workers read their configuration again. */
void
eq_note_config_changed(void)
{
	get_mark(NULL)->config = true;
}

/* After commit, give back what this database has in shared memory. */
void
eq_note_extension_dropped(void)
{
	eq_note_config_changed();
	get_mark(NULL)->all_dropped = true;
}

void
eq_queue_channel(const char *queue_name, char *channel)
{
	snprintf(channel, NAMEDATALEN, "event_queue.%s", queue_name);
}

/* event_queue.notify = transaction: for who has no workers in the database. */
void
eq_notify_in_transaction(const char *queue_name)
{
	char channel[NAMEDATALEN];

	eq_queue_channel(queue_name, channel);
	Async_Notify(channel, "");
}

static void
set_latch_of(uint32 proc_number_plus_one)
{
	/* If the process has just ended, its successor gets a wake-up too many. */
	if (proc_number_plus_one > 0)
		SetLatch(&ProcGlobal->allProcs[proc_number_plus_one - 1].procLatch);
}

void
eq_wake_scheduler(EqDatabase *db)
{
	set_latch_of(pg_atomic_read_u32(&db->scheduler));
}

void
eq_wake_rule_runner(EqDatabase *db)
{
	set_latch_of(pg_atomic_read_u32(&db->rule_runner));
}

/* Takes effect at once: events may have come below the watermark. */
void
eq_wake_rules(void)
{
	EqDatabase *db = eq_database();

	uint32 wanted;

	/* Full barriers: the scheduler sets wanted before pending is looked at. */
	pg_atomic_exchange_u32(&db->events_pending, 1);
	pg_atomic_exchange_u32(&db->rules_pending, 1);
	wanted = pg_atomic_read_u32(&db->events_wanted);
	if (wanted & EQ_EVENTS_FOR_RULES)
		eq_wake_rule_runner(db);
	if (wanted & EQ_EVENTS_FOR_SNAPSHOTS)
		eq_wake_scheduler(db);
}

/*
 * Wakes up to n sessions that sleep in claim_wait on this queue.  Each has raised
 * its flag before it looked for jobs; whoever lowers the flag wakes it.  Can't
 * throw.
 */
void
eq_wake_waiters(EqWakeSlot *slot, int64 n)
{
	uint32 number = slot - eq_shared->wake_slots + 1;

	if (pg_atomic_read_u32(&slot->waiters) == 0)
		return;
	for (int i = 0; i < eq_shared->max_appenders && n > 0; i++)
	{
		uint32 expected = number;

		if (pg_atomic_read_u32(&eq_shared->appenders[i].waits_for_queue) == number &&
			pg_atomic_compare_exchange_u32(&eq_shared->appenders[i].waits_for_queue,
										   &expected, 0))
		{
			SetLatch(&ProcGlobal->allProcs[i].procLatch);
			n--;
		}
	}
}

/* Jobs of this database ended: wakes the sessions in await_job. */
static void
wake_awaiting(EqDatabase *db)
{
	if (pg_atomic_read_u32(&db->jobs_awaited) == 0)
		return;
	pg_atomic_exchange_u32(&db->jobs_awaited, 0);
	for (int i = 0; i < eq_shared->max_appenders; i++)
	{
		if (pg_atomic_read_u32(&eq_shared->appenders[i].awaits_job) != 0)
			SetLatch(&ProcGlobal->allProcs[i].procLatch);
	}
}

static int64
living_change(const Mark *mark)
{
	return mark->living + mark->counts[EQ_COUNT_ENQUEUED] -
		   mark->counts[EQ_COUNT_COMPLETED] - mark->counts[EQ_COUNT_DEAD] -
		   mark->counts[EQ_COUNT_CANCELLED];
}

static void
wake_at_commit(void)
{
	EqDatabase *db;
	bool wake = false;
	bool ended = false;

	if (eq_wakes.n == 0)
		return;

	db = eq_database();	 /* taken before: can't throw */
	pg_memory_barrier(); /* the commit, before the flags of those who wait */
	for (int i = 0; i < eq_wakes.n; i++)
	{
		Mark *mark = mark_at(i);

		for (int c = 0; mark->slot && c < EQ_COUNTERS; c++)
		{
			if (mark->counts[c] != 0)
				pg_atomic_fetch_add_u64(&mark->slot->counters[c], mark->counts[c]);
		}
		if (mark->counts[EQ_COUNT_CLAIMED] != 0)
			pg_atomic_write_u64(&mark->slot->claimed_at,
								GetCurrentTransactionStopTimestamp());
		if (mark->slot && living_change(mark) != 0)
			pg_atomic_fetch_add_u64(&mark->slot->living, living_change(mark));
		if (mark->slot && mark->dead_letters + mark->counts[EQ_COUNT_DEAD] != 0)
			pg_atomic_fetch_add_u64(&mark->slot->dead_letters,
									mark->dead_letters +
										mark->counts[EQ_COUNT_DEAD]);
		ended = ended || mark->counts[EQ_COUNT_COMPLETED] != 0 ||
				mark->counts[EQ_COUNT_DEAD] != 0 ||
				mark->counts[EQ_COUNT_CANCELLED] != 0;
		if (mark->wake && mark->slot)
		{
			/* Whoever raised the flag first has woken the scheduler. */
			if (pg_atomic_exchange_u32(&mark->slot->pending, 1) == 0)
				wake = true;
			eq_wake_waiters(mark->slot, mark->n_wake);
		}
		if (mark->review)
		{
			pg_atomic_write_u32(&db->reviews_pending, 1);
			wake = true;
		}
		if (mark->cancel)
		{
			pg_atomic_write_u32(&db->cancels_pending, 1);
			wake = true;
		}
		if (mark->recount)
			pg_atomic_write_u32(&db->recount, 1);
		if (mark->everywhere)
		{
			pg_atomic_write_u32(&db->look_everywhere, 1);
			pg_atomic_fetch_add_u64(&db->rings_voided, 1);
			wake = true;
		}
		if (mark->dropped != 0)
		{
			/* They look at the queue again, and find that it is gone. */
			eq_wake_waiters(mark->slot, PG_INT64_MAX);
			eq_give_back_slot(mark->dropped);
		}
		if (mark->all_dropped)
		{
			eq_give_back_all_slots(MyDatabaseId);
			pg_atomic_fetch_add_u32(&db->drops, 1);
			pg_atomic_write_u32(&db->absent, 1);
			wake = true;
		}
		if (mark->created != 0 && pg_atomic_read_u32(&db->absent) != 0)
			pg_atomic_write_u32(&db->absent, 0); /* CREATE EXTENSION */
		if (mark->config)
		{
			pg_atomic_fetch_add_u32(&db->config_generation, 1);
			/* CREATE EXTENSION: no scheduler yet, so ask for one. */
			if (pg_atomic_read_u32(&db->scheduler) == 0 &&
				pg_atomic_read_u32(&db->absent) == 0)
			{
				pg_atomic_write_u32(&eq_shared->probe, 1);
				set_latch_of(pg_atomic_read_u32(&eq_shared->launcher));
			}
			wake = true;
		}
	}
	if (ended)
		wake_awaiting(db);

	if (wake)
	{
		pg_memory_barrier();
		eq_wake_scheduler(db);
	}
}

/* What was to be counted is not: COMMIT PREPARED comes without these marks. */
static void
wakes_at_prepare(void)
{
	if (eq_wakes.n > 0)
		pg_atomic_write_u32(&eq_database()->recount, 1);
}

/* Frees the slots of queues that were not created after all. */
static void
undo_marks(int first)
{
	for (int i = first; i < eq_wakes.n; i++)
	{
		if (mark_at(i)->created != 0)
			eq_give_back_slot(mark_at(i)->created);
	}
}

/* Adds a committed subtransaction's mark to its parent's for the same slot. */
static bool
absorb_mark(void *parents, const void *childs)
{
	Mark *into = parents;
	const Mark *mark = childs;

	if (into->slot != mark->slot)
		return false;
	into->wake |= mark->wake;
	into->everywhere |= mark->everywhere;
	into->config |= mark->config;
	into->review |= mark->review;
	into->cancel |= mark->cancel;
	into->recount |= mark->recount;
	into->living += mark->living;
	into->dead_letters += mark->dead_letters;
	into->created = mark->created ? mark->created : into->created;
	into->dropped = mark->dropped ? mark->dropped : into->dropped;
	into->all_dropped |= mark->all_dropped;
	into->n_wake += mark->n_wake;
	for (int c = 0; c < EQ_COUNTERS; c++)
		into->counts[c] += mark->counts[c];
	return true;
}

EqXactKind eq_wakes = {
	.entry_size = sizeof(Mark),
	.at_commit = wake_at_commit,
	.at_prepare = wakes_at_prepare,
	.undo = undo_marks,
	.absorb = absorb_mark,
};

/*
 * Trigger on configuration tables: sessions drop what they cached of the
 * table, workers read it again.
 */
Datum
eq_config_changed(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;

	if (!CALLED_AS_TRIGGER(fcinfo))
		ereport(ERROR, (errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
						errmsg("config_changed: not called by trigger manager")));
	CacheInvalidateRelcache(trigger->tg_relation);
	eq_note_config_changed();
	PG_RETURN_POINTER(NULL);
}

/*
 * Row trigger on tables queue and channel, whose id comes first; the argument is its
 * sign.  A queue that has no room in shared memory can't be created.
 */
Datum
eq_place_changed(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;
	bool isnull;
	int32 id;
	EqWakeSlot *slot;

	if (!CALLED_AS_TRIGGER(fcinfo) || !TRIGGER_FIRED_FOR_ROW(trigger->tg_event) ||
		trigger->tg_trigger->tgnargs != 1)
		ereport(ERROR, (errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
						errmsg("place_changed: not called by its trigger")));
	id = DatumGetInt32(heap_getattr(trigger->tg_trigtuple, 1,
									RelationGetDescr(trigger->tg_relation),
									&isnull)) *
		 pg_strtoint32(trigger->tg_trigger->tgargs[0]);
	slot = eq_wake_slot(id);
	if (TRIGGER_FIRED_BY_INSERT(trigger->tg_event))
	{
		if (slot)
			get_mark(slot)->created = id;
		if (slot == NULL || !eq_has_fair_share_of_slots())
			ereport(
				ERROR,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("no room in shared memory for one more queue or channel"),
				 errdetail(
					 "This database would have %d of %d places, and leave less than a third as many free.",
					 eq_database()->n_slots, eq_max_queues),
				 errhint(
					 "Raise event_queue.max_queues (now %d) and restart the server.",
					 eq_max_queues)));
	}
	else if (slot)
		get_mark(slot)->dropped = id;
	PG_RETURN_POINTER(NULL);
}

/* Trigger on job and dead_letter: rows came, changed or went by plain SQL. */
Datum
eq_jobs_loaded(PG_FUNCTION_ARGS)
{
	if (!CALLED_AS_TRIGGER(fcinfo))
		ereport(ERROR, (errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
						errmsg("jobs_loaded: not called by trigger manager")));
	get_mark(NULL)->everywhere = true;
	get_mark(NULL)->review = true;
	if (TRIGGER_FIRED_BY_TRUNCATE(((TriggerData *) fcinfo->context)->tg_event))
		get_mark(NULL)->recount = true;
	PG_RETURN_POINTER(NULL);
}

/* Trigger of notify_on: the argument is the channel's number. */
Datum
eq_notify_change(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;

	if (!CALLED_AS_TRIGGER(fcinfo) || trigger->tg_trigger->tgnargs != 1)
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("notify_change: not called by a trigger of notify_on")));
	eq_wake_queue(-pg_strtoint32(trigger->tg_trigger->tgargs[0]));
	PG_RETURN_POINTER(NULL);
}
