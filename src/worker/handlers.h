/*
 * handlers.h: reads which handler runs a job.
 */
#ifndef EQ_HANDLERS_H
#define EQ_HANDLERS_H

typedef struct EqHandler
{
	int32 queue_id;
	char *job_name; /* "*": all others of the queue */
	Oid owner;		/* InvalidOid: one of own_queues */
	char *function;
	int32 version; /* of create_handler */
	int time_limit_ms;
	int batch;			/* it takes an array of up to so many jobs; 0: one job */
	int most_executors; /* may run it at the same time; 0: all */
	uint32 work;		/* hash of the first two */
	char *label;		/* queue/job, for faults */
	int64 mean_us;		/* of its last calls by this process; 0: none yet */
	int claimed;		/* so many of its jobs, by the claim under way */
} EqHandler;

/*
 * As eq_read_handlers has read them; those of one queue stand together, those with
 * most_executors behind the others.
 */
extern EqHandler *eq_handlers;
extern int eq_n_handlers;

extern bool eq_read_handlers(void);
extern void eq_forget_handlers(void);
extern EqHandler *eq_find_handler(int32 queue_id, const char *job_name);

#endif /* EQ_HANDLERS_H */
