//! Floating point with x86's rules for NaN, minimum and conversions.
//!
//! - **Flags** are the host's, too: every operation is the instruction that x86 has for it, spelled out where Cranelift has
//!   none (`respell.rs`, `words.rs`), and one whose result nobody uses is computed all the same. What AArch64 raises otherwise is in
//!   docs/ISA.md.
//! - **Rounding** follows MXCSR because the host's control register holds the guest's while generated code runs
//!   (`abi::enter`).
//! - **NaN results** (SDM vol. 1 table 4-7): x86-64 hosts give them by themselves, as long as operands stay in order, and so do AArch64
//!   hosts with FEAT_AFP. Others choose another operand or sign, so there a result that is NaN takes a cold path. Looking at each result would more than double
//!   the work; but a NaN makes every later result a NaN, too. So a result is *raw* until something looks at its bits
//!   (`Lowering::value` checks it then), and arithmetic and comparisons take raw operands: if the last result of a chain is a number, all
//!   were. The cold path does the chain again, by the rules. What several registers hold at a block's end is looked at together: a result that
//!   is a number says so of all that it was made of ([`Lowering::settle_lows`]).
//! - **MINSS, MAXSS** are a comparison and a selection; on x86-64 Cranelift knows the pattern, with FEAT_AFP `fmin` is the same.
//! - **Out of range** conversions give the integer indefinite: saturate, then replace what is not below the limit.

use super::{Lowering, clif_type};
use crate::isa::Arch;
use crate::respell::Respell;
use crate::words::{self, Shape};
use calque_ir::{FloatCc, Helper, Inst, Op, Reg, Region, Type, Value as IrValue};
use cranelift_codegen::ir::condcodes::{CondCode, FloatCC, IntCC};
use cranelift_codegen::ir::{self as clif, InstBuilder, types};
use std::collections::HashMap;

/// Operations of this file whose type is not a float's.
pub(super) fn is_float(op: Op) -> bool {
    use Op::{FcvtLowToSint, FcvtLowToSintTrunc, FcvtToSint, FcvtToSintTrunc};
    matches!(op, FcvtToSint | FcvtToSintTrunc | FcvtLowToSint | FcvtLowToSintTrunc)
}

/// Cranelift's name of a floating comparison.
pub(super) fn float_cc(cc: FloatCc) -> FloatCC {
    match cc {
        FloatCc::Ordered => FloatCC::Ordered,
        FloatCc::Unordered => FloatCC::Unordered,
        FloatCc::Equal => FloatCC::Equal,
        FloatCc::NotEqual => FloatCC::NotEqual,
        FloatCc::OrderedNotEqual => FloatCC::OrderedNotEqual,
        FloatCc::UnorderedOrEqual => FloatCC::UnorderedOrEqual,
        FloatCc::LessThan => FloatCC::LessThan,
        FloatCc::LessThanOrEqual => FloatCC::LessThanOrEqual,
        FloatCc::GreaterThan => FloatCC::GreaterThan,
        FloatCc::GreaterThanOrEqual => FloatCC::GreaterThanOrEqual,
        FloatCc::UnorderedOrLessThan => FloatCC::UnorderedOrLessThan,
        FloatCc::UnorderedOrLessThanOrEqual => FloatCC::UnorderedOrLessThanOrEqual,
        FloatCc::UnorderedOrGreaterThan => FloatCC::UnorderedOrGreaterThan,
        FloatCc::UnorderedOrGreaterThanOrEqual => FloatCC::UnorderedOrGreaterThanOrEqual,
    }
}

/// A result that may be a NaN other than x86's: what it was made of.
#[derive(Clone)]
pub(super) struct RawFloat {
    operands: Vec<clif::Value>,
    /// Operations in its chain.
    size: u32,
}

/// Operations between two checks for NaN.
const LONGEST_CHAIN: u32 = 6;

/// How a conversion to an integer rounds.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Rounding {
    Mxcsr,
    Truncate,
}

