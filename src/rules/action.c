/*
 * action.c: what a rule does when it fires.
 *
 * A rule has either one action, in columns of its own (a job, or a function), or a list
 * of them in its column actions:
 *
 *	{"enqueue": {"queue": ..., "name": ..., "payload": ..., options of enqueue}}
 *	{"call": {"function": ..., "delay": ..., "calendar": ..., "priority": ...}}
 *	{"append": {"event_type": ..., "aggregate_type": ..., "aggregate_id": ..., ...}}
 *	{"notify": {"channel": ..., "payload": ...}}
 *	{"cancel": {"queue": ..., "unique_key": ...}}
 *
 * The list is one template (condition.c fills it): what is filled in is all but queues,
 * functions and channels, which are as they were checked when the rule was made.  All
 * actions of a firing are in one (sub)transaction, in order: all of them or none.  A
 * function runs in a job of its own, of the queue "rule-calls".
 *
 * Called by create_rule (eq_check_actions), by a constraint of table rule and by the engine.
 */
#include "postgres.h"

#include "access/xact.h"
#include "commands/sequence.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/json.h"
#include "utils/jsonb.h"
#include "utils/numeric.h"
#include "utils/timestamp.h"

#include "common/argument.h"
#include "common/function.h"
#include "common/interval.h"
#include "common/json.h"
#include "queue/queue.h"
#include "rules/rule.h"
#include "rules/rules.h"
#include "store/store.h"
#include "table/table.h"
#include "tenant/tenant.h"

PG_FUNCTION_INFO_V1(eq_are_actions);

#define MAX_ACTIONS 16

/* What may be said of a job; the tenant is the event's. */
#define EQ_IN_ACTION                                                                \
	(EQ_IN_OPTIONS | EQ_OPTION_BIT(EQ_OPTION_QUEUE) |                               \
	 EQ_OPTION_BIT(EQ_OPTION_NAME) | EQ_OPTION_BIT(EQ_OPTION_PAYLOAD))
#define EQ_IN_CALL                                                                  \
	(EQ_OPTION_BIT(EQ_OPTION_DELAY) | EQ_OPTION_BIT(EQ_OPTION_PRIORITY) |           \
	 EQ_OPTION_BIT(EQ_OPTION_CALENDAR))

static const char *const kinds[] = {[EQ_ACTION_ENQUEUE] = "enqueue",
									[EQ_ACTION_CALL] = "call",
									[EQ_ACTION_APPEND] = "append",
									[EQ_ACTION_NOTIFY] = "notify",
									[EQ_ACTION_CANCEL] = "cancel"};

/* The member that is no template. */
static const char *const targets[] = {[EQ_ACTION_ENQUEUE] = "queue",
									  [EQ_ACTION_CALL] = "function",
									  [EQ_ACTION_APPEND] = NULL,
									  [EQ_ACTION_NOTIFY] = "channel",
									  [EQ_ACTION_CANCEL] = "queue"};

static void
pg_attribute_noreturn() refuse_action(const char *complaint)
{
	ereport(
		ERROR,
		(errcode(ERRCODE_EQ_INVALID_ACTION), errmsg_internal("%s", complaint),
		 errhint(
			 "For example: [{\"enqueue\": {\"queue\": \"mail\", \"name\": \"welcome\"}}, {\"append\": {\"event_type\": \"lead.welcomed\"}}]; kinds are enqueue, call, append, notify and cancel.")));
}

/* Which action an error is of. */
static void
tell_action(void *argument)
{
	errcontext("action %d of the rule", *(int *) argument);
}

static bool
is_object(const JsonbValue *value)
{
	return value && value->type == jbvBinary &&
		   JsonContainerIsObject(value->val.binary.data);
}

