/*
 * tenant.c: the tenant that a session is confined to.
 *
 * By its role, if the current user, the role that was SET, the session user, or a role that
 * one of them is a member of, is in table tenant_role; else by the setting
 * event_queue.tenant; else by nothing.  Every C path asks here, and the row security
 * policies ask through tenant_visible, so that both sides apply one rule.
 *
 * Bindings are read once and cached until the table changes (its trigger invalidates the
 * relcache entry) or memberships change.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/table.h"
#include "catalog/pg_authid.h"
#include "commands/trigger.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "nodes/pg_list.h"
#include "storage/lmgr.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/inval.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"

#include "compat.h"
#include "event_queue.h"
#include "table/table.h"
#include "tenant/tenant.h"

PG_FUNCTION_INFO_V1(eq_current_tenant);
PG_FUNCTION_INFO_V1(eq_is_unbound);
PG_FUNCTION_INFO_V1(eq_resolve_tenant_sql);
PG_FUNCTION_INFO_V1(eq_tenant_visible);
PG_FUNCTION_INFO_V1(eq_check_name_sql);
PG_FUNCTION_INFO_V1(eq_refuse_bound);
PG_FUNCTION_INFO_V1(eq_require_unbound_sql);

static EqRelationName tenant_role = {"tenant_role"};

#define TENANT_ROLE_ROLE   1
#define TENANT_ROLE_TENANT 2

#define N_ROLES                                                                     \
	3 /* that count: what the session has set, its user, and the present one */

/*
 * The answers for the last few sets of roles; calls that run as the extension's
 * owner ask with another one than their callers.
 */
typedef struct Binding
{
	bool known;
	Oid roles[N_ROLES];
	const char *tenant; /* empty: bound to none; of kept_name */
} Binding;

#define BINDINGS 4

void (*eq_tenant_access_hook)(const char *tenant, int length) = NULL;

static Binding bindings[BINDINGS];
static int next_binding = 0;

static void
forget_bindings(void)
{
	for (int i = 0; i < BINDINGS; i++)
		bindings[i].known = false;
}

static void
forget_binding_rel(Datum arg, Oid relid)
{
	forget_bindings();
}

static void
forget_binding_sys(Datum arg, int cacheid, uint32 hash)
{
	forget_bindings();
}

/*
 * Returns a copy of the name that is never freed, the same for the same name, since callers
 * keep the pointer.  A session has few tenants.
 */
static const char *
kept_name(const char *name)
{
	static List *names = NIL;
	MemoryContext old;
	ListCell *lc;
	char *kept;

	if (name[0] == '\0')
		return "";
	foreach (lc, names)
	{
		if (strcmp(lfirst(lc), name) == 0)
			return lfirst(lc);
	}
	old = MemoryContextSwitchTo(TopMemoryContext);
	kept = pstrdup(name);
	names = lappend(names, kept);
	MemoryContextSwitchTo(old);
	return kept;
}

/* The first of these roles that acts as another, as its members do; N_ROLES if none does. */
static int
find_member(const Oid *roles, Oid member_of)
{
	int i = 0;

	while (i < N_ROLES && !eq_acts_as(roles[i], member_of))
		i++;
	return i;
}

/* The tenant to which one of these roles is bound; EQ047 if they are to two. */
static const char *
find_binding(const Oid *roles)
{
	static bool callbacks_registered = false;
	Binding *binding = NULL;
	Relation rel;
	SysScanDesc scan;
	HeapTuple tuple;
	char found[EQ_MAX_NAME + 1] = "";

	for (int i = 0; i < BINDINGS; i++)
	{
		if (bindings[i].known &&
			memcmp(bindings[i].roles, roles, sizeof(bindings[i].roles)) == 0)
			return bindings[i].tenant;
	}

	if (!callbacks_registered)
	{
		CacheRegisterRelcacheCallback(forget_binding_rel, (Datum) 0);
		CacheRegisterSyscacheCallback(AUTHMEMROLEMEM, forget_binding_sys, (Datum) 0);
		CacheRegisterSyscacheCallback(AUTHOID, forget_binding_sys, (Datum) 0);
		callbacks_registered = true;
	}

	/* Set first: an invalidation that comes while we read must stick. */
	binding = &bindings[next_binding];
	next_binding = (next_binding + 1) % BINDINGS;
	memcpy(binding->roles, roles, sizeof(binding->roles));
	binding->tenant = "";
	binding->known = true;
	PG_TRY();
	{
		int first = N_ROLES; /* of the roles, that is bound */

		rel = table_open(eq_relation_oid(&tenant_role), AccessShareLock);
		/* As in a catalog: a policy asks in a parallel plan, too, where there is no latest. */
		scan = systable_beginscan(rel, InvalidOid, false, NULL, 0, NULL);
		while (HeapTupleIsValid(tuple = systable_getnext(scan)))
		{
			bool isnull;
			Oid member_of = DatumGetObjectId(heap_getattr(
				tuple, TENANT_ROLE_ROLE, RelationGetDescr(rel), &isnull));
			char *tenant = TextDatumGetCString(heap_getattr(
				tuple, TENANT_ROLE_TENANT, RelationGetDescr(rel), &isnull));
			int member = find_member(roles, member_of);

			if (member == N_ROLES)
				continue;
			first = Min(first, member);
			if (found[0] != '\0' && strcmp(found, tenant) != 0)
				ereport(
					ERROR,
					(errcode(ERRCODE_EQ_TWO_TENANTS),
					 errmsg("role \"%s\" is bound to more than one tenant",
							GetUserNameFromId(roles[first], false)),
					 errdetail(
						 "The bindings of the session user, of the role that was SET, of the current user, and of all roles that these are members of count."),
					 errhint("Make it a member of one tenant's role only.")));
			strlcpy(found, tenant, sizeof(found));
		}
		systable_endscan(scan);
		table_close(rel, AccessShareLock);
	}
	PG_CATCH();
	{
		binding->known = false;
		PG_RE_THROW();
	}
	PG_END_TRY();

	return binding->tenant = kept_name(found);
}

