/*
 * backoff.c: how long a failed job waits.
 *
 * After the n-th failure, of a base d: exponential (BullMQ's) d x 2^(n-1): 2 s,
 * 4 s, 8 s; bull (Bull's own) d x (2^n - 1): 2 s, 6 s, 14 s; linear d x n; fixed
 * d; list: the n-th of backoff_intervals, or its last.  Jitter j draws the wait
 * between (1 - j) and 1 of that.  Never longer than backoff_max.
 *
 * Each of these is a setting of the queue, and a job may override each of them:
 * its column retry, a composite retry_options, is NULL unless it does.
 */
#include "postgres.h"

#include <math.h>

#include "access/htup_details.h"
#include "catalog/pg_type.h"
#include "common/pg_prng.h"
#include "funcapi.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/typcache.h"

#include "common/interval.h"
#include "queue/queue.h"
#include "table/table.h"

StaticAssertDecl(lengthof(((EqRetryOptions *) 0)->values) == RETRY_COLUMNS,
				 "retry_options has other columns");

#define MAX_WAIT (INT64CONST(365) * USECS_PER_DAY)

static const char *const backoff_names[] = {[EQ_BACKOFF_EXPONENTIAL] = "exponential",
											[EQ_BACKOFF_BULL] = "bull",
											[EQ_BACKOFF_LINEAR] = "linear",
											[EQ_BACKOFF_FIXED] = "fixed",
											[EQ_BACKOFF_LIST] = "list"};

#define BACKOFF_COMPLAINT "backoff must be exponential, bull, linear, fixed or list"

/* lengthof(backoff_names) if there is none of this name. */
static int
find_backoff(const char *name)
{
	int i = 0;

	while (i < lengthof(backoff_names) && strcmp(name, backoff_names[i]) != 0)
		i++;
	return i;
}

/* EQ012 if there is none of this name. */
EqBackoff
eq_parse_backoff(const char *name)
{
	int found = find_backoff(name);

	if (found == lengthof(backoff_names))
		ereport(ERROR,
				(errcode(ERRCODE_EQ_INVALID_SETTING), errmsg(BACKOFF_COMPLAINT)));
	return found;
}

/* The elements of an array of intervals; *nulls as deconstruct_array. */
static int
intervals_of(Datum array, Datum **values, bool **nulls)
{
	int n;

	deconstruct_array(DatumGetArrayTypeP(array), INTERVALOID, sizeof(Interval),
					  false, TYPALIGN_DOUBLE, values, nulls, &n);
	return n;
}

/* Reads the intervals of a queue or job, which were checked when they were set. */
void
eq_read_intervals(EqRetry *retry, Datum array)
{
	Datum *values;
	bool *nulls;
	int n = intervals_of(array, &values, &nulls);

	retry->n_intervals = 0;
	for (int i = 0; i < n && i < EQ_MAX_INTERVALS; i++)
	{
		if (!nulls[i])
			retry->intervals[retry->n_intervals++] = eq_interval_us(
				DatumGetIntervalP(values[i]));
	}
}

static bool
is_wait(Datum interval, bool isnull)
{
	int64 us = isnull ? -1 : eq_interval_us(DatumGetIntervalP(interval));

	return us >= 0 && us <= MAX_WAIT;
}

static const char *
intervals_complaint(Datum array, int *n)
{
	Datum *intervals;
	bool *nulls;

	*n = intervals_of(array, &intervals, &nulls);
	if (*n < 1 || *n > EQ_MAX_INTERVALS)
		return psprintf("backoff_intervals must be 1 to %d", EQ_MAX_INTERVALS);
	for (int i = 0; i < *n; i++)
	{
		if (!is_wait(intervals[i], nulls[i]))
			return "backoff_intervals must be between 0 and 365 days";
	}
	return NULL;
}

/*
 * Checks backoff settings: returns what is wrong with them, or NULL.  n_intervals is -1
 * for a queue's own settings, of which only intervals may be NULL.  For a job's it is
 * the number of intervals of its queue: settings that are NULL are then the queue's
 * (intervals without a kind mean the list).
 */
