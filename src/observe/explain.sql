/*
 * explain.sql: why a rule did or did not fire, and what it would have done.
 *
 * Conditions and templates run as the rule's owner, as the rule runner runs them, and
 * leave nothing behind (rules/explain.c).
 */

/* advisory_locks: the calls that release the advisory locks of this session. */
CREATE FUNCTION event_queue_internal.advisory_locks() RETURNS text[]
LANGUAGE sql VOLATILE SET search_path = pg_catalog, event_queue, pg_temp AS $$
	SELECT coalesce(array_agg(CASE WHEN l.mode = 'ShareLock' THEN 'pg_advisory_unlock_shared' ELSE 'pg_advisory_unlock' END
		|| CASE l.objsubid WHEN 1 THEN format('(%s::bigint)', quote_literal((l.classid::bigint << 32) | l.objid::bigint))
			ELSE format('(%s::int, %s::int)', quote_literal(l.classid::bigint::bit(32)::int), quote_literal(l.objid::bigint::bit(32)::int)) END), '{}')
	FROM pg_locks l WHERE l.locktype = 'advisory' AND l.pid = pg_backend_pid() AND l.granted
$$;
COMMENT ON FUNCTION event_queue_internal.advisory_locks() IS 'Internal. The calls that release the advisory locks of this session.';

/*
 * release_new_locks: releases the advisory locks that the session has got since advisory_locks:
 * those of pg_advisory_lock in a condition, which no rollback releases.
 */
CREATE FUNCTION event_queue_internal.release_new_locks(had text[]) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, event_queue, pg_temp AS $$
DECLARE
	call text;
	released boolean;
BEGIN
	FOREACH call IN ARRAY event_queue_internal.advisory_locks() LOOP
		CONTINUE WHEN call = ANY (had);
		LOOP	-- once for each event that took it
			EXECUTE 'SELECT ' || call INTO released;
			EXIT WHEN NOT released OR call <> ALL (event_queue_internal.advisory_locks());
		END LOOP;
	END LOOP;
END
$$;
COMMENT ON FUNCTION event_queue_internal.release_new_locks(text[]) IS 'Internal. Releases the advisory locks that the session has got since advisory_locks.';

CREATE FUNCTION event_queue_internal.condition_parts(
	rule rule, "position" bigint, caller regrole, OUT step text, OUT part text, OUT outcome text, OUT seen text, OUT compared text)
RETURNS SETOF record
LANGUAGE C VOLATILE AS 'MODULE_PATHNAME', 'eq_condition_parts';
COMMENT ON FUNCTION event_queue_internal.condition_parts(rule, bigint, regrole) IS 'Internal. The fields of a rule''s when_changed and the parts of its condition, and what they give for an event.';

CREATE FUNCTION event_queue_internal.try_rule(rule rule, "position" bigint, OUT outcome text, OUT payload jsonb, OUT options jsonb)
LANGUAGE C VOLATILE AS 'MODULE_PATHNAME', 'eq_try_rule';
COMMENT ON FUNCTION event_queue_internal.try_rule(rule, bigint) IS 'Internal. What a rule would do with an event.';

/* explain_rule, with the rights of the extension's owner; values are for who may become the rule's owner. */
CREATE FUNCTION event_queue_internal.explain_rule(
	name text, event_id uuid, tenant_id text, caller regrole,
	OUT step text, OUT part text, OUT seen text, OUT compared text, OUT outcome text)
RETURNS SETOF record
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, event_queue, pg_temp AS $$
#variable_conflict use_column
DECLARE
	tenant text COLLATE "C" := event_queue.resolve_tenant($3);
	r event_queue.rule;
	e event_queue.event_store;
	checkpoint bigint := (SELECT c.position FROM event_queue_internal.rule_checkpoint c);
	depth int := current_setting('event_queue.rule_depth')::int;
	tried record;
	led_here jsonb;
	all_yes boolean;
	has_fired boolean := false;
	has_failed boolean := false;
	this record;
	locks text[] := event_queue_internal.advisory_locks();
