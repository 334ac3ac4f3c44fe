# nginx with two workers and a client loop: files, keep-alive, gzip, reload, quick stop.
set -u
cd "$TMP"
mkdir -p www logs tmp
seq 1 5000 >www/numbers.txt
echo hello >www/index.html
cat >nginx.conf <<C
worker_processes 2; daemon off; pid $TMP/pid; error_log $TMP/logs/error.log; user root;
events { worker_connections 128; }
http {
  access_log off; gzip on; gzip_min_length 100; gzip_types text/plain; types { text/plain txt; text/html html; }
  client_body_temp_path tmp/b; proxy_temp_path tmp/p; fastcgi_temp_path tmp/f; uwsgi_temp_path tmp/u; scgi_temp_path tmp/s;
  server { listen unix:$TMP/n.sock; root $TMP/www; location /re { rewrite ^/re/(.*)\$ /\$1 break; } }
}
C
nginx -p "$TMP" -c "$TMP/nginx.conf" 2>/dev/null &
server=$!
for _ in $(seq 200); do [ -S n.sock ] && curl -s --unix-socket n.sock http://x/ >/dev/null && break; sleep 0.05; done
python3 - <<'P'
import http.client, socket, threading, gzip, hashlib
class C(http.client.HTTPConnection):
    def connect(self): self.sock = socket.socket(socket.AF_UNIX); self.sock.connect("n.sock")
out = []
def client(n):
    c = C("x"); d = hashlib.md5()
    for i in range(100):
        c.request("GET", ["/", "/numbers.txt", "/re/numbers.txt", "/none"][(i + n) % 4], headers={"Accept-Encoding": "gzip"} if i % 8 > 4 else {})
        r = c.getresponse(); b = r.read()
        if r.getheader("Content-Encoding") == "gzip": b = gzip.decompress(b)
        d.update(b"%d" % r.status + (b if r.status == 200 else b""))
    out.append((n, d.hexdigest()))
ts = [threading.Thread(target=client, args=(n,)) for n in range(4)]
[t.start() for t in ts]; [t.join() for t in ts]
print(sorted(out))
P
kill -HUP $server
sleep 0.5
curl -s --unix-socket n.sock http://x/
kill -QUIT $server
wait $server
echo "status $?"
