# steps.sh: durable steps; sourced by run.sh.
# shellcheck shell=bash
#
# steps: jobs of five steps a second, each step a transaction that inserts a row, done by a
# session that claims, does them and completes, against a fifth of the jobs a second that
# it does with one row each: as many rows, and as many commits but the claim.  At least 0.6.
if wanted steps; then
	sql >/dev/null <<'SQL'
CREATE TABLE yardstick.step (job_id bigint, n int);
SELECT event_queue.create_queue('steps');
CREATE PROCEDURE yardstick.do_steps(seconds float8) LANGUAGE plpgsql AS $$
DECLARE
	job event_queue.claimed_job;
	until timestamptz := clock_timestamp() + seconds * interval '1 s';
BEGIN
	WHILE clock_timestamp() < until LOOP
		SELECT * INTO job FROM event_queue.claim('steps');
		COMMIT;
		FOR n IN 1 .. 5 LOOP
			IF event_queue.step(job, 'step ' || n) IS NULL THEN
				INSERT INTO yardstick.step VALUES (job.job_id, n);
				PERFORM event_queue.step_done(job, 'step ' || n, to_jsonb(n));
			END IF;
			IF n = 5 THEN
				PERFORM event_queue.complete(job.job_id, job.lease_token);
			END IF;
			COMMIT;
		END LOOP;
	END LOOP;
END $$;
CREATE PROCEDURE yardstick.do_jobs(seconds float8) LANGUAGE plpgsql AS $$
DECLARE
	job event_queue.claimed_job;
	until timestamptz := clock_timestamp() + seconds * interval '1 s';
BEGIN
	SELECT * INTO job FROM event_queue.claim('steps');
	COMMIT;
	WHILE clock_timestamp() < until LOOP
		INSERT INTO yardstick.step VALUES (job.job_id, 1);
		SELECT * INTO job FROM event_queue.complete_and_claim(job.job_id, job.lease_token, 'steps');
		COMMIT;
	END LOOP;
END $$;
SQL
	begin_line
	for _ in 1 2 3; do
		for kind in steps jobs; do
			sql_each "SELECT event_queue.purge_queue('steps'); TRUNCATE yardstick.step" >/dev/null
			sql -c "SELECT count(event_queue.enqueue_many('steps',
				to_jsonb(ARRAY(SELECT '{\"payload\": {\"a\": 1}}'::jsonb FROM generate_series(1, 1000))), options => '{\"name\": \"job\"}')) FROM generate_series(1, 100)" >/dev/null
			sql_each "VACUUM ANALYZE event_queue.job; VACUUM ANALYZE event_queue.job_step" >/dev/null
			sql -c "CALL yardstick.do_$kind($seconds)" >/dev/null
			sql -c "SELECT count(*)::float8 / 5 / $seconds FROM yardstick.step" >>"$work/$([ $kind = steps ] && echo ours || echo theirs)"
		done
	done
	line steps
	sql -c "SELECT event_queue.drop_queue('steps', force => true)" >/dev/null
fi
