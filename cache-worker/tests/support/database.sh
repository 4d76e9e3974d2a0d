# Starts PostgreSQL in a container; makes its data first, if there are none.
set -eu
export PATH=/usr/lib/postgresql/15/bin:$PATH
data=/var/lib/postgresql/test
if [ ! -e $data ]; then
    su postgres -c "PATH=$PATH initdb -D $data -A trust -E UTF8 --no-locale" >/dev/null
    echo 'host all all all trust' >>$data/pg_hba.conf
fi
rm -f $data/postmaster.pid
exec su postgres -c "exec /usr/lib/postgresql/15/bin/postgres -D $data -c listen_addresses='*' -c shared_preload_libraries=pg_stock"
