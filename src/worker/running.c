/*
 * running.c: records which jobs an executor is running, for the case that it, or the server,
 * crashes.
 *
 * An executor may hold a hundred jobs, but only those whose handler was running count the
 * crash: max_stalled + 1 of them make a dead letter.  Shared memory does not survive a crash, and a
 * row for each job would cost a flush each.  So each executor has a small file in the data
 * directory, which it writes before each call of a handler without fsync: it survives the
 * end of processes.  After a crash of the machine it may be old; if it names none of
 * the jobs that the executor held, the crash counts for all of these.
 *
 * The scheduler also reads it when a job is cancelled (stop.c).
 */
#include "postgres.h"

#include <fcntl.h>
#include <unistd.h>

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "common/file_perm.h"
#include "storage/fd.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/uuid.h"

#include "event_queue.h"
#include "table/table.h"
#include "worker/executor.h"

#define UNKNOWN (-1) /* value of Running.n while nothing has been written yet */

typedef struct Running
{
	int64 n;
	int64 jobs[EQ_MAX_BATCH];
} Running;

static int file = -1;

static void
file_path(char *path, int index)
{
	snprintf(path, MAXPGPATH, PGSTAT_STAT_PERMANENT_DIRECTORY "/event_queue.%u.%d",
			 MyDatabaseId, index);
}

static void
write_running(const Running *running)
{
	Size size = offsetof(Running, jobs) + Max(running->n, 0) * sizeof(int64);

	/* If the write fails, a crash counts for all jobs in hand. */
	if (file >= 0 && pg_pwrite(file, running, size, 0) != (ssize_t) size)
	{
		ereport(LOG, (errcode_for_file_access(),
					  errmsg("could not record which jobs are running: %m")));
		if (ftruncate(file, 0) != 0)
			ereport(LOG,
					(errcode_for_file_access(),
					 errmsg("could not truncate the record of running jobs: %m")));
	}
}

/* Opens the file of this executor and marks its contents as unknown. */
void
eq_open_running(int index)
{
	Running unknown = {.n = UNKNOWN};
	char path[MAXPGPATH];

	file_path(path, index);
	if (AcquireExternalFD())
		file = BasicOpenFilePerm(path, O_RDWR | O_CREAT | PG_BINARY,
								 pg_file_create_mode);
	if (file < 0)
		ereport(LOG, (errcode_for_file_access(),
					  errmsg("could not open file \"%s\": %m", path)));
	write_running(&unknown);
}

void
eq_note_running(const EqClaimedJob *jobs, int n)
{
	static Running running;

	Assert(n <= EQ_MAX_BATCH);
	running.n = n;
	for (int i = 0; i < n; i++)
		running.jobs[i] = jobs[i].job_id;
	write_running(&running);
}

/* Records that no job is in hand: the next executor with this number skips the look for leases. */
void
eq_note_nothing_runs(void)
{
	Running none = {.n = 0};

	write_running(&none);
}

/* Reads the file of an executor; returns false if it can have left no lease. */
static bool
read_running(int index, Running *running)
{
	char path[MAXPGPATH];
	int fd;
	ssize_t size;

	running->n = UNKNOWN;
	file_path(path, index);
	fd = BasicOpenFile(path, O_RDONLY | PG_BINARY);
	if (fd < 0)
		return true;
	size = pg_pread(fd, running, sizeof(Running), 0);
	close(fd);
	if (size < (ssize_t) offsetof(Running, jobs) || running->n < 0 ||
		running->n > EQ_MAX_BATCH ||
		size < (ssize_t) (offsetof(Running, jobs) + running->n * sizeof(int64)))
		running->n = UNKNOWN;
	return running->n != 0;
}

/* Reads the jobs of an executor's last call and returns their number; 0 if unknown. */
int
eq_read_call(int index, int64 **jobs)
{
	Running *running = palloc(sizeof(Running));

	*jobs = running->jobs;
	return read_running(index, running) ? Max((int) running->n, 0) : 0;
}

typedef struct Orphan
{
	int64 job_id;
	pg_uuid_t token;
	bool ran;
} Orphan;

