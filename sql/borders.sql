-- Borders: what one role, queue, job or rule may not do to another.

-- Queues of the extension's own take nothing from outside, whoever asks.
SELECT try($$SELECT event_queue.enqueue('rule-calls', 'x', '["rule_id"]')$$);
SELECT try($$SELECT event_queue.enqueue_many('snapshots', '[{}]', options => '{"name": "x"}')$$);
SELECT try($$SELECT event_queue.enqueue_flow('rule-calls', '{"name": "x"}')$$);
SELECT try($$SELECT event_queue.claim('rule-calls')$$);
SELECT try($$SELECT event_queue.create_rule('r', 'x', queue => 'rule-calls', job_name => 'x')$$);
SELECT try($$SELECT event_queue.create_schedule('s', '* * * * *', 'rule-calls', 'x')$$);
SELECT try($$SELECT event_queue.retry_all_dead('rule-calls', payload => '[]')$$);
SELECT try($$SELECT event_queue.drain_queue('rule-calls')$$);
SELECT try($$DELETE FROM event_queue.queue WHERE queue_id = 1$$);
SELECT try($$UPDATE event_queue.queue SET name = 'stolen' WHERE queue_id = 2$$);
-- A payload that is no object, written by hand, fails and harms nobody.
INSERT INTO event_queue.job (job_id, queue_id, run_at, created_at, priority, tenant_id, name, max_attempts, payload, metadata)
VALUES (900001, 1, now(), now(), 5, 'A', 'rule-call', 1, '[1]', '[1]'), (900002, 2, now(), now(), 5, 'A', 'snapshot', 1, '[1]', NULL);
CALL wait_until($$(SELECT count(*) = 2 FROM event_queue.dead_letters WHERE job_id IN (900001, 900002))$$);
SELECT queue, last_error FROM event_queue.dead_letters WHERE job_id IN (900001, 900002) ORDER BY job_id;
SELECT event_queue.discard_dead(900001), event_queue.discard_dead(900002);

-- Checkpoints and rules belong to a tenant.
CREATE ROLE eq_border_a;
CREATE ROLE eq_border_b;
SELECT event_queue.grant_consumer('eq_border_a', 'border a'), event_queue.grant_consumer('eq_border_b', 'border b'),
	event_queue.grant_observer('eq_border_b', 'border b');
GRANT EXECUTE ON FUNCTION try TO PUBLIC;
SET ROLE eq_border_a;
SELECT event_queue.create_subscription('border-sub') > 0 AS created;
RESET ROLE;
SELECT event_queue.create_rule('border rule', 'border.never', queue => q.name, job_name => 'x', tenant_id => 'border a') > 0 AS created
FROM (SELECT 'borders' AS name FROM event_queue.create_queue('borders')) q;
SET ROLE eq_border_b;
SELECT try($$UPDATE event_queue_internal.subscription_bucket SET position = 1000000$$);
SELECT try($$SELECT count(*) FROM event_queue_internal.subscription_bucket$$);
SELECT count(*) FROM event_queue.rule WHERE name = 'border rule';
SELECT count(*) FROM event_queue.rules WHERE name = 'border rule';
RESET ROLE;
SELECT try(format('SET ROLE eq_border_b; SELECT event_queue_internal.lock_subscription_bucket(%s, 0)', subscription_id))
FROM event_queue.subscription WHERE name = 'border-sub';
RESET ROLE;
SELECT event_queue.drop_rule('border rule'), event_queue.drop_subscription('border-sub');

-- SET ROLE does not leave the tenant of the session's user.
CREATE ROLE eq_border_shared;
GRANT eq_border_shared TO eq_border_a;
SELECT event_queue.grant_producer('eq_border_shared');
SET SESSION AUTHORIZATION eq_border_a;
SET ROLE eq_border_shared;
SELECT event_queue.current_tenant();
SELECT try($$SELECT event_queue.append('x', 'x', 'x', tenant_id => 'border b')$$);
RESET SESSION AUTHORIZATION;

-- A role is bound by its OID: a rename changes nothing.
ALTER ROLE eq_border_a RENAME TO eq_border_renamed;
SET ROLE eq_border_renamed;
SELECT event_queue.current_tenant();
RESET ROLE;
ALTER ROLE eq_border_renamed RENAME TO eq_border_a;

