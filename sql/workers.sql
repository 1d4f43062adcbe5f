-- User code in workers: what it leaves behind, and functions that can't be called.
CREATE SCHEMA eq_workers;
CREATE TABLE eq_workers.saw (pid int, what text, value text);
CREATE TABLE eq_workers.deferred (i int);
CREATE SEQUENCE eq_workers.numbers;
CREATE FUNCTION eq_workers.set_late() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	PERFORM set_config('work_mem', '17MB', false), set_config('search_path', 'eq_workers, public', false);
	INSERT INTO eq_workers.saw VALUES (pg_backend_pid(), 'late', current_user);
	RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER set_late AFTER INSERT ON eq_workers.deferred DEFERRABLE INITIALLY DEFERRED
	FOR EACH ROW EXECUTE FUNCTION eq_workers.set_late();
-- All that DISCARD ALL covers.
CREATE FUNCTION eq_workers.leave(j event_queue.claimed_job) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	PERFORM set_config('maintenance_work_mem', '18MB', false), set_config('eq_workers.custom', 'left', false);
	INSERT INTO eq_workers.deferred VALUES (1);
	EXECUTE 'PREPARE eq_left AS SELECT 1';
	EXECUTE 'DECLARE eq_left CURSOR WITH HOLD FOR SELECT 1';
	EXECUTE 'CREATE TEMPORARY TABLE eq_left AS SELECT 1';
	BEGIN
		EXECUTE 'LISTEN eq_left';
	EXCEPTION WHEN feature_not_supported THEN NULL;	-- as any background process
	END;
	PERFORM pg_advisory_lock(815), nextval('eq_workers.numbers');
	INSERT INTO eq_workers.saw VALUES (pg_backend_pid(), 'left', NULL);
END $$;
CREATE FUNCTION eq_workers.look(j event_queue.claimed_job) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
	number text := 'none';
BEGIN
	BEGIN
		number := lastval()::text;
	EXCEPTION WHEN object_not_in_prerequisite_state THEN NULL;
	END;
	INSERT INTO eq_workers.saw
	SELECT pg_backend_pid(), what, value FROM (VALUES
		('setting', (SELECT nullif(setting, boot_val) FROM pg_settings WHERE name = 'maintenance_work_mem')),
		('custom setting', nullif(current_setting('eq_workers.custom', true), '')),
		('late setting', (SELECT nullif(setting, boot_val) FROM pg_settings WHERE name = 'work_mem')),
		('search_path', nullif(current_setting('search_path'), 'pg_catalog, eq_workers, pg_temp')),
		('statement', (SELECT name FROM pg_prepared_statements WHERE name = 'eq_left')),
		('cursor', (SELECT name FROM pg_cursors WHERE name = 'eq_left')),
		('temporary table', to_regclass('pg_temp.eq_left')::text),
		('channel', (SELECT c FROM pg_listening_channels() c WHERE c = 'eq_left')),
		('lock', (SELECT 'held' FROM pg_locks WHERE locktype = 'advisory' AND objid = 815 AND pid = pg_backend_pid())),
		('sequence', nullif(number, 'none'))) v (what, value);
END $$;
SELECT event_queue.create_queue('workers', backoff_delay => '10 ms') > 0 AS created;
SELECT count(event_queue.create_handler('workers', name, 'eq_workers.' || name)) FROM unnest(ARRAY['leave', 'look']) name;
-- Several of each, so that one executor does both.
SELECT count(event_queue.enqueue('workers', CASE WHEN i % 2 = 0 THEN 'leave' ELSE 'look' END)) FROM generate_series(1, 60) i;
CALL wait_until($$NOT EXISTS (SELECT FROM event_queue.jobs WHERE queue = 'workers')$$);
SELECT what, value, count(*) FROM eq_workers.saw WHERE value IS NOT NULL GROUP BY 1, 2 ORDER BY 1, 2;
SELECT count(*) > 0 AS same_process FROM eq_workers.saw a JOIN eq_workers.saw b USING (pid) WHERE a.what = 'left' AND b.what = 'lock';

-- Deferred triggers run under the handler's time limit, as the handler's owner.
CREATE ROLE eq_worker_owner;
GRANT USAGE ON SCHEMA eq_workers TO eq_worker_owner;
GRANT INSERT ON eq_workers.deferred, eq_workers.saw TO eq_worker_owner;
SELECT event_queue.grant_admin('eq_worker_owner');
CREATE FUNCTION eq_workers.defer(j event_queue.claimed_job) RETURNS void LANGUAGE sql AS
	$$ INSERT INTO eq_workers.deferred VALUES (2) $$;
SET ROLE eq_worker_owner;
SELECT event_queue.create_handler('workers', 'defer', 'eq_workers.defer', time_limit => '300 ms') > 0 AS registered;
RESET ROLE;
TRUNCATE eq_workers.saw;
SELECT event_queue.enqueue('workers', 'defer') > 0 AS enqueued;
CALL wait_until($$NOT EXISTS (SELECT FROM event_queue.jobs WHERE queue = 'workers')$$);
SELECT what, value FROM eq_workers.saw;
CREATE OR REPLACE FUNCTION eq_workers.set_late() RETURNS trigger LANGUAGE plpgsql AS
	$$ BEGIN PERFORM pg_sleep(60); RETURN NULL; END $$;
SELECT event_queue.enqueue('workers', 'defer', options => '{"max_attempts": 1}') AS job \gset
CALL wait_until(format('EXISTS (SELECT FROM event_queue.dead_letters WHERE job_id = %s)', :job));
SELECT last_sqlstate, last_error FROM event_queue.dead_letters WHERE job_id = :job;
SELECT what, item, sqlstate, message FROM event_queue.faults() WHERE what = 'time limit';
SELECT event_queue.discard_dead(:job);

