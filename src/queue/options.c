/*
 * options.c: the options of a job: one table, one parser, and one place for each limit.
 *
 * enqueue, enqueue_many, enqueue_flow, create_rule and create_schedule read their options
 * here, so that a new option is a row in this table, a setter, and a member of EqNewJob.
 * The caller of a reader says which options are allowed (EQ_IN_OPTIONS and so on); others
 * are refused with the list of valid ones.  eq_check_job_options checks what depends on
 * several options, or on the queue, when all are set.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "fmgr.h"
#include "lib/stringinfo.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"
#include "utils/numeric.h"
#include "utils/timestamp.h"

#include "common/argument.h"
#include "common/interval.h"
#include "common/json.h"
#include "queue/queue.h"
#include "table/table.h"
#include "tenant/tenant.h"

PG_FUNCTION_INFO_V1(eq_check_job_options_sql);
PG_FUNCTION_INFO_V1(eq_job_settings_complaint);

#define MAX_DELAY (INT64CONST(100) * 365 * USECS_PER_DAY)

/* What JSON an option takes, and what its setter is given. */
typedef enum OptionType
{
	OPTION_TEXT,	 /* a string or a number; char * */
	OPTION_JSON,	 /* anything; Jsonb * */
	OPTION_OBJECT,	 /* Jsonb * */
	OPTION_LIST,	 /* JsonbContainer * */
	OPTION_INTEGER,	 /* int32 */
	OPTION_NUMBER,	 /* float8 */
	OPTION_INTERVAL, /* Interval * */
	OPTION_TIME,	 /* TimestampTz */
	OPTION_INTERVALS,
	OPTION_JOB_IDS
} OptionType;

static const char *const type_names[] = {
	[OPTION_TEXT] = "a string",
	[OPTION_JSON] = "JSON",
	[OPTION_OBJECT] = "a JSON object",
	[OPTION_LIST] = "an array of JSON objects",
	[OPTION_INTEGER] = "an integer",
	[OPTION_NUMBER] = "a number",
	[OPTION_INTERVAL] = "an interval such as \"30 seconds\"",
	[OPTION_TIME] = "a time such as \"2026-01-31 12:00+00\"",
	[OPTION_INTERVALS] = "an array of intervals such as \"30 seconds\"",
	[OPTION_JOB_IDS] = "an array of job ids"};

typedef struct Option
{
	const char *name;
	OptionType type;
	void (*set)(EqNewJob *job, Datum value);
	bool template; /* a rule may take it from the event, by a JSON path */
} Option;

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

/* Of a struct of the job's own: what was there may be other jobs', too. */
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

