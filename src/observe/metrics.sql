/*
 * metrics.sql: what happened to jobs, by queue, job name and tenant: totals, rates and
 * percentiles over minutes to a month, whatever the server was restarted.
 *
 * Counters and histograms live in shared memory (wake/series.c).  Once a minute the
 * scheduler writes those that have changed into these tables (sample.c).  Counters in
 * rows are totals since the queue was made, so what happened in a time is the difference
 * of two rows; histograms in rows are those of the minute, or hour, alone, and are added up.
 * Arrays of counters are in the order of EqCounter: 1 enqueued, 2 claimed, 3 completed,
 * 4 failed, 5 released, 6 stalled, 7 dead, 8 cancelled, 9 late, 10 microseconds waited,
 * 11 microseconds run, 12 retried.
 */

/* counters_plus: sums of two arrays of counters; what one lacks counts as zero. */
CREATE FUNCTION event_queue_internal.counters_plus(a bigint[], b bigint[]) RETURNS bigint[]
LANGUAGE C IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'eq_counters_plus';
COMMENT ON FUNCTION event_queue_internal.counters_plus(bigint[], bigint[]) IS 'Internal. Adds two arrays of counters.';

/* counters_minus: differences of two arrays of counters; likewise. */
CREATE FUNCTION event_queue_internal.counters_minus(a bigint[], b bigint[]) RETURNS bigint[]
LANGUAGE C IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'eq_counters_minus';
COMMENT ON FUNCTION event_queue_internal.counters_minus(bigint[], bigint[]) IS 'Internal. Subtracts an array of counters from another one.';

/* histogram_of: a histogram of times in microseconds. */
CREATE FUNCTION event_queue_internal.histogram_of(times bigint[]) RETURNS bytea
LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'eq_histogram_of';
COMMENT ON FUNCTION event_queue_internal.histogram_of(bigint[]) IS 'Internal. A histogram of times in microseconds.';

/* histogram_plus: two histograms together; NULL counts as empty. */
CREATE FUNCTION event_queue_internal.histogram_plus(a bytea, b bytea) RETURNS bytea
LANGUAGE C IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'eq_histogram_plus';
COMMENT ON FUNCTION event_queue_internal.histogram_plus(bytea, bytea) IS 'Internal. Two histograms together.';

/* histogram_sum: many histograms together; NULLs count as empty. */
CREATE FUNCTION event_queue_internal.histogram_sum(histograms bytea[]) RETURNS bytea
LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'eq_histogram_sum';
COMMENT ON FUNCTION event_queue_internal.histogram_sum(bytea[]) IS 'Internal. Many histograms together.';

/* histogram_count: the number of values in a histogram. */
CREATE FUNCTION event_queue_internal.histogram_count(histogram bytea) RETURNS bigint
LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'eq_histogram_count';
COMMENT ON FUNCTION event_queue_internal.histogram_count(bytea) IS 'Internal. Number of values in a histogram.';

/* histogram_quantile: a quantile in seconds, at most 2 % off; NULL of an empty histogram. */
CREATE FUNCTION event_queue_internal.histogram_quantile(histogram bytea, q float8) RETURNS float8
LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'eq_histogram_quantile';
COMMENT ON FUNCTION event_queue_internal.histogram_quantile(bytea, float8) IS 'For views. A quantile of a histogram, in seconds.';

CREATE TABLE event_queue_internal.metric_series (
	kind		"char" NOT NULL CHECK (kind IN ('q', 'j', 'o', 't', 'u')),
	queue_id	int NOT NULL,
	name		text COLLATE "C" NOT NULL,
	first_at	timestamptz NOT NULL,
	at			timestamptz NOT NULL,
	counters	bigint[] NOT NULL,
	failing_since	timestamptz,
	PRIMARY KEY (kind, queue_id, name)
) WITH (fillfactor = 50);
COMMENT ON TABLE event_queue_internal.metric_series IS
'Internal. What is counted, its totals at the last sample, and since which one attempts have failed and none was completed: q a queue, j a job name of a queue, o its other jobs (0: of all other queues), t a tenant, u all other tenants.';

/*
 * A ring of three partitions, by the day modulo 3: that of the day before yesterday is
 * emptied.  So nothing is made or dropped, and a dump has none of it.
 */
