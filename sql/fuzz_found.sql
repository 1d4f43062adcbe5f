-- What "make fuzz" has found: one step for each kind.

-- A trigger function that is called by hand refuses, with a code that is no internal error.
SELECT p.proname, t.answer FROM pg_proc p, LATERAL (SELECT try(format('SELECT event_queue.%I()', p.proname)) AS answer) t
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
WHERE p.oid::regproc::text IN ('event_queue.count_row', 'event_queue.limits_changed', 'event_queue.bury_dependents') ORDER BY 1;
DROP FUNCTION on_other_tables(regproc);

-- A row that no function would have made.
INSERT INTO event_queue.job (job_id, queue_id, tenant_id, name, priority, run_at, created_at, payload)
VALUES (910001, 2000000000, 'default', 'lost', 5, now(), now(), '{}');
SELECT try($$SELECT event_queue.change_priority(910001, 1)$$);
DELETE FROM event_queue.job WHERE job_id = 910001;

-- A group to look at that is none stopped the scheduler, again and again.
SELECT split_part(try($$INSERT INTO event_queue.job_review (queue_id) VALUES (1)$$), ' | ', 1) AS refused;
ALTER TABLE event_queue.job_review DROP CONSTRAINT job_review_what;
INSERT INTO event_queue.job_review (queue_id) SELECT queue_id FROM event_queue.queue WHERE name = 'rule-calls';
SELECT event_queue.create_queue('fuzz found') > 0 AS created;
SELECT event_queue.enqueue('fuzz found', 'g', group_key => 'g') > 0 AS enqueued FROM generate_series(1, 2);
CALL settled();
CALL wait_until($$NOT EXISTS (SELECT FROM event_queue.job_review)$$);
SELECT event_queue.complete(job_id, lease_token) FROM event_queue.claim('fuzz found');
CALL wait_until($$EXISTS (SELECT FROM event_queue.claim('fuzz found'))$$);
ALTER TABLE event_queue.job_review ADD CONSTRAINT job_review_what
	CHECK (job_id IS NOT NULL OR num_nulls(queue_id, tenant_id, group_key) = 0);
SELECT event_queue.drop_queue('fuzz found', true);
