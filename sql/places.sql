-- Shared memory and what shares it: places of queues, review rows, names of others' jobs.
SET client_min_messages = warning;
CREATE FUNCTION try_places(sql text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE sql;
	RETURN 'ok';
EXCEPTION WHEN OTHERS THEN
	RETURN SQLSTATE || ': ' || SQLERRM;
END $$;

-- A place belongs to the queue as long as the queue is there.
CREATE FUNCTION counted() RETURNS TABLE (name text, enqueued bigint) LANGUAGE sql AS
	$$SELECT q.name, c.enqueued FROM event_queue_internal.queue_counters() c LEFT JOIN event_queue.queue q USING (queue_id)
	WHERE c.queue_id > (SELECT min(queue_id) FROM event_queue.queue WHERE name = 'place a') ORDER BY 1$$;
SELECT event_queue.create_queue('place a') > 0 AS created;
SELECT event_queue.create_queue('place b') > 0 AS created, event_queue.enqueue('place b', 'j') > 0 AS enqueued;
SELECT * FROM counted();
-- rolled back, and dropped in a savepoint that is rolled back
BEGIN;
SELECT event_queue.create_queue('place c') > 0 AS created, event_queue.enqueue('place c', 'j') > 0 AS enqueued;
SAVEPOINT s;
SELECT event_queue.drop_queue('place b', true);
ROLLBACK TO s;
SELECT event_queue.create_queue('place d') > 0 AS created;
SELECT event_queue.drop_queue('place d');
ROLLBACK;
SELECT * FROM counted();
-- dropped: at once, or if a worker has just looked at it when the scheduler clears up
SELECT event_queue.drop_queue('place b', true);
CALL wait_until($$NOT EXISTS (SELECT FROM counted())$$);
-- whoever asks for a queue that is not there takes none
SELECT count(*) FROM generate_series(1000000, 1000100) n, event_queue_internal.queue_depth(n) d WHERE d.depth IS NOT NULL;
SELECT try_places($$INSERT INTO event_queue.job (queue_id, run_at, created_at, tenant_id, name, max_attempts, payload) VALUES (1000000, now(), now(), 'x', 'j', 1, '{}')$$) <> 'ok' AS refused;
SELECT count(*) FROM event_queue_internal.queue_counters() WHERE queue_id >= 1000000;
SELECT ok, detail ~ '^\d+ of 16384 slots for queues and channels, \d+ of 65536 for leases' AS said FROM event_queue.health() WHERE check_name = 'shared memory';

-- A bulk of jobs of one group asks for one look at the group.
BEGIN;
SELECT cardinality(event_queue.enqueue_many('place a', to_jsonb(array_fill('{}'::jsonb, '{999}')) || '[{"group_key": "l"}]', options => '{"name": "j", "group_key": "k"}')) AS enqueued;
SELECT count(*), count(DISTINCT group_key) FROM event_queue_internal.job_review WHERE queue_id = event_queue_internal.queue_id_of('place a');
COMMIT;
SELECT event_queue.drop_queue('place a', true);

-- Who is confined to a tenant sees no ids of others' jobs among those that are leased.
CREATE ROLE eq_places_a;
CREATE FUNCTION leased_ids(role name, tenant text) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
	n bigint;
BEGIN
	EXECUTE format('SET LOCAL ROLE %I', role);
	SELECT cardinality(l.jobs) INTO n FROM event_queue.queue_limits('places') l;
	RESET ROLE;
	RETURN n;
END $$;
SELECT event_queue.grant_observer('eq_places_a', 'places a');
SELECT event_queue.create_queue('places', max_concurrency => 10) > 0 AS created;
SELECT count(event_queue.enqueue('places', 'j', tenant_id => t)) FROM unnest('{places a,places b,places b}'::text[]) t;
SELECT count(*) FROM event_queue.claim('places', 10);
SELECT leased_ids('eq_places_a', 'places a') AS own, (SELECT cardinality(jobs) FROM event_queue.queue_limits('places')) AS all;
SELECT event_queue.drop_queue('places', true);
SELECT event_queue.revoke_access('eq_places_a'::regrole);
DROP OWNED BY eq_places_a;
DROP ROLE eq_places_a;
DROP FUNCTION try_places, counted, leased_ids;
