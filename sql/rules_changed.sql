-- when_changed: a rule fires only if a field has another value than before.
SELECT event_queue.create_queue('changes') IS NOT NULL AS created;
SELECT event_queue.create_rule('ch queue', 'ch.**', when_changed => '{status,owner}', queue => 'changes', job_name => 'queue', payload => '{"n": "$.data.n"}') AS rule_id \gset
CREATE SCHEMA changes;
CREATE TABLE changes.seen (n int);
CREATE FUNCTION changes.see(event event_queue.event_store) RETURNS void LANGUAGE sql AS
	$$INSERT INTO changes.seen VALUES ((event.event_data ->> 'n')::int)$$;
SELECT event_queue.create_rule('ch function', 'ch.**', when_changed => '{status,owner}', function => 'changes.see') IS NOT NULL AS created;
SELECT event_queue.create_rule('ch both', 'ch.**', $$event_data ->> 'status' = 'won'$$, when_changed => '{status}', queue => 'changes', job_name => 'both', payload => '{"n": "$.data.n"}') IS NOT NULL AS created;
SELECT name, when_changed FROM event_queue.rules WHERE name LIKE 'ch %' ORDER BY 1;
SELECT version FROM event_queue.append('ch', 'C1', 'ch.a', '{"n": 1, "status": "new"}'); -- yes: none before
SELECT version FROM event_queue.append('ch', 'C1', 'ch.a', '{"n": 2, "status": "new"}'); -- no
SELECT version FROM event_queue.append('ch', 'C1', 'ch.a', '{"n": 3, "name": "Ann"}'); -- no: has none
SELECT version FROM event_queue.append('ch', 'C1', 'xx.a', '{"n": 4, "status": "won"}'); -- another pattern's, but before
SELECT version FROM event_queue.append('ch', 'C1', 'ch.a', '{"n": 5, "status": "won"}'); -- no
SELECT version FROM event_queue.append('ch', 'C1', 'ch.a', '{"n": 6, "status": "won", "owner": null}'); -- yes: owner was not there
SELECT version FROM event_queue.append('ch', 'C1', 'ch.a', '{"n": 7, "owner": null}'); -- no
SELECT version FROM event_queue.append('ch', 'C1', 'ch.a', '{"n": 8, "owner": {"id": 1, "tags": [1, 2]}}'); -- yes
SELECT version FROM event_queue.append('ch', 'C1', 'ch.a', '{"n": 9, "owner": {"tags": [1.0, 2], "id": 1}}'); -- no: equal as jsonb
BEGIN; -- two in one transaction
SELECT version FROM event_queue.append('ch', 'C1', 'ch.a', '{"n": 10, "status": "lost"}'); -- yes
SELECT version FROM event_queue.append('ch', 'C1', 'ch.a', '{"n": 11, "status": "lost"}'); -- no
COMMIT;
-- Others' are not before: of another aggregate, type or tenant.
SELECT version FROM event_queue.append('ch', 'C2', 'ch.a', '{"n": 12, "status": "lost"}');
SELECT version FROM event_queue.append('ch2', 'C1', 'ch.a', '{"n": 13, "status": "lost"}');
SELECT version FROM event_queue.append('ch', 'C1', 'ch.a', '{"n": 14, "status": "lost"}', tenant_id => 'changes acme');
SELECT version FROM event_queue.append('ch', 'C1', 'ch.a', '{"n": 15, "status": "won", "owner": {"id": 1, "tags": [1, 2]}}'); -- yes, for one of them
SELECT version FROM event_queue.append('ch', 'C3', 'ch.a', '[{"status": 1}]'); -- no object
SELECT version FROM event_queue.append('ch', 'C3', 'ch.a', '{"n": 16, "owner": {"status": 1}}'); -- top level only: for owner
CALL wait_until($$(SELECT seen >= 15 FROM event_queue.rule_stats WHERE rule = 'ch both') AND (SELECT count(*) = 9 FROM changes.seen)$$);
SELECT rule, seen, matched, failed FROM event_queue.rule_stats WHERE rule LIKE 'ch %' ORDER BY 1;
SELECT array_agg((payload ->> 'n')::int ORDER BY job_id) FILTER (WHERE name = 'queue') AS queue, array_agg((payload ->> 'n')::int ORDER BY job_id) FILTER (WHERE name = 'both') AS both
FROM event_queue.job WHERE queue_id = event_queue_internal.queue_id_of('changes');
SELECT array_agg(n ORDER BY n) AS function FROM changes.seen;

-- It says why, and is tried without a trace.
SELECT e.event_data ->> 'n' AS n, x.part, x.seen, x.compared, x.outcome FROM event_queue.event_store e, event_queue.explain_rule('ch queue', e.id) x
WHERE e.aggregate_type = 'ch' AND e.aggregate_id = 'C1' AND e.tenant_id = 'default' AND e.version IN (1, 2, 6, 9, 13) AND (x.step = 'when_changed' OR x.step = 'verdict') ORDER BY e.version, x.step DESC, x.part DESC;
SELECT x.step, x.part, x.seen, x.compared, x.outcome FROM event_queue.event_store e, event_queue.explain_rule('ch both', e.id) x
WHERE e.aggregate_type = 'ch' AND e.aggregate_id = 'C1' AND e.tenant_id = 'default' AND e.version = 12 AND x.step IN ('when_changed', 'condition', 'verdict');
SELECT count(*) FILTER (WHERE outcome = 'matched') AS matched, count(*) FROM event_queue.test_rule('ch queue');
-- Values are for who has the rights of the rule's owner.
CREATE ROLE eq_changes;
SELECT event_queue.grant_admin('eq_changes');
SET ROLE eq_changes;
SELECT x.part, x.seen, x.compared, x.outcome FROM event_queue.event_store e, event_queue.explain_rule('ch queue', e.id) x
WHERE e.aggregate_type = 'ch' AND e.aggregate_id = 'C1' AND e.tenant_id = 'default' AND e.version = 6 AND x.step = 'when_changed';
RESET ROLE;


-- Replaced, and refused.
SELECT event_queue.create_rule('ch queue', 'ch.**', queue => 'changes', job_name => 'queue', payload => '{"n": "$.data.n"}', or_replace => true) = :rule_id AS same;
SELECT when_changed FROM event_queue.rules WHERE name = 'ch queue';
SELECT event_queue.create_rule('ch queue', 'ch.**', queue => 'changes', job_name => 'queue', payload => '{"n": "$.data.n"}', when_changed => '{x}', if_not_exists => true) = :rule_id AS same;
SELECT event_queue.create_rule('ch queue', 'ch.**', queue => 'changes', job_name => 'queue', payload => '{"n": "$.data.n"}', when_changed => '{status.x}', or_replace => true) = :rule_id AS same;
SELECT fields, try(format($$SELECT event_queue.create_rule('ch bad', 'ch.**', queue => 'changes', job_name => 'x', when_changed => %L)$$, fields)) AS refused
FROM unnest(ARRAY['{}', '{NULL}', '{a,""}', '{{a},{b}}']) fields;
SELECT try(format($$SELECT event_queue.create_rule('ch bad', 'ch.**', queue => 'changes', job_name => 'x', when_changed => %L)$$, array_fill('a'::text, ARRAY[33])));
SELECT event_queue.drop_rule('ch queue'), event_queue.drop_rule('ch function'), event_queue.drop_rule('ch both');
