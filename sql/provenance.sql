-- Which code did a job: history, dead letters, steps and trace say function, version and code.
SET client_min_messages = warning;
CREATE SCHEMA prv;
CREATE FUNCTION prv.amount() RETURNS int LANGUAGE sql AS 'SELECT 1';
CREATE FUNCTION prv.score(job event_queue.claimed_job) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
	IF job.payload ? 'fail' THEN
		RAISE EXCEPTION 'no score' USING ERRCODE = 'EQ060';
	END IF;
	RETURN to_jsonb(prv.amount());
END $$;
SELECT event_queue.create_queue('prv', keep_completed => '1 hour', max_attempts => 1) > 0 AS created;
SELECT event_queue.create_handler('prv', 'score', 'prv.score') > 0 AS created;
SELECT function, version, code ~ '^[0-9a-f]{16}$' AS code FROM event_queue.handlers WHERE queue = 'prv';
CREATE TABLE prv.codes AS SELECT 1 AS n, code FROM event_queue.handlers WHERE queue = 'prv';
SELECT event_queue.enqueue('prv', 'score', '{"n": 1}') AS job1 \gset
CALL wait_until($$EXISTS (SELECT FROM event_queue.history WHERE queue = 'prv' AND payload = '{"n": 1}')$$);
-- what it calls is another, without create_handler: the code is another, the version is not
CREATE OR REPLACE FUNCTION prv.amount() RETURNS int LANGUAGE sql AS 'SELECT 2';
INSERT INTO prv.codes SELECT 2, code FROM event_queue.handlers WHERE queue = 'prv';
SELECT event_queue.enqueue('prv', 'score', '{"n": 2}') AS job2 \gset
CALL wait_until($$EXISTS (SELECT FROM event_queue.history WHERE queue = 'prv' AND payload = '{"n": 2}')$$);
-- create_handler counts what it changes
SELECT event_queue.create_handler('prv', 'score', 'prv.score', or_replace => true) > 0 AS same;
SELECT version FROM event_queue.handlers WHERE queue = 'prv';
SELECT event_queue.create_handler('prv', 'score', 'prv.score', time_limit => '5 s', or_replace => true) > 0 AS other;
SELECT version FROM event_queue.handlers WHERE queue = 'prv';
SELECT event_queue.enqueue('prv', 'score', '{"n": 3}') AS job3 \gset
SELECT event_queue.enqueue('prv', 'score', '{"n": 4, "fail": true}') AS job4 \gset
CALL wait_until($$EXISTS (SELECT FROM event_queue.history WHERE queue = 'prv' AND payload = '{"n": 3}')
	AND EXISTS (SELECT FROM event_queue.dead_letter WHERE name = 'score' AND payload ->> 'n' = '4')$$);
SELECT h.payload, h.result, h.handler ->> 'function' AS function, h.handler -> 'version' AS version, c.n AS code
FROM event_queue.history h LEFT JOIN prv.codes c ON c.code = h.handler ->> 'code' WHERE h.queue = 'prv' ORDER BY h.job_id;
SELECT d.handler - 'code' AS handler, c.n AS code FROM event_queue.dead_letters d LEFT JOIN prv.codes c ON c.code = d.handler ->> 'code'
WHERE d.job_id = :job4;
-- a worker outside has none, nor has what it says of a failure
SELECT event_queue.create_queue('prv_out', keep_completed => '1 hour', max_attempts => 1) > 0 AS created;
SELECT event_queue.enqueue('prv_out', 'x') AS job5, event_queue.enqueue('prv_out', 'y') AS job6 \gset
SELECT event_queue.complete(job_id, lease_token) FROM event_queue.claim('prv_out', job_names => '{x}');
SELECT event_queue.fail(job_id, lease_token, 'no') IS NULL AS dead FROM event_queue.claim('prv_out', job_names => '{y}');
SELECT handler FROM event_queue.history WHERE job_id = :job5 UNION ALL SELECT handler FROM event_queue.dead_letters WHERE job_id = :job6;
-- a dropped function has no code; the handler is shown all the same
CREATE FUNCTION prv.gone(jobs event_queue.claimed_job[]) RETURNS void LANGUAGE sql AS '';
SELECT event_queue.create_handler('prv_out', 'gone', 'prv.gone', batch_size => 10) > 0 AS created;
SELECT code IS NOT NULL AS has_code FROM event_queue.handlers WHERE function = 'prv.gone';
DROP FUNCTION prv.gone;
SELECT job_name, version, code FROM event_queue.handlers WHERE function = 'prv.gone';
SELECT event_queue.drop_handler('prv_out', 'gone');

