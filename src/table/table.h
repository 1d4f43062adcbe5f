/*
 * table.h: the extension's own tables, beneath the executor.
 *
 * The executor is not asked, so what it would enforce is enforced here or by
 * the caller: privileges (EXECUTE on the function), row security (eq_tenant_*),
 * constraints (checked before).  User triggers on these tables do not fire.
 */
#ifndef EQ_TABLE_H
#define EQ_TABLE_H

#include "postgres.h"

#include "access/genam.h"
#include "access/skey.h"
#include "executor/tuptable.h"
#include "nodes/execnodes.h"
#include "utils/relcache.h"
#include "utils/snapshot.h"

#include "errors.h"

/* Columns, in the order of the CREATE TABLE in the SQL parts; from 1. */
enum
{
	EVENT_POSITION = 1,
	EVENT_ID,
	EVENT_TENANT,
	EVENT_AGGREGATE_TYPE,
	EVENT_AGGREGATE_ID,
	EVENT_VERSION,
	EVENT_TYPE,
	EVENT_DATA,
	EVENT_METADATA,
	EVENT_CREATED_AT,
	EVENT_COLUMNS = EVENT_CREATED_AT
};
enum
{
	JOB_ID = 1,
	JOB_QUEUE,
	JOB_TENANT,
	JOB_NAME,
	JOB_PRIORITY,
	JOB_RUN_AT,
	JOB_CREATED_AT,
	JOB_MAX_ATTEMPTS,
	JOB_BACKOFF,
	JOB_BACKOFF_DELAY,
	JOB_FAILURES,
	JOB_STALLED,
	JOB_LEASE_TOKEN,
	JOB_LEASED_UNTIL,
	JOB_LEASED_BY,
	JOB_UNIQUE_KEY,
	JOB_PAYLOAD,
	JOB_METADATA,
	JOB_ERRORS,
	JOB_COLUMNS = JOB_ERRORS
};
enum
{
	DEAD_ID = 1,
	DEAD_QUEUE,
	DEAD_TENANT,
	DEAD_NAME,
	DEAD_PRIORITY,
	DEAD_CREATED_AT,
	DEAD_DIED_AT,
	DEAD_REASON,
	DEAD_FAILURES,
	DEAD_STALLED,
	DEAD_MAX_ATTEMPTS,
	DEAD_BACKOFF,
	DEAD_BACKOFF_DELAY,
	DEAD_UNIQUE_KEY,
	DEAD_PAYLOAD,
	DEAD_METADATA,
	DEAD_ERRORS,
	DEAD_COLUMNS = DEAD_ERRORS
};
enum
{
	HISTORY_ID = 1,
	HISTORY_QUEUE,
	HISTORY_TENANT,
	HISTORY_NAME,
	HISTORY_PRIORITY,
	HISTORY_CREATED_AT,
	HISTORY_RUN_AT,
	HISTORY_COMPLETED_AT,
	HISTORY_LEASED_BY,
	HISTORY_FAILURES,
	HISTORY_STALLED,
	HISTORY_PAYLOAD,
	HISTORY_METADATA,
	HISTORY_ERRORS,
	HISTORY_RESULT,
	HISTORY_COLUMNS = HISTORY_RESULT
};

/* Relations whose OIDs are cached. */
typedef enum EqRelation
{
	EQ_EVENT_STORE,
	EQ_EVENT_STORE_PKEY,
	EQ_EVENT_STORE_AGGREGATE,
	EQ_EVENT_STORE_ID,
	EQ_EVENT_POSITION,
	EQ_JOB,
	EQ_JOB_PKEY,
	EQ_JOB_ORDER,
	EQ_JOB_UNIQUE,
	EQ_JOB_ID_SEQ,
	EQ_DEAD_LETTER,
	EQ_JOB_HISTORY,
	EQ_QUEUE,
	EQ_TENANT_ROLE,
	EQ_RELATIONS
} EqRelation;

extern Oid eq_relation_oid(EqRelation which);
extern Oid eq_extension_owner(void);

/* A table opened for writing, with its indexes. */
typedef struct EqTable
{
	Relation rel;
	EState *estate;
	ResultRelInfo *result;
	TupleTableSlot *out; /* the row to be written */
} EqTable;

extern void eq_table_open(EqTable *table, EqRelation which);
extern void eq_table_close(EqTable *table);
extern void eq_table_insert(EqTable *table, const Datum *values, const bool *nulls);
extern void eq_table_update(EqTable *table, TupleTableSlot *old, Snapshot snapshot,
							const Datum *values, const bool *nulls);
extern void eq_table_delete(EqTable *table, TupleTableSlot *old, Snapshot snapshot);

/* An index scan; slot is the present row. */
typedef struct EqScan
{
	Relation rel;
	Relation index;
	IndexScanDesc desc;
	TupleTableSlot *slot;
} EqScan;

extern void eq_scan_begin(EqScan *scan, Relation rel, EqRelation index,
						  Snapshot snapshot, int n_keys);
extern void eq_scan_key(EqScan *scan, ScanKey key, int index_column,
						StrategyNumber strategy, RegProcedure op, Datum value);
extern void eq_scan_start(EqScan *scan, ScanKey keys, int n_keys);
extern bool eq_scan_next(EqScan *scan, ScanDirection direction);
extern void eq_scan_end(EqScan *scan);

/* Locks on a hash of a key, held for the span of one call. */
typedef enum EqKeySpace
{
	EQ_LOCK_AGGREGATE = 1,
	EQ_LOCK_EVENT_ID,
	EQ_LOCK_POSITIONS,
	EQ_LOCK_UNIQUE_KEY
} EqKeySpace;

extern void eq_lock_key(EqKeySpace space, uint32 hash);
extern void eq_unlock_key(EqKeySpace space, uint32 hash);

/* SPI with the extension owner's rights and a pinned search_path. */
typedef struct EqSpi
{
	Oid user;
	int sec_context;
	int guc_level;
} EqSpi;

extern void eq_spi_begin(EqSpi *spi, Oid as_user, int sec_flags);
extern void eq_spi_end(EqSpi *spi);

#endif /* EQ_TABLE_H */
