/*
 * leftovers.c: drops what user code leaves in a worker's session, while the transaction
 * goes on: what runs next there may be another role's.
 *
 * What can only be dropped between two transactions (settings made by plain SET, temporary
 * tables) is dropped by worker/clean.c; conditions and templates of rules can't leave it.
 */
#include "postgres.h"

#include "commands/async.h"
#include "commands/prepare.h"
#include "commands/sequence.h"
#include "common/pg_prng.h"
#include "fmgr.h"
#include "libpq/be-fsstubs.h"
#include "storage/lock.h"
#include "utils/fmgrprotos.h"
#include "utils/portal.h"

#include "common/dblink.h"
#include "common/leftovers.h"

/* Seeds random() anew: a role that called setseed() would know what others draw. */
static void
forget_seed(void)
{
	(void) DirectFunctionCall1(
		setseed, Float8GetDatum(pg_prng_double(&pg_global_prng_state)));
}

/* Drops leftovers of user code.  Called after each job, and after each rule for each event: cheap if there are none. */
void
eq_drop_leftovers(void)
{
	PortalHashTableDeleteAll();
	AtEOXact_LargeObject(true); /* their descriptors */
	Async_UnlistenAll();
	LockReleaseSession(USER_LOCKMETHOD);
	DropAllPreparedStatements();
	ResetSequenceCaches();
	forget_seed();
	eq_close_dblink();
}
