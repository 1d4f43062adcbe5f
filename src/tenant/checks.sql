/*
 * checks.sql: constraints that refuse rows that no function would write, for rows
 * written by hand (by the owner, or a restore).
 *
 * Not on jobs, dead letters, history and events: C code writes these beneath constraints,
 * and checks JSON when it reads it (common/json.h).
 */

ALTER TABLE rule
	ADD CONSTRAINT rule_one_action CHECK (num_nonnulls(queue_id, function, actions) = 1 AND (queue_id IS NULL) = (job_name IS NULL)),
	ADD CONSTRAINT rule_own_queue CHECK (queue_id > 2),
	ADD CONSTRAINT rule_actions CHECK (event_queue_internal.are_actions(actions)),
	ADD CONSTRAINT rule_payload CHECK (jsonb_typeof(payload) = 'object'),
	ADD CONSTRAINT rule_priority CHECK (priority BETWEEN 0 AND 9),
	ADD CONSTRAINT rule_delay CHECK (delay BETWEEN '0' AND '100 years'),
	ADD CONSTRAINT rule_on_loop CHECK (on_loop IN ('skip', 'allow')),
	ADD CONSTRAINT rule_on_table CHECK ((on_table IS NULL) = (on_change IS NULL) AND (tenant_column IS NULL OR on_table IS NOT NULL)),
	ADD CONSTRAINT rule_when_changed CHECK (cardinality(when_changed) > 0 AND array_position(when_changed, NULL) IS NULL);
ALTER TABLE handler
	ADD CONSTRAINT handler_own_queue CHECK (queue_id > 2),
	ADD CONSTRAINT handler_time_limit CHECK (time_limit > '0'),
	ADD CONSTRAINT handler_batch_size CHECK (batch_size BETWEEN 1 AND 1000),
	ADD CONSTRAINT handler_max_executors CHECK (max_executors BETWEEN 1 AND 128);
ALTER TABLE schedule
	ADD CONSTRAINT schedule_own_queue CHECK (queue_id > 2),
	ADD CONSTRAINT schedule_priority CHECK (priority BETWEEN 0 AND 9),
	ADD CONSTRAINT schedule_overlap CHECK (overlap IN ('allow', 'skip', 'queue_one', 'queue_all', 'cancel'));
ALTER TABLE subscription
	ADD CONSTRAINT subscription_filter CHECK (jsonb_typeof(filter) = 'object');
ALTER TABLE event_queue_internal.subscription_bucket
	ADD CONSTRAINT subscription_bucket_range CHECK (bucket BETWEEN 0 AND 63 AND position >= 0);
ALTER TABLE event_queue_internal.partition_policy
	ADD CONSTRAINT partition_policy_every CHECK (every BETWEEN '1 hour' AND '100 years'),
	ADD CONSTRAINT partition_policy_keep CHECK (keep BETWEEN '1 day' AND '100 years');
