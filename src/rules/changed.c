/*
 * changed.c: evaluates when_changed: does a field of an event differ from its last value?
 *
 * The last value is that of the aggregate's last earlier event that has the field.  An
 * event without the field does not change it; the first event that has it does, even if it
 * is null.  The search goes down the aggregate's index from the event's own version, so
 * that the answer does not depend on when it is computed; archived events are not searched.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/executor.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"

#include "common/json.h"
#include "event_queue.h"
#include "rules/rule.h"
#include "rules/rules.h"
#include "store/store.h"
#include "table/table.h"
#include "tenant/tenant.h"

#define MAX_FIELDS 32

/* EQ009 unless it is a list of names. */
void
eq_check_when_changed(ArrayType *fields)
{
	Datum *names;
	bool *nulls;
	int n;

	deconstruct_array(fields, TEXTOID, -1, false, TYPALIGN_INT, &names, &nulls, &n);
	if (ARR_NDIM(fields) != 1 || n > MAX_FIELDS)
		ereport(ERROR, (errcode(ERRCODE_EQ_INVALID_ARGUMENT),
						errmsg("when_changed must be a list of 1 to %d fields",
							   MAX_FIELDS)));
	for (int i = 0; i < n; i++)
		eq_check_name("field of when_changed",
					  nulls[i] ? NULL : TextDatumGetCString(names[i]), EQ_MAX_NAME);
}

/* Reads names from a rule's row, into the current memory context. */
char **
eq_read_names(Datum list, int *n)
{
	Datum *names;
	bool *nulls;
	char **result;

	deconstruct_array(DatumGetArrayTypePCopy(list), TEXTOID, -1, false, TYPALIGN_INT,
					  &names, &nulls, n);
	result = palloc(Max(*n, 1) * sizeof(char *));
	for (int i = 0; i < *n; i++)
		result[i] = nulls[i] ? pstrdup("") : TextDatumGetCString(names[i]);
	return result;
}

/* The field's value in the event; NULL if it has none. */
static Jsonb *
value_now(Datum event, const char *field)
{
	bool isnull;
	JsonbValue buffer;
	JsonbValue *value = eq_json_member(
		DatumGetJsonbP(
			GetAttributeByNum(DatumGetHeapTupleHeader(event), EVENT_DATA, &isnull)),
		field, &buffer);

	return value ? JsonbValueToJsonb(value) : NULL;
}

/* The field's value in the last event before that had one; NULL if there is none. */
static Jsonb *
value_before(Datum event, const char *field)
{
	static EqStatement look = {
		.sql = "SELECT e.event_data -> $5 FROM event_queue.event_store e"
			   " WHERE e.aggregate_id = $1 AND e.aggregate_type = $2"
			   " AND e.tenant_id = $3 AND e.version < $4"
			   " AND pg_catalog.jsonb_exists(e.event_data, $5)"
			   " ORDER BY e.version DESC LIMIT 1",
		.n_arguments = 5,
		.types = {TEXTOID, TEXTOID, TEXTOID, INT4OID, TEXTOID}};
	static const int columns[] = {EVENT_AGGREGATE_ID, EVENT_AGGREGATE_TYPE,
								  EVENT_TENANT, EVENT_VERSION};
	MemoryContext context = CurrentMemoryContext;
	Datum values[5];
	bool isnull;
	Jsonb *before = NULL;
	EqSpi spi;

	for (int i = 0; i < lengthof(columns); i++)
		values[i] = GetAttributeByNum(DatumGetHeapTupleHeader(event), columns[i],
									  &isnull);
	values[4] = CStringGetTextDatum(field);
	eq_spi_begin(&spi, eq_extension_owner(), SECURITY_LOCAL_USERID_CHANGE);
	eq_spi_run(&look, values, NULL);
	if (SPI_processed == 1)
	{
		Datum found = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1,
									&isnull);
		MemoryContext old = MemoryContextSwitchTo(context);

		if (!isnull)
			before = DatumGetJsonbPCopy(found);
		MemoryContextSwitchTo(old);
	}
	eq_spi_end(&spi);
	return before;
}

/* Tells whether the field has changed, and returns its values (NULL: it had or has none). */
bool
eq_field_changed(Datum event, const char *field, Jsonb **now, Jsonb **before)
{
	*before = NULL;
	*now = value_now(event, field);
	if (*now == NULL)
		return false;
	*before = value_before(event, field);
	return *before == NULL ||
		   compareJsonbContainers(&(*now)->root, &(*before)->root) != 0;
}

/* A member of old or new of a changed row; NULL: none. */
static Jsonb *
member_of_row(Datum event, const char *row, const char *column)
{
	bool isnull;
	JsonbValue row_buffer;
	JsonbValue buffer;
	JsonbValue *value = eq_json_member(
		DatumGetJsonbP(
			GetAttributeByNum(DatumGetHeapTupleHeader(event), EVENT_DATA, &isnull)),
		row, &row_buffer);

	if (value == NULL || value->type != jbvBinary)
		return NULL;
	value = eq_json_member(JsonbValueToJsonb(value), column, &buffer);
	return value ? JsonbValueToJsonb(value) : NULL;
}

/* The same for the event of a changed row; INSERT and DELETE change all columns. */
bool
eq_column_changed(Datum event, const char *column, Jsonb **now, Jsonb **before)
{
	*now = member_of_row(event, "new", column);
	*before = member_of_row(event, "old", column);
	return *now == NULL || *before == NULL ||
		   compareJsonbContainers(&(*now)->root, &(*before)->root) != 0;
}

/*
 * Is the change of a row one that the rule asks for?  The triggers have seen to it, but
 * perhaps for another definition: events that a rule catches up, or meets by a backfill,
 * test_rule or compare_rule, may be older than it.
 */
bool
eq_asks_for_operation(const EqRule *rule, Datum event)
{
	bool isnull;
	JsonbValue buffer;
	JsonbValue *operation = eq_json_member(
		DatumGetJsonbP(
			GetAttributeByNum(DatumGetHeapTupleHeader(event), EVENT_DATA, &isnull)),
		"operation", &buffer);
	char *name = operation && operation->type == jbvString
					 ? eq_json_string(operation)
					 : NULL;

	for (int i = 0; name && i < rule->n_operations; i++)
	{
		if (strcmp(rule->operations[i], name) == 0)
			return true;
	}
	return name == NULL || rule->n_operations == 0;
}

/* Tells whether when_changed lets the rule fire for the event. */
bool
eq_any_changed(const EqRule *rule, Datum event)
{
	Jsonb *now;
	Jsonb *before;

	for (int i = 0; i < rule->n_changing; i++)
	{
		if (rule->on_table
				? eq_column_changed(event, rule->changing[i], &now, &before)
				: eq_field_changed(event, rule->changing[i], &now, &before))
			return true;
	}
	return rule->n_changing == 0;
}
