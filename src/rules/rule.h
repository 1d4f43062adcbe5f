/*
 * rule.h: a rule, as it was read from its row.
 */
#ifndef EQ_RULE_H
#define EQ_RULE_H

#include "access/htup_details.h"
#include "utils/jsonb.h"
#include "utils/timestamp.h"

typedef struct EqRule
{
	int32 rule_id;
	char *name;
	char *label; /* for faults: one of the same name is another one */
	Oid owner;
	char *tenant; /* NULL: all */
	char *pattern;
	char *condition; /* NULL: always */
	int32 queue_id;	 /* 0: calls a function */
	char *job_name;
	Jsonb *payload;
	Interval *delay;
	int priority; /* -1: that of the options */
	char *function;
	int64 start_position;
	Jsonb *options;			/* NULL: none */
	TimestampTz slow_until; /* its firings become jobs: it was slow */
} EqRule;

#define EQ_RULE_COLUMNS                                                              \
	"rule_id, name, owner, tenant_id, event_pattern, condition, queue_id, job_name," \
	" payload, delay, priority, function, start_position, options"

extern void eq_fill_rule(EqRule *rule, HeapTuple row, TupleDesc desc);
extern EqRule *eq_read_rule(int32 rule_id);

#endif /* EQ_RULE_H */
