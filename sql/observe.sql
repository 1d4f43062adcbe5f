-- What an operator sees of queues: counters that follow commits, and why a job
-- is not running.
SET client_min_messages = warning;
SET intervalstyle = postgres;
-- What the counters say, and whether it is what there is.
CREATE VIEW counted AS
	SELECT s.depth, s.dead,
		s.depth = (SELECT count(*) FROM event_queue.jobs j WHERE j.queue = s.queue)
		AND s.dead = (SELECT count(*) FROM event_queue.dead_letters d WHERE d.queue = s.queue) AS right
	FROM event_queue.queue_status s WHERE s.queue = 'seen';

-- Depth and dead letters are counters; whatever changes the tables, they follow.
SELECT event_queue.create_queue('seen', keep_failed_count => 3) > 0 AS created;
SELECT cardinality(event_queue.enqueue_many('seen', to_jsonb(array_fill('{}'::jsonb, '{20}')), options => '{"name": "s"}')) AS enqueued;
TABLE counted;
SELECT count(event_queue.complete(job_id, lease_token)) FROM event_queue.claim('seen', 5);
SELECT count(*) FROM event_queue.claim('seen', 6) WHERE event_queue.fail(job_id, lease_token, 'no', final => true) IS NULL;
TABLE counted;
-- as seen by others: not before the commit, and not at all after a rollback
BEGIN;
SELECT event_queue.retry_dead(min(job_id)) FROM event_queue.dead_letter;
SELECT event_queue.discard_dead(max(job_id)) FROM event_queue.dead_letter;
SELECT depth, dead FROM counted;
ROLLBACK;
TABLE counted;
SELECT event_queue.retry_dead(min(job_id)) FROM event_queue.dead_letter;
SELECT event_queue.discard_dead(max(job_id)) FROM event_queue.dead_letter;
TABLE counted;
-- what a savepoint takes back does not count
BEGIN;
SAVEPOINT s;
SELECT event_queue.discard_dead(max(job_id)) FROM event_queue.dead_letter;
ROLLBACK TO s;
SELECT event_queue.discard_dead(min(job_id)) FROM event_queue.dead_letter;
COMMIT;
TABLE counted;
-- retention
SELECT event_queue.alter_queue('seen', keep_failed_count => 2);
SELECT event_queue_internal.maintain_history();
TABLE counted;
-- dependents that can never run
SELECT event_queue.enqueue('seen', 'first', delay => '1 hour') AS first \gset
SELECT event_queue.enqueue('seen', 'second', depends_on => ARRAY[:first]) > 0 AS enqueued;
SELECT event_queue.cancel_job(:first);
TABLE counted;
SELECT event_queue.retry_all_dead('seen');
TABLE counted;
-- plain SQL
DELETE FROM event_queue.job WHERE job_id IN (SELECT max(job_id) FROM event_queue.jobs WHERE queue = 'seen');
TABLE counted;
SELECT event_queue.purge_queue('seen');
TABLE counted;
-- TRUNCATE tells no rows: the scheduler counts again
SELECT count(event_queue.enqueue('seen', 's')) FROM generate_series(1, 3);
SELECT count(*) FROM event_queue.claim('seen', 2) WHERE event_queue.fail(job_id, lease_token, 'no', final => true) IS NULL;
TABLE counted;
TRUNCATE event_queue.dead_letter;
DO $$
BEGIN
	FOR i IN 1 .. 1500 LOOP
		EXIT WHEN (SELECT dead = 0 FROM counted);
		COMMIT;
		PERFORM pg_sleep(0.01);
	END LOOP;
END $$;
TABLE counted;
SELECT event_queue.purge_queue('seen');

-- Rates are per second, of the last minute, or of the time that there was, a second at least.
SELECT event_queue.create_queue('rates', max_attempts => 1) > 0 AS created;
SELECT enqueued_per_s, completed_per_s, failed_per_s FROM event_queue.queue_status WHERE queue = 'rates';
SELECT cardinality(event_queue.enqueue_many('rates', to_jsonb(array_fill('{}'::jsonb, '{100}')), options => '{"name": "r"}')) AS enqueued;
SELECT count(event_queue.complete(job_id, lease_token)) FROM event_queue.claim('rates', 50);
SELECT count(*) FROM event_queue.claim('rates', 25) WHERE event_queue.fail(job_id, lease_token, 'no') IS NULL;
SELECT enqueued_per_s > 0 AND enqueued_per_s <= 100 AS some,
	completed_per_s / enqueued_per_s BETWEEN 0.49 AND 0.51 AS half, failed_per_s / enqueued_per_s BETWEEN 0.24 AND 0.26 AS quarter
