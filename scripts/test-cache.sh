#!/bin/sh
# Runs the tests of the cache worker. The one with containers runs where a Docker engine answers; else the summary
# counts it as filtered out, and a line says why, here and in the file that the variable PG_STOCK_SKIPPED names.
#   test-cache.sh PG
set -eu

if [ "$1" != 15 ]; then
    obstacle="the image is Debian 12, which has PostgreSQL 15 alone"
elif base=$("$(dirname "$0")/base-image.sh" bookworm); then
    obstacle=""
else
    obstacle=$base
fi
if [ -n "$obstacle" ]; then
    echo "SKIPPED: the test of the cache worker with containers: $obstacle" | tee -a "${PG_STOCK_SKIPPED:-/dev/null}"
    cargo test -p pg_stock_cache -- --skip containers::
else
    PG_STOCK_BASE_IMAGE=$base cargo test -p pg_stock_cache
fi
