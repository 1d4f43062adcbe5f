/*
 * steps.h: ends the steps of a job (end.c); for src/queue.
 */
#ifndef EQ_STEPS_H
#define EQ_STEPS_H

#include "postgres.h"

#include "utils/jsonb.h"

extern Jsonb *eq_steps_to_keep(int64 job_id);
extern void eq_forget_steps(int64 job_id);
extern void eq_undo_steps(int64 job_id, Jsonb *metadata, bool keep);

#endif /* EQ_STEPS_H */
