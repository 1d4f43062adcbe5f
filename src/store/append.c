/*
 * append.c: events to the end of one or several aggregates, all or none.
 *
 * Two appenders of one aggregate take turns: each looks up the newest version
 * with a dirty snapshot, which also sees rows of open transactions, and if the
 * newest one is another transaction's and open, waits for that to end and looks
 * again.  From look-up to insert a lock on the aggregate's key is held, so that
 * no two sessions find the same version and no unique index has to complain.
 * Since the second appender waits for the first one's end, versions of an
 * aggregate have positions in the same order.
 *
 * All locks of a call are taken in one order, and all are given back before it
 * waits for another transaction: so two calls can't hold each other up, whatever
 * aggregates they share.
 *
 * An event id given by the caller makes the call safe to repeat; the same kind
 * of lock and look-up protects it.
 */
#include "postgres.h"

#include "access/table.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "common/hashfn.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/json.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "common/argument.h"
#include "store/store.h"
#include "table/table.h"

/*
 * Ids share a small number of locks, so that a call with many ids does not
 * exhaust the lock table; each is held for microseconds.
 */
#define ID_LOCKS 512

/* The locks and tables of one call. */
typedef struct AppendCall
{
	const char *tenant;
	EqAggregate *aggregates;
	int n_aggregates;
	EqEvent *events;
	int n_events;
	EqLeaf *leaves;
	int n_leaves;
	uint32 *id_locks; /* in the order in which they are taken */
	int n_id_locks;
	uint32 *aggregate_locks;
	int n_aggregate_locks;
} AppendCall;

static uint32
hash_text(const char *text, uint32 hash)
{
	return hash_combine(
		hash, DatumGetUInt32(hash_any((const unsigned char *) text, strlen(text))));
}

static int
compare_hashes(const void *a, const void *b)
{
	uint32 x = *(const uint32 *) a;
	uint32 y = *(const uint32 *) b;

	return x < y ? -1 : x > y;
}

/* Sorts and drops doubles; returns how many are left. */
static int
sort_unique(uint32 *hashes, int n)
{
	int kept = 0;

	qsort(hashes, n, sizeof(uint32), compare_hashes);
	for (int i = 0; i < n; i++)
	{
		if (i == 0 || hashes[i] != hashes[kept - 1])
			hashes[kept++] = hashes[i];
	}
	return kept;
}

/* Lists the locks that the call needs. */
static void
plan_locks(AppendCall *append)
{
	uint32 tenant_hash = hash_text(append->tenant, 0);

	append->aggregate_locks = palloc(append->n_aggregates * sizeof(uint32));
	for (int i = 0; i < append->n_aggregates; i++)
		append->aggregate_locks[i] = hash_text(
			append->aggregates[i].id,
			hash_text(append->aggregates[i].type, tenant_hash));
	append->n_aggregate_locks = sort_unique(append->aggregate_locks,
											append->n_aggregates);

	append->n_id_locks = 0;
	if (!append->events[0].id_given)
		return;
	append->id_locks = palloc(append->n_events * sizeof(uint32));
	for (int i = 0; i < append->n_events; i++)
		append->id_locks[i] = DatumGetUInt32(
								  hash_any(append->events[i].id.data, UUID_LEN)) %
							  ID_LOCKS;
	append->n_id_locks = sort_unique(append->id_locks, append->n_events);
}

static void
take_locks(AppendCall *append)
{
	for (int i = 0; i < append->n_id_locks; i++)
		eq_lock_key(EQ_LOCK_EVENT_ID, append->id_locks[i]);
	for (int i = 0; i < append->n_aggregate_locks; i++)
		eq_lock_key(EQ_LOCK_AGGREGATE, append->aggregate_locks[i]);
}

static void
give_locks_back(AppendCall *append)
{
	for (int i = 0; i < append->n_aggregate_locks; i++)
		eq_unlock_key(EQ_LOCK_AGGREGATE, append->aggregate_locks[i]);
	for (int i = 0; i < append->n_id_locks; i++)
		eq_unlock_key(EQ_LOCK_EVENT_ID, append->id_locks[i]);
}

/* If a dirty scan met another open transaction: the one to wait for. */
static TransactionId
open_transaction(SnapshotData *dirty)
{
	return TransactionIdIsValid(dirty->xmin) ? dirty->xmin : dirty->xmax;
}