-- A job that was released after a savepoint can be claimed again.
SELECT event_queue.enqueue('borders', 'savepoint') AS job \gset
SELECT job_id, lease_token FROM event_queue.claim('borders') \gset
BEGIN;
SELECT event_queue.report_progress(:job_id, :'lease_token', '{"done": 1}');
SAVEPOINT s;
SELECT event_queue.release(:job_id, :'lease_token');
RELEASE s;
COMMIT;
SELECT job_id, lease_token FROM event_queue.claim('borders', 10) \gset
SELECT event_queue.complete(:job_id, :'lease_token');

-- A token settles the job that it was given for, no other.
SELECT event_queue.alter_queue('borders', max_concurrency => 1);
SELECT event_queue.enqueue('borders', 'settled') AS job \gset
SELECT job_id, lease_token FROM event_queue.claim('borders') \gset
SELECT try(format('SELECT event_queue.complete(987654321, %L)', :'lease_token'));
SELECT state FROM event_queue.complete_many(ARRAY[987654321], ARRAY[:'lease_token']::uuid[]);
-- nor does any function that takes one, with the id of none or of another job
SELECT event_queue.enqueue('borders', 'other') AS other \gset
CREATE TEMP TABLE border_before AS SELECT j::text FROM event_queue.job j;
CREATE FUNCTION border_call(function pg_proc, id bigint, token uuid) RETURNS text LANGUAGE sql AS $$
	SELECT format('SELECT string_agg(r::text, '','') FROM event_queue.%I(%s) r', function.proname, string_agg(format('%I => %L', a.name, CASE a.name
		WHEN 'job_id' THEN id::text WHEN 'job_ids' THEN format('{%s}', id) WHEN 'lease_token' THEN token::text WHEN 'lease_tokens' THEN format('{%s}', token)
		WHEN 'queue' THEN 'borders' WHEN 'progress' THEN '{}' WHEN 'payload' THEN '{}' WHEN 'delay' THEN '1 s' ELSE 'x' END), ', '))
	FROM unnest(function.proargnames[1 : function.pronargs - function.pronargdefaults] || CASE function.proname WHEN 'sleep_job' THEN '{delay}'::text[] WHEN 'change_payload' THEN '{lease_token}' END) a (name)
$$;
SELECT p.proname, left(try(border_call(p, 987654321, :'lease_token')), 19) AS of_none, left(try(border_call(p, :other, :'lease_token')), 19) AS of_another
FROM pg_proc p WHERE p.pronamespace = 'event_queue'::regnamespace AND p.prokind = 'f' AND p.proargnames[1 : p.pronargs] && '{lease_token,lease_tokens}'
ORDER BY 1;
SELECT count(*) AS changed FROM (TABLE border_before EXCEPT SELECT j::text FROM event_queue.job j) x;
DROP FUNCTION border_call;
DROP TABLE border_before;
SELECT event_queue.cancel_job(:other);
SELECT state FROM event_queue.jobs WHERE job_id = :job_id;
SELECT event_queue.complete(:job_id, :'lease_token');
SELECT event_queue.alter_queue('borders', reset => '{max_concurrency}');

-- A queue that is drained stops no rule of another, and a bad schedule no other.
SELECT event_queue.create_queue('border-drained') > 0, event_queue.alter_queue('rule-calls', backoff_delay => '10 ms') IS NOT NULL;
SELECT event_queue.create_rule('to a drained one', 'border.drain', queue => 'border-drained', job_name => 'x') > 0,
	event_queue.create_rule('to another', 'border.go', queue => 'borders', job_name => 'went') > 0;
SELECT event_queue.drain_queue('border-drained');
SELECT version FROM event_queue.append('border', '1', 'border.drain');
SELECT version FROM event_queue.append('border', '1', 'border.go');
CALL wait_until($$EXISTS (SELECT FROM event_queue.jobs WHERE queue = 'borders' AND name = 'went')$$);
CALL wait_until($$EXISTS (SELECT FROM event_queue.dead_letters WHERE queue = 'rule-calls')$$);
SELECT last_error FROM event_queue.dead_letters WHERE queue = 'rule-calls';
SELECT event_queue.discard_all_dead('rule-calls');
SELECT event_queue.drop_rule('to a drained one'), event_queue.drop_rule('to another');
INSERT INTO event_queue.schedule (name, cron, time_zone, queue_id, job_name, payload, priority, tenant_id, next_run)
SELECT n.name, n.cron, 'UTC', q.queue_id, n.name, '{}', 5, 'A', now() - n.ago
FROM event_queue.queue q, (VALUES ('bad', 'garbage', interval '2 s'), ('good', '0 0 1 1 *', '1 s')) n (name, cron, ago)
WHERE q.name = 'borders';
CALL wait_until($$EXISTS (SELECT FROM event_queue.jobs WHERE queue = 'borders' AND name = 'good')$$);
SELECT event_queue.drop_schedule('bad'), event_queue.drop_schedule('good');

