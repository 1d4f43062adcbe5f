-- Jobs that wait: for signals, which are kept, come first or late or twice; and for events.
SET client_min_messages = warning;
\set VERBOSITY sqlstate
CREATE SCHEMA stw;
SELECT event_queue.create_queue('stw') > 0 AS created;
CREATE FUNCTION stw.waits(job event_queue.claimed_job) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
	w jsonb := event_queue.await_signal(job, 'stw paid', job.payload ->> 'key', (job.payload ->> 'timeout')::interval);
BEGIN
	RETURN w;
END $$;
SELECT event_queue.create_handler('stw', 'waits', 'stw.waits') > 0 AS created;
-- It comes later; the second is not taken as long as the job lives
BEGIN;
SELECT event_queue.enqueue('stw', 'waits', '{"key": "o1"}') AS job \gset
SELECT outcome FROM event_queue.run_jobs('stw');
SELECT state, run_at > now() + interval '90 years' AS never FROM event_queue.jobs WHERE job_id = :job;
SELECT name, kind, state, key, until FROM event_queue.job_steps WHERE job_id = :job;
SELECT event_queue.send_signal('stw paid', 'o2', '2'), event_queue.send_signal('stw paid', 'o1', '{"amount": 1}'), event_queue.send_signal('stw paid', 'o1', '{"amount": 2}');
SELECT state FROM event_queue.jobs WHERE job_id = :job;
SELECT outcome, result FROM event_queue.run_jobs('stw');
SELECT key, payload FROM event_queue.signal WHERE name ^@ 'stw';
ROLLBACK;
-- It was there before: kept for the first that waits; again, not taken; NULL payload
BEGIN;
SELECT event_queue.send_signal('stw paid', 'o1'), event_queue.send_signal('stw paid', 'o1', '2');
SELECT event_queue.enqueue('stw', 'waits', '{"key": "o1"}') > 0 AS enqueued;
SELECT outcome, result FROM event_queue.run_jobs('stw');
SELECT count(*) FROM event_queue.signal WHERE name ^@ 'stw';
ROLLBACK;
-- All that wait get it
BEGIN;
SELECT count(event_queue.enqueue('stw', 'waits', '{"key": "o1"}')) FROM generate_series(1, 3);
SELECT outcome, count(*) FROM event_queue.run_jobs('stw') GROUP BY 1;
SELECT event_queue.send_signal('stw paid', 'o1', '"x"');
SELECT outcome, result, count(*) FROM event_queue.run_jobs('stw') GROUP BY 1, 2;
ROLLBACK;
-- Too late, and as late in every run; the signal is kept
BEGIN;
SELECT event_queue.enqueue('stw', 'waits', '{"key": "o1", "timeout": "0"}') > 0 AS enqueued;
SELECT outcome, result FROM event_queue.run_jobs('stw');
SELECT event_queue.send_signal('stw paid', 'o1');
SELECT count(*) FROM event_queue.signal WHERE name ^@ 'stw';
ROLLBACK;
BEGIN;
SELECT event_queue.enqueue('stw', 'waits', '{"timeout": "1 hour"}') AS job \gset
SELECT outcome FROM event_queue.run_jobs('stw');
SELECT until > now() + interval '59 minutes' AS later, key = :'job' AS its_id FROM event_queue.job_steps WHERE job_id = :job;
UPDATE event_queue.job_step SET until = now() WHERE job_id = :job;
SELECT event_queue.retry_waiting('stw', false);
SELECT outcome, result FROM event_queue.run_jobs('stw');
ROLLBACK;
-- Its time over, but the signal was faster
BEGIN;
SELECT event_queue.enqueue('stw', 'waits', '{"timeout": "1 hour"}') AS job \gset
SELECT outcome FROM event_queue.run_jobs('stw');
UPDATE event_queue.job_step SET until = now() WHERE job_id = :job;
SELECT event_queue.send_signal('stw paid', :'job', '"fast"');
SELECT outcome, result FROM event_queue.run_jobs('stw');
ROLLBACK;
-- Dead jobs get it, for when they are retried; one that waits in their place does, too
BEGIN;
SELECT event_queue.enqueue('stw', 'by hand') AS job \gset
SELECT job_id, lease_token FROM event_queue.claim('stw') \gset
SELECT event_queue.await_signal(:job_id, :'lease_token', 'stw paid', 'o1');
SELECT event_queue.retry_waiting('stw', false);
SELECT event_queue.fail(job_id, lease_token, 'no', final => true) IS NULL AS dead FROM event_queue.claim('stw');
SELECT event_queue.send_signal('stw paid', 'o1', '1'), event_queue.send_signal('stw paid', 'o1', '2');
SELECT event_queue.enqueue('stw', 'waits', '{"key": "o1"}') > 0 AS enqueued;
SELECT outcome, result FROM event_queue.run_jobs('stw');
SELECT event_queue.retry_dead(:job);
SELECT event_queue.await_signal(c, 'stw paid', 'o1'), event_queue.fail(c.job_id, c.lease_token, 'no', final => true) IS NULL AS dead FROM event_queue.claim('stw') c;
-- none lives that has received it: the next is kept
SELECT event_queue.send_signal('stw paid', 'o1', '3');
ROLLBACK;
-- Expired ones are not received, give way to others, and are removed
BEGIN;
SELECT event_queue.send_signal('stw paid', 'o' || i, '1') FROM generate_series(1, 3) i;
UPDATE event_queue.signal SET expires_at = now() WHERE name = 'stw paid';
SELECT event_queue.send_signal('stw paid', 'o2', '2');
SELECT event_queue.enqueue('stw', 'waits', '{"key": "o1"}') > 0 AS enqueued;
SELECT outcome FROM event_queue.run_jobs('stw');
SELECT event_queue_internal.trim_signals();
SELECT key, payload FROM event_queue.signal WHERE name ^@ 'stw';
ROLLBACK;
-- A job that another transaction has in hand is woken later (sweep)
SELECT event_queue_internal.resume_job(0);
-- Bad arguments
SELECT event_queue.send_signal('', 'k');
SELECT event_queue.send_signal('stw paid', NULL);
SELECT event_queue.send_signal('stw paid', 'k', keep => '0');
SELECT event_queue.send_signal('stw paid', 'k', keep => NULL);
SELECT event_queue.await_signal(0, gen_random_uuid(), 'stw paid');
BEGIN;
SELECT event_queue.enqueue('stw', 'x') > 0 AS enqueued;
SELECT event_queue.await_event(c, 'e', 'a..b') FROM event_queue.claim('stw') c;
ROLLBACK;

