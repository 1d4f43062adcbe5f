-- What "make fuzz" has found: one step for each kind.

-- A trigger function that is called by hand refuses, with a code that is no internal error.
SELECT p.proname, t.answer FROM pg_proc p, LATERAL (SELECT try(format('SELECT %s', p.oid::regprocedure)) AS answer) t
WHERE p.pronamespace::regnamespace::text LIKE 'event\_queue%' AND p.prorettype = 'trigger'::regtype AND t.answer !~ '^(39P01|0A000):';

-- A role's tenant is looked up first in a parallel plan, by a policy or a call.
CREATE ROLE eq_fuzz_found;
SELECT event_queue.grant_observer('eq_fuzz_found', 'fuzz a');
CREATE TABLE fuzz_rows AS SELECT n FROM generate_series(1, 1000) n;
GRANT SELECT ON fuzz_rows TO eq_fuzz_found;
ANALYZE fuzz_rows;
SET parallel_setup_cost = 0;
SET parallel_tuple_cost = 0;
SET min_parallel_table_scan_size = 0;
SET max_parallel_workers_per_gather = 2;
SET ROLE eq_fuzz_found;
EXPLAIN (COSTS OFF) SELECT event_queue.current_tenant() FROM fuzz_rows WHERE n % 500 = 1;
SELECT event_queue.current_tenant() FROM fuzz_rows WHERE n % 500 = 1;
RESET ROLE;
-- A reader takes the snapshot of its statement there, where no newer one may be had.
SELECT event_queue.append('fuzz found', 'p', 'x', '{"n": 1}') IS NOT NULL, event_queue.append('fuzz found', 'p', 'x', '{"n": 2}') IS NOT NULL;
CREATE TABLE fuzz_big AS SELECT g FROM generate_series(1, 3000) g;
ANALYZE fuzz_big;
SELECT count(*) FROM (SELECT event_queue.aggregate_state('fuzz found', left('p', g)), event_queue.aggregate_diff('fuzz found', left('p', g), 1, 2),
	event_queue.read_aggregate('fuzz found', left('p', g)) FROM fuzz_big WHERE g < 3 OFFSET 0) x;
-- Likewise who looks at a queue.
SELECT count(n) FROM (SELECT event_queue_internal.count_scheduled(1 + g % 2, 1000) AS n FROM fuzz_big WHERE g < 3 OFFSET 0) x;
SELECT count(d) FROM (SELECT event_queue_internal.queue_depth(1 + g % 2) AS d FROM fuzz_big WHERE g < 3 OFFSET 0) x;
DROP TABLE fuzz_big;
RESET parallel_setup_cost;
RESET parallel_tuple_cost;
RESET min_parallel_table_scan_size;
RESET max_parallel_workers_per_gather;
DROP TABLE fuzz_rows;
SELECT event_queue.revoke_access('eq_fuzz_found');
DROP ROLE eq_fuzz_found;

-- They refuse tables of others, too: their columns are read by number.
CREATE FUNCTION on_other_tables(function regproc) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	CREATE TABLE fuzz_other (a int);
	EXECUTE format('CREATE TRIGGER t AFTER INSERT OR DELETE ON fuzz_other FOR EACH ROW EXECUTE FUNCTION %s()', function);
	INSERT INTO fuzz_other VALUES (1);
	DELETE FROM fuzz_other;
	DROP TABLE fuzz_other;
	RETURN 'ok';
END
$$;
SELECT p.proname, try(format('SELECT on_other_tables(%L)', p.oid::regproc)) FROM pg_proc p
WHERE p.oid::regproc::text IN ('event_queue_internal.count_row', 'event_queue_internal.limits_changed', 'event_queue_internal.bury_dependents') ORDER BY 1;
DROP FUNCTION on_other_tables(regproc);

-- A row that no function would have made.
INSERT INTO event_queue.job (job_id, queue_id, tenant_id, name, priority, run_at, created_at, payload)
VALUES (910001, 2000000000, 'default', 'lost', 5, now(), now(), '{}');
SELECT try($$SELECT event_queue.change_priority(910001, 1)$$);
DELETE FROM event_queue.job WHERE job_id = 910001;

