/*
 * guard.c: refuses UPDATE, DELETE and TRUNCATE of the tables of events and of audit_log to
 * every role, and logs the attempt.
 *
 * Only functions of the extension that move events between its tables, or delete old rows
 * of audit_log or an archived partition, open the guard, for the rest of their transaction;
 * a subtransaction that is rolled back closes the one that it has opened.
 */
#include "postgres.h"

#include "access/xact.h"
#include "commands/trigger.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "storage/proc.h"
#include "utils/rel.h"

#include "compat.h"
#include "event_queue.h"
#include "store/store.h"
#include "table/own_parts.h"

PG_FUNCTION_INFO_V1(eq_refuse_change);
PG_FUNCTION_INFO_V1(eq_open_guard);

Datum
eq_refuse_change(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;
	const char *what;
	bool is_event;
	const char *table;

	if (!CALLED_AS_TRIGGER(fcinfo))
		ereport(ERROR, (errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
						errmsg("refuse_change: not called by trigger manager")));
	is_event = trigger->tg_trigger->tgnargs == 0;
	if (eq_guard_open_in == EQ_MY_LXID &&
		!TRIGGER_FIRED_BY_UPDATE(trigger->tg_event))
		PG_RETURN_POINTER(trigger->tg_trigtuple);
	what = TRIGGER_FIRED_BY_UPDATE(trigger->tg_event)	? "UPDATE"
		   : TRIGGER_FIRED_BY_DELETE(trigger->tg_event) ? "DELETE"
														: "TRUNCATE";
	table = is_event ? "event_store" : trigger->tg_trigger->tgargs[0];
	ereport(LOG, (errmsg("refused %s of event_queue.%s by role \"%s\"", what,
						 RelationGetRelationName(trigger->tg_relation),
						 GetUserNameFromId(GetUserId(), true))));
	ereport(
		ERROR,
		(errcode(ERRCODE_EQ_APPEND_ONLY),
		 errmsg("cannot execute %s on table \"%s\"", what, table),
		 errdetail("Table \"%s\" is append-only.", table),
		 is_event
			 ? errhint(
				   "Append an event that corrects the earlier one. What may not be kept leaves the store by event_queue.split_event_partition and archive_event_partition.")
			 : errhint("Old rows are removed after event_queue.keep_audit.")));
	PG_RETURN_POINTER(NULL);
}

static SubTransactionId opened_in;

static void
keep_open(SubTransactionId sub, SubTransactionId parent)
{
	if (opened_in == sub)
		opened_in = parent;
}

/* The function that opened it has failed before it could close it. */
static void
close_again(SubTransactionId sub, SubTransactionId parent)
{
	if (opened_in == sub)
		eq_guard_open_in = InvalidLocalTransactionId;
}

EqXactKind eq_open_guards = {
	.at_subcommit = keep_open,
	.at_subabort = close_again,
};

/* Only the owner of the extension may call it (grants.sql). */
Datum
eq_open_guard(PG_FUNCTION_ARGS)
{
	opened_in = GetCurrentSubTransactionId();
	eq_guard_open_in = PG_GETARG_BOOL(0) ? EQ_MY_LXID : InvalidLocalTransactionId;
	PG_RETURN_VOID();
}
