/*
 * schedule.sql: schedules: jobs at the times of a cron expression.
 *
 * The scheduler calls run_due_schedules whenever it wakes.  Missed runs (the server was
 * down) are replaced by one job, not one each, unless the schedule has a catch_up.  run.sql
 * enqueues the jobs, and keeps the last runs.
 */

/*
 * cron_next: when an expression is due next; NULL if never (30 February).
 * Arguments:
 * - cron: five fields (minute, hour, day of the month, month, day of the week), or six with the
 *   second first.  Days of the month may be L (the last), 15W (the working day next to the
 *   15th), LW (the last working day); days of the week mon#1 (the first Monday), friL (the last
 *   Friday).  If both are given, either is enough, but if one begins with * (a step of it, too), both must
 *   hold, as in cron.  Or @hourly to @yearly, or @every 10s, 1h30m, 2d, which counts from 1970 in UTC.
 * - time_zone: the expression's times are local times there.
 *
 * Where the clocks go forward, a time that is skipped runs at the moment of the change, once for
 * all of a missing hour; or not at all if the hour is * or a step of it, since the next time is
 * near.  Where they go back, a time that comes twice runs the first time; or both times if
 * minute or hour is * or a step of it.
 *
 * Errors: EQ030 bad expression, EQ031 no such time zone.
 * Example:
 *	SELECT event_queue.cron_next('0 9 * * 1-5', 'America/Sao_Paulo');
 */
CREATE FUNCTION cron_next(cron text, time_zone text DEFAULT 'UTC', after_time timestamptz DEFAULT now())
RETURNS timestamptz
LANGUAGE C STABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'eq_cron_next_sql';
COMMENT ON FUNCTION cron_next(text, text, timestamptz) IS
'When a cron expression is due next, in a time zone; NULL if never.';

/*
 * preview_schedule: the next times that an expression names, to look at before
 * create_schedule.
 * Arguments: cron, time_zone and after_time as cron_next; n is how many times, at most
 * 10000.
 * Result: the times, in order; fewer if there are no more.
 * Errors: EQ009 n, EQ030 bad expression, EQ031 no such time zone.
 * Example:
 *	SELECT t AT TIME ZONE 'America/Sao_Paulo' FROM event_queue.preview_schedule('0 9 1W * *', 'America/Sao_Paulo', 3) t;
 */
CREATE FUNCTION preview_schedule(cron text, time_zone text DEFAULT 'UTC', n int DEFAULT 5, after_time timestamptz DEFAULT now())
RETURNS SETOF timestamptz
LANGUAGE plpgsql STABLE STRICT PARALLEL SAFE SET search_path = pg_catalog, event_queue, pg_temp AS $$
#variable_conflict use_variable
DECLARE
	t timestamptz := after_time;
BEGIN
	IF n NOT BETWEEN 1 AND 10000 THEN
		RAISE EXCEPTION USING ERRCODE = 'EQ009', MESSAGE = 'n must be between 1 and 10000';
	END IF;
	FOR i IN 1 .. n LOOP
		t := event_queue.cron_next(cron, time_zone, t);
		EXIT WHEN t IS NULL;
		RETURN NEXT t;
	END LOOP;
END
$$;
COMMENT ON FUNCTION preview_schedule(text, text, int, timestamptz) IS
'The next times that a cron expression names, in a time zone.';

