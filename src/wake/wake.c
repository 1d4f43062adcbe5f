/*
 * wake.c: decides which processes a commit wakes, and what it counts.
 *
 * NOTIFY inside a transaction holds a cluster-wide lock across its commit.  So a
 * transaction only records here which queues it touched; when its commit is visible, the
 * callback raises flags in shared memory and sets the latch of the database's scheduler,
 * which wakes executors and sends one NOTIFY for many commits.  The entries of an aborted
 * subtransaction are discarded (xact.h).
 *
 * Counters are part of the same entries, so that they count what was committed.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "catalog/namespace.h"
#include "commands/async.h"
#include "commands/trigger.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "storage/latch.h"
#include "storage/proc.h"
#include "utils/builtins.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/timestamp.h"

#include "table/table.h"
#include "wake/wake.h"

PG_FUNCTION_INFO_V1(eq_config_changed);
PG_FUNCTION_INFO_V1(eq_jobs_loaded);
PG_FUNCTION_INFO_V1(eq_notify_change);
PG_FUNCTION_INFO_V1(eq_slot_changed);

/* Changes of one (sub)transaction to one queue or channel. */
typedef struct Wake
{
	SubTransactionId subid;
	EqWakeSlot *slot; /* NULL: no slot was free, or config */
	bool wake;
	bool everywhere;
	bool config;
	bool review;
	bool waits;
	bool cancel;
	bool recount;
	int64 living;		/* rows that plain SQL wrote or deleted */
	int64 dead_letters; /* likewise */
	int32 created;		/* a queue or channel: its id, if it is rolled back */
	int32 dropped;		/* likewise, if it is committed */
	bool all_dropped;	/* with the extension */
	int64 n_wake;		/* sessions in claim_wait that will find a job */
	int64 counts[EQ_COUNTERS];
} Wake;

static Wake *
wake_at(int i)
{
	return EQ_XACT_ENTRY(eq_wakes, Wake, i);
}

/* This subtransaction's entry for a slot, made if there is none. */
static Wake *
get_wake(EqWakeSlot *slot)
{
	SubTransactionId subid = GetCurrentSubTransactionId();
	Wake *entry;

	for (int i = eq_wakes.n - 1; i >= 0; i--)
	{
		entry = wake_at(i);
		if (entry->subid != subid)
			break; /* the parent's, and so are all before it */
		if (entry->slot == slot)
			return entry;
	}

	(void) eq_database(); /* take the entry now: it may throw */
	entry = eq_xact_add(&eq_wakes);
	memset(entry, 0, sizeof(Wake));
	entry->subid = subid;
	entry->slot = slot;
	return entry;
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
	Wake *entry = get_wake(slot);

	entry->wake = true;
	entry->n_wake += n;
	if (slot == NULL)
		entry->everywhere = true;
}

/* Has this transaction written the table of jobs by plain SQL? */
bool
eq_wrote_plain_sql(void)
{
	for (int i = 0; i < eq_wakes.n; i++)
	{
		if (wake_at(i)->everywhere)
			return true;
	}
	return false;
}

/* After commit, have the scheduler read job_review. */
void
eq_wake_reviews(void)
{
	get_wake(NULL)->review = true;
}

/* After commit, have the scheduler look for what steps wait for. */
void
eq_wake_waits(void)
{
	get_wake(NULL)->waits = true;
}

/* After commit, have the scheduler stop handlers of cancelled jobs. */
void
eq_wake_cancels(void)
{
	get_wake(NULL)->cancel = true;
}

/* After commit, add to a counter of this queue. */
void
eq_count(int32 queue_id, EqCounter counter, int64 n)
{
	EqWakeSlot *slot = eq_wake_slot(queue_id);

	if (slot)
		get_wake(slot)->counts[counter] += n;
}

