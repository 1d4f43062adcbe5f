/*
 * activation.sql: where the store is in service: restored dumps and copies are not, until
 * activate() (see activation.c).
 */

CREATE TABLE event_queue_internal.activation (
	identity			bigint NOT NULL,
	system_identifier	text NOT NULL,
	database			text NOT NULL,
	activated_at		timestamptz NOT NULL
);
COMMENT ON TABLE event_queue_internal.activation IS
'Internal. The database in which the store is in service; a dump carries the row, so that a copy is known as one.';
CREATE TRIGGER config_changed AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON event_queue_internal.activation
	FOR EACH STATEMENT EXECUTE FUNCTION event_queue_internal.config_changed();
ALTER TABLE event_queue_internal.activation ENABLE ALWAYS TRIGGER config_changed;
SELECT pg_catalog.pg_extension_config_dump('event_queue_internal.activation', '');

/*
 * Tables of which a COPY of a dump has failed, a bit for each (activation.c): a role that is not
 * here, and no rule, handler or tenant's role would be there.
 */
CREATE SEQUENCE event_queue_internal.failed_loads AS bigint MINVALUE 0 START 0;
COMMENT ON SEQUENCE event_queue_internal.failed_loads IS 'Internal. The tables of which a restore has brought no rows, as bits; 0: none.';

/*
 * end_service_while_loaded: data of a dump that come into a store that is in service put it out
 * of service, before there is a job, a handler or a rule of them.  The trigger stands on
 * each table that a dump has (tenant/grants.sql), as one may be loaded alone; before COPY it
 * notes that it begins, and after it (trigger loaded) that it has ended.
 */
CREATE FUNCTION event_queue_internal.end_service_while_loaded() RETURNS trigger
LANGUAGE C AS 'MODULE_PATHNAME', 'eq_end_service_while_loaded';
COMMENT ON FUNCTION event_queue_internal.end_service_while_loaded() IS
'Internal. Trigger: rows that a dump brings put the store out of service until activate().';

CREATE FUNCTION event_queue_internal.created() RETURNS boolean
LANGUAGE C AS 'MODULE_PATHNAME', 'eq_created';
COMMENT ON FUNCTION event_queue_internal.created() IS
'Internal. End of the extension''s script: a new store is in service, one that a dump''s script creates is not.';

/*
 * activate: takes a restored or copied store into service in this database.
 *
 * A store that came by pg_restore, by a dump's script, by CREATE DATABASE ... TEMPLATE, by
 * pg_upgrade or by logical replication runs nothing: no job, rule, schedule or notification;
 * append, enqueue and claim raise EQ036, reading works.  Call activate when the restore is
 * complete and the jobs that wait in the copy are to run here; on a copy for tests, drop
 * handlers and pause queues first.
 *
 * Positions go on in a new generation, above all that the original gave, so a consumer that was
 * ahead of the copy gets EQ028.  What a dump can't carry is restored: indexes of
 * create_event_index, settings of the built-in queues, guards of the tables of events.  With
 * event_queue.activate_copies = on the scheduler calls activate.
 * Result: the generation, as generation() returns it; a store that is in service is left as it
 * is.
 * Errors: EQ036 a subscription of logical replication writes to the store, or the restore was not
 * complete; EQ008 on a standby (which goes on by itself when it is promoted).
 * Isolation: any; holds at commit.
 * Example:
 *	SELECT event_queue.activate();
 */
CREATE FUNCTION activate() RETURNS text
LANGUAGE C VOLATILE AS 'MODULE_PATHNAME', 'eq_activate';
COMMENT ON FUNCTION activate() IS
'Takes a restored or copied store into service: begins a new generation of positions, then lets the workers in.';

/*
 * activation_state: whether the store is in service in this database.
 * Result:
 * - active.
 * - copy: activate() is needed.
 * - not loaded: made by a dump's script without its data, or written by logical replication;
 *   activate() is needed.
 * - restoring: in neither case in service, and this session runs pg_restore or a dump's script.
 * Example:
 *	SELECT event_queue.activation_state();
 */
CREATE FUNCTION activation_state() RETURNS text
LANGUAGE C VOLATILE AS 'MODULE_PATHNAME', 'eq_activation_state';
COMMENT ON FUNCTION activation_state() IS
'Whether the store is in service here: active, copy, not loaded, or, in a session that restores it, restoring.';

