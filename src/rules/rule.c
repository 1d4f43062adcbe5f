/*
 * rule.c: reads rules from their rows.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/builtins.h"

#include "common/pattern.h"
#include "rules/rule.h"
#include "store/store.h"
#include "table/table.h"

static char *
text_column(HeapTuple row, TupleDesc desc, int column)
{
	return SPI_getvalue(row, desc, column);
}

/* Reads the row at hand into the current memory context. */
void
eq_fill_rule(EqRule *rule, HeapTuple row, TupleDesc desc)
{
	bool isnull;
	Datum value;

	rule->rule_id = DatumGetInt32(SPI_getbinval(row, desc, 1, &isnull));
	rule->name = text_column(row, desc, 2);
	rule->label = psprintf("%s (rule %d)", rule->name, rule->rule_id);
	rule->owner = DatumGetObjectId(SPI_getbinval(row, desc, 3, &isnull));
	rule->tenant = text_column(row, desc, 4);
	rule->pattern = text_column(row, desc, 5);
	rule->condition = text_column(row, desc, 6);
	value = SPI_getbinval(row, desc, 7, &isnull);
	rule->queue_id = isnull ? 0 : DatumGetInt32(value);
	rule->job_name = text_column(row, desc, 8);
	value = SPI_getbinval(row, desc, 9, &isnull);
	rule->payload = isnull ? NULL : DatumGetJsonbPCopy(value);
	value = SPI_getbinval(row, desc, 10, &isnull);
	rule->delay = NULL;
	if (!isnull)
	{
		rule->delay = palloc(sizeof(Interval));
		*rule->delay = *DatumGetIntervalP(value);
	}
	value = SPI_getbinval(row, desc, 11, &isnull);
	rule->priority = isnull ? -1 : DatumGetInt32(value);
	rule->function = text_column(row, desc, 12);
	rule->start_position = DatumGetInt64(SPI_getbinval(row, desc, 13, &isnull));
	value = SPI_getbinval(row, desc, 14, &isnull);
	rule->options = isnull ? NULL : DatumGetJsonbPCopy(value);
	rule->may_repeat = DatumGetBool(SPI_getbinval(row, desc, 15, &isnull));
	value = SPI_getbinval(row, desc, 16, &isnull);
	rule->n_changing = 0;
	if (!isnull)
		rule->changing = eq_read_names(value, &rule->n_changing);
	rule->version = DatumGetInt32(SPI_getbinval(row, desc, 17, &isnull));
	value = SPI_getbinval(row, desc, 18, &isnull);
	rule->n_actions = 0;
	if (!isnull)
		eq_fill_actions(rule, DatumGetJsonbP(value));
	rule->stop = DatumGetBool(SPI_getbinval(row, desc, 19, &isnull));
	rule->on_table = DatumGetBool(SPI_getbinval(row, desc, 20, &isnull));
	value = SPI_getbinval(row, desc, 21, &isnull);
	rule->n_operations = 0;
	if (!isnull)
		rule->operations = eq_read_names(value, &rule->n_operations);
}

/* The rule of this number, in the current memory context; NULL if there is none. */
EqRule *
eq_read_rule(int32 rule_id)
{
	MemoryContext context = CurrentMemoryContext;
	EqSpi spi;
	Oid type = INT4OID;
	Datum value = Int32GetDatum(rule_id);
	EqRule *rule = NULL;

	eq_spi_begin(&spi, eq_extension_owner(), SECURITY_LOCAL_USERID_CHANGE);
	if (SPI_execute_with_args("SELECT " EQ_RULE_COLUMNS
							  " FROM event_queue.rule WHERE rule_id = $1",
							  1, &type, &value, NULL, true, 1) != SPI_OK_SELECT)
		elog(ERROR, "could not read table rule");
	if (SPI_processed == 1)
	{
		MemoryContext old = MemoryContextSwitchTo(context);

		rule = palloc0(sizeof(EqRule));
		eq_fill_rule(rule, SPI_tuptable->vals[0], SPI_tuptable->tupdesc);
		MemoryContextSwitchTo(old);
	}
	eq_spi_end(&spi);
	return rule;
}

/* A rule of a row that may be in no table, in the current memory context. */
EqRule *
eq_rule_of_row(HeapTupleHeader row)
{
	MemoryContext context = CurrentMemoryContext;
	EqSpi spi;
	Oid type = HeapTupleHeaderGetTypeId(row);
	Datum value = PointerGetDatum(row);
	EqRule *rule;
	MemoryContext old;

	eq_spi_begin(&spi, eq_extension_owner(), SECURITY_LOCAL_USERID_CHANGE);
	if (SPI_execute_with_args("SELECT " EQ_RULE_COLUMNS " FROM (SELECT ($1).*) AS r",
							  1, &type, &value, NULL, true, 1) != SPI_OK_SELECT ||
		SPI_processed != 1)
		elog(ERROR, "could not read the row of a rule");
	old = MemoryContextSwitchTo(context);
	rule = palloc0(sizeof(EqRule));
	eq_fill_rule(rule, SPI_tuptable->vals[0], SPI_tuptable->tupdesc);
	MemoryContextSwitchTo(old);
	eq_spi_end(&spi);
	return rule;
}

/*
 * Is the event one of the rule's, by tenant and type?  What triggers of rules on tables
 * append is for the rule that the trigger is of, and for no other.
 */
bool
eq_rule_meets(const EqRule *rule, Datum event)
{
	return (rule->tenant == NULL ||
			strcmp(rule->tenant, eq_event_text(event, EVENT_TENANT)) == 0) &&
		   eq_pattern_matches(eq_event_text(event, EVENT_TYPE), rule->pattern) &&
		   rule->on_table == (strcmp(eq_event_text(event, EVENT_AGGREGATE_TYPE),
									 EQ_TABLE_AGGREGATE) == 0);
}

/* The rules that the active snapshot has, as a number: another one if any is new or was changed. */
int64
eq_mark_of_rules(void)
{
	EqSpi spi;
	bool isnull;
	int64 mark;

	eq_spi_begin(&spi, eq_extension_owner(), SECURITY_LOCAL_USERID_CHANGE);
	if (SPI_execute(
			"SELECT coalesce(pg_catalog.bit_xor(pg_catalog.hashint8extended(rule_id, xmin::text::bigint)), 0)"
			" FROM event_queue.rule",
			true, 1) != SPI_OK_SELECT)
		elog(ERROR, "could not read table rule");
	mark = DatumGetInt64(
		SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
	eq_spi_end(&spi);
	return mark;
}