const char *
eq_tenant_of_role(Oid role)
{
	Oid roles[N_ROLES] = {role, role, role};

	return find_binding(roles);
}

/*
 * The tenant to which the session is bound; empty if to none.
 *
 * The session's user and the role that it has set count besides the present one:
 * SET ROLE does not leave the tenant, nor does a call of a SECURITY DEFINER
 * function, of which the extension itself has some (grants.sql).
 */
static const char *
bound_tenant(void)
{
	Oid roles[N_ROLES] = {GetOuterUserId(), GetSessionUserId(), GetUserId()};

	return find_binding(roles);
}

/* Is a role of this session bound to a tenant? */
bool
eq_is_bound(void)
{
	return bound_tenant()[0] != '\0';
}

/* Returns the role of the session that is bound, for messages. */
static Oid
bound_role(void)
{
	Oid roles[] = {GetOuterUserId(), GetSessionUserId()};

	for (int i = 0; i < lengthof(roles); i++)
	{
		if (eq_tenant_of_role(roles[i])[0] != '\0')
			return roles[i];
	}
	return GetUserId();
}

/* As eq_is_bound, without waiting: true, too, if the table of bindings is locked. */
bool
eq_may_be_bound(void)
{
	Oid relid = eq_relation_oid(&tenant_role);
	bool is_bound;

	if (!ConditionalLockRelationOid(relid, AccessShareLock))
		return true;
	is_bound = eq_is_bound();
	UnlockRelationOid(relid, AccessShareLock);
	return is_bound;
}

/* For health(), which must not wait: false, too, if the table of bindings is locked. */
Datum
eq_is_unbound(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(!eq_may_be_bound());
}

/* The tenant that the session is confined to, NULL if to none; by_role: by a binding. */
static const char *
confined_tenant(bool *by_role)
{
	const char *tenant = bound_tenant();

	*by_role = tenant[0] != '\0';
	if (!*by_role)
		return eq_tenant[0] == '\0' ? NULL : eq_tenant;
	if (eq_tenant[0] != '\0' && strcmp(eq_tenant, tenant) != 0)
		ereport(
			ERROR,
			(errcode(ERRCODE_EQ_TWO_TENANTS),
			 errmsg("setting event_queue.tenant is not the tenant of role \"%s\"",
					GetUserNameFromId(bound_role(), false)),
			 errhint("Reset the setting: the role is bound to its tenant.")));
	return tenant;
}

const char *
eq_confined_tenant(void)
{
	bool by_role;
	const char *tenant = confined_tenant(&by_role);

	if (!by_role)
		eq_tenant_access_hook(tenant, tenant ? strlen(tenant) : 0);
	return tenant;
}

const char *
eq_resolve_tenant(const char *argument)
{
	bool by_role;
	const char *confined = confined_tenant(&by_role);

	if (argument == NULL)
	{
		if (confined == NULL && eq_require_tenant)
			ereport(ERROR, (errcode(ERRCODE_EQ_TENANT_REQUIRED),
							errmsg("no tenant is given"),
							errhint("Pass tenant_id, or SET event_queue.tenant.")));
		argument = confined ? confined : EQ_DEFAULT_TENANT;
	}
	else if (confined != NULL && strcmp(confined, argument) != 0)
		ereport(
			ERROR,
			(errcode(ERRCODE_EQ_TENANT_MISMATCH),
			 errmsg("this session acts for another tenant"),
			 errdetail("The call names tenant \"%s\".", argument),
			 errhint(
				 "Omit tenant_id: the session acts for the tenant of its role, or of event_queue.tenant.")));
	eq_check_name("tenant", argument, EQ_MAX_NAME);
	if (!by_role)
		eq_tenant_access_hook(argument, strlen(argument));
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
	bool by_role;
	const char *tenant = confined_tenant(&by_role);

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
	bool by_role;
	const char *confined = confined_tenant(&by_role);
	text *tenant;

	if (PG_ARGISNULL(0))
		PG_RETURN_BOOL(confined == NULL);
	tenant = PG_GETARG_TEXT_PP(0);
	if (confined == NULL)
	{
		eq_tenant_access_hook(VARDATA_ANY(tenant), VARSIZE_ANY_EXHDR(tenant));
		PG_RETURN_BOOL(true);
	}
	if (!by_role)
		eq_tenant_access_hook(confined, strlen(confined));
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

/* EQ048 if the session is bound to a tenant. */
void
eq_require_unbound(void)
{
	const char *tenant = bound_tenant();

	if (tenant[0] != '\0')
		ereport(ERROR,
				(errcode(ERRCODE_EQ_SHARED_BY_TENANTS),
				 errmsg("cannot change what all tenants share"),
				 errdetail("This session is bound to tenant \"%s\" by its role.",
						   tenant)));
}

Datum
eq_require_unbound_sql(PG_FUNCTION_ARGS)
{
	eq_require_unbound();
	PG_RETURN_VOID();
}

/* Trigger on what all tenants share. */
Datum
eq_refuse_bound(PG_FUNCTION_ARGS)
{
	if (!CALLED_AS_TRIGGER(fcinfo))
		ereport(ERROR, (errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
						errmsg("refuse_bound: not called by trigger manager")));
	eq_require_unbound();
	PG_RETURN_POINTER(NULL);
}
