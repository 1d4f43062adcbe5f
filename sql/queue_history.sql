-- How queues were, and what alerts would have told: by samples that are put there as the
-- scheduler would have, in a transaction that it does not see.
SET timezone = 'UTC';
BEGIN;
SELECT event_queue.create_queue('tried', sla => '1 s', sla_target => 0.9) AS tried \gset
SELECT event_queue.create_queue('quiet') > 0 AS created;
-- the present minute's end, so that steps of a minute begin where they are expected
SELECT date_trunc('minute', now()) AS m \gset
INSERT INTO event_queue_internal.queue_gauge (queue_id, at, depth, dead, oldest_waiting)
SELECT :tried, :'m'::timestamptz - make_interval(mins => ago), depth, dead, oldest
FROM (VALUES (200, 3, 0, 1.5), (120, 10, 1, 30), (110, 8, 1, 2), (100, 2, 1, NULL), (95, 12, 1, 1), (94, 0, 0, NULL), (30, 20, 0, 4)) AS g (ago, depth, dead, oldest);
-- totals of: enqueued, claimed, completed, failed, released, stalled, dead, cancelled, late
INSERT INTO event_queue_internal.metric_sample
SELECT event_queue_internal.metric_day(x.at), x.at, 'q', :tried, '', x.totals, event_queue_internal.histogram_of(x.wait), event_queue_internal.histogram_of('{}'),
	event_queue_internal.histogram_of('{100000}')
FROM (SELECT :'m'::timestamptz - make_interval(mins => ago) AS at, totals, wait FROM (VALUES
	(100, '{100,100,90,0,0,0,0,0,0}'::bigint[], '{1000000}'::bigint[]),
	(60, '{120,120,100,10,0,0,0,0,0}', '{2000000,2000000,4000000}'),
	(59, '{140,140,102,30,0,0,2,0,1}', '{1000000}'),
	(2, '{150,150,112,30,0,0,2,0,1}', '{1000000}')) AS v (ago, totals, wait)) x;

CREATE FUNCTION ago(at timestamptz) RETURNS float8 LANGUAGE sql AS $$SELECT round(extract(epoch FROM date_trunc('minute', now()) - at) / 60, 2)::float8$$;
SELECT ago(h.at), enqueued, completed, failed, dead, late, depth, dead_letters, oldest_waiting, round(wait_p50::numeric, 1) AS wait_p50, round(run_p99::numeric, 1) AS run_p99
FROM event_queue.queue_history('tried', look_back => '140 minutes') h
WHERE ago(h.at) IN (121, 120, 119, 110, 101, 100, 95, 94, 93, 61, 60, 59, 31, 30, 3, 2, 1);
SELECT count(*), sum(enqueued) AS enqueued, sum(completed) AS completed, sum(failed) AS failed, sum(dead) AS dead, sum(late) AS late
FROM event_queue.queue_history('tried', look_back => '140 minutes') WHERE ago(at) BETWEEN 0 AND 138;
SELECT max(depth) AS deepest, sum(completed) AS completed, max(wait_p99) > 3.9 AS longest FROM event_queue.queue_history('tried', look_back => '1 day', step => '2 hours');
SELECT count(*) > 60 AS steps, sum(enqueued) AS enqueued, max(depth) AS depth FROM event_queue.queue_history('quiet');
SELECT max(depth) >= 20 AS together FROM event_queue.queue_history(look_back => '20 minutes');
-- what is older than a day is by the hour
SELECT count(*) > 0 AS deep FROM event_queue.queue_history('tried', look_back => '2 days', step => '1 hour') WHERE depth > 0;
SELECT try($$SELECT event_queue.queue_history('tried', step => '1 s')$$), try($$SELECT event_queue.queue_history('tried', look_back => '0')$$),
	try($$SELECT event_queue.queue_history('tried', look_back => NULL)$$), try($$SELECT event_queue.queue_history('tried', '2 days', '10 minutes')$$),
	try($$SELECT event_queue.queue_history('tried', '366 days', '1 hour')$$), try($$SELECT event_queue.queue_history('none')$$);

