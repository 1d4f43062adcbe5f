-- run_jobs: handlers in the caller's own session and transaction
SET client_min_messages = warning;
CREATE ROLE run_owner;		-- of handlers
CREATE ROLE run_other;		-- a worker that is no member of it
CREATE ROLE run_member;		-- one that is
CREATE ROLE run_bound;		-- and one of a tenant
GRANT run_owner TO run_member, run_bound;
SELECT event_queue.grant_worker('run_other'), event_queue.grant_worker('run_member'), event_queue.grant_worker('run_bound', 'b'),
	event_queue.grant_producer('run_owner'), event_queue.grant_admin('run_owner');
CREATE SCHEMA run AUTHORIZATION run_owner;
GRANT USAGE ON SCHEMA run TO PUBLIC;
SELECT event_queue.create_queue('run', max_attempts => 2, keep_completed => '1 hour') > 0 AS created,
	event_queue.create_queue('run empty') > 0 AS created;
SET ROLE run_owner;
CREATE TABLE run.done (n int, who text, tenant text, path text, job bigint);
CREATE TABLE run.parent (id int PRIMARY KEY);
CREATE TABLE run.child (id int REFERENCES run.parent DEFERRABLE INITIALLY DEFERRED);
CREATE FUNCTION run.handle(job event_queue.claimed_job) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
	CASE job.name
		WHEN 'fail' THEN
			INSERT INTO done VALUES (-1);
			RAISE EXCEPTION USING ERRCODE = 'P0042', MESSAGE = 'why not';
		WHEN 'cancelled' THEN RAISE EXCEPTION USING ERRCODE = 'EQ033', MESSAGE = 'stop';
		WHEN 'decide' THEN RAISE EXCEPTION USING ERRCODE = job.payload ->> 'state', MESSAGE = 'decided', DETAIL = coalesce(job.payload ->> 'detail', '');
		WHEN 'child' THEN INSERT INTO child VALUES ((job.payload ->> 'n')::int);
		WHEN 'more' THEN PERFORM event_queue.enqueue('run', 'one', '{"n": 77}');
		WHEN 'nested' THEN PERFORM event_queue.run_jobs('run');
		WHEN 'temp' THEN CREATE TEMPORARY TABLE run_scratch (a int);
		WHEN 'hold' THEN EXECUTE 'DECLARE run_held CURSOR WITH HOLD FOR SELECT 1';
		WHEN 'role' THEN EXECUTE 'SET ROLE NONE';
		WHEN 'event' THEN PERFORM event_queue.append('run', job.payload ->> 'n', 'run.done', '{}');
		WHEN 'sleep' THEN PERFORM pg_sleep(60);
		ELSE
			SET work_mem = '1234kB';
			INSERT INTO done VALUES ((job.payload ->> 'n')::int, current_user, event_queue.current_tenant(), current_setting('search_path'), job.job_id);
	END CASE;
	RETURN jsonb_build_object('n', job.payload -> 'n');
END
$$;
SELECT event_queue.create_handler('run', '*', 'run.handle') > 0 AS registered;
CREATE VIEW run.outcome AS SELECT name, attempt, outcome, result, error, sqlstate, next_run_at > now() AS later FROM event_queue.run_jobs('run');
RESET ROLE;

-- A test that leaves nothing.
BEGIN;
SELECT count(event_queue.enqueue('run', 'one', jsonb_build_object('n', n))) FROM generate_series(1, 3) n;
SELECT name, attempt, outcome, result, error, sqlstate, next_run_at FROM event_queue.run_jobs('run', 2);
SELECT name, outcome, result FROM event_queue.run_jobs('run');
SELECT name, outcome FROM event_queue.run_jobs('run');
SELECT n, who, tenant, path FROM run.done ORDER BY n;
SELECT current_user = session_user AS same_role, current_setting('work_mem') AS work_mem, current_setting('event_queue.tenant') AS tenant;
SELECT count(*) FROM event_queue.history WHERE queue = 'run';
ROLLBACK;
SELECT (SELECT count(*) FROM run.done) AS done, (SELECT count(*) FROM event_queue.all_jobs WHERE queue = 'run') AS jobs;

