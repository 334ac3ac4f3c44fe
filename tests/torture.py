#!/usr/bin/env python3
"""Run gcc's own execution tests natively and under Calque: what passes natively must pass translated.

usage: tests/torture.py [--engine auto,interp] [--set NAME,...] [--only GLOB,...] [--sample] [--jobs N] [--calque FILE]
   e.g. cargo build --release && tests/torture.py                      everything: about 4,500 programs in each engine
        tests/torture.py --engine jit --set i386 --only 'avx2-*'       some of them
        tests/torture.py --sample --calque target/debug/calque         what `cargo xtask test` runs if the source is there

sets: O2     gcc.c-torture/execute at -O2
      O3v3   gcc.c-torture/execute at -O3 -march=x86-64-v3
      i386   gcc.target/i386 run tests (x87 and SSE to AVX2, FMA, F16C, AES, BMI...), each with the options that it asks for

The tests are gcc's and are not part of this repository: the first run without --sample fetches Debian's gcc source
package (apt-get source, into target/torture; nothing on the machine changes) and compiles them there. Tests are linked
by the dozen into batches; the driver in a batch forks for each, so that one that crashes or never ends costs only itself.
"""
import argparse, fnmatch, os, re, shutil, signal, subprocess, sys, tarfile, textwrap
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
WORK = ROOT / "target" / "torture"
SOURCE = WORK / "source" / "gcc" / "testsuite"
SUITES = ("gcc.c-torture/execute", "gcc.target/i386")
PACKAGE = "gcc-12"

SECONDS_EACH = 20        # for one test, of wall clock and of processor time
BATCH = 40               # tests in a program

# Set: suite, options for all of its tests.
SETS = {
    "O2":   ("gcc.c-torture/execute", ["-O2"]),
    "O3v3": ("gcc.c-torture/execute", ["-O3", "-march=x86-64-v3"]),
    "i386": ("gcc.target/i386",       []),
}

# Options that are gcc's business on other processors: what they make never runs here, or is no 64-bit program.
FOREIGN = re.compile(r"-m(avx512|avx5124|amx|xop|fma4|sse4a|3dnow|tbm|lwp|32\b|x32|iamcu|16\b|rtm|avxvnni|kl|widekl|uintr|cldemote|"
                     r"hreset|serialize|tsxldtrk|no-sse\b|general-regs)|-fsplit-stack|-march=(native|knl|skylake-avx512|znver4|bd)")
FOREIGN_TARGETS = re.compile(r"\b(avx512\w*|avx5124\w+|amx_\w+|xop|fma4|sse4a|3dnow|ia32|maybe_x32|rtm|split_stack|avxvnni|ms_hook_prologue|"
                             r"lto|dfp)\b")
NOT_IA32 = re.compile(r"!\s*ia32|!\s*\{\s*ia32\s*\}|!\s*x32")

# Names of tests for a short run: the kinds of instruction and of C that have caught translators before.
SAMPLE = {
    "O2": "20000112-1 20020402-3 20030828-1 20050604-1 920501-8 930718-1 950710-1 960830-1 991014-1 arith-rand arith-rand-ll "
          "bitfld-3 builtin-bitops-1 conversion divconst-1 divmod-1 float-floor ieee/fp-cmp-1 ieee/fp-cmp-8l ieee/rbug "
          "longlong loop-5 memcpy-1 memset-2 mod-1 multi-ix nestfunc-1 pr19606 pr28982a pr38151 pr51581-1 pr58574 pr68506 "
          "scal-to-vec1 shiftopt-1 simd-1 stdarg-1 strlen-4 strlen-5 va-arg-24 vla-dealloc-1 widechar-1".split(),
    "O3v3": "20030105-1 arith-rand-ll divconst-1 ieee/fp-cmp-4 ieee/pr50310 memcpy-1 pr51581-2 pr53645 pr53645-2 pr60960 pr65427 "
            "scal-to-vec2 scal-to-vec3 simd-2 simd-6 strlen-4 vrp-5 20050316-2".split(),
    "i386": "adx-addcarryx64-2 aes-avx-check aesenc avx-vaddsubps-256-1 avx-vblendvps-256-1 avx-vcmpps-256-1 avx-vdpps-1 avx-vmaskmovps-256-1 "
            "avx-vpcmpestri-1 avx-vperm2f128-256-1 avx-vroundpd-256-1 avx-vzeroall-1 avx2-i32gatherd256-1 avx2-vpblendvb-1 "
            "avx2-vmpsadbw-1 avx2-vpermd-1 avx2-vpmaskloadd256-1 avx2-vpshufb-1 avx2-vpsllvd256-1 bmi-bextr-1 bmi2-mulx64-1 "
            "bmi2-pdep64-1 f16c-ps2ph-1a fma_run_double_1 fma_run_float_3 pclmulqdq sse-cvtss2si-1 sse-rsqrtps-1 sse2-cvttpd2dq-1 "
            "sse2-maskmovdqu sse2-pmaddwd-1 sse3-addsubps sse4_1-dpps-1 sse4_1-mpsadbw sse4_1-roundps-3 sse4_2-pcmpestrm-1 sse4_2-crc32q "
            "ssse3-palignr ssse3-pshufb vect-double-1 fpprec-1 387-5 sha1rnds4-2 sha256rnds2-2 gfni-1 vaes-check".split(),
}

