/*
 * backfill.c: backfills: evaluates a rule for stored events, beside new ones.
 *
 * Called by the rule runner in each batch's transaction (engine.c); rules that catch up
 * are evaluated by the same code.  Both end with the batch's commit, with the firings and
 * the backfill's position.  No event lets the rule fire twice: live firings come from events above
 * the checkpoint, a backfill stays below it and below its rule's own position; all firings
 * are in table rule_run, which is looked up first; and there is one rule runner.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/hsearch.h"
#include "utils/timestamp.h"

#include "event_queue.h"
#include "rules/rule.h"
#include "rules/rules.h"
#include "store/store.h"
#include "table/table.h"

/* Backfills may be running; false: none since the configuration was read. */
static bool any = true;

/* When the next backfill is due, by its rate; 0: none is. */
static TimestampTz next_due = 0;

/* The time of the last step of each rule's backfill, for the rate. */
static HTAB *last_steps = NULL;

typedef struct LastStep
{
	int32 rule_id;
	TimestampTz at;
	double left; /* parts of a firing that are free */
} LastStep;

void
eq_look_for_backfills(void)
{
	any = true;
	next_due = 0; /* it may have been paused, or cancelled */
}

/* How long until a backfill goes on, in ms; at most the limit. */
long
eq_until_backfill(long limit)
{
	if (next_due == 0)
		return limit;
	return Min(limit,
			   TimestampDifferenceMilliseconds(GetCurrentTimestamp(), next_due) + 1);
}

bool
eq_backfill_is_due(void)
{
	return next_due != 0 && GetCurrentTimestamp() >= next_due;
}

/* Locks the tables of backfills; false if another session has them locked: rules go on. */
static bool
lock_tables(void)
{
	return ConditionalLockRelationOid(eq_find_relation("rule_backfill"),
									  RowExclusiveLock) &&
		   ConditionalLockRelationOid(eq_find_relation("rule_memory"),
									  AccessShareLock);
}

/*
 * Reads the running backfills of these rules, and locks their rows against cancel_backfill.
 * Skips one that another session has locked, until the next sweep.
 */
static EqBackfill *
read_backfills(EqRule *rules, int n_rules, int *n)
{
	static EqStatement read = {
		.sql = "SELECT b.backfill_id, b.rule_id, b.position, b.to_position, b.rate"
			   " FROM event_queue_internal.rule_backfill b"
			   " WHERE b.state = 'running' FOR UPDATE OF b SKIP LOCKED"};
	static EqStatement look = {
		.sql = "SELECT FROM event_queue_internal.rule_backfill"
			   " WHERE state = 'running' LIMIT 1"};
	MemoryContext context = CurrentMemoryContext;
	EqBackfill *found = NULL;
	EqSpi spi;

	*n = 0;
	eq_spi_begin(&spi, eq_extension_owner(), SECURITY_LOCAL_USERID_CHANGE);
	eq_spi_run(&look, NULL, NULL);
	any = SPI_processed > 0;
	eq_spi_run(&read, NULL, NULL);
	if (SPI_processed > 0)
		found = MemoryContextAllocZero(context, SPI_processed * sizeof(EqBackfill));
	for (uint64 row = 0; row < SPI_processed; row++)
	{
		HeapTuple tuple = SPI_tuptable->vals[row];
		TupleDesc desc = SPI_tuptable->tupdesc;
		EqBackfill *backfill = &found[*n];
		int32 rule_id;
		Datum rate;
		bool isnull;

		backfill->id = DatumGetInt64(SPI_getbinval(tuple, desc, 1, &isnull));
		rule_id = DatumGetInt32(SPI_getbinval(tuple, desc, 2, &isnull));
		backfill->position = DatumGetInt64(SPI_getbinval(tuple, desc, 3, &isnull));
		backfill->up_to = DatumGetInt64(SPI_getbinval(tuple, desc, 4, &isnull));
		rate = SPI_getbinval(tuple, desc, 5, &isnull);
		backfill->rate = isnull ? 0 : DatumGetFloat8(rate);
		for (int i = 0; i < n_rules; i++)
		{
			if (rules[i].rule_id == rule_id)
				backfill->rule = &rules[i];
		}
		/* Else it is paused. */
		if (backfill->rule)
			(*n)++;
	}
	eq_spi_end(&spi);
	return found;
}

