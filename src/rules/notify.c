/*
 * notify.c: the action "notify" of a rule.
 */
#include "postgres.h"

#include "commands/async.h"
#include "fmgr.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"
#include "utils/timestamp.h"

#include "common/json.h"
#include "event_queue.h"
#include "rules/rule.h"
#include "rules/rules.h"

/* How often is looked at how full the NOTIFY queue is. */
#define NOTIFY_LOOK_US (100 * INT64CONST(1000))

int eq_rule_notify_limit = 90; /* event_queue.rule_notify_limit: per cent */

/*
 * A full NOTIFY queue would fail the commit, and so the firings of all rules with it: this
 * one fails before, and a job tries it again.  The look also has the server drop what all
 * listeners have read, which NOTIFY does not do any more once the queue is full.
 */
void
eq_refuse_full_notify_queue(void)
{
	static TimestampTz next_look = 0;
	static bool full = false;
	TimestampTz now = GetCurrentTimestamp();

	if (now >= next_look || next_look > now + NOTIFY_LOOK_US)
	{
		full = DatumGetFloat8(DirectFunctionCall1(pg_notification_queue_usage, 0)) >
			   eq_rule_notify_limit / 100.0;
		next_look = now + NOTIFY_LOOK_US;
	}
	if (full)
		ereport(
			ERROR,
			(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
			 errmsg("the NOTIFY queue is nearly full"),
			 errhint(
				 "The queue cannot be emptied while a session that executed LISTEN keeps a transaction open.")));
}

void
eq_notify_action(const EqAction *action, JsonbContainer *arguments)
{
	JsonbValue buffer;
	JsonbValue *value = getKeyJsonValueFromContainer(arguments, "payload",
													 strlen("payload"), &buffer);
	char *payload = "";

	if (value && value->type == jbvString)
		payload = eq_json_string(value);
	else if (value && value->type != jbvNull)
	{
		Jsonb *json = JsonbValueToJsonb(value);

		payload = JsonbToCString(NULL, &json->root, VARSIZE(json));
	}
	eq_refuse_full_notify_queue();
	Async_Notify(action->target, payload);
}
