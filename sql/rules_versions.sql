-- Versions of rules: who made which when, and the way back.
SELECT event_queue.create_queue('versions', keep_completed => '1 hour') IS NOT NULL AS created;
CREATE ROLE eq_versions;
SELECT event_queue.grant_admin('eq_versions');
CREATE VIEW rv AS SELECT version, present, made_by = session_user AS by_me, made_by = 'eq_versions' AS by_other,
	made_at <= now() AND made_at > now() - interval '1 minute' AS made, ended_at IS NOT NULL AS ended, definition - 'owner' - 'queue' - 'job_name' AS definition
FROM event_queue.rule_versions WHERE rule = 'rv' ORDER BY rule_id, version;
SELECT event_queue.create_rule('rv', 'rv.a', $$event_data ? 'n'$$, queue => 'versions', job_name => 'x', payload => '{"v": 1, "none": null}',
	delay => '0', options => '{"max_attempts": 2}', when_changed => '{n}', on_loop => 'allow', tenant_id => 'rv acme') AS rule_id \gset
SELECT version FROM event_queue.append('rv', 'V1', 'rv.a', '{"n": 1}', tenant_id => 'rv acme');
CALL wait_until($$(SELECT matched = 1 FROM event_queue.rule_stats WHERE rule = 'rv')$$);
-- The same is no new version, nor are pauses; another owner is one.
SELECT event_queue.create_rule('rv', 'rv.a', $$event_data ? 'n'$$, queue => 'versions', job_name => 'x', payload => '{"v": 1, "none": null}',
	delay => '0', options => '{"max_attempts": 2}', when_changed => '{n}', on_loop => 'allow', tenant_id => 'rv acme', or_replace => true) = :rule_id AS same;
SELECT event_queue.pause_rule('rv'), event_queue.resume_rule('rv');
SELECT version FROM event_queue.rules WHERE name = 'rv';
SELECT event_queue.create_rule('rv', 'rv.*', queue => 'versions', job_name => 'x', payload => '{"v": 2}', or_replace => true) = :rule_id AS same;
SET ROLE eq_versions;
SELECT event_queue.create_rule('rv', 'rv.*', queue => 'versions', job_name => 'x', payload => '{"v": 2}', or_replace => true) = :rule_id AS same;
RESET ROLE;
BEGIN;
SELECT event_queue.create_rule('rv', 'rv.**', queue => 'versions', job_name => 'x', or_replace => true) = :rule_id AS same;
ROLLBACK;
SELECT * FROM rv;

-- Each firing names its version.
SELECT id AS e2 FROM event_queue.append('rv', 'V1', 'rv.a', '{"n": 2}', tenant_id => 'rv acme') \gset
CALL wait_until($$(SELECT matched = 2 FROM event_queue.rule_stats WHERE rule = 'rv')$$);
SELECT payload ->> 'v' AS v, metadata ->> 'rule' AS rule, metadata -> 'rule_version' AS version FROM event_queue.job WHERE queue_id = event_queue_internal.queue_id_of('versions') ORDER BY job_id;
SELECT kind, name, detail FROM event_queue.trace(:'e2', 'rv acme') WHERE kind = 'rule';
SELECT step, seen, compared, outcome FROM event_queue.explain_rule('rv', :'e2', 'rv acme') WHERE step IN ('state', 'followed');
SELECT event_queue.alter_queue('versions', keep_completed => '0');
SELECT event_queue.complete(job_id, lease_token) FROM event_queue.claim('versions', 10);

-- Back: a new version, of who went back; it meets the events that come, and stays paused.
SELECT event_queue.pause_rule('rv');
SELECT event_queue.rollback_rule('rv', 1), event_queue.rollback_rule('rv', 1) AS again;
SELECT version, owner = session_user AS mine, enabled, event_pattern, condition, payload, delay_seconds, priority, options, on_loop, when_changed, tenant_id FROM event_queue.rules WHERE name = 'rv';
SELECT version, present, ended, definition = (SELECT f.definition FROM rv f WHERE f.version = 1) AS as_first FROM rv;
SELECT event_queue.resume_rule('rv');
SELECT version FROM event_queue.append('rv', 'V1', 'rv.a', '{"n": 3}', tenant_id => 'rv acme');
SELECT version FROM event_queue.append('rv', 'V1', 'rv.a', '{"n": 3}', tenant_id => 'rv acme');
CALL wait_until($$(SELECT seen = 4 FROM event_queue.rule_stats WHERE rule = 'rv')$$);
SELECT payload, max_attempts, metadata -> 'rule_version' AS version FROM event_queue.job WHERE queue_id = event_queue_internal.queue_id_of('versions');
-- By hand is a version, too; and its number is not to be had by hand.
UPDATE event_queue.rule SET event_pattern = 'rv.b', version = 99 WHERE name = 'rv';
UPDATE event_queue.rule SET version = 1 WHERE name = 'rv';
SELECT version, present, definition ->> 'event_pattern' AS pattern FROM rv ORDER BY version DESC LIMIT 2;

