/*
 * group_rate.c: group_rate_limit: limits how often jobs of one group_key are claimed.
 *
 * There may be many keys, so their buckets are rows of table group_rate, each stored as the
 * time at which the bucket will be full again.  A claimer reserves a key's bucket
 * (reserve.c) until its transaction ends; other claimers skip the key's jobs.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "common/hashfn.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "queue/queue.h"
#include "table/table.h"

/*
 * Reserves the key's bucket until the end of the transaction; false if another claimer
 * has it, so that claims of one key skip the job and do not wait.
 */
bool
eq_try_reserve_group_rate(const EqQueue *queue, const char *tenant,
						  const char *group_key)
{
	uint64 key = hash_bytes_extended((const unsigned char *) group_key,
									 strlen(group_key), queue->queue_id);

	key = hash_combine64(key, hash_bytes_extended((const unsigned char *) tenant,
												  strlen(tenant), MyDatabaseId));
	return eq_reserve_key(key) != EQ_RESERVED_BY_OTHER;
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
		.sql =
			"INSERT INTO event_queue_internal.group_rate AS g VALUES ($1, $2, $3, $4)"
			" ON CONFLICT (queue_id, tenant_id, group_key) DO UPDATE"
			" SET next_at = greatest(g.next_at, $4) RETURNING next_at",
		.n_arguments = 4,
		.types = {INT4OID, TEXTOID, TEXTOID, TIMESTAMPTZOID}};
	static EqStatement take_token = {
		.sql = "UPDATE event_queue_internal.group_rate SET next_at = next_at"
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
