-- Handlers that run quickly: several jobs in one transaction, each for itself; and
-- handlers that take an array of jobs.
CREATE SCHEMA together;
CREATE TABLE together.effect (job_id bigint, n int, note text, xid xid8 DEFAULT pg_current_xact_id());
CREATE TABLE together.parent (n int PRIMARY KEY);
CREATE TABLE together.child (n int REFERENCES together.parent DEFERRABLE INITIALLY DEFERRED);
CREATE SEQUENCE together.s;
SELECT event_queue.create_queue('together', max_attempts => 1) > 0 AS created;
CREATE FUNCTION together.settled(wanted int) RETURNS boolean LANGUAGE sql AS $$
	SELECT (SELECT count(*) FROM together.effect) + (SELECT count(*) FROM event_queue.dead_letters WHERE queue = 'together') = wanted
		AND NOT EXISTS (SELECT FROM event_queue.jobs WHERE queue = 'together') $$;
CREATE PROCEDURE together.wait(wanted int) LANGUAGE plpgsql AS $$
BEGIN
	FOR i IN 1 .. 600 LOOP
		IF together.settled(wanted) THEN
			RETURN;
		END IF;
		COMMIT;
		PERFORM pg_sleep(0.05);
	END LOOP;
	RAISE 'not settled: % effects', (SELECT count(*) FROM together.effect);
END
$$;

-- A handler that does its work, fails, or leaves something in the session.
CREATE FUNCTION together.handle(job event_queue.claimed_job) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
	n int := job.payload ->> 'n';
	c refcursor := 'left_open';
	found text := '';
BEGIN
	-- what an earlier job has left
	found := concat_ws(' ',
		CASE WHEN to_regclass('pg_temp.left_table') IS NOT NULL THEN 'table' END,
		CASE WHEN current_setting('together.left', true) = 'yes' THEN 'setting' END,
		CASE WHEN EXISTS (SELECT FROM pg_prepared_statements) THEN 'statement' END,
		CASE WHEN EXISTS (SELECT FROM pg_cursors WHERE name = 'left_open') THEN 'cursor' END,
		CASE WHEN EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()
			AND objid = 4711) THEN 'lock' END,
		CASE WHEN current_setting('event_queue.tenant') <> job.tenant_id THEN 'tenant' END);
	INSERT INTO together.effect VALUES (job.job_id, n, found);
	CASE job.payload ->> 'do'
		WHEN 'fail' THEN RAISE 'job % is bad', n;
		WHEN 'give up' THEN RAISE 'no use' USING ERRCODE = 'EQ060';
		WHEN 'table' THEN CREATE TEMPORARY TABLE left_table (a int);
		WHEN 'setting' THEN PERFORM set_config('together.left', 'yes', false);
		WHEN 'statement' THEN EXECUTE 'PREPARE left_statement AS SELECT 1';
		WHEN 'cursor' THEN OPEN c FOR SELECT 1;
		WHEN 'lock' THEN PERFORM pg_advisory_lock(4711);
		WHEN 'constraints' THEN SET CONSTRAINTS ALL IMMEDIATE;
		WHEN 'child' THEN INSERT INTO together.child VALUES (n); INSERT INTO together.parent VALUES (n);
		WHEN 'orphan' THEN INSERT INTO together.child VALUES (-n);
		WHEN 'currval' THEN PERFORM nextval('together.s');
		WHEN 'no currval' THEN
			BEGIN
				PERFORM currval('together.s');
				UPDATE together.effect e SET note = note || 'currval' WHERE e.job_id = job.job_id;
			EXCEPTION WHEN object_not_in_prerequisite_state THEN
			END;
		WHEN 'sleep' THEN PERFORM pg_sleep(0.1);
		WHEN 'caught' THEN
			BEGIN
				PERFORM pg_sleep(0.1);
			EXCEPTION WHEN query_canceled THEN
				UPDATE together.effect e SET note = note || 'cancelled' WHERE e.job_id = job.job_id;
			END;
		ELSE NULL;
	END CASE;
	RETURN jsonb_build_object('n', n);
END
$$;
SELECT event_queue.create_handler('together', '*', 'together.handle') > 0 AS created;

