-- What errors and health() tell a role that is bound to a tenant.
CREATE ROLE eq_shown_b;
CREATE ROLE eq_shown_owner;
SELECT event_queue.grant_producer('eq_shown_b', 'shown B') AND event_queue.grant_observer('eq_shown_b', 'shown B') AND event_queue.grant_producer('eq_shown_owner') AS granted;
GRANT EXECUTE ON FUNCTION try TO PUBLIC;
-- who is named is the role that is bound: not the owner of a function
CREATE FUNCTION shown_definer() RETURNS text LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public AS $$
BEGIN
	RETURN try($q$SELECT event_queue.append('a', '1', 'x')$q$);
END
$$;
ALTER FUNCTION shown_definer() OWNER TO eq_shown_owner;
SET ROLE eq_shown_b;
SET event_queue.tenant = 'shown A';
SELECT try($$SELECT event_queue.append('a', '1', 'x')$$);
SELECT shown_definer();
RESET ROLE;
-- the session's user is bound, and the role that it has set is not
GRANT eq_shown_owner TO eq_shown_b;
SET SESSION AUTHORIZATION eq_shown_b;
SET ROLE eq_shown_owner;
SELECT try($$SELECT event_queue.append('a', '1', 'x')$$);
SELECT shown_definer();
RESET SESSION AUTHORIZATION;
-- the owner of the function is bound
REVOKE eq_shown_owner FROM eq_shown_b;
SELECT event_queue.revoke_access('eq_shown_owner') AND event_queue.grant_producer('eq_shown_owner', 'shown C');
SELECT shown_definer();
SELECT event_queue.grant_producer('eq_shown_b', 'shown B');
RESET event_queue.tenant;
GRANT EXECUTE ON FUNCTION shown_definer() TO eq_shown_b;
SET ROLE eq_shown_b;
SELECT substr(shown_definer(), 1, 57);
RESET ROLE;

-- health(): subscriptions of the tenant alone, and only events of its own make one late
SELECT event_queue.create_subscription('shown a', tenant_id => 'shown A') > 0 AND event_queue.create_subscription('shown b', tenant_id => 'shown B') > 0
	AND event_queue.create_subscription('shown all') > 0 AND event_queue.create_subscription('shown c', tenant_id => 'shown C') > 0 AS created;
SELECT version FROM event_queue.append('shown', '1', 'shown.x', tenant_id => 'shown A');
SELECT version FROM event_queue.append('shown', '1', 'shown.x', tenant_id => 'shown B');
UPDATE event_queue_internal.subscription_bucket b SET moved_at = clock_timestamp() - interval '2 hours',
	position = (SELECT min(position) - 1 FROM event_queue.event_store WHERE aggregate_type = 'shown')
FROM event_queue.subscription s WHERE s.subscription_id = b.subscription_id AND s.name LIKE 'shown%';
BEGIN;
-- as if they had been appended then
SET LOCAL allow_system_table_mods = on;
ALTER TABLE event_queue.event_store DISABLE TRIGGER USER;
UPDATE event_queue.event_store SET created_at = created_at - interval '2 hours' WHERE aggregate_type = 'shown';
SELECT check_name FROM event_queue.health() WHERE check_name ~ 'subscription shown' ORDER BY 1;
SET LOCAL ROLE eq_shown_b;
SELECT check_name FROM event_queue.health() WHERE check_name ~ 'subscription shown' ORDER BY 1;
RESET ROLE;
SET LOCAL event_queue.tenant = 'shown A';
SELECT check_name FROM event_queue.health() WHERE check_name ~ 'subscription shown' ORDER BY 1;
ROLLBACK;
DELETE FROM event_queue.subscription WHERE name LIKE 'shown%';

-- Figures of all tenants together are not for one of them.
SELECT event_queue.create_queue('shown', sla => '1 minute', max_concurrency => 5) > 0 AS created;
CREATE FUNCTION shown_figures() RETURNS text LANGUAGE sql AS $$
	SELECT concat_ws(';', (SELECT string_agg(s::text, ' ') FROM event_queue.queue_status s WHERE queue = 'shown'), (SELECT count(*) FROM event_queue.queue_stats),
		(SELECT count(*) FROM event_queue.job_stats), (SELECT count(*) FROM event_queue.slo_status), event_queue.queue_health(), event_queue.prometheus(),
		(SELECT l::text FROM event_queue.queue_limits('shown') l), (SELECT count(*) FROM event_queue.health() WHERE check_name ~ '^queue '),
		(SELECT string_agg(d::text, ' ') FROM event_queue.queue_depths d WHERE queue = 'shown'), (SELECT count(current_job) + count(jobs_done) FROM event_queue.workers()),
		(SELECT count(jobs_done) FROM event_queue.worker_stats), (SELECT count(*) FROM event_queue.watermark_blockers),
		(SELECT string_agg(concat_ws(' ', check_name, ok, substring(detail FROM '[,a-z].*places.*|counted.*'), hint), ',' ORDER BY check_name) FROM event_queue.health()
		 WHERE check_name IN ('shared memory', 'metrics')),
		(SELECT concat_ws(' ', seen, matched, failed, last_fired_at, last_error) FROM event_queue.rule_stats WHERE rule = 'shown'),
		(SELECT concat_ws(' ', last_position, lag_positions, blocked_by, blocked_since, tables, total_bytes) FROM event_queue.event_stats),
		(SELECT sum(total_bytes) FROM event_queue.event_partitions WHERE tenant_id IS NULL))
$$;
SELECT event_queue.create_rule('shown', 'shown.rule', queue => 'shown', job_name => 'x') > 0 AS created;
SET ROLE eq_shown_b;
SELECT shown_figures() AS before \gset
SELECT :'before' AS before;
RESET ROLE;
SELECT count(event_queue.enqueue('shown', 'x', tenant_id => 'shown A')) FROM generate_series(1, 3);
SELECT count(event_queue.append('shown', '2', 'shown.rule', tenant_id => 'shown A'));
CALL wait_until($$(SELECT matched = 1 FROM event_queue.rule_stats WHERE rule = 'shown')$$);
SELECT count(event_queue.fail(job_id, lease_token, 'no', final => true)) FROM event_queue.claim('shown', 1);
SELECT count(*) FROM event_queue.claim('shown', 1);
SET ROLE eq_shown_b;
SELECT shown_figures() = :'before' AS same;
SELECT tenant, enqueued_total FROM event_queue.tenant_stats;
RESET ROLE;
SELECT depth, dead, due, (SELECT enqueued_total FROM event_queue.queue_stats WHERE queue = 'shown') FROM event_queue.queue_status WHERE queue = 'shown';
SELECT event_queue.drop_rule('shown');
SELECT event_queue.drop_queue('shown', force => true);
DROP FUNCTION shown_figures();
DROP FUNCTION shown_definer();
SELECT event_queue.revoke_access('eq_shown_b') AND event_queue.revoke_access('eq_shown_owner') AS revoked;
DROP ROLE eq_shown_b, eq_shown_owner;
