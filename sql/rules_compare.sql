-- What another definition of a rule would do, and drafts.
SELECT event_queue.create_queue('rc') IS NOT NULL AS created;
SELECT count(event_queue.append('rc', 'A', CASE n % 3 WHEN 0 THEN 'rc.z' ELSE 'rc.x' END, jsonb_build_object('n', n, 'vip', n = 5))) FROM generate_series(1, 6) n;
SELECT event_queue.create_rule('rc', 'rc.x', $$(event_data ->> 'n')::int < 5$$, queue => 'rc', job_name => 'a', payload => '{"n": "$.data.n"}') > 0 AS created;
CREATE VIEW rc_all AS SELECT count(*) AS jobs, (SELECT count(*) FROM event_queue.rule_versions WHERE rule = 'rc') AS versions,
	(SELECT count(*) FROM event_queue.event_store WHERE aggregate_type = 'rc') AS events FROM event_queue.job WHERE queue_id = event_queue_internal.queue_id_of('rc');
SELECT * FROM rc_all;
CREATE FUNCTION rc(definition jsonb) RETURNS TABLE (n int, change text, outcome text, new_outcome text, payload jsonb, new_payload jsonb) LANGUAGE sql AS $$
	SELECT (e.event_data ->> 'n')::int, c.change, c.outcome, c.new_outcome, c.payload, c.new_payload FROM event_queue.compare_rule('rc', definition) c JOIN event_queue.event_store e USING (position) $$;
SELECT * FROM rc('{}');
SELECT * FROM rc('{"condition": "(event_data ->> ''n'')::int > 3"}');
SELECT * FROM rc('{"condition": null}');
SELECT * FROM rc('{"event_pattern": "rc.*"}');
SELECT * FROM rc('{"payload": {"text": "No {{data.n}}"}}');
SELECT * FROM rc('{"tenant_id": "other"}');
SELECT * FROM rc('{"when_changed": ["vip"]}');
SELECT d, (SELECT string_agg(n || ' ' || change, ', ' ORDER BY n) FROM rc(d)) AS changes FROM unnest('{"{\"job_name\": \"b\"}","{\"delay\": \"1 h\"}","{\"priority\": 1}","{\"job_name\": \"a\"}"}'::jsonb[]) d;
SELECT * FROM rc('{"actions": [{"append": {"event_type": "rc.told {{data.n}}"}}]}');
SELECT * FROM rc('{"condition": "1 / ((event_data ->> ''n'')::int - 1) > 0"}');
-- It is evaluated without writing, and is one expression.
CREATE FUNCTION rc_writes() RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN DELETE FROM event_queue.job; RETURN true; END $$;
SELECT DISTINCT new_outcome FROM rc('{"condition": "public.rc_writes()"}');
SELECT d, try(format('SELECT * FROM rc(%L)', d)) FROM unnest(ARRAY['[]', '1', '{"none": 1}', '{"queue": "none"}', '{"condition": "true), (true"}', '{"function": "f", "queue": "rc"}',
	'{"when_changed": 1}', '{"owner": "none at all"}', '{"priority": "high"}', '{"delay": "soon"}', '{"rule_order": 1e100}']) d;
-- A definition by itself: of the rule with another condition, and of one that is not there.
SELECT (e.event_data ->> 'n')::int AS n, c.outcome, c.payload FROM event_queue.test_rule('rc', definition => '{"condition": "(event_data ->> ''n'')::int = 2"}') c JOIN event_queue.event_store e USING (position) ORDER BY 1;
SELECT (e.event_data ->> 'n')::int AS n, c.outcome, c.payload, c.options FROM event_queue.test_rule('not yet', definition => jsonb_build_object('event_pattern', 'rc.**',
	'actions', '[{"enqueue": {"queue": "rc", "name": "x", "payload": {"m": "$.data.n"}}}]'::jsonb)) c JOIN event_queue.event_store e USING (position) ORDER BY position;
