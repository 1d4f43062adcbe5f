/*
 * xact.c: calls the actions at the end of transactions and subtransactions.
 *
 * The log is in TopMemoryContext, since these callbacks read it when the transaction's own
 * memory is gone; it grows before an entry is written, since callbacks can't allocate.  It
 * is kept across transactions, so that an entry costs no more than writing it.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/memutils.h"

#include "xact/xact.h"

/* Bytes of each kind's entries that stay allocated for the next transaction. */
#define KEEP_ALLOCATED (1024 * 1024)

/* With assertions, makes an error in functions that must not throw stop the server. */
#ifdef USE_ASSERT_CHECKING
#define BEGIN_NO_THROW() START_CRIT_SECTION()
#define END_NO_THROW()	 END_CRIT_SECTION()
#else
#define BEGIN_NO_THROW() ((void) 0)
#define END_NO_THROW()	 ((void) 0)
#endif

/* Allocates room for so many more entries. */
void
eq_xact_grow(EqXactKind *kind, int more)
{
	int room = Max(kind->room * 2, Max(kind->n + more, 16));

	Assert(kind->entry_size > 0);
	kind->entries = kind->entries
						? repalloc_huge(kind->entries, room * kind->entry_size)
						: MemoryContextAllocHuge(TopMemoryContext,
												 room * kind->entry_size);
	kind->room = room;
}

static SubTransactionId *
subid_of(const EqXactKind *kind, int i)
{
	return (SubTransactionId *) (kind->entries + kind->entry_size * i);
}

/* Returns the first of a subtransaction's entries, which are the newest. */
static int
first_of(const EqXactKind *kind, SubTransactionId subid)
{
	int first = kind->n;

	if (kind->top_only)
		return first;
	while (first > 0 && *subid_of(kind, first - 1) == subid)
		first--;
	return first;
}

/* Empties the log; a log that one transaction made long is freed. */
static void
forget(EqXactKind *kind)
{
	kind->n = 0;
	if (unlikely(kind->room * kind->entry_size > KEEP_ALLOCATED))
	{
		pfree(kind->entries);
		kind->entries = NULL;
		kind->room = 0;
	}
}

static void
xact_callback(XactEvent event, void *arg)
{
	for (int i = 0; i < eq_n_xact_kinds; i++)
	{
		EqXactKind *kind = eq_xact_kinds[i];
		void (*at_end)(void) = NULL;

		switch (event)
		{
			case XACT_EVENT_PRE_COMMIT:
				if (kind->before_commit)
					kind->before_commit();
				continue;
			case XACT_EVENT_PRE_PREPARE:
				if (kind->before_prepare)
					kind->before_prepare();
				continue;
			case XACT_EVENT_COMMIT:
			case XACT_EVENT_PARALLEL_COMMIT:
				at_end = kind->at_commit;
				break;
			case XACT_EVENT_PREPARE:
				at_end = kind->at_prepare;
				break;
			case XACT_EVENT_ABORT:
			case XACT_EVENT_PARALLEL_ABORT:
				at_end = kind->at_abort;
				break;
			default:
				continue;
		}

		BEGIN_NO_THROW();
		if (kind->n > 0 && kind->undo &&
			(event == XACT_EVENT_ABORT || event == XACT_EVENT_PARALLEL_ABORT))
			kind->undo(0);
		if (at_end)
			at_end();
		END_NO_THROW();
		forget(kind);
	}
}

/* The parent takes the entries over, by entries of its own where it has such. */
static void
keep_entries(EqXactKind *kind, SubTransactionId subid, SubTransactionId parent)
{
	int first = first_of(kind, subid);
	int first_of_parent = first;
	int kept = first;

	while (kind->absorb && first_of_parent > 0 &&
		   *subid_of(kind, first_of_parent - 1) == parent)
		first_of_parent--;
	for (int i = first; i < kind->n; i++)
	{
		bool absorbed = false;

		for (int j = first_of_parent; j < first && !absorbed; j++)
			absorbed = kind->absorb(subid_of(kind, j), subid_of(kind, i));
		if (absorbed)
			continue;
		*subid_of(kind, i) = parent;
		if (kept != i)
			memcpy(subid_of(kind, kept), subid_of(kind, i), kind->entry_size);
		kept++;
	}
	kind->n = kept;
}

static void
undo_entries(EqXactKind *kind, SubTransactionId subid)
{
	int first = first_of(kind, subid);

	if (first == kind->n)
		return;
	if (kind->undo)
		kind->undo(first);
	kind->n = first;
}

static void
subxact_callback(SubXactEvent event, SubTransactionId subid, SubTransactionId parent,
				 void *arg)
{
	if (event != SUBXACT_EVENT_COMMIT_SUB && event != SUBXACT_EVENT_ABORT_SUB)
		return;
	BEGIN_NO_THROW();
	for (int i = 0; i < eq_n_xact_kinds; i++)
	{
		EqXactKind *kind = eq_xact_kinds[i];

		if (event == SUBXACT_EVENT_COMMIT_SUB)
		{
			keep_entries(kind, subid, parent);
			if (kind->at_subcommit)
				kind->at_subcommit(subid, parent);
		}
		else
		{
			undo_entries(kind, subid);
			if (kind->at_subabort)
				kind->at_subabort(subid, parent);
		}
	}
	END_NO_THROW();
}

/* Called once, when the library is loaded. */
void
eq_register_xact_callbacks(void)
{
	RegisterXactCallback(xact_callback, NULL);
	RegisterSubXactCallback(subxact_callback, NULL);
}
