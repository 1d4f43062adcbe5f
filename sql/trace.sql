-- Lineage: who and why; event -> rule -> job -> event, followed both ways.
SELECT version FROM event_queue.append('t', '1', 'a', metadata => '{"k": 1}');
SET event_queue.actor = 'ana@acme';
SELECT version FROM event_queue.append('t', '1', 'b');
SELECT version FROM event_queue.append('t', '1', 'c', metadata => '{"actor": "bia"}');
SET event_queue.causation_id = '00000000-0000-4000-8000-00000000cafe';
SET event_queue.correlation_id = 'request 7';
SELECT version FROM event_queue.append('t', '1', 'd');
RESET event_queue.correlation_id;
SELECT version FROM event_queue.append('t', '1', 'e', metadata => '{"causation_id": "mine"}');
RESET event_queue.causation_id;
RESET event_queue.actor;
SELECT event_type, metadata FROM event_queue.read_aggregate('t', '1');

SELECT event_queue.create_queue('traced', keep_completed => '1 hour') > 0 AS created;
SELECT event_queue.create_queue('untraced') > 0 AS created;
CREATE FUNCTION make_task(job event_queue.claimed_job) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	PERFORM event_queue.append('task', job.payload ->> 'lead', 'task.created');
	PERFORM event_queue.enqueue('untraced', 'tell', jsonb_build_object('lead', job.payload ->> 'lead'));
END $$;
CREATE FUNCTION tell(job event_queue.claimed_job) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	PERFORM event_queue.append('message', job.payload ->> 'lead', 'message.sent');
END $$;
SELECT event_queue.create_handler('traced', 'make', 'public.make_task') IS NOT NULL,
	event_queue.create_handler('untraced', 'tell', 'public.tell') IS NOT NULL;
SELECT event_queue.create_rule('make tasks', 'tlead.created', queue => 'traced', job_name => 'make', payload => '{"lead": "$.aggregate_id"}') IS NOT NULL;
SELECT id FROM event_queue.append('tlead', 'L1', 'tlead.created') \gset
CALL wait_until($$EXISTS (SELECT FROM event_queue.event_store WHERE event_type = 'message.sent')$$);
CREATE FUNCTION chain(of uuid) RETURNS TABLE (depth int, kind text, name text, by text, state text) LANGUAGE sql AS $$
	SELECT depth, kind, name, regexp_replace(caused_by, '(event|job) .*', '\1'), detail ->> 'state' FROM event_queue.trace(of) $$;
SELECT * FROM chain(:'id');
SELECT * FROM chain((SELECT id FROM event_queue.event_store WHERE event_type = 'message.sent'));
-- One correlation id for the whole chain: the first event's id.
SELECT event_type, metadata ->> 'correlation_id' = :'id' AS same_chain, metadata ->> 'rule' AS rule, metadata ? 'job_id' AS job,
	metadata ->> 'actor' AS actor
FROM event_queue.event_store WHERE event_type IN ('tlead.created', 'task.created', 'message.sent') ORDER BY position;
SELECT try($$SELECT event_queue.trace('00000000-0000-4000-8000-000000000bad')$$);
SET enable_seqscan = off;
SET enable_bitmapscan = off;
EXPLAIN (COSTS OFF) SELECT FROM event_queue.event_store WHERE metadata ? 'causation_id' AND metadata ->> 'causation_id' = 'x';
RESET enable_seqscan;
RESET enable_bitmapscan;

-- Metadata is the caller's: what is no id leads nowhere, and breaks nothing.
SELECT id AS odd_id FROM event_queue.append('a', 'odd', 'x', '{}',
	metadata => '{"job_id": "abc", "parent_job": {}, "causation_id": 5, "rule": 7, "event_id": []}') \gset
SELECT depth, kind, name FROM event_queue.trace(:'odd_id');
