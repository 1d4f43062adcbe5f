/*
 * scan.c: index scans of the extension's own tables, beneath the executor.
 *
 * The scan key is given to the index method as it is; an ordering that crosses columns
 * ("after this row") is a row comparison (eq_scan_row_key).  A caller that wants index
 * entries without their rows asks for each by eq_scan_next_entry, and for the row of one
 * by eq_scan_fetch.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/skey.h"
#include "access/tableam.h"
#include "miscadmin.h"
#include "utils/memutils.h"
#include "utils/rel.h"

#include "compat.h"
#include "table/table.h"

void
eq_scan_begin(EqScan *scan, Relation rel, Oid index, Snapshot snapshot, int n_keys)
{
	scan->rel = rel;
	scan->index = index_open(index, AccessShareLock);
	scan->desc = eq_index_beginscan(rel, scan->index, snapshot, n_keys);
	scan->slot = table_slot_create(rel, NULL);
	scan->context = CurrentMemoryContext;
}

void
eq_scan_key(EqScan *scan, ScanKey key, int index_column, StrategyNumber strategy,
			RegProcedure op, Datum value)
{
	ScanKeyEntryInitialize(key, 0, index_column, strategy, InvalidOid,
						   scan->index->rd_indcollation[index_column - 1], op,
						   value);
}

/* Starts, or starts again with other keys, at most as many as were announced. */
void
eq_scan_start(EqScan *scan, ScanKey keys, int n_keys)
{
	scan->desc->numberOfKeys = n_keys; /* the index method copies so many */
	index_rescan(scan->desc, keys, n_keys, NULL, 0);
}

/*
 * (first_column, the one after it) >= (value1, value2); members: room for two,
 * for as long as the scan goes on.
 */
void
eq_scan_row_key(EqScan *scan, ScanKey key, ScanKey members, int first_column,
				RegProcedure cmp1, Datum value1, RegProcedure cmp2, Datum value2)
{
	ScanKeyEntryInitialize(&members[0], SK_ROW_MEMBER, first_column,
						   BTGreaterEqualStrategyNumber, InvalidOid, InvalidOid,
						   cmp1, value1);
	ScanKeyEntryInitialize(&members[1], SK_ROW_MEMBER | SK_ROW_END, first_column + 1,
						   BTGreaterEqualStrategyNumber, InvalidOid, InvalidOid,
						   cmp2, value2);
	memset(key, 0, sizeof(ScanKeyData));
	key->sk_flags = SK_ROW_HEADER;
	key->sk_attno = first_column;
	key->sk_strategy = BTGreaterEqualStrategyNumber;
	key->sk_argument = PointerGetDatum(members);
}

/*
 * In the scan's own memory context: a B-tree scan makes its list of dead entries when
 * it meets the first, and keeps it.
 */
bool
eq_scan_next(EqScan *scan, ScanDirection direction)
{
	MemoryContext caller = MemoryContextSwitchTo(scan->context);
	bool found;

	CHECK_FOR_INTERRUPTS();
	found = index_getnext_slot(scan->desc, direction, scan->slot);
	MemoryContextSwitchTo(caller);
	return found;
}

/*
 * The next index entry, whether its row is still there or not; for scans whose
 * desc->xs_want_itup was set.  NULL at the end.
 */
IndexTuple
eq_scan_next_entry(EqScan *scan)
{
	MemoryContext caller = MemoryContextSwitchTo(scan->context);
	ItemPointer tid;

	CHECK_FOR_INTERRUPTS();
	tid = index_getnext_tid(scan->desc, ForwardScanDirection);
	MemoryContextSwitchTo(caller);
	if (tid == NULL)
		return NULL;
	scan->root = *tid;
	return scan->desc->xs_itup;
}

/* The row of that entry; false if the snapshot has none. */
bool
eq_scan_fetch(EqScan *scan)
{
	return index_fetch_heap(scan->desc, scan->slot);
}

void
eq_scan_end(EqScan *scan)
{
	ExecDropSingleTupleTableSlot(scan->slot);
	index_endscan(scan->desc);
	index_close(scan->index, NoLock);
}