CREATE TABLE schedule (
	schedule_id	int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	name		text NOT NULL CONSTRAINT schedule_name_key UNIQUE,
	cron		text NOT NULL,
	time_zone	text NOT NULL,
	queue_id	int NOT NULL REFERENCES queue,
	job_name	text NOT NULL,
	payload		jsonb NOT NULL,
	priority	int,
	tenant_id	text COLLATE "C" NOT NULL,
	enabled		boolean NOT NULL DEFAULT true,
	next_run	timestamptz,
	last_run	timestamptz,
	created_at	timestamptz NOT NULL DEFAULT now(),
	options		jsonb,
	runs		bigint NOT NULL DEFAULT 0,
	missed		bigint NOT NULL DEFAULT 0,
	last_error	text,
	last_error_at	timestamptz,
	overlap		text NOT NULL DEFAULT 'allow',
	catch_up	interval,
	jitter		interval,
	starts_at	timestamptz,
	ends_at		timestamptz,
	exclude		date[],
	skipped		bigint NOT NULL DEFAULT 0,
	exclude_calendar text
);
COMMENT ON TABLE schedule IS 'Jobs that come by the clock; written by create_schedule and its kin.';
COMMENT ON COLUMN schedule.priority IS 'NULL: that of options.';
COMMENT ON COLUMN schedule.options IS 'Options of its jobs, as enqueue takes them.';
COMMENT ON COLUMN schedule.runs IS 'How many jobs it has made.';
COMMENT ON COLUMN schedule.missed IS 'Number of due times without a job of their own: without catch_up those that passed after the one that got the job; with it those that passed before it.';
COMMENT ON COLUMN schedule.catch_up IS 'Each time that passed within it gets its job, also those of a pause; NULL: one job for all, and none for a pause.';
COMMENT ON COLUMN schedule.exclude_calendar IS 'The calendar on whose holidays it does not run.';
COMMENT ON COLUMN schedule.skipped IS 'Number of due times without a job because an earlier job of the schedule had not ended (overlap).';
CREATE TRIGGER config_changed AFTER INSERT OR DELETE OR UPDATE OF cron, time_zone, enabled, queue_id ON schedule
	FOR EACH STATEMENT EXECUTE FUNCTION event_queue_internal.config_changed();
ALTER TABLE schedule ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant_isolation ON schedule USING (tenant_visible(tenant_id));
SELECT pg_catalog.pg_extension_config_dump('schedule', '');
SELECT pg_catalog.pg_extension_config_dump('schedule_schedule_id_seq', '');

CREATE FUNCTION event_queue_internal.zone_day(at timestamptz, time_zone text) RETURNS date
LANGUAGE C STABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'eq_zone_day';
COMMENT ON FUNCTION event_queue_internal.zone_day(timestamptz, text) IS 'Internal. The date in a time zone, as cron_next knows it.';

CREATE FUNCTION event_queue_internal.zone_day_begins(day date, time_zone text) RETURNS timestamptz
LANGUAGE C STABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'eq_zone_day_begins';
COMMENT ON FUNCTION event_queue_internal.zone_day_begins(date, text) IS 'Internal. When a date begins in a time zone, as cron_next knows it.';

CREATE FUNCTION event_queue_internal.local_moment(local timestamp, time_zone text) RETURNS timestamptz
LANGUAGE C STABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'eq_local_moment';
COMMENT ON FUNCTION event_queue_internal.local_moment(timestamp, text) IS 'Internal. A local time of a time zone; one that is left out there is the moment when the clocks go forward.';

/* next_time: when a schedule is due next after a time, by all that it says. */
CREATE FUNCTION event_queue_internal.next_time(
	cron text, time_zone text, after_time timestamptz, starts_at timestamptz, ends_at timestamptz, exclude date[])
RETURNS timestamptz
LANGUAGE plpgsql STABLE PARALLEL SAFE SET search_path = pg_catalog, event_queue, pg_temp AS $$
#variable_conflict use_variable
DECLARE
	t timestamptz := greatest(after_time, starts_at - interval '1 microsecond');
	day date;
BEGIN
	LOOP
		t := event_queue.cron_next(cron, time_zone, t);
		IF t IS NULL OR t > ends_at THEN
			RETURN NULL;
		END IF;
		day := event_queue_internal.zone_day(t, time_zone);
		IF (day = ANY (exclude)) IS NOT TRUE THEN
			RETURN t;
		END IF;
		-- on with the next day, if that is later: where midnight comes twice it is not
		t := greatest(t, event_queue_internal.zone_day_begins(day + 1, time_zone) - interval '1 microsecond');
	END LOOP;
