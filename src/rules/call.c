/*
 * call.c: runs jobs of the queue "rule-calls": functions of rules, and rules whose
 * condition failed or was slow (engine.c).
 *
 * Called by the executor (worker/).
 */
#include "postgres.h"

#include "executor/tuptable.h"
#include "miscadmin.h"
#include "storage/proc.h"
#include "utils/guc.h"
#include "utils/jsonb.h"
#include "utils/rel.h"

#include "access/table.h"
#include "common/audit.h"
#include "common/function.h"
#include "common/json.h"
#include "queue/queue.h"
#include "rules/rule.h"
#include "rules/rules.h"
#include "store/store.h"
#include "table/table.h"
#include "watch/watch.h"

/* Executors refuse a condition that has reached its time limit this many times in a row. */
#define EQ_MAX_LOST 3

/* The event at a position, as a row; 0 if there is none. */
Datum
eq_read_event(int64 position)
{
	Tuplestorestate *store = tuplestore_begin_heap(false, false, work_mem);
	Relation rel = table_open(eq_relation_oid(EQ_EVENT_STORE), AccessShareLock);
	TupleTableSlot *slot = MakeSingleTupleTableSlot(RelationGetDescr(rel),
													&TTSOpsMinimalTuple);
	Datum event = 0;

	(void) eq_read_events(position - 1, position, 1, NULL, store);
	if (tuplestore_gettupleslot(store, true, false, slot))
		event = ExecFetchSlotHeapTupleDatum(slot);
	ExecDropSingleTupleTableSlot(slot);
	table_close(rel, AccessShareLock);
	tuplestore_end(store);
	return event;
}

/*
 * What a job of queue "rule-calls" does of a rule's actions: all, or the start of one timer.
 * An executor waits for locks of others no longer than the rule runner: the job is tried
 * again after a second, and that is no attempt.
 */
static void
act_later(const EqRule *rule, Datum event, Jsonb *payload, Jsonb *options,
		  const EqTimer *timer)
{
	MemoryContext context = CurrentMemoryContext;
	int lock_timeout = LockTimeout;

	PG_TRY();
	{
		LockTimeout = EQ_KEY_WAIT_MS;
		if (timer)
			eq_start_timer(rule, event, payload, options, timer);
		else
			eq_act(rule, event, payload, options, true);
		LockTimeout = lock_timeout;
	}
	PG_CATCH();
	{
		ErrorData *error;

		LockTimeout = lock_timeout;
		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		FlushErrorState();
		if (error->sqlerrcode == ERRCODE_LOCK_NOT_AVAILABLE)
		{
			error->sqlerrcode = ERRCODE_EQ_HANDLER_SNOOZED;
			error->detail = NULL;
		}
		ReThrowError(error);
	}
	PG_END_TRY();
}

static int64
payload_number(Jsonb *payload, const char *key)
{
	JsonbValue buffer;
	int64 number;

	if (!eq_json_int64(eq_json_member(payload, key, &buffer), &number))
		ereport(ERROR,
				(errcode(ERRCODE_EQ_INVALID_ARGUMENT),
				 errmsg("job of queue \"rule-calls\" has no numeric member \"%s\"",
						key)));
	return number;
}

/* EQ040 if the rule's condition did not end EQ_MAX_LOST times in a row. */
static void
require_awake(const EqRule *rule)
{
	if (eq_rule_rests(rule) < EQ_MAX_LOST)
		return;
	ereport(
		ERROR,
		(errcode(ERRCODE_EQ_NOT_ENDED),
		 errmsg("rule \"%s\" is resting: its condition did not end", rule->name),
		 errhint(
			 "Replace the rule by one with another condition, then call event_queue.retry_dead.")));
}

/*
 * Starts a timer whose start was refused at first (timer.c), by the rule as it is now.  The
 * firing is not counted: it was when the start was refused.
 */
static void
run_start(EqRule *rule, Datum event, const EqTimer *timer)
{
	Jsonb *options = NULL;
	Jsonb *payload;

	require_awake(rule);
	eq_require_owner("rule function", rule->label, rule->owner);
	payload = eq_evaluate_rule(rule, event, &options);
	if (payload)
		act_later(rule, event, payload, options, timer);
}

