/*
 * read.c: events of all aggregates in the order of their positions.
 *
 * The watermark is taken first and the snapshot after (watermark.c says why).
 * In REPEATABLE READ and SERIALIZABLE the transaction's snapshot is older than
 * the watermark: events between the two are committed, but the transaction
 * can't see them, and a consumer that stepped over them would lose them.  So
 * the scan runs under a fresh snapshot and ends before the first event that
 * the transaction's snapshot does not show.
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
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "store/store.h"
#include "table/table.h"
#include "tenant/tenant.h"

PG_FUNCTION_INFO_V1(eq_read_all);

#define MAX_READ_LIMIT 100000

/*
 * Puts up to limit events with after < position <= up_to into the store.
 * Returns the position of the last one, or 0 if there was none.
 */
int64
eq_read_events(int64 after, int64 up_to, int limit, const char *tenant,
			   Tuplestorestate *into)
{
	Relation rel = table_open(eq_relation_oid(EQ_EVENT_STORE), AccessShareLock);
	Snapshot snapshot = RegisterSnapshot(GetLatestSnapshot());
	Snapshot own = IsolationUsesXactSnapshot() ? GetTransactionSnapshot() : NULL;
	EqScan scan;
	ScanKeyData keys[2];
	int64 last = 0;
	int found = 0;

	eq_scan_begin(&scan, rel, EQ_EVENT_STORE_PKEY, snapshot, 2);
	eq_scan_key(&scan, &keys[0], 1, BTGreaterStrategyNumber, F_INT8GT,
				Int64GetDatum(after));
	eq_scan_key(&scan, &keys[1], 1, BTLessEqualStrategyNumber, F_INT8LE,
				Int64GetDatum(up_to));
	eq_scan_start(&scan, keys, 2);
	while (found < limit && eq_scan_next(&scan, ForwardScanDirection))
	{
		bool isnull;

		if (own && !table_tuple_satisfies_snapshot(rel, scan.slot, own))
			break;
		if (tenant)
		{
			text *row_tenant = DatumGetTextPP(
				slot_getattr(scan.slot, EVENT_TENANT, &isnull));

			if (VARSIZE_ANY_EXHDR(row_tenant) != strlen(tenant) ||
				memcmp(VARDATA_ANY(row_tenant), tenant, strlen(tenant)) != 0)
				continue;
		}
		last = DatumGetInt64(slot_getattr(scan.slot, EVENT_POSITION, &isnull));
		tuplestore_puttupleslot(into, scan.slot);
		found++;
	}
	eq_scan_end(&scan);
	UnregisterSnapshot(snapshot);
	table_close(rel, AccessShareLock);
	return last;
}

Datum
eq_read_all(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	int64 after = PG_ARGISNULL(0) ? 0 : PG_GETARG_INT64(0);
	int limit = PG_ARGISNULL(1) ? 1000 : PG_GETARG_INT32(1);
	const char *tenant = eq_confined_tenant();
	int64 watermark;

	if (after < 0)
		ereport(ERROR, (errcode(ERRCODE_EQ_INVALID_ARGUMENT),
						errmsg("position must not be negative")));
	if (limit < 1 || limit > MAX_READ_LIMIT)
		ereport(ERROR, (errcode(ERRCODE_EQ_INVALID_ARGUMENT),
						errmsg("limit must be between 1 and %d", MAX_READ_LIMIT)));
	if (!PG_ARGISNULL(2))
		tenant = eq_resolve_tenant(text_to_cstring(PG_GETARG_TEXT_PP(2)));

	InitMaterializedSRF(fcinfo, MAT_SRF_USE_EXPECTED_DESC);
	watermark = eq_watermark();
	(void) eq_read_events(after, watermark, limit, tenant, rsinfo->setResult);
	return (Datum) 0;
}
