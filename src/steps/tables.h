/*
 * tables.h: the table of steps.
 */
#ifndef EQ_STEPS_TABLES_H
#define EQ_STEPS_TABLES_H

#include "table/table.h"

/* Columns, in the order of the CREATE TABLE in steps.sql; from 1. */
enum
{
	STEP_ID = 1,
	STEP_JOB,
	STEP_RUN,
	STEP_UNTIL,
	STEP_AT,
	STEP_AFTER_POSITION,
	STEP_KIND,
	STEP_STATE,
	STEP_FRESH,
	STEP_RESUME,
	STEP_TENANT,
	STEP_NAME,
	STEP_KEY,
	STEP_PATTERN,
	STEP_AGGREGATE_TYPE,
	STEP_AGGREGATE_ID,
	STEP_RESULT,
	STEP_UNDO,
	STEP_HANDLER,
	STEP_COLUMNS = STEP_HANDLER
};

/* STEP_KIND */
typedef enum EqStepKind
{
	EQ_STEP_WORK = 0,
	EQ_STEP_SLEEP = 1,
	EQ_STEP_SIGNAL = 2,
	EQ_STEP_EVENT = 3
} EqStepKind;

/* STEP_STATE; waiting -> done or timed out; done -> undone or not undone */
typedef enum EqStepState
{
	EQ_STEP_DONE = 0,
	EQ_STEP_WAITING = 1,
	EQ_STEP_TIMED_OUT = 2,
	EQ_STEP_UNDONE = 3,
	EQ_STEP_NOT_UNDONE = 4
} EqStepState;

/* Relations, for eq_relation_oid. */
extern EqRelationName eq_step_relations[];

#define EQ_JOB_STEP		 (&eq_step_relations[0])
#define EQ_JOB_STEP_PKEY (&eq_step_relations[1])
#define EQ_JOB_STEP_SEQ	 (&eq_step_relations[2])

#endif /* EQ_STEPS_TABLES_H */
