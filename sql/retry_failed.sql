-- retry_failed takes what failed_jobs shows for the same time: from that very moment on.
SELECT event_queue.create_queue('rf', max_attempts => 1) > 0 AS created;
SELECT count(event_queue.enqueue('rf', 'rf' || i)) FROM generate_series(1, 3) i;
SELECT count(*) FILTER (WHERE event_queue.fail(c.job_id, c.lease_token, 'no') IS NULL) FROM event_queue.claim('rf', 3) c;
UPDATE event_queue.dead_letter SET died_at = timestamptz '2021-01-01 00:00:00.000001+00' + interval '1 microsecond' * right(name, 1)::int WHERE name LIKE 'rf_';
CREATE FUNCTION rf(since timestamptz) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	shown text := (SELECT string_agg(f.name, ' ' ORDER BY f.name) FROM event_queue.failed_jobs('rf', since) f);
	n bigint;
	retried text;
BEGIN
	BEGIN
		n := event_queue.retry_failed('rf', since);
		retried := (SELECT string_agg(j.name, ' ' ORDER BY j.name) FROM event_queue.jobs j WHERE j.queue = 'rf');
		RAISE EXCEPTION 'undo';
	EXCEPTION WHEN raise_exception THEN
		NULL;
	END;
	RETURN format('shown: %s; retried, %s: %s', shown, n, retried);
END
$$;
SELECT rf('2021-01-01 00:00:00.000002+00');	-- the moment at which rf1 died
SELECT rf('2021-01-01 00:00:00.000003+00');
SELECT rf('2021-01-01 00:00:00.000004+00');
SELECT rf('2021-01-01 00:00:00.000005+00');
SELECT rf(NULL);
SELECT rf('-infinity'), rf('infinity');
SELECT event_queue.retry_failed('rf', '2021-01-01 00:00:00.000004+00');
SELECT name FROM event_queue.dead_letters WHERE queue = 'rf' ORDER BY 1;
SELECT event_queue.drop_queue('rf', true);
DROP FUNCTION rf;
