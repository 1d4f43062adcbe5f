/*
 * access.c: logs for which tenants unbound sessions act (event_queue.log_tenant_access).
 *
 * Called by the hook of tenant.c, which decides what a session sees.  Writes one line for
 * each tenant, or "*" for all of them, per session and role, and again after an hour.  To
 * the log and not to audit_log: a session that only reads must leave a trace too, also on a
 * standby, and also if its transaction is rolled back.  A tenant counts if a policy is
 * checked for a row of it, even if the query then filters that row out.  The tables' owner
 * and superusers bypass row security, and are not seen here.
 */
#include "postgres.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "common/access.h"
#include "common/log_line.h"
#include "event_queue.h"

#define MAX_SAID 1000 /* entries of one session; when full, the list is emptied */

typedef struct Access
{
	Oid role;
	Oid session_role;
	char tenant[EQ_MAX_NAME + 1];
} Access;

typedef struct Said
{
	Access access; /* hash key */
	TimestampTz at;
} Said;

bool eq_log_tenant_access = false;

static HTAB *said = NULL;

static void
say(const Access *access)
{
	StringInfoData line;

	eq_log_begin(&line, "tenant");
	eq_log_text(&line, "tenant", access->tenant);
	eq_log_text(&line, "role", GetUserNameFromId(access->role, true));
	eq_log_text(&line, "session_role",
				GetUserNameFromId(access->session_role, true));
	if (eq_actor && eq_actor[0] != '\0')
		eq_log_text(&line, "actor", eq_actor);
	ereport(LOG_SERVER_ONLY, (errmsg_internal("%s", line.data), errhidestmt(true),
							  errhidecontext(true)));
	pfree(line.data);
}

/*
 * Logs that this session, which no role binds to a tenant, acts for this one (NULL: for
 * all).  Background workers are not logged.
 */
void
eq_note_tenant_access(const char *tenant, int length)
{
	static Said *last = NULL;
	TimestampTz now = GetCurrentStatementStartTimestamp();
	Access access;
	bool found;

	if (!eq_log_tenant_access || MyBackendType == B_BG_WORKER)
		return;
	if (tenant == NULL)
	{
		tenant = "*";
		length = 1;
	}
	memset(&access, 0, sizeof(access));
	access.role = GetOuterUserId();
	access.session_role = GetSessionUserId();
	memcpy(access.tenant, tenant, Min(length, EQ_MAX_NAME));
	/* Rows of one tenant come together. */
	if (last && memcmp(&last->access, &access, sizeof(access)) == 0 &&
		now - last->at < USECS_PER_HOUR)
		return;
	if (said && hash_get_num_entries(said) >= MAX_SAID)
	{
		last = NULL;
		hash_destroy(said);
		said = NULL;
	}
	if (said == NULL)
	{
		HASHCTL ctl = {.keysize = sizeof(Access),
					   .entrysize = sizeof(Said),
					   .hcxt = TopMemoryContext};

		said = hash_create("event_queue tenant access", 16, &ctl,
						   HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	}
	last = hash_search(said, &access, HASH_ENTER, &found);
	if (found && now - last->at < USECS_PER_HOUR)
		return;
	last->at = now;
	say(&access);
}
