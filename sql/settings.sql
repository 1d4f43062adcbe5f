-- alter_queue on a queue that is at work: what it does to jobs, claims and
-- groups that are there already.
SET client_min_messages = warning;
CREATE FUNCTION take(q text, n int DEFAULT 100) RETURNS bigint LANGUAGE sql AS $$
	SELECT count(*) FROM event_queue.claim(q, n)
$$;
-- Sets the queue's clock ahead: tokens come with time.
CREATE FUNCTION age_bucket(queue_id int, by interval) RETURNS void LANGUAGE c AS 'event_queue', 'eq_age_bucket';
CREATE FUNCTION later(q text, by interval) RETURNS void LANGUAGE sql AS $$
	SELECT age_bucket(event_queue_internal.queue_id_of(q), by)
$$;

-- fair: jobs that wait move to the lanes of their tenants, and back.
SELECT event_queue.create_queue('lanes', fair => true, stalled_interval => '100 ms', backoff_delay => '0') > 0 AS created;
SELECT event_queue.enqueue('lanes', t, tenant_id => left(t, 1)) > 0 AS enqueued FROM unnest('{a1,a2,b1}'::text[]) t;
SELECT event_queue.alter_queue('lanes', fair => false);
SELECT event_queue.enqueue('lanes', 'c1', tenant_id => 'c') > 0 AS enqueued;
-- no longer fair: first come, first served, the old ones before the new one
SELECT name, event_queue.complete(job_id, lease_token) FROM event_queue.claim('lanes', 10);
SELECT cardinality(event_queue.enqueue_many('lanes', to_jsonb(array_fill('{}'::jsonb, '{500}')), tenant_id => 'a', options => '{"name": "busy"}')) AS busy,
	event_queue.enqueue('lanes', 'small', tenant_id => 'b') > 0 AS small;
SELECT job_id AS first, lease_token AS token FROM event_queue.claim('lanes') \gset
SELECT event_queue.alter_queue('lanes', fair => true);
-- fair again: of two claims, one is the small tenant's
CREATE TEMP TABLE turns AS SELECT job_id, lease_token, name FROM event_queue.claim('lanes');
INSERT INTO turns SELECT job_id, lease_token, name FROM event_queue.claim('lanes');
SELECT name FROM turns ORDER BY name;
-- a job that was leased meanwhile is settled as ever, and comes back in its lane
SELECT event_queue.fail(:first, :'token', 'no') IS NOT NULL AS again;
SELECT event_queue.complete(job_id, lease_token) FROM turns;
SELECT count(*), count(DISTINCT lane), bool_and(lane = event_queue_internal.job_lane(true, tenant_id)) AS in_their_lanes FROM event_queue.job
WHERE queue_id = event_queue_internal.queue_id_of('lanes');
-- one from a transaction that knew only the old setting is found by the scheduler
UPDATE event_queue.job SET lane = 0 WHERE job_id = :first;
DO $$
BEGIN
	FOR i IN 1 .. 500 LOOP
		EXIT WHEN NOT EXISTS (SELECT FROM event_queue.job WHERE lane = 0 AND queue_id = event_queue_internal.queue_id_of('lanes'));
		COMMIT;
		PERFORM pg_sleep(0.01);
	END LOOP;
END $$;
SELECT lane = event_queue_internal.job_lane(true, tenant_id) AS in_its_lane FROM event_queue.job WHERE job_id = :first;
SELECT event_queue.drop_queue('lanes', force => true);

-- group_concurrency: more of each group may run at once.
SELECT event_queue.create_queue('groups') > 0 AS created;
SELECT count(event_queue.enqueue('groups', g || n, group_key => g)) FROM generate_series(1, 4) n, unnest('{a,b}'::text[]) g;
CALL settled();
SELECT name, state FROM event_queue.jobs WHERE queue = 'groups' AND state = 'ready' ORDER BY name;
SELECT event_queue.alter_queue('groups', group_concurrency => 3);
CALL settled();
SELECT name, state FROM event_queue.jobs WHERE queue = 'groups' AND state = 'ready' ORDER BY name;
-- group_retry: while one waits for its next attempt, the others wait; now they pass
SELECT event_queue.alter_queue('groups', group_concurrency => 1);
SELECT event_queue.purge_queue('groups');
SELECT count(event_queue.enqueue('groups', g || n, group_key => g)) FROM generate_series(1, 2) n, unnest('{a,b}'::text[]) g;
CALL settled();
SELECT event_queue.fail(job_id, lease_token, 'no', retry_after => '1 hour') > now() AS later FROM event_queue.claim('groups', 2);
CALL settled();
SELECT name, state FROM event_queue.jobs WHERE queue = 'groups' ORDER BY name;
SELECT event_queue.alter_queue('groups', group_retry => 'pass');
CALL settled();
SELECT name, state FROM event_queue.jobs WHERE queue = 'groups' ORDER BY name;
-- and wait again: a1 keeps its place before a3
SELECT event_queue.alter_queue('groups', group_retry => 'block');
SELECT event_queue.enqueue('groups', 'a3', group_key => 'a') > 0 AS enqueued;
SELECT name, event_queue.complete(job_id, lease_token) FROM event_queue.claim('groups', 10) ORDER BY name;
CALL settled();
SELECT name, state FROM event_queue.jobs WHERE queue = 'groups' ORDER BY name;
SELECT event_queue.drop_queue('groups', force => true);

