#!/bin/sh
# Runs the tests with a PostgreSQL that was built with its own assertions. Ends with 1 also where a server's log tells of
# an assertion that failed, or of something that was not given back.
#   test-asserts.sh PG_CONFIG LOGS
set -eu
here=$(dirname "$0")
export PG_STOCK_LOGS="$2"
rm -rf "$PG_STOCK_LOGS"
mkdir -p "$PG_STOCK_LOGS"
"$here/test-outside.sh" "$1"
if grep -rE 'TRAP:|leak|was not closed|still (active|referenced)|problem in alloc|detected write past' "$PG_STOCK_LOGS"; then
    exit 1
fi
rm -r "$PG_STOCK_LOGS"
