/*
 * tenant.c: the tenant that a session is confined to.
 *
 * By its role, if the current user, the session user, or a role that one of them is a
 * member of, stands in the table
 * tenant_role; else by the setting event_queue.tenant; else by nothing.  Every
 * C path asks here, and the row security policies ask through tenant_visible,
 * so that both sides apply one rule.
 *
 * The bindings are read once and kept until someone changes the table (its
 * trigger invalidates the relcache entry) or memberships change.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/table.h"
#include "catalog/pg_authid.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/inval.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"

#include "event_queue.h"
#include "table/table.h"
#include "tenant/tenant.h"

PG_FUNCTION_INFO_V1(eq_current_tenant);
PG_FUNCTION_INFO_V1(eq_resolve_tenant_sql);
PG_FUNCTION_INFO_V1(eq_tenant_visible);
PG_FUNCTION_INFO_V1(eq_check_name_sql);

#define TENANT_ROLE_ROLE   1
#define TENANT_ROLE_TENANT 2

/* The answer for one role; valid while known. */
static struct
{
	bool known;
	Oid role;
	Oid session;
	char tenant[EQ_MAX_NAME + 1]; /* empty: bound to none */
} bound;

static void
forget_binding_rel(Datum arg, Oid relid)
{
	bound.known = false;
}

static void
forget_binding_sys(Datum arg, int cacheid, uint32 hash)
{
	bound.known = false;
}

/* The tenant to which the current role is bound; empty if to none. */
static const char *
bound_tenant(void)
{
	static bool callbacks_registered = false;
	Oid role = GetUserId();
	Oid session = GetSessionUserId(); /* SET ROLE does not leave the tenant */
	Relation rel;
	SysScanDesc scan;
	HeapTuple tuple;
	char found[EQ_MAX_NAME + 1] = "";

	if (bound.known && bound.role == role && bound.session == session)
		return bound.tenant;

	if (!callbacks_registered)
	{
		CacheRegisterRelcacheCallback(forget_binding_rel, (Datum) 0);
		CacheRegisterSyscacheCallback(AUTHMEMROLEMEM, forget_binding_sys, (Datum) 0);
		CacheRegisterSyscacheCallback(AUTHOID, forget_binding_sys, (Datum) 0);
		callbacks_registered = true;
	}

	/* Set first: an invalidation that comes while we read must stick. */
	bound.known = true;
	rel = table_open(eq_relation_oid(EQ_TENANT_ROLE), AccessShareLock);
	/* As in a catalog: a policy asks in a parallel plan, too, where there is no latest. */
	scan = systable_beginscan(rel, InvalidOid, false, NULL, 0, NULL);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		bool isnull;
		Oid member_of = DatumGetObjectId(
			heap_getattr(tuple, TENANT_ROLE_ROLE, RelationGetDescr(rel), &isnull));
		char *tenant = TextDatumGetCString(
			heap_getattr(tuple, TENANT_ROLE_TENANT, RelationGetDescr(rel), &isnull));

		if (!is_member_of_role_nosuper(role, member_of) &&
			!is_member_of_role_nosuper(session, member_of))
			continue;
		if (found[0] != '\0' && strcmp(found, tenant) != 0)
			ereport(ERROR, (errcode(ERRCODE_EQ_TENANT_MISMATCH),
							errmsg("role \"%s\" is bound to more than one tenant",
								   GetUserNameFromId(role, false)),
							errhint("Make it a member of one tenant's role only.")));
		strlcpy(found, tenant, sizeof(found));
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);

	bound.role = role;
	bound.session = session;
	strlcpy(bound.tenant, found, sizeof(bound.tenant));
	return bound.tenant;
}

