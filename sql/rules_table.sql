-- Rules on plain tables.
CREATE SCHEMA rt;
SELECT event_queue.create_queue('rt') IS NOT NULL AS created;
CREATE TABLE rt.lead (id int PRIMARY KEY, status text, amount numeric, tags json, company text);
CREATE VIEW rt.met AS SELECT j.name, j.payload, j.tenant_id, j.metadata ->> 'rule_version' AS version FROM event_queue.job j
	WHERE queue_id = event_queue_internal.queue_id_of('rt') ORDER BY job_id;
CREATE FUNCTION rt.triggers() RETURNS SETOF text LANGUAGE sql AS $$
	SELECT regexp_replace(pg_get_triggerdef(t.oid), '\d+', 'N', 'g') FROM pg_trigger t WHERE t.tgrelid IN (SELECT oid FROM pg_class WHERE relnamespace = 'rt'::regnamespace)
	AND tgparentid = 0 AND NOT tgisinternal ORDER BY 1
$$;
SELECT event_queue.create_rule('rt all', on_table => 'rt.lead', queue => 'rt', job_name => 'all',
	payload => '{"is": "$.data.operation", "old": "$.data.old.status", "new": "$.data.new.status", "changed": "$.data.changed", "key": "$.data.key", "table": "$.data.table"}') > 0 AS created;
SELECT event_queue.create_rule('rt won', on_table => 'rt.lead', on_change => '{update}', when_changed => '{status,tags}',
	condition => $$new ->> 'status' = 'won' AND old ->> 'status' <> 'won'$$, queue => 'rt', job_name => 'won', payload => '{"id": "$.data.new.id"}') > 0 AS created;
-- Other rules do not meet these events.
SELECT event_queue.create_rule('rt other', 'table.**', queue => 'rt', job_name => 'other') > 0 AS created;
SELECT rt.triggers();
SELECT name, event_pattern ~ '^table\.\d+\.\*$' AS pattern, on_table, on_change, when_changed, tenant_column FROM event_queue.rules WHERE name LIKE 'rt %' ORDER BY 1;
INSERT INTO rt.lead VALUES (1, 'new', 1, '{"a": 1}'), (2, 'new', 1, '{}');
UPDATE rt.lead SET amount = amount;
UPDATE rt.lead SET amount = 2 WHERE id = 1;
UPDATE rt.lead SET status = 'won' WHERE id = 1;
UPDATE rt.lead SET tags = '{"b": 1}' WHERE id = 1;
DELETE FROM rt.lead WHERE id = 2;
BEGIN;
INSERT INTO rt.lead VALUES (3, 'never', 1);
ROLLBACK;
TRUNCATE rt.lead;
CALL wait_until($$(SELECT count(*) = 7 FROM rt.met)$$);
SELECT name, payload, tenant_id, version FROM rt.met ORDER BY name, payload::text;
SELECT rule, seen, matched FROM event_queue.rule_stats WHERE rule LIKE 'rt %' ORDER BY 1;
SELECT count(DISTINCT aggregate_id) FROM event_queue.event_store e JOIN event_queue.rules r ON r.name = 'rt all'
	AND event_queue.event_matches(e.event_type, r.event_pattern) WHERE aggregate_type = 'event_queue.table';
SELECT x.step, x.part, x.seen, x.compared, x.outcome FROM event_queue.event_store e JOIN event_queue.rules r ON r.name = 'rt won'
	AND event_queue.event_matches(e.event_type, r.event_pattern), event_queue.explain_rule('rt won', e.id) x
WHERE e.aggregate_type = 'event_queue.table' AND e.event_data -> 'changed' = '["status"]' AND x.step IN ('when_changed', 'condition', 'action', 'verdict');
SELECT outcome, payload FROM event_queue.test_rule('rt won');
SELECT outcome, count(*) FROM event_queue.test_rule('rt other') GROUP BY 1;
SELECT x.part, x.outcome FROM event_queue.event_store e, event_queue.explain_rule('rt other', e.id) x
WHERE e.aggregate_type = 'event_queue.table' AND e.event_data -> 'changed' = '["status"]' AND e.event_data ->> 'table' = 'rt.lead' AND x.step IN ('pattern', 'verdict') GROUP BY 1, 2;

