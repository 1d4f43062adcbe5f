/*
 * ring.c: the next jobs of a queue, found by one claimer for the others.
 *
 * A claim of a single job would descend the index twice and read a page of it to
 * take one entry.  So at a busy queue one claimer reads further and leaves the TIDs of
 * the rows that follow here; others take one each, and fetch that row alone.  When all
 * are taken, the next claimer reads on behind them.
 *
 * A TID is only a hint: the claimer reads the row with a snapshot of its own and
 * checks all that makes a job claimable, so nothing here can be wrong but order.
 * Order is kept by these: a transaction that makes a job claimable before the end of
 * the ring voids it after its commit (eq_ring_void_if_before, and plain SQL by the
 * database's generation); a job that slips through, between the snapshot of the
 * claimer that fills and a commit, waits 10 ms, after which each ring is void and the
 * walk begins at the ready mark again.  That walk also finds what was handed out and
 * not taken.
 */
#include "postgres.h"

#include "miscadmin.h"

#include "queue/queue_slot.h"

#define RING_US	   10000
#define FIRST_FILL 4

/* Reads the generation that a valid ring has; called before taking the snapshot. */
uint64
eq_ring_generation(EqWakeSlot *slot)
{
	return pg_atomic_read_u64(&eq_queue_slot(slot)->mark_generation) +
		   pg_atomic_read_u64(&eq_queue_slot(slot)->ring.voided) +
		   pg_atomic_read_u64(&eq_database()->unseen_jobs);
}

/*
 * Takes a candidate.  If there is none, says whether the caller is to fill the ring,
 * and whether it may go on behind *end.
 */
EqRingAnswer
eq_ring_take(EqWakeSlot *slot, uint64 generation, TimestampTz now,
			 ItemPointer candidate, uint64 *segment, EqPlace *end)
{
	EqRing *ring = &eq_queue_slot(slot)->ring;
	EqRingAnswer answer = EQ_RING_EMPTY;
	bool valid;

	SpinLockAcquire(&ring->mutex);
	valid = ring->generation == generation && now >= ring->begun_at &&
			now < ring->begun_at + RING_US;
	*segment = pg_atomic_read_u64(&ring->segment);
	if (valid && ring->next < ring->n)
	{
		*candidate = ring->candidates[ring->next++];
		answer = EQ_RING_CANDIDATE;
	}
	else if (now < ring->filling_at || now > ring->filling_at + RING_US)
	{
		ring->filling_at = now;
		*end = ring->end;
		answer = valid && ring->n > 0 ? EQ_RING_GO_ON : EQ_RING_FILL;
	}
	SpinLockRelease(&ring->mutex);
	return answer;
}

/* Returns how many candidates to look for: more, the sooner the last were gone. */
int
eq_ring_wanted(EqWakeSlot *slot, TimestampTz now)
{
	EqRing *ring = &eq_queue_slot(slot)->ring;

	/* Only the claimer that fills changes these. */
	if (now > ring->begun_at + 2 * RING_US || ring->next < ring->n)
		return FIRST_FILL;
	return Min(Max(ring->n * 2, FIRST_FILL), EQ_RING_SIZE);
}

/* Fills the ring; n may be 0.  end: the place of the last candidate. */
void
eq_ring_fill(EqWakeSlot *slot, uint64 generation, TimestampTz now, bool goes_on,
			 uint64 segment, EqPlace end, const ItemPointerData *candidates, int n)
{
	EqRing *ring = &eq_queue_slot(slot)->ring;

	SpinLockAcquire(&ring->mutex);
	ring->generation = generation;
	if (!goes_on)
		ring->begun_at = now;
	pg_atomic_write_u64(&ring->segment, segment);
	pg_atomic_write_u64(&ring->end_run_at, end.run_at);
	ring->end = end;
	ring->next = 0;
	ring->n = n;
	memcpy(ring->candidates, candidates, n * sizeof(ItemPointerData));
	ring->filling_at = 0;
	SpinLockRelease(&ring->mutex);
}

/* Voids the ring if a job became claimable before its end; can't throw. */
void
eq_ring_void_if_before(EqWakeSlot *slot, uint64 segment, TimestampTz run_at)
{
	uint64 present = pg_atomic_read_u64(&eq_queue_slot(slot)->ring.segment);

	if (segment < present ||
		(segment == present && run_at < (TimestampTz) pg_atomic_read_u64(
											&eq_queue_slot(slot)->ring.end_run_at)))
		pg_atomic_fetch_add_u64(&eq_queue_slot(slot)->ring.voided, 1);
}