CREATE TABLE event_queue_internal.metric_sample (
	day				smallint NOT NULL,
	at				timestamptz NOT NULL,
	kind			"char" NOT NULL,
	queue_id		int NOT NULL,
	name			text COLLATE "C" NOT NULL,
	counters		bigint[] NOT NULL,
	wait			bytea NOT NULL,
	attempt_wait	bytea NOT NULL,
	run				bytea NOT NULL
) PARTITION BY LIST (day);
COMMENT ON TABLE event_queue_internal.metric_sample IS
'Internal. Samples of a minute: totals, and the histograms of the minute; of today and yesterday.';
CREATE TABLE event_queue_internal.metric_sample_0 PARTITION OF event_queue_internal.metric_sample FOR VALUES IN (0);
COMMENT ON TABLE event_queue_internal.metric_sample_0 IS 'Internal. Of days whose number modulo 3 is 0.';
CREATE TABLE event_queue_internal.metric_sample_1 PARTITION OF event_queue_internal.metric_sample FOR VALUES IN (1);
COMMENT ON TABLE event_queue_internal.metric_sample_1 IS 'Internal. Of days whose number modulo 3 is 1.';
CREATE TABLE event_queue_internal.metric_sample_2 PARTITION OF event_queue_internal.metric_sample FOR VALUES IN (2);
COMMENT ON TABLE event_queue_internal.metric_sample_2 IS 'Internal. Of days whose number modulo 3 is 2.';
CREATE INDEX metric_sample_key ON event_queue_internal.metric_sample (kind, queue_id, name, at);
CREATE INDEX metric_sample_at ON event_queue_internal.metric_sample (at);

CREATE TABLE event_queue_internal.metric_hour (
	kind			"char" NOT NULL,
	queue_id		int NOT NULL,
	name			text COLLATE "C" NOT NULL,
	at				timestamptz NOT NULL,
	counters		bigint[] NOT NULL,
	wait			bytea NOT NULL,
	attempt_wait	bytea NOT NULL,
	run				bytea NOT NULL,
	PRIMARY KEY (kind, queue_id, name, at)
) WITH (fillfactor = 70);
COMMENT ON TABLE event_queue_internal.metric_hour IS
'Internal. The same of an hour, which ends at "at"; kept event_queue.keep_metrics days.';

/* metric_day: the partition of metric_sample for samples of this time. */
CREATE FUNCTION event_queue_internal.metric_day(at timestamptz) RETURNS smallint
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
	SELECT (floor(extract(epoch FROM $1) / 86400)::bigint % 3)::smallint
$$;
COMMENT ON FUNCTION event_queue_internal.metric_day(timestamptz) IS 'Internal. Which partition of metric_sample has samples of this time.';

/*
 * write_sample: what was counted since the last sample of a queue, job name or tenant.
 * For the scheduler.
 */
CREATE FUNCTION event_queue_internal.write_sample(
	kind "char", queue_id int, name text, at timestamptz, delta bigint[], wait bytea, attempt_wait bytea, run bytea) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, event_queue, pg_temp AS $$
#variable_conflict use_column
DECLARE
	total bigint[];
BEGIN
	INSERT INTO event_queue_internal.metric_series AS s VALUES ($1, $2, $3, $4, $4, $5, CASE WHEN $5[4] > 0 AND $5[3] = 0 THEN $4 END)
	ON CONFLICT (kind, queue_id, name) DO UPDATE
		SET at = $4, counters = event_queue_internal.counters_plus(s.counters, $5),
			-- kept over a long back-off and a restart
			failing_since = CASE WHEN $5[3] = 0 THEN coalesce(s.failing_since, excluded.failing_since) END
	RETURNING s.counters INTO total;
	INSERT INTO event_queue_internal.metric_sample VALUES (event_queue_internal.metric_day($4), $4, $1, $2, $3, total, $6, $7, $8);
	INSERT INTO event_queue_internal.metric_hour AS h VALUES ($1, $2, $3, date_trunc('hour', $4, 'UTC') + '1 hour', total, $6, $7, $8)
	ON CONFLICT (kind, queue_id, name, at) DO UPDATE SET counters = total,
		wait = event_queue_internal.histogram_plus(h.wait, $6),
		attempt_wait = event_queue_internal.histogram_plus(h.attempt_wait, $7),
		run = event_queue_internal.histogram_plus(h.run, $8);
END
$$;
COMMENT ON FUNCTION event_queue_internal.write_sample("char", int, text, timestamptz, bigint[], bytea, bytea, bytea) IS
'Internal. Writes what was counted since the last sample; called by the scheduler.';

/*
 * make_room_for_samples: for the scheduler: removes samples that are older than
 * event_queue.keep_metrics, and those of dropped queues.  The last older sample of each queue,
 * job name and tenant stays: what happened since then is the difference to it.
 */
CREATE FUNCTION event_queue_internal.make_room_for_samples() RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, event_queue, pg_temp SET lock_timeout = '50ms' AS $$
#variable_conflict use_column
DECLARE
	oldest text := format('metric_sample_%s', event_queue_internal.metric_day(clock_timestamp() + '1 day'));
	is_old boolean;
