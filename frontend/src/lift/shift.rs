//! Shifts and rotates.
//!
//! Counts are masked to 5 bits, 6 for 64-bit operands (SDM vol. 2 SAL/SAR/SHL/SHR), so that they may pass the width of
//! narrow operands: those shift in 32 bits. A count of 0 leaves all flags as they were.

use super::flags::{Flag, Recipe};
use super::operand::Atomic;
use super::{Insn, Lifter};
use calque_ir::{Cc, Op, Type, Value};
use iced_x86::OpKind;

/// Which way a shift goes and what it fills with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Shift {
    Left,
    Right,
    Arithmetic,
}

/// Which way a rotate goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Rotate {
    RotLeft,
    RotRight,
}

/// A shift count after masking.
#[derive(Clone, Copy)]
enum Count {
    Const(u64),
    /// `i32` value.
    Value(Value),
}

impl Count {
    fn read(l: &mut Lifter<'_>, i: &Insn, ty: Type) -> Count {
        let mask = if ty == Type::I64 { 63 } else { 31 };
        let op = i.op_count() - 1;
        if i.op_kind(op) != OpKind::Register {
            return Count::Const(i.immediate(op) & mask);
        }
        let cl = l.read(i, op);
        let wide = l.b.unary(Op::Uextend, Type::I32, cl);
        let mask = l.b.iconst(Type::I32, mask);
        Count::Value(l.b.binary(Op::Band, Type::I32, wide, mask))
    }

    /// The count as a value of type `ty`.
    fn of_type(self, l: &mut Lifter<'_>, ty: Type) -> Value {
        match self {
            Count::Const(n) => l.b.iconst(ty, n),
            Count::Value(v) => resize(l, v, ty),
        }
    }

    /// Sets flags for a count that may be zero.
    fn set_flags(self, l: &mut Lifter<'_>, recipe: Recipe, ty: Type) {
        match self {
            Count::Const(0) => {}
            Count::Const(_) => l.set_flags(recipe, ty),
            Count::Value(n) => {
                let is_zero = l.compare_zero(Cc::Equal, Type::I32, n);
                l.set_flags_unless(is_zero, recipe, ty);
            }
        }
    }
}

/// An integer zero-extended or cut to `ty`.
fn resize(l: &mut Lifter<'_>, v: Value, ty: Type) -> Value {
    let from = l.b.ty(v);
    match from.bits().cmp(&ty.bits()) {
        std::cmp::Ordering::Less => l.b.unary(Op::Uextend, ty, v),
        std::cmp::Ordering::Equal => v,
        std::cmp::Ordering::Greater => l.b.unary(Op::Ireduce, ty, v),
    }
}

pub(super) fn shift(l: &mut Lifter<'_>, i: &Insn, how: Shift) {
    let ty = l.op_type(i, 0);
    let count = Count::read(l, i, ty);
    let n = count.of_type(l, ty);
    let (a, r) = l.modify(i, 0, Atomic::None, |l, a| shifted(l, how, ty, a, count));
    let recipe = match how {
        Shift::Left => Recipe::Shl { a, n, r },
        Shift::Right => Recipe::Shr { a, n, r },
        Shift::Arithmetic => Recipe::Sar { a, n, r },
    };
    count.set_flags(l, recipe, ty);
}

fn shifted(l: &mut Lifter<'_>, how: Shift, ty: Type, a: Value, count: Count) -> Value {
    let (op, extend) = match how {
        Shift::Left => (Op::Ishl, Op::Uextend),
        Shift::Right => (Op::Ushr, Op::Uextend),
        Shift::Arithmetic => (Op::Sshr, Op::Sextend),
    };
    if ty.bits() >= 32 {
        let n = count.of_type(l, ty);
        return l.b.binary(op, ty, a, n);
    }
    let wide = l.b.unary(extend, Type::I32, a);
    let n = count.of_type(l, Type::I32);
    let r = l.b.binary(op, Type::I32, wide, n);
    l.b.unary(Op::Ireduce, ty, r)
}

pub(super) fn rotate(l: &mut Lifter<'_>, i: &Insn, how: Rotate) {
    let ty = l.op_type(i, 0);
    let count = Count::read(l, i, ty);
    let op = if how == Rotate::RotLeft { Op::Rotl } else { Op::Rotr };
    let within = match count {
        Count::Const(n) => l.b.iconst(ty, n % u64::from(ty.bits())),
        Count::Value(n) => {
            let mask = l.b.iconst(Type::I32, u64::from(ty.bits()) - 1);
            let n = l.b.binary(Op::Band, Type::I32, n, mask);
            resize(l, n, ty)
        }
    };
    let (_, r) = l.modify(i, 0, Atomic::None, |l, a| l.b.binary(op, ty, a, within));
    let recipe = if how == Rotate::RotLeft { Recipe::Rol { r } } else { Recipe::Ror { r } };
    count.set_flags(l, recipe, ty);
}