-- What cannot be.
CREATE TEMP TABLE rt_temp (id int);
CREATE VIEW rt.view AS SELECT 1 AS id;
CREATE FUNCTION rt.try(arguments text) RETURNS text LANGUAGE sql AS $$
	SELECT try(format($f$SELECT event_queue.create_rule('rt bad', queue => 'rt', job_name => 'x', %s)$f$, arguments)) $$;
SELECT a, replace(rt.try(a), pg_my_temp_schema()::regnamespace::text, 'pg_temp') AS try FROM unnest(ARRAY[$$on_table => 'rt.lead', event_pattern => 'x'$$, $$on_change => '{insert}', event_pattern => 'x'$$, $$tenant_column => 'x', event_pattern => 'x'$$, $$start => 'now'$$,
	$$on_table => 'rt.lead', on_change => '{}'$$, $$on_table => 'rt.lead', on_change => '{truncate}'$$, $$on_table => 'rt.lead', on_change => '{insert,NULL}'$$, $$on_table => 'rt.none'$$,
	$$on_table => 'rt.view'$$, $$on_table => 'pg_class'$$, $$on_table => 'event_queue.job'$$, $$on_table => 'rt_temp'$$, $$on_table => 'rt.lead', tenant_column => 'none'$$,
	$$on_table => 'rt.lead', when_changed => '{none}'$$, $$on_table => 'rt.lead', condition => 'new.status = 1'$$]) a;
SELECT try($$SELECT event_queue.append('event_queue.table', '1', 'table.1.inserted')$$);
SELECT rt.triggers();

-- Created again, as it was: nothing is locked; otherwise: from now on as it is.
BEGIN;
SELECT event_queue.create_rule('rt won', on_table => 'rt.lead', on_change => '{update}', when_changed => '{status,tags}',
	condition => $$new ->> 'status' = 'won' AND old ->> 'status' <> 'won'$$, queue => 'rt', job_name => 'won', payload => '{"id": "$.data.new.id"}', or_replace => true) > 0 AS replaced;
SELECT event_queue.create_rule('rt won', on_table => 'rt.lead', on_change => '{update}', when_changed => '{status,tags}',
	condition => $$new ->> 'status' = 'won' AND old ->> 'status' <> 'won'$$, queue => 'rt', job_name => 'won', payload => '{"id": "$.data.new.id"}', if_not_exists => true) > 0 AS exists;
SELECT mode FROM pg_locks WHERE relation = 'rt.lead'::regclass AND pid = pg_backend_pid() AND mode <> 'AccessShareLock';
COMMIT;
SELECT version FROM event_queue.rules WHERE name = 'rt won';
SELECT event_queue.create_rule('rt won', on_table => 'rt.lead', on_change => '{insert,delete}', queue => 'rt', job_name => 'won', payload => '{"id": "$.data.key.id"}', or_replace => true) > 0 AS replaced;
SELECT rt.triggers();
INSERT INTO rt.lead VALUES (4, 'won');
UPDATE rt.lead SET status = 'lost';
CALL wait_until($$EXISTS (SELECT FROM rt.met WHERE payload = '{"id": 4}')$$);
SELECT event_queue.rollback_rule('rt won', 1);
SELECT rt.triggers();

-- A draft leaves the triggers as they are.
SELECT event_queue.create_rule('rt won', on_table => 'rt.lead', on_change => '{delete}', queue => 'rt', job_name => 'won', draft => true) > 0 AS drafted;
SELECT version, present, draft, definition -> 'on_change' AS on_change FROM event_queue.rule_versions WHERE rule = 'rt won' ORDER BY 1;
SELECT count(*) FROM rt.triggers();
SELECT event_queue.activate_rule('rt won');
SELECT rt.triggers();

-- Paused and caught up.
SELECT event_queue.pause_rule('rt won');
DELETE FROM rt.lead WHERE id = 4;
SELECT event_queue.resume_rule('rt won', 'catch_up');
CALL wait_until($$(SELECT count(*) = 3 FROM rt.met WHERE name = 'won')$$);

-- Renamed; nothing has to be said again.
ALTER TABLE rt.lead RENAME TO deal;
ALTER TABLE rt.deal RENAME COLUMN status TO stage;
SELECT event_queue.rollback_rule('rt won', 1) IS NULL;
SELECT event_queue.create_rule('rt won', on_table => 'rt.deal', on_change => '{update}', when_changed => '{stage}', queue => 'rt', job_name => 'stage',
	payload => '{"stage": "$.data.new.stage", "table": "$.data.table"}', or_replace => true) > 0 AS replaced;
