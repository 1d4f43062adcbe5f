/*
 * fingerprint.c: fingerprints of reducers: which code computes states of a type of aggregate.
 *
 * A fingerprint changes with the source of the reducer and of the functions that it calls,
 * directly or not, as far as the source shows them: names that occur in it, and functions
 * that a BEGIN ATOMIC body was parsed to.  Including one too many only makes a snapshot
 * unusable.  Changes that no source shows (tables and views that it reads, dynamic SQL, a
 * library in C) are reported by the user: refresh_reducer.
 */
#include "postgres.h"

#include <ctype.h>

#include "access/transam.h"
#include "catalog/namespace.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "common/hashfn.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "parser/scansup.h"
#include "utils/builtins.h"
#include "utils/catcache.h"
#include "utils/hsearch.h"
#include "utils/inval.h"
#include "utils/syscache.h"

#include "common/argument.h"
#include "errors.h"
#include "store/state.h"
#include "store/store.h"
#include "table/table.h"
#include "tenant/tenant.h"

PG_FUNCTION_INFO_V1(eq_refresh_reducer);

typedef struct Known
{
	Oid function; /* hash key */
	uint64 hash;  /* of its source and of all that it calls */
} Known;

/* Forgotten when any function changes. */
static HTAB *known = NULL;
static bool known_is_stale = false;
static uint32 changes = 0; /* of functions, since this process looks */

static uint64
mix(uint64 hash, const char *text)
{
	return DatumGetUInt64(
		hash_any_extended((const unsigned char *) text, strlen(text), hash));
}

static List *
add_function(List *functions, Oid function)
{
	/* The server's own change with its version only. */
	return function < FirstNormalObjectId
			   ? functions
			   : list_append_unique_oid(functions, function);
}

/* Adds all functions of a name, of any schema and arguments. */
static List *
add_named(List *functions, const char *name)
{
	CatCList *found = SearchSysCacheList1(PROCNAMEARGSNSP, CStringGetDatum(name));

	for (int i = 0; i < found->n_members; i++)
		functions = add_function(
			functions, ((Form_pg_proc) GETSTRUCT(&found->members[i]->tuple))->oid);
	ReleaseCatCacheList(found);
	return functions;
}

/* Adds all functions whose names stand in a source, be it in a comment. */
static List *
add_words(List *functions, const char *source)
{
	const char *s = source;

	while (*s)
	{
		const char *start = s;
		const char *quote;

		CHECK_FOR_INTERRUPTS();
		while (isalnum((unsigned char) *s) || *s == '_' || *s == '$' ||
			   IS_HIGHBIT_SET(*s))
			s++;
		if (s > start)
		{
			if (!isdigit((unsigned char) *start) && s - start < NAMEDATALEN)
				functions = add_named(
					functions, downcase_identifier(start, s - start, false, false));
			continue;
		}
		/* What is between any two quotes may be a name. */
		quote = *s == '"' ? strchr(s + 1, '"') : NULL;
		if (quote && quote - s - 1 < NAMEDATALEN)
			functions = add_named(functions, pnstrdup(s + 1, quote - s - 1));
		s++;
	}
	return functions;
}

/* Adds the functions of a parsed body. */
static List *
add_parsed(List *functions, const char *tree)
{
	static const char field[] = "funcid ";

	for (const char *s = strstr(tree, field); s; s = strstr(s, field))
	{
		s += strlen(field);
		functions = add_function(functions, strtoul(s, NULL, 10));
	}
	return functions;
}

/* The hash of one function; adds what it calls to *functions. */
static uint64
hash_source(Oid function, List **functions)
{
	static const AttrNumber sources[] = {Anum_pg_proc_prosrc, Anum_pg_proc_probin,
										 Anum_pg_proc_prosqlbody};
	HeapTuple tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(function));
	uint64 hash = 0;

	/* A parsed body may name one that was dropped since: its caller has changed. */
	if (!HeapTupleIsValid(tuple))
		return hash;
	for (int i = 0; i < lengthof(sources); i++)
	{
		bool isnull;
		Datum value = SysCacheGetAttr(PROCOID, tuple, sources[i], &isnull);
		char *source = isnull ? "" : TextDatumGetCString(value);

		hash = mix(hash, source);
		if (sources[i] == Anum_pg_proc_prosqlbody)
			*functions = add_parsed(*functions, source);
		else
			*functions = add_words(*functions, source);
	}
	ReleaseSysCache(tuple);
	return hash;
}

