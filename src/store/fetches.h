/*
 * fetches.h: what this session fetched of subscriptions.
 */
#ifndef EQ_FETCHES_H
#define EQ_FETCHES_H

#include "lib/ilist.h"
#include "utils/hsearch.h"

#include "store/members.h"

/* What this session fetched last of each subscription. */
typedef struct EqFetched
{
	int32 id; /* hash key */
	uint64 buckets;
	int64 up_to;

	/*
	 * What ack without a position acknowledges; -1: nothing.  Forgotten when the
	 * subtransaction that fetched is rolled back, since its work was, too.
	 */
	int64 unnamed;
	SubTransactionId in; /* invalid: fetched in an earlier transaction */
	dlist_node node;	 /* in all_fetched */

	int32 resets[EQ_MAX_BUCKETS]; /* how often the buckets had been reset then */
} EqFetched;

extern EqFetched *eq_find_fetch(int32 subscription_id, HASHACTION action);
extern void eq_forget_fetch(int32 subscription_id);

#endif
