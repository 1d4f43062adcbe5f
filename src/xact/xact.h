/*
 * xact.h: the log of what a transaction did, and the actions at its end.
 *
 * A kind of entry (EqXactKind) is a static variable of the file that writes the entries: it
 * has their array and the functions to call.  order.c lists all kinds; their order there is
 * the order of the actions.
 *
 * Entries of one kind are in one array, in the order in which they were made.  An entry
 * begins with the SubTransactionId of its subtransaction, unless the kind is of the top
 * transaction only.  So the array is a stack: a subtransaction's entries are at its end,
 * where its commit gives them to its parent and its abort undoes them.
 */
#ifndef EQ_XACT_H
#define EQ_XACT_H

#include "access/xact.h"

typedef struct EqXactKind
{
	Size entry_size; /* 0: the kind has no entries, only functions */
	bool top_only;	 /* a subtransaction's entries stay if it is rolled back */

	/* Before the end is decided: these may throw. */
	void (*before_commit)(void);
	void (*before_prepare)(void);

	/*
	 * At the end, with the commit visible to others: none may throw or allocate.  An
	 * assertion-enabled build calls these in a critical section, so that whatever does
	 * stops the server.  The entries are forgotten after the call.
	 */
	void (*at_commit)(void);
	void (*at_prepare)(void);
	void (*at_abort)(void);

	/* Undoes the entries from this one on: of a transaction (before at_abort) or of a
	 * subtransaction (before at_subabort).  Called only if there are any. */
	void (*undo)(int first);
	void (*at_subcommit)(SubTransactionId subid, SubTransactionId parent);
	void (*at_subabort)(SubTransactionId subid, SubTransactionId parent);

	/* Adds a committed subtransaction's entry to one of its parent's, if they are
	 * about the same; so the log stays short.  NULL: no two entries ever are. */
	bool (*absorb)(void *parents, const void *childs);

	/* The log itself; only xact.c and the functions below write these. */
	int n;
	int room;
	char *entries;
} EqXactKind;

/* An entry of the kind, by its number. */
#define EQ_XACT_ENTRY(kind, type, i) (&((type *) (kind).entries)[i])

extern void eq_xact_grow(EqXactKind *kind, int more);

/* Makes room for so many more entries, so that adding them can't throw. */
static inline void
eq_xact_prepare(EqXactKind *kind, int more)
{
	if (unlikely(kind->n + more > kind->room))
		eq_xact_grow(kind, more);
}

/* Adds an entry of this subtransaction; the caller sets all but its subid. */
static inline void *
eq_xact_add(EqXactKind *kind)
{
	char *entry;

	eq_xact_prepare(kind, 1);
	entry = kind->entries + kind->entry_size * kind->n++;
	if (!kind->top_only)
		*(SubTransactionId *) entry = GetCurrentSubTransactionId();
	return entry;
}

/* Removes the newest entry. */
static inline void
eq_xact_pop(EqXactKind *kind)
{
	Assert(kind->n > 0);
	kind->n--;
}

extern void eq_register_xact_callbacks(void);

/* order.c */
extern EqXactKind *const eq_xact_kinds[];
extern const int eq_n_xact_kinds;

#endif /* EQ_XACT_H */
