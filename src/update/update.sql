update.sql: what begins and ends each update script (make-update.pl).
-- section begin

/*
 * The library is that of the new version: else the functions below would be another
 * version's, and memory of the server might be written wrongly.
 */
DO $$
BEGIN
	IF event_queue.version() <> '@new@' THEN
		RAISE EXCEPTION USING ERRCODE = 'EQ045',
			MESSAGE = format('the library event_queue that the server has loaded is of version %s, not %s', event_queue.version(), '@new@'),
			HINT = 'Install the new package and restart the server first.';
	END IF;
END
$$;

/* What is dropped below and made again at the end; is itself dropped there. */
CREATE TABLE event_queue.update_keeps (id int GENERATED ALWAYS AS IDENTITY, what text, object text, role text, command text);

DO $$
DECLARE
	extension oid := (SELECT e.oid FROM pg_catalog.pg_extension e WHERE e.extname = 'event_queue');
	this record;
	awaited regclass;
	waits boolean;
BEGIN
	PERFORM pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);
	-- All at once, and waiting for one only while none is held: who reads several in an
	-- order of his own would deadlock with this.
	LOOP
		BEGIN
			waits := awaited IS NOT NULL;
			IF waits THEN
				EXECUTE format('LOCK TABLE %s IN ACCESS EXCLUSIVE MODE', awaited);
			END IF;
			waits := false;
			FOR this IN SELECT c.oid::regclass AS name FROM pg_depend d JOIN pg_class c ON c.oid = d.objid
				WHERE d.refclassid = 'pg_extension'::regclass AND d.refobjid = extension AND d.deptype = 'e'
				  AND d.classid = 'pg_class'::regclass AND c.relkind IN ('r', 'p') ORDER BY c.oid
			LOOP
				awaited := this.name;
				EXECUTE format('LOCK TABLE %s IN ACCESS EXCLUSIVE MODE NOWAIT', awaited);
			END LOOP;
			EXIT;
		EXCEPTION WHEN lock_not_available THEN
			-- which has given back those that it had
			IF waits THEN
				RAISE;	-- lock_timeout
			END IF;
		END;
	END LOOP;

	-- what roles may use
	INSERT INTO event_queue.update_keeps (what, object, role, command)
	SELECT 'grant', CASE WHEN c.relkind = 'S' THEN 'SEQUENCE ' ELSE 'TABLE ' END || c.oid::regclass, a.grantee::regrole,
		format('GRANT %s ON %s %s TO %s%s', a.privilege_type, CASE WHEN c.relkind = 'S' THEN 'SEQUENCE' ELSE 'TABLE' END, c.oid::regclass,
			a.grantee::regrole, CASE WHEN a.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END)
	FROM pg_depend d JOIN pg_class c ON c.oid = d.objid, aclexplode(c.relacl) a
	WHERE d.refclassid = 'pg_extension'::regclass AND d.refobjid = extension AND d.deptype = 'e'
	  AND d.classid = 'pg_class'::regclass AND c.relkind IN ('v', 'r', 'p', 'S') AND a.grantee NOT IN (0, c.relowner)
	UNION ALL
	SELECT 'grant', 'FUNCTION ' || p.oid::regprocedure, a.grantee::regrole, format('GRANT EXECUTE ON ROUTINE %s TO %s%s', p.oid::regprocedure, a.grantee::regrole,
		CASE WHEN a.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END)
	FROM pg_depend d JOIN pg_proc p ON p.oid = d.objid, aclexplode(p.proacl) a
	WHERE d.refclassid = 'pg_extension'::regclass AND d.refobjid = extension AND d.deptype = 'e'
	  AND d.classid = 'pg_proc'::regclass AND a.grantee NOT IN (0, p.proowner);

	-- triggers of ours on tables of ours
	FOR this IN SELECT t.tgname, t.tgrelid::regclass AS "table" FROM pg_trigger t
		WHERE NOT t.tgisinternal AND t.tgparentid = 0
		  AND EXISTS (SELECT FROM pg_depend d WHERE d.refclassid = 'pg_extension'::regclass AND d.refobjid = extension
			AND d.deptype = 'e' AND d.classid = 'pg_class'::regclass AND d.objid = t.tgrelid)
		  AND EXISTS (SELECT FROM pg_depend d WHERE d.refclassid = 'pg_extension'::regclass AND d.refobjid = extension
			AND d.deptype = 'e' AND d.classid = 'pg_proc'::regclass AND d.objid = t.tgfoid)
	LOOP
		EXECUTE format('DROP TRIGGER %I ON %s', this.tgname, this."table");
	END LOOP;

	-- Our views, and those of users that stand on them or on a table whose columns change.
	FOR this IN
		WITH RECURSIVE members AS (
			SELECT d.objid AS oid FROM pg_depend d WHERE d.refclassid = 'pg_extension'::regclass AND d.refobjid = extension
			  AND d.deptype = 'e' AND d.classid = 'pg_class'::regclass),
		standing (oid, height) AS (
			SELECT c.oid, 0 FROM pg_class c JOIN members m USING (oid)
			WHERE c.relkind = 'v' OR c.oid::regclass::text = ANY (ARRAY['', '@rewritten@'])
			UNION
			SELECT r.ev_class, s.height + 1 FROM standing s
			JOIN pg_depend d ON d.refclassid = 'pg_class'::regclass AND d.refobjid = s.oid AND d.classid = 'pg_rewrite'::regclass
			JOIN pg_rewrite r ON r.oid = d.objid AND r.ev_class <> s.oid WHERE s.height < 100)
		SELECT c.oid, c.oid::regclass::text AS name, c.oid IN (SELECT m.oid FROM members m) AS ours, c.relowner::regrole::text AS owner,
			array_to_string(c.reloptions, ', ') AS options, c.relpersistence = 't' AS temporary, max(s.height) AS height
		FROM standing s JOIN pg_class c USING (oid) WHERE c.relkind = 'v' GROUP BY c.oid ORDER BY max(s.height) DESC, c.oid
	LOOP
		-- A temporary one, which is a session's own, goes.
		IF NOT this.ours AND NOT this.temporary AND (EXISTS (SELECT FROM pg_trigger t WHERE t.tgrelid = this.oid)
			OR EXISTS (SELECT FROM pg_rewrite r WHERE r.ev_class = this.oid AND r.rulename <> '_RETURN')
			OR EXISTS (SELECT FROM pg_attrdef a WHERE a.adrelid = this.oid)
			OR EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = this.oid AND a.attacl IS NOT NULL)) THEN
			RAISE EXCEPTION USING ERRCODE = 'dependent_objects_still_exist',
				MESSAGE = format('view %s has triggers, rules, defaults or rights on columns', this.name),
				HINT = 'Drop it, update the extension, and create it again.';
		END IF;
		IF NOT this.ours AND NOT this.temporary THEN
			INSERT INTO event_queue.update_keeps (what, object, role, command)
			SELECT 'view', this.name, CASE x.place WHEN 3 THEN this.owner END, x.command FROM (
				-- from the last to the first
				SELECT 0, format('GRANT %s ON TABLE %s TO %s%s', a.privilege_type, this.name,
					CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE a.grantee::regrole::text END,
					CASE WHEN a.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END)
				FROM pg_class c, aclexplode(c.relacl) a WHERE c.oid = this.oid AND a.grantee <> c.relowner
				UNION ALL SELECT 1, format('ALTER VIEW %s OWNER TO %s', this.name, this.owner)
				UNION ALL SELECT 1, format('COMMENT ON VIEW %s IS %L', this.name, obj_description(this.oid, 'pg_class'))
				UNION ALL SELECT 2, format('ALTER EXTENSION event_queue DROP VIEW %s', this.name)
				UNION ALL SELECT 3, format('CREATE VIEW %s %s AS %s', this.name,
					CASE WHEN this.options <> '' THEN 'WITH (' || this.options || ')' ELSE '' END, pg_get_viewdef(this.oid))) x (place, command)
			ORDER BY x.place;
		END IF;
		EXECUTE format('DROP VIEW %s', this.name);
	END LOOP;
	PERFORM set_config('search_path', 'event_queue, pg_temp', true);
