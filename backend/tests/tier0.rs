//! Tier 0 on AArch64 beside Cranelift's code: links within and between the two kinds, jump caches, the countdown.
#![cfg(target_arch = "aarch64")]
#![allow(unsafe_code)]

mod common;

use calque_backend::{CodeKind, Emitter, ExitReason, FlagsAtEntry, HostIsa, Translation, abi};
use calque_ir::deferred::{Setter, kind_of};
use calque_ir::{Builder, Exit, GuestAddr, Op, Reg, Region, Target, Type};
use common::{Random, Runner};
use std::sync::Arc;

/// rax += 1 and xmm3 += rax, then what `exit` says.
fn step(pc: u64, exit: impl FnOnce(&mut Builder) -> Exit) -> Region {
    let mut b = Builder::new();
    let id = b.create_block(GuestAddr(pc));
    b.switch_to(id);
    b.insn(GuestAddr(pc), 4);
    let (old, one) = (b.get(Type::I64, Reg::RAX), b.iconst(Type::I64, 1));
    let new = b.binary(Op::Iadd, Type::I64, old, one);
    b.put(Reg::RAX, new);
    let lanes = b.unary(Op::Splat, Type::I64x2, new);
    let before = b.get(Type::V128, Reg::xmm(3));
    let sum = b.binary(Op::Iadd, Type::I64x2, before, lanes);
    b.put(Reg::xmm(3), sum);
    let r12 = b.get(Type::I64, Reg::R12);
    let r12 = b.binary(Op::Iadd, Type::I64, r12, new);
    b.put(Reg::R12, r12);
    let exit = exit(&mut b);
    b.exit(exit);
    let mut region = b.finish();
    region.source = [(GuestAddr(pc), 4)].into();
    region
}

fn to(pc: u64) -> Exit {
    Exit::Goto(Target::Pc(GuestAddr(pc)))
}

/// The same region as tier-0 or Cranelift's code.
fn make(runner: &mut Runner, kind: CodeKind, region: &Region) -> Arc<Translation> {
    runner.emitter = (kind == CodeKind::Tier0).then(|| Emitter::new(HostIsa::native()));
    runner.translate(region).unwrap_or_else(|e| panic!("{e}"))
}

#[test]
fn both_kinds_of_code_are_linked() {
    for kinds in 0..16 {
        let kind = |n: u64| if kinds >> n & 1 != 0 { CodeKind::Tier0 } else { CodeKind::Tail };
        let mut runner = Runner::new();
        let mut cpu = runner.state(&mut Random::new(1));
        (cpu.gpr[0], cpu.gpr[12], cpu.xmm[3]) = (0, 0, [0, 0]);
        let (before, xmm15) = (cpu.gpr, cpu.xmm[15]);
        let code: Vec<_> =
            (0..4).map(|n| make(&mut runner, kind(n), &step(0x1000 + 16 * n, |_| to(0x1010 + 16 * n)))).collect();
        for n in 0..3 {
            runner.cache.link(code[n].cells.start, &code[n + 1]);
        }
        let ExitReason::Link { cell } = runner.run(&mut cpu, &code[0]) else { panic!("the last exit is not linked") };
        assert_eq!(runner.cache.cell_target(cell), GuestAddr(0x1040));
        assert_eq!((cpu.gpr[0], cpu.gpr[12], cpu.xmm[3]), (4, 10, [10, 10]), "{kinds:b}");
        assert_eq!((&cpu.gpr[1..12], &cpu.gpr[13..], cpu.xmm[15]), (&before[1..12], &before[13..], xmm15));
        assert_eq!(abi::left_from(&cpu), kind(3));

        runner.cache.remove(&code[2]);
        let ExitReason::Link { cell } = runner.run(&mut cpu, &code[0]) else {
            panic!("nothing leads to what was removed")
        };
        assert_eq!((runner.cache.cell_target(cell), cpu.gpr[0]), (GuestAddr(0x1020), 6));
        runner.cache.link(cell, &code[2]);
        assert_eq!(runner.run(&mut cpu, &code[0]), ExitReason::Link { cell }, "removed");
    }
}

