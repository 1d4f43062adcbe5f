/*
 * state.sql: states of aggregates: reducers, snapshots, differences, reverting,
 * replay.
 */

CREATE TABLE reducer (
	aggregate_type	text COLLATE "C" PRIMARY KEY,
	function		text,
	owner			regrole NOT NULL,
	snapshot_every	int CHECK (snapshot_every > 0),
	created_at		timestamptz NOT NULL DEFAULT now(),
	revision		int NOT NULL DEFAULT 0
);
COMMENT ON TABLE reducer IS 'How events of a type of aggregate make its state; written by create_reducer.';
COMMENT ON COLUMN reducer.function IS 'NULL: event_data is merged (RFC 7396).';
COMMENT ON COLUMN reducer.owner IS 'The role that created the reducer, and as which its function runs.';
COMMENT ON COLUMN reducer.revision IS 'How often refresh_reducer said that its code changed.';
CREATE TRIGGER config_changed AFTER INSERT OR UPDATE OR DELETE ON reducer
	FOR EACH STATEMENT EXECUTE FUNCTION event_queue_internal.config_changed();
-- Without what dropped roles left: its OID may be another role's where the dump is restored.
SELECT pg_catalog.pg_extension_config_dump('reducer', 'WHERE EXISTS (SELECT FROM pg_catalog.pg_roles r WHERE r.oid = owner)');

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

CREATE TABLE event_queue_internal.snapshot_checkpoint (
	one_row		boolean PRIMARY KEY DEFAULT true CHECK (one_row),
	position	bigint NOT NULL
);
COMMENT ON TABLE event_queue_internal.snapshot_checkpoint IS 'Internal. Up to which event snapshots were ordered.';
SELECT pg_catalog.pg_extension_config_dump('event_queue_internal.snapshot_checkpoint', '');

/*
 * merge_patch: RFC 7396, JSON Merge Patch; the built-in reducer.
 */
CREATE FUNCTION event_queue_internal.merge_patch(target jsonb, patch jsonb) RETURNS jsonb
LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'eq_merge_patch_sql';
COMMENT ON FUNCTION event_queue_internal.merge_patch(jsonb, jsonb) IS
'Internal. JSON Merge Patch (RFC 7396): members of patch replace those of target, null removes.';

CREATE FUNCTION event_queue_internal.reducer_fingerprint(aggregate_type text) RETURNS bigint
LANGUAGE C VOLATILE STRICT AS 'MODULE_PATHNAME', 'eq_reducer_fingerprint_sql';
COMMENT ON FUNCTION event_queue_internal.reducer_fingerprint(text) IS
'Internal. Changes with the reducer of a type of aggregate: its name, its source, and that of what it calls.';

/*
 * create_reducer: names the function that makes the state of a type of aggregate from its
 * events.
 *
 * Arguments:
 * - function: takes (state jsonb, event event_queue.event_store), in SQL, PL/pgSQL or C, and
 *   returns the new state; IMMUTABLE or STABLE: what writes fails (25006).  The first state is '{}'.  It is found by the
 *   caller's search_path and runs as the caller, with search_path pg_catalog and its own
 *   schema.  NULL: event_data is merged into the state (RFC 7396).
 * - snapshot_every: a snapshot is taken each time an aggregate's version is a multiple of it;
 *   NULL: never.
 * - or_replace: the type gets the new reducer; snapshots that another reducer made are dropped.
 * - if_not_exists: the type keeps the reducer that it has, with a NOTICE if that differs.
 *
 * States follow the code: a snapshot is ignored once the source changes of the function, or of
 * any function whose name stands in it, and in turn in these.  A change that no source shows
 * needs refresh_reducer.
 *
 * Result: true.
 * Errors: EQ006 name, EQ009 snapshot_every, or both or_replace and if_not_exists, EQ018 the type
 * has a reducer, EQ020 no such function, EQ021 wrong signature, 42501 no right to call it, or to
 * create reducers.
 * Example:
 *	CREATE FUNCTION lead_state(state jsonb, event event_queue.event_store) RETURNS jsonb LANGUAGE sql IMMUTABLE AS
 *		$$ SELECT state || event.event_data || jsonb_build_object('last', event.event_type) $$;
 *	SELECT event_queue.create_reducer('lead', 'lead_state', snapshot_every => 50, or_replace => true);
 */
