#!/bin/sh
# Makes Debian packages of what was built; they come into OUT.
#   package.sh VERSION server PG TREE OUT   postgresql-PG-pg-stock, of the tree that `cargo pgrx package` has made
#   package.sh VERSION cache PROGRAM OUT    pg-stock-cache
set -eu
cd "$(dirname "$0")/.."
version=$1
shift

# A folder in which dpkg-buildpackage finds everything: the files under root/, and debian/.
begin() {
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    trap 'exit 130' INT TERM
    mkdir -p "$work/pg-stock/root" "$work/pg-stock/debian"
    debian="$work/pg-stock/debian"
    cp packaging/debian/copyright packaging/debian/rules "$debian"
    sed "s/@PG@/${2:-}/g" packaging/debian/source "packaging/debian/$1/control.in" >"$debian/control"
    printf 'pg-stock (%s-1) unstable; urgency=medium\n\n  * See CHANGELOG.md.\n\n -- %s  %s\n' \
        "$version" "$(sed -n 's/^Maintainer: //p' "$debian/control")" \
        "$(git log -1 --format=%aD 2>/dev/null || date -R)" >"$debian/changelog"
}

# Says where each file below root/ is installed.
install_all() {
    package=$1
    (cd "$work/pg-stock/root" && find . -type f | sed 's|^\./\(.*\)/[^/]*$|root/\1/* \1|' | sort -u) \
        >"$debian/$package.install"
}

build() {
    (cd "$work/pg-stock" && dpkg-buildpackage --build=binary --no-sign >"$work/log" 2>&1) ||
        { cat "$work/log" >&2; exit 1; }
    mkdir -p "$1"
    rm -f "$1/$package"_*.deb "$1/$package"-dbgsym_*.deb
    cp "$work"/*.deb "$1"
    ls -l "$1"
}

server() {
    pg=$1 tree=$2 out=$3
    begin server "$pg"
    package=postgresql-$pg-pg-stock
    library=$(find "$tree" -name pg_stock.so)
    extension=$(dirname "$(find "$tree" -name pg_stock.control)")
    root=$work/pg-stock/root
    install -D -m 644 "$library" "$root/usr/lib/postgresql/$pg/lib/pg_stock.so"
    mkdir -p "$root/usr/share/postgresql/$pg/extension"
    cp "$extension"/pg_stock* "$root/usr/share/postgresql/$pg/extension"
    install_all "$package"
    cp README.md CHANGELOG.md docs/*.md "$work/pg-stock"
    (cd "$work/pg-stock" && ls ./*.md) >"$debian/$package.docs"
    build "$out"
}

cache() {
    program=$1 out=$2
    begin cache
    install -D -m 755 "$program" "$work/pg-stock/root/usr/bin/pg-stock-cache"
    install_all pg-stock-cache
    cp packaging/debian/cache/pg-stock-cache.service packaging/debian/cache/pg-stock-cache.default "$debian"
    cp cache-worker/README.md "$work/pg-stock"
    echo README.md >"$debian/pg-stock-cache.docs"
    build "$out"
}

command=$1
shift
"$command" "$@"
