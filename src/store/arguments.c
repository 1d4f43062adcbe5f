/*
 * arguments.c: reads the arguments and builds the results of the append functions.
 *
 * append takes one event as arguments, append_many events of one aggregate as a JSON array,
 * append_batch a JSON array of aggregates with their events.
 */
#include "postgres.h"

#include <ctype.h>

#include "access/htup_details.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "funcapi.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/hsearch.h"
#include "utils/lsyscache.h"
#include "utils/numeric.h"
#include "utils/uuid.h"

#include "common/argument.h"
#include "common/json.h"
#include "store/store.h"
#include "table/table.h"
#include "tenant/tenant.h"

PG_FUNCTION_INFO_V1(eq_append);
PG_FUNCTION_INFO_V1(eq_append_many);
PG_FUNCTION_INFO_V1(eq_append_batch);

#define MAX_BATCH_EVENTS	 10000
#define MAX_BATCH_AGGREGATES 1000

static void
invalid_expected_version(const char *word)
{
	ereport(
		ERROR,
		(errcode(ERRCODE_EQ_INVALID_ARGUMENT),
		 errmsg("invalid expected version \"%s\"", word),
		 errhint("Give a version from 0, \"any\", \"no_stream\" or \"exists\".")));
}

static int32
parse_expected_version(const char *word)
{
	char *end;
	long number;

	if (strcmp(word, "any") == 0)
		return EQ_EXPECT_ANY;
	if (strcmp(word, "no_stream") == 0)
		return 0;
	if (strcmp(word, "exists") == 0)
		return EQ_EXPECT_EXISTS;
	errno = 0;
	number = strtol(word, &end, 10);
	if (word[0] < '0' || word[0] > '9' || *end != '\0' || errno != 0 ||
		number > PG_INT32_MAX)
		invalid_expected_version(word);
	return (int32) number;
}

/* The argument expected_version, a text or a number. */
static int32
expected_version_argument(FunctionCallInfo fcinfo, int argno)
{
	Oid *types;
	int n;

	if (PG_ARGISNULL(argno))
		return EQ_EXPECT_ANY;
	/* As it is declared: a call by the protocol's function call has no expression. */
	(void) get_func_signature(fcinfo->flinfo->fn_oid, &types, &n);
	if (types[argno] != INT4OID)
		return parse_expected_version(text_to_cstring(PG_GETARG_TEXT_PP(argno)));
	if (PG_GETARG_INT32(argno) < 0)
		invalid_expected_version(psprintf("%d", PG_GETARG_INT32(argno)));
	return PG_GETARG_INT32(argno);
}

/* EQ006 for types of events that only the extension may append. */
void
eq_refuse_reserved(const char *aggregate_type, const char *event_type)
{
	/* A transaction that holds such an aggregate would keep jobs from ending (queue/job_event.c). */
	if (strcmp(aggregate_type, EQ_JOB_AGGREGATE) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_EQ_INVALID_NAME),
				 errmsg("aggregate type \"%s\" is reserved", EQ_JOB_AGGREGATE),
				 errdetail("The extension records in such events how jobs end."),
				 errhint("Use another aggregate type.")));
	/* A role that could append such events could fire rules on tables (rules/on_table.c). */
	if (strcmp(aggregate_type, EQ_TABLE_AGGREGATE) == 0)
		ereport(
			ERROR,
			(errcode(ERRCODE_EQ_INVALID_NAME),
			 errmsg("aggregate type \"%s\" is reserved", EQ_TABLE_AGGREGATE),
			 errdetail(
				 "The extension records in such events how tables change, for rules."),
			 errhint("Use another aggregate type.")));
	if (strcmp(aggregate_type, "alert") != 0 ||
		(strcmp(event_type, "alert.raised") != 0 &&
		 strcmp(event_type, "alert.resolved") != 0))
		return;
	if (GetUserId() != eq_extension_owner() && !superuser())
		ereport(ERROR,
				(errcode(ERRCODE_EQ_INVALID_NAME),
				 errmsg("event type \"%s\" of aggregate type \"alert\" is reserved",
						event_type),
				 errdetail("The extension records alerts in such events."),
				 errhint("Use another event type or aggregate type.")));
}

