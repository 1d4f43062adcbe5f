/*
 * define.c: create_rule and create_handler.
 *
 * In C because users' functions are looked up in the caller's search_path, and because rows
 * are written with the rights of the extension's owner: a role that could write the tables
 * itself could make another role the owner, and so have its code run as that role.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "common/argument.h"
#include "common/function.h"
#include "common/interval.h"
#include "common/pattern.h"
#include "queue/queue.h"
#include "rules/rules.h"
#include "store/store.h"
#include "table/table.h"
#include "tenant/tenant.h"

PG_FUNCTION_INFO_V1(eq_create_rule);
PG_FUNCTION_INFO_V1(eq_create_handler);

static char *
text_argument(FunctionCallInfo fcinfo, int argno)
{
	return PG_ARGISNULL(argno) ? NULL : text_to_cstring(PG_GETARG_TEXT_PP(argno));
}

/* Runs an INSERT ... RETURNING id; 0 if it returned nothing. */
static int32
insert_row(const char *sql, int n, Oid *types, Datum *values, const char *nulls)
{
	EqSpi spi;
	int32 id = 0;

	eq_spi_begin(&spi, eq_extension_owner(), SECURITY_LOCAL_USERID_CHANGE);
	if (SPI_execute_with_args(sql, n, types, values, nulls, false, 0) !=
		SPI_OK_INSERT_RETURNING)
		elog(ERROR, "could not run \"%s\"", sql);
	if (SPI_processed == 1)
	{
		bool isnull;

		id = DatumGetInt32(
			SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
	}
	eq_spi_end(&spi);
	return id;
}

/* Adds a parameter to the arrays of insert_row; a NULL text is SQL's NULL. */
#define ADD(type, value, is_null)                                                   \
	(types[n] = (type), nulls[n] = (is_null) ? 'n' : ' ',                           \
	 values[n] = (is_null) ? (Datum) 0 : (value), n++)
#define ADD_TEXT(string) ADD(TEXTOID, CStringGetTextDatum(string), (string) == NULL)

/* The columns of a definition, which if_not_exists compares, and their parameters. */
#define RULE_DEFINITION                                                                  \
	"tenant_id, event_pattern, condition, queue_id, job_name, payload, delay, priority," \
	" function, options, on_loop, when_changed, actions, stop, rule_order,"              \
	" on_table, on_change, tenant_column"
#define RULE_VALUES                                                                 \
	"$3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $21, $22, $23"

/*
 * For if_not_exists: returns the number of the existing object, 0 if the query finds none
 * (another tenant's).  Raises a NOTICE if the query's second column says that its definition
 * differs.
 */
static int32
existing_row(const char *what, const char *sql, int n, Oid *types, Datum *values,
			 const char *nulls)
{
	EqSpi spi;
	int32 id = 0;
	bool same = true;

	eq_spi_begin(&spi, eq_extension_owner(), SECURITY_LOCAL_USERID_CHANGE);
	if (SPI_execute_with_args(sql, n, types, values, nulls, false, 1) !=
		SPI_OK_SELECT)
		elog(ERROR, "could not run \"%s\"", sql);
	if (SPI_processed == 1)
	{
		HeapTuple row = SPI_tuptable->vals[0];
		TupleDesc desc = SPI_tuptable->tupdesc;
		bool isnull;

		id = DatumGetInt32(SPI_getbinval(row, desc, 1, &isnull));
		same = DatumGetBool(SPI_getbinval(row, desc, 2, &isnull));
	}
	eq_spi_end(&spi);
	if (!same)
		ereport(NOTICE, (errmsg("%s exists with another definition", what),
						 errdetail("It was left unchanged."),
						 errhint("or_replace => true replaces it.")));
	return id;
}

static void
check_create_mode(bool or_replace, bool if_not_exists)
{
	if (or_replace && if_not_exists)
		ereport(ERROR, (errcode(ERRCODE_EQ_INVALID_ARGUMENT),
						errmsg("or_replace and if_not_exists exclude each other")));
}

/* After which position a new rule applies. */
static int64
start_argument(const char *start, int64 newest)
{
	char *end;
	int64 position;

	if (start == NULL || strcmp(start, "now") == 0)
		return newest;
	if (strcmp(start, "beginning") == 0)
		return 0;
	errno = 0;
	position = strtoi64(start, &end, 10);
	if (start[0] < '0' || start[0] > '9' || *end != '\0' || errno != 0 ||
		position > newest)
		ereport(ERROR,
				(errcode(ERRCODE_EQ_INVALID_START),
				 errmsg("start must be now, beginning, or an existing position"),
				 errdetail("The newest one is " INT64_FORMAT ".", newest)));
	return position;
}

/* A new rule that starts in the past catches up first. */
static void
start_behind(int32 rule_id, int64 start)
{
	Oid types[2] = {INT4OID, INT8OID};
	Datum values[2] = {Int32GetDatum(rule_id), Int64GetDatum(start)};

	(void) insert_row(
		"INSERT INTO event_queue_internal.rule_catch_up (rule_id, position)"
		" SELECT r.rule_id, $2 FROM event_queue.rule r WHERE r.rule_id = $1"
		" AND r.created_at = pg_catalog.now() AND r.start_position = $2"
		" ON CONFLICT DO NOTHING RETURNING rule_id",
		2, types, values, NULL);
}

/*
 * The same as a draft of a rule that is there: a version that is not in force.  Its
 * number; 0: there is no such rule.
 */
static int32
keep_draft(int n, Oid *types, Datum *values, const char *nulls)
{
	EqSpi spi;

	/* By a statement of its own, so that the next one sees the version of who was quicker. */
	eq_spi_begin(&spi, eq_extension_owner(), SECURITY_LOCAL_USERID_CHANGE);
	if (SPI_execute_with_args(
			"SELECT FROM event_queue.rule r WHERE r.name = $1 FOR UPDATE", 1, types,
			values, nulls, false, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not lock the rule");
	eq_spi_end(&spi);
	return insert_row(
		"INSERT INTO event_queue_internal.rule_version"
		" (rule_id, version, rule, tenant_id, made_by, made_at, definition, draft, owner)"
		" SELECT r.rule_id, 1 + (SELECT max(v.version) FROM"
		" event_queue_internal.rule_version v WHERE v.rule_id = r.rule_id), r.name, $3,"
		" coalesce(nullif(current_setting('role'), 'none'), session_user),"
		" pg_catalog.clock_timestamp(), event_queue_internal.rule_definition("
		"jsonb_populate_record(r, jsonb_build_object('owner', $2, 'tenant_id', $3,"
		" 'event_pattern', $4, 'condition', $5, 'queue_id', $6, 'job_name', $7, 'payload', $8,"
		" 'delay', $9, 'priority', $10, 'function', $11, 'options', $12, 'on_loop', $13,"
		" 'when_changed', $14, 'actions', $15, 'stop', $16, 'rule_order', $17,"
		" 'on_table', $21, 'on_change', $22, 'tenant_column', $23))), true, $2"
		" FROM event_queue.rule r WHERE r.name = $1 AND ($19 IS NULL OR r.tenant_id = $19)"
		" AND $18 IS NOT NULL AND $20 IS NOT NULL FOR UPDATE RETURNING rule_id",
		n, types, values, nulls);
}

/* The arguments of a rule on a table; its name, NULL for a rule on events. */
static char *
table_argument(FunctionCallInfo fcinfo, const char *pattern, Datum *on_change)
{
	const char *tenant_column = PG_ARGISNULL(21) ? NULL
												 : NameStr(*PG_GETARG_NAME(21));
	Oid relid = PG_ARGISNULL(19) ? InvalidOid : PG_GETARG_OID(19);

	if ((pattern != NULL) == OidIsValid(relid))
		ereport(ERROR, (errcode(ERRCODE_EQ_INVALID_PATTERN),
						errmsg("a rule is either on events, with event_pattern, or "
							   "on the rows of a table, with on_table")));
	if (!OidIsValid(relid))
	{
		if (!PG_ARGISNULL(20) || tenant_column)
			ereport(ERROR, (errcode(ERRCODE_EQ_INVALID_ARGUMENT),
							errmsg("on_change and tenant_column belong to a rule "
								   "with on_table")));
		eq_check_pattern(pattern);
		return NULL;
	}
	*on_change = eq_check_on_change(PG_ARGISNULL(20) ? NULL
													 : PG_GETARG_ARRAYTYPE_P(20));
	eq_check_on_table(relid, tenant_column);
	return eq_qualified_table(relid);
}

Datum
eq_create_rule(PG_FUNCTION_ARGS)
{
	char *name = text_argument(fcinfo, 0);
	char *pattern = text_argument(fcinfo, 1);
	char *condition = text_argument(fcinfo, 2);
	char *queue_name = text_argument(fcinfo, 3);
	char *job_name = text_argument(fcinfo, 4);
	Jsonb *payload = PG_ARGISNULL(5) ? NULL : PG_GETARG_JSONB_P(5);
	char *function = text_argument(fcinfo, 8);
	const char *tenant = text_argument(fcinfo, 9);
	Jsonb *options = PG_ARGISNULL(10) ? NULL : PG_GETARG_JSONB_P(10);
	bool or_replace = !PG_ARGISNULL(11) && PG_GETARG_BOOL(11);
	bool if_not_exists = !PG_ARGISNULL(12) && PG_GETARG_BOOL(12);
	const EqQueue *queue = NULL;
	EqNewJob job = {0};
	bool priority_is_null;
	const char *on_loop = PG_ARGISNULL(13) ? "skip" : text_argument(fcinfo, 13);
	Jsonb *actions = PG_ARGISNULL(15) ? NULL : PG_GETARG_JSONB_P(15);
	const char *tenant_column = PG_ARGISNULL(21) ? NULL
												 : NameStr(*PG_GETARG_NAME(21));
	char *table;
	Datum on_change = 0;
	bool draft = !PG_ARGISNULL(22) && PG_GETARG_BOOL(22);
	Oid types[23];
	Datum values[23];
	char nulls[23];
	int n = 0;
	int32 rule_id;
	bool exists = false;
	int64 newest = eq_last_position();
	int64 start = start_argument(text_argument(fcinfo, 18), newest);

	eq_check_name("rule name", name, EQ_MAX_NAME);
	table = table_argument(fcinfo, pattern, &on_change);
	if (tenant || eq_confined_tenant())
		tenant = eq_resolve_tenant(tenant);
	check_create_mode(or_replace || draft, if_not_exists);
	if (strcmp(on_loop, "skip") != 0 && strcmp(on_loop, "allow") != 0)
		ereport(ERROR, (errcode(ERRCODE_EQ_INVALID_ARGUMENT),
						errmsg("on_loop must be skip or allow")));
	if ((queue_name != NULL) + (function != NULL) + (actions != NULL) != 1)
		ereport(
			ERROR,
			(errcode(ERRCODE_EQ_INVALID_ACTION),
			 errmsg("a rule has exactly one action, or a list of them"),
			 errhint("Give either queue and job_name, or function, or actions.")));
	if (actions)
	{
		if (job_name || payload || options || !PG_ARGISNULL(6) || !PG_ARGISNULL(7))
			ereport(
				ERROR,
				(errcode(ERRCODE_EQ_INVALID_ACTION),
				 errmsg(
					 "job_name, payload, delay, priority and options cannot be combined with actions")));
		actions = eq_check_actions(actions);
	}
	else if (queue_name)
	{
		queue = eq_get_queue(queue_name);
		eq_check_name("job name", job_name, EQ_MAX_NAME);
		if (payload)
		{
			eq_check_payload("payload template", payload);
			eq_check_template("payload template", payload);
		}
	}
	else
	{
		if (job_name || payload || options)
			ereport(ERROR, (errcode(ERRCODE_EQ_INVALID_ACTION),
							errmsg("job_name, payload and options belong to a rule "
								   "that enqueues")));
		(void) eq_find_function(function, EQ_FUNCTION_OF_EVENT, &function);
	}
	if (options)
	{
		eq_read_job_options(&job, &options->root, EQ_IN_OPTIONS, true);
		eq_check_template("options template", options);
	}
	/* Without one of its own a rule has that of its options, or the default. */
	priority_is_null = eq_is_given(&job, EQ_OPTION_PRIORITY) || actions;
	if (!PG_ARGISNULL(6))
		eq_set_job_option(&job, EQ_OPTION_DELAY, PG_GETARG_DATUM(6));
	if (!PG_ARGISNULL(7))
		eq_set_job_option(&job, EQ_OPTION_PRIORITY, PG_GETARG_DATUM(7));
	if (queue)
		eq_check_job_options(&job, queue, 0);
	if (condition)
		eq_check_condition(condition, table != NULL);
	if (!PG_ARGISNULL(14))
		eq_check_when_changed(PG_GETARG_ARRAYTYPE_P(14));

	ADD_TEXT(name);
	ADD(REGROLEOID, ObjectIdGetDatum(GetUserId()), false);
	ADD_TEXT(tenant);
	/* The pattern of a rule on a table contains the rule's number: a trigger replaces this text. */
	ADD_TEXT(table ? "table" : pattern);
	ADD_TEXT(condition);
	ADD(INT4OID, Int32GetDatum(queue->queue_id), queue == NULL);
	ADD_TEXT(job_name);
	ADD(JSONBOID, JsonbPGetDatum(payload), payload == NULL);
	ADD(INTERVALOID, PG_GETARG_DATUM(6), PG_ARGISNULL(6));
	ADD(INT4OID,
		PG_ARGISNULL(7) ? Int32GetDatum(EQ_PRIORITY_DEFAULT) : PG_GETARG_DATUM(7),
		priority_is_null);
	ADD_TEXT(function);
	ADD(JSONBOID, JsonbPGetDatum(options), options == NULL);
	ADD_TEXT(on_loop);
	ADD(TEXTARRAYOID, PG_GETARG_DATUM(14), PG_ARGISNULL(14));
	ADD(JSONBOID, JsonbPGetDatum(actions), actions == NULL);
	ADD(BOOLOID, BoolGetDatum(!PG_ARGISNULL(16) && PG_GETARG_BOOL(16)), false);
	ADD(INT4OID, PG_ARGISNULL(17) ? Int32GetDatum(0) : PG_GETARG_DATUM(17), false);
	ADD(INT8OID, Int64GetDatum(start), false);
	/* Whose rules this session may touch; NULL: all. */
	ADD_TEXT(eq_confined_tenant());
	ADD(INT8OID, Int64GetDatum(newest), false);
	ADD_TEXT(table);
	ADD(TEXTARRAYOID, on_change, table == NULL);
	ADD_TEXT(tenant_column);

	if (draft)
	{
		eq_require_unbound();
		rule_id = keep_draft(n, types, values, nulls);
		if (rule_id == 0)
			ereport(
				ERROR,
				(errcode(ERRCODE_EQ_UNKNOWN_OBJECT),
				 errmsg("rule \"%s\" does not exist", name),
				 errhint(
					 "A draft needs an existing rule: create the rule without draft, and pause it.")));
		PG_RETURN_INT32(rule_id);
	}

	/*
	 * A rule that is replaced keeps its number and start_position, and the
	 * checkpoint is that of all rules: so each event meets it once, as it was or
	 * as it is, and no one needs to wait for the replacing transaction.
	 */
	rule_id = insert_row(
		psprintf(
			"WITH checkpoint AS (INSERT INTO event_queue_internal.rule_checkpoint (position) VALUES ($20)"
			" ON CONFLICT DO NOTHING) INSERT INTO event_queue.rule AS r (name, owner, " RULE_DEFINITION
			", start_position) VALUES ($1, $2, " RULE_VALUES ", $18)"
			" ON CONFLICT ON CONSTRAINT rule_name_key %s RETURNING rule_id",
			or_replace ? "DO UPDATE SET (owner, " RULE_DEFINITION
						 ") = ($2, " RULE_VALUES ")"
						 " WHERE $19 IS NULL OR r.tenant_id = $19"
					   : "DO NOTHING"),
		n, types, values, nulls);
	if (rule_id == 0 && if_not_exists)
	{
		exists = true;
		rule_id = existing_row(
			psprintf("rule \"%s\"", name),
			"SELECT rule_id, (" RULE_DEFINITION ")"
			" IS NOT DISTINCT FROM ($3, CASE WHEN $21 IS NULL THEN $4 ELSE event_pattern END,"
			" $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $21, $22, $23)"
			" FROM event_queue.rule"
			" WHERE name = $1 AND ($19 IS NULL OR tenant_id = $19)",
			n, types, values, nulls);
	}
	if (rule_id == 0)
		ereport(
			ERROR,
			(errcode(ERRCODE_EQ_DUPLICATE_OBJECT),
			 errmsg("rule \"%s\" already exists", name),
			 errhint(
				 "or_replace => true replaces it, and loses no event; if_not_exists => true leaves it.")));
	if (start < newest)
		start_behind(rule_id, start);
	if (!exists && (table || or_replace))
		eq_make_table_triggers(
			rule_id, table ? PG_GETARG_OID(19) : InvalidOid, on_change,
			PG_ARGISNULL(14) ? NULL : PG_GETARG_ARRAYTYPE_P(14), tenant_column);
	PG_RETURN_INT32(rule_id);
}

Datum
eq_create_handler(PG_FUNCTION_ARGS)
{
	const EqQueue *queue = eq_get_queue(text_argument(fcinfo, 0));
	char *job_name = text_argument(fcinfo, 1);
	char *function;
	bool or_replace = !PG_ARGISNULL(4) && PG_GETARG_BOOL(4);
	bool if_not_exists = !PG_ARGISNULL(5) && PG_GETARG_BOOL(5);
	int32 handler_id;
	char *what;
	Interval time_limit = {.time = queue->lease / 10 * 9};
	bool as_array = !PG_ARGISNULL(6);
	int batch = as_array ? PG_GETARG_INT32(6) : 0;
	int most = PG_ARGISNULL(7) ? 0 : PG_GETARG_INT32(7);
	Oid types[7];
	Datum values[7];
	char nulls[7];
	int n = 0;

	check_create_mode(or_replace, if_not_exists);
	eq_check_name("job name", job_name, EQ_MAX_NAME);
	if (as_array && (batch < 1 || batch > EQ_MAX_BATCH))
		ereport(
			ERROR,
			(errcode(ERRCODE_EQ_INVALID_ARGUMENT),
			 errmsg("batch_size must be between 1 and %d", EQ_MAX_BATCH),
			 errhint("Without batch_size the handler takes one job at a time.")));
	if (!PG_ARGISNULL(7) && (most < 1 || most > 2 * EQ_MAX_EXECUTORS))
		ereport(ERROR, (errcode(ERRCODE_EQ_INVALID_ARGUMENT),
						errmsg("max_executors must be between 1 and %d",
							   2 * EQ_MAX_EXECUTORS)));
	(void) eq_find_function(
		text_argument(fcinfo, 2),
		as_array ? EQ_FUNCTION_ARRAY_HANDLER : EQ_FUNCTION_HANDLER, &function);
	if (!PG_ARGISNULL(3))
	{
		time_limit = *PG_GETARG_INTERVAL_P(3);
		if (eq_interval_us(&time_limit) < 1000 ||
			eq_interval_us(&time_limit) > queue->lease)
			ereport(
				ERROR,
				(errcode(ERRCODE_EQ_INVALID_TIME_LIMIT),
				 errmsg(
					 "time_limit must be between 1 millisecond and the queue's lease"),
				 errdetail("The lease of queue \"%s\" is " INT64_FORMAT " ms.",
						   queue->name, queue->lease / 1000)));
	}

	ADD(INT4OID, Int32GetDatum(queue->queue_id), false);
	ADD_TEXT(job_name);
	ADD(REGROLEOID, ObjectIdGetDatum(GetUserId()), false);
	ADD_TEXT(function);
	ADD(INTERVALOID, IntervalPGetDatum(&time_limit), false);
	ADD(INT4OID, Int32GetDatum(batch), !as_array);
	ADD(INT4OID, Int32GetDatum(most), most == 0);
	handler_id = insert_row(
		psprintf(
			"INSERT INTO event_queue.handler AS h (queue_id, job_name, owner, function, time_limit, batch_size, max_executors)"
			" VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT ON CONSTRAINT handler_job_key %s"
			" RETURNING handler_id",
			or_replace
				? "DO UPDATE SET (owner, function, time_limit, batch_size, max_executors) = ($3, $4, $5, $6, $7),"
				  " version = h.version + ((h.owner, h.function, h.time_limit, h.batch_size, h.max_executors)"
				  " IS DISTINCT FROM ($3, $4, $5, $6, $7))::int"
				: "DO NOTHING"),
		n, types, values, nulls);
	what = psprintf("handler for job \"%s\" of queue \"%s\"", job_name, queue->name);
	if (handler_id == 0 && if_not_exists)
		handler_id = existing_row(
			what,
			"SELECT handler_id, (function, time_limit, batch_size, max_executors) IS NOT DISTINCT FROM ($4, $5, $6, $7)"
			" FROM event_queue.handler WHERE queue_id = $1 AND job_name = $2",
			n, types, values, nulls);
	if (handler_id == 0)
		ereport(
			ERROR,
			(errcode(ERRCODE_EQ_DUPLICATE_OBJECT), errmsg("%s already exists", what),
			 errhint(
				 "or_replace => true replaces it; if_not_exists => true leaves it.")));
	PG_RETURN_INT32(handler_id);
}
