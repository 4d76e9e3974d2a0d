#!/bin/sh
# A release for PGXN: what is committed, with META.json, as target/pg_stock-VERSION.zip.
#   dist.sh VERSION
set -eu
cd "$(dirname "$0")/.."
version=$1
[ -e "sql/released/pg_stock--$version.sql" ] || { echo "$version is not released: scripts/released.sh" >&2; exit 1; }
mkdir -p target
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
sed "s/@VERSION@/$version/g" packaging/META.json.in >"$work/META.json"
git archive --format zip --prefix "pg_stock-$version/" --add-file "$work/META.json" -o "target/pg_stock-$version.zip" HEAD
ls -l "target/pg_stock-$version.zip"
