#!/bin/sh
# Runs the tests from outside. The one beside the real Citus runs where its library is installed; else the summary counts
# it as ignored, and a line says why, here and in the file that the variable PG_STOCK_SKIPPED names.
#   test-outside.sh PG_CONFIG
set -eu

if [ -e "$("$1" --pkglibdir)/citus.so" ]; then
    cargo test -p pg_stock_tests --test outside -- --include-ignored
else
    echo "SKIPPED: the test beside the real Citus: PostgreSQL has no library of it" | tee -a "${PG_STOCK_SKIPPED:-/dev/null}"
    cargo test -p pg_stock_tests --test outside
fi
