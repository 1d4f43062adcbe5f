-- Durable steps: what a run has done is not done again; sleeping; what undoes a step.
SET client_min_messages = warning;
\set VERBOSITY sqlstate
CREATE SCHEMA stp;
CREATE TABLE stp.done (what text, job_id bigint);
SELECT event_queue.create_queue('stp', max_attempts => 3, backoff => 'fixed', backoff_delay => '0') > 0 AS created;
SELECT event_queue.create_queue('stp_undo') > 0 AS created;
-- a worker's session: each statement is a transaction
SELECT event_queue.enqueue('stp', 'order', '{"n": 1}') AS job \gset
SELECT job_id, lease_token FROM event_queue.claim('stp') \gset
SELECT event_queue.step(:job_id, :'lease_token', 'reserve');
SELECT event_queue.step_done(:job_id, :'lease_token', 'reserve', '{"items": 3}');
SELECT event_queue.step(:job_id, :'lease_token', 'pay');
SELECT event_queue.step_done(:job_id, :'lease_token', 'pay');
SELECT step_no, name, kind, state, result FROM event_queue.job_steps WHERE job_id = :job ORDER BY 1;
-- a name used twice in one run
SELECT event_queue.step(:job_id, :'lease_token', 'pay');
SELECT event_queue.step_done(:job_id, :'lease_token', 'pay', '1');
SELECT event_queue.sleep_job(:job_id, :'lease_token', 'pay', '1 s');
-- the next run has the results, each name once
SELECT event_queue.fail(:job_id, :'lease_token', 'no ship') IS NOT NULL AS again;
SELECT job_id, lease_token AS token2 FROM event_queue.claim('stp') \gset
SELECT event_queue.step(:job_id, :'token2', 'reserve'), event_queue.step(:job_id, :'token2', 'pay'), event_queue.step(:job_id, :'token2', 'ship');
SELECT event_queue.step(:job_id, :'token2', 'reserve');
SELECT event_queue.step_done(:job_id, :'token2', 'reserve');
-- the old lease, no lease, other arguments
SELECT event_queue.step(:job_id, :'lease_token', 'reserve');
SELECT event_queue.step_done(:job_id, :'lease_token', 'ship');
SELECT event_queue.step(0, gen_random_uuid(), 'reserve');
SELECT event_queue.step(NULL::event_queue.claimed_job, 'x');
SELECT event_queue.step(:job_id, :'token2', '');
SELECT event_queue.step(:job_id, :'token2', NULL);
SELECT event_queue.sleep_job(:job_id, :'token2', 'x');
SELECT event_queue.sleep_job(:job_id, :'token2', 'x', '-1 s');
SELECT event_queue.sleep_job(:job_id, :'token2', 'x', until => 'infinity');
SELECT event_queue.step_done(:job_id, :'token2', 'x', undo => '{"name": "x"}');
SELECT event_queue.step_done(:job_id, :'token2', 'x', undo => '{"queue": "none", "name": "x"}');
SELECT event_queue.step_done(:job_id, :'token2', 'x', undo => '{"queue": "rule-calls", "name": "x"}');
SELECT event_queue.step_done(:job_id, :'token2', 'x', undo => '{"queue": "stp", "name": "x", "depends_on": [1]}');
SELECT event_queue.step_done(:job_id, :'token2', 'x', undo => '[]');
-- a rolled-back step was not done
BEGIN;
SELECT event_queue.step_done(:job_id, :'token2', 'ship');
ROLLBACK;
SELECT event_queue.step(:job_id, :'token2', 'ship');
-- completed: its steps are gone
SELECT event_queue.complete(:job_id, :'token2');
SELECT count(*) FROM event_queue.job_step WHERE job_id = :job;