/* The kind of an action, and its arguments; NULL, or what is wrong with it. */
static const char *
find_kind(JsonbContainer *actions, int i, EqActionKind *found,
		  JsonbValue **arguments)
{
	JsonbValue *action = getIthJsonbValueFromContainer(actions, i);

	if (!is_object(action) || JsonContainerSize(action->val.binary.data) != 1)
		return "an action must be a JSON object with one member, its kind";
	for (int kind = 0; kind < lengthof(kinds); kind++)
	{
		JsonbValue *value = getKeyJsonValueFromContainer(
			action->val.binary.data, kinds[kind], strlen(kinds[kind]), NULL);

		if (value == NULL)
			continue;
		if (!is_object(value))
			return psprintf("arguments of %s must be a JSON object", kinds[kind]);
		*found = kind;
		*arguments = value;
		return NULL;
	}
	return "unknown kind of action";
}

/* The same, EQ019 if it is none. */
static EqActionKind
split_action(JsonbContainer *actions, int i, Jsonb **arguments)
{
	EqActionKind kind = EQ_ACTION_ENQUEUE;
	JsonbValue *value = NULL;
	const char *complaint = find_kind(actions, i, &kind, &value);

	if (complaint)
		refuse_action(complaint);
	*arguments = JsonbValueToJsonb(value);
	return kind;
}

static Jsonb *
without(Jsonb *arguments, const char *key)
{
	return DatumGetJsonbP(DirectFunctionCall2(
		jsonb_delete, JsonbPGetDatum(arguments), CStringGetTextDatum(key)));
}

/*
 * Takes out the member delay_from: does a delay count from the event's time?
 */
static bool
take_delay_from(Jsonb **arguments)
{
	char *from = eq_json_string_member(&(*arguments)->root, "delay_from");

	if (from && strcmp(from, "event") != 0 && strcmp(from, "now") != 0)
		refuse_action("delay_from must be event or now");
	*arguments = without(*arguments, "delay_from");
	return from && strcmp(from, "event") == 0;
}

static void
check_enqueue(Jsonb *arguments)
{
	EqNewJob job = {0};

	(void) take_delay_from(&arguments);
	eq_read_job_options(&job, &arguments->root, EQ_IN_ACTION, true);
	if (job.payload && !JB_ROOT_IS_OBJECT(job.payload))
		ereport(ERROR, (errcode(ERRCODE_EQ_INVALID_TEMPLATE),
						errmsg("payload template must be a JSON object")));
	eq_check_new_job(&job, eq_get_queue(job.queue_name), 0);
}

/* Returns the function's qualified name. */
static char *
check_call(Jsonb *arguments)
{
	EqNewJob job = {.name = "rule-call"};
	char *function = eq_json_string_member(&arguments->root, "function");

	(void) eq_find_function(function, EQ_FUNCTION_OF_EVENT, &function);
	(void) take_delay_from(&arguments);
	arguments = without(arguments, "function");
	eq_read_job_options(&job, &arguments->root, EQ_IN_CALL, true);
	eq_check_job_options(&job, eq_get_own_queue(EQ_RULE_CALLS), 0);
	return function;
}

static void
check_append(JsonbContainer *arguments)
{
	static const char *const members[] = {"event_type",	  "aggregate_type",
										  "aggregate_id", "event_data",
										  "metadata",	  NULL};

	eq_json_check_members(arguments, "action append", members);
	eq_check_name("event type", eq_json_string_member(arguments, "event_type"),
				  EQ_MAX_NAME);
	for (int i = 1; i < 3; i++)
	{
		char *name = eq_json_string_member(arguments, members[i]);

		if (name)
			eq_check_name(members[i], name, EQ_MAX_NAME);
		if (name && i == 1)
			eq_refuse_reserved(name, eq_json_string_member(arguments, "event_type"));
	}
	for (int i = 3; i < 5; i++)
	{
		Jsonb *object = eq_json_jsonb_member(arguments, members[i]);

		if (object && !JB_ROOT_IS_OBJECT(object))
			ereport(ERROR, (errcode(ERRCODE_EQ_INVALID_TEMPLATE),
							errmsg("%s of action append must be a JSON object",
								   members[i])));
	}
}

