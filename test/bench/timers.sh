# timers.sh: a rule's delay, and what a million open timers cost; sourced by run.sh.
# shellcheck shell=bash
#
#   latency_rule_p50_ms, latency_rule_p99_ms
#                  from the statement that appends an event to the first line of the
#                  handler whose job a rule makes of it, 20 events a second, so on an
#                  idle system; against the same handler's job enqueued without a rule.
#                  Wanted: 2 ms at p50.
#   timers_1m      jobs a second of 4 sessions, one at a time, beside a million timers (jobs
#                  with a key and a delay), against a queue with nothing else.  Wanted: 0.95.

if wanted latency_rule latency_rule_p50_ms latency_rule_p99_ms; then
	sql >/dev/null <<'SQL'
TRUNCATE event_queue.job;
CREATE TABLE yardstick.rule_latency (what text, ms float8, run int);
CREATE FUNCTION yardstick.handle_late(job event_queue.claimed_job) RETURNS void LANGUAGE sql AS $$
	INSERT INTO yardstick.rule_latency VALUES (job.name, (extract(epoch FROM clock_timestamp()) - (job.payload ->> 'at')::numeric) * 1000) $$;
DO $$ BEGIN
	PERFORM event_queue.create_queue('late');
	PERFORM event_queue.create_handler('late', '*', 'yardstick.handle_late');
	PERFORM event_queue.create_rule('late', 'late.happened', queue => 'late', job_name => 'rule', payload => '{"at": "$.data.at"}');
END $$;
SQL
	now="jsonb_build_object('at', extract(epoch FROM clock_timestamp()))"
	script append_late "SELECT event_queue.append('late', event_queue.uuid_v7()::text, 'late.happened', $now);"
	script enqueue_late "SELECT event_queue.enqueue('late', 'queue', $now);"
	sleep 1						# executors start
	for run in 1 2 3; do
		for late in append_late enqueue_late; do
			rate 1 "$late" postgres -R 20 >/dev/null
			sleep 0.5
			sql -c "UPDATE yardstick.rule_latency SET run = $run WHERE run IS NULL"
		done
	done
	# late_by WHAT PERCENT: of each run
	late_by() { sql -c "SELECT percentile_cont(0.$2) WITHIN GROUP (ORDER BY ms) FROM yardstick.rule_latency WHERE what = '$1' GROUP BY run"; }
	for percent in 50 99; do
		late_by rule $percent >"$work/ours"
		late_by queue $percent >"$work/theirs"
		line "latency_rule_p${percent}_ms"
	done
	sql -c "SELECT '# latency_rule: jobs measured: ' || string_agg(what || ' ' || n, ', ') FROM (SELECT what, count(*) AS n FROM yardstick.rule_latency GROUP BY what ORDER BY what) w"
	sql -c "SELECT event_queue.drop_rule('late')" -c "SELECT event_queue.drop_handler('late', '*')" \
		-c "SELECT event_queue.drop_queue('late', force => true)" >/dev/null
fi

if wanted timers_1m; then
	begin_line
	for _ in 1 2 3; do
		for with in theirs ours; do
			sql_each "$(fill 300000)"
			if [ $with = ours ]; then
				sql -c "SELECT count(event_queue.enqueue_many('bench', (SELECT jsonb_agg(jsonb_build_object('payload', '{\"a\": 1}'::jsonb, 'unique_key', 'timer ' || g * 1000 + n)) FROM generate_series(1, 1000) n), options => '{\"name\": \"job\", \"delay\": \"2 days\"}')) FROM generate_series(1, 1000) g" \
					-c 'VACUUM ANALYZE event_queue.job' >/dev/null
			fi
			rate 4 drain >>"$work/$with"
		done
	done
	line timers_1m
fi
