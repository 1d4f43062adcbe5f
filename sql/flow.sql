-- Jobs that depend on others: flows, results, batches; what becomes of those whose
-- dependency is cancelled.
SELECT last_value AS before FROM event_queue.job_job_id_seq \gset

-- Dependencies: a flow; the top sees the results of its children.
SELECT event_queue.create_queue('flow', keep_completed => '1 day') > 0 AS created;
SELECT event_queue.enqueue_flow('flow', '{"name": "report", "children": [{"name": "sales"}, {"name": "stock", "children": [{"name": "count"}]}]}') AS top \gset
SELECT name, state FROM event_queue.jobs WHERE queue = 'flow' ORDER BY name;
SELECT count(event_queue.complete(c.job_id, c.lease_token, jsonb_build_object('of', c.name))) FROM event_queue.claim('flow', 10) c;
CALL settled();
SELECT count(event_queue.complete(c.job_id, c.lease_token, jsonb_build_object('of', c.name))) FROM event_queue.claim('flow', 10) c;
CALL settled();
SELECT name, result, completed_at IS NOT NULL AS completed FROM event_queue.dependency_results(:top) ORDER BY name;
SELECT name FROM finish('flow');
CALL event_queue.await_job(:top, '0 s');
-- of one that is finished already, of one that is not there, of one that is cancelled
SELECT event_queue.enqueue('flow', 'late', depends_on => ARRAY[:top]) > 0 AS enqueued;
SELECT try($$SELECT event_queue.enqueue('flow', 'x', depends_on => '{999999999}')$$);
SELECT event_queue.enqueue('flow', 'first', delay => '1 hour') AS first \gset
SELECT event_queue.enqueue('flow', 'second', depends_on => ARRAY[:first]) AS second \gset
SELECT reason, detail LIKE 'job % (first): scheduled' AS named FROM event_queue.explain_job(:second);
SELECT event_queue.cancel_job(:first);
SELECT name, reason FROM event_queue.dead_letters WHERE queue = 'flow';
SELECT event_queue.retry_dead(:second, '{"alone": true}');
SELECT name FROM finish('flow', 10) ORDER BY 1;
-- a batch, and what runs after it
SELECT event_queue.enqueue_flow('flow', '{"name": "all done", "children": [{"name": "b1"}, {"name": "b2"}]}') > 0 AS enqueued;
SELECT name FROM finish('flow', 10) ORDER BY 1;
CALL settled();
SELECT name FROM finish('flow', 10);
SELECT event_queue.drop_queue('flow', force => true);

-- What is kept beside jobs goes with them.
SELECT event_queue_internal.maintain_history();
SELECT count(*) FROM event_queue.job_dependency WHERE job_id > :before;
