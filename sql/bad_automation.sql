-- Bad input of rules, schedules and steps: a clear error at the call where it can be known, else a
-- dead letter that names rule, version and event; never a stopped scheduler.
SET client_min_messages = warning;
CREATE SCHEMA ba;
SELECT event_queue.create_queue('ba', max_attempts => 1) > 0 AS created;
CREATE ROLE ba_admin;
SELECT event_queue.grant_admin('ba_admin');
GRANT USAGE, CREATE ON SCHEMA ba TO ba_admin;
CREATE TABLE ba.vip (id text);
GRANT SELECT ON ba.vip TO ba_admin;
CREATE FUNCTION ba.is_vip(id text) RETURNS boolean LANGUAGE sql AS 'SELECT EXISTS (SELECT FROM ba.vip v WHERE v.id = $1)';
CREATE FUNCTION ba.told(event event_queue.event_store) RETURNS void LANGUAGE sql AS '';
SELECT event_queue.create_rule('ba raises', 'ba.asked', $$1 / (event_data ->> 'n')::int > 0$$, queue => 'ba', job_name => 'one') > 0 AS created;
SELECT event_queue.create_rule('ba large', 'ba.asked', queue => 'ba', job_name => 'large', payload => '{"text": "{{data.text}}{{data.text}}"}') > 0 AS created;
SELECT event_queue.create_rule('ba unnamed', 'ba.asked', actions => '[{"append": {"event_type": "ba.followed", "aggregate_id": "$.data.id"}}]') > 0 AS created;
SET ROLE ba_admin;
SELECT event_queue.create_rule('ba right', 'ba.asked', 'ba.is_vip(aggregate_id)', queue => 'ba', job_name => 'vip') > 0 AS created;
SELECT event_queue.create_rule('ba dropped', 'ba.asked', function => 'ba.told') > 0 AS created;
RESET ROLE;
SELECT event_queue.create_rule('ba good', 'ba.asked', queue => 'ba', job_name => 'good') > 0 AS created;
SELECT event_queue.create_rule('ba large', 'ba.asked', queue => 'ba', job_name => 'large', payload => '{"text": "{{data.text}}{{data.text}}."}', or_replace => true) > 0 AS replaced;
-- all of them lose something, but the events of n = 1 are good for most
REVOKE SELECT ON ba.vip FROM ba_admin;
DROP FUNCTION ba.told(event_queue.event_store);
SELECT count(event_queue.append('ba', 'BA' || n, 'ba.asked', jsonb_build_object('n', n, 'text', repeat('x', CASE n WHEN 0 THEN 600000 ELSE 1 END))
	|| (CASE WHEN n = 1 THEN '{"id": "F"}' ELSE '{}' END)::jsonb)) FROM generate_series(0, 1) n;
CALL wait_until($$(SELECT count(*) FROM event_queue.dead_letter WHERE metadata ->> 'rule' LIKE 'ba %') = 5$$);
-- (ba right: both events)
SELECT d.metadata ->> 'rule' AS rule, d.metadata -> 'rule_version' AS version, e.aggregate_id AS event, d.name, d.failures, d.last_sqlstate, d.last_error <> '' AS says_why
FROM event_queue.dead_letters d JOIN event_queue.event_store e ON e.id = (d.metadata ->> 'event_id')::uuid AND e.position = (d.payload -> 'position')::bigint
WHERE d.metadata ->> 'rule' LIKE 'ba %' ORDER BY 1, 3;
-- the others have fired
SELECT j.name, e.aggregate_id FROM event_queue.job j JOIN event_queue.event_store e ON e.id = (j.metadata ->> 'event_id')::uuid
WHERE j.queue_id = event_queue_internal.queue_id_of('ba') ORDER BY 1, 2;
SELECT aggregate_id FROM event_queue.event_store WHERE event_type = 'ba.followed';
-- what can't be called waits, keeps its attempts, and goes on when it is there again
SELECT what, item ~ '^ba dropped' AS item, sqlstate FROM event_queue.faults() WHERE what = 'rule function';
SELECT name, failures FROM event_queue.job WHERE metadata ->> 'rule' = 'ba dropped';
CREATE FUNCTION ba.told(event event_queue.event_store) RETURNS void LANGUAGE sql AS '';
CALL wait_until($$NOT EXISTS (SELECT FROM event_queue.job WHERE metadata ->> 'rule' = 'ba dropped')$$);
-- a right that is given back, and a retry of the dead letters
GRANT SELECT ON ba.vip TO ba_admin;
INSERT INTO ba.vip VALUES ('BA0');
SELECT count(event_queue.retry_dead(job_id)) FROM event_queue.dead_letters WHERE metadata ->> 'rule' = 'ba right';
CALL wait_until($$NOT EXISTS (SELECT FROM event_queue.job WHERE queue_id = 1 AND metadata ->> 'rule' = 'ba right')$$);
SELECT j.name, e.aggregate_id FROM event_queue.job j JOIN event_queue.event_store e ON e.id = (j.metadata ->> 'event_id')::uuid WHERE j.metadata ->> 'rule' = 'ba right';

