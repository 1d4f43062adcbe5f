#!/bin/bash
# deb.sh: builds the Debian packages and installs, tries and removes each in a
# bare debootstrap of this machine's own release, whose mirror is taken from apt's
# settings.  Needs root and debootstrap.  Called by "make check-deb".
set -euo pipefail
top=$(cd "$(dirname "$0")/../.." && pwd)
work=$(mktemp -d "${TMPDIR:-/tmp}/event_queue_bare.XXXXXX")
finish() {
	for inner in proc dev; do
		mountpoint -q "$work/root/$inner" && umount -l "$work/root/$inner"
	done
	rm -rf --one-file-system "$work"
}
trap finish EXIT

# shellcheck disable=SC1091
suite=$(. /etc/os-release && echo "$VERSION_CODENAME")
mirror=$(apt-get indextargets --format '$(REPO_URI)' "Codename: $suite" | head -n 1)
"$top/packaging/deb.sh" "$work/packages"
debootstrap --variant=minbase "$suite" "$work/root" "$mirror" >"$work/debootstrap.log" 2>&1 || {
	tail -n 20 "$work/debootstrap.log" >&2
	exit 1
}
mount -t proc proc "$work/root/proc"
mount --rbind /dev "$work/root/dev"
mount --make-rslave "$work/root/dev"
# all of this machine's sources: security updates, too, against which it was built
rm -f "$work/root/etc/apt/sources.list"
cp -a /etc/apt/apt.conf.d /etc/apt/sources.list.d "$work/root/etc/apt/"
[ ! -f /etc/apt/sources.list ] || cp /etc/apt/sources.list "$work/root/etc/apt/"
cp "$top/packaging/install-and-try.sh" "$work/root/root/"
cp "$top/packaging/docker/serve.sh" "$work/root/usr/local/bin/"
cp "$work"/packages/eventq_*.deb "$work/root/root/eventq.deb"
for package in "$work"/packages/postgresql-*-event-queue_*.deb; do
	cp "$package" "$work/root/root/"
	chroot "$work/root" bash /root/install-and-try.sh "/root/$(basename "$package")" /root/eventq.deb
	echo "ok $(basename "$package")"
done
