/*
 * backoff.c: how long a failed job waits.
 *
 * exponential: delay x 2^(n-1) after the n-th failure (2 s, 4 s, 8 s); fixed:
 * delay.  Jitter j draws the wait between (1 - j) and 1 of that.  Never longer
 * than backoff_max.
 */
#include "postgres.h"

#include <math.h>

#include "common/pg_prng.h"

#include "queue/queue.h"

int64
eq_backoff(const EqQueue *queue, bool exponential, int64 delay, int failures)
{
	double wait = delay;

	if (exponential)
		wait *= pow(2, Min(failures - 1, 62));
	wait = Min(wait, (double) queue->backoff_max);
	if (queue->backoff_jitter > 0)
		wait *= 1 - queue->backoff_jitter * pg_prng_double(&pg_global_prng_state);
	return (int64) wait;
}
