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
first=

echo "SELECT event_queue.append('bench', gen_random_uuid()::text, 'bench.event', '{\"a\": 1}', 'no_stream');" >"$work/append.sql"
echo "INSERT INTO yardstick.event VALUES (nextval('yardstick.position'), gen_random_uuid(), 'default', 'bench', gen_random_uuid()::text, 1, 'bench.event', '{\"a\": 1}', '{}', now());" >"$work/insert_event.sql"
echo "SELECT event_queue.enqueue('bench', 'job', '{\"a\": 1}');" >"$work/enqueue.sql"
echo "INSERT INTO yardstick.job (queue, payload) VALUES ('bench', '{\"a\": 1}');" >"$work/insert_job.sql"
printf '%s\n' 'BEGIN;' "INSERT INTO yardstick.job (queue, payload) VALUES ('bench', '{\"a\": 1}');" 'NOTIFY bench;' 'COMMIT;' >"$work/insert_notify.sql"
# In one session: complete the job in hand and claim the next, in one call.
cat >"$work/drain.sql" <<'SQL'
SELECT job_id AS id, lease_token AS token FROM event_queue.complete_and_claim(nullif(:id::bigint, -1), :token, 'bench') \gset
SQL
cat >"$work/drain_by_100.sql" <<'SQL'
SELECT coalesce(array_agg(job_id), '{}') AS ids, coalesce(array_agg(lease_token), '{}') AS tokens
	FROM event_queue.complete_many_and_claim(:ids, :tokens, 'bench', 100) \gset
SQL
# The idiomatic way: one statement claims, one deletes.
claim_table() {
	cat <<SQL
UPDATE yardstick.job SET state = 'active', attempts = attempts + 1, leased_until = now() + interval '30 s'
	WHERE id = ANY (ARRAY(SELECT id FROM yardstick.job WHERE queue = 'bench' AND state = 'ready' AND run_at <= now()
		ORDER BY priority, run_at, id LIMIT $1 FOR UPDATE SKIP LOCKED)) RETURNING id
SQL
}
printf '%s\n' "$(claim_table 1) \\gset" 'DELETE FROM yardstick.job WHERE id = :id;' >"$work/drain_table.sql"
printf '%s\n' "WITH c AS ($(claim_table 100)) SELECT array_agg(id) AS ids FROM c \\gset" 'DELETE FROM yardstick.job WHERE id = ANY (:ids);' >"$work/drain_table_by_100.sql"
cat >"$work/append_many.sql" <<'SQL'
SELECT count(*) FROM event_queue.append_many('bench', gen_random_uuid()::text, current_setting('bench.events')::jsonb, 'no_stream');
SQL
sql -c "ALTER DATABASE postgres SET bench.events = '$(
	sql -c "SELECT jsonb_agg('{\"event_type\": \"bench.event\", \"event_data\": {\"a\": 1}}'::jsonb) FROM generate_series(1, 100)")'"
printf '%s\n' '\set n random(1, 1000)' "SELECT * FROM event_queue.read_aggregate('reading', 'r' || :n);" >"$work/read_aggregate.sql"
printf '%s\n' '\set n random(1, 1000)' "SELECT * FROM event_queue.event_store WHERE aggregate_type = 'reading' AND aggregate_id = 'r' || :n AND tenant_id = 'default' ORDER BY version;" >"$work/select_aggregate.sql"
printf '%s\n' '\set n :first + random(0, 90000)' "SELECT * FROM event_queue.read_all(:n, 1000);" >"$work/read_all.sql"
printf '%s\n' '\set n :first + random(0, 90000)' "SELECT * FROM event_queue.event_store WHERE position > :n ORDER BY position LIMIT 1000;" >"$work/select_all.sql"

