-- What belongs to a tenant by name, who is bound how, and what an admin can do.
GRANT EXECUTE ON FUNCTION try TO PUBLIC;
CREATE ROLE eq_ten_a;
CREATE ROLE eq_ten_b;
CREATE ROLE eq_ten_any;
CREATE ROLE eq_ten_admin;
SELECT event_queue.grant_consumer('eq_ten_a', 'ten a'), event_queue.grant_producer('eq_ten_a', 'ten a'),
	event_queue.grant_worker('eq_ten_a', 'ten a'),
	event_queue.grant_consumer('eq_ten_b', 'ten b'), event_queue.grant_producer('eq_ten_b', 'ten b'),
	event_queue.grant_consumer('eq_ten_any'), event_queue.grant_producer('eq_ten_any'), event_queue.grant_admin('eq_ten_admin');

-- Each tenant has names of its own for subscriptions.
SET ROLE eq_ten_a;
SELECT event_queue.create_subscription('projector', from_position => NULL) > 0 AS created;
SELECT try($$SELECT event_queue.create_subscription('projector')$$);
SELECT version FROM event_queue.append('ten', '1', 'ten.a');
SET ROLE eq_ten_b;
SELECT try($$SELECT event_queue.drop_subscription('projector')$$);
SELECT event_queue.create_subscription('projector', from_position => NULL) > 0 AS created;
SELECT version FROM event_queue.append('ten', '1', 'ten.b');
SELECT event_type FROM event_queue.fetch_events('projector');
SET ROLE eq_ten_a;
SELECT event_type, position FROM event_queue.fetch_events('projector') \gset
SELECT :'event_type';
SELECT event_queue.ack('projector', :position);
SELECT name, tenant_id, lag_events FROM event_queue.subscription_status;
-- Who is bound to none says which, or means the one that reads all.
SET ROLE eq_ten_any;
SELECT try($$SELECT event_queue.fetch_events('projector')$$), try($$SELECT event_queue.reset_subscription('projector')$$);
SET event_queue.tenant = 'ten b';
SELECT event_type FROM event_queue.fetch_events('projector');
RESET event_queue.tenant;
SELECT event_queue.create_subscription('projector', from_position => NULL) > 0 AS created;
SELECT version FROM event_queue.append('ten', '1', 'ten.any', tenant_id => 'ten c');
SELECT event_type FROM event_queue.fetch_events('projector');
SELECT event_queue.drop_subscription('projector');
-- A consumer parks events of its subscription's tenant only.
SELECT position AS other FROM event_queue.event_store WHERE event_type = 'ten.any' \gset
SET ROLE eq_ten_a;
SELECT try(format('SELECT event_queue.park_event(%L, %s)', 'projector', :other)) LIKE 'EQ025: event at position % does not exist' AS refused,
	try(format('SELECT event_queue.ack_parked(%L, %s)', 'projector', :other)) LIKE 'EQ025: the aggregate of the event%' AS refused;
RESET ROLE;

-- Two tenants, by the session's user and by the role that it has set, are an error.
GRANT eq_ten_b TO eq_ten_any;
SELECT event_queue.current_tenant();
SET SESSION AUTHORIZATION eq_ten_any;
SELECT event_queue.current_tenant();
SET ROLE eq_ten_b;
SELECT event_queue.current_tenant();
RESET SESSION AUTHORIZATION;
REVOKE eq_ten_b FROM eq_ten_any;
GRANT eq_ten_b TO eq_ten_a;
SET SESSION AUTHORIZATION eq_ten_a;
SELECT try($$SELECT event_queue.current_tenant()$$), try($$SELECT event_queue.append('ten', '1', 'x')$$), try($$SELECT * FROM event_queue.event_store$$);
RESET SESSION AUTHORIZATION;
REVOKE eq_ten_b FROM eq_ten_a;
-- A function with its owner's rights does not leave the caller's tenant, whether the caller is the session's user or a role that it has set.
CREATE FUNCTION ten_definer(OUT tenant text, OUT events bigint) LANGUAGE sql SECURITY DEFINER AS
	$$ SELECT event_queue.current_tenant(), (SELECT count(DISTINCT tenant_id) FROM event_queue.read_all(filter => '{"aggregate_type": "ten"}')) $$;
