#!/bin/bash
# run.sh: benchmarks on the server that PGHOST names; called by "make bench".
#
# Each is run three times, in turns with its yardstick in the same minute, since
# machines are noisy; printed are the medians:
#   BENCH name event_queue=N yardstick=N ratio=R     (N: per second)
# EQ_BENCH_SECONDS: length of one run (5); EQ_BENCH: a pattern of names (*).
set -euo pipefail
pgbench=$PG_BINDIR/pgbench
seconds=${EQ_BENCH_SECONDS:-5}
work=$(mktemp -d "${TMPDIR:-/tmp}/event_queue_bench.XXXXXX")
trap 'rm -rf "$work"' EXIT
export PGOPTIONS='-c client_min_messages=warning'
sql() { psql -XqAt -v ON_ERROR_STOP=1 "$@"; }

sql <<'SQL'
CREATE EXTENSION event_queue;
CREATE SCHEMA yardstick;
-- The same columns and unique indexes as the event store.
CREATE TABLE yardstick.event (LIKE event_queue.event_store);
ALTER TABLE yardstick.event ADD PRIMARY KEY (position),
	ADD UNIQUE (aggregate_id, aggregate_type, tenant_id, version), ADD UNIQUE (id, tenant_id);
CREATE SEQUENCE yardstick.position;
-- An idiomatic SKIP LOCKED table.
CREATE TABLE yardstick.job (id bigserial PRIMARY KEY, queue text NOT NULL, payload jsonb NOT NULL,
	state text NOT NULL DEFAULT 'ready', run_at timestamptz NOT NULL DEFAULT now(), priority int NOT NULL DEFAULT 0,
	attempts int NOT NULL DEFAULT 0, leased_until timestamptz);
CREATE INDEX ON yardstick.job (queue, priority, run_at, id) WHERE state = 'ready';
SELECT event_queue.create_queue('bench');
SQL

echo "SELECT event_queue.append('bench', gen_random_uuid()::text, 'bench.event', '{\"a\": 1}', 'no_stream');" >"$work/append.sql"
echo "INSERT INTO yardstick.event VALUES (nextval('yardstick.position'), gen_random_uuid(), 'default', 'bench', gen_random_uuid()::text, 1, 'bench.event', '{\"a\": 1}', '{}', now());" >"$work/insert_event.sql"
echo "SELECT event_queue.enqueue('bench', 'job', '{\"a\": 1}');" >"$work/enqueue.sql"
echo "INSERT INTO yardstick.job (queue, payload) VALUES ('bench', '{\"a\": 1}');" >"$work/insert_job.sql"
printf '%s\n' 'BEGIN;' "INSERT INTO yardstick.job (queue, payload) VALUES ('bench', '{\"a\": 1}');" 'NOTIFY bench;' 'COMMIT;' >"$work/insert_notify.sql"
cat >"$work/drain.sql" <<'SQL'
SELECT job_id, lease_token FROM event_queue.claim('bench') \gset
SELECT event_queue.complete(:job_id, :lease_token);
SQL
cat >"$work/drain_table.sql" <<'SQL'
UPDATE yardstick.job SET state = 'active', attempts = attempts + 1, leased_until = now() + interval '30 s'
	WHERE id = (SELECT id FROM yardstick.job WHERE queue = 'bench' AND state = 'ready' AND run_at <= now()
		ORDER BY priority, run_at, id LIMIT 1 FOR UPDATE SKIP LOCKED) RETURNING id \gset
DELETE FROM yardstick.job WHERE id = :id;
SQL

# rate CLIENTS SCRIPT: transactions a second
rate() {
	"$pgbench" -n -M prepared -c "$1" -j 2 -T "$seconds" -f "$work/$2.sql" 2>&1 |
		awk '/^tps/ { print $3 } /ERROR|aborted/ { print > "/dev/stderr" }'
}
median() { sort -n | sed -n 2p; }

# bench NAME CLIENTS SCRIPT YARDSTICK-SCRIPT [SQL before each pair]
bench() {
	local i
	# shellcheck disable=SC2053
	[[ $1 == ${EQ_BENCH:-*} ]] || return 0
	: >"$work/ours"
	: >"$work/theirs"
	for i in 1 2 3; do
		[ -z "${5:-}" ] || sql -c "$5" >/dev/null
		rate "$2" "$3" >>"$work/ours"
		rate "$2" "$4" >>"$work/theirs"
	done
	awk -v name="$1" -v a="$(median <"$work/ours")" -v b="$(median <"$work/theirs")" \
		'BEGIN { printf "BENCH %s event_queue=%.0f yardstick=%.0f ratio=%.2f\n", name, a, b, a / b }'
}

for clients in 1 8 32; do
	bench "append_$clients" $clients append insert_event
done
bench enqueue_wakeup_8 8 enqueue insert_job 'TRUNCATE yardstick.job; TRUNCATE event_queue.job'
bench enqueue_wakeup_32 32 enqueue insert_job 'TRUNCATE yardstick.job; TRUNCATE event_queue.job'
bench enqueue_vs_notify_32 32 enqueue insert_notify 'TRUNCATE yardstick.job; TRUNCATE event_queue.job'
bench drain_single 8 drain drain_table "TRUNCATE yardstick.job; TRUNCATE event_queue.job;
	INSERT INTO yardstick.job (queue, payload) SELECT 'bench', '{\"a\": 1}' FROM generate_series(1, 200000);
	SELECT count(event_queue.enqueue('bench', 'job', '{\"a\": 1}')) FROM generate_series(1, 200000);
	ANALYZE"