-- What a handler leaves by a deferred trigger or a cursor is gone before the next job.
CREATE TABLE border_seen (what text);
CREATE TABLE border_deferred (i int);
CREATE FUNCTION border_trigger() RETURNS trigger LANGUAGE plpgsql AS
	$$ BEGIN PERFORM set_config('work_mem', '77MB', false); RETURN NULL; END $$;
CREATE CONSTRAINT TRIGGER t AFTER INSERT ON border_deferred DEFERRABLE INITIALLY DEFERRED
	FOR EACH ROW EXECUTE FUNCTION border_trigger();
CREATE FUNCTION border_leave(job event_queue.claimed_job) RETURNS void LANGUAGE plpgsql AS $$ BEGIN
	INSERT INTO border_deferred VALUES (1);
	EXECUTE 'DECLARE leak CURSOR WITH HOLD FOR SELECT 1'; END $$;
CREATE FUNCTION border_look(job event_queue.claimed_job) RETURNS void LANGUAGE sql AS
	$$ INSERT INTO public.border_seen SELECT current_setting('work_mem') || ', cursors: ' || (SELECT count(*) FROM pg_cursors WHERE name = 'leak') $$;
SELECT event_queue.create_queue('border-left') > 0, event_queue.create_handler('border-left', 'leave', 'border_leave') > 0,
	event_queue.create_handler('border-left', 'look', 'border_look') > 0;
DO $$ BEGIN FOR i IN 1 .. 10 LOOP
	PERFORM event_queue.enqueue('border-left', 'leave'), event_queue.enqueue('border-left', 'look'); END LOOP; END $$;
CALL wait_until('(SELECT count(*) = 10 FROM border_seen)');
SELECT DISTINCT what FROM border_seen;


-- Without their checkpoint the rules wait: old events do not meet them again.
SELECT event_queue.create_rule('once', 'border.once', queue => 'border-left', job_name => 'nobody') > 0;
SELECT version FROM event_queue.append('border', '1', 'border.once');
CALL wait_until($$(SELECT count(*) = 1 FROM event_queue.jobs WHERE name = 'nobody')$$);
SELECT position AS checkpoint FROM event_queue_internal.rule_checkpoint \gset
DELETE FROM event_queue_internal.rule_checkpoint;
SELECT version FROM event_queue.append('border', '1', 'border.other');
SELECT pg_sleep(0.3);
SELECT count(*) FROM event_queue_internal.rule_checkpoint;
INSERT INTO event_queue_internal.rule_checkpoint (position) VALUES (:checkpoint);
SELECT version FROM event_queue.append('border', '1', 'border.once');
CALL wait_until($$(SELECT count(*) = 2 FROM event_queue.jobs WHERE name = 'nobody')$$);
SELECT event_queue.drop_rule('once');

-- A chore of the scheduler that fails stops no other: here that of the schedules.
SET allow_system_table_mods = on;
ALTER FUNCTION event_queue_internal.run_due_schedules() RENAME TO run_due_schedules_broken;
SELECT pg_sleep(0.2);
SELECT event_queue.create_queue('border-group') > 0;
SELECT event_queue.enqueue('border-group', 'first', group_key => 'k') > 0, event_queue.enqueue('border-group', 'second', group_key => 'k') > 0;
CALL wait_until($$(SELECT state = 'ready' FROM event_queue.jobs WHERE queue = 'border-group' AND name = 'first')$$);
SELECT job_id, lease_token FROM event_queue.claim('border-group') \gset
SELECT event_queue.complete(:job_id, :'lease_token');
CALL wait_until($$(SELECT state = 'ready' FROM event_queue.jobs WHERE queue = 'border-group' AND name = 'second')$$);
SELECT event_queue.enqueue('border-left', 'look') > 0;
CALL wait_until('(SELECT count(*) = 11 FROM border_seen)');
ALTER FUNCTION event_queue_internal.run_due_schedules_broken() RENAME TO run_due_schedules;
RESET allow_system_table_mods;
SELECT event_queue.drop_queue('border-group', true);

