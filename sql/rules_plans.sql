-- Which rules meet an event; and how long plans of conditions and templates are kept.
SELECT event_queue.create_queue('ix') IS NOT NULL AS created;
SELECT count(event_queue.create_rule('ix ' || n, p, queue => 'ix', job_name => p)) AS rules
FROM unnest('{ix.a.b,**.b,ix.*,ix.a,ix.a.*,ix,ix.**,*.a.b,ix.a.b.c,ix.a.**.b,**,ix.ab,i,ix.a.bb,ix.*.b}'::text[]) WITH ORDINALITY x (p, n);
SELECT event_queue.append('ix', 'I1', t) IS NOT NULL AS appended
FROM unnest('{ix.a.b,ix,ix.a,ix.ab,ix.a.b.c,ix.b.b,i.a.b,ix..b}'::text[]) t;
CALL wait_until($$(SELECT count(*) >= 33 FROM event_queue.job WHERE queue_id = event_queue_internal.queue_id_of('ix'))$$);
SELECT e.event_type, array_agg(j.name ORDER BY j.name COLLATE "C") AS fired,
	array_agg(j.name ORDER BY j.name) = (SELECT array_agg(r.event_pattern ORDER BY r.event_pattern) FROM event_queue.rule r
		WHERE r.name LIKE 'ix %' AND event_queue.event_matches(e.event_type, r.event_pattern)) AS as_matched
FROM event_queue.job j JOIN event_queue.event_store e ON e.id = (j.metadata ->> 'event_id')::uuid
WHERE j.queue_id = event_queue_internal.queue_id_of('ix') GROUP BY e.position, e.event_type ORDER BY e.position;
SELECT count(event_queue.drop_rule(name)) AS dropped FROM event_queue.rules WHERE name LIKE 'ix %';
SELECT event_queue.purge_queue('ix') > 0 AS purged;

-- Plans of conditions and templates are kept, but not longer than what they call.
CREATE SCHEMA ix;
CREATE FUNCTION ix.bound() RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT 2';
SELECT event_queue.create_rule('ix plan', 'ix.plan', $$(event_data ->> 'n')::int >= ix.bound()$$, queue => 'ix', job_name => 'plan', payload => '{"n": "$.data.n", "text": "{{data.n}}"}') IS NOT NULL AS created;
SELECT version FROM event_queue.append('ix', 'I2', 'ix.plan', '{"n": 1}');
SELECT version FROM event_queue.append('ix', 'I2', 'ix.plan', '{"n": 2}'); -- fires
CALL wait_until($$(SELECT count(*) = 1 FROM event_queue.job WHERE queue_id = event_queue_internal.queue_id_of('ix'))$$);
CREATE OR REPLACE FUNCTION ix.bound() RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT 4';
SELECT version FROM event_queue.append('ix', 'I2', 'ix.plan', '{"n": 3}');
SELECT version FROM event_queue.append('ix', 'I2', 'ix.plan', '{"n": 4}'); -- fires
CALL wait_until($$(SELECT count(*) = 2 FROM event_queue.job WHERE queue_id = event_queue_internal.queue_id_of('ix'))$$);
DROP FUNCTION ix.bound();
CREATE FUNCTION ix.bound() RETURNS int LANGUAGE plpgsql AS 'BEGIN RETURN 6; END';
SELECT version FROM event_queue.append('ix', 'I2', 'ix.plan', '{"n": 5}');
SELECT version FROM event_queue.append('ix', 'I2', 'ix.plan', '{"n": 6}'); -- fires
CALL wait_until($$(SELECT count(*) = 3 FROM event_queue.job WHERE queue_id = event_queue_internal.queue_id_of('ix'))$$);
-- A replaced rule does as it is now.
SELECT event_queue.create_rule('ix plan', 'ix.plan', $$(event_data ->> 'n')::int = 7$$, queue => 'ix', job_name => 'plan', payload => '{"new": "$.data.n"}', or_replace => true) IS NOT NULL AS replaced;
SELECT version FROM event_queue.append('ix', 'I2', 'ix.plan', '{"n": 8}');
SELECT version FROM event_queue.append('ix', 'I2', 'ix.plan', '{"n": 7}'); -- fires
CALL wait_until($$(SELECT count(*) = 4 FROM event_queue.job WHERE queue_id = event_queue_internal.queue_id_of('ix'))$$);
SELECT payload FROM event_queue.job WHERE queue_id = event_queue_internal.queue_id_of('ix') ORDER BY job_id;
SELECT seen, matched, failed FROM event_queue.rule_stats WHERE rule = 'ix plan';
SELECT event_queue.drop_rule('ix plan');
DROP FUNCTION ix.bound();
-- Which rules a type is for is kept for the types that come, and anew for more of them than are kept, and when a rule comes.
SELECT count(event_queue.create_rule('ix types ' || n, pattern, queue => 'ix', job_name => 'types ' || n, rule_order => -n::int))
FROM unnest('{ix.many.*,ix.**,ix.many.7,iy.**,ix.*.7.more}'::text[]) WITH ORDINALITY x (pattern, n);
SELECT count(event_queue.append('ix', 'I3', 'ix.many.' || n % 1300)) FROM generate_series(0, 2608) n;
CALL wait_until($$(SELECT position FROM event_queue_internal.rule_checkpoint) >= (SELECT max(position) FROM event_queue.event_store)$$);
SELECT event_queue.create_rule('ix types 6', 'ix.many.7', queue => 'ix', job_name => 'types 6', rule_order => -6) > 0 AS created;
SELECT event_queue.drop_rule('ix types 2');
SELECT count(event_queue.append('ix', 'I3', 'ix.many.' || n)) FROM generate_series(6, 8) n;
CALL wait_until($$(SELECT position FROM event_queue_internal.rule_checkpoint) >= (SELECT max(position) FROM event_queue.event_store)$$);
SELECT name, count(*), count(DISTINCT metadata ->> 'event_position') AS events FROM event_queue.job WHERE name LIKE 'types %' GROUP BY 1 ORDER BY 1;
-- in their order
SELECT string_agg(name, ', ' ORDER BY job_id) FROM event_queue.job WHERE name LIKE 'types %' AND payload ->> 'event_type' = 'ix.many.7' GROUP BY metadata ->> 'event_position' ORDER BY min(job_id);
SELECT count(event_queue.drop_rule(name)) FROM event_queue.rules WHERE name LIKE 'ix types %';
DROP SCHEMA ix;
SELECT event_queue.purge_queue('ix') > 0 AS purged;