SET ROLE eq_ten_b;
SELECT * FROM ten_definer();
RESET ROLE;
SET SESSION AUTHORIZATION eq_ten_b;
SELECT * FROM ten_definer();
RESET SESSION AUTHORIZATION;
SELECT tenant, events >= 3 AS all_events FROM ten_definer();
-- ... and one whose owner is bound acts for the owner's.
ALTER FUNCTION ten_definer OWNER TO eq_ten_a;
SELECT * FROM ten_definer();
SET SESSION AUTHORIZATION eq_ten_b;
SELECT try($$SELECT * FROM ten_definer()$$);
RESET SESSION AUTHORIZATION;

-- Procedures, which can't be called inside of the test of the catalogs (test/pgtap/tenancy.sql).
SELECT event_queue.create_queue('ten') > 0 AS created;
SELECT event_queue.enqueue('ten', 'of b', tenant_id => 'ten b') AS job \gset
SET SESSION AUTHORIZATION eq_ten_a;
CALL event_queue.await_job(:job, '1 second');
CALL event_queue.claim_wait('ten', 10, '10 milliseconds');
RESET SESSION AUTHORIZATION;

-- An admin does all that is offered, by functions, and writes to no table.
CREATE SCHEMA eq_ten_schema AUTHORIZATION eq_ten_admin;
CREATE SCHEMA eq_ten_foreign;
SET SESSION AUTHORIZATION eq_ten_admin;
CREATE TABLE eq_ten_schema.t (id int, tenant text);
SELECT event_queue.create_queue('ten admin') > 0 AS created, event_queue.alter_queue('ten admin', max_attempts => 1, fair => true),
	event_queue.pause_queue('ten admin'), event_queue.resume_queue('ten admin');
SELECT event_queue.enqueue('ten admin', 'x', delay => '1 hour', tenant_id => 'ten a') > 0 AND event_queue.enqueue('ten admin', 'y', delay => '1 hour') > 0 AS enqueued;
SELECT event_queue.retry_waiting('ten admin', failed_only => false);
-- the scheduler brings them into their tenants' lanes, and a claim passes by what is locked
CALL wait_until($$NOT EXISTS (SELECT FROM event_queue.job j JOIN event_queue.queue q USING (queue_id) WHERE q.name = 'ten admin' AND j.lane = 0)$$);
SELECT event_queue.fail(job_id, lease_token, 'oh') FROM event_queue.claim('ten admin', 2);
SELECT event_queue.retry_all_dead('ten admin', tenant_id => 'ten a'), event_queue.discard_all_dead('ten admin');
SELECT event_queue.drain_queue('ten admin'), event_queue.purge_queue('ten admin');
SELECT event_queue.create_schedule('ten admin', '0 0 1 1 *', 'ten', 'x') > 0 AS created, event_queue.pause_schedule('ten admin'),
	event_queue.drop_schedule('ten admin');
SELECT event_queue.create_rule('ten admin', 'ten.never', queue => 'ten', job_name => 'x') > 0 AS created, event_queue.pause_rule('ten admin'),
	event_queue.drop_rule('ten admin');
