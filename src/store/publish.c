/*
 * publish.c: publishes the watermark for standbys.
 *
 * Shared memory is not replicated, so the scheduler writes the watermark into the table
 * event_watermark, every event_queue.publish_interval while events come.  A reader on a
 * standby reads that row first and takes its snapshot after.  A session that sees the row
 * sees all events up to it: they were committed before the row was, and a standby replays
 * commits in order.
 */
#include "postgres.h"

#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/snapmgr.h"

#include "store/store.h"
#include "table/table.h"

/* Called by the scheduler; a transaction of its own, if there is news. */
void
eq_publish_watermark(void)
{
	static int64 published = -1;
	int64 watermark;
	EqSpi spi;
	Oid type = INT8OID;
	Datum value;

	StartTransactionCommand();
	watermark = eq_watermark();
	if (watermark != published && XLogIsNeeded())
	{
		value = Int64GetDatum(watermark);
		PushActiveSnapshot(GetTransactionSnapshot());
		eq_spi_begin(&spi, eq_extension_owner(), SECURITY_LOCAL_USERID_CHANGE);
		if (SPI_execute_with_args(
				"UPDATE event_queue.event_watermark"
				" SET position = $1, published_at = pg_catalog.clock_timestamp()"
				" WHERE position <> $1",
				1, &type, &value, NULL, false, 0) != SPI_OK_UPDATE)
			elog(ERROR, "could not write table event_watermark");
		eq_spi_end(&spi);
		PopActiveSnapshot();
	}
	CommitTransactionCommand();
	published = watermark;
}

/* On a standby: how far its readers may go. */
int64
eq_published_watermark(void)
{
	return eq_query_int64("SELECT position FROM event_queue.event_watermark", 0);
}
