-- What the extension has made of its tables can't be changed (EQ057): all that the catalogs have of them is tried.
\set VERBOSITY verbose
\set SHOW_CONTEXT never
SET client_min_messages = warning;
CREATE FUNCTION parts_try(sql text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE sql;
	RAISE EXCEPTION 'allowed';
EXCEPTION WHEN OTHERS THEN
	RETURN CASE WHEN SQLERRM = 'allowed' THEN SQLERRM ELSE concat_ws(' ', SQLSTATE, SQLERRM) END;
END
$$;
CREATE ROLE parts_role;
CREATE TABLE parts_parent (job_id bigint);
CREATE TABLE parts_list (LIKE event_queue.queue) PARTITION BY LIST (queue_id);
CREATE VIEW parts_tables AS
	SELECT c.oid, c.oid::regclass::text AS name, c.relispartition AS partition,
		NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e') AS made_later
	FROM pg_class c WHERE c.relnamespace IN ('event_queue'::regnamespace, 'event_queue_internal'::regnamespace) AND c.relkind IN ('r', 'p');
CREATE VIEW parts_statements AS
	-- Columns of children are their parents'.
	SELECT 'column' AS part, format(x, t.name, a.attname) AS sql FROM parts_tables t JOIN pg_attribute a ON a.attrelid = t.oid AND a.attnum > 0 AND NOT a.attisdropped,
		unnest(ARRAY['ALTER TABLE %s DROP COLUMN %I CASCADE', 'ALTER TABLE %s RENAME COLUMN %I TO x', 'ALTER TABLE %s ALTER %I TYPE text',
			'ALTER TABLE %s ALTER %I SET NOT NULL', 'ALTER TABLE %s ALTER %I DROP NOT NULL', 'ALTER TABLE %s ALTER %I DROP DEFAULT', 'ALTER TABLE %s ADD y int, DROP %I']) x
	WHERE NOT t.partition AND NOT t.made_later
	UNION ALL
	SELECT 'constraint', format(x, t.name, c.conname) FROM parts_tables t JOIN pg_constraint c ON c.conrelid = t.oid,
		unnest(ARRAY['ALTER TABLE %s DROP CONSTRAINT %I CASCADE', 'ALTER TABLE %s DROP CONSTRAINT IF EXISTS %I', 'ALTER TABLE %s RENAME CONSTRAINT %I TO x']) x
	WHERE NOT t.partition AND NOT t.made_later AND c.conname NOT LIKE 'event_store_last'
	UNION ALL
	SELECT 'trigger', format(x, t.name, g.tgname) FROM parts_tables t JOIN pg_trigger g ON g.tgrelid = t.oid AND NOT g.tgisinternal AND g.tgparentid = 0,
		unnest(ARRAY['ALTER TABLE %s DISABLE TRIGGER %I', 'ALTER TABLE %s ENABLE REPLICA TRIGGER %I', 'DROP TRIGGER %2$I ON %1$s', 'DROP TRIGGER IF EXISTS %2$I ON %1$s CASCADE',
			'ALTER TRIGGER %2$I ON %1$s RENAME TO x', 'CREATE OR REPLACE TRIGGER %2$I AFTER INSERT ON %1$s EXECUTE FUNCTION event_queue_internal.refuse_change()']) x
	UNION ALL
	SELECT 'always', format('ALTER TABLE %s ENABLE TRIGGER %I', t.name, g.tgname) FROM parts_tables t JOIN pg_trigger g ON g.tgrelid = t.oid AND g.tgenabled = 'A'
	UNION ALL
	SELECT 'policy', format(x, p.polname, t.name) FROM parts_tables t JOIN pg_policy p ON p.polrelid = t.oid,
		unnest(ARRAY['DROP POLICY %I ON %s', 'ALTER POLICY %I ON %s USING (true)', 'ALTER POLICY %I ON %s RENAME TO x']) x
	UNION ALL
	SELECT 'index', format(x, i.indexrelid::regclass, 'x') FROM parts_tables t JOIN pg_index i ON i.indrelid = t.oid,
		unnest(ARRAY['DROP INDEX %s CASCADE', 'ALTER INDEX %s RENAME TO %s', 'ALTER TABLE %s RENAME TO %s']) x
	WHERE NOT t.partition AND NOT t.made_later
	  AND NOT (x LIKE 'DROP%' AND EXISTS (SELECT FROM pg_constraint c WHERE c.conindid = i.indexrelid))
	UNION ALL
	SELECT 'table', format(x, t.name) FROM parts_tables t,
		unnest(ARRAY['ALTER TABLE %s DISABLE ROW LEVEL SECURITY', 'ALTER TABLE %s FORCE ROW LEVEL SECURITY', 'ALTER TABLE %s DISABLE TRIGGER USER',
			'ALTER TABLE %s DISABLE TRIGGER ALL', 'ALTER TABLE %s SET UNLOGGED', 'ALTER TABLE %s REPLICA IDENTITY NOTHING', 'ALTER TABLE %s OF parts_type', 'ALTER TABLE %s INHERIT parts_parent']) x
	UNION ALL
	SELECT 'name', format(x, t.name) FROM parts_tables t, unnest(ARRAY['ALTER TABLE %s RENAME TO x', 'ALTER TABLE %s SET SCHEMA public']) x WHERE NOT t.made_later
	UNION ALL
	SELECT 'view or sequence', format(x, c.oid::regclass) FROM pg_class c, unnest(ARRAY['ALTER TABLE %s RENAME TO x', 'ALTER TABLE %s SET SCHEMA public']) x
	WHERE c.relnamespace IN ('event_queue'::regnamespace, 'event_queue_internal'::regnamespace) AND c.relkind IN ('v', 'S')
	  AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype IN ('a', 'i'))
	UNION ALL
	SELECT 'type', format(x, t.oid::regtype) FROM pg_type t LEFT JOIN pg_class c ON c.oid = t.typrelid,
		unnest(ARRAY['ALTER TYPE %s ADD ATTRIBUTE x int', 'ALTER TYPE %s RENAME TO x', 'ALTER TYPE %s SET SCHEMA public']) x
	WHERE t.typnamespace = 'event_queue'::regnamespace AND c.relkind = 'c'
	UNION ALL
	-- All that is a member of the extension.
	SELECT 'function', format(x, p.oid::regprocedure) FROM pg_proc p JOIN pg_depend d ON d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e',
		unnest(ARRAY['ALTER ROUTINE %s RENAME TO x', 'ALTER ROUTINE %s SET SCHEMA public', 'ALTER ROUTINE %s OWNER TO parts_role', 'ALTER ROUTINE %s SECURITY DEFINER', 'ALTER ROUTINE %s RESET ALL',
			'ALTER ROUTINE %s SET search_path = public', 'ALTER ROUTINE %s RESET search_path', 'ALTER ROUTINE %s DEPENDS ON EXTENSION plpgsql', 'ALTER EXTENSION event_queue DROP ROUTINE %s']) x
	WHERE p.pronamespace IN ('event_queue'::regnamespace, 'event_queue_internal'::regnamespace)
	UNION ALL
	SELECT 'function', format(x, p.oid::regprocedure) FROM pg_proc p, unnest(ARRAY['ALTER FUNCTION %s IMMUTABLE', 'ALTER FUNCTION %s STRICT', 'ALTER FUNCTION %s LEAKPROOF', 'ALTER FUNCTION %s PARALLEL SAFE']) x
	WHERE p.pronamespace = 'event_queue'::regnamespace AND p.prokind = 'f'
	UNION ALL
	SELECT 'body', pg_get_functiondef(p.oid) FROM pg_proc p WHERE p.pronamespace IN ('event_queue'::regnamespace, 'event_queue_internal'::regnamespace)
	UNION ALL
	SELECT 'view', format(x, c.oid::regclass, pg_get_viewdef(c.oid)) FROM pg_class c,
		unnest(ARRAY['ALTER VIEW %s SET (security_invoker = off)', 'ALTER VIEW %s RESET (security_invoker)', 'ALTER TABLE %s SET (security_barrier)', 'CREATE OR REPLACE VIEW %s AS %s',
			'CREATE OR REPLACE RULE "_RETURN" AS ON SELECT TO %s DO INSTEAD %s', 'ALTER EXTENSION event_queue DROP VIEW %s']) x
	WHERE c.relnamespace IN ('event_queue'::regnamespace, 'event_queue_internal'::regnamespace) AND c.relkind = 'v'
	UNION ALL
	SELECT 'view', format('ALTER VIEW %s RENAME COLUMN %I TO x', c.oid::regclass, a.attname) FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
	WHERE c.relnamespace = 'event_queue'::regnamespace AND c.relkind = 'v'
	UNION ALL
	SELECT 'sequence', format(x, c.oid::regclass) FROM pg_class c,
		unnest(ARRAY['ALTER SEQUENCE %s CACHE 100', 'ALTER SEQUENCE %s INCREMENT 2', 'ALTER SEQUENCE %s MAXVALUE 100', 'ALTER SEQUENCE %s CYCLE', 'ALTER SEQUENCE %s SET UNLOGGED', 'ALTER EXTENSION event_queue DROP SEQUENCE %s']) x
	WHERE c.relnamespace IN ('event_queue'::regnamespace, 'event_queue_internal'::regnamespace) AND c.relkind = 'S'
	UNION ALL
	SELECT 'identity', format(x, t.name, a.attname) FROM parts_tables t JOIN pg_attribute a ON a.attrelid = t.oid AND a.attidentity <> '',
		unnest(ARRAY['ALTER TABLE %s ALTER %I SET CACHE 100', 'ALTER TABLE %s ALTER %I SET GENERATED ALWAYS', 'ALTER TABLE %s ALTER %I DROP IDENTITY']) x
	UNION ALL
	SELECT 'owner', format('ALTER TABLE %s OWNER TO parts_role', c.oid::regclass) FROM pg_class c JOIN pg_depend d ON d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e'
	WHERE c.relnamespace IN ('event_queue'::regnamespace, 'event_queue_internal'::regnamespace) AND c.relkind IN ('r', 'p', 'v', 'S')
	UNION ALL
	SELECT 'owner', format('ALTER TYPE %s OWNER TO parts_role', t.oid::regtype) FROM pg_type t JOIN pg_class c ON c.oid = t.typrelid
	WHERE t.typnamespace = 'event_queue'::regnamespace AND c.relkind = 'c'
	UNION ALL
	SELECT 'index', format('ALTER INDEX %s DEPENDS ON EXTENSION plpgsql', i.indexrelid::regclass) FROM parts_tables t JOIN pg_index i ON i.indrelid = t.oid WHERE NOT t.partition AND NOT t.made_later
	UNION ALL
	SELECT 'trigger', format('ALTER TRIGGER %I ON %s DEPENDS ON EXTENSION plpgsql', g.tgname, t.name) FROM parts_tables t JOIN pg_trigger g ON g.tgrelid = t.oid AND NOT g.tgisinternal AND g.tgparentid = 0
	UNION ALL
	-- Tables of events are no members, and nobody deletes an event.
	SELECT 'events', format(x, t.name, t.name || k) FROM parts_tables t, unnest('{_pkey,_aggregate_key,_id_key}'::text[]) k,
		unnest(ARRAY['DROP TABLE %s', 'DROP TABLE IF EXISTS %s CASCADE', 'ALTER TABLE %s RENAME TO x', 'ALTER TABLE %s SET SCHEMA public',
		'ALTER TABLE %s NO INHERIT event_queue.event_store', 'ALTER INDEX %2$s RENAME TO x', 'ALTER TABLE %1$s DROP CONSTRAINT ' || replace(t.name, 'event_queue.', '') || k]) x
	WHERE t.made_later AND t.name ~ 'event_store'
	UNION ALL
	SELECT 'extension', 'ALTER EXTENSION event_queue ADD FUNCTION parts_try(text)'
	UNION ALL
	SELECT 'table', 'ALTER TABLE parts_list ATTACH PARTITION event_queue.queue DEFAULT'
	UNION ALL
	SELECT 'table', format('ALTER TABLE %s REPLICA IDENTITY DEFAULT', t.name) FROM parts_tables t WHERE NOT EXISTS (SELECT FROM pg_index i WHERE i.indrelid = t.oid AND i.indisprimary)
	UNION ALL
	SELECT 'schema', 'ALTER SCHEMA ' || n || x FROM unnest('{event_queue,event_queue_internal}'::text[]) n, unnest('{" RENAME TO x"," OWNER TO parts_role"}'::text[]) x;
