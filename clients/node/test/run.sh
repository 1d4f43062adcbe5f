#!/bin/bash
# run.sh [check|e2e]: the tests of the Node client against a private server.  check, as
# test/run.sh calls it: all of them, and the short form of e2e.js; what they need and can't
# have is an error.  e2e: test/e2e.js alone.  Without either: the tests; skipped where node or
# its packages are not to be had.  The variable FILES names test files; default: all.
# EQ_NODE_ONLY: those whose name has it as a part.
set -euo pipefail
here=$(cd "$(dirname "$0")/.." && pwd)
what=${1:-}
work=$(mktemp -d "${TMPDIR:-/tmp}/event_queue_node.XXXXXX")
trap 'rm -rf "$work"' EXIT
skip() {
	echo "check-node: skipped, $1"
	[ "$what" != check ] || exit 1
	exit 0
}
# A registry that does not answer at once may do so the next time.
npm_do() {
	timeout 300 npm "$@" --no-audit --no-fund --silent || { sleep 5; timeout 300 npm "$@" --no-audit --no-fund --silent; }
}

[ "$what" != check ] || "$here/../../test/lib/install-deps.sh" node || skip "apt could not install node"
command -v node >/dev/null && command -v npm >/dev/null || skip "there is no node"
# Debian 12 has node 18; npm has newer ones, as packages, and an npm that runs on them.
if [ "$(node -p 'process.versions.node.split(".")[0]')" -lt 20 ]; then
	old=$(node --version)
	npm_do install --prefix "$work/node" --ignore-scripts "node-linux-$(node -p process.arch)@20" npm@10 >/dev/null 2>&1 ||
		skip "node is $old, the client needs 20 or later, and npm could not install that"
	mkdir -p "$work/bin"
	ln -s "$work"/node/node_modules/node-linux-*/bin/node "$work/bin/node"
	for program in npm npx; do
		ln -s "$work/node/node_modules/npm/bin/$program-cli.js" "$work/bin/$program"
	done
	export PATH=$work/bin:$PATH
fi
echo "# node $(node --version)"
cd "$here"
npm_do ci --ignore-scripts || skip "npm could not install the packages"
npm run --silent build

run_e2e() {
	EQ_NODE_CLIENT=$here ../../test/lib/with-cluster.sh bash -c 'cd "$EQ_NODE_CLIENT" && node test/e2e.js'
}
if [ "$what" = e2e ]; then
	run_e2e
	exit
fi

files=${FILES:-}
if [ -z "$files" ]; then
	for file in test/*.test.js; do
		[[ $(basename "$file") != *"${EQ_NODE_ONLY:-}"* ]] || files="$files $file"
	done
fi
status=0
if [ -n "$files" ]; then
	# Prisma is large, so it is kept beside.  Its client needs no engine; its generator asks for
	# the schema engine, a binary from elsewhere, but does not start it: any program will do.
	# shellcheck disable=SC2086
	if grep -qw EQ_PRISMA $files; then
		prisma=$work/prisma
		mkdir "$prisma"
		cp .npmrc test/prisma/* "$prisma"
		if (cd "$prisma" && npm_do install --ignore-scripts &&
			printf 'module.exports = { schema: "schema.prisma" };\n' >prisma.config.js &&
			PRISMA_SCHEMA_ENGINE_BINARY=$(type -P true) CHECKPOINT_DISABLE=1 PRISMA_HIDE_UPDATE_MESSAGE=1 \
				timeout 60 npx prisma generate) >"$prisma/log" 2>&1; then
			export EQ_PRISMA=$prisma
		else
			echo "check-node: without Prisma, which could not be installed: $(tail -n 1 "$prisma/log")"
		fi
	fi

	# The migrate of another version, whose schema engine comes with it.
	# shellcheck disable=SC2086
	if grep -q EQ_PRISMA_MIGRATE $files; then
		migrate=$work/prisma-migrate
		mkdir "$migrate"
		cp .npmrc test/prisma-migrate/* "$migrate"
		if (cd "$migrate" && npm_do install --ignore-scripts) >"$migrate/log" 2>&1; then
			export EQ_PRISMA_MIGRATE=$migrate
		else
			echo "check-node: without Prisma's migrate, which could not be installed: $(tail -n 1 "$migrate/log")"
		fi
	fi

	# Each file has a database of its own, and each of these three workers or more.
	EQ_CONF="max_worker_processes = 100
${EQ_CONF:-}" EQ_NODE_CLIENT=$here EQ_NODE_FILES=$files ../../test/lib/with-cluster.sh bash -c \
		'cd "$EQ_NODE_CLIENT" && node --test --test-reporter=tap --test-concurrency=1 --test-timeout=180000 $EQ_NODE_FILES' || status=1
fi
if [ "$what" = check ] && [[ e2e.js == *"${EQ_NODE_ONLY:-}"* ]]; then
	E2E=short run_e2e || { echo "not ok - e2e"; status=1; }
fi
exit $status
