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
 * "rule-calls".  The order of events decides: the first refused start after the last end.
 *
 * Records are deleted after event_queue.keep_rule_runs, as firings are.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/builtins.h"

#include "common/audit.h"
#include "queue/queue.h"
#include "rules/rule.h"
#include "table/table.h"

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
 * The timer is open since an earlier event: another end may yet come in between.  The
 * caller has the lock of eq_timer_has_ended.
 */
void
eq_note_refused_start(const EqRule *rule, const EqQueue *queue, const EqNewJob *job,
					  int64 position, int action)
{
	static EqStatement note = {
		.sql =
			"INSERT INTO event_queue_internal.timer_start"
			" (queue_id, tenant_id, unique_key, position, rule_id, version, action)"
			" VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT DO NOTHING",
		.n_arguments = 7,
		.types = {INT4OID, TEXTOID, TEXTOID, INT8OID, INT4OID, INT4OID, INT4OID}};
	Datum values[7] = {Int32GetDatum(queue->queue_id),
					   CStringGetTextDatum(job->tenant),
					   CStringGetTextDatum(job->unique_key),
					   Int64GetDatum(position),
					   Int32GetDatum(rule->rule_id),
					   Int32GetDatum(rule->version),
					   Int32GetDatum(action)};
	EqSpi spi;

	eq_spi_begin(&spi, eq_extension_owner(), SECURITY_LOCAL_USERID_CHANGE);
	eq_spi_run(&note, values, NULL);
	eq_spi_end(&spi);
}

/*
 * Of the starts that were refused, the first after the last end is done now, if this end
 * was the timer's (ended).  Those before it are over.
 */
static void
start_again(Datum *key, bool ended)
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
			   " WHERE s.queue_id = $1 AND s.tenant_id = $2 AND s.unique_key = $3)"
			   " RETURNING position, rule_id, version, action",
		.n_arguments = 3,
		.types = {INT4OID, TEXTOID, TEXTOID}};
	int64 start[4] = {0};
	EqRule *rule;
	Datum event;
	EqSpi spi;

	eq_spi_begin(&spi, eq_extension_owner(), SECURITY_LOCAL_USERID_CHANGE);
	eq_spi_run(&forget, key, NULL);
	if (ended)
		eq_spi_run(&find, key, NULL);
	for (int i = 0; ended && SPI_processed > 0 && i < 4; i++)
	{
		bool isnull;
		Datum value = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc,
									i + 1, &isnull);

		start[i] = i == 0 ? DatumGetInt64(value) : DatumGetInt32(value);
	}
	eq_spi_end(&spi);
	if (start[0] == 0)
		return;
	rule = eq_read_rule((int32) start[1]);
	event = eq_read_event(start[0]);
	if (rule && rule->version == start[2] && event != 0)
		eq_enqueue_start(rule, event, (int) start[3]);
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
	volatile bool ended = false;
	EqSpi spi;

	eq_spi_begin(&spi, eq_extension_owner(), SECURITY_LOCAL_USERID_CHANGE);
	eq_spi_run(&note, values, NULL);
	/* Timers that end are many, and nobody's act: rule_runs has them. */
	eq_audit_rests = true;
	PG_TRY();
	{
		bool isnull;

		eq_spi_run(&cancel, values, NULL);
		ended = DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0],
											SPI_tuptable->tupdesc, 1, &isnull)) > 0;
	}
	PG_FINALLY();
	{
		eq_audit_rests = false;
	}
	PG_END_TRY();
	eq_spi_end(&spi);
	start_again(values, ended);
}
