-- Partitions by time and by tenant, retention, archiving: in a database of its own.
CREATE DATABASE regression_partition;
\c regression_partition
CREATE EXTENSION event_queue;
CREATE FUNCTION try(statement text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	detail text;
BEGIN
	EXECUTE statement;
	RETURN 'ok';
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL;
	RETURN SQLSTATE || ': ' || SQLERRM || coalesce(' | ' || nullif(detail, ''), '');
END
$$;
CREATE SCHEMA archive;
-- What is split off is older than what event_store gets.
SELECT version FROM event_queue.append('q', '1', 'x', tenant_id => 'qt');
SELECT event_queue.split_event_partition(tenant_id => 'qt');
SELECT version FROM event_queue.append('q', '1', 'x', '{}', 1, tenant_id => 'qt');
SELECT try($$SELECT event_queue.append('q', '1', 'x', '{}', 1, tenant_id => 'qt')$$);
SELECT version FROM event_queue.append('q', '1', 'x', '{"a": 1}', 2, tenant_id => 'qt');
SELECT event_queue.aggregate_state('q', '1', tenant_id => 'qt'), event_queue.aggregate_version('q', '1', 'qt');
SELECT version FROM event_queue.append('p', '1', 'p.created', '{"a": 1}');
SELECT version FROM event_queue.append('p', '2', 'p.created', '{"a": 2}');
SELECT event_queue.create_event_index('event_type');
SELECT indexed_by, tables, total_bytes > 0 AS has_size FROM event_queue.event_indexes;
SELECT event_queue.set_event_partitioning('1 month');
SELECT event_queue.set_event_partitioning('1 month');	-- there is one
SELECT version FROM event_queue.append('p', '1', 'p.moved', '{"b": 1}', 1);
SELECT version FROM event_queue.append('p', '3', 'p.created', '{"a": 3}', 'no_stream');
SELECT event_queue.create_event_partition('big');
SELECT version FROM event_queue.append('p', '1', 'p.created', '{"big": 1}', tenant_id => 'big');
SELECT event_queue.create_event_partition();
SELECT version FROM event_queue.append('p', '1', 'p.moved', '{"c": 1}', 2);
SELECT version FROM event_queue.append('p', '3', 'p.moved', '{"c": 3}', 'exists');
SELECT version FROM event_queue.append('p', '1', 'p.moved', '{"big": 2}', 1, tenant_id => 'big');
SELECT tableoid::regclass, tenant_id, aggregate_id, version FROM event_queue.event_store WHERE aggregate_type = 'p' ORDER BY position;
SELECT name, tenant_id, last_position IS NULL AS takes_new FROM event_queue_internal.event_partition ORDER BY partition_id;
-- All functions see one store.
SELECT version, event_data FROM event_queue.read_aggregate('p', '1');
SELECT version FROM event_queue.read_aggregate_backward('p', '1', max_events => 2);
SELECT aggregate_id, version FROM event_queue.read_all(0, 100, NULL, '{"aggregate_type": "p"}');
SELECT aggregate_id, version FROM event_queue.read_all(0, 100, NULL, '{"event_type": "p.moved"}');
SELECT * FROM event_queue.read_plan('{"event_type": "p.moved"}') ORDER BY 1;
SELECT event_queue.aggregate_state('p', '1'), event_queue.aggregate_state('p', '1', tenant_id => 'big');
SELECT try($$SELECT event_queue.append('p', '1', 'x', '{}', 2)$$);
SELECT version, duplicate FROM event_queue.append('p', '4', 'x', id => '00000000-0000-4000-8000-0000000000d1');
SELECT event_queue.create_event_partition();
SELECT version, duplicate FROM event_queue.append('p', '4', 'x', id => '00000000-0000-4000-8000-0000000000d1');
-- No table of events can be changed.
SELECT try('UPDATE event_queue.event_store_p2 SET version = 9'), try('DELETE FROM event_queue.event_store_p2'), try('TRUNCATE event_queue.event_store_p2');
SELECT try($$INSERT INTO event_queue.event_store SELECT event_queue_internal.last_position() + 10, gen_random_uuid(), 'default', 'p', 'z', 1, 'x', '{}', '{}', now()$$) LIKE '23514%event_store_last%';

-- Archiving: older events first, and only when every consumer has passed.
SELECT try($$SELECT event_queue.archive_event_partition('event_store_p2')$$);
SELECT event_queue.create_subscription('slow') IS NOT NULL;
SELECT event_queue.split_event_partition(clock_timestamp()) AS old \gset
SELECT count(*) FROM ONLY event_queue.event_store;
SELECT try(format('SELECT event_queue.archive_event_partition(%L)', :'old')) LIKE 'EQ013: partition % is still being read | Not yet past its last event: subscription "slow".%';
SELECT event_queue.ack('slow', event_queue.watermark());
SELECT try(format('SELECT event_queue.archive_event_partition(%L)', :'old'));
SELECT event_queue.archive_event_partition('event_store_old1');
SELECT event_queue.archive_event_partition(:'old', 'archive') > 0;
SELECT count(*) > 0 FROM archive.:old;
SELECT event_queue.archive_event_partition('event_store_p2');
SELECT version FROM event_queue.read_aggregate('p', '1');
SELECT event_queue.aggregate_version('p', '1'), event_queue.aggregate_version('p', '2');
SELECT event_queue.aggregate_state('p', '1'), event_queue.aggregate_state('p', '2'), event_queue.aggregate_state('p', '1', 2);
-- An aggregate of which only the snapshot is left goes on with its version.
SELECT try($$SELECT event_queue.append('p', '2', 'x', '{}', 'no_stream')$$);
SELECT version FROM event_queue.append('p', '2', 'p.moved', '{"d": 2}', 1);
SELECT event_queue.aggregate_state('p', '2');
SELECT try($$SELECT event_queue.archive_event_partition('event_store_t3')$$) LIKE 'EQ013: partition "event_store_t3" takes new events%';
SELECT event_queue.seal_event_partition('event_store_t3');
SELECT event_queue.ack('slow', event_queue.watermark());
SELECT event_queue.archive_event_partition('event_store_t3');
SELECT version FROM event_queue.append('p', '1', 'p.moved', '{"big": 3}', 2, tenant_id => 'big');
SELECT event_queue.aggregate_state('p', '1', tenant_id => 'big');
-- The worker's share: nothing is due.
SELECT event_queue.set_event_retention('1 day', 'archive');
SELECT event_queue_internal.maintain_partitions();
-- what no timestamp can be off by would be a fault of the worker for ever
SELECT try($$SELECT event_queue.set_event_retention('178000000 years')$$), try($$SELECT event_queue.set_event_partitioning('7000 years')$$);
SELECT try($$SELECT event_queue.set_event_retention('1 hour')$$), try($$SELECT event_queue.set_event_partitioning('1 minute')$$),
	try($$SELECT event_queue.split_event_partition()$$), try($$SELECT event_queue.create_event_partition('')$$),
	try($$SELECT event_queue.seal_event_partition('event_store_p4')$$), try($$SELECT event_queue.archive_event_partition('nope')$$);
\c regression
DROP DATABASE regression_partition;
