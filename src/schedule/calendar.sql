/*
 * calendar.sql: working days and working hours, for "within two business days".
 *
 * A calendar has a time zone, hours for each weekday, and holidays.  It belongs to no
 * tenant, like queues; admins create it, and delays of jobs are computed with it.
 */

/* Are these valid hours?  {"mon": ["09:00-12:00", "13:00-18:00"], ...}, in order, not overlapping. */
CREATE FUNCTION event_queue_internal.are_hours(hours jsonb) RETURNS boolean
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, event_queue, pg_temp AS $$
DECLARE
	of_day record;
	span text;
	before text;
	spans int := 0;
BEGIN
	IF jsonb_typeof(hours) IS DISTINCT FROM 'object' THEN
		RETURN false;
	END IF;
	FOR of_day IN SELECT * FROM jsonb_each(hours) LOOP
		IF of_day.key NOT IN ('mon', 'tue', 'wed', 'thu', 'fri', 'sat', 'sun') OR jsonb_typeof(of_day.value) <> 'array'
			OR jsonb_array_length(of_day.value) > 24 OR jsonb_path_exists(of_day.value, 'strict $[*] ? (@.type() <> "string")') THEN
			RETURN false;
		END IF;
		before := '';
		FOR span IN SELECT jsonb_array_elements_text(of_day.value) LOOP
			-- all of the same form, so that they compare as texts
			IF span !~ '^([01][0-9]|2[0-3]):[0-5][0-9]-(([01][0-9]|2[0-3]):[0-5][0-9]|24:00)$' OR left(span, 5) COLLATE "C" >= right(span, 5)
				OR left(span, 5) COLLATE "C" < before THEN
				RETURN false;
			END IF;
			before := right(span, 5);
			spans := spans + 1;
		END LOOP;
	END LOOP;
	RETURN spans > 0;
END
$$;
COMMENT ON FUNCTION event_queue_internal.are_hours(jsonb) IS 'Internal. Is this what a calendar''s hours may be?';

/* Are these valid holidays? */
CREATE FUNCTION event_queue_internal.are_holidays(holidays date[]) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, event_queue, pg_temp AS $$
	SELECT holidays IS NOT NULL AND coalesce(array_ndims(holidays), 1) = 1 AND cardinality(holidays) <= 10000
		AND NOT EXISTS (SELECT FROM unnest(holidays) d WHERE d IS NULL OR NOT isfinite(d))
$$;
COMMENT ON FUNCTION event_queue_internal.are_holidays(date[]) IS 'Internal. Is this what a calendar''s holidays may be?';

