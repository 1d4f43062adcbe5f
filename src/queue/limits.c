/*
 * limits.c: rate_limit and max_concurrency of a queue, group_rate_limit of a key.
 *
 * A limited queue has a row in queue_limit; a claim locks it until its commit,
 * so claims of that queue take turns and the limits are exact, also across
 * rollbacks and restarts.  The row holds a token bucket: it fills at
 * rate_limit per rate_interval up to rate_limit.  Jobs that run are listed in
 * queue_active, which is never longer than max_concurrency.
 *
 * Queues without limits never come here.
 */
#include "postgres.h"

#include <math.h>

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "queue/queue.h"
#include "table/table.h"

/* Runs one statement with an int4, an int8, a timestamptz and a float8 as $1 to $4. */
static void
run(const char *sql, int32 queue_id, int64 number, TimestampTz at, double tokens)
{
	Oid types[4] = {INT4OID, INT8OID, TIMESTAMPTZOID, FLOAT8OID};
	Datum values[4] = {Int32GetDatum(queue_id), Int64GetDatum(number),
					   TimestampTzGetDatum(at), Float8GetDatum(tokens)};

	if (SPI_execute_with_args(sql, 4, types, values, NULL, false, 0) < 0)
		elog(ERROR, "could not run \"%s\"", sql);
}

static void
run_as_owner(const char *sql, int32 queue_id, int64 number, TimestampTz at)
{
	EqSpi spi;

	eq_spi_begin(&spi, eq_extension_owner(), SECURITY_LOCAL_USERID_CHANGE);
	run(sql, queue_id, number, at, 0);
	eq_spi_end(&spi);
}

/*
 * How many of the wanted jobs may be claimed now.  If the rate leaves none,
 * *retry_at says when it will leave one.
 */
