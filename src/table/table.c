/*
 * table.c: OIDs and rows of the extension's own tables.
 *
 * The rooms above say which tables there are.  Rows are written
 * by the table access method and entered into the indexes by the executor's
 * ExecInsertIndexTuples; TOAST, WAL and logical decoding work by themselves.
 */
#include "postgres.h"

#include "access/heapam.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/index.h"
#include "catalog/namespace.h"
#include "catalog/pg_extension.h"
#include "catalog/pg_type.h"
#include "commands/extension.h"
#include "commands/sequence.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "nodes/nodeFuncs.h"
#include "storage/bufmgr.h"
#include "storage/lmgr.h"
#include "storage/lock.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/guc.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"
#include "utils/timeout.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "event_queue.h"
#include "table/table.h"

/* Whose owner is the extension's; key locks are on a part of its. */
static EqRelationName queue_table = {"queue"};

static void forget_plans(Oid relid);

static EqRelationName *relations = NULL; /* that were asked for */

/* A relation of ours went away or was made anew: look its name up again. */
static void
relation_changed(Datum arg, Oid relid)
{
	forget_plans(relid);
	for (EqRelationName *relation = relations; relation; relation = relation->next)
	{
		if (OidIsValid(relid) && relation->oid != relid)
			continue;
		relation->oid = InvalidOid;
		if (relation->changed)
			relation->changed();
	}
}

/* The OID of a relation of ours by its name, in either schema; InvalidOid: none. */
Oid
eq_find_relation(const char *name)
{
	Oid relid = get_relname_relid(name, get_namespace_oid(EQ_SCHEMA, false));

	if (OidIsValid(relid))
		return relid;
	return get_relname_relid(name, get_namespace_oid(EQ_INTERNAL, false));
}

/* The OID of a relation of ours. */
Oid
eq_relation_oid(EqRelation relation)
{
	if (relations == NULL)
		CacheRegisterRelcacheCallback(relation_changed, (Datum) 0);
	if (!relation->is_registered)
	{
		relation->next = relations;
		relations = relation;
		relation->is_registered = true;
	}
	if (!OidIsValid(relation->oid))
		relation->oid = eq_find_relation(relation->name);
	if (!OidIsValid(relation->oid))
		ereport(
			ERROR,
			(errcode(ERRCODE_UNDEFINED_TABLE),
			 errmsg("relation \"%s.%s\" does not exist", EQ_SCHEMA, relation->name),
			 errhint(
				 "Is the extension installed and up to date? See ALTER EXTENSION event_queue UPDATE.")));
	return relation->oid;
}

/* The role that owns the extension's tables. */
Oid
eq_extension_owner(void)
{
	Oid relid = eq_relation_oid(&queue_table);
	HeapTuple tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(relid));
	Oid owner;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for relation %u", relid);
	owner = ((Form_pg_class) GETSTRUCT(tuple))->relowner;
	ReleaseSysCache(tuple);
	return owner;
}

/*
 * What it takes to write to one table, kept from call to call: the list of its
 * indexes and the compiled predicates and expressions of those.  Relations are
 * opened anew in each call, since a cached pointer may not outlive its
 * transaction.  A relcache invalidation makes the next call build it again.
 */
typedef struct OpenPlan
{
	Oid relid; /* hash key */
	bool valid;
	bool built;	 /* to its end: opening an index may wait, and be cancelled */
	bool in_use; /* by the transaction below */
	LocalTransactionId user; /* which an abort may have left behind */
	SubTransactionId subid;	 /* as may that of its subtransaction */
	BlockNumber n_blocks;	 /* that its table has at least */
	MemoryContext context;
	EState *estate;
	ResultRelInfo *result;
	Oid *indexes;
	Oid users_index; /* one that calls functions of users; InvalidOid: there is none */
	TupleTableSlot *out;
} OpenPlan;

static HTAB *plans = NULL;

