-- The extension goes in with one command, and its workers come by themselves.
CREATE EXTENSION event_queue;
SELECT event_queue.version();

-- Waits until a condition holds: for what the background workers do.
CREATE PROCEDURE wait_until(condition text) LANGUAGE plpgsql AS $$
DECLARE
	holds boolean;
BEGIN
	FOR i IN 1 .. 600 LOOP
		EXECUTE 'SELECT ' || condition INTO holds;
		IF holds THEN
			RETURN;
		END IF;
		COMMIT;
		PERFORM pg_sleep(0.05);
	END LOOP;
	RAISE EXCEPTION 'waited for 30 seconds: %', condition;
END
$$;
-- Runs a statement and tells how it failed.
CREATE FUNCTION try(statement text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	detail text;
BEGIN
	EXECUTE statement;
	RETURN 'ok';
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL;
	RETURN SQLSTATE || ': ' || SQLERRM || coalesce(' | ' || nullif(detail, ''), '');
END
$$;
CALL wait_until($$(SELECT count(*) = 3 FROM event_queue.workers())$$);
SELECT kind, current_job FROM event_queue.workers() ORDER BY kind;
-- The scheduler decides whose turn it is, in a group and after dependencies: waits
-- until it has looked.
CREATE PROCEDURE settled() LANGUAGE plpgsql AS $$
BEGIN
	CALL wait_until('NOT EXISTS (SELECT FROM event_queue_internal.job_review)');
END
$$;
-- Claims and completes some jobs; their names.
CREATE FUNCTION finish(q text, n int DEFAULT 1) RETURNS TABLE (name text) LANGUAGE sql AS $$
	SELECT c.name FROM event_queue.claim(q, n) c, LATERAL event_queue.complete(c.job_id, c.lease_token)
$$;
