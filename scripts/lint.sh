#!/bin/sh
# What the compiler does not check: where SQL text stands, and that the install script is safe.
#   lint.sh EXTENSION_DIR TOOLS_DIR VERSION
set -eu
extension_dir=$1 tools=$2 version=$3
status=0

fail() {
    echo "lint: $1" >&2
    status=1
}

# Which room uses which, that no folder has a circle, and how wide documents are: tests/house.rs.
grep -rnE '"(SELECT|WITH|INSERT INTO|UPDATE|DELETE FROM) ' src --include='*.rs' | grep -v '^src/store/sql/' \
    && fail 'SQL text belongs into src/store/sql/'

# The install script: nothing that a hostile schema could catch.
script=$extension_dir/pg_stock--$version.sql
grep -nE 'CREATE OR REPLACE|CREATE [A-Z ]+ IF NOT EXISTS' "$script" && fail 'the install script must create, not replace'
scripts/released.sh check "$version" || status=1
if [ ! -x "$tools/python/bin/pgspot" ]; then
    python3 -m venv "$tools/python"
    "$tools/python/bin/pip" install --quiet --disable-pip-version-check pgspot
fi
# A procedure that commits can carry no SET (2D000): it names everything in full.
"$tools/python/bin/pgspot" \
    --proc-without-search-path \
    'stock.expire_all(batch_rows integer,INOUT holds_expired bigint,INOUT units_returned bigint)' \
    --proc-without-search-path \
    'stock.pay_waiting(INOUT lines_paid bigint,INOUT units_paid bigint)' \
    --proc-without-search-path \
    'stock.import(batch text,source regclass,mode text,chunk_rows integer,INOUT applied bigint,INOUT repeated bigint,INOUT refused bigint)' \
    --proc-without-search-path \
    'stock.archive(older_than interval,batch_rows integer,INOUT keys bigint,INOUT ledger_rows bigint)' \
    --proc-without-search-path 'stock.entries()' \
    --proc-without-search-path 'stock.lines()' \
    "$script" || fail 'pgspot found something'
# An update replaces what is there, which PostgreSQL allows for the extension's own alone.
for update in sql/pg_stock--*--*.sql; do
    "$tools/python/bin/pgspot" --ignore PS002 --ignore PS015 "$update" || fail "pgspot found something in $update"
done
exit $status