-- Another tenant's signal goes to no job, and nothing is known by it
CREATE ROLE stw_b;
SELECT event_queue.grant_producer('stw_b', 'stw B'), event_queue.grant_worker('stw_b', 'stw B');
BEGIN;
SELECT event_queue.enqueue('stw', 'waits', '{"key": "o1"}', tenant_id => 'stw A') AS job \gset
SELECT outcome FROM event_queue.run_jobs('stw');
SELECT event_queue.send_signal('stw paid', 'kept', tenant_id => 'stw A');
SET LOCAL ROLE stw_b;
SELECT event_queue.send_signal('stw paid', 'o1', '1'), event_queue.send_signal('stw paid', 'kept', '1');
SELECT count(*) FROM event_queue.job_steps WHERE job_id = :job;
SELECT tenant_id, key FROM event_queue.signal WHERE name ^@ 'stw' ORDER BY 1, 2;
RESET ROLE;
SELECT state FROM event_queue.jobs WHERE job_id = :job;
SET LOCAL ROLE stw_b;
SELECT event_queue.send_signal('stw paid', 'o1', '1', tenant_id => 'stw A');
ROLLBACK;
BEGIN;
SELECT event_queue.enqueue('stw', 'x', tenant_id => 'stw A') AS job \gset
SELECT lease_token FROM event_queue.claim('stw') \gset
SET LOCAL ROLE stw_b;
SELECT event_queue.step(:job, :'lease_token', 'x');
ROLLBACK;
SELECT event_queue.revoke_access('stw_b');
DROP ROLE stw_b;

-- Of a group, the others wait for the one that waits
SELECT event_queue.enqueue('stw', 'grouped', group_key => 'g') AS g1, event_queue.enqueue('stw', 'grouped', group_key => 'g') AS g2 \gset
CREATE FUNCTION stw.claim(id bigint) RETURNS event_queue.claimed_job LANGUAGE plpgsql AS $$
DECLARE
	j event_queue.claimed_job;
BEGIN
	FOR i IN 1 .. 600 LOOP
		SELECT * INTO j FROM event_queue.claim('stw');
		EXIT WHEN j.job_id IS NOT NULL;
		PERFORM pg_sleep(0.05);
	END LOOP;
	RETURN CASE WHEN j.job_id = $1 THEN j END;
END $$;
SELECT event_queue.await_signal(c, 'stw group', 'g') FROM stw.claim(:g1) c;
SELECT pg_sleep(0.2);
SELECT count(*) FROM event_queue.claim('stw');
SELECT event_queue.send_signal('stw group', 'g');
SELECT event_queue.await_signal(c, 'stw group', 'g') AS got, event_queue.complete(c.job_id, c.lease_token) FROM stw.claim(:g1) c;
SELECT event_queue.complete(c.job_id, c.lease_token) FROM stw.claim(:g2) c;

