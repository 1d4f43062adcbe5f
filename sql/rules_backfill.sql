-- Backfills: a rule fires for events that are there, and for which it has not fired.
SELECT event_queue.create_queue('rb') IS NOT NULL AS created;
CREATE VIEW rb_met AS SELECT j.name, array_agg((e.event_data -> 'n')::int ORDER BY e.position) AS events, count(*), count(DISTINCT e.id) AS once FROM event_queue.job j
	JOIN event_queue.event_store e ON e.id = (j.metadata ->> 'event_id')::uuid WHERE queue_id = event_queue_internal.queue_id_of('rb') GROUP BY 1 ORDER BY 1;
CREATE VIEW rb_state AS SELECT rule, state, position = to_position AS at_end, seen, fired, fired_before, not_known, rate FROM event_queue.rule_backfills WHERE rule LIKE 'rb %' ORDER BY made_at;
SELECT count(event_queue.append('rb', 'A', 'rb.x', jsonb_build_object('n', n))) FROM generate_series(1, 10) n;
SELECT event_queue.create_rule('rb even', 'rb.*', $$(event_data ->> 'n')::int % 2 = 0$$, queue => 'rb', job_name => 'even') > 0 AS created;
SELECT count(event_queue.append('rb', 'A', 'rb.x', jsonb_build_object('n', n))) FROM generate_series(11, 14) n;
CALL wait_until($$(SELECT events = '{12,14}' FROM rb_met WHERE name = 'even')$$);
-- All of them; once. Again: none.
SELECT event_queue.backfill_rule('rb even') = (SELECT max(position) FROM event_queue.event_store) AS up_to_the_last;
CALL wait_until($$(SELECT bool_and(state = 'done') FROM rb_state)$$);
SELECT * FROM rb_met;
SELECT event_queue.backfill_rule('rb even') > 0 AS begun;
CALL wait_until($$(SELECT count(*) = 2 AND bool_and(state = 'done') FROM rb_state)$$);
SELECT * FROM rb_met;
-- Another definition: those that it has not met so are new.
SELECT event_queue.create_rule('rb even', 'rb.*', queue => 'rb', job_name => 'even', or_replace => true) > 0 AS replaced;
SELECT position AS fifth FROM event_queue.event_store WHERE aggregate_type = 'rb' AND version = 5 \gset
SELECT position AS ninth FROM event_queue.event_store WHERE aggregate_type = 'rb' AND version = 9 \gset
SELECT event_queue.backfill_rule('rb even', :fifth, :ninth) = :ninth AS begun;
CALL wait_until($$(SELECT count(*) = 3 AND bool_and(state = 'done') FROM rb_state)$$);
SELECT * FROM rb_met;
SELECT * FROM rb_state;
SELECT rule, seen, matched FROM event_queue.rule_stats WHERE rule = 'rb even';

-- Wrong ones.
SELECT a, try(format('SELECT event_queue.backfill_rule(%s)', a)) FROM unnest(ARRAY[$$'none'$$, 'NULL', $$'rb even', -1$$, $$'rb even', 5, 4$$, $$'rb even', 0, 4611686018427387904$$,
	$$'rb even', rate => 0$$, $$'rb even', rate => 'NaN'$$, $$'rb even', rate => 'infinity'$$]) a
WHERE try(format('SELECT event_queue.backfill_rule(%s)', a)) !~ '^EQ(009|025)';
-- While the rule is paused it stands; one at a time; cancelled.
SELECT event_queue.pause_rule('rb even');
SELECT event_queue.backfill_rule('rb even', rate => 0.0001) > 0 AS begun;
SELECT state, rate FROM rb_state WHERE rate IS NOT NULL;
SELECT try($$SELECT event_queue.backfill_rule('rb even')$$);
SELECT event_queue.resume_rule('rb even');
-- The first firing is free, the second is hours away.
CALL wait_until($$(SELECT fired = 1 FROM rb_state WHERE rate IS NOT NULL)$$);
SELECT version FROM event_queue.append('rb', 'A', 'rb.x', '{"n": 15}');
CALL wait_until($$(SELECT 15 = ANY (events) FROM rb_met)$$);
SELECT state, fired FROM rb_state WHERE rate IS NOT NULL;
SELECT event_queue.cancel_backfill('rb even'), event_queue.cancel_backfill('rb even') AS again;
SELECT try($$SELECT event_queue.cancel_backfill('none')$$);
SELECT state, fired FROM rb_state WHERE rate IS NOT NULL;
-- With a rate that is due soon it goes on by itself.
SELECT event_queue.backfill_rule('rb even', rate => 20) > 0 AS begun;
CALL wait_until($$(SELECT count(*) = 5 AND bool_and(state IN ('done', 'cancelled')) FROM rb_state)$$);
SELECT * FROM rb_met;