/* After commit, add rows of job and dead_letter that plain SQL wrote (< 0: deleted). */
void
eq_count_written(int32 queue_id, int64 jobs, int64 dead_letters)
{
	EqWakeSlot *slot = eq_find_wake_slot(queue_id); /* there may be no such queue */

	if (slot)
	{
		Wake *entry = get_wake(slot);

		entry->living += jobs;
		entry->dead_letters += dead_letters;
	}
}

static bool config_invalidated = false;

static void
note_invalidated(void)
{
	config_invalidated = true;
}

/*
 * Is invalidated by each change of the configuration, whatever table it is in: COMMIT
 * PREPARED knows nothing of what its transaction noted here, but sends its invalidations.
 */
static EqRelationName config_mark = {"channel", .changed = note_invalidated};

/* InvalidOid: there is no extension, or it is of another version. */
static Oid
find_config_mark(void)
{
	Oid schema = get_namespace_oid(EQ_INTERNAL, true);

	return OidIsValid(schema) ? get_relname_relid(config_mark.name, schema)
							  : InvalidOid;
}

/* After commit, have the workers read their configuration again. */
void
eq_note_config_changed(void)
{
	Oid mark = find_config_mark();

	if (OidIsValid(mark))
		CacheInvalidateRelcacheByRelid(mark);
	get_wake(NULL)->config = true;
}

/* After commit, release what this database has in shared memory. */
void
eq_note_extension_dropped(void)
{
	eq_note_config_changed();
	get_wake(NULL)->all_dropped = true;
}

static void
queue_channel(const char *queue_name, char *channel)
{
	snprintf(channel, NAMEDATALEN, "event_queue.%s", queue_name);
}

/* event_queue.notify = transaction: for who has no workers in the database. */
void
eq_notify_in_transaction(const char *queue_name)
{
	char channel[NAMEDATALEN];

	queue_channel(queue_name, channel);
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
	pg_atomic_exchange_u32(&db->waits_pending, 1);
	wanted = pg_atomic_read_u32(&db->events_wanted);
	if (wanted & EQ_EVENTS_FOR_RULES)
		eq_wake_rule_runner(db);
	if ((wanted & EQ_EVENTS_FOR_SNAPSHOTS) ||
		pg_atomic_read_u32(&db->event_waiters) != 0)
		eq_wake_scheduler(db);
}

/* Takes effect at once: the configuration that was changed is visible. */
static void
tell_config_changed(EqDatabase *db)
{
	pg_atomic_fetch_add_u32(&db->config_generation, 1);
	eq_wake_rules(); /* what catches up or is backfilled has no new event */
	/* CREATE EXTENSION: no scheduler yet, so ask for one. */
	if (pg_atomic_read_u32(&db->scheduler) == 0 &&
		pg_atomic_read_u32(&db->absent) == 0)
		eq_ask_launcher();
}

static bool config_announced = false; /* by this transaction */

/*
 * What a commit has changed is visible a moment before the generation is raised; who must not
 * work by the old configuration then reads it anew as long as someone commits such a change.
 */
static void
announce_config(void)
{
	if (!config_announced)
		pg_atomic_fetch_add_u32(&eq_database()->config_commits, 1);
	config_announced = true;
}

static void
announce_noted_config(void)
{
	for (int i = 0; i < eq_wakes.n; i++)
	{
		if (wake_at(i)->config)
			announce_config();
	}
}

static void
end_announcement(void)
{
	if (config_announced)
		pg_atomic_fetch_sub_u32(&eq_database()->config_commits, 1);
	config_announced = false;
}

/* Before COMMIT PREPARED, and after it: has it changed the configuration? */
void
eq_before_commit_prepared(void)
{
	/* Unless the extension is here before, its coming is a change. */
	config_invalidated = !OidIsValid(find_config_mark());
	if (!config_invalidated)
	{
		(void) eq_relation_oid(&config_mark);
		announce_config(); /* perhaps it has */
	}
}