-- How long the handler takes is not known at first: these few are for that.
SELECT count(event_queue.enqueue('together', 'job', jsonb_build_object('n', 0))) FROM generate_series(1, 200);
CALL together.wait(200);

-- What a job leaves is gone before the next one, whichever that is.
TRUNCATE together.effect;
SELECT event_queue.pause_queue('together');
SELECT count(event_queue.enqueue('together', 'job', jsonb_build_object('n', g, 'do', (ARRAY['table', 'setting', 'statement',
	'cursor', 'lock', 'currval', 'no currval', 'constraints', 'child'])[g % 9 + 1]),
	tenant_id => CASE WHEN g % 3 = 0 THEN 'a' ELSE 'b' END)) FROM generate_series(1, 300) g;
SELECT event_queue.resume_queue('together');
CALL together.wait(300);
SELECT note, count(*) FROM together.effect GROUP BY note;
SELECT count(DISTINCT xid) < 300 AS together FROM together.effect;

-- A job that fails fails alone, with its own error; the others' effects and results stand.
TRUNCATE together.effect;
SELECT event_queue.alter_queue('together', keep_completed => '1 hour');
SELECT event_queue.pause_queue('together');
SELECT count(event_queue.enqueue('together', 'job', jsonb_build_object('n', g, 'do', CASE g % 50 WHEN 7 THEN 'fail' WHEN 8 THEN 'give up' END)))
FROM generate_series(1, 200) g;
SELECT event_queue.resume_queue('together');
CALL together.wait(200);
SELECT count(*), count(DISTINCT n), count(DISTINCT xid) < 192 AS together FROM together.effect;
SELECT payload ->> 'n' AS n, reason, errors -> 0 ->> 'message' AS message, jsonb_array_length(errors) AS errors
FROM event_queue.dead_letters WHERE queue = 'together' ORDER BY (payload ->> 'n')::int;
SELECT count(*) FROM event_queue.job_history WHERE job_id IN (SELECT job_id FROM together.effect) AND result -> 'n' = payload -> 'n';
SELECT event_queue.discard_all_dead('together');

-- So does one whose deferred constraint fails, and one that takes long is not cut short,
-- not even if it would catch that.
TRUNCATE together.effect;
SELECT event_queue.pause_queue('together');
SELECT count(event_queue.enqueue('together', 'job', jsonb_build_object('n', g, 'do', CASE g WHEN 13 THEN 'orphan' WHEN 29 THEN 'sleep' WHEN 43 THEN 'caught' END)))
FROM generate_series(1, 60) g;
SELECT event_queue.resume_queue('together');
CALL together.wait(60);
SELECT note, count(*), count(DISTINCT n) FROM together.effect GROUP BY note;
SELECT payload ->> 'n' AS n, errors -> 0 ->> 'sqlstate' AS sqlstate FROM event_queue.dead_letters WHERE queue = 'together';
SELECT event_queue.discard_all_dead('together');

-- now() is the time of the transaction, in handlers and in conditions of rules.
CREATE FUNCTION together.tell_now(job event_queue.claimed_job) RETURNS jsonb LANGUAGE sql AS $$
	SELECT jsonb_build_object('in time', now() BETWEEN job.created_at - interval '1 s' AND clock_timestamp()) $$;
SELECT event_queue.create_handler('together', 'now', 'together.tell_now') > 0 AS created;
SELECT event_queue.create_rule('together now', 'together.now', condition => 'created_at <= now()', queue => 'together', job_name => 'now') > 0 AS created;
SELECT pg_sleep(0.1);
SELECT count(*) FROM event_queue.append('together', 'together-1', 'together.now');
DO $$
BEGIN
	FOR i IN 1 .. 600 LOOP
		EXIT WHEN EXISTS (SELECT FROM event_queue.job_history WHERE name = 'now');
		COMMIT;
		PERFORM pg_sleep(0.05);
	END LOOP;
END
$$;
SELECT result FROM event_queue.job_history WHERE name = 'now';
SELECT event_queue.drop_rule('together now'), event_queue.drop_handler('together', 'now');

