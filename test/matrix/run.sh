#!/bin/bash
# matrix/run.sh [CELL...]: the whole suite on every server that we say we
# support.  Called by "make check-matrix"; needs root and debootstrap.
#
# A cell is a Debian release in a folder of its own, in which "make check" is
# run as root with nothing prepared by hand but what the cell's line here says,
# so that the installation of dependencies is tested too:
#   15         bookworm, Debian's server
#   15-assert  bookworm, a server built from Debian's source with assertions
#   17         trixie
#   18         sid
#   15-to-17   pg_upgrade from 15-assert's server to trixie's (pg-upgrade.sh)
# 16 is in no release of Debian, and so is not here.
#
# MATRIX_DIR  where the folders and the logs are (kept, so that the next run is
#             quick); default event_queue_matrix in TMPDIR or /tmp
# MIRROR      Debian's mirror; default: the one that this machine's apt uses
# TESTS       kinds of tests as in test/run.sh; default all
# The last line is "N passed, N failed", counted in cells.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
top=$(dirname "$(dirname "$here")")
cells=("$@")
[ ${#cells[@]} = 0 ] && cells=(15 15-assert 17 18 15-to-17)
dir=${MATRIX_DIR:-${TMPDIR:-/tmp}/event_queue_matrix}

fail() { echo "check-matrix: $1" >&2; exit 1; }
[ "$(id -u)" = 0 ] || fail "needs root, for chroot"
command -v debootstrap >/dev/null || fail "needs debootstrap: apt-get install debootstrap"

mirror=${MIRROR:-}
if [ -z "$mirror" ]; then
	mirror=$(apt-get indextargets --format '$(ORIGIN)|$(LABEL)|$(REPO_URI)' 'Created-By: Packages' 2>/dev/null |
		sed -n '/^Debian|Debian|/{s/^Debian|Debian|//;p;q}')
	[ -n "$mirror" ] || fail "found no Debian mirror in apt's sources; run apt-get update, or set MIRROR"
fi

suite_of() {
	case $1 in
	15 | 15-assert) echo bookworm ;;
	17 | 15-to-17) echo trixie ;;
	18) echo sid ;;
	*) return 1 ;;
	esac
}
for cell in "${cells[@]}"; do
	suite_of "$cell" >/dev/null || fail "no cell \"$cell\"; there are 15, 15-assert, 17, 18 and 15-to-17"
done

# inside ROOT COMMAND...: in a mount and process namespace of its own, so that
# nothing stays mounted or running behind it, however it ends
inside() {
	local root=$1
	shift
	# shellcheck disable=SC2016
	unshare --mount --pid --fork --kill-child bash -c '
		root=$1
		shift
		mount -t proc proc "$root/proc" &&
			mkdir -p "$root/dev/shm" && mount -t tmpfs -o mode=1777 tmpfs "$root/dev/shm" || exit 1
		# for tmux; without it the tests of eventq top fail
		mkdir -p "$root/dev/pts" && mount -t devpts -o newinstance,ptmxmode=0666,mode=620 devpts "$root/dev/pts" &&
			{ [ -e "$root/dev/ptmx" ] || : >"$root/dev/ptmx"; } && mount --bind "$root/dev/pts/ptmx" "$root/dev/ptmx" || true
		exec chroot "$root" env -i HOME=/root LANG=C.UTF-8 PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
			DEBIAN_FRONTEND=noninteractive CI="${CI:-}" EQ_LONG="${EQ_LONG:-}" "$@"' -- "$root" "$@"
}