static void
check_notify(JsonbContainer *arguments)
{
	static const char *const members[] = {"channel", "payload", NULL};
	JsonbValue buffer;
	JsonbValue *payload;

	eq_json_check_members(arguments, "action notify", members);
	eq_check_name("channel", eq_json_string_member(arguments, "channel"),
				  NAMEDATALEN - 1);
	payload = getKeyJsonValueFromContainer(arguments, "payload", strlen("payload"),
										   &buffer);
	if (payload && payload->type != jbvNull && payload->type != jbvString &&
		!is_object(payload))
		ereport(ERROR, (errcode(ERRCODE_EQ_INVALID_TEMPLATE),
						errmsg("payload of action notify must be a string or a "
							   "JSON object")));
}

static void
check_cancel(JsonbContainer *arguments)
{
	static const char *const members[] = {"queue", "unique_key", NULL};

	eq_json_check_members(arguments, "action cancel", members);
	(void) eq_get_queue(eq_json_string_member(arguments, "queue"));
	eq_check_name("unique_key", eq_json_string_member(arguments, "unique_key"),
				  EQ_MAX_NAME);
}

/* Sets actions[i].call.function. */
static Jsonb *
set_function(Jsonb *actions, int i, const char *function)
{
	Datum path[3] = {CStringGetTextDatum(psprintf("%d", i)),
					 CStringGetTextDatum("call"), CStringGetTextDatum("function")};
	StringInfoData quoted;

	initStringInfo(&quoted);
	escape_json(&quoted, function);
	return DatumGetJsonbP(DirectFunctionCall4(
		jsonb_set, JsonbPGetDatum(actions),
		PointerGetDatum(
			construct_array(path, lengthof(path), TEXTOID, -1, false, TYPALIGN_INT)),
		JsonbPGetDatum(eq_json_from(quoted.data)), BoolGetDatum(true)));
}

/* The list in an object: templates are objects. */
static Jsonb *
template_of(Jsonb *actions)
{
	JsonbParseState *state = NULL;

	pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	eq_json_add_jsonb(&state, "actions", actions);
	return JsonbValueToJsonb(pushJsonbValue(&state, WJB_END_OBJECT, NULL));
}

/*
 * Checks the actions that create_rule was given: EQ019, or the error that the action
 * itself would raise.  Returns them with the names of functions qualified.
 */
Jsonb *
eq_check_actions(Jsonb *actions)
{
	ErrorContextCallback callback = {.callback = tell_action,
									 .previous = error_context_stack};
	int number;
	int n = JB_ROOT_IS_ARRAY(actions) && !JB_ROOT_IS_SCALAR(actions)
				? JB_ROOT_COUNT(actions)
				: 0;

	if (n < 1 || n > MAX_ACTIONS)
		refuse_action(psprintf("actions must be a JSON array of 1 to %d actions",
							   MAX_ACTIONS));
	eq_check_payload("list of actions", actions);
	callback.arg = &number;
	error_context_stack = &callback;
	for (int i = 0; i < n; i++)
	{
		Jsonb *arguments;

		number = i + 1;
		switch (split_action(&actions->root, i, &arguments))
		{
			case EQ_ACTION_ENQUEUE:
				check_enqueue(arguments);
				break;
			case EQ_ACTION_CALL:
				actions = set_function(actions, i, check_call(arguments));
				break;
			case EQ_ACTION_APPEND:
				check_append(&arguments->root);
				break;
			case EQ_ACTION_NOTIFY:
				check_notify(&arguments->root);
				break;
			case EQ_ACTION_CANCEL:
				check_cancel(&arguments->root);
				break;
		}
	}
	error_context_stack = callback.previous;
	eq_check_template("list of actions", template_of(actions));
	return actions;
}

