-- The end of jobs as events: job.completed and job.dead.
SELECT event_queue.create_queue('told', job_events => true, max_attempts => 1) IS NOT NULL AS created;
SELECT event_queue.create_queue('untold') IS NOT NULL AS created;
SELECT job_events FROM event_queue.queue WHERE name LIKE '%told' ORDER BY name;
CREATE VIEW job_told AS SELECT event_type, event_data - '{job_id,at,error}'::text[] AS data, event_data -> 'error' -> 'message' AS error, tenant_id,
		aggregate_id = event_data ->> 'job_id' AS own_aggregate, version, metadata ->> 'rule' AS rule, jsonb_array_length(metadata -> 'rule_chain') AS chain,
		metadata ->> 'correlation_id' AS correlation
	FROM event_queue.event_store e WHERE aggregate_type = 'event_queue.job' ORDER BY position;
SELECT event_queue.enqueue('told', 'good', '{"n": 1}', options => '{"metadata": {"correlation_id": "c1"}}') AS job \gset
SELECT event_queue.enqueue('told', 'bad', '{"n": 2}', tenant_id => 'told acme') AS bad \gset
SELECT event_queue.enqueue('untold', 'good') IS NOT NULL AS enqueued;
SELECT count(event_queue.complete(job_id, lease_token, '{"answer": 42}')) AS completed FROM event_queue.claim('told', 10, job_names => '{good}');
SELECT count(event_queue.fail(job_id, lease_token, 'no way')) AS failed FROM event_queue.claim('told', 10);
SELECT count(event_queue.complete(job_id, lease_token)) AS completed FROM event_queue.claim('untold');
SELECT * FROM job_told;
-- With the transaction, or not at all; many at once; dead again.
SELECT count(event_queue.enqueue('told', 'many')) FROM generate_series(1, 3);
BEGIN;
SELECT count(event_queue.complete(job_id, lease_token)) AS completed FROM event_queue.claim('told', 10);
ROLLBACK;
SELECT count(*) FROM job_told;
SELECT count(*) FROM (SELECT array_agg(job_id) AS ids, array_agg(lease_token) AS tokens FROM event_queue.claim('told', 10)) c, event_queue.complete_many(ids, tokens);
SELECT event_queue.retry_dead(:bad) IS NOT NULL AS retried;
SELECT count(event_queue.fail(job_id, lease_token, 'again')) AS failed FROM event_queue.claim('told', 10);
SELECT event_type, data -> 'name' AS name, version FROM job_told OFFSET 2;
-- A dependent that goes with a cancelled job; neither that one nor what is discarded is told.
SELECT event_queue.enqueue('told', 'first', delay => '1 hour') AS first \gset
SELECT event_queue.enqueue('told', 'second', depends_on => ARRAY[:first]) IS NOT NULL AS enqueued;
SELECT event_queue.cancel_job(:first);
SELECT event_queue.discard_all_dead('told') AS discarded;
SELECT event_type, data -> 'name' AS name, data -> 'reason' AS reason FROM job_told OFFSET 6;

-- Rules go on from it, with the aggregate that the job came of; and not in a circle.
CREATE FUNCTION told_work(job event_queue.claimed_job) RETURNS jsonb LANGUAGE sql AS $$ SELECT jsonb_build_object('done', job.name) $$;
SELECT event_queue.create_handler('told', '*', 'public.told_work') IS NOT NULL AS created;
SELECT event_queue.create_rule('told begin', 'told.lead', queue => 'told', job_name => 'one', payload => '{"lead": "$.aggregate_id"}') > 0 AS created;
SELECT event_queue.create_rule('told next', 'job.completed', $$event_data ->> 'queue' = 'told'$$,
	queue => 'told', job_name => 'two', payload => '{"of": "{{data.aggregate_type}} {{data.aggregate_id}}", "result": "$.data.result"}') > 0 AS created;
SELECT version FROM event_queue.append('told lead', 'J1', 'told.lead');
CALL wait_until($$(SELECT suppressed = 1 FROM event_queue.rule_stats WHERE rule = 'told next')$$);
SELECT event_type, data - 'aggregate_id' AS data, data ->> 'aggregate_id' = 'J1' AS of_the_lead, rule, chain FROM job_told OFFSET 7;
SELECT event_queue.drop_rule('told begin'), event_queue.drop_rule('told next'), event_queue.drop_handler('told', '*');

-- What does not fit is left out, and what is strange does no harm.
SELECT event_queue.enqueue('told', 'large', jsonb_build_object('a', repeat('x', 600000))) IS NOT NULL AS enqueued;
SELECT event_queue.enqueue('told', 'strange', options => '{"metadata": {"event_id": "x", "correlation_id": "y", "rule_chain": {"a": 1}, "event_position": 1e30, "rule": [1]}}') IS NOT NULL AS enqueued;
SELECT count(event_queue.complete(job_id, lease_token, jsonb_build_object('b', repeat('y', 600000)))) AS completed FROM event_queue.claim('told', 10);
SELECT data -> 'name' AS name, length(data::text) > 600000 AS large, data -> 'left_out' AS left_out, correlation FROM job_told OFFSET 9;
SELECT event_queue.alter_queue('told', job_events => false), event_queue.enqueue('told', 'silent') IS NOT NULL AS enqueued;
SELECT count(event_queue.complete(job_id, lease_token)) AS completed FROM event_queue.claim('told', 10);
SELECT event_queue.alter_queue('told', reset => '{job_events}');
SELECT count(*) FROM job_told;
-- Also where jobs need not be durable.
SELECT event_queue.create_queue('told weak', job_events => true, durable => false) IS NOT NULL AS created, event_queue.enqueue('told weak', 'a') IS NOT NULL AS enqueued;
SELECT count(event_queue.complete(job_id, lease_token)) AS completed FROM event_queue.claim('told weak');
SELECT data -> 'queue' AS queue FROM job_told OFFSET 11;
-- Not of internal queues; and nobody else holds its aggregates.
SELECT try($$SELECT event_queue.alter_queue('rule-calls', job_events => true)$$) AS internal, try($$SELECT event_queue.append('event_queue.job', '1', 'x')$$) AS reserved;
DROP VIEW job_told;
DROP FUNCTION told_work;
SELECT event_queue.drop_queue('told', true), event_queue.drop_queue('untold', true), event_queue.drop_queue('told weak', true);
