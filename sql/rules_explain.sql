-- Why a rule fired or did not, and what it would have done; nothing is left behind.
SELECT event_queue.alter_queue('rule-calls', backoff_delay => '10 minutes');
SELECT event_queue.create_queue('explain') IS NOT NULL AS created;
CREATE SCHEMA explain;
CREATE TABLE explain.wanted (step text);
INSERT INTO explain.wanted VALUES ('won');
SELECT event_queue.create_rule('ex won', 'exl.*', $$event_data ->> 'step' = 'won' AND (event_data ->> 'n')::int BETWEEN 1 AND 9
	and (event_data ->> 'a' = 'x' OR event_data ? 'b' AND true) AND event_data -> 'gone' IS NULL AND NOT event_data ? 'test'
	AND event_data ->> 'step' IN (SELECT w.step FROM explain.wanted w) AND length(aggregate_id) < (event_data ->> 'n')::int + 1 -- AND x
	AND (event_data ->> 'it''s) AND ' IS NULL)$$, queue => 'explain', job_name => 'won', payload => '{"id": "$.aggregate_id", "n": "$.data.n"}',
	options => '{"unique_key": "$.aggregate_id"}') IS NOT NULL AS created;
SELECT id AS won FROM event_queue.append('exl', 'E1', 'exl.moved', '{"step": "won", "n": 5, "b": 1}') \gset
SELECT id AS lost FROM event_queue.append('exl', 'E2', 'exl.moved', '{"step": "lost", "n": 70}') \gset
SELECT id AS broken FROM event_queue.append('exl', 'E3', 'exl.moved', '{"n": "many"}') \gset
SELECT id AS other FROM event_queue.append('exl', 'E4', 'exo.moved', '{"step": "won", "n": 5, "b": 1}') \gset
CALL wait_until($$EXISTS (SELECT FROM event_queue.job WHERE name = 'won')
	AND EXISTS (SELECT FROM event_queue.jobs WHERE queue = 'rule-calls' AND state = 'retrying' AND metadata ->> 'rule' = 'ex won')$$);
CREATE FUNCTION explain.why(rule text, event uuid) RETURNS TABLE (step text, part text, seen text, compared text, outcome text) LANGUAGE sql AS $$
	SELECT x.step, CASE WHEN x.step = 'position' THEN 'above ...' ELSE regexp_replace(x.part, '\d+( rules|$)|^event \S+$', '...\1') END,
		CASE WHEN x.step = 'position' THEN '...' ELSE x.seen END, regexp_replace(x.compared, 'at \d+', 'at ...'), x.outcome
	FROM event_queue.explain_rule($1, $2) x $$;
\pset format unaligned
SELECT * FROM explain.why('ex won', :'won');
SELECT * FROM explain.why('ex won', :'lost');
SELECT * FROM explain.why('ex won', :'broken');
SELECT * FROM explain.why('ex won', :'other') WHERE step IN ('pattern', 'followed', 'verdict');
\pset format aligned
SELECT replace(c, :'won', 'ID') FROM unnest(ARRAY[try(format('SELECT event_queue.explain_rule(%L, %L)', 'none', :'won')), try(format('SELECT event_queue.explain_rule(%L, %L, %L)', 'ex won', :'won', 'acme'))]) c;

-- A condition of parts that OR joins is one; none at all has no lines.
SELECT event_queue.create_rule('ex or', 'exl.*', $$event_data ? 'b' OR event_data ? 'c' AND version = 1$$, queue => 'explain', job_name => 'or') IS NOT NULL AS created;
SELECT event_queue.pause_rule('ex or');
SELECT * FROM explain.why('ex or', :'won') WHERE step IN ('state', 'condition', 'followed', 'verdict');
SELECT event_queue.create_rule('ex all', 'exl.*', queue => 'explain', job_name => 'all', payload => '{"x": 1}', on_loop => 'allow') AS all_id \gset
SELECT * FROM explain.why('ex all', :'won') WHERE step IN ('state', 'condition', 'action', 'chain', 'verdict');

