#!/bin/bash
# serve.sh [OPTION...]: the container's command; options go to the server.  Makes the cluster on first start, with
# POSTGRES_PASSWORD for the role postgres, and runs the server in the foreground.
set -euo pipefail
version=$(ls /usr/lib/postgresql)
bin=/usr/lib/postgresql/$version/bin
data=/var/lib/postgresql/$version/data
if [ ! -s "$data/PG_VERSION" ]; then
	"$bin/initdb" -D "$data" -U postgres -E UTF8 --locale=C.UTF-8 -A scram-sha-256 \
		--pwfile=<(printf '%s\n' "${POSTGRES_PASSWORD:?set POSTGRES_PASSWORD}")
	printf '%s\n' "listen_addresses = '*'" "shared_preload_libraries = 'event_queue'" \
		"max_worker_processes = 32" >> "$data/postgresql.conf"
	printf 'host all all all scram-sha-256\n' >> "$data/pg_hba.conf"
fi
exec "$bin/postgres" -D "$data" "$@"
