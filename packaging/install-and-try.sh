#!/bin/bash
# install-and-try.sh PACKAGE.deb EVENTQ.deb: on a bare Debian, as root: installs the
# package with the server that it needs and the program, preloads it by Debian's own
# tools, runs one event and two jobs, removes both, and says what is left.  Called by test/packaging/deb.sh
# in a fresh debootstrap, and by packaging/docker/Dockerfile up to the removal
# (--keep).
set -euo pipefail
keep=0
if [ "$1" = --keep ]; then
	keep=1
	shift
fi
package=$(readlink -f "$1")
program=$(readlink -f "$2")
version=$(dpkg-deb -f "$package" Package | sed 's/postgresql-\([0-9]*\)-.*/\1/')
export DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8

# no cluster beside the one that the container, or this test, makes
mkdir -p /etc/postgresql-common/createcluster.d
echo 'create_main_cluster = false' >/etc/postgresql-common/createcluster.d/event_queue.conf
apt-get update -qq
apt-get install -y -qq --no-install-recommends "$package" "$program" >/dev/null
[ $keep = 1 ] && exit 0

# the container's command, where the test has put it
if [ -x /usr/local/bin/serve.sh ]; then
	runuser -u postgres -- env POSTGRES_PASSWORD=try serve.sh -c listen_addresses=127.0.0.1 -p 5498 >/tmp/serve.log 2>&1 &
	for _ in $(seq 100); do
		answer=$(PGPASSWORD=try psql -h 127.0.0.1 -p 5498 -U postgres -qAtXc 'CREATE EXTENSION event_queue' \
			-c 'SELECT event_queue.version()' 2>/dev/null) && break
		sleep 0.2
	done
	kill -INT "$(head -n 1 "/var/lib/postgresql/$version/data/postmaster.pid")"
	wait
	echo "container: event_queue $answer"
fi

pg_createcluster "$version" try --port 5499 >/dev/null
pg_conftool "$version" try set shared_preload_libraries event_queue
pg_conftool "$version" try set listen_addresses ''
pg_ctlcluster "$version" try start
run() { runuser -u postgres -- psql -p 5499 -qAtX -v ON_ERROR_STOP=1 "$@"; }
run <<'SQL'
CREATE EXTENSION event_queue;
SELECT event_queue.create_queue('mail') \g /dev/null
SELECT event_queue.append('lead', 'L1', 'lead.created', '{}') \g /dev/null
SELECT event_queue.enqueue('mail', 'welcome', '{"to": "a"}') \g /dev/null
SELECT job_id, lease_token FROM event_queue.claim('mail') \gset
SELECT event_queue.complete(:job_id, :'lease_token') \g /dev/null
SQL
runuser -u postgres -- eventq -p 5499 job add mail goodbye '"ana"' -q >/dev/null
runuser -u postgres -- eventq -p 5499 work mail --until-empty -- grep -q ana
runuser -u postgres -- eventq -p 5499 doctor
events=$(run -c 'SELECT count(*) FROM event_queue.event_store')
jobs=$(run -c "SELECT count(*) FROM event_queue.jobs")
run -c 'CREATE DATABASE old'
run -d old -c "CREATE EXTENSION event_queue VERSION '0.1.0'" -c 'ALTER EXTENSION event_queue UPDATE' \
	-c "SELECT event_queue.create_queue('mail')" >/dev/null
run -c 'DROP EXTENSION event_queue CASCADE'
pg_dropcluster --stop "$version" try
apt-get purge -y -qq "$(dpkg-deb -f "$package" Package)" eventq >/dev/null
left=$(find /usr/lib/postgresql /usr/share/postgresql /usr/share/doc /usr/bin /usr/share/man /usr/share/bash-completion \
	-name '*event*queue*' -o -name 'eventq*' | wc -l)
echo "events $events, jobs left $jobs, files left $left"
[ "$events" = 1 ] && [ "$jobs" = 0 ] && [ "$left" = 0 ]
