/*
 * action.c: performs the actions of a rule that fires.
 *
 * A rule has either one action, in columns of its own (a job, or a function), or a list
 * of them in its column actions (action_list.c).  All actions of a firing are in one
 * (sub)transaction, in order: all of them or none.  A function runs in a job of its own,
 * of the queue "rule-calls".
 *
 * Called by the engine, and by call.c.
 */
#include "postgres.h"

#include "commands/sequence.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/json.h"
#include "utils/jsonb.h"
#include "utils/numeric.h"
#include "utils/timestamp.h"

#include "common/argument.h"
#include "common/function.h"
#include "common/json.h"
#include "queue/queue.h"
#include "rules/action_list.h"
#include "rules/rules.h"
#include "store/store.h"
#include "table/table.h"
#include "tenant/tenant.h"

/*
 * Builds the metadata of a job or event that a rule makes.  cause: the member that has the
 * event's id: event_id for a job, causation_id for an event.
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

/* Adds the members of known to given metadata, which they override. */
static Jsonb *
with_lineage(Jsonb *given, Jsonb *known)
{
	return given ? DatumGetJsonbP(DirectFunctionCall2(
					   jsonb_concat, JsonbPGetDatum(given), JsonbPGetDatum(known)))
				 : known;
}

/*
 * Completes a rule's job and enqueues it; delays count from then on.  late: later events
 * may have met rules, and so have ended a timer that this one was to start.  only: the job
 * of this timer, and no other.
 */
static void
enqueue_job(const EqRule *rule, Datum event, const EqQueue *queue, EqNewJob *job,
			TimestampTz from, bool late, const EqTimer *only)
{
	int64 holder;

	if (only && (queue->queue_id != only->queue_id || !job->unique_key ||
				 strcmp(job->unique_key, only->key) != 0))
		return;
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
		!eq_rules_end_timers(queue))
	{
		(void) eq_enqueue(queue, job);
		return;
	}
	/* Again under the lock of its end: one that was under way may have removed the timer. */
	job->job_id = nextval_internal(eq_relation_oid(EQ_JOB_ID_SEQ), false);
	if (eq_enqueue(queue, job) == job->job_id ||
		eq_timer_has_ended(queue, job->tenant, job->unique_key,
						   eq_event_position(event)))
		return;
	holder = eq_enqueue(queue, job);
	if (holder != job->job_id)
		eq_note_refused_start(rule, queue, job, eq_event_position(event), holder);
}

/* The job of a rule that has no list of actions. */
static void
enqueue_own_job(const EqRule *rule, Datum event, Jsonb *payload, Jsonb *options,
				bool late, const EqTimer *only)
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
	enqueue_job(rule, event, queue, &job, GetCurrentTimestamp(), late, only);
}

/*
 * A job of queue "rule-calls": all of the rule again (evaluate), or its function, of a list
 * of actions that of action, from 0 (else -1); or the job of a timer.
 */
static void
enqueue_call(const EqRule *rule, Datum event, bool evaluate, int action,
			 const EqTimer *timer, EqNewJob *job, TimestampTz from)
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
	{
		appendStringInfo(&json,
						 ", \"timer_queue\": %d, \"timer_key\": ", timer->queue_id);
		escape_json(&json, timer->key);
	}
	appendStringInfoChar(&json, '}');
	job->name = "rule-call";
	job->payload = eq_json_from(json.data);
	enqueue_job(rule, event, eq_get_own_queue(EQ_RULE_CALLS), job, from, false,
				NULL);
}

/* The same for a rule that has no list, or for one that is to be evaluated again. */
void
eq_enqueue_rule_call(const EqRule *rule, Datum event, bool evaluate)
{
	EqNewJob job = {0};

	if (!evaluate && rule->delay)
		eq_set_job_option(&job, EQ_OPTION_DELAY, IntervalPGetDatum(rule->delay));
	/* A priority that was written by hand may be invalid, and must not hold up other rules. */
	if (rule->priority >= 0 && (!evaluate || rule->priority <= EQ_PRIORITY_LAST))
		eq_set_job_option(&job, EQ_OPTION_PRIORITY, Int32GetDatum(rule->priority));
	enqueue_call(rule, event, evaluate, -1, NULL, &job, GetCurrentTimestamp());
}

/* A start that was refused, as the timer was open, is to be done after all (timer.c). */
void
eq_enqueue_start(const EqRule *rule, Datum event, const EqTimer *timer)
{
	EqNewJob job = {0};

	enqueue_call(rule, event, false, -1, timer, &job, GetCurrentTimestamp());
}

/* Returns a filled member that must be a name; otherwise if the template lacks it. */
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

	/* With the rights of the rule's owner: may he append it? */
	GetUserIdAndSecContext(&user, &sec_context);
	SetUserIdAndSecContext(rule->owner, sec_context | SECURITY_LOCAL_USERID_CHANGE);
	eq_complete_event(&new);
	SetUserIdAndSecContext(user, sec_context);
	eq_append_events(eq_event_text(event, EVENT_TENANT), &aggregate, 1, &new, 1);
}

/* Cancels the job with this key, of the event's tenant, if there is one: stops a timer. */
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
	   bool late, const EqTimer *only)
{
	const EqAction *action = &rule->actions[i];
	EqNewJob job = {0};
	TimestampTz from = GetCurrentTimestamp();
	bool isnull;

	if (eq_take_delay_from(&arguments))
		from = DatumGetTimestampTz(GetAttributeByNum(DatumGetHeapTupleHeader(event),
													 EVENT_CREATED_AT, &isnull));
	if (action->kind == EQ_ACTION_CALL)
	{
		arguments = eq_json_without(arguments, "function");
		eq_read_job_options(&job, &arguments->root, EQ_IN_CALL, false);
		enqueue_call(rule, event, false, i, NULL, &job, from);
		return;
	}
	eq_read_job_options(&job, &arguments->root, EQ_IN_ACTION, false);
	if (!action->has_payload)
		job.payload = whole;
	enqueue_job(rule, event, eq_get_queue(action->target), &job, from, late, only);
}

/* Enqueues the job of one timer, of all that eq_act does. */
void
eq_start_timer(const EqRule *rule, Datum event, Jsonb *payload, Jsonb *options,
			   const EqTimer *timer)
{
	JsonbValue buffer;
	Jsonb *arguments;

	if (rule->queue_id != 0)
		enqueue_own_job(rule, event, payload, options, true, timer);
	for (int i = 0; i < rule->n_actions; i++)
	{
		if (rule->actions[i].kind != EQ_ACTION_ENQUEUE)
			continue;
		(void) eq_split_action(
			eq_json_member(payload, "actions", &buffer)->val.binary.data, i,
			&arguments);
		do_job(rule, i, event, arguments, options, true, timer);
	}
}

/*
 * Performs the actions of a rule that fires, with the payload and options of eq_query_rule.
 * late: other rules may have met later events already.
 */
void
eq_act(const EqRule *rule, Datum event, Jsonb *payload, Jsonb *options, bool late)
{
	ErrorContextCallback callback = {.callback = eq_tell_action,
									 .previous = error_context_stack};
	JsonbValue buffer;
	JsonbValue *filled;
	int number;

	if (rule->n_actions == 0)
	{
		if (rule->queue_id != 0)
			enqueue_own_job(rule, event, payload, options, late, NULL);
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
		(void) eq_split_action(filled->val.binary.data, i, &arguments);
		switch (rule->actions[i].kind)
		{
			case EQ_ACTION_ENQUEUE:
			case EQ_ACTION_CALL:
				do_job(rule, i, event, arguments, options, late, NULL);
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
