# held.sh: draining while an old snapshot keeps vacuum from its work; sourced by
# run.sh.
# shellcheck shell=bash

# Jobs a second in each tenth of a queue that is drained by 100 by one session
# while a snapshot from before stays open.
#   drain_held       its last tenth against the last tenth of the SKIP LOCKED
#                    table, drained in the same way.  Wanted: 8.
#   drain_held_flat  its last tenth against its own first.  Wanted: 0.95.
if wanted drain_held drain_held_flat; then
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
		hold_snapshot
		sql -c "CALL yardstick.drain_ours($i, $held)" -c "CALL yardstick.drain_theirs($i, $held)"
		release_snapshot
	done
	tenth() { sql -c "SELECT rate FROM yardstick.tenth WHERE who = '$1' AND tenth = $2"; }
	tenth ours 10 >"$work/ours"
	tenth theirs 10 >"$work/theirs"
	line drain_held
	tenth ours 1 >"$work/theirs"
	line drain_held_flat
fi

# drain_limited_*_held: the same for queues with a limit: 8 sessions, one job at a
# time, the second EQ_BENCH_SECONDS under an old snapshot against the first.  No
# ratio is wanted; below 1: the limit's own rows are in the way.
limited_held() {				# limited_held NAME SETTING VALUE
	wanted "$1" || return 0
	begin_line
	sql -c "SELECT event_queue.alter_queue('bench', $2 => $3)" >/dev/null
	for _ in 1 2 3; do
		sql_each "$(fill $((seconds * 50000)))"
		hold_snapshot
		rate 8 drain >>"$work/theirs"
		rate 8 drain >>"$work/ours"
		release_snapshot
	done
	sql -c "SELECT event_queue.alter_queue('bench', reset => '{$2}')" >/dev/null
	line "$1"
}
limited_held drain_limited_rate_held rate_limit 1000000
limited_held drain_limited_concurrency_held max_concurrency 1000
