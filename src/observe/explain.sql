/*
 * explain.sql: why a rule did or did not fire, and what it would have done.
 *
 * Conditions and templates run as the rule's owner, as the rule runner runs them, and
 * leave nothing behind (rules/explain.c).
 */
CREATE FUNCTION event_queue_internal.condition_parts(
	rule_id int, "position" bigint, OUT step text, OUT part text, OUT outcome text, OUT seen text, OUT compared text)
RETURNS SETOF record
LANGUAGE C VOLATILE AS 'MODULE_PATHNAME', 'eq_condition_parts';
COMMENT ON FUNCTION event_queue_internal.condition_parts(int, bigint) IS 'Internal. The fields of a rule''s when_changed and the parts of its condition, and what they give for an event.';

CREATE FUNCTION event_queue_internal.try_rule(rule_id int, "position" bigint, OUT outcome text, OUT payload jsonb, OUT options jsonb)
LANGUAGE C VOLATILE AS 'MODULE_PATHNAME', 'eq_try_rule';
COMMENT ON FUNCTION event_queue_internal.try_rule(int, bigint) IS 'Internal. What a rule would do with an event.';

/*
 * explain_rule: why a rule fired for an event, or why not.
 *
 * Arguments: rule, its name; event_id; tenant_id, the event's.
 * Result: one line for each thing that is asked, in order, whether or not an earlier one
 * said no.  step: state, position, tenant, pattern, when_changed (one line for each field: seen is
 * its value, compared that before; one yes is enough), condition (one line for each part
 * that AND joins; part is its text), action (one line for each: what its template gives), chain (the rules that led to
 * the event), followed (the jobs and events that came of it), verdict.  seen: the value
 * that was found, of a part of the condition the left side of its comparison;
 * compared: its right side, if that is no constant; both are NULL for who has not the
 * rights of the rule's owner; of state the rule's version, of a job that followed the one
 * that made it.  outcome: yes or no, of a part of the condition also
 * unknown (NULL) or the error; of the verdict: fired; failed (a job of queue "rule-calls" tries
 * again, or is dead); will fire; would fire (it is past: the rule met it as it was then, or
 * what followed is not kept); does not fire.  The rule is taken as it is now.
 * Errors: EQ003 tenant, EQ025 no such rule or event.
 * Isolation: each part by a snapshot of its own; nothing is locked.
 * Example:
 *	SELECT x.* FROM event_queue.event_store e, event_queue.explain_rule('welcome', e.id) x WHERE e.aggregate_id = 'L1' AND e.version = 1;
 */
CREATE FUNCTION explain_rule(
	rule text, event_id uuid, tenant_id text DEFAULT NULL,
	OUT step text, OUT part text, OUT seen text, OUT compared text, OUT outcome text)
RETURNS SETOF record
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, event_queue, pg_temp AS $$
#variable_conflict use_column
DECLARE
	tenant text := event_queue.resolve_tenant($3);
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
BEGIN
	SELECT x.* INTO r FROM event_queue.rule x WHERE x.name = $1 AND event_queue.tenant_visible(x.tenant_id);
	IF NOT FOUND THEN
		RAISE EXCEPTION USING ERRCODE = 'EQ025', MESSAGE = format('rule "%s" does not exist', $1);
	END IF;
	SELECT x.* INTO e FROM event_queue.event_store x WHERE x.id = $2 AND x.tenant_id = tenant;
	IF NOT FOUND THEN
		RAISE EXCEPTION USING ERRCODE = 'EQ025', MESSAGE = format('event %s does not exist', $2);
	END IF;

	-- one that catches up is not where the others are
	checkpoint := least(checkpoint, (SELECT greatest(u.position, r.start_position) FROM event_queue_internal.rule_catch_up u
		WHERE u.rule_id = r.rule_id AND r.enabled));
	step := 'state'; part := 'enabled';
	seen := CASE WHEN NOT r.enabled THEN 'paused'
		WHEN NOT EXISTS (SELECT FROM pg_roles o WHERE o.oid = r.owner) THEN 'out of service: its owner was dropped' ELSE 'enabled' END;
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
	step := 'pattern'; part := r.event_pattern; seen := e.event_type;
	outcome := CASE WHEN event_queue.event_matches(e.event_type, r.event_pattern) THEN 'yes' ELSE 'no' END;
	all_yes := all_yes AND outcome = 'yes';
	RETURN NEXT;

	FOR this IN SELECT p.* FROM event_queue_internal.condition_parts(r.rule_id, e.position) p LOOP
		step := this.step; part := this.part; seen := this.seen; compared := this.compared;
		outcome := CASE this.outcome WHEN 'true' THEN 'yes' WHEN 'false' THEN 'no' ELSE this.outcome END;
		RETURN NEXT;
	END LOOP;
	compared := NULL;

	SELECT t.* INTO tried FROM event_queue_internal.try_rule(r.rule_id, e.position) t;
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
COMMENT ON FUNCTION explain_rule(text, uuid, text) IS
'Why a rule fired for an event or did not: state, position, tenant, pattern, each part of the condition with the value that it saw, the rules that led to the event, and what followed.';