# rate CLIENTS SCRIPT [DATABASE [pgbench options]]: transactions a second
rate() {
	"$pgbench" -n -M prepared -c "$1" -j 2 -T "$seconds" -f "$work/$2.sql" "${@:4}" "${3:-postgres}" 2>&1 |
		awk '/^tps/ { print $3 } /ERROR|aborted/ { print > "/dev/stderr" }'
}
median() { sort -n | sed -n 2p; }
wanted() {
	# shellcheck disable=SC2053
	[[ $1 == ${EQ_BENCH:-*} ]]
}

# line NAME [FACTOR]: what the files ours and theirs hold; FACTOR: units of ours
line() {
	awk -v name="$1" -v a="$(median <"$work/ours")" -v b="$(median <"$work/theirs")" -v f="${2:-1}" \
		'BEGIN { printf "BENCH %s event_queue=%.*f yardstick=%.*f ratio=%.2f\n", name, a * f < 100 ? 2 : 0, a * f, b < 100 ? 2 : 0, b, a * f / b }'
}

# bench NAME CLIENTS SCRIPT YARDSTICK-SCRIPT [SQL before each pair [FACTOR]]
bench() {
	local i
	wanted "$1" || return 0
	: >"$work/ours"
	: >"$work/theirs"
	for i in 1 2 3; do
		[ -z "${5:-}" ] || sql -c "$5" >/dev/null
		rate "$2" "$3" postgres ${first:+-D "first=$first"} >>"$work/ours"
		rate "$2" "$4" postgres ${first:+-D "first=$first"} >>"$work/theirs"
	done
	line "$1" "${6:-1}"
}

for clients in 1 8 32; do
	bench "append_$clients" $clients append insert_event
done
bench append_many 1 append_many append '' 100

if wanted read_aggregate || wanted read_all; then
	first=$(sql -c 'SELECT event_queue.last_position()')
	sql -c "SELECT count(*) FROM generate_series(1, 1000) n, event_queue.append_many('reading', 'r' || n, current_setting('bench.events')::jsonb)" \
		-c 'VACUUM ANALYZE event_queue.event_store' >/dev/null
	bench read_aggregate 2 read_aggregate select_aggregate
	bench read_all 2 read_all select_all
	first=
fi

# Two stores, one with 100,000 events and one with EQ_BENCH_EVENTS (10 million):
# the same appends and reads against each.  The 100 events of an aggregate lie
# within 10,000: one that is active for a while, as they are.  Read are 100 of
# the aggregates, which come to be cached in both; read_cold_10m takes any, and
# its yardstick is the plain SELECT in the same store.
if wanted append_10m || wanted read_aggregate_10m || wanted read_cold_10m || wanted read_all_10m; then
	events=${EQ_BENCH_EVENTS:-10000000}
	for size in 100000 "$events"; do
		sql -c "CREATE DATABASE bench_$size" -c "ALTER DATABASE bench_$size SET maintenance_work_mem = '1GB'"
		# Indexes after the rows: loading is not what is measured.
		sql -d "bench_$size" <<SQL >/dev/null
CREATE EXTENSION event_queue;
BEGIN;
ALTER TABLE event_queue.event_store DISABLE TRIGGER events_loaded, DROP CONSTRAINT event_store_pkey, DROP CONSTRAINT event_store_aggregate_key,
	DROP CONSTRAINT event_store_id_key;
INSERT INTO event_queue.event_store
SELECT n, gen_random_uuid(), 'default', 'reading', 'r' || (n / 10000 * 100 + n % 100), n % 10000 / 100 + 1, 'bench.event', '{"a": 1}', '{"actor": "bench"}', now()
FROM generate_series(1, $size - 1) n;
ALTER TABLE event_queue.event_store ADD CONSTRAINT event_store_pkey PRIMARY KEY (position),
	ADD CONSTRAINT event_store_aggregate_key UNIQUE (aggregate_id, aggregate_type, tenant_id, version),
	ADD CONSTRAINT event_store_id_key UNIQUE (id, tenant_id), ENABLE TRIGGER events_loaded;
