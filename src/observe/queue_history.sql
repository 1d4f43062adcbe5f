/*
 * queue_history.sql: depth and waiting time of queues by the minute, and the metrics of
 * metrics.sql by steps, for charts and for test_alert.
 */

CREATE TABLE event_queue_internal.queue_gauge (
	queue_id		int NOT NULL,
	at				timestamptz NOT NULL,
	depth			bigint NOT NULL,
	dead			bigint NOT NULL,
	oldest_waiting	float8,
	PRIMARY KEY (queue_id, at)
);
COMMENT ON TABLE event_queue_internal.queue_gauge IS
'Internal. Jobs, dead letters, and how long the oldest ready job had waited in seconds, by the minute for two days, then the highest of each hour. Holds until the next row of the queue.';

/*
 * sample_queues: for the scheduler, once a minute: a row for each queue that has jobs, or
 * whose figures have changed; of no more than a thousand queues, the deepest ones.
 */
CREATE FUNCTION event_queue_internal.sample_queues() RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, event_queue, pg_temp SET lock_timeout = '50ms' SET timezone = 'UTC' AS $$
DECLARE
	now_at CONSTANT timestamptz := clock_timestamp();
	minutes_until CONSTANT timestamptz := date_trunc('hour', now_at) - interval '2 days';
BEGIN
	INSERT INTO event_queue_internal.queue_gauge (queue_id, at, depth, dead, oldest_waiting)
	SELECT f.queue_id, now_at, f.depth, f.dead, extract(epoch FROM now_at - o.oldest_ready)
	FROM (SELECT y.* FROM event_queue_internal.queue_figures() y JOIN event_queue.queue q USING (queue_id)
		LEFT JOIN LATERAL (SELECT g.depth, g.dead FROM event_queue_internal.queue_gauge g
			WHERE g.queue_id = y.queue_id ORDER BY g.at DESC LIMIT 1) l ON true
		WHERE y.depth > 0 OR (y.depth, y.dead) <> (coalesce(l.depth, 0), coalesce(l.dead, 0))
		ORDER BY y.depth DESC LIMIT 1000) f
	LEFT JOIN LATERAL event_queue_internal.queue_depth(f.queue_id) o ON f.depth > 0
	ON CONFLICT DO NOTHING;
	-- once an hour, what is older than that
	IF EXISTS (SELECT FROM event_queue_internal.queue_gauge g WHERE g.at < minutes_until AND g.at <> date_trunc('hour', g.at)) THEN
		WITH old AS (
			DELETE FROM event_queue_internal.queue_gauge g WHERE g.at < minutes_until RETURNING g.*)
		INSERT INTO event_queue_internal.queue_gauge (queue_id, at, depth, dead, oldest_waiting)
		SELECT o.queue_id, date_trunc('hour', o.at), max(o.depth), max(o.dead), max(o.oldest_waiting)
		FROM old o
		WHERE o.at >= now_at - make_interval(days => current_setting('event_queue.keep_metrics')::int)
		  AND EXISTS (SELECT FROM event_queue.queue q WHERE q.queue_id = o.queue_id)
		GROUP BY 1, 2;
	END IF;
END
$$;
COMMENT ON FUNCTION event_queue_internal.sample_queues() IS 'Internal. Writes how deep queues are; called by the scheduler.';

/*
 * queue_changes: what happened in a queue (NULL: in each), by its samples since then: of a
 * minute each as far as these are kept, before that of an hour.
 * Result: at: the end of the time; length: of it; changes: of the counters (metrics.sql).
 */
CREATE FUNCTION event_queue_internal.queue_changes(
	of_queue int, since timestamptz, OUT queue_id int, OUT at timestamptz, OUT length interval, OUT changes bigint[], OUT wait bytea, OUT run bytea)