prepare() {						# prepare CELL ROOT: the release, and the server if it is not Debian's
	local cell=$1 root=$2 suite
	suite=$(suite_of "$cell")
	if [ ! -e "$root/etc/debian_version" ] || [ -d "$root/debootstrap" ]; then
		rm -rf --one-file-system "$root"
		debootstrap --variant=minbase --include=ca-certificates "$suite" "$root" "$mirror" || return 1
	fi
	cp /etc/resolv.conf "$root/etc/resolv.conf" 2>/dev/null || true
	printf 'deb %s %s main\ndeb-src %s %s main\n' "$mirror" "$suite" "$mirror" "$suite" >"$root/etc/apt/sources.list"
	# a mirror may stand still, and the list of sid is soon past its date
	echo 'Acquire::Check-Valid-Until "false";' >"$root/etc/apt/apt.conf.d/99matrix"
	inside "$root" apt-get update -qq &&
		inside "$root" apt-get install -y -qq --no-install-recommends make gcc || return 1
	if [ "$cell" = 15-to-17 ]; then
		# the libraries that it is linked with have the same names in both releases
		[ -x "$dir/15-assert/opt/pg15-assert/bin/postgres" ] || prepare 15-assert "$dir/15-assert" || return 1
		mkdir -p "$root/opt"
		cp -a "$dir/15-assert/opt/pg15-assert" "$root/opt/"
		return 0
	fi
	[ "$cell" = 15-assert ] || return 0
	[ -x "$root/opt/pg15-assert/bin/postgres" ] && return 0
	cp "$here/build-assert.sh" "$root/root/build-assert.sh"
	inside "$root" bash /root/build-assert.sh /opt/pg15-assert 15
}

run_cell() {					# run_cell CELL ROOT
	local cell=$1 root=$2 config=()
	prepare "$cell" "$root" || { echo "could not prepare the cell"; return 1; }
	rm -rf "$root/root/event_queue"
	mkdir -p "$root/root/event_queue"
	# what is committed or would be; not what was built here
	(cd "$top" && git ls-files -co --exclude-standard -z | xargs -0 ls -d 2>/dev/null | tar cf - --no-recursion -T -) |
		tar xf - -C "$root/root/event_queue" --no-same-owner
	if [ "$cell" = 15-to-17 ]; then
		inside "$root" sh -c 'cd /root/event_queue && test/lib/install-deps.sh build test &&
			test/matrix/pg-upgrade.sh /opt/pg15-assert/bin/pg_config "$(test/lib/find-pg-config.sh)"'
		return
	fi
	[ "$cell" = 15-assert ] && config=(PG_CONFIG=/opt/pg15-assert/bin/pg_config)
	inside "$root" make -C /root/event_queue check TESTS="${TESTS:-}" "${config[@]}" || return 1
	# shellcheck disable=SC2016
	inside "$root" env "${config[@]}" sh -c 'cd /root/event_queue
		echo "server: $("${PG_CONFIG:-$(test/lib/find-pg-config.sh)}" --version | cut -d " " -f 2), gcc $(gcc -dumpfullversion)"'
}

mkdir -p "$dir"
passed=0
failed=0
table=()
for cell in "${cells[@]}"; do
	log=$dir/$cell.log
	start=$SECONDS
	echo "== $cell: $(suite_of "$cell"), log in $log"
	result=passed
	run_cell "$cell" "$dir/$cell" >"$log" 2>&1 </dev/null || result=FAILED
	counts=$(grep -E '^[0-9]+ passed, [0-9]+ failed' "$log" | tail -n 1 || true)
	# a run that tested nothing has not passed
	[ -n "$counts" ] || result=FAILED
	if [ $result = passed ]; then
		passed=$((passed + 1))
	else
		failed=$((failed + 1))
		grep -E '^not ok|FAILED|rror:' "$log" | head -n 20 || true
		[ -n "$counts" ] || tail -n 10 "$log"
	fi
	server=$(grep -m1 '^server: ' "$log" | cut -c9- || true)
	table+=("$cell|$(suite_of "$cell")|${server:-?}|${counts:-no test run}|$result|$((SECONDS - start)) s")
done
echo
{
	echo "cell|release|server|tests|result|time"
	printf '%s\n' "${table[@]}"
} | column -t -s '|'
echo "$passed passed, $failed failed"
[ $failed = 0 ]
