/*
 * replay.c: calls a function for stored events, in order.
 *
 * All calls run in a subtransaction that is rolled back at the end unless the caller wants
 * to keep their effects: for trying a new projection or rule on real history.  Progress is
 * reported by notices and in pg_stat_activity.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/resowner.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"

#include "common/function.h"
#include "store/store.h"
#include "table/table.h"

PG_FUNCTION_INFO_V1(eq_replay);

#define BATCH 1000

typedef struct Replay
{
	EqFilter filter;
	FmgrInfo function;
	char *name;
	int64 up_to;
	int report_every;
	int64 position; /* of the event in hand */
	int64 n_events;
} Replay;

static void
add_context(void *arg)
{
	Replay *replay = arg;

	errcontext("replay of the event at position " INT64_FORMAT, replay->position);
}

static void
report(Replay *replay)
{
	ereport(NOTICE,
			(errmsg("replayed " INT64_FORMAT " events", replay->n_events),
			 errdetail("Up to position " INT64_FORMAT " of " INT64_FORMAT ".",
					   replay->position, replay->up_to)));
	pgstat_report_activity(
		STATE_RUNNING,
		psprintf("event_queue replay into %s: " INT64_FORMAT
				 " events, position " INT64_FORMAT " of " INT64_FORMAT,
				 replay->name, replay->n_events, replay->position, replay->up_to));
}

static void
call_for(Replay *replay, TupleTableSlot *slot)
{
	LOCAL_FCINFO(fcinfo, 1);

	InitFunctionCallInfoData(*fcinfo, &replay->function, 1, InvalidOid, NULL, NULL);
	fcinfo->args[0].value = ExecFetchSlotHeapTupleDatum(slot);
	fcinfo->args[0].isnull = false;
	(void) FunctionCallInvoke(fcinfo);
	CommandCounterIncrement();
}

/* Reads a batch and calls the function for each; false at the end. */
static bool
replay_batch(Replay *replay, MemoryContext row)
{
	Tuplestorestate *events = tuplestore_begin_heap(false, false, work_mem);
	Relation store = table_open(eq_relation_oid(EQ_EVENT_STORE), AccessShareLock);
	TupleTableSlot *slot = MakeSingleTupleTableSlot(RelationGetDescr(store),
													&TTSOpsMinimalTuple);
	int64 last = eq_read_events(replay->position, replay->up_to, BATCH,
								&replay->filter, events);

	while (tuplestore_gettupleslot(events, true, false, slot))
	{
		MemoryContext old = MemoryContextSwitchTo(row);

		CHECK_FOR_INTERRUPTS();
		replay->position = eq_event_slot_position(slot);
		call_for(replay, slot);
		replay->n_events++;
		if (replay->report_every > 0 && replay->n_events % replay->report_every == 0)
			report(replay);
		MemoryContextSwitchTo(old);
		MemoryContextReset(row);
	}
	ExecDropSingleTupleTableSlot(slot);
	table_close(store, AccessShareLock);
	tuplestore_end(events);
	return last != 0;
}

static void
run_in_sandbox(Replay *replay, bool keep)
{
	MemoryContext context = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	MemoryContext row = AllocSetContextCreate(context, "event_queue replay",
											  ALLOCSET_DEFAULT_SIZES);
	ErrorContextCallback callback = {
		.callback = add_context, .arg = replay, .previous = error_context_stack};

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(context);
	error_context_stack = &callback;
	PG_TRY();
	{
		while (replay_batch(replay, row))
			;
	}
	PG_CATCH();
	{
		ErrorData *error;

		error_context_stack = callback.previous;
		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
		MemoryContextSwitchTo(context);
		CurrentResourceOwner = owner;
		ReThrowError(error);
	}
	PG_END_TRY();
	error_context_stack = callback.previous;
	if (keep)
		ReleaseCurrentSubTransaction();
	else
		RollbackAndReleaseCurrentSubTransaction();
	MemoryContextSwitchTo(context);
	CurrentResourceOwner = owner;
	MemoryContextDelete(row);
}

Datum
eq_replay(PG_FUNCTION_ARGS)
{
	Replay replay = {0};
	TimestampTz start = GetCurrentTimestamp();
	int64 watermark = eq_watermark();
	bool keep = !PG_ARGISNULL(4) && PG_GETARG_BOOL(4);
	TupleDesc desc;
	Datum values[4];
	bool nulls[4] = {false};

	eq_parse_filter(&replay.filter, PG_ARGISNULL(0) ? NULL : PG_GETARG_JSONB_P(0));
	fmgr_info(eq_find_function(
				  PG_ARGISNULL(1) ? NULL : text_to_cstring(PG_GETARG_TEXT_PP(1)),
				  EQ_FUNCTION_OF_EVENT, &replay.name),
			  &replay.function);
	replay.position = PG_ARGISNULL(2) ? 0 : PG_GETARG_INT64(2);
	replay.up_to = PG_ARGISNULL(3) ? watermark : Min(PG_GETARG_INT64(3), watermark);
	replay.report_every = PG_ARGISNULL(5) ? 0 : PG_GETARG_INT32(5);
	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");

	run_in_sandbox(&replay, keep);

	values[0] = Int64GetDatum(replay.n_events);
	values[1] = Int64GetDatum(replay.position);
	values[2] = BoolGetDatum(keep);
	values[3] = Float8GetDatum((double) (GetCurrentTimestamp() - start) / 1000000);
	PG_RETURN_DATUM(
		HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values, nulls)));
}
