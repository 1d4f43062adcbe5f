-- Actions of rules: several, in order, all or none; the order of rules, and stop.
CREATE SCHEMA actions;
SELECT event_queue.create_queue('actions', backoff_delay => '10 ms') IS NOT NULL AS created;
SELECT event_queue.create_queue('actions other') IS NOT NULL AS created;
CREATE TABLE actions.called (id text, type text);
CREATE FUNCTION actions.call(event event_queue.event_store) RETURNS void LANGUAGE sql AS
	$$INSERT INTO actions.called VALUES (event.aggregate_id, event.event_type)$$;
CREATE VIEW actions.jobs AS SELECT queue, name, payload, priority, group_key, unique_key, tenant_id, metadata -> 'rule' AS rule, metadata -> 'rule_version' AS version
	FROM event_queue.jobs j WHERE queue LIKE 'actions%' ORDER BY job_id;
CREATE VIEW actions.events AS SELECT aggregate_type, aggregate_id, event_type, event_data, tenant_id, metadata ->> 'actor' = current_user AS by_owner, metadata -> 'rule' AS rule,
		(SELECT c.event_type FROM event_queue.event_store c WHERE c.id = (e.metadata ->> 'causation_id')::uuid) AS cause
	FROM event_queue.event_store e WHERE event_type LIKE 'act.%' ORDER BY position;

SELECT event_queue.create_rule('act all', 'act.lead', $$event_data ? 'email'$$, actions => '[
	{"enqueue": {"queue": "actions", "name": "welcome", "payload": {"to": "$.data.email", "text": "Hello {{data.name}}"},
		"priority": 2, "group_key": "{{data.email}}", "unique_key": "welcome {{aggregate_id}}", "delay": "1 hour", "delay_from": "event"}},
	{"enqueue": {"queue": "actions other", "name": "whole"}},
	{"append": {"event_type": "act.welcomed", "event_data": {"email": "{{data.email}}"}}},
	{"append": {"event_type": "act.task", "aggregate_type": "task", "aggregate_id": "T {{aggregate_id}}", "metadata": {"source": "rule", "rule": "mine"}}},
	{"call": {"function": "actions.call"}},
	{"notify": {"channel": "actions", "payload": "{{data.name}} came"}}]') > 0 AS created;
SELECT version FROM event_queue.append('act lead', 'A1', 'act.lead', '{"email": "ann@example.org", "name": "Ann"}');
SELECT version FROM event_queue.append('act lead', 'A2', 'act.lead', '{"name": "nobody"}');
SELECT version FROM event_queue.append('act lead', 'A3', 'act.lead', '{"email": "bob@example.org", "name": "Bob"}', tenant_id => 'actions acme');
CALL wait_until('(SELECT count(*) = 2 FROM actions.called)');
SELECT queue, name, CASE name WHEN 'whole' THEN payload -> 'aggregate_id' ELSE payload END AS payload, priority, group_key, unique_key, tenant_id, rule, version FROM actions.jobs;
SELECT * FROM actions.events;
SELECT run_at - created_at BETWEEN '59 min' AND '1 hour' AS from_the_event FROM event_queue.jobs WHERE name = 'welcome';
SELECT * FROM actions.called ORDER BY 1;
SELECT queue, job_name, function, jsonb_array_length(actions) AS actions FROM event_queue.rules WHERE name = 'act all';

-- Each is explained, tried without a trace, and found again from the event.
SELECT x.step, x.part, x.seen, x.outcome FROM event_queue.event_store e, event_queue.explain_rule('act all', e.id) x
WHERE e.aggregate_id = 'A1' AND e.event_type = 'act.lead' AND x.step IN ('action', 'verdict');
SELECT outcome, payload -> 0 -> 'enqueue' -> 'payload' AS first, payload -> 3 AS fourth, options FROM event_queue.test_rule('act all');
SELECT t.depth, t.kind, t.name, t.caused_by LIKE 'rule act all' AS by_the_rule FROM event_queue.event_store e, event_queue.trace(e.id) t
WHERE e.aggregate_id = 'A1' AND e.event_type = 'act.lead' ORDER BY 1, 2, 3;

