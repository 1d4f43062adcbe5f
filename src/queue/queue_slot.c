/*
 * queue_slot.c: what shared memory keeps of each queue for claims: where the last one was,
 * the ring, the limits.
 */
#include "postgres.h"

#include "fmgr.h"
#include "utils/timestamp.h"

#include "queue/limits.h"
#include "queue/queue_slot.h"
#include "wake/wake.h"

PG_FUNCTION_INFO_V1(eq_held_until);
PG_FUNCTION_INFO_V1(eq_end_hold);

/* A queue is held for so long at most. */
#define MAX_HELD_US USECS_PER_DAY

#define CLOCK_SLACK_US USECS_PER_MINUTE

EqQueueSlot *eq_queue_slots = NULL;

static Size
queue_slots_size(void)
{
	return mul_size(eq_max_queues, sizeof(EqQueueSlot));
}

/* Leaves slots untouched until they are used: unused ones take no memory. */
static void
attach_queue_slots(void *memory, LWLockPadded *locks, bool is_new)
{
	eq_queue_slots = memory;
}

static void
init_queue_slot(EqQueueSlot *slot)
{
	memset(slot, 0, sizeof(EqQueueSlot));
	pg_atomic_init_u32(&slot->last_lane, 0);
	pg_atomic_init_u64(&slot->last_segment, 0);
	pg_atomic_init_u64(&slot->mark_generation, 0);
	pg_atomic_init_u64(&slot->held_until, 0);
	pg_atomic_init_u64(&slot->held_at, 0);
	SpinLockInit(&slot->ring.mutex);
	pg_atomic_init_u64(&slot->ring.segment, 0);
	pg_atomic_init_u64(&slot->ring.end_run_at, 0);
	pg_atomic_init_u64(&slot->ring.voided, 0);
	dlist_init(&slot->limits.leases);
	ConditionVariableInit(&slot->limits.loaded);
	slot->is_initialized = true;
}

/* Resets a slot for another queue; its mark generation increases, so that old ones are void. */
static void
begin_queue_slot(int number)
{
	EqQueueSlot *slot = &eq_queue_slots[number];

	if (!slot->is_initialized)
		init_queue_slot(slot);
	pg_atomic_write_u32(&slot->last_lane, 0);
	pg_atomic_write_u64(&slot->last_segment, 0);
	pg_atomic_fetch_add_u64(&slot->mark_generation, 1);
	pg_atomic_write_u64(&slot->held_until, 0);
	slot->ring.n = 0;
	slot->ring.next = 0;
	slot->ring.begun_at = 0;
	slot->ring.filling_at = 0;
	eq_forget_limits(&eq_wake_slots[number]);
}

/*
 * Releases the leases of a dropped queue, whose entries others may need.  All else is reset
 * when the slot is reused: then no transaction uses it any more.
 */
static void
end_queue_slot(int number)
{
	eq_forget_leases(&eq_wake_slots[number]);
}

/*
 * Ends a hold that began later than now: the clock was set back, so its end can't be known.
 * If the reason still holds, the next handler holds the queue again.
 */
static void
end_wrong_hold(EqQueueSlot *slot, TimestampTz now)
{
	uint64 until = pg_atomic_read_u64(&slot->held_until);

	if (until != 0 &&
		(TimestampTz) pg_atomic_read_u64(&slot->held_at) > now + CLOCK_SLACK_US)
		(void) pg_atomic_compare_exchange_u64(&slot->held_until, &until, 0);
}

/*
 * Returns until when the queue is held (postpone_queue, EQ064); 0 if it is not.  A hold is in
 * shared memory only: a restart ends it.
 */
TimestampTz
eq_queue_held_until(const EqQueue *queue)
{
	EqWakeSlot *slot = eq_wake_slot(queue->queue_id);
	TimestampTz now = GetCurrentTimestamp();
	TimestampTz until;

	if (slot == NULL)
		return 0;
	end_wrong_hold(eq_queue_slot(slot), now);
	until = (TimestampTz) pg_atomic_read_u64(&eq_queue_slot(slot)->held_until);
	return until > now ? until : 0;
}

/*
 * Holds a queue: no job of it is claimed for so many microseconds, a day at most.  Takes effect
 * at once, and no rollback undoes it.  Does nothing for the extension's own queues, which
 * serve all rules and reducers.
 */
void
eq_hold_queue(const EqQueue *queue, int64 delay)
{
	EqWakeSlot *slot = eq_wake_slot(queue->queue_id);
	TimestampTz now = GetCurrentTimestamp();
	uint64 until = (uint64) (now + Min(delay, MAX_HELD_US));
	uint64 was;
	EqQueueSlot *held;

	if (slot == NULL || queue->queue_id <= EQ_SNAPSHOTS)
		return;
	held = eq_queue_slot(slot);
	end_wrong_hold(held, now);
	pg_atomic_write_u64(&held->held_at, (uint64) now);
	was = pg_atomic_read_u64(&held->held_until);
	/* The latest time that any handler asked for holds. */
	while (was < until &&
		   !pg_atomic_compare_exchange_u64(&held->held_until, &was, until))
		;
}

/* For queue_health, which asks for all queues. */
Datum
eq_held_until(PG_FUNCTION_ARGS)
{
	const EqQueue *queue = eq_get_queue_by_id(PG_GETARG_INT32(0));
	TimestampTz until = queue ? eq_queue_held_until(queue) : 0;

	if (until == 0)
		PG_RETURN_NULL();
	PG_RETURN_TIMESTAMPTZ(until);
}

/* For resume_queue: ends the hold; returns whether the queue was held. */
Datum
eq_end_hold(PG_FUNCTION_ARGS)
{
	EqWakeSlot *slot = eq_wake_slot(PG_GETARG_INT32(0));

	if (slot == NULL ||
		(TimestampTz) pg_atomic_exchange_u64(&eq_queue_slot(slot)->held_until, 0) <=
			GetCurrentTimestamp())
		PG_RETURN_BOOL(false);
	eq_note_config_changed(); /* who sleeps until then is to look again */
	PG_RETURN_BOOL(true);
}

const EqSharedPart eq_queue_slots_part = {
	.name = "event_queue queue slots",
	.size = queue_slots_size,
	.attach = attach_queue_slots,
	.begin_slot = begin_queue_slot,
	.end_slot = end_queue_slot,
};