/* Is this process one of our workers?  There, code of users runs for a limited time only. */
bool eq_is_worker = false;

#define INDEX_LIMIT_MS 2000 /* for the functions in the indexes of one row */

/* A table or index of ours changed, or all may have. */
static void
forget_plans(Oid relid)
{
	HASH_SEQ_STATUS all;
	OpenPlan *plan;

	if (plans == NULL)
		return;
	hash_seq_init(&all, plans);
	while ((plan = hash_seq_search(&all)) != NULL)
	{
		if (!OidIsValid(relid) || plan->relid == relid)
			plan->valid = false;
	}
}

static bool
is_of_users(Oid function, void *context)
{
	return function >= FirstNormalObjectId;
}

static bool
calls_users(Node *node, void *context)
{
	/* A domain may have a CHECK that calls some. */
	return node != NULL && (IsA(node, CoerceToDomain) ||
							check_functions_in_node(node, is_of_users, context) ||
							expression_tree_walker(node, calls_users, context));
}

static void
build_plan(OpenPlan *plan, Relation rel, MemoryContext parent)
{
	MemoryContext old;
	List *indexes;
	ListCell *cell;
	int n = 0;

	plan->valid = true; /* an invalidation from here on must stick */
	plan->built = false;
	plan->n_blocks = 0;
	plan->users_index = InvalidOid;
	if (plan->context)
		MemoryContextDelete(plan->context);
	plan->context = NULL;
	plan->context = AllocSetContextCreate(parent, "event_queue table",
										  ALLOCSET_SMALL_SIZES);
	old = MemoryContextSwitchTo(plan->context);
	plan->estate = CreateExecutorState();
	plan->result = makeNode(ResultRelInfo);
	InitResultRelInfo(plan->result, rel, 1, NULL, 0);
	indexes = RelationGetIndexList(rel);
	plan->indexes = palloc(Max(list_length(indexes), 1) * sizeof(Oid));
	plan->result->ri_IndexRelationDescs = palloc0(Max(list_length(indexes), 1) *
												  sizeof(Relation));
	plan->result->ri_IndexRelationInfo = palloc0(Max(list_length(indexes), 1) *
												 sizeof(IndexInfo *));
	foreach (cell, indexes)
	{
		Relation index = index_open(lfirst_oid(cell), RowExclusiveLock);
		IndexInfo *info = BuildIndexInfo(index);

		plan->indexes[n] = lfirst_oid(cell);
		plan->result->ri_IndexRelationInfo[n++] = info;
		if (calls_users((Node *) info->ii_Expressions, NULL) ||
			calls_users((Node *) info->ii_Predicate, NULL))
			plan->users_index = lfirst_oid(cell);
		index_close(index, NoLock);
	}
	plan->result->ri_NumIndices = n;
	plan->out = MakeSingleTupleTableSlot(CreateTupleDescCopy(RelationGetDescr(rel)),
										 table_slot_callbacks(rel));
	plan->built = true;
	MemoryContextSwitchTo(old);
}

static bool
plan_is_in_use(OpenPlan *plan)
{
	return plan->in_use && plan->user == EQ_MY_LXID &&
		   SubTransactionIsActive(plan->subid);
}

/* Frees plans of dropped tables: partitions of the history come and go. */
static void
remove_stale_plans(void)
{
	HASH_SEQ_STATUS all;
	OpenPlan *plan;

	hash_seq_init(&all, plans);
	while ((plan = hash_seq_search(&all)) != NULL)
	{
		if (plan->valid || plan_is_in_use(plan))
			continue;
		if (plan->context)
			MemoryContextDelete(plan->context);
		hash_search(plans, &plan->relid, HASH_REMOVE, NULL);
	}
}

