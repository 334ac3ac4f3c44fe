//! Exchanges, and the locked forms that no read-modify-write of the IR covers.

use super::alu::{Carry, carry_recipe, carry_result};
use super::flags::{Flag, FlagSet, Recipe};
use super::operand::gpr::*;
use super::operand::{Atomic, Gpr};
use super::{Insn, Lifter};
use calque_ir::{Cc, Exit, Op, RmwOp, Target, Type, Value};
use iced_x86::OpKind;

/// XCHG: with memory always atomic (SDM vol. 2 XCHG).
pub(super) fn xchg(l: &mut Lifter<'_>, i: &Insn) {
    let ty = l.op_type(i, 0);
    let memory = (0..2).find(|n| i.op_kind(*n) == OpKind::Memory);
    if let Some(op) = memory {
        let v = l.read(i, 1 - op);
        let m = l.addr(i);
        let old = l.b.rmw(RmwOp::Xchg, ty, m, v);
        return l.write(i, 1 - op, old);
    }
    let (a, b) = (l.read(i, 0), l.read(i, 1));
    l.write(i, 0, b);
    l.write(i, 1, a);
}

pub(super) fn xadd(l: &mut Lifter<'_>, i: &Insn) {
    let ty = l.op_type(i, 0);
    let b = l.read(i, 1);
    let (a, r) = if i.op_kind(0) == OpKind::Memory {
        let both = l.modify(i, 0, Atomic::Rmw(RmwOp::Add, b), |l, a| l.b.binary(Op::Iadd, ty, a, b));
        l.write(i, 1, both.0);
        both
    } else {
        let a = l.read(i, 0);
        let r = l.b.binary(Op::Iadd, ty, a, b);
        // The sum last: it stays if both are the same register.
        l.write(i, 1, a);
        l.write(i, 0, r);
        (a, r)
    };
    l.set_flags(Recipe::Add { a, b, r }, ty);
}

/// CMPXCHG: what isn't exchanged keeps all its bits, of the accumulator and of a register destination alike.
pub(super) fn cmpxchg(l: &mut Lifter<'_>, i: &Insn) {
    let ty = l.op_type(i, 0);
    let src = l.read(i, 1);
    let acc = l.read_gpr(Gpr::of(RAX, ty));
    let (old, equal) = match i.op_kind(0) {
        OpKind::Memory => exchange_in_memory(l, i, ty, acc, src),
        _ => exchange_in_register(l, i, ty, acc, src),
    };
    if i.op0_kind() == OpKind::Memory || Gpr::from_iced(i.op0_register()) != Some(Gpr::of(RAX, ty)) {
        let full = l.gpr64(RAX);
        let failed = widen(l, ty, full, old);
        let new = l.b.select(Type::I64, equal, full, failed);
        l.write_gpr(Gpr::R64(RAX), new);
    }
    l.set_flags(Recipe::Cmp { a: acc, b: old }, ty);
}

/// `full` after its low part of type `ty` has been written.
fn widen(l: &mut Lifter<'_>, ty: Type, full: Value, low: Value) -> Value {
    match ty {
        Type::I64 => low,
        Type::I32 => l.b.unary(Op::Uextend, Type::I64, low),
        Type::I16 => l.b.binary(Op::InsertLow16, Type::I64, full, low),
        _ => l.b.binary(Op::InsertLow8, Type::I64, full, low),
    }
}

/// The old value, and whether it was the accumulator's.
fn exchange_in_memory(l: &mut Lifter<'_>, i: &Insn, ty: Type, acc: Value, src: Value) -> (Value, Value) {
    let m = l.addr(i);
    if i.has_lock_prefix() {
        let at = l.addr_value(m);
        let old = l.b.cas(ty, at, 0, acc, src);
        return (old, l.b.icmp(Cc::Equal, ty, acc, old));
    }
    let old = l.b.load(ty, m);
    let equal = l.b.icmp(Cc::Equal, ty, acc, old);
    let new = l.b.select(ty, equal, src, old);
    l.b.store(ty, m, new);
    (old, equal)
}

fn exchange_in_register(l: &mut Lifter<'_>, i: &Insn, ty: Type, acc: Value, src: Value) -> (Value, Value) {
    let old = l.read(i, 0);
    let equal = l.b.icmp(Cc::Equal, ty, acc, old);
    match Gpr::from_iced(i.op0_register()) {
        Some(Gpr::R32(n)) => {
            let (full, new) = (l.gpr64(n), l.b.unary(Op::Uextend, Type::I64, src));
            let new = l.b.select(Type::I64, equal, new, full);
            l.write_gpr(Gpr::R64(n), new);
        }
        _ => {
            let new = l.b.select(ty, equal, src, old);
            l.write(i, 0, new);
        }
    }
    (old, equal)
}

