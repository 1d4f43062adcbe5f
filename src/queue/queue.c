/*
 * queue.c: the settings of queues, kept per session.
 *
 * Read by SPI when first asked for; forgotten when the table changes (its
 * trigger invalidates the relcache entry, which reaches every session with the
 * commit, and this one at once).
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "common/hashfn.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/hsearch.h"
#include "utils/inval.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "common/interval.h"
#include "queue/queue.h"
#include "table/table.h"

PG_FUNCTION_INFO_V1(eq_job_lane_sql);

/* A queue by its name. */
typedef struct QueueName
{
	char name[NAMEDATALEN]; /* hash key */
	EqQueue *queue;
} QueueName;

static HTAB *queues = NULL; /* by queue_id */
static HTAB *names = NULL;
static bool queues_valid = false;
static uint64 invalidations = 0;

/* The table queue, whose OID changes with each CREATE EXTENSION. */
static Oid watched = InvalidOid;

static void
forget_queues(Datum arg, Oid relid)
{
	if (!OidIsValid(relid) || relid == watched)
	{
		queues_valid = false;
		invalidations++;
	}
}

static int32
tenant_lane(const char *tenant)
{
	return (hash_any((const unsigned char *) tenant, strlen(tenant)) &
			PG_INT32_MAX) |
		   1;
}

/*
 * In a fair queue each tenant has a lane for its jobs that are due, and lane 0 has all
 * that are not yet: so that claims need not visit the lanes of tenants who wait.
 * The scheduler moves them when they come due (eq_move_due_jobs in look.c); until then
 * they are claimed where they are.  Tenants are hashed to 31 bits: those that collide
 * share a lane, and then a turn.
 */
int32
eq_job_lane(const EqQueue *queue, const char *tenant, TimestampTz run_at)
{
	return queue->fair && run_at <= GetCurrentTimestamp() ? tenant_lane(tenant) : 0;
}

Datum
eq_job_lane_sql(PG_FUNCTION_ARGS)
{
	PG_RETURN_INT32(
		PG_GETARG_BOOL(0) ? tenant_lane(text_to_cstring(PG_GETARG_TEXT_PP(1))) : 0);
}

static int64
interval_column(HeapTuple row, TupleDesc desc, int column)
{
	bool isnull;
	Datum value = SPI_getbinval(row, desc, column, &isnull);

	return isnull ? 0 : eq_interval_us(DatumGetIntervalP(value));
}

static int32
int_column(HeapTuple row, TupleDesc desc, int column)
{
	bool isnull;
	Datum value = SPI_getbinval(row, desc, column, &isnull);

	return isnull ? 0 : DatumGetInt32(value);
}

static HTAB *
make_table(const char *name, Size key, Size entry, int kind)
{
	HASHCTL ctl = {.keysize = key, .entrysize = entry, .hcxt = TopMemoryContext};

	return hash_create(name, 64, &ctl, HASH_ELEM | HASH_CONTEXT | kind);
}