SELECT event_queue.skip_positions($size);
COMMIT;
VACUUM ANALYZE event_queue.event_store;
CHECKPOINT;
SQL
	done
	printf '%s\n' "\\set n random(1, 99) * (:events / 10000)" "SELECT * FROM event_queue.read_aggregate('reading', 'r' || :n);" >"$work/read_aggregate_of.sql"
	printf '%s\n' "\\set n random(1, :events / 100 - 1)" "SELECT * FROM event_queue.read_aggregate('reading', 'r' || :n);" >"$work/read_cold.sql"
	sed "s/event_queue.read_aggregate('reading', 'r' || :n)/event_queue.event_store WHERE aggregate_type = 'reading' AND aggregate_id = 'r' || :n AND tenant_id = 'default' ORDER BY version/" \
		"$work/read_cold.sql" >"$work/select_cold.sql"
	printf '%s\n' "\\set n random(1, :events - 1000)" "SELECT * FROM event_queue.read_all(:n, 1000);" >"$work/read_all_of.sql"
	for pair in append_10m:append:8 read_aggregate_10m:read_aggregate_of:2 read_cold_10m:read_cold:2 read_all_10m:read_all_of:2; do
		IFS=: read -r name script clients <<<"$pair"
		wanted "$name" || continue
		: >"$work/ours"
		: >"$work/theirs"
		for i in 1 2 3; do
			rate "$clients" "$script" "bench_$events" -D "events=$events" >>"$work/ours"
			if [ "$name" = read_cold_10m ]; then
				rate "$clients" select_cold "bench_$events" -D "events=$events" >>"$work/theirs"
			else
				rate "$clients" "$script" bench_100000 -D events=100000 >>"$work/theirs"
			fi
		done
		line "$name"
	done
	sql -c "DROP DATABASE bench_$events" -c 'DROP DATABASE bench_100000'
fi

# From append to the consumer, at 2,000 events a second, beside a transaction
# that has written elsewhere and stays open; the yardstick polls every 100 ms.
if wanted subscribe_lag; then
	sql <<'SQL'
CREATE TABLE yardstick.unrelated (n int);
CREATE TABLE yardstick.checkpoint (position bigint);
INSERT INTO yardstick.checkpoint VALUES (0);
CREATE TABLE yardstick.lag (run int, who text, ms double precision);
CREATE PROCEDURE yardstick.consume(run int, until timestamptz) LANGUAGE plpgsql AS $$
DECLARE
	place bigint := event_queue.watermark();
	events record;
	lags double precision[] := '{}';
BEGIN
	WHILE clock_timestamp() < until LOOP
		CALL event_queue.wait_for_events(place, '1 second', place);
		SELECT array_agg(extract(epoch FROM clock_timestamp() - e.created_at) * 1000) AS lags, max(e.position) AS last
		INTO events FROM event_queue.fetch_events('bench', 1000) e;
		IF events.last IS NOT NULL THEN
			lags := lags || events.lags;
			place := events.last;
			PERFORM event_queue.ack('bench', place);
		END IF;
		COMMIT;
	END LOOP;
	INSERT INTO yardstick.lag SELECT run, 'event_queue', l FROM unnest(lags) l;
END $$;
CREATE PROCEDURE yardstick.poll(run int, until timestamptz) LANGUAGE plpgsql AS $$
DECLARE
	events record;
	lags double precision[] := '{}';
BEGIN
	WHILE clock_timestamp() < until LOOP
		SELECT array_agg(extract(epoch FROM clock_timestamp() - e.created_at) * 1000) AS lags, max(e.position) AS last
		INTO events FROM yardstick.event e WHERE e.position > (SELECT c.position FROM yardstick.checkpoint c);
		IF events.last IS NOT NULL THEN
			lags := lags || events.lags;
			UPDATE yardstick.checkpoint c SET position = events.last;
		END IF;
		COMMIT;
		PERFORM pg_sleep(0.1);
	END LOOP;
	INSERT INTO yardstick.lag SELECT run, 'polling', l FROM unnest(lags) l;
