/*
 * snapshot.c: stores states of aggregates, so that later folds are short.
 * worker/snapshot_jobs.c decides when.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "common/argument.h"
#include "store/state.h"
#include "store/store.h"
#include "table/table.h"

PG_FUNCTION_INFO_V1(eq_take_snapshot_sql);

/* Folds the aggregate and keeps the state; its version, 0 if it has no event. */
int32
eq_take_snapshot(const char *tenant, const char *type, const char *id)
{
	static const char *const command =
		"WITH outdated AS (DELETE FROM event_queue.aggregate_snapshot s"
		" WHERE s.aggregate_id = $1 AND s.aggregate_type = $2 AND s.tenant_id = $3"
		" AND s.reducer <> $8 AND NOT s.is_base AND s.version <> $4)"
		" INSERT INTO event_queue.aggregate_snapshot"
		" (aggregate_id, aggregate_type, tenant_id, version, position, state, event_at, reducer, is_base)"
		" VALUES ($1, $2, $3, $4, $5, $6, $7, $8, false)"
		" ON CONFLICT ON CONSTRAINT aggregate_snapshot_pkey DO UPDATE"
		" SET state = excluded.state, reducer = excluded.reducer";
	EqState state;
	EqSpi spi;
	Oid types[8] = {TEXTOID, TEXTOID,  TEXTOID,		   INT4OID,
					INT8OID, JSONBOID, TIMESTAMPTZOID, INT8OID};
	Datum values[8];

	eq_fold(&state, tenant, type, id, 0, DT_NOEND);
	if (state.version == 0)
		return 0;
	values[0] = CStringGetTextDatum(id);
	values[1] = CStringGetTextDatum(type);
	values[2] = CStringGetTextDatum(tenant);
	values[3] = Int32GetDatum(state.version);
	values[4] = Int64GetDatum(state.position);
	values[5] = JsonbPGetDatum(state.value);
	values[6] = TimestampTzGetDatum(state.event_at);
	values[7] = Int64GetDatum(state.reducer);
	eq_spi_begin(&spi, eq_extension_owner(), SECURITY_LOCAL_USERID_CHANGE);
	if (SPI_execute_with_args(command, 8, types, values, NULL, false, 0) !=
		SPI_OK_INSERT)
		elog(ERROR, "could not write table aggregate_snapshot");
	eq_spi_end(&spi);
	return state.version;
}

Datum
eq_take_snapshot_sql(PG_FUNCTION_ARGS)
{
	char *type = eq_name_argument(fcinfo, 0, "aggregate type");
	char *id = eq_name_argument(fcinfo, 1, "aggregate id");
	int32 version = eq_take_snapshot(eq_tenant_argument(fcinfo, 2), type, id);

	if (version == 0)
		ereport(ERROR, (errcode(ERRCODE_EQ_UNKNOWN_OBJECT),
						errmsg("%s \"%s\" has no events", type, id)));
	PG_RETURN_INT32(version);
}
