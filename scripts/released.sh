#!/bin/sh
# The install scripts of releases are kept in sql/released and never edited, nor the update scripts between them: from
# there on an update script leads to what comes next. VERSION is that of Cargo.toml.
#   released.sh check VERSION     they are as they were, there is a way from each to VERSION, and where this is released,
#                                 sql/ is what was released
#   released.sh freeze VERSION    keeps sql/ as the script of VERSION
set -eu
cd "$(dirname "$0")/.."
command=$1 version=$2
own=released/pg_stock--$version.sql

fail() {
    echo "lint: $1" >&2
    exit 1
}

# The files of sql/ in the order in which src/lib.rs names them.
script() {
    # shellcheck disable=SC2046 # a list of words
    cat $(sed -n 's/^extension_sql_file!("\.\.\/\(sql\/[a-z]*\.sql\)".*/\1/p' src/lib.rs)
}

is_summed() {
    grep -q " $1\$" sql/released/SHA256SUMS
}

# The way from each release to the next, and to VERSION.
check_way() {
    before=""
    for release in $(cd sql && { ls released/*.sql; echo "$own"; } | sed 's/.*pg_stock--//; s/\.sql$//' | sort -Vu); do
        update=pg_stock--$before--$release.sql
        [ -z "$before" ] || [ -e "sql/$update" ] || fail "sql/$update is missing: the way from $before to $release"
        if [ -e "sql/released/pg_stock--$release.sql" ]; then
            is_summed "released/pg_stock--$release.sql" || fail "sql/released/SHA256SUMS lacks $release"
            [ -z "$before" ] || is_summed "$update" || fail "sql/released/SHA256SUMS lacks $update"
        fi
        before=$release
    done
    [ "$before" = "$version" ] || fail "$before is released, and Cargo.toml says $version"
}

check() {
    (cd sql && sha256sum --check --quiet --strict released/SHA256SUMS) || fail 'what is released must never be edited'
    check_way
    [ ! -e "sql/$own" ] || script | cmp -s - "sql/$own" ||
        fail "sql/ is not what was released as $version: raise the version in Cargo.toml and write an update script"
    [ ! -e "sql/$own" ] || grep -q "^## $version (20..-..-..)" CHANGELOG.md ||
        fail "CHANGELOG.md does not say when $version was released"
}

# What is summed last is released.
freeze() {
    grep -q "^version = \"$version\"" Cargo.toml || fail "Cargo.toml does not say $version"
    ! is_summed "$own" || fail "$version is released"
    script >"sql/$own"
    (cd sql && sha256sum "$own" "$(find . -name "pg_stock--*--$version.sql" -printf '%f')" >>released/SHA256SUMS)
    check
}

"$command"
