/*
 * engine.c: evaluates rules for events.
 *
 * Called by the rule runner, one batch per transaction: reads events above the checkpoint
 * and up to the watermark, matches patterns in memory, evaluates conditions, enqueues jobs
 * and moves the checkpoint.  All of it commits or none: each event meets each rule exactly
 * once.
 *
 * A rule that lags behind the others (it started in the past, or was paused) reads events up
 * to the checkpoint by itself, some in each batch's transaction, and joins the others when
 * it has caught up (table rule_catch_up).
 *
 * A condition runs as the rule's owner, read-only, under a time limit, in a subtransaction.
 * An error in it becomes a job of the queue "rule-calls", which tries it again; rules that
 * call functions become such jobs too.  An executor runs them (eq_run_rule_call).
 *
 * A condition that reaches the time limit, or ignores its cancellation so that the process
 * is terminated, is a fault of its rule (watch/faults.c).  For a while, longer each time,
 * the rule is then not evaluated here: its events become such jobs at once.  A condition
 * that is merely slow is treated likewise, so that it does not delay other rules.  If the
 * fault has come EQ_MAX_LOST times in a row, executors refuse these jobs for that while
 * (EQ040), so that the condition does not cost one process after the other.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "storage/lock.h"
#include "storage/proc.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/json.h"
#include "utils/jsonb.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/resowner.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timeout.h"
#include "utils/timestamp.h"

#include "access/table.h"
#include "common/argument.h"
#include "common/function.h"
#include "common/interval.h"
#include "common/json.h"
#include "common/leftovers.h"
#include "common/log_line.h"
#include "queue/queue.h"
#include "rules/rule.h"
#include "rules/rules.h"
#include "store/store.h"
#include "table/table.h"
#include "tenant/tenant.h"
#include "wake/wake.h"
#include "watch/watch.h"

/* A rule that takes so long is slow: jobs evaluate it, so that others don't wait. */
#define SLOW_US (100 * INT64CONST(1000))

/* A batch ends after this time, but has one event at least. */
#define BATCH_US (500 * INT64CONST(1000))

/* Maximum number of rules whose plans are kept; a plan takes about 10 kB. */
#define MAX_PLANS 2000

/* The rule runner's rules; forgotten when the configuration changes. */
static MemoryContext rules_context = NULL;
static EqRule *rules;
static SPIPlanPtr *plans; /* of their conditions and templates, once they have run */
static int n_rules = -1;  /* -1: not read */
static int next_behind = 0;			/* which rule catches up next */
static uint32 rules_generation;		/* of the configuration they were read from */
static int64 rules_mark;			/* eq_mark_of_rules then */
static bool rules_are_read = false; /* by a transaction that has committed */
static bool any_behind = false;		/* one of them catches up */

/* For faults: tells whether a rule with this label exists. */
static bool
is_label(const char *name)
{
	for (int i = 0; i < n_rules; i++)
	{
		if (strcmp(rules[i].label, name) == 0)
			return true;
	}
	return false;
}

/*
 * Which rules catch up, and how far they are.  A rule whose row is there meets events by
 * catch_up alone, until it stands where the others stand.
 */
static void
read_catch_up(void)
{
	static EqStatement read = {
		.sql = "SELECT rule_id, position FROM event_queue_internal.rule_catch_up"};
	EqSpi spi;

	eq_spi_begin(&spi, eq_extension_owner(), SECURITY_LOCAL_USERID_CHANGE);
	eq_spi_run(&read, NULL, NULL);
	any_behind = false; /* not before it is read: after an error it is read again */
	for (int i = 0; i < n_rules; i++)
	{
		EqRule *rule = &rules[i];

		if (rule->behind)
			rule->start_position = rule->own_start;
		rule->behind = false;
		for (uint64 row = 0; row < SPI_processed; row++)
		{
			HeapTuple tuple = SPI_tuptable->vals[row];
			TupleDesc desc = SPI_tuptable->tupdesc;
			bool isnull;

			if (DatumGetInt32(SPI_getbinval(tuple, desc, 1, &isnull)) !=
				rule->rule_id)
				continue;
			rule->behind = any_behind = true;
			rule->own_start = rule->start_position;
			rule->start_position = PG_INT64_MAX;
			rule->caught_up = Max(rule->own_start, DatumGetInt64(SPI_getbinval(
													   tuple, desc, 2, &isnull)));
		}
	}
	eq_spi_end(&spi);
}

