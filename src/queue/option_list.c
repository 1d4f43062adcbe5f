/*
 * option_list.c: the list of options of a job: name, type, limits and setter of each.
 *
 * A new option is a row in this list, a setter, and a member of EqNewJob; options.c reads
 * it from JSON for all callers.
 */
#include "postgres.h"

#include "fmgr.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"
#include "utils/timestamp.h"

#include "common/argument.h"
#include "common/interval.h"
#include "queue/option_list.h"
#include "tenant/tenant.h"

#define MAX_DELAY (INT64CONST(100) * 365 * USECS_PER_DAY)

/* Microseconds of a delay; EQ014 if it is negative or longer than 100 years. */
int64
eq_check_delay(const Interval *delay, const char *what)
{
	int64 us = eq_interval_us(delay);

	if (us < 0)
		ereport(ERROR, (errcode(ERRCODE_EQ_INVALID_DELAY),
						errmsg("%s must not be negative", what)));
	if (us > MAX_DELAY)
		ereport(ERROR, (errcode(ERRCODE_EQ_INVALID_DELAY),
						errmsg("%s must not be longer than 100 years", what)));
	return us;
}

int
eq_check_priority(int priority)
{
	if (priority < EQ_PRIORITY_FIRST || priority > EQ_PRIORITY_LAST)
		ereport(ERROR, (errcode(ERRCODE_EQ_INVALID_PRIORITY),
						errmsg("priority %d is out of range", priority),
						errhint("Priorities go from %d (first) to %d (last).",
								EQ_PRIORITY_FIRST, EQ_PRIORITY_LAST)));
	return priority;
}

const char *
eq_max_attempts_complaint(int max_attempts)
{
	return max_attempts < 1 || max_attempts > 1000
			   ? "max_attempts must be between 1 and 1000"
			   : NULL;
}

static char *
checked_name(const char *what, Datum value)
{
	char *name = DatumGetCString(value);

	eq_check_name(what, name, EQ_MAX_NAME);
	return name;
}

static void
set_queue(EqNewJob *job, Datum value)
{
	job->queue_name = DatumGetCString(value);
}

static void
set_name(EqNewJob *job, Datum value)
{
	job->name = checked_name("job name", value);
}

static void
set_payload(EqNewJob *job, Datum value)
{
	job->payload = DatumGetJsonbP(value);
	eq_check_payload("job payload", job->payload);
}

static void
set_tenant_id(EqNewJob *job, Datum value)
{
	job->tenant = DatumGetCString(value);
}

static void
set_children(EqNewJob *job, Datum value)
{
	job->children = (JsonbContainer *) DatumGetPointer(value);
}

static void
set_delay(EqNewJob *job, Datum value)
{
	job->given_delay = DatumGetIntervalP(value);
	job->delay = eq_check_delay(job->given_delay, "delay");
}

static void
set_calendar(EqNewJob *job, Datum value)
{
	job->calendar = checked_name("calendar name", value);
}

static void
set_run_at(EqNewJob *job, Datum value)
{
	job->run_at = DatumGetTimestampTz(value);
	if (TIMESTAMP_NOT_FINITE(job->run_at))
		ereport(ERROR, (errcode(ERRCODE_EQ_INVALID_DELAY),
						errmsg("run_at must be finite")));
}

static void
set_priority(EqNewJob *job, Datum value)
{
	job->priority = eq_check_priority(DatumGetInt32(value));
}

static void
set_unique_key(EqNewJob *job, Datum value)
{
	job->unique_key = checked_name("unique key", value);
}

static void
set_group_key(EqNewJob *job, Datum value)
{
	job->group_key = checked_name("group key", value);
}

static void
set_depends_on(EqNewJob *job, Datum value)
{
	job->depends_on = DatumGetArrayTypeP(value);
}

static void
set_max_attempts(EqNewJob *job, Datum value)
{
	const char *complaint = eq_max_attempts_complaint(DatumGetInt32(value));

	if (complaint)
		ereport(ERROR,
				(errcode(ERRCODE_EQ_INVALID_SETTING), errmsg("%s", complaint)));
	job->max_attempts = DatumGetInt32(value);
}

/* Sets it in a copy of the job's own: the struct that is there may be shared. */
static void
set_retry(EqNewJob *job, int column, Datum value)
{
	EqRetryOptions *own = palloc(sizeof(EqRetryOptions));

	if (job->retry)
		*own = *job->retry;
	else
		memset(own->nulls, true, sizeof(own->nulls));
	own->values[column - 1] = value;
	own->nulls[column - 1] = false;
	job->retry = own;
}

static void
set_backoff(EqNewJob *job, Datum value)
{
	set_retry(job, RETRY_BACKOFF, CStringGetTextDatum(DatumGetCString(value)));
}

static void
set_backoff_delay(EqNewJob *job, Datum value)
{
	set_retry(job, RETRY_DELAY, value);
}

static void
set_backoff_max(EqNewJob *job, Datum value)
{
	set_retry(job, RETRY_MAX, value);
}

static void
set_backoff_jitter(EqNewJob *job, Datum value)
{
	set_retry(job, RETRY_JITTER, value);
}

static void
set_backoff_intervals(EqNewJob *job, Datum value)
{
	set_retry(job, RETRY_INTERVALS, value);
}

static void
set_time_limit(EqNewJob *job, Datum value)
{
	job->time_limit = DatumGetIntervalP(value);
	if (eq_interval_us(job->time_limit) <= 0 ||
		eq_interval_us(job->time_limit) > 7 * USECS_PER_DAY)
		ereport(ERROR, (errcode(ERRCODE_EQ_INVALID_SETTING),
						errmsg("time_limit must be positive and at most 7 days")));
}

