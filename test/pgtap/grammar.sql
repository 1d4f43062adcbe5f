-- What is created and altered: one grammar, from the catalogs.
BEGIN;
SELECT no_plan();
SET LOCAL client_min_messages = warning;
CREATE ROLE grammar_observer;
SELECT event_queue.grant_observer('grammar_observer') AS granted \gset
CREATE TEMPORARY VIEW argument AS
	SELECT p.oid, p.proname, a.name, a.type::regtype AS type, a.n, a.n > p.pronargs - p.pronargdefaults AS has_default
	FROM pg_proc p, unnest(p.proargnames[1:p.pronargs], p.proargtypes::oid[]) WITH ORDINALITY AS a (name, type, n)
	WHERE p.pronamespace = 'event_queue'::regnamespace;

SELECT is_empty($$
	SELECT p.oid::regprocedure FROM pg_proc p
	WHERE p.pronamespace = 'event_queue'::regnamespace AND p.proname ~ '^(create|notify_on|record_changes)'
	  AND NOT EXISTS (SELECT FROM argument a WHERE a.oid = p.oid AND a.name IN ('or_replace', 'if_not_exists'))
$$, 'what creates something can run twice');
SELECT is_empty($$
	SELECT a.oid::regprocedure, a.name FROM argument a
	WHERE a.name IN ('or_replace', 'if_not_exists') AND NOT (a.type = 'boolean'::regtype AND a.has_default)
$$, 'or_replace and if_not_exists are switches, off by default');
SELECT is_empty($$
	SELECT p.oid::regprocedure FROM pg_proc p
	WHERE p.pronamespace = 'event_queue'::regnamespace AND p.proname ~ '^create_'
	  AND NOT EXISTS (SELECT FROM pg_proc d WHERE d.pronamespace = p.pronamespace AND d.proname = replace(p.proname, 'create', 'drop'))
	  AND p.proname <> 'create_event_partition'		-- seal, split and archive
$$, 'what is created can be dropped');
-- What an alert is about is not altered, but by or_replace.
SELECT is_empty($$
	SELECT coalesce(c.proname, a.proname), name, c.type, a.type
	FROM (SELECT proname, substr(proname, 8) AS kind, name, type FROM argument WHERE proname ~ '^create_' AND name NOT IN ('or_replace', 'if_not_exists')) c
	FULL JOIN (SELECT proname, substr(proname, 7) AS kind, name, type FROM argument WHERE proname ~ '^alter_' AND name <> 'reset') a USING (kind, name)
	WHERE kind IN (SELECT substr(proname, 7) FROM argument WHERE proname ~ '^alter_') AND c.type IS DISTINCT FROM a.type
	  AND (kind, name) NOT IN (('alert', 'kind'), ('alert', 'queue'))
$$, 'alter_* has the arguments of create_*');
SELECT is_empty($$
	SELECT p.oid::regprocedure FROM pg_proc p
	WHERE p.pronamespace = 'event_queue'::regnamespace AND p.proname ~ '^(drop|pause|resume|alter)_' AND NOT EXISTS (
		SELECT FROM pg_proc c WHERE c.pronamespace = p.pronamespace AND c.proname = 'create_' || substring(p.proname FROM '_(.*)'))
	UNION ALL
	SELECT p.oid::regprocedure FROM pg_proc p
	WHERE p.pronamespace = 'event_queue'::regnamespace AND p.proname ~ '^pause_'
	  AND NOT EXISTS (SELECT FROM pg_proc r WHERE r.pronamespace = p.pronamespace AND r.proname = replace(p.proname, 'pause', 'resume'))
$$, 'what is dropped, altered, paused or resumed was created, and what is paused can be resumed');
SELECT is_empty($$
	SELECT kind FROM (SELECT DISTINCT substr(proname, 8) AS kind FROM pg_proc WHERE pronamespace = 'event_queue'::regnamespace AND proname ~ '^create_') k
	WHERE NOT EXISTS (SELECT FROM pg_class c WHERE c.relnamespace = 'event_queue'::regnamespace AND c.relkind IN ('r', 'v')
		AND c.relname IN (kind, kind || 's', kind || '_definitions', kind || 'es') AND has_table_privilege('grammar_observer', c.oid, 'SELECT'))
$$, 'what is created can be listed, by an observer');
-- expected_version takes words, too; map_payload takes what event_as_json returns.
SELECT is_empty($$
	SELECT name, array_agg(DISTINCT type), array_agg(DISTINCT proname) FROM argument
	WHERE name NOT IN ('expected_version', 'event') GROUP BY 1 HAVING count(DISTINCT type) > 1
$$, 'arguments of one name are of one type');
-- Not the same in both: name (of the thing, or of a job of the queue), after_position (of what is waited for, or an option),
-- tenant_column (created last in create_rule); tenant_id comes last, or before what is rarely given.
SELECT is_empty($$
	SELECT x.name AS first, y.name AS second, array_agg(DISTINCT x.proname) AS here, array_agg(DISTINCT w.proname) AS there
	FROM argument x JOIN argument y ON x.oid = y.oid AND x.n < y.n JOIN argument w ON w.name = x.name
		JOIN argument z ON z.oid = w.oid AND z.name = y.name AND z.n < w.n
	WHERE x.name < y.name AND 'tenant_id' NOT IN (x.name, y.name)
	  AND (x.name, y.name) NOT IN (('name', 'queue'), ('after_position', 'timeout'), ('or_replace', 'tenant_column')) GROUP BY 1, 2
$$, 'two arguments come in one order in all functions');
-- The first argument is the thing: by its name if the function says of what kind it is.
SELECT is_empty($$
	SELECT p.oid::regprocedure, p.proargnames[1] FROM pg_proc p
	WHERE p.pronamespace = 'event_queue'::regnamespace AND p.proargnames[1] IS DISTINCT FROM CASE
		WHEN p.proname IN ('preview_schedule', 'postpone_queue', 'give_up_job', 'postpone_job') THEN p.proargnames[1]	-- of no thing, or of the present one
		WHEN p.proname ~ '_(queue|rule|schedule|subscription|alert|calendar|draft|parked)$' THEN 'name'
		WHEN p.proname ~ '^rule_' THEN 'rule'
		WHEN p.proname ~ '_(reducer|aggregate)$' THEN 'aggregate_type'
		WHEN p.proname ~ '(_jobs|_handler|_waiting|_failed|_all_dead)$|^(enqueue|claim|queue_)' AND p.proname <> 'queue_health' THEN 'queue'
		WHEN p.proname ~ '_(job|dead|lease)$|^(complete|fail|release|report_progress)$' AND p.proname <> 'import_dead' AND p.proargnames[1] <> 'job' THEN 'job_id'
		WHEN p.proname ~ '^grant_|^revoke_' THEN 'role'
		ELSE p.proargnames[1] END
$$, 'the first argument is the thing');
SELECT is_empty($$
	SELECT p.oid::regprocedure FROM pg_proc p
	WHERE p.pronamespace = 'event_queue'::regnamespace AND p.proname ~ '^alter_' AND NOT EXISTS (
		SELECT FROM pg_proc c WHERE c.pronamespace = p.pronamespace AND c.proname = replace(p.proname, 'alter', 'create'))
$$, 'what can be altered was created');
SELECT is_empty($$
	SELECT a.oid::regprocedure, a.name FROM argument a
	WHERE a.name ~ '_id$' AND a.type IN ('integer'::regtype, 'bigint'::regtype) AND a.name <> 'job_id'
$$, 'functions take names, not numbers, but for jobs');
-- An int is a number of a thing, a version, an attempt, a priority or a process: no count of rows.
SELECT is_empty($$
	SELECT p.oid::regprocedure FROM pg_proc p
	WHERE p.pronamespace = 'event_queue'::regnamespace AND p.prorettype IN ('integer'::regtype, 'smallint'::regtype)
	  AND p.proname !~ '^create_' AND p.proname NOT IN ('aggregate_version', 'take_snapshot', 'rollback_rule', 'activate_rule')
$$, 'functions count in bigint');
SELECT is_empty($$
	SELECT what, column_name FROM (
		SELECT p.oid::regprocedure::text, a.name, a.type FROM pg_proc p, unnest(p.proallargtypes, p.proargmodes, p.proargnames) AS a (type, mode, name)
		WHERE p.pronamespace = 'event_queue'::regnamespace AND a.mode IN ('o', 'b', 't')
		UNION ALL
		SELECT c.oid::regclass::text, a.attname, a.atttypid FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0
		WHERE c.relnamespace = 'event_queue'::regnamespace AND c.relkind IN ('v', 'c')) AS x (what, column_name, type)
	WHERE type IN ('integer'::regtype, 'smallint'::regtype)
	  AND column_name NOT IN ('version', 'priority', 'attempt', 'max_attempts', 'failures', 'stalled', 'nth', 'depth', 'pid', 'buckets', 'rule_order',
		'time_limit_ms', 'keep_completed_count', 'keep_failed_count', 'batch_size', 'max_executors', 'blocked_by', 'rule_id', 'handler_id', 'schedule_id')
$$, 'so do views and results');

