/*
 * row_json.c: rows of users' tables as JSON, for the events of rules on tables.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/transam.h"
#include "catalog/pg_type.h"
#include "executor/executor.h"
#include "funcapi.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/jsonb.h"
#include "utils/lsyscache.h"

#include "common/json.h"
#include "common/try.h"
#include "compat.h"
#include "rules/rules.h"

/*
 * May values of the row be names, whose schema is written only if search_path lacks it?  Those
 * of the types regclass, regtype and their like, also in arrays and composite types.
 */
static bool
has_names(TupleDesc desc)
{
	for (int i = 0; i < desc->natts; i++)
	{
		Oid type = TupleDescAttr(desc, i)->atttypid;

		if (type >= FirstNormalObjectId)
		{
			Oid element = get_base_element_type(type);

			type = getBaseType(OidIsValid(element) ? element : type);
			if (get_typtype(type) == TYPTYPE_COMPOSITE)
				return true;
		}
		else if (get_element_type(type) != InvalidOid)
			type = get_element_type(type);
		if (type == REGPROCOID || (type >= REGPROCEDUREOID && type <= REGTYPEOID) ||
			type == REGCONFIGOID || type == REGDICTIONARYOID ||
			type == REGCOLLATIONOID || type == RECORDOID)
			return true;
	}
	return false;
}

/*
 * Has values written in one way, whatever the session that changes the row has set: else
 * an equal value looks changed, or a changed one equal (extra_float_digits), and a row has
 * another key in each time zone.  Money alone is as lc_monetary says.  Undone by
 * AtEOXact_GUC of the result.  search_path, which takes longer, where names may be.
 */
static int
pin_output(TupleDesc desc)
{
	static const struct
	{
		const char *name;
		const char *value;
	} pinned[] = {{"DateStyle", "ISO, MDY"},
				  {"IntervalStyle", "postgres"},
				  {"TimeZone", "UTC"},
				  {"bytea_output", "hex"},
				  {"extra_float_digits", "1"},
				  {"quote_all_identifiers", "off"},
				  {"search_path", "pg_catalog, pg_temp"}};
	int n = lengthof(pinned) - (has_names(desc) ? 0 : 1);
	int level = NewGUCNestLevel();

	for (int i = 0; i < n; i++)
	{
		if (strcmp(GetConfigOption(pinned[i].name, false, false), pinned[i].value) !=
			0)
			(void) set_config_option(pinned[i].name, pinned[i].value, PGC_USERSET,
									 PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
	}
	return level;
}

/* A row, and what it is as JSON. */
typedef struct Conversion
{
	HeapTuple row;
	TupleDesc desc;
	Jsonb *json; /* out */
} Conversion;

static void
convert(void *argument)
{
	Conversion *this = argument;

	this->json = eq_json_from(TextDatumGetCString(DirectFunctionCall1(
		row_to_json, heap_copy_tuple_as_datum(this->row, this->desc))));
}

/* Converts a row to JSON; false if jsonb can't represent it. */
static bool
try_to_convert(Conversion *this)
{
	ErrorData *error = eq_try(convert, this);

	if (error && eq_is_of_transaction(error))
		ReThrowError(error);
	return error == NULL;
}

/* Makes a row of one column of a row. */
static Conversion
column_alone(HeapTuple row, TupleDesc desc, AttrNumber attnum)
{
	Conversion alone = {.desc = CreateTemplateTupleDesc(1)};
	bool isnull;
	Datum value = heap_getattr(row, attnum, desc, &isnull);

	TupleDescCopyEntry(alone.desc, 1, desc, attnum);
	alone.row = heap_form_tuple(BlessTupleDesc(alone.desc), &value, &isnull);
	return alone;
}

/*
 * A row as JSON; NULL if there is none.  What jsonb can't have, as json with \u0000 in it,
 * must not keep its writer from writing it: that column is left out.  So are virtual
 * generated columns, of which the row has no value.
 */
static Jsonb *
convert_row(HeapTuple row, TupleDesc desc, const char **left_out)
{
	Conversion whole = {.row = row, .desc = desc};

	if (row == NULL)
		return NULL;
	if (!EQ_HAS_VIRTUAL(desc) && try_to_convert(&whole))
		return whole.json;
	whole.json = eq_empty_object();
	for (int i = 0; i < desc->natts; i++)
	{
		Conversion alone;

		if (TupleDescAttr(desc, i)->attisdropped ||
			EQ_IS_VIRTUAL(TupleDescAttr(desc, i)))
			continue;
		alone = column_alone(row, desc, i + 1);
		if (try_to_convert(&alone))
			whole.json = DatumGetJsonbP(
				DirectFunctionCall2(jsonb_concat, JsonbPGetDatum(whole.json),
									JsonbPGetDatum(alone.json)));
		else
			*left_out = NameStr(TupleDescAttr(desc, i)->attname);
	}
	return whole.json;
}

/*
 * A row as JSON, NULL for none.  What jsonb can't represent is left out: a column, whose name
 * is put into left_out.
 */
Jsonb *
eq_row_as_json(HeapTuple row, TupleDesc desc, const char **left_out)
{
	int level = pin_output(desc);
	Jsonb *json = convert_row(row, desc, left_out);

	AtEOXact_GUC(false, level);
	return json;
}
