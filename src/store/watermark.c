/*
 * watermark.c: positions of events, and up to which one a reader may go.
 *
 * Positions are taken when events are appended; transactions commit in another
 * order.  A reader that trusts the highest position it can see would skip the
 * events of a transaction that took lower ones and is still open.  So each
 * backend has a slot in shared memory with the lowest position that its open
 * transaction took, and
 *
 *		watermark = lowest of all slots of this database - 1,
 *					or the last position taken, if all slots are empty.
 *
 * Why that is right: taking a position and filling the slot is one critical
 * section (the mutex of the positions), and the watermark reads the last position taken
 * under the same mutex before it looks at the slots.  So each position up to
 * that one has its slot filled, or its transaction has ended; and slots are
 * cleared by callbacks that run after a commit or abort is visible.  A reader
 * takes the watermark first and its snapshot after: what committed below the
 * watermark is in the snapshot.  The slots are read without the mutex: one
 * that is filled meanwhile holds a higher position.
 *
 * A position is never given twice, also after a crash: they come in blocks,
 * each from one nextval of the sequence event_position (INCREMENT BY 8192),
 * whose WAL record is flushed before the first position of the block is used.
 * What a restart leaves of a block is skipped.
 *
 * Only a transaction that appended can hold the watermark back.  A rolled-back
 * savepoint leaves its position unused, and its slot filled until the end of
 * the transaction: late, never wrong.  Of a role that is bound to a tenant it may not
 * for longer than append_timeout.  PREPARE TRANSACTION is refused after an
 * append, since the slot would outlive its session.
 */
#include "postgres.h"

#include <signal.h>

#include "access/transam.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "commands/sequence.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "postmaster/bgworker.h"
#include "storage/proc.h"
#include "storage/spin.h"
#include "utils/snapmgr.h"

#include "compat.h"
#include "store/store.h"
#include "table/table.h"
#include "tenant/tenant.h"
#include "wake/wake.h"

PG_FUNCTION_INFO_V1(eq_watermark_sql);
PG_FUNCTION_INFO_V1(eq_last_position_sql);
PG_FUNCTION_INFO_V1(eq_open_appends);
PG_FUNCTION_INFO_V1(eq_skip_positions);

#define POSITION_BLOCK 8192 /* event_position's INCREMENT */

/* One per process: the lowest position its open transaction took; 0: none. */
typedef struct Appender
{
	pg_atomic_uint64 lowest_position;
	Oid dboid; /* this and what follows is written before it */
	int pid;
	bool is_bound;	   /* to a tenant, so that append_timeout holds */
	TimestampTz since; /* of lowest_position */
} Appender;

/* The position counter of a database. */
typedef struct Positions
{
	slock_t mutex;
	Oid sequence;	 /* of which they come; InvalidOid: not begun */
	int64 next;		 /* the next one to give */
	int64 block_end; /* last one that may be given, -> a new block */
} Positions;

static Appender *appenders = NULL;
static Positions *positions = NULL; /* by the number of the database */

static Size
positions_size(void)
{
	return add_size(MAXALIGN(mul_size(eq_max_databases, sizeof(Positions))),
					mul_size(MaxBackends, sizeof(Appender)));
}

static void
attach_positions(void *memory, LWLockPadded *locks, bool is_new)
{
	positions = memory;
	appenders = (Appender *) ((char *) memory +
							  MAXALIGN(eq_max_databases * sizeof(Positions)));
	if (!is_new)
		return;
	memset(memory, 0, positions_size());
	for (int i = 0; i < eq_max_databases; i++)
		SpinLockInit(&positions[i].mutex);
	for (int i = 0; i < MaxBackends; i++)
		pg_atomic_init_u64(&appenders[i].lowest_position, 0);
}

static void
begin_database(int number)
{
	positions[number].sequence = InvalidOid;
	positions[number].next = 0;
}

const EqSharedPart eq_positions_part = {
	.name = "event_queue positions",
	.size = positions_size,
	.attach = attach_positions,
	.begin_database = begin_database,
};

static Appender *
my_appender(void)
{
	return &appenders[EQ_MY_PROC_NUMBER];
}

static Positions *
my_positions(void)
{
	return &positions[eq_database_number(eq_database())];
}

/* Has this transaction taken a position? */
static bool
has_open_append(void)
{
	return pg_atomic_read_u64(&my_appender()->lowest_position) != 0;
}

/* The first position that the sequence has not yet handed out in a block. */
static int64
first_position_left(void)
{
	return eq_query_int64(
		"SELECT CASE WHEN is_called THEN last_value + 8192 ELSE last_value END"
		" FROM event_queue_internal.event_position",
		0);
}

