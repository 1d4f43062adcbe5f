/*
 * everything.sql: a database full of everything, by version 0.1.0.
 *
 * make-fixture.sh runs it on a server of that version and keeps the dump, everything-0.1.0.sql,
 * from which test/tap/t/035_upgrade.pl makes the database that it upgrades.
 */
\set ON_ERROR_STOP 1
CREATE EXTENSION event_queue;
CREATE SCHEMA crm;
CREATE SCHEMA archive;
CREATE TABLE crm.lead (lead_id text PRIMARY KEY, tenant text, score int DEFAULT 0);
CREATE TABLE crm.seen (position bigint);
CREATE TABLE crm.task (job_id bigint PRIMARY KEY, name text, payload jsonb);

-- roles: as the grant functions make them, one by hand, one that will be gone
CREATE ROLE up_producer; CREATE ROLE up_worker; CREATE ROLE up_consumer; CREATE ROLE up_observer; CREATE ROLE up_admin;
CREATE ROLE up_by_hand; CREATE ROLE up_gone SUPERUSER; CREATE ROLE "Up Owner";
SELECT event_queue.grant_producer('up_producer', 'acme'), event_queue.grant_worker('up_worker'), event_queue.grant_consumer('up_consumer', 'acme'),
	event_queue.grant_observer('up_observer'), event_queue.grant_admin('up_admin'), event_queue.grant_admin('"Up Owner"');
GRANT USAGE ON SCHEMA event_queue TO up_by_hand;
GRANT EXECUTE ON FUNCTION event_queue.watermark() TO up_by_hand WITH GRANT OPTION;
GRANT SELECT ON event_queue.jobs, event_queue.rules, event_queue.queue TO up_by_hand;
GRANT CREATE, USAGE ON SCHEMA crm TO "Up Owner";
GRANT ALL ON crm.task, crm.lead TO "Up Owner";

-- views and functions of users
CREATE VIEW crm.my_jobs AS SELECT job_id, queue, name, state FROM event_queue.jobs;
CREATE VIEW crm.my_ready_jobs WITH (security_barrier) AS SELECT * FROM crm.my_jobs WHERE state = 'ready';
GRANT SELECT ON crm.my_ready_jobs TO up_observer;
COMMENT ON VIEW crm.my_ready_jobs IS 'A view on a view on a view of ours.';
CREATE VIEW crm.owners AS SELECT name, owner::text AS owner FROM event_queue.rule;
CREATE VIEW crm.job_ids AS SELECT job_id FROM event_queue.job;

-- queues of each kind
SELECT event_queue.create_queue('plain', keep_completed => '1000 days', keep_failed => '1000 days', lease => '1 hour');
SELECT event_queue.create_queue('fair', fair => true, lease => '1 hour');
SELECT event_queue.create_queue('grouped', lease => '1 hour', group_rate_limit => 100);
SELECT event_queue.create_queue('limited', max_concurrency => 2, rate_limit => 100, lease => '1 hour');
SELECT event_queue.create_queue('handled', keep_completed => '1000 days', backoff => 'fixed', backoff_delay => '1 second');
SELECT event_queue.create_queue('ruled', lease => '1 hour');
SELECT event_queue.create_queue('paused'), event_queue.create_queue('once');
SELECT event_queue.pause_queue('paused');
SELECT event_queue.alter_queue('rule-calls', max_attempts => 7);

-- users' code
CREATE FUNCTION crm.do_task(job event_queue.claimed_job) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO crm.task VALUES (job.job_id, job.name, job.payload);
END
$$;
CREATE FUNCTION crm.on_event(event event_queue.event_store) RETURNS void LANGUAGE sql AS $$
	INSERT INTO crm.seen VALUES (event.position)
$$;
CREATE FUNCTION crm.sum_up(state jsonb, event event_queue.event_store) RETURNS jsonb LANGUAGE sql IMMUTABLE AS $$
	SELECT jsonb_build_object('sum', coalesce((state ->> 'sum')::int, 0) + (event.event_data ->> 'n')::int)
$$;
GRANT ALL ON ALL FUNCTIONS IN SCHEMA crm TO "Up Owner";
SELECT event_queue.register_reducer('account', 'crm.sum_up', 5);
SET ROLE up_gone;
SELECT event_queue.register_reducer('of-nobody', 'crm.sum_up', 5);
RESET ROLE;
SET ROLE "Up Owner";
SELECT event_queue.register_handler('handled', 'do', 'crm.do_task', '10 seconds');
SELECT event_queue.create_rule('to queue', 'account.*', condition => '(event_data ->> ''n'')::int > 3', queue => 'ruled', job_name => 'big');
RESET ROLE;
SELECT event_queue.create_rule('to function', 'lead.**', function => 'crm.on_event');
SELECT event_queue.create_rule('off', 'x.y', queue => 'ruled', job_name => 'x'), event_queue.set_rule_enabled('off', false);
SELECT event_queue.create_schedule('nightly', '0 3 * * *', 'handled', 'do', '{"by": "schedule"}', 'Europe/Berlin');
SELECT event_queue.record_changes('crm.lead', 'lead', 'lead_id', 'tenant');
SELECT event_queue.notify_on('crm.lead', 'leads');

