//! Crash reports: what calque says when a guest dies by a fault, and when it says nothing.

use crate::command::{Outcome, calque, run};
use libtest_mimic::{Failed, Trial};
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

/// A guest with one way to die per first argument.
const SOURCE: &str = r#"
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
__attribute__((noinline)) int store_through(volatile int *p) { *p = 7; return 1; }
__attribute__((noinline)) int divide(volatile int a, volatile int b) { return a / b + 1; }
__attribute__((noinline)) int call(int (*volatile f)(void)) { return f() + 1; }
__attribute__((noinline)) int illegal(void) { __asm__ volatile("ud2"); return 1; }
__attribute__((noinline)) int compat(void) { int pid; __asm__ volatile("int $0x80" : "=a"(pid) : "0"(20)); return pid; }
__attribute__((noinline)) int past_end(void) {
    int fd = open("/proc/self/exe", O_RDONLY);
    volatile char *p = mmap(0, 1 << 30, PROT_READ, MAP_PRIVATE, fd, 0);
    return p[(1 << 30) - 1];
}
static void handler(int s) { (void)s; _exit(3); }
int main(int argc, char **argv) {
    open("/no/such/file", O_RDONLY);
    const char *how = argc > 1 ? argv[1] : "";
    if (!strcmp(how, "handled")) { signal(SIGSEGV, handler); return store_through((int *)16); }
    if (!strcmp(how, "write")) return store_through((int *)16);
    if (!strcmp(how, "divide")) return divide(5, argc - 2);
    if (!strcmp(how, "call")) return call(0);
    if (!strcmp(how, "illegal")) return illegal();
    if (!strcmp(how, "compat")) return compat();
    if (!strcmp(how, "past")) return past_end();
    if (!strcmp(how, "killed")) { kill(getpid(), SIGSEGV); }
    return 0;
}
"#;

/// A way to die, how the process ends, and what its report says.
struct Death {
    how: &'static str,
    end: &'static str,
    says: &'static [&'static str],
}

#[rustfmt::skip]
const DEATHS: &[Death] = &[
    Death { how: "write",   end: "signal 11", says: &["SIGSEGV (address not mapped), write to 0x10", "store_through+0x", "mov dword [", "main+0x", "ENOENT"] },
    Death { how: "divide",  end: "signal 8",  says: &["SIGFPE (integer division by zero", "divide+0x", "idiv"] },
    Death { how: "call",    end: "signal 11", says: &["jump to 0x0", "call+0x", "guessed from the top of the stack", "not mapped"] },
    Death { how: "illegal", end: "signal 4",  says: &["SIGILL (illegal instruction)", "0f 0b", "ud2"] },
    Death { how: "compat",  end: "signal 11", says: &["32-bit code or system call, which is not supported, at 0x", "int 80h", "compat+0x"] },
    Death { how: "past",    end: "signal 7",  says: &["SIGBUS (behind the end of a mapped file), read of", "past_end+0x"] },
];

/// All tests of this file.
pub(crate) fn collect(trials: &mut Vec<Trial>, skipped: &mut Vec<String>) {
    if guest().is_err() {
        skipped.push("crash reports: no x86-64 gcc here".into());
        return;
    }
    for death in DEATHS {
        for engine in ["interp", "jit"] {
            trials.push(Trial::test(format!("crash::{}::{engine}", death.how), move || dies(death, engine)));
        }
    }
    let mut add =
        |name: &str, test: fn() -> Result<(), Failed>| trials.push(Trial::test(format!("crash::{name}"), test));
    add("silenced", || silent(&["--no-crash-report"], "write", "signal 11"));
    add("handled", || silent(&[], "handled", "exit 3"));
    add("killed", || silent(&[], "killed", "signal 11"));
}

/// The program, compiled on first use.
fn guest() -> Result<&'static PathBuf, Failed> {
    static BUILT: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let built = BUILT.get_or_init(|| {
        let dir = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
        let (source, file) = (dir.join("crash.c"), dir.join("crash"));
        fs::write(&source, SOURCE).map_err(|e| e.to_string())?;
        let mut gcc = Command::new("gcc");
        gcc.args(["-O1", "-g", "-static", "-fno-omit-frame-pointer", "-o"]).arg(&file).arg(&source);
        let machine = Command::new("gcc").arg("-dumpmachine").output().map_err(|e| e.to_string())?;
        if !machine.stdout.starts_with(b"x86_64") {
            return Err("gcc makes no x86-64 programs".into());
        }
        let out = gcc.output().map_err(|e| e.to_string())?;
        if out.status.success() { Ok(file) } else { Err(String::from_utf8_lossy(&out.stderr).into_owned()) }
    });
    built.as_ref().map_err(Failed::from)
}

fn outcome(options: &[&str], how: &str) -> Result<Outcome, Failed> {
    let mut command = calque(["run"]);
    command.args(options).arg("--").arg(guest()?).arg(how);
    Ok(run(&mut command))
}

fn dies(death: &Death, engine: &str) -> Result<(), Failed> {
    let got = outcome(&["--engine", engine], death.how)?;
    let missing = death.says.iter().find(|words| !got.stderr.contains(*words));
    match missing {
        None if got.end == death.end => Ok(()),
        None => Err(format!("ended with {}, not {}", got.end, death.end).into()),
        Some(words) => Err(format!("no {words:?} in\n{}", got.stderr).into()),
    }
}

fn silent(options: &[&str], how: &str, end: &str) -> Result<(), Failed> {
    let got = outcome(options, how)?;
    if got.end == end && !got.stderr.contains("the guest died") {
        return Ok(());
    }
    Err(format!("ended with {}, not {end}, and said\n{}", got.end, got.stderr).into())
}
