-- Rules turn events into jobs; handlers run them, once, inside the database.

-- Patterns are EventEmitter2's.
SELECT p AS pattern, array_agg(t ORDER BY t) FILTER (WHERE event_queue.event_matches(t, p)) AS matches
FROM unnest('{lead.created,lead.*,*.created,**,lead.**,**.created,lead.**.done,*.*,*}'::text[]) p,
	unnest('{lead,lead.created,lead.task.done,lead.task.sub.done,task.created}'::text[]) t
GROUP BY p ORDER BY p;
-- Many ** take no longer than they must.
SELECT event_queue.event_matches(repeat('a.', 100) || 'a', repeat('**.a.', 40) || 'b');

-- Templates.
SELECT event_queue.map_payload('{"lead": "$.aggregate_id", "step": "$.data.step", "none": "$.data.x", "kind": "k", "n": 1}',
	'{"aggregate_id": "L1", "data": {"step": 2}}');

CREATE SCHEMA erp;
CREATE TABLE erp.done (job_id bigint, tenant_id text, payload jsonb, attempt int, who text DEFAULT current_user, tenant_setting text DEFAULT current_setting('event_queue.tenant'));
CREATE FUNCTION erp.make_task(job event_queue.claimed_job) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
	SET event_queue.tenant = 'left over'; -- must not reach the next job
	INSERT INTO done (job_id, tenant_id, payload, attempt, tenant_setting)
	VALUES (job.job_id, job.tenant_id, job.payload, job.attempt, job.tenant_id);
	IF job.payload ->> 'step' = '13' AND job.attempt < 2 THEN
		RAISE EXCEPTION 'unlucky' USING ERRCODE = 'P0013';
	END IF;
	RETURN jsonb_build_object('made', job.payload);
END
$$;
SELECT event_queue.create_queue('tasks', backoff_delay => '100 ms', keep_completed => '1 hour') IS NOT NULL AS created;
SELECT event_queue.create_handler('tasks', 'make', 'erp.make_task') IS NOT NULL AS registered;
SELECT event_queue.create_rule('moved', 'lead.moved*', queue => 'tasks', job_name => 'make') IS NULL; -- no such pattern
SELECT event_queue.create_rule('moved', 'lead.moved', $$(event_data ->> 'step')::int > 1$$, 'tasks', 'make',
	'{"lead": "$.aggregate_id", "step": "$.data.step"}') IS NOT NULL AS created;
SELECT try($$SELECT event_queue.create_rule('moved', '**', queue => 'tasks', job_name => 'make')$$);
SELECT queue, job_name, function FROM event_queue.handlers;
SELECT name, event_pattern, condition, queue, job_name, payload, enabled FROM event_queue.rules;

BEGIN;
SELECT version FROM event_queue.append('lead', 'R1', 'lead.moved', '{"step": 1}'); -- condition does not hold
SELECT version FROM event_queue.append('lead', 'R1', 'lead.moved', '{"step": 2}', tenant_id => 'acme');
SELECT version FROM event_queue.append('lead', 'R1', 'lead.moved', '{"step": 13}');
SELECT version FROM event_queue.append('lead', 'R1', 'lead.other', '{"step": 3}');
COMMIT;
BEGIN;
SELECT version FROM event_queue.append('lead', 'R2', 'lead.moved', '{"step": 4}');
ROLLBACK;
CALL wait_until($$(SELECT count(*) = 2 FROM event_queue.job_history h WHERE h.queue_id = event_queue_internal.queue_id_of('tasks'))$$);
SELECT tenant_id, payload, attempt, who, tenant_setting FROM erp.done ORDER BY 2;
SELECT h.tenant_id, result, failures, h.metadata ->> 'rule' AS rule, errors -> 0 ->> 'message' AS error, errors -> 0 ->> 'sqlstate' AS sqlstate,
	e.aggregate_id, e.event_data
FROM event_queue.job_history h JOIN event_queue.event_store e ON e.id = (h.metadata ->> 'event_id')::uuid
WHERE h.queue_id = event_queue_internal.queue_id_of('tasks') ORDER BY e.position;

-- A rule that calls a function does it in a job of its own; one that fails
-- hurts no other rule, and ends as a dead letter that names rule and event.
CREATE TABLE erp.seen (event_type text, aggregate_id text);
CREATE FUNCTION erp.see(event event_queue.event_store) RETURNS void LANGUAGE sql AS
	$$INSERT INTO erp.seen VALUES (event.event_type, event.aggregate_id)$$;
