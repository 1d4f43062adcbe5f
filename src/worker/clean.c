/*
 * clean.c: between two pieces of user code a worker's session is as new.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/namespace.h"
#include "commands/async.h"
#include "commands/prepare.h"
#include "commands/sequence.h"
#include "storage/lock.h"
#include "utils/guc.h"
#include "utils/portal.h"
#include "utils/snapmgr.h"

#include "worker/worker.h"

/*
 * Drops all that DISCARD ALL covers but plans: those show nothing to anyone, and
 * without them short jobs take half as long again (measured).  (Role and session authorization can't be
 * changed by user code here: it runs with SECURITY_LOCAL_USERID_CHANGE.)
 */
void
eq_clean_session(void)
{
	StartTransactionCommand();
	PortalHashTableDeleteAll();
	Async_UnlistenAll();
	CommitTransactionCommand();
	ResetAllOptions();
	LockReleaseAll(USER_LOCKMETHOD, true);
	DropAllPreparedStatements();
	ResetSequenceCaches();
	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot()); /* dropping may need one */
	ResetTempTableNamespace();
	PopActiveSnapshot();
	CommitTransactionCommand();
}
