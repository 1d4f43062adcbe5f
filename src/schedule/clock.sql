/*
 * clock.sql: corrects times in tables after the clock was set back.
 */

/*
 * correct_times: for the scheduler, when it starts and when the clock was set back.
 * Moves times that were written while the clock was ahead back by as much: next runs of
 * schedules, times of jobs (by when they were enqueued, claimed or failed), and tokens of keys
 * with a rate.  Skips rows that others have locked.
 */
CREATE FUNCTION event_queue_internal.correct_times() RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, event_queue, pg_temp AS $$
DECLARE
	at timestamptz := clock_timestamp();
	s event_queue.schedule;
	next timestamptz;
	j record;
BEGIN
	FOR s IN SELECT x.* FROM event_queue.schedule x WHERE x.enabled AND x.next_run > at FOR UPDATE SKIP LOCKED LOOP
		BEGIN
			-- A run that happened while the clock was a little ahead is not repeated.
			next := event_queue_internal.next_time(s, greatest(at, (SELECT max(r.scheduled_for) FROM event_queue_internal.schedule_run r
				WHERE r.schedule_id = s.schedule_id AND r.scheduled_for < at + '1 minute'::interval)));
			UPDATE event_queue.schedule x SET next_run = next WHERE x.schedule_id = s.schedule_id AND x.next_run > next;
		EXCEPTION WHEN OTHERS THEN
			-- Its cron or zone can't be read: run_due_schedules looks at it again within an hour.
			UPDATE event_queue.schedule x SET next_run = least(x.next_run, at + '1 hour') WHERE x.schedule_id = s.schedule_id;
		END;
	END LOOP;

	-- Ignore a second: two processes may see times that differ by less.
	UPDATE event_queue.job x
	SET run_at = CASE WHEN x.run_at > at THEN greatest(at, x.run_at - wrong.ahead) ELSE x.run_at END,
		leased_until = x.leased_until - wrong.ahead, claimed_at = least(x.claimed_at, at), created_at = least(x.created_at, at)
	FROM (SELECT y.job_id, greatest(y.created_at, y.claimed_at) - at AS ahead FROM event_queue.job y
		  WHERE y.created_at > at + '1 second' OR y.claimed_at > at + '1 second' FOR UPDATE SKIP LOCKED) wrong
	WHERE x.job_id = wrong.job_id;
	FOR j IN
		SELECT y.job_id, y.errors -> -1 ->> 'at' AS failed_at FROM event_queue.job y
		WHERE y.failures > 0 AND y.run_at > at AND y.leased_until IS NULL
			-- By its text, which sorts as the time does: not all that have ever failed are to be locked.
			AND (y.errors -> -1 ->> 'at') COLLATE "C" > to_char((at + '1 second') AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US')
		FOR UPDATE SKIP LOCKED
	LOOP
		BEGIN
			UPDATE event_queue.job x SET run_at = greatest(at, x.run_at - (j.failed_at::timestamptz - at))
			WHERE x.job_id = j.job_id AND j.failed_at::timestamptz > at + '1 second';
		EXCEPTION WHEN OTHERS THEN
			NULL;	-- what someone else has written there is no time
		END;
	END LOOP;

	UPDATE event_queue_internal.group_rate g SET next_at = at + q.group_rate_interval
	FROM event_queue.queue q WHERE q.queue_id = g.queue_id AND g.next_at > at + q.group_rate_interval + interval '1 second';
	-- Groups find their next time by themselves.
	UPDATE event_queue_internal.group_review_at SET review_at = at WHERE review_at > at;
END
$$;
COMMENT ON FUNCTION event_queue_internal.correct_times() IS 'Internal. Moves times that come from a clock that was ahead.';
