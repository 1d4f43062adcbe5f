/*
 * store.sql: the event store's table, its guard, and its functions.
 *
 * Positions come from shared memory (watermark.c), in blocks that the sequence
 * event_position hands out, one nextval a block: so no position is given
 * twice, also after a crash.
 */

CREATE SEQUENCE event_position AS bigint INCREMENT BY 8192 MINVALUE 1;
COMMENT ON SEQUENCE event_position IS
'Internal. First position of each block of 8192 positions that was handed to shared memory.';

CREATE TABLE event_store (
	position		bigint NOT NULL,
	id				uuid NOT NULL,
	tenant_id		text COLLATE "C" NOT NULL,
	aggregate_type	text COLLATE "C" NOT NULL,
	aggregate_id	text COLLATE "C" NOT NULL,
	version			int NOT NULL,
	event_type		text COLLATE "C" NOT NULL,
	event_data		jsonb NOT NULL,
	metadata		jsonb NOT NULL,
	created_at		timestamptz NOT NULL,
	CONSTRAINT event_store_pkey PRIMARY KEY (position),
	CONSTRAINT event_store_aggregate_key
		UNIQUE (aggregate_id, aggregate_type, tenant_id, version),
	CONSTRAINT event_store_id_key UNIQUE (id, tenant_id)
);
COMMENT ON TABLE event_store IS
'Every event, in the order of its position. Append-only: written by event_queue.append.';
ALTER TABLE event_store ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant_isolation ON event_store USING (tenant_visible(tenant_id));
SELECT pg_catalog.pg_extension_config_dump('event_store', '');
SELECT pg_catalog.pg_extension_config_dump('event_position', '');

/*
 * refuse_change: the append-only guard.  Raises EQ007 and logs who tried.
 */
CREATE FUNCTION refuse_change() RETURNS trigger
LANGUAGE C AS 'MODULE_PATHNAME', 'eq_refuse_change';
COMMENT ON FUNCTION refuse_change() IS
'Internal. Trigger: refuses UPDATE, DELETE and TRUNCATE of the event store with EQ007.';
CREATE TRIGGER refuse_change BEFORE UPDATE OR DELETE ON event_store
	FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER refuse_truncate BEFORE TRUNCATE ON event_store
	FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
ALTER TABLE event_store ENABLE ALWAYS TRIGGER refuse_change;
ALTER TABLE event_store ENABLE ALWAYS TRIGGER refuse_truncate;

/*
 * events_loaded: COPY and pg_restore write rows beside append; positions that
 * come next must lie above them.
 */
CREATE FUNCTION events_loaded() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, event_queue, pg_temp AS $$
DECLARE
	highest bigint := (SELECT max(position) FROM event_store);
BEGIN
	IF highest IS NOT NULL THEN
		PERFORM event_queue.skip_positions(highest);
	END IF;
	RETURN NULL;
END
$$;
COMMENT ON FUNCTION events_loaded() IS
'Internal. Trigger: after rows were loaded by COPY or INSERT, moves the position counter above them.';
CREATE TRIGGER events_loaded AFTER INSERT ON event_store
	FOR EACH STATEMENT EXECUTE FUNCTION events_loaded();

CREATE FUNCTION skip_positions(up_to bigint) RETURNS void
LANGUAGE C STRICT AS 'MODULE_PATHNAME', 'eq_skip_positions';
COMMENT ON FUNCTION skip_positions(bigint) IS
'Internal. Makes sure that the next position given is above up_to.';

CREATE TYPE appended_event AS (
	position	bigint,
	version		int,
	id			uuid,
	duplicate	boolean
);
COMMENT ON TYPE appended_event IS
'What append returns: where the event stands, and whether it stood there already (a retry with the same id).';

/*
 * append: one event to the end of one aggregate, in the caller's transaction.
 *
 * Arguments: expected_version is the version before the append: a number,
 * 'any' (no check), 'no_stream' (the aggregate has no event yet) or 'exists'
 * (it has one).  id makes the call safe to repeat: the same id with the same
 * content returns the first call's result with duplicate = true.  tenant_id
 * defaults to the session's tenant.
 * Errors: EQ001 wrong expected version (DETAIL is JSON with the current one),
 * EQ002 the id was used with other content, EQ003/EQ004 tenant, EQ005 payload
 * too large, EQ006 name, EQ009 expected_version is none of the above.
 * Isolation: sees the latest committed version at every level, and waits for
 * an open transaction that appended to the same aggregate.
 */
CREATE FUNCTION append(
	aggregate_type text, aggregate_id text, event_type text,
	event_data jsonb DEFAULT '{}', expected_version text DEFAULT 'any',
	id uuid DEFAULT NULL, metadata jsonb DEFAULT '{}', tenant_id text DEFAULT NULL)
RETURNS appended_event
LANGUAGE C VOLATILE AS 'MODULE_PATHNAME', 'eq_append';
COMMENT ON FUNCTION append(text, text, text, jsonb, text, uuid, jsonb, text) IS
'Appends one event to an aggregate. expected_version: a version, any, no_stream or exists. Repeating a call with the same id returns the first result.';

CREATE FUNCTION append(
	aggregate_type text, aggregate_id text, event_type text,
	event_data jsonb, expected_version int,
	id uuid DEFAULT NULL, metadata jsonb DEFAULT '{}', tenant_id text DEFAULT NULL)
