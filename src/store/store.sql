/*
 * store.sql: the event store's table, its guard, and its functions.
 *
 * Positions come from shared memory (watermark.c), in blocks that the sequence
 * event_position hands out, one nextval a block: so no position is given
 * twice, also after a crash.
 */

CREATE SEQUENCE event_queue_internal.event_position AS bigint INCREMENT BY 8192 MINVALUE 1;
COMMENT ON SEQUENCE event_queue_internal.event_position IS
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
SELECT pg_catalog.pg_extension_config_dump('event_queue_internal.event_position', '');

CREATE SEQUENCE event_queue_internal.event_generation AS bigint;
COMMENT ON SEQUENCE event_queue_internal.event_generation IS
'Internal. Identity of the server that gave the last positions; another one begins a new generation.';
SELECT pg_catalog.pg_extension_config_dump('event_queue_internal.event_generation', '');

CREATE TABLE event_queue.event_watermark (
	one_row			boolean PRIMARY KEY DEFAULT true CHECK (one_row),
	position		bigint NOT NULL,
	published_at	timestamptz NOT NULL
);
COMMENT ON TABLE event_queue.event_watermark IS
'The watermark as standbys and logical subscribers see it, written every event_queue.publish_interval.';
INSERT INTO event_queue.event_watermark (position, published_at) VALUES (0, now());

/*
 * refuse_change: the append-only guard.  Raises EQ007 and logs who tried.
 */
CREATE FUNCTION event_queue_internal.refuse_change() RETURNS trigger
LANGUAGE C AS 'MODULE_PATHNAME', 'eq_refuse_change';
COMMENT ON FUNCTION event_queue_internal.refuse_change() IS
'Internal. Trigger: refuses UPDATE, DELETE and TRUNCATE of the event store with EQ007.';
CREATE TRIGGER refuse_change BEFORE UPDATE OR DELETE ON event_store
	FOR EACH ROW EXECUTE FUNCTION event_queue_internal.refuse_change();
CREATE TRIGGER refuse_truncate BEFORE TRUNCATE ON event_store
	FOR EACH STATEMENT EXECUTE FUNCTION event_queue_internal.refuse_change();
ALTER TABLE event_store ENABLE ALWAYS TRIGGER refuse_change;
ALTER TABLE event_store ENABLE ALWAYS TRIGGER refuse_truncate;

/*
 * events_loaded: COPY and pg_restore write rows beside append; positions that
 * come next must lie above them.
 */
CREATE FUNCTION event_queue_internal.events_loaded() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, event_queue, pg_temp AS $$
DECLARE
	highest bigint := (SELECT max(position) FROM event_store);
BEGIN
	IF highest IS NOT NULL THEN
		PERFORM event_queue_internal.skip_positions(highest);
	END IF;
	RETURN NULL;
END
$$;
COMMENT ON FUNCTION event_queue_internal.events_loaded() IS
'Internal. Trigger: after rows were loaded by COPY or INSERT, moves the position counter above them.';
CREATE TRIGGER events_loaded AFTER INSERT ON event_store
	FOR EACH STATEMENT EXECUTE FUNCTION event_queue_internal.events_loaded();

CREATE FUNCTION event_queue_internal.skip_positions(up_to bigint) RETURNS void
LANGUAGE C STRICT AS 'MODULE_PATHNAME', 'eq_skip_positions';
COMMENT ON FUNCTION event_queue_internal.skip_positions(bigint) IS
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
 * append: appends one event to an aggregate, in the caller's transaction.
 *
 * Arguments:
 * - expected_version: the version before the append: a number, 'any' (no check), 'no_stream'
 *   (the aggregate has no event yet) or 'exists' (it has one).
 * - id: makes the call safe to repeat: the same id with the same content returns the first
 *   call's result with duplicate = true.
 * - tenant_id: default: the session's tenant.
 *
 * Errors: EQ001 wrong expected version (DETAIL is JSON with the current one), EQ002 the id was
 * used with other content, EQ003/EQ004 tenant, EQ005 payload too large, EQ006 name, EQ009
 * expected_version is none of the above.
 * Isolation: sees the latest committed version at every level, and waits for an open transaction
 * that appended to the same aggregate.
 * Example:
 *	SELECT position FROM event_queue.append('lead', 'L1', 'lead.created', '{"name": "Ana"}', expected_version => 'no_stream');
 *	SELECT version FROM event_queue.append('lead', 'L1', 'lead.moved', '{"step": 2}', expected_version => 1);
 */
