/*
 * event_queue.sql: the schemas and functions that all other parts use.
 *
 * The library refuses to load unless it was preloaded, so the first C function below also
 * checks that the server is set up.
 */

/*
 * PostgreSQL refuses partitioned tables if default_tablespace names the tablespace that
 * is the database's anyway.
 */
DO $$
BEGIN
	IF pg_catalog.current_setting('default_tablespace') = (SELECT t.spcname FROM pg_catalog.pg_tablespace t, pg_catalog.pg_database d
		WHERE t.oid = d.dattablespace AND d.datname = pg_catalog.current_database())
	THEN
		PERFORM pg_catalog.set_config('default_tablespace', '', true);
	END IF;
END
$$;

/*
 * Internals: tables that only the extension's functions use, trigger functions, and functions
 * that others share.  Only the extension's owner may use this schema: functions that look
 * names up in it run as the owner (tenant/grants.sql); views and BEGIN ATOMIC bodies have
 * them bound already.
 */
CREATE SCHEMA event_queue_internal;
COMMENT ON SCHEMA event_queue_internal IS 'Tables and functions that the functions of event_queue share; not for direct use.';

/*
 * Example:
 *	SELECT event_queue.version();
 */
CREATE FUNCTION version() RETURNS text
LANGUAGE C STABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'eq_version';
COMMENT ON FUNCTION event_queue.version() IS
'Version of the loaded library, which may be newer than the extension until ALTER EXTENSION event_queue UPDATE.';

/*
 * check_name: raises EQ006 unless value is 1 to max_bytes bytes long, with no
 * control characters and no blanks at either end.  Returns the value.
 */
CREATE FUNCTION event_queue_internal.check_name(what text, value text, max_bytes int DEFAULT 255) RETURNS text
LANGUAGE C IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'eq_check_name_sql';
COMMENT ON FUNCTION event_queue_internal.check_name(text, text, int) IS
'Internal. Returns the value, or raises EQ006 if it is empty, too long, or has control characters.';

/* call_without_collation: support function of functions in SQL and PL/pgSQL that take text (tenant/grants.sql). */
CREATE FUNCTION event_queue_internal.call_without_collation(internal) RETURNS internal
LANGUAGE C IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'eq_call_without_collation';
COMMENT ON FUNCTION event_queue_internal.call_without_collation(internal) IS
'Internal. For the planner: arguments are compared by the collation of the database, whichever they come with.';

CREATE FUNCTION event_queue_internal.check_create_mode(or_replace boolean, if_not_exists boolean) RETURNS void
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	IF or_replace AND if_not_exists THEN
		RAISE EXCEPTION USING ERRCODE = 'EQ009', MESSAGE = 'or_replace and if_not_exists exclude each other';
	END IF;
END
$$;
COMMENT ON FUNCTION event_queue_internal.check_create_mode(boolean, boolean) IS 'Internal. EQ009 if or_replace and if_not_exists are both asked for.';

CREATE FUNCTION event_queue_internal.notice_other_definition(what text, name text) RETURNS void
LANGUAGE plpgsql STABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	RAISE NOTICE USING MESSAGE = format('%s "%s" exists with another definition', what, name),
		DETAIL = 'It was left unchanged.', HINT = 'or_replace => true replaces it.';
END
$$;
COMMENT ON FUNCTION event_queue_internal.notice_other_definition(text, text) IS 'Internal. The NOTICE of if_not_exists where the existing thing has another definition.';

/*
 * config_changed: statement trigger on every configuration table.  Makes all
 * sessions forget what they cached of the table, and after commit tells the
 * workers of this database to read their configuration again.
 */
CREATE FUNCTION event_queue_internal.config_changed() RETURNS trigger
LANGUAGE C AS 'MODULE_PATHNAME', 'eq_config_changed';
COMMENT ON FUNCTION event_queue_internal.config_changed() IS
'Internal. Trigger: invalidates cached configuration and wakes the workers after commit.';
