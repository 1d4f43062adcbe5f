/*
 * audit.h: writes rows of audit_log.
 */
#ifndef EQ_AUDIT_H
#define EQ_AUDIT_H

#include "utils/jsonb.h"

extern bool eq_audit_rests;
extern Oid eq_audit_role;
extern void eq_audit(const char *action, const char *object_type, const char *object,
					 const char *tenant, Jsonb *before, Jsonb *after);

#endif /* EQ_AUDIT_H */
