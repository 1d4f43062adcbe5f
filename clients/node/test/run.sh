#!/bin/bash
# run.sh: the tests of the Node client against a private server; skipped without node or
# its packages.  The variable FILES names test files; default: all.  "run.sh e2e" runs
# test/e2e.js alone.
set -euo pipefail
here=$(cd "$(dirname "$0")/.." && pwd)
if ! command -v node >/dev/null || ! command -v npm >/dev/null; then
	echo "check-node: skipped, there is no node"
	exit 0
fi
if [ "$(node -p 'process.versions.node.split(".")[0]')" -lt 20 ]; then
	echo "check-node: skipped, node is $(node --version), and the client needs 20 or later"
	exit 0
fi
cd "$here"
if ! timeout 300 npm ci --ignore-scripts --silent; then
	echo "check-node: skipped, npm could not install the packages"
	exit 0
fi
npm run --silent build

if [ "${1:-}" = e2e ]; then
	EQ_NODE_CLIENT=$here exec ../../test/lib/with-cluster.sh bash -c 'cd "$EQ_NODE_CLIENT" && node test/e2e.js'
fi

# Prisma is large, so it is kept beside.  Its client needs no engine; its generator asks for
# the schema engine, a binary from elsewhere, but does not start it: any program will do.
prisma=$(mktemp -d "${TMPDIR:-/tmp}/event_queue_prisma.XXXXXX")
trap 'rm -rf "$prisma"' EXIT
cp .npmrc test/prisma/* "$prisma"
if (cd "$prisma" && timeout 300 npm install --ignore-scripts --silent &&
	printf 'module.exports = { schema: "schema.prisma" };\n' >prisma.config.js &&
	PRISMA_SCHEMA_ENGINE_BINARY=$(type -P true) CHECKPOINT_DISABLE=1 PRISMA_HIDE_UPDATE_MESSAGE=1 \
		timeout 60 npx prisma generate) >"$prisma/log" 2>&1; then
	export EQ_PRISMA=$prisma
else
	echo "check-node: without Prisma, which could not be installed: $(tail -n 1 "$prisma/log")"
fi

# Each file has a database of its own, and each of these three workers or more.
EQ_CONF='max_worker_processes = 100' EQ_NODE_CLIENT=$here ../../test/lib/with-cluster.sh bash -c \
	'cd "$EQ_NODE_CLIENT" && node --test --test-concurrency=1 --test-timeout=180000 ${FILES:-test/*.test.js}'
