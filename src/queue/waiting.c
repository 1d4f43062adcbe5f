/*
 * waiting.c: claim_wait and await_job: sleep until there is a job, or until one has ended.
 *
 * They are procedures for the reason given in store/wait_for_events.c: while asleep they
 * hold no snapshot and no transaction id.  A sleeper raises its flag before it looks, and
 * every commit of jobs looks at the flags afterwards (wake/wake.c), so that no job is missed
 * between the look and the sleep.  As many sleepers are woken as jobs came.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "pgstat.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/proc.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/jsonb.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "utils/typcache.h"

#include "common/function.h"
#include "common/interval.h"
#include "compat.h"
#include "queue/queue.h"
#include "table/table.h"
#include "tenant/tenant.h"
#include "wake/wake.h"

PG_FUNCTION_INFO_V1(eq_claim_wait);
PG_FUNCTION_INFO_V1(eq_await_job);

#define MAX_WAIT_US	  (INT64CONST(24) * 3600 * USECS_PER_SEC)
#define AWAIT_POLL_MS 1000 /* for what ends jobs by plain SQL */

/* While set, the slot's count of waiters includes this session. */
static EqWakeSlot *counted_in = NULL;

static void stop_waiting(int code, Datum arg);

/* How long the procedure may wait in all. */
static int64 longest_wait;

/* Opens a procedure that sleeps; when it has to end. */
static TimestampTz
begin_waiting(FunctionCallInfo fcinfo, int timeout_argno, const char *what)
{
	static bool registered = false;
	CallContext *call = (CallContext *) fcinfo->context;
	int64 timeout = PG_ARGISNULL(timeout_argno)
						? 0
						: eq_interval_us(PG_GETARG_INTERVAL_P(timeout_argno));

	if (timeout < 0 || timeout > MAX_WAIT_US)
		ereport(ERROR, (errcode(ERRCODE_EQ_INVALID_ARGUMENT),
						errmsg("timeout must be between 0 and 24 hours")));
	if (call == NULL || !IsA(call, CallContext) || call->atomic)
		ereport(ERROR,
				(errcode(ERRCODE_EQ_NOT_SUPPORTED_HERE),
				 errmsg("cannot wait for %s inside a transaction", what),
				 errdetail("The transaction's snapshot would hold back vacuum."),
				 errhint("Use CALL outside a transaction block.")));
	if (SPI_connect_ext(SPI_OPT_NONATOMIC) != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	if (!registered)
	{
		before_shmem_exit(stop_waiting, (Datum) 0);
		registered = true;
	}
	longest_wait = timeout;
	return GetCurrentTimestamp() + timeout;
}

/* Sleeps, outside all transactions' snapshots; false when the time is over. */
static bool
sleep_until(volatile TimestampTz *until, long at_most_ms)
{
	TimestampTz now = GetCurrentTimestamp();
	long left;

	*until = Min(*until, now + longest_wait); /* the clock may be set back */
	left = TimestampDifferenceMilliseconds(now, *until);
	if (now >= *until)
		return false;
	SPI_commit(); /* gives the snapshot back */
	InvalidateCatalogSnapshot();
	eq_sleep(Min(left + 1, at_most_ms));
	return true;
}

static Datum
return_value(FunctionCallInfo fcinfo, Datum value)
{
	TupleDesc desc;
	bool isnull = false;

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	PG_RETURN_DATUM(
		HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), &value, &isnull)));
}

/* Raises this session's flag for a queue, or lowers it (NULL). */
static void
wait_for_queue(EqWakeSlot *slot)
{
	EqSleeper *me = eq_sleeper();
	EqWakeSlot *before = counted_in;

	/* A slot stays that of its queue while someone is counted in. */
	if (slot && before != slot)
		pg_atomic_fetch_add_u32(&slot->waiters, 1);
	counted_in = slot;
	pg_atomic_exchange_u32(&me->queue, slot ? eq_slot_number(slot) + 1 : 0);
	if (before && before != slot)
		pg_atomic_fetch_sub_u32(&before->waiters, 1);
}

static void
stop_waiting(int code, Datum arg)
{
	wait_for_queue(NULL);
}

/* The jobs as a JSON array of claimed_job. */
static Datum
jobs_as_json(const EqClaim *claim)
{
	StringInfoData json;
	TupleDesc desc = lookup_rowtype_tupdesc_copy(eq_claimed_job_type_oid(), -1);

	initStringInfo(&json);
	appendStringInfoChar(&json, '[');
	for (int i = 0; i < claim->n_jobs; i++)
	{
		Datum row = eq_claimed_job_datum(claim->queue, &claim->jobs[i], desc);

		if (i > 0)
			appendStringInfoChar(&json, ',');
		appendStringInfoString(
			&json, TextDatumGetCString(DirectFunctionCall1(row_to_json, row)));
	}
	appendStringInfoChar(&json, ']');
	return DirectFunctionCall1(jsonb_in, CStringGetDatum(json.data));
}