SELECT event_queue.drop_handler('border-left', 'leave'), event_queue.drop_handler('border-left', 'look');
SELECT event_queue.drop_queue('borders', true), event_queue.drop_queue('border-drained', true), event_queue.drop_queue('border-left', true);
SELECT event_queue.revoke_access(r::regrole) FROM unnest(ARRAY['eq_border_a', 'eq_border_b', 'eq_border_shared']) r;
REVOKE eq_border_shared FROM eq_border_a;
DROP ROLE eq_border_a, eq_border_b, eq_border_shared;
DROP TABLE border_seen, border_deferred;
SELECT event_queue.alter_queue('rule-calls', backoff_delay => '2 s');

-- A rule's function looks for names in its own schema only, whatever its owner or the database has set.
CREATE SCHEMA border_rule;
CREATE TABLE border_rule.seen (path text);
CREATE FUNCTION border_rule.see(e event_queue.event_store) RETURNS void LANGUAGE sql AS $$INSERT INTO border_rule.seen VALUES (current_setting('search_path'))$$;
SELECT event_queue.create_rule('border path', 'border.path', function => 'border_rule.see') > 0 AS created;
SELECT version FROM event_queue.append('border', 'P', 'border.path');
CALL wait_until($$EXISTS (SELECT FROM border_rule.seen)$$);
SELECT path FROM border_rule.seen;
SELECT event_queue.drop_rule('border path');
DROP SCHEMA border_rule CASCADE;

-- A call of a rule that someone wrote by hand, for a tenant with another's event, or another's rule: no function is called.
CREATE SCHEMA border_forged;
CREATE TABLE border_forged.seen (tenant_id text);
CREATE FUNCTION border_forged.see(e event_queue.event_store) RETURNS void LANGUAGE sql AS $$INSERT INTO border_forged.seen VALUES (e.tenant_id)$$;
SELECT event_queue.create_rule('border forged', 'border.forged', function => 'border_forged.see') AS rule,
	event_queue.create_rule('border of a', 'border.forged', function => 'border_forged.see', tenant_id => 'border a') AS rule_of_a \gset
SELECT event_queue.pause_rule('border forged'), event_queue.pause_rule('border of a');
SELECT position AS at FROM event_queue.append('border', 'F', 'border.forged', tenant_id => 'border a') \gset
SELECT position AS at_b FROM event_queue.append('border', 'F', 'border.forged', tenant_id => 'border b') \gset
INSERT INTO event_queue.job (job_id, queue_id, run_at, created_at, priority, tenant_id, name, max_attempts, payload)
VALUES (900011, 1, now(), now(), 5, 'border b', 'rule-call', 1, jsonb_build_object('rule_id', :rule, 'position', :at, 'function', 'border_forged.see(event_queue.event_store)')),
	(900012, 1, now(), now(), 5, 'border a', 'rule-call', 1, jsonb_build_object('rule_id', :rule, 'position', :at, 'function', 'border_forged.see(event_queue.event_store)')),
	(900013, 1, now(), now(), 5, 'border b', 'rule-call', 1, jsonb_build_object('rule_id', :rule_of_a, 'position', :at_b, 'function', 'border_forged.see(event_queue.event_store)'));
CALL wait_until($$NOT EXISTS (SELECT FROM event_queue.job WHERE job_id BETWEEN 900011 AND 900013)$$);
SELECT job_id, reason, last_error FROM event_queue.dead_letters WHERE job_id BETWEEN 900011 AND 900013 ORDER BY job_id;
SELECT * FROM border_forged.seen;
SELECT event_queue.discard_all_dead('rule-calls') > 0 AS discarded, event_queue.drop_rule('border forged'), event_queue.drop_rule('border of a');

