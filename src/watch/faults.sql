/*
 * faults.sql: faults: what fails at present, and since when; health() shows it.
 */

/*
 * faults: what fails now and is tried again; a row from the first failure of a thing to its next
 * success.
 *
 * Result: the thing (what and item), the tenant that it belongs to, since when it fails, when it
 * was last tried and when it will be tried next, how often it failed in a row, and the error
 * with what to do.
 * - scheduler, rule runner, keeper: item is a chore of theirs.
 * - rule: its condition does not end, so its firings are jobs of queue "rule-calls", and are
 *   refused at last (EQ040).
 * - handler (queue/job name), rule function: it is missing or may not be called, or the rule's
 *   owner is out of service; its jobs wait and keep their attempts (EQ041).
 * - time limit: the last job of this handler did not end, so it gets one executor at a time.
 * - queue: no job can be claimed from it.
 * - worker: a process that does not start, or does not even end when terminated.
 * - schedule, wake-ups of queue, group, partition, retention.
 *
 * A session that is confined to a tenant sees its own; of what belongs to no tenant, only that
 * it fails.  Faults are in shared memory: after a restart they are noted anew.
 * Example:
 *	SELECT what, item, message, hint FROM event_queue.faults();
 */
CREATE FUNCTION faults(
	OUT what text, OUT item text, OUT tenant_id text, OUT since timestamptz, OUT last_at timestamptz,
	OUT retry_at timestamptz, OUT failures bigint, OUT "sqlstate" text, OUT message text, OUT hint text)
RETURNS SETOF record
LANGUAGE C VOLATILE AS 'MODULE_PATHNAME', 'eq_faults';
COMMENT ON FUNCTION faults() IS
'What fails now and is tried again: chores of the background workers, rules, handlers, queues, schedules, groups, partitions; since when, and the last error.';

/*
 * note_fault: something that is tried again has failed; logged when it begins to
 * fail and when its SQLSTATE changes.
 */
CREATE FUNCTION event_queue_internal.note_fault(what text, item text, tenant_id text, "sqlstate" text, message text, hint text DEFAULT NULL)
RETURNS void
LANGUAGE C VOLATILE AS 'MODULE_PATHNAME', 'eq_note_fault_sql';
COMMENT ON FUNCTION event_queue_internal.note_fault(text, text, text, text, text, text) IS
'Internal. Notes that something failed that is tried again; faults() and health() show it.';

/* clear_fault: clears a fault after a success; gone: the thing is no longer tried, and nothing is logged. */
CREATE FUNCTION event_queue_internal.clear_fault(what text, item text, gone boolean DEFAULT false) RETURNS void
LANGUAGE C VOLATILE AS 'MODULE_PATHNAME', 'eq_clear_fault_sql';
COMMENT ON FUNCTION event_queue_internal.clear_fault(text, text, boolean) IS 'Internal. Something works (again), or is gone.';

CREATE FUNCTION event_queue_internal.fault_retry_at(what text, item text) RETURNS timestamptz
LANGUAGE C VOLATILE AS 'MODULE_PATHNAME', 'eq_fault_retry_at_sql';
COMMENT ON FUNCTION event_queue_internal.fault_retry_at(text, text) IS 'Internal. When something that failed is tried again; NULL if it did not fail.';
