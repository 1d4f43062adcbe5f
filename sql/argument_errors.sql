-- Bad arguments are told by their place and name, and nothing is guessed.

-- No function takes NULL for the name of a queue, unless it says that this means all of them.
SELECT event_queue.create_queue('args', backoff_delay => '1 hour') > 0 AS created;
CREATE FUNCTION with_null_queue(f pg_proc) RETURNS text LANGUAGE sql STABLE AS $f$
	SELECT format('SELECT event_queue.%I(%s)', $1.proname, string_agg(format('%I => %L::%s', a.name,
		CASE WHEN a.name IN ('queue', 'name') THEN NULL ELSE CASE a.type WHEN 'text' THEN 'x' WHEN 'bigint' THEN '0' WHEN 'interval' THEN '1 s'
			WHEN 'uuid' THEN '00000000-0000-7000-8000-000000000000' WHEN 'bigint[]' THEN '{}' WHEN 'uuid[]' THEN '{}'
			WHEN 'jsonb' THEN CASE a.name WHEN 'jobs' THEN '[{"name": "x"}]' ELSE '{"name": "x"}' END END END, a.type), ', ' ORDER BY a.nth))
	FROM (SELECT u.name, u.nth, format_type($1.proargtypes[u.nth - 1], NULL) AS type
		FROM unnest($1.proargnames[1:$1.pronargs]) WITH ORDINALITY u (name, nth)) a
	WHERE a.nth <= $1.pronargs - $1.pronargdefaults OR a.name = 'queue'
$f$;
SELECT array_agg(x.proname ORDER BY x.proname) AS functions, x.says FROM (
	SELECT p.proname, try(with_null_queue(p)) AS says FROM pg_proc p
	WHERE p.pronamespace = 'event_queue'::regnamespace AND p.prokind = 'f' AND p.proname NOT IN ('create_rule', 'create_alert', 'create_schedule', 'test_alert')
	  AND (p.proargnames[1:p.pronargs] @> '{queue}' OR p.proname LIKE '%\_queue' AND p.proargnames[1] = 'name')) x
GROUP BY x.says ORDER BY x.says;
SELECT try($$SELECT event_queue.create_rule('args', 'x', queue => NULL, job_name => 'x')$$),
	try($$SELECT event_queue.create_schedule('args', '* * * * *', NULL, 'x')$$);
SELECT try($$CALL event_queue.claim_wait(NULL, 1, '0 s')$$);
SELECT try($$SELECT event_queue.retry_all_dead('')$$), try($$SELECT event_queue.enqueue_many('args', '[{"name": "x"}, {"name": "x", "queue": ""}]')$$);

