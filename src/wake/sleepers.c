/*
 * sleepers.c: wakes sessions that sleep until there are jobs, events, or the end of a job.
 *
 * A sleeper raises its flag before it looks for what it waits for; the committing session
 * looks at the flags after its commit is visible, and sets latches: one of them sees the
 * other.  None of these functions throws, but eq_sleeper when a session first calls it.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/proc.h"

#include "compat.h"
#include "wake/wake.h"

static EqSleeper *sleepers = NULL; /* one for each process */

static Size
sleepers_size(void)
{
	return mul_size(MaxBackends, sizeof(EqSleeper));
}

static void
attach_sleepers(void *memory, LWLockPadded *locks, bool is_new)
{
	sleepers = memory;
	for (int i = 0; i < MaxBackends && is_new; i++)
	{
		pg_atomic_init_u32(&sleepers[i].queue, 0);
		pg_atomic_init_u32(&sleepers[i].events, 0);
		pg_atomic_init_u32(&sleepers[i].job, 0);
	}
}

const EqSharedPart eq_sleepers_part = {
	.name = "event_queue sleepers",
	.size = sleepers_size,
	.attach = attach_sleepers,
};

/* A session that is terminated in its sleep: the next one in its place is not to be woken. */
static void
lower_flags(int code, Datum arg)
{
	pg_atomic_write_u32(&sleepers[EQ_MY_PROC_NUMBER].events, 0);
	pg_atomic_write_u32(&sleepers[EQ_MY_PROC_NUMBER].job, 0);
}

/* This session's entry. */
EqSleeper *
eq_sleeper(void)
{
	static bool registered = false;

	if (!registered)
		before_shmem_exit(lower_flags, (Datum) 0);
	registered = true;
	return &sleepers[EQ_MY_PROC_NUMBER];
}

/*
 * Wakes up to n sessions that sleep in claim_wait on this queue; whoever lowers the flag
 * wakes it.
 */
void
eq_wake_waiters(EqWakeSlot *slot, int64 n)
{
	uint32 number = eq_slot_number(slot) + 1;

	if (pg_atomic_read_u32(&slot->waiters) == 0)
		return;
	for (int i = 0; i < MaxBackends && n > 0; i++)
	{
		uint32 expected = number;

		if (pg_atomic_read_u32(&sleepers[i].queue) == number &&
			pg_atomic_compare_exchange_u32(&sleepers[i].queue, &expected, 0))
		{
			SetLatch(&ProcGlobal->allProcs[i].procLatch);
			n--;
		}
	}
}

/* Jobs of this database ended: wakes the sessions in await_job. */
void
eq_wake_awaiting(EqDatabase *db)
{
	if (pg_atomic_read_u32(&db->jobs_awaited) == 0)
		return;
	pg_atomic_exchange_u32(&db->jobs_awaited, 0);
	for (int i = 0; i < MaxBackends; i++)
	{
		if (pg_atomic_read_u32(&sleepers[i].job) != 0)
			SetLatch(&ProcGlobal->allProcs[i].procLatch);
	}
}

/* Events came below this database's watermark: wakes the sessions in wait_for_events. */
void
eq_wake_readers(EqDatabase *db)
{
	if (pg_atomic_read_u32(&db->events_awaited) == 0)
		return;
	pg_atomic_exchange_u32(&db->events_awaited, 0);
	for (int i = 0; i < MaxBackends; i++)
	{
		if (pg_atomic_read_u32(&sleepers[i].events) != 0)
			SetLatch(&ProcGlobal->allProcs[i].procLatch);
	}
}
