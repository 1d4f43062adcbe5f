/*
 * counts.c: counts what rules did, in the transactions that did it (counts.sql).
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"

#include "common/json.h"
#include "rules/rule.h"
#include "rules/rules.h"
#include "table/table.h"

#define MAX_ERROR_TEXT 2000 /* bytes kept of a message */

static Datum
error_text(const char *message)
{
	return PointerGetDatum(cstring_to_text_with_len(
		message, pg_mbcliplen(message, strlen(message), MAX_ERROR_TEXT)));
}

/*
 * Locks a table of counts for writing; false if someone has locked it: rules go on, and
 * what they do meanwhile is not counted.
 */
static bool
lock_counts(const char *table)
{
	Oid relid = eq_find_relation(table);

	return OidIsValid(relid) && ConditionalLockRelationOid(relid, RowExclusiveLock);
}

/* For the rule runner, as the owner: forgets rules that were dropped. */
void
eq_forget_rule_counts(void)
{
	static EqStatement forget = {
		.sql = "DELETE FROM event_queue_internal.rule_count c WHERE NOT EXISTS"
			   " (SELECT FROM event_queue.rule r WHERE r.rule_id = c.rule_id)"};
	static EqStatement forget_changes = {
		.sql =
			"DELETE FROM event_queue_internal.rule_count_change c WHERE NOT EXISTS"
			" (SELECT FROM event_queue.rule r WHERE r.rule_id = c.rule_id)"};

	if (lock_counts("rule_count"))
		eq_spi_run(&forget, NULL, NULL);
	if (lock_counts("rule_count_change"))
		eq_spi_run(&forget_changes, NULL, NULL);
}

/*
 * For the rule runner, in the batch's transaction: adds what it has counted, and what
 * jobs of queue "rule-calls" have left.
 */
void
eq_write_rule_counts(EqRule *rules, int n_rules)
{
	static EqStatement add = {
		.sql =
			"INSERT INTO event_queue_internal.rule_count AS c"
			" (rule_id, seen, matched, failed, last_fired_at, last_error, last_error_at,"
			" suppressed, too_deep, last_suppressed_at, last_too_deep_at)"
			" VALUES ($1, $2, $3, $4,"
			" CASE WHEN $3 > 0 THEN pg_catalog.clock_timestamp() END, $5,"
			" CASE WHEN $4 > 0 THEN pg_catalog.clock_timestamp() END, $6, $7,"
			" CASE WHEN $6 > 0 THEN pg_catalog.clock_timestamp() END,"
			" CASE WHEN $7 > 0 THEN pg_catalog.clock_timestamp() END)"
			" ON CONFLICT (rule_id) DO UPDATE SET seen = c.seen + excluded.seen,"
			" matched = c.matched + excluded.matched, failed = c.failed + excluded.failed,"
			" suppressed = c.suppressed + excluded.suppressed,"
			" too_deep = c.too_deep + excluded.too_deep,"
			" last_suppressed_at = coalesce(excluded.last_suppressed_at, c.last_suppressed_at),"
			" last_too_deep_at = coalesce(excluded.last_too_deep_at, c.last_too_deep_at),"
			" last_fired_at = coalesce(excluded.last_fired_at, c.last_fired_at),"
			" last_error = coalesce(excluded.last_error, c.last_error),"
			" last_error_at = coalesce(excluded.last_error_at, c.last_error_at)",
		.n_arguments = 7,
		.types = {INT4OID, INT8OID, INT8OID, INT8OID, TEXTOID, INT8OID, INT8OID}};
	static EqStatement fold = {
		.sql =
			"WITH gone AS (DELETE FROM event_queue_internal.rule_count_change"
			" RETURNING rule_id, matched, failed, error, at, suppressed, too_deep)"
			" INSERT INTO event_queue_internal.rule_count AS c"
			" (rule_id, matched, failed, last_fired_at, last_error, last_error_at,"
			" suppressed, too_deep, last_suppressed_at, last_too_deep_at)"
			" SELECT rule_id, sum(matched), sum(failed), max(at) FILTER (WHERE matched > 0),"
			" (array_agg(error ORDER BY at DESC) FILTER (WHERE failed > 0))[1],"
			" max(at) FILTER (WHERE failed > 0), sum(suppressed), sum(too_deep),"
			" max(at) FILTER (WHERE suppressed > 0), max(at) FILTER (WHERE too_deep > 0)"
			" FROM gone GROUP BY rule_id"
			" ON CONFLICT (rule_id) DO UPDATE SET matched = c.matched + excluded.matched,"
			" failed = c.failed + excluded.failed,"
			" suppressed = c.suppressed + excluded.suppressed,"
			" too_deep = c.too_deep + excluded.too_deep,"
			" last_suppressed_at = greatest(excluded.last_suppressed_at, c.last_suppressed_at),"
			" last_too_deep_at = greatest(excluded.last_too_deep_at, c.last_too_deep_at),"
			" last_fired_at = greatest(excluded.last_fired_at, c.last_fired_at),"
			" last_error = coalesce(excluded.last_error, c.last_error),"
			" last_error_at = greatest(excluded.last_error_at, c.last_error_at)"};
	EqSpi spi;

	if (!lock_counts("rule_count"))
		return;
	eq_spi_begin(&spi, eq_extension_owner(), SECURITY_LOCAL_USERID_CHANGE);
	if (lock_counts("rule_count_change"))
		eq_spi_run(&fold, NULL, NULL);
	for (int i = 0; i < n_rules; i++)
	{
		EqRule *rule = &rules[i];
		Datum values[7] = {Int32GetDatum(rule->rule_id),
						   Int64GetDatum(rule->seen),
						   Int64GetDatum(rule->matched),
						   Int64GetDatum(rule->failed),
						   0,
						   Int64GetDatum(rule->suppressed),
						   Int64GetDatum(rule->too_deep)};
		char nulls[7] = {' ', ' ', ' ', ' ', 'n', ' ', ' '};

		if (rule->seen == 0)
			continue;
		if (rule->error)
		{
			values[4] = error_text(rule->error);
			nulls[4] = ' ';
		}
		eq_spi_run(&add, values, nulls);
	}
	eq_spi_end(&spi);
}

