/*
 * engine.c: events meet rules.
 *
 * Called by the rule runner, which runs one batch a transaction: it reads events
 * above the checkpoint and up to the watermark, matches patterns in memory,
 * evaluates conditions, enqueues what follows, and moves the checkpoint.  All
 * of it commits or none: each event meets each rule exactly once.
 *
 * A rule that stands behind the others (it started in the past, or was off) meets the
 * events up to the checkpoint by itself, some in each batch's transaction, and goes on
 * with the others when it is there (table rule_catch_up).
 *
 * A condition runs as the rule's owner, without the right to write, under a
 * time limit, in a subtransaction: an error in it becomes a job of the queue
 * "rule-calls" that tries again, and so do rules that call a function.  Such
 * a job is run by an executor (eq_run_rule_call).
 *
 * A condition that reaches the time limit, or does not end even when cancelled and
 * so costs the process, is a fault of its rule (worker/faults.c).  For a while, each
 * time longer, the rule is then not evaluated here: its firings become such jobs at
 * once.  A condition that is merely slow is treated likewise, so that it does not
 * hold up other rules.  The executors try them, and once the fault has come
 * EQ_MAX_LOST times in a row, they refuse them for that while (EQ040), so that what
 * does not end does not cost one process after the other.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "funcapi.h"
#include "miscadmin.h"
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
#include "common/log_line.h"
#include "common/pattern.h"
#include "queue/queue.h"
#include "rules/rule.h"
#include "rules/rules.h"
#include "store/store.h"
#include "table/table.h"
#include "tenant/tenant.h"
#include "watch/watch.h"

/* How long a rule rests whose condition did not end: at first, and at most. */
#define FIRST_REST_MS (10 * 1000)
#define LAST_REST_MS  (3600 * 1000)

/* Other rules do not wait for one that takes so long. */
#define SLOW_US (100 * INT64CONST(1000))

/* So long the runner, and an executor in its place, wait for a key or an aggregate. */
#define KEY_WAIT_MS 50

/* So long a batch goes on, but for one event at least. */
#define BATCH_US (500 * INT64CONST(1000))

/* So often executors evaluate what does not end, before they refuse it. */
#define EQ_MAX_LOST 3

/* So many rules' plans are kept: each has some 10 kB. */
#define MAX_PLANS 2000

/* The rule runner's rules; forgotten when the configuration changes. */
static MemoryContext rules_context = NULL;
static EqRule *rules;
static SPIPlanPtr *plans; /* of their conditions and templates, once they have run */
static int n_rules = -1;  /* -1: not read */
static int next_behind = 0;			/* which rule catches up next */
static uint32 rules_generation;		/* of the configuration they were read from */
static bool rules_are_read = false; /* by a transaction that has committed */
static bool any_behind = false;		/* one of them catches up */

/* Events that a rule that catches up meets at once: more than come meanwhile. */
#define CATCH_UP_BATCH (4 * eq_rule_batch)

