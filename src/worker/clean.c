/*
 * clean.c: resets a worker's session between two pieces of user code.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/namespace.h"
#include "utils/guc.h"
#include "utils/snapmgr.h"

#include "common/leftovers.h"
#include "worker/worker.h"

static bool constraints_set = false;
static bool is_clean = true;

/* Notes a SET CONSTRAINTS, which nothing undoes before the transaction ends. */
void
eq_note_constraints_set(void)
{
	constraints_set = true;
}

bool
eq_constraints_were_set(void)
{
	return constraints_set;
}

/*
 * Drops all that DISCARD ALL covers but plans: those show nothing to anyone, and
 * without them short jobs take half as long again (measured).  (Role and session authorization can't be
 * changed by user code here: it runs with SECURITY_LOCAL_USERID_CHANGE.)
 */
void
eq_clean_session(void)
{
	MemoryContext context = CurrentMemoryContext;

	is_clean = constraints_set = false;
	StartTransactionCommand();
	eq_drop_leftovers();
	CommitTransactionCommand();
	ResetAllOptions();
	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot()); /* dropping may need one */
	ResetTempTableNamespace();
	PopActiveSnapshot();
	CommitTransactionCommand();
	MemoryContextSwitchTo(context); /* the end of a transaction leaves it */
	is_clean = true;
}

/* Was the last reset of the session complete?  Not if it threw. */
bool
eq_session_is_clean(void)
{
	return is_clean;
}
