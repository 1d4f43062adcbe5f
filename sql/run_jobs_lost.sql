-- run_jobs: what becomes of a job that another job's handler deletes, and of the caller's cursors.
SELECT event_queue.create_queue('lost') IS NOT NULL AS created;
CREATE SCHEMA lost;
CREATE FUNCTION lost.work(job event_queue.claimed_job) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	IF job.name = 'deletes' THEN
		DELETE FROM event_queue.job j WHERE j.name = 'deleted';
	ELSIF job.name = 'cursor' THEN
		EXECUTE 'CLOSE callers';
	END IF;
END $$;
SELECT event_queue.create_handler('lost', '*', 'lost.work') IS NOT NULL AS created;
-- Beyond the first hundred, which are claimed one by one.
BEGIN;
SELECT cardinality(event_queue.enqueue_many('lost', (SELECT jsonb_agg(jsonb_build_object('name',
	CASE n WHEN 105 THEN 'deletes' WHEN 106 THEN 'deleted' ELSE 'n' END) ORDER BY n) FROM generate_series(1, 110) n)));
SELECT outcome, count(*), min(name) AS name, min(error) ~ '^lease of job \d+ is lost$' AS error, min(sqlstate) AS sqlstate, count(next_run_at) AS again
FROM event_queue.run_jobs('lost', 200) GROUP BY outcome ORDER BY outcome;
SELECT count(*) FROM event_queue.job WHERE queue_id = event_queue_internal.queue_id_of('lost');
ROLLBACK;
-- The session's cursors are there, as the header of run_jobs says.
BEGIN;
DECLARE callers CURSOR FOR SELECT 1 AS one;
SELECT event_queue.enqueue('lost', 'cursor') > 0 AS enqueued;
SELECT name, outcome FROM event_queue.run_jobs('lost');
FETCH callers;
ROLLBACK;
SELECT event_queue.drop_handler('lost', '*') IS NOT NULL AS dropped, event_queue.drop_queue('lost', true) IS NOT NULL AS dropped;
DROP SCHEMA lost CASCADE;
