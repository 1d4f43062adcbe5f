-- The audit log: what each function writes to it, who reads it, and that no one changes it.
SET client_min_messages = warning;
SET application_name = 'audit test';
SELECT event_queue.create_queue('au', max_attempts => 1) > 0 AS created;
CREATE ROLE au_admin;
CREATE ROLE au_a;
CREATE ROLE au_b;
SELECT event_queue.grant_admin('au_admin'), event_queue.grant_observer('au_a', 'tenant A'), event_queue.grant_consumer('au_a', 'tenant A'),
	event_queue.grant_observer('au_b', 'tenant B');
SELECT action, object_type, object, tenant_id, after ->> 'tenant_id' AS bound_to FROM event_queue.audit_log
WHERE object IN ('au', 'au_admin', 'au_a', 'au_b') ORDER BY audit_id;

-- Who, when, what; before and after.
SET ROLE au_admin;
SET event_queue.actor = 'ana@example.com';
SELECT event_queue.alter_queue('au', lease => '1 minute');
SELECT event_queue.alter_queue('au', lease => '1 minute');
RESET ROLE;
RESET event_queue.actor;
SELECT action, object, session_role = session_user AS by_session, role, actor, application_name, pid = pg_backend_pid() AS by_pid,
	at BETWEEN now() - interval '1 minute' AND clock_timestamp() AS now, before ->> 'lease' AS before, after ->> 'lease' AS after
FROM event_queue.audit_log WHERE object = 'au' AND action = 'alter_queue';
-- Not what was rolled back.
BEGIN;
SELECT event_queue.pause_queue('au');
ROLLBACK;
SELECT count(*) FROM event_queue.audit_log WHERE object = 'au' AND action = 'pause_queue';
-- By hand, too.
UPDATE event_queue.queue SET max_attempts = 2 WHERE name = 'au';
SELECT action, before ->> 'max_attempts' AS before, after ->> 'max_attempts' AS after FROM event_queue.audit_log WHERE object = 'au' ORDER BY audit_id DESC LIMIT 1;
-- In bulk: one row.
SELECT count(event_queue.enqueue('au', 'a', '{"n": 1}', tenant_id => 'tenant A')) FROM generate_series(1, 5);
SELECT count(event_queue.fail(job_id, lease_token, 'broken', 'P0001', final => true)) FROM event_queue.claim('au', 4);
SELECT event_queue.retry_dead(min(job_id), '{"n": 2}') FROM event_queue.dead_letter WHERE queue_id = (SELECT queue_id FROM event_queue.queue WHERE name = 'au');
SELECT event_queue.discard_dead(min(job_id)) FROM event_queue.dead_letter WHERE queue_id = (SELECT queue_id FROM event_queue.queue WHERE name = 'au');
SELECT event_queue.retry_all_dead('au', job_name => 'a', sqlstate => 'P0001', max_jobs => 1), event_queue.discard_all_dead('au', job_name => 'none'),
	event_queue.discard_all_dead('au', job_name => 'a'), event_queue.purge_queue('au');
SELECT action, object_type, tenant_id, before - 'died_at' AS before, after FROM event_queue.audit_log
WHERE (object = 'au' OR object_type = 'job') AND action ~ 'dead|purge' AND at > now() - interval '10 s' ORDER BY audit_id DESC LIMIT 5;

-- Append-only, for the owner too, and for each partition.
UPDATE event_queue.audit_log SET role = 'someone else';
DELETE FROM event_queue.audit_log;
TRUNCATE event_queue.audit_log;
TRUNCATE event_queue.audit_log_default;
SET session_replication_role = replica;
DELETE FROM event_queue.audit_log;
RESET session_replication_role;
SELECT event_queue_internal.maintain_audit();
SELECT count(*) > 0 AS made, bool_and(c.relrowsecurity) AS guarded, bool_and((SELECT count(*) = 2 FROM pg_trigger t
	WHERE t.tgrelid = c.oid AND t.tgname LIKE 'refuse%' AND t.tgenabled = 'A')) AS append_only, bool_and((SELECT count(*) = 2 FROM pg_index x WHERE x.indrelid = c.oid)) AS indexed
FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid WHERE i.inhparent = 'event_queue.audit_log'::regclass AND c.relname ~ '[0-9]{6}$';
-- What is old goes: rows of the default partition, and whole partitions.
BEGIN;
INSERT INTO event_queue.audit_log (at, action, object_type, object, session_role, role, application_name, pid)
VALUES (now() - interval '2 years', 'old', 'x', 'x', 'x', 'x', 'x', 1);
CREATE TABLE event_queue.audit_log_202001 PARTITION OF event_queue.audit_log FOR VALUES FROM ('2020-01-01') TO ('2020-02-01');
SELECT event_queue_internal.maintain_audit();
SELECT count(*) FROM event_queue.audit_log WHERE action = 'old';
SELECT to_regclass('event_queue.audit_log_202001');
DELETE FROM event_queue.audit_log;
ROLLBACK;