-- What a job is to try again is not backfilled, too; what it decides counts.
CREATE TABLE rb_broken ();
CREATE FUNCTION rb_holds() RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN RETURN 1 / (SELECT CASE WHEN count(*) > 0 THEN 0 ELSE 1 END FROM public.rb_broken) > 0; END $$;
SELECT event_queue.alter_queue('rule-calls', backoff_delay => '10 minutes');
SELECT event_queue.create_rule('rb late', 'rb.late', 'public.rb_holds()', queue => 'rb', job_name => 'late') > 0 AS created;
INSERT INTO rb_broken DEFAULT VALUES;
SELECT version FROM event_queue.append('rb', 'L', 'rb.late', '{"n": 1}');
CALL wait_until($$(SELECT failed = 2 FROM event_queue.rule_stats WHERE rule = 'rb late')$$);
SELECT version, fired, backfilled, kind, name, state FROM event_queue.rule_runs('rb late');
DELETE FROM rb_broken;
SELECT event_queue.backfill_rule('rb late') > 0 AS begun;
CALL wait_until($$(SELECT state = 'done' FROM rb_state WHERE rule = 'rb late')$$);
SELECT count(*) FROM rb_met WHERE name = 'late';
SELECT event_queue.retry_waiting('rule-calls');
CALL wait_until($$(SELECT count(*) = 1 FROM rb_met WHERE name = 'late')$$);
SELECT version, fired, backfilled, kind, name, state FROM event_queue.rule_runs('rb late');
SELECT event_queue.backfill_rule('rb late') > 0 AS begun;
CALL wait_until($$(SELECT count(*) = 2 AND bool_and(state = 'done') FROM rb_state WHERE rule = 'rb late')$$);
SELECT seen, fired, fired_before FROM rb_state WHERE rule = 'rb late';
SELECT * FROM rb_met WHERE name = 'late';

-- What is kept no longer is not known, and does not fire.
UPDATE event_queue_internal.rule_run SET at = now() - interval '1 year' WHERE rule_id = (SELECT rule_id FROM event_queue.rule WHERE name = 'rb late');
SELECT event_queue_internal.trim_rule_runs();
SELECT count(*) FROM event_queue.rule_runs('rb late');
SELECT event_queue.backfill_rule('rb late') > 0 AS begun;
CALL wait_until($$(SELECT count(*) = 3 AND bool_and(state = 'done') FROM rb_state WHERE rule = 'rb late')$$);
SELECT seen, fired, fired_before, not_known FROM rb_state WHERE rule = 'rb late';

