/*
 * tables.c: names of the queue's relations.
 */
#include "postgres.h"

#include "queue/tables.h"

EqRelationName eq_queue_relations[] = {
	[EQ_QUEUE_QUEUE] = {"queue"},
	[EQ_QUEUE_JOB] = {"job"},
	[EQ_QUEUE_JOB_PKEY] = {"job_pkey"},
	[EQ_QUEUE_JOB_ORDER] = {"job_order"},
	[EQ_QUEUE_JOB_GROUP] = {"job_group"},
	[EQ_QUEUE_JOB_UNIQUE] = {"job_unique_key"},
	[EQ_QUEUE_JOB_ID_SEQ] = {"job_job_id_seq"},
	[EQ_QUEUE_DEAD_LETTER] = {"dead_letter"},
	[EQ_QUEUE_DEAD_LETTER_PKEY] = {"dead_letter_pkey"},
	[EQ_QUEUE_JOB_REVIEW] = {"job_review"},
	[EQ_QUEUE_JOB_REVIEW_SEQ] = {"job_review_review_id_seq"},
	[EQ_QUEUE_JOB_HISTORY] = {"job_history"},
	[EQ_QUEUE_JOB_HISTORY_EARLY] = {"job_history_early"},
	[EQ_QUEUE_JOB_HISTORY_FOREVER] = {"job_history_forever"},
	[EQ_QUEUE_JOB_TRACE] = {"job_trace"},
};