/// CMPXCHG8B and CMPXCHG16B: rDX:rAX against memory, rCX:rBX into it; `half` is the registers' type. ZF only.
pub(super) fn cmpxchg_pair(l: &mut Lifter<'_>, i: &Insn, half: Type) {
    let m = l.addr(i);
    if half == Type::I64 {
        l.require_alignment(m);
    }
    let at = l.addr_value(m);
    let [a, d, b, c] = [RAX, RDX, RBX, RCX].map(|n| l.read_gpr(Gpr::of(n, half)));
    let (expected, new) = (join(l, half, a, d), join(l, half, b, c));
    let ty = if half == Type::I64 { Type::V128 } else { Type::I64 };
    let old = l.b.cas(ty, at, 0, expected, new);
    let (low, high) = split(l, half, old);
    let (low_equal, high_equal) = (l.b.icmp(Cc::Equal, half, low, a), l.b.icmp(Cc::Equal, half, high, d));
    let equal = l.b.binary(Op::Band, Type::I1, low_equal, high_equal);
    for (n, v) in [(RAX, low), (RDX, high)] {
        let old = l.gpr64(n);
        let v = if half == Type::I64 { v } else { l.b.unary(Op::Uextend, Type::I64, v) };
        let v = l.b.select(Type::I64, equal, old, v);
        l.write_gpr(Gpr::R64(n), v);
    }
    l.set_flag(Flag::Zf, equal);
}

fn join(l: &mut Lifter<'_>, half: Type, low: Value, high: Value) -> Value {
    if half == Type::I64 {
        return l.b.binary(Op::Concat, Type::I64x2, low, high);
    }
    let (low, high) = (l.b.unary(Op::Uextend, Type::I64, low), l.b.unary(Op::Uextend, Type::I64, high));
    let n = l.b.iconst(Type::I64, 32);
    let high = l.b.binary(Op::Ishl, Type::I64, high, n);
    l.b.binary(Op::Bor, Type::I64, low, high)
}

fn split(l: &mut Lifter<'_>, half: Type, v: Value) -> (Value, Value) {
    if half == Type::I64 {
        return (l.b.extract_lane(Type::I64x2, v, 0), l.b.extract_lane(Type::I64x2, v, 1));
    }
    let n = l.b.iconst(Type::I64, 32);
    let high = l.b.binary(Op::Ushr, Type::I64, v, n);
    (l.b.unary(Op::Ireduce, Type::I32, v), l.b.unary(Op::Ireduce, Type::I32, high))
}

/// LOCK NEG, LOCK ADC, LOCK SBB: load, compute, compare-and-swap in a block of its own that is run again, from the
/// registers as they were, until nobody came between. Hence flags change only where the swap succeeded.
fn until_swapped(l: &mut Lifter<'_>, i: &Insn, f: impl FnOnce(&mut Lifter<'_>, Value) -> (Value, Recipe)) {
    let ty = l.op_type(i, 0);
    let (again, done) = (l.b.create_block(l.pc), l.b.create_block(l.next));
    l.flush_flags(FlagSet::ALL);
    l.close(Exit::Goto(Target::Block(again)));

    l.reopen(again);
    let m = l.addr(i);
    let at = l.addr_value(m);
    let old = l.b.load(ty, calque_ir::Mem::base(at));
    let (new, recipe) = f(l, old);
    let seen = l.b.cas(ty, at, 0, old, new);
    let failed = l.b.icmp(Cc::NotEqual, ty, seen, old);
    l.set_flags_unless(failed, recipe, ty);
    l.flush_flags(FlagSet::ALL);
    l.close(Exit::Branch { cond: failed, taken: Target::Block(again), fallthrough: Target::Block(done) });
    l.open(done);
}

pub(super) fn locked_carrying(l: &mut Lifter<'_>, i: &Insn, op: Carry) {
    let ty = l.op_type(i, 0);
    until_swapped(l, i, |l, a| {
        let b = l.read_as(i, 1, ty);
        let c = l.flag(Flag::Cf);
        let r = carry_result(l, op, ty, a, b, c);
        (r, carry_recipe(op, a, b, c, r))
    });
}

pub(super) fn locked_neg(l: &mut Lifter<'_>, i: &Insn) {
    let ty = l.op_type(i, 0);
    until_swapped(l, i, |l, b| {
        let a = l.b.iconst(ty, 0);
        let r = l.b.unary(Op::Ineg, ty, b);
        (r, Recipe::Sub { a, b, r })
    });
}
