/*
 * action_list.h: the list of a rule's actions; for action.c and action_list.c.
 */
#ifndef EQ_ACTION_LIST_H
#define EQ_ACTION_LIST_H

#include "queue/queue.h"
#include "rules/rule.h"

/* What may be said of a job; the tenant is the event's. */
#define EQ_IN_ACTION                                                                \
	(EQ_IN_OPTIONS | EQ_OPTION_BIT(EQ_OPTION_QUEUE) |                               \
	 EQ_OPTION_BIT(EQ_OPTION_NAME) | EQ_OPTION_BIT(EQ_OPTION_PAYLOAD))
#define EQ_IN_CALL                                                                  \
	(EQ_OPTION_BIT(EQ_OPTION_DELAY) | EQ_OPTION_BIT(EQ_OPTION_PRIORITY) |           \
	 EQ_OPTION_BIT(EQ_OPTION_CALENDAR))

extern void eq_tell_action(void *argument);
extern EqActionKind eq_split_action(JsonbContainer *actions, int i,
									Jsonb **arguments);
extern bool eq_take_delay_from(Jsonb **arguments);

#endif
