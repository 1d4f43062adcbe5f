/*
 * try.c: calls a function in a subtransaction, so that its error does not abort the
 * transaction.
 */
#include "postgres.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "utils/memutils.h"
#include "utils/resowner.h"
#include "utils/timeout.h"

#include "common/try.h"

static ErrorData *
call(void (*function)(void *), void *argument, bool keep)
{
	MemoryContext context = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	ErrorData *volatile error = NULL;

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(context);
	PG_TRY();
	{
		function(argument);
		if (keep)
			ReleaseCurrentSubTransaction();
		else
			RollbackAndReleaseCurrentSubTransaction();
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
 * Calls a function in a subtransaction.  Returns NULL, or the error for which the
 * subtransaction was rolled back, in the caller's memory context.
 */
ErrorData *
eq_try(void (*function)(void *), void *argument)
{
	return call(function, argument, true);
}

/* The same, but what the function has done is undone, whether or not it failed. */
ErrorData *
eq_try_and_undo(void (*function)(void *), void *argument)
{
	return call(function, argument, false);
}

/*
 * Is the error the transaction's, and no fault of what the call was given: cancelled, a
 * deadlock, a full disk?  Whoever goes on without the call's effect must not do so then.
 */
bool
eq_is_of_transaction(const ErrorData *error)
{
	switch (ERRCODE_TO_CATEGORY(error->sqlerrcode))
	{
		case ERRCODE_INSUFFICIENT_RESOURCES:
			return error->sqlerrcode != ERRCODE_CONFIGURATION_LIMIT_EXCEEDED;
		case ERRCODE_TRANSACTION_ROLLBACK:
		case ERRCODE_OPERATOR_INTERVENTION:
		case ERRCODE_SYSTEM_ERROR:
			return true;
		default:
			return false;
	}
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
