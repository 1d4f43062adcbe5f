-- Names come from columns of users' tables, whose collation may be any: it does not matter.
SET client_min_messages = warning;
CREATE TABLE coll (name text COLLATE "POSIX", key text COLLATE "POSIX", tenant text COLLATE "POSIX");
INSERT INTO coll VALUES ('coll', 'coll 1', 'default');
SELECT event_queue.create_queue(name) > 0 AS queue, event_queue.create_reducer(name) AS reducer,
	event_queue.create_rule(name, 'coll.*', queue => name, job_name => name) > 0 AS rule FROM coll;
SELECT event_queue.create_subscription(name, from_position => event_queue.watermark()) > 0 AS subscription FROM coll;
SELECT (event_queue.append(name, key, 'coll.' || n, tenant_id => tenant)).version FROM coll, generate_series(1, 2) n;
SELECT event_queue.aggregate_version(name, key, tenant), event_queue.aggregate_version(name, key) FROM coll;
SELECT event_queue.take_snapshot(name, key, tenant) FROM coll;
SELECT count(*) FROM coll, event_queue.read_aggregate(name, key, tenant_id => tenant);
SELECT count(*) > 1 AS active FROM coll, event_queue.aggregate_activity(name, key, 10, tenant);
SELECT id AS event, position FROM event_queue.event_store WHERE aggregate_id = 'coll 1' AND version = 2 \gset
SELECT count(*) > 0 AS traced FROM coll, event_queue.trace(:'event', tenant);
SELECT count(*) > 0 AS explained FROM coll, event_queue.explain_rule(name, :'event', tenant);
SELECT event_queue.rule_facts(name, 1, :'event', tenant) IS NOT NULL AS facts FROM coll;
SELECT event_queue.park_event(name, :position, 'no') FROM coll;
SELECT event_queue.retry_parked(name, name, key) FROM coll;
SELECT event_queue.discard_parked(name, name, key, tenant) FROM coll;
SELECT event_queue.enqueue(name, name, unique_key => key, tenant_id => tenant, delay => '1 hour') > 0 AS enqueued FROM coll;
SELECT event_queue.cancel_jobs(name, key, tenant_id => tenant) FROM coll;
SELECT event_queue.enqueue(name, name, group_key => key, tenant_id => tenant, delay => '1 hour') > 0 AS enqueued FROM coll;
SELECT event_queue.cancel_jobs(name, job_name => name, group_key => key) FROM coll;
SELECT event_queue.create_schedule(name, '0 0 1 1 *', name, name, tenant_id => tenant) > 0 AS schedule FROM coll;
SELECT event_queue.drop_schedule(name), event_queue.drop_subscription(name), event_queue.drop_rule(name), event_queue.drop_reducer(name) FROM coll;
SELECT event_queue.drop_queue(name, force => true) FROM coll;
DROP TABLE coll;
