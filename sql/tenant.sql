-- Tenants are apart: by setting, and for bound roles whatever they set.
CREATE ROLE eq_acme;
CREATE ROLE eq_acme_app IN ROLE eq_acme;
CREATE ROLE eq_app;
CREATE ROLE eq_worker;
CREATE ROLE eq_observer;
CREATE ROLE eq_admin;
CREATE ROLE eq_nobody;
SELECT event_queue.create_queue('tenants') IS NOT NULL AS created;
SELECT event_queue.grant_producer('eq_acme', 'acme'), event_queue.grant_worker('eq_acme', 'acme');
SELECT event_queue.grant_producer('eq_app'), event_queue.grant_worker('eq_worker', 'beta'),
	event_queue.grant_observer('eq_observer'), event_queue.grant_admin('eq_admin');
SELECT try($$SELECT event_queue.grant_producer('eq_acme', 'beta')$$);
GRANT EXECUTE ON FUNCTION try TO PUBLIC;

-- An unbound producer names the tenant by call or setting.
SET ROLE eq_app;
SELECT version FROM event_queue.append('order', 'T1', 'order.made', tenant_id => 'acme');
SELECT version FROM event_queue.append('order', 'T1', 'order.made', tenant_id => 'beta');
SET event_queue.tenant = 'beta';
SELECT version FROM event_queue.append('order', 'T1', 'order.paid');
SELECT try($$SELECT event_queue.append('order', 'T1', 'order.paid', tenant_id => 'acme')$$);
SELECT tenant_id, version FROM event_queue.event_store WHERE aggregate_id = 'T1' ORDER BY position;
SELECT tenant_id, version FROM event_queue.read_all() WHERE aggregate_id = 'T1';
SELECT event_queue.enqueue('tenants', 'for beta') IS NOT NULL AS enqueued;
RESET event_queue.tenant;
SELECT event_queue.enqueue('tenants', 'for acme', tenant_id => 'acme') IS NOT NULL AS enqueued;
SELECT tenant_id, version FROM event_queue.event_store WHERE aggregate_id = 'T1' ORDER BY position;
SELECT try($$SELECT event_queue.claim('tenants')$$), try($$SELECT event_queue.create_queue('x')$$),
	try($$INSERT INTO event_queue.event_store SELECT * FROM event_queue.event_store$$), try($$SELECT * FROM event_queue.job$$);
RESET ROLE;

-- A member of a bound role is bound too, and can't set its way out.
SET ROLE eq_acme_app;
SELECT event_queue.current_tenant();
SELECT version FROM event_queue.append('order', 'T1', 'order.paid', '{}', 1);
SELECT try($$SELECT event_queue.append('order', 'T1', 'order.paid', tenant_id => 'beta')$$);
SELECT tenant_id, version FROM event_queue.event_store WHERE aggregate_id = 'T1' ORDER BY position;
SELECT tenant_id, version FROM event_queue.read_aggregate('order', 'T1');
SELECT DISTINCT tenant_id FROM event_queue.read_all();
SELECT try($$SELECT event_queue.read_all(0, 10, 'beta')$$);
SELECT name, tenant_id FROM event_queue.claim('tenants', 10);
SELECT try($$SELECT event_queue.claim('tenants', tenant_id => 'beta')$$);
SET event_queue.tenant = 'beta';
SELECT try($$SELECT event_queue.append('order', 'T1', 'order.paid')$$);
SELECT try($$SELECT count(*) FROM event_queue.event_store$$);
RESET event_queue.tenant;
RESET ROLE;

-- A worker of one tenant can't settle another's job, and is not told that it exists.
SELECT job_id AS job, lease_token AS token FROM event_queue.job WHERE name = 'for acme' \gset
SET ROLE eq_worker;
SELECT split_part(try(format('SELECT event_queue.complete(%s, %L)', :job, :'token')), ':', 1);
SELECT name FROM event_queue.claim('tenants', 10);
SELECT try($$SELECT event_queue.append('order', 'T1', 'order.paid')$$);
RESET ROLE;

-- An observer sees all and changes nothing.
SET ROLE eq_observer;
SELECT name, state, tenant_id FROM event_queue.jobs WHERE queue = 'tenants' ORDER BY 1;
SELECT count(*) > 0 FROM event_queue.health();
SELECT try($$SELECT event_queue.pause_queue('tenants')$$), try($$DELETE FROM event_queue.job$$);
RESET ROLE;

-- An admin does all that functions offer, but can't change history, bind
-- roles, or write itself another owner's rule.
SET ROLE eq_admin;
SELECT event_queue.pause_queue('tenants'), event_queue.resume_queue('tenants');
SELECT try($$DELETE FROM event_queue.event_store$$), try($$SELECT event_queue.grant_admin('eq_nobody')$$),
	try($$UPDATE event_queue.rule SET owner = 'postgres'$$),
	try($$INSERT INTO event_queue.handler (queue_id, job_name, owner, function, time_limit) VALUES (1, 'x', 'postgres', 'f', '1 s')$$);
RESET ROLE;
SET ROLE eq_nobody;
SELECT try($$SELECT event_queue.append('a', 'b', 'c')$$);
RESET ROLE;

-- Who must name a tenant.
SET event_queue.require_tenant = on;
SELECT try($$SELECT event_queue.append('a', 'b', 'c')$$);
RESET event_queue.require_tenant;

SELECT event_queue.revoke_access(r::regrole) FROM unnest('{eq_acme,eq_app,eq_worker,eq_observer,eq_admin}'::text[]) r;
SELECT count(*) FROM event_queue_internal.tenant_role;
SELECT event_queue.drop_queue('tenants', force => true);
DROP ROLE eq_acme_app, eq_acme, eq_app, eq_worker, eq_observer, eq_admin, eq_nobody;
