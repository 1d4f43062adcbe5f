/*
 * try.c: steps whose errors are not the transaction's.
 */
#include "postgres.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "utils/memutils.h"
#include "utils/resowner.h"
#include "utils/timeout.h"

#include "common/try.h"

/*
 * Runs a step in a subtransaction.  Returns NULL, or the error for which the
 * subtransaction was rolled back, in the caller's memory context.
 */
ErrorData *
eq_try(void (*step)(void *), void *argument)
{
	MemoryContext context = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	ErrorData *volatile error = NULL;

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(context);
	PG_TRY();
	{
		step(argument);
		ReleaseCurrentSubTransaction();
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
	CurrentResourceOwner = owner;
	return error;
}

/*
 * Aborts the transaction after an error that a worker caught, with all that may
 * still interrupt it.  Returns the error, in the current memory context, which must
 * outlive the transaction and not be ErrorContext.
 */
ErrorData *
eq_abort_transaction(void)
{
	MemoryContext context = CurrentMemoryContext;
	ErrorData *error;

	HOLD_INTERRUPTS();
	disable_all_timeouts(false);
	QueryCancelPending = false;
	error = CopyErrorData();
	FlushErrorState();
	AbortCurrentTransaction();
	MemoryContextSwitchTo(context);
	RESUME_INTERRUPTS();
	return error;
}
