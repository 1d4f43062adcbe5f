-- No rule runs in a loop: which rules led to an event is known, whatever lies between.
CREATE SCHEMA loops;
SELECT event_queue.create_queue('loops', backoff_delay => '10 ms') IS NOT NULL AS created;
SELECT event_queue.alter_queue('rule-calls', backoff_delay => '10 minutes');
-- Appends what the payload says; by way of a job of its own; with the metadata of the job's event.
CREATE FUNCTION loops.say(job event_queue.claimed_job) RETURNS void LANGUAGE plpgsql SET search_path = event_queue, pg_temp AS $$
BEGIN
	IF job.payload ? 'by_job' THEN
		PERFORM enqueue('loops', 'say', job.payload - 'by_job');
	ELSE
		PERFORM append('loop', job.payload ->> 'id', job.payload ->> 'say', metadata =>
			(SELECT e.metadata - 'actor' FROM event_store e WHERE job.payload ? 'copy' AND e.id = (job.metadata ->> 'event_id')::uuid));
	END IF;
END $$;
SELECT event_queue.create_handler('loops', 'say', 'loops.say') IS NOT NULL AS created;
CREATE VIEW loops.stats AS SELECT rule, matched, suppressed, too_deep, last_suppressed_at IS NOT NULL AS at, last_too_deep_at IS NOT NULL AS deep_at
	FROM event_queue.rule_stats WHERE rule LIKE 'loop %' ORDER BY rule;
CREATE VIEW loops.said AS SELECT event_type, e.metadata -> 'rule_chain' IS NOT NULL AS by_rules,
		(SELECT array_agg(coalesce(r.name, '?') ORDER BY n) FROM jsonb_array_elements_text(e.metadata -> 'rule_chain') WITH ORDINALITY c (id, n)
		 LEFT JOIN event_queue.rule r ON r.rule_id = c.id::int) AS chain
	FROM event_queue.event_store e WHERE aggregate_type = 'loop' ORDER BY position;

-- Its own event; one that another rule made of it, by a job of a job; a handler that copies metadata.
SELECT event_queue.create_rule('loop self', 'self', queue => 'loops', job_name => 'say', payload => '{"say": "self", "id": "self", "copy": 1}') > 0 AS created;
SELECT event_queue.create_rule('loop ping', 'ping', queue => 'loops', job_name => 'say', payload => '{"say": "pong", "id": "$.aggregate_id", "by_job": true}') > 0 AS created;
SELECT event_queue.create_rule('loop pong', 'pong', queue => 'loops', job_name => 'say', payload => '{"say": "ping", "id": "$.aggregate_id", "copy": 1}') > 0 AS created;
SELECT version FROM event_queue.append('loop', 'self', 'self');
CALL wait_until($$(SELECT suppressed FROM event_queue.rule_stats WHERE rule = 'loop self') = 1$$);
SELECT version FROM event_queue.append('loop', 'p', 'ping');
CALL wait_until($$(SELECT suppressed FROM event_queue.rule_stats WHERE rule = 'loop ping') = 1$$);
SELECT * FROM loops.stats;
SELECT * FROM loops.said;
SELECT check_name, ok, detail FROM event_queue.health() WHERE check_name LIKE 'loop%' OR check_name LIKE 'rule loop%';

-- A function, and one whose event comes from a worker outside.
CREATE FUNCTION loops.call(event event_queue.event_store) RETURNS void LANGUAGE sql AS $$ SELECT event_queue.append('loop', 'c', 'call') $$;
SELECT event_queue.create_rule('loop call', 'call', function => 'loops.call') > 0 AS created;
SELECT version FROM event_queue.append('loop', 'c', 'call');
CALL wait_until($$(SELECT suppressed FROM event_queue.rule_stats WHERE rule = 'loop call') = 1$$);
SELECT event_queue.create_rule('loop outside', 'outside', queue => 'loops', job_name => 'outside') > 0 AS created;
SELECT version FROM event_queue.append('loop', 'o', 'outside');
CALL wait_until($$EXISTS (SELECT FROM event_queue.job WHERE name = 'outside')$$);
SELECT metadata ->> 'rule_chain' AS chain FROM event_queue.job WHERE name = 'outside' \gset
SET event_queue.rule_chain = :'chain';
SELECT version FROM event_queue.append('loop', 'o', 'outside');
SELECT event_queue.enqueue('loops', 'none', delay => '1 day') > 0 AS enqueued;
RESET event_queue.rule_chain;
SELECT metadata -> 'rule_chain' = :'chain'::jsonb AS same FROM event_queue.job WHERE name = 'none';
CALL wait_until($$(SELECT suppressed FROM event_queue.rule_stats WHERE rule = 'loop outside') = 1$$);
SELECT * FROM loops.stats WHERE rule IN ('loop call', 'loop outside');

-- One whose condition failed at first: the job that tries again does not let it fire either.  Only firings are
-- counted: an event for which the condition does not hold is not.
CREATE TABLE loops.broken ();
CREATE FUNCTION loops.holds(data jsonb) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
	RETURN (data ->> 'n')::int / (SELECT CASE WHEN count(*) > 0 THEN 0 ELSE 1 END FROM loops.broken) > 0;
END $$;
SELECT event_queue.create_rule('loop late', 'late', 'loops.holds(event_data)', queue => 'loops', job_name => 'late') AS late \gset
INSERT INTO loops.broken DEFAULT VALUES;
SELECT version FROM event_queue.append('loop', 'l', 'late', '{"n": 0}', metadata => jsonb_build_object('rule_chain', jsonb_build_array(:late)));
SELECT version FROM event_queue.append('loop', 'l', 'late', '{"n": 1}', metadata => jsonb_build_object('rule_chain', jsonb_build_array(:late)));
CALL wait_until($$(SELECT failed FROM event_queue.rule_stats WHERE rule = 'loop late') = 4$$);
DELETE FROM loops.broken;
SELECT event_queue.retry_waiting('rule-calls');
CALL wait_until($$(SELECT suppressed FROM event_queue.rule_stats WHERE rule = 'loop late') = 1
	AND NOT EXISTS (SELECT FROM event_queue.jobs WHERE queue = 'rule-calls')$$);