-- What has led to the event counts, whatever someone has written there.
SELECT event_queue.create_rule('ex chain', 'exc.*', queue => 'explain', job_name => 'chain', payload => '{"x": "$.aggregate_id"}') AS chain_id \gset
SELECT id AS looped FROM event_queue.append('exl', 'E5', 'exc.x', metadata => jsonb_build_object('rule_chain', jsonb_build_array(:all_id, :chain_id))) \gset
SELECT id AS odd FROM event_queue.append('exl', 'E5', 'exc.x', metadata => '{"rule_chain": {"a": 1}}') \gset
CALL wait_until($$(SELECT suppressed = 1 AND matched = 1 FROM event_queue.rule_stats WHERE rule = 'ex chain')$$);
SELECT * FROM explain.why('ex chain', :'looped') WHERE step IN ('action', 'chain', 'followed', 'verdict');
SELECT * FROM explain.why('ex chain', :'odd') WHERE step IN ('chain', 'followed', 'verdict');

-- A rule is tried on what is there before it is switched on.
SELECT event_type, aggregate_id, outcome, payload, options FROM event_queue.test_rule('ex won');
SELECT event_queue.create_rule('ex now', '**', $$event_data ->> 'step' = 'won'$$, queue => 'explain', job_name => 'now', payload => '{"id": "$.aggregate_id"}') > 0 AS created;
SELECT event_type, aggregate_id, outcome, payload, options FROM event_queue.test_rule('ex now', from_position => (SELECT position - 1 FROM event_queue.event_store WHERE id = :'won'), max_rows => 3);
SELECT event_type, aggregate_id, outcome FROM event_queue.test_rule('ex chain');
SELECT count(*) FROM event_queue.test_rule('ex now', from_position => (SELECT position - 1 FROM event_queue.event_store WHERE id = :'lost'), to_position => (SELECT position FROM event_queue.event_store WHERE id = :'broken'));
SELECT count(*) FROM event_queue.test_rule('ex now', max_events => 1);
SELECT try($$SELECT event_queue.test_rule('ex now', max_rows => 0)$$), try($$SELECT event_queue.test_rule('none')$$), try($$SELECT event_queue.test_rule('ex now', max_events => NULL)$$);
SELECT count(*) FROM event_queue.jobs WHERE queue = 'explain' AND name IN ('now', 'or');

-- It runs as the engine runs it: as the owner, without writing, not for longer than it may; a cancel is the caller's.
CREATE ROLE eq_explainer;
SELECT event_queue.grant_admin('eq_explainer');
SELECT event_queue.create_rule('ex role', 'exl.*', $$current_user <> 'eq_explainer' AND event_data ->> 'step' IN (SELECT w.step FROM explain.wanted w)$$,
	queue => 'explain', job_name => 'role') > 0 AS created;
CREATE FUNCTION explain.write() RETURNS boolean LANGUAGE sql AS $$ INSERT INTO explain.wanted VALUES ('x') RETURNING true $$;
SELECT event_queue.create_rule('ex write', 'exl.*', 'explain.write()', queue => 'explain', job_name => 'write') > 0 AS created;
SELECT event_queue.create_rule('ex slow', 'exl.*', 'pg_sleep(60) IS NULL', queue => 'explain', job_name => 'slow') > 0 AS created;
SET ROLE eq_explainer;
SELECT step, part, seen, outcome FROM event_queue.explain_rule('ex role', :'won') WHERE step IN ('condition', 'verdict');
SELECT aggregate_id, outcome FROM event_queue.test_rule('ex role', max_rows => 3);
-- from the end, if no start is given
SELECT aggregate_id FROM event_queue.test_rule('ex role', max_rows => 1) UNION ALL SELECT aggregate_id FROM event_queue.test_rule('ex role', from_position => 0, max_rows => 1);
RESET ROLE;
SELECT DISTINCT outcome FROM event_queue.test_rule('ex write') WHERE event_type = 'exl.moved';
SELECT outcome FROM event_queue.test_rule('ex slow', max_rows => 1);
SET statement_timeout = '100 ms';
\set VERBOSITY terse
SELECT outcome FROM event_queue.test_rule('ex slow', max_rows => 1);
\set VERBOSITY default
RESET statement_timeout;
-- What a condition can do without writing is undone, too: notifications, and locks of the session, but those that it had.
SELECT pg_advisory_lock(-1), pg_advisory_lock_shared(-2, -3);
CREATE FUNCTION explain.traces() RETURNS boolean LANGUAGE sql AS $$
	SELECT pg_notify('explain', 'seen'), pg_advisory_lock(-1), pg_advisory_lock_shared(-4), pg_advisory_lock(-5, 6), pg_advisory_lock_shared(-7, -8), pg_advisory_xact_lock(9);
	SELECT set_config('work_mem', '1234kB', false) IS NOT NULL