CREATE FUNCTION create_reducer(
	aggregate_type text, function text DEFAULT NULL, snapshot_every int DEFAULT 100,
	or_replace boolean DEFAULT false, if_not_exists boolean DEFAULT false)
RETURNS boolean
LANGUAGE C VOLATILE AS 'MODULE_PATHNAME', 'eq_create_reducer';
COMMENT ON FUNCTION create_reducer(text, text, int, boolean, boolean) IS
'Names the function that makes the state of a type of aggregate; without one, event_data is merged (RFC 7396).';

CREATE FUNCTION event_queue_internal.store_reducer(
	aggregate_type text, function text, snapshot_every int, owner regrole, or_replace boolean, if_not_exists boolean)
RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, event_queue, pg_temp AS $$
#variable_conflict use_column
DECLARE
	is_new boolean;
BEGIN
	PERFORM event_queue_internal.check_create_mode($5, $6);
	PERFORM event_queue_internal.check_name('aggregate type', $1);
	IF $3 < 1 THEN
		RAISE EXCEPTION USING ERRCODE = 'EQ009', MESSAGE = 'snapshot_every must be at least 1';
	END IF;
	INSERT INTO event_queue.reducer (aggregate_type, function, owner) VALUES ($1, $2, $4) ON CONFLICT DO NOTHING;
	is_new := FOUND;
	IF NOT is_new AND $6 THEN
		IF EXISTS (SELECT FROM event_queue.reducer r
				WHERE r.aggregate_type = $1 AND (r.function, r.snapshot_every) IS DISTINCT FROM ($2, $3)) THEN
			PERFORM event_queue_internal.notice_other_definition('reducer of aggregate type', $1);
		END IF;
		RETURN;
	ELSIF NOT is_new AND NOT $5 THEN
		RAISE EXCEPTION USING ERRCODE = 'EQ018', MESSAGE = format('aggregate type "%s" has a reducer', $1),
			HINT = 'or_replace => true replaces it; if_not_exists => true leaves it.';
	END IF;
	-- The first policy looks at the events from now on.
	IF NOT EXISTS (SELECT FROM event_queue.reducer r WHERE r.snapshot_every IS NOT NULL) THEN
		INSERT INTO event_queue_internal.snapshot_checkpoint (position) VALUES (event_queue.watermark())
		ON CONFLICT (one_row) DO UPDATE SET position = excluded.position;
	END IF;
	UPDATE event_queue.reducer r SET function = $2, owner = $4, snapshot_every = $3 WHERE r.aggregate_type = $1;
	DELETE FROM event_queue.aggregate_snapshot s
	WHERE s.aggregate_type = $1 AND NOT s.is_base AND s.reducer <> event_queue_internal.reducer_fingerprint($1);
END
$$;
COMMENT ON FUNCTION event_queue_internal.store_reducer(text, text, int, regrole, boolean, boolean) IS
'Internal. What create_reducer does as the owner of the extension, which alone may name the owner of a reducer.';

/*
 * refresh_reducer: drops the snapshots of a type of aggregate, after a change of its reducer's
 * code that no source shows: tables or views that it reads, SQL that it puts together, a library
 * in C.
 *
 * States are then folded from the first event again.  Where that is archived, the state up to
 * there stays, and a NOTICE says of how many aggregates.
 * Result: how many snapshots were dropped.
 * Errors: EQ006 name, EQ025 the type has no reducer.
 * Example:
 *	SELECT event_queue.refresh_reducer('lead');
 */
CREATE FUNCTION refresh_reducer(aggregate_type text) RETURNS bigint
LANGUAGE C VOLATILE AS 'MODULE_PATHNAME', 'eq_refresh_reducer';
COMMENT ON FUNCTION refresh_reducer(text) IS
'Drops the snapshots of a type of aggregate, after a change of its reducer''s code that no source shows; returns how many.';

/*
 * drop_reducer: removes the reducer and the snapshots of a type of aggregate; its event_data is
 * merged then.
 * Errors: EQ025.
 * Example:
 *	SELECT event_queue.drop_reducer('lead');
 */