CREATE FUNCTION append(
	aggregate_type text, aggregate_id text, event_type text,
	event_data jsonb DEFAULT '{}', expected_version text DEFAULT 'any',
	id uuid DEFAULT NULL, metadata jsonb DEFAULT '{}', tenant_id text DEFAULT NULL)
RETURNS appended_event
LANGUAGE C VOLATILE AS 'MODULE_PATHNAME', 'eq_append';
COMMENT ON FUNCTION append(text, text, text, jsonb, text, uuid, jsonb, text) IS
'Appends one event to an aggregate. expected_version: a version, any, no_stream or exists. Repeating a call with the same id returns the first result.';

/*
 * The same with a number, of which drivers make a parameter of type int.
 * Example:
 *	PREPARE move_lead (jsonb, int) AS
 *		SELECT version FROM event_queue.append('lead', 'L7', 'lead.moved', $1, $2);
 *	EXECUTE move_lead('{"step": 1}', 0);
 *	DEALLOCATE move_lead;
 */
CREATE FUNCTION append(
	aggregate_type text, aggregate_id text, event_type text,
	event_data jsonb, expected_version int,
	id uuid DEFAULT NULL, metadata jsonb DEFAULT '{}', tenant_id text DEFAULT NULL)
RETURNS appended_event
LANGUAGE C VOLATILE AS 'MODULE_PATHNAME', 'eq_append';
COMMENT ON FUNCTION append(text, text, text, jsonb, int, uuid, jsonb, text) IS
'Appends one event to an aggregate that must be at expected_version (0: it has no event yet).';

/*
 * append_many: appends events to one aggregate, all or none.
 *
 * Arguments: events is a JSON array of {"event_type", "event_data", "id", "metadata"}, of which
 * only event_type must be there; at most 10000.  All of them have an id or none has: with ids
 * the call is safe to repeat.  The others as in append.
 * Result: a row for each event, in their order.
 * Errors: as append; EQ027 if some of the ids were written before and others were not (DETAIL is
 * JSON), EQ009 malformed events.
 * Isolation: as append.
 * Example:
 *	SELECT version FROM event_queue.append_many('lead', 'L1',
 *		'[{"event_type": "lead.moved", "event_data": {"step": 3}}, {"event_type": "lead.won"}]');
 */
CREATE FUNCTION append_many(
	aggregate_type text, aggregate_id text, events jsonb,
	expected_version text DEFAULT 'any', tenant_id text DEFAULT NULL)
RETURNS SETOF appended_event
LANGUAGE C VOLATILE AS 'MODULE_PATHNAME', 'eq_append_many';
COMMENT ON FUNCTION append_many(text, text, jsonb, text, text) IS
'Appends several events to one aggregate, all or none. events: a JSON array of {event_type, event_data, id, metadata}.';

/*
 * The same with a number, of which drivers make a parameter of type int.
 * Example:
 *	SELECT version FROM event_queue.append_many('lead', 'L8',
 *		'[{"event_type": "lead.created"}, {"event_type": "lead.moved"}]', expected_version => 0);
 */
CREATE FUNCTION append_many(
	aggregate_type text, aggregate_id text, events jsonb,
	expected_version int, tenant_id text DEFAULT NULL)
RETURNS SETOF appended_event
LANGUAGE C VOLATILE AS 'MODULE_PATHNAME', 'eq_append_many';
COMMENT ON FUNCTION append_many(text, text, jsonb, int, text) IS
'Appends several events to an aggregate that must be at expected_version (0: it has no event yet).';