/* EQ002 unless the stored row is the event that the caller repeats. */
static void
check_same_event(const EqEvent *event, TupleTableSlot *slot)
{
	Jsonb *data = DatumGetJsonbP(slot->tts_values[EVENT_DATA - 1]);

	if (eq_text_is(slot->tts_values[EVENT_AGGREGATE_TYPE - 1],
				   event->aggregate->type) &&
		eq_text_is(slot->tts_values[EVENT_AGGREGATE_ID - 1], event->aggregate->id) &&
		eq_text_is(slot->tts_values[EVENT_TYPE - 1], event->type) &&
		compareJsonbContainers(&data->root, &event->data->root) == 0)
		return;
	ereport(ERROR, (errcode(ERRCODE_EQ_EVENT_ID_CONFLICT),
					errmsg("event id is used by another event"),
					errdetail("Event %s is at position " INT64_FORMAT
							  " with another aggregate, type or data.",
							  DatumGetCString(DirectFunctionCall1(
								  uuid_out, UUIDPGetDatum(&event->id))),
							  DatumGetInt64(slot->tts_values[EVENT_POSITION - 1])),
					errhint("A retry must repeat the event unchanged.")));
}

/*
 * Looks for an event with this id in one table.  True if there is one, with
 * its place in the event; *open is set if it belongs to another open
 * transaction.
 */
static bool
find_id_in(const EqLeaf *leaf, const char *tenant, EqEvent *event,
		   TransactionId *open)
{
	Relation rel = table_open(leaf->relid, AccessShareLock);
	SnapshotData dirty;
	EqScan scan;
	ScanKeyData keys[2];
	bool found;

	InitDirtySnapshot(dirty);
	eq_scan_begin(&scan, rel, leaf->id, &dirty, 2);
	eq_scan_key(&scan, &keys[0], 1, BTEqualStrategyNumber, F_UUID_EQ,
				UUIDPGetDatum(&event->id));
	eq_scan_key(&scan, &keys[1], 2, BTEqualStrategyNumber, F_TEXTEQ,
				CStringGetTextDatum(tenant));
	eq_scan_start(&scan, keys, 2);
	found = eq_scan_next(&scan, ForwardScanDirection);
	*open = found ? open_transaction(&dirty) : InvalidTransactionId;
	if (found && !TransactionIdIsValid(*open))
	{
		slot_getallattrs(scan.slot);
		check_same_event(event, scan.slot);
		event->position = DatumGetInt64(scan.slot->tts_values[EVENT_POSITION - 1]);
		event->version = DatumGetInt32(scan.slot->tts_values[EVENT_VERSION - 1]);
		event->duplicate = true;
	}
	eq_scan_end(&scan);
	table_close(rel, NoLock);
	return found;
}

/*
 * Counts the events that are in the store already.  *open is set if that depends on an
 * open transaction.
 */
static int
find_ids(AppendCall *append, TransactionId *open)
{
	int n_found = 0;

	*open = InvalidTransactionId;
	for (int i = 0; i < append->n_events; i++)
	{
		CHECK_FOR_INTERRUPTS();
		for (int l = 0; l < append->n_leaves; l++)
		{
			if (!find_id_in(&append->leaves[l], append->tenant, &append->events[i],
							open))
				continue;
			if (TransactionIdIsValid(*open))
				return 0;
			n_found++;
			break;
		}
	}
	return n_found;
}

/*
 * All ids are known: the call repeats an earlier one if the events follow each
 * other as they did then.
 */
static void
check_repeated(AppendCall *append)
{
	for (int i = 1; i < append->n_events; i++)
	{
		EqEvent *event = &append->events[i];

		if (event->aggregate == append->events[i - 1].aggregate &&
			event->version != append->events[i - 1].version + 1)
			ereport(
				ERROR,
				(errcode(ERRCODE_EQ_PARTLY_WRITTEN),
				 errmsg("events were written before, but not in this order"),
				 errhint("A retry must repeat the events of a call unchanged.")));
	}
}

static void
partly_written(AppendCall *append, int n_found)
{
	StringInfoData detail;
	EqEvent *first = append->events;

	while (first->duplicate)
		first++;
	initStringInfo(&detail);
	appendStringInfo(
		&detail, "{\"events\": %d, \"written_before\": %d, \"first_missing\": %d}",
		append->n_events, n_found, (int) (first - append->events));
	ereport(ERROR,
			(errcode(ERRCODE_EQ_PARTLY_WRITTEN),
			 errmsg("some events of this call were written before, others were not"),
			 errdetail_internal("%s", detail.data),
			 errhint("A retry must repeat the events of a call unchanged.")));
}

