/*
 * setup.sql: what the fuzzer's statements find in the database: queues, jobs,
 * events, subscriptions, rules, handlers, and functions that name what exists
 * now, so that the text of a statement depends on the seed alone.
 */
SET client_min_messages = error;
CREATE EXTENSION event_queue;
CREATE SCHEMA fuzz;
GRANT USAGE, CREATE ON SCHEMA fuzz, public TO PUBLIC;

-- Jobs, leased ones first.  Row security does not apply to who made these
-- functions, so a bound role meets other tenants' jobs, too.
CREATE FUNCTION fuzz.job(n int) RETURNS bigint STABLE SECURITY DEFINER LANGUAGE sql AS $$
	SELECT job_id FROM event_queue.job ORDER BY lease_token IS NULL, job_id DESC OFFSET $1 LIMIT 1 $$;
CREATE FUNCTION fuzz.token(n int) RETURNS uuid STABLE SECURITY DEFINER LANGUAGE sql AS $$
	SELECT lease_token FROM event_queue.job WHERE job_id = fuzz.job($1) $$;
CREATE FUNCTION fuzz.jobs(n int) RETURNS bigint[] STABLE SECURITY DEFINER LANGUAGE sql AS $$
	SELECT array_agg(fuzz.job(i)) FROM generate_series(0, $1) i $$;
CREATE FUNCTION fuzz.tokens(n int) RETURNS uuid[] STABLE SECURITY DEFINER LANGUAGE sql AS $$
	SELECT array_agg(fuzz.token(i)) FROM generate_series(0, $1) i $$;
CREATE FUNCTION fuzz.dead(n int) RETURNS bigint STABLE SECURITY DEFINER LANGUAGE sql AS $$
	SELECT job_id FROM event_queue.dead_letter ORDER BY job_id DESC OFFSET $1 LIMIT 1 $$;
CREATE FUNCTION fuzz.event(n int) RETURNS event_queue.event_store STABLE SECURITY DEFINER LANGUAGE sql AS $$
	SELECT e FROM event_queue.event_store e ORDER BY position DESC OFFSET $1 LIMIT 1 $$;
CREATE FUNCTION fuzz.partition(n int) RETURNS text STABLE SECURITY DEFINER LANGUAGE sql AS $$
	SELECT name FROM event_queue_internal.event_partition ORDER BY partition_id OFFSET $1 LIMIT 1 $$;

-- What users would have as handlers, reducers and rules: good, failing, slow, wrong.
CREATE FUNCTION fuzz.reduce(state jsonb, event event_queue.event_store) RETURNS jsonb IMMUTABLE LANGUAGE sql AS $$
	SELECT coalesce($1, '{}') || jsonb_build_object($2.event_type, coalesce(($1 ->> $2.event_type)::int, 0) + 1) $$;
CREATE FUNCTION fuzz.reduce_null(state jsonb, event event_queue.event_store) RETURNS jsonb IMMUTABLE LANGUAGE sql AS 'SELECT NULL::jsonb';
CREATE FUNCTION fuzz.reduce_bad(state jsonb, event event_queue.event_store) RETURNS jsonb IMMUTABLE LANGUAGE plpgsql AS
	$$BEGIN RAISE EXCEPTION 'bad reducer' USING ERRCODE = 'F0001'; END$$;
CREATE TABLE fuzz.did (what text, at timestamptz DEFAULT clock_timestamp());
CREATE FUNCTION fuzz.handle(job event_queue.claimed_job) RETURNS void LANGUAGE sql SECURITY DEFINER AS
	$$INSERT INTO fuzz.did VALUES ($1.name)$$;
CREATE FUNCTION fuzz.handle_result(job event_queue.claimed_job) RETURNS jsonb LANGUAGE sql AS $$SELECT $1.payload$$;
CREATE FUNCTION fuzz.handle_bad(job event_queue.claimed_job) RETURNS void LANGUAGE plpgsql AS
	$$BEGIN RAISE EXCEPTION 'bad handler %', $1.name USING ERRCODE = 'F0002', DETAIL = repeat('x', 100000); END$$;
CREATE FUNCTION fuzz.handle_later(job event_queue.claimed_job) RETURNS void LANGUAGE plpgsql AS
	$$BEGIN RAISE EXCEPTION 'not now' USING ERRCODE = (ARRAY['EQ060', 'EQ061'])[1 + $1.job_id % 2], DETAIL = (ARRAY['', '0.01', 'NaN', '1e300', '-1'])[1 + $1.job_id % 5]; END$$;
CREATE FUNCTION fuzz.handle_slow(job event_queue.claimed_job) RETURNS void LANGUAGE sql AS 'SELECT pg_sleep(1)';
CREATE FUNCTION fuzz.see(event event_queue.event_store) RETURNS void LANGUAGE sql SECURITY DEFINER AS
	$$INSERT INTO fuzz.did VALUES ($1.event_type)$$;