END
$$;
COMMENT ON FUNCTION event_queue_internal.next_time(text, text, timestamptz, timestamptz, timestamptz, date[]) IS
'Internal. When a schedule is due next: its expression, start, end and excluded dates.';

/* excluded_days: the dates on which a schedule does not run: its own, and the holidays of a calendar. */
CREATE FUNCTION event_queue_internal.excluded_days(exclude date[], calendar text) RETURNS date[]
LANGUAGE plpgsql STABLE PARALLEL SAFE SET search_path = pg_catalog, event_queue, pg_temp AS $$
BEGIN
	RETURN CASE WHEN $2 IS NULL THEN $1 ELSE coalesce($1, '{}') || (event_queue_internal.calendar_for($2, VARIADIC '{}')).holidays END;
END
$$;
COMMENT ON FUNCTION event_queue_internal.excluded_days(date[], text) IS
'Internal. Dates on which a schedule does not run: its own, and the holidays of a calendar; EQ025 if there is no such one.';

CREATE FUNCTION event_queue_internal.next_time(s schedule, after_time timestamptz) RETURNS timestamptz
LANGUAGE sql STABLE PARALLEL SAFE SET search_path = pg_catalog, event_queue, pg_temp AS $$
	SELECT event_queue_internal.next_time(s.cron, s.time_zone, after_time, s.starts_at, s.ends_at,
		event_queue_internal.excluded_days(s.exclude, s.exclude_calendar))
$$;
COMMENT ON FUNCTION event_queue_internal.next_time(schedule, timestamptz) IS 'Internal. When a schedule is due next.';

/* check_schedule_policy: what create_schedule takes beside expression and job. */
CREATE FUNCTION event_queue_internal.check_schedule_policy(
	overlap text, catch_up interval, jitter interval, starts_at timestamptz, ends_at timestamptz, exclude date[])
RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, event_queue, pg_temp AS $$
DECLARE
	wrong text := CASE
		WHEN overlap IS NULL OR overlap NOT IN ('allow', 'skip', 'queue_one', 'queue_all', 'cancel')
			THEN 'overlap may be allow, skip, queue_one, queue_all or cancel'
		WHEN catch_up < interval '10 seconds' OR catch_up > interval '10 years' THEN 'catch_up may be 10 seconds to 10 years'
		WHEN jitter < interval '0' OR jitter > interval '1 year' THEN 'jitter may be 0 to 1 year'
		WHEN ends_at < starts_at THEN 'ends_at may not be before starts_at'
		WHEN NOT isfinite(starts_at) OR NOT isfinite(ends_at) THEN 'starts_at and ends_at may not be infinite'
		WHEN least(starts_at, ends_at) < '0001-01-01 00:00:00+00' THEN 'starts_at and ends_at may not be before Christ'
		WHEN cardinality(exclude) > 1000 THEN 'exclude may have 1000 dates'
		WHEN array_ndims(exclude) > 1 THEN 'exclude may be a plain list of dates'	-- before array_position, which takes no other
		WHEN array_position(exclude, NULL) IS NOT NULL THEN 'exclude may be a plain list of dates' END;
BEGIN
	IF wrong IS NOT NULL THEN
		RAISE EXCEPTION USING ERRCODE = 'EQ009', MESSAGE = 'invalid schedule', DETAIL = wrong || '.';
	END IF;
END
$$;
COMMENT ON FUNCTION event_queue_internal.check_schedule_policy(text, interval, interval, timestamptz, timestamptz, date[]) IS
'Internal. EQ009 unless overlap, catch_up, jitter, start, end and excluded dates are valid.';