END $$;
SQL
	sed 's/now()/clock_timestamp()/' "$work/insert_event.sql" >"$work/insert_event_now.sql"
	sql -c "BEGIN; INSERT INTO yardstick.unrelated VALUES (1); SELECT pg_sleep($((6 * (seconds + 3)))); ROLLBACK" >/dev/null &
	for i in 1 2 3; do
		sql -c "SELECT event_queue.create_subscription('bench', start => NULL)" >/dev/null
		sql -c "CALL yardstick.consume($i, clock_timestamp() + '$((seconds + 1)) s')" &
		consumer=$!
		rate 4 append postgres -R 2000 >/dev/null
		wait $consumer
		sql -c "SELECT event_queue.drop_subscription('bench')" -c 'UPDATE yardstick.checkpoint SET position = (SELECT max(position) FROM yardstick.event)' >/dev/null
		sql -c "CALL yardstick.poll($i, clock_timestamp() + '$((seconds + 1)) s')" &
		consumer=$!
		rate 4 insert_event_now postgres -R 2000 >/dev/null
		wait $consumer
	done
	wait
	for percent in 50 99; do
		for who in event_queue:ours polling:theirs; do
			sql -c "SELECT percentile_cont(0.$percent) WITHIN GROUP (ORDER BY ms) FROM yardstick.lag WHERE who = '${who%:*}' GROUP BY run" >"$work/${who#*:}"
		done
		line "subscribe_lag_p${percent}_ms"
	done
fi

empty='TRUNCATE yardstick.job; TRUNCATE event_queue.job'
# fill N: so many jobs in both tables, ready
fill() {
	echo "$empty; INSERT INTO yardstick.job (queue, payload) SELECT 'bench', '{\"a\": 1}' FROM generate_series(1, $1);
	SELECT count(event_queue.enqueue_many('bench', 'job', ARRAY(SELECT '{\"a\": 1}'::jsonb FROM generate_series(1, 1000)))) FROM generate_series(1, $1 / 1000);
	VACUUM ANALYZE yardstick.job; VACUUM ANALYZE event_queue.job"
}
# sql_each STATEMENTS: one by one, as VACUUM needs it
sql_each() { sed 's/; /;\n/g' <<<"$1" | sql >/dev/null; }

bench enqueue_wakeup_8 8 enqueue insert_job "$empty"
bench enqueue_wakeup_32 32 enqueue insert_job "$empty"
bench enqueue_vs_notify_32 32 enqueue insert_notify "$empty"

# Rows a second of enqueue_many by 1,000, against COPY into a table with the
# same columns and indexes.
if wanted enqueue_bulk; then
	sql -c "CREATE TABLE yardstick.bulk (LIKE event_queue.job INCLUDING DEFAULTS INCLUDING INDEXES INCLUDING STORAGE) WITH (fillfactor = 36)" \
		-c "CREATE SEQUENCE yardstick.bulk_id" -c "ALTER TABLE yardstick.bulk ALTER job_id SET DEFAULT nextval('yardstick.bulk_id'), ALTER run_at SET DEFAULT now(), ALTER created_at SET DEFAULT now()"
	sql -c "SELECT array_agg('{\"a\": 1}'::jsonb) FROM generate_series(1, 1000)" >"$work/payloads"
	{ echo "COPY yardstick.bulk (queue_id, priority, tenant_id, name, payload) FROM STDIN;"
		for _ in {1..1000}; do printf '3\t5\tdefault\tjob\t{"a": 1}\n'; done; echo '\.'; } >"$work/copy.one"
	echo "SELECT count(event_queue.enqueue_many('bench', 'job', '$(cat "$work/payloads")'));" >"$work/bulk.one"
	for _ in {1..200}; do cat "$work/copy.one"; done >"$work/copy.sql"
	for _ in {1..200}; do cat "$work/bulk.one"; done >"$work/bulk.sql"
	: >"$work/ours"; : >"$work/theirs"
	for i in 1 2 3; do
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

