-- Where rules start, and what those that were off catch up.
SELECT event_queue.create_queue('starts') IS NOT NULL AS created;
CREATE VIEW started AS SELECT name, array_agg(e.event_data -> 'n' ORDER BY job_id) AS events FROM event_queue.job j
	JOIN event_queue.event_store e ON e.id = (j.metadata ->> 'event_id')::uuid WHERE queue_id = event_queue_internal.queue_id_of('starts') GROUP BY 1 ORDER BY 1;
SELECT count(event_queue.append('starts', 'A', 'starts.a', jsonb_build_object('n', n))) FROM generate_series(1, 3) n;
SELECT position AS second FROM event_queue.event_store WHERE aggregate_type = 'starts' AND version = 2 \gset
SELECT s, try(format($$SELECT event_queue.create_rule('starts bad', 'starts.*', queue => 'starts', job_name => 'x', start => %L)$$, s))
FROM unnest('{then,-1,1x,"",9223372036854775807,99999999999999999999}'::text[]) s WHERE try(format($$SELECT event_queue.create_rule('starts bad', 'starts.*', queue => 'starts', job_name => 'x', start => %L)$$, s)) NOT LIKE 'EQ054: start must be now, beginning, or an existing position%';
SELECT event_queue.create_rule('starts all', 'starts.*', queue => 'starts', job_name => 'all', start => 'beginning') > 0 AS created;
SELECT event_queue.create_rule('starts third', 'starts.*', queue => 'starts', job_name => 'third', start => :'second') > 0 AS created;
SELECT event_queue.create_rule('starts now', 'starts.*', queue => 'starts', job_name => 'now') > 0 AS created;
SELECT event_queue.create_rule('starts tenant', '**', queue => 'starts', job_name => 'tenant', start => 'beginning', tenant_id => 'starts other') > 0 AS created;
SELECT version FROM event_queue.append('starts', 'A', 'starts.a', '{"n": 4}');
CALL wait_until($$(SELECT sum(cardinality(events)) = 7 FROM started)$$);
SELECT * FROM started;
CALL wait_until($$NOT EXISTS (SELECT FROM event_queue_internal.rule_catch_up JOIN event_queue.rule USING (rule_id) WHERE name LIKE 'starts%')$$);
SELECT rule, state, matched FROM event_queue.rule_stats WHERE rule LIKE 'starts%' ORDER BY 1;
-- One that is there goes on where it stands.
SELECT event_queue.create_rule('starts now', 'starts.a', queue => 'starts', job_name => 'now', start => 'beginning', or_replace => true) > 0 AS replaced;
SELECT count(*) FROM event_queue_internal.rule_catch_up JOIN event_queue.rule USING (rule_id) WHERE name LIKE 'starts%';

-- Off: what it missed is caught up, or not.
SELECT event_queue.pause_rule('starts now'), event_queue.pause_rule('starts third');
SELECT version FROM event_queue.append('starts', 'A', 'starts.a', '{"n": 5}');
CALL wait_until($$(SELECT events @> '{5}' FROM started WHERE name = 'all')$$);
SELECT version FROM event_queue.append('starts', 'A', 'starts.a', '{"n": 6}');
CALL wait_until($$(SELECT events @> '{6}' FROM started WHERE name = 'all')$$);
SELECT rule, state FROM event_queue.rule_stats WHERE rule LIKE 'starts%' ORDER BY 1;
SELECT try($$SELECT event_queue.resume_rule('starts now', 'later')$$), try($$SELECT event_queue.resume_rule('starts now', NULL)$$), try($$SELECT event_queue.resume_rule('none', 'catch_up')$$);
SELECT event_queue.resume_rule('starts now', 'catch_up'), event_queue.resume_rule('starts third');
SELECT event_queue.resume_rule('starts now', 'catch_up') AS again;
SELECT version FROM event_queue.append('starts', 'A', 'starts.a', '{"n": 7}');
CALL wait_until($$(SELECT count(*) = 3 FROM started WHERE events @> '{7}')$$);
CALL wait_until($$NOT EXISTS (SELECT FROM event_queue_internal.rule_catch_up JOIN event_queue.rule USING (rule_id) WHERE name LIKE 'starts%')$$);
SELECT * FROM started;
-- Switched off and on in one transaction, nothing is missed or met twice.
BEGIN;
SELECT event_queue.pause_rule('starts all'), event_queue.resume_rule('starts all', 'catch_up');
SELECT version FROM event_queue.append('starts', 'A', 'starts.a', '{"n": 8}');
COMMIT;
CALL wait_until($$(SELECT count(*) = 3 FROM started WHERE events @> '{8}')$$);
SELECT * FROM started;
SELECT event_queue.drop_rule(name) FROM event_queue.rules WHERE name LIKE 'starts%';
DROP VIEW started;
SELECT event_queue.drop_queue('starts', force => true);