BEGIN
	EXECUTE format('SELECT EXISTS (SELECT FROM event_queue_internal.%I WHERE at < $1)', oldest) INTO is_old USING clock_timestamp() - '1 day'::interval;
	IF NOT is_old AND EXISTS (SELECT FROM event_queue_internal.metric_series) THEN
		RETURN;
	END IF;
	IF is_old THEN
		EXECUTE format('TRUNCATE event_queue_internal.%I', oldest);
	END IF;
	DELETE FROM event_queue_internal.metric_hour h
	WHERE h.at < clock_timestamp() - make_interval(days => current_setting('event_queue.keep_metrics')::int)
	  AND EXISTS (SELECT FROM event_queue_internal.metric_hour n
		WHERE n.kind = h.kind AND n.queue_id = h.queue_id AND n.name = h.name AND n.at > h.at
		  AND n.at < clock_timestamp() - make_interval(days => current_setting('event_queue.keep_metrics')::int));
	DELETE FROM event_queue_internal.metric_series s
	WHERE s.queue_id <> 0 AND NOT EXISTS (SELECT FROM event_queue.queue q WHERE q.queue_id = s.queue_id)
	   OR s.kind IN ('t', 'j') AND s.at < clock_timestamp() - make_interval(days => current_setting('event_queue.keep_metrics')::int);
	DELETE FROM event_queue_internal.metric_hour h
	WHERE NOT EXISTS (SELECT FROM event_queue_internal.metric_series s
		WHERE s.kind = h.kind AND s.queue_id = h.queue_id AND s.name = h.name);
END
$$;
COMMENT ON FUNCTION event_queue_internal.make_room_for_samples() IS
'Internal. Removes samples that are kept no longer; called by the scheduler.';

CREATE TABLE event_queue_internal.metric_state (
	id				boolean PRIMARY KEY DEFAULT true CHECK (id),
	complete_since	timestamptz NOT NULL,
	clean			boolean NOT NULL
);
COMMENT ON TABLE event_queue_internal.metric_state IS
'Internal. Since when samples have all that happened; clean: the scheduler has ended after a last one.';

/*
 * begin_samples: at the scheduler's start: records since when samples are complete.  If the
 * server crashed, the counts since the last sample are missing.
 */
CREATE FUNCTION event_queue_internal.begin_samples() RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, event_queue, pg_temp AS $$
BEGIN
	INSERT INTO event_queue_internal.metric_state AS s (complete_since, clean) VALUES (clock_timestamp(), false)
	ON CONFLICT (id) DO UPDATE SET clean = false,
		complete_since = CASE WHEN s.clean OR event_queue_internal.sampled_at() IS NOT NULL THEN s.complete_since ELSE clock_timestamp() END;
END
$$;
COMMENT ON FUNCTION event_queue_internal.begin_samples() IS 'Internal. Notes whether samples lack something; called by the scheduler at its start.';

/* end_samples: after the last sample before the scheduler ends. */
CREATE FUNCTION event_queue_internal.end_samples() RETURNS void
LANGUAGE sql SET search_path = pg_catalog, event_queue, pg_temp AS $$
	UPDATE event_queue_internal.metric_state SET clean = true
$$;
COMMENT ON FUNCTION event_queue_internal.end_samples() IS 'Internal. Notes that samples lack nothing; called by the scheduler at its end.';

CREATE TYPE event_queue_internal.live_metric AS (
	kind "char", queue_id int, name text, sampled_at timestamptz, delta bigint[], wait bytea, attempt_wait bytea, run bytea);
COMMENT ON TYPE event_queue_internal.live_metric IS 'Internal. What was counted since the last sample.';

/* live_metrics: what was counted since the last sample; of one kind, or queue, or all. */
CREATE FUNCTION event_queue_internal.live_metrics(kind "char", queue_id int) RETURNS SETOF event_queue_internal.live_metric
LANGUAGE C VOLATILE AS 'MODULE_PATHNAME', 'eq_live_metrics';
COMMENT ON FUNCTION event_queue_internal.live_metrics("char", int) IS 'Internal. What was counted since the last sample.';

/* sampled_at: when the last samples were taken; NULL: not since the start. */
CREATE FUNCTION event_queue_internal.sampled_at() RETURNS timestamptz
LANGUAGE C VOLATILE AS 'MODULE_PATHNAME', 'eq_sampled_at';
COMMENT ON FUNCTION event_queue_internal.sampled_at() IS 'For views. When the last samples of counters were taken.';

/* series_use: how many series of job names and tenants are in use; look-ups that found none, and when. */
CREATE FUNCTION event_queue_internal.series_use(OUT jobs int, OUT max_jobs int, OUT tenants int, OUT max_tenants int,
	OUT no_room bigint, OUT no_tenants bigint, OUT last_at timestamptz)
LANGUAGE C VOLATILE AS 'MODULE_PATHNAME', 'eq_series_use';
COMMENT ON FUNCTION event_queue_internal.series_use() IS 'For views. How many series of job names and tenants are in use.';

/* queue_now: how many leases a queue has, sessions that wait for its jobs, and when its last job was claimed since the start. */
CREATE FUNCTION event_queue_internal.queue_now(queue_id int, OUT leased bigint, OUT waiters int, OUT claimed_at timestamptz)
LANGUAGE C VOLATILE STRICT AS 'MODULE_PATHNAME', 'eq_queue_now';
COMMENT ON FUNCTION event_queue_internal.queue_now(int) IS 'For views. Leases and waiting sessions of a queue, and its last claim.';

