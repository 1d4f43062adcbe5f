-- One job's life: enqueue, claim, complete, fail, release, dead letter.
SELECT event_queue.create_queue('mail') IS NOT NULL AS created;
SELECT event_queue.enqueue('mail', 'send', '{"to": "ana"}') AS job \gset
SELECT name, payload, tenant_id, attempt, max_attempts, stalled, priority,
	leased_until - now() BETWEEN '29 s' AND '31 s' AS lease FROM event_queue.claim('mail');
SELECT count(*) FROM event_queue.claim('mail'); -- leased: not to be had
SELECT state, leased_by LIKE 'pg_regress%' FROM event_queue.jobs WHERE queue = 'mail';
SELECT event_queue.complete(job_id, lease_token) FROM event_queue.job WHERE job_id = :job;
SELECT count(*) FROM event_queue.job WHERE job_id = :job;
SELECT try(format('SELECT event_queue.complete(%s, gen_random_uuid())', :job)) LIKE 'EQ016: lease of job % is lost%';

-- Order: priority, then time; max_jobs at a time; only what is due.
SELECT count(event_queue.enqueue('mail', n, priority => p, delay => d)) FROM (VALUES
	('normal 1', 5, '0 s'::interval), ('last', 9, '0 s'), ('first', 0, '0 s'),
	('tomorrow', 0, '1 day'), ('normal 2', 5, NULL)) AS j (n, p, d);
SELECT name FROM event_queue.claim('mail', 3);
SELECT name FROM event_queue.claim('mail', 3);
SELECT name, state FROM event_queue.jobs WHERE queue = 'mail' AND state <> 'leased';
-- claim and complete also work in one statement
SELECT event_queue.enqueue('mail', 'quick', priority => 0) IS NOT NULL AS enqueued;
SELECT c.name, event_queue.complete(c.job_id, c.lease_token) FROM event_queue.claim('mail') c;
-- by name, for a worker that knows some jobs only
SELECT event_queue.enqueue('mail', 'a') IS NOT NULL AND event_queue.enqueue('mail', 'b') IS NOT NULL AS enqueued;
SELECT name FROM event_queue.claim('mail', 5, job_names => '{b,c}');
SELECT event_queue.drop_queue('mail', force => true);

-- Failing: 2 s, then 4 s, then a dead letter with all errors.
SELECT event_queue.create_queue('fail', keep_completed => '1 day') IS NOT NULL AS created;
SELECT event_queue.enqueue('fail', 'x', '{"n": 1}', unique_key => 'k') AS job \gset
SELECT round(extract(epoch FROM event_queue.fail(job_id, lease_token, 'boom ' || attempt, '22012', 'line 1') - now())) AS wait
FROM event_queue.claim('fail');
SELECT state, failures FROM event_queue.jobs WHERE job_id = :job;
UPDATE event_queue.job SET run_at = now() WHERE job_id = :job;
SELECT round(extract(epoch FROM event_queue.fail(job_id, lease_token, 'boom ' || attempt) - now())) AS wait
FROM event_queue.claim('fail');
UPDATE event_queue.job SET run_at = now() WHERE job_id = :job;
SELECT event_queue.fail(job_id, lease_token, 'boom ' || attempt, context => 'the end') IS NULL AS dead
FROM event_queue.claim('fail', worker => 'w1');
SELECT queue, name, reason, failures, last_error, payload,
	(SELECT jsonb_agg(e - 'at' - 'worker') FROM jsonb_array_elements(errors) e) AS errors
FROM event_queue.dead_letters WHERE job_id = :job;
-- Back into the queue, with its errors; success takes it out for good.
SELECT event_queue.retry_dead(:job);
SELECT state, failures, unique_key, jsonb_array_length(errors) AS errors FROM event_queue.jobs WHERE job_id = :job;
SELECT attempt, event_queue.complete(job_id, lease_token, '{"ok": true}') FROM event_queue.claim('fail');
SELECT result, jsonb_array_length(errors) AS errors FROM event_queue.job_history WHERE job_id = :job;
SELECT count(*) FROM event_queue.dead_letters WHERE queue = 'fail';
SELECT try(format('SELECT event_queue.retry_dead(%s)', :job)) LIKE 'EQ017%';
-- Final errors, retry_after, own attempts and backoff, release
SELECT event_queue.enqueue('fail', 'final') IS NOT NULL AS enqueued;
SELECT event_queue.fail(job_id, lease_token, 'never again', final => true) FROM event_queue.claim('fail');
SELECT event_queue.enqueue('fail', 'own', options => '{"max_attempts": 5, "backoff": "fixed", "backoff_delay": "7 s"}') AS job \gset
SELECT max_attempts, round(extract(epoch FROM event_queue.fail(job_id, lease_token, 'x') - now())) AS wait FROM event_queue.claim('fail');
UPDATE event_queue.job SET run_at = now() WHERE job_id = :job;
SELECT round(extract(epoch FROM event_queue.fail(job_id, lease_token, 'x', retry_after => '1 minute') - now())) AS wait FROM event_queue.claim('fail');
UPDATE event_queue.job SET run_at = now() WHERE job_id = :job;
SELECT attempt, event_queue.release(job_id, lease_token) FROM event_queue.claim('fail');
SELECT attempt, round(extract(epoch FROM event_queue.extend_lease(job_id, lease_token, '2 minutes') - now())) AS lease FROM event_queue.claim('fail');
SELECT reason, name FROM event_queue.dead_letters WHERE queue = 'fail';
SELECT event_queue.retry_all_dead('fail');
SELECT event_queue.purge_queue('fail');
SELECT event_queue.discard_dead(job_id) FROM event_queue.dead_letters WHERE queue = 'fail';

