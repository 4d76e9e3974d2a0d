#!/bin/sh
# In a clean Debian, as root: from apt to the first reservation, to a cache that follows, and back to nothing.
#   try.sh PG SERVER_PACKAGE CACHE_PACKAGE
set -eu
pg=$1 server=$2 cache=$3
export DEBIAN_FRONTEND=noninteractive

sql() {
    su postgres -c "psql -X -v ON_ERROR_STOP=1 -Atc \"$1\""
}

# Nobody may start services while packages are installed, as in every container.
[ -e /usr/sbin/policy-rc.d ] || { printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d; chmod 755 /usr/sbin/policy-rc.d; }
apt-get update -q >/dev/null
begin=$(date +%s)
apt-get install -q -y --no-install-recommends "$server" >/dev/null 2>&1
pg_ctlcluster "$pg" main start
sql "CREATE EXTENSION pg_stock" >/dev/null 2>&1
sql "SELECT stock.receive_stock('delivery-1', 'apple', 'main', 10)" >/dev/null
[ "$(sql "SELECT outcome FROM stock.reserve_stock('order-1', 'apple', 'main', 2)")" = reserved ]
echo "from apt to the first reservation: $(($(date +%s) - begin)) s"

echo "shared_preload_libraries = 'pg_stock'" >>"/etc/postgresql/$pg/main/postgresql.conf"
pg_ctlcluster "$pg" main restart
for try in $(seq 50); do
    state=$(sql "SELECT state FROM stock.worker")
    [ "$state" != working ] || break
    sleep 0.2
done
[ "$state" = working ] && echo "the worker is at work after $try looks"
sql "CREATE ROLE cache LOGIN PASSWORD 'secret'; SELECT stock.grant_access('cache', 'read')" >/dev/null

apt-get install -q -y --no-install-recommends redis-server "$cache" >/dev/null 2>&1
redis-server --daemonize yes >/dev/null
pg-stock-cache --once --database 'postgresql://cache:secret@localhost/postgres' --redis redis://localhost
redis-cli GET stock:level:main:apple | grep -q '"available":8' && echo "the cache follows"
[ "$(stat -c %a /etc/default/pg-stock-cache)" = 600 ]
if command -v systemd-analyze >/dev/null; then systemd-analyze verify /lib/systemd/system/pg-stock-cache.service; fi

sql "DROP EXTENSION pg_stock CASCADE" >/dev/null 2>&1
pg_ctlcluster "$pg" main stop
apt-get purge -q -y "postgresql-$pg-pg-stock" pg-stock-cache >/dev/null 2>&1
left=$(find / -xdev \( -name '*pg_stock*' -o -name '*pg-stock*' \) -not -path '/packages/*' -not -path '/proc/*')
[ -z "$left" ] || { echo "purge has left: $left"; exit 1; }
echo "purge leaves nothing"
