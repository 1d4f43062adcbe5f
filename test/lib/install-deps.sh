#!/bin/bash
# install-deps.sh build|test|node|browser|bench|format|fuzz|coverage...: installs what is missing, by
# apt package names.  Each need is tried first, so that a second run is quick
# and touches no network.  Needs root or sudo; else it prints the exact line and
# ends with status 1.  Called by the Makefile.
#
# Packages of the server are named by the version that is found (PG_CONFIG, or
# find-pg-config.sh); where there is none, by the newest that apt offers.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
pg_config=${PG_CONFIG:-$("$here/find-pg-config.sh")}

missing=()
need() {						# need PACKAGE TEST...
	local package=$1
	shift
	"$@" >/dev/null 2>&1 || missing+=("$package")
}

have_server() { [ -f "$("$pg_config" --includedir-server 2>/dev/null)/postgres.h" ] && [ -x "$("$pg_config" --bindir 2>/dev/null)/postgres" ]; }
have_extension() { [ -f "$("$pg_config" --sharedir)/extension/$1.control" ]; }
# A server of Debian's own, for which apt can have extensions; one built from
# source gets them from whoever built it.
is_debian() { ! have_server || [[ $("$pg_config" --bindir) == /usr/lib/postgresql/*/bin ]]; }
major() {						# NN, or the newest that apt offers
	local version
	if have_server; then
		"$pg_config" --version | sed 's/^PostgreSQL \([0-9]*\).*/\1/'
		return
	fi
	for version in 18 17 16 15; do
		if [ -n "$(apt-cache madison "postgresql-server-dev-$version" 2>/dev/null)" ]; then
			echo "$version"
			return
		fi
	done
	echo 15						# nothing known: the error of apt-get then names it
}
have_pgbouncer() { command -v pgbouncer || [ -x /usr/sbin/pgbouncer ]; }

for what in "$@"; do
	case $what in
	build)
		need gcc command -v gcc
		need make command -v make
		need perl command -v perl
		# eventq is built without what is missing of these
		need pkg-config command -v pkg-config
		need libevent-dev pkg-config --exists libevent
		need libncurses-dev pkg-config --exists ncursesw
		need libcurl4-openssl-dev pkg-config --exists libcurl
		need libssl-dev pkg-config --exists libcrypto
		need libjs-chart.js test -f /usr/share/javascript/chart.js/chart.min.js
		if ! have_server; then
			missing+=(postgresql-NN postgresql-server-dev-NN)
		fi
		;;
	prometheus)
		need prometheus command -v promtool
		need python3 command -v python3
		;;
	test)
		# zones of old names are a package of their own from trixie on
		{ [ -f /usr/share/zoneinfo/CET ] || ! apt-cache show tzdata-legacy >/dev/null 2>&1; } || missing+=(tzdata-legacy)
		need libipc-run-perl perl -MIPC::Run -e 1
		need libtest-harness-perl command -v prove
		need libtap-parser-sourcehandler-pgtap-perl command -v pg_prove
		need pgbouncer have_pgbouncer
		need tmux command -v tmux
		if is_debian && { ! have_server || ! have_extension pgtap; }; then
			missing+=(postgresql-NN-pgtap)
		fi
		;;
	bench)						# the lines that need them are skipped without them
		need libdbd-pg-perl perl -MDBD::Pg -e 1
		if is_debian && { ! have_server || ! have_extension pgq; }; then
			missing+=(postgresql-NN-pgq3)
		fi
		;;
	node)						# what else the client's tests need, npm brings
		need nodejs command -v node
		need npm command -v npm
		need redis-server command -v redis-server
		need pgbouncer have_pgbouncer
		need openssl command -v openssl
		;;
	browser) need chromium command -v chromium ;;
	format) need clang-format command -v clang-format ;;
	fuzz) need python3 command -v python3 ;;
	coverage) need gcovr command -v gcovr ;;
	package)
		need pkg-config command -v pkg-config
		need libpq-dev pkg-config --exists libpq
		need libevent-dev pkg-config --exists libevent
		need libncurses-dev pkg-config --exists ncursesw
		need libcurl4-openssl-dev pkg-config --exists libcurl
		need libssl-dev pkg-config --exists libcrypto
		need libjs-chart.js test -f /usr/share/javascript/chart.js/chart.min.js
		need postgresql-server-dev-all dpkg -s postgresql-server-dev-all
		need debhelper command -v dh
		need dpkg-dev command -v dpkg-buildpackage
		need fakeroot command -v fakeroot
		need lintian command -v lintian
		need debootstrap command -v debootstrap
		;;
	*) echo "install-deps.sh: unknown need \"$what\"" >&2; exit 2 ;;
	esac
done
[ ${#missing[@]} = 0 ] && exit 0

# prove is in Debian's perl itself.
for i in "${!missing[@]}"; do
	[ "${missing[$i]}" = libtest-harness-perl ] && missing[$i]=perl
done
if [ "$(id -u)" = 0 ]; then
	sudo=()
elif command -v sudo >/dev/null && sudo -n true 2>/dev/null; then
	sudo=(sudo)
else
	echo "Missing packages. Run this as root, then try again:" >&2
	echo "  apt-get update && apt-get install -y --no-install-recommends ${missing[*]//NN/$(major)}" >&2
	exit 1
fi
if ! command -v apt-get >/dev/null; then
	echo "No apt-get here; install by other means: ${missing[*]//NN/$(major)}" >&2
	exit 1
fi

# A fresh install of the server would make and start a system cluster, and one of
# pgbouncer or redis-server its service, which nothing here needs: switched off for the time of
# this install.
snippet=/etc/postgresql-common/createcluster.d/event_queue_no_main.conf
policy=
restore() { "${sudo[@]}" rm -f "$snippet" ${policy:+"$policy"}; }
trap restore EXIT
if [[ " ${missing[*]} " =~ " "(pgbouncer|redis-server)" " ]] && [ ! -e /usr/sbin/policy-rc.d ]; then
	policy=/usr/sbin/policy-rc.d
	printf '%s\n' '#!/bin/sh' 'exit 101' | "${sudo[@]}" tee "$policy" >/dev/null
	"${sudo[@]}" chmod 755 "$policy"
fi
"${sudo[@]}" mkdir -p "$(dirname "$snippet")"
echo 'create_main_cluster = false' | "${sudo[@]}" tee "$snippet" >/dev/null

export DEBIAN_FRONTEND=noninteractive
"${sudo[@]}" apt-get update -qq
missing=("${missing[@]//NN/$(major)}")	# apt knows what there is only now
echo "Installing: ${missing[*]}"
"${sudo[@]}" apt-get install -y --no-install-recommends --no-upgrade -qq "${missing[@]}" >/dev/null
