-- States of aggregates: merging, reducers, snapshots, differences, reverting, replay.
SELECT event_queue_internal.merge_patch(t::jsonb, p::jsonb) FROM (VALUES	-- the examples of RFC 7396
	('{"a":"b"}', '{"a":"c"}'), ('{"a":"b"}', '{"b":"c"}'), ('{"a":"b"}', '{"a":null}'), ('{"a":"b","b":"c"}', '{"a":null}'),
	('{"a":["b"]}', '{"a":"c"}'), ('{"a":"c"}', '{"a":["b"]}'), ('{"a":{"b":"c"}}', '{"a":{"b":"d","c":null}}'),
	('{"a":[{"b":"c"}]}', '{"a":[1]}'), ('["a","b"]', '["c","d"]'), ('{"a":"b"}', '["c"]'), ('{"a":"foo"}', 'null'),
	('{"a":"foo"}', '"bar"'), ('{"e":null}', '{"a":1}'), ('[1,2]', '{"a":"b","c":null}'), ('{}', '{"a":{"bb":{"ccc":null}}}')) x (t, p);

SELECT version FROM event_queue.append('contract', 'S1', 'deal.opened', '{"step": "new", "value": 100, "owner": {"name": "Ana", "team": 1}}');
SELECT version FROM event_queue.append('contract', 'S1', 'deal.moved', '{"step": "offer"}');
SELECT clock_timestamp() AS after_two \gset
SELECT version FROM event_queue.append('contract', 'S1', 'deal.given', '{"owner": {"name": "Bia"}, "value": null}');
SELECT event_queue.aggregate_state('contract', 'S1');
SELECT event_queue.aggregate_state('contract', 'S1', 1), event_queue.aggregate_state('contract', 'S1', at_time => :'after_two');
SELECT event_queue.aggregate_state('contract', 'S1', at_time => '2000-01-01'), event_queue.aggregate_state('contract', 'none');
SELECT try($$SELECT event_queue.aggregate_state('contract', 'S1', 4)$$), try($$SELECT event_queue.aggregate_state('contract', 'S1', 0)$$),
	try($$SELECT event_queue.aggregate_state('contract', 'S1', 1, now())$$);
SELECT * FROM event_queue.aggregate_diff('contract', 'S1', 1, 3);
SELECT * FROM event_queue.aggregate_diff('contract', 'S1', 0, 1);
SELECT * FROM event_queue.aggregate_diff('contract', 'S1', 2, 2);

-- Reverting adds an event; nothing is taken away.
SELECT version FROM event_queue.revert_aggregate('contract', 'S1', 1);
SELECT event_queue.aggregate_state('contract', 'S1') = event_queue.aggregate_state('contract', 'S1', 1) AS back;
SELECT version, event_type, metadata -> 'reverted_to' AS reverted_to FROM event_queue.read_aggregate_backward('contract', 'S1', max_events => 2);
SELECT version FROM event_queue.append('contract', 'S1', 'deal.moved', '{"step": "won"}');
SELECT event_queue.aggregate_state('contract', 'S1');
SELECT try($$SELECT event_queue.revert_aggregate('contract', 'S1', 5)$$), try($$SELECT event_queue.revert_aggregate('contract', 'S1', 0)$$),
	try($$SELECT event_queue.revert_aggregate('contract', 'none', 1)$$);
SELECT try($$SELECT event_queue.revert_aggregate('contract', 'S1', 2, 3)$$);

-- A reducer of one's own.
CREATE SCHEMA sales;
CREATE FUNCTION sales.count_events(state jsonb, event event_queue.event_store) RETURNS jsonb LANGUAGE sql IMMUTABLE AS $$
	SELECT state || jsonb_build_object(event.event_type, coalesce((state ->> event.event_type)::int, 0) + 1) $$;