-- Failures are recorded as an executor does, and hurt no other job.
BEGIN;
SELECT event_queue.enqueue('run', 'fail') AS failing \gset
SELECT event_queue.enqueue('run', 'one', '{"n": 1}') > 0 AS enqueued;
SELECT event_queue.enqueue('run', 'cancelled') > 0 AS enqueued;
SELECT name, attempt, outcome, result, error, sqlstate, next_run_at > now() AS later FROM event_queue.run_jobs('run');
SELECT state, failures, last_error FROM event_queue.all_jobs WHERE job_id = :failing;
SELECT n FROM run.done;
SELECT name, reason, last_sqlstate FROM event_queue.dead_letters WHERE queue = 'run';
ROLLBACK;
-- By EQ060 and EQ061 the handler decides what becomes of its job; a DETAIL that is no number of seconds does not.
BEGIN;
CREATE TEMPORARY TABLE decided AS
SELECT event_queue.enqueue('run', 'decide', jsonb_build_object('state', state, 'detail', detail), options => '{"backoff": "fixed", "backoff_delay": "2 days"}') AS job_id, state, detail
FROM (VALUES ('EQ060', NULL), ('EQ060', '10800'), ('EQ060', '1 h'), ('EQ060', '-1'), ('EQ060', 'nan'),
	('EQ061', NULL), ('EQ061', '14400'), ('EQ061', ' 7200.5 '), ('EQ061', '0'), ('EQ061', '1e300'), ('P0001', '10800')) v (state, detail);
SELECT state, detail, outcome, sqlstate, error, round(extract(epoch FROM next_run_at - clock_timestamp()) / 3600) AS hours, next_run_at > now() AS later
FROM event_queue.run_jobs('run') r JOIN decided USING (job_id) ORDER BY job_id;
SELECT state, detail, j.failures, jsonb_array_length(j.errors) AS errors FROM decided d LEFT JOIN event_queue.job j USING (job_id) ORDER BY job_id;
SELECT reason, last_sqlstate FROM event_queue.dead_letters WHERE queue = 'run';
ROLLBACK;
-- Without a backoff it is due again at once, until it has no attempt left.
BEGIN;
SELECT event_queue.enqueue('run', 'fail', options => '{"backoff": "fixed", "backoff_delay": "0"}') > 0 AS enqueued;
SELECT name, attempt, outcome FROM event_queue.run_jobs('run');
SELECT name, reason, failures, errors -> 0 ->> 'worker' AS worker FROM event_queue.dead_letters WHERE queue = 'run';
ROLLBACK;

-- What is deferred belongs to the job; and what the caller had deferred is his.
BEGIN;
SELECT event_queue.enqueue('run', 'child', '{"n": 5}') > 0 AS enqueued;
SELECT name, outcome, sqlstate FROM event_queue.run_jobs('run');
ROLLBACK;
BEGIN;
INSERT INTO run.child VALUES (6);
SELECT event_queue.enqueue('run', 'one', '{"n": 5}') > 0 AS enqueued;
SELECT name, outcome FROM event_queue.run_jobs('run');
ROLLBACK;

-- A handler that enqueues, and one whose event names the job that appended it.
BEGIN;
SELECT event_queue.enqueue('run', 'more') > 0 AS enqueued;
SELECT name, outcome FROM event_queue.run_jobs('run');
SELECT n FROM run.done;
SELECT event_queue.enqueue('run', 'event', '{"n": 9}') AS of_job \gset
SELECT name, outcome FROM event_queue.run_jobs('run');
SELECT event_type, metadata ->> 'job_id' = :'of_job' AS of_job FROM event_queue.event_store WHERE aggregate_type = 'run';
ROLLBACK;

-- A function that is not there costs no attempt.
BEGIN;
SELECT event_queue.enqueue('run', 'one', '{"n": 1}') AS waiting \gset
ALTER FUNCTION run.handle RENAME TO hidden;
SELECT name, attempt, outcome, sqlstate, next_run_at > now() AS later FROM event_queue.run_jobs('run');
SELECT state, failures FROM event_queue.all_jobs WHERE job_id = :waiting;
ROLLBACK;

-- Of another role's handler nothing is left behind; its owner may have it do that.
BEGIN;
SELECT event_queue.enqueue('run', n) > 0 AS enqueued FROM unnest('{temp,hold,role,nested}'::text[]) n;
SELECT name, outcome, error FROM event_queue.run_jobs('run');
ROLLBACK;
BEGIN;
SELECT event_queue.enqueue('run', n) > 0 AS enqueued FROM unnest('{temp,hold,role,nested}'::text[]) n;
SET LOCAL ROLE run_owner;
SELECT name, outcome, error FROM event_queue.run_jobs('run');
ROLLBACK;

-- A trigger that puts itself off does not run with the rights of who runs the job,
-- nor does the caller's with those of the handler's owner.
SET ROLE run_owner;
CREATE TABLE run.late (n int, who text);
CREATE FUNCTION run.put_off() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	IF NEW.n < 3 THEN
		SET CONSTRAINTS ALL DEFERRED;
		INSERT INTO run.late VALUES (NEW.n + 1, current_user);
	END IF;
	RETURN NULL;
