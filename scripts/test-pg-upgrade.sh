#!/bin/sh
# Brings a server of one major to the newest one by pg_upgrade. The servers are those that `make stage` prepares, below
# TREES/pgMAJOR.
#   test-pg-upgrade.sh PG TREES NEWER_MAJOR...
set -eu
pg=$1 trees=$2
shift 2

skipped() {
    echo "SKIPPED with PostgreSQL $pg: $1" | tee -a "${PG_STOCK_SKIPPED:-/dev/null}"
}

# The minor releases of November 2026 of some majors write an option (pg_attver) into the catalog that those of others do
# not know: pg_upgrade from the former to the latter fails whatever a database holds.
writes_versions() {
    grep -rqs ATTRIBUTE_VERSION_ATTOPTION "$trees/pg$1/usr"
}

for newer; do
    if ! make --no-print-directory PG="$newer" SYSTEM="/usr/lib/postgresql/$newer/bin/pg_config" setup; then
        skipped "the test of pg_upgrade to $newer: no PostgreSQL $newer could be brought"
        continue
    fi
    make --no-print-directory PG="$newer" SYSTEM="/usr/lib/postgresql/$newer/bin/pg_config" stage
    if writes_versions "$pg" && ! writes_versions "$newer"; then
        skipped "the test of pg_upgrade to $newer: its minor release is older than what the other one writes"
        continue
    fi
    export PG_STOCK_NEWER_PROGRAMS="$trees/pg$newer/usr/lib/postgresql/$newer/bin"
    cargo test -p pg_stock_tests --test outside -- upgrade::pg_upgrade
    exit 0
done
[ $# -gt 0 ] || skipped "the test of pg_upgrade: there is no newer one"
