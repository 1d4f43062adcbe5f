#!/bin/bash
# run.sh [SCRIPT]: the dashboard in headless Chromium (dashboard.js by default): a private
# cluster, eventq serve on it, and what setup.sql makes.  Skipped where Chromium or node is
# not to be had.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
script=${1:-dashboard.js}
if [ "${EQ_INSIDE:-}" != yes ]; then
	if ! command -v node >/dev/null || ! command -v npm >/dev/null; then
		echo "browser: skipped, there is no node"
		exit 0
	fi
	chromium=${CHROMIUM:-$(command -v chromium || command -v chromium-browser || command -v google-chrome || true)}
	if [ -z "$chromium" ]; then
		echo "browser: skipped, there is no chromium"
		exit 0
	fi
	if [ ! -d "$here/node_modules/playwright-core" ] && ! (cd "$here" && timeout 300 npm install --silent --no-audit --no-fund); then
		echo "browser: skipped, npm could not install playwright-core"
		exit 0
	fi
	export CHROMIUM=$chromium EQ_INSIDE=yes EQ_FSYNC=off EQ_CONF="event_queue.alert_interval = '1s'"
	exec "$here/../lib/with-cluster.sh" "$here/run.sh" "$script"
fi

# The server asks those for a password that have one.
cat >"$PGHOST/data/pg_hba.conf" <<HBA
local all postgres,metrics trust
local all all scram-sha-256
HBA
psql -XqAt -c 'SELECT pg_reload_conf()' >/dev/null
psql -Xq -v ON_ERROR_STOP=1 -f "$here/setup.sql" >/dev/null
work=$(mktemp -d "${TMPDIR:-/tmp}/event_queue_browser.XXXXXX")
pids=
trap '[ -z "$pids" ] || kill $pids 2>/dev/null; rm -rf "$work"' EXIT
eventq=${EVENTQ:-$PG_BINDIR/eventq}
"$eventq" serve -U metrics --listen 127.0.0.1:0 --allow-actions 2>"$work/log" &
pids=$!
# shellcheck source=test/lib/serve.sh
. "$here/../lib/serve.sh"
EQ_URL=$(serve_url "$work/log")
[ -n "$EQ_URL" ] || { cat "$work/log" >&2; exit 1; }
export EQ_URL
# Some load, so that there are rates; the script ends it.
(
	while :; do
		psql -Xq -c "SELECT event_queue.enqueue('mail', 'send', '{\"to\": \"x@example.com\"}') FROM generate_series(1, 5 + (random() * 15)::int);
			SELECT event_queue.enqueue('invoices', 'issue') FROM generate_series(1, 1 + (random() * 3)::int);
			SELECT event_queue.enqueue('thumbnails', 'resize') FROM generate_series(1, 5 + (random() * 15)::int);
			SELECT event_queue.append('lead', 'V-' || (random() * 100)::int, 'lead.viewed', '{}') FROM generate_series(1, 3 + (random() * 9)::int)" >/dev/null 2>&1 || exit 0
		sleep 1
	done
) &
pids="$pids $!"
# Until the jobs that are to die are dead.
for _ in $(seq 100); do
	[ "$(psql -XqAt -c "SELECT count(*) FROM event_queue.dead_letters WHERE queue = 'mail'")" -ge 10 ] && [ "$(psql -XqAt -c "SELECT count(*) FROM event_queue.dead_letters WHERE queue = 'invoices'")" -ge 6 ] && break
	sleep 0.2
done
cd "$here"
status=0
node "$script" || status=$?
if [ $status != 0 ]; then
	echo '--- log of eventq serve' >&2
	tail -n 20 "$work/log" >&2
fi
exit $status
