\echo Use "CREATE EXTENSION event_queue" to load this file. \quit

/*
 * event_queue.sql: what every other part stands on.
 *
 * The library refuses to load unless it was preloaded, so the first C function
 * below is also the check that the server is set up.
 */

CREATE FUNCTION version() RETURNS text
LANGUAGE C STABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'eq_version';
COMMENT ON FUNCTION event_queue.version() IS
'Version of the loaded library, which may be newer than the extension until ALTER EXTENSION event_queue UPDATE.';

/*
 * check_name: raises EQ006 unless value is 1 to max_bytes bytes long, with no
 * control characters and no blanks at either end.  Returns the value.
 */
CREATE FUNCTION check_name(what text, value text, max_bytes int DEFAULT 255) RETURNS text
LANGUAGE C IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'eq_check_name_sql';
COMMENT ON FUNCTION check_name(text, text, int) IS
'Internal. Returns the value, or raises EQ006 if it is empty, too long, or has control characters.';

/*
 * config_changed: statement trigger on every configuration table.  Makes all
 * sessions forget what they cached of the table, and after commit tells the
 * workers of this database to read their configuration again.
 */
CREATE FUNCTION config_changed() RETURNS trigger
LANGUAGE C AS 'MODULE_PATHNAME', 'eq_config_changed';
COMMENT ON FUNCTION config_changed() IS
'Internal. Trigger: invalidates cached configuration and wakes the workers after commit.';

/*
 * tenant.sql: which tenant a session acts for.
 *
 * A role may be bound to one tenant (grant_producer(role, tenant) and its
 * kin); then nothing that it sets or passes can reach another tenant's rows.
 * An unbound role is trusted with all tenants: the setting event_queue.tenant
 * narrows its session to one, and without the setting each call names its own.
 */

CREATE TABLE tenant_role (
	role_name	text PRIMARY KEY,
	tenant_id	text NOT NULL
);
COMMENT ON TABLE tenant_role IS
'Roles that are bound to one tenant; members of such a role are bound too. Written by the grant functions.';
CREATE TRIGGER config_changed AFTER INSERT OR UPDATE OR DELETE ON tenant_role
	FOR EACH STATEMENT EXECUTE FUNCTION config_changed();
SELECT pg_catalog.pg_extension_config_dump('tenant_role', '');

/*
 * current_tenant: the tenant that the session is confined to, or NULL.
 * Errors: EQ003 if the setting contradicts the role's binding.
 */
CREATE FUNCTION current_tenant() RETURNS text
LANGUAGE C STABLE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'eq_current_tenant';
COMMENT ON FUNCTION current_tenant() IS
'The tenant this session is confined to, by its role or by the setting event_queue.tenant; NULL if it is confined to none.';

/*
 * resolve_tenant: the tenant that a call acts for.
 * Result: the argument, else the session's tenant, else 'default'.
 * Errors: EQ003 if the argument is not the tenant that the session is confined
 * to; EQ004 if event_queue.require_tenant is on and there is none.
 */
CREATE FUNCTION resolve_tenant(tenant_id text DEFAULT NULL) RETURNS text
LANGUAGE C STABLE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'eq_resolve_tenant_sql';
COMMENT ON FUNCTION resolve_tenant(text) IS
'The tenant a call acts for: the argument, else the session''s tenant, else "default". EQ003 if it is not the session''s, EQ004 if one is required and none is given.';

/*
 * tenant_visible: the row security rule of every table with a tenant_id.
 */
CREATE FUNCTION tenant_visible(tenant_id text) RETURNS boolean
LANGUAGE C STABLE LEAKPROOF PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'eq_tenant_visible';
COMMENT ON FUNCTION tenant_visible(text) IS
'True if the session may see rows of this tenant; the row security policies of all tables use it.';

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

CREATE SEQUENCE event_generation AS bigint;
COMMENT ON SEQUENCE event_generation IS
'Internal. Identity of the server that gave the last positions; another one begins a new generation.';
SELECT pg_catalog.pg_extension_config_dump('event_generation', '');

CREATE TABLE event_watermark (
	one_row			boolean PRIMARY KEY DEFAULT true CHECK (one_row),
	position		bigint NOT NULL,
	published_at	timestamptz NOT NULL
);
COMMENT ON TABLE event_watermark IS
'Internal. The watermark as standbys see it, written every event_queue.publish_interval.';
INSERT INTO event_watermark (position, published_at) VALUES (0, now());

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
 * append_many: events to the end of one aggregate, all or none.
 *
 * Arguments: events is a JSON array of {"event_type", "event_data", "id",
 * "metadata"}, of which only event_type must be there; at most 10000.  All of
 * them have an id or none has: with ids the call is safe to repeat.  The rest
 * as in append.
 * Result: a row for each event, in their order.
 * Errors: as append; EQ027 if some of the ids were written before and others
 * were not (DETAIL is JSON), EQ009 malformed events.
 * Isolation: as append.
 */
CREATE FUNCTION append_many(
	aggregate_type text, aggregate_id text, events jsonb,
	expected_version text DEFAULT 'any', tenant_id text DEFAULT NULL)
RETURNS SETOF appended_event
LANGUAGE C VOLATILE AS 'MODULE_PATHNAME', 'eq_append_many';
COMMENT ON FUNCTION append_many(text, text, jsonb, text, text) IS
'Appends several events to one aggregate, all or none. events: a JSON array of {event_type, event_data, id, metadata}.';

CREATE FUNCTION append_many(
	aggregate_type text, aggregate_id text, events jsonb,
	expected_version int, tenant_id text DEFAULT NULL)
RETURNS SETOF appended_event
LANGUAGE C VOLATILE AS 'MODULE_PATHNAME', 'eq_append_many';
COMMENT ON FUNCTION append_many(text, text, jsonb, int, text) IS
'Appends several events to an aggregate that must be at expected_version (0: it has no event yet).';

/*
 * append_batch: events to several aggregates, all or none.
 *
 * Arguments: batch is a JSON array of {"aggregate_type", "aggregate_id",
 * "expected_version", "events"}, at most 1000 aggregates, each once, and 10000
 * events; events as in append_many, expected_version as in append.  Two batches
 * can't deadlock with each other, whatever aggregates they share.
 * Result: a row for each event, in the order of the batch, which is also the
 * order of the positions.
 * Errors and isolation: as append_many.
 */
CREATE FUNCTION append_batch(
	batch jsonb, tenant_id text DEFAULT NULL,
	OUT aggregate_type text, OUT aggregate_id text,
	OUT "position" bigint, OUT version int, OUT id uuid, OUT duplicate boolean)
RETURNS SETOF record
LANGUAGE C VOLATILE AS 'MODULE_PATHNAME', 'eq_append_batch';
COMMENT ON FUNCTION append_batch(jsonb, text) IS
'Appends events to several aggregates, all or none. batch: a JSON array of {aggregate_type, aggregate_id, expected_version, events}.';

/*
 * aggregate_version: how many events the aggregate has; 0 if none.
 * Isolation: by the statement's snapshot.  Invoker's rights and row security.
 */
CREATE FUNCTION aggregate_version(aggregate_type text, aggregate_id text, tenant_id text DEFAULT NULL)
RETURNS int
LANGUAGE sql STABLE SET search_path = pg_catalog, event_queue, pg_temp AS $$
	SELECT coalesce(
		(SELECT max(e.version) FROM event_queue.event_store e
		 WHERE e.aggregate_id = $2 AND e.aggregate_type = $1 AND e.tenant_id = event_queue.resolve_tenant($3)),
		(SELECT max(s.version) FROM event_queue.aggregate_snapshot s
		 WHERE s.aggregate_id = $2 AND s.aggregate_type = $1 AND s.tenant_id = event_queue.resolve_tenant($3)),
		0)
$$;
COMMENT ON FUNCTION aggregate_version(text, text, text) IS
'Current version of an aggregate: the number of its events, 0 if it has none.';

/*
 * read_aggregate: the events of one aggregate, oldest first.
 * read_aggregate_backward: the same, newest first.
 * Arguments: versions from_version to to_version, both included; limit: at
 * most so many (NULL: all).
 * Isolation: by the statement's snapshot.  Invoker's rights and row security.
 *
 * Their bodies are parsed when they are created, so that no search_path can
 * change what they mean, and the planner puts them into the query that calls
 * them: they are as fast as the SELECT that they are.
 */
CREATE FUNCTION read_aggregate(
	aggregate_type text, aggregate_id text,
	from_version int DEFAULT 1, to_version int DEFAULT NULL, tenant_id text DEFAULT NULL,
	"limit" bigint DEFAULT NULL)
RETURNS SETOF event_store
LANGUAGE sql STABLE ROWS 100
BEGIN ATOMIC
	SELECT e.*
	FROM event_queue.event_store e
	WHERE e.aggregate_id = $2 AND e.aggregate_type = $1
	  AND e.tenant_id = event_queue.resolve_tenant($5)
	  AND e.version >= $3 AND e.version <= coalesce($4, 2147483647)
	ORDER BY e.version
	LIMIT $6;
END;
COMMENT ON FUNCTION read_aggregate(text, text, int, int, text, bigint) IS
'Events of one aggregate in order of version, from from_version to to_version.';

CREATE FUNCTION read_aggregate_backward(
	aggregate_type text, aggregate_id text,
	from_version int DEFAULT 1, to_version int DEFAULT NULL, tenant_id text DEFAULT NULL,
	"limit" bigint DEFAULT NULL)
RETURNS SETOF event_store
LANGUAGE sql STABLE ROWS 100
BEGIN ATOMIC
	SELECT e.*
	FROM event_queue.event_store e
	WHERE e.aggregate_id = $2 AND e.aggregate_type = $1
	  AND e.tenant_id = event_queue.resolve_tenant($5)
	  AND e.version >= $3 AND e.version <= coalesce($4, 2147483647)
	ORDER BY e.version DESC
	LIMIT $6;
END;
COMMENT ON FUNCTION read_aggregate_backward(text, text, int, int, text, bigint) IS
'Events of one aggregate, newest first, from to_version down to from_version.';

/*
 * read_all: events after a position, in order, never past the watermark: what
 * a consumer that stores the last position it saw can rely on not to skip any.
 * Arguments: after is the last position seen (0: from the start); limit is 1
 * to 100000; tenant_id narrows to one tenant; filter is a JSON object with any
 * of event_type (a pattern as in event_matches), aggregate_type, tenant_id and
 * data (a JSON value that event_data contains).  Reads by the primary key, or
 * by an index of create_event_index: read_plan(filter) says which.
 * Errors: EQ003 tenant, EQ009 bad limit, position or filter, EQ028 after is a
 * position that the store has lost by a restore (DETAIL is JSON with the
 * position to go on from).
 * Isolation: reads what is committed at the call; under REPEATABLE READ and
 * SERIALIZABLE it ends before the first event that the snapshot can't see.  On
 * a standby it reads up to the watermark that the primary has published.
 */
CREATE FUNCTION read_all(
	"after" bigint DEFAULT 0, "limit" int DEFAULT 1000, tenant_id text DEFAULT NULL, filter jsonb DEFAULT NULL)
RETURNS SETOF event_store
LANGUAGE C VOLATILE ROWS 1000 AS 'MODULE_PATHNAME', 'eq_read_all';
COMMENT ON FUNCTION read_all(bigint, int, text, jsonb) IS
'Events after a position, in order, up to the watermark; remember the last position and ask again.';

/*
 * wait_for_events: sleeps until the watermark is above a position, without
 * polling and without a snapshot or transaction id; then read_all has news.
 * A procedure, since a function can't give back the snapshot of the statement
 * that calls it: CALL it by itself, outside a transaction block.
 * Arguments: wait is how long at most; watermark: pass NULL.
 * Result: the watermark, which is not above the position if the time was over.
 * Errors: EQ008 inside a transaction, EQ009 wait below 0 or above 24 hours.
 */
CREATE PROCEDURE wait_for_events("after" bigint, wait interval, INOUT watermark bigint DEFAULT NULL)
LANGUAGE C AS 'MODULE_PATHNAME', 'eq_wait_for_events';
COMMENT ON PROCEDURE wait_for_events(bigint, interval, bigint) IS
'Sleeps until there are events after a position, or the time is over; returns the watermark.';

/*
 * read_plan: by which index each table of events is read for a filter.
 * Arguments and errors: the filter of read_all.
 */
CREATE FUNCTION read_plan(filter jsonb DEFAULT NULL, OUT table_name text, OUT index_name text, OUT equal_to text)
RETURNS SETOF record
LANGUAGE C VOLATILE AS 'MODULE_PATHNAME', 'eq_read_plan';
COMMENT ON FUNCTION read_plan(jsonb) IS
'Which index read_all, subscriptions and replay walk for a filter, and the value they look up in its first column.';

CREATE FUNCTION check_filter(filter jsonb) RETURNS jsonb
LANGUAGE C STABLE STRICT AS 'MODULE_PATHNAME', 'eq_check_filter';
COMMENT ON FUNCTION check_filter(jsonb) IS
'Internal. Returns the filter, or raises EQ009, EQ023 or EQ003 if it is none.';

/*
 * matches_filter: does an event pass a filter of read_all?  NULL lets all pass.
 */
CREATE FUNCTION matches_filter(event event_store, filter jsonb) RETURNS boolean
LANGUAGE sql STABLE SET search_path = pg_catalog, event_queue, pg_temp AS $$
	SELECT ($2 ->> 'event_type' IS NULL OR event_queue.event_matches(($1).event_type, $2 ->> 'event_type'))
		AND ($2 ->> 'aggregate_type' IS NULL OR ($1).aggregate_type = $2 ->> 'aggregate_type')
		AND ($2 ->> 'tenant_id' IS NULL OR ($1).tenant_id = $2 ->> 'tenant_id')
		AND (coalesce($2 -> 'data', 'null') = 'null' OR ($1).event_data @> ($2 -> 'data'))
$$;
COMMENT ON FUNCTION matches_filter(event_store, jsonb) IS 'True if an event passes a filter as read_all takes it.';

/*
 * watermark: every event at or below it is committed or will never be.  On a
 * standby: the one that the primary has published.
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
 * generation: changes when the server was restored to an earlier point, copied
 * or promoted; the number before the dash is also in the upper bits of each
 * position (position >> 40).
 */
CREATE FUNCTION generation() RETURNS text
LANGUAGE C VOLATILE AS 'MODULE_PATHNAME', 'eq_generation_sql';
COMMENT ON FUNCTION generation() IS
'Which life of the store this is: changes with a restore to an earlier point, a copy or a promotion.';

/*
 * new_generation: begins one by hand, after a restore that the server can't
 * notice: of a copy of its disk that went on without a new timeline.
 */
CREATE FUNCTION new_generation() RETURNS text
LANGUAGE plpgsql SET search_path = pg_catalog, event_queue, pg_temp AS $$
BEGIN
	PERFORM event_queue.skip_positions(((event_queue.last_position() >> 40) + 1) << 40);
	RETURN event_queue.generation();
END
$$;
COMMENT ON FUNCTION new_generation() IS
'Begins a new generation of positions, after a copy of the disk was restored to an earlier point.';

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

/*
 * state.sql: states of aggregates: reducers, snapshots, differences, reverting,
 * replay.
 */

