//! Control transfer: jumps, calls, returns, conditions as values, traps, system calls.

use super::flags::{Cond, FlagSet};
use super::mov::push_value;
use super::operand::Gpr;
use super::operand::gpr::*;
use super::selectors::{far_call, far_jump, is_far};
use super::{Insn, Lifter};
use calque_ir::{Cc, Exit, FaultKind, GuestAddr, Helper, Mem, Op, Target, Type};
use iced_x86::{Code, OpKind};

fn direct(i: &Insn) -> Option<Target> {
    (i.op0_kind() == OpKind::NearBranch64).then(|| Target::Pc(GuestAddr(i.near_branch_target())))
}

pub(super) fn jmp(l: &mut Lifter<'_>, i: &Insn) {
    if is_far(i) {
        return far_jump(l, i);
    }
    let exit = match direct(i) {
        Some(target) => {
            jump_away(l, target);
            Exit::Goto(target)
        }
        None => {
            let target = l.read(i, 0);
            if l.opts.profile {
                let sp = l.gpr64(RSP);
                l.event(Helper::ProfileJump, target, sp);
            }
            Exit::Indirect(target)
        }
    };
    l.close(exit);
}

/// For profiles: a direct jump out of the function is a tail call.
fn jump_away(l: &mut Lifter<'_>, target: Target) {
    if let Target::Pc(pc) = target
        && l.leaves_function(pc)
    {
        l.jump_event(pc);
    }
}

pub(super) fn jcc(l: &mut Lifter<'_>, i: &Insn, cond: Cond) {
    let cond = l.cond(cond);
    branch(l, i, cond);
}

/// Ends the block with a branch to the operand if `cond` holds.
fn branch(l: &mut Lifter<'_>, i: &Insn, cond: calque_ir::Value) {
    let taken = GuestAddr(i.near_branch_target());
    if l.leaves_function(taken) {
        return branch_away(l, cond, taken);
    }
    l.close(Exit::Branch { cond, taken: Target::Pc(taken), fallthrough: Target::Pc(l.next) });
}

/// For profiles: a branch out of the function, which a block of its own tells of. All flags are put before.
fn branch_away(l: &mut Lifter<'_>, cond: calque_ir::Value, taken: GuestAddr) {
    l.complete();
    l.flush_flags(FlagSet::ALL);
    let (away, stay) = (l.b.create_block(taken), l.b.create_block(l.next));
    l.close(Exit::Branch { cond, taken: Target::Block(away), fallthrough: Target::Block(stay) });
    for (block, target, leaves) in [(away, taken, true), (stay, l.next, false)] {
        l.open(block);
        if leaves {
            l.jump_event(target);
        }
        l.close(Exit::Goto(Target::Pc(target)));
    }
}

pub(super) fn setcc(l: &mut Lifter<'_>, i: &Insn, cond: Cond) {
    let c = l.cond(cond);
    let v = l.b.unary(Op::Uextend, Type::I8, c);
    l.write(i, 0, v);
}

pub(super) fn call(l: &mut Lifter<'_>, i: &Insn) {
    if is_far(i) {
        return far_call(l, i);
    }
    let ret = l.next;
    let target = match direct(i) {
        Some(_) => None,
        None => Some(l.read(i, 0)),
    };
    let pushed = l.pc_const(ret);
    push_value(l, Type::I64, pushed);
    if l.opts.profile {
        let to = match (direct(i), target) {
            (Some(Target::Pc(pc)), _) => l.b.iconst(Type::I64, pc.0),
            (_, Some(target)) => target,
            _ => unreachable!("an operand is direct or read"),
        };
        let sp = l.gpr64(RSP);
        l.event(Helper::ProfileCall, to, sp);
    }
    l.close(match (direct(i), target) {
        (Some(target), _) => Exit::Call { target, ret },
        (None, Some(target)) => Exit::CallIndirect { target, ret },
        (None, None) => unreachable!("an operand is direct or read"),
    });
}

pub(super) fn ret(l: &mut Lifter<'_>, i: &Insn) {
    let rsp = l.gpr64(RSP);
    let target = l.b.load(Type::I64, Mem::base(rsp));
    let extra = if i.op_count() == 0 { 0 } else { i64::from(i.immediate16()) };
    let new = l.add_imm(rsp, 8 + extra);
    l.write_gpr(Gpr::R64(RSP), new);
    l.event(Helper::ProfileReturn, target, rsp);
    l.close(Exit::Return(target));
}

/// LOOP, LOOPE, LOOPNE: counts rCX down and branches while it isn't 0 (and ZF is as `also` says).
pub(super) fn loop_(l: &mut Lifter<'_>, i: &Insn, also: Option<Cond>) {
    let counter = Gpr::of(RCX, counter_type(i));
    let ty = counter.ty();
    let (old, one) = (l.read_gpr(counter), l.b.iconst(ty, 1));
    let new = l.b.binary(Op::Isub, ty, old, one);
    let mut cond = l.compare_zero(Cc::NotEqual, ty, new);
    if let Some(also) = also {
        let zf = l.cond(also);
        cond = l.b.binary(Op::Band, Type::I1, cond, zf);
    }
    l.write_gpr(counter, new);
    branch(l, i, cond);
}

/// JRCXZ, JECXZ.
pub(super) fn jrcxz(l: &mut Lifter<'_>, i: &Insn, ty: Type) {
    let counter = l.read_gpr(Gpr::of(RCX, ty));
    let cond = l.compare_zero(Cc::Equal, ty, counter);
    branch(l, i, cond);
}

/// ECX with a 0x67 prefix, else RCX.
fn counter_type(i: &Insn) -> Type {
    match i.code() {
        Code::Loop_rel8_64_ECX | Code::Loope_rel8_64_ECX | Code::Loopne_rel8_64_ECX => Type::I32,
        _ => Type::I64,
    }
}

/// SYSCALL: R11 takes RFLAGS, so all flags are stored.
pub(super) fn syscall(l: &mut Lifter<'_>, _: &Insn) {
    l.flush_flags(FlagSet::ALL);
    l.close(Exit::Syscall { next: l.next });
}

pub(super) fn trap(l: &mut Lifter<'_>, _: &Insn, kind: FaultKind) {
    l.fault(kind);
}

pub(super) fn nop(_: &mut Lifter<'_>, _: &Insn) {}