static void
functions_changed(Datum arg, int cache, uint32 hash)
{
	known_is_stale = true;
	changes++;
}

static void
look_for_changes(void)
{
	static bool looks = false;

	if (!looks)
		CacheRegisterSyscacheCallback(PROCOID, functions_changed, (Datum) 0);
	looks = true;
}

/*
 * The hash of a function's source and of all that it calls.  In which order they
 * are found does not count.
 */
static uint64
hash_code(Oid function)
{
	HASHCTL ctl = {.keysize = sizeof(Oid), .entrysize = sizeof(Known)};
	List *functions = list_make1_oid(function);
	Known *entry;
	bool found;
	uint64 hash = 0;

	look_for_changes();
	if (known == NULL)
		known = hash_create("event_queue reducers", 16, &ctl,
							HASH_ELEM | HASH_BLOBS);
	if (known_is_stale)
	{
		hash_destroy(known);
		known = NULL;
		known_is_stale = false;
		known = hash_create("event_queue reducers", 16, &ctl,
							HASH_ELEM | HASH_BLOBS);
	}
	entry = hash_search(known, &function, HASH_FIND, NULL);
	if (entry)
		return entry->hash;
	for (int i = 0; i < list_length(functions); i++)
	{
		uint64 one = hash_source(list_nth_oid(functions, i), &functions);

		hash += i == 0 ? one
					   : hash_bytes_extended((const unsigned char *) &one,
											 sizeof(one), 0);
	}
	list_free(functions);
	if (!known_is_stale)
	{
		entry = hash_search(known, &function, HASH_ENTER, &found);
		entry->hash = hash;
	}
	return hash;
}

/* A hash of a function's source and of what it calls, for who has to say which code it was. */
uint64
eq_code_of(Oid function)
{
	return hash_code(function);
}

/* A hash of the functions whose names stand in an expression, and of what they call. */
uint64
eq_code_named_in(const char *expression)
{
	List *functions = add_words(NIL, expression);
	uint64 hash = 0;

	for (int i = 0; i < list_length(functions); i++)
		hash += hash_source(list_nth_oid(functions, i), &functions);
	list_free(functions);
	return hash;
}

/* How many changes of functions this process has seen. */
uint32
eq_changes_of_functions(void)
{
	look_for_changes();
	return changes;
}

/* Changes with the reducer's name, its code, and each refresh_reducer. */
int64
eq_fingerprint_of(const char *name, Oid function, int32 revision)
{
	uint64 hash = mix(hash_code(function), name);

	if (revision != 0)
		hash = mix(hash, psprintf("%d", revision));
	return (int64) (hash & PG_INT64_MAX);
}

/*
 * Executes a command as the owner of the tables, for whom no trigger or policy of
 * users runs.
 */
static uint64
execute_for_type(const char *command, const char *type)
{
	EqSpi spi;
	Oid arg_type = TEXTOID;
	Datum value = CStringGetTextDatum(type);
	uint64 n;

	eq_spi_begin(&spi, eq_extension_owner(), SECURITY_LOCAL_USERID_CHANGE);
	if (SPI_execute_with_args(command, 1, &arg_type, &value, NULL, false, 0) < 0)
		elog(ERROR, "could not execute: %s", command);
	n = SPI_processed;
	eq_spi_end(&spi);
	return n;
}

Datum
eq_refresh_reducer(PG_FUNCTION_ARGS)
{
	char *type = eq_name_argument(fcinfo, 0, "aggregate type");
	uint64 n_dropped;
	uint64 n_base;

	if (execute_for_type("UPDATE event_queue.reducer SET revision = revision + 1"
						 " WHERE aggregate_type = $1",
						 type) == 0)
		ereport(ERROR, (errcode(ERRCODE_EQ_UNKNOWN_OBJECT),
						errmsg("aggregate type \"%s\" has no reducer", type)));
	n_dropped = execute_for_type("DELETE FROM event_queue.aggregate_snapshot"
								 " WHERE aggregate_type = $1 AND NOT is_base",
								 type);
	n_base = execute_for_type("SELECT FROM event_queue.aggregate_snapshot"
							  " WHERE aggregate_type = $1 AND is_base",
							  type);
	if (n_base > 0)
		ereport(
			NOTICE,
			(errmsg(
				 UINT64_FORMAT
				 " states of aggregate type \"%s\" stay as an earlier version of the reducer computed them",
				 n_base, type),
			 errdetail(
				 "Their first events are archived, so they cannot be computed again.")));
	PG_RETURN_INT64(n_dropped);
}
