/*
 * cron.c: when a cron expression is due next.
 *
 * Five fields: minute, hour, day of month, month, day of week (0 or 7 is
 * Sunday); lists, ranges, steps, names of months and days; @hourly, @daily,
 * @weekly, @monthly and @yearly.  If both days are restricted, either one is
 * enough.  Times are local times of a time zone.
 *
 * Daylight saving, and other changes of a zone's offset:
 *
 * - A local time that comes twice runs once, the first time, if minute and hour
 *   are named (30 2 * * *); with * or a step of * in either, it runs both times
 *   (each quarter of the doubled hour), since that asks for an interval.
 * - A local time that is skipped runs at the moment the clocks go forward if the
 *   hour is named; with * or a step of * as hour it is left out, since the next
 *   one is near.
 *
 * Used by schedule.sql through cron_next.
 */
#include "postgres.h"

#include <ctype.h>

#include "fmgr.h"
#include "miscadmin.h"
#include "pgtime.h"
#include "utils/builtins.h"
#include "utils/datetime.h"
#include "utils/timestamp.h"

#include "errors.h"
#include "update/version.h"

PG_FUNCTION_INFO_V1(eq_cron_next_sql);

#define MAX_DAYS_AHEAD 146097 /* 400 years: then the calendar comes again */

/* One bit for each value that a field allows. */
typedef struct Cron
{
	uint64 minutes;
	uint64 hours;
	uint64 days;
	uint64 months;
	uint64 weekdays;
	bool any_day;	  /* day of month is * */
	bool any_weekday; /* day of week is * */
	bool any_hour;	  /* hour is * or a step of it */
	bool any_minute;
} Cron;

/* The moments of a local time: none (skipped), one or two. */
typedef struct Moments
{
	bool skipped;	   /* first is when the clocks go forward */
	bool doubled;	   /* there is a second */
	TimestampTz first; /* never falls while local times rise */
	TimestampTz second;
} Moments;

static const char *const month_names[] = {"jan", "feb", "mar", "apr", "may", "jun",
										  "jul", "aug", "sep", "oct", "nov", "dec"};
static const char *const day_names[] = {"sun", "mon", "tue", "wed",
										"thu", "fri", "sat"};

static void
invalid_cron(const char *expression, const char *field)
{
	ereport(
		ERROR,
		(errcode(ERRCODE_EQ_INVALID_CRON),
		 errmsg("invalid cron expression \"%s\"", expression),
		 errdetail("Field \"%s\" is not valid.", field),
		 errhint(
			 "Five fields: minute hour day-of-month month day-of-week, such as \"0 9 * * mon-fri\".")));
}

/* A number or a name; *s moves behind it.  -1 if there is none. */
static int
parse_value(const char **s, const char *const *names, int n_names, int first_name)
{
	int value = 0;
	int digits = 0;

	for (int i = 0; i < n_names; i++)
	{
		if (pg_strncasecmp(*s, names[i], 3) == 0)
		{
			*s += 3;
			return first_name + i;
		}
	}
	for (; isdigit((unsigned char) **s) && digits < 4; (*s)++, digits++)
		value = value * 10 + (**s - '0');
	return digits > 0 ? value : -1;
}

/* The bits of one field. */
static uint64
parse_field(const char *expression, const char *field, int low, int high,
			const char *const *names, int n_names, int first_name)
{
	const char *s = field;
	uint64 bits = 0;

	for (;;)
	{
		int from = low;
		int to = high;
		int every = 1;

		if (*s == '*')
			s++;
		else
		{
			from = to = parse_value(&s, names, n_names, first_name);
			if (*s == '-')
			{
				s++;
				to = parse_value(&s, names, n_names, first_name);
			}
			else if (*s == '/')
				to = high; /* 5/15 is 5-59/15 */
		}
		if (*s == '/')
		{
			s++;
			every = parse_value(&s, NULL, 0, 0);
		}
		if (from < low || to > high || from > to || every < 1 ||
			(*s != ',' && *s != '\0'))
			invalid_cron(expression, field);
		for (int v = from; v <= to; v += every)
			bits |= UINT64CONST(1) << v;
		if (*s == '\0')
			return bits;
		s++;
	}
}

static void
parse_cron(const char *expression, Cron *cron)
{
	static const char *const nicknames[][2] = {
		{"@hourly", "0 * * * *"}, {"@daily", "0 0 * * *"},
		{"@weekly", "0 0 * * 0"}, {"@monthly", "0 0 1 * *"},
		{"@yearly", "0 0 1 1 *"},
	};
	char *copy;
	char *fields[6];
	char *rest = NULL;
	int n = 0;

	copy = pstrdup(expression);
	for (int i = 0; i < lengthof(nicknames); i++)
	{
		if (pg_strcasecmp(expression, nicknames[i][0]) == 0)
			copy = pstrdup(nicknames[i][1]);
	}
	for (char *word = strtok_r(copy, " \t", &rest); word && n < 6;
		 word = strtok_r(NULL, " \t", &rest))
		fields[n++] = word;
	if (n != 5)
		ereport(ERROR, (errcode(ERRCODE_EQ_INVALID_CRON),
						errmsg("invalid cron expression \"%s\"", expression),
						errdetail("It must have five fields.")));

	cron->minutes = parse_field(expression, fields[0], 0, 59, NULL, 0, 0);
	cron->hours = parse_field(expression, fields[1], 0, 23, NULL, 0, 0);
	cron->days = parse_field(expression, fields[2], 1, 31, NULL, 0, 0);
	cron->months = parse_field(expression, fields[3], 1, 12, month_names, 12, 1);
	cron->weekdays = parse_field(expression, fields[4], 0, 7, day_names, 7, 0);
	if (cron->weekdays & (1 << 7))
		cron->weekdays |= 1;
	cron->any_day = fields[2][0] == '*';
	cron->any_weekday = fields[4][0] == '*';
	cron->any_minute = fields[0][0] == '*';
	cron->any_hour = fields[1][0] == '*';
}

