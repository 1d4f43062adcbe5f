/*
 * schedule.sql: jobs that come by the clock.
 *
 * The scheduler calls run_due_schedules whenever it wakes.  Runs that were
 * missed (the server was down) are made up for by one job, not by all of them.
 */

/*
 * cron_next: when an expression is due next; NULL if never (30 February).
 * Arguments: cron is an expression of five fields, or of six with the second first;
 * days of the month may be L (the last), 15W (the working day next to the 15th), LW, and
 * days of the week mon#1 (the first Monday), friL (the last Friday); or @hourly to
 * @yearly, or @every 10s, 1h30m, 2d, which counts from 1970 in UTC.  Its times are
 * local times of time_zone.  One that daylight saving skips runs at the moment
 * the clocks go forward, once for all of a missing hour, or not at all if the hour
 * is * or a step of it, since the next is near; one that comes twice runs the
 * first time, or both times if minute or hour is * or a step of it.
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
		RAISE EXCEPTION USING ERRCODE = 'EQ009', MESSAGE = format('n is %s', n), HINT = 'It may be 1 to 10000.';
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
	last_error_at	timestamptz
);
COMMENT ON TABLE schedule IS 'Jobs that come by the clock; written by create_schedule and its kin.';
COMMENT ON COLUMN schedule.priority IS 'NULL: that of options.';
COMMENT ON COLUMN schedule.options IS 'Options of its jobs, as enqueue takes them.';
COMMENT ON COLUMN schedule.runs IS 'How many jobs it has made.';
COMMENT ON COLUMN schedule.missed IS 'How many times that its expression names passed without a job of their own: the next job made up for them.';
CREATE TRIGGER config_changed AFTER INSERT OR DELETE OR UPDATE OF cron, time_zone, enabled, queue_id ON schedule
	FOR EACH STATEMENT EXECUTE FUNCTION event_queue_internal.config_changed();
ALTER TABLE schedule ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant_isolation ON schedule USING (tenant_visible(tenant_id));
SELECT pg_catalog.pg_extension_config_dump('schedule', '');
SELECT pg_catalog.pg_extension_config_dump('schedule_schedule_id_seq', '');

/*
 * create_schedule: enqueues a job each time that the expression is due.
 * Arguments: as cron_next and enqueue (options without run_at).  or_replace: a schedule of this name gets
 * the new definition; its next run changes only if cron or time_zone do, and
 * switched off, it stays so.  if_not_exists: it stays as it is, with a NOTICE if
 * its definition is another.
 * Result: the schedule's number.
 * Errors: EQ003/EQ004 tenant, EQ006 name, EQ009 options, or both or_replace and
 * if_not_exists, EQ010 no such queue, EQ015 priority,
 * EQ018 the schedule exists, EQ030 expression, EQ031 time zone.
 * Example:
 *	SELECT event_queue.create_schedule('digest', '0 7 * * 1-5', 'mail', 'digest', time_zone => 'America/Sao_Paulo', or_replace => true);
 */
CREATE FUNCTION create_schedule(
	name text, cron text, queue text, job_name text, payload jsonb DEFAULT '{}',
	time_zone text DEFAULT 'UTC', priority int DEFAULT NULL, tenant_id text DEFAULT NULL, options jsonb DEFAULT NULL,
	or_replace boolean DEFAULT false, if_not_exists boolean DEFAULT false)
RETURNS int
LANGUAGE plpgsql SET search_path = pg_catalog, event_queue, pg_temp AS $$
#variable_conflict use_variable
DECLARE
	new_id int;
	next timestamptz := event_queue.cron_next(cron, time_zone, clock_timestamp());
	tenant text := event_queue.resolve_tenant(tenant_id);
	same boolean;
