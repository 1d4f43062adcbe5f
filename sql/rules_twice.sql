-- A deployment that runs twice leaves what it left the first time; what exists
-- with another definition is named, replaced or refused, as was asked for.
\set VERBOSITY terse
SET client_min_messages = warning;
CREATE ROLE deployed_app;
CREATE ROLE deployed_worker;
CREATE ROLE deployed_admin;
BEGIN;
-- All that create and grant functions write: rows, triggers, indexes, rights.
CREATE TEMPORARY VIEW deployed AS
	SELECT 'queue' AS what, to_jsonb(q) AS it FROM event_queue.queue q
	UNION ALL SELECT 'rule', to_jsonb(r) FROM event_queue.rule r
	UNION ALL SELECT 'handler', to_jsonb(h) FROM event_queue.handler h
	UNION ALL SELECT 'reducer', to_jsonb(r) FROM event_queue.reducer r
	UNION ALL SELECT 'schedule', to_jsonb(s) FROM event_queue.schedule s
	UNION ALL SELECT 'subscription', to_jsonb(s) FROM event_queue.subscription s
	UNION ALL SELECT 'bucket', to_jsonb(b) FROM event_queue_internal.subscription_bucket b
	UNION ALL SELECT 'channel', to_jsonb(c) FROM event_queue_internal.channel c
	UNION ALL SELECT 'partition', to_jsonb(p) FROM event_queue_internal.event_partition p
	UNION ALL SELECT 'policy', to_jsonb(p) FROM event_queue_internal.partition_policy p
	UNION ALL SELECT 'bound role', to_jsonb(t) FROM event_queue_internal.tenant_role t
	UNION ALL SELECT 'trigger', to_jsonb(pg_get_triggerdef(t.oid)) FROM pg_trigger t WHERE NOT t.tgisinternal
	UNION ALL SELECT 'relation', jsonb_build_array(c.relname, c.relacl) FROM pg_class c
		WHERE c.relnamespace IN ('event_queue'::regnamespace, 'public'::regnamespace)
	UNION ALL SELECT 'function', jsonb_build_array(p.oid::regprocedure, p.proacl) FROM pg_proc p
		WHERE p.pronamespace IN ('event_queue'::regnamespace, 'public'::regnamespace);
\set ON_ERROR_STOP 1
\o /dev/null
\i test/deploy.sql
\o
CREATE TEMPORARY TABLE once AS SELECT * FROM deployed;
SET client_min_messages = notice;
\o /dev/null
\i test/deploy.sql
\o
CREATE TEMPORARY TABLE twice AS SELECT * FROM deployed;
(SELECT 'gone', * FROM once EXCEPT ALL SELECT 'gone', * FROM twice) UNION ALL
(SELECT 'new', * FROM twice EXCEPT ALL SELECT 'new', * FROM once);
SELECT what, count(*) FROM twice
WHERE it::text LIKE '%deployed%' AND what NOT IN ('relation', 'function') GROUP BY what ORDER BY what;
ROLLBACK;
\set ON_ERROR_STOP 0
DROP ROLE deployed_app, deployed_worker, deployed_admin;

-- Without being asked, what exists is an error.
SELECT event_queue.create_queue('twice', sla => '1 minute') > 0 AS made;
SELECT event_queue.create_queue('twice');
SELECT event_queue.create_rule('twice', 'a.*', queue => 'twice', job_name => 'j') > 0 AS made;
SELECT event_queue.create_rule('twice', 'a.*', queue => 'twice', job_name => 'j');
SELECT event_queue.create_schedule('twice', '@daily', 'twice', 'j') > 0 AS made;
SELECT event_queue.create_schedule('twice', '@daily', 'twice', 'j');
SELECT event_queue.create_subscription('twice', buckets => 2) > 0 AS made;
SELECT event_queue.create_subscription('twice');

-- Another definition: a notice, and nothing changes.
SET client_min_messages = notice;
SELECT event_queue.create_queue('twice', if_not_exists => true) > 0 AS found;
SELECT event_queue.create_queue('twice', sla => '60 seconds', if_not_exists => true) > 0 AS found;
SELECT sla FROM event_queue.queue WHERE name = 'twice';
SELECT event_queue.create_rule('twice', 'b.*', queue => 'twice', job_name => 'j', if_not_exists => true) > 0 AS found;
SELECT event_queue.create_rule('twice', 'a.*', queue => 'twice', job_name => 'j', if_not_exists => true) > 0 AS found;
SELECT event_pattern FROM event_queue.rules WHERE name = 'twice';
SELECT event_queue.create_schedule('twice', '@hourly', 'twice', 'j', if_not_exists => true) > 0 AS found;
SELECT event_queue.create_schedule('twice', '@daily', 'twice', 'j', if_not_exists => true) > 0 AS found;
SELECT cron FROM event_queue.schedules WHERE name = 'twice';
SELECT event_queue.create_subscription('twice', '{"event_type": "b"}', if_not_exists => true) > 0 AS found;
SELECT event_queue.create_subscription('twice', buckets => 2, if_not_exists => true) > 0 AS found;

