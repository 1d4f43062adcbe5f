#!/bin/bash
# with-cluster.sh [--keep] COMMAND...: runs the command against a private server.
#
# The cluster lives in a temporary directory, listens on a unix socket there and
# nowhere else, belongs to the user postgres when root runs this (the server
# refuses root), and is removed at the end, also after an interrupt.  The
# command finds it by PGHOST, PGPORT, PGUSER and PGDATABASE; PG_BINDIR and
# EQ_SERVER_LOG are there too, and EQ_KEEP=1 with --keep.  --keep leaves it up and says how to reach it.
#
# EQ_FSYNC=off makes it quicker where nothing depends on durability.
# EQ_CONF holds further lines for postgresql.conf.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
pg_config=${PG_CONFIG:-$("$here/find-pg-config.sh")}
bindir=$("$pg_config" --bindir)

keep=0
if [ "${1:-}" = --keep ]; then
	keep=1
	shift
fi

dir=$(mktemp -d "${TMPDIR:-/tmp}/event_queue.XXXXXX")
if [ "$(id -u)" = 0 ]; then
	chown postgres "$dir"
	as_server() { runuser -u postgres -- "$@"; }
else
	as_server() { "$@"; }
fi

started=0
finish() {
	status=$?
	trap - EXIT INT TERM
	if [ $started = 1 ] && [ $keep = 1 ] && [ $status = 0 ]; then
		echo
		echo "The server is still up. Connect:  psql -h $dir -U postgres ${EQ_KEEP_DATABASE:-postgres}"
		echo "Stop it and remove it:           $([ "$(id -u)" = 0 ] && echo "runuser -u postgres -- ")$bindir/pg_ctl -D $dir/data -m fast stop && rm -rf $dir"
		exit 0
	fi
	if [ $status != 0 ] && [ -f "$dir/log" ]; then
		echo "--- last lines of the server's log" >&2
		tail -n "${EQ_LOG_LINES:-40}" "$dir/log" >&2
	fi
	if [ $started = 1 ]; then
		as_server "$bindir/pg_ctl" -D "$dir/data" -m immediate -w stop >/dev/null 2>&1 || true
	fi
	rm -rf "$dir"
	exit $status
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

cd "$dir"
as_server "$bindir/initdb" -D "$dir/data" -U postgres -A trust -E UTF8 --locale=C.UTF-8 --no-sync >"$dir/initdb.log" 2>&1 ||
	{ cat "$dir/initdb.log" >&2; exit 1; }
cat >>"$dir/data/postgresql.conf" <<CONF
listen_addresses = ''
unix_socket_directories = '$dir'
shared_preload_libraries = 'event_queue'
fsync = ${EQ_FSYNC:-on}
max_connections = 150
max_worker_processes = 32
max_prepared_transactions = 10
shared_buffers = 256MB
max_wal_size = 4GB
log_line_prefix = '%m [%p] %b %a: '
timezone = 'UTC'
datestyle = 'ISO, YMD'
${EQ_CONF:-}
CONF
as_server "$bindir/pg_ctl" -D "$dir/data" -l "$dir/log" -w start >/dev/null
started=1

export PGHOST=$dir PGPORT=5432 PGUSER=postgres PGDATABASE=postgres
export PG_BINDIR=$bindir EQ_SERVER_LOG=$dir/log EQ_KEEP=$keep
cd "$here/../.."
"$@"
