/*
 * limits.c: rate_limit and max_concurrency of a queue.
 *
 * Both are kept in shared memory, in the queue's slot, under one of a few LWLocks
 * that are held for some hundred instructions, with nothing inside that throws.
 * Queues without limits pay for none of it but an empty log at commit.
 *
 * eq_reserve_claims, the claim itself and eq_use_claims must be in one subtransaction,
 * since the log of changes (limit_changes.c) is a stack.
 *
 * The rate is a token bucket: it fills at rate_limit per rate_interval up to
 * rate_limit.  A claim takes its tokens at once.  Why no span of t has more than
 * rate_limit * (1 + t / rate_interval) claims that are committed:
 *
 * (1) A claim in progress holds as many tokens as it may take jobs, and returns
 *     what it did not need.  Meanwhile the bucket fills only so far that these would
 *     still fit: as if it had taken only what it did need, and perhaps less.
 * (2) A transaction that is rolled back returns the tokens that it took, less
 *     what has flowed since.  For had it not taken them, the bucket would have been
 *     full that much earlier, and at most what flowed would have been lost.
 *
 * The leases of a queue with max_concurrency are in a hash table (lease_table.c),
 * and in a list in the queue's slot, which counts them:
 *
 * (3) A claim in progress counts as many leases as it may take jobs; each job that it
 *     took has a lease in the table, with the time at which it runs out.
 * (4) A lease is owned by the transaction that last wrote it, until that has ended:
 *     until then it counts, whatever the time.  A rollback restores it; a commit
 *     removes it if the job was settled.  A lease without an owner counts until it
 *     runs out.  A transaction may use again the leases of jobs that it settled.
 * (5) A commit is visible before the table of leases follows it.  A transaction that
 *     claims or settles a job in between takes the lease over; the former owner then
 *     leaves it alone.
 * (6) A lease that ran out no longer counts.  If max_concurrency is reached without
 *     it, it can't be extended.
 *
 * After a restart, and when a queue is given max_concurrency, its leases are loaded
 * from its rows (lease_load.c).  The bucket begins empty after a restart, since it is
 * not known what was claimed before it; of a queue that had no rate it begins full.
 */
#include "postgres.h"

#include <math.h>

#include "miscadmin.h"
#include "utils/timestamp.h"

#include "common/interval.h"
#include "queue/limits.h"
#include "wake/wake.h"

#define WHOLE	   1e-6	 /* a token may lack so much, of rounding */
#define LOADING_US 10000 /* when to come again while leases are loaded */

/* Clears the limits of a slot that is taken for another queue.  Can't throw. */
void
eq_forget_limits(EqWakeSlot *slot)
{
	EqLimits *limits = eq_limits_of(slot);

	eq_forget_leases(slot);
	eq_lock_limits(slot);
	limits->rate_limit = 0;
	limits->reserved_leases = 0;
	limits->reserved_tokens = 0;
	limits->refused = false;
	limits->bucket++;
	limits->load_state = EQ_LEASES_NOT_LOADED;
	limits->epoch++;
	limits->next_expiry = EQ_NEVER;
	eq_unlock_limits(slot);
}

/* Finds the queue's slot; throws if there is none. */
static EqWakeSlot *
require_slot(const EqQueue *queue)
{
	EqWakeSlot *slot = eq_wake_slot(queue->queue_id);

	if (slot == NULL)
		ereport(
			ERROR,
			(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
			 errmsg("no room in shared memory for the limits of queue \"%s\"",
					queue->name),
			 errhint("Raise event_queue.max_queues (now %d) and restart the server.",
					 eq_max_queues)));
	return slot;
}

/*
 * Returns how many of the wanted leases max_concurrency allows; expires those that
 * ran out if it must.  With the lock held.
 */
static int
free_leases(EqWakeSlot *slot, int32 max_concurrency, int wanted, TimestampTz now)
{
	EqLimits *limits = eq_limits_of(slot);
	int64 own = *eq_freed_leases(slot);
	int64 left = (int64) max_concurrency + own - limits->active -
				 limits->reserved_leases;

	if (left < wanted && now >= limits->next_expiry)
	{
		eq_expire_leases(slot, now);
		left = (int64) max_concurrency + own - limits->active -
			   limits->reserved_leases;
	}
	return Max(Min(left, wanted), 0);
}

