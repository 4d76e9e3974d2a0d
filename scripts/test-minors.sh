#!/bin/sh
# A library that was built with the headers of one minor release runs on another: an early one's on the newest, as after
# apt-get upgrade, and the newest's on an early one, as where a package comes from elsewhere.
#   test-minors.sh EARLY_CONFIG NEWEST_CONFIG [FILTER...]
set -eu
early=$1 newest=$2
shift 2

library() {
    echo "$("$1" --pkglibdir)/pg_stock.so"
}

# Removed first: a file of the same name must not change below a server.
place() {
    rm "$(library "$2")"
    cp "$1" "$(library "$2")"
}

built=$(mktemp -d)
trap 'rm -rf "$built"' EXIT
cp "$(library "$early")" "$built/early"
cp "$(library "$newest")" "$built/newest"
cmp -s "$built/early" "$built/newest" && { echo 'both libraries are the same' >&2; exit 1; }
place "$built/early" "$newest"
place "$built/newest" "$early"
for config in "$newest" "$early"; do
    echo "Built with the other minor release's headers, run on $("$config" --version)"
    PG_STOCK_PROGRAMS=$(dirname "$config") "$(dirname "$0")/test-outside.sh" "$config" "$@"
done
place "$built/early" "$early"
place "$built/newest" "$newest"
