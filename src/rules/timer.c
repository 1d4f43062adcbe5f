/*
 * timer.c: timers: a job with a unique key that one rule enqueues for an event, and another
 * one cancels for a later event.
 *
 * Rules meet events in order, but a firing may come late: retried by a job (call.c), by a
 * rule that catches up, or by a backfill.  So a rule that cancels records, for the key, the
 * position of its event in timer_end (runs.sql), and a late start checks there whether
 * an event after its own has ended the timer already.  Both lock the row of the key until
 * they commit: a cancel waits for a late start, and then finds its job, or the start waits
 * for the cancel, and finds its row.  A start in order need not check, since no later event
 * has met a rule yet.  Conversely, a late cancel does not touch what a later event started.
 *
 * A start that is refused because the timer is running is recorded (timer_start): if the
 * end that belongs before it comes late, the start is done after all, by a job of queue
 * "rule-calls", also if the timer has fired meanwhile (which can't be undone), and as the
 * rule is by then.  The order of events decides: the first refused start after the last
 * end.  Stopping a timer by its key (cancel_jobs) also stops what was refused.
 *
 * Records are deleted after event_queue.keep_rule_runs, as firings are.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "nodes/bitmapset.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

#include "common/audit.h"
#include "queue/queue.h"
#include "rules/rule.h"
#include "table/table.h"
#include "wake/database.h"

/*
 * Has an event after this position ended the timer?  For a start that comes late; it waits
 * for whoever starts or cancels it just now.
 */