RETURNS SETOF record
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, event_queue, pg_temp SET timezone = 'UTC' AS $$
#variable_conflict use_column
DECLARE
	now_at CONSTANT timestamptz := clock_timestamp();
	-- whole hours come from the one table, all minutes after them from the other
	minutes_from CONSTANT timestamptz := greatest(since, date_trunc('hour', now_at) - interval '1 day');
BEGIN
	RETURN QUERY
	WITH kept AS (
		SELECT h.queue_id, h.at, interval '1 hour' AS length, h.counters, h.wait, h.run FROM event_queue_internal.metric_hour h
		WHERE h.kind = 'q' AND h.at > since AND h.at <= minutes_from AND (of_queue IS NULL OR h.queue_id = of_queue)
		UNION ALL
		SELECT m.queue_id, m.at, interval '1 minute', m.counters, m.wait, m.run FROM event_queue_internal.metric_sample m
		WHERE m.kind = 'q' AND m.at > minutes_from AND m.at <= now_at AND (of_queue IS NULL OR m.queue_id = of_queue))
	SELECT k.queue_id, k.at, k.length,
		event_queue_internal.counters_minus(k.counters,
			coalesce(lag(k.counters) OVER (PARTITION BY k.queue_id ORDER BY k.at), event_queue_internal.counters_at('q', k.queue_id, '', since), '{}')),
		k.wait, k.run
	FROM kept k;
END
$$;
COMMENT ON FUNCTION event_queue_internal.queue_changes(int, timestamptz) IS 'Internal. What happened in queues since a time, by its samples.';

/*
 * queue_history: figures of a queue, step by step, up to the last sample, which is at most a
 * minute old.
 * Arguments:
 * - queue: NULL: all together.
 * - look_back: for how long before now, a minute to 366 days.
 * - step: the time of a row, at least a minute, or an hour where look_back is more than a day.
 *   Minutes are kept for a day, hours for event_queue.keep_metrics days.
 *
 * Result: for each step, also without jobs: its beginning; what was enqueued, completed, failed
 * (attempts), dead and late in it; the highest depth, number of dead letters and wait of a ready
 * job in seconds (NULL: not known); percentiles of the wait from due to first claim and of the
 * run, in seconds.  No rows for a role that is bound to a tenant.
 * Errors: EQ009 look_back or step, or more than 3000 steps, EQ010 no such queue.
 * Example:
 *	SELECT at, completed, depth, wait_p95 FROM event_queue.queue_history('mail', look_back => '6 hours', step => '10 minutes');
 */
CREATE FUNCTION queue_history(
	queue text DEFAULT NULL, look_back interval DEFAULT '1 hour', step interval DEFAULT '1 minute',
	OUT at timestamptz, OUT enqueued bigint, OUT completed bigint, OUT failed bigint, OUT dead bigint, OUT late bigint,
	OUT depth bigint, OUT dead_letters bigint, OUT oldest_waiting float8,
	OUT wait_p50 float8, OUT wait_p95 float8, OUT wait_p99 float8, OUT run_p50 float8, OUT run_p95 float8, OUT run_p99 float8)
RETURNS SETOF record
LANGUAGE plpgsql VOLATILE ROWS 100 SET search_path = pg_catalog, event_queue, pg_temp SET jit = off SET timezone = 'UTC' AS $$
#variable_conflict use_column
DECLARE
	this_queue CONSTANT int := event_queue_internal.queue_id_of($1) WHERE $1 IS NOT NULL;
	seconds CONSTANT float8 := extract(epoch FROM $3);
	bad text := CASE
		WHEN $2 IS NULL OR $2 < '1 minute' OR $2 > '366 days' THEN 'look_back must be between 1 minute and 366 days'
		WHEN $3 IS NULL OR $3 < '1 minute' OR $3 > '366 days' THEN 'step must be at least 1 minute'
		WHEN $2 > '1 day' AND $3 < '1 hour' THEN 'step must be at least 1 hour where look_back is more than a day'
		WHEN extract(epoch FROM $2) / extract(epoch FROM $3) > 3000 THEN 'there may be 3000 steps at most' END;
	ends CONSTANT timestamptz := clock_timestamp();
	begins timestamptz;
