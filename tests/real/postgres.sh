# A PostgreSQL cluster of its own: initdb, queries with parallel workers, sessions that are cancelled and killed, fast shutdown.
set -u
cd "$TMP"
bin=$(ls -d /usr/lib/postgresql/*/bin | tail -1)
as() { if [ "$(id -u)" = 0 ]; then exec setpriv --reuid=nobody --regid=nogroup --clear-groups "$@"; else exec "$@"; fi; }
mkdir data socket && chmod 700 data && chmod 755 "$TMP"
[ "$(id -u)" = 0 ] && chown nobody:nogroup data socket
(as "$bin/initdb" -D data -U me --no-sync --locale=C -E UTF8) >initdb.log 2>&1 || { tail -5 initdb.log; exit 1; }
as "$bin/postgres" -D data -k "$TMP/socket" -c listen_addresses= -c fsync=off -c max_connections=20 >server.log 2>&1 &
server=$!
q() { psql -h "$TMP/socket" -U me -d postgres -X -q -t -A "$@" 2>&1; }
for _ in $(seq 200); do q -c 'select 1' >/dev/null 2>&1 && break; sleep 0.1; done
q -c "create table t(a int primary key, b text, c numeric); insert into t select i, md5(i::text), i * 1.5 from generate_series(1, 20000) i; create index on t(b); analyze t"
q -c "select count(*), sum(a), sum(c), max(b) from t" -c "select a from t where b like '00a%' order by b" -c "select b from t where a = 777"
q -c "set parallel_setup_cost = 0; set parallel_tuple_cost = 0; set min_parallel_table_scan_size = 0; select count(*), avg(length(b)) from t where b > '5'"
q -c "select 1/0" -c "do \$\$ begin for i in 1..20000 loop perform i; end loop; raise exception 'raised'; end \$\$"
q -c "set statement_timeout = 200; select sum(i) from generate_series(1, 1000000000) i"
(for i in 1 2 3 4; do q -c "begin; update t set c = c + $i where a % 4 = $i - 1; commit" & done; wait)
q -c "select sum(c) from t"
"$bin/pgbench" -h "$TMP/socket" -U me -i -q postgres >/dev/null 2>&1
"$bin/pgbench" -h "$TMP/socket" -U me -c 4 -t 50 postgres 2>/dev/null | grep 'actually processed'
q -c "select count(*) from pgbench_history"
q -c "select pg_sleep(60)" >sleep.log &
for _ in $(seq 200); do [ "$(q -c "select count(*) from pg_stat_activity where query = 'select pg_sleep(60)'")" = 1 ] && break; sleep 0.1; done
kill -INT $server
wait $server
echo "status $?"
wait
grep -c 'terminating connection' sleep.log
