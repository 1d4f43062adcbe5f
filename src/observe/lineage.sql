/*
 * lineage.sql: trace(): follows a chain of causes: event -> rule -> job -> event.
 *
 * An event that was caused by another has its id in metadata.causation_id (and the job's in
 * job_id), a job the event's in metadata.event_id; lineage.c puts them there.  Only such
 * rows are in these indexes (that of job_history is in history.sql).
 */

CREATE INDEX event_store_caused_by ON event_store ((metadata ->> 'causation_id')) WHERE metadata ? 'causation_id';
CREATE INDEX job_caused_by ON job ((metadata ->> 'event_id')) WHERE metadata ? 'event_id';
CREATE INDEX dead_letter_caused_by ON dead_letter ((metadata ->> 'event_id')) WHERE metadata ? 'event_id';

/*
 * trace: what led to an event, and what came of it.
 *
 * Result: one row for each event, rule and job of the chain.
 * - depth: 0 for the event asked for, negative for what led to it, positive for what followed.
 * - kind: event, rule or job.
 * - caused_by: the row above it ("event ID", "rule NAME", "job ID").
 * - detail of a job: its state (waiting, leased, done, dead, or not kept: finished, not in the
 *   history, and older than event_queue.keep_trace), last error, steps (their results: view
 *   job_steps), and handler: its function, version and code (create_handler) when it ran the
 *   job; no handler if a worker outside did.
 * - detail of a rule: the version that fired, as long as its job or event is known, and of that
 *   version owner, condition and facts (rule_facts; not in a parallel plan).
 *
 * Errors: EQ003 tenant, EQ025 no such event.
 * Isolation: by the statement's snapshot.  Invoker's rights and row security.
 * Example:
 *	SELECT depth, kind, name FROM event_queue.event_store e, event_queue.trace(e.id) WHERE e.aggregate_id = 'L1' AND e.version = 1;
 */
CREATE FUNCTION trace(
	event_id uuid, tenant_id text DEFAULT NULL,
	OUT depth int, OUT kind text, OUT id text, OUT name text, OUT caused_by text, OUT at timestamptz, OUT detail jsonb)
RETURNS SETOF record
LANGUAGE plpgsql STABLE PARALLEL RESTRICTED SET search_path = pg_catalog, event_queue, pg_temp AS $$
#variable_conflict use_column
DECLARE
	tenant text := event_queue.resolve_tenant($2);
