/*
 * limit_changes.c: logs what this transaction changed of limits, and undoes it.
 *
 * Changes of shared memory take effect at once, so each is logged with the previous value
 * (in TopMemoryContext, as callbacks at the end of a transaction need it).  The log is a
 * stack: a subtransaction's changes are at its end, and are undone in reverse.  The
 * callbacks do not throw.
 */
#include "postgres.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "utils/timestamp.h"

#include "queue/limits.h"
#include "wake/wake.h"

static int n_settings = 0; /* of the changes, those of kind SETTINGS */

/* Leases of jobs that this transaction has settled: its own to use again. */
typedef struct Freed
{
	EqWakeSlot *slot;
	int32 n;
} Freed;

uint64 eq_lease_owner = 0;

static EqLimitChange *
change_at(int i)
{
	return EQ_XACT_ENTRY(eq_limit_changes, EqLimitChange, i);
}

static Freed *
freed_at(int i)
{
	return EQ_XACT_ENTRY(eq_freed_seats, Freed, i);
}

/* Allocates all that n more changes, and the callbacks at the end, need. */
void
eq_prepare_limit_changes(int n)
{
	static uint32 transactions = 0;

	(void) eq_database(); /* take the entry now: it may throw */
	if (eq_lease_owner == 0)
		eq_lease_owner = (uint64) MyProcPid << 32 | ++transactions;
	eq_xact_prepare(&eq_limit_changes, n);
}

/* Logs a change; after eq_prepare_limit_changes it can't throw. */
EqLimitChange *
eq_log_limit_change(EqLimitChangeKind kind, EqWakeSlot *slot)
{
	EqLimitChange *change = eq_xact_add(&eq_limit_changes);
	SubTransactionId subid = change->subid;

	memset(change, 0, sizeof(EqLimitChange));
	change->subid = subid;
	change->kind = kind;
	change->slot = slot;
	if (kind == EQ_LIMIT_SETTINGS)
		n_settings++;
	return change;
}

/* Returns the number of leases that this transaction freed and may use again. */
int32 *
eq_freed_leases(EqWakeSlot *slot)
{
	static int32 none;

	none = 0;
	for (int i = 0; i < eq_freed_seats.n; i++)
	{
		if (freed_at(i)->slot == slot)
			return &freed_at(i)->n;
	}
	return &none;
}

/* Allocates what eq_freed_leases needs to count. */
void
eq_prepare_freed_leases(EqWakeSlot *slot)
{
	Freed *freed;

	for (int i = 0; i < eq_freed_seats.n; i++)
	{
		if (freed_at(i)->slot == slot)
			return;
	}
	freed = eq_xact_add(&eq_freed_seats);
	freed->slot = slot;
	freed->n = 0;
}

/* Tells whether this transaction changes the queue's limits. */
bool
eq_changes_limits(EqWakeSlot *slot)
{
	for (int i = 0; i < eq_limit_changes.n && n_settings > 0; i++)
	{
		if (change_at(i)->kind == EQ_LIMIT_SETTINGS && change_at(i)->slot == slot)
			return true;
	}
	return false;
}

/*
 * Takes over the leases, now loaded, of jobs that this transaction settled before.
 * With the lock held.
 */
void
eq_adopt_own_settled(EqWakeSlot *slot)
{
	for (int i = 0; i < eq_limit_changes.n; i++)
	{
		EqLimitChange *change = change_at(i);
		EqLease *lease;

		if (change->kind != EQ_LIMIT_SETTLED || change->slot != slot ||
			change->was_there)
			continue;
		lease = eq_find_lease(slot, change->job_id);
		if (lease == NULL || lease->owner != 0)
			continue;
		change->was_there = true;
		change->was_until = lease->until;
		lease->owner = eq_lease_owner;
		lease->state = EQ_LEASE_SETTLED;
		(*eq_freed_leases(slot))++;
	}
}

/* Wakes sessions that found a limit reached; can't throw. */
void
eq_wake_refused_claimers(EqWakeSlot *slot)
{
	/* The session that raised the flag first has woken the scheduler. */
	if (pg_atomic_exchange_u32(&slot->pending, 1) == 0)
		eq_wake_scheduler(eq_database());
	eq_wake_waiters(slot, PG_INT64_MAX);
}

