/*
 * wait.c: steps that wait for signals and events.
 *
 * A signal is stored in table signal if no job waits for it, and goes to the first that
 * does; otherwise it goes to all that wait, and is not stored unless all of these are dead.  Sending one and beginning to
 * wait for one both start by inserting or locking the row of its name and key: so of two
 * concurrent calls, the second sees what the first has committed.  The job's row is locked
 * after that, and sending does not wait for it (resume_job).
 *
 * An event is searched from a position up to the watermark; if there is none, the job is
 * suspended and its step is "fresh".  The scheduler (match_events in events.sql) searches for
 * fresh steps from there up to the position up to which it has matched events for all
 * others, so that no event is missed in between.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/executor.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "common/argument.h"
#include "common/interval.h"
#include "common/json.h"
#include "common/pattern.h"
#include "event_queue.h"
#include "queue/queue.h"
#include "steps/in_hand.h"
#include "store/store.h"
#include "table/table.h"
#include "tenant/tenant.h"
#include "wake/wake.h"

PG_FUNCTION_INFO_V1(eq_await_signal);
PG_FUNCTION_INFO_V1(eq_await_event);
PG_FUNCTION_INFO_V1(eq_send_signal);

/* The end of a wait, from now on; 0: none. */
static TimestampTz
timeout_argument(FunctionCallInfo fcinfo, int argno)
{
	if (PG_ARGISNULL(argno))
		return 0;
	return GetCurrentTimestamp() +
		   eq_check_delay(PG_GETARG_INTERVAL_P(argno), "timeout");
}

/* Builds the result of a wait that is over; member: the name of what came. */
static Jsonb *
outcome(EqStepState state, const char *member, Jsonb *came)
{
	JsonbParseState *parse = NULL;

	pushJsonbValue(&parse, WJB_BEGIN_OBJECT, NULL);
	eq_json_add_string(&parse, "state",
					   state == EQ_STEP_TIMED_OUT ? "timed out" : "received", 0);
	if (state != EQ_STEP_TIMED_OUT)
		eq_json_add_jsonb(&parse, member, came);
	return JsonbValueToJsonb(pushJsonbValue(&parse, WJB_END_OBJECT, NULL));
}

/*
 * Ends the wait if its signal or event is there (came), or its time is over; else suspends the
 * job, and returns NULL.  edit: has the columns of the kind of step.
 */
static Jsonb *
end_or_suspend(EqStepInHand *hand, const EqStepCall *call, EqStepEdit *edit,
			   const char *member, bool has_come, Jsonb *came)
{
	TimestampTz until = edit->nulls[STEP_UNTIL - 1]
							? 0
							: DatumGetTimestampTz(edit->values[STEP_UNTIL - 1]);
	EqStepState state = has_come								  ? EQ_STEP_DONE
						: until != 0 && until <= hand->leased.now ? EQ_STEP_TIMED_OUT
																  : EQ_STEP_WAITING;

	eq_step_set(edit, STEP_STATE, Int16GetDatum(state));
	if (came)
		eq_step_set(edit, STEP_RESULT, JsonbPGetDatum(came));
	if (state == EQ_STEP_WAITING)
	{
		eq_write_step(hand, call, edit,
					  until != 0 ? until : hand->leased.now + EQ_NEVER_US);
		return NULL;
	}
	eq_step_set(edit, STEP_FRESH, BoolGetDatum(false));
	eq_write_step(hand, call, edit, 0);
	return outcome(state, member, came ? came : eq_json_from("null"));
}

/* Returns the result of a wait that is over, and notes that this run used it. */
static Jsonb *
pass_wait(EqStepInHand *hand, const EqStepCall *call, const char *member)
{
	EqStepState state = eq_step_state(hand);

	return outcome(state, member, eq_pass_step(hand, call));
}

/* The columns of a wait that begins, or goes on. */
static void
edit_wait(EqStepInHand *hand, const EqStepCall *call, EqStepKind kind,
		  TimestampTz until, EqStepEdit *edit)
{
	bool goes_on = !TTS_EMPTY(hand->row) && eq_step_state(hand) == EQ_STEP_WAITING;

	eq_edit_step(hand, call, kind, EQ_STEP_WAITING, edit);
	if (!goes_on && until != 0)
		eq_step_set(edit, STEP_UNTIL, TimestampTzGetDatum(until));
}

/* Runs one of the statements on signals, as the owner; what the caller wants of its row. */
static void
run_on_signal(EqSpi *spi, EqStatement *statement, Datum *values, const char *nulls)
{
	eq_spi_begin(spi, eq_extension_owner(), SECURITY_LOCAL_USERID_CHANGE);
	eq_spi_run(statement, values, nulls);
}

/*
 * Locks the name and key of a signal; true if one is kept there, and its payload (NULL:
 * none), in the caller's memory.  The row is gone afterwards if nothing is kept.
 */
