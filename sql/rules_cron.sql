-- Cron where clocks and calendars are odd.  What is due in an interval, in the
-- zone's own time and in UTC:
SET timezone = 'UTC';
CREATE FUNCTION due(cron text, zone text, "from" timestamptz, n int) RETURNS TABLE (local timestamp, utc timestamptz)
LANGUAGE sql AS $$
	WITH RECURSIVE run (i, at) AS (
		SELECT 1, event_queue.cron_next(cron, zone, "from")
		UNION ALL SELECT i + 1, event_queue.cron_next(cron, zone, at) FROM run WHERE i < n AND at IS NOT NULL
	) SELECT at AT TIME ZONE zone, at FROM run
$$;
-- A doubled hour has eight quarters, and an hourly job runs each hour.
SELECT * FROM due('*/15 * * * *', 'Europe/Berlin', '2026-10-24 23:40Z', 11);
SELECT * FROM due('*/15 2 * * *', 'Europe/Berlin', '2026-10-24 23:40Z', 9);
SELECT * FROM due('30 * * * *', 'America/New_York', '2026-11-01 04:00Z', 4);
SELECT * FROM due('@hourly', 'America/New_York', '2026-11-01 04:30Z', 4);
-- A time that is named runs once, the first time; so does a list of them.
SELECT * FROM due('30 2 * * *', 'Europe/Berlin', '2026-10-24 12:00Z', 2);
SELECT * FROM due('0,30 2 * * *', 'Europe/Berlin', '2026-10-24 12:00Z', 3);
-- The missing hour: what names it runs when the clocks go forward, once; what runs each hour goes on.
SELECT * FROM due('30 2 * * *', 'Europe/Berlin', '2026-03-28 12:00Z', 2);
SELECT * FROM due('0,30 2,3 * * *', 'Europe/Berlin', '2026-03-28 12:00Z', 3);
SELECT * FROM due('*/20 2 * * *', 'Europe/Berlin', '2026-03-28 12:00Z', 2);
SELECT * FROM due('7 * * * *', 'Europe/Berlin', '2026-03-29 00:00Z', 3);
SELECT * FROM due('*/15 * * * *', 'Europe/Berlin', '2026-03-29 00:40Z', 3);
SELECT * FROM due('0 */2 * * *', 'Europe/Berlin', '2026-03-28 22:30Z', 3);
-- Clocks that are set back or on at midnight, by half an hour, by a whole day.
SELECT * FROM due('*/30 * * * *', 'America/Sao_Paulo', '2018-02-18 00:40Z', 6);
SELECT * FROM due('0 0 * * *', 'America/Sao_Paulo', '2018-11-03 12:00Z', 2);
SELECT * FROM due('*/20 * * * *', 'America/St_Johns', '2008-11-02 02:00Z', 6);
SELECT * FROM due('*/15 * * * *', 'Australia/Lord_Howe', '2026-04-04 14:20Z', 8);
SELECT * FROM due('15 2 * * *', 'Australia/Lord_Howe', '2026-10-03 00:00Z', 2);
SELECT * FROM due('0 12 * * *', 'Pacific/Apia', '2011-12-29 12:00Z', 3);
-- The next 29 February, whatever the century, and with a day of the week, too.
SELECT * FROM due('0 0 29 2 *', 'UTC', '2092-03-01', 3);
SELECT * FROM due('0 0 29 2 *', 'America/Sao_Paulo', '2196-03-01', 1);
SELECT * FROM due('0 0 29 2 */6', 'UTC', '2090-01-01', 3);
SELECT * FROM due('0 0 30 2 *', 'UTC', '2026-01-01', 1);
-- The end of time is no error.
SELECT * FROM due('0 0 1 1 *', 'UTC', '294276-06-01', 1);
SELECT * FROM due('* * * * *', 'UTC', 'infinity', 1);
-- Against a walk over each minute of two years, in zones of all kinds: every moment
-- whose local time matches, for what runs by interval.
SELECT zone, cron, count(*) FILTER (WHERE next IS DISTINCT FROM expected) AS wrong, count(*) > 100 AS many
FROM (
	SELECT zone, cron, event_queue.cron_next(cron, zone, at) AS next, lead(at) OVER (PARTITION BY zone, cron ORDER BY at) AS expected
	FROM unnest('{Europe/Berlin,America/New_York,America/Sao_Paulo,Australia/Lord_Howe,Asia/Kolkata,America/St_Johns}'::text[]) zone,
		(VALUES ('*/15 * * * *', 15, NULL), ('10 */3 * * *', 60, 3)) AS c (cron, step, hours),
		generate_series('2007-01-01'::timestamptz, '2008-12-31', '5 minutes') at
	WHERE CASE WHEN hours IS NULL THEN extract(minute FROM at AT TIME ZONE zone)::int % step = 0
		ELSE extract(minute FROM at AT TIME ZONE zone)::int = 10 AND extract(hour FROM at AT TIME ZONE zone)::int % hours = 0 END
) s WHERE expected IS NOT NULL GROUP BY zone, cron ORDER BY zone, cron;
DROP FUNCTION due;
