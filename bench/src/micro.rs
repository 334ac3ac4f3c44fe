//! Single mechanisms: what a guest pays for each under each runner (`guests/micro.c`), for a second thread, and what lifting and compiling cost.

use crate::measure;
use crate::programs;
use crate::runner::Runner;
#[cfg(target_arch = "x86_64")]
use calque_backend::identical::{Blocks, Source, Sum};
use calque_backend::{CompileOptions, Compiler, HostIsa};
use calque_frontend::decode::Bytes;
use calque_frontend::elf::LoadPlan;
use calque_frontend::lift::{EveryBlock, LiftOptions, lift_block, lift_region};
use calque_ir::{GuestAddr, Region, pass};
#[cfg(target_arch = "x86_64")]
use iced_x86::OpKind;
use iced_x86::{Decoder, DecoderOptions, Instruction};
use std::fmt::Write;
use std::hint::black_box;
use std::path::Path;
use std::time::Instant;

/// What `micro` calls it, what it is. The nanobenchmarks of Adams and Agesen first.
#[rustfmt::skip]
const GUEST: [(&str, &str); 18] = [
    ("syscall",  "system call (getppid)"),
    ("rdtsc",    "emulated instruction: RDTSC"),
    ("cpuid",    "emulated instruction: CPUID"),
    ("fsbase",   "control state: WRFSBASE"),
    ("mxcsr",    "control state: LDMXCSR"),
    ("leaf",     "call and return, leaf"),
    ("deep",     "call and return, 1000 deep"),
    ("setjmp",   "setjmp and longjmp"),
    ("pgfault",  "page fault: mprotect, SIGSEGV handler, mprotect"),
    ("divzero",  "division by zero, SIGFPE handler, siglongjmp"),
    ("ptemod",   "store into a page of code, call it"),
    ("fib",      "recursive fib, by call"),
    ("indirect", "indirect call, two targets"),
    ("loop",     "loop of three instructions"),
    ("signal",   "signal to itself, handled"),
    ("clock",    "clock_gettime"),
    ("mutex",    "mutex that two threads want"),
    ("pingpong", "to another thread and back, by futex"),
];

/// Work that two threads do beside each other (`guests/scaling.c`).
const SCALING: [&str; 4] = ["arithmetic", "memory", "calls", "allocation"];

/// All single mechanisms, in Markdown; the best of `runs` counts.
pub(crate) fn report(runners: &[Runner], runs: u32) -> String {
    let mut text = String::from("\n## Single mechanisms, nanoseconds each\n\n");
    guest_side(&mut text, runners, runs);
    scaling(&mut text, runners, runs);
    translator_side(&mut text, runs);
    text
}

fn guest_side(text: &mut String, runners: &[Runner], runs: u32) {
    let Ok(guest) = programs::guest("micro", "micro.c", &["-O2", "-pthread"]) else { return };
    let names: Vec<&str> = runners.iter().map(|r| r.name.as_str()).collect();
    let _ = writeln!(text, "| what | {} |\n|---|{}", names.join(" | "), "---|".repeat(names.len()));
    for (what, title) in GUEST {
        let _ = write!(text, "| {title} |");
        for runner in runners {
            let words = [guest[0].clone(), what.into()];
            let _ = write!(text, " {} |", best_of(&runner.command(&words), runs));
        }
        text.push('\n');
    }
}

/// The smallest of what several runs of `micro` print.
fn best_of(words: &[String], runs: u32) -> String {
    let runs = (0..runs).map(|_| measure::run(words, Path::new(".")));
    let value = |sample: measure::Sample| sample.line.trim().parse::<f64>().ok();
    let best = runs.filter_map(Result::ok).filter_map(value).fold(f64::INFINITY, f64::min);
    if best.is_finite() { format!("{best:.1}") } else { "-".into() }
}

/// What a second thread costs the first.
fn scaling(text: &mut String, runners: &[Runner], runs: u32) {
    let Ok(guest) = programs::guest("scaling", "scaling.c", &["-O2", "-pthread"]) else { return };
    let names: Vec<&str> = runners.iter().map(|r| r.name.as_str()).collect();
    text.push_str("\n## Two threads\n\nNanoseconds for a round of work, by one thread; the same by each of two at once; and the ratio.\n\n");
    let _ = writeln!(text, "| work | {} |\n|---|{}", names.join(" | "), "---|".repeat(names.len()));
    for what in SCALING {
        let _ = write!(text, "| {what} |");
        for runner in runners {
            let words = runner.command(&[guest[0].clone(), what.into()]);
            let of_run = |sample: measure::Sample| {
                let mut times = sample.line.split_whitespace().map(str::parse::<f64>);
                Some([times.next()?.ok()?, times.next()?.ok()?])
            };
            let runs = (0..runs).filter_map(|_| measure::run(&words, Path::new(".")).ok()).filter_map(of_run);
            let least = runs.reduce(|[a, b], [c, d]| [a.min(c), b.min(d)]);
            let _ = match least {
                Some([one, two]) => write!(text, " {one:.3}, {two:.3}, {:.3} |", two / one),
                None => write!(text, " - |"),
            };
        }
        text.push('\n');
    }
}

