-- New data for a unique key whose job is running is kept for a job that follows it,
-- or the caller is told which job has the key.
SELECT event_queue.create_queue('keys', max_stalled => 0, max_attempts => 2, backoff_delay => '0') > 0 AS created;
CREATE VIEW key_jobs AS
	SELECT name, payload, state, unique_key FROM event_queue.jobs WHERE queue = 'keys' ORDER BY job_id;
-- What a worker gets, once the scheduler has looked.
CREATE FUNCTION run_keys() RETURNS TABLE (payload jsonb) LANGUAGE sql AS $$
	SELECT c.payload FROM event_queue.claim('keys', 10) c, LATERAL event_queue.complete(c.job_id, c.lease_token)
$$;

SELECT event_queue.enqueue('keys', 'index', '1', unique_key => 'k') AS first \gset
SELECT lease_token FROM event_queue.claim('keys') \gset
-- reject: told, whatever the job's number is
\set VERBOSITY sqlstate
SELECT event_queue.enqueue('keys', 'index', '2', unique_key => 'k') = :first AS same;
SELECT event_queue.enqueue('keys', 'index', '1', unique_key => 'k') = :first AS same_and_nothing_to_tell;
\set VERBOSITY default
-- replace: another job, which is replaced in its turn, and does not run beside the first
SELECT event_queue.enqueue('keys', 'index', '3', unique_key => 'k', options => '{"unique_mode": "replace"}') AS next \gset
SELECT :next > :first AS another,
	event_queue.enqueue('keys', 'index', '4', unique_key => 'k', options => '{"unique_mode": "replace"}') = :next AS replaced,
	event_queue.enqueue('keys', 'index', '5', unique_key => 'k', delay => '0', options => '{"unique_mode": "debounce"}') = :next AS pushed_back;
CALL settled();
SELECT * FROM key_jobs;
SELECT * FROM run_keys();
SELECT event_queue.complete(:first, :'lease_token');
CALL settled();
SELECT * FROM run_keys();
SELECT * FROM key_jobs;

-- It follows a job that fails, when that has ended for good ...
SELECT event_queue.enqueue('keys', 'index', '"fails"', unique_key => 'k') AS first \gset
SELECT lease_token FROM event_queue.claim('keys') \gset
SELECT event_queue.enqueue('keys', 'index', '"then"', unique_key => 'k', options => '{"unique_mode": "replace"}') > 0 AS enqueued;
SELECT event_queue.fail(:first, :'lease_token', 'no') IS NOT NULL AS again;
CALL settled();
SELECT job_id = :first AS the_first, lease_token FROM event_queue.claim('keys', 10) \gset
SELECT event_queue.fail(:first, :'lease_token', 'no') IS NULL AS dead, :'the_first' AS it_was_the_first;
CALL settled();
SELECT * FROM key_jobs;
SELECT * FROM run_keys();
-- (and the dead letter can be retried)
SELECT event_queue.retry_all_dead('keys');
SELECT * FROM run_keys();

-- ... or is cancelled, deleted, or stalls once too often.
CREATE FUNCTION begin_two() RETURNS bigint LANGUAGE sql AS $$
	SELECT event_queue.enqueue('keys', 'index', '"old"', unique_key => 'k');
	SELECT job_id FROM event_queue.claim('keys', lease => '1 ms');
	SELECT event_queue.enqueue('keys', 'index', '"new"', unique_key => 'k', options => '{"unique_mode": "replace"}');
	SELECT min(job_id) FROM event_queue.jobs WHERE queue = 'keys';
$$;
SELECT begin_two() AS first \gset
SELECT pg_sleep(0.01);
SELECT event_queue.cancel_job(:first);
CALL settled();
SELECT * FROM run_keys();
SELECT begin_two() AS first \gset
DELETE FROM event_queue.job WHERE job_id = :first;
CALL settled();
SELECT * FROM run_keys();
SELECT begin_two() AS first \gset
SELECT pg_sleep(0.01);
SELECT job_id FROM event_queue.claim('keys');
SELECT reason FROM event_queue.dead_letters WHERE queue = 'keys';
CALL settled();
SELECT * FROM run_keys();
-- Rolled back, nothing has happened.
SELECT event_queue.enqueue('keys', 'index', '"kept"', unique_key => 'k') AS first \gset
SELECT lease_token FROM event_queue.claim('keys') \gset
BEGIN;
SELECT event_queue.enqueue('keys', 'index', '"gone"', unique_key => 'k', options => '{"unique_mode": "replace"}') > 0 AS enqueued;
ROLLBACK;
SELECT * FROM key_jobs;
SELECT event_queue.complete(:first, :'lease_token');
-- The one that waits keeps its time and metadata unless others are given; debounce begins the time anew.
SELECT event_queue.enqueue('keys', 'index', '1', delay => '1 hour', unique_key => 'later', options => '{"metadata": {"of": 1}, "priority": 3}') AS later \gset
CREATE VIEW later_job AS SELECT payload, metadata ->> 'of' AS of, priority, run_at > now() + interval '50 minutes' AS later
	FROM event_queue.job WHERE unique_key = 'later';
SELECT event_queue.enqueue('keys', 'index', '2', unique_key => 'later', options => '{"unique_mode": "replace"}') = :later AS replaced;
SELECT * FROM later_job;
SELECT event_queue.enqueue('keys', 'index', '3', unique_key => 'later', options => '{"unique_mode": "replace", "metadata": {"of": 3}, "delay": "0"}') = :later AS replaced;
SELECT * FROM later_job;
SELECT event_queue.enqueue('keys', 'index', '4', delay => '1 hour', unique_key => 'later', options => '{"unique_mode": "replace"}') = :later AS replaced;
SELECT event_queue.enqueue('keys', 'index', '5', unique_key => 'later', options => '{"unique_mode": "debounce"}') = :later AS pushed_back;
SELECT * FROM later_job;
DROP VIEW later_job;
SELECT event_queue.drop_queue('keys', true);
DROP FUNCTION begin_two, run_keys;
DROP VIEW key_jobs;
