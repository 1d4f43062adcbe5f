/*
 * business.c: computes a job's delay in working time of a calendar (schedule/calendar.sql).
 *
 * Called by options.c for jobs that have the option calendar.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "queue/queue.h"
#include "table/table.h"

/*
 * When so much working time will have passed.  delay NULL: it is not known yet, and only
 * the calendar is looked for.  Raises what add_business_time raises: EQ025, EQ058.
 */
TimestampTz
eq_business_time(const char *calendar, TimestampTz from, const Interval *delay)
{
	static EqStatement add = {
		.sql = "SELECT event_queue.add_business_time($1, $2, $3)",
		.n_arguments = 3,
		.types = {TEXTOID, TIMESTAMPTZOID, INTERVALOID}};
	Interval none = {0};
	Datum values[3] = {CStringGetTextDatum(calendar), TimestampTzGetDatum(from),
					   IntervalPGetDatum(delay ? delay : &none)};
	TimestampTz result;
	bool isnull;
	EqSpi spi;

	eq_spi_begin(&spi, eq_extension_owner(), SECURITY_LOCAL_USERID_CHANGE);
	eq_spi_run(&add, values, NULL);
	result = DatumGetTimestampTz(
		SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
	eq_spi_end(&spi);
	return result;
}
