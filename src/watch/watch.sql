/*
 * watch.sql: what the background workers tell of themselves.
 */

/*
 * worker_faults: what the workers of this database can't do at present.
 *
 * Result: a row from a thing's first failure to its next success.  kind and name:
 * scheduler, rule runner, keeper: a step that fails; rule: its condition does not
 * end, so its firings are jobs of queue "rule-calls", and are refused at last
 * (EQ040); handler (queue/job name), rule function: it is missing or may not be
 * called, so its jobs wait and keep their attempts (EQ041); time limit: the last
 * job of this handler did not end, so it gets one executor at a time; queue: no
 * job can be claimed from it; worker: a process that does not even end when
 * terminated.  failures in a row, since the first of them; when it is tried again;
 * the last error.  A restart of the server begins anew.  Sessions confined to a
 * tenant see no messages, and no names of rules.
 */
CREATE FUNCTION worker_faults(
	OUT kind text, OUT name text, OUT failures int, OUT since timestamptz,
	OUT retry_at timestamptz, OUT sqlstate text, OUT message text)
RETURNS SETOF record
LANGUAGE C VOLATILE AS 'MODULE_PATHNAME', 'eq_worker_faults';
COMMENT ON FUNCTION worker_faults() IS
'What the background workers can''t do at present: steps of the scheduler and the rule runner that fail, rules whose condition does not end, handlers whose function is missing; since when, and the last error.';
