-- give_up_job, retry_job_after, postpone_job, postpone_queue: what a handler says of its job, in plain SQL
SET client_min_messages = warning;
CREATE ROLE postpone_owner;		-- of handlers, and of nothing else
CREATE ROLE postpone_admin;
SELECT event_queue.grant_admin('postpone_admin'), event_queue.create_queue('postpone', max_attempts => 2) > 0 AS created,
	event_queue.create_queue('beside it') > 0 AS created;
CREATE SCHEMA postpone AUTHORIZATION postpone_owner;
GRANT USAGE ON SCHEMA event_queue TO postpone_owner;
SET ROLE postpone_owner;
CREATE TABLE postpone.done (n int);
CREATE FUNCTION postpone.handle(job event_queue.claimed_job) RETURNS jsonb LANGUAGE sql AS $$
	INSERT INTO postpone.done VALUES (1);
	SELECT event_queue.give_up_job('no such number') WHERE job.name = 'give up';
	SELECT event_queue.give_up_job() WHERE job.name = 'give up silently';
	SELECT event_queue.retry_job_after('3 hours', 'busy') WHERE job.name = 'retry';
	SELECT event_queue.postpone_job('4 hours', 'night') WHERE job.name = 'postpone';
	SELECT event_queue.postpone_job() WHERE job.name = 'postpone by default';
	SELECT event_queue.postpone_queue('30 minutes', 'too many requests') WHERE job.name = 'postpone all';
	SELECT event_queue.postpone_queue('100 years') WHERE job.name = 'postpone for ever';
	SELECT event_queue.retry_job_after('-1 second') WHERE job.name = 'wrong';
	SELECT event_queue.postpone_job(NULL) WHERE job.name = 'wrong, too';
	SELECT '{"done": true}'::jsonb
$$;
RESET ROLE;
SELECT event_queue.grant_admin('postpone_owner');
SET ROLE postpone_owner;
SELECT event_queue.create_handler('postpone', '*', 'postpone.handle') > 0 AS created;
RESET ROLE;
SELECT event_queue.revoke_access('postpone_owner');
GRANT USAGE ON SCHEMA event_queue TO postpone_owner;

BEGIN;
SELECT count(event_queue.enqueue('postpone', name)) FROM unnest('{give up,give up silently,retry,postpone,postpone by default,wrong,"wrong, too",well}'::text[]) name;
SELECT name, outcome, sqlstate, error, round(extract(epoch FROM next_run_at - clock_timestamp()) / 3600) AS hours FROM event_queue.run_jobs('postpone') ORDER BY job_id;
SELECT count(*) FROM postpone.done;
SELECT name, failures, jsonb_array_length(errors) AS errors FROM event_queue.job WHERE name IN ('retry', 'postpone', 'postpone by default') ORDER BY 1;
SELECT name, reason, last_sqlstate, last_error FROM event_queue.dead_letters WHERE queue = 'postpone' ORDER BY 1;
ROLLBACK;

