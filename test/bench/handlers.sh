# handlers.sh: SQL handlers in the database; sourced by run.sh.
# shellcheck shell=bash
#
# Jobs a second that the executors run, with the default settings, against 8 outside
# sessions that call the same function in a loop, with a commit each.
#
#   handler_trivial  the handler inserts a row.  Wanted: 3.
#   handler_tasks    it makes three tasks of a lead, each with its job.  Wanted: 2.
#   handler_batch    it takes an array of 100 jobs and inserts their rows, against
#                    handler_trivial's executors.  Wanted: 2.
#   drain_handlers   handler_trivial against as many outside sessions as there are executors, which take a
#                    job from the SKIP LOCKED table, insert the row and delete the job in one
#                    transaction.  No ratio is wanted.
if wanted handler_trivial handler_tasks handler_batch drain_handlers; then
	sql >/dev/null <<'SQL'
CREATE TABLE yardstick.handled (job_id bigint);
CREATE TABLE yardstick.task (task_id bigserial PRIMARY KEY, lead_id bigint NOT NULL, title text NOT NULL);
CREATE FUNCTION yardstick.handle_trivial(job event_queue.claimed_job) RETURNS void LANGUAGE sql AS $$
	INSERT INTO yardstick.handled VALUES (job.job_id) $$;
CREATE FUNCTION yardstick.handle_tasks(job event_queue.claimed_job) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
	task bigint;
BEGIN
	INSERT INTO yardstick.handled VALUES (job.job_id);
	FOR step IN 1 .. 3 LOOP
		INSERT INTO yardstick.task (lead_id, title) VALUES (job.job_id, 'Step ' || step) RETURNING task_id INTO task;
		PERFORM event_queue.enqueue('reminders', 'remind', jsonb_build_object('task', task), delay => '1 day');
	END LOOP;
END $$;
CREATE FUNCTION yardstick.handle_batch(jobs event_queue.claimed_job[]) RETURNS void LANGUAGE sql AS $$
	INSERT INTO yardstick.handled SELECT job_id FROM unnest(jobs) $$;
SELECT event_queue.create_queue('handled'), event_queue.create_queue('reminders');
SQL
	for handler in trivial tasks; do
		script "call_$handler" '\set id random(1, 1000000000)' \
			"SELECT yardstick.handle_$handler(jsonb_populate_record(NULL::event_queue.claimed_job, jsonb_build_object('job_id', :id::bigint)));"
	done
	script handle_table 'BEGIN;' "$(claim_table 1) \\gset" 'INSERT INTO yardstick.handled VALUES (:id);' \
		'DELETE FROM yardstick.job WHERE id = :id;' 'COMMIT;'
	# executors HANDLER [BATCH]: jobs a second, from a queue that does not run empty meanwhile
	executors() {
		local each="TRUNCATE yardstick.handled; TRUNCATE yardstick.task"
		sql -c "SELECT event_queue.create_handler('handled', '*', 'yardstick.handle_$1', batch_size => ${2:-NULL}, or_replace => true)" \
			-c "SELECT event_queue.pause_queue('handled')" -c "SELECT event_queue.purge_queue('handled'), event_queue.purge_queue('reminders')" \
			-c "SELECT count(event_queue.enqueue_many('handled',
				to_jsonb(ARRAY(SELECT '{\"payload\": {\"a\": 1}}'::jsonb FROM generate_series(1, 1000))), options => '{\"name\": \"job\"}'))
				FROM generate_series(1, $(((${2:-1} > 1 ? 200 : 100) * seconds)))" >/dev/null
		sql_each "VACUUM ANALYZE event_queue.job; $each"
		sql -c "SELECT event_queue.resume_queue('handled')" -c "SELECT pg_sleep($seconds)" \
			-c "SELECT event_queue.pause_queue('handled')" >/dev/null
		sql -c "SELECT count(*)::float8 / $seconds FROM yardstick.handled"
	}
	for handler in trivial tasks; do
		wanted "handler_$handler" || continue
		begin_line
		for _ in 1 2 3; do
			executors "$handler" >>"$work/ours"
			rate 8 "call_$handler" >>"$work/theirs"
		done
		line "handler_$handler"
	done
	if wanted handler_batch; then
		begin_line
		for _ in 1 2 3; do
			executors batch 100 >>"$work/ours"
			executors trivial >>"$work/theirs"
		done
		line handler_batch
	fi
	if wanted drain_handlers; then
		begin_line
		for _ in 1 2 3; do
			sql_each "$(fill 200000)"
			executors trivial >>"$work/ours"
			rate "$(sql -c "SHOW event_queue.executors")" handle_table >>"$work/theirs"
		done
		line drain_handlers
	fi
	sql -c "SELECT event_queue.drop_handler('handled', '*')" -c "SELECT event_queue.drop_queue('handled', force => true)" \
		-c "SELECT event_queue.drop_queue('reminders', force => true)" >/dev/null
fi