END
$$;
CREATE CONSTRAINT TRIGGER put_off AFTER INSERT ON run.late DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION run.put_off();
CREATE FUNCTION run.handle_late(job event_queue.claimed_job) RETURNS void LANGUAGE sql AS 'INSERT INTO run.late VALUES (1, current_user)';
SELECT event_queue.create_handler('run', 'late', 'run.handle_late') > 0 AS registered;
RESET ROLE;
BEGIN;
SELECT event_queue.enqueue('run', 'late') > 0 AS enqueued;
SELECT name, outcome, error FROM event_queue.run_jobs('run');
SELECT * FROM run.late;
ROLLBACK;
BEGIN;
SELECT event_queue.enqueue('run', 'one', '{"n": 1}') > 0 AS enqueued;
INSERT INTO run.late VALUES (1, 'caller');
SELECT name, outcome, error FROM event_queue.run_jobs('run');
ROLLBACK;

-- Who may: whoever could SET ROLE to the handlers' owners, of his tenant's jobs.
BEGIN;
SELECT event_queue.enqueue('run', 'one', '{"n": 1}', tenant_id => 'a') > 0 AS enqueued, event_queue.enqueue('run', 'one', '{"n": 2}', tenant_id => 'b') > 0 AS enqueued;
SAVEPOINT s;
SET LOCAL ROLE run_other;
SELECT * FROM event_queue.run_jobs('run');
ROLLBACK TO s;
SET LOCAL ROLE run_bound;
SELECT name, outcome, result FROM event_queue.run_jobs('run');
RESET ROLE;
SELECT n, who, tenant FROM run.done;
SET LOCAL ROLE run_member;
SELECT name, outcome, result FROM event_queue.run_jobs('run');
RESET ROLE;
SELECT n, who, tenant FROM run.done;
ROLLBACK;

-- A cancel is the caller's, not a failure of the job.
BEGIN;
SELECT event_queue.enqueue('run', 'sleep') > 0 AS enqueued;
SET LOCAL statement_timeout = '100ms';
SELECT name, outcome FROM event_queue.run_jobs('run');
ROLLBACK;
-- In a function that catches errors, and with a savepoint that is rolled back.
BEGIN;
SELECT event_queue.enqueue('run', 'one', '{"n": 1}') > 0 AS enqueued;
SAVEPOINT s;
SELECT name, outcome FROM event_queue.run_jobs('run');
ROLLBACK TO s;
SELECT name, outcome FROM run.outcome;
ROLLBACK;

-- The detail of an error is kept, but where it is the delay of retry_job_after.
BEGIN;
SELECT event_queue.create_queue('run detail') IS NOT NULL AS created;
CREATE FUNCTION run.key(job event_queue.claimed_job) RETURNS void LANGUAGE plpgsql AS
	$$ BEGIN RAISE unique_violation USING MESSAGE = 'twice', DETAIL = 'Key (n)=(1) already exists.'; END $$;
CREATE FUNCTION run.later(job event_queue.claimed_job) RETURNS void LANGUAGE sql AS
	$$ SELECT event_queue.retry_job_after('1 hour', 'busy') $$;
SELECT event_queue.create_handler('run detail', n, 'run.' || n) IS NOT NULL AS created FROM unnest('{key,later}'::text[]) n;
SELECT count(event_queue.enqueue('run detail', n)) FROM unnest('{key,later}'::text[]) n;
SELECT name, outcome FROM event_queue.run_jobs('run detail');
SELECT name, errors -> -1 ->> 'message' AS message, errors -> -1 -> 'detail' AS detail FROM event_queue.jobs WHERE queue = 'run detail' ORDER BY name;
ROLLBACK;

-- Errors.
SELECT event_queue.run_jobs('absent');
SELECT event_queue.run_jobs('run empty');
SELECT event_queue.run_jobs('rule-calls');
SELECT event_queue.run_jobs('run', 0);
SELECT event_queue.run_jobs(NULL);

-- Committed, it is as if an executor had run it.
BEGIN;
SELECT event_queue.enqueue('run', 'one', '{"n": 10}') > 0 AS enqueued;
SELECT name, outcome FROM event_queue.run_jobs('run');
COMMIT;
SELECT name, leased_by, result FROM event_queue.history WHERE queue = 'run';
SELECT n, who FROM run.done;
SELECT event_queue.drop_handler('run', n) IS NOT NULL AS unregistered FROM unnest('{*,late}'::text[]) n;
SELECT event_queue.drop_queue('run', true) IS NOT NULL AS dropped, event_queue.drop_queue('run empty', true) IS NOT NULL AS dropped;
DROP SCHEMA run CASCADE;
SELECT event_queue.revoke_access(r::regrole) FROM unnest('{run_owner,run_other,run_member,run_bound}'::text[]) r;
DROP ROLE run_owner, run_other, run_member, run_bound;
