/*
 * members.h: which session has which buckets of a subscription.
 */
#ifndef EQ_MEMBERS_H
#define EQ_MEMBERS_H

#include "event_queue.h"

#define EQ_MAX_BUCKETS 64 /* bits of a member's buckets */

extern int eq_max_members; /* setting event_queue.max_subscription_members */

extern const EqSharedPart eq_members_part;
extern uint64 eq_share_buckets(int32 subscription_id, const char *tenant,
							   int n_buckets);
extern void eq_leave_group(int32 subscription_id);

/* For the scheduler. */
extern void eq_forget_members(void);

#endif /* EQ_MEMBERS_H */
