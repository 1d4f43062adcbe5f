/*
 * function.h: finds and calls users' functions.
 */
#ifndef EQ_FUNCTION_H
#define EQ_FUNCTION_H

#include "utils/jsonb.h"

typedef enum EqFunctionKind
{
	EQ_FUNCTION_OF_EVENT, /* of a rule or a replay */
	EQ_FUNCTION_HANDLER,
	EQ_FUNCTION_ARRAY_HANDLER,
	EQ_FUNCTION_REDUCER
} EqFunctionKind;

extern Oid eq_find_function(const char *name, EqFunctionKind kind, char **qualified);
extern Jsonb *eq_call_function(const char *function, Oid argument_type,
							   Datum argument);
extern Oid eq_require_callable(const char *kind, const char *label, Oid owner,
							   const char *function, Oid argument_type);
extern void eq_require_owner(const char *kind, const char *label, Oid owner);
extern const char *eq_refused_call(const char **kind);
extern char *eq_stored_name(const char *schema, const char *name);
extern const char *eq_function_schema(const char *function);
extern Oid eq_event_type_oid(void);
extern Oid eq_claimed_job_type_oid(void);

#endif /* EQ_FUNCTION_H */