static bool
lock_signal(const char *tenant, const EqStepCall *call, Jsonb **payload)
{
	static EqStatement lock = {
		.sql = "INSERT INTO event_queue.signal AS s (tenant_id, name, key)"
			   " VALUES ($1, $2, $3) ON CONFLICT (tenant_id, name, key)"
			   " DO UPDATE SET expires_at = s.expires_at"
			   " RETURNING payload, expires_at > pg_catalog.clock_timestamp()",
		.n_arguments = 3,
		.types = {TEXTOID, TEXTOID, TEXTOID}};
	Datum values[3] = {CStringGetTextDatum(tenant), CStringGetTextDatum(call->name),
					   CStringGetTextDatum(call->key)};
	MemoryContext caller = CurrentMemoryContext;
	EqSpi spi;
	Datum value;
	bool no_payload;
	bool no_expiry;
	bool kept;

	run_on_signal(&spi, &lock, values, NULL);
	value = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1,
						  &no_payload);
	*payload = NULL;
	if (!no_payload)
	{
		MemoryContext old = MemoryContextSwitchTo(caller);

		*payload = DatumGetJsonbPCopy(value);
		MemoryContextSwitchTo(old);
	}
	kept = DatumGetBool(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc,
									  2, &no_expiry)) &&
		   !no_expiry;
	eq_spi_end(&spi);
	return kept;
}

/* Removes the row that lock_signal has locked, which stays locked until the commit. */
static void
remove_signal(const char *tenant, const char *name, const char *key)
{
	static EqStatement remove = {
		.sql = "DELETE FROM event_queue.signal"
			   " WHERE tenant_id = $1 AND name = $2 AND key = $3",
		.n_arguments = 3,
		.types = {TEXTOID, TEXTOID, TEXTOID}};
	Datum values[3] = {CStringGetTextDatum(tenant), CStringGetTextDatum(name),
					   CStringGetTextDatum(key)};
	EqSpi spi;

	run_on_signal(&spi, &remove, values, NULL);
	eq_spi_end(&spi);
}

static char *
tenant_of(const EqStepInHand *hand)
{
	return TextDatumGetCString(hand->leased.slot->tts_values[JOB_TENANT - 1]);
}

static Jsonb *
await_signal(const EqStepCall *call, TimestampTz until)
{
	EqStepInHand hand;
	Jsonb *result;

	eq_open_step(&hand, call);
	eq_check_step(&hand, call, EQ_STEP_SIGNAL);
	if (!eq_step_stands(&hand))
	{
		char *tenant = tenant_of(&hand);
		Jsonb *payload;
		bool kept = lock_signal(tenant, call, &payload);

		eq_lock_step(&hand, call);
		if (!eq_step_stands(&hand))
		{
			EqStepEdit edit;

			remove_signal(tenant, call->name, call->key);
			edit_wait(&hand, call, EQ_STEP_SIGNAL, until, &edit);
			result = end_or_suspend(&hand, call, &edit, "payload", kept,
									kept ? payload : NULL);
			eq_close_step(&hand);
			return result;
		}
		/* The signal came while this waited for the lock; a later one is not touched. */
		if (!kept)
			remove_signal(tenant, call->name, call->key);
	}
	else
		eq_lock_step(&hand, call);
	result = pass_wait(&hand, call, "payload");
	eq_close_step(&hand);
	return result;
}

Datum
eq_await_signal(PG_FUNCTION_ARGS)
{
	EqStepCall call;
	TimestampTz until;
	Jsonb *result;

	eq_read_step_call(fcinfo, 3, &call);
	call.key = PG_ARGISNULL(call.next + 1)
				   ? psprintf(INT64_FORMAT, call.job_id)
				   : text_to_cstring(PG_GETARG_TEXT_PP(call.next + 1));
	eq_check_name("signal key", call.key, EQ_MAX_NAME);
	until = timeout_argument(fcinfo, call.next + 2);
	if (eq_is_suspended(call.job_id, &call.token))
		PG_RETURN_NULL();
	result = await_signal(&call, until);
	if (result == NULL)
		PG_RETURN_NULL();
	PG_RETURN_JSONB_P(result);
}

/* Keeps a signal; false if there is one of this name and key. */
static bool
keep_signal(Datum *values, const char *nulls)
{
	static EqStatement keep = {
		.sql =
			"INSERT INTO event_queue.signal AS s (tenant_id, name, key, payload, sent_at, expires_at)"
			" VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (tenant_id, name, key)"
			" DO UPDATE SET payload = excluded.payload, sent_at = excluded.sent_at,"
			" expires_at = excluded.expires_at"
			" WHERE s.expires_at IS NULL OR s.expires_at <= excluded.sent_at"
			" RETURNING true",
		.n_arguments = 6,
		.types = {TEXTOID, TEXTOID, TEXTOID, JSONBOID, TIMESTAMPTZOID,
				  TIMESTAMPTZOID}};
	EqSpi spi;
	bool kept;

	run_on_signal(&spi, &keep, values, nulls);
	kept = SPI_processed > 0;
	eq_spi_end(&spi);
	return kept;
}

