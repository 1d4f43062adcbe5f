-- Tenants are apart: generated from the catalogs.
--
-- For each table, view and function of the schema, and each kind of role bound to tenant
-- B: no row of tenant A is seen, counted, changed or locked, nor told by an error.  All
-- that is A's bears the word "secret" or a number 777....  Functions are called with
-- arguments drawn by their types, each call a second time with the names and numbers of
-- things that do not exist: what differs between the two outcomes tells of A.
--
-- The setup is committed, so that readers behind the watermark see the events.
SET client_min_messages = warning;
CREATE ROLE ten_a;
CREATE ROLE ten_producer;
CREATE ROLE ten_consumer;
CREATE ROLE ten_worker;
CREATE ROLE ten_observer;
CREATE ROLE ten_member;		-- by membership, of all kinds
CREATE ROLE ten_admin;		-- an admin, bound by membership since
CREATE ROLE ten_boss;		-- an admin as admins are
CREATE ROLE ten_free;		-- bound to none: the test must see what it sees
SELECT event_queue.grant_producer('ten_a', 'tenant secret'), event_queue.grant_producer('ten_producer', 'tenant B'),
	event_queue.grant_consumer('ten_consumer', 'tenant B'), event_queue.grant_worker('ten_worker', 'tenant B'),
	event_queue.grant_observer('ten_observer', 'tenant B'), event_queue.grant_admin('ten_admin'), event_queue.grant_admin('ten_boss'),
	event_queue.grant_observer('ten_free'), event_queue.grant_producer('ten_free'), event_queue.grant_worker('ten_free');
GRANT ten_producer, ten_consumer, ten_worker, ten_observer TO ten_member;
GRANT ten_producer TO ten_admin;

-- What A has.
SELECT setval('event_queue.job_job_id_seq', 7770000), setval('event_queue.subscription_subscription_id_seq', 7770000),
	setval('event_queue.rule_rule_id_seq', 7770000), setval('event_queue.schedule_schedule_id_seq', 7770000),
	event_queue_internal.skip_positions(7770000000);
SELECT event_queue.create_queue('shared queue', max_concurrency => 100, keep_completed => '1 day', max_attempts => 1);
SELECT event_queue.create_event_partition('tenant secret');
SELECT event_queue.append('secret-type', 'secret-id', 'secret.happened', '{"secret": 1}', tenant_id => 'tenant secret') FROM generate_series(1, 4);
SELECT event_queue.take_snapshot('secret-type', 'secret-id', 'tenant secret');
SELECT event_queue.enqueue('shared queue', n, '{"secret": true}', tenant_id => 'tenant secret', priority => 0, options => '{"metadata": {"secret": 1}}')
FROM unnest('{secret-completed,secret-dead,secret-leased}'::text[]) n;
SELECT event_queue.claim('shared queue', 3, 'secret-worker', lease => '1 day');
SELECT event_queue.log_job(job_id, lease_token, 'secret line') FROM event_queue.job WHERE name = 'secret-leased';
SELECT event_queue.step_done(job_id, lease_token, 'secret step', '"secret"') FROM event_queue.job WHERE name = 'secret-leased';
SELECT event_queue.send_signal('secret signal', 'secret key', '"secret"', tenant_id => 'tenant secret');
SELECT event_queue.step_done(job_id, lease_token, 'secret step', '"secret"') FROM event_queue.job WHERE name = 'secret-completed';
SELECT event_queue.complete(job_id, lease_token, '"secret"') FROM event_queue.job WHERE name = 'secret-completed';
SELECT event_queue.fail(job_id, lease_token, 'secret error') FROM event_queue.job WHERE name = 'secret-dead';
SELECT event_queue.enqueue('shared queue', 'secret-waiting', '{"secret": true}', unique_key => 'secret-key', tenant_id => 'tenant secret', options => '{"unique_mode": "throttle", "unique_window": "1 day"}'),
	event_queue.enqueue('shared queue', 'secret-grouped', group_key => 'secret-group', tenant_id => 'tenant secret'),
	event_queue.enqueue('shared queue', 'secret-delayed', delay => '1 day', tenant_id => 'tenant secret');