/* Checks an event, and adds the defaults and metadata that its caller did not give. */
void
eq_complete_event(EqEvent *event)
{
	eq_refuse_reserved(event->aggregate->type, event->type);
	if (event->data == NULL)
		event->data = eq_empty_object();
	eq_check_payload("event data", event->data);
	event->metadata = eq_event_metadata(event->metadata);
	eq_check_payload("event metadata", event->metadata);
}

/* The container of an array's member that must be an object. */
static JsonbContainer *
array_object(JsonbContainer *array, int i, const char *what)
{
	JsonbValue *value = getIthJsonbValueFromContainer(array, i);

	if (value == NULL || value->type != jbvBinary ||
		!JsonContainerIsObject(value->val.binary.data))
		ereport(ERROR, (errcode(ERRCODE_EQ_INVALID_ARGUMENT),
						errmsg("%s must be a JSON object", what)));
	return value->val.binary.data;
}

/* Does uuid_in accept the text?  Its own error (22P02) would not name the event. */
static bool
is_uuid(const char *text)
{
	bool braces = *text == '{';

	text += braces;
	for (int i = 0; i < UUID_LEN; i++)
	{
		if (!isxdigit((unsigned char) text[0]) || !isxdigit((unsigned char) text[1]))
			return false;
		text += 2;
		if (*text == '-' && i % 2 == 1 && i < UUID_LEN - 1)
			text++;
	}
	return strcmp(text, braces ? "}" : "") == 0;
}

static void
parse_event(EqEvent *event, JsonbContainer *json, EqAggregate *aggregate)
{
	static const char *const members[] = {"event_type", "event_data", "id",
										  "metadata", NULL};
	char *id = eq_json_string_member(json, "id");

	eq_json_check_members(json, "event", members);
	event->aggregate = aggregate;
	event->type = eq_json_string_member(json, "event_type");
	eq_check_name("event type", event->type, EQ_MAX_NAME);
	event->data = eq_json_jsonb_member(json, "event_data");
	event->metadata = eq_json_jsonb_member(json, "metadata");
	if (id)
	{
		if (!is_uuid(id))
			ereport(ERROR,
					(errcode(ERRCODE_EQ_INVALID_ARGUMENT),
					 errmsg("\"id\" must be a UUID"),
					 errdetail("It is \"%s\".",
							   pnstrdup(id, pg_mbcliplen(id, strlen(id), 100)))));
		event->id = *DatumGetUUIDP(
			DirectFunctionCall1(uuid_in, CStringGetDatum(id)));
		event->id_given = true;
	}
	eq_complete_event(event);
}

static void
tell_which_event(void *arg)
{
	errcontext("event %d of the list", *(int *) arg + 1);
}

static void
tell_which_aggregate(void *arg)
{
	errcontext("aggregate %d of the batch", *(int *) arg + 1);
}

/* Adds the events of a JSON array; returns how many there are now. */
static int
parse_events(EqEvent *events, int n_events, JsonbContainer *array,
			 EqAggregate *aggregate)
{
	int n = JsonContainerIsArray(array) ? JsonContainerSize(array) : 0;
	int i;
	ErrorContextCallback context = {.callback = tell_which_event, .arg = &i};

	if (n == 0 || JsonContainerIsScalar(array))
		ereport(ERROR,
				(errcode(ERRCODE_EQ_INVALID_ARGUMENT),
				 errmsg("events must be a JSON array with at least one event")));
	if (n_events + n > MAX_BATCH_EVENTS)
		ereport(ERROR, (errcode(ERRCODE_EQ_INVALID_ARGUMENT),
						errmsg("too many events in one call"),
						errdetail("There may be %d.", MAX_BATCH_EVENTS),
						errhint("Make several calls in one transaction.")));
	context.previous = error_context_stack;
	error_context_stack = &context;
	for (i = 0; i < n; i++)
	{
		CHECK_FOR_INTERRUPTS();
		parse_event(&events[n_events + i], array_object(array, i, "event"),
					aggregate);
	}
	error_context_stack = context.previous;
	return n_events + n;
}

