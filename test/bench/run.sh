#!/bin/bash
# run.sh: benchmarks on the server that PGHOST names; called by "make bench".
#
# Printed for each, as medians of three runs that alternate with their
# yardstick's, since machines are noisy:
#   BENCH name event_queue=N yardstick=N ratio=R
# N is per second, but for names that end in _ms (latency, in ms) and bloat
# (bytes): there less is better.  Lines that begin with "#" explain others.
#
# EQ_BENCH: a pattern of names (*); EQ_BENCH_SECONDS: length of one run (5);
# EQ_BENCH_EVENTS: events of the large store (10 million); EQ_BENCH_HELD: jobs
# of drain_held (500,000).
#
#   store.sh    append, read, subscribe          against plain INSERT and SELECT
#   enqueue.sh  enqueue, one by one and in bulk  INSERT, INSERT + NOTIFY, COPY
#   drain.sh    claim and complete               a SKIP LOCKED table
#   handlers.sh SQL handlers in the database     outside sessions, the SKIP LOCKED table
#   steps.sh    a job of five steps          five jobs
#   ring.sh     claims by the ring               the walk
#   pgq.sh      enqueue, drain                   PgQ, if it is installed
#   held.sh     drain under an old snapshot      the SKIP LOCKED table
#   beside.sh   claims beside what can't be      a queue without it
#               claimed; limits, groups, tenants
#   latency.sh  enqueue to start                 LISTEN and the SKIP LOCKED table
#   bloat.sh    bytes after many jobs            the SKIP LOCKED table
#   rules.sh    events through rules             one INSERT ... SELECT
#   timers.sh   a rule's delay; a million     the same without a rule; without
#               open timers                  timers
#   lists.sh    the lists of lists.sql, and      a count of their table
#               pages of eventq serve
#   roundtrips.sh one call, five statements     the five statements
set -euo pipefail
bench_dir=$(cd "$(dirname "$0")" && pwd)
for part in lib store enqueue drain handlers steps ring pgq held beside latency bloat rules timers lists roundtrips; do
	# shellcheck disable=SC1090
	. "$bench_dir/$part.sh"
done
