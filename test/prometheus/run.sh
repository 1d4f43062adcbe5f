#!/bin/bash
# run.sh: Debian's Prometheus scrapes "eventq serve" under a load, with the files of
# packaging/prometheus as they are (but for ports and a quicker scrape).  Every panel of the dashboard and
# every metric of the alert rules must have data; a handler is broken and its alert fires,
# mended and it resolves.  Takes four to five minutes.  "make check-prometheus".
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)

if [ "${1:-}" != --in-cluster ]; then
	cd "$root/packaging/prometheus"
	promtool check config prometheus.yml
	promtool test rules event_queue.test.yml
	! command -v amtool >/dev/null || amtool check-config alertmanager.yml >/dev/null
	EQ_FSYNC=off exec "$root/test/lib/with-cluster.sh" "$here/run.sh" --in-cluster
fi

work=$(mktemp -d "${TMPDIR:-/tmp}/event_queue_prometheus.XXXXXX")
pids=()
finish() {
	local status=$?
	trap - EXIT
	if [ $status != 0 ]; then
		tail -n 20 "$work"/*.log >&2 || true
	fi
	[ ${#pids[@]} = 0 ] || kill "${pids[@]}" 2>/dev/null || true
	wait 2>/dev/null || true
	rm -rf "$work"
	exit $status
}
trap finish EXIT
trap 'exit 130' INT TERM

export PGOPTIONS='-c client_min_messages=warning'
sql() { psql -XqAt -v ON_ERROR_STOP=1 "$@"; }
free_port() { perl -MIO::Socket::INET -e 'print IO::Socket::INET->new(Listen => 1, LocalAddr => "127.0.0.1")->sockport'; }

handler() {						# handler BODY
	sql -c "CREATE OR REPLACE FUNCTION public.send(job event_queue.claimed_job) RETURNS jsonb LANGUAGE plpgsql AS \$\$ BEGIN $1 END \$\$"
}
sql -c 'CREATE EXTENSION event_queue' -c 'CREATE ROLE ops_metrics LOGIN' -c "SELECT event_queue.grant_observer('ops_metrics')" >/dev/null
handler 'PERFORM pg_sleep(0.005); RETURN NULL;'
sql >/dev/null <<'SQL'
SELECT event_queue.create_queue('mail', sla => '1 minute', sla_target => 0.99, owner => 'the team', docs_url => 'https://docs.example/mail',
	max_attempts => 2, backoff_delay => '1 second');
SELECT event_queue.create_handler('mail', '*', 'public.send');
SELECT event_queue.create_rule('welcome', 'lead.*', queue => 'mail', job_name => 'welcome');
SELECT event_queue.create_schedule('digest', '* * * * *', 'mail', 'digest');
SELECT event_queue.create_subscription('mirror');
SQL

PGUSER=ops_metrics "$PG_BINDIR/eventq" serve -w --listen=127.0.0.1:0 >"$work/serve.log" 2>&1 &
pids+=($!)
(
	while :; do
		echo "SELECT event_queue.append('lead', gen_random_uuid()::text, 'lead.created', '{}');" || exit # where SIGPIPE is ignored
		sleep 0.2
	done
) 2>/dev/null | psql -XqAt >/dev/null 2>"$work/load.log" & # not sql: kill must meet the program
pids+=($!)
for _ in $(seq 100); do
	serve=$(sed -n 's|.*listening on http://\(127.0.0.1:[0-9]*\).*|\1|p' "$work/serve.log")
	[ -z "$serve" ] || break
	sleep 0.1
done
[ -n "$serve" ] || { echo 'eventq serve does not start' >&2; exit 1; }

cp "$root/packaging/prometheus/event_queue.rules.yml" "$work"
sed -e "s/localhost:8077/$serve/" -e 's/_interval: 15s/_interval: 2s/' -e 's/scrape_timeout: 10s/scrape_timeout: 2s/' \
	-e '/^alerting:/,/^$/d' "$root/packaging/prometheus/prometheus.yml" >"$work/prometheus.yml"
port=$(free_port)
prometheus --config.file="$work/prometheus.yml" --storage.tsdb.path="$work/data" --web.listen-address="127.0.0.1:$port" \
	>"$work/prometheus.log" 2>&1 &
pids+=($!)
check() { python3 "$here/check.py" "http://127.0.0.1:$port" "$@"; }

check ready
echo '== under a load'
sleep 40						# enough for rates, and for a run of the schedule
check data "$root/packaging/grafana/event_queue.json"
check quiet EventQueueFailing
check health mail 0

echo '== the handler is broken'
handler "RAISE EXCEPTION 'the mail server is away';"
check fires EventQueueFailing 'queue="mail"' 200
check fires EventQueueDeadLetters 'queue="mail"' 30
check health mail 2
[ "$(sql -c "SELECT event_queue.queue_health() #>> '{mail,status}'")" = unhealthy ] || { echo 'queue_health() says otherwise' >&2; exit 1; }

echo '== the handler is mended'
handler 'PERFORM pg_sleep(0.005); RETURN NULL;'
sql -c "SELECT event_queue.retry_all_dead('mail')" >/dev/null
check resolves EventQueueFailing 280
check data "$root/packaging/grafana/event_queue.json"
echo 'prometheus: all passed'
