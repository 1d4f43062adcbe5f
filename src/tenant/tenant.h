/*
 * tenant.h: the tenant of a session, and checks of names.
 */
#ifndef EQ_TENANT_H
#define EQ_TENANT_H

#include "postgres.h"

/* The tenant that the session is confined to, or NULL; palloc'd or static. */
extern bool eq_is_bound(void);
extern bool eq_may_be_bound(void);
extern const char *eq_confined_tenant(void);

/*
 * Told for which tenant a session acts that is bound to none; NULL: for all.  Common's
 * access.c, which is a room above.
 */
extern void (*eq_tenant_access_hook)(const char *tenant, int length);

/* The tenant that a call acts for; argument may be NULL. */
extern const char *eq_resolve_tenant(const char *argument);

/*
 * The tenant that a role is bound to, by itself or as a member of another; empty
 * if to none.
 */
extern const char *eq_tenant_of_role(Oid role);

/* May the code of a rule, handler or reducer run as its owner? (owner.c) */
extern void eq_require_unbound(void);
extern const char *eq_why_owner_is_out(Oid owner);
extern void eq_check_owner(Oid owner, const char *what, const char *name);

/* EQ006 unless the value is a good name. */
extern void eq_check_name(const char *what, const char *value, int max_bytes);

#endif /* EQ_TENANT_H */
