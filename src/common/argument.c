/*
 * argument.c: checks arguments that functions of several rooms take.
 */
#include "postgres.h"

#include "fmgr.h"
#include "utils/builtins.h"

#include "common/argument.h"
#include "event_queue.h"
#include "tenant/tenant.h"

PG_FUNCTION_INFO_V1(eq_check_payload_sql);

/* EQ005 if the payload is larger than event_queue.max_payload. */
void
eq_check_payload(const char *what, Jsonb *payload)
{
	Size size = VARSIZE(payload);

	if (size > (Size) eq_max_payload_kb * 1024)
		ereport(ERROR,
				(errcode(ERRCODE_EQ_PAYLOAD_TOO_LARGE),
				 errmsg("%s is too large", what),
				 errdetail("It has %zu bytes, event_queue.max_payload allows %zu.",
						   size, (Size) eq_max_payload_kb * 1024),
				 errhint("Store large documents elsewhere and refer to them.")));
}

/* Reads a name; EQ006 unless it is valid. */
char *
eq_name_argument(FunctionCallInfo fcinfo, int argno, const char *what)
{
	char *value = PG_ARGISNULL(argno) ? NULL
									  : text_to_cstring(PG_GETARG_TEXT_PP(argno));

	eq_check_name(what, value, EQ_MAX_NAME);
	return value;
}

/* Reads the tenant that a call acts for. */
const char *
eq_tenant_argument(FunctionCallInfo fcinfo, int argno)
{
	return eq_resolve_tenant(
		PG_ARGISNULL(argno) ? NULL : text_to_cstring(PG_GETARG_TEXT_PP(argno)));
}

/* Reads an SQLSTATE; NULL if there is none, EQ009 unless it has the form of one. */
const char *
eq_sqlstate_argument(FunctionCallInfo fcinfo, int argno)
{
	char *state;

	if (PG_ARGISNULL(argno))
		return NULL;
	state = text_to_cstring(PG_GETARG_TEXT_PP(argno));
	if (strlen(state) != 5 ||
		strspn(state, "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ") != 5)
		ereport(ERROR,
				(errcode(ERRCODE_EQ_INVALID_ARGUMENT),
				 errmsg("sqlstate must be five digits or capital letters"),
				 errhint("Leave it out for errors that have none, and say what else"
						 " is known in message or context.")));
	return state;
}

/* Compares a text of a row, which may be compressed, byte by byte. */
bool
eq_text_is(Datum value, const char *wanted)
{
	text *t = DatumGetTextPP(value);

	return VARSIZE_ANY_EXHDR(t) == strlen(wanted) &&
		   memcmp(VARDATA_ANY(t), wanted, strlen(wanted)) == 0;
}

Datum
eq_check_payload_sql(PG_FUNCTION_ARGS)
{
	eq_check_payload("payload", PG_GETARG_JSONB_P(0));
	PG_RETURN_VOID();
}