-- A cron expression of a megabyte, and zones: refused, and not repeated.
SELECT try(format('SELECT event_queue.create_schedule(%L, %L, %L, %L)', 'ba', repeat('* ', 500000), 'ba', 'x')),
	length(try(format('SELECT event_queue.create_schedule(%L, %L, %L, %L)', 'ba', repeat('1,', 500000) || '1 * * * *', 'ba', 'x'))) < 500 AS short,
	try(format('SELECT event_queue.preview_schedule(%L)', repeat('* ', 500000))),
	try($$SELECT event_queue.create_schedule('ba', '@daily', 'ba', 'x', time_zone => 'Mars/Olympus')$$),
	try($$SELECT event_queue.create_schedule('ba', '@daily', 'ba', 'x', time_zone => '')$$),
	try(format('SELECT event_queue.create_calendar(%L, %L)', 'ba', repeat('Z', 1000000)));
-- a zone that is not there any more (another server, a restore) stops no others
SELECT event_queue.create_schedule('ba', '@every 1s', 'ba', 'tick') > 0, event_queue.create_schedule('ba zone', '@every 1s', 'ba', 'zone') > 0 AS created;
UPDATE event_queue.schedule SET cron = '* * * * * *', time_zone = 'Mars/Olympus' WHERE name = 'ba zone';
CALL wait_until($$EXISTS (SELECT FROM event_queue.faults() WHERE what = 'schedule' AND item = 'ba zone' AND sqlstate = 'EQ031')$$);
SELECT runs AS had FROM event_queue.schedule WHERE name = 'ba' \gset
CALL wait_until(format('(SELECT runs > %s FROM event_queue.schedule WHERE name = ''ba'')', :had));
SELECT event_queue.drop_schedule('ba'), event_queue.drop_schedule('ba zone');

-- A step's name that is used twice: a dead letter that says so, and which code it was.
CREATE FUNCTION ba.twice(job event_queue.claimed_job) RETURNS void LANGUAGE sql AS $$
	SELECT event_queue.step_done(job, 'pay'); SELECT event_queue.step_done(job, 'pay') $$;
SELECT event_queue.create_handler('ba', 'twice', 'ba.twice') > 0 AS created;
SELECT event_queue.enqueue('ba', 'twice') AS job \gset
CALL wait_until(format('EXISTS (SELECT FROM event_queue.dead_letter WHERE job_id = %s)', :job));
SELECT name, last_sqlstate, replace(last_error, :'job', 'N') AS last_error, handler ->> 'function' AS function FROM event_queue.dead_letters WHERE job_id = :job;

-- A signal for a job of another tenant does not reach it: not by its key, and not by its tenant's name.
CREATE ROLE ba_b;
SELECT event_queue.grant_producer('ba_b', 'ba B');
SELECT event_queue.enqueue('ba', 'waits', tenant_id => 'ba A') AS job \gset
SELECT event_queue.await_signal(c, 'approved') AS suspended FROM event_queue.claim('ba', job_names => '{waits}') c;
SET ROLE ba_b;
SELECT event_queue.send_signal('approved', :'job') AS kept_for_its_own;
SELECT try(format('SELECT event_queue.send_signal(%L, %L, tenant_id => %L)', 'approved', :'job', 'ba A'));
SELECT count(*) FROM event_queue.job_steps;
RESET ROLE;
SELECT state FROM event_queue.job_steps WHERE job_id = :job;
SELECT tenant_id FROM event_queue.signal WHERE name = 'approved';
SELECT event_queue.send_signal('approved', :'job', tenant_id => 'ba A') AS sent;
SELECT state FROM event_queue.job_steps WHERE job_id = :job;

-- The scheduler goes on.
SELECT version FROM event_queue.append('ba', 'BA2', 'ba.asked', '{"n": 1, "text": "x", "id": "F"}');
CALL wait_until($$EXISTS (SELECT FROM event_queue.job WHERE name = 'good' AND payload ->> 'aggregate_id' = 'BA2')$$);
SELECT what, item FROM event_queue.faults() WHERE item LIKE 'ba%' OR what IN ('scheduler', 'rule runner');
CALL wait_until($$NOT EXISTS (SELECT FROM event_queue.job WHERE queue_id = 1 AND metadata ->> 'rule' LIKE 'ba %')$$);
SELECT count(event_queue.drop_rule(name)) FROM event_queue.rules WHERE name LIKE 'ba %';
SELECT event_queue.drop_handler('ba', 'twice');
SELECT count(event_queue.discard_dead(job_id)) > 0 AS discarded FROM event_queue.dead_letters WHERE queue IN ('ba') OR metadata ->> 'rule' LIKE 'ba%';
SELECT event_queue.revoke_access('ba_b'), event_queue.revoke_access('ba_admin');
SELECT event_queue.drop_queue('ba', force => true);