/*
 * After a start of the server, or when the extension was dropped and created
 * again: nothing is given yet, and all that was given before lies below the
 * sequence.
 */
static void
prepare_positions(Positions *of)
{
	Oid sequence = eq_relation_oid(EQ_EVENT_POSITION);
	bool ready;
	int64 first;

	SpinLockAcquire(&of->mutex);
	ready = of->sequence == sequence;
	SpinLockRelease(&of->mutex);
	if (ready)
		return;

	if (RecoveryInProgress())
		ereport(ERROR,
				(errcode(ERRCODE_EQ_NOT_SUPPORTED_HERE),
				 errmsg("positions are not known on a standby"),
				 errhint("Ask the primary; watermark() is known here, too.")));

	eq_lock_key(EQ_LOCK_POSITIONS, 0);
	first = eq_enter_generation(first_position_left());
	SpinLockAcquire(&of->mutex);
	if (of->sequence != sequence)
	{
		of->next = first;
		of->block_end = first - 1;
		of->sequence = sequence;
	}
	SpinLockRelease(&of->mutex);
	eq_unlock_key(EQ_LOCK_POSITIONS, 0);
}

/*
 * For activate(): positions go on above all that the store holds, and all that
 * the database it was copied from can have given or will give in this generation.
 * A store in which there never was anything begins at 1.
 */
void
eq_begin_generation(void)
{
	Positions *of = my_positions();
	Oid sequence = eq_relation_oid(EQ_EVENT_POSITION);
	int64 next;

	eq_lock_key(EQ_LOCK_POSITIONS, 0);
	next = eq_query_int64(
		"SELECT coalesce(max(position), 0) + 1 FROM event_queue.event_store", 0);
	next = Max(next, first_position_left());
	/* Also what was given before the same dump was put back a second time. */
	SpinLockAcquire(&of->mutex);
	next = Max(next, of->next);
	SpinLockRelease(&of->mutex);
	next = eq_new_generation(next);
	SpinLockAcquire(&of->mutex);
	of->next = next;
	of->block_end = next - 1;
	of->sequence = sequence;
	SpinLockRelease(&of->mutex);
	eq_unlock_key(EQ_LOCK_POSITIONS, 0);
}

/* Gets the next block, unless someone else just did. */
static void
extend_positions(Positions *of)
{
	int64 first;
	bool exhausted;

	eq_lock_key(EQ_LOCK_POSITIONS, 0);
	SpinLockAcquire(&of->mutex);
	exhausted = of->next > of->block_end;
	SpinLockRelease(&of->mutex);
	if (exhausted)
	{
		/* nextval_internal without the check of privileges: the caller has none on the sequence. */
		first = nextval_internal(eq_relation_oid(EQ_EVENT_POSITION), false);
		XLogFlush(XactLastRecEnd);

		SpinLockAcquire(&of->mutex);
		of->next = Max(first, of->next);
		of->block_end = first + POSITION_BLOCK - 1;
		SpinLockRelease(&of->mutex);
	}
	eq_unlock_key(EQ_LOCK_POSITIONS, 0);
}

/*
 * The next position.  From here to the end of the transaction it holds the
 * watermark back.
 */
int64
eq_take_position(void)
{
	Positions *of = my_positions();
	Appender *me = my_appender();
	int64 position = 0;

	eq_require_active();
	prepare_positions(of);
	if (!has_open_append())
	{
		me->dboid = MyDatabaseId;
		me->pid = MyProcPid;
		/* Workers' sessions are watched by their own limits. */
		me->is_bound = MyBgworkerEntry == NULL && eq_is_bound();
		me->since = GetCurrentTimestamp();
	}

	while (position == 0)
	{
		SpinLockAcquire(&of->mutex);
		if (of->next <= of->block_end)
		{
			position = of->next++;
			if (pg_atomic_read_u64(&me->lowest_position) == 0)
				pg_atomic_write_u64(&me->lowest_position, position);
		}
		SpinLockRelease(&of->mutex);

		if (position == 0)
			extend_positions(of);
	}
	return position;
}

static void
refuse_prepare(void)
{
	/* The session, and with it the slot, may be gone before COMMIT PREPARED. */
	if (has_open_append())
		ereport(ERROR,
				(errcode(ERRCODE_EQ_NOT_SUPPORTED_HERE),
				 errmsg("cannot prepare a transaction that has appended events"),
				 errhint("Commit it in one phase.")));
}

