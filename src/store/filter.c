/*
 * filter.c: filters events by type pattern, aggregate type, tenant and content, for readers,
 * subscriptions and replay.
 */
#include "postgres.h"

#include "fmgr.h"
#include "utils/builtins.h"

#include "common/argument.h"
#include "common/json.h"
#include "common/pattern.h"
#include "store/store.h"
#include "table/table.h"
#include "tenant/tenant.h"

PG_FUNCTION_INFO_V1(eq_check_filter);

static char *
string_of(const JsonbValue *value, const char *key)
{
	char *text = eq_json_string(value);

	if (text == NULL)
		ereport(ERROR, (errcode(ERRCODE_EQ_INVALID_ARGUMENT),
						errmsg("\"%s\" of a filter must be a string", key)));
	eq_check_name(key, text, EQ_MAX_NAME);
	return text;
}

/*
 * Reads {"event_type": pattern, "aggregate_type": ..., "tenant_id": ...,
 * "data": {...}}; a filter of NULL wants all that the session may see.
 */
void
eq_parse_filter(EqFilter *filter, Jsonb *json)
{
	JsonbIterator *it;
	JsonbIteratorToken token;
	JsonbValue key;
	JsonbValue value;

	memset(filter, 0, sizeof(EqFilter));
	filter->tenant = eq_confined_tenant();
	if (json == NULL)
		return;
	if (!JB_ROOT_IS_OBJECT(json))
		ereport(ERROR, (errcode(ERRCODE_EQ_INVALID_ARGUMENT),
						errmsg("filter must be a JSON object")));
	it = JsonbIteratorInit(&json->root);
	(void) JsonbIteratorNext(&it, &key, true);
	while ((token = JsonbIteratorNext(&it, &key, true)) == WJB_KEY)
	{
		char *name = pnstrdup(key.val.string.val, key.val.string.len);

		(void) JsonbIteratorNext(&it, &value, true);
		if (value.type == jbvNull)
			continue;
		if (strcmp(name, "event_type") == 0)
		{
			filter->pattern = string_of(&value, name);
			eq_check_pattern(filter->pattern);
		}
		else if (strcmp(name, "aggregate_type") == 0)
			filter->aggregate_type = string_of(&value, name);
		else if (strcmp(name, "tenant_id") == 0)
			filter->tenant = eq_resolve_tenant(string_of(&value, name));
		else if (strcmp(name, "data") == 0)
			filter->data = JsonbValueToJsonb(&value);
		else
			ereport(
				ERROR,
				(errcode(ERRCODE_EQ_INVALID_ARGUMENT),
				 errmsg("filter has an unknown member \"%s\"", name),
				 errhint(
					 "It may have event_type (a pattern), aggregate_type, tenant_id and data.")));
	}
}

static bool
contains(Jsonb *whole, Jsonb *part)
{
	JsonbIterator *it_whole;
	JsonbIterator *it_part;

	if (JB_ROOT_IS_OBJECT(whole) != JB_ROOT_IS_OBJECT(part))
		return false;
	it_whole = JsonbIteratorInit(&whole->root);
	it_part = JsonbIteratorInit(&part->root);
	return JsonbDeepContains(&it_whole, &it_part);
}

/* Does a row of event_store pass?  A NULL filter lets all pass. */
bool
eq_filter_matches(const EqFilter *filter, TupleTableSlot *slot)
{
	bool isnull;

	if (filter == NULL)
		return true;
	if (filter->tenant &&
		!eq_text_is(slot_getattr(slot, EVENT_TENANT, &isnull), filter->tenant))
		return false;
	if (filter->aggregate_type &&
		!eq_text_is(slot_getattr(slot, EVENT_AGGREGATE_TYPE, &isnull),
					filter->aggregate_type))
		return false;
	if (filter->pattern)
	{
		char *type = TextDatumGetCString(slot_getattr(slot, EVENT_TYPE, &isnull));
		bool matches = eq_pattern_matches(type, filter->pattern);

		pfree(type);
		if (!matches)
			return false;
	}
	return filter->data == NULL ||
		   contains(DatumGetJsonbP(slot_getattr(slot, EVENT_DATA, &isnull)),
					filter->data);
}

/* Returns the filter, or raises what is wrong with it. */
Datum
eq_check_filter(PG_FUNCTION_ARGS)
{
	EqFilter filter;

	eq_parse_filter(&filter, PG_GETARG_JSONB_P(0));
	PG_RETURN_DATUM(PG_GETARG_DATUM(0));
}
