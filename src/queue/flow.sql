/*
 * flow.sql: jobs that depend on other jobs.  The scheduler unblocks them, as it does
 * groups (group.sql).
 */

CREATE TABLE job_dependency (
	job_id			bigint NOT NULL,
	depends_on		bigint NOT NULL,
	tenant_id		text COLLATE "C" NOT NULL,
	name			text,
	completed_at	timestamptz,
	result			jsonb,
	any_end			boolean NOT NULL DEFAULT false,
	PRIMARY KEY (job_id, depends_on)
);
COMMENT ON TABLE job_dependency IS 'Which jobs a job waits for, and their results; gone within a minute after the job.';
COMMENT ON COLUMN job_dependency.any_end IS 'It only comes after the other one (unique_mode replace): any end of that will do.';
CREATE INDEX job_dependency_on ON job_dependency (depends_on) WHERE completed_at IS NULL;
ALTER TABLE job_dependency ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant_isolation ON job_dependency USING (tenant_visible(tenant_id));
SELECT pg_catalog.pg_extension_config_dump('job_dependency', '');

/*
 * Jobs and dead letters that plain SQL deletes (purge_queue, drop_queue,
 * keep_failed, discard_dead, whoever has the right) take with them what waits
 * for them.
 */
CREATE FUNCTION event_queue_internal.bury_dependents() RETURNS trigger
LANGUAGE C AS 'MODULE_PATHNAME', 'eq_bury_dependents';
COMMENT ON FUNCTION event_queue_internal.bury_dependents() IS
'Internal. Trigger: jobs that depend on one that plain SQL deleted become dead letters.';
CREATE TRIGGER bury_dependents AFTER DELETE ON job
	FOR EACH ROW WHEN (OLD.has_dependents) EXECUTE FUNCTION event_queue_internal.bury_dependents();
CREATE TRIGGER bury_dependents AFTER DELETE ON dead_letter
	FOR EACH ROW WHEN (OLD.has_dependents) EXECUTE FUNCTION event_queue_internal.bury_dependents();

/*
 * dependency_results: what the jobs that a job depended on have returned.
 * Result: a row for each, completed_at NULL while it is not finished.
 */
CREATE FUNCTION dependency_results(
	job_id bigint, OUT depends_on bigint, OUT name text, OUT completed_at timestamptz, OUT result jsonb)
RETURNS SETOF record
LANGUAGE sql STABLE SET search_path = pg_catalog, event_queue, pg_temp AS $$
	SELECT d.depends_on, d.name, d.completed_at, d.result FROM event_queue.job_dependency d
	WHERE d.job_id = $1 AND event_queue.tenant_visible(d.tenant_id) ORDER BY d.depends_on
$$;
COMMENT ON FUNCTION dependency_results(bigint) IS 'Results of the jobs that a job depends on.';

/*
 * enqueue_flow: a tree of jobs in one call; each waits for its children.
 * Arguments: flow is an object with the options of enqueue_jobs and "children",
 * an array of such objects; queue is for those that name none.
 * Result: the id of the job at the top.  Errors: as enqueue_jobs; EQ009 deeper
 * than 100 levels.
 */
CREATE FUNCTION enqueue_flow(flow jsonb, queue text DEFAULT NULL, tenant_id text DEFAULT NULL, level int DEFAULT 1) RETURNS bigint
LANGUAGE plpgsql SET search_path = pg_catalog, event_queue, pg_temp AS $$
DECLARE
	children bigint[];
BEGIN
	IF flow IS NULL OR jsonb_typeof(flow) <> 'object' OR coalesce(jsonb_typeof(flow -> 'children'), 'array') <> 'array' THEN
		RAISE EXCEPTION USING ERRCODE = 'EQ009', MESSAGE = 'a flow must be a JSON object, its children an array of such objects';
	END IF;
	IF level > 100 THEN
		RAISE EXCEPTION USING ERRCODE = 'EQ009', MESSAGE = 'a flow must not be deeper than 100 levels';
	END IF;
	children := ARRAY(SELECT event_queue.enqueue_flow(c, $2, $3, $4 + 1)
		FROM jsonb_array_elements(flow -> 'children') WITH ORDINALITY AS x (c, n) ORDER BY n);
	IF children <> '{}' THEN
		flow := flow || jsonb_build_object('depends_on', coalesce(flow -> 'depends_on', '[]') || to_jsonb(children));
	END IF;
	RETURN (SELECT event_queue.enqueue_jobs(jsonb_build_array(flow - 'children'), $2, $3));
END
$$;
COMMENT ON FUNCTION enqueue_flow(jsonb, text, text, int) IS
'Adds a tree of jobs, each of which waits for its children; returns the id of the one at the top.';

/*
 * enqueue_batch: jobs, and one that runs when all of them are finished.
 * Arguments: jobs as enqueue_jobs; finally: one more such object.
 * Result: the id of the last one; dependency_results of it has their results.
 */
CREATE FUNCTION enqueue_batch(jobs jsonb, finally jsonb, queue text DEFAULT NULL, tenant_id text DEFAULT NULL) RETURNS bigint
LANGUAGE sql SET search_path = pg_catalog, event_queue, pg_temp AS $$
	SELECT event_queue.enqueue_flow($2 || jsonb_build_object('children', $1), $3, $4)
$$;
COMMENT ON FUNCTION enqueue_batch(jsonb, jsonb, text, text) IS
'Adds jobs, and one that runs when all of them are finished; returns its id.';
