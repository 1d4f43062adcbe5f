# latency.sh: from enqueue to start, at 100 jobs a second, in ms; sourced by run.sh.
# shellcheck shell=bash
#
#   latency_handler_*  to the first line of a handler in the database
#   latency_session_*  to a job in the hands of an outside session that waits in
#                      CALL claim_wait
#   latency_listen_*   to a job in the hands of an outside session that LISTENs to
#                      the queue's channel and then claims
# each against an outside session that LISTENs, is woken by NOTIFY and takes the job
# from the SKIP LOCKED table.  Outside sessions are one program, worker.pl, and need
# DBD::Pg (package libdbd-pg-perl).  A job's time begins with the statement that
# enqueues it, one round trip for all, so its commit is included.  Less is better;
# no ratio is wanted.

latency_lines=(latency_{handler,session,listen}_p{50,95,99}_ms)
latency_kinds=()
if wanted "${latency_lines[@]}" latency_{handler,session,listen}; then
	if perl -MDBD::Pg -e 1 2>/dev/null; then
		latency_kinds=(handler session listen table)
	else
		echo '# skipped: latency_*: perl has no DBD::Pg (package libdbd-pg-perl)'
	fi
fi
if [ ${#latency_kinds[@]} != 0 ]; then
	sql >/dev/null <<'SQL'
TRUNCATE event_queue.job;
TRUNCATE yardstick.job;
CREATE TABLE yardstick.latency (what text, ms float8, run int);
CREATE FUNCTION yardstick.handle(job event_queue.claimed_job) RETURNS void LANGUAGE sql AS $$
	INSERT INTO yardstick.latency VALUES ('handler', extract(epoch FROM clock_timestamp() - job.created_at) * 1000) $$;
DO $$ BEGIN PERFORM event_queue.create_queue('handler'), event_queue.create_queue('session'), event_queue.create_queue('listen'); END $$;
SELECT event_queue.create_handler('handler', '*', 'yardstick.handle');
SQL
	for what in handler session listen; do
		script "enqueue_$what" "SELECT event_queue.enqueue('$what', 'job', '{\"a\": 1}');"
	done
	script enqueue_table "WITH job AS (INSERT INTO yardstick.job (queue, payload) VALUES ('bench', '{\"a\": 1}')) SELECT pg_notify('bench', '');"
	sleep 1						# executors start
	for run in 1 2 3; do
		for what in "${latency_kinds[@]}"; do
			if [ "$what" != handler ]; then
				perl "$bench_dir/worker.pl" "$what" "$((seconds + 2))" >"$work/latency" &
				worker=$!
				sleep 1
			fi
			rate 1 "enqueue_$what" postgres -R 100 >/dev/null
			if [ "$what" != handler ]; then
				wait "$worker"
				sql -c "\\copy yardstick.latency (what, ms) FROM '$work/latency'"
			fi
			sleep 0.2
			sql -c "UPDATE yardstick.latency SET run = $run WHERE run IS NULL"
		done
	done
	# latencies WHAT PERCENT: of each run
	latencies() { sql -c "SELECT percentile_cont(0.$2) WITHIN GROUP (ORDER BY ms) FROM yardstick.latency WHERE what = '$1' GROUP BY run"; }
	for what in handler session listen; do
		for percent in 50 95 99; do
			latencies $what $percent >"$work/ours"
			latencies table $percent >"$work/theirs"
			line "latency_${what}_p${percent}_ms"
		done
	done
	sql -c "SELECT '# latency: jobs measured: ' || string_agg(what || ' ' || n, ', ') FROM (SELECT what, count(*) AS n FROM yardstick.latency GROUP BY what ORDER BY what) w"
fi