BEGIN
	IF bad IS NOT NULL THEN
		RAISE EXCEPTION USING ERRCODE = 'EQ009', MESSAGE = bad;
	END IF;
	IF NOT event_queue_internal.is_unbound() THEN
		RETURN;
	END IF;
	begins := to_timestamp(floor(extract(epoch FROM ends - $2) / seconds) * seconds);
	RETURN QUERY
	WITH steps AS (
		SELECT g.n, to_timestamp(extract(epoch FROM begins) + g.n * seconds) AS at
		FROM generate_series(0, floor(extract(epoch FROM ends - begins) / seconds)::int) AS g (n)
	), changes AS MATERIALIZED (
		-- a sample is of the time before it
		SELECT floor(extract(epoch FROM c.at - begins - interval '1 microsecond') / seconds)::int AS n, c.*
		FROM event_queue_internal.queue_changes(this_queue, begins) c
	), counted AS (
		SELECT c.n, sum(c.changes[1])::bigint AS enqueued, sum(c.changes[3])::bigint AS completed, sum(c.changes[4])::bigint AS failed,
			sum(c.changes[7])::bigint AS dead, sum(c.changes[9])::bigint AS late,
			event_queue_internal.histogram_sum(array_agg(c.wait)) AS wait, event_queue_internal.histogram_sum(array_agg(c.run)) AS run
		FROM changes c GROUP BY 1
	), gauges AS MATERIALIZED (
		-- each row holds until the next one, and so is in all steps until then
		SELECT g.queue_id, greatest(floor(extract(epoch FROM g.at - begins) / seconds)::int, 0) AS from_n,
			floor(extract(epoch FROM coalesce(lead(g.at) OVER w - interval '1 microsecond', ends) - begins) / seconds)::int AS to_n,
			g.depth, g.dead, g.oldest_waiting
		FROM event_queue_internal.queue_gauge g
		WHERE (this_queue IS NULL OR g.queue_id = this_queue) AND g.at >= coalesce((SELECT max(b.at)
			FROM event_queue_internal.queue_gauge b WHERE b.queue_id = g.queue_id AND b.at <= begins), begins)
		WINDOW w AS (PARTITION BY g.queue_id ORDER BY g.at)
	), gauged AS (
		SELECT x.n, sum(x.depth)::bigint AS depth, sum(x.dead)::bigint AS dead, max(x.oldest_waiting) AS oldest_waiting
		FROM (SELECT n, g.queue_id, max(g.depth) AS depth, max(g.dead) AS dead, max(g.oldest_waiting) AS oldest_waiting
			FROM gauges g, generate_series(g.from_n, g.to_n) n GROUP BY 1, 2) x GROUP BY 1
	)
	SELECT s.at, coalesce(c.enqueued, 0), coalesce(c.completed, 0), coalesce(c.failed, 0), coalesce(c.dead, 0), coalesce(c.late, 0),
		g.depth, g.dead, g.oldest_waiting,
		event_queue_internal.histogram_quantile(c.wait, 0.50), event_queue_internal.histogram_quantile(c.wait, 0.95),
		event_queue_internal.histogram_quantile(c.wait, 0.99), event_queue_internal.histogram_quantile(c.run, 0.50),
		event_queue_internal.histogram_quantile(c.run, 0.95), event_queue_internal.histogram_quantile(c.run, 0.99)
	FROM steps s LEFT JOIN counted c USING (n) LEFT JOIN gauged g USING (n)
	ORDER BY s.n;
END
$$;
COMMENT ON FUNCTION queue_history(text, interval, interval) IS
'How a queue was, or all together, step by step: what was done in it, depth, and percentiles of wait and run.';