const char *
eq_retry_complaint(EqRetryOptions *own, int n_intervals)
{
	Datum *values = own->values;
	bool *nulls = own->nulls;
	bool of_job = n_intervals >= 0;
	const char *complaint;

	if (!nulls[RETRY_INTERVALS - 1])
	{
		complaint = intervals_complaint(values[RETRY_INTERVALS - 1], &n_intervals);
		if (complaint)
			return complaint;
		if (of_job && nulls[RETRY_BACKOFF - 1])
		{
			values[RETRY_BACKOFF - 1] = CStringGetTextDatum("list");
			nulls[RETRY_BACKOFF - 1] = false;
		}
	}
	if (!nulls[RETRY_BACKOFF - 1])
	{
		int backoff = find_backoff(TextDatumGetCString(values[RETRY_BACKOFF - 1]));

		if (backoff == lengthof(backoff_names))
			return BACKOFF_COMPLAINT;
		if (backoff == EQ_BACKOFF_LIST && n_intervals <= 0)
			return "backoff list needs backoff_intervals";
	}
	else if (!of_job)
		return BACKOFF_COMPLAINT;
	if (!(of_job && nulls[RETRY_DELAY - 1]) &&
		!is_wait(values[RETRY_DELAY - 1], nulls[RETRY_DELAY - 1]))
		return "backoff_delay must be between 0 and 365 days";
	if (!(of_job && nulls[RETRY_MAX - 1]) &&
		!is_wait(values[RETRY_MAX - 1], nulls[RETRY_MAX - 1]))
		return "backoff_max must be between 0 and 365 days";
	if (!(of_job && nulls[RETRY_JITTER - 1]))
	{
		double jitter = nulls[RETRY_JITTER - 1]
							? -1
							: DatumGetFloat8(values[RETRY_JITTER - 1]);

		if (!(jitter >= 0 && jitter <= 1))
			return "backoff_jitter must be between 0 and 1";
	}
	return NULL;
}

/* Options of a job as the value of a column of this composite type. */
Datum
eq_row_datum(Oid type, const Datum *values, const bool *nulls)
{
	TupleDesc desc = lookup_rowtype_tupdesc(type, -1);
	HeapTuple row = heap_form_tuple(desc, (Datum *) values, (bool *) nulls);

	ReleaseTupleDesc(desc);
	return HeapTupleGetDatum(row);
}

/* Puts what a job overrides in the place of the queue's settings. */
static void
override(EqRetry *retry, Datum own)
{
	HeapTupleHeader header = DatumGetHeapTupleHeader(own);
	TupleDesc desc = lookup_rowtype_tupdesc(HeapTupleHeaderGetTypeId(header), -1);
	HeapTupleData row = {.t_len = HeapTupleHeaderGetDatumLength(header),
						 .t_data = header};
	Datum values[RETRY_COLUMNS];
	bool nulls[RETRY_COLUMNS];

	ItemPointerSetInvalid(&row.t_self);
	if (desc->natts != RETRY_COLUMNS)
		elog(ERROR, "type retry_options has %d columns", desc->natts);
	heap_deform_tuple(&row, desc, values, nulls);
	if (!nulls[RETRY_BACKOFF - 1])
		retry->backoff = eq_parse_backoff(
			TextDatumGetCString(values[RETRY_BACKOFF - 1]));
	if (!nulls[RETRY_DELAY - 1])
		retry->delay = eq_interval_us(DatumGetIntervalP(values[RETRY_DELAY - 1]));
	if (!nulls[RETRY_MAX - 1])
		retry->max = eq_interval_us(DatumGetIntervalP(values[RETRY_MAX - 1]));
	if (!nulls[RETRY_JITTER - 1])
		retry->jitter = DatumGetFloat8(values[RETRY_JITTER - 1]);
	if (!nulls[RETRY_INTERVALS - 1])
		eq_read_intervals(retry, values[RETRY_INTERVALS - 1]);
	ReleaseTupleDesc(desc);
}

/* own: the job's column retry, or NULL. */
int64
eq_backoff(const EqQueue *queue, const Datum *own, int failures)
{
	EqRetry retry = queue->retry;
	int n = Min(failures, 62);
	double wait;

	if (own)
		override(&retry, *own);
	wait = retry.delay;
	switch (retry.backoff)
	{
		case EQ_BACKOFF_EXPONENTIAL:
			wait *= pow(2, n - 1);
			break;
		case EQ_BACKOFF_BULL:
			wait *= pow(2, n) - 1;
			break;
		case EQ_BACKOFF_LINEAR:
			wait *= failures;
			break;
		case EQ_BACKOFF_FIXED:
			break;
		case EQ_BACKOFF_LIST:
			if (retry.n_intervals > 0)
				wait = retry.intervals[Min(failures, retry.n_intervals) - 1];
			break;
	}
	wait = Min(wait, (double) retry.max);
	if (retry.jitter > 0)
		wait *= 1 - retry.jitter * pg_prng_double(&pg_global_prng_state);
	return (int64) wait;
}
