# redis-server under redis-benchmark: pipelines, threads, a fork that saves, shutdown by a signal.
set -u
cd "$TMP"
redis-server --port 0 --unixsocket r.sock --save '' --daemonize no --io-threads 2 --dir "$TMP" >log 2>&1 &
server=$!
for _ in $(seq 200); do redis-cli -s r.sock ping 2>/dev/null | grep -q PONG && break; sleep 0.05; done
redis-benchmark -s r.sock -q -n 3000 -c 20 -P 4 -t ping,set,get,incr,lpush,lrange_100,zadd,mset 2>&1 | tr '\r' '\n' | grep -c 'requests per second'
redis-cli -s r.sock set key value
redis-cli -s r.sock eval 'local s=0 for i=1,100000 do s=s+i%7 end return s' 0
for i in $(seq 20); do echo "set k$i v$i"; done | redis-cli -s r.sock >/dev/null
redis-cli -s r.sock get k7
redis-cli -s r.sock save
redis-cli -s r.sock bgsave
for _ in $(seq 100); do redis-cli -s r.sock info persistence | grep -q 'rdb_bgsave_in_progress:0' && break; sleep 0.05; done
redis-cli -s r.sock info persistence | grep last_bgsave_status | tr -d '\r'
kill -TERM $server
wait $server
echo "status $?"