/* The newest version in one table, 0 if it has none. */
static int32
find_version_in(const EqLeaf *leaf, const char *tenant, const EqAggregate *aggregate,
				TransactionId *open)
{
	Relation rel = table_open(leaf->relid, AccessShareLock);
	SnapshotData dirty;
	EqScan scan;
	ScanKeyData keys[3];
	int32 version = 0;

	*open = InvalidTransactionId;
	InitDirtySnapshot(dirty);
	eq_scan_begin(&scan, rel, leaf->aggregate, &dirty, 3);
	eq_aggregate_keys(&scan, keys, tenant, aggregate->type, aggregate->id);
	eq_scan_start(&scan, keys, 3);
	if (eq_scan_next(&scan, BackwardScanDirection))
	{
		bool isnull;

		*open = open_transaction(&dirty);
		version = DatumGetInt32(slot_getattr(scan.slot, EVENT_VERSION, &isnull));
	}
	eq_scan_end(&scan);
	table_close(rel, NoLock);
	return version;
}

/*
 * The version of an aggregate whose events were archived: that of its last
 * snapshot.
 */
static int32
find_archived_version(const char *tenant, const EqAggregate *aggregate)
{
	Relation rel = table_open(eq_relation_oid(EQ_AGGREGATE_SNAPSHOT),
							  AccessShareLock);
	Snapshot snapshot = RegisterSnapshot(GetLatestSnapshot());
	EqScan scan;
	ScanKeyData keys[3];
	int32 version = 0;

	eq_scan_begin(&scan, rel, eq_relation_oid(EQ_AGGREGATE_SNAPSHOT_PKEY), snapshot,
				  3);
	eq_aggregate_keys(&scan, keys, tenant, aggregate->type, aggregate->id);
	eq_scan_start(&scan, keys, 3);
	if (eq_scan_next(&scan, BackwardScanDirection))
	{
		bool isnull;

		version = DatumGetInt32(slot_getattr(scan.slot, SNAPSHOT_VERSION, &isnull));
	}
	eq_scan_end(&scan);
	UnregisterSnapshot(snapshot);
	table_close(rel, NoLock);
	return version;
}

/* Sets the aggregate's version, 0 if it has no event; *open as above. */
static void
find_version(AppendCall *append, EqAggregate *aggregate, TransactionId *open)
{
	aggregate->version = 0;
	for (int i = 0; i < append->n_leaves && aggregate->version == 0; i++)
	{
		const EqLeaf *leaf = &append->leaves[i];

		if (leaf->tenant && strcmp(leaf->tenant, append->tenant) != 0)
			continue;
		aggregate->version = find_version_in(leaf, append->tenant, aggregate, open);
	}
	if (aggregate->version == 0 && eq_events_were_archived())
		aggregate->version = find_archived_version(append->tenant, aggregate);
}

static void
check_expected_version(const EqAggregate *aggregate)
{
	int32 expected = aggregate->expected;
	StringInfoData detail;

	if (expected == EQ_EXPECT_ANY || expected == aggregate->version ||
		(expected == EQ_EXPECT_EXISTS && aggregate->version > 0))
		return;

	initStringInfo(&detail);
	appendStringInfoString(&detail, "{\"aggregate_type\": ");
	escape_json(&detail, aggregate->type);
	appendStringInfoString(&detail, ", \"aggregate_id\": ");
	escape_json(&detail, aggregate->id);
	appendStringInfo(&detail, ", \"expected_version\": %s, \"current_version\": %d}",
					 expected == EQ_EXPECT_EXISTS ? "\"exists\""
												  : psprintf("%d", expected),
					 aggregate->version);
	ereport(ERROR, (errcode(ERRCODE_EQ_WRONG_EXPECTED_VERSION),
					errmsg("wrong expected version of %s \"%s\"", aggregate->type,
						   aggregate->id),
					errdetail_internal("%s", detail.data),
					errhint("Read the aggregate again and decide anew.")));
}