BEGIN
	PERFORM event_queue_internal.check_create_mode(or_replace, if_not_exists);
	PERFORM event_queue_internal.check_name('schedule name', name);
	PERFORM event_queue_internal.check_name('job name', job_name);
	priority := event_queue_internal.check_job_options(queue, options, priority);
	INSERT INTO event_queue.schedule AS s (name, cron, time_zone, queue_id, job_name, payload, priority, tenant_id, next_run, options)
	VALUES (name, cron, time_zone, event_queue_internal.queue_id_of(queue), job_name, coalesce(payload, '{}'), priority,
		tenant, next, options)
	ON CONFLICT ON CONSTRAINT schedule_name_key DO NOTHING
	RETURNING s.schedule_id INTO new_id;
	IF new_id IS NOT NULL THEN
		RETURN new_id;
	END IF;
	SELECT s.schedule_id,
		(s.cron, s.time_zone, s.queue_id, s.job_name, s.payload, s.priority, s.tenant_id, s.options) IS NOT DISTINCT FROM
		(cron, time_zone, event_queue_internal.queue_id_of(queue), job_name, coalesce(payload, '{}'), priority, tenant, options)
	INTO new_id, same
	FROM event_queue.schedule s
	WHERE s.name = create_schedule.name AND event_queue.tenant_visible(s.tenant_id) FOR UPDATE;
	IF NOT FOUND OR (or_replace OR if_not_exists) IS NOT TRUE THEN
		RAISE EXCEPTION USING ERRCODE = 'EQ018', MESSAGE = format('schedule "%s" already exists', name),
			HINT = 'or_replace => true replaces it; if_not_exists => true leaves it.';
	END IF;
	IF NOT same AND or_replace THEN
		UPDATE event_queue.schedule s
		SET next_run = CASE WHEN (s.cron, s.time_zone) = (create_schedule.cron, create_schedule.time_zone) THEN s.next_run
				ELSE next END,
			cron = create_schedule.cron, time_zone = create_schedule.time_zone,
			queue_id = event_queue_internal.queue_id_of(queue), job_name = create_schedule.job_name,
			payload = coalesce(create_schedule.payload, '{}'), priority = create_schedule.priority, tenant_id = tenant,
			options = create_schedule.options
		WHERE s.schedule_id = new_id;
	ELSIF NOT same THEN
		PERFORM event_queue_internal.notice_other_definition('schedule', name);
	END IF;
	RETURN new_id;
END
$$;
COMMENT ON FUNCTION create_schedule(text, text, text, text, jsonb, text, int, text, jsonb, boolean, boolean) IS
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
	SET enabled = $2, next_run = event_queue.cron_next(s.cron, s.time_zone, clock_timestamp())
	WHERE s.name = $1 AND s.enabled <> $2;
	RETURN was <> $2;
END
$$;
COMMENT ON FUNCTION event_queue_internal.switch_schedule(text, boolean) IS 'Internal. What pause_schedule and resume_schedule share.';

/*
 * pause_schedule: switches a schedule off; what it misses is not made up for.
 * Result: false if it was off already.  Errors: EQ025 no such schedule.
 * Example:
 *	SELECT event_queue.pause_schedule('digest');
 */
CREATE FUNCTION pause_schedule(name text) RETURNS boolean
LANGUAGE sql SET search_path = pg_catalog, event_queue, pg_temp AS $$
	SELECT event_queue_internal.switch_schedule($1, false)
$$;
COMMENT ON FUNCTION pause_schedule(text) IS 'Switches a schedule off; what it misses is not made up for.';

/*
 * resume_schedule: switches a schedule on; it runs next at the next time that its
 * cron expression names.
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

/*
 * missed_runs: how many times that an expression names lie after a run that was due and
 * not in the future: these get no job of their own.  At most 1000.
 */
CREATE FUNCTION event_queue_internal.missed_runs(cron text, time_zone text, due timestamptz) RETURNS int
LANGUAGE plpgsql SET search_path = pg_catalog, event_queue, pg_temp AS $$
DECLARE
	now CONSTANT timestamptz := clock_timestamp();
	n int := 0;
BEGIN
	LOOP
		due := event_queue.cron_next(cron, time_zone, due);
		EXIT WHEN due IS NULL OR due > now OR n >= 1000;
		n := n + 1;
	END LOOP;
	RETURN n;
END
$$;
COMMENT ON FUNCTION event_queue_internal.missed_runs(text, text, timestamptz) IS 'Internal. How many runs passed since the one that is due; at most 1000.';

