# bloat.sh: how large tables and indexes get; sourced by run.sh.
# shellcheck shell=bash
#
# bloat: bytes of table and indexes, with their free space and visibility maps, per
# million jobs passed.  A steady state: 10,000 jobs wait all the time while 100,000 x
# EQ_BENCH_SECONDS pass, in 4 sessions that each enqueue 100, claim 100 and complete
# them, at one pace on both sides (40,000 jobs a second), with autovacuum looking
# each second.  Vacuum makes room for what comes, so the size should settle at the
# jobs that pass between two vacuums, and not grow with all that ever passed: the
# lines below tell.  "fresh" is the size with the 10,000 jobs just entered, before
# any was claimed; then half way, and in the end.  Less is better; no ratio is
# wanted.  Ours is larger at the start, since it keeps more than half of each page
# free, so that claims write no index.
if wanted bloat; then
	passed=$((seconds * 100000))
	script pass_ours "SELECT cardinality(event_queue.enqueue_many('bench', to_jsonb(ARRAY(SELECT '{\"payload\": {\"a\": 1}}'::jsonb FROM generate_series(1, 100))), options => '{\"name\": \"job\"}'));" "$(cat "$work/drain_by_100.sql")"
	script pass_theirs "INSERT INTO yardstick.job (queue, payload) SELECT 'bench', '{\"a\": 1}' FROM generate_series(1, 100);" "$(cat "$work/drain_table_by_100.sql")"
	sql -c "ALTER SYSTEM SET autovacuum_naptime = '1 s'" -c 'SELECT pg_reload_conf()' >/dev/null
	begin_line
	for _ in 1 2 3; do
		sql_each "$(fill 10000)"
		for pair in ours:event_queue.job theirs:yardstick.job; do
			who=${pair%:*}
			size="SELECT pg_total_relation_size('${pair#*:}')"
			vacuums="SELECT autovacuum_count FROM pg_stat_user_tables WHERE relid = '${pair#*:}'::regclass"
			before=$(sql -c "$vacuums")
			sizes=$(sql -c "$size")
			for _ in 1 2; do
				run_pgbench 4 "pass_$who" postgres -t $((passed / 800)) -R 400 >/dev/null
				sizes+=" $(sql -c "$size")"
			done
			echo "# bloat: $who: fresh, half way, in the end: $sizes bytes; vacuumed $(($(sql -c "$vacuums") - before)) times"
			awk -v n="$passed" '{ print $NF / n * 1000000 }' <<<"$sizes" >>"$work/$who"
		done
	done
	line bloat
	sql -c 'ALTER SYSTEM RESET autovacuum_naptime' -c 'SELECT pg_reload_conf()' >/dev/null
fi
sql_each "$empty"
