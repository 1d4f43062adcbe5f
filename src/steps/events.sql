/*
 * events.sql: events meet the steps that wait for them (await_event); for the scheduler's
 * chore "waiting steps".
 */

/*
 * find_event: the first event after a position, up to another one, that matches, as JSON.  In the
 * order of the aggregate's versions, which is that of positions; of no aggregate, by position.
 */
CREATE FUNCTION event_queue_internal.find_event(tenant_id text, aggregate_type text, aggregate_id text, pattern text, after_position bigint, up_to bigint)
RETURNS jsonb
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, event_queue, pg_temp AS $$
#variable_conflict use_column
DECLARE
	found_event jsonb;
BEGIN
	IF $3 IS NOT NULL THEN
		SELECT event_queue.event_as_json(e) INTO found_event FROM event_queue.event_store e
		WHERE e.tenant_id = $1 AND e.aggregate_type = $2 AND e.aggregate_id = $3 AND e.position > $5 AND e.position <= $6
		  AND event_queue.event_matches(e.event_type, $4)
		ORDER BY e.version LIMIT 1;
	ELSE
		SELECT event_queue.event_as_json(e) INTO found_event FROM event_queue.event_store e
		WHERE e.tenant_id = $1 AND ($2 IS NULL OR e.aggregate_type = $2) AND e.position > $5 AND e.position <= $6
		  AND event_queue.event_matches(e.event_type, $4)
		ORDER BY e.position LIMIT 1;
	END IF;
	RETURN found_event;
END
$$;
COMMENT ON FUNCTION event_queue_internal.find_event(text, text, text, text, bigint, bigint) IS
'Internal. The first event of a span of positions that a step waits for.';

/*
 * give_event: gives a waiting step its event; skips a row that is locked: its job runs and looks itself.  In
 * plpgsql, which keeps the plan: it is called for each step.
 */
CREATE FUNCTION event_queue_internal.give_event(job_id bigint, name text, event jsonb) RETURNS boolean
LANGUAGE plpgsql SET search_path = pg_catalog, event_queue, pg_temp AS $$
#variable_conflict use_column
BEGIN
	-- CASE: the partial index of steps that wait for events, which is read whole, would look small
	PERFORM FROM event_queue.job_step x WHERE x.job_id = $1 AND x.name = $2 AND x.key = '' AND CASE x.state WHEN 1 THEN x.kind = 3 END
	FOR UPDATE SKIP LOCKED;
	IF FOUND THEN
		UPDATE event_queue.job_step s
		SET state = 0, result = $3, at = clock_timestamp(), fresh = false, resume = NOT event_queue_internal.resume_job(s.job_id)
		WHERE s.job_id = $1 AND s.name = $2 AND s.key = '';
	END IF;
	RETURN FOUND;
END
$$;
COMMENT ON FUNCTION event_queue_internal.give_event(bigint, text, jsonb) IS 'Internal. Gives a step the event that it waits for, and wakes its job; false if it is locked.';

/*
 * awaited_events: the steps that wait for events of a span of positions, each with its first one.  From the
 * events to the steps, whatever the statistics say; patterns of no aggregate, which may be many, are compared with
 * each type of event once.  Of one tenant, or (tenant NULL) of all but some.
 */
CREATE FUNCTION event_queue_internal.awaited_events(after_position bigint, up_to bigint, tenant text, but_of text[],
	OUT job_id bigint, OUT name text, OUT "position" bigint)
