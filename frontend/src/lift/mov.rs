//! Data movement: MOV and its extending forms, LEA, stack, conditional moves.

use super::flags::Cond;
use super::operand::Gpr;
use super::operand::gpr::*;
use super::{Insn, Lifter};
use calque_ir::{FaultKind, Mem, Op, Type};
use iced_x86::{Code, OpKind, Register};

/// How MOVZX and MOVSX fill the upper bits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Extend {
    Zero,
    Sign,
}

pub(super) fn mov(l: &mut Lifter<'_>, i: &Insn) {
    let privileged = |r: Register| r.is_cr() || r.is_dr();
    if privileged(i.op0_register()) || privileged(i.op1_register()) {
        return l.fault(FaultKind::GeneralProtection);
    }
    let to_segment = i.op_kind(0) == OpKind::Register && Gpr::from_iced(i.op_register(0)).is_none();
    if to_segment {
        return super::selectors::load_segment(l, i);
    }
    let ty = l.op_type(i, 0);
    let v = match super::check::constant_read(i, l.opts) {
        Some(at) => {
            let at = l.b.iconst(Type::I64, at.0);
            l.b.load(ty, Mem::base(at))
        }
        None => l.read_as(i, 1, ty),
    };
    l.write(i, 0, v);
}

pub(super) fn extend(l: &mut Lifter<'_>, i: &Insn, how: Extend) {
    let v = l.read(i, 1);
    let (from, to) = (l.op_type(i, 1), l.op_type(i, 0));
    let op = if how == Extend::Zero { Op::Uextend } else { Op::Sextend };
    let v = match (from == to, how, to) {
        (true, ..) => v,
        // Zero extension to 64 bits is what writing 32 bits does.
        (_, Extend::Zero, Type::I64) => {
            let Some(Gpr::R64(n)) = Gpr::from_iced(i.op_register(0)) else { unreachable!("MOVZX writes a register") };
            let low = if from == Type::I32 { v } else { l.b.unary(op, Type::I32, v) };
            return l.write_gpr(Gpr::R32(n), low);
        }
        _ => l.b.unary(op, to, v),
    };
    l.write(i, 0, v);
}

pub(super) fn lea(l: &mut Lifter<'_>, i: &Insn) {
    let m = l.effective_addr(i);
    let v = l.addr_value(m);
    let ty = l.op_type(i, 0);
    let v = if ty == Type::I64 { v } else { l.b.unary(Op::Ireduce, ty, v) };
    l.write(i, 0, v);
}

pub(super) fn push(l: &mut Lifter<'_>, i: &Insn) {
    let ty = if i.stack_pointer_increment() == -2 { Type::I16 } else { Type::I64 };
    let v = l.read_as(i, 0, ty);
    push_value(l, ty, v);
}

/// Pushes a value; the store comes before RSP changes, so that a fault finds the old one.
pub(super) fn push_value(l: &mut Lifter<'_>, ty: Type, v: calque_ir::Value) {
    let rsp = l.gpr64(RSP);
    let new = l.add_imm(rsp, -i64::from(ty.bytes()));
    l.b.store(ty, Mem::base(new), v);
    l.write_gpr(Gpr::R64(RSP), new);
}

pub(super) fn pop(l: &mut Lifter<'_>, i: &Insn) {
    let ty = if i.stack_pointer_increment() == 2 { Type::I16 } else { Type::I64 };
    let rsp = l.gpr64(RSP);
    let v = l.b.load(ty, Mem::base(rsp));
    let new = l.add_imm(rsp, i64::from(ty.bytes()));
    if i.op_kind(0) == OpKind::Register {
        let general = Gpr::from_iced(i.op_register(0)).is_some();
        if !general {
            super::selectors::pop_segment(l, i, v);
        }
        l.write_gpr(Gpr::R64(RSP), new);
        if general {
            l.write(i, 0, v);
        }
        return;
    }
    // An address relative to RSP is computed with the incremented one (SDM vol. 2 POP).
    let old = l.replace_gpr64(RSP, new);
    let m = l.addr(i);
    l.replace_gpr64(RSP, old);
    l.b.store(ty, m, v);
    l.write_gpr(Gpr::R64(RSP), new);
}

/// CMOVcc: the source is read (and may fault) and a 32-bit destination is zero-extended whatever the condition.
pub(super) fn cmov(l: &mut Lifter<'_>, i: &Insn, cond: Cond) {
    let ty = l.op_type(i, 0);
    let new = l.read(i, 1);
    let old = l.read(i, 0);
    let c = l.cond(cond);
    let v = l.b.select(ty, c, new, old);
    l.write(i, 0, v);
}

/// LEAVE: RSP = RBP, then POP RBP.
pub(super) fn leave(l: &mut Lifter<'_>, i: &Insn) {
    let ty = if i.code() == Code::Leavew { Type::I16 } else { Type::I64 };
    let rbp = l.gpr64(RBP);
    let v = l.b.load(ty, Mem::base(rbp));
    let new = l.add_imm(rbp, i64::from(ty.bytes()));
    l.write_gpr(Gpr::R64(RSP), new);
    l.write_gpr(Gpr::of(RBP, ty), v);
}

/// ENTER: a frame of op 0 bytes, with op 1 (mod 32) frame pointers of the enclosing procedures (SDM vol. 2 ENTER).
pub(super) fn enter(l: &mut Lifter<'_>, i: &Insn) {
    let ty = if i.code() == Code::Enterw_imm16_imm8 { Type::I16 } else { Type::I64 };
    let item = i64::from(ty.bytes());
    let (size, level) = (i64::from(i.immediate16()), i64::from(i.immediate8_2nd() % 32));
    let (rsp, rbp) = (l.gpr64(RSP), l.gpr64(RBP));
    let at = |base, disp: i64| Mem { disp: disp as i32, ..Mem::base(base) };
    let old = l.read_gpr(Gpr::of(RBP, ty));
    l.b.store(ty, at(rsp, -item), old);
    let frame = l.add_imm(rsp, -item);
    for n in 1..level {
        let outer = l.b.load(ty, at(rbp, -item * n));
        l.b.store(ty, at(frame, -item * n), outer);
    }
    let pointer = if ty == Type::I64 { frame } else { l.b.unary(Op::Ireduce, ty, frame) };
    if level > 0 {
        l.b.store(ty, at(frame, -item * level), pointer);
    }
    let new = l.add_imm(frame, -item * level - size);
    l.write_gpr(Gpr::R64(RSP), new);
    l.write_gpr(Gpr::of(RBP, ty), pointer);
}