static void
set_unique_mode(EqNewJob *job, Datum value)
{
	static const char *const modes[] = {[EQ_UNIQUE_REJECT] = "reject",
										[EQ_UNIQUE_REPLACE] = "replace",
										[EQ_UNIQUE_DEBOUNCE] = "debounce",
										[EQ_UNIQUE_THROTTLE] = "throttle"};
	int i = 0;

	while (i < lengthof(modes) && strcmp(DatumGetCString(value), modes[i]) != 0)
		i++;
	if (i == lengthof(modes))
		ereport(
			ERROR,
			(errcode(ERRCODE_EQ_INVALID_ARGUMENT),
			 errmsg("unique_mode must be reject, replace, debounce or throttle")));
	job->unique_mode = i;
}

static void
set_unique_until(EqNewJob *job, Datum value)
{
	job->unique_until_claim = strcmp(DatumGetCString(value), "claimed") == 0;
	if (!job->unique_until_claim && strcmp(DatumGetCString(value), "finished") != 0)
		ereport(ERROR, (errcode(ERRCODE_EQ_INVALID_ARGUMENT),
						errmsg("unique_until must be finished or claimed")));
}

static void
set_unique_window(EqNewJob *job, Datum value)
{
	job->unique_window = eq_check_delay(DatumGetIntervalP(value), "unique_window");
}

static void
set_metadata(EqNewJob *job, Datum value)
{
	job->metadata = DatumGetJsonbP(value);
}

const EqOption eq_job_options[] = {
	[EQ_OPTION_QUEUE] = {"queue", OPTION_TEXT, set_queue},
	[EQ_OPTION_NAME] = {"name", OPTION_TEXT, set_name},
	[EQ_OPTION_PAYLOAD] = {"payload", OPTION_JSON, set_payload},
	[EQ_OPTION_TENANT_ID] = {"tenant_id", OPTION_TEXT, set_tenant_id},
	[EQ_OPTION_CHILDREN] = {"children", OPTION_LIST, set_children},
	[EQ_OPTION_DELAY] = {"delay", OPTION_INTERVAL, set_delay, true},
	[EQ_OPTION_RUN_AT] = {"run_at", OPTION_TIME, set_run_at, true},
	[EQ_OPTION_PRIORITY] = {"priority", OPTION_INTEGER, set_priority, true},
	[EQ_OPTION_UNIQUE_KEY] = {"unique_key", OPTION_TEXT, set_unique_key, true},
	[EQ_OPTION_GROUP_KEY] = {"group_key", OPTION_TEXT, set_group_key, true},
	[EQ_OPTION_DEPENDS_ON] = {"depends_on", OPTION_JOB_IDS, set_depends_on},
	[EQ_OPTION_MAX_ATTEMPTS] = {"max_attempts", OPTION_INTEGER, set_max_attempts},
	[EQ_OPTION_BACKOFF] = {"backoff", OPTION_TEXT, set_backoff},
	[EQ_OPTION_BACKOFF_DELAY] = {"backoff_delay", OPTION_INTERVAL,
								 set_backoff_delay},
	[EQ_OPTION_BACKOFF_MAX] = {"backoff_max", OPTION_INTERVAL, set_backoff_max},
	[EQ_OPTION_BACKOFF_JITTER] = {"backoff_jitter", OPTION_NUMBER,
								  set_backoff_jitter},
	[EQ_OPTION_BACKOFF_INTERVALS] = {"backoff_intervals", OPTION_INTERVALS,
									 set_backoff_intervals},
	[EQ_OPTION_TIME_LIMIT] = {"time_limit", OPTION_INTERVAL, set_time_limit},
	[EQ_OPTION_UNIQUE_MODE] = {"unique_mode", OPTION_TEXT, set_unique_mode},
	[EQ_OPTION_UNIQUE_UNTIL] = {"unique_until", OPTION_TEXT, set_unique_until},
	[EQ_OPTION_UNIQUE_WINDOW] = {"unique_window", OPTION_INTERVAL,
								 set_unique_window},
	[EQ_OPTION_METADATA] = {"metadata", OPTION_OBJECT, set_metadata},
	[EQ_OPTION_KEEP_COMPLETED] = {"keep_completed", OPTION_INTERVAL,
								  eq_set_keep_completed},
	[EQ_OPTION_KEEP_COMPLETED_COUNT] = {"keep_completed_count", OPTION_INTEGER,
										eq_set_keep_completed_count},
	[EQ_OPTION_KEEP_FAILED] = {"keep_failed", OPTION_INTERVAL, eq_set_keep_failed},
	[EQ_OPTION_KEEP_FAILED_COUNT] = {"keep_failed_count", OPTION_INTEGER,
									 eq_set_keep_failed_count},
	[EQ_OPTION_CALENDAR] = {"calendar", OPTION_TEXT, set_calendar}};

StaticAssertDecl(lengthof(eq_job_options) == EQ_N_OPTIONS, "an option is missing");

/* The value is of the option's type (see OptionType); EQ009 if it is set already. */
void
eq_set_job_option(EqNewJob *job, EqJobOption option, Datum value)
{
	if (eq_is_given(job, option))
		ereport(ERROR, (errcode(ERRCODE_EQ_INVALID_ARGUMENT),
						errmsg("%s is given twice", eq_job_options[option].name),
						errdetail("It is an argument and an option.")));
	eq_job_options[option].set(job, value);
	job->given |= EQ_OPTION_BIT(option);
}
