-- States of which the events are archived: in a database of its own.
CREATE DATABASE regression_partition_state;
\c regression_partition_state
CREATE EXTENSION event_queue;
CREATE FUNCTION try(statement text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	detail text;
	result text;
BEGIN
	EXECUTE statement INTO result;
	RETURN coalesce(result, 'NULL');
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL;
	RETURN SQLSTATE || ': ' || SQLERRM || coalesce(' | ' || nullif(detail, ''), '');
END
$$;
SELECT event_queue.create_event_partition();
SELECT clock_timestamp() AS before_all \gset
-- a, b, c: 5, 1 and 3 versions; of c a snapshot at its second.
SELECT max(a.version) FROM generate_series(1, 4) n, event_queue.append('s', 'a', 'e', jsonb_build_object('n', n)) a;
SELECT max(a.version) FROM generate_series(1, 2) n, event_queue.append('s', 'c', 'e', jsonb_build_object('n', n)) a;
SELECT event_queue.take_snapshot('s', 'c');
SELECT clock_timestamp() AS before_last \gset
SELECT max(a.version) FROM generate_series(5, 5) n, event_queue.append('s', 'a', 'e', jsonb_build_object('n', n)) a;
SELECT max(a.version) FROM generate_series(1, 1) n, event_queue.append('s', 'b', 'e', jsonb_build_object('n', n)) a;
SELECT max(a.version) FROM generate_series(3, 3) n, event_queue.append('s', 'c', 'e', jsonb_build_object('n', n)) a;
SELECT event_queue.create_event_partition();
SELECT clock_timestamp() AS after_last \gset
SELECT event_queue.archive_event_partition('event_store_p1');
-- a has two versions more that are in the store, b none, d is new.
SELECT max(a.version) FROM generate_series(6, 7) n, event_queue.append('s', 'a', 'e', jsonb_build_object('n', n)) a;
SELECT version FROM event_queue.append('s', 'd', 'e', '{"n": 1}');
SELECT id, v, try(format('SELECT event_queue.aggregate_state(%L, %L, at_version => %s)', 's', id, v))
FROM unnest('{a,b,c,d,none}'::text[]) id, generate_series(1, 8) v WHERE v < 4 OR id = 'a' ORDER BY 1, 2;
SELECT id, at, try(format('SELECT event_queue.aggregate_state(%L, %L, at_time => %L)', 's', id, t))
FROM unnest('{a,b,c,d,none}'::text[]) id,
	(VALUES (1, 'before all', :'before_all'), (2, 'before last', :'before_last'), (3, 'after last', :'after_last'), (4, 'infinity', 'infinity')) x (n, at, t)
ORDER BY id, n;
-- Whoever asks for two states, too.
SELECT try($$SELECT count(*) FROM event_queue.aggregate_diff('s', 'a', 2, 7)$$), try($$SELECT count(*) FROM event_queue.aggregate_diff('s', 'a', 5, 7)$$);
SELECT try($$SELECT version FROM event_queue.revert_aggregate('s', 'a', 3)$$), try($$SELECT version FROM event_queue.revert_aggregate('s', 'a', 5)$$);
\c regression
DROP DATABASE regression_partition_state;
