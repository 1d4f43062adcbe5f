#!/bin/bash
# demo.sh: the ERP flow from end to end, on the server that PGHOST and PGPORT
# name.  Run by "make demo" on a private cluster; ends with status 1 if any
# count is not what it must be.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d "${TMPDIR:-/tmp}/event_queue_demo.XXXXXX")
trap 'rm -rf "$work"' EXIT
pgbench=${PG_BINDIR:+$PG_BINDIR/}pgbench
export PGOPTIONS='-c client_min_messages=warning' PGAPPNAME=demo
CLIENTS=4

sql() { psql -XqAt -v ON_ERROR_STOP=1 "$@"; }
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
	sql -c 'ALTER SEQUENCE ianara.next_lead RESTART'
	echo "SELECT ianara.$1(company_id, name, phone, source, value) FROM ianara.staging WHERE n = (SELECT nextval('ianara.next_lead'));" >"$work/call.sql"
	(cd "$work" && rm -f calls.* && "$pgbench" -n -c $CLIENTS -j 2 -t $((leads / CLIENTS)) -l --log-prefix=calls -f call.sql >/dev/null)
	cat "$work"/calls.* | awk '{ print $3 / 1000 }' | sort -n |
		awk '{ v[NR] = $1 } END { printf "median %.2f ms, p99 %.2f ms", v[int(NR / 2)], v[int(NR * .99)] }'
}

# wait_for QUERY: waits until it gives t; shows progress once a second
wait_for() {
	local tries=0
	while [ "$(sql -c "SELECT $1")" != t ]; do
		tries=$((tries + 1))
		[ $tries -lt 600 ] || { echo "waited too long for: $1" >&2; exit 1; }
		[ $((tries % 10)) = 0 ] && progress
		sleep 0.1
	done
}
progress() {
	step "$(sql -c "SELECT to_char(clock_timestamp(), 'HH24:MI:SS') || '  ' || string_agg(format('%s: %s waiting, %s done', queue, ready + scheduled, completed_total), '   ' ORDER BY queue)
		FROM event_queue.queue_status WHERE queue <> 'rule-calls'")"
}
# The rules have seen all events, and no job is left.
DONE="(SELECT c.position >= (SELECT max(position) FROM event_queue.event_store) FROM event_queue.rule_checkpoint c) AND NOT EXISTS (SELECT FROM event_queue.job)"

say "Install: CREATE EXTENSION, the ERP's schema, its queues, rules and handlers"
sql -c 'CREATE EXTENSION event_queue' -f "$here/schema.sql" >/dev/null
sql -f "$here/automation.sql" >/dev/null
wait_for "(SELECT count(*) = 3 FROM event_queue.workers())"
show -c 'SELECT kind, pid FROM event_queue.workers() ORDER BY kind'

say "Load 1,000 leads of three companies from $CLIENTS connections"
"$here/make-leads.sh" 1000 >"$work/leads.csv"
sql -c 'CREATE TABLE ianara.staging (n int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, company_id text, name text, phone text, source text, value numeric);
	CREATE SEQUENCE ianara.next_lead; ALTER TABLE ianara.staging OWNER TO ianara_app; ALTER SEQUENCE ianara.next_lead OWNER TO ianara_app' \
	-c "\\copy ianara.staging (company_id, name, phone, source, value) FROM '$work/leads.csv' (FORMAT csv, HEADER)"
blocking=$(calls create_lead_blocking)
must_be "leads of the calls that do everything themselves" "$(sql -c 'SELECT count(*) FROM ianara.lead')" 1000
sql -c 'TRUNCATE ianara.lead CASCADE; TRUNCATE ianara.notification'
started=$(date +%s%N)
events=$(calls create_lead)
step "a call that does everything itself: $blocking"
step "a call that appends an event:       $events"
step "(both do database work only: the calls to WhatsApp and mail that made the ERP"
step " slow are in neither. Meanwhile, in the second run, the workers did the rest.)"
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
sql -c "SELECT ianara.move_lead('$lead', $next_step)" >/dev/null
sql -c "SELECT ianara.complete_task(min(task_id), '$company-1') FROM ianara.task WHERE lead_id = '$lead' AND status = 'open'" >/dev/null
wait_for "$DONE"
show -c "SELECT title, status FROM ianara.task WHERE lead_id = '$lead' ORDER BY task_id"
say "The lead's whole history"
show -c "SELECT version, event_type, event_data, to_char(created_at, 'HH24:MI:SS.MS') AS at FROM event_queue.read_aggregate('lead', '$lead', tenant_id => '$company')"

