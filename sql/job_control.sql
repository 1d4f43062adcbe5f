-- What can be said about one job while it waits or runs, and to a queue as a whole.
SELECT event_queue.create_queue('control', max_attempts => 5) > 0 AS created;

-- Cancelling, progress, log lines, time limits, priorities.
SELECT event_queue.enqueue('control', 'long', options => '{"time_limit": "20 s"}') AS long \gset
SELECT lease_token AS token, leased_until - now() < '21 s' AS short_lease FROM event_queue.claim('control') \gset
SELECT event_queue.report_progress(:long, :'token', '{"done": 0.5}');
SELECT event_queue.log_job(:long, :'token', 'half way');
SELECT progress FROM event_queue.jobs WHERE job_id = :long;
SELECT level, message FROM event_queue.job_log WHERE job_id = :long;
SELECT event_queue.extend_lease(:long, :'token', '1 hour') - now() < '21 s' AS never_past_its_limit;
SELECT event_queue.cancel_job(:long);
SELECT reason FROM event_queue.explain_job(:long);
SELECT try(format('SELECT event_queue.extend_lease(%s, %L)', :long, :'token')) ~ '^EQ033' AS told;
SELECT try(format('SELECT event_queue.report_progress(%s, %L, NULL)', :long, :'token')) ~ '^EQ033' AS told;
SELECT event_queue.fail(:long, :'token', 'cancelled', final => true);
SELECT reason FROM event_queue.explain_job(:long);
SELECT try('SELECT event_queue.cancel_job(0)');
SELECT event_queue.enqueue('control', 'low', priority => 9) AS low \gset
SELECT event_queue.enqueue('control', 'normal') > 0 AS enqueued;
SELECT event_queue.change_priority(:low, 0);
SELECT name FROM finish('control', 2);
-- a queue that is drained takes no more, and gives what it has
SELECT event_queue.enqueue('control', 'last') > 0 AS enqueued;
SELECT event_queue.drain_queue('control');
SELECT try($$SELECT event_queue.enqueue('control', 'x')$$);
SELECT name FROM finish('control');
SELECT event_queue.resume_queue('control');
-- reasons
SELECT event_queue.enqueue('control', 'later', delay => '1 hour') AS later \gset
SELECT event_queue.pause_queue('control');
SELECT reason, until > now() AS until FROM event_queue.explain_job(:later);
SELECT event_queue.resume_queue('control');
SELECT event_queue.retry_waiting('control', failed_only => false);
SELECT reason FROM event_queue.explain_job(:later);
SELECT reason FROM event_queue.explain_job(0);
SELECT event_queue.drop_queue('control', force => true);

-- A handler inside the database is stopped at once; what it did is undone.
CREATE TABLE handled (what text);
CREATE FUNCTION slowly(job event_queue.claimed_job) RETURNS void LANGUAGE sql AS $$
	INSERT INTO public.handled VALUES (job.name);
	SELECT pg_sleep(25)
$$;
SELECT event_queue.create_queue('handled') > 0 AS created;
SELECT event_queue.create_handler('handled', '*', 'slowly') > 0 AS registered;
SELECT event_queue.enqueue('handled', 'slow') AS slow \gset
CALL wait_until(format('EXISTS (SELECT FROM event_queue.workers() WHERE current_job = %s)', :slow));
SELECT event_queue.cancel_job(:slow);
CALL wait_until(format('EXISTS (SELECT FROM event_queue.dead_letters WHERE job_id = %s)', :slow));
SELECT reason, failures, last_error, last_sqlstate, died_at - created_at < '20 s' AS at_once FROM event_queue.dead_letters WHERE job_id = :slow;
SELECT count(*) FROM handled;
SELECT event_queue.drop_handler('handled', '*');
SELECT event_queue.drop_queue('handled', force => true);
DROP FUNCTION slowly;
DROP TABLE handled;
