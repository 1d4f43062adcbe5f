-- Options of jobs: one parser for enqueue, enqueue_many and enqueue_flow.
SELECT event_queue.create_queue('opt') > 0 AS created, event_queue.create_queue('opt too') > 0 AS created;
CREATE FUNCTION try_it(command text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	detail text;
	hint text;
BEGIN
	EXECUTE command;
	RETURN 'no error';
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
	RETURN concat_ws(' | ', SQLSTATE || ': ' || SQLERRM, nullif(detail, ''), nullif(hint, ''));
END
$$;

-- What can be an argument can be an option.  What is null is not given.
SELECT event_queue.enqueue('opt', 'all', options => '{"delay": "1 hour", "priority": 2, "unique_key": "k", "group_key": 7, "depends_on": null,
	"max_attempts": 4, "backoff": "fixed", "time_limit": "1 min", "unique_mode": "reject", "metadata": {"a": 1}}') AS a \gset
SELECT name, priority, unique_key, group_key, max_attempts, (retry).backoff, time_limit, metadata, run_at > now() + '59 min' AS later
FROM event_queue.job WHERE job_id = :a;
SELECT event_queue.enqueue('opt', 'after', depends_on => ARRAY[:a]) = :a + 1 AS enqueued;
SELECT event_queue.enqueue('opt', 'after', options => jsonb_build_object('depends_on', jsonb_build_array(:a, (:a + 1)::text))) = :a + 2 AS enqueued;
SELECT count(*) FROM event_queue.job_dependency WHERE job_id = :a + 2;

SELECT o, try_it(format('SELECT event_queue.enqueue(''opt'', ''x'', delay => ''1 s'', priority => 3, options => %L)', o)) FROM unnest('{
	"{\"speed\": 1}", "{\"name\": \"y\"}", "[]", "1", "{\"priority\": 4}", "{\"run_at\": \"2030-01-01\"}",
	"{\"max_attempts\": \"3\"}", "{\"max_attempts\": 1.5}", "{\"max_attempts\": 1e30}", "{\"time_limit\": 5}", "{\"group_key\": true}", "{\"unique_key\": \"\"}",
	"{\"depends_on\": 1}", "{\"depends_on\": [true]}", "{\"depends_on\": [\"x\"]}", "{\"metadata\": 1}", "{\"metadata\": null}"
}'::text[]) o;
SELECT try_it($$SELECT event_queue.enqueue('opt', 'x', options => '{"run_at": "soon"}')$$), try_it($$SELECT event_queue.enqueue('opt', 'x', options => '{"priority": "high"}')$$),
	try_it($$SELECT event_queue.enqueue('opt', 'x', options => '{"priority": 10}')$$);

-- Ids come in the order of the array, whichever way a job takes, and grow with it.
SELECT event_queue.enqueue_many('opt', '[]') AS none;
SELECT event_queue.enqueue_many('opt', '[{"payload": 1, "unique_key": "m"}, {"payload": 2}, {"payload": 3, "unique_key": "m"}, {"payload": null, "queue": "opt too", "priority": 0},
	{"group_key": "g", "run_at": "2001-01-01+00", "name": "own"}]', options => '{"name": "m", "priority": 8, "delay": "1 h", "max_attempts": 2, "backoff_intervals": ["1 s"]}') AS ids \gset
SELECT (:'ids'::bigint[])[3] = (:'ids'::bigint[])[1] AS one_key, (:'ids'::bigint[])[1] < (:'ids'::bigint[])[2] AND (:'ids'::bigint[])[2] < (:'ids'::bigint[])[4] AS grow;
SELECT q.name AS queue, j.name, j.priority, j.payload, j.max_attempts, (j.retry).backoff, j.run_at > now() + '1 min' AS later, group_key
FROM event_queue.job j JOIN event_queue.queue q USING (queue_id) WHERE job_id = ANY (:'ids') ORDER BY job_id;
SELECT event_queue.enqueue_many(NULL, '[{"queue": "opt", "name": "a"}, {"queue": "opt too", "name": "b"}]') IS NOT NULL AS enqueued;
SELECT event_queue.enqueue_many('opt', '[{"name": "good"}, {"name": "bad", "priority": 10}]');
SELECT try_it($$SELECT event_queue.enqueue_many(NULL, '[{"name": "a"}]')$$), try_it($$SELECT event_queue.enqueue_many('opt', '[{}]')$$),
	try_it($$SELECT event_queue.enqueue_many('opt', '[1]')$$), try_it($$SELECT event_queue.enqueue_many('opt', NULL)$$),
	try_it($$SELECT event_queue.enqueue_many('opt', '[{"name": "a"}]', options => '{"queue": "opt too"}')$$),
	try_it($$SELECT event_queue.enqueue_many('opt', to_jsonb(array_fill('{}'::jsonb, '{100001}')), options => '{"name": "x"}')$$);

-- An error in the midst of those that are written one by one leaves nothing, and the caller's subtransactions as they were.
SELECT count(*) AS jobs FROM event_queue.job \gset
DO $$
BEGIN
	BEGIN
		PERFORM event_queue.enqueue_many('opt', '[{"name": "good"}, {"name": "bad", "depends_on": [999999999]}]');
	EXCEPTION WHEN SQLSTATE 'EQ032' THEN
		RAISE NOTICE '%', SQLERRM;
	END;
	PERFORM event_queue.enqueue('opt', 'last');
END
$$;
SELECT count(*) - :jobs AS new FROM event_queue.job;

-- A flow: defaults, dependencies besides the children, and a key that is taken.
SELECT event_queue.enqueue_flow('opt', jsonb_build_object('name', 'top', 'depends_on', jsonb_build_array(:a), 'children', '[{"unique_key": "k"}, {"queue": "opt too", "children": null}]'::jsonb),
	options => '{"name": "child", "max_attempts": 9}') AS top \gset
SELECT d.depends_on = :a AS given, d.name, j.max_attempts FROM event_queue.job_dependency d JOIN event_queue.job j ON j.job_id = d.depends_on WHERE d.job_id = :top ORDER BY d.depends_on;
SELECT try_it($$SELECT event_queue.enqueue_flow('opt', '{"name": "x", "children": 1}')$$), try_it($$SELECT event_queue.enqueue_flow('opt', '{"children": [{"name": "x"}]}')$$),
	try_it('SELECT event_queue.enqueue_flow(''opt'', ''' || repeat('{"name": "x", "children": [', 101) || repeat(']}', 101) || ''')');

-- What is named as in Bull, compared as if it were a number, or another tenant's: the hint says what to write.
SELECT try_it(format($$SELECT event_queue.enqueue('opt', 'x', options => '{%s}')$$, o)) FROM unnest(ARRAY['"attempts": 3', '"jobId": "a"', '"removeOnComplete": true',
	'"attempt": 3', '"backoff": {"type": "exponential", "delay": 1000}', '"delay": 5000']) AS o;
SELECT try_it($$SELECT event_queue.create_rule('opt', 'x', 'event_data ->> ''step'' = 2', queue => 'opt', job_name => 'x')$$);
SET event_queue.tenant = 'acme';
SELECT try_it($$SELECT event_queue.enqueue('opt', 'x', tenant_id => 'other')$$);
RESET event_queue.tenant;

SELECT event_queue.drop_queue('opt', force => true), event_queue.drop_queue('opt too', force => true);
DROP FUNCTION try_it;

-- Rules and schedules have the same options.
SELECT event_queue.create_queue('opt rules') > 0 AS created;
CREATE FUNCTION try_it(command text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE command;
	RETURN 'no error';
EXCEPTION WHEN OTHERS THEN
	RETURN SQLSTATE || ': ' || SQLERRM;
END
$$;
SELECT event_queue.create_rule('opt', 'opt.*', queue => 'opt rules', job_name => 'contact', condition => $$event_data ->> 'skip' IS NULL$$,
	options => '{"group_key": "$.data.phone", "unique_key": "$.aggregate_id", "unique_mode": "debounce", "delay": "$.data.wait",
		"priority": "$.data.urgency", "max_attempts": 2, "metadata": {"source": "crm"}}') > 0 AS created;
SELECT event_queue.create_rule('plain', 'opt.*', queue => 'opt rules', job_name => 'plain', delay => '1 min', priority => 1, options => '{"backoff": "fixed"}') > 0 AS created;
SELECT count(event_queue.append('opt', id, 'opt.added', data::jsonb)) FROM (VALUES
	('a', '{"phone": 55, "wait": "1 h", "urgency": 2}'), ('a', '{"phone": "56", "wait": "1 h"}'), ('b', '{"skip": 1}'), ('c', '{}'), ('d', '{"wait": "soon"}')) e (id, data);
CALL wait_until($$(SELECT count(*) = 5 FROM event_queue.job WHERE name = 'plain') AND EXISTS (SELECT FROM event_queue.job WHERE name = 'rule-call' AND errors IS NOT NULL)$$);
SELECT j.name, j.priority, j.group_key, j.unique_key, j.max_attempts, (j.retry).backoff, j.metadata ->> 'source' AS source, j.metadata ->> 'rule' AS rule, j.run_at > now() + '59 min' AS later
FROM event_queue.job j JOIN event_queue.queue q USING (queue_id) WHERE q.name = 'opt rules' ORDER BY j.name, j.unique_key, j.job_id;
-- what an event says may be wrong
SELECT errors -> -1 ->> 'message' AS message FROM event_queue.job WHERE name = 'rule-call' AND metadata ->> 'rule' = 'opt';
DELETE FROM event_queue.job WHERE name = 'rule-call';
SELECT name, priority, options ->> 'backoff' AS backoff FROM event_queue.rules WHERE queue = 'opt rules' ORDER BY name;
SELECT event_queue.create_rule('plain', 'opt.*', queue => 'opt rules', job_name => 'plain', delay => '1 min', priority => 1, options => '{"backoff": "linear"}', if_not_exists => true) > 0 AS there;
SELECT event_queue.create_rule('plain', 'opt.*', queue => 'opt rules', job_name => 'plain', or_replace => true) > 0 AS replaced;
SELECT delay_seconds, priority, options FROM event_queue.rules WHERE name = 'plain';
SELECT o, try_it(format('SELECT event_queue.create_rule(''bad'', ''bad'', queue => ''opt rules'', job_name => ''bad'', priority => 3, delay => ''1 s'', options => %L)', o)) FROM unnest('{
	"{\"speed\": 1}", "{\"tenant_id\": \"x\"}", "{\"priority\": \"$.data.p\"}", "{\"run_at\": \"$.data.at\"}", "{\"max_attempts\": \"$.data.n\"}",
	"{\"unique_mode\": \"replace\"}", "{\"unique_key\": \"$.(\"}", "{\"backoff\": \"list\"}"
}'::text[]) o;
SELECT try_it($$SELECT event_queue.create_rule('bad', 'bad', function => 'pg_catalog.now', options => '{"backoff": "fixed"}')$$);

SELECT event_queue.create_schedule('opt', '* * * * *', 'opt rules', 'by the clock', options => '{"priority": 7, "time_limit": "5 s", "metadata": {"source": "clock"}}') > 0 AS created;
SELECT event_queue.create_schedule('opt', '* * * * *', 'opt rules', 'by the clock', options => '{"priority": 7, "time_limit": "5 s", "metadata": {"source": "clock"}}', if_not_exists => true) > 0 AS same;
SELECT priority, options ->> 'time_limit' AS time_limit FROM event_queue.schedules WHERE name = 'opt';
UPDATE event_queue.schedule SET next_run = now() WHERE name = 'opt';
CALL wait_until($$EXISTS (SELECT FROM event_queue.job WHERE name = 'by the clock')$$);
SELECT priority, time_limit, metadata ->> 'source' AS source, metadata ->> 'schedule' AS schedule FROM event_queue.job WHERE name = 'by the clock' LIMIT 1;
SELECT o, try_it(format('SELECT event_queue.create_schedule(''bad'', ''* * * * *'', ''opt rules'', ''bad'', priority => 3, options => %L)', o)) FROM unnest('{
	"{\"speed\": 1}", "{\"priority\": 4}", "{\"run_at\": \"2030-01-01\"}", "{\"unique_mode\": \"replace\"}", "[]"}'::text[]) o;
SELECT try_it($$SELECT event_queue.create_schedule('bad', '* * * * *', 'opt rules', 'bad', priority => 10)$$);
SELECT event_queue.drop_schedule('opt'), event_queue.drop_rule('opt'), event_queue.drop_rule('plain');
SELECT event_queue.drop_queue('opt rules', force => true);
DROP FUNCTION try_it;
