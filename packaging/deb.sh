#!/bin/bash
# deb.sh [OUTPUT-DIR]: builds Debian packages of what is committed, one for each
# PostgreSQL that this machine has server headers for, checks them with lintian,
# and puts them into OUTPUT-DIR (./packages).  Called by "make deb".
set -euo pipefail
top=$(cd "$(dirname "$0")/.." && pwd)
output=${1:-$top/packages}
work=$(mktemp -d "${TMPDIR:-/tmp}/event_queue_deb.XXXXXX")
trap 'rm -rf "$work"' EXIT

source=$work/event-queue
mkdir -p "$source" "$output"
git -C "$top" archive HEAD | tar -x -C "$source"
cp -a "$source/packaging/debian" "$source/debian"
cd "$source"
pg_buildext updatecontrol
log=$output/build.log
dpkg-buildpackage --unsigned-source --unsigned-changes --build=binary >"$log" 2>&1 || {
	tail -n 40 "$log" >&2
	exit 1
}
lintian --fail-on error,warning --suppress-tags initial-upload-closes-no-bugs "$work"/*.changes
cp "$work"/*.deb "$output"
ls -1 "$output"/*.deb