ALTER TABLE rt.deal RENAME COLUMN stage TO step;
INSERT INTO rt.deal VALUES (5, 'a');
UPDATE rt.deal SET step = 'b';
UPDATE rt.deal SET amount = 7;
CALL wait_until($$EXISTS (SELECT FROM rt.met WHERE name = 'stage')$$);
SELECT payload FROM rt.met WHERE name = 'stage';
SELECT regexp_replace(try('ALTER TABLE rt.deal DROP COLUMN step'), '_[0-9]+_', '_N_', 'g');
-- To events, and back.
SELECT event_queue.create_rule('rt won', 'rt.x', queue => 'rt', job_name => 'stage', or_replace => true) > 0 AS replaced;
SELECT count(*) FROM rt.triggers();
SELECT event_queue.create_rule('rt won', on_table => 'rt.deal', on_change => '{delete}', queue => 'rt', job_name => 'gone', or_replace => true) > 0 AS replaced;

-- Partitions, no key, a tenant in the row.
CREATE TABLE rt.part (region text, n int, company text, PRIMARY KEY (region, n)) PARTITION BY LIST (region);
CREATE TABLE rt.part_a PARTITION OF rt.part FOR VALUES IN ('a');
CREATE TABLE rt.bag (x text);
SELECT event_queue.create_rule('rt part', on_table => 'rt.part', when_changed => '{n}', tenant_column => 'company', queue => 'rt', job_name => 'part',
	payload => '{"is": "$.data.operation", "key": "$.data.key", "table": "$.data.table"}') > 0 AS created;
SELECT event_queue.create_rule('rt bag', on_table => 'rt.bag', queue => 'rt', job_name => 'bag', payload => '{"size": "{{data.new.x}}", "left_out": "$.data.left_out"}') > 0 AS created;
SELECT try($$SELECT event_queue.create_rule('rt bad', on_table => 'rt.part_a', queue => 'rt', job_name => 'x')$$);
CREATE TABLE rt.part_b (n int NOT NULL, company text, region text NOT NULL);
ALTER TABLE rt.part ATTACH PARTITION rt.part_b FOR VALUES IN ('b');
INSERT INTO rt.part VALUES ('a', 1, 'acme'), ('b', 2, 'acme'), ('b', 3, NULL);
UPDATE rt.part SET n = n + 10 WHERE n = 2;
INSERT INTO rt.bag VALUES ('x'), ('x');
DELETE FROM rt.bag;
INSERT INTO rt.bag VALUES (repeat('y', 2000000));
CALL wait_until($$(SELECT count(*) = 9 FROM rt.met WHERE name IN ('part', 'bag'))$$);
SELECT name, payload, tenant_id FROM rt.met WHERE name IN ('part', 'bag') ORDER BY name, payload::text;
-- A session of another tenant does not write for this one; without an event there is no row.
SET event_queue.tenant = 'other';
SELECT try($$INSERT INTO rt.part VALUES ('a', 9, 'acme')$$);
INSERT INTO rt.part VALUES ('a', 8, 'other');
RESET event_queue.tenant;
ALTER TABLE rt.part RENAME company TO firm;
SELECT try($$INSERT INTO rt.part VALUES ('a', 10, 'acme')$$);
SELECT event_queue.create_rule('rt part', on_table => 'rt.part', tenant_column => 'firm', queue => 'rt', job_name => 'part', or_replace => true) > 0 AS replaced;
INSERT INTO rt.part VALUES ('a', 10, 'acme');
SELECT n FROM rt.part ORDER BY 1;

