/*
 * reserve.c: reserves rows for claimers.
 *
 * A row lock before each lease would be one more WAL record and one more trip
 * through the lock manager for each job.  So a claimer enters the row's TID into
 * a table in shared memory, until the end of its top transaction (not of a savepoint):
 * other claimers skip the row.  What is reserved is updated at once; if it was changed by then, by
 * someone who is no claimer, the update says so and the row is skipped.
 *
 * The table has one slot for a hash value.  A claimer that finds the slot taken by
 * another TID locks the row instead.  Nothing here is needed for correctness:
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
#include "storage/bufmgr.h"
#include "storage/procarray.h"

#include "queue/queue.h"
#include "wake/database.h"

#define MAX_RESERVED 65536

static pg_atomic_uint64 *reserved = NULL;

static Size
reservations_size(void)
{
	return MAX_RESERVED * sizeof(pg_atomic_uint64);
}

static void
attach_reservations(void *memory, LWLockPadded *locks, bool is_new)
{
	reserved = memory;
	for (int i = 0; i < MAX_RESERVED && is_new; i++)
		pg_atomic_init_u64(&reserved[i], 0);
}

const EqSharedPart eq_reservations_part = {
	.name = "event_queue reservations",
	.size = reservations_size,
	.attach = attach_reservations,
};

static EqReservation
reserve(uint64 key)
{
	uint32 slot = hash_combine(murmurhash32((uint32) key),
							   murmurhash32((uint32) (key >> 32))) %
				  MAX_RESERVED;
	uint64 holder = 0;

	eq_xact_prepare(&eq_reserved_rows, 1);
	if (pg_atomic_compare_exchange_u64(&reserved[slot], &holder, key))
	{
		*(uint32 *) eq_xact_add(&eq_reserved_rows) = slot;
		return EQ_RESERVED;
	}
	if (holder != key)
		return EQ_NO_ROOM;
	/* Perhaps claimed and released in this very transaction. */
	for (int i = eq_reserved_rows.n - 1; i >= 0; i--)
	{
		if (*EQ_XACT_ENTRY(eq_reserved_rows, uint32, i) == slot)
			return EQ_RESERVED;
	}
	return EQ_RESERVED_BY_OTHER;
}

/* Reserves a row; the last 16 bits of the key are its offset, never 0. */
EqReservation
eq_reserve_row(ItemPointer tid)
{
	return reserve((uint64) (MyDatabaseId & 0xffff) << 48 |
				   (uint64) ItemPointerGetBlockNumber(tid) << 16 |
				   ItemPointerGetOffsetNumber(tid));
}

/* Reserves something that is no row by its hash; the last 16 bits are 0. */
EqReservation
eq_reserve_key(uint64 hash)
{
	return reserve(hash & ~UINT64CONST(0xffff));
}

/* Releases all that the transaction reserved. */
static void
release_rows(void)
{
	for (int i = 0; i < eq_reserved_rows.n; i++)
		pg_atomic_write_u64(&reserved[*EQ_XACT_ENTRY(eq_reserved_rows, uint32, i)],
							0);
}

/*
 * Voids the rings (ring.c), since jobs whose claims are rolled back come before the
 * candidates there.
 */
static void
void_rings(void)
{
	if (eq_reserved_rows.n > 0) /* so the database's entry is known */
		pg_atomic_fetch_add_u64(&eq_database()->unseen_jobs, 1);
}

static void
release_rows_at_abort(void)
{
	release_rows();
	void_rings();
}

static void
void_rings_at_subabort(SubTransactionId subid, SubTransactionId parent)
{
	void_rings();
}

/* Slots that this transaction has taken in the table of reservations. */
EqXactKind eq_reserved_rows = {
	.entry_size = sizeof(uint32),
	.top_only = true,
	.at_commit = release_rows,
	.at_prepare = release_rows,
	.at_abort = release_rows_at_abort,
	.at_subabort = void_rings_at_subabort,
};

/* Tells whether a member of the multixact makes the row busy (eq_row_is_busy). */
static bool
multixact_is_busy(MultiXactId multi, bool locked_only)
{
	MultiXactMember *members;
	int n = GetMultiXactIdMembers(multi, &members, false, locked_only);
	bool busy = false;

	for (int i = 0; i < n && !busy; i++)
	{
		TransactionId xid = members[i].xid;

		if (TransactionIdIsCurrentTransactionId(xid))
			continue;
		busy = TransactionIdIsInProgress(xid) ||
			   (ISUPDATE_from_mxstatus(members[i].status) &&
				TransactionIdDidCommit(xid));
	}
	if (n > 0)
		pfree(members);
	return busy;
}

/*
 * Tells whether another transaction is changing or locking the tuple in this slot, or
 * has changed it.  A job that is called busy is skipped; so no answer "busy" may outlast the
 * transactions that it is about, or the job would never be claimed.  By what xmax is
 * (TransactionIdIsInProgress is asked before TransactionIdDidCommit, since a
 * transaction that ends between the two is then found to have committed):
 *
 * none, or a hint says that it aborted or only locked: free.
 * of our own, also of a live subtransaction: free.  If it was a lock, it is no
 *     hindrance; if it was a change, the update that follows says so.
 * a locker or updater that is open, also as a subtransaction: busy until it ends.
 * a locker that has ended, however: free.
 * an updater that committed: busy; this version is past, and no later snapshot has
 *     it.
 * an updater that aborted, also as a subtransaction of ours or of an open one
 *     (which is in no array of running subtransactions any more): free.
 * a multixact: busy if one of its members is by these rules.  Nobody but pruning and
 *     vacuum replaces one whose members have ended, so they are asked one by one; that
 *     some have ended, or that we are among them, must not count.
 *
 * What changes after this look, the update finds.  Flags and number are read with
 * the page locked: one without the other would ask for a transaction that never was.
 */
bool
eq_row_is_busy(TupleTableSlot *slot)
{
	HeapTupleHeader row = ExecFetchSlotHeapTuple(slot, false, NULL)->t_data;
	Buffer buffer = ((BufferHeapTupleTableSlot *) slot)->buffer;
	TransactionId xmax;
	uint16 infomask;

	if (row->t_infomask & HEAP_XMAX_INVALID)
		return false;
	Assert(TTS_IS_BUFFERTUPLE(slot) && BufferIsValid(buffer));
	LockBuffer(buffer, BUFFER_LOCK_SHARE);
	infomask = row->t_infomask;
	xmax = HeapTupleHeaderGetRawXmax(row);
	LockBuffer(buffer, BUFFER_LOCK_UNLOCK);

	if ((infomask & HEAP_XMAX_INVALID) || HEAP_LOCKED_UPGRADED(infomask))
		return false;
	if (infomask & HEAP_XMAX_IS_MULTI)
		return multixact_is_busy(xmax, HEAP_XMAX_IS_LOCKED_ONLY(infomask));
	if (TransactionIdIsCurrentTransactionId(xmax))
		return false;
	return TransactionIdIsInProgress(xmax) ||
		   (!HEAP_XMAX_IS_LOCKED_ONLY(infomask) && TransactionIdDidCommit(xmax));
}
