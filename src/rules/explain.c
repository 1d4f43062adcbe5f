/*
 * explain.c: evaluates what a rule would do with an event, and the parts of its condition
 * with the values that they see.
 *
 * All is evaluated as by the rule runner: as the rule's owner, read-only, within
 * event_queue.condition_timeout, in a subtransaction.  Nothing is enqueued, counted or
 * noted as a fault.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "common/keywords.h"
#include "common/kwlookup.h"
#include "executor/spi.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "parser/parser.h"
#include "parser/scanner.h"
#include "parser/scansup.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "common/function.h"
#include "common/json.h"
#include "common/try.h"
#include "event_queue.h"
#include "rules/rule.h"
#include "store/store.h"
#include "table/statement_limit.h"
#include "table/table.h"
#include "tenant/tenant.h"

PG_FUNCTION_INFO_V1(eq_condition_parts);
PG_FUNCTION_INFO_V1(eq_try_rule);

/* One thing that is evaluated for an event. */
typedef struct Look
{
	const EqRule *rule;
	Datum event;
	char *query; /* NULL: the rule's own */
	MemoryContext context;
	char *text; /* out; NULL: it is NULL */
	Jsonb *payload;
	Jsonb *options;
} Look;

static void
take_text(void *argument)
{
	Look *look = argument;
	char *text = SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1);

	look->text = text ? MemoryContextStrdup(look->context, text) : NULL;
}

static void
evaluate(void *argument)
{
	Look *look = argument;
	Oid type = eq_event_type_oid();

	eq_check_owner(look->rule->owner, "rule", look->rule->name);
	if (look->query)
		eq_run_guarded(look->rule, look->query, 1, &type, &look->event, NULL, NULL,
					   take_text, look);
	else
		look->payload = eq_query_rule(look->rule, look->event, &look->options);
}

/* The error, as a line; NULL if there was none. */
static char *
error_of(Look *look)
{
	TimestampTz outer = eq_statement_timeout_at();
	TimestampTz start = GetCurrentTimestamp();
	ErrorData *error;

	look->context = CurrentMemoryContext;
	/* Undone also after success: NOTIFY, for one, is possible read-only. */
	error = eq_try_and_undo(evaluate, look);
	if (error == NULL)
		return NULL;
	eq_set_statement_timeout(outer);
	/* The caller's own cancel is not the condition's. */
	if (error->sqlerrcode == ERRCODE_QUERY_CANCELED &&
		GetCurrentTimestamp() - start < eq_condition_timeout * INT64CONST(1000))
		ReThrowError(error);
	return psprintf("%s: %s", unpack_sql_state(error->sqlerrcode), error->message);
}

/* As eq_is_one_expression, but false instead of an error: the text may be cut anywhere. */
static bool
is_expression(const char *text)
{
	MemoryContext context = CurrentMemoryContext;
	volatile bool yes = false;

	PG_TRY();
	{
		yes = eq_is_one_expression(text);
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(context);
		if (geterrcode() != ERRCODE_SYNTAX_ERROR)
			PG_RE_THROW();
		FlushErrorState(); /* the parser alone has run */
	}
	PG_END_TRY();
	return yes;
}

/*
 * Reads a rule from a row, which may be in no table, and the event at a position; EQ025 unless
 * the session may see both.
 */
static const EqRule *
open_rule(FunctionCallInfo fcinfo, Datum *event)
{
	EqRule *rule = PG_ARGISNULL(0) ? NULL
								   : eq_rule_of_row(PG_GETARG_HEAPTUPLEHEADER(0));
	const char *tenant = eq_confined_tenant();
	bool isnull;

	*event = PG_ARGISNULL(1) ? 0 : eq_read_event(PG_GETARG_INT64(1));
	if (rule == NULL || *event == 0 ||
		(tenant != NULL &&
		 (rule->tenant == NULL || strcmp(rule->tenant, tenant) != 0 ||
		  strcmp(TextDatumGetCString(GetAttributeByNum(
					 DatumGetHeapTupleHeader(*event), EVENT_TENANT, &isnull)),
				 tenant) != 0)))
		ereport(ERROR, (errcode(ERRCODE_EQ_UNKNOWN_OBJECT),
						errmsg("the rule or the event does not exist")));
	return rule;
}

/* Scanner's number of a keyword. */
static int
token_of(const char *keyword)
{
	return ScanKeywordTokens[ScanKeywordLookup(keyword, &ScanKeywords)];
}