-- A condition that sets the tenant of the session changes neither its own rule's jobs nor those of the next.
CREATE FUNCTION border_forged.other(tenant text) RETURNS boolean LANGUAGE sql VOLATILE AS $$SELECT set_config('event_queue.tenant', 'border b', false) IS NOT NULL$$;
SELECT event_queue.create_queue('border-set') > 0 AS created;
SELECT event_queue.create_rule('border set 1', 'border.set', $$border_forged.other(tenant_id)$$, 'border-set', 'first', '{"tenant": "$.tenant_id"}', rule_order => 1) > 0,
	event_queue.create_rule('border set 2', 'border.set', 'true', 'border-set', 'second', '{}', rule_order => 2) > 0,
	event_queue.create_rule('border set 4', 'border.set', $$current_setting('event_queue.tenant', true) = 'border b'$$, 'border-set', 'saw it', '{}', rule_order => 2) > 0,
	event_queue.create_rule('border set 3', 'border.set', rule_order => 3, actions => '[{"append": {"aggregate_type": "border", "aggregate_id": "S2", "event_type": "border.was_set"}}]') > 0 AS created;
SELECT (event_queue.append('border', 'S', 'border.set', tenant_id => t)).version FROM unnest('{border a,border c}'::text[]) t;
CALL wait_until($$(SELECT count(*) FROM event_queue.job WHERE name IN ('first', 'second')) + (SELECT count(*) FROM event_queue.event_store WHERE event_type = 'border.was_set') >= 6$$);
SELECT name, tenant_id, payload FROM event_queue.jobs WHERE queue = 'border-set' ORDER BY tenant_id, name;
SELECT tenant_id FROM event_queue.event_store WHERE event_type = 'border.was_set' ORDER BY 1;
SELECT event_queue.drop_rule('border set ' || n) FROM generate_series(1, 4) n;
SELECT event_queue.drop_queue('border-set', true);
DROP SCHEMA border_forged CASCADE;

-- A tenant's own admin: an observer of the tenant who may also call what retries and discards dead letters.
CREATE ROLE eq_border_admin;
SELECT event_queue.grant_observer('eq_border_admin', 'border a');
GRANT EXECUTE ON FUNCTION event_queue.retry_dead, event_queue.retry_all_dead, event_queue.retry_failed, event_queue.discard_dead, event_queue.discard_all_dead TO eq_border_admin;
SELECT event_queue.create_queue('border-dead') > 0 AS created;
SELECT count(event_queue.import_dead('border-dead', n::text, tenant_id => t)) FROM unnest('{border a,border b}'::text[]) t, generate_series(1, 6) n;
SELECT job_id AS of_b FROM event_queue.dead_letter WHERE name = '1' AND tenant_id = 'border b' \gset
SELECT job_id AS of_a FROM event_queue.dead_letter WHERE name = '1' AND tenant_id = 'border a' \gset
SET ROLE eq_border_admin;
SELECT DISTINCT tenant_id, count(*) FROM event_queue.dead_letters WHERE queue = 'border-dead' GROUP BY 1;
SELECT event_queue.retry_dead(:of_a), replace(try(format('SELECT event_queue.retry_dead(%s)', :of_b)), :'of_b', 'N'), replace(try(format('SELECT event_queue.discard_dead(%s)', :of_b)), :'of_b', 'N');
SELECT try($$SELECT event_queue.retry_all_dead('border-dead', tenant_id => 'border b')$$), try($$SELECT event_queue.discard_all_dead('border-dead', tenant_id => 'border b')$$);
SELECT try($$SET event_queue.tenant = 'border b'; SELECT event_queue.retry_all_dead('border-dead')$$);
SELECT event_queue.discard_dead(job_id) FROM event_queue.dead_letters WHERE name = '2';
SELECT event_queue.discard_all_dead('border-dead', job_name => '3') AS discarded, event_queue.retry_all_dead('border-dead', max_jobs => 2) AS retried, event_queue.retry_failed(queue => 'border-dead') AS failed;
SELECT try($$SELECT event_queue.pause_queue('border-dead')$$), try($$SELECT event_queue.import_dead('border-dead', 'x')$$), try($$SELECT event_queue.purge_queue('border-dead')$$);
RESET ROLE;
SELECT tenant_id, state, array_agg(name ORDER BY name) AS jobs FROM event_queue.all_jobs WHERE queue = 'border-dead' GROUP BY 1, 2 ORDER BY 1, 2;
SELECT action, tenant_id FROM event_queue.audit_log WHERE role = 'eq_border_admin' ORDER BY 1, 2;
SELECT event_queue.revoke_access('eq_border_admin');
SELECT has_function_privilege('eq_border_admin', 'event_queue.discard_dead(bigint)', 'EXECUTE') AS may;
DROP ROLE eq_border_admin;
SELECT event_queue.drop_queue('border-dead', true);
