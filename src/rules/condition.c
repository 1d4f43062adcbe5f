/*
 * condition.c: compiles a rule's condition and templates to one query, and runs it.
 *
 * The query takes the event as $1 and the template as $2, and returns the job's payload, or
 * NULL if the condition does not hold.  It always runs as the rule's owner.  That the
 * condition is a single expression, and cannot break out of its place in the query, is
 * checked on its parse tree.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "parser/parser.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"
#include "utils/timestamp.h"

#include "common/function.h"
#include "common/try.h"
#include "event_queue.h"
#include "rules/rule.h"
#include "rules/rules.h"
#include "table/statement_limit.h"
#include "table/table.h"
#include "tenant/tenant.h"
#include "watch/watch.h"

#define LAST_REST_MS                                                                \
	(3600 * 1000) /* at most, for a rule whose condition did not end */

#define MAX_CONDITION 10000

/* What a condition sees of the event $1: its columns; of a changed row also old and new. */
const char *
eq_event_source(bool on_table)
{
	return on_table ? "(SELECT ($1).*, ($1).event_data -> 'old' AS old,"
					  " ($1).event_data -> 'new' AS new) AS event"
					: "(SELECT ($1).*) AS event";
}

/*
 * The query of a rule with this condition (NULL: always true): the payload from the
 * template $2, NULL if the condition does not hold; and the options from $3.
 */
static char *
rule_query(const char *condition, bool with_options, bool on_table)
{
	const char *source = eq_event_source(on_table);

	/* OFFSET 0: the condition is evaluated once. */
	if (with_options)
		return psprintf(
			"SELECT m.payload, CASE WHEN m.payload IS NOT NULL THEN"
			" event_queue.map_payload($3, event_queue.event_as_json($1)) END"
			" FROM (SELECT CASE WHEN (%s\n) THEN"
			" event_queue.map_payload($2, event_queue.event_as_json($1)) END AS payload"
			" FROM %s OFFSET 0) AS m",
			condition ? condition : "true", source);
	return psprintf("SELECT CASE WHEN (%s\n) THEN"
					" event_queue.map_payload($2, event_queue.event_as_json($1)) END"
					" FROM %s",
					condition ? condition : "true", source);
}

/* The time limit of a condition: event_queue.condition_timeout. */
typedef struct TimeLimit
{
	EqStatementLimit statement;
	int64 watched;
} TimeLimit;

static TimeLimit
begin_limit(void)
{
	TimeLimit limit;

	limit.watched = eq_watch_begin(eq_condition_timeout * INT64CONST(1000), 0);
	limit.statement = eq_begin_statement_limit(eq_condition_timeout);
	return limit;
}

static void
end_limit(TimeLimit limit)
{
	eq_end_statement_limit(&limit.statement);
	eq_watch_end(limit.watched);
}

/* A call of eq_run_guarded. */
typedef struct Guarded
{
	const EqRule *rule;
	const char *query;
	int n_arguments;
	Oid *types;
	Datum *values;
	const char *nulls;
	SPIPlanPtr *kept;
	void (*take)(void *);
	void *argument;
} Guarded;

static void
run_guarded(void *argument)
{
	Guarded *this = argument;
	SPIPlanPtr plan;
	bool read_only = XactReadOnly;
	TimeLimit limit;
	EqSpi spi;

	eq_spi_begin(&spi, this->rule->owner,
				 SECURITY_LOCAL_USERID_CHANGE | SECURITY_RESTRICTED_OPERATION);
	/*
	 * Also for what a volatile function in it does, and it can't be switched off in
	 * there.  An error restores it with the (sub)transaction.
	 */
	XactReadOnly = true;
	limit = begin_limit();
	plan = this->kept ? *this->kept : NULL;
	if (plan == NULL)
	{
		/* A generic plan: the event is another one each time. */
		plan = SPI_prepare_cursor(this->query, this->n_arguments, this->types,
								  this->kept ? CURSOR_OPT_GENERIC_PLAN : 0);
		if (plan == NULL || (this->kept && SPI_keepplan(plan) != 0))
			elog(ERROR, "could not prepare rule \"%s\"", this->rule->name);
		if (this->kept)
			*this->kept = plan;
	}
	if (SPI_execute_plan(plan, this->values, this->nulls, true, 1) !=
			SPI_OK_SELECT ||
		SPI_processed != 1)
		elog(ERROR, "could not evaluate rule \"%s\"", this->rule->name);
	end_limit(limit);
	/* PostgreSQL 15 lets read-only transactions write large objects. */
	if (TransactionIdIsValid(GetCurrentTransactionIdIfAny()))
		ereport(ERROR,
				(errcode(ERRCODE_READ_ONLY_SQL_TRANSACTION),
				 errmsg("cannot write in the condition or a template of rule \"%s\"",
						this->rule->name)));
	this->take(this->argument);
	eq_spi_end(&spi);
	XactReadOnly = read_only;
}

/*
 * Runs a query that returns one row as the rule's owner, read-only, within
 * event_queue.condition_timeout.  take reads what SPI has of it.  kept: where the
 * query's plan is, or is put for the next time; NULL: it is not kept.
 */