DRIVER = r"""
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>
struct test { const char *name; int (*run)(int, char **, char **); };
extern const struct test tests[];
extern const int tests_count;
int main(int argc, char **argv, char **env)
{
    setvbuf(stdout, NULL, _IOLBF, 0);
    for (int n = 0; n < tests_count; n++) {
        if (argc > 1 && strcmp(argv[1], tests[n].name))
            continue;
        pid_t child = fork();
        if (child == 0) {
            struct rlimit cpu = {SECONDS, SECONDS}, core = {0, 0};
            setrlimit(RLIMIT_CPU, &cpu);
            setrlimit(RLIMIT_CORE, &core);
            freopen("/dev/null", "r", stdin);
            freopen("/dev/null", "w", stdout);
            alarm(SECONDS);
            char *args[] = {(char *)tests[n].name, NULL};
            exit(tests[n].run(1, args, env));
        }
        int status = -1;
        waitpid(child, &status, 0);
        printf("%s %d\n", tests[n].name, status);
    }
    return 0;
}
"""


def fetch():
    """Debian's gcc source package, and out of it the two suites, under target/torture."""
    if SOURCE.is_dir():
        return
    uri = next((words[1] for file in sorted(Path("/etc/apt").rglob("*.sources")) + sorted(Path("/etc/apt").rglob("*.list"))
                for line in file.read_text().splitlines() for words in [line.split()]
                if len(words) > 1 and words[0] in ("URIs:", "deb") and words[1].rstrip("/").endswith("/debian")), None)
    if uri is None:
        sys.exit("torture: this machine names no Debian archive in /etc/apt")
    apt = WORK / "apt"
    for part in ("lists/partial", "archives/partial", "sources", "log"):
        (apt / part).mkdir(parents=True, exist_ok=True)
    (apt / "status").touch()
    (apt / "sources/debian.sources").write_text(
        f"Types: deb-src\nURIs: {uri}\nSuites: bookworm\nComponents: main\nSigned-By: /usr/share/keyrings/debian-archive-keyring.gpg\n")
    settings = {"Dir::Etc::SourceList": "/dev/null", "Dir::Etc::SourceParts": apt / "sources", "Dir::Etc::PreferencesParts": "/dev/null",
                "Dir::State": apt, "Dir::State::Lists": apt / "lists", "Dir::State::Status": apt / "status", "Dir::Cache": apt,
                "Dir::Log": apt / "log", "APT::Sandbox::User": "", "Debug::NoLocking": "true", "Acquire::Languages": "none"}
    (apt / "apt.conf").write_text("".join(f'{key} "{value}";\n' for key, value in settings.items()))
    env = dict(os.environ, APT_CONFIG=str(apt / "apt.conf"))
    subprocess.run(["apt-get", "-qq", "update"], env=env, check=True)
    subprocess.run(["apt-get", "-qq", "source", "--download-only", PACKAGE], env=env, cwd=WORK, check=True)
    outer = next(WORK.glob(f"{PACKAGE}_*.orig.tar.*"))
    unpacked = WORK / "unpacking"
    shutil.rmtree(unpacked, ignore_errors=True)
    with tarfile.open(outer) as tar:
        inner = next(m for m in tar if re.search(r"/gcc-[\d.]+-dfsg\.tar\.xz$", m.name))
        with tarfile.open(fileobj=tar.extractfile(inner), mode="r|xz") as gcc:
            for member in gcc:
                top, _, rest = member.name.partition("/")
                if member.isfile() and any(rest.startswith(f"gcc/testsuite/{suite}/") for suite in SUITES):
                    member.name = rest
                    gcc.extract(member, unpacked)
    unpacked.rename(WORK / "source")
    for leftover in WORK.glob(f"{PACKAGE}_*"):
        leftover.unlink()