/* For a constraint: do all that read a rule's row understand this list? */
Datum
eq_are_actions(PG_FUNCTION_ARGS)
{
	Jsonb *actions = PG_GETARG_JSONB_P(0);
	int n = JB_ROOT_IS_ARRAY(actions) && !JB_ROOT_IS_SCALAR(actions)
				? JB_ROOT_COUNT(actions)
				: 0;
	bool good = n > 0 && n <= MAX_ACTIONS;

	for (int i = 0; i < n && good; i++)
	{
		EqActionKind kind = EQ_ACTION_ENQUEUE;
		JsonbValue *arguments = NULL;
		JsonbValue *target;

		good = find_kind(&actions->root, i, &kind, &arguments) == NULL;
		if (!good || targets[kind] == NULL)
			continue;
		target = getKeyJsonValueFromContainer(
			arguments->val.binary.data, targets[kind], strlen(targets[kind]), NULL);
		good = target && target->type == jbvString;
	}
	PG_RETURN_BOOL(good);
}

/* Reads them from a rule's row, into the current memory context. */
void
eq_fill_actions(EqRule *rule, Jsonb *actions)
{
	rule->payload = template_of(actions);
	rule->n_actions = JB_ROOT_COUNT(actions);
	rule->actions = palloc0(rule->n_actions * sizeof(EqAction));
	for (int i = 0; i < rule->n_actions; i++)
	{
		EqAction *action = &rule->actions[i];
		Jsonb *arguments;
		JsonbValue buffer;

		action->kind = split_action(&actions->root, i, &arguments);
		if (targets[action->kind])
			action->target = eq_json_string_member(&arguments->root,
												   targets[action->kind]);
		action->has_payload = eq_json_member(arguments, "payload", &buffer) != NULL;
	}
}

/*
 * What a job or an event that a rule makes says of where it comes from: for a job the
 * event's id is event_id, for an event causation_id.
 */
static Jsonb *
lineage(const EqRule *rule, Datum event, const char *cause)
{
	HeapTupleHeader row = DatumGetHeapTupleHeader(event);
	StringInfoData json;
	bool isnull;
	char *id = DatumGetCString(
		DirectFunctionCall1(uuid_out, GetAttributeByNum(row, EVENT_ID, &isnull)));
	Jsonb *metadata = DatumGetJsonbP(
		GetAttributeByNum(row, EVENT_METADATA, &isnull));
	JsonbValue buffer;
	JsonbValue *chain = eq_json_member(metadata, "correlation_id", &buffer);
	JsonbValue root_buffer;
	char *root = eq_json_string(
		eq_json_member(metadata, EQ_RULE_ROOT, &root_buffer));

	initStringInfo(&json);
	appendStringInfoString(&json, "{\"rule\": ");
	escape_json(&json, rule->name);
	appendStringInfo(
		&json,
		", \"rule_version\": %d, \"%s\": \"%s\", \"event_position\": " INT64_FORMAT
		", \"" EQ_RULE_CHAIN "\": ",
		rule->version, cause, id, eq_event_position(event));
	eq_append_chain(&json, metadata, rule->rule_id);
	appendStringInfoString(&json, ", \"" EQ_RULE_ROOT "\": ");
	escape_json(&json, root ? root : id);
	appendStringInfoString(&json, ", \"correlation_id\": ");
	/* The first event of a chain gives it its name. */
	escape_json(&json, chain && chain->type == jbvString
						   ? pnstrdup(chain->val.string.val, chain->val.string.len)
						   : id);
	appendStringInfoChar(&json, '}');
	return eq_json_from(json.data);
}

/* What was given, and what is so whatever was given. */
static Jsonb *
with_lineage(Jsonb *given, Jsonb *known)
{
	return given ? DatumGetJsonbP(DirectFunctionCall2(
					   jsonb_concat, JsonbPGetDatum(given), JsonbPGetDatum(known)))
				 : known;
}