/* All events have an id, or none has, and no id comes twice. */
static void
check_ids(EqEvent *events, int n_events)
{
	HASHCTL ctl = {
		.keysize = UUID_LEN, .entrysize = UUID_LEN, .hcxt = CurrentMemoryContext};
	HTAB *ids = NULL;

	for (int i = 0; i < n_events; i++)
	{
		bool found;

		if (events[i].id_given != events[0].id_given)
			ereport(ERROR,
					(errcode(ERRCODE_EQ_INVALID_ARGUMENT),
					 errmsg("either all events of a call have an id or none has"),
					 errhint("Ids make the call safe to repeat as a whole.")));
		if (!events[i].id_given)
			continue;
		if (ids == NULL)
			ids = hash_create("event ids", n_events, &ctl,
							  HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
		(void) hash_search(ids, &events[i].id, HASH_ENTER, &found);
		if (found)
			ereport(ERROR, (errcode(ERRCODE_EQ_INVALID_ARGUMENT),
							errmsg("an event id occurs twice in one call")));
	}
	if (ids)
		hash_destroy(ids);
}

static void
fill_result(const EqEvent *event, Datum *values)
{
	values[0] = Int64GetDatum(event->position);
	values[1] = Int32GetDatum(event->version);
	values[2] = UUIDPGetDatum(&event->id);
	values[3] = BoolGetDatum(event->duplicate);
}

Datum
eq_append(PG_FUNCTION_ARGS)
{
	EqAggregate aggregate = {0};
	EqEvent event = {.aggregate = &aggregate};
	TupleDesc desc;
	Datum values[4];
	bool nulls[4] = {false};

	aggregate.type = eq_name_argument(fcinfo, 0, "aggregate type");
	aggregate.id = eq_name_argument(fcinfo, 1, "aggregate id");
	event.type = eq_name_argument(fcinfo, 2, "event type");
	event.data = PG_ARGISNULL(3) ? NULL : PG_GETARG_JSONB_P(3);
	aggregate.expected = expected_version_argument(fcinfo, 4);
	if (!PG_ARGISNULL(5))
	{
		event.id = *PG_GETARG_UUID_P(5);
		event.id_given = true;
	}
	event.metadata = PG_ARGISNULL(6) ? NULL : PG_GETARG_JSONB_P(6);
	eq_complete_event(&event);

	eq_append_events(eq_tenant_argument(fcinfo, 7), &aggregate, 1, &event, 1);

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	fill_result(&event, values);
	PG_RETURN_DATUM(
		HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values, nulls)));
}

Datum
eq_append_many(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	EqAggregate aggregate = {0};
	Jsonb *json = PG_ARGISNULL(2) ? eq_empty_object() : PG_GETARG_JSONB_P(2);
	EqEvent *events;
	int n_events;

	aggregate.type = eq_name_argument(fcinfo, 0, "aggregate type");
	aggregate.id = eq_name_argument(fcinfo, 1, "aggregate id");
	aggregate.expected = expected_version_argument(fcinfo, 3);
	events = palloc0(Max(JsonContainerSize(&json->root), 1) * sizeof(EqEvent));
	n_events = parse_events(events, 0, &json->root, &aggregate);
	check_ids(events, n_events);

	eq_append_events(eq_tenant_argument(fcinfo, 4), &aggregate, 1, events, n_events);

	InitMaterializedSRF(fcinfo, MAT_SRF_USE_EXPECTED_DESC);
	for (int i = 0; i < n_events; i++)
	{
		Datum values[4];
		bool nulls[4] = {false};

		fill_result(&events[i], values);
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}
	return (Datum) 0;
}

