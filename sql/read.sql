-- Reading by filter, by index, and waiting.
SELECT event_queue_internal.last_position() AS start \gset
SELECT count(*) FROM generate_series(1, 20) n, event_queue.append(
	CASE WHEN n % 2 = 0 THEN 'lead' ELSE 'task' END, 'r' || n % 4,
	CASE n % 3 WHEN 0 THEN 'lead.created' WHEN 1 THEN 'lead.moved.won' ELSE 'task.done' END,
	jsonb_build_object('n', n, 'tag', jsonb_build_object('even', n % 2 = 0)), tenant_id => CASE WHEN n > 16 THEN 'other' END);
CREATE FUNCTION numbers(filter jsonb, tenant text DEFAULT NULL) RETURNS int[] LANGUAGE sql AS $$
	SELECT array_agg((event_data ->> 'n')::int ORDER BY position)
	FROM event_queue.read_all((SELECT max(position) FROM event_queue.event_store WHERE event_data = '"start"'), 100, tenant, filter)
	WHERE event_data ? 'n' $$;
SELECT version FROM event_queue.append('mark', 'm', 'mark', '"start"');
SELECT count(*) FROM generate_series(1, 20) n, event_queue.append(
	CASE WHEN n % 2 = 0 THEN 'lead' ELSE 'task' END, 'r' || n % 4,
	CASE n % 3 WHEN 0 THEN 'lead.created' WHEN 1 THEN 'lead.moved.won' ELSE 'task.done' END,
	jsonb_build_object('n', n, 'tag', jsonb_build_object('even', n % 2 = 0)), tenant_id => CASE WHEN n > 16 THEN 'other' END);
SELECT numbers(NULL) AS every, numbers('{}') = numbers(NULL) AS same;
SELECT numbers('{"event_type": "lead.created"}');
SELECT numbers('{"event_type": "lead.**"}');
SELECT numbers('{"event_type": "lead.*"}');
SELECT numbers('{"aggregate_type": "task", "event_type": "task.done"}');
SELECT numbers('{"data": {"tag": {"even": true}}}');
SELECT numbers('{"tenant_id": "other"}'), numbers(NULL, 'other');
SELECT numbers('{"data": {"n": 7}, "tenant_id": "default"}'), numbers('{"data": {"n": 17}, "tenant_id": "default"}');
SELECT try(format('SELECT numbers(%L)', f)) FROM (VALUES ('[]'), ('{"type": "x"}'), ('{"event_type": 1}'),
	('{"event_type": "a*"}'), ('{"event_type": ""}')) x (f);

-- The same through an index for the purpose; read_plan says which is used.
SELECT * FROM event_queue.read_plan('{"event_type": "lead.created"}');
SELECT event_queue.create_event_index(b) FROM unnest(ARRAY['event_type', 'aggregate_type', 'tenant_id', 'event_data']) b;
SELECT f, p.* FROM (VALUES (NULL::jsonb), ('{"event_type": "lead.created"}'), ('{"event_type": "lead.*"}'),
	('{"aggregate_type": "task"}'), ('{"tenant_id": "other"}')) x (f), event_queue.read_plan(f) p;
SELECT numbers('{"event_type": "lead.created"}');
SELECT numbers('{"aggregate_type": "task", "event_type": "task.done"}');
SELECT numbers('{"tenant_id": "other"}');
SELECT event_queue.drop_event_index(b) FROM unnest(ARRAY['event_type', 'aggregate_type', 'tenant_id', 'event_data']) b;
SELECT * FROM event_queue.read_plan('{"event_type": "lead.created"}');
SELECT try($$SELECT event_queue.create_event_index('id')$$);

-- The functions are the SELECT that they stand for, by index.
SET enable_seqscan = off;
EXPLAIN (COSTS OFF) SELECT * FROM event_queue.read_aggregate('lead', 'r2', 2);
EXPLAIN (COSTS OFF) SELECT * FROM event_queue.read_aggregate_backward('lead', 'r2', max_events => 1);
RESET enable_seqscan;

-- Waiting: something is there, nothing comes, not inside a transaction.
CALL event_queue.wait_for_events(0, '10 s') \gset
SELECT :watermark = event_queue.watermark();
CALL event_queue.wait_for_events(event_queue.watermark(), '10 ms') \gset
SELECT :watermark = event_queue.watermark();
BEGIN;
CALL event_queue.wait_for_events(0, '10 s');
ROLLBACK;
CALL event_queue.wait_for_events(0, '-1 s');
CALL event_queue.wait_for_events(0, '25 hours');

-- Ahead of the store: a position that was never given.
SELECT try(format('SELECT event_queue.read_all(%s)', event_queue_internal.last_position() + 1000)) LIKE 'EQ028: position % is ahead of the event store%';
SELECT event_queue.generation() ~ '^0-[0-9]+$';
-- Whoever has lost positions is told where to go on.
SELECT max(position) AS highest FROM event_queue.event_store \gset
SELECT event_queue.new_generation() ~ '^1-[0-9]+$';
SELECT try(format('SELECT event_queue.read_all(%s)', :highest + 5)) LIKE 'EQ028%' || format('"go_on_after": %s}', :highest);
SELECT count(*) FROM event_queue.read_all(:highest);
SELECT position >> 40 AS generation, position > :highest FROM event_queue.append('mark', 'm2', 'after');
SELECT event_type FROM event_queue.read_all(:highest);
SELECT try(format('SELECT event_queue.read_all(%s)', :highest + 5)) LIKE 'EQ028%';