static bool
has(uint64 bits, int value)
{
	return (bits >> value) & 1;
}

static bool
day_matches(const Cron *cron, int julian)
{
	int year;
	int month;
	int day;
	bool day_ok;
	bool weekday_ok;

	j2date(julian, &year, &month, &day);
	if (!has(cron->months, month))
		return false;
	day_ok = has(cron->days, day);
	weekday_ok = has(cron->weekdays, j2day(julian));
	if (cron->any_day || cron->any_weekday)
		return day_ok && weekday_ok;
	return day_ok || weekday_ok;
}

/* A time in seconds of Unix as a timestamp. */
static TimestampTz
moment_of(pg_time_t seconds)
{
	return (seconds -
			(POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * (int64) SECS_PER_DAY) *
		   USECS_PER_SEC;
}

/*
 * Reads a local time by the offsets before and after the change that is next to
 * it, as DetermineTimeZoneOffset does.
 */
static void
find_moments(Moments *moments, int julian, int hour, int minute, pg_tz *tz)
{
	pg_time_t local = ((pg_time_t) julian - UNIX_EPOCH_JDATE) * SECS_PER_DAY +
					  hour * SECS_PER_HOUR + minute * SECS_PER_MINUTE;
	pg_time_t day_before = local - SECS_PER_DAY;
	pg_time_t boundary;
	pg_time_t before;
	pg_time_t after;
	long offset_before;
	long offset_after;
	int is_dst;

	moments->skipped = moments->doubled = false;
	if (pg_next_dst_boundary(&day_before, &offset_before, &is_dst, &boundary,
							 &offset_after, &is_dst, tz) <= 0)
	{
		moments->first = moment_of(local - offset_before);
		return;
	}
	before = local - offset_before;
	after = local - offset_after;
	if (before < boundary)
	{
		moments->first = moment_of(before);
		moments->doubled = after >= boundary;
		moments->second = moment_of(after);
	}
	else
	{
		moments->skipped = after < boundary;
		moments->first = moment_of(moments->skipped ? boundary : after);
	}
}

/*
 * Looks for moments after "after" on a day; *best is the earliest so far, or
 * DT_NOEND.  True if what comes later by the calendar comes later.
 */
static bool
search_day(const Cron *cron, int julian, TimestampTz after, pg_tz *tz,
		   TimestampTz *best)
{
	Moments moments = {0};

	for (int hour = 0; hour < 24; hour++)
	{
		if (!has(cron->hours, hour))
			continue;
		for (int minute = 0; minute < 60; minute++)
		{
			if (!has(cron->minutes, minute))
				continue;
			find_moments(&moments, julian, hour, minute, tz);
			if (moments.first >= *best)
				return true;
			if (moments.first > after && !(moments.skipped && cron->any_hour))
				*best = moments.first;
			if (moments.doubled && (cron->any_hour || cron->any_minute) &&
				moments.second > after)
				*best = Min(*best, moments.second);
		}
	}
	return false;
}

/* The first moment after "after" that matches; false if there is none. */
static bool
next_run(const Cron *cron, TimestampTz after, pg_tz *tz, TimestampTz *next)
{
	struct pg_tm tm;
	int zone;
	fsec_t fsec;
	int today;
	int last;

	if (timestamp2tm(after, &zone, &tm, &fsec, NULL, tz) != 0)
		ereport(ERROR, (errcode(ERRCODE_DATETIME_VALUE_OUT_OF_RANGE),
						errmsg("timestamp out of range")));
	today = date2j(tm.tm_year, tm.tm_mon, tm.tm_mday);
	last = today + MAX_DAYS_AHEAD;
	*next = DT_NOEND;
	/*
	 * Clocks that are set back at midnight bring a piece of yesterday again, which
	 * may come after the first minutes of today.
	 */
	for (int day = today - 1; day < last; day++)
	{
		CHECK_FOR_INTERRUPTS();
		if (!day_matches(cron, day))
			continue;
		if (search_day(cron, day, after, tz, next))
			break;
		if (*next != DT_NOEND)
			last = Min(last, day + 2);
	}
	return *next != DT_NOEND && IS_VALID_TIMESTAMP(*next);
}

Datum
eq_cron_next_sql(PG_FUNCTION_ARGS)
{
	char *expression = text_to_cstring(PG_GETARG_TEXT_PP(0));
	char *zone = text_to_cstring(PG_GETARG_TEXT_PP(1));
	TimestampTz after = PG_GETARG_TIMESTAMPTZ(2);
	pg_tz *tz = pg_tzset(zone);
	Cron cron;
	TimestampTz next;

	parse_cron(expression, &cron);
	if (tz == NULL || !pg_tz_acceptable(tz))
		ereport(ERROR, (errcode(ERRCODE_EQ_UNKNOWN_TIME_ZONE),
						errmsg("time zone \"%s\" does not exist", zone),
						errhint("See the view pg_timezone_names.")));
	if (TIMESTAMP_NOT_FINITE(after) || !next_run(&cron, after, tz, &next))
		PG_RETURN_NULL();
	PG_RETURN_TIMESTAMPTZ(next);
}
