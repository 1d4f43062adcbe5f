/*
 * merge.c: RFC 7396, JSON Merge Patch: the reducer of aggregates that have none
 * of their own.
 *
 * An object is merged member by member, null removes a member, and anything
 * else replaces what was there.
 */
#include "postgres.h"

#include "fmgr.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"

#include "store/state.h"
#include "update/version.h"

PG_FUNCTION_INFO_V1(eq_merge_patch_sql);

static JsonbContainer *
as_object(JsonbValue *value)
{
	return value && value->type == jbvBinary &&
				   JsonContainerIsObject(value->val.binary.data)
			   ? value->val.binary.data
			   : NULL;
}

/* Pushes the object that patch makes of target, which may be NULL. */
static JsonbValue *
push_merged(JsonbParseState **state, JsonbContainer *target, JsonbContainer *patch)
{
	JsonbIterator *it;
	JsonbValue key;
	JsonbValue value;
	JsonbValue buffer;

	check_stack_depth();
	pushJsonbValue(state, WJB_BEGIN_OBJECT, NULL);

	/* What the patch does not name stays. */
	it = target ? JsonbIteratorInit(target) : NULL;
	if (it)
		(void) JsonbIteratorNext(&it, &key, true);
	while (it && JsonbIteratorNext(&it, &key, true) == WJB_KEY)
	{
		(void) JsonbIteratorNext(&it, &value, true);
		if (getKeyJsonValueFromContainer(patch, key.val.string.val,
										 key.val.string.len, &buffer))
			continue;
		pushJsonbValue(state, WJB_KEY, &key);
		pushJsonbValue(state, WJB_VALUE, &value);
	}

	it = JsonbIteratorInit(patch);
	(void) JsonbIteratorNext(&it, &key, true);
	while (JsonbIteratorNext(&it, &key, true) == WJB_KEY)
	{
		JsonbContainer *object;

		(void) JsonbIteratorNext(&it, &value, true);
		if (value.type == jbvNull)
			continue;
		pushJsonbValue(state, WJB_KEY, &key);
		object = as_object(&value);
		if (object)
			push_merged(state,
						target ? as_object(getKeyJsonValueFromContainer(
									 target, key.val.string.val, key.val.string.len,
									 &buffer))
							   : NULL,
						object);
		else
			pushJsonbValue(state, WJB_VALUE, &value);
	}
	return pushJsonbValue(state, WJB_END_OBJECT, NULL);
}

Jsonb *
eq_merge_patch(Jsonb *target, Jsonb *patch)
{
	JsonbParseState *state = NULL;

	if (!JB_ROOT_IS_OBJECT(patch))
		return patch;
	return JsonbValueToJsonb(push_merged(
		&state, JB_ROOT_IS_OBJECT(target) ? &target->root : NULL, &patch->root));
}

Datum
eq_merge_patch_sql(PG_FUNCTION_ARGS)
{
	PG_RETURN_JSONB_P(eq_merge_patch(PG_GETARG_JSONB_P(0), PG_GETARG_JSONB_P(1)));
}
