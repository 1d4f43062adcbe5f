/*
 * depend.c: dependencies between jobs: records them at enqueue, and settles dependents
 * when a job ends.  The scheduler decides when a dependent may run (review.c).
 *
 * Enqueuing a dependent locks the row of the job it depends on until commit; ending that
 * job waits for this lock, and then sees has_dependents.  All statements here use the
 * latest committed state, at every isolation level.
 *
 * Rows of job_dependency are locked in the order of (depends_on, job_id), both when jobs
 * end and when such rows are deleted (lock_dependencies, flow.sql), to avoid deadlocks.
 */
#include "postgres.h"

#include "access/tableam.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "queue/queue.h"
#include "table/table.h"
#include "wake/wake.h"

/* Where a job may be while it is not finished. */
typedef struct JobTable
{
	EqRelation table;
	EqRelation pkey;
	int n_columns;
	int tenant;
	int name;
	int has_dependents;
} JobTable;

#define MAX_COLUMNS 40

StaticAssertDecl((int) JOB_COLUMNS <= MAX_COLUMNS &&
					 (int) DEAD_COLUMNS <= MAX_COLUMNS,
				 "MAX_COLUMNS is too small");

static const JobTable job_tables[] = {
	{EQ_JOB, EQ_JOB_PKEY, JOB_COLUMNS, JOB_TENANT, JOB_NAME, JOB_HAS_DEPENDENTS},
	{EQ_DEAD_LETTER, EQ_DEAD_LETTER_PKEY, DEAD_COLUMNS, DEAD_TENANT, DEAD_NAME,
	 DEAD_HAS_DEPENDENTS}};

/* Checks the tenant before the row is locked: rows of other tenants must not be. */
static bool
is_of_tenant(const EqTable *table, const JobTable *in, int64 job_id,
			 const char *tenant, Snapshot snapshot)
{
	EqScan scan;
	ScanKeyData key;
	bool isnull;
	bool found;

	eq_scan_begin(&scan, table->rel, eq_relation_oid(in->pkey), snapshot, 1);
	eq_scan_key(&scan, &key, 1, BTEqualStrategyNumber, F_INT8EQ,
				Int64GetDatum(job_id));
	eq_scan_start(&scan, &key, 1);
	found = eq_scan_next(&scan, ForwardScanDirection) &&
			strcmp(TextDatumGetCString(slot_getattr(scan.slot, in->tenant, &isnull)),
				   tenant) == 0;
	eq_scan_end(&scan);
	return found;
}

/* Locks the job's row in one of the two, and notes that others depend on it. */
static bool
mark_in(const JobTable *in, int64 job_id, const char *tenant, char **name)
{
	EqTable table;
	Snapshot snapshot = RegisterSnapshot(GetLatestSnapshot());
	TupleTableSlot *slot;
	bool found;
	bool is_busy;
	int looks = 0;

	eq_table_open(&table, eq_relation_oid(in->table), in->n_columns);
	slot = table_slot_create(table.rel, NULL);
	do
	{
		is_busy = false;
		found = is_of_tenant(&table, in, job_id, tenant, snapshot) &&
				eq_lock_row(&table, eq_relation_oid(in->pkey), job_id, snapshot,
							slot, eq_enqueue_may_wait() ? NULL : &is_busy);
	} while (is_busy && eq_enqueue_looks_again(&looks));
	if (is_busy)
		eq_conflict_with_row(in->table == EQ_JOB, job_id);
	if (found)
	{
		*name = TextDatumGetCString(slot->tts_values[in->name - 1]);
		if (!DatumGetBool(slot->tts_values[in->has_dependents - 1]))
		{
			Datum values[MAX_COLUMNS];

			memcpy(values, slot->tts_values, in->n_columns * sizeof(Datum));
			values[in->has_dependents - 1] = BoolGetDatum(true);
			eq_table_update(&table, slot, snapshot, values, slot->tts_isnull);
		}
	}
	ExecDropSingleTupleTableSlot(slot);
	eq_table_close(&table);
	UnregisterSnapshot(snapshot);
	CommandCounterIncrement();
	return found;
}

/*
 * Does the job still have to be finished?  It is looked for twice, since between the
 * two looks it may have come back from the dead letters.
 */
static bool
mark_dependency(int64 job_id, const char *tenant, char **name)
{
	for (int i = 0; i < 2 * lengthof(job_tables); i++)
	{
		if (mark_in(&job_tables[i % lengthof(job_tables)], job_id, tenant, name))
			return true;
	}
	return false;
}

/* EQ032 if there never was such a job. */
static void
check_was_there(int64 job_id, int64 dependent)
{
	static EqStatement last = {
		.sql = "SELECT last_value FROM event_queue.job_job_id_seq"};
	bool isnull;

	eq_spi_run(&last, NULL, NULL);
	if (job_id < 1 || job_id == dependent ||
		job_id > DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0],
											 SPI_tuptable->tupdesc, 1, &isnull)))
		ereport(ERROR, (errcode(ERRCODE_EQ_UNKNOWN_JOB),
						errmsg("job " INT64_FORMAT " in depends_on does not exist",
							   job_id)));
}

