-- Dead letters: back into the queue with their errors, or away; one, many, by
-- filter; and what depends on jobs that are deleted.
SET client_min_messages = warning;
-- The scheduler decides whose turn it is: wait until it has looked.
CREATE PROCEDURE looked_at() LANGUAGE plpgsql AS $$
BEGIN
	CALL wait_until('NOT EXISTS (SELECT FROM event_queue_internal.job_review)');
END $$;
-- Claims a job and has it fail.
CREATE FUNCTION fails(q text, message text, code text DEFAULT NULL) RETURNS text LANGUAGE sql AS $$
	SELECT c.name || CASE WHEN event_queue.fail(c.job_id, c.lease_token, message, code, 'in a test', '0 s') IS NULL
		THEN ': dead' ELSE ': again' END FROM event_queue.claim(q, worker => 'w1') c
$$;
CREATE FUNCTION done_with(q text, n int DEFAULT 1) RETURNS TABLE (name text, payload jsonb) LANGUAGE sql AS $$
	SELECT c.name, c.payload FROM event_queue.claim(q, n) c, LATERAL event_queue.complete(c.job_id, c.lease_token)
$$;

-- Back in the queue a job keeps its history: failures of all its lives, each with
-- the attempt of that life.
SELECT event_queue.create_queue('letters', max_attempts => 2, keep_completed => '1 day') > 0 AS created;
SELECT event_queue.enqueue('letters', 'stubborn', '{"n": 1}') AS job \gset
SELECT fails('letters', 'first', 'EX001'), fails('letters', 'second', 'EX002');
SELECT name, reason, failures, last_error, last_sqlstate, payload FROM event_queue.dead_letters WHERE queue = 'letters';
SELECT event_queue.retry_dead(:job);
SELECT state, failures, jsonb_array_length(errors) AS errors FROM event_queue.jobs WHERE job_id = :job;
-- (when they were is the same text whatever the worker's session has set)
SET datestyle = 'SQL, DMY';
SET timezone = 'Asia/Kolkata';
SELECT fails('letters', 'third', 'EX003'), fails('letters', 'fourth', 'EX004');
RESET datestyle;
RESET timezone;
SELECT failures, last_error FROM event_queue.dead_letters WHERE queue = 'letters';
SELECT event_queue.retry_dead(:job, '{"n": 2}');
SELECT * FROM done_with('letters');
-- success takes it out for good; the errors are in the history
SELECT count(*) FROM event_queue.dead_letters WHERE queue = 'letters';
SELECT try(format('SELECT event_queue.retry_dead(%s)', :job)) ~ '^EQ017' AS not_there;
SELECT event_queue.job_outcome(:job);
SELECT e -> 'attempt' AS attempt, e ->> 'worker' AS worker, e ->> 'sqlstate' AS sqlstate, e ->> 'message' AS message,
	e ->> 'context' AS context, (e ->> 'at')::timestamptz BETWEEN h.created_at AND h.completed_at AS in_its_time,
	e ->> 'at' ~ '^\d{4}-\d\d-\d\dT[\d:.]+\+00:00$' AS in_utc
FROM event_queue.history h, jsonb_array_elements(h.errors) WITH ORDINALITY AS x (e, n) WHERE job_id = :job ORDER BY n;
SELECT failures, payload FROM event_queue.history WHERE job_id = :job;

-- Many, by filter.
SELECT event_queue.create_queue('many_dead', max_attempts => 1) > 0 AS created;
CREATE FUNCTION die(tenant text, job text, code text) RETURNS text LANGUAGE sql AS $$
	SELECT event_queue.enqueue('many_dead', job, tenant_id => tenant);
	SELECT fails('many_dead', 'no', code)
$$;
CREATE VIEW dead AS SELECT tenant_id, name, last_sqlstate FROM event_queue.dead_letters WHERE queue = 'many_dead' ORDER BY died_at;
SELECT die('acme', 'mail', '08006'), die('acme', 'mail', '22023'), die('acme', 'sms', '08006'), die('zoo', 'mail', '08006'), die('zoo', 'sms', '08006');
SELECT * FROM dead;
SELECT event_queue.retry_all_dead('many_dead', 'sms', 'acme');
SELECT event_queue.retry_all_dead('many_dead', sqlstate => '08006', max_jobs => 1, payload => '{"repaired": true}');
SELECT * FROM done_with('many_dead', 10) ORDER BY 1;
SELECT * FROM dead;
SELECT event_queue.discard_all_dead('many_dead', 'sms');
SELECT event_queue.discard_all_dead('many_dead', died_after => clock_timestamp());
SELECT event_queue.discard_all_dead('many_dead', max_jobs => 0);
SELECT * FROM dead;
SELECT try($$SELECT event_queue.retry_all_dead('no such queue')$$), try($$SELECT event_queue.discard_all_dead('no such queue')$$),
	try($$SELECT event_queue.discard_all_dead('many_dead', max_jobs => -1)$$);
SET event_queue.max_payload = '1kB';
SELECT try($$SELECT event_queue.retry_all_dead('many_dead', payload => to_jsonb(repeat('x', 2000)))$$) ~ '^EQ005' AS too_large;
RESET event_queue.max_payload;
-- a session that is confined to a tenant reaches that tenant's; a limit counts those
SET event_queue.tenant = 'zoo';
SELECT try($$SELECT event_queue.retry_all_dead('many_dead', tenant_id => 'acme')$$), try($$SELECT event_queue.discard_all_dead('many_dead', tenant_id => 'acme')$$);
SELECT event_queue.discard_all_dead('many_dead', max_jobs => 1);
SELECT event_queue.retry_all_dead('many_dead');
RESET event_queue.tenant;
SELECT * FROM dead;
SELECT event_queue.discard_all_dead('many_dead');
-- more than are handled at a time; a key that several had goes to one of them
SELECT cardinality(event_queue.enqueue_many('many_dead', to_jsonb(array_fill('{}'::jsonb, '{2500}')), options => '{"name": "m"}')) AS enqueued;
SELECT count(*) FILTER (WHERE event_queue.fail(job_id, lease_token, 'no') IS NULL) AS died FROM event_queue.claim('many_dead', 3000);
SELECT event_queue.retry_all_dead('many_dead', max_jobs => 1200), event_queue.discard_all_dead('many_dead', max_jobs => 1100);
SELECT (SELECT count(*) FROM dead) AS dead, (SELECT count(*) FROM event_queue.jobs WHERE queue = 'many_dead') AS living;
SELECT event_queue.retry_all_dead('many_dead'), event_queue.purge_queue('many_dead');
CREATE FUNCTION die_of_key(job text) RETURNS text LANGUAGE sql AS $$
	SELECT event_queue.enqueue('many_dead', job, unique_key => 'k');
	SELECT fails('many_dead', 'no')
$$;
SELECT die_of_key('k1'), die_of_key('k2'), die_of_key('k3');
SELECT event_queue.retry_all_dead('many_dead');
SELECT name, unique_key FROM event_queue.jobs WHERE queue = 'many_dead' ORDER BY name;
SELECT event_queue.drop_queue('many_dead', force => true);

-- Whatever way a job is deleted, what waits for it becomes a dead letter.
SELECT event_queue.create_queue('upstream', max_attempts => 1, keep_failed => '1 hour') > 0 AND event_queue.create_queue('downstream') > 0 AS created;
CREATE FUNCTION pair(job text) RETURNS void LANGUAGE sql AS $$
	SELECT event_queue.enqueue('downstream', 'after ' || job, depends_on => ARRAY[event_queue.enqueue('upstream', job)])
$$;
CREATE VIEW waiting AS SELECT name, reason, errors -> -1 ->> 'message' ~ '^job \d+, which it depends on, was cancelled, discarded or deleted$' AS says_why
	FROM event_queue.dead_letters WHERE queue = 'downstream' ORDER BY died_at;
SELECT pair('deleted');
DELETE FROM event_queue.job WHERE name = 'deleted';
SELECT * FROM waiting;
SELECT pair('purged');
SELECT event_queue.purge_queue('upstream');
SELECT * FROM waiting;
-- dead: it waits on, since the dead letter may be retried
SELECT pair('dead');
SELECT fails('upstream', 'no');
SELECT name, state FROM event_queue.jobs WHERE queue = 'downstream';
SELECT event_queue.retry_all_dead('upstream');
SELECT fails('upstream', 'no');
SELECT name, state FROM event_queue.jobs WHERE queue = 'downstream';
UPDATE event_queue.dead_letter SET died_at = died_at - interval '2 hours' WHERE name = 'dead';
SELECT event_queue_internal.maintain_history();
SELECT * FROM waiting;
SELECT pair('dead again');
SELECT fails('upstream', 'no');
SELECT event_queue.discard_all_dead('upstream');
SELECT pair('dead and deleted');
SELECT fails('upstream', 'no');
DELETE FROM event_queue.dead_letter WHERE name = 'dead and deleted';
SELECT * FROM waiting OFFSET 3;
-- what waits for one of those stays blocked: it may come back
SELECT event_queue.enqueue('downstream', 'last', depends_on => ARRAY(SELECT job_id FROM event_queue.dead_letters WHERE name = 'after dead')) > 0 AS enqueued;
SELECT event_queue.retry_all_dead('downstream', 'after dead');
SELECT name, state FROM event_queue.jobs WHERE queue = 'downstream' ORDER BY name;
SELECT name FROM done_with('downstream');
CALL looked_at();
SELECT name, state FROM event_queue.jobs WHERE queue = 'downstream' ORDER BY name;
SELECT name FROM done_with('downstream');
-- a job that was dead already when another came to depend on it
SELECT event_queue.enqueue('downstream', 'hopeless', depends_on => ARRAY(SELECT job_id FROM event_queue.dead_letters WHERE name = 'after purged')) > 0 AS enqueued;
SELECT event_queue.discard_dead(job_id) FROM event_queue.dead_letters WHERE name = 'after purged';
SELECT name, reason FROM event_queue.dead_letters WHERE name = 'hopeless';
-- whom the owner lets delete jobs has no right on what stands behind them, and needs none
CREATE ROLE letters_admin;
SELECT event_queue.grant_admin('letters_admin');
GRANT DELETE ON event_queue.job TO letters_admin;
SELECT pair('deleted by an admin');
SET ROLE letters_admin;
DELETE FROM event_queue.job WHERE name = 'deleted by an admin';
RESET ROLE;
SELECT name FROM waiting WHERE name ~ 'admin';
-- from elsewhere, by an admin, with what it is retried with
SELECT event_queue.create_queue('imported') > 0 AS created;
SET ROLE letters_admin;
SELECT event_queue.enqueue('imported', 'lives', unique_key => 'k') > 0 AS enqueued;
SELECT event_queue.import_dead('imported', 'mail', '{"n": 1}', 'no such address', 3,
	'{"unique_key": "k", "priority": 2, "max_attempts": 4, "backoff": "fixed", "backoff_delay": "1 minute", "time_limit": "9 s", "group_key": "g", "metadata": {"from": "bull"}}',
	'2020-01-02 00:00+00', '2020-01-01 00:00+00', 'at line 1', 'acme') > 0 AS imported;
SELECT event_queue.import_dead('imported', 'plain') > 0 AS imported;
RESET ROLE;
SELECT name, tenant_id, reason, failures, priority, max_attempts, retry, time_limit, group_key, unique_key, payload, metadata, errors, died_at <= clock_timestamp() AS is_dead
FROM event_queue.dead_letter WHERE queue_id = (SELECT queue_id FROM event_queue.queue WHERE name = 'imported') ORDER BY job_id;
SELECT died_at, created_at FROM event_queue.dead_letters WHERE queue = 'imported' AND name = 'mail';
SELECT event_queue.retry_all_dead('imported');
CALL looked_at();
SELECT name, state, failures, max_attempts, unique_key, payload FROM event_queue.jobs WHERE queue = 'imported' ORDER BY job_id;
SELECT try(format('SELECT event_queue.import_dead(%s)', a)) FROM unnest(ARRAY[$$'no such queue', 'x'$$, $$'imported', ''$$, $$'imported', 'x', failures => 0$$,
	$$'imported', 'x', died_at => now() + interval '1 day'$$, $$'imported', 'x', created_at => now() + interval '1 day'$$, $$'imported', 'x', died_at => '-infinity'$$,
	$$'imported', 'x', options => '[]'$$, $$'imported', 'x', options => '{"delay": "1 s"}'$$, $$'imported', 'x', options => '{"unique_key": ""}'$$,
	$$'imported', 'x', options => '{"unique_key": {}}'$$, $$'imported', 'x', options => '{"nothing": 1}'$$, $$'rule-calls', 'x'$$]) a;
SELECT count(*) FROM event_queue.dead_letters WHERE queue = 'imported';
SELECT event_queue.drop_queue('imported', force => true);
SELECT event_queue.revoke_access('letters_admin');
DROP ROLE letters_admin;
-- the trigger looks at no other table
CREATE TABLE liar (job_id bigint);
CREATE TRIGGER t AFTER DELETE ON liar FOR EACH ROW EXECUTE FUNCTION event_queue_internal.bury_dependents();
INSERT INTO liar VALUES (1);
SELECT try('DELETE FROM liar');
DROP TABLE liar;
-- with the queue
SELECT pair('dropped');
SELECT event_queue.drop_queue('upstream', force => true);
SELECT name FROM waiting WHERE name ~ 'dropped';
SELECT event_queue.drop_queue(q, force => true) FROM unnest('{downstream,letters}'::text[]) q;
SELECT event_queue_internal.maintain_history();
SELECT count(*) AS left_over FROM event_queue.job_dependency WHERE name ~ '^(deleted|purged|dead|dropped|after)';
DROP VIEW waiting, dead;
DROP FUNCTION pair, die, die_of_key, done_with, fails;
DROP PROCEDURE looked_at;