const char *
eq_confined_tenant(void)
{
	const char *tenant = bound_tenant();

	if (tenant[0] == '\0')
		return eq_tenant[0] == '\0' ? NULL : eq_tenant;
	if (eq_tenant[0] != '\0' && strcmp(eq_tenant, tenant) != 0)
		ereport(
			ERROR,
			(errcode(ERRCODE_EQ_TENANT_MISMATCH),
			 errmsg("setting event_queue.tenant is not the tenant of role \"%s\"",
					GetUserNameFromId(GetUserId(), false)),
			 errhint("Reset the setting: the role is bound to its tenant.")));
	return tenant;
}

const char *
eq_resolve_tenant(const char *argument)
{
	const char *confined = eq_confined_tenant();

	if (argument == NULL)
	{
		if (confined == NULL && eq_require_tenant)
			ereport(ERROR, (errcode(ERRCODE_EQ_TENANT_REQUIRED),
							errmsg("no tenant is given"),
							errhint("Pass tenant_id, or SET event_queue.tenant.")));
		argument = confined ? confined : EQ_DEFAULT_TENANT;
	}
	else if (confined != NULL && strcmp(confined, argument) != 0)
		ereport(ERROR, (errcode(ERRCODE_EQ_TENANT_MISMATCH),
						errmsg("this session acts for another tenant"),
						errdetail("The call names tenant \"%s\".", argument)));
	eq_check_name("tenant", argument, EQ_MAX_NAME);
	return argument;
}

void
eq_check_name(const char *what, const char *value, int max_bytes)
{
	size_t length;

	if (value == NULL || value[0] == '\0')
		ereport(ERROR, (errcode(ERRCODE_EQ_INVALID_NAME),
						errmsg("%s must not be empty", what)));
	length = strlen(value);
	if (length > max_bytes)
		ereport(ERROR,
				(errcode(ERRCODE_EQ_INVALID_NAME), errmsg("%s is too long", what),
				 errdetail("It has %zu bytes, %d are allowed.", length, max_bytes)));
	for (const char *p = value; *p; p++)
	{
		if ((unsigned char) *p < ' ' || *p == 0x7f)
			ereport(ERROR, (errcode(ERRCODE_EQ_INVALID_NAME),
							errmsg("%s must not contain control characters", what)));
	}
	if (value[0] == ' ' || value[length - 1] == ' ')
		ereport(ERROR, (errcode(ERRCODE_EQ_INVALID_NAME),
						errmsg("%s must not begin or end with a blank", what)));
}

Datum
eq_current_tenant(PG_FUNCTION_ARGS)
{
	const char *tenant = eq_confined_tenant();

	if (tenant == NULL)
		PG_RETURN_NULL();
	PG_RETURN_TEXT_P(cstring_to_text(tenant));
}

Datum
eq_resolve_tenant_sql(PG_FUNCTION_ARGS)
{
	char *argument = PG_ARGISNULL(0) ? NULL : text_to_cstring(PG_GETARG_TEXT_PP(0));

	PG_RETURN_TEXT_P(cstring_to_text(eq_resolve_tenant(argument)));
}

Datum
eq_tenant_visible(PG_FUNCTION_ARGS)
{
	const char *confined = eq_confined_tenant();
	text *tenant;

	if (confined == NULL)
		PG_RETURN_BOOL(true);
	if (PG_ARGISNULL(0))
		PG_RETURN_BOOL(false);
	tenant = PG_GETARG_TEXT_PP(0);
	PG_RETURN_BOOL(VARSIZE_ANY_EXHDR(tenant) == strlen(confined) &&
				   memcmp(VARDATA_ANY(tenant), confined, strlen(confined)) == 0);
}

Datum
eq_check_name_sql(PG_FUNCTION_ARGS)
{
	char *what = PG_ARGISNULL(0) ? "name" : text_to_cstring(PG_GETARG_TEXT_PP(0));
	char *value = PG_ARGISNULL(1) ? NULL : text_to_cstring(PG_GETARG_TEXT_PP(1));

	eq_check_name(what, value, PG_ARGISNULL(2) ? EQ_MAX_NAME : PG_GETARG_INT32(2));
	PG_RETURN_DATUM(PG_GETARG_DATUM(1));
}