-- All or none: what comes first is not done while a later one can't be.
SELECT event_queue.alter_queue('rule-calls', backoff_delay => '10 minutes');
SELECT event_queue.create_rule('act none', 'act.full', actions => '[
	{"append": {"event_type": "act.before"}}, {"enqueue": {"queue": "actions other", "name": "full"}}]') > 0 AS created;
SELECT event_queue.drain_queue('actions other');
SELECT version FROM event_queue.append('act full', 'F1', 'act.full');
CALL wait_until($$EXISTS (SELECT FROM event_queue.job WHERE name = 'rule-call' AND payload ->> 'rule' = 'act none' AND failures = 1)$$);
SELECT count(*) AS before FROM actions.events WHERE event_type = 'act.before';
SELECT event_queue.resume_queue('actions other');
SELECT event_queue.retry_waiting('rule-calls') > 0 AS retried;
CALL wait_until($$(SELECT count(*) > 0 FROM actions.events WHERE event_type = 'act.before')$$);
SELECT count(*) AS before FROM actions.events WHERE event_type = 'act.before';
SELECT count(*) AS full FROM actions.jobs WHERE name = 'full';
-- A template that yields no such thing, for some events
SELECT event_queue.alter_queue('rule-calls', backoff_delay => '10 ms');
SELECT event_queue.create_rule('act bad', 'act.bad', actions => '[{"append": {"event_type": "{{data.type}}"}}]') > 0 AS created;
SELECT version FROM event_queue.append('act bad', 'B1', 'act.bad', '{"type": ""}');
SELECT version FROM event_queue.append('act bad', 'B2', 'act.bad', '{"type": "act.good"}');
CALL wait_until($$(SELECT count(*) > 0 FROM actions.events WHERE event_type = 'act.good')$$);
CALL wait_until($$(SELECT count(*) > 0 FROM event_queue.dead_letter WHERE payload ->> 'rule' = 'act bad')$$);
SELECT errors -> -1 ->> 'sqlstate' AS sqlstate, errors -> -1 ->> 'message' AS message, errors -> -1 ->> 'context' LIKE '%action 1 of the rule%' AS which FROM event_queue.dead_letter WHERE payload ->> 'rule' = 'act bad';
SELECT event_queue.discard_all_dead('rule-calls') AS discarded;

-- An event that a rule appends does not make it fire again, nor in a circle.
SELECT event_queue.create_rule('act loop', 'act.loop', actions => '[{"append": {"event_type": "act.loop"}}]') > 0 AS created;
SELECT event_queue.create_rule('act ping', 'act.ping', actions => '[{"append": {"event_type": "act.pong"}}]') > 0 AS created;
SELECT event_queue.create_rule('act pong', 'act.pong', actions => '[{"append": {"event_type": "act.ping"}}]') > 0 AS created;
SELECT version FROM event_queue.append('act loop', 'O1', 'act.loop');
SELECT version FROM event_queue.append('act loop', 'O2', 'act.ping');
CALL wait_until($$(SELECT bool_and(suppressed > 0) FROM event_queue.rule_stats WHERE rule IN ('act loop', 'act ping'))$$);
SELECT rule, matched, suppressed FROM event_queue.rule_stats WHERE rule IN ('act loop', 'act ping', 'act pong') ORDER BY 1;
SELECT event_type, rule, cause FROM actions.events WHERE aggregate_type = 'act loop' ORDER BY aggregate_id, event_type, rule NULLS FIRST;