void
eq_after_commit_prepared(void)
{
	HOLD_INTERRUPTS(); /* it is committed: the workers must be told */
	AcceptInvalidationMessages();
	if (config_invalidated && OidIsValid(find_config_mark()))
	{
		EqDatabase *db = eq_database();

		pg_atomic_write_u32(&db->absent, 0); /* CREATE EXTENSION */
		tell_config_changed(db);
		eq_wake_scheduler(db);
	}
	end_announcement();
	RESUME_INTERRUPTS();
}

/*
 * Has the configuration changed since it had this generation, or is it about to?  Sets the
 * generation that it has now.  Before the snapshot in which it is read.
 */
bool
eq_config_has_changed(uint32 *generation)
{
	EqDatabase *db = eq_database();
	uint32 was = *generation;
	bool commits = pg_atomic_read_u32(&db->config_commits) != 0;

	/* In this order: who is no longer counted has raised the generation. */
	pg_memory_barrier();
	*generation = pg_atomic_read_u32(&db->config_generation);
	pg_memory_barrier();
	return commits || *generation != was;
}

static int64
living_change(const Wake *entry)
{
	return entry->living + entry->counts[EQ_COUNT_ENQUEUED] -
		   entry->counts[EQ_COUNT_COMPLETED] - entry->counts[EQ_COUNT_DEAD] -
		   entry->counts[EQ_COUNT_CANCELLED];
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
		Wake *entry = wake_at(i);

		for (int c = 0; entry->slot && c < EQ_COUNTERS; c++)
		{
			if (entry->counts[c] != 0)
				pg_atomic_fetch_add_u64(&entry->slot->counters[c], entry->counts[c]);
		}
		if (entry->counts[EQ_COUNT_CLAIMED] != 0)
			pg_atomic_write_u64(&entry->slot->claimed_at,
								GetCurrentTransactionStopTimestamp());
		if (entry->slot && living_change(entry) != 0)
			pg_atomic_fetch_add_u64(&entry->slot->living, living_change(entry));
		if (entry->slot && entry->dead_letters + entry->counts[EQ_COUNT_DEAD] != 0)
			pg_atomic_fetch_add_u64(&entry->slot->dead_letters,
									entry->dead_letters +
										entry->counts[EQ_COUNT_DEAD]);
		ended = ended || entry->counts[EQ_COUNT_COMPLETED] != 0 ||
				entry->counts[EQ_COUNT_DEAD] != 0 ||
				entry->counts[EQ_COUNT_CANCELLED] != 0;
		if (entry->wake && entry->slot)
		{
			/* If the flag was up already, who raised it has woken the scheduler. */
			if (pg_atomic_exchange_u32(&entry->slot->pending, 1) == 0)
				wake = true;
			eq_wake_waiters(entry->slot, entry->n_wake);
		}
		if (entry->review)
		{
			pg_atomic_write_u32(&db->reviews_pending, 1);
			wake = true;
		}
		if (entry->waits)
		{
			pg_atomic_write_u32(&db->event_waiters, 1);
			pg_atomic_write_u32(&db->waits_pending, 1);
			wake = true;
		}
		if (entry->cancel)
		{
			pg_atomic_write_u32(&db->cancels_pending, 1);
			wake = true;
		}
		if (entry->recount)
			pg_atomic_write_u32(&db->recount, 1);
		if (entry->everywhere)
		{
			pg_atomic_write_u32(&db->look_everywhere, 1);
			pg_atomic_fetch_add_u64(&db->unseen_jobs, 1);
			wake = true;
		}
		if (entry->dropped != 0)
		{
			/* They look at the queue again, and find that it is gone. */
			eq_wake_waiters(entry->slot, PG_INT64_MAX);
			eq_give_back_slot(entry->dropped);
		}
		if (entry->all_dropped)
		{
			eq_give_back_all_slots(MyDatabaseId);
			pg_atomic_fetch_add_u32(&db->drops, 1);
			pg_atomic_write_u32(&db->absent, 1);
			wake = true;
		}
		if (entry->created != 0 && pg_atomic_read_u32(&db->absent) != 0)
			pg_atomic_write_u32(&db->absent, 0); /* CREATE EXTENSION */
		if (entry->config)
		{
			tell_config_changed(db);
			wake = true;
		}
	}
	end_announcement(); /* after the generation was raised */
	if (ended)
		eq_wake_awaiting(db);

	if (wake)
	{
		pg_memory_barrier();
		eq_wake_scheduler(db);
	}
}

