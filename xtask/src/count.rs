//! `cargo xtask count`: executed host instructions for each guest instruction, which no noise can touch.
//!
//! The kernels of `bench/guests` are built for x86-64 and, as a yardstick, for AArch64, both static. Counted are the x86-64
//! program (guest instructions), Calque for AArch64 running it (host instructions, with everything that Calque does:
//! start-up, interpretation, compiling), and gcc's AArch64 program. A kernel by itself is what a run of it takes beyond
//! a run without any kernel. Three more figures: Debian's programs as they are, start-up of programs that do next to nothing, and translation alone, which callgrind counts on
//! any machine, because the emitter makes AArch64 code everywhere. On x86-64 machines qemu-x86_64 has no place in the table: it would have to run under emulation, too.

mod programs;

use crate::counting::{Counters, Emulated};
use crate::setup::{self, CrossRust, Tools};
use crate::shell::{command, run, target};
use programs::PROGRAMS;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// What to count.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Only kernels whose name contains this ("start": start-up and translation; "programs": Debian's; "profile": what profiles cost, which is in no report); the
    /// report is then printed, not written
    only: Option<String>,
    /// Engine of Calque's to count; the report is only written for "auto"
    #[arg(long, default_value = "auto")]
    engine: String,
}

impl Args {
    fn wants(&self, name: &str) -> bool {
        self.only.as_ref().is_none_or(|part| name.contains(part.as_str()))
    }

    fn writes(&self) -> bool {
        self.only.is_none() && self.engine == "auto"
    }
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

/// Kernels of `vectors.c`, and few and many rounds of each.
const VECTORS: [(&str, [&str; 2]); 3] =
    [("aes-256-gcm", ["500", "3500"]), ("sha256", ["500", "2500"]), ("product", ["5", "25"])];

/// The report.
const REPORT: &str = "bench/COUNTS.md";

/// Counts and writes the report; false if anything is missing or a result is wrong.
pub(crate) fn count(args: &Args) -> bool {
    match report(args) {
        Ok(text) => {
            println!("{text}");
            !args.writes() || fs::write(REPORT, text).is_ok()
        }
        Err(why) => {
            println!("count: {why}");
            false
        }
    }
}

fn report(args: &Args) -> Result<String, String> {
    let (tools, counters) = (Tools::fetch(), Counters::build()?);
    let session = Session { counters, calque: build_calque(tools.aarch64.clone()?)?, engine: args.engine.clone() };
    if args.only.as_deref() == Some(PROFILE) {
        return session.profiles();
    }
    let mut text = HEADER.to_string();
    for mix in &MIXES {
        text += &session.mix(mix, args)?;
    }
    text += &session.vectors(args)?;
    if args.wants(PROGRAMS) && cfg!(target_arch = "x86_64") {
        text += &session.programs()?;
    }
    if args.wants(START) {
        text += &session.start_up(tools.sysroot.as_ref().ok())?;
        text += &translation()?;
    }
    Ok(text)
}

/// How Calque is started. It compiles in the guest's threads: how long an emulated compile thread takes beside them says nothing about a
/// real one.
fn translator(calque: &Path, engine: &str) -> [PathBuf; 5] {
    [calque.into(), "run".into(), "--sync-compile".into(), "--engine".into(), engine.into()]
}

/// The same for a profile.
fn profiler(calque: &Path, engine: &str) -> [PathBuf; 6] {
    [calque.into(), "profile".into(), "--count".into(), "--sync-compile".into(), "--engine".into(), engine.into()]
}

/// What the command line calls start-up and translation.
const START: &str = "start";

/// What it calls profiles.
const PROFILE: &str = "profile";

const HEADER: &str = "# Executed instructions\n\n\
    Written by `cargo xtask count`: AArch64 instructions that Calque executes, and that gcc's own AArch64 program executes, for each \
    x86-64 instruction of the same source at `-O2`, static. Whole runs include start-up, interpretation and compilation, which is not put \
    off (`--sync-compile`); a kernel by itself is the difference to a run without kernels. Programs with a handler for SIGSEGV run on tier 0, those \
    with threads have ordered accesses (docs/ARCHITECTURE.md, docs/MEMORY-MODEL.md). The emulated processor has every feature but in the column that names another, which has neither \
    FEAT_AFP nor FEAT_LRCPC2.\n\n";

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
    engine: String,
}

/// What a kernel's program is linked with, each in a build of its own: in programs with handlers for faults, and in such with threads, more of
/// a processor's state can be seen.
const COMPANY: [&str; 3] = ["alone", "with_handler", "with_threads"];

