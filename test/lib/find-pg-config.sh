#!/bin/bash
# Prints the path of a pg_config that belongs to a server with its headers and
# PGXS: PostgreSQL 15 if it is there, else the newest up to 18.  Prints
# "pg_config" if none does, so that the caller's error names something.
# Used by the Makefile and by install-deps.sh.
for candidate in pg_config /usr/lib/postgresql/{15,18,17,16}/bin/pg_config; do
	pgxs=$("$candidate" --pgxs 2>/dev/null) || continue
	server=$("$candidate" --bindir)/postgres
	if [ -f "$pgxs" ] && [ -x "$server" ] && [ -f "$("$candidate" --includedir-server)/postgres.h" ]; then
		echo "$candidate"
		exit 0
	fi
done
echo pg_config
