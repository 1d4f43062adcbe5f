/*
 * counters.c: what was counted at commit (wake/wake.c adds it up), and who is
 * working.
 */
#include "postgres.h"

#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"

#include "event_queue.h"

PG_FUNCTION_INFO_V1(eq_queue_counters);
PG_FUNCTION_INFO_V1(eq_workers);

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