-- A handler that may not be called, or whose owner is gone: its jobs wait, others go on.
TRUNCATE eq_workers.saw;
REVOKE EXECUTE ON FUNCTION eq_workers.defer FROM PUBLIC;
SELECT event_queue.enqueue('workers', 'defer', options => '{"max_attempts": 1}') AS job \gset
CALL wait_until($$EXISTS (SELECT FROM event_queue.faults() WHERE what = 'handler')$$);
SELECT item, sqlstate, message FROM event_queue.faults() WHERE what = 'handler';
SELECT event_queue.enqueue('workers', 'look') > 0 AS enqueued;
CALL wait_until($$EXISTS (SELECT FROM eq_workers.saw WHERE what = 'lock')$$);
SELECT failures, stalled FROM event_queue.job WHERE job_id = :job;
CREATE OR REPLACE FUNCTION eq_workers.set_late() RETURNS trigger LANGUAGE plpgsql AS
	$$ BEGIN INSERT INTO eq_workers.saw VALUES (1, 'late', current_user); RETURN NULL; END $$;
GRANT EXECUTE ON FUNCTION eq_workers.defer TO eq_worker_owner;
CALL wait_until($$NOT EXISTS (SELECT FROM event_queue.jobs WHERE queue = 'workers')$$);
SELECT value FROM eq_workers.saw WHERE what = 'late';
SELECT count(*) FROM event_queue.faults() WHERE what IN ('handler', 'time limit');

-- Likewise the function of a rule.
CREATE FUNCTION eq_workers.react(e event_queue.event_store) RETURNS void LANGUAGE sql AS
	$$ INSERT INTO eq_workers.saw VALUES (2, 'reacted', (e).event_type) $$;
SELECT event_queue.create_rule('eq_workers', 'eq_workers.*', function => 'eq_workers.react') > 0 AS created;
ALTER FUNCTION eq_workers.react RENAME TO reacts;
SELECT version FROM event_queue.append('eq_workers', '1', 'eq_workers.gone');
CALL wait_until($$EXISTS (SELECT FROM event_queue.faults() WHERE what = 'rule function')$$);
SELECT regexp_replace(item, '\d+', 'N') AS item, sqlstate, message FROM event_queue.faults() WHERE what = 'rule function';
SELECT failures FROM event_queue.jobs WHERE queue = 'rule-calls';
ALTER FUNCTION eq_workers.reacts RENAME TO react;
CALL wait_until($$EXISTS (SELECT FROM eq_workers.saw WHERE what = 'reacted')$$);
CALL wait_until($$NOT EXISTS (SELECT FROM event_queue.faults() WHERE what = 'rule function')$$);

-- By EQ060 and EQ061 a handler decides what becomes of its job, as in run_jobs.
CREATE FUNCTION eq_workers.decide(j event_queue.claimed_job) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO eq_workers.saw VALUES (3, 'undone', j.job_id);
	RAISE EXCEPTION USING ERRCODE = j.payload ->> 'state', MESSAGE = 'decided', DETAIL = coalesce(j.payload ->> 'detail', '');
END $$;
SELECT event_queue.create_handler('workers', 'decide', 'eq_workers.decide') > 0 AS registered;
CREATE TABLE eq_workers.decided AS
SELECT event_queue.enqueue('workers', 'decide', jsonb_build_object('state', state, 'detail', detail)) AS job_id, state, detail
FROM (VALUES ('EQ060', NULL), ('EQ060', '10800'), ('EQ061', '14400')) v (state, detail);
CALL wait_until($$NOT EXISTS (SELECT FROM event_queue.job JOIN eq_workers.decided USING (job_id) WHERE run_at < now() + interval '2 hours')$$);
SELECT d.state, detail, j.failures, j.errors -> 0 ->> 'sqlstate' AS sqlstate, round(extract(epoch FROM j.run_at - now()) / 3600) AS hours, l.reason
FROM eq_workers.decided d LEFT JOIN event_queue.job j USING (job_id) LEFT JOIN event_queue.dead_letters l USING (job_id) ORDER BY job_id;
SELECT count(*) AS undone FROM eq_workers.saw WHERE what = 'undone';

-- now() is the time of the job's transaction, not that when the process began.
CREATE FUNCTION eq_workers.clock(j event_queue.claimed_job) RETURNS void LANGUAGE sql AS
	$$ INSERT INTO eq_workers.saw VALUES (4, CASE WHEN now() >= (j.payload ->> 'at')::timestamptz THEN 'now' ELSE 'then' END, j.job_id) $$;
SELECT event_queue.create_handler('workers', 'clock', 'eq_workers.clock') > 0 AS registered;
SELECT event_queue.enqueue('workers', 'clock', jsonb_build_object('at', clock_timestamp())) > 0 AS enqueued;
CALL wait_until($$EXISTS (SELECT FROM eq_workers.saw WHERE pid = 4)$$);
SELECT what FROM eq_workers.saw WHERE pid = 4;

SELECT event_queue.drop_rule('eq_workers');
SELECT event_queue.drop_handler(queue, job_name) FROM event_queue.handlers WHERE queue = 'workers';
SELECT event_queue.drop_queue('workers', force => true);
SELECT event_queue.revoke_access('eq_worker_owner');
SET client_min_messages = warning;
DROP SCHEMA eq_workers CASCADE;
DROP ROLE eq_worker_owner;
