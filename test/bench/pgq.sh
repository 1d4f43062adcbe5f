# pgq.sh: against PgQ 3.5, Debian's postgresql-15-pgq3; sourced by run.sh.
# shellcheck shell=bash
#
# PgQ is an event log with cursors, so it does less: a batch is what came between
# two ticks and is finished as a whole, by one consumer; there are no leases,
# priorities, delays, limits or groups, and no attempts by job (an event may be put
# into a retry queue).  Nothing in its tables is ever updated or deleted, they are
# truncated in turns.  Nobody is woken.  So these lines have no wanted ratio: they
# show what the features cost.

pgq_lines=(enqueue_vs_pgq_8 enqueue_vs_pgq_32 enqueue_bulk_vs_pgq drain_vs_pgq drain_vs_pgq_500)
pgq=
if ! wanted "${pgq_lines[@]}"; then
	:
elif sql -c "CREATE EXTENSION pgq" >/dev/null 2>&1; then
	pgq=1
	script pgq_insert "SELECT pgq.insert_event('bench', 'job', '{\"a\": 1}');"
	script pgq_insert_1000 "SELECT count(pgq.insert_event('bench', 'job', '{\"a\": 1}')) FROM generate_series(1, 1000);"
	script enqueue_1000 "SELECT cardinality(event_queue.enqueue_many('bench', to_jsonb(ARRAY(SELECT '{\"payload\": {\"a\": 1}}'::jsonb FROM generate_series(1, 1000))), options => '{\"name\": \"job\"}'));"
	# As PgQ's own consumers do it: the batch is opened in one transaction, read
	# and finished in another.
	script pgq_drain "SELECT pgq.next_batch('bench', 'bench') AS batch \\gset" 'BEGIN;' \
		'SELECT count(ev_id) AS n FROM pgq.get_batch_events(:batch) \gset' 'SELECT pgq.finish_batch(:batch);' 'COMMIT;'
	sql >/dev/null <<'SQL'
-- n batches of so many jobs each: a tick after each.
CREATE PROCEDURE yardstick.fill_pgq(n int, size int) LANGUAGE plpgsql AS $$
BEGIN
	PERFORM pgq.set_queue_config('bench', 'ticker_max_count', '1');
	FOR i IN 1 .. n LOOP
		PERFORM pgq.insert_event('bench', 'job', '{"a": 1}') FROM generate_series(1, size);
		COMMIT;
		PERFORM pgq.ticker('bench');
		COMMIT;
	END LOOP;
END $$;
SQL
else
	for name in "${pgq_lines[@]}"; do
		wanted "$name" && echo "# skipped: $name: the server has no PgQ (package postgresql-15-pgq3)"
	done
fi
# An empty queue of PgQ's, with a consumer.
new_pgq="SELECT pgq.drop_queue(queue_name, true) FROM pgq.queue; SELECT pgq.create_queue('bench'); SELECT pgq.register_consumer('bench', 'bench')"

if [ -n "$pgq" ]; then
	# enqueue_vs_pgq_N: N sessions, one job a transaction, against pgq.insert_event.
	bench enqueue_vs_pgq_8 8 enqueue pgq_insert "$empty; $new_pgq"
	bench enqueue_vs_pgq_32 32 enqueue pgq_insert "$empty; $new_pgq"
	# enqueue_bulk_vs_pgq: jobs a second by 1,000 a transaction, one session:
	# enqueue_many against 1,000 calls of insert_event in one statement, as PgQ has
	# no bulk insert.
	if wanted enqueue_bulk_vs_pgq; then
		begin_line
		for _ in 1 2 3; do
			sql -c "$empty; $new_pgq" >/dev/null
			rate 1 enqueue_1000 | times 1000 >>"$work/ours"
			rate 1 pgq_insert_1000 | times 1000 >>"$work/theirs"
		done
		line enqueue_bulk_vs_pgq
	fi
fi

# drain_vs_pgq: jobs a second of one session (a queue of PgQ's has one for each
# consumer): complete_many_and_claim by 100, one transaction each, against batches
# of 100 events.  drain_vs_pgq_500: both by 500, PgQ's default batch.
drain_vs_pgq() {				# drain_vs_pgq NAME SIZE BATCHES
	[ -n "$pgq" ] && wanted "$1" || return 0
	drain_by "$2"
	begin_line
	for _ in 1 2 3; do
		sql_each "$(fill $(($2 * ($3 + 100) / 1000 * 1000)))"
		run_pgbench 1 "drain_by_$2" postgres -t "$3" | times "$2" >>"$work/ours"
		sql -c "$new_pgq" -c "CALL yardstick.fill_pgq($3, $2)" -c ANALYZE >/dev/null
		run_pgbench 1 pgq_drain postgres -t "$3" | times "$2" >>"$work/theirs"
	done
	line "$1"
}
drain_vs_pgq drain_vs_pgq 100 $((seconds * 200))
drain_vs_pgq drain_vs_pgq_500 500 $((seconds * 100))