/// How a kernel is run: the emulated processor, and the number of its company. One processor has every feature; the other is without
/// FEAT_AFP, FEAT_LRCPC2 and FEAT_LSE2.
const RUNS: [(&str, usize); 4] = [("max", 0), ("max", 1), ("max", 2), ("neoverse-n1", 0)];

/// Instructions of a kernel by itself, in Calque in each run, and as gcc's own program.
#[derive(Clone, Copy)]
struct Counts {
    guest: u64,
    calque: [u64; RUNS.len()],
    gcc: u64,
}

impl Counts {
    fn minus(self, other: Counts) -> Counts {
        Counts {
            guest: self.guest.saturating_sub(other.guest),
            calque: std::array::from_fn(|n| self.calque[n].saturating_sub(other.calque[n])),
            gcc: self.gcc.saturating_sub(other.gcc),
        }
    }

    fn row(self, name: &str) -> String {
        let of_guest = |count: u64| count as f64 / self.guest.max(1) as f64;
        let ([alone, handler, threads, server], gcc) = (self.calque.map(of_guest), of_guest(self.gcc));
        let millions = self.guest as f64 / 1e6;
        format!("| {name} | {millions:.0} | {alone:.2} | {handler:.2} | {threads:.2} | {server:.2} | {gcc:.2} |\n")
    }
}

impl Session {
    fn mix(&self, mix: &Mix, args: &Args) -> Result<String, String> {
        let wanted: Vec<_> = mix.kernels.iter().filter(|kernel| args.wants(kernel)).collect();
        if wanted.is_empty() {
            return Ok(String::new());
        }
        let mut guests = Vec::new();
        for company in COMPANY {
            let file = format!("bench/guests/{company}.c");
            let linked = if company == "alone" { &["-static"][..] } else { &["-static", "-pthread", &file] };
            guests.push(compile("x86_64-linux-gnu-gcc", mix.source, &format!("x86-64-{company}"), linked)?);
        }
        let native = compile("aarch64-linux-gnu-gcc", mix.source, "aarch64", STATIC)?;
        let mut text = format!(
            "## {}\n\n| kernel | 10^6 guest instructions | calque | with a handler for SIGSEGV | with threads | on a Neoverse N1 | gcc |\n\
             |---|---|---|---|---|---|---|\n",
            mix.title.chars().next().map_or(String::new(), |c| c.to_uppercase().to_string()) + &mix.title[1..]
        );
        let nothing = self.run(&guests, &native, Some("none"))?;
        for kernel in wanted {
            text += &self.run(&guests, &native, Some(kernel))?.minus(nothing).row(kernel);
        }
        text += &nothing.row("none: start-up");
        if args.only.is_none() {
            text += &self.run(&guests, &native, None)?.row("**all, whole run**");
        }
        Ok(text + "\n")
    }

    /// Kernels of integers, run and profiled.
    fn profiles(&self) -> Result<String, String> {
        let mix = &MIXES[0];
        let guest = compile("x86_64-linux-gnu-gcc", mix.source, "x86-64", STATIC)?;
        let count = |calque: &[PathBuf], kernel: &str| -> Result<(u64, Vec<u8>), String> {
            let program: [PathBuf; 3] = ["--".into(), guest.clone(), kernel.into()];
            self.counters.count(Emulated::Aarch64, &[calque, &program].concat())
        };
        let both = |kernel: &str| -> Result<[u64; 2], String> {
            let (run, expected) = count(&translator(&self.calque, &self.engine), kernel)?;
            let (profile, output) = count(&profiler(&self.calque, &self.engine), kernel)?;
            if output == expected {
                Ok([run, profile])
            } else {
                Err(format!("{kernel} prints something else in a profile"))
            }
        };
        let mut text = String::from("| kernel | run, 10^6 | profile, 10^6 | profile / run |\n|---|---|---|---|\n");
        let nothing = both("none")?;
        let mut row = |name: &str, [run, profile]: [u64; 2]| {
            let ratio = profile as f64 / run.max(1) as f64;
            text += &format!("| {name} | {:.0} | {:.0} | {ratio:.2} |\n", run as f64 / 1e6, profile as f64 / 1e6);
            ratio.ln()
        };
        let mut sum = 0.0;
        for kernel in mix.kernels {
            let counted = both(kernel)?;
            sum += row(kernel, [0, 1].map(|n| counted[n].saturating_sub(nothing[n])));
        }
        row("none: start-up", nothing);
        let mean = (sum / mix.kernels.len() as f64).exp();
        Ok(text + &format!("| geometric mean of the kernels | | | {mean:.2} |\n"))
    }