SELECT event_queue.notify_on('eq_ten_schema.t', 'ten'), event_queue.record_changes('eq_ten_schema.t', 'ten', 'id', 'tenant');
INSERT INTO eq_ten_schema.t VALUES (1, 'ten d');
SELECT tenant_id, event_type FROM event_queue.event_store WHERE aggregate_type = 'ten' AND aggregate_id = '1' AND tenant_id = 'ten d';
SELECT event_queue.create_event_index('event_type'), event_queue.drop_event_index('event_type');
SELECT event_queue.split_event_partition(tenant_id => 'ten d') AS part \gset
SELECT try(format('SELECT event_queue.archive_event_partition(%L, %L)', :'part', 'eq_ten_foreign')), try(format('SELECT event_queue.set_event_retention(%L, %L)', '10 days', 'eq_ten_foreign'));
CALL wait_until($$event_queue.watermark() >= (SELECT max(position) FROM event_queue.event_store)$$);
SELECT event_queue.archive_event_partition(:'part', 'eq_ten_schema');
SELECT event_queue.set_event_retention(NULL);
SELECT event_queue.drop_queue('ten admin', force => true);
SELECT count(*) FROM (SELECT c.oid FROM pg_class c WHERE c.relnamespace IN ('event_queue'::regnamespace, 'event_queue_internal'::regnamespace) AND c.relkind IN ('r', 'p', 'v')
	AND (has_table_privilege(c.oid, 'INSERT') OR has_table_privilege(c.oid, 'UPDATE') OR has_table_privilege(c.oid, 'DELETE') OR has_table_privilege(c.oid, 'TRUNCATE'))) x;
-- The rights that count are the admin's, whoever's session it is.
CREATE FUNCTION eq_ten_schema.keep() RETURNS text SECURITY DEFINER LANGUAGE sql AS $$
	SELECT public.try('SELECT event_queue.set_event_retention(''10 days'', ''eq_ten_foreign'')') $$;
RESET SESSION AUTHORIZATION;
SELECT eq_ten_schema.keep();
DROP FUNCTION eq_ten_schema.keep;
-- Bound to a tenant since, it changes nothing that all share, and is not told of others' rows.
GRANT eq_ten_a TO eq_ten_admin;
SET SESSION AUTHORIZATION eq_ten_admin;
SELECT try($$SELECT event_queue.pause_queue('ten')$$), try($$SELECT event_queue.drop_queue('ten', true)$$),
	try($$SELECT event_queue.create_event_partition('ten b')$$);
SELECT event_queue.purge_queue('ten');
RESET SESSION AUTHORIZATION;
SELECT name FROM event_queue.jobs WHERE queue = 'ten';

SELECT event_queue.drop_queue('ten', force => true);
SET event_queue.tenant = 'ten a'; SELECT event_queue.drop_subscription('projector');
SET event_queue.tenant = 'ten b'; SELECT event_queue.drop_subscription('projector'); RESET event_queue.tenant;
DROP FUNCTION ten_definer;
SET client_min_messages = warning;
DROP SCHEMA eq_ten_schema CASCADE;
RESET client_min_messages;
DROP OWNED BY eq_ten_a, eq_ten_b, eq_ten_any, eq_ten_admin CASCADE;
DROP SCHEMA eq_ten_foreign;
DELETE FROM event_queue_internal.channel WHERE name = 'ten';
SELECT event_queue.revoke_access(r::regrole) FROM unnest('{eq_ten_a,eq_ten_b,eq_ten_any,eq_ten_admin}'::text[]) r;
DROP ROLE eq_ten_admin, eq_ten_a, eq_ten_b, eq_ten_any;
-- A grant says what it does to a binding: it stays, or takes hold of what the role had.
CREATE ROLE eq_ten_bind;
SELECT event_queue.grant_worker('eq_ten_bind', 'ten a');
SELECT event_queue.grant_observer('eq_ten_bind', 'ten a');
SELECT event_queue.grant_producer('eq_ten_bind');
SELECT event_queue.revoke_access('eq_ten_bind'), event_queue.grant_worker('eq_ten_bind');
SELECT event_queue.grant_worker('eq_ten_bind', 'ten b');
SELECT event_queue.revoke_access('eq_ten_bind');
DROP ROLE eq_ten_bind;