/* counters_at: the totals of a series at that time, by the last sample before it; NULL: there is none. */
CREATE FUNCTION event_queue_internal.counters_at(kind "char", queue_id int, name text, at timestamptz) RETURNS bigint[]
LANGUAGE sql STABLE PARALLEL SAFE SET search_path = pg_catalog, event_queue, pg_temp AS $$
	SELECT coalesce(
		(SELECT m.counters FROM event_queue_internal.metric_sample m
		 WHERE m.kind = $1 AND m.queue_id = $2 AND m.name = $3 COLLATE "C" AND m.at <= $4 ORDER BY m.at DESC LIMIT 1),
		(SELECT h.counters FROM event_queue_internal.metric_hour h
		 WHERE h.kind = $1 AND h.queue_id = $2 AND h.name = $3 COLLATE "C" AND h.at <= $4 ORDER BY h.at DESC LIMIT 1))
$$;
COMMENT ON FUNCTION event_queue_internal.counters_at("char", int, text, timestamptz) IS 'Internal. Totals at a time.';

/*
 * metrics: totals, what happened in the last minutes to days, and histograms of the last
 * 5 minutes and hour; of all queues (kind q), job names (j, with all others: o) or
 * tenants (t, u), or of one queue (NULL: all).  A session that is confined to a tenant is told
 * of its tenant, and of job names that have a handler.  Times begin at a sample, so they may
 * be up to a minute longer (windows: how long, in seconds).
 * Isolation: in REPEATABLE READ, samples that were written since count too little.
 */
CREATE FUNCTION event_queue_internal.metrics(of_kind "char", of_queue int)
RETURNS TABLE (kind "char", queue_id int, name text, first_at timestamptz, total bigint[],
	last_1m bigint[], last_5m bigint[], last_1h bigint[], last_6h bigint[], last_24h bigint[], last_30d bigint[], seconds float8[],
	wait_5m bytea, run_5m bytea, wait_1h bytea, run_1h bytea, attempt_wait_1h bytea)
LANGUAGE plpgsql VOLATILE ROWS 1000 SET search_path = pg_catalog, event_queue, pg_temp SET jit = off SET enable_nestloop = off AS $$
#variable_conflict use_column
DECLARE
	others CONSTANT "char" := CASE $1 WHEN 'j' THEN 'o' WHEN 't' THEN 'u' ELSE $1 END;
	-- memory first, the rows by a later snapshot
	live event_queue_internal.live_metric[] := ARRAY(SELECT l FROM event_queue_internal.live_metrics($1, $2) l);
	now_at CONSTANT timestamptz := clock_timestamp();
	-- for how long nothing has been sampled
	since CONSTANT float8 := coalesce(greatest(extract(epoch FROM now_at - event_queue_internal.sampled_at()), 0), 0);
	lengths CONSTANT float8[] := ARRAY(SELECT CASE WHEN l.length <= since THEN since ELSE since + 60 * ceil((l.length - since) / 60) END
		FROM unnest('{60,300,3600,21600,86400,2592000}'::float8[]) WITH ORDINALITY l (length, i) ORDER BY l.i);
	confined CONSTANT boolean := event_queue.current_tenant() IS NOT NULL;