/*
 * The parts that AND joins at the top of a condition, as they are written; the whole of
 * it if OR joins them, or if that is not sure.
 */
static List *
split_condition(const char *condition)
{
	core_yy_extra_type extra;
	core_yyscan_t scanner = scanner_init(condition, &extra, &ScanKeywords,
										 ScanKeywordTokens);
	core_YYSTYPE value;
	YYLTYPE at;
	int token;
	int start = 0;
	int depth = 0;
	int betweens = 0; /* whose AND is to come */
	bool whole = false;
	List *parts = NIL;
	ListCell *cell;

	/* Only by hand could that come into the table. */
	if (!is_expression(condition))
	{
		scanner_finish(scanner);
		return list_make1(pstrdup(condition));
	}
	while ((token = core_yylex(&value, &at, scanner)) != 0)
	{
		if (token == '(' || token == '[' || token == token_of("case"))
			depth++;
		else if (token == ')' || token == ']' || token == token_of("end"))
			depth--;
		else if (depth > 0)
			continue;
		else if (token == token_of("between"))
			betweens++;
		else if (token == token_of("or"))
			whole = true;
		else if (token == token_of("and"))
		{
			if (betweens > 0)
				betweens--;
			else
			{
				parts = lappend(parts, pnstrdup(condition + start, at - start));
				start = at + strlen("and");
			}
		}
	}
	scanner_finish(scanner);
	parts = lappend(parts, pstrdup(condition + start));
	foreach (cell, parts)
	{
		char *part = lfirst(cell);
		char *end = part + strlen(part);

		while (end > part && scanner_isspace(end[-1]))
			*--end = '\0';
		while (scanner_isspace(*part))
			part++;
		lfirst(cell) = part;
		whole = whole || !is_expression(part);
	}
	return whole ? list_make1(pstrdup(condition)) : parts;
}

/*
 * What a part compares, as it is written: the left side of its operator (also of IN, IS
 * NULL and their like), and the right side if it is no constant.  NULL: neither.
 */
static void
sides_of(const char *part, char **left, char **right)
{
	const char *prefix = "SELECT (";
	List *parsed;
	SelectStmt *select;
	Node *node;
	Node *other = NULL;
	int location = -1;
	int operator_length = 0;
	char *end;

	*left = *right = NULL;
	if (!is_expression(part))
		return;
	parsed = raw_parser(psprintf("%s%s\n)", prefix, part), RAW_PARSE_DEFAULT);
	select = (SelectStmt *) linitial_node(RawStmt, parsed)->stmt;
	node = linitial_node(ResTarget, select->targetList)->val;
	if (IsA(node, A_Expr) && ((A_Expr *) node)->lexpr != NULL)
	{
		A_Expr *expression = (A_Expr *) node;

		location = expression->location;
		if (expression->kind == AEXPR_OP && list_length(expression->name) == 1)
		{
			other = expression->rexpr;
			operator_length = strlen(strVal(linitial(expression->name)));
		}
	}
	else if (IsA(node, NullTest))
		location = ((NullTest *) node)->location;
	else if (IsA(node, BooleanTest))
		location = ((BooleanTest *) node)->location;
	location -= strlen(prefix);
	if (location <= 0)
		return;

	*left = pnstrdup(part, location);
	*right = pstrdup(part + location + operator_length);
	/* Moves parentheses around the whole comparison out of its sides. */
	while (!is_expression(*left))
	{
		char *inner = *left + strspn(*left, " \t\r\n");

		end = strrchr(*right, ')');
		if (*inner != '(' || end == NULL)
		{
			*left = *right = NULL;
			return;
		}
		*left = inner + 1;
		*end = '\0';
	}
	while (other && IsA(other, TypeCast))
		other = ((TypeCast *) other)->arg;
	if (other == NULL || IsA(other, A_Const) || !is_expression(*right))
		*right = NULL;
}

/* Evaluates an expression over the event; its value, and the error if there was one. */
static char *
value_of(const EqRule *rule, Datum event, const char *expression, char **error)
{
	Look look = {.rule = rule, .event = event};

	look.query = psprintf("SELECT (%s\n)::pg_catalog.text FROM %s", expression,
						  eq_event_source(rule->on_table));
	*error = error_of(&look);
	return look.text;
}

static Datum
value_text(Jsonb *value)
{
	return CStringGetTextDatum(
		value ? JsonbToCString(NULL, &value->root, VARSIZE(value)) : "none");
}