/* Firings that the rate leaves free now; at most so many as are due in a second. */
static LastStep *
free_firings(EqBackfill *backfill)
{
	TimestampTz now = GetCurrentTimestamp();
	LastStep *step;
	bool found;

	if (last_steps == NULL)
	{
		HASHCTL ctl = {.keysize = sizeof(int32), .entrysize = sizeof(LastStep)};

		last_steps = hash_create("event_queue backfills", 16, &ctl,
								 HASH_ELEM | HASH_BLOBS);
	}
	step = hash_search(last_steps, &backfill->rule->rule_id, HASH_ENTER, &found);
	if (!found)
		step->left = 1;
	else
		step->left += backfill->rate * Max(now - step->at, 0) / USECS_PER_SEC;
	step->left = Min(step->left, Max(backfill->rate, 1));
	step->at = now;
	return step;
}

/* When the next firing is free: a day from now at most, when it is looked at again. */
static void
wait_for_firing(EqBackfill *backfill, const LastStep *step)
{
	double wait = Min((1 - step->left) / backfill->rate, SECS_PER_DAY);
	TimestampTz due = step->at + (int64) (wait * USECS_PER_SEC);

	next_due = next_due == 0 ? due : Min(next_due, due);
}

/*
 * Reads the positions of a range for which the rule has fired, or is tried again, in order;
 * and after that up to where this is no longer known: what trim_rule_runs deletes meanwhile
 * must not be taken for events that the rule has not fired for.
 */