/* One row of job_dependency; true if the job has to wait for it. */
static bool
add_dependency(int64 job_id, const char *tenant, int64 depends_on)
{
	static EqStatement add_waiting = {
		.sql =
			"INSERT INTO event_queue.job_dependency (job_id, depends_on, tenant_id, name)"
			" VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING",
		.n_arguments = 4,
		.types = {INT8OID, INT8OID, TEXTOID, TEXTOID}};
	static EqStatement add_finished = {
		.sql =
			"INSERT INTO event_queue.job_dependency"
			" (job_id, depends_on, tenant_id, name, completed_at, result)"
			" SELECT $1, $2, $3, h.name, pg_catalog.clock_timestamp(), h.result"
			" FROM (SELECT) one LEFT JOIN LATERAL (SELECT h.name, h.result FROM event_queue.job_history h"
			" WHERE h.job_id = $2 AND h.tenant_id = $3 AND h.expires_at > pg_catalog.clock_timestamp()"
			" ORDER BY h.completed_at DESC LIMIT 1) h ON true ON CONFLICT DO NOTHING",
		.n_arguments = 3,
		.types = {INT8OID, INT8OID, TEXTOID}};
	char *name;
	bool waits = mark_dependency(depends_on, tenant, &name);
	Datum values[4] = {Int64GetDatum(job_id), Int64GetDatum(depends_on),
					   CStringGetTextDatum(tenant)};
	EqSpi spi;

	eq_spi_begin(&spi, eq_extension_owner(), SECURITY_LOCAL_USERID_CHANGE);
	if (waits)
	{
		values[3] = CStringGetTextDatum(name);
		eq_spi_run(&add_waiting, values, NULL);
	}
	else
	{
		/* Finished, and perhaps not kept. */
		check_was_there(depends_on, job_id);
		eq_spi_run(&add_finished, values, NULL);
	}
	eq_spi_end(&spi);
	return waits;
}

static int
compare_ids(const void *a, const void *b)
{
	int64 x = DatumGetInt64(*(const Datum *) a);
	int64 y = DatumGetInt64(*(const Datum *) b);

	return x < y ? -1 : x > y;
}

/*
 * Notes the dependencies of a new job; returns true if it has to wait.  Locks the jobs
 * in the order of ids, so that two sessions that depend on the same jobs don't deadlock.
 */
bool
eq_add_dependencies(int64 job_id, const char *tenant, ArrayType *depends_on)
{
	Datum *ids;
	bool *nulls;
	int n;
	int n_ids = 0;
	bool waits = false;

	deconstruct_array(depends_on, INT8OID, sizeof(int64), FLOAT8PASSBYVAL,
					  TYPALIGN_DOUBLE, &ids, &nulls, &n);
	for (int i = 0; i < n; i++)
	{
		if (!nulls[i])
			ids[n_ids++] = ids[i];
	}
	qsort(ids, n_ids, sizeof(Datum), compare_ids);
	for (int i = 0; i < n_ids; i++)
	{
		CHECK_FOR_INTERRUPTS();
		if (i > 0 && DatumGetInt64(ids[i]) == DatumGetInt64(ids[i - 1]))
			continue;
		waits |= add_dependency(job_id, tenant, DatumGetInt64(ids[i]));
	}
	return waits;
}

/*
 * The job that has taken over a running job's unique key (enqueue.c) waits for its
 * end, whatever that is.  The caller has set has_dependents of the running one.
 */
void
eq_add_follower(int64 job_id, const char *tenant, int64 after)
{
	static EqStatement add = {
		.sql =
			"INSERT INTO event_queue.job_dependency (job_id, depends_on, tenant_id, name, any_end)"
			" SELECT $1, $2, $3, j.name, true FROM event_queue.job j WHERE j.job_id = $2"
			" ON CONFLICT (job_id, depends_on) DO UPDATE SET any_end = true",
		.n_arguments = 3,
		.types = {INT8OID, INT8OID, TEXTOID}};
	Datum values[3] = {Int64GetDatum(job_id), Int64GetDatum(after),
					   CStringGetTextDatum(tenant)};

	eq_run_as_owner(&add, values, NULL);
}

/* The job has died or was cancelled: unblocks the jobs that wait for any end of it (any_end). */
static void
tell_followers(int64 job_id)
{
	static EqStatement tell = {
		.sql =
			"WITH due AS MATERIALIZED (SELECT job_id FROM event_queue.job_dependency"
			" WHERE depends_on = $1 AND completed_at IS NULL AND any_end ORDER BY job_id FOR UPDATE),"
			" done AS (UPDATE event_queue.job_dependency d"
			" SET completed_at = pg_catalog.clock_timestamp()"
			" FROM due WHERE d.job_id = due.job_id AND d.depends_on = $1 RETURNING d.tenant_id, d.job_id)"
			" INSERT INTO event_queue_internal.job_review (tenant_id, job_id)"
			" SELECT tenant_id, job_id FROM done",
		.n_arguments = 1,
		.types = {INT8OID}};
	Datum value = Int64GetDatum(job_id);

	eq_spi_run(&tell, &value, NULL);
	eq_wake_reviews();
}