SELECT try($$SELECT event_queue.test_rule('not yet')$$), try($$SELECT event_queue.test_rule('not yet', definition => '{}')$$), try($$SELECT event_queue.test_rule('rc', version => 1, definition => '{}')$$),
	try($$SELECT event_queue.test_rule('not yet', definition => '{"queue": "rc", "job_name": "x"}')$$), try($$SELECT event_queue.test_rule('not yet', definition => '{"event_pattern": "a", "queue": "no queue", "job_name": "x"}')$$),
	try($$SELECT event_queue.test_rule('rc', definition => '[]')$$), try($$SELECT event_queue.test_rule('rc', definition => '{"no member": 1}')$$);
SELECT d, try(format('SELECT event_queue.test_rule(%L, definition => jsonb_build_object(%L, %L::jsonb))', 'rc', 'actions', d)) FROM unnest(ARRAY['{"append": {"event_type": "x"}}', '[]', '1', '[1]', '[{"call": {}}]', '[{"enqueue": {"name": "x"}}]',
	'[{"enqueue": {"queue": "none", "name": "x"}}]', '[{"cancel": {"queue": "none", "unique_key": "x"}}]', '[{"notify": {"channel": "x"}}, {"append": {"event_type": "x"}}, {"tell": {}}]']) d;
SELECT count(*) FROM event_queue.rules WHERE name = 'not yet';
SELECT try($$SELECT event_queue.compare_rule('none')$$), try($$SELECT event_queue.compare_rule('rc')$$), try($$SELECT event_queue.compare_rule('rc', '{}', 1)$$),
	try($$SELECT event_queue.compare_rule('rc', '{}', max_rows => 0)$$), try($$SELECT event_queue.compare_rule('rc', version => 9)$$);
SELECT * FROM rc_all;

-- The range.
SELECT position AS third FROM event_queue.event_store WHERE aggregate_type = 'rc' AND version = 3 \gset
SELECT change, event_type FROM event_queue.compare_rule('rc', '{"condition": "false"}', from_position => :third);
SELECT change, event_type FROM event_queue.compare_rule('rc', '{"condition": "false"}', to_position => :third);
SELECT change, event_type FROM event_queue.compare_rule('rc', '{"condition": "false"}', max_rows => 1);

-- The rights of who asks: what he may not read, his condition does not read.
CREATE ROLE rc_admin;
SELECT event_queue.grant_admin('rc_admin');
CREATE TABLE rc_secret ();
SET ROLE rc_admin;
SELECT DISTINCT new_outcome FROM event_queue.compare_rule('rc', '{"condition": "EXISTS (SELECT FROM public.rc_secret)"}');
SELECT DISTINCT new_outcome FROM event_queue.compare_rule('rc', '{"owner": "postgres", "condition": "EXISTS (SELECT FROM public.rc_secret)"}');