/*
 * append_batch: appends events to several aggregates, all or none.
 *
 * Arguments: batch is a JSON array of {"aggregate_type", "aggregate_id", "expected_version",
 * "events"}, at most 1000 aggregates, each once, and 10000 events; events as in append_many,
 * expected_version as in append.  Two batches can't deadlock with each other, whatever
 * aggregates they share.
 * Result: a row for each event, in the order of the batch, which is also the order of the
 * positions.
 * Errors and isolation: as append_many.
 * Example:
 *	SELECT aggregate_id, version FROM event_queue.append_batch('[
 *		{"aggregate_type": "lead", "aggregate_id": "L2", "events": [{"event_type": "lead.created"}]},
 *		{"aggregate_type": "team", "aggregate_id": "T1", "events": [{"event_type": "team.joined", "event_data": {"lead": "L2"}}]}]');
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
 * aggregate_version: how many events an aggregate has; 0 if none.
 * Isolation: by the statement's snapshot.  Invoker's rights and row security.
 * Example:
 *	SELECT event_queue.aggregate_version('lead', 'L1');
 */
CREATE FUNCTION aggregate_version(aggregate_type text, aggregate_id text, tenant_id text DEFAULT NULL)
RETURNS int
LANGUAGE sql STABLE PARALLEL RESTRICTED SET search_path = pg_catalog, event_queue, pg_temp AS $$
	SELECT coalesce(
		(SELECT max(e.version) FROM event_queue.event_store e
		 WHERE e.aggregate_id = $2 COLLATE "C" AND e.aggregate_type = $1 COLLATE "C" AND e.tenant_id = event_queue.resolve_tenant($3) COLLATE "C"),
		(SELECT max(s.version) FROM event_queue.aggregate_snapshot s
		 WHERE s.aggregate_id = $2 COLLATE "C" AND s.aggregate_type = $1 COLLATE "C" AND s.tenant_id = event_queue.resolve_tenant($3) COLLATE "C"),
		0)
$$;
COMMENT ON FUNCTION aggregate_version(text, text, text) IS
'Current version of an aggregate: the number of its events, 0 if it has none.';

/*
 * read_aggregate: the events of one aggregate, oldest first.
 * Arguments: versions from_version to to_version, both included; max_events: at
 * most so many (NULL: all; below 0: error 2201W, as of LIMIT).
 * Isolation: by the statement's snapshot.  Invoker's rights and row security.
 *
 * Its body is parsed when it is created, so that no search_path can change what it
 * means, and the planner puts it into the query that calls it: it is as fast as the
 * SELECT that it is.
 * Example:
 *	SELECT version, event_type FROM event_queue.read_aggregate('lead', 'L1', from_version => 2);
 */
CREATE FUNCTION read_aggregate(
	aggregate_type text, aggregate_id text,
	from_version int DEFAULT 1, to_version int DEFAULT NULL, tenant_id text DEFAULT NULL,
	max_events int DEFAULT NULL)
RETURNS SETOF event_store
LANGUAGE sql STABLE PARALLEL RESTRICTED ROWS 100
BEGIN ATOMIC
	SELECT e.*
	FROM event_queue.event_store e
	WHERE e.aggregate_id = $2 AND e.aggregate_type = $1
	  AND e.tenant_id = event_queue.resolve_tenant($5)
	  AND e.version >= $3 AND e.version <= coalesce($4, 2147483647)
	ORDER BY e.version
	LIMIT $6;
END;
COMMENT ON FUNCTION read_aggregate(text, text, int, int, text, int) IS
'Events of one aggregate in order of version, from from_version to to_version.';

/*
 * read_aggregate_backward: the same, newest first, from to_version down.  A function of
 * its own: an order that an argument decides costs a tenth of a read.
 * Arguments, isolation: as read_aggregate.
 * Example:
 *	SELECT version, event_type FROM event_queue.read_aggregate_backward('lead', 'L1', max_events => 10);
 */
CREATE FUNCTION read_aggregate_backward(
	aggregate_type text, aggregate_id text,
	from_version int DEFAULT 1, to_version int DEFAULT NULL, tenant_id text DEFAULT NULL,
	max_events int DEFAULT NULL)
RETURNS SETOF event_store
LANGUAGE sql STABLE PARALLEL RESTRICTED ROWS 100
BEGIN ATOMIC
	SELECT e.*
	FROM event_queue.event_store e
	WHERE e.aggregate_id = $2 AND e.aggregate_type = $1
	  AND e.tenant_id = event_queue.resolve_tenant($5)
	  AND e.version >= $3 AND e.version <= coalesce($4, 2147483647)
	ORDER BY e.version DESC
	LIMIT $6;
