#!/bin/bash
# coverage.sh: builds with gcov, runs all tests, prints line coverage by file,
# and builds again without.  Called by "make coverage".
set -euo pipefail
cd "$(dirname "$0")/.."
export PG_CONFIG=${PG_CONFIG:-$(test/lib/find-pg-config.sh)}
finish() {
	make -s clean PG_CONFIG="$PG_CONFIG"
	make -s install PG_CONFIG="$PG_CONFIG"
}
trap finish EXIT
make -s clean
make -s install COPT="-O0 --coverage" SHLIB_LINK=--coverage
# The servers run as another user and write their counts beside the objects.
chmod -R a+w src
status=0
test/run.sh "$@" || status=$?
gcovr --root . --filter 'src/' --exclude-unreachable-branches --print-summary . 2>/dev/null
exit $status