#[test]
fn computed_jumps_use_the_jump_cache() {
    for kind in [CodeKind::Tail, CodeKind::Tier0] {
        let mut runner = Runner::new();
        let mut cpu = runner.state(&mut Random::new(1));
        (cpu.gpr[0], cpu.gpr[2]) = (0, 0x0001_2345_5010);
        let jump = make(&mut runner, CodeKind::Tier0, &step(0x5000, |b| Exit::Indirect(b.get(Type::I64, Reg::RDX))));
        let target = make(&mut runner, kind, &step(0x0001_2345_5010, |_| to(0x5020)));
        assert_eq!(runner.run(&mut cpu, &jump), ExitReason::Indirect);
        assert_eq!((cpu.rip, cpu.gpr[0]), (0x0001_2345_5010, 1));
        let entry = runner.cache.entry_from(&target, CodeKind::Tier0).expect("room");
        runner.tier0_jumps().insert(GuestAddr(0x0001_2345_5010), entry, FlagsAtEntry::Dead);
        assert_eq!(runner.run(&mut cpu, &jump), ExitReason::Link { cell: target.cells.start });
        assert_eq!(cpu.gpr[0], 3);
    }
}

/// Defers the flags of 5 - 5 and jumps to RDX.
fn deferring(pc: u64) -> Region {
    let mut b = Builder::new();
    let id = b.create_block(GuestAddr(pc));
    b.switch_to(id);
    b.insn(GuestAddr(pc), 4);
    let target = b.get(Type::I64, Reg::RDX);
    let kind = b.iconst(Type::I32, u64::from(kind_of(Setter::Sub, Type::I32)));
    b.put(Reg::FLAGS_KIND, kind);
    let five = b.iconst(Type::I64, 5);
    b.put(Reg::FLAGS_A, five);
    b.put(Reg::FLAGS_B, five);
    b.exit(Exit::Indirect(target));
    b.finish()
}

/// RBX = ZF.
fn asking(pc: u64) -> Region {
    let mut b = Builder::new();
    let id = b.create_block(GuestAddr(pc));
    b.switch_to(id);
    b.insn(GuestAddr(pc), 4);
    let zf = b.get(Type::I1, Reg::ZF);
    let wide = b.unary(Op::Uextend, Type::I64, zf);
    b.put(Reg::RBX, wide);
    b.exit(to(pc + 4));
    b.finish()
}

#[test]
fn deferred_flags_are_settled_for_whoever_wants_them() {
    for (precise_everywhere, flags, expected) in [
        (false, FlagsAtEntry::Wanted, 1),
        (false, FlagsAtEntry::Dead, 0),
        (true, FlagsAtEntry::Wanted, 1),
        (true, FlagsAtEntry::Dead, 0),
    ] {
        let mut runner = Runner::new();
        runner.precise_everywhere = precise_everywhere;
        let mut cpu = runner.state(&mut Random::new(1));
        (cpu.gpr[2], cpu.flags) = (0x5020, [0; 8]);
        let before = (cpu.gpr, cpu.xmm);
        let jump = make(&mut runner, CodeKind::Tier0, &deferring(0x5000));
        let target = make(&mut runner, CodeKind::Tier0, &asking(0x5020));
        runner.tier0_jumps().insert(GuestAddr(0x5020), target.code, flags);
        assert_eq!(runner.run(&mut cpu, &jump), ExitReason::Link { cell: target.cells.start });
        assert_eq!(cpu.gpr[3], expected, "{flags:?}");
        let are_kept = precise_everywhere || flags == FlagsAtEntry::Wanted;
        assert_eq!(cpu.flags[3], u8::from(are_kept), "settled at the latest when code is left, unless dead");
        assert_eq!((&cpu.gpr[..3], &cpu.gpr[4..], cpu.xmm), (&before.0[..3], &before.0[4..], before.1));
        // Nobody knows the target: the dispatcher is asked.
        cpu.gpr[2] = 0x6000;
        assert_eq!((runner.run(&mut cpu, &jump), cpu.rip), (ExitReason::Indirect, 0x6000));
        // Nor does a known one matter once the countdown has ended.
        (cpu.gpr[2], cpu.rt.countdown) = (0x5020, 0);
        assert_eq!((runner.run(&mut cpu, &jump), cpu.rip), (ExitReason::Indirect, 0x5020));
    }
}

