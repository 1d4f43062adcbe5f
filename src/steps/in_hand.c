/*
 * in_hand.c: a leased job and one of its steps: finds, checks and writes the row.
 *
 * Writing a step requires the job's lease: the job's row is locked and the token compared in
 * its newest version (queue/lease.c), so that no two sessions write steps of one job.  Other
 * sessions only end waits (wait.c, match_events): the newest version of a waiting row is
 * locked before it is examined.
 *
 * STEP_RUN is the token of the lease in which the step's name was last used, so that a name
 * that is used twice in one run is detected, even if each step is a transaction.
 */
#include "postgres.h"

#include "access/tableam.h"
#include "commands/sequence.h"
#include "executor/executor.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "common/function.h"
#include "common/json.h"
#include "event_queue.h"
#include "queue/queue.h"
#include "steps/in_hand.h"
#include "tenant/tenant.h"

/*
 * The job of a call, given as claimed_job, or as job_id and lease_token, and the name of
 * the step; n_after: how many arguments the function has after the job.
 */
void
eq_read_step_call(FunctionCallInfo fcinfo, int n_after, EqStepCall *call)
{
	bool no_id = true;
	bool no_token = true;

	call->next = PG_NARGS() - n_after;
	call->key = "";
	if (call->next == 2 && !PG_ARGISNULL(0) && !PG_ARGISNULL(1))
	{
		no_id = no_token = false;
		call->job_id = PG_GETARG_INT64(0);
		call->token = *PG_GETARG_UUID_P(1);
	}
	else if (call->next == 1 && !PG_ARGISNULL(0))
	{
		HeapTupleHeader job = PG_GETARG_HEAPTUPLEHEADER(0);
		Datum id = GetAttributeByNum(job, 1, &no_id);
		Datum token = GetAttributeByNum(job, 2, &no_token);

		if (!no_id && !no_token)
		{
			call->job_id = DatumGetInt64(id);
			call->token = *DatumGetUUIDP(token);
		}
	}
	if (no_id || no_token)
		ereport(ERROR, (errcode(ERRCODE_EQ_INVALID_ARGUMENT),
						errmsg("job and lease_token must not be null")));
	call->name = PG_ARGISNULL(call->next)
					 ? NULL
					 : text_to_cstring(PG_GETARG_TEXT_PP(call->next));
	eq_check_name("step", call->name, EQ_MAX_NAME);
}

/* Looks the step up, as it is committed now. */
static void
find_step(EqStepInHand *hand, const EqStepCall *call)
{
	EqScan scan;
	ScanKeyData keys[3];

	ExecClearTuple(hand->row);
	eq_scan_begin(&scan, hand->steps.rel, eq_relation_oid(EQ_JOB_STEP_PKEY),
				  hand->leased.snapshot, 3);
	eq_scan_key(&scan, &keys[0], 1, BTEqualStrategyNumber, F_INT8EQ,
				Int64GetDatum(call->job_id));
	eq_scan_key(&scan, &keys[1], 2, BTEqualStrategyNumber, F_TEXTEQ,
				CStringGetTextDatum(call->name));
	eq_scan_key(&scan, &keys[2], 3, BTEqualStrategyNumber, F_TEXTEQ,
				CStringGetTextDatum(call->key));
	eq_scan_start(&scan, keys, 3);
	if (eq_scan_next(&scan, ForwardScanDirection))
	{
		ExecCopySlot(hand->row, scan.slot);
		slot_getallattrs(hand->row);
	}
	eq_scan_end(&scan);
}

/* EQ063 after sleep_job and its like: the job is no longer in hand. */
static void
refuse_suspended(const EqStepCall *call)
{
	if (eq_is_suspended(call->job_id, &call->token))
		ereport(
			ERROR,
			(errcode(ERRCODE_EQ_JOB_SUSPENDED),
			 errmsg("job " INT64_FORMAT " is suspended", call->job_id),
			 errhint(
				 "A handler returns when sleep_job gives false, or await_signal or await_event null; it is called again.")));
}

