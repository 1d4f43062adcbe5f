/*
 * handlers.h: which function does a job.
 */
#ifndef EQ_HANDLERS_H
#define EQ_HANDLERS_H

typedef struct EqHandler
{
	int32 queue_id;
	char *job_name; /* "*": all others of the queue */
	Oid owner;		/* InvalidOid: one of own_queues */
	char *function;
	int time_limit_ms;
	uint32 work; /* hash of the first two */
	char *label; /* queue/job, for faults */
} EqHandler;

/* As eq_read_handlers has read them; those of one queue stand together. */
extern EqHandler *eq_handlers;
extern int eq_n_handlers;

extern bool eq_read_handlers(void);
extern void eq_forget_handlers(void);
extern const EqHandler *eq_find_handler(int32 queue_id, const char *job_name);

#endif /* EQ_HANDLERS_H */
