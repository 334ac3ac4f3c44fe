#!/usr/bin/env python3
"""Run real Debian programs natively and under a translator; compare exit status and output.

usage: real-programs.py [--all] [--only NAME,...] [--repeat N] [--timeout S] [--json FILE] -- TRANSLATOR [ARG ...]
       (no translator: native run only)
   e.g. tests/real-programs.py --only java,node-http --repeat 50 -- target/release/calque run --engine auto --

Pass = same exit status and same standard output as the native run (standard error is shown on failure only). What is not
installed is skipped. Cases marked SLOW take more than ten seconds under a debug build and run with --all, or where --only names them.
Programs of more than a line stand in tests/real/. Servers listen on sockets in the case's own directory or on the loopback
interface, and every process of a case is killed at its end.

Debian packages: bash coreutils findutils tar gzip perl python3 sqlite3 gcc openssl p7zip-full xz-utils nodejs default-jdk-headless
luajit golang-go ruby ocaml-nox php-cli mono-mcs redis-server redis-tools nginx-light curl postgresql mariadb-server fio qemu-utils stress-ng ghc chromium
wine64 openssh-server valgrind sbcl clisp swi-prolog-nox erlang-base pypy3 libreoffice-calc-nogui
"""
import argparse, glob, json, os, shutil, signal, subprocess, sys, tempfile, time

PY = "/usr/bin/python3"
REAL = os.path.join(os.path.dirname(os.path.abspath(__file__)), "real")
C_HELLO = '#include <stdio.h>\nint main(int c,char**v){printf("hello %d\\n",c);return 3;}\n'
SLOW = True

def script(name): return os.path.join(REAL, name)
def shell(text): return ["/bin/bash", "-c", text.replace("@", REAL + "/")]

