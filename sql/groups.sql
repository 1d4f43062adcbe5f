-- Jobs of one group: in their order, one or some at a time, at a rate.

-- Groups: one at a time, in the order of their ids; other groups go on.
SELECT event_queue.create_queue('grouped') > 0 AS created;
SELECT count(event_queue.enqueue('grouped', g || n, group_key => g)) FROM generate_series(1, 3) n, unnest('{a,b}'::text[]) g;
CALL settled();
SELECT name, state FROM event_queue.jobs WHERE queue = 'grouped' ORDER BY name;
SELECT job_id AS a1, lease_token AS token FROM event_queue.claim('grouped') \gset
SELECT name FROM event_queue.claim('grouped', 10);
-- a failed one blocks its group until it is done
SELECT event_queue.fail(:a1, :'token', 'try again', retry_after => '0 s') IS NOT NULL AS again;
CALL settled();
SELECT name FROM finish('grouped', 10);
CALL settled();
SELECT name FROM finish('grouped', 10);
CALL settled();
SELECT name, state FROM event_queue.jobs WHERE queue = 'grouped' ORDER BY name;
SELECT event_queue.drop_queue('grouped', force => true);
-- two at a time; failed ones let the others pass; deleted by plain SQL, the next one comes
SELECT event_queue.create_queue('passing', group_concurrency => 2, group_retry => 'pass') > 0 AS created;
SELECT count(event_queue.enqueue_many('passing', (SELECT jsonb_agg(jsonb_build_object('payload', jsonb_build_object('n', n))) FROM generate_series(1, 5) n),
	options => '{"name": "g", "group_key": "g"}'));
CALL settled();
SELECT job_id AS one, lease_token AS token, payload FROM event_queue.claim('passing', 1) \gset
SELECT event_queue.fail(:one, :'token', 'later', retry_after => '1 hour') IS NOT NULL AS again;
CALL settled();
SELECT payload, state FROM event_queue.jobs WHERE queue = 'passing' ORDER BY job_id;
DELETE FROM event_queue.job WHERE payload = '{"n": 2}';
CALL settled();
SELECT payload, state FROM event_queue.jobs WHERE queue = 'passing' ORDER BY job_id;
SELECT event_queue.drop_queue('passing', force => true);
-- one that waits for its next attempt is in nobody's way, also if it is alone, and comes in time
SELECT event_queue.create_queue('alone', group_retry => 'pass') > 0 AS created;
SELECT event_queue.enqueue('alone', 'one', group_key => 'g') > 0 AS enqueued;
CALL settled();
SELECT event_queue.fail(job_id, lease_token, 'no', retry_after => '600 ms') > now() AS again FROM event_queue.claim('alone');
CALL settled();
SELECT event_queue.enqueue('alone', 'two', group_key => 'g') > 0 AS enqueued;
CALL settled();
SELECT name FROM finish('alone', 10);
CALL wait_until($$EXISTS (SELECT FROM event_queue.jobs WHERE queue = 'alone' AND state = 'ready')$$);
SELECT name FROM finish('alone', 10);
SELECT event_queue.drop_queue('alone', force => true);

-- A rate for each key: the second of a key waits its time, another key does not.
SELECT event_queue.create_queue('contacts', group_rate_limit => 1, group_rate_interval => '1 hour') > 0 AS created;
SELECT count(event_queue.enqueue('contacts', 'hello ' || k, group_key => k)) FROM unnest('{ana,ana,rui}'::text[]) k;
CALL settled();
SELECT name FROM finish('contacts', 10) ORDER BY 1;
CALL settled();
SELECT name FROM finish('contacts', 10);
SELECT name, state, run_at > now() + '50 minutes' AS waits_its_time FROM event_queue.jobs WHERE queue = 'contacts';
SELECT event_queue.drop_queue('contacts', force => true);