BEGIN
	RETURN QUERY
	WITH fresh AS (
		SELECT l.kind, l.queue_id, l.name COLLATE "C" AS name, l.sampled_at, l.delta, l.wait, l.attempt_wait, l.run FROM unnest(live) l
	), known AS MATERIALIZED (
		SELECT kind, queue_id, name, coalesce(s.first_at, f.sampled_at) AS first_at, s.at, s.ahead,
			CASE WHEN f.sampled_at >= coalesce(s.counted_at, '-infinity') THEN event_queue_internal.counters_plus(s.counters, f.delta) ELSE s.counters END AS total,
			CASE WHEN f.sampled_at >= coalesce(s.counted_at, '-infinity') THEN f.delta ELSE '{}' END AS delta,
			CASE WHEN f.sampled_at >= coalesce(s.counted_at, '-infinity') THEN f.wait END AS wait,
			CASE WHEN f.sampled_at >= coalesce(s.counted_at, '-infinity') THEN f.attempt_wait END AS attempt_wait,
			CASE WHEN f.sampled_at >= coalesce(s.counted_at, '-infinity') THEN f.run END AS run
		FROM (SELECT r.*, CASE WHEN NOT r.ahead THEN r.at END AS counted_at FROM (
			-- not now_at: a sample may have been taken since then
			SELECT m.*, m.at > clock_timestamp() AS ahead FROM event_queue_internal.metric_series m OFFSET 0) r) s FULL JOIN fresh f USING (kind, queue_id, name)
		WHERE kind IN (of_kind, others) AND (of_queue IS NULL OR queue_id = of_queue)
	), timed AS MATERIALIZED (
		-- A clock that was set back: what was counted later than now is in no window.
		SELECT n.*, CASE WHEN n.ahead THEN event_queue_internal.counters_plus(event_queue_internal.counters_at(n.kind, n.queue_id, n.name, now_at), n.delta)
			ELSE n.total END AS counted
		FROM known n
	), recent AS MATERIALIZED (
		SELECT m.kind, m.queue_id, m.name,
			event_queue_internal.histogram_sum(array_agg(m.wait) FILTER (WHERE m.at > now_at - '5 minutes'::interval)) AS wait_5m,
			event_queue_internal.histogram_sum(array_agg(m.run) FILTER (WHERE m.at > now_at - '5 minutes'::interval)) AS run_5m,
			event_queue_internal.histogram_sum(array_agg(m.wait)) AS wait_1h, event_queue_internal.histogram_sum(array_agg(m.run)) AS run_1h,
			event_queue_internal.histogram_sum(array_agg(m.attempt_wait)) AS attempt_wait_1h
		FROM event_queue_internal.metric_sample m
		WHERE m.at >= now_at - '1 hour'::interval AND m.at <= clock_timestamp() AND m.kind IN (of_kind, others) AND (of_queue IS NULL OR m.queue_id = of_queue)
		GROUP BY 1, 2, 3
	)
	SELECT k.kind, k.queue_id, k.name, k.first_at, k.total,
		CASE WHEN k.at IS NULL OR k.at <= now_at - '1 minute'::interval THEN k.delta WHEN k.first_at > now_at - '1 minute'::interval THEN k.counted ELSE event_queue_internal.counters_minus(k.counted, event_queue_internal.counters_at(k.kind, k.queue_id, k.name, now_at - '1 minute'::interval)) END,
		CASE WHEN k.at IS NULL OR k.at <= now_at - '5 minutes'::interval THEN k.delta WHEN k.first_at > now_at - '5 minutes'::interval THEN k.counted ELSE event_queue_internal.counters_minus(k.counted, event_queue_internal.counters_at(k.kind, k.queue_id, k.name, now_at - '5 minutes'::interval)) END,
		CASE WHEN k.at IS NULL OR k.at <= now_at - '1 hour'::interval THEN k.delta WHEN k.first_at > now_at - '1 hour'::interval THEN k.counted ELSE event_queue_internal.counters_minus(k.counted, event_queue_internal.counters_at(k.kind, k.queue_id, k.name, now_at - '1 hour'::interval)) END,
		CASE WHEN k.at IS NULL OR k.at <= now_at - '6 hours'::interval THEN k.delta WHEN k.first_at > now_at - '6 hours'::interval THEN k.counted ELSE event_queue_internal.counters_minus(k.counted, event_queue_internal.counters_at(k.kind, k.queue_id, k.name, now_at - '6 hours'::interval)) END,
		CASE WHEN k.at IS NULL OR k.at <= now_at - '24 hours'::interval THEN k.delta WHEN k.first_at > now_at - '24 hours'::interval THEN k.counted ELSE event_queue_internal.counters_minus(k.counted, event_queue_internal.counters_at(k.kind, k.queue_id, k.name, now_at - '24 hours'::interval)) END,
		CASE WHEN k.at IS NULL OR k.at <= now_at - '30 days'::interval THEN k.delta WHEN k.first_at > now_at - '30 days'::interval THEN k.counted ELSE event_queue_internal.counters_minus(k.counted, event_queue_internal.counters_at(k.kind, k.queue_id, k.name, now_at - '30 days'::interval)) END,
		lengths,
		event_queue_internal.histogram_plus(r.wait_5m, k.wait), event_queue_internal.histogram_plus(r.run_5m, k.run),
		event_queue_internal.histogram_plus(r.wait_1h, k.wait), event_queue_internal.histogram_plus(r.run_1h, k.run),
		event_queue_internal.histogram_plus(r.attempt_wait_1h, k.attempt_wait)
	FROM timed k LEFT JOIN recent r USING (kind, queue_id, name)
	WHERE NOT confined OR CASE k.kind WHEN 't' THEN event_queue.tenant_visible(k.name) WHEN 'u' THEN false
		WHEN 'j' THEN event_queue_internal.is_unbound() AND EXISTS (SELECT FROM event_queue.handler h WHERE h.queue_id = k.queue_id AND h.job_name = k.name)
		ELSE event_queue_internal.is_unbound() END;
END
$$;
COMMENT ON FUNCTION event_queue_internal.metrics("char", int) IS
'For views. What happened to jobs by queue, job name or tenant, in all and lately.';

/*
 * failing: queues, and job names of queues, of which attempts have failed for a sample or longer
 * and none was completed since; and of which one waits that has failed.  So it holds over any
 * back-off, and ends when one is completed or the last one is gone.  names: of up to three of
 * them; name: one; whole: none of the queue was completed.
 */