/*
 * create_schedule: enqueues a job each time that a cron expression is due.
 *
 * Arguments: as cron_next and enqueue (options without run_at), and
 * - tenant_id: of the jobs.  Their handler acts for this tenant or, if it has SET
 *   event_queue.tenant = '', for all.
 * - overlap: what happens while an earlier job of the schedule waits or runs.  allow: one more
 *   job.  skip: none.  queue_one: one more, unless one waits already.  queue_all: one more,
 *   which runs after the earlier ones (they are a group, so the queue's group_concurrency must
 *   be 1).  cancel: the earlier ones are cancelled, as by cancel_job.
 * - catch_up: of the times that passed while the server was down or the schedule was paused,
 *   those within so long (10 seconds to 10 years) get a job each.  NULL: one job for all that
 *   passed while the server was down, none for a pause.
 * - jitter: each job runs up to so much later, at random; at most a year.
 * - starts_at, ends_at: no runs before and after them.
 * - exclude: no runs on these dates of time_zone, at most 1000.
 * - exclude_calendar: no runs on the holidays of this calendar, also those that are added
 *   later.
 * - or_replace: a schedule of this name gets the new definition; its next run changes only if
 *   cron, time_zone, starts_at, ends_at, exclude or exclude_calendar do.  A paused schedule
 *   stays paused.
 * - if_not_exists: a schedule of this name stays as it is, with a NOTICE if its definition
 *   differs.
 *
 * Result: the schedule's number.
 * Errors: EQ003/EQ004 tenant, EQ005 payload too large, EQ006 name, EQ009 options, overlap,
 * catch_up, jitter, starts_at, ends_at, exclude, or both or_replace and if_not_exists, EQ010
 * no such queue, EQ015 priority, EQ018 the schedule exists, EQ025 no
 * such calendar, EQ030 expression, also one that never comes (30 February), EQ031 time zone.
 * Example:
 *	SELECT event_queue.create_schedule('digest', '0 7 * * 1-5', 'mail', 'digest', time_zone => 'America/Sao_Paulo', or_replace => true);
 */
CREATE FUNCTION create_schedule(
	name text, cron text, queue text, job_name text, payload jsonb DEFAULT '{}',
	time_zone text DEFAULT 'UTC', priority int DEFAULT NULL, tenant_id text DEFAULT NULL, options jsonb DEFAULT NULL,
	or_replace boolean DEFAULT false, if_not_exists boolean DEFAULT false,
	overlap text DEFAULT 'allow', catch_up interval DEFAULT NULL, jitter interval DEFAULT NULL,
	starts_at timestamptz DEFAULT NULL, ends_at timestamptz DEFAULT NULL, exclude date[] DEFAULT NULL,
	exclude_calendar text DEFAULT NULL)
RETURNS int
LANGUAGE plpgsql SET search_path = pg_catalog, event_queue, pg_temp AS $$
#variable_conflict use_variable
DECLARE
	new_id int;
	next timestamptz;
	tenant text COLLATE "C" := event_queue.resolve_tenant(tenant_id);
	same boolean;