# drain NAME SESSIONS OURS THEIRS JOBS JOBS-A-TRANSACTION: jobs a second, from a
# store that does not run empty meanwhile
drain() {
	wanted "$1" || return 0
	: >"$work/ours"; : >"$work/theirs"
	for i in 1 2 3; do
		sql_each "$(fill "$5")"
		sql -c 'SELECT pg_stat_reset()' >/dev/null
		"$pgbench" -n -M prepared -c "$2" -j 2 -T "$seconds" -f "$work/$3.sql" -D ids={} -D tokens={} -D id=-1 -D token=00000000-0000-0000-0000-000000000000 postgres 2>&1 |
			awk -v n="$6" '/^tps/ { print $3 * n } /ERROR|aborted/ { print > "/dev/stderr" }' >>"$work/ours"
		rate "$2" "$4" | awk -v n="$6" '{ print $1 * n }' >>"$work/theirs"
	done
	line "$1"
	sql -c "SELECT format('# %s: updates of event_queue.job %s, of them HOT %s', '$1', n_tup_upd, n_tup_hot_upd) FROM pg_stat_user_tables WHERE relid = 'event_queue.job'::regclass"
}
drain drain_single 8 drain drain_table 400000 1
# The same in a queue whose settling need not be durable.
sql -c "SELECT event_queue.alter_queue('bench', '{\"durable\": false}')" >/dev/null
drain drain_single_async 8 drain drain_table 400000 1
sql -c "SELECT event_queue.alter_queue('bench', '{\"durable\": true}')" >/dev/null
drain drain_batch 4 drain_by_100 drain_table_by_100 1500000 100

# 64 claimers against 8, jobs a second in all.
if wanted claim_64; then
	: >"$work/ours"; : >"$work/theirs"
	for i in 1 2 3; do
		for pair in 64:ours 8:theirs; do
			sql_each "$(fill 400000)"
			rate "${pair%:*}" drain postgres -D ids={} -D tokens={} -D id=-1 -D token=00000000-0000-0000-0000-000000000000 >>"$work/${pair#*:}"
		done
	done
	line claim_64
fi

# Jobs a second in each tenth of a queue that is drained by 100 while a snapshot
# from before stays open: the last tenth against the table's last tenth, and
# against the own first tenth.
if wanted drain_held || wanted drain_held_flat; then
	held=${EQ_BENCH_HELD:-500000}
	sql <<'SQL'
CREATE TABLE yardstick.tenth (who text, run int, tenth int, rate float8);
CREATE PROCEDURE yardstick.drain_ours(run int, n int) LANGUAGE plpgsql AS $$
DECLARE
	ids bigint[] := '{}';
	tokens uuid[] := '{}';
	begun timestamptz := clock_timestamp();
BEGIN
	FOR i IN 1 .. n / 100 LOOP
		SELECT array_agg(c.job_id), array_agg(c.lease_token) INTO ids, tokens
		FROM event_queue.complete_many_and_claim(ids, tokens, 'bench', 100) c;
		COMMIT;
		IF i % (n / 1000) = 0 THEN
			INSERT INTO yardstick.tenth VALUES ('ours', run, i / (n / 1000), n / 10 / extract(epoch FROM clock_timestamp() - begun));
			begun := clock_timestamp();
		END IF;
	END LOOP;
END $$;
CREATE PROCEDURE yardstick.drain_theirs(run int, n int) LANGUAGE plpgsql AS $$
DECLARE
	ids bigint[];
	begun timestamptz := clock_timestamp();