CREATE FUNCTION event_queue_internal.failing(OUT queue_id int, OUT name text, OUT names text, OUT whole boolean) RETURNS SETOF record
LANGUAGE sql VOLATILE SET search_path = pg_catalog, event_queue, pg_temp SET jit = off AS $$
	WITH suspects AS MATERIALIZED (
		SELECT s.kind, s.queue_id, s.name
		FROM event_queue_internal.metric_series s
		WHERE s.failing_since IS NOT NULL AND s.kind IN ('q', 'j')
		  AND (event_queue_internal.queue_depth(s.queue_id)).depth > 0
		  -- of a long queue only the first jobs are read
		  AND EXISTS (SELECT FROM (SELECT j.name, j.failures FROM event_queue.job j WHERE j.queue_id = s.queue_id AND j.blocked = 0
				ORDER BY j.queue_id, j.lane, j.priority, j.run_at, j.job_id LIMIT 1000) f
			HAVING count(*) = 1000 OR bool_or(f.failures > 0 AND (s.kind = 'q' OR f.name = s.name COLLATE "C")))
	), well AS MATERIALIZED (
		-- since the last sample; of one queue, or of all at once
		SELECT v.kind, v.queue_id, v.name
		FROM event_queue_internal.live_metrics(NULL, (SELECT min(s.queue_id) FROM suspects s HAVING count(DISTINCT s.queue_id) = 1)) v
		WHERE EXISTS (SELECT FROM suspects) AND v.delta[3] > 0
	)
	SELECT m.queue_id, min(m.name) FILTER (WHERE m.kind = 'j'),
		string_agg(quote_ident(m.name), ', ' ORDER BY m.name) FILTER (WHERE m.kind = 'j' AND m.place <= 3)
			|| CASE WHEN count(*) FILTER (WHERE m.kind = 'j') > 3 THEN ', ...' ELSE '' END,
		bool_or(m.kind = 'q')
	FROM (
		SELECT s.*, row_number() OVER (PARTITION BY s.kind, s.queue_id ORDER BY s.name) AS place
		FROM suspects s LEFT JOIN well w ON w.kind = s.kind AND w.queue_id = s.queue_id AND w.name = s.name COLLATE "C"
		WHERE w.kind IS NULL) m
	GROUP BY m.queue_id
$$;
COMMENT ON FUNCTION event_queue_internal.failing() IS 'For health(): Queues and job names of which all attempts fail, and one waits to be tried again.';

/* per_second: the rate of a counter, by its number, over a time. */
CREATE FUNCTION event_queue_internal.per_second(counters bigint[], counter int, seconds float8) RETURNS float8
LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
	SELECT coalesce($1[$2], 0) / greatest($3, 1)
$$;
COMMENT ON FUNCTION event_queue_internal.per_second(bigint[], int, float8) IS 'For views. A rate.';

/* compliance: the share of finished jobs (dead ones are, too) that were completed in time; NULL if there are none. */
CREATE FUNCTION event_queue_internal.compliance(counters bigint[]) RETURNS float8
LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
	SELECT ($1[3] - $1[9])::float8 / nullif($1[3] + $1[7], 0)
$$;
COMMENT ON FUNCTION event_queue_internal.compliance(bigint[]) IS 'For views. The share of finished jobs that were in time.';

CREATE VIEW queue_stats WITH (security_invoker = true) AS
	SELECT q.name AS queue, m.first_at AS counted_since,
		coalesce(m.total[1], 0) AS enqueued_total, coalesce(m.total[2], 0) AS claimed_total, coalesce(m.total[3], 0) AS completed_total,
		coalesce(m.total[4], 0) AS failed_total, coalesce(m.total[12], 0) AS retried_total, coalesce(m.total[5], 0) AS released_total,
		coalesce(m.total[6], 0) AS stalled_total, coalesce(m.total[7], 0) AS dead_total, coalesce(m.total[8], 0) AS cancelled_total,
		coalesce(m.total[9], 0) AS late_total,
		event_queue_internal.per_second(m.last_1m, 1, m.seconds[1]) AS enqueued_per_s_1m, event_queue_internal.per_second(m.last_5m, 1, m.seconds[2]) AS enqueued_per_s_5m, event_queue_internal.per_second(m.last_1h, 1, m.seconds[3]) AS enqueued_per_s_1h, event_queue_internal.per_second(m.last_24h, 1, m.seconds[5]) AS enqueued_per_s_24h,
		event_queue_internal.per_second(m.last_1m, 3, m.seconds[1]) AS completed_per_s_1m, event_queue_internal.per_second(m.last_5m, 3, m.seconds[2]) AS completed_per_s_5m, event_queue_internal.per_second(m.last_1h, 3, m.seconds[3]) AS completed_per_s_1h, event_queue_internal.per_second(m.last_24h, 3, m.seconds[5]) AS completed_per_s_24h,
		event_queue_internal.per_second(m.last_1m, 4, m.seconds[1]) AS failed_per_s_1m, event_queue_internal.per_second(m.last_5m, 4, m.seconds[2]) AS failed_per_s_5m, event_queue_internal.per_second(m.last_1h, 4, m.seconds[3]) AS failed_per_s_1h, event_queue_internal.per_second(m.last_24h, 4, m.seconds[5]) AS failed_per_s_24h,
		event_queue_internal.histogram_quantile(m.wait_5m, 0.50) AS wait_p50_5m, event_queue_internal.histogram_quantile(m.wait_5m, 0.95) AS wait_p95_5m, event_queue_internal.histogram_quantile(m.wait_5m, 0.99) AS wait_p99_5m,
		event_queue_internal.histogram_quantile(m.wait_1h, 0.50) AS wait_p50_1h, event_queue_internal.histogram_quantile(m.wait_1h, 0.95) AS wait_p95_1h, event_queue_internal.histogram_quantile(m.wait_1h, 0.99) AS wait_p99_1h,
		event_queue_internal.histogram_quantile(m.run_5m, 0.50) AS run_p50_5m, event_queue_internal.histogram_quantile(m.run_5m, 0.95) AS run_p95_5m, event_queue_internal.histogram_quantile(m.run_5m, 0.99) AS run_p99_5m,
		event_queue_internal.histogram_quantile(m.run_1h, 0.50) AS run_p50_1h, event_queue_internal.histogram_quantile(m.run_1h, 0.95) AS run_p95_1h, event_queue_internal.histogram_quantile(m.run_1h, 0.99) AS run_p99_1h,
		extract(epoch FROM q.sla)::float8 AS sla_seconds, q.sla_target,
		CASE WHEN q.sla IS NOT NULL THEN event_queue_internal.compliance(m.last_1h) END AS sla_compliance_1h,
		CASE WHEN q.sla IS NOT NULL THEN event_queue_internal.compliance(m.last_24h) END AS sla_compliance_24h
	FROM event_queue.queue q LEFT JOIN event_queue_internal.metrics('q', NULL) m USING (queue_id)
	WHERE event_queue_internal.is_unbound();
