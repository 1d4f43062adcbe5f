-- Figures of queues, job names and tenants; histograms; health and Prometheus' text.
SET client_min_messages = warning;

-- Quantiles of a histogram are at most 2 % off those of the data.
CREATE TEMP TABLE sample AS
SELECT 'even' AS kind, (g * 997)::bigint AS us FROM generate_series(1, 20000) g
UNION ALL SELECT 'exponential', (64 * exp(g / 1000.0))::bigint FROM generate_series(0, 20000) g
UNION ALL SELECT 'two humps', CASE WHEN g % 3 = 0 THEN 5000000 + g * 13 ELSE 200 + g END FROM generate_series(1, 9000) g
UNION ALL SELECT 'one', 123456789
UNION ALL SELECT 'days', 86400000000::bigint * g FROM generate_series(1, 12) g;
WITH exact AS (
	SELECT s.kind, q, percentile_disc(q) WITHIN GROUP (ORDER BY s.us) / 1000000.0 AS seconds
	FROM sample s, unnest('{0, 0.01, 0.1, 0.5, 0.9, 0.95, 0.99, 0.999, 1}'::float8[]) q GROUP BY 1, 2),
histogram AS (
	SELECT s.kind, event_queue_internal.histogram_of(array_agg(s.us ORDER BY s.us)) AS h FROM sample s GROUP BY 1)
SELECT e.kind, count(*), max(abs(event_queue_internal.histogram_quantile(h.h, e.q) - e.seconds) / e.seconds) <= 0.02 AS within_two_per_cent
FROM exact e JOIN histogram h USING (kind) GROUP BY 1 ORDER BY 1;
-- and the bound is near: each time by itself
SELECT max(e) BETWEEN 0.0150 AND 0.0160 AS bound
FROM (SELECT abs(event_queue_internal.histogram_quantile(event_queue_internal.histogram_of(ARRAY[us]), 0.5) * 1000000 - us) / us AS e
	FROM (SELECT generate_series(64, 20000) UNION ALL SELECT (64 * exp(g / 500.0))::bigint FROM generate_series(1, 11700) g) x (us)) y;
-- Below 64 us they are 1 us off; what is longer than 12 days counts as 12 days.
SELECT us, round((event_queue_internal.histogram_quantile(event_queue_internal.histogram_of(ARRAY[us]), 0.5) * 1000000)::numeric, 3) AS told
FROM unnest('{-5,0,1,2,62,63,64,1099511627775,1099511627776,9223372036854775807}'::bigint[]) us;
-- Together they are as if made together.
SELECT event_queue_internal.histogram_sum(array_agg(event_queue_internal.histogram_of(ARRAY[us]))) = event_queue_internal.histogram_of(array_agg(us)) AS sum,
	event_queue_internal.histogram_count(event_queue_internal.histogram_of(array_agg(us))) AS n
FROM sample WHERE kind = 'two humps';
SELECT event_queue_internal.histogram_plus(event_queue_internal.histogram_of('{100,5000}'), event_queue_internal.histogram_of('{7,100}'))
	= event_queue_internal.histogram_of('{5000,7,100,100}') AS plus,
	event_queue_internal.histogram_plus(NULL, event_queue_internal.histogram_of('{7}')) = event_queue_internal.histogram_of('{7}') AS plus_null,
	event_queue_internal.histogram_plus(NULL, NULL) IS NULL AS null_plus_null,
	event_queue_internal.histogram_quantile(event_queue_internal.histogram_of('{}'), 0.5) IS NULL AS empty,
	event_queue_internal.histogram_of('{NULL}') = '' AS no_times;
\set VERBOSITY terse
SELECT event_queue_internal.histogram_quantile(event_queue_internal.histogram_of('{1}'), 1.5);
SELECT event_queue_internal.histogram_count('\x80');
SELECT event_queue_internal.histogram_count('\xe00801');
SELECT event_queue_internal.histogram_count('\xffffffffffffffffff7f01');
SELECT event_queue_internal.counters_plus('{1,2}', '{10,20,30}'), event_queue_internal.counters_minus('{1,2,3}', '{1}'), event_queue_internal.counters_plus(NULL, '{1,NULL}');