BEGIN
	FOR i IN 1 .. n / 100 LOOP
		WITH c AS (UPDATE yardstick.job SET state = 'active', attempts = attempts + 1, leased_until = now() + interval '30 s'
			WHERE id = ANY (ARRAY(SELECT id FROM yardstick.job WHERE queue = 'bench' AND state = 'ready' AND run_at <= now()
				ORDER BY priority, run_at, id LIMIT 100 FOR UPDATE SKIP LOCKED)) RETURNING id)
		SELECT array_agg(id) INTO ids FROM c;
		COMMIT;
		DELETE FROM yardstick.job WHERE id = ANY (ids);
		COMMIT;
		IF i % (n / 1000) = 0 THEN
			INSERT INTO yardstick.tenth VALUES ('theirs', run, i / (n / 1000), n / 10 / extract(epoch FROM clock_timestamp() - begun));
			begun := clock_timestamp();
		END IF;
	END LOOP;
END $$;
SQL
	for i in 1 2 3; do
		sql_each "$(fill "$held")"
		psql -XqAt -c "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM yardstick.tenth; SELECT pg_sleep(3600)" >/dev/null 2>&1 &
		holder=$!
		sleep 0.5
		sql -c "CALL yardstick.drain_ours($i, $held)" -c "CALL yardstick.drain_theirs($i, $held)"
		sql -c "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(3600)%' AND pid <> pg_backend_pid()" >/dev/null
		wait "$holder" || true
	done
	tenth() { sql -c "SELECT rate FROM yardstick.tenth WHERE who = '$1' AND tenth = $2"; }
	tenth ours 10 >"$work/ours"
	tenth theirs 10 >"$work/theirs"
	line drain_held
	tenth ours 1 >"$work/theirs"
	line drain_held_flat
fi

# Claims of ready jobs beside a million that can't be claimed, against a queue
# that holds nothing else.
beside() {						# beside NAME SQL-THAT-ADDS-THEM
	wanted "$1" || return 0
	: >"$work/ours"; : >"$work/theirs"
	for i in 1 2 3; do
		for with in theirs ours; do
			sql_each "$(fill 300000)"
			if [ $with = ours ]; then
				sql -c "$2" -c 'VACUUM ANALYZE event_queue.job' >/dev/null
				# until the scheduler has looked at all groups
				while [ "$(sql -c 'SELECT count(*) FROM event_queue.job_review')" != 0 ]; do sleep 0.5; done
			fi
			rate 4 drain postgres -D id=-1 -D token=00000000-0000-0000-0000-000000000000 >>"$work/$with"
		done
	done
	line "$1"
}
beside claim_with_scheduled "SELECT count(event_queue.enqueue_many('bench', 'later', ARRAY(SELECT '{}'::jsonb FROM generate_series(1, 1000)), delay => '1 day')) FROM generate_series(1, 1000)"
beside claim_with_blocked "SELECT event_queue.enqueue('bench', 'head', group_key => 'g' || g, delay => '1 day') FROM generate_series(1, 1000) g;
	SELECT count(event_queue.enqueue_many('bench', 'blocked', ARRAY(SELECT '{}'::jsonb FROM generate_series(1, 1000)),
		group_keys => array_fill('g' || g, ARRAY[1000]))) FROM generate_series(1, 1000) g"

# From enqueue to the start of a handler, and to a claim by a session that waits,
# at 100 jobs a second, in ms; the yardstick: INSERT and NOTIFY, and a worker that
# asks the SKIP LOCKED table every millisecond (poll.pl).
if wanted latency_handler || wanted latency_session; then
	sql >/dev/null <<'SQL'
TRUNCATE event_queue.job;
CREATE TABLE yardstick.latency (what text, ms float8);
CREATE FUNCTION yardstick.handle(job event_queue.claimed_job) RETURNS void LANGUAGE sql AS $$
	INSERT INTO yardstick.latency VALUES ('handler', extract(epoch FROM clock_timestamp() - job.created_at) * 1000) $$;