-- rate_limit: the tokens that are there stay, up to the new limit.
SELECT event_queue.create_queue('rate', rate_limit => 2, rate_interval => '1 hour') > 0 AS created;
SELECT cardinality(event_queue.enqueue_many('rate', to_jsonb(array_fill('{}'::jsonb, '{100}')), options => '{"name": "r"}')) AS enqueued;
-- raised: no burst comes of it, only new tokens come faster
SELECT event_queue.alter_queue('rate', rate_limit => 10);
SELECT take('rate') AS two_that_were_there;
SELECT later('rate', '30 minutes');
SELECT take('rate') AS half_of_ten;
-- what came before the change, came at the old rate: half an hour of ten an hour
SELECT later('rate', '30 minutes');
SELECT event_queue.alter_queue('rate', rate_limit => 100);
SELECT take('rate') AS half_of_ten;
-- a full bucket is full at the old limit, and no fuller than the new one
SELECT later('rate', '1 day');
SELECT event_queue.alter_queue('rate', rate_limit => 3);
SELECT take('rate') AS new_limit;
SELECT later('rate', '20 minutes');
SELECT event_queue.alter_queue('rate', rate_interval => '1 minute');
SELECT take('rate') AS one_of_the_old_interval;
SELECT later('rate', '20 seconds');
SELECT take('rate') AS one_of_the_new_interval;
-- other settings leave the bucket alone
SELECT later('rate', '20 seconds');
SELECT event_queue.alter_queue('rate', lease => '1 minute');
SELECT take('rate') AS still_one;
SELECT event_queue.alter_queue('rate', reset => '{rate_limit}');
SELECT take('rate', 10) AS no_limit;
SELECT tokens, active FROM event_queue.queue_limits('rate');
SELECT event_queue.drop_queue('rate', force => true);

-- max_concurrency: counts the jobs that are leased already.
SELECT event_queue.create_queue('most') > 0 AS created;
SELECT cardinality(event_queue.enqueue_many('most', to_jsonb(array_fill('{}'::jsonb, '{20}')), options => '{"name": "m"}')) AS enqueued;
CREATE TEMP TABLE running AS SELECT job_id, lease_token FROM event_queue.claim('most', 3);
SELECT event_queue.alter_queue('most', max_concurrency => 4);
INSERT INTO running SELECT job_id, lease_token FROM event_queue.claim('most', 10);
SELECT count(*) AS running FROM running;
SELECT event_queue.alter_queue('most', max_concurrency => 6);
INSERT INTO running SELECT job_id, lease_token FROM event_queue.claim('most', 10);
SELECT count(*) AS running FROM running;
-- lowered: those that run go on, and none is added until there is room
SELECT event_queue.alter_queue('most', max_concurrency => 2);
SELECT take('most') AS none;
SELECT count(event_queue.complete(job_id, lease_token)) FROM (SELECT * FROM running ORDER BY job_id LIMIT 4) r;
SELECT take('most') AS none;
SELECT count(event_queue.complete(job_id, lease_token)) FROM (SELECT * FROM running ORDER BY job_id OFFSET 5) r;
SELECT take('most') AS one;
SELECT event_queue.alter_queue('most', reset => '{max_concurrency}');
SELECT take('most', 5) AS no_limit;
SELECT event_queue.drop_queue('most', force => true);

-- group_rate_limit: a key keeps what it has used.
SELECT event_queue.create_queue('keys', group_concurrency => 10, group_rate_limit => 4, group_rate_interval => '4 hours') > 0 AS created;
SELECT count(event_queue.enqueue('keys', 'k', group_key => 'ana')) FROM generate_series(1, 9);
CALL settled();
SELECT take('keys', 3) AS three_of_four;
-- three tokens are gone: of two an hour each, that is more than it holds
SELECT event_queue.alter_queue('keys', group_rate_limit => 2, group_rate_interval => '1 hour');
SELECT round(extract(epoch FROM next_at - now()) / 60) AS full_in_minutes FROM event_queue_internal.group_rate;
SELECT take('keys', 3) AS none;
-- those that wait for a token keep their time, unless they are called
SELECT event_queue.alter_queue('keys', reset => '{group_rate_limit}');
SELECT take('keys', 1) AS none, event_queue.retry_waiting('keys', failed_only => false) > 0 AS called;
SELECT take('keys', 1) AS no_limit;
SELECT event_queue.drop_queue('keys', force => true);

DROP FUNCTION take, later, age_bucket;