BEGIN
	IF NOT EXISTS (SELECT FROM event_queue.event_store e WHERE e.id = $1 AND e.tenant_id = tenant) THEN
		RAISE EXCEPTION USING ERRCODE = 'EQ025', MESSAGE = format('event %s does not exist', $1);
	END IF;
	RETURN QUERY
	WITH RECURSIVE up AS (
		-- path: whoever appends names the cause, also the event itself
		SELECT e.*, 0 AS depth, ARRAY[e.id] AS path FROM event_queue.event_store e WHERE e.id = $1 AND e.tenant_id = tenant
		UNION ALL
		SELECT e.*, up.depth - 1, up.path || e.id
		FROM up JOIN event_queue.event_store e ON e.tenant_id = tenant AND e.id =
			CASE WHEN up.metadata ->> 'causation_id' ~ '^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$'
				 THEN (up.metadata ->> 'causation_id')::uuid END
		WHERE up.depth > -100 AND e.id <> ALL (up.path)
	), down AS (
		SELECT up.* FROM up WHERE up.depth = 0
		UNION ALL
		SELECT e.*, down.depth + 1, down.path || e.id
		FROM down JOIN event_queue.event_store e
			ON e.metadata ? 'causation_id' AND e.metadata ->> 'causation_id' = down.id::text AND e.tenant_id = tenant
		WHERE down.depth < 100 AND e.id <> ALL (down.path)
	), event AS (
		SELECT * FROM up UNION ALL SELECT * FROM down WHERE down.depth > 0 AND down.id NOT IN (SELECT up.id FROM up)
	), of_event AS (	-- jobs of the chain's events; of earlier events only those that led here
		SELECT j.job_id::text AS job_id, j.name, j.metadata, j.created_at, e.depth, j.state, j.errors, j.handler, j.steps
		FROM event e, LATERAL (
			SELECT w.job_id, w.name, w.metadata, w.created_at, w.errors,
				CASE WHEN w.leased_until > clock_timestamp() THEN 'leased' ELSE 'waiting' END AS state, NULL::jsonb AS handler,
				CASE WHEN w.has_steps THEN (SELECT jsonb_agg(to_jsonb(s) ORDER BY s.step_no) FROM event_queue.job_steps s
					WHERE s.job_id = w.job_id AND s.completed_at IS NULL) END AS steps
			FROM event_queue.job w WHERE w.metadata ? 'event_id' AND w.metadata ->> 'event_id' = e.id::text
				AND w.tenant_id = tenant
			UNION ALL
			SELECT h.job_id, h.name, h.metadata, h.created_at, h.errors, 'done', h.handler, h.steps
			FROM event_queue.job_history h WHERE h.metadata ? 'event_id' AND h.metadata ->> 'event_id' = e.id::text
				AND h.tenant_id = tenant AND h.expires_at > now()
			UNION ALL
			SELECT t.job_id, t.name, jsonb_strip_nulls(jsonb_build_object('event_id', t.event_id, 'rule', t.rule, 'rule_version', t.rule_version, 'parent_job', t.parent_job)),
				t.created_at, NULL, t.outcome, t.handler, NULL
			FROM event_queue.job_trace t WHERE t.event_id = e.id::text AND t.tenant_id = tenant
				AND NOT EXISTS (SELECT FROM event_queue.job_history k WHERE k.job_id = t.job_id AND k.expires_at > now())
			UNION ALL
			SELECT d.job_id, d.name, d.metadata, d.created_at, d.errors, 'dead', d.errors -> -1 -> 'handler', CASE WHEN d.has_steps THEN (SELECT jsonb_agg(to_jsonb(s) ORDER BY s.step_no) FROM event_queue.job_steps s
					WHERE s.job_id = d.job_id AND s.completed_at IS NULL) END
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
			e.created_at, e.depth - 1, 'not kept', NULL, NULL, NULL
		FROM event e
		WHERE e.metadata ? 'job_id' AND e.metadata ->> 'job_id' NOT IN (SELECT o.job_id FROM of_event o)
	), line AS (
		SELECT e.depth, 1 AS place, 'event' AS kind, e.id::text AS id, e.event_type AS name,
			CASE WHEN e.metadata ? 'job_id' THEN 'job ' || (e.metadata ->> 'job_id')
				 WHEN e.metadata ? 'causation_id' AND e.metadata ? 'rule' THEN 'rule ' || (e.metadata ->> 'rule')
				 WHEN e.metadata ? 'causation_id' THEN 'event ' || (e.metadata ->> 'causation_id') END AS caused_by,
			e.created_at AS at,
			jsonb_build_object('position', e.position, 'aggregate_type', e.aggregate_type,
				'aggregate_id', e.aggregate_id, 'version', e.version, 'actor', e.metadata -> 'actor') AS detail
		FROM event e
		UNION ALL
		SELECT r.depth, 2, 'rule', r.rule, r.rule, 'event ' || r.event_id, r.at,
			-- jobs of its jobs have none
			CASE WHEN jsonb_typeof(r.version) = 'number' AND r.version BETWEEN '0' AND '2147483647' THEN
				jsonb_build_object('version', r.version) || coalesce(event_queue.rule_facts(r.rule, r.version::int,
					CASE WHEN r.event_id ~ '^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$' THEN r.event_id::uuid END, tenant), '{}') END
		FROM (
			SELECT j.depth, j.metadata ->> 'rule' AS rule, j.metadata ->> 'event_id' AS event_id, min(j.created_at) AS at,
				(array_agg(j.metadata -> 'rule_version') FILTER (WHERE j.metadata ? 'rule_version'))[1] AS version
			FROM (SELECT depth, metadata, created_at FROM job
				UNION ALL -- an event that the rule itself appended
				SELECT e.depth - 1, e.metadata || jsonb_build_object('event_id', e.metadata -> 'causation_id'), e.created_at
				FROM event e WHERE e.metadata ? 'rule' AND e.metadata ? 'causation_id' AND NOT e.metadata ? 'job_id') j
			WHERE j.metadata ? 'rule' GROUP BY 1, 2, 3) r
		UNION ALL
		SELECT j.depth, 3, 'job', j.job_id, j.name,
			CASE WHEN j.metadata ? 'parent_job' THEN 'job ' || (j.metadata ->> 'parent_job')
				 WHEN j.metadata ? 'rule' THEN 'rule ' || (j.metadata ->> 'rule')
				 ELSE 'event ' || (j.metadata ->> 'event_id') END,
			j.created_at, jsonb_build_object('state', j.state) ||
				CASE WHEN jsonb_array_length(j.errors) > 0 THEN jsonb_build_object('last_error', j.errors -> -1) ELSE '{}' END
				|| CASE WHEN j.handler IS NOT NULL THEN jsonb_build_object('handler', j.handler) ELSE '{}' END
				|| CASE WHEN j.steps IS NOT NULL THEN jsonb_build_object('steps', (
					SELECT jsonb_agg(jsonb_strip_nulls(jsonb_build_object('name', s -> 'name', 'kind', s -> 'kind', 'state', s -> 'state',
						'at', s -> 'at', 'handler', s -> 'handler')) ORDER BY n)
					FROM jsonb_array_elements(CASE WHEN jsonb_typeof(j.steps) = 'array' THEN j.steps END) WITH ORDINALITY AS x (s, n))) ELSE '{}' END
		FROM job j
	)
	SELECT l.depth, l.kind, l.id, l.name, l.caused_by, l.at, l.detail
	FROM line l ORDER BY l.depth, l.place, l.at, l.id;
END
$$;
COMMENT ON FUNCTION trace(uuid, text) IS
'What led to an event and what came of it: events, rules and jobs, each with what caused it.';
