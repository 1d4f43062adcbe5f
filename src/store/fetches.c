/*
 * fetches.c: remembers what this session fetched of subscriptions, for ack.
 *
 * Kept by the session, not by the transaction: a member of a group may acknowledge in a
 * later one.  What a rolled back (sub)transaction fetched is not acknowledged by an ack
 * without a position, since its work was rolled back, too.
 */
#include "postgres.h"

#include "lib/ilist.h"
#include "utils/hsearch.h"

#include "store/fetches.h"
#include "store/store.h"

static HTAB *fetched = NULL;
static dlist_head all_fetched = DLIST_STATIC_INIT(all_fetched);

/* The end of a transaction: its fetches are those of an earlier one, or undone. */
static void
end_fetches(bool committed)
{
	dlist_iter iter;

	dlist_foreach(iter, &all_fetched)
	{
		EqFetched *fetch = dlist_container(EqFetched, node, iter.cur);

		if (!committed && fetch->in != InvalidSubTransactionId)
			fetch->unnamed = -1;
		fetch->in = InvalidSubTransactionId;
	}
}

static void
commit_fetches(void)
{
	end_fetches(true);
}

static void
undo_fetches(void)
{
	end_fetches(false);
}

static void
keep_sub_fetches(SubTransactionId sub, SubTransactionId parent)
{
	dlist_iter iter;

	dlist_foreach(iter, &all_fetched)
	{
		EqFetched *fetch = dlist_container(EqFetched, node, iter.cur);

		if (fetch->in == sub)
			fetch->in = parent;
	}
}

static void
undo_sub_fetches(SubTransactionId sub, SubTransactionId parent)
{
	dlist_iter iter;

	dlist_foreach(iter, &all_fetched)
	{
		EqFetched *fetch = dlist_container(EqFetched, node, iter.cur);

		if (fetch->in != sub)
			continue;
		fetch->unnamed = -1;
		fetch->in = InvalidSubTransactionId; /* its locks are gone, too */
	}
}

/* Fetches are kept by the session, beyond transactions, so the log has no entries for them. */
EqXactKind eq_session_fetches = {
	.at_commit = commit_fetches,
	.at_prepare = undo_fetches,
	.at_abort = undo_fetches,
	.at_subcommit = keep_sub_fetches,
	.at_subabort = undo_sub_fetches,
};

/* Finds or enters the session's last fetch of a subscription; NULL if not found. */
EqFetched *
eq_find_fetch(int32 subscription_id, HASHACTION action)
{
	EqFetched *fetch;
	bool found;

	if (fetched == NULL)
	{
		HASHCTL ctl = {.keysize = sizeof(int32), .entrysize = sizeof(EqFetched)};

		fetched = hash_create("event_queue fetched", 16, &ctl,
							  HASH_ELEM | HASH_BLOBS);
	}
	fetch = hash_search(fetched, &subscription_id, action, &found);
	if (action == HASH_ENTER && !found)
		dlist_push_tail(&all_fetched, &fetch->node);
	return fetch;
}

void
eq_forget_fetch(int32 subscription_id)
{
	EqFetched *fetch = eq_find_fetch(subscription_id, HASH_FIND);

	if (fetch == NULL)
		return;
	dlist_delete(&fetch->node);
	(void) hash_search(fetched, &subscription_id, HASH_REMOVE, NULL);
}