CREATE TABLE calendar (
	calendar_id	int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	name		text NOT NULL CONSTRAINT calendar_name_key UNIQUE,
	time_zone	text NOT NULL,
	hours		jsonb NOT NULL CONSTRAINT calendar_hours CHECK (event_queue_internal.are_hours(hours)),
	holidays	date[] NOT NULL DEFAULT '{}' CONSTRAINT calendar_holidays CHECK (event_queue_internal.are_holidays(holidays)),
	created_at	timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE calendar IS 'Working hours and holidays; written by create_calendar and its kin.';
COMMENT ON COLUMN calendar.hours IS 'For each weekday from mon to sun the hours of work, as 09:00-12:00; a day that is not there is free.';
COMMENT ON COLUMN calendar.holidays IS 'Days without work.';
SELECT pg_catalog.pg_extension_config_dump('calendar', '');
SELECT pg_catalog.pg_extension_config_dump('calendar_calendar_id_seq', '');

/*
 * create_calendar: makes a calendar of working hours.
 *
 * Arguments: hours: for each weekday (mon, tue, wed, thu, fri, sat, sun) an array of hours as
 * "09:00-12:00", in order; a day without any is free.  Where the clocks change, a time that is
 * skipped is no working time, and one that comes twice counts twice.  holidays: days without
 * work, at most 10,000.
 * or_replace: a calendar of this name gets these; if_not_exists: it stays as it is, with a NOTICE
 * if it is another.
 * Result: the calendar's number.
 * Errors: EQ006 name, EQ009 both or_replace and if_not_exists, EQ018 the calendar exists, EQ031 no such time
 * zone, EQ058 hours or holidays.
 * Example:
 *	SELECT event_queue.create_calendar('br', 'America/Sao_Paulo', holidays => '{2026-12-25,2027-01-01}', or_replace => true);
 */
CREATE FUNCTION create_calendar(
	name text, time_zone text,
	hours jsonb DEFAULT '{"mon": ["09:00-18:00"], "tue": ["09:00-18:00"], "wed": ["09:00-18:00"], "thu": ["09:00-18:00"], "fri": ["09:00-18:00"]}',
	holidays date[] DEFAULT '{}', or_replace boolean DEFAULT false, if_not_exists boolean DEFAULT false)
RETURNS int
LANGUAGE plpgsql SET search_path = pg_catalog, event_queue, pg_temp AS $$
#variable_conflict use_variable
DECLARE
	new_id int;
	same boolean;
BEGIN
	PERFORM event_queue_internal.check_create_mode(or_replace, if_not_exists);
	PERFORM event_queue_internal.check_name('calendar name', name);
	PERFORM event_queue.cron_next('@daily', coalesce(time_zone, ''));
	-- AT TIME ZONE takes CET and its like for a fixed offset, not for the zone of that name; from
	-- 31 December on, as noon of 1 January is still that day in UTC in zones far in the east
	IF EXISTS (SELECT FROM unnest(ARRAY[1, 7]) m
		WHERE event_queue.cron_next(format('0 12 1 %s *', m), time_zone, '2025-12-31 00:00+00') IS DISTINCT FROM make_timestamp(2026, m, 1, 12, 0, 0) AT TIME ZONE time_zone) THEN
		RAISE EXCEPTION USING ERRCODE = 'EQ031', MESSAGE = format('time zone "%s" is also an abbreviation, without daylight saving time', time_zone),
			HINT = 'Give a time zone by region and city, such as Europe/Lisbon.';
	END IF;
	IF NOT event_queue_internal.are_hours(hours) THEN
		RAISE EXCEPTION USING ERRCODE = 'EQ058', MESSAGE = format('invalid hours for calendar "%s"', name),
			DETAIL = 'For each weekday, mon to sun, an array of hours that are in order and do not overlap; one at least.',
			HINT = 'Such as {"mon": ["09:00-12:00", "13:00-18:00"], "sat": ["09:00-12:00"]}.';
	ELSIF NOT event_queue_internal.are_holidays(holidays) THEN
		RAISE EXCEPTION USING ERRCODE = 'EQ058', MESSAGE = 'holidays must be an array of at most 10,000 days';
	END IF;
	INSERT INTO event_queue.calendar AS c (name, time_zone, hours, holidays) VALUES (name, time_zone, hours, holidays)
	ON CONFLICT ON CONSTRAINT calendar_name_key DO NOTHING RETURNING c.calendar_id INTO new_id;
	IF new_id IS NOT NULL THEN
		RETURN new_id;
	END IF;
	SELECT c.calendar_id, (c.time_zone, c.hours, c.holidays) IS NOT DISTINCT FROM (time_zone, hours, holidays) INTO new_id, same
	FROM event_queue.calendar c WHERE c.name = create_calendar.name FOR UPDATE;
	IF NOT FOUND OR (or_replace OR if_not_exists) IS NOT TRUE THEN
		RAISE EXCEPTION USING ERRCODE = 'EQ018', MESSAGE = format('calendar "%s" already exists', name),
			HINT = 'or_replace => true replaces it; if_not_exists => true leaves it.';
	END IF;
	IF NOT same AND or_replace THEN
		UPDATE event_queue.calendar c SET time_zone = create_calendar.time_zone, hours = create_calendar.hours,
			holidays = create_calendar.holidays WHERE c.calendar_id = new_id;
		PERFORM event_queue_internal.holidays_changed(name);
	ELSIF NOT same THEN
		PERFORM event_queue_internal.notice_other_definition('calendar', name);
	END IF;
	RETURN new_id;
END
$$;
COMMENT ON FUNCTION create_calendar(text, text, jsonb, date[], boolean, boolean) IS
'Makes a calendar: a time zone, working hours for each weekday, and holidays; for add_business_time.';

/*
 * drop_calendar: removes a calendar. Times that were computed with it stay; rollback_rule to a
 * version that names it is then EQ025.
 * Errors: EQ013 a rule, a draft of one or a schedule uses it, EQ025 no such calendar.
 * Example:
 *	SELECT event_queue.drop_calendar('br');
 */
CREATE FUNCTION drop_calendar(name text) RETURNS boolean
LANGUAGE plpgsql SET search_path = pg_catalog, event_queue, pg_temp AS $$
#variable_conflict use_column
DECLARE
	used_by text;
BEGIN
	PERFORM FROM event_queue.calendar c WHERE c.name = $1 FOR UPDATE;	-- waits for schedules that are being made
	SELECT what INTO used_by FROM (
		SELECT format('rule "%s" reckons with it', r.name) FROM event_queue.rule r WHERE r.options ->> 'calendar' = $1
			OR jsonb_path_exists(r.actions, '$[*].*.calendar ? (@ == $name)', jsonb_build_object('name', $1))
		UNION ALL
		SELECT format('draft %s of rule "%s" reckons with it', v.version, v.rule) FROM event_queue_internal.rule_version v
		WHERE v.draft AND v.ended_at IS NULL AND (v.definition #>> '{options,calendar}' = $1
			OR jsonb_path_exists(v.definition -> 'actions', '$[*].*.calendar ? (@ == $name)', jsonb_build_object('name', $1)))
		UNION ALL
		SELECT format('schedule "%s" reckons with it', s.name) FROM event_queue.schedule s
		WHERE s.exclude_calendar = $1 OR s.options ->> 'calendar' = $1) AS uses(what) LIMIT 1;
	IF used_by IS NOT NULL THEN
		RAISE EXCEPTION USING ERRCODE = 'EQ013', MESSAGE = format('calendar "%s" is in use', $1), DETAIL = format('Cause: %s.', used_by),
			HINT = 'Drop rules, drafts and schedules first, or create_calendar with or_replace.';
	END IF;
	DELETE FROM event_queue.calendar c WHERE c.name = $1;
	IF NOT FOUND THEN
		RAISE EXCEPTION USING ERRCODE = 'EQ025', MESSAGE = format('calendar "%s" does not exist', $1);
	END IF;
	RETURN true;
END
$$;
COMMENT ON FUNCTION drop_calendar(text) IS 'Removes a calendar that no rule, no draft and no schedule uses. EQ025 if there is none of this name.';

/*
 * holidays_changed: computes the next runs of schedules anew that exclude the holidays of this calendar.  One
 * whose cron or zone can't be read any more keeps its time, at which run_due_schedules tells of it.
 */
CREATE FUNCTION event_queue_internal.holidays_changed(calendar text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, event_queue, pg_temp AS $$
DECLARE
	s event_queue.schedule;
BEGIN
	-- what is due already keeps its time
	FOR s IN SELECT * FROM event_queue.schedule x
		WHERE x.exclude_calendar = $1 AND (x.next_run <= clock_timestamp()) IS NOT TRUE ORDER BY x.schedule_id FOR NO KEY UPDATE LOOP
		BEGIN
			-- cron: so that the scheduler hears of it
			UPDATE event_queue.schedule x SET cron = x.cron, next_run = event_queue_internal.next_time(s, clock_timestamp())
			WHERE x.schedule_id = s.schedule_id;
		EXCEPTION WHEN SQLSTATE 'EQ030' OR SQLSTATE 'EQ031' THEN
			NULL;
		END;
	END LOOP;
END
$$;
COMMENT ON FUNCTION event_queue_internal.holidays_changed(text) IS 'Internal. New next runs for the schedules that do not run on the holidays of a calendar.';

/* Sets the holidays of a calendar; returns how many were added or removed. */
CREATE FUNCTION event_queue_internal.change_holidays(calendar text, added date[], removed date[]) RETURNS bigint
LANGUAGE plpgsql SET search_path = pg_catalog, event_queue, pg_temp AS $$
#variable_conflict use_variable
DECLARE
	was date[];
	now_are date[];
BEGIN
	SELECT c.holidays INTO was FROM event_queue.calendar c WHERE c.name = calendar FOR UPDATE;
	IF NOT FOUND THEN
		RAISE EXCEPTION USING ERRCODE = 'EQ025', MESSAGE = format('calendar "%s" does not exist', calendar);
	END IF;
	now_are := ARRAY(SELECT d FROM (SELECT unnest(was) UNION SELECT unnest(added)) x (d) EXCEPT SELECT d FROM unnest(removed) d ORDER BY 1);
	IF NOT event_queue_internal.are_holidays(added) OR NOT event_queue_internal.are_holidays(removed) OR NOT event_queue_internal.are_holidays(now_are) THEN
		RAISE EXCEPTION USING ERRCODE = 'EQ058', MESSAGE = 'holidays must be an array of at most 10,000 days';
	END IF;
	IF now_are IS DISTINCT FROM was THEN
		UPDATE event_queue.calendar c SET holidays = now_are WHERE c.name = calendar;
		PERFORM event_queue_internal.holidays_changed(calendar);
	END IF;
	RETURN abs(cardinality(now_are) - cardinality(was));
END
$$;
COMMENT ON FUNCTION event_queue_internal.change_holidays(text, date[], date[]) IS 'Internal. Adds and removes holidays of a calendar.';

/*
 * add_holidays: adds days without work to a calendar; days that it has already are ignored.
 * Result: how many are new. Errors: EQ025 no such calendar, EQ058 days.
 * Example:
 *	SELECT event_queue.create_calendar('br', 'America/Sao_Paulo', if_not_exists => true);
 *	SELECT event_queue.add_holidays('br', '{2027-02-08,2027-02-09}');
 */
CREATE FUNCTION add_holidays(calendar text, days date[]) RETURNS bigint
LANGUAGE sql SET search_path = pg_catalog, event_queue, pg_temp AS $$
	SELECT event_queue_internal.change_holidays($1, $2, '{}')
$$;
COMMENT ON FUNCTION add_holidays(text, date[]) IS 'Adds holidays to a calendar; returns how many are new.';

/*
 * remove_holidays: removes days without work from a calendar.
 * Result: how many there were. Errors: as add_holidays.
 * Example:
 *	SELECT event_queue.remove_holidays('br', '{2027-02-08}');
 */
CREATE FUNCTION remove_holidays(calendar text, days date[]) RETURNS bigint
LANGUAGE sql SET search_path = pg_catalog, event_queue, pg_temp AS $$
	SELECT event_queue_internal.change_holidays($1, '{}', $2)
$$;
COMMENT ON FUNCTION remove_holidays(text, date[]) IS 'Removes holidays from a calendar; returns how many there were.';

/* The working hours of a day; not those that fall into an hour that the clocks leave out. */
CREATE FUNCTION event_queue_internal.working_hours(calendar event_queue.calendar, day date, OUT starts_at timestamptz, OUT ends_at timestamptz)
RETURNS SETOF record
LANGUAGE sql STABLE PARALLEL SAFE SET search_path = pg_catalog, event_queue, pg_temp AS $$
	SELECT t.starts_at, t.ends_at
	FROM jsonb_array_elements_text(calendar.hours -> (ARRAY['mon', 'tue', 'wed', 'thu', 'fri', 'sat', 'sun'])[extract(isodow FROM day)::int])
		WITH ORDINALITY AS x (h, n),
		LATERAL (SELECT event_queue_internal.local_moment(day + left(h, 5)::time, calendar.time_zone),
			event_queue_internal.local_moment(day + right(h, 5)::time, calendar.time_zone)) t (starts_at, ends_at)
	WHERE day <> ALL (calendar.holidays) AND t.starts_at < t.ends_at ORDER BY n
$$;
COMMENT ON FUNCTION event_queue_internal.working_hours(event_queue.calendar, date) IS 'Internal. The working hours of a day.';

/* Returns the calendar of this name; checks that times are within the range that it computes. */
CREATE FUNCTION event_queue_internal.calendar_for(name text, VARIADIC times timestamptz[]) RETURNS event_queue.calendar
LANGUAGE plpgsql STABLE PARALLEL SAFE SET search_path = pg_catalog, event_queue, pg_temp AS $$
#variable_conflict use_column
DECLARE
	found_one event_queue.calendar;
BEGIN
	SELECT * INTO found_one FROM event_queue.calendar c WHERE c.name = $1;
	IF NOT FOUND THEN
		RAISE EXCEPTION USING ERRCODE = 'EQ025', MESSAGE = format('calendar "%s" does not exist', $1),
			HINT = 'See the table event_queue.calendar.';
	ELSIF EXISTS (SELECT FROM unnest(times) t WHERE (t BETWEEN '1900-01-01 00:00+00' AND '9000-01-01 00:00+00') IS NOT TRUE) THEN
		RAISE EXCEPTION USING ERRCODE = 'EQ009', MESSAGE = 'a time must be given, from 1900 to 9000';
	END IF;
	RETURN found_one;
END
$$;
COMMENT ON FUNCTION event_queue_internal.calendar_for(text, timestamptz[]) IS 'Internal. The calendar of this name, for times that can be reckoned with.';

/*
 * add_business_time: the time at which so much working time will have passed.
 *
 * Arguments: amount: days are working days, and keep the time of the day; hours, minutes and
 * seconds are working hours, and are added after the days. At most 3,660 days and 87,840 hours.
 * So '2 days' after Friday 17:00 is Tuesday 17:00, and '2 hours' after it, in a calendar until
 * 18:00, Monday 10:00.
 * Errors: EQ009 a NULL or a time out of range, EQ025 no such calendar, EQ058 amount; or the
 * calendar has no working time for 100 years.
 * Example:
 *	SELECT event_queue.add_business_time('br', '2026-11-27 17:00-03', '2 days');
 */
CREATE FUNCTION add_business_time(calendar text, from_time timestamptz, amount interval) RETURNS timestamptz
LANGUAGE plpgsql STABLE PARALLEL SAFE SET search_path = pg_catalog, event_queue, pg_temp AS $$
#variable_conflict use_variable
DECLARE
	cal event_queue.calendar := event_queue_internal.calendar_for(calendar, from_time);
	result timestamptz := from_time;
	day date := (from_time AT TIME ZONE cal.time_zone)::date;
	last_day date := day + 36600;
	days int := CASE WHEN isfinite(amount) THEN extract(day FROM amount) ELSE -1 END;
	seconds float8;
	span record;
	worked float8;
BEGIN
	IF amount IS NULL THEN
		RAISE EXCEPTION USING ERRCODE = 'EQ009', MESSAGE = 'amount must not be null';
	ELSIF extract(year FROM amount) <> 0 OR extract(month FROM amount) <> 0 OR days NOT BETWEEN 0 AND 3660
		OR (amount - make_interval(days => days)) NOT BETWEEN interval '0' AND interval '87840 hours' THEN
		RAISE EXCEPTION USING ERRCODE = 'EQ058', MESSAGE = 'amount must be working days and hours',
			DETAIL = 'From 0 to 3,660 days and from 0 to 87,840 hours; no months or years.';
	END IF;
	seconds := extract(epoch FROM amount - make_interval(days => days));
	-- years at once, as a day by itself takes ten times as long
	WHILE days > 366 AND day + 366 <= last_day LOOP
		days := days - (SELECT count(*) FROM generate_series(1, 366) n WHERE EXISTS (SELECT FROM event_queue_internal.working_hours(cal, day + n)));
		day := day + 366;
	END LOOP;
	WHILE days > 0 AND day < last_day LOOP
		day := day + 1;
		IF EXISTS (SELECT FROM event_queue_internal.working_hours(cal, day)) THEN
			days := days - 1;
			result := (day + (from_time AT TIME ZONE cal.time_zone)::time) AT TIME ZONE cal.time_zone;
		END IF;
	END LOOP;
	IF days = 0 AND seconds = 0 THEN
		RETURN result;
	END IF;
	WHILE days = 0 AND seconds > 360000 AND day + 366 <= last_day LOOP
		SELECT coalesce(sum(extract(epoch FROM h.ends_at - greatest(h.starts_at, result))), 0) INTO worked
		FROM generate_series(0, 365) n, event_queue_internal.working_hours(cal, day + n) h WHERE h.ends_at > result;
		EXIT WHEN worked >= seconds;
		seconds := seconds - worked;
		day := day + 366;
	END LOOP;
	WHILE days = 0 AND day < last_day LOOP
		FOR span IN SELECT greatest(h.starts_at, result) AS starts_at, h.ends_at
			FROM event_queue_internal.working_hours(cal, day) h WHERE h.ends_at > result LOOP
			IF extract(epoch FROM span.ends_at - span.starts_at) >= seconds THEN
				RETURN span.starts_at + make_interval(secs => seconds);
			END IF;
			seconds := seconds - extract(epoch FROM span.ends_at - span.starts_at);
		END LOOP;
		day := day + 1;
	END LOOP;
	RAISE EXCEPTION USING ERRCODE = 'EQ058', MESSAGE = format('calendar "%s" does not have that much working time within 100 years', calendar);
END
$$;
COMMENT ON FUNCTION add_business_time(text, timestamptz, interval) IS
'When so many working days, or hours, of a calendar will have passed from a time on.';

/*
 * business_seconds: working time between two times, in seconds; negative if the second is
 * before the first. At most 100 years lie between them.
 * Errors: EQ009 a NULL, times out of range or too far apart, EQ025 no such calendar.
 * Example:
 *	SELECT event_queue.business_seconds('br', '2026-11-27 17:00-03', '2026-11-30 10:00-03') / 3600 AS hours;
 */
CREATE FUNCTION business_seconds(calendar text, from_time timestamptz, to_time timestamptz) RETURNS double precision
LANGUAGE plpgsql STABLE PARALLEL SAFE SET search_path = pg_catalog, event_queue, pg_temp AS $$
#variable_conflict use_variable
DECLARE
	cal event_queue.calendar := event_queue_internal.calendar_for(calendar, from_time, to_time);
	first_time timestamptz := least(from_time, to_time);
	last_time timestamptz := greatest(from_time, to_time);
	seconds float8;
BEGIN
	IF last_time > first_time + interval '100 years' THEN
		RAISE EXCEPTION USING ERRCODE = 'EQ009', MESSAGE = 'the times must not be more than 100 years apart';
	END IF;
	SELECT coalesce(sum(extract(epoch FROM least(h.ends_at, last_time) - greatest(h.starts_at, first_time))), 0) INTO seconds
	FROM generate_series((first_time AT TIME ZONE cal.time_zone)::date, (last_time AT TIME ZONE cal.time_zone)::date, interval '1 day') d,
		event_queue_internal.working_hours(cal, d::date) h
	WHERE h.ends_at > first_time AND h.starts_at < last_time;
	RETURN CASE WHEN to_time < from_time THEN -seconds ELSE seconds END;
END
$$;
COMMENT ON FUNCTION business_seconds(text, timestamptz, timestamptz) IS 'Seconds of working time of a calendar between two times.';