-- An hour's sleep, and one that is over at once
SELECT event_queue.enqueue('stp', 'sleeper', group_key => NULL) AS job \gset
SELECT job_id, lease_token FROM event_queue.claim('stp') \gset
SELECT event_queue.sleep_job(:job_id, :'lease_token', 'an hour', '1 hour');
SELECT state, leased_by, leased_until, run_at > now() + interval '59 minutes' AS later FROM event_queue.jobs WHERE job_id = :job;
SELECT event_queue.complete(:job_id, :'lease_token');
SELECT count(*) FROM event_queue.claim('stp');
-- woken before its time, it sleeps on
SELECT event_queue.retry_waiting('stp', false);
SELECT job_id, lease_token FROM event_queue.claim('stp') \gset
SELECT event_queue.sleep_job(:job_id, :'lease_token', 'an hour', '1 s');
SELECT run_at > now() + interval '59 minutes' AS later FROM event_queue.jobs WHERE job_id = :job;
UPDATE event_queue.job_step SET until = now() WHERE job_id = :job;
SELECT event_queue.retry_waiting('stp', false);
SELECT job_id, lease_token FROM event_queue.claim('stp') \gset
SELECT event_queue.sleep_job(:job_id, :'lease_token', 'an hour', '1 hour');
SELECT event_queue.complete(:job_id, :'lease_token');

-- A handler in plain SQL: a list of steps; run_jobs goes on with it as it is due
CREATE FUNCTION stp.reserve(job event_queue.claimed_job) RETURNS jsonb LANGUAGE sql AS $$
	INSERT INTO stp.done VALUES ('reserve', job.job_id); SELECT '{"by": "reserve"}'::jsonb $$;
CREATE FUNCTION stp.ship(job event_queue.claimed_job) RETURNS void LANGUAGE sql AS $$ INSERT INTO stp.done VALUES ('ship', job.job_id) $$;
CREATE FUNCTION stp.plain(job event_queue.claimed_job) RETURNS jsonb LANGUAGE sql AS $$
	SELECT event_queue.run_step(job, 'reserve', 'stp.reserve');
	SELECT event_queue.sleep_job(job, 'a moment', '0');
	SELECT event_queue.run_step(job, 'ship', 'stp.ship');
	SELECT event_queue.run_step(job, 'reserve again', 'stp.reserve') $$;
SELECT event_queue.create_handler('stp', 'plain', 'stp.plain') > 0 AS created;
BEGIN;
SELECT event_queue.enqueue('stp', 'plain') > 0 AS enqueued;
SELECT name, attempt, outcome, result, error FROM event_queue.run_jobs('stp');
SELECT what, count(*) FROM stp.done GROUP BY 1 ORDER BY 1;
ROLLBACK;
-- By executors
SELECT event_queue.enqueue('stp', 'plain') AS job \gset
CREATE FUNCTION stp.wait_for(what text, n int) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
	FOR i IN 1 .. 600 LOOP
		IF (SELECT count(*) >= n FROM stp.done d WHERE d.what = $1) THEN
			RETURN true;
		END IF;
		PERFORM pg_sleep(0.05);
	END LOOP;
	RETURN false;
END $$;
SELECT stp.wait_for('ship', 1);
SELECT what, count(*) FROM stp.done GROUP BY 1 ORDER BY 1;
TRUNCATE stp.done;

-- In plpgsql: what a handler did before it was suspended stays, also if it then fails; what it did since does not
CREATE FUNCTION stp.fails(job event_queue.claimed_job) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
	r jsonb := event_queue.step(job, 'first');
BEGIN
	IF r IS NULL THEN
		INSERT INTO stp.done VALUES ('first', job.job_id);
		r := event_queue.step_done(job, 'first', '{"n": 1}', undo => '{"queue": "stp_undo", "name": "undo first"}');
	END IF;
	IF NOT event_queue.sleep_job(job, 'checkpoint', '0') THEN
		RETURN NULL;
	END IF;
	INSERT INTO stp.done VALUES ('lost', job.job_id);
	PERFORM event_queue.step_done(job, 'second', '{"n": 2}', undo => '{"queue": "stp_undo", "name": "undo second", "payload": {"a": 1}}');
	IF job.payload ? 'third' THEN
		IF NOT event_queue.sleep_job(job, 'checkpoint 2', '0') THEN
			RETURN NULL;
		END IF;
	END IF;
	RAISE EXCEPTION 'r is %', r USING ERRCODE = 'EQ060';
