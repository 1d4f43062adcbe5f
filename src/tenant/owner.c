/*
 * owner.c: the owners of rules, handlers and reducers.
 *
 * They are kept by OID.  A rename changes nothing; what was a dropped role's, a
 * role's whose access was taken away, or is now a tenant's own, is out of service
 * until someone else creates or registers it again.
 */
#include "postgres.h"

#include "catalog/namespace.h"
#include "miscadmin.h"
#include "utils/acl.h"

#include "compat.h"
#include "event_queue.h"
#include "tenant/tenant.h"

void
eq_check_owner(Oid owner, const char *what, const char *name)
{
	char *role = GetUserNameFromId(owner, true);
	const char *tenant;

	if (role == NULL)
		ereport(
			ERROR,
			(errcode(ERRCODE_EQ_OWNER_OUT),
			 errmsg("%s \"%s\" is out of service: its owner was dropped", what,
					name),
			 errdetail("It belonged to the role with OID %u.", owner),
			 errhint("Drop it, or have another role create or register it again.")));
	if (eq_schema_aclcheck(get_namespace_oid(EQ_SCHEMA, false), owner, ACL_USAGE) !=
		ACLCHECK_OK)
		ereport(
			ERROR,
			(errcode(ERRCODE_EQ_OWNER_OUT),
			 errmsg("%s \"%s\" is out of service: its owner may no longer use %s",
					what, name, EQ_SCHEMA),
			 errdetail("It belongs to role \"%s\".", role),
			 errhint(
				 "Grant the access again, or have another role create or register it.")));
	tenant = eq_tenant_of_role(owner);
	/* It would see the events and jobs of all tenants. */
	if (tenant[0] != '\0')
		ereport(
			ERROR,
			(errcode(ERRCODE_EQ_OWNER_OUT),
			 errmsg("%s \"%s\" is out of service: its owner is bound to one tenant",
					what, name),
			 errdetail("Role \"%s\" is bound to tenant \"%s\".", role, tenant),
			 errhint(
				 "Have a role that is bound to none create or register it again.")));
}