/* The plan of an open table, with nothing opened yet. */
static OpenPlan *
get_plan(Relation rel)
{
	Oid relid = RelationGetRelid(rel);
	MemoryContext parent = CacheMemoryContext;
	OpenPlan *plan;
	bool found;

	if (plans == NULL)
	{
		HASHCTL ctl = {.keysize = sizeof(Oid), .entrysize = sizeof(OpenPlan)};

		plans = hash_create("event_queue tables", 16, &ctl, HASH_ELEM | HASH_BLOBS);
	}
	plan = hash_search(plans, &relid, HASH_FIND, &found);
	if (!found)
	{
		remove_stale_plans();
		plan = hash_search(plans, &relid, HASH_ENTER, NULL);
		memset(plan, 0, sizeof(OpenPlan));
		plan->relid = relid;
	}
	if (plan_is_in_use(plan))
	{
		/* By a call that has not ended, or one that an error ended. */
		plan = palloc0(sizeof(OpenPlan));
		plan->relid = relid;
		parent = CurrentMemoryContext;
	}
	if (!plan->valid || !plan->built)
		build_plan(plan, rel, parent);
	if (plan->user != EQ_MY_LXID)
		plan->n_blocks = 0;
	plan->in_use = true;
	plan->user = EQ_MY_LXID;
	plan->subid = GetCurrentSubTransactionId();
	return plan;
}

void
eq_table_open(EqTable *table, Oid relid, int n_columns)
{
	ResultRelInfo *result;
	OpenPlan *plan;

	PreventCommandIfReadOnly("this event_queue function");
	PreventCommandIfParallelMode("this event_queue function");

	table->rel = table_open(relid, RowExclusiveLock);
	Assert(eq_is_written_beneath(relid)); /* else nothing is refused on it */
	plan = get_plan(table->rel);
	result = plan->result;
	result->ri_RelationDesc = table->rel;
	table->plan = plan;
	table->has_indexes = false;
	table->n_columns = n_columns;
	table->estate = plan->estate;
	table->result = result;
	table->out = plan->out;
}

/*
 * Enters a row into indexes that call functions of users, in a worker: with the rights of the
 * table's owner, not the worker's, and for a limited time, since others wait for the worker.
 */
static void
insert_limited(EqTable *table, TupleTableSlot *row, bool summarizing)
{
	MemoryContext context = CurrentMemoryContext;
	TimestampTz began = GetCurrentTimestamp();
	TimestampTz outer = get_timeout_active(STATEMENT_TIMEOUT)
							? get_timeout_finish_time(STATEMENT_TIMEOUT)
							: 0;
	Oid user;
	int security;

	GetUserIdAndSecContext(&user, &security);
	SetUserIdAndSecContext(table->rel->rd_rel->relowner,
						   security | SECURITY_RESTRICTED_OPERATION);
	enable_timeout_after(STATEMENT_TIMEOUT, INDEX_LIMIT_MS);
	PG_TRY();
	{
		eq_insert_index_tuples(table->result, row, table->estate, summarizing);
	}
	PG_CATCH();
	{
		disable_timeout(STATEMENT_TIMEOUT, false);
		/* A handler of the worker's role may catch the error, and go on. */
		if (outer != 0)
			enable_timeout_at(STATEMENT_TIMEOUT, outer);
		SetUserIdAndSecContext(user, security);
		if (geterrcode() != ERRCODE_QUERY_CANCELED ||
			!TimestampDifferenceExceeds(began, GetCurrentTimestamp(),
										INDEX_LIMIT_MS))
			PG_RE_THROW();
		MemoryContextSwitchTo(context);
		FlushErrorState();
		ereport(
			ERROR,
			(errcode(ERRCODE_EQ_NOT_ENDED),
			 errmsg("a function in an index of table \"%s\" did not end within %d s",
					RelationGetRelationName(table->rel), INDEX_LIMIT_MS / 1000),
			 errdetail("One that calls functions is \"%s\".",
					   get_rel_name(table->plan->users_index)),
			 errhint("DROP INDEX, or mend its function.")));
	}
	PG_END_TRY();
	disable_timeout(STATEMENT_TIMEOUT, false);
	if (outer != 0)
		enable_timeout_at(STATEMENT_TIMEOUT, outer);
	SetUserIdAndSecContext(user, security);
}

