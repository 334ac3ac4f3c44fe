//! Simplification of pure operations: constants, identities, conversions of conversions, what was just computed.
//!
//! Each rule yields a value that equals the operation's for every input; constants go through the interpreter's own
//! arms. Floating-point arithmetic is left alone: its
//! result depends on the rounding mode.

use super::address;
use super::fold::Values;
use crate::interp;
use crate::op::Op;
use crate::region::{Cc, Inst, Value};
use crate::state::V128;
use crate::types::Type;

/// Appends what is left of a pure operation and yields its value.
pub(super) fn simplify(values: &mut Values, pool: &mut Vec<V128>, mut inst: Inst) -> Value {
    if inst.op == Op::Iconst {
        return values.iconst(inst.ty, inst.imm());
    }
    if commutes(inst.op) && values.constant(Value(inst.args[0])).is_some() {
        inst.args.swap(0, 1);
    }
    if let Some(v) = constant(values, &inst) {
        return v;
    }
    let simpler = if inst.ty.is_vector() { vector(values, pool, &inst) } else { scalar(values, &inst) };
    match simpler {
        Some(v) => v,
        None if rounds(inst.op) => values.push(inst), // LDMXCSR may stand between two that look the same
        None => values.unique(inst),
    }
}

/// Whether the result depends on the rounding mode.
fn rounds(op: Op) -> bool {
    use Op::*;
    matches!(op, Fadd | Fsub | Fmul | Fdiv | Sqrt | Fdemote | Fvdemote | FcvtFromSint | FcvtToSint | FcvtLowToSint)
}

fn commutes(op: Op) -> bool {
    use Op::*;
    matches!(op, Iadd | Imul | Umulhi | Smulhi | Band | Bor | Bxor | UaddOverflow | SaddOverflow)
}

/// Folds a scalar integer operation whose operands are all constant.
fn constant(values: &mut Values, inst: &Inst) -> Option<Value> {
    let result = inst.result_type();
    let integer = |ty: Type| ty.is_int() || ty == Type::I1;
    if inst.value_slots() == 0 || !integer(inst.ty) || !integer(result) {
        return None;
    }
    if !inst.uses().all(|v| values.constant(v).is_some()) {
        return None;
    }
    let mut args = [*inst; 3];
    let mut count = 0;
    for v in inst.uses() {
        args[count] = *values.def(v);
        count += 1;
    }
    let word = interp::fold(values.scratch(), &args[..count], *inst);
    Some(values.iconst(result, word))
}

fn scalar(values: &mut Values, inst: &Inst) -> Option<Value> {
    let (a, b, ty) = (Value(inst.args[0]), Value(inst.args[1]), inst.ty);
    match inst.op {
        Op::Iadd | Op::Isub => sum(values, inst, a, b),
        Op::Band | Op::Bor | Op::Bxor | Op::Imul | Op::Ishl | Op::Ushr | Op::Sshr | Op::Rotl | Op::Rotr => {
            identity(values, inst, a, b)
        }
        Op::Uextend | Op::Sextend | Op::Ireduce | Op::Bitcast => conversion(values, inst.op, ty, a),
        Op::Bnot => complement(values, a),
        Op::Icmp => condition_test(values, inst, a, b),
        Op::Select => select(values, a, b, Value(inst.args[2])),
        _ => None,
    }
}

/// `x + 0`, `x - x`, and sums of sums with constants.
fn sum(values: &mut Values, inst: &Inst, a: Value, b: Value) -> Option<Value> {
    let ty = inst.ty;
    let Some(constant) = values.constant(b) else {
        return (inst.op == Op::Isub && a == b).then(|| values.iconst(ty, 0));
    };
    if constant == 0 {
        return Some(a);
    }
    let (inner, add) = address::offset(values, a)?;
    let own = if inst.op == Op::Iadd { constant } else { constant.wrapping_neg() };
    let total = (add as u64).wrapping_add(own) & interp::mask(ty);
    if total == 0 {
        return Some(inner);
    }
    let total = values.iconst(ty, total);
    Some(values.op(Op::Iadd, ty, 0, inner, total.0))
}

/// Operands that leave the other one as it is, or decide alone.
fn identity(values: &mut Values, inst: &Inst, a: Value, b: Value) -> Option<Value> {
    let (op, ty) = (inst.op, inst.ty);
    if a == b {
        match op {
            Op::Band | Op::Bor => return Some(a),
            Op::Bxor => return Some(values.iconst(ty, 0)),
            _ => {}
        }
    }
    match (op, values.constant(b)?) {
        (Op::Band | Op::Imul, 0) => Some(b),
        (Op::Imul, 1) => Some(a),
        (Op::Imul, c) if c.is_power_of_two() => {
            let count = values.iconst(ty, u64::from(c.trailing_zeros()));
            Some(values.op(Op::Ishl, ty, 0, a, count.0))
        }
        (Op::Imul, _) => None,
        (Op::Band, c) if c == interp::mask(ty) => Some(a),
        (Op::Bor, c) if c == interp::mask(ty) => Some(b),
        (Op::Band, _) => None,
        (_, 0) => Some(a),
        _ => None,
    }
}