SELECT event_queue.enqueue('shared queue', 'secret-dependent', depends_on => ARRAY(SELECT job_id FROM event_queue.job WHERE name = 'secret-waiting'),
	tenant_id => 'tenant secret');
SELECT event_queue.create_rule('secret-rule', 'secret.never', queue => 'shared queue', job_name => 'secret', tenant_id => 'tenant secret'),
	event_queue.backfill_rule('secret-rule', 0, 0),
	event_queue.create_schedule('secret-schedule', '0 0 1 1 *', 'shared queue', 'secret', tenant_id => 'tenant secret'),
	event_queue.create_subscription('secret-sub', buckets => 2, tenant_id => 'tenant secret');
BEGIN;
SET LOCAL event_queue.tenant = 'tenant secret';
SELECT event_queue.fetch_events('secret-sub');
SELECT event_queue.park_event('secret-sub', min(position), 'secret error') FROM event_queue.event_store WHERE aggregate_type = 'secret-type';
COMMIT;
INSERT INTO event_queue_internal.group_rate VALUES ((SELECT queue_id FROM event_queue.queue WHERE name = 'shared queue'), 'tenant secret', 'secret-group', now());
SELECT event_queue.trigger_schedule('secret-schedule');
INSERT INTO event_queue_internal.timer_end VALUES ((SELECT queue_id FROM event_queue.queue WHERE name = 'shared queue'), 'tenant secret', 'secret-key', 1);
INSERT INTO event_queue_internal.timer_start VALUES ((SELECT queue_id FROM event_queue.queue WHERE name = 'shared queue'), 'tenant secret', 'secret-key', 1, 1, 0);
INSERT INTO event_queue.job_trace VALUES (7770001, 7770001, 'tenant secret', 'secret', 'secret', 'secret', NULL, 'done', now(), now());
INSERT INTO event_queue_internal.rule_root (tenant_id, root, actions) VALUES ('tenant secret', 'secret', 7770001);

-- What B has.
SELECT setval('event_queue.job_job_id_seq', 5550000), setval('event_queue.subscription_subscription_id_seq', 5550000),
	event_queue_internal.skip_positions(8880000000);
SELECT event_queue.append('b-type', 'b-id', 'b.happened', tenant_id => 'tenant B') FROM generate_series(1, 4);
SELECT event_queue.enqueue('shared queue', 'b-job', tenant_id => 'tenant B'),
	event_queue.create_subscription('b-sub', tenant_id => 'tenant B');

BEGIN;
SELECT no_plan();
INSERT INTO event_queue_internal.job_review (queue_id, tenant_id, group_key) VALUES (7770001, 'tenant secret', 'secret-group');
INSERT INTO event_queue_internal.group_review_at VALUES (7770001, 'tenant secret', 'secret-group', 'infinity');
INSERT INTO event_queue_internal.step_behind VALUES ('tenant secret', 7770001);

CREATE SCHEMA ten;
CREATE TABLE ten.role AS SELECT r AS name, r NOT IN ('ten_free', 'ten_boss') AS bound
FROM unnest(ARRAY['ten_producer', 'ten_consumer', 'ten_worker', 'ten_observer', 'ten_member', 'ten_admin', 'ten_free', 'ten_boss']) r;
CREATE TABLE ten.relation AS SELECT c.oid::regclass AS rel, c.relkind
FROM pg_class c WHERE c.relnamespace IN ('event_queue'::regnamespace, 'event_queue_internal'::regnamespace) AND c.relkind IN ('r', 'p', 'v', 'm', 'f');
CREATE TABLE ten.bad (role text, what text, call text, outcome text);
CREATE TABLE ten.seen (role text, what text);	-- what ten_free could see: the test can fail