/*
 * A dump can't carry the rows of the built-in queues, which CREATE EXTENSION
 * makes; so their settings stand here a second time, once they were changed.
 */
CREATE TABLE event_queue_internal.builtin_queue_settings (
	name		text PRIMARY KEY,
	settings	jsonb NOT NULL
);
COMMENT ON TABLE event_queue_internal.builtin_queue_settings IS
'Internal. Settings of the built-in queues as a dump carries them; activate() applies them.';
SELECT pg_catalog.pg_extension_config_dump('event_queue_internal.builtin_queue_settings', '');

CREATE FUNCTION event_queue_internal.keep_builtin_settings() RETURNS trigger
LANGUAGE C AS 'MODULE_PATHNAME', 'eq_keep_builtin_settings';
COMMENT ON FUNCTION event_queue_internal.keep_builtin_settings() IS 'Internal. Trigger: keeps changed settings of a built-in queue for the dump.';
CREATE TRIGGER keep_builtin_settings AFTER UPDATE ON queue
	FOR EACH ROW WHEN (NEW.queue_id <= 2) EXECUTE FUNCTION event_queue_internal.keep_builtin_settings();

/* own_references: the foreign keys between our tables. */
CREATE FUNCTION event_queue_internal.own_references(
	OUT table_name text, OUT constraint_name name, OUT definition text, OUT key name, OUT parent text) RETURNS SETOF record
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, event_queue, pg_temp AS $$
	SELECT 'event_queue.' || t, t || '_queue_id_fkey', 'FOREIGN KEY (queue_id) REFERENCES event_queue.queue', 'queue_id', 'event_queue.queue'
	FROM unnest(ARRAY['rule', 'handler', 'schedule']) t
	UNION ALL
	SELECT 'event_queue_internal.' || t, t || '_' || p || '_id_fkey', format('FOREIGN KEY (%1$s_id) REFERENCES event_queue.%1$s ON DELETE CASCADE', p),
		p || '_id', 'event_queue.' || p
	FROM (VALUES ('subscription_bucket', 'subscription'), ('subscription_parked', 'subscription'), ('schedule_run', 'schedule')) x (t, p)
$$;
COMMENT ON FUNCTION event_queue_internal.own_references() IS
'Internal. Foreign keys between tables of the extension: a restore does without, since pg_restore -j loads tables in any order.';

/*
 * check_copy: raises EQ036 if a restore was not complete, before anything relies on what
 * is missing: tables whose COPY has failed, rows that others refer to, indexes of event tables.  Jobs without their
 * queue harm nobody, and nobody sees them: a warning.
 */
CREATE FUNCTION event_queue_internal.check_copy() RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, event_queue, pg_temp AS $$
DECLARE
	this record;
	missing text;
	n bigint;
