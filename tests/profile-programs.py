#!/usr/bin/env python3
"""What `calque profile` costs beside a plain run and beside callgrind.

usage: profile-programs.py [--only NAME,...] [--runs N] [--no-callgrind] CALQUE
   e.g. cargo build --release && tests/profile-programs.py target/release/calque
Processor time (user + system) of the program and its children, the least of N runs (callgrind: one), in turns. Prints the table of
docs/PROFILE.md. What is not installed is skipped.
"""
import argparse, math, os, shutil, subprocess, sys, tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
FIB = "#include <stdio.h>\n__attribute__((noinline)) long fib(long n) { return n < 2 ? n : fib(n - 1) + fib(n - 2); }\nint main(void) { printf(\"%ld\\n\", fib(34)); }\n"
SQL = "create table t(a,b); with recursive c(x) as (select 1 union all select x+1 from c where x<30000) insert into t select x,x*x%1009 from c; create index i on t(b); select count(*),sum(u.a) from t,t u where t.b=u.b and t.a<10000; select b,count(*),sum(a) from t group by b order by 2 desc,1 limit 5;"
PYTHON = "s = 0\nfor i in range(1000000): s += i * i % 7\nprint(s)"
PERL = "my %h; for my $i (1..1000000){$h{$i%977}+=$i*0.5} my $s=0; for(sort {$a<=>$b} keys %h){$s+=$h{$_}*$_} print \"$s\\n\""
CASES = [
    ("gzip -9, 6 MB", ["/bin/gzip", "-c9", "$TMP/six"]),
    ("sqlite3, a join", ["/usr/bin/sqlite3", ":memory:", SQL]),
    ("C integers (`bench/guests/integers.c`)", ["$TMP/integers"]),
    ("python3 -S, a loop of a million", ["/usr/bin/python3", "-S", "-c", PYTHON]),
    ("perl, hash of a million", ["/usr/bin/perl", "-e", PERL]),
    ("recursive fib(34), nothing but calls", ["$TMP/fib"]),
]

def cost(command):
    pid = os.posix_spawnp(command[0], command, dict(os.environ, LC_ALL="C.UTF-8"), file_actions=[
        (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0), (os.POSIX_SPAWN_OPEN, 1, "/dev/null", os.O_WRONLY, 0),
        (os.POSIX_SPAWN_OPEN, 2, "/dev/null", os.O_WRONLY, 0)])
    _, status, usage = os.wait4(pid, 0)
    if status: sys.exit(f"{' '.join(command)}: status {status:#x}")
    return usage.ru_utime + usage.ru_stime

def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("--only"); ap.add_argument("--runs", type=int, default=5)
    ap.add_argument("--no-callgrind", action="store_true"); ap.add_argument("calque")
    a = ap.parse_args()
    tmp = tempfile.mkdtemp(prefix="profile-")
    with open("/usr/bin/python3", "rb") as f: six = f.read(6_000_000)
    with open(f"{tmp}/six", "wb") as f: f.write((six * (6_000_000 // len(six) + 1))[:6_000_000])
    with open(f"{tmp}/fib.c", "w") as f: f.write(FIB)
    for name, source in [("fib", f"{tmp}/fib.c"), ("integers", f"{HERE}/../bench/guests/integers.c")]:
        subprocess.run(["gcc", "-O2", "-o", f"{tmp}/{name}", source], check=True)
    callgrind = shutil.which("valgrind") and not a.no_callgrind
    print("| program | native | run | profile | profile / run | callgrind | callgrind / profile |"); print("|---" * 7 + "|")
    ratios = []
    for name, command in CASES:
        if a.only and not any(word in name for word in a.only.split(",")): continue
        if not shutil.which(command[0].replace("$TMP", tmp)):
            print(f"skipped: {name}: no {command[0]} here", file=sys.stderr); continue
        command = [word.replace("$TMP", tmp) for word in command]
        ways = [[], [a.calque, "run", "--"], [a.calque, "profile", "--count", "--"]]
        native, run, profile = (min(times) for times in zip(*([cost(way + command) for way in ways] for _ in range(a.runs))))
        row = f"| {name} | {native:.2f} s | {run:.2f} s | {profile:.2f} s | {profile / run:.1f} |"
        if callgrind:
            took = cost(["valgrind", "--tool=callgrind", f"--callgrind-out-file={tmp}/out"] + command)
            row += f" {took:.1f} s | {took / profile:.1f} |"
            ratios.append((profile / run, took / profile))
        else:
            ratios.append((profile / run,))
        print(row, flush=True)
    means = [math.exp(sum(map(math.log, column)) / len(column)) for column in zip(*ratios)]
    print("geometric means:", ", ".join(f"{mean:.2f}" for mean in means))
    shutil.rmtree(tmp)

main()
