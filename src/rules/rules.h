/*
 * rules.h: what workers call of rules and handlers.
 */
#ifndef EQ_RULES_H
#define EQ_RULES_H

#include "access/htup.h"
#include "access/tupdesc.h"
#include "utils/array.h"
#include "utils/jsonb.h"

#include "event_queue.h"

/* engine.c: one batch of events; true if there may be more */
extern bool eq_run_rules(void);

/* backfill.c */
extern long eq_until_backfill(long limit);
extern bool eq_backfill_is_due(void);

/* call.c: a job of queue "rule-calls"; the role it ran as, for the commit */
extern Oid eq_run_rule_call(const char *tenant, Jsonb *payload);

/* engine.c: a condition took its process with it */
extern void eq_note_condition_lost(void);
extern void eq_note_condition_error(bool timed_out);

/* counts.c: a job of queue "rule-calls" has failed */
extern void eq_count_rule_call_failed(Jsonb *payload, const char *message);

/* action_list.c */
extern Jsonb *eq_check_actions(Jsonb *actions);

/* condition.c */
extern void eq_check_condition(const char *condition, bool on_table);

/* changed.c */
extern void eq_check_when_changed(ArrayType *fields);

/* on_table.c: rules on plain tables */
extern Datum eq_check_on_change(ArrayType *given);
extern void eq_check_on_table(Oid relid, const char *tenant_column);
extern char *eq_qualified_table(Oid relid);
extern Jsonb *eq_row_as_json(HeapTuple row, TupleDesc desc, const char **left_out);
extern void eq_make_table_triggers(int32 rule_id, Oid relid, Datum on_change,
								   ArrayType *columns, const char *tenant_column);

/* template.c */
extern void eq_check_template(const char *what, Jsonb *template);

/* notify.c */
extern void eq_refuse_full_notify_queue(void);

#endif /* EQ_RULES_H */