/*
 * Gives a signal to all jobs that wait for it, also to dead ones, which may be retried.
 * True if one of them lives: else it is kept as well, for one in the place of the dead.
 */
static bool
deliver_signal(Datum *values, const char *nulls)
{
	static EqStatement deliver = {
		.sql = "WITH given AS (UPDATE event_queue.job_step s"
			   " SET state = 0, result = $4, at = $5,"
			   " resume = NOT event_queue_internal.resume_job(s.job_id)"
			   " WHERE s.kind = 2 AND s.tenant_id = $1 AND s.name = $2"
			   " AND s.key = $3 AND s.state = 1 RETURNING s.job_id)"
			   " SELECT FROM given g JOIN event_queue.job j USING (job_id)",
		.n_arguments = 5,
		.types = {TEXTOID, TEXTOID, TEXTOID, JSONBOID, TIMESTAMPTZOID}};
	EqSpi spi;
	bool one_lives;

	run_on_signal(&spi, &deliver, values, nulls);
	one_lives = SPI_processed > 0;
	eq_spi_end(&spi);
	return one_lives;
}

/* Has a job that lives received such a signal? */
static bool
was_received(Datum *values)
{
	static EqStatement find = {
		.sql = "SELECT FROM event_queue.job_step s JOIN event_queue.job j"
			   " USING (job_id) WHERE s.kind = 2 AND s.tenant_id = $1"
			   " AND s.name = $2 AND s.key = $3 AND s.state = 0 LIMIT 1",
		.n_arguments = 3,
		.types = {TEXTOID, TEXTOID, TEXTOID}};
	EqSpi spi;
	bool found;

	run_on_signal(&spi, &find, values, NULL);
	found = SPI_processed > 0;
	eq_spi_end(&spi);
	return found;
}

/* send_signal(name, key, payload, keep, tenant_id): true, if it is the first one. */
Datum
eq_send_signal(PG_FUNCTION_ARGS)
{
	char *name = eq_name_argument(fcinfo, 0, "signal");
	char *key = eq_name_argument(fcinfo, 1, "signal key");
	Jsonb *payload = PG_ARGISNULL(2) ? NULL : PG_GETARG_JSONB_P(2);
	const char *tenant = eq_tenant_argument(fcinfo, 4);
	int64 keep = PG_ARGISNULL(3) ? 0
								 : eq_check_delay(PG_GETARG_INTERVAL_P(3), "keep");
	TimestampTz now = GetCurrentTimestamp();
	char nulls[7] = "      ";
	Datum values[6];

	if (keep <= 0)
		ereport(ERROR, (errcode(ERRCODE_EQ_INVALID_DELAY),
						errmsg("keep must be positive")));
	if (payload)
		eq_check_payload("signal payload", payload);
	else
		nulls[3] = 'n';
	values[0] = CStringGetTextDatum(tenant);
	values[1] = CStringGetTextDatum(name);
	values[2] = CStringGetTextDatum(key);
	values[3] = JsonbPGetDatum(payload);
	values[4] = TimestampTzGetDatum(now);
	values[5] = TimestampTzGetDatum(now + keep);
	if (!keep_signal(values, nulls))
		PG_RETURN_BOOL(false);
	if (deliver_signal(values, nulls))
	{
		remove_signal(tenant, name, key);
		eq_wake_waits(); /* should one of them be busy */
	}
	else if (was_received(values))
	{
		remove_signal(tenant, name, key);
		PG_RETURN_BOOL(false);
	}
	PG_RETURN_BOOL(true);
}

/*
 * The first event after a position, up to another one, that a step waits for, as JSON;
 * NULL: none.  (The scheduler looks for all steps at once, by match_events.)
 */