-- Who may.  Who writes to the table needs nothing.
CREATE ROLE rt_admin;
CREATE ROLE rt_writer;
SELECT event_queue.grant_admin('rt_admin');
GRANT USAGE ON SCHEMA rt TO rt_admin, rt_writer;
GRANT INSERT ON rt.bag TO rt_writer;
SET ROLE rt_admin;
SELECT try($$SELECT event_queue.create_rule('rt mine', on_table => 'rt.bag', queue => 'rt', job_name => 'mine')$$);
RESET ROLE;
GRANT TRIGGER ON rt.bag TO rt_admin;
SET ROLE rt_admin;
SELECT try($$SELECT event_queue.create_rule('rt mine', on_table => 'rt.bag', queue => 'rt', job_name => 'mine')$$);
RESET ROLE;
REVOKE TRIGGER ON rt.bag FROM rt_admin;
GRANT SELECT ON rt.bag TO rt_admin;
SET ROLE rt_admin;
SELECT try($$SELECT event_queue.create_rule('rt mine', on_table => 'rt.bag', queue => 'rt', job_name => 'mine')$$);
RESET ROLE;
GRANT TRIGGER ON rt.bag TO rt_admin;
SET ROLE rt_admin;
SELECT event_queue.create_rule('rt mine', on_table => 'rt.bag', queue => 'rt', job_name => 'mine', payload => '{"x": "$.data.new.x"}') > 0 AS created;
SET ROLE rt_writer;
INSERT INTO rt.bag VALUES ('of a writer');
RESET ROLE;
CALL wait_until($$EXISTS (SELECT FROM rt.met WHERE name = 'mine')$$);
SELECT payload FROM rt.met WHERE name = 'mine';
SET ROLE rt_admin;
SELECT event_queue.drop_rule('rt mine');
RESET ROLE;

-- A handler that writes to the table of its rule leads to no loop.
CREATE TABLE rt.loop (id int PRIMARY KEY, n int);
CREATE FUNCTION rt.again(job event_queue.claimed_job) RETURNS void LANGUAGE sql AS 'UPDATE rt.loop SET n = n + 1';
SELECT event_queue.create_handler('rt', 'loop', 'rt.again') > 0 AS created;
SELECT event_queue.create_rule('rt loop', on_table => 'rt.loop', queue => 'rt', job_name => 'loop') > 0 AS created;
INSERT INTO rt.loop VALUES (1, 0);
CALL wait_until($$(SELECT suppressed = 1 FROM event_queue.rule_stats WHERE rule = 'rt loop')$$);
SELECT n FROM rt.loop;
-- Who writes to a table can't keep a rule from firing by saying that it has led there; who may claim jobs can, as a worker
-- outside does it.  Nor by a job whose handler writes.
CREATE ROLE rt_forger;
SELECT event_queue.grant_producer('rt_forger');
GRANT USAGE ON SCHEMA rt TO rt_forger;
CREATE TABLE rt.watched (id int PRIMARY KEY);
GRANT INSERT ON rt.watched TO rt_forger;
SELECT event_queue.create_rule('rt watched', on_table => 'rt.watched', queue => 'rt', job_name => 'watched') AS watched \gset
CREATE FUNCTION rt.write(job event_queue.claimed_job) RETURNS void LANGUAGE sql AS $$ INSERT INTO rt.watched VALUES ((job.payload ->> 'id')::int) $$;
SELECT event_queue.create_handler('rt', 'write', 'rt.write') > 0 AS created;
SELECT format('[%s]', :watched) AS chain \gset
SET ROLE rt_forger;
SET event_queue.rule_chain = :'chain';
INSERT INTO rt.watched VALUES (1);
SELECT event_queue.enqueue('rt', 'write', '{"id": 2}') > 0 AS enqueued;
RESET event_queue.rule_chain;
SELECT event_queue.enqueue('rt', 'write', '{"id": 3}', options => jsonb_build_object('metadata', jsonb_build_object('rule_chain', :'chain'::jsonb, 'rule_root', 'x', 'mine', 1))) > 0 AS enqueued;
RESET ROLE;
CALL wait_until($$(SELECT matched = 3 FROM event_queue.rule_stats WHERE rule = 'rt watched')$$);
-- (nor of one that may not use the schema, whose row is written all the same)
CREATE ROLE rt_stranger;
GRANT USAGE ON SCHEMA rt TO rt_stranger;
GRANT INSERT ON rt.watched TO rt_stranger;
SET ROLE rt_stranger;
SET event_queue.rule_chain = :'chain';
INSERT INTO rt.watched VALUES (5);
RESET event_queue.rule_chain;
RESET ROLE;
CALL wait_until($$(SELECT matched = 4 FROM event_queue.rule_stats WHERE rule = 'rt watched')$$);
SELECT event_queue.grant_worker('rt_forger');
SET ROLE rt_forger;
SET event_queue.rule_chain = :'chain';
INSERT INTO rt.watched VALUES (4);
RESET event_queue.rule_chain;
RESET ROLE;
CALL wait_until($$(SELECT matched = 4 AND suppressed = 1 FROM event_queue.rule_stats WHERE rule = 'rt watched')$$);
SELECT matched, suppressed FROM event_queue.rule_stats WHERE rule = 'rt watched';
SELECT event_queue.drop_rule('rt watched'), event_queue.drop_handler('rt', 'write'), event_queue.revoke_access('rt_forger');
DROP TABLE rt.watched;
DROP OWNED BY rt_forger, rt_stranger;
DROP ROLE rt_forger, rt_stranger;