/* COMMIT PREPARED counts nothing: it knows nothing of these entries. */
static void
wakes_at_prepare(void)
{
	if (eq_wakes.n > 0)
		pg_atomic_write_u32(&eq_database()->recount, 1);
}

/* Frees the slots of queues that were not created after all. */
static void
undo_wakes(int first)
{
	for (int i = first; i < eq_wakes.n; i++)
	{
		if (wake_at(i)->created != 0)
			eq_give_back_slot(wake_at(i)->created);
	}
}

/* Adds a committed subtransaction's entry to its parent's for the same slot. */
static bool
absorb_wake(void *parents, const void *childs)
{
	Wake *into = parents;
	const Wake *entry = childs;

	if (into->slot != entry->slot)
		return false;
	into->wake |= entry->wake;
	into->everywhere |= entry->everywhere;
	into->config |= entry->config;
	into->review |= entry->review;
	into->waits |= entry->waits;
	into->cancel |= entry->cancel;
	into->recount |= entry->recount;
	into->living += entry->living;
	into->dead_letters += entry->dead_letters;
	into->created = entry->created ? entry->created : into->created;
	into->dropped = entry->dropped ? entry->dropped : into->dropped;
	into->all_dropped |= entry->all_dropped;
	into->n_wake += entry->n_wake;
	for (int c = 0; c < EQ_COUNTERS; c++)
		into->counts[c] += entry->counts[c];
	return true;
}

EqXactKind eq_wakes = {
	.entry_size = sizeof(Wake),
	.before_commit = announce_noted_config,
	.at_commit = wake_at_commit,
	.at_abort = end_announcement,
	.at_prepare = wakes_at_prepare,
	.undo = undo_wakes,
	.absorb = absorb_wake,
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
eq_slot_changed(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;
	bool isnull;
	int32 id;
	EqWakeSlot *slot;

	if (!CALLED_AS_TRIGGER(fcinfo) || !TRIGGER_FIRED_FOR_ROW(trigger->tg_event) ||
		trigger->tg_trigger->tgnargs != 1)
		ereport(ERROR, (errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
						errmsg("slot_changed: not called by its trigger")));
	id = DatumGetInt32(heap_getattr(trigger->tg_trigtuple, 1,
									RelationGetDescr(trigger->tg_relation),
									&isnull)) *
		 pg_strtoint32(trigger->tg_trigger->tgargs[0]);
	slot = eq_wake_slot(id);
	if (TRIGGER_FIRED_BY_INSERT(trigger->tg_event))
	{
		if (slot)
			get_wake(slot)->created = id;
		if (slot == NULL || !eq_has_fair_share_of_slots())
			ereport(
				ERROR,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("no room in shared memory for one more queue or channel"),
				 errdetail(
					 "This database would use %d of %d slots, and leave fewer than a third of that free.",
					 eq_database()->n_slots, eq_max_queues),
				 errhint(
					 "Raise event_queue.max_queues (now %d) and restart the server.",
					 eq_max_queues)));
	}
	else if (slot)
		get_wake(slot)->dropped = id;
	PG_RETURN_POINTER(NULL);
}

/* Trigger on job and dead_letter: rows came, changed or went by plain SQL. */
Datum
eq_jobs_loaded(PG_FUNCTION_ARGS)
{
	if (!CALLED_AS_TRIGGER(fcinfo))
		ereport(ERROR, (errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
						errmsg("jobs_loaded: not called by trigger manager")));
	get_wake(NULL)->everywhere = true;
	get_wake(NULL)->review = true;
	if (TRIGGER_FIRED_BY_TRUNCATE(((TriggerData *) fcinfo->context)->tg_event))
		get_wake(NULL)->recount = true;
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
