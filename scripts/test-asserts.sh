#!/bin/sh
# Runs the tests with a PostgreSQL that was built with its own assertions. Ends with 1 also where a server's log tells of
# an assertion that failed, or of something that was not given back.
#   test-asserts.sh PG_CONFIG LOGS    a folder for the logs, which is emptied first, and removed where all is well
set -u
export PG_STOCK_LOGS="$2"
rm -rf "$PG_STOCK_LOGS"
mkdir -p "$PG_STOCK_LOGS" || exit 1
"$(dirname "$0")/test-outside.sh" "$1"
tests=$?
grep -rE 'TRAP:|leak|was not closed|snapshot .* still active|problem in alloc|detected write past' "$PG_STOCK_LOGS"
# 1: nothing was found; 2: it could not be read.
if [ $? -ne 1 ] || [ "$tests" -ne 0 ]; then
    echo "The logs of the servers are in $PG_STOCK_LOGS" >&2
    exit 1
fi
rm -r "$PG_STOCK_LOGS"
