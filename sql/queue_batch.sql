-- Batches settle or extend what is still the caller's, and say which was not.
SELECT event_queue.create_queue('b', max_attempts => 2, backoff => 'fixed', backoff_delay => '1 hour') IS NOT NULL AS created;
SELECT count(event_queue.enqueue('b', 'job ' || n)) FROM generate_series(1, 5) n;
CREATE TABLE mine AS SELECT job_id, lease_token, name FROM event_queue.claim('b', 5);
CREATE VIEW state AS SELECT name, state, failures FROM event_queue.jobs WHERE queue = 'b' ORDER BY name;
-- one is done, one given back, one cancelled
SELECT event_queue.complete(job_id, lease_token) FROM mine WHERE name = 'job 1';
SELECT event_queue.release(job_id, lease_token, '1 hour') FROM mine WHERE name = 'job 2';
SELECT event_queue.cancel_job(job_id) FROM mine WHERE name = 'job 3';
-- in the order of the arguments
SELECT m.name, e.state, e.leased_until > now() + '30 minutes' AS extended
FROM (SELECT array_agg(job_id ORDER BY name DESC) AS ids, array_agg(lease_token ORDER BY name DESC) AS tokens FROM mine) a,
	event_queue.extend_leases(ids, tokens, '1 hour') WITH ORDINALITY AS e (job_id, state, leased_until, nth)
	JOIN mine m USING (job_id) ORDER BY nth;
-- a job twice: the second time its lease is lost
SELECT m.name, f.state, f.run_at > now() AS later
FROM (SELECT array_agg(job_id ORDER BY name DESC) || max(job_id) AS ids, array_agg(lease_token ORDER BY name DESC) || (array_agg(lease_token ORDER BY job_id DESC))[1] AS tokens FROM mine WHERE name <> 'job 4') a,
	event_queue.fail_many(ids, tokens, 'no') WITH ORDINALITY AS f (job_id, state, run_at, nth)
	JOIN mine m USING (job_id) ORDER BY nth;
SELECT * FROM state;
SELECT f.state, f.run_at FROM mine m, event_queue.fail_many(ARRAY[job_id], ARRAY[lease_token], 'no', final => true) f WHERE m.name = 'job 4';
SELECT * FROM state;
-- nothing to do, and arguments that don't fit
SELECT * FROM event_queue.extend_leases('{}', '{}');
SELECT * FROM event_queue.fail_many(NULL, NULL, 'no');
SELECT * FROM event_queue.fail_many('{1}', '{}', 'no');
SELECT * FROM event_queue.extend_leases('{NULL}', ARRAY[gen_random_uuid()]);
SELECT * FROM event_queue.fail_many('{1}', ARRAY[gen_random_uuid()], 'no', retry_after => '-1 second');
SELECT * FROM event_queue.extend_leases('{1}', ARRAY[gen_random_uuid()], '0');
DROP VIEW state;
DROP TABLE mine;
SELECT event_queue.drop_queue('b', true);
