-- Calendars: working days and working hours.
SET timezone = 'UTC';
SELECT event_queue.create_calendar('cal', 'America/Sao_Paulo', '{"mon": ["09:00-12:00", "13:00-18:00"], "tue": ["09:00-12:00", "13:00-18:00"],
	"wed": ["09:00-12:00", "13:00-18:00"], "thu": ["09:00-12:00", "13:00-18:00"], "fri": ["09:00-12:00", "13:00-18:00"]}', '{2026-12-25}') > 0 AS created;
-- Friday to Tuesday, over a weekend; over Christmas; from a Saturday
SELECT a, t, event_queue.add_business_time('cal', t::timestamp AT TIME ZONE 'America/Sao_Paulo', a::interval) AT TIME ZONE 'America/Sao_Paulo' AS result
FROM (VALUES ('2 days', '2026-11-27 17:00'), ('1 day', '2026-12-24 10:00'), ('1 day', '2026-11-28 10:00'), ('0', '2026-11-28 10:00'),
	('2 hours', '2026-11-27 17:00'), ('8 hours', '2026-11-27 09:00'), ('1 second', '2026-11-27 18:00'), ('3 hours', '2026-11-27 09:00'),
	('3 hours 1 second', '2026-11-27 09:00'), ('1 hour', '2026-11-28 10:00'), ('1 day 2 hours', '2026-12-24 17:00'), ('40 hours', '2026-11-27 12:30'),
	('90 minutes', '2026-11-27 12:30')) x (a, t);
-- the seconds between, both ways
SELECT f, t, event_queue.business_seconds('cal', f::timestamp AT TIME ZONE 'America/Sao_Paulo', t::timestamp AT TIME ZONE 'America/Sao_Paulo') / 3600 AS hours
FROM (VALUES ('2026-11-27 17:00', '2026-11-30 10:00'), ('2026-11-30 10:00', '2026-11-27 17:00'), ('2026-11-28 00:00', '2026-11-29 00:00'),
	('2026-12-21 00:00', '2026-12-28 00:00'), ('2026-11-27 12:15', '2026-11-27 12:45')) x (f, t);
-- one is the other's opposite, wherever the result is within working time
SELECT count(*) FROM generate_series(0, 200) g
WHERE abs(event_queue.business_seconds('cal', '2026-11-27 10:00-03', event_queue.add_business_time('cal', '2026-11-27 10:00-03', make_interval(mins => g * 17))) - g * 17 * 60) > 0.001;
-- Daylight saving: the day has 23 or 25 hours, and work until midnight is an hour less or more.
SELECT event_queue.create_calendar('lisbon', 'Europe/Lisbon', '{"sun": ["00:00-24:00"]}') > 0 AS created;
SELECT d, event_queue.business_seconds('lisbon', (d || ' 00:00')::timestamp AT TIME ZONE 'Europe/Lisbon', (d::date + 1)::timestamp AT TIME ZONE 'Europe/Lisbon') / 3600 AS hours
FROM unnest('{2026-03-22,2026-03-29,2026-10-25}'::text[]) d;
SELECT event_queue.add_business_time('lisbon', '2026-03-28 12:00+00', '23 hours'), event_queue.add_business_time('lisbon', '2026-10-24 12:00+00', '25 hours');
-- midnight that was not there (Sao Paulo, 2018-11-04): the time of the day is the next one that is
SELECT event_queue.create_calendar('sp', 'America/Sao_Paulo', '{"sun": ["00:00-10:00"], "sat": ["00:00-10:00"]}') > 0 AS created;
SELECT event_queue.add_business_time('sp', '2018-11-03 00:30-03', '1 day') AT TIME ZONE 'America/Sao_Paulo' AS one_day,
	event_queue.business_seconds('sp', '2018-11-03 12:00-03', '2018-11-04 12:00-02') / 3600 AS hours;

-- an hour that was not there is no time of work
SELECT event_queue.create_calendar('gap', 'America/New_York', '{"sun": ["02:15-02:45", "02:50-04:00"], "mon": ["09:00-10:00"]}') > 0 AS created;
SELECT event_queue.business_seconds('gap', '2026-03-08 00:00-05', '2026-03-08 12:00-04') / 60 AS minutes,
	event_queue.add_business_time('gap', '2026-03-08 00:00-05', '20 minutes') AT TIME ZONE 'America/New_York' AS twenty_minutes;