/* One member of append_batch's array, without its events. */
static void
parse_aggregate(EqAggregate *aggregate, JsonbContainer *json)
{
	static const char *const members[] = {"aggregate_type", "aggregate_id",
										  "expected_version", "events", NULL};
	JsonbValue buffer;
	JsonbValue *expected;

	eq_json_check_members(json, "batch", members);
	aggregate->type = eq_json_string_member(json, "aggregate_type");
	eq_check_name("aggregate type", aggregate->type, EQ_MAX_NAME);
	aggregate->id = eq_json_string_member(json, "aggregate_id");
	eq_check_name("aggregate id", aggregate->id, EQ_MAX_NAME);
	expected = getKeyJsonValueFromContainer(json, "expected_version",
											strlen("expected_version"), &buffer);
	if (expected == NULL || expected->type == jbvNull)
		aggregate->expected = EQ_EXPECT_ANY;
	else if (expected->type == jbvNumeric)
		aggregate->expected = parse_expected_version(
			numeric_normalize(expected->val.numeric));
	else
		aggregate->expected = parse_expected_version(
			eq_json_string_member(json, "expected_version"));
}

static void
check_aggregates_differ(const EqAggregate *aggregates, int n)
{
	for (int i = 0; i < n; i++)
	{
		CHECK_FOR_INTERRUPTS();
		for (int j = 0; j < i; j++)
		{
			if (strcmp(aggregates[i].id, aggregates[j].id) == 0 &&
				strcmp(aggregates[i].type, aggregates[j].type) == 0)
				ereport(ERROR, (errcode(ERRCODE_EQ_INVALID_ARGUMENT),
								errmsg("%s \"%s\" occurs twice in one batch",
									   aggregates[i].type, aggregates[i].id)));
		}
	}
}

Datum
eq_append_batch(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	Jsonb *json = PG_ARGISNULL(0) ? eq_empty_object() : PG_GETARG_JSONB_P(0);
	JsonbContainer *batch = &json->root;
	int n_aggregates = JB_ROOT_IS_ARRAY(json) && !JB_ROOT_IS_SCALAR(json)
						   ? JB_ROOT_COUNT(json)
						   : 0;
	EqAggregate *aggregates;
	EqEvent *events = palloc0(MAX_BATCH_EVENTS * sizeof(EqEvent));
	int n_events = 0;
	int nth;
	ErrorContextCallback context = {.callback = tell_which_aggregate, .arg = &nth};

	if (n_aggregates < 1 || n_aggregates > MAX_BATCH_AGGREGATES)
		ereport(ERROR, (errcode(ERRCODE_EQ_INVALID_ARGUMENT),
						errmsg("batch must be a JSON array of 1 to %d aggregates",
							   MAX_BATCH_AGGREGATES),
						errhint("Make several calls in one transaction.")));
	aggregates = palloc0(n_aggregates * sizeof(EqAggregate));
	context.previous = error_context_stack;
	error_context_stack = &context;
	for (nth = 0; nth < n_aggregates; nth++)
	{
		JsonbContainer *object = array_object(batch, nth, "aggregate");
		Jsonb *list = eq_json_jsonb_member(object, "events");

		parse_aggregate(&aggregates[nth], object);
		n_events = parse_events(events, n_events,
								list ? &list->root : &eq_empty_object()->root,
								&aggregates[nth]);
	}
	error_context_stack = context.previous;
	check_aggregates_differ(aggregates, n_aggregates);
	check_ids(events, n_events);

	eq_append_events(eq_tenant_argument(fcinfo, 1), aggregates, n_aggregates, events,
					 n_events);

	InitMaterializedSRF(fcinfo, 0);
	for (int i = 0; i < n_events; i++)
	{
		Datum values[6];
		bool nulls[6] = {false};

		values[0] = CStringGetTextDatum(events[i].aggregate->type);
		values[1] = CStringGetTextDatum(events[i].aggregate->id);
		fill_result(&events[i], values + 2);
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}
	return (Datum) 0;
}