    /// Kernels of vector instructions, on both hosts.
    fn vectors(&self, args: &Args) -> Result<String, String> {
        let kernels: Vec<_> = VECTORS.iter().filter(|(kernel, _)| args.wants(kernel)).collect();
        if kernels.is_empty() {
            return Ok(String::new());
        }
        let flags = ["-O3", "-mavx2", "-mfma", "-ffast-math", "-static"];
        let guest = compile("x86_64-linux-gnu-gcc", "vectors", "x86-64", &flags)?;
        if !run(&mut crate::shell::cargo(&["build", "--release", "-p", "calque"])) {
            return Err("Calque does not build".into());
        }
        let here = target().join("release/calque");
        let mut text = String::from(
            "## Vectors\n\nOn x86-64 hosts, too: what Calque executes there (an emulated processor with AVX2, as the guest's, where no units run). A run of few \
             rounds is taken off.\n\n\
             | kernel | 10^6 guest instructions | AArch64 | x86-64, `tiered` | x86-64, `jit` |\n|---|---|---|---|---|\n",
        );
        for (kernel, [few, many]) in kernels {
            let count = |rounds: &str| -> Result<[u64; 4], String> {
                let program: [PathBuf; 4] = ["--".into(), guest.clone(), kernel.into(), rounds.into()];
                let run = |calque: &Path, engine: &str| [&translator(calque, engine)[..], &program].concat();
                let max = || ["-cpu".into(), "max".into()].into_iter();
                let alone = max().chain([guest.clone(), kernel.into(), rounds.into()]).collect::<Vec<_>>();
                let (guest, expected) = self.counters.count(Emulated::X86_64, &alone)?;
                let of = |emulated, words: Vec<PathBuf>| {
                    let (count, output) = self.counters.count(emulated, &words)?;
                    if output == expected {
                        Ok(count)
                    } else {
                        Err(format!("{words:?} prints something else than the program itself"))
                    }
                };
                let aarch64 = of(Emulated::Aarch64, run(&self.calque, &self.engine))?;
                let tiered = of(Emulated::X86_64, max().chain(run(&here, "tiered")).collect())?;
                let jit = of(Emulated::X86_64, max().chain(run(&here, "jit")).collect())?;
                Ok([guest, aarch64, tiered, jit])
            };
            let (few, many) = (count(few)?, count(many)?);
            let [guest, hosts @ ..] = [0, 1, 2, 3].map(|n| many[n].saturating_sub(few[n]) as f64);
            let [aarch64, tiered, jit] = hosts.map(|host| host / guest.max(1.0));
            text += &format!("| {kernel} | {:.0} | {aarch64:.2} | {tiered:.2} | {jit:.2} |\n", guest / 1e6);
        }
        Ok(text + "\n")
    }

    /// A program that prints a line, linked both ways: without saved code, in a run that saves its own, and in the next.
    fn start_up(&self, sysroot: Option<&PathBuf>) -> Result<String, String> {
        let mut text = String::from(
            "## Start-up\n\nIn an empty environment, as all runs here: loaders and C libraries go through it. Nothing is saved from one run to the next but \
             where it says so.\n\n| program | 10^3 guest instructions | 10^6 instructions of Calque | second run, which saves its code | the next |\n|---|---|---|---|---|\n",
        );
        let linked: [(&str, &[&str], Option<&PathBuf>); 2] =
            [("static", &["-static"], None), ("dynamic", &[], sysroot)];
        for (name, flags, root) in linked {
            if name == "dynamic" && root.is_none() {
                continue;
            }
            let program = compile("x86_64-linux-gnu-gcc", "hello", name, flags)?;
            let root = root.map_or(String::new(), |root| root.display().to_string());
            let prefix = |option: &str| if root.is_empty() { vec![] } else { vec![option.to_string(), root.clone()] };
            let words = |words: &[Vec<String>]| words.concat().into_iter().chain([program.display().to_string()]);
            let guest: Vec<_> = words(&[vec!["-cpu".into(), "max".into()], prefix("-L")]).collect();
            let (guest, expected) = self.counters.count(Emulated::X86_64, &guest)?;
            let run = translator(&self.calque, &self.engine).map(|word| word.display().to_string());
            let saved = target().join("bench/saved");
            let _ = fs::remove_dir_all(&saved);
            let mut counts = Vec::new();
            for n in 0..4 {
                let dir = if n == 0 { String::new() } else { saved.display().to_string() };
                let dir = vec!["--cache-dir".into(), dir];
                let translated: Vec<_> = words(&[run.to_vec(), prefix("--sysroot"), dir, vec!["--".into()]]).collect();
                let (calque, output) = self.counters.count(Emulated::Aarch64, &translated)?;
                if output != expected {
                    return Err(format!("{translated:?} prints something else than the program itself"));
                }
                counts.push(calque as f64 / 1e6);
            }
            let guest = guest as f64 / 1e3;
            text +=
                &format!("| {name} hello | {guest:.0} | {:.1} | {:.1} | {:.1} |\n", counts[0], counts[2], counts[3]);
        }
        Ok(text + "\n")
    }