SET search_path = sales, public;
SELECT event_queue.create_reducer('counted', 'count_events', 10);
RESET search_path;
SELECT aggregate_type, function, owner, snapshot_every FROM event_queue.reducer;
SELECT count(event_queue.append('counted', 'C1', 'e' || n % 3)) FROM generate_series(1, 25) n;
SELECT event_queue.aggregate_state('counted', 'C1'), event_queue.aggregate_state('counted', 'C1', 3);
-- The worker takes snapshots; they change nothing that one sees.
CALL wait_until($$(SELECT max(version) >= 20 FROM event_queue.aggregate_snapshot WHERE aggregate_id = 'C1')$$);
SELECT event_queue.aggregate_state('counted', 'C1'), event_queue.aggregate_state('counted', 'C1', 21);
-- It is used: what it says is believed.
BEGIN;
UPDATE event_queue.aggregate_snapshot SET state = '{"from": "snapshot"}' WHERE aggregate_id = 'C1';
SELECT event_queue.aggregate_state('counted', 'C1') -> 'from';
ROLLBACK;
-- Another body of the function: what the old one made is not used.
CREATE OR REPLACE FUNCTION sales.count_events(state jsonb, event event_queue.event_store) RETURNS jsonb LANGUAGE plpgsql STABLE AS $$
BEGIN RETURN jsonb_build_object('n', coalesce((state ->> 'n')::int, 0) + 1); END $$;
SELECT event_queue.aggregate_state('counted', 'C1');
SELECT event_queue.take_snapshot('counted', 'C1');
SELECT count(*) FROM event_queue.aggregate_snapshot WHERE aggregate_id = 'C1' AND state ? 'n';
-- Created anew: dropped.
SELECT event_queue.create_reducer('counted', NULL, NULL, or_replace => true);
SELECT count(*) FROM event_queue.aggregate_snapshot WHERE aggregate_id = 'C1';
SELECT event_queue.drop_reducer('counted');
SELECT try($$SELECT event_queue.drop_reducer('counted')$$);
CREATE FUNCTION sales.volatile_one(state jsonb, event event_queue.event_store) RETURNS jsonb LANGUAGE sql AS 'SELECT state';
SELECT try(format('SELECT event_queue.create_reducer(''x'', %L)', f)) FROM (VALUES ('sales.none'), ('sales.volatile_one'), ('pg_catalog.abs')) x (f);
SELECT try($$SELECT event_queue.create_reducer('x', NULL, 0)$$), try($$SELECT event_queue.take_snapshot('x', 'none')$$);
-- A reducer that fails or returns null says at which event.
CREATE FUNCTION sales.fails(state jsonb, event event_queue.event_store) RETURNS jsonb LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN IF event.version = 2 THEN RETURN NULL; END IF; RETURN state; END $$;
SELECT event_queue.create_reducer('contract', 'sales.fails');
SELECT try($$SELECT event_queue.aggregate_state('contract', 'S1')$$) LIKE '22004: reducer sales.fails returned null%';
SELECT event_queue.drop_reducer('contract');

-- Replay: in a sandbox, and for good.
CREATE TABLE sales.projection (id text PRIMARY KEY, n int);
CREATE FUNCTION sales.project(event event_queue.event_store) RETURNS void LANGUAGE sql AS $$
	INSERT INTO sales.projection VALUES (event.aggregate_id, 1) ON CONFLICT (id) DO UPDATE SET n = projection.n + 1 $$;
SELECT events, kept FROM event_queue.replay('{"aggregate_type": "counted"}', 'sales.project', report_every => 0);
SELECT * FROM sales.projection;
SELECT events, kept FROM event_queue.replay('{"aggregate_type": "counted"}', 'sales.project', keep_effects => true, report_every => 0);
SELECT * FROM sales.projection;
CREATE FUNCTION sales.stumble(event event_queue.event_store) RETURNS void LANGUAGE plpgsql AS $$
BEGIN INSERT INTO sales.projection VALUES (event.version, 0); IF event.version = 3 THEN RAISE 'no'; END IF; END $$;
SELECT try($$SELECT event_queue.replay('{"aggregate_type": "counted"}', 'sales.stumble', keep_effects => true)$$);
SELECT count(*) FROM sales.projection;
SELECT try($$SELECT event_queue.replay(NULL, 'sales.none')$$);
\set VERBOSITY terse
DO $$ BEGIN PERFORM event_queue.replay('{"aggregate_type": "contract"}', 'sales.project', report_every => 2); END $$;
