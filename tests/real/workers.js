// worker_threads: shared memory, Atomics.wait, messages, a worker that throws and one that is terminated in a tight loop.
const { Worker, isMainThread, workerData, parentPort } = require('worker_threads');
if (!isMainThread) {
  const a = new Int32Array(workerData.shared);
  if (workerData.role === 'spin') for (;;) Atomics.add(a, 3, 1);
  if (workerData.role === 'throw') throw new TypeError('from a worker');
  for (let i = 0; i < 20000; i++) {
    while (Atomics.compareExchange(a, 0, 0, 1) !== 0) Atomics.wait(a, 0, 1, 1);
    a[1]++;
    Atomics.store(a, 0, 0);
    if (i % 8 === 0) Atomics.notify(a, 0, 1);
  }
  let s = 0;
  for (let i = 0; i < 2e6; i++) s = (s + i * workerData.n) | 0;
  parentPort.postMessage({ n: workerData.n, s, list: Array.from({ length: 100 }, (_, i) => i * i) });
} else {
  const shared = new SharedArrayBuffer(16), view = new Int32Array(shared), results = [];
  const start = (role, n) => new Worker(__filename, { workerData: { shared, role, n } });
  const done = Promise.all([1, 2, 3, 4].map(n => new Promise(ok => {
    const w = start('count', n);
    w.on('message', m => results.push(m));
    w.on('exit', ok);
  })));
  done.then(() => {
    results.sort((a, b) => a.n - b.n);
    console.log(view[1], results.map(r => [r.n, r.s, r.list[99]]));
    return new Promise(ok => start('throw', 0).on('error', e => { console.log(e.name, e.message); ok(); }));
  }).then(() => new Promise(ok => {
    const w = start('spin', 0);
    const end = () => w.terminate().then(code => { console.log('terminated', code, view[3] > 0); ok(); });
    const look = () => view[3] > 0 ? end() : setTimeout(look, 50);
    w.on('online', look);
  }));
}