CREATE FUNCTION drop_reducer(aggregate_type text) RETURNS boolean
LANGUAGE plpgsql SET search_path = pg_catalog, event_queue, pg_temp AS $$
#variable_conflict use_column
BEGIN
	DELETE FROM event_queue.reducer r WHERE r.aggregate_type = $1 COLLATE "C";
	IF NOT FOUND THEN
		RAISE EXCEPTION USING ERRCODE = 'EQ025', MESSAGE = format('aggregate type "%s" has no reducer', $1);
	END IF;
	DELETE FROM event_queue.aggregate_snapshot s WHERE s.aggregate_type = $1 COLLATE "C" AND NOT s.is_base;
	RETURN true;
END
$$;
COMMENT ON FUNCTION drop_reducer(text) IS
'Removes the reducer of a type of aggregate, whose event_data is then merged. EQ025 if it has none.';

/*
 * aggregate_state: the fold of an aggregate's events, from the nearest
 * snapshot.
 *
 * Arguments: at_version: after this version; at_time: after the last event that
 * was appended at this time or before; neither: now.
 * Result: the state; NULL if there was no event.
 * Errors: EQ003 tenant, EQ009 no such version, EQ046 the events are archived,
 * and whatever the reducer raises.
 * Isolation: by the statement's snapshot.  The reducer runs as its owner.
 * Example:
 *	SELECT event_queue.aggregate_state('lead', 'L1'), event_queue.aggregate_state('lead', 'L1', at_version => 2);
 */
CREATE FUNCTION aggregate_state(
	aggregate_type text, aggregate_id text, at_version int DEFAULT NULL, at_time timestamptz DEFAULT NULL,
	tenant_id text DEFAULT NULL)
RETURNS jsonb
LANGUAGE C STABLE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'eq_aggregate_state';
COMMENT ON FUNCTION aggregate_state(text, text, int, timestamptz, text) IS
'State of an aggregate now, after a version, or at a time; NULL if it had no event.';

/*
 * take_snapshot: keeps the present state of an aggregate; executors do it by
 * themselves (create_reducer).  Result: the version.  Errors: EQ025 no events.
 * Example:
 *	SELECT event_queue.take_snapshot('lead', 'L1');
 */
CREATE FUNCTION take_snapshot(aggregate_type text, aggregate_id text, tenant_id text DEFAULT NULL) RETURNS int
LANGUAGE C VOLATILE AS 'MODULE_PATHNAME', 'eq_take_snapshot_sql';
COMMENT ON FUNCTION take_snapshot(text, text, text) IS
'Keeps the present state of an aggregate, so that aggregate_state need not begin at its first event.';

/*
 * json_diff: the members in which two JSON values differ.  Objects are gone
 * into, 100 deep; deeper ones and arrays are compared as wholes, since each level
 * copies all that is below it.
 * Result: a row for each difference: its path, old value, new value; a value
 * that is not there is SQL NULL.
 */
CREATE FUNCTION event_queue_internal.json_diff(before jsonb, "after" jsonb, OUT path text[], OUT old_value jsonb, OUT new_value jsonb)
RETURNS SETOF record
LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, event_queue, pg_temp AS $$
	WITH RECURSIVE pair (path, old_value, new_value) AS (
		SELECT '{}'::text[], $1, $2
		UNION ALL
		SELECT p.path || k.key, p.old_value -> k.key, p.new_value -> k.key
		FROM pair p,
			LATERAL (SELECT jsonb_object_keys(p.old_value) AS key UNION SELECT jsonb_object_keys(p.new_value)) k
		WHERE jsonb_typeof(p.old_value) = 'object' AND jsonb_typeof(p.new_value) = 'object'
		  AND p.old_value <> p.new_value AND cardinality(p.path) < 100
	)
	SELECT p.path, p.old_value, p.new_value FROM pair p
	WHERE p.old_value IS DISTINCT FROM p.new_value
	  AND NOT (coalesce(jsonb_typeof(p.old_value), '') = 'object' AND coalesce(jsonb_typeof(p.new_value), '') = 'object'
		AND cardinality(p.path) < 100)
	ORDER BY p.path
