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
#include "utils/tuplestore.h"

#define EQ_FIRST_REST_MS                                                            \
	(10 * 1000) /* at first, for a rule whose condition did not end */

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
	bool on_table;	   /* it meets what its triggers append (on_table.c) */
	char **operations; /* of on_change */
	int n_operations;  /* 0: all */
	SPIPlanPtr *plan;  /* where its query's plan is kept; NULL: nowhere */
	bool may_repeat;   /* also if it has led to the event */
	bool behind;	   /* it catches up: the others' events are not for it yet */
	int64 caught_up;   /* to this position */
	int64 own_start;   /* start_position, which is out of reach meanwhile */
	TimestampTz slow_until; /* its firings become jobs: it was slow */

	/* Counts of the present batch (counts.c); the error is in memory of its transaction. */
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
	" on_loop = 'allow', when_changed, version, actions, stop,"                      \
	" on_table IS NOT NULL, on_change"

extern void eq_fill_rule(EqRule *rule, HeapTuple row, TupleDesc desc);
extern EqRule *eq_read_rule(int32 rule_id);
extern EqRule *eq_rule_of_row(HeapTupleHeader row);
extern int64 eq_mark_of_rules(void);
extern bool eq_rule_meets(const EqRule *rule, Datum event);

extern Datum eq_read_event(int64 position); /* call.c */

/* types.c */
extern void eq_forget_rule_types(void);
extern const int *eq_rules_of_type(const EqRule *rules, int n_rules,
								   const char *name, int *n_found);

/* engine.c */
extern char *eq_event_text(Datum event, int column);
extern int64 eq_event_position(Datum event);

extern Jsonb *eq_event_metadata_of(Datum event);
extern int eq_rule_rests(const EqRule *rule);
extern Jsonb *eq_evaluate_rule(const EqRule *rule, Datum event, Jsonb **options);

/* How long the rule runner, or an executor that retries a rule, waits for the lock of a key or aggregate. */
#define EQ_KEY_WAIT_MS 50

/* Events that a rule that catches up meets at once: more than come meanwhile. */
#define EQ_CATCH_UP_BATCH (4 * eq_rule_batch)

/* A timer of the event's tenant: what its job has. */
typedef struct EqTimer
{
	int32 queue_id;
	const char *key;
} EqTimer;

/* action_list.c */
extern void eq_fill_actions(EqRule *rule, Jsonb *actions);
/* action.c */
extern void eq_act(const EqRule *rule, Datum event, Jsonb *payload, Jsonb *options,
				   bool late);
extern void eq_enqueue_rule_call(const EqRule *rule, Datum event, bool evaluate);
extern void eq_enqueue_start(const EqRule *rule, Datum event, const EqTimer *timer);
extern void eq_start_timer(const EqRule *rule, Datum event, Jsonb *payload,
						   Jsonb *options, const EqTimer *timer);

/* condition.c: what of a rule runs as its owner, without writing and within a time */
extern void eq_run_guarded(const EqRule *rule, const char *query, int n_arguments,
						   Oid *types, Datum *values, const char *nulls,
						   SPIPlanPtr *kept, void (*take)(void *), void *argument);
extern Jsonb *eq_query_rule(const EqRule *rule, Datum event, Jsonb **options);
extern const char *eq_event_source(bool on_table);
extern bool eq_is_one_expression(const char *condition);

/* changed.c: when_changed */
extern char **eq_read_names(Datum list, int *n);
extern bool eq_asks_for_operation(const EqRule *rule, Datum event);
extern bool eq_field_changed(Datum event, const char *field, Jsonb **now,
							 Jsonb **before);
extern bool eq_column_changed(Datum event, const char *column, Jsonb **now,
							  Jsonb **before);
extern bool eq_any_changed(const EqRule *rule, Datum event);

/* chain.c: the rules that led to an event */
#define EQ_RULE_CHAIN "rule_chain" /* in metadata */
#define EQ_RULE_ROOT  "rule_root"  /* the event at the head of the chain */

typedef enum EqChainVerdict
{
	EQ_CHAIN_FREE,
	EQ_CHAIN_LOOP,	  /* the rule is in the chain */
	EQ_CHAIN_TOO_DEEP /* longer than event_queue.rule_depth, or of too many actions */
} EqChainVerdict;

extern EqChainVerdict eq_judge_rule(const EqRule *rule, Datum event); /* engine.c */
extern EqChainVerdict eq_judge_chain(const EqRule *rule, Jsonb *metadata);
extern void eq_append_chain(StringInfo json, Jsonb *metadata, int32 rule_id);

/* fan_out.c: how much one event may lead to */
extern void eq_forget_roots(void);
extern bool eq_fan_out_is_over(Datum event);
extern void eq_count_fan_out(const EqRule *rule, Datum event);
extern void eq_write_roots(void);

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

/* runs.c: for which events rules have fired */
extern void eq_forget_noted_runs(void);
extern void eq_note_run(const EqRule *rule, int64 position, bool fired,
						bool backfilled);
extern void eq_write_runs(void);
extern void eq_settle_run(const EqRule *rule, int64 position, bool fired);

/* backfill.c: columns that are counted, in the order of the table's */
enum
{
	EQ_BACKFILL_SEEN,
	EQ_BACKFILL_FIRED,
	EQ_BACKFILL_FIRED_BEFORE,
	EQ_BACKFILL_NOT_KNOWN,
	EQ_BACKFILL_COUNTS
};

/* A step of one. */
typedef struct EqBackfill
{
	int64 id;
	EqRule *rule;
	int64 position; /* the last event that was met */
	int64 up_to;
	double rate;	  /* firings a second; 0: no limit */
	int64 known_from; /* up to here, nobody knows what has fired */
	int64 limit;	  /* of firings in this step */
	int64 *fired;	  /* positions for which it has, in order */
	uint64 n_fired;
	uint64 next_fired;
	int64 counts[EQ_BACKFILL_COUNTS];
} EqBackfill;

extern void eq_look_for_backfills(void);
extern bool eq_backfill_wants(EqBackfill *backfill, int64 position);
extern bool eq_run_backfills(EqRule *rules, int n_rules, int64 checkpoint,
							 int64 watermark, TimestampTz until, bool *more);

/* engine.c */
extern int eq_meet_events(Tuplestorestate *events, EqRule *only,
						  EqBackfill *backfill, int64 *last);

/* timer.c */
struct EqQueue;
struct EqNewJob;
extern bool eq_timer_has_ended(const struct EqQueue *queue, const char *tenant,
							   const char *key, int64 position);
extern bool eq_rules_end_timers(const struct EqQueue *queue);
extern void eq_note_refused_start(const EqRule *rule, const struct EqQueue *queue,
								  const struct EqNewJob *job, int64 position,
								  int64 holder);
extern void eq_end_timer(const struct EqQueue *queue, const char *tenant,
						 const char *key, int64 position);

/* notify.c */
extern void eq_notify_action(const EqAction *action, JsonbContainer *arguments);

#endif /* EQ_RULE_H */