# name, command, what must be installed besides the command's own program, whether it is slow
CASES = [
 ("ls", ["/bin/ls", "-la", "/usr/include"]),
 ("sort", ["/bin/bash", "-c", "seq 1 20000 | sort -R --random-source=/etc/services | sort -n | md5sum"]),
 ("bash-loop", ["/bin/bash", "-c", "s=0; for i in $(seq 1 3000); do s=$((s+i*i%7)); done; echo $s; for i in 1 2 3 4 5; do echo $i | cat; done"]),
 ("find-grep", ["/bin/bash", "-c", "find /usr/include -name '*.h' | sort | head -300 | xargs grep -c define | md5sum"]),
 ("tar-gzip", ["/bin/bash", "-c", "tar cf - /usr/include/linux --sort=name --mtime=@0 2>/dev/null | gzip -n6 | md5sum"]),
 ("perl", ["/usr/bin/perl", "-e", "my %h; for my $i (1..60000){$h{$i%977}.=chr(65+$i%26)} my $s=0; for(sort {$a<=>$b} keys %h){$s+=length($h{$_})*$_} print \"$s\\n\"; print join(',',map{sprintf '%.10g',sin($_)} 1..5),\"\\n\""]),
 ("python", [PY, "-c", "import hashlib,json,re,zlib,math\nd={i:math.sin(i) for i in range(20000)}\nprint(hashlib.sha256(json.dumps(d).encode()).hexdigest(),zlib.crc32(repr(d).encode()),len(re.findall('9+',repr(d))))"]),
 ("python-threads", [PY, "-c", "import threading,queue\nq=queue.Queue();r=[]\ndef w():\n  while True:\n    x=q.get()\n    if x is None:break\n    r.append(x*x)\nts=[threading.Thread(target=w) for _ in range(8)]\n[t.start() for t in ts]\n[q.put(i) for i in range(5000)]\n[q.put(None) for _ in ts]\n[t.join() for t in ts]\nprint(sum(r))"]),
 ("python-subprocess", [PY, "-c", "import subprocess,sys,os\nprint(subprocess.run(['/bin/sh','-c','echo $0 $$ >/dev/null; exit 7']).returncode)\ntry: subprocess.run(['/nonexistent/x'])\nexcept FileNotFoundError as e: print('ENOENT',e.errno)\npid=os.fork()\nif pid==0: os._exit(5)\nprint(os.waitstatus_to_exitcode(os.waitpid(pid,0)[1]))"]),
 ("sqlite3", ["/usr/bin/sqlite3", ":memory:", "create table t(a,b); with recursive c(x) as (select 1 union all select x+1 from c where x<50000) insert into t select x,x*x%1009 from c; create index i on t(b); select b,count(*),sum(a) from t group by b order by 2 desc,1 limit 5; select avg(a),total(b)/3 from t;"]),
 ("gcc", ["/bin/bash", "-c", "cd $TMP && printf '%s' \"$C_HELLO\" > h.c && gcc -O2 h.c -o h && ./h a b; echo $?"]),
 ("openssl", ["/bin/bash", "-c", "head -c 3000000 /usr/bin/perl | openssl dgst -sha256; head -c 300000 /usr/bin/perl | openssl enc -aes-256-cbc -K 00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff -iv 00112233445566778899aabbccddeeff | md5sum"]),
 ("7z", ["/bin/bash", "-c", "cd $TMP && head -c 2000000 /usr/bin/perl > in && 7z a -mx=5 -mmt=2 -bd o.7z in >/dev/null && rm in && 7z x -bd o.7z >/dev/null && md5sum < in"]),
 ("xz", ["/bin/bash", "-c", "head -c 1500000 /usr/bin/perl | xz -T2 -3 | xz -d | md5sum"]),
 ("node", ["/usr/bin/node", "-e", "let s=0;for(let i=0;i<3e6;i++){s=(s*31+i)|0}console.log(s,[3,1,2].sort(),JSON.stringify({a:Math.sin(1)}));setTimeout(()=>console.log('later'),5)"]),
 ("luajit", ["/usr/bin/luajit", "-e", "local t={} for i=1,2e6 do t[i%1000]=(t[i%1000] or 0)+i*0.5 end print(t[7], string.rep('x',5))"]),
 ("ruby", ["/usr/bin/ruby", "-e", "h=Hash.new(0); 100000.times{|i| h[i%97]+=i}; puts h.values.sum; p 4.times.map{|i| Thread.new{(1..1000).sum+i}}.map(&:value); begin; 1/0; rescue => e; puts e.message; end; trap('USR1'){puts 'usr1'}; Process.kill('USR1',$$); sleep 0.1; pid=fork{exit 3}; Process.wait(pid); p $?.exitstatus"]),
 ("ocaml", shell("cd $TMP && cp @faults.ml t.ml && ocamlc -o t t.ml && ./t && ocamlopt -o u t.ml && ./u"), "ocamlc ocamlopt"),
 ("go", ["/bin/bash", "-c", "cd $TMP && mkdir g && cd g && printf 'package main\\nimport (\"fmt\";\"sync\")\\nfunc main(){var w sync.WaitGroup;c:=make(chan int,100);for i:=0;i<50;i++{w.Add(1);go func(i int){defer w.Done();c<-i*i}(i)};w.Wait();close(c);s:=0;for x:=range c{s+=x};defer func(){fmt.Println(recover()!=nil,s)}();var p *int;*p=1}\\n' > m.go && GOCACHE=$TMP/gc GO111MODULE=off go build -o m m.go && ./m"]),
 ("node-compute", ["/usr/bin/node", script("compute.js")]),
 ("node-regexp", ["/usr/bin/node", script("regexp.js")]),
 ("node-workers", ["/usr/bin/node", script("workers.js")]),
 ("node-http", ["/usr/bin/node", script("http.js")]),
 ("java", ["/usr/bin/java", script("Torture.java")], "javac", SLOW),
 ("java-version", ["/usr/bin/java", "-version"]),
 ("go-faults", shell("cd $TMP && export GOCACHE=$TMP/gc GO111MODULE=off; go build -o m @goroutines.go && ./m"), "go", SLOW),
 ("go-cgo", shell("cd $TMP && export GOCACHE=$TMP/gc GO111MODULE=off CGO_ENABLED=1; go build -o m @cgo.go && ./m"), "go gcc", SLOW),
 ("mono", shell("cd $TMP && mcs -out:f.exe @Faults.cs && mono f.exe"), "mcs mono"),
 ("php-jit", ["/usr/bin/php", "-d", "opcache.enable_cli=1", "-d", "opcache.jit=tracing", "-d", "opcache.jit_buffer_size=32M", script("jit.php")]),
 ("php-jit-functions", ["/usr/bin/php", "-d", "opcache.enable_cli=1", "-d", "opcache.jit=function", "-d", "opcache.jit_buffer_size=32M", script("jit.php")]),
 ("python-multiprocessing", [PY, script("multi.py"), "term"]),
 ("bash-jobs", [PY, script("jobs.py")]),
 ("rustc", shell(". @rustc.sh"), "rustc", SLOW),
 ("ghc", shell(". @ghc.sh"), "ghc", SLOW),
 ("redis", shell(". @redis.sh"), "redis-server redis-benchmark"),
 ("nginx", shell(". @nginx.sh"), "nginx curl"),
 ("postgres", shell(". @postgres.sh"), "psql", SLOW),
 ("stress-ng", shell("set cpu vm fork futex signal sigsegv mmap pipe; . @stress.sh"), "stress-ng", SLOW),
 ("stress-ng-host", shell("set userfaultfd io-uring; . @stress.sh"), "stress-ng", SLOW), # qemu-user has neither
 ("io-uring", shell(". @fio.sh"), "fio qemu-img qemu-io", SLOW), # qemu-user has none
 ("mariadb", shell(". @mariadb.sh"), "mariadbd mariadb", SLOW),
 ("sanitizers", shell(". @sanitizers.sh"), "gcc", SLOW),
 ("leaks", shell(". @leaks.sh"), "gcc", SLOW), # qemu-user makes no processes in a program's memory
 ("go-race", shell("cd $TMP && printf 'package main\nimport (\"fmt\";\"sync\")\nfunc main(){var w sync.WaitGroup;x:=0;for i:=0;i<4;i++{w.Add(1);go func(){x++;w.Done()}()};w.Wait();fmt.Println(\"done\")}\n' > r.go && GOCACHE=$TMP/gc GO111MODULE=off CGO_ENABLED=1 go build -race -o r r.go && ./r 2>err; echo $? $(grep -c 'DATA RACE' err)"), "go gcc", SLOW),
 ("wine", shell(". @wine.sh"), "/usr/lib/wine/wine64", SLOW),
 ("sshd", shell(". @sshd.sh"), "sshd"),
 ("valgrind", shell("cd $TMP && printf '#include <stdlib.h>\nint main(int c,char**v){char*p=malloc(10);return p[c]+p[10];}' > m.c && gcc -g m.c -o m && valgrind -q ./m 2>err; grep -oE 'Invalid read|uninitialised' err | sort -u; valgrind --tool=none ls / 2>/dev/null | wc -l"), "valgrind gcc", SLOW),
 ("sbcl", ["/usr/bin/sbcl", "--noinform", "--no-userinit", "--disable-debugger", "--load", script("lisp.lisp"), "--quit"]),
 ("clisp", ["/usr/bin/clisp", "-q", script("lisp.lisp")]),
 ("swipl", ["/usr/bin/swipl", "-g", "numlist(1,100000,L),sum_list(L,S),writeln(S),findall(X,(between(1,100000,X),X mod 7=:=0),Q),length(Q,N),writeln(N),concurrent_maplist([X,Y]>>(Y is X*X),[1,2,3,4],R),writeln(R),catch(call_with_time_limit(0.2,(repeat,fail)),E,(E=time_limit_exceeded->writeln(late);true)),halt(3)"]),
 ("erlang", ["/usr/bin/erl", "-noshell", "-eval", "F=fun(F,N) when N<2->N;(F,N)->F(F,N-1)+F(F,N-2) end, S=self(), [spawn(fun()->S!{X,X*X} end)||X<-lists:seq(1,2000)], io:format(\"~p ~p ~p~n\",[F(F,18),lists:sum([receive {X,Y}->Y end||X<-lists:seq(1,2000)]),crypto:hash(sha256,<<1>>)]), init:stop(4)."]),
 ("pypy", ["/usr/bin/pypy3", script("jit.py")]),
 ("libreoffice", shell("cd $TMP && printf 'a,b\n1,2\n3,=A2*7\n' > a.csv && soffice --headless --convert-to 'csv:Text - txt - csv (StarCalc)' --outdir o a.csv >/dev/null 2>&1; cat o/a.csv"), "soffice", SLOW),
 ("chromium", shell(". @chromium.sh"), "chromium", SLOW),
]

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

