# lists.sh: the lists that people look for (observe/lists.sql), and each page and list that
# eventq serve gives, beside 10,000 queues and with EQ_BENCH_LIST jobs (5 million): a third waits, a third is dead, a third completed and kept, and as
# many events.  Milliseconds of one call, against a count of the table that the
# list is of, which is what who has no list does.  "# ..." says what was read.
# shellcheck shell=bash
# shellcheck source=test/lib/serve.sh
. "$bench_dir/../lib/serve.sh"
n_list=${EQ_BENCH_LIST:-5000000}

# list NAME CALL TABLE
list() {
	wanted "list_$1_ms" || return 0
	begin_line
	for _ in 1 2 3; do
		sql -d lists -c '\timing on' -c "SELECT count(*) FROM ($2) l" | awk '/^Time/ { print $2 }' >>"$work/ours"
		sql -d lists -c '\timing on' -c "SELECT count(*) FROM event_queue.$3" | awk '/^Time/ { print $2 }' >>"$work/theirs"
	done
	line "list_$1_ms"
	# Sequential scans, and rows that were read, of all tables.
	sql -d lists <<SQL
BEGIN;
SELECT count(*) AS n FROM ($2) l \\gset
SELECT format('# list_$1: %s rows; sequential scans %s, rows read %s', :n, sum(seq_scan), sum(seq_tup_read + coalesce(idx_tup_fetch, 0)))
FROM pg_stat_xact_user_tables WHERE schemaname = 'event_queue' AND relname ~ '^(job|dead_letter|event_store)';
COMMIT;
SQL
}

# page NAME PATH: milliseconds of one answer, against a count of all jobs
page() {
	wanted "page_$1_ms" || return 0
	begin_line
	for _ in 1 2 3; do
		curl -fsS -o "$work/page" -w '%{time_total}\n' -H 'Authorization: Bearer token-of-the-bench' "$url$2" | times 1000 >>"$work/ours"
		sql -d lists -c '\timing on' -c "SELECT count(*) FROM event_queue.job" | awk '/^Time/ { print $2 }' >>"$work/theirs"
	done
	line "page_$1_ms"
}

serve_pages() {
	local url serve
	(umask 077 && echo 'token-of-the-bench postgres' >"$work/tokens")
	PGDATABASE=lists "$PG_BINDIR/eventq" serve --listen 127.0.0.1:0 --token-file="$work/tokens" 2>"$work/serve.log" &
	serve=$!
	url=$(serve_url "$work/serve.log")
	page metrics /metrics
	page health_queues /health/queues
	page overview /api/overview
	page health /api/health
	page queues /api/queues
	page queues_by_depth '/api/queues?sort=depth'
	page queue /api/queues/big
	page queue_stats /api/queues/big/stats
	page queue_names /api/queues/big/names
	page jobs /api/jobs
	page jobs_leased '/api/jobs?state=leased'
	page jobs_of_queue '/api/jobs?queue=big'
	page jobs_completed '/api/jobs?state=completed&queue=big'
	page jobs_next /api/next
	page job /api/jobs/3
	page job_why /api/jobs/3/why
	page dead /api/dead
	page dead_of_queue '/api/dead?queue=big'
	page dead_preview '/api/dead/preview?queue=big'
	page events /api/events
	page aggregate /api/aggregates/lead/L7
	page aggregate_activity /api/aggregates/lead/L7/activity
	page rules /api/rules
	page rule_activity /api/rules/calls/activity
	page schedules /api/schedules
	page flows /api/flows
	page subscriptions /api/subscriptions
	page workers /api/workers
	page store /api/store
	page timeseries /api/stats/timeseries
	page tenants /api/tenants
	page slo /api/slo
	page alerts /api/alerts
	page audit /api/audit
	kill "$serve"
	wait "$serve" || true
}

