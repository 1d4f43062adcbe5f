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
	JOB_LANE,
	JOB_RUN_AT,
	JOB_CREATED_AT,
	JOB_FAILURES,
	JOB_STALLED,
	JOB_PRIORITY,
	JOB_BLOCKED,
	JOB_CANCEL,
	JOB_HAS_DEPENDENTS,
	JOB_UNIQUE_UNTIL_CLAIM,
	JOB_TENANT,
	JOB_NAME,
	JOB_MAX_ATTEMPTS,
	JOB_RETRY,
	JOB_TIME_LIMIT,
	JOB_LEASE_TOKEN,
	JOB_LEASED_UNTIL,
	JOB_CLAIMED_AT,
	JOB_LEASE_PID,
	JOB_LEASED_BY,
	JOB_GROUP_KEY,
	JOB_UNIQUE_KEY,
	JOB_PAYLOAD,
	JOB_METADATA,
	JOB_ERRORS,
	JOB_PROGRESS,
	JOB_COLUMNS = JOB_PROGRESS
};

/* Of the index job_order. */
enum
{
	ORDER_QUEUE = 1,
	ORDER_LANE,
	ORDER_PRIORITY,
	ORDER_RUN_AT,
	ORDER_JOB_ID
};

/* Why a job is not in that index. */
#define JOB_NOT_BLOCKED			  0
#define JOB_BLOCKED_BY_GROUP	  1
#define JOB_BLOCKED_BY_DEPENDENCY 2

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
	DEAD_RETRY,
	DEAD_TIME_LIMIT,
	DEAD_GROUP_KEY,
	DEAD_UNIQUE_KEY,
	DEAD_HAS_DEPENDENTS,
	DEAD_PAYLOAD,
	DEAD_METADATA,
	DEAD_ERRORS,
	DEAD_COLUMNS = DEAD_ERRORS
};
/* Of the type retry_options. */
enum
{
	RETRY_BACKOFF = 1,
	RETRY_DELAY,
	RETRY_MAX,
	RETRY_JITTER,
	RETRY_INTERVALS,
	RETRY_COLUMNS = RETRY_INTERVALS
};
enum
{
	REVIEW_ID = 1,
	REVIEW_QUEUE,
	REVIEW_TENANT,
	REVIEW_GROUP_KEY,
	REVIEW_JOB,
	REVIEW_COLUMNS = REVIEW_JOB
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
	HISTORY_EXPIRES_AT,
	HISTORY_SPAN,
	HISTORY_LEASED_BY,
	HISTORY_FAILURES,
	HISTORY_STALLED,
	HISTORY_PAYLOAD,
	HISTORY_METADATA,
	HISTORY_ERRORS,
	HISTORY_RESULT,
	HISTORY_COLUMNS = HISTORY_RESULT
};

enum
{
	PARTITION_ID = 1,
	PARTITION_NAME,
	PARTITION_TENANT,
	PARTITION_FIRST_POSITION,
	PARTITION_LAST_POSITION,
	PARTITION_SPLIT_OFF
};

enum
{
	SNAPSHOT_AGGREGATE_ID = 1,
	SNAPSHOT_AGGREGATE_TYPE,
	SNAPSHOT_TENANT,
	SNAPSHOT_VERSION,
	SNAPSHOT_POSITION,
	SNAPSHOT_STATE,
	SNAPSHOT_EVENT_AT,
	SNAPSHOT_REDUCER,
	SNAPSHOT_IS_BASE,
	SNAPSHOT_COLUMNS = SNAPSHOT_IS_BASE
};

/* Relations whose OIDs are cached. */
typedef enum EqRelation
{
	EQ_EVENT_STORE,
	EQ_EVENT_STORE_PKEY,
	EQ_EVENT_STORE_AGGREGATE,
	EQ_EVENT_STORE_ID,
	EQ_EVENT_POSITION,
	EQ_EVENT_GENERATION,
	EQ_EVENT_PARTITION,
	EQ_EVENT_PARTITION_PKEY,
	EQ_AGGREGATE_SNAPSHOT,
	EQ_AGGREGATE_SNAPSHOT_PKEY,
	EQ_JOB,
	EQ_JOB_PKEY,
	EQ_JOB_ORDER,
	EQ_JOB_GROUP,
	EQ_JOB_UNIQUE,
	EQ_JOB_ID_SEQ,
	EQ_DEAD_LETTER,
	EQ_DEAD_LETTER_PKEY,
	EQ_JOB_REVIEW,
	EQ_JOB_REVIEW_SEQ,
	EQ_JOB_HISTORY,
	EQ_JOB_HISTORY_EARLY,
	EQ_JOB_HISTORY_FOREVER,
	EQ_QUEUE,
	EQ_TENANT_ROLE,
	EQ_ACTIVATION,
	EQ_RELATIONS
} EqRelation;

extern Oid eq_relation_oid(EqRelation which);
extern Oid eq_find_relation(const char *name);
extern Oid eq_extension_owner(void);

/*
 * The tables that hold events (leaves.c): event_store and its partitions.  Of
 * one aggregate, each has newer events than those behind it in the list.
 */
typedef struct EqLeaf
{
	Oid relid;
	Oid pkey;	   /* position */
	Oid aggregate; /* aggregate id, type, tenant, version */
	Oid id;		   /* event id, tenant */
	Oid by_type;   /* these three if create_event_index made them */
	Oid by_aggregate_type;
	Oid by_tenant;
	int64 first_position;
	int64 last_position; /* 0: it may still grow */
	char *tenant;		 /* holds this tenant's events only; NULL: any */
	bool is_sealed;		 /* takes no more events */
} EqLeaf;

