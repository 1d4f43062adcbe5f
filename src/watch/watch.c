/*
 * watch.c: ends user code that does not end by itself.
 *
 * A worker registers here when it begins and ends to run a user's code, and how long that
 * may take.  Its own timeout cancels it then; but a function may catch that.  So the
 * scheduler, which runs no user code, checks the deadlines: a worker past its own is
 * cancelled again, and then terminated, which nothing in SQL can catch.  (Code that never
 * reaches CHECK_FOR_INTERRUPTS goes on, and is shown as a fault; but what waits for a
 * connection ends, as the process breaks these.)
 */
#include "postgres.h"

#include <signal.h>

#include "common/hashfn.h"
#include "miscadmin.h"
#include "storage/lwlock.h"
#include "utils/timestamp.h"

#include "event_queue.h"
#include "watch/watch.h"

EqWorker *eq_worker_list = NULL;
LWLock *eq_workers_lock = NULL;

static Size
workers_size(void)
{
	return EQ_MAX_WORKERS * sizeof(EqWorker);
}

static void
attach_workers(void *memory, LWLockPadded *locks, bool is_new)
{
	eq_worker_list = memory;
	eq_workers_lock = &locks->lock;
	if (!is_new)
		return;
	memset(eq_worker_list, 0, workers_size());
	for (int i = 0; i < EQ_MAX_WORKERS; i++)
	{
		EqWorker *worker = &eq_worker_list[i];

		pg_atomic_init_u32(&worker->idle, 0);
		pg_atomic_init_u64(&worker->jobs_done, 0);
		pg_atomic_init_u64(&worker->current_job, 0);
		pg_atomic_init_u64(&worker->cancelled_job, 0);
		pg_atomic_init_u32(&worker->work, 0);
		pg_atomic_init_u32(&worker->seat, 0);
		pg_atomic_init_u64(&worker->busy_since, 0);
		pg_atomic_init_u64(&worker->deadline, 0);
		pg_atomic_init_u64(&worker->terminated, 0);
		pg_atomic_init_u32(&worker->signals, 0);
		pg_atomic_init_u32(&worker->signal_us, 0);
	}
}

const EqSharedPart eq_workers_part = {
	.name = "event_queue workers",
	.n_locks = 1,
	.size = workers_size,
	.attach = attach_workers,
};

/* After the deadline, cancels each half second; after CANCELS times, terminates. */
#define SIGNAL_US	   (500 * INT64CONST(1000))
#define LEAST_SPAN_US  (50 * INT64CONST(1000))
#define CANCELS		   2
#define GIVE_UP_US	   (10 * USECS_PER_SEC)
#define CLOCK_SLACK_US USECS_PER_SEC

/* A job that runs for so long is a long one: a stand-in takes jobs of other handlers. */
#define LONG_US (100 * INT64CONST(1000))
#define SOON_US (20 * INT64CONST(1000))

static EqWorker *me = NULL;

void
eq_watch_me(EqWorker *worker)
{
	me = worker;
}

/*
 * Begins user code, which may take limit_us; if it does not end by then, it must be terminated
 * within spare_us, when its lease ends (0: there is enough time).  Returns the previous
 * deadline, for eq_watch_end: a rule's condition may be evaluated inside of a job.
 */
int64
eq_watch_begin(int64 limit_us, int64 spare_us)
{
	int64 before;
	int64 deadline = GetCurrentTimestamp() + limit_us;
	int64 span = spare_us > 0 ? Max(spare_us / (CANCELS + 2), LEAST_SPAN_US)
							  : SIGNAL_US;

	if (me == NULL)
		return 0;
	before = pg_atomic_read_u64(&me->deadline);
	if (before != 0)
		deadline = Min(deadline, before);
	else
		pg_atomic_write_u64(&me->busy_since, GetCurrentTimestamp());
	pg_atomic_write_u32(&me->signals, 0);
	pg_atomic_write_u32(&me->signal_us, Min(span, SIGNAL_US));
	pg_atomic_write_u64(&me->deadline, deadline);
	return before;
}

void
eq_watch_end(int64 before)
{
	if (me == NULL)
		return;
	pg_atomic_write_u64(&me->deadline, before);
	if (before == 0)
		pg_atomic_write_u64(&me->busy_since, 0);
}

