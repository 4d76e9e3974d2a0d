#!/bin/sh
# What the compiler does not check: import direction, and the safety of the generated SQL.
#   lint.sh EXTENSION_DIR TOOLS_DIR
set -eu
extension_dir=$1 tools=$2
status=0

fail() {
    echo "lint: $1" >&2
    status=1
}

# One-way imports: api -> (feed, store, core), worker -> (feed, store, core), feed -> (store, core), store -> core.
grep -rnE 'pgrx|pg_sys' core/src && fail 'core/ must not know PostgreSQL'
grep -rnE 'crate::(api|worker|feed)' src/store && fail 'store must not use api, worker or feed'
grep -rnE 'crate::(api|worker)' src/feed && fail 'feed must not use api or worker'
grep -rnE 'crate::api' src/worker && fail 'worker must not use api'
grep -rnE '"(SELECT|WITH|INSERT INTO|UPDATE|DELETE FROM) ' src --include='*.rs' | grep -v '^src/store/sql/' \
    && fail 'SQL text belongs into src/store/sql/'

# The install script: nothing that a hostile schema could catch.
script=$(find "$extension_dir" -name 'pg_stock--*.sql' | sort | tail -n 1)
grep -nE 'CREATE OR REPLACE|CREATE [A-Z ]+ IF NOT EXISTS' "$script" && fail 'the install script must create, not replace'
if [ ! -x "$tools/python/bin/pgspot" ]; then
    python3 -m venv "$tools/python"
    "$tools/python/bin/pip" install --quiet --disable-pip-version-check pgspot
fi
# A procedure that commits can carry no SET (2D000): it names everything in full.
"$tools/python/bin/pgspot" --proc-without-search-path \
    'stock.expire_all(batch_rows integer,INOUT holds_expired bigint,INOUT units_returned bigint)' "$script" || fail 'pgspot found something'
exit $status