-- A rule that calls a function.
CREATE FUNCTION rv_see(event event_queue.event_store) RETURNS void LANGUAGE sql AS '';
SELECT event_queue.create_rule('rv f', 'rvf.a', function => 'rv_see', priority => 2, delay => '1 day 2 hours') IS NOT NULL AS created;
SELECT event_queue.create_rule('rv f', 'rvf.b', queue => 'versions', job_name => 'f', or_replace => true) IS NOT NULL AS replaced;
SET intervalstyle = 'iso_8601';
SELECT event_queue.rollback_rule('rv f', 1);
RESET intervalstyle;
SELECT function, priority, delay_seconds, event_pattern, queue, version FROM event_queue.rules WHERE name = 'rv f';
SELECT id AS f FROM event_queue.append('rv', 'V1', 'rvf.a') \gset
CALL wait_until($$EXISTS (SELECT FROM event_queue.jobs WHERE queue = 'rule-calls' AND metadata ->> 'rule' = 'rv f')$$);
SELECT metadata -> 'rule_version' AS version FROM event_queue.jobs WHERE queue = 'rule-calls' AND metadata ->> 'rule' = 'rv f';

-- What can't be.
SELECT try($$SELECT event_queue.rollback_rule('rv', 98)$$), try($$SELECT event_queue.rollback_rule('rv', NULL)$$), try($$SELECT event_queue.rollback_rule('none', 1)$$), try($$SELECT event_queue.rollback_rule(NULL, 1)$$);
SELECT event_queue.create_rule('rv f', 'rvf.b', queue => 'versions', job_name => 'f', or_replace => true) IS NOT NULL AS replaced;
DROP FUNCTION rv_see;
SELECT try($$SELECT event_queue.rollback_rule('rv f', 1)$$);
SELECT version, event_pattern FROM event_queue.rules WHERE name = 'rv f';

-- Tenants see the versions of their own rules, and only those.
CREATE ROLE eq_versions_acme;
CREATE ROLE eq_versions_other;
SELECT event_queue.grant_observer('eq_versions_acme', 'rv acme'), event_queue.grant_observer('eq_versions_other', 'rv other');
SET ROLE eq_versions_acme;
SELECT rule, version, present FROM event_queue.rule_versions ORDER BY 1, 2;
SELECT try($$SELECT event_queue.rollback_rule('rv', 1)$$);
SET ROLE eq_versions_other;
SELECT count(*) FROM event_queue.rule_versions;
RESET ROLE;
SET event_queue.tenant = 'rv other';
SELECT try($$SELECT event_queue.rollback_rule('rv', 1)$$), try($$SELECT event_queue.rollback_rule('rv f', 1)$$);
SET event_queue.tenant = 'rv acme';
SELECT try($$SELECT event_queue.rollback_rule('rv', 2)$$); -- it was one of all tenants
SELECT event_queue.rollback_rule('rv', 4);
RESET event_queue.tenant;

-- A rule that is dropped leaves its versions; one of the same name begins anew; both for event_queue.keep_audit.
SELECT event_queue.drop_rule('rv');
SELECT event_queue.create_rule('rv', 'rv.new', queue => 'versions', job_name => 'x') > :rule_id AS new;
SELECT try($$SELECT event_queue.rollback_rule('rv', 2)$$);
SELECT version, present, ended FROM rv;
BEGIN;
UPDATE event_queue_internal.rule_version SET ended_at = ended_at - interval '366 days', made_at = made_at - interval '400 days' WHERE rule = 'rv' AND version <> 3;
SELECT event_queue_internal.trim_rule_versions();
SELECT version, present FROM rv;
ROLLBACK;
SELECT event_queue.drop_rule('rv'), event_queue.drop_rule('rv f');
SELECT event_queue.cancel_job(job_id) FROM event_queue.jobs WHERE queue = 'rule-calls' AND metadata ->> 'rule' = 'rv f';
DROP VIEW rv;
SELECT event_queue.revoke_access('eq_versions_acme'), event_queue.revoke_access('eq_versions_other');
