/*
 * statement_limit.h: how long a part of a statement may take.
 */
#ifndef EQ_STATEMENT_LIMIT_H
#define EQ_STATEMENT_LIMIT_H

#include "datatype/timestamp.h"

typedef struct EqStatementLimit
{
	TimestampTz ends_at;
	TimestampTz outer; /* when the session's own timeout ends; 0: it has none */
	bool is_ours;	   /* the limit ends before that */
} EqStatementLimit;

extern TimestampTz eq_statement_timeout_at(void);
extern void eq_set_statement_timeout(TimestampTz at);
extern EqStatementLimit eq_begin_statement_limit(int ms);
extern void eq_end_statement_limit(const EqStatementLimit *limit);

#endif /* EQ_STATEMENT_LIMIT_H */