END $$;
SELECT event_queue.create_handler('stp', 'fails', 'stp.fails') > 0 AS created;
BEGIN;
SELECT event_queue.enqueue('stp', 'fails') AS job \gset
SELECT name, attempt, outcome, error, sqlstate FROM event_queue.run_jobs('stp');
SELECT what, count(*) FROM stp.done GROUP BY 1 ORDER BY 1;
SELECT name, state FROM event_queue.job_steps WHERE job_id = :job ORDER BY step_no;
-- undone by one job, which knows what
SELECT j.name, j.payload - 'job_id' AS payload, j.payload -> 'job_id' = to_jsonb(:job) AS of_job, j.metadata - 'parent_job' AS metadata FROM event_queue.jobs j WHERE queue = 'stp_undo';
-- retried, it begins anew
SELECT event_queue.retry_dead(:job);
SELECT name, outcome FROM event_queue.run_jobs('stp');
SELECT what, count(*) FROM stp.done GROUP BY 1 ORDER BY 1;
SELECT count(*) FROM event_queue.jobs WHERE queue = 'stp_undo';
SELECT event_queue.discard_dead(:job);
SELECT count(*) FROM event_queue.job_step WHERE job_id = :job;
ROLLBACK;
-- two, in reverse, one after the other
BEGIN;
SELECT event_queue.enqueue('stp', 'fails', '{"third": true}') AS job \gset
SELECT name, outcome FROM event_queue.run_jobs('stp');
SELECT j.name, j.state, (SELECT string_agg(x.name, ',') FROM event_queue.job_dependency d JOIN event_queue.job x ON x.job_id = d.depends_on WHERE d.job_id = j.job_id) AS after
FROM event_queue.jobs j WHERE queue = 'stp_undo' ORDER BY job_id;
ROLLBACK;
-- Cancelled while it is suspended; purged; its queue dropped
BEGIN;
SELECT event_queue.enqueue('stp', 'c') AS c1, event_queue.enqueue('stp', 'c') AS c2 \gset
SELECT event_queue.step_done(c, 'a', undo => '{"queue": "stp_undo", "name": "undo a"}') AS done, event_queue.sleep_job(c, 's', '1 day') AS slept FROM event_queue.claim('stp', 2) c;
SELECT event_queue.cancel_job(:c1);
SELECT count(*) FROM event_queue.jobs WHERE queue = 'stp_undo';
SELECT event_queue.purge_queue('stp');
SELECT count(*) FROM event_queue.jobs WHERE queue = 'stp_undo';
SELECT count(*) FROM event_queue.job_step WHERE job_id IN (:c1, :c2);
ROLLBACK;
-- The rules that led to a job have led to what undoes its steps: dead, cancelled, deleted
BEGIN;
SELECT count(event_queue.enqueue('stp', 'c', options => '{"metadata": {"rule": "r", "rule_chain": [7], "rule_root": "e", "event_id": "e", "correlation_id": "c"}}')) FROM generate_series(1, 3);
SELECT event_queue.step_done(c, 'a', undo => '{"queue": "stp_undo", "name": "undo a", "metadata": {"own": 1, "rule_chain": []}}') AS done FROM event_queue.claim('stp', 3) c;
SELECT event_queue.release(job_id, lease_token) FROM (SELECT job_id, lease_token FROM event_queue.job j WHERE lease_token IS NOT NULL AND name = 'c' ORDER BY job_id LIMIT 2) j;
SELECT event_queue.fail(job_id, lease_token, 'no', final => true) IS NULL AS dead FROM event_queue.job WHERE lease_token IS NOT NULL AND name = 'c';
SELECT event_queue.cancel_job(min(job_id)) FROM event_queue.jobs WHERE queue = 'stp';
SELECT event_queue.purge_queue('stp');
SELECT metadata - 'parent_job' AS metadata FROM event_queue.jobs WHERE queue = 'stp_undo';
ROLLBACK;
-- What undoes it can't be enqueued: the job dies nevertheless, and the step says so
BEGIN;
SELECT event_queue.create_queue('stp_gone') > 0 AS created;
SELECT event_queue.enqueue('stp', 'c') AS c1 \gset
SELECT event_queue.step_done(c, 'a', undo => '{"queue": "stp_gone", "name": "undo a"}') FROM event_queue.claim('stp') c;
SELECT event_queue.drop_queue('stp_gone');
SELECT event_queue.fail(:c1, lease_token, 'no', final => true) FROM event_queue.job WHERE job_id = :c1;
SELECT name, state FROM event_queue.job_steps WHERE job_id = :c1;
ROLLBACK;

