/*
 * tables.c: names of the relations of steps.
 */
#include "postgres.h"

#include "steps/tables.h"

EqRelationName eq_step_relations[] = {
	{"job_step"},
	{"job_step_pkey"},
	{"job_step_step_id_seq"},
};