SELECT * FROM loops.stats WHERE rule = 'loop late';
SELECT count(*) FROM event_queue.job WHERE name = 'late';

-- One that may fire again does, until the chain is too long; that is told.
SELECT event_queue.create_rule('loop self', 'self', queue => 'loops', job_name => 'say', payload => '{"say": "self", "id": "again"}',
	on_loop => 'allow', or_replace => true) > 0 AS created;
SELECT name, on_loop FROM event_queue.rules WHERE name IN ('loop self', 'loop ping') ORDER BY 1;
SELECT version FROM event_queue.append('loop', 'again', 'self');
CALL wait_until($$(SELECT too_deep FROM event_queue.rule_stats WHERE rule = 'loop self') = 1$$);
SELECT * FROM loops.stats WHERE rule = 'loop self';
SELECT count(*), max(jsonb_array_length(metadata -> 'rule_chain')) FROM event_queue.event_store WHERE aggregate_id = 'again';
SELECT check_name, ok, regexp_replace(detail, 'last at .*: ', 'last at ...: ') AS detail FROM event_queue.health() WHERE check_name LIKE 'rule loop%';

-- One that makes two of each is stopped by the number of actions, too.
SELECT event_queue.create_rule('loop wide', 'wide', actions => '[{"append": {"event_type": "wide", "aggregate_type": "loop", "aggregate_id": "wide a"}}, {"append": {"event_type": "wide", "aggregate_type": "loop", "aggregate_id": "wide b"}}]', on_loop => 'allow') > 0 AS created;
ALTER SYSTEM SET event_queue.rule_fan_out = 20;
SELECT pg_reload_conf();
SELECT pg_sleep(2);
SELECT version FROM event_queue.append('loop', 'wide', 'wide');
-- 2 for the event itself, 20 for what it led to; none of these lets it fire, but for the first ten
CALL wait_until($$(SELECT (matched, too_deep) = (11, 12) FROM event_queue.rule_stats WHERE rule = 'loop wide')$$);
SELECT matched, suppressed, too_deep FROM event_queue.rule_stats WHERE rule = 'loop wide';
SELECT version FROM event_queue.append('loop', 'wide', 'wide');
CALL wait_until($$(SELECT (matched, too_deep) = (22, 24) FROM event_queue.rule_stats WHERE rule = 'loop wide')$$);
-- Nobody uses up what another tenant's event may lead to.
SELECT id AS root FROM event_queue.append('loop', 'root', 'nothing', tenant_id => 'loop a') \gset
SELECT count(event_queue.append('loop', 'forged', 'wide', metadata => jsonb_build_object('rule_chain', '[0]'::jsonb, 'rule_root', :'root'), tenant_id => 'loop b')) FROM generate_series(1, 15);
CALL wait_until($$(SELECT (matched, too_deep) = (32, 49) FROM event_queue.rule_stats WHERE rule = 'loop wide')$$);
SELECT matched, too_deep FROM event_queue.rule_stats WHERE rule = 'loop wide';
SELECT version FROM event_queue.append('loop', 'mine', 'wide', metadata => jsonb_build_object('rule_chain', '[0]'::jsonb, 'rule_root', :'root'), tenant_id => 'loop a');
CALL wait_until($$(SELECT matched > 32 FROM event_queue.rule_stats WHERE rule = 'loop wide')$$);
ALTER SYSTEM RESET event_queue.rule_fan_out;
SELECT pg_reload_conf();
SELECT event_queue.drop_rule('loop wide');

-- What is no chain stops nothing and breaks nothing.
SELECT count(event_queue.append('loop', 'odd', 'odd', metadata => jsonb_build_object('rule_chain', c)))
FROM jsonb_array_elements('[null, 1, "x", {"a": [1]}, [], [null, "1", {}, 1.5, 1e40, [1]]]') c;
SELECT event_queue.create_rule('loop odd', 'odd', queue => 'loops', job_name => 'odd') > 0 AS created;
SELECT count(event_queue.append('loop', 'odd', 'odd', metadata => jsonb_build_object('rule_chain', c)))
FROM jsonb_array_elements('[null, 1, "x", {"a": [1]}, [], [null, "1", {}, 1.5, 1e40, [1]]]') c;
CALL wait_until($$(SELECT matched FROM event_queue.rule_stats WHERE rule = 'loop odd') = 6$$);
SELECT try($$SELECT event_queue.create_rule('loop odd', 'odd', queue => 'loops', job_name => 'odd', on_loop => 'twice')$$);
SELECT left(c, 40), left(try(format('SET LOCAL event_queue.rule_chain = %L', c)), 100) FROM unnest(ARRAY['[]', '[1, 2,3]', '', '[1', '[1,]', '[,1]', '[-1]', '[a]', '[01]', '[1] ', '{}',
	'[12345678901]', (SELECT format('[%s]', string_agg('1', ',')) FROM generate_series(1, 101))]) c;

SELECT event_queue.drop_rule(name) FROM event_queue.rules WHERE name LIKE 'loop %';
SELECT event_queue.drop_handler('loops', 'say');
SELECT event_queue.alter_queue('rule-calls', reset => '{backoff_delay}');
SELECT event_queue.drop_queue('loops', force => true);
DROP SCHEMA loops CASCADE;