/* Takes this transaction's last reservation of the queue out of the log. */
bool
eq_pop_reservation(EqWakeSlot *slot, EqLimitChange *reservation)
{
	int at = eq_limit_changes.n - 1;

	while (at >= 0 &&
		   (change_at(at)->kind != EQ_LIMIT_RESERVED || change_at(at)->slot != slot))
		at--;
	if (at < 0)
		return false;
	*reservation = *change_at(at);
	if (at == eq_limit_changes.n - 1)
		eq_xact_pop(&eq_limit_changes);
	else
		change_at(at)->kind = EQ_LIMIT_NOTHING;
	return true;
}

/*
 * Returns all of a reservation but n jobs; true if a claim was refused because of it.
 * With the lock held.
 */
bool
eq_end_reservation(EqLimits *limits, const EqLimitChange *change, int n)
{
	bool refused = limits->refused && n < Max(change->tokens, change->leases);

	if (change->tokens > 0 && change->bucket == limits->bucket &&
		limits->rate_limit > 0)
	{
		limits->reserved_tokens -= change->tokens;
		limits->tokens += change->tokens - n;
	}
	limits->reserved_leases -= change->leases;
	if (limits->reserved_leases == 0 && limits->reserved_tokens == 0)
		limits->refused = false;
	return refused;
}

/* Ends a change of a lease at commit.  Here and below: no throw, lock held. */
static void
commit_lease(const EqLimitChange *change)
{
	EqLease *lease = eq_find_lease(change->slot, change->job_id);

	if (change->kind == EQ_LIMIT_SETTLED)
		eq_limits_of(change->slot)->settled++;
	if (lease == NULL)
		return;
	if (lease->owner == eq_lease_owner)
	{
		if (lease->state == EQ_LEASE_SETTLED)
			eq_remove_lease(change->slot, lease);
		else
			eq_release_lease_owner(change->slot, lease);
	}
	/* Another session loaded it from the row, before the commit. */
	else if (change->kind == EQ_LIMIT_SETTLED && !change->was_there &&
			 lease->owner == 0 && lease->until == change->was_until)
		eq_remove_lease(change->slot, lease);
}

/* Puts new settings in force. */
static void
commit_settings(const EqLimitChange *change)
{
	EqLimits *limits = eq_limits_of(change->slot);

	if (change->rate_limit == 0)
		limits->rate_limit = 0;
	else if (limits->rate_limit != 0)
		eq_change_bucket_rate(limits, change->rate_limit, change->rate_interval);
	if (change->leases_changed)
	{
		limits->load_state = EQ_LEASES_NOT_LOADED;
		limits->epoch++;
		if (!change->counts)
			eq_expire_leases(change->slot, EQ_NEVER);
	}
}

/* Restores a lease as it was before the change. */
static void
undo_lease(const EqLimitChange *change)
{
	EqWakeSlot *slot = change->slot;
	EqLease *lease = eq_find_lease(slot, change->job_id);

	/* The count is our own, also if the lease is another's by now (limits.c, 5). */
	if (change->kind == EQ_LIMIT_SETTLED && change->was_there)
		(*eq_freed_leases(slot))--;
	if (change->kind == EQ_LIMIT_CLAIMED && change->was_own &&
		change->was_state == EQ_LEASE_SETTLED)
		(*eq_freed_leases(slot))++;
	if (lease == NULL || lease->owner != eq_lease_owner)
		return;
	if (change->was_own)
	{
		lease->state = change->was_state;
		if (change->kind != EQ_LIMIT_EXTENDED)
			lease->until = change->was_until;
	}
	else if (change->was_unowned)
	{
		lease->until = change->was_until;
		eq_release_lease_owner(slot, lease);
	}
	else if (change->kind == EQ_LIMIT_CLAIMED ||
			 (change->kind == EQ_LIMIT_EXTENDED && !change->was_there))
		eq_remove_lease(slot, lease);
	else
		eq_release_lease_owner(slot, lease);
}

/* Undoes one change; true if others may claim more by it. */
static bool
undo_change(const EqLimitChange *change)
{
	EqLimits *limits = eq_limits_of(change->slot);

	switch (change->kind)
	{
		case EQ_LIMIT_RESERVED:
			(void) eq_end_reservation(limits, change, 0);
			eq_release_lease_entries(change->leases);
			return true;
		case EQ_LIMIT_TOKENS:
			if (limits->rate_limit > 0 && change->bucket == limits->bucket)
				eq_return_tokens(limits, change->tokens, change->flowed);
			return true;
		case EQ_LIMIT_CLAIMED:
			undo_lease(change);
			limits->settled++; /* for a session that loads leases */
			return true;
		case EQ_LIMIT_SETTLED:
		case EQ_LIMIT_EXTENDED:
			undo_lease(change);
			return false;
		case EQ_LIMIT_SETTINGS:
			n_settings--;
			if (change->began)
				limits->rate_limit = 0;
			return false;
		default:
			return false;
	}
}

