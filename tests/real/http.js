// An HTTP server and its clients: keep-alive, 32 connections, bodies, a stream, a child process.
const http = require('http'), { execFile } = require('child_process'), zlib = require('zlib');
const server = http.createServer((q, r) => {
  if (q.url === '/gz') { r.writeHead(200, { 'content-encoding': 'gzip' }); return r.end(zlib.gzipSync('z'.repeat(10000))); }
  let body = 0;
  q.on('data', d => body += d.length).on('end', () => r.end(JSON.stringify({ url: q.url, body })));
});
// A machine that takes longer than the usual five seconds between two requests of a connection is to find it open.
server.keepAliveTimeout = server.headersTimeout = server.requestTimeout = 600_000;
const agent = new http.Agent({ keepAlive: true, maxSockets: 32 });
const get = (path, body) => new Promise((ok, no) => {
  const q = http.request({ port: server.address().port, host: '127.0.0.1', path, method: body ? 'POST' : 'GET', agent }, r => {
    const parts = []; r.on('data', d => parts.push(d)).on('end', () => ok(Buffer.concat(parts)));
  });
  q.on('error', no); q.end(body);
});
server.listen(0, '127.0.0.1', async () => {
  let bytes = 0, posted = 0;
  const all = [];
  for (let i = 0; i < 1500; i++) all.push(get('/n' + i, i % 3 ? null : 'x'.repeat(i)).then(b => { bytes += b.length; posted += JSON.parse(b).body; }));
  await Promise.all(all);
  console.log(bytes, posted, zlib.gunzipSync(await get('/gz')).length);
  execFile('/bin/echo', ['child'], (e, out) => { console.log(e, out.trim()); agent.destroy(); server.close(() => console.log('closed')); });
});