/* Enters a row into the indexes, which are opened when there is a first one. */
static void
insert_index_tuples(EqTable *table, TupleTableSlot *row, bool summarizing)
{
	ResultRelInfo *result = table->result;

	for (int i = 0; !table->has_indexes && i < result->ri_NumIndices; i++)
	{
		result->ri_IndexRelationDescs[i] = index_open(table->plan->indexes[i],
													  RowExclusiveLock);
		/* What index methods keep here may point into the relation. */
		result->ri_IndexRelationInfo[i]->ii_AmCache = NULL;
		result->ri_IndexRelationInfo[i]->ii_Context = CurrentMemoryContext;
	}
	table->has_indexes = true;
	/* Handlers of other roles have a time limit and rights of their own. */
	if (OidIsValid(table->plan->users_index) && eq_is_worker &&
		(GetUserId() == GetSessionUserId() || GetUserId() == eq_extension_owner()))
		insert_limited(table, row, summarizing);
	else
		eq_insert_index_tuples(result, row, table->estate, summarizing);
	ResetPerTupleExprContext(table->estate);
}

/* The locks stay until the end of the transaction. */
void
eq_table_close(EqTable *table)
{
	for (int i = 0; table->has_indexes && i < table->result->ri_NumIndices; i++)
		index_close(table->result->ri_IndexRelationDescs[i], NoLock);
	ExecClearTuple(table->out);
	table->plan->in_use = false;
	table_close(table->rel, NoLock);
}

/* Our columns' new values; columns that someone added keep the old row's, or null. */
static void
fill_slot(EqTable *table, const Datum *values, const bool *nulls,
		  TupleTableSlot *old)
{
	TupleTableSlot *out = table->out;

	ExecClearTuple(out);
	memcpy(out->tts_values, values, table->n_columns * sizeof(Datum));
	memcpy(out->tts_isnull, nulls, table->n_columns * sizeof(bool));
	for (int i = table->n_columns; i < out->tts_tupleDescriptor->natts; i++)
	{
		out->tts_values[i] = old ? old->tts_values[i] : (Datum) 0;
		out->tts_isnull[i] = old ? old->tts_isnull[i] : true;
	}
	ExecStoreVirtualTuple(out);
}

/* A new row.  The caller has made sure that no unique key is taken. */
void
eq_table_insert(EqTable *table, const Datum *values, const bool *nulls)
{
	fill_slot(table, values, nulls, NULL);
	table_tuple_insert(table->rel, table->out, GetCurrentCommandId(true), 0, NULL);
	insert_index_tuples(table, table->out, false);
}

/* A new version of a row that the caller has locked. */
void
eq_table_update(EqTable *table, TupleTableSlot *old, Snapshot snapshot,
				const Datum *values, const bool *nulls)
{
	EqUpdateIndexes needed;

	slot_getallattrs(old);
	fill_slot(table, values, nulls, old);
	simple_table_tuple_update(table->rel, &old->tts_tid, table->out, snapshot,
							  &needed);
	if (EQ_NEEDS_INDEXES(needed))
		insert_index_tuples(table, table->out, EQ_ONLY_SUMMARIZING(needed));
}

/*
 * A new version of a row that the caller has seen and not locked; false if someone
 * has changed it since.  Waits for an open transaction that does.
 */
bool
eq_table_update_if_unchanged(EqTable *table, TupleTableSlot *old, Snapshot snapshot,
							 const Datum *values, const bool *nulls)
{
	EqUpdateIndexes needed;
	TM_FailureData failure;
	LockTupleMode mode;

	fill_slot(table, values, nulls, old);
	if (table_tuple_update(table->rel, &old->tts_tid, table->out,
						   GetCurrentCommandId(true), snapshot, InvalidSnapshot,
						   true, &failure, &mode, &needed) != TM_Ok)
		return false;
	if (EQ_NEEDS_INDEXES(needed))
		insert_index_tuples(table, table->out, EQ_ONLY_SUMMARIZING(needed));
	return true;
}

