/*
 * function.c: finds and calls users' functions, for rules and handlers.
 *
 * A function is stored by its qualified name and looked up at each call, so that it
 * survives pg_dump and CREATE OR REPLACE, and a missing one is an error of the job that
 * needs it.
 */
#include "postgres.h"

#include "catalog/namespace.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "nodes/value.h"
#include "parser/parse_func.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/hsearch.h"
#include "utils/jsonb.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"
#include "utils/varlena.h"

#include "common/function.h"
#include "compat.h"
#include "event_queue.h"
#include "table/table.h"
#include "tenant/tenant.h"

static EqRelationName event_store = {"event_store"};

/* The row type of event_store. */
Oid
eq_event_type_oid(void)
{
	return get_rel_type_id(eq_relation_oid(&event_store));
}

Oid
eq_claimed_job_type_oid(void)
{
	Oid schema = get_namespace_oid(EQ_SCHEMA, false);
	Oid type = GetSysCacheOid2(TYPENAMENSP, Anum_pg_type_oid,
							   CStringGetDatum("claimed_job"),
							   ObjectIdGetDatum(schema));

	if (!OidIsValid(type))
		elog(ERROR, "type event_queue.claimed_job does not exist");
	return type;
}

/*
 * A qualified name as it is stored, quoted where it must be: the same whoever stores it, as names
 * are compared with those that another session gives.
 */
