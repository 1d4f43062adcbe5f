/*
 * argument.h: checks arguments that functions of several rooms take.
 */
#ifndef EQ_ARGUMENT_H
#define EQ_ARGUMENT_H

#include "fmgr.h"
#include "utils/jsonb.h"

extern void eq_check_payload(const char *what, Jsonb *payload);
extern char *eq_name_argument(FunctionCallInfo fcinfo, int argno, const char *what);
extern const char *eq_tenant_argument(FunctionCallInfo fcinfo, int argno);
extern const char *eq_sqlstate_argument(FunctionCallInfo fcinfo, int argno);
extern bool eq_text_is(Datum value, const char *wanted);

#endif /* EQ_ARGUMENT_H */
