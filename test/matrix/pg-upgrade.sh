#!/bin/bash
# pg-upgrade.sh OLD_PG_CONFIG NEW_PG_CONFIG: pg_upgrade from one major version to another.
# Run in a cell as root by matrix/run.sh, in the project's folder; builds and installs
# the extension for both servers.
#
# A database that is full of everything (test/upgrade/everything-0.1.0.sql, updated) is upgraded by copy
# and by link: every row comes over, nothing runs until activate(), and then all does.
# The last line is "N passed, N failed".
set -euo pipefail
top=$(cd "$(dirname "$0")/../.." && pwd)
old_config=$1
new_config=$2
old=$("$old_config" --bindir)
new=$("$new_config" --bindir)
test/lib/install-deps.sh build
for config in "$old_config" "$new_config"; do
	make -s -C "$top" clean PG_CONFIG="$config" >/dev/null
	make -s -C "$top" install PG_CONFIG="$config"
done

dir=$(mktemp -d "${TMPDIR:-/tmp}/event_queue_upgrade.XXXXXX")
chown postgres "$dir"
as_server() { (cd "$dir" && runuser -u postgres -- env LC_ALL=C.UTF-8 PGOPTIONS= "$@"); }
running=
stop() { [ -z "$running" ] || as_server "$running" -D "$1" -m fast -w stop >/dev/null; running=; }
finish() {
	status=$?
	trap - EXIT
	for data in old new; do
		if [ -f "$dir/$data/postmaster.pid" ]; then as_server "$new/pg_ctl" -D "$dir/$data" -m immediate stop >/dev/null || true; fi
	done
	if [ $status != 0 ]; then tail -n 40 "$dir"/log.* "$dir"/*.out >&2 2>/dev/null || true; fi
	rm -rf "$dir"
	exit $status
}
trap finish EXIT

init() {						# init BINDIR DATA
	as_server "$1/initdb" -D "$dir/$2" -U postgres -A trust -E UTF8 --locale=C.UTF-8 --no-sync ${3:-} >"$dir/initdb.out" 2>&1
	cat >>"$dir/$2/postgresql.conf" <<CONF
listen_addresses = ''
unix_socket_directories = '$dir'
shared_preload_libraries = 'event_queue'
max_worker_processes = 32
fsync = off
CONF
}
start() {						# start BINDIR DATA
	as_server "$1/pg_ctl" -D "$dir/$2" -l "$dir/log.$2" -w start >/dev/null
	running=$1/pg_ctl
}
# The client of the new server: \restrict and the like are not in the way
sql() { as_server "$new/psql" -h "$dir" -U postgres -XAtq -v ON_ERROR_STOP=1 -d "${2:-erp}" -c "$1"; }

passed=0
failed=0
is() {							# is GOT EXPECTED NAME
	if [ "$1" = "$2" ]; then
		passed=$((passed + 1))
		echo "ok - $3"
	else
		failed=$((failed + 1))
		printf 'not ok - %s\n# got:      %s\n# expected: %s\n' "$3" "$1" "$2"
	fi
}
becomes() {						# becomes SQL EXPECTED NAME
	local got= i
	for ((i = 0; i < 300; i++)); do
		got=$(sql "$1")
		[ "$got" = "$2" ] && break
		sleep 0.1
	done
	is "$got" "$2" "$3"
}

# Every row of every table of ours
rows="SELECT string_agg(c.oid::regclass || ' ' || public.rows_of(c.oid), E'\n' ORDER BY c.oid::regclass::text)
	FROM pg_class c WHERE c.relkind = 'r' AND c.relnamespace IN ('event_queue'::regnamespace, 'event_queue_internal'::regnamespace)"

for mode in copy link; do
	init "$old" old
	# workers stay away, so that rows can be compared
	echo "event_queue.databases = 'none'" >>"$dir/old/postgresql.conf"
	start "$old" old
	sql 'CREATE DATABASE erp' postgres
	as_server "$new/psql" -h "$dir" -U postgres -Xq -v ON_ERROR_STOP=1 -d erp -f - <"$top/test/upgrade/everything-0.1.0.sql" >"$dir/everything.out" 2>&1
	sql 'ALTER EXTENSION event_queue UPDATE'
	# shellcheck disable=SC2016
	sql 'CREATE FUNCTION public.rows_of(of regclass) RETURNS text LANGUAGE plpgsql AS $$
		DECLARE
			result text;
		BEGIN
			EXECUTE format($q$SELECT count(*) || chr(32) || md5(string_agg(t::text, chr(10) ORDER BY t::text)) FROM %s t$q$, of) INTO result;
			RETURN result;
		END $$'
	sql "CREATE TABLE public.upgraded (n int);
		CREATE FUNCTION public.upgraded(job event_queue.claimed_job) RETURNS void LANGUAGE sql AS 'INSERT INTO public.upgraded VALUES (1)';
		SELECT event_queue.create_queue('upgraded');
		SELECT event_queue.pause_queue('upgraded');
		SELECT event_queue.create_handler('upgraded', '*', 'public.upgraded');
		SELECT event_queue.enqueue('upgraded', 'x')" >/dev/null
	before=$(sql "$rows")
	position=$(sql 'SELECT event_queue.watermark()')
	stop "$dir/old"
	link=
	[ $mode = link ] && link=--link
	checksums=
	if "$new/initdb" --help | grep -q -- --no-data-checksums; then checksums=--no-data-checksums; fi
	init "$new" new "$checksums"
	as_server "$new/pg_upgrade" --no-sync $link -d "$dir/old" -D "$dir/new" -b "$old" -B "$new" -U postgres -s "$dir" >"$dir/pg_upgrade.out" 2>&1
	is $? 0 "$mode: pg_upgrade from $("$old_config" --version) to $("$new_config" --version)"
	start "$new" new
	is "$(sql 'SELECT event_queue.activation_state()')" copy "$mode: the upgraded server holds"
	is "$(sql "$rows")" "$before" "$mode: every row came over"
	sleep 3
	is "$(sql 'SELECT count(*) FROM public.upgraded; SELECT count(*) FROM event_queue.job WHERE leased_until > now()')" "$(printf '0\n0')" \
		"$mode: nothing runs"
	is "$(sql 'SELECT event_queue.enqueue($$upgraded$$, $$y$$)' 2>&1 | grep -c 'in service')" 1 "$mode: nor is anything enqueued"
	sql 'SELECT event_queue.activate()' >/dev/null
	sql "SELECT event_queue.resume_queue('upgraded')" >/dev/null
	becomes 'SELECT count(*) FROM public.upgraded' 1 "$mode: activated, the job runs"
	is "$(sql "SELECT position > $position FROM event_queue.append('a', 'after', 'upgrade')")" t "$mode: positions go on above"
	is "$(sql "SELECT count(*) > 0 FROM event_queue.read_all()")" t "$mode: old events are read"
	stop "$dir/new"
	rm -rf "$dir/old" "$dir/new"
done
echo "server: $("$new_config" --version | cut -d " " -f 2)"
echo "$passed passed, $failed failed"
[ $failed = 0 ]