char *
eq_stored_name(const char *schema, const char *name)
{
	int level = NewGUCNestLevel();
	char *stored;

	if (quote_all_identifiers)
		(void) set_config_option("quote_all_identifiers", "off", PGC_USERSET,
								 PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
	stored = quote_qualified_identifier(schema, name);
	AtEOXact_GUC(false, level);
	return stored;
}

/* Looks the function up by the caller's search_path; InvalidOid if missing. */
static Oid
look_up(const char *name, int n_args, const Oid *arg_types, bool *other_signature)
{
	List *parts;
	List *names = NIL;
	ListCell *cell;
	Oid function;

	*other_signature = false;
	if (!SplitIdentifierString(pstrdup(name), '.', &parts) || list_length(parts) > 2)
		return InvalidOid;
	foreach (cell, parts)
		names = lappend(names, makeString(lfirst(cell)));
	if (names == NIL)
		return InvalidOid;
	if (list_length(names) == 2 &&
		!OidIsValid(get_namespace_oid(strVal(linitial(names)), true)))
		return InvalidOid;
	function = LookupFuncName(names, n_args, arg_types, true);
	if (!OidIsValid(function))
		*other_signature = FuncnameGetCandidates(names, -1, NIL, false, false, false,
												 true) != NULL;
	return function;
}

/* May a function of this kind return that? */
static bool
returns_well(Oid function, EqFunctionKind kind)
{
	Oid type = get_func_rettype(function);

	switch (kind)
	{
		case EQ_FUNCTION_HANDLER:
		case EQ_FUNCTION_ARRAY_HANDLER:
			return type == VOIDOID || type == JSONBOID;
		case EQ_FUNCTION_REDUCER:
			return type == JSONBOID &&
				   func_volatile(function) != PROVOLATILE_VOLATILE;
		default:
			return true;
	}
}

/*
 * The function of this name and kind, which the caller may call; its qualified
 * name goes to *qualified.
 */
Oid
eq_find_function(const char *name, EqFunctionKind kind, char **qualified)
{
	static const char *const hints[] = {
		[EQ_FUNCTION_OF_EVENT] =
			"It must take one argument of type event_queue.event_store.",
		[EQ_FUNCTION_HANDLER] =
			"A handler takes one argument of type event_queue.claimed_job and returns void or jsonb.",
		[EQ_FUNCTION_ARRAY_HANDLER] =
			"A handler with batch_size takes one argument of type event_queue.claimed_job[] and returns void or jsonb.",
		[EQ_FUNCTION_REDUCER] =
			"A reducer takes (state jsonb, event event_queue.event_store), returns jsonb, and is IMMUTABLE or STABLE.",
	};
	Oid types[2];
	int n_args = 1;
	bool other_signature = false;
	Oid function;

	if (name == NULL)
		name = "";
	if (kind == EQ_FUNCTION_HANDLER)
		types[0] = eq_claimed_job_type_oid();
	else if (kind == EQ_FUNCTION_ARRAY_HANDLER)
		types[0] = get_array_type(eq_claimed_job_type_oid());
	else
	{
		n_args = kind == EQ_FUNCTION_REDUCER ? 2 : 1;
		types[0] = JSONBOID;
		types[n_args - 1] = eq_event_type_oid();
	}
	function = look_up(name, n_args, types, &other_signature);
	if (!OidIsValid(function) && !other_signature)
		ereport(
			ERROR,
			(errcode(ERRCODE_EQ_UNKNOWN_FUNCTION),
			 errmsg("function \"%s\" does not exist", name),
			 errhint(
				 "Give its name, with the schema if it is not in the search_path, and without arguments.")));
	if (!OidIsValid(function) || get_func_prokind(function) != PROKIND_FUNCTION ||
		get_func_retset(function) || !returns_well(function, kind))
		ereport(ERROR, (errcode(ERRCODE_EQ_WRONG_SIGNATURE),
						errmsg("function \"%s\" has the wrong signature", name),
						errhint("%s", hints[kind])));
	if (eq_function_aclcheck(function, GetUserId(), ACL_EXECUTE) != ACLCHECK_OK)
		aclcheck_error(ACLCHECK_NO_PRIV, OBJECT_FUNCTION, name);
	*qualified = eq_stored_name(get_namespace_name(get_func_namespace(function)),
								get_func_name(function));
	return function;
}

/*
 * Why a stored function can't be called as this role with an argument of this type;
 * NULL if it can.  That is a fault of the deployment and not of the job at hand.
 */
static const char *
why_not_callable(Oid owner, const char *function, Oid argument_type, Oid *found)
{
	const char *why = eq_why_owner_is_out(owner);
	bool other_signature;
	Oid oid;

	if (why != NULL)
		return why;
	oid = look_up(function, 1, &argument_type, &other_signature);
	*found = oid;
	if (!OidIsValid(oid))
		return psprintf("function %s(%s) does not exist", function,
						format_type_be(argument_type));
	if (eq_schema_aclcheck(get_func_namespace(oid), owner, ACL_USAGE) !=
			ACLCHECK_OK ||
		eq_function_aclcheck(oid, owner, ACL_EXECUTE) != ACLCHECK_OK)
		return psprintf("role \"%s\" may not call function %s",
						GetUserNameFromId(owner, false), function);
	return NULL;
}

/* The function that eq_require_callable refused last; empty: none since eq_refused_call. */
static const char *refused_kind; /* of fault */
static char refused[EQ_MAX_NAME + NAMEDATALEN + 32] = "";

static void
refuse_call(const char *kind, const char *label, const char *why)
{
	if (why == NULL)
		return;
	refused_kind = kind;
	strlcpy(refused, label, sizeof(refused));
	ereport(
		ERROR,
		(errcode(ERRCODE_EQ_NOT_CALLABLE), errmsg_internal("%s", why),
		 errhint(
			 "The function existed when it was named: create it again, or name another one.  Jobs wait until then.")));
}

/*
 * EQ041 if the function can't be called, which is no fault of the job at hand:
 * eq_refused_call then says so (users' code may raise the same code).  Returns it.
 */
Oid
eq_require_callable(const char *kind, const char *label, Oid owner,
					const char *function, Oid argument_type)
{
	Oid found = InvalidOid;

	refuse_call(kind, label,
				why_not_callable(owner, function, argument_type, &found));
	return found;
}

/* EQ041, likewise, if the owner is out of service. */
void
eq_require_owner(const char *kind, const char *label, Oid owner)
{
	refuse_call(kind, label, eq_why_owner_is_out(owner));
}

const char *
eq_refused_call(const char **kind)
{
	char *label = refused[0] != '\0' ? pstrdup(refused) : NULL;

	*kind = refused_kind;
	refused[0] = '\0';
	return label;
}

/* The schema of a stored function, quoted. */
const char *
eq_function_schema(const char *function)
{
	List *parts;

	if (!SplitIdentifierString(pstrdup(function), '.', &parts) || parts == NIL)
		ereport(ERROR, (errcode(ERRCODE_INVALID_NAME),
						errmsg("invalid function name \"%s\"", function)));
	return quote_identifier(linitial(parts));
}

#define MAX_PLANS  200
#define MAX_STORED (2 * (2 * NAMEDATALEN + 2) + 2) /* a quoted, qualified name */

/* How a function is called; planning that takes as long as a short function runs. */
typedef struct KeptCall
{
	struct
	{
		char function[MAX_STORED];
		Oid argument_type;
	} key;
	SPIPlanPtr plan;
} KeptCall;

static HTAB *kept_calls = NULL;
static int calls_under_way = 0; /* their plans are in use: one may call another */

static void
forget_calls(void)
{
	HASH_SEQ_STATUS status;
	KeptCall *call;

	hash_seq_init(&status, kept_calls);
	while ((call = hash_seq_search(&status)) != NULL)
		(void) SPI_freeplan(call->plan);
	hash_destroy(kept_calls);
	kept_calls = NULL;
}

/* Between SPI_connect and SPI_finish: SELECT function($1). */
static SPIPlanPtr
plan_of_call(const char *function, Oid argument_type)
{
	bool fits = strlen(function) < MAX_STORED;
	KeptCall wanted = {0};
	KeptCall *call = NULL;
	SPIPlanPtr plan;

	strlcpy(wanted.key.function, function, sizeof(wanted.key.function));
	wanted.key.argument_type = argument_type;
	if (fits && kept_calls)
		call = hash_search(kept_calls, &wanted.key, HASH_FIND, NULL);
	if (call)
		return call->plan;
	if (kept_calls && hash_get_num_entries(kept_calls) >= MAX_PLANS)
	{
		if (calls_under_way == 0)
			forget_calls();
		else
			fits = false;
	}
	if (kept_calls == NULL)
	{
		HASHCTL control = {.keysize = sizeof(wanted.key),
						   .entrysize = sizeof(KeptCall)};

		kept_calls = hash_create("event_queue calls", 32, &control,
								 HASH_ELEM | HASH_BLOBS);
	}
	plan = SPI_prepare(psprintf("SELECT %s($1)", function), 1, &argument_type);
	if (plan == NULL)
		elog(ERROR, "could not prepare a call of %s: %s", function,
			 SPI_result_code_string(SPI_result));
	if (fits && SPI_keepplan(plan) == 0)
	{
		call = hash_search(kept_calls, &wanted.key, HASH_ENTER, NULL);
		call->plan = plan;
	}
	return plan;
}

/* Executes a kept plan; forget_calls frees no plans while calls are under way. */
static void
run_call(SPIPlanPtr plan, Datum argument)
{
	calls_under_way++;
	PG_TRY();
	{
		int code = SPI_execute_plan(plan, &argument, NULL, false, 0);

		if (code != SPI_OK_SELECT)
			elog(ERROR, "could not make a call: %s", SPI_result_code_string(code));
	}
	PG_CATCH();
	{
		calls_under_way--;
		PG_RE_THROW();
	}
	PG_END_TRY();
	calls_under_way--;
}

/*
 * Calls a stored function by its qualified name, as the present role.  Its
 * result if that is jsonb, else NULL; in the caller's memory.
 */
Jsonb *
eq_call_function(const char *function, Oid argument_type, Datum argument)
{
	MemoryContext context = CurrentMemoryContext;
	bool other_signature;
	Jsonb *result = NULL;

	if (!OidIsValid(look_up(function, 1, &argument_type, &other_signature)))
		ereport(
			ERROR,
			(errcode(other_signature ? ERRCODE_EQ_WRONG_SIGNATURE
									 : ERRCODE_EQ_UNKNOWN_FUNCTION),
			 errmsg("function %s(%s) does not exist", function,
					format_type_be(argument_type)),
			 errhint(
				 "The function existed when it was named: create it again, or name another one.")));

	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	run_call(plan_of_call(function, argument_type), argument);
	if (SPI_processed == 1 && SPI_gettypeid(SPI_tuptable->tupdesc, 1) == JSONBOID)
	{
		bool isnull;
		Datum value = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1,
									&isnull);

		if (!isnull)
		{
			MemoryContext spi_context = MemoryContextSwitchTo(context);

			result = DatumGetJsonbPCopy(value);
			MemoryContextSwitchTo(spi_context);
		}
	}
	SPI_finish();
	return result;
}
