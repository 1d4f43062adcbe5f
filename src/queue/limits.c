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
#include "common/hashfn.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "queue/queue.h"
#include "table/table.h"

/* All statements on the limits of a queue take these four. */
#define LIMIT_STATEMENT(text)                                                       \
	{                                                                               \
		.sql = (text), .n_arguments = 4, .types = {                                 \
			INT4OID,                                                                \
			INT8OID,                                                                \
			TIMESTAMPTZOID,                                                         \
			FLOAT8OID                                                               \
		}                                                                           \
	}

static void
run(EqStatement *statement, int32 queue_id, int64 number, TimestampTz at,
	double tokens)
{
	Datum values[4] = {Int32GetDatum(queue_id), Int64GetDatum(number),
					   TimestampTzGetDatum(at), Float8GetDatum(tokens)};

	eq_spi_run(statement, values, NULL);
}

static void
run_as_owner(EqStatement *statement, int32 queue_id, int64 number, TimestampTz at)
{
	EqSpi spi;

	eq_spi_begin(&spi, eq_extension_owner(), SECURITY_LOCAL_USERID_CHANGE);
	run(statement, queue_id, number, at, 0);
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
	static EqStatement lock_bucket = LIMIT_STATEMENT(
		"SELECT tokens, refilled_at FROM event_queue.queue_limit"
		" WHERE queue_id = $1 FOR UPDATE");
	static EqStatement refill_bucket = LIMIT_STATEMENT(
		"UPDATE event_queue.queue_limit SET tokens = $4, refilled_at = $3"
		" WHERE queue_id = $1");
	static EqStatement drop_expired = LIMIT_STATEMENT(
		"DELETE FROM event_queue.queue_active"
		" WHERE queue_id = $1 AND leased_until <= $3");
	static EqStatement count_active = LIMIT_STATEMENT(
		"SELECT count(*) FROM event_queue.queue_active WHERE queue_id = $1");
	EqSpi spi;
	bool isnull;
	double tokens;
	TimestampTz refilled_at;
	int allowed = wanted;

	/* Turns are taken here, so that nobody's snapshot of the row is too old. */
	(void) eq_lock_key_until_end(EQ_LOCK_LIMIT, queue->queue_id, true);
	eq_spi_begin(&spi, eq_extension_owner(), SECURITY_LOCAL_USERID_CHANGE);
	run(&lock_bucket, queue->queue_id, 0, now, 0);
	if (SPI_processed != 1)
	{
		/* alter_queue has just lifted the limits. */
		eq_spi_end(&spi);
		return wanted;
	}
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
		run(&refill_bucket, queue->queue_id, 0, now, tokens);
	}
	if (allowed > 0 && queue->max_concurrency > 0)
	{
		int64 active;

		run(&drop_expired, queue->queue_id, 0, now, 0);
		run(&count_active, queue->queue_id, 0, now, 0);
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
	static EqStatement take_tokens = LIMIT_STATEMENT(
		"UPDATE event_queue.queue_limit SET tokens = tokens - $2"
		" WHERE queue_id = $1");
	static EqStatement add_active = LIMIT_STATEMENT(
		"INSERT INTO event_queue.queue_active VALUES ($1, $2, $3)"
		" ON CONFLICT (queue_id, job_id) DO UPDATE SET leased_until = excluded.leased_until");
	EqSpi spi;

	eq_spi_begin(&spi, eq_extension_owner(), SECURITY_LOCAL_USERID_CHANGE);
	if (queue->rate_limit > 0)
		run(&take_tokens, queue->queue_id, n_jobs, 0, 0);
	for (int i = 0; i < n_jobs && queue->max_concurrency > 0; i++)
		run(&add_active, queue->queue_id, jobs[i].job_id, jobs[i].leased_until, 0);
	eq_spi_end(&spi);
}

/*
 * Does another claimer have this key's bucket in hand?  If not, it is this
 * transaction's until its end, so that claims of one key pass each other by and
 * do not wait.
 */
bool
eq_group_rate_is_busy(const EqQueue *queue, const char *tenant,
					  const char *group_key)
{
	uint64 key = hash_bytes_extended((const unsigned char *) group_key,
									 strlen(group_key), queue->queue_id);

	key = hash_combine64(key, hash_bytes_extended((const unsigned char *) tenant,
												  strlen(tenant), MyDatabaseId));
	return eq_reserve_key(key) == EQ_RESERVED_BY_OTHER;
}

/*
 * A job of a key is about to be claimed, in a queue with group_rate_limit.  Takes
 * a token of the key's bucket, and returns 0; or the time when there will be one.
 * The bucket is kept as the time at which it will be full again.
 */
TimestampTz
eq_use_group_rate(const EqQueue *queue, const char *tenant, const char *group_key)
{
	static EqStatement lock_bucket = {
		.sql = "INSERT INTO event_queue.group_rate AS g VALUES ($1, $2, $3, $4)"
			   " ON CONFLICT (queue_id, tenant_id, group_key) DO UPDATE"
			   " SET next_at = greatest(g.next_at, $4) RETURNING next_at",
		.n_arguments = 4,
		.types = {INT4OID, TEXTOID, TEXTOID, TIMESTAMPTZOID}};
	static EqStatement take_token = {
		.sql = "UPDATE event_queue.group_rate SET next_at = next_at"
			   " + $4 * interval '1 microsecond'"
			   " WHERE queue_id = $1 AND tenant_id = $2 AND group_key = $3",
		.n_arguments = 4,
		.types = {INT4OID, TEXTOID, TEXTOID, INT8OID}};
	int64 per_token = queue->group_rate_interval / queue->group_rate_limit;
	TimestampTz now = GetCurrentTimestamp();
	Datum values[4] = {Int32GetDatum(queue->queue_id), CStringGetTextDatum(tenant),
					   CStringGetTextDatum(group_key), TimestampTzGetDatum(now)};
	TimestampTz full_at;
	TimestampTz until = 0;
	bool isnull;
	EqSpi spi;

	PushActiveSnapshot(GetLatestSnapshot());
	eq_spi_begin(&spi, eq_extension_owner(), SECURITY_LOCAL_USERID_CHANGE);
	eq_spi_run(&lock_bucket, values, NULL);
	full_at = DatumGetTimestampTz(
		SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
	if (full_at - now > queue->group_rate_interval - per_token)
		until = full_at - (queue->group_rate_interval - per_token);
	else
	{
		values[3] = Int64GetDatum(per_token);
		eq_spi_run(&take_token, values, NULL);
	}
	eq_spi_end(&spi);
	PopActiveSnapshot();
	return until;
}

/* A job of a queue with max_concurrency is settled. */
void
eq_free_claim(const EqQueue *queue, int64 job_id)
{
	static EqStatement drop_active = LIMIT_STATEMENT(
		"DELETE FROM event_queue.queue_active WHERE queue_id = $1 AND job_id = $2");

	run_as_owner(&drop_active, queue->queue_id, job_id, 0);
}

/* Its lease was extended. */
void
eq_prolong_claim(const EqQueue *queue, int64 job_id, TimestampTz until)
{
	static EqStatement prolong = LIMIT_STATEMENT(
		"UPDATE event_queue.queue_active SET leased_until = $3"
		" WHERE queue_id = $1 AND job_id = $2");

	run_as_owner(&prolong, queue->queue_id, job_id, until);
}
