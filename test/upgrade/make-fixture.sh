#!/bin/bash
# make-fixture.sh VERSION: writes everything-VERSION.sql, the dump of a database that
# everything.sql has filled.  Run on a server whose library and extension are of that
# version, with event_queue preloaded, as its superuser; PGHOST and PGPORT say where.
#
# The dump is of all tables of the extension, not only of those that a dump carries.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
version=$1
export PGDATABASE=everything
psql -qXd postgres -c 'CREATE DATABASE everything'
[ "$(psql -qXAtd postgres -c "SELECT default_version FROM pg_available_extensions WHERE name = 'event_queue'")" = "$version" ]
psql -qXAt -f "$here/everything.sql" >/dev/null
# workers away, for a dump at rest
psql -qX -c "ALTER SYSTEM SET event_queue.databases = 'none'" -c 'SELECT pg_reload_conf()' >/dev/null
while [ "$(psql -qXAt -c "SELECT count(*) FROM pg_stat_activity WHERE datname = 'everything' AND backend_type ~ 'event_queue'")" != 0 ]; do
	sleep 0.2
done
psql -qX <<'SQL'
-- the role that was: what belongs to it stays
DO $$
BEGIN
	DELETE FROM pg_catalog.pg_shdepend WHERE refobjid = 'up_gone'::regrole;
END
$$;
DROP ROLE up_gone;
UPDATE pg_catalog.pg_extension e SET (extconfig, extcondition) = (SELECT array_agg(c.oid ORDER BY c.oid), array_agg(''::text)
	FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_class c ON c.oid = d.objid
	WHERE d.refclassid = 'pg_extension'::regclass AND d.refobjid = e.oid AND d.deptype = 'e'
	  AND d.classid = 'pg_class'::regclass AND c.relkind IN ('r', 'S'))
WHERE e.extname = 'event_queue';
SQL
{
	echo 'SET session_replication_role = replica;'
	for role in up_producer up_worker up_consumer up_observer up_admin up_by_hand '"Up Owner"'; do
		echo "CREATE ROLE $role;"
	done
	# What the extension's script has put into tables is in the dump, too.
	pg_dump --no-owner | sed "s/^\(CREATE EXTENSION .*event_queue\) .*;/\1 VERSION '$version';\nDELETE FROM event_queue.queue;\nDELETE FROM event_queue.event_watermark;/; /^\\\\\(un\)\?restrict/d"
} >"$here/everything-$version.sql"
