/*
 * index_limit.c: limits how long functions in indexes of users may hold up a worker.
 */
#include "postgres.h"

#include "access/transam.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "nodes/nodeFuncs.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "table/index_limit.h"
#include "table/statement_limit.h"

#define INDEX_LIMIT_MS 2000 /* for the functions in the indexes of one row */

static bool
is_of_users(Oid function, void *context)
{
	return function >= FirstNormalObjectId;
}

static bool
calls_users(Node *node, void *context)
{
	/* A domain may have a CHECK that calls some. */
	return node != NULL && (IsA(node, CoerceToDomain) ||
							check_functions_in_node(node, is_of_users, context) ||
							expression_tree_walker(node, calls_users, context));
}

/* Tells whether entering a row into the index calls functions of users. */
bool
eq_index_calls_users(IndexInfo *index)
{
	return calls_users((Node *) index->ii_Expressions, NULL) ||
		   calls_users((Node *) index->ii_Predicate, NULL);
}

/*
 * Enters a row into indexes of which users_index calls functions of users, in a worker: with
 * the rights of the table's owner, not the worker's, and for a limited time, since others wait
 * for the worker.  A statement_timeout that ends sooner is kept, and its error is the caller's.
 */
void
eq_insert_limited(EqTable *table, TupleTableSlot *row, bool summarizing,
				  Oid users_index)
{
	MemoryContext context = CurrentMemoryContext;
	EqStatementLimit limit;
	Oid user;
	int security;

	GetUserIdAndSecContext(&user, &security);
	SetUserIdAndSecContext(table->rel->rd_rel->relowner,
						   security | SECURITY_RESTRICTED_OPERATION);
	limit = eq_begin_statement_limit(INDEX_LIMIT_MS);
	PG_TRY();
	{
		eq_insert_index_tuples(table->result, row, table->estate, summarizing);
	}
	PG_CATCH();
	{
		/* A handler of the worker's role may catch the error, and go on. */
		eq_end_statement_limit(&limit);
		SetUserIdAndSecContext(user, security);
		if (!limit.is_ours || geterrcode() != ERRCODE_QUERY_CANCELED ||
			GetCurrentTimestamp() < limit.ends_at)
			PG_RE_THROW();
		MemoryContextSwitchTo(context);
		FlushErrorState();
		ereport(
			ERROR,
			(errcode(ERRCODE_EQ_NOT_ENDED),
			 errmsg("a function in an index of table \"%s\" did not end within %d s",
					RelationGetRelationName(table->rel), INDEX_LIMIT_MS / 1000),
			 errdetail("One that calls functions is \"%s\".",
					   get_rel_name(users_index)),
			 errhint("DROP INDEX, or mend its function.")));
	}
	PG_END_TRY();
	eq_end_statement_limit(&limit);
	SetUserIdAndSecContext(user, security);
}