-- Cancelled while it runs: no step is begun, and it is not suspended; what it has just done is kept, to be undone
BEGIN;
SELECT event_queue.enqueue('stp', 'c') AS c1 \gset
SELECT lease_token FROM event_queue.claim('stp') \gset
SELECT event_queue.cancel_job(:c1);
SAVEPOINT s;
SELECT event_queue.step(:c1, :'lease_token', 'a');
ROLLBACK TO s;
SELECT event_queue.sleep_job(:c1, :'lease_token', 's', '1 hour');
ROLLBACK TO s;
SELECT event_queue.await_signal(:c1, :'lease_token', 's');
ROLLBACK TO s;
SELECT event_queue.step_done(:c1, :'lease_token', 'a', undo => '{"queue": "stp_undo", "name": "undo a"}');
SELECT event_queue.fail(:c1, :'lease_token', 'cancelled', final => true);
SELECT count(*) FROM event_queue.jobs WHERE queue = 'stp_undo';
ROLLBACK;
-- It dies since its worker went away too often, in the claim of another
BEGIN;
SELECT event_queue.alter_queue('stp', max_stalled => 0);
SELECT event_queue.enqueue('stp', 'st') AS c1, event_queue.enqueue('stp', 'st') AS c2 \gset
SELECT event_queue.step_done(c, 'a', undo => '{"queue": "stp_undo", "name": "undo a"}'), pg_sleep(0.01) FROM event_queue.claim('stp', lease => '1 ms') c;
SELECT job_id = :c2 AS other FROM event_queue.claim('stp', 2);
SELECT reason FROM event_queue.dead_letters WHERE job_id = :c1;
SELECT name, payload -> 'step' AS step FROM event_queue.jobs WHERE queue = 'stp_undo';
ROLLBACK;
-- A suspension that a handler has rolled back is none
CREATE FUNCTION stp.caught(job event_queue.claimed_job) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
	BEGIN
		PERFORM event_queue.sleep_job(job, 's', '1 hour');
		RAISE EXCEPTION 'no';
	EXCEPTION WHEN raise_exception THEN
		INSERT INTO stp.done VALUES ('caught', job.job_id);
	END;
	RETURN to_jsonb(event_queue.step(job, 'x') IS NULL);
END $$;
SELECT event_queue.create_handler('stp', 'caught', 'stp.caught') > 0 AS created;
BEGIN;
SELECT event_queue.enqueue('stp', 'caught') > 0 AS enqueued;
SELECT outcome, result FROM event_queue.run_jobs('stp');
ROLLBACK;
SELECT event_queue.enqueue('stp', 'caught') AS job \gset
CALL event_queue.await_job(:job, '1 minute');
SELECT stp.wait_for('caught', 1);
-- Its seat is another's while it sleeps
BEGIN;
SELECT event_queue.alter_queue('stp', max_concurrency => 1);
SELECT event_queue.enqueue('stp', 'seat') AS c1, event_queue.enqueue('stp', 'seat') AS c2 \gset
SELECT event_queue.sleep_job(c, 's', '1 hour') FROM event_queue.claim('stp', 2) c;
SELECT job_id = :c2 AS other FROM event_queue.claim('stp', 2);
ROLLBACK;

