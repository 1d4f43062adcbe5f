/*
 * index_limit.h: how long functions in indexes of users may hold up a worker.
 */
#ifndef EQ_INDEX_LIMIT_H
#define EQ_INDEX_LIMIT_H

#include "nodes/execnodes.h"
#include "table/table.h"

extern bool eq_index_calls_users(IndexInfo *index);
extern void eq_insert_limited(EqTable *table, TupleTableSlot *row, bool summarizing,
							  Oid users_index);

#endif /* EQ_INDEX_LIMIT_H */
