/*
 * log_line.h: writes log lines for programs: a tag and key=value.
 */
#ifndef EQ_LOG_LINE_H
#define EQ_LOG_LINE_H

#include "datatype/timestamp.h"
#include "lib/stringinfo.h"
#include "utils/jsonb.h"

/* event_queue.log_attempts */
typedef enum EqLogAttempts
{
	EQ_LOG_OFF,
	EQ_LOG_FAILURES,
	EQ_LOG_ALL
} EqLogAttempts;

extern int eq_log_attempts;

/* One run of a job. */
typedef struct EqAttempt
{
	const char *queue;
	const char *name;
	int64 job_id;
	const char *tenant;
	const char *worker;
	int attempt;
	const char *outcome;
	int64 us;
	const char *sqlstate; /* NULL: none */
	const char *message;  /* NULL: none */
	const Jsonb *metadata;
} EqAttempt;

extern void eq_log_begin(StringInfo line, const char *tag);
extern void eq_log_text(StringInfo line, const char *key, const char *value);
extern void eq_log_int64(StringInfo line, const char *key, int64 value);
extern void eq_log_ms(StringInfo line, const char *key, int64 us);
extern void eq_log_attempt(const EqAttempt *attempt);

#endif /* EQ_LOG_LINE_H */