impl Lowering<'_> {
    /// Operations on floats, scalar or in lanes.
    pub(super) fn float(&mut self, inst: &Inst) -> clif::Value {
        match inst.op {
            Op::Fadd | Op::Fsub | Op::Fmul | Op::Fdiv => self.arithmetic(inst),
            Op::Sqrt => {
                let x = self.unchecked(inst, 0);
                let r = self.b.ins().sqrt(x);
                self.with_nan(r, &[x])
            }
            Op::Fmadd | Op::Fmsub | Op::Fnmadd | Op::Fnmsub => self.fused(inst),
            Op::Ceil | Op::Floor | Op::Trunc | Op::Nearest => {
                let x = self.unchecked(inst, 0);
                let round = |l: &mut Self| match inst.op {
                    Op::Ceil => l.b.ins().ceil(x),
                    Op::Floor => l.b.ins().floor(x),
                    Op::Trunc => l.b.ins().trunc(x),
                    _ => l.b.ins().nearest(x),
                };
                if self.on(Arch::X86_64) {
                    return self.respelled(Respell::RoundQuietly, round);
                }
                let r = round(self);
                // Both kinds of processor make NaNs quiet.
                if self.raw_floats.contains_key(&x) { self.defer_check(r, &[x]) } else { r }
            }
            Op::Fmin | Op::Fmax => self.minimum(inst),
            Op::Fcmp | Op::FcmpSignaling => self.compare(inst),
            Op::Select => {
                let (c, x, y) = (self.arg(inst, 0), self.operand(inst, 1), self.operand(inst, 2));
                self.b.ins().select(c, x, y)
            }
            Op::FcvtToSint => self.float_to_int(inst, Rounding::Mxcsr),
            Op::FcvtToSintTrunc => self.float_to_int(inst, Rounding::Truncate),
            Op::FcvtLowToSint => self.low_to_int(inst, Rounding::Mxcsr),
            Op::FcvtLowToSintTrunc => self.low_to_int(inst, Rounding::Truncate),
            Op::Fpromote | Op::Fdemote | Op::FvpromoteLow | Op::Fvdemote | Op::FcvtFromSint | Op::FcvtLowFromSint => {
                self.convert(inst)
            }
            Op::Bitcast => {
                let x = self.arg(inst, 0);
                self.view(x, clif_type(inst.ty))
            }
            _ => self.vector_op(inst),
        }
    }

    fn operand(&mut self, inst: &Inst, slot: usize) -> clif::Value {
        self.vector(inst, slot, inst.ty)
    }

    fn arithmetic(&mut self, inst: &Inst) -> clif::Value {
        let (x, y) = (self.unchecked(inst, 0), self.unchecked(inst, 1));
        let ins = self.b.ins();
        let r = match inst.op {
            Op::Fadd => ins.fadd(x, y),
            Op::Fsub => ins.fsub(x, y),
            Op::Fmul => ins.fmul(x, y),
            _ => ins.fdiv(x, y),
        };
        self.with_nan(r, &[x, y])
    }

    /// `fmadd` and kin: one instruction where the host has one, else a helper a lane.
    fn fused(&mut self, inst: &Inst) -> clif::Value {
        let [mut x, mut y, z] = [0, 1, 2].map(|slot| self.unchecked(inst, slot));
        if self.host.has("afp") && inst.ty.is_vector() {
            // Cranelift would exchange them for one that is the same lane throughout.
            (x, y) = (self.opaque(x), self.opaque(y));
        }
        let negated = |l: &mut Self, v, by| if by { l.b.ins().fneg(v) } else { v };
        let p = negated(self, x, matches!(inst.op, Op::Fnmadd | Op::Fnmsub));
        let q = negated(self, z, matches!(inst.op, Op::Fmsub | Op::Fnmsub));
        if self.on(Arch::X86_64) && !self.host.has("has_fma") {
            return self.fused_by_lanes(inst.ty, [p, y, q]);
        }
        if self.on(Arch::X86_64) && self.def(inst.args[0]).op != Op::Load {
            // Becomes VFMADD213, VFMSUB213, VFNMADD213 or VFNMSUB213 with the multiplier as destination, which choose among NaNs as
            // the operation does: multiplicand, multiplier, addend. (With a multiplicand from memory it would be VFMADD132.)
            return self.b.ins().fma(y, p, q);
        }
        let r = self.b.ins().fma(p, y, q);
        if self.host.has("afp") && (inst.op == Op::Fmadd || !inst.ty.is_vector()) {
            // Negation leaves NaNs alone.
            return self.with_nan(r, &[x, y, z]);
        }
        // Negation has changed the sign of a NaN (that of vectors does so also with FEAT_AFP, in qemu 11 at least), and hosts choose another
        // operand.
        self.defer_check(r, &[x, y, z])
    }

    fn fused_by_lanes(&mut self, ty: Type, args: [clif::Value; 3]) -> clif::Value {
        let helper = if ty.lane() == Type::F32 { Helper::FmaF32 } else { Helper::FmaF64 };
        let mut result = args[0];
        for lane in 0..ty.lanes() as u8 {
            let lanes = args.map(|v| if ty.is_vector() { self.b.ins().extractlane(v, lane) } else { v });
            let r = self.call_scalars(helper, &lanes);
            result = if ty.is_vector() { self.b.ins().insertlane(result, r, lane) } else { r };
        }
        result
    }

    /// The result `r` of an operation on `operands`, which has the NaN that x86 would give as soon as it is checked.
    fn with_nan(&mut self, r: clif::Value, operands: &[clif::Value]) -> clif::Value {
        let exact = self.has_x86_nans() && !operands.iter().any(|v| self.raw_floats.contains_key(v));
        if exact { r } else { self.defer_check(r, operands) }
    }

    /// Whether the host's NaNs are x86's, for fused operations in the order of their operands.
    fn has_x86_nans(&self) -> bool {
        self.on(Arch::X86_64) || self.host.has("afp")
    }

    /// Notes that `r` is to be checked when something looks at its bits.
    fn defer_check(&mut self, r: clif::Value, operands: &[clif::Value]) -> clif::Value {
        let of = |v: &clif::Value| self.raw_floats.get(v).map_or(0, |raw| raw.size);
        let size = 1 + operands.iter().map(of).sum::<u32>();
        let raw = RawFloat { operands: operands.to_vec(), size };
        self.raw_floats.insert(r, raw);
        // What is done again in the cold path stays small.
        if size < LONGEST_CHAIN { r } else { self.checked(r) }
    }

    /// A value as x86 would have it.
    pub(super) fn checked(&mut self, v: clif::Value) -> clif::Value {
        if !self.raw_floats.contains_key(&v) {
            return v;
        }
        let good = self.has_no_nan(v);
        self.either(good, |_| v, |l| l.nan_again(v, &mut HashMap::new()))
    }

    /// The scalar in this slot as a vector's lowest lane, raw until the block's end where nobody can see registers before that.
    pub(super) fn new_low(&mut self, inst: &Inst, slot: usize) -> clif::Value {
        if self.is_precise() { self.arg(inst, slot) } else { self.unchecked_value(IrValue(inst.args[slot])) }
    }

    /// Register `reg` holds `low` in its lowest lane from now on.
    pub(super) fn note_low(&mut self, reg: Reg, ty: Type, low: clif::Value) {
        self.raw_lows.retain(|(other, ..)| *other != reg);
        if self.raw_floats.contains_key(&low) {
            self.raw_lows.push((reg, ty, low));
        }
    }

    /// A value as x86 would have it, which registers that hold it hold from now on, too.
    pub(super) fn settled(&mut self, v: clif::Value) -> clif::Value {
        let checked = self.checked(v);
        if checked != v {
            let (held, others) = std::mem::take(&mut self.raw_lows).into_iter().partition(|(.., low)| *low == v);
            self.raw_lows = others;
            self.define_lows(held, std::iter::repeat(checked));
        }
        checked
    }

    fn define_lows(&mut self, lows: Vec<(Reg, Type, clif::Value)>, checked: impl IntoIterator<Item = clif::Value>) {
        for ((reg, ty, raw), low) in lows.into_iter().zip(checked) {
            let variable = self.low_variable(reg, ty);
            self.b.def_var(variable, low);
            self.checked_low(reg, raw, low);
        }
    }

    /// Checks what registers hold, as other blocks take that for x86's.
    pub(super) fn settle_lows(&mut self) {
        let mut open = std::mem::take(&mut self.raw_lows);
        while let Some(&(.., first)) = open.first() {
            // The last of a chain.
            let root = open
                .iter()
                .map(|(.., low)| *low)
                .fold(first, |root, low| if self.is_made_of(low, root) { low } else { root });
            let (made, others): (Vec<_>, Vec<_>) = open.into_iter().partition(|(.., low)| self.is_made_of(root, *low));
            let good = self.has_no_nan(root);
            let lows: Vec<_> = made.iter().map(|(.., low)| *low).collect();
            let checked = self.all_or_again(good, &lows);
            self.define_lows(made, checked);
            open = others;
        }
    }

    /// Whether raw `v` is `part` or a result of it.
    fn is_made_of(&self, v: clif::Value, part: clif::Value) -> bool {
        let raw = |v| self.raw_floats.get(&v);
        v == part || raw(v).is_some_and(|raw| raw.operands.iter().any(|&operand| self.is_made_of(operand, part)))
    }

    /// The values if `good`, else what they should be.
    fn all_or_again(&mut self, good: clif::Value, values: &[clif::Value]) -> Vec<clif::Value> {
        let (cold, join) = (self.b.create_block(), self.b.create_block());
        self.b.set_cold_block(cold);
        let as_they_are: Vec<_> = values.iter().map(|&v| v.into()).collect();
        let results = values.iter().map(|&v| self.b.append_block_param(join, self.b.func.dfg.value_type(v))).collect();
        self.b.ins().brif(good, join, &as_they_are, cold, &[]);
        self.b.switch_to_block(cold);
        let mut known = HashMap::new();
        let again: Vec<_> = values.iter().map(|&v| self.nan_again(v, &mut known).into()).collect();
        self.b.ins().jump(join, &again);
        self.b.switch_to_block(join);
        [cold, join].into_iter().for_each(|block| self.b.seal_block(block));
        results
    }

    /// What `v` should be, by x86's rules all the way from the operands of its chain; `known` has what has been computed again here before.
    fn nan_again(&mut self, v: clif::Value, known: &mut HashMap<clif::Value, clif::Value>) -> clif::Value {
        let Some(raw) = self.raw_floats.get(&v).cloned() else { return v };
        if let Some(again) = known.get(&v) {
            return *again;
        }
        let operands: Vec<_> = raw.operands.iter().map(|&operand| self.nan_again(operand, known)).collect();
        let again = self.nan_of(v, &operands);
        known.insert(v, again);
        again
    }

    /// A condition: `r` is a number, or all its lanes are.
    fn has_no_nan(&mut self, r: clif::Value) -> clif::Value {
        let vector = self.b.func.dfg.value_type(r).is_vector();
        if self.on(Arch::Aarch64) && self.b.func.dfg.value_type(r) == types::F64X2 && !self.out.comis {
            // One comparison looks at both.
            let [low, high] = [0, 1].map(|lane| self.b.ins().extractlane(r, lane));
            return self.b.ins().fcmp(FloatCC::Ordered, low, high);
        }
        if self.on(Arch::X86_64) {
            let nan = self.is_nan(r);
            let any = if vector { self.b.ins().vany_true(nan) } else { nan };
            return self.b.ins().icmp_imm_u(IntCC::Equal, any, 0);
        }
        if !vector {
            return self.b.ins().fcmp(FloatCC::Ordered, r, r);
        }
        // Lanes of -1, so that every sum of neighbours is -2: five instructions, where `vall_true` takes ten.
        const ALL_NUMBERS: i64 = 0xffff_fffe_ffff_fffe_u64 as i64;
        let numbers = self.b.ins().fcmp(FloatCC::Equal, r, r);
        let numbers = self.view(numbers, types::I32X4);
        let sums = self.b.ins().iadd_pairwise(numbers, numbers);
        let sums = self.view(sums, types::I64X2);
        let sums = self.b.ins().extractlane(sums, 0);
        let odd = self.b.ins().bxor_imm_s(sums, ALL_NUMBERS);
        self.b.ins().icmp_imm_u(IntCC::Equal, odd, 0)
    }

    /// `r` where it is a number, else the first operand that is a NaN, quieted, else the default: negative, quiet, no payload.
    fn nan_of(&mut self, r: clif::Value, operands: &[clif::Value]) -> clif::Value {
        let ty = self.b.func.dfg.value_type(r);
        let (quiet_bit, default) = match ty.lane_type() {
            types::F32 => (0x0040_0000, 0xffc0_0000),
            _ => (0x0008_0000_0000_0000, 0xfff8_0000_0000_0000u64),
        };
        let int = ty.as_int();
        let default = self.splat_bits(int, default as i64);
        let quiet_bit = self.splat_bits(int, quiet_bit);
        let mut result = default;
        for &operand in operands.iter().rev() {
            let bits = self.view(operand, int);
            let quiet = self.b.ins().bor(bits, quiet_bit);
            let nan = self.is_nan(operand);
            result = self.choose(nan, quiet, result);
        }
        let nan = self.is_nan(r);
        let bits = self.view(r, int);
        let result = self.choose(nan, result, bits);
        self.view(result, ty)
    }

    /// Whether (which lanes of) a value are NaN. On x86-64 by integers: a comparison of floats would raise flags.
    fn is_nan(&mut self, v: clif::Value) -> clif::Value {
        if !self.on(Arch::X86_64) {
            return self.b.ins().fcmp(FloatCC::Unordered, v, v);
        }
        let int = self.b.func.dfg.value_type(v).as_int();
        let (magnitude, infinity) = match int.lane_type() {
            types::I32 => (0x7fff_ffff, 0x7f80_0000),
            _ => (i64::MAX, 0x7ff0_0000_0000_0000),
        };
        let (magnitude, infinity) = (self.splat_bits(int, magnitude), self.splat_bits(int, infinity));
        let bits = self.view(v, int);
        let bits = self.b.ins().band(bits, magnitude);
        self.b.ins().icmp(IntCC::SignedGreaterThan, bits, infinity)
    }

    /// An integer in every lane, or just the integer.
    fn splat_bits(&mut self, ty: clif::Type, bits: i64) -> clif::Value {
        let scalar = self.iconst(ty.lane_type(), bits);
        if ty.is_vector() { self.b.ins().splat(ty, scalar) } else { scalar }
    }

    /// `x` where the mask or condition holds, else `y`.
    pub(super) fn choose(&mut self, mask: clif::Value, x: clif::Value, y: clif::Value) -> clif::Value {
        let ty = self.b.func.dfg.value_type(x);
        if ty.is_vector() {
            let mask = self.view(mask, ty);
            self.b.ins().bitselect(mask, x, y)
        } else {
            self.b.ins().select(mask, x, y)
        }
    }

    /// MINSS is `x < y ? x : y`; MAXSS is written with the swapped comparison, which x86-64 has as one instruction.
    fn minimum(&mut self, inst: &Inst) -> clif::Value {
        let (x, y) = (self.operand(inst, 0), self.operand(inst, 1));
        if self.host.has("afp") {
            return if inst.op == Op::Fmin { self.b.ins().fmin(x, y) } else { self.b.ins().fmax(x, y) };
        }
        if !inst.ty.is_vector() {
            self.signal_any_nan(x, y);
        }
        let less = match inst.op {
            Op::Fmin => self.b.ins().fcmp(FloatCC::LessThan, x, y),
            _ => self.b.ins().fcmp(FloatCC::LessThan, y, x),
        };
        self.choose(less, x, y)
    }

    fn compare(&mut self, inst: &Inst) -> clif::Value {
        let (x, y) = (self.unchecked(inst, 0), self.unchecked(inst, 1));
        let cc = float_cc(FloatCc::from_code(inst.aux));
        if !inst.ty.is_vector() {
            return self.compare_scalars(inst.op, cc, x, y);
        }
        let signaling = inst.op == Op::FcmpSignaling;
        match self.on(Arch::X86_64) {
            true => self.respelled(Respell::Compare { signaling }, |l| l.compare_lanes(cc, x, y)),
            false if signaling => self.compare_lanes_signaling(cc, x, y),
            false => self.compare_lanes_quietly(cc, x, y),
        }
    }

    /// On AArch64, where comparisons by order take any NaN for an invalid operation and those for equality do not.
    fn compare_lanes_signaling(&mut self, cc: FloatCC, x: clif::Value, y: clif::Value) -> clif::Value {
        if matches!(cc, FloatCC::Equal | FloatCC::NotEqual | FloatCC::Ordered | FloatCC::Unordered) {
            let greater = self.b.ins().fcmp(FloatCC::GreaterThan, x, y);
            self.raising.push(greater);
        }
        self.compare_lanes(cc, x, y)
    }

    /// The same without that exception: by order, NaNs are seen as zeros.
    fn compare_lanes_quietly(&mut self, cc: FloatCC, x: clif::Value, y: clif::Value) -> clif::Value {
        let (cc, negated) = match cc {
            FloatCC::UnorderedOrEqual
            | FloatCC::UnorderedOrLessThan
            | FloatCC::UnorderedOrLessThanOrEqual
            | FloatCC::UnorderedOrGreaterThan
            | FloatCC::UnorderedOrGreaterThanOrEqual => (cc.complement(), true),
            cc => (cc, false),
        };
        let result = match cc {
            FloatCC::Equal | FloatCC::NotEqual | FloatCC::Ordered | FloatCC::Unordered => self.b.ins().fcmp(cc, x, y),
            FloatCC::OrderedNotEqual => {
                let ordered = self.b.ins().fcmp(FloatCC::Ordered, x, y);
                let differ = self.b.ins().fcmp(FloatCC::NotEqual, x, y);
                self.b.ins().band(ordered, differ)
            }
            _ => {
                let ordered = self.b.ins().fcmp(FloatCC::Ordered, x, y);
                let shape = self.b.func.dfg.value_type(x);
                let numbers = [x, y].map(|v| {
                    let mask = self.view(ordered, shape);
                    self.b.ins().band(v, mask)
                });
                let holds = self.b.ins().fcmp(cc, numbers[0], numbers[1]);
                self.b.ins().band(ordered, holds)
            }
        };
        if negated { self.b.ins().bnot(result) } else { result }
    }

    /// On AArch64, CLIF's comparison of scalars is FCMP, to which only signaling NaNs are invalid. Where that is too little and the region's
    /// are not respelled as a whole, a comparison whose result nobody needs raises the exception.
    fn signal_any_nan(&mut self, x: clif::Value, y: clif::Value) {
        if self.on(Arch::Aarch64) && !self.out.comis {
            let greater = self.respelled(Respell::Word(words::FCMGT), |l| l.b.ins().fmin(x, y));
            self.raising.push(greater);
        }
    }

    /// On x86-64, CLIF's comparison is UCOMISS, fused with what uses it. Where all of a region's are to be COMISS, its code
    /// is respelled as a whole; else one of them is made into a value of its own.
    fn compare_scalars(&mut self, op: Op, cc: FloatCC, x: clif::Value, y: clif::Value) -> clif::Value {
        if op == Op::FcmpSignaling {
            self.signal_any_nan(x, y);
        }
        if !self.is_materialized(op) {
            return self.b.ins().fcmp(cc, x, y);
        }
        let compared = self.respelled(Respell::Comis, |l| l.b.ins().fcmp(cc, x, y));
        self.opaque(compared)
    }

    /// Whether a comparison of scalars is not fused with what uses it.
    pub(super) fn is_materialized(&self, op: Op) -> bool {
        self.on(Arch::X86_64) && op == Op::FcmpSignaling && !self.out.comis
    }

    fn compare_lanes(&mut self, cc: FloatCC, x: clif::Value, y: clif::Value) -> clif::Value {
        // Neither host has all comparisons for lanes: these are made of others.
        match cc {
            FloatCC::OrderedNotEqual => self.less_or_greater(x, y),
            FloatCC::UnorderedOrEqual => {
                let differs = self.less_or_greater(x, y);
                self.b.ins().bnot(differs)
            }
            FloatCC::UnorderedOrLessThan
            | FloatCC::UnorderedOrLessThanOrEqual
            | FloatCC::UnorderedOrGreaterThan
            | FloatCC::UnorderedOrGreaterThanOrEqual
                if self.on(Arch::Aarch64) =>
            {
                let opposite = self.b.ins().fcmp(cc.complement(), x, y);
                self.b.ins().bnot(opposite)
            }
            _ => self.b.ins().fcmp(cc, x, y),
        }
    }

    fn less_or_greater(&mut self, x: clif::Value, y: clif::Value) -> clif::Value {
        let less = self.b.ins().fcmp(FloatCC::LessThan, x, y);
        let greater = self.b.ins().fcmp(FloatCC::GreaterThan, x, y);
        self.b.ins().bor(less, greater)
    }

    fn convert(&mut self, inst: &Inst) -> clif::Value {
        match inst.op {
            Op::Fpromote => {
                let x = self.arg(inst, 0);
                self.b.ins().fpromote(types::F64, x)
            }
            Op::Fdemote => {
                let x = self.arg(inst, 0);
                self.b.ins().fdemote(types::F32, x)
            }
            Op::FvpromoteLow => {
                let x = self.vector(inst, 0, Type::F32x4);
                self.b.ins().fvpromote_low(x)
            }
            Op::Fvdemote => {
                let x = self.vector(inst, 0, Type::F64x2);
                self.b.ins().fvdemote(x)
            }
            Op::FcvtLowFromSint => {
                let x = self.vector(inst, 0, Type::I32x4);
                let wide = self.b.ins().swiden_low(x);
                self.b.ins().fcvt_from_sint(types::F64X2, wide)
            }
            _ => {
                let from = if inst.ty.is_vector() { Type::I32x4 } else { self.arg_type(inst, 0) };
                let x = self.vector(inst, 0, from);
                self.b.ins().fcvt_from_sint(clif_type(inst.ty), x)
            }
        }
    }

    /// `fcvt_to_sint`, `fcvt_to_sint_trunc`.
    fn float_to_int(&mut self, inst: &Inst, rounding: Rounding) -> clif::Value {
        if inst.ty.is_vector() {
            let x = self.vector(inst, 0, Type::F32x4);
            return self.lanes_to_int(x, rounding);
        }
        let x = self.arg(inst, 0);
        if self.on(Arch::X86_64) {
            return self.one_float_to_int(x, clif_type(inst.ty), rounding);
        }
        let x = self.rounded(x, rounding, clif_type(inst.ty));
        self.truncate(x, rounding, clif_type(inst.ty))
    }

    /// CVTSS2SI and kin, on x86-64: by way of a move of the low word.
    fn one_float_to_int(&mut self, x: clif::Value, to: clif::Type, rounding: Rounding) -> clif::Value {
        let from_double = self.b.func.dfg.value_type(x) == types::F64;
        let how = Respell::ToInt { from_double, to_long: to == types::I64, truncate: rounding == Rounding::Truncate };
        let shape = if from_double { types::F64X2 } else { types::F32X4 };
        let x = self.opaque(x); // a load would be folded into the move
        let lanes = self.b.ins().scalar_to_vector(shape, x);
        let words = self.view(lanes, types::I64X2);
        let word = self.respelled(how, |l| l.b.ins().extractlane(words, 0));
        let word = self.opaque(word); // and the move into a store
        if to == types::I64 { word } else { self.b.ins().ireduce(to, word) }
    }

    /// `f64x2` to two `i32` lanes, zero above.
    fn low_to_int(&mut self, inst: &Inst, rounding: Rounding) -> clif::Value {
        let x = self.vector(inst, 0, Type::F64x2);
        if self.on(Arch::X86_64) {
            let how = Respell::LowLanes { truncate: rounding == Rounding::Truncate };
            let lanes = self.respelled(how, |l| l.b.ins().fvdemote(x));
            return self.view(lanes, types::I32X4);
        }
        let [low, high] = [0u8, 1].map(|lane| {
            let scalar = self.b.ins().extractlane(x, lane);
            let scalar = self.rounded(scalar, rounding, types::I32);
            self.truncate(scalar, rounding, types::I32)
        });
        let result = self.b.ins().scalar_to_vector(types::I32X4, low);
        self.b.ins().insertlane(result, high, 1)
    }

    /// What a comparison may look at in place of `x`, which has been `rounded`, and whose fraction does not count: with FEAT_AFP, it tells
    /// of denormals, which conversions do not.
    fn comparable(&mut self, x: clif::Value, rounding: Rounding) -> clif::Value {
        if self.host.has("afp") && rounding == Rounding::Truncate { self.b.ins().trunc(x) } else { x }
    }

    /// A scalar in range, which has been `rounded`, to the integer, everything else to the integer indefinite.
    fn truncate(&mut self, x: clif::Value, rounding: Rounding, to: clif::Type) -> clif::Value {
        let saturated = self.b.ins().fcvt_to_sint_sat(to, x);
        let limit = (1u64 << (to.bits() - 1)) as f64;
        let limit = match self.b.func.dfg.value_type(x) {
            types::F32 => self.b.ins().f32const(limit as f32),
            _ => self.b.ins().f64const(limit),
        };
        let compared = self.comparable(x, rounding);
        let below = self.b.ins().fcmp(FloatCC::LessThan, compared, limit);
        let indefinite = self.iconst(to, 1 << (to.bits() - 1));
        self.b.ins().select(below, saturated, indefinite)
    }

    /// The same for `f32x4`.
    fn lanes_to_int(&mut self, x: clif::Value, rounding: Rounding) -> clif::Value {
        if self.on(Arch::X86_64) {
            return match rounding {
                Rounding::Truncate => self.b.ins().x86_cvtt2dq(types::I32X4, x),
                Rounding::Mxcsr => self.respelled(Respell::RoundedLanes, |l| l.b.ins().x86_cvtt2dq(types::I32X4, x)),
            };
        }
        let x = self.rounded(x, rounding, types::I32X4);
        let saturated = self.b.ins().fcvt_to_sint_sat(types::I32X4, x);
        let limit = self.b.ins().f32const((1u64 << 31) as f32);
        let limit = self.b.ins().splat(types::F32X4, limit);
        let compared = self.comparable(x, rounding);
        let below = self.b.ins().fcmp(FloatCC::LessThan, compared, limit);
        let indefinite = self.splat_bits(types::I32X4, 1 << 31);
        self.b.ins().bitselect(below, saturated, indefinite)
    }

    /// To an integral value, as FPCR says on AArch64, on the way to this type: inexact only in its range.
    fn rounded(&mut self, x: clif::Value, rounding: Rounding, to: clif::Type) -> clif::Value {
        if rounding == Rounding::Truncate {
            return x;
        }
        let from = self.b.func.dfg.value_type(x);
        let shape = if from.is_vector() { Shape::Lanes } else { Shape::Scalar };
        if from != types::F64 || to != types::I32 {
            // What is out of range has no fraction.
            return self.respelled(Respell::Word(words::frintx(shape)), |l| l.b.ins().nearest(x));
        }
        let r = self.respelled(Respell::Word(words::FRINTI), |l| l.b.ins().nearest(x));
        let [limit, least] = [2f64.powi(31), -2f64.powi(31)].map(|v| self.b.ins().f64const(v));
        let below = self.b.ins().fcmp(FloatCC::LessThan, r, limit);
        let above = self.b.ins().fcmp(FloatCC::GreaterThanOrEqual, r, least);
        let fits = self.b.ins().band(below, above);
        let inexact = self.b.ins().select(fits, x, r);
        let inexact = self.respelled(Respell::Word(words::frintx(shape)), |l| l.b.ins().nearest(inexact));
        self.raising.push(inexact);
        r
    }
}

/// Whether a region compares scalars, and always so that any NaN is an invalid operation. On AArch64, a minimum is a comparison, too.
pub(super) fn all_signaling(region: &Region, arch: Arch) -> bool {
    let minimum = |op| arch == Arch::Aarch64 && matches!(op, Op::Fmin | Op::Fmax);
    let compares = |inst: &&Inst| (inst.op.compares_floats() || minimum(inst.op)) && !inst.ty.is_vector();
    let mut compared = region.insts.iter().filter(compares).peekable();
    compared.peek().is_some() && compared.all(|inst| inst.op != Op::Fcmp)
}
