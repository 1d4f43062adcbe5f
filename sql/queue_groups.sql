-- A group goes on at once, whatever ended its first job.
SET client_min_messages = warning;
SELECT event_queue.create_queue('goes-on', max_stalled => 0, max_attempts => 1, backoff_delay => '0') > 0 AS created;
-- Its second job is claimed within a second of the end of its first.
CREATE PROCEDURE ends(how text, first_ends text) LANGUAGE plpgsql AS $$
DECLARE
	held record;
	ended timestamptz;
	went text;
BEGIN
	PERFORM event_queue.enqueue('goes-on', 'first', group_key => how);
	PERFORM event_queue.enqueue('goes-on', 'second', group_key => how);
	COMMIT;
	FOR i IN 1 .. 500 LOOP
		EXIT WHEN EXISTS (SELECT FROM event_queue.jobs WHERE queue = 'goes-on' AND state = 'ready');
		PERFORM pg_sleep(0.01);
		COMMIT;
	END LOOP;
	IF first_ends ~ 'L\M' THEN
		SELECT job_id, lease_token INTO held FROM event_queue.claim('goes-on', lease => '1 ms');
		COMMIT;
	ELSE
		SELECT job_id, NULL::uuid AS lease_token INTO held FROM event_queue.jobs WHERE queue = 'goes-on' AND name = 'first';
	END IF;
	PERFORM pg_sleep(0.01);
	EXECUTE format(first_ends, held.job_id, held.lease_token);
	COMMIT;
	ended := clock_timestamp();
	FOR i IN 1 .. 500 LOOP
		SELECT name INTO went FROM event_queue.claim('goes-on') c, LATERAL event_queue.complete(c.job_id, c.lease_token);
		COMMIT;
		EXIT WHEN went IS NOT NULL;
		PERFORM pg_sleep(0.01);
	END LOOP;
	RAISE WARNING '%: % %', how, went, CASE WHEN clock_timestamp() < ended + '1 second' THEN 'at once' ELSE 'late' END;
	PERFORM event_queue.purge_queue('goes-on');
	PERFORM event_queue.discard_all_dead('goes-on');
	COMMIT;
END
$$;
CALL ends('complete', 'SELECT event_queue.complete(%s, %L)');
CALL ends('complete_many', 'SELECT event_queue.complete_many(ARRAY[%s], ARRAY[%L]::uuid[])');
SELECT event_queue.create_queue('rest') > 0 AS created;
CALL ends('complete_and_claim', $$SELECT event_queue.complete_and_claim(%s, %L, 'rest')$$);
CALL ends('fail to dead', $$SELECT event_queue.fail(%s, %L, 'no')$$);
CALL ends('final', $$SELECT event_queue.fail(%s, %L, 'no', final => true)$$);
CALL ends('cancelled', 'SELECT event_queue.cancel_job(%s)');
CALL ends('deleted', 'DELETE FROM event_queue.job WHERE job_id = %s');
CALL ends('discarded', $$WITH failed AS MATERIALIZED (SELECT event_queue.fail(%1$s, %2$L, 'no'))
	SELECT event_queue.discard_dead(%1$s) FROM failed$$);
-- the claim that finds its lease run out once too often buries it
CALL ends('last stall', $$SELECT event_queue.claim('goes-on') WHERE %s > 0 AND %L IS NOT NULL$$);
SELECT event_queue.drop_queue('goes-on', true), event_queue.drop_queue('rest', true);
DROP PROCEDURE ends;
-- A job that others of its group pass, while it waits for its next attempt, is made due by hand, and others wait no more.
SELECT event_queue.create_queue('passes', group_retry => 'pass') > 0 AS created;
SELECT count(event_queue.enqueue('passes', n, group_key => 'g')) FROM unnest('{first,second}'::text[]) n;
CREATE FUNCTION passes() RETURNS text LANGUAGE sql AS $$ SELECT string_agg(name || ' ' || blocked, ', ' ORDER BY job_id) FROM event_queue.job WHERE queue_id = event_queue_internal.queue_id_of('passes') $$;
CALL wait_until($$passes() = 'first 0, second 1'$$);
SELECT event_queue.fail(job_id, lease_token, 'no', retry_after => '1 hour') IS NOT NULL AS failed FROM event_queue.claim('passes');
CALL wait_until($$passes() = 'first 1, second 0'$$);
SELECT event_queue.complete(job_id, lease_token) FROM event_queue.claim('passes');
SELECT event_queue.retry_waiting('passes');
CALL wait_until($$passes() = 'first 0'$$);
SELECT name FROM event_queue.claim('passes');
SELECT event_queue.drop_queue('passes', true);
DROP FUNCTION passes;
