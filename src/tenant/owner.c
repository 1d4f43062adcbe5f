/*
 * owner.c: owners of rules, handlers and reducers.
 *
 * Owners are stored by OID, so that a rename changes nothing.  What belongs to a role that
 * was dropped, lost its access or is now bound to a tenant is out of service until another
 * role creates it again.
 */
#include "postgres.h"

#include "catalog/namespace.h"
#include "miscadmin.h"
#include "utils/acl.h"

#include "compat.h"
#include "event_queue.h"
#include "tenant/tenant.h"

/* Why nothing of this owner's may run; NULL if it may. */
const char *
eq_why_owner_is_out(Oid owner)
{
	char *role = GetUserNameFromId(owner, true);

	if (role == NULL)
		return psprintf("its owner, the role with OID %u, was dropped", owner);
	if (eq_schema_aclcheck(get_namespace_oid(EQ_SCHEMA, false), owner, ACL_USAGE) !=
		ACLCHECK_OK)
		return psprintf("its owner, role \"%s\", may no longer use %s", role,
						EQ_SCHEMA);
	/* A bound owner's code would see the events and jobs of all tenants. */
	if (eq_tenant_of_role(owner)[0] != '\0')
		return psprintf("its owner, role \"%s\", is bound to one tenant", role);
	return NULL;
}

/* EQ038 if so. */
void
eq_check_owner(Oid owner, const char *what, const char *name)
{
	const char *why = eq_why_owner_is_out(owner);

	if (why != NULL)
		ereport(
			ERROR,
			(errcode(ERRCODE_EQ_OWNER_OUT),
			 errmsg("%s \"%s\" is out of service", what, name),
			 errdetail_internal("%c%s.", pg_toupper(why[0]), why + 1),
			 errhint(
				 "Give the owner its access again, or have another role create it again.")));
}