bool
eq_timer_has_ended(const EqQueue *queue, const char *tenant, const char *key,
				   int64 position)
{
	/* A row that is there for the lock only goes again: position 0. */
	static EqStatement lock = {
		.sql =
			"INSERT INTO event_queue_internal.timer_end AS t (queue_id, tenant_id, unique_key, position)"
			" VALUES ($1, $2, $3, 0) ON CONFLICT (queue_id, tenant_id, unique_key)"
			" DO UPDATE SET position = t.position RETURNING position",
		.n_arguments = 3,
		.types = {INT4OID, TEXTOID, TEXTOID}};
	static EqStatement forget = {
		.sql = "DELETE FROM event_queue_internal.timer_end WHERE queue_id = $1"
			   " AND tenant_id = $2 AND unique_key = $3 AND position = 0",
		.n_arguments = 3,
		.types = {INT4OID, TEXTOID, TEXTOID}};
	Datum values[3] = {Int32GetDatum(queue->queue_id), CStringGetTextDatum(tenant),
					   CStringGetTextDatum(key)};
	int64 ended_at;
	bool isnull;
	EqSpi spi;

	eq_spi_begin(&spi, eq_extension_owner(), SECURITY_LOCAL_USERID_CHANGE);
	eq_spi_run(&lock, values, NULL);
	ended_at = DatumGetInt64(
		SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
	if (ended_at == 0)
		eq_spi_run(&forget, values, NULL);
	eq_spi_end(&spi);
	return ended_at > position;
}

/*
 * Has a rule, in any of its versions or drafts, an action that cancels jobs of this queue?  If
 * none has, refused starts need not be recorded.
 */
bool
eq_rules_end_timers(const EqQueue *queue)
{
	static EqStatement read = {
		.sql = "SELECT q.queue_id FROM event_queue.queue q WHERE q.name IN"
			   " (SELECT t #>> '{}' FROM event_queue_internal.rule_version v"
			   " JOIN event_queue.rule r USING (rule_id), LATERAL"
			   " jsonb_path_query(v.definition, '$.actions[*].cancel.queue') t)"};
	static Bitmapset *queues = NULL;
	static uint32 read_at; /* the configuration's generation */
	static bool is_read = false;
	uint32 generation = pg_atomic_read_u32(&eq_database()->config_generation);

	pg_memory_barrier();
	if (!is_read || generation != read_at)
	{
		EqSpi spi;

		is_read = false;
		bms_free(queues);
		queues = NULL;
		eq_spi_begin(&spi, eq_extension_owner(), SECURITY_LOCAL_USERID_CHANGE);
		eq_spi_run(&read, NULL, NULL);
		for (uint64 i = 0; i < SPI_processed; i++)
		{
			bool isnull;
			MemoryContext old = MemoryContextSwitchTo(TopMemoryContext);

			queues = bms_add_member(queues, DatumGetInt32(SPI_getbinval(
												SPI_tuptable->vals[i],
												SPI_tuptable->tupdesc, 1, &isnull)));
			MemoryContextSwitchTo(old);
		}
		eq_spi_end(&spi);
		read_at = generation;
		is_read = true;
	}
	return bms_is_member(queue->queue_id, queues);
}

/*
 * Records a start that was refused, since a timer is running: the job that holds the key.  A
 * cancel whose event lies between the two may still come.  The caller holds the row lock of
 * eq_timer_has_ended.
 */
void
eq_note_refused_start(const EqRule *rule, const EqQueue *queue, const EqNewJob *job,
					  int64 position, int64 holder)
{
	/* Metadata of others may have any number. */
	static EqStatement note = {
		.sql =
			"INSERT INTO event_queue_internal.timer_start"
			" (queue_id, tenant_id, unique_key, position, rule_id, opened)"
			" SELECT $1, $2, $3, $4, $5, coalesce((SELECT greatest(least((j.metadata -> 'event_position')::numeric, $4), 0)"
			" FROM event_queue.job j WHERE j.job_id = $6 AND j.metadata ? 'rule'"
			" AND jsonb_typeof(j.metadata -> 'event_position') = 'number'), 0)"
			" ON CONFLICT DO NOTHING",
		.n_arguments = 6,
		.types = {INT4OID, TEXTOID, TEXTOID, INT8OID, INT4OID, INT8OID}};
	Datum values[6] = {
		Int32GetDatum(queue->queue_id),		  CStringGetTextDatum(job->tenant),
		CStringGetTextDatum(job->unique_key), Int64GetDatum(position),
		Int32GetDatum(rule->rule_id),		  Int64GetDatum(holder)};

	eq_run_as_owner(&note, values, NULL);
}

/*
 * After an end: deletes the refused starts before it, and does the first one after it if the
 * timer that was in its way was started before the end.  Had the end come in time, it would
 * have cancelled that timer; whether that is still running or has fired does not matter.
 */
static void
start_again(const EqQueue *queue, const char *unique_key, Datum *key)
{
	static EqStatement forget = {
		.sql = "DELETE FROM event_queue_internal.timer_start s"
			   " USING event_queue_internal.timer_end t"
			   " WHERE s.queue_id = $1 AND s.tenant_id = $2 AND s.unique_key = $3"
			   " AND t.queue_id = $1 AND t.tenant_id = $2 AND t.unique_key = $3"
			   " AND s.position <= t.position",
		.n_arguments = 3,
		.types = {INT4OID, TEXTOID, TEXTOID}};
	static EqStatement find = {
		.sql = "DELETE FROM event_queue_internal.timer_start"
			   " WHERE queue_id = $1 AND tenant_id = $2 AND unique_key = $3"
			   " AND position = (SELECT pg_catalog.min(s.position)"
			   " FROM event_queue_internal.timer_start s"
			   " WHERE s.queue_id = $1 AND s.tenant_id = $2 AND s.unique_key = $3"
			   " AND s.opened <= $4)"
			   " RETURNING position, rule_id",
		.n_arguments = 4,
		.types = {INT4OID, TEXTOID, TEXTOID, INT8OID}};
	EqTimer timer = {.queue_id = queue->queue_id, .key = unique_key};
	int64 position = 0;
	int32 rule_id = 0;
	EqRule *rule;
	Datum event;
	EqSpi spi;

	eq_spi_begin(&spi, eq_extension_owner(), SECURITY_LOCAL_USERID_CHANGE);
	eq_spi_run(&forget, key, NULL);
	eq_spi_run(&find, key, NULL);
	if (SPI_processed > 0)
	{
		HeapTuple row = SPI_tuptable->vals[0];
		bool isnull;

		position = DatumGetInt64(
			SPI_getbinval(row, SPI_tuptable->tupdesc, 1, &isnull));
		rule_id = DatumGetInt32(
			SPI_getbinval(row, SPI_tuptable->tupdesc, 2, &isnull));
	}
	eq_spi_end(&spi);
	if (position == 0)
		return;
	rule = eq_read_rule(rule_id);
	event = eq_read_event(position);
	if (rule && event != 0)
		eq_enqueue_start(rule, event, &timer);
}

/* An event at this position ends the timer: its job goes, unless a later event has made it. */
void
eq_end_timer(const EqQueue *queue, const char *tenant, const char *key,
			 int64 position)
{
	static EqStatement note = {
		.sql =
			"INSERT INTO event_queue_internal.timer_end AS t (queue_id, tenant_id, unique_key, position)"
			" VALUES ($1, $2, $3, $4) ON CONFLICT (queue_id, tenant_id, unique_key)"
			" DO UPDATE SET position = greatest(t.position, excluded.position), at = excluded.at",
		.n_arguments = 4,
		.types = {INT4OID, TEXTOID, TEXTOID, INT8OID}};
	static EqStatement cancel = {
		.sql = "SELECT event_queue_internal.cancel_jobs($5, unique_key => $3,"
			   " tenant_id => $2, up_to => $4) WHERE $1 > 0",
		.n_arguments = 5,
		.types = {INT4OID, TEXTOID, TEXTOID, INT8OID, TEXTOID}};
	Datum values[5] = {Int32GetDatum(queue->queue_id), CStringGetTextDatum(tenant),
					   CStringGetTextDatum(key), Int64GetDatum(position),
					   CStringGetTextDatum(queue->name)};
	EqSpi spi;

	eq_spi_begin(&spi, eq_extension_owner(), SECURITY_LOCAL_USERID_CHANGE);
	eq_spi_run(&note, values, NULL);
	/* Timers that end are many, and nobody's act: rule_runs has them. */
	eq_audit_rests = true;
	PG_TRY();
	{
		eq_spi_run(&cancel, values, NULL);
	}
	PG_FINALLY();
	{
		eq_audit_rests = false;
	}
	PG_END_TRY();
	eq_spi_end(&spi);
	start_again(queue, key, values);
}
