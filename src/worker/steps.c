/*
 * steps.c: what a worker does in each round is a list of steps.
 *
 * Each has its own transactions, and an error in it is its own: it is logged when it
 * begins and shown by faults(), the step is tried again after a while, and all
 * others go on.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "storage/ipc.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "common/try.h"
#include "worker/worker.h"

#define LONGEST_RETRY_MS 64000 /* of watch/faults.c */

static void
note_failure(const char *worker, EqStep *step)
{
	ErrorData *error;

	/* Not in ErrorContext, which is copied from and reset. */
	MemoryContextSwitchTo(step->context);
	error = eq_abort_transaction();
	step->failures++;
	step->retry_at = eq_note_item(worker, step->name, NULL, error->sqlerrcode,
								  error->message, error->hint);
	FreeErrorData(error);
}

/* Runs a step, or leaves it alone while it backs off. */
void
eq_attempt_step(const char *worker, EqStep *step)
{
	MemoryContext context = CurrentMemoryContext;
	TimestampTz now = GetCurrentTimestamp();

	/* If it is further off, the clock was set back. */
	if (step->retry_at > now &&
		step->retry_at <= now + LONGEST_RETRY_MS * INT64CONST(1000))
		return;
	step->context = context;
	PG_TRY();
	{
		step->run();
		if (step->failures > 0)
			eq_clear_item(worker, step->name, false);
		step->failures = 0;
		step->retry_at = 0;
	}
	PG_CATCH();
	{
		HOLD_INTERRUPTS();
		note_failure(worker, step);
		RESUME_INTERRUPTS();
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
}