/// Costs by guest instruction of lifting, optimising and compiling the code of a guest of `bench/guests`.
fn translator_side(text: &mut String, runs: u32) {
    let Ok(guest) = programs::guest("objects", "objects.cc", &["-O2"]) else { return };
    let Some(text_of) = Text::of(&guest[0]) else { return };
    let (reader, options) = (text_of.reader(), LiftOptions::default());
    let starts: Vec<GuestAddr> = text_of.functions();
    let regions: Vec<Region> = starts.iter().map(|pc| lift_region(&reader, *pc, &EveryBlock, &options)).collect();
    let optimised: Vec<Region> = regions.iter().cloned().map(|mut r| (pass::optimize(&mut r), r).1).collect();
    let mut compiler = Compiler::new(HostIsa::native());
    let block_insns: u32 = starts.iter().map(|pc| lift_block(&reader, *pc, &options).guest_insns).sum();
    let insns: u32 = regions.iter().map(|r| r.guest_insns).sum();
    let _ = writeln!(text, "\n| for each guest instruction ({} regions of {insns}) | ns |\n|---|---|", regions.len());
    let mut row = |title: &str, insns: u32, work: &mut dyn FnMut()| {
        let best = (0..runs).map(|_| time(work)).fold(f64::INFINITY, f64::min);
        let _ = writeln!(text, "| {title} | {:.0} |", best * 1e9 / f64::from(insns.max(1)));
    };
    row("lift a block", block_insns, &mut || {
        starts.iter().for_each(|pc| drop(black_box(lift_block(&reader, *pc, &options))))
    });
    row("lift a region", insns, &mut || {
        starts.iter().for_each(|pc| drop(black_box(lift_region(&reader, *pc, &EveryBlock, &options))));
    });
    row("optimise a region (and copy it)", insns, &mut || {
        regions.iter().cloned().for_each(|mut r| pass::optimize(&mut r))
    });
    row("compile a region", insns, &mut || {
        optimised.iter().for_each(|r| drop(black_box(compiler.compile(r, &CompileOptions::default()))));
    });
    #[cfg(target_arch = "x86_64")]
    copied(text, runs);
}

/// The machine code of a guest.
struct Text {
    entry: GuestAddr,
    start: GuestAddr,
    bytes: Vec<u8>,
}

impl Text {
    fn of(program: &str) -> Option<Text> {
        let mut file = std::fs::read(program).ok()?;
        let plan = LoadPlan::parse(&file).ok()?;
        let code = plan.segments.iter().find(|s| s.prot.exec)?;
        let bytes = file.drain(code.offset as usize..(code.offset + code.filesz) as usize).collect();
        Some(Text { entry: plan.entry, start: code.vaddr, bytes })
    }

    fn reader(&self) -> Bytes<'_> {
        Bytes { pc: self.start, bytes: &self.bytes }
    }

    fn contains(&self, pc: u64) -> bool {
        (self.start.0..self.start.0 + self.bytes.len() as u64).contains(&pc)
    }

    fn insns(&self) -> impl Iterator<Item = Instruction> {
        Decoder::with_ip(64, &self.bytes, self.start.0, DecoderOptions::NONE).into_iter()
    }

    /// Starts of regions: the entry, and whatever the code calls directly.
    fn functions(&self) -> Vec<GuestAddr> {
        let called = self.insns().filter(Instruction::is_call_near).map(|insn| insn.near_branch_target());
        let called = called.filter(|&pc| self.contains(pc)).map(GuestAddr);
        sorted(std::iter::once(self.entry).chain(called).collect())
    }

    /// Where direct branches and calls lead, and what is behind them.
    #[cfg(target_arch = "x86_64")]
    fn branch_targets(&self) -> Vec<GuestAddr> {
        let branches = self.insns().filter(|insn| insn.op0_kind() == OpKind::NearBranch64);
        let targets = branches.flat_map(|insn| [insn.near_branch_target(), insn.next_ip()]);
        sorted(targets.filter(|&pc| self.contains(pc)).map(GuestAddr).collect())
    }
}

fn sorted(mut pcs: Vec<GuestAddr>) -> Vec<GuestAddr> {
    pcs.sort_unstable();
    pcs.dedup();
    pcs
}

/// What identical translation costs: a static program, all of it.
#[cfg(target_arch = "x86_64")]
fn copied(text: &mut String, runs: u32) {
    let Ok(guest) = programs::guest("hello-static", "hello.c", &["-O2", "-static"]) else { return };
    let Some(code) = Text::of(&guest[0]) else { return };
    let targets = code.branch_targets();
    let mut read = |pc: u64, buffer: &mut [u8]| {
        let rest = code.bytes.get((pc - code.start.0) as usize..).unwrap_or_default();
        let len = rest.len().min(buffer.len());
        buffer[..len].copy_from_slice(&rest[..len]);
        len
    };
    let (mut best, mut insns) = (f64::INFINITY, 0);
    for _ in 0..runs {
        let Ok(blocks) = Blocks::new(256 << 20, Sum::of_host()) else { return };
        insns = 0;
        best = best.min(time(&mut || {
            for pc in &targets {
                let source = Source::Noticed { code: &mut read, word: &|_| None };
                if blocks.find(pc.0).is_none()
                    && let Ok(Some(made)) = blocks.translate(pc.0, None, source, &mut || true)
                {
                    insns += made.insns;
                }
            }
        }));
    }
    let _ = writeln!(text, "| copy a unit (of {insns} instructions) | {:.0} |", best * 1e9 / f64::from(insns.max(1)));
}

fn time(work: &mut dyn FnMut()) -> f64 {
    let start = Instant::now();
    work();
    start.elapsed().as_secs_f64()
}
