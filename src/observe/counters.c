/*
 * counters.c: what was counted at commit (wake/wake.c adds it up), and who is
 * working.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/snapmgr.h"

#include "event_queue.h"
#include "queue/queue.h"
#include "table/table.h"
#include "wake/wake.h"

PG_FUNCTION_INFO_V1(eq_queue_counters);
PG_FUNCTION_INFO_V1(eq_workers);
PG_FUNCTION_INFO_V1(eq_queue_depth);

Datum
eq_queue_counters(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;

	InitMaterializedSRF(fcinfo, 0);
	for (int i = 0; i < eq_max_queues; i++)
	{
		EqWakeSlot *slot = &eq_shared->wake_slots[i];
		Datum values[1 + EQ_COUNTERS];
		bool nulls[1 + EQ_COUNTERS] = {false};

		if (!pg_atomic_read_u32(&slot->key_set))
			break;
		if (slot->dboid != MyDatabaseId || slot->id <= 0)
			continue;
		values[0] = Int32GetDatum(slot->id);
		for (int c = 0; c < EQ_COUNTERS; c++)
		{
			uint64 n = pg_atomic_read_u64(&slot->counters[c]);

			if (c == EQ_COUNT_WAIT_US || c == EQ_COUNT_RUN_US)
				values[1 + c] = Float8GetDatum(n / 1000.0);
			else
				values[1 + c] = Int64GetDatum((int64) n);
		}
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}
	return (Datum) 0;
}

Datum
eq_workers(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;

	InitMaterializedSRF(fcinfo, 0);
	for (int i = 0; i < EQ_MAX_WORKERS; i++)
	{
		EqWorker worker;
		Datum values[4];
		bool nulls[4] = {false};
		uint64 job;

		LWLockAcquire(eq_shared->lock, LW_SHARED);
		worker = eq_shared->workers[i];
		LWLockRelease(eq_shared->lock);
		if (worker.kind == EQ_WORKER_NONE || worker.dboid != MyDatabaseId)
			continue;
		job = pg_atomic_read_u64(&worker.current_job);
		values[0] = Int32GetDatum(worker.pid);
		values[1] = CStringGetTextDatum(
			worker.kind == EQ_WORKER_SCHEDULER ? "scheduler" : "executor");
		values[2] = Int64GetDatum((int64) pg_atomic_read_u64(&worker.jobs_done));
		values[3] = Int64GetDatum((int64) job);
		nulls[3] = job == 0;
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}
	return (Datum) 0;
}

/*
 * Counts the jobs of each queue, where the counter that follows commits can't be
 * right: after a start, and after plain SQL wrote the table.  What commits while it
 * counts may be counted twice or not at all.  Called by the scheduler.
 */
void
eq_count_living_jobs(void)
{
	EqSpi spi;

	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	eq_spi_begin(&spi, eq_extension_owner(), SECURITY_LOCAL_USERID_CHANGE);
	if (SPI_execute("SELECT q.queue_id, (SELECT count(*) FROM event_queue.job j"
					" WHERE j.queue_id = q.queue_id) FROM event_queue.queue q",
					true, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not count jobs");
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		bool isnull;
		HeapTuple row = SPI_tuptable->vals[i];
		TupleDesc desc = SPI_tuptable->tupdesc;
		EqWakeSlot *slot = eq_wake_slot(
			DatumGetInt32(SPI_getbinval(row, desc, 1, &isnull)));

		if (slot)
			pg_atomic_write_u64(&slot->living,
								DatumGetInt64(SPI_getbinval(row, desc, 2, &isnull)));
	}
	eq_spi_end(&spi);
	PopActiveSnapshot();
	CommitTransactionCommand();
}

/* Jobs of a queue: how many there are, and when the first one of those came due. */
Datum
eq_queue_depth(PG_FUNCTION_ARGS)
{
	EqWakeSlot *slot = eq_wake_slot(PG_GETARG_INT32(0));
	const EqQueue *queue = eq_get_queue_by_id(PG_GETARG_INT32(0));
	TimestampTz oldest = queue ? eq_oldest_ready(queue) : 0;
	Datum values[2];
	bool nulls[2] = {slot == NULL, oldest == 0};
	TupleDesc desc;

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	values[0] = Int64GetDatum(
		slot ? Max((int64) pg_atomic_read_u64(&slot->living), 0) : 0);
	values[1] = TimestampTzGetDatum(oldest);
	PG_RETURN_DATUM(
		HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values, nulls)));
}