/* Sets the deadline of a worker to now. */
void
eq_end_limit(EqWorker *worker)
{
	uint64 deadline = pg_atomic_read_u64(&worker->deadline);
	TimestampTz now = GetCurrentTimestamp();

	if (deadline != 0 && (TimestampTz) deadline > now)
		(void) pg_atomic_compare_exchange_u64(&worker->deadline, &deadline,
											  (uint64) now);
}

/*
 * For whoever catches an error of user code: a process that was terminated ends here, while
 * what it was terminated for is still known.  The error may be that of a connection which the
 * signal broke (registry.c).
 */
void
eq_end_if_terminated(void)
{
	if (ProcDiePending)
		CHECK_FOR_INTERRUPTS();
}

/* For a process on its way out: was it terminated for what it runs? */
bool
eq_was_past_limit(void)
{
	uint64 deadline = me ? pg_atomic_read_u64(&me->deadline) : 0;

	return deadline != 0 && pg_atomic_read_u64(&me->terminated) == deadline;
}

/*
 * What began at a time to come began before the clock was set back: it may take as long from
 * now on as it was given, and not until the clock is there again.  (The server's own timeouts
 * do wait until then.)
 */
static void
correct_deadline(EqWorker *worker, TimestampTz now)
{
	uint64 since = pg_atomic_read_u64(&worker->busy_since);
	uint64 deadline = pg_atomic_read_u64(&worker->deadline);
	int64 ahead = (TimestampTz) since - now;

	if (deadline == 0 || ahead < CLOCK_SLACK_US ||
		!pg_atomic_compare_exchange_u64(&worker->busy_since, &since, (uint64) now))
		return;
	(void) pg_atomic_compare_exchange_u64(&worker->deadline, &deadline,
										  deadline - (uint64) ahead);
}

/* One worker; when to look at it again, 0: no need. */
static TimestampTz
watch(EqWorker *worker, TimestampTz now)
{
	uint64 deadline;
	uint32 signals = pg_atomic_read_u32(&worker->signals);
	int64 span = pg_atomic_read_u32(&worker->signal_us);
	TimestampTz due;

	correct_deadline(worker, now);
	deadline = pg_atomic_read_u64(&worker->deadline);
	if (deadline == 0)
		return 0;
	due = deadline + span * (int64) (signals + 1);
	if (now < due)
		return due;
	pg_atomic_write_u32(&worker->signals, signals + 1);
	if (signals < CANCELS)
		(void) kill(worker->pid, SIGINT);
	else
	{
		pg_atomic_write_u64(&worker->terminated, deadline);
		(void) kill(worker->pid, SIGTERM);
	}
	return now + span;
}

/*
 * For the scheduler: signals workers of this database that are past their limit;
 * when to look again, 0: no need.
 */
TimestampTz
eq_watch_workers(void)
{
	TimestampTz now = GetCurrentTimestamp();
	TimestampTz next = 0;
	char stuck[64] = "";

	LWLockAcquire(eq_workers_lock, LW_SHARED);
	for (int i = 0; i < EQ_MAX_WORKERS; i++)
	{
		EqWorker *worker = &eq_worker_list[i];
		TimestampTz at;

		if (worker->kind == EQ_WORKER_NONE || worker->dboid != MyDatabaseId)
			continue;
		at = watch(worker, now);
		if (at != 0 && (next == 0 || at < next))
			next = at;
		if (pg_atomic_read_u64(&worker->deadline) != 0 &&
			now - (TimestampTz) pg_atomic_read_u64(&worker->deadline) > GIVE_UP_US)
			snprintf(stuck, sizeof(stuck), "process %d", worker->pid);
	}
	LWLockRelease(eq_workers_lock);

	if (stuck[0] == '\0')
		eq_clear_faults(MyDatabaseId, "worker", NULL);
	else
		(void) eq_note_fault(
			"worker", stuck, "57014",
			"it does not end though it was terminated: its code does not look at interrupts",
			1000, 1000);
	return next;
}

/*
 * Returns the number by which a handler is known here.  Each of the extension's own queues has
 * one, for all of its jobs.
 */
uint32
eq_work_of(int32 queue_id, const char *job_name)
{
	uint32 hash = hash_bytes_uint32((uint32) queue_id);

	return hash_combine(
		hash, hash_bytes((const unsigned char *) job_name, strlen(job_name)));
}

