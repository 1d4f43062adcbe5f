-- What followed of the firings of a rule, and why it fired.
SELECT event_queue.create_queue('rr', keep_completed => '1 hour') IS NOT NULL AND event_queue.create_queue('rr bare') IS NOT NULL AS created;
CREATE FUNCTION rr_do(job event_queue.claimed_job) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	IF job.payload ->> 'n' = '2' THEN
		RAISE EXCEPTION 'two is none';
	END IF;
	PERFORM event_queue.append('rr', 'did', 'rr.did');
END $$;
SELECT event_queue.create_handler('rr', 'do', 'public.rr_do') > 0 AS created;
SELECT event_queue.create_rule('rr', 'rr.x', $$(event_data ->> 'n')::int < 3 AND event_data ->> 'who' = 'me'$$, queue => 'rr', job_name => 'do', payload => '{"n": "$.data.n"}', options => '{"max_attempts": 1}') > 0 AS created;
SELECT count(event_queue.append('rr', 'A', 'rr.x', jsonb_build_object('n', n, 'who', 'me'))) FROM generate_series(1, 3) n;
CALL wait_until($$(SELECT count(*) = 1 FROM event_queue.dead_letter WHERE name = 'do') AND EXISTS (SELECT FROM event_queue.event_store WHERE event_type = 'rr.did')$$);
SELECT event_queue.create_rule('rr', 'rr.x', actions => '[{"append": {"event_type": "rr.told", "aggregate_id": "told"}}, {"enqueue": {"queue": "rr bare", "name": "bare"}}]', or_replace => true) > 0 AS replaced;
SELECT version FROM event_queue.append('rr', 'A', 'rr.x', '{"n": 4}');
CALL wait_until($$EXISTS (SELECT FROM event_queue.event_store WHERE event_type = 'rr.told')$$);
SELECT e.event_data ->> 'n' AS n, r.version, r.fired, r.backfilled, r.kind, r.name, r.state, left(r.last_error, 30) AS error, r.fired_at IS NOT NULL AS at, r.id IS NOT NULL AS id
FROM event_queue.rule_runs('rr') r JOIN event_queue.event_store e ON e.id = r.event_id;
SELECT count(*) FROM event_queue.rule_runs('rr', 1);
SELECT try($$SELECT event_queue.rule_runs('none')$$), try($$SELECT event_queue.rule_runs('rr', 0)$$);
-- Why it fired, as it was then; by the version, also when it was replaced, or dropped.
SELECT t.kind, t.name, t.detail - '{at,position,actor}'::text[] AS detail FROM event_queue.event_store e, event_queue.trace(e.id) t WHERE e.aggregate_type = 'rr' AND e.aggregate_id = 'A' AND e.version IN (1, 4) AND t.kind = 'rule' ORDER BY e.version;
SELECT event_queue.drop_rule('rr');
SELECT jsonb_pretty(event_queue.rule_facts('rr', 1, e.id)) FROM event_queue.event_store e WHERE e.aggregate_type = 'rr' AND e.aggregate_id = 'A' AND e.version = 3;
SELECT event_queue.rule_facts('rr', 9, e.id) IS NULL AND event_queue.rule_facts('none', 1, e.id) IS NULL AND event_queue.rule_facts('rr', 1, gen_random_uuid()) IS NULL AS nothing FROM event_queue.event_store e WHERE e.aggregate_type = 'rr' AND e.aggregate_id = 'A' AND e.version = 3;
-- A rule that cancels writes no line of the audit log for each.
SELECT event_queue.create_rule('rr cancel', 'rr.c', actions => '[{"cancel": {"queue": "rr bare", "unique_key": "k"}}]') > 0 AS created;
SELECT event_queue.enqueue('rr bare', 'timer', unique_key => 'k', delay => '1 day') > 0 AS enqueued;
SELECT version FROM event_queue.append('rr', 'C', 'rr.c');
CALL wait_until($$NOT EXISTS (SELECT FROM event_queue.job WHERE unique_key = 'k')$$);
SELECT count(*) FROM event_queue.audit_log WHERE action IN ('cancel_job', 'cancel_jobs') AND object IN ('rr bare', 'timer');
SELECT fired, kind FROM event_queue.rule_runs('rr cancel');
SELECT event_queue.drop_rule('rr cancel'), event_queue.drop_handler('rr', 'do');
SELECT event_queue.drop_queue('rr', force => true), event_queue.drop_queue('rr bare', force => true);
DROP FUNCTION rr_do(event_queue.claimed_job);
