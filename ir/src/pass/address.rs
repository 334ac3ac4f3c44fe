//! Address folding: sums with constants and scaled indices move into the memory operand.
//!
//! Exact, because base, scaled index and displacement are summed modulo 2^64 like the operations that are folded;
//! a displacement that does not fit 32 bits signed stays outside.

use super::fold::Values;
use crate::op::Op;
use crate::region::{Mem, Value};

/// A memory operand with as much of its base and index folded into it as fits; not of those that are `kept`.
pub(super) fn fold(values: &Values, mut mem: Mem, kept: [bool; 2]) -> Mem {
    let (base, index) = (mem.base, mem.index);
    loop {
        let keeps = |v: Option<Value>| kept[0] && v == base || kept[1] && v == index;
        let folded = if keeps(mem.base) { None } else { fold_base(values, mem) };
        let folded = folded.or_else(|| if keeps(mem.index) { None } else { fold_index(values, mem) });
        match folded {
            Some(simpler) => mem = simpler,
            None => return mem,
        }
    }
}

/// Base and displacement only, for operands without an index.
pub(super) fn fold_offset(values: &Values, base: Value, disp: i32) -> (Value, i32) {
    match offset(values, base) {
        Some((inner, add)) => match add_disp(disp, add) {
            Some(disp) => fold_offset(values, inner, disp),
            None => (base, disp),
        },
        None => (base, disp),
    }
}

/// `v` as `inner + constant`.
pub(super) fn offset(values: &Values, v: Value) -> Option<(Value, i64)> {
    let def = values.def(v);
    let constant = match def.op {
        Op::Iadd | Op::Isub if !def.ty.is_vector() => values.constant(Value(def.args[1]))? as i64,
        _ => return None,
    };
    Some((Value(def.args[0]), if def.op == Op::Iadd { constant } else { constant.wrapping_neg() }))
}

fn add_disp(disp: i32, add: i64) -> Option<i32> {
    i32::try_from(i64::from(disp).checked_add(add)?).ok()
}

fn fold_base(values: &Values, mem: Mem) -> Option<Mem> {
    let base = mem.base?;
    if let Some((inner, add)) = offset(values, base) {
        return add_disp(mem.disp, add).map(|disp| Mem { base: Some(inner), disp, ..mem });
    }
    if let Some(constant) = values.constant(base) {
        return add_disp(mem.disp, constant as i64).map(|disp| Mem { base: None, disp, ..mem });
    }
    let def = values.def(base);
    if mem.index.is_none() && def.op == Op::Iadd {
        return Some(Mem { base: Some(Value(def.args[0])), index: Some(Value(def.args[1])), scale: 0, ..mem });
    }
    None
}

fn fold_index(values: &Values, mem: Mem) -> Option<Mem> {
    let index = mem.index?;
    if let Some(constant) = values.constant(index) {
        let disp = add_disp(mem.disp, (constant << mem.scale) as i64)?;
        return Some(Mem { index: None, scale: 0, disp, ..mem });
    }
    if let Some((inner, add)) = offset(values, index) {
        let disp = add_disp(mem.disp, add << mem.scale)?;
        return Some(Mem { index: Some(inner), disp, ..mem });
    }
    let def = values.def(index);
    if def.op == Op::Ishl {
        let scale = values.constant(Value(def.args[1]))? + u64::from(mem.scale);
        return (scale <= 3).then(|| Mem { index: Some(Value(def.args[0])), scale: scale as u8, ..mem });
    }
    if mem.base.is_none() && mem.scale == 0 {
        return Some(Mem { base: Some(index), index: None, ..mem });
    }
    None
}