def directives(text, name):
    """The (first argument, target condition) of each `dg-NAME` in a test."""
    for m in re.finditer(r"\{\s*dg-" + name + r"\s+(\"[^\"]*\"|\{[^}]*\}|\S+)((?:[^{}]|\{[^{}]*\}|\{(?:[^{}]|\{[^{}]*\})*\})*)\}", text):
        yield m[1].strip('"{} '), m[2].strip()


def applies(condition):
    """Whether a target selector holds for a 64-bit GNU/Linux program without AVX-512."""
    return not FOREIGN_TARGETS.search(NOT_IA32.sub("", condition))


def options(source, suite):
    """The options that a test asks for; None if it is not for this machine, or not to be run."""
    text = source.read_text(errors="replace")
    runs = list(directives(text, "do"))
    if suite == "gcc.target/i386":
        if not any(what == "run" and applies(condition) for what, condition in runs):
            return None
    elif any(what != "run" or not applies(condition) for what, condition in runs):
        return None
    wanted = []
    for name in ("options", "additional-options"):
        for value, condition in directives(text, name):
            if not condition or applies(condition):
                wanted = (wanted if name == "additional-options" else []) + value.split()
    targets = " ".join(what for what, _ in directives(text, "require-effective-target"))
    if FOREIGN.search(" ".join(wanted)) or FOREIGN_TARGETS.search(NOT_IA32.sub("", targets)) or "dg-additional-sources" in text:
        return None
    if suite == "gcc.c-torture/execute" and source.with_suffix(".x").exists():
        return None    # those are told about their target in Tcl
    return wanted


class Test:
    def __init__(self, set_name, source):
        suite, self.flags = SETS[set_name]
        self.set, self.source = set_name, source
        self.name = str(source.relative_to(SOURCE / suite).with_suffix(""))
        self.object = WORK / "objects" / set_name / (self.name.replace("/", "@") + ".o")
        self.symbol = "torture_" + re.sub(r"\W", "_", self.name)
        self.own = options(source, suite)

    def compile(self):
        """True if there is an object; tests that this compiler refuses are left out."""
        refused = self.object.with_suffix(".refused")
        if self.object.exists() or refused.exists():
            return self.object.exists()
        self.object.parent.mkdir(parents=True, exist_ok=True)
        raw = self.object.with_suffix(".raw")
        command = ["gcc", "-w", "-fno-lto", "-std=gnu17", f"-Dmain={self.symbol}", *self.flags, *self.own,
                   "-ffunction-sections", "-c", str(self.source), "-o", str(raw)]
        try:
            done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=120).returncode == 0
        except subprocess.TimeoutExpired:
            done = False
        # Every other symbol becomes the test's own, so that many can be linked together.
        done = done and subprocess.run(["objcopy", "--keep-global-symbol=" + self.symbol, str(raw), str(self.object)],
                                       stderr=subprocess.DEVNULL).returncode == 0
        raw.unlink(missing_ok=True)
        if not done:
            refused.touch()
        return done


def collect(set_name, only, sample):
    suite, _ = SETS[set_name]
    sources = sorted((SOURCE / suite).rglob("*.c"))
    tests = []
    for source in sources:
        name = str(source.relative_to(SOURCE / suite).with_suffix(""))
        if sample and name not in SAMPLE[set_name] or only and not any(fnmatch.fnmatch(name, glob) for glob in only):
            continue
        if "/builtins/" in f"/{name}":
            continue    # each of these is several files
        test = Test(set_name, source)
        if test.own is not None:
            tests.append(test)
    return tests