-- The whole queue: no other job is claimed, also by workers outside; that is no setting, and no attempt.  (The
-- executors see the jobs when it is held already.)
BEGIN;
SELECT event_queue.enqueue('postpone', 'postpone all') AS first \gset
SELECT event_queue.enqueue('postpone', 'well') AS second \gset
SELECT event_queue.enqueue('beside it', 'well') AS other \gset
SELECT name, outcome, sqlstate, error FROM event_queue.run_jobs('postpone');
COMMIT;
SELECT count(*) FROM event_queue.claim('postpone', 10);
SELECT count(*) FROM event_queue.claim('beside it', 10);
SELECT name, failures, run_at > clock_timestamp() AS later FROM event_queue.job WHERE job_id IN (:first, :second) ORDER BY 1;
SELECT reason, until > clock_timestamp() + interval '29 minutes' AS later FROM event_queue.explain_job(:second) e;
SELECT held_until BETWEEN clock_timestamp() + interval '29 minutes' AND clock_timestamp() + interval '30 minutes' AS held FROM event_queue.queue_limits('postpone');
SELECT event_queue.queue_health() -> 'postpone' -> 'reasons' -> 0 ->> 'reason' AS reason;
-- An admin lets it go on: the executors are told.
SET ROLE postpone_admin;
SELECT event_queue.resume_queue('postpone') AS ended, event_queue.resume_queue('postpone') AS again;
RESET ROLE;
SELECT held_until FROM event_queue.queue_limits('postpone');
CALL wait_until($$NOT EXISTS (SELECT FROM event_queue.jobs WHERE queue = 'postpone' AND name = 'well')$$);
-- For a day at most; a shorter one does not end a longer one.
BEGIN;
SELECT event_queue.enqueue('postpone', 'postpone for ever') > 0 AS enqueued;
SELECT name, outcome FROM event_queue.run_jobs('postpone');
ROLLBACK;
SELECT held_until BETWEEN clock_timestamp() + interval '23 hours' AND clock_timestamp() + interval '1 day' AS held FROM event_queue.queue_limits('postpone');
-- A rule's function postpones its own job: its queue is that of all rules.
CREATE FUNCTION postpone.act(event event_queue.event_store) RETURNS void LANGUAGE sql AS $$ SELECT event_queue.postpone_queue('1 hour') $$;
SELECT event_queue.create_rule('postpone', 'postpone.now', function => 'postpone.act') > 0 AS created;
SELECT count(event_queue.append('postpone', 'p1', 'postpone.now'));
CALL wait_until($$EXISTS (SELECT FROM event_queue.job WHERE metadata ->> 'rule' = 'postpone' AND run_at > clock_timestamp() + interval '50 minutes')$$);
SELECT event_queue_internal.held_until(1);
SELECT event_queue.drop_rule('postpone');
DELETE FROM event_queue.job WHERE metadata ->> 'rule' = 'postpone';
-- Workers outside hold it with a lease; one of a tenant no more than its job.  (Handlers do not meet these jobs.)
CREATE ROLE postpone_worker;
CREATE ROLE postpone_bound;
SELECT event_queue.grant_worker('postpone_worker'), event_queue.grant_worker('postpone_bound', 'postpone B');
SELECT event_queue.create_queue('postpone outside') > 0 AS created;
SELECT count(event_queue.enqueue('postpone outside', 'send', tenant_id => t)) FROM unnest('{postpone A,postpone B,postpone B}'::text[]) t;
SET ROLE postpone_bound;
SELECT event_queue.postpone_queue(job_id, lease_token, '1 hour') AS held FROM event_queue.claim('postpone outside');
SELECT count(*) FROM event_queue.claim('postpone outside', 10);
SET ROLE postpone_worker;
SELECT job_id, lease_token, tenant_id FROM event_queue.claim('postpone outside', tenant_id => 'postpone A') \gset
SELECT try(format('SELECT event_queue.postpone_queue(%s, %L, NULL)', :'job_id', :'lease_token')), try(format('SELECT event_queue.postpone_queue(%s, %L, %L)', :'job_id', :'lease_token', '-1 second'));
BEGIN;
SELECT event_queue.postpone_queue(:job_id, :'lease_token', '2 hours') AS held;
COMMIT;
SELECT replace(try(format('SELECT event_queue.postpone_queue(%s, %L, %L)', :'job_id', :'lease_token', '1 hour')), :'job_id', 'N');
RESET ROLE;
SELECT held_until BETWEEN clock_timestamp() + interval '119 minutes' AND clock_timestamp() + interval '2 hours' AS held FROM event_queue.queue_limits('postpone outside');
SELECT tenant_id, state, failures, run_at > clock_timestamp() AS later FROM event_queue.jobs WHERE queue = 'postpone outside' ORDER BY job_id;
SELECT event_queue.enqueue('postpone outside', 'send') > 0 AS enqueued;
SELECT count(*) FROM event_queue.claim('postpone outside');
SELECT event_queue.resume_queue('postpone outside') AS ended;
SELECT count(*) FROM event_queue.claim('postpone outside');
SELECT event_queue.revoke_access('postpone_worker'), event_queue.revoke_access('postpone_bound'), event_queue.drop_queue('postpone outside', force => true);

SELECT event_queue.drop_handler('postpone', '*'), event_queue.drop_queue('postpone', force => true), event_queue.drop_queue('beside it', force => true);
SELECT event_queue.revoke_access('postpone_admin');
SET client_min_messages = error;
DROP OWNED BY postpone_owner, postpone_admin, postpone_worker, postpone_bound CASCADE;
DROP ROLE postpone_owner, postpone_admin, postpone_worker, postpone_bound;
