/*
 * list.c: the lists in which a transaction notes what is to be done at its end.
 *
 * They live in TopMemoryContext, since callbacks read them when the transaction's own
 * memory is gone; and they grow before something is noted, since callbacks can't.
 */
#include "postgres.h"

#include "utils/memutils.h"

#include "wake/wake.h"

/* Room for so many entries in all. */
void
eq_grow_list(void **list, int *room, int needed, Size entry)
{
	int more = Max(*room * 2, Max(needed, 16));

	if (needed <= *room)
		return;
	*list = *list ? repalloc_huge(*list, more * entry)
				  : MemoryContextAllocHuge(TopMemoryContext, more * entry);
	*room = more;
}
