/*
 * handler.sql: jobs run in the caller's own session.
 */

/*
 * run_jobs: runs jobs of a queue that are due by their handlers, in the caller's own
 * session and transaction: a test sees what came of them and rolls it all back, a
 * script works a queue off by itself.
 *
 * As an executor does it: the handler runs as its owner, with the search_path of its own
 * schema; its effects and the job's completion are one subtransaction; an error undoes them
 * and is recorded, and the job waits for its backoff or is a dead letter.  A job that is
 * due again at once is run again.  Jobs are claimed one by one, beyond the first hundred
 * by the hundred.
 *
 * Not as an executor does it: no time limit but the session's statement_timeout, which
 * ends the whole call; settings, advisory locks, temporary tables and open cursors of the
 * session are there: a handler can read on in a cursor of the caller, and close it.
 * Deferred triggers and constraints fire as the call begins and as each job ends;
 * SET CONSTRAINTS ALL IMMEDIATE holds from then on.  A handler whose owner is not the
 * present role is a security-restricted operation: no temporary tables, no held cursors (SET
 * ROLE to the owner for these).  Rules, and jobs that a group or a dependency holds back,
 * go on after the commit only.
 *
 * Arguments: max_jobs: at most so many runs.
 * Result: a row for each run: outcome is completed, failed (tried again at next_run_at), dead,
 * postponed (the handler can't be called now, or has raised EQ061, which counts as no attempt), or lost (another
 * job's handler has deleted it: nothing of its run is left, and nothing is recorded); result:
 * what the handler returned, if jsonb; error and sqlstate of a failure.
 * A session that is confined to a tenant runs that tenant's jobs only.
 * Errors: EQ008 called by a handler, EQ009 max_jobs not in 1 to 100000, EQ010 no such
 * queue, EQ025 the queue has no handler, EQ035 internal queue, EQ036 not activated, 42501
 * the caller may not SET ROLE to the owner of each handler of the queue.
 * Isolation: as claim, complete and fail.
 * Example:
 *	SELECT event_queue.create_handler('letters', '*', 'send_letter', if_not_exists => true);
 *	BEGIN;
 *	SELECT event_queue.enqueue('letters', 'letter', '{"to": "Ana"}');
 *	SELECT name, outcome, result, error FROM event_queue.run_jobs('letters');
 *	ROLLBACK;
 */
CREATE FUNCTION run_jobs(
	queue text, max_jobs int DEFAULT 100,
	OUT job_id bigint, OUT name text, OUT attempt int, OUT outcome text, OUT result jsonb, OUT error text, OUT sqlstate text,
	OUT next_run_at timestamptz)
RETURNS SETOF record
LANGUAGE C VOLATILE AS 'MODULE_PATHNAME', 'eq_run_jobs';
COMMENT ON FUNCTION run_jobs(text, int) IS
'Runs jobs of a queue by their handlers in the caller''s own transaction, which may be rolled back; a row for each run.';
