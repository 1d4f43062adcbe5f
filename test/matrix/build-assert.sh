#!/bin/bash
# build-assert.sh PREFIX MAJOR: builds PostgreSQL from Debian's source with
# assertions, the test tools and pgTAP into PREFIX.  Run as root on Debian with
# deb-src lines; called by matrix/run.sh inside a cell.
#
# The upstream tar is taken, not Debian's patches: these move the server's files
# to where the packages have them, and take -Og out of CFLAGS.
set -euo pipefail
prefix=$1
major=$2
export DEBIAN_FRONTEND=noninteractive
apt-get install -y -qq --no-install-recommends gcc make bison flex perl pkg-config bzip2 xz-utils dpkg-dev \
	libreadline-dev zlib1g-dev libssl-dev libipc-run-perl "postgresql-$major-pgtap" >/dev/null
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
# the newest whose source is there: a mirror of security updates may have packages only
for version in $(apt-cache showsrc "postgresql-$major" | sed -n 's/^Version: //p' | sort -rV); do
	! apt-get source -qq --tar-only --download-only "postgresql-$major=$version" || break
done
tar xf "postgresql-${major}"_*.orig.tar.*
cd "postgresql-$major".*
./configure --quiet --prefix="$prefix" --enable-cassert --enable-debug --enable-tap-tests \
	--with-openssl --with-zlib CFLAGS="-Og -g3 -fno-omit-frame-pointer"
for part in . src/test/regress src/test/isolation src/test/perl contrib/pg_trgm contrib/dblink contrib/pageinspect contrib/pg_visibility; do
	make -s -j"$(nproc)" -C "$part" >/dev/null
	make -s -C "$part" install >/dev/null
done
# pgTAP is SQL only, and so goes with any build of the same version
cp "/usr/share/postgresql/$major/extension/"pgtap* "$("$prefix/bin/pg_config" --sharedir)/extension/"
