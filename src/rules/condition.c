/*
 * condition.c: a rule's condition and payload template, as one query.
 *
 * The query takes the event as $1 and the template as $2, and gives the job's
 * payload, or NULL if the condition does not hold.  It always runs as the
 * rule's owner.  That the condition is one expression, and cannot break out of
 * its place in the query, is checked on its parse tree.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "fmgr.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "parser/parser.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"

#include "event_queue.h"
#include "rules/rules.h"
#include "table/table.h"

#define MAX_CONDITION 10000

/*
 * The query of a rule with this condition (NULL: always true): the payload from the
 * template $2, NULL if the condition does not hold; and the options from $3.
 */
char *
eq_rule_query(const char *condition, bool with_options)
{
	/* OFFSET 0: the condition is evaluated once. */
	if (with_options)
		return psprintf(
			"SELECT m.payload, CASE WHEN m.payload IS NOT NULL THEN"
			" event_queue.map_payload($3, event_queue.event_as_json($1)) END"
			" FROM (SELECT CASE WHEN (%s\n) THEN"
			" event_queue.map_payload($2, event_queue.event_as_json($1)) END AS payload"
			" FROM (SELECT ($1).*) AS event OFFSET 0) AS m",
			condition ? condition : "true");
	return psprintf("SELECT CASE WHEN (%s\n) THEN"
					" event_queue.map_payload($2, event_queue.event_as_json($1)) END"
					" FROM (SELECT ($1).*) AS event",
					condition ? condition : "true");
}

static void
invalid_condition(const char *detail)
{
	ereport(
		ERROR,
		(errcode(ERRCODE_EQ_INVALID_CONDITION),
		 errmsg("condition of the rule is not valid"),
		 errdetail_internal("%s", detail),
		 errhint(
			 "A condition is a SQL boolean expression over the event's columns, such as event_data ->> 'step' = 'won'.")));
}

/* Is it one expression and nothing else? */
static bool
is_one_expression(const char *condition)
{
	List *parsed = raw_parser(psprintf("SELECT (%s\n)", condition),
							  RAW_PARSE_DEFAULT);
	SelectStmt *select;

	if (list_length(parsed) != 1)
		return false;
	select = (SelectStmt *) linitial_node(RawStmt, parsed)->stmt;
	return IsA(select, SelectStmt) && list_length(select->targetList) == 1 &&
		   linitial_node(ResTarget, select->targetList)->name == NULL &&
		   select->op == SETOP_NONE && !select->distinctClause &&
		   !select->intoClause && !select->fromClause && !select->whereClause &&
		   !select->groupClause && !select->havingClause && !select->windowClause &&
		   !select->valuesLists && !select->sortClause && !select->limitOffset &&
		   !select->limitCount && !select->lockingClause && !select->withClause;
}

/* EQ022 unless the condition compiles, with the caller's rights. */
void
eq_check_condition(const char *condition)
{
	MemoryContext context = CurrentMemoryContext;
	volatile bool ok = false;
	EqSpi spi;

	if (strlen(condition) > MAX_CONDITION)
		invalid_condition("It is longer than 10000 bytes.");
	PG_TRY();
	{
		Oid types[2] = {eq_event_type_oid(), JSONBOID};

		ok = is_one_expression(condition);
		if (ok)
		{
			eq_spi_begin(&spi, GetUserId(), SECURITY_RESTRICTED_OPERATION);
			if (SPI_prepare(eq_rule_query(condition, false), 2, types) == NULL)
				elog(ERROR, "SPI_prepare failed: %s",
					 SPI_result_code_string(SPI_result));
			eq_spi_end(&spi);
		}
	}
	PG_CATCH();
	{
		ErrorData *error;

		/* Only the message is kept: the transaction fails with another code. */
		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		if (error->sqlerrcode == ERRCODE_QUERY_CANCELED ||
			error->sqlerrcode == ERRCODE_ADMIN_SHUTDOWN)
			PG_RE_THROW();
		FlushErrorState();
		invalid_condition(psprintf("%s.", error->message));
	}
	PG_END_TRY();
	if (!ok)
		invalid_condition("It is more than one expression.");
}

/* EQ024 unless the template is an object whose "$." strings are JSON paths. */
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
	while ((token = JsonbIteratorNext(&it, &value, true)) != WJB_DONE)
	{
		char *path;

		if (token != WJB_VALUE || value.type != jbvString ||
			value.val.string.len < 2 || strncmp(value.val.string.val, "$.", 2) != 0)
			continue;
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