-- The state of what is A's, of all tables, with the locks on rows (xmax); not of what B has given A's names.
SELECT format('CREATE FUNCTION ten.state() RETURNS text LANGUAGE sql AS $f$ SELECT md5(string_agg(x, %L ORDER BY x)) FROM (%s) s (x) $f$', E'\n',
	string_agg(format('SELECT %L || t::text || t.xmax FROM ONLY %s t WHERE t::text ~ ''tenant secret|(?<![\d.])777\d{4}(?!\d)'' AND t::text !~ ''tenant B''
		AND (t::text !~ ''^\(555'' OR t::text ~ ''tenant secret'')', rel, rel), ' UNION ALL '))
FROM ten.relation WHERE relkind = 'r' AND rel::text !~ 'metric_' /* the scheduler writes these meanwhile */ \gexec

-- Of a table without tenants: true.
CREATE FUNCTION ten.has_row(rel regclass) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
	found boolean;
BEGIN
	IF NOT EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = rel AND a.attname = 'tenant_id' AND NOT a.attisdropped) THEN
		RETURN true;
	END IF;
	EXECUTE format('SELECT EXISTS (SELECT FROM %s WHERE tenant_id = %L)', rel, 'tenant secret') INTO found;
	RETURN found;
END
$$;

-- Runs a statement as a role and rolls it back; what came of it.  how: by SET ROLE, or as the
-- session's user.
CREATE FUNCTION ten.attempt(role text, how text, statement text, watch boolean) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	result text;
	before text := CASE WHEN watch THEN ten.state() END;
	message text;
	detail text;
	hint text;
BEGIN
	BEGIN
		EXECUTE format('SET LOCAL %s %I', how, role);
		EXECUTE statement INTO result;
		RESET SESSION AUTHORIZATION;
		RESET ROLE;
		IF watch AND ten.state() IS DISTINCT FROM before THEN
			result := 'CHANGED ' || coalesce(result, '');
		END IF;
		IF EXISTS (SELECT FROM pg_locks l JOIN pg_class c ON c.oid = l.relation AND c.relnamespace IN ('event_queue'::regnamespace, 'event_queue_internal'::regnamespace)
			WHERE l.pid = pg_backend_pid() AND l.mode NOT IN ('AccessShareLock', 'RowShareLock', 'RowExclusiveLock')) THEN
			result := 'LOCKED ' || coalesce(result, '');
		END IF;
		RAISE EXCEPTION USING ERRCODE = 'TSTOK', MESSAGE = 'ok ' || coalesce(result, '');
	EXCEPTION WHEN OTHERS THEN
		GET STACKED DIAGNOSTICS message = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
		RETURN CASE WHEN SQLSTATE = 'TSTOK' THEN message ELSE format('%s: %s | %s | %s', SQLSTATE, message, detail, hint) END;
	END;
END
$$;

-- Arguments by type and name: what is A's or anybody's, and its twin that does not exist.
CREATE TABLE ten.value (type regtype, names text[], real text, twin text);
INSERT INTO ten.value
SELECT 'bigint'::regtype, '{job_id}'::text[], job_id::text, '7779999' FROM event_queue.job WHERE tenant_id = 'tenant secret'
UNION ALL SELECT 'bigint', '{job_id}', job_id::text, '7779999' FROM event_queue.dead_letter WHERE tenant_id = 'tenant secret'
UNION ALL SELECT 'bigint', '{job_id}', job_id::text, '7779999' FROM event_queue.job_history WHERE tenant_id = 'tenant secret'
UNION ALL SELECT 'bigint', NULL, position::text, '7770009999' FROM event_queue.event_store WHERE tenant_id = 'tenant secret'
UNION ALL SELECT 'bigint', NULL, '0', '0'
UNION ALL SELECT 'uuid', '{lease_token}', lease_token::text, '77777777-7777-7777-8777-777777777777' FROM event_queue.job WHERE name = 'secret-leased'
UNION ALL SELECT 'uuid', '{id,event_id}', id::text, '77777777-7777-7777-8777-777777777777' FROM event_queue.event_store WHERE tenant_id = 'tenant secret'
UNION ALL SELECT 'bigint[]', NULL, ARRAY(SELECT job_id FROM event_queue.job WHERE tenant_id = 'tenant secret')::text, '{7779999,7779998,7779997,7779996,7779995}'
UNION ALL SELECT 'bigint[]', '{job_ids,depends_on}', ARRAY(SELECT job_id FROM event_queue.job WHERE name = 'secret-leased')::text, '{7779999}'
UNION ALL SELECT 'uuid[]', NULL, ARRAY(SELECT lease_token FROM event_queue.job WHERE name = 'secret-leased')::text, '{77777777-7777-7777-8777-777777777777}'
UNION ALL SELECT 'jsonb', '{jobs,flow,finally}', format('[{"name": "x", "depends_on": [%s]}]', job_id), '[{"name": "x", "depends_on": [7779999]}]'
	FROM event_queue.job WHERE name = 'secret-leased'
UNION ALL SELECT t::regtype, string_to_array(n, ','), v, replace(v, 'secret', 'absent') FROM (VALUES
	('text', 'name', 'secret-sub'), ('text', 'name', 'secret-rule'), ('text', 'name', 'secret-schedule'), ('text', 'name', 'b-sub'),
	('text', 'name,queue', 'shared queue'), ('text', 'queue', 'shared queue'), ('text', 'queue', 'rule-calls'),
	('text', 'name,table_name', 'event_store_t1'), ('text', 'job_name', 'secret-waiting'), ('text', 'job_name', '*'),
	('text', 'tenant_id,tenant', NULL), ('text', 'tenant_id,tenant', 'tenant B'), ('text', 'tenant_id,tenant', 'tenant secret'),
	('text', 'aggregate_type,by', 'secret-type'), ('text', 'aggregate_type', 'b-type'), ('text', 'by', 'event_type'),
	('text', 'aggregate_id', 'secret-id'), ('text', 'aggregate_id', 'b-id'),
	('text', 'event_type,pattern,event_pattern', 'secret.happened'), ('text', 'expected_version', 'any'), ('text', 'expected_version', 'none'),
	('text', 'unique_key', 'secret-key'), ('text', 'unique_key', NULL), ('text', 'group_key', 'secret-group'), ('text', 'group_key', NULL),
	('text', 'unique_mode', 'replace'), ('text', 'unique_mode', 'reject'), ('text', 'unique_until', 'finished'),
	('text', 'backoff', 'fixed'), ('text', 'sqlstate', 'P0001'), ('text', 'worker,message,error,level', 'word'), ('text', 'cron', '0 0 1 1 *'),
	('text', 'time_zone', 'UTC'), ('text', 'function', 'pg_catalog.now'), ('text', 'archive_schema', 'ten'),
	('text', 'condition', NULL), ('text', 'setting', 'x'),
	('text', NULL, 'secret-sub'), ('text', NULL, 'tenant secret'), ('text', NULL, 'word'), ('text', NULL, NULL),
	('jsonb', NULL, '{}'), ('jsonb', NULL, '[]'), ('jsonb', NULL, NULL),
	('jsonb', 'filter', '{"tenant_id": "tenant secret"}'), ('jsonb', 'filter', '{"aggregate_id": "secret-id"}'),
	('jsonb', 'metadata', '{"causation_id": "secret", "reverted_to": 1}'), ('jsonb', 'events', '[{"event_type": "secret.happened"}]'),
	('jsonb', 'batch,appends,aggregates', '[{"aggregate_type": "secret-type", "aggregate_id": "secret-id", "events": [{"event_type": "x"}]}]'),
	('jsonb', 'jobs', '[{"name": "x", "unique_key": "secret-key"}]'), ('jsonb', 'jobs', '[{"name": "x", "tenant_id": "tenant secret"}]'),
	('jsonb', 'flow,finally', '{"name": "x", "children": [{"name": "y", "unique_key": "secret-key"}]}'),
	('jsonb', 'settings', '{"lease": "1 minute"}'),
	('jsonb[]', NULL, '{"{}"}'), ('text[]', 'job_names', '{secret-waiting}'), ('text[]', NULL, NULL),
	('integer', NULL, '1'), ('integer', NULL, '0'), ('integer', NULL, '5'), ('integer', NULL, NULL),
	('boolean', NULL, 'true'), ('boolean', NULL, 'false'), ('interval', NULL, NULL), ('interval', NULL, '1 minute'),
	('timestamp with time zone', NULL, NULL), ('timestamp with time zone', NULL, '2000-01-01'),
	('double precision', NULL, '0.5')) AS x (t, n, v);

-- One call of a function, with arguments drawn, and its twin.  Arguments at the end that have
-- defaults are left out at times.
CREATE FUNCTION ten.draw(function oid, OUT call text, OUT twin text) LANGUAGE plpgsql AS $$
DECLARE
	p pg_proc := (SELECT p FROM pg_proc p WHERE p.oid = function);
	types oid[] := string_to_array(p.proargtypes::text, ' ');
	n int := p.pronargs - floor(random() * (p.pronargdefaults + 1))::int;
	v ten.value;
BEGIN
	call := '';
	twin := '';
	FOR i IN 1 .. n LOOP
		-- Rather what is meant for an argument of this name.
		SELECT x.* INTO v FROM ten.value x
		WHERE x.type = types[i] AND (x.names IS NULL OR p.proargnames[i] = ANY (x.names))
		ORDER BY random() * CASE WHEN x.names IS NULL THEN 1 ELSE 0.5 END LIMIT 1;
		call := concat(call, CASE WHEN i > 1 THEN ', ' END, format('%L::%s', v.real, types[i]::regtype));
		twin := concat(twin, CASE WHEN i > 1 THEN ', ' END, format('%L::%s', v.twin, types[i]::regtype));
	END LOOP;
	call := format('SELECT coalesce(string_agg(r::text, %L), %L) FROM event_queue.%I(%s) r', E'\n', '', p.proname, call);
	twin := format('SELECT coalesce(string_agg(r::text, %L), %L) FROM event_queue.%I(%s) r', E'\n', '', p.proname, twin);
END
$$;

-- Without what differs from call to call, and the names that were given.
CREATE FUNCTION ten.normal(outcome text) RETURNS text LANGUAGE sql IMMUTABLE AS $$
	SELECT regexp_replace(regexp_replace(replace($1, 'absent', 'secret'),
		'[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}', 'UUID', 'g'), '-?\d+([:.]\d+)*', '#', 'g')
$$;

-- Does the outcome tell names or numbers of A's that are not in the call?  Not by the digits
-- of a random id.
CREATE FUNCTION ten.tells(outcome text, call text) RETURNS boolean LANGUAGE sql IMMUTABLE AS $$
	SELECT EXISTS (SELECT FROM regexp_matches(regexp_replace($1, '[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}', '', 'g'), 'secret[- .]\w+|(?<![\w.:-])777\d{4}(?!\w)', 'g') m WHERE strpos($2, m[1]) = 0)
$$;

-- Tables and views.
DO $$
DECLARE
	r record;
	outcome text;
	mode text;
BEGIN
	FOR r IN SELECT o.name AS role, o.bound, x.rel, x.relkind FROM ten.role o, ten.relation x LOOP
		FOREACH mode IN ARRAY ARRAY['INSERT', 'UPDATE', 'DELETE', 'TRUNCATE', 'REFERENCES', 'TRIGGER'] LOOP
			IF has_table_privilege(r.role, r.rel, mode) OR (mode IN ('INSERT', 'UPDATE', 'REFERENCES') AND has_any_column_privilege(r.role, r.rel, mode)) THEN
				INSERT INTO ten.bad VALUES (r.role, r.rel::text, mode, 'has the right');
			END IF;
		END LOOP;
		IF r.relkind <> 'v' THEN
			FOREACH mode IN ARRAY ARRAY['ROW SHARE', 'ROW EXCLUSIVE', 'SHARE', 'ACCESS EXCLUSIVE'] LOOP
				outcome := ten.attempt(r.role, 'ROLE', format('LOCK TABLE %s IN %s MODE', r.rel, mode), false);
				IF outcome NOT LIKE '42501: %' THEN
					INSERT INTO ten.bad VALUES (r.role, r.rel::text, 'LOCK TABLE ' || mode, outcome);
				END IF;
			END LOOP;
		END IF;
		FOREACH mode IN ARRAY ARRAY['ROLE', 'SESSION AUTHORIZATION'] LOOP
			outcome := ten.attempt(r.role, mode, format('SELECT string_agg(t::text, ''; '') FROM %s t WHERE t::text ~ ''secret|(?<![\d.])777\d{4}(?!\d)''', r.rel), false);
			IF outcome <> 'ok ' AND outcome NOT LIKE '42501: permission denied for %' THEN
				IF r.bound THEN
					INSERT INTO ten.bad VALUES (r.role, r.rel::text, 'SELECT', outcome);
				ELSE
					INSERT INTO ten.seen VALUES (r.role, r.rel::text);
				END IF;
			END IF;
		END LOOP;
	END LOOP;
END
$$;
SELECT is_empty(format('SELECT what, call, outcome FROM ten.bad WHERE role = %L', name), name || ': no table or view shows a row of another tenant, can be written or locked')
FROM ten.role ORDER BY name;
-- The test sees something where there is something to be seen.
SELECT is_empty($$
	SELECT c.oid::regclass FROM pg_class c
	JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'tenant_id' AND NOT a.attisdropped
	WHERE c.relnamespace IN ('event_queue'::regnamespace, 'event_queue_internal'::regnamespace) AND c.relkind = 'v' AND has_table_privilege('ten_observer', c.oid, 'SELECT')
	  AND c.oid::regclass::text NOT IN (SELECT what FROM ten.seen)
$$, 'of each view of tenants, an observer that is bound to none sees something of A');
SELECT is_empty($$
	SELECT r.rel FROM ten.relation r
	WHERE r.relkind IN ('r', 'p') AND NOT EXISTS (SELECT FROM pg_inherits i WHERE i.inhrelid = r.rel) AND NOT ten.has_row(r.rel)
$$, 'A has rows in every table of tenants');

-- Functions.
DELETE FROM ten.bad;
DO $$
DECLARE
	r record;
	drawn record;
	outcome text;
	other text;
	how text;
BEGIN
	PERFORM setseed(0.42);
	FOR r IN SELECT o.name AS role, o.bound, p.oid, p.proname, p.provolatile = 'v' AS watch
		FROM ten.role o, pg_proc p
		WHERE p.pronamespace = 'event_queue'::regnamespace AND p.prokind = 'f' AND p.prorettype <> 'trigger'::regtype
		  AND has_function_privilege(o.name, p.oid, 'EXECUTE') AND (o.bound OR p.provolatile <> 'v')
		ORDER BY 1, 4, 3
	LOOP
		FOR i IN 1 .. CASE WHEN r.bound THEN 12 ELSE 60 END LOOP		-- what is shown to others must be met by chance
			drawn := ten.draw(r.oid);
			how := CASE i % 2 WHEN 0 THEN 'ROLE' ELSE 'SESSION AUTHORIZATION' END;
			outcome := ten.attempt(r.role, how, drawn.call, r.watch);
			IF NOT r.bound THEN
				IF outcome ~ 'ok .*secret' THEN
					INSERT INTO ten.seen VALUES (r.role, r.proname);
				END IF;
				CONTINUE;
			END IF;
			other := ten.attempt(r.role, how, drawn.twin, false);
			-- Once more, and once more: the workers change something now and then, a call does each time.
			FOR again IN 1 .. 3 LOOP
				EXIT WHEN outcome !~ '^ok (CHANGED|LOCKED)' AND ten.normal(outcome) = ten.normal(other) AND NOT ten.tells(outcome, drawn.call);
				IF again = 3 THEN
					INSERT INTO ten.bad VALUES (r.role, r.proname, drawn.call, outcome || E'\n  but ' || other);
				ELSE
					outcome := ten.attempt(r.role, how, drawn.call, r.watch);
					other := ten.attempt(r.role, how, drawn.twin, false);
				END IF;
			END LOOP;
		END LOOP;
	END LOOP;
END
$$;
SELECT is_empty(format('SELECT what, call, outcome FROM ten.bad WHERE role = %L', name), name || ': no function shows, changes, locks or tells of a row of another tenant')
FROM ten.role WHERE bound ORDER BY name;
SELECT ok(EXISTS (SELECT FROM ten.seen WHERE what = f), 'by the same calls of ' || f || ', a role that is bound to none is shown something of A')
FROM unnest('{trace,dependency_results}'::text[]) f;

-- An admin may call all that is offered, and no function is refused what it needs.
DELETE FROM ten.bad;
DO $$
DECLARE
	f record;
	call text;
	outcome text;
BEGIN
	FOR f IN SELECT p.oid, p.proname FROM pg_proc p
		WHERE p.pronamespace = 'event_queue'::regnamespace AND p.prokind = 'f' AND p.prorettype <> 'trigger'::regtype
		  AND obj_description(p.oid, 'pg_proc') NOT LIKE 'Internal.%' AND p.proname NOT LIKE 'grant\_%'
		  AND p.proname NOT IN ('revoke_access', 'new_generation') ORDER BY 2, 1
	LOOP
		FOR i IN 1 .. 12 LOOP
			SELECT d.call INTO call FROM ten.draw(f.oid) d;
			outcome := ten.attempt('ten_boss', 'SESSION AUTHORIZATION', call, false);
			-- schemas that it has no right to make anything in
			IF outcome LIKE '42501:%' AND outcome !~ 'schema (ten|public)' THEN
				INSERT INTO ten.bad VALUES ('ten_boss', f.proname, call, outcome);
			END IF;
		END LOOP;
	END LOOP;
END
$$;
SELECT is_empty('SELECT what, call, outcome FROM ten.bad', 'no function that is offered to an admin fails for want of a right');
SELECT is_empty($$
	SELECT r.name, p.oid::regprocedure FROM ten.role r, pg_proc p
	WHERE (p.pronamespace = 'event_queue_internal'::regnamespace AND has_function_privilege(r.name, p.oid, 'EXECUTE')
		   -- what CHECKs and BEGIN ATOMIC functions with their caller's rights need
		   AND NOT has_function_privilege('public', p.oid, 'EXECUTE') AND p.proname NOT IN ('make_recording', 'make_notifying', 'channel_id_of', 'audit', 'kept_definition', 'define_rule', 'check_adopts')
		   AND obj_description(p.oid, 'pg_proc') NOT LIKE 'For views.%')
	   OR has_schema_privilege(r.name, 'event_queue_internal', 'USAGE')
	   OR (p.pronamespace = 'event_queue'::regnamespace AND obj_description(p.oid, 'pg_proc') LIKE 'Internal.%'
		   AND NOT has_function_privilege('public', p.oid, 'EXECUTE'))
$$, 'no role may call what is internal');
SELECT * FROM finish();
ROLLBACK;