-- A list: which element, and which member.
CREATE FUNCTION try_place(statement text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	place text;
BEGIN
	EXECUTE statement;
	RETURN 'ok';
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS place = PG_EXCEPTION_CONTEXT;
	RETURN SQLSTATE || ': ' || SQLERRM || coalesce(', ' || (SELECT string_agg(p, ', ') FROM regexp_split_to_table(place, '\n') p WHERE p ~ '^(event|job|aggregate|child) \d'), '');
END
$$;
SELECT s, try(format('SELECT event_queue.append_many(%L, %L, %L)', 'args', '1', s)), try_place(format('SELECT event_queue.append_many(%L, %L, %L)', 'args', '1', s)) FROM unnest(ARRAY[
	'[{"event_type": "x", "id": "0190a000-0000-7000-8000-000000000001"}, {"event_type": "x", "id": "none"}]',
	'[{"event_type": "x", "id": "0190a000-0000-7000-8000-00000000000"}]',
	'[{"event_type": "x", "id": "0190a000-0000-7000-8000-0000000000011"}]',
	'[{"event_type": "x", "id": "{0190a000-0000-7000-8000-000000000001"}]',
	'[{"event_type": "x", "id": "01-90a000-0000-7000-8000-000000000001"}]',
	'[{"event_type": "x", "id": ""}]',
	'[{"event_type": "x"}, {"event_type": "x", "id": 7}]',
	'[{"event_type": "x"}, {"event_type": "x"}, {"event_type": ""}]',
	'[{"event_type": "x"}, 1]']) s;
SELECT try_place($$SELECT event_queue.append_batch('[{"aggregate_type": "args", "aggregate_id": "1", "events": [{"event_type": "x"}]},
	{"aggregate_type": "args", "aggregate_id": "2", "events": [{"event_type": "x"}, {"event_type": "x", "id": "none"}]}]')$$),
	try_place($$SELECT event_queue.append_batch('[{"aggregate_type": "args", "aggregate_id": "1", "events": [{"event_type": "x"}]}, {"aggregate_id": "1"}]')$$);
-- All that uuid takes is taken.
SELECT version FROM event_queue.append_many('args', 'forms', '[{"event_type": "x", "id": "{0190A000-0000-7000-8000-000000000001}"},
	{"event_type": "x", "id": "0190a000000070008000000000000002"}, {"event_type": "x", "id": "0190a000-00007000-8000-0000-0000-0003"}]');
SELECT try_place($$SELECT event_queue.enqueue_many('args', '[{"name": "x"}, {"name": "x", "run_at": "soon"}]')$$),
	try_place($$SELECT event_queue.enqueue_many('args', '[{"name": "x"}, {"name": "x", "depends_on": ["x"]}]')$$),
	try_place($$SELECT event_queue.enqueue_flow('args', '{"name": "x", "children": [{"name": "x"}, {"name": "x", "delay": "long"}]}')$$);
SELECT try(format('SELECT event_queue.%s', f)) FROM unnest(ARRAY[
	$$complete_many('{1,2}', '{0190a000-0000-7000-8000-000000000001,NULL}')$$, $$fail_many('{1,NULL}', array_fill(gen_random_uuid(), '{2}'), 'x')$$,
	$$extend_leases('{NULL}', array_fill(gen_random_uuid(), '{1}'))$$]) f;

-- An SQLSTATE is one.
SELECT event_queue.enqueue('args', 'fails') > 0 AS enqueued;
SELECT job_id, lease_token FROM event_queue.claim('args') \gset
SELECT s, try(format('SELECT event_queue.fail(%s, %L, %L, %L)', :job_id, :'lease_token', 'x', s)), try(format('SELECT event_queue.fail_many(ARRAY[%s], ARRAY[%L::uuid], %L, %L)', :job_id, :'lease_token', 'x', s))
FROM unnest(ARRAY['', '2201', '220123', '22o12', 'p0001', E'22\n12', 'ECONNREFUSED']) s;
SELECT state, failures, last_error FROM event_queue.jobs WHERE job_id = :job_id;
SELECT event_queue.fail(:job_id, :'lease_token', 'server is busy', '53300') IS NOT NULL AS again;
-- Why a job waits.
SELECT state, failures, last_error FROM event_queue.jobs WHERE job_id = :job_id;
SELECT event_queue.drop_queue('args', true);

-- What is deep is compared as a whole: the time to go into it is the square of its depth.
CREATE FUNCTION nested(depth int, leaf text) RETURNS jsonb LANGUAGE sql AS $$SELECT (repeat('{"a":', depth) || leaf || repeat('}', depth))::jsonb$$;
SELECT depth, cardinality(path), old_value = nested(greatest(depth - 100, 0), '1') AS old, new_value = nested(greatest(depth - 100, 0), '2') AS new
FROM unnest('{1,99,100,101,5000}'::int[]) depth, event_queue_internal.json_diff(nested(depth, '1'), nested(depth, '2'));
SELECT count(*) FROM event_queue_internal.json_diff(nested(5000, '1'), nested(5000, '1'));
SELECT cardinality(path), old_value, new_value FROM event_queue_internal.json_diff(nested(100, '{"b": 1}'), nested(100, '{"b": 2, "c": 3}'));

-- A subscription has 1 to 64 buckets.
SELECT n, try(format('SELECT event_queue_internal.event_bucket(%L, %L, %L, %s)', 't', 'a', '1', n)) FROM unnest('{-1,0,1,64,65}'::int[]) n;
DROP FUNCTION with_null_queue, try_place, nested;