/*
 * Completes a rule's job, of an action of its list or of its own (-1), and enqueues it;
 * delays count from then on.  late: later events may have met rules, and so have ended a
 * timer that this one was to start.
 */
static void
enqueue_job(const EqRule *rule, Datum event, const EqQueue *queue, EqNewJob *job,
			int action, TimestampTz from, bool late)
{
	eq_check_payload("job payload", job->payload);
	eq_check_new_job(job, queue, from);
	/* A delay from the event on may be over: it is due now, and not late. */
	if (!eq_is_given(job, EQ_OPTION_RUN_AT))
		job->run_at = Max(job->run_at, GetCurrentTimestamp());
	job->tenant = eq_event_text(event, EVENT_TENANT);
	job->metadata = with_lineage(job->metadata, lineage(rule, event, "event_id"));
	if (late && job->unique_key &&
		eq_timer_has_ended(queue, job->tenant, job->unique_key,
						   eq_event_position(event)))
		return;
	if (!job->unique_key || job->unique_mode != EQ_UNIQUE_REJECT || !job->has_time ||
		queue->queue_id <= EQ_SNAPSHOTS)
	{
		(void) eq_enqueue(queue, job);
		return;
	}
	/* Again under the lock of its end: one that was under way may have removed the timer. */
	job->job_id = nextval_internal(eq_relation_oid(EQ_JOB_ID_SEQ), false);
	if (eq_enqueue(queue, job) != job->job_id &&
		!eq_timer_has_ended(queue, job->tenant, job->unique_key,
							eq_event_position(event)) &&
		eq_enqueue(queue, job) != job->job_id)
		eq_note_refused_start(rule, queue, job, eq_event_position(event), action);
}

/* The job of a rule that has no list of actions. */
static void
enqueue_own_job(const EqRule *rule, Datum event, Jsonb *payload, Jsonb *options,
				bool late)
{
	const EqQueue *queue = eq_get_queue_by_id(rule->queue_id);
	EqNewJob job = {.name = rule->job_name, .payload = payload};

	if (queue == NULL)
		elog(ERROR, "queue of rule \"%s\" does not exist", rule->name);
	if (options)
		eq_read_job_options(&job, &options->root, EQ_IN_OPTIONS, false);
	if (rule->delay)
		eq_set_job_option(&job, EQ_OPTION_DELAY, IntervalPGetDatum(rule->delay));
	if (rule->priority >= 0)
		eq_set_job_option(&job, EQ_OPTION_PRIORITY, Int32GetDatum(rule->priority));
	enqueue_job(rule, event, queue, &job, -1, GetCurrentTimestamp(), late);
}

/*
 * A job of queue "rule-calls": all of the rule again (evaluate), or its function, or (timer)
 * the job of a timer; with a list of actions that of action, from 0 (else -1).
 */
static void
enqueue_call(const EqRule *rule, Datum event, bool evaluate, bool timer, int action,
			 EqNewJob *job, TimestampTz from)
{
	StringInfoData json;

	initStringInfo(&json);
	appendStringInfo(&json, "{\"rule_id\": %d, \"rule\": ", rule->rule_id);
	escape_json(&json, rule->name);
	appendStringInfo(&json, ", \"position\": " INT64_FORMAT ", \"evaluate\": %s",
					 eq_event_position(event), evaluate ? "true" : "false");
	if (action >= 0)
	{
		appendStringInfo(&json, ", \"action\": %d, \"function\": ", action);
		escape_json(&json, rule->actions[action].target);
	}
	if (timer)
		appendStringInfo(&json, ", \"timer_of_version\": %d", rule->version);
	appendStringInfoChar(&json, '}');
	job->name = "rule-call";
	job->payload = eq_json_from(json.data);
	enqueue_job(rule, event, eq_get_own_queue(EQ_RULE_CALLS), job, action, from,
				false);
}