/* Undoes the changes from this one on, in reverse. */
static void
undo_changes(int first)
{
	EqWakeSlot *slot = NULL;
	bool wake = false;

	for (int i = eq_limit_changes.n - 1; i >= first; i--)
	{
		EqLimitChange *change = change_at(i);

		if (change->kind == EQ_LIMIT_TRUNCATED)
			continue;
		if (change->slot != slot)
		{
			if (slot)
				eq_unlock_limits(slot);
			if (wake)
				eq_wake_refused_claimers(slot);
			slot = change->slot;
			wake = false;
			eq_lock_limits(slot);
		}
		if (undo_change(change))
			wake = true;
	}
	if (slot)
		eq_unlock_limits(slot);
	if (wake)
		eq_wake_refused_claimers(slot);
}

/* The log itself is emptied by xact.c. */
static void
forget_changes(void)
{
	n_settings = 0;
	eq_lease_owner = 0;
}

/* Called when the commit is visible. */
static void
commit_changes(void)
{
	EqWakeSlot *slot = NULL;
	bool truncated = false;

	for (int i = 0; i < eq_limit_changes.n; i++)
	{
		EqLimitChange *change = change_at(i);

		if (change->kind == EQ_LIMIT_TOKENS || change->kind == EQ_LIMIT_NOTHING)
			continue;
		if (change->kind == EQ_LIMIT_TRUNCATED)
		{
			truncated = true;
			continue;
		}
		if (change->slot != slot)
		{
			if (slot)
				eq_unlock_limits(slot);
			slot = change->slot;
			eq_lock_limits(slot);
		}
		if (change->kind == EQ_LIMIT_SETTINGS)
			commit_settings(change);
		else if (change->kind == EQ_LIMIT_RESERVED)
			(void) undo_change(change);
		else
			commit_lease(change);
	}
	if (slot)
		eq_unlock_limits(slot);
	/* After the leases of this transaction itself, which have no owner any more. */
	if (truncated)
		eq_reload_leases(true);
	forget_changes();
}

/*
 * At PREPARE TRANSACTION.  COMMIT PREPARED and ROLLBACK PREPARED have no access to this log, so
 * the leases count until they run out, or until the scheduler, some seconds after a prepared
 * transaction has ended, has them loaded anew (counts_chore in worker/cycle.c).
 */
static void
prepare_changes(void)
{
	for (int i = 0; i < eq_limit_changes.n; i++)
	{
		EqLimitChange *change = change_at(i);
		EqLimits *limits;
		EqLease *lease;

		/* A session that loads the leases waits for the table's lock, until TRUNCATE has ended. */
		if (change->kind == EQ_LIMIT_TRUNCATED)
		{
			eq_reload_leases(false);
			continue;
		}
		limits = eq_lock_limits(change->slot);
		lease = eq_find_lease(change->slot, change->job_id);
		if (change->kind == EQ_LIMIT_RESERVED)
			(void) undo_change(change);
		else if (change->kind == EQ_LIMIT_SETTINGS && change->leases_changed)
		{
			limits->load_state = EQ_LEASES_NOT_LOADED;
			limits->epoch++;
		}
		else if (lease && lease->owner == eq_lease_owner)
			eq_release_lease_owner(change->slot, lease);
		eq_unlock_limits(change->slot);
	}
	forget_changes();
}

static void
abort_changes(void)
{
	eq_stop_loading_leases();
	forget_changes();
}

static void
stop_loading_at_subabort(SubTransactionId subid, SubTransactionId parent)
{
	eq_stop_loading_leases();
}

EqXactKind eq_limit_changes = {
	.entry_size = sizeof(EqLimitChange),
	.at_commit = commit_changes,
	.at_prepare = prepare_changes,
	.at_abort = abort_changes,
	.undo = undo_changes,
	.at_subabort = stop_loading_at_subabort,
};

/* Counts, which undo_changes corrects. */
EqXactKind eq_freed_seats = {
	.entry_size = sizeof(Freed),
	.top_only = true,
};