def missing(cmd, needs):
    """The first program of a case that is not installed."""
    programs = cmd[:1] + needs.split()
    return next((p for p in programs if not shutil.which(p, path=os.environ["PATH"] + ":" + PATH)), None)

def rust_path():
    """Where the compiler itself is: rustup's stand-in looks for it below $HOME."""
    rustc = shutil.which("rustc")
    return os.path.join(subprocess.check_output([rustc, "--print", "sysroot"], text=True).strip(), "bin") if rustc else ""

def run(cmd, timeout, env, cwd):
    """Exit status, output, errors and seconds of a command in a session of its own, all of which is gone afterwards."""
    t = time.time()
    p = subprocess.Popen(cmd, stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, env=env, cwd=cwd, start_new_session=True)
    try:
        out, err = p.communicate(timeout=timeout)
        return p.returncode, out, err, time.time() - t
    except subprocess.TimeoutExpired:
        end_all(env["TMP"])
        out, err = p.communicate()
        return "timeout", out, err, time.time() - t
    finally:
        end_all(env["TMP"])

def end_all(tmp):
    """Kills what carries the case's directory in its environment."""
    for path in glob.glob("/proc/[0-9]*/environ"):
        try:
            if f"TMP={tmp}".encode() in open(path, "rb").read().split(b"\0"): os.kill(int(path.split("/")[2]), signal.SIGKILL)
        except (OSError, ValueError): pass

