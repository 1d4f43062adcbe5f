/*
 * leaves.c: the tables that hold events: event_store and its partitions.
 *
 * Partitions are tables that inherit from event_store (store/partition.sql
 * makes them): so queries on event_store see all, and its row type, which
 * users' functions take as their argument, stays what it is when a store is
 * partitioned later.  Unique keys hold by table; append looks into all of them
 * under its key locks, which is what makes ids and versions unique.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/table.h"
#include "access/xlog.h"
#include "catalog/namespace.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "event_queue.h"
#include "store/tables.h"
#include "table/table.h"

static MemoryContext leaves_context = NULL;
static EqLeaf *leaves;
static int n_leaves;
static int max_leaves;
static bool leaves_known = false;
static bool some_are_gone = false;
static int32 newest_known; /* partition_id; 0: there is none */

void
eq_forget_leaves(void)
{
	leaves_known = false;
}

/* A partition changed: REINDEX CONCURRENTLY gives it other indexes. */
static void
leaf_changed(Datum arg, Oid relid)
{
	/* One more than are known: the one that is being read. */
	for (int i = 0; i <= n_leaves && i < max_leaves && leaves_known; i++)
	{
		if (leaves[i].relid == relid)
			leaves_known = false;
	}
}

static Oid
index_of(const char *table, const char *suffix)
{
	return get_relname_relid(psprintf("%s_%s", table, suffix),
							 get_namespace_oid(EQ_SCHEMA, false));
}

/* Adds a partition, unless it is gone. */
static void
add_leaf(const char *name, const char *tenant, int64 first_position,
		 int64 last_position)
{
	EqLeaf *leaf = &leaves[n_leaves];

	leaf->relid = get_relname_relid(name, get_namespace_oid(EQ_SCHEMA, false));
	leaf->pkey = index_of(name, "pkey");
	leaf->aggregate = index_of(name, "aggregate_key");
	leaf->id = index_of(name, "id_key");
	leaf->tenant = tenant ? MemoryContextStrdup(leaves_context, tenant) : NULL;
	leaf->by_type = index_of(name, "by_event_type");
	leaf->by_aggregate_type = index_of(name, "by_aggregate_type");
	leaf->by_tenant = index_of(name, "by_tenant_id");
	leaf->first_position = first_position;
	leaf->last_position = last_position;
	leaf->is_sealed = last_position != 0;
	if (!OidIsValid(leaf->relid))
	{
		some_are_gone = true;
		return;
	}
	if (!OidIsValid(leaf->pkey) || !OidIsValid(leaf->aggregate) ||
		!OidIsValid(leaf->id))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("partition \"%s\" lacks an index", name),
				 errdetail(
					 "It needs the indexes %s_pkey, %s_aggregate_key and %s_id_key.",
					 name, name, name)));
	n_leaves++;
}

/* Adds the partitions that are newer than event_store, or those split off it. */
static void
add_partitions(Relation rel, Relation index, Snapshot snapshot, bool split_off,
			   int64 *parent_ends)
{
	SysScanDesc scan = systable_beginscan_ordered(rel, index, snapshot, 0, NULL);
	TupleDesc desc = RelationGetDescr(rel);
	HeapTuple tuple;

	while (HeapTupleIsValid(
		tuple = systable_getnext_ordered(scan, BackwardScanDirection)))
	{
		bool isnull;
		bool no_tenant;
		bool is_open;
		char *name = TextDatumGetCString(
			heap_getattr(tuple, PARTITION_NAME, desc, &isnull));
		Datum tenant = heap_getattr(tuple, PARTITION_TENANT, desc, &no_tenant);
		int64 first = DatumGetInt64(
			heap_getattr(tuple, PARTITION_FIRST_POSITION, desc, &isnull));
		Datum last = heap_getattr(tuple, PARTITION_LAST_POSITION, desc, &is_open);

		if (DatumGetBool(heap_getattr(tuple, PARTITION_SPLIT_OFF, desc, &isnull)) !=
			split_off)
			continue;
		if (n_leaves >= max_leaves - 1)
			leaves = repalloc(leaves, (max_leaves *= 2) * sizeof(EqLeaf));
		add_leaf(name, no_tenant ? NULL : TextDatumGetCString(tenant), first,
				 is_open ? 0 : DatumGetInt64(last));
		/* The oldest partition by time goes on where event_store ends. */
		if (no_tenant && !split_off)
			*parent_ends = first - 1;
	}
	systable_endscan_ordered(scan);
}

/* The number of the newest partition that a snapshot shows; 0: there is none. */
static int32
newest_of(Relation rel, Relation index, Snapshot snapshot)
{
	SysScanDesc scan = systable_beginscan_ordered(rel, index, snapshot, 0, NULL);
	HeapTuple tuple = systable_getnext_ordered(scan, BackwardScanDirection);
	int32 newest = 0;
	bool isnull;

	if (HeapTupleIsValid(tuple))
		newest = DatumGetInt32(
			heap_getattr(tuple, PARTITION_ID, RelationGetDescr(rel), &isnull));
	systable_endscan_ordered(scan);
	return newest;
}

