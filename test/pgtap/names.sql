-- The grammar of the interface, from the catalogs: results that drivers can read, names
-- that need no quotes, labels that say what a function does.
BEGIN;
SELECT no_plan();

SELECT is_empty($$
	SELECT p.oid::regprocedure FROM pg_proc p
	WHERE p.pronamespace = 'event_queue'::regnamespace
	  AND (p.prorettype IN ('void'::regtype, 'interval'::regtype, 'interval[]'::regtype)
		OR EXISTS (SELECT FROM unnest(p.proallargtypes, p.proargmodes) AS a (type, mode)
			WHERE a.mode IN ('o', 'b', 't') AND a.type IN ('void'::regtype, 'interval'::regtype, 'interval[]'::regtype)))
$$, 'no function returns what Prisma''s adapter can not read');
SELECT is_empty($$
	SELECT c.oid::regclass, a.attname FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0
	WHERE c.relnamespace = 'event_queue'::regnamespace AND (c.relkind = 'v'
		-- and the types of results
		OR c.reltype IN (SELECT p.prorettype FROM pg_proc p WHERE p.pronamespace = 'event_queue'::regnamespace))
	  AND a.atttypid IN ('interval'::regtype, 'interval[]'::regtype, 'void'::regtype)
$$, 'nor has a view or a result such a column');
SELECT is_empty($$
	SELECT p.oid::regprocedure, a.name FROM pg_proc p, unnest(p.proargnames, coalesce(p.proargmodes, '{}')) AS a (name, mode)
	WHERE p.pronamespace = 'event_queue'::regnamespace AND coalesce(a.mode, 'i') IN ('i', 'b')
	  AND (a.name <> quote_ident(a.name) AND a.name NOT IN ('function', 'timeout') OR a.name IN ('limit', 'after', 'into', 'by', 'table', 'position', 'all', 'start', 'wait'))
	  AND a.name IN (SELECT k.word FROM pg_get_keywords() k WHERE k.catcode <> 'U')
$$, 'no argument wants quotes in a named call');
SELECT is_empty($$
	SELECT p.oid::regprocedure FROM pg_proc p
	WHERE p.pronamespace = 'event_queue'::regnamespace AND p.prokind = 'p' AND p.proargmodes IS NOT NULL
	  AND array_position(p.proargmodes, 'b') < cardinality(p.proargmodes)
$$, 'a procedure''s INOUT argument is its last');
SELECT is_empty($$
	SELECT p.oid::regprocedure FROM pg_proc p
	WHERE p.pronamespace = 'event_queue'::regnamespace AND p.proname ~ '^(register|unregister|set_.*_enabled)'
$$, 'what is made is created and dropped, what can be switched is paused and resumed');
SELECT is_empty($$
	SELECT p.oid::regprocedure FROM pg_proc p
	WHERE p.pronamespace = 'event_queue'::regnamespace AND p.provolatile <> 'v' AND p.proparallel = 'u'
$$, 'what only reads does not forbid a parallel plan');
SELECT is_empty($$
	SELECT p.oid::regprocedure FROM pg_proc p JOIN pg_language l ON l.oid = p.prolang
	WHERE p.pronamespace IN ('event_queue'::regnamespace, 'event_queue_internal'::regnamespace) AND p.proparallel = 's'
	  AND (p.provolatile = 'v' AND p.proname NOT IN ('uuid_v7', 'job_state')
		OR coalesce(p.prosrc, '') || coalesce(pg_get_function_sqlbody(p.oid), '') ~ '(tenant_visible|resolve_tenant|current_tenant)\(')
$$, 'what asks for the session''s tenant is not safe in a parallel worker');
SELECT is_empty($$
	SELECT p.oid::regprocedure FROM pg_proc p
	WHERE p.pronamespace IN ('event_queue'::regnamespace, 'event_queue_internal'::regnamespace) AND p.provolatile = 'i'
	  AND (coalesce(p.prosrc, '') ~ '(now\(|clock_timestamp|current_setting|to_json|FROM event_queue\.)' OR p.proname = 'event_as_json')
$$, 'nothing is immutable that depends on a setting, the time or a table');

-- In a parallel plan, they are called all the same.
SET LOCAL parallel_setup_cost = 0;
SET LOCAL parallel_tuple_cost = 0;
SET LOCAL min_parallel_table_scan_size = 0;
SELECT event_queue.append('names', 'n1', 'names.made', '{"a": 1}') IS NOT NULL AS appended \gset
SELECT is((SELECT count(*) FROM event_queue.event_store e WHERE e.aggregate_id = 'n1'
	AND event_queue.aggregate_version(e.aggregate_type, e.aggregate_id) = 1
	AND event_queue.aggregate_state(e.aggregate_type, e.aggregate_id) = '{"a": 1}'), 1::bigint, 'readers of an aggregate in a scan');
SELECT * FROM finish();
ROLLBACK;
