/*
 * snapshot_jobs.c: enqueues and runs jobs that take snapshots of aggregates.
 *
 * create_reducer says after how many events a snapshot is due.  The scheduler reads the
 * events below the watermark and enqueues a job of the queue "snapshots" for each event
 * whose version is a multiple; an executor takes the snapshot, so that a slow reducer
 * delays nothing else.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/json.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "common/json.h"
#include "queue/queue.h"
#include "store/state.h"
#include "store/store.h"
#include "table/table.h"
#include "wake/database.h"
#include "worker/worker.h"

#define WALK_BATCH 10000 /* events in one transaction */

typedef struct Policy
{
	char *aggregate_type;
	int32 every;
} Policy;

static MemoryContext policy_context = NULL;
static Policy *policies;
static int n_policies = -1; /* -1: not read */
static uint32 policies_generation;

static void
read_policies(void)
{
	EqSpi spi;

	if (policy_context == NULL)
		policy_context = AllocSetContextCreate(
			TopMemoryContext, "event_queue snapshot policies", ALLOCSET_SMALL_SIZES);
	n_policies = -1;
	MemoryContextReset(policy_context);
	eq_spi_begin(&spi, eq_extension_owner(), SECURITY_LOCAL_USERID_CHANGE);
	if (SPI_execute("SELECT aggregate_type, snapshot_every FROM event_queue.reducer"
					" WHERE snapshot_every > 0",
					true, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not read table reducer");
	policies = MemoryContextAlloc(policy_context,
								  Max(SPI_processed, 1) * sizeof(Policy));
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		HeapTuple row = SPI_tuptable->vals[i];
		bool isnull;

		policies[i].aggregate_type = MemoryContextStrdup(
			policy_context, SPI_getvalue(row, SPI_tuptable->tupdesc, 1));
		policies[i].every = DatumGetInt32(
			SPI_getbinval(row, SPI_tuptable->tupdesc, 2, &isnull));
	}
	n_policies = SPI_processed;
	eq_spi_end(&spi);
}

static void
execute_int64(const char *command, int64 argument)
{
	EqSpi spi;
	Oid type = INT8OID;
	Datum value = Int64GetDatum(argument);

	eq_spi_begin(&spi, eq_extension_owner(), SECURITY_LOCAL_USERID_CHANGE);
	if (SPI_execute_with_args(command, 1, &type, &value, NULL, false, 0) < 0)
		elog(ERROR, "could not execute: %s", command);
	eq_spi_end(&spi);
}

/* Enqueues a snapshot if the event makes one due. */
static void
consider_event(TupleTableSlot *slot)
{
	EqNewJob job = {.name = "take-snapshot", .priority = EQ_PRIORITY_LAST};
	StringInfoData json;
	bool isnull;
	char *type;
	int32 version;

	slot_getallattrs(slot);
	version = DatumGetInt32(slot->tts_values[EVENT_VERSION - 1]);
	type = TextDatumGetCString(slot->tts_values[EVENT_AGGREGATE_TYPE - 1]);
	for (int i = 0; i < n_policies; i++)
	{
		if (version % policies[i].every != 0 ||
			strcmp(policies[i].aggregate_type, type) != 0)
			continue;
		initStringInfo(&json);
		appendStringInfoString(&json, "{\"aggregate_type\": ");
		escape_json(&json, type);
		appendStringInfoString(&json, ", \"aggregate_id\": ");
		escape_json(&json, TextDatumGetCString(
							   slot_getattr(slot, EVENT_AGGREGATE_ID, &isnull)));
		appendStringInfoChar(&json, '}');
		job.payload = eq_json_from(json.data);
		job.tenant = TextDatumGetCString(slot->tts_values[EVENT_TENANT - 1]);
		job.run_at = GetCurrentTimestamp();
		(void) eq_enqueue(eq_get_own_queue(EQ_SNAPSHOTS), &job);
	}
}

/*
 * Reads one batch of events, in a transaction of its own; true if there may be more.
 * As with rules: watermark first, then the configuration, then the snapshot.
 */
bool
eq_order_snapshots(void)
{
	uint32 generation;
	int64 up_to;
	int64 after;
	int n_events = 0;

	StartTransactionCommand();
	up_to = eq_watermark();
	generation = pg_atomic_read_u32(&eq_database()->config_generation);
	pg_memory_barrier();
	PushActiveSnapshot(GetTransactionSnapshot());
	if (n_policies < 0 || generation != policies_generation)
	{
		read_policies();
		policies_generation = generation;
	}
	after = n_policies == 0
				? up_to
				: eq_query_int64("SELECT position FROM"
								 " event_queue_internal.snapshot_checkpoint",
								 0);
	if (after < up_to)
	{
		EqReader *reader = eq_reader_begin(after, up_to, NULL);
		TupleTableSlot *slot;
		MemoryContext row = AllocSetContextCreate(
			CurrentMemoryContext, "event_queue event", ALLOCSET_DEFAULT_SIZES);
		MemoryContext old = MemoryContextSwitchTo(row);

		while (n_events < WALK_BATCH && (slot = eq_reader_next(reader)) != NULL)
		{
			consider_event(slot);
			MemoryContextReset(row);
			n_events++;
		}
		MemoryContextSwitchTo(old);
		execute_int64(
			"UPDATE event_queue_internal.snapshot_checkpoint SET position = $1",
			eq_reader_end(reader));
	}
	PopActiveSnapshot();
	CommitTransactionCommand();
	return n_events == WALK_BATCH;
}

static char *
payload_string(Jsonb *payload, const char *key)
{
	JsonbValue buffer;
	char *text = eq_json_string(eq_json_member(payload, key, &buffer));

	if (text == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_EQ_INVALID_ARGUMENT),
				 errmsg("job of queue \"snapshots\" has no string \"%s\"", key)));
	return text;
}

/* Runs a job of queue "snapshots" in the executor's transaction. */
void
eq_run_snapshot_job(const char *tenant, Jsonb *payload)
{
	(void) eq_take_snapshot(tenant, payload_string(payload, "aggregate_type"),
							payload_string(payload, "aggregate_id"));
}