-- A tenant sees what was done to its own, and writes nothing of another's.
SET ROLE au_a;
SELECT event_queue.create_subscription('au-sub') > 0 AS created;
SELECT DISTINCT action, tenant_id FROM event_queue.audit_log WHERE role IN ('au_a', session_user) AND action ~ 'subscription|retry_dead' ORDER BY 1;
SELECT count(*) FROM event_queue.audit_log WHERE tenant_id IS DISTINCT FROM 'tenant A';
SELECT event_queue_internal.audit('pause_queue', 'queue', 'au');
INSERT INTO event_queue.audit_log (action) VALUES ('x');
SET ROLE au_b;
SELECT count(*) > 0 AS others FROM event_queue.audit_log WHERE tenant_id IS DISTINCT FROM 'tenant B';
RESET ROLE;
-- A session that is set up like a dump's does not get round it
SET ROLE au_admin;
SET check_function_bodies = off; SET row_security = off; SET search_path = '';
SELECT event_queue.create_queue('au_quiet') > 0 AS created;
RESET check_function_bodies; RESET row_security; RESET search_path; RESET ROLE;
SELECT count(*) FROM event_queue.audit_log WHERE action = 'create_queue' AND object = 'au_quiet';
SELECT event_queue.drop_queue('au_quiet');

SELECT event_queue.drop_subscription('au-sub') FROM set_config('event_queue.tenant', 'tenant A', false);
RESET event_queue.tenant;
SELECT event_queue.revoke_access(r::regrole) FROM unnest('{au_admin,au_a,au_b}'::text[]) r;
SELECT event_queue.drop_queue('au', force => true);

-- No function is forgotten: each public one that may write is called, and leaves a row; or
-- it is one of the data plane or one that only reads.
-- In a database of its own, where no other test's things are in the way.
SELECT current_database() AS first \gset
CREATE DATABASE au_functions;
\c au_functions
SET client_min_messages = warning;
CREATE EXTENSION event_queue;
SELECT count(*) FROM event_queue.audit_log;
CREATE TABLE au_data (f text);
INSERT INTO au_data SELECT unnest(ARRAY[
	-- the data plane: events, jobs and what consumers and workers do with them
	'append', 'append_many', 'append_batch', 'revert_aggregate', 'take_snapshot', 'enqueue', 'enqueue_many', 'enqueue_flow',
	'claim', 'claim_wait', 'complete', 'complete_many', 'complete_and_claim', 'complete_many_and_claim', 'fail', 'fail_many', 'release', 'give_up_job', 'retry_job_after', 'postpone_job', 'postpone_queue',
	'extend_lease', 'extend_leases', 'report_progress', 'log_job', 'run_jobs', 'step', 'step_done', 'run_step', 'sleep_job', 'await_signal', 'await_event', 'send_signal', 'await_job', 'wait_for_events',
	'fetch_events', 'ack', 'leave_subscription', 'park_event', 'fetch_parked', 'ack_parked', 'replay', 'uuid_v7',
	-- triggers
	'notify_change', 'record_change', 'table_change']);
CREATE TABLE au_readers AS SELECT unnest(ARRAY['health', 'queue_health', 'prometheus', 'queue_limits', 'explain_job', 'running_jobs', 'next_jobs', 'queue_jobs', 'failed_jobs',
	'workers', 'faults', 'read_all', 'read_plan', 'watermark', 'generation', 'activation_state', 'job_outcome', 'dependency_results', 'trace',
	'aggregate_activity', 'rule_activity', 'explain_rule', 'test_rule', 'compare_rule', 'rule_runs', 'rule_facts', 'queue_history', 'test_alert']) AS f;
