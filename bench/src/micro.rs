//! Single mechanisms: what a guest pays for each under each runner (`guests/micro.c`), and what lifting and compiling cost.

use crate::measure;
use crate::programs;
use crate::runner::Runner;
use calque_backend::{CompileOptions, Compiler, HostIsa};
use calque_frontend::decode::Bytes;
use calque_frontend::elf::LoadPlan;
use calque_frontend::lift::{EveryBlock, LiftOptions, lift_block, lift_region};
use calque_ir::{GuestAddr, Region, pass};
use std::fmt::Write;
use std::hint::black_box;
use std::path::Path;
use std::time::Instant;

/// What `micro` calls it, what it is. The nanobenchmarks of Adams and Agesen first.
#[rustfmt::skip]
const GUEST: [(&str, &str); 16] = [
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
];

/// All single mechanisms, in Markdown; the best of `runs` counts.
pub(crate) fn report(runners: &[Runner], runs: u32) -> String {
    let mut text = String::from("\n## Single mechanisms, nanoseconds each\n\n");
    guest_side(&mut text, runners, runs);
    translator_side(&mut text, runs);
    text
}

fn guest_side(text: &mut String, runners: &[Runner], runs: u32) {
    let Ok(guest) = programs::guest("micro", "micro.c", &["-O2"]) else { return };
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

/// Costs by guest instruction of lifting, optimising and compiling the code of a guest of `bench/guests`.
fn translator_side(text: &mut String, runs: u32) {
    let Ok(guest) = programs::guest("objects", "objects.cc", &["-O2"]) else { return };
    let Ok(file) = std::fs::read(&guest[0]) else { return };
    let Ok(plan) = LoadPlan::parse(&file) else { return };
    let Some(code) = plan.segments.iter().find(|s| s.prot.exec) else { return };
    let bytes = &file[code.offset as usize..(code.offset + code.filesz) as usize];
    let reader = Bytes { pc: code.vaddr, bytes };
    let options = LiftOptions::default();
    let starts: Vec<GuestAddr> = blocks(&reader, plan.entry, code.vaddr, bytes.len());
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
}

/// Starts of regions: the entry, and whatever the code calls directly.
fn blocks(reader: &Bytes<'_>, entry: GuestAddr, start: GuestAddr, len: usize) -> Vec<GuestAddr> {
    let mut decoder = iced_x86::Decoder::with_ip(64, reader.bytes, start.0, iced_x86::DecoderOptions::NONE);
    let mut targets = vec![entry];
    while decoder.can_decode() {
        let insn = decoder.decode();
        let target = insn.near_branch_target();
        if insn.is_call_near() && (start.0..start.0 + len as u64).contains(&target) {
            targets.push(GuestAddr(target));
        }
    }
    targets.sort_unstable();
    targets.dedup();
    targets
}

fn time(work: &mut dyn FnMut()) -> f64 {
    let start = Instant::now();
    work();
    start.elapsed().as_secs_f64()
}
