/*
 * handled.c: records which code ran a job, for history, errors, steps and trace().
 *
 * A handler's version is that of create_handler, which counts its changes, and a hash of
 * the source of the function and of those that it calls (store/fingerprint.c), since CREATE
 * OR REPLACE FUNCTION does not go through create_handler.  The caller of a handler sets it
 * (eq_note_handler) before the call and resets it when the jobs are settled; what writes
 * a row of a job in between reads it here.  Jobs of workers outside the database have none.
 *
 * The text is built once per version and cached in the session: a job costs one hash
 * look-up.
 */
#include "postgres.h"

#include "catalog/namespace.h"
#include "catalog/pg_proc.h"
#include "fmgr.h"
#include "utils/builtins.h"
#include "utils/hsearch.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/syscache.h"
#include "utils/varlena.h"

#include "common/function.h"
#include "common/json.h"
#include "queue/queue.h"
#include "store/store.h"

PG_FUNCTION_INFO_V1(eq_handler_code);

#define MAX_KEPT 500

typedef struct Handled
{
	struct
	{
		Oid function;
		int32 version;
		uint64 code;
	} key;
	char *name;
	Jsonb *json;
} Handled;

static HTAB *kept = NULL;
static MemoryContext kept_context = NULL;
static Jsonb *present = NULL;

static char *
code_text(uint64 code)
{
	return psprintf("%016llx", (unsigned long long) code);
}

static Jsonb *
describe(const char *name, int32 version, uint64 code)
{
	JsonbParseState *state = NULL;

	pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	eq_json_add_string(&state, "function", name, 0);
	if (version > 0)
		eq_json_add_int64(&state, "version", version);
	eq_json_add_string(&state, "code", code_text(code), 0);
	return JsonbValueToJsonb(pushJsonbValue(&state, WJB_END_OBJECT, NULL));
}

/* Empties the cache when old versions fill it. */
static void
make_room(void)
{
	HASHCTL control = {.keysize = sizeof(((Handled *) 0)->key),
					   .entrysize = sizeof(Handled)};

	if (kept && hash_get_num_entries(kept) < MAX_KEPT)
		return;
	present = NULL;
	if (kept_context == NULL)
		kept_context = AllocSetContextCreate(TopMemoryContext, "event_queue handled",
											 ALLOCSET_SMALL_SIZES);
	kept = NULL;
	MemoryContextReset(kept_context);
	control.hcxt = kept_context;
	kept = hash_create("event_queue handled", 16, &control,
					   HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
}

/*
 * Notes that this function is called: until eq_forget_handler jobs are settled as run
 * by it.  version: of its handler; 0: it is a rule's, whose version the job has.
 */
void
eq_note_handler(const char *name, Oid function, int32 version)
{
	Handled wanted;
	Handled *entry;

	present = NULL;
	memset(&wanted.key, 0, sizeof(wanted.key));
	wanted.key.function = function;
	wanted.key.version = version;
	wanted.key.code = eq_code_of(function);
	make_room();
	entry = hash_search(kept, &wanted.key, HASH_FIND, NULL);
	if (entry == NULL || strcmp(entry->name, name) != 0)
	{
		MemoryContext old = MemoryContextSwitchTo(kept_context);

		wanted.name = pstrdup(name);
		wanted.json = describe(name, version, wanted.key.code);
		MemoryContextSwitchTo(old);
		entry = hash_search(kept, &wanted.key, HASH_ENTER, NULL);
		entry->name = wanted.name;
		entry->json = wanted.json;
	}
	present = entry->json;
}

void
eq_forget_handler(void)
{
	present = NULL;
}

/* {"function", "version", "code"}; NULL: no handler is known.  Not to be freed. */
Jsonb *
eq_present_handler(void)
{
	return present;
}

/*
 * handler_code(function text, as_array boolean): the code of a stored function as it is
 * now; NULL if it is not there.  Whoever asks needs no right on it.
 */
Datum
eq_handler_code(PG_FUNCTION_ARGS)
{
	List *parts;
	Oid type = eq_claimed_job_type_oid();
	Oid schema;
	Oid function = InvalidOid;

	if (PG_GETARG_BOOL(1))
		type = get_array_type(type);
	if (SplitIdentifierString(text_to_cstring(PG_GETARG_TEXT_PP(0)), '.', &parts) &&
		list_length(parts) == 2)
	{
		schema = get_namespace_oid(linitial(parts), true);
		if (OidIsValid(schema))
			function = GetSysCacheOid3(
				PROCNAMEARGSNSP, Anum_pg_proc_oid, CStringGetDatum(lsecond(parts)),
				PointerGetDatum(buildoidvector(&type, 1)), ObjectIdGetDatum(schema));
	}
	if (!OidIsValid(function))
		PG_RETURN_NULL();
	PG_RETURN_TEXT_P(cstring_to_text(code_text(eq_code_of(function))));
}
