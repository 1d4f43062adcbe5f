/*
 * rules.h: what the workers ask of rules and handlers.
 */
#ifndef EQ_RULES_H
#define EQ_RULES_H

#include "utils/array.h"
#include "utils/jsonb.h"

#include "event_queue.h"

/* engine.c: one batch of events; true if there may be more */
extern bool eq_run_rules(void);

/* engine.c: a job of queue "rule-calls"; the role it ran as, for the commit */
extern Oid eq_run_rule_call(const char *tenant, Jsonb *payload);

/* engine.c: a condition took its process with it */
extern void eq_note_condition_lost(void);
extern void eq_note_condition_error(bool timed_out);

/* counts.c: a job of queue "rule-calls" has failed */
extern void eq_count_rule_call_failed(Jsonb *payload, const char *message);

/* action.c */
extern Jsonb *eq_check_actions(Jsonb *actions);

/* condition.c */
extern char *eq_rule_query(const char *condition, bool with_options);
extern void eq_check_condition(const char *condition);

/* changed.c */
extern void eq_check_when_changed(ArrayType *fields);

/* template.c */
extern void eq_check_template(const char *what, Jsonb *template);

#endif /* EQ_RULES_H */