/*
 * For an executor, in the transaction of a job of queue "rule-calls": the rule's
 * condition held, and it fired or was not let; or the job failed with this message.
 */
void
eq_count_rule_call(int32 rule_id, EqRuleOutcome outcome, const char *error)
{
	static EqStatement leave = {
		.sql =
			"INSERT INTO event_queue_internal.rule_count_change (rule_id, matched, failed, error, suppressed, too_deep)"
			" VALUES ($1, $2, $3, $4, $5, $6)",
		.n_arguments = 6,
		.types = {INT4OID, INT4OID, INT4OID, TEXTOID, INT4OID, INT4OID}};
	Datum values[6] = {Int32GetDatum(rule_id),
					   Int32GetDatum(outcome == EQ_RULE_MATCHED),
					   Int32GetDatum(outcome == EQ_RULE_FAILED),
					   0,
					   Int32GetDatum(outcome == EQ_RULE_SUPPRESSED),
					   Int32GetDatum(outcome == EQ_RULE_TOO_DEEP)};
	char nulls[6] = {' ', ' ', ' ', error ? ' ' : 'n', ' ', ' '};
	EqSpi spi;

	if (!lock_counts("rule_count_change"))
		return;
	eq_spi_begin(&spi, eq_extension_owner(), SECURITY_LOCAL_USERID_CHANGE);
	if (error)
		values[3] = error_text(error);
	eq_spi_run(&leave, values, nulls);
	eq_spi_end(&spi);
}

/* For an executor, whose job of queue "rule-calls" has failed: the rule's attempt did. */
void
eq_count_rule_call_failed(Jsonb *payload, const char *message)
{
	JsonbValue buffer;
	int64 rule_id;

	if (eq_json_fits_int64(eq_json_member(payload, "rule_id", &buffer), &rule_id))
		eq_count_rule_call((int32) rule_id, EQ_RULE_FAILED, message);
}