void
eq_run_guarded(const EqRule *rule, const char *query, int n_arguments, Oid *types,
			   Datum *values, const char *nulls, SPIPlanPtr *kept,
			   void (*take)(void *), void *argument)
{
	Guarded this = {rule,  query, n_arguments, types,	values,
					nulls, kept,  take,		   argument};
	ErrorData *error;

	/* The rule runner has begun a subtransaction, which has not written yet. */
	if (GetCurrentTransactionNestLevel() > 1 &&
		!TransactionIdIsValid(GetCurrentTransactionIdIfAny()))
	{
		run_guarded(&this);
		return;
	}
	error = eq_try(run_guarded, &this);
	if (error)
		ReThrowError(error);
}

/* What eq_query_rule found. */
typedef struct Filled
{
	MemoryContext context;
	Jsonb *payload;
	Jsonb *options;
} Filled;

/* A column of the row that SPI has read, in this context; NULL if it is NULL. */
static Jsonb *
result_jsonb(int column, MemoryContext context)
{
	bool isnull;
	Datum value = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, column,
								&isnull);
	Jsonb *result = NULL;

	if (!isnull)
	{
		MemoryContext old = MemoryContextSwitchTo(context);

		result = DatumGetJsonbPCopy(value);
		MemoryContextSwitchTo(old);
	}
	return result;
}

static void
take_filled(void *argument)
{
	Filled *filled = argument;

	filled->payload = result_jsonb(1, filled->context);
	if (SPI_tuptable->tupdesc->natts > 1)
		filled->options = result_jsonb(2, filled->context);
}

/*
 * A rule's payload and options for an event, from its templates; of one with a list of
 * actions the list, filled, and the event as JSON.  NULL if nothing has changed that must
 * have, or the condition does not hold.
 */
Jsonb *
eq_query_rule(const EqRule *rule, Datum event, Jsonb **options)
{
	Oid types[3] = {eq_event_type_oid(), JSONBOID, JSONBOID};
	Datum values[3] = {event, JsonbPGetDatum(rule->payload),
					   JsonbPGetDatum(rule->options)};
	char nulls[3] = {' ', rule->payload ? ' ' : 'n', rule->options ? ' ' : 'n'};
	Filled filled = {.context = CurrentMemoryContext};
	bool with_options;

	*options = NULL;
	if (rule->on_table && !eq_asks_for_operation(rule, event))
		return NULL;
	if (rule->n_changing > 0)
	{
		/* Reads back to the last event that has the field, which may be far. */
		TimeLimit limit = begin_limit();
		bool changed = eq_any_changed(rule, event);

		end_limit(limit);
		if (!changed)
			return NULL;
	}
	/* With a list of actions, the options are the whole event, for who has no payload. */
	with_options = rule->options != NULL || rule->n_actions > 0;
	eq_run_guarded(rule, rule_query(rule->condition, with_options, rule->on_table),
				   with_options ? 3 : 2, types, values, nulls, rule->plan,
				   take_filled, &filled);
	*options = filled.options;
	return filled.payload;
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
			 "A condition is a SQL boolean expression over the event's columns, such as event_data ->> 'step' = 'won' or (event_data ->> 'number')::int = 2.")));
}

/* Is it one expression and nothing else? */
bool
eq_is_one_expression(const char *condition)
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
eq_check_condition(const char *condition, bool on_table)
{
	MemoryContext context = CurrentMemoryContext;
	volatile bool ok = false;
	EqSpi spi;

	if (strlen(condition) > MAX_CONDITION)
		invalid_condition("It is longer than 10000 bytes.");
	PG_TRY();
	{
		Oid types[2] = {eq_event_type_oid(), JSONBOID};

		ok = eq_is_one_expression(condition);
		if (ok)
		{
			eq_spi_begin(&spi, GetUserId(), SECURITY_RESTRICTED_OPERATION);
			if (SPI_prepare(rule_query(condition, false, on_table), 2, types) ==
				NULL)
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

/* The rule whose condition runs, for the two functions below; cut if it is long. */
static char evaluated[EQ_MAX_NAME + 32] = "";

static void
note_not_ended(const char *rule, const char *message)
{
	(void) eq_note_fault("rule", rule, "57014", message, EQ_FIRST_REST_MS,
						 LAST_REST_MS);
}

/*
 * After an error of a condition, or of a job that evaluated one: notes a fault if it reached
 * its time limit.
 */
void
eq_note_condition_error(bool timed_out)
{
	if (timed_out && evaluated[0] != '\0')
		note_not_ended(evaluated, "its condition reached condition_timeout");
	evaluated[0] = '\0';
}

/* For a worker that was terminated, or ends by an error, on its way out. */
void
eq_note_condition_lost(void)
{
	if (evaluated[0] != '\0')
		note_not_ended(
			evaluated,
			"its condition did not end and was terminated with its process, or ended it");
}

/* How often the rule's condition did not end, if the rule rests now; else 0. */
int
eq_rule_rests(const EqRule *rule)
{
	TimestampTz retry_at;
	int failures = eq_failures_of("rule", rule->label, &retry_at);

	return retry_at > GetCurrentTimestamp() ? failures : 0;
}

/*
 * Evaluates a rule's when_changed, condition and templates for an event, the latter as
 * the rule's owner and without writing.  NULL if it does not fire.
 */
Jsonb *
eq_evaluate_rule(const EqRule *rule, Datum event, Jsonb **options)
{
	Jsonb *payload;

	eq_check_owner(rule->owner, "rule", rule->name);
	strlcpy(evaluated, rule->label, sizeof(evaluated));
	payload = eq_query_rule(rule, event, options);
	evaluated[0] = '\0';
	(void) eq_clear_fault("rule", rule->label);
	return payload;
}
