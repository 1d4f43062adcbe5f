#!/bin/bash
# demo.sh: the ERP flow from end to end, on the server that PGHOST and PGPORT
# name: the calls, the queues, a failure and its repair, and the counts at the
# end.  Run by "make demo" on a private cluster; ends with status 1 if any count
# is not what it must be, or anything complained that is not meant to.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d "${TMPDIR:-/tmp}/event_queue_demo.XXXXXX")
# What any command complains of is shown at the end, and looked at before.
exec 3>&2 2>"$work/complaints"
trap 'cat "$work/complaints" >&3; rm -rf "$work"' EXIT
pgbench=${PG_BINDIR:+$PG_BINDIR/}pgbench
export PGOPTIONS='-c client_min_messages=warning' PGAPPNAME=demo
CLIENTS=4

sql() { psql -XqAt -v ON_ERROR_STOP=1 "$@"; }
# as the role that the ERP connects as, not as the superuser
as_app() { PGOPTIONS="$PGOPTIONS -c role=ianara_app" "$@"; }
show() { psql -Xq -v ON_ERROR_STOP=1 -P pager=off "$@"; }
say() { printf '\n== %s\n' "$*"; }
step() { echo "   $*"; }

wrong=0
must_be() {						# must_be WHAT IS MUST-BE
	if [ "$2" = "$3" ]; then
		step "$1: $2, as it must be"
	else
		step "$1: $2, but must be $3"
		wrong=1
	fi
}

# calls FUNCTION: takes every staged lead through it from several connections;
# prints the median and the 99th percentile of a call in milliseconds
calls() {
	local leads
	leads=$(sql -c 'SELECT count(*) FROM ianara.staging')
	as_app sql -c 'ALTER SEQUENCE ianara.next_lead RESTART'
	echo "SELECT ianara.$1(company_id, name, phone, source, value) FROM ianara.staging WHERE n = (SELECT nextval('ianara.next_lead'));" >"$work/call.sql"
	(cd "$work" && rm -f calls.* && as_app "$pgbench" -n -c $CLIENTS -j 2 -t $((leads / CLIENTS)) -l --log-prefix=calls -f call.sql >/dev/null)
	cat "$work"/calls.* | awk '{ print $3 / 1000 }' | sort -n |
		LC_ALL=C awk '{ v[NR] = $1 } END { printf "median %.2f ms, p99 %.2f ms", v[int(NR / 2)], v[int(NR * .99)] }'
}

# ratio THIS THAT: of the medians that calls printed
ratio() { echo "$1 $2" | LC_ALL=C awk '{ printf "%.1f", $2 / $8 }'; }

# wait_for QUERY: waits until it gives t, at most a minute; shows progress once a second
wait_for() {
	local start=$SECONDS shown=$SECONDS
	while [ "$(sql -c "SELECT $1")" != t ]; do
		[ $((SECONDS - start)) -lt 60 ] || { echo "waited too long for: $1" >&2; exit 1; }
		if [ $SECONDS != $shown ]; then
			shown=$SECONDS
			progress
		fi
		sleep 0.1
	done
}
progress() {
	step "$(sql -c "SELECT to_char(clock_timestamp(), 'HH24:MI:SS') || '  ' || string_agg(format('%s: %s waiting, %s done', queue, depth, completed_total), '   ' ORDER BY queue)
		FROM event_queue.queue_status WHERE queue <> 'rule-calls'")"
}
# The rules have seen all events, and no job is left.
DONE="(SELECT c.position >= (SELECT max(position) FROM event_queue.event_store) FROM event_queue_internal.rule_checkpoint c) AND NOT EXISTS (SELECT FROM event_queue.job)"

say "Install: CREATE EXTENSION, the ERP's schema, its queues, rules and handlers"
sql -c 'CREATE EXTENSION event_queue' -f "$here/schema.sql" >/dev/null
sql -f "$here/automation.sql" >/dev/null
wait_for "(SELECT count(*) = 2 FROM event_queue.workers() WHERE kind = 'executor')"
show -c 'SELECT kind, pid FROM event_queue.workers() ORDER BY kind'

say "Load 1,000 leads of three companies from $CLIENTS connections"
"$here/make-leads.sh" 1000 >"$work/leads.csv"
phones=$(awk -F, 'NR > 1 && $3 != ""' "$work/leads.csv" | wc -l)
sql -c 'CREATE TABLE ianara.staging (n int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, company_id text, name text, phone text, source text, value numeric);
	CREATE SEQUENCE ianara.next_lead; ALTER TABLE ianara.staging OWNER TO ianara_app; ALTER SEQUENCE ianara.next_lead OWNER TO ianara_app' \
	-c "\\copy ianara.staging (company_id, name, phone, source, value) FROM '$work/leads.csv' (FORMAT csv, HEADER)"