/*
 * Reserves up to the wanted number of claims within the limits, until eq_use_claims
 * says how many were made; returns how many.  If there is none, sets *retry_at to the
 * time when there will be one, if that is known.
 */
int
eq_reserve_claims(const EqQueue *queue, int wanted, TimestampTz *retry_at)
{
	EqWakeSlot *slot = require_slot(queue);
	EqLimits *limits = eq_limits_of(slot);
	EqDatabase *db = eq_database();
	bool changes = eq_changes_limits(slot);
	bool no_room = false;
	int allowed;
	TimestampTz now;
	EqLimitChange *change;

	if (queue->max_concurrency > 0)
		eq_expire_leases_for_room(wanted);
	eq_prepare_limit_changes(1);
	for (;;)
	{
		eq_lock_limits(slot);
		if (queue->max_concurrency == 0 || limits->load_state == EQ_LEASES_LOADED)
			break;
		eq_unlock_limits(slot);
		if (!eq_load_leases(slot, queue))
		{
			*retry_at = GetCurrentTimestamp() + LOADING_US;
			return 0;
		}
	}
	allowed = wanted;
	now = GetCurrentTimestamp();
	if (queue->rate_limit > 0)
	{
		eq_update_bucket(eq_limits_of(slot), queue, changes, now);
		if (limits->tokens + WHOLE < 1)
		{
			allowed = 0;
			*retry_at = now +
						(int64) ceil((1 - limits->tokens) * limits->rate_interval /
									 limits->rate_limit);
		}
		else
			allowed = Min(Min(wanted, queue->rate_limit),
						  (int) floor(limits->tokens + WHOLE));
		limits->refused |= allowed < wanted && limits->reserved_tokens > 0;
	}
	if (queue->max_concurrency > 0 && allowed > 0)
	{
		int leases = free_leases(slot, queue->max_concurrency, allowed, now);

		limits->refused |= leases < allowed && limits->reserved_leases > 0;
		allowed = eq_reserve_lease_entries(slot, db, leases);
		no_room = leases > 0 && allowed == 0;
	}
	if (allowed > 0)
	{
		change = eq_log_limit_change(EQ_LIMIT_RESERVED, slot);
		if (queue->rate_limit > 0)
		{
			change->tokens = allowed;
			change->bucket = limits->bucket;
			change->flowed = limits->flowed;
			limits->tokens -= allowed;
			limits->reserved_tokens += allowed;
		}
		if (queue->max_concurrency > 0)
		{
			change->leases = allowed;
			limits->reserved_leases += allowed;
		}
	}
	eq_unlock_limits(slot);
	if (no_room)
		eq_warn_lease_table_full(slot);
	return allowed;
}

/* Ends the reservation: these claims were made. */
void
eq_use_claims(const EqQueue *queue, const EqClaimedJob *jobs, int n_jobs)
{
	EqWakeSlot *slot = require_slot(queue);
	EqLimits *limits = eq_limits_of(slot);
	int unused_entries = 0;
	bool failed = false;
	bool refused;
	EqLimitChange reservation;

	eq_prepare_limit_changes(n_jobs + 1);
	if (!eq_pop_reservation(slot, &reservation))
		elog(ERROR, "claims of queue \"%s\" were not reserved", queue->name);
	Assert(reservation.subid == GetCurrentSubTransactionId());

	eq_lock_limits(slot);
	refused = eq_end_reservation(limits, &reservation, n_jobs);
	if (reservation.tokens > 0 && n_jobs > 0)
	{
		EqLimitChange *change = eq_log_limit_change(EQ_LIMIT_TOKENS, slot);

		change->tokens = n_jobs;
		change->bucket = reservation.bucket;
		change->flowed = reservation.flowed;
	}
	if (reservation.leases > 0)
		unused_entries = reservation.leases - n_jobs;
	for (int i = 0; i < n_jobs && reservation.leases > 0 && !failed; i++)
	{
		EqLease *lease = eq_find_lease(slot, jobs[i].job_id);
		EqLimitChange *change;

		if (lease == NULL)
		{
			lease = eq_add_lease(slot, jobs[i].job_id, jobs[i].leased_until);
			if (lease == NULL)
			{
				failed = true;
				break;
			}
			change = eq_log_limit_change(EQ_LIMIT_CLAIMED, slot);
		}
		else
		{
			/* Expired, or settled by this transaction or just now by another one. */
			unused_entries++;
			change = eq_log_limit_change(EQ_LIMIT_CLAIMED, slot);
			change->was_there = true;
			change->was_own = lease->owner == eq_lease_owner;
			change->was_unowned = lease->owner == 0;
			change->was_state = lease->state;
			change->was_until = lease->until;
			if (change->was_own && lease->state == EQ_LEASE_SETTLED)
				(*eq_freed_leases(slot))--;
		}
		change->job_id = jobs[i].job_id;
		lease->owner = eq_lease_owner;
		lease->state = EQ_LEASE_CLAIMED;
		lease->until = jobs[i].leased_until;
	}
	eq_unlock_limits(slot);
	eq_release_lease_entries(unused_entries);
	if (failed)
		elog(ERROR, "table of leases is full");
	if (refused)
		eq_wake_refused_claimers(slot);
}

