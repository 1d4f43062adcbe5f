/*
 * read.c: events of all aggregates in the order of their positions.
 *
 * The watermark is taken first and the snapshot after (watermark.c says why).
 * In REPEATABLE READ and SERIALIZABLE the transaction's snapshot is older than
 * the watermark: events between the two are committed, but the transaction
 * can't see them, and a consumer that stepped over them would lose them.  So
 * the scan runs under a fresh snapshot and ends before the first event that
 * the transaction's snapshot does not show.
 *
 * Each table of events is walked by an index that ends in the position: its
 * primary key, or one that create_event_index made for what the filter asks.
 * Several tables are merged.
 */
#include "postgres.h"

#include "access/tableam.h"
#include "access/table.h"
#include "access/xact.h"
#include "executor/tuptable.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"

#include "common/argument.h"
#include "store/store.h"
#include "table/table.h"
#include "tenant/tenant.h"

PG_FUNCTION_INFO_V1(eq_read_all);
PG_FUNCTION_INFO_V1(eq_read_plan);

#define MAX_READ_LIMIT 100000

/* One table of events. */
typedef struct Walk
{
	Relation rel;
	EqScan scan;
	bool done;
	int64 position; /* of the row in scan.slot */
} Walk;

struct EqReader
{
	Snapshot snapshot;
	Snapshot own; /* the transaction's, if it keeps one */
	EqFilter filter;
	bool wants_all; /* whatever it meets */
	Walk *walks;
	int n_walks;
	Walk *current;
	int64 up_to;
	int64 seen; /* all wanted events up to here were returned */
	MemoryContext row_context;
};

int64
eq_event_slot_position(TupleTableSlot *slot)
{
	bool isnull;

	return DatumGetInt64(slot_getattr(slot, EVENT_POSITION, &isnull));
}

/* The list of leaves may be older than the lock on the table, so an index may be gone. */
static bool
is_here(Oid index)
{
	return OidIsValid(index) && SearchSysCacheExists1(RELOID, index) &&
		   get_index_isvalid(index);
}

/*
 * The index to walk a table by, which the caller has locked, and the value of its
 * first column, if any.
 */
static Oid
choose_index(const EqLeaf *leaf, const EqFilter *filter, const char **value)
{
	*value = NULL;
	if (filter->pattern && strchr(filter->pattern, '*') == NULL &&
		is_here(leaf->by_type))
	{
		*value = filter->pattern;
		return leaf->by_type;
	}
	if (filter->aggregate_type && is_here(leaf->by_aggregate_type))
	{
		*value = filter->aggregate_type;
		return leaf->by_aggregate_type;
	}
	if (filter->tenant && !leaf->tenant && is_here(leaf->by_tenant))
	{
		*value = filter->tenant;
		return leaf->by_tenant;
	}
	return leaf->pkey;
}

/* Can this table hold events between the two positions? */
static bool
is_in_range(const EqLeaf *leaf, int64 after, int64 up_to, const EqFilter *filter)
{
	if (leaf->tenant && filter->tenant && strcmp(leaf->tenant, filter->tenant) != 0)
		return false;
	return leaf->first_position <= up_to &&
		   (leaf->last_position == 0 || leaf->last_position > after);
}

/* Goes to the next wanted row of a table. */
static void
advance(EqReader *reader, Walk *walk)
{
	while (eq_scan_next(&walk->scan, ForwardScanDirection))
	{
		MemoryContext old;
		bool matches;

		walk->position = eq_event_slot_position(walk->scan.slot);
		if (reader->wants_all)
			return;
		old = MemoryContextSwitchTo(reader->row_context);
		/* What can't be seen ends the reading, wanted or not. */
		matches = (reader->own && !table_tuple_satisfies_snapshot(
									  walk->rel, walk->scan.slot, reader->own)) ||
				  eq_filter_matches(&reader->filter, walk->scan.slot);
		MemoryContextSwitchTo(old);
		MemoryContextReset(reader->row_context);
		if (matches)
			return;
	}
	walk->done = true;
}

static void
begin_walk(EqReader *reader, const EqLeaf *leaf, int64 after)
{
	Walk *walk = &reader->walks[reader->n_walks];
	ScanKeyData keys[3];
	const char *value;
	Oid index;
	int n = 0;
	int position_column;

	walk->rel = try_table_open(leaf->relid, AccessShareLock);
	if (walk->rel == NULL)
		return; /* archived meanwhile */
	reader->n_walks++;
	index = choose_index(leaf, &reader->filter, &value);
	position_column = value ? 2 : 1;
	eq_scan_begin(&walk->scan, walk->rel, index, reader->snapshot, value ? 3 : 2);
	if (value)
		eq_scan_key(&walk->scan, &keys[n++], 1, BTEqualStrategyNumber, F_TEXTEQ,
					CStringGetTextDatum(value));
	eq_scan_key(&walk->scan, &keys[n++], position_column, BTGreaterStrategyNumber,
				F_INT8GT, Int64GetDatum(after));
	eq_scan_key(&walk->scan, &keys[n++], position_column, BTLessEqualStrategyNumber,
				F_INT8LE, Int64GetDatum(reader->up_to));
	eq_scan_start(&walk->scan, keys, n);
	advance(reader, walk);
}

/*
 * Begins to read events with after < position <= up_to.  Nothing but a call of
 * eq_reader_end, or an error, may come between this and the end of the call.
 */