CREATE TABLE au_table (id text);
CREATE SCHEMA au_archive;
CREATE FUNCTION au_fold(state jsonb, event event_queue.event_store) RETURNS jsonb LANGUAGE sql IMMUTABLE AS 'SELECT $1';
CREATE FUNCTION au_handle(job event_queue.claimed_job) RETURNS void LANGUAGE sql AS '';
CREATE TABLE au_call (n int GENERATED ALWAYS AS IDENTITY, f text, call text);
INSERT INTO au_call (f, call) VALUES
	('create_queue', $$'auq', max_attempts => 1$$), ('alter_queue', $$'auq', lease => '1 hour'$$), ('pause_queue', $$'auq'$$), ('resume_queue', $$'auq'$$),
	('drain_queue', $$'auq'$$), ('resume_queue', $$'auq'$$),
	('=', $$event_queue.enqueue('auq', 'a')$$), ('change_priority', $$(SELECT max(job_id) FROM event_queue.job), 3$$),
	('change_payload', $$(SELECT max(job_id) FROM event_queue.job), '{}'$$),
	('=', $$event_queue.enqueue('auq', 'a', delay => '1 hour')$$), ('promote_job', $$(SELECT max(job_id) FROM event_queue.job)$$),
	('cancel_job', $$(SELECT max(job_id) FROM event_queue.job)$$),
	('=', $$event_queue.enqueue('auq', 'c')$$), ('cancel_jobs', $$'auq', job_name => 'c'$$),
	('=', $$event_queue.enqueue('auq', 'f')$$), ('=', $$event_queue.step_done(c, 'a') FROM event_queue.claim('auq', job_names => '{f}') c$$), ('fork_job', $$(SELECT max(job_id) FROM event_queue.job_steps), 'a'$$),
	('=', $$event_queue.complete(job_id, lease_token) FROM event_queue.job WHERE lease_token IS NOT NULL$$),
	('=', $$event_queue.enqueue('auq', 'a', delay => '1 hour')$$), ('retry_waiting', $$'auq', false$$), ('purge_queue', $$'auq'$$),
	('=', $$count(event_queue.enqueue('auq', 'a')) FROM generate_series(1, 4)$$),
	('=', $$count(event_queue.fail(job_id, lease_token, 'no', final => true)) FROM event_queue.claim('auq', 4)$$),
	('retry_dead', $$(SELECT max(job_id) FROM event_queue.dead_letter)$$), ('discard_dead', $$(SELECT max(job_id) FROM event_queue.dead_letter)$$),
	('retry_all_dead', $$'auq', max_jobs => 1$$), ('retry_failed', $$queue => 'auq'$$),
	('=', $$count(event_queue.fail(job_id, lease_token, 'no', final => true)) FROM event_queue.claim('auq', 4)$$), ('discard_all_dead', $$'auq'$$),
	('=', $$event_queue.enqueue('auq', 'a', options => '{"keep_completed": "1 day"}')$$), ('=', $$event_queue.complete(job_id, lease_token) FROM event_queue.claim('auq')$$),
	('discard_completed', $$ARRAY[(SELECT max(job_id) FROM event_queue.history)]$$),
	('import_dead', $$'auq', 'a', error => 'no'$$),
	('create_rule', $$'aur', 'x.y', queue => 'auq', job_name => 'a'$$), ('create_rule', $$'aur', 'x.z', queue => 'auq', job_name => 'a', or_replace => true$$),
	('rollback_rule', $$'aur', 1$$), ('backfill_rule', $$'aur', rate => 1$$), ('cancel_backfill', $$'aur'$$),
	('=', $$event_queue.create_rule('aur', 'x.d', queue => 'auq', job_name => 'a', draft => true)$$), ('discard_draft', $$'aur'$$),
	('=', $$event_queue.create_rule('aur', 'x.e', queue => 'auq', job_name => 'a', draft => true)$$), ('activate_rule', $$'aur'$$), ('pause_rule', $$'aur'$$), ('resume_rule', $$'aur'$$), ('drop_rule', $$'aur'$$),
	('create_handler', $$'auq', 'a', 'public.au_handle'$$), ('drop_handler', $$'auq', 'a'$$),
	('create_schedule', $$'aus', '@daily', 'auq', 'a'$$), ('pause_schedule', $$'aus'$$), ('resume_schedule', $$'aus'$$), ('trigger_schedule', $$'aus'$$), ('backfill_schedule', $$'aus', now() - interval '3 days', now()$$), ('drop_schedule', $$'aus'$$),
	('create_calendar', $$'auc', 'UTC'$$), ('add_holidays', $$'auc', '{2026-01-01}'$$), ('remove_holidays', $$'auc', '{2026-01-01}'$$), ('drop_calendar', $$'auc'$$),
	('create_reducer', $$'aut', 'public.au_fold'$$), ('refresh_reducer', $$'aut'$$), ('drop_reducer', $$'aut'$$),
	('=', $$event_queue.append('aut', '1', 'aut.x')$$),
	('create_subscription', $$'aux'$$), ('reset_subscription', $$'aux'$$),
	('=', $$1 FROM (INSERT_PARKED) x$$), ('retry_parked', $$'aux'$$), ('discard_parked', $$'aux', 'aut', '1', 'default'$$), ('drop_subscription', $$'aux'$$),
	('create_alert', $$'aua', 'queue_depth', threshold => 9$$), ('alter_alert', $$'aua', threshold => 8$$), ('pause_alert', $$'aua'$$), ('resume_alert', $$'aua'$$),
	('snooze_alert', $$'aua'$$), ('try_alert', $$'aua'$$), ('=', $$1 FROM (INSERT_ALERT) x$$), ('ack_alert', $$'aua'$$), ('drop_alert', $$'aua'$$),
	('notify_on', $$'au_table', 'auc'$$), ('record_changes', $$'au_table', 'aut', 'id'$$),
	('create_event_index', $$'event_type'$$), ('drop_event_index', $$'event_type'$$),
	('create_event_partition', $$'tenant A'$$), ('seal_event_partition', $$(SELECT name FROM event_queue_internal.event_partition WHERE tenant_id = 'tenant A')$$),
	('archive_event_partition', $$(SELECT name FROM event_queue_internal.event_partition WHERE tenant_id = 'tenant A'), 'au_archive'$$),
	('split_event_partition', $$tenant_id => 'default'$$),
	('set_event_partitioning', $$'1 day'$$), ('set_event_retention', $$'1 year'$$),
	('grant_producer', $$'au_admin'$$), ('grant_worker', $$'au_admin'$$), ('grant_consumer', $$'au_admin'$$), ('grant_observer', $$'au_admin'$$),
	('grant_admin', $$'au_admin'$$), ('revoke_access', $$'au_admin'$$), ('drop_queue', $$'auq', true$$), ('new_generation', ''),
	('activate', NULL);	-- by 047_alerts.pl: a store that is in service has nothing to activate
