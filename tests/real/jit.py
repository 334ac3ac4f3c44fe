# PyPy: loops and objects that its JIT compiles, threads, a signal, a fork, deep recursion.
import os, signal, threading
class Box:
    def __init__(self, value): self.value = value
total = 0
for i in range(3000000): total = (total * 31 + i) & 0xffffffff
print(total, sum(box.value for box in [Box(i) for i in range(300000)]))
signal.signal(signal.SIGALRM, lambda *_: print("alarm"))
signal.setitimer(signal.ITIMER_REAL, 0.05); signal.pause()
counted = []
threads = [threading.Thread(target=lambda: counted.append(sum(range(100000)))) for _ in range(4)]
for t in threads: t.start()
for t in threads: t.join()
print(counted)
pid = os.fork()
if pid == 0: os._exit(3)
print(os.waitpid(pid, 0)[1])
def deep(): return deep() + 1
try: deep()
except RecursionError: print("too deep")
