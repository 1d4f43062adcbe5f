/*
 * collation.c: names that are given in another collation are compared as any other.
 *
 * A function in SQL or PL/pgSQL compares its arguments by the collation of the call: with
 * one that ignores case, queue "Mail" would be found as "mail", two queues instead of one,
 * and LIKE would fail.  So all of them have this support function, by which the planner
 * gives the call the collation of the database, as if it had been called with literals.
 */
#include "postgres.h"

#include "catalog/pg_collation.h"
#include "fmgr.h"
#include "nodes/primnodes.h"
#include "nodes/supportnodes.h"

PG_FUNCTION_INFO_V1(eq_call_without_collation);

Datum
eq_call_without_collation(PG_FUNCTION_ARGS)
{
	Node *request = (Node *) PG_GETARG_POINTER(0);
	FuncExpr *call;

	if (!IsA(request, SupportRequestSimplify))
		PG_RETURN_POINTER(NULL);
	call = ((SupportRequestSimplify *) request)->fcall;
	if (!OidIsValid(call->inputcollid) || call->inputcollid == DEFAULT_COLLATION_OID)
		PG_RETURN_POINTER(NULL);
	call = copyObject(call);
	call->inputcollid = DEFAULT_COLLATION_OID;
	PG_RETURN_POINTER(call);
}
