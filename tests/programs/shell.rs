//! Debian's own programs: busybox as one static file, and dynamic ones from an x86-64 sysroot.

use crate::command::{calque, difference, run, sysroot};
use libtest_mimic::{Failed, Trial};
use std::path::{Path, PathBuf};

/// Name, shell script, what it prints. They only use what busybox has inside.
const BUSYBOX: &[(&str, &str, &str)] = &[
    ("echo", "echo hello; exit 3", "hello\n[exit 3]"),
    ("loop", "s=0; i=0; while [ $i -lt 300 ]; do s=$((s+i*i%7)); i=$((i+1)); done; echo $s", "601\n[exit 0]"),
    ("pipeline", "seq 1 2000 | sort -r | head -n 3; seq 1 500 | wc -l", "999\n998\n997\n500\n[exit 0]"),
    ("checksum", "seq 1 20000 | md5sum; seq 1 20000 | gzip | gunzip | md5sum", CHECKSUMS),
    ("substitution", "for w in $(echo c a b | tr ' ' '\\n' | sort); do echo -n $w; done; echo", "abc\n[exit 0]"),
    ("awk", "seq 1 100 | awk '{s+=$1*1.5} END {printf \"%.2f\\n\", s}'", "7575.00\n[exit 0]"),
    ("subshell", "(exit 5); echo $?; false || echo or; sh -c 'kill -9 $$'; echo $?", "5\nor\n137\n[exit 0]"),
    (
        "background",
        "sleep 0.1 & wait $!; echo $?; trap 'echo trapped' USR1; kill -USR1 $$; echo end",
        "0\ntrapped\nend\n[exit 0]",
    ),
];

/// MD5 of the numbers 1 to 20000, one a line; twice.
const CHECKSUMS: &str = "e071f707df7bbeee2a6a1eb48011ddd0  -\ne071f707df7bbeee2a6a1eb48011ddd0  -\n[exit 0]";

/// Name, arguments, what is printed.
const SYSROOT: &[(&str, &[&str], &str)] = &[
    ("true", &["/bin/true"], "[exit 0]"),
    ("echo", &["/usr/bin/echo", "one", "two"], "one two\n[exit 0]"),
    (
        "bash",
        &["/bin/bash", "-c", "for i in 1 2 3; do s=$((s+i*i)); done; echo $s ${BASH_VERSION%%.*}"],
        "14 5\n[exit 0]",
    ),
    ("pipeline", &["/bin/bash", "-c", "seq 1 3000 | sort -rn | head -n 2 | tr 9 x"], "3000\n2xxx\n[exit 0]"),
    (
        "perl",
        &["/usr/bin/perl", "-e", "print join(',', map { $_ * $_ } 1..10), \"\\n\"; printf \"%.6f\\n\", sin(1)"],
        "1,4,9,16,25,36,49,64,81,100\n0.841471\n[exit 0]",
    ),
    (
        "python3",
        &["/usr/bin/python3", "-S", "-c", "import math\nprint(sum(i * i for i in range(1000)), math.sqrt(2))"],
        "332833500 1.4142135623730951\n[exit 0]",
    ),
    (
        "python3-json",
        &[
            "/usr/bin/python3",
            "-c",
            "import json, re\nprint(json.dumps({'a': [1, 2.5]}), re.findall('[0-9]+', 'a1b22'))",
        ],
        "{\"a\": [1, 2.5]} ['1', '22']\n[exit 0]",
    ),
];

/// Tests for what is there.
pub(crate) fn collect(trials: &mut Vec<Trial>, skipped: &mut Vec<String>) {
    let no_exec = std::env::var_os("CALQUE_TEST_NO_EXEC").is_some();
    match std::env::var_os("CALQUE_TEST_BUSYBOX").map(PathBuf::from) {
        Some(busybox) => {
            for (name, script, expected) in BUSYBOX {
                let busybox = busybox.clone();
                let test = move || {
                    let mut command = calque(["run"]);
                    command.arg("--").arg(&busybox).args(["sh", "-c", script]);
                    same(command, expected)
                };
                trials.push(Trial::test(format!("busybox::{name}"), test).with_ignored_flag(no_exec));
            }
        }
        None => skipped.push("busybox pipelines: no static x86-64 busybox (cargo xtask setup)".into()),
    }
    match sysroot() {
        Some(root) => {
            for (name, words, expected) in SYSROOT {
                let root = root.clone();
                let test = move || {
                    let mut command = calque(["run", "--sysroot"]);
                    command.arg(&root).arg("--").args(*words).env("PATH", "/usr/bin:/bin").env("LC_ALL", "C.UTF-8");
                    same(command, expected)
                };
                let starts_programs = *name == "pipeline";
                trials
                    .push(Trial::test(format!("sysroot::{name}"), test).with_ignored_flag(no_exec && starts_programs));
            }
            trials.push(Trial::test("sysroot::level", move || {
                level(&root, "auto", has_avx512())?;
                level(&root, "interp", false)
            }));
        }
        None => skipped.push("dynamic Debian programs: no x86-64 sysroot (cargo xtask setup)".into()),
    }
}

/// Whether this processor is an x86-64-v4 one, whose AVX-512 is copied.
fn has_avx512() -> bool {
    #[cfg(target_arch = "x86_64")]
    return is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512cd")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512vl");
    #[cfg(not(target_arch = "x86_64"))]
    return false;
}

/// What glibc makes of CPUID: the processor is an x86-64-v3 one, and no more unless it is `v4`.
fn level(root: &Path, engine: &str, v4: bool) -> Result<(), Failed> {
    let mut command = calque(["run", "--engine", engine, "--sysroot"]);
    command.arg(root).args(["--", "/lib64/ld-linux-x86-64.so.2", "--help"]);
    let got = run(&mut command);
    let supported: Vec<&str> = got.stdout.lines().filter(|line| line.contains("(supported")).map(str::trim).collect();
    let levels: Vec<&str> = supported.iter().filter_map(|line| line.split_once(" (")).map(|(level, _)| level).collect();
    if got.end == "exit 0" && levels.contains(&"x86-64-v3") && levels.contains(&"x86-64-v4") == v4 {
        Ok(())
    } else {
        Err(difference(&command, if v4 { "x86-64-v4" } else { "x86-64-v3, and no more" }, &got).into())
    }
}

fn same(mut command: std::process::Command, expected: &str) -> Result<(), Failed> {
    let got = run(&mut command);
    if got.to_string() == expected { Ok(()) } else { Err(difference(&command, expected, &got).into()) }
}