RETURNS SETOF record
LANGUAGE sql STABLE SET search_path = pg_catalog, event_queue, pg_temp
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
	WITH e AS MATERIALIZED (
		SELECT x.position, x.tenant_id, x.aggregate_type, x.aggregate_id, x.event_type FROM event_queue.event_store x
		WHERE x.position > $1 AND x.position <= $2 AND ($3 IS NULL OR x.tenant_id = $3) AND x.tenant_id <> ALL ($4)
	), of_type AS MATERIALIZED (
		SELECT e.tenant_id, e.aggregate_type, e.event_type, array_agg(e.position ORDER BY e.position) AS positions FROM e GROUP BY 1, 2, 3
	), wanted AS MATERIALIZED (
		SELECT t.tenant_id, p.pattern, p.aggregate_type FROM (SELECT DISTINCT e.tenant_id FROM e) t, LATERAL (
			SELECT DISTINCT x.pattern, x.aggregate_type FROM event_queue.job_step x
			WHERE x.tenant_id = t.tenant_id AND x.aggregate_id IS NULL AND x.kind = 3 AND x.state = 1 AND NOT x.fresh OFFSET 0) p
	), met AS MATERIALIZED (
		SELECT w.tenant_id, w.pattern, w.aggregate_type, array_agg(u.position ORDER BY u.position) AS positions
		FROM wanted w JOIN of_type o ON o.tenant_id = w.tenant_id AND (w.aggregate_type IS NULL OR w.aggregate_type = o.aggregate_type)
			AND event_queue.event_matches(o.event_type, w.pattern), unnest(o.positions) u (position)
		GROUP BY 1, 2, 3)
	SELECT m.job_id, m.name, min(m.position) FROM (
		SELECT s.job_id, s.name, e.position FROM e, LATERAL (
			SELECT x.job_id, x.name, x.pattern FROM event_queue.job_step x
			WHERE x.tenant_id = e.tenant_id AND x.aggregate_id = e.aggregate_id AND x.aggregate_type = e.aggregate_type
			  AND x.kind = 3 AND x.state = 1 AND NOT x.fresh AND x.after_position < e.position OFFSET 0) s
		WHERE event_queue.event_matches(e.event_type, s.pattern)
		UNION ALL
		SELECT s.job_id, s.name, CASE WHEN s.after_position < met.positions[1] THEN met.positions[1]
			ELSE (SELECT min(u) FROM unnest(met.positions) u WHERE u > s.after_position) END
		FROM met, LATERAL (
			SELECT x.job_id, x.name, x.after_position FROM event_queue.job_step x
			WHERE x.tenant_id = met.tenant_id AND x.aggregate_id IS NULL AND x.aggregate_type IS NOT DISTINCT FROM met.aggregate_type
			  AND x.pattern = met.pattern AND x.kind = 3 AND x.state = 1 AND NOT x.fresh OFFSET 0) s) m
	WHERE m.position IS NOT NULL GROUP BY 1, 2
$$;
COMMENT ON FUNCTION event_queue_internal.awaited_events(bigint, bigint, text, text[]) IS
'Internal. The steps that wait for events of a span of positions, each with its first one.';

/*
 * match_up_to: how far of a span of positions match_events goes at once: 1000 events, or until
 * some 100,000 comparisons of an event's type with a pattern, so that a tenant that waits for
 * many patterns does not hold up the scheduler's other chores for long.  Of one tenant, or (tenant
 * NULL) of all but some, whose events are passed over, 20,000 at once.
 */