#[test]
fn what_has_been_pushed_out_of_the_first_level_is_found_in_the_second() {
    let mut runner = Runner::new();
    let mut cpu = runner.state(&mut Random::new(1));
    cpu.flags = [0; 8];
    let before = (cpu.gpr, cpu.xmm);
    let jump = make(&mut runner, CodeKind::Tier0, &deferring(0x5000));
    let pcs = common::SAME_SLOT;
    let to = pcs.map(|pc| make(&mut runner, CodeKind::Tier0, &asking(pc)));
    // Those that want flags see that 5 - 5 is zero; the others what there was.
    let wants = [FlagsAtEntry::Wanted, FlagsAtEntry::Dead, FlagsAtEntry::Wanted];
    for n in (0..pcs.len()).cycle().take(3000) {
        runner.tier0_jumps().insert(GuestAddr(pcs[n]), to[n].code, wants[n]);
    }
    let mut arrive = |n: usize| {
        (cpu.gpr[2], cpu.gpr[3], cpu.flags) = (pcs[n], 9, [0; 8]);
        let reason = runner.run(&mut cpu, &jump);
        assert_eq!((&cpu.gpr[..2], &cpu.gpr[4..], cpu.xmm), (&before.0[..2], &before.0[4..], before.1));
        (reason, cpu.gpr[3])
    };
    let found = |n: usize| (ExitReason::Link { cell: to[n].cells.start }, u64::from(wants[n] == FlagsAtEntry::Wanted));
    for n in [0, 1, 2, 2, 1, 0, 0, 2, 0, 1] {
        assert_eq!(arrive(n), found(n), "{n}");
    }
    for removed in 0..pcs.len() {
        runner.tier0_jumps().remove(GuestAddr(pcs[removed]));
        assert_eq!(arrive(removed), (ExitReason::Indirect, 9));
        for other in removed + 1..pcs.len() {
            assert_eq!(arrive(other), found(other));
        }
    }
}

#[test]
fn arrivals_from_compiled_code_are_counted() {
    let mut runner = Runner::new();
    let mut cpu = runner.state(&mut Random::new(1));
    cpu.gpr[0] = 0;
    let from = make(&mut runner, CodeKind::Tail, &step(0x1000, |_| to(0x1010)));
    let target = make(&mut runner, CodeKind::Tier0, &step(0x1010, |_| to(0x1020)));
    runner.cache.link(from.cells.start, &target);
    cpu.rt.countdown = 1;
    assert_eq!(runner.run(&mut cpu, &from), ExitReason::Link { cell: target.cells.start });
    assert_eq!((cpu.rt.countdown, cpu.gpr[0]), (0, 2));
    assert_eq!(runner.run(&mut cpu, &from), ExitReason::Arrived(target.code));
    assert_eq!((cpu.rt.countdown, cpu.gpr[0]), (-1, 3), "the target has not run");
}

#[test]
fn endless_loops_end_with_the_countdown() {
    let mut runner = Runner::new();
    let mut cpu = runner.state(&mut Random::new(1));
    cpu.gpr[0] = 0;
    let body = make(&mut runner, CodeKind::Tier0, &step(0x1000, |_| to(0x1000)));
    runner.cache.link(body.cells.start, &body);
    cpu.rt.countdown = 99;
    assert_eq!(runner.run(&mut cpu, &body), ExitReason::Link { cell: body.cells.start });
    assert_eq!((cpu.gpr[0], cpu.rt.countdown), (100, -1));
}
