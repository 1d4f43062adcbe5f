/*
 * counts.sql: exact counts of what rules did.
 *
 * The rule runner adds its counts in the transaction that moves the checkpoint: an event is
 * counted if, and only if, its jobs exist.  Jobs of the queue "rule-calls" may run long and
 * concurrently, so they do not update the rule's row: each inserts a row into
 * rule_count_change, which the rule runner adds to the counts with its next events.
 *
 * No foreign key: its check would wait for an open transaction that replaces the rule.
 * Counts of dropped rules are deleted when the rules are read again.
 */
CREATE TABLE event_queue_internal.rule_count (
	rule_id			int PRIMARY KEY,
	seen			bigint NOT NULL DEFAULT 0,
	matched			bigint NOT NULL DEFAULT 0,
	failed			bigint NOT NULL DEFAULT 0,
	last_fired_at	timestamptz,
	last_error		text,
	last_error_at	timestamptz,
	suppressed		bigint NOT NULL DEFAULT 0,
	too_deep		bigint NOT NULL DEFAULT 0,
	last_suppressed_at	timestamptz,
	last_too_deep_at	timestamptz
) WITH (fillfactor = 50);
COMMENT ON TABLE event_queue_internal.rule_count IS 'Internal. What each rule did: the view rule_stats shows it.';
ALTER TABLE event_queue_internal.rule_count ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant_isolation ON event_queue_internal.rule_count USING (EXISTS (
	SELECT FROM rule r WHERE r.rule_id = rule_count.rule_id));
SELECT pg_catalog.pg_extension_config_dump('event_queue_internal.rule_count', '');

CREATE TABLE event_queue_internal.rule_count_change (
	rule_id	int NOT NULL,
	matched	int NOT NULL,
	failed	int NOT NULL,
	error	text,
	at		timestamptz NOT NULL DEFAULT clock_timestamp(),
	suppressed	int NOT NULL DEFAULT 0,
	too_deep	int NOT NULL DEFAULT 0
);
COMMENT ON TABLE event_queue_internal.rule_count_change IS 'Internal. What jobs of queue "rule-calls" add to rule_count.';
ALTER TABLE event_queue_internal.rule_count_change ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant_isolation ON event_queue_internal.rule_count_change USING (EXISTS (
	SELECT FROM rule r WHERE r.rule_id = rule_count_change.rule_id));
SELECT pg_catalog.pg_extension_config_dump('event_queue_internal.rule_count_change', '');
