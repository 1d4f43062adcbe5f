-- What schedules do when jobs pile up, after a pause, at their start and end, and when told to.
SET timezone = 'UTC';
SELECT event_queue.create_queue('pol') IS NOT NULL AS created;
-- The scheduler's own call, so that nobody waits: it is due, in order.
CREATE FUNCTION run_it(schedule text, due timestamptz) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	before bigint := (SELECT coalesce(max(run_id), 0) FROM event_queue_internal.schedule_run);
BEGIN
	UPDATE event_queue.schedule s SET next_run = due WHERE s.name = schedule;
	PERFORM event_queue_internal.run_due_schedules();
	RETURN (SELECT count(job_id) || ' made, ' || count(*) FILTER (WHERE job_id IS NULL) || ' skipped'
		FROM event_queue_internal.schedule_run WHERE run_id > before);
END
$$;
CREATE FUNCTION make(overlap text) RETURNS void LANGUAGE sql AS $$
	SELECT event_queue.create_schedule('pol', '0 0 1 1 *', 'pol', 'x', overlap => $1, or_replace => true)
$$;
CREATE VIEW pol AS SELECT state, count(*), bool_or(cancel) AS cancel, count(DISTINCT group_key) AS groups FROM event_queue.jobs WHERE queue = 'pol' GROUP BY 1 ORDER BY 1;

SELECT make('allow');
SELECT run_it('pol', now()), run_it('pol', now());
TABLE pol;
SELECT make('skip');
SELECT run_it('pol', now());
SELECT event_queue.purge_queue('pol');
SELECT run_it('pol', now()), run_it('pol', now());
-- also while it runs; and what others enqueued does not count
SELECT count(*) FROM event_queue.claim('pol', 1);
SELECT run_it('pol', now());
SELECT make('queue_one');
SELECT run_it('pol', now()), run_it('pol', now());
CALL wait_until($$EXISTS (SELECT FROM event_queue.jobs WHERE queue = 'pol' AND state = 'ready')$$);
TABLE pol;
SELECT make('cancel');
SELECT run_it('pol', now());
TABLE pol;
SELECT count(event_queue.complete(job_id, lease_token)) FROM event_queue.job WHERE lease_token IS NOT NULL;
SELECT event_queue.purge_queue('pol');
SELECT make('queue_all');
SELECT run_it('pol', now()), run_it('pol', now()), run_it('pol', now());
-- one behind the other
CALL wait_until($$EXISTS (SELECT FROM event_queue.jobs WHERE queue = 'pol' AND state = 'ready')$$);
TABLE pol;
SELECT skipped > 0 AS counted, overlap FROM event_queue.schedules WHERE name = 'pol';
-- a group that is null is none
SELECT event_queue.create_schedule('null', '0 0 1 1 *', 'pol', 'null', overlap => 'queue_all', options => '{"group_key": null}') > 0 AS created;
SELECT run_it('null', now()), run_it('null', now());
SELECT count(*), count(DISTINCT group_key) AS groups FROM event_queue.jobs WHERE name = 'null' AND group_key IS NOT NULL;
SELECT event_queue.drop_schedule('null'), count(event_queue.cancel_job(job_id)) FROM event_queue.jobs WHERE name = 'null';
SELECT state, count(*) FROM event_queue.schedule_runs WHERE schedule = 'pol' GROUP BY 1 ORDER BY 1;
SELECT event_queue.purge_queue('pol');