def link(tests, name):
    """Links tests into one program; leaves out those that do not link."""
    program = WORK / "programs" / name
    program.parent.mkdir(parents=True, exist_ok=True)
    table = program.with_suffix(".c")
    externs = "".join(f"extern int {t.symbol}(int, char **, char **);\n" for t in tests)
    rows = "".join(f'    {{"{t.name}", {t.symbol}}},\n' for t in tests)
    table.write_text(f"#define SECONDS {SECONDS_EACH}\n{DRIVER}\n{externs}const struct test tests[] = {{\n{rows}}};\n"
                     f"const int tests_count = {len(tests)};\n")
    command = ["gcc", "-O1", "-w", str(table), *[str(t.object) for t in tests], "-o", str(program), "-lm"]
    done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode == 0
    if done:
        return [(program, tests)]
    if len(tests) == 1:
        return []
    half = len(tests) // 2
    return link(tests[:half], name + "a") + link(tests[half:], name + "b")


def run(command, seconds):
    """Standard output, or what there was of it when the time was over."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, start_new_session=True)
    try:
        out, err = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        out, err = process.communicate()
    return out.decode(errors="replace"), err.decode(errors="replace")


def statuses(prefix, program, tests):
    """Wait status of each test by name; missing where the driver itself did not get to it, after a second chance alone."""
    parse = lambda out: {n: int(s) for n, s in (line.rsplit(" ", 1) for line in out.splitlines() if line.count(" ") == 1)}
    found = parse(run(prefix + [str(program)], SECONDS_EACH * 4 + 60)[0])
    for test in tests:
        if test.name not in found:
            found.update(parse(run(prefix + [str(program), test.name], SECONDS_EACH * 2)[0]))
    return found


def describe(status):
    if status is None:
        return "ended the driver"
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        return "took too long" if number in (signal.SIGALRM, signal.SIGXCPU) else signal.Signals(number).name
    return f"exit status {os.WEXITSTATUS(status)}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engine", default="auto,interp", help="engines, separated by commas")
    parser.add_argument("--set", default=",".join(SETS), help="sets, separated by commas")
    parser.add_argument("--only", help="names (globs), separated by commas")
    parser.add_argument("--sample", action="store_true", help="only the tests of the short list; skipped if nothing was fetched")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--calque", default=str(ROOT / "target/release/calque"))
    args = parser.parse_args()
    if args.sample and not SOURCE.is_dir():
        print("skipped: gcc's tests: their source has not been fetched (tests/torture.py does)\n0 passed, 0 failed, 1 skipped")
        return 0
    fetch()
    passed, failures, left_out = 0, [], 0
    for set_name in args.set.split(","):
        tests = collect(set_name, args.only.split(",") if args.only else None, args.sample)
        with ThreadPoolExecutor(args.jobs) as pool:
            compiled = list(pool.map(Test.compile, tests))
            built = [t for t, ok in zip(tests, compiled) if ok]
            name = f"{set_name}-sample" if args.sample else f"{set_name}-only" if args.only else set_name
            batches = [(built[at:at + BATCH], f"{name}-{at // BATCH}") for at in range(0, len(built), BATCH)]
            programs = [p for linked in pool.map(lambda b: link(*b), batches) for p in linked]
            native = dict(kv for found in pool.map(lambda p: statuses([], *p), programs) for kv in found.items())
            good = {name for name, status in native.items() if status == 0}
            left_out += len(tests) - len(good)
            print(f"{set_name}: {len(tests)} tests, {len(built)} compile, {len(good)} pass natively", flush=True)
            for engine in args.engine.split(","):
                prefix = [args.calque, "run", "--engine", engine, "--"]
                found = dict(kv for part in pool.map(lambda p: statuses(prefix, *p), programs) for kv in part.items())
                bad = sorted(name for name in good if found.get(name) != 0)
                passed += len(good) - len(bad)
                for name in bad:
                    program = next(p for p, ts in programs if any(t.name == name for t in ts))
                    failures.append((engine, set_name, name))
                    print(f"FAIL {engine} {set_name} {name}: {describe(found.get(name))}\n"
                          f"     reproduce: {' '.join(prefix)} {program} {name}", flush=True)
                print(f"{set_name} {engine}: {len(good) - len(bad)} passed, {len(bad)} failed", flush=True)
    print(f"{left_out} tests left out: not for this compiler or machine, or they fail natively")
    print(f"{passed} passed, {len(failures)} failed, 0 skipped")
    return 1 if failures else 0


sys.exit(main())
