/*
 * dblink.c: closes what extension dblink keeps open in a process, for workers: the next
 * user code there may be another role's.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "fmgr.h"
#include "utils/array.h"

#include "common/dblink.h"
#include "common/try.h"

static PGFunction get_connections = NULL;
static PGFunction disconnect = NULL;

/* Looks up dblink's functions, if its library has been loaded into this process. */
static void
find_library(Size size)
{
	char *names = palloc(size);

	SerializeLibraryState(size, names);
	for (const char *path = names; *path != '\0'; path += strlen(path) + 1)
	{
		const char *slash = last_dir_separator(path);

		if (strncmp(slash ? slash + 1 : path, "dblink.", 7) != 0)
			continue;
		get_connections = (PGFunction) load_external_function(
			path, "dblink_get_connections", false, NULL);
		disconnect = (PGFunction) load_external_function(path, "dblink_disconnect",
														 false, NULL);
	}
	pfree(names);
}

static void
disconnect_named(void *argument)
{
	LOCAL_FCINFO(fcinfo, 0);
	Datum names;
	Datum *elements;
	int n;

	InitFunctionCallInfoData(*fcinfo, NULL, 0, InvalidOid, NULL, NULL);
	names = get_connections(fcinfo);
	if (fcinfo->isnull)
		return;
	deconstruct_array(DatumGetArrayTypeP(names), TEXTOID, -1, false, TYPALIGN_INT,
					  &elements, NULL, &n);
	for (int i = 0; i < n; i++)
		(void) DirectFunctionCall1(disconnect, elements[i]);
}

/* Closes the unnamed connection; throws if there is none. */
static void
disconnect_unnamed(void *argument)
{
	LOCAL_FCINFO(fcinfo, 0);

	InitFunctionCallInfoData(*fcinfo, NULL, 0, InvalidOid, NULL, NULL);
	(void) disconnect(fcinfo);
}

/*
 * Closes all connections of dblink, in a transaction.  Returns at once if its library is not
 * loaded.
 */
void
eq_close_dblink(void)
{
	static Size looked_at = 0;
	Size size = EstimateLibraryStateSpace(); /* grows with each library */
	ErrorData *error;

	if (size != looked_at)
	{
		find_library(size);
		looked_at = size;
	}
	if (disconnect == NULL)
		return;
	(void) eq_try(disconnect_unnamed, NULL);
	error = eq_try(disconnect_named, NULL);
	if (error)
		ReThrowError(error);
}
