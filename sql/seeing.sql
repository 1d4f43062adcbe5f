-- What is kept and shown of jobs, rules, schedules, workers and events.
SET client_min_messages = warning;
SET intervalstyle = postgres;

-- When a finished job was claimed: its last attempt's wait and run.
SELECT event_queue.create_queue('seen_kept', keep_completed => '1 hour', max_attempts => 5) > 0 AS created;
SELECT event_queue.enqueue('seen_kept', 'j') > 0 AS enqueued;
SELECT event_queue.fail(job_id, lease_token, 'no', retry_after => '0') IS NOT NULL AS failed FROM event_queue.claim('seen_kept');
SELECT pg_sleep(0.05) IS NOT NULL AS waited;
SELECT job_id AS job, lease_token AS token FROM event_queue.claim('seen_kept') \gset
SELECT claimed_at AS claimed FROM event_queue.jobs WHERE job_id = :job \gset
SELECT pg_sleep(0.05) IS NOT NULL AS ran;
SELECT event_queue.complete(:job, :'token');
SELECT failures, claimed_at = :'claimed' AS of_the_last_attempt, wait_ms BETWEEN 50 AND 20000 AS waited,
	run_ms BETWEEN 50 AND 20000 AS ran, created_at < run_at AS due_later
FROM event_queue.history WHERE queue = 'seen_kept';

-- Due apart from scheduled; what is leased, blocked or paused counts as it stands.
SELECT event_queue.create_queue('seen_due') > 0 AS created;
CREATE VIEW due AS SELECT s.depth, s.due, s.scheduled FROM event_queue.queue_status s WHERE s.queue = 'seen_due';
TABLE due;
SELECT count(event_queue.enqueue('seen_due', 'now', priority => i % 3)) FROM generate_series(1, 5) i;
SELECT count(event_queue.enqueue('seen_due', 'later', delay => '1 hour', priority => i % 3)) FROM generate_series(1, 7) i;
TABLE due;
SELECT count(*) FROM event_queue.claim('seen_due', 2);
TABLE due;
SELECT event_queue.pause_queue('seen_due');
TABLE due;
SELECT event_queue.alter_queue('seen_due', fair => true);
CALL wait_until($$(SELECT (due, scheduled) = (3, 7) FROM due)$$);
TABLE due;
SELECT event_queue.purge_queue('seen_due') > 0 AS purged;
-- A look ends at its bound.
SELECT cardinality(event_queue.enqueue_many('seen_due', to_jsonb(array_fill('{}'::jsonb, '{11000}')), options => '{"name": "s", "delay": "1 hour"}'));
SELECT depth > 10000 AS more, scheduled FROM due;
DROP VIEW due;
SELECT event_queue.drop_queue('seen_due', force => true), event_queue.drop_queue('seen_kept', force => true);

-- What rules did, counted with the checkpoint.
SELECT event_queue.create_queue('seen_rules') > 0 AS created;
CREATE FUNCTION seen_refuses(e event_queue.event_store) RETURNS void LANGUAGE plpgsql AS $$BEGIN RAISE EXCEPTION 'no function today'; END$$;
SELECT event_queue.create_rule('seen all', 'seen.*', queue => 'seen_rules', job_name => 'all') > 0 AS created;
SELECT event_queue.create_rule('seen some', 'seen.*', condition => '10 / (event_data ->> ''n'')::int > 4', queue => 'seen_rules', job_name => 'some') > 0 AS created;
SELECT event_queue.create_rule('seen function', 'seen.call', function => 'seen_refuses') > 0 AS created;
SELECT event_queue.create_rule('seen never', 'unseen.*', queue => 'seen_rules', job_name => 'never') > 0 AS created;
SELECT event_queue.pause_rule('seen never');
CREATE VIEW did AS SELECT rule, state, seen, matched, failed, last_error, last_fired_at IS NOT NULL AS fired,
	last_error_at IS NOT NULL AS err, lag_events, lag_seconds
	FROM event_queue.rule_stats WHERE rule LIKE 'seen %' ORDER BY rule COLLATE "C";
