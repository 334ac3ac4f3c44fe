//! `translate PROGRAM ROUNDS`: lifts and emits each guest block of a static program that direct control flow reaches, so many times.
//!
//! What that costs is counted by callgrind, which no noise touches: `cargo xtask count` divides what a second round adds by
//! the number of guest instructions, which this prints. The emitter makes AArch64 code on every host.

use calque_backend::{EmitOptions, Emitter, HostIsa};
use calque_frontend::CodeReader;
use calque_frontend::decode::{Bytes, MAX_INSN};
use calque_frontend::elf::LoadPlan;
use calque_frontend::lift::{FlagMemo, LiftOptions, Lifted, lift_block};
use calque_ir::{Exit, GuestAddr, Region, Target};
use std::collections::HashSet;
use std::hint::black_box;
use std::process::ExitCode;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().collect();
    let [_, program, rounds] = &words[..] else {
        eprintln!("translate PROGRAM ROUNDS");
        return ExitCode::FAILURE;
    };
    match rounds.parse().map_err(|e| format!("{rounds}: {e}")).and_then(|rounds| translate(program, rounds)) {
        Ok(insns) => {
            println!("{insns}");
            ExitCode::SUCCESS
        }
        Err(why) => {
            eprintln!("translate: {why}");
            ExitCode::FAILURE
        }
    }
}

/// Code of which is remembered what look-aheads find, as in the runtime.
struct Remembered<'a> {
    code: Bytes<'a>,
    flags: FlagMemo,
}

impl CodeReader for Remembered<'_> {
    fn read(&self, pc: GuestAddr, buf: &mut [u8; MAX_INSN]) -> usize {
        self.code.read(pc, buf)
    }

    fn memo(&self) -> Option<&FlagMemo> {
        Some(&self.flags)
    }

    fn read_run(&self, pc: GuestAddr, buf: &mut [u8]) -> usize {
        self.code.read_run(pc, buf)
    }
}

/// Translates the program's blocks `rounds` times; the number of guest instructions in them.
fn translate(program: &str, rounds: u32) -> Result<u64, String> {
    let file = std::fs::read(program).map_err(|e| format!("{program}: {e}"))?;
    let plan = LoadPlan::parse(&file).map_err(|e| format!("{program}: {e}"))?;
    let text = plan.segments.iter().find(|s| s.prot.exec).ok_or("no executable segment")?;
    let bytes = &file[text.offset as usize..(text.offset + text.filesz) as usize];
    let code = Bytes { pc: text.vaddr, bytes };
    // As the runtime lifts what it emits.
    let options = LiftOptions { defers: true, ..LiftOptions::default() };
    let mut emitter = Emitter::new(HostIsa::parse("aarch64").ok_or("no such host")?);
    let (mut pcs, mut insns) = (reached(&code, plan.entry, &options), 0);
    // What it refuses is interpreted.
    pcs.retain(|&pc| {
        let region = lift_block(&code, pc, &options);
        let emitted = emitter.emit(&region, &EmitOptions::default()).is_ok();
        insns += if emitted { u64::from(region.guest_insns) } else { 0 };
        emitted
    });
    let (mut lifted, code) = (Lifted::default(), Remembered { code, flags: FlagMemo::default() });
    for _ in 0..rounds {
        code.flags.clear();
        for &pc in &pcs {
            lifted.block(&code, pc, &options);
            let _ = black_box(emitter.emit(lifted.region(), &EmitOptions::default()));
        }
    }
    Ok(insns)
}

/// Starts of the blocks that are reached from `entry` over direct jumps, calls and their return addresses.
fn reached(code: &Bytes<'_>, entry: GuestAddr, options: &LiftOptions) -> Vec<GuestAddr> {
    let (mut seen, mut pcs) = (HashSet::from([entry]), vec![entry]);
    let mut next = 0;
    while let Some(&pc) = pcs.get(next) {
        next += 1;
        let region = lift_block(code, pc, options);
        pcs.extend(successors(&region).filter(|&pc| seen.insert(pc)));
    }
    pcs
}

fn successors(region: &Region) -> impl Iterator<Item = GuestAddr> {
    let returns = |exit: &Exit| match *exit {
        Exit::Call { ret, .. } | Exit::CallIndirect { ret, .. } => Some(ret),
        Exit::Syscall { next } => Some(next),
        _ => None,
    };
    let exits = region.blocks.iter().map(|block| &block.exit);
    exits.flat_map(move |exit| {
        let direct = exit.targets().filter_map(|target| match target {
            Target::Pc(pc) => Some(pc),
            Target::Block(_) => None,
        });
        direct.chain(returns(exit))
    })
}
