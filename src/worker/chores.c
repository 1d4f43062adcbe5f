/*
 * chores.c: runs the chores of a background worker, in each round.
 *
 * Each chore has its own transactions, and its errors do not affect the others: an error is
 * logged when it begins and shown by faults(), and the chore is tried again after a while.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "storage/ipc.h"
#include "utils/memutils.h"
#include "utils/timeout.h"
#include "utils/timestamp.h"

#include "common/try.h"
#include "errors.h"
#include "worker/worker.h"

#define LONGEST_RETRY_MS 64000 /* of watch/faults.c */

static void
note_failure(const char *worker, EqChore *chore, TimestampTz began)
{
	ErrorData *error;

	/* Not in ErrorContext, which is copied from and reset. */
	MemoryContextSwitchTo(chore->context);
	disable_timeout(STATEMENT_TIMEOUT, false);
	error = eq_abort_transaction();
	if (chore->limit_ms > 0 && error->sqlerrcode == ERRCODE_QUERY_CANCELED &&
		TimestampDifferenceExceeds(began, GetCurrentTimestamp(), chore->limit_ms))
	{
		error->sqlerrcode = ERRCODE_EQ_NOT_ENDED;
		error->message = psprintf("did not end within %d s", chore->limit_ms / 1000);
		error->hint = pstrdup(
			"Is there a trigger of yours on a table of the extension? DROP TRIGGER, or mend its function.");
	}
	chore->failures++;
	chore->retry_at = eq_note_item(worker, chore->name, NULL, error->sqlerrcode,
								   error->message, error->hint);
	FreeErrorData(error);
}

/* Runs a chore, or leaves it alone while it backs off. */
void
eq_attempt_chore(const char *worker, EqChore *chore)
{
	MemoryContext context = CurrentMemoryContext;
	TimestampTz now = GetCurrentTimestamp();

	/* If it is further off, the clock was set back. */
	if (chore->retry_at > now &&
		chore->retry_at <= now + LONGEST_RETRY_MS * INT64CONST(1000))
		return;
	chore->context = context;
	SetCurrentStatementStartTimestamp(); /* transactions take now() from it */
	PG_TRY();
	{
		if (chore->limit_ms > 0)
			enable_timeout_after(STATEMENT_TIMEOUT, chore->limit_ms);
		chore->run();
		if (chore->limit_ms > 0)
		{
			disable_timeout(STATEMENT_TIMEOUT, false);
			QueryCancelPending = false; /* it is not for the next chore */
		}
		if (chore->failures > 0)
			eq_clear_item(worker, chore->name, false);
		chore->failures = 0;
		chore->retry_at = 0;
	}
	PG_CATCH();
	{
		HOLD_INTERRUPTS();
		note_failure(worker, chore, now);
		RESUME_INTERRUPTS();
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
}
