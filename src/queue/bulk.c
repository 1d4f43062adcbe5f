/*
 * bulk.c: keeps calls that lock many keys and rows from deadlocking.
 *
 * Rows that a call knows beforehand are locked in one order everywhere: dead letters by
 * job_id, then jobs by job_id.  Holders of unique keys are found only one after the other.
 * So enqueue_many, enqueue_flow and the retry of dead letters never wait while they hold a
 * lock: they note what they would have to wait for and raise EQ044; the caller rolls its
 * subtransaction back, which releases its locks, waits for what was noted (rows in the
 * order above) and starts again.
 *
 * If keys are always in use, no attempt would succeed: from the eleventh on, an attempt
 * polls a few times before it gives up.  It never sleeps in the lock manager while it holds
 * locks, so it can't be part of a deadlock that another session is told of.
 *
 * No subtransaction may be committed within such an attempt: a session that waits for one
 * goes on to wait for the whole transaction, even if the attempt is rolled back.
 */
#include "postgres.h"

#include "common/pg_prng.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "storage/latch.h"
#include "storage/lmgr.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/wait_event.h"

#include "event_queue.h"
#include "compat.h"
#include "common/try.h"
#include "queue/queue.h"
#include "table/table.h"

PG_FUNCTION_INFO_V1(eq_await_conflict_sql);

#define MAX_TRIES 20

#define MAX_IMPATIENT 10 /* attempts that give up at the first conflict */
#define MAX_LOOKS	  10 /* at one row or key, of those after them */

typedef struct Row
{
	bool is_job; /* else a dead letter */
	int64 job_id;
} Row;

static int attempt = 0;		/* of the present call; 0: it may wait */
static bool awaits = false; /* the conflict, and holds nothing of the call's */

/* State of the present call. */
static struct
{
	LocalTransactionId lxid; /* the transaction that this is about */
	bool is_pending;		 /* not waited for yet */
	TransactionId xid;		 /* open, holds a unique key; invalid: none */
	int n_rows;
	int max_rows;
	Row *rows;
} conflict;

static bool
is_below(const Row *a, const Row *b)
{
	return a->is_job != b->is_job ? b->is_job : a->job_id < b->job_id;
}

static void raise_conflict(void) pg_attribute_noreturn();

static void
raise_conflict(void)
{
	conflict.lxid = EQ_MY_LXID;
	conflict.is_pending = true;
	ereport(
		ERROR,
		(errcode(ERRCODE_EQ_WOULD_WAIT),
		 errmsg("another transaction has locked a job or a unique key"),
		 errdetail("A call for many jobs waits for no lock while it holds some.")));
}

/* A first attempt knows of nothing. */
static void
begin_conflict(void)
{
	if (attempt <= 1 || conflict.lxid != EQ_MY_LXID)
		conflict.n_rows = 0;
	conflict.xid = InvalidTransactionId;
}

void
eq_conflict_with_xact(TransactionId xid)
{
	begin_conflict();
	conflict.xid = xid;
	raise_conflict();
}

void
eq_conflict_with_row(bool is_job, int64 job_id)
{
	Row row = {is_job, job_id};
	int i;

	begin_conflict();
	if (conflict.n_rows == conflict.max_rows)
	{
		int max_rows = Max(16, 2 * conflict.max_rows);

		conflict.rows = conflict.rows
							? repalloc(conflict.rows, max_rows * sizeof(Row))
							: MemoryContextAlloc(TopMemoryContext,
												 max_rows * sizeof(Row));
		conflict.max_rows = max_rows;
	}
	for (i = conflict.n_rows; i > 0 && is_below(&row, &conflict.rows[i - 1]); i--)
		conflict.rows[i] = conflict.rows[i - 1];
	conflict.rows[i] = row;
	conflict.n_rows++;
	raise_conflict();
}

static void
lock_rows(bool is_job)
{
	EqTable table;
	TupleTableSlot *slot;

	eq_table_open(&table, eq_relation_oid(is_job ? EQ_JOB : EQ_DEAD_LETTER),
				  is_job ? JOB_COLUMNS : DEAD_COLUMNS);
	slot = table_slot_create(table.rel, NULL);
	for (int i = 0; i < conflict.n_rows; i++)
	{
		Snapshot snapshot;

		CHECK_FOR_INTERRUPTS();
		if (conflict.rows[i].is_job != is_job)
			continue;
		snapshot = RegisterSnapshot(GetLatestSnapshot());
		(void) eq_lock_row(
			&table, eq_relation_oid(is_job ? EQ_JOB_PKEY : EQ_DEAD_LETTER_PKEY),
			conflict.rows[i].job_id, snapshot, slot, NULL);
		UnregisterSnapshot(snapshot);
	}
	ExecDropSingleTupleTableSlot(slot);
	eq_table_close(&table);
}

/* Called while nothing is held: waits for what an attempt before has met. */
void
eq_await_conflict(void)
{
	if (!conflict.is_pending)
		return;
	conflict.is_pending = false;
	if (conflict.lxid != EQ_MY_LXID)
		return;
	awaits = true;
	if (TransactionIdIsValid(conflict.xid))
		XactLockTableWait(conflict.xid, NULL, NULL, XLTW_None);
	if (conflict.n_rows > 0)
	{
		lock_rows(false);
		lock_rows(true);
	}
	awaits = false;
}

static void
sleep_a_while(int tries)
{
	(void) WaitLatch(
		MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
		(long) (tries * (5 + 5 * pg_prng_double(&pg_global_prng_state))),
		PG_WAIT_EXTENSION);
	ResetLatch(MyLatch);
	CHECK_FOR_INTERRUPTS();
}

bool
eq_enqueue_may_wait(void)
{
	return attempt == 0;
}

/* Between two looks at what others hold: true if it is worth another one. */
bool
eq_look_again(bool is_patient, int *looks)
{
	if (!is_patient || ++*looks > MAX_LOOKS)
		return false;
	sleep_a_while(1);
	return true;
}

bool
eq_enqueue_looks_again(int *looks)
{
	return eq_look_again(attempt > MAX_IMPATIENT, looks);
}

bool
eq_is_enqueue_attempt(void)
{
	return attempt > 0;
}

typedef struct Call
{
	void (*enqueue)(void *);
	void *argument;
	int nth;
} Call;

static void
run_attempt(void *argument)
{
	Call *call = argument;

	attempt = call->nth;
	awaits = false;
	call->enqueue(call->argument);
}

/* Calls a function that enqueues, in a subtransaction, until it need wait for nobody. */
void
eq_enqueue_by_attempts(void (*enqueue)(void *), void *argument)
{
	Call this = {enqueue, argument, 0};
	int tries = 0;

	for (;;)
	{
		ErrorData *error;

		this.nth++;
		error = eq_try(run_attempt, &this);
		attempt = 0;
		if (error == NULL)
			return;
		if (error->sqlerrcode == ERRCODE_EQ_WOULD_WAIT)
			continue;
		/* Windows of throttle in another order; a job that plain SQL has written. */
		if ((awaits &&
			 conflict.n_rows == 0) || /* a deadlock is of earlier calls' locks */
			(error->sqlerrcode != ERRCODE_T_R_DEADLOCK_DETECTED &&
			 error->sqlerrcode != ERRCODE_UNIQUE_VIOLATION) ||
			++tries >= MAX_TRIES)
			ReThrowError(error);
		sleep_a_while(tries);
	}
}

Datum
eq_await_conflict_sql(PG_FUNCTION_ARGS)
{
	eq_await_conflict();
	PG_RETURN_VOID();
}