-- Settings of a queue.
SELECT event_queue.create_queue('metrics', sla => '1 hour', sla_target => 0.9, owner => 'the team', docs_url => 'https://docs.example/metrics',
	max_attempts => 2, backoff_delay => '0') IS NOT NULL AS created;
SELECT sla_target, owner, docs_url FROM event_queue.queue WHERE name = 'metrics';
SELECT event_queue.create_queue('metrics', sla_target => 1);
SELECT event_queue.create_queue('metrics2', sla_target => 1);
SELECT event_queue.create_queue('metrics2', sla_target => 'NaN');
SELECT event_queue.create_queue('metrics2', owner => repeat('x', 256));

-- What happens to jobs.
SELECT count(event_queue.enqueue('metrics', 'm-good', tenant_id => 'm1')) FROM generate_series(1, 20);
SELECT count(event_queue.enqueue('metrics', 'm-bad', tenant_id => 'm2')) FROM generate_series(1, 5);
SELECT jsonb_array_length(to_jsonb(event_queue.enqueue_many('metrics', '[{"name": "m-many"}, {"name": "m-many", "group_key": "g"}, {"name": "m-good", "tenant_id": "m1", "unique_key": "u"}]')));
SELECT event_queue.enqueue('metrics', 'm-later', delay => '1 hour', tenant_id => 'm1') IS NOT NULL AS later;
SELECT count(event_queue.complete(job_id, lease_token)) FROM event_queue.claim('metrics', 100, job_names => '{m-good}');
SELECT count(event_queue.fail(job_id, lease_token, 'no', final => true)) FROM event_queue.claim('metrics', 3, job_names => '{m-bad}');
SELECT count(event_queue.release(job_id, lease_token)) FROM event_queue.claim('metrics', 1, job_names => '{m-bad}');
SELECT count(*) FROM event_queue.claim('metrics', 1, job_names => '{m-bad}');
SELECT event_queue.cancel_job(job_id) FROM event_queue.jobs WHERE queue = 'metrics' AND name = 'm-many' AND group_key IS NULL;
SELECT enqueued_total, claimed_total, completed_total, failed_total, retried_total, released_total, stalled_total, dead_total, cancelled_total, late_total
FROM event_queue.queue_stats WHERE queue = 'metrics';
SELECT job_name, enqueued_total, claimed_total, completed_total, failed_total, retried_total, released_total, dead_total, cancelled_total
FROM event_queue.job_stats WHERE queue = 'metrics' ORDER BY 1;
SELECT tenant, enqueued_total, claimed_total, completed_total, failed_total, dead_total FROM event_queue.tenant_stats WHERE tenant IN ('m1', 'm2') ORDER BY 1;
SELECT enqueued_per_s_5m > 0 AND completed_per_s_1m > 0 AND failed_per_s_1h > 0 AND enqueued_per_s_1m > enqueued_per_s_1h AND enqueued_per_s_1h > enqueued_per_s_24h AS rates,
	wait_p50_5m <= wait_p95_5m AND wait_p95_5m <= wait_p99_5m AND wait_p99_5m < 60 AND run_p50_1h <= run_p99_1h AND run_p99_1h < 60 AS percentiles,
	round(sla_compliance_1h::numeric, 3) AS in_time
FROM event_queue.queue_stats WHERE queue = 'metrics';
SELECT queue, sla_seconds, target, good, total, round(budget_left::numeric, 3) AS budget_left, round(burn_5m::numeric, 3) AS burn_5m,
	burn_5m = burn_1h AND burn_1h = burn_6h AS the_same
FROM event_queue.slo_status WHERE queue = 'metrics';