RETURNS appended_event
LANGUAGE C VOLATILE AS 'MODULE_PATHNAME', 'eq_append';
COMMENT ON FUNCTION append(text, text, text, jsonb, int, uuid, jsonb, text) IS
'Appends one event to an aggregate that must be at expected_version (0: it has no event yet).';

/*
 * aggregate_version: how many events the aggregate has; 0 if none.
 * Isolation: by the statement's snapshot.  Invoker's rights and row security.
 */
CREATE FUNCTION aggregate_version(aggregate_type text, aggregate_id text, tenant_id text DEFAULT NULL)
RETURNS int
LANGUAGE sql STABLE SET search_path = pg_catalog, event_queue, pg_temp AS $$
	SELECT coalesce(max(e.version), 0)
	FROM event_queue.event_store e
	WHERE e.aggregate_id = $2 AND e.aggregate_type = $1
	  AND e.tenant_id = event_queue.resolve_tenant($3)
$$;
COMMENT ON FUNCTION aggregate_version(text, text, text) IS
'Current version of an aggregate: the number of its events, 0 if it has none.';

/*
 * read_aggregate: the events of one aggregate, oldest first.
 * Arguments: versions from_version to to_version, both included.
 * Isolation: by the statement's snapshot.  Invoker's rights and row security.
 */
CREATE FUNCTION read_aggregate(
	aggregate_type text, aggregate_id text,
	from_version int DEFAULT 1, to_version int DEFAULT NULL, tenant_id text DEFAULT NULL)
RETURNS SETOF event_store
LANGUAGE sql STABLE ROWS 100 SET search_path = pg_catalog, event_queue, pg_temp AS $$
	SELECT e.*
	FROM event_queue.event_store e
	WHERE e.aggregate_id = $2 AND e.aggregate_type = $1
	  AND e.tenant_id = event_queue.resolve_tenant($5)
	  AND e.version >= $3 AND e.version <= coalesce($4, 2147483647)
	ORDER BY e.version
$$;
COMMENT ON FUNCTION read_aggregate(text, text, int, int, text) IS
'Events of one aggregate in order of version, from from_version to to_version.';

/*
 * read_all: events after a position, in order, never past the watermark: what
 * a consumer that stores the last position it saw can rely on not to skip any.
 * Arguments: after is the last position seen (0: from the start); limit is 1
 * to 100000; tenant_id narrows to one tenant.
 * Errors: EQ003 tenant, EQ009 bad limit or position, EQ008 on a standby.
 * Isolation: reads what is committed at the call; under REPEATABLE READ and
 * SERIALIZABLE it ends before the first event that the snapshot can't see.
 */
CREATE FUNCTION read_all("after" bigint DEFAULT 0, "limit" int DEFAULT 1000, tenant_id text DEFAULT NULL)
RETURNS SETOF event_store
LANGUAGE C VOLATILE ROWS 1000 AS 'MODULE_PATHNAME', 'eq_read_all';
COMMENT ON FUNCTION read_all(bigint, int, text) IS
'Events after a position, in order, up to the watermark; remember the last position and ask again.';

/*
 * watermark: every event at or below it is committed or will never be.
 * Errors: EQ008 on a standby.
 */
CREATE FUNCTION watermark() RETURNS bigint
LANGUAGE C VOLATILE AS 'MODULE_PATHNAME', 'eq_watermark_sql';
COMMENT ON FUNCTION watermark() IS
'Highest position below which no open transaction can still commit an event.';

CREATE FUNCTION open_appends(OUT pid int, OUT lowest_position bigint) RETURNS SETOF record
LANGUAGE C VOLATILE AS 'MODULE_PATHNAME', 'eq_open_appends';
COMMENT ON FUNCTION open_appends() IS
'Sessions of this database whose open transaction has appended, with the first position it took.';

CREATE VIEW watermark_blockers AS
	SELECT o.pid, a.usename, a.application_name, a.xact_start AS since,
		   a.state, a.query, o.lowest_position
	FROM event_queue.open_appends() o
	LEFT JOIN pg_catalog.pg_stat_activity a USING (pid)
	ORDER BY o.lowest_position;
COMMENT ON VIEW watermark_blockers IS
'Open transactions that have appended; the first line is the one that holds the watermark back.';

/*
 * uuid_v7: time-ordered identifier (RFC 9562), as append makes them.
 */
CREATE FUNCTION uuid_v7() RETURNS uuid
LANGUAGE C VOLATILE PARALLEL SAFE AS 'MODULE_PATHNAME', 'eq_uuid_v7_sql';
COMMENT ON FUNCTION uuid_v7() IS
'A new time-ordered UUID (version 7).';

/*
 * create_prisma_view: the event store under the names of a Prisma model, as a
 * view "EventStore" in the given schema.  Rows are seen with the rights and the
 * tenant of whoever reads the view.
 * Errors: 3F000 if the schema does not exist, 42P07 if something else has the
 * name, 42501 without CREATE on the schema.
 */
CREATE FUNCTION create_prisma_view(schema text DEFAULT 'public') RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, event_queue, pg_temp AS $$
BEGIN
	EXECUTE format($view$
		CREATE VIEW %I."EventStore" WITH (security_invoker = true) AS
		SELECT id, aggregate_id AS "aggregateId", aggregate_type AS "aggregateType",
			   event_type AS "eventType", event_data AS "eventData",
			   created_at AS "createdAt", version
		FROM event_queue.event_store
		$view$, schema);
END
$$;
COMMENT ON FUNCTION create_prisma_view(text) IS
'Creates the view "EventStore" in the schema, with the column names of a Prisma model.';
