-- A fair queue: one tenant's thousand jobs do not keep another's waiting.
SELECT event_queue.create_queue('fair', fair => true) > 0 AS created;
SELECT cardinality(event_queue.enqueue_many('fair', to_jsonb(ARRAY(SELECT '{}'::jsonb FROM generate_series(1, 1000))), tenant_id => 'busy', options => '{"name": "f"}')) AS enqueued;
SELECT event_queue.enqueue('fair', 'f', tenant_id => 'small') > 0 AS enqueued;
CREATE TEMP TABLE first_claims AS SELECT tenant_id FROM event_queue.claim('fair');
INSERT INTO first_claims SELECT tenant_id FROM event_queue.claim('fair');
SELECT tenant_id, count(*) FROM first_claims GROUP BY 1 ORDER BY 1;
SELECT tenant_id, count(*) FROM event_queue.claim('fair', 100) GROUP BY 1;
DELETE FROM event_queue.job WHERE queue_id = event_queue_internal.queue_id_of('fair');
-- Jobs that are not due are all in one lane, so that claims need not visit those who
-- wait; when they come due, tenants take turns.
SELECT cardinality(event_queue.enqueue_many('fair', to_jsonb(ARRAY(SELECT '{}'::jsonb FROM generate_series(1, 1500))), tenant_id => 'busy', options => '{"name": "f", "delay": "1 s"}')) AS enqueued;
SELECT event_queue.enqueue('fair', 'f', delay => '1.01 s', tenant_id => 'small') > 0 AS enqueued;
SELECT count(DISTINCT lane) AS lanes, count(*) FROM event_queue.job WHERE queue_id = event_queue_internal.queue_id_of('fair');
CALL wait_until($$(SELECT count(DISTINCT lane) = 2 AND min(lane) > 0 FROM event_queue.job WHERE queue_id = event_queue_internal.queue_id_of('fair'))$$);
TRUNCATE first_claims;
INSERT INTO first_claims SELECT tenant_id FROM event_queue.claim('fair');
INSERT INTO first_claims SELECT tenant_id FROM event_queue.claim('fair');
SELECT tenant_id, count(*) FROM first_claims GROUP BY 1 ORDER BY 1;
SELECT event_queue.drop_queue('fair', force => true);
DROP TABLE first_claims;