-- hours that end, or begin, in it do not overlap those that follow (01:00 to 02:00, and 03:00 to 04:00)
SELECT event_queue.create_calendar('gap 2', 'America/New_York', '{"sun": ["01:00-02:30", "02:30-02:45", "03:00-04:00"]}') > 0 AS created;
SELECT event_queue.business_seconds('gap 2', '2026-03-08 00:00-05', '2026-03-08 12:00-04') / 60 AS minutes,
	event_queue.add_business_time('gap 2', '2026-03-08 00:00-05', '90 minutes') AT TIME ZONE 'America/New_York' AS ninety_minutes;
-- half an hour that comes twice, or is left out; a whole day that is left out (Friday, 2011-12-30)
SELECT event_queue.create_calendar('half', 'Australia/Lord_Howe', '{"sun": ["00:00-24:00"]}') > 0 AS created;
SELECT event_queue.business_seconds('half', '2026-04-04 00:00+00', '2026-04-06 00:00+00') / 3600 AS more, event_queue.business_seconds('half', '2026-10-03 00:00+00', '2026-10-05 00:00+00') / 3600 AS less;
SELECT event_queue.create_calendar('apia', 'Pacific/Apia') > 0 AS created;
SELECT event_queue.business_seconds('apia', '2011-12-29 00:00-10', '2012-01-03 00:00+14') / 3600 AS hours,
	event_queue.add_business_time('apia', '2011-12-29 10:00-10', '1 day') AT TIME ZONE 'Pacific/Apia' AS one_day,
	event_queue.add_business_time('apia', '2011-12-29 10:00-10', '9 hours') AT TIME ZONE 'Pacific/Apia' AS nine_hours;
-- zones in which the year begins first, and last
SELECT z, try(format('SELECT event_queue.create_calendar(%L, %L)', z, z)) FROM unnest('{Pacific/Auckland,Pacific/Fiji,Pacific/Kiritimati,Etc/GMT+12}'::text[]) z;

-- Holidays.
SELECT event_queue.add_holidays('cal', '{2026-11-30,2026-12-25,2026-11-30}'), event_queue.remove_holidays('cal', '{2026-12-25,2020-01-01}');
SELECT holidays FROM event_queue.calendar WHERE name = 'cal';
SELECT event_queue.add_business_time('cal', '2026-11-27 17:00-03', '1 day') AT TIME ZONE 'America/Sao_Paulo' AS result;

-- A deployment may run twice.
SELECT event_queue.create_calendar('sp', 'UTC');
SELECT event_queue.create_calendar('sp', 'UTC', if_not_exists => true) > 0 AS there;
SELECT event_queue.create_calendar('sp', 'UTC', or_replace => true) > 0 AS replaced;
SELECT time_zone, hours -> 'mon' AS mon, holidays FROM event_queue.calendar WHERE name = 'sp';
SELECT event_queue.create_calendar('sp', 'UTC', or_replace => true) > 0 AS replaced;
SELECT count(*) FROM event_queue.audit_log WHERE object_type = 'calendar' AND object = 'sp';

-- Bad input.
SELECT h, try(format('SELECT event_queue.create_calendar(''bad'', ''UTC'', %L)', h)) FROM unnest(ARRAY['[]', '{}', '{"mon": []}', '{"mon": "09:00-10:00"}',
	'{"monday": ["09:00-10:00"]}', '{"mon": ["9:00-10:00"]}', '{"mon": ["10:00-09:00"]}', '{"mon": ["09:00-09:00"]}', '{"mon": ["09:00-12:00", "11:00-13:00"]}',
	'{"mon": ["25:00-26:00"]}', '{"mon": [1]}', '{"mon": [null]}', '{"mon": null}', 'null', NULL]) h;
