/*
 * handlers.c: reads which handler runs a job.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/namespace.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#include "event_queue.h"
#include "queue/queue.h"
#include "table/table.h"
#include "wake/database.h"
#include "watch/watch.h"
#include "worker/executor.h"
#include "worker/handlers.h"

EqHandler *eq_handlers;
int eq_n_handlers;

/* Queues whose jobs are run by the extension itself. */
static const int32 own_queues[] = {EQ_RULE_CALLS, EQ_SNAPSHOTS};

static MemoryContext config_context = NULL;
static uint32 config_seen;
static bool config_known = false;

/* For faults: tells whether a handler with this label exists. */
static bool
is_label(const char *name)
{
	for (int i = 0; i < eq_n_handlers; i++)
	{
		if (strcmp(eq_handlers[i].label, name) == 0)
			return true;
	}
	return false;
}

/* Reads the handlers, if the configuration changed. True if it did. */
bool
eq_read_handlers(void)
{
	uint32 generation = pg_atomic_read_u32(&eq_database()->config_generation);
	MemoryContext caller = CurrentMemoryContext;
	Oid table;
	EqSpi spi;

	if (config_known && generation == config_seen)
		return false;

	eq_begin_own_transaction();
	/* While someone has the table locked, the handlers that are known go on. */
	table = get_relname_relid("handler", get_namespace_oid(EQ_SCHEMA, false));
	if (config_known && OidIsValid(table) &&
		!ConditionalLockRelationOid(table, AccessShareLock))
	{
		CommitTransactionCommand();
		MemoryContextSwitchTo(caller);
		return false;
	}
	PushActiveSnapshot(GetTransactionSnapshot());
	eq_spi_begin(&spi, eq_extension_owner(), SECURITY_LOCAL_USERID_CHANGE);
	if (SPI_execute(
			"SELECT queue_id, job_name, owner, function,"
			" (EXTRACT(epoch FROM time_limit) * 1000)::int, coalesce(batch_size, 0),"
			" coalesce(max_executors, 0), version FROM event_queue.handler"
			" ORDER BY queue_id, max_executors IS NOT NULL, job_name",
			true, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not read table handler");
	if (config_context == NULL)
		config_context = AllocSetContextCreate(
			TopMemoryContext, "event_queue handlers", ALLOCSET_DEFAULT_SIZES);
	MemoryContextReset(config_context);
	eq_n_handlers = SPI_processed + lengthof(own_queues);
	eq_handlers = MemoryContextAllocZero(config_context,
										 eq_n_handlers * sizeof(EqHandler));
	for (int i = 0; i < SPI_processed; i++)
	{
		HeapTuple row = SPI_tuptable->vals[i];
		TupleDesc desc = SPI_tuptable->tupdesc;
		bool isnull;

		eq_handlers[i].queue_id = DatumGetInt32(
			SPI_getbinval(row, desc, 1, &isnull));
		eq_handlers[i].job_name = MemoryContextStrdup(config_context,
													  SPI_getvalue(row, desc, 2));
		eq_handlers[i].owner = DatumGetObjectId(
			SPI_getbinval(row, desc, 3, &isnull));
		eq_handlers[i].function = MemoryContextStrdup(config_context,
													  SPI_getvalue(row, desc, 4));
		eq_handlers[i].time_limit_ms = DatumGetInt32(
			SPI_getbinval(row, desc, 5, &isnull));
		eq_handlers[i].batch = DatumGetInt32(SPI_getbinval(row, desc, 6, &isnull));
		eq_handlers[i].most_executors = DatumGetInt32(
			SPI_getbinval(row, desc, 7, &isnull));
		eq_handlers[i].version = DatumGetInt32(SPI_getbinval(row, desc, 8, &isnull));
	}
	for (int i = 0; i < lengthof(own_queues); i++)
	{
		EqHandler *own = &eq_handlers[eq_n_handlers - 1 - i];

		own->queue_id = own_queues[i];
		own->job_name = "*";
		own->time_limit_ms = 27000;
	}
	eq_spi_end(&spi);
	for (int i = 0; i < eq_n_handlers; i++)
	{
		EqHandler *h = &eq_handlers[i];
		const EqQueue *queue = eq_get_queue_by_id(h->queue_id);

		h->work = eq_work_of(h->queue_id, h->job_name);
		h->label = MemoryContextStrdup(
			config_context,
			psprintf("%s/%s", queue ? queue->name : "?", h->job_name));
	}
	PopActiveSnapshot();
	CommitTransactionCommand();
	MemoryContextSwitchTo(caller); /* the end of a transaction leaves it */
	eq_clear_faults(MyDatabaseId, "time limit", is_label);
	eq_clear_faults(MyDatabaseId, EQ_UNRECORDED, is_label);
	config_seen = generation;
	config_known = true;
	return true;
}

/* The handler of a job, or NULL. */
EqHandler *
eq_find_handler(int32 queue_id, const char *job_name)
{
	EqHandler *other = NULL;

	for (int i = 0; i < eq_n_handlers; i++)
	{
		EqHandler *h = &eq_handlers[i];

		if (h->queue_id != queue_id)
			continue;
		if (strcmp(h->job_name, job_name) == 0)
			return h;
		if (strcmp(h->job_name, "*") == 0)
			other = h;
	}
	return other;
}

/* Has the next eq_read_handlers read, changed or not. */
void
eq_forget_handlers(void)
{
	config_known = false;
}
