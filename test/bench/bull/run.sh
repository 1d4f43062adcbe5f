#!/bin/bash
# run.sh: the Node client side by side with Bull 4 on Redis (Debian's redis-server), with
# appendfsync everysec and always; "make bench-bull".  Skipped without node or redis-server.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
client=$(cd "$here/../../../clients/node" && pwd)
for program in node npm redis-server; do
	if ! command -v "$program" >/dev/null; then
		echo "bench-bull: skipped, there is no $program"
		exit 0
	fi
done
cd "$client"
if [ ! -d node_modules/bull ] && ! timeout 300 npm ci --ignore-scripts --silent; then
	echo "bench-bull: skipped, npm could not install the packages"
	exit 0
fi
npm run --silent build
# bench.js: the queues alone; api.js: an API of NestJS over HTTP (API_SECONDS=30)
export EQ_CLIENT=$client
"$here/../../lib/with-cluster.sh" node "$here/bench.js"
"$here/../../lib/with-cluster.sh" node "$here/api.js"