-- After a pause: each time within the window, and those before are counted.
SELECT event_queue.create_schedule('pol', '@every 30d', 'pol', 'x', catch_up => '150 days', or_replace => true) IS NOT NULL AS replaced;
SELECT event_queue.pause_schedule('pol');
UPDATE event_queue.schedule SET next_run = event_queue.cron_next('@every 30d', 'UTC', now() - interval '300 days'), missed = 0, runs = 0 WHERE name = 'pol';
BEGIN;
SELECT event_queue.resume_schedule('pol');
SELECT event_queue_internal.run_due_schedules() > now() AS later;
COMMIT;
SELECT runs, missed, next_run > now() AS later FROM event_queue.schedule WHERE name = 'pol';
SELECT count(DISTINCT scheduled_for), max(scheduled_for) - min(scheduled_for) AS span, min(scheduled_for) > now() - interval '150 days 1 minute' AS within
FROM (SELECT (metadata ->> 'scheduled_for')::timestamptz AS scheduled_for FROM event_queue.jobs WHERE queue = 'pol') x;
-- without one: none for a pause, one for all that was missed
SELECT event_queue.purge_queue('pol');
SELECT event_queue.create_schedule('pol', '@every 30d', 'pol', 'x', or_replace => true) IS NOT NULL AS replaced;
SELECT event_queue.pause_schedule('pol');
UPDATE event_queue.schedule SET next_run = now() - interval '300 days' WHERE name = 'pol';
SELECT event_queue.resume_schedule('pol');
SELECT next_run > now() AS later FROM event_queue.schedules WHERE name = 'pol';
SELECT run_it('pol', now() - interval '300 days');

-- Start, end and excluded dates.
SELECT count(event_queue.create_schedule('p' || n, '0 12 * * *', 'pol', 'x', time_zone => 'America/Sao_Paulo', starts_at => '2100-12-23 15:00',
	ends_at => e, exclude => x)) FROM (VALUES (1, NULL::timestamptz, NULL::date[]), (2, NULL, '{2100-12-25,2100-12-23,2100-12-24}'),
	(3, '2100-12-25 12:00', '{2100-12-23,2100-12-24}')) v (n, e, x);
SELECT name, next_run, exclude FROM event_queue.schedules WHERE name ~ '^p[1-3]' ORDER BY name;
SELECT event_queue.drop_schedule('p' || n) FROM generate_series(1, 3) n;
-- CET is a zone that has summer time, and an abbreviation that has not: the date is that of the zone.
SELECT event_queue.create_schedule('cet', '30 * * * *', 'pol', 'x', time_zone => 'CET', starts_at => '2100-07-13 21:00+00', exclude => '{2100-07-14}') IS NOT NULL AS created;
SELECT event_queue_internal.next_time(s, t) AT TIME ZONE 'Europe/Brussels' AS next FROM event_queue.schedule s, unnest('{2100-07-13 21:00+00,2100-07-13 21:45+00,2100-07-14 21:45+00}'::timestamptz[]) t
WHERE s.name = 'cet';
SELECT event_queue.drop_schedule('cet');
-- Later, by at most so much.
SELECT event_queue.create_schedule('late', '@every 30d', 'pol', 'late', jitter => '1 hour', options => '{"delay": "1 day"}') IS NOT NULL AS created;
SELECT run_it('late', now());
SELECT run_at BETWEEN created_at + interval '1 day' AND created_at + interval '25 hours' AS later FROM event_queue.job WHERE name = 'late';
SELECT event_queue.drop_schedule('late');

