# beside.sh: claims in queues that hold more than jobs that are due, or that limit
# and order them: is there a cliff?  Sourced by run.sh.
# shellcheck shell=bash

# enqueue_more COUNT [OPTIONS]: SQL that adds COUNT thousand jobs
enqueue_more() {
	echo "SELECT count(event_queue.enqueue_many('bench', to_jsonb(ARRAY(SELECT '{\"payload\": {\"a\": 1}}'::jsonb FROM generate_series(1, 1000))), options => jsonb_build_object('name', 'job'${2:+, $2}))) FROM generate_series(1, $1) g;"
}
# until the scheduler has looked at all groups
reviewed() { while [ "$(sql -c 'SELECT count(*) FROM event_queue_internal.job_review')" != 0 ]; do sleep 0.5; done; }

# claim_with_scheduled, claim_with_blocked: jobs a second of 4 sessions, one at a
# time, beside a million future jobs, or a million that are blocked by the first
# jobs of their groups, against a queue with nothing else.  Wanted: 0.9.
beside() {						# beside NAME SQL-THAT-ADDS-THEM
	wanted "$1" || return 0
	begin_line
	for _ in 1 2 3; do
		for with in theirs ours; do
			sql_each "$(fill 300000)"
			if [ $with = ours ]; then
				sql -c "$2" -c 'VACUUM ANALYZE event_queue.job' >/dev/null
				reviewed
			fi
			rate 4 drain >>"$work/$with"
		done
	done
	line "$1"
}
beside claim_with_scheduled "$(enqueue_more 1000 "'delay', '1 day'")"
beside claim_with_blocked "SELECT event_queue.enqueue('bench', 'head', group_key => 'g' || g, delay => '1 day') FROM generate_series(1, 1000) g;
	$(enqueue_more 1000 "'group_key', 'g' || g")"

# From here on no ratio is wanted: what does a setting cost?

# drain_limited_*: a queue with a limit that is far away, against the same queue
# without it: 8 sessions one job at a time, 4 sessions by 100.
limited() {						# limited NAME SESSIONS SCRIPT JOBS-A-TRANSACTION SETTING VALUE
	wanted "$1" || return 0
	begin_line
	for _ in 1 2 3; do
		for pair in "$5 => $6:ours" "reset => '{$5}':theirs"; do
			sql_each "$(fill $((seconds * ($4 == 1 ? 25000 : 250000))))"
			sql -c "SELECT event_queue.alter_queue('bench', ${pair%:*})" >/dev/null
			run_side "${pair##*:}" "$2" "$3" "$4"
		done
	done
	line "$1"
	cpu_line "$1"
}
limited drain_limited_concurrency 8 drain 1 max_concurrency 1000
limited drain_limited_concurrency_by_100 4 drain_by_100 100 max_concurrency 1000
limited drain_limited_rate 8 drain 1 rate_limit 1000000
limited drain_limited_rate_by_100 4 drain_by_100 100 rate_limit 1000000

# count_drained SESSIONS SCRIPT TABLE: jobs a second that have left the table,
# for queues in which a claim may find fewer than it asks for.  Who finds nothing
# waits for 2 ms, as a worker would be woken.
count_drained() {
	local before begin
	before=$(sql -c "SELECT count(*) FROM $3")
	begin=$EPOCHREALTIME
	rate "$1" "$2" >/dev/null
	awk -v a="$begin" -v b="$EPOCHREALTIME" -v n=$((before - $(sql -c "SELECT count(*) FROM $3"))) 'BEGIN { print n / (b - a) }'
}
script drain_some "SELECT coalesce(array_agg(job_id), '{}') AS ids, coalesce(array_agg(lease_token), '{}') AS tokens, count(*) AS n
	FROM event_queue.complete_many_and_claim(:ids, :tokens, :queue, 100) \\gset" '\if :n = 0' '\sleep 2 ms' '\endif'

# drain_grouped: 10,000 groups of 50 jobs, one at a time in each, so that each job
# is made ready by the scheduler when the one before it has ended; against the
# SKIP LOCKED table, which keeps no order.  4 sessions, by 100.
if wanted drain_grouped; then
	begin_line
	for _ in 1 2 3; do
		sql_each "$(fill 500000)"
		sql -c 'TRUNCATE event_queue.job' -c "SELECT count(event_queue.enqueue_many('bench', (SELECT jsonb_agg(jsonb_build_object('payload', '{\"a\": 1}'::jsonb, 'group_key', 'g' || (g % 10) * 1000 + n)) FROM generate_series(1, 1000) n), options => '{\"name\": \"job\"}')) FROM generate_series(1, 500) g" \
			-c 'VACUUM ANALYZE event_queue.job' >/dev/null
		reviewed
		count_drained 4 drain_some event_queue.job >>"$work/ours"
		rate 4 drain_table_by_100 | times 100 >>"$work/theirs"
	done
	line drain_grouped
fi

# drain_fair: the same number of jobs of each of 1,000 tenants, in a fair queue, against the same
# jobs in a plain one.  4 sessions, by 100.
# claim_fair_idle: claims, one at a time, of a fair queue in which 5,000 other
# tenants have only jobs for later, against the same queue without them.
if wanted drain_fair claim_fair_idle; then
	sql -c "SELECT event_queue.create_queue('fair', fair => true)" >/dev/null
fi
of_tenants() {					# of_tenants QUEUE: SQL that adds them
	echo "SELECT count(event_queue.enqueue_many('$1', to_jsonb(ARRAY(SELECT '{\"payload\": {\"a\": 1}}'::jsonb FROM generate_series(1, $((seconds * 250))))), tenant_id => 't' || g, options => '{\"name\": \"job\"}')) FROM generate_series(1, 1000) g"
}
if wanted drain_fair; then
	begin_line
	for _ in 1 2 3; do
		for pair in fair:ours bench:theirs; do
			sql -c 'TRUNCATE event_queue.job' -c "$(of_tenants "${pair%:*}")" -c 'VACUUM ANALYZE event_queue.job' >/dev/null
			rate 4 drain_by_100 postgres -D "queue=${pair%:*}" | times 100 >>"$work/${pair#*:}"
		done
	done
	line drain_fair
fi
if wanted claim_fair_idle; then
	begin_line
	for _ in 1 2 3; do
		for with in theirs ours; do
			sql -c 'TRUNCATE event_queue.job' -c "SELECT count(event_queue.enqueue_many('fair', to_jsonb(ARRAY(SELECT '{\"payload\": {\"a\": 1}}'::jsonb FROM generate_series(1, 1000))), tenant_id => 'busy', options => '{\"name\": \"job\"}')) FROM generate_series(1, 300)" >/dev/null
			if [ $with = ours ]; then
				sql -c "SELECT count(event_queue.enqueue('fair', 'later', tenant_id => 'idle ' || n, delay => '1 day')) FROM generate_series(1, 5000) n" >/dev/null
			fi
			sql -c 'VACUUM ANALYZE event_queue.job'
			rate 4 drain postgres -D queue=fair >>"$work/$with"
		done
	done
	line claim_fair_idle
fi