/* The same for a rule that has no list, or for one that is to be evaluated again. */
void
eq_enqueue_rule_call(const EqRule *rule, Datum event, bool evaluate)
{
	EqNewJob job = {0};

	if (!evaluate && rule->delay)
		eq_set_job_option(&job, EQ_OPTION_DELAY, IntervalPGetDatum(rule->delay));
	/* One that was written by hand must not keep others from their events. */
	if (rule->priority >= 0 && (!evaluate || rule->priority <= EQ_PRIORITY_LAST))
		eq_set_job_option(&job, EQ_OPTION_PRIORITY, Int32GetDatum(rule->priority));
	enqueue_call(rule, event, evaluate, false, -1, &job, GetCurrentTimestamp());
}

/* A start that was refused, as the timer was open, is to be done after all (timer.c). */
void
eq_enqueue_start(const EqRule *rule, Datum event, int action)
{
	EqNewJob job = {0};

	enqueue_call(rule, event, false, true, action, &job, GetCurrentTimestamp());
}

/* A filled member that is to be a name; the default if it is not in the template. */
static char *
filled_name(JsonbContainer *arguments, const char *key, char *otherwise)
{
	JsonbValue buffer;
	JsonbValue *value = getKeyJsonValueFromContainer(arguments, key, strlen(key),
													 &buffer);
	char *name = NULL;

	if (value == NULL)
		name = otherwise;
	else if (value->type == jbvString)
		name = eq_json_string(value);
	else if (value->type == jbvNumeric)
		name = DatumGetCString(
			DirectFunctionCall1(numeric_out, NumericGetDatum(value->val.numeric)));
	eq_check_name(key, name, EQ_MAX_NAME);
	return name;
}

/* A follow-up event, of the rule's owner. */
static void
append_event(const EqRule *rule, Datum event, JsonbContainer *arguments)
{
	EqAggregate aggregate = {.expected = EQ_EXPECT_ANY};
	EqEvent new = {.aggregate = &aggregate};
	JsonbParseState *state = NULL;
	Oid user;
	int sec_context;

	aggregate.type = filled_name(arguments, "aggregate_type",
								 eq_event_text(event, EVENT_AGGREGATE_TYPE));
	aggregate.id = filled_name(arguments, "aggregate_id",
							   eq_event_text(event, EVENT_AGGREGATE_ID));
	new.type = filled_name(arguments, "event_type", NULL);
	new.data = eq_json_jsonb_member(arguments, "event_data");

	pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	eq_json_add_string(&state, "actor", GetUserNameFromId(rule->owner, false), 0);
	new.metadata = with_lineage(
		JsonbValueToJsonb(pushJsonbValue(&state, WJB_END_OBJECT, NULL)),
		lineage(rule, event, "causation_id"));
	new.metadata = with_lineage(eq_json_jsonb_member(arguments, "metadata"),
								new.metadata);

	/* May he append it? */
	GetUserIdAndSecContext(&user, &sec_context);
	SetUserIdAndSecContext(rule->owner, sec_context | SECURITY_LOCAL_USERID_CHANGE);
	eq_complete_event(&new);
	SetUserIdAndSecContext(user, sec_context);
	eq_append_events(eq_event_text(event, EVENT_TENANT), &aggregate, 1, &new, 1);
}

/* The job with this key, of the event's tenant, if there is one: a timer is stopped. */
static void
cancel_job(const EqAction *action, Datum event, JsonbContainer *arguments)
{
	eq_end_timer(eq_get_queue(action->target), eq_event_text(event, EVENT_TENANT),
				 filled_name(arguments, "unique_key", NULL),
				 eq_event_position(event));
}