/* An executor takes up a job of this handler; 0: it has none. */
void
eq_begin_work(uint32 work)
{
	pg_atomic_write_u32(&me->work, work);
}

/* Takes a seat of a handler with max_executors, before a claim; false if all are taken. */
bool
eq_take_seat(uint32 work, int most)
{
	int others = 0;

	LWLockAcquire(eq_workers_lock, LW_EXCLUSIVE);
	for (int i = 0; i < EQ_MAX_WORKERS; i++)
	{
		EqWorker *worker = &eq_worker_list[i];

		if (worker->kind == EQ_WORKER_EXECUTOR && worker != me &&
			worker->dboid == MyDatabaseId &&
			pg_atomic_read_u32(&worker->seat) == work)
			others++;
	}
	if (others < most)
		pg_atomic_write_u32(&me->seat, work);
	LWLockRelease(eq_workers_lock);
	return others < most;
}

/* Sets the seat that this executor has (0: none); returns the previous one. */
uint32
eq_keep_seat(uint32 work)
{
	return pg_atomic_exchange_u32(&me->seat, work);
}

/* Does another executor run a job of this handler; for_long: for a long time already? */
bool
eq_is_under_way(uint32 work, bool for_long)
{
	TimestampTz now = GetCurrentTimestamp();
	bool found = false;

	LWLockAcquire(eq_workers_lock, LW_SHARED);
	for (int i = 0; i < EQ_MAX_WORKERS && !found; i++)
	{
		EqWorker *worker = &eq_worker_list[i];
		uint64 since = pg_atomic_read_u64(&worker->busy_since);

		found = worker->kind == EQ_WORKER_EXECUTOR && worker != me &&
				worker->dboid == MyDatabaseId && since != 0 &&
				pg_atomic_read_u32(&worker->work) == work &&
				(!for_long || now - (TimestampTz) since > LONG_US);
	}
	LWLockRelease(eq_workers_lock);
	return found;
}

static uint32
present_ms(void)
{
	return (uint32) (GetCurrentTimestamp() / 1000);
}

/* True if the caller is to set the executor's latch. */
bool
eq_stir_worker(EqWorker *worker)
{
	uint32 idle = pg_atomic_read_u32(&worker->idle);

	while (idle == EQ_LOOKS || idle == EQ_SLEEPS)
	{
		if (pg_atomic_compare_exchange_u32(
				&worker->idle, &idle,
				idle == EQ_LOOKS ? EQ_AWAKE : Max(present_ms(), EQ_SLEEPS + 1)))
			return true;
	}
	return false;
}

/* For how long an executor has not run since it was woken, if it hangs; else 0. */
int64
eq_asleep_us(EqWorker *worker)
{
	uint32 idle = pg_atomic_read_u32(&worker->idle);

	/* The clock may have been set back; 49 days are no time. */
	if (worker->kind != EQ_WORKER_EXECUTOR || idle <= EQ_SLEEPS ||
		(int32) (present_ms() - idle) < 0)
		return 0;
	return (int64) (present_ms() - idle) * 1000;
}

/*
 * For the scheduler, when jobs wait: the time at which all of this database's
 * executors will have been at their jobs for long.  0: one of them sleeps, and so has
 * found nothing that it may do, or none is there.
 */
TimestampTz
eq_all_busy_at(void)
{
	TimestampTz now = GetCurrentTimestamp();
	TimestampTz at = 0;
	bool idle = false;

	LWLockAcquire(eq_workers_lock, LW_SHARED);
	for (int i = 0; i < EQ_MAX_WORKERS && !idle; i++)
	{
		EqWorker *worker = &eq_worker_list[i];
		uint64 since;
		int64 asleep;

		if (worker->kind != EQ_WORKER_EXECUTOR || worker->dboid != MyDatabaseId)
			continue;
		since = pg_atomic_read_u64(&worker->busy_since);
		asleep = eq_asleep_us(worker);
		idle = asleep == 0 && pg_atomic_read_u32(&worker->idle) != EQ_AWAKE;
		/* Hangs; or is between two jobs, or just woken. */
		if (asleep > SOON_US)
			at = Max(at, now - asleep + LONG_US);
		else
			at = Max(at, since != 0 ? (TimestampTz) since + LONG_US : now + SOON_US);
	}
	LWLockRelease(eq_workers_lock);
	return idle ? 0 : at;
}