/// RCL and RCR: a rotate of width + 1 bits, the carry on top.
pub(super) fn rotate_carry(l: &mut Lifter<'_>, i: &Insn, how: Rotate) {
    let ty = l.op_type(i, 0);
    let count = Count::read(l, i, ty);
    if let Count::Const(0) = count {
        l.modify(i, 0, Atomic::None, |_, a| a);
        return;
    }
    let n = within_carry_width(l, count, ty);
    let (c, old_of) = (l.flag(Flag::Cf), l.flag(Flag::Of));
    let mut carry = c;
    let (_, r) = l.modify(i, 0, Atomic::None, |l, a| {
        let (r, cf) = if ty == Type::I64 { rotate65(l, how, a, c, n) } else { rotate_narrow(l, how, ty, a, c, n) };
        carry = cf;
        r
    });
    l.set_flag(Flag::Cf, carry);
    let top = l.compare_zero(Cc::SignedLessThan, ty, r);
    let other = match how {
        Rotate::RotLeft => carry,
        Rotate::RotRight => l.bit(r, ty.bits() - 2, ty),
    };
    let of = l.b.binary(Op::Bxor, Type::I1, top, other);
    let masked = count.of_type(l, Type::I64);
    let is_zero = l.compare_zero(Cc::Equal, Type::I64, masked);
    let of = l.b.select(Type::I1, is_zero, old_of, of);
    l.set_flag(Flag::Of, of);
}

/// The count modulo 9 or 17 for narrow operands, as an `i64`.
fn within_carry_width(l: &mut Lifter<'_>, count: Count, ty: Type) -> Value {
    let width = u64::from(ty.bits()) + 1;
    let n = match count {
        Count::Const(n) if width < 32 => return l.b.iconst(Type::I64, n % width),
        _ => count.of_type(l, Type::I64),
    };
    if width > 32 {
        return n;
    }
    // n < 32: the quotient by 9 is n * 57 >> 9, by 17 n * 31 >> 9.
    let (factor, nine) = (l.b.iconst(Type::I64, if width == 9 { 57 } else { 31 }), l.b.iconst(Type::I64, 9));
    let product = l.b.binary(Op::Imul, Type::I64, n, factor);
    let quotient = l.b.binary(Op::Ushr, Type::I64, product, nine);
    let width = l.b.iconst(Type::I64, width);
    let whole = l.b.binary(Op::Imul, Type::I64, quotient, width);
    l.b.binary(Op::Isub, Type::I64, n, whole)
}

/// Result and carry for operands of up to 32 bits: carry and operand together fit 64 bits however they are shifted.
fn rotate_narrow(l: &mut Lifter<'_>, how: Rotate, ty: Type, a: Value, c: Value, n: Value) -> (Value, Value) {
    let t = Type::I64;
    let width = u64::from(ty.bits());
    let (a, c) = (l.b.unary(Op::Uextend, t, a), l.b.unary(Op::Uextend, t, c));
    let at = l.b.iconst(t, width);
    let c = l.b.binary(Op::Ishl, t, c, at);
    let whole = l.b.binary(Op::Bor, t, a, c);
    let round = l.b.iconst(t, width + 1);
    let rest = l.b.binary(Op::Isub, t, round, n);
    let (left, right) = if how == Rotate::RotLeft { (n, rest) } else { (rest, n) };
    let high = l.b.binary(Op::Ishl, t, whole, left);
    let low = l.b.binary(Op::Ushr, t, whole, right);
    let r = l.b.binary(Op::Bor, t, high, low);
    let cf = l.bit(r, ty.bits(), t);
    (l.b.unary(Op::Ireduce, ty, r), cf)
}