static void
read_fired(EqBackfill *backfill, int64 last)
{
	static EqStatement forget = {
		.sql = "SELECT event_queue_internal.forget_given_up($1, $2, $3)",
		.n_arguments = 3,
		.types = {INT4OID, INT8OID, INT8OID}};
	static EqStatement read = {
		.sql =
			"SELECT position FROM event_queue_internal.rule_run WHERE rule_id = $1"
			" AND position > $2 AND position <= $3 ORDER BY 1",
		.n_arguments = 3,
		.types = {INT4OID, INT8OID, INT8OID}};
	static EqStatement read_memory = {
		.sql = "SELECT known_from FROM event_queue_internal.rule_memory"
			   " WHERE rule_id = $1",
		.n_arguments = 1,
		.types = {INT4OID}};
	Datum values[3] = {Int32GetDatum(backfill->rule->rule_id),
					   Int64GetDatum(backfill->position), Int64GetDatum(last)};
	MemoryContext context = CurrentMemoryContext;
	EqSpi spi;

	eq_spi_begin(&spi, eq_extension_owner(), SECURITY_LOCAL_USERID_CHANGE);
	eq_spi_run(&forget, values, NULL);
	eq_spi_run(&read, values, NULL);
	backfill->n_fired = SPI_processed;
	backfill->fired = MemoryContextAlloc(context,
										 Max(SPI_processed, 1) * sizeof(int64));
	for (uint64 row = 0; row < SPI_processed; row++)
	{
		bool isnull;

		backfill->fired[row] = DatumGetInt64(SPI_getbinval(
			SPI_tuptable->vals[row], SPI_tuptable->tupdesc, 1, &isnull));
	}
	eq_spi_run(&read_memory, values, NULL);
	if (SPI_processed == 1)
	{
		bool isnull;

		backfill->known_from = DatumGetInt64(
			SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
	}
	eq_spi_end(&spi);
}

/* Is the event one that the rule is to meet?  Counts those that are not. */
bool
eq_backfill_wants(EqBackfill *backfill, int64 position)
{
	backfill->counts[EQ_BACKFILL_SEEN]++;
	while (backfill->next_fired < backfill->n_fired &&
		   backfill->fired[backfill->next_fired] < position)
		backfill->next_fired++;
	if (backfill->next_fired < backfill->n_fired &&
		backfill->fired[backfill->next_fired] == position)
		backfill->counts[EQ_BACKFILL_FIRED_BEFORE]++;
	else if (position <= backfill->known_from)
		backfill->counts[EQ_BACKFILL_NOT_KNOWN]++;
	else
		return true;
	return false;
}

/* The backfill has come to this position. */
static void
move_backfill(EqBackfill *backfill, int64 met)
{
	static EqStatement move = {
		.sql =
			"UPDATE event_queue_internal.rule_backfill SET position = $2,"
			" seen = seen + $3, fired = fired + $4, fired_before = fired_before + $5,"
			" not_known = not_known + $6,"
			" state = CASE WHEN $2 >= to_position THEN 'done' ELSE state END,"
			" ended_at = CASE WHEN $2 >= to_position THEN pg_catalog.clock_timestamp() END"
			" WHERE backfill_id = $1",
		.n_arguments = 6,
		.types = {INT8OID, INT8OID, INT8OID, INT8OID, INT8OID, INT8OID}};
	Datum values[6] = {Int64GetDatum(backfill->id), Int64GetDatum(met)};

	for (int i = 0; i < EQ_BACKFILL_COUNTS; i++)
		values[2 + i] = Int64GetDatum(backfill->counts[i]);
	eq_run_as_owner(&move, values, NULL);
}

/* One step of a backfill.  True: there is more to do at once. */
static bool
step_backfill(EqBackfill *backfill, int64 checkpoint, int64 watermark)
{
	EqRule *rule = backfill->rule;
	int64 until = Min(backfill->up_to, Min(checkpoint, watermark));
	int64 met;
	bool more = false;
	LastStep *step = NULL;

	/* Events that a rule which catches up will meet by itself are not backfilled. */
	if (rule->behind)
		until = Min(until, rule->caught_up);
	backfill->limit = PG_INT64_MAX;
	if (backfill->rate > 0)
	{
		step = free_firings(backfill);
		backfill->limit = (int64) step->left;
		if (backfill->limit < 1)
		{
			wait_for_firing(backfill, step);
			return false;
		}
	}
	met = Max(backfill->position, until); /* if nothing is left to be read */
	if (backfill->position < until)
	{
		Tuplestorestate *events = tuplestore_begin_heap(false, false, work_mem);
		int64 last = eq_read_events(backfill->position, until, EQ_CATCH_UP_BATCH,
									NULL, events);

		if (last != 0)
		{
			int n_events;

			read_fired(backfill, last);
			n_events = eq_meet_events(events, rule, backfill, &met);
			more = met != last || n_events == EQ_CATCH_UP_BATCH;
			if (!more)
				met = until;
		}
		tuplestore_end(events);
	}
	if (step)
	{
		step->left -= backfill->counts[EQ_BACKFILL_FIRED];
		if (more && step->left < 1)
		{
			wait_for_firing(backfill, step);
			more = false;
		}
	}
	if (met > backfill->position || backfill->up_to <= met)
		move_backfill(backfill, met);
	return more;
}

/*
 * Does what is due of all backfills, in turn, until a time, but one step at least.  True:
 * there are some; more, if there is more to do at once.
 */
bool
eq_run_backfills(EqRule *rules, int n_rules, int64 checkpoint, int64 watermark,
				 TimestampTz until, bool *more)
{
	static int next = 0; /* whose turn it is */
	EqBackfill *backfills;
	int first;
	int n;

	next_due = 0;
	if (!any || !lock_tables())
		return false;
	backfills = read_backfills(rules, n_rules, &n);
	first = next;
	for (int i = 0; i < n; i++)
	{
		if (i > 0 && GetCurrentTimestamp() > until)
		{
			*more = true;
			break;
		}
		if (step_backfill(&backfills[(first + i) % n], checkpoint, watermark))
			*more = true;
		next = (first + i + 1) % n;
	}
	return n > 0;
}