/* Locks the jobs that this worker has leased, and skips those locked by other sessions. */
static Orphan *
find_orphans(const char *worker, int *n)
{
	MemoryContext context = CurrentMemoryContext;
	Oid type = TEXTOID;
	Datum value = CStringGetTextDatum(worker);
	Orphan *orphans;
	EqSpi spi;

	eq_spi_begin(&spi, eq_extension_owner(), SECURITY_LOCAL_USERID_CHANGE);
	if (SPI_execute_with_args("SELECT j.job_id, j.lease_token FROM event_queue.job j"
							  " WHERE j.leased_by = $1 AND j.lease_token IS NOT NULL"
							  " FOR UPDATE SKIP LOCKED",
							  1, &type, &value, NULL, false, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not look for leases");
	*n = (int) SPI_processed;
	orphans = MemoryContextAllocZero(context, Max(*n, 1) * sizeof(Orphan));
	for (int i = 0; i < *n; i++)
	{
		HeapTuple row = SPI_tuptable->vals[i];
		TupleDesc desc = SPI_tuptable->tupdesc;
		bool isnull;

		orphans[i].job_id = DatumGetInt64(SPI_getbinval(row, desc, 1, &isnull));
		orphans[i].token = *DatumGetUUIDP(SPI_getbinval(row, desc, 2, &isnull));
	}
	eq_spi_end(&spi);
	return orphans;
}

/* Ends the leases of the jobs that ran; they count as stalled. */
static void
end_leases_of_those_that_ran(const Orphan *orphans, int n)
{
	Oid type = INT8ARRAYOID;
	Datum *ids = palloc(n * sizeof(Datum));
	Datum value;
	int n_ids = 0;

	for (int i = 0; i < n; i++)
	{
		if (orphans[i].ran)
			ids[n_ids++] = Int64GetDatum(orphans[i].job_id);
	}
	value = PointerGetDatum(construct_array(ids, n_ids, INT8OID, sizeof(int64),
											FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));
	eq_end_leases(
		"WHERE j.job_id = ANY ($1) AND j.leased_until > pg_catalog.clock_timestamp()",
		1, &type, &value);
}

/*
 * Ends the leases of a dead executor with this number, which was killed, or took the
 * server down.  Those that it was running count as stalled; the others are given back.
 */
void
eq_end_orphaned_leases(int index)
{
	Running *running = palloc(sizeof(Running));
	char worker[64];
	Orphan *orphans;
	int n;
	bool any_ran = false;

	if (!read_running(index, running))
		return;
	snprintf(worker, sizeof(worker), EQ_EXECUTOR_NAME, index);
	StartTransactionCommand();
	XactReadOnly = false; /* claims say that the database is read-only, and wait */
	XactIsoLevel = XACT_READ_COMMITTED;
	PushActiveSnapshot(GetTransactionSnapshot());
	orphans = find_orphans(worker, &n);
	for (int i = 0; i < n; i++)
	{
		for (int k = 0; k < running->n && !orphans[i].ran; k++)
			orphans[i].ran = running->jobs[k] == orphans[i].job_id;
		any_ran = any_ran || orphans[i].ran;
	}
	for (int i = 0; i < n; i++)
	{
		if (!any_ran)
			orphans[i].ran = true; /* unknown: count each of them */
		else if (!orphans[i].ran)
			eq_release(orphans[i].job_id, &orphans[i].token, 0);
	}
	if (n > 0)
		end_leases_of_those_that_ran(orphans, n);
	PopActiveSnapshot();
	CommitTransactionCommand();
}

/*
 * For the scheduler, before it starts executors: leases that have run out by now could
 * be claimed, and so counted, by the first one before the next one looks for its own.
 */
void
eq_end_all_orphaned_leases(void)
{
	for (int i = 0; i < 2 * EQ_MAX_EXECUTORS; i++)
	{
		char path[MAXPGPATH];

		file_path(path, i);
		if (access(path, F_OK) == 0 &&
			!eq_worker_is_alive(MyDatabaseId, EQ_WORKER_EXECUTOR, i))
			eq_end_orphaned_leases(i);
	}
}
