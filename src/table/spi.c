/*
 * spi.c: SQL on the extension's own tables, where the executor is fast enough.
 *
 * Statements that run once for each job or claim keep their plan for the session
 * (EqStatement); PostgreSQL plans them again when a table in them changes.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/snapmgr.h"

#include "event_queue.h"
#include "table/table.h"

PG_FUNCTION_INFO_V1(eq_call_as_owner);

/*
 * What is committed now; in a query that has parallel workers, what its statement sees,
 * since no other snapshot may be taken there.
 */
Snapshot
eq_latest_snapshot(void)
{
	return IsInParallelMode() ? GetActiveSnapshot() : GetLatestSnapshot();
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
	/* What a condition or another function of a user has SET is undone, too. */
	AtEOXact_GUC(false, spi->guc_level);
	SetUserIdAndSecContext(spi->user, spi->sec_context);
}

/*
 * One number from a query on our own tables, which may use $1 and write, as the
 * owner and in a fresh snapshot.
 */
int64
eq_query_int64(const char *query, int64 argument)
{
	EqSpi spi;
	Oid type = INT8OID;
	Datum value = Int64GetDatum(argument);
	int n_arguments = strstr(query, "$1") ? 1 : 0;
	int64 result = 0;
	bool isnull;

	PushActiveSnapshot(eq_latest_snapshot()); /* workers may have none yet */
	eq_spi_begin(&spi, eq_extension_owner(), SECURITY_LOCAL_USERID_CHANGE);
	if (SPI_execute_with_args(query, n_arguments, &type, &value, NULL, XactReadOnly,
							  1) != SPI_OK_SELECT)
		elog(ERROR, "could not execute: %s", query);
	if (SPI_processed == 1)
		result = DatumGetInt64(
			SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
	eq_spi_end(&spi);
	PopActiveSnapshot();
	return result;
}

/*
 * Runs a statement, between eq_spi_begin and eq_spi_end, by its kept plan, on what
 * is committed now: also where the transaction's own snapshot is older (REPEATABLE
 * READ).  That holds for the statement itself, not for what functions in it read.
 */
void
eq_spi_run(EqStatement *statement, Datum *values, const char *nulls)
{
	if (statement->plan == NULL)
	{
		SPIPlanPtr plan = SPI_prepare(statement->sql, statement->n_arguments,
									  statement->types);

		if (plan == NULL || SPI_keepplan(plan) != 0)
			elog(ERROR, "could not prepare \"%s\"", statement->sql);
		statement->plan = plan;
	}
	if (SPI_execute_snapshot(statement->plan, values, nulls, eq_latest_snapshot(),
							 InvalidSnapshot, false, true, 0) < 0)
		elog(ERROR, "could not run \"%s\"", statement->sql);
}

/* Runs a statement for its effect, with the rights of the extension's owner. */
void
eq_run_as_owner(EqStatement *statement, Datum *values, const char *nulls)
{
	EqSpi spi;

	eq_spi_begin(&spi, eq_extension_owner(), SECURITY_LOCAL_USERID_CHANGE);
	eq_spi_run(statement, values, nulls);
	eq_spi_end(&spi);
}

/*
 * Calls the function of the same name in event_queue_internal as the extension's owner,
 * with the caller as last argument.  A SECURITY DEFINER function can't know its caller:
 * in handlers, and in such functions of others, role and session_user have more rights.
 */
Datum
eq_call_as_owner(PG_FUNCTION_ARGS)
{
	Oid function = fcinfo->flinfo->fn_oid;
	bool is_set = get_func_retset(function);
	Oid *declared;
	Oid types[FUNC_MAX_ARGS];
	Datum values[FUNC_MAX_ARGS];
	char nulls[FUNC_MAX_ARGS];
	int n;
	StringInfoData sql;
	Datum value = (Datum) 0;
	EqSpi spi;

	(void) get_func_signature(function, &declared, &n);
	Assert(n == PG_NARGS() && n < FUNC_MAX_ARGS);
	if (is_set)
		InitMaterializedSRF(fcinfo, 0);
	initStringInfo(&sql);
	appendStringInfo(&sql, "SELECT * FROM " EQ_INTERNAL ".%s(",
					 quote_identifier(get_func_name(function)));
	for (int i = 0; i < n; i++)
	{
		types[i] = declared[i];
		values[i] = PG_GETARG_DATUM(i);
		nulls[i] = PG_ARGISNULL(i) ? 'n' : ' ';
		appendStringInfo(&sql, "$%d, ", i + 1);
	}
	types[n] = REGROLEOID;
	values[n] = ObjectIdGetDatum(GetUserId());
	nulls[n] = ' ';
	appendStringInfo(&sql, "$%d)", n + 1);

	eq_spi_begin(&spi, eq_extension_owner(), SECURITY_LOCAL_USERID_CHANGE);
	if (SPI_execute_with_args(sql.data, n + 1, types, values, nulls, false, 0) !=
		SPI_OK_SELECT)
		elog(ERROR, "could not execute: %s", sql.data);
	if (is_set)
	{
		ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;

		for (uint64 i = 0; i < SPI_processed; i++)
			tuplestore_puttuple(result->setResult, SPI_tuptable->vals[i]);
	}
	else
	{
		bool by_value;
		int16 length;

		value = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1,
							  &fcinfo->isnull);
		get_typlenbyval(get_func_rettype(function), &length, &by_value);
		if (!fcinfo->isnull)
			value = SPI_datumTransfer(value, by_value, length);
	}
	eq_spi_end(&spi);
	return value;
}