/* Releases the watermark, and wakes those who read events. */
static void
release_positions(void)
{
	if (MyProc == NULL || EQ_MY_PROC_NUMBER >= MaxBackends || !has_open_append())
		return;
	/* A full barrier: who sees the empty slot sees the commit, too. */
	pg_atomic_exchange_u64(&my_appender()->lowest_position, 0);
	eq_wake_rules();
	eq_wake_readers(eq_database()); /* taken before: can't throw */
}

EqXactKind eq_taken_positions = {
	.before_prepare = refuse_prepare,
	.at_commit = release_positions,
	.at_abort = release_positions,
};

/* The last position taken by anyone, committed or not. */
int64
eq_last_position(void)
{
	Positions *of = my_positions();
	int64 last;

	if (!RecoveryInProgress() && eq_activation(false) != EQ_ACTIVE)
		return eq_watermark_of_copy();
	prepare_positions(of);
	SpinLockAcquire(&of->mutex);
	last = of->next - 1;
	SpinLockRelease(&of->mutex);
	return last;
}

/* Take this first and the snapshot after. */
int64
eq_watermark(void)
{
	int64 watermark;

	if (RecoveryInProgress())
		return eq_published_watermark();
	watermark = eq_last_position();
	pg_memory_barrier();
	for (int i = 0; i < MaxBackends; i++)
	{
		Appender *appender = &appenders[i];
		int64 lowest = pg_atomic_read_u64(&appender->lowest_position);

		if (lowest != 0 && lowest <= watermark && appender->dboid == MyDatabaseId)
			watermark = lowest - 1;
	}
	pg_memory_barrier();
	return watermark;
}

/*
 * For the scheduler: one tenant must not hold back the events of all others as long as
 * it likes.  Ends the sessions whose time is up.
 */
void
eq_end_old_appends(void)
{
	TimestampTz now = GetCurrentTimestamp();

	for (int i = 0; i < MaxBackends && eq_append_timeout > 0; i++)
	{
		Appender appender = appenders[i];
		uint64 lowest = pg_atomic_read_u64(&appender.lowest_position);

		/* If it began at a time to come, the clock was set back: its time begins now. */
		if (lowest != 0 && appender.since > now)
			appenders[i].since = now;
		if (lowest == 0 || appender.dboid != MyDatabaseId || !appender.is_bound ||
			appender.since + eq_append_timeout * INT64CONST(1000) > now)
			continue;
		pg_read_barrier();
		if (pg_atomic_read_u64(&appenders[i].lowest_position) != lowest)
			continue; /* it has ended, and the copy may be of two transactions */
		ereport(
			LOG,
			(errmsg(
				 "terminating session %d, whose transaction has held back events since position %llu for more than %d ms",
				 appender.pid, (unsigned long long) lowest, eq_append_timeout),
			 errdetail("The session's role is bound to a tenant."),
			 errhint("See event_queue.append_timeout.")));
		(void) kill(appender.pid, SIGTERM);
	}
}

Datum
eq_watermark_sql(PG_FUNCTION_ARGS)
{
	PG_RETURN_INT64(eq_watermark());
}

Datum
eq_last_position_sql(PG_FUNCTION_ARGS)
{
	PG_RETURN_INT64(eq_last_position());
}

Datum
eq_open_appends(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;

	InitMaterializedSRF(fcinfo, 0);
	for (int i = 0; i < MaxBackends; i++)
	{
		Appender *appender = &appenders[i];
		int64 lowest = pg_atomic_read_u64(&appender->lowest_position);
		Datum values[2];
		bool nulls[2] = {false, false};

		if (lowest == 0 || appender->dboid != MyDatabaseId)
			continue;
		values[0] = Int32GetDatum(appender->pid);
		values[1] = Int64GetDatum(lowest);
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}
	return (Datum) 0;
}

/* After rows were loaded beside append: what comes next lies above them. */
Datum
eq_skip_positions(PG_FUNCTION_ARGS)
{
	int64 up_to = PG_GETARG_INT64(0);
	Positions *of = my_positions();

	/* A restore takes no position: activate() goes above all of them. */
	if (eq_activation(false) != EQ_ACTIVE)
		PG_RETURN_VOID();
	prepare_positions(of);
	eq_lock_key(EQ_LOCK_POSITIONS, 0);
	if (of->block_end < up_to)
	{
		if (first_position_left() <= up_to)
			eq_set_sequence(EQ_EVENT_POSITION, up_to, true);
		eq_raise_job_ids(up_to >> EQ_GENERATION_BITS);
	}
	SpinLockAcquire(&of->mutex);
	of->next = Max(of->next, up_to + 1);
	SpinLockRelease(&of->mutex);
	eq_unlock_key(EQ_LOCK_POSITIONS, 0);
	PG_RETURN_VOID();
}