COMMENT ON VIEW queue_stats IS
'Per queue: totals since it was made, over restarts; rates of the last minutes, hour and day; percentiles, in seconds, of the wait from due to first claim and of the run; the share of finished jobs that were in time. Who is bound to a tenant sees none: tenant_stats has its own.';

CREATE VIEW job_stats WITH (security_invoker = true) AS
	SELECT coalesce(q.name, 'other') AS queue, CASE m.kind WHEN 'o' THEN 'other' ELSE m.name END AS job_name, m.first_at AS counted_since,
		m.total[1] AS enqueued_total, m.total[2] AS claimed_total, m.total[3] AS completed_total,
		m.total[4] AS failed_total, m.total[12] AS retried_total, m.total[5] AS released_total,
		m.total[6] AS stalled_total, m.total[7] AS dead_total, m.total[8] AS cancelled_total, m.total[9] AS late_total,
		event_queue_internal.per_second(m.last_5m, 1, m.seconds[2]) AS enqueued_per_s_5m, event_queue_internal.per_second(m.last_1h, 1, m.seconds[3]) AS enqueued_per_s_1h, event_queue_internal.per_second(m.last_24h, 1, m.seconds[5]) AS enqueued_per_s_24h,
		event_queue_internal.per_second(m.last_5m, 3, m.seconds[2]) AS completed_per_s_5m, event_queue_internal.per_second(m.last_1h, 3, m.seconds[3]) AS completed_per_s_1h, event_queue_internal.per_second(m.last_24h, 3, m.seconds[5]) AS completed_per_s_24h,
		event_queue_internal.per_second(m.last_5m, 4, m.seconds[2]) AS failed_per_s_5m, event_queue_internal.per_second(m.last_1h, 4, m.seconds[3]) AS failed_per_s_1h, event_queue_internal.per_second(m.last_24h, 4, m.seconds[5]) AS failed_per_s_24h,
		event_queue_internal.histogram_quantile(m.wait_5m, 0.50) AS wait_p50_5m, event_queue_internal.histogram_quantile(m.wait_5m, 0.95) AS wait_p95_5m, event_queue_internal.histogram_quantile(m.wait_5m, 0.99) AS wait_p99_5m,
		event_queue_internal.histogram_quantile(m.wait_1h, 0.50) AS wait_p50_1h, event_queue_internal.histogram_quantile(m.wait_1h, 0.95) AS wait_p95_1h, event_queue_internal.histogram_quantile(m.wait_1h, 0.99) AS wait_p99_1h,
		event_queue_internal.histogram_quantile(m.run_5m, 0.50) AS run_p50_5m, event_queue_internal.histogram_quantile(m.run_5m, 0.95) AS run_p95_5m, event_queue_internal.histogram_quantile(m.run_5m, 0.99) AS run_p99_5m,
		event_queue_internal.histogram_quantile(m.run_1h, 0.50) AS run_p50_1h, event_queue_internal.histogram_quantile(m.run_1h, 0.95) AS run_p95_1h, event_queue_internal.histogram_quantile(m.run_1h, 0.99) AS run_p99_1h,
		event_queue_internal.compliance(m.last_24h) AS in_time_24h
	FROM event_queue_internal.metrics('j', NULL) m LEFT JOIN event_queue.queue q USING (queue_id)
	WHERE q.queue_id IS NOT NULL OR m.queue_id = 0;
COMMENT ON VIEW job_stats IS
'The same per queue and job name; "other": all names, or queues, for which event_queue.max_job_stats leaves no room. A session that is confined to a tenant sees names that have a handler, one whose role is bound none.';