/* The table that takes this tenant's new events. */
static const EqLeaf *
choose_leaf(AppendCall *append)
{
	for (int i = 0; i < append->n_leaves; i++)
	{
		const EqLeaf *leaf = &append->leaves[i];

		if (!leaf->is_sealed && leaf->tenant &&
			strcmp(leaf->tenant, append->tenant) == 0)
			return leaf;
	}
	for (int i = 0; i < append->n_leaves; i++)
	{
		if (!append->leaves[i].is_sealed && !append->leaves[i].tenant)
			return &append->leaves[i];
	}
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("no event partition of tenant \"%s\" is open", append->tenant),
			 errhint("event_queue.create_event_partition() opens one.")));
}

static void
insert_event(EqTable *store, Datum tenant, EqEvent *event)
{
	Datum values[EVENT_COLUMNS];
	bool nulls[EVENT_COLUMNS] = {false};
	TimestampTz now = GetCurrentTimestamp();

	if (event->aggregate->version == PG_INT32_MAX)
		ereport(ERROR, (errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
						errmsg("%s \"%s\" has too many events",
							   event->aggregate->type, event->aggregate->id)));
	if (!event->id_given)
		eq_make_uuid_v7(&event->id, now);
	event->version = ++event->aggregate->version;
	event->position = eq_take_position();

	values[EVENT_POSITION - 1] = Int64GetDatum(event->position);
	values[EVENT_ID - 1] = UUIDPGetDatum(&event->id);
	values[EVENT_TENANT - 1] = tenant;
	values[EVENT_AGGREGATE_TYPE - 1] = CStringGetTextDatum(event->aggregate->type);
	values[EVENT_AGGREGATE_ID - 1] = CStringGetTextDatum(event->aggregate->id);
	values[EVENT_VERSION - 1] = Int32GetDatum(event->version);
	values[EVENT_TYPE - 1] = CStringGetTextDatum(event->type);
	values[EVENT_DATA - 1] = JsonbPGetDatum(event->data);
	values[EVENT_METADATA - 1] = JsonbPGetDatum(event->metadata);
	values[EVENT_CREATED_AT - 1] = TimestampTzGetDatum(now);
	eq_table_insert(store, values, nulls);
}

static void
insert_events(AppendCall *append)
{
	EqTable store;
	Datum tenant = CStringGetTextDatum(append->tenant);

	eq_table_open(&store, choose_leaf(append)->relid, EVENT_COLUMNS);
	for (int i = 0; i < append->n_events; i++)
	{
		CHECK_FOR_INTERRUPTS();
		insert_event(&store, tenant, &append->events[i]);
	}
	eq_table_close(&store);
}

/* Appends under the locks; false if it must wait for an open transaction first. */
static bool
try_append(AppendCall *append, TransactionId *open)
{
	if (append->n_id_locks > 0)
	{
		int n_found = find_ids(append, open);

		if (TransactionIdIsValid(*open))
			return false;
		if (n_found == append->n_events)
		{
			check_repeated(append);
			return true;
		}
		if (n_found > 0)
			partly_written(append, n_found);
	}
	for (int i = 0; i < append->n_aggregates; i++)
	{
		CHECK_FOR_INTERRUPTS();
		find_version(append, &append->aggregates[i], open);
		if (TransactionIdIsValid(*open))
			return false;
	}
	for (int i = 0; i < append->n_aggregates; i++)
		check_expected_version(&append->aggregates[i]);
	insert_events(append);
	return true;
}

/*
 * Appends the events in their order, all or none.  Either all of them have an
 * id or none has.
 */
void
eq_append_events(const char *tenant, EqAggregate *aggregates, int n_aggregates,
				 EqEvent *events, int n_events)
{
	AppendCall append = {.tenant = tenant,
						 .aggregates = aggregates,
						 .n_aggregates = n_aggregates,
						 .events = events,
						 .n_events = n_events};
	Relation rel;

	PreventCommandIfReadOnly("append");
	PreventCommandIfParallelMode("append");

	/* This lock keeps the list of partitions as it is. */
	rel = table_open(eq_relation_oid(EQ_EVENT_STORE), RowExclusiveLock);
	append.n_leaves = eq_event_leaves(&append.leaves);
	plan_locks(&append);
	for (;;)
	{
		TransactionId open = InvalidTransactionId;
		bool done;

		CHECK_FOR_INTERRUPTS();
		take_locks(&append);
		done = try_append(&append, &open);
		give_locks_back(&append);
		if (done)
			break;

		/* As a unique index does; a deadlock is found and reported as one. */
		XactLockTableWait(open, NULL, NULL, XLTW_None);
	}
	table_close(rel, NoLock);
	CommandCounterIncrement();
}