/* Is the job there, of the session's tenant, and of this lease?  Locks nothing. */
static bool
is_leased(EqLeased *leased, const EqStepCall *call)
{
	if (!eq_find_job(leased, call->job_id, &call->token))
		return false;
	slot_getallattrs(leased->slot);
	return eq_load_queue_if_visible(leased, call->job_id) &&
		   eq_has_token(leased->slot, &call->token);
}

/*
 * Opens the job and its step to look at them; EQ016 if the lease is lost, EQ063 if the
 * job is suspended.  Nothing is locked: eq_lock_step comes before a write.
 */
void
eq_open_step(EqStepInHand *hand, const EqStepCall *call)
{
	refuse_suspended(call);
	eq_open_jobs(&hand->leased);
	/* The leased version may be newer than the snapshot: lock the row to find it. */
	if (!is_leased(&hand->leased, call))
	{
		eq_close_jobs(&hand->leased);
		eq_open_leased(&hand->leased, call->job_id, &call->token, false);
	}
	eq_table_open(&hand->steps, eq_relation_oid(EQ_JOB_STEP), STEP_COLUMNS);
	hand->row = table_slot_create(hand->steps.rel, NULL);
	find_step(hand, call);
}

/* Locks the job, EQ016 if the lease is lost, and the step as it is now. */
void
eq_lock_step(EqStepInHand *hand, const EqStepCall *call)
{
	EqLeased *leased = &hand->leased;

	if (!leased->queue->durable)
		eq_begin_weak(leased);
	if (!eq_lock_job(leased) || !eq_has_token(leased->slot, &call->token))
		eq_lease_lost(call->job_id);
	/* Read again: others may have written the step while this waited for the lock. */
	UnregisterSnapshot(leased->snapshot);
	leased->snapshot = RegisterSnapshot(GetLatestSnapshot());
	find_step(hand, call);
	if (!TTS_EMPTY(hand->row) && eq_step_state(hand) == EQ_STEP_WAITING)
	{
		TM_FailureData failure;
		ItemPointerData tid = hand->row->tts_tid;

		if (table_tuple_lock(hand->steps.rel, &tid, leased->snapshot, hand->row,
							 GetCurrentCommandId(false), LockTupleExclusive,
							 LockWaitBlock, TUPLE_LOCK_FLAG_FIND_LAST_VERSION,
							 &failure) != TM_Ok)
			eq_lease_lost(call->job_id);
		slot_getallattrs(hand->row);
	}
}

void
eq_close_step(EqStepInHand *hand)
{
	ExecDropSingleTupleTableSlot(hand->row);
	eq_table_close(&hand->steps);
	eq_close_jobs(&hand->leased);
}

EqStepState
eq_step_state(const EqStepInHand *hand)
{
	return (EqStepState) DatumGetInt16(hand->row->tts_values[STEP_STATE - 1]);
}

/* Is the step done, so that this run gets its result? */
bool
eq_step_stands(const EqStepInHand *hand)
{
	return !TTS_EMPTY(hand->row) && eq_step_state(hand) != EQ_STEP_WAITING &&
		   eq_step_state(hand) != EQ_STEP_UNDONE;
}

/* EQ062 if the name was used in this run already, or means something else. */
void
eq_check_step(const EqStepInHand *hand, const EqStepCall *call, EqStepKind kind)
{
	static const char *const kinds[] = {"a step", "sleep_job", "await_signal",
										"await_event"};
	EqStepKind was;

	if (TTS_EMPTY(hand->row) || eq_step_state(hand) == EQ_STEP_UNDONE)
		return;
	was = (EqStepKind) DatumGetInt16(hand->row->tts_values[STEP_KIND - 1]);
	if (was != kind)
		ereport(ERROR,
				(errcode(ERRCODE_EQ_STEP_TWICE),
				 errmsg("step \"%s\" of job " INT64_FORMAT " is of another kind",
						call->name, call->job_id),
				 errdetail("It was used for %s.",
						   was < lengthof(kinds) ? kinds[was] : "something else"),
				 errhint("Give each step of a job a name of its own.")));
	if (!hand->row->tts_isnull[STEP_RUN - 1] &&
		memcmp(DatumGetUUIDP(hand->row->tts_values[STEP_RUN - 1]), &call->token,
			   sizeof(pg_uuid_t)) == 0)
		ereport(
			ERROR,
			(errcode(ERRCODE_EQ_STEP_TWICE),
			 errmsg("step \"%s\" of job " INT64_FORMAT
					" was already used in this run",
					call->name, call->job_id),
			 errhint(
				 "Give each step of a job a name of its own; in a loop, one with a number.")));
}