SELECT try($$SELECT event_queue.create_calendar('bad', 'No/Where')$$), left(try($$SELECT event_queue.create_calendar('bad', 'CET')$$), 5), try($$SELECT event_queue.create_calendar('', 'UTC')$$),
	try($$SELECT event_queue.create_calendar('bad', 'UTC', holidays => '{infinity}')$$), try($$SELECT event_queue.create_calendar('bad', 'UTC', holidays => '{{2026-01-01,2026-01-02}}')$$),
	try($$SELECT event_queue.create_calendar('bad', 'UTC', holidays => NULL)$$), try($$SELECT event_queue.create_calendar('bad', 'UTC', holidays => '{NULL}')$$),
	try($$SELECT event_queue.create_calendar('bad', NULL)$$), try($$SELECT event_queue.create_calendar(NULL, 'UTC')$$);
SELECT a, try(format('SELECT event_queue.add_business_time(''cal'', now(), %L)', a)) FROM unnest(ARRAY['-1 day', '1 month', '3661 days', '100000 hours', '1 day -1 hour', NULL]) a;
SELECT t, try(format('SELECT event_queue.add_business_time(''cal'', %L, ''1 day'')', t)) FROM unnest(ARRAY['infinity', '-infinity', '1800-01-01', '20000-01-01', NULL]) t;
SELECT try($$SELECT event_queue.add_business_time('none', now(), '1 day')$$), try($$SELECT event_queue.add_business_time(NULL, now(), '1 day')$$),
	try($$SELECT event_queue.business_seconds('cal', '1990-01-01', '2200-01-01')$$), try($$SELECT event_queue.business_seconds('cal', NULL, '2200-01-01')$$),
	try($$SELECT event_queue.add_holidays('cal', NULL)$$), try($$SELECT event_queue.add_holidays('none', '{}')$$), try($$SELECT event_queue.add_holidays('cal', '{{2026-01-01,2026-01-02}}')$$), try($$SELECT event_queue.drop_calendar('none')$$);
-- no day of work for a hundred years
SELECT event_queue.create_calendar('free', 'UTC', '{"mon": ["09:00-10:00"]}', ARRAY(SELECT d::date FROM generate_series('2026-11-30'::date, '2127-12-31', '7 days') d)) > 0 AS created;
SELECT try($$SELECT event_queue.add_business_time('free', '2026-11-27 00:00+00', '1 day')$$), try($$SELECT event_queue.add_business_time('free', '2026-11-27 00:00+00', '1 hour')$$);

-- Much of it is counted by years, to the same result.
SELECT event_queue.create_calendar('one hour', 'America/Sao_Paulo', '{"mon": ["09:00-10:00"]}', '{2026-01-05}') > 0 AS created;
SELECT event_queue.add_business_time('one hour', '2026-01-01 00:00+00', '3660 days') AT TIME ZONE 'UTC' AS days,
	event_queue.add_business_time('one hour', '2026-01-01 00:00+00', '367 days') AT TIME ZONE 'UTC' AS fewer;
SELECT n AS hours, event_queue.business_seconds(c.name, t, event_queue.add_business_time(c.name, t, make_interval(hours => n))) / 3600 AS passed
FROM event_queue.calendar c, unnest('{100,101,366,5000}'::int[]) n, (VALUES ('2026-01-02 12:30+00'::timestamptz)) v (t) WHERE c.name = 'one hour' ORDER BY 1;

-- Brazil's holidays
\i examples/erp/holidays_br.sql
SELECT y, easter(y) FROM unnest('{1961,2000,2024,2026,2027,2038,2076}'::int[]) y;
SELECT * FROM holidays_br(2026);
DROP FUNCTION holidays_br(int), easter(int);

-- Whoever enqueues may reckon with it, and changes nothing.
CREATE ROLE cal_a;
SELECT event_queue.grant_producer('cal_a', 'cal a');
SET ROLE cal_a;
SELECT event_queue.add_business_time('cal', '2026-11-27 12:00-03', '1 hour') AT TIME ZONE 'America/Sao_Paulo' AS result;
SELECT try($$SELECT event_queue.create_calendar('mine', 'UTC')$$), try($$SELECT event_queue.drop_calendar('cal')$$), try($$SELECT event_queue.add_holidays('cal', '{}')$$);
RESET ROLE;
SELECT event_queue.revoke_access('cal_a');
DROP ROLE cal_a;
SELECT count(event_queue.drop_calendar(name)) FROM event_queue.calendar;