-- Events: one that comes later wakes the job; of another aggregate, type or tenant does not
CREATE FUNCTION stw.wait_for(job bigint, state text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	found_state text;
BEGIN
	FOR i IN 1 .. 600 LOOP
		SELECT j.state INTO found_state FROM event_queue.jobs j WHERE job_id = $1;
		EXIT WHEN found_state = $2;
		PERFORM pg_sleep(0.05);
	END LOOP;
	RETURN found_state;
END $$;
SELECT event_queue.enqueue('stw', 'e') AS e1, event_queue.enqueue('stw', 'e') AS e2, event_queue.enqueue('stw', 'e') AS e3 \gset
SELECT event_queue.await_event(c, 'answer', 'stwlead.answered', 'stw lead', 'stwL1') AS a FROM event_queue.claim('stw') c;
SELECT event_queue.await_event(c, 'answer', 'stw.*') AS a FROM event_queue.claim('stw') c;
SELECT event_queue.await_event(c, 'answer', 'stwlead.**', 'stw lead', timeout => '1 hour') AS a FROM event_queue.claim('stw') c;
SELECT job_id = :e3 AS e3, pattern, aggregate_type, aggregate_id, state, until IS NOT NULL AS limited FROM event_queue.job_steps WHERE job_id IN (:e1, :e2, :e3) ORDER BY job_id;
SELECT version FROM event_queue.append('stw lead', 'stwL1', 'stwtask.opened', tenant_id => 'stw A');
SELECT version FROM event_queue.append('stw lead', 'stwL1', 'stwlead.answered', tenant_id => 'stw A');
SELECT version FROM event_queue.append('stw lead', 'stwL1', 'stwlead.called');
SELECT stw.wait_for(:e3, 'ready');
SELECT state FROM event_queue.jobs WHERE job_id IN (:e1, :e2) ORDER BY 1;
SELECT event_queue.await_event(c, 'answer', 'stwlead.**', 'stw lead') #>> '{event,event_type}' AS a, event_queue.complete(c.job_id, c.lease_token) FROM event_queue.claim('stw') c;
SELECT version FROM event_queue.append('stw lead', 'stwL1', 'stwlead.answered', '{"n": 1}');
SELECT version FROM event_queue.append('stw lead', 'stwL1', 'stwlead.answered', '{"n": 2}');
SELECT stw.wait_for(:e1, 'ready');
SELECT event_queue.await_event(c, 'answer', 'stwlead.answered', 'stw lead', 'stwL1') #- '{event,id}' #- '{event,position}' #- '{event,created_at}' #- '{event,metadata}' AS a,
	event_queue.complete(c.job_id, c.lease_token) FROM event_queue.claim('stw') c;
SELECT version FROM event_queue.append('stw other', 'stw x', 'stw.y');
SELECT stw.wait_for(:e2, 'ready');
SELECT event_queue.await_event(c, 'answer', 'stw.*') #>> '{event,event_type}' AS a, event_queue.complete(c.job_id, c.lease_token) FROM event_queue.claim('stw') c;
-- Those that are there, from a position on: no wait
SELECT event_queue.enqueue('stw', 'e') > 0 AS enqueued;
SELECT event_queue.await_event(c, 'answer', 'stwlead.answered', 'stw lead', 'stwL1', after_position => 0) #>> '{event,data}' AS a, event_queue.complete(c.job_id, c.lease_token) FROM event_queue.claim('stw') c;
-- Without a checkpoint, as in a restored copy, waits are looked at anew
SELECT event_queue.enqueue('stw', 'e') AS e1 \gset
SELECT event_queue.await_event(c, 'answer', 'stwlead.answered', 'stw lead', 'stwL2') AS a FROM event_queue.claim('stw') c;
BEGIN;
DELETE FROM event_queue_internal.step_checkpoint;
SELECT version FROM event_queue.append('stw lead', 'stwL2', 'stwlead.answered');
COMMIT;
SELECT stw.wait_for(:e1, 'ready');
SELECT event_queue.await_event(c, 'answer', 'stwlead.answered', 'stw lead', 'stwL2') ->> 'state' AS a, event_queue.complete(c.job_id, c.lease_token) FROM event_queue.claim('stw') c;
SELECT count(*) FROM event_queue.job_step s JOIN event_queue.job j USING (job_id) JOIN event_queue.queue q USING (queue_id) WHERE q.name = 'stw';
SELECT event_queue.drop_handler('stw', 'waits'), event_queue.drop_queue('stw', true);
DROP SCHEMA stw CASCADE;
