#!/bin/bash
# compare.sh COMMIT: this tree against another state of it, in the same minutes; called
# by "make bench-compare BASE=COMMIT".  Root only: each side has the folders of the server
# in a mount namespace of its own, with its own library, SQL and programs.
#
# Both servers are up at the same time; runs of a second alternate between them, so that
# whatever else the machine does meets both.  Printed for each script:
#   COMPARE name this=N base=N ratio=R low=R high=R cpu=R
# N: medians a second; R: median of the ratios of neighbouring runs, and their quartiles;
# cpu: the same of transactions for each second of CPU that the server's sessions took,
# which depends less on what else the machine does.
# ROUNDS: pairs of runs (15).  ONLY: names of scripts.  COMMIT may be "." for this state, with
# BASE_CFLAGS: "make bench-counters" compares it with itself without counters so.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
top=$(dirname "$(dirname "$here")")
base=$1
rounds=${ROUNDS:-15}
pg_config=${PG_CONFIG:-$("$top/test/lib/find-pg-config.sh")}
libdir=$("$pg_config" --pkglibdir)
sharedir=$("$pg_config" --sharedir)
bindir=$("$pg_config" --bindir)
work=$(mktemp -d "${TMPDIR:-/tmp}/event_queue_compare.XXXXXX")
chmod 755 "$work"
pids=()
finish() {
	status=$?
	for side in this base; do
		touch "$work/$side.stop"
	done
	[ ${#pids[@]} = 0 ] || wait "${pids[@]}" || true
	rm -rf "$work"
	exit $status
}
trap finish EXIT

# inside SIDE COMMAND...: with the side's own files of the server
inside() {
	local side=$1
	shift
	# shellcheck disable=SC2016
	unshare -m bash -c 'mount --bind "$0/lib" "$1" && mount --bind "$0/share" "$2" && mount --bind "$0/bin" "$3" && cd "$0/tree" && shift 3 && exec "$@"' \
		"$work/$side" "$libdir" "$sharedir" "$bindir" "$@"
}

for side in this base; do
	mkdir -p "$work/$side/tree"
	cp -a "$libdir" "$work/$side/lib"
	cp -a "$sharedir" "$work/$side/share"
	cp -a "$bindir" "$work/$side/bin"
	rm -f "$work/$side/lib/event_queue.so" "$work/$side/share/extension/event_queue"*
done
this_tree() { git -C "$top" ls-files -z | tar cf - -C "$top" --null -T -; }
this_tree | tar xf - -C "$work/this/tree"
if [ "$base" = . ]; then this_tree; else git -C "$top" archive "$base"; fi | tar xf - -C "$work/base/tree"

# What a side does: a server that stays until it is told to go.
cat >"$work/stay.sh" <<'SH'
psql -XqAt -v ON_ERROR_STOP=1 >/dev/null <<'SQL'
CREATE EXTENSION event_queue;
SELECT event_queue.create_queue('bench');
SELECT event_queue.append('lead', 'L' || g, 'lead.created', '{"a": 1}') FROM generate_series(1, 2000) g;
SQL
psql -XqAt -v ON_ERROR_STOP=1 -c "SELECT count(event_queue.enqueue('bench', 'job', '{\"a\": 1}')) FROM generate_series(1, 400000)" -c "VACUUM ANALYZE event_queue.job" >/dev/null
head -1 "$(psql -XqAt -c 'SHOW data_directory')/postmaster.pid" >"$1.pid"
echo "$PGHOST" >"$1.ready"
while [ ! -e "$1.stop" ]; do sleep 0.2; done
SH
for side in this base; do
	flags=
	[ "$side" = this ] || flags=${BASE_CFLAGS:-}
	inside "$side" make -s -j2 PG_CONFIG="$pg_config" EXTRA_CFLAGS="$flags" >/dev/null
	inside "$side" make -s install PG_CONFIG="$pg_config" >/dev/null
	PG_CONFIG=$pg_config EQ_CONF="shared_buffers = 1GB" inside "$side" bash test/lib/with-cluster.sh bash "$work/stay.sh" "$work/$side" &
	pids+=($!)
done
for side in this base; do
	until [ -e "$work/$side.ready" ]; do
		sleep 0.2
	done
done

# at SHARE FILE: the quantile
at() { sort -g "$work/$2" | awk -v share="$1" '{ v[NR] = $1 } END { printf v[1] < 100 ? "%.3f" : "%d", v[int(share * (NR - 1) + 1.5)] }'; }

# ticks SIDE: of CPU, of sessions that have ended
ticks() { awk '{ sub(/.*\) /, ""); print $14 + $15 }' "/proc/$(cat "$work/$1.pid")/stat"; }

# compare NAME SESSIONS SCRIPT [SCRIPT-OF-BASE]; BEFORE: SQL before each run
compare() {
	[[ " ${ONLY:-$1} " = *" $1 "* ]] || return 0
	printf '%s\n' "$3" >"$work/$1.this.sql"
	printf '%s\n' "${4:-$3}" >"$work/$1.base.sql"
	for i in $(seq "$rounds"); do
		for side in $([ $((i % 2)) = 0 ] && echo this base || echo base this); do
			[ -z "${BEFORE:-}" ] || PGHOST=$(cat "$work/$side.ready") "$bindir/psql" -XqAtU postgres -c "$BEFORE" postgres >"$work/before"
			before=$(ticks "$side")
			tps=$(PGHOST=$(cat "$work/$side.ready") "$bindir/pgbench" -n -M prepared -U postgres -c "$2" -j 2 -T 1 -f "$work/$1.$side.sql" \
				-D id=-1 -D token=00000000-0000-0000-0000-000000000000 postgres 2>/dev/null | awk '/^tps/ { print $3 }')
			sleep 0.1
			echo "$tps" >>"$work/$1.$side"
			awk -v t="$(($(ticks "$side") - before))" -v tps="$tps" 'BEGIN { print tps / t }' >>"$work/$1.$side.cpu"
		done
	done
	for what in "$1" "$1.cpu"; do
		paste "$work/${what/$1/$1.this}" "$work/${what/$1/$1.base}" | awk '{ print $1 / $2 }' >"$work/$what.ratio"
	done
	echo "COMPARE $1 this=$(at 0.5 "$1.this") base=$(at 0.5 "$1.base") ratio=$(at 0.5 "$1.ratio") low=$(at 0.25 "$1.ratio") high=$(at 0.75 "$1.ratio") cpu=$(at 0.5 "$1.cpu.ratio")"
}
compare enqueue 8 "SELECT event_queue.enqueue('bench', 'job', '{\"a\": 1}');"
compare drain 8 "SELECT job_id AS id, lease_token AS token FROM event_queue.complete_and_claim(nullif(:id::bigint, -1), :token, 'bench') \\gset"
# not rolled back: that measures how the indexes get rid of dead rows
BEFORE="SELECT count(event_queue.enqueue('bench', 'job', '{\"a\": 1}')) FROM generate_series(1, 150000 - (SELECT count(*) FROM event_queue.job))" \
	compare claim_64 2 "SELECT count(*) FROM (SELECT event_queue.complete_many(array_agg(job_id), array_agg(lease_token)) FROM event_queue.claim('bench', 64)) x;"
compare append 8 "SELECT event_queue.append('lead', 'N' || (random() * 1e9)::bigint, 'lead.created', '{\"a\": 1}');"
compare append_next 8 "\\set n random(1, 2000)
SELECT event_queue.append('lead', 'L' || :n, 'lead.moved', '{\"a\": 1}');"
compare read_aggregate 2 "\\set n random(1, 2000)
SELECT * FROM event_queue.read_aggregate('lead', 'L' || :n);"
compare read_all 2 "SELECT count(*) FROM event_queue.read_all(0, 1000);"
