-- Several events in one call: one aggregate (append_many), several (append_batch).
SELECT version, duplicate FROM event_queue.append_many('order', 'O1',
	'[{"event_type": "order.placed", "event_data": {"total": 10}}, {"event_type": "order.paid"}]', 'no_stream');
SELECT version FROM event_queue.append_many('order', 'O1', '[{"event_type": "order.sent", "metadata": {"by": "DHL"}}]', 2);
SELECT version, event_type, event_data, metadata FROM event_queue.read_aggregate('order', 'O1');
SELECT version FROM event_queue.read_aggregate('order', 'O1', max_events => 2);
SELECT version FROM event_queue.read_aggregate('order', 'O1', 2, 3);
SELECT version FROM event_queue.read_aggregate_backward('order', 'O1', max_events => 2);
SELECT version FROM event_queue.read_aggregate_backward('order', 'O1', 1, 2);

-- All or none: the last event is refused, so none is there.
SELECT try($$SELECT event_queue.append_many('order', 'O2', '[{"event_type": "a"}, {"event_type": ""}]')$$);
SELECT try($$SELECT event_queue.append_many('order', 'O1', '[{"event_type": "a"}]', 1)$$);
SELECT event_queue.aggregate_version('order', 'O2'), event_queue.aggregate_version('order', 'O1');

-- Repeating a call with ids: all there, none there, some there.
SELECT version, duplicate FROM event_queue.append_many('order', 'O3',
	'[{"event_type": "a", "id": "00000000-0000-4000-8000-0000000000a1"}, {"event_type": "b", "id": "00000000-0000-4000-8000-0000000000a2"}]', 0);
SELECT version, duplicate FROM event_queue.append_many('order', 'O3',
	'[{"event_type": "a", "id": "00000000-0000-4000-8000-0000000000a1"}, {"event_type": "b", "id": "00000000-0000-4000-8000-0000000000a2"}]', 0);
SELECT try($$SELECT event_queue.append_many('order', 'O3',
	'[{"event_type": "a", "id": "00000000-0000-4000-8000-0000000000a1"}, {"event_type": "c", "id": "00000000-0000-4000-8000-0000000000a3"}]')$$);
SELECT try($$SELECT event_queue.append_many('order', 'O3',
	'[{"event_type": "b", "id": "00000000-0000-4000-8000-0000000000a2"}, {"event_type": "a", "id": "00000000-0000-4000-8000-0000000000a1"}]')$$);
SELECT try($$SELECT event_queue.append_many('order', 'O3',
	'[{"event_type": "b", "id": "00000000-0000-4000-8000-0000000000a1"}, {"event_type": "a", "id": "00000000-0000-4000-8000-0000000000a2"}]')$$) LIKE 'EQ002%';
SELECT event_queue.aggregate_version('order', 'O3');

-- A batch: each aggregate with its own expectation; positions follow the batch.
SELECT aggregate_type, aggregate_id, version, "position" - min("position") OVER () AS place
FROM event_queue.append_batch('[
	{"aggregate_type": "order", "aggregate_id": "Z", "expected_version": "no_stream", "events": [{"event_type": "z1"}, {"event_type": "z2"}]},
	{"aggregate_type": "order", "aggregate_id": "A", "expected_version": 0, "events": [{"event_type": "a1"}]},
	{"aggregate_type": "stock", "aggregate_id": "Z", "events": [{"event_type": "s1"}]}]');
SELECT try($$SELECT event_queue.append_batch('[
	{"aggregate_type": "order", "aggregate_id": "A", "expected_version": 1, "events": [{"event_type": "a2"}]},
	{"aggregate_type": "order", "aggregate_id": "Z", "expected_version": 1, "events": [{"event_type": "z3"}]}]')$$);
SELECT event_queue.aggregate_version('order', 'A') AS a, event_queue.aggregate_version('order', 'Z') AS z;

-- A batch that was written before, as a whole and in part.
CREATE FUNCTION batch(second text) RETURNS jsonb LANGUAGE sql AS $$
	SELECT jsonb_build_array(
		jsonb_build_object('aggregate_type', 'order', 'aggregate_id', 'B1', 'expected_version', 0, 'events',
			jsonb_build_array(jsonb_build_object('event_type', 'x', 'id', '00000000-0000-4000-8000-0000000000b1'))),
		jsonb_build_object('aggregate_type', 'order', 'aggregate_id', 'B2', 'expected_version', 0, 'events',
			jsonb_build_array(jsonb_build_object('event_type', 'y', 'id', second)))) $$;
SELECT aggregate_id, version, duplicate FROM event_queue.append_batch(batch('00000000-0000-4000-8000-0000000000b2'));
SELECT aggregate_id, version, duplicate FROM event_queue.append_batch(batch('00000000-0000-4000-8000-0000000000b2'));
SELECT try($$SELECT event_queue.append_batch(batch('00000000-0000-4000-8000-0000000000b3'))$$);

-- What is malformed says so.
SELECT try(format('SELECT event_queue.append_many(''order'', ''bad'', %L)', events)) FROM (VALUES
	(NULL), ('{}'), ('[]'), ('"x"'), ('[1]'), ('[{}]'), ('[{"event_type": 1}]'), ('[{"event_type": "a", "type": "b"}]'),
	('[{"event_type": "a", "id": "no"}]'), ('[{"event_type": "a", "metadata": []}]'),
	('[{"event_type": "a", "id": "00000000-0000-4000-8000-0000000000c1"}, {"event_type": "a"}]'),
	('[{"event_type": "a", "id": "00000000-0000-4000-8000-0000000000c1"}, {"event_type": "a", "id": "00000000-0000-4000-8000-0000000000c1"}]')) AS x (events);
SELECT try(format('SELECT event_queue.append_batch(%L)', batch)) FROM (VALUES
	(NULL), ('[]'), ('[1]'), ('[{"aggregate_type": "a", "aggregate_id": "b"}]'), ('[{"aggregate_type": "a", "aggregate_id": "b", "events": []}]'),
	('[{"aggregate_id": "b", "events": [{"event_type": "x"}]}]'),
	('[{"aggregate_type": "a", "aggregate_id": "b", "expected_version": "soon", "events": [{"event_type": "x"}]}]'),
	('[{"aggregate_type": "a", "aggregate_id": "b", "expected_version": -1, "events": [{"event_type": "x"}]}]'),
	('[{"aggregate_type": "a", "aggregate_id": "b", "events": [{"event_type": "x"}]}, {"aggregate_type": "a", "aggregate_id": "b", "events": [{"event_type": "x"}]}]')) AS x (batch);
SELECT event_queue.aggregate_version('order', 'bad');

-- One transaction may append to any number of aggregates.
SELECT count(*), bool_and(a.version = 1) FROM generate_series(1, 100000) n, event_queue.append('many', n::text, 'x', '{}', 0) a;
SELECT count(*) FROM event_queue.append_batch((SELECT jsonb_agg(jsonb_build_object('aggregate_type', 'many2', 'aggregate_id', n::text,
	'events', jsonb_build_array(jsonb_build_object('event_type', 'x', 'id', gen_random_uuid())))) FROM generate_series(1, 1000) n));
