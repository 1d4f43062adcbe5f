# serve.sh: sourced by tests and benches that start "eventq serve --listen 127.0.0.1:0".
# shellcheck shell=bash

# serve_url LOG: waits until it listens, as what it logs says; prints where
serve_url() {
	for _ in $(seq 100); do
		grep -q 'listening on' "$1" && break
		sleep 0.1
	done
	sed -n 's|.*listening on \(http://[^/]*\)/.*|\1|p' "$1" | head -n 1
}
