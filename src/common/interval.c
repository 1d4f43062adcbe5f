/*
 * interval.c: converts intervals to microseconds and back.
 */
#include "postgres.h"

#include "common/int.h"

#include "common/interval.h"

/*
 * Months count 30 days, days 24 hours: settings are spans, not dates.  What int64
 * can't hold is longer than any limit anyway.
 */
int64
eq_interval_us(const Interval *interval)
{
	int64 days = interval->day + (int64) interval->month * DAYS_PER_MONTH;
	int64 us;

	if (pg_mul_s64_overflow(days, USECS_PER_DAY, &us) ||
		pg_add_s64_overflow(us, interval->time, &us))
		return days < 0 ? PG_INT64_MIN : PG_INT64_MAX;
	return us;
}

/* Converts microseconds to an interval. */
Interval *
eq_make_interval(int64 us)
{
	Interval *interval = palloc0(sizeof(Interval));

	interval->time = us;
	return interval;
}