blocking=$(calls create_lead_blocking)
must_be "leads of the calls that do everything themselves" "$(sql -c 'SELECT count(*) FROM ianara.lead')" 1000
must_be "their tasks, messages and notifications" "$(sql -c "SELECT concat_ws(', ', (SELECT count(*) FROM ianara.task), (SELECT count(*) FROM ianara.whatsapp_message), (SELECT count(*) FROM ianara.notification))")" "3000, $phones, 2000"
sql -c 'TRUNCATE ianara.lead CASCADE; TRUNCATE ianara.notification'
started=$(date +%s%N)
events=$(calls create_lead)
step "a call that does everything itself: $blocking"
step "a call that appends an event:       $events"
step "The same work in the database either way: no network call is made or simulated."
step "A call that waits for WhatsApp or mail would wait in the first kind only."
step "In the second run the workers do the rest meanwhile, on the same $(nproc) CPUs, and that"
step "is in its figures: the median call with an event took $(ratio "$events" "$blocking") times as long."
step "leads: $(sql -c 'SELECT count(*) FROM ianara.lead'), events: $(sql -c 'SELECT count(*) FROM event_queue.event_store')"

say "Follow the queues to empty"
progress
wait_for "$DONE"
progress
step "empty $(( ($(date +%s%N) - started) / 1000000 )) ms after the first call"

say "Move a lead, and complete its first task"
lead=$(sql -c 'SELECT lead_id FROM ianara.lead ORDER BY lead_id LIMIT 1')
company=$(sql -c "SELECT company_id FROM ianara.lead WHERE lead_id = '$lead'")
next_step=$(sql -c "SELECT step_id FROM ianara.step WHERE company_id = '$company' AND sort_order = 2")
as_app sql -c "SELECT ianara.move_lead('$lead', $next_step)" >/dev/null
step "moved there once more: $(as_app sql -c "SELECT ianara.move_lead('$lead', $next_step)" 2>&1 | grep ERROR)"
as_app sql -c "SELECT ianara.complete_task(min(task_id), '$company-1') FROM ianara.task WHERE lead_id = '$lead' AND status = 'open'" >/dev/null
wait_for "$DONE"
show -c "SELECT title, status FROM ianara.task WHERE lead_id = '$lead' ORDER BY task_id"
say "The lead's whole history"
show -c "SELECT version, event_type, event_data, to_char(created_at, 'HH24:MI:SS.MS') AS at FROM event_queue.read_aggregate('lead', '$lead', tenant_id => '$company')"

say "Break a handler on purpose, and move another lead"
second=$(sql -c "SELECT lead_id FROM ianara.lead WHERE company_id = '$company' ORDER BY lead_id DESC LIMIT 1")
sql -c "SELECT pg_get_functiondef('ianara.on_lead_moved_to_step'::regproc)" >"$work/handler.sql"
as_app sql -c "CREATE OR REPLACE FUNCTION ianara.on_lead_moved_to_step(job event_queue.claimed_job) RETURNS jsonb
	LANGUAGE plpgsql AS \$\$ BEGIN RAISE EXCEPTION 'the tasks service is broken' USING ERRCODE = 'IA001'; END \$\$"
as_app sql -c "SELECT ianara.move_lead('$second', $next_step)" >/dev/null
step "waiting for three attempts: at once, after 2 s, after 4 s more"
wait_for "EXISTS (SELECT FROM event_queue.dead_letters WHERE queue = 'task-automation')"
show -c "SELECT e ->> 'attempt' AS attempt, to_char((e ->> 'at')::timestamptz, 'HH24:MI:SS.MS') AS at,
		round(extract(epoch FROM (e ->> 'at')::timestamptz - lag((e ->> 'at')::timestamptz) OVER (ORDER BY n)), 1) AS seconds_after,
		e ->> 'sqlstate' AS sqlstate, e ->> 'message' AS message
	FROM event_queue.dead_letters, jsonb_array_elements(errors) WITH ORDINALITY AS x (e, n)"
say "The dead letter"
show -x -c "SELECT job_id, queue, name, tenant_id, reason, failures, last_error, payload, metadata FROM event_queue.dead_letters"
waits=$(sql -c "SELECT string_agg(floor(extract(epoch FROM at - prev) + 0.05)::text, ' ' ORDER BY at) FROM (
	SELECT (e ->> 'at')::timestamptz AS at, lag((e ->> 'at')::timestamptz) OVER (ORDER BY n) AS prev
	FROM event_queue.dead_letters, jsonb_array_elements(errors) WITH ORDINALITY AS x (e, n)) w WHERE prev IS NOT NULL")
must_be "full seconds between attempts" "$waits" "2 4"

say "Mend the handler, and retry the dead letter"
as_app sql -f "$work/handler.sql"
as_app sql -c "SELECT event_queue.retry_dead(job_id) FROM event_queue.dead_letters" >/dev/null
wait_for "$DONE"