FROM event_queue.queue_status WHERE queue = 'rates';
SELECT event_queue.drop_queue('rates', force => true);
-- draining: how many there are still
SELECT event_queue.enqueue('seen', 'last') AS last \gset
SELECT event_queue.drain_queue('seen');
-- takes no more, but gives what it has: no reason not to run
SELECT reason FROM event_queue.explain_job(:last);
SELECT event_queue.drop_queue('seen', force => true);

-- Why a job is not running.
SELECT event_queue.create_queue('why', max_concurrency => 4) > 0 AS created;
SELECT cardinality(event_queue.enqueue_many('why', to_jsonb(array_fill('{}'::jsonb, '{4}')), options => '{"name": "w"}')) AS enqueued;
SELECT (SELECT count(*) FROM event_queue.claim('why', 1, 'ann')) AS anns, (SELECT count(*) FROM event_queue.claim('why', 3, 'bob')) AS bobs;
SELECT event_queue.enqueue('why', 'fifth') AS fifth \gset
-- who runs instead
SELECT reason, regexp_replace(detail, 'job \d+', 'job N', 'g') AS detail FROM event_queue.explain_job(:fifth);
-- several reasons at once
SELECT event_queue.alter_queue('why', rate_limit => 1, rate_interval => '1 hour', reset => '{max_concurrency}');
SELECT count(*) FROM event_queue.claim('why');
SELECT event_queue.enqueue('why', 'later', delay => '10 minutes') AS later \gset
SELECT event_queue.pause_queue('why');
SELECT reason, round(extract(epoch FROM until - now()) / 60) AS minutes, detail FROM event_queue.explain_job(:later);
SELECT event_queue.drop_queue('why', force => true);
-- a key that has no token now, whether or not a claim has met the job
SELECT event_queue.create_queue('keys', group_concurrency => 3, group_rate_limit => 1, group_rate_interval => '1 hour') > 0 AS created;
SELECT count(event_queue.enqueue('keys', 'k', group_key => 'ana')) FROM generate_series(1, 2);
SELECT event_queue.enqueue('keys', 'delayed', group_key => 'ana', delay => '2 hours') AS delayed \gset
CALL settled();
SELECT job_id AS running FROM event_queue.claim('keys') \gset
SELECT max(job_id) AS waiting FROM event_queue.jobs WHERE queue = 'keys' AND name = 'k' \gset
SELECT reason, round(extract(epoch FROM until - now()) / 60) AS minutes, detail FROM event_queue.explain_job(:waiting);
SELECT count(*) FROM event_queue.claim('keys');
SELECT state FROM event_queue.jobs WHERE job_id = :waiting;
SELECT reason, round(extract(epoch FROM until - now()) / 60) AS minutes, detail FROM event_queue.explain_job(:waiting);
SELECT reason, round(extract(epoch FROM until - now()) / 60) AS minutes, detail FROM event_queue.explain_job(:delayed);
SELECT event_queue.drop_queue('keys', force => true);
-- handlers inside the database, but none of this name
CREATE FUNCTION handle(job event_queue.claimed_job) RETURNS jsonb LANGUAGE sql AS 'SELECT NULL::jsonb';
SELECT event_queue.create_queue('handled') > 0 AS created;
SELECT event_queue.enqueue('handled', 'alien') AS alien \gset
SELECT reason, detail ~ 'it waits for an outside worker' AS outside FROM event_queue.explain_job(:alien);
SELECT event_queue.create_handler('handled', 'known', 'handle') > 0 AS registered;
SELECT reason, detail FROM event_queue.explain_job(:alien);
-- one for all names is one for this
SELECT event_queue.pause_queue('handled');
SELECT event_queue.create_handler('handled', '*', 'handle') > 0 AS registered;
SELECT reason FROM event_queue.explain_job(:alien);
SELECT event_queue.drop_handler('handled', n) FROM unnest('{known,*}'::text[]) n;
SELECT event_queue.drop_queue('handled', force => true);

DROP VIEW counted;
DROP FUNCTION handle;

-- One leased job is not "1 jobs".
BEGIN;
SELECT event_queue.create_queue('single', max_concurrency => 1) > 0 AS created;
SELECT count(event_queue.enqueue('single', 'w')) FROM generate_series(1, 2);
SELECT count(*) FROM event_queue.claim('single', worker => 'ann');
SELECT e.detail ~ '^1 job of the queue is leased: ' AS singular FROM event_queue.job j, event_queue.explain_job(j.job_id) e
WHERE j.lease_token IS NULL AND j.name = 'w' AND e.reason = 'max_concurrency reached';
ROLLBACK;
