/*
 * partition.sql: partitions of the event store, by time and by tenant; archiving.
 *
 * Partitions inherit from event_store: queries on event_store see them all, and the store
 * can be partitioned at any time without being rewritten, since existing rows stay where
 * they are.  A partition by time begins, at a position, where the previous one ends; a
 * tenant's partition takes all events of the tenant.  append decides which table an event
 * goes to (store/leaves.c reads event_partition); each table has the indexes NAME_pkey,
 * NAME_aggregate_key and NAME_id_key.
 *
 * Archiving removes a whole sealed table: what stays of its aggregates is a snapshot
 * (is_base) with their version and state.
 */

CREATE TABLE event_queue_internal.event_partition (
	partition_id	int GENERATED ALWAYS AS IDENTITY CONSTRAINT event_partition_pkey PRIMARY KEY,
	name			text NOT NULL UNIQUE,
	tenant_id		text,
	first_position	bigint NOT NULL,
	last_position	bigint,
	split_off		boolean NOT NULL DEFAULT false,
	created_at		timestamptz NOT NULL DEFAULT clock_timestamp(),
	archived_at		timestamptz
);
COMMENT ON TABLE event_queue_internal.event_partition IS 'Tables of events beside event_store itself; written by the partition functions.';
COMMENT ON COLUMN event_queue_internal.event_partition.tenant_id IS 'Holds this tenant''s events only; NULL: by time.';
COMMENT ON COLUMN event_queue_internal.event_partition.last_position IS 'Sealed: no event above it goes here; NULL: takes new events.';
COMMENT ON COLUMN event_queue_internal.event_partition.split_off IS
'Its events were moved out of event_store, and are older than what is there; those of all others are newer.';
ALTER TABLE event_queue_internal.event_partition ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant_isolation ON event_queue_internal.event_partition USING (tenant_id IS NULL OR tenant_visible(tenant_id));
CREATE TRIGGER config_changed AFTER INSERT OR UPDATE OR DELETE ON event_queue_internal.event_partition
	FOR EACH STATEMENT EXECUTE FUNCTION event_queue_internal.config_changed();
SELECT pg_catalog.pg_extension_config_dump('event_queue_internal.event_partition', '');
SELECT pg_catalog.pg_extension_config_dump('event_queue_internal.event_partition_partition_id_seq', '');

CREATE TABLE event_queue_internal.partition_policy (
	one_row			boolean PRIMARY KEY DEFAULT true CHECK (one_row),
	every			interval,
	keep			interval,
	archive_schema	text
);
COMMENT ON TABLE event_queue_internal.partition_policy IS 'When the keeper begins a partition by time, and archives old ones.';
CREATE TRIGGER config_changed AFTER INSERT OR UPDATE OR DELETE ON event_queue_internal.partition_policy
	FOR EACH STATEMENT EXECUTE FUNCTION event_queue_internal.config_changed();
SELECT pg_catalog.pg_extension_config_dump('event_queue_internal.partition_policy', '');

CREATE TABLE event_queue_internal.event_index (
	"by"	text CONSTRAINT event_index_pkey PRIMARY KEY
);
COMMENT ON TABLE event_queue_internal.event_index IS 'What create_event_index was called for; activate() makes the indexes anew, which a dump leaves out.';
SELECT pg_catalog.pg_extension_config_dump('event_queue_internal.event_index', '');

CREATE FUNCTION event_queue_internal.open_guard(open boolean) RETURNS void
LANGUAGE C VOLATILE STRICT AS 'MODULE_PATHNAME', 'eq_open_guard';
COMMENT ON FUNCTION event_queue_internal.open_guard(boolean) IS
'Internal. Lets events be deleted until the transaction ends: for moving them between tables.';

