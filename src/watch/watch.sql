/*
 * watch.sql: what the background workers tell of themselves.
 */

/*
 * worker_faults: what the workers of this database can't do at present.
 *
 * Result: a row from a thing's first failure to its next success.  kind is
 * scheduler or rule runner (name is the step that fails), rule (its condition
 * was stopped at its time limit: name is the rule), handler (its function is
 * missing or may not be called: name is queue and job name), time limit (the
 * last job of a handler did not end: likewise), queue (no job could be claimed
 * from it), or worker (a
 * process that does not end: name is what it does).  failures in a row, since
 * the first of them; when it is tried again; the last error.  A restart of the
 * server begins anew.  Sessions confined to a tenant see no messages.
 */
CREATE FUNCTION worker_faults(
	OUT kind text, OUT name text, OUT failures int, OUT since timestamptz,
	OUT retry_at timestamptz, OUT sqlstate text, OUT message text)
RETURNS SETOF record
LANGUAGE C VOLATILE AS 'MODULE_PATHNAME', 'eq_worker_faults';
COMMENT ON FUNCTION worker_faults() IS
'What the background workers can''t do at present: steps of the scheduler and the rule runner that fail, rules whose condition does not end, handlers whose function is missing; since when, and the last error.';