CREATE TABLE reducer (
	aggregate_type	text COLLATE "C" PRIMARY KEY,
	function		text,
	owner			text NOT NULL,
	snapshot_every	int CHECK (snapshot_every > 0),
	created_at		timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE reducer IS 'How events of a type of aggregate make its state; written by register_reducer.';
COMMENT ON COLUMN reducer.function IS 'NULL: event_data is merged (RFC 7396).';
COMMENT ON COLUMN reducer.owner IS 'The role that registered the function, and as which it runs.';
CREATE TRIGGER config_changed AFTER INSERT OR UPDATE OR DELETE ON reducer
	FOR EACH STATEMENT EXECUTE FUNCTION config_changed();
SELECT pg_catalog.pg_extension_config_dump('reducer', '');

CREATE TABLE aggregate_snapshot (
	aggregate_id	text COLLATE "C" NOT NULL,
	aggregate_type	text COLLATE "C" NOT NULL,
	tenant_id		text COLLATE "C" NOT NULL,
	version			int NOT NULL,
	position		bigint NOT NULL,
	state			jsonb NOT NULL,
	event_at		timestamptz NOT NULL,
	reducer			bigint NOT NULL,
	is_base			boolean NOT NULL DEFAULT false,
	CONSTRAINT aggregate_snapshot_pkey PRIMARY KEY (aggregate_id, aggregate_type, tenant_id, version)
);
COMMENT ON TABLE aggregate_snapshot IS
'States that aggregate_state begins from. Those with is_base stand for archived events; all others can be made again.';
COMMENT ON COLUMN aggregate_snapshot.reducer IS 'Fingerprint of the reducer that made it: one that another made is not used.';
ALTER TABLE aggregate_snapshot ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant_isolation ON aggregate_snapshot USING (tenant_visible(tenant_id));
SELECT pg_catalog.pg_extension_config_dump('aggregate_snapshot', 'WHERE is_base');

CREATE TABLE snapshot_checkpoint (
	one_row		boolean PRIMARY KEY DEFAULT true CHECK (one_row),
	position	bigint NOT NULL
);
COMMENT ON TABLE snapshot_checkpoint IS 'Internal. Up to which event snapshots were ordered.';
SELECT pg_catalog.pg_extension_config_dump('snapshot_checkpoint', '');

/*
 * merge_patch: RFC 7396, JSON Merge Patch; the built-in reducer.
 */
CREATE FUNCTION merge_patch(target jsonb, patch jsonb) RETURNS jsonb
LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'eq_merge_patch_sql';
COMMENT ON FUNCTION merge_patch(jsonb, jsonb) IS
'JSON Merge Patch (RFC 7396): members of patch replace those of target, null removes.';

CREATE FUNCTION reducer_fingerprint(aggregate_type text) RETURNS bigint
LANGUAGE C VOLATILE STRICT AS 'MODULE_PATHNAME', 'eq_reducer_fingerprint_sql';
COMMENT ON FUNCTION reducer_fingerprint(text) IS
'Internal. Changes with the reducer of a type of aggregate, its name or its source.';

/*
 * register_reducer: how events of a type of aggregate make its state.
 *
 * Arguments: function takes (state jsonb, event event_queue.event_store), in
 * SQL, PL/pgSQL or C, returns the new state, and is IMMUTABLE or STABLE; it is
 * found by the caller's search_path and runs as the caller, with search_path
 * pg_catalog and its own schema.  It begins from '{}'.  NULL: event_data is
 * merged into the state (RFC 7396).  snapshot_every: the worker takes a
 * snapshot each time an aggregate's version is a multiple; NULL: never.
 * Registering again replaces; snapshots that another reducer made are dropped.
 * Errors: EQ006 name, EQ009 snapshot_every, EQ020 no such function, EQ021 wrong
 * signature, 42501 no right to call it, or to register.
 */
CREATE FUNCTION register_reducer(aggregate_type text, function text DEFAULT NULL, snapshot_every int DEFAULT 100)
RETURNS void
LANGUAGE C VOLATILE AS 'MODULE_PATHNAME', 'eq_register_reducer';
COMMENT ON FUNCTION register_reducer(text, text, int) IS
'Registers the function that makes the state of a type of aggregate; without one, event_data is merged (RFC 7396).';

CREATE FUNCTION store_reducer(aggregate_type text, function text, snapshot_every int, owner text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, event_queue, pg_temp AS $$
#variable_conflict use_column
BEGIN
	PERFORM event_queue.check_name('aggregate type', $1);
	IF $3 < 1 THEN
		RAISE EXCEPTION USING ERRCODE = 'EQ009', MESSAGE = 'snapshot_every must be at least 1';
	END IF;
	-- The first policy looks at the events from now on.
	IF NOT EXISTS (SELECT FROM event_queue.reducer r WHERE r.snapshot_every IS NOT NULL) THEN
		INSERT INTO event_queue.snapshot_checkpoint (position) VALUES (event_queue.watermark())
		ON CONFLICT (one_row) DO UPDATE SET position = excluded.position;
	END IF;
	INSERT INTO event_queue.reducer (aggregate_type, function, owner, snapshot_every)
	VALUES ($1, $2, $4, $3)
	ON CONFLICT (aggregate_type) DO UPDATE
	SET function = excluded.function, owner = excluded.owner, snapshot_every = excluded.snapshot_every;
	DELETE FROM event_queue.aggregate_snapshot s
	WHERE s.aggregate_type = $1 AND NOT s.is_base AND s.reducer <> event_queue.reducer_fingerprint($1);
END
$$;
COMMENT ON FUNCTION store_reducer(text, text, int, text) IS
'Internal. What register_reducer does as the owner of the extension, which alone may name the owner of a reducer.';

/* unregister_reducer: back to merging, without snapshots. Errors: EQ025. */
CREATE FUNCTION unregister_reducer(aggregate_type text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, event_queue, pg_temp AS $$
#variable_conflict use_column
BEGIN
	DELETE FROM event_queue.reducer r WHERE r.aggregate_type = $1;
	IF NOT FOUND THEN
		RAISE EXCEPTION USING ERRCODE = 'EQ025', MESSAGE = format('aggregate type "%s" has no reducer', $1);
	END IF;
	DELETE FROM event_queue.aggregate_snapshot s WHERE s.aggregate_type = $1 AND NOT s.is_base;
END
$$;
COMMENT ON FUNCTION unregister_reducer(text) IS
'Removes the reducer of a type of aggregate, whose event_data is then merged. EQ025 if it has none.';

/*
 * aggregate_state: the fold of an aggregate's events, from the nearest
 * snapshot.
 *
 * Arguments: at_version: after this version; at_time: after the last event that
 * was appended at this time or before; neither: now.
 * Result: the state; NULL if there was no event.
 * Errors: EQ003 tenant, EQ009 no such version, EQ025 the events are archived,
 * and whatever the reducer raises.
 * Isolation: by the statement's snapshot.  The reducer runs as its owner.
 */
CREATE FUNCTION aggregate_state(
	aggregate_type text, aggregate_id text, at_version int DEFAULT NULL, at_time timestamptz DEFAULT NULL,
	tenant_id text DEFAULT NULL)
RETURNS jsonb
LANGUAGE C STABLE AS 'MODULE_PATHNAME', 'eq_aggregate_state';
COMMENT ON FUNCTION aggregate_state(text, text, int, timestamptz, text) IS
'State of an aggregate now, after a version, or at a time; NULL if it had no event.';

/*
 * take_snapshot: keeps the present state of an aggregate; the worker does it by
 * itself (register_reducer).  Result: the version.  Errors: EQ025 no events.
 */
CREATE FUNCTION take_snapshot(aggregate_type text, aggregate_id text, tenant_id text DEFAULT NULL) RETURNS int
LANGUAGE C VOLATILE AS 'MODULE_PATHNAME', 'eq_take_snapshot_sql';
COMMENT ON FUNCTION take_snapshot(text, text, text) IS
'Keeps the present state of an aggregate, so that aggregate_state need not begin at its first event.';

/*
 * json_diff: the members in which two JSON values differ.  Objects are gone
 * into, arrays are compared as wholes.
 * Result: a row for each difference: its path, old value, new value; a value
 * that is not there is SQL NULL.
 */
CREATE FUNCTION json_diff(before jsonb, "after" jsonb, OUT path text[], OUT old_value jsonb, OUT new_value jsonb)
RETURNS SETOF record
LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, event_queue, pg_temp AS $$
	WITH RECURSIVE pair (path, old_value, new_value) AS (
		SELECT '{}'::text[], $1, $2
		UNION ALL
		SELECT p.path || k.key, p.old_value -> k.key, p.new_value -> k.key
		FROM pair p,
			LATERAL (SELECT jsonb_object_keys(p.old_value) AS key UNION SELECT jsonb_object_keys(p.new_value)) k
		WHERE jsonb_typeof(p.old_value) = 'object' AND jsonb_typeof(p.new_value) = 'object'
	)
	SELECT p.path, p.old_value, p.new_value FROM pair p
	WHERE p.old_value IS DISTINCT FROM p.new_value
	  AND NOT (coalesce(jsonb_typeof(p.old_value), '') = 'object' AND coalesce(jsonb_typeof(p.new_value), '') = 'object')
	ORDER BY p.path
$$;
COMMENT ON FUNCTION json_diff(jsonb, jsonb) IS
'Members in which two JSON values differ: path, old and new value; a missing one is NULL.';

/*
 * aggregate_diff: what changed in an aggregate's state between two versions.
 * Arguments: version 0 is before the first event.
 * Result: as json_diff.  Errors and isolation: as aggregate_state.
 */
CREATE FUNCTION aggregate_diff(
	aggregate_type text, aggregate_id text, from_version int, to_version int, tenant_id text DEFAULT NULL,
	OUT path text[], OUT old_value jsonb, OUT new_value jsonb)
RETURNS SETOF record
LANGUAGE sql STABLE SET search_path = pg_catalog, event_queue, pg_temp AS $$
	SELECT d.path, d.old_value, d.new_value
	FROM event_queue.json_diff(
		CASE WHEN $3 = 0 THEN '{}' ELSE event_queue.aggregate_state($1, $2, $3, NULL, $5) END,
		CASE WHEN $4 = 0 THEN '{}' ELSE event_queue.aggregate_state($1, $2, $4, NULL, $5) END) d
$$;
COMMENT ON FUNCTION aggregate_diff(text, text, int, int, text) IS
'What changed in the state of an aggregate between two versions: path, old value, new value.';

/*
 * revert_aggregate: brings the state of a version back by one more event; the
 * history stays.  The event is called AGGREGATE_TYPE.reverted, holds the whole
 * state, and its metadata says reverted_to: so it works with any reducer.
 *
 * Arguments: to_version is below the current version; expected_version: fail
 * unless this is the current one (NULL: whatever it is at the call).
 * Errors: EQ001 the aggregate moved on, EQ009 no such version, EQ025 no events.
 */
CREATE FUNCTION revert_aggregate(
	aggregate_type text, aggregate_id text, to_version int, expected_version int DEFAULT NULL,
	tenant_id text DEFAULT NULL)
RETURNS appended_event
LANGUAGE plpgsql SET search_path = pg_catalog, event_queue, pg_temp AS $$
#variable_conflict use_variable
DECLARE
	current_version int := event_queue.aggregate_version($1, $2, $5);
	result event_queue.appended_event;
BEGIN
	IF current_version = 0 THEN
		RAISE EXCEPTION USING ERRCODE = 'EQ025', MESSAGE = format('%s "%s" has no events', $1, $2);
	END IF;
	IF $3 IS NULL OR $3 < 1 OR $3 >= current_version THEN
		RAISE EXCEPTION USING ERRCODE = 'EQ009', MESSAGE = format('to_version must be from 1 to %s', current_version - 1);
	END IF;
	result := event_queue.append($1, $2, $1 || '.reverted',
		event_queue.aggregate_state($1, $2, $3, NULL, $5),
		coalesce($4, current_version), NULL, jsonb_build_object('reverted_to', $3), $5);
	RETURN result;
END
$$;
COMMENT ON FUNCTION revert_aggregate(text, text, int, int, text) IS
'Appends an event that brings the state of an earlier version back; the history stays.';

/*
 * replay: runs stored events through a function, in order, in a sandbox.
 *
 * Arguments: filter as in read_all; "into" is a function that takes one
 * argument of type event_queue.event_store, found by the caller's search_path
 * and run with the caller's rights; from_position to to_position (NULL: the
 * watermark), without the first and with the last; keep: what the function did
 * stays (it commits with the caller's transaction), else it is rolled back;
 * report_every: a notice after so many events (0: none), and pg_stat_activity
 * shows the progress to others.
 * Result: how many events, the last one's position, and the time it took.
 * Errors: EQ009 filter, EQ020, EQ021, 42501 function, and whatever it raises:
 * then all is rolled back, and CONTEXT says at which position.
 * Isolation: reads what is committed at the call.  Sequences, and what leaves
 * the database, are not rolled back.
 */
CREATE FUNCTION replay(
	filter jsonb, "into" text, from_position bigint DEFAULT 0, to_position bigint DEFAULT NULL,
	keep boolean DEFAULT false, report_every int DEFAULT 10000,
	OUT events bigint, OUT last_position bigint, OUT kept boolean, OUT seconds double precision)
RETURNS record
LANGUAGE C VOLATILE AS 'MODULE_PATHNAME', 'eq_replay';
COMMENT ON FUNCTION replay(jsonb, text, bigint, bigint, boolean, int) IS
'Runs stored events through a function, in order; rolled back at the end unless keep is true.';

/*
 * queue.sql: queues and their settings; pausing, purging, dropping.
 * (Jobs are in job.sql, those that wait for others in flow.sql, dead letters
 * and history in dead.sql.)
 */

CREATE TABLE queue (
	queue_id			int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	name				text NOT NULL CONSTRAINT queue_name_key UNIQUE,
	lease				interval NOT NULL DEFAULT '30 seconds',
	stalled_interval	interval NOT NULL DEFAULT '5 seconds',
	max_stalled			int NOT NULL DEFAULT 2,
	max_attempts		int NOT NULL DEFAULT 3,
	backoff				text NOT NULL DEFAULT 'exponential',
	backoff_delay		interval NOT NULL DEFAULT '2 seconds',
	backoff_max			interval NOT NULL DEFAULT '1 hour',
	backoff_jitter		float8 NOT NULL DEFAULT 0,
	keep_completed		interval,
	keep_failed			interval,
	rate_limit			int,
	rate_interval		interval NOT NULL DEFAULT '1 second',
	max_concurrency		int,
	sla					interval,
	backoff_intervals	interval[],
	keep_completed_count int,
	keep_failed_count	int,
	fair				boolean NOT NULL DEFAULT false,
	group_concurrency	int NOT NULL DEFAULT 1,
	group_rate_limit	int,
	group_rate_interval	interval NOT NULL DEFAULT '1 second',
	group_retry			text NOT NULL DEFAULT 'block',
	durable				boolean NOT NULL DEFAULT true,
	paused				boolean NOT NULL DEFAULT false,
	draining			boolean NOT NULL DEFAULT false,
	created_at			timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE queue IS 'Queues and their settings; written by create_queue, alter_queue, pause_queue and resume_queue.';
COMMENT ON COLUMN queue.lease IS 'How long a claimed job belongs to its worker (Bull: lockDuration).';
COMMENT ON COLUMN queue.stalled_interval IS 'How often the scheduler looks for leases that ran out (Bull: stalledInterval).';
COMMENT ON COLUMN queue.max_stalled IS 'How often a job may be claimed again after its lease ran out (Bull: maxStalledCount).';
COMMENT ON COLUMN queue.max_attempts IS 'How often a job is tried before it is a dead letter (Bull: attempts).';
COMMENT ON COLUMN queue.backoff IS 'After the n-th failure: exponential (BullMQ''s): backoff_delay x 2^(n-1); bull (Bull''s): backoff_delay x (2^n - 1); linear: backoff_delay x n; fixed: backoff_delay; list: the n-th of backoff_intervals, or its last.';
COMMENT ON COLUMN queue.backoff_max IS 'No wait between attempts is longer than this.';
COMMENT ON COLUMN queue.backoff_jitter IS 'Share of each wait, 0 to 1, that is drawn at random.';
COMMENT ON COLUMN queue.keep_completed IS 'How long jobs that finish from now on stay in the view history; 1000 years: for ever; NULL: not at all, or by keep_completed_count alone.';
COMMENT ON COLUMN queue.keep_failed IS 'How long dead letters stay; NULL: for ever, until someone retries or discards them.';
COMMENT ON COLUMN queue.keep_completed_count IS 'So many finished jobs stay in the view history, the newest; looked at once a minute.';
COMMENT ON COLUMN queue.keep_failed_count IS 'So many dead letters stay, the newest; looked at once a minute.';
COMMENT ON COLUMN queue.fair IS 'Tenants take turns, however many jobs each has; priorities count within a tenant.';
COMMENT ON COLUMN queue.group_concurrency IS 'So many jobs of one group_key may be ready or leased at a time.';
COMMENT ON COLUMN queue.group_rate_limit IS 'Claims of one group_key in a group_rate_interval on average, and at once after a quiet time; NULL: no limit.';
COMMENT ON COLUMN queue.group_retry IS 'While a job of a group waits for its next attempt: block: the others wait; pass: they go on.';
COMMENT ON COLUMN queue.durable IS 'False: settling a job does not wait for the disk; a crash may have it done again.';
COMMENT ON COLUMN queue.rate_limit IS 'Claims in a rate_interval on average, and at once after a quiet time (a token bucket); NULL: no limit.';
COMMENT ON COLUMN queue.max_concurrency IS 'At most this many jobs leased at a time; NULL: no limit.';
COMMENT ON COLUMN queue.sla IS 'A job should be finished this long after it became due; seen in queue_status.';
CREATE TRIGGER config_changed AFTER INSERT OR UPDATE OR DELETE ON queue
	FOR EACH STATEMENT EXECUTE FUNCTION config_changed();
SELECT pg_catalog.pg_extension_config_dump('queue', 'WHERE queue_id > 2');
SELECT pg_catalog.pg_extension_config_dump('queue_queue_id_seq', '');

/*
 * check_queue_settings: row trigger that turns a bad setting into EQ012 with
 * the setting's name, whatever wrote it.
 */
CREATE FUNCTION check_queue_settings() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, event_queue, pg_temp AS $$
DECLARE
	bad text;
BEGIN
	PERFORM event_queue.check_name('queue name', NEW.name, 50);
	bad := CASE
		WHEN NEW.lease IS NULL OR NEW.lease < '1 second' OR NEW.lease > '1 day' THEN 'lease must be between 1 second and 1 day'
		WHEN NEW.stalled_interval IS NULL OR NEW.stalled_interval < '100 milliseconds' OR NEW.stalled_interval > '1 hour' THEN 'stalled_interval must be between 100 milliseconds and 1 hour'
		WHEN NEW.max_stalled IS NULL OR NEW.max_stalled NOT BETWEEN 0 AND 1000 THEN 'max_stalled must be between 0 and 1000'
		WHEN NEW.max_attempts IS NULL OR NEW.max_attempts NOT BETWEEN 1 AND 1000 THEN 'max_attempts must be between 1 and 1000'
		WHEN NEW.backoff IS NULL OR NEW.backoff NOT IN ('exponential', 'bull', 'linear', 'fixed', 'list') THEN 'backoff must be exponential, bull, linear, fixed or list'
		WHEN NEW.backoff = 'list' AND coalesce(cardinality(NEW.backoff_intervals), 0) NOT BETWEEN 1 AND 100 THEN 'backoff list needs backoff_intervals, 1 to 100 of them'
		WHEN (SELECT bool_or(i IS NULL OR i < '0' OR i > '365 days') FROM unnest(NEW.backoff_intervals) i) THEN 'backoff_intervals must be between 0 and 365 days'
		WHEN NEW.backoff_delay IS NULL OR NEW.backoff_delay < '0' OR NEW.backoff_delay > '365 days' THEN 'backoff_delay must be between 0 and 365 days'
		WHEN NEW.backoff_max IS NULL OR NEW.backoff_max < '0' OR NEW.backoff_max > '365 days' THEN 'backoff_max must be between 0 and 365 days'
		WHEN NEW.backoff_jitter IS NULL OR NOT (NEW.backoff_jitter BETWEEN 0 AND 1) THEN 'backoff_jitter must be between 0 and 1'
		WHEN NEW.keep_completed < '0' OR NEW.keep_completed > '1000 years' THEN 'keep_completed must be between 0 and 1000 years, which means for ever'
		WHEN NEW.keep_failed < '0' OR NEW.keep_failed > '1000 years' THEN 'keep_failed must be between 0 and 1000 years; NULL means for ever'
		WHEN NEW.rate_limit NOT BETWEEN 1 AND 1000000 THEN 'rate_limit must be between 1 and 1000000'
		WHEN NEW.rate_interval IS NULL OR NEW.rate_interval < '1 millisecond' OR NEW.rate_interval > '1 day' THEN 'rate_interval must be between 1 millisecond and 1 day'
		WHEN NEW.max_concurrency NOT BETWEEN 1 AND 100000 THEN 'max_concurrency must be between 1 and 100000'
		WHEN NEW.sla <= '0' THEN 'sla must be positive'
		WHEN NEW.keep_completed_count < 1 THEN 'keep_completed_count must be at least 1'
		WHEN NEW.keep_failed_count < 1 THEN 'keep_failed_count must be at least 1'
		WHEN NEW.fair IS NULL THEN 'fair must be true or false'
		WHEN NEW.durable IS NULL THEN 'durable must be true or false'
		WHEN NEW.group_concurrency IS NULL OR NEW.group_concurrency NOT BETWEEN 1 AND 1000 THEN 'group_concurrency must be between 1 and 1000'
		WHEN NEW.group_rate_limit NOT BETWEEN 1 AND 1000000 THEN 'group_rate_limit must be between 1 and 1000000'
		WHEN NEW.group_rate_interval IS NULL OR NEW.group_rate_interval < '1 millisecond' OR NEW.group_rate_interval > '1 day' THEN 'group_rate_interval must be between 1 millisecond and 1 day'
		WHEN NEW.group_retry IS NULL OR NEW.group_retry NOT IN ('block', 'pass') THEN 'group_retry must be block or pass'
	END;
	IF bad IS NOT NULL THEN
		RAISE EXCEPTION USING ERRCODE = 'EQ012',
			MESSAGE = format('invalid setting for queue "%s"', NEW.name), DETAIL = bad || '.';
	END IF;
	RETURN NEW;
END
$$;
COMMENT ON FUNCTION check_queue_settings() IS 'Internal. Trigger: checks a queue''s settings (EQ012).';
CREATE TRIGGER check_queue_settings BEFORE INSERT OR UPDATE ON queue
	FOR EACH ROW EXECUTE FUNCTION check_queue_settings();

/* limits_changed: row trigger that has rate_limit and max_concurrency hold from the commit on. */
CREATE FUNCTION limits_changed() RETURNS trigger
LANGUAGE C AS 'MODULE_PATHNAME', 'eq_limits_changed';
COMMENT ON FUNCTION limits_changed() IS 'Internal. Trigger: has changed limits of a queue hold from the commit on.';
CREATE TRIGGER limits_changed AFTER INSERT OR UPDATE OR DELETE ON queue
	FOR EACH ROW EXECUTE FUNCTION limits_changed();

/*
 * apply_queue_settings: what a change of settings does to the jobs that are there.
 *
 * fair: they move to the lanes of their tenants, or into the one lane.  Rows that
 * others hold are skipped: move_lanes, called by the scheduler, finds them, and
 * those that come from transactions that began before.
 * group_concurrency, group_retry: the scheduler looks at each group that waits.
 * group_rate_limit: keys keep what they have used; jobs that were postponed keep
 * their time.
 */
CREATE FUNCTION apply_queue_settings() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, event_queue, pg_temp AS $$
DECLARE
	at timestamptz := clock_timestamp();
BEGIN
	IF NEW.fair <> OLD.fair THEN
		UPDATE event_queue.job j SET lane = CASE WHEN j.run_at <= at THEN event_queue.job_lane(NEW.fair, j.tenant_id) ELSE 0 END
		WHERE j.job_id IN (SELECT x.job_id FROM event_queue.job x WHERE x.queue_id = NEW.queue_id FOR UPDATE SKIP LOCKED);
	END IF;
	IF NEW.group_retry = 'pass' AND OLD.group_retry = 'block' THEN
		-- As fail would have left them.
		UPDATE event_queue.job j SET blocked = 1
		WHERE j.job_id IN (SELECT x.job_id FROM event_queue.job x
			WHERE x.queue_id = NEW.queue_id AND x.group_key IS NOT NULL AND x.blocked = 0 AND x.failures > 0
			  AND x.run_at > at AND x.leased_until IS NULL FOR UPDATE SKIP LOCKED);
	END IF;
	IF NEW.group_concurrency > OLD.group_concurrency OR NEW.group_retry <> OLD.group_retry THEN
		INSERT INTO event_queue.job_review (queue_id, tenant_id, group_key)
		SELECT DISTINCT j.queue_id, j.tenant_id, j.group_key FROM event_queue.job j
		WHERE j.queue_id = NEW.queue_id AND j.group_key IS NOT NULL AND j.blocked = 1;
	END IF;
	IF NEW.group_rate_limit IS NULL AND OLD.group_rate_limit IS NOT NULL THEN
		DELETE FROM event_queue.group_rate g WHERE g.queue_id = NEW.queue_id;
	ELSIF (NEW.group_rate_limit, NEW.group_rate_interval) <> (OLD.group_rate_limit, OLD.group_rate_interval) THEN
		UPDATE event_queue.group_rate g SET next_at = at + NEW.group_rate_interval / NEW.group_rate_limit * least(NEW.group_rate_limit,
			extract(epoch FROM g.next_at - at) / extract(epoch FROM OLD.group_rate_interval / OLD.group_rate_limit))
		WHERE g.queue_id = NEW.queue_id AND g.next_at > at;
	END IF;
	RETURN NULL;
END
$$;
COMMENT ON FUNCTION apply_queue_settings() IS 'Internal. Trigger: has changed settings of a queue hold for the jobs that are there.';
CREATE TRIGGER apply_queue_settings AFTER UPDATE ON queue
	FOR EACH ROW EXECUTE FUNCTION apply_queue_settings();

/*
 * move_lanes: puts jobs into lane 0 that do not know yet that their queue is no longer
 * fair.  Called by the scheduler at each sweep.  (Those that do not know that it has
 * become fair, it finds by itself: lane 0 is that of jobs that are not yet due.)
 */
CREATE FUNCTION move_lanes() RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, event_queue, pg_temp SET enable_seqscan = off AS $$
DECLARE
	q record;
BEGIN
	FOR q IN SELECT x.queue_id FROM event_queue.queue x WHERE NOT x.fair LOOP
		-- One look-up in job_order; an UPDATE of no row would have the scheduler look everywhere.
		CONTINUE WHEN (SELECT min(j.lane) FROM event_queue.job j
			WHERE j.queue_id = q.queue_id AND j.blocked = 0 AND j.lane > 0) IS NULL;
		-- By the setting of this statement's own snapshot: it may have changed since.
		UPDATE event_queue.job j SET lane = 0
		WHERE j.job_id IN (SELECT x.job_id FROM event_queue.queue s JOIN event_queue.job x USING (queue_id)
			WHERE s.queue_id = q.queue_id AND NOT s.fair AND x.blocked = 0 AND x.lane > 0
			FOR UPDATE OF x SKIP LOCKED);
	END LOOP;
END
$$;
COMMENT ON FUNCTION move_lanes() IS 'Internal. Moves jobs that are in a lane of before their queue ceased to be fair.';

/* job_lane: the lane of a tenant's jobs: 0, or in a fair queue one of the tenant's own. */
CREATE FUNCTION job_lane(fair boolean, tenant_id text) RETURNS int
LANGUAGE C IMMUTABLE STRICT AS 'MODULE_PATHNAME', 'eq_job_lane_sql';
COMMENT ON FUNCTION job_lane(boolean, text) IS 'Internal. Which lane of its queue a tenant''s job is in.';

/* check_payload: EQ005 if a payload is larger than event_queue.max_payload. */
CREATE FUNCTION check_payload(payload jsonb) RETURNS void
LANGUAGE C STABLE STRICT AS 'MODULE_PATHNAME', 'eq_check_payload_sql';
COMMENT ON FUNCTION check_payload(jsonb) IS 'Internal. EQ005 if a payload is larger than event_queue.max_payload.';

/* queue_id_of: a queue's id. Errors: EQ010 if there is no such queue. */
CREATE FUNCTION queue_id_of(queue text) RETURNS int
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, event_queue, pg_temp AS $$
DECLARE
	found_id int := (SELECT q.queue_id FROM event_queue.queue q WHERE q.name = $1);
BEGIN
	IF found_id IS NULL THEN
		RAISE EXCEPTION USING ERRCODE = 'EQ010',
			MESSAGE = format('queue "%s" does not exist', $1),
			HINT = format('Create it with event_queue.create_queue(%L).', $1);
	END IF;
	RETURN found_id;
END
$$;
COMMENT ON FUNCTION queue_id_of(text) IS 'A queue''s number; EQ010 if there is no such queue.';

/*
 * create_queue: a new queue.
 * Arguments: see the comments on the columns of table queue.
 * Result: the queue's number.
 * Errors: EQ006 bad name, EQ011 the queue exists, EQ012 bad setting.
 */
CREATE FUNCTION create_queue(
	name text,
	lease interval DEFAULT '30 seconds',
	stalled_interval interval DEFAULT '5 seconds',
	max_stalled int DEFAULT 2,
	max_attempts int DEFAULT 3,
	backoff text DEFAULT 'exponential',
	backoff_delay interval DEFAULT '2 seconds',
	backoff_max interval DEFAULT '1 hour',
	backoff_jitter float8 DEFAULT 0,
	keep_completed interval DEFAULT NULL,
	keep_failed interval DEFAULT NULL,
	rate_limit int DEFAULT NULL,
	rate_interval interval DEFAULT '1 second',
	max_concurrency int DEFAULT NULL,
	sla interval DEFAULT NULL,
	backoff_intervals interval[] DEFAULT NULL,
	keep_completed_count int DEFAULT NULL,
	keep_failed_count int DEFAULT NULL,
	fair boolean DEFAULT false,
	group_concurrency int DEFAULT 1,
	group_rate_limit int DEFAULT NULL,
	group_rate_interval interval DEFAULT '1 second',
	group_retry text DEFAULT 'block',
	durable boolean DEFAULT true)
RETURNS int
LANGUAGE plpgsql SET search_path = pg_catalog, event_queue, pg_temp AS $$
#variable_conflict use_variable
DECLARE
	new_id int;
BEGIN
	PERFORM event_queue.check_name('queue name', name, 50);
	INSERT INTO event_queue.queue AS q (name, lease, stalled_interval, max_stalled, max_attempts,
		backoff, backoff_delay, backoff_max, backoff_jitter, keep_completed, keep_failed,
		rate_limit, rate_interval, max_concurrency, sla, backoff_intervals, keep_completed_count, keep_failed_count,
		fair, group_concurrency, group_rate_limit, group_rate_interval, group_retry, durable)
	VALUES (name, lease, stalled_interval, max_stalled, max_attempts,
		backoff, backoff_delay, backoff_max, backoff_jitter, keep_completed, keep_failed,
		rate_limit, rate_interval, max_concurrency, sla, backoff_intervals, keep_completed_count, keep_failed_count,
		fair, group_concurrency, group_rate_limit, group_rate_interval, group_retry, durable)
	ON CONFLICT ON CONSTRAINT queue_name_key DO NOTHING
	RETURNING q.queue_id INTO new_id;
	IF new_id IS NULL THEN
		RAISE EXCEPTION USING ERRCODE = 'EQ011',
			MESSAGE = format('queue "%s" already exists', name),
			HINT = 'Change its settings with event_queue.alter_queue.';
	END IF;
	RETURN new_id;
END
$$;
COMMENT ON FUNCTION create_queue(text, interval, interval, int, int, text, interval, interval, float8, interval, interval, int, interval, int, interval, interval[], int, int, boolean, int, int, interval, text, boolean) IS
'Creates a queue. Lease, stalled_interval, max_stalled, max_attempts and backoff mean what they mean in Bull.';

/*
 * alter_queue: changes settings of a queue, live: they hold for the next claim
 * and settle after its commit, also of jobs that are there already.  A limit
 * counts what was claimed before; a rate keeps the tokens that it has, up to the
 * new limit.  A change of fair moves all waiting jobs in this
 * transaction: it takes time in proportion, and claims find no job meanwhile.
 * Arguments: settings is an object of column names of table queue, for example
 * {"lease": "1 minute", "rate_limit": null}.
 * Errors: EQ010 no such queue, EQ012 unknown or bad setting.
 */
CREATE FUNCTION alter_queue(name text, settings jsonb) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, event_queue, pg_temp AS $$
DECLARE
	this_id int := event_queue.queue_id_of(name);
	unknown text;
BEGIN
	IF settings IS NULL OR jsonb_typeof(settings) <> 'object' THEN
		RAISE EXCEPTION USING ERRCODE = 'EQ012', MESSAGE = 'queue settings must be a JSON object';
	END IF;
	SELECT k INTO unknown FROM jsonb_object_keys(settings) k
	WHERE k NOT IN ('lease', 'stalled_interval', 'max_stalled', 'max_attempts', 'backoff', 'backoff_delay',
		'backoff_max', 'backoff_jitter', 'keep_completed', 'keep_failed', 'rate_limit', 'rate_interval',
		'max_concurrency', 'sla', 'backoff_intervals', 'keep_completed_count', 'keep_failed_count', 'fair',
		'group_concurrency', 'group_rate_limit', 'group_rate_interval', 'group_retry', 'durable') LIMIT 1;
	IF unknown IS NOT NULL THEN
		RAISE EXCEPTION USING ERRCODE = 'EQ012',
			MESSAGE = format('unknown queue setting "%s"', unknown),
			HINT = 'Settings are the arguments of event_queue.create_queue.';
	END IF;
	BEGIN
		UPDATE event_queue.queue q
		SET (lease, stalled_interval, max_stalled, max_attempts, backoff, backoff_delay, backoff_max,
			 backoff_jitter, keep_completed, keep_failed, rate_limit, rate_interval, max_concurrency, sla,
			 backoff_intervals, keep_completed_count, keep_failed_count, fair, group_concurrency, group_rate_limit,
			 group_rate_interval, group_retry, durable) =
			(SELECT r.lease, r.stalled_interval, r.max_stalled, r.max_attempts, r.backoff, r.backoff_delay,
				r.backoff_max, r.backoff_jitter, r.keep_completed, r.keep_failed, r.rate_limit,
				r.rate_interval, r.max_concurrency, r.sla, r.backoff_intervals, r.keep_completed_count,
				r.keep_failed_count, r.fair, r.group_concurrency, r.group_rate_limit, r.group_rate_interval,
				r.group_retry, r.durable
			 FROM jsonb_populate_record(q, settings) r)
		WHERE q.queue_id = this_id;
	EXCEPTION WHEN data_exception THEN
		RAISE EXCEPTION USING ERRCODE = 'EQ012',
			MESSAGE = format('invalid setting for queue "%s"', name), DETAIL = SQLERRM || '.';
	END;
END
$$;
COMMENT ON FUNCTION alter_queue(text, jsonb) IS
'Changes settings of a queue, for example alter_queue(''mail'', ''{"lease": "1 minute"}'').';

/* set_queue_paused: what pause_queue and resume_queue share. */
CREATE FUNCTION set_queue_paused(name text, paused boolean) RETURNS void
LANGUAGE sql SET search_path = pg_catalog, event_queue, pg_temp AS $$
	UPDATE event_queue.queue SET paused = $2, draining = draining AND $2 WHERE queue_id = event_queue.queue_id_of($1)
$$;
COMMENT ON FUNCTION set_queue_paused(text, boolean) IS 'Internal. What pause_queue and resume_queue share.';

/* pause_queue: nothing more is claimed; enqueue goes on. Errors: EQ010. */
CREATE FUNCTION pause_queue(name text) RETURNS void
LANGUAGE sql SET search_path = pg_catalog, event_queue, pg_temp AS $$
	SELECT event_queue.set_queue_paused($1, true)
$$;
COMMENT ON FUNCTION pause_queue(text) IS 'Stops claims from the queue; enqueue goes on, leased jobs are finished.';

/* resume_queue: undoes pause_queue and drain_queue. Errors: EQ010. */
CREATE FUNCTION resume_queue(name text) RETURNS void
LANGUAGE sql SET search_path = pg_catalog, event_queue, pg_temp AS $$
	SELECT event_queue.set_queue_paused($1, false)
$$;
COMMENT ON FUNCTION resume_queue(text) IS 'Lets a paused queue be claimed from, and a draining one take jobs, again.';

/*
 * purge_queue: deletes the queue's jobs that are not leased; jobs elsewhere that
 * depend on them become dead letters.
 * Result: how many. Errors: EQ010. Row security: a session that is confined to
 * a tenant deletes only that tenant's jobs.
 */
CREATE FUNCTION purge_queue(name text) RETURNS bigint
LANGUAGE plpgsql SET search_path = pg_catalog, event_queue, pg_temp AS $$
#variable_conflict use_column
DECLARE
	deleted bigint;
BEGIN
	DELETE FROM event_queue.job
	WHERE queue_id = event_queue.queue_id_of($1)
	  AND (leased_until IS NULL OR leased_until <= clock_timestamp())
	  AND event_queue.tenant_visible(tenant_id);
	GET DIAGNOSTICS deleted = ROW_COUNT;
	RETURN deleted;
END
$$;
COMMENT ON FUNCTION purge_queue(text) IS 'Deletes all jobs of a queue that are not leased; returns how many.';

/*
 * drain_queue: takes no more jobs (enqueue raises EQ034), while claims go on; for
 * a queue that is to be emptied.  resume_queue undoes it.
 * Result: how many jobs are still there, by the counter that queue_status shows
 * as depth.  Errors: EQ010.
 */
CREATE FUNCTION drain_queue(name text) RETURNS bigint
LANGUAGE plpgsql SET search_path = pg_catalog, event_queue, pg_temp AS $$
#variable_conflict use_column
BEGIN
	UPDATE event_queue.queue SET draining = true WHERE queue_id = event_queue.queue_id_of($1);
	RETURN (SELECT d.depth FROM event_queue.queue_depth(event_queue.queue_id_of($1)) d);
END
$$;
COMMENT ON FUNCTION drain_queue(text) IS
'Has a queue take no more jobs, while its jobs are still done; returns how many there are.';

/*
 * retry_all: makes all waiting jobs of a queue due now, those that wait for their
 * next attempt or were delayed.
 * Arguments: failed_only leaves out jobs that never failed.
 * Result: how many.  Errors: EQ010.
 */
CREATE FUNCTION retry_all(queue text, failed_only boolean DEFAULT true) RETURNS bigint
LANGUAGE plpgsql SET search_path = pg_catalog, event_queue, pg_temp AS $$
#variable_conflict use_column
DECLARE
	n bigint;
BEGIN
	UPDATE event_queue.job j SET run_at = clock_timestamp()
	WHERE j.queue_id = event_queue.queue_id_of($1) AND j.run_at > clock_timestamp() AND j.leased_until IS NULL
	  AND (j.failures > 0 OR NOT $2) AND event_queue.tenant_visible(j.tenant_id);
	GET DIAGNOSTICS n = ROW_COUNT;
	RETURN n;
END
$$;
COMMENT ON FUNCTION retry_all(text, boolean) IS 'Makes the jobs of a queue that wait for their next attempt due now; returns how many.';

/*
 * Queues that were dropped, until no transaction can be left that knew them: what
 * such a one still enqueues is removed by the scheduler (maintain_history).
 */
CREATE TABLE dropped_queue (
	queue_id	int PRIMARY KEY,
	seen_at		xid8
);
COMMENT ON TABLE dropped_queue IS
'Internal. Queues whose jobs may still be committed by transactions that began before the queue was dropped; seen_at: all of those are older.';

/*
 * drop_queue: removes a queue with its jobs, dead letters and history; jobs of
 * other queues that depend on them become dead letters.
 * Arguments: force also drops a queue that still has jobs or dead letters.
 * Errors: EQ010 no such queue, EQ013 it has jobs, dead letters, rules,
 * handlers or schedules.
 * Isolation: jobs of enqueues that are open go within a minute after their commit.
 */
CREATE FUNCTION drop_queue(name text, force boolean DEFAULT false) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, event_queue, pg_temp AS $$
#variable_conflict use_column
DECLARE
	this_id int := event_queue.queue_id_of($1);
	used_by text;
BEGIN
	SELECT what INTO used_by FROM (
		SELECT format('rule "%s" enqueues into it', r.name) FROM event_queue.rule r WHERE r.queue_id = this_id
		UNION ALL
		SELECT format('handler for job "%s" reads it', h.job_name) FROM event_queue.handler h WHERE h.queue_id = this_id
		UNION ALL
		SELECT format('schedule "%s" enqueues into it', s.name) FROM event_queue.schedule s WHERE s.queue_id = this_id
		UNION ALL
		SELECT 'the extension needs it' WHERE this_id <= 2
		UNION ALL
		SELECT 'it has jobs' WHERE NOT force AND EXISTS (SELECT FROM event_queue.job j WHERE j.queue_id = this_id)
		UNION ALL
		SELECT 'it has dead letters' WHERE NOT force AND EXISTS (SELECT FROM event_queue.dead_letter d WHERE d.queue_id = this_id)
	) AS uses(what) LIMIT 1;
	IF used_by IS NOT NULL THEN
		RAISE EXCEPTION USING ERRCODE = 'EQ013',
			MESSAGE = format('queue "%s" is in use', $1), DETAIL = format('Cause: %s.', used_by),
			HINT = 'Drop rules, handlers and schedules first; force => true drops jobs and dead letters with the queue.';
	END IF;
	DELETE FROM event_queue.job WHERE queue_id = this_id;
	DELETE FROM event_queue.dead_letter WHERE queue_id = this_id;
	DELETE FROM event_queue.job_history WHERE queue_id = this_id;
	DELETE FROM event_queue.group_rate WHERE queue_id = this_id;
	DELETE FROM event_queue.group_review_at WHERE queue_id = this_id;
	DELETE FROM event_queue.job_review WHERE queue_id = this_id;
	DELETE FROM event_queue.queue WHERE queue_id = this_id;
	INSERT INTO event_queue.dropped_queue (queue_id) VALUES (this_id);
END
$$;
COMMENT ON FUNCTION drop_queue(text, boolean) IS
'Drops a queue; force => true drops its jobs and dead letters too.';


/*
 * job.sql: one job's life.
 *
 *   enqueue -> waiting --claim--> leased --complete--> gone (history if kept)
 *                ^                  |--fail----------> waiting again, later
 *                |                  |--fail, no attempt left--> dead_letter
 *                |                  |--release-------> waiting again
 *                |                  '--lease runs out-> claimed again (stalled),
 *                |                                      at most max_stalled times
 *                '---retry_dead---- dead_letter
 *
 * The table job holds only living jobs.  The columns that a claim writes are
 * in no index, and pages keep room for a second version of each row, so that
 * claims are HOT also when they take all jobs of a page at once.  A job that
 * waits for others (flow.sql) is blocked, and not in the index that claims walk.
 */

/* What a job overrides of its queue's backoff settings; NULL: the queue's. */
CREATE TYPE retry_options AS (
	backoff			text,
	backoff_delay	interval,
	backoff_max		interval,
	backoff_jitter	float8,
	backoff_intervals interval[]
);
COMMENT ON TYPE retry_options IS
'Column retry of job and dead_letter: what a job overrides of its queue''s backoff.';

CREATE TABLE job (
	job_id			bigint GENERATED BY DEFAULT AS IDENTITY,
	queue_id		int NOT NULL,
	lane			int NOT NULL DEFAULT 0,
	run_at			timestamptz NOT NULL,
	created_at		timestamptz NOT NULL,
	failures		int NOT NULL DEFAULT 0,
	stalled			int NOT NULL DEFAULT 0,
	priority		smallint NOT NULL,
	blocked			smallint NOT NULL DEFAULT 0,
	cancel			boolean NOT NULL DEFAULT false,
	has_dependents	boolean NOT NULL DEFAULT false,
	unique_until_claim boolean NOT NULL DEFAULT false,
	tenant_id		text COLLATE "C" NOT NULL,
	name			text NOT NULL,
	max_attempts	int,
	retry			retry_options,
	time_limit		interval,
	lease_token		uuid,
	leased_until	timestamptz,
	claimed_at		timestamptz,
	lease_pid		int,
	leased_by		text,
	group_key		text COLLATE "C",
	unique_key		text COLLATE "C",
	payload			jsonb NOT NULL,
	metadata		jsonb,
	errors			jsonb,
	progress		jsonb,
	CONSTRAINT job_pkey PRIMARY KEY (job_id)
) WITH (fillfactor = 38, autovacuum_vacuum_scale_factor = 0.02,
		autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_cost_delay = 0);
COMMENT ON TABLE job IS 'Jobs that wait or are leased; finished ones leave it.';
COMMENT ON COLUMN job.lane IS '0, or in a fair queue a number made of the tenant: lanes take turns.';
COMMENT ON COLUMN job.run_at IS 'Not before this time; jobs of one priority are claimed in its order.';
COMMENT ON COLUMN job.failures IS 'Attempts that failed.';
COMMENT ON COLUMN job.stalled IS 'Leases that ran out; they do not count as attempts.';
COMMENT ON COLUMN job.blocked IS '0: no; 1: an earlier job of its group comes first; 2: it waits for the jobs that it depends on.';
COMMENT ON COLUMN job.cancel IS 'cancel_job was called while the job was leased.';
COMMENT ON COLUMN job.lease_pid IS 'The session that gives the job back when it ends.';
COMMENT ON COLUMN job.errors IS 'One object for each failure: attempt, at, worker, sqlstate, message, context.';
CREATE INDEX job_order ON job (queue_id, lane, priority, run_at, job_id) WHERE blocked = 0;
CREATE INDEX job_group ON job (queue_id, tenant_id, group_key, blocked, job_id) WHERE group_key IS NOT NULL;
CREATE UNIQUE INDEX job_unique_key ON job (queue_id, tenant_id, unique_key) WHERE unique_key IS NOT NULL;
ALTER TABLE job ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant_isolation ON job USING (tenant_visible(tenant_id));
SELECT pg_catalog.pg_extension_config_dump('job', '');
SELECT pg_catalog.pg_extension_config_dump('job_job_id_seq', '');

/* Keys of unique_mode throttle: no second job until then. */
CREATE TABLE job_throttle (
	queue_id		int NOT NULL,
	tenant_id		text COLLATE "C" NOT NULL,
	unique_key		text COLLATE "C" NOT NULL,
	job_id			bigint NOT NULL,
	until			timestamptz NOT NULL,
	PRIMARY KEY (queue_id, tenant_id, unique_key)
);
COMMENT ON TABLE job_throttle IS 'Internal. For each key of unique_mode throttle, the job of its present window.';

/* Jobs that were written beside enqueue (COPY, pg_restore, retry_dead) wake workers too. */
CREATE FUNCTION jobs_loaded() RETURNS trigger
LANGUAGE C AS 'MODULE_PATHNAME', 'eq_jobs_loaded';
COMMENT ON FUNCTION jobs_loaded() IS
'Internal. Trigger: after jobs were written by plain SQL, has the scheduler look at all queues.';
CREATE TRIGGER jobs_loaded AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON job
	FOR EACH STATEMENT EXECUTE FUNCTION jobs_loaded();

/* And they count, as enqueue and complete do by themselves. */
CREATE FUNCTION count_row() RETURNS trigger
LANGUAGE C AS 'MODULE_PATHNAME', 'eq_count_row';
COMMENT ON FUNCTION count_row() IS
'Internal. Trigger: keeps the counters of jobs and dead letters right when plain SQL writes them.';
CREATE TRIGGER count_row AFTER INSERT OR DELETE ON job
	FOR EACH ROW EXECUTE FUNCTION count_row();

/* Lines that workers write about a job (log_job). */
CREATE TABLE job_log (
	job_id			bigint NOT NULL,
	at				timestamptz NOT NULL DEFAULT clock_timestamp(),
	tenant_id		text COLLATE "C" NOT NULL,
	level			text NOT NULL,
	message			text NOT NULL
);
COMMENT ON TABLE job_log IS 'What workers said about their jobs by log_job; kept with the job, and after it for the longest keep_completed, at least 7 days.';
CREATE INDEX job_log_job ON job_log (job_id, at);
CREATE INDEX job_log_at ON job_log (at);
ALTER TABLE job_log ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant_isolation ON job_log USING (tenant_visible(tenant_id));
SELECT pg_catalog.pg_extension_config_dump('job_log', '');

CREATE TYPE claimed_job AS (
	job_id			bigint,
	lease_token		uuid,
	queue			text,
	name			text,
	tenant_id		text,
	payload			jsonb,
	metadata		jsonb,
	attempt			int,
	max_attempts	int,
	stalled			int,
	priority		int,
	created_at		timestamptz,
	run_at			timestamptz,
	leased_until	timestamptz,
	group_key		text,
	time_limit		interval
);
COMMENT ON TYPE claimed_job IS
'A leased job, as claim returns it and as handlers receive it.';

/*
 * enqueue: one job, in the caller's transaction.
 *
 * Arguments: delay (from now) or run_at (a time), not both; priority 0 (first)
 * to 9 (last), default 5; max_attempts, backoff, backoff_delay, backoff_max,
 * backoff_jitter and backoff_intervals override the queue's, each by itself;
 * backoff_intervals alone mean backoff list; time_limit: how long an attempt may take: no lease is longer.
 * unique_key: while a job of the same queue, tenant and key lives, no second
 * one is made; unique_mode says what happens instead: reject (nothing), replace
 * (the waiting job gets the new payload, priority and time), debounce (replace,
 * and the time begins anew), throttle (reject, for unique_window from the first
 * one on, also when it is finished); unique_until is finished or claimed.
 * group_key: jobs of one key run in the order of their ids, as many at a time as
 * the queue's group_concurrency.  depends_on: ids of jobs that must be finished
 * first.
 * Result: the job's id; with a unique_key that is taken, the id of the job that
 * has it.
 * Errors: EQ003/EQ004 tenant, EQ005 payload too large, EQ006 name, EQ009 unique
 * mode, EQ010 no such queue, EQ012 attempts, backoff or time_limit, EQ014 delay,
 * EQ015 priority, EQ032 depends_on names no job.
 * Isolation: with unique_key, sees the latest committed job at every level and
 * waits for an open transaction that uses the key.
 */
CREATE FUNCTION enqueue(
	queue text, name text, payload jsonb DEFAULT '{}',
	delay interval DEFAULT NULL, run_at timestamptz DEFAULT NULL,
	priority int DEFAULT 5, max_attempts int DEFAULT NULL,
	backoff text DEFAULT NULL, backoff_delay interval DEFAULT NULL,
	unique_key text DEFAULT NULL, metadata jsonb DEFAULT '{}', tenant_id text DEFAULT NULL,
	group_key text DEFAULT NULL, time_limit interval DEFAULT NULL,
	unique_mode text DEFAULT 'reject', unique_until text DEFAULT 'finished', unique_window interval DEFAULT NULL,
	depends_on bigint[] DEFAULT NULL, backoff_max interval DEFAULT NULL,
	backoff_jitter float8 DEFAULT NULL, backoff_intervals interval[] DEFAULT NULL)
RETURNS bigint
LANGUAGE C VOLATILE AS 'MODULE_PATHNAME', 'eq_enqueue_sql';
COMMENT ON FUNCTION enqueue(text, text, jsonb, interval, timestamptz, int, int, text, interval, text, jsonb, text, text, interval, text, text, interval, bigint[], interval, float8, interval[]) IS
'Adds a job to a queue in the caller''s transaction; returns its id.';

/*
 * enqueue_many: many jobs of one name, in the caller's transaction, as fast as
 * COPY.
 * Arguments: payloads, one for each job, at most 100000; group_keys: NULL, or one for
 * each payload; the rest as enqueue.  Unique keys, backoff and other options, and
 * names of their own, are enqueue_jobs'.
 * Result: their ids, in their order.
 * Errors: as enqueue.
 */
CREATE FUNCTION enqueue_many(
	queue text, name text, payloads jsonb[],
	delay interval DEFAULT NULL, run_at timestamptz DEFAULT NULL, priority int DEFAULT 5,
	group_keys text[] DEFAULT NULL, metadata jsonb DEFAULT '{}', tenant_id text DEFAULT NULL)
RETURNS bigint[]
LANGUAGE C VOLATILE AS 'MODULE_PATHNAME', 'eq_enqueue_many';
COMMENT ON FUNCTION enqueue_many(text, text, jsonb[], interval, timestamptz, int, text[], jsonb, text) IS
'Adds many jobs of one name, a payload each; returns their ids.';

/*
 * enqueue_jobs: many jobs with options of their own, all or none.
 * Arguments: jobs is a JSON array of objects with the arguments of enqueue
 * (queue may be left out if the first argument names one).
 * Result: their ids, in their order.  Errors: as enqueue; EQ009 malformed jobs.
 */
CREATE FUNCTION enqueue_jobs(jobs jsonb, queue text DEFAULT NULL, tenant_id text DEFAULT NULL) RETURNS SETOF bigint
LANGUAGE plpgsql SET search_path = pg_catalog, event_queue, pg_temp AS $$
DECLARE
	unknown text;
BEGIN
	IF jobs IS NULL OR jsonb_typeof(jobs) <> 'array' OR EXISTS (
		SELECT FROM jsonb_array_elements(jobs) j WHERE jsonb_typeof(j) <> 'object') THEN
		RAISE EXCEPTION USING ERRCODE = 'EQ009', MESSAGE = 'jobs must be a JSON array of objects';
	END IF;
	SELECT k INTO unknown FROM jsonb_array_elements(jobs) j, jsonb_object_keys(j) k
	WHERE k NOT IN ('queue', 'name', 'payload', 'delay', 'run_at', 'priority', 'max_attempts', 'backoff', 'backoff_delay',
		'unique_key', 'metadata', 'tenant_id', 'group_key', 'time_limit', 'unique_mode', 'unique_until', 'unique_window',
		'depends_on', 'backoff_max', 'backoff_jitter', 'backoff_intervals') LIMIT 1;
	IF unknown IS NOT NULL THEN
		RAISE EXCEPTION USING ERRCODE = 'EQ009', MESSAGE = format('unknown option "%s" of a job', unknown),
			HINT = 'Options are the arguments of event_queue.enqueue.';
	END IF;
	RETURN QUERY
	SELECT event_queue.enqueue(coalesce(j ->> 'queue', $2), j ->> 'name', coalesce(j -> 'payload', '{}'),
		(j ->> 'delay')::interval, (j ->> 'run_at')::timestamptz, coalesce((j ->> 'priority')::int, 5),
		(j ->> 'max_attempts')::int, j ->> 'backoff', (j ->> 'backoff_delay')::interval,
		j ->> 'unique_key', coalesce(j -> 'metadata', '{}'), coalesce(j ->> 'tenant_id', $3),
		j ->> 'group_key', (j ->> 'time_limit')::interval, coalesce(j ->> 'unique_mode', 'reject'),
		coalesce(j ->> 'unique_until', 'finished'), (j ->> 'unique_window')::interval,
		CASE WHEN j ->> 'depends_on' IS NOT NULL THEN ARRAY(SELECT d::bigint FROM jsonb_array_elements_text(j -> 'depends_on') d) END,
		(j ->> 'backoff_max')::interval, (j ->> 'backoff_jitter')::float8,
		CASE WHEN j ->> 'backoff_intervals' IS NOT NULL THEN ARRAY(SELECT i::interval FROM jsonb_array_elements_text(j -> 'backoff_intervals')
			WITH ORDINALITY AS b (i, nth) ORDER BY nth) END)
	FROM jsonb_array_elements(jobs) WITH ORDINALITY AS x (j, n) ORDER BY n;
EXCEPTION WHEN data_exception THEN
	RAISE EXCEPTION USING ERRCODE = 'EQ009', MESSAGE = 'malformed option of a job', DETAIL = SQLERRM || '.';
END
$$;
COMMENT ON FUNCTION enqueue_jobs(jsonb, text, text) IS
'Adds jobs that are given as a JSON array of objects with enqueue''s arguments; returns their ids.';

/*
 * claim: leases up to "limit" jobs that are due, first by priority, then by
 * run_at; in a fair queue tenants take turns.  Commit before the work starts, so
 * that others see the lease.  A transaction that did nothing else commits without
 * waiting for the disk: a claim that is lost in a crash is claimed again.
 *
 * Arguments: worker names who holds the lease (default: application_name and
 * pid); lease overrides the queue's; job_names restricts to these jobs;
 * session_bound: the jobs go back into the queue when this session ends (needs
 * a connection of one's own, not a transaction pooler's).
 * Result: the jobs with their lease tokens; none if the queue is empty, paused,
 * or at its rate_limit or max_concurrency.
 * Errors: EQ003 tenant, EQ009 limit not in 1 to 10000, EQ010 no such queue,
 * EQ012 lease not positive, 53400 event_queue.max_queues is too small for a queue
 * with limits.
 * Isolation: works on the latest committed rows at every level; rows that
 * another session has locked are skipped, never waited for.  What a claim has used
 * of its queue's limits is used at once, and comes back if it is rolled back (less
 * the tokens that came meanwhile).  At SERIALIZABLE two claims of one queue may fail with 40001.
 */
CREATE FUNCTION claim(
	queue text, "limit" int DEFAULT 1, worker text DEFAULT NULL,
	lease interval DEFAULT NULL, job_names text[] DEFAULT NULL, tenant_id text DEFAULT NULL,
	session_bound boolean DEFAULT false)
RETURNS SETOF claimed_job
LANGUAGE C VOLATILE ROWS 10 AS 'MODULE_PATHNAME', 'eq_claim_sql';
COMMENT ON FUNCTION claim(text, int, text, interval, text[], text, boolean) IS
'Leases jobs that are due; commit, work, then call complete, fail or release with the token.';

/*
 * claim_wait: claim, and if there is no job, sleep until one comes or the time is
 * over; without polling, snapshot or transaction id.  A procedure, since a
 * function can't give back the snapshot of the statement that calls it: CALL it
 * by itself, outside a transaction block.  It keeps nothing in the session, so it
 * works through a transaction pooler, and takes one of the pooler's server
 * connections while it sleeps.  A client that goes meanwhile takes no job along.
 * Arguments: timeout is how long at most; jobs: pass NULL; worker and lease as
 * in claim.
 * Result: a JSON array of the jobs, with the columns of claimed_job; committed.
 * Errors: EQ008 inside a transaction, EQ009 timeout below 0 or above 24 hours;
 * as claim.
 */
CREATE PROCEDURE claim_wait(
	queue text, "limit" int, timeout interval, INOUT jobs jsonb DEFAULT NULL,
	worker text DEFAULT NULL, lease interval DEFAULT NULL, tenant_id text DEFAULT NULL)
LANGUAGE C AS 'MODULE_PATHNAME', 'eq_claim_wait';
COMMENT ON PROCEDURE claim_wait(text, int, interval, jsonb, text, interval, text) IS
'Claims jobs; if there are none, sleeps until one comes or the time is over.';

/*
 * complete: the job is done; it leaves the queue (to the view history if the queue
 * keeps completed jobs).
 * Errors: EQ016 the lease is lost: the token is not the job's present one.
 * Isolation: latest committed row at every level; waits for a session that is
 * changing the job.
 */
CREATE FUNCTION complete(job_id bigint, lease_token uuid, result jsonb DEFAULT NULL) RETURNS void
LANGUAGE C VOLATILE AS 'MODULE_PATHNAME', 'eq_complete_sql';
COMMENT ON FUNCTION complete(bigint, uuid, jsonb) IS
'Finishes a leased job. EQ016 if the lease was lost, and nothing is changed.';

/*
 * complete_many: complete for many jobs, all or none.
 * Arguments: lease_tokens and results (NULL: none), one for each job.
 * Result: how many.  Errors: EQ009 lengths differ; as complete.
 */
CREATE FUNCTION complete_many(job_ids bigint[], lease_tokens uuid[], results jsonb[] DEFAULT NULL) RETURNS int
LANGUAGE C VOLATILE AS 'MODULE_PATHNAME', 'eq_complete_many';
COMMENT ON FUNCTION complete_many(bigint[], uuid[], jsonb[]) IS
'Finishes many leased jobs, all or none.';

/*
 * complete_and_claim: complete, then claim, in one call and one commit;
 * complete_many_and_claim: the same with arrays of jobs.  With NULL for job_id it only claims,
 * so that a worker's loop needs no other call.
 * Arguments and errors as complete, complete_many and claim.  Result: as claim.
 */
CREATE FUNCTION complete_and_claim(
	job_id bigint, lease_token uuid, queue text, "limit" int DEFAULT 1, worker text DEFAULT NULL,
	lease interval DEFAULT NULL, job_names text[] DEFAULT NULL, tenant_id text DEFAULT NULL,
	session_bound boolean DEFAULT false, result jsonb DEFAULT NULL)
RETURNS SETOF claimed_job
LANGUAGE C VOLATILE ROWS 1 AS 'MODULE_PATHNAME', 'eq_complete_and_claim';
COMMENT ON FUNCTION complete_and_claim(bigint, uuid, text, int, text, interval, text[], text, boolean, jsonb) IS
'Finishes a leased job and leases the next one, in one commit.';

CREATE FUNCTION complete_many_and_claim(
	job_ids bigint[], lease_tokens uuid[], queue text, "limit" int DEFAULT 1, worker text DEFAULT NULL,
	lease interval DEFAULT NULL, job_names text[] DEFAULT NULL, tenant_id text DEFAULT NULL,
	session_bound boolean DEFAULT false, results jsonb[] DEFAULT NULL)
RETURNS SETOF claimed_job
LANGUAGE C VOLATILE ROWS 10 AS 'MODULE_PATHNAME', 'eq_complete_many_and_claim';
COMMENT ON FUNCTION complete_many_and_claim(bigint[], uuid[], text, int, text, interval, text[], text, boolean, jsonb[]) IS
'Finishes leased jobs and leases the next ones, in one commit.';

/*
 * fail: the attempt failed; the job waits for its next attempt by its backoff,
 * or becomes a dead letter if it has none left or the error is final.
 * Arguments: retry_after replaces the backoff this time; final: never retry.
 * Result: when the job is tried again; NULL if it is a dead letter now.
 * Errors: EQ014 negative retry_after, EQ016 lease lost.
 */
CREATE FUNCTION fail(
	job_id bigint, lease_token uuid, message text,
	sqlstate text DEFAULT NULL, context text DEFAULT NULL,
	retry_after interval DEFAULT NULL, final boolean DEFAULT false)
RETURNS timestamptz
LANGUAGE C VOLATILE AS 'MODULE_PATHNAME', 'eq_fail_sql';
COMMENT ON FUNCTION fail(bigint, uuid, text, text, text, interval, boolean) IS
'Records a failed attempt; returns the time of the next one, or NULL if the job is a dead letter now.';

/*
 * release: gives a job back unfinished, without counting an attempt.
 * Arguments: delay until it may be claimed again.
 * Errors: EQ014 negative delay, EQ016 lease lost.
 */
CREATE FUNCTION release(job_id bigint, lease_token uuid, delay interval DEFAULT '0') RETURNS void
LANGUAGE C VOLATILE AS 'MODULE_PATHNAME', 'eq_release_sql';
COMMENT ON FUNCTION release(bigint, uuid, interval) IS
'Gives a leased job back to the queue; this does not count as an attempt.';

/*
 * extend_lease: the worker is still at it (a heartbeat).
 * Arguments: lease from now; default the queue's.
 * Result: the new end of the lease, never past the job's time_limit.
 * Errors: EQ012 lease not positive, EQ016 lease lost (also if it ran out, and its
 * place among max_concurrency is taken), EQ033 the job was
 * cancelled: stop, and call complete or fail.
 */
CREATE FUNCTION extend_lease(job_id bigint, lease_token uuid, lease interval DEFAULT NULL)
RETURNS timestamptz
LANGUAGE C VOLATILE AS 'MODULE_PATHNAME', 'eq_extend_lease_sql';
COMMENT ON FUNCTION extend_lease(bigint, uuid, interval) IS
'Renews the lease of a job, counted from now; returns its new end. EQ033 if the job was cancelled.';

/*
 * report_progress: what the view jobs shows of a leased job.
 * Arguments: progress is any JSON value.
 * Errors: EQ005 too large, EQ016 lease lost, EQ033 the job was cancelled.
 */
CREATE FUNCTION report_progress(job_id bigint, lease_token uuid, progress jsonb) RETURNS void
LANGUAGE C VOLATILE AS 'MODULE_PATHNAME', 'eq_report_progress';
COMMENT ON FUNCTION report_progress(bigint, uuid, jsonb) IS
'Sets the progress of a leased job, for the view jobs. EQ033 if the job was cancelled.';

/*
 * log_job: one line about a job, for job_log.
 * Errors: EQ009 no message or longer than 8 kB, EQ016 no lease of this job has
 * the token.
 */
CREATE FUNCTION log_job(job_id bigint, lease_token uuid, message text, level text DEFAULT 'info') RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, event_queue, pg_temp AS $$
#variable_conflict use_column
BEGIN
	IF message IS NULL OR octet_length(message) > 8192 OR level IS NULL THEN
		RAISE EXCEPTION USING ERRCODE = 'EQ009', MESSAGE = 'a log line needs a level and a message of at most 8 kB';
	END IF;
	PERFORM event_queue.check_name('log level', level, 50);
	INSERT INTO event_queue.job_log (job_id, tenant_id, level, message)
	SELECT j.job_id, j.tenant_id, $4, $3 FROM event_queue.job j WHERE j.job_id = $1 AND j.lease_token = $2;
	IF NOT FOUND THEN
		RAISE EXCEPTION USING ERRCODE = 'EQ016', MESSAGE = format('lease of job %s is lost', $1);
	END IF;
END
$$;
COMMENT ON FUNCTION log_job(bigint, uuid, text, text) IS 'Writes a line about a leased job to job_log.';

/*
 * cancel_job: a waiting job is removed; the worker of a leased one is told at
 * its next extend_lease or report_progress, by EQ033; a handler inside the database
 * is stopped, and the job is a dead letter then.  Jobs that depend on a
 * cancelled one become dead letters.
 * Result: cancelled (it is gone), requested (it is leased).
 * Errors: EQ032 no such job (finished, dead, or another tenant's).
 */
CREATE FUNCTION cancel_job(job_id bigint) RETURNS text
LANGUAGE C VOLATILE AS 'MODULE_PATHNAME', 'eq_cancel_job';
COMMENT ON FUNCTION cancel_job(bigint) IS
'Removes a waiting job, or asks the worker of a leased one to stop; returns cancelled or requested.';

/*
 * change_priority: of a waiting job.  Errors: EQ015 priority, EQ032 no such
 * waiting job.
 */
CREATE FUNCTION change_priority(job_id bigint, priority int) RETURNS void
LANGUAGE C VOLATILE AS 'MODULE_PATHNAME', 'eq_change_priority';
COMMENT ON FUNCTION change_priority(bigint, int) IS 'Changes the priority of a waiting job.';

CREATE VIEW jobs WITH (security_invoker = true) AS
	SELECT j.job_id, q.name AS queue, j.tenant_id, j.name,
		CASE WHEN j.leased_until > clock_timestamp() THEN 'leased'
			 WHEN j.leased_until IS NOT NULL THEN 'stalled'
			 WHEN j.blocked > 0 THEN 'blocked'
			 WHEN j.run_at > clock_timestamp() THEN CASE WHEN j.failures > 0 THEN 'retrying' ELSE 'scheduled' END
			 WHEN q.paused THEN 'paused'
			 ELSE 'ready' END AS state,
		j.priority, j.run_at, j.created_at, j.failures, j.stalled,
		coalesce(j.max_attempts, q.max_attempts) AS max_attempts,
		j.leased_by, j.claimed_at, j.leased_until, j.cancel, j.progress, j.group_key, j.unique_key, j.payload,
		coalesce(j.metadata, '{}') AS metadata, coalesce(j.errors, '[]') AS errors
	FROM event_queue.job j JOIN event_queue.queue q USING (queue_id);
COMMENT ON VIEW jobs IS
'Living jobs with their state: ready, scheduled, retrying, blocked, leased, stalled or paused.';

/*
 * dead.sql: where jobs end: dead letters and history.
 */

CREATE TABLE dead_letter (
	job_id			bigint PRIMARY KEY,
	queue_id		int NOT NULL,
	tenant_id		text COLLATE "C" NOT NULL,
	name			text NOT NULL,
	priority		smallint NOT NULL,
	created_at		timestamptz NOT NULL,
	died_at			timestamptz NOT NULL,
	reason			text NOT NULL,
	failures		int NOT NULL,
	stalled			int NOT NULL,
	max_attempts	int,
	retry			retry_options,
	time_limit		interval,
	group_key		text COLLATE "C",
	unique_key		text COLLATE "C",
	has_dependents	boolean NOT NULL,
	payload			jsonb NOT NULL,
	metadata		jsonb NOT NULL,
	errors			jsonb NOT NULL
);
COMMENT ON TABLE dead_letter IS 'Jobs that failed for good: reason is attempts, stalled, final or dependency.';
CREATE INDEX dead_letter_queue ON dead_letter (queue_id, died_at, job_id);
CREATE TRIGGER count_row AFTER INSERT OR DELETE ON dead_letter
	FOR EACH ROW EXECUTE FUNCTION count_row();
CREATE TRIGGER jobs_loaded AFTER TRUNCATE ON dead_letter
	FOR EACH STATEMENT EXECUTE FUNCTION jobs_loaded();
ALTER TABLE dead_letter ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant_isolation ON dead_letter USING (tenant_visible(tenant_id));
SELECT pg_catalog.pg_extension_config_dump('dead_letter', '');

/*
 * Finished jobs, each with the time until which its queue wanted to keep it when
 * it finished.  Partitions hold what expires within the same hour, day or month
 * (UTC), and are dropped when that is over: nothing is deleted for its age,
 * however differently queues keep.  What stays an hour longer than it should is
 * little beside a day, a day little beside a month: so span, the length of the
 * partition, goes by how long the row is kept (history_span; the same in history.c).
 *
 * The scheduler makes partitions ahead of the rows (maintain_history_partitions);
 * complete (history.c) writes straight into the right one.  What comes before its
 * partition goes into job_history_early, and is deleted from there: rows are not
 * moved and there is no default partition, so that making and dropping partitions
 * waits for no writer, and no reader misses a row.
 *
 * job_history itself has no index, each partition has its own: so a dump, in which
 * the partitions are tables like a user's, can be restored.  A partition whose
 * primary key is missing is being restored, and is left alone.
 */
CREATE TABLE job_history (
	job_id			bigint NOT NULL,
	queue_id		int NOT NULL,
	tenant_id		text COLLATE "C" NOT NULL,
	name			text NOT NULL,
	priority		smallint NOT NULL,
	created_at		timestamptz NOT NULL,
	run_at			timestamptz NOT NULL,
	completed_at	timestamptz NOT NULL,
	expires_at		timestamptz NOT NULL,
	span			smallint NOT NULL,
	leased_by		text,
	failures		int NOT NULL,
	stalled			int NOT NULL,
	payload			jsonb NOT NULL,
	metadata		jsonb NOT NULL,
	errors			jsonb NOT NULL,
	result			jsonb
) PARTITION BY RANGE (span, expires_at);
COMMENT ON TABLE job_history IS
'Finished jobs of queues with keep_completed, also those that have expired but are not removed yet: read the view history.';
COMMENT ON COLUMN job_history.expires_at IS 'completed_at and the queue''s keep_completed of that time; infinity: kept for ever.';
COMMENT ON COLUMN job_history.span IS 'Its partition holds what expires within 0: an hour, 1: a day, 2: a month; 3: never; 4: its partition was not there yet.';
ALTER TABLE job_history ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant_isolation ON job_history USING (tenant_visible(tenant_id));

CREATE TABLE job_history_early PARTITION OF job_history FOR VALUES FROM (4, MINVALUE) TO (4, MAXVALUE);
COMMENT ON TABLE job_history_early IS
'Internal. Finished jobs that came before their partition; and what new partitions are made like, with its indexes.';
ALTER TABLE job_history_early ADD PRIMARY KEY (job_id, completed_at);
CREATE INDEX job_history_early_queue ON job_history_early (queue_id, completed_at, job_id);
CREATE INDEX job_history_early_caused_by ON job_history_early ((metadata ->> 'event_id')) WHERE metadata ? 'event_id';
ALTER TABLE job_history_early ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant_isolation ON job_history_early USING (tenant_visible(tenant_id));
SELECT pg_catalog.pg_extension_config_dump('job_history_early', '');

CREATE TABLE job_history_forever (LIKE job_history_early INCLUDING ALL);
ALTER TABLE job_history ATTACH PARTITION job_history_forever FOR VALUES FROM (3, MINVALUE) TO (3, MAXVALUE);
COMMENT ON TABLE job_history_forever IS
'Finished jobs of queues that keep them for ever, or by keep_completed_count alone.';
ALTER TABLE job_history_forever ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant_isolation ON job_history_forever USING (tenant_visible(tenant_id));
SELECT pg_catalog.pg_extension_config_dump('job_history_forever', '');

CREATE VIEW history WITH (security_invoker = true) AS
	SELECT h.job_id, q.name AS queue, h.tenant_id, h.name, h.completed_at, h.result, h.leased_by, h.failures, h.stalled,
		h.priority, h.created_at, h.run_at, h.expires_at, h.payload, h.metadata, h.errors
	FROM event_queue.job_history h JOIN event_queue.queue q USING (queue_id)
	WHERE h.expires_at > now();
COMMENT ON VIEW history IS
'Finished jobs of queues with keep_completed or keep_completed_count, with their results and the errors of failed attempts.';

/* history_span: job_history.span of what is kept so long; NULL if it is not kept by time. */
CREATE FUNCTION history_span(keep interval) RETURNS smallint
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, event_queue, pg_temp AS $$
	SELECT CASE
		WHEN keep <= '0' THEN NULL
		WHEN keep >= '1000 years' THEN 3
		WHEN extract(epoch FROM keep) <= 86400 THEN 0
		WHEN extract(epoch FROM keep) <= 60 * 86400 THEN 1
		WHEN keep IS NOT NULL THEN 2 END::smallint
$$;
COMMENT ON FUNCTION history_span(interval) IS 'Internal. Which length of partition holds what is kept so long.';

/*
 * maintain_history_partitions: drops the partitions of job_history whose time is
 * over, and makes those that queues will write to next: of what finishes now,
 * and the one after.  Called by the scheduler once a minute, and when queues
 * change; as it waits for a lock a moment only, what it can't do (a long report
 * reads the table) comes with a later call.
 */
CREATE FUNCTION maintain_history_partitions() RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, event_queue, pg_temp SET lock_timeout = '200ms' SET timezone = 'UTC' AS $$
#variable_conflict use_variable
DECLARE
	formats CONSTANT text[] := '{YYYYMMDDHH24,YYYYMMDD,YYYYMM}';
	part record;
	this_name text;
BEGIN
	FOR part IN
		SELECT c.relname AS name,
			CASE substr(c.relname, 13, 1)
				WHEN 'h' THEN to_timestamp(substr(c.relname, 15), formats[1]) + '1 hour'
				WHEN 'd' THEN to_timestamp(substr(c.relname, 15), formats[2]) + '1 day'
				ELSE to_timestamp(substr(c.relname, 15), formats[3]) + '1 month' END AS ends_at
		FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
		WHERE i.inhparent = 'event_queue.job_history'::regclass AND c.relname ~ '^job_history_[hdm]_[0-9]+$'
		  AND EXISTS (SELECT FROM pg_index x WHERE x.indrelid = c.oid AND x.indisprimary)
		ORDER BY ends_at
	LOOP
		EXIT WHEN part.ends_at > clock_timestamp();
		BEGIN
			EXECUTE format('DROP TABLE IF EXISTS event_queue.%I', part.name);
		EXCEPTION
			WHEN lock_not_available THEN
				EXIT;
			WHEN dependent_objects_still_exist THEN
				RAISE WARNING 'event_queue: could not drop %: %', part.name, SQLERRM;
		END;
	END LOOP;

	FOR part IN
		SELECT DISTINCT k.span, k.unit, begins_at, begins_at + ('1 ' || k.unit)::interval AS ends_at
		FROM (
			SELECT s.span, (ARRAY['hour', 'day', 'month'])[s.span + 1] AS unit,
				clock_timestamp() + make_interval(secs => extract(epoch FROM q.keep_completed)::float8) AS expires_at
			FROM event_queue.queue q, event_queue.history_span(q.keep_completed) AS s (span)
			WHERE s.span < 3) k,
			generate_series(0, 1) n,
			LATERAL (SELECT date_trunc(k.unit, k.expires_at) + n * ('1 ' || k.unit)::interval AS begins_at) AS b
		ORDER BY k.span, begins_at
	LOOP
		this_name := format('job_history_%s_%s', left(part.unit, 1), to_char(part.begins_at, formats[part.span + 1]));
		CONTINUE WHEN EXISTS (SELECT FROM pg_class c WHERE c.relname = this_name AND c.relnamespace = 'event_queue'::regnamespace);
		BEGIN
			EXECUTE format('CREATE TABLE event_queue.%I (LIKE event_queue.job_history_early INCLUDING ALL)', this_name);
			EXECUTE format('COMMENT ON TABLE event_queue.%I IS %L', this_name,
				format('Finished jobs that expire in the %s from %s.', part.unit, part.begins_at));
			EXECUTE format('ALTER TABLE event_queue.%I ENABLE ROW LEVEL SECURITY', this_name);
			EXECUTE format('CREATE POLICY tenant_isolation ON event_queue.%I USING (event_queue.tenant_visible(tenant_id))', this_name);
			EXECUTE format('ALTER TABLE event_queue.job_history ATTACH PARTITION event_queue.%I FOR VALUES FROM (%s, %L) TO (%s, %L)',
				this_name, part.span, part.begins_at, part.span, part.ends_at);
		EXCEPTION WHEN lock_not_available OR duplicate_table OR unique_violation THEN
			EXIT;		-- someone reads for long, or makes the same partition
		END;
	END LOOP;
END
$$;
COMMENT ON FUNCTION maintain_history_partitions() IS
'Internal. Drops the partitions of job_history whose time is over, and makes those that come next.';

/*
 * maintain_history: what is not a matter of partitions: what queues keep by count,
 * dead letters, and what is left of jobs that are no more.  Called by the
 * scheduler once a minute; it passes over rows that someone has locked.
 */
CREATE FUNCTION maintain_history() RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, event_queue, pg_temp SET lock_timeout = '2s' SET timezone = 'UTC' AS $$
#variable_conflict use_column
DECLARE
	longest interval := (SELECT max(q.keep_completed) FROM event_queue.queue q);
	q record;
BEGIN
	DELETE FROM event_queue.job_history_early h WHERE h.expires_at <= clock_timestamp();
	FOR q IN SELECT * FROM event_queue.queue
		WHERE keep_completed_count IS NOT NULL OR keep_failed IS NOT NULL OR keep_failed_count IS NOT NULL LOOP
		IF q.keep_completed_count IS NOT NULL THEN
			DELETE FROM event_queue.job_history h
			WHERE h.queue_id = q.queue_id AND (h.completed_at, h.job_id) < (
				SELECT k.completed_at, k.job_id FROM event_queue.job_history k WHERE k.queue_id = q.queue_id
				ORDER BY k.completed_at DESC, k.job_id DESC OFFSET q.keep_completed_count - 1 LIMIT 1);
		END IF;
		IF q.keep_failed IS NOT NULL THEN
			DELETE FROM event_queue.dead_letter WHERE job_id IN (
				SELECT d.job_id FROM event_queue.dead_letter d
				WHERE d.queue_id = q.queue_id AND d.died_at < clock_timestamp() - q.keep_failed
				FOR UPDATE SKIP LOCKED);
		END IF;
		IF q.keep_failed_count IS NOT NULL THEN
			DELETE FROM event_queue.dead_letter WHERE job_id IN (
				SELECT d.job_id FROM event_queue.dead_letter d
				WHERE d.queue_id = q.queue_id AND (d.died_at, d.job_id) < (
					SELECT k.died_at, k.job_id FROM event_queue.dead_letter k WHERE k.queue_id = q.queue_id
					ORDER BY k.died_at DESC, k.job_id DESC OFFSET q.keep_failed_count - 1 LIMIT 1)
				FOR UPDATE SKIP LOCKED);
		END IF;
	END LOOP;
	DELETE FROM event_queue.job_log l
	WHERE l.at < clock_timestamp() - greatest(coalesce(longest, '7 days'), '7 days')
	  AND NOT EXISTS (SELECT FROM event_queue.job j WHERE j.job_id = l.job_id)
	  AND NOT EXISTS (SELECT FROM event_queue.dead_letter d WHERE d.job_id = l.job_id);
	DELETE FROM event_queue.job_throttle t WHERE t.until < clock_timestamp();
	FOR q IN SELECT *, seen_at <= pg_snapshot_xmin(pg_current_snapshot()) AS is_over FROM event_queue.dropped_queue LOOP
		DELETE FROM event_queue.job WHERE queue_id = q.queue_id;
		DELETE FROM event_queue.dead_letter WHERE queue_id = q.queue_id;
		IF q.seen_at IS NULL THEN
			UPDATE event_queue.dropped_queue SET seen_at = pg_snapshot_xmax(pg_current_snapshot()) WHERE queue_id = q.queue_id;
		ELSIF q.is_over THEN
			DELETE FROM event_queue.dropped_queue WHERE queue_id = q.queue_id;
		END IF;
	END LOOP;
	DELETE FROM event_queue.job_dependency d
	WHERE NOT EXISTS (SELECT FROM event_queue.job j WHERE j.job_id = d.job_id)
	  AND NOT EXISTS (SELECT FROM event_queue.dead_letter l WHERE l.job_id = d.job_id);
END
$$;
COMMENT ON FUNCTION maintain_history() IS
'Internal. Removes what queues keep no longer by count, old dead letters, and what is left of jobs that are no more.';

/*
 * revive_dead_letters: what the functions below share.  The errors stay; a dead
 * letter whose unique_key is taken by a living job comes back without the key;
 * what it depended on is forgotten.
 */
CREATE FUNCTION revive_dead_letters(job_ids bigint[], payload jsonb DEFAULT NULL) RETURNS bigint
LANGUAGE plpgsql SET search_path = pg_catalog, event_queue, pg_temp AS $$
#variable_conflict use_column
DECLARE
	n bigint;
	tries int := 0;
BEGIN
	LOOP
		BEGIN
			WITH dead AS (
				DELETE FROM event_queue.dead_letter d
				WHERE d.job_id = ANY ($1) AND event_queue.tenant_visible(d.tenant_id)
				RETURNING d.*
			), forgotten AS (
				DELETE FROM event_queue.job_dependency x USING dead d WHERE x.job_id = d.job_id AND d.reason = 'dependency'
			), ranked AS (
				SELECT d.*, row_number() OVER (PARTITION BY d.queue_id, d.tenant_id, d.unique_key ORDER BY d.job_id) AS nth
				FROM dead d
			)
			INSERT INTO event_queue.job (job_id, queue_id, lane, tenant_id, name, priority, run_at, created_at,
				max_attempts, retry, time_limit, group_key, unique_key, has_dependents, payload, metadata, errors)
			SELECT d.job_id, d.queue_id, event_queue.job_lane(q.fair, d.tenant_id), d.tenant_id, d.name, d.priority,
				clock_timestamp(), d.created_at, d.max_attempts, d.retry, d.time_limit, d.group_key,
				CASE WHEN d.nth = 1 AND NOT EXISTS (SELECT FROM event_queue.job j
					WHERE j.queue_id = d.queue_id AND j.tenant_id = d.tenant_id AND j.unique_key = d.unique_key)
					THEN d.unique_key END,
				d.has_dependents, coalesce($2, d.payload), d.metadata, d.errors
			FROM ranked d JOIN event_queue.queue q USING (queue_id)
			ORDER BY d.job_id;
			GET DIAGNOSTICS n = ROW_COUNT;
			RETURN n;
		EXCEPTION WHEN unique_violation THEN
			-- Someone has just enqueued a job with one of the keys; now it can be seen.
			tries := tries + 1;
			IF tries >= 10 THEN
				RAISE;
			END IF;
		END;
	END LOOP;
END
$$;
COMMENT ON FUNCTION revive_dead_letters(bigint[], jsonb) IS 'Internal. What retry_dead and retry_all_dead share.';

/*
 * settle_dead_letters: what retry_all_dead and discard_all_dead share.  A thousand
 * at a time, from the oldest on: however many there are, memory holds a thousand.
 * Those that die meanwhile are left.
 */
CREATE FUNCTION settle_dead_letters(
	discard boolean, queue text, job_name text, tenant_id text, sqlstate text, died_after timestamptz, "limit" int,
	payload jsonb)
RETURNS bigint
LANGUAGE plpgsql SET search_path = pg_catalog, event_queue, pg_temp AS $$
#variable_conflict use_column
DECLARE
	this_queue int := event_queue.queue_id_of($2);
	until timestamptz := clock_timestamp();
	above_time timestamptz := coalesce($6, '-infinity');
	above_id bigint := 9223372036854775807;
	ids bigint[];
	n bigint;
	total bigint := 0;
BEGIN
	IF $4 IS NOT NULL THEN
		PERFORM event_queue.resolve_tenant($4);
	END IF;
	IF $7 < 0 THEN
		RAISE EXCEPTION USING ERRCODE = 'EQ009', MESSAGE = 'limit must not be negative';
	END IF;
	IF $8 IS NOT NULL THEN
		PERFORM event_queue.check_payload($8);
	END IF;
	LOOP
		SELECT array_agg(d.job_id ORDER BY d.died_at, d.job_id), max(d.died_at) INTO ids, above_time FROM (
			SELECT d.job_id, d.died_at FROM event_queue.dead_letter d
			WHERE d.queue_id = this_queue AND (d.died_at, d.job_id) > (above_time, above_id) AND d.died_at <= until
			  AND ($3 IS NULL OR d.name = $3) AND ($4 IS NULL OR d.tenant_id = $4)
			  AND ($5 IS NULL OR d.errors -> -1 ->> 'sqlstate' = $5) AND event_queue.tenant_visible(d.tenant_id)
			ORDER BY d.died_at, d.job_id LIMIT least(1000, $7 - total)) d;
		EXIT WHEN ids IS NULL;
		above_id := ids[cardinality(ids)];
		IF $1 THEN
			DELETE FROM event_queue.dead_letter d WHERE d.job_id = ANY (ids);
			GET DIAGNOSTICS n = ROW_COUNT;
			DELETE FROM event_queue.job_dependency x WHERE x.job_id = ANY (ids)
			  AND NOT EXISTS (SELECT FROM event_queue.job j WHERE j.job_id = x.job_id);
		ELSE
			n := event_queue.revive_dead_letters(ids, $8);
		END IF;
		total := total + n;
	END LOOP;
	RETURN total;
END
$$;
COMMENT ON FUNCTION settle_dead_letters(boolean, text, text, text, text, timestamptz, int, jsonb) IS
'Internal. What retry_all_dead and discard_all_dead share.';

/*
 * retry_dead: puts a dead letter back into its queue, due at once, with its
 * attempts counted anew and its errors kept.
 * Arguments: payload: a new one in place of the old; NULL: the old one.
 * Errors: EQ005 payload too large, EQ017 no such dead letter (or another
 * tenant's).
 */
CREATE FUNCTION retry_dead(job_id bigint, payload jsonb DEFAULT NULL) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, event_queue, pg_temp AS $$
BEGIN
	IF $2 IS NOT NULL THEN
		PERFORM event_queue.check_payload($2);
	END IF;
	IF event_queue.revive_dead_letters(ARRAY[$1], $2) = 0 THEN
		RAISE EXCEPTION USING ERRCODE = 'EQ017',
			MESSAGE = format('dead letter %s does not exist', $1),
			HINT = 'See the view event_queue.dead_letters.';
	END IF;
END
$$;
COMMENT ON FUNCTION retry_dead(bigint, jsonb) IS
'Puts a dead letter back into its queue, with a new payload if one is given; its attempts start anew, its errors stay.';

/*
 * retry_all_dead: retry_dead for dead letters of a queue, however many.
 * Arguments: job_name, tenant_id, sqlstate (of the last error) and died_after
 * narrow them down; limit: at most so many, the oldest first; payload: a new one
 * for all of them.  A session that is confined to a tenant reaches only that
 * tenant's.
 * Result: how many.
 * Errors: EQ003 another tenant, EQ005 payload too large, EQ009 negative limit,
 * EQ010 no such queue.
 */
CREATE FUNCTION retry_all_dead(
	queue text, job_name text DEFAULT NULL, tenant_id text DEFAULT NULL, sqlstate text DEFAULT NULL,
	died_after timestamptz DEFAULT NULL, "limit" int DEFAULT NULL, payload jsonb DEFAULT NULL)
RETURNS bigint
LANGUAGE sql SET search_path = pg_catalog, event_queue, pg_temp AS $$
	SELECT event_queue.settle_dead_letters(false, $1, $2, $3, $4, $5, $6, $7)
$$;
COMMENT ON FUNCTION retry_all_dead(text, text, text, text, timestamptz, int, jsonb) IS
'Puts dead letters of a queue back into it, all or those that the arguments name; returns how many.';

/*
 * discard_dead: deletes a dead letter for good; jobs that depend on it become
 * dead letters.
 * Errors: EQ017 no such dead letter (or another tenant's).
 */
CREATE FUNCTION discard_dead(job_id bigint) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, event_queue, pg_temp AS $$
#variable_conflict use_column
BEGIN
	DELETE FROM event_queue.dead_letter WHERE job_id = $1 AND event_queue.tenant_visible(tenant_id);
	IF NOT FOUND THEN
		RAISE EXCEPTION USING ERRCODE = 'EQ017',
			MESSAGE = format('dead letter %s does not exist', $1),
			HINT = 'See the view event_queue.dead_letters.';
	END IF;
	DELETE FROM event_queue.job_dependency WHERE job_id = $1;
END
$$;
COMMENT ON FUNCTION discard_dead(bigint) IS 'Deletes a dead letter for good.';

/*
 * discard_all_dead: discard_dead for dead letters of a queue, however many.
 * Arguments: as retry_all_dead, without payload.
 * Result: how many.  Errors: EQ003 another tenant, EQ009 negative limit, EQ010
 * no such queue.
 */
CREATE FUNCTION discard_all_dead(
	queue text, job_name text DEFAULT NULL, tenant_id text DEFAULT NULL, sqlstate text DEFAULT NULL,
	died_after timestamptz DEFAULT NULL, "limit" int DEFAULT NULL)
RETURNS bigint
LANGUAGE sql SET search_path = pg_catalog, event_queue, pg_temp AS $$
	SELECT event_queue.settle_dead_letters(true, $1, $2, $3, $4, $5, $6, NULL)
$$;
COMMENT ON FUNCTION discard_all_dead(text, text, text, text, timestamptz, int) IS
'Deletes dead letters of a queue for good, all or those that the arguments name; returns how many.';

CREATE VIEW dead_letters WITH (security_invoker = true) AS
	SELECT d.job_id, q.name AS queue, d.tenant_id, d.name, d.reason, d.died_at, d.created_at,
		d.failures, d.stalled, d.errors -> -1 ->> 'message' AS last_error,
		d.errors -> -1 ->> 'sqlstate' AS last_sqlstate, d.priority, d.group_key, d.payload, d.metadata, d.errors
	FROM event_queue.dead_letter d JOIN event_queue.queue q USING (queue_id);
COMMENT ON VIEW dead_letters IS 'Jobs that failed for good, with their last error and their whole history.';

/*
 * flow.sql: jobs that wait for other jobs: groups, dependencies, flows.
 *
 * Whoever may have unblocked a job writes a row into job_review in the same
 * transaction; the scheduler reads it after the commit and unblocks what is
 * next (review.c).  One process decides, on committed rows only, so that no two
 * sessions can disagree on whose turn it is.
 */

CREATE TABLE job_review (
	review_id	bigint GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY,
	queue_id	int,
	tenant_id	text COLLATE "C",
	group_key	text COLLATE "C",
	job_id		bigint
) WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_cost_delay = 0);
COMMENT ON TABLE job_review IS 'Internal. Groups whose next job may run, and jobs that may no longer wait for others.';
SELECT pg_catalog.pg_extension_config_dump('job_review', '');
SELECT pg_catalog.pg_extension_config_dump('job_review_review_id_seq', '');

/* Groups of queues with group_retry pass whose jobs all wait for their time. */
CREATE TABLE group_review_at (
	queue_id	int NOT NULL,
	tenant_id	text COLLATE "C" NOT NULL,
	group_key	text COLLATE "C" NOT NULL,
	review_at	timestamptz NOT NULL,
	PRIMARY KEY (queue_id, tenant_id, group_key)
);
COMMENT ON TABLE group_review_at IS 'Internal. When the scheduler is to look at a group again, whose jobs all wait for their next attempt.';
CREATE INDEX group_review_at_time ON group_review_at (review_at);
ALTER TABLE group_review_at ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant_isolation ON group_review_at USING (tenant_visible(tenant_id));

CREATE TABLE job_dependency (
	job_id			bigint NOT NULL,
	depends_on		bigint NOT NULL,
	tenant_id		text COLLATE "C" NOT NULL,
	name			text,
	completed_at	timestamptz,
	result			jsonb,
	PRIMARY KEY (job_id, depends_on)
);
COMMENT ON TABLE job_dependency IS 'Which jobs a job waits for, and their results; gone within a minute after the job.';
CREATE INDEX job_dependency_on ON job_dependency (depends_on) WHERE completed_at IS NULL;
ALTER TABLE job_dependency ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant_isolation ON job_dependency USING (tenant_visible(tenant_id));
SELECT pg_catalog.pg_extension_config_dump('job_dependency', '');

/* When a key of a queue with group_rate_limit may be claimed again. */
CREATE TABLE group_rate (
	queue_id		int NOT NULL,
	tenant_id		text COLLATE "C" NOT NULL,
	group_key		text COLLATE "C" NOT NULL,
	next_at			timestamptz NOT NULL,
	PRIMARY KEY (queue_id, tenant_id, group_key)
) WITH (fillfactor = 70);
COMMENT ON TABLE group_rate IS
'Internal. For each key of a queue with group_rate_limit, when the token bucket is full again.';
ALTER TABLE group_rate ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant_isolation ON group_rate USING (tenant_visible(tenant_id));

/* Jobs that come, or go, by plain SQL: a grouped one waits until the scheduler has looked. */
CREATE FUNCTION review_changed_job() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, event_queue, pg_temp AS $$
BEGIN
	IF TG_OP = 'DELETE' THEN
		INSERT INTO event_queue.job_review (queue_id, tenant_id, group_key)
		VALUES (OLD.queue_id, OLD.tenant_id, OLD.group_key);
		RETURN OLD;
	END IF;
	IF NEW.leased_until IS NULL THEN
		NEW.blocked := greatest(NEW.blocked, 1);
	END IF;
	INSERT INTO event_queue.job_review (queue_id, tenant_id, group_key)
	VALUES (NEW.queue_id, NEW.tenant_id, NEW.group_key);
	RETURN NEW;
END
$$;
COMMENT ON FUNCTION review_changed_job() IS
'Internal. Trigger: has the scheduler look at the group of a job that plain SQL wrote or deleted.';
CREATE TRIGGER review_new_job BEFORE INSERT ON job
	FOR EACH ROW WHEN (NEW.group_key IS NOT NULL) EXECUTE FUNCTION review_changed_job();
CREATE TRIGGER review_deleted_job AFTER DELETE ON job
	FOR EACH ROW WHEN (OLD.group_key IS NOT NULL) EXECUTE FUNCTION review_changed_job();

/*
 * Jobs and dead letters that plain SQL deletes (purge_queue, drop_queue,
 * keep_failed, discard_dead, whoever has the right) take with them what waits
 * for them.
 */
CREATE FUNCTION bury_dependents() RETURNS trigger
LANGUAGE C AS 'MODULE_PATHNAME', 'eq_bury_dependents';
COMMENT ON FUNCTION bury_dependents() IS
'Internal. Trigger: jobs that depend on one that plain SQL deleted become dead letters.';
CREATE TRIGGER bury_dependents AFTER DELETE ON job
	FOR EACH ROW WHEN (OLD.has_dependents) EXECUTE FUNCTION bury_dependents();
CREATE TRIGGER bury_dependents AFTER DELETE ON dead_letter
	FOR EACH ROW WHEN (OLD.has_dependents) EXECUTE FUNCTION bury_dependents();

/*
 * dependency_results: what the jobs that a job depended on have returned.
 * Result: a row for each, completed_at NULL while it is not finished.
 */
CREATE FUNCTION dependency_results(
	job_id bigint, OUT depends_on bigint, OUT name text, OUT completed_at timestamptz, OUT result jsonb)
RETURNS SETOF record
LANGUAGE sql STABLE SET search_path = pg_catalog, event_queue, pg_temp AS $$
	SELECT d.depends_on, d.name, d.completed_at, d.result FROM event_queue.job_dependency d
	WHERE d.job_id = $1 AND event_queue.tenant_visible(d.tenant_id) ORDER BY d.depends_on
$$;
COMMENT ON FUNCTION dependency_results(bigint) IS 'Results of the jobs that a job depends on.';

/*
 * enqueue_flow: a tree of jobs in one call; each waits for its children.
 * Arguments: flow is an object with the options of enqueue_jobs and "children",
 * an array of such objects; queue is for those that name none.
 * Result: the id of the job at the top.  Errors: as enqueue_jobs; EQ009 deeper
 * than 100 levels.
 */
CREATE FUNCTION enqueue_flow(flow jsonb, queue text DEFAULT NULL, tenant_id text DEFAULT NULL, level int DEFAULT 1) RETURNS bigint
LANGUAGE plpgsql SET search_path = pg_catalog, event_queue, pg_temp AS $$
DECLARE
	children bigint[];
BEGIN
	IF flow IS NULL OR jsonb_typeof(flow) <> 'object' OR coalesce(jsonb_typeof(flow -> 'children'), 'array') <> 'array' THEN
		RAISE EXCEPTION USING ERRCODE = 'EQ009', MESSAGE = 'a flow must be a JSON object, its children an array of such objects';
	END IF;
	IF level > 100 THEN
		RAISE EXCEPTION USING ERRCODE = 'EQ009', MESSAGE = 'a flow must not be deeper than 100 levels';
	END IF;
	children := ARRAY(SELECT event_queue.enqueue_flow(c, $2, $3, $4 + 1)
		FROM jsonb_array_elements(flow -> 'children') WITH ORDINALITY AS x (c, n) ORDER BY n);
	IF children <> '{}' THEN
		flow := flow || jsonb_build_object('depends_on', coalesce(flow -> 'depends_on', '[]') || to_jsonb(children));
	END IF;
	RETURN (SELECT event_queue.enqueue_jobs(jsonb_build_array(flow - 'children'), $2, $3));
END
$$;
COMMENT ON FUNCTION enqueue_flow(jsonb, text, text, int) IS
'Adds a tree of jobs, each of which waits for its children; returns the id of the one at the top.';

/*
 * enqueue_batch: jobs, and one that runs when all of them are finished.
 * Arguments: jobs as enqueue_jobs; finally: one more such object.
 * Result: the id of the last one; dependency_results of it has their results.
 */
CREATE FUNCTION enqueue_batch(jobs jsonb, finally jsonb, queue text DEFAULT NULL, tenant_id text DEFAULT NULL) RETURNS bigint
LANGUAGE sql SET search_path = pg_catalog, event_queue, pg_temp AS $$
	SELECT event_queue.enqueue_flow($2 || jsonb_build_object('children', $1), $3, $4)
$$;
COMMENT ON FUNCTION enqueue_batch(jsonb, jsonb, text, text) IS
'Adds jobs, and one that runs when all of them are finished; returns its id.';

/*
 * await_job: sleeps until a job is finished, dead or gone, or the time is over;
 * without a snapshot meanwhile.  CALL it by itself, outside a transaction block.
 * Arguments: timeout is how long at most; outcome: pass NULL.
 * Result: {"state": completed, dead, gone (finished and not kept, or cancelled)
 * or what the view jobs says, "result", "error"}.
 * Errors: EQ008 inside a transaction, EQ009 timeout.
 */
CREATE PROCEDURE await_job(job_id bigint, timeout interval, INOUT outcome jsonb DEFAULT NULL)
LANGUAGE C AS 'MODULE_PATHNAME', 'eq_await_job';
COMMENT ON PROCEDURE await_job(bigint, interval, jsonb) IS
'Sleeps until a job is finished, dead or gone, or the time is over; says which, with result or error.';

/* job_outcome: what await_job answers. */
CREATE FUNCTION job_outcome(job_id bigint) RETURNS jsonb
LANGUAGE sql VOLATILE SET search_path = pg_catalog, event_queue, pg_temp AS $$
	SELECT coalesce(
		(SELECT jsonb_build_object('state', j.state, 'progress', j.progress) FROM event_queue.jobs j
		 WHERE j.job_id = $1 AND event_queue.tenant_visible(j.tenant_id)),
		(SELECT jsonb_build_object('state', 'dead', 'error', d.errors -> -1) FROM event_queue.dead_letter d
		 WHERE d.job_id = $1 AND event_queue.tenant_visible(d.tenant_id)),
		(SELECT jsonb_build_object('state', 'completed', 'result', h.result) FROM event_queue.job_history h
		 WHERE h.job_id = $1 AND event_queue.tenant_visible(h.tenant_id) AND h.expires_at > now()
		 ORDER BY h.completed_at DESC LIMIT 1),
		'{"state": "gone"}')
$$;
COMMENT ON FUNCTION job_outcome(bigint) IS 'What became of a job: its state, with result or last error.';

/*
 * rules.sql: rules (event -> job or function) and handlers (job -> function).
 *
 * The scheduler reads events in order of position, tests each against the
 * rules, and enqueues what follows in the transaction that moves the
 * checkpoint: each event meets each rule exactly once.  User code other than
 * conditions never runs in the scheduler: a rule that calls a function, and a
 * condition that raised an error, become jobs of the queue "rule-calls", with
 * its retries and dead letters.
 */

CREATE TABLE rule (
	rule_id			int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	name			text NOT NULL CONSTRAINT rule_name_key UNIQUE,
	owner			text NOT NULL,
	tenant_id		text,
	event_pattern	text NOT NULL,
	condition		text,
	queue_id		int REFERENCES queue,
	job_name		text,
	payload			jsonb,
	delay			interval,
	priority		int NOT NULL DEFAULT 5,
	function		text,
	enabled			boolean NOT NULL DEFAULT true,
	start_position	bigint NOT NULL,
	created_at		timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE rule IS 'Automation rules; written by create_rule and its kin.';
COMMENT ON COLUMN rule.owner IS 'The role that created the rule; its condition and function run as this role.';
COMMENT ON COLUMN rule.start_position IS 'The rule applies to events above this position.';
CREATE TRIGGER config_changed AFTER INSERT OR UPDATE OR DELETE ON rule
	FOR EACH STATEMENT EXECUTE FUNCTION config_changed();
SELECT pg_catalog.pg_extension_config_dump('rule', '');
SELECT pg_catalog.pg_extension_config_dump('rule_rule_id_seq', '');

CREATE TABLE rule_checkpoint (
	one_row		boolean PRIMARY KEY DEFAULT true CHECK (one_row),
	position	bigint NOT NULL
);
COMMENT ON TABLE rule_checkpoint IS 'Internal. The last event that the rules have seen.';
SELECT pg_catalog.pg_extension_config_dump('rule_checkpoint', '');

CREATE TABLE handler (
	handler_id	int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	queue_id	int NOT NULL REFERENCES queue,
	job_name	text NOT NULL,
	owner		text NOT NULL,
	function	text NOT NULL,
	time_limit	interval NOT NULL,
	created_at	timestamptz NOT NULL DEFAULT now(),
	CONSTRAINT handler_job_key UNIQUE (queue_id, job_name)
);
COMMENT ON TABLE handler IS 'Functions that run jobs inside the database; written by register_handler.';
COMMENT ON COLUMN handler.owner IS 'The role that registered the handler; the function runs as this role.';
COMMENT ON COLUMN handler.time_limit IS 'A run that takes longer is cancelled and counts as failed.';
CREATE TRIGGER config_changed AFTER INSERT OR UPDATE OR DELETE ON handler
	FOR EACH STATEMENT EXECUTE FUNCTION config_changed();
SELECT pg_catalog.pg_extension_config_dump('handler', '');
SELECT pg_catalog.pg_extension_config_dump('handler_handler_id_seq', '');

INSERT INTO queue (name, sla) VALUES ('rule-calls', '10 seconds'), ('snapshots', '1 minute');

/*
 * event_matches: does an event type match a pattern, by EventEmitter2's rules:
 * segments split at dots, * is one segment, ** any number of them, also none.
 */
CREATE FUNCTION event_matches(event_type text, pattern text) RETURNS boolean
LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'eq_event_matches';
COMMENT ON FUNCTION event_matches(text, text) IS
'True if the event type matches the pattern: segments split at dots, * is one segment, ** any number.';

/*
 * map_payload: fills a payload template.  Each value of the object that is a
 * string starting with "$." is a JSON path into the event (absent: null); all
 * other values stand as they are.  A NULL mapping gives the whole event.
 */
CREATE FUNCTION map_payload(mapping jsonb, event jsonb) RETURNS jsonb
LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
	SELECT CASE WHEN $1 IS NULL THEN $2 ELSE coalesce(
		(SELECT jsonb_object_agg(m.key,
			CASE WHEN jsonb_typeof(m.value) = 'string' AND starts_with(m.value #>> '{}', '$.')
				 THEN coalesce(jsonb_path_query_first($2, (m.value #>> '{}')::jsonpath), 'null')
				 ELSE m.value END)
		 FROM jsonb_each($1) m), '{}') END
$$;
COMMENT ON FUNCTION map_payload(jsonb, jsonb) IS
'Fills a payload template: string values starting with "$." are JSON paths into the event.';

/*
 * event_as_json: what payload templates see of an event.
 */
CREATE FUNCTION event_as_json(event event_store) RETURNS jsonb
LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
	SELECT jsonb_build_object('position', ($1).position, 'id', ($1).id, 'tenant_id', ($1).tenant_id,
		'aggregate_type', ($1).aggregate_type, 'aggregate_id', ($1).aggregate_id, 'version', ($1).version,
		'event_type', ($1).event_type, 'data', ($1).event_data, 'metadata', ($1).metadata,
		'created_at', ($1).created_at)
$$;
COMMENT ON FUNCTION event_as_json(event_store) IS
'An event as JSON: position, id, tenant_id, aggregate_type, aggregate_id, version, event_type, data, metadata, created_at.';

/*
 * create_rule: from now on, every event that matches does the action.
 *
 * Arguments: event_pattern as in event_matches; condition is a SQL boolean
 * expression over the event's columns (event_data ->> 'step' = 'won'), run as
 * the rule's owner and without writing; NULL: always.  Action: either queue and
 * job_name (with payload, a template of map_payload; delay; priority), or
 * function, which takes one argument of type event_queue.event_store and is run
 * in a job of its own.  tenant_id: only events of this tenant.
 * Result: the rule's number.
 * Errors: EQ003 tenant, EQ006 name, EQ010 no such queue, EQ014 delay, EQ015
 * priority, EQ018 the rule exists, EQ019 no action or two, EQ020 no such
 * function, EQ021 wrong signature, EQ022 condition, EQ023 pattern, EQ024
 * payload template.
 */
CREATE FUNCTION create_rule(
	name text, event_pattern text, condition text DEFAULT NULL,
	queue text DEFAULT NULL, job_name text DEFAULT NULL, payload jsonb DEFAULT NULL,
	delay interval DEFAULT NULL, priority int DEFAULT 5,
	function text DEFAULT NULL, tenant_id text DEFAULT NULL)
RETURNS int
LANGUAGE C VOLATILE AS 'MODULE_PATHNAME', 'eq_create_rule';
COMMENT ON FUNCTION create_rule(text, text, text, text, text, jsonb, interval, int, text, text) IS
'Creates an automation rule: events that match the pattern and the condition enqueue a job or call a function.';

/* set_rule_enabled: switches a rule off and on; off, it misses the events. */
CREATE FUNCTION set_rule_enabled(name text, enabled boolean) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, event_queue, pg_temp AS $$
#variable_conflict use_column
BEGIN
	UPDATE event_queue.rule r
	SET enabled = $2,
		start_position = CASE WHEN $2 AND NOT r.enabled THEN event_queue.last_position() ELSE r.start_position END
	WHERE r.name = $1;
	IF NOT FOUND THEN
		RAISE EXCEPTION USING ERRCODE = 'EQ025', MESSAGE = format('rule "%s" does not exist', $1);
	END IF;
END
$$;
COMMENT ON FUNCTION set_rule_enabled(text, boolean) IS
'Switches a rule off or on; events that come while it is off are not caught up. EQ025 if there is no such rule.';

/* drop_rule: removes a rule. Errors: EQ025 no such rule. */
CREATE FUNCTION drop_rule(name text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, event_queue, pg_temp AS $$
#variable_conflict use_column
BEGIN
	DELETE FROM event_queue.rule WHERE name = $1;
	IF NOT FOUND THEN
		RAISE EXCEPTION USING ERRCODE = 'EQ025', MESSAGE = format('rule "%s" does not exist', $1);
	END IF;
END
$$;
COMMENT ON FUNCTION drop_rule(text) IS 'Removes a rule; jobs that it made stay. EQ025 if there is no such rule.';

CREATE FUNCTION last_position() RETURNS bigint
LANGUAGE C VOLATILE AS 'MODULE_PATHNAME', 'eq_last_position_sql';
COMMENT ON FUNCTION last_position() IS 'The highest position that any append has taken, committed or not.';

/*
 * register_handler: has the executors run a queue's jobs inside the database.
 *
 * Arguments: job_name '*' is every job of the queue that has no handler of its
 * own; function takes one argument of type event_queue.claimed_job and returns
 * void or jsonb (the job's result); it is found by the caller's search_path and
 * runs as the caller, with search_path pg_catalog and its own schema.
 * time_limit defaults to nine tenths of the queue's lease.
 * Registering the same queue and job name again replaces the handler.
 * Errors: EQ006 name, EQ010 no such queue, EQ020 no such function, EQ021 wrong
 * signature, EQ026 time_limit not positive, 42501 no right to call it.
 */
CREATE FUNCTION register_handler(
	queue text, job_name text, function text, time_limit interval DEFAULT NULL)
RETURNS int
LANGUAGE C VOLATILE AS 'MODULE_PATHNAME', 'eq_register_handler';
COMMENT ON FUNCTION register_handler(text, text, text, interval) IS
'Has the background workers run jobs of a queue by a SQL function that takes an event_queue.claimed_job.';

/* unregister_handler: undoes register_handler. Errors: EQ010, EQ025. */
CREATE FUNCTION unregister_handler(queue text, job_name text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, event_queue, pg_temp AS $$
#variable_conflict use_column
BEGIN
	DELETE FROM event_queue.handler h
	WHERE h.queue_id = event_queue.queue_id_of($1) AND h.job_name = $2;
	IF NOT FOUND THEN
		RAISE EXCEPTION USING ERRCODE = 'EQ025',
			MESSAGE = format('queue "%s" has no handler for job "%s"', $1, $2);
	END IF;
END
$$;
COMMENT ON FUNCTION unregister_handler(text, text) IS
'Removes a handler; its jobs wait for another one or for outside workers.';

CREATE VIEW rules AS
	SELECT r.rule_id, r.name, r.owner, r.tenant_id, r.event_pattern, r.condition,
		q.name AS queue, r.job_name, r.payload, r.delay, r.priority, r.function, r.enabled, r.start_position, r.created_at
	FROM event_queue.rule r LEFT JOIN event_queue.queue q USING (queue_id);
COMMENT ON VIEW rules IS 'Automation rules.';

CREATE VIEW handlers AS
	SELECT h.handler_id, q.name AS queue, h.job_name, h.owner, h.function, h.time_limit, h.created_at
	FROM event_queue.handler h JOIN event_queue.queue q USING (queue_id);
COMMENT ON VIEW handlers IS 'Functions that run jobs inside the database.';

/*
 * schedule.sql: jobs that come by the clock.
 *
 * The scheduler calls run_due_schedules whenever it wakes.  Runs that were
 * missed (the server was down) are made up for by one job, not by all of them.
 */

/*
 * cron_next: when an expression is due next; NULL if never (30 February).
 * Arguments: expression of five fields, or @hourly to @yearly; its times are
 * local times of time_zone (cron.c says what daylight saving does to them).
 * Errors: EQ030 bad expression, EQ031 no such time zone.
 */
CREATE FUNCTION cron_next(expression text, time_zone text DEFAULT 'UTC', "after" timestamptz DEFAULT now())
RETURNS timestamptz
LANGUAGE C STABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'eq_cron_next_sql';
COMMENT ON FUNCTION cron_next(text, text, timestamptz) IS
'When a cron expression is due next, in a time zone; NULL if never.';

CREATE TABLE schedule (
	schedule_id	int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	name		text NOT NULL CONSTRAINT schedule_name_key UNIQUE,
	cron		text NOT NULL,
	time_zone	text NOT NULL,
	queue_id	int NOT NULL REFERENCES queue,
	job_name	text NOT NULL,
	payload		jsonb NOT NULL,
	priority	int NOT NULL,
	tenant_id	text COLLATE "C" NOT NULL,
	enabled		boolean NOT NULL DEFAULT true,
	next_run	timestamptz,
	last_run	timestamptz,
	created_at	timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE schedule IS 'Jobs that come by the clock; written by create_schedule and its kin.';
CREATE TRIGGER config_changed AFTER INSERT OR DELETE OR UPDATE OF cron, time_zone, enabled, queue_id ON schedule
	FOR EACH STATEMENT EXECUTE FUNCTION config_changed();
ALTER TABLE schedule ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant_isolation ON schedule USING (tenant_visible(tenant_id));
SELECT pg_catalog.pg_extension_config_dump('schedule', '');
SELECT pg_catalog.pg_extension_config_dump('schedule_schedule_id_seq', '');

/*
 * create_schedule: enqueues a job each time that the expression is due.
 * Arguments: as cron_next and enqueue.
 * Result: the schedule's number.
 * Errors: EQ003/EQ004 tenant, EQ006 name, EQ010 no such queue, EQ015 priority,
 * EQ018 the schedule exists, EQ030 expression, EQ031 time zone.
 */
CREATE FUNCTION create_schedule(
	name text, cron text, queue text, job_name text, payload jsonb DEFAULT '{}',
	time_zone text DEFAULT 'UTC', priority int DEFAULT 5, tenant_id text DEFAULT NULL)
RETURNS int
LANGUAGE plpgsql SET search_path = pg_catalog, event_queue, pg_temp AS $$
#variable_conflict use_variable
DECLARE
	new_id int;
BEGIN
	PERFORM event_queue.check_name('schedule name', name);
	PERFORM event_queue.check_name('job name', job_name);
	IF priority IS NULL OR priority NOT BETWEEN 0 AND 9 THEN
		RAISE EXCEPTION USING ERRCODE = 'EQ015', MESSAGE = format('priority %s is out of range', priority),
			HINT = 'Priorities go from 0 (first) to 9 (last).';
	END IF;
	INSERT INTO event_queue.schedule AS s (name, cron, time_zone, queue_id, job_name, payload, priority, tenant_id, next_run)
	VALUES (name, cron, time_zone, event_queue.queue_id_of(queue), job_name, coalesce(payload, '{}'), priority,
		event_queue.resolve_tenant(tenant_id), event_queue.cron_next(cron, time_zone, clock_timestamp()))
	ON CONFLICT ON CONSTRAINT schedule_name_key DO NOTHING
	RETURNING s.schedule_id INTO new_id;
	IF new_id IS NULL THEN
		RAISE EXCEPTION USING ERRCODE = 'EQ018', MESSAGE = format('schedule "%s" already exists', name);
	END IF;
	RETURN new_id;
END
$$;
COMMENT ON FUNCTION create_schedule(text, text, text, text, jsonb, text, int, text) IS
'Enqueues a job by the clock: a cron expression in a time zone.';

/* set_schedule_enabled: switches a schedule off and on; what it misses is not made up for. Errors: EQ025. */
CREATE FUNCTION set_schedule_enabled(name text, enabled boolean) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, event_queue, pg_temp AS $$
#variable_conflict use_column
BEGIN
	UPDATE event_queue.schedule s
	SET enabled = $2, next_run = event_queue.cron_next(s.cron, s.time_zone, clock_timestamp())
	WHERE s.name = $1;
	IF NOT FOUND THEN
		RAISE EXCEPTION USING ERRCODE = 'EQ025', MESSAGE = format('schedule "%s" does not exist', $1);
	END IF;
END
$$;
COMMENT ON FUNCTION set_schedule_enabled(text, boolean) IS 'Switches a schedule off or on. EQ025 if there is no such schedule.';

/* drop_schedule: removes a schedule. Errors: EQ025 no such schedule. */
CREATE FUNCTION drop_schedule(name text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, event_queue, pg_temp AS $$
#variable_conflict use_column
BEGIN
	DELETE FROM event_queue.schedule WHERE name = $1;
	IF NOT FOUND THEN
		RAISE EXCEPTION USING ERRCODE = 'EQ025', MESSAGE = format('schedule "%s" does not exist', $1);
	END IF;
END
$$;
COMMENT ON FUNCTION drop_schedule(text) IS 'Removes a schedule; jobs that it made stay. EQ025 if there is no such schedule.';

/*
 * run_due_schedules: for the scheduler.  One job for each schedule that is due;
 * an error in one hurts no other.  Result: when the next one is due.
 */
CREATE FUNCTION run_due_schedules() RETURNS timestamptz
LANGUAGE plpgsql SET search_path = pg_catalog, event_queue, pg_temp AS $$
DECLARE
	due event_queue.schedule;
BEGIN
	FOR due IN
		SELECT * FROM event_queue.schedule
		WHERE enabled AND next_run <= clock_timestamp()
		ORDER BY next_run FOR UPDATE SKIP LOCKED
	LOOP
		BEGIN
			PERFORM event_queue.enqueue(
				(SELECT q.name FROM event_queue.queue q WHERE q.queue_id = due.queue_id),
				due.job_name, due.payload, priority => due.priority, tenant_id => due.tenant_id,
				metadata => jsonb_build_object('schedule', due.name, 'scheduled_for', due.next_run));
		EXCEPTION WHEN OTHERS THEN
			RAISE WARNING 'schedule "%" failed: %', due.name, SQLERRM;
		END;
		UPDATE event_queue.schedule s
		SET last_run = clock_timestamp(), next_run = event_queue.cron_next(s.cron, s.time_zone, clock_timestamp())
		WHERE s.schedule_id = due.schedule_id;
	END LOOP;
	RETURN (SELECT min(s.next_run) FROM event_queue.schedule s WHERE s.enabled);
END
$$;
COMMENT ON FUNCTION run_due_schedules() IS 'Internal. Enqueues the jobs of all schedules that are due; returns when the next one is.';

CREATE VIEW schedules WITH (security_invoker = true) AS
	SELECT s.schedule_id, s.name, s.cron, s.time_zone, q.name AS queue, s.job_name, s.payload, s.priority,
		s.tenant_id, s.enabled, s.next_run, s.last_run, s.created_at
	FROM event_queue.schedule s JOIN event_queue.queue q USING (queue_id);
COMMENT ON VIEW schedules IS 'Jobs that come by the clock, with their next and last run.';

/*
 * lineage.sql: following a chain of causes: event -> rule -> job -> event.
 *
 * What it stands on: an event that was caused by another has its id in
 * metadata.causation_id (and the job's in job_id), a job the event's in
 * metadata.event_id; lineage.c puts them there.  Only such rows are in these
 * indexes (that of job_history is in dead.sql).
 */

CREATE INDEX event_store_caused_by ON event_store ((metadata ->> 'causation_id')) WHERE metadata ? 'causation_id';
CREATE INDEX job_caused_by ON job ((metadata ->> 'event_id')) WHERE metadata ? 'event_id';
CREATE INDEX dead_letter_caused_by ON dead_letter ((metadata ->> 'event_id')) WHERE metadata ? 'event_id';

/*
 * trace: what led to an event, and what came of it.
 *
 * Result: one row for each event, rule and job of the chain; depth is 0 for the
 * event asked for, negative for what led to it, positive for what followed.
 * kind is event, rule or job; caused_by names the row above it ("event ID",
 * "rule NAME", "job ID"); detail: of a job its state (waiting, leased, done,
 * dead, or not kept: finished and not in the history) and last error.
 * Errors: EQ003 tenant, EQ025 no such event.
 * Isolation: by the statement's snapshot.  Invoker's rights and row security.
 */
CREATE FUNCTION trace(
	event_id uuid, tenant_id text DEFAULT NULL,
	OUT depth int, OUT kind text, OUT id text, OUT name text, OUT caused_by text, OUT at timestamptz, OUT detail jsonb)
RETURNS SETOF record
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, event_queue, pg_temp AS $$
#variable_conflict use_column
DECLARE
	tenant text := event_queue.resolve_tenant($2);
BEGIN
	IF NOT EXISTS (SELECT FROM event_queue.event_store e WHERE e.id = $1 AND e.tenant_id = tenant) THEN
		RAISE EXCEPTION USING ERRCODE = 'EQ025', MESSAGE = format('event %s does not exist', $1);
	END IF;
	RETURN QUERY
	WITH RECURSIVE up AS (
		SELECT e.*, 0 AS depth FROM event_queue.event_store e WHERE e.id = $1 AND e.tenant_id = tenant
		UNION ALL
		SELECT e.*, up.depth - 1
		FROM up JOIN event_queue.event_store e ON e.tenant_id = tenant AND e.id =
			CASE WHEN up.metadata ->> 'causation_id' ~ '^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$'
				 THEN (up.metadata ->> 'causation_id')::uuid END
		WHERE up.depth > -100
	), down AS (
		SELECT up.* FROM up WHERE up.depth = 0
		UNION ALL
		SELECT e.*, down.depth + 1
		FROM down JOIN event_queue.event_store e
			ON e.metadata ? 'causation_id' AND e.metadata ->> 'causation_id' = down.id::text AND e.tenant_id = tenant
		WHERE down.depth < 100
	), event AS (
		SELECT * FROM up UNION ALL SELECT * FROM down WHERE down.depth > 0
	), of_event AS (	-- jobs of the chain's events; of earlier events only those that led here
		SELECT j.job_id::text AS job_id, j.name, j.metadata, j.created_at, e.depth, j.state, j.errors
		FROM event e, LATERAL (
			SELECT w.job_id, w.name, w.metadata, w.created_at, w.errors,
				CASE WHEN w.leased_until > clock_timestamp() THEN 'leased' ELSE 'waiting' END AS state
			FROM event_queue.job w WHERE w.metadata ? 'event_id' AND w.metadata ->> 'event_id' = e.id::text
				AND w.tenant_id = tenant
			UNION ALL
			SELECT h.job_id, h.name, h.metadata, h.created_at, h.errors, 'done'
			FROM event_queue.job_history h WHERE h.metadata ? 'event_id' AND h.metadata ->> 'event_id' = e.id::text
				AND h.tenant_id = tenant AND h.expires_at > now()
			UNION ALL
			SELECT d.job_id, d.name, d.metadata, d.created_at, d.errors, 'dead'
			FROM event_queue.dead_letter d WHERE d.metadata ? 'event_id' AND d.metadata ->> 'event_id' = e.id::text
				AND d.tenant_id = tenant) j
		WHERE e.depth >= 0
		   OR j.job_id::text IN (SELECT unnest(ARRAY[u.metadata ->> 'job_id', u.metadata ->> 'parent_job'])
				FROM up u WHERE u.depth = e.depth + 1)
	), job AS (
		SELECT * FROM of_event
		UNION ALL	-- finished and not kept: known by the events that they appended
		SELECT DISTINCT ON (e.metadata ->> 'job_id')
			e.metadata ->> 'job_id', NULL, jsonb_build_object('event_id', e.metadata -> 'causation_id')
				|| CASE WHEN e.metadata ? 'rule' THEN jsonb_build_object('rule', e.metadata -> 'rule') ELSE '{}' END
				|| CASE WHEN e.metadata ? 'parent_job' THEN jsonb_build_object('parent_job', e.metadata -> 'parent_job')
					ELSE '{}' END,
			e.created_at, e.depth - 1, 'not kept', NULL
		FROM event e
		WHERE e.metadata ? 'job_id' AND e.metadata ->> 'job_id' NOT IN (SELECT o.job_id FROM of_event o)
	), line AS (
		SELECT e.depth, 1 AS place, 'event' AS kind, e.id::text AS id, e.event_type AS name,
			CASE WHEN e.metadata ? 'job_id' THEN 'job ' || (e.metadata ->> 'job_id')
				 WHEN e.metadata ? 'causation_id' THEN 'event ' || (e.metadata ->> 'causation_id') END AS caused_by,
			e.created_at AS at,
			jsonb_build_object('position', e.position, 'aggregate_type', e.aggregate_type,
				'aggregate_id', e.aggregate_id, 'version', e.version, 'actor', e.metadata -> 'actor') AS detail
		FROM event e
		UNION ALL
		SELECT DISTINCT ON (j.depth, j.metadata ->> 'rule', j.metadata ->> 'event_id')
			j.depth, 2, 'rule', j.metadata ->> 'rule', j.metadata ->> 'rule',
			'event ' || (j.metadata ->> 'event_id'), j.created_at, NULL
		FROM job j WHERE j.metadata ? 'rule'
		UNION ALL
		SELECT j.depth, 3, 'job', j.job_id, j.name,
			CASE WHEN j.metadata ? 'parent_job' THEN 'job ' || (j.metadata ->> 'parent_job')
				 WHEN j.metadata ? 'rule' THEN 'rule ' || (j.metadata ->> 'rule')
				 ELSE 'event ' || (j.metadata ->> 'event_id') END,
			j.created_at, jsonb_build_object('state', j.state) ||
				CASE WHEN jsonb_array_length(j.errors) > 0 THEN jsonb_build_object('last_error', j.errors -> -1) ELSE '{}' END
		FROM job j
	)
	SELECT l.depth, l.kind, l.id, l.name, l.caused_by, l.at, l.detail
	FROM line l ORDER BY l.depth, l.place, l.at, l.id;
END
$$;
COMMENT ON FUNCTION trace(uuid, text) IS
'What led to an event and what came of it: events, rules and jobs, each with what caused it.';

/*
 * subscription.sql: named consumers of events, with checkpoints.
 */

CREATE TABLE subscription (
	subscription_id	int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	name			text NOT NULL CONSTRAINT subscription_name_key UNIQUE,
	tenant_id		text,
	filter			jsonb,
	buckets			int NOT NULL CHECK (buckets BETWEEN 1 AND 64),
	created_at		timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE subscription IS 'Named consumers of events; written by create_subscription.';
COMMENT ON COLUMN subscription.buckets IS '1: one consumer at a time; more: a group whose members share so many buckets of aggregates.';
ALTER TABLE subscription ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant_isolation ON subscription USING (tenant_visible(tenant_id));
SELECT pg_catalog.pg_extension_config_dump('subscription', '');
SELECT pg_catalog.pg_extension_config_dump('subscription_subscription_id_seq', '');

CREATE TABLE subscription_bucket (
	subscription_id	int NOT NULL REFERENCES subscription ON DELETE CASCADE,
	bucket			int NOT NULL,
	position		bigint NOT NULL,
	moved_at		timestamptz NOT NULL DEFAULT now(),
	PRIMARY KEY (subscription_id, bucket)
) WITH (fillfactor = 50);
COMMENT ON TABLE subscription_bucket IS 'Checkpoints: the consumer is done with all events up to position.';
SELECT pg_catalog.pg_extension_config_dump('subscription_bucket', '');

CREATE TABLE subscription_parked (
	subscription_id	int NOT NULL REFERENCES subscription ON DELETE CASCADE,
	tenant_id		text COLLATE "C" NOT NULL,
	aggregate_type	text COLLATE "C" NOT NULL,
	aggregate_id	text COLLATE "C" NOT NULL,
	position		bigint NOT NULL,
	resume_after	bigint,
	error			text,
	retry			boolean NOT NULL DEFAULT false,
	parked_at		timestamptz NOT NULL DEFAULT now(),
	PRIMARY KEY (subscription_id, aggregate_id, aggregate_type, tenant_id)
);
COMMENT ON TABLE subscription_parked IS
'Aggregates whose events a consumer could not digest: from position on they wait until retry_parked.';
ALTER TABLE subscription_parked ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant_isolation ON subscription_parked USING (tenant_visible(tenant_id));
SELECT pg_catalog.pg_extension_config_dump('subscription_parked', '');

/*
 * create_subscription: a consumer that the store keeps the place of.
 *
 * Arguments: filter as in read_all; start: after which position it begins (0:
 * with the first event; NULL: with what comes from now on); buckets: 1 for one
 * consumer, up to 64 for a group: members share the buckets, each aggregate
 * belongs to one, and its order is kept; tenant_id: only this tenant's events.
 * Result: the subscription's number.
 * Errors: EQ003 tenant, EQ006 name, EQ009 filter, start or buckets, EQ018 it
 * exists.
 */
CREATE FUNCTION create_subscription(
	name text, filter jsonb DEFAULT NULL, start bigint DEFAULT 0, buckets int DEFAULT 1, tenant_id text DEFAULT NULL)
RETURNS int
LANGUAGE plpgsql SET search_path = pg_catalog, event_queue, pg_temp AS $$
#variable_conflict use_column
DECLARE
	tenant text := CASE WHEN $5 IS NULL THEN event_queue.current_tenant() ELSE event_queue.resolve_tenant($5) END;
	new_id int;
BEGIN
	PERFORM event_queue.check_name('subscription name', $1);
	PERFORM event_queue.check_filter($2);
	IF $4 IS NULL OR $4 NOT BETWEEN 1 AND 64 THEN
		RAISE EXCEPTION USING ERRCODE = 'EQ009', MESSAGE = 'buckets must be between 1 and 64';
	END IF;
	IF $3 < 0 THEN
		RAISE EXCEPTION USING ERRCODE = 'EQ009', MESSAGE = 'start must not be negative';
	END IF;
	INSERT INTO event_queue.subscription (name, tenant_id, filter, buckets) VALUES ($1, tenant, $2, $4)
	ON CONFLICT DO NOTHING RETURNING subscription_id INTO new_id;
	IF new_id IS NULL THEN
		RAISE EXCEPTION USING ERRCODE = 'EQ018', MESSAGE = format('subscription "%s" already exists', $1);
	END IF;
	INSERT INTO event_queue.subscription_bucket (subscription_id, bucket, position)
	SELECT new_id, b, coalesce($3, event_queue.watermark()) FROM generate_series(0, $4 - 1) b;
	RETURN new_id;
END
$$;
COMMENT ON FUNCTION create_subscription(text, jsonb, bigint, int, text) IS
'Creates a consumer of events with a checkpoint; buckets > 1 makes it a group whose members share the aggregates.';

CREATE FUNCTION subscription_id_of(name text) RETURNS int
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, event_queue, pg_temp AS $$
#variable_conflict use_column
DECLARE
	found_id int := (SELECT s.subscription_id FROM event_queue.subscription s
		WHERE s.name = $1 AND event_queue.tenant_visible(s.tenant_id));
BEGIN
	IF found_id IS NULL THEN
		RAISE EXCEPTION USING ERRCODE = 'EQ025', MESSAGE = format('subscription "%s" does not exist', $1);
	END IF;
	RETURN found_id;
END
$$;
COMMENT ON FUNCTION subscription_id_of(text) IS 'Internal. A subscription''s number, or EQ025.';

/* drop_subscription: forgets a consumer and its place. Errors: EQ025. */
CREATE FUNCTION drop_subscription(name text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, event_queue, pg_temp AS $$
BEGIN
	DELETE FROM event_queue.subscription s WHERE s.subscription_id = event_queue.subscription_id_of($1);
END
$$;
COMMENT ON FUNCTION drop_subscription(text) IS 'Removes a subscription and its checkpoints. EQ025 if there is none.';

/*
 * reset_subscription: its consumer begins again after a position (0: with the
 * first event); parked aggregates are no longer parked.  Errors: EQ009, EQ025.
 */
CREATE FUNCTION reset_subscription(name text, "position" bigint DEFAULT 0) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, event_queue, pg_temp AS $$
#variable_conflict use_column
DECLARE
	this_id int := event_queue.subscription_id_of($1);
BEGIN
	IF $2 IS NULL OR $2 < 0 OR $2 > event_queue.watermark() THEN
		RAISE EXCEPTION USING ERRCODE = 'EQ009', MESSAGE = 'position must be from 0 to the watermark';
	END IF;
	UPDATE event_queue.subscription_bucket b SET position = $2, moved_at = clock_timestamp()
	WHERE b.subscription_id = this_id;
	DELETE FROM event_queue.subscription_parked p WHERE p.subscription_id = this_id;
END
$$;
COMMENT ON FUNCTION reset_subscription(text, bigint) IS
'Moves a subscription to a position, back or ahead, and parks nothing any more.';

/*
 * fetch_events: the next events for a consumer, in order of position.
 *
 * Without ack they come again.  With one bucket, whoever fetches holds the
 * subscription until its transaction ends, and others wait: fetch, work and ack
 * in one transaction and each event is worked on exactly once.  With more
 * buckets, the session becomes a member of the group until it ends (or
 * leave_subscription): it gets the events of its share of the aggregates, and
 * may ack in a later transaction.  Members need sessions of their own: not
 * through a pooler in transaction mode.
 * Arguments: limit is 1 to 100000.
 * Errors: EQ009 limit, EQ025 no such subscription.
 * Isolation: as read_all.
 */
CREATE FUNCTION fetch_events(name text, "limit" int DEFAULT 100) RETURNS SETOF event_store
LANGUAGE C VOLATILE ROWS 100 AS 'MODULE_PATHNAME', 'eq_fetch_events';
COMMENT ON FUNCTION fetch_events(text, int) IS
'The next events of a subscription; they come again until ack.';

/*
 * ack: done with all events up to a position, in the caller's transaction.
 * Positions below the checkpoint change nothing.
 * Errors: EQ025 no such subscription, EQ029 the position was not fetched, 40001
 * above READ COMMITTED if another transaction moved the checkpoint.
 */
CREATE FUNCTION ack(name text, "position" bigint) RETURNS void
LANGUAGE C VOLATILE AS 'MODULE_PATHNAME', 'eq_ack';
COMMENT ON FUNCTION ack(text, bigint) IS
'Moves a subscription''s checkpoint: its consumer is done with all events up to the position.';

/* leave_subscription: the session's share goes to the other members at once. */
CREATE FUNCTION leave_subscription(name text) RETURNS void
LANGUAGE C VOLATILE AS 'MODULE_PATHNAME', 'eq_leave_subscription';
COMMENT ON FUNCTION leave_subscription(text) IS
'Takes the session out of a subscription''s group; the end of the session does it, too.';

CREATE FUNCTION subscription_members(OUT subscription_id int, OUT pid int, OUT buckets int) RETURNS SETOF record
LANGUAGE C VOLATILE AS 'MODULE_PATHNAME', 'eq_subscription_members';
COMMENT ON FUNCTION subscription_members() IS 'Sessions that are members of groups, with how many buckets each has.';

CREATE FUNCTION event_bucket(tenant_id text, aggregate_type text, aggregate_id text, buckets int) RETURNS int
LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'eq_event_bucket';
COMMENT ON FUNCTION event_bucket(text, text, text, int) IS
'The bucket that an aggregate belongs to, in a subscription with so many.';

/*
 * park_event: sets the aggregate of an event aside for a subscription, and
 * acknowledges all before it.  Its later events are kept from the consumer and
 * wait; all other aggregates go on.  Drop what is left of the batch and fetch
 * again.
 * Arguments: position of the event that could not be digested; error: why.
 * Errors: EQ025 no such subscription or event; EQ029 as ack.
 */
CREATE FUNCTION park_event(name text, "position" bigint, error text DEFAULT NULL) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, event_queue, pg_temp AS $$
#variable_conflict use_column
DECLARE
	this_id int := event_queue.subscription_id_of($1);
	event event_queue.event_store;
BEGIN
	SELECT e.* INTO event FROM event_queue.event_store e WHERE e.position = $2;
	IF NOT FOUND THEN
		RAISE EXCEPTION USING ERRCODE = 'EQ025', MESSAGE = format('there is no event at position %s', $2);
	END IF;
	INSERT INTO event_queue.subscription_parked
		(subscription_id, tenant_id, aggregate_type, aggregate_id, position, error)
	VALUES (this_id, event.tenant_id, event.aggregate_type, event.aggregate_id, $2, $3)
	ON CONFLICT (subscription_id, aggregate_id, aggregate_type, tenant_id) DO UPDATE
	SET error = excluded.error, retry = false, resume_after = NULL, parked_at = now();
	PERFORM event_queue.ack($1, $2);
END
$$;
COMMENT ON FUNCTION park_event(text, bigint, text) IS
'Sets the aggregate of a poison event aside for a subscription; all others go on.';

/*
 * retry_parked: a parked aggregate may be tried again, by fetch_parked.
 * Result: how many.  NULL arguments: all.  Errors: EQ025.
 */
CREATE FUNCTION retry_parked(name text, aggregate_type text DEFAULT NULL, aggregate_id text DEFAULT NULL) RETURNS int
LANGUAGE plpgsql SET search_path = pg_catalog, event_queue, pg_temp AS $$
#variable_conflict use_column
DECLARE
	n int;
BEGIN
	UPDATE event_queue.subscription_parked p SET retry = true
	WHERE p.subscription_id = event_queue.subscription_id_of($1)
	  AND p.aggregate_type = coalesce($2, p.aggregate_type) AND p.aggregate_id = coalesce($3, p.aggregate_id);
	GET DIAGNOSTICS n = ROW_COUNT;
	RETURN n;
END
$$;
COMMENT ON FUNCTION retry_parked(text, text, text) IS 'Lets parked aggregates of a subscription be fetched by fetch_parked.';

CREATE FUNCTION parked_events(name text, aggregate_type text, aggregate_id text, tenant_id text) RETURNS SETOF event_store
LANGUAGE sql STABLE SET search_path = pg_catalog, event_queue, pg_temp AS $$
	SELECT e.*
	FROM event_queue.subscription s
	JOIN event_queue.subscription_parked p ON p.subscription_id = s.subscription_id
	JOIN event_queue.subscription_bucket b ON b.subscription_id = s.subscription_id
		AND b.bucket = event_queue.event_bucket(p.tenant_id, p.aggregate_type, p.aggregate_id, s.buckets)
	JOIN event_queue.event_store e ON e.aggregate_id = p.aggregate_id AND e.aggregate_type = p.aggregate_type
		AND e.tenant_id = p.tenant_id AND e.position >= p.position AND e.position <= b.position
	WHERE s.name = $1 AND p.aggregate_type = $2 AND p.aggregate_id = $3 AND p.tenant_id = $4
	  AND event_queue.matches_filter(e, s.filter)
	ORDER BY e.position
$$;
COMMENT ON FUNCTION parked_events(text, text, text, text) IS
'Internal. Events of a parked aggregate that the checkpoint has passed.';

/*
 * fetch_parked: the waiting events of one parked aggregate that retry_parked
 * let go, in order; other sessions get other aggregates until the transaction
 * ends.  Acknowledge them by ack_parked.  Errors: EQ025.
 */
CREATE FUNCTION fetch_parked(name text, "limit" int DEFAULT 100) RETURNS SETOF event_store
LANGUAGE plpgsql SET search_path = pg_catalog, event_queue, pg_temp AS $$
#variable_conflict use_column
DECLARE
	parked event_queue.subscription_parked;
BEGIN
	SELECT p.* INTO parked FROM event_queue.subscription_parked p
	WHERE p.subscription_id = event_queue.subscription_id_of($1) AND p.retry
	ORDER BY p.parked_at, p.position LIMIT 1 FOR UPDATE SKIP LOCKED;
	IF FOUND THEN
		RETURN QUERY SELECT e.* FROM event_queue.parked_events($1, parked.aggregate_type, parked.aggregate_id,
			parked.tenant_id) e ORDER BY e.position LIMIT $2;
	END IF;
END
$$;
COMMENT ON FUNCTION fetch_parked(text, int) IS 'Waiting events of one parked aggregate that may be tried again.';

CREATE FUNCTION lock_subscription_bucket(subscription_id int, bucket int) RETURNS void
LANGUAGE C VOLATILE STRICT AS 'MODULE_PATHNAME', 'eq_lock_bucket';
COMMENT ON FUNCTION lock_subscription_bucket(int, int) IS
'Internal. Holds a bucket until the transaction ends, as fetch_events does.';

CREATE FUNCTION unpark_if_done(subscription_id int, tenant_id text, aggregate_type text, aggregate_id text)
RETURNS boolean
LANGUAGE plpgsql SET search_path = pg_catalog, event_queue, pg_temp AS $$
#variable_conflict use_column
DECLARE
	this_name text;
	bucket_position bigint;
	resume bigint;
BEGIN
	SELECT s.name, b.position, p.resume_after INTO this_name, bucket_position, resume
	FROM event_queue.subscription s
	JOIN event_queue.subscription_parked p ON p.subscription_id = s.subscription_id
		AND p.tenant_id = $2 AND p.aggregate_type = $3 AND p.aggregate_id = $4
	JOIN event_queue.subscription_bucket b ON b.subscription_id = s.subscription_id
		AND b.bucket = event_queue.event_bucket($2, $3, $4, s.buckets)
	WHERE s.subscription_id = $1;
	IF EXISTS (SELECT FROM event_queue.parked_events(this_name, $3, $4, $2)) THEN
		RETURN false;
	END IF;
	IF resume IS NULL THEN
		UPDATE event_queue.subscription_parked p SET resume_after = event_queue.watermark()
		WHERE p.subscription_id = $1 AND p.tenant_id = $2 AND p.aggregate_type = $3 AND p.aggregate_id = $4
		RETURNING p.resume_after INTO resume;
	END IF;
	IF bucket_position < resume THEN
		RETURN false;
	END IF;
	DELETE FROM event_queue.subscription_parked p
	WHERE p.subscription_id = $1 AND p.tenant_id = $2 AND p.aggregate_type = $3 AND p.aggregate_id = $4;
	RETURN true;
END
$$;
COMMENT ON FUNCTION unpark_if_done(int, text, text, text) IS
'Internal. With the bucket locked: is none of a parked aggregate''s events waiting any more? Then it comes as before.';

/*
 * ack_parked: done with a parked aggregate's events up to this one.  When none
 * is waiting, the aggregate comes with the others again as soon as the
 * checkpoint is where the watermark is now.
 * Result: true when it is no longer parked.  Errors: EQ025 nothing parked there.
 */
CREATE FUNCTION ack_parked(name text, "position" bigint) RETURNS boolean
LANGUAGE plpgsql SET search_path = pg_catalog, event_queue, pg_temp AS $$
#variable_conflict use_column
DECLARE
	this_id int := event_queue.subscription_id_of($1);
	event event_queue.event_store;
BEGIN
	SELECT e.* INTO event FROM event_queue.event_store e WHERE e.position = $2;
	-- First the bucket, then the row: as fetch_events does.
	PERFORM event_queue.lock_subscription_bucket(this_id, event_queue.event_bucket(event.tenant_id,
		event.aggregate_type, event.aggregate_id, s.buckets))
	FROM event_queue.subscription s WHERE s.subscription_id = this_id;
	UPDATE event_queue.subscription_parked p SET position = greatest(p.position, $2 + 1)
	WHERE p.subscription_id = this_id AND p.tenant_id = event.tenant_id
	  AND p.aggregate_type = event.aggregate_type AND p.aggregate_id = event.aggregate_id;
	IF NOT FOUND THEN
		RAISE EXCEPTION USING ERRCODE = 'EQ025',
			MESSAGE = format('the aggregate of the event at position %s is not parked', $2);
	END IF;
	RETURN event_queue.unpark_if_done(this_id, event.tenant_id, event.aggregate_type, event.aggregate_id);
END
$$;
COMMENT ON FUNCTION ack_parked(text, bigint) IS
'Moves a parked aggregate on; true when all its waiting events are done and it is no longer parked.';

/*
 * discard_parked: gives up the events that the checkpoint has passed; later ones
 * come as before.  Result: false if it was not parked.  Errors: EQ025.
 */
CREATE FUNCTION discard_parked(name text, aggregate_type text, aggregate_id text, tenant_id text DEFAULT NULL)
RETURNS boolean
LANGUAGE plpgsql SET search_path = pg_catalog, event_queue, pg_temp AS $$
#variable_conflict use_column
DECLARE
	this_id int := event_queue.subscription_id_of($1);
	tenant text := event_queue.resolve_tenant($4);
BEGIN
	PERFORM event_queue.lock_subscription_bucket(this_id, event_queue.event_bucket(tenant, $2, $3, s.buckets))
	FROM event_queue.subscription s WHERE s.subscription_id = this_id;
	UPDATE event_queue.subscription_parked p SET position = (
		SELECT b.position + 1 FROM event_queue.subscription s JOIN event_queue.subscription_bucket b
			ON b.subscription_id = this_id AND b.bucket = event_queue.event_bucket(tenant, $2, $3, s.buckets)
		WHERE s.subscription_id = this_id)
	WHERE p.subscription_id = this_id AND p.aggregate_type = $2 AND p.aggregate_id = $3 AND p.tenant_id = tenant;
	IF NOT FOUND THEN
		RETURN false;
	END IF;
	PERFORM event_queue.unpark_if_done(this_id, tenant, $2, $3);
	RETURN true;
END
$$;
COMMENT ON FUNCTION discard_parked(text, text, text, text) IS
'Gives up the waiting events of a parked aggregate; what comes from now on is fetched as before.';

/*
 * subscription_status: how far each consumer is.  lag_events counts the events
 * that its filter lets pass, to 100000 at most; lag_seconds is the age of the
 * oldest of them.
 */
CREATE VIEW subscription_status AS
	SELECT s.name, s.tenant_id, s.filter, s.buckets,
		coalesce(m.members, 0) AS members, c.checkpoint, c.moved_at, w.watermark,
		coalesce(l.lag_events, 0) AS lag_events,
		coalesce(extract(epoch FROM clock_timestamp() - l.oldest), 0)::double precision AS lag_seconds,
		(SELECT count(*) FROM event_queue.subscription_parked p WHERE p.subscription_id = s.subscription_id) AS parked
	FROM event_queue.subscription s
	CROSS JOIN (SELECT event_queue.watermark()) w (watermark)
	CROSS JOIN LATERAL (SELECT min(b.position), max(b.moved_at) FROM event_queue.subscription_bucket b
		WHERE b.subscription_id = s.subscription_id) c (checkpoint, moved_at)
	LEFT JOIN (SELECT subscription_id, count(*) FROM event_queue.subscription_members() GROUP BY 1) m (subscription_id, members)
		USING (subscription_id)
	CROSS JOIN LATERAL (SELECT count(*), min(created_at) FROM (
		SELECT e.created_at FROM event_queue.event_store e
		JOIN event_queue.subscription_bucket b ON b.subscription_id = s.subscription_id
			AND b.bucket = event_queue.event_bucket(e.tenant_id, e.aggregate_type, e.aggregate_id, s.buckets)
		WHERE e.position > c.checkpoint AND e.position <= w.watermark AND e.position > b.position
		  AND (s.tenant_id IS NULL OR e.tenant_id = s.tenant_id) AND event_queue.matches_filter(e, s.filter)
		LIMIT 100000) waiting) l (lag_events, oldest);
ALTER VIEW subscription_status SET (security_invoker = true);
COMMENT ON VIEW subscription_status IS
'Each subscription: members, checkpoint, lag in events (to 100000) and seconds, parked aggregates.';

/*
 * partition.sql: the event store in several tables: by time, by tenant; how old
 * events are archived.
 *
 * Partitions inherit from event_store: queries on event_store see them all, and
 * the store can be partitioned at any time without being rewritten, since what
 * is there stays where it is.  A partition by time begins where the one before
 * ends, at a position; a tenant's partition takes all of one tenant's events.
 * Which table an event goes to is decided by append (table/leaves.c reads
 * event_partition); each table has the indexes NAME_pkey, NAME_aggregate_key
 * and NAME_id_key.
 *
 * Archiving takes a whole sealed table away: what is left of its aggregates is
 * a snapshot (is_base) that carries their version and state on.
 */

CREATE TABLE event_partition (
	partition_id	int GENERATED ALWAYS AS IDENTITY CONSTRAINT event_partition_pkey PRIMARY KEY,
	name			text NOT NULL UNIQUE,
	tenant_id		text,
	first_position	bigint NOT NULL,
	last_position	bigint,
	split_off		boolean NOT NULL DEFAULT false,
	created_at		timestamptz NOT NULL DEFAULT clock_timestamp(),
	archived_at		timestamptz
);
COMMENT ON TABLE event_partition IS 'Tables of events beside event_store itself; written by the partition functions.';
COMMENT ON COLUMN event_partition.tenant_id IS 'Holds this tenant''s events only; NULL: by time.';
COMMENT ON COLUMN event_partition.last_position IS 'Sealed: no event above it goes here; NULL: takes new events.';
COMMENT ON COLUMN event_partition.split_off IS
'Its events were moved out of event_store, and are older than what is there; those of all others are newer.';
ALTER TABLE event_partition ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant_isolation ON event_partition USING (tenant_id IS NULL OR tenant_visible(tenant_id));
CREATE TRIGGER config_changed AFTER INSERT OR UPDATE OR DELETE ON event_partition
	FOR EACH STATEMENT EXECUTE FUNCTION config_changed();
SELECT pg_catalog.pg_extension_config_dump('event_partition', '');
SELECT pg_catalog.pg_extension_config_dump('event_partition_partition_id_seq', '');

CREATE TABLE partition_policy (
	one_row			boolean PRIMARY KEY DEFAULT true CHECK (one_row),
	every			interval,
	keep			interval,
	archive_schema	text
);
COMMENT ON TABLE partition_policy IS 'When the worker begins a partition by time, and archives old ones.';
SELECT pg_catalog.pg_extension_config_dump('partition_policy', '');

CREATE FUNCTION open_guard(open boolean) RETURNS void
LANGUAGE C VOLATILE STRICT AS 'MODULE_PATHNAME', 'eq_open_guard';
COMMENT ON FUNCTION open_guard(boolean) IS
'Internal. Lets events be deleted until the transaction ends: for moving them between tables.';

/* What every table of events has besides its columns. */
CREATE FUNCTION make_event_table(name text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, event_queue, pg_temp AS $$
DECLARE
	what text;
BEGIN
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
		FOR EACH ROW EXECUTE FUNCTION event_queue.refuse_change()', name);
	EXECUTE format('CREATE TRIGGER refuse_truncate BEFORE TRUNCATE ON event_queue.%I
		FOR EACH STATEMENT EXECUTE FUNCTION event_queue.refuse_change()', name);
	EXECUTE format('ALTER TABLE event_queue.%I ENABLE ALWAYS TRIGGER refuse_change,
		ENABLE ALWAYS TRIGGER refuse_truncate', name);
	FOREACH what IN ARRAY ARRAY['event_type', 'aggregate_type', 'tenant_id', 'event_data'] LOOP
		IF to_regclass('event_queue.event_store_by_' || what) IS NOT NULL THEN
			PERFORM event_queue.make_event_index(name, what);
		END IF;
	END LOOP;
END
$$;
COMMENT ON FUNCTION make_event_table(text) IS 'Internal. Creates a table that inherits from event_store, with all it needs.';

CREATE FUNCTION make_event_index(table_name text, "by" text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, event_queue, pg_temp AS $$
BEGIN
	IF $2 = 'event_data' THEN
		EXECUTE format('CREATE INDEX IF NOT EXISTS %I ON event_queue.%I USING gin (event_data jsonb_path_ops)',
			$1 || '_by_event_data', $1);
	ELSE
		EXECUTE format('CREATE INDEX IF NOT EXISTS %I ON event_queue.%I (%I, position)', $1 || '_by_' || $2, $1, $2);
	END IF;
END
$$;
COMMENT ON FUNCTION make_event_index(text, text) IS 'Internal. What create_event_index does for each table.';

/*
 * create_event_index: makes reading by a filter quick where few events pass it.
 * Without it such a reader walks over all events since its position, which
 * costs nothing for one that keeps up; the price of the index is paid by each
 * append.
 * Arguments: by is event_type (patterns without *), aggregate_type, tenant_id,
 * or event_data (GIN: for your own queries with @>).
 * Errors: EQ009.  Locks out appends while it works.
 */
CREATE FUNCTION create_event_index("by" text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, event_queue, pg_temp AS $$
DECLARE
	this_table text;
BEGIN
	IF $1 IS NULL OR $1 NOT IN ('event_type', 'aggregate_type', 'tenant_id', 'event_data') THEN
		RAISE EXCEPTION USING ERRCODE = 'EQ009',
			MESSAGE = 'an event index is by event_type, aggregate_type, tenant_id or event_data';
	END IF;
	LOCK TABLE ONLY event_queue.event_store IN SHARE ROW EXCLUSIVE MODE;
	FOR this_table IN
		SELECT 'event_store' UNION ALL SELECT p.name FROM event_queue.event_partition p WHERE p.archived_at IS NULL
	LOOP
		PERFORM event_queue.make_event_index(this_table, $1);
	END LOOP;
	UPDATE event_queue.event_partition SET name = name;	-- sessions look for indexes again
END
$$;
COMMENT ON FUNCTION create_event_index(text) IS
'Indexes events by event_type, aggregate_type, tenant_id or event_data, for readers whose filter lets few pass.';

/* drop_event_index: undoes create_event_index. Errors: EQ009. */
CREATE FUNCTION drop_event_index("by" text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, event_queue, pg_temp AS $$
DECLARE
	this_table text;
BEGIN
	IF $1 IS NULL OR $1 NOT IN ('event_type', 'aggregate_type', 'tenant_id', 'event_data') THEN
		RAISE EXCEPTION USING ERRCODE = 'EQ009',
			MESSAGE = 'an event index is by event_type, aggregate_type, tenant_id or event_data';
	END IF;
	FOR this_table IN
		SELECT 'event_store' UNION ALL SELECT p.name FROM event_queue.event_partition p WHERE p.archived_at IS NULL
	LOOP
		EXECUTE format('DROP INDEX IF EXISTS event_queue.%I', this_table || '_by_' || $1);
	END LOOP;
	UPDATE event_queue.event_partition SET name = name;
END
$$;
COMMENT ON FUNCTION drop_event_index(text) IS 'Drops what create_event_index made.';

/*
 * create_event_partition: new events go to a new table from now on: all of them
 * (by time), or those of one tenant.
 * Result: the table's name.
 * Errors: EQ018 the tenant has one, 55P03 if transactions that have appended do
 * not end within 5 s: then nothing has changed, try again.
 */
CREATE FUNCTION create_event_partition(tenant_id text DEFAULT NULL) RETURNS text
LANGUAGE plpgsql SET search_path = pg_catalog, event_queue, pg_temp SET lock_timeout = '5s' AS $$
#variable_conflict use_column
DECLARE
	first bigint;
	new_id int;
	new_name text;
	before event_queue.event_partition;
BEGIN
	-- No one has appended and is open: what comes after lies above first.
	LOCK TABLE ONLY event_queue.event_store IN SHARE ROW EXCLUSIVE MODE;
	IF $1 IS NOT NULL THEN
		PERFORM event_queue.check_name('tenant', $1);
		IF EXISTS (SELECT FROM event_queue.event_partition p WHERE p.tenant_id = $1 AND p.last_position IS NULL) THEN
			RAISE EXCEPTION USING ERRCODE = 'EQ018', MESSAGE = format('tenant "%s" has a partition', $1);
		END IF;
	END IF;
	first := event_queue.last_position() + 1;
	SELECT p.* INTO before FROM event_queue.event_partition p
	WHERE p.tenant_id IS NULL AND $1 IS NULL AND p.last_position IS NULL ORDER BY p.partition_id DESC LIMIT 1;
	IF FOUND THEN
		UPDATE event_queue.event_partition p SET last_position = first - 1 WHERE p.partition_id = before.partition_id;
		EXECUTE format('ALTER TABLE event_queue.%I ADD CONSTRAINT %I CHECK (position <= %s) NOT VALID',
			before.name, before.name || '_last', first - 1);
	ELSIF $1 IS NULL THEN
		EXECUTE format('ALTER TABLE event_queue.event_store
			ADD CONSTRAINT event_store_last CHECK (position <= %s) NO INHERIT NOT VALID', first - 1);
	END IF;
	INSERT INTO event_queue.event_partition (name, tenant_id, first_position)
	VALUES ('', $1, first) RETURNING partition_id INTO new_id;
	new_name := 'event_store_' || CASE WHEN $1 IS NULL THEN 'p' ELSE 't' END || new_id;
	UPDATE event_queue.event_partition p SET name = new_name WHERE p.partition_id = new_id;
	PERFORM event_queue.make_event_table(new_name);
	EXECUTE format('ALTER TABLE event_queue.%I ADD CONSTRAINT %I CHECK (position >= %s)', new_name, new_name || '_first', first);
	IF $1 IS NOT NULL THEN
		EXECUTE format('ALTER TABLE event_queue.%I ADD CONSTRAINT %I CHECK (tenant_id = %L)',
			new_name, new_name || '_tenant', $1);
	END IF;
	RETURN new_name;
END
$$;
COMMENT ON FUNCTION create_event_partition(text) IS
'Sends new events, or one tenant''s, to a new table from now on.';

/*
 * partition_events: has the worker begin a partition by time each so often, the
 * first one now; NULL: no more.  At creation of the store or at any later time.
 * Errors: EQ009 below one hour; as create_event_partition.
 */
CREATE FUNCTION partition_events(every interval) RETURNS text
LANGUAGE plpgsql SET search_path = pg_catalog, event_queue, pg_temp AS $$
#variable_conflict use_column
BEGIN
	IF $1 < interval '1 hour' THEN
		RAISE EXCEPTION USING ERRCODE = 'EQ009', MESSAGE = 'partitions must be at least one hour apart';
	END IF;
	INSERT INTO event_queue.partition_policy (every) VALUES ($1)
	ON CONFLICT (one_row) DO UPDATE SET every = excluded.every;
	IF $1 IS NULL OR EXISTS (SELECT FROM event_queue.event_partition p
		WHERE p.tenant_id IS NULL AND p.last_position IS NULL AND p.created_at > clock_timestamp() - $1) THEN
		RETURN NULL;
	END IF;
	RETURN event_queue.create_event_partition();
END
$$;
COMMENT ON FUNCTION partition_events(interval) IS
'Partitions the event store by time: a new table each so often, made by the worker; the first one now.';

/*
 * split_off_events: moves events that stand in event_store itself to a sealed
 * partition: those up to a time, or one tenant's.  Rewrites what it moves, in
 * the caller's transaction, and locks out appends meanwhile: for a quiet hour.
 * Result: the table's name; NULL if there was nothing to move.
 * Errors: EQ009 neither or both arguments.
 */
CREATE FUNCTION split_off_events(up_to timestamptz DEFAULT NULL, tenant_id text DEFAULT NULL) RETURNS text
LANGUAGE plpgsql SET search_path = pg_catalog, event_queue, pg_temp AS $$
#variable_conflict use_column
DECLARE
	first bigint;
	last bigint;
	new_id int;
	new_name text;
BEGIN
	IF ($1 IS NULL) = ($2 IS NULL) THEN
		RAISE EXCEPTION USING ERRCODE = 'EQ009', MESSAGE = 'give a time or a tenant';
	END IF;
	LOCK TABLE ONLY event_queue.event_store IN SHARE ROW EXCLUSIVE MODE;
	IF $1 IS NOT NULL THEN
		-- Times need not follow positions exactly; tables must.
		SELECT coalesce(min(e.position) - 1, event_queue.last_position()) INTO last
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
	INSERT INTO event_queue.event_partition (name, tenant_id, first_position, last_position, split_off)
	VALUES ('', $2, first, last, true) RETURNING partition_id INTO new_id;
	new_name := 'event_store_old' || new_id;
	UPDATE event_queue.event_partition p SET name = new_name WHERE p.partition_id = new_id;
	PERFORM event_queue.make_event_table(new_name);
	EXECUTE format('INSERT INTO event_queue.%I SELECT e.* FROM ONLY event_queue.event_store e
		WHERE e.position BETWEEN %s AND %s AND (%L::text IS NULL OR e.tenant_id = %L) ORDER BY e.position',
		new_name, first, last, $2, $2);
	PERFORM event_queue.open_guard(true);
	DELETE FROM ONLY event_queue.event_store e
	WHERE e.position BETWEEN first AND last AND ($2 IS NULL OR e.tenant_id = $2);
	PERFORM event_queue.open_guard(false);
	RETURN new_name;
END
$$;
COMMENT ON FUNCTION split_off_events(timestamptz, text) IS
'Moves old events, or one tenant''s, out of event_store into a sealed partition, which can be archived.';

/*
 * seal_partition: a tenant's partition takes no more events; they go where
 * the others go, from now on to a new partition: what is newer must be in a
 * newer table.  (One by time is sealed by the next.)  Errors: EQ025.
 */
CREATE FUNCTION seal_partition(name text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, event_queue, pg_temp SET lock_timeout = '5s' AS $$
#variable_conflict use_column
BEGIN
	LOCK TABLE ONLY event_queue.event_store IN SHARE ROW EXCLUSIVE MODE;
	UPDATE event_queue.event_partition p SET last_position = event_queue.last_position()
	WHERE p.name = $1 AND p.tenant_id IS NOT NULL AND p.last_position IS NULL;
	IF NOT FOUND THEN
		RAISE EXCEPTION USING ERRCODE = 'EQ025', MESSAGE = format('"%s" is no open partition of a tenant', $1);
	END IF;
	PERFORM event_queue.create_event_partition();
END
$$;
COMMENT ON FUNCTION seal_partition(text) IS 'Closes a tenant''s partition, so that it can be archived.';

/*
 * archive_partition: takes a sealed partition out of the store.  Of each
 * aggregate that has events in it, the state and version after them are kept as
 * a snapshot: append and aggregate_state go on as before, only older versions
 * are no longer there to be read.
 *
 * Arguments: archive_schema: the table is moved there, for pg_dump -t or for
 * reading by hand; NULL: it is dropped.
 * Result: how many aggregates got such a snapshot.
 * Errors: EQ025 no such partition, EQ013 it is not sealed, an older one with
 * events of the same aggregates is still there, or a subscription, the rules or
 * the snapshots have not yet passed it; 55P03 as create_event_partition.
 */
CREATE FUNCTION archive_partition(name text, archive_schema text DEFAULT NULL) RETURNS bigint
LANGUAGE plpgsql SET search_path = pg_catalog, event_queue, pg_temp SET lock_timeout = '5s' AS $$
#variable_conflict use_column
DECLARE
	this event_queue.event_partition;
	late text;
	n bigint;
BEGIN
	LOCK TABLE ONLY event_queue.event_store IN SHARE ROW EXCLUSIVE MODE;
	SELECT p.* INTO this FROM event_queue.event_partition p WHERE p.name = $1 AND p.archived_at IS NULL FOR UPDATE;
	IF NOT FOUND THEN
		RAISE EXCEPTION USING ERRCODE = 'EQ025', MESSAGE = format('partition "%s" does not exist', $1);
	END IF;
	IF this.last_position IS NULL THEN
		RAISE EXCEPTION USING ERRCODE = 'EQ013', MESSAGE = format('partition "%s" takes new events', $1),
			HINT = 'A partition by time is sealed by the next one, a tenant''s by event_queue.seal_partition.';
	END IF;
	SELECT string_agg(x.who, ', ') INTO late FROM (
		SELECT DISTINCT format('subscription "%s"', s.name) AS who
		FROM event_queue.subscription s JOIN event_queue.subscription_bucket b USING (subscription_id)
		WHERE b.position < this.last_position AND (s.tenant_id IS NULL OR this.tenant_id IS NULL OR s.tenant_id = this.tenant_id)
		UNION ALL
		SELECT 'the rules' WHERE EXISTS (SELECT FROM event_queue.rule WHERE enabled AND start_position < this.last_position)
			AND coalesce((SELECT c.position FROM event_queue.rule_checkpoint c), 0) < (
				SELECT max(e.position) FROM event_queue.event_store e WHERE e.position <= this.last_position)
		UNION ALL
		SELECT 'parked events of subscription "' || s.name || '"'
		FROM event_queue.subscription s JOIN event_queue.subscription_parked k USING (subscription_id)
		WHERE k.position <= this.last_position
	) x;
	IF late IS NOT NULL THEN
		RAISE EXCEPTION USING ERRCODE = 'EQ013', MESSAGE = format('partition "%s" is still read', $1),
			DETAIL = format('Not yet past its last event: %s.', late);
	END IF;
	EXECUTE format('SELECT o.tableoid::regclass::text
		FROM (SELECT DISTINCT ON (aggregate_id, aggregate_type, tenant_id) * FROM event_queue.%I
			ORDER BY aggregate_id, aggregate_type, tenant_id, version) e
		JOIN event_queue.event_store o ON o.aggregate_id = e.aggregate_id AND o.aggregate_type = e.aggregate_type
			AND o.tenant_id = e.tenant_id AND o.version < e.version
		WHERE o.tableoid <> %L::regclass LIMIT 1', $1, format('event_queue.%I', $1)) INTO late;
	IF late IS NOT NULL THEN
		RAISE EXCEPTION USING ERRCODE = 'EQ013', MESSAGE = format('events older than partition "%s" are still there', $1),
			DETAIL = format('In %s.', late), HINT = 'Archive them first; event_queue.split_off_events moves them out of event_store.';
	END IF;
	EXECUTE format('INSERT INTO event_queue.aggregate_snapshot
			(aggregate_id, aggregate_type, tenant_id, version, position, state, event_at, reducer, is_base)
		SELECT e.aggregate_id, e.aggregate_type, e.tenant_id, e.version, e.position,
			event_queue.aggregate_state(e.aggregate_type, e.aggregate_id, e.version, NULL, e.tenant_id),
			e.created_at, event_queue.reducer_fingerprint(e.aggregate_type), true
		FROM (SELECT DISTINCT ON (aggregate_id, aggregate_type, tenant_id) * FROM event_queue.%I
			ORDER BY aggregate_id, aggregate_type, tenant_id, version DESC) e
		ON CONFLICT ON CONSTRAINT aggregate_snapshot_pkey DO UPDATE
		SET is_base = true, state = excluded.state, reducer = excluded.reducer', $1);
	GET DIAGNOSTICS n = ROW_COUNT;
	EXECUTE format('ALTER TABLE event_queue.%I NO INHERIT event_queue.event_store', $1);
	IF $2 IS NULL THEN
		EXECUTE format('DROP TABLE event_queue.%I', $1);
	ELSE
		EXECUTE format('ALTER TABLE event_queue.%I SET SCHEMA %I', $1, $2);
	END IF;
	UPDATE event_queue.event_partition p SET archived_at = clock_timestamp() WHERE p.partition_id = this.partition_id;
	RETURN n;
END
$$;
COMMENT ON FUNCTION archive_partition(text, text) IS
'Takes a sealed partition out of the store, keeping state and version of its aggregates; moves its table to a schema, or drops it.';

/*
 * set_event_retention: has the worker archive partitions whose last event is
 * older than this; NULL: none.  Errors: EQ009 below one day.
 */
CREATE FUNCTION set_event_retention(keep interval, archive_schema text DEFAULT NULL) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, event_queue, pg_temp AS $$
#variable_conflict use_column
BEGIN
	IF $1 < interval '1 day' THEN
		RAISE EXCEPTION USING ERRCODE = 'EQ009', MESSAGE = 'events must be kept for at least one day';
	END IF;
	INSERT INTO event_queue.partition_policy (keep, archive_schema) VALUES ($1, $2)
	ON CONFLICT (one_row) DO UPDATE SET keep = excluded.keep, archive_schema = excluded.archive_schema;
END
$$;
COMMENT ON FUNCTION set_event_retention(interval, text) IS
'How long events are kept: the worker archives partitions that are older. NULL: for ever.';

/*
 * maintain_partitions: what the worker does once a minute.  One step in each
 * call; true if it did one.
 */
CREATE FUNCTION maintain_partitions() RETURNS boolean
LANGUAGE plpgsql SET search_path = pg_catalog, event_queue, pg_temp AS $$
#variable_conflict use_column
DECLARE
	policy event_queue.partition_policy := (SELECT p FROM event_queue.partition_policy p);
	this event_queue.event_partition;
	newest timestamptz;
BEGIN
	IF policy.every IS NOT NULL AND NOT EXISTS (SELECT FROM event_queue.event_partition p
		WHERE p.tenant_id IS NULL AND NOT p.split_off AND p.created_at > clock_timestamp() - policy.every) THEN
		PERFORM event_queue.create_event_partition();
		RETURN true;
	END IF;
	IF policy.keep IS NOT NULL THEN
		SELECT p.* INTO this FROM event_queue.event_partition p
		WHERE p.last_position IS NOT NULL AND p.archived_at IS NULL ORDER BY p.first_position LIMIT 1;
		IF FOUND THEN
			EXECUTE format('SELECT created_at FROM event_queue.%I ORDER BY position DESC LIMIT 1', this.name) INTO newest;
			IF newest IS NULL OR newest < clock_timestamp() - policy.keep THEN
				PERFORM event_queue.archive_partition(this.name, policy.archive_schema);
				RETURN true;
			END IF;
		END IF;
	END IF;
	RETURN false;
EXCEPTION
	-- Appends were open for too long, or a consumer is late: the next minute will do.
	WHEN lock_not_available OR SQLSTATE 'EQ013' THEN
		RAISE LOG 'event_queue: partitions were left as they are: %', SQLERRM;
		RETURN false;
END
$$;
COMMENT ON FUNCTION maintain_partitions() IS 'Internal. The worker''s share of partition_events and set_event_retention.';

/*
 * wake.sql: triggers for users' own tables.
 *
 * A NOTIFY inside a writing transaction takes a lock that all databases of the
 * server share, until its commit is done.  So the trigger only marks its
 * channel in shared memory; after commit the scheduler is woken, and sends one
 * NOTIFY for as many writes as came in the meantime.
 */

CREATE TABLE channel (
	channel_id	int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	name		text NOT NULL CONSTRAINT channel_name_key UNIQUE
);
COMMENT ON TABLE channel IS 'Channels that notify_on serves.';
CREATE TRIGGER config_changed AFTER INSERT OR UPDATE OR DELETE ON channel
	FOR EACH STATEMENT EXECUTE FUNCTION config_changed();
SELECT pg_catalog.pg_extension_config_dump('channel', '');
SELECT pg_catalog.pg_extension_config_dump('channel_channel_id_seq', '');

CREATE FUNCTION notify_change() RETURNS trigger
LANGUAGE C AS 'MODULE_PATHNAME', 'eq_notify_change';
COMMENT ON FUNCTION notify_change() IS
'Trigger of notify_on: after commit, has the scheduler send one NOTIFY on the channel whose number is the argument.';

/*
 * notify_on: after every committed change of the table, listeners of the
 * channel are notified; changes that come close together share one NOTIFY.
 * Arguments: channel at most 63 bytes.
 * Errors: EQ006 channel name; 42501 if the caller does not own the table;
 * 42710 if the table has the trigger already.
 */
CREATE FUNCTION notify_on("table" regclass, channel text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, event_queue, pg_temp AS $$
DECLARE
	this_id int;
BEGIN
	PERFORM event_queue.check_name('channel name', channel, 63);
	INSERT INTO event_queue.channel (name) VALUES (channel) ON CONFLICT DO NOTHING;
	SELECT c.channel_id INTO STRICT this_id FROM event_queue.channel c WHERE c.name = $2;
	EXECUTE format('CREATE TRIGGER %I AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON %s '
				   'FOR EACH STATEMENT EXECUTE FUNCTION event_queue.notify_change(%s)',
				   'event_queue_notify_' || this_id, "table", this_id);
END
$$;
COMMENT ON FUNCTION notify_on(regclass, text) IS
'Notifies listeners of the channel after every committed change of the table, without NOTIFY''s commit lock.';

/*
 * record_change: trigger of record_changes.  Arguments: aggregate type, id
 * column, tenant column or '', event prefix.
 */
CREATE FUNCTION record_change() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, event_queue, pg_temp AS $$
DECLARE
	new_row jsonb := CASE WHEN TG_OP <> 'DELETE' THEN to_jsonb(NEW) END;
	old_row jsonb := CASE WHEN TG_OP <> 'INSERT' THEN to_jsonb(OLD) END;
	this_row jsonb := coalesce(new_row, old_row);
	data jsonb;
BEGIN
	IF TG_OP = 'UPDATE' AND new_row = old_row THEN
		RETURN NULL;
	END IF;
	data := CASE TG_OP
		WHEN 'INSERT' THEN jsonb_build_object('new', new_row)
		WHEN 'DELETE' THEN jsonb_build_object('old', old_row)
		ELSE jsonb_build_object('new', new_row, 'old', old_row, 'changed',
			(SELECT jsonb_agg(n.key ORDER BY n.key) FROM jsonb_each(new_row) n
			 WHERE n.value IS DISTINCT FROM old_row -> n.key)) END;
	PERFORM event_queue.append(TG_ARGV[0], this_row ->> TG_ARGV[1],
		TG_ARGV[3] || CASE TG_OP WHEN 'INSERT' THEN '.inserted' WHEN 'UPDATE' THEN '.updated' ELSE '.deleted' END,
		data, metadata => jsonb_build_object('table', TG_TABLE_SCHEMA || '.' || TG_TABLE_NAME),
		tenant_id => CASE WHEN TG_ARGV[2] <> '' THEN this_row ->> TG_ARGV[2] END);
	RETURN NULL;
END
$$;
COMMENT ON FUNCTION record_change() IS
'Trigger of record_changes: appends an event for the changed row, with the rights of whoever changes it.';

/*
 * record_changes: from now on every row change of the table appends an event
 * PREFIX.inserted, PREFIX.updated or PREFIX.deleted with data {new, old,
 * changed}, in the writer's transaction.  An UPDATE that changes nothing
 * appends nothing.  Whoever writes to the table needs grant_producer.
 * Arguments: id_column holds the aggregate's id; tenant_column the tenant
 * (default: the session's); event_prefix defaults to aggregate_type.
 * Errors: EQ006 name, 42703 no such column, 42501 not the table's owner, 42710
 * the table records already.
 */
CREATE FUNCTION record_changes(
	"table" regclass, aggregate_type text, id_column name,
	tenant_column name DEFAULT NULL, event_prefix text DEFAULT NULL)
RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, event_queue, pg_temp AS $$
DECLARE
	missing name;
BEGIN
	PERFORM event_queue.check_name('aggregate type', aggregate_type);
	PERFORM event_queue.check_name('event prefix', coalesce(event_prefix, aggregate_type), 240);
	SELECT c INTO missing FROM unnest(ARRAY[id_column, tenant_column]) c
	WHERE (c IS NOT NULL OR id_column IS NULL) AND NOT EXISTS (SELECT FROM pg_attribute a
		WHERE a.attrelid = "table" AND a.attname = c AND a.attnum > 0 AND NOT a.attisdropped);
	IF FOUND THEN
		RAISE EXCEPTION USING ERRCODE = 'undefined_column',
			MESSAGE = format('column "%s" of table %s does not exist', missing, "table");
	END IF;
	EXECUTE format('CREATE TRIGGER event_queue_record_changes AFTER INSERT OR UPDATE OR DELETE ON %s '
				   'FOR EACH ROW EXECUTE FUNCTION event_queue.record_change(%L, %L, %L, %L)',
				   "table", aggregate_type, id_column, coalesce(tenant_column, ''),
				   coalesce(event_prefix, aggregate_type));
END
$$;
COMMENT ON FUNCTION record_changes(regclass, text, name, name, text) IS
'Appends an event for every row change of a table: PREFIX.inserted, .updated, .deleted.';

/*
 * observe.sql: what an operator sees.  Nothing here counts rows: counters live in
 * shared memory, follow commits, and but for depth and dead start at zero with the server;
 * ages are read at the front of the index that claims walk.
 */

/*
 * queue_counters: what happened since the server started, counted at commit.
 */
CREATE FUNCTION queue_counters(
	OUT queue_id int, OUT enqueued bigint, OUT claimed bigint, OUT completed bigint,
	OUT failed bigint, OUT released bigint, OUT stalled bigint, OUT dead bigint,
	OUT cancelled bigint, OUT late bigint, OUT wait_ms float8, OUT run_ms float8)
RETURNS SETOF record
LANGUAGE C VOLATILE AS 'MODULE_PATHNAME', 'eq_queue_counters';
COMMENT ON FUNCTION queue_counters() IS
'Per queue, since the server started: jobs enqueued, claimed, completed, failed, released, stalled, dead, cancelled, completed past the SLA, and the summed wait and run times in milliseconds.';

/*
 * queue_depth: how many jobs and dead letters a queue has, when the first job of
 * those that can be claimed came due, and the jobs enqueued, completed and failed
 * per second over the last minute (or since the queue was first used after the
 * server's start, but over one second at least).  Nothing is counted for it.
 */
CREATE FUNCTION queue_depth(
	queue_id int, OUT depth bigint, OUT oldest_ready timestamptz, OUT dead bigint,
	OUT enqueued_per_s float8, OUT completed_per_s float8, OUT failed_per_s float8)
LANGUAGE C VOLATILE STRICT AS 'MODULE_PATHNAME', 'eq_queue_depth';
COMMENT ON FUNCTION queue_depth(int) IS
'How many jobs and dead letters a queue has, when the first job that can be claimed came due, and its rates; from counters.';

/*
 * queue_limits: how a queue stands to its limits.
 * Result: tokens that rate_limit leaves now, NULL without one; how many jobs count
 * for max_concurrency, and up to 100 of them, NULL without it.
 */
CREATE FUNCTION queue_limits(queue_id int, OUT tokens float8, OUT active bigint, OUT jobs bigint[])
LANGUAGE C VOLATILE STRICT AS 'MODULE_PATHNAME', 'eq_queue_limits';
COMMENT ON FUNCTION queue_limits(int) IS
'Tokens that a queue''s rate_limit leaves now, how many leased jobs count for its max_concurrency, and up to 100 of them.';

CREATE VIEW queue_status WITH (security_invoker = true) AS
	SELECT q.name AS queue, q.paused, q.draining, d.depth, d.dead,
		clock_timestamp() - d.oldest_ready AS oldest_ready_age, q.sla,
		coalesce(clock_timestamp() - d.oldest_ready > q.sla, false) AS sla_missed,
		coalesce(c.enqueued, 0) AS enqueued_total, coalesce(c.claimed, 0) AS claimed_total,
		coalesce(c.completed, 0) AS completed_total, coalesce(c.failed, 0) AS failed_total,
		coalesce(c.stalled, 0) AS stalled_total, coalesce(c.dead, 0) AS dead_total,
		coalesce(c.cancelled, 0) AS cancelled_total, coalesce(c.late, 0) AS late_total,
		c.wait_ms / nullif(c.claimed, 0) AS avg_wait_ms, c.run_ms / nullif(c.completed, 0) AS avg_run_ms,
		d.enqueued_per_s, d.completed_per_s, d.failed_per_s
	FROM event_queue.queue q
	CROSS JOIN LATERAL event_queue.queue_depth(q.queue_id) d
	LEFT JOIN event_queue.queue_counters() c USING (queue_id);
COMMENT ON VIEW queue_status IS
'Per queue: depth, dead letters, age of the oldest ready job, SLA, totals since the server started, and rates of the last minute; of all tenants.';

CREATE VIEW queue_depths WITH (security_invoker = true) AS
	SELECT j.queue, j.state, count(*) AS jobs FROM event_queue.jobs j GROUP BY 1, 2;
COMMENT ON VIEW queue_depths IS 'Jobs of each queue by state, counted one by one: for people, not for dashboards.';

/*
 * explain_job: why a job is not running.
 * Result: a row for each reason, until when it holds if that is known, and what to
 * look at; one that says how it stands if there is none.
 */
CREATE FUNCTION explain_job(job_id bigint, OUT reason text, OUT until timestamptz, OUT detail text)
RETURNS SETOF record
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, event_queue, pg_temp AS $$
#variable_conflict use_column
DECLARE
	j event_queue.job;
	q event_queue.queue;
	other record;
	key_until timestamptz;	-- when its group_key has a token
	n bigint := 0;
BEGIN
	SELECT x.* INTO j FROM event_queue.job x WHERE x.job_id = $1 AND event_queue.tenant_visible(x.tenant_id);
	IF NOT FOUND THEN
		RETURN QUERY
		SELECT 'dead letter', NULL::timestamptz, format('%s, died at %s: %s', d.reason, d.died_at, d.errors -> -1 ->> 'message')
		FROM event_queue.dead_letter d WHERE d.job_id = $1 AND event_queue.tenant_visible(d.tenant_id)
		UNION ALL
		SELECT 'completed', NULL, format('at %s by %s', h.completed_at, h.leased_by)
		FROM event_queue.job_history h WHERE h.job_id = $1 AND event_queue.tenant_visible(h.tenant_id) AND h.expires_at > now();
		IF NOT FOUND THEN
			RETURN QUERY SELECT 'not there', NULL::timestamptz, 'finished and not kept, cancelled, purged, or never enqueued';
		END IF;
		RETURN;
	END IF;
	SELECT x.* INTO q FROM event_queue.queue x WHERE x.queue_id = j.queue_id;
	IF j.leased_until > clock_timestamp() THEN
		RETURN QUERY SELECT CASE WHEN j.cancel THEN 'running, cancel requested' ELSE 'running' END, j.leased_until,
			format('leased by %s since %s, attempt %s', j.leased_by, j.claimed_at, j.failures + 1);
		RETURN;
	END IF;
	IF j.leased_until IS NOT NULL THEN
		RETURN QUERY SELECT 'stalled', NULL::timestamptz, format('lease of %s ran out at %s; it is claimed again', j.leased_by, j.leased_until);
		n := n + 1;
	END IF;
	IF q.paused THEN
		RETURN QUERY SELECT 'queue paused', NULL::timestamptz, format('event_queue.resume_queue(%L)', q.name);
		n := n + 1;
	END IF;
	IF q.group_rate_limit IS NOT NULL AND j.group_key IS NOT NULL THEN
		key_until := (SELECT g.next_at - (q.group_rate_interval - q.group_rate_interval / q.group_rate_limit)
			FROM event_queue.group_rate g
			WHERE g.queue_id = j.queue_id AND g.tenant_id = j.tenant_id AND g.group_key = j.group_key);
	END IF;
	IF key_until > clock_timestamp() THEN
		RETURN QUERY SELECT 'rate limited', key_until,
			format('key %s: %s in %s', j.group_key, q.group_rate_limit, q.group_rate_interval);
		n := n + 1;
	END IF;
	-- A claim that found no token for the key has set run_at: then it is not delayed besides.
	IF j.run_at > clock_timestamp() AND (j.failures > 0 OR key_until IS NULL OR j.run_at > key_until + '1 millisecond') THEN
		RETURN QUERY SELECT CASE WHEN j.failures > 0 THEN 'waits for its next attempt' ELSE 'delayed' END, j.run_at,
			CASE WHEN j.failures > 0 THEN format('after failure %s: %s', j.failures, j.errors -> -1 ->> 'message') END;
		n := n + 1;
	END IF;
	IF j.blocked = 2 THEN
		RETURN QUERY
		SELECT 'waits for a job that it depends on', NULL::timestamptz,
			format('job %s (%s): %s', d.depends_on, d.name, coalesce(
				(SELECT s.state FROM event_queue.jobs s WHERE s.job_id = d.depends_on),
				(SELECT 'dead letter' FROM event_queue.dead_letter l WHERE l.job_id = d.depends_on), 'finished'))
		FROM event_queue.job_dependency d WHERE d.job_id = $1 AND d.completed_at IS NULL ORDER BY d.depends_on LIMIT 10;
		n := n + 1;
	ELSIF j.blocked = 1 THEN
		RETURN QUERY
		SELECT 'group busy', o.leased_until, format('job %s of group %s%s', o.job_id, o.group_key,
			CASE WHEN o.leased_until > clock_timestamp() THEN ', leased by ' || o.leased_by
				 WHEN o.run_at > clock_timestamp() THEN format(', due at %s', o.run_at) ELSE ', ready' END)
		FROM event_queue.job o
		WHERE o.queue_id = j.queue_id AND o.tenant_id = j.tenant_id AND o.group_key = j.group_key AND o.blocked = 0
		ORDER BY o.job_id LIMIT 10;
		IF NOT FOUND THEN
			RETURN QUERY SELECT 'group about to go on', NULL::timestamptz, 'the scheduler has not yet looked at it';
		END IF;
		n := n + 1;
	END IF;
	SELECT l.* INTO other FROM event_queue.queue_limits(q.queue_id) l;
	IF other.tokens < 1 THEN
		RETURN QUERY SELECT 'rate limited', clock_timestamp() + (1 - other.tokens) * q.rate_interval / q.rate_limit,
			format('%s in %s', q.rate_limit, q.rate_interval);
		n := n + 1;
	END IF;
	IF other.active >= q.max_concurrency THEN
		RETURN QUERY SELECT 'max_concurrency reached', NULL::timestamptz, concat(other.active, ' jobs of the queue are leased',
			(SELECT ': ' || string_agg(format('job %s (%s) by %s', r.job_id, r.name, r.leased_by), ', ' ORDER BY r.claimed_at, r.job_id)
			 FROM (SELECT x.* FROM event_queue.job x
				WHERE x.job_id = ANY (other.jobs) AND x.leased_by IS NOT NULL AND event_queue.tenant_visible(x.tenant_id)
				ORDER BY x.claimed_at, x.job_id LIMIT 3) r),
			CASE WHEN other.active > 3 THEN ', ...' END);
		n := n + 1;
	END IF;
	IF q.queue_id > 2 AND NOT EXISTS (SELECT FROM event_queue.handler h WHERE h.queue_id = q.queue_id AND h.job_name IN (j.name, '*'))
		AND EXISTS (SELECT FROM event_queue.handler h WHERE h.queue_id = q.queue_id) THEN
		RETURN QUERY SELECT 'no handler', NULL::timestamptz,
			format('the queue has handlers for %s, none for %s; an outside worker may claim it',
				string_agg(h.job_name, ', ' ORDER BY h.job_name), j.name)
		FROM event_queue.handler h WHERE h.queue_id = q.queue_id;
		n := n + 1;
	END IF;
	IF n = 0 THEN
		RETURN QUERY SELECT 'ready', NULL::timestamptz, concat_ws('; ',
			format('the first of its queue has been due for %s', clock_timestamp() -
				(SELECT d.oldest_ready FROM event_queue.queue_depth(q.queue_id) d)),
			CASE WHEN q.queue_id > 2 AND NOT EXISTS (SELECT FROM event_queue.handler h WHERE h.queue_id = q.queue_id)
				THEN 'no handler inside the database: it waits for an outside worker' END);
	END IF;
END
$$;
COMMENT ON FUNCTION explain_job(bigint) IS
'Why a job is not running: paused, delayed until, group busy with, waits for, rate limited until, ready, ...';

/*
 * workers: the extension's background processes in this database.
 */
CREATE FUNCTION workers(OUT pid int, OUT kind text, OUT jobs_done bigint, OUT current_job bigint)
RETURNS SETOF record
LANGUAGE C VOLATILE AS 'MODULE_PATHNAME', 'eq_workers';
COMMENT ON FUNCTION workers() IS
'Background workers of this database: the scheduler and its executors, how many jobs each has run, and which one it runs now.';

/*
 * health: one line a check; all ok means that the flow moves.
 */
CREATE FUNCTION health(OUT "check" text, OUT ok boolean, OUT detail text) RETURNS SETOF record
LANGUAGE sql VOLATILE SET search_path = pg_catalog, event_queue, pg_temp AS $$
	SELECT 'scheduler', count(*) = 1, format('%s running', count(*))
	FROM event_queue.workers() WHERE kind = 'scheduler'
	UNION ALL
	SELECT 'executors', count(*) = current_setting('event_queue.executors')::int,
		format('%s of %s running', count(*), current_setting('event_queue.executors'))
	FROM event_queue.workers() WHERE kind = 'executor'
	UNION ALL
	SELECT 'open appends', coalesce(max(clock_timestamp() - a.xact_start) < '1 minute', true),
		CASE WHEN count(*) = 0 THEN 'none' ELSE format('oldest open for %s', max(clock_timestamp() - a.xact_start)) END
	FROM event_queue.open_appends() o JOIN pg_stat_activity a USING (pid)
	UNION ALL
	SELECT 'rules', count(*) < 10000, format('%s events behind', count(*))
	FROM (SELECT FROM event_queue.event_store e
		  WHERE e.position > (SELECT greatest((SELECT c.position FROM event_queue.rule_checkpoint c), min(r.start_position))
							  FROM event_queue.rule r WHERE r.enabled) LIMIT 10000) behind
	UNION ALL
	SELECT 'queue ' || s.queue, NOT s.sla_missed AND s.dead = 0,
		format('%s jobs, %s dead, oldest ready %s', s.depth, s.dead, coalesce(s.oldest_ready_age::text, 'none'))
	FROM event_queue.queue_status s
$$;
COMMENT ON FUNCTION health() IS
'One line for each check: workers, open appends, rules, and each queue (SLA missed or dead letters: not ok).';

/*
 * grants.sql: one function for each kind of role.  Last in the script, since
 * it names what all other parts made.
 */

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA event_queue FROM PUBLIC;
REVOKE ALL ON ALL PROCEDURES IN SCHEMA event_queue FROM PUBLIC;
GRANT EXECUTE ON FUNCTION event_queue.version(), check_name(text, text, int), current_tenant(), resolve_tenant(text),
	tenant_visible(text), uuid_v7(), event_matches(text, text), map_payload(jsonb, jsonb),
	event_as_json(event_store), check_filter(jsonb), matches_filter(event_store, jsonb), merge_patch(jsonb, jsonb),
	json_diff(jsonb, jsonb), event_bucket(text, text, text, int),
	job_lane(boolean, text), check_payload(jsonb) TO PUBLIC;

/*
 * grant_access: what the four grant functions share: use of the schema, and
 * the binding to a tenant.
 */
CREATE FUNCTION grant_access(role regrole, tenant_id text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, event_queue, pg_temp AS $$
#variable_conflict use_column
DECLARE
	this_role text := (SELECT rolname FROM pg_roles WHERE oid = $1);
	bound_to text;
BEGIN
	EXECUTE format('GRANT USAGE ON SCHEMA event_queue TO %I', this_role);
	SELECT t.tenant_id INTO bound_to FROM event_queue.tenant_role t WHERE t.role_name = this_role;
	IF $2 IS NOT NULL THEN
		PERFORM event_queue.check_name('tenant', $2);
		IF bound_to IS NOT NULL AND bound_to <> $2 THEN
			RAISE EXCEPTION USING ERRCODE = 'EQ003',
				MESSAGE = format('role "%s" is bound to another tenant', this_role),
				HINT = 'Take its rights away with event_queue.revoke_access first.';
		END IF;
		INSERT INTO event_queue.tenant_role VALUES (this_role, $2) ON CONFLICT DO NOTHING;
	END IF;
END
$$;
COMMENT ON FUNCTION grant_access(regrole, text) IS 'Internal. What the grant functions share.';

/* What whoever reads events needs, of the tenant that the role is bound to. */
CREATE FUNCTION grant_reader(role regrole) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, event_queue, pg_temp AS $$
BEGIN
	EXECUTE format('GRANT SELECT ON event_queue.event_store, event_queue.aggregate_snapshot TO %s', role);
	EXECUTE format('GRANT EXECUTE ON FUNCTION
		event_queue.aggregate_version(text, text, text),
		event_queue.read_aggregate(text, text, int, int, text, bigint),
		event_queue.read_aggregate_backward(text, text, int, int, text, bigint),
		event_queue.read_all(bigint, int, text, jsonb), event_queue.read_plan(jsonb),
		event_queue.watermark(), event_queue.generation(), event_queue.last_position(),
		event_queue.aggregate_state(text, text, int, timestamptz, text),
		event_queue.aggregate_diff(text, text, int, int, text),
		event_queue.replay(jsonb, text, bigint, bigint, boolean, int) TO %s', role);
	EXECUTE format('GRANT EXECUTE ON PROCEDURE event_queue.wait_for_events(bigint, interval, bigint) TO %s', role);
END
$$;
COMMENT ON FUNCTION grant_reader(regrole) IS 'Internal. What the grant functions give to whoever reads events.';

/*
 * grant_producer: the role may append events, enqueue jobs, and read events.
 * Arguments: tenant_id binds the role, and the members of the role, to one
 * tenant; NULL trusts it with all.
 * Errors: EQ003 the role is bound to another tenant, EQ006 tenant, 42704 no
 * such role, 42501 unless the caller owns the extension or is a superuser.
 */
CREATE FUNCTION grant_producer(role regrole, tenant_id text DEFAULT NULL) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, event_queue, pg_temp AS $$
BEGIN
	PERFORM event_queue.grant_access(role, tenant_id);
	PERFORM event_queue.grant_reader(role);
	EXECUTE format('GRANT EXECUTE ON FUNCTION
		event_queue.append(text, text, text, jsonb, text, uuid, jsonb, text),
		event_queue.append(text, text, text, jsonb, int, uuid, jsonb, text),
		event_queue.append_many(text, text, jsonb, text, text),
		event_queue.append_many(text, text, jsonb, int, text),
		event_queue.append_batch(jsonb, text),
		event_queue.revert_aggregate(text, text, int, int, text),
		event_queue.take_snapshot(text, text, text),
		event_queue.enqueue(text, text, jsonb, interval, timestamptz, int, int, text, interval, text, jsonb, text, text,
			interval, text, text, interval, bigint[], interval, float8, interval[]),
		event_queue.enqueue_many(text, text, jsonb[], interval, timestamptz, int, text[], jsonb, text),
		event_queue.enqueue_jobs(jsonb, text, text), event_queue.enqueue_flow(jsonb, text, text, int),
		event_queue.enqueue_batch(jsonb, jsonb, text, text), event_queue.cancel_job(bigint)
		TO %s', role);
	PERFORM event_queue.grant_outcomes(role);
END
$$;
COMMENT ON FUNCTION grant_producer(regrole, text) IS
'Lets a role append events, enqueue jobs and read events; with a tenant, of this tenant only.';

/* grant_outcomes: what became of jobs, for those who made them and those who do them. */
CREATE FUNCTION grant_outcomes(role regrole) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, event_queue, pg_temp AS $$
BEGIN
	EXECUTE format('GRANT SELECT ON event_queue.queue, event_queue.job, event_queue.jobs, event_queue.dead_letter,
		event_queue.job_history, event_queue.history, event_queue.job_dependency, event_queue.job_log TO %s', role);
	EXECUTE format('GRANT EXECUTE ON FUNCTION event_queue.job_outcome(bigint), event_queue.dependency_results(bigint) TO %s', role);
	EXECUTE format('GRANT EXECUTE ON PROCEDURE event_queue.await_job(bigint, interval, jsonb) TO %s', role);
END
$$;
COMMENT ON FUNCTION grant_outcomes(regrole) IS 'Internal. Lets a role see what became of jobs.';

/*
 * grant_consumer: the role may create subscriptions, fetch events and
 * acknowledge them; with a tenant, of this tenant only.  Arguments and errors
 * as grant_producer.
 */
CREATE FUNCTION grant_consumer(role regrole, tenant_id text DEFAULT NULL) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, event_queue, pg_temp AS $$
BEGIN
	PERFORM event_queue.grant_access(role, tenant_id);
	PERFORM event_queue.grant_reader(role);
	EXECUTE format('GRANT SELECT, INSERT, DELETE ON event_queue.subscription TO %s', role);
	EXECUTE format('GRANT SELECT, INSERT, UPDATE ON event_queue.subscription_bucket TO %s', role);
	EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON event_queue.subscription_parked TO %s', role);
	EXECUTE format('GRANT SELECT ON event_queue.subscription_status TO %s', role);
	EXECUTE format('GRANT EXECUTE ON FUNCTION
		event_queue.create_subscription(text, jsonb, bigint, int, text), event_queue.drop_subscription(text),
		event_queue.reset_subscription(text, bigint), event_queue.subscription_id_of(text),
		event_queue.fetch_events(text, int), event_queue.ack(text, bigint), event_queue.leave_subscription(text),
		event_queue.park_event(text, bigint, text), event_queue.retry_parked(text, text, text),
		event_queue.discard_parked(text, text, text, text), event_queue.parked_events(text, text, text, text),
		event_queue.fetch_parked(text, int), event_queue.ack_parked(text, bigint),
		event_queue.lock_subscription_bucket(int, int), event_queue.unpark_if_done(int, text, text, text),
		event_queue.subscription_members() TO %s', role);
END
$$;
COMMENT ON FUNCTION grant_consumer(regrole, text) IS
'Lets a role create subscriptions, fetch events and acknowledge them; with a tenant, of this tenant only.';

/*
 * grant_worker: the role may claim and settle jobs.  Arguments and errors as
 * grant_producer.
 */
CREATE FUNCTION grant_worker(role regrole, tenant_id text DEFAULT NULL) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, event_queue, pg_temp AS $$
BEGIN
	PERFORM event_queue.grant_access(role, tenant_id);
	PERFORM event_queue.grant_outcomes(role);
	EXECUTE format('GRANT INSERT ON event_queue.job_log TO %s', role);
	EXECUTE format('GRANT EXECUTE ON PROCEDURE
		event_queue.claim_wait(text, int, interval, jsonb, text, interval, text) TO %s', role);
	EXECUTE format('GRANT EXECUTE ON FUNCTION
		event_queue.claim(text, int, text, interval, text[], text, boolean),
		event_queue.complete(bigint, uuid, jsonb), event_queue.complete_many(bigint[], uuid[], jsonb[]),
		event_queue.complete_and_claim(bigint, uuid, text, int, text, interval, text[], text, boolean, jsonb),
		event_queue.complete_many_and_claim(bigint[], uuid[], text, int, text, interval, text[], text, boolean, jsonb[]),
		event_queue.report_progress(bigint, uuid, jsonb), event_queue.log_job(bigint, uuid, text, text),
		event_queue.fail(bigint, uuid, text, text, text, interval, boolean),
		event_queue.release(bigint, uuid, interval),
		event_queue.extend_lease(bigint, uuid, interval)
		TO %s', role);
END
$$;
COMMENT ON FUNCTION grant_worker(regrole, text) IS
'Lets a role claim, complete, fail and release jobs; with a tenant, of this tenant only.';

/*
 * grant_observer: the role may read everything of the extension and change
 * nothing.  Arguments and errors as grant_producer.
 */
CREATE FUNCTION grant_observer(role regrole, tenant_id text DEFAULT NULL) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, event_queue, pg_temp AS $$
BEGIN
	PERFORM event_queue.grant_access(role, tenant_id);
	EXECUTE format('GRANT SELECT ON event_queue.event_store, event_queue.queue, event_queue.job,
		event_queue.dead_letter, event_queue.job_history, event_queue.history, event_queue.job_log, event_queue.job_dependency,
		event_queue.group_rate, event_queue.queue_depths, event_queue.rule, event_queue.handler,
		event_queue.schedule, event_queue.channel, event_queue.rule_checkpoint,
		event_queue.jobs, event_queue.dead_letters, event_queue.queue_status,
		event_queue.rules, event_queue.handlers, event_queue.schedules, event_queue.watermark_blockers,
		event_queue.subscription, event_queue.subscription_bucket, event_queue.subscription_parked,
		event_queue.subscription_status, event_queue.reducer, event_queue.event_partition,
		event_queue.partition_policy TO %s', role);
	PERFORM event_queue.grant_reader(role);
	EXECUTE format('GRANT EXECUTE ON FUNCTION
		event_queue.trace(uuid, text), event_queue.subscription_members(), event_queue.open_appends(), event_queue.queue_counters(),
		event_queue.queue_depth(int), event_queue.queue_limits(int), event_queue.explain_job(bigint), event_queue.dependency_results(bigint), event_queue.workers(),
		event_queue.health(), event_queue.queue_id_of(text) TO %s', role);
END
$$;
COMMENT ON FUNCTION grant_observer(regrole, text) IS
'Lets a role read events, jobs, dead letters, status and health; with a tenant, rows of this tenant only.';

/*
 * grant_admin: the role may call every function and change the configuration.
 * An admin is trusted with all tenants.  It still can't change events.
 * Errors: as grant_producer.
 */
CREATE FUNCTION grant_admin(role regrole) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, event_queue, pg_temp AS $$
BEGIN
	PERFORM event_queue.grant_producer(role);
	PERFORM event_queue.grant_worker(role);
	PERFORM event_queue.grant_consumer(role);
	PERFORM event_queue.grant_observer(role);
	EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON event_queue.queue, event_queue.job,
		event_queue.dead_letter, event_queue.job_history,
		event_queue.job_dependency, event_queue.job_log, event_queue.job_throttle, event_queue.group_rate,
		event_queue.job_review,
		event_queue.schedule, event_queue.channel, event_queue.subscription, event_queue.subscription_bucket,
		event_queue.subscription_parked, event_queue.aggregate_snapshot TO %s', role);
	EXECUTE format('GRANT SELECT, INSERT, UPDATE ON event_queue.partition_policy TO %s', role);
	EXECUTE format('GRANT SELECT, DELETE ON event_queue.reducer TO %s', role);
	-- Not INSERT: who could name the owner of a rule or handler could run code as that role.
	EXECUTE format('GRANT SELECT, DELETE ON event_queue.rule, event_queue.handler TO %s', role);
	EXECUTE format('GRANT UPDATE (enabled, start_position) ON event_queue.rule TO %s', role);
	EXECUTE format('GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA event_queue TO %s', role);
	EXECUTE format('GRANT EXECUTE ON ALL PROCEDURES IN SCHEMA event_queue TO %s', role);
	-- What needs the owner of the tables anyway, or would let history be bent.
	EXECUTE format('REVOKE EXECUTE ON FUNCTION event_queue.skip_positions(bigint), event_queue.open_guard(boolean),
		event_queue.store_reducer(text, text, int, text), event_queue.new_generation(),
		event_queue.grant_reader(regrole), event_queue.grant_outcomes(regrole), event_queue.grant_consumer(regrole, text),
		event_queue.grant_access(regrole, text), event_queue.grant_producer(regrole, text),
		event_queue.grant_worker(regrole, text), event_queue.grant_observer(regrole, text),
		event_queue.grant_admin(regrole), event_queue.revoke_access(regrole) FROM %s', role);
END
$$;
COMMENT ON FUNCTION grant_admin(regrole) IS
'Lets a role do all that the functions offer: queues, rules, handlers, schedules, dead letters, of every tenant.';

/*
 * revoke_access: takes away all that the grant functions gave, and the binding
 * to a tenant.  Errors: 42704 no such role.
 */
CREATE FUNCTION revoke_access(role regrole) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, event_queue, pg_temp AS $$
BEGIN
	EXECUTE format('REVOKE ALL ON ALL FUNCTIONS IN SCHEMA event_queue FROM %s', role);
	EXECUTE format('REVOKE ALL ON ALL PROCEDURES IN SCHEMA event_queue FROM %s', role);
	EXECUTE format('REVOKE ALL ON ALL TABLES IN SCHEMA event_queue FROM %s', role);
	EXECUTE format('REVOKE ALL ON SCHEMA event_queue FROM %s', role);
	DELETE FROM event_queue.tenant_role t
	WHERE t.role_name = (SELECT rolname FROM pg_roles WHERE oid = role);
END
$$;
COMMENT ON FUNCTION revoke_access(regrole) IS
'Takes away all that the grant functions gave to a role, and its binding to a tenant.';

REVOKE ALL ON FUNCTION grant_access(regrole, text), grant_producer(regrole, text), grant_worker(regrole, text),
	grant_observer(regrole, text), grant_admin(regrole), revoke_access(regrole), grant_reader(regrole),
	grant_consumer(regrole, text), grant_outcomes(regrole) FROM PUBLIC;