-- A lease that runs out: claimed again, max_stalled times, then dead.
SELECT event_queue.create_queue('stall', max_stalled => 1) IS NOT NULL AS created;
SELECT event_queue.enqueue('stall', 's') AS job \gset
SELECT stalled, attempt FROM event_queue.claim('stall');
UPDATE event_queue.job SET leased_until = now() WHERE job_id = :job;
SELECT state FROM event_queue.jobs WHERE job_id = :job;
SELECT stalled, attempt FROM event_queue.claim('stall');
UPDATE event_queue.job SET leased_until = now() WHERE job_id = :job;
SELECT count(*) FROM event_queue.claim('stall');
SELECT reason, stalled, failures, last_error FROM event_queue.dead_letters WHERE job_id = :job;

-- Unique keys: one living job for a key.
SELECT event_queue.create_queue('unique') IS NOT NULL AS created;
SELECT event_queue.enqueue('unique', 'u', unique_key => 'k') AS first \gset
SELECT event_queue.enqueue('unique', 'u', unique_key => 'k') = :first AS same,
	event_queue.enqueue('unique', 'u', unique_key => 'k', tenant_id => 'other') <> :first AS other_tenant;
SELECT event_queue.complete(job_id, lease_token) FROM event_queue.claim('unique', tenant_id => 'default');
SELECT event_queue.enqueue('unique', 'u', unique_key => 'k') <> :first AS new_one;

-- Pause, limits, settings.
SELECT event_queue.pause_queue('unique');
SELECT count(*) FROM event_queue.claim('unique', 10);
SELECT DISTINCT state FROM event_queue.jobs WHERE queue = 'unique';
SELECT event_queue.resume_queue('unique');
SELECT count(*) FROM event_queue.claim('unique', 10);
SELECT event_queue.create_queue('limited', max_concurrency => 2) IS NOT NULL AS created;
SELECT count(event_queue.enqueue('limited', 'j')) FROM generate_series(1, 10);
SELECT count(*) FROM event_queue.claim('limited', 10);
SELECT count(*) FROM event_queue.claim('limited', 10);
SELECT event_queue.complete(job_id, lease_token) FROM event_queue.job WHERE lease_token IS NOT NULL
	AND queue_id = event_queue_internal.queue_id_of('limited') LIMIT 1;
SELECT count(*) FROM event_queue.claim('limited', 10);
SELECT event_queue.alter_queue('limited', rate_limit => 3, rate_interval => '1 hour', reset => '{max_concurrency}');
SELECT count(*) FROM event_queue.claim('limited', 10);
SELECT count(*) FROM event_queue.claim('limited', 10);
BEGIN;
SELECT event_queue.alter_queue('limited', reset => '{rate_limit}');
SELECT count(*) FROM event_queue.claim('limited', 10);
ROLLBACK;
SELECT count(*) FROM event_queue.claim('limited', 10);

-- What an operator sees.
SELECT queue, paused, depth, dead, sla_missed
FROM event_queue.queue_status WHERE queue IN ('stall', 'unique', 'limited') ORDER BY queue;
SELECT enqueued_total, claimed_total, completed_total, failed_total, stalled_total, dead_total
FROM event_queue.queue_status WHERE queue = 'stall';
SELECT event_queue.drop_queue(q, force => true) FROM unnest('{fail,stall,unique,limited}'::text[]) q;

-- A claim is HOT: it writes nothing that an index has.
VACUUM event_queue.job;
SELECT event_queue.create_queue('hot') IS NOT NULL AS created;
SELECT count(event_queue.enqueue('hot', 'j')) FROM generate_series(1, 500);
SELECT pg_stat_force_next_flush();
SELECT n_tup_upd AS upd, n_tup_hot_upd AS hot FROM pg_stat_user_tables WHERE relid = 'event_queue.job'::regclass \gset
SELECT count(*) FROM event_queue.claim('hot', 100);
SELECT pg_stat_force_next_flush();
SELECT n_tup_upd - :upd AS updated, n_tup_hot_upd - :hot AS hot
FROM pg_stat_user_tables WHERE relid = 'event_queue.job'::regclass;
-- a job that the transaction itself enqueues comes in its place, too
SELECT count(*) FROM event_queue.claim('hot', 100);
SELECT count(event_queue.enqueue('hot', 'later', '{}')) FROM generate_series(1, 5);
SELECT name FROM event_queue.claim('hot');
BEGIN;
SELECT event_queue.enqueue('hot', 'first', priority => 0) > 0 AS enqueued;
SELECT name FROM event_queue.claim('hot');
COMMIT;
SELECT event_queue.drop_queue('hot', force => true);
