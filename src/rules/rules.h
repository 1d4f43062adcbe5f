/*
 * rules.h: what the workers ask of rules and handlers.
 */
#ifndef EQ_RULES_H
#define EQ_RULES_H

#include "utils/jsonb.h"

#include "event_queue.h"

/* engine.c: one batch of events; true if there may be more */
extern bool eq_run_rules(void);

/* engine.c: a job of queue "rule-calls"; the role it ran as, for the commit */
extern Oid eq_run_rule_call(const char *tenant, Jsonb *payload);

/* engine.c: a condition took its process with it */
extern void eq_note_condition_lost(void);
extern void eq_note_condition_error(bool timed_out);

/* function.c */
typedef enum EqFunctionKind
{
	EQ_FUNCTION_OF_EVENT, /* of a rule or a replay */
	EQ_FUNCTION_HANDLER,
	EQ_FUNCTION_REDUCER
} EqFunctionKind;

extern Oid eq_find_function(const char *name, EqFunctionKind kind, char **qualified);
extern Jsonb *eq_call_function(const char *function, Oid argument_type,
							   Datum argument);
extern void eq_require_callable(const char *kind, const char *label, Oid owner,
								const char *function, Oid argument_type);
extern const char *eq_refused_call(const char **kind);
extern const char *eq_function_schema(const char *function);
extern Oid eq_event_type_oid(void);
extern Oid eq_claimed_job_type_oid(void);

/* pattern.c */
extern void eq_check_pattern(const char *pattern);
extern bool eq_pattern_matches(const char *event_type, const char *pattern);

/* condition.c */
extern char *eq_rule_query(const char *condition, bool with_options);
extern void eq_check_condition(const char *condition);
extern void eq_check_template(const char *what, Jsonb *template);

#endif /* EQ_RULES_H */
