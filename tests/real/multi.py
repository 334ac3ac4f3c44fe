"""multiprocessing by fork and by spawn, signal handlers with EINTR and timers, threads beside them."""
import multiprocessing as mp, os, select, signal, sys, threading, time

def square(x): return x * x
def worker(q, r):
    for x in iter(q.get, None): r.put(sum(range(x)))
def shared(counter, lock):
    for _ in range(500):
        with lock: counter.value += 1

def pools():
    for method in ("fork", "spawn"):
        context = mp.get_context(method)
        with context.Pool(3) as pool: print(method, sum(pool.map(square, range(2000), 50)))
        q, r, counter, lock = context.Queue(), context.Queue(), context.Value("i", 0), context.Lock()
        ps = [context.Process(target=worker, args=(q, r)) for _ in range(2)]
        ps += [context.Process(target=shared, args=(counter, lock)) for _ in range(3)]
        for p in ps: p.start()
        for x in range(100): q.put(x)
        for _ in range(2): q.put(None)
        print(sum(r.get() for _ in range(100)))
        for p in ps: p.join()
        print([p.exitcode for p in ps], counter.value)

def signals():
    seen = []
    signal.signal(signal.SIGALRM, lambda s, f: seen.append("alarm"))
    signal.setitimer(signal.ITIMER_REAL, 0.01, 0.01)
    deadline = time.time() + 10
    x = 0
    while len(seen) < 10 and time.time() < deadline: x += 1
    signal.setitimer(signal.ITIMER_REAL, 0)
    print("ticks", len(seen) >= 10)
    signal.signal(signal.SIGUSR1, lambda s, f: seen.append("usr1"))
    del seen[:]
    threading.Timer(0.05, lambda: os.kill(os.getpid(), signal.SIGUSR1)).start()
    select.select([], [], [], 0.2)
    print(seen)
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2])
    os.kill(os.getpid(), signal.SIGUSR2)
    print(signal.sigpending(), signal.sigwaitinfo([signal.SIGUSR2]).si_signo, signal.sigtimedwait([signal.SIGUSR2], 0.01))
    pid = os.fork()
    if pid == 0:
        signal.signal(signal.SIGTERM, lambda s, f: os._exit(9))
        os.kill(os.getppid(), signal.SIGUSR1)
        while True: pass
    while "usr1" not in seen[1:]: time.sleep(0.001)
    os.kill(pid, signal.SIGTERM)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    try: signal.raise_signal(signal.SIGINT)
    except KeyboardInterrupt: print("interrupted")

if __name__ == "__main__":
    pools()
    signals()
    sys.stdout.flush()
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGTERM if "term" in sys.argv else 0)
