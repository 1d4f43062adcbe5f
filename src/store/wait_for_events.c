/*
 * wait_for_events.c: wait_for_events: sleeps until there are events.
 *
 * A function always runs under the snapshot of the calling statement, and a snapshot held
 * while nothing happens holds back vacuum.  So this is a procedure: it ends the transaction
 * it was called in and sleeps in a new one with neither snapshot nor transaction id.
 *
 * The sleeper is woken through its latch by the transaction that moves the watermark: it
 * raises its flag before it looks at the watermark, and the code that releases positions
 * looks at the flag afterwards.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "pgstat.h"
#include "storage/latch.h"
#include "storage/proc.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "common/interval.h"
#include "compat.h"
#include "store/store.h"
#include "wake/wake.h"
#include "table/table.h"

PG_FUNCTION_INFO_V1(eq_wait_for_events);

#define MAX_WAIT_US		(INT64CONST(24) * 3600 * USECS_PER_SEC)
#define STANDBY_POLL_MS 100 /* no one sets a latch there */

/* Sleeps until the watermark is above "after" or the wait, in microseconds, is over. */
static int64
wait_above(int64 after, int64 wait)
{
	volatile TimestampTz until = GetCurrentTimestamp() + wait;
	EqDatabase *db = eq_database();
	EqSleeper *me = eq_sleeper();
	volatile int64 watermark = 0;

	/* However the last wait in this place ended, also that of another session. */
	Assert(pg_atomic_read_u32(&me->events) == 0);
	PG_TRY();
	for (;;)
	{
		long left;

		pg_atomic_write_u32(&me->events, 1);
		pg_atomic_exchange_u32(&db->events_awaited, 1);
		watermark = eq_watermark();
		until = Min(until,
					GetCurrentTimestamp() + wait); /* the clock may be set back */
		left = TimestampDifferenceMilliseconds(GetCurrentTimestamp(), until);
		if (watermark > after || left <= 0)
			break;
		if (RecoveryInProgress())
			left = Min(left, STANDBY_POLL_MS);

		InvalidateCatalogSnapshot();
		eq_sleep(left + 1);
	}
	PG_FINALLY();
	{
		/* Also when it was cancelled: the next session here is not to be woken. */
		pg_atomic_write_u32(&me->events, 0);
	}
	PG_END_TRY();
	return watermark;
}

Datum
eq_wait_for_events(PG_FUNCTION_ARGS)
{
	CallContext *call = (CallContext *) fcinfo->context;
	int64 after = PG_ARGISNULL(0) ? 0 : PG_GETARG_INT64(0);
	int64 wait = PG_ARGISNULL(1) ? 0 : eq_interval_us(PG_GETARG_INTERVAL_P(1));
	TupleDesc desc;
	Datum value;
	bool isnull = false;

	if (wait < 0 || wait > MAX_WAIT_US)
		ereport(ERROR, (errcode(ERRCODE_EQ_INVALID_ARGUMENT),
						errmsg("timeout must be between 0 and 24 hours")));
	if (call == NULL || !IsA(call, CallContext) || call->atomic)
		ereport(ERROR,
				(errcode(ERRCODE_EQ_NOT_SUPPORTED_HERE),
				 errmsg("cannot wait for events inside a transaction"),
				 errdetail("The transaction's snapshot would hold back vacuum."),
				 errhint("Use CALL outside a transaction block.")));

	if (SPI_connect_ext(SPI_OPT_NONATOMIC) != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	SPI_commit(); /* gives the snapshot back */
	value = Int64GetDatum(wait_above(after, wait));
	SPI_finish();

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	PG_RETURN_DATUM(
		HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), &value, &isnull)));
}
