/*
 * wake.h: records which processes to wake and what to count; both take effect at commit.
 */
#ifndef EQ_WAKE_H
#define EQ_WAKE_H

#include "event_queue.h"
#include "port/atomics.h"
#include "wake/database.h"
#include "wake/slot.h"
#include "xact/xact.h"

/* During a transaction (may throw). */
extern void eq_wake_queue(int32 queue_id);
extern void eq_wake_queue_for(int32 queue_id, int64 n);
extern void eq_wake_reviews(void);
extern void eq_wake_waits(void);
extern void eq_wake_cancels(void);
extern bool eq_wrote_plain_sql(void);
extern void eq_count(int32 queue_id, EqCounter counter, int64 n);
extern void eq_count_written(int32 queue_id, int64 jobs, int64 dead_letters);
extern void eq_note_config_changed(void);
extern void eq_notify_in_transaction(const char *queue_name);

extern void eq_note_extension_dropped(void);

/* At its end (order.c). */
extern EqXactKind eq_wakes;
extern EqXactKind eq_pinned_slots; /* slot.c */

/* Takes effect at once, and never throws. */
extern void eq_wake_rules(void);

extern bool eq_config_has_changed(uint32 *generation);

/* Around COMMIT PREPARED, which calls none of the above. */
extern void eq_before_commit_prepared(void);
extern void eq_after_commit_prepared(void);

/* sleepers.c: what each session sleeps for */
typedef struct EqSleeper
{
	pg_atomic_uint32 queue;	 /* in claim_wait: the number of its slot + 1 */
	pg_atomic_uint32 events; /* in wait_for_events */
	pg_atomic_uint32 job;	 /* in await_job */
} EqSleeper;

extern const EqSharedPart eq_sleepers_part;

extern EqSleeper *eq_sleeper(void);
extern void eq_wake_waiters(EqWakeSlot *slot, int64 n);
extern void eq_wake_awaiting(EqDatabase *db);
extern void eq_wake_readers(EqDatabase *db);

/* client_sleep.c: for sessions whose client waits */
extern void eq_sleep(long ms);

/* For workers. */
extern void eq_wake_scheduler(EqDatabase *db);
extern void eq_wake_rule_runner(EqDatabase *db);

/* The NOTIFY channel of a queue, in a buffer of NAMEDATALEN. */

#endif /* EQ_WAKE_H */
