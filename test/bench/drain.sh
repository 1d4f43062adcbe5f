# drain.sh: consumers; sourced by run.sh.
# shellcheck shell=bash

# drain NAME SESSIONS OURS THEIRS JOBS JOBS-A-TRANSACTION: jobs a second, from a
# store that does not run empty meanwhile.  Printed, too: how many of the updates
# were HOT, as all claims should be.
drain() {
	wanted "$1" || return 0
	begin_line
	for _ in 1 2 3; do
		sql_each "$(fill "$5")"
		sql -c 'SELECT pg_stat_reset()' >/dev/null
		rate "$2" "$3" | times "$6" >>"$work/ours"
		rate "$2" "$4" | times "$6" >>"$work/theirs"
	done
	line "$1"
	sql -c "SELECT format('# %s: updates of event_queue.job %s, of them HOT %s', '$1', n_tup_upd, n_tup_hot_upd) FROM pg_stat_user_tables WHERE relid = 'event_queue.job'::regclass"
}
# drain_single: 8 sessions, one job at a time: complete_and_claim against the
# table's UPDATE, then DELETE, each with its commit.  Wanted: 2.5.
drain drain_single 8 drain drain_table 400000 1
# drain_vs_insert: the same against the plain INSERT of 8 sessions, which is one
# flushed commit too: how much of what a disk allows is reached.  No wanted ratio.
drain drain_vs_insert 8 drain insert_job 400000 1
# The same in a queue whose settling need not be durable; no wanted ratio.
sql -c "SELECT event_queue.alter_queue('bench', durable => false)" >/dev/null
drain drain_single_async 8 drain drain_table 400000 1
sql -c "SELECT event_queue.alter_queue('bench', durable => true)" >/dev/null
# drain_batch: 4 sessions, 100 jobs at a time, against the table likewise.
# Wanted: 2.3.
drain drain_batch 4 drain_by_100 drain_table_by_100 1500000 100

# claim_64: jobs a second of 64 sessions in all, one job at a time, against the
# same with 8 sessions.  Wanted: 0.9.
if wanted claim_64; then
	begin_line
	for _ in 1 2 3; do
		for pair in 64:ours 8:theirs; do
			sql_each "$(fill 400000)"
			rate "${pair%:*}" drain >>"$work/${pair#*:}"
		done
	done
	line claim_64
fi