END;
COMMENT ON FUNCTION read_aggregate_backward(text, text, int, int, text, int) IS
'Events of one aggregate, newest first, from to_version down to from_version.';

/*
 * read_all: events after a position, in order, never past the watermark: what
 * a consumer that stores the last position it saw can rely on not to skip any.
 * Arguments: after_position is the last one seen (0: from the start); max_events is 1
 * to 100000; tenant_id narrows to one tenant; filter is a JSON object with any
 * of event_type (a pattern as in event_matches), aggregate_type, tenant_id and
 * data (a JSON value that event_data contains).  Reads by the primary key, or
 * by an index of create_event_index: read_plan(filter) says which.
 * Errors: EQ003 tenant, EQ009 bad max_events, position or filter, EQ028 after_position is a
 * position that the store has lost by a restore (DETAIL is JSON with the
 * position to go on from).
 * Isolation: reads what is committed at the call; under REPEATABLE READ and
 * SERIALIZABLE it ends before the first event that the snapshot can't see.  On
 * a standby it reads up to the watermark that the primary has published.
 * Example:
 *	SELECT position, event_type FROM event_queue.read_all(after_position => 0, filter => '{"event_type": "lead.*"}');
 */
CREATE FUNCTION read_all(
	after_position bigint DEFAULT 0, max_events int DEFAULT 1000, tenant_id text DEFAULT NULL, filter jsonb DEFAULT NULL)
RETURNS SETOF event_store
LANGUAGE C VOLATILE ROWS 1000 AS 'MODULE_PATHNAME', 'eq_read_all';
COMMENT ON FUNCTION read_all(bigint, int, text, jsonb) IS
'Events after a position, in order, up to the watermark; remember the last position and ask again.';

/*
 * wait_for_events: sleeps until the watermark is above a position, without
 * polling and without a snapshot or transaction id; then read_all has news.
 * A procedure, since a function can't give back the snapshot of the statement
 * that calls it: CALL it by itself, outside a transaction block.
 * Arguments: timeout is how long at most; watermark: pass NULL.
 * Result: the watermark, which is not above the position if the time was over.
 * Errors: EQ008 inside a transaction, EQ009 timeout below 0 or above 24 hours.
 * Example:
 *	CALL event_queue.wait_for_events(0, '10 seconds');
 */
CREATE PROCEDURE wait_for_events(after_position bigint, timeout interval, INOUT watermark bigint DEFAULT NULL)
LANGUAGE C AS 'MODULE_PATHNAME', 'eq_wait_for_events';
COMMENT ON PROCEDURE wait_for_events(bigint, interval, bigint) IS
'Sleeps until there are events after a position, or the time is over; returns the watermark.';

/*
 * read_plan: by which index each table of events is read for a filter.
 * Arguments and errors: the filter of read_all.
 * Example:
 *	SELECT table_name, index_name FROM event_queue.read_plan('{"event_type": "lead.won"}');
 */
CREATE FUNCTION read_plan(filter jsonb DEFAULT NULL, OUT table_name text, OUT index_name text, OUT equal_to text)
RETURNS SETOF record
LANGUAGE C VOLATILE AS 'MODULE_PATHNAME', 'eq_read_plan';
COMMENT ON FUNCTION read_plan(jsonb) IS
'Which index read_all, subscriptions and replay walk for a filter, and the value they look up in its first column.';

CREATE FUNCTION event_queue_internal.check_filter(filter jsonb) RETURNS jsonb
LANGUAGE C STABLE STRICT AS 'MODULE_PATHNAME', 'eq_check_filter';
COMMENT ON FUNCTION event_queue_internal.check_filter(jsonb) IS
'Internal. Returns the filter, or raises EQ009, EQ023 or EQ003 if it is none.';

/*
 * matches_filter: does an event pass a filter of read_all?  NULL lets all pass.
 */