static const Option job_options[] = {
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

StaticAssertDecl(lengthof(job_options) == EQ_N_OPTIONS, "an option is missing");

/* The value is of the option's type (see OptionType); EQ009 if it is set already. */
void
eq_set_job_option(EqNewJob *job, EqJobOption option, Datum value)
{
	if (eq_is_given(job, option))
		ereport(ERROR, (errcode(ERRCODE_EQ_INVALID_ARGUMENT),
						errmsg("%s is given twice", job_options[option].name),
						errdetail("It is an argument and an option.")));
	job_options[option].set(job, value);
	job->given |= EQ_OPTION_BIT(option);
}

static void
pg_attribute_noreturn() refuse_value(const Option *option, const char *detail)
{
	ereport(
		ERROR,
		(errcode(ERRCODE_EQ_INVALID_ARGUMENT),
		 errmsg("job option \"%s\" must be %s", option->name,
				type_names[option->type]),
		 detail ? errdetail("%s.", detail) : 0,
		 strcmp(option->name, "backoff") == 0
			 ? errhint(
				   "For example: {\"backoff\": \"exponential\", \"backoff_delay\": \"1 second\"}.")
			 : 0));
}

/* Calls a type's input function; EQ009 where that has a data exception. */
static Datum
input_value(const Option *option, PGFunction input, const char *string)
{
	MemoryContext context = CurrentMemoryContext;
	volatile Datum value = 0;

	PG_TRY();
	{
		value = DirectFunctionCall3(input, CStringGetDatum(string),
									ObjectIdGetDatum(InvalidOid), Int32GetDatum(-1));
	}
	PG_CATCH();
	{
		ErrorData *error;

		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		if (ERRCODE_TO_CATEGORY(error->sqlerrcode) != ERRCODE_DATA_EXCEPTION)
			PG_RE_THROW();
		FlushErrorState();
		refuse_value(option, error->message);
	}
	PG_END_TRY();
	return value;
}

/* A string or a number as a C string; NULL if it is neither. */
static char *
scalar_text(const JsonbValue *value)
{
	if (value->type == jbvString)
		return pnstrdup(value->val.string.val, value->val.string.len);
	if (value->type == jbvNumeric)
		return DatumGetCString(
			DirectFunctionCall1(numeric_out, NumericGetDatum(value->val.numeric)));
	return NULL;
}

/* The array of an option, with elements of a type by its input function. */
static Datum
array_value(const Option *option, const JsonbValue *value, Oid type,
			PGFunction input)
{
	JsonbIterator *it;
	JsonbIteratorToken token;
	JsonbValue element;
	Datum *elements;
	int n = 0;

	if (value->type != jbvBinary || !JsonContainerIsArray(value->val.binary.data))
		refuse_value(option, NULL);
	elements = palloc(Max(JsonContainerSize(value->val.binary.data), 1) *
					  sizeof(Datum));
	it = JsonbIteratorInit(value->val.binary.data);
	while ((token = JsonbIteratorNext(&it, &element, true)) != WJB_DONE)
	{
		char *string;

		if (token != WJB_ELEM)
			continue;
		string = type == INTERVALOID && element.type != jbvString
					 ? NULL
					 : scalar_text(&element);
		if (string == NULL)
			refuse_value(option, NULL);
		elements[n++] = input_value(option, input, string);
	}
	if (type == INT8OID)
		return PointerGetDatum(construct_array(elements, n, type, sizeof(int64),
											   FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));
	return PointerGetDatum(construct_array(elements, n, type, sizeof(Interval),
										   false, TYPALIGN_DOUBLE));
}

/* As the option's setter wants it; EQ009 if it is of another type. */
static Datum
option_value(const Option *option, JsonbValue *value)
{
	char *string;

	switch (option->type)
	{
		case OPTION_TEXT:
			string = scalar_text(value);
			if (string == NULL)
				refuse_value(option, NULL);
			return CStringGetDatum(string);
		case OPTION_JSON:
			return JsonbPGetDatum(JsonbValueToJsonb(value));
		case OPTION_OBJECT:
			if (value->type != jbvBinary ||
				!JsonContainerIsObject(value->val.binary.data))
				refuse_value(option, NULL);
			return JsonbPGetDatum(JsonbValueToJsonb(value));
		case OPTION_LIST:
			if (value->type != jbvBinary ||
				!JsonContainerIsArray(value->val.binary.data))
				refuse_value(option, NULL);
			return PointerGetDatum(value->val.binary.data);
		case OPTION_INTEGER:
			if (value->type != jbvNumeric)
				refuse_value(option, NULL);
			return input_value(option, int4in, scalar_text(value));
		case OPTION_NUMBER:
			if (value->type != jbvNumeric)
				refuse_value(option, NULL);
			return input_value(option, float8in, scalar_text(value));
		case OPTION_INTERVAL:
		case OPTION_TIME:
			if (value->type != jbvString)
				refuse_value(option, NULL);
			return input_value(
				option, option->type == OPTION_TIME ? timestamptz_in : interval_in,
				scalar_text(value));
		case OPTION_INTERVALS:
			return array_value(option, value, INTERVALOID, interval_in);
		case OPTION_JOB_IDS:
			return array_value(option, value, INT8OID, int8in);
	}
	pg_unreachable();
}

/* Hints at the options that there are, and at that which is meant by a name of Bull's. */
static int
hint_options(const JsonbValue *name, const char *known)
{
	static const struct
	{
		const char *bull;
		const char *here;
	} names[] = {
		{"attempts", "the option max_attempts"},
		{"jobId", "the option unique_key"},
		{"timeout", "the option time_limit"},
		{"lifo", "the option priority"},
		{"repeat", "a schedule (create_schedule)"},
		{"removeOnComplete", "the option keep_completed or keep_completed_count"},
		{"removeOnFail", "the option keep_failed or keep_failed_count"},
	};

	for (int i = 0; i < lengthof(names); i++)
	{
		if (strlen(names[i].bull) == name->val.string.len &&
			strncmp(names[i].bull, name->val.string.val, name->val.string.len) == 0)
			return errhint("\"%s\" of Bull is %s here.", names[i].bull,
						   names[i].here);
	}
	return errhint("Valid options are %s.", known);
}

/* The option of this name; EQ009 if there is none that is allowed. */
static EqJobOption
find_option(const JsonbValue *name, uint32 allowed)
{
	StringInfoData known;

	for (int i = 0; i < EQ_N_OPTIONS; i++)
	{
		if ((allowed & EQ_OPTION_BIT(i)) != 0 &&
			strncmp(job_options[i].name, name->val.string.val,
					name->val.string.len) == 0 &&
			job_options[i].name[name->val.string.len] == '\0')
			return i;
	}
	initStringInfo(&known);
	for (int i = 0; i < EQ_N_OPTIONS; i++)
	{
		if ((allowed & EQ_OPTION_BIT(i)) != 0)
			appendStringInfo(&known, "%s%s", known.len > 0 ? ", " : "",
							 job_options[i].name);
	}
	ereport(ERROR, (errcode(ERRCODE_EQ_INVALID_ARGUMENT),
					errmsg("unknown job option \"%.*s\"", name->val.string.len,
						   name->val.string.val),
					hint_options(name, known.data)));
}

/*
 * Sets what a JSON object says; members that are null say nothing.  What was set
 * before is a default.  template: JSON paths, whose values are not known yet, are
 * taken for good ones.
 */
void
eq_read_job_options(EqNewJob *job, JsonbContainer *options, uint32 allowed,
					bool template)
{
	const uint32 times = EQ_OPTION_BIT(EQ_OPTION_DELAY) |
						 EQ_OPTION_BIT(EQ_OPTION_RUN_AT);
	JsonbIterator *it;
	JsonbIteratorToken token;
	JsonbValue value;
	EqJobOption option = EQ_OPTION_QUEUE;
	uint32 read = 0;

	if (!JsonContainerIsObject(options))
		ereport(ERROR, (errcode(ERRCODE_EQ_INVALID_ARGUMENT),
						errmsg("job options must be a JSON object")));
	it = JsonbIteratorInit(options);
	while ((token = JsonbIteratorNext(&it, &value, true)) != WJB_DONE)
	{
		if (token == WJB_KEY)
			option = find_option(&value, allowed);
		if (token != WJB_VALUE ||
			(value.type == jbvNull && job_options[option].type != OPTION_JSON))
			continue;
		if (template && job_options[option].template &&
			(eq_json_is_path(&value) || eq_json_has_reference(&value)))
		{
			if (option == EQ_OPTION_DELAY)
				job->given_delay = NULL;
			if (job_options[option].type == OPTION_TEXT)
				job_options[option].set(job,
										option_value(&job_options[option], &value));
		}
		else
			job_options[option].set(job, option_value(&job_options[option], &value));
		read |= EQ_OPTION_BIT(option);
	}
	if ((read & times) != 0)
		job->given &= ~times;
	/* A time in the place of a default that is a delay. */
	if ((read & EQ_OPTION_BIT(EQ_OPTION_RUN_AT)) != 0)
		job->given &= ~EQ_OPTION_BIT(EQ_OPTION_CALENDAR);
	job->given |= read;
}

/* unique_mode and its companions fit together. */
static void
check_unique(EqNewJob *job)
{
	if ((job->unique_mode == EQ_UNIQUE_THROTTLE) != (job->unique_window > 0))
		ereport(ERROR,
				(errcode(ERRCODE_EQ_INVALID_ARGUMENT),
				 errmsg("unique_mode throttle, and no other, needs a positive "
						"unique_window")));
	if (job->unique_key == NULL &&
		(job->unique_mode != EQ_UNIQUE_REJECT || job->unique_until_claim))
		ereport(ERROR, (errcode(ERRCODE_EQ_INVALID_ARGUMENT),
						errmsg("unique_mode and unique_until need a unique_key")));
	if (job->unique_mode == EQ_UNIQUE_THROTTLE)
		job->unique_until_claim = false;
}

/* Checks the options together, when all are set, and fills in defaults. */
void
eq_check_job_options(EqNewJob *job, const EqQueue *queue, TimestampTz now)
{
	bool has_delay = eq_is_given(job, EQ_OPTION_DELAY);
	bool has_run_at = eq_is_given(job, EQ_OPTION_RUN_AT);

	if (has_delay && has_run_at)
		ereport(ERROR, (errcode(ERRCODE_EQ_INVALID_DELAY),
						errmsg("delay and run_at exclude each other")));
	job->has_time = has_delay || has_run_at;
	if (eq_is_given(job, EQ_OPTION_CALENDAR))
	{
		if (!has_delay)
			ereport(
				ERROR,
				(errcode(ERRCODE_EQ_INVALID_DELAY), errmsg("calendar needs a delay"),
				 errhint(
					 "For example: {\"delay\": \"48 hours\", \"calendar\": \"br\"}: "
					 "working hours of that calendar.")));
		job->run_at = eq_business_time(job->calendar, now, job->given_delay);
	}
	else if (!has_run_at)
		job->run_at = now + (has_delay ? job->delay : 0);
	if (!eq_is_given(job, EQ_OPTION_PRIORITY))
		job->priority = EQ_PRIORITY_DEFAULT;
	check_unique(job);
	if (job->retry)
	{
		const char *complaint = eq_retry_complaint(job->retry,
												   queue->retry.n_intervals);

		if (complaint)
			ereport(ERROR,
					(errcode(ERRCODE_EQ_INVALID_SETTING), errmsg("%s", complaint)));
	}
}

/* The same, and EQ006 if the job has no name. */
void
eq_check_new_job(EqNewJob *job, const EqQueue *queue, TimestampTz now)
{
	if (job->name == NULL)
		eq_check_name("job name", NULL, EQ_MAX_NAME);
	eq_check_job_options(job, queue, now);
}

/*
 * check_job_options(queue text, options jsonb, priority int): for create_schedule;
 * the priority to be stored beside the options, NULL if they have one.
 */
Datum
eq_check_job_options_sql(PG_FUNCTION_ARGS)
{
	EqNewJob job = {0};

	if (!PG_ARGISNULL(1))
		eq_read_job_options(&job, &PG_GETARG_JSONB_P(1)->root,
							EQ_IN_OPTIONS & ~EQ_OPTION_BIT(EQ_OPTION_RUN_AT), false);
	if (eq_is_given(&job, EQ_OPTION_PRIORITY) && PG_ARGISNULL(2))
		fcinfo->isnull = true;
	if (!PG_ARGISNULL(2))
		eq_set_job_option(&job, EQ_OPTION_PRIORITY, PG_GETARG_DATUM(2));
	eq_check_job_options(
		&job,
		eq_get_queue(PG_ARGISNULL(0) ? NULL : text_to_cstring(PG_GETARG_TEXT_PP(0))),
		0);
	return Int32GetDatum(job.priority);
}

/*
 * What is wrong with a queue's settings that a job may override; NULL: nothing.
 * They are max_attempts and the columns of retry_options.
 */
Datum
eq_job_settings_complaint(PG_FUNCTION_ARGS)
{
	EqRetryOptions retry;
	const char *complaint = eq_max_attempts_complaint(
		PG_ARGISNULL(0) ? 0 : PG_GETARG_INT32(0));

	for (int i = 0; i < RETRY_COLUMNS; i++)
	{
		retry.values[i] = PG_GETARG_DATUM(i + 1);
		retry.nulls[i] = PG_ARGISNULL(i + 1);
	}
	if (complaint == NULL)
		complaint = eq_retry_complaint(&retry, -1);
	if (complaint == NULL)
		PG_RETURN_NULL();
	PG_RETURN_TEXT_P(cstring_to_text(complaint));
}
