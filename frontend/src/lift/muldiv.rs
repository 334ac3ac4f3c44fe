//! Multiplication, division, and the sign extensions of the accumulator that go with them.

use super::flags::{Flag, FlagSet};
use super::operand::Gpr;
use super::operand::gpr::*;
use super::{Insn, Lifter};
use calque_ir::{Cc, Op, Type, Value};

/// Whether numbers have a sign.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Sign {
    Unsigned,
    Signed,
}

impl Sign {
    fn extend(self) -> Op {
        if self == Sign::Signed { Op::Sextend } else { Op::Uextend }
    }
}

/// CF and OF become `overflow`; the others are undefined (SDM vol. 2 MUL).
fn set_overflow(l: &mut Lifter<'_>, overflow: Value) {
    l.set_flags_undefined(FlagSet::ALL);
    l.set_flag(Flag::Cf, overflow);
    l.set_flag(Flag::Of, overflow);
}

/// The double-width accumulator: AX for bytes, else rDX:rAX.
fn write_double(l: &mut Lifter<'_>, ty: Type, low: Value, high: Value) {
    let upper = if ty == Type::I8 { Gpr::High8(RAX) } else { Gpr::of(RDX, ty) };
    l.write_gpr(Gpr::of(RAX, ty), low);
    l.write_gpr(upper, high);
}

/// MUL and IMUL with one operand: the accumulator times it.
pub(super) fn multiply(l: &mut Lifter<'_>, i: &Insn, sign: Sign) {
    let ty = l.op_type(i, 0);
    let b = l.read(i, 0);
    let a = l.read_gpr(Gpr::of(RAX, ty));
    let (low, high) = product(l, ty, sign, a, b);
    let overflow = match sign {
        Sign::Unsigned => l.compare_zero(Cc::NotEqual, ty, high),
        Sign::Signed => l.b.binary(Op::SmulOverflow, ty, a, b),
    };
    write_double(l, ty, low, high);
    set_overflow(l, overflow);
}

/// Low and high half of a product.
pub(super) fn product(l: &mut Lifter<'_>, ty: Type, sign: Sign, a: Value, b: Value) -> (Value, Value) {
    if ty == Type::I64 {
        let op = if sign == Sign::Signed { Op::Smulhi } else { Op::Umulhi };
        return (l.b.binary(Op::Imul, ty, a, b), l.b.binary(op, ty, a, b));
    }
    let wide = Type::int(ty.bits() * 2);
    let (a, b) = (l.b.unary(sign.extend(), wide, a), l.b.unary(sign.extend(), wide, b));
    let whole = l.b.binary(Op::Imul, wide, a, b);
    let n = l.b.iconst(wide, u64::from(ty.bits()));
    let high = l.b.binary(Op::Ushr, wide, whole, n);
    (l.b.unary(Op::Ireduce, ty, whole), l.b.unary(Op::Ireduce, ty, high))
}

pub(super) fn imul(l: &mut Lifter<'_>, i: &Insn) {
    if i.op_count() == 1 {
        return multiply(l, i, Sign::Signed);
    }
    let ty = l.op_type(i, 0);
    let (a, b) = if i.op_count() == 2 { (0, 1) } else { (1, 2) };
    let (a, b) = (l.read(i, a), l.read_as(i, b, ty));
    let r = l.b.binary(Op::Imul, ty, a, b);
    let overflow = l.b.binary(Op::SmulOverflow, ty, a, b);
    l.write(i, 0, r);
    set_overflow(l, overflow);
}

pub(super) fn divide(l: &mut Lifter<'_>, i: &Insn, sign: Sign) {
    let ty = l.op_type(i, 0);
    let d = l.read(i, 0);
    let low = l.read_gpr(Gpr::of(RAX, ty));
    let high = l.read_gpr(if ty == Type::I8 { Gpr::High8(RAX) } else { Gpr::of(RDX, ty) });
    let (quotient, remainder) = if sign == Sign::Signed { (Op::Sdiv, Op::Srem) } else { (Op::Udiv, Op::Urem) };
    let q = l.b.ternary(quotient, ty, high, low, d);
    let r = l.b.ternary(remainder, ty, high, low, d);
    write_double(l, ty, q, r);
    l.set_flags_undefined(FlagSet::ALL);
}

/// CBW, CWDE, CDQE: the lower half of rAX (type `from`) sign-extended into all of it.
pub(super) fn extend_accumulator(l: &mut Lifter<'_>, _: &Insn, from: Type) {
    let to = Type::int(from.bits() * 2);
    let v = l.read_gpr(Gpr::of(RAX, from));
    let v = l.b.unary(Op::Sextend, to, v);
    l.write_gpr(Gpr::of(RAX, to), v);
}

/// CWD, CDQ, CQO: rDX becomes the sign of rAX.
pub(super) fn sign_to_rdx(l: &mut Lifter<'_>, _: &Insn, ty: Type) {
    let v = l.read_gpr(Gpr::of(RAX, ty));
    let n = l.b.iconst(ty, u64::from(ty.bits()) - 1);
    let sign = l.b.binary(Op::Sshr, ty, v, n);
    l.write_gpr(Gpr::of(RDX, ty), sign);
}

/// MULX (BMI2): unsigned, implicit rDX, no flags; the low half first, so that equal destinations hold the high one.
pub(super) fn mulx(l: &mut Lifter<'_>, i: &Insn) {
    let ty = l.op_type(i, 0);
    let b = l.read(i, 2);
    let a = l.read_gpr(Gpr::of(RDX, ty));
    let (low, high) = product(l, ty, Sign::Unsigned, a, b);
    l.write(i, 1, low);
    l.write(i, 0, high);
}