-- Creating what is there.
CREATE FUNCTION public.grammar_handler(job event_queue.claimed_job) RETURNS void LANGUAGE sql AS 'SELECT';
CREATE FUNCTION public.grammar_reducer(state jsonb, event event_queue.event_store) RETURNS jsonb LANGUAGE sql IMMUTABLE AS 'SELECT $1';
CREATE TEMPORARY TABLE creation (call text, code text, other text);
INSERT INTO creation VALUES
	($$create_queue('grammar'$$, 'EQ011', $$, lease => '1 minute'$$),
	($$create_rule('grammar', 'x.y', queue => 'grammar', job_name => 'x'$$, 'EQ018', $$, delay => '1 s'$$),
	($$create_handler('grammar', 'x', 'grammar_handler'$$, 'EQ018', $$, time_limit => '1 s'$$),
	($$create_schedule('grammar', '@daily', 'grammar', 'x'$$, 'EQ018', $$, priority => 1$$),
	($$create_subscription('grammar'$$, 'EQ018', $$, filter => '{"event_type": "x"}'$$),
	($$create_reducer('grammar', 'grammar_reducer'$$, 'EQ018', $$, snapshot_every => 5$$),
	($$create_event_index('event_data'$$, 'EQ018', NULL);
SELECT lives_ok(format('SELECT event_queue.%s)', call), call || ')') FROM creation;
SELECT throws_ok(format('SELECT event_queue.%s)', call), code::char(5), NULL, call || ') again') FROM creation;
SELECT throws_ok(format('SELECT event_queue.%s, or_replace => true, if_not_exists => true)', call), 'EQ009', NULL, call || ') in two ways')
	FROM creation WHERE other IS NOT NULL;
CREATE TEMPORARY VIEW made AS
	SELECT 'queue' AS what, to_jsonb(q) AS it FROM event_queue.queue q UNION ALL
	SELECT 'rule', to_jsonb(r) FROM event_queue.rule r UNION ALL
	SELECT 'handler', to_jsonb(h) FROM event_queue.handler h UNION ALL
	SELECT 'schedule', to_jsonb(s) FROM event_queue.schedule s UNION ALL
	SELECT 'subscription', to_jsonb(s) FROM event_queue.subscription s UNION ALL
	SELECT 'reducer', to_jsonb(r) FROM event_queue.reducer r;
CREATE TEMPORARY TABLE once AS SELECT * FROM made;
SELECT lives_ok(format('SELECT event_queue.%s%s, if_not_exists => true)', call, other), call || ') if not exists') FROM creation;
SELECT set_eq('SELECT * FROM made', 'SELECT * FROM once', 'nothing has changed');
SELECT lives_ok(format('SELECT event_queue.%s%s, or_replace => true)', call, other), call || ') or replace') FROM creation WHERE other IS NOT NULL;
SELECT results_eq('SELECT what, count(*) FROM made WHERE it NOT IN (SELECT it FROM once) GROUP BY what ORDER BY what',
	$$VALUES ('handler', 1::bigint), ('queue', 1), ('reducer', 1), ('rule', 1), ('schedule', 1), ('subscription', 1)$$, 'each is as given now');

-- alter_queue: what is given, what is reset, and nothing else; defaults are those of create_queue.
SELECT event_queue.create_queue('grammar plain') > 0 AND event_queue.create_queue('grammar full', '1 minute', '1 second', 5, 7, 'linear', '3 seconds', '1 minute',
	0.5, '1 hour', '2 hours', 10, '1 minute', 20, '5 minutes', '{1 s}', 30, 40, true, 3, 50, '2 minutes', 'pass', false, 0.5, 'us', 'https://docs.example', true) > 0 AS created \gset
CREATE TEMPORARY VIEW setting AS SELECT q.name AS queue, s.key, translate(s.value, '[]', '{}') AS value FROM event_queue.queue q, jsonb_each_text(to_jsonb(q)) s
	WHERE s.key IN (SELECT name FROM argument WHERE proname = 'create_queue' AND name NOT IN ('name', 'or_replace', 'if_not_exists'));
CREATE TEMPORARY TABLE wanted AS SELECT p.key, p.value AS plain, f.value AS "full" FROM setting p JOIN setting f USING (key)
	WHERE p.queue = 'grammar plain' AND f.queue = 'grammar full';
SELECT is(count(*), 27::bigint, 'settings') FROM wanted;
SELECT is_empty('SELECT * FROM wanted WHERE plain IS NOT DISTINCT FROM "full"', 'all are others in the full one');
-- Written by hand, a row has the table's defaults.
INSERT INTO event_queue.queue (name) VALUES ('grammar row');
SELECT is_empty($$SELECT * FROM setting s JOIN wanted w USING (key) WHERE s.queue = 'grammar row' AND s.value IS DISTINCT FROM w.plain$$,
	'create_queue has the defaults of the table');
CREATE FUNCTION pg_temp.altered(given text, reset text) RETURNS SETOF text LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE format('SELECT event_queue.alter_queue(''grammar full''%s)', given);
	RETURN QUERY SELECT w.key FROM setting s JOIN wanted w USING (key) WHERE s.queue = 'grammar full' AND s.value IS DISTINCT FROM w."full";
	EXECUTE format('SELECT event_queue.alter_queue(''grammar full''%s)', reset);
	RETURN QUERY SELECT 'not back: ' || w.key FROM setting s JOIN wanted w USING (key) WHERE s.queue = 'grammar full' AND s.value IS DISTINCT FROM w."full";
END
$$;
SELECT is_empty($$SELECT pg_temp.altered('', '')$$, 'alter_queue of nothing');
SELECT results_eq(format('SELECT pg_temp.altered(%L, %L)', format(', reset => %L', ARRAY[key]),
		format(', %I => %L', key, "full")), ARRAY[key], 'reset and given: ' || key) FROM wanted;
SELECT results_eq(format('SELECT pg_temp.altered(%L, %L)', format(', %I => %L', key, plain), format(', %I => %L', key, "full")),
	ARRAY[key], 'given: ' || key) FROM wanted WHERE plain IS NOT NULL;
SELECT lives_ok(format('SELECT event_queue.alter_queue(%L, reset => %L)', 'grammar full', (SELECT array_agg(key) FROM wanted)), 'all are reset at once');
SELECT is_empty($$SELECT * FROM setting s JOIN wanted w USING (key) WHERE s.queue = 'grammar full' AND s.value IS DISTINCT FROM w.plain$$, 'to the defaults');
SELECT throws_ok($$SELECT event_queue.alter_queue('grammar', reset => '{paused}')$$, 'EQ012', NULL, 'what is no setting');
SELECT throws_ok($$SELECT event_queue.alter_queue('grammar', lease => '1 s', reset => '{lease}')$$, 'EQ012', NULL, 'given and reset');
SELECT * FROM finish();
ROLLBACK;