static Jsonb *
find_event(const char *tenant, const EqStepEdit *edit, int64 up_to)
{
	static EqStatement find = {
		.sql = "SELECT event_queue_internal.find_event($1, $2, $3, $4, $5, $6)",
		.n_arguments = 6,
		.types = {TEXTOID, TEXTOID, TEXTOID, TEXTOID, INT8OID, INT8OID}};
	MemoryContext caller = CurrentMemoryContext;
	Datum values[6] = {
		CStringGetTextDatum(tenant),		   edit->values[STEP_AGGREGATE_TYPE - 1],
		edit->values[STEP_AGGREGATE_ID - 1],   edit->values[STEP_PATTERN - 1],
		edit->values[STEP_AFTER_POSITION - 1], Int64GetDatum(up_to)};
	char nulls[7] = "      ";
	Jsonb *event = NULL;
	EqSpi spi;
	Datum value;
	bool isnull;

	if (DatumGetInt64(edit->values[STEP_AFTER_POSITION - 1]) >= up_to)
		return NULL;
	if (edit->nulls[STEP_AGGREGATE_TYPE - 1])
		nulls[1] = 'n';
	if (edit->nulls[STEP_AGGREGATE_ID - 1])
		nulls[2] = 'n';
	eq_spi_begin(&spi, eq_extension_owner(), SECURITY_LOCAL_USERID_CHANGE);
	eq_spi_run(&find, values, nulls);
	value = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull);
	if (!isnull)
	{
		MemoryContext old = MemoryContextSwitchTo(caller);

		event = DatumGetJsonbPCopy(value);
		MemoryContextSwitchTo(old);
	}
	eq_spi_end(&spi);
	return event;
}

/* Sets the columns of a new step that say which event it waits for. */
static void
set_wanted(FunctionCallInfo fcinfo, int argno, int64 watermark, EqStepEdit *edit)
{
	static const int columns[] = {STEP_PATTERN, STEP_AGGREGATE_TYPE,
								  STEP_AGGREGATE_ID};

	for (int i = 0; i < lengthof(columns); i++)
	{
		if (!PG_ARGISNULL(argno + i))
			eq_step_set(edit, columns[i], PG_GETARG_DATUM(argno + i));
	}
	eq_step_set(edit, STEP_AFTER_POSITION,
				PG_ARGISNULL(argno + 4) ? Int64GetDatum(watermark)
										: PG_GETARG_DATUM(argno + 4));
}

static void
check_wanted(FunctionCallInfo fcinfo, int argno)
{
	char *pattern = PG_ARGISNULL(argno) ? NULL
										: text_to_cstring(PG_GETARG_TEXT_PP(argno));

	eq_check_name("event pattern", pattern, EQ_MAX_NAME);
	eq_check_pattern(pattern);
	if (!PG_ARGISNULL(argno + 1))
		(void) eq_name_argument(fcinfo, argno + 1, "aggregate type");
	if (!PG_ARGISNULL(argno + 2))
		(void) eq_name_argument(fcinfo, argno + 2, "aggregate id");
	if (PG_ARGISNULL(argno + 1) && !PG_ARGISNULL(argno + 2))
		ereport(ERROR, (errcode(ERRCODE_EQ_INVALID_ARGUMENT),
						errmsg("aggregate_id needs an aggregate_type")));
	if (!PG_ARGISNULL(argno + 4) && PG_GETARG_INT64(argno + 4) < 0)
		ereport(ERROR, (errcode(ERRCODE_EQ_INVALID_ARGUMENT),
						errmsg("after_position must not be negative")));
}

Datum
eq_await_event(PG_FUNCTION_ARGS)
{
	EqStepCall call;
	EqStepInHand hand;
	TimestampTz until;
	Jsonb *result;

	/* name; then event_pattern, aggregate_type, aggregate_id, timeout, after_position */
	eq_read_step_call(fcinfo, 6, &call);
	check_wanted(fcinfo, call.next + 1);
	until = timeout_argument(fcinfo, call.next + 4);
	if (eq_is_suspended(call.job_id, &call.token))
		PG_RETURN_NULL();
	eq_open_step(&hand, &call);
	eq_lock_step(&hand, &call);
	eq_check_step(&hand, &call, EQ_STEP_EVENT);
	if (eq_step_stands(&hand))
		result = pass_wait(&hand, &call, "event");
	else
	{
		/* Before the snapshot in which events are looked for. */
		int64 watermark = eq_watermark();
		bool begins = TTS_EMPTY(hand.row) || eq_step_state(&hand) == EQ_STEP_UNDONE;
		EqStepEdit edit;
		Jsonb *event;

		edit_wait(&hand, &call, EQ_STEP_EVENT, until, &edit);
		if (begins)
			set_wanted(fcinfo, call.next + 1, watermark, &edit);
		event = find_event(tenant_of(&hand), &edit, watermark);
		/* Up to there it was looked for, and need not be again. */
		eq_step_set(
			&edit, STEP_AFTER_POSITION,
			Int64GetDatum(Max(watermark,
							  DatumGetInt64(edit.values[STEP_AFTER_POSITION - 1]))));
		eq_step_set(&edit, STEP_FRESH, BoolGetDatum(true));
		result = end_or_suspend(&hand, &call, &edit, "event", event != NULL, event);
		if (result == NULL)
			eq_wake_waits();
	}
	eq_close_step(&hand);
	if (result == NULL)
		PG_RETURN_NULL();
	PG_RETURN_JSONB_P(result);
}