/* The job is a dead letter now: what depends on it waits, since it may be retried. */
void
eq_release_followers(int64 job_id)
{
	EqSpi spi;

	eq_spi_begin(&spi, eq_extension_owner(), SECURITY_LOCAL_USERID_CHANGE);
	tell_followers(job_id);
	eq_spi_end(&spi);
}

/* A job that others depend on is completed: the scheduler looks at them. */
static void
tell_dependents(int64 job_id, Jsonb *result)
{
	static EqStatement tell = {
		.sql =
			"WITH due AS MATERIALIZED (SELECT job_id FROM event_queue.job_dependency"
			" WHERE depends_on = $1 AND completed_at IS NULL ORDER BY job_id FOR UPDATE),"
			" done AS (UPDATE event_queue.job_dependency d"
			" SET completed_at = pg_catalog.clock_timestamp(), result = $2"
			" FROM due WHERE d.job_id = due.job_id AND d.depends_on = $1 RETURNING d.tenant_id, d.job_id)"
			" INSERT INTO event_queue_internal.job_review (tenant_id, job_id)"
			" SELECT tenant_id, job_id FROM done",
		.n_arguments = 2,
		.types = {INT8OID, JSONBOID}};
	Datum values[2] = {Int64GetDatum(job_id), JsonbPGetDatum(result)};

	eq_spi_run(&tell, values, result ? NULL : " n");
	eq_wake_reviews();
}

/*
 * Returns the jobs that wait for this one to be completed, in the order in which all
 * lock many jobs.
 */
static int64 *
find_dependents(int64 job_id, int *n)
{
	static EqStatement find = {
		.sql =
			"SELECT x.job_id FROM event_queue.job_dependency d"
			" JOIN event_queue.job x USING (job_id)"
			" WHERE d.depends_on = $1 AND d.completed_at IS NULL ORDER BY x.job_id",
		.n_arguments = 1,
		.types = {INT8OID}};
	MemoryContext caller = CurrentMemoryContext;
	Datum value = Int64GetDatum(job_id);
	int64 *ids;
	EqSpi spi;

	eq_spi_begin(&spi, eq_extension_owner(), SECURITY_LOCAL_USERID_CHANGE);
	eq_spi_run(&find, &value, NULL);
	*n = (int) SPI_processed;
	ids = MemoryContextAllocHuge(caller, (Size) SPI_processed * sizeof(int64) + 1);
	for (int i = 0; i < *n; i++)
	{
		bool isnull;

		ids[i] = DatumGetInt64(
			SPI_getbinval(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 1, &isnull));
	}
	eq_spi_end(&spi);
	return ids;
}

/*
 * The job will never be completed: buries its direct dependents.  Their own dependents
 * keep waiting, because a dead letter may be retried.
 */
static void
bury_dependents(int64 job_id)
{
	int n;
	int64 *ids = find_dependents(job_id, &n);
	char *message;
	Snapshot snapshot;
	TupleTableSlot *slot;
	EqTable jobs;

	if (n > 0)
	{
		message = psprintf(
			"job " INT64_FORMAT
			", which it depends on, was cancelled, discarded or deleted",
			job_id);
		eq_table_open(&jobs, eq_relation_oid(EQ_JOB), JOB_COLUMNS);
		slot = table_slot_create(jobs.rel, NULL);
		for (int i = 0; i < n; i++)
		{
			CHECK_FOR_INTERRUPTS();
			/* A new one for each: whoever had the row may have changed it meanwhile. */
			snapshot = RegisterSnapshot(GetLatestSnapshot());
			if (eq_lock_row(&jobs, eq_relation_oid(EQ_JOB_PKEY), ids[i], snapshot,
							slot, NULL))
			{
				int failures = DatumGetInt32(slot->tts_values[JOB_FAILURES - 1]);

				eq_bury(&jobs, slot, snapshot, "dependency",
						eq_add_error(slot, failures, NULL, message, NULL, NULL),
						failures, DatumGetInt32(slot->tts_values[JOB_STALLED - 1]));
			}
			ExecClearTuple(slot);
			UnregisterSnapshot(snapshot);
		}
		ExecDropSingleTupleTableSlot(slot);
		eq_table_close(&jobs);
		CommandCounterIncrement();
	}
	pfree(ids);
}

/* A job that others depend on has ended; gone: cancelled, discarded or deleted. */
void
eq_settle_dependents(int64 job_id, Jsonb *result, bool gone)
{
	EqSpi spi;

	eq_spi_begin(&spi, eq_extension_owner(), SECURITY_LOCAL_USERID_CHANGE);
	if (gone)
		tell_followers(job_id);
	else
		tell_dependents(job_id, result);
	eq_spi_end(&spi);
	if (gone)
		bury_dependents(job_id);
}
