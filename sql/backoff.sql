-- Backoff after the n-th failure, in seconds.
SELECT event_queue.create_queue('again', max_attempts => 5, backoff_intervals => '{1 s,10 s}') > 0 AS created;
CREATE FUNCTION waits(kind text) RETURNS int[] LANGUAGE plpgsql AS $$
DECLARE
	seconds int[] := '{}';
	c record;
BEGIN
	PERFORM event_queue.enqueue('again', kind, options => jsonb_build_object('backoff', kind));
	FOR i IN 1 .. 4 LOOP
		SELECT * INTO c FROM event_queue.claim('again');
		seconds := seconds || round(extract(epoch FROM event_queue.fail(c.job_id, c.lease_token, 'no') - clock_timestamp()))::int;
		UPDATE event_queue.job SET run_at = clock_timestamp() WHERE job_id = c.job_id;
	END LOOP;
	PERFORM event_queue.cancel_job(c.job_id);
	RETURN seconds;
END $$;
SELECT k AS backoff, waits(k) FROM unnest('{exponential,bull,linear,fixed,list}'::text[]) k;
DROP FUNCTION waits;
SELECT event_queue.drop_queue('again', force => true);