$$;
LISTEN explain;
SELECT event_queue.create_rule('ex traces', 'exl.*', 'explain.traces()', queue => 'explain', job_name => 'traces', tenant_id => 'none') > 0 AS created;
SELECT DISTINCT outcome FROM event_queue.test_rule('ex traces', definition => '{"condition": "explain.traces()", "tenant_id": null}') WHERE event_type = 'exl.moved';
SELECT DISTINCT change FROM event_queue.compare_rule('ex traces', '{"condition": "explain.traces()", "tenant_id": null}') WHERE event_type = 'exl.moved';
SELECT outcome FROM event_queue.explain_rule('ex traces', :'won') WHERE step IN ('condition', 'verdict');
SELECT event_queue.rule_facts('ex traces', 1, :'won') -> 'facts' AS facts;
UNLISTEN explain;
SELECT mode, classid::bigint, objid::bigint, objsubid FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid() ORDER BY 1, 2;
SELECT pg_advisory_unlock_all();
SHOW work_mem;
SELECT event_queue.drop_rule('ex traces');
SELECT event_queue.drop_rule('ex slow') AND event_queue.drop_rule('ex write') AS dropped;
SELECT count(*) FROM explain.wanted;
SHOW transaction_read_only;
SELECT current_user = session_user AS same;
SELECT count(*) FROM event_queue.faults() WHERE item LIKE 'ex %';

-- What was written by hand, or has no owner any more, is told, and breaks nothing.
UPDATE event_queue.rule SET condition = $$event_data ->> 'a$$ WHERE name = 'ex or';
SELECT part, outcome FROM event_queue.explain_rule('ex or', :'won') WHERE step = 'condition';
UPDATE event_queue.rule SET condition = 'true) OR (true', owner = 0 WHERE name = 'ex or';
SELECT step, part, seen, outcome FROM event_queue.explain_rule('ex or', :'won') WHERE step IN ('state', 'condition');

-- Who is bound to a tenant learns nothing of others' rules and events.
SELECT event_queue.create_rule('ex acme', 'exl.*', queue => 'explain', job_name => 'acme', tenant_id => 'acme') > 0 AS created;
SELECT id AS of_acme FROM event_queue.append('exl', 'E1', 'exl.moved', tenant_id => 'acme') \gset
CREATE ROLE eq_explain_acme;
SELECT event_queue.grant_producer('eq_explain_acme', 'acme');
GRANT eq_explain_acme TO eq_explainer;
CALL wait_until($$EXISTS (SELECT FROM event_queue.job WHERE name = 'acme')$$);
SET ROLE eq_explainer;
SELECT event_queue.current_tenant();
SELECT replace(c, :'won', 'ID') FROM unnest(ARRAY[try(format('SELECT event_queue.explain_rule(%L, %L)', 'ex won', :'of_acme')),
	try(format('SELECT event_queue.explain_rule(%L, %L)', 'ex acme', :'won')), try($$SELECT event_queue.test_rule('ex won')$$)]) c;
SELECT outcome FROM event_queue.explain_rule('ex acme', :'of_acme') WHERE step = 'verdict';
SELECT tenant_id, outcome FROM event_queue.test_rule('ex acme');
SELECT try(format('SELECT event_queue_internal.try_rule(%s, 1)', :all_id)), try(format('SELECT event_queue_internal.condition_parts(%s, 1, NULL)', :all_id));
RESET ROLE;
SELECT event_queue.revoke_access('eq_explainer');
SELECT event_queue.revoke_access('eq_explain_acme');
DROP ROLE eq_explainer, eq_explain_acme;

SELECT event_queue.drop_rule(name) FROM event_queue.rules WHERE name LIKE 'ex %';
SELECT event_queue.purge_queue('rule-calls') > 0 AS purged;
SELECT event_queue.alter_queue('rule-calls', reset => '{backoff_delay}');
SELECT event_queue.drop_queue('explain', force => true);
DROP SCHEMA explain CASCADE;
