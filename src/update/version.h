/*
 * version.h: functions of another version's SQL are not called.
 *
 * Included after fmgr.h by way of event_queue.h; so PG_FUNCTION_INFO_V1 below is the one
 * that the sources use.
 */
#ifndef EQ_VERSION_H
#define EQ_VERSION_H

#include "fmgr.h"

extern bool eq_sql_is_current(char **version);
extern void eq_require_current_sql(void);
extern bool eq_update_is_due(void);

/*
 * The server asks for a C function's record before it calls the function for the first
 * time in a session, and again after CREATE OR REPLACE FUNCTION.  Then we look whether
 * the extension is of the library's version: SQL of another one may pass arguments that
 * the function does not expect.  It costs a session one look into pg_extension.
 */
#define EQ_FUNCTION_INFO(funcname, check)                                           \
	extern PGDLLEXPORT Datum funcname(PG_FUNCTION_ARGS);                            \
	extern PGDLLEXPORT const Pg_finfo_record *CppConcat(pg_finfo_, funcname)(void); \
	const Pg_finfo_record *CppConcat(pg_finfo_, funcname)(void)                     \
	{                                                                               \
		static const Pg_finfo_record my_finfo = {1};                                \
                                                                                    \
		check;                                                                      \
		return &my_finfo;                                                           \
	}                                                                               \
	extern int no_such_variable

/* For a function without arguments that any version may call. */
#define EQ_FUNCTION_OF_ALL_VERSIONS(funcname) EQ_FUNCTION_INFO(funcname, (void) 0)

#undef PG_FUNCTION_INFO_V1
#define PG_FUNCTION_INFO_V1(funcname)                                               \
	EQ_FUNCTION_INFO(funcname, eq_require_current_sql())

#endif /* EQ_VERSION_H */
