#!/bin/sh
# Makes the images of the packages, and starts the compose file: a reservation, a cache that follows, a restart that
# keeps both; and nothing is left.
#   test-image.sh VERSION PG PACKAGES
set -eu
cd "$(dirname "$0")/.."
version=$1 pg=$2 packages=$3

skip() {
    echo "SKIPPED: the test of the images: $1" | tee -a "${PG_STOCK_SKIPPED:-/dev/null}"
    exit 0
}

release=$(scripts/release-of.sh "$pg") || skip "no release of Debian has PostgreSQL $pg"
base=$(scripts/base-image.sh "$release") || skip "$base"
if docker compose version >/dev/null 2>&1; then compose="docker compose"
elif command -v docker-compose >/dev/null; then compose=docker-compose
else skip "there is no docker compose"; fi

scripts/image.sh "$version" "$pg" "$packages"
export PG="$pg" POSTGRES_PASSWORD=secret CACHE_PASSWORD=other PORT=0 REDIS_IMAGE=pg_stock_redis_test
docker build -q -t "$REDIS_IMAGE" - <<EOF >/dev/null
FROM $base
RUN apt-get update && apt-get install -y --no-install-recommends redis-server
EOF
compose="$compose -p pg_stock_image_test -f packaging/oci/compose.yaml"
trap '$compose down -v -t 5 >/dev/null 2>&1' EXIT
trap 'exit 130' INT TERM
$compose up -d

sql() {
    $compose exec -T database psql -X -h /tmp -U postgres -d shop -Atc "$1"
}

# What must be so within a minute.
eventually() {
    for _ in $(seq 120); do
        if "$@" >/dev/null 2>&1; then return; fi
        sleep 0.5
    done
    $compose logs --tail 20
    echo "not within a minute: $*" >&2
    exit 1
}

is_cached() {
    $compose exec -T redis redis-cli GET stock:level:main:apple | grep -q "\"available\":$1"
}

eventually sql "SELECT stock.receive_stock('delivery-1', 'apple', 'main', 10)"
[ "$(sql "SELECT outcome FROM stock.reserve_stock('order-1', 'apple', 'main', 2)")" = reserved ]
eventually is_cached 8
$compose restart -t 10
eventually sql "SELECT stock.confirm_stock('order-1')"
eventually sql "SELECT stock.sell_stock('order-2', 'apple', 'main', 3)"
eventually is_cached 5
[ "$(sql "SELECT count(*) FROM stock.verify()")" = 0 ]
echo "docker compose: a reservation, a cache that follows, a restart that keeps both"
