/* own_parts.h: for refuse.c: EQ057 for changes of what the extension has made */
#ifndef EQ_OWN_PARTS_H
#define EQ_OWN_PARTS_H

#include "postgres.h"

#include "nodes/nodes.h"

/* The transaction in which a function of ours removes events; of nobody else. */
extern LocalTransactionId eq_guard_open_in;

extern void eq_refuse_change_of_own(Node *stmt, bool restores);

#endif