-- Drafts: of the role that makes them, and of the one that puts them in force.
SELECT event_queue.create_rule('rc', 'rc.*', $$(event_data ->> 'n')::int < 7$$, queue => 'rc', job_name => 'a', payload => '{"n": "$.data.n"}', draft => true) > 0 AS drafted;
SELECT event_queue.create_rule('rc', 'rc.*', $$event_data @> '{"vip": true}'$$, queue => 'rc', job_name => 'a', draft => true) > 0 AS drafted;
SELECT version, present, draft, made_by, definition ->> 'condition' AS condition FROM event_queue.rule_versions WHERE rule = 'rc' ORDER BY 1;
SELECT (e.event_data ->> 'n')::int AS n, c.change FROM event_queue.compare_rule('rc') c JOIN event_queue.event_store e USING (position);
SELECT (e.event_data ->> 'n')::int AS n, c.change FROM event_queue.compare_rule('rc', version => 2) c JOIN event_queue.event_store e USING (position);
SELECT outcome, count(*) FROM event_queue.test_rule('rc') GROUP BY 1 ORDER BY 1;
SELECT outcome, count(*) FROM event_queue.test_rule('rc', version => 3) GROUP BY 1 ORDER BY 1;
SELECT try($$SELECT event_queue.test_rule('rc', version => 9)$$), try($$SELECT event_queue.rollback_rule('rc', 3)$$), try($$SELECT event_queue.activate_rule('rc', 1)$$), try($$SELECT event_queue.activate_rule('none')$$);
-- A draft is its maker's code, whoever looks at it.
RESET ROLE;
CREATE SCHEMA rc_admin AUTHORIZATION rc_admin;
SET ROLE rc_admin;
CREATE FUNCTION rc_admin.whoever() RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'run by %', current_user; END $$;
SELECT event_queue.create_rule('rc', 'rc.x', 'rc_admin.whoever()', queue => 'rc', job_name => 'a', draft => true) AS drafted \gset
-- A list of actions that is none.
SELECT DISTINCT try(format('SELECT count(*) FROM event_queue.%s(''rc'', definition => %L)', f, format('{"actions": %s}', a)))
FROM unnest('{test_rule,compare_rule}'::text[]) f, unnest('{"{}","[]",5,"\"x\"","{\"enqueue\": {\"queue\": \"rc\", \"name\": \"x\"}}"}'::text[]) a;
-- A definition has the rights of who calls, not of the session in which he does (a handler's is a superuser's).
CREATE FUNCTION rc_admin.ask() RETURNS SETOF text SECURITY DEFINER LANGUAGE sql AS $$
	SELECT DISTINCT outcome FROM event_queue.test_rule('rc', definition => '{"condition": "rc_admin.whoever()", "event_pattern": "rc.*"}')
	UNION ALL SELECT DISTINCT new_outcome FROM event_queue.compare_rule('rc', '{"condition": "rc_admin.whoever()", "event_pattern": "rc.*"}')
$$;
RESET ROLE;
SELECT rc_admin.ask();
-- Nor does a handler see what a rule of another role has seen.
CREATE TABLE rc_hidden AS SELECT 'hidden' AS what;
SELECT event_queue.create_rule('rc hidden', 'hidden.rc', $$(SELECT what FROM public.rc_hidden) = event_data ->> 'n'$$, queue => 'rc', job_name => 'h', tenant_id => 'default') > 0 AS created;
SELECT event_queue.create_queue('rc looks') > 0 AS created;
SELECT version FROM event_queue.append('rc hidden', 'A', 'hidden.rc', '{"n": 1}');
SELECT DISTINCT seen FROM event_queue.event_store e, event_queue.explain_rule('rc hidden', e.id) WHERE e.event_type = 'hidden.rc' AND step = 'condition';
SET ROLE rc_admin;
CREATE TABLE rc_admin.saw (what text);
CREATE FUNCTION rc_admin.look(job event_queue.claimed_job) RETURNS void LANGUAGE sql AS $$
	INSERT INTO rc_admin.saw SELECT seen FROM event_queue.event_store e, event_queue.explain_rule('rc hidden', e.id) WHERE e.event_type = 'hidden.rc' AND step = 'condition'
$$;
SELECT event_queue.create_handler('rc looks', 'look', 'rc_admin.look') > 0 AS created, event_queue.enqueue('rc looks', 'look') > 0 AS enqueued;
RESET ROLE;
CALL wait_until($$EXISTS (SELECT FROM rc_admin.saw)$$);
SELECT * FROM rc_admin.saw;
-- Nor does a function of his, whoever calls it; and a handler sees what his own rules see.
SET ROLE rc_admin;
CREATE FUNCTION rc_admin.seen(rule text) RETURNS TABLE (seen text, fact jsonb) SECURITY DEFINER LANGUAGE sql AS $$
	SELECT x.seen, event_queue.rule_facts(rule, 1, e.id) #> '{facts,0,seen}' FROM event_queue.event_store e, event_queue.explain_rule(rule, e.id) x WHERE e.event_type = 'hidden.rc' AND step = 'condition' $$;
RESET ROLE;
SELECT * FROM rc_admin.seen('rc hidden');
SET ROLE rc_admin;
SELECT event_queue.create_rule('rc own', 'hidden.rc', $$event_data ->> 'n' = '2'$$, queue => 'rc', job_name => 'h', tenant_id => 'default') > 0 AS created;
CREATE OR REPLACE FUNCTION rc_admin.look(job event_queue.claimed_job) RETURNS void LANGUAGE sql AS $$
	INSERT INTO rc_admin.saw SELECT concat_ws(' ', s.seen, s.fact) FROM rc_admin.seen('rc own') s $$;