EqReader *
eq_reader_begin(int64 after, int64 up_to, const EqFilter *filter)
{
	EqReader *reader = palloc0(sizeof(EqReader));
	EqLeaf *leaves;
	int n_leaves;

	reader->snapshot = RegisterSnapshot(eq_latest_snapshot());
	n_leaves = eq_event_leaves_for(reader->snapshot, &leaves);
	reader->own = IsolationUsesXactSnapshot() ? GetTransactionSnapshot() : NULL;
	reader->row_context = AllocSetContextCreate(
		CurrentMemoryContext, "event_queue reader", ALLOCSET_SMALL_SIZES);
	if (filter)
		reader->filter = *filter;
	reader->wants_all = reader->own == NULL && reader->filter.pattern == NULL &&
						reader->filter.aggregate_type == NULL &&
						reader->filter.tenant == NULL && reader->filter.data == NULL;
	reader->up_to = up_to;
	reader->seen = after;
	reader->walks = palloc0(n_leaves * sizeof(Walk));
	for (int i = 0; i < n_leaves; i++)
	{
		if (is_in_range(&leaves[i], after, up_to, &reader->filter))
			begin_walk(reader, &leaves[i], after);
	}
	return reader;
}

/* The next event, or NULL.  The slot is good until the next call. */
TupleTableSlot *
eq_reader_next(EqReader *reader)
{
	Walk *first = NULL;

	if (reader->current)
		advance(reader, reader->current);
	for (int i = 0; i < reader->n_walks; i++)
	{
		Walk *walk = &reader->walks[i];

		if (!walk->done && (first == NULL || walk->position < first->position))
			first = walk;
	}
	reader->current = first;
	if (first == NULL)
	{
		reader->seen = Max(reader->seen, reader->up_to);
		return NULL;
	}
	if (reader->own &&
		!table_tuple_satisfies_snapshot(first->rel, first->scan.slot, reader->own))
	{
		reader->seen = Max(reader->seen, first->position - 1);
		reader->up_to = reader->seen;
		for (int i = 0; i < reader->n_walks; i++)
			reader->walks[i].done = true;
		reader->current = NULL;
		return NULL;
	}
	reader->seen = first->position;
	return first->scan.slot;
}

/* Returns the position up to which all wanted events were returned. */
int64
eq_reader_end(EqReader *reader)
{
	int64 seen = reader->seen;

	for (int i = 0; i < reader->n_walks; i++)
	{
		eq_scan_end(&reader->walks[i].scan);
		table_close(reader->walks[i].rel, AccessShareLock);
	}
	UnregisterSnapshot(reader->snapshot);
	MemoryContextDelete(reader->row_context);
	pfree(reader);
	return seen;
}

/*
 * Puts up to limit events into the store.  Returns the position of the last
 * one, or 0 if there was none.
 */
int64
eq_read_events(int64 after, int64 up_to, int limit, const EqFilter *filter,
			   Tuplestorestate *into)
{
	EqReader *reader = eq_reader_begin(after, up_to, filter);
	TupleTableSlot *slot;
	int64 last = 0;

	for (int n = 0; n < limit && (slot = eq_reader_next(reader)) != NULL; n++)
	{
		last = eq_event_slot_position(slot);
		tuplestore_puttupleslot(into, slot);
	}
	(void) eq_reader_end(reader);
	return last;
}

Datum
eq_read_all(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	int64 after = PG_ARGISNULL(0) ? 0 : PG_GETARG_INT64(0);
	int limit = PG_ARGISNULL(1) ? 1000 : PG_GETARG_INT32(1);
	EqFilter filter;
	int64 watermark;

	if (after < 0)
		ereport(ERROR, (errcode(ERRCODE_EQ_INVALID_ARGUMENT),
						errmsg("position must not be negative")));
	if (limit < 1 || limit > MAX_READ_LIMIT)
		ereport(ERROR,
				(errcode(ERRCODE_EQ_INVALID_ARGUMENT),
				 errmsg("max_events must be between 1 and %d", MAX_READ_LIMIT)));
	eq_parse_filter(&filter, PG_ARGISNULL(3) ? NULL : PG_GETARG_JSONB_P(3));
	if (!PG_ARGISNULL(2))
		filter.tenant = eq_tenant_argument(fcinfo, 2);

	InitMaterializedSRF(fcinfo, MAT_SRF_USE_EXPECTED_DESC);
	watermark = eq_watermark();
	if (after > 0)
		eq_check_not_ahead(after, watermark);
	(void) eq_read_events(after, watermark, limit, &filter, rsinfo->setResult);
	return (Datum) 0;
}

/* By which index each table is walked for a filter. */
Datum
eq_read_plan(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	EqFilter filter;
	EqLeaf *leaves;
	int n_leaves = eq_event_leaves(&leaves);

	eq_parse_filter(&filter, PG_ARGISNULL(0) ? NULL : PG_GETARG_JSONB_P(0));
	InitMaterializedSRF(fcinfo, 0);
	for (int i = 0; i < n_leaves; i++)
	{
		const char *value;
		const char *index;
		Relation rel;
		Datum values[3];
		bool nulls[3] = {false};

		if (!is_in_range(&leaves[i], 0, PG_INT64_MAX, &filter))
			continue;
		rel = try_table_open(leaves[i].relid, AccessShareLock);
		if (rel == NULL)
			continue; /* archived meanwhile */
		values[0] = CStringGetTextDatum(RelationGetRelationName(rel));
		index = get_rel_name(choose_index(&leaves[i], &filter, &value));
		values[1] = index ? CStringGetTextDatum(index) : (Datum) 0;
		nulls[1] = index == NULL; /* rebuilt meanwhile */
		values[2] = value ? CStringGetTextDatum(value) : (Datum) 0;
		nulls[2] = value == NULL;
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
		table_close(rel, AccessShareLock);
	}
	return (Datum) 0;
}
