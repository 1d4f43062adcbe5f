/*
 * doctor_checks.c: the checks of "eventq doctor" beside the catalog.
 *
 * Each check is a statement that returns rows of (level, item, detail, repair): level is
 * error or warning, repair a statement or NULL; no row means that all is well.
 */
#include "doctor.h"

/* Tables of the extension and of its schemas: partitions, too */
#define OUR_TABLES                                                                          \
	"(SELECT c.*, c.oid::regclass::text AS name FROM pg_class c JOIN pg_namespace n "       \
	"ON n.oid = c.relnamespace WHERE n.nspname IN ('event_queue', 'event_queue_internal') " \
	"AND c.relkind IN ('r', 'p')) t"

const DoctorCheck eq_doctor_checks[] = {
	{"health", "SELECT 'error' AS level, check_name AS item, detail, hint AS repair "
			   "FROM event_queue.health() WHERE NOT ok"},

	{"settings",
	 "SELECT 'error' AS level, s.name AS item, 'off: tables of the queue grow without bound' AS detail, "
	 "format('ALTER SYSTEM RESET %I; SELECT pg_reload_conf()', s.name) AS repair "
	 "FROM pg_settings s WHERE s.name IN ('autovacuum', 'track_counts') AND s.setting = 'off' "
	 "UNION ALL SELECT 'warning', s.name, 'off: a crash of the machine may destroy the database', "
	 "format('ALTER SYSTEM RESET %I; SELECT pg_reload_conf()', s.name) "
	 "FROM pg_settings s WHERE s.name IN ('fsync', 'full_page_writes') AND s.setting = 'off' "
	 "UNION ALL SELECT 'warning', s.name, 'off: workers outside are not told of jobs', "
	 "'ALTER SYSTEM RESET event_queue.notify; SELECT pg_reload_conf()' "
	 "FROM pg_settings s WHERE s.name = 'event_queue.notify' AND s.setting = 'off' "
	 "UNION ALL SELECT 'warning', s.name, format('%s, of which this server''s databases share all', s.setting), "
	 "format('ALTER SYSTEM SET max_worker_processes = %s; -- and restart', x.setting::int + 8) "
	 "FROM pg_settings s, pg_settings x WHERE s.name = 'max_worker_processes' "
	 "AND x.name = 'event_queue.executors' AND s.setting::int < x.setting::int + 4"},

	{"triggers",
	 "SELECT 'error' AS level, t.name AS item, format('trigger %s is disabled', g.tgname) AS detail, "
	 "format('ALTER TABLE %s ENABLE %sTRIGGER %I', t.name, "
	 "CASE WHEN g.tgname IN ('refuse_change', 'refuse_truncate') THEN 'ALWAYS ' ELSE '' END, g.tgname) AS repair "
	 "FROM " OUR_TABLES " JOIN pg_trigger g ON g.tgrelid = t.oid "
	 "WHERE NOT g.tgisinternal AND g.tgenabled IN ('D', 'R') ORDER BY 2, 3"},

	{"indexes",
	 "SELECT 'error' AS level, t.name AS item, format('index %s is invalid', i.indexrelid::regclass) AS detail, "
	 "format('REINDEX INDEX %s', i.indexrelid::regclass) AS repair "
	 "FROM " OUR_TABLES
	 " JOIN pg_index i ON i.indrelid = t.oid WHERE NOT (i.indisvalid AND i.indisready) "
	 "AND t.relkind = 'r' ORDER BY 2, 3"},

	/* Each table of events has a key by position, aggregate and id, and its guards. */
	{"partitions",
	 "WITH leaf AS (SELECT t.oid, t.name, t.relrowsecurity, "
	 "(SELECT count(*) FROM pg_index i WHERE i.indrelid = t.oid AND i.indisunique) AS keys, "
	 "(SELECT count(*) FROM pg_trigger g WHERE g.tgrelid = t.oid AND g.tgname IN ('refuse_change', 'refuse_truncate') "
	 "AND g.tgenabled = 'A') AS guards "
	 "FROM pg_inherits h JOIN " OUR_TABLES " ON t.oid = h.inhrelid "
	 "WHERE h.inhparent = 'event_queue.event_store'::regclass) "
	 "SELECT 'error' AS level, name AS item, format('partition of events with %s of 3 keys', keys) AS detail, "
	 "NULL AS repair FROM leaf WHERE keys < 3 "
	 "UNION ALL SELECT 'error', name, 'partition of events that can be changed', 'SELECT event_queue_internal.mend_copy()' "
	 "FROM leaf WHERE guards < 2 "
	 "UNION ALL SELECT 'error', name, 'partition of events without row security', "
	 "format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY', name) FROM leaf WHERE NOT relrowsecurity "
	 "UNION ALL SELECT 'error', t.name, 'partition of finished jobs without row security', "
	 "format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY', t.name) "
	 "FROM pg_inherits h JOIN " OUR_TABLES " ON t.oid = h.inhrelid "
	 "WHERE h.inhparent = 'event_queue.job_history'::regclass AND NOT t.relrowsecurity "
	 "UNION ALL SELECT 'warning', t.name, format('%s in one table: partitions could be archived', "
	 "pg_size_pretty(pg_table_size(t.oid))), 'SELECT event_queue.set_event_partitioning(''1 month'')' "
	 "FROM " OUR_TABLES
	 " WHERE t.oid = 'event_queue.event_store'::regclass AND pg_table_size(t.oid) > 100 * 2^30 "
	 "AND NOT EXISTS (SELECT FROM pg_inherits h WHERE h.inhparent = t.oid) ORDER BY 2, 3"},

	{"bloat",
	 "SELECT 'warning' AS level, t.name AS item, format('%s dead rows beside %s living ones, last vacuum %s', "
	 "s.n_dead_tup, s.n_live_tup, coalesce(greatest(s.last_autovacuum, s.last_vacuum)::timestamptz(0)::text, 'never')) AS detail, "
	 "format('VACUUM (ANALYZE) %s', t.name) AS repair "
	 "FROM " OUR_TABLES " JOIN pg_stat_all_tables s ON s.relid = t.oid "
	 "WHERE s.n_dead_tup > 100000 AND s.n_dead_tup > s.n_live_tup "
	 "UNION ALL SELECT 'warning', t.name, format('%s for %s living rows', pg_size_pretty(pg_relation_size(t.oid)), s.n_live_tup), "
	 "format('VACUUM FULL %s; -- locks the table while it works', t.name) "
	 "FROM " OUR_TABLES " JOIN pg_stat_all_tables s ON s.relid = t.oid "
	 "WHERE t.relkind = 'r' AND t.oid IN ('event_queue.job'::regclass, 'event_queue.dead_letter'::regclass) "
	 "AND pg_relation_size(t.oid) > 2^30 AND s.n_live_tup < 100000 AND s.n_dead_tup < 100000 "
	 "UNION ALL SELECT 'warning', t.name, format('oldest row is %s transactions old', age(t.relfrozenxid)), "
	 "format('VACUUM (FREEZE) %s', t.name) FROM " OUR_TABLES
	 " WHERE t.relkind = 'r' "
	 "AND age(t.relfrozenxid) > 2.0 * current_setting('autovacuum_freeze_max_age')::int ORDER BY 2, 3"},

	/* What keeps vacuum from removing rows that jobs leave behind. */
	{"xmin",
	 "SELECT 'warning' AS level, format('session %s', a.pid) AS item, "
	 "format('%s of %s has a snapshot since %s: vacuum keeps all rows since then', a.state, a.usename, "
	 "a.xact_start::timestamptz(0)) AS detail, format('SELECT pg_terminate_backend(%s)', a.pid) AS repair "
	 "FROM pg_stat_activity a WHERE (a.backend_xmin IS NOT NULL OR a.backend_xid IS NOT NULL) "
	 "AND a.xact_start < now() - interval '1 hour' AND a.backend_type = 'client backend' "
	 "UNION ALL SELECT 'warning', format('slot %s', s.slot_name), format('%s slot holds back vacuum by %s transactions%s', "
	 "CASE WHEN s.active THEN 'the' ELSE 'an unused' END, greatest(age(s.xmin), age(s.catalog_xmin)), "
	 "CASE WHEN s.active THEN '' ELSE ', and WAL with it' END), "
	 "format('SELECT pg_drop_replication_slot(%L)', s.slot_name) "
	 "FROM pg_replication_slots s WHERE NOT s.active AND (age(s.xmin) > 100000 OR s.restart_lsn IS NOT NULL) "
	 "OR age(s.xmin) > 10000000 "
	 "UNION ALL SELECT 'warning', format('prepared transaction %s', p.gid), format('of %s, since %s: holds its locks and vacuum', "
	 "p.owner, p.prepared::timestamptz(0)), format('ROLLBACK PREPARED %L', p.gid) "
	 "FROM pg_prepared_xacts p WHERE p.prepared < now() - interval '1 hour' ORDER BY 2"},

	{NULL}};
