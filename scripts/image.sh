#!/bin/sh
# Makes images of the packages: pg_stock:PG (PostgreSQL with the library preloaded), pg_stock_cache:PG (the worker), and
# pg_stock_extension:PG (the files alone, for an image volume).
#   image.sh VERSION PG PACKAGES [BASE]
set -eu
cd "$(dirname "$0")/.."
version=$1 pg=$2 packages=$3
release=$(scripts/release-of.sh "$pg") || release=bookworm
base=${4:-$(scripts/base-image.sh "$release")} || { echo "$base" >&2; exit 1; }

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM
cp packaging/oci/* "$packages/postgresql-$pg-pg-stock_$version"-*.deb "$packages/pg-stock-cache_$version"-*.deb "$work"
for target in database:pg_stock cache:pg_stock_cache; do
    docker build -q --target "${target%:*}" --build-arg BASE="$base" --build-arg PG="$pg" -t "${target#*:}:$pg" "$work"
done
mkdir "$work/extension"
dpkg-deb -x "$packages/postgresql-$pg-pg-stock_$version"-*.deb "$work/extension"
mkdir -p "$work/extension/share"
mv "$work/extension/usr/lib/postgresql/$pg/lib" "$work/extension/lib"
mv "$work/extension/usr/share/postgresql/$pg/extension" "$work/extension/share/extension"
docker build -q -f "$work/extension.Dockerfile" -t "pg_stock_extension:$pg" "$work/extension"
docker image ls --format '{{.Repository}}:{{.Tag}} {{.Size}}' | grep "^pg_stock.*:$pg "