RESET ROLE;
SELECT * FROM rc_admin.seen('rc own');
SELECT event_queue.enqueue('rc looks', 'look') > 0 AS enqueued;
CALL wait_until($$(SELECT count(*) FROM rc_admin.saw) = 2$$);
SELECT * FROM rc_admin.saw ORDER BY 1;
SELECT event_queue.drop_rule('rc hidden'), event_queue.drop_rule('rc own'), event_queue.drop_handler('rc looks', 'look'), event_queue.drop_queue('rc looks', force => true);
DROP TABLE rc_hidden;
SELECT DISTINCT new_outcome FROM event_queue.compare_rule('rc');
SELECT DISTINCT outcome FROM event_queue.test_rule('rc', version => (SELECT max(version) FROM event_queue.rule_versions WHERE rule = 'rc'));
ALTER ROLE rc_admin RENAME TO rc_renamed;
CREATE ROLE rc_admin;
SELECT event_queue.grant_admin('rc_admin');
SELECT DISTINCT new_outcome FROM event_queue.compare_rule('rc');
SELECT event_queue.revoke_access('rc_admin');
DROP ROLE rc_admin;
ALTER ROLE rc_renamed RENAME TO rc_admin;
SELECT event_queue.discard_draft('rc');
SELECT version, owner = 'rc_admin' AS of_admin FROM event_queue.rules WHERE name = 'rc' ORDER BY 1;
-- No superuser runs it as himself unawares.
SELECT try($$SELECT event_queue.activate_rule('rc', 2)$$);
SET ROLE rc_admin;
SELECT event_queue.activate_rule('rc', 2);
RESET ROLE;
SELECT version, owner = 'rc_admin' AS of_admin, condition FROM event_queue.rules WHERE name = 'rc';
SELECT version, present, draft, ended_at IS NOT NULL AS ended FROM event_queue.rule_versions WHERE rule = 'rc' ORDER BY 1;
SELECT event_queue.discard_draft('rc'), try($$SELECT event_queue.discard_draft('rc')$$);
-- The newest draft has its number when it is put in force, too.
SELECT event_queue.create_rule('rc', 'rc.*', queue => 'rc', job_name => 'b', draft => true) > 0 AS drafted;
SELECT event_queue.activate_rule('rc');
SELECT try($$SELECT event_queue.create_rule('none', 'rc.*', queue => 'rc', job_name => 'b', draft => true)$$), try($$SELECT event_queue.create_rule('rc', 'rc.*', queue => 'none', job_name => 'b', draft => true)$$),
	try($$SELECT event_queue.create_rule('rc', 'rc.*', 'no column', queue => 'rc', job_name => 'b', draft => true)$$), try($$SELECT event_queue.create_rule('rc', 'rc.*', queue => 'rc', job_name => 'b', draft => true, if_not_exists => true)$$);
SELECT version FROM event_queue.append('rc', 'B', 'rc.q');
CALL wait_until($$(SELECT jobs FROM rc_all) = 1$$);
SELECT name, metadata -> 'rule_version' AS version FROM event_queue.job WHERE queue_id = event_queue_internal.queue_id_of('rc');
SELECT event_queue.create_rule('rc', 'rc.*', queue => 'rc', job_name => 'c', draft => true) > 0 AS drafted;
SELECT event_queue.drop_rule('rc');
SELECT count(*) FROM event_queue.rule_versions WHERE rule = 'rc' AND ended_at IS NULL;
SELECT event_queue.revoke_access('rc_admin');
DROP VIEW rc_all;
DROP TABLE rc_secret;
DROP FUNCTION rc(jsonb), rc_writes();
DROP OWNED BY rc_admin;
DROP ROLE rc_admin;
SELECT event_queue.drop_queue('rc', force => true);
