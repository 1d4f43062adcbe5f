/*
 * version.c: a new library over the SQL of an older version.
 *
 * Between the restart of the server with a new library and ALTER EXTENSION event_queue
 * UPDATE, nothing runs: workers wait (worker/scheduler.c), and C functions raise EQ045.
 * Superusers, the owner and roles with BYPASSRLS can read tables; for others row security
 * calls one of these functions.  The update script refuses to run with an old library.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/pg_extension.h"
#include "commands/extension.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/rel.h"

#include "event_queue.h"
#include "table/table.h"
#include "update/version.h"

PG_FUNCTION_INFO_V1(eq_update_as);

/*
 * Is the extension of the library's version, or not there?  In a transaction.  Tells the
 * version in *version unless that is NULL.
 */
bool
eq_sql_is_current(char **version)
{
	Relation rel = table_open(ExtensionRelationId, AccessShareLock);
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple tuple;
	bool current = true;

	ScanKeyInit(&key, Anum_pg_extension_extname, BTEqualStrategyNumber, F_NAMEEQ,
				CStringGetDatum(EQ_EXTENSION));
	scan = systable_beginscan(rel, ExtensionNameIndexId, true, NULL, 1, &key);
	tuple = systable_getnext(scan);
	if (HeapTupleIsValid(tuple))
	{
		bool isnull;
		Datum value = heap_getattr(tuple, Anum_pg_extension_extversion,
								   RelationGetDescr(rel), &isnull);
		char *found = isnull ? pstrdup("") : TextDatumGetCString(value);

		current = strcmp(found, EQ_VERSION) == 0;
		if (version)
			*version = found;
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return current;
}

/* The session has seen that it is; it can't become another one without a restart. */
static bool known_current = false;

/*
 * EQ045 if functions are of another version's SQL than the library.  Scripts of the
 * extension and pg_upgrade create functions of any version.
 */
void
eq_require_current_sql(void)
{
	char *version = NULL;

	if (known_current || creating_extension || IsBinaryUpgrade)
		return;
	if (eq_sql_is_current(&version))
	{
		/* Not if there is no extension, or if this transaction may yet undo its update. */
		known_current = version != NULL &&
						!TransactionIdIsValid(GetTopTransactionIdIfAny());
		return;
	}
	ereport(
		ERROR,
		(errcode(ERRCODE_EQ_OTHER_VERSION),
		 errmsg(
			 "extension event_queue is of version %s, and the library that the server has loaded of %s",
			 version, EQ_VERSION),
		 errdetail(
			 "Nothing of the extension runs until both are of the same version."),
		 errhint("ALTER EXTENSION event_queue UPDATE")));
}

/*
 * For workers, in no transaction: is the extension there, and of another version?  Says
 * in the log, once for each version, what to type.
 */
bool
eq_update_is_due(void)
{
	static char said[64] = "";
	char *version = NULL;
	bool due;

	StartTransactionCommand();
	due = !eq_sql_is_current(&version);
	if (due && strncmp(said, version, sizeof(said) - 1) != 0)
	{
		strlcpy(said, version, sizeof(said));
		ereport(
			LOG,
			(errcode(ERRCODE_EQ_OTHER_VERSION),
			 errmsg(
				 "extension event_queue of database %u is of version %s, and the library of %s: nothing runs",
				 MyDatabaseId, version, EQ_VERSION),
			 errhint("ALTER EXTENSION event_queue UPDATE, in that database.")));
	}
	CommitTransactionCommand();
	return due;
}

/*
 * For the update script, which makes users' views anew: parsing one may run code of its
 * owner, with his rights, and what that leaves for later is refused.
 */
Datum
eq_update_as(PG_FUNCTION_ARGS)
{
	EqSpi spi;

	eq_spi_begin(&spi, PG_GETARG_OID(0),
				 SECURITY_LOCAL_USERID_CHANGE | SECURITY_RESTRICTED_OPERATION);
	if (SPI_execute(text_to_cstring(PG_GETARG_TEXT_PP(1)), false, 0) < 0)
		elog(ERROR, "could not run the command of an update");
	eq_spi_end(&spi);
	PG_RETURN_VOID();
}
