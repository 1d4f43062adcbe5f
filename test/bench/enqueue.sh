# enqueue.sh: producers; sourced by run.sh.
# shellcheck shell=bash

# enqueue_wakeup_N: N sessions, one enqueue a transaction, which wakes who waits,
# against a plain INSERT that wakes no one.  Wanted: 0.95.
bench enqueue_wakeup_8 8 enqueue insert_job "$empty"
bench enqueue_wakeup_32 32 enqueue insert_job "$empty"
# The same against INSERT and NOTIFY, which does wake.  Wanted: 3.
bench enqueue_vs_notify_32 32 enqueue insert_notify "$empty"

# enqueue_bulk: rows a second of enqueue_many by 1,000, against COPY into a table
# with the same columns, indexes and fillfactor.  Wanted: 0.9.
if wanted enqueue_bulk; then
	sql -c "CREATE TABLE yardstick.bulk (LIKE event_queue.job INCLUDING DEFAULTS INCLUDING INDEXES INCLUDING STORAGE) WITH (fillfactor = 38)" \
		-c "CREATE SEQUENCE yardstick.bulk_id" -c "ALTER TABLE yardstick.bulk ALTER job_id SET DEFAULT nextval('yardstick.bulk_id'), ALTER run_at SET DEFAULT now(), ALTER created_at SET DEFAULT now()"
	sql -c "SELECT jsonb_agg('{\"payload\": {\"a\": 1}}'::jsonb) FROM generate_series(1, 1000)" >"$work/payloads"
	{ echo "COPY yardstick.bulk (queue_id, priority, tenant_id, name, payload) FROM STDIN;"
		for _ in {1..1000}; do printf '3\t5\tdefault\tjob\t{"a": 1}\n'; done; echo '\.'; } >"$work/copy.one"
	echo "SELECT count(event_queue.enqueue_many('bench', '$(cat "$work/payloads")', options => '{\"name\": \"job\"}'));" >"$work/bulk.one"
	for _ in {1..200}; do cat "$work/copy.one"; done >"$work/copy.sql"
	for _ in {1..200}; do cat "$work/bulk.one"; done >"$work/bulk.sql"
	begin_line
	for _ in 1 2 3; do
		sql -c "TRUNCATE yardstick.bulk" -c 'TRUNCATE event_queue.job' -c CHECKPOINT
		for pair in bulk:ours copy:theirs; do
			begin=$EPOCHREALTIME
			sql -f "$work/${pair%:*}.sql" >/dev/null
			awk -v a="$begin" -v b="$EPOCHREALTIME" 'BEGIN { print 200000 / (b - a) }' >>"$work/${pair#*:}"
		done
	done
	line enqueue_bulk
	sql -c 'DROP TABLE yardstick.bulk'
fi
