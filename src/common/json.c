/*
 * json.c: reads JSON that users pass, and builds the JSON that is stored.
 */
#include "postgres.h"

#include "fmgr.h"
#include "mb/pg_wchar.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/numeric.h"

#include "common/json.h"
#include "errors.h"

/*
 * A member of an object; NULL if there is none, or if it is no object.  The server's
 * own look-up takes for granted that it is given an object: an array is read beyond
 * its end.
 */
JsonbValue *
eq_json_member(const Jsonb *json, const char *key, JsonbValue *buffer)
{
	if (json == NULL || !JB_ROOT_IS_OBJECT(json))
		return NULL;
	return getKeyJsonValueFromContainer((JsonbContainer *) &json->root, key,
										strlen(key), buffer);
}

/* A string's text, palloc'd; NULL if the value is missing or no string. */
char *
eq_json_string(const JsonbValue *value)
{
	if (value == NULL || value->type != jbvString)
		return NULL;
	return pnstrdup(value->val.string.val, value->val.string.len);
}

/* False if the value is missing or no number; 22003 if int64 can't hold it. */
bool
eq_json_int64(const JsonbValue *value, int64 *number)
{
	if (value == NULL || value->type != jbvNumeric)
		return false;
	*number = DatumGetInt64(
		DirectFunctionCall1(numeric_int8, NumericGetDatum(value->val.numeric)));
	return true;
}

/* Is it a template's JSON path, whose value is to come from an event? */
bool
eq_json_is_path(const JsonbValue *value)
{
	return value->type == jbvString && value->val.string.len >= 2 &&
		   strncmp(value->val.string.val, "$.", 2) == 0;
}

/* Is it a string that refers to members of an event, in double braces? */
bool
eq_json_has_reference(const JsonbValue *value)
{
	if (value->type != jbvString)
		return false;
	for (int i = 0; i + 1 < value->val.string.len; i++)
	{
		if (strncmp(value->val.string.val + i, "{{", 2) == 0)
			return true;
	}
	return false;
}

/* As eq_json_int64, but false instead of an error if int64 can't hold the number. */
bool
eq_json_fits_int64(const JsonbValue *value, int64 *number)
{
	Datum least = DirectFunctionCall1(int8_numeric, Int64GetDatum(PG_INT64_MIN));
	Datum most = DirectFunctionCall1(int8_numeric, Int64GetDatum(PG_INT64_MAX));
	Datum numeric;

	if (value == NULL || value->type != jbvNumeric)
		return false;
	numeric = NumericGetDatum(value->val.numeric);
	if (DatumGetBool(DirectFunctionCall2(numeric_lt, numeric, least)) ||
		DatumGetBool(DirectFunctionCall2(numeric_gt, numeric, most)))
		return false;
	return eq_json_int64(value, number);
}

/* {}, in memory that lives as long as the session. */
Jsonb *
eq_empty_object(void)
{
	static Jsonb *empty = NULL;

	if (empty == NULL)
	{
		MemoryContext old = MemoryContextSwitchTo(TopMemoryContext);

		empty = eq_json_from("{}");
		MemoryContextSwitchTo(old);
	}
	return empty;
}

/* Parses JSON text. */
Jsonb *
eq_json_from(const char *text)
{
	return DatumGetJsonbP(DirectFunctionCall1(jsonb_in, CStringGetDatum(text)));
}

static void
add_key(JsonbParseState **state, const char *key)
{
	JsonbValue value = {.type = jbvString};

	value.val.string.val = unconstify(char *, key);
	value.val.string.len = strlen(key);
	pushJsonbValue(state, WJB_KEY, &value);
}

/* Adds a text, cut to max_bytes if that is not 0; or null. */
void
eq_json_add_string(JsonbParseState **state, const char *key, const char *text,
				   int max_bytes)
{
	JsonbValue value = {.type = jbvNull};

	add_key(state, key);
	if (text != NULL)
	{
		int length = strlen(text);

		value.type = jbvString;
		value.val.string.val = unconstify(char *, text);
		value.val.string.len = max_bytes > 0 ? pg_mbcliplen(text, length, max_bytes)
											 : length;
	}
	pushJsonbValue(state, WJB_VALUE, &value);
}

/* Adds a number. */
void
eq_json_add_int64(JsonbParseState **state, const char *key, int64 number)
{
	JsonbValue value = {.type = jbvNumeric};

	add_key(state, key);
	value.val.numeric = int64_to_numeric(number);
	pushJsonbValue(state, WJB_VALUE, &value);
}

/* Adds an array or an object. */
void
eq_json_add_jsonb(JsonbParseState **state, const char *key, Jsonb *json)
{
	JsonbValue value = {.type = jbvBinary};

	add_key(state, key);
	value.val.binary.data = &json->root;
	value.val.binary.len = VARSIZE(json) - VARHDRSZ;
	pushJsonbValue(state, WJB_VALUE, &value);
}

/* A member of a JSON object that must be a string, or absent. */
char *
eq_json_string_member(JsonbContainer *object, const char *key)
{
	JsonbValue buffer;
	JsonbValue *value = getKeyJsonValueFromContainer(object, key, strlen(key),
													 &buffer);

	if (value == NULL || value->type == jbvNull)
		return NULL;
	if (value->type != jbvString)
		ereport(ERROR, (errcode(ERRCODE_EQ_INVALID_ARGUMENT),
						errmsg("\"%s\" must be a string", key)));
	return eq_json_string(value);
}

/* A member of a JSON object; NULL if it is absent or null. */
Jsonb *
eq_json_jsonb_member(JsonbContainer *object, const char *key)
{
	JsonbValue buffer;
	JsonbValue *value = getKeyJsonValueFromContainer(object, key, strlen(key),
													 &buffer);

	return value && value->type != jbvNull ? JsonbValueToJsonb(value) : NULL;
}

/* EQ009 if the object has a member that is none of the names. */
void
eq_json_check_members(JsonbContainer *object, const char *what,
					  const char *const *names)
{
	JsonbIterator *it = JsonbIteratorInit(object);
	JsonbIteratorToken token;
	JsonbValue value;

	while ((token = JsonbIteratorNext(&it, &value, true)) != WJB_DONE)
	{
		bool known = false;

		if (token != WJB_KEY)
			continue;
		for (const char *const *name = names; *name && !known; name++)
			known = strlen(*name) == value.val.string.len &&
					memcmp(*name, value.val.string.val, value.val.string.len) == 0;
		if (!known)
			ereport(ERROR, (errcode(ERRCODE_EQ_INVALID_ARGUMENT),
							errmsg("%s has an unknown member \"%.*s\"", what,
								   value.val.string.len, value.val.string.val)));
	}
}

/* The object without a member. */
Jsonb *
eq_json_without(Jsonb *object, const char *key)
{
	return DatumGetJsonbP(DirectFunctionCall2(jsonb_delete, JsonbPGetDatum(object),
											  CStringGetTextDatum(key)));
}