-- events, partitions, states
SELECT count(*) FROM generate_series(1, 20) i, LATERAL event_queue.append('account', 'A' || i % 4, 'account.added', jsonb_build_object('n', i % 5), tenant_id => 'acme');
SELECT clock_timestamp() AS first_batch \gset
SELECT event_queue.create_event_index('event_type');
SELECT event_queue.create_event_partition();
SELECT count(*) FROM generate_series(1, 20) i, LATERAL event_queue.append('account', 'A' || i % 4, 'account.added', jsonb_build_object('n', i % 5), tenant_id => 'acme');
SELECT event_queue.create_event_partition();
SELECT count(*) FROM generate_series(1, 20) i, LATERAL event_queue.append('account', 'B' || i % 4, 'account.added', jsonb_build_object('n', i % 5), tenant_id => 'beta');
INSERT INTO crm.lead VALUES ('L1', 'acme'), ('L2', 'beta');
UPDATE crm.lead SET score = 1 WHERE lead_id = 'L1';
SELECT event_queue.set_event_retention('1000 days', 'archive');

-- one partition is archived, when the rules have seen it
SELECT pg_sleep(1);
SELECT event_queue.archive_partition(event_queue.split_off_events(:'first_batch'), 'archive');

-- subscriptions: half read, with a parked aggregate
SELECT event_queue.create_subscription('reader', buckets => 3), event_queue.create_subscription('acme', '{"event_type": "account.*"}', tenant_id => 'acme');
SELECT pg_sleep(0.2);
BEGIN; SELECT count(*) FROM event_queue.fetch_events('reader', 10); SELECT event_queue.ack('reader', (SELECT max(position) FROM event_queue.fetch_events('reader', 1))); COMMIT;
BEGIN; SELECT event_queue.park_event('acme', min(position), 'it failed') FROM event_queue.fetch_events('acme', 3); SELECT event_queue.ack('acme', (SELECT max(position) FROM event_queue.fetch_events('acme', 3))); COMMIT;

-- jobs in every state
SELECT count(*) FROM generate_series(1, 10) i, LATERAL event_queue.enqueue('plain', 'ready', jsonb_build_object('i', i), tenant_id => CASE WHEN i % 2 = 0 THEN 'acme' ELSE 'beta' END);
SELECT event_queue.enqueue('plain', 'later', run_at => '2100-01-01');
SELECT event_queue.enqueue('plain', 'own way', backoff => 'fixed', backoff_delay => '7 seconds', backoff_jitter => 0.5, max_attempts => 9, priority => 2, metadata => '{"m": 1}');
SELECT event_queue.enqueue('once', 'rejecting', unique_key => 'r'), event_queue.enqueue('once', 'throttled', unique_key => 't', unique_mode => 'throttle', unique_window => '30000 days'),
	event_queue.enqueue('once', 'debounced', unique_key => 'd', unique_mode => 'replace', delay => '1 day');
SELECT count(*) FROM generate_series(1, 12) i, LATERAL event_queue.enqueue('fair', 'fair', jsonb_build_object('i', i), tenant_id => 't' || i % 3);
SELECT event_queue.enqueue('fair', 'later', tenant_id => 't1', run_at => '2100-01-01');
SELECT count(*) FROM generate_series(1, 9) i, LATERAL event_queue.enqueue('grouped', 'in group', jsonb_build_object('i', i), group_key => 'g' || i % 3);
SELECT count(*) FROM generate_series(1, 5) i, LATERAL event_queue.enqueue('limited', 'limited', jsonb_build_object('i', i));
SELECT event_queue.enqueue('paused', 'stays');
SELECT event_queue.enqueue_flow('{"queue": "plain", "name": "top", "children": [{"queue": "plain", "name": "leaf 1"}, {"queue": "plain", "name": "leaf 2"}]}');
SELECT event_queue.enqueue_batch('[{"queue": "plain", "name": "of batch"}, {"queue": "plain", "name": "of batch"}]', '{"queue": "plain", "name": "end of batch"}');
SELECT event_queue.enqueue('plain', 'to fail', priority => 0, max_attempts => 1), event_queue.enqueue('plain', 'to fail once', priority => 0),
	event_queue.enqueue('plain', 'to complete', priority => 0);
SELECT event_queue.enqueue('plain', 'after the dead one', depends_on => ARRAY[(SELECT job_id FROM event_queue.jobs WHERE name = 'to fail')]);
SELECT event_queue.fail(job_id, lease_token, 'broken', '22012') FROM event_queue.claim('plain', 1, job_names => ARRAY['to fail']);
SELECT event_queue.fail(job_id, lease_token, 'once', retry_after => '1 second') FROM event_queue.claim('plain', 1, job_names => ARRAY['to fail once']);
SELECT event_queue.complete(job_id, lease_token, '{"done": true}') FROM event_queue.claim('plain', 1, job_names => ARRAY['to complete']);
SELECT event_queue.enqueue('handled', 'do', '{"by": "hand"}'), event_queue.enqueue('handled', 'do', '{"by": "hand"}', run_at => '2100-01-01');
SELECT pg_sleep(2.5); -- workers: handlers, rules, groups, snapshots
-- leases of workers outside
SELECT count(*) FROM event_queue.claim('plain', 3, 'outside', job_names => ARRAY['ready']);
SELECT count(*) FROM event_queue.claim('limited', 2, 'outside');
SELECT count(*) FROM event_queue.claim('grouped', 2, 'outside');
SELECT count(*) FROM event_queue.claim('fair', 2, 'outside');
SELECT event_queue.log_job(job_id, lease_token, 'half done'), event_queue.report_progress(job_id, lease_token, '{"percent": 50}')
FROM event_queue.job WHERE leased_until > now() AND queue_id = event_queue.queue_id_of('limited');
SELECT event_queue.take_snapshot('account', 'A1', 'acme');
