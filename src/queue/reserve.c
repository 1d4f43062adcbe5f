/*
 * reserve.c: which rows claimers have in hand.
 *
 * A row lock before each lease would be one more WAL record and one more trip
 * through the lock manager for each job.  So a claimer enters the row's place into
 * a table in shared memory, until the end of its transaction: who finds it there
 * walks on.  What is reserved is updated at once; if it was changed by then, by
 * someone who is no claimer, the update says so and the row is skipped.
 *
 * The table has one slot for a hash value.  Whoever finds the slot taken by
 * another place locks the row instead.  Nothing here is needed for correctness:
 * two who update the same row are kept apart by the table itself, but one of them
 * would wait.  The same holds for the token buckets of keys (group_rate.c).
 */
#include "postgres.h"

#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/multixact.h"
#include "access/transam.h"
#include "access/xact.h"
#include "common/hashfn.h"
#include "miscadmin.h"
#include "storage/procarray.h"
#include "utils/memutils.h"

#include "queue/queue.h"
#include "wake/wake.h"

/* Slots that this transaction has taken; in TopMemoryContext. */
static uint32 *taken = NULL;
static int n_taken = 0;
static int max_taken = 0;

static EqReservation
reserve(uint64 key)
{
	uint32 slot = hash_combine(murmurhash32((uint32) key),
							   murmurhash32((uint32) (key >> 32))) %
				  EQ_MAX_RESERVED;
	uint64 holder = 0;

	eq_grow_list((void **) &taken, &max_taken, n_taken + 1, sizeof(uint32));
	if (pg_atomic_compare_exchange_u64(&eq_shared->reserved[slot], &holder, key))
	{
		taken[n_taken++] = slot;
		return EQ_RESERVED;
	}
	if (holder != key)
		return EQ_NO_ROOM;
	/* Perhaps claimed and given back in this very transaction. */
	for (int i = n_taken - 1; i >= 0; i--)
	{
		if (taken[i] == slot)
			return EQ_RESERVED;
	}
	return EQ_RESERVED_BY_OTHER;
}

/* A row, which has an offset in the last 16 bits. */
EqReservation
eq_reserve_row(ItemPointer tid)
{
	return reserve((uint64) (MyDatabaseId & 0xffff) << 48 |
				   (uint64) ItemPointerGetBlockNumber(tid) << 16 |
				   ItemPointerGetOffsetNumber(tid));
}

/* Something else that has this hash. */
EqReservation
eq_reserve_key(uint64 hash)
{
	return reserve(hash & ~UINT64CONST(0xffff));
}

/*
 * Claims are rolled back: those jobs come before the ones that are kept for others
 * (ring.c).  Can't throw.
 */
void
eq_claims_undone(void)
{
	if (n_taken > 0) /* so the database's entry is known */
		pg_atomic_fetch_add_u64(&eq_database()->rings_voided, 1);
}

/* At the end of the transaction; can't throw. */
void
eq_release_rows(bool undone)
{
	for (int i = 0; i < n_taken; i++)
		pg_atomic_write_u64(&eq_shared->reserved[taken[i]], 0);
	if (undone)
		eq_claims_undone();
	n_taken = 0;
}

/* Is another transaction changing, or locking, the version in this slot? */
bool
eq_row_is_busy(TupleTableSlot *slot)
{
	HeapTupleHeader row = ExecFetchSlotHeapTuple(slot, false, NULL)->t_data;
	TransactionId xmax = HeapTupleHeaderGetRawXmax(row);

	if (row->t_infomask & HEAP_XMAX_INVALID)
		return false;
	if (row->t_infomask & HEAP_XMAX_IS_MULTI)
	{
		/*
		 * Nobody marks a multixact as ended but pruning and vacuum: ask for its
		 * members.  One that holds an update is an old version, as below.
		 */
		if (HEAP_LOCKED_UPGRADED(row->t_infomask))
			return false;
		return !HEAP_XMAX_IS_LOCKED_ONLY(row->t_infomask) ||
			   MultiXactIdIsRunning(xmax, true);
	}
	if (TransactionIdIsCurrentTransactionId(xmax))
		return false; /* our own lock, or the update will say what it is */
	return TransactionIdIsInProgress(xmax) ||
		   (TransactionIdDidCommit(xmax) &&
			!HEAP_XMAX_IS_LOCKED_ONLY(row->t_infomask));
}