-- Health: as the users wrote it.
SELECT key, CASE WHEN key IN ('avgProcessingTime', 'oldestWaiting') THEN to_jsonb((value #>> '{}')::float8 BETWEEN 0 AND 60)
	WHEN key IN ('wait', 'run') THEN to_jsonb((value ->> 'p50')::float8 <= (value ->> 'p99')::float8 AND (value ->> 'p95')::float8 > 0) ELSE value END AS value
FROM jsonb_each(event_queue.queue_health() -> 'metrics') ORDER BY 1;
SELECT count(*) = (SELECT count(*) FROM event_queue.queue) AS one_each FROM jsonb_object_keys(event_queue.queue_health());
SELECT event_queue.create_queue('metrics2') IS NOT NULL AS created;
SELECT event_queue.queue_health() -> 'metrics2' ->> 'status' AS status;
SELECT count(event_queue.enqueue('metrics2', 'x', run_at => now() - interval '6 minutes')) FROM generate_series(1, 10);
SELECT event_queue.queue_health() #> '{metrics2,status}' AS status, jsonb_path_query_array(event_queue.queue_health(), '$.metrics2.reasons[*].reason') AS reasons;
SELECT count(event_queue.fail(job_id, lease_token, 'no', final => true)) FROM event_queue.claim('metrics2', 10);
SELECT event_queue.queue_health() #> '{metrics2,status}' AS status, event_queue.queue_health() #> '{metrics2,reasons}' AS reasons;
SELECT event_queue.pause_queue('metrics2'), event_queue.enqueue('metrics2', 'x') IS NOT NULL AS enqueued;
SELECT jsonb_path_query_array(event_queue.queue_health(), '$.metrics2.reasons[*].reason') AS reasons;

-- Prometheus.
CREATE TEMP TABLE line AS SELECT n, line FROM string_to_table(event_queue.prometheus(), E'\n') WITH ORDINALITY x (line, n);
SELECT regexp_replace(line, '^.*\{[^}]*queue="metrics"(,[^}]*)?\} ', '\1 ') AS value, substring(line, '^[a-z_]+') AS metric
FROM line WHERE line ~ 'queue="metrics"' AND line !~ '_bucket|_sum|oldest' ORDER BY n;
SELECT count(*) AS not_a_line FROM line WHERE line !~ '^(# (HELP|TYPE) [a-z_]+ .*|[a-z_]+\{([a-z_]+="([^"\\]|\\["n\\])*",?)+\} [-+0-9.e]+|)$';
SELECT count(DISTINCT substring(line, 'TYPE ([a-z_]+)')) = count(*) AS once FROM line WHERE line LIKE '# TYPE%';
-- Buckets go up, to the count.
SELECT count(*) FROM (SELECT substring(line, '\} (\d+)$')::bigint AS value,
	lag(substring(line, '\} (\d+)$')::bigint) OVER (PARTITION BY regexp_replace(line, ',le=.*$', '') ORDER BY n) AS before
	FROM line WHERE line ~ '_bucket') x WHERE value < before;

SELECT event_queue.resume_queue('metrics2'), event_queue.drop_queue('metrics2', force => true), event_queue.drop_queue('metrics', force => true);
SELECT count(*) FROM event_queue.job_stats WHERE queue LIKE 'metrics%';

-- A clock that was set back: what was counted later than now is in no window, but in the total.
SELECT event_queue.create_queue('set back') IS NOT NULL AS created;
BEGIN;
SELECT event_queue_internal.write_sample('q', q.queue_id, '', clock_timestamp() + make_interval(mins => m), ARRAY[50, 0, 50, 0, 0, 0, 0, 0, 0, 0, 0, 0]::bigint[],
	event_queue_internal.histogram_of(ARRAY[(m + 3) * 1000000]), '', '') FROM event_queue.queue q, unnest('{-2,30}'::int[]) m WHERE q.name = 'set back';
SELECT enqueued_total, round((enqueued_per_s_1h * 3600)::numeric, -1) AS last_hour, round(wait_p99_1h) AS waited FROM event_queue.queue_stats WHERE queue = 'set back';
-- the next one is written as ever
SELECT event_queue_internal.write_sample('q', q.queue_id, '', clock_timestamp(), ARRAY[1]::bigint[], '', '', '') FROM event_queue.queue q WHERE q.name = 'set back';
ROLLBACK;
SELECT event_queue.drop_queue('set back');