-- Replaced: the same row, where it stood.
SELECT event_queue.pause_rule('twice');
CREATE TEMPORARY TABLE before AS SELECT r.rule_id, r.start_position, s.schedule_id, s.next_run, q.queue_id
FROM event_queue.rule r, event_queue.schedule s, event_queue.queue q WHERE r.name = 'twice' AND s.name = 'twice' AND q.name = 'twice';
SELECT event_queue.append('twice', '1', 'other') IS NOT NULL AS appended;
SELECT event_queue.create_queue('twice', max_attempts => 7, or_replace => true) = queue_id AS same FROM before;
SELECT event_queue.create_rule('twice', 'c.*', 'true', 'twice', 'k', '{"a": "$.version"}', '1 s', 2, or_replace => true) = rule_id AS same FROM before;
SELECT event_queue.create_schedule('twice', '@daily', 'twice', 'k', '{"a": 1}', or_replace => true) = schedule_id AS same FROM before;
SELECT q.max_attempts, q.sla FROM event_queue.queue q WHERE name = 'twice';
SELECT r.event_pattern, r.condition, r.job_name, r.payload, r.delay, r.priority, r.enabled, r.start_position = b.start_position AS where_it_stood
FROM event_queue.rule r, before b WHERE r.name = 'twice';
SELECT s.cron, s.job_name, s.payload, s.next_run = b.next_run AS where_it_stood FROM event_queue.schedule s, before b WHERE s.name = 'twice';
SELECT event_queue.create_schedule('twice', '@yearly', 'twice', 'k', or_replace => true) = schedule_id AS same FROM before;
SELECT s.cron, s.next_run = event_queue.cron_next('@yearly') AS by_the_new_cron FROM event_queue.schedule s WHERE s.name = 'twice';
SELECT event_queue.reset_subscription('twice', 1);
SELECT event_queue.create_subscription('twice', '{"event_type": "b"}', buckets => 2, or_replace => true) > 0 AS found;
SELECT s.filter, array_agg(b.position) FROM event_queue.subscription s JOIN event_queue_internal.subscription_bucket b USING (subscription_id)
WHERE s.name = 'twice' GROUP BY s.filter;
SELECT event_queue.create_subscription('twice', buckets => 3, or_replace => true);

-- Not both; nothing bad by the side door; nothing of another tenant.
SELECT event_queue.create_queue('twice', or_replace => true, if_not_exists => true);
SELECT event_queue.create_rule('twice', 'a', queue => 'twice', job_name => 'j', or_replace => true, if_not_exists => true);
SELECT event_queue.create_schedule('twice', '@daily', 'twice', 'j', or_replace => true, if_not_exists => true);
SELECT event_queue.create_subscription('twice', or_replace => true, if_not_exists => true);
SELECT event_queue.create_queue('twice', lease => '0 s', or_replace => true);
SELECT event_queue.create_rule('twice', 'a', 'no such column', queue => 'twice', job_name => 'j', or_replace => true);
SELECT event_queue.create_schedule('twice', '61 * * * *', 'twice', 'j', or_replace => true);
SELECT event_queue.create_rule('of acme', 'a', queue => 'twice', job_name => 'j', tenant_id => 'acme') > 0 AS made;
SELECT event_queue.create_schedule('of acme', '@daily', 'twice', 'j', tenant_id => 'acme') > 0 AS made;
SET event_queue.tenant = 'rival';
SELECT event_queue.create_rule('of acme', 'a', queue => 'twice', job_name => 'j', or_replace => true);
SELECT event_queue.create_rule('of acme', 'a', queue => 'twice', job_name => 'j', if_not_exists => true);
SELECT event_queue.create_schedule('of acme', '@daily', 'twice', 'j', or_replace => true);
SELECT event_queue.create_schedule('of acme', '@daily', 'twice', 'j', if_not_exists => true);
RESET event_queue.tenant;
SELECT event_queue.drop_rule('twice'), event_queue.drop_rule('of acme'), event_queue.drop_schedule('twice'),
	event_queue.drop_schedule('of acme'), event_queue.drop_subscription('twice'), event_queue.drop_queue('twice');

-- What templates see of an event is the same whatever the session's time zone.
SET timezone = 'America/Sao_Paulo';
SELECT event_queue.event_as_json(e) ->> 'created_at' LIKE '%+00:00' AS utc,
	(event_queue.event_as_json(e) ->> 'created_at')::timestamptz = e.created_at AS same_moment
FROM event_queue.event_store e ORDER BY position LIMIT 1;
SELECT provolatile FROM pg_proc WHERE proname = 'event_as_json';
