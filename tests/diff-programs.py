#!/usr/bin/env python3
"""Compare real Debian programs with the processor (`calque diff`), end to end, and say what it costs.

usage: diff-programs.py [--only NAME,...] [--engines auto,jit,interp] [--timeout S] CALQUE
   e.g. cargo build --release && tests/diff-programs.py target/release/calque
Pass = `calque diff` says "same" (exit status 0) and the output is the native run's. Prints a table of seconds (wall clock) and of
multiples of native for docs/DIFF.md; the exit status is the number of failures. What is not installed is skipped.
"""
import argparse, os, shutil, subprocess, sys, tempfile, time

def cc1():
    found = subprocess.run(["gcc", "-print-prog-name=cc1"], capture_output=True, text=True)
    return found.stdout.strip()

C_FILE = "\n".join(f"int f{i}(int *p, int n) {{ int s = {i}; for (int k = 0; k < n; k++) s += p[k] * k ^ s >> 3; return s; }}" for i in range(8))
PERL = "my %h; for my $i (1..20000){$h{$i%977}+=$i*0.5} my $s=0; for(sort {$a<=>$b} keys %h){$s+=$h{$_}*$_} print \"$s\\n\""
SQL = "create table t(a,b); with recursive c(x) as (select 1 union all select x+1 from c where x<3000) insert into t select x,x*x%1009 from c; create index i on t(b); select b,count(*),sum(a) from t group by b order by 2 desc,1 limit 5; select avg(a),total(b)/3 from t;"
CASES = [
    ("ls", ["/bin/ls", "-l", "/usr/bin"]),
    ("sort", ["/usr/bin/sort", "-n", "$TMP/numbers"]),
    ("bash", ["/bin/bash", "-c", "s=0; for ((i = 0; i < 3000; i++)); do s=$((s + i * i % 7)); done; echo $s; case abc in a*) echo yes;; esac"]),
    ("perl", ["/usr/bin/perl", "-e", PERL]),
    ("python3 -S", ["/usr/bin/python3", "-S", "-c", "import math\nprint(sum(math.sin(i) for i in range(20000)), sorted(str(i) for i in range(3000))[::500])"]),
    ("sqlite3", ["/usr/bin/sqlite3", ":memory:", SQL]),
    ("gzip", ["/bin/gzip", "-c6", "/bin/bash"]),
    ("xz", ["/usr/bin/xz", "-dc", "$TMP/bash.xz"]),
    ("openssl dgst", ["/usr/bin/openssl", "dgst", "-sha256", "/bin/bash"]),
    ("cc1", [cc1(), "-quiet", "-O2", "$TMP/file.c", "-o", "-"]),
]

def run(command, timeout):
    start = time.time()
    try:
        p = subprocess.run(command, capture_output=True, stdin=subprocess.DEVNULL, timeout=timeout, env=dict(os.environ, LC_ALL="C.UTF-8"))
        return p.returncode, p.stdout, p.stderr.decode(errors="replace"), time.time() - start
    except subprocess.TimeoutExpired:
        return "timeout", b"", "", time.time() - start

def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("--only"); ap.add_argument("--engines", default="auto,jit,interp")
    ap.add_argument("--timeout", type=float, default=300); ap.add_argument("calque")
    a = ap.parse_args()
    tmp = tempfile.mkdtemp(prefix="diff-")
    with open(f"{tmp}/numbers", "w") as f: f.writelines(f"{i * 7919 % 30011}\n" for i in range(30000))
    with open(f"{tmp}/file.c", "w") as f: f.write(C_FILE)
    if shutil.which("xz"):
        with open(f"{tmp}/bash.xz", "wb") as f: subprocess.run(["xz", "-c", "/bin/bash"], stdout=f)
    engines, failures = a.engines.split(","), 0
    print("| program | native |" + "".join(f" {e} |" for e in engines)); print("|---" * (2 + len(engines)) + "|")
    for name, command in CASES:
        if a.only and name not in a.only.split(","): continue
        if not shutil.which(command[0]):
            print(f"skipped: {name}: no {command[0]} here", file=sys.stderr); continue
        command = [word.replace("$TMP", tmp) for word in command]
        natives = [run(command, a.timeout) for _ in range(3)]
        native = min(r[3] for r in natives); row = f"| `{name}` | {native:.3f} |"
        for engine in engines:
            code, out, err, took = run([a.calque, "diff", "--engine", engine, "--"] + command, a.timeout)
            if code == 0 and out == natives[0][1]:
                row += f" {took:.2f} ({took / native:.0f}) |"
            else:
                failures += 1; row += " failed |"
                print(f"{name} --engine {engine}: [{code}] {err[-2000:]}", file=sys.stderr)
        print(row, flush=True)
    shutil.rmtree(tmp)
    sys.exit(failures)

main()
