/*
 * template.c: payload and options templates, filled from an event.
 *
 * A string of a template that starts with "$." is a JSON path into the event, and the
 * value that it finds takes its place.  In any other string {{a.b.0}} stands for the
 * text of that member; {{{{ is two braces.  Strings are filled at any depth, names of
 * members are not.  What comes from the event is a value: it is not read as a template
 * again, and no SQL is made of it.
 */
#include "postgres.h"

#include "fmgr.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"

#include "common/json.h"
#include "event_queue.h"
#include "rules/rules.h"

PG_FUNCTION_INFO_V1(eq_map_payload);

/* Members of the object that event_as_json returns. */
static const char *const event_members[] = {
	"position", "id",		  "tenant_id", "aggregate_type", "aggregate_id",
	"version",	"event_type", "data",	   "metadata",		 "created_at"};

static void
invalid_reference(const char *what, const char *detail, const char *text, int len)
{
	ereport(
		ERROR,
		(errcode(ERRCODE_EQ_INVALID_TEMPLATE),
		 errmsg("%s has an invalid reference", what),
		 errdetail("%s: %s", detail, pnstrdup(text, Min(len, 200))),
		 errhint(
			 "A reference is a member of the event, such as {{aggregate_id}} or {{data.items.0.sku}}; {{{{ is two braces.")));
}

/*
 * One step into a value: a member of an object, or of an array the element of that
 * number, from 0.  NULL: there is none.  After the name comes what is no digit.
 */
static JsonbValue *
member_of(JsonbValue *value, const char *name, int len)
{
	JsonbContainer *container;

	if (value->type != jbvBinary)
		return NULL;
	container = value->val.binary.data;
	if (JsonContainerIsObject(container))
		return getKeyJsonValueFromContainer(container, name, len, NULL);
	if (JsonContainerIsArray(container) && !JsonContainerIsScalar(container) &&
		len < 10 && strspn(name, "0123456789") >= (size_t) len)
		return getIthJsonbValueFromContainer(container, strtoul(name, NULL, 10));
	return NULL;
}

/* The value at a path such as data.items.0.sku; NULL if there is none. */
static JsonbValue *
value_at(JsonbValue *event, const char *path, int len)
{
	const char *end = path + len;
	JsonbValue *value = event;

	while (value != NULL && path < end)
	{
		const char *dot = memchr(path, '.', end - path);
		const char *stop = dot ? dot : end;

		value = member_of(value, path, stop - path);
		path = stop + 1;
	}
	return value;
}

/* A value as text: strings as they are, null as nothing, the rest as JSON. */
static void
append_value(StringInfo text, JsonbValue *value)
{
	if (value == NULL || value->type == jbvNull)
		return;
	if (value->type == jbvString)
		appendBinaryStringInfo(text, value->val.string.val, value->val.string.len);
	else
	{
		Jsonb *json = JsonbValueToJsonb(value);

		(void) JsonbToCString(text, &json->root, VARSIZE(json));
	}
}

/* EQ024 unless it is names with dots between, of which the first is an event's. */
static void
check_path(const char *what, const char *path, int len)
{
	const char *dot = memchr(path, '.', len);
	int first = dot ? dot - path : len;

	if (len == 0 || path[0] == '.' || path[len - 1] == '.')
		invalid_reference(what, "A name is missing", path, len);
	for (int i = 1; i < len; i++)
	{
		if (path[i] == '.' && path[i - 1] == '.')
			invalid_reference(what, "A name is missing", path, len);
	}
	for (int i = 0; i < lengthof(event_members); i++)
	{
		if (strlen(event_members[i]) == (size_t) first &&
			strncmp(event_members[i], path, first) == 0)
			return;
	}
	invalid_reference(what, "An event has no such member", path, len);
}

/*
 * Fills a string with braces.  event NULL: it is only checked.
 */
static void
fill_text(const char *what, StringInfo text, const char *at, int len,
		  JsonbValue *event)
{
	const char *end = at + len;

	while (at < end)
	{
		const char *brace = at;
		const char *close;

		while (brace < end && !(end - brace >= 2 && strncmp(brace, "{{", 2) == 0))
			brace++;
		appendBinaryStringInfo(text, at, brace - at);
		if (brace == end)
			return;
		at = brace + 2;
		if (end - at >= 2 && strncmp(at, "{{", 2) == 0)
		{
			appendStringInfoString(text, "{{");
			at += 2;
			continue;
		}
		for (close = at; close < end; close++)
		{
			if (end - close >= 2 && strncmp(close, "}}", 2) == 0)
				break;
		}
		if (close == end)
			invalid_reference(what, "}} is missing", brace, end - brace);
		brace = close;
		while (at < brace && *at == ' ')
			at++;
		while (brace > at && brace[-1] == ' ')
			brace--;
		check_path(what, at, brace - at);
		if (event)
			append_value(text, value_at(event, at, brace - at));
		at = close + 2;
	}
}

