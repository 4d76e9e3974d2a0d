#!/bin/sh
# Runs the tests from outside. Those that need a library which PostgreSQL does not have are left out; the summary counts
# them as ignored or filtered out, and a line says why, here and in the file that the variable PG_STOCK_SKIPPED names.
#   test-outside.sh PG_CONFIG [FILTER...]
set -eu
libraries=$("$1" --pkglibdir) built=$("$1" --configure)
shift

skipped() {
    echo "SKIPPED with PostgreSQL ${PG:-}: $1: this PostgreSQL has none" | tee -a "${PG_STOCK_SKIPPED:-/dev/null}"
}

has() {
    [ -e "$libraries/$1.so" ]
}

if has citus; then set -- --include-ignored "$@"; else skipped 'the test beside the real Citus'; fi
if ! has pg_cron; then
    skipped 'the test with the real pg_cron'
    set -- --skip schedule::pg_cron_runs "$@"
fi
if ! has amcheck; then
    skipped 'the test of indexes by amcheck'
    set -- --skip direct::amcheck_finds "$@"
fi
# Until 15 it is there where it was asked for, from then on where it was not refused.
case ${PG:-15}$built in
    15*--with-icu*) ;;
    15* | *--without-icu*)
        skipped "the test in a database that ICU sorts"
        set -- --skip repair::levels_are_locked_in_the_order_of_their_bytes_whatever_icu_says "$@"
        ;;
esac
case $built in
    *--enable-cassert*) ;;
    *)
        skipped 'the test in which all that is cached is forgotten, with assertions'
        set -- --skip asserts:: "$@"
        ;;
esac
if [ "${PG:-15}" -lt 17 ]; then
    skipped 'the tests of transaction_timeout'
    set -- --skip durability::a_transaction_timeout "$@"
fi
if [ "${PG:-15}" -lt 18 ]; then
    skipped 'the tests of what 18 lets a DBA add, and of an extension in a folder of its own'
    set -- --skip direct::what_only_postgresql_18 --skip surroundings::an_extension_in_a_folder_of_its_own "$@"
fi
if [ -z "${PG_STOCK_NEWER_PROGRAMS:-}" ]; then
    set -- --skip upgrade::pg_upgrade "$@"
fi
cargo test -p pg_stock_tests --test outside -- "$@"
