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

/* EQ012 if there is none of this name. */
EqBackoff
eq_parse_backoff(const char *name)
{
	static const char *const names[] = {[EQ_BACKOFF_EXPONENTIAL] = "exponential",
										[EQ_BACKOFF_BULL] = "bull",
										[EQ_BACKOFF_LINEAR] = "linear",
										[EQ_BACKOFF_FIXED] = "fixed",
										[EQ_BACKOFF_LIST] = "list"};

	for (int i = 0; i < lengthof(names); i++)
	{
		if (strcmp(name, names[i]) == 0)
			return i;
	}
	ereport(ERROR,
			(errcode(ERRCODE_EQ_INVALID_SETTING),
			 errmsg("backoff must be exponential, bull, linear, fixed or list")));
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

/* Of a queue or job; they were checked when they were set. */
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

static void
check_wait(Datum interval, bool isnull, const char *what)
{
	int64 us = isnull ? -1 : eq_interval_us(DatumGetIntervalP(interval));

	if (us < 0 || us > MAX_WAIT)
		ereport(ERROR, (errcode(ERRCODE_EQ_INVALID_SETTING),
						errmsg("%s must be between 0 and 365 days", what)));
}

/*
 * What a job overrides of its queue's settings: the rules of check_queue_settings.
 * backoff_intervals alone mean the list.
 */
void
eq_check_retry(const EqQueue *queue, EqRetryOptions *own)
{
	Datum *values = own->values;
	bool *nulls = own->nulls;
	int n_intervals = queue->retry.n_intervals;

	if (!nulls[RETRY_INTERVALS - 1])
	{
		Datum *intervals;
		bool *interval_nulls;

		n_intervals = intervals_of(values[RETRY_INTERVALS - 1], &intervals,
								   &interval_nulls);
		if (n_intervals < 1 || n_intervals > EQ_MAX_INTERVALS)
			ereport(ERROR,
					(errcode(ERRCODE_EQ_INVALID_SETTING),
					 errmsg("backoff_intervals must be 1 to %d", EQ_MAX_INTERVALS)));
		for (int i = 0; i < n_intervals; i++)
			check_wait(intervals[i], interval_nulls[i], "backoff_intervals");
		if (nulls[RETRY_BACKOFF - 1])
		{
			values[RETRY_BACKOFF - 1] = CStringGetTextDatum("list");
			nulls[RETRY_BACKOFF - 1] = false;
		}
	}
	if (!nulls[RETRY_BACKOFF - 1] &&
		eq_parse_backoff(TextDatumGetCString(values[RETRY_BACKOFF - 1])) ==
			EQ_BACKOFF_LIST &&
		n_intervals == 0)
		ereport(ERROR, (errcode(ERRCODE_EQ_INVALID_SETTING),
						errmsg("backoff list needs backoff_intervals"),
						errdetail("Neither the job nor queue \"%s\" has any.",
								  queue->name)));
	if (!nulls[RETRY_DELAY - 1])
		check_wait(values[RETRY_DELAY - 1], false, "backoff_delay");
	if (!nulls[RETRY_MAX - 1])
		check_wait(values[RETRY_MAX - 1], false, "backoff_max");
	if (!nulls[RETRY_JITTER - 1])
	{
		double jitter = DatumGetFloat8(values[RETRY_JITTER - 1]);

		if (!(jitter >= 0 && jitter <= 1))
			ereport(ERROR, (errcode(ERRCODE_EQ_INVALID_SETTING),
							errmsg("backoff_jitter must be between 0 and 1")));
	}
}

/* As the value of a column of this type. */
Datum
eq_retry_datum(Oid type, const EqRetryOptions *own)
{
	TupleDesc desc = lookup_rowtype_tupdesc(type, -1);
	HeapTuple row = heap_form_tuple(desc, (Datum *) own->values,
									(bool *) own->nulls);

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