CREATE FUNCTION event_queue_internal.matches_filter(event event_store, filter jsonb) RETURNS boolean
LANGUAGE sql STABLE PARALLEL SAFE SET search_path = pg_catalog, event_queue, pg_temp AS $$
	SELECT ($2 ->> 'event_type' IS NULL OR event_queue.event_matches(($1).event_type, $2 ->> 'event_type'))
		AND ($2 ->> 'aggregate_type' IS NULL OR ($1).aggregate_type = $2 ->> 'aggregate_type')
		AND ($2 ->> 'tenant_id' IS NULL OR ($1).tenant_id = $2 ->> 'tenant_id')
		AND (coalesce($2 -> 'data', 'null') = 'null' OR ($1).event_data @> ($2 -> 'data'))
$$;
COMMENT ON FUNCTION event_queue_internal.matches_filter(event_store, jsonb) IS 'Internal. True if an event passes a filter as read_all takes it.';

/*
 * watermark: the position up to which each event is committed or will never be.  On a standby:
 * the one that the primary has published.
 * Example:
 *	SELECT event_queue.watermark();
 */
CREATE FUNCTION watermark() RETURNS bigint
LANGUAGE C VOLATILE AS 'MODULE_PATHNAME', 'eq_watermark_sql';
COMMENT ON FUNCTION watermark() IS
'Highest position below which no open transaction can still commit an event.';

CREATE FUNCTION event_queue_internal.open_appends(OUT pid int, OUT lowest_position bigint) RETURNS SETOF record
LANGUAGE C VOLATILE AS 'MODULE_PATHNAME', 'eq_open_appends';
COMMENT ON FUNCTION event_queue_internal.open_appends() IS
'For views. Sessions of this database whose open transaction has appended, with the first position it took.';

CREATE VIEW watermark_blockers AS
	SELECT o.pid, a.usename, a.application_name, a.xact_start AS since,
		   a.state, a.query, o.lowest_position
	FROM event_queue_internal.open_appends() o
	LEFT JOIN pg_catalog.pg_stat_activity a USING (pid)
	WHERE event_queue_internal.is_unbound() OR o.pid = pg_catalog.pg_backend_pid()
	ORDER BY o.lowest_position;
COMMENT ON VIEW watermark_blockers IS
'Open transactions that have appended; the first line is the one that holds the watermark back.  To a role that is bound to a tenant: its own session.';

/*
 * generation: identifies the generation of the store, which changes when the server was restored
 * to an earlier point, copied or promoted.  The number before the dash is also in the upper bits
 * of each position (position >> 40).
 * Example:
 *	SELECT event_queue.generation();
 */
CREATE FUNCTION generation() RETURNS text
LANGUAGE C VOLATILE AS 'MODULE_PATHNAME', 'eq_generation_sql';
COMMENT ON FUNCTION generation() IS
'Identifies the generation of the store: changes with a restore to an earlier point, a copy or a promotion.';

/*
 * new_generation: begins a new generation of positions by hand, after a restore that the server
 * can't notice: of a copy of its disk that went on without a new timeline.
 * Example:
 *	SELECT event_queue.new_generation();
 */
CREATE FUNCTION new_generation() RETURNS text
LANGUAGE plpgsql SET search_path = pg_catalog, event_queue, pg_temp AS $$
BEGIN
	PERFORM event_queue_internal.skip_positions(((event_queue_internal.last_position() >> 40) + 1) << 40);
	PERFORM event_queue_internal.audit('new_generation', 'store', current_database());
	RETURN event_queue.generation();
END
$$;
COMMENT ON FUNCTION new_generation() IS
'Begins a new generation of positions, after a copy of the disk was restored to an earlier point.';

/*
 * uuid_v7: makes a time-ordered identifier (RFC 9562), as append does.
 * Example:
 *	SELECT version FROM event_queue.append('lead', 'L1', 'lead.called', id => event_queue.uuid_v7());
 */
CREATE FUNCTION uuid_v7() RETURNS uuid
LANGUAGE C VOLATILE PARALLEL SAFE AS 'MODULE_PATHNAME', 'eq_uuid_v7_sql';
COMMENT ON FUNCTION uuid_v7() IS
'A new time-ordered UUID (version 7).';
