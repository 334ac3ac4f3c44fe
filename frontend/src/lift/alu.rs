//! Binary and unary arithmetic and logic.

use super::atomic::{locked_carrying, locked_neg};
use super::flags::{Flag, FlagSet, Recipe};
use super::operand::Atomic;
use super::{Insn, Lifter};
use calque_ir::{Op, RmwOp, Type, Value};

/// Two-operand operations.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum BinaryOp {
    Add,
    Sub,
    And,
    Or,
    Xor,
}

/// Whether the result is written or only sets flags.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Dest {
    Writeback,
    FlagsOnly,
}

/// Operations with carry in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Carry {
    Adc,
    Sbb,
}

/// One-operand operations.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum UnaryOp {
    Inc,
    Dec,
    Neg,
    Not,
}

impl BinaryOp {
    fn ir(self) -> (Op, RmwOp) {
        match self {
            BinaryOp::Add => (Op::Iadd, RmwOp::Add),
            BinaryOp::Sub => (Op::Isub, RmwOp::Sub),
            BinaryOp::And => (Op::Band, RmwOp::And),
            BinaryOp::Or => (Op::Bor, RmwOp::Or),
            BinaryOp::Xor => (Op::Bxor, RmwOp::Xor),
        }
    }

    fn recipe(self, a: Value, b: Value, r: Value) -> Recipe {
        match self {
            BinaryOp::Add => Recipe::Add { a, b, r },
            BinaryOp::Sub => Recipe::Sub { a, b, r },
            _ => Recipe::Logic { r },
        }
    }
}

pub(super) fn binary(l: &mut Lifter<'_>, i: &Insn, op: BinaryOp, dest: Dest) {
    let ty = l.op_type(i, 0);
    if matches!(op, BinaryOp::Xor | BinaryOp::Sub) && dest == Dest::Writeback && is_same_register(i) {
        return zero(l, i, ty);
    }
    let (ir, rmw) = op.ir();
    if dest == Dest::FlagsOnly {
        let (a, b) = (l.read(i, 0), l.read_as(i, 1, ty));
        let recipe = match op {
            BinaryOp::Sub => Recipe::Cmp { a, b },
            // TEST of a register with itself asks the register.
            _ if a == b => Recipe::Logic { r: a },
            _ => Recipe::Logic { r: l.b.binary(ir, ty, a, b) },
        };
        return l.set_flags(recipe, ty);
    }
    let b = l.read_as(i, 1, ty);
    let (a, r) = l.modify(i, 0, Atomic::Rmw(rmw, b), |l, a| l.b.binary(ir, ty, a, b));
    l.set_flags(op.recipe(a, b, r), ty);
}

/// Both operands are the same register.
fn is_same_register(i: &Insn) -> bool {
    i.op0_kind() == iced_x86::OpKind::Register && i.op1_kind() == i.op0_kind() && i.op0_register() == i.op1_register()
}

/// All zero, and the flags that go with it; AF is 0 after SUB and undefined after XOR.
fn zero(l: &mut Lifter<'_>, i: &Insn, ty: Type) {
    let r = l.b.iconst(ty, 0);
    l.write(i, 0, r);
    l.set_flags(Recipe::Logic { r }, ty);
    l.set_flags_const(FlagSet::AF, false);
}

pub(super) fn carrying(l: &mut Lifter<'_>, i: &Insn, op: Carry) {
    if i.has_lock_prefix() {
        return locked_carrying(l, i, op);
    }
    let ty = l.op_type(i, 0);
    if op == Carry::Sbb && is_same_register(i) {
        return spread_carry(l, i, ty);
    }
    let b = l.read_as(i, 1, ty);
    let c = l.flag(Flag::Cf);
    let (a, r) = l.modify(i, 0, Atomic::None, |l, a| carry_result(l, op, ty, a, b, c));
    l.set_flags(carry_recipe(op, a, b, c, r), ty);
}

/// SBB of a register with itself: all bits become the carry, which stays.
fn spread_carry(l: &mut Lifter<'_>, i: &Insn, ty: Type) {
    let c = l.flag(Flag::Cf);
    let a = l.read(i, 0);
    let wide = l.b.unary(Op::Uextend, ty, c);
    let r = l.b.unary(Op::Ineg, ty, wide);
    l.write(i, 0, r);
    l.set_flags(Recipe::Sbb { a, b: a, c, r }, ty);
    l.set_flag(Flag::Cf, c);
}

pub(super) fn carry_result(l: &mut Lifter<'_>, op: Carry, ty: Type, a: Value, b: Value, c: Value) -> Value {
    let ir = if op == Carry::Adc { Op::Iadd } else { Op::Isub };
    let wide = l.b.unary(Op::Uextend, ty, c);
    let r = l.b.binary(ir, ty, a, b);
    l.b.binary(ir, ty, r, wide)
}

pub(super) fn carry_recipe(op: Carry, a: Value, b: Value, c: Value, r: Value) -> Recipe {
    match op {
        Carry::Adc => Recipe::Adc { a, b, c, r },
        Carry::Sbb => Recipe::Sbb { a, b, c, r },
    }
}

pub(super) fn unary(l: &mut Lifter<'_>, i: &Insn, op: UnaryOp) {
    if op == UnaryOp::Neg && i.has_lock_prefix() {
        return locked_neg(l, i);
    }
    let ty = l.op_type(i, 0);
    let one = |l: &mut Lifter<'_>| l.b.iconst(ty, 1);
    match op {
        UnaryOp::Inc => {
            let k = one(l);
            let (a, r) = l.modify(i, 0, Atomic::Rmw(RmwOp::Add, k), |l, a| l.b.binary(Op::Iadd, ty, a, k));
            l.set_flags(Recipe::Inc { a, r }, ty);
        }
        UnaryOp::Dec => {
            let k = one(l);
            let (a, r) = l.modify(i, 0, Atomic::Rmw(RmwOp::Sub, k), |l, a| l.b.binary(Op::Isub, ty, a, k));
            l.set_flags(Recipe::Dec { a, r }, ty);
        }
        UnaryOp::Not => {
            let ones =
                if i.has_lock_prefix() { Atomic::Rmw(RmwOp::Xor, l.b.iconst(ty, u64::MAX)) } else { Atomic::None };
            l.modify(i, 0, ones, |l, a| l.b.unary(Op::Bnot, ty, a));
        }
        UnaryOp::Neg => {
            let (b, r) = l.modify(i, 0, Atomic::None, |l, a| l.b.unary(Op::Ineg, ty, a));
            let a = l.b.iconst(ty, 0);
            l.set_flags(Recipe::Sub { a, b, r }, ty);
        }
    }
}