SELECT DISTINCT p.proname AS forgotten_by_this_test FROM pg_proc p
WHERE p.pronamespace = 'event_queue'::regnamespace AND p.provolatile = 'v'
  AND p.proname NOT IN (SELECT f FROM au_data UNION ALL SELECT f FROM au_readers UNION ALL SELECT f FROM au_call) ORDER BY 1;
-- and no name that is none
SELECT f FROM (SELECT f FROM au_data UNION ALL SELECT f FROM au_readers UNION ALL SELECT f FROM au_call) x
WHERE f <> '=' AND NOT EXISTS (SELECT FROM pg_proc p WHERE p.pronamespace = 'event_queue'::regnamespace AND p.proname = f);
BEGIN;
CREATE TEMP TABLE au_result (n int, f text, actions text);
DO $$
DECLARE
	c record;
	last bigint;
BEGIN
	FOR c IN SELECT * FROM au_call WHERE call IS NOT NULL ORDER BY n LOOP
		last := (SELECT coalesce(max(audit_id), 0) FROM event_queue.audit_log);
		IF c.call ~ 'INSERT_PARKED' THEN
			INSERT INTO event_queue_internal.subscription_parked (subscription_id, tenant_id, aggregate_type, aggregate_id, position)
			SELECT s.subscription_id, 'default', 'aut', '1', 1 FROM event_queue.subscription s WHERE s.name = 'aux';
		ELSIF c.call ~ 'INSERT_ALERT' THEN
			INSERT INTO event_queue_internal.alert_record (key, name, kind, object, severity, raised_at) VALUES ('aua:au', 'aua', 'queue_depth', 'au', 'info', now());
			INSERT INTO event_queue_internal.alert_state (key, name, kind, object, state, since, seen_at, alert_id)
			SELECT key, name, kind, object, 'raised', now(), now(), alert_id FROM event_queue_internal.alert_record WHERE name = 'aua';
		ELSIF c.f = '=' THEN
			EXECUTE 'SELECT ' || c.call;
		ELSE
			EXECUTE format('SELECT event_queue.%I(%s)', c.f, c.call);
		END IF;
		INSERT INTO au_result SELECT c.n, c.f, (SELECT string_agg(a.action, ' ' ORDER BY a.audit_id) FROM event_queue.audit_log a WHERE a.audit_id > last);
	END LOOP;
END
$$;
SELECT f, actions FROM au_result WHERE f <> '=' AND (actions IS NULL OR actions <> f) ORDER BY n;
-- the data plane leaves none
SELECT f, actions FROM au_result WHERE f = '=' AND actions IS NOT NULL;
-- a table is named with its schema, whatever search_path its owner has
SELECT action, object FROM event_queue.audit_log WHERE action IN ('notify_on', 'record_changes');
ROLLBACK;

\c :first
DROP DATABASE au_functions WITH (FORCE);
DROP ROLE au_admin, au_a, au_b;
