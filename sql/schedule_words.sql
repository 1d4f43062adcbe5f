-- Six fields, days that depend on the month, intervals; daylight saving of both kinds.
SET timezone = 'UTC';
SELECT cron, event_queue.cron_next(cron, 'UTC', t::timestamptz) AS next FROM (VALUES
	('* * * * * *', '2026-01-01 00:00:00.5'),
	('*/10 * * * * *', '2026-01-01 00:00:50'),
	('30 0 9 * * mon', '2026-01-01'),
	('59 59 23 31 12 *', '2026-12-31 23:59:59'),
	('@every 10s', '2026-01-01 00:00:03'),
	('@every 1h30m', '2026-01-01 00:00:00'),
	('@EVERY 2d', '1969-12-30 12:00'),
	('0 0 L * *', '2026-01-31 00:00'),		-- 28 February
	('0 0 L 2 *', '2027-03-01'),			-- 29 February
	('0 0 15W * *', '2026-08-01'),			-- a Saturday: Friday
	('0 0 15W * *', '2026-11-01'),			-- a Sunday: Monday
	('0 0 1W * *', '2026-08-01'),			-- a Saturday, stays in its month: the 3rd
	('0 0 31W * *', '2026-05-01'),			-- a Sunday at the end: Friday the 29th
	('0 0 31W * *', '2026-06-01'),			-- June has none
	('0 0 LW * *', '2026-02-01'),			-- 28 February is a Saturday
	('0 0 1,lw * *', '2026-02-02'),
	('0 0 * * mon#1', '2026-03-03'),
	('0 0 * * sat-sun', '2026-01-05'),
	('0 0 * * SAT-0', '2026-01-10'),
	('0 0 * * mon-sun/3', '2026-01-05'),	-- Monday, Thursday, Sunday
	('0 0 * * 0-0', '2026-01-05'),
	('0 0 * * 5#5', '2026-01-31'),
	('0 0 * * friL', '2026-02-01'),
	('0 0 * * 7#2', '2026-02-09'),
	('0 0 L * fri#1', '2026-02-07'),		-- either
	('0 0 30W 2 *', '2026-01-01')			-- never
) AS c (cron, t);
SELECT c, try(format('SELECT event_queue.cron_next(%L)', c))
FROM unnest('{"60 * * * * *", "* * * * * * *", "@every", "@every 0s", "@every 10", "@every 10x", "@every 99999999999999999999s", "@every 367d", "@everyday", "* * * * L",
	"* * * * fri-mon", "0 22-2 * * *", "0 0 * nov-feb *", "@reboot", "* * * * 5#mon", "1,,2 * * * *", "*/0 * * * *", "0 0 ? * mon",
	"* * 32W * *", "* * 0W * *", "* * W * *", "* * 15W/2 * *", "* * 1-5W * *", "* * * * mon#0", "* * * * mon#6", "* * * * mon#", "* * * * 8#1", "* L * * *", "* * * L *", "* * L-3 * *"}'::text[]) c;
-- A megabyte is refused without being read or shown.
SELECT try(format('SELECT event_queue.cron_next(%L)', repeat('* ', 500000)));
SELECT try(format('SELECT event_queue.create_schedule(%L, %L, %L, %L)', 'x', repeat('1,', 500000), 'x', 'x'));
SELECT length(try(format('SELECT event_queue.cron_next(%L, %L)', '@daily', repeat('Z', 1000000)))) < 500 AS short;
SELECT try($$SELECT event_queue.preview_schedule('@daily', 'Europe/Lisboa')$$), try($$SELECT event_queue.preview_schedule('@daily', n => 0)$$);
SELECT t FROM event_queue.preview_schedule('0 0 29 2 *', 'UTC', 3, '2026-01-01') t;
SELECT count(*) FROM event_queue.preview_schedule('0 0 30 2 *', 'UTC', 3) t;

-- The hour that is missing and the one that comes twice.
-- Lisbon: 2026-03-29 1:00 is 2:00; 2026-10-25 2:00 is 1:00 again.
-- Sao Paulo: 2018-11-04 0:00 was 1:00; 2019-02-17 0:00 was 2019-02-16 23:00 again; none since.
SELECT zone, cron, "from", string_agg(to_char(t AT TIME ZONE zone, 'DD HH24:MI:SS') || to_char(t, ' (HH24:MI)'), ', ' ORDER BY t) AS "local (UTC)"
FROM (VALUES
	('Europe/Lisbon', '30 1 * * *', '2026-03-28 12:00'),		-- named: when the clocks go forward
	('Europe/Lisbon', '15 30 1 * * *', '2026-03-28 12:00'),
	('Europe/Lisbon', '*/30 * * * *', '2026-03-29 00:15'),	-- interval: left out
	('Europe/Lisbon', '30 1 * * *', '2026-10-24 12:00'),		-- named: once, the first time
	('Europe/Lisbon', '15 30 1 * * *', '2026-10-24 12:00'),
	('Europe/Lisbon', '*/30 * * * *', '2026-10-25 00:00'),	-- interval: both times
	('Europe/Lisbon', '0 */20 1 * * *', '2026-10-25 00:10'),
	('America/Sao_Paulo', '0 0 * * *', '2018-11-03 12:00'),
	('America/Sao_Paulo', '10 30 0 * * *', '2018-11-03 12:00'),
	('America/Sao_Paulo', '*/30 * * * *', '2018-11-04 02:15'),
	('America/Sao_Paulo', '30 23 * * *', '2019-02-16 12:00'),
	('America/Sao_Paulo', '10 30 23 * * *', '2019-02-16 12:00'),
	('America/Sao_Paulo', '*/30 * * * *', '2019-02-17 00:45'),
	('America/Sao_Paulo', '0 30 * 16 2 *', '2019-02-17 00:45'),
	('America/Sao_Paulo', '0 0 * * *', '2026-11-03 12:00'),
	('America/Sao_Paulo', '@every 30m', '2019-02-17 01:15')
) AS c (zone, cron, "from"), event_queue.preview_schedule(cron, zone, 4, "from"::timestamptz) t
GROUP BY 1, 2, 3 ORDER BY 3, 1, 2;
-- Each second of a day with a doubled hour is there once, in order.
SELECT count(*), count(DISTINCT t), max(t) - min(t) AS took, bool_and(t - before = '1 second' OR before IS NULL) AS each_second
FROM (SELECT t, lag(t) OVER () AS before
	  FROM event_queue.preview_schedule('* * * * * *', 'America/Sao_Paulo', 9000, '2019-02-17 00:30') t) x;
