#!/bin/sh
# Runs PostgreSQL with pg_stock preloaded; what follows is handed on to it (-c max_connections=500). The first time it
# makes the cluster:
#   POSTGRES_PASSWORD   of the superuser postgres; must be given
#   POSTGRES_DB         a database with the extension; shop unless given
#   CACHE_PASSWORD      if given, there is a role cache that may read, for pg-stock-cache
set -eu
volume=/var/lib/postgresql/data
database=${POSTGRES_DB:-shop}

# The server that is made listens in a folder that nobody else knows.
make_cluster() {
    new=$volume/new
    socket=$(mktemp -d)
    trap 'rm -rf "$socket"' EXIT
    rm -rf "$new"
    (umask 077 && printf '%s\n' "$POSTGRES_PASSWORD" >"$socket/password")
    initdb -D "$new" -U postgres --pwfile="$socket/password" --auth-local=trust --auth-host=scram-sha-256 \
        --encoding=UTF8 --locale=C.UTF-8 >/dev/null
    echo 'host all all all scram-sha-256' >>"$new/pg_hba.conf"
    pg_ctl -D "$new" -w -o "-c listen_addresses= -c unix_socket_directories=$socket" start >/dev/null
    psql -X -q -v ON_ERROR_STOP=1 -h "$socket" -U postgres -v database="$database" -f - -o /dev/null <<'EOF'
SET client_min_messages = error;
SELECT format('CREATE DATABASE %I', :'database')
 WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = :'database') \gexec
\connect :"database"
SET client_min_messages = error;
CREATE EXTENSION pg_stock;
\getenv password CACHE_PASSWORD
\if :{?password}
CREATE ROLE cache LOGIN PASSWORD :'password';
SELECT stock.grant_access('cache', 'read');
\endif
EOF
    pg_ctl -D "$new" -w -m fast stop >/dev/null
    # Only what is whole has this name.
    mv "$new" "$volume/cluster"
}

if [ ! -e "$volume/cluster" ]; then
    [ -n "${POSTGRES_PASSWORD:-}" ] || { echo "POSTGRES_PASSWORD must be given" >&2; exit 1; }
    [ -w "$volume" ] || { echo "$volume must belong to the user $(id -un) ($(id -u))" >&2; exit 1; }
    make_cluster
    rm -rf "$socket"
fi
exec postgres -D "$volume/cluster" -c listen_addresses='*' -c unix_socket_directories=/tmp \
    -c shared_preload_libraries=pg_stock "$@"
