/*
 * bucket.c: the token bucket of a queue with rate_limit.
 *
 * It fills at rate_limit per rate_interval up to rate_limit; limits.c proves that no span
 * of time has more claims than that allows.  Callers hold the lock of the limits.
 */
#include "postgres.h"

#include "utils/timestamp.h"

#include "queue/limits.h"

/* Begins a new bucket. */
void
eq_begin_bucket(EqLimits *limits, int32 rate_limit, int64 rate_interval, bool full)
{
	limits->rate_limit = rate_limit;
	limits->rate_interval = rate_interval;
	limits->tokens = full ? rate_limit : 0;
	limits->reserved_tokens = 0;
	limits->flowed = 0;
	limits->refilled_at = GetCurrentTimestamp();
	limits->bucket++; /* so that tokens of another one are not returned */
}

/* Adds the tokens that came until now. */
static void
refill(EqLimits *limits, TimestampTz now)
{
	double come = Max(now - limits->refilled_at, 0) * (double) limits->rate_limit /
				  limits->rate_interval;

	limits->flowed += come;
	limits->tokens = Min(limits->tokens + come,
						 (double) limits->rate_limit - limits->reserved_tokens);
	limits->refilled_at = now;
}

/* Changes the rate: tokens until now came at the old one. */
void
eq_change_bucket_rate(EqLimits *limits, int32 rate_limit, int64 rate_interval)
{
	refill(limits, GetCurrentTimestamp());
	if (rate_limit < limits->rate_limit)
		limits->flowed += limits->rate_limit - rate_limit; /* as in (2) */
	limits->rate_limit = rate_limit;
	limits->rate_interval = rate_interval;
	limits->tokens = Min(limits->tokens,
						 (double) rate_limit - limits->reserved_tokens);
}

/*
 * Brings the bucket up to date.  A change of settings is applied at its commit.  If
 * the queue's settings differ from the bucket's, that was missed (COMMIT PREPARED, a
 * restart), and is done here; unless this transaction changes them itself: until its
 * commit the old ones hold.
 */
void
eq_update_bucket(EqLimits *limits, const EqQueue *queue, bool changes,
				 TimestampTz now)
{
	if (limits->rate_limit == 0)
		eq_begin_bucket(limits, queue->rate_limit, queue->rate_interval, false);
	else if ((limits->rate_limit != queue->rate_limit ||
			  limits->rate_interval != queue->rate_interval) &&
			 !changes)
		eq_change_bucket_rate(limits, queue->rate_limit, queue->rate_interval);
	else
		refill(limits, now);
}

/* Returns tokens of a claim that is rolled back, less what has flowed since. */
void
eq_return_tokens(EqLimits *limits, int32 tokens, double flowed)
{
	refill(limits, GetCurrentTimestamp());
	limits->tokens += Max(tokens - (limits->flowed - flowed), 0);
	limits->tokens = Min(limits->tokens,
						 (double) limits->rate_limit - limits->reserved_tokens);
}