/*
 * The rules that are off in the snapshot in which those that are on were read, and in no
 * newer one: one that was resumed since would miss this batch's events.
 */
static Datum
rules_that_are_off(void)
{
	bool isnull;

	if (SPI_execute(
			"SELECT array(SELECT rule_id FROM event_queue.rule WHERE NOT enabled)",
			true, 1) != SPI_OK_SELECT)
		elog(ERROR, "could not read table rule");
	return SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull);
}

/*
 * Notes where paused rules stopped: where the others stand when they are first
 * left out.
 */
static void
note_paused(void)
{
	static EqStatement note = {
		.sql = "INSERT INTO event_queue_internal.rule_catch_up (rule_id, position)"
			   " SELECT r.rule_id, c.position FROM event_queue.rule r,"
			   " event_queue_internal.rule_checkpoint c WHERE r.rule_id = ANY ($1)"
			   " ON CONFLICT DO NOTHING",
		.n_arguments = 1,
		.types = {INT4ARRAYOID}};
	static EqStatement forget = {
		.sql = "DELETE FROM event_queue_internal.rule_catch_up c WHERE NOT EXISTS"
			   " (SELECT FROM event_queue.rule r WHERE r.rule_id = c.rule_id)"};
	Datum off = rules_that_are_off();

	eq_spi_run(&note, &off, NULL);
	eq_spi_run(&forget, NULL, NULL);
}

