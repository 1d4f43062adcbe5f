/*
 * alerts.sql: alerts: raised once, as an event, and resolved once.
 *
 * The scheduler calls evaluate_alerts every event_queue.alert_interval; it runs no code of
 * users.  An alert has a key, NAME:OBJECT: the name of its definition, and the queue or the
 * check of health() that it is about.  Its states: pending (the condition holds, but not yet
 * for as long as the definition says), raised, resolved (until cool_down is over).  State,
 * history and event are written in one transaction, which waits for the disk: so
 * alert.raised and alert.resolved come once each, whatever stops in between.
 *
 * The events belong to the reserved tenant "event_queue"; only roles that are bound to that
 * tenant, or to none, see alerts.  Only the extension appends them (arguments.c).
 */

CREATE TABLE event_queue_internal.alert_definition (
	name			text CONSTRAINT alert_definition_pkey PRIMARY KEY,
	kind			text NOT NULL,
	queue			text,
	threshold		float8,
	clear_threshold	float8,
	pending			interval NOT NULL DEFAULT '0',
	cool_down		interval NOT NULL DEFAULT '0',
	severity		text NOT NULL DEFAULT 'warning',
	enabled			boolean NOT NULL DEFAULT true,
	created_at		timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE event_queue_internal.alert_definition IS
'Alerts that were defined by create_alert; a row "health" once the settings of the built-in ones were changed.';
ALTER TABLE event_queue_internal.alert_definition ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant_isolation ON event_queue_internal.alert_definition USING (tenant_visible('event_queue'));
SELECT pg_catalog.pg_extension_config_dump('event_queue_internal.alert_definition', '');

CREATE TABLE event_queue_internal.alert_record (
	alert_id	bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT alert_record_pkey PRIMARY KEY,
	key			text NOT NULL,
	name		text NOT NULL,
	kind		text NOT NULL,
	object		text NOT NULL,
	severity	text NOT NULL,
	raised_at	timestamptz NOT NULL,
	resolved_at	timestamptz,
	resolution	text,
	value		float8,
	peak		float8,
	threshold	float8,
	detail		text,
	hint		text,
	acked_at	timestamptz,
	acked_by	text,
	ack_note	text
);
COMMENT ON TABLE event_queue_internal.alert_record IS 'Alerts that were raised; see the view alert_history.';
CREATE INDEX alert_record_key ON event_queue_internal.alert_record (key, raised_at);
ALTER TABLE event_queue_internal.alert_record ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant_isolation ON event_queue_internal.alert_record USING (tenant_visible('event_queue'));
SELECT pg_catalog.pg_extension_config_dump('event_queue_internal.alert_record', '');
SELECT pg_catalog.pg_extension_config_dump('event_queue_internal.alert_record_alert_id_seq', '');

CREATE TABLE event_queue_internal.alert_state (
	key			text CONSTRAINT alert_state_pkey PRIMARY KEY,
	name		text NOT NULL,
	kind		text NOT NULL,
	object		text NOT NULL,
	state		text NOT NULL CHECK (state IN ('pending', 'raised', 'resolved')),
	since		timestamptz NOT NULL,
	alert_id	bigint,
	seen_at		timestamptz NOT NULL
);
COMMENT ON TABLE event_queue_internal.alert_state IS
'Internal. Alerts whose condition holds, and those that may not be raised again yet. since: when the state began.';
ALTER TABLE event_queue_internal.alert_state ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant_isolation ON event_queue_internal.alert_state USING (tenant_visible('event_queue'));
SELECT pg_catalog.pg_extension_config_dump('event_queue_internal.alert_state', '');

CREATE TABLE event_queue_internal.alert_snooze (
	name		text CONSTRAINT alert_snooze_pkey PRIMARY KEY,
	until		timestamptz NOT NULL,
	snoozed_by	text NOT NULL,
	note		text
);
COMMENT ON TABLE event_queue_internal.alert_snooze IS 'Definitions of alerts, or keys, that are not raised until a time.';
ALTER TABLE event_queue_internal.alert_snooze ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant_isolation ON event_queue_internal.alert_snooze USING (tenant_visible('event_queue'));
SELECT pg_catalog.pg_extension_config_dump('event_queue_internal.alert_snooze', '');

/*
 * queue_figures: jobs, dead letters and attempts of the last minute, as in queue_depth, of all
 * queues that have a slot in shared memory; reads no table.
 */
CREATE FUNCTION event_queue_internal.queue_figures(
	OUT queue_id int, OUT depth bigint, OUT dead bigint, OUT completed_per_s float8, OUT failed_per_s float8)
RETURNS SETOF record
LANGUAGE C VOLATILE AS 'MODULE_PATHNAME', 'eq_queue_figures';
COMMENT ON FUNCTION event_queue_internal.queue_figures() IS
'Internal. Jobs, dead letters and rates of all queues, from shared memory.';

/* alert_default: the default threshold of a kind of alert; NULL: there is none. */
CREATE FUNCTION event_queue_internal.alert_default(kind text) RETURNS float8
LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
	SELECT CASE $1 WHEN 'dead_letters' THEN 0 WHEN 'new_dead_letters' THEN 0 WHEN 'failure_rate' THEN 0.5 WHEN 'sla' THEN 1
		WHEN 'slo_burn' THEN 14.4 WHEN 'slo_burn_slow' THEN 6 END::float8
$$;
COMMENT ON FUNCTION event_queue_internal.alert_default(text) IS 'Internal. The threshold of an alert that names none; NULL: it must.';

/*
 * alert_conditions: alerts whose figure is above clear_threshold now; breached: also above
 * threshold.  No rows if all is well.
 * Arguments: with_figures: alerts of create_alert; with_health: those of health().
 */
CREATE FUNCTION event_queue_internal.alert_conditions(
	with_figures boolean, with_health boolean, OUT key text, OUT name text, OUT kind text, OUT object text, OUT breached boolean, OUT value float8,
	OUT threshold float8, OUT detail text, OUT hint text, OUT pending interval, OUT cool_down interval, OUT severity text)
RETURNS SETOF record
LANGUAGE plpgsql SET search_path = pg_catalog, event_queue, pg_temp AS $$
#variable_conflict use_column
BEGIN
	IF with_figures AND EXISTS (SELECT FROM event_queue_internal.alert_definition d WHERE d.enabled AND d.kind <> 'health') THEN
		RETURN QUERY
		SELECT d.name || ':' || q.name, d.name, d.kind, q.name, v.value > d.threshold, v.value, d.threshold,
			CASE d.kind
				WHEN 'queue_depth' THEN format('%s jobs', v.value)
				WHEN 'dead_letters' THEN format('%s dead letters', v.value)
				WHEN 'new_dead_letters' THEN format('%s dead letters in the last 5 minutes', v.value)
				WHEN 'failure_rate' THEN format('%s %% of the attempts of the last minute have failed', round((v.value * 100)::numeric, 1))
				WHEN 'oldest_waiting' THEN format('the oldest ready job has waited for %s s', round(v.value::numeric, 1))
				WHEN 'slo_burn' THEN format('the error budget of 30 days burns %s times too fast, over an hour and over 5 minutes', round(v.value::numeric, 1))
				WHEN 'slo_burn_slow' THEN format('the error budget of 30 days burns %s times too fast, over 6 hours and over an hour', round(v.value::numeric, 1))
				ELSE format('the oldest ready job has waited for %s of the SLA', round(v.value::numeric, 2)) END,
			CASE WHEN d.kind LIKE '%dead_letters' THEN
					format('SELECT * FROM event_queue.dead_letters WHERE queue = %L; then retry_all_dead or discard_all_dead', q.name)
				WHEN d.kind = 'failure_rate' THEN
					format('SELECT j.job_id, e.* FROM event_queue.jobs j, event_queue.explain_job(j.job_id) e WHERE j.queue = %L LIMIT 10', q.name)
				WHEN starts_with(d.kind, 'slo_burn') THEN format('SELECT * FROM event_queue.slo_status WHERE queue = %L; SELECT event_queue.queue_health() -> %L', q.name, q.name)
				WHEN q.paused THEN format('SELECT event_queue.resume_queue(%L)', q.name)
				ELSE 'More workers are needed; SELECT * FROM event_queue.health()' END,
			d.pending, d.cool_down, d.severity
		FROM event_queue_internal.alert_definition d
		JOIN event_queue.queue q ON q.name = d.queue OR d.queue IS NULL
		JOIN event_queue_internal.queue_figures() f USING (queue_id)
		CROSS JOIN LATERAL (SELECT CASE d.kind
			WHEN 'queue_depth' THEN f.depth
			WHEN 'dead_letters' THEN f.dead
			WHEN 'new_dead_letters' THEN CASE WHEN f.dead > 0 THEN (SELECT count(*) FROM event_queue.dead_letter l
				WHERE l.queue_id = q.queue_id AND l.died_at > clock_timestamp() - interval '5 minutes') END
			-- no rate of less than five attempts in a minute
			WHEN 'failure_rate' THEN CASE WHEN f.failed_per_s + f.completed_per_s >= 5 / 60.0
				THEN f.failed_per_s / (f.failed_per_s + f.completed_per_s) END
			-- the front of the index that claims walk
			WHEN 'oldest_waiting' THEN CASE WHEN f.depth > 0 THEN (SELECT extract(epoch FROM clock_timestamp() - o.oldest_ready)
				FROM event_queue_internal.queue_depth(q.queue_id) o) END
			-- as in slo_status: fast over a long and a short time, so that the alert also ends soon;
			-- no rate of a few jobs
			WHEN 'slo_burn' THEN CASE WHEN q.sla IS NOT NULL THEN (SELECT least(1 - event_queue_internal.compliance(m.last_1h),
				1 - event_queue_internal.compliance(m.last_5m)) / (1 - q.sla_target) FROM event_queue_internal.metrics('q', q.queue_id) m WHERE m.last_1h[3] + m.last_1h[7] >= 10) END
			WHEN 'slo_burn_slow' THEN CASE WHEN q.sla IS NOT NULL THEN (SELECT least(1 - event_queue_internal.compliance(m.last_6h),
				1 - event_queue_internal.compliance(m.last_1h)) / (1 - q.sla_target) FROM event_queue_internal.metrics('q', q.queue_id) m WHERE m.last_6h[3] + m.last_6h[7] >= 10) END
			-- SLA: how much of it the oldest ready job has used up
			WHEN 'sla' THEN CASE WHEN f.depth > 0 AND q.sla IS NOT NULL THEN (SELECT extract(epoch FROM clock_timestamp() - o.oldest_ready)
				FROM event_queue_internal.queue_depth(q.queue_id) o) / extract(epoch FROM q.sla) END
			END::float8) AS v (value)
		WHERE d.enabled AND d.kind <> 'health' AND v.value > d.clear_threshold;
	END IF;
	IF NOT with_health THEN
		RETURN;
	END IF;
	-- Several lines of one check, as of sessions that hold locks, are one alert.
	RETURN QUERY
	SELECT CASE WHEN octet_length(h.check_name) <= 240 THEN 'health:' || h.check_name ELSE 'health:' || left(h.check_name, 40) || md5(h.check_name) END,
		'health', 'health', h.check_name, true, NULL::float8, NULL::float8,
		string_agg(h.detail, '; ' ORDER BY h.detail), min(h.hint), coalesce(d.pending, '15 seconds'), coalesce(d.cool_down, '0'),
		CASE WHEN h.check_name IN ('store', 'scheduler', 'executors', 'shared memory') THEN 'critical' ELSE coalesce(d.severity, 'warning') END
	FROM event_queue.health() h LEFT JOIN event_queue_internal.alert_definition d ON d.name = 'health'
	WHERE NOT h.ok AND d.enabled IS NOT FALSE
	GROUP BY h.check_name, d.pending, d.cool_down, d.severity;
END
$$;
COMMENT ON FUNCTION event_queue_internal.alert_conditions(boolean, boolean) IS 'Internal. Conditions of alerts that hold now.';

/* tell_alert: the event and the NOTIFY of an alert that was raised or resolved; the event's position. */
CREATE FUNCTION event_queue_internal.tell_alert(alert event_queue_internal.alert_record, test boolean DEFAULT false) RETURNS bigint
LANGUAGE plpgsql SET search_path = pg_catalog, event_queue, pg_temp SET timezone = 'UTC' AS $$
DECLARE
	what CONSTANT text := CASE WHEN alert.resolved_at IS NULL THEN 'raised' ELSE 'resolved' END;
	told bigint;
BEGIN
	told := position FROM event_queue.append('alert', alert.key, 'alert.' || what,
		to_jsonb(alert) - '{acked_at,acked_by,ack_note}'::text[]
			|| CASE WHEN alert.resolved_at IS NULL THEN '{}' ELSE jsonb_build_object('seconds', extract(epoch FROM alert.resolved_at - alert.raised_at)) END
			|| CASE WHEN test THEN '{"test": true}' ELSE '{}' END::jsonb,
		tenant_id => 'event_queue');
	-- Any role may listen, of whatever tenant: it says which, and alert_history what.  A full NOTIFY queue
	-- would fail the commit, and no alert would be raised.
	PERFORM pg_notify('event_queue_alerts', json_build_object('state', what, 'alert_id', alert.alert_id, 'severity', alert.severity)::text)
	WHERE pg_notification_queue_usage() < 0.9;
	RETURN told;
END
$$;
COMMENT ON FUNCTION event_queue_internal.tell_alert(event_queue_internal.alert_record, boolean) IS 'Internal. Appends the event of an alert and notifies.';

/*
 * step_alert: raises, resolves or leaves one alert.
 * Arguments: was: its state, NULL: none; holds: its figure is above the threshold at which it is
 * resolved (clear_threshold); breached: above the one at which it is raised; the others are columns
 * of alert_conditions.
 */
CREATE FUNCTION event_queue_internal.step_alert(
	key text, name text, kind text, object text, was event_queue_internal.alert_state, holds boolean, breached boolean, value float8,
	threshold float8, detail text, hint text, pending interval, cool_down interval, severity text)
RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, event_queue, pg_temp AS $$
#variable_conflict use_column
DECLARE
	at CONSTANT timestamptz := clock_timestamp();
	this event_queue_internal.alert_record;
	state text := was.state;
	-- also after the clock was set back
	since timestamptz := CASE WHEN was.since > at THEN '-infinity' ELSE was.since END;
BEGIN
	IF state = 'raised' THEN
		IF holds THEN
			UPDATE event_queue_internal.alert_record r
			SET value = $8, peak = greatest(r.peak, $8), detail = left($10, 1000), hint = $11
			WHERE r.alert_id = was.alert_id AND was.seen_at NOT BETWEEN at - interval '1 minute' AND at;
			UPDATE event_queue_internal.alert_state s SET seen_at = at
			WHERE s.key = $1 AND was.seen_at NOT BETWEEN at - interval '1 minute' AND at;
			RETURN;
		END IF;
		PERFORM set_config('synchronous_commit', 'on', true);
		UPDATE event_queue_internal.alert_record r
		SET resolved_at = greatest(at, r.raised_at), resolution = coalesce((SELECT CASE WHEN d.enabled THEN 'cleared' ELSE 'paused' END
			FROM event_queue_internal.alert_definition d WHERE d.name = $2), CASE WHEN $2 = 'health' THEN 'cleared' ELSE 'dropped' END)
		WHERE r.alert_id = was.alert_id RETURNING r.* INTO this;
		UPDATE event_queue_internal.alert_state s SET state = 'resolved', since = at, seen_at = at WHERE s.key = $1;
		PERFORM event_queue_internal.tell_alert(this) WHERE this.alert_id IS NOT NULL;
		RETURN;
	END IF;
	IF state = 'resolved' THEN
		IF since > at - coalesce($13, (SELECT d.cool_down FROM event_queue_internal.alert_definition d WHERE d.name = $2), '0') THEN
			RETURN;
		END IF;
		DELETE FROM event_queue_internal.alert_state s WHERE s.key = $1;
		state := NULL;
	END IF;
	IF breached IS NOT TRUE THEN
		DELETE FROM event_queue_internal.alert_state s WHERE s.key = $1;
		RETURN;
	END IF;
	IF state IS NULL THEN
		INSERT INTO event_queue_internal.alert_state AS s (key, name, kind, object, state, since, seen_at)
		VALUES ($1, $2, $3, $4, 'pending', at, at);
		since := at;
	END IF;
	IF since > at - pending OR EXISTS (SELECT FROM event_queue_internal.alert_snooze z WHERE z.name IN ($1, $2) AND z.until > at) THEN
		RETURN;
	END IF;
	PERFORM set_config('synchronous_commit', 'on', true);
	INSERT INTO event_queue_internal.alert_record (key, name, kind, object, severity, raised_at, value, peak, threshold, detail, hint)
	VALUES ($1, $2, $3, $4, $14, at, $8, $8, $9, left($10, 1000), $11) RETURNING * INTO this;
	UPDATE event_queue_internal.alert_state s SET state = 'raised', since = at, seen_at = at, alert_id = this.alert_id WHERE s.key = $1;
	PERFORM event_queue_internal.tell_alert(this);
END
$$;
COMMENT ON FUNCTION event_queue_internal.step_alert(text, text, text, text, event_queue_internal.alert_state, boolean, boolean, float8, float8, text, text, interval, interval, text) IS
'Internal. Raises, resolves or leaves one alert.';

/*
 * evaluate_alerts: for the scheduler.  Writes nothing while nothing changes.  What fails
 * of one alert is noted, and hurts no other.
 * Arguments: with_health: look at health(), too, which takes longer.
 */
CREATE FUNCTION event_queue_internal.evaluate_alerts(with_health boolean) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, event_queue, pg_temp AS $$
DECLARE
	c record;
	-- while a table is locked, its alerts stay as they are
	with_figures CONSTANT boolean := event_queue_internal.lock_for_look('{queue,job,dead_letter}') IS NULL;
BEGIN
	FOR c IN
		WITH found AS MATERIALIZED (SELECT f.*, bool_or(f.kind = 'health' AND f.detail LIKE 'can''t look: %') OVER () AS is_blind
			FROM event_queue_internal.alert_conditions(with_figures, with_health) f)
		SELECT coalesce(f.key, s.key) AS key, coalesce(f.name, s.name) AS name, coalesce(f.kind, s.kind) AS kind, coalesce(f.object, s.object) AS object,
			s AS was, f.key IS NOT NULL AS holds, f.breached, f.value, f.threshold, f.detail, f.hint, f.pending, f.cool_down, f.severity
		FROM found f FULL JOIN event_queue_internal.alert_state s USING (key)
		WHERE f.key IS NOT NULL OR CASE WHEN s.kind <> 'health' THEN with_figures
			ELSE with_health AND NOT coalesce((SELECT bool_or(x.is_blind) FROM found x), false) END
		ORDER BY 1
	LOOP
		BEGIN
			PERFORM event_queue_internal.step_alert(c.key, c.name, c.kind, c.object, c.was, c.holds, c.breached, c.value,
				c.threshold, c.detail, c.hint, c.pending, c.cool_down, c.severity);
			PERFORM event_queue_internal.clear_fault('alert', c.key);
		EXCEPTION
			WHEN lock_not_available THEN
				RAISE;
			WHEN OTHERS THEN
				PERFORM event_queue_internal.note_fault('alert', c.key, NULL, SQLSTATE, SQLERRM);
		END;
	END LOOP;
END
$$;
COMMENT ON FUNCTION event_queue_internal.evaluate_alerts(boolean) IS 'Internal. Raises and resolves alerts.';

/* maintain_alerts: deletes alerts and snoozes that are over, batch at most; result: there may be more. */
CREATE FUNCTION event_queue_internal.maintain_alerts(batch int DEFAULT 1000) RETURNS boolean
LANGUAGE plpgsql SET search_path = pg_catalog, event_queue, pg_temp AS $$
DECLARE
	keep interval := make_interval(mins => (SELECT s.setting::int FROM pg_settings s WHERE s.name = 'event_queue.keep_audit'));
	n bigint := 0;
BEGIN
	IF keep > '0' THEN
		DELETE FROM event_queue_internal.alert_record WHERE ctid = ANY (ARRAY(
			SELECT r.ctid FROM event_queue_internal.alert_record r WHERE r.resolved_at < clock_timestamp() - keep LIMIT $1));
		GET DIAGNOSTICS n = ROW_COUNT;
	END IF;
	DELETE FROM event_queue_internal.alert_snooze z WHERE z.until < clock_timestamp();
	RETURN n >= $1;
END
$$;
COMMENT ON FUNCTION event_queue_internal.maintain_alerts(int) IS 'Internal. Removes old alerts and snoozes that are over.';

/* alert_definition_of: the definition, or the built-in one; EQ025 if there is none. */
CREATE FUNCTION event_queue_internal.alert_definition_of(name text) RETURNS event_queue_internal.alert_definition
LANGUAGE plpgsql SET search_path = pg_catalog, event_queue, pg_temp AS $$
#variable_conflict use_column
DECLARE
	this event_queue_internal.alert_definition;
BEGIN
	PERFORM event_queue_internal.require_unbound();
	SELECT d.* INTO this FROM event_queue_internal.alert_definition d WHERE d.name = $1 FOR UPDATE;
	IF FOUND THEN
		RETURN this;
	END IF;
	IF $1 = 'health' THEN
		this.name := 'health';
		this.kind := 'health';
		this.pending := '15 seconds';
		this.cool_down := '0';
		this.severity := 'warning';
		this.enabled := true;
		this.created_at := now();
		RETURN this;
	END IF;
	RAISE EXCEPTION USING ERRCODE = 'EQ025', MESSAGE = format('alert "%s" does not exist', $1),
		HINT = 'See the view event_queue.alert_definitions.';
END
$$;
COMMENT ON FUNCTION event_queue_internal.alert_definition_of(text) IS 'Internal. An alert''s definition, locked; EQ025 if there is none.';

/* store_alert: checks a definition (EQ052) and writes it; false if one exists and replaces is false. */
CREATE FUNCTION event_queue_internal.store_alert(this event_queue_internal.alert_definition, replaces boolean DEFAULT true) RETURNS boolean
LANGUAGE plpgsql SET search_path = pg_catalog, event_queue, pg_temp AS $$
DECLARE
	bad text := CASE
		WHEN this.name = 'health' AND num_nonnulls(this.queue, this.threshold, this.clear_threshold) > 0
			THEN 'the built-in alerts have no queue and no threshold'
		WHEN this.kind IS NULL OR this.kind NOT IN ('health', 'queue_depth', 'oldest_waiting', 'failure_rate', 'dead_letters', 'new_dead_letters', 'sla', 'slo_burn', 'slo_burn_slow')
			THEN 'kind must be queue_depth, oldest_waiting, failure_rate, dead_letters, new_dead_letters, sla, slo_burn or slo_burn_slow'
		WHEN (this.kind = 'health') <> (this.name = 'health') THEN 'health is built in'
		WHEN this.name <> 'health' AND this.threshold IS NULL THEN format('kind %s needs a threshold', this.kind)
		WHEN this.threshold < 0 OR this.threshold = 'NaN' OR this.clear_threshold = 'NaN' THEN 'threshold must not be negative'
		WHEN this.kind = 'failure_rate' AND this.threshold > 1 THEN 'threshold of failure_rate is a share, from 0 to 1'
		WHEN this.clear_threshold > this.threshold OR this.clear_threshold < 0 THEN 'clear_threshold must be from 0 to threshold'
		WHEN this.pending IS NULL OR this.pending < '0' OR this.pending > '1 day' THEN 'pending must be between 0 and 1 day'
		WHEN this.cool_down IS NULL OR this.cool_down < '0' OR this.cool_down > '30 days' THEN 'cool_down must be between 0 and 30 days'
		WHEN this.severity IS NULL OR this.severity NOT IN ('info', 'warning', 'critical') THEN 'severity must be info, warning or critical'
	END;
BEGIN
	IF bad IS NOT NULL THEN
		RAISE EXCEPTION USING ERRCODE = 'EQ052', MESSAGE = format('invalid setting for alert "%s"', this.name), DETAIL = bad || '.';
	END IF;
	INSERT INTO event_queue_internal.alert_definition AS d VALUES (this.*)
	ON CONFLICT ON CONSTRAINT alert_definition_pkey DO UPDATE
	SET kind = excluded.kind, queue = excluded.queue, threshold = excluded.threshold, clear_threshold = excluded.clear_threshold,
		pending = excluded.pending, cool_down = excluded.cool_down, severity = excluded.severity, enabled = excluded.enabled
	WHERE replaces;
	RETURN FOUND;
END
$$;
COMMENT ON FUNCTION event_queue_internal.store_alert(event_queue_internal.alert_definition, boolean) IS 'Internal. Writes the definition of an alert; EQ052.';

/*
 * create_alert: defines an alert, for each queue or for one: raised when a figure of the queue
 * is above threshold, resolved when it is no longer above clear_threshold.
 *
 * Arguments:
 * - kind: which figure.
 *   - queue_depth: jobs.
 *   - oldest_waiting: seconds that the oldest ready job has waited.
 *   - failure_rate: share of the attempts of the last minute that failed, 0 to 1, of at least
 *     five.
 *   - dead_letters: how many there are.
 *   - new_dead_letters: how many came in the last five minutes and are still there.
 *   - sla: what part of the queue's sla the oldest ready job has used up: 1 is all.
 *   - slo_burn: how many times too fast the error budget of sla_target burns, over an hour and
 *     over 5 minutes as well, of at least 10 finished jobs.
 *   - slo_burn_slow: likewise, over 6 hours and over an hour.
 * - queue: NULL: each queue, with an alert of its own.
 * - threshold: default 0 for dead_letters and new_dead_letters, 0.5 for failure_rate, 1 for
 *   sla, 14.4 for slo_burn (a fiftieth of the budget in an hour), 6 for slo_burn_slow; required
 *   for the others.
 * - clear_threshold: default: the threshold.
 * - pending: how long the figure must have been above threshold.
 * - cool_down: how long after it was resolved it is not raised again.
 * - severity: info, warning, critical.
 * - or_replace: an alert of this name gets the new definition.  A paused alert stays paused.
 * - if_not_exists: an alert of this name stays as it is, with a NOTICE if its definition
 *   differs.
 *
 * Result: false if if_not_exists found one.
 * Errors: EQ006 name, EQ009 both or_replace and if_not_exists, EQ010 no such queue, EQ018 it
 * exists, EQ048 the session is bound to a tenant, EQ052 bad setting.
 * Example:
 *	SELECT event_queue.create_alert('deep mail', 'queue_depth', 'mail', 1000, clear_threshold => 500, pending => '1 minute');
 *	SELECT event_queue.create_alert('dead letters', 'dead_letters', severity => 'critical');
 */
CREATE FUNCTION create_alert(
	name text, kind text, queue text DEFAULT NULL, threshold float8 DEFAULT NULL, clear_threshold float8 DEFAULT NULL,
	pending interval DEFAULT '0', cool_down interval DEFAULT '0', severity text DEFAULT 'warning',
	or_replace boolean DEFAULT false, if_not_exists boolean DEFAULT false)
RETURNS boolean
LANGUAGE plpgsql SET search_path = pg_catalog, event_queue, pg_temp AS $$
#variable_conflict use_column
DECLARE
	this event_queue_internal.alert_definition;
	old event_queue_internal.alert_definition;
BEGIN
	PERFORM event_queue_internal.require_unbound();
	PERFORM event_queue_internal.check_create_mode($9, $10);
	PERFORM event_queue_internal.check_name('alert name', $1, 100);
	IF position(':' IN $1) > 0 THEN
		RAISE EXCEPTION USING ERRCODE = 'EQ006', MESSAGE = 'alert name must not contain a colon';
	END IF;
	PERFORM event_queue_internal.queue_id_of($3) WHERE $3 IS NOT NULL;
	this := ROW($1, $2, $3, coalesce($4, event_queue_internal.alert_default($2)),
		coalesce($5, $4, event_queue_internal.alert_default($2)), $6, $7, $8, true, now());
	LOOP
		SELECT d.* INTO old FROM event_queue_internal.alert_definition d WHERE d.name = $1 FOR UPDATE;
		IF FOUND AND ($9 OR $10) IS NOT TRUE THEN
			RAISE EXCEPTION USING ERRCODE = 'EQ018', MESSAGE = format('alert "%s" already exists', $1),
				HINT = 'or_replace => true replaces it; if_not_exists => true leaves it.';
		ELSIF FOUND AND $10 THEN
			IF (old.kind, old.queue, old.threshold, old.clear_threshold, old.pending, old.cool_down, old.severity) IS DISTINCT FROM
				(this.kind, this.queue, this.threshold, this.clear_threshold, this.pending, this.cool_down, this.severity) THEN
				PERFORM event_queue_internal.notice_other_definition('alert', $1);
			END IF;
			RETURN false;
		ELSIF FOUND THEN
			this.enabled := old.enabled;
		END IF;
		-- if another session has made it meanwhile, look again; no lock that any role could take
		EXIT WHEN event_queue_internal.store_alert(this, old.name IS NOT NULL);
	END LOOP;
	RETURN true;
END
$$;
COMMENT ON FUNCTION create_alert(text, text, text, float8, float8, interval, interval, text, boolean, boolean) IS
'Raises an alert when a figure of a queue is above a threshold: queue_depth, oldest_waiting, failure_rate, dead_letters, new_dead_letters, sla, slo_burn, slo_burn_slow.';

/*
 * alter_alert: changes settings of an alert; what is not given stays.
 * Arguments: name: "health" is all built-in ones, which have pending, cool_down and
 * severity; clear_threshold: where it was the threshold, or is above the new one, it
 * becomes that.
 * Errors: EQ025 no such alert, EQ048, EQ052 bad setting.
 * Example:
 *	SELECT event_queue.alter_alert('deep mail', threshold => 2000, severity => 'critical');
 *	SELECT event_queue.alter_alert('health', pending => '1 minute');
 */
CREATE FUNCTION alter_alert(
	name text, threshold float8 DEFAULT NULL, clear_threshold float8 DEFAULT NULL,
	pending interval DEFAULT NULL, cool_down interval DEFAULT NULL, severity text DEFAULT NULL)
RETURNS boolean
LANGUAGE plpgsql SET search_path = pg_catalog, event_queue, pg_temp AS $$
#variable_conflict use_column
DECLARE
	this event_queue_internal.alert_definition := event_queue_internal.alert_definition_of($1);
	was event_queue_internal.alert_definition := this;
BEGIN
	this.threshold := coalesce($2, was.threshold);
	this.clear_threshold := CASE WHEN $3 IS NOT NULL THEN $3
		WHEN was.clear_threshold = was.threshold OR was.clear_threshold > this.threshold THEN this.threshold
		ELSE was.clear_threshold END;
	this.pending := coalesce($4, was.pending);
	this.cool_down := coalesce($5, was.cool_down);
	this.severity := coalesce($6, was.severity);
	PERFORM event_queue_internal.store_alert(this);
	RETURN true;
END
$$;
COMMENT ON FUNCTION alter_alert(text, float8, float8, interval, interval, text) IS 'Changes settings of an alert, for example alter_alert(''health'', pending => ''1 minute'').';

CREATE FUNCTION event_queue_internal.switch_alert(name text, enabled boolean) RETURNS boolean
LANGUAGE plpgsql SET search_path = pg_catalog, event_queue, pg_temp AS $$
DECLARE
	this event_queue_internal.alert_definition := event_queue_internal.alert_definition_of($1);
BEGIN
	IF this.enabled = $2 THEN
		RETURN false;
	END IF;
	this.enabled := $2;
	PERFORM event_queue_internal.store_alert(this);
	RETURN true;
END
$$;
COMMENT ON FUNCTION event_queue_internal.switch_alert(text, boolean) IS 'Internal. What pause_alert and resume_alert share.';

/*
 * pause_alert: switches an alert off; what is raised of it is resolved.
 * Arguments: name: "health" is all built-in ones.
 * Result: false if it was off already.  Errors: EQ025 no such alert, EQ048.
 * Example:
 *	SELECT event_queue.pause_alert('deep mail');
 */
CREATE FUNCTION pause_alert(name text) RETURNS boolean
LANGUAGE sql SET search_path = pg_catalog, event_queue, pg_temp AS $$
	SELECT event_queue_internal.switch_alert($1, false)
$$;
COMMENT ON FUNCTION pause_alert(text) IS 'Switches an alert off; "health" is all built-in ones.';

/*
 * resume_alert: undoes pause_alert.
 * Result: false if it was on already.  Errors: EQ025 no such alert, EQ048.
 * Example:
 *	SELECT event_queue.resume_alert('deep mail');
 */
CREATE FUNCTION resume_alert(name text) RETURNS boolean
LANGUAGE sql SET search_path = pg_catalog, event_queue, pg_temp AS $$
	SELECT event_queue_internal.switch_alert($1, true)
$$;
COMMENT ON FUNCTION resume_alert(text) IS 'Switches an alert on again.';

/*
 * drop_alert: removes an alert; what is raised of it is resolved, and what is snoozed of it is forgotten.
 * Errors: EQ025 no such alert, EQ048, EQ052 it is built in.
 * Example:
 *	SELECT event_queue.drop_alert('dead letters');
 */
CREATE FUNCTION drop_alert(name text) RETURNS boolean
LANGUAGE plpgsql SET search_path = pg_catalog, event_queue, pg_temp AS $$
#variable_conflict use_column
BEGIN
	PERFORM event_queue_internal.alert_definition_of($1);
	IF $1 = 'health' THEN
		RAISE EXCEPTION USING ERRCODE = 'EQ052', MESSAGE = 'alert "health" is built in',
			HINT = 'SELECT event_queue.pause_alert(''health'') switches it off.';
	END IF;
	DELETE FROM event_queue_internal.alert_definition d WHERE d.name = $1;
	DELETE FROM event_queue_internal.alert_snooze z WHERE split_part(z.name, ':', 1) = $1;
	RETURN true;
END
$$;
COMMENT ON FUNCTION drop_alert(text) IS 'Removes an alert. EQ025 if there is none.';

/*
 * ack_alert: notes that someone looks after an alert that is raised; the views show it until the
 * alert is resolved.
 * Arguments: name: of an alert, for all that is raised of it, or the key of one; note: is shown,
 * too.
 * Result: how many.  Errors: EQ025 nothing of that name is raised, EQ048.
 * Example:
 *	-- as long as it is not raised: error EQ025
 *	SELECT event_queue.ack_alert('deep mail', 'Ana looks at it');
 */
CREATE FUNCTION ack_alert(name text, note text DEFAULT NULL) RETURNS bigint
LANGUAGE plpgsql SET search_path = pg_catalog, event_queue, pg_temp AS $$
#variable_conflict use_column
DECLARE
	n bigint;
BEGIN
	PERFORM event_queue_internal.require_unbound();
	UPDATE event_queue_internal.alert_record r
	SET acked_at = clock_timestamp(), acked_by = event_queue_internal.who(), ack_note = $2
	FROM event_queue_internal.alert_state s
	WHERE s.alert_id = r.alert_id AND s.state = 'raised' AND $1 IN (s.key, s.name);
	GET DIAGNOSTICS n = ROW_COUNT;
	IF n = 0 THEN
		RAISE EXCEPTION USING ERRCODE = 'EQ025', MESSAGE = format('alert "%s" is not raised', $1),
			HINT = 'See the view event_queue.alerts.';
	END IF;
	PERFORM event_queue_internal.audit('ack_alert', 'alert', $1, "after" => jsonb_build_object('note', $2, 'alerts', n));
	RETURN n;
END
$$;
COMMENT ON FUNCTION ack_alert(text, text) IS 'Says that someone looks after a raised alert, by its name or key; returns how many.';

/*
 * snooze_alert: keeps an alert from being raised for a time.  What is raised stays raised, and
 * is resolved as usual; if the condition holds when the time is over, the alert is raised then.
 * Arguments:
 * - name: of an alert ("health": all built-in ones), or a key NAME:OBJECT, also ahead of time.
 * - duration, or until: 0, or a time in the past, ends it.
 *
 * Result: until when.  Errors: EQ025 no such alert, EQ048, EQ052 duration.
 * Example:
 *	SELECT event_queue.snooze_alert('health:queue mail', '2 hours', note => 'deployment');
 */
CREATE FUNCTION snooze_alert(name text, duration interval DEFAULT '1 hour', until timestamptz DEFAULT NULL, note text DEFAULT NULL)
RETURNS timestamptz
LANGUAGE plpgsql SET search_path = pg_catalog, event_queue, pg_temp SET timezone = 'UTC' AS $$
#variable_conflict use_column
DECLARE
	ends timestamptz := $3;
BEGIN
	PERFORM event_queue_internal.alert_definition_of(split_part($1, ':', 1));
	IF octet_length($1) > 356 THEN	-- name, colon, queue
		RAISE EXCEPTION USING ERRCODE = 'EQ025', MESSAGE = 'no alert has a key of more than 356 bytes';
	END IF;
	IF ends IS NULL AND ($2 BETWEEN '0' AND '100 years') IS NOT TRUE THEN
		RAISE EXCEPTION USING ERRCODE = 'EQ052', MESSAGE = 'duration must be between 0 and 100 years';
	END IF;
	ends := coalesce(ends, clock_timestamp() + $2);
	DELETE FROM event_queue_internal.alert_snooze z WHERE z.name = $1;
	INSERT INTO event_queue_internal.alert_snooze (name, until, snoozed_by, note)
	SELECT $1, ends, event_queue_internal.who(), $4 WHERE ends > clock_timestamp()
	ON CONFLICT ON CONSTRAINT alert_snooze_pkey DO UPDATE
	SET until = excluded.until, snoozed_by = excluded.snoozed_by, note = excluded.note;
	PERFORM event_queue_internal.audit('snooze_alert', 'alert', $1, "after" => jsonb_build_object('until', ends, 'note', $4));
	RETURN ends;
END
$$;
COMMENT ON FUNCTION snooze_alert(text, interval, timestamptz, text) IS 'Keeps an alert, by its name or key, from being raised for a time.';

CREATE VIEW alert_definitions WITH (security_invoker = true) AS
	SELECT d.name, d.kind, d.queue, d.threshold, d.clear_threshold, extract(epoch FROM d.pending)::double precision AS pending_seconds,
		extract(epoch FROM d.cool_down)::double precision AS cool_down_seconds, d.severity, d.enabled, z.until AS snoozed_until, d.created_at
	FROM event_queue_internal.alert_definition d LEFT JOIN event_queue_internal.alert_snooze z ON z.name = d.name AND z.until > now();
COMMENT ON VIEW alert_definitions IS 'Alerts that were defined; "health" stands there once its settings were changed.';

CREATE VIEW alerts WITH (security_invoker = true) AS
	SELECT s.key, s.name, s.kind, s.object,
		CASE WHEN s.state = 'pending' AND z.until IS NOT NULL THEN 'snoozed' WHEN r.acked_at IS NOT NULL THEN 'acknowledged' ELSE s.state END AS state,
		r.severity, s.since, r.raised_at, r.value, r.peak, r.threshold, r.detail, r.hint, r.acked_by, r.acked_at, r.ack_note, z.until AS snoozed_until
	FROM event_queue_internal.alert_state s
	LEFT JOIN event_queue_internal.alert_record r ON r.alert_id = s.alert_id
	LEFT JOIN LATERAL (SELECT max(x.until) AS until FROM event_queue_internal.alert_snooze x WHERE x.name IN (s.key, s.name) AND x.until > now()) z ON true
	WHERE s.state <> 'resolved';
COMMENT ON VIEW alerts IS
'Alerts of now: pending (not yet for long enough), snoozed, raised, acknowledged; value and detail are at most a minute old.';

CREATE VIEW alert_history WITH (security_invoker = true) AS
	SELECT r.alert_id, r.key, r.name, r.kind, r.object, r.severity, r.raised_at, r.resolved_at, r.resolution, r.value, r.peak, r.threshold,
		r.detail, r.hint, r.acked_by, r.acked_at, r.ack_note
	FROM event_queue_internal.alert_record r;
COMMENT ON VIEW alert_history IS 'Alerts that were raised, and how they ended: cleared, paused, dropped; kept for event_queue.keep_audit.';