extern int eq_event_leaves(EqLeaf **leaves);
extern int eq_copy_event_leaves(EqLeaf **leaves);
extern bool eq_events_were_archived(void);
extern void eq_forget_leaves(void);

/* A table opened for writing, with its indexes. */
typedef struct EqTable
{
	Relation rel;
	EState *estate;
	ResultRelInfo *result;
	TupleTableSlot *out; /* the row to be written */
	struct OpenPlan *plan;
	bool has_indexes; /* they are open */
	int n_columns;	  /* that we know of */
} EqTable;

extern void eq_table_open(EqTable *table, Oid relid, int n_columns);
extern void eq_table_close(EqTable *table);
extern void eq_table_insert(EqTable *table, const Datum *values, const bool *nulls);
extern void eq_table_update(EqTable *table, TupleTableSlot *old, Snapshot snapshot,
							const Datum *values, const bool *nulls);
extern void eq_table_delete(EqTable *table, TupleTableSlot *old, Snapshot snapshot);
extern bool eq_table_update_unchanged(EqTable *table, TupleTableSlot *old,
									  Snapshot snapshot, const Datum *values,
									  const bool *nulls);
extern bool eq_table_delete_unchanged(EqTable *table, TupleTableSlot *old,
									  Snapshot snapshot);
extern bool eq_lock_row(EqTable *table, Oid pkey, int64 key, Snapshot snapshot,
						TupleTableSlot *slot, bool *is_busy);
extern bool eq_table_fetch(EqTable *table, ItemPointer root, Snapshot snapshot,
						   TupleTableSlot *slot);

/* Many new rows, which come to the table page by page. */
typedef struct EqBulk
{
	EqTable *table;
	struct BulkInsertStateData *state;
	TupleTableSlot **slots;
	int n_slots;
	MemoryContext context; /* of the rows' values, reset when they are written */
} EqBulk;

extern void eq_bulk_begin(EqBulk *bulk, EqTable *table);
extern void eq_bulk_insert(EqBulk *bulk, const Datum *values, const bool *nulls);
extern void eq_bulk_end(EqBulk *bulk);

/* An index scan; slot is the present row. */
typedef struct EqScan
{
	Relation rel;
	Relation index;
	IndexScanDesc desc;
	TupleTableSlot *slot;
	ItemPointerData root; /* where the index says that the row is */
} EqScan;

extern void eq_scan_begin(EqScan *scan, Relation rel, Oid index, Snapshot snapshot,
						  int n_keys);
extern void eq_scan_key(EqScan *scan, ScanKey key, int index_column,
						StrategyNumber strategy, RegProcedure op, Datum value);
extern void eq_scan_start(EqScan *scan, ScanKey keys, int n_keys);
extern void eq_scan_row_key(EqScan *scan, ScanKey key, ScanKey members,
							int first_column, RegProcedure cmp1, Datum value1,
							RegProcedure cmp2, Datum value2);
extern bool eq_scan_next(EqScan *scan, ScanDirection direction);
extern IndexTuple eq_scan_next_entry(EqScan *scan);
extern bool eq_scan_fetch(EqScan *scan);
extern void eq_scan_end(EqScan *scan);

/* Locks on a hash of a key, held for the span of one call. */
typedef enum EqKeySpace
{
	EQ_LOCK_AGGREGATE = 1,
	EQ_LOCK_EVENT_ID,
	EQ_LOCK_POSITIONS,
	EQ_LOCK_UNIQUE_KEY,
	EQ_LOCK_BUCKET
} EqKeySpace;

extern void eq_lock_key(EqKeySpace space, uint32 hash);
extern void eq_unlock_key(EqKeySpace space, uint32 hash);
extern bool eq_lock_key_until_end(EqKeySpace space, uint32 hash, bool wait);

/* refuse.c: EQ037 for triggers, constraints and defaults of users on our tables */
extern void eq_refuse_unheeded(Node *stmt);

/* spi.c: SPI with the extension owner's rights and a pinned search_path. */
typedef struct EqSpi
{
	Oid user;
	int sec_context;
	int guc_level;
} EqSpi;

extern void eq_spi_begin(EqSpi *spi, Oid as_user, int sec_flags);
extern void eq_spi_end(EqSpi *spi);
extern int64 eq_query_int64(const char *query, int64 argument);

#define EQ_MAX_ARGUMENTS 6

/* A static variable for each statement that is run often. */
typedef struct EqStatement
{
	const char *sql;
	int n_arguments;
	Oid types[EQ_MAX_ARGUMENTS];
	struct _SPI_plan *plan; /* NULL: not yet prepared */
} EqStatement;

extern void eq_spi_run(EqStatement *statement, Datum *values, const char *nulls);
extern void eq_set_sequence(EqRelation which, int64 value, bool is_called);

/* durability.c: writes that a crash may undo without harm */
extern void eq_weak_writes_begin(void);
extern void eq_weak_writes_end(void);
extern void eq_durability_before_commit(void);
extern void eq_durability_after_xact(void);

/* try.c */
extern ErrorData *eq_try(void (*step)(void *), void *argument);

#endif /* EQ_TABLE_H */
