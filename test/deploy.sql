-- deploy.sql: what a deployment would run, once or often; sql/rules_twice.sql runs it twice.
SELECT event_queue.create_queue('deployed', max_attempts => 5, sla => '10 seconds', backoff_intervals => '{1 s, 1 day}', or_replace => true);
SELECT event_queue.create_queue('deployed once', lease => '1 minute', if_not_exists => true);
SELECT event_queue.create_subscription('deployed', '{"event_type": "lead.**"}', or_replace => true);
SELECT event_queue.create_subscription('deployed group', buckets => 8, if_not_exists => true);
SELECT event_queue.create_schedule('deployed', '0 3 * * *', 'deployed', 'clean', '{"keep": 5}', 'America/Sao_Paulo', or_replace => true);
SELECT event_queue.create_schedule('deployed once', '@daily', 'deployed', 'clean', if_not_exists => true);
CREATE OR REPLACE FUNCTION deployed_handler(job event_queue.claimed_job) RETURNS void LANGUAGE sql AS 'SELECT';
CREATE OR REPLACE FUNCTION deployed_reducer(state jsonb, event event_queue.event_store) RETURNS jsonb LANGUAGE sql IMMUTABLE
	AS $$ SELECT state || jsonb_build_object('events', coalesce((state ->> 'events')::int, 0) + 1) $$;
SELECT event_queue.create_handler('deployed', 'clean', 'deployed_handler', or_replace => true);
SELECT event_queue.create_reducer('deployed', 'deployed_reducer', or_replace => true);
SELECT event_queue.create_rule('deployed', 'lead.created', $$event_data ->> 'step' = '1'$$, 'deployed', 'call', '{"lead": "$.aggregate_id"}',
	delay => '1 minute', or_replace => true);
SELECT event_queue.create_rule('deployed once', 'lead.lost', queue => 'deployed', job_name => 'forget', if_not_exists => true);
SELECT event_queue.create_event_index('event_type', if_not_exists => true);
SELECT event_queue.create_event_partition('deployed tenant', if_not_exists => true);
SELECT event_queue.set_event_partitioning(every => '1 day');
SELECT event_queue.set_event_retention('1000 days');
CREATE TABLE IF NOT EXISTS deployed_table (id text PRIMARY KEY, v int);
SELECT event_queue.notify_on('deployed_table', 'deployed_channel', if_not_exists => true);
SELECT event_queue.record_changes('deployed_table', 'row', 'id', or_replace => true);
SELECT event_queue.grant_producer('deployed_app');
SELECT event_queue.grant_consumer('deployed_app');
SELECT event_queue.grant_worker('deployed_worker', 'deployed tenant');
SELECT event_queue.grant_observer('deployed_worker', 'deployed tenant');
SELECT event_queue.grant_admin('deployed_admin');
