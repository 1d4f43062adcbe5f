/*
 * session.c: ends leases with the session that took them (claim with session_bound).
 *
 * At the end of the session, for any reason but a crash, it ends those of its leases that
 * are still held.  If the client has closed the session, its jobs are released, which is
 * not counted; otherwise they count as stalled.  After a crash of the server the scheduler
 * does the same when it starts, since no session from before is left.
 */
#include "postgres.h"

#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "storage/ipc.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/uuid.h"

#include "common/exit.h"
#include "queue/queue.h"
#include "table/table.h"

/* Jobs claimed by this session, perhaps settled since; in TopMemoryContext. */
typedef struct Bound
{
	int64 job_id;
	pg_uuid_t token;
} Bound;

static Bound *bound = NULL;
static int n_bound = 0;
static int max_bound = 0;

/*
 * Ends leases before their time, in the present transaction: those of the jobs j that
 * the condition, or join, names.  A row that someone has locked keeps its lease:
 * nobody waits on the way out.
 */
void
eq_end_leases(const char *which, int n_arguments, Oid *types, Datum *values)
{
	EqSpi spi;
	char *sql = psprintf(
		"UPDATE event_queue.job SET leased_until = pg_catalog.clock_timestamp()"
		" WHERE job_id IN (SELECT j.job_id FROM event_queue.job j %s"
		" FOR UPDATE OF j SKIP LOCKED) RETURNING job_id, queue_id, leased_until",
		which);

	eq_spi_begin(&spi, eq_extension_owner(), SECURITY_LOCAL_USERID_CHANGE);
	if (SPI_execute_with_args(sql, n_arguments, types, values, NULL, false, 0) !=
		SPI_OK_UPDATE_RETURNING)
		elog(ERROR, "could not end leases");
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		HeapTuple row = SPI_tuptable->vals[i];
		TupleDesc desc = SPI_tuptable->tupdesc;
		bool isnull;
		const EqQueue *queue = eq_get_queue_by_id(
			DatumGetInt32(SPI_getbinval(row, desc, 2, &isnull)));

		/* Frees the seat of a job that no longer runs. */
		if (queue && queue->max_concurrency > 0)
			eq_free_lease(queue, DatumGetInt64(SPI_getbinval(row, desc, 1, &isnull)),
						  DatumGetTimestampTz(SPI_getbinval(row, desc, 3, &isnull)));
	}
	eq_spi_end(&spi);
}

/* Ends the leases that this session still holds; the jobs count as stalled. */
static void
end_bound_leases(void)
{
	Oid types[2] = {INT8ARRAYOID, UUIDARRAYOID};
	Datum *ids = palloc(n_bound * sizeof(Datum));
	Datum *tokens = palloc(n_bound * sizeof(Datum));
	Datum values[2];

	for (int i = 0; i < n_bound; i++)
	{
		ids[i] = Int64GetDatum(bound[i].job_id);
		tokens[i] = UUIDPGetDatum(&bound[i].token);
	}
	values[0] = PointerGetDatum(construct_array(ids, n_bound, INT8OID, sizeof(int64),
												FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));
	values[1] = PointerGetDatum(
		construct_array(tokens, n_bound, UUIDOID, UUID_LEN, false, TYPALIGN_CHAR));
	eq_end_leases("JOIN unnest($1, $2) AS b (job_id, token)"
				  " ON j.job_id = b.job_id AND j.lease_token = b.token",
				  2, types, values);
}

/* Releases the jobs that this session still holds; nothing is counted. */
static void
release_bound(void)
{
	static const char *const query =
		"SELECT FROM event_queue.job WHERE job_id = $1 AND lease_token = $2"
		" AND leased_until > pg_catalog.clock_timestamp() FOR UPDATE SKIP LOCKED";
	Oid types[2] = {INT8OID, UUIDOID};

	for (int i = 0; i < n_bound; i++)
	{
		Datum values[2] = {Int64GetDatum(bound[i].job_id),
						   UUIDPGetDatum(&bound[i].token)};
		EqSpi spi;
		bool held;

		eq_spi_begin(&spi, eq_extension_owner(), SECURITY_LOCAL_USERID_CHANGE);
		held = SPI_execute_with_args(query, 2, types, values, NULL, false, 1) ==
				   SPI_OK_SELECT &&
			   SPI_processed == 1;
		eq_spi_end(&spi);
		if (held)
			eq_release(bound[i].job_id, &bound[i].token, 0);
	}
}

/* Ends or releases what the session holds; after an error the leases run out by time. */
static void
session_ends(int code, Datum arg)
{
	if (n_bound == 0)
		return;
	eq_begin_exit_transaction();
	if (code == 0)
		release_bound();
	else
		end_bound_leases();
	eq_commit_exit_transaction();
}

/* Forgets the leases of jobs that this session has settled. */
static void
forget_settled(void)
{
	int kept = 0;
	Snapshot snapshot = RegisterSnapshot(GetLatestSnapshot());
	EqTable jobs;
	TupleTableSlot *slot;

	eq_table_open(&jobs, eq_relation_oid(EQ_JOB), JOB_COLUMNS);
	slot = table_slot_create(jobs.rel, NULL);
	for (int i = 0; i < n_bound; i++)
	{
		ItemPointerData root;
		bool isnull;

		/* A row that has moved (a failure, VACUUM FULL) ends its lease by time. */
		eq_token_tid(&bound[i].token, &root);
		if (eq_table_fetch(&jobs, &root, snapshot, slot) &&
			DatumGetInt64(slot_getattr(slot, JOB_ID, &isnull)) == bound[i].job_id)
			bound[kept++] = bound[i];
		ExecClearTuple(slot);
	}
	n_bound = kept;
	ExecDropSingleTupleTableSlot(slot);
	eq_table_close(&jobs);
	UnregisterSnapshot(snapshot);
}

void
eq_bind_to_session(const EqClaimedJob *jobs, int n_jobs)
{
	static bool registered = false;

	if (!registered)
	{
		before_shmem_exit(session_ends, (Datum) 0);
		registered = true;
	}
	if (n_bound + n_jobs > max_bound)
	{
		if (n_bound > 0)
			forget_settled();
		if (n_bound + n_jobs > max_bound / 2)
		{
			max_bound = (n_bound + n_jobs) * 2 + 64;
			if (bound == NULL)
				bound = MemoryContextAlloc(TopMemoryContext,
										   max_bound * sizeof(Bound));
			else
				bound = repalloc(bound, max_bound * sizeof(Bound));
		}
	}
	for (int i = 0; i < n_jobs; i++)
	{
		bound[n_bound].job_id = jobs[i].job_id;
		bound[n_bound++].token = jobs[i].token;
	}
}