/* Reads table event_partition, which is in the order of creation. */
static void
read_leaves(void)
{
	Relation rel = table_open(eq_relation_oid(EQ_EVENT_PARTITION), AccessShareLock);
	Relation index = index_open(eq_relation_oid(EQ_EVENT_PARTITION_PKEY),
								AccessShareLock);
	Snapshot snapshot = RegisterSnapshot(eq_latest_snapshot());
	int64 parent_ends = 0;

	if (leaves_context == NULL)
		leaves_context = AllocSetContextCreate(
			CacheMemoryContext, "event_queue partitions", ALLOCSET_SMALL_SIZES);
	MemoryContextReset(leaves_context);
	n_leaves = 0;
	max_leaves = 16;
	some_are_gone = false;
	leaves = MemoryContextAlloc(leaves_context, max_leaves * sizeof(EqLeaf));
	newest_known = newest_of(rel, index, snapshot);
	add_partitions(rel, index, snapshot, false, &parent_ends);
	/* event_store itself is always read: rows may have been inserted into it by other means. */
	add_leaf("event_store", NULL, 1, 0);
	leaves[n_leaves - 1].is_sealed = parent_ends != 0;
	add_partitions(rel, index, snapshot, true, &parent_ends);
	UnregisterSnapshot(snapshot);
	index_close(index, AccessShareLock);
	table_close(rel, AccessShareLock);
}

/*
 * Returns the tables of events, in the order that tables.h describes.  Valid until the
 * next call.
 */
int
eq_event_leaves(EqLeaf **result)
{
	static bool callback_registered = false;

	(void) eq_relation_oid(EQ_EVENT_STORE); /* registers for invalidations */
	if (!callback_registered)
		CacheRegisterRelcacheCallback(leaf_changed, (Datum) 0);
	callback_registered = true;
	AcceptInvalidationMessages(); /* also in the midst of a transaction */
	if (!leaves_known)
	{
		leaves_known = true; /* an invalidation from here on must stick */
		n_leaves = max_leaves = 0;
		PG_TRY();
		{
			read_leaves();
		}
		PG_CATCH();
		{
			leaves_known = false;
			PG_RE_THROW();
		}
		PG_END_TRY();
	}
	*result = leaves;
	return n_leaves;
}

/*
 * The same for whoever reads by a snapshot, which was taken before.  What
 * split_event_partition has moved is in no table of a list that is older than the
 * snapshot; and a commit can be seen a moment before its invalidation comes: that was
 * sent when its lock on event_store is free.
 */
int
eq_event_leaves_for(Snapshot snapshot, EqLeaf **result)
{
	int n = eq_event_leaves(result);
	Relation rel = table_open(eq_relation_oid(EQ_EVENT_PARTITION), AccessShareLock);
	Relation index = index_open(eq_relation_oid(EQ_EVENT_PARTITION_PKEY),
								AccessShareLock);
	bool is_older = newest_of(rel, index, snapshot) > newest_known;

	index_close(index, AccessShareLock);
	table_close(rel, AccessShareLock);
	if (!is_older)
		return n;
	if (!RecoveryInProgress())
	{
		LockRelationOid(eq_relation_oid(EQ_EVENT_STORE), RowExclusiveLock);
		UnlockRelationOid(eq_relation_oid(EQ_EVENT_STORE), RowExclusiveLock);
	}
	eq_forget_leaves();
	return eq_event_leaves(result);
}

/*
 * A copy in the current memory context, for whoever calls code that may ask for
 * the list again.
 */
int
eq_copy_event_leaves(Snapshot snapshot, EqLeaf **result)
{
	EqLeaf *list;
	int n = eq_event_leaves_for(snapshot, &list);

	*result = palloc(n * sizeof(EqLeaf));
	memcpy(*result, list, n * sizeof(EqLeaf));
	for (int i = 0; i < n; i++)
	{
		if (list[i].tenant)
			(*result)[i].tenant = pstrdup(list[i].tenant);
	}
	return n;
}

/* Has a partition been archived or dropped?  After eq_event_leaves. */
bool
eq_events_were_archived(void)
{
	return some_are_gone;
}

/* Sets the first three keys of an index on (aggregate id, type, tenant, version). */
void
eq_aggregate_keys(EqScan *scan, ScanKey keys, const char *tenant, const char *type,
				  const char *id)
{
	eq_scan_key(scan, &keys[0], 1, BTEqualStrategyNumber, F_TEXTEQ,
				CStringGetTextDatum(id));
	eq_scan_key(scan, &keys[1], 2, BTEqualStrategyNumber, F_TEXTEQ,
				CStringGetTextDatum(type));
	eq_scan_key(scan, &keys[2], 3, BTEqualStrategyNumber, F_TEXTEQ,
				CStringGetTextDatum(tenant));
}