static void
read_rules(void)
{
	EqSpi spi;

	if (rules_context == NULL)
		rules_context = AllocSetContextCreate(TopMemoryContext, "event_queue rules",
											  ALLOCSET_DEFAULT_SIZES);
	for (int i = 0; i < n_rules; i++)
	{
		if (plans[i])
			(void) SPI_freeplan(plans[i]);
	}
	n_rules = -1;
	eq_forget_rule_types();
	MemoryContextReset(rules_context);
	eq_spi_begin(&spi, eq_extension_owner(), SECURITY_LOCAL_USERID_CHANGE);
	if (SPI_execute(
			"SELECT " EQ_RULE_COLUMNS
			" FROM event_queue.rule WHERE enabled ORDER BY rule_order, rule_id",
			true, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not read table rule");
	{
		MemoryContext old = MemoryContextSwitchTo(rules_context);

		rules = palloc0(Max(SPI_processed, 1) * sizeof(EqRule));
		plans = palloc0(Max(SPI_processed, 1) * sizeof(SPIPlanPtr));
		for (uint64 i = 0; i < SPI_processed; i++)
		{
			eq_fill_rule(&rules[i], SPI_tuptable->vals[i], SPI_tuptable->tupdesc);
			if (i < MAX_PLANS)
				rules[i].plan = &plans[i];
		}
		MemoryContextSwitchTo(old);
	}
	n_rules = SPI_processed;
	eq_forget_rule_counts();
	note_paused();
	eq_spi_end(&spi);
	eq_clear_faults(MyDatabaseId, "rule", is_label);
}

Jsonb *
eq_event_metadata_of(Datum event)
{
	bool isnull;

	return DatumGetJsonbP(
		GetAttributeByNum(DatumGetHeapTupleHeader(event), EVENT_METADATA, &isnull));
}

/* May the rule fire, by the depth of the event's chain and by the actions it led to? */
EqChainVerdict
eq_judge_rule(const EqRule *rule, Datum event)
{
	EqChainVerdict verdict = eq_judge_chain(rule, eq_event_metadata_of(event));

	if (verdict == EQ_CHAIN_FREE && eq_fan_out_is_over(event))
		verdict = EQ_CHAIN_TOO_DEEP;
	return verdict;
}

/* Does the rule call a function for each event of its pattern, so that none is evaluated? */
static bool
needs_nothing_asked(const EqRule *rule)
{
	return rule->function && rule->condition == NULL && rule->n_changing == 0 &&
		   !rule->on_table;
}

/*
 * eq_evaluate_rule and the actions that follow from it, in a subtransaction; false and
 * the error if one of them failed (a queue that is drained, say).
 */
static bool
try_rule(EqRule *rule, Datum event, bool backfilled, Jsonb **payload,
		 EqChainVerdict *verdict, ErrorData **error)
{
	MemoryContext context = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	volatile bool ok = true;
	int lock_timeout = LockTimeout;
	TimestampTz start = GetCurrentTimestamp();

	eq_drop_leftovers(); /* of another rule's condition */
	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(context);
	PG_TRY();
	{
		Jsonb *options = NULL;

		*payload = needs_nothing_asked(rule)
					   ? eq_empty_object()
					   : eq_evaluate_rule(rule, event, &options);
		if (options)
			LockTimeout = EQ_KEY_WAIT_MS;
		if (*payload != NULL)
			*verdict = eq_judge_rule(rule, event);
		if (*payload != NULL && *verdict == EQ_CHAIN_FREE)
			eq_act(rule, event, *payload, options, backfilled || rule->behind);
		ReleaseCurrentSubTransaction();
	}
	PG_CATCH();
	{
		eq_end_if_terminated();
		MemoryContextSwitchTo(context);
		disable_timeout(STATEMENT_TIMEOUT, false);
		eq_watch_end(0);
		QueryCancelPending = false; /* of the timeout or the watch */
		*error = CopyErrorData();
		eq_note_condition_error((*error)->sqlerrcode == ERRCODE_QUERY_CANCELED);
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
		ok = false;
	}
	PG_END_TRY();
	LockTimeout = lock_timeout;
	MemoryContextSwitchTo(context);
	CurrentResourceOwner = owner;
	if (!ok)
		(void) eq_rule_rests(rule); /* notes the code that did not end */
	if (GetCurrentTimestamp() - start > SLOW_US)
		rule->slow_until = GetCurrentTimestamp() +
						   EQ_FIRST_REST_MS * INT64CONST(1000);
	return ok;
}

/* A column of an event's row. */
char *
eq_event_text(Datum event, int column)
{
	bool isnull;
	HeapTupleHeader row = DatumGetHeapTupleHeader(event);

	return TextDatumGetCString(GetAttributeByNum(row, column, &isnull));
}

int64
eq_event_position(Datum event)
{
	bool isnull;

	return DatumGetInt64(
		GetAttributeByNum(DatumGetHeapTupleHeader(event), EVENT_POSITION, &isnull));
}

/* Logs that an event met a rule. */
static void
log_meeting(const EqRule *rule, Datum event, const char *outcome, TimestampTz start,
			const ErrorData *error)
{
	HeapTupleHeader row = DatumGetHeapTupleHeader(event);
	StringInfoData line;
	JsonbValue buffer;
	JsonbValue *chain;
	bool isnull;
	char *id;

	if (eq_log_attempts == EQ_LOG_OFF ||
		(eq_log_attempts == EQ_LOG_FAILURES && error == NULL))
		return;
	id = DatumGetCString(
		DirectFunctionCall1(uuid_out, GetAttributeByNum(row, EVENT_ID, &isnull)));
	chain = eq_json_member(
		DatumGetJsonbP(GetAttributeByNum(row, EVENT_METADATA, &isnull)),
		"correlation_id", &buffer);
	eq_log_begin(&line, "listener");
	eq_log_text(&line, "rule", rule->name);
	eq_log_text(&line, "event", eq_event_text(event, EVENT_TYPE));
	eq_log_text(&line, "id", id);
	eq_log_int64(&line, "position", eq_event_position(event));
	eq_log_text(&line, "tenant", eq_event_text(event, EVENT_TENANT));
	eq_log_text(&line, "outcome", outcome);
	eq_log_ms(&line, "ms", Max(GetCurrentTimestamp() - start, 0));
	eq_log_text(&line, "sqlstate",
				error ? unpack_sql_state(error->sqlerrcode) : NULL);
	eq_log_text(&line, "correlation_id",
				chain && chain->type == jbvString ? eq_json_string(chain) : id);
	eq_log_text(&line, "error", error ? error->message : NULL);
	ereport(LOG,
			(errmsg_internal("%s", line.data),
			 error ? errdetail("A job of queue \"rule-calls\" tries again.") : 0,
			 errhidestmt(true), errhidecontext(true)));
}

/*
 * Evaluates one rule, whose pattern and tenant match, for one event, live or by a
 * backfill.  Did it fire?
 */
static bool
apply_rule(EqRule *rule, Datum event, bool backfilled)
{
	const char *outcome = "not matched";
	TimestampTz start = eq_log_attempts == EQ_LOG_OFF ? 0 : GetCurrentTimestamp();
	Jsonb *payload = NULL;
	ErrorData *error = NULL;
	EqChainVerdict verdict = EQ_CHAIN_FREE;
	bool fired = false;
	bool deferred = false;

	rule->seen++;
	if (!needs_nothing_asked(rule) &&
		(eq_rule_rests(rule) > 0 || rule->slow_until > GetCurrentTimestamp()))
	{
		deferred = true;
		outcome = "deferred";
	}
	else if (!try_rule(rule, event, backfilled, &payload, &verdict, &error))
	{
		deferred = true;
		outcome = "failed";
		rule->failed++;
		rule->error = MemoryContextStrdup(CurTransactionContext, error->message);
	}
	else if (payload != NULL && verdict == EQ_CHAIN_FREE)
	{
		fired = true;
		rule->matched++;
		eq_count_fan_out(rule, event);
		outcome = "matched";
	}
	else if (payload != NULL)
	{
		outcome = verdict == EQ_CHAIN_LOOP ? "suppressed" : "too deep";
		*(verdict == EQ_CHAIN_LOOP ? &rule->suppressed : &rule->too_deep) += 1;
	}
	if (deferred)
		eq_enqueue_rule_call(rule, event, true);
	if (fired || deferred)
		eq_note_run(rule, eq_event_position(event), fired, backfilled);
	log_meeting(rule, event, outcome, start, error);
	return fired;
}

static void
apply_rules(Datum event)
{
	char *type = eq_event_text(event, EVENT_TYPE);
	char *tenant = eq_event_text(event, EVENT_TENANT);
	int64 position = eq_event_position(event);
	bool of_table = strcmp(eq_event_text(event, EVENT_AGGREGATE_TYPE),
						   EQ_TABLE_AGGREGATE) == 0;
	bool tenant_stopped = false; /* by a rule of the tenant, for these */
	int n;
	const int *of_type = eq_rules_of_type(rules, n_rules, type, &n);

	for (int i = 0; i < n; i++)
	{
		EqRule *rule = &rules[of_type[i]];

		CHECK_FOR_INTERRUPTS();
		if (position <= rule->start_position ||
			(rule->tenant &&
			 (tenant_stopped || strcmp(rule->tenant, tenant) != 0)) ||
			rule->on_table != of_table)
			continue;
		if (!apply_rule(rule, event, false) || !rule->stop)
			continue;
		if (rule->tenant == NULL)
			break;
		tenant_stopped = true;
	}
}

static int64
read_checkpoint(void)
{
	EqSpi spi;
	int64 position = 0;
	bool isnull;

	eq_spi_begin(&spi, eq_extension_owner(), SECURITY_LOCAL_USERID_CHANGE);
	if (SPI_execute(
			"SELECT position FROM event_queue_internal.rule_checkpoint FOR UPDATE",
			false, 1) != SPI_OK_SELECT)
		elog(ERROR, "could not read table rule_checkpoint");
	/*
	 * create_rule writes it.  Without it (a restore that has not come so far) the
	 * old events are not to meet the rules again.
	 */
	if (SPI_processed != 1)
		ereport(
			ERROR,
			(errcode(ERRCODE_EQ_UNKNOWN_OBJECT),
			 errmsg("the checkpoint of the rules is missing"),
			 errdetail("Rules do not run without it."),
			 errhint(
				 "If no restore is under way, insert the position of the last event that they have seen into event_queue_internal.rule_checkpoint.")));
	position = DatumGetInt64(
		SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
	eq_spi_end(&spi);
	return position;
}

static void
write_checkpoint(int64 position)
{
	EqSpi spi;
	Oid type = INT8OID;
	Datum value = Int64GetDatum(position);

	eq_spi_begin(&spi, eq_extension_owner(), SECURITY_LOCAL_USERID_CHANGE);
	if (SPI_execute_with_args(
			"UPDATE event_queue_internal.rule_checkpoint SET position = $1", 1,
			&type, &value, NULL, false, 0) != SPI_OK_UPDATE)
		elog(ERROR, "could not write table rule_checkpoint");
	eq_spi_end(&spi);
}

/* Evaluates an event for a backfill, unless its rule fired for it; false at the rate's limit. */
static bool
backfill_event(EqBackfill *backfill, EqRule *rule, Datum event)
{
	if (eq_backfill_wants(backfill, eq_event_position(event)) &&
		apply_rule(rule, event, true))
		backfill->counts[EQ_BACKFILL_FIRED]++;
	return backfill->counts[EQ_BACKFILL_FIRED] < backfill->limit;
}

/*
 * Evaluates rules for events that were read: all rules, or only this one, perhaps for its
 * backfill.  Stops after BATCH_US, since the locks and positions that actions take are held
 * until the commit.  Returns how many events it were, and the position of the last.
 */
int
eq_meet_events(Tuplestorestate *events, EqRule *only, EqBackfill *backfill,
			   int64 *last)
{
	TimestampTz start = GetCurrentTimestamp();
	Relation store = table_open(eq_relation_oid(EQ_EVENT_STORE), AccessShareLock);
	TupleTableSlot *slot = MakeSingleTupleTableSlot(RelationGetDescr(store),
													&TTSOpsMinimalTuple);
	MemoryContext context = AllocSetContextCreate(
		CurrentMemoryContext, "event_queue event", ALLOCSET_DEFAULT_SIZES);
	int n_events = 0;
	bool enough = false;

	while (!enough && tuplestore_gettupleslot(events, true, false, slot))
	{
		MemoryContext old = MemoryContextSwitchTo(context);
		Datum event = ExecFetchSlotHeapTupleDatum(slot);

		CHECK_FOR_INTERRUPTS();
		if (only == NULL)
			apply_rules(event);
		else if (eq_rule_meets(only, event))
		{
			if (backfill)
				enough = !backfill_event(backfill, only, event);
			else
				(void) apply_rule(only, event, false);
		}
		*last = eq_event_position(event);
		MemoryContextSwitchTo(old);
		MemoryContextReset(context);
		n_events++;
		if (GetCurrentTimestamp() - start > BATCH_US)
			break;
	}
	ExecDropSingleTupleTableSlot(slot);
	table_close(store, AccessShareLock);
	return n_events;
}

/*
 * Evaluates a rule that catches up for its next events, up to the checkpoint and not beyond
 * the watermark.  True: there are more.
 */
static bool
catch_up(EqRule *rule, int64 checkpoint, int64 watermark)
{
	static EqStatement move = {
		.sql = "UPDATE event_queue_internal.rule_catch_up SET position = $2"
			   " WHERE rule_id = $1",
		.n_arguments = 2,
		.types = {INT4OID, INT8OID}};
	static EqStatement join = {
		.sql = "DELETE FROM event_queue_internal.rule_catch_up WHERE rule_id = $1",
		.n_arguments = 1,
		.types = {INT4OID}};
	Datum values[2] = {Int32GetDatum(rule->rule_id)};
	int64 until = Min(checkpoint, watermark);
	int64 met = Max(rule->caught_up, until); /* if nothing is left to be read */
	bool more = false;

	if (rule->caught_up < until)
	{
		Tuplestorestate *events = tuplestore_begin_heap(false, false, work_mem);
		int64 last = eq_read_events(rule->caught_up, until, EQ_CATCH_UP_BATCH, NULL,
									events);

		if (last != 0)
		{
			int n_events = eq_meet_events(events, rule, NULL, &met);

			more = met != last || n_events == EQ_CATCH_UP_BATCH;
			if (!more)
				met = until;
		}
		tuplestore_end(events);
	}
	values[1] = Int64GetDatum(met);
	eq_run_as_owner(met < checkpoint ? &move : &join, values, NULL);
	/* After joining the others, call again: if the rule was the only one, nobody has read new events. */
	return more || met >= checkpoint;
}

/*
 * Runs one batch, in a transaction of its own.  Returns true if there may be more.
 */
bool
eq_run_rules(void)
{
	uint32 generation = rules_generation;
	bool changed;
	int64 after;
	int64 up_to;
	int64 checkpoint;
	int64 last;
	int64 met = 0;
	int n_events = 0;
	bool more = false;
	bool has_behind;
	bool backfills;
	int first = next_behind;
	int turns = 0;
	TimestampTz begun = GetCurrentTimestamp();
	Tuplestorestate *events;

	SetCurrentStatementStartTimestamp(); /* now() of conditions and actions */
	StartTransactionCommand();

	/*
	 * In this order: a rule that was committed before one of these events was
	 * appended has raised the generation before the event came below the
	 * watermark, or is about to, and is in the snapshot then.
	 */
	up_to = eq_watermark();
	changed = eq_config_has_changed(&generation);
	PushActiveSnapshot(GetTransactionSnapshot());
	/* What someone commits just now may be anything: plans are kept if it is no rule. */
	if (!rules_are_read || generation != rules_generation ||
		(changed && eq_mark_of_rules() != rules_mark))
	{
		rules_are_read = false;
		read_rules();
		rules_generation = generation;
		rules_mark = eq_mark_of_rules();
		any_behind = true; /* perhaps */
		eq_look_for_backfills();
	}
	if (n_rules == 0)
	{
		PopActiveSnapshot();
		CommitTransactionCommand();
		rules_are_read = true;
		return false;
	}

	/* Locked for writing before it is read: REINDEX between the two would deadlock. */
	LockRelationOid(eq_find_relation("rule_checkpoint"), RowExclusiveLock);
	eq_forget_noted_runs();
	eq_forget_roots();
	if (any_behind)
		read_catch_up();
	after = PG_INT64_MAX;
	for (int i = 0; i < n_rules; i++)
	{
		after = Min(after, rules[i].start_position);
		rules[i].seen = rules[i].matched = rules[i].failed = 0;
		rules[i].suppressed = rules[i].too_deep = 0;
		rules[i].error = NULL;
	}
	checkpoint = read_checkpoint();
	after = Max(after, checkpoint);

	events = tuplestore_begin_heap(false, false, work_mem);
	last = eq_read_events(after, up_to, eq_rule_batch, NULL, events);
	if (last != 0)
	{
		n_events = eq_meet_events(events, NULL, NULL, &met);
		write_checkpoint(met);
		checkpoint = met;
		more = met != last || n_events == eq_rule_batch;
	}
	tuplestore_end(events);
	has_behind = any_behind;
	for (int i = 0; i < n_rules && has_behind; i++)
	{
		EqRule *rule = &rules[(first + i) % n_rules];

		if (!rule->behind)
			continue;
		/*
		 * The others' turn comes, and new events do not wait for all of them; but one
		 * goes on in each batch, also when events that come fill all the time.
		 */
		if (turns++ > 0 && GetCurrentTimestamp() - begun > BATCH_US)
		{
			more = true;
			break;
		}
		more = catch_up(rule, checkpoint, up_to) || more;
		next_behind = (first + i + 1) % n_rules;
	}
	/* A backfill asks what has fired, also just now. */
	eq_write_runs();
	/* If no event is left to be read, all up to the watermark have met the rules. */
	backfills = eq_run_backfills(rules, n_rules,
								 last == 0 ? Max(checkpoint, up_to) : checkpoint,
								 up_to, begun + BATCH_US, &more);
	if (last != 0 || has_behind || backfills)
	{
		eq_write_runs();
		eq_write_roots();
		eq_write_rule_counts(rules, n_rules);
	}
	PopActiveSnapshot();
	CommitTransactionCommand();
	rules_are_read = true;
	LockReleaseAll(USER_LOCKMETHOD, true); /* of conditions */
	return more;
}