TABLE did;
SELECT count(event_queue.append('seen', i::text, 'seen.it', jsonb_build_object('n', i))) FROM generate_series(0, 4) i;
SELECT count(event_queue.append('seen', '9', 'seen.call', '{"n": 9}'));
CALL wait_until($$(SELECT sum(failed) >= 2 AND sum(seen) = 13 AND sum(matched) = 9 FROM did)$$);
-- of "seen some" the event that divides by zero, and the attempt again
SELECT rule, state, seen, matched, failed >= 1 AS failed, last_error, fired, err, lag_events, lag_seconds FROM did;
SELECT count(*) FILTER (WHERE name = 'all') AS all, count(*) FILTER (WHERE name = 'some') AS some FROM event_queue.jobs WHERE queue = 'seen_rules';
-- what jobs of "rule-calls" left is added with the next event
SELECT failed AS before FROM did WHERE rule = 'seen function' \gset
SELECT count(event_queue.append('seen', 'a', 'seen.it', '{"n": 1}'));
CALL wait_until($$(SELECT sum(seen) = 15 FROM did)$$);
SELECT failed >= :before AS kept FROM did WHERE rule = 'seen function';
-- replaced, a rule goes on counting; dropped, its counts go
SELECT event_queue.create_rule('seen all', 'seen.*', queue => 'seen_rules', job_name => 'other', or_replace => true) > 0 AS replaced;
SELECT seen FROM did WHERE rule = 'seen all';
SELECT rule_id AS gone FROM event_queue.rules WHERE name = 'seen some' \gset
SELECT event_queue.drop_rule(rule) FROM did;
SELECT count(event_queue.append('seen', 'b', 'seen.it', '{"n": 1}'));
SELECT event_queue.create_rule('seen last', 'unseen.*', queue => 'seen_rules', job_name => 'never') > 0 AS created;
CALL wait_until(format('NOT EXISTS (SELECT FROM event_queue_internal.rule_count WHERE rule_id = %s)', :gone));
SELECT event_queue.drop_rule('seen last');
SELECT event_queue.purge_queue('seen_rules') > 0 AS purged;

-- Schedules: what they made, what they missed, and why.
SELECT event_queue.create_schedule('seen often', '* * * * *', 'seen_rules', 'tick') > 0 AS created;
CREATE VIEW ticks AS SELECT state, runs, missed, last_run IS NOT NULL AS ran, last_error, next_run > now() AS due
	FROM event_queue.schedule_stats WHERE schedule = 'seen often';
TABLE ticks;
-- as if the server had been down: the minute that is due and those before it
UPDATE event_queue.schedule SET next_run = date_trunc('minute', clock_timestamp()) - interval '5 minutes' WHERE name = 'seen often';
CALL wait_until($$(SELECT runs >= 1 FROM ticks)$$);
SELECT state, runs BETWEEN 1 AND 2 AS runs, missed BETWEEN 5 AND 6 AS missed, ran, last_error, due FROM ticks;
SELECT event_queue.drain_queue('seen_rules');
UPDATE event_queue.schedule SET next_run = clock_timestamp() WHERE name = 'seen often';
CALL wait_until($$(SELECT state = 'failing' AND last_error IS NOT NULL FROM ticks)$$);
SELECT state, last_error FROM ticks;
SELECT event_queue.resume_queue('seen_rules');
SELECT event_queue.pause_schedule('seen often');
SELECT state FROM ticks;
SELECT event_queue.drop_schedule('seen often');
SELECT event_queue.purge_queue('seen_rules') > 0 AS purged;

-- Who works: a session, and a worker with a name.
SELECT count(event_queue.enqueue('seen_rules', 'w')) FROM generate_series(1, 5);
SELECT count(*) FROM event_queue.claim('seen_rules', 2);
SELECT count(*) FROM event_queue.claim('seen_rules', 3, worker => 'robot 7');
SELECT kind, pid = pg_backend_pid() AS this_session, CASE WHEN pid IS NULL THEN worker END AS worker, queue, leases,
	job_name, since <= now() AS since, jobs_done
FROM event_queue.worker_stats WHERE queue = 'seen_rules' ORDER BY leases;
SELECT kind, count(*) > 0 AS there FROM event_queue.worker_stats WHERE kind IN ('scheduler', 'executor') GROUP BY 1 ORDER BY 1;
SELECT event_queue.drop_queue('seen_rules', force => true);

-- Events: the watermark, who holds it, and where they lie.
SELECT watermark <= last_position AS watermark, lag_positions, blocked_by, tables >= 1 AS tables, total_bytes > 0 AS bytes,
	generation = event_queue.generation() AS generation FROM event_queue.event_stats;
