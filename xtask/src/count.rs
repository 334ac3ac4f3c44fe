//! `cargo xtask count`: executed host instructions for each guest instruction, which no noise can touch.
//!
//! The kernels of `bench/guests` are built for x86-64 and, as a yardstick, for AArch64, both static. Counted are the x86-64
//! program (guest instructions), Calque for AArch64 running it (host instructions, with everything that Calque does:
//! start-up, interpretation, compiling), and gcc's AArch64 program. A kernel by itself is what a run of it takes beyond
//! a run without any kernel. On x86-64 machines qemu-x86_64 has no place in the table: it would have to run under emulation, too.

use crate::counting::{Counters, Emulated};
use crate::setup::{self, CrossRust, Tools};
use crate::shell::{command, run, target};
use std::fs;
use std::path::{Path, PathBuf};

/// What to count.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Only kernels whose name contains this; the report is then printed, not written
    only: Option<String>,
}

/// A program of `bench/guests` and its kernels.
struct Mix {
    title: &'static str,
    source: &'static str,
    kernels: &'static [&'static str],
}

const MIXES: [Mix; 2] = [
    Mix {
        title: "integer mix",
        source: "integer_mix",
        kernels: &["crc", "sieve", "hash", "sort", "callback", "machine", "fib", "text", "bignum"],
    },
    Mix {
        title: "floating-point mix",
        source: "float_mix",
        kernels: &["nbody", "matrix", "stencil", "mandelbrot", "spectral", "library"],
    },
];

/// The report.
const REPORT: &str = "bench/COUNTS.md";

/// Counts and writes the report; false if anything is missing or a result is wrong.
pub(crate) fn count(args: &Args) -> bool {
    match report(args) {
        Ok(text) => {
            println!("{text}");
            args.only.is_some() || fs::write(REPORT, text).is_ok()
        }
        Err(why) => {
            println!("count: {why}");
            false
        }
    }
}

fn report(args: &Args) -> Result<String, String> {
    let tools = Tools::fetch();
    let calque = build_calque(tools.aarch64.clone()?)?;
    let session = Session { counters: Counters::build()?, calque };
    let mut text = HEADER.to_string();
    for mix in &MIXES {
        text += &session.mix(mix, args.only.as_deref())?;
    }
    Ok(text)
}

const HEADER: &str = "# Executed instructions\n\n\
    Written by `cargo xtask count`: AArch64 instructions that Calque executes, and that gcc's own AArch64 program executes, for each \
    x86-64 instruction of the same source at `-O2`, static. Whole runs include start-up, interpretation and compilation; a kernel \
    by itself is the difference to a run without kernels.\n\n";

/// Calque for AArch64.
fn build_calque(rust: CrossRust) -> Result<PathBuf, String> {
    if !run(rust.cargo("build").args(["--release", "-p", "calque"])) {
        return Err("Calque does not build for AArch64".into());
    }
    Ok(target().join("aarch64").join(setup::AARCH64).join("release/calque"))
}

struct Session {
    counters: Counters,
    calque: PathBuf,
}

/// Instructions of the three runs.
#[derive(Clone, Copy)]
struct Counts {
    guest: u64,
    calque: u64,
    gcc: u64,
}

impl Counts {
    fn minus(self, other: Counts) -> Counts {
        Counts {
            guest: self.guest.saturating_sub(other.guest),
            calque: self.calque.saturating_sub(other.calque),
            gcc: self.gcc.saturating_sub(other.gcc),
        }
    }

    fn row(self, name: &str) -> String {
        let guest = self.guest.max(1) as f64;
        let millions = self.guest as f64 / 1e6;
        format!("| {name} | {millions:.0} | {:.2} | {:.2} |\n", self.calque as f64 / guest, self.gcc as f64 / guest)
    }
}

impl Session {
    fn mix(&self, mix: &Mix, only: Option<&str>) -> Result<String, String> {
        let guest = compile("x86_64-linux-gnu-gcc", mix.source, "x86-64")?;
        let native = compile("aarch64-linux-gnu-gcc", mix.source, "aarch64")?;
        let mut text = format!(
            "## {}\n\n| kernel | 10^6 guest instructions | calque | gcc |\n|---|---|---|---|\n",
            mix.title.chars().next().map_or(String::new(), |c| c.to_uppercase().to_string()) + &mix.title[1..]
        );
        let nothing = self.run(&guest, &native, Some("none"))?;
        for kernel in mix.kernels.iter().filter(|k| only.is_none_or(|part| k.contains(part))) {
            text += &self.run(&guest, &native, Some(kernel))?.minus(nothing).row(kernel);
        }
        text += &nothing.row("none: start-up");
        if only.is_none() {
            text += &self.run(&guest, &native, None)?.row("**all, whole run**");
        }
        Ok(text + "\n")
    }

    /// Runs one kernel, or all, in the three ways.
    fn run(&self, guest: &Path, native: &Path, kernel: Option<&str>) -> Result<Counts, String> {
        let kernel: Vec<&Path> = kernel.iter().map(Path::new).collect();
        let words = |first: &[&'static str], program: &Path| -> Vec<PathBuf> {
            let first = first.iter().map(PathBuf::from);
            first.chain([program.to_path_buf()]).chain(kernel.iter().map(|k| k.to_path_buf())).collect()
        };
        let mut translated = vec![self.calque.clone()];
        translated.extend(words(&["run", "--"], guest));
        // `max` has what Calque's own processor announces: the C library takes the same paths in both.
        let (guest, expected) = self.counters.count(Emulated::X86_64, &words(&["-cpu", "max"], guest))?;
        let (calque, output) = self.counters.count(Emulated::Aarch64, &translated)?;
        if output != expected {
            return Err(format!("{translated:?} prints something else than the program itself"));
        }
        let (gcc, _) = self.counters.count(Emulated::Aarch64, &words(&[], native))?;
        Ok(Counts { guest, calque, gcc })
    }
}

/// Builds a program of `bench/guests`.
fn compile(compiler: &str, source: &str, machine: &str) -> Result<PathBuf, String> {
    let dir = target().join("bench");
    fs::create_dir_all(&dir).map_err(|e| format!("{}: {e}", dir.display()))?;
    let program = dir.join(format!("{source}-{machine}"));
    let mut gcc = command(compiler, ["-O2", "-ffp-contract=off", "-static", "-o"]);
    gcc.arg(&program).arg(format!("bench/guests/{source}.c")).arg("-lm");
    if run(&mut gcc) { Ok(program) } else { Err(format!("{compiler} cannot compile {source}.c")) }
}