CREATE FUNCTION event_queue_internal.match_up_to(after_position bigint, up_to bigint, tenant text, but_of text[]) RETURNS bigint
LANGUAGE sql STABLE SET search_path = pg_catalog, event_queue, pg_temp SET enable_seqscan = off AS $$
	WITH span AS MATERIALIZED (
		SELECT y.position, y.tenant_id, y.aggregate_type, y.event_type FROM event_queue.event_store y
		WHERE y.position > $1 AND y.position <= $2 ORDER BY y.position LIMIT CASE WHEN $3 IS NULL AND $4 = '{}' THEN 1000 ELSE 20000 END
	), e AS MATERIALIZED (
		SELECT x.position, x.tenant_id, row_number() OVER (PARTITION BY x.tenant_id, x.aggregate_type, x.event_type ORDER BY x.position) AS nth
		FROM (SELECT * FROM span WHERE ($3 IS NULL OR span.tenant_id = $3) AND span.tenant_id <> ALL ($4) ORDER BY span.position LIMIT 1000) x
	), wanted AS MATERIALIZED (
		SELECT t.tenant_id, (SELECT count(*) FROM (
			SELECT DISTINCT x.pattern, x.aggregate_type FROM event_queue.job_step x
			WHERE x.tenant_id = t.tenant_id AND x.aggregate_id IS NULL AND x.kind = 3 AND x.state = 1 AND NOT x.fresh) p) AS patterns
		FROM (SELECT DISTINCT e.tenant_id FROM e) t
	), summed AS (
		-- as awaited_events has it: once for each type
		SELECT e.position, row_number() OVER w AS place, sum(CASE e.nth WHEN 1 THEN n.patterns ELSE 0 END) OVER w AS comparisons
		FROM e JOIN wanted n USING (tenant_id) WINDOW w AS (ORDER BY e.position)
	), most AS (
		SELECT count(*) AS events, count(*) FILTER (WHERE s.comparisons <= 100000 OR s.place = 1) AS taken,
			max(s.position) FILTER (WHERE s.comparisons <= 100000 OR s.place = 1) AS last FROM summed s
	)
	SELECT CASE WHEN m.taken < m.events OR m.events = 1000 THEN m.last
		WHEN (SELECT count(*) FROM span) < CASE WHEN $3 IS NULL AND $4 = '{}' THEN 1000 ELSE 20000 END THEN $2
		ELSE (SELECT max(span.position) FROM span) END
	FROM most m
$$;
COMMENT ON FUNCTION event_queue_internal.match_up_to(bigint, bigint, text, text[]) IS 'Internal. Up to which position events meet waiting steps at once.';

/*
 * meet_events: gives the events of a span of positions to the steps that wait for them, for a quarter of a second;
 * tenants as in awaited_events.  Result: NULL: to all; else the tenant whose turn it was: the span is to be met again.
 */
CREATE FUNCTION event_queue_internal.meet_events(after_position bigint, up_to bigint, tenant text, but_of text[]) RETURNS text
LANGUAGE plpgsql SET search_path = pg_catalog, event_queue, pg_temp SET enable_seqscan = off AS $$
DECLARE
	s record;
	event event_queue.event_store;
	until timestamptz;
	any_given boolean := false;
BEGIN
	FOR s IN SELECT a.job_id, a.name, a.position FROM event_queue_internal.awaited_events($1, $2, $3, $4) a LOOP
		SELECT * INTO event FROM event_queue.event_store e WHERE e.position = s.position;
		until := coalesce(until, clock_timestamp() + interval '250 milliseconds');
		IF any_given AND clock_timestamp() > until THEN
			RETURN event.tenant_id;
		END IF;
		any_given := event_queue_internal.give_event(s.job_id, s.name, event_queue.event_as_json(event)) OR any_given;
	END LOOP;
	RETURN NULL;
END
$$;
COMMENT ON FUNCTION event_queue_internal.meet_events(bigint, bigint, text, text[]) IS 'Internal. Gives the events of a span of positions to the steps that wait for them.';

/*
 * match_events: for the scheduler: events meet the steps that wait for them, some at a time (match_up_to).
 *
 * A tenant that has most of what one look is too little for, or whose steps are too many, is set aside
 * (step_behind): its events are met by themselves, of one such tenant in each look, and those of others go on.
 *
 * A step whose wait has committed is fresh until it was looked at here: for events
 * from its own position up to the checkpoint.  From then on it meets events with all
 * others.  Tenants have turns.  A row that is locked is one whose job runs and looks itself (await_event), and
 * is fresh again if it goes on waiting; if that run is rolled back, the job has failed, and its next run looks.
 * Result: true if there is more to do.
 */