-- A row that jsonb can't have is written all the same: what it can't have is left out.
CREATE TABLE rt.raw (id int PRIMARY KEY, hook json, note text);
SELECT event_queue.create_rule('rt raw', on_table => 'rt.raw', queue => 'rt', job_name => 'raw', payload => '{"data": "$.data"}') > 0 AS created;
INSERT INTO rt.raw VALUES (1, '{"a": "\u0000"}', 'first'), (2, '1e400000', 'second');
UPDATE rt.raw SET hook = '{"b": "\u0000"}' WHERE id = 1;
UPDATE rt.raw SET hook = '{"c": 1}' WHERE id = 1;
CALL wait_until($$(SELECT count(*) = 4 FROM rt.met WHERE name = 'raw')$$);
SELECT payload -> 'data' AS data FROM rt.met WHERE name = 'raw';
-- Types without an equality that all sessions find are compared as text.
SET client_min_messages = warning;
CREATE TYPE rt.odd;
CREATE FUNCTION rt.odd_in(cstring) RETURNS rt.odd LANGUAGE internal IMMUTABLE STRICT AS 'int4in';
CREATE FUNCTION rt.odd_out(rt.odd) RETURNS cstring LANGUAGE internal IMMUTABLE STRICT AS 'int4out';
RESET client_min_messages;
CREATE TYPE rt.odd (INPUT = rt.odd_in, OUTPUT = rt.odd_out, LIKE = int4);
CREATE FUNCTION rt.odd_eq(rt.odd, rt.odd) RETURNS boolean LANGUAGE internal IMMUTABLE STRICT AS 'int4eq';
CREATE FUNCTION rt.odd_hash(rt.odd) RETURNS int LANGUAGE internal IMMUTABLE STRICT AS 'hashint4';
CREATE OPERATOR rt.= (LEFTARG = rt.odd, RIGHTARG = rt.odd, FUNCTION = rt.odd_eq);
CREATE OPERATOR CLASS rt.odd_ops DEFAULT FOR TYPE rt.odd USING hash AS OPERATOR 1 rt.=, FUNCTION 1 rt.odd_hash(rt.odd);
CREATE TYPE rt.pair AS (a int, b json);
CREATE TABLE rt.types (id int PRIMARY KEY, odd rt.odd, pair rt.pair, place point, other int);
SELECT event_queue.create_rule('rt types', on_table => 'rt.types', on_change => '{update}', when_changed => '{odd,pair,place}', queue => 'rt', job_name => 'types', payload => '{"changed": "$.data.changed"}') > 0 AS created;
INSERT INTO rt.types VALUES (1, '1', ROW(1, '{}'), '(1,1)', 1);
UPDATE rt.types SET odd = '1', pair = ROW(1, '{}'), place = '(1,1)', other = 2;
UPDATE rt.types SET odd = '2';
UPDATE rt.types SET pair = ROW(1, '{"a": 1}'), place = '(1,2)';
CALL wait_until($$(SELECT count(*) = 2 FROM rt.met WHERE name = 'types')$$);
SELECT payload FROM rt.met WHERE name = 'types';
-- What a row is as JSON, and which row it is, does not depend on what the writing session has set.
CREATE TABLE rt.settings (at timestamptz PRIMARY KEY, f float8, i interval, b bytea, r daterange, note text);
SELECT event_queue.create_rule('rt settings', on_table => 'rt.settings', on_change => '{update}', queue => 'rt', job_name => 'settings',
	payload => '{"row": "$.aggregate_id", "data": "$.data"}') > 0 AS created;