BEGIN
	PERFORM event_queue_internal.check_create_mode(or_replace, if_not_exists);
	PERFORM event_queue_internal.check_schedule_policy(overlap, catch_up, jitter, starts_at, ends_at, exclude);
	-- it stays until the commit
	PERFORM FROM event_queue.calendar c WHERE c.name = exclude_calendar FOR KEY SHARE;
	next := event_queue_internal.next_time(coalesce(cron, ''), coalesce(time_zone, ''), clock_timestamp(), starts_at, ends_at,
		event_queue_internal.excluded_days(exclude, exclude_calendar));
	IF next IS NULL AND event_queue.cron_next(cron, time_zone) IS NULL THEN
		RAISE EXCEPTION USING ERRCODE = 'EQ030', MESSAGE = format('cron expression "%s" never matches', cron),
			DETAIL = 'No month that it names has such a day.';
	END IF;
	PERFORM event_queue_internal.check_name('schedule name', name);
	PERFORM event_queue_internal.check_name('job name', job_name);
	PERFORM event_queue_internal.check_payload(payload);
	priority := event_queue_internal.check_job_options(queue, options, priority);
	INSERT INTO event_queue.schedule AS s (name, cron, time_zone, queue_id, job_name, payload, priority, tenant_id, next_run, options,
		overlap, catch_up, jitter, starts_at, ends_at, exclude, exclude_calendar)
	VALUES (name, cron, time_zone, event_queue_internal.queue_id_of(queue), job_name, coalesce(payload, '{}'), priority,
		tenant, next, options, overlap, catch_up, jitter, starts_at, ends_at, exclude, exclude_calendar)
	ON CONFLICT ON CONSTRAINT schedule_name_key DO NOTHING
	RETURNING s.schedule_id INTO new_id;
	IF new_id IS NOT NULL THEN
		RETURN new_id;
	END IF;
	SELECT s.schedule_id,
		(s.cron, s.time_zone, s.queue_id, s.job_name, s.payload, s.priority, s.tenant_id, s.options,
			s.overlap, s.catch_up, s.jitter, s.starts_at, s.ends_at, s.exclude, s.exclude_calendar) IS NOT DISTINCT FROM
		(cron, time_zone, event_queue_internal.queue_id_of(queue), job_name, coalesce(payload, '{}'), priority, tenant, options,
			overlap, catch_up, jitter, starts_at, ends_at, exclude, exclude_calendar)
	INTO new_id, same
	FROM event_queue.schedule s
	WHERE s.name = create_schedule.name AND event_queue.tenant_visible(s.tenant_id) FOR UPDATE;
	IF NOT FOUND OR (or_replace OR if_not_exists) IS NOT TRUE THEN
		RAISE EXCEPTION USING ERRCODE = 'EQ018', MESSAGE = format('schedule "%s" already exists', name),
			HINT = 'or_replace => true replaces it; if_not_exists => true leaves it.';
	END IF;
	IF NOT same AND or_replace THEN
		UPDATE event_queue.schedule s
		SET next_run = CASE WHEN (s.cron, s.time_zone, s.starts_at, s.ends_at, s.exclude, s.exclude_calendar) IS NOT DISTINCT FROM
					(create_schedule.cron, create_schedule.time_zone, create_schedule.starts_at, create_schedule.ends_at, create_schedule.exclude,
						create_schedule.exclude_calendar)
				THEN s.next_run ELSE next END,
			cron = create_schedule.cron, time_zone = create_schedule.time_zone,
			queue_id = event_queue_internal.queue_id_of(queue), job_name = create_schedule.job_name,
			payload = coalesce(create_schedule.payload, '{}'), priority = create_schedule.priority, tenant_id = tenant,
			options = create_schedule.options, overlap = create_schedule.overlap, catch_up = create_schedule.catch_up,
			jitter = create_schedule.jitter, starts_at = create_schedule.starts_at, ends_at = create_schedule.ends_at,
			exclude = create_schedule.exclude, exclude_calendar = create_schedule.exclude_calendar
		WHERE s.schedule_id = new_id;
	ELSIF NOT same THEN
		PERFORM event_queue_internal.notice_other_definition('schedule', name);
	END IF;
	RETURN new_id;
END
$$;
COMMENT ON FUNCTION create_schedule(text, text, text, text, jsonb, text, int, text, jsonb, boolean, boolean,
	text, interval, interval, timestamptz, timestamptz, date[], text) IS
'Enqueues a job by the clock: a cron expression in a time zone.';

CREATE FUNCTION event_queue_internal.switch_schedule(name text, enabled boolean) RETURNS boolean
LANGUAGE plpgsql SET search_path = pg_catalog, event_queue, pg_temp AS $$
#variable_conflict use_column
DECLARE
	was boolean;
