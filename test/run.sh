#!/bin/bash
# run.sh [--only PART] [KIND...]: the test run; kinds are regress, isolation,
# pgtap, tap, node and browser, all by default.  Called by "make check" and "make check-one".
#
# Each kind runs against private clusters (lib/with-cluster.sh); the TAP tests
# make their own.  EQ_LONG=1 runs the long forms of the crash, chaos and model tests.
# What failed is told where it happened and again at the end, as of a long output
# often only the end is kept.  The last line is "N passed, N failed"; the status is
# 1 if any failed.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
top=$(dirname "$here")
only=
if [ "${1:-}" = --only ]; then
	only=$2
	shift 2
fi
kinds=("$@")
[ ${#kinds[@]} = 0 ] && kinds=(regress isolation pgtap tap node browser)

PG_CONFIG=${PG_CONFIG:-$("$here/lib/find-pg-config.sh")}
export PG_CONFIG
# Alerts append events, which tests that count events don't expect; those of alerts have
# them on.  (TEMP_CONFIG is read by PostgreSQL::Test::Cluster.)
export EQ_CONF="event_queue.alert_interval = 0
${EQ_CONF:-}"
pgxs=$(dirname "$("$PG_CONFIG" --pgxs)")/../..
work=$(mktemp -d "${TMPDIR:-/tmp}/event_queue_tests.XXXXXX")
chmod 755 "$work"
extensions=$("$PG_CONFIG" --sharedir)/extension
trap 'rm -rf "$work"; rm -f "$extensions"/eq_test_other*' EXIT
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

report() {						# report LINES: prints its input; so many lines of it are told again at the end
	tee "$work/report"
	head -n "$1" "$work/report" >>"$work/failures"
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
	grep -E '^test .*\.\.\. FAILED|^not ok [0-9]' "$1" >>"$work/failures" || true
	if [ -f "$2/regression.diffs" ]; then
		report 200 <"$2/regression.diffs"
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
	{ grep -E "^not ok |^#   (Failed|at |     )|Dubious|Parse errors" "$1" || true; } | report 40
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
		[[ $name != *chaos* && $name != *erp* ]] || cp -r "$top/examples/erp" "$work/tap/$name/"
		[[ $name != *upgrade* ]] || cp "$here"/upgrade/*.sql "$work/tap/$name/"
		# a second extension, which the test passes over if it could not be installed
		[[ $name != *added* ]] || cp "$here"/tap/extension/* "$extensions/" 2>/dev/null || true
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
				EQ_CRASH_ROUNDS="${EQ_CRASH_ROUNDS:-}" EQ_CRASH_LEADS="${EQ_CRASH_LEADS:-}" EQ_CHAOS_ROUNDS="${EQ_CHAOS_ROUNDS:-}" EQ_CHAOS_SEED="${EQ_CHAOS_SEED:-}" EQ_MODEL_APPENDS="${EQ_MODEL_APPENDS:-}" EQ_MODEL_JOBS="${EQ_MODEL_JOBS:-}" \
				timeout -k 30 "${EQ_TAP_SECONDS:-420}" perl -Msigtrap=die,TERM "$name.pl"
		) >"$log" 2>&1 || status=$?
		echo "# tap $name: $([ $status = 0 ] && echo ok || echo "FAILED, status $status") ($((SECONDS - begun)) s)"
		if [ $status != 0 ]; then
			echo "not ok - $name: status $status" >>"$log"
			# why a test died is in its own log only, which 15 has below tmp_check
			{ tail -n 40 "$log"; find "$work/tap/$name" -name 'regress_log_*' -exec tail -n 15 {} +; } | report 60
		fi
		count_tap "$log"
	done
}

# The client of clients/node, and examples/nestjs over HTTP.  What can't be installed
# fails, as it would for the other kinds; EQ_NODE=no leaves them out.
run_node() {
	local log=$work/node.log status=0
	[ -z "$(names "$top/clients/node/test" .test.js)$(names "$top/clients/node/test" e2e.js)" ] && return 0
	if [ "${EQ_NODE:-}" = no ]; then
		echo "# node: left out, as EQ_NODE=no says"
		return 0
	fi
	EQ_FSYNC=off EQ_NODE_ONLY=$only "$top/clients/node/test/run.sh" check >"$log" 2>&1 || status=$?
	grep -E '^# node|^BENCH|^check-node: ' "$log" || true
	[ $status = 0 ] || { echo "not ok - node: status $status" >>"$log"; tail -n 60 "$log" | report 60; }
	# those of a test within a test are indented
	count "$(grep -E '^ok ' "$log" | grep -cvE '# (SKIP|TODO)' || true)" "$(grep -cE '^not ok ' "$log" || true)"
	grep -E '# SKIP' "$log" || true
	{ grep -E '^not ok |^ +not ok ' "$log" || true; } | report 40
}

# The dashboard in headless Chromium.  EQ_BROWSER=no leaves it out.
run_browser() {
	local log=$work/browser.log status=0
	[[ -z $only || browser == *"$only"* ]] || return 0
	if [ "${EQ_BROWSER:-}" = no ]; then
		echo "# browser: left out, as EQ_BROWSER=no says"
		return 0
	fi
	"$here/lib/install-deps.sh" node browser && "$here/browser/run.sh" >"$log" 2>&1 || status=$?
	# what is skipped for want of a program has not passed
	if [ $status != 0 ] || grep '^browser: skipped' "$log"; then
		echo "not ok - browser: status $status" >>"$log"
		# the script's own words, and then the end of the server's log
		{ sed '/^--- last lines of the server/,$d' "$log" | tail -n 40; tail -n 11 "$log"; } | report 60
	fi
	count_tap "$log"
}

for kind in "${kinds[@]}"; do
	echo "== $kind"
	"run_$kind"
done
if [ "$failed" != 0 ] && [ -s "$work/failures" ]; then
	echo "== what failed"
	tail -n 400 "$work/failures"
	echo "== in short"
	grep -hE '^ *not ok |^test .*FAILED' "$work/failures" | tail -n 15 || true
fi
echo "$passed passed, $failed failed"
[ "$failed" = 0 ] && [ "$passed" -gt 0 ]
