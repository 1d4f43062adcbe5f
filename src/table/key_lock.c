/*
 * key_lock.c: locks on a hash of a key.
 *
 * They serialize sessions that use the same key for the span of look-up and insert, so
 * that none runs into a unique violation.  They are released before the call ends (the row
 * itself blocks others until commit), so that a transaction of 100,000 calls needs one at a
 * time.  An error releases them with the (sub)transaction.  Order: EQ_LOCK_BUCKET, then
 * EQ_LOCK_EVENT_ID, EQ_LOCK_AGGREGATE, EQ_LOCK_POSITIONS.  EQ_LOCK_UNIQUE_KEY is taken
 * alone.
 *
 * Locks on buckets are held until the end of the transaction.  The server's lock table is
 * shared, so one transaction may take only a part of it.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "storage/lock.h"
#include "storage/proc.h"
#include "utils/memutils.h"

#include "compat.h"
#include "event_queue.h"
#include "table/table.h"

#define LOCKS_SHARE 16	/* a part of the table of locks: one of so many */
#define FEW_LOCKS	128 /* of a transaction, however small the table is */

static EqRelationName queue_table = {"queue"};

static LocalTransactionId lxid = InvalidLocalTransactionId; /* whose these are: */
static LOCKTAG *kept; /* until its end, or that of a savepoint around the call */
static int n_kept;
static int max_kept;

static void
make_lock_tag(LOCKTAG *tag, EqKeySpace space, uint32 hash)
{
	Oid rel = eq_relation_oid(&queue_table);

	SET_LOCKTAG_OBJECT(*tag, MyDatabaseId, rel, hash, space);
}

void
eq_lock_key(EqKeySpace space, uint32 hash)
{
	LOCKTAG tag;

	make_lock_tag(&tag, space, hash);
	(void) LockAcquire(&tag, ExclusiveLock, false, false);
}

/* EQ059 unless the transaction may keep one more. */
static void
make_room(void)
{
	int64 share = (int64) max_locks_per_xact * MaxBackends / LOCKS_SHARE;
	int limit = (int) Min(Max(FEW_LOCKS, share), INT_MAX);
	int n = 0;

	if (lxid != EQ_MY_LXID)
		n_kept = 0;
	lxid = EQ_MY_LXID;
	if (n_kept < limit && n_kept < max_kept)
		return;
	/* Some may have been given back by savepoints. */
	for (int i = 0; i < n_kept; i++)
	{
		int same = 0; /* given back, and taken again */

		while (same < n && memcmp(&kept[same], &kept[i], sizeof(LOCKTAG)) != 0)
			same++;
		if (same == n && eq_lock_is_held(&kept[i], ExclusiveLock))
			kept[n++] = kept[i];
	}
	n_kept = n;
	if (n_kept >= limit)
		ereport(ERROR,
				(errcode(ERRCODE_EQ_TOO_MANY_BUCKETS),
				 errmsg("the transaction holds too many buckets of subscriptions"),
				 errdetail("It may hold %d, each of which is a lock.", limit),
				 errhint("Commit between subscriptions, or raise"
						 " max_locks_per_transaction and restart the server.")));
	if (n_kept == max_kept)
	{
		int new_max = Max(64, 2 * max_kept);

		kept = kept
				   ? repalloc(kept, new_max * sizeof(LOCKTAG))
				   : MemoryContextAlloc(TopMemoryContext, new_max * sizeof(LOCKTAG));
		max_kept = new_max;
	}
}

/*
 * Locks a key until the end of the transaction, or a rollback to an earlier savepoint;
 * false if someone holds it and wait is false.
 */
bool
eq_lock_key_until_end(EqKeySpace space, uint32 hash, bool wait)
{
	LOCKTAG tag;

	make_lock_tag(&tag, space, hash);
	if (eq_lock_is_held(&tag, ExclusiveLock))
		return true;
	make_room();
	if (LockAcquire(&tag, ExclusiveLock, false, !wait) == LOCKACQUIRE_NOT_AVAIL)
		return false;
	kept[n_kept++] = tag;
	return true;
}

void
eq_unlock_key(EqKeySpace space, uint32 hash)
{
	LOCKTAG tag;

	make_lock_tag(&tag, space, hash);
	if (eq_lock_is_held(&tag, ExclusiveLock))
		(void) LockRelease(&tag, ExclusiveLock, false);
}
