# handlers.sh: SQL handlers in the database; sourced by run.sh.
# shellcheck shell=bash
#
# drain_handlers: jobs a second that the executors run whose handler inserts a row,
# against as many outside sessions that take a job from the SKIP LOCKED table, insert
# the row and delete the job in one transaction.  An executor flushes each claim
# before the handler begins, so that a handler that kills the server is counted: two
# flushes a job against one.  No ratio is wanted.
if wanted drain_handlers; then
	sql >/dev/null <<'SQL'
CREATE TABLE yardstick.handled (job_id bigint);
CREATE FUNCTION yardstick.handle_job(job event_queue.claimed_job) RETURNS void LANGUAGE sql AS $$
	INSERT INTO yardstick.handled VALUES (job.job_id) $$;
SELECT event_queue.create_queue('handled');
SELECT event_queue.create_handler('handled', '*', 'yardstick.handle_job');
SQL
	script handle_table 'BEGIN;' "$(claim_table 1) \\gset" 'INSERT INTO yardstick.handled VALUES (:id);' \
		'DELETE FROM yardstick.job WHERE id = :id;' 'COMMIT;'
	begin_line
	for _ in 1 2 3; do
		sql_each "$(fill 200000)"
		sql -c "SELECT event_queue.pause_queue('handled')" -c "SELECT count(event_queue.enqueue_many('handled',
			to_jsonb(ARRAY(SELECT '{\"payload\": {\"a\": 1}}'::jsonb FROM generate_series(1, 1000))), options => '{\"name\": \"job\"}')) FROM generate_series(1, 200)" >/dev/null
		sql_each "VACUUM ANALYZE event_queue.job; TRUNCATE yardstick.handled"
		sql -c "SELECT event_queue.resume_queue('handled')" -c "SELECT pg_sleep($seconds)" >/dev/null
		sql -c "SELECT count(*)::float8 / $seconds FROM yardstick.handled" >>"$work/ours"
		sql -c "SELECT event_queue.pause_queue('handled')" -c "SELECT event_queue.purge_queue('handled')" >/dev/null
		rate "$(sql -c "SHOW event_queue.executors")" handle_table >>"$work/theirs"
	done
	line drain_handlers
	sql -c "SELECT event_queue.drop_handler('handled', '*')" -c "SELECT event_queue.drop_queue('handled', force => true)" >/dev/null
fi
