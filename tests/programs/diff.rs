//! `calque diff`: real programs are the same in every engine; what is broken on purpose is found and named to the instruction.

use crate::command::{Outcome, calque, emulated, run};
use libtest_mimic::{Failed, Trial};
use std::path::Path;
use std::process::Command;

/// Exit code, and texts in standard error.
type Expected = (&'static str, &'static [&'static str]);

const SAME: Expected = ("exit 0", &["calque: same: "]);

/// A name, the arguments of `calque diff` between `|`, the program that it needs, what comes out.
#[rustfmt::skip]
const CASES: &[(&str, &str, &str, Expected)] = &[
    ("ls_interp",     "--engine|interp|--|/bin/ls|/",                       "/bin/ls", SAME),
    ("ls_jit",        "--engine|jit|--|/bin/ls|/",                          "/bin/ls", SAME),
    ("ls_against",    "--engine|tiered|--hot|20|--against|interp|--|/bin/ls|/", "/bin/ls", SAME),
    ("bash_tiered",   "--engine|tiered|--hot|20|--|/bin/bash|-c|for i in 1 2 3; do echo $((i*i)); done", "/bin/bash", SAME),
    ("pipe_followed", "--engine|interp|--follow-forks|--|/bin/bash|-c|ls / | sort -r", "/bin/bash", SAME),
    ("ls_branches_auto", "--branches|2000|--|/bin/ls|/",                    "/bin/ls", SAME),
    ("ls_branches_jit", "--engine|jit|--branches|2000|--|/bin/ls|/",        "/bin/ls", SAME),
    ("ls_branches_interp", "--engine|interp|--branches|2000|--|/bin/ls|/",  "/bin/ls", SAME),
    ("ls_auto_against", "--branches|2000|--against|interp|--|/bin/ls|/",    "/bin/ls", SAME),
    ("perl_alarm",    "--branches|100000|--|/usr/bin/perl|-e|$SIG{ALRM} = sub { $n = 1 }; alarm 1; 1 until $n; print $n",
                      "/usr/bin/perl", ("exit 0", &["calque: same: ", " 1 signals", "both exited with 0"])),
    ("sort",          "--|/usr/bin/sort|-n|/etc/services",                  "/usr/bin/sort", SAME),
    ("python",        "--|/usr/bin/python3|-S|-c|print(sorted(str(i) for i in range(300))[::50])", "/usr/bin/python3", SAME),
    ("sqlite3",       "--|/usr/bin/sqlite3|:memory:|create table t(a,b); with recursive c(x) as (select 1 union all select x+1 from c where x<300) insert into t select x,x*x%109 from c; select b,sum(a)/3.0 from t group by b limit 5",
                      "/usr/bin/sqlite3", SAME),
    ("gzip",          "--|/bin/gzip|-c|/bin/ls",                            "/bin/gzip", SAME),
    ("gzip_jit",      "--engine|jit|--|/bin/gzip|-c|/etc/services",         "/bin/gzip", SAME),
    ("xz",            "--|/usr/bin/xz|-c0|/etc/services",                   "/usr/bin/xz", SAME),
    ("openssl",       "--|/usr/bin/openssl|dgst|-sha256|/etc/services",     "/usr/bin/openssl", SAME),
    ("forks_auto",    "--follow-forks|--|/bin/bash|-c|ls / | sort -r; (exit 3); echo $?", "/bin/bash", SAME),
    // Time is read by CPUID, in code that has been translated when the child begins.
    ("child_clock",   "--follow-forks|--|/usr/bin/perl|-e|$a = time; if (fork) { wait } else { print time - $a < 9 }", "/usr/bin/perl", SAME),
    ("perl_auto",     "--|/usr/bin/perl|-e|print map { $_ * 1.5, q( ) } 1 .. 9", "/usr/bin/perl", SAME),
    ("fault_handled", "--engine|interp|--|/usr/bin/python3|-S|-c|import faulthandler, ctypes; faulthandler.enable(); ctypes.string_at(0)",
                      "/usr/bin/python3", ("exit 0", &["1 faults", "ended by SIGSEGV"])),
    ("threads",       "--|/usr/bin/python3|-S|-c|import _thread; _thread.start_new_thread(print, ())",
                      "/usr/bin/python3", ("exit 2", &["cannot compare: the program starts a second thread"])),
    ("wrong_flag",    "--engine|interp|--break|flag|--|/bin/ls|/",           "/bin/ls", ("exit 1", &["first at 0x", "* flags ", "reproduce: "])),
    ("wrong_flag_jit", "--engine|jit|--break|flag|--|/bin/ls|/",             "/bin/ls", ("exit 1", &["first at 0x", "* flags ", "--- host"])),
    ("wrong_flag_auto", "--break|flag|--|/bin/ls|/",                         "/bin/ls", ("exit 1", &["first at 0x", "* flags ", "--- host: the unit", "reproduce: "])),
    ("lost_store_auto", "--break|store|--|/bin/ls|/",                        "/bin/ls", ("exit 1", &["first at 0x", "* [0x"])),
    ("lost_store_jit", "--engine|jit|--break|store|--|/bin/ls|/",            "/bin/ls", ("exit 1", &["first at 0x", "* [0x"])),
    ("wrong_rounding_auto", "--break|rounding|--|/usr/bin/perl|-e|print int(2.75 * 3)",
                      "/usr/bin/perl", ("exit 1", &["first at 0x", "cvttsd2si"])),
    ("wrong_rounding_jit", "--engine|jit|--break|rounding|--|/usr/bin/perl|-e|print int(2.75 * 3)",
                      "/usr/bin/perl", ("exit 1", &["first at 0x", "cvttsd2si"])),
    ("missed_signal_auto", "--break|signal|--|/usr/bin/python3|-S|-c|import faulthandler, ctypes; faulthandler.enable(); ctypes.string_at(0)",
                      "/usr/bin/python3", ("exit 1", &["first at 0x", "expected SIGSEGV"])),
    ("missed_signal_jit", "--engine|jit|--break|signal|--|/usr/bin/python3|-S|-c|import faulthandler, ctypes; faulthandler.enable(); ctypes.string_at(0)",
                      "/usr/bin/python3", ("exit 1", &["first at 0x", "expected SIGSEGV"])),
    ("lost_store",    "--engine|interp|--break|store|--|/bin/ls|/",          "/bin/ls", ("exit 1", &["first at 0x", "* [0x"])),
    ("wrong_rounding", "--engine|interp|--break|rounding|--|/usr/bin/perl|-e|print int(2.75 * 3)",
                      "/usr/bin/perl", ("exit 1", &["first at 0x", "cvttsd2si"])),
    ("missed_signal", "--engine|interp|--break|signal|--|/usr/bin/python3|-S|-c|import faulthandler, ctypes; faulthandler.enable(); ctypes.string_at(0)",
                      "/usr/bin/python3", ("exit 1", &["first at 0x", "expected SIGSEGV"])),
    ("stale_code_auto", "--break|stale|--|/usr/bin/luajit|-e|local s = 0 for i = 1, 20000 do if i % 3 == 0 then s = s + 1 elseif i % 5 == 0 then s = s + 2 else s = s + i % 7 end end print(s)",
                      "/usr/bin/luajit", ("exit 1", &["wrote last what differs", "* rip "])),
    ("stale_code_jit", "--engine|jit|--break|stale|--|/usr/bin/luajit|-e|local s = 0 for i = 1, 20000 do if i % 3 == 0 then s = s + 1 elseif i % 5 == 0 then s = s + 2 else s = s + i % 7 end end print(s)",
                      "/usr/bin/luajit", ("exit 1", &["wrote last what differs", "* rip "])),
    ("stale_code",    "--engine|interp|--break|stale|--|/usr/bin/luajit|-e|local s = 0 for i = 1, 20000 do if i % 3 == 0 then s = s + 1 elseif i % 5 == 0 then s = s + 2 else s = s + i % 7 end end print(s)",
                      "/usr/bin/luajit", ("exit 1", &["wrote last what differs", "* rip "])),
];

/// All tests of this file.
pub(crate) fn collect(trials: &mut Vec<Trial>, skipped: &mut Vec<String>) {
    if cfg!(not(target_arch = "x86_64")) || emulated() {
        skipped.push("comparisons with the processor: this machine has no x86-64 one".into());
        for engine in ["auto", "tier0"] {
            trials.push(Trial::test(format!("diff::branches_refused_{engine}"), move || branches_refused(engine)));
        }
        return;
    }
    for (name, args, program, expected) in CASES {
        if !Path::new(program).exists() {
            skipped.push(format!("diff::{name}: no {program} here"));
            continue;
        }
        trials.push(Trial::test(format!("diff::{name}"), move || check(args, expected)));
    }
    match cc1() {
        Some(cc1) => trials.push(Trial::test("diff::cc1", move || compiler(&cc1))),
        None => skipped.push("diff::cc1: no gcc here".into()),
    }
}

/// gcc's compiler proper, which the driver would run as a child.
fn cc1() -> Option<String> {
    let out = Command::new("gcc").arg("-print-prog-name=cc1").output().ok()?;
    let path = String::from_utf8(out.stdout).ok()?.trim().to_owned();
    Path::new(&path).exists().then_some(path)
}

fn compiler(cc1: &str) -> Result<(), Failed> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/profile/calls.c");
    check(&format!("--|{cc1}|-quiet|-O1|{}|-o|/dev/null", source.display()), &SAME)
}

/// Emitted code does not count branches: that is said, and nothing is compared at wrong places.
fn branches_refused(engine: &str) -> Result<(), Failed> {
    let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("demo/demo.elf");
    let args = format!("--engine|{engine}|--against|interp|--branches|2000|--|{}", demo.display());
    check(&args, &("exit 2", &["cannot compare: --branches: this engine does not count them"]))
}

/// What `calque diff` says with these arguments. `|` inside the last one, behind `-c`, is the shell's.
fn diff(args: &str) -> Outcome {
    let (options, script) = args.split_once("|-c|").map_or((args, None), |(before, script)| (before, Some(script)));
    let tail = script.into_iter().flat_map(|script| ["-c", script]);
    run(&mut calque(["diff"].into_iter().chain(options.split('|')).chain(tail)))
}

fn check(args: &str, (end, texts): &Expected) -> Result<(), Failed> {
    let got = diff(args);
    let missing = texts.iter().find(|text| !got.stderr.contains(**text));
    if got.end == *end && missing.is_none() {
        return Ok(());
    }
    let want = missing.map_or(*end, |text| text);
    Err(format!("calque diff {args}\nexpected: {want}\ngot: {}\n{}", got.end, got.stderr).into())
}
