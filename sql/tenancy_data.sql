-- What users give as JSON is looked at before it is read.
SELECT try($$SELECT event_queue.append('data', '1', 'x', metadata => '[1]')$$),
	try($$SELECT event_queue.append_many('data', '1', '[{"event_type": "x", "metadata": [1]}]')$$),
	try($$SELECT event_queue.append('data', '1', 'x', metadata => '"x"')$$);
SELECT event_queue.create_queue('data') > 0 AS created;
SELECT try($$SELECT event_queue.enqueue('data', 'x', options => '{"metadata": ["parent_job", 1]}')$$),
	try($$SELECT event_queue.enqueue_many('data', '[{}]', options => '{"name": "x", "metadata": 1}')$$),
	try($$SELECT event_queue.enqueue_many('data', '[{"name": "x", "metadata": [1]}]')$$),
	try($$SELECT event_queue.enqueue_many('data', '[[1]]')$$), try($$SELECT event_queue.enqueue_flow('data', '[]')$$),
	try($$SELECT event_queue.enqueue_flow('data', '{"name": "x", "children": [[]]}')$$),
	try($$SELECT event_queue.enqueue_flow('data', '{"name": "x", "children": {"name": "x"}}')$$);
SELECT try($$SELECT event_queue.enqueue_many('data', '[{"name": {"a": 1}}]')$$), try($$SELECT event_queue.enqueue_many('data', '[{"name": "x", "delay": [1]}]')$$),
	try($$SELECT event_queue.enqueue_many('data', '[{"name": "x", "depends_on": "1"}]')$$),
	try($$SELECT event_queue.enqueue_many('data', '[{"name": "x", "depends_on": [[1]]}]')$$);
-- Causes are found by an index: their names are short.
SELECT try($$SELECT event_queue.append('data', '1', 'x', metadata => jsonb_build_object('causation_id', repeat(md5('x'), 100)))$$),
	try($$SELECT event_queue.append('data', '1', 'x', metadata => '{"causation_id": {"a": 1}}')$$),
	try($$SELECT event_queue.enqueue('data', 'x', options => jsonb_build_object('metadata', jsonb_build_object('event_id', repeat(md5('x'), 100))))$$);
SET event_queue.causation_id = 'xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx';
SELECT try($$SELECT event_queue.append('data', '1', 'x')$$), try($$SELECT event_queue.enqueue('data', 'x')$$);
RESET event_queue.causation_id;
-- Settings and rules.
SELECT try($$SELECT event_queue.alter_queue('data', backoff => 'list', reset => '{backoff_intervals}')$$),
	try($$SELECT event_queue.alter_queue('data', max_attempts => 0, max_stalled => 5)$$),
	try($$SELECT event_queue.alter_queue('data', reset => '{queue_id}')$$), try($$SELECT event_queue.alter_queue('data', reset => '{NULL}')$$),
	try($$SELECT event_queue.alter_queue('data', reset => '{paused, lease}')$$);
SELECT try($$SELECT event_queue.create_queue('data2')$$), try($$SELECT event_queue.alter_queue('data2', backoff => 'list', backoff_intervals => '{1 s, 2 s}', lease => '30 s', reset => '{sla}')$$),
	event_queue.drop_queue('data2');
SELECT try($$SELECT event_queue.create_rule('data', 'x', queue => 'data', job_name => 'x', payload => '[1]')$$),
	try($$SELECT event_queue.create_subscription('data', '[1]')$$), try($$SELECT event_queue.create_subscription('data', '{"event_type": [1]}')$$),
	try($$SELECT event_queue.create_subscription('data', '{"tenant_id": {"a": 1}}')$$);
-- A job whose metadata plain SQL wrote harms nobody: it is looked at again where it is read.
CREATE TABLE data_done (id bigint);
CREATE FUNCTION data_handler(job event_queue.claimed_job) RETURNS void LANGUAGE sql AS $$ INSERT INTO public.data_done VALUES (job.job_id) $$;
SELECT event_queue.create_handler('data', '*', 'data_handler') > 0 AS registered;
INSERT INTO event_queue.job (job_id, queue_id, run_at, created_at, priority, tenant_id, name, payload, metadata)
SELECT 800000 + n, queue_id, now(), now(), 5, 'A', 'x', '[1]', m::jsonb
FROM event_queue.queue, unnest(ARRAY['["parent_job", 1]', '[1]', '"event_id"', 'null', '{"parent_job": "x", "event_id": 1, "rule": []}']) WITH ORDINALITY AS x (m, n)
WHERE name = 'data';
CALL wait_until('(SELECT count(*) = 5 FROM data_done)');
SELECT * FROM data_done ORDER BY id;

-- Rows that no function would have made, not even by the owner.
SELECT split_part(try('SET LOCAL search_path = public, event_queue, event_queue_internal; INSERT INTO ' || x), ' |', 1) FROM unnest(ARRAY[
	$$rule (name, owner, event_pattern, queue_id, job_name, start_position) VALUES ('data', 'postgres', 'x', 1, 'x', 0)$$,
	$$rule (name, owner, event_pattern, queue_id, job_name, start_position, payload) SELECT 'data', 'postgres', 'x', queue_id, 'x', 0, '[1]' FROM event_queue.queue WHERE name = 'data'$$,
	$$rule (name, owner, event_pattern, start_position) VALUES ('data', 'postgres', 'x', 0)$$,
	$$handler (queue_id, job_name, owner, function, time_limit) VALUES (2, 'x', 'postgres', 'x', '1 s')$$,
	$$schedule (name, cron, time_zone, queue_id, job_name, payload, priority, tenant_id) VALUES ('data', '* * * * *', 'UTC', 1, 'x', '{}', 5, 'A')$$,
	$$subscription (name, filter, buckets) VALUES ('data', '[1]', 1)$$, $$partition_policy (keep) VALUES ('1 second')$$,
	$$queue (name, max_attempts) VALUES ('data3', 0)$$]) x;
-- An event that names itself, or a later one, as its cause: each is there once.
SELECT version FROM event_queue.append('data', '2', 'self', id => '22222222-2222-7222-8222-222222222222',
	metadata => '{"causation_id": "22222222-2222-7222-8222-222222222222"}');
SELECT count(*) FROM event_queue.append_many('data', '3', (SELECT jsonb_agg(jsonb_build_object('event_type', 'child',
	'metadata', '{"causation_id": "22222222-2222-7222-8222-222222222222"}'::jsonb)) FROM generate_series(1, 1000)));
SELECT depth, name, count(*) FROM event_queue.trace('22222222-2222-7222-8222-222222222222') GROUP BY 1, 2 ORDER BY 1;
SELECT version FROM event_queue.append('data', '4', 'one', id => '33333333-3333-7333-8333-333333333331',
	metadata => '{"causation_id": "33333333-3333-7333-8333-333333333332"}');
SELECT version FROM event_queue.append('data', '4', 'two', id => '33333333-3333-7333-8333-333333333332',
	metadata => '{"causation_id": "33333333-3333-7333-8333-333333333331"}');
SELECT depth, name FROM event_queue.trace('33333333-3333-7333-8333-333333333331') ORDER BY 1;

SELECT event_queue.drop_handler('data', '*'), event_queue.drop_queue('data', force => true);
DROP FUNCTION data_handler;
DROP TABLE data_done;
