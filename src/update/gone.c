/*
 * gone.c: C functions that older versions of the extension had.
 *
 * SQL of an older version can be created (by CREATE EXTENSION ... VERSION or pg_upgrade)
 * only if the library has a symbol for each of its C functions; ALTER EXTENSION event_queue
 * UPDATE then replaces or drops them.  The Makefile generates the list.
 */
#include "postgres.h"

#include "event_queue.h"
#include "update/version.h"

#define EQ_GONE(funcname)                                                           \
	PG_FUNCTION_INFO_V1(funcname);                                                  \
	Datum funcname(PG_FUNCTION_ARGS)                                                \
	{                                                                               \
		return refuse_gone();                                                       \
	}                                                                               \
	extern int no_such_variable

/* Called in this session before the update, or in a transaction that updates. */
pg_attribute_unused() static Datum refuse_gone(void)
{
	ereport(ERROR,
			(errcode(ERRCODE_EQ_OTHER_VERSION),
			 errmsg("this function is no longer part of event_queue %s", EQ_VERSION),
			 errhint("ALTER EXTENSION event_queue UPDATE")));
}

#include "gone.inc"