/* Deletes a row that the caller has locked. */
void
eq_table_delete(EqTable *table, TupleTableSlot *old, Snapshot snapshot)
{
	simple_table_tuple_delete(table->rel, &old->tts_tid, snapshot);
}

/*
 * Deletes a row that the caller has seen and not locked; false if someone has
 * changed it since.  Waits for an open transaction that does.
 */
bool
eq_table_delete_if_unchanged(EqTable *table, TupleTableSlot *old, Snapshot snapshot)
{
	TM_FailureData failure;

	return table_tuple_delete(table->rel, &old->tts_tid, GetCurrentCommandId(true),
							  snapshot, InvalidSnapshot, true, &failure,
							  false) == TM_Ok;
}

/*
 * Locks the newest version of the row that has this primary key; false if there is
 * none, or none any more.  All columns are there.  Waits for whoever is changing it, or
 * with is_busy says that someone is, and returns false.
 */
bool
eq_lock_row(EqTable *table, Oid pkey, int64 key, Snapshot snapshot,
			TupleTableSlot *slot, bool *is_busy)
{
	EqScan scan;
	ScanKeyData scan_key;
	TM_FailureData failure;
	TM_Result result = TM_Deleted;

	eq_scan_begin(&scan, table->rel, pkey, snapshot, 1);
	eq_scan_key(&scan, &scan_key, 1, BTEqualStrategyNumber, F_INT8EQ,
				Int64GetDatum(key));
	eq_scan_start(&scan, &scan_key, 1);
	if (eq_scan_next(&scan, ForwardScanDirection))
		result = table_tuple_lock(table->rel, &scan.slot->tts_tid, snapshot, slot,
								  GetCurrentCommandId(false), LockTupleExclusive,
								  is_busy ? LockWaitSkip : LockWaitBlock,
								  TUPLE_LOCK_FLAG_FIND_LAST_VERSION, &failure);
	eq_scan_end(&scan);
	if (is_busy)
		*is_busy = result == TM_WouldBlock;
	if (result == TM_Ok)
		slot_getallattrs(slot);
	return result == TM_Ok;
}

#define PRUNE_BELOW (BLCKSZ / 8) /* bytes free in a page */

/*
 * The row that the index entries for this place mean; false if there is none.  As an
 * index scan fetches it, but that the page is pruned only when it is nearly full, and
 * not as soon as it is fuller than the fillfactor: that would be each time, would free
 * nothing that is wanted yet, and would write WAL for each job.
 */
bool
eq_table_fetch(EqTable *table, ItemPointer root, Snapshot snapshot,
			   TupleTableSlot *slot)
{
	OpenPlan *plan = table->plan;
	HeapTuple row = &((BufferHeapTupleTableSlot *) slot)->base.tupdata;
	ItemPointerData tid = *root;
	Buffer buffer;
	bool found;

	ExecClearTuple(slot);
	if (!ItemPointerIsValid(&tid))
		return false;
	/* The table's lock keeps it from being truncated while this transaction lasts. */
	if (ItemPointerGetBlockNumber(&tid) >= plan->n_blocks)
		plan->n_blocks = RelationGetNumberOfBlocks(table->rel);
	if (ItemPointerGetBlockNumber(&tid) >= plan->n_blocks)
		return false;
	buffer = ReadBuffer(table->rel, ItemPointerGetBlockNumber(&tid));
	if (PageGetHeapFreeSpace(BufferGetPage(buffer)) < PRUNE_BELOW)
		heap_page_prune_opt(table->rel, buffer);
	LockBuffer(buffer, BUFFER_LOCK_SHARE);
	found = heap_hot_search_buffer(&tid, table->rel, buffer, snapshot, row, NULL,
								   true);
	LockBuffer(buffer, BUFFER_LOCK_UNLOCK);
	if (found)
	{
		row->t_self = tid;
		row->t_tableOid = RelationGetRelid(table->rel);
		ExecStorePinnedBufferHeapTuple(row, slot, buffer);
		slot->tts_tableOid = RelationGetRelid(table->rel);
	}
	else
		ReleaseBuffer(buffer);
	return found;
}