/* Rows for the fields of when_changed: from what to what. */
static void
put_changes(ReturnSetInfo *result, const EqRule *rule, Datum event, bool may_see)
{
	for (int i = 0; i < rule->n_changing; i++)
	{
		Jsonb *now;
		Jsonb *before;
		bool changed = rule->on_table ? eq_column_changed(event, rule->changing[i],
														  &now, &before)
									  : eq_field_changed(event, rule->changing[i],
														 &now, &before);
		Datum values[5] = {CStringGetTextDatum("when_changed"),
						   CStringGetTextDatum(rule->changing[i]),
						   CStringGetTextDatum(changed ? "true" : "false"),
						   value_text(now), value_text(before)};
		/* The old value is read only if the field is in the event. */
		bool nulls[5] = {false, false, false, !may_see, !may_see || now == NULL};

		tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
	}
}

/*
 * Rows (step, part, outcome, seen, compared with): the fields of a rule's when_changed,
 * the parts of its condition, and what they give for an event.  The values seen are for
 * a caller who could look for himself, as a member of the rule's owner.
 */
Datum
eq_condition_parts(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	Datum event;
	const EqRule *rule = open_rule(fcinfo, &event);
	bool may_see = !PG_ARGISNULL(2) &&
				   has_privs_of_role(PG_GETARG_OID(2), rule->owner);
	ListCell *cell;

	InitMaterializedSRF(fcinfo, 0);
	/* trace() may be called there; each part is evaluated in a subtransaction. */
	if (IsInParallelMode())
		return (Datum) 0;
	put_changes(result, rule, event, may_see);
	if (rule->condition == NULL)
		return (Datum) 0;
	foreach (cell, split_condition(rule->condition))
	{
		char *part = lfirst(cell);
		char *error;
		char *outcome = value_of(rule, event, part, &error);
		char *sides[2];
		Datum values[5] = {CStringGetTextDatum("condition"),
						   CStringGetTextDatum(part)};
		bool nulls[5] = {false, false, false, true, true};

		CHECK_FOR_INTERRUPTS();
		values[2] = CStringGetTextDatum(error	  ? error
										: outcome ? outcome
												  : "unknown");
		sides_of(part, &sides[0], &sides[1]);
		for (int i = 0; i < 2 && may_see; i++)
		{
			char *value = sides[i] ? value_of(rule, event, sides[i], &error) : NULL;

			if (sides[i] == NULL)
				continue;
			nulls[3 + i] = false;
			values[3 + i] = CStringGetTextDatum(error	? error
												: value ? value
														: "NULL");
		}
		tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
	}
	return (Datum) 0;
}

/* What a rule would do with an event: (outcome, payload, options). */
Datum
eq_try_rule(PG_FUNCTION_ARGS)
{
	Look look = {0};
	bool isnull;
	char *outcome;
	TupleDesc desc;
	Datum values[3] = {0};
	bool nulls[3] = {false};

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	look.rule = open_rule(fcinfo, &look.event);
	/* The row may not come from create_rule, which checks this. */
	if (look.rule->condition && !is_expression(look.rule->condition))
		outcome = psprintf("%s: condition of the rule is not one expression",
						   unpack_sql_state(ERRCODE_EQ_INVALID_CONDITION));
	else
		outcome = eq_rule_meets(look.rule, look.event) ? error_of(&look) : NULL;
	if (outcome == NULL && look.payload == NULL)
		outcome = "not matched";
	if (outcome == NULL)
	{
		switch (eq_judge_chain(look.rule, DatumGetJsonbP(GetAttributeByNum(
											  DatumGetHeapTupleHeader(look.event),
											  EVENT_METADATA, &isnull))))
		{
			case EQ_CHAIN_FREE:
				outcome = "matched";
				break;
			case EQ_CHAIN_LOOP:
				outcome = "suppressed";
				break;
			case EQ_CHAIN_TOO_DEEP:
				outcome = "too deep";
				break;
		}
	}
	values[0] = CStringGetTextDatum(outcome);
	/* The payload of a function is not its template's, but the event. */
	nulls[1] = look.payload == NULL || look.rule->function != NULL;
	if (look.payload && look.rule->n_actions > 0)
		look.payload = eq_json_jsonb_member(&look.payload->root, "actions");
	values[1] = JsonbPGetDatum(look.payload);
	nulls[2] = look.options == NULL || look.rule->n_actions > 0;
	values[2] = JsonbPGetDatum(look.options);
	PG_RETURN_DATUM(
		HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values, nulls)));
}
