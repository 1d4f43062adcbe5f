#!/bin/bash
# http.sh: eventq serve, built with AddressSanitizer (which finds leaks, too), under bad
# HTTP (http.pl).  SECONDS_TO_RUN, SEED.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
top=$here/../..
if [ "${EQ_INSIDE:-}" != yes ]; then
	EQ_INSIDE=yes EQ_FSYNC=off exec "$here/../lib/with-cluster.sh" "$here/http.sh"
fi
work=$(mktemp -d "${TMPDIR:-/tmp}/event_queue_http.XXXXXX")
pid=
trap '[ -z "$pid" ] || kill -KILL $pid 2>/dev/null; rm -rf "$work"' EXIT
pg_config=${PG_CONFIG:-$("$here/../lib/find-pg-config.sh")}
perl "$top/src/bin/embed.pl" "$top/src/bin/web" >"$work/assets.c"
sed -i 's|"../serve.h"|"serve.h"|' "$work/assets.c"
sources=$(ls "$top"/src/bin/*.c | grep -vE '/(top|webhook)')
# shellcheck disable=SC2086
(cd "$top" && cc -g -O1 -fsanitize=address,undefined -fno-sanitize-recover=undefined -DHAVE_LIBEVENT -DEQ_VERSION='"fuzz"' -I src/bin -I "$("$pg_config" --includedir)" \
	-o "$work/eventq" $sources "$work/assets.c" -L"$("$pg_config" --libdir)" -Wl,-rpath,"$("$pg_config" --libdir)" -lpq -levent -lm)
cat >"$PGHOST/data/pg_hba.conf" <<HBA
local all postgres,metrics trust
local all all scram-sha-256
HBA
psql -XqAt -v ON_ERROR_STOP=1 >/dev/null <<'SQL'
SELECT pg_reload_conf();
CREATE EXTENSION event_queue;
CREATE ROLE metrics LOGIN;
CREATE ROLE ana LOGIN PASSWORD 'ana-pw';
SELECT event_queue.grant_observer('metrics'), event_queue.grant_admin('ana');
SELECT event_queue.create_queue('mail');
SELECT event_queue.enqueue('mail', 'send') FROM generate_series(1, 100);
SELECT event_queue.append('lead', 'L-1', 'lead.created');
SQL
printf 'token-of-ana-0123456789 ana\n' >"$work/tokens"
printf '*:*:*:ana:ana-pw\n' >"$work/pgpass"
chmod 600 "$work/tokens" "$work/pgpass"
PGPASSFILE=$work/pgpass ASAN_OPTIONS=exitcode=99 "$work/eventq" serve -U metrics --listen 127.0.0.1:0 --allow-actions --token-file "$work/tokens" --max-clients 60 --statement-timeout 2000 2>"$work/log" &
pid=$!
# shellcheck source=test/lib/serve.sh
. "$here/../lib/serve.sh"
url=$(serve_url "$work/log")
port=${url##*:}
answer=$(curl -s -i -H 'X-CSRF-Token: sign-in' -d 'user=ana&password=ana-pw' "http://127.0.0.1:$port/api/session")
cookie=$(sed -n 's/^Set-Cookie: \(eventq=[0-9a-f]*\).*/\1/p' <<<"$answer")
csrf=$(sed -n 's/.*"csrf":"\([0-9a-f]*\)".*/\1/p' <<<"$answer")
status=0
perl "$here/http.pl" "$port" "${SECONDS_TO_RUN:-30}" "${SEED:-1}" "$cookie" "$csrf" || status=1
kill -TERM $pid
ended=0
wait $pid || ended=$?
pid=
if [ $ended = 0 ]; then
	echo 'ok - it ends well, and leaks nothing'
else
	echo "not ok - it ended with status $ended"
	grep -n -A 40 'ERROR: \|runtime error' "$work/log" | head -n 80
	status=1
fi
exit $status