/* Frees the lease, which was until then, of a job that is settled or released. */
void
eq_free_lease(const EqQueue *queue, int64 job_id, TimestampTz until)
{
	EqWakeSlot *slot = eq_wake_slot(queue->queue_id);
	EqLease *lease;
	EqLimitChange *change;

	if (slot == NULL)
		return; /* claimed while there was no limit */
	eq_prepare_limit_changes(1);
	eq_prepare_freed_leases(slot);
	eq_lock_limits(slot);
	change = eq_log_limit_change(EQ_LIMIT_SETTLED, slot);
	change->job_id = job_id;
	change->was_until = until;
	lease = eq_find_lease(slot, job_id);
	if (lease)
	{
		change->was_there = true;
		change->was_own = lease->owner == eq_lease_owner;
		change->was_state = lease->state;
		change->was_until = lease->until;
		lease->owner = eq_lease_owner;
		lease->state = EQ_LEASE_SETTLED;
		(*eq_freed_leases(slot))++;
	}
	eq_unlock_limits(slot);
}

/*
 * Extends a lease, at once: that it counts for too long, if it is rolled back, does
 * no harm.  Returns false if it had run out and max_concurrency is reached (or what
 * counts is not known yet), and if the table of leases has no room.
 */
bool
eq_extend_lease(const EqQueue *queue, int64 job_id, TimestampTz was_until,
				TimestampTz until)
{
	EqWakeSlot *slot = eq_wake_slot(queue->queue_id);
	EqDatabase *db = eq_database();
	EqLimits *limits;
	TimestampTz now = GetCurrentTimestamp();
	EqLease *lease;
	EqLimitChange *change;

	if (slot == NULL)
		return true;
	limits = eq_limits_of(slot);
	eq_prepare_limit_changes(1);
	eq_expire_leases_for_room(1);
	if (was_until <= now)
		(void) eq_load_leases(slot, queue);
	eq_lock_limits(slot);
	lease = eq_find_lease(slot, job_id);
	if (lease)
	{
		change = eq_log_limit_change(EQ_LIMIT_EXTENDED, slot);
		change->was_there = true;
		change->was_own = lease->owner == eq_lease_owner;
		change->was_state = lease->state;
		lease->until = Max(lease->until, until);
	}
	else
	{
		/* A lease that has not run out counts, though it may not be loaded yet. */
		bool is_counted = limits->load_state != EQ_LEASES_LOADED && was_until > now;

		if ((!is_counted &&
			 (limits->load_state != EQ_LEASES_LOADED ||
			  free_leases(slot, queue->max_concurrency, 1, now) == 0)) ||
			eq_reserve_lease_entries(slot, db, 1) == 0 ||
			(lease = eq_add_lease(slot, job_id, until)) == NULL)
		{
			eq_unlock_limits(slot);
			return false;
		}
		change = eq_log_limit_change(EQ_LIMIT_EXTENDED, slot);
		change->was_there = is_counted;
	}
	change->job_id = job_id;
	if (!change->was_own)
	{
		lease->owner = eq_lease_owner;
		lease->state = EQ_LEASE_EXTENDED;
	}
	eq_unlock_limits(slot);
	return true;
}