END
$$;

-- section middle

/* What is internal now: no role has rights on it but those that the new version gives. */
DO $$
DECLARE
	this record;
BEGIN
	FOR this IN
		SELECT 'ROUTINE' AS kind, p.oid::pg_catalog.regprocedure::text AS name, a.grantee::pg_catalog.regrole AS role
		FROM pg_catalog.pg_proc p, pg_catalog.aclexplode(p.proacl) a
		WHERE p.pronamespace = 'event_queue_internal'::pg_catalog.regnamespace AND a.grantee NOT IN (0, p.proowner)
		UNION
		SELECT CASE c.relkind WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END, c.oid::pg_catalog.regclass::text, a.grantee::pg_catalog.regrole
		FROM pg_catalog.pg_class c, pg_catalog.aclexplode(c.relacl) a
		WHERE c.relnamespace = 'event_queue_internal'::pg_catalog.regnamespace AND a.grantee NOT IN (0, c.relowner)
	LOOP
		EXECUTE pg_catalog.format('REVOKE ALL ON %s %s FROM %s', this.kind, this.name, this.role);
	END LOOP;
END
$$;
-- section end

/*
 * Reading a view's text may run its owner's code (the CHECK of a domain in a composite
 * constant): it is read as the owner, and what that leaves behind is refused.
 */
CREATE FUNCTION event_queue.update_as(role regrole, command text) RETURNS void
LANGUAGE C VOLATILE STRICT AS 'MODULE_PATHNAME', 'eq_update_as';
REVOKE ALL ON FUNCTION event_queue.update_as(regrole, text) FROM PUBLIC;

/* Views of users and grants to roles come back. */
DO $$
DECLARE
	this record;
BEGIN
	PERFORM pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);
	FOR this IN SELECT k.* FROM event_queue.update_keeps k WHERE k.what = 'view' ORDER BY k.id DESC LOOP
		BEGIN
			IF this.role IS NULL THEN
				EXECUTE this.command;
			ELSE
				PERFORM event_queue.update_as(this.role::regrole, this.command);
			END IF;
		EXCEPTION WHEN OTHERS THEN
			RAISE EXCEPTION USING ERRCODE = SQLSTATE, MESSAGE = format('could not recreate view %s: %s', this.object, SQLERRM),
				HINT = 'Drop it, update the extension, and create it for the new version.';
		END;
	END LOOP;
	FOR this IN SELECT k.* FROM event_queue.update_keeps k WHERE k.what = 'grant' ORDER BY k.id LOOP
		IF (CASE WHEN this.object LIKE 'FUNCTION %' THEN to_regprocedure(substr(this.object, 10)) IS NOT NULL
			ELSE to_regclass(split_part(this.object, ' ', 2)) IS NOT NULL END) THEN
			EXECUTE this.command;
		END IF;
	END LOOP;
END
$$;
DROP TABLE event_queue.update_keeps;
DROP FUNCTION event_queue.update_as(regrole, text);
