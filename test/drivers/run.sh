#!/bin/bash
# run.sh: the tests of drivers; skipped where node or its packages can't be had.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
if ! command -v node >/dev/null || ! command -v npm >/dev/null; then
	echo "drivers: skipped, there is no node"
	exit 0
fi
work=$(mktemp -d "${TMPDIR:-/tmp}/event_queue_drivers.XXXXXX")
trap 'rm -rf "$work"' EXIT
cp "$here"/package.json "$here"/*.js "$work"
if ! (cd "$work" && timeout 120 npm install --silent --no-audit --no-fund); then
	echo "drivers: skipped, npm could not install pg"
	exit 0
fi
"$here/../lib/with-cluster.sh" node "$work/pg.js"