-- trace: of jobs that are kept, that are not, that are dead; and of a rule's function
SELECT event_queue.create_queue('prv_gone', max_attempts => 1) > 0 AS created;
SELECT event_queue.create_handler('prv_gone', '*', 'prv.score') > 0 AS created;
CREATE FUNCTION prv.told(event event_queue.event_store) RETURNS void LANGUAGE sql AS '';
SELECT event_queue.create_rule('prv', 'prv.asked', actions => '[{"enqueue": {"queue": "prv", "name": "score"}},
	{"enqueue": {"queue": "prv_gone", "name": "unkept"}}, {"enqueue": {"queue": "prv_gone", "name": "dies", "payload": {"fail": 1}}},
	{"call": {"function": "prv.told"}}]') > 0 AS created;
ALTER SYSTEM SET event_queue.keep_trace = '1h';
SELECT pg_reload_conf();
\c -
SET client_min_messages = warning;
SELECT id FROM event_queue.append('prv', 'prv1', 'prv.asked') \gset
CALL wait_until($$(SELECT count(*) FROM event_queue.job_trace WHERE rule = 'prv') + (SELECT count(*) FROM event_queue.history WHERE metadata ->> 'rule' = 'prv')
	+ (SELECT count(*) FROM event_queue.dead_letter WHERE metadata ->> 'rule' = 'prv') = 4$$);
SELECT name, detail ->> 'state' AS state, detail #> '{handler,function}' AS function, detail #> '{handler,version}' AS version, length(detail #>> '{handler,code}') AS code
FROM event_queue.trace(:'id') WHERE kind = 'job' ORDER BY name COLLATE "C";

-- Steps of completed jobs are kept with them, with who did each.
CREATE FUNCTION prv.stepped(job event_queue.claimed_job) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	IF event_queue.step(job, 'reserve') IS NULL THEN
		PERFORM event_queue.step_done(job, 'reserve', '{"items": null}', undo => '{"queue": "prv_out", "name": "unreserve"}');
	END IF;
	IF NOT event_queue.sleep_job(job, 'nap', '0') THEN
		RETURN;
	END IF;
	PERFORM event_queue.step_done(job, 'big', to_jsonb(repeat('x', (job.payload ->> 'size')::int)));
	PERFORM event_queue.step_done(job, 'last', '3');
END $$;
SELECT event_queue.create_handler('prv', 'stepped', 'prv.stepped') > 0 AS created;
SELECT event_queue.create_handler('prv_gone', 'stepped', 'prv.stepped') > 0 AS created;
SELECT event_queue.enqueue('prv_gone', 'stepped', '{"size": 1}') AS unkept \gset
SELECT event_queue.enqueue('prv', 'stepped', '{"size": 1}', options => ('{"metadata": {"event_id": "' || :'id' || '"}}')::jsonb) AS job \gset
CALL wait_until(format('EXISTS (SELECT FROM event_queue.history WHERE job_id = %s) AND NOT EXISTS (SELECT FROM event_queue.job WHERE job_id = %s)', :job, :unkept));
SELECT step_no, name, kind, state, result, undo ->> 'name' AS undo, handler ->> 'function' AS function, completed_at IS NOT NULL AS completed
FROM event_queue.job_steps WHERE job_id = :job ORDER BY 1;
SELECT count(*) FROM event_queue.job_steps WHERE job_id = :unkept;
SELECT count(*) FROM event_queue.job_step WHERE job_id IN (:job, :unkept);
SELECT s ->> 'name' AS name, s ->> 'state' AS state, s ? 'result' AS result FROM event_queue.trace(:'id'), jsonb_array_elements(detail -> 'steps') s
WHERE kind = 'job' AND name = 'stepped' ORDER BY 1;
-- of results no more than a payload may have: the rest says so
SELECT event_queue.enqueue('prv', 'stepped', '{"size": 1048550}') AS big \gset
CALL wait_until(format('EXISTS (SELECT FROM event_queue.history WHERE job_id = %s)', :big));
SELECT name, state, result IS NULL AS no_result FROM event_queue.job_steps WHERE job_id = :big ORDER BY step_no;
SELECT s -> 'name' AS name, s -> 'left_out' AS left_out FROM event_queue.job_history h, jsonb_array_elements(h.steps) s WHERE h.job_id = :big ORDER BY s -> 'step_no';
ALTER SYSTEM RESET event_queue.keep_trace;
SELECT pg_reload_conf();
SELECT event_queue.drop_rule('prv'), event_queue.drop_handler('prv', 'score'), event_queue.drop_handler('prv', 'stepped'), event_queue.drop_handler('prv_gone', '*'),
	event_queue.drop_handler('prv_gone', 'stepped');
SELECT count(event_queue.discard_dead(job_id)) > 0 AS discarded FROM event_queue.dead_letters WHERE queue IN ('prv', 'prv_out', 'prv_gone') OR metadata ->> 'rule' LIKE 'prv%';
SELECT count(event_queue.drop_queue(name, force => true)) FROM unnest('{prv,prv_out,prv_gone}'::text[]) name;