/// Conversions of conversions.
fn conversion(values: &mut Values, op: Op, ty: Type, a: Value) -> Option<Value> {
    let def = *values.def(a);
    let (inner, second) = (Value(def.args[0]), Value(def.args[1]));
    match (op, def.op) {
        (Op::Bitcast, Op::Bitcast) if values.ty(inner) == ty => Some(inner),
        (Op::Uextend, Op::Uextend) | (Op::Sextend, Op::Sextend) => Some(values.op(op, ty, 0, inner, 0)),
        (Op::Ireduce, Op::Ireduce) => reduce(values, ty, inner),
        (Op::Ireduce, Op::Uextend | Op::Sextend) => {
            let from = values.ty(inner);
            if from.bits() > ty.bits() { reduce(values, ty, inner) } else { extend(values, def.op, ty, inner) }
        }
        (Op::Ireduce, Op::InsertLow8) if ty == Type::I8 => Some(second),
        (Op::Ireduce, Op::InsertLow16) if ty.bits() <= 16 => reduce(values, ty, second),
        (Op::Ireduce, Op::Icmp | Op::Fcmp) => None,
        _ => None,
    }
}

fn reduce(values: &mut Values, ty: Type, v: Value) -> Option<Value> {
    Some(if values.ty(v) == ty { v } else { values.op(Op::Ireduce, ty, 0, v, 0) })
}

fn extend(values: &mut Values, op: Op, ty: Type, v: Value) -> Option<Value> {
    Some(if values.ty(v) == ty { v } else { values.op(op, ty, 0, v, 0) })
}

/// `!!x`, and `!` of an integer comparison.
fn complement(values: &mut Values, a: Value) -> Option<Value> {
    let def = *values.def(a);
    match def.op {
        Op::Bnot => Some(Value(def.args[0])),
        Op::Icmp => Some(values.unique(Inst { aux: invert(Cc::from_code(def.aux)) as u16, ..def })),
        _ => None,
    }
}

fn invert(cc: Cc) -> Cc {
    use Cc::*;
    match cc {
        Equal => NotEqual,
        NotEqual => Equal,
        SignedLessThan => SignedGreaterThanOrEqual,
        SignedGreaterThanOrEqual => SignedLessThan,
        SignedGreaterThan => SignedLessThanOrEqual,
        SignedLessThanOrEqual => SignedGreaterThan,
        UnsignedLessThan => UnsignedGreaterThanOrEqual,
        UnsignedGreaterThanOrEqual => UnsignedLessThan,
        UnsignedGreaterThan => UnsignedLessThanOrEqual,
        UnsignedLessThanOrEqual => UnsignedGreaterThan,
    }
}

/// Comparisons of a value with itself, and of a widened condition with 0.
fn condition_test(values: &mut Values, inst: &Inst, a: Value, b: Value) -> Option<Value> {
    use Cc::*;
    let cc = Cc::from_code(inst.aux);
    if a == b {
        let holds = matches!(
            cc,
            Equal
                | SignedGreaterThanOrEqual
                | SignedLessThanOrEqual
                | UnsignedGreaterThanOrEqual
                | UnsignedLessThanOrEqual
        );
        return Some(values.iconst(Type::I1, u64::from(holds)));
    }
    let condition = match inst.ty {
        Type::I1 => a,
        _ if values.def(a).op == Op::Uextend => Value(values.def(a).args[0]),
        _ => return None,
    };
    if values.constant(b) != Some(0) || values.ty(condition) != Type::I1 {
        return None;
    }
    match cc {
        NotEqual => Some(condition),
        Equal => Some(complement(values, condition).unwrap_or_else(|| values.op(Op::Bnot, Type::I1, 0, condition, 0))),
        _ => None,
    }
}

fn select(values: &Values, condition: Value, a: Value, b: Value) -> Option<Value> {
    if a == b {
        return Some(a);
    }
    values.constant(condition).map(|c| if c != 0 { a } else { b })
}

fn vector(values: &mut Values, pool: &mut Vec<V128>, inst: &Inst) -> Option<Value> {
    let (a, b, ty) = (Value(inst.args[0]), Value(inst.args[1]), inst.ty);
    match inst.op {
        Op::Bxor | Op::Isub if a == b => {
            let zero = pool_index(pool, [0, 0]);
            Some(values.unique(Inst { op: Op::Vconst, ty: Type::V128, aux: 0, args: [zero, 0, 0, 0] }))
        }
        Op::Band | Op::Bor if a == b => Some(a),
        Op::Bnot => complement(values, a).filter(|v| values.ty(*v) == Type::V128),
        Op::Select => select(values, a, b, Value(inst.args[2])),
        Op::ExtractLane => extract_lane(values, ty, a, inst.aux),
        Op::InsertLane => {
            let def = *values.def(a);
            let hidden = def.op == Op::InsertLane && def.ty == ty && def.aux == inst.aux;
            hidden.then(|| values.op(Op::InsertLane, ty, inst.aux, Value(def.args[0]), b.0))
        }
        _ => None,
    }
}

fn pool_index(pool: &mut Vec<V128>, v: V128) -> u32 {
    pool.iter().position(|p| *p == v).unwrap_or_else(|| {
        pool.push(v);
        pool.len() - 1
    }) as u32
}

/// A lane of a vector that was just put together.
fn extract_lane(values: &mut Values, ty: Type, v: Value, lane: u16) -> Option<Value> {
    let def = *values.def(v);
    let (first, second) = (Value(def.args[0]), Value(def.args[1]));
    match def.op {
        Op::ScalarToVector | Op::Splat if def.ty == ty && lane == 0 => Some(first),
        Op::Splat if def.ty == ty => Some(first),
        Op::InsertLane if def.ty == ty && def.aux == lane => Some(second),
        Op::InsertLane if def.ty == ty => {
            extract_lane(values, ty, first, lane).or_else(|| Some(values.op(Op::ExtractLane, ty, lane, first, 0)))
        }
        Op::Concat if ty == Type::I64x2 => Some(if lane == 0 { first } else { second }),
        _ => None,
    }
}
