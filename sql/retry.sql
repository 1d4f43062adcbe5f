-- When a failed job is tried again: by the queue's backoff, by what the job
-- overrides of it, or by what its worker says.
SET client_min_messages = warning;
SET intervalstyle = postgres;
CREATE FUNCTION try_it(sql text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN EXECUTE sql; RETURN 'ok'; EXCEPTION WHEN OTHERS THEN RETURN SQLSTATE || ': ' || SQLERRM; END $$;
-- Fails a job until it is dead; the waits between its attempts, in seconds.
CREATE FUNCTION waits(q text, options jsonb DEFAULT '{}') RETURNS numeric[] LANGUAGE plpgsql AS $$
DECLARE
	id bigint := event_queue.enqueue(q, 'w', options => options);
	seconds numeric[] := '{}';
	c record;
	next timestamptz;
BEGIN
	LOOP
		SELECT * INTO STRICT c FROM event_queue.claim(q);
		next := event_queue.fail(c.job_id, c.lease_token, 'no');
		EXIT WHEN next IS NULL;
		seconds := seconds || trim_scale(round(extract(epoch FROM next -
			(SELECT (j.errors -> -1 ->> 'at')::timestamptz FROM event_queue.jobs j WHERE j.job_id = id)), 1));
		UPDATE event_queue.job SET run_at = clock_timestamp() WHERE job_id = id;
	END LOOP;
	PERFORM event_queue.discard_dead(id);
	RETURN seconds;
END $$;

-- A queue's curve.  Without settings it is BullMQ's: 2 s, 4 s, and then dead.
SELECT event_queue.create_queue('retry') > 0 AS created;
SELECT waits('retry');
SELECT event_queue.alter_queue('retry', max_attempts => 6, backoff_intervals => '{1 s, 10 s, 1 minute}');
CREATE FUNCTION waits_by(curve text) RETURNS numeric[] LANGUAGE plpgsql AS $$
BEGIN
	PERFORM event_queue.alter_queue('retry', backoff => curve);
	RETURN waits('retry');
END $$;
SELECT c AS backoff, waits_by(c) FROM unnest('{exponential,bull,linear,fixed,list}'::text[]) c;
-- no wait is longer than the cap, which list keeps to as well
SELECT event_queue.alter_queue('retry', backoff_max => '7 s');
SELECT c AS backoff, waits_by(c) FROM unnest('{exponential,bull,linear,fixed,list}'::text[]) c;
-- however often it failed
SELECT event_queue.alter_queue('retry', max_attempts => 1000, backoff => 'exponential', backoff_max => '1 hour');
SELECT max(w) AS longest, count(*) FROM unnest(waits('retry')) w;

-- A job overrides each of the settings by itself; the others stay the queue's.
SELECT event_queue.alter_queue('retry', max_attempts => 5, backoff => 'exponential', backoff_max => '30 s');
SELECT o AS options, waits('retry', o) FROM unnest(ARRAY[
	'{}',
	'{"max_attempts": 3}',
	'{"backoff": "linear"}',
	'{"backoff": "list"}',
	'{"backoff_delay": "5 s"}',
	'{"backoff_max": "3 s"}',
	'{"backoff_max": "1 day", "backoff_delay": "1 minute"}',
	'{"backoff_intervals": ["3 s", "1 s"]}',
	'{"backoff": "fixed", "backoff_intervals": ["3 s", "1 s"]}',
	'{"backoff_jitter": null, "backoff_intervals": null, "backoff": null}']::jsonb[]) o;
-- jitter: a wait of the job's, drawn between 1 - jitter and 1 of it
CREATE FUNCTION drawn(options jsonb, low numeric, high numeric) RETURNS text LANGUAGE sql AS $$
	SELECT CASE WHEN count(*) = 200 AND min(w) >= $2 AND max(w) <= $3 AND max(w) - min(w) > ($3 - $2) * 0.8
		THEN 'all, and spread' ELSE format('%s to %s', min(w), max(w)) END
	FROM unnest(waits('retry', '{"max_attempts": 201, "backoff": "fixed", "backoff_delay": "10 s"}' || $1)) w
$$;
SELECT drawn('{"backoff_jitter": 0.5}', 5, 10) AS half, drawn('{"backoff_jitter": 1}', 0, 10) AS whole,
	drawn('{"backoff_jitter": 0.5, "backoff_max": "4 s"}', 2, 4) AS of_the_cap;
SELECT event_queue.alter_queue('retry', backoff_jitter => 0.5);
SELECT drawn('{}', 5, 10) AS queues, waits('retry', '{"backoff_jitter": 0}') AS none;
SELECT event_queue.alter_queue('retry', backoff_jitter => 0);

-- The arguments of enqueue are the same; only what is given is stored.
SELECT event_queue.enqueue('retry', 'a', options => '{"backoff": "linear", "backoff_max": "1 minute", "backoff_jitter": 0.25}') AS a,
	event_queue.enqueue('retry', 'b', options => '{"backoff_intervals": ["1 s", "2 s"]}') AS b, event_queue.enqueue('retry', 'c') AS c \gset
SELECT name, retry FROM event_queue.job WHERE job_id IN (:a, :b, :c) ORDER BY job_id;
-- they go with the job into the dead letters, and back
SELECT event_queue.fail(job_id, lease_token, 'no', final => true) IS NULL AS dead FROM event_queue.claim('retry', 10);
SELECT name, retry FROM event_queue.dead_letter WHERE job_id IN (:a, :b, :c) ORDER BY job_id;
SELECT event_queue.retry_all_dead('retry');
SELECT name, retry FROM event_queue.job WHERE job_id IN (:a, :b, :c) ORDER BY job_id;
SELECT event_queue.purge_queue('retry');
-- also into those of jobs that can't run
SELECT event_queue.enqueue_flow('retry', '{"name": "top", "backoff_delay": "9 s", "children": [{"name": "below", "backoff": "bull"}]}') AS top \gset
SELECT event_queue.cancel_job(job_id) FROM event_queue.job WHERE name = 'below';
SELECT name, reason, retry FROM event_queue.dead_letter WHERE job_id = :top;
SELECT event_queue.discard_dead(:top);

-- The worker knows better: retry_after is exact, whatever curve, cap and jitter say.
SELECT event_queue.enqueue('retry', 'busy', options => '{"backoff_jitter": 1, "backoff_max": "1 s"}') AS busy \gset
SELECT round(extract(epoch FROM event_queue.fail(job_id, lease_token, 'too many requests', sqlstate => 'HT429',
	retry_after => '2 minutes') - clock_timestamp())) AS wait FROM event_queue.claim('retry');
SELECT state, failures FROM event_queue.jobs WHERE job_id = :busy;
SELECT event_queue.retry_waiting('retry');
-- and then the backoff goes on where it was
SELECT abs(extract(epoch FROM event_queue.fail(job_id, lease_token, 'no', retry_after => NULL) - clock_timestamp())) <= 1 AS by_backoff
FROM event_queue.claim('retry');
SELECT event_queue.retry_waiting('retry');
-- an error marked final is the last one, whatever attempts are left
SELECT event_queue.fail(job_id, lease_token, 'no such number', sqlstate => 'HT404', context => 'send', retry_after => '1 s', final => true)
	IS NULL AS dead FROM event_queue.claim('retry');
SELECT reason, failures, last_error, e ->> 'attempt' AS attempt, e ->> 'sqlstate' AS sqlstate, e ->> 'message' AS message,
	e ->> 'context' AS context, e ->> 'worker' <> '' AND (e ->> 'at')::timestamptz <= now() AS has_worker_and_time
FROM event_queue.dead_letters d, jsonb_array_elements(d.errors) e WHERE d.job_id = :busy;

-- What is wrong is said at once, by the rules of queues.
SELECT left(o, 60) AS options, try_it(format('SELECT event_queue.enqueue(''retry'', ''x'', options => %L)', o)) FROM unnest(ARRAY[
	'{"backoff": "sometimes"}', '{"backoff_delay": "-1 s"}', '{"backoff_delay": "366 days"}', '{"backoff_delay": "100000000 years"}',
	'{"backoff_max": "-1 s"}', '{"backoff_jitter": 1.5}', '{"backoff_jitter": "NaN"}', '{"backoff_intervals": []}',
	'{"backoff_intervals": ["1 s", "-1 s"]}', '{"backoff_intervals": ["1 s", null]}',
	jsonb_build_object('backoff_intervals', array_fill('1 s'::text, '{101}'))::text]) o;
SELECT try_it($$SELECT event_queue.enqueue_many('retry', '[{"name": "x", "backoff_intervals": ["soon"]}]')$$),
	try_it($$SELECT event_queue.enqueue_many('retry', '[{"name": "x", "backoff_intervals": "1 s"}]')$$),
	try_it($$SELECT event_queue.enqueue_many('retry', '[{"name": "x", "children": []}]')$$);
-- a list has to come from somewhere
SELECT event_queue.alter_queue('retry', reset => '{backoff_intervals}');
SELECT try_it($$SELECT event_queue.enqueue('retry', 'x', options => '{"backoff": "list"}')$$),
	try_it($$SELECT event_queue.alter_queue('retry', backoff => 'list')$$),
	waits('retry', '{"backoff": "list", "backoff_intervals": ["3 s"], "max_attempts": 2}');

-- enqueue_many adds all or none.
SELECT event_queue.purge_queue('retry');
SELECT try_it($$SELECT event_queue.enqueue_many('retry', '[{"name": "good"}, {"name": "bad", "backoff_jitter": 2}]')$$);
SELECT count(*) FROM event_queue.jobs WHERE queue = 'retry';
SELECT event_queue.drop_queue('retry', force => true);
DROP FUNCTION try_it, waits, waits_by, drawn;
