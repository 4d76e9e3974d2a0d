#!/bin/sh
# The install scripts of releases are kept in sql/released and never edited: from there on an update script leads to what
# comes next.
#   released.sh check VERSION     they are as they were, there is a way from each to VERSION, and where this is released,
#                                 sql/ is what was released
#   released.sh freeze VERSION    keeps sql/ as the script of VERSION
set -eu
cd "$(dirname "$0")/.."
command=$1 version=$2
own=sql/released/pg_stock--$version.sql

fail() {
    echo "lint: $1" >&2
    exit 1
}

# The files of sql/ in the order in which src/lib.rs names them.
script() {
    # shellcheck disable=SC2046 # a list of words
    cat $(sed -n 's/^extension_sql_file!("\.\.\/\(sql\/[a-z]*\.sql\)".*/\1/p' src/lib.rs)
}

check() {
    (cd sql/released && sha256sum --check --quiet --strict SHA256SUMS) ||
        fail 'sql/released: what is released must never be edited'
    before=""
    for release in $({ ls sql/released/*.sql; echo "$own"; } | sed 's/.*pg_stock--//; s/\.sql$//' | sort -Vu); do
        [ "$release" = "$version" ] || grep -q " pg_stock--$release.sql\$" sql/released/SHA256SUMS ||
            fail "sql/released/SHA256SUMS lacks $release"
        [ -z "$before" ] || [ -e "sql/pg_stock--$before--$release.sql" ] ||
            fail "sql/pg_stock--$before--$release.sql is missing: the way from $before to $release"
        before=$release
    done
    [ "$before" = "$version" ] || fail "$before is released, and Cargo.toml says $version"
    [ ! -e "$own" ] || script | cmp -s - "$own" ||
        fail "sql/ is not what was released as $version: raise the version in Cargo.toml and write an update script"
}

freeze() {
    [ ! -e "$own" ] || fail "$version is released"
    script >"$own"
    (cd sql/released && sha256sum "pg_stock--$version.sql" >>SHA256SUMS)
}

"$command"