/*
 * test_rule: what a rule, as it is now, would do with events that are there.
 *
 * Nothing is enqueued, and nothing counted.
 * Arguments: rule, its name, also of one that is paused; from_position and to_position:
 * events after the first and up to the second (NULL: from the first event, up to the
 * newest that may be read); max_events: how many events of that range are looked at, the
 * oldest first; max_rows: how many that pattern and tenant let through are tried.
 * Result: one row for each of these, in order: outcome is matched, not matched,
 * suppressed (the rule led to the event), too deep (event_queue.rule_depth), or the error;
 * payload and options of the job, if the rule enqueues one; of a rule with actions payload is
 * their list, filled.
 * Errors: EQ009 max_rows or max_events, EQ025 no such rule.
 * Isolation: each part by a snapshot of its own; nothing is locked.
 * Example:
 *	SELECT event_queue.create_rule('draft', 'lead.won', queue => 'mail', job_name => 'won');
 *	SELECT event_queue.pause_rule('draft');
 *	SELECT outcome, count(*) FROM event_queue.test_rule('draft', max_rows => 1000) GROUP BY 1;
 */
CREATE FUNCTION test_rule(
	rule text, from_position bigint DEFAULT NULL, to_position bigint DEFAULT NULL, max_rows int DEFAULT 100, max_events int DEFAULT 100000,
	OUT "position" bigint, OUT event_id uuid, OUT tenant_id text, OUT event_type text, OUT aggregate_type text, OUT aggregate_id text,
	OUT created_at timestamptz, OUT outcome text, OUT payload jsonb, OUT options jsonb)
RETURNS SETOF record
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, event_queue, pg_temp
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_sort = off SET jit = off SET max_parallel_workers_per_gather = 0 AS $$
#variable_conflict use_column
DECLARE
	r event_queue.rule;
BEGIN
	SELECT x.* INTO r FROM event_queue.rule x WHERE x.name = $1 AND event_queue.tenant_visible(x.tenant_id);
	IF NOT FOUND THEN
		RAISE EXCEPTION USING ERRCODE = 'EQ025', MESSAGE = format('rule "%s" does not exist', $1);
	END IF;
	IF ($4 BETWEEN 1 AND 10000) IS NOT TRUE OR ($5 BETWEEN 1 AND 10000000) IS NOT TRUE THEN
		RAISE EXCEPTION USING ERRCODE = 'EQ009', MESSAGE = 'max_rows must be between 1 and 10000, max_events between 1 and 10000000';
	END IF;
	RETURN QUERY
	SELECT m.position, m.id, m.tenant_id, m.event_type, m.aggregate_type, m.aggregate_id, m.created_at, t.outcome, t.payload, t.options
	FROM (
		SELECT x.* FROM (
			SELECT s.position, s.id, s.tenant_id, s.event_type, s.aggregate_type, s.aggregate_id, s.created_at FROM event_queue.event_store s
			WHERE s.position > coalesce($2, 0) AND s.position <= least($3, event_queue.watermark()) ORDER BY s.position LIMIT $5) x
		WHERE (r.tenant_id IS NULL OR x.tenant_id = r.tenant_id) AND event_queue.tenant_visible(x.tenant_id)
		  AND event_queue.event_matches(x.event_type, r.event_pattern)
		ORDER BY x.position LIMIT $4) m,
		event_queue_internal.try_rule(r.rule_id, m.position) t
	ORDER BY m.position;
END
$$;
COMMENT ON FUNCTION test_rule(text, bigint, bigint, int, int) IS
'What a rule would do with events that are there: one row for each that its pattern and tenant let through. Leaves no trace.';