DO $$ BEGIN PERFORM event_queue.create_queue('handled'), event_queue.create_queue('waited'); END $$;
SELECT event_queue.register_handler('handled', '*', 'yardstick.handle');
CREATE PROCEDURE yardstick.wait_and_claim(until timestamptz) LANGUAGE plpgsql AS $$
DECLARE
	jobs jsonb;
BEGIN
	WHILE clock_timestamp() < until LOOP
		CALL event_queue.claim_wait('waited', 1, '1 s', jobs);
		INSERT INTO yardstick.latency SELECT 'session', extract(epoch FROM clock_timestamp() - (j ->> 'created_at')::timestamptz) * 1000
		FROM jsonb_array_elements(jobs) j;
		PERFORM event_queue.complete((j ->> 'job_id')::bigint, (j ->> 'lease_token')::uuid) FROM jsonb_array_elements(jobs) j;
		COMMIT;
	END LOOP;
END $$;
SQL
	echo "SELECT event_queue.enqueue('handled', 'job', '{\"a\": 1}');" >"$work/enqueue_handled.sql"
	echo "SELECT event_queue.enqueue('waited', 'job', '{\"a\": 1}');" >"$work/enqueue_waited.sql"
	sed 's/payload)/payload, run_at)/; s/}.)/}'"'"', clock_timestamp())/' "$work/insert_notify.sql" >"$work/insert_notify_now.sql"
	sleep 1
	rate 1 enqueue_handled postgres -R 100 >/dev/null
	sql -c "CALL yardstick.wait_and_claim(clock_timestamp() + '$((seconds + 1)) s')" &
	waiter=$!
	sleep 0.5
	rate 1 enqueue_waited postgres -R 100 >/dev/null
	wait $waiter
	sql -c 'TRUNCATE yardstick.job'
	perl "$(dirname "$0")/poll.pl" "$((seconds + 1))" >"$work/polled" &
	waiter=$!
	sleep 0.5
	rate 1 insert_notify_now postgres -R 100 >/dev/null
	wait $waiter
	sql -c "\\copy yardstick.latency FROM '$work/polled'"
	for percent in 50 95 99; do
		for what in handler session; do
			for pair in "$what:ours" yardstick:theirs; do
				sql -c "SELECT percentile_cont(0.$percent) WITHIN GROUP (ORDER BY ms) FROM yardstick.latency WHERE what = '${pair%:*}'" >"$work/one"
				cat "$work/one" "$work/one" "$work/one" >"$work/${pair#*:}"
			done
			line "latency_${what}_p${percent}_ms"
		done
	done
fi

# Bytes of table and indexes for a million jobs passed, autovacuum running.
if wanted bloat; then
	: >"$work/ours"; : >"$work/theirs"
	for i in 1 2 3; do
		sql_each "$empty"
		for pair in job:drain:ours:event_queue.job table:drain_table:theirs:yardstick.job; do
			IFS=: read -r what script file table <<<"$pair"
			begin=$(sql -c 'SELECT clock_timestamp()')
			echo 0 >"$work/passed"
			for _ in {1..10}; do
				if [ $what = job ]; then
					sql -c "SELECT count(event_queue.enqueue_many('bench', 'job', ARRAY(SELECT '{\"a\": 1}'::jsonb FROM generate_series(1, 1000)))) FROM generate_series(1, 10)" >/dev/null
				else
					sql -c "INSERT INTO yardstick.job (queue, payload) SELECT 'bench', '{\"a\": 1}' FROM generate_series(1, 10000)" >/dev/null
				fi
				"$pgbench" -n -M prepared -c 4 -j 2 -t 2500 -f "$work/$script.sql" -D ids={} -D tokens={} -D id=-1 -D token=00000000-0000-0000-0000-000000000000 postgres >/dev/null 2>&1 || true
			done
			sql -c "SELECT pg_total_relation_size('$table') * 10" >>"$work/$file"
		done
	done
	line bloat
fi
sql_each "$empty"
