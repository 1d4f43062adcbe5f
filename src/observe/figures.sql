/*
 * figures.sql: metrics of rules, schedules, subscriptions and the event store, for
 * prometheus().
 *
 * Runs at each scrape, so it reads small tables only: a look into the events ends at 10000,
 * of a subscription at 1000.  It never waits: what is locked, or fails, is left out, and
 * event_queue_figures_unavailable says so.  prometheus() runs it as the extension's owner,
 * who bypasses row security: each part names the tenant.
 */

/*
 * figures: one line for each number; labels: the name and value of each, in order.
 * NULL values have no line.  Events are walked by their index, whatever statistics say: a sort
 * of all would cost 16 ms for each subscription that stands, instead of 1.
 */
CREATE FUNCTION event_queue_internal.figures(OUT metric text, OUT labels text[], OUT value double precision) RETURNS SETOF record
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, event_queue, pg_temp
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_sort = off SET jit = off SET max_parallel_workers_per_gather = 0 AS $$
DECLARE
	part record;
BEGIN
	FOR part IN SELECT * FROM (VALUES
		('rules', '{tenant_role,rule,rule_count,rule_count_change,rule_checkpoint,event_partition,event_store}'::text[], $q$
			WITH r AS (
				SELECT r.name, coalesce(n.seen, 0) AS seen, coalesce(n.matched, 0) + coalesce(x.matched, 0) AS matched,
					coalesce(n.suppressed, 0) + coalesce(x.suppressed, 0) AS suppressed,
					coalesce(n.too_deep, 0) + coalesce(x.too_deep, 0) AS too_deep,
					coalesce(n.failed, 0) + coalesce(x.failed, 0) AS failed
				FROM event_queue.rule r
				LEFT JOIN event_queue_internal.rule_count n USING (rule_id)
				LEFT JOIN (SELECT y.rule_id, sum(y.matched) AS matched, sum(y.failed) AS failed,
						sum(y.suppressed) AS suppressed, sum(y.too_deep) AS too_deep
					FROM event_queue_internal.rule_count_change y GROUP BY 1) x USING (rule_id)
				WHERE event_queue.tenant_visible(r.tenant_id)),
			lag AS (
				SELECT l.events, l.oldest
				FROM (SELECT min(r.start_position) FROM event_queue.rule r WHERE r.enabled) AS s (first)
				CROSS JOIN event_queue_internal.rule_checkpoint c
				CROSS JOIN LATERAL event_queue_internal.rule_lag(greatest(c.position, s.first)) l
				WHERE s.first IS NOT NULL AND event_queue.current_tenant() IS NULL)
			SELECT 'event_queue_rule_evaluations_total', ARRAY['rule', r.name], r.seen FROM r
			UNION ALL SELECT 'event_queue_rule_matches_total', ARRAY['rule', r.name], r.matched FROM r
			UNION ALL SELECT 'event_queue_rule_errors_total', ARRAY['rule', r.name], r.failed FROM r
			UNION ALL SELECT 'event_queue_rule_suppressed_total', ARRAY['rule', r.name, 'why', 'loop'], r.suppressed FROM r
			UNION ALL SELECT 'event_queue_rule_suppressed_total', ARRAY['rule', r.name, 'why', 'depth'], r.too_deep FROM r
			UNION ALL SELECT 'event_queue_rule_lag_events', '{}', lag.events FROM lag
			UNION ALL SELECT 'event_queue_rule_lag_seconds', '{}', coalesce(greatest(extract(epoch FROM clock_timestamp() - lag.oldest), 0), 0) FROM lag $q$),
		('schedules', '{tenant_role,schedule,queue}', $q$
			WITH s AS (SELECT s.*, q.name AS queue FROM event_queue.schedule s JOIN event_queue.queue q USING (queue_id)
				WHERE event_queue.tenant_visible(s.tenant_id))
			SELECT 'event_queue_schedule_last_run_timestamp_seconds', ARRAY['schedule', s.name, 'queue', s.queue], extract(epoch FROM s.last_run) FROM s
			UNION ALL SELECT 'event_queue_schedule_next_run_timestamp_seconds', ARRAY['schedule', s.name, 'queue', s.queue],
				extract(epoch FROM s.next_run) FROM s WHERE s.enabled
			UNION ALL SELECT 'event_queue_schedule_runs_total', ARRAY['schedule', s.name, 'queue', s.queue], s.runs FROM s
			UNION ALL SELECT 'event_queue_schedule_missed_total', ARRAY['schedule', s.name, 'queue', s.queue], s.missed FROM s $q$),
		('subscriptions', '{tenant_role,subscription,subscription_bucket,subscription_parked,event_partition,event_store}', $q$
			WITH s AS (
				SELECT ARRAY['subscription', s.name, 'tenant', coalesce(s.tenant_id, '')] AS labels, l.events, l.oldest, p.parked
				FROM event_queue.subscription s
				CROSS JOIN (SELECT event_queue.watermark()) AS w (watermark)
				CROSS JOIN LATERAL (SELECT min(b.position), array_agg(b.position ORDER BY b.bucket) FROM event_queue_internal.subscription_bucket b
					WHERE b.subscription_id = s.subscription_id) AS c (checkpoint, positions)
				CROSS JOIN LATERAL (SELECT count(*) AS parked FROM event_queue_internal.subscription_parked k
					WHERE k.subscription_id = s.subscription_id) p
				CROSS JOIN LATERAL (SELECT count(*) AS events, min(e.created_at) AS oldest FROM (
						SELECT x.* FROM event_queue.event_store x WHERE x.position > c.checkpoint AND x.position <= w.watermark
						ORDER BY x.position LIMIT 1000) e
					WHERE (s.tenant_id IS NULL OR e.tenant_id = s.tenant_id)
					  AND (s.buckets = 1 OR e.position > c.positions[1 + event_queue_internal.event_bucket(e.tenant_id, e.aggregate_type, e.aggregate_id, s.buckets)])
					  AND (s.filter IS NULL OR event_queue_internal.matches_filter(e::event_queue.event_store, s.filter))) l
				WHERE event_queue.tenant_visible(s.tenant_id))
			SELECT 'event_queue_subscription_lag_events', s.labels, s.events FROM s
			UNION ALL SELECT 'event_queue_subscription_lag_seconds', s.labels, coalesce(greatest(extract(epoch FROM clock_timestamp() - s.oldest), 0), 0) FROM s
			UNION ALL SELECT 'event_queue_subscription_parked', s.labels, s.parked FROM s $q$),
		('store', '{tenant_role}', $q$
			SELECT 'event_queue_watermark_lag_positions', '{}'::text[], greatest(event_queue_internal.last_position() - event_queue.watermark(), 0)
			UNION ALL
			SELECT 'event_queue_watermark_blocked_seconds', '{}', coalesce(max(extract(epoch FROM clock_timestamp() - b.began)), 0)
			FROM event_queue_internal.open_appends() o, event_queue_internal.session_began(o.pid) AS b (began)
			UNION ALL
			-- The lower 40 bits: they begin anew with a generation, as counters may.
			SELECT 'event_queue_event_positions_total', '{}', event_queue_internal.last_position() & ((1::bigint << 40) - 1) $q$)
		) AS parts (name, tables, query)
	LOOP
		DECLARE
			failed boolean := true;
		BEGIN
			IF event_queue_internal.lock_for_look(part.tables) IS NULL THEN
				RETURN QUERY EXECUTE format('SELECT metric, labels::text[], value::double precision FROM (%s) AS lines (metric, labels, value)
					WHERE value IS NOT NULL', part.query);
				failed := false;
			END IF;
			RETURN QUERY SELECT 'event_queue_figures_unavailable', ARRAY['of', part.name], failed::int::double precision;
		EXCEPTION WHEN OTHERS THEN
			RETURN QUERY SELECT 'event_queue_figures_unavailable', ARRAY['of', part.name], 1::double precision;
		END;
	END LOOP;
END
$$;
COMMENT ON FUNCTION event_queue_internal.figures() IS
'For prometheus(): Figures of rules, schedules, subscriptions and the event store; what is locked is left out.';