/* A job of the list: of its queue, or for its function. */
static void
do_job(const EqRule *rule, int i, Datum event, Jsonb *arguments, Jsonb *whole,
	   bool late)
{
	const EqAction *action = &rule->actions[i];
	EqNewJob job = {0};
	TimestampTz from = GetCurrentTimestamp();
	bool isnull;

	if (take_delay_from(&arguments))
		from = DatumGetTimestampTz(GetAttributeByNum(DatumGetHeapTupleHeader(event),
													 EVENT_CREATED_AT, &isnull));
	if (action->kind == EQ_ACTION_CALL)
	{
		arguments = without(arguments, "function");
		eq_read_job_options(&job, &arguments->root, EQ_IN_CALL, false);
		enqueue_call(rule, event, false, false, i, &job, from);
		return;
	}
	eq_read_job_options(&job, &arguments->root, EQ_IN_ACTION, false);
	if (!action->has_payload)
		job.payload = whole;
	enqueue_job(rule, event, eq_get_queue(action->target), &job, i, from, late);
}

/* Of what eq_act does, the job of one timer alone. */
void
eq_start_timer(const EqRule *rule, Datum event, Jsonb *payload, Jsonb *options,
			   int action)
{
	JsonbValue buffer;
	Jsonb *arguments;

	if (rule->n_actions == 0)
	{
		enqueue_own_job(rule, event, payload, options, true);
		return;
	}
	(void) split_action(eq_json_member(payload, "actions", &buffer)->val.binary.data,
						action, &arguments);
	do_job(rule, action, event, arguments, options, true);
}

/*
 * The rule fires: payload and options are what eq_query_rule gave.  late: other rules may
 * have met later events by now.
 */
void
eq_act(const EqRule *rule, Datum event, Jsonb *payload, Jsonb *options, bool late)
{
	ErrorContextCallback callback = {.callback = tell_action,
									 .previous = error_context_stack};
	JsonbValue buffer;
	JsonbValue *filled;
	int number;

	if (rule->n_actions == 0)
	{
		if (rule->queue_id != 0)
			enqueue_own_job(rule, event, payload, options, late);
		else
			eq_enqueue_rule_call(rule, event, false);
		return;
	}
	filled = eq_json_member(payload, "actions", &buffer);
	callback.arg = &number;
	error_context_stack = &callback;
	for (int i = 0; i < rule->n_actions; i++)
	{
		Jsonb *arguments;

		CHECK_FOR_INTERRUPTS();
		number = i + 1;
		(void) split_action(filled->val.binary.data, i, &arguments);
		switch (rule->actions[i].kind)
		{
			case EQ_ACTION_ENQUEUE:
			case EQ_ACTION_CALL:
				do_job(rule, i, event, arguments, options, late);
				continue;
			case EQ_ACTION_APPEND:
				append_event(rule, event, &arguments->root);
				break;
			case EQ_ACTION_NOTIFY:
				eq_notify_action(&rule->actions[i], &arguments->root);
				break;
			case EQ_ACTION_CANCEL:
				cancel_job(&rule->actions[i], event, &arguments->root);
				break;
		}
		/* Others act on it: a crash must not undo it. */
		ForceSyncCommit();
	}
	error_context_stack = callback.previous;
}

/*
 * The function that a job of queue "rule-calls" is to call, for the rule as it is now;
 * NULL if it calls none.  One of a list is named by the job, since the list may have
 * another order by now: EQ025 if the rule does not call it any more.
 */
const char *
eq_function_of_call(const EqRule *rule, int64 action, const char *named)
{
	if (action < 0)
		return rule->function;
	for (int i = 0; i < rule->n_actions && named; i++)
	{
		if (rule->actions[i].kind == EQ_ACTION_CALL &&
			strcmp(rule->actions[i].target, named) == 0)
			return named;
	}
	ereport(
		ERROR,
		(errcode(ERRCODE_EQ_UNKNOWN_OBJECT),
		 errmsg("rule \"%s\" no longer calls function \"%s\"", rule->name,
				named ? named : ""),
		 errhint(
			 "To have it called, give the rule the action again and retry this job.")));
}