BEGIN
	SELECT s.enabled INTO was FROM event_queue.schedule s
	WHERE s.name = $1 AND event_queue.tenant_visible(s.tenant_id) FOR UPDATE;
	IF NOT FOUND THEN
		RAISE EXCEPTION USING ERRCODE = 'EQ025', MESSAGE = format('schedule "%s" does not exist', $1);
	END IF;
	UPDATE event_queue.schedule s
	SET enabled = $2,	-- with a catch_up, what a pause begins with is what comes after it
		next_run = CASE WHEN NOT $2 THEN s.next_run	-- also where cron or zone can't be read any more
			WHEN s.catch_up IS NULL THEN event_queue_internal.next_time(s, clock_timestamp())
			ELSE least(s.next_run, event_queue_internal.next_time(s, clock_timestamp())) END
	WHERE s.name = $1 AND s.enabled <> $2;
	RETURN was <> $2;
END
$$;
COMMENT ON FUNCTION event_queue_internal.switch_schedule(text, boolean) IS 'Internal. What pause_schedule and resume_schedule share.';

/*
 * pause_schedule: switches a schedule off; what it misses is made up for only if it has a
 * catch_up.
 * Result: false if it was off already.  Errors: EQ025 no such schedule.
 * Example:
 *	SELECT event_queue.pause_schedule('digest');
 */
CREATE FUNCTION pause_schedule(name text) RETURNS boolean
LANGUAGE sql SET search_path = pg_catalog, event_queue, pg_temp AS $$
	SELECT event_queue_internal.switch_schedule($1, false)
$$;
COMMENT ON FUNCTION pause_schedule(text) IS 'Switches a schedule off; what it misses is made up for only if it has a catch_up.';

/*
 * resume_schedule: switches a schedule on; it runs next at the next time that its
 * cron expression names, after the times within catch_up if it has one.
 * Result: false if it was on already.  Errors: EQ025 no such schedule.
 * Example:
 *	SELECT event_queue.resume_schedule('digest');
 */
CREATE FUNCTION resume_schedule(name text) RETURNS boolean
LANGUAGE sql SET search_path = pg_catalog, event_queue, pg_temp AS $$
	SELECT event_queue_internal.switch_schedule($1, true)
$$;
COMMENT ON FUNCTION resume_schedule(text) IS 'Switches a schedule on again, from the next time that its cron expression names.';

/*
 * drop_schedule: removes a schedule. Errors: EQ025 no such schedule.
 * Example:
 *	SELECT event_queue.drop_schedule('digest');
 */
CREATE FUNCTION drop_schedule(name text) RETURNS boolean
LANGUAGE plpgsql SET search_path = pg_catalog, event_queue, pg_temp AS $$
#variable_conflict use_column
BEGIN
	DELETE FROM event_queue.schedule s WHERE s.name = $1 AND event_queue.tenant_visible(s.tenant_id);
	IF NOT FOUND THEN
		RAISE EXCEPTION USING ERRCODE = 'EQ025', MESSAGE = format('schedule "%s" does not exist', $1);
	END IF;
	RETURN true;
END
$$;
COMMENT ON FUNCTION drop_schedule(text) IS 'Removes a schedule; jobs that it made stay. EQ025 if there is no such schedule.';

CREATE VIEW schedules WITH (security_invoker = true) AS
	SELECT s.schedule_id, s.name, s.cron, s.time_zone, q.name AS queue, s.job_name, s.payload, s.priority,
		s.tenant_id, s.enabled, s.next_run, s.last_run, s.created_at, s.options,
		s.overlap, (extract(epoch FROM s.catch_up) * 1000)::bigint AS catch_up_ms, (extract(epoch FROM s.jitter) * 1000)::bigint AS jitter_ms,
		s.starts_at, s.ends_at, s.exclude, s.skipped, s.exclude_calendar
	FROM event_queue.schedule s JOIN event_queue.queue q USING (queue_id);
COMMENT ON VIEW schedules IS 'Jobs that come by the clock, with their next and last run.';
