/*
 * audit.c: writes rows of audit_log, in the transaction that makes the change.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "commands/extension.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/jsonb.h"

#include "common/audit.h"
#include "event_queue.h"
#include "table/table.h"
#include "tenant/tenant.h"

PG_FUNCTION_INFO_V1(eq_acting_role);
PG_FUNCTION_INFO_V1(eq_audit_sql);

#define AUDIT_COLUMNS 10 /* that are given; the statement knows the rest */

/* Set while a rule cancels a job: the rule's own records say so (rules/runs.c). */
bool eq_audit_rests = false;

/* The owner of the handler or rule's function that runs; else the session's role acts. */
Oid eq_audit_role = InvalidOid;

static Datum
role_name(Oid role)
{
	char *name = GetUserNameFromId(role, true);

	return CStringGetTextDatum(name ? name : "");
}

/* The role that acts: whose code a worker runs, or else the one that the session has set. */
static Datum
acting_role(void)
{
	return role_name(OidIsValid(eq_audit_role) ? eq_audit_role : GetOuterUserId());
}

Datum
eq_acting_role(PG_FUNCTION_ARGS)
{
	PG_RETURN_DATUM(acting_role());
}

/*
 * Writes one row of audit_log, with the rights of the extension's owner.  The row names the
 * session's user and the role that the session has SET, and not the current user, which is
 * the owner inside of SECURITY DEFINER functions.  tenant NULL: the tenant that the session is
 * confined to, if any.  Writes nothing while the extension is created or updated.
 */
void
eq_audit(const char *action, const char *object_type, const char *object,
		 const char *tenant, Jsonb *before, Jsonb *after)
{
	static EqStatement insert = {
		.sql =
			"INSERT INTO event_queue.audit_log (action, object_type, object, tenant_id,"
			" session_role, role, actor, application_name, before, after, client_addr, pid)"
			" SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9, $10,"
			" pg_catalog.host(pg_catalog.inet_client_addr()), pg_catalog.pg_backend_pid()",
		.n_arguments = AUDIT_COLUMNS,
		.types = {TEXTOID, TEXTOID, TEXTOID, TEXTOID, TEXTOID, TEXTOID, TEXTOID,
				  TEXTOID, JSONBOID, JSONBOID}};
	Datum values[AUDIT_COLUMNS];
	char nulls[AUDIT_COLUMNS];

	if (creating_extension || eq_audit_rests)
		return;
	if (tenant == NULL)
		tenant = eq_confined_tenant();
	memset(nulls, ' ', sizeof(nulls));
	memset(values, 0, sizeof(values));
	values[0] = CStringGetTextDatum(action);
	values[1] = CStringGetTextDatum(object_type);
	values[2] = CStringGetTextDatum(object ? object : "");
	if (tenant)
		values[3] = CStringGetTextDatum(tenant);
	else
		nulls[3] = 'n';
	values[4] = role_name(GetSessionUserId());
	values[5] = acting_role();
	if (eq_actor && eq_actor[0] != '\0')
		values[6] = CStringGetTextDatum(eq_actor);
	else
		nulls[6] = 'n';
	values[7] = CStringGetTextDatum(application_name ? application_name : "");
	if (before)
		values[8] = JsonbPGetDatum(before);
	else
		nulls[8] = 'n';
	if (after)
		values[9] = JsonbPGetDatum(after);
	else
		nulls[9] = 'n';
	eq_run_as_owner(&insert, values, nulls);
}

static char *
text_argument(FunctionCallInfo fcinfo, int n)
{
	return PG_ARGISNULL(n) ? NULL : text_to_cstring(PG_GETARG_TEXT_PP(n));
}

Datum
eq_audit_sql(PG_FUNCTION_ARGS)
{
	if (PG_ARGISNULL(0) || PG_ARGISNULL(1))
		ereport(ERROR, (errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
						errmsg("action and object_type must not be null")));
	eq_audit(text_argument(fcinfo, 0), text_argument(fcinfo, 1),
			 text_argument(fcinfo, 2), text_argument(fcinfo, 3),
			 PG_ARGISNULL(4) ? NULL : PG_GETARG_JSONB_P(4),
			 PG_ARGISNULL(5) ? NULL : PG_GETARG_JSONB_P(5));
	PG_RETURN_VOID();
}