-- By hand, also when it is paused.
SELECT event_queue.pause_schedule('pol'), event_queue.purge_queue('pol') > 0 AS purged;
SELECT event_queue.trigger_schedule('pol') IS NOT NULL AS made, event_queue.trigger_schedule('pol', 'skip') IS NULL AS skipped;
SELECT event_queue.backfill_schedule('pol', '2025-01-01', '2025-06-01');
SELECT event_queue.backfill_schedule('pol', '2025-01-02', '2025-06-01', 'skip');
CALL wait_until($$(SELECT count(*) = 2 FROM event_queue.jobs WHERE queue = 'pol' AND state = 'ready')$$);
SELECT state, count(*), min(metadata ->> 'scheduled_for') > '2027' AS now FROM event_queue.jobs WHERE queue = 'pol' GROUP BY state, metadata ->> 'scheduled_for' < '2026-01-02' ORDER BY 1, 3;
SELECT try(c) FROM unnest(ARRAY[
	$$SELECT event_queue.trigger_schedule('none')$$, $$SELECT event_queue.trigger_schedule('pol', 'no')$$,
	$$SELECT event_queue.backfill_schedule('pol', '2026-01-02', '2026-01-01')$$,
	$$SELECT event_queue.backfill_schedule('pol', '2026-01-02', now() + interval '1 day')$$,
	$$SELECT event_queue.backfill_schedule('pol', '-infinity', '2026-01-01')$$,
	$$SELECT event_queue.backfill_schedule('pol', '0001-01-01', '2026-01-01', 'skip')$$,
	$$SELECT event_queue.create_schedule('bad', '@daily', 'pol', 'x', overlap => 'maybe')$$,
	$$SELECT event_queue.create_schedule('bad', '@daily', 'pol', 'x', overlap => NULL)$$,
	$$SELECT event_queue.create_schedule('bad', '@daily', 'pol', 'x', to_jsonb(repeat('x', 2000000)))$$,
	$$SELECT event_queue.create_schedule('bad', NULL, 'pol', 'x')$$, $$SELECT event_queue.create_schedule('bad', '@daily', 'pol', 'x', time_zone => NULL)$$,
	$$SELECT event_queue.create_schedule('bad', '@daily', 'pol', 'x', catch_up => '1 second')$$,
	$$SELECT event_queue.create_schedule('bad', '@daily', 'pol', 'x', jitter => '-1 second')$$,
	$$SELECT event_queue.create_schedule('bad', '@daily', 'pol', 'x', starts_at => '2026-01-02', ends_at => '2026-01-01')$$,
	$$SELECT event_queue.create_schedule('bad', '@daily', 'pol', 'x', exclude => '{NULL}')$$,
	$$SELECT event_queue.create_schedule('bad', '@daily', 'pol', 'x', exclude => '{{2100-01-01},{2100-01-02}}')$$,
	$$SELECT event_queue.create_schedule('bad', '@daily', 'pol', 'x', exclude => '{{NULL},{2100-01-02}}')$$,
	$$SELECT event_queue.create_schedule('bad', '@daily', 'pol', 'x', starts_at => '4714-11-24 00:00:00+00 BC')$$,
	$$SELECT event_queue.backfill_schedule('pol', '4714-11-24 00:00:00+00 BC', '2026-01-01')$$]) c;
-- An earlier job counts also when it waits in a queue that the schedule had before.
SELECT event_queue.create_queue('pol2') IS NOT NULL AS created;
SELECT event_queue.purge_queue('pol') > 0 AS purged;
SELECT event_queue.create_schedule('pol', '0 0 1 1 *', 'pol', 'x', overlap => 'skip', or_replace => true) IS NOT NULL AS replaced;
SELECT event_queue.trigger_schedule('pol', 'skip') IS NOT NULL AS made;
SELECT event_queue.create_schedule('pol', '0 0 1 1 *', 'pol2', 'x', overlap => 'skip', or_replace => true) IS NOT NULL AS replaced;
SELECT event_queue.trigger_schedule('pol', 'skip') IS NULL AS skipped;
-- Runs whose jobs are gone go, the last 100 do not.
SELECT count(event_queue.trigger_schedule('pol')) FROM generate_series(1, 150);
SELECT event_queue.purge_queue('pol') + event_queue.purge_queue('pol2') AS purged;
SELECT count(event_queue.trigger_schedule('pol')) FROM generate_series(1, 60);
SELECT count(*) FROM event_queue.schedule_runs WHERE schedule = 'pol';
-- Some of those whose jobs wait are looked at, and stay.
SELECT count(event_queue.trigger_schedule('pol')) FROM generate_series(1, 200);
SELECT count(*) FROM event_queue.schedule_runs WHERE schedule = 'pol' AND state = 'waiting';
SELECT event_queue.drop_schedule('pol');
SELECT count(*) FROM event_queue_internal.schedule_run;
DROP VIEW pol;
DROP FUNCTION run_it, make;
SELECT event_queue.drop_queue('pol', force => true), event_queue.drop_queue('pol2', force => true);