/* What every table of events has besides its columns. */
CREATE FUNCTION event_queue_internal.make_event_table(name text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, event_queue, pg_temp AS $$
DECLARE
	what text;
BEGIN
	-- against a GRANT to the same row of pg_class (grants.sql)
	LOCK TABLE ONLY event_queue.event_store IN SHARE ROW EXCLUSIVE MODE;
	EXECUTE format('CREATE TABLE event_queue.%I () INHERITS (event_queue.event_store)', name);
	EXECUTE format('ALTER TABLE event_queue.%I
		ADD CONSTRAINT %I PRIMARY KEY (position),
		ADD CONSTRAINT %I UNIQUE (aggregate_id, aggregate_type, tenant_id, version),
		ADD CONSTRAINT %I UNIQUE (id, tenant_id)',
		name, name || '_pkey', name || '_aggregate_key', name || '_id_key');
	EXECUTE format('CREATE INDEX %I ON event_queue.%I ((metadata ->> ''causation_id'')) WHERE metadata ? ''causation_id''',
		name || '_caused_by', name);
	EXECUTE format('COMMENT ON TABLE event_queue.%I IS ''A partition of event_store.''', name);
	EXECUTE format('ALTER TABLE event_queue.%I ENABLE ROW LEVEL SECURITY', name);
	EXECUTE format('CREATE POLICY tenant_isolation ON event_queue.%I USING (event_queue.tenant_visible(tenant_id))', name);
	EXECUTE format('CREATE TRIGGER refuse_change BEFORE UPDATE OR DELETE ON event_queue.%I
		FOR EACH ROW EXECUTE FUNCTION event_queue_internal.refuse_change()', name);
	EXECUTE format('CREATE TRIGGER refuse_truncate BEFORE TRUNCATE ON event_queue.%I
		FOR EACH STATEMENT EXECUTE FUNCTION event_queue_internal.refuse_change()', name);
	EXECUTE format('ALTER TABLE event_queue.%I ENABLE ALWAYS TRIGGER refuse_change,
		ENABLE ALWAYS TRIGGER refuse_truncate', name);
	FOREACH what IN ARRAY ARRAY['event_type', 'aggregate_type', 'tenant_id', 'event_data'] LOOP
		IF to_regclass('event_queue.event_store_by_' || what) IS NOT NULL THEN
			PERFORM event_queue_internal.make_event_index(name, what);
		END IF;
	END LOOP;
END
$$;
COMMENT ON FUNCTION event_queue_internal.make_event_table(text) IS 'Internal. Creates a table that inherits from event_store, with all it needs.';

CREATE FUNCTION event_queue_internal.make_event_index(table_name text, "by" text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, event_queue, pg_temp SET client_min_messages = warning AS $$
BEGIN
	IF $2 = 'event_data' THEN
		EXECUTE format('CREATE INDEX IF NOT EXISTS %I ON event_queue.%I USING gin (event_data jsonb_path_ops)',
			$1 || '_by_event_data', $1);
	ELSE
		EXECUTE format('CREATE INDEX IF NOT EXISTS %I ON event_queue.%I (%I, position)', $1 || '_by_' || $2, $1, $2);
	END IF;
END
$$;
COMMENT ON FUNCTION event_queue_internal.make_event_index(text, text) IS 'Internal. What create_event_index does for each table.';

/*
 * create_event_index: makes reading by a filter quick where few events pass it.
 * Without it such a reader walks over all events since its position, which
 * costs nothing for one that keeps up; the price of the index is paid by each
 * append.
 * Arguments: indexed_by is event_type (patterns without *), aggregate_type,
 * tenant_id, or event_data (GIN: for your own queries with @>).  if_not_exists: no
 * error if there is one.
 * Result: true.  The view event_indexes lists them.
 * Errors: EQ009 indexed_by, EQ018 there is one, 55P03 as create_event_partition.  Locks out
 * appends while it works.
 * Example:
 *	SELECT event_queue.create_event_index('event_type', if_not_exists => true);
 */
CREATE FUNCTION create_event_index(indexed_by text, if_not_exists boolean DEFAULT false) RETURNS boolean
LANGUAGE plpgsql SET search_path = pg_catalog, event_queue, pg_temp SET lock_timeout = '5s' AS $$
DECLARE
	this_table text;
BEGIN
	PERFORM event_queue_internal.require_unbound();
	IF $1 IS NULL OR $1 NOT IN ('event_type', 'aggregate_type', 'tenant_id', 'event_data') THEN
		RAISE EXCEPTION USING ERRCODE = 'EQ009',
			MESSAGE = 'an event index is by event_type, aggregate_type, tenant_id or event_data';
	END IF;
	INSERT INTO event_queue_internal.event_index VALUES ($1) ON CONFLICT DO NOTHING;
	IF NOT FOUND AND $2 IS NOT TRUE THEN
		RAISE EXCEPTION USING ERRCODE = 'EQ018', MESSAGE = format('event index by %s already exists', $1),
			HINT = 'if_not_exists => true leaves it.';
	END IF;
	LOCK TABLE ONLY event_queue.event_store IN SHARE ROW EXCLUSIVE MODE;
	FOR this_table IN
		SELECT 'event_store' UNION ALL SELECT p.name FROM event_queue_internal.event_partition p WHERE p.archived_at IS NULL
	LOOP
		PERFORM event_queue_internal.make_event_index(this_table, $1);
	END LOOP;
	UPDATE event_queue_internal.event_partition SET name = name;	-- sessions look for indexes again
	RETURN true;
END
$$;
COMMENT ON FUNCTION create_event_index(text, boolean) IS
'Indexes events by event_type, aggregate_type, tenant_id or event_data, for readers whose filter lets few pass.';

/*
 * drop_event_index: undoes create_event_index.  Result: true.
 * Errors: EQ009 indexed_by, EQ025 there is none, 55P03 if transactions that have read or appended
 * events do not end within 5 s.
 * Example:
 *	SELECT event_queue.drop_event_index('event_type');
 */
CREATE FUNCTION drop_event_index(indexed_by text) RETURNS boolean
LANGUAGE plpgsql SET search_path = pg_catalog, event_queue, pg_temp SET lock_timeout = '5s' AS $$
DECLARE
	this_table text;
BEGIN
	PERFORM event_queue_internal.require_unbound();
	IF $1 IS NULL OR $1 NOT IN ('event_type', 'aggregate_type', 'tenant_id', 'event_data') THEN
		RAISE EXCEPTION USING ERRCODE = 'EQ009',
			MESSAGE = 'an event index is by event_type, aggregate_type, tenant_id or event_data';
	END IF;
	DELETE FROM event_queue_internal.event_index i WHERE i."by" = $1;
	IF NOT FOUND THEN
		RAISE EXCEPTION USING ERRCODE = 'EQ025', MESSAGE = format('event index by %s does not exist', $1);
	END IF;
	FOR this_table IN
		SELECT 'event_store' UNION ALL SELECT p.name FROM event_queue_internal.event_partition p WHERE p.archived_at IS NULL
	LOOP
		EXECUTE format('DROP INDEX IF EXISTS event_queue.%I', this_table || '_by_' || $1);
	END LOOP;
	UPDATE event_queue_internal.event_partition SET name = name;
	RETURN true;
END
$$;
COMMENT ON FUNCTION drop_event_index(text) IS 'Drops what create_event_index made.';

/*
 * create_event_partition: begins a new table for new events: for all of them (by time), or for
 * those of one tenant, whose name any role can read in the catalog then (pg_constraint).
 * Arguments: if_not_exists: a tenant that has one keeps it.
 * Result: the table's name.
 * Errors: EQ018 the tenant has one, 55P03 if transactions that have appended do not end within 5
 * s: then nothing has changed, try again.
 * Example:
 *	SELECT event_queue.create_event_partition('acme', if_not_exists => true) AS partition \gset
 */
CREATE FUNCTION create_event_partition(tenant_id text DEFAULT NULL, if_not_exists boolean DEFAULT false) RETURNS text
LANGUAGE plpgsql SET search_path = pg_catalog, event_queue, pg_temp SET lock_timeout = '5s' AS $$
#variable_conflict use_column
DECLARE
	first bigint;
	new_id int;
	new_name text;
	before event_queue_internal.event_partition;
BEGIN
	PERFORM event_queue_internal.require_unbound();
	-- No open transaction has appended: positions from now on are above first.
	LOCK TABLE ONLY event_queue.event_store IN SHARE ROW EXCLUSIVE MODE;
	IF $1 IS NOT NULL THEN
		PERFORM event_queue_internal.check_name('tenant', $1);
		new_name := (SELECT p.name FROM event_queue_internal.event_partition p WHERE p.tenant_id = $1 AND p.last_position IS NULL);
		IF new_name IS NOT NULL AND $2 THEN
			RETURN new_name;
		ELSIF new_name IS NOT NULL THEN
			RAISE EXCEPTION USING ERRCODE = 'EQ018', MESSAGE = format('tenant "%s" has a partition', $1);
		END IF;
	END IF;
	first := event_queue_internal.last_position() + 1;
	SELECT p.* INTO before FROM event_queue_internal.event_partition p
	WHERE p.tenant_id IS NULL AND $1 IS NULL AND p.last_position IS NULL ORDER BY p.partition_id DESC LIMIT 1;
	IF FOUND THEN
		UPDATE event_queue_internal.event_partition p SET last_position = first - 1 WHERE p.partition_id = before.partition_id;
		EXECUTE format('ALTER TABLE event_queue.%I ADD CONSTRAINT %I CHECK (position <= %s) NOT VALID',
			before.name, before.name || '_last', first - 1);
	ELSIF $1 IS NULL THEN
		EXECUTE format('ALTER TABLE event_queue.event_store
			ADD CONSTRAINT event_store_last CHECK (position <= %s) NO INHERIT NOT VALID', first - 1);
	END IF;
	INSERT INTO event_queue_internal.event_partition (name, tenant_id, first_position)
	VALUES ('', $1, first) RETURNING partition_id INTO new_id;
	new_name := 'event_store_' || CASE WHEN $1 IS NULL THEN 'p' ELSE 't' END || new_id;
	UPDATE event_queue_internal.event_partition p SET name = new_name WHERE p.partition_id = new_id;
	PERFORM event_queue_internal.make_event_table(new_name);
	EXECUTE format('ALTER TABLE event_queue.%I ADD CONSTRAINT %I CHECK (position >= %s)', new_name, new_name || '_first', first);
	IF $1 IS NOT NULL THEN
		EXECUTE format('ALTER TABLE event_queue.%I ADD CONSTRAINT %I CHECK (tenant_id = %L)',
			new_name, new_name || '_tenant', $1);
	END IF;
	RETURN new_name;
END
$$;
COMMENT ON FUNCTION create_event_partition(text, boolean) IS
'Sends new events, or one tenant''s, to a new table from now on.';

/*
 * set_event_partitioning: has the keeper begin a partition by time at this interval, the first
 * one now; NULL: no more.  Possible at any time.
 * Errors: EQ009 below one hour or above 100 years; as create_event_partition.
 * Example:
 *	SELECT event_queue.set_event_partitioning('1 month');
 */
CREATE FUNCTION set_event_partitioning(every interval) RETURNS text
LANGUAGE plpgsql SET search_path = pg_catalog, event_queue, pg_temp AS $$
#variable_conflict use_column
BEGIN
	PERFORM event_queue_internal.require_unbound();
	IF $1 NOT BETWEEN interval '1 hour' AND interval '100 years' THEN
		RAISE EXCEPTION USING ERRCODE = 'EQ009', MESSAGE = 'partitions must be at least one hour and at most 100 years apart';
	END IF;
	INSERT INTO event_queue_internal.partition_policy (every) VALUES ($1)
	ON CONFLICT (one_row) DO UPDATE SET every = excluded.every;
	IF $1 IS NULL OR EXISTS (SELECT FROM event_queue_internal.event_partition p
		WHERE p.tenant_id IS NULL AND p.last_position IS NULL AND p.created_at > clock_timestamp() - $1) THEN
		RETURN NULL;
	END IF;
	RETURN event_queue.create_event_partition();
END
$$;
COMMENT ON FUNCTION set_event_partitioning(interval) IS
'Partitions the event store by time: the keeper begins a new table at each interval, the first one now.';

/*
 * split_event_partition: moves events that stand in event_store itself to a sealed
 * partition: those up to a time, or one tenant's.  Rewrites what it moves, in
 * the caller's transaction, and locks out appends meanwhile: for a quiet hour.
 * Result: the table's name; NULL if there was nothing to move.
 * Errors: EQ009 neither or both arguments, 55P03 as create_event_partition.
 * Example:
 *	SELECT event_queue.split_event_partition(up_to => now() - interval '1 year');
 */
CREATE FUNCTION split_event_partition(up_to timestamptz DEFAULT NULL, tenant_id text DEFAULT NULL) RETURNS text
LANGUAGE plpgsql SET search_path = pg_catalog, event_queue, pg_temp SET lock_timeout = '5s' AS $$
#variable_conflict use_column
DECLARE
	first bigint;
	last bigint;
	new_id int;
	new_name text;
BEGIN
	PERFORM event_queue_internal.require_unbound();
	IF ($1 IS NULL) = ($2 IS NULL) THEN
		RAISE EXCEPTION USING ERRCODE = 'EQ009', MESSAGE = 'give a time or a tenant';
	END IF;
	LOCK TABLE ONLY event_queue.event_store IN SHARE ROW EXCLUSIVE MODE;
	IF $1 IS NOT NULL THEN
		-- Times need not follow positions exactly; tables must.
		SELECT coalesce(min(e.position) - 1, event_queue_internal.last_position()) INTO last
		FROM ONLY event_queue.event_store e WHERE e.created_at > $1;
		SELECT min(e.position), max(e.position) INTO first, last
		FROM ONLY event_queue.event_store e WHERE e.position <= last;
	ELSE
		SELECT min(e.position), max(e.position) INTO first, last
		FROM ONLY event_queue.event_store e WHERE e.tenant_id = $2;
	END IF;
	IF first IS NULL THEN
		RETURN NULL;
	END IF;
	INSERT INTO event_queue_internal.event_partition (name, tenant_id, first_position, last_position, split_off)
	VALUES ('', $2, first, last, true) RETURNING partition_id INTO new_id;
	new_name := 'event_store_old' || new_id;
	UPDATE event_queue_internal.event_partition p SET name = new_name WHERE p.partition_id = new_id;
	PERFORM event_queue_internal.make_event_table(new_name);
	EXECUTE format('INSERT INTO event_queue.%I SELECT e.* FROM ONLY event_queue.event_store e
		WHERE e.position BETWEEN %s AND %s AND (%L::text IS NULL OR e.tenant_id = %L) ORDER BY e.position',
		new_name, first, last, $2, $2);
	PERFORM event_queue_internal.open_guard(true);
	DELETE FROM ONLY event_queue.event_store e
	WHERE e.position BETWEEN first AND last AND ($2 IS NULL OR e.tenant_id = $2);
	PERFORM event_queue_internal.open_guard(false);
	RETURN new_name;
END
$$;
COMMENT ON FUNCTION split_event_partition(timestamptz, text) IS
'Moves old events, or one tenant''s, out of event_store into a sealed partition, which can be archived.';

/*
 * seal_event_partition: closes a tenant's partition.  The tenant's events go where those of
 * others go, from now on to a new partition: what is newer must be in a newer table.  (A
 * partition by time is sealed by the next one.)
 * Errors: EQ025.
 * Example:
 *	SELECT event_queue.seal_event_partition(:'partition');
 */
CREATE FUNCTION seal_event_partition(name text) RETURNS boolean
LANGUAGE plpgsql SET search_path = pg_catalog, event_queue, pg_temp SET lock_timeout = '5s' AS $$
#variable_conflict use_column
BEGIN
	PERFORM event_queue_internal.require_unbound();
	LOCK TABLE ONLY event_queue.event_store IN SHARE ROW EXCLUSIVE MODE;
	UPDATE event_queue_internal.event_partition p SET last_position = event_queue_internal.last_position()
	WHERE p.name = $1 AND p.tenant_id IS NOT NULL AND p.last_position IS NULL;
	IF NOT FOUND THEN
		RAISE EXCEPTION USING ERRCODE = 'EQ025', MESSAGE = format('"%s" is not an open partition of a tenant', $1);
	END IF;
	PERFORM event_queue.create_event_partition();
	RETURN true;
END
$$;
COMMENT ON FUNCTION seal_event_partition(text) IS 'Closes a tenant''s partition, so that it can be archived.';

CREATE FUNCTION event_queue_internal.check_archive_schema(archive_schema text, caller regrole) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, event_queue, pg_temp AS $$
BEGIN
	-- Tables are moved as their owner, and so into a schema where the caller could make one.
	IF NOT has_schema_privilege($2, $1, 'CREATE') THEN
		RAISE EXCEPTION USING ERRCODE = '42501', MESSAGE = format('permission denied for schema %s', $1),
			HINT = format('Role "%s" needs CREATE on it.', pg_get_userbyid($2));
	END IF;
END
$$;
COMMENT ON FUNCTION event_queue_internal.check_archive_schema(text, regrole) IS 'Internal. 42501 unless the caller may create tables in the schema.';

/*
 * drop_old_partition: drops a partition whose time is over.  Who may use the schema can make a
 * view or a column of its row type, without any right on it, and so keep it from being dropped:
 * then its rows go, and a fault says what keeps the table.
 * Result: what depends on it, in PostgreSQL's words; NULL: it was dropped.
 */
CREATE FUNCTION event_queue_internal.drop_old_partition(name text) RETURNS text
LANGUAGE plpgsql SET search_path = pg_catalog, event_queue, pg_temp AS $$
DECLARE
	depends text;
	has_rows boolean;
BEGIN
	EXECUTE format('DROP TABLE IF EXISTS event_queue.%I', $1);
	PERFORM event_queue_internal.clear_fault('old partition', $1);
	RETURN NULL;
EXCEPTION WHEN dependent_objects_still_exist THEN
	GET STACKED DIAGNOSTICS depends = PG_EXCEPTION_DETAIL;
	EXECUTE format('SELECT EXISTS (SELECT FROM event_queue.%I)', $1) INTO has_rows;
	IF has_rows THEN
		PERFORM event_queue_internal.open_guard(true);
		EXECUTE format('TRUNCATE ONLY event_queue.%I', $1);
		PERFORM event_queue_internal.open_guard(false);
	END IF;
	PERFORM event_queue_internal.note_fault('old partition', $1, NULL, '2BP01', 'its rows are deleted, and the empty table is kept by what depends on it', left(depends, 500));
	RETURN depends;
END
$$;
COMMENT ON FUNCTION event_queue_internal.drop_old_partition(text) IS
'Internal. Drops a partition whose time is over; deletes its rows, if something depends on the table.';

/* archive_event_partition, with the rights of the extension's owner. */
CREATE FUNCTION event_queue_internal.archive_event_partition(name text, archive_schema text, caller regrole) RETURNS bigint
LANGUAGE plpgsql SET search_path = pg_catalog, event_queue, pg_temp SET lock_timeout = '5s' AS $$
#variable_conflict use_column
DECLARE
	this event_queue_internal.event_partition;
	late text;
	n bigint;
BEGIN
	PERFORM event_queue_internal.require_unbound();
	PERFORM event_queue_internal.check_archive_schema($2, $3) WHERE $2 IS NOT NULL;
	LOCK TABLE ONLY event_queue.event_store IN SHARE ROW EXCLUSIVE MODE;
	SELECT p.* INTO this FROM event_queue_internal.event_partition p WHERE p.name = $1 AND p.archived_at IS NULL FOR UPDATE;
	IF NOT FOUND THEN
		RAISE EXCEPTION USING ERRCODE = 'EQ025', MESSAGE = format('partition "%s" does not exist', $1);
	END IF;
	IF this.last_position IS NULL THEN
		RAISE EXCEPTION USING ERRCODE = 'EQ013', MESSAGE = format('partition "%s" takes new events', $1),
			HINT = 'A partition by time is sealed by the next one, a tenant''s by event_queue.seal_event_partition.';
	END IF;
	SELECT string_agg(x.who, ', ') INTO late FROM (
		SELECT DISTINCT format('subscription "%s"', s.name) AS who
		FROM event_queue.subscription s JOIN event_queue_internal.subscription_bucket b USING (subscription_id)
		WHERE b.position < this.last_position AND (s.tenant_id IS NULL OR this.tenant_id IS NULL OR s.tenant_id = this.tenant_id)
		UNION ALL
		SELECT 'the rules' WHERE EXISTS (SELECT FROM event_queue.rule WHERE enabled AND start_position < this.last_position)
			AND coalesce((SELECT c.position FROM event_queue_internal.rule_checkpoint c), 0) < (
				SELECT max(e.position) FROM event_queue.event_store e WHERE e.position <= this.last_position)
		UNION ALL
		SELECT format('rule "%s"', r.name) FROM event_queue.rule r JOIN event_queue_internal.rule_catch_up u USING (rule_id)
		WHERE r.enabled AND greatest(u.position, r.start_position) < (
			SELECT max(e.position) FROM event_queue.event_store e WHERE e.position <= this.last_position)
		UNION ALL
		SELECT format('the backfill of rule "%s"', b.rule) FROM event_queue_internal.rule_backfill b
		WHERE b.state = 'running' AND b.position < least(b.to_position, (
			SELECT max(e.position) FROM event_queue.event_store e WHERE e.position <= this.last_position))
		UNION ALL
		SELECT 'parked events of subscription "' || s.name || '"'
		FROM event_queue.subscription s JOIN event_queue_internal.subscription_parked k USING (subscription_id)
		WHERE k.position <= this.last_position
	) x;
	IF late IS NOT NULL THEN
		RAISE EXCEPTION USING ERRCODE = 'EQ013', MESSAGE = format('partition "%s" is still being read', $1),
			DETAIL = format('Not yet past its last event: %s.', late),
			HINT = 'Let them go on and try again. A subscription that nobody reads any more goes by event_queue.drop_subscription.';
	END IF;
	EXECUTE format('SELECT o.tableoid::regclass::text
		FROM (SELECT DISTINCT ON (aggregate_id, aggregate_type, tenant_id) * FROM event_queue.%I
			ORDER BY aggregate_id, aggregate_type, tenant_id, version) e
		JOIN event_queue.event_store o ON o.aggregate_id = e.aggregate_id AND o.aggregate_type = e.aggregate_type
			AND o.tenant_id = e.tenant_id AND o.version < e.version
		WHERE o.tableoid <> %L::regclass LIMIT 1', $1, format('event_queue.%I', $1)) INTO late;
	IF late IS NOT NULL THEN
		RAISE EXCEPTION USING ERRCODE = 'EQ013', MESSAGE = format('events older than partition "%s" are still there', $1),
			DETAIL = format('In %s.', late), HINT = 'Archive them first; event_queue.split_event_partition moves them out of event_store.';
	END IF;
	EXECUTE format('INSERT INTO event_queue.aggregate_snapshot
			(aggregate_id, aggregate_type, tenant_id, version, position, state, event_at, reducer, is_base)
		SELECT e.aggregate_id, e.aggregate_type, e.tenant_id, e.version, e.position,
			event_queue.aggregate_state(e.aggregate_type, e.aggregate_id, e.version, NULL, e.tenant_id),
			e.created_at, event_queue_internal.reducer_fingerprint(e.aggregate_type), true
		FROM (SELECT DISTINCT ON (aggregate_id, aggregate_type, tenant_id) * FROM event_queue.%I
			ORDER BY aggregate_id, aggregate_type, tenant_id, version DESC) e
		ON CONFLICT ON CONSTRAINT aggregate_snapshot_pkey DO UPDATE
		SET is_base = true, state = excluded.state, reducer = excluded.reducer', $1);
	GET DIAGNOSTICS n = ROW_COUNT;
	PERFORM event_queue_internal.open_guard(true);
	EXECUTE format('ALTER TABLE event_queue.%I NO INHERIT event_queue.event_store', $1);
	PERFORM event_queue_internal.open_guard(false);
	IF $2 IS NULL THEN
		late := event_queue_internal.drop_old_partition($1);
		IF late IS NOT NULL THEN
			PERFORM event_queue_internal.clear_fault('old partition', $1, true);	-- it is not tried again
			RAISE WARNING USING MESSAGE = format('events of partition "%s" are deleted, its table is kept', $1), DETAIL = late,
				HINT = format('Drop what depends on it, and then the table: DROP TABLE event_queue.%I', $1);
		END IF;
	ELSE
		EXECUTE format('ALTER TABLE event_queue.%I SET SCHEMA %I', $1, $2);
	END IF;
	UPDATE event_queue_internal.event_partition p SET archived_at = clock_timestamp() WHERE p.partition_id = this.partition_id;
	RETURN n;
END
$$;
COMMENT ON FUNCTION event_queue_internal.archive_event_partition(text, text, regrole) IS 'Internal. archive_event_partition for a caller.';

/*
 * archive_event_partition: takes a sealed partition out of the store.  Of each
 * aggregate that has events in it, the state and version after them are kept as
 * a snapshot: append and aggregate_state go on as before, only older versions
 * are no longer there to be read.
 *
 * Arguments: archive_schema: the table is moved there, for pg_dump -t or for
 * reading by hand; NULL: it is dropped.
 * Result: how many aggregates got such a snapshot.
 * Errors: EQ025 no such partition, EQ013 it is not sealed, an older one with
 * events of the same aggregates is still there, or a subscription, the rules (also one that
 * catches up, or a backfill) have not yet passed it, or one of its events is parked; 3F000 no such schema, 42501 no CREATE on it,
 * 55P03 as create_event_partition.
 * Example:
 *	SELECT event_queue.drop_subscription('projector');	-- it has not read to the end
 *	SELECT event_queue.archive_event_partition(:'partition', 'public');
 */
CREATE FUNCTION archive_event_partition(name text, archive_schema text DEFAULT NULL) RETURNS bigint
LANGUAGE C VOLATILE AS 'MODULE_PATHNAME', 'eq_call_as_owner';
COMMENT ON FUNCTION archive_event_partition(text, text) IS
'Takes a sealed partition out of the store, keeping state and version of its aggregates; moves its table to a schema, or drops it.';

/* set_event_retention, with the rights of the extension's owner. */
CREATE FUNCTION event_queue_internal.set_event_retention(keep interval, archive_schema text, caller regrole) RETURNS boolean
LANGUAGE plpgsql SET search_path = pg_catalog, event_queue, pg_temp AS $$
#variable_conflict use_column
BEGIN
	PERFORM event_queue_internal.require_unbound();
	IF $1 NOT BETWEEN interval '1 day' AND interval '100 years' THEN
		RAISE EXCEPTION USING ERRCODE = 'EQ009', MESSAGE = 'events must be kept for at least one day and at most 100 years';
	END IF;
	PERFORM event_queue_internal.check_archive_schema($2, $3) WHERE $2 IS NOT NULL;
	INSERT INTO event_queue_internal.partition_policy (keep, archive_schema) VALUES ($1, $2)
	ON CONFLICT (one_row) DO UPDATE SET keep = excluded.keep, archive_schema = excluded.archive_schema;
	RETURN true;
END
$$;
COMMENT ON FUNCTION event_queue_internal.set_event_retention(interval, text, regrole) IS 'Internal. set_event_retention for a caller.';

/*
 * set_event_retention: has the keeper archive partitions whose last event is older than this;
 * NULL: none.
 * Errors: EQ009 below one day or above 100 years, 3F000 no such schema, 42501 no CREATE on it.
 * Example:
 *	SELECT event_queue.set_event_retention('5 years');
 */
CREATE FUNCTION set_event_retention(keep interval, archive_schema text DEFAULT NULL) RETURNS boolean
LANGUAGE C VOLATILE AS 'MODULE_PATHNAME', 'eq_call_as_owner';
COMMENT ON FUNCTION set_event_retention(interval, text) IS
'How long events are kept: the keeper archives partitions that are older. NULL: forever.';

/*
 * maintain_partitions: what the keeper (worker/runner.c) does once a minute.  One step in each
 * call; true if it did one.  Beginning a partition and archiving one fail each for
 * itself, and are tried again after a while.
 */
CREATE FUNCTION event_queue_internal.maintain_partitions() RETURNS boolean
LANGUAGE plpgsql SET search_path = pg_catalog, event_queue, pg_temp SET lock_timeout = '50ms' AS $$
#variable_conflict use_column
DECLARE
	policy event_queue_internal.partition_policy := (SELECT p FROM event_queue_internal.partition_policy p);
	this event_queue_internal.event_partition;
	newest timestamptz;
BEGIN
	-- All appends, and readers behind them, wait meanwhile: no longer than it must be, but longer each time.
	PERFORM set_config('lock_timeout', (least(50 * 2 ^ max(f.failures), 1000))::int::text, true)
	FROM event_queue.faults() f WHERE f.what IN ('new partition', 'archiving of') AND f.sqlstate = '55P03'
	HAVING max(f.failures) > 0;
	IF policy.every IS NOT NULL AND NOT EXISTS (SELECT FROM event_queue_internal.event_partition p
		WHERE p.tenant_id IS NULL AND NOT p.split_off AND p.created_at > clock_timestamp() - policy.every) THEN
		BEGIN
			LOCK TABLE ONLY event_queue.event_store IN SHARE ROW EXCLUSIVE MODE;
			PERFORM event_queue.create_event_partition();
			PERFORM event_queue_internal.clear_fault('new partition', 'of events');
			RETURN true;
		EXCEPTION WHEN OTHERS THEN
			PERFORM event_queue_internal.note_fault('new partition', 'of events', NULL, SQLSTATE, SQLERRM,
				CASE SQLSTATE WHEN '55P03' THEN 'Transactions that have appended are open for long; see event_queue.watermark_blockers.' END);
		END;
	END IF;
	IF policy.keep IS NOT NULL THEN
		SELECT p.* INTO this FROM event_queue_internal.event_partition p
		WHERE p.last_position IS NOT NULL AND p.archived_at IS NULL ORDER BY p.first_position LIMIT 1;
	END IF;
	IF this.name IS NOT NULL THEN
		BEGIN
			EXECUTE format('SELECT created_at FROM event_queue.%I ORDER BY position DESC LIMIT 1', this.name) INTO newest;
			IF newest IS NULL OR newest < clock_timestamp() - policy.keep THEN
				LOCK TABLE ONLY event_queue.event_store IN SHARE ROW EXCLUSIVE MODE;
				PERFORM event_queue_internal.archive_event_partition(this.name, policy.archive_schema, quote_ident(current_user)::regrole);
				PERFORM event_queue_internal.clear_fault('archiving of', this.name);
				RETURN true;
			END IF;
		EXCEPTION WHEN OTHERS THEN
			PERFORM event_queue_internal.note_fault('archiving of', this.name, NULL, SQLSTATE, SQLERRM,
				CASE SQLSTATE
					WHEN '3F000' THEN format('CREATE SCHEMA %I, or give another one to event_queue.set_event_retention.', policy.archive_schema)
					WHEN 'EQ013' THEN 'A consumer that is late holds it: SELECT * FROM event_queue.subscription_status.'
					WHEN '55P03' THEN 'Transactions that have appended are open for long; see event_queue.watermark_blockers.'
				END);
		END;
	END IF;
	RETURN false;
END
$$;
COMMENT ON FUNCTION event_queue_internal.maintain_partitions() IS 'Internal. What the keeper does for set_event_partitioning and set_event_retention.';