BEGIN
	SELECT string_agg(t.name, ', ' ORDER BY t.name) INTO missing FROM (
		SELECT c.relnamespace::regnamespace || '.' || c.relname AS name, row_number() OVER (ORDER BY c.oid) - 1 AS place
		FROM pg_extension e, unnest(e.extconfig) x (oid), pg_class c
		WHERE e.extname = 'event_queue' AND c.oid = x.oid AND c.relkind = 'r') t, event_queue_internal.failed_loads f
	WHERE f.last_value >> (t.place % 62)::int & 1 = 1;
	IF missing IS NOT NULL THEN
		RAISE EXCEPTION USING ERRCODE = 'EQ036', MESSAGE = 'cannot activate: tables were not loaded', DETAIL = format('COPY has failed for: %s.', missing),
			HINT = 'The output of the restore says why: create the roles that are not here, and load these tables again (pg_restore --data-only -n ... -t ...).  To go on without their rows: SELECT setval(''event_queue_internal.failed_loads'', 0).';
	END IF;
	FOR this IN SELECT * FROM event_queue_internal.own_references() LOOP
		EXECUTE format('SELECT string_agg(DISTINCT c.%1$I::text, '', '') FROM %2$s c
			WHERE NOT EXISTS (SELECT FROM %3$s p WHERE p.%1$I = c.%1$I)', this.key, this.table_name, this.parent) INTO missing;
		IF missing IS NOT NULL THEN
			RAISE EXCEPTION USING ERRCODE = 'EQ036', MESSAGE = format('cannot activate: rows of table "%s" refer to rows of "%s" that are missing', this.table_name, this.parent),
				DETAIL = format('Missing: %s %s.  The restore of table "%s" has failed, or was left out.', this.key, missing, this.parent),
				HINT = format('Load the rows of "%s" from the same dump, or delete those that refer to it; then activate.', this.parent);
		END IF;
	END LOOP;
	SELECT string_agg(p.name || s, ', ' ORDER BY p.name, s) INTO missing
	FROM event_queue_internal.event_partition p, unnest(ARRAY['_pkey', '_aggregate_key', '_id_key']) s
	WHERE to_regclass(format('event_queue.%I', p.name)) IS NOT NULL AND to_regclass(format('event_queue.%I', p.name || s)) IS NULL;
	IF missing IS NOT NULL THEN
		RAISE EXCEPTION USING ERRCODE = 'EQ036', MESSAGE = 'cannot activate: tables of events lack indexes', DETAIL = format('Missing: %s.', missing),
			HINT = 'The restore has not come to its end, or was run twice, so that events are there twice.  Repeat it in an empty database.';
	END IF;
	SELECT count(*) INTO n FROM (SELECT j.queue_id FROM event_queue.job j UNION ALL SELECT l.queue_id FROM event_queue.dead_letter l) x
	WHERE NOT EXISTS (SELECT FROM event_queue.queue q WHERE q.queue_id = x.queue_id);
	IF n > 0 THEN
		RAISE WARNING USING MESSAGE = format('%s jobs and dead letters are of queues that are not here', n),
			DETAIL = 'They were restored without table "event_queue.queue" of the same dump, and will never run.',
			HINT = 'SELECT * FROM event_queue.job WHERE queue_id NOT IN (SELECT queue_id FROM event_queue.queue)';
	END IF;
	SELECT string_agg(q.name, ', ' ORDER BY q.name) INTO missing FROM event_queue.subscription q
	WHERE (SELECT count(*) FROM event_queue_internal.subscription_bucket b WHERE b.subscription_id = q.subscription_id) < q.buckets;
	IF missing IS NOT NULL THEN
		RAISE WARNING USING MESSAGE = format('subscriptions without checkpoint: %s', missing),
			HINT = 'reset_subscription(name, to_position) gives it one: the position up to which its events are done.';
	END IF;
	-- The row comes with the rest of a dump.
	SELECT string_agg(format('%s (%s)', q.name, x.n), ', ' ORDER BY q.name) INTO missing
	FROM (SELECT y.queue_id, count(*) AS n FROM (SELECT j.queue_id FROM event_queue.job j UNION ALL SELECT l.queue_id FROM event_queue.dead_letter l) y GROUP BY 1) x
	JOIN event_queue.queue q USING (queue_id);
	IF missing IS NOT NULL AND NOT EXISTS (SELECT FROM event_queue_internal.activation) THEN
		RAISE WARNING USING MESSAGE = 'only parts of a dump were loaded: jobs are of the queues that have their queue_id here', DETAIL = format('Jobs and dead letters: %s.', missing),
			HINT = 'Unless the restore is complete and these queues are those of the dump, roll back: the jobs run from the commit on.';
	END IF;
END
$$;
COMMENT ON FUNCTION event_queue_internal.check_copy() IS 'Internal. Raises an error if a restore was not complete.';

/*
 * mend_copy: what a dump can't carry, or leaves in another form (pg_restore
 * --disable-triggers makes plain triggers of those that fire always).
 */
CREATE FUNCTION event_queue_internal.mend_copy() RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, event_queue, pg_temp AS $$
DECLARE
	this record;
	columns text;
	first bigint;
	highest bigint;
BEGIN
	FOR this IN SELECT t.tgrelid::regclass AS "table", t.tgname FROM pg_trigger t
		WHERE t.tgenabled <> 'A' AND (t.tgfoid IN ('event_queue_internal.refuse_change'::regproc, 'event_queue_internal.end_service_while_loaded'::regproc)
			OR t.tgrelid = 'event_queue_internal.activation'::regclass AND t.tgname = 'config_changed')
	LOOP
		EXECUTE format('ALTER TABLE %s ENABLE ALWAYS TRIGGER %I', this."table", this.tgname);
	END LOOP;
	FOR this IN SELECT * FROM event_queue_internal.own_references() r WHERE NOT EXISTS (SELECT FROM pg_constraint c
		WHERE c.conname = r.constraint_name AND c.conrelid = r.table_name::regclass)
	LOOP
		EXECUTE format('ALTER TABLE %s ADD CONSTRAINT %I %s',
			this.table_name, this.constraint_name, this.definition);
	END LOOP;
	FOR this IN SELECT i."by" FROM event_queue_internal.event_index i LOOP
		PERFORM event_queue.create_event_index(this."by", if_not_exists => true);
	END LOOP;
	SELECT min(p.first_position) INTO first FROM event_queue_internal.event_partition p
	WHERE p.tenant_id IS NULL AND NOT p.split_off;
	IF first IS NOT NULL AND NOT EXISTS (SELECT FROM pg_constraint c
		WHERE c.conrelid = 'event_queue.event_store'::regclass AND c.conname = 'event_store_last') THEN
		EXECUTE format('ALTER TABLE event_queue.event_store
			ADD CONSTRAINT event_store_last CHECK (position <= %s) NO INHERIT NOT VALID', first - 1);
	END IF;
	PERFORM setval('event_queue_internal.failed_loads', 0);
	-- A subscription that brought no queues had taken them away.
	INSERT INTO event_queue.queue (queue_id, name, sla) OVERRIDING SYSTEM VALUE
	VALUES (1, 'rule-calls', '10 seconds'), (2, 'snapshots', '1 minute') ON CONFLICT DO NOTHING;
	FOR this IN SELECT s.name, s.settings FROM event_queue_internal.builtin_queue_settings s LOOP
		SELECT string_agg(quote_ident(a.attname), ', ') INTO columns FROM pg_attribute a
		WHERE a.attrelid = 'event_queue.queue'::regclass AND a.attnum > 0 AND NOT a.attisdropped
		  AND a.attgenerated = '' AND this.settings ? a.attname;
		EXECUTE format('UPDATE event_queue.queue q SET (%s) = (SELECT %1$s FROM jsonb_populate_record(q, $1))
			WHERE q.name = $2 AND q.queue_id <= 2', columns) USING this.settings, this.name;
	END LOOP;
	INSERT INTO event_queue.event_watermark (position, published_at) VALUES (0, now()) ON CONFLICT DO NOTHING;
	-- A table that was loaded alone, or by a subscription, came without its sequence.
	SELECT max(a.audit_id) INTO highest FROM event_queue.audit_log a;
	PERFORM setval('event_queue_internal.audit_id', highest) FROM event_queue_internal.audit_id s WHERE s.last_value <= highest;
	FOR this IN SELECT s.oid::regclass AS sequence, a.attrelid::regclass AS "table", a.attname AS "column"
		FROM pg_class s JOIN pg_depend d ON d.classid = 'pg_class'::regclass AND d.objid = s.oid AND d.refclassid = 'pg_class'::regclass AND d.deptype IN ('a', 'i')
		JOIN pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
		WHERE s.relkind = 'S' AND s.relnamespace IN ('event_queue'::regnamespace, 'event_queue_internal'::regnamespace)
	LOOP
		EXECUTE format('SELECT max(%I) FROM %s', this."column", this."table") INTO highest;
		IF this."table" = 'event_queue.job'::regclass THEN
			highest := greatest(highest, (SELECT max(l.job_id) FROM event_queue.dead_letter l), (SELECT max(h.job_id) FROM event_queue.job_history h));
		END IF;
		EXECUTE format('SELECT setval(%L, $1) FROM %s WHERE last_value <= $1', this.sequence, this.sequence) USING highest;
	END LOOP;
	-- Whatever was loaded of job_review: all that waits is looked at.
	INSERT INTO event_queue_internal.job_review (queue_id, tenant_id, group_key)
	SELECT DISTINCT j.queue_id, j.tenant_id, j.group_key FROM event_queue.job j WHERE j.blocked = 1 AND j.group_key IS NOT NULL;
	INSERT INTO event_queue_internal.job_review (tenant_id, job_id) SELECT j.tenant_id, j.job_id FROM event_queue.job j WHERE j.blocked = 2;
END
$$;
COMMENT ON FUNCTION event_queue_internal.mend_copy() IS 'Internal. What activate() brings back that a dump leaves out.';