BEGIN
	r := event_queue_internal.get_rule($1);
	SELECT x.* INTO e FROM event_queue.event_store x WHERE x.id = $2 AND x.tenant_id = tenant;
	IF NOT FOUND THEN
		RAISE EXCEPTION USING ERRCODE = 'EQ025', MESSAGE = format('event %s does not exist', $2);
	END IF;

	-- one that catches up is not where the others are
	checkpoint := least(checkpoint, (SELECT greatest(u.position, r.start_position) FROM event_queue_internal.rule_catch_up u
		WHERE u.rule_id = r.rule_id AND r.enabled));
	step := 'state'; part := 'enabled';
	seen := CASE WHEN NOT r.enabled THEN 'paused'
		WHEN NOT EXISTS (SELECT FROM pg_roles o WHERE o.oid = r.owner) THEN 'out of service: its owner was dropped'
		WHEN r.on_table IS NOT NULL AND event_queue_internal.table_of_rule(r.rule_id) IS NULL THEN 'out of service: its table was dropped'
		WHEN r.on_table IS NOT NULL AND NOT event_queue_internal.table_is_watched(r.rule_id, r.on_change) THEN 'out of service: a trigger of it was dropped or switched off' ELSE 'enabled' END;
	outcome := CASE WHEN seen = 'enabled' THEN 'yes' ELSE 'no' END;
	all_yes := seen = 'enabled';
	compared := format('version %s', r.version);
	RETURN NEXT;
	step := 'position'; part := format('above %s', r.start_position); seen := e.position;
	compared := CASE WHEN e.position <= checkpoint THEN 'the rules have seen it' ELSE 'the rules have not seen it yet' END
		|| format(', they stand at %s', checkpoint);
	outcome := CASE WHEN e.position > r.start_position THEN 'yes' ELSE 'no' END;
	all_yes := all_yes AND outcome = 'yes';
	RETURN NEXT;
	compared := NULL;
	step := 'tenant'; part := coalesce(r.tenant_id, 'any'); seen := e.tenant_id;
	outcome := CASE WHEN r.tenant_id = e.tenant_id OR r.tenant_id IS NULL THEN 'yes' ELSE 'no' END;
	all_yes := all_yes AND outcome = 'yes';
	RETURN NEXT;
	step := 'pattern'; part := concat_ws(' of ', r.event_pattern, array_to_string(r.on_change, ', ')); seen := e.event_type;
	-- an event of a table is for its rule alone, which may have asked for other operations then
	outcome := CASE WHEN event_queue.event_matches(e.event_type, r.event_pattern)
		AND (r.on_table IS NOT NULL) = (e.aggregate_type = 'event_queue.table')
		AND (r.on_table IS NULL OR e.event_data ->> 'operation' = ANY (r.on_change)) THEN 'yes' ELSE 'no' END;
	all_yes := all_yes AND outcome = 'yes';
	RETURN NEXT;

	FOR this IN SELECT p.* FROM event_queue_internal.condition_parts(r, e.position, $4) p LOOP
		step := this.step; part := this.part; seen := this.seen; compared := this.compared;
		outcome := CASE this.outcome WHEN 'true' THEN 'yes' WHEN 'false' THEN 'no' ELSE this.outcome END;
		RETURN NEXT;
	END LOOP;
	compared := NULL;

	SELECT t.* INTO tried FROM event_queue_internal.try_rule(r, e.position) t;
	PERFORM event_queue_internal.release_new_locks(locks);
	IF tried.outcome <> 'not matched' THEN
		step := 'action';
		outcome := CASE WHEN tried.outcome IN ('matched', 'suppressed', 'too deep') THEN 'yes' ELSE tried.outcome END;
		FOR this IN
			SELECT CASE k.kind WHEN 'enqueue' THEN format('job %s of queue %s', k.said ->> 'name', k.said ->> 'queue')
				WHEN 'call' THEN 'function ' || (k.said ->> 'function')
				WHEN 'append' THEN 'event ' || (k.said ->> 'event_type')
				WHEN 'cancel' THEN 'cancel in queue ' || (k.said ->> 'queue')
				ELSE 'notify ' || (k.said ->> 'channel') END AS part, (tried.payload -> (a.n::int - 1) -> k.kind)::text AS seen
			FROM jsonb_array_elements(r.actions) WITH ORDINALITY a (action, n), jsonb_each(a.action) k (kind, said)
			WHERE r.actions IS NOT NULL
			UNION ALL
			SELECT coalesce(format('job %s of queue %s', r.job_name, (SELECT q.name FROM event_queue.queue q WHERE q.queue_id = r.queue_id)),
				'function ' || r.function), nullif(concat_ws(', options ', tried.payload::text, tried.options::text), '')
			WHERE r.actions IS NULL
		LOOP
			part := this.part; seen := this.seen;
			RETURN NEXT;
		END LOOP;
	END IF;

	-- what anyone may have written there
	led_here := CASE WHEN jsonb_typeof(e.metadata -> 'rule_chain') = 'array' THEN e.metadata -> 'rule_chain' ELSE '[]' END;
	step := 'chain';
	part := CASE r.on_loop WHEN 'skip' THEN 'not led to by this rule, nor by ' ELSE 'led to by fewer than ' END || depth || ' rules';
	seen := coalesce((SELECT string_agg(coalesce(x.name, format('rule %s', c.id)), ', ' ORDER BY c.n)
		FROM jsonb_array_elements_text(led_here) WITH ORDINALITY c (id, n)
		LEFT JOIN event_queue.rule x ON x.rule_id::text = c.id AND event_queue.tenant_visible(x.tenant_id)), 'none');
	outcome := CASE WHEN jsonb_array_length(led_here) >= depth
		OR (r.on_loop = 'skip' AND led_here @> to_jsonb(r.rule_id)) THEN 'no' ELSE 'yes' END;
	RETURN NEXT;

	step := 'followed';
	FOR this IN
		SELECT f.* FROM (
			SELECT 'job' AS kind, j.job_id::text AS id, format('%s of queue %s', j.name, j.queue) AS name, j.state,
				-- it evaluates the rule again, which has not fired
				j.queue = 'rule-calls' AND j.payload @> '{"evaluate": true}' AS again, j.metadata ->> 'rule_version' AS version
			FROM event_queue.all_jobs j
			WHERE j.metadata ? 'event_id' AND j.metadata ->> 'event_id' = e.id::text AND j.metadata ->> 'rule' = r.name
			  AND j.tenant_id = e.tenant_id
			UNION ALL
			SELECT 'job', t.job_id::text, t.name, t.outcome, false, t.rule_version::text FROM event_queue.job_trace t
			WHERE t.event_id = e.id::text AND t.rule = r.name AND t.tenant_id = e.tenant_id
			  AND NOT EXISTS (SELECT FROM event_queue.job_history k WHERE k.job_id = t.job_id AND k.expires_at > now())
			UNION ALL
			SELECT 'event', s.id::text, s.event_type, 'appended', false, NULL FROM event_queue.event_store s
			WHERE s.metadata ? 'causation_id' AND s.metadata ->> 'causation_id' = e.id::text AND s.metadata ->> 'rule' = r.name
			  AND s.tenant_id = e.tenant_id) f
		ORDER BY f.kind DESC, f.id
		LIMIT 100
	LOOP
		part := format('%s %s', this.kind, this.id); seen := this.name; compared := 'version ' || this.version; outcome := this.state;
		has_fired := has_fired OR NOT this.again;
		has_failed := has_failed OR (this.again AND this.state <> 'completed');
		RETURN NEXT;
	END LOOP;

	step := 'verdict'; part := NULL; seen := NULL; compared := NULL;
	outcome := CASE WHEN has_fired THEN 'fired'
		WHEN has_failed THEN 'failed'
		WHEN NOT all_yes OR tried.outcome <> 'matched' THEN 'does not fire'
		WHEN e.position <= checkpoint THEN 'would fire'
		ELSE 'will fire' END;
	RETURN NEXT;