SELECT count(*) FROM (VALUES ('t deep', 'queue_depth', 9, 5, interval '0', interval '0'), ('t long', 'queue_depth', 5, NULL, '15 minutes', '0'), ('t calm', 'queue_depth', 9, 5, '0', '1 hour'),
	('t oldest', 'oldest_waiting', 20, 1, '0', '0'), ('t sla', 'sla', 3, NULL, '0', '0'), ('t dead', 'dead_letters', NULL, NULL, '0', '0'),
	('t new', 'new_dead_letters', NULL, NULL, '0', '0'), ('t rate', 'failure_rate', NULL, NULL, '0', '0'), ('t burn', 'slo_burn', 0.2, NULL, '0', '0'),
	('t slow', 'slo_burn_slow', 0.2, NULL, '0', '0')) AS v (name, kind, threshold, clear, pending, cool)
	WHERE event_queue.create_alert(v.name, v.kind, 'tried', v.threshold, v.clear, v.pending, v.cool);
SELECT d.name, t.key, ago(t.raised_at) AS raised, ago(t.resolved_at) AS resolved, round(t.peak::numeric, 2) AS peak
FROM event_queue.alert_definitions d, event_queue.test_alert(d.name, '5 hours') t WHERE d.name LIKE 't %' ORDER BY 1, 3 DESC;
-- another definition of the same
SELECT event_queue.alter_alert('t deep', threshold => 15);
SELECT ago(raised_at) AS raised, resolved_at FROM event_queue.test_alert('t deep');
SELECT event_queue.create_alert('t all', 'queue_depth', threshold => 15);
SELECT key, ago(raised_at) AS raised FROM event_queue.test_alert('t all') WHERE object IN ('tried', 'quiet');
SELECT count(*) AS told FROM event_queue.alert_history WHERE name LIKE 't %';
SELECT try($$SELECT event_queue.test_alert('none')$$), try($$SELECT event_queue.test_alert('health')$$), try($$SELECT event_queue.test_alert('t all', '-1 day')$$),
	try($$SELECT event_queue.test_alert('t all', NULL)$$), try($$SELECT event_queue.create_alert('t bad', 'slo_slow')$$);
-- a role that is bound to a tenant is told of nothing
CREATE ROLE eq_history;
SELECT event_queue.grant_observer('eq_history');
SET LOCAL ROLE eq_history;
SELECT count(*) > 0 AS an_observer_is FROM event_queue.queue_history('tried');
SELECT count(*) > 0 AS of_alerts_too FROM event_queue.test_alert('t all');
RESET ROLE;
SELECT event_queue.revoke_access('eq_history'), event_queue.grant_observer('eq_history', 'history a');
GRANT EXECUTE ON FUNCTION try TO PUBLIC;
SET LOCAL ROLE eq_history;
SELECT count(*) FROM event_queue.queue_history('tried');
SELECT try($$SELECT event_queue.test_alert('t all')$$);
RESET ROLE;

-- What the scheduler writes: while there are jobs, and when there are none any more; old minutes become hours.
SELECT event_queue.enqueue('tried', 'x') > 0 AS enqueued;
SELECT event_queue_internal.sample_queues();
INSERT INTO event_queue_internal.queue_gauge SELECT :tried, date_trunc('hour', now()) - interval '3 days' + make_interval(mins => n), n, n % 3, n / 2.0 FROM generate_series(1, 100) n;
INSERT INTO event_queue_internal.queue_gauge VALUES (:tried, now() - interval '400 days', 1, 1, 1), (2000000000, now() - interval '3 days', 1, 1, 1);
SELECT event_queue_internal.sample_queues();
SELECT at - date_trunc('hour', now()) AS at, depth, dead, oldest_waiting FROM event_queue_internal.queue_gauge WHERE at < now() - interval '2 days' ORDER BY 1;
ROLLBACK;
DROP FUNCTION IF EXISTS ago;