#define BULK_ROWS 500

void
eq_bulk_begin(EqBulk *bulk, EqTable *table)
{
	bulk->table = table;
	bulk->state = GetBulkInsertState();
	bulk->slots = palloc0(BULK_ROWS * sizeof(TupleTableSlot *));
	bulk->n_slots = 0;
	bulk->context = AllocSetContextCreate(
		CurrentMemoryContext, "event_queue bulk insert", ALLOCSET_DEFAULT_SIZES);
}

static void
write_bulk(EqBulk *bulk)
{
	EqTable *table = bulk->table;
	MemoryContext old = MemoryContextSwitchTo(bulk->context);

	table_multi_insert(table->rel, bulk->slots, bulk->n_slots,
					   GetCurrentCommandId(true), 0, bulk->state);
	MemoryContextSwitchTo(old);
	for (int i = 0; i < bulk->n_slots; i++)
	{
		insert_index_tuples(table, bulk->slots[i], false);
		ExecClearTuple(bulk->slots[i]);
	}
	bulk->n_slots = 0;
	MemoryContextReset(bulk->context);
	CHECK_FOR_INTERRUPTS();
}

/* The values may be in bulk->context. */
void
eq_bulk_insert(EqBulk *bulk, const Datum *values, const bool *nulls)
{
	TupleTableSlot *slot = bulk->slots[bulk->n_slots];
	int known = bulk->table->n_columns;

	if (slot == NULL)
		slot = bulk->slots[bulk->n_slots] = table_slot_create(bulk->table->rel,
															  NULL);
	memcpy(slot->tts_values, values, known * sizeof(Datum));
	memcpy(slot->tts_isnull, nulls, known * sizeof(bool));
	for (int i = known; i < slot->tts_tupleDescriptor->natts; i++)
		slot->tts_isnull[i] = true;
	ExecStoreVirtualTuple(slot);
	if (++bulk->n_slots == BULK_ROWS)
		write_bulk(bulk);
}

void
eq_bulk_end(EqBulk *bulk)
{
	if (bulk->n_slots > 0)
		write_bulk(bulk);
	for (int i = 0; i < BULK_ROWS && bulk->slots[i] != NULL; i++)
		ExecDropSingleTupleTableSlot(bulk->slots[i]);
	FreeBulkInsertState(bulk->state);
	table_finish_bulk_insert(bulk->table->rel, 0);
	MemoryContextDelete(bulk->context);
}

/*
 * Sets a sequence at once and for good, whatever becomes of the transaction,
 * which may be a read-only one of a role without rights on it.
 */
void
eq_set_sequence(EqRelation sequence, int64 value, bool is_called)
{
	Oid role;
	int sec_context;
	bool read_only = XactReadOnly;

	GetUserIdAndSecContext(&role, &sec_context);
	SetUserIdAndSecContext(eq_extension_owner(),
						   sec_context | SECURITY_LOCAL_USERID_CHANGE);
	XactReadOnly = false; /* an error restores it with the (sub)transaction */
	(void) DirectFunctionCall3(setval3_oid,
							   ObjectIdGetDatum(eq_relation_oid(sequence)),
							   Int64GetDatum(value), BoolGetDatum(is_called));
	XactReadOnly = read_only;
	SetUserIdAndSecContext(role, sec_context);
	XLogFlush(XactLastRecEnd);
}