-- A handler that takes an array: up to so many jobs of one tenant.  A bad one is found.
CREATE TABLE together.calls (jobs int, tenants int, was text);
CREATE FUNCTION together.handle_many(jobs event_queue.claimed_job[]) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO together.calls SELECT count(*), count(DISTINCT tenant_id), current_setting('event_queue.tenant') FROM unnest(jobs);
	INSERT INTO together.effect SELECT job_id, (payload ->> 'n')::int, '' FROM unnest(jobs);
	IF EXISTS (SELECT FROM unnest(jobs) WHERE payload ? 'bad') THEN
		RAISE 'one of % is bad', cardinality(jobs);
	END IF;
	RETURN jsonb_agg(payload -> 'n' ORDER BY ordinality) FROM unnest(jobs) WITH ORDINALITY;
END
$$;
SELECT event_queue.create_handler('together', '*', 'together.handle_many', batch_size => 40, or_replace => true) > 0 AS replaced;
SELECT queue, job_name, function, batch_size FROM event_queue.handlers WHERE queue = 'together';
TRUNCATE together.effect;
SELECT event_queue.pause_queue('together');
SELECT count(event_queue.enqueue('together', 'job', jsonb_build_object('n', g) || CASE WHEN g IN (17, 90) THEN '{"bad": 1}' ELSE '{}'::jsonb END,
	tenant_id => CASE WHEN g % 5 = 0 THEN 'a' ELSE 'b' END)) FROM generate_series(1, 200) g;
SELECT event_queue.resume_queue('together');
CALL together.wait(200);
SELECT count(*), count(DISTINCT n) FROM together.effect;
SELECT payload ->> 'n' AS n, errors -> 0 ->> 'message' AS message FROM event_queue.dead_letters WHERE queue = 'together' ORDER BY 1;
SELECT max(tenants), max(jobs) BETWEEN 10 AND 40 AS many, string_agg(DISTINCT was, ' ' ORDER BY was) FROM together.calls;
SELECT count(*) FROM event_queue.job_history WHERE job_id IN (SELECT job_id FROM together.effect) AND result = payload -> 'n';
SELECT event_queue.discard_all_dead('together');

-- Results are for each job, or none; one alone is an array, too, also by run_jobs.
CREATE OR REPLACE FUNCTION together.handle_many(jobs event_queue.claimed_job[]) RETURNS jsonb LANGUAGE sql AS $$ SELECT '[1, 2]'::jsonb $$;
SELECT event_queue.create_queue('together_2') > 0 AS created;
SELECT event_queue.pause_queue('together');
SELECT event_queue.create_handler('together_2', 'none yet', 'together.handle_many', batch_size => 2) > 0 AS created;
SELECT event_queue.enqueue('together_2', 'none yet') > 0 AS enqueued;
DO $$
BEGIN
	FOR i IN 1 .. 600 LOOP
		EXIT WHEN EXISTS (SELECT FROM event_queue.jobs WHERE queue = 'together_2' AND failures > 0);
		COMMIT;
		PERFORM pg_sleep(0.05);
	END LOOP;
END
$$;
SELECT errors -> 0 ->> 'sqlstate' AS sqlstate, errors -> 0 ->> 'message' AS message FROM event_queue.jobs j WHERE queue = 'together_2';
BEGIN;
CREATE OR REPLACE FUNCTION together.handle_many(jobs event_queue.claimed_job[]) RETURNS jsonb LANGUAGE sql AS $$
	SELECT jsonb_build_array(jobs[1].payload) $$;
SELECT event_queue.enqueue('together', 'now', '{"a": 1}') > 0 AS enqueued;
SELECT event_queue.resume_queue('together');
SELECT name, outcome, result FROM event_queue.run_jobs('together');
ROLLBACK;

-- Bad input.
SELECT event_queue.create_handler('together', 'x', 'together.handle_many');
SELECT event_queue.create_handler('together', 'x', 'together.handle', batch_size => 10);
SELECT event_queue.create_handler('together', 'x', 'together.handle_many', batch_size => 0);
SELECT event_queue.create_handler('together', 'x', 'together.handle_many', batch_size => 1001);
SELECT event_queue.create_handler('together', '*', 'together.handle_many', batch_size => 41, if_not_exists => true) > 0 AS there;

SET client_min_messages = warning;
SELECT event_queue.drop_handler('together', '*'), event_queue.drop_handler('together_2', 'none yet');
SELECT event_queue.drop_queue('together', force => true), event_queue.drop_queue('together_2', force => true);
DROP SCHEMA together CASCADE;