Datum
eq_claim_wait(PG_FUNCTION_ARGS)
{
	MemoryContext context = CurrentMemoryContext;
	MemoryContext turn_context = AllocSetContextCreate(
		context, "event_queue claim_wait", ALLOCSET_DEFAULT_SIZES);
	EqClaim claim = {0};
	char *name = PG_ARGISNULL(0) ? NULL : text_to_cstring(PG_GETARG_TEXT_PP(0));
	volatile TimestampTz until;
	Datum result;

	claim.limit = PG_ARGISNULL(1) ? 1 : PG_GETARG_INT32(1);
	eq_check_claim_limit(claim.limit);
	claim.worker = eq_worker_argument(fcinfo, 3);
	claim.lease = eq_lease_argument(fcinfo, 4);
	claim.tenant = eq_claim_tenant(fcinfo, 5);
	until = begin_waiting(fcinfo, 2, "jobs");
	PG_TRY();
	{
		for (;;)
		{
			EqWakeSlot *slot;
			TimestampTz wake_at = until;

			MemoryContextReset(turn_context); /* there may be many turns */
			MemoryContextSwitchTo(turn_context);
			PushActiveSnapshot(GetTransactionSnapshot());
			claim.queue = eq_get_queue(name);
			slot = eq_wake_slot(claim.queue->queue_id);
			wait_for_queue(slot);
			eq_claim(&claim);
			PopActiveSnapshot();
			if (claim.n_jobs > 0)
				break;
			if (claim.retry_at != 0)
				wake_at = Min(wake_at, claim.retry_at);
			/* Jobs that wake nobody, such as expired leases, are found each stalled_interval. */
			if (!sleep_until(&until, Min(claim.queue->stalled_interval / 1000,
										 TimestampDifferenceMilliseconds(
											 GetCurrentTimestamp(), wake_at) +
											 1)))
				break;
		}
	}
	PG_FINALLY();
	{
		wait_for_queue(NULL);
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
	result = jobs_as_json(&claim);
	SPI_finish();
	return return_value(fcinfo, result);
}

Datum
eq_await_job(PG_FUNCTION_ARGS)
{
	MemoryContext context = CurrentMemoryContext;
	EqSleeper *me = eq_sleeper();
	volatile int64 job_id = PG_ARGISNULL(0) ? 0 : PG_GETARG_INT64(0);
	volatile TimestampTz until = begin_waiting(fcinfo, 1, "a job");
	volatile Datum outcome = (Datum) 0;
	EqDatabase *db = eq_database();

	/* However the last wait in this place ended, also that of another session. */
	Assert(pg_atomic_read_u32(&me->job) == 0);
	PG_TRY();
	{
		for (;;)
		{
			Oid type = INT8OID;
			Datum value = Int64GetDatum(job_id);
			bool isnull;
			Datum found;
			JsonbValue state;

			pg_atomic_write_u32(&me->job, 1);
			pg_atomic_exchange_u32(&db->jobs_awaited, 1);
			PushActiveSnapshot(GetTransactionSnapshot());
			if (SPI_execute_with_args("SELECT event_queue.job_outcome($1)", 1, &type,
									  &value, NULL, false, 1) != SPI_OK_SELECT)
				elog(ERROR, "could not look for job " INT64_FORMAT, job_id);
			found = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1,
								  &isnull);
			MemoryContextSwitchTo(context);
			outcome = PointerGetDatum(PG_DETOAST_DATUM_COPY(found));
			SPI_freetuptable(SPI_tuptable);
			PopActiveSnapshot();
			if (getKeyJsonValueFromContainer(&DatumGetJsonbP(outcome)->root, "state",
											 strlen("state"), &state) &&
				(strncmp(state.val.string.val, "completed", 9) == 0 ||
				 strncmp(state.val.string.val, "dead", 4) == 0 ||
				 strncmp(state.val.string.val, "gone", 4) == 0))
				break;
			if (!sleep_until(&until, AWAIT_POLL_MS))
				break;
		}
	}
	PG_FINALLY();
	{
		pg_atomic_write_u32(&me->job, 0);
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
	SPI_finish();
	return return_value(fcinfo, outcome);
}
