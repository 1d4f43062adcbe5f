/*
 * options.c: reads the options of a job, for all callers, and checks them together.
 *
 * enqueue, enqueue_many, enqueue_flow, create_rule and create_schedule read their
 * options here, by the list in option_list.c.  The caller of a reader says which options
 * are allowed (EQ_IN_OPTIONS and so on); others are refused with the list of valid ones.
 * eq_check_job_options checks what depends on several options, or on the queue, when all
 * are set.
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

#include "common/json.h"
#include "queue/option_list.h"
#include "tenant/tenant.h"

PG_FUNCTION_INFO_V1(eq_check_job_options_sql);
PG_FUNCTION_INFO_V1(eq_job_settings_complaint);

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

static void
pg_attribute_noreturn() refuse_value(const EqOption *option, const char *detail)
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
input_value(const EqOption *option, PGFunction input, const char *string)
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
array_value(const EqOption *option, const JsonbValue *value, Oid type,
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

/* Converts a value to what the option's setter takes; EQ009 if it is of another type. */
static Datum
option_value(const EqOption *option, JsonbValue *value)
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

/* Hints at the valid options, or at the one that an option name of Bull's means. */
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
			strncmp(eq_job_options[i].name, name->val.string.val,
					name->val.string.len) == 0 &&
			eq_job_options[i].name[name->val.string.len] == '\0')
			return i;
	}
	initStringInfo(&known);
	for (int i = 0; i < EQ_N_OPTIONS; i++)
	{
		if ((allowed & EQ_OPTION_BIT(i)) != 0)
			appendStringInfo(&known, "%s%s", known.len > 0 ? ", " : "",
							 eq_job_options[i].name);
	}
	ereport(ERROR, (errcode(ERRCODE_EQ_INVALID_ARGUMENT),
					errmsg("unknown job option \"%.*s\"", name->val.string.len,
						   name->val.string.val),
					hint_options(name, known.data)));
}

/*
 * Sets the options that are members of a JSON object and not null; others keep what was set
 * before.  template: accepts JSON paths, whose values are not known yet.
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
			(value.type == jbvNull && eq_job_options[option].type != OPTION_JSON))
			continue;
		if (template && eq_job_options[option].template &&
			(eq_json_is_path(&value) || eq_json_has_reference(&value)))
		{
			if (option == EQ_OPTION_DELAY)
				job->given_delay = NULL;
			if (eq_job_options[option].type == OPTION_TEXT)
				eq_job_options[option].set(
					job, option_value(&eq_job_options[option], &value));
		}
		else
			eq_job_options[option].set(
				job, option_value(&eq_job_options[option], &value));
		read |= EQ_OPTION_BIT(option);
	}
	if ((read & times) != 0)
		job->given &= ~times;
	/* A time in the place of a default that is a delay. */
	if ((read & EQ_OPTION_BIT(EQ_OPTION_RUN_AT)) != 0)
		job->given &= ~EQ_OPTION_BIT(EQ_OPTION_CALENDAR);
	job->given |= read;
}

/* Checks that the options of unique keys fit together. */
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

/* As eq_check_job_options, and EQ006 if the job has no name. */
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
