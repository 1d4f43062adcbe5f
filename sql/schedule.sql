-- Jobs by the clock.
SET timezone = 'UTC';
SELECT cron, zone, event_queue.cron_next(cron, zone, t::timestamptz) AS next FROM (VALUES
	('* * * * *', 'UTC', '2026-01-01 00:00:00'),
	('*/15 * * * *', 'UTC', '2026-01-01 00:01:30'),
	('0 9 * * mon-fri', 'UTC', '2026-01-02 10:00'),		-- Friday: Monday
	('0 0 29 2 *', 'UTC', '2026-01-01'),				-- leap year
	('0 0 30 2 *', 'UTC', '2026-01-01'),				-- never
	('0 0 13 * 5', 'UTC', '2026-02-10'),				-- the 13th or a Friday
	('30 5 1,15 */3 *', 'UTC', '2026-01-16'),
	('5/20 * * * *', 'UTC', '2026-01-01 00:26'),
	('0 0 * * 7', 'UTC', '2026-01-01'),					-- 7 is Sunday
	('@monthly', 'UTC', '2026-01-31'),
	('@hourly', 'America/Sao_Paulo', '2026-01-31 10:30'),
	('0 9 * * *', 'America/Sao_Paulo', '2026-01-31 10:30'),
	('30 2 * * *', 'Europe/Berlin', '2026-03-28 12:00'),	-- skipped: at 3:00 local time
	('30 2 * * *', 'Europe/Berlin', '2026-03-29 12:00'),
	('30 2 * * *', 'Europe/Berlin', '2026-10-24 12:00'),	-- twice: the first
	('30 2 * * *', 'Europe/Berlin', '2026-10-25 00:30'),	-- and not the second
	('30 2 * * *', 'America/New_York', '2026-03-07 12:00'),
	('0 0 * * *', 'America/Sao_Paulo', '2018-11-03 12:00')	-- midnight skipped
) AS c (cron, zone, t);
SELECT c, try(format('SELECT event_queue.cron_next(%L)', c))
FROM unnest('{"", "* * * *", "* * * * * * *", "60 * * * *", "* 24 * * *", "* * 0 * *", "* * * foo *", "5-1 * * * *", "*/0 * * * *", "1,,2 * * * *", "@never"}'::text[]) c;
SELECT try($$SELECT event_queue.cron_next('* * * * *', 'Mars/Olympus')$$);

SELECT event_queue.create_queue('cron') IS NOT NULL AS created;
SELECT event_queue.create_schedule('yearly report', '0 0 1 1 *', 'cron', 'report', '{"a": 1}', 'America/Sao_Paulo', tenant_id => 'acme') IS NOT NULL AS created;
SELECT try($$SELECT event_queue.create_schedule('yearly report', '0 0 1 1 *', 'cron', 'report')$$);
SELECT try($$SELECT event_queue.create_schedule('x', '0 0 1 1', 'cron', 'report')$$);
SELECT try($$SELECT event_queue.create_schedule('x', '0 0 1 1 *', 'none', 'report')$$);
SELECT try($$SELECT event_queue.create_schedule('x', '0 0 30 2 *', 'cron', 'report')$$), try($$SELECT event_queue.create_schedule('x', '0 0 31 4,6 *', 'cron', 'report', or_replace => true)$$);
SELECT try($$SELECT event_queue.create_schedule('x', '0 0 1 1 *', 'cron', 'report', priority => 10)$$);
SELECT name, cron, time_zone, queue, job_name, payload, tenant_id, enabled, next_run > now() AS later, last_run FROM event_queue.schedules;
-- The scheduler runs what is due: once, however much was missed.
UPDATE event_queue.schedule SET next_run = now() - interval '3 years', cron = cron;
CALL wait_until($$(SELECT last_run IS NOT NULL FROM event_queue.schedule)$$);
SELECT name, tenant_id, payload, metadata ->> 'schedule' AS schedule FROM event_queue.jobs WHERE queue = 'cron';
SELECT next_run > now() AS later FROM event_queue.schedules;
SELECT event_queue.pause_schedule('yearly report');
SELECT enabled FROM event_queue.schedules;
SELECT try($$SELECT event_queue.pause_schedule('none')$$), try($$SELECT event_queue.drop_schedule('none')$$),
	try($$SELECT event_queue.drop_queue('cron', force => true)$$);
SELECT event_queue.drop_schedule('yearly report');
SELECT event_queue.drop_queue('cron', force => true);
