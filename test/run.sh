#!/bin/bash
# run.sh [--only PART] [KIND...]: the test run; kinds are regress, isolation,
# pgtap and tap, all by default.  Called by "make check" and "make check-one".
#
# Each kind runs against private clusters (lib/with-cluster.sh); the TAP tests
# make their own.  EQ_LONG=1 runs the long forms of the crash and model tests.
# The last line is "N passed, N failed"; the status is 1 if any failed.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
top=$(dirname "$here")
only=
if [ "${1:-}" = --only ]; then
	only=$2
	shift 2
fi
kinds=("$@")
[ ${#kinds[@]} = 0 ] && kinds=(regress isolation pgtap tap)

PG_CONFIG=${PG_CONFIG:-$("$here/lib/find-pg-config.sh")}
export PG_CONFIG
# Alerts append events, which tests that count events don't expect; those of alerts have
# them on.  (TEMP_CONFIG is read by PostgreSQL::Test::Cluster.)
export EQ_CONF="event_queue.alert_interval = 0
${EQ_CONF:-}"
pgxs=$(dirname "$("$PG_CONFIG" --pgxs)")/../..
work=$(mktemp -d "${TMPDIR:-/tmp}/event_queue_tests.XXXXXX")
chmod 755 "$work"
trap 'rm -rf "$work"' EXIT
echo 'event_queue.alert_interval = 0' >"$work/temp.conf"
export TEMP_CONFIG=$work/temp.conf
trap 'exit 130' INT
trap 'exit 143' TERM

passed=0
failed=0
count() {						# count PASSED FAILED
	passed=$((passed + $1))
	failed=$((failed + $2))
}

# names DIR SUFFIX: the tests in DIR, without suffix, that --only lets through
names() {
	local file name
	for file in "$1"/*"$2"; do
		name=$(basename "$file" "$2")
		if [ -e "$file" ] && { [ -z "$only" ] || [ "$name" = install ] || [[ $name == *"$only"* ]]; }; then
			echo "$name"
		fi
	done
}

# What no test may bring about, whatever its output is; run inside with-cluster.
# shellcheck disable=SC2016
crash_check='status=$?; grep -E "PANIC: |TRAP: |terminated by signal" "$EQ_SERVER_LOG" | sed "s/^/not ok 0 - server log: /"; exit $status'

# pg_regress and pg_isolation_regress say "ok" or "FAILED" ("not ok" from 16 on)
# for each test.
count_regress() {				# count_regress LOG OUTPUT-DIR
	count "$(grep -cE '^(test .*\.\.\. ok|ok [0-9])' "$1" || true)" \
		"$(grep -cE '^(test .*\.\.\. FAILED|not ok [0-9])' "$1" || true)"
	if [ -f "$2/regression.diffs" ]; then
		cat "$2/regression.diffs"
	fi
}

run_regress() {
	local tests log=$work/regress.log
	# install makes the extension that all others use
	tests=$(names "$top/sql" .sql | grep -vx install || true)
	[ -n "$tests" ] || return 0
	mkdir -p "$work/regress"
	# shellcheck disable=SC2086
	EQ_FSYNC=off "$here/lib/with-cluster.sh" bash -c 'psql -qXc "CREATE DATABASE regression" && "$1" --bindir="$PG_BINDIR" \
		--inputdir=. --outputdir="$2" --host="$PGHOST" --port="$PGPORT" --user=postgres \
		--dbname=regression --use-existing install "${@:3}"; '"$crash_check" -- \
		"$pgxs/src/test/regress/pg_regress" "$work/regress" $tests 2>&1 |
		tee "$log" | grep -E '^(test|ok|not ok|psql|#|\(using)' || true
	count_regress "$log" "$work/regress"
}

run_isolation() {
	local tests log=$work/isolation.log
	tests=$(names "$here/isolation/specs" .spec)
	[ -n "$tests" ] || return 0
	mkdir -p "$work/isolation"
	# shellcheck disable=SC2086
	EQ_FSYNC=off "$here/lib/with-cluster.sh" bash -c '"$1" --bindir="$PG_BINDIR" \
		--inputdir=test/isolation --outputdir="$2" --host="$PGHOST" --port="$PGPORT" \
		--user=postgres --dbname=eq_isolation --load-extension=event_queue "${@:3}"; '"$crash_check" -- \
		"$pgxs/src/test/isolation/pg_isolation_regress" "$work/isolation" $tests 2>&1 |
		tee "$log" | grep -E '^(test|ok|not ok)' || true
	count_regress "$log" "$work/isolation"
}

# TAP's own closing lines do not count tests by pass and fail: the plan lines do.
count_tap() {					# count_tap LOG
	count "$(grep -cE '^ok ' "$1" || true)" "$(grep -cE '^not ok |^Dubious|Parse errors' "$1" || true)"
	grep -E "^not ok |^#   (Failed|at |     )|Dubious|Parse errors" "$1" || true
}

run_pgtap() {
	local tests log=$work/pgtap.log name
	tests=$(names "$here/pgtap" .sql)
	[ -n "$tests" ] || return 0
	# shellcheck disable=SC2086
	EQ_FSYNC=off "$here/lib/with-cluster.sh" bash -c '
		psql -Xqc "CREATE EXTENSION event_queue" -c "CREATE EXTENSION pgtap"
		for name; do
			echo "# pgtap $name"
			psql -XqAt -v ON_ERROR_STOP=1 -f "test/pgtap/$name.sql" || echo "not ok - $name ended early"
		done' -- $tests >"$log" 2>&1 || echo "not ok - pgtap run failed" >>"$log"
	grep -E '^# pgtap' "$log" || true
	count_tap "$log"
}

run_tap() {
	local name log=$work/tap.log status begun
	for name in $(names "$here/tap/t" .pl); do
		begun=$SECONDS
		mkdir -p "$work/tap/$name"
		# copied, since the server's user may not be able to read the clone
		cp "$here/tap/t/$name.pl" "$here"/tap/lib/*.pm "$work/tap/$name/"
		mkdir -p "$work/tap/$name/docs"
		cp "$top/README.md" "$top"/doc/*.md "$work/tap/$name/docs/"
		[[ $name != *upgrade* ]] || cp "$here"/upgrade/*.sql "$work/tap/$name/"
		[ "$(id -u)" = 0 ] && chown -R postgres "$work/tap"
		status=0
		(
			cd "$work/tap/$name"
			run=()
			[ "$(id -u)" = 0 ] && run=(runuser -u postgres --)
			"${run[@]}" env PATH="$("$PG_CONFIG" --bindir):$PATH" PERL5LIB="$pgxs/src/test/perl:$work/tap/$name" \
				PG_REGRESS="$pgxs/src/test/regress/pg_regress" HOME="$work/tap" \
				TESTDATADIR="$work/tap/$name/tmp_check" TESTLOGDIR="$work/tap/$name/log" \
				TESTDIR="$work/tap/$name" LC_ALL=C.UTF-8 PG_TEST_TIMEOUT_DEFAULT=60 EQ_LONG="${EQ_LONG:-}" \
				EQ_CRASH_ROUNDS="${EQ_CRASH_ROUNDS:-}" EQ_CRASH_LEADS="${EQ_CRASH_LEADS:-}" EQ_MODEL_APPENDS="${EQ_MODEL_APPENDS:-}" EQ_MODEL_JOBS="${EQ_MODEL_JOBS:-}" \
				timeout -k 30 "${EQ_TAP_SECONDS:-420}" perl -Msigtrap=die,TERM "$name.pl"
		) >"$log" 2>&1 || status=$?
		echo "# tap $name: $([ $status = 0 ] && echo ok || echo "FAILED, status $status") ($((SECONDS - begun)) s)"
		[ $status = 0 ] || { echo "not ok - $name: status $status" >>"$log"; tail -n 40 "$log"; }
		count_tap "$log"
	done
}

for kind in "${kinds[@]}"; do
	echo "== $kind"
	"run_$kind"
done
echo "$passed passed, $failed failed"
[ "$failed" = 0 ] && [ "$passed" -gt 0 ]