BEGIN;
SELECT count(event_queue.append('seen', 'held', 'seen.held', '{}'));
SELECT blocked_by = pg_backend_pid() AS by_this, application_name, lag_positions, blocked_seconds >= 0 AS seconds FROM event_queue.event_stats;
ROLLBACK;
SELECT name, tenant_id, total_bytes > 0 AS bytes FROM event_queue.event_partitions WHERE name = 'event_store';
BEGIN;
SELECT event_queue.create_event_partition('seen tenant') IS NOT NULL AS created;
SELECT tenant_id, last_position, total_bytes > 0 AS bytes, first_position > 0 AS first FROM event_queue.event_partitions WHERE tenant_id = 'seen tenant';
ROLLBACK;
DROP VIEW did, ticks;
DROP FUNCTION seen_refuses;

-- A trace shows jobs that are finished and not kept, for event_queue.keep_trace.
SELECT event_queue.create_queue('seen_trace') AS trace_queue \gset
SELECT event_queue.create_rule('seen trace', 'seen.trace', queue => 'seen_trace', job_name => 'traced') > 0 AS created;
CREATE PROCEDURE seen_one(subject text) LANGUAGE plpgsql AS $$
BEGIN
	PERFORM event_queue.append('seen', subject, 'seen.trace');
	COMMIT;
	CALL wait_until('(SELECT scheduled + due = 1 FROM event_queue.queue_status WHERE queue = ''seen_trace'')');
	PERFORM event_queue.complete(job_id, lease_token) FROM event_queue.claim('seen_trace');
	COMMIT;
END $$;
CREATE FUNCTION seen_chain(subject text) RETURNS TABLE (depth int, kind text, name text, by text, state text) LANGUAGE sql AS $$
	SELECT t.depth, t.kind, t.name, regexp_replace(t.caused_by, '(event|job) .*', '\1'), t.detail ->> 'state'
	FROM event_queue.event_store e, event_queue.trace(e.id) t WHERE e.aggregate_type = 'seen' AND e.aggregate_id = subject $$;
CALL seen_one('off');
SELECT * FROM seen_chain('off');
ALTER SYSTEM SET event_queue.keep_trace = '1h';
SELECT pg_reload_conf();
-- a session takes it up between two statements
SELECT pg_sleep(1) IS NOT NULL AS slept;
SHOW event_queue.keep_trace;
CALL seen_one('on');
SELECT * FROM seen_chain('on');
SELECT tenant_id, name, rule, rule_version, parent_job, outcome, created_at <= finished_at AS times FROM event_queue.job_trace WHERE queue_id = :trace_queue;
-- what no event caused, or the history keeps as long, has no line; nor have dead letters
SELECT event_queue.enqueue('seen_trace', 'by itself') > 0 AS enqueued;
SELECT event_queue.complete(job_id, lease_token) FROM event_queue.claim('seen_trace');
SELECT event_queue.alter_queue('seen_trace', keep_completed => '2 hours');
CALL seen_one('kept');
SELECT count(*) FROM event_queue.job_trace WHERE queue_id = :trace_queue;
SELECT * FROM seen_chain('kept');
-- kept by both for different times, it is shown once
SELECT event_queue.alter_queue('seen_trace', keep_completed => '1 minute');
CALL seen_one('both');
SELECT count(*) FROM event_queue.job_trace WHERE queue_id = :trace_queue;
SELECT * FROM seen_chain('both');
SELECT event_queue_internal.maintain_history();
SELECT count(*) FROM event_queue.job_trace WHERE queue_id = :trace_queue;
-- metadata may hold anything: numbers that no bigint holds are none
SELECT event_queue.enqueue('seen_trace', 'odd', options => '{"metadata": {"event_id": "odd", "parent_job": 1e30}}') > 0 AS enqueued;
SELECT event_queue.complete(job_id, lease_token) FROM event_queue.claim('seen_trace');
SELECT event_id, parent_job FROM event_queue.job_trace WHERE name = 'odd';
UPDATE event_queue.job_trace SET finished_at = finished_at - interval '1 hour';
SELECT event_queue_internal.maintain_history();
SELECT count(*) FROM event_queue.job_trace WHERE queue_id = :trace_queue;
ALTER SYSTEM RESET event_queue.keep_trace;
SELECT pg_reload_conf();
SELECT event_queue.drop_rule('seen trace'), event_queue.drop_queue('seen_trace', force => true);
DROP PROCEDURE seen_one;
DROP FUNCTION seen_chain;