-- The order of rules, and stop.
SELECT event_queue.create_rule('act last', 'act.stop', queue => 'actions', job_name => 'last', payload => '{}') > 0 AS created;
SELECT event_queue.create_rule('act vip', 'act.stop', $$event_data ->> 'vip' = 'yes'$$, actions => '[{"enqueue": {"queue": "actions", "name": "vip", "payload": {}}}]', stop => true, rule_order => -1) > 0 AS created;
SELECT event_queue.create_rule('act acme', 'act.stop', $$event_data ->> 'vip' = 'no'$$, queue => 'actions', job_name => 'acme', payload => '{}', tenant_id => 'actions acme', stop => true, rule_order => -2) > 0 AS created;
SELECT event_queue.create_rule('act acme too', 'act.stop', queue => 'actions', job_name => 'acme too', payload => '{}', tenant_id => 'actions acme') > 0 AS created;
SELECT version FROM event_queue.append('act stop', 'S1', 'act.stop', '{"vip": "yes"}');
SELECT version FROM event_queue.append('act stop', 'S2', 'act.stop', '{"vip": "no"}');
SELECT version FROM event_queue.append('act stop', 'S3', 'act.stop', '{"vip": "no"}', tenant_id => 'actions acme');
SELECT version FROM event_queue.append('act stop', 'S4', 'act.stop', '{"vip": "yes"}', tenant_id => 'actions acme');
SELECT version FROM event_queue.append('act stop', 'S5', 'act.stop', '{"vip": "?"}', tenant_id => 'actions acme');
CALL wait_until($$(SELECT seen = 3 FROM event_queue.rule_stats WHERE rule = 'act last')$$);
SELECT e.aggregate_id, string_agg(j.name, ', ' ORDER BY j.job_id) AS jobs FROM event_queue.event_store e LEFT JOIN event_queue.jobs j ON j.metadata ->> 'event_id' = e.id::text
WHERE e.event_type = 'act.stop' GROUP BY 1 ORDER BY 1;

-- Calls that wait while the list is replaced are those that they were.
SELECT event_queue.create_rule('act calls', 'act.calls', actions => '[{"call": {"function": "actions.call", "delay": "1 hour"}}]') > 0 AS created;
SELECT version FROM event_queue.append('act calls', 'C1', 'act.calls');
CALL wait_until($$EXISTS (SELECT FROM event_queue.job WHERE name = 'rule-call' AND payload ->> 'rule' = 'act calls')$$);
SELECT event_queue.create_rule('act calls', 'act.calls', actions => '[{"notify": {"channel": "actions"}}, {"call": {"function": "actions.call"}}]', or_replace => true) > 0 AS replaced;
SELECT event_queue.retry_waiting('rule-calls', false) > 0 AS due;
CALL wait_until($$EXISTS (SELECT FROM actions.called WHERE id = 'C1')$$);
SELECT count(*) AS called FROM actions.called WHERE id = 'C1';

-- Versions, and back.
SELECT event_queue.create_rule('act all', 'act.lead', actions => '[{"notify": {"channel": "actions"}}]', or_replace => true, stop => true) > 0 AS replaced;
SELECT event_queue.create_rule('act all', 'act.lead', actions => '[{"notify": {"channel": "actions"}}]', if_not_exists => true, stop => true) > 0 AS same;
SELECT version, jsonb_array_length(definition -> 'actions') AS actions, definition -> 'stop' AS stop FROM event_queue.rule_versions WHERE rule = 'act all' ORDER BY 1;
SELECT event_queue.rollback_rule('act all', 1);
SELECT version, jsonb_array_length(actions) AS actions, stop FROM event_queue.rules WHERE name = 'act all';
SELECT try($$SELECT event_queue.drop_queue('actions other', true)$$) AS in_use;