/*
 * run_due_schedules: for the scheduler.  One job for each schedule that is due;
 * an error in one hurts no other.  One that fails keeps its time: it is tried again
 * after a while, and then makes one job.  Result: when to come back.
 */
CREATE FUNCTION event_queue_internal.run_due_schedules() RETURNS timestamptz
LANGUAGE plpgsql SET search_path = pg_catalog, event_queue, pg_temp AS $$
DECLARE
	due event_queue.schedule;
	this_queue text;
BEGIN
	FOR due IN
		SELECT * FROM event_queue.schedule s
		WHERE s.enabled AND s.next_run <= clock_timestamp()
		  AND (event_queue_internal.fault_retry_at('schedule', s.name) <= clock_timestamp()) IS NOT FALSE
		ORDER BY s.next_run FOR UPDATE SKIP LOCKED
	LOOP
		this_queue := (SELECT q.name FROM event_queue.queue q WHERE q.queue_id = due.queue_id);
		BEGIN
			PERFORM event_queue.enqueue(
				this_queue, due.job_name, due.payload, priority => due.priority, tenant_id => due.tenant_id,
				options => coalesce(due.options, '{}') || jsonb_build_object('metadata', coalesce(due.options -> 'metadata', '{}')
					|| jsonb_build_object('schedule', due.name, 'scheduled_for', due.next_run)));
			UPDATE event_queue.schedule s
			SET last_run = clock_timestamp(), next_run = event_queue.cron_next(s.cron, s.time_zone, clock_timestamp()),
				runs = s.runs + 1, missed = s.missed + event_queue_internal.missed_runs(s.cron, s.time_zone, s.next_run)
			WHERE s.schedule_id = due.schedule_id;
			PERFORM event_queue_internal.clear_fault('schedule', due.name);
		EXCEPTION
			WHEN OTHERS THEN
				IF SQLSTATE = '55P03' AND (due.options ?| '{unique_key,depends_on}') IS NOT TRUE THEN
					RAISE;	-- of a table: the others need it, too
				END IF;
				PERFORM event_queue_internal.note_fault('schedule', due.name, due.tenant_id, SQLSTATE, SQLERRM,
					CASE WHEN SQLSTATE = 'EQ034' THEN format('SELECT event_queue.resume_queue(%L)', this_queue)
						WHEN SQLSTATE IN ('EQ030', 'EQ031') THEN
							format('SELECT event_queue.drop_schedule(%L), and create_schedule it anew', due.name) END);
				UPDATE event_queue.schedule s SET last_error = SQLERRM, last_error_at = clock_timestamp()
				WHERE s.schedule_id = due.schedule_id;
		END;
	END LOOP;
	PERFORM event_queue_internal.clear_fault('schedule', f.item, gone => true) FROM event_queue.faults() f
	WHERE f.what = 'schedule' AND NOT EXISTS (SELECT FROM event_queue.schedule s WHERE s.name = f.item AND s.enabled);
	-- What is still due fails, or someone has locked it: not at once again.
	RETURN (SELECT min(CASE WHEN s.next_run > clock_timestamp() THEN s.next_run
			ELSE greatest(clock_timestamp() + '1 second', event_queue_internal.fault_retry_at('schedule', s.name)) END)
		FROM event_queue.schedule s WHERE s.enabled AND s.next_run IS NOT NULL);
END
$$;
COMMENT ON FUNCTION event_queue_internal.run_due_schedules() IS 'Internal. Enqueues the jobs of all schedules that are due; returns when the next one is.';

CREATE VIEW schedules WITH (security_invoker = true) AS
	SELECT s.schedule_id, s.name, s.cron, s.time_zone, q.name AS queue, s.job_name, s.payload, s.priority,
		s.tenant_id, s.enabled, s.next_run, s.last_run, s.created_at, s.options
	FROM event_queue.schedule s JOIN event_queue.queue q USING (queue_id);
COMMENT ON VIEW schedules IS 'Jobs that come by the clock, with their next and last run.';
