/*
 * cron.c: when a cron expression is due next.
 *
 * Five fields: minute, hour, day of month, month, day of week (0 or 7 is
 * Sunday, also at the end of a range: sat-sun), or six with the second first; lists, ranges, steps, names of months
 * and days; @hourly, @daily, @weekly, @monthly and @yearly.  Days of the month may
 * be L (the last), 15W (the working day, Monday to Friday, next to the 15th in its
 * month) and LW; days of the week mon#1 (the first Monday) and friL (the last
 * Friday).  If both days are restricted, either one is enough.  Times are local
 * times of a time zone.
 *
 * @every 90s, 1h30m or 2d: an interval of moments that the clock of no zone
 * touches; they are counted from 1970 in UTC, so that there is nothing to remember.
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
 * Called by schedule.sql (cron_next), and by calendar.sql for what a day is in a zone.
 */
#include "postgres.h"

#include <ctype.h>

#include "fmgr.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "pgtime.h"
#include "utils/builtins.h"
#include "utils/date.h"
#include "utils/datetime.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "errors.h"
#include "update/version.h"

PG_FUNCTION_INFO_V1(eq_cron_next_sql);
PG_FUNCTION_INFO_V1(eq_zone_day);
PG_FUNCTION_INFO_V1(eq_zone_day_begins);
PG_FUNCTION_INFO_V1(eq_local_moment);

#define MAX_DAYS_AHEAD 146097 /* 400 years: then the calendar comes again */
#define MAX_EXPRESSION 1000	  /* bytes; each value of each field takes 600 */
#define MAX_EVERY	   ((int64) 366 * SECS_PER_DAY)

