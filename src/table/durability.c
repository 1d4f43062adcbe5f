/*
 * durability.c: decides which commits need not wait for the disk.
 *
 * A lease lost in a crash only means that the job is claimed again; the same holds for
 * settling jobs of queues that are not durable.  So a transaction that wrote nothing else
 * commits asynchronously: it had no transaction id before the first such write, and no
 * other WAL record of this backend lies between or after them.  Any other record (even of
 * a page pruned by a SELECT) makes it an ordinary commit.
 */
#include "postgres.h"

#include "access/xact.h"
#include "access/xlog.h"

#include "table/table.h"

static bool had_weak_writes = false;
static bool only_weak_writes = false;
static XLogRecPtr last_weak_record;
static int saved_synchronous_commit = -1;
static bool is_open = false; /* between begin and end; these don't nest */

void
eq_weak_writes_begin(void)
{
	Assert(!is_open);
	is_open = true;
	if (!had_weak_writes)
		only_weak_writes = !TransactionIdIsValid(GetTopTransactionIdIfAny());
	else if (ProcLastRecPtr != last_weak_record)
		only_weak_writes = false;
	had_weak_writes = true;
	last_weak_record = ProcLastRecPtr;
}

void
eq_weak_writes_end(void)
{
	Assert(is_open);
	is_open = false;
	last_weak_record = ProcLastRecPtr;
}

/* What PostgreSQL still does between this and the commit record (temporary tables, large
 * objects) writes no record that somebody waits for. */
static void
relax_commit(void)
{
	if (had_weak_writes && only_weak_writes && ProcLastRecPtr == last_weak_record &&
		synchronous_commit > SYNCHRONOUS_COMMIT_OFF)
	{
		saved_synchronous_commit = synchronous_commit;
		synchronous_commit = SYNCHRONOUS_COMMIT_OFF;
	}
}

static void
restore_commit(void)
{
	if (saved_synchronous_commit >= 0)
		synchronous_commit = saved_synchronous_commit;
	saved_synchronous_commit = -1;
	had_weak_writes = false;
	is_open = false;
}

/* After an error between begin and end, what was written is none of the weak. */
static void
close_at_subabort(SubTransactionId subid, SubTransactionId parent)
{
	is_open = false;
}

EqXactKind eq_weak_writes = {
	.before_commit = relax_commit,
	.at_commit = restore_commit,
	.at_prepare = restore_commit,
	.at_abort = restore_commit,
	.at_subabort = close_at_subabort,
};
