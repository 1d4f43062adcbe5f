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
-- another payload, of a waiting job and by the worker of a leased one
SELECT event_queue.enqueue('control', 'edit', '{"n": 1}', delay => '1 hour') AS edit \gset
SELECT event_queue.change_payload(:edit, '{"n": 2}');
SELECT payload, state FROM event_queue.jobs WHERE job_id = :edit;
SELECT try(format('SELECT event_queue.change_payload(%s, NULL)', :edit)), try('SELECT event_queue.change_payload(0, ''{}'')'),
	try(format('SELECT event_queue.change_payload(%s, ''{}'', %L)', :edit, gen_random_uuid())) ~ '^EQ016' AS without_a_lease;
SET event_queue.max_payload = '1kB';
SELECT try(format('SELECT event_queue.change_payload(%s, %L)', :edit, to_jsonb(repeat('x', 2000)))) ~ '^EQ005' AS too_large;
RESET event_queue.max_payload;
SELECT event_queue.promote_job(:edit);
SELECT try(format('SELECT event_queue.promote_job(%s)', :edit)) ~ '^EQ032: job [0-9]+ does not wait for its time' AS is_due;
SELECT job_id, lease_token AS token, payload FROM event_queue.claim('control') \gset edit_
SELECT :edit_job_id = :edit AS promoted, :'edit_payload' AS payload;
SELECT try(format('SELECT event_queue.promote_job(%s)', :edit)) ~ '^EQ032: job [0-9]+ is not waiting' AS leased,
	try(format('SELECT event_queue.change_payload(%s, ''{}'')', :edit)) ~ '^EQ032: job [0-9]+ is not waiting' AS of_its_worker;
SELECT event_queue.change_payload(:edit, '{"n": 3}', :'edit_token');
SELECT event_queue.fail(:edit, :'edit_token', 'no', retry_after => '1 hour') > now() AS again;
SELECT event_queue.promote_job(:edit);
SELECT lease_token AS token, payload, attempt FROM event_queue.claim('control') \gset edit_
SELECT :'edit_payload' AS payload, :edit_attempt AS attempt;
SELECT event_queue.cancel_job(:edit);
SELECT try(format('SELECT event_queue.change_payload(%s, ''{}'', %L)', :edit, :'edit_token')) ~ '^EQ033' AS told;
SELECT event_queue.fail(:edit, :'edit_token', 'cancelled', final => true);
-- it waits for a signal, not for its time
SELECT event_queue.enqueue('control', 'waits') AS waits \gset
SELECT lease_token AS token FROM event_queue.claim('control') \gset waits_
SELECT event_queue.await_signal(:waits, :'waits_token', 'paid', 'O1') ->> 'state' AS state;
SELECT try(format('SELECT event_queue.promote_job(%s)', :waits)) ~ '^EQ032: job [0-9]+ does not wait for its time' AS suspended;
SELECT event_queue.cancel_job(:waits);
-- one that others of its group have passed, and one of a fair queue
SELECT event_queue.create_queue('passing', group_retry => 'pass', fair => true) > 0 AS created;
SELECT event_queue.enqueue('passing', 'passed', group_key => 'k') AS passed \gset
SELECT event_queue.enqueue('passing', 'passes', group_key => 'k') AS passes \gset
CALL wait_until(format('EXISTS (SELECT FROM event_queue.job WHERE job_id = %s AND blocked = 0)', :passed));
SELECT event_queue.fail(job_id, lease_token, 'no', retry_after => '1 hour') > now() AS later FROM event_queue.claim('passing');
CALL wait_until(format('EXISTS (SELECT FROM event_queue.job WHERE job_id = %s AND blocked = 0)', :passes));
SELECT name FROM finish('passing');
SELECT event_queue.promote_job(:passed);
CALL wait_until(format('EXISTS (SELECT FROM event_queue.job WHERE job_id = %s AND blocked = 0)', :passed));
SELECT name FROM finish('passing');
SELECT event_queue.drop_queue('passing');
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