CREATE FUNCTION event_queue_internal.match_events() RETURNS boolean
LANGUAGE plpgsql SET search_path = pg_catalog, event_queue, pg_temp SET enable_seqscan = off AS $$
#variable_conflict use_column
DECLARE
	-- before the snapshots of what follows
	up_to bigint := event_queue.watermark();
	checkpoint bigint;
	last bigint;
	behind text[] := ARRAY(SELECT b.tenant_id FROM event_queue_internal.step_behind b);
	busy record;
	busy_tenant text;
	this_turn text;
	any_met boolean;	-- in this round of turns
	tenants text[];
	n int;
	more boolean := false;
	s record;
	event jsonb;
BEGIN
	SELECT c.position, c.turn, c.met INTO checkpoint, this_turn, any_met FROM event_queue_internal.step_checkpoint c FOR UPDATE;
	IF NOT FOUND THEN
		UPDATE event_queue.job_step x SET fresh = true WHERE x.kind = 3 AND x.state = 1 AND NOT x.fresh;
		DELETE FROM event_queue_internal.step_behind;
		INSERT INTO event_queue_internal.step_checkpoint VALUES (up_to);
		checkpoint := up_to;
		this_turn := '';
		any_met := false;
		behind := '{}';
	END IF;
	IF up_to > checkpoint THEN
		last := up_to;
		IF EXISTS (SELECT FROM event_queue.job_step x WHERE x.kind = 3 AND x.state = 1 AND NOT x.fresh) THEN
			last := event_queue_internal.match_up_to(checkpoint, up_to, NULL, behind);
			IF last < up_to THEN
				SELECT x.tenant_id, count(*) AS events, sum(count(*)) OVER () AS of_all INTO busy FROM event_queue.event_store x
				WHERE x.position > checkpoint AND x.position <= last AND x.tenant_id <> ALL (behind)
				GROUP BY x.tenant_id ORDER BY count(*) DESC LIMIT 1;
				IF busy.events > busy.of_all / 2 THEN
					INSERT INTO event_queue_internal.step_behind VALUES (busy.tenant_id, checkpoint);
					behind := behind || busy.tenant_id;
					last := event_queue_internal.match_up_to(checkpoint, up_to, NULL, behind);
				END IF;
			END IF;
			busy_tenant := event_queue_internal.meet_events(checkpoint, last, NULL, behind);
			IF busy_tenant IS NOT NULL THEN
				INSERT INTO event_queue_internal.step_behind VALUES (busy_tenant, checkpoint);
				behind := behind || busy_tenant;
				last := checkpoint;
			END IF;
			more := last < up_to;
		END IF;
		UPDATE event_queue_internal.step_checkpoint SET position = last;
		checkpoint := last;
	END IF;
	-- the others first, but not for ever
	IF behind <> '{}' AND (NOT more OR random() < 0.2) THEN
		SELECT * INTO busy FROM event_queue_internal.step_behind b ORDER BY random() LIMIT 1;
		last := checkpoint;
		IF EXISTS (SELECT FROM event_queue.job_step x WHERE x.tenant_id = busy.tenant_id AND x.kind = 3 AND x.state = 1 AND NOT x.fresh) THEN
			last := event_queue_internal.match_up_to(busy.position, checkpoint, busy.tenant_id, '{}');
			IF event_queue_internal.meet_events(busy.position, last, busy.tenant_id, '{}') IS NOT NULL THEN
				last := busy.position;
			END IF;
		END IF;
		IF last < checkpoint THEN
			UPDATE event_queue_internal.step_behind b SET position = last WHERE b.tenant_id = busy.tenant_id;
		ELSE
			DELETE FROM event_queue_internal.step_behind b WHERE b.tenant_id = busy.tenant_id;
		END IF;
	END IF;
	more := more OR behind <> '{}' AND EXISTS (SELECT FROM event_queue_internal.step_behind);

	-- New waits: so many of each of the next tenants.
	tenants := ARRAY(WITH RECURSIVE t (tenant_id, n) AS (
		(SELECT x.tenant_id, 1 FROM event_queue.job_step x WHERE x.fresh AND x.tenant_id > this_turn ORDER BY x.tenant_id LIMIT 1)
		UNION ALL
		SELECT y.tenant_id, t.n + 1 FROM t, LATERAL (
			SELECT x.tenant_id FROM event_queue.job_step x WHERE x.fresh AND x.tenant_id > t.tenant_id ORDER BY x.tenant_id LIMIT 1) y
		WHERE t.n < 100) SELECT t.tenant_id FROM t);
	n := 0;
	FOR s IN SELECT y.*, b.position AS own_checkpoint FROM unnest(tenants) t (tenant_id) LEFT JOIN event_queue_internal.step_behind b USING (tenant_id), LATERAL (
			SELECT x.job_id, x.name, x.key, x.tenant_id, x.aggregate_type, x.aggregate_id, x.pattern, x.after_position, x.state
			FROM event_queue.job_step x WHERE x.fresh AND x.tenant_id = t.tenant_id ORDER BY x.step_id
			LIMIT 500 / greatest(cardinality(tenants), 1) FOR UPDATE SKIP LOCKED) y
	LOOP
		n := n + 1;
		event := event_queue_internal.find_event(s.tenant_id, s.aggregate_type, s.aggregate_id, s.pattern, s.after_position,
			coalesce(s.own_checkpoint, checkpoint));
		IF event IS NULL OR s.state <> 1 THEN
			UPDATE event_queue.job_step x SET fresh = false WHERE x.job_id = s.job_id AND x.name = s.name AND x.key = s.key;
		ELSE
			PERFORM event_queue_internal.give_event(s.job_id, s.name, event);
		END IF;
	END LOOP;
	-- After many tenants' turns comes another round, but not if others have all new waits locked.
	any_met := any_met OR n > 0;
	more := more OR cardinality(tenants) = 100 OR this_turn <> '' AND any_met OR n >= 500 / greatest(cardinality(tenants), 1);
	this_turn := CASE cardinality(tenants) WHEN 100 THEN tenants[100] ELSE '' END;
	any_met := any_met AND this_turn <> '';
	UPDATE event_queue_internal.step_checkpoint c SET turn = this_turn, met = any_met WHERE (c.turn, c.met) <> (this_turn, any_met);

	-- Jobs whose rows others had: some of each tenant, since one may hold many of its own for long.
	n := 0;
	FOR s IN SELECT x.job_id, x.name, x.key FROM event_queue.job_step x WHERE x.resume AND x.ctid = ANY (ARRAY(
		SELECT y.ctid FROM (
			SELECT z.ctid, row_number() OVER (PARTITION BY z.tenant_id ORDER BY random()) AS place
			FROM event_queue.job_step z WHERE z.resume) y WHERE y.place <= 100)) FOR UPDATE SKIP LOCKED
	LOOP
		IF event_queue_internal.resume_job(s.job_id) THEN
			UPDATE event_queue.job_step x SET resume = false WHERE x.job_id = s.job_id AND x.name = s.name AND x.key = s.key;
			n := n + 1;
		END IF;
	END LOOP;
	more := more OR n >= 100;
	RETURN more;
END
$$;
COMMENT ON FUNCTION event_queue_internal.match_events() IS
'Internal. Gives events to the steps that wait for them; true if there are more.';

/* Does a step wait for an event? */
CREATE FUNCTION event_queue_internal.events_are_awaited() RETURNS boolean
LANGUAGE sql STABLE SET search_path = pg_catalog, event_queue, pg_temp SET enable_seqscan = off AS $$
	SELECT EXISTS (SELECT FROM event_queue.job_step x WHERE x.kind = 3 AND x.state = 1)
$$;
COMMENT ON FUNCTION event_queue_internal.events_are_awaited() IS 'Internal. Does any step wait for an event?';