-- Refused when it is made.
SELECT a, try(format($$SELECT event_queue.create_rule('act refused', 'x.y', actions => %L)$$, a)) AS refused FROM unnest(ARRAY['[]', '{}', '1', '[1]', '[{}]',
	'[{"enqueue": {"queue": "actions", "name": "a"}, "notify": {"channel": "x"}}]', '[{"mail": {}}]', '[{"enqueue": []}]',
	'[{"enqueue": {"name": "a"}}]', '[{"enqueue": {"queue": "nope", "name": "a"}}]', '[{"enqueue": {"queue": "rule-calls", "name": "a"}}]', '[{"enqueue": {"queue": "actions"}}]',
	'[{"enqueue": {"queue": "actions", "name": "a", "priority": 77}}]', '[{"enqueue": {"queue": "actions", "name": "a", "tenant_id": "x"}}]', '[{"enqueue": {"queue": "actions", "name": "a", "payload": 1}}]',
	'[{"enqueue": {"queue": "actions", "name": "a", "delay_from": "birth"}}]', '[{"enqueue": {"queue": "actions", "name": "a", "payload": {"a": "{{nothing}}"}}}]',
	'[{"call": {}}]', '[{"call": {"function": "actions.none"}}]', '[{"call": {"function": "pg_catalog.now"}}]', '[{"call": {"function": "actions.call", "group_key": "x"}}]',
	'[{"append": {}}]', '[{"append": {"event_type": "a", "id": "x"}}]', '[{"append": {"event_type": "a", "event_data": []}}]', '[{"append": {"event_type": 7}}]', '[{"append": {"event_type": "a", "aggregate_type": "event_queue.table"}}]',
	'[{"notify": {}}]', '[{"notify": {"channel": "x", "payload": 1}}]']) a;
SELECT try($$SELECT event_queue.create_rule('act refused', 'x.y', queue => 'actions', job_name => 'x', actions => '[{"notify": {"channel": "x"}}]')$$) AS two,
	try($$SELECT event_queue.create_rule('act refused', 'x.y', priority => 1, actions => '[{"notify": {"channel": "x"}}]')$$) AS priority,
	try(format($$SELECT event_queue.create_rule('act refused', 'x.y', actions => %L)$$, (SELECT jsonb_agg('{"notify": {"channel": "x"}}'::jsonb) FROM generate_series(1, 17)))) AS many;
SELECT a, split_part(try(format($$INSERT INTO event_queue.rule (name, owner, event_pattern, start_position, actions) VALUES ('act refused', 'postgres', 'x', 0, %L)$$, a)), ' | ', 1) AS plain
FROM unnest(ARRAY['[7]', '[]', '[{"enqueue": {}}]', '[{"enqueue": {"queue": 1}}]', '[{"mail": {}}]']) a;

SELECT count(event_queue.drop_rule(name)) AS dropped FROM event_queue.rules WHERE name LIKE 'act %';
SELECT event_queue.alter_queue('rule-calls', backoff_delay => '1 s');
SELECT event_queue.drop_queue('actions', true), event_queue.drop_queue('actions other', true);
DROP SCHEMA actions CASCADE;

-- Timers: a job with a delay and a key, which another rule's cancel stops.
SELECT event_queue.create_queue('timers') IS NOT NULL AS created;
SELECT event_queue.create_rule('tm start', 'tm.lead', actions => '[{"enqueue": {"queue": "timers", "name": "unanswered", "payload": {"lead": "{{aggregate_id}}"},
	"delay": "{{data.delay}}", "delay_from": "event", "unique_key": "answer {{aggregate_id}}"}}]') > 0 AS created;
SELECT event_queue.create_rule('tm stop', 'tm.answer', actions => '[{"cancel": {"queue": "timers", "unique_key": "answer {{aggregate_id}}"}}]') > 0 AS created;
CREATE FUNCTION tm_unanswered(job event_queue.claimed_job) RETURNS void LANGUAGE sql AS
	$$ SELECT event_queue.append('tm lead', job.payload ->> 'lead', 'tm.unanswered') $$;