-- fork_job: a dead job goes on from a step, as a new one
BEGIN;
SELECT event_queue.enqueue('stp', 'f', '{"f": 1}', priority => 2, group_key => NULL, options => '{"max_attempts": 7, "backoff_delay": "3 s"}') AS f1 \gset
SELECT event_queue.step_done(c, 'a', '"ra"') AS a, event_queue.step_done(c, 'b', '"rb"') AS b, event_queue.step_done(c, 'd', '"rd"') AS d,
	event_queue.fail(c.job_id, c.lease_token, 'no', final => true) AS failed FROM event_queue.claim('stp') c;
SELECT event_queue.fork_job(:f1, 'b') AS f2 \gset
SELECT name, payload, priority, max_attempts, metadata -> 'forked_from' = to_jsonb(:f1) AS of_f1 FROM event_queue.jobs WHERE job_id = :f2;
SELECT c.job_id = :f2 AS is_fork, event_queue.step(c, 'a') AS a, event_queue.step(c, 'b') AS b FROM event_queue.claim('stp') c;
SELECT event_queue.fork_job(:f1, 'none');
ROLLBACK;
SELECT event_queue.fork_job(0, 'a');
-- a completed one is not forked, also if its history is kept
SELECT event_queue.create_queue('st kept', keep_completed => '1 hour') > 0 AS created;
SELECT event_queue.enqueue('st kept', 'kept') > 0 AS kept;
SELECT count(event_queue.complete(c.job_id, c.lease_token)) FROM event_queue.claim('st kept') c;
\set VERBOSITY terse
DO $$
BEGIN
	PERFORM event_queue.fork_job((SELECT max(h.job_id) FROM event_queue.job_history h WHERE h.name = 'kept'), 'a');
EXCEPTION WHEN SQLSTATE 'EQ032' THEN
	RAISE WARNING '%', regexp_replace(SQLERRM, '\d+', 'N');
END $$;
\set VERBOSITY sqlstate
SELECT event_queue.drop_queue('st kept', force => true);

-- In a loop of a session whose names have numbers; a savepoint
SELECT event_queue.enqueue('stp', 'loop') AS job \gset
DO $$
DECLARE
	j event_queue.claimed_job;
BEGIN
	SELECT * INTO j FROM event_queue.claim('stp');
	FOR i IN 1 .. 3 LOOP
		BEGIN
			PERFORM event_queue.step_done(j, 'mail ' || i, to_jsonb(i));
			PERFORM event_queue.sleep_job(j, 'undone', '1 h') WHERE i = 2;
			IF i = 2 THEN
				RAISE EXCEPTION 'no';
			END IF;
		EXCEPTION WHEN raise_exception THEN
			PERFORM event_queue.step_done(j, 'mail ' || i, '"again"');
		END;
	END LOOP;
	PERFORM event_queue.complete(j.job_id, j.lease_token) WHERE (SELECT string_agg(s.result::text, ' ' ORDER BY step_no) FROM event_queue.job_steps s WHERE s.job_id = j.job_id) = '1 "again" 3';
END $$;
SELECT count(*) FROM event_queue.jobs WHERE job_id = :job;
-- suspended: no more steps in this run
BEGIN;
SELECT event_queue.enqueue('stp', 'over') AS job \gset
SELECT event_queue.sleep_job(c, 's', '1 h') AS s, event_queue.sleep_job(c, 's2', '1 h') AS s2, event_queue.await_signal(c, 'x') AS w FROM event_queue.claim('stp') c;
SELECT name FROM event_queue.job_steps WHERE job_id = :job;
ROLLBACK;
BEGIN;
SELECT event_queue.enqueue('stp', 'over') AS job \gset
SELECT event_queue.sleep_job(c, 's', '1 h') AS s, event_queue.step(c, 'x') FROM event_queue.claim('stp') c;
ROLLBACK;

SELECT event_queue.drop_handler('stp', 'plain'), event_queue.drop_handler('stp', 'fails'), event_queue.drop_handler('stp', 'caught');
SELECT event_queue.drop_queue('stp', true), event_queue.drop_queue('stp_undo', true);
DROP SCHEMA stp CASCADE;