END
$$;
COMMENT ON FUNCTION event_queue_internal.explain_rule(text, uuid, text, regrole) IS 'Internal. explain_rule for a caller.';

/*
 * explain_rule: why a rule fired for an event, or why it did not.
 *
 * Arguments: name: of the rule; event_id, tenant_id: the event and its tenant.
 * Result: one row for each thing that is checked, in order, also after one that says no.  The
 * rule is taken as it is now.
 * - step: state, position, tenant, pattern, when_changed (a row for each field: seen is its
 *   value, compared the one before; one yes is enough), condition (a row for each part that AND
 *   joins; part is its text), action (a row for each: what its template gives), chain (the
 *   rules that led to the event), followed (the jobs and events that came of it), verdict.
 * - seen: the value that was found; of a part of the condition, the left side of its
 *   comparison; of state, the rule's version; of a job that followed, the version that made it.
 * - compared: the right side of the comparison, if that is no constant.  Both are NULL for a
 *   caller without the rights of the rule's owner.
 * - outcome: yes or no; of a part of the condition also unknown (NULL) or the error; of the
 *   verdict: fired, failed (a job of queue "rule-calls" tries again, or is dead), will fire,
 *   would fire (the event is past: the rule met it as the rule was then, or what followed is
 *   not kept), does not fire.
 *
 * Errors: EQ003 tenant, EQ025 no such rule or event.
 * Isolation: each part by a snapshot of its own; nothing is locked.
 * Example:
 *	SELECT x.* FROM event_queue.event_store e, event_queue.explain_rule('welcome', e.id) x WHERE e.aggregate_id = 'L1' AND e.version = 1;
 */
CREATE FUNCTION explain_rule(
	name text, event_id uuid, tenant_id text DEFAULT NULL,
	OUT step text, OUT part text, OUT seen text, OUT compared text, OUT outcome text)
RETURNS SETOF record
LANGUAGE C VOLATILE AS 'MODULE_PATHNAME', 'eq_call_as_owner';
COMMENT ON FUNCTION explain_rule(text, uuid, text) IS
'Why a rule fired for an event or did not: state, position, tenant, pattern, each part of the condition with the value that it saw, the rules that led to the event, and what followed.';