def case(cmd, tr, timeout, rust):
    tmp = tempfile.mkdtemp(prefix="apps-")
    env = dict(os.environ, TMP=tmp, TMPDIR=tmp, C_HELLO=C_HELLO, LC_ALL="C.UTF-8", HOME=tmp, PATH=PATH + ":" + rust)
    result = [x.replace(tmp.encode(), b"$TMP") if isinstance(x, bytes) else x for x in run(tr + cmd, timeout, env, tmp)]
    shutil.rmtree(tmp, ignore_errors=True)
    return result

def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("--all", action="store_true"); ap.add_argument("--only"); ap.add_argument("--repeat", type=int, default=1)
    ap.add_argument("--timeout", type=float, default=120); ap.add_argument("--json"); ap.add_argument("tr", nargs="*")
    a = ap.parse_args()
    if a.tr: a.tr[0] = os.path.abspath(shutil.which(a.tr[0]))
    rust = rust_path()
    os.environ["PATH"] += ":" + rust
    ok = bad = skip = 0; rows = []
    for name, cmd, *rest in CASES:
        needs, slow = (*rest, "", False)[:2] if len(rest) < 2 else rest
        if name not in a.only.split(",") if a.only else slow and not a.all: continue
        absent = missing(cmd, needs)
        if absent:
            print(f"skip {name}: no {absent}"); skip += 1; continue
        n = case(cmd, [], a.timeout, rust)
        if n[0] == "timeout" or n[0] != 0 and not n[1]:
            print(f"skip {name}: native run gives {n[0]}: {n[2][-150:]!r}"); skip += 1; continue
        if not a.tr:
            ok += 1; print(f"ok   {name} native {n[3]:.2f}s {n[0]} {n[1][-60:]!r}"); continue
        for _ in range(a.repeat):
            g = case(cmd, a.tr, a.timeout, rust); same = g[:2] == n[:2]
            ok += same; bad += not same
            rows.append(dict(name=name, ok=same, native=n[3], guest=g[3]))
            print(f"{'ok  ' if same else 'FAIL'} {name} native {n[3]:.2f}s guest {g[3]:.2f}s x{g[3]/max(n[3],1e-3):.1f}" + ("" if same else f" rc={g[0]} out={g[1][-120:]!r} err={g[2][-200:]!r}"), flush=True)
    if a.json: json.dump(rows, open(a.json, "w"))
    print(f"{ok} passed, {bad} failed, {skip} skipped")
    return 0 if bad == 0 else 1
sys.exit(main())
