/*
 * stop.c: ends the handlers of cancelled jobs; called by the scheduler.
 *
 * An executor is cancelled as by pg_cancel_backend, and if that has no effect, as if the
 * job's time limit were over (watch/watch.c).  Before each call an executor checks the job
 * itself; and a job that is cancelled when its call has just ended is not completed.
 */
#include "postgres.h"

#include <signal.h>

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/snapmgr.h"

#include "event_queue.h"
#include "table/table.h"
#include "worker/executor.h"

/* If the job ends before the signal comes, the executor drops it. */
static void
signal_executor(int index, int64 first_job, int64 job_id)
{
	LWLockAcquire(eq_workers_lock, LW_SHARED);
	for (int i = 0; i < EQ_MAX_WORKERS; i++)
	{
		EqWorker *worker = &eq_worker_list[i];

		if (worker->kind == EQ_WORKER_EXECUTOR && worker->dboid == MyDatabaseId &&
			worker->index == index &&
			pg_atomic_read_u64(&worker->current_job) == first_job)
		{
			pg_atomic_write_u64(&worker->cancelled_job, job_id);
			eq_end_limit(worker);
			(void) kill(worker->pid, SIGINT);
		}
	}
	LWLockRelease(eq_workers_lock);
}

/* One of the jobs of an executor that was cancelled; 0: none. */
static int64
find_cancelled(int index, const int64 *jobs, int n)
{
	static EqStatement look = {
		.sql = "SELECT job_id FROM event_queue.job"
			   " WHERE job_id = ANY ($1) AND cancel AND leased_by = $2 LIMIT 1",
		.n_arguments = 2,
		.types = {INT8ARRAYOID, TEXTOID}};
	Datum *ids = palloc(n * sizeof(Datum));
	Datum values[2];
	int64 found = 0;
	EqSpi spi;

	for (int i = 0; i < n; i++)
		ids[i] = Int64GetDatum(jobs[i]);
	values[0] = PointerGetDatum(construct_array(ids, n, INT8OID, sizeof(int64),
												FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));
	values[1] = CStringGetTextDatum(psprintf(EQ_EXECUTOR_NAME, index));
	eq_spi_begin(&spi, eq_extension_owner(), SECURITY_LOCAL_USERID_CHANGE);
	eq_spi_run(&look, values, NULL);
	if (SPI_processed > 0)
	{
		bool isnull;

		found = DatumGetInt64(
			SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
	}
	eq_spi_end(&spi);
	return found;
}

/* In a transaction of its own. */
void
eq_stop_cancelled_jobs(void)
{
	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	for (int i = 0; i < 2 * EQ_MAX_EXECUTORS; i++)
	{
		int64 *jobs;
		int64 cancelled;
		int n;

		if (!eq_worker_is_alive(MyDatabaseId, EQ_WORKER_EXECUTOR, i))
			continue;
		n = eq_read_call(i, &jobs);
		cancelled = n > 0 ? find_cancelled(i, jobs, n) : 0;
		if (cancelled != 0)
			signal_executor(i, jobs[0], cancelled);
	}
	PopActiveSnapshot();
	CommitTransactionCommand();
}
