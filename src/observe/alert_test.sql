/*
 * alert_test.sql: computes what an alert would have reported, from stored samples.
 */

/*
 * alert_values: the values of an alert's figure since a time, a row for each change.  A value
 * holds until the next row of its queue; NULL: there was no figure.
 */
CREATE FUNCTION event_queue_internal.alert_values(this event_queue_internal.alert_definition, since timestamptz, OUT queue text, OUT at timestamptz, OUT value float8)
RETURNS SETOF record
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, event_queue, pg_temp SET jit = off AS $$
#variable_conflict use_column
DECLARE
	this_queue CONSTANT int := q.queue_id FROM event_queue.queue q WHERE q.name = this.queue;
BEGIN
	IF this.kind IN ('queue_depth', 'dead_letters', 'oldest_waiting', 'sla') THEN
		RETURN QUERY
		SELECT q.name, greatest(g.at, since), CASE this.kind WHEN 'queue_depth' THEN g.depth WHEN 'dead_letters' THEN g.dead
			WHEN 'sla' THEN g.oldest_waiting / extract(epoch FROM q.sla) ELSE g.oldest_waiting END::float8
		FROM event_queue_internal.queue_gauge g JOIN event_queue.queue q USING (queue_id)
		WHERE (this.queue IS NULL OR g.queue_id = this_queue) AND g.at >= coalesce((SELECT max(b.at)
			FROM event_queue_internal.queue_gauge b WHERE b.queue_id = g.queue_id AND b.at <= since), since)
		ORDER BY 1, g.at;
		RETURN;
	END IF;
	RETURN QUERY
	WITH changes AS MATERIALIZED (
		-- samples that the longest window still contains at the beginning
		SELECT c.queue_id, c.at, c.length, c.changes[3] AS completed, c.changes[4] AS failed, c.changes[7] AS dead, c.changes[9] AS late
		FROM event_queue_internal.queue_changes(this_queue, since - interval '6 hours') c WHERE this.queue IS NULL OR this_queue IS NOT NULL
	), points AS (
		SELECT c.queue_id, c.at, c.completed, c.failed, c.dead, c.late FROM changes c
		UNION ALL
		-- and when a sample leaves a window
		SELECT c.queue_id, c.at + w.length + interval '1 microsecond', 0, 0, 0, 0 FROM changes c
		CROSS JOIN LATERAL (SELECT unnest(CASE this.kind WHEN 'failure_rate' THEN ARRAY[c.length] WHEN 'new_dead_letters' THEN ARRAY[greatest(c.length, '5 minutes')]
			WHEN 'slo_burn' THEN ARRAY[greatest(c.length, '5 minutes'), '1 hour'] ELSE ARRAY['1 hour', '6 hours']::interval[] END)) w (length)
	), sums AS (
		SELECT p.queue_id, p.at,
			sum(p.completed) OVER m AS completed_1m, sum(p.failed) OVER m AS failed_1m, sum(p.dead) OVER m5 AS dead_5m,
			1 - (sum(p.completed - p.late) OVER m5) / nullif(sum(p.completed + p.dead) OVER m5, 0)::float8 AS bad_5m,
			1 - (sum(p.completed - p.late) OVER h) / nullif(sum(p.completed + p.dead) OVER h, 0)::float8 AS bad_1h,
			sum(p.completed + p.dead) OVER h AS finished_1h, sum(p.completed + p.dead) OVER h6 AS finished_6h,
			1 - (sum(p.completed - p.late) OVER h6) / nullif(sum(p.completed + p.dead) OVER h6, 0)::float8 AS bad_6h
		FROM points p
		WINDOW m AS (PARTITION BY p.queue_id ORDER BY p.at RANGE '59 seconds' PRECEDING),
			m5 AS (PARTITION BY p.queue_id ORDER BY p.at RANGE '5 minutes' PRECEDING),
			h AS (PARTITION BY p.queue_id ORDER BY p.at RANGE '1 hour' PRECEDING),
			h6 AS (PARTITION BY p.queue_id ORDER BY p.at RANGE '6 hours' PRECEDING)
	)
	SELECT q.name, s.at, CASE this.kind
		WHEN 'failure_rate' THEN CASE WHEN s.completed_1m + s.failed_1m >= 5 THEN s.failed_1m / (s.completed_1m + s.failed_1m)::float8 END
		WHEN 'new_dead_letters' THEN s.dead_5m
		WHEN 'slo_burn' THEN CASE WHEN s.finished_1h >= 10 THEN least(coalesce(s.bad_5m, 0), coalesce(s.bad_1h, 0)) / (1 - q.sla_target) END
		WHEN 'slo_burn_slow' THEN CASE WHEN s.finished_6h >= 10 THEN least(coalesce(s.bad_1h, 0), coalesce(s.bad_6h, 0)) / (1 - q.sla_target) END
		END::float8
	FROM sums s JOIN event_queue.queue q USING (queue_id)
	WHERE s.at BETWEEN since AND clock_timestamp() AND (NOT this.kind ^@ 'slo_burn' OR q.sla IS NOT NULL)
	ORDER BY 1, 2;
END
$$;
COMMENT ON FUNCTION event_queue_internal.alert_values(event_queue_internal.alert_definition, timestamptz) IS 'Internal. How the figure of an alert was.';