SELECT event_queue.record_changes('rt.settings', 'rt setting', 'at');
INSERT INTO rt.settings VALUES ('2026-01-01 12:00+00', 0.3, '1 day 02:00', '\x00ff', '[2026-01-02,2026-02-01)');
SET extra_float_digits = 0;
UPDATE rt.settings SET f = 0.1::float8 + 0.2::float8;
SET timezone = 'Asia/Tokyo';
SET datestyle = 'German';
SET intervalstyle = 'sql_standard';
SET bytea_output = 'escape';
UPDATE rt.settings SET note = 'in Tokyo';
SELECT current_setting('extra_float_digits') AS digits, current_setting('timezone') AS timezone, current_setting('datestyle') AS datestyle;
RESET extra_float_digits;
RESET timezone;
RESET datestyle;
RESET intervalstyle;
RESET bytea_output;
CALL wait_until($$(SELECT count(*) = 2 FROM rt.met WHERE name = 'settings')$$);
SELECT count(DISTINCT payload -> 'row') AS rows FROM rt.met WHERE name = 'settings';
SELECT payload -> 'data' -> 'changed' AS changed, payload -> 'data' -> 'new' AS new FROM rt.met WHERE name = 'settings' ORDER BY 1;
SELECT aggregate_id, version, event_data -> 'changed' AS changed, event_data -> 'new' AS new FROM event_queue.event_store WHERE aggregate_type = 'rt setting' ORDER BY version;
-- A row that goes to another tenant: what it was is not for that one.
CREATE TABLE rt.moves (id int PRIMARY KEY, secret text, company text);
SELECT event_queue.create_rule('rt moves', on_table => 'rt.moves', tenant_column => 'company', queue => 'rt', job_name => 'moves', payload => '{"data": "$.data"}') > 0 AS created;
INSERT INTO rt.moves VALUES (1, 'of acme', 'acme');
UPDATE rt.moves SET company = 'other', secret = NULL;
CALL wait_until($$(SELECT count(*) = 2 FROM rt.met WHERE name = 'moves')$$);
SELECT tenant_id, payload -> 'data' AS data FROM rt.met WHERE name = 'moves';
-- Events that came under an earlier definition: what the present one asks for counts, when it meets them late.
CREATE TABLE rt.late (id int PRIMARY KEY, stage text, n int);
CREATE TABLE rt.heard (what text);
CREATE FUNCTION rt.hear(event event_queue.event_store) RETURNS void LANGUAGE sql AS $$ INSERT INTO rt.heard VALUES (event.event_data ->> 'operation') $$;
SELECT event_queue.create_rule('rt late', on_table => 'rt.late', condition => 'false', queue => 'rt', job_name => 'late') > 0 AS created;
SELECT event_queue.create_rule('rt heard', on_table => 'rt.late', function => 'rt.hear') > 0 AS created;
SELECT event_queue.pause_rule('rt heard');
INSERT INTO rt.late VALUES (1, 'a', 1);
UPDATE rt.late SET n = 2;
UPDATE rt.late SET stage = 'b';
DELETE FROM rt.late;
CALL wait_until($$(SELECT seen = 4 FROM event_queue.rule_stats WHERE rule = 'rt late')$$);
SELECT event_queue.create_rule('rt late', on_table => 'rt.late', on_change => '{update}', when_changed => '{stage}', queue => 'rt', job_name => 'late', payload => '{"changed": "$.data.changed"}', or_replace => true) > 0 AS replaced;
SELECT event_queue.create_rule('rt heard', on_table => 'rt.late', on_change => '{delete}', function => 'rt.hear', or_replace => true) > 0 AS replaced;
SELECT d AS definition, e.event_data ->> 'operation' AS operation, e.event_data -> 'changed' AS changed, c.change
FROM unnest(ARRAY['{"on_change": ["insert", "delete"]}', '{"on_change": null, "when_changed": ["n"]}']::jsonb[]) d, event_queue.compare_rule('rt late', d) c
JOIN event_queue.event_store e USING (position) ORDER BY 1, c.position;
SELECT regexp_replace(x.part, '\d+', 'N') AS part, regexp_replace(x.seen, '\d+', 'N') AS seen, x.outcome FROM event_queue.rules r JOIN event_queue.event_store e ON e.event_type = format('table.%s.inserted', r.rule_id),
	event_queue.explain_rule('rt late', e.id) x WHERE r.name = 'rt late' AND x.step IN ('pattern', 'verdict');