/*
 * The function that a job of queue "rule-calls" is to call, for the rule as it is now;
 * NULL if it calls none.  One of a list is named by the job, since the list may have
 * another order by now: EQ025 if the rule does not call it any more.
 */
static const char *
function_of_call(const EqRule *rule, int64 action, const char *named)
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

/*
 * Runs a job of queue "rule-calls" in the executor's transaction.  The present
 * role is left as the rule's owner if its function ran, so that deferred
 * triggers fire with the owner's rights; that role is returned.
 */
Oid
eq_run_rule_call(const char *tenant, Jsonb *payload)
{
	EqRule *rule = eq_read_rule((int32) payload_number(payload, "rule_id"));
	Datum event = eq_read_event(payload_number(payload, "position"));
	JsonbValue buffer;
	JsonbValue action_buffer;
	JsonbValue function_buffer;
	JsonbValue key_buffer;
	EqTimer timer;
	JsonbValue *evaluate = eq_json_member(payload, "evaluate", &buffer);
	int64 action = -1;
	const char *function;
	Jsonb *job_payload = NULL;
	Jsonb *options = NULL;
	Oid owner;
	int sec_context;

	if (rule == NULL || event == 0 ||
		strcmp(eq_event_text(event, EVENT_TENANT), tenant) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_EQ_UNKNOWN_OBJECT),
				 errmsg("the rule or the event of this job no longer exists")));
	/* The rule may have been replaced since: it acts as it is now. */
	if (!eq_rule_meets(rule, event))
	{
		eq_settle_run(rule, eq_event_position(event), false);
		return InvalidOid;
	}
	timer.key = eq_json_string(eq_json_member(payload, "timer_key", &key_buffer));
	if (timer.key)
	{
		timer.queue_id = (int32) payload_number(payload, "timer_queue");
		run_start(rule, event, &timer);
		return InvalidOid;
	}
	(void) eq_json_int64(eq_json_member(payload, "action", &action_buffer), &action);
	function = function_of_call(
		rule, action,
		eq_json_string(eq_json_member(payload, "function", &function_buffer)));
	if (function == NULL ||
		(evaluate && evaluate->type == jbvBool && evaluate->val.boolean))
	{
		EqChainVerdict verdict = EQ_CHAIN_FREE;

		require_awake(rule);
		eq_require_owner("rule function", rule->label, rule->owner);
		(void) eq_clear_fault("rule function", rule->label);
		job_payload = eq_evaluate_rule(rule, event, &options);
		eq_forget_roots();
		if (job_payload)
			verdict = eq_judge_rule(rule, event);
		if (job_payload && verdict == EQ_CHAIN_FREE)
			eq_count_fan_out(rule, event);
		eq_write_roots();
		eq_settle_run(rule, eq_event_position(event),
					  job_payload != NULL && verdict == EQ_CHAIN_FREE);
		if (job_payload == NULL)
			return InvalidOid;
		switch (verdict)
		{
			case EQ_CHAIN_FREE:
				eq_count_rule_call(rule->rule_id, EQ_RULE_MATCHED, NULL);
				break;
			case EQ_CHAIN_LOOP:
				eq_count_rule_call(rule->rule_id, EQ_RULE_SUPPRESSED, NULL);
				return InvalidOid;
			case EQ_CHAIN_TOO_DEEP:
				eq_count_rule_call(rule->rule_id, EQ_RULE_TOO_DEEP, NULL);
				return InvalidOid;
		}
	}
	if (function == NULL)
	{
		act_later(rule, event, job_payload, options, NULL);
		return InvalidOid;
	}

	eq_note_handler(function,
					eq_require_callable("rule function", rule->label, rule->owner,
										function, eq_event_type_oid()),
					0);
	(void) eq_clear_fault("rule function", rule->label);
	GetUserIdAndSecContext(&owner, &sec_context);
	owner = rule->owner;
	SetUserIdAndSecContext(owner, sec_context | SECURITY_LOCAL_USERID_CHANGE);
	eq_audit_role = owner;
	(void) set_config_option(
		"search_path",
		psprintf("pg_catalog, %s, pg_temp", eq_function_schema(function)),
		PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
	(void) eq_call_function(function, eq_event_type_oid(), event);
	return owner;
}