/*
 * test_alert: what an alert would have reported in the past, with its present definition.  It
 * changes nothing and notifies nobody.
 * Arguments: name; since: how far back, at most 366 days.  Kept are each minute for a day, then
 * each hour for event_queue.keep_metrics days (depth and waiting: each minute for two days, then
 * the highest of each hour; of the thousand deepest queues).
 * Result: a row for each time that it would have been raised: key, queue, when, when it would
 * have been resolved (NULL: it would still be raised), the highest figure.
 * Errors: EQ025 no such alert, EQ048 the session is bound to a tenant, EQ052 since, EQ053 of
 * health no figures are kept (see alert_history).
 * Example:
 *	SELECT event_queue.create_alert('deep queue', 'queue_depth', threshold => 1000, pending => '2 minutes');
 *	SELECT * FROM event_queue.test_alert('deep queue', since => '3 days');
 */
CREATE FUNCTION test_alert(
	name text, since interval DEFAULT '7 days', OUT key text, OUT object text, OUT raised_at timestamptz, OUT resolved_at timestamptz, OUT peak float8)
RETURNS SETOF record
LANGUAGE plpgsql VOLATILE ROWS 10 SET search_path = pg_catalog, event_queue, pg_temp AS $$
#variable_conflict use_variable
DECLARE
	this event_queue_internal.alert_definition;
	v record;
	pending_since timestamptz;
	-- pending or cool_down end between two values
	due timestamptz;
	quiet_until timestamptz := '-infinity';
	last_value float8;
BEGIN
	PERFORM event_queue_internal.require_unbound();
	SELECT d.* INTO this FROM event_queue_internal.alert_definition d WHERE d.name = test_alert.name;
	IF test_alert.name = 'health' THEN
		RAISE EXCEPTION USING ERRCODE = 'EQ053', MESSAGE = 'no samples are kept for alert "health"',
			HINT = 'See the view event_queue.alert_history.';
	ELSIF this.name IS NULL THEN
		RAISE EXCEPTION USING ERRCODE = 'EQ025', MESSAGE = format('alert "%s" does not exist', test_alert.name),
			HINT = 'See the view event_queue.alert_definitions.';
	ELSIF since IS NULL OR since <= '0' OR since > '366 days' THEN
		RAISE EXCEPTION USING ERRCODE = 'EQ052', MESSAGE = 'since must be longer than 0 and at most 366 days';
	END IF;
	FOR v IN
		SELECT x.queue, x.at, x.value, false AS is_end FROM event_queue_internal.alert_values(this, clock_timestamp() - since) x
		UNION ALL
		SELECT q.name, clock_timestamp(), NULL, true FROM event_queue.queue q
		ORDER BY 1, 4, 2
	LOOP
		IF v.queue IS DISTINCT FROM object THEN
			object := v.queue;
			key := this.name || ':' || v.queue;
			pending_since := NULL;
			raised_at := NULL;
			quiet_until := '-infinity';
		END IF;
		due := CASE WHEN pending_since IS NOT NULL THEN greatest(pending_since + this.pending, quiet_until) END;
		IF raised_at IS NULL AND due <= v.at THEN
			raised_at := due;
			peak := last_value;
		END IF;
		IF v.is_end THEN
			IF raised_at IS NOT NULL THEN
				resolved_at := NULL;
				RETURN NEXT;
			END IF;
		ELSIF raised_at IS NOT NULL AND v.value > this.clear_threshold THEN
			peak := greatest(peak, v.value);
		ELSIF raised_at IS NOT NULL THEN
			resolved_at := v.at;
			RETURN NEXT;
			raised_at := NULL;
			pending_since := NULL;
			quiet_until := v.at + this.cool_down;
		ELSIF v.value > this.threshold THEN
			pending_since := coalesce(pending_since, v.at);
			last_value := greatest(CASE WHEN pending_since < v.at THEN last_value END, v.value);
		ELSE
			pending_since := NULL;
		END IF;
	END LOOP;
END
$$;
COMMENT ON FUNCTION test_alert(text, interval) IS 'What an alert would have reported in the last days, with its present definition.';

/*
 * try_alert: reports an alert as if it were raised and resolved at once, to test whether those
 * who are to be notified are: the same events and NOTIFYs, with "test": true in the event.  No
 * alert is raised: alerts and alert_history don't show it, a snooze does not count.
 * Arguments: name: of an alert; "health": the built-in ones.
 * Result: the position of the event alert.raised.
 * Errors: EQ025 no such alert, EQ048 the session is bound to a tenant.
 * Example:
 *	SELECT event_queue.try_alert('health');
 */
CREATE FUNCTION try_alert(name text) RETURNS bigint
LANGUAGE plpgsql SET search_path = pg_catalog, event_queue, pg_temp SET timezone = 'UTC' AS $$
#variable_conflict use_column
DECLARE
	this CONSTANT event_queue_internal.alert_definition := event_queue_internal.alert_definition_of($1);
	told event_queue_internal.alert_record;
	raised bigint;
BEGIN
	told.name := this.name;
	told.kind := this.kind;
	told.object := coalesce(this.queue, 'test');
	told.key := told.name || ':' || told.object;
	told.severity := this.severity;
	told.threshold := this.threshold;
	told.raised_at := clock_timestamp();
	told.detail := format('test by %s', event_queue_internal.who());
	raised := event_queue_internal.tell_alert(told, true);
	told.resolved_at := clock_timestamp();
	told.resolution := 'cleared';
	PERFORM event_queue_internal.tell_alert(told, true);
	PERFORM event_queue_internal.audit('try_alert', 'alert', $1);
	RETURN raised;
END
$$;
COMMENT ON FUNCTION try_alert(text) IS 'Reports an alert as if it were raised and resolved, to test who is notified; returns the event''s position.';
