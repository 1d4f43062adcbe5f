-- when_changed looks down the aggregate's index and stops at the first event that has the field: counted in rows, however large the aggregate is.
SELECT event_queue.create_queue('huge') IS NOT NULL AS created;
SELECT event_queue.create_rule('huge', 'huge.never', when_changed => '{status}', queue => 'huge', job_name => 'x') IS NOT NULL AS created;
SELECT event_queue.create_rule('huge rare', 'huge.never', when_changed => '{rare}', queue => 'huge', job_name => 'x') IS NOT NULL AS created;
SELECT count(*) FROM generate_series(1, 10) g, LATERAL event_queue.append_many('huge', 'H1', (SELECT jsonb_agg(jsonb_build_object('event_type', 'huge.moved',
	'event_data', CASE WHEN g = 10 AND n = 950 THEN '{"rare": 1, "status": "open"}' ELSE '{"status": "open"}' END::jsonb) ORDER BY n) FROM generate_series(1, 1000) n));
SELECT position AS last FROM event_queue.append('huge', 'H1', 'huge.moved', '{"status": "won", "rare": 2}') \gset
CREATE FUNCTION rows_read() RETURNS TABLE (by_walk bigint, by_index bigint) LANGUAGE sql AS $$
	SELECT sum(seq_tup_read)::bigint, sum(idx_tup_fetch)::bigint FROM pg_stat_xact_all_tables
	WHERE schemaname LIKE 'event\_queue%' AND relname LIKE 'event%' $$;
-- rows_of: what a rule's look at the last event reads: nothing by a walk over the table, and few rows by the index.
CREATE FUNCTION rows_of(rule text, at bigint, most int) RETURNS TABLE (changed text, no_walk boolean, few boolean) LANGUAGE plpgsql AS $$
DECLARE
	before record;
	after record;
BEGIN
	SELECT * INTO before FROM rows_read();
	SELECT x.outcome INTO changed FROM event_queue.rule r, event_queue_internal.condition_parts(r, at, NULL) x WHERE r.name = rule;
	SELECT * INTO after FROM rows_read();
	RETURN QUERY SELECT changed, after.by_walk = before.by_walk, after.by_index - before.by_index BETWEEN 1 AND most;
END
$$;
-- In new sessions, which plan anew: as it is, and with statistics.
\c
SELECT * FROM rows_of('huge', :last, 10);
SELECT * FROM rows_of('huge rare', :last, 100);
ANALYZE event_queue.event_store;
\c
SELECT * FROM rows_of('huge', :last, 10);
SELECT * FROM rows_of('huge rare', :last, 100);
SELECT event_queue.drop_rule('huge'), event_queue.drop_rule('huge rare'), event_queue.drop_queue('huge');
DROP FUNCTION rows_of, rows_read;
