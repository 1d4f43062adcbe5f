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
COMMENT ON COLUMN job_dependency.any_end IS 'The job waits for any end of the other one, not only for its completion (unique_mode replace).';
CREATE INDEX job_dependency_on ON job_dependency (depends_on) WHERE completed_at IS NULL;
ALTER TABLE job_dependency ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant_isolation ON job_dependency USING (tenant_visible(tenant_id));
SELECT pg_catalog.pg_extension_config_dump('job_dependency', '');

/*
 * lock_dependencies: locks what these jobs wait for and what waits for them, in the order
 * in which all do (depend.c).  After their dead letters and before any jobs: those who
 * end a job hold such rows while they lock others.
 */
CREATE FUNCTION event_queue_internal.lock_dependencies(ids bigint[]) RETURNS void
LANGUAGE sql SET search_path = pg_catalog, event_queue, pg_temp AS $$
	SELECT FROM event_queue.job_dependency d WHERE d.job_id = ANY ($1) OR d.depends_on = ANY ($1) AND d.completed_at IS NULL
	ORDER BY d.depends_on, d.job_id FOR UPDATE
$$;
COMMENT ON FUNCTION event_queue_internal.lock_dependencies(bigint[]) IS
'Internal. Locks the rows of job_dependency of dead letters that the caller has locked.';

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
 * dependency_results: the results of the jobs that a job depends on.
 * Result: a row for each, completed_at NULL while it is not finished.
 * Example:
 *	SELECT event_queue.enqueue('mail', 'render') AS first \gset
 *	SELECT event_queue.enqueue('mail', 'send', depends_on => ARRAY[:first]) AS second \gset
 *	SELECT depends_on, completed_at, result FROM event_queue.dependency_results(:second);
 */
CREATE FUNCTION dependency_results(
	job_id bigint, OUT depends_on bigint, OUT name text, OUT completed_at timestamptz, OUT result jsonb)
RETURNS SETOF record
LANGUAGE sql STABLE PARALLEL RESTRICTED SET search_path = pg_catalog, event_queue, pg_temp AS $$
	SELECT d.depends_on, d.name, d.completed_at, d.result FROM event_queue.job_dependency d
	WHERE d.job_id = $1 AND event_queue.tenant_visible(d.tenant_id) ORDER BY d.depends_on
$$;
COMMENT ON FUNCTION dependency_results(bigint) IS 'Results of the jobs that a job depends on.';

/*
 * enqueue_flow: adds a tree of jobs; each waits for its children, and sees their results by
 * dependency_results.
 * Arguments: flow is an object as in the jobs of enqueue_many, with "children", an array of such
 * objects; the others as enqueue_many.
 * Result: the id of the job at the top, which ends the flow.  Errors: as enqueue_many; EQ009
 * deeper than 100 levels.
 * Example:
 *	SELECT event_queue.enqueue_flow('mail', '{"name": "report", "children": [{"name": "fetch"}, {"name": "render"}]}') AS flow \gset
 */
CREATE FUNCTION enqueue_flow(queue text, flow jsonb, tenant_id text DEFAULT NULL, options jsonb DEFAULT NULL)
RETURNS bigint
LANGUAGE C VOLATILE AS 'MODULE_PATHNAME', 'eq_enqueue_flow';
COMMENT ON FUNCTION enqueue_flow(text, jsonb, text, jsonb) IS
'Adds a tree of jobs, each of which waits for its children; returns the id of the one at the top.';
