/*
 * table.c: OIDs, rows and index scans of the extension's own tables.
 *
 * Used by store/ and queue/, which read as prose above it.  Rows are written
 * by the table access method and entered into the indexes by the executor's
 * ExecInsertIndexTuples; TOAST, WAL and logical decoding work by themselves.
 */
#include "postgres.h"

#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/pg_extension.h"
#include "commands/extension.h"
#include "executor/executor.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "storage/lock.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/guc.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"

#include "compat.h"
#include "event_queue.h"
#include "table/table.h"

static const char *const relation_names[EQ_RELATIONS] = {
	[EQ_EVENT_STORE] = "event_store",
	[EQ_EVENT_STORE_PKEY] = "event_store_pkey",
	[EQ_EVENT_STORE_AGGREGATE] = "event_store_aggregate_key",
	[EQ_EVENT_STORE_ID] = "event_store_id_key",
	[EQ_EVENT_POSITION] = "event_position",
	[EQ_JOB] = "job",
	[EQ_JOB_PKEY] = "job_pkey",
	[EQ_JOB_ORDER] = "job_order",
	[EQ_JOB_UNIQUE] = "job_unique_key",
	[EQ_JOB_ID_SEQ] = "job_job_id_seq",
	[EQ_DEAD_LETTER] = "dead_letter",
	[EQ_JOB_HISTORY] = "job_history",
	[EQ_QUEUE] = "queue",
	[EQ_TENANT_ROLE] = "tenant_role",
};

static Oid relation_oids[EQ_RELATIONS];
static bool relations_known = false;
static Oid extension_owner = InvalidOid;

/* A relation of ours went away or was made anew: look the names up again. */
static void
relation_changed(Datum arg, Oid relid)
{
	if (!OidIsValid(relid))
		relations_known = false;
	for (int i = 0; i < EQ_RELATIONS && relations_known; i++)
	{
		if (relation_oids[i] == relid)
			relations_known = false;
	}
}

/* The OID of one of our relations. */
Oid
eq_relation_oid(EqRelation which)
{
	static bool callback_registered = false;

	if (!callback_registered)
	{
		CacheRegisterRelcacheCallback(relation_changed, (Datum) 0);
		callback_registered = true;
	}
	if (!relations_known)
	{
		Oid schema = get_namespace_oid(EQ_SCHEMA, false);

		relations_known = true;
		for (int i = 0; i < EQ_RELATIONS; i++)
		{
			relation_oids[i] = get_relname_relid(relation_names[i], schema);
			if (!OidIsValid(relation_oids[i]))
			{
				relations_known = false;
				ereport(
					ERROR,
					(errcode(ERRCODE_UNDEFINED_TABLE),
					 errmsg("relation \"%s.%s\" does not exist", EQ_SCHEMA,
							relation_names[i]),
					 errhint(
						 "Is the extension installed and up to date? See ALTER EXTENSION event_queue UPDATE.")));
			}
		}
	}
	return relation_oids[which];
}

/* The role that owns the extension's tables. */
Oid
eq_extension_owner(void)
{
	HeapTuple tuple = SearchSysCache1(RELOID,
									  ObjectIdGetDatum(eq_relation_oid(EQ_QUEUE)));

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for relation %u",
			 eq_relation_oid(EQ_QUEUE));
	extension_owner = ((Form_pg_class) GETSTRUCT(tuple))->relowner;
	ReleaseSysCache(tuple);
	return extension_owner;
}

void
eq_table_open(EqTable *table, EqRelation which)
{
	PreventCommandIfReadOnly("this event_queue function");
	PreventCommandIfParallelMode("this event_queue function");

	table->rel = table_open(eq_relation_oid(which), RowExclusiveLock);
	table->estate = CreateExecutorState();
	table->result = makeNode(ResultRelInfo);
	InitResultRelInfo(table->result, table->rel, 1, NULL, 0);
	ExecOpenIndices(table->result, false);
	table->out = table_slot_create(table->rel, NULL);
}

void
eq_table_close(EqTable *table)
{
	ExecDropSingleTupleTableSlot(table->out);
	ExecCloseIndices(table->result);
	FreeExecutorState(table->estate);
	table_close(table->rel, NoLock); /* the lock stays until commit */
}

static void
fill_slot(EqTable *table, const Datum *values, const bool *nulls)
{
	TupleTableSlot *out = table->out;
	int natts = RelationGetDescr(table->rel)->natts;

	ExecClearTuple(out);
	memcpy(out->tts_values, values, natts * sizeof(Datum));
	memcpy(out->tts_isnull, nulls, natts * sizeof(bool));
	ExecStoreVirtualTuple(out);
}

