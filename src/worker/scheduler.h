/*
 * scheduler.h: the parts of the scheduler.
 */
#ifndef EQ_SCHEDULER_H
#define EQ_SCHEDULER_H

#include "worker/worker.h"

#define EQ_RESTART_MS 1000 /* before a worker that ended is started again */
#define EQ_CYCLE_US	  2000 /* cycles under load are so far apart */

/* cycle.c */
extern TimestampTz eq_run_cycle(void);
extern void eq_sample_last_metrics(int code, Datum arg);

/* queues.c */
extern bool eq_read_queues(void);
extern void eq_forget_queues(void);
extern void eq_look_at_queues(bool all, bool sweep);
extern void eq_send_notifications(void);
extern TimestampTz eq_next_due_of_queues(TimestampTz limit);
extern int64 eq_sweep_interval(void);

/* children.c */
extern void eq_keep_workers_running(void);
extern TimestampTz eq_send_stand_in(void);
extern void eq_note_work_waits(void);
extern bool eq_start_keeper(void);
extern void eq_forget_starts(void);

#endif /* EQ_SCHEDULER_H */
