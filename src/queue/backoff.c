/*
 * backoff.c: how long a failed job waits.
 *
 * After the n-th failure, of a base d: exponential (BullMQ's) d x 2^(n-1): 2 s,
 * 4 s, 8 s; bull (Bull's own) d x (2^n - 1): 2 s, 6 s, 14 s; linear d x n; fixed
 * d; list: the n-th of the queue's backoff_intervals, or its last.  Jitter j
 * draws the wait between (1 - j) and 1 of that.  Never longer than backoff_max.
 */
#include "postgres.h"

#include <math.h>

#include "common/pg_prng.h"

#include "queue/queue.h"

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

int64
eq_backoff(const EqQueue *queue, EqBackoff backoff, int64 delay, int failures)
{
	double wait = delay;
	int n = Min(failures, 62);

	switch (backoff)
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
			if (queue->n_intervals > 0)
				wait = queue->intervals[Min(failures, queue->n_intervals) - 1];
			break;
	}
	wait = Min(wait, (double) queue->backoff_max);
	if (queue->backoff_jitter > 0)
		wait *= 1 - queue->backoff_jitter * pg_prng_double(&pg_global_prng_state);
	return (int64) wait;
}
