/*
 * step.c: step, step_done, run_step, sleep_job.
 *
 * A step is written in the transaction that calls step_done, together with the effects of
 * the step: both or none.
 */
#include "postgres.h"

#include "fmgr.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "common/argument.h"
#include "common/function.h"
#include "common/json.h"
#include "event_queue.h"
#include "queue/queue.h"
#include "steps/in_hand.h"

PG_FUNCTION_INFO_V1(eq_step);
PG_FUNCTION_INFO_V1(eq_step_done);
PG_FUNCTION_INFO_V1(eq_run_step);
PG_FUNCTION_INFO_V1(eq_sleep_job);

/* Returns the result of a step that is done, and notes that this run used it; else NULL. */
static Jsonb *
look_for_result(const EqStepCall *call)
{
	EqStepInHand hand;
	Jsonb *result = NULL;

	eq_open_step(&hand, call);
	eq_check_step(&hand, call, EQ_STEP_WORK);
	if (eq_step_stands(&hand))
	{
		eq_lock_step(&hand, call);
		result = eq_pass_step(&hand, call);
	}
	else
		eq_check_not_cancelled(&hand.leased, call->job_id);
	eq_close_step(&hand);
	return result;
}

/* Checks the job that undoes a step, when the step is done and not when it is needed. */
static void
check_undo(Jsonb *undo)
{
	EqNewJob job = {0};
	const EqQueue *queue;

	eq_check_payload("undo", undo);
	eq_read_job_options(&job, &undo->root, EQ_IN_UNDO, false);
	if (job.queue_name == NULL)
		ereport(
			ERROR,
			(errcode(ERRCODE_EQ_INVALID_ARGUMENT),
			 errmsg("undo needs a queue and the name of a job"),
			 errhint(
				 "For example: '{\"queue\": \"mail\", \"name\": \"take back\", \"payload\": {}}'.")));
	queue = eq_get_queue(job.queue_name);
	if (queue->queue_id <= EQ_SNAPSHOTS)
		ereport(ERROR, (errcode(ERRCODE_EQ_INTERNAL_QUEUE),
						errmsg("queue \"%s\" is internal", queue->name)));
	eq_check_new_job(&job, queue, GetCurrentTimestamp());
}

/* Keeps a step that was done; NULL results are JSON null. */
static Jsonb *
keep_result(const EqStepCall *call, Jsonb *result, Jsonb *undo)
{
	EqStepInHand hand;
	EqStepEdit edit;

	if (result)
		eq_check_payload("step result", result);
	if (undo)
		check_undo(undo);
	eq_open_step(&hand, call);
	eq_lock_step(&hand, call);
	eq_check_step(&hand, call, EQ_STEP_WORK);
	if (eq_step_stands(&hand))
		ereport(
			ERROR,
			(errcode(ERRCODE_EQ_STEP_TWICE),
			 errmsg("step \"%s\" of job " INT64_FORMAT " is already done",
					call->name, call->job_id),
			 errhint(
				 "Call event_queue.step first: it returns the result of a step that is done.")));
	eq_edit_step(&hand, call, EQ_STEP_WORK, EQ_STEP_DONE, &edit);
	if (result)
		eq_step_set(&edit, STEP_RESULT, JsonbPGetDatum(result));
	if (undo)
		eq_step_set(&edit, STEP_UNDO, JsonbPGetDatum(undo));
	eq_write_step(&hand, call, &edit, 0);
	eq_close_step(&hand);
	return result ? result : eq_json_from("null");
}

Datum
eq_step(PG_FUNCTION_ARGS)
{
	EqStepCall call;
	Jsonb *result;

	eq_read_step_call(fcinfo, 1, &call);
	result = look_for_result(&call);
	if (result == NULL)
		PG_RETURN_NULL();
	PG_RETURN_JSONB_P(result);
}

static Jsonb *
json_argument(FunctionCallInfo fcinfo, int argno)
{
	return PG_ARGISNULL(argno) ? NULL : PG_GETARG_JSONB_P(argno);
}

Datum
eq_step_done(PG_FUNCTION_ARGS)
{
	EqStepCall call;

	eq_read_step_call(fcinfo, 3, &call);
	PG_RETURN_JSONB_P(keep_result(&call, json_argument(fcinfo, call.next + 1),
								  json_argument(fcinfo, call.next + 2)));
}

/* Calls a function as a step; does nothing for a job that is suspended. */
Datum
eq_run_step(PG_FUNCTION_ARGS)
{
	EqStepCall call;
	Jsonb *result;
	char *function;

	eq_read_step_call(fcinfo, 3, &call);
	if (eq_is_suspended(call.job_id, &call.token))
		PG_RETURN_NULL();
	(void) eq_find_function(PG_ARGISNULL(2) ? NULL
											: text_to_cstring(PG_GETARG_TEXT_PP(2)),
							EQ_FUNCTION_HANDLER, &function);
	result = look_for_result(&call);
	if (result == NULL)
	{
		result = eq_call_function(function, eq_claimed_job_type_oid(),
								  PG_GETARG_DATUM(0));
		result = keep_result(&call, result, json_argument(fcinfo, 3));
	}
	PG_RETURN_JSONB_P(result);
}

/* Returns until when to sleep: from now on, or a given time. */
static TimestampTz
sleep_until(FunctionCallInfo fcinfo, int argno)
{
	TimestampTz until;

	if (PG_ARGISNULL(argno) == PG_ARGISNULL(argno + 1))
		ereport(ERROR, (errcode(ERRCODE_EQ_INVALID_DELAY),
						errmsg("sleep_job needs either delay or until")));
	if (PG_ARGISNULL(argno + 1))
		return GetCurrentTimestamp() +
			   eq_check_delay(PG_GETARG_INTERVAL_P(argno), "delay");
	until = PG_GETARG_TIMESTAMPTZ(argno + 1);
	if (TIMESTAMP_NOT_FINITE(until) || until > GetCurrentTimestamp() + EQ_NEVER_US)
		ereport(ERROR, (errcode(ERRCODE_EQ_INVALID_DELAY),
						errmsg("until must be a time within 100 years")));
	return until;
}

/* True if it has slept; else the job is suspended. */
Datum
eq_sleep_job(PG_FUNCTION_ARGS)
{
	EqStepCall call;
	EqStepInHand hand;
	EqStepEdit edit;
	TimestampTz until;
	bool over = false;

	eq_read_step_call(fcinfo, 3, &call);
	until = sleep_until(fcinfo, call.next + 1);
	if (eq_is_suspended(call.job_id, &call.token))
		PG_RETURN_BOOL(false);
	eq_open_step(&hand, &call);
	eq_lock_step(&hand, &call);
	eq_check_step(&hand, &call, EQ_STEP_SLEEP);
	if (eq_step_stands(&hand))
	{
		(void) eq_pass_step(&hand, &call);
		over = true;
	}
	else
	{
		bool begun = !TTS_EMPTY(hand.row) && eq_step_state(&hand) == EQ_STEP_WAITING;

		if (begun)
		{
			until = DatumGetTimestampTz(hand.row->tts_values[STEP_UNTIL - 1]);
			over = until <= hand.leased.now;
		}
		eq_edit_step(&hand, &call, EQ_STEP_SLEEP,
					 over ? EQ_STEP_DONE : EQ_STEP_WAITING, &edit);
		eq_step_set(&edit, STEP_UNTIL, TimestampTzGetDatum(until));
		eq_write_step(&hand, &call, &edit, over ? 0 : until);
	}
	eq_close_step(&hand);
	PG_RETURN_BOOL(over);
}
