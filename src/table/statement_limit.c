/*
 * statement_limit.c: limits how long a part of a statement may take.
 *
 * It borrows the session's STATEMENT_TIMEOUT, whose error functions of users know.  A
 * timeout of the session that ends sooner stays as it is; one that ends later is set again
 * afterwards.
 */
#include "postgres.h"

#include "utils/timeout.h"
#include "utils/timestamp.h"

#include "table/statement_limit.h"

/* Returns when the session's STATEMENT_TIMEOUT ends; 0: it has none. */
TimestampTz
eq_statement_timeout_at(void)
{
	return get_timeout_active(STATEMENT_TIMEOUT)
			   ? get_timeout_finish_time(STATEMENT_TIMEOUT)
			   : 0;
}

/* Sets it again, also after an error that ended a limit; 0: none. */
void
eq_set_statement_timeout(TimestampTz at)
{
	disable_timeout(STATEMENT_TIMEOUT, false);
	if (at != 0)
		enable_timeout_at(STATEMENT_TIMEOUT, at);
}

EqStatementLimit
eq_begin_statement_limit(int ms)
{
	EqStatementLimit limit = {
		.ends_at = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), ms),
		.outer = eq_statement_timeout_at()};

	limit.is_ours = limit.outer == 0 || limit.ends_at < limit.outer;
	if (limit.is_ours)
		enable_timeout_at(STATEMENT_TIMEOUT, limit.ends_at);
	return limit;
}

void
eq_end_statement_limit(const EqStatementLimit *limit)
{
	if (limit->is_ours)
		eq_set_statement_timeout(limit->outer);
}
