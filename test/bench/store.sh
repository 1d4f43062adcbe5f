# store.sh: the event store; sourced by run.sh.
# shellcheck shell=bash

script append "SELECT event_queue.append('bench', gen_random_uuid()::text, 'bench.event', '{\"a\": 1}', 'no_stream');"
script insert_event "INSERT INTO yardstick.event VALUES (nextval('yardstick.position'), gen_random_uuid(), 'default', 'bench', gen_random_uuid()::text, 1, 'bench.event', '{\"a\": 1}', '{}', now());"
script append_many "SELECT count(*) FROM event_queue.append_many('bench', gen_random_uuid()::text, current_setting('bench.events')::jsonb, 'no_stream');"
script read_aggregate '\set n random(1, 1000)' "SELECT * FROM event_queue.read_aggregate('reading', 'r' || :n);"
script select_aggregate '\set n random(1, 1000)' "SELECT * FROM event_queue.event_store WHERE aggregate_type = 'reading' AND aggregate_id = 'r' || :n AND tenant_id = 'default' ORDER BY version;"
script read_all '\set n :first + random(0, 90000)' "SELECT * FROM event_queue.read_all(:n, 1000);"
script select_all '\set n :first + random(0, 90000)' "SELECT * FROM event_queue.event_store WHERE position > :n ORDER BY position LIMIT 1000;"
sql -c "ALTER DATABASE postgres SET bench.events = '$(
	sql -c "SELECT jsonb_agg('{\"event_type\": \"bench.event\", \"event_data\": {\"a\": 1}}'::jsonb) FROM generate_series(1, 100)")'"

# Appends, one a transaction, each to an aggregate of its own, against the plain
# INSERT into a table with the same columns and unique indexes.
for clients in 1 8 32; do
	bench "append_$clients" $clients append insert_event
done
# Events a second of append_many by 100, against one append for each.
bench append_many 1 append_many append '' 100

# An aggregate of 100 events, and 1,000 events in order, through the functions,
# against the plain SELECT from the same table.
if wanted read_aggregate read_all; then
	first=$(sql -c 'SELECT event_queue_internal.last_position()')
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
if wanted append_10m read_aggregate_10m read_cold_10m read_all_10m; then
	events=${EQ_BENCH_EVENTS:-10000000}
	for size in 100000 "$events"; do
		sql -c "CREATE DATABASE bench_$size" -c "ALTER DATABASE bench_$size SET maintenance_work_mem = '1GB'"
		# Indexes after the rows: loading is not what is measured.
		sql -d "bench_$size" <<SQL >/dev/null
CREATE EXTENSION event_queue;
BEGIN;
SET LOCAL allow_system_table_mods = on;
ALTER TABLE event_queue.event_store DISABLE TRIGGER events_loaded, DROP CONSTRAINT event_store_pkey, DROP CONSTRAINT event_store_aggregate_key,
	DROP CONSTRAINT event_store_id_key;
INSERT INTO event_queue.event_store
SELECT n, gen_random_uuid(), 'default', 'reading', 'r' || (n / 10000 * 100 + n % 100), n % 10000 / 100 + 1, 'bench.event', '{"a": 1}', '{"actor": "bench"}', now()
FROM generate_series(1, $size - 1) n;
ALTER TABLE event_queue.event_store ADD CONSTRAINT event_store_pkey PRIMARY KEY (position),
	ADD CONSTRAINT event_store_aggregate_key UNIQUE (aggregate_id, aggregate_type, tenant_id, version),
	ADD CONSTRAINT event_store_id_key UNIQUE (id, tenant_id), ENABLE TRIGGER events_loaded;
SELECT event_queue_internal.skip_positions($size);
COMMIT;
VACUUM ANALYZE event_queue.event_store;
CHECKPOINT;
SQL
	done
	script read_aggregate_of '\set n random(1, 99) * (:events / 10000)' "SELECT * FROM event_queue.read_aggregate('reading', 'r' || :n);"
	script read_cold '\set n random(1, :events / 100 - 1)' "SELECT * FROM event_queue.read_aggregate('reading', 'r' || :n);"
	sed "s/event_queue.read_aggregate('reading', 'r' || :n)/event_queue.event_store WHERE aggregate_type = 'reading' AND aggregate_id = 'r' || :n AND tenant_id = 'default' ORDER BY version/" \
		"$work/read_cold.sql" >"$work/select_cold.sql"
	script read_all_of '\set n random(1, :events - 1000)' "SELECT * FROM event_queue.read_all(:n, 1000);"
	for pair in append_10m:append:8 read_aggregate_10m:read_aggregate_of:2 read_cold_10m:read_cold:2 read_all_10m:read_all_of:2; do
		IFS=: read -r name script clients <<<"$pair"
		wanted "$name" || continue
		begin_line
		for _ in 1 2 3; do
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
		sql -c "SELECT event_queue.create_subscription('bench', from_position => NULL)" >/dev/null
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
