/*
 * exit.c: limits how long the last transaction of an exiting process waits.
 *
 * During exit PostgreSQL holds interrupts: neither its timeouts nor signals cancel a
 * statement.  Without a limit, a wait for a lock could not be ended by anyone; if a
 * prepared transaction held that lock, a fast shutdown would not end either.
 */
#include "postgres.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "utils/snapmgr.h"
#include "utils/timeout.h"

#include "common/exit.h"

#define EXIT_LIMIT_MS 5000

static TimeoutId exit_timeout = MAX_TIMEOUTS;

static void
exit_takes_long(void)
{
	InterruptPending = true;
	QueryCancelPending = true;
}

/*
 * In a callback at exit: what follows fails if it takes longer than the limit, which
 * ends this callback and begins the next one.  Each call begins the time anew.
 */
void
eq_limit_exit(void)
{
	if (exit_timeout == MAX_TIMEOUTS)
		exit_timeout = RegisterTimeout(USER_TIMEOUT, exit_takes_long);
	QueryCancelPending = false;
	InterruptHoldoffCount = 0;
	QueryCancelHoldoffCount = 0; /* held while a client is read from */
	enable_timeout_after(STATEMENT_TIMEOUT, EXIT_LIMIT_MS); /* what the error says */
	enable_timeout_after(exit_timeout, EXIT_LIMIT_MS + 10);
}

/* The callback is at its end: interrupts are held again. */
void
eq_end_exit_limit(void)
{
	disable_timeout(STATEMENT_TIMEOUT, false);
	disable_timeout(exit_timeout, false);
	QueryCancelPending = false;
	InterruptHoldoffCount = 1;
}

/*
 * Begins the last transaction of an exiting process, as RemoveTempRelationsCallback does
 * it, within the limit.  An error in it ends the process, which exits anyway.
 */
void
eq_begin_exit_transaction(void)
{
	AbortOutOfAnyTransaction();
	eq_limit_exit();
	StartTransactionCommand();
	/* Overrides default_transaction_read_only and default_transaction_isolation. */
	XactReadOnly = false;
	XactIsoLevel = XACT_READ_COMMITTED;
	PushActiveSnapshot(GetTransactionSnapshot());
}

void
eq_commit_exit_transaction(void)
{
	PopActiveSnapshot();
	CommitTransactionCommand();
	eq_end_exit_limit();
}