if wanted list_running_ms list_next_ms list_queue_ms list_failed_ms list_rule_ms list_lead_ms list_ids_ms list_health_ms page_metrics_ms; then
	sql -c 'CREATE DATABASE lists'
	sql -d lists >/dev/null <<SQL
CREATE EXTENSION event_queue;
SELECT event_queue.create_queue('big', keep_completed => '7 days', lease => '1 day'), event_queue.create_queue('small');
SELECT event_queue.create_rule('calls', 'lead.moved', queue => 'small', job_name => 'call', payload => '{}');
SELECT event_queue.pause_rule('calls');
SET session_replication_role = replica;		-- rows as they come to be, without counting them
INSERT INTO event_queue.event_store (position, id, tenant_id, aggregate_type, aggregate_id, version, event_type, event_data, metadata, created_at)
SELECT n, gen_random_uuid(), 'default', 'lead', 'L' || n / 10, n % 10 + 1, 'lead.moved', '{"step": 1}', '{"actor": "ana"}', now() - n * interval '1 ms'
FROM generate_series(1, $n_list) n;
INSERT INTO event_queue.job (job_id, queue_id, run_at, created_at, priority, tenant_id, name, payload, metadata)
SELECT e.position, 3, now() + CASE WHEN e.position % 10 = 0 THEN interval '1 day' ELSE '0' END, now(), 5, 'default', 'call', '{}',
	jsonb_build_object('event_id', e.id, 'rule', 'calls') FROM event_queue.event_store e WHERE e.position % 3 = 0;
INSERT INTO event_queue.dead_letter (job_id, queue_id, tenant_id, name, priority, created_at, died_at, reason, failures, stalled, has_dependents, payload, metadata, errors)
SELECT e.position, 3, 'default', 'call', 5, now(), now() - e.position * interval '100 ms', 'attempts', 3, 0, false, '{}',
	jsonb_build_object('event_id', e.id, 'rule', 'calls'), '[{"message": "why", "worker": "w"}]' FROM event_queue.event_store e WHERE e.position % 3 = 1;
INSERT INTO event_queue.job_history (job_id, queue_id, tenant_id, name, priority, created_at, run_at, completed_at, expires_at, span, failures, stalled, payload, metadata, errors)
SELECT e.position, 3, 'default', 'call', 5, now(), now(), now() - e.position * interval '100 ms', now() + interval '7 days', 4, 0, 0, '{}',
	jsonb_build_object('event_id', e.id, 'rule', 'calls'), '[]' FROM event_queue.event_store e WHERE e.position % 3 = 2;
SQL
	sql -d lists -c 'VACUUM ANALYZE' -c "SELECT count(*) FROM event_queue.claim('big', 500)" >/dev/null
	list running "SELECT * FROM event_queue.running_jobs()" "job WHERE leased_until IS NOT NULL"
	list next "SELECT * FROM event_queue.next_jobs('big', 100)" "job WHERE leased_until IS NULL"
	list queue "SELECT * FROM event_queue.queue_jobs('big')" "job WHERE queue_id = 3"
	list failed "SELECT * FROM event_queue.failed_jobs()" "dead_letter WHERE died_at > now() - interval '1 day'"
	list rule "SELECT * FROM event_queue.rule_activity('calls')" "job WHERE metadata ->> 'rule' = 'calls'"
	list lead "SELECT * FROM event_queue.aggregate_activity('lead', 'L7')" "event_store WHERE aggregate_id = 'L7' AND event_data ? 'step'"
	list ids "SELECT * FROM event_queue.all_jobs WHERE job_id = ANY ('{1001,1002,1003}')" "job WHERE name = 'x'"
	list health "SELECT * FROM event_queue.queue_status" "job"
	sql -d lists -c "SELECT count(event_queue.create_queue('q' || n)) FROM generate_series(1, 10000) n" >/dev/null
	serve_pages
	sql -c 'DROP DATABASE lists WITH (FORCE)'
fi