/* For faults: is there a rule of this label? */
static bool
is_label(const char *name)
{
	for (int i = 0; i < n_rules; i++)
	{
		if (strncmp(rules[i].label, name, strlen(name)) == 0)
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

	any_behind = false;
	eq_spi_begin(&spi, eq_extension_owner(), SECURITY_LOCAL_USERID_CHANGE);
	eq_spi_run(&read, NULL, NULL);
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
 * Where rules that were switched off stopped: where the others stand when they are first
 * left out.
 */
static void
note_paused(void)
{
	static EqStatement note = {
		.sql = "INSERT INTO event_queue_internal.rule_catch_up (rule_id, position)"
			   " SELECT r.rule_id, c.position FROM event_queue.rule r,"
			   " event_queue_internal.rule_checkpoint c WHERE NOT r.enabled"
			   " ON CONFLICT DO NOTHING"};
	static EqStatement forget = {
		.sql = "DELETE FROM event_queue_internal.rule_catch_up c WHERE NOT EXISTS"
			   " (SELECT FROM event_queue.rule r WHERE r.rule_id = c.rule_id)"};

	eq_spi_run(&note, NULL, NULL);
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

/* The rule whose condition runs, for eq_note_condition_lost; cut if it is long. */
static char evaluated[EQ_MAX_NAME + 32] = "";

static void
note_not_ended(const char *rule, const char *message)
{
	(void) eq_note_fault("rule", rule, "57014", message, FIRST_REST_MS,
						 LAST_REST_MS);
}

/*
 * For an executor: an error came out of the job.  Was it the condition's, and the
 * time that it took?
 */
void
eq_note_condition_error(bool timed_out)
{
	if (timed_out && evaluated[0] != '\0')
		note_not_ended(evaluated, "its condition reached condition_timeout");
	evaluated[0] = '\0';
}

/* For a worker that was terminated, on its way out. */
void
eq_note_condition_lost(void)
{
	if (evaluated[0] != '\0')
		note_not_ended(
			evaluated,
			"its condition did not end and was terminated with its process");
}

/* Is the rule not to be evaluated for now?  How often it has not ended. */
static int
rests(const EqRule *rule)
{
	TimestampTz retry_at;
	int failures = eq_failures_of("rule", rule->label, &retry_at);

	return retry_at > GetCurrentTimestamp() ? failures : 0;
}

/*
 * Evaluates a rule's when_changed, condition and templates for an event, the latter as
 * the rule's owner and without writing.  NULL if it does not fire.
 */
static Jsonb *
evaluate_rule(const EqRule *rule, Datum event, Jsonb **options)
{
	Jsonb *payload;

	eq_check_owner(rule->owner, "rule", rule->name);
	strlcpy(evaluated, rule->label, sizeof(evaluated));
	payload = eq_query_rule(rule, event, options);
	evaluated[0] = '\0';
	(void) eq_clear_fault("rule", rule->label);
	return payload;
}

/* May the rule fire, by the rules that led to the event? */
static EqChainVerdict
judge(const EqRule *rule, Datum event)
{
	bool isnull;

	return eq_judge_chain(
		rule, DatumGetJsonbP(GetAttributeByNum(DatumGetHeapTupleHeader(event),
											   EVENT_METADATA, &isnull)));
}

/*
 * evaluate_rule and the job that follows from it, in a subtransaction; false and
 * the error if one of them failed (a queue that is drained or was dropped, say).
 */
static bool
try_rule(EqRule *rule, Datum event, Jsonb **payload, EqChainVerdict *verdict,
		 ErrorData **error)
{
	MemoryContext context = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	volatile bool ok = true;
	int lock_timeout = LockTimeout;
	TimestampTz start = GetCurrentTimestamp();

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(context);
	PG_TRY();
	{
		Jsonb *options;

		*payload = evaluate_rule(rule, event, &options);
		if (options)
			LockTimeout = KEY_WAIT_MS;
		if (*payload != NULL)
			*verdict = judge(rule, event);
		if (*payload != NULL && *verdict == EQ_CHAIN_FREE)
			eq_act(rule, event, *payload, options);
		ReleaseCurrentSubTransaction();
	}
	PG_CATCH();
	{
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
	if (GetCurrentTimestamp() - start > SLOW_US)
		rule->slow_until = GetCurrentTimestamp() + FIRST_REST_MS * INT64CONST(1000);
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

/* One event meets one rule whose pattern and tenant match.  Did it fire? */
static bool
apply_rule(EqRule *rule, Datum event)
{
	const char *outcome = "not matched";
	TimestampTz start = eq_log_attempts == EQ_LOG_OFF ? 0 : GetCurrentTimestamp();
	Jsonb *payload = NULL;
	ErrorData *error = NULL;
	EqChainVerdict verdict = EQ_CHAIN_FREE;
	bool holds = false;

	rule->seen++;
	if (rule->function && rule->condition == NULL && rule->n_changing == 0)
	{
		verdict = judge(rule, event);
		holds = true;
		if (verdict == EQ_CHAIN_FREE)
			eq_enqueue_rule_call(rule, event, false);
	}
	else if (rests(rule) > 0 || rule->slow_until > GetCurrentTimestamp())
	{
		eq_enqueue_rule_call(rule, event, true);
		outcome = "deferred";
	}
	else if (!try_rule(rule, event, &payload, &verdict, &error))
	{
		outcome = "failed";
		eq_enqueue_rule_call(rule, event, true);
		rule->failed++;
		rule->error = MemoryContextStrdup(CurTransactionContext, error->message);
	}
	else
		holds = payload != NULL;

	if (holds && verdict == EQ_CHAIN_FREE)
	{
		rule->matched++;
		outcome = "matched";
	}
	else if (holds)
	{
		outcome = verdict == EQ_CHAIN_LOOP ? "suppressed" : "too deep";
		*(verdict == EQ_CHAIN_LOOP ? &rule->suppressed : &rule->too_deep) += 1;
	}
	log_meeting(rule, event, outcome, start, error);
	return holds && verdict == EQ_CHAIN_FREE;
}

static void
apply_rules(Datum event)
{
	char *type = eq_event_text(event, EVENT_TYPE);
	char *tenant = eq_event_text(event, EVENT_TENANT);
	int64 position = eq_event_position(event);
	bool tenant_stopped = false; /* by a rule of the tenant, for these */

	for (int i = 0; i < n_rules; i++)
	{
		EqRule *rule = &rules[i];

		CHECK_FOR_INTERRUPTS();
		if (position <= rule->start_position ||
			(rule->tenant &&
			 (tenant_stopped || strcmp(rule->tenant, tenant) != 0)) ||
			!eq_pattern_matches(type, rule->pattern))
			continue;
		if (!apply_rule(rule, event) || !rule->stop)
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
			 errdetail("Rules do not run until it is there."),
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

/*
 * Events that were read meet all rules, or this one.  After a while it stops: what an
 * action has locked, and the positions it took, are held until the commit.  Returns how
 * many it were, and the position of the last.
 */
static int
meet(Tuplestorestate *events, EqRule *only, int64 *last)
{
	TimestampTz start = GetCurrentTimestamp();
	Relation store = table_open(eq_relation_oid(EQ_EVENT_STORE), AccessShareLock);
	TupleTableSlot *slot = MakeSingleTupleTableSlot(RelationGetDescr(store),
													&TTSOpsMinimalTuple);
	MemoryContext context = AllocSetContextCreate(
		CurrentMemoryContext, "event_queue event", ALLOCSET_DEFAULT_SIZES);
	int n_events = 0;

	while (tuplestore_gettupleslot(events, true, false, slot))
	{
		MemoryContext old = MemoryContextSwitchTo(context);
		Datum event = ExecFetchSlotHeapTupleDatum(slot);

		CHECK_FOR_INTERRUPTS();
		if (only == NULL)
			apply_rules(event);
		else if ((only->tenant == NULL ||
				  strcmp(only->tenant, eq_event_text(event, EVENT_TENANT)) == 0) &&
				 eq_pattern_matches(eq_event_text(event, EVENT_TYPE), only->pattern))
			(void) apply_rule(only, event);
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
 * A rule that is behind meets events up to the checkpoint, some of them at once; not
 * beyond the watermark, where some are still to come.  True: there are more.
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
	EqSpi spi;

	if (rule->caught_up < until)
	{
		Tuplestorestate *events = tuplestore_begin_heap(false, false, work_mem);
		int64 last = eq_read_events(rule->caught_up, until, CATCH_UP_BATCH, NULL,
									events);

		if (last != 0)
		{
			int n_events = meet(events, rule, &met);

			more = met != last || n_events == CATCH_UP_BATCH;
			if (!more)
				met = until;
		}
		tuplestore_end(events);
	}
	values[1] = Int64GetDatum(met);
	eq_spi_begin(&spi, eq_extension_owner(), SECURITY_LOCAL_USERID_CHANGE);
	eq_spi_run(met < checkpoint ? &move : &join, values, NULL);
	eq_spi_end(&spi);
	return more;
}

/*
 * One batch, in a transaction of its own.  Returns true if there may be more.
 */
bool
eq_run_rules(void)
{
	uint32 generation;
	int64 after;
	int64 up_to;
	int64 checkpoint;
	int64 last;
	int64 met = 0;
	int n_events = 0;
	bool more = false;
	bool has_behind;
	int first = next_behind;
	TimestampTz begun = GetCurrentTimestamp();
	Tuplestorestate *events;

	StartTransactionCommand();

	/*
	 * In this order: a rule that was committed before one of these events was
	 * appended has raised the generation before the event came below the
	 * watermark, and is in the snapshot if the generation says so.
	 */
	up_to = eq_watermark();
	generation = pg_atomic_read_u32(&eq_database()->config_generation);
	pg_memory_barrier();
	PushActiveSnapshot(GetTransactionSnapshot());
	if (!rules_are_read || generation != rules_generation)
	{
		rules_are_read = false;
		read_rules();
		rules_generation = generation;
		any_behind = true; /* perhaps */
	}
	if (n_rules == 0)
	{
		PopActiveSnapshot();
		CommitTransactionCommand();
		rules_are_read = true;
		return false;
	}

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
		n_events = meet(events, NULL, &met);
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
		/* The others' turn comes, and new events do not wait for all of them. */
		if (GetCurrentTimestamp() - begun > BATCH_US)
		{
			more = true;
			break;
		}
		more = catch_up(rule, checkpoint, up_to) || more;
		next_behind = (first + i + 1) % n_rules;
	}
	if (last != 0 || has_behind)
		eq_write_rule_counts(rules, n_rules);
	PopActiveSnapshot();
	CommitTransactionCommand();
	rules_are_read = true;
	LockReleaseAll(USER_LOCKMETHOD, true); /* of conditions */
	return more;
}

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
 * What a job of queue "rule-calls" does of a rule's actions.  An executor waits for locks
 * of others no longer than the rule runner: the job is tried again after a second, and
 * that is no attempt.
 */
static void
act_later(const EqRule *rule, Datum event, Jsonb *payload, Jsonb *options)
{
	MemoryContext context = CurrentMemoryContext;
	int lock_timeout = LockTimeout;

	PG_TRY();
	{
		LockTimeout = KEY_WAIT_MS;
		eq_act(rule, event, payload, options);
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
				 errmsg("job of queue \"rule-calls\" has no number \"%s\"", key)));
	return number;
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
	JsonbValue *evaluate = eq_json_member(payload, "evaluate", &buffer);
	int64 action = -1;
	const char *function;
	Jsonb *job_payload = NULL;
	Jsonb *options = NULL;
	Oid owner;
	int sec_context;

	if (rule == NULL || event == 0 ||
		strcmp(eq_event_text(event, EVENT_TENANT), tenant) != 0)
		ereport(
			ERROR,
			(errcode(ERRCODE_EQ_UNKNOWN_OBJECT),
			 errmsg("the rule or the event of this job does not exist any more")));
	/* The rule may have been replaced since: it acts as it is now. */
	if ((rule->tenant && strcmp(rule->tenant, tenant) != 0) ||
		!eq_pattern_matches(eq_event_text(event, EVENT_TYPE), rule->pattern))
		return InvalidOid;
	(void) eq_json_int64(eq_json_member(payload, "action", &action_buffer), &action);
	function = eq_function_of_call(
		rule, action,
		eq_json_string(eq_json_member(payload, "function", &function_buffer)));
	if (function == NULL ||
		(evaluate && evaluate->type == jbvBool && evaluate->val.boolean))
	{
		if (rests(rule) >= EQ_MAX_LOST)
			ereport(
				ERROR,
				(errcode(ERRCODE_EQ_NOT_ENDED),
				 errmsg("rule \"%s\" rests: its condition did not end", rule->name),
				 errhint(
					 "Create the rule anew with another condition, then call event_queue.retry_dead.")));
		job_payload = evaluate_rule(rule, event, &options);
		if (job_payload == NULL)
			return InvalidOid;
		switch (judge(rule, event))
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
		act_later(rule, event, job_payload, options);
		return InvalidOid;
	}

	eq_require_callable("rule function", rule->label, rule->owner, function,
						eq_event_type_oid());
	(void) eq_clear_fault("rule function", rule->label);
	GetUserIdAndSecContext(&owner, &sec_context);
	owner = rule->owner;
	SetUserIdAndSecContext(owner, sec_context | SECURITY_LOCAL_USERID_CHANGE);
	(void) set_config_option(
		"search_path",
		psprintf("pg_catalog, %s, pg_temp", eq_function_schema(function)),
		PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
	(void) eq_call_function(function, eq_event_type_oid(), event);
	return owner;
}