say "Break a handler on purpose, and move another lead"
second=$(sql -c "SELECT lead_id FROM ianara.lead WHERE company_id = '$company' ORDER BY lead_id DESC LIMIT 1")
sql -c "SET ROLE ianara_app; CREATE OR REPLACE FUNCTION ianara.on_lead_moved_to_step(job event_queue.claimed_job) RETURNS jsonb
	LANGUAGE plpgsql AS \$\$ BEGIN RAISE EXCEPTION 'the tasks service is broken' USING ERRCODE = 'IA001'; END \$\$"
sql -c "SELECT ianara.move_lead('$second', $next_step)" >/dev/null
step "waiting for three attempts: at once, after 2 s, after 4 s more"
wait_for "EXISTS (SELECT FROM event_queue.dead_letters WHERE queue = 'task-automation')"
show -c "SELECT e ->> 'attempt' AS attempt, to_char((e ->> 'at')::timestamptz, 'HH24:MI:SS.MS') AS at,
		round(extract(epoch FROM (e ->> 'at')::timestamptz - lag((e ->> 'at')::timestamptz) OVER (ORDER BY n)), 1) AS seconds_after,
		e ->> 'sqlstate' AS sqlstate, e ->> 'message' AS message
	FROM event_queue.dead_letters, jsonb_array_elements(errors) WITH ORDINALITY AS x (e, n)"
say "The dead letter"
show -x -c "SELECT job_id, queue, name, tenant_id, reason, failures, last_error, payload, metadata FROM event_queue.dead_letters"
waits=$(sql -c "SELECT string_agg(round(extract(epoch FROM at - prev))::text, ' ' ORDER BY at) FROM (
	SELECT (e ->> 'at')::timestamptz AS at, lag((e ->> 'at')::timestamptz) OVER (ORDER BY n) AS prev
	FROM event_queue.dead_letters, jsonb_array_elements(errors) WITH ORDINALITY AS x (e, n)) w WHERE prev IS NOT NULL")
must_be "seconds between attempts" "$waits" "2 4"

say "Mend the handler, and retry the dead letter"
sql -c "SET ROLE ianara_app; CREATE OR REPLACE FUNCTION ianara.on_lead_moved_to_step(job event_queue.claimed_job) RETURNS jsonb
	LANGUAGE sql SET search_path = pg_catalog, ianara, pg_temp AS
	\$\$ SELECT jsonb_build_object('tasks', ianara.create_step_tasks(job.payload ->> 'leadId', (job.payload ->> 'stepId')::int)) \$\$"
sql -c "SELECT event_queue.retry_dead(job_id) FROM event_queue.dead_letters" >/dev/null
wait_for "$DONE"

say "Count"
# Three tasks for each lead's first step, two for each of the two moves.
must_be "leads" "$(sql -c 'SELECT count(*) FROM ianara.lead')" 1000
must_be "events" "$(sql -c 'SELECT count(*) FROM event_queue.event_store')" 1003
must_be "tasks" "$(sql -c 'SELECT count(*) FROM ianara.task')" $((1000 * 3 + 2 * 2))
must_be "leads with the wrong number of tasks" "$(sql -c "SELECT count(*) FROM (SELECT l.lead_id FROM ianara.lead l LEFT JOIN ianara.task t USING (lead_id)
	GROUP BY l.lead_id, l.step_id HAVING count(t.task_id) <> 3 + 2 * (l.lead_id IN ('$lead', '$second'))::int) w")" 0
must_be "WhatsApp messages" "$(sql -c 'SELECT count(*) FROM ianara.whatsapp_message')" "$(sql -c 'SELECT count(*) FROM ianara.lead WHERE phone IS NOT NULL')"
must_be "notifications" "$(sql -c 'SELECT count(*) FROM ianara.notification')" 2000
must_be "dead letters" "$(sql -c 'SELECT count(*) FROM event_queue.dead_letters')" 0
show -c "SELECT queue, completed_total AS completed, failed_total AS failed, late_total AS past_sla, round(avg_wait_ms) AS avg_wait_ms, round(avg_run_ms::numeric, 1) AS avg_run_ms
	FROM event_queue.queue_status WHERE queue <> 'rule-calls' ORDER BY queue"
[ $wrong = 0 ] || { echo; echo "Something is wrong: see above." >&2; exit 1; }

cat <<'NEXT'

All counts agree. What to type next:
  make demo KEEP=1                     the same, and the server stays up; then in psql:
    SELECT * FROM event_queue.queue_status;
    SELECT * FROM event_queue.health();
    SELECT ianara.create_lead('aurora', 'Maria Prado', '+55 11 99999-0000', 'site', 1500);
    SELECT * FROM event_queue.read_all(0, 10);
  make check                           all tests
  README.md, "A first hour"            the same in your own database
NEXT