/* One bit for each value that a field allows. */
typedef struct Cron
{
	int64 every; /* seconds; 0: it has fields */
	uint64 seconds;
	uint64 minutes;
	uint64 hours;
	uint64 days;
	uint64 months;
	uint64 weekdays;
	uint64 near_days;		/* 15W */
	bool last_day;			/* L */
	bool last_working_day;	/* LW */
	uint64 nth_weekdays[6]; /* mon#1 is bit 1 of the second */
	uint64 last_weekdays;	/* friL */
	bool any_day;			/* day of month begins with * */
	bool any_weekday;		/* day of week begins with * */
	bool any_hour;			/* hour is * or a step of it */
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

pg_attribute_noreturn() static void invalid_cron(const char *expression,
												 const char *field)
{
	ereport(
		ERROR,
		(errcode(ERRCODE_EQ_INVALID_CRON),
		 errmsg("invalid cron expression \"%s\"", expression),
		 errdetail("Field \"%s\" is not valid.", field),
		 errhint(
			 "Five fields: minute hour day-of-month month day-of-week, such as \"0 9 * * mon-fri\"; or six, the second first.")));
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

/*
 * Days that depend on the month: L, LW, 15W in the day of the month, mon#1, friL in
 * the day of the week.  *s is behind the value, or at the L.  False: it is none.
 */
static bool
parse_special_day(Cron *cron, const char **s, int value, bool weekday)
{
	int c = toupper((unsigned char) **s);

	if (weekday && value >= 0 && value <= 7)
	{
		uint64 bit = UINT64CONST(1) << (value % 7);

		if (c == 'L')
		{
			(*s)++;
			cron->last_weekdays |= bit;
			return true;
		}
		if (c == '#' && (*s)[1] >= '1' && (*s)[1] <= '5')
		{
			cron->nth_weekdays[(*s)[1] - '0'] |= bit;
			*s += 2;
			return true;
		}
	}
	else if (!weekday && value < 0 && c == 'L')
	{
		(*s)++;
		if (toupper((unsigned char) **s) == 'W')
		{
			(*s)++;
			cron->last_working_day = true;
		}
		else
			cron->last_day = true;
		return true;
	}
	else if (!weekday && value >= 1 && value <= 31 && c == 'W')
	{
		(*s)++;
		cron->near_days |= UINT64CONST(1) << value;
		return true;
	}
	return false;
}

/* The bits of one field.  cron: days of it may be special. */
static uint64
parse_field(const char *expression, const char *field, int low, int high,
			const char *const *names, int n_names, int first_name, Cron *cron)
{
	const char *s = field;
	uint64 bits = 0;

	for (;;)
	{
		int from = low;
		int to = high;
		int every = 1;
		bool special = false;

		if (*s == '*')
			s++;
		else
		{
			from = to = parse_value(&s, names, n_names, first_name);
			if (cron != NULL && parse_special_day(cron, &s, from, names != NULL))
			{
				special = true;
				from = to = low;
			}
			else if (*s == '-')
			{
				s++;
				to = parse_value(&s, names, n_names, first_name);
				if (names == day_names && to == 0 && from > 0)
					to = 7; /* mon-sun, sat-sun: Sunday is the last day, too */
			}
			else if (*s == '/')
				to = high; /* 5/15 is 5-59/15 */
		}
		if (*s == '/' && !special)
		{
			s++;
			every = parse_value(&s, NULL, 0, 0);
		}
		if (from < low || to > high || from > to || every < 1 ||
			(*s != ',' && *s != '\0'))
			invalid_cron(expression, field);
		for (int v = from; v <= to && !special; v += every)
			bits |= UINT64CONST(1) << v;
		if (*s == '\0')
			return bits;
		s++;
	}
}

/* What follows @every: 10s, 1h30m, 2d; 0 if it is none. */
static int64
parse_every(const char *s)
{
	int64 seconds = 0;

	s += strspn(s, " \t");
	while (isdigit((unsigned char) *s))
	{
		static const char units[] = "smhd";
		static const int lengths[] = {1, SECS_PER_MINUTE, SECS_PER_HOUR,
									  SECS_PER_DAY};
		int64 n = 0;
		const char *unit;

		for (; isdigit((unsigned char) *s) && n <= MAX_EVERY; s++)
			n = n * 10 + (*s - '0');
		unit = *s == '\0' ? NULL : strchr(units, *s);
		if (unit == NULL)
			return 0;
		s++;
		seconds += n * lengths[unit - units];
		if (seconds > MAX_EVERY)
			return 0;
	}
	return s[strspn(s, " \t")] == '\0' ? seconds : 0;
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
	char *fields[7];
	char **field = fields;
	char *rest = NULL;
	int n = 0;

	memset(cron, 0, sizeof(Cron));
	if (strlen(expression) > MAX_EXPRESSION)
		ereport(ERROR, (errcode(ERRCODE_EQ_INVALID_CRON),
						errmsg("cron expression is too long"),
						errdetail("It has %zu bytes; at most %d are allowed.",
								  strlen(expression), MAX_EXPRESSION)));
	if (pg_strncasecmp(expression, "@every", 6) == 0)
	{
		cron->every = parse_every(expression + 6);
		if (cron->every < 1)
			ereport(
				ERROR,
				(errcode(ERRCODE_EQ_INVALID_CRON),
				 errmsg("invalid cron expression \"%s\"", expression),
				 errhint(
					 "@every takes 1 second to 366 days in d, h, m and s, such as \"@every 90s\" or \"@every 1h30m\".")));
		return;
	}
	copy = pstrdup(expression);
	for (int i = 0; i < lengthof(nicknames); i++)
	{
		if (pg_strcasecmp(expression, nicknames[i][0]) == 0)
			copy = pstrdup(nicknames[i][1]);
	}
	for (char *word = strtok_r(copy, " \t", &rest); word && n < 7;
		 word = strtok_r(NULL, " \t", &rest))
		fields[n++] = word;
	if (n != 5 && n != 6)
		ereport(ERROR, (errcode(ERRCODE_EQ_INVALID_CRON),
						errmsg("invalid cron expression \"%s\"", expression),
						errdetail("It must have five or six fields.")));

	cron->seconds = 1;
	if (n == 6)
		cron->seconds = parse_field(expression, *field++, 0, 59, NULL, 0, 0, NULL);
	cron->minutes = parse_field(expression, field[0], 0, 59, NULL, 0, 0, NULL);
	cron->hours = parse_field(expression, field[1], 0, 23, NULL, 0, 0, NULL);
	cron->days = parse_field(expression, field[2], 1, 31, NULL, 0, 0, cron);
	cron->months = parse_field(expression, field[3], 1, 12, month_names, 12, 1,
							   NULL);
	cron->weekdays = parse_field(expression, field[4], 0, 7, day_names, 7, 0, cron);
	if (cron->weekdays & (1 << 7))
		cron->weekdays |= 1;
	cron->any_day = field[2][0] == '*';
	cron->any_weekday = field[4][0] == '*';
	cron->any_minute = field[0][0] == '*';
	cron->any_hour = field[1][0] == '*';
}

static bool
has(uint64 bits, int value)
{
	return (bits >> value) & 1;
}

/* Is it the working day next to this day of its month? */
static bool
is_near_day(int julian, int day, int of_month, int last)
{
	int wanted = of_month;

	if (of_month > last)
		return false;
	switch (j2day(julian + of_month - day))
	{
		case 6: /* Saturday */
			wanted += of_month > 1 ? -1 : 2;
			break;
		case 0:
			wanted += of_month < last ? 1 : -2;
			break;
	}
	return wanted == day;
}

static bool
special_day_matches(const Cron *cron, int julian, int year, int month, int day)
{
	int last = date2j(month == 12 ? year + 1 : year, month == 12 ? 1 : month + 1,
					  1) -
			   date2j(year, month, 1);

	if (cron->last_day && day == last)
		return true;
	if (cron->last_working_day && is_near_day(julian, day, last, last))
		return true;
	for (int i = 1; cron->near_days != 0 && i <= 31; i++)
	{
		if (has(cron->near_days, i) && is_near_day(julian, day, i, last))
			return true;
	}
	return false;
}

static bool
special_weekday_matches(const Cron *cron, int julian, int month, int day)
{
	int weekday = j2day(julian);
	int next_month;
	int ignored;

	if (has(cron->nth_weekdays[(day + 6) / 7], weekday))
		return true;
	if (!has(cron->last_weekdays, weekday))
		return false;
	j2date(julian + 7, &ignored, &next_month, &ignored);
	return next_month != month;
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
	day_ok = has(cron->days, day) ||
			 special_day_matches(cron, julian, year, month, day);
	weekday_ok = has(cron->weekdays, j2day(julian)) ||
				 special_weekday_matches(cron, julian, month, day);
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
find_moments(Moments *moments, int julian, int hour, int minute, int second,
			 pg_tz *tz)
{
	pg_time_t local = ((pg_time_t) julian - UNIX_EPOCH_JDATE) * SECS_PER_DAY +
					  hour * SECS_PER_HOUR + minute * SECS_PER_MINUTE + second;
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
 * Is the whole of an hour or a minute (minute -1: the hour) not after "after"?  Only
 * where the clocks are not changed in it; else its times are looked at one by one.
 */
static bool
has_passed(int julian, int hour, int minute, TimestampTz after, pg_tz *tz)
{
	Moments from;
	Moments to;
	int length = minute < 0 ? SECS_PER_HOUR : SECS_PER_MINUTE;

	find_moments(&to, julian, hour, minute < 0 ? 59 : minute, 59, tz);
	if (to.first > after || to.doubled)
		return false;
	find_moments(&from, julian, hour, Max(minute, 0), 0, tz);
	return !from.doubled && to.first - from.first == (length - 1) * USECS_PER_SEC;
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
		if (!has(cron->hours, hour) || has_passed(julian, hour, -1, after, tz))
			continue;
		for (int minute = 0; minute < 60; minute++)
		{
			if (!has(cron->minutes, minute) ||
				has_passed(julian, hour, minute, after, tz))
				continue;
			for (int second = 0; second < 60; second++)
			{
				if (!has(cron->seconds, second))
					continue;
				find_moments(&moments, julian, hour, minute, second, tz);
				if (moments.first >= *best)
					return true;
				if (moments.first > after && !(moments.skipped && cron->any_hour))
					*best = moments.first;
				if (moments.doubled && (cron->any_hour || cron->any_minute) &&
					moments.second > after)
					*best = Min(*best, moments.second);
			}
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

	if (cron->every > 0)
	{
		int64 every = cron->every * USECS_PER_SEC;
		TimestampTz from = moment_of(0);
		int64 past = (after - from) % every;

		if (past < 0)
			past += every;
		*next = after - past + every;
		return IS_VALID_TIMESTAMP(*next);
	}
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

/* EQ031 if there is no such time zone. */
static pg_tz *
zone_of(text *name)
{
	char *zone = text_to_cstring(name);
	pg_tz *tz = pg_tzset(zone);

	if (tz == NULL || !pg_tz_acceptable(tz))
		ereport(ERROR, (errcode(ERRCODE_EQ_UNKNOWN_TIME_ZONE),
						errmsg("time zone \"%.*s\" does not exist",
							   pg_mbcliplen(zone, strlen(zone), 255), zone),
						errhint("See the view pg_timezone_names.")));
	return tz;
}

/*
 * The date in a zone.  AT TIME ZONE is not for this: it takes CET and its like for an
 * abbreviation, which has one offset all year, and cron_next for the zone of that name.
 */
Datum
eq_zone_day(PG_FUNCTION_ARGS)
{
	struct pg_tm tm;
	fsec_t fsec;
	int offset;

	if (TIMESTAMP_NOT_FINITE(PG_GETARG_TIMESTAMPTZ(0)) ||
		timestamp2tm(PG_GETARG_TIMESTAMPTZ(0), &offset, &tm, &fsec, NULL,
					 zone_of(PG_GETARG_TEXT_PP(1))) != 0)
		ereport(ERROR, (errcode(ERRCODE_DATETIME_VALUE_OUT_OF_RANGE),
						errmsg("timestamp out of range")));
	PG_RETURN_DATEADT(date2j(tm.tm_year, tm.tm_mon, tm.tm_mday) -
					  POSTGRES_EPOCH_JDATE);
}

/* When a date begins in a zone. */
Datum
eq_zone_day_begins(PG_FUNCTION_ARGS)
{
	DateADT day = PG_GETARG_DATEADT(0);
	struct pg_tm tm = {0};
	TimestampTz begins;
	int offset;

	j2date(day + POSTGRES_EPOCH_JDATE, &tm.tm_year, &tm.tm_mon, &tm.tm_mday);
	offset = DetermineTimeZoneOffset(&tm, zone_of(PG_GETARG_TEXT_PP(1)));
	if (DATE_NOT_FINITE(day) || tm2timestamp(&tm, 0, &offset, &begins) != 0)
		ereport(ERROR, (errcode(ERRCODE_DATETIME_VALUE_OUT_OF_RANGE),
						errmsg("timestamp out of range")));
	PG_RETURN_TIMESTAMPTZ(begins);
}

/*
 * A local time as a moment: one that the clocks leave out is the moment when they go
 * forward, of one that comes twice it is the second, as of AT TIME ZONE.  (That takes the
 * first kind for a later time, so that hours of work would overlap those that follow.)
 */
Datum
eq_local_moment(PG_FUNCTION_ARGS)
{
	struct pg_tm tm;
	fsec_t fsec;
	Moments moments;

	if (TIMESTAMP_NOT_FINITE(PG_GETARG_TIMESTAMP(0)) ||
		timestamp2tm(PG_GETARG_TIMESTAMP(0), NULL, &tm, &fsec, NULL, NULL) != 0)
		ereport(ERROR, (errcode(ERRCODE_DATETIME_VALUE_OUT_OF_RANGE),
						errmsg("timestamp out of range")));
	find_moments(&moments, date2j(tm.tm_year, tm.tm_mon, tm.tm_mday), tm.tm_hour,
				 tm.tm_min, tm.tm_sec, zone_of(PG_GETARG_TEXT_PP(1)));
	PG_RETURN_TIMESTAMPTZ(moments.doubled ? moments.second : moments.first);
}

Datum
eq_cron_next_sql(PG_FUNCTION_ARGS)
{
	char *expression = text_to_cstring(PG_GETARG_TEXT_PP(0));
	TimestampTz after = PG_GETARG_TIMESTAMPTZ(2);
	pg_tz *tz;
	Cron cron;
	TimestampTz next;

	parse_cron(expression, &cron);
	tz = zone_of(PG_GETARG_TEXT_PP(1));
	if (TIMESTAMP_NOT_FINITE(after) || !next_run(&cron, after, tz, &next))
		PG_RETURN_NULL();
	PG_RETURN_TIMESTAMPTZ(next);
}