/// Result and carry for 64 bits, n < 64; for n = 0 the operands as they are.
fn rotate65(l: &mut Lifter<'_>, how: Rotate, a: Value, c: Value, n: Value) -> (Value, Value) {
    let t = Type::I64;
    let (toward, away) = if how == Rotate::RotLeft { (Op::Ishl, Op::Ushr) } else { (Op::Ushr, Op::Ishl) };
    let (one, mask) = (l.b.iconst(t, 1), l.b.iconst(t, 63));
    let minus = l.b.unary(Op::Ineg, t, n);
    // 64 - n, also below 64 for n = 0 where the result isn't used.
    let rest = l.b.binary(Op::Band, t, minus, mask);
    let less = l.b.binary(Op::Isub, t, n, one);
    let less = l.b.binary(Op::Band, t, less, mask);
    let main = l.b.binary(toward, t, a, n);
    let around = l.b.binary(away, t, a, one);
    let around = l.b.binary(away, t, around, rest);
    let carry = l.b.unary(Op::Uextend, t, c);
    let carry = l.b.binary(Op::Ishl, t, carry, if how == Rotate::RotLeft { less } else { rest });
    let r = l.b.binary(Op::Bor, t, main, around);
    let r = l.b.binary(Op::Bor, t, r, carry);
    let out = l.b.binary(Op::Ushr, t, a, if how == Rotate::RotLeft { rest } else { less });
    let out = l.b.unary(Op::Ireduce, Type::I1, out);
    let is_zero = l.compare_zero(Cc::Equal, t, n);
    (l.b.select(t, is_zero, a, r), l.b.select(Type::I1, is_zero, c, out))
}

/// SHLD and SHRD. Counts above 16 of 16-bit operands are undefined; here, as in processors, the fill repeats.
pub(super) fn double_shift(l: &mut Lifter<'_>, i: &Insn, how: Shift) {
    let ty = l.op_type(i, 0);
    let count = Count::read(l, i, ty);
    let fill = l.read(i, 1);
    let n = count.of_type(l, ty);
    let (a, r) = l.modify(i, 0, Atomic::None, |l, a| match ty {
        Type::I16 => double_shifted16(l, how, a, fill, count),
        _ => double_shifted(l, how, ty, a, fill, n),
    });
    let recipe = if how == Shift::Left { Recipe::Shl { a, n, r } } else { Recipe::Shrd { a, n, r } };
    count.set_flags(l, recipe, ty);
}

fn double_shifted(l: &mut Lifter<'_>, how: Shift, ty: Type, a: Value, fill: Value, n: Value) -> Value {
    let (toward, away) = if how == Shift::Left { (Op::Ishl, Op::Ushr) } else { (Op::Ushr, Op::Ishl) };
    // In two steps, so that the count stays below the width for n = 0.
    let (one, top) = (l.b.iconst(ty, 1), l.b.iconst(ty, u64::from(ty.bits()) - 1));
    let rest = l.b.binary(Op::Isub, ty, top, n);
    let main = l.b.binary(toward, ty, a, n);
    let half = l.b.binary(away, ty, fill, one);
    let filled = l.b.binary(away, ty, half, rest);
    l.b.binary(Op::Bor, ty, main, filled)
}

fn double_shifted16(l: &mut Lifter<'_>, how: Shift, a: Value, fill: Value, count: Count) -> Value {
    let t = Type::I64;
    let (a, fill) = (l.b.unary(Op::Uextend, t, a), l.b.unary(Op::Uextend, t, fill));
    let (high, low) = if how == Shift::Left { (a, fill) } else { (fill, a) };
    let (one, two) = (l.b.iconst(t, 16), l.b.iconst(t, 32));
    let high = l.b.binary(Op::Ishl, t, high, two);
    let middle = l.b.binary(Op::Ishl, t, fill, one);
    let whole = l.b.binary(Op::Bor, t, high, middle);
    let whole = l.b.binary(Op::Bor, t, whole, low);
    let n = count.of_type(l, t);
    let r = match how {
        Shift::Left => {
            let r = l.b.binary(Op::Ishl, t, whole, n);
            l.b.binary(Op::Ushr, t, r, two)
        }
        _ => l.b.binary(Op::Ushr, t, whole, n),
    };
    l.b.unary(Op::Ireduce, Type::I16, r)
}

/// SHLX, SHRX, SARX (BMI2): count from a register, no flags.
pub(super) fn shift_no_flags(l: &mut Lifter<'_>, i: &Insn, how: Shift) {
    let ty = l.op_type(i, 0);
    let a = l.read(i, 1);
    let n = l.read(i, 2);
    let mask = l.b.iconst(ty, u64::from(ty.bits()) - 1);
    let n = l.b.binary(Op::Band, ty, n, mask);
    let op = match how {
        Shift::Left => Op::Ishl,
        Shift::Right => Op::Ushr,
        Shift::Arithmetic => Op::Sshr,
    };
    let r = l.b.binary(op, ty, a, n);
    l.write(i, 0, r);
}

/// RORX (BMI2).
pub(super) fn rorx(l: &mut Lifter<'_>, i: &Insn) {
    let ty = l.op_type(i, 0);
    let a = l.read(i, 1);
    let n = l.b.iconst(ty, i.immediate(2) & (u64::from(ty.bits()) - 1));
    let r = l.b.binary(Op::Rotr, ty, a, n);
    l.write(i, 0, r);
}
