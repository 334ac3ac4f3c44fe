//! Control transfer: jumps, calls, returns, conditions as values, traps, system calls.

use super::flags::{Cond, FlagSet};
use super::mov::push_value;
use super::operand::Gpr;
use super::operand::gpr::*;
use super::{Insn, Lifter};
use calque_ir::{Exit, FaultKind, GuestAddr, Mem, Op, Target, Type};
use iced_x86::OpKind;

fn direct(i: &Insn) -> Option<Target> {
    (i.op0_kind() == OpKind::NearBranch64).then(|| Target::Pc(GuestAddr(i.near_branch_target())))
}

pub(super) fn jmp(l: &mut Lifter<'_>, i: &Insn) {
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

/// SYSCALL: R11 takes RFLAGS, so all flags are stored.
pub(super) fn syscall(l: &mut Lifter<'_>, _: &Insn) {
    l.flush_flags(FlagSet::ALL);
    l.close(Exit::Syscall { next: l.next });
}

pub(super) fn trap(l: &mut Lifter<'_>, _: &Insn, kind: FaultKind) {
    l.fault(kind);
}

pub(super) fn nop(_: &mut Lifter<'_>, _: &Insn) {}
