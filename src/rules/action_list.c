/*
 * action_list.c: checks and reads the list of a rule's actions:
 *
 *	{"enqueue": {"queue": ..., "name": ..., "payload": ..., options of enqueue}}
 *	{"call": {"function": ..., "delay": ..., "calendar": ..., "priority": ...}}
 *	{"append": {"event_type": ..., "aggregate_type": ..., "aggregate_id": ..., ...}}
 *	{"notify": {"channel": ..., "payload": ...}}
 *	{"cancel": {"queue": ..., "unique_key": ...}}
 *
 * The list is one template (condition.c fills it): all members are filled in but queues,
 * functions and channels, which stay as they were checked when the rule was created.
 *
 * Called by create_rule (eq_check_actions), by a constraint of table rule
 * (eq_are_actions), and when a rule is read from its row (eq_fill_actions).
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "fmgr.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/json.h"
#include "utils/jsonb.h"

#include "common/argument.h"
#include "common/function.h"
#include "common/json.h"
#include "rules/action_list.h"
#include "rules/rules.h"
#include "store/store.h"
#include "tenant/tenant.h"

PG_FUNCTION_INFO_V1(eq_are_actions);

#define MAX_ACTIONS 16

static const char *const kinds[] = {[EQ_ACTION_ENQUEUE] = "enqueue",
									[EQ_ACTION_CALL] = "call",
									[EQ_ACTION_APPEND] = "append",
									[EQ_ACTION_NOTIFY] = "notify",
									[EQ_ACTION_CANCEL] = "cancel"};

/* For each kind of action, the member that is a name and no template. */
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

/* Returns how many actions a list has; 0 if it is none, or too long. */
static int
count_actions(Jsonb *actions)
{
	int n = JB_ROOT_IS_ARRAY(actions) && !JB_ROOT_IS_SCALAR(actions)
				? JB_ROOT_COUNT(actions)
				: 0;

	return n <= MAX_ACTIONS ? n : 0;
}

/* Error context callback: adds the number of the action. */
void
eq_tell_action(void *argument)
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

/* Returns the kind of an action and its arguments; EQ019 if it is not valid. */
EqActionKind
eq_split_action(JsonbContainer *actions, int i, Jsonb **arguments)
{
	EqActionKind kind = EQ_ACTION_ENQUEUE;
	JsonbValue *value = NULL;
	const char *complaint = find_kind(actions, i, &kind, &value);

	if (complaint)
		refuse_action(complaint);
	*arguments = JsonbValueToJsonb(value);
	return kind;
}

/*
 * Takes out the member delay_from: does a delay count from the event's time?
 */
bool
eq_take_delay_from(Jsonb **arguments)
{
	char *from = eq_json_string_member(&(*arguments)->root, "delay_from");

	if (from && strcmp(from, "event") != 0 && strcmp(from, "now") != 0)
		refuse_action("delay_from must be event or now");
	*arguments = eq_json_without(*arguments, "delay_from");
	return from && strcmp(from, "event") == 0;
}

static void
check_enqueue(Jsonb *arguments)
{
	EqNewJob job = {0};

	(void) eq_take_delay_from(&arguments);
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
	(void) eq_take_delay_from(&arguments);
	arguments = eq_json_without(arguments, "function");
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
	ErrorContextCallback callback = {.callback = eq_tell_action,
									 .previous = error_context_stack};
	int number;
	int n = count_actions(actions);

	if (n == 0)
		refuse_action(psprintf("actions must be a JSON array of 1 to %d actions",
							   MAX_ACTIONS));
	eq_check_payload("list of actions", actions);
	callback.arg = &number;
	error_context_stack = &callback;
	for (int i = 0; i < n; i++)
	{
		Jsonb *arguments;

		number = i + 1;
		switch (eq_split_action(&actions->root, i, &arguments))
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

/* For a constraint of table rule, and rule_by: can eq_fill_actions read this list? */
Datum
eq_are_actions(PG_FUNCTION_ARGS)
{
	Jsonb *actions = PG_GETARG_JSONB_P(0);
	int n = count_actions(actions);
	bool good = n > 0;

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

/* Reads the actions of a rule's row, which eq_are_actions has checked. */
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

		action->kind = eq_split_action(&actions->root, i, &arguments);
		if (targets[action->kind])
			action->target = eq_json_string_member(&arguments->root,
												   targets[action->kind]);
		action->has_payload = eq_json_member(arguments, "payload", &buffer) != NULL;
	}
}