SELECT event_queue.create_handler('timers', 'unanswered', 'public.tm_unanswered') IS NOT NULL AS created;
SELECT version FROM event_queue.append('tm lead', 'W1', 'tm.lead', '{"delay": "48 hours"}');
SELECT version FROM event_queue.append('tm lead', 'W1', 'tm.answer');
SELECT version FROM event_queue.append('tm lead', 'W2', 'tm.lead', '{"delay": "1 ms"}');
SELECT version FROM event_queue.append('tm lead', 'W3', 'tm.lead', '{"delay": "48 hours"}');
SELECT version FROM event_queue.append('tm lead', 'W3', 'tm.answer', tenant_id => 'actions acme'); -- of another tenant
SELECT version FROM event_queue.append('tm lead', 'W4', 'tm.answer'); -- nothing to stop
CALL wait_until($$(SELECT matched = 3 FROM event_queue.rule_stats WHERE rule = 'tm stop')$$);
CALL wait_until($$EXISTS (SELECT FROM event_queue.event_store WHERE event_type = 'tm.unanswered')$$);
SELECT aggregate_id FROM event_queue.event_store WHERE event_type = 'tm.unanswered';
SELECT unique_key, tenant_id, state FROM event_queue.jobs WHERE queue = 'timers';
SELECT x.part, x.seen, x.outcome FROM event_queue.event_store e, event_queue.explain_rule('tm stop', e.id) x WHERE e.aggregate_id = 'W1' AND e.event_type = 'tm.answer' AND x.step = 'action';
SELECT a, try(format($$SELECT event_queue.create_rule('tm bad', 'x.y', actions => %L)$$, a)) AS refused FROM unnest(ARRAY['[{"cancel": {}}]', '[{"cancel": {"queue": "timers"}}]', '[{"cancel": {"queue": "rule-calls", "unique_key": "x"}}]',
	'[{"cancel": {"queue": "timers", "unique_key": "x", "name": "y"}}]']) a;
SELECT try($$SELECT event_queue.drop_queue('timers', true)$$) AS in_use;
-- The same by hand: by key, name, group or tenant.
SELECT event_queue.cancel_jobs('timers', unique_key => 'answer W3') AS by_key, event_queue.cancel_jobs('timers', unique_key => 'answer W3') AS again;
SELECT count(event_queue.enqueue('timers', 'n' || n % 2, delay => '1 hour', group_key => 'g' || n % 3, tenant_id => CASE WHEN n > 8 THEN 'actions acme' END)) FROM generate_series(1, 12) n;
SELECT event_queue.enqueue('timers', 'waits', depends_on => ARRAY(SELECT job_id FROM event_queue.jobs WHERE queue = 'timers' AND name = 'n0' AND tenant_id = 'default' ORDER BY job_id LIMIT 1)) IS NOT NULL AS dependent;
SELECT event_queue.cancel_jobs('timers', job_name => 'n0', tenant_id => 'actions acme') AS two, event_queue.cancel_jobs('timers', group_key => 'g1') AS group, event_queue.cancel_jobs('timers', job_name => 'n0') AS name;
SELECT name, count(*) FROM event_queue.jobs WHERE queue = 'timers' GROUP BY 1 ORDER BY 1;
SELECT name, reason FROM event_queue.dead_letters WHERE queue = 'timers';
SELECT job_id FROM event_queue.claim('timers', 1, job_names => '{x}');
SELECT event_queue.enqueue('timers', 'leased') IS NOT NULL AS enqueued;
SELECT name FROM event_queue.claim('timers');
SELECT event_queue.cancel_jobs('timers', job_name => 'leased') AS asked_to_stop;
SELECT name, state FROM event_queue.jobs WHERE queue = 'timers' AND name = 'leased';
SELECT try($$SELECT event_queue.cancel_jobs('timers')$$), try($$SELECT event_queue.cancel_jobs('nope', 'x')$$), try($$SELECT event_queue.cancel_jobs('rule-calls', 'x')$$);
SELECT count(event_queue.drop_rule(name)) AS dropped FROM event_queue.rules WHERE name LIKE 'tm %';
SELECT event_queue.drop_handler('timers', 'unanswered');
SELECT event_queue.drop_queue('timers', true);
DROP FUNCTION tm_unanswered;