SELECT event_queue.backfill_rule('rt late') > 0 AS begun;
SELECT event_queue.resume_rule('rt heard', resume => 'catch_up');
CALL wait_until($$(SELECT state = 'done' FROM event_queue.rule_backfills WHERE rule = 'rt late') AND EXISTS (SELECT FROM rt.heard) AND NOT EXISTS (SELECT FROM event_queue.jobs WHERE queue = 'rule-calls')$$);
SELECT payload FROM rt.met WHERE name = 'late';
SELECT what FROM rt.heard;
-- The table's owner wants it to fire for what replication writes, too: it stays so.
SELECT count(*) FROM pg_trigger t WHERE tgrelid = 'rt.late'::regclass AND tgenabled = 'A';
DO $$ DECLARE t record; BEGIN
	FOR t IN SELECT tgname FROM pg_trigger WHERE tgrelid = 'rt.late'::regclass LOOP EXECUTE format('ALTER TABLE rt.late ENABLE ALWAYS TRIGGER %I', t.tgname); END LOOP;
END $$;
SELECT event_queue.create_rule('rt heard', on_table => 'rt.late', on_change => '{delete}', function => 'rt.hear', or_replace => true) > 0 AS as_it_was,
	event_queue.create_rule('rt late', on_table => 'rt.late', on_change => '{update}', when_changed => '{n}', queue => 'rt', job_name => 'late', payload => '{"changed": "$.data.changed"}', or_replace => true) > 0 AS replaced;
SELECT count(*) FROM pg_trigger t WHERE tgrelid = 'rt.late'::regclass AND tgenabled = 'A';
SET session_replication_role = replica;
INSERT INTO rt.late VALUES (2, 'a', 1);
UPDATE rt.late SET n = 2;
RESET session_replication_role;
CALL wait_until($$(SELECT count(*) = 2 FROM rt.met WHERE name = 'late')$$);
SELECT payload FROM rt.met WHERE name = 'late';

-- A column's trigger goes with it: the rule is out of service until it is created again.
SET client_min_messages = warning;
ALTER TABLE rt.types DROP COLUMN place CASCADE;
RESET client_min_messages;
SELECT state FROM event_queue.rule_stats WHERE rule = 'rt types';
SELECT detail, hint FROM event_queue.health() WHERE check_name = 'rule rt types';
SELECT event_queue.create_rule('rt types', on_table => 'rt.types', on_change => '{update}', when_changed => '{odd}', queue => 'rt', job_name => 'types', or_replace => true) > 0 AS replaced;
SELECT state FROM event_queue.rule_stats WHERE rule = 'rt types';
-- The table's owner has renamed the trigger: it is the rule's still, and there is no second one.
DO $$ BEGIN EXECUTE format('ALTER TRIGGER %I ON rt.moves RENAME TO mine', tgname) FROM pg_trigger WHERE tgrelid = 'rt.moves'::regclass AND tgname LIKE '%insert'; END $$;
SELECT state FROM event_queue.rule_stats WHERE rule = 'rt moves';
SELECT event_queue.create_rule('rt moves', on_table => 'rt.moves', on_change => '{insert}', queue => 'rt', job_name => 'moved', or_replace => true) > 0 AS replaced;
SELECT count(*) FROM pg_trigger WHERE tgrelid = 'rt.moves'::regclass;
DO $$ BEGIN EXECUTE format('ALTER TRIGGER %I ON rt.moves RENAME TO mine', tgname) FROM pg_trigger WHERE tgrelid = 'rt.moves'::regclass; END $$;

-- Without its table a rule is out of service; without the rule the table has no triggers.
DROP TABLE rt.loop;
SELECT rule, state FROM event_queue.rule_stats WHERE rule IN ('rt loop', 'rt bag') ORDER BY 1;
SELECT event_queue.drop_rule(name) FROM event_queue.rules WHERE name LIKE 'rt %' ORDER BY name;
SELECT count(*) FROM pg_trigger WHERE tgfoid = 'event_queue.table_change'::regproc;
SELECT event_queue.drop_handler('rt', 'loop');
SELECT event_queue.revoke_access('rt_admin');
DROP OWNED BY rt_admin, rt_writer;
DROP ROLE rt_admin, rt_writer;
SELECT event_queue.drop_queue('rt', force => true);
SET client_min_messages = warning;
DROP SCHEMA rt CASCADE;
RESET client_min_messages;