CREATE FUNCTION fuzz.see_bad(event event_queue.event_store) RETURNS void LANGUAGE plpgsql AS
	$$BEGIN RAISE EXCEPTION 'bad rule' USING ERRCODE = 'F0003'; END$$;
CREATE TABLE fuzz.t1 (id int PRIMARY KEY, tenant text, note text);
CREATE TABLE fuzz.t2 ("quo""ted id" text, dropped int, v jsonb);
ALTER TABLE fuzz.t2 DROP COLUMN dropped;
CREATE VIEW fuzz.v1 AS SELECT * FROM fuzz.t1;
CREATE SEQUENCE fuzz.s1;
GRANT ALL ON ALL TABLES IN SCHEMA fuzz TO PUBLIC;

SELECT event_queue.create_queue('q1');
SELECT event_queue.create_queue('q2', fair => true, keep_completed => '1 hour', keep_failed => '1 hour');
SELECT event_queue.create_queue('q3', rate_limit => 50, max_concurrency => 5, max_attempts => 1);
SELECT event_queue.create_queue('q4', group_rate_limit => 5, group_retry => 'pass', durable => false, lease => '1 s', stalled_interval => '1 s');
SELECT event_queue.create_queue('qéü "x"', keep_completed_count => 10, backoff => 'fixed', backoff_jitter => 0.5, backoff_delay => '10 ms');
SELECT event_queue.create_handler('q1', 'work', 'fuzz.handle', '2 s'), event_queue.create_handler('q2', 'work', 'fuzz.handle_result'),
	event_queue.create_handler('q2', 'bad', 'fuzz.handle_bad'), event_queue.create_handler('q3', 'bad', 'fuzz.handle_slow', '200 ms'), event_queue.create_handler('q3', 'other', 'fuzz.handle_later');
SELECT event_queue.create_reducer('lead', 'fuzz.reduce', 5), event_queue.create_reducer('task', 'fuzz.reduce_bad', 5);
SELECT event_queue.create_rule('r1', 'lead.*', queue => 'q1', job_name => 'work'),
	event_queue.create_rule('r2', 'task.moved', $$(event_data ->> 'n')::int > 1$$, queue => 'q2', job_name => 'bad'),
	event_queue.create_rule('r3', 'deal.moved', function => 'fuzz.see_bad');
SELECT event_queue.create_rule('r4', 'deal.*', stop => true, start => 'beginning', when_changed => '{n}', actions => '[{"enqueue": {"queue": "q2", "name": "work", "unique_key": "$.aggregate_id"}},
	{"append": {"event_type": "lead.x", "event_data": {"n": "{{data.n}}"}}}, {"notify": {"channel": "ch1"}}, {"cancel": {"queue": "q3", "unique_key": "u1"}}, {"call": {"function": "fuzz.see"}}]');
SELECT event_queue.create_schedule('c1', '* * * * *', 'q1', 'work'),
	event_queue.create_schedule('c2', '* * * * * *', 'q2', 'work', overlap => 'cancel', catch_up => '1 min', jitter => '100 ms', tenant_id => 'a');
SELECT event_queue.create_alert('a1', 'queue_depth', threshold => 5), event_queue.create_alert('a2', 'dead_letters');
SELECT event_queue.create_subscription('s1'), event_queue.create_subscription('s2', '{"event_type": "lead.*"}', 0, 4),
	event_queue.create_subscription('s3', NULL, 0, 1, 'a');
SELECT count(event_queue.append(k, 'x' || n % 7, k || '.moved', jsonb_build_object('n', n), tenant_id => (ARRAY[NULL, 'a', 'b'])[n % 3 + 1]))
FROM generate_series(1, 60) n, unnest(ARRAY['lead', 'task', 'deal']) k;
SELECT count(event_queue.enqueue((ARRAY['q1', 'q2', 'q3', 'q4'])[n % 4 + 1], 'other', group_key => CASE n % 4 WHEN 3 THEN 'g' || n % 3 END,
	tenant_id => (ARRAY[NULL, 'a', 'b'])[n % 3 + 1])) FROM generate_series(1, 200) n;
SELECT count(*) FROM event_queue.claim('q2', 10) c, event_queue.claim('q3', 5) d;
SELECT count(event_queue.fail(job_id, lease_token, 'first', final => true)) FROM event_queue.claim('q1', 5);
SELECT fuzz.job(0) IS NOT NULL AND fuzz.token(0) IS NOT NULL AND fuzz.event(0) IS NOT NULL AND fuzz.dead(0) IS NOT NULL AS all_there;

-- The roles are of the cluster; the rights of this database.
SELECT event_queue.grant_admin('fz_admin'), event_queue.grant_producer('fz_producer'), event_queue.grant_consumer('fz_consumer'),
	event_queue.grant_worker('fz_worker'), event_queue.grant_observer('fz_observer'),
	event_queue.grant_producer('fz_producer_a', 'a'), event_queue.grant_consumer('fz_consumer_a', 'a'),
	event_queue.grant_worker('fz_worker_a', 'a'), event_queue.grant_observer('fz_observer_a', 'a');
