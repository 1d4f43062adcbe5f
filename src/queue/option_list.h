/*
 * option_list.h: the list of options of a job; for the files of options only.
 */
#ifndef EQ_OPTION_LIST_H
#define EQ_OPTION_LIST_H

#include "queue/queue.h"

/* What JSON an option takes, and what its setter is given. */
typedef enum EqOptionType
{
	OPTION_TEXT,	 /* a string or a number; char * */
	OPTION_JSON,	 /* anything; Jsonb * */
	OPTION_OBJECT,	 /* Jsonb * */
	OPTION_LIST,	 /* JsonbContainer * */
	OPTION_INTEGER,	 /* int32 */
	OPTION_NUMBER,	 /* float8 */
	OPTION_INTERVAL, /* Interval * */
	OPTION_TIME,	 /* TimestampTz */
	OPTION_INTERVALS,
	OPTION_JOB_IDS
} EqOptionType;

typedef struct EqOption
{
	const char *name;
	EqOptionType type;
	void (*set)(EqNewJob *job, Datum value);
	bool template; /* a rule may take it from the event, by a JSON path */
} EqOption;

extern const EqOption eq_job_options[];

#endif
