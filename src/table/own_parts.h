/* own_parts.h: for refuse.c: EQ057 for changes of what the extension has made */
#ifndef EQ_OWN_PARTS_H
#define EQ_OWN_PARTS_H

#include "postgres.h"

#include "nodes/nodes.h"

extern void eq_refuse_change_of_own(Node *stmt, bool restores);

#endif
