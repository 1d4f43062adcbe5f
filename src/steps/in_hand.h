/*
 * in_hand.h: a leased job and one of its steps; for the files of this room only.
 */
#ifndef EQ_STEPS_IN_HAND_H
#define EQ_STEPS_IN_HAND_H

#include "fmgr.h"
#include "utils/jsonb.h"

#include "queue/lease.h"
#include "steps/tables.h"

/* A wait without a timeout ends after this time. */
#define EQ_NEVER_US (INT64CONST(36525) * USECS_PER_DAY)

/* The options of a job that undoes a step; its tenant is that of the step's job. */
#define EQ_IN_UNDO                                                                  \
	(EQ_OPTION_BIT(EQ_OPTION_QUEUE) |                                               \
	 (EQ_IN_JOB &                                                                   \
	  ~(EQ_OPTION_BIT(EQ_OPTION_TENANT_ID) | EQ_OPTION_BIT(EQ_OPTION_DEPENDS_ON))))

/* Whose step is meant: the first arguments of each function of this room. */
typedef struct EqStepCall
{
	int64 job_id;
	pg_uuid_t token;
	int next;		  /* argument after those of the job */
	const char *name; /* of the step */
	const char *key;  /* of a signal; else "" */
} EqStepCall;

/* The job, its steps, and the row of this one. */
typedef struct EqStepInHand
{
	EqLeased leased;
	EqTable steps;
	TupleTableSlot *row; /* empty: there is none */
} EqStepInHand;

extern void eq_read_step_call(FunctionCallInfo fcinfo, int n_after,
							  EqStepCall *call);
extern void eq_open_step(EqStepInHand *hand, const EqStepCall *call);
extern void eq_lock_step(EqStepInHand *hand, const EqStepCall *call);
extern void eq_close_step(EqStepInHand *hand);
extern EqStepState eq_step_state(const EqStepInHand *hand);
extern bool eq_step_stands(const EqStepInHand *hand);
extern void eq_check_step(const EqStepInHand *hand, const EqStepCall *call,
						  EqStepKind kind);

/* The columns of a step that is begun, or goes on; the caller sets the rest. */
typedef struct EqStepEdit
{
	Datum values[STEP_COLUMNS];
	bool nulls[STEP_COLUMNS];
} EqStepEdit;

extern void eq_edit_step(const EqStepInHand *hand, const EqStepCall *call,
						 EqStepKind kind, EqStepState state, EqStepEdit *edit);
extern void eq_write_step(EqStepInHand *hand, const EqStepCall *call,
						  EqStepEdit *edit, TimestampTz until);
extern Jsonb *eq_pass_step(EqStepInHand *hand, const EqStepCall *call);

static inline void
eq_step_set(EqStepEdit *edit, int column, Datum value)
{
	edit->values[column - 1] = value;
	edit->nulls[column - 1] = false;
}

#endif /* EQ_STEPS_IN_HAND_H */
