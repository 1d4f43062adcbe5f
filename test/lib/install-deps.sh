#!/bin/bash
# install-deps.sh build|test|bench|format|coverage...: installs what is missing, by
# apt package names.  Each need is tried first, so that a second run is quick
# and touches no network.  Needs root or sudo; else it prints the exact line and
# ends with status 1.  Called by the Makefile.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)

missing=()
need() {						# need PACKAGE TEST...
	local package=$1
	shift
	"$@" >/dev/null 2>&1 || missing+=("$package")
}

have_server() { [ "${PG_CONFIG:-$("$here/find-pg-config.sh")}" != pg_config ] || pg_config_is_complete; }
pg_config_is_complete() { [ -f "$(pg_config --includedir-server 2>/dev/null)/postgres.h" ] && [ -x "$(pg_config --bindir 2>/dev/null)/postgres" ]; }
pgxs_dir() { dirname "$("${PG_CONFIG:-$("$here/find-pg-config.sh")}" --pgxs)"; }
have_perl_modules() { [ -f "$(pgxs_dir)/../../src/test/perl/PostgreSQL/Test/Cluster.pm" ]; }
have_extension() { [ -f "$("${PG_CONFIG:-$("$here/find-pg-config.sh")}" --sharedir)/extension/$1.control" ]; }
is_debian_15() { ! have_server || [ "$("${PG_CONFIG:-$("$here/find-pg-config.sh")}" --bindir)" = /usr/lib/postgresql/15/bin ]; }
have_pgbouncer() { command -v pgbouncer || [ -x /usr/sbin/pgbouncer ]; }

for what in "$@"; do
	case $what in
	build)
		need gcc command -v gcc
		need make command -v make
		if ! have_server; then
			missing+=(postgresql-15 postgresql-server-dev-15)
		fi
		;;
	test)
		need libipc-run-perl perl -MIPC::Run -e 1
		need libtest-harness-perl command -v prove
		need libtap-parser-sourcehandler-pgtap-perl command -v pg_prove
		need pgbouncer have_pgbouncer
		if ! have_server || ! have_extension pgtap; then
			missing+=(postgresql-15-pgtap)
		fi
		;;
	bench)						# the lines that need them are skipped without them
		need libdbd-pg-perl perl -MDBD::Pg -e 1
		if is_debian_15 && ! have_extension pgq; then
			missing+=(postgresql-15-pgq3)
		fi
		;;
	format) need clang-format command -v clang-format ;;
	coverage) need gcovr command -v gcovr ;;
	package)
		need postgresql-server-dev-all command -v pg_buildext
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
line="apt-get install -y --no-install-recommends --no-upgrade ${missing[*]}"
if [ "$(id -u)" = 0 ]; then
	sudo=()
elif command -v sudo >/dev/null && sudo -n true 2>/dev/null; then
	sudo=(sudo)
else
	echo "Missing packages. Run this as root, then try again:" >&2
	echo "  apt-get update && $line" >&2
	exit 1
fi
if ! command -v apt-get >/dev/null; then
	echo "No apt-get here; install by other means: ${missing[*]}" >&2
	exit 1
fi

# A fresh install of the server would make and start a system cluster, and one of
# pgbouncer its service, which nothing here needs: switched off for the time of
# this install.
snippet=/etc/postgresql-common/createcluster.d/event_queue_no_main.conf
policy=
restore() { "${sudo[@]}" rm -f "$snippet" ${policy:+"$policy"}; }
trap restore EXIT
if [[ " ${missing[*]} " == *" pgbouncer "* ]] && [ ! -e /usr/sbin/policy-rc.d ]; then
	policy=/usr/sbin/policy-rc.d
	printf '%s\n' '#!/bin/sh' 'exit 101' | "${sudo[@]}" tee "$policy" >/dev/null
	"${sudo[@]}" chmod 755 "$policy"
fi
"${sudo[@]}" mkdir -p "$(dirname "$snippet")"
echo 'create_main_cluster = false' | "${sudo[@]}" tee "$snippet" >/dev/null

echo "Installing: ${missing[*]}"
export DEBIAN_FRONTEND=noninteractive
"${sudo[@]}" apt-get update -qq
# shellcheck disable=SC2086
"${sudo[@]}" $line -qq >/dev/null
