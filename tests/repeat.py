#!/usr/bin/env python3
"""Runs a guest program of tests/prog again and again, and compares its output and exit status with the recorded ones.

    python3 tests/repeat.py NAME COUNT [ARGUMENT...] -- COMMAND...      # COMMAND runs a program: target/release/calque run --

The program is linked statically. With arguments only the exit status counts, as they change the output. Whatever the command says on standard error counts as wrong. The output of each wrong run is kept; the exit status is 0 if there was none.
"""
import os, shutil, subprocess, sys, tempfile, time

ROOT = os.path.dirname(os.path.abspath(__file__))
LIMIT = 300  # seconds for one run


def build(name, to):
    source = os.path.join(ROOT, "prog", name, "main.c")
    compiler = shutil.which("x86_64-linux-gnu-gcc") or "gcc"
    subprocess.run([compiler, "-O2", "-pthread", "-w", "-static", source, "-o", to, "-lm"], check=True)


def run(command):
    """Output, how it ended, and what was on standard error."""
    try:
        ended = subprocess.run(command, capture_output=True, timeout=LIMIT, stdin=subprocess.DEVNULL)
    except subprocess.TimeoutExpired as late:
        return late.stdout or b"", "[timeout]", late.stderr or b""
    how = f"[exit {ended.returncode}]" if ended.returncode >= 0 else f"[signal {-ended.returncode}]"
    return ended.stdout, how, ended.stderr


def main():
    if "--" not in sys.argv or sys.argv.index("--") < 3:
        sys.exit(__doc__)
    split = sys.argv.index("--")
    name, count, arguments, command = sys.argv[1], int(sys.argv[2]), sys.argv[3:split], sys.argv[split + 1:]
    kept = tempfile.mkdtemp(prefix=f"repeat-{name}-")
    program = os.path.join(kept, name)
    build(name, program)
    expected = open(os.path.join(ROOT, "prog", name, "expected"), "rb").read()
    wrong, start = 0, time.time()
    for i in range(1, count + 1):
        output, how, errors = run([*command, program, *arguments])
        right = how == "[exit 0]" and not errors if arguments else output + how.encode() == expected.rstrip(b"\n") and not errors
        if not right:
            wrong += 1
            with open(os.path.join(kept, f"wrong-{i}"), "wb") as file:
                file.write(output + how.encode() + b"\n" + errors)
    print(f"{name}: {count} runs, {wrong} wrong, {time.time() - start:.0f} s" + (f"; see {kept}" if wrong else ""))
    sys.exit(wrong != 0)


main()
