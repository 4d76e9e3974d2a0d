#!/bin/sh
# Runs PostgreSQL with pg_stock preloaded; what follows is handed on to it (-c max_connections=500). The first time it
# makes the cluster:
#   POSTGRES_PASSWORD   of the superuser postgres; must be given
#   POSTGRES_DB         a database with the extension; shop unless given
#   CACHE_PASSWORD      if given, there is a role cache that may read, for pg-stock-cache
set -eu
volume=/var/lib/postgresql/data
database=${POSTGRES_DB:-shop}

sql() {
    psql -X -q -v ON_ERROR_STOP=1 -h /tmp -U postgres "$@"
}

make_cluster() {
    new=$volume/new
    rm -rf "$new"
    umask 077
    printf '%s\n' "$POSTGRES_PASSWORD" >/tmp/password
    initdb -D "$new" -U postgres --pwfile=/tmp/password --auth-local=trust --auth-host=scram-sha-256 --encoding=UTF8 \
        --locale=C.UTF-8 >/dev/null
    rm /tmp/password
    echo 'host all all all scram-sha-256' >>"$new/pg_hba.conf"
    pg_ctl -D "$new" -w -o "-c listen_addresses= -c unix_socket_directories=/tmp" start >/dev/null
    echo 'CREATE DATABASE :"database"' | sql -v database="$database"
    echo 'CREATE EXTENSION pg_stock' | PGOPTIONS='-c client_min_messages=error' sql -d "$database"
    if [ -n "${CACHE_PASSWORD:-}" ]; then
        echo "CREATE ROLE cache LOGIN PASSWORD :'password'; SELECT stock.grant_access('cache', 'read')" |
            sql -d "$database" -v password="$CACHE_PASSWORD" -o /dev/null
    fi
    pg_ctl -D "$new" -w -m fast stop >/dev/null
    # Only what is whole has this name.
    mv "$new" "$volume/cluster"
}

if [ ! -e "$volume/cluster" ]; then
    [ -n "${POSTGRES_PASSWORD:-}" ] || { echo "POSTGRES_PASSWORD must be given" >&2; exit 1; }
    make_cluster
fi
exec postgres -D "$volume/cluster" -c listen_addresses='*' -c unix_socket_directories=/tmp \
    -c shared_preload_libraries=pg_stock "$@"
