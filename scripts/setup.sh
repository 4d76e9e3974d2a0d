#!/bin/sh
# Installs what building and testing need, and makes a private copy of PostgreSQL to install into.
#   setup.sh packages PG PG_CONFIG
#                               Debian packages: libclang, a C compiler; PostgreSQL PG and its headers, unless PG_CONFIG
#                               is that of one; where apt has none, what scripts/server.sh needs
#   setup.sh demo-packages      what the demo needs beside that: Redis
#   setup.sh test-packages PG PG_CONFIG
#                               what only tests need: Redis, psycopg2, and pg_cron for a PostgreSQL of this system, which
#                               comes along
#   setup.sh lint-packages      what looks at scripts
#   setup.sh package-packages   what makes packages
#   setup.sh test-package-packages
#                               what looks at packages
#   setup.sh monitoring DIR     Prometheus and its exporters below DIR: unpacked, for installed they would run
#   setup.sh copy PG PG_CONFIG DIR [KIND]
#                               a copy of that PostgreSQL below DIR: nothing is installed into the system's own; where
#                               there is none, or KIND is `early` or `asserts`, the one that scripts/server.sh brings
#                               (`newest` is none of these, in a folder of its own)
#   setup.sh pgrx VERSION DIR   cargo-pgrx of that version below DIR
set -eu

CLUSTERS=${PG_STOCK_CREATECLUSTER_CONF:-/etc/postgresql-common/createcluster.conf}
NO_CLUSTER='create_main_cluster = false # while pg_stock installs packages'

as_root() {
    if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo "$@"; fi
}

packages() {
    if is_whole "$2"; then
        server=""
    elif is_known "postgresql-$1"; then
        server="postgresql-$1 postgresql-server-dev-$1"
    elif is_debian && [ "$2" = "/usr/lib/postgresql/$1/bin/pg_config" ]; then
        server=patchelf
    else
        unknown "postgresql-$1"
    fi
    # shellcheck disable=SC2086 # a list of words
    install_missing $server libclang-dev clang build-essential pkg-config libssl-dev sudo python3-venv ca-certificates
}

# A PostgreSQL with its headers.
is_whole() {
    [ -x "$1" ] && [ -e "$("$1" --includedir-server)/postgres.h" ] && [ -x "$("$1" --bindir)/postgres" ]
}

is_known() {
    is_installed "$1" && return
    [ -n "$(apt-get indextargets 'Created-By: Packages')" ] || as_root apt-get update -q
    apt-cache show "$1" >/dev/null 2>&1
}

is_debian() {
    [ -e /usr/share/keyrings/debian-archive-keyring.gpg ]
}

# redis-tools has the program of the server, without the service that redis-server would start.
demo_packages() {
    install_missing redis-tools
}

test_packages() {
    demo_packages
    install_missing python3-psycopg2
    [ "$2" != "/usr/lib/postgresql/$1/bin/pg_config" ] || ! is_known "postgresql-$1" ||
        install_missing "postgresql-$1-cron"
}

lint_packages() {
    install_missing shellcheck
}

package_packages() {
    install_missing debhelper dpkg-dev
}

test_package_packages() {
    install_missing lintian
}

monitoring() {
    [ ! -x "$1/usr/bin/prometheus-sql-exporter" ] || return 0
    mkdir -p "$1"
    for package in prometheus prometheus-postgres-exporter prometheus-sql-exporter; do
        apt-cache show "$package" >/dev/null 2>&1 || as_root apt-get update -q
        (cd "$1" && apt-get download -q "$package")
        dpkg-deb -x "$1/$package"_*.deb "$1"
        rm "$1/$package"_*.deb
    done
}

install_missing() {
    missing=""
    for package; do
        is_installed "$package" || missing="$missing $package"
    done
    [ -z "$missing" ] && return
    as_root apt-get update -q
    for package in $missing; do
        apt-cache show "$package" >/dev/null 2>&1 || unknown "$package"
    done
    # It brings the file that forbids clusters: were that made before, the package would leave its own aside.
    case $missing in *postgresql*) is_installed postgresql-common || apt_install postgresql-common ;; esac
    forbid_clusters
    # shellcheck disable=SC2086 # a list of words
    apt_install $missing && done=yes || done=no
    allow_clusters
    [ "$done" = yes ]
}

is_installed() {
    dpkg-query -W -f '${Status}' "$1" 2>/dev/null | grep -q ' installed$'
}

apt_install() {
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends \
        -o Dpkg::Options::=--force-confold "$@"
}

# Without this, a package of PostgreSQL would create and start a cluster of its own.
forbid_clusters() {
    [ ! -e "$CLUSTERS" ] || echo "$NO_CLUSTER" | as_root tee -a "$CLUSTERS" >/dev/null
}

# So that a later installation does what it always does.
allow_clusters() {
    [ ! -e "$CLUSTERS" ] || as_root sed -i "/^$NO_CLUSTER\$/d" "$CLUSTERS"
}

unknown() {
    echo "apt knows no package $1. Another PostgreSQL, with its headers, can be named: make SYSTEM=/path/of/its/pg_config" >&2
    echo "PG=its-major; or add a repository that has it, PostgreSQL's own say." >&2
    exit 1
}

# PostgreSQL finds its files relative to its programs, so that a copy of the tree is a whole installation.
copy() {
    pg=$1 config=$2 dir=$3 kind=${4:-}
    case $kind in
        '' | newest) ;;
        early | asserts)
            [ "$kind" = early ] || install_missing bison flex libicu-dev libssl-dev zlib1g-dev
            [ -x "$dir$config" ] || "$(dirname "$0")/server.sh" "$pg" "$dir" "$kind"
            return
            ;;
        *)
            echo "there is no kind of PostgreSQL that is called $kind: newest, early, asserts" >&2
            exit 1
            ;;
    esac
    if [ ! -x "$config" ]; then
        [ "$config" = "/usr/lib/postgresql/$pg/bin/pg_config" ] || unknown "that brings $config"
        [ -x "$dir$config" ] || "$(dirname "$0")/server.sh" "$pg" "$dir"
        return
    fi
    # Another version, or another extension beside ours: copy anew.
    version="$("$config" --version) $(ls "$("$config" --sharedir)/extension" "$("$config" --pkglibdir)" | cksum)"
    [ "$(cat "$dir/version" 2>/dev/null)" = "$version" ] && return
    rm -rf "$dir"
    mkdir -p "$dir"
    chmod 755 "$dir"
    for part in bindir sharedir pkglibdir includedir-server; do
        path=$("$config" "--$part")
        mkdir -p "$dir$(dirname "$path")"
        [ -e "$dir$path" ] || cp -a "$path" "$dir$path"
    done
    echo "$version" >"$dir/version"
}

pgrx() {
    "$2/bin/cargo-pgrx" pgrx --version 2>/dev/null | grep -q " $1\$" && return
    cargo install cargo-pgrx --version "$1" --locked --debug --root "$2"
}

command=$(echo "$1" | tr - _)
shift
"$command" "$@"