say "Count"
# Three tasks for each lead's first step, two for each of the two moves.
must_be "leads" "$(sql -c 'SELECT count(*) FROM ianara.lead')" 1000
must_be "events" "$(sql -c 'SELECT count(*) FROM event_queue.event_store')" 1003
must_be "tasks" "$(sql -c 'SELECT count(*) FROM ianara.task')" $((1000 * 3 + 2 * 2))
must_be "leads with the wrong number of tasks" "$(sql -c "SELECT count(*) FROM (SELECT l.lead_id FROM ianara.lead l LEFT JOIN ianara.task t USING (lead_id)
	GROUP BY l.lead_id, l.step_id HAVING count(t.task_id) <> 3 + 2 * (l.lead_id IN ('$lead', '$second'))::int) w")" 0
# Of each step's tasks one is open; one task is done.
must_be "tasks done, open and waiting" "$(sql -c "SELECT concat_ws(', ', count(*) FILTER (WHERE status = 'done'), count(*) FILTER (WHERE status = 'open'), count(*) FILTER (WHERE status = 'waiting')) FROM ianara.task")" "1, 1002, 2001"
must_be "WhatsApp messages" "$(sql -c 'SELECT count(*) FROM ianara.whatsapp_message')" "$phones"
must_be "notifications" "$(sql -c 'SELECT count(*) FROM ianara.notification')" 2000
must_be "dead letters" "$(sql -c 'SELECT count(*) FROM event_queue.dead_letters')" 0
show -c "SELECT queue, completed_total AS completed, failed_total AS failed, late_total AS past_sla, round(avg_wait_ms) AS avg_wait_ms, round(avg_run_ms::numeric, 1) AS avg_run_ms
	FROM event_queue.queue_status WHERE queue <> 'rule-calls' ORDER BY queue"
say "How the queues are: SELECT event_queue.queue_health()"
show -c "SELECT h.key AS queue, x.status, x.\"pendingCount\", x.\"activeCount\", x.\"completedCount\", x.\"failedCount\",
		round(x.\"avgProcessingTime\", 4) AS \"avgProcessingTime\", round(x.\"slaCompliance\", 2) AS \"slaCompliance\"
	FROM jsonb_each(event_queue.queue_health()) h, jsonb_to_record(h.value) AS x (status text, \"pendingCount\" bigint, \"activeCount\" bigint,
		\"completedCount\" bigint, \"failedCount\" bigint, \"avgProcessingTime\" numeric, \"slaCompliance\" numeric)
	WHERE h.key NOT IN ('rule-calls', 'snapshots') ORDER BY 1"
step "of the queue whose handler was broken, all:"
sql -c "SELECT jsonb_pretty(event_queue.queue_health() -> 'task-automation')"

# shellcheck source=examples/erp/second-phase.sh
. "$here/second-phase.sh"

# The one error that is provoked: the second move to the same step.
complaints=$(cat "$work/complaints" ${EQ_SERVER_LOG:+"$EQ_SERVER_LOG"} | grep -E '(ERROR|FATAL|PANIC): ' |
	grep -vE 'is on step [0-9]+ already' || true)
if [ -n "$complaints" ]; then
	printf '%s\n' "$complaints"
	wrong=1
fi
[ $wrong = 0 ] || { echo; echo "Something is wrong: see above." >&2; exit 1; }

# The dashboard lets in whom the database asks for a password, or who has a token.
if [ "${EQ_KEEP:-0}" = 1 ]; then
	token=$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')
	sql -c 'CREATE ROLE demo_metrics LOGIN; CREATE ROLE demo_admin LOGIN' \
		-c "SELECT event_queue.grant_observer('demo_metrics'), event_queue.grant_admin('demo_admin')" >/dev/null
	(umask 077 && echo "$token demo_admin" >"$PGHOST/dashboard-tokens")
	say "The dashboard, and /metrics and /health/queues"
	echo "   ${PG_BINDIR:+$PG_BINDIR/}eventq serve -h $PGHOST -d ${PGDATABASE:-postgres} -U demo_metrics --allow-actions --token-file=$PGHOST/dashboard-tokens"
	echo "   then http://127.0.0.1:8077/ and sign in with the token $token"
fi

cat <<'NEXT'

All counts agree. What to type next:
  make demo KEEP=1                     the same, and the server stays up; it says how to open
                                       the dashboard (eventq serve); and in psql:
    SELECT * FROM event_queue.queue_status;
    SELECT * FROM event_queue.health();
    SELECT jsonb_pretty(event_queue.queue_health());
    SELECT ianara.create_lead('aurora', 'Maria Prado', '+55 11 99999-0000', 'site', 1500);
    SELECT * FROM event_queue.read_all(0, 10);
  make check                           all tests
  README.md, "A first hour"            the same in your own database
NEXT
