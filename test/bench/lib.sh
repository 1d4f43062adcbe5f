# lib.sh: what all benchmarks share; sourced by run.sh.
# shellcheck shell=bash
pgbench=$PG_BINDIR/pgbench
seconds=${EQ_BENCH_SECONDS:-5}
work=$(mktemp -d "${TMPDIR:-/tmp}/event_queue_bench.XXXXXX")
trap 'rm -rf "$work"' EXIT
export PGOPTIONS='-c client_min_messages=warning'

sql() { psql -XqAt -v ON_ERROR_STOP=1 "$@"; }
# sql_each STATEMENTS: one by one, as VACUUM needs it
sql_each() { sed 's/; /;\n/g' <<<"$1" | sql >/dev/null; }
# script NAME LINE...: a script for pgbench
script() { printf '%s\n' "${@:2}" >"$work/$1.sql"; }

# wanted NAME...: is one of them to be run?
wanted() {
	local name
	for name; do
		# shellcheck disable=SC2053
		if [[ $name == ${EQ_BENCH:-*} ]]; then
			return 0
		fi
	done
	return 1
}

# For the scripts that drain: nothing in hand at first.
no_job=(-D id=-1 -D token=00000000-0000-0000-0000-000000000000 -D ids={} -D tokens={} -D queue=bench)

# run_pgbench CLIENTS SCRIPT DATABASE [pgbench options]: transactions a second
run_pgbench() {
	"$pgbench" -n -M prepared -c "$1" -j 2 -f "$work/$2.sql" "${no_job[@]}" "${@:4}" "$3" 2>&1 |
		awk '/^tps/ { print $3 } /ERROR|aborted/ { print > "/dev/stderr" }'
}
# rate CLIENTS SCRIPT [DATABASE [pgbench options]]: the same, in $seconds
rate() { run_pgbench "$1" "$2" "${3:-postgres}" -T "$seconds" "${@:4}"; }
times() { awk -v n="$1" '{ print $1 * n }'; }

# The figures of the runs are gathered in two files, ours and theirs.
begin_line() {
	: >"$work/ours"
	: >"$work/theirs"
	: >"$work/ours_cpu"
	: >"$work/theirs_cpu"
}
median() { sort -n | awk '{ v[NR] = $1 } END { print v[int((NR + 1) / 2)] }'; }
# line NAME [FACTOR]: the medians of both files; FACTOR: units of ours
line() {
	awk -v name="$1" -v a="$(median <"$work/ours")" -v b="$(median <"$work/theirs")" -v f="${2:-1}" \
		'BEGIN { printf "BENCH %s event_queue=%.*f yardstick=%.*f ratio=%.2f\n", name, a * f < 100 ? 2 : 0, a * f, b < 100 ? 2 : 0, b, b ? a * f / b : 0 }'
}

# run_side SIDE SESSIONS SCRIPT JOBS-A-TRANSACTION: a run whose jobs a second, and
# microseconds of CPU a job of the server's sessions, go to the side's files.  CPU says
# more on a machine that is busy with other things.
server_ticks() { awk '{ sub(/.*\) /, ""); print $14 + $15 }' "/proc/$1/stat"; }
run_side() {
	local postmaster before tps
	postmaster=$(sql -c "SELECT split_part(pg_read_file('postmaster.pid'), E'\n', 1)")
	# ended sessions are the postmaster's ended children
	before=$(server_ticks "$postmaster")
	tps=$(rate "$2" "$3" | times "$4")
	sleep 0.5
	echo "$tps" >>"$work/$1"
	awk -v t="$(($(server_ticks "$postmaster") - before))" -v hz="$(getconf CLK_TCK)" -v jobs="$tps" -v s="$seconds" \
		'BEGIN { print jobs ? t / hz * 1e6 / (jobs * s) : 0 }' >>"$work/${1}_cpu"
}
cpu_line() { echo "# $1: microseconds of CPU a job: $(median <"$work/ours_cpu") against $(median <"$work/theirs_cpu")"; }

# bench NAME CLIENTS SCRIPT YARDSTICK-SCRIPT [SQL before each pair [FACTOR]]
first=
bench() {
	wanted "$1" || return 0
	begin_line
	for _ in 1 2 3; do
		[ -z "${5:-}" ] || sql -c "$5" >/dev/null
		rate "$2" "$3" postgres -D "first=${first:-0}" >>"$work/ours"
		rate "$2" "$4" postgres -D "first=${first:-0}" >>"$work/theirs"
	done
	line "$1" "${6:-1}"
}

# The yardsticks, and a queue.
sql >/dev/null <<'SQL'
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

script enqueue "SELECT event_queue.enqueue('bench', 'job', '{\"a\": 1}');"
script insert_job "INSERT INTO yardstick.job (queue, payload) VALUES ('bench', '{\"a\": 1}');"
script insert_notify 'BEGIN;' "$(cat "$work/insert_job.sql")" 'NOTIFY bench;' 'COMMIT;'

# Ours in one session: complete the jobs in hand and claim the next, in one call.
script drain "SELECT job_id AS id, lease_token AS token FROM event_queue.complete_and_claim(nullif(:id::bigint, -1), :token, :queue) \\gset"
drain_by() {
	script "drain_by_$1" "SELECT coalesce(array_agg(job_id), '{}') AS ids, coalesce(array_agg(lease_token), '{}') AS tokens
		FROM event_queue.complete_many_and_claim(:ids, :tokens, :queue, $1) \\gset"
}
drain_by 100
# The idiomatic way: one statement claims, one deletes.
claim_table() {
	cat <<SQL
UPDATE yardstick.job SET state = 'active', attempts = attempts + 1, leased_until = now() + interval '30 s'
	WHERE id = ANY (ARRAY(SELECT id FROM yardstick.job WHERE queue = 'bench' AND state = 'ready' AND run_at <= now()
		ORDER BY priority, run_at, id LIMIT $1 FOR UPDATE SKIP LOCKED)) RETURNING id
SQL
}
script drain_table "$(claim_table 1) \\gset" 'DELETE FROM yardstick.job WHERE id = :id;'
script drain_table_by_100 "WITH c AS ($(claim_table 100)) SELECT array_agg(id) AS ids FROM c \\gset" \
	'DELETE FROM yardstick.job WHERE id = ANY (:ids);'

empty='TRUNCATE yardstick.job; TRUNCATE event_queue.job'
# fill N: so many jobs in both tables, ready
fill() {
	echo "$empty; INSERT INTO yardstick.job (queue, payload) SELECT 'bench', '{\"a\": 1}' FROM generate_series(1, $1);
	SELECT count(event_queue.enqueue_many('bench', to_jsonb(ARRAY(SELECT '{\"payload\": {\"a\": 1}}'::jsonb FROM generate_series(1, 1000))), options => '{\"name\": \"job\"}')) FROM generate_series(1, $1 / 1000);
	VACUUM ANALYZE yardstick.job; VACUUM ANALYZE event_queue.job"
}

# An old snapshot, which keeps vacuum from its work.
hold_snapshot() {
	psql -XqAt -c "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM yardstick.event; SELECT pg_sleep(3600)" >/dev/null 2>&1 &
	holder=$!
	sleep 0.5
}
release_snapshot() {
	sql -c "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(3600)%' AND pid <> pg_backend_pid()" >/dev/null
	wait "$holder" || true
}
