/*
 * wake.h: marks that a transaction collects and that take effect at commit:
 * who is to be woken, and what is to be counted.
 */
#ifndef EQ_WAKE_H
#define EQ_WAKE_H

#include "event_queue.h"
#include "xact/xact.h"

/* During a transaction (may throw). */
extern void eq_wake_queue(int32 queue_id);
extern void eq_wake_queue_for(int32 queue_id, int64 n);
extern void eq_wake_reviews(void);
extern void eq_wake_cancels(void);
extern bool eq_wrote_plain_sql(void);
extern void eq_count(int32 queue_id, EqCounter counter, int64 n);
extern void eq_count_written(int32 queue_id, int64 jobs, int64 dead_letters);
extern void eq_note_config_changed(void);
extern void eq_notify_in_transaction(const char *queue_name);

extern void eq_note_extension_dropped(void);

/* slot.c: what shared memory keeps of queues and channels */
extern EqWakeSlot *eq_wake_slot(int32 id);
extern EqWakeSlot *eq_find_wake_slot(int32 id);
extern int eq_idle_slots(int32 **ids);
extern void eq_give_back_slot(int32 id);
extern void eq_give_back_idle_slot(int32 id);
extern void eq_give_back_all_slots(Oid dboid);
extern bool eq_has_fair_share_of_slots(void);
extern bool eq_is_fair_share(int64 has, int64 wants, int64 free, int times);
extern Size eq_slots_size(void);
extern void eq_init_slots(char *memory);

/* At its end (order.c). */
extern EqXactKind eq_wakes;
extern EqXactKind eq_pinned_slots; /* slot.c */

/* Take effect at once, and never throw. */
extern void eq_wake_rules(void);
extern void eq_wake_waiters(EqWakeSlot *slot, int64 n);

/* client_sleep.c: for sessions whose client waits */
extern void eq_sleep(long ms);

/* For workers. */
extern void eq_wake_scheduler(EqDatabase *db);
extern bool eq_take_pending(int32 id, EqWakeSlot **place);
extern void eq_wake_rule_runner(EqDatabase *db);

/* The NOTIFY channel of a queue, in a buffer of NAMEDATALEN. */
extern void eq_queue_channel(const char *queue_name, char *channel);

#endif /* EQ_WAKE_H */