/* What a JSON path finds first in the event; null if nothing. */
static void
find_path(JsonbValue *string, Jsonb *event)
{
	LOCAL_FCINFO(call, 4);
	char *path = pnstrdup(string->val.string.val, string->val.string.len);
	Jsonb *found;

	string->type = jbvNull;
	if (event == NULL)
		return;
	InitFunctionCallInfoData(*call, NULL, 4, InvalidOid, NULL, NULL);
	call->args[0].value = JsonbPGetDatum(event);
	call->args[1].value = DirectFunctionCall1(jsonpath_in, CStringGetDatum(path));
	call->args[2].value = JsonbPGetDatum(eq_empty_object());
	call->args[3].value = BoolGetDatum(false);
	for (int i = 0; i < 4; i++)
		call->args[i].isnull = false;
	found = (Jsonb *) DatumGetPointer(jsonb_path_query_first(call));
	if (call->isnull)
		return;
	if (JB_ROOT_IS_SCALAR(found))
		(void) JsonbExtractScalar(&found->root, string);
	else
	{
		string->type = jbvBinary;
		string->val.binary.data = &found->root;
		string->val.binary.len = VARSIZE(found) - VARHDRSZ;
	}
}

static void
fill_string(JsonbValue *string, Jsonb *event)
{
	JsonbValue root = {.type = jbvNull};
	StringInfoData text;

	if (eq_json_is_path(string))
	{
		find_path(string, event);
		return;
	}
	if (event)
	{
		root.type = jbvBinary;
		root.val.binary.data = &event->root;
		root.val.binary.len = VARSIZE(event) - VARHDRSZ;
	}
	initStringInfo(&text);
	fill_text("template", &text, string->val.string.val, string->val.string.len,
			  &root);
	string->val.string.val = text.data;
	string->val.string.len = text.len;
}

Datum
eq_map_payload(PG_FUNCTION_ARGS)
{
	Jsonb *event = PG_ARGISNULL(1) ? NULL : PG_GETARG_JSONB_P(1);
	Jsonb *template;
	JsonbIterator *it;
	JsonbValue value;
	JsonbIteratorToken token;
	JsonbParseState *state = NULL;
	JsonbValue *filled = NULL;

	if (PG_ARGISNULL(0))
	{
		if (event == NULL)
			PG_RETURN_NULL();
		PG_RETURN_JSONB_P(event);
	}
	template = PG_GETARG_JSONB_P(0);
	if (!JB_ROOT_IS_OBJECT(template))
		ereport(ERROR, (errcode(ERRCODE_EQ_INVALID_TEMPLATE),
						errmsg("template must be a JSON object")));
	it = JsonbIteratorInit(&template->root);
	while ((token = JsonbIteratorNext(&it, &value, false)) != WJB_DONE)
	{
		CHECK_FOR_INTERRUPTS();
		if ((token == WJB_VALUE || token == WJB_ELEM) && value.type == jbvString)
			fill_string(&value, event);
		if (token == WJB_KEY || token == WJB_VALUE || token == WJB_ELEM)
			filled = pushJsonbValue(&state, token, &value);
		else
			filled = pushJsonbValue(&state, token, NULL);
	}
	PG_RETURN_JSONB_P(JsonbValueToJsonb(filled));
}

/* EQ024 unless the template is an object whose strings can be filled. */
void
eq_check_template(const char *what, Jsonb *template)
{
	MemoryContext context = CurrentMemoryContext;
	JsonbIterator *it;
	JsonbValue value;
	JsonbIteratorToken token;

	if (!JB_ROOT_IS_OBJECT(template))
		ereport(ERROR, (errcode(ERRCODE_EQ_INVALID_TEMPLATE),
						errmsg("%s must be a JSON object", what)));
	it = JsonbIteratorInit(&template->root);
	while ((token = JsonbIteratorNext(&it, &value, false)) != WJB_DONE)
	{
		StringInfoData text;
		char *path;

		if ((token != WJB_VALUE && token != WJB_ELEM) || value.type != jbvString)
			continue;
		if (!eq_json_is_path(&value))
		{
			initStringInfo(&text);
			fill_text(what, &text, value.val.string.val, value.val.string.len, NULL);
			continue;
		}
		path = pnstrdup(value.val.string.val, value.val.string.len);
		PG_TRY();
		{
			(void) DirectFunctionCall1(jsonpath_in, CStringGetDatum(path));
		}
		PG_CATCH();
		{
			MemoryContextSwitchTo(context);
			FlushErrorState();
			ereport(ERROR, (errcode(ERRCODE_EQ_INVALID_TEMPLATE),
							errmsg("%s has an invalid JSON path", what),
							errdetail("Path: %s", path)));
		}
		PG_END_TRY();
	}
}