SELECT event_queue.alter_queue('rule-calls', backoff_delay => '10 ms');
SELECT event_queue.create_rule('a broken', 'deal.**', $$(event_data ->> 'n')::int > 0$$, 'tasks', 'nobody') IS NOT NULL AS created;
SELECT event_queue.create_rule('b calls', 'deal.**', function => 'erp.see') IS NOT NULL AS created;
SELECT version FROM event_queue.append('deal', 'D1', 'deal.won', '{"n": "not a number"}');
SELECT version FROM event_queue.append('deal', 'D2', 'deal.line.added', '{"n": 1}');
CALL wait_until($$(SELECT count(*) = 2 FROM erp.seen)$$);
CALL wait_until($$(SELECT count(*) = 1 FROM event_queue.dead_letters WHERE queue = 'rule-calls')$$);
SELECT * FROM erp.seen ORDER BY 1;
SELECT name, reason, failures, last_sqlstate, last_error, payload - 'position' - 'rule_id' AS payload, metadata ->> 'rule' AS rule
FROM event_queue.dead_letters WHERE queue = 'rule-calls';
SELECT name, state, payload -> 'aggregate_id' AS aggregate_id FROM event_queue.jobs WHERE queue = 'tasks';

-- A rule that was off does not catch up.
SELECT event_queue.pause_rule('b calls');
SELECT version FROM event_queue.append('deal', 'D3', 'deal.missed', '{"n": 0}');
SELECT event_queue.resume_rule('b calls');
SELECT version FROM event_queue.append('deal', 'D3', 'deal.seen', '{"n": 0}');
CALL wait_until($$(SELECT count(*) = 3 FROM erp.seen)$$);
SELECT * FROM erp.seen WHERE aggregate_id = 'D3';

-- A handler that takes too long is cancelled and counts as failed.
CREATE FUNCTION erp.slow(job event_queue.claimed_job) RETURNS void LANGUAGE sql AS 'SELECT pg_sleep(60)';
SELECT event_queue.create_handler('tasks', 'slow', 'erp.slow', '50 ms') IS NOT NULL AS registered;
SELECT event_queue.enqueue('tasks', 'slow', options => '{"max_attempts": 1}') AS job \gset
CALL wait_until(format($$(SELECT count(*) = 1 FROM event_queue.dead_letters WHERE job_id = %s)$$, :job));
SELECT last_sqlstate, last_error FROM event_queue.dead_letters WHERE job_id = :job;

-- What a handler leaves in the session is gone before the next job: five jobs
-- on two executors would trip over each other's temporary table.
CREATE FUNCTION erp.scratch(job event_queue.claimed_job) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	CREATE TEMP TABLE scratch (n int);
	PERFORM pg_advisory_lock(1);
END
$$;
SELECT event_queue.create_handler('tasks', 'scratch', 'erp.scratch') IS NOT NULL AS registered;
SELECT count(event_queue.enqueue('tasks', 'scratch', options => '{"max_attempts": 1}')) FROM generate_series(1, 5);
CALL wait_until($$(SELECT count(*) = 5 FROM event_queue.job_history WHERE name = 'scratch')
	OR EXISTS (SELECT FROM event_queue.dead_letters WHERE name = 'scratch')$$);
SELECT last_error FROM event_queue.dead_letters WHERE name = 'scratch';

-- A handler that is gone: a fault of the deployment; the job waits and keeps its attempts.
SELECT event_queue.create_handler('tasks', '*', 'erp.make_task') IS NOT NULL AS registered;
DROP FUNCTION erp.make_task;
SELECT event_queue.enqueue('tasks', 'whatever', options => '{"max_attempts": 1}') AS job \gset
CALL wait_until($$EXISTS (SELECT FROM event_queue.faults() WHERE what = 'handler')$$);
SELECT item, sqlstate, message FROM event_queue.faults() WHERE what = 'handler';
SELECT failures, stalled FROM event_queue.job WHERE job_id = :job;

SELECT try($$SELECT event_queue.drop_queue('tasks', force => true)$$);
SELECT event_queue.drop_rule(name) FROM event_queue.rules;
SELECT event_queue.drop_handler(queue, job_name) FROM event_queue.handlers;
SELECT event_queue.drop_queue('tasks', force => true);
SELECT event_queue.discard_dead(job_id) FROM event_queue.dead_letters;
DROP SCHEMA erp CASCADE;