    /// Runs one kernel, or all, in the three ways.
    fn run(&self, guests: &[PathBuf], native: &Path, kernel: Option<&str>) -> Result<Counts, String> {
        let kernel: Vec<&Path> = kernel.iter().map(Path::new).collect();
        let words = |first: &[&'static str], program: &Path| -> Vec<PathBuf> {
            let first = first.iter().map(PathBuf::from);
            first.chain([program.to_path_buf()]).chain(kernel.iter().map(|k| k.to_path_buf())).collect()
        };
        // `max` has what Calque's own processor announces: the C library takes the same paths in both.
        let (guest, expected) = self.counters.count(Emulated::X86_64, &words(&["-cpu", "max"], &guests[0]))?;
        let mut calque = [0; RUNS.len()];
        for (count, (processor, company)) in calque.iter_mut().zip(RUNS) {
            let mut translated = vec![PathBuf::from("-cpu"), PathBuf::from(processor)];
            translated.extend(translator(&self.calque, &self.engine));
            translated.extend(words(&["--"], &guests[company]));
            let (counted, output) = self.counters.count(Emulated::Aarch64, &translated)?;
            if output != expected {
                return Err(format!("{translated:?} prints something else than the program itself"));
            }
            *count = counted;
        }
        let (gcc, _) = self.counters.count(Emulated::Aarch64, &words(&[], native))?;
        Ok(Counts { guest, calque, gcc })
    }
}

/// Flags of a kernel's program.
const STATIC: &[&str] = &["-static"];

/// Builds a program of `bench/guests`; `variant` tells its builds apart.
fn compile(compiler: &str, source: &str, variant: &str, flags: &[&str]) -> Result<PathBuf, String> {
    let dir = target().join("bench");
    fs::create_dir_all(&dir).map_err(|e| format!("{}: {e}", dir.display()))?;
    let program = dir.join(format!("{source}-{variant}"));
    let mut gcc = command(compiler, ["-O2", "-ffp-contract=off"]);
    gcc.args(flags).arg("-o").arg(&program).arg(format!("bench/guests/{source}.c")).arg("-lm");
    if source == "vectors" {
        gcc.arg("-lcrypto");
    }
    if run(&mut gcc) { Ok(program) } else { Err(format!("{compiler} cannot compile {source}.c")) }
}

/// Host instructions of this machine that lifting and emitting a guest instruction takes.
fn translation() -> Result<String, String> {
    let program = compile("x86_64-linux-gnu-gcc", "hello", "static", STATIC)?;
    if !run(&mut crate::shell::cargo(&["build", "--release", "-p", "calque-bench", "--bin", "translate"])) {
        return Err("translate does not build".into());
    }
    let counted = |rounds: &str| -> Result<(u64, u64), String> {
        let mut valgrind = command("valgrind", ["--tool=callgrind", "--callgrind-out-file=/dev/null"]);
        valgrind.arg(target().join("release/translate")).arg(&program).arg(rounds);
        let out = valgrind.output().map_err(|e| format!("valgrind: {e}"))?;
        let text = String::from_utf8_lossy(&out.stderr);
        let events = text.lines().find_map(|line| line.split("Collected :").nth(1)?.trim().parse().ok());
        let insns = String::from_utf8_lossy(&out.stdout).trim().parse().ok();
        events.zip(insns).ok_or_else(|| format!("valgrind counts nothing: {text}"))
    };
    let ((one, insns), (two, _)) = (counted("1")?, counted("2")?);
    let each = (two - one) as f64 / insns as f64;
    if let Some(each) = nanoseconds(&program, insns) {
        println!(
            "count: lifting and emitting a guest instruction takes {each:.0} ns on this machine, which is in no report"
        );
    }
    Ok(format!(
        "## Translation\n\nLifting and emitting the {insns} instructions of a static hello's blocks: {each:.0} host instructions each \
         (callgrind, x86-64).\n"
    ))
}

/// The same in nanoseconds, the best of a few runs.
fn nanoseconds(program: &Path, insns: u64) -> Option<f64> {
    const ROUNDS: u32 = 20;
    let best = |rounds: u32| {
        let once = || {
            let mut translate = command(&target().join("release/translate").to_string_lossy(), [program]);
            translate.arg(rounds.to_string());
            let start = Instant::now();
            translate.output().is_ok_and(|out| out.status.success()).then(|| start.elapsed())
        };
        (0..5).filter_map(|_| once()).min()
    };
    let more = best(1 + ROUNDS)?.checked_sub(best(1)?)?;
    Some(more.as_nanos() as f64 / f64::from(ROUNDS) / insns as f64)
}