static void
read_queues(void)
{
	static EqStatement read = {
		.sql =
			"SELECT queue_id, name, lease, stalled_interval, max_stalled, max_attempts,"
			" backoff, backoff_delay, backoff_max, backoff_jitter,"
			" CASE WHEN keep_completed < '1000 years'"
			" THEN (extract(epoch FROM keep_completed) * 1000000)::bigint"
			" WHEN keep_completed IS NOT NULL OR keep_completed_count IS NOT NULL"
			" THEN 9223372036854775807 ELSE 0 END, rate_limit, rate_interval, max_concurrency,"
			" sla, paused, draining, fair, durable, group_retry = 'pass', group_concurrency,"
			" group_rate_limit, group_rate_interval, backoff_intervals,"
			" job_events"
			" FROM event_queue.queue"};
	static bool callback_registered = false;
	uint64 seen;
	EqSpi spi;

	watched = eq_relation_oid(EQ_QUEUE);
	if (!callback_registered)
		CacheRegisterRelcacheCallback(forget_queues, (Datum) 0);
	callback_registered = true;
	queues_valid = false;
	seen = invalidations;
	if (queues != NULL)
		hash_destroy(queues);
	if (names != NULL)
		hash_destroy(names);
	queues = names = NULL;
	queues = make_table("event_queue queues", sizeof(int32), sizeof(EqQueue),
						HASH_BLOBS);
	names = make_table("event_queue queue names", NAMEDATALEN, sizeof(QueueName),
					   HASH_STRINGS);

	eq_spi_begin(&spi, eq_extension_owner(), SECURITY_LOCAL_USERID_CHANGE);
	eq_spi_run(&read, NULL, NULL);
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		HeapTuple row = SPI_tuptable->vals[i];
		TupleDesc desc = SPI_tuptable->tupdesc;
		int32 queue_id = int_column(row, desc, 1);
		bool isnull;
		Datum intervals;
		EqQueue *queue = hash_search(queues, &queue_id, HASH_ENTER, NULL);

		strlcpy(queue->name, SPI_getvalue(row, desc, 2), NAMEDATALEN);
		queue->lease = interval_column(row, desc, 3);
		queue->stalled_interval = interval_column(row, desc, 4);
		queue->max_stalled = int_column(row, desc, 5);
		queue->max_attempts = int_column(row, desc, 6);
		queue->retry.backoff = eq_parse_backoff(SPI_getvalue(row, desc, 7));
		queue->retry.delay = interval_column(row, desc, 8);
		queue->retry.max = interval_column(row, desc, 9);
		queue->retry.jitter = DatumGetFloat8(SPI_getbinval(row, desc, 10, &isnull));
		queue->keep_completed = DatumGetInt64(SPI_getbinval(row, desc, 11, &isnull));
		queue->rate_limit = int_column(row, desc, 12);
		queue->rate_interval = interval_column(row, desc, 13);
		queue->max_concurrency = int_column(row, desc, 14);
		queue->sla = interval_column(row, desc, 15);
		queue->paused = DatumGetBool(SPI_getbinval(row, desc, 16, &isnull));
		queue->draining = DatumGetBool(SPI_getbinval(row, desc, 17, &isnull));
		queue->fair = DatumGetBool(SPI_getbinval(row, desc, 18, &isnull));
		queue->durable = DatumGetBool(SPI_getbinval(row, desc, 19, &isnull));
		queue->group_pass = DatumGetBool(SPI_getbinval(row, desc, 20, &isnull));
		queue->group_concurrency = int_column(row, desc, 21);
		queue->group_rate_limit = int_column(row, desc, 22);
		queue->group_rate_interval = interval_column(row, desc, 23);
		intervals = SPI_getbinval(row, desc, 24, &isnull);
		queue->retry.n_intervals = 0;
		if (!isnull)
			eq_read_intervals(&queue->retry, intervals);
		queue->job_events = DatumGetBool(SPI_getbinval(row, desc, 25, &isnull));
		((QueueName *) hash_search(names, queue->name, HASH_ENTER, NULL))->queue =
			queue;
	}
	eq_spi_end(&spi);
	/* Invalidated while we read: the next call reads again. */
	queues_valid = invalidations == seen;
}

/*
 * A copy in the caller's memory: the table may be read again at any time.  The
 * intervals are last in the struct, and mostly there are none.
 */
static const EqQueue *
copy_queue(const EqQueue *queue)
{
	return memcpy(palloc(sizeof(EqQueue)), queue,
				  offsetof(EqQueue, retry.intervals) +
					  queue->retry.n_intervals * sizeof(int64));
}

/*
 * For callers from outside: EQ006 without a name, EQ010 if there is none, EQ035 if it is one of the
 * extension's own, whose jobs nobody else makes, claims or chooses.
 */
const EqQueue *
eq_get_queue(const char *name)
{
	const QueueName *found = NULL;

	if (name == NULL || name[0] == '\0')
		ereport(ERROR, (errcode(ERRCODE_EQ_INVALID_NAME),
						errmsg("queue name must not be empty"),
						errhint("Name a queue of event_queue.queue.")));
	/* A setting that is committed holds also in the midst of a transaction. */
	AcceptInvalidationMessages();
	for (int i = 0; i < 2 && found == NULL; i++)
	{
		if (!queues_valid || queues == NULL || i == 1)
			read_queues();
		if (strlen(name) < NAMEDATALEN)
			found = hash_search(names, name, HASH_FIND, NULL);
	}
	if (found == NULL)
		ereport(ERROR, (errcode(ERRCODE_EQ_UNKNOWN_QUEUE),
						errmsg("queue \"%s\" does not exist", name),
						errhint("Create it with event_queue.create_queue(%s).",
								quote_literal_cstr(name))));
	if (found->queue->queue_id <= EQ_SNAPSHOTS)
		ereport(ERROR, (errcode(ERRCODE_EQ_INTERNAL_QUEUE),
						errmsg("queue \"%s\" is internal", name),
						errhint("Use a queue of your own.")));
	return copy_queue(found->queue);
}

/*
 * NULL if there is none.  A commit can be seen a moment before its invalidation
 * comes, so what is not known is looked for in the table.
 */
const EqQueue *
eq_get_queue_by_id(int32 queue_id)
{
	EqQueue *queue = NULL;

	for (int i = 0; i < 2 && queue == NULL; i++)
	{
		if (!queues_valid || queues == NULL || i == 1)
			read_queues();
		queue = hash_search(queues, &queue_id, HASH_FIND, NULL);
	}
	return queue ? copy_queue(queue) : NULL;
}

/* Returns an internal queue; these exist unless someone has deleted their rows. */
const EqQueue *
eq_get_own_queue(int32 queue_id)
{
	const EqQueue *queue = eq_get_queue_by_id(queue_id);

	if (queue == NULL)
		ereport(ERROR, (errcode(ERRCODE_EQ_UNKNOWN_QUEUE),
						errmsg("internal queue %d is missing", queue_id),
						errhint("Insert its row into event_queue.queue again.")));
	return queue;
}
