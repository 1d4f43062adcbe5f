# ring.sh: what the ring (src/queue/ring.c) is worth; sourced by run.sh.
# shellcheck shell=bash

# ring NAME SESSIONS OURS THEIRS JOBS-A-TRANSACTION-OF-OURS: jobs a second of both, in
# a queue that does not wait for the disk, so that the claim itself is most of it; and
# their CPU.
ring() {
	wanted "$1" || return 0
	local run side script n
	begin_line
	sql -c "SELECT event_queue.alter_queue('bench', durable => false)" >/dev/null
	for _ in 1 2 3 4 5; do
		for run in ours:"$3":"$5" theirs:"$4":1; do
			IFS=: read -r side script n <<<"$run"
			sql_each "$(fill $((seconds * 30000 * n)))"
			run_side "$side" "$2" "$script" "$n"
		done
	done
	sql -c "SELECT event_queue.alter_queue('bench', durable => true)" >/dev/null
	line "$1"
	cpu_line "$1"
}
# A claim of one tenant can't use the ring, and does all else as well: the queue has
# one tenant only.
script drain_walk "SELECT job_id AS id, lease_token AS token FROM event_queue.complete_and_claim(nullif(:id::bigint, -1), :token, :queue, tenant_id => 'default') \\gset"
drain_by 5
# drain_ring: 8 sessions, one job at a time, by the ring against by the walk.
ring drain_ring 8 drain drain_walk 1
# drain_ring_1: the same in one session.
ring drain_ring_1 1 drain drain_walk 1
# drain_few: 8 sessions by 5 jobs, which the ring is not for, against by 1, by the walk.
ring drain_few 8 drain_by_5 drain_walk 5
