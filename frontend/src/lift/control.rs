//! Control transfer: jumps, calls, returns, conditions as values, traps, system calls.

use super::flags::{Cond, FlagSet};
use super::mov::push_value;
use super::operand::Gpr;
use super::operand::gpr::*;
use super::{Insn, Lifter};
use calque_ir::{Cc, Exit, FaultKind, GuestAddr, Mem, Op, Target, Type};
use iced_x86::{Code, MemorySize, OpKind};

fn direct(i: &Insn) -> Option<Target> {
    (i.op0_kind() == OpKind::NearBranch64).then(|| Target::Pc(GuestAddr(i.near_branch_target())))
}

/// Far transfers through memory: Linux has no segments that a 64-bit program could go to but its own.
fn is_far(i: &Insn) -> bool {
    matches!(i.memory_size(), MemorySize::SegPtr16 | MemorySize::SegPtr32 | MemorySize::SegPtr64)
}

pub(super) fn jmp(l: &mut Lifter<'_>, i: &Insn) {
    if is_far(i) {
        return l.fault(FaultKind::Unimplemented);
    }
    let exit = match direct(i) {
        Some(target) => Exit::Goto(target),
        None => Exit::Indirect(l.read(i, 0)),
    };
    l.close(exit);
}

pub(super) fn jcc(l: &mut Lifter<'_>, i: &Insn, cond: Cond) {
    let cond = l.cond(cond);
    branch(l, i, cond);
}

/// Ends the block with a branch to the operand if `cond` holds.
fn branch(l: &mut Lifter<'_>, i: &Insn, cond: calque_ir::Value) {
    let taken = Target::Pc(GuestAddr(i.near_branch_target()));
    l.close(Exit::Branch { cond, taken, fallthrough: Target::Pc(l.next) });
}

pub(super) fn setcc(l: &mut Lifter<'_>, i: &Insn, cond: Cond) {
    let c = l.cond(cond);
    let v = l.b.unary(Op::Uextend, Type::I8, c);
    l.write(i, 0, v);
}

pub(super) fn call(l: &mut Lifter<'_>, i: &Insn) {
    if is_far(i) {
        return l.fault(FaultKind::Unimplemented);
    }
    let ret = l.next;
    let target = match direct(i) {
        Some(_) => None,
        None => Some(l.read(i, 0)),
    };
    let pushed = l.pc_const(ret);
    push_value(l, Type::I64, pushed);
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