BEGIN;
SELECT event_queue.create_event_partition() IS NOT NULL AS with_a_partition;
SELECT part, count(*) > 0 AS tried, count(*) FILTER (WHERE parts_try(sql) !~ '^EQ0[35]7 ') AS not_refused FROM parts_statements GROUP BY 1 ORDER BY 1;
SELECT sql, parts_try(sql) AS not_refused FROM parts_statements WHERE parts_try(sql) !~ '^EQ0[35]7 ' ORDER BY 1 LIMIT 20;
ROLLBACK;

-- What it says.
\set VERBOSITY default
ALTER TABLE event_queue.job DROP COLUMN payload;
ALTER TABLE event_queue.schedule DISABLE ROW LEVEL SECURITY;
DROP TRIGGER IF EXISTS config_changed ON event_queue.rule;
DROP INDEX event_queue.job_order;
ALTER TABLE event_queue.job RENAME TO jobs_of_mine;
ALTER SCHEMA event_queue RENAME TO queues;
ALTER VIEW event_queue.jobs RESET (security_invoker);
ALTER FUNCTION event_queue.pause_queue SET search_path = public;
ALTER SEQUENCE event_queue_internal.event_position CACHE 10;
ALTER TABLE event_queue.queue OWNER TO parts_role;
ALTER EXTENSION event_queue DROP FUNCTION event_queue.pause_queue(text);
-- What others have added is theirs, and what does not change it is allowed.
BEGIN;
CREATE FUNCTION parts_fn() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
SELECT s AS statement, parts_try(s) AS result FROM unnest(ARRAY[
	'ALTER TABLE event_queue.job ADD COLUMN x int; ALTER TABLE event_queue.job RENAME x TO y; ALTER TABLE event_queue.job DROP COLUMN y',
	'ALTER TABLE event_queue.queue ADD COLUMN x int; ALTER TABLE event_queue.queue ALTER x TYPE bigint, ALTER x DROP NOT NULL',
	'ALTER TABLE event_queue.queue ADD CONSTRAINT mine CHECK (name <> ''x''); ALTER TABLE event_queue.queue RENAME CONSTRAINT mine TO ours; ALTER TABLE event_queue.queue DROP CONSTRAINT ours',
	'CREATE INDEX mine ON event_queue.job (name); ALTER INDEX event_queue.mine RENAME TO ours; DROP INDEX event_queue.ours',
	'CREATE TRIGGER mine AFTER INSERT ON event_queue.queue FOR EACH ROW EXECUTE FUNCTION parts_fn(); ALTER TABLE event_queue.queue DISABLE TRIGGER mine; DROP TRIGGER mine ON event_queue.queue',
	'CREATE POLICY mine ON event_queue.queue USING (true); ALTER POLICY mine ON event_queue.queue RENAME TO ours; DROP POLICY ours ON event_queue.queue',
	'ALTER TABLE event_queue.queue ALTER max_attempts SET DEFAULT 5, ALTER name SET STATISTICS 500, SET (fillfactor = 50), OWNER TO CURRENT_USER, REPLICA IDENTITY FULL',
	'ALTER TABLE event_queue.queue REPLICA IDENTITY DEFAULT, REPLICA IDENTITY USING INDEX queue_pkey; ALTER SCHEMA event_queue OWNER TO CURRENT_USER',
	'ALTER TABLE event_queue.job ENABLE TRIGGER ALL, ENABLE ROW LEVEL SECURITY, NO FORCE ROW LEVEL SECURITY, ENABLE TRIGGER count_row',
	'CLUSTER event_queue.job USING job_pkey', 'REINDEX TABLE event_queue.job', 'ALTER TABLE event_queue.event_store ENABLE ALWAYS TRIGGER refuse_change',
	'CREATE SCHEMA mine; CREATE TABLE mine.job (payload int); ALTER TABLE mine.job DROP payload; ALTER SCHEMA mine RENAME TO ours',
	'CREATE TEMP TABLE job (payload int); ALTER TABLE job DROP payload, DISABLE TRIGGER ALL; ALTER TABLE job RENAME TO x',
	'CREATE TYPE mine AS (a int); ALTER TYPE mine ADD ATTRIBUTE b int; ALTER TYPE mine RENAME TO ours',
	'ALTER FUNCTION event_queue.pause_queue COST 3 SET work_mem = 10000; ALTER FUNCTION event_queue.pause_queue RESET work_mem; ALTER FUNCTION event_queue.pause_queue OWNER TO CURRENT_USER',
	'ALTER SEQUENCE event_queue.job_job_id_seq RESTART WITH 1000; ALTER TABLE event_queue.job ALTER job_id RESTART WITH 2000',
	'COMMENT ON FUNCTION event_queue.pause_queue IS ''ours''; COMMENT ON FUNCTION event_queue.resume_queue IS NULL; GRANT EXECUTE ON FUNCTION event_queue.pause_queue TO parts_role',
	'CREATE FUNCTION event_queue.mine(int) RETURNS int LANGUAGE sql AS ''SELECT 1''; CREATE OR REPLACE FUNCTION event_queue.mine(int) RETURNS int LANGUAGE sql AS ''SELECT 2'';
		ALTER FUNCTION event_queue.mine STABLE SECURITY DEFINER; ALTER FUNCTION event_queue.mine OWNER TO parts_role; ALTER FUNCTION event_queue.mine RENAME TO ours; ALTER FUNCTION event_queue.ours SET SCHEMA public',
	'CREATE VIEW event_queue.mine AS SELECT 1 AS a; CREATE OR REPLACE VIEW event_queue.mine AS SELECT 2 AS a; ALTER VIEW event_queue.mine SET (security_invoker); ALTER VIEW event_queue.mine OWNER TO parts_role',
	'CREATE SEQUENCE event_queue.mine; ALTER SEQUENCE event_queue.mine CACHE 5; ALTER SEQUENCE event_queue.mine OWNER TO parts_role',
	-- Names of ours on the search_path: what is made is not ours.
	'SET LOCAL search_path = public, event_queue; CREATE OR REPLACE VIEW jobs AS SELECT 1 AS a; ALTER VIEW jobs RENAME a TO b; CREATE OR REPLACE FUNCTION pause_queue(name text) RETURNS int LANGUAGE sql AS ''SELECT 1''; DROP VIEW jobs']) s;
-- Rights follow what is the extension's, not what is commented.
COMMENT ON FUNCTION event_queue.resume_queue IS NULL;
SELECT event_queue.grant_admin('parts_role'), has_function_privilege('parts_role', 'event_queue.resume_queue(text)', 'EXECUTE');
SELECT parts_try('CREATE TYPE event_queue.mine AS (a int); ALTER TYPE event_queue.mine ADD ATTRIBUTE b int; ALTER TYPE event_queue.mine RENAME ATTRIBUTE b TO c;
	ALTER TYPE event_queue.mine RENAME TO ours; ALTER TYPE event_queue.ours SET SCHEMA public') AS type_of_a_user_here;
ROLLBACK;

-- A superuser who must.
BEGIN;
SET LOCAL allow_system_table_mods = on;
ALTER TABLE event_queue.job DISABLE TRIGGER USER;
ALTER TABLE event_queue.queue DROP CONSTRAINT queue_name_key;
ROLLBACK;
DROP VIEW parts_statements, parts_tables;
DROP TABLE parts_parent, parts_list;
DROP ROLE parts_role;
DROP FUNCTION parts_try;