/* A new row.  The caller has made sure that no unique key is taken. */
void
eq_table_insert(EqTable *table, const Datum *values, const bool *nulls)
{
	fill_slot(table, values, nulls);
	table_tuple_insert(table->rel, table->out, GetCurrentCommandId(true), 0, NULL);
	eq_insert_index_tuples(table->result, table->out, table->estate, false);
	ResetPerTupleExprContext(table->estate);
}

/* A new version of a row that the caller has locked. */
void
eq_table_update(EqTable *table, TupleTableSlot *old, Snapshot snapshot,
				const Datum *values, const bool *nulls)
{
	EqUpdateIndexes needed;

	fill_slot(table, values, nulls);
	simple_table_tuple_update(table->rel, &old->tts_tid, table->out, snapshot,
							  &needed);
	if (EQ_NEEDS_INDEXES(needed))
		eq_insert_index_tuples(table->result, table->out, table->estate,
							   EQ_ONLY_SUMMARIZING(needed));
	ResetPerTupleExprContext(table->estate);
}

/* Deletes a row that the caller has locked. */
void
eq_table_delete(EqTable *table, TupleTableSlot *old, Snapshot snapshot)
{
	simple_table_tuple_delete(table->rel, &old->tts_tid, snapshot);
}

void
eq_scan_begin(EqScan *scan, Relation rel, EqRelation index, Snapshot snapshot,
			  int n_keys)
{
	scan->rel = rel;
	scan->index = index_open(eq_relation_oid(index), AccessShareLock);
	scan->desc = eq_index_beginscan(rel, scan->index, snapshot, n_keys);
	scan->slot = table_slot_create(rel, NULL);
}

void
eq_scan_key(EqScan *scan, ScanKey key, int index_column, StrategyNumber strategy,
			RegProcedure op, Datum value)
{
	ScanKeyEntryInitialize(key, 0, index_column, strategy, InvalidOid,
						   scan->index->rd_indcollation[index_column - 1], op,
						   value);
}

/* Starts, or starts again with other keys. */
void
eq_scan_start(EqScan *scan, ScanKey keys, int n_keys)
{
	index_rescan(scan->desc, keys, n_keys, NULL, 0);
}

bool
eq_scan_next(EqScan *scan, ScanDirection direction)
{
	CHECK_FOR_INTERRUPTS();
	return index_getnext_slot(scan->desc, direction, scan->slot);
}

void
eq_scan_end(EqScan *scan)
{
	ExecDropSingleTupleTableSlot(scan->slot);
	index_endscan(scan->desc);
	index_close(scan->index, NoLock);
}

/*
 * Key locks make sessions that use the same key take turns for the span of
 * look-up and insert, so that no one runs into a unique violation.  They are
 * given back before the call ends (the row itself holds others off until
 * commit), so that a transaction of 100,000 calls needs one at a time.  An
 * error gives them back with the (sub)transaction.  Order: EQ_LOCK_EVENT_ID
 * before EQ_LOCK_AGGREGATE before EQ_LOCK_POSITIONS.
 */
static void
make_lock_tag(LOCKTAG *tag, EqKeySpace space, uint32 hash)
{
	Oid rel = eq_relation_oid(space == EQ_LOCK_UNIQUE_KEY ? EQ_JOB : EQ_EVENT_STORE);

	SET_LOCKTAG_OBJECT(*tag, MyDatabaseId, rel, hash, space);
}

void
eq_lock_key(EqKeySpace space, uint32 hash)
{
	LOCKTAG tag;

	make_lock_tag(&tag, space, hash);
	(void) LockAcquire(&tag, ExclusiveLock, false, false);
}

void
eq_unlock_key(EqKeySpace space, uint32 hash)
{
	LOCKTAG tag;

	make_lock_tag(&tag, space, hash);
	(void) LockRelease(&tag, ExclusiveLock, false);
}

/*
 * Connects to SPI as another role, usually the extension's owner: callers of
 * the C functions have EXECUTE on them and no rights on the tables beneath.
 * An error restores the role and the settings with the (sub)transaction.
 */
void
eq_spi_begin(EqSpi *spi, Oid as_user, int sec_flags)
{
	GetUserIdAndSecContext(&spi->user, &spi->sec_context);
	SetUserIdAndSecContext(as_user, spi->sec_context | sec_flags);
	spi->guc_level = NewGUCNestLevel();
	(void) set_config_option("search_path", "pg_catalog, pg_temp", PGC_USERSET,
							 PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
}

void
eq_spi_end(EqSpi *spi)
{
	SPI_finish();
	AtEOXact_GUC(true, spi->guc_level);
	SetUserIdAndSecContext(spi->user, spi->sec_context);
}
