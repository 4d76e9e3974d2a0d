#!/bin/sh
# Runs the tests of the cache worker. The one with containers runs where a Docker engine answers; else the summary
# counts it as filtered out, and a line says why, here and in the file that the variable PG_STOCK_SKIPPED names.
#   test-cache.sh PG
set -eu

# The image that the containers are made from: Debian 12, pulled, or made here where no registry is in reach.
find_base() {
    base=${PG_STOCK_BASE_IMAGE:-debian:bookworm}
    docker image inspect "$base" >/dev/null 2>&1 && return
    timeout 120 docker pull -q "$base" >/dev/null 2>&1 && return
    base=pg_stock_base:bookworm
    docker image inspect "$base" >/dev/null 2>&1 && return
    make_base "$base"
}

# One chain: inside a condition the shell goes on after an error, and half a system must not become an image.
make_base() {
    as_root=
    [ "$(id -u)" -eq 0 ] || as_root=sudo
    folder=$(mktemp -d)
    mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | head -n 1)
    made=1
    $as_root env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends debootstrap >/dev/null &&
        $as_root debootstrap --variant=minbase bookworm "$folder" "$mirror" >/dev/null &&
        $as_root tar -C "$folder" -c . | docker import --change 'CMD ["bash"]' - "$1" >/dev/null && made=0
    $as_root rm -rf "$folder"
    return "$made"
}

obstacle=""
if ! docker version --format '{{.Server.Version}}' >/dev/null 2>&1; then
    obstacle="no Docker engine answers"
elif [ "$1" != 15 ]; then
    obstacle="the image is Debian 12, which has PostgreSQL 15 alone"
elif ! find_base; then
    obstacle="there is no image of Debian 12, and none could be made"
fi
if [ -n "$obstacle" ]; then
    echo "SKIPPED: the test of the cache worker with containers: $obstacle" | tee -a "${PG_STOCK_SKIPPED:-/dev/null}"
    cargo test -p pg_stock_cache -- --skip containers::
else
    PG_STOCK_BASE_IMAGE=$base cargo test -p pg_stock_cache
fi
