/*
 * table.h: the extension's own tables, beneath the executor.
 *
 * The executor is not asked, so what it would enforce is enforced here or by
 * the caller: privileges (EXECUTE on the function), row security (eq_tenant_*),
 * our constraints.  Constraints and triggers that a user adds do not run; refuse.c
 * refuses them.
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
#include "xact/xact.h"

/*
 * A relation of ours.  Each room names its own (store/tables.h, queue/tables.h); its
 * OID is looked up when it is first asked for, and again when the relation has changed.
 */
typedef struct EqRelationName
{
	const char *name;
	void (*changed)(void); /* what to call then; can't throw; NULL: nothing */
	Oid oid;
	bool is_registered;
	struct EqRelationName *next; /* of all that were asked for */
} EqRelationName;

typedef EqRelationName *EqRelation;

extern Oid eq_relation_oid(EqRelation relation);
extern Oid eq_find_relation(const char *name);
extern Snapshot eq_latest_snapshot(void);
extern Oid eq_extension_owner(void);
extern bool eq_is_worker;

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
extern bool eq_table_update_if_unchanged(EqTable *table, TupleTableSlot *old,
										 Snapshot snapshot, const Datum *values,
										 const bool *nulls);
extern bool eq_table_delete_if_unchanged(EqTable *table, TupleTableSlot *old,
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

/* scan.c: an index scan; slot is the present row. */
typedef struct EqScan
{
	Relation rel;
	Relation index;
	IndexScanDesc desc;
	TupleTableSlot *slot;
	ItemPointerData root;  /* where the index says that the row is */
	MemoryContext context; /* lives as long as the scan */
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

/*
 * key_lock.c: locks on a hash of a key, held for the span of one call; by
 * eq_lock_key_until_end, until the transaction or a savepoint around it is at its end.
 */
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

/* refuse.c: EQ037, EQ057: statements of users on our tables */
extern bool eq_is_written_beneath(Oid relid);
extern void eq_refuse_unheeded(Node *stmt, bool restores);

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

#define EQ_MAX_ARGUMENTS 10

/* A static variable for each statement that is run often. */
typedef struct EqStatement
{
	const char *sql;
	int n_arguments;
	Oid types[EQ_MAX_ARGUMENTS];
	struct _SPI_plan *plan; /* NULL: not yet prepared */
} EqStatement;

extern void eq_spi_run(EqStatement *statement, Datum *values, const char *nulls);
extern void eq_run_as_owner(EqStatement *statement, Datum *values,
							const char *nulls);
extern void eq_set_sequence(EqRelation sequence, int64 value, bool is_called);

/* durability.c: writes that a crash may undo without harm */
extern void eq_weak_writes_begin(void);
extern void eq_weak_writes_end(void);
extern EqXactKind eq_weak_writes;

#endif /* EQ_TABLE_H */