-- An event that was to be tried again, and that the rule did not meet any more when it was: it has not fired for it.
SELECT event_queue.alter_queue('rule-calls', backoff_delay => '1 hour');
SELECT event_queue.create_rule('rb again', 'rb.again', $$1 / (event_data ->> 'n')::int > 0$$, queue => 'rb', job_name => 'again') > 0 AS created;
SELECT version > 0 AS appended FROM event_queue.append('rb', 'A', 'rb.again', '{"n": 0}');
CALL wait_until($$EXISTS (SELECT FROM event_queue.job WHERE metadata ->> 'rule' = 'rb again' AND failures = 1)$$);
SELECT fired, kind, name FROM event_queue.rule_runs('rb again');
SELECT event_queue.create_rule('rb again', 'rb.other', queue => 'rb', job_name => 'again', or_replace => true) > 0 AS replaced;
UPDATE event_queue.job SET run_at = now() WHERE metadata ->> 'rule' = 'rb again';
CALL wait_until($$NOT EXISTS (SELECT FROM event_queue.job WHERE metadata ->> 'rule' = 'rb again')$$);
SELECT count(*) FROM event_queue.rule_runs('rb again');
SELECT event_queue.create_rule('rb again', 'rb.again', queue => 'rb', job_name => 'again', or_replace => true) > 0 AS replaced;
SELECT event_queue.backfill_rule('rb again') > 0 AS begun;
CALL wait_until($$(SELECT bool_and(state = 'done') FROM rb_state WHERE rule = 'rb again')$$);
SELECT fired, fired_before FROM rb_state WHERE rule = 'rb again';
-- The same, if its dead letter was discarded; but not before
SELECT event_queue.create_rule('rb again', 'rb.again', $$1 / (event_data ->> 'n')::int > 0$$, queue => 'rb', job_name => 'again', or_replace => true) > 0 AS replaced;
SELECT count(event_queue.append('rb', 'A', 'rb.again', '{"n": 0}')) FROM generate_series(1, 2);
CALL wait_until($$(SELECT count(*) = 2 FROM event_queue.job WHERE metadata ->> 'rule' = 'rb again' AND failures = 1)$$);
SELECT event_queue.cancel_job(min(job_id)) FROM event_queue.job WHERE metadata ->> 'rule' = 'rb again';
UPDATE event_queue.job SET run_at = now(), failures = 100 WHERE metadata ->> 'rule' = 'rb again';
CALL wait_until($$(SELECT count(*) = 2 FROM event_queue.dead_letter WHERE metadata ->> 'rule' = 'rb again')$$);
SELECT event_queue.create_rule('rb again', 'rb.again', queue => 'rb', job_name => 'again', or_replace => true) > 0 AS replaced;
SELECT event_queue.backfill_rule('rb again') > 0 AS begun;
CALL wait_until($$(SELECT count(*) = 2 AND bool_and(state = 'done') FROM rb_state WHERE rule = 'rb again')$$);
SELECT count(event_queue.discard_dead(job_id)) FROM event_queue.dead_letters WHERE metadata ->> 'rule' = 'rb again';
SELECT event_queue.backfill_rule('rb again') > 0 AS begun;
CALL wait_until($$(SELECT count(*) = 3 AND bool_and(state = 'done') FROM rb_state WHERE rule = 'rb again')$$);
SELECT event_queue.backfill_rule('rb again') > 0 AS begun;
CALL wait_until($$(SELECT count(*) = 4 AND bool_and(state = 'done') FROM rb_state WHERE rule = 'rb again')$$);
SELECT fired, fired_before FROM rb_state WHERE rule = 'rb again';

-- Functions and events; of a tenant; dropped.
CREATE FUNCTION rb_call(event event_queue.event_store) RETURNS void LANGUAGE sql AS $$ SELECT $$;
SELECT event_queue.create_rule('rb call', 'rb.x', function => 'public.rb_call') > 0 AND event_queue.create_rule('rb tell', 'rb.x', actions => '[{"append": {"event_type": "rb.told", "aggregate_id": "told"}}]') > 0
	AND event_queue.create_rule('rb tenant', 'rb.x', queue => 'rb', job_name => 'tenant', tenant_id => 'rb') > 0 AS created;
SELECT count(event_queue.backfill_rule(name)) FROM event_queue.rules WHERE name IN ('rb call', 'rb tell', 'rb tenant');
CALL wait_until($$(SELECT count(*) = 3 AND bool_and(state = 'done') FROM rb_state WHERE rule IN ('rb call', 'rb tell', 'rb tenant'))$$);
SELECT rule, seen, fired FROM rb_state WHERE rule IN ('rb call', 'rb tell', 'rb tenant') ORDER BY 1;
SELECT count(*) FROM event_queue.event_store WHERE event_type = 'rb.told';
SELECT event_queue.backfill_rule('rb even', rate => 0.0001) > 0 AS begun;
SELECT action, object FROM event_queue.audit_log WHERE action ~ 'backfill' AND object = 'rb late';
SELECT event_queue.drop_rule(name) FROM event_queue.rules WHERE name LIKE 'rb %';
SELECT count(*) FROM rb_state WHERE state = 'running';
SELECT event_queue.alter_queue('rule-calls', reset => '{backoff_delay}');
DROP VIEW rb_state, rb_met;
DROP TABLE rb_broken;
DROP FUNCTION rb_holds(), rb_call(event_queue.event_store);
SELECT event_queue.drop_queue('rb', force => true);