CREATE VIEW tenant_stats WITH (security_invoker = true) AS
	SELECT CASE m.kind WHEN 'u' THEN 'other' ELSE m.name END AS tenant, m.first_at AS counted_since,
		m.total[1] AS enqueued_total, m.total[2] AS claimed_total, m.total[3] AS completed_total,
		m.total[4] AS failed_total, m.total[12] AS retried_total, m.total[5] AS released_total,
		m.total[6] AS stalled_total, m.total[7] AS dead_total, m.total[8] AS cancelled_total, m.total[9] AS late_total,
		event_queue_internal.per_second(m.last_5m, 1, m.seconds[2]) AS enqueued_per_s_5m, event_queue_internal.per_second(m.last_1h, 1, m.seconds[3]) AS enqueued_per_s_1h, event_queue_internal.per_second(m.last_24h, 1, m.seconds[5]) AS enqueued_per_s_24h,
		event_queue_internal.per_second(m.last_5m, 3, m.seconds[2]) AS completed_per_s_5m, event_queue_internal.per_second(m.last_1h, 3, m.seconds[3]) AS completed_per_s_1h, event_queue_internal.per_second(m.last_24h, 3, m.seconds[5]) AS completed_per_s_24h,
		event_queue_internal.per_second(m.last_5m, 4, m.seconds[2]) AS failed_per_s_5m, event_queue_internal.per_second(m.last_1h, 4, m.seconds[3]) AS failed_per_s_1h, event_queue_internal.per_second(m.last_24h, 4, m.seconds[5]) AS failed_per_s_24h,
		event_queue_internal.histogram_quantile(m.wait_5m, 0.50) AS wait_p50_5m, event_queue_internal.histogram_quantile(m.wait_5m, 0.95) AS wait_p95_5m, event_queue_internal.histogram_quantile(m.wait_5m, 0.99) AS wait_p99_5m,
		event_queue_internal.histogram_quantile(m.wait_1h, 0.50) AS wait_p50_1h, event_queue_internal.histogram_quantile(m.wait_1h, 0.95) AS wait_p95_1h, event_queue_internal.histogram_quantile(m.wait_1h, 0.99) AS wait_p99_1h,
		event_queue_internal.histogram_quantile(m.run_5m, 0.50) AS run_p50_5m, event_queue_internal.histogram_quantile(m.run_5m, 0.95) AS run_p95_5m, event_queue_internal.histogram_quantile(m.run_5m, 0.99) AS run_p99_5m,
		event_queue_internal.histogram_quantile(m.run_1h, 0.50) AS run_p50_1h, event_queue_internal.histogram_quantile(m.run_1h, 0.95) AS run_p95_1h, event_queue_internal.histogram_quantile(m.run_1h, 0.99) AS run_p99_1h,
		event_queue_internal.compliance(m.last_24h) AS in_time_24h
	FROM event_queue_internal.metrics('t', NULL) m;
COMMENT ON VIEW tenant_stats IS
'The same per tenant, of the busiest ones (event_queue.max_tenant_stats); "other": all others. A session that is confined to a tenant sees its own.';

CREATE VIEW slo_status WITH (security_invoker = true) AS
	SELECT q.name AS queue, extract(epoch FROM q.sla)::float8 AS sla_seconds, q.sla_target AS target,
		x.completed - x.late AS good, x.completed + x.dead AS total,
		1 - coalesce((x.late + x.dead) / nullif((1 - q.sla_target) * (x.completed + x.dead), 0), 0) AS budget_left,
		coalesce((1 - event_queue_internal.compliance(m.last_5m)) / (1 - q.sla_target), 0) AS burn_5m,
		coalesce((1 - event_queue_internal.compliance(m.last_1h)) / (1 - q.sla_target), 0) AS burn_1h,
		coalesce((1 - event_queue_internal.compliance(m.last_6h)) / (1 - q.sla_target), 0) AS burn_6h
	FROM event_queue.queue q LEFT JOIN event_queue_internal.metrics('q', NULL) m USING (queue_id),
		LATERAL (SELECT coalesce(m.last_30d[3], 0) AS completed, coalesce(m.last_30d[7], 0) AS dead, coalesce(m.last_30d[9], 0) AS late) x
	WHERE q.sla IS NOT NULL AND event_queue_internal.is_unbound();
COMMENT ON VIEW slo_status IS
'Per queue with an sla, over 30 days: jobs that finished in time and in all, the share of the error budget that is left (below 0: overdrawn), and how fast it burns: 1 uses it up in 30 days, 14.4 a fiftieth of it in an hour.';

/*
 * prometheus: counters, gauges and histograms of this database in Prometheus' text
 * format.  Counters of queues begin with the server; they come from shared memory, but for
 * names and settings.  Rules, schedules, subscriptions and the watermark are read from small
 * tables; what is locked is left out.  A session that is confined to a tenant is not told job names.
 * Isolation: what is committed now.
 * Example:
 *	SELECT event_queue.prometheus();
 */
CREATE FUNCTION prometheus() RETURNS text
LANGUAGE C VOLATILE AS 'MODULE_PATHNAME', 'eq_prometheus';
COMMENT ON FUNCTION prometheus() IS
'Counters, gauges and histograms of queues in Prometheus'' text format, from shared memory.';
