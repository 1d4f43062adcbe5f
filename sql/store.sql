-- The event store: append, versions, idempotence, reading, the guard.
SELECT event_queue_internal.last_position() AS start \gset
SELECT version, duplicate FROM event_queue.append('lead', 'L1', 'lead.created', '{"name": "Ana"}');
SELECT version FROM event_queue.append('lead', 'L1', 'lead.movedToStep', '{"step": 2}', 1);
SELECT version FROM event_queue.append('lead', 'L1', 'lead.renamed', '{"name": "Bia"}', 'exists');
SELECT version FROM event_queue.append('lead', 'L2', 'lead.created', '{}', 'no_stream');
SELECT version FROM event_queue.append('lead', 'L2', 'lead.closed', '{}', '1');
SELECT event_queue.aggregate_version('lead', 'L1'), event_queue.aggregate_version('lead', 'none');
SELECT version, event_type, event_data, tenant_id FROM event_queue.read_aggregate('lead', 'L1');
SELECT version, event_type FROM event_queue.read_aggregate('lead', 'L1', 2, 2);

-- A wrong expectation is told with the current version, and nothing is written.
SELECT try($$SELECT event_queue.append('lead', 'L1', 'x', '{}', 1)$$);
SELECT try($$SELECT event_queue.append('lead', 'L1', 'x', '{}', 9)$$);
SELECT try($$SELECT event_queue.append('lead', 'L1', 'x', '{}', 'no_stream')$$);
SELECT try($$SELECT event_queue.append('lead', 'new', 'x', '{}', 'exists')$$);
SELECT try($$SELECT event_queue.append('lead', 'L1', 'x', '{}', 'sometimes')$$);
SELECT try($$SELECT event_queue.append('lead', 'L1', 'x', '{}', -1)$$);
SELECT event_queue.aggregate_version('lead', 'L1');

-- A retry with the same id gets the first result, whatever version it expects.
SELECT version, duplicate FROM event_queue.append('lead', 'L3', 'lead.created', '{"a": 1}', 'no_stream',
	id => '00000000-0000-4000-8000-000000000001');
SELECT version, duplicate FROM event_queue.append('lead', 'L3', 'lead.created', '{"a": 1}', 'no_stream',
	id => '00000000-0000-4000-8000-000000000001');
SELECT version, duplicate FROM event_queue.append('lead', 'L3', 'lead.created', '{"a": 1}',
	id => '00000000-0000-4000-8000-000000000001');
-- The same id with other content is an error of its own.
SELECT try(format($$SELECT event_queue.append('lead', 'L3', 'lead.created', '{"a": 2}', id => '%s')$$,
	'00000000-0000-4000-8000-000000000001')) LIKE 'EQ002: event id is used by another event%';
-- Another tenant may use it.
SELECT version, duplicate FROM event_queue.append('lead', 'L3', 'lead.created', '{"a": 1}', tenant_id => 'other',
	id => '00000000-0000-4000-8000-000000000001');

-- Several appends in one transaction, a savepoint taken back among them.
BEGIN;
SELECT version FROM event_queue.append('lead', 'L4', 'one');
SAVEPOINT s;
SELECT version FROM event_queue.append('lead', 'L4', 'taken.back');
ROLLBACK TO s;
SELECT version FROM event_queue.append('lead', 'L4', 'two', '{}', 1);
SELECT count(*) FROM event_queue.read_all(:start) WHERE aggregate_id = 'L4'; -- not below the watermark yet
SELECT count(*) FROM event_queue.watermark_blockers WHERE pid = pg_backend_pid();
COMMIT;
SELECT version, event_type FROM event_queue.read_all(:start) WHERE aggregate_id = 'L4';

-- read_all goes on where it ended.
SELECT aggregate_id, version FROM event_queue.read_all(:start, 2);
SELECT aggregate_id, version FROM event_queue.read_all((SELECT max(position) FROM event_queue.read_all(:start, 2)), 2);
SELECT event_queue.watermark() = max(position) FROM event_queue.event_store;
SELECT try('SELECT event_queue.read_all(-1)'), try('SELECT event_queue.read_all(0, 0)');

-- Ids are time-ordered UUIDs of version 7.
SELECT count(*), bool_and(substr(u::text, 15, 1) = '7'), bool_and(u > prev) FROM (
	SELECT u, lag(u) OVER (ORDER BY n) AS prev
	FROM (SELECT n, event_queue.uuid_v7() AS u FROM generate_series(1, 1000) n) a) b;

-- History can't be bent.
SELECT try($$UPDATE event_queue.event_store SET event_type = 'x'$$);
SELECT try($$DELETE FROM event_queue.event_store$$);
-- Nor after a function of ours has opened the guard and failed.
BEGIN;
SAVEPOINT failed;
SELECT event_queue_internal.open_guard(true);
ROLLBACK TO failed;
SELECT try($$DELETE FROM event_queue.event_store$$), try($$TRUNCATE event_queue.event_store$$);
ROLLBACK;
SELECT try($$TRUNCATE event_queue.event_store$$);

-- Rows that were loaded by other means: positions go on above them.
INSERT INTO event_queue.event_store
SELECT event_queue_internal.last_position() + 100000, gen_random_uuid(), 'default', 'loaded', '1', 1, 'loaded', '{}', '{}', now();
SELECT a.position > (SELECT max(position) FROM event_queue.event_store WHERE aggregate_type = 'loaded')
FROM event_queue.append('lead', 'L5', 'after.load') a;

-- The names of a Prisma model.
CREATE SCHEMA prisma;
SET search_path = prisma;
\set ECHO none
\i examples/prisma/event-store.sql
\set ECHO all
RESET search_path;
SELECT "aggregateId", "aggregateType", "eventType", "eventData", version, "createdAt" IS NOT NULL AS "createdAt"
FROM prisma."EventStore" WHERE "aggregateId" = 'L1' ORDER BY version;