/* Returns the step's result, allocated in the caller's context; JSON null if it has none. */
static Jsonb *
step_result(const EqStepInHand *hand)
{
	if (hand->row->tts_isnull[STEP_RESULT - 1])
		return eq_json_from("null");
	return DatumGetJsonbPCopy(hand->row->tts_values[STEP_RESULT - 1]);
}

void
eq_edit_step(const EqStepInHand *hand, const EqStepCall *call, EqStepKind kind,
			 EqStepState state, EqStepEdit *edit)
{
	if (TTS_EMPTY(hand->row) || eq_step_state(hand) == EQ_STEP_UNDONE)
	{
		memset(edit->nulls, true, sizeof(edit->nulls));
		eq_step_set(edit, STEP_ID,
					Int64GetDatum(
						nextval_internal(eq_relation_oid(EQ_JOB_STEP_SEQ), false)));
		eq_step_set(edit, STEP_JOB, Int64GetDatum(call->job_id));
		eq_step_set(edit, STEP_TENANT,
					hand->leased.slot->tts_values[JOB_TENANT - 1]);
		eq_step_set(edit, STEP_NAME, CStringGetTextDatum(call->name));
		eq_step_set(edit, STEP_KEY, CStringGetTextDatum(call->key));
		eq_step_set(edit, STEP_KIND, Int16GetDatum(kind));
	}
	else
	{
		memcpy(edit->values, hand->row->tts_values, sizeof(edit->values));
		memcpy(edit->nulls, hand->row->tts_isnull, sizeof(edit->nulls));
	}
	eq_step_set(edit, STEP_RUN, UUIDPGetDatum(&call->token));
	eq_step_set(edit, STEP_AT, TimestampTzGetDatum(hand->leased.now));
	eq_step_set(edit, STEP_STATE, Int16GetDatum(state));
	edit->nulls[STEP_HANDLER - 1] = eq_present_handler() == NULL;
	edit->values[STEP_HANDLER - 1] = JsonbPGetDatum(eq_present_handler());
	eq_step_set(edit, STEP_FRESH, BoolGetDatum(false));
	eq_step_set(edit, STEP_RESUME, BoolGetDatum(false));
}

/*
 * Writes the step, and suspends the job until then (0: does not); eq_lock_step was
 * before.
 */
void
eq_write_step(EqStepInHand *hand, const EqStepCall *call, EqStepEdit *edit,
			  TimestampTz until)
{
	EqLeased *leased = &hand->leased;

	/* Suspended, it would never hear of it. */
	if (until != 0)
		eq_check_not_cancelled(leased, call->job_id);
	if (TTS_EMPTY(hand->row))
		eq_table_insert(&hand->steps, edit->values, edit->nulls);
	else
		eq_table_update(&hand->steps, hand->row, leased->snapshot, edit->values,
						edit->nulls);
	if (until != 0)
		eq_suspend_leased(leased, call->job_id, &call->token, until);
	else if (!DatumGetBool(leased->slot->tts_values[JOB_HAS_STEPS - 1]))
	{
		EqJobEdit job;

		eq_edit_job(&job, leased->slot);
		eq_edit_set(&job, JOB_HAS_STEPS, BoolGetDatum(true));
		eq_write_job(&leased->jobs, leased->snapshot, &job);
	}
}

/* Notes that this run has used a step that is done; returns its result. */
Jsonb *
eq_pass_step(EqStepInHand *hand, const EqStepCall *call)
{
	Jsonb *result = step_result(hand);
	EqStepEdit edit;

	memcpy(edit.values, hand->row->tts_values, sizeof(edit.values));
	memcpy(edit.nulls, hand->row->tts_isnull, sizeof(edit.nulls));
	eq_step_set(&edit, STEP_RUN, UUIDPGetDatum(&call->token));
	eq_step_set(&edit, STEP_RESUME, BoolGetDatum(false));
	eq_write_step(hand, call, &edit, 0);
	return result;
}
