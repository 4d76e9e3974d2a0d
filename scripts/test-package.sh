#!/bin/sh
# Looks at the packages with lintian; installs, uses and removes them in a container of the Debian release that has this
# PostgreSQL. Where no container can be made, a line says why, here and in the file that PG_STOCK_SKIPPED names.
#   test-package.sh VERSION PG PACKAGES
set -eu
cd "$(dirname "$0")/.."
version=$1 pg=$2 packages=$(realpath "$3")
server=$(ls "$packages/postgresql-$pg-pg-stock_$version"-*.deb) cache=$(ls "$packages/pg-stock-cache_$version"-*.deb)

for package in "$server" "$cache"; do
    lintian --allow-root --fail-on error "$package"
    dpkg-deb --info "$package" | sed -n 's/^ \(Package\|Version\|Installed-Size\|Depends\):/&/p'
    dpkg-deb --contents "$package" | awk '{ print $1, $3, $6 }'
done

skip() {
    echo "SKIPPED with PostgreSQL $pg: the test of packages in containers: $1" | tee -a "${PG_STOCK_SKIPPED:-/dev/null}"
    exit 0
}

release=$(scripts/release-of.sh "$pg") || skip "no release of Debian has it"
base=$(scripts/base-image.sh "$release") || skip "$base"
docker run --rm -v "$packages:/packages:ro" -v "$PWD/packaging/try.sh:/try.sh:ro" "$base" \
    sh /try.sh "$pg" "/packages/${server##*/}" "/packages/${cache##*/}"