INSERT INTO event_queue.job (job_id, queue_id, tenant_id, name, priority, run_at, created_at, payload)
SELECT 910002, queue_id, 'default', 'x', 5, now() + interval '1 hour', now(), '{}' FROM event_queue.queue WHERE name = 'rule-calls';
INSERT INTO event_queue.dead_letter (job_id, queue_id, tenant_id, name, priority, created_at, died_at, reason, failures, stalled, has_dependents, payload, metadata, errors)
SELECT 910003, queue_id, 'default', 'x', 5, now(), now(), 'failed', 1, 0, false, '{}', '{}', '[]' FROM event_queue.queue WHERE name = 'rule-calls';

-- Nothing to look at stopped the scheduler, again and again; a priority beyond all kept it
-- and the executors walking in circles.
SELECT s, split_part(try(s), ' | ', 1) FROM unnest(ARRAY[
	'INSERT INTO event_queue_internal.job_review (queue_id) VALUES (1)',
	'UPDATE event_queue.job SET priority = 32767 WHERE job_id = 910002',
	'UPDATE event_queue.job SET priority = -1 WHERE job_id = 910002',
	'UPDATE event_queue.job SET lane = -1 WHERE job_id = 910002',
	'UPDATE event_queue.dead_letter SET priority = 32767 WHERE job_id = 910003']) s;
DELETE FROM event_queue.job WHERE job_id = 910002;
DELETE FROM event_queue.dead_letter WHERE job_id = 910003;

-- A rule that makes a job without a name stopped the scheduler at its first event.
SELECT event_queue.create_queue('fuzz found') > 0, event_queue.create_rule('fuzz found', 'fuzz.never', queue => 'fuzz found', job_name => 'j') > 0;
SELECT split_part(try($$UPDATE event_queue.rule SET job_name = NULL WHERE name = 'fuzz found'$$), ' | ', 1);
SELECT split_part(try($$UPDATE event_queue.rule SET priority = 99999 WHERE name = 'fuzz found'$$), ' | ', 1);
SELECT event_queue.drop_rule('fuzz found'), event_queue.drop_queue('fuzz found');

-- The scheduler's scan for snapshots goes over dead entries of an index.
SELECT event_queue.create_reducer('fuzz dead', NULL, 20);
DO $$
BEGIN
	FOR i IN 1 .. 600 LOOP
		BEGIN
			PERFORM event_queue.append('fuzz dead', 'd', 'x', '{}');
			IF i % 3 <> 1 THEN
				RAISE division_by_zero;
			END IF;
		EXCEPTION WHEN division_by_zero THEN
			NULL;
		END;
	END LOOP;
END
$$;
CALL wait_until($$(SELECT max(version) FROM event_queue.aggregate_snapshot WHERE aggregate_type = 'fuzz dead') = 200$$);
SELECT event_queue.drop_reducer('fuzz dead');

-- Internal functions by hand, with NULL for what is never NULL
SELECT try($$SELECT event_queue_internal.audit(NULL, NULL, NULL)$$);

-- Names that are longer than those of functions, in rows that plain SQL has written
SELECT event_queue.create_queue('fuzz long', keep_completed => '1 day') > 0 AS created;
INSERT INTO event_queue.job (job_id, queue_id, tenant_id, name, priority, run_at, created_at, payload)
SELECT 920000 + n, queue_id, repeat('t', 2000 * n), repeat(chr(96 + n), 2000 * n), 5, now(), now(), '{}' FROM event_queue.queue, generate_series(1, 4) n WHERE name = 'fuzz long';
SELECT count(event_queue.complete(job_id, lease_token)) FROM event_queue.claim('fuzz long', 4);
SELECT event_queue.drop_queue('fuzz long', force => true);
-- a rule that is none
SELECT try('SELECT event_queue_internal.condition_parts(NULL::event_queue.rule, 1, NULL)'), try('SELECT event_queue_internal.try_rule(NULL::event_queue.rule, NULL)');