/* rule_at: the row of a rule with the definition and owner of one of its versions or drafts. */
CREATE FUNCTION event_queue_internal.rule_at(r rule, version int) RETURNS rule
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, event_queue, pg_temp AS $$
#variable_conflict use_column
DECLARE
	d jsonb;
	maker regrole;
BEGIN
	SELECT v.definition, v.owner INTO d, maker FROM event_queue_internal.rule_version v
	WHERE v.rule_id = ($1).rule_id AND v.version = $2 AND event_queue.tenant_visible(v.tenant_id);
	IF NOT FOUND THEN
		RAISE EXCEPTION USING ERRCODE = 'EQ025', MESSAGE = format('rule "%s" has no version %s', ($1).name, $2),
			HINT = 'The view event_queue.rule_versions shows those that are kept.';
	END IF;
	RETURN event_queue_internal.rule_of($1, d, maker);
END
$$;
COMMENT ON FUNCTION event_queue_internal.rule_at(rule, int) IS 'Internal. A rule''s row as a version of it says.';

/* rule_by: the row of a rule with members of a definition, and the caller as its owner. */
CREATE FUNCTION event_queue_internal.rule_by(r rule, definition jsonb, caller regrole) RETURNS rule
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, event_queue, pg_temp AS $$
BEGIN
	IF jsonb_typeof($2) <> 'object' THEN
		RAISE EXCEPTION USING ERRCODE = 'EQ009', MESSAGE = 'a definition of a rule must be a JSON object';
	END IF;
	IF $2 ->> 'actions' IS NOT NULL THEN
		IF NOT event_queue_internal.are_actions($2 -> 'actions') THEN
			RAISE EXCEPTION USING ERRCODE = 'EQ019', MESSAGE = 'actions must be a JSON array of 1 to 16 actions, each with what it needs',
				HINT = 'For example: [{"enqueue": {"queue": "mail", "name": "welcome"}}, {"append": {"event_type": "lead.welcomed"}}]; kinds are enqueue, call, append, notify and cancel.';
		END IF;
		PERFORM event_queue_internal.queue_id_of(q #>> '{}') FROM jsonb_path_query($2 -> 'actions', '$[*].*.queue') q;
	END IF;
	RETURN event_queue_internal.rule_of($1, $2, $3);
EXCEPTION WHEN data_exception THEN
	RAISE EXCEPTION USING ERRCODE = 'EQ009', MESSAGE = 'a member of the definition has the wrong type', DETAIL = SQLERRM || '.',
		HINT = 'event_queue.rule_versions shows definitions.';
END
$$;
COMMENT ON FUNCTION event_queue_internal.rule_by(rule, jsonb, regrole) IS 'Internal. A rule''s row with a definition of the caller.';

/* test_rule, with the rights of the extension's owner; a definition has those of caller. */
CREATE FUNCTION event_queue_internal.test_rule(
	name text, definition jsonb, version int,
	from_position bigint, to_position bigint, max_rows int, max_events int, caller regrole,
	OUT "position" bigint, OUT event_id uuid, OUT tenant_id text, OUT event_type text, OUT aggregate_type text, OUT aggregate_id text,
	OUT created_at timestamptz, OUT outcome text, OUT payload jsonb, OUT options jsonb)
RETURNS SETOF record
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, event_queue, pg_temp
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_sort = off SET jit = off SET max_parallel_workers_per_gather = 0 AS $$
#variable_conflict use_column
DECLARE
	r event_queue.rule;
	locks text[] := event_queue_internal.advisory_locks();
BEGIN
	SELECT x.* INTO r FROM event_queue.rule x WHERE x.name = $1 AND event_queue.tenant_visible(x.tenant_id);
	IF NOT FOUND AND $2 IS NOT NULL THEN
		r := jsonb_populate_record(NULL::event_queue.rule, jsonb_build_object('rule_id', 0, 'name', coalesce($1, ''), 'version', 1, 'enabled', true,
			'start_position', 0, 'on_loop', 'skip', 'stop', false, 'rule_order', 0));
	ELSIF NOT FOUND THEN
		RAISE EXCEPTION USING ERRCODE = 'EQ025', MESSAGE = format('rule "%s" does not exist', $1);
	END IF;
	IF num_nonnulls($3, $2) > 1 THEN
		RAISE EXCEPTION USING ERRCODE = 'EQ009', MESSAGE = 'either definition or version may be given';
	END IF;
	IF ($6 BETWEEN 1 AND 10000) IS NOT TRUE OR ($7 BETWEEN 1 AND 10000000) IS NOT TRUE THEN
		RAISE EXCEPTION USING ERRCODE = 'EQ009', MESSAGE = 'max_rows must be between 1 and 10000, max_events between 1 and 10000000';
	END IF;
	IF $3 IS NOT NULL THEN
		r := event_queue_internal.rule_at(r, $3);
	ELSIF $2 IS NOT NULL THEN
		r := event_queue_internal.rule_by(r, $2, $8);
	END IF;
	IF r.event_pattern IS NULL THEN
		RAISE EXCEPTION USING ERRCODE = 'EQ023', MESSAGE = 'the definition has no event_pattern';
	END IF;
	RETURN QUERY
	SELECT m.position, m.id, m.tenant_id, m.event_type, m.aggregate_type, m.aggregate_id, m.created_at, t.outcome, t.payload, t.options
	FROM (
		-- from one end of the range or the other, no further than max_rows needs
		SELECT x.* FROM (
			(SELECT s.position, s.id, s.tenant_id, s.event_type, s.aggregate_type, s.aggregate_id, s.created_at FROM event_queue.event_store s
			WHERE s.position > $4 AND s.position <= least($5, event_queue.watermark()) ORDER BY s.position LIMIT $7)
			UNION ALL
			(SELECT s.position, s.id, s.tenant_id, s.event_type, s.aggregate_type, s.aggregate_id, s.created_at FROM event_queue.event_store s
			WHERE $4 IS NULL AND s.position <= least($5, event_queue.watermark()) ORDER BY s.position DESC LIMIT $7)) x
		WHERE (r.tenant_id IS NULL OR x.tenant_id = r.tenant_id) AND event_queue.tenant_visible(x.tenant_id)
		  AND event_queue.event_matches(x.event_type, r.event_pattern)
		LIMIT $6) m,
		event_queue_internal.try_rule(r, m.position) t
	ORDER BY m.position;
	PERFORM event_queue_internal.release_new_locks(locks);
END
$$;
COMMENT ON FUNCTION event_queue_internal.test_rule(text, jsonb, int, bigint, bigint, int, int, regrole) IS 'Internal. test_rule for a caller.';

/*
 * test_rule: what a rule would do with stored events.  Nothing is enqueued, and nothing counted.
 *
 * Arguments:
 * - name: of the rule, which may be paused, or may not exist yet if a definition is given.
 * - definition: as in compare_rule, evaluated with the caller's rights.  Of a rule that does
 *   not exist it is a complete one, with event_pattern and an action.
 * - version: which version or draft of the rule (rule_versions), evaluated with the rights of
 *   who made it; NULL: the present one.
 * - from_position, to_position: events after the first and up to the second; NULL: up to the
 *   newest that may be read.
 * - max_events: how many events of that range are read, from its start, or the newest if
 *   from_position is NULL.
 * - max_rows: how many of them that pattern and tenant let through are tried.
 *
 * Result: one row for each event that was tried, in order.
 * - outcome: matched, not matched, suppressed (the rule led to the event), too deep
 *   (event_queue.rule_depth), or the error.
 * - payload, options: of the job, if the rule enqueues one; payload of a rule with actions is
 *   their list, filled.
 *
 * Errors: EQ009 max_rows or max_events, definition and version, or an unknown member, EQ010 no
 * such queue, EQ019 no action or two, or bad actions, EQ023 no event_pattern, EQ025 no such rule or
 * version.
 * Isolation: each part by a snapshot of its own; nothing is locked.
 * Example:
 *	SELECT event_queue.create_rule('draft', 'lead.won', queue => 'mail', job_name => 'won');
 *	SELECT event_queue.pause_rule('draft');
 *	SELECT outcome, count(*) FROM event_queue.test_rule('draft', max_rows => 1000) GROUP BY 1;
 *	SELECT outcome, payload FROM event_queue.test_rule('not yet', '{"event_pattern": "lead.*", "queue": "mail", "job_name": "won", "payload": {"lead": "$.aggregate_id"}}');
 */
CREATE FUNCTION test_rule(
	name text, definition jsonb DEFAULT NULL, version int DEFAULT NULL,
	from_position bigint DEFAULT NULL, to_position bigint DEFAULT NULL, max_rows int DEFAULT 100, max_events int DEFAULT 100000,
	OUT "position" bigint, OUT event_id uuid, OUT tenant_id text, OUT event_type text, OUT aggregate_type text, OUT aggregate_id text,
	OUT created_at timestamptz, OUT outcome text, OUT payload jsonb, OUT options jsonb)
RETURNS SETOF record
LANGUAGE C VOLATILE AS 'MODULE_PATHNAME', 'eq_call_as_owner';
COMMENT ON FUNCTION test_rule(text, jsonb, int, bigint, bigint, int, int) IS
'What a rule, or a definition of one, would do with events that are there: one row for each that its pattern and tenant let through. Leaves no trace.';

/* rule_facts, with the rights of the extension's owner. */
CREATE FUNCTION event_queue_internal.rule_facts(rule text, version int, event_id uuid, tenant_id text, caller regrole) RETURNS jsonb
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, event_queue, pg_temp AS $$
#variable_conflict use_column
DECLARE
	tenant text COLLATE "C" := event_queue.resolve_tenant($4);
	d jsonb;
	this_rule int;
	maker regrole;
	at_position bigint := (SELECT e.position FROM event_queue.event_store e WHERE e.id = $3 AND e.tenant_id = tenant);
	facts jsonb;
	locks text[] := event_queue_internal.advisory_locks();
BEGIN
	SELECT v.definition, v.rule_id, v.owner INTO d, this_rule, maker FROM event_queue_internal.rule_version v
	WHERE v.rule = $1 AND v.version = $2 AND NOT v.draft AND event_queue.tenant_visible(v.tenant_id)
	ORDER BY v.made_at DESC LIMIT 1;
	IF d IS NULL OR at_position IS NULL THEN
		RETURN NULL;
	END IF;
	facts := (SELECT jsonb_agg(jsonb_build_object('part', p.part, 'seen', p.seen, 'compared', p.compared, 'outcome', p.outcome))
		FROM event_queue_internal.condition_parts(event_queue_internal.rule_of(
			jsonb_populate_record(NULL::event_queue.rule, jsonb_build_object('rule_id', this_rule, 'name', $1, 'version', $2, 'enabled', true, 'start_position', 0)), d, maker), at_position, $5) p);
	PERFORM event_queue_internal.release_new_locks(locks);
	RETURN jsonb_strip_nulls(jsonb_build_object('owner', d -> 'owner', 'condition', d -> 'condition', 'facts', facts));
END
$$;
COMMENT ON FUNCTION event_queue_internal.rule_facts(text, int, uuid, text, regrole) IS 'Internal. rule_facts for a caller.';

/*
 * rule_facts: why a version of a rule fired for an event: what to tell the person whom it
 * concerns.  trace shows it, too.
 *
 * The condition is evaluated again, on the event, which has not changed, and with the rights of
 * the version's owner; tables that it reads may have changed.
 * Result: owner, condition, and facts: each part of the condition with the value seen, what it
 * was compared with, and the outcome, as in explain_rule; NULL if the version is not kept
 * (event_queue.keep_audit) or belongs to another tenant.
 * Errors: EQ003 tenant.
 * Example:
 *	SELECT event_queue.rule_facts('welcome', 1, e.id) FROM event_queue.event_store e WHERE e.aggregate_id = 'L1' AND e.version = 1;
 */
CREATE FUNCTION rule_facts(rule text, version int, event_id uuid, tenant_id text DEFAULT NULL) RETURNS jsonb
LANGUAGE C VOLATILE AS 'MODULE_PATHNAME', 'eq_call_as_owner';
COMMENT ON FUNCTION rule_facts(text, int, uuid, text) IS 'Why a version of a rule fired for an event: its owner, its condition, and what each part of it saw.';

/* compare_rule, with the rights of the extension's owner; a definition has those of caller. */
CREATE FUNCTION event_queue_internal.compare_rule(
	name text, definition jsonb, version int,
	from_position bigint, to_position bigint, max_rows int, max_events int, caller regrole,
	OUT "position" bigint, OUT event_id uuid, OUT tenant_id text, OUT event_type text, OUT aggregate_type text, OUT aggregate_id text,
	OUT created_at timestamptz, OUT change text, OUT outcome text, OUT new_outcome text, OUT payload jsonb, OUT new_payload jsonb)
RETURNS SETOF record
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, event_queue, pg_temp
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_sort = off SET jit = off SET max_parallel_workers_per_gather = 0 AS $$
#variable_conflict use_column
DECLARE
	was event_queue.rule;
	becomes event_queue.rule;
	other int;
	elsewhere boolean;	-- another job, of whatever event
	locks text[] := event_queue_internal.advisory_locks();
BEGIN
	was := event_queue_internal.get_rule($1);
	IF ($6 BETWEEN 1 AND 10000) IS NOT TRUE OR ($7 BETWEEN 1 AND 10000000) IS NOT TRUE THEN
		RAISE EXCEPTION USING ERRCODE = 'EQ009', MESSAGE = 'max_rows must be between 1 and 10000, max_events between 1 and 10000000';
	END IF;
	IF num_nonnulls($2, $3) > 1 THEN
		RAISE EXCEPTION USING ERRCODE = 'EQ009', MESSAGE = 'either definition or version may be given';
	END IF;
	IF $2 IS NOT NULL THEN
		becomes := event_queue_internal.rule_by(was, $2, $8);
	ELSE
		other := coalesce($3, (SELECT max(v.version) FROM event_queue_internal.rule_version v
			WHERE v.rule_id = was.rule_id AND v.draft AND event_queue.tenant_visible(v.tenant_id)));
		IF other IS NULL THEN
			RAISE EXCEPTION USING ERRCODE = 'EQ025', MESSAGE = format('rule "%s" has no draft', $1),
				HINT = 'create_rule(..., draft => true) makes one; or give a definition, or a version.';
		END IF;
		becomes := event_queue_internal.rule_at(was, other);
	END IF;
	elsewhere := (was.queue_id, was.job_name, was.function, was.delay, was.priority)
		IS DISTINCT FROM (becomes.queue_id, becomes.job_name, becomes.function, becomes.delay, becomes.priority);
	RETURN QUERY
	SELECT d.* FROM (SELECT m.position, m.id, m.tenant_id, m.event_type, m.aggregate_type, m.aggregate_id, m.created_at,
		CASE WHEN t.outcome = 'matched' AND n.outcome = 'matched' THEN 'changed' WHEN n.outcome = 'matched' THEN 'added'
			WHEN t.outcome = 'matched' THEN 'lost' ELSE 'other' END,
		t.outcome, n.outcome, t.payload, n.payload
	FROM (
		SELECT x.*, event_queue.event_matches(x.event_type, was.event_pattern) AND (was.tenant_id IS NULL OR x.tenant_id = was.tenant_id) AS now,
			event_queue.event_matches(x.event_type, becomes.event_pattern) AND (becomes.tenant_id IS NULL OR x.tenant_id = becomes.tenant_id) AS after
		FROM (	-- as in test_rule
			(SELECT s.position, s.id, s.tenant_id, s.event_type, s.aggregate_type, s.aggregate_id, s.created_at FROM event_queue.event_store s
			WHERE s.position > $4 AND s.position <= least($5, event_queue.watermark()) ORDER BY s.position LIMIT $7)
			UNION ALL
			(SELECT s.position, s.id, s.tenant_id, s.event_type, s.aggregate_type, s.aggregate_id, s.created_at FROM event_queue.event_store s
			WHERE $4 IS NULL AND s.position <= least($5, event_queue.watermark()) ORDER BY s.position DESC LIMIT $7)) x
		WHERE event_queue.tenant_visible(x.tenant_id)) m,
		-- not even tried if pattern or tenant says no
		LATERAL (SELECT 'not matched' AS outcome, NULL::jsonb AS payload, NULL::jsonb AS options WHERE NOT m.now
			UNION ALL SELECT y.* FROM event_queue_internal.try_rule(was, m.position) y WHERE m.now) t,
		LATERAL (SELECT 'not matched' AS outcome, NULL::jsonb AS payload, NULL::jsonb AS options WHERE NOT m.after
			UNION ALL SELECT y.* FROM event_queue_internal.try_rule(becomes, m.position) y WHERE m.after) n
	WHERE (m.now OR m.after) AND ((t.outcome, t.payload, t.options) IS DISTINCT FROM (n.outcome, n.payload, n.options)
		OR elsewhere AND t.outcome = 'matched')
	LIMIT $6) d
	ORDER BY d.position;
	PERFORM event_queue_internal.release_new_locks(locks);
END
$$;
COMMENT ON FUNCTION event_queue_internal.compare_rule(text, jsonb, int, bigint, bigint, int, int, regrole) IS 'Internal. compare_rule for a caller.';

/*
 * compare_rule: stored events with which a rule and another definition of it would do something
 * different.  Nothing is enqueued, and nothing counted.
 *
 * Arguments:
 * - name: of the rule.
 * - definition: members of a definition as rule_versions shows it, such as condition,
 *   event_pattern, payload or actions, which replace the present ones; evaluated with the
 *   rights of the caller, who would be the owner.
 * - version: in place of definition, an earlier version or a draft, evaluated with the rights
 *   of who made it; NULL: the newest draft.
 * - from_position, to_position, max_rows, max_events: as in test_rule.
 *
 * Result: one row for each event with another outcome, in order.
 * - change: added (the other definition would fire), lost (it would not), changed (another
 *   queue, job name, function, delay, priority or payload, or other options), other (another
 *   reason why it does not fire).
 * - outcome, payload: by the present definition, as in test_rule.
 * - new_outcome, new_payload: by the other one.
 *
 * Errors: EQ009 max_rows, max_events, definition and version, or an unknown member, EQ010 no
 * such queue, EQ019 no action or two, or bad actions, EQ022 condition, EQ025 no such rule, version
 * or draft.
 * Isolation: each part by a snapshot of its own; nothing is locked.
 * Example:
 *	SELECT change, event_type, aggregate_id FROM event_queue.compare_rule('welcome', '{"condition": "event_data ? ''phone''"}');
 */
CREATE FUNCTION compare_rule(
	name text, definition jsonb DEFAULT NULL, version int DEFAULT NULL,
	from_position bigint DEFAULT NULL, to_position bigint DEFAULT NULL, max_rows int DEFAULT 1000, max_events int DEFAULT 100000,
	OUT "position" bigint, OUT event_id uuid, OUT tenant_id text, OUT event_type text, OUT aggregate_type text, OUT aggregate_id text,
	OUT created_at timestamptz, OUT change text, OUT outcome text, OUT new_outcome text, OUT payload jsonb, OUT new_payload jsonb)
RETURNS SETOF record
LANGUAGE C VOLATILE AS 'MODULE_PATHNAME', 'eq_call_as_owner';
COMMENT ON FUNCTION compare_rule(text, jsonb, int, bigint, bigint, int, int) IS
'Events for which another definition of a rule, or a version or draft of it, would do something else: added, lost, changed. Leaves no trace.';

/*
 * rule_runs: the last firings of a rule, and what followed each of them.
 *
 * Arguments: rule: its name; max_rows: how many firings, the newest event first.
 * Result: one row for each job and event that followed; one with kind NULL if there is none (the
 * rule only notifies or cancels, or what followed is not kept).  Firings are kept for
 * event_queue.keep_rule_runs.
 * - version: of the rule, when it fired.
 * - fired: false while a job of queue "rule-calls" is to try again, since the rule had failed
 *   or was slow.
 * - backfilled: fired by backfill_rule.
 * - kind (job or event), id, name (queue and name of a job, or the event's type), state (of a
 *   job: waiting, leased, dead, done ...), last_error: what followed.
 *
 * Errors: EQ009 max_rows, EQ025 no such rule (or another tenant's).
 * Example:
 *	SELECT fired_at, version, event_type, aggregate_id, kind, name, state FROM event_queue.rule_runs('welcome', 10);
 */
CREATE FUNCTION rule_runs(
	rule text, max_rows int DEFAULT 100,
	OUT fired_at timestamptz, OUT version int, OUT "position" bigint, OUT event_id uuid, OUT event_type text, OUT aggregate_type text, OUT aggregate_id text,
	OUT tenant_id text, OUT fired boolean, OUT backfilled boolean, OUT kind text, OUT id text, OUT name text, OUT state text, OUT last_error text)
RETURNS SETOF record
LANGUAGE plpgsql STABLE PARALLEL RESTRICTED SET search_path = pg_catalog, event_queue, pg_temp
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_sort = off SET jit = off SET max_parallel_workers_per_gather = 0
SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_column
DECLARE
	r event_queue.rule;
BEGIN
	r := event_queue_internal.get_rule($1);
	IF ($2 BETWEEN 1 AND 10000) IS NOT TRUE THEN
		RAISE EXCEPTION USING ERRCODE = 'EQ009', MESSAGE = 'max_rows must be between 1 and 10000';
	END IF;
	RETURN QUERY
	SELECT u.at, u.version, u.position, e.id, e.event_type, e.aggregate_type, e.aggregate_id, e.tenant_id, u.fired, u.backfilled,
		f.kind, f.id, f.name, f.state, f.last_error
	FROM (SELECT x.* FROM event_queue_internal.rule_run x WHERE x.rule_id = r.rule_id ORDER BY x.position DESC LIMIT $2) u
	LEFT JOIN event_queue.event_store e ON e.position = u.position AND event_queue.tenant_visible(e.tenant_id)
	LEFT JOIN LATERAL (
		SELECT 'job'::text AS kind, j.job_id::text AS id, j.queue || '/' || j.name AS name, j.state, j.last_error
		FROM event_queue.all_jobs j
		WHERE j.metadata ? 'event_id' AND j.metadata ->> 'event_id' = e.id::text AND j.metadata ->> 'rule' = r.name AND j.tenant_id = e.tenant_id
		UNION ALL
		SELECT 'job', t.job_id::text, t.name, t.outcome, NULL FROM event_queue.job_trace t
		WHERE t.event_id = e.id::text AND t.rule = r.name AND t.tenant_id = e.tenant_id
		  AND NOT EXISTS (SELECT FROM event_queue.job_history k WHERE k.job_id = t.job_id AND k.expires_at > now())
		UNION ALL
		SELECT 'event', s.id::text, s.event_type, 'appended', NULL FROM event_queue.event_store s
		WHERE s.metadata ? 'causation_id' AND s.metadata ->> 'causation_id' = e.id::text AND s.metadata ->> 'rule' = r.name
		  AND s.tenant_id = e.tenant_id) f ON true
	ORDER BY u.position DESC, f.kind DESC, f.id;
END
$$;
COMMENT ON FUNCTION rule_runs(text, int) IS
'The last firings of a rule, each with its version and what followed: jobs and events, their states and errors.';