int
eq_reserve_claims(const EqQueue *queue, int wanted, TimestampTz now,
				  TimestampTz *retry_at)
{
	EqSpi spi;
	bool isnull;
	double tokens;
	TimestampTz refilled_at;
	int allowed = wanted;

	eq_spi_begin(&spi, eq_extension_owner(), SECURITY_LOCAL_USERID_CHANGE);
	run("SELECT tokens, refilled_at FROM event_queue.queue_limit"
		" WHERE queue_id = $1 FOR UPDATE",
		queue->queue_id, 0, now, 0);
	if (SPI_processed != 1)
		elog(ERROR, "queue \"%s\" has no row in queue_limit", queue->name);
	tokens = DatumGetFloat8(
		SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
	refilled_at = DatumGetTimestampTz(
		SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 2, &isnull));

	/* The wait for the row may have been long. */
	now = GetCurrentTimestamp();
	if (queue->rate_limit > 0)
	{
		double per_us = (double) queue->rate_limit / queue->rate_interval;

		tokens += Max(now - refilled_at, 0) * per_us;
		tokens = Min(tokens, queue->rate_limit);
		if (tokens < 1)
		{
			allowed = 0;
			*retry_at = now + (int64) ceil((1 - tokens) / per_us);
		}
		else
			allowed = Min(allowed, (int) floor(tokens));
		run("UPDATE event_queue.queue_limit SET tokens = $4, refilled_at = $3"
			" WHERE queue_id = $1",
			queue->queue_id, 0, now, tokens);
	}
	if (allowed > 0 && queue->max_concurrency > 0)
	{
		int64 active;

		run("DELETE FROM event_queue.queue_active"
			" WHERE queue_id = $1 AND leased_until <= $3",
			queue->queue_id, 0, now, 0);
		run("SELECT count(*) FROM event_queue.queue_active"
			" WHERE queue_id = $1",
			queue->queue_id, 0, now, 0);
		active = DatumGetInt64(
			SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
		allowed = Min(allowed, Max(queue->max_concurrency - active, 0));
	}
	eq_spi_end(&spi);
	return allowed;
}

/* Of the reserved claims, these were made. */
void
eq_use_claims(const EqQueue *queue, const EqClaimedJob *jobs, int n_jobs)
{
	EqSpi spi;

	eq_spi_begin(&spi, eq_extension_owner(), SECURITY_LOCAL_USERID_CHANGE);
	if (queue->rate_limit > 0)
		run("UPDATE event_queue.queue_limit SET tokens = tokens - $2"
			" WHERE queue_id = $1",
			queue->queue_id, n_jobs, GetCurrentTimestamp(), 0);
	for (int i = 0; i < n_jobs && queue->max_concurrency > 0; i++)
		run("INSERT INTO event_queue.queue_active VALUES ($1, $2, $3)"
			" ON CONFLICT (queue_id, job_id) DO UPDATE SET leased_until = excluded.leased_until",
			queue->queue_id, jobs[i].job_id, jobs[i].leased_until, 0);
	eq_spi_end(&spi);
}

/*
 * A job of a key is about to be claimed, in a queue with group_rate_limit.  Takes
 * a token of the key's bucket, and returns 0; or the time when there will be one.
 * The bucket is kept as the time at which it will be full again.
 */
TimestampTz
eq_use_group_rate(const EqQueue *queue, const char *tenant, const char *group_key)
{
	static const Oid types[5] = {INT4OID, TEXTOID, TEXTOID, TIMESTAMPTZOID, INT8OID};
	int64 per_token = queue->group_rate_interval / queue->group_rate_limit;
	TimestampTz now = GetCurrentTimestamp();
	Datum values[5] = {Int32GetDatum(queue->queue_id), CStringGetTextDatum(tenant),
					   CStringGetTextDatum(group_key), TimestampTzGetDatum(now),
					   Int64GetDatum(per_token)};
	TimestampTz full_at;
	TimestampTz until = 0;
	bool isnull;
	EqSpi spi;

	PushActiveSnapshot(GetLatestSnapshot());
	eq_spi_begin(&spi, eq_extension_owner(), SECURITY_LOCAL_USERID_CHANGE);
	/* Locks the key's row: claims of one key take turns. */
	if (SPI_execute_with_args(
			"INSERT INTO event_queue.group_rate AS g VALUES ($1, $2, $3, $4)"
			" ON CONFLICT (queue_id, tenant_id, group_key) DO UPDATE"
			" SET next_at = greatest(g.next_at, $4) RETURNING next_at",
			5, (Oid *) types, values, NULL, false, 0) != SPI_OK_INSERT_RETURNING)
		elog(ERROR, "could not write table group_rate");
	full_at = DatumGetTimestampTz(
		SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
	if (full_at - now > queue->group_rate_interval - per_token)
		until = full_at - (queue->group_rate_interval - per_token);
	else if (SPI_execute_with_args(
				 "UPDATE event_queue.group_rate SET next_at = next_at"
				 " + $5 * interval '1 microsecond'"
				 " WHERE queue_id = $1 AND tenant_id = $2 AND group_key = $3",
				 5, (Oid *) types, values, NULL, false, 0) != SPI_OK_UPDATE)
		elog(ERROR, "could not write table group_rate");
	eq_spi_end(&spi);
	PopActiveSnapshot();
	return until;
}

/* A job of a queue with max_concurrency is settled. */
void
eq_free_claim(const EqQueue *queue, int64 job_id)
{
	run_as_owner(
		"DELETE FROM event_queue.queue_active WHERE queue_id = $1 AND job_id = $2",
		queue->queue_id, job_id, 0);
}

/* Its lease was extended. */
void
eq_prolong_claim(const EqQueue *queue, int64 job_id, TimestampTz until)
{
	run_as_owner("UPDATE event_queue.queue_active SET leased_until = $3"
				 " WHERE queue_id = $1 AND job_id = $2",
				 queue->queue_id, job_id, until);
}
