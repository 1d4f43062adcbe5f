/*
 * rule.h: a rule, as it was read from its row.
 */
#ifndef EQ_RULE_H
#define EQ_RULE_H

#include "access/htup_details.h"
#include "lib/stringinfo.h"
#include "executor/spi.h"
#include "utils/jsonb.h"
#include "utils/timestamp.h"

typedef enum EqActionKind
{
	EQ_ACTION_ENQUEUE,
	EQ_ACTION_CALL,
	EQ_ACTION_APPEND,
	EQ_ACTION_NOTIFY,
	EQ_ACTION_CANCEL
} EqActionKind;

/* One of a rule's list of actions; its arguments are in the rule's payload template. */
typedef struct EqAction
{
	EqActionKind kind;
	char *target;	  /* queue, function or channel */
	bool has_payload; /* else it is the whole event */
} EqAction;

typedef struct EqRule
{
	int32 rule_id;
	int32 version;
	char *name;
	char *label; /* for faults: one of the same name is another one */
	Oid owner;
	char *tenant; /* NULL: all */
	char *pattern;
	char *condition; /* NULL: always */
	int32 queue_id;	 /* 0: calls a function, or has a list of actions */
	char *job_name;
	Jsonb *payload;
	Interval *delay;
	int priority; /* -1: that of the options */
	char *function;
	int64 start_position;
	Jsonb *options;	   /* NULL: none */
	EqAction *actions; /* the list */
	int n_actions;	   /* 0: there is no list */
	bool stop;		   /* if it fires, later rules do not meet the event */
	char **changing;   /* fields of when_changed */
	int n_changing;	   /* 0: it does not matter */
	SPIPlanPtr *plan;  /* where its query's plan is kept; NULL: nowhere */
	bool may_repeat;   /* also if it has led to the event */
	bool behind;	   /* it catches up: the others' events are not for it yet */
	int64 caught_up;   /* to this position */
	int64 own_start;   /* start_position, which is out of reach meanwhile */
	TimestampTz slow_until; /* its firings become jobs: it was slow */

	/* Of the present batch (counts.c); the error lives as long as its transaction. */
	int64 seen;
	int64 matched;
	int64 failed;
	int64 suppressed;
	int64 too_deep;
	char *error;
} EqRule;

#define EQ_RULE_COLUMNS                                                              \
	"rule_id, name, owner, tenant_id, event_pattern, condition, queue_id, job_name," \
	" payload, delay, priority, function, start_position, options,"                  \
	" on_loop = 'allow', when_changed, version, actions, stop"

extern void eq_fill_rule(EqRule *rule, HeapTuple row, TupleDesc desc);
extern EqRule *eq_read_rule(int32 rule_id);

/* engine.c */
extern Datum eq_read_event(int64 position);
extern char *eq_event_text(Datum event, int column);
extern int64 eq_event_position(Datum event);

/* action.c */
extern void eq_fill_actions(EqRule *rule, Jsonb *actions);
extern void eq_act(const EqRule *rule, Datum event, Jsonb *payload, Jsonb *options);
extern void eq_enqueue_rule_call(const EqRule *rule, Datum event, bool evaluate);
extern const char *eq_function_of_call(const EqRule *rule, int64 action,
									   const char *named);

/* condition.c: what of a rule runs as its owner, without writing and within a time */
extern void eq_run_guarded(const EqRule *rule, const char *query, int n_arguments,
						   Oid *types, Datum *values, const char *nulls,
						   SPIPlanPtr *kept, void (*take)(void *), void *argument);
extern Jsonb *eq_query_rule(const EqRule *rule, Datum event, Jsonb **options);
extern bool eq_is_one_expression(const char *condition);

/* changed.c: when_changed */
extern void eq_fill_when_changed(EqRule *rule, Datum fields);
extern bool eq_field_changed(Datum event, const char *field, Jsonb **now,
							 Jsonb **before);
extern bool eq_any_changed(const EqRule *rule, Datum event);

/* chain.c: the rules that led to an event */
#define EQ_RULE_CHAIN "rule_chain" /* in metadata */

typedef enum EqChainVerdict
{
	EQ_CHAIN_FREE,
	EQ_CHAIN_LOOP,	  /* the rule is in the chain */
	EQ_CHAIN_TOO_DEEP /* longer than event_queue.rule_depth */
} EqChainVerdict;

extern EqChainVerdict eq_judge_chain(const EqRule *rule, Jsonb *metadata);
extern void eq_append_chain(StringInfo json, Jsonb *metadata, int32 rule_id);

/* counts.c */
typedef enum EqRuleOutcome
{
	EQ_RULE_MATCHED,
	EQ_RULE_FAILED,
	EQ_RULE_SUPPRESSED,
	EQ_RULE_TOO_DEEP
} EqRuleOutcome;

extern void eq_forget_rule_counts(void);
extern void eq_write_rule_counts(EqRule *rules, int n_rules);
extern void eq_count_rule_call(int32 rule_id, EqRuleOutcome outcome,
							   const char *error);

#endif /* EQ_RULE_H */