$$;
COMMENT ON FUNCTION event_queue_internal.json_diff(jsonb, jsonb) IS
'Internal. Members in which two JSON values differ: path, old and new value; a missing one is NULL.';

/*
 * aggregate_diff: what changed in an aggregate's state between two versions.
 * Arguments: version 0 is before the first event.
 * Result: a row for each difference: its path, old value, new value; a value that
 * is not there is SQL NULL.  Arrays, and what is more than 100 objects deep, are compared
 * as wholes.  Errors and isolation: as aggregate_state.
 * Example:
 *	SELECT path, old_value, new_value FROM event_queue.aggregate_diff('lead', 'L1', 1, 3);
 */
CREATE FUNCTION aggregate_diff(
	aggregate_type text, aggregate_id text, from_version int, to_version int, tenant_id text DEFAULT NULL,
	OUT path text[], OUT old_value jsonb, OUT new_value jsonb)
RETURNS SETOF record
LANGUAGE sql STABLE PARALLEL RESTRICTED
BEGIN ATOMIC
	SELECT d.path, d.old_value, d.new_value
	FROM event_queue_internal.json_diff(
		CASE WHEN $3 = 0 THEN '{}' ELSE event_queue.aggregate_state($1, $2, $3, NULL, $5) END,
		CASE WHEN $4 = 0 THEN '{}' ELSE event_queue.aggregate_state($1, $2, $4, NULL, $5) END) d;
END;
COMMENT ON FUNCTION aggregate_diff(text, text, int, int, text) IS
'What changed in the state of an aggregate between two versions: path, old value, new value.';

/*
 * revert_aggregate: brings the state of a version back by one more event; the
 * history stays.  The event is called AGGREGATE_TYPE.reverted, holds the whole
 * state, and its metadata says reverted_to: so it works with any reducer.
 *
 * Arguments: to_version is below the current version; expected_version: fail
 * unless this is the current one (NULL: whatever it is at the call).
 * Errors: EQ001 the aggregate moved on, EQ009 no such version, EQ025 no events, EQ046 the
 * events up to that version are archived.
 * Example:
 *	SELECT version FROM event_queue.revert_aggregate('lead', 'L1', to_version => 2);
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
 * replay: calls a function for stored events, in order, and rolls back what it did.
 *
 * Arguments:
 * - filter: as in read_all.
 * - function: takes one argument of type event_queue.event_store, is found by the caller's
 *   search_path and runs with the caller's rights.
 * - from_position, to_position: events after the first and up to the second; NULL: up to the
 *   watermark.
 * - keep_effects: what the function did stays, and commits with the caller's transaction.
 * - report_every: a NOTICE after so many events (0: none); pg_stat_activity shows the progress
 *   to others.
 *
 * Result: how many events, the last one's position, and the time it took.
 * Errors: EQ009 filter, EQ020 no such function, EQ021 wrong signature, 42501 no right to call
 * it, and what the function raises: then all is rolled back, and CONTEXT says at which position.
 * Isolation: reads what is committed at the call.  Sequences, and effects outside the database,
 * are not rolled back.
 * Example:
 *	CREATE FUNCTION check_lead(event event_queue.event_store) RETURNS void LANGUAGE plpgsql AS
 *		$$ BEGIN ASSERT event.event_type LIKE 'lead.%'; END $$;
 *	SELECT events, kept FROM event_queue.replay('{"aggregate_type": "lead"}', 'check_lead');
 */
CREATE FUNCTION replay(
	filter jsonb, function text, from_position bigint DEFAULT 0, to_position bigint DEFAULT NULL,
	keep_effects boolean DEFAULT false, report_every int DEFAULT 10000,
	OUT events bigint, OUT last_position bigint, OUT kept boolean, OUT seconds double precision)
RETURNS record
LANGUAGE C VOLATILE AS 'MODULE_PATHNAME', 'eq_replay';
COMMENT ON FUNCTION replay(jsonb, text, bigint, bigint, boolean, int) IS
'Runs stored events through a function, in order; rolled back at the end unless keep_effects is true.';
