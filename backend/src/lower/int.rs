//! Scalar integers and conditions.

use super::{LOOK_BACK, Lowering, Val, clif_type};
use crate::isa::Arch;
use calque_ir::{Cc, FaultKind, FloatCc, Helper, Inst, Op, Type, Value as IrValue};
use cranelift_codegen::ir::condcodes::{CondCode, IntCC};
use cranelift_codegen::ir::{self as clif, InstBuilder, Opcode, ValueDef, types};

/// Cranelift's name of an integer comparison.
pub(super) fn int_cc(cc: Cc) -> IntCC {
    match cc {
        Cc::Equal => IntCC::Equal,
        Cc::NotEqual => IntCC::NotEqual,
        Cc::SignedLessThan => IntCC::SignedLessThan,
        Cc::SignedGreaterThanOrEqual => IntCC::SignedGreaterThanOrEqual,
        Cc::SignedGreaterThan => IntCC::SignedGreaterThan,
        Cc::SignedLessThanOrEqual => IntCC::SignedLessThanOrEqual,
        Cc::UnsignedLessThan => IntCC::UnsignedLessThan,
        Cc::UnsignedGreaterThanOrEqual => IntCC::UnsignedGreaterThanOrEqual,
        Cc::UnsignedGreaterThan => IntCC::UnsignedGreaterThan,
        Cc::UnsignedLessThanOrEqual => IntCC::UnsignedLessThanOrEqual,
    }
}

/// Whether a division yields the quotient or the remainder.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Quotient,
    Remainder,
}

impl Lowering<'_> {
    /// Operations on integers and conditions.
    pub(super) fn int(&mut self, inst: &Inst) -> clif::Value {
        match inst.op {
            Op::Iconst => return self.constant_of(inst),
            Op::Uextend => return self.uextend(inst),
            Op::Sextend => return self.sextend(inst),
            Op::Bnot if inst.ty == Type::I1 => return self.not(inst),
            Op::Select => {
                let (c, x, y) = (self.arg(inst, 0), self.arg(inst, 1), self.arg(inst, 2));
                return self.b.ins().select(c, x, y);
            }
            Op::Imul => {
                let (x, y) = (self.in_register(IrValue(inst.args[0])), self.in_register(IrValue(inst.args[1])));
                return self.b.ins().imul(x, y);
            }
            Op::Iadd if inst.ty == Type::I64 => {
                if let Some(sum) = self.sum_with_carry(inst) {
                    return sum;
                }
            }
            Op::Icmp => {
                if let Some(tested) = self.bit_test(inst) {
                    return tested;
                }
                let (x, y) = (self.arg(inst, 0), self.arg(inst, 1));
                return self.b.ins().icmp(int_cc(Cc::from_code(inst.aux)), x, y);
            }
            Op::Bor => {
                if let Some(bits) = self.high_bits_of_two(inst) {
                    return bits;
                }
            }
            Op::Udiv => return self.unsigned_division(inst, Part::Quotient),
            Op::Urem => return self.unsigned_division(inst, Part::Remainder),
            Op::Sdiv => return self.signed_division(inst, Part::Quotient),
            Op::Srem => return self.signed_division(inst, Part::Remainder),
            _ => {}
        }
        let x = self.arg(inst, 0);
        if inst.value_slots() == 1 { self.unary(inst, x) } else { self.binary(inst, x) }
    }

    /// A sum whose carry is only added to another word (ADD, ADC of zero): both words at once, without a comparison. The other word's
    /// instruction finds its value made.
    fn sum_with_carry(&mut self, inst: &Inst) -> Option<clif::Value> {
        let carries = |user: &Inst| {
            let operands = &inst.args[..2];
            user.op == Op::Icmp
                && user.ty == Type::I64
                && Cc::from_code(user.aux) == Cc::UnsignedLessThan
                && user.args[0] as usize == self.at
                && operands.contains(&user.args[1])
        };
        let end = self.region.blocks[self.block.0 as usize].end as usize;
        let carry = (self.at + 1..end).take(LOOK_BACK).find(|&at| carries(&self.region.insts[at]))?;
        let extended = self.users.only(carry).filter(|&at| self.region.insts[at].op == Op::Uextend)?;
        let above = self.users.only(extended).filter(|&at| {
            let user = &self.region.insts[at];
            user.op == Op::Iadd && user.ty == Type::I64 && user.args[0] != user.args[1]
        })?;
        let other = self.region.insts[above].args[..2].iter().copied().find(|&v| v as usize != extended)?;
        if other as usize >= self.at {
            return None;
        }
        let (x, y, other) = (self.arg(inst, 0), self.arg(inst, 1), self.value(IrValue(other)));
        let zero = self.iconst(types::I64, 0);
        let (x, y) = (self.b.ins().iconcat(x, other), self.b.ins().iconcat(y, zero));
        let sum = self.b.ins().iadd(x, y);
        let (low, high) = self.b.ins().isplit(sum);
        self.values[above] = Some(Val::Plain(high));
        Some(low)
    }

    /// A comparison with zero of some bits of a narrow part of a register: Cranelift would extend the part first.
    fn bit_test(&mut self, inst: &Inst) -> Option<clif::Value> {
        let (cc, bits) = (Cc::from_code(inst.aux), *self.def(inst.args[0]));
        let fits = matches!(inst.ty, Type::I8 | Type::I16) && matches!(cc, Cc::Equal | Cc::NotEqual);
        if !fits || self.on(Arch::X86_64) || bits.op != Op::Band || self.as_const(inst.args[1]) != Some(0) {
            return None;
        }
        let mask = self.as_const(bits.args[1])?;
        let part = self.value(IrValue(bits.args[0]));
        let ValueDef::Result(narrowed, _) = self.b.func.dfg.value_def(part) else { return None };
        if self.b.func.dfg.insts[narrowed].opcode() != Opcode::Ireduce {
            return None;
        }
        let whole = self.b.func.dfg.inst_args(narrowed)[0];
        if self.b.func.dfg.value_type(whole).bits() < 32 {
            return None;
        }
        let word = self.narrow(whole, types::I32);
        let tested = self.b.ins().band_imm_u(word, mask as i64);
        Some(self.b.ins().icmp_imm_u(int_cc(cc), tested, 0))
    }

    fn unary(&mut self, inst: &Inst, x: clif::Value) -> clif::Value {
        let ty = clif_type(inst.ty);
        match inst.op {
            Op::Ireduce if inst.ty == Type::I1 => {
                let low = self.narrow(x, types::I8);
                self.b.ins().band_imm_u(low, 1)
            }
            Op::Ireduce => self.narrow(x, ty),
            Op::Bitcast => self.view(x, ty),
            Op::Ineg => self.b.ins().ineg(x),
            Op::Bnot => self.b.ins().bnot(x),
            Op::Clz => self.b.ins().clz(x),
            Op::Ctz => self.b.ins().ctz(x),
            Op::Popcnt => self.b.ins().popcnt(x),
            Op::Bswap if inst.ty == Type::I8 => x,
            Op::Bswap => self.b.ins().bswap(x),
            Op::Parity => self.parity(x),
            op => unreachable!("{} is no unary integer operation", op.name()),
        }
    }

    fn binary(&mut self, inst: &Inst, x: clif::Value) -> clif::Value {
        let y = self.arg(inst, 1);
        match inst.op {
            Op::Iadd => self.b.ins().iadd(x, y),
            Op::Isub => self.b.ins().isub(x, y),
            Op::Umulhi => self.high_product(inst.ty, x, y, Extend::Zero),
            Op::Smulhi => self.high_product(inst.ty, x, y, Extend::Sign),
            Op::Band => self.b.ins().band(x, y),
            Op::Bor => self.b.ins().bor(x, y),
            Op::Bxor => self.b.ins().bxor(x, y),
            Op::BandNot => self.b.ins().band_not(x, y),
            Op::Ishl => self.b.ins().ishl(x, y),
            Op::Ushr => self.b.ins().ushr(x, y),
            Op::Sshr => self.b.ins().sshr(x, y),
            Op::Rotl => self.b.ins().rotl(x, y),
            Op::Rotr => self.b.ins().rotr(x, y),
            Op::InsertLow8 => self.insert_low(x, y, 8),
            Op::InsertLow16 => self.insert_low(x, y, 16),
            Op::InsertHigh8 => {
                let rest = self.b.ins().band_imm_s(x, !0xff00);
                let byte = self.b.ins().uextend(types::I64, y);
                let byte = self.b.ins().ishl_imm_u(byte, 8);
                self.b.ins().bor(rest, byte)
            }
            _ => self.overflow(inst, x, y),
        }
    }

    /// Conditions that say whether an operation left its range.
    fn overflow(&mut self, inst: &Inst, x: clif::Value, y: clif::Value) -> clif::Value {
        match inst.op {
            Op::UaddOverflow => {
                let known = self.earlier(Op::Iadd, inst.ty, [inst.args[0], inst.args[1]]);
                let sum = known.unwrap_or_else(|| self.b.ins().iadd(x, y));
                self.b.ins().icmp(IntCC::UnsignedLessThan, sum, x)
            }
            Op::SaddOverflow => self.b.ins().sadd_overflow(x, y).1,
            Op::SsubOverflow => self.b.ins().ssub_overflow(x, y).1,
            Op::UmulOverflow => self.product_overflow(inst.ty, x, y, Extend::Zero),
            Op::SmulOverflow => self.product_overflow(inst.ty, x, y, Extend::Sign),
            _ => {
                let z = self.arg(inst, 2);
                self.overflow_with_carry(inst, x, y, z)
            }
        }
    }

    fn overflow_with_carry(&mut self, inst: &Inst, x: clif::Value, y: clif::Value, z: clif::Value) -> clif::Value {
        let ty = clif_type(inst.ty);
        if inst.op == Op::HalfCarry {
            let [x, y, z] = [x, y, z].map(|v| self.narrow(v, types::I8));
            let xy = self.b.ins().bxor(x, y);
            let xyz = self.b.ins().bxor(xy, z);
            let shifted = self.b.ins().ushr_imm_u(xyz, 4);
            return self.b.ins().band_imm_u(shifted, 1);
        }
        let carry = if ty == types::I8 { z } else { self.b.ins().uextend(ty, z) };
        match inst.op {
            Op::UaddOverflowCin => {
                let sum = self.b.ins().iadd(x, y);
                let first = self.b.ins().icmp(IntCC::UnsignedLessThan, sum, x);
                let total = self.b.ins().iadd(sum, carry);
                let second = self.b.ins().icmp(IntCC::UnsignedLessThan, total, sum);
                self.b.ins().bor(first, second)
            }
            Op::UsubOverflowBin => {
                let difference = self.b.ins().isub(x, y);
                let first = self.b.ins().icmp(IntCC::UnsignedLessThan, x, y);
                let second = self.b.ins().icmp(IntCC::UnsignedLessThan, difference, carry);
                self.b.ins().bor(first, second)
            }
            Op::SaddOverflowCin => {
                let sum = self.b.ins().iadd(x, y);
                let r = self.b.ins().iadd(sum, carry);
                let (xr, yr) = (self.b.ins().bxor(x, r), self.b.ins().bxor(y, r));
                self.both_negative(xr, yr)
            }
            Op::SsubOverflowBin => {
                let difference = self.b.ins().isub(x, y);
                let r = self.b.ins().isub(difference, carry);
                let (xy, xr) = (self.b.ins().bxor(x, y), self.b.ins().bxor(x, r));
                self.both_negative(xy, xr)
            }
            op => unreachable!("{} is no integer operation", op.name()),
        }
    }

    fn both_negative(&mut self, x: clif::Value, y: clif::Value) -> clif::Value {
        let both = self.b.ins().band(x, y);
        self.b.ins().icmp_imm_s(IntCC::SignedLessThan, both, 0)
    }

    /// Low bits of `x`, which may already have the type (a load that extends).
    pub(super) fn narrow(&mut self, x: clif::Value, ty: clif::Type) -> clif::Value {
        if self.b.func.dfg.value_type(x) == ty { x } else { self.b.ins().ireduce(ty, x) }
    }

    fn uextend(&mut self, inst: &Inst) -> clif::Value {
        let (x, ty) = (self.arg(inst, 0), clif_type(inst.ty));
        self.zero_extended(x, ty)
    }

    /// `x`, zero-extended to `ty` if it does not have that type already.
    pub(super) fn zero_extended(&mut self, x: clif::Value, ty: clif::Type) -> clif::Value {
        if self.b.func.dfg.value_type(x) == ty {
            return x;
        }
        match self.wide.get(&x) {
            Some(&wide) => self.part_of(wide, ty),
            None => self.b.ins().uextend(ty, x),
        }
    }

    /// The low bits of `wide`, whose other bits are zero.
    pub(super) fn part_of(&mut self, wide: clif::Value, ty: clif::Type) -> clif::Value {
        let part = self.narrow(wide, ty);
        self.wide.insert(part, wide);
        part
    }

    fn sextend(&mut self, inst: &Inst) -> clif::Value {
        let (x, ty) = (self.arg(inst, 0), clif_type(inst.ty));
        if self.b.func.dfg.value_type(x) == ty { x } else { self.b.ins().sextend(ty, x) }
    }

    /// The opposite of a condition: of a comparison, the opposite comparison, which branches fuse with.
    fn not(&mut self, inst: &Inst) -> clif::Value {
        let def = *self.def(inst.args[0]);
        match def.op {
            Op::Icmp if !def.ty.is_vector() => {
                let (x, y) = (self.arg(&def, 0), self.arg(&def, 1));
                self.b.ins().icmp(int_cc(Cc::from_code(def.aux)).complement(), x, y)
            }
            Op::Fcmp | Op::FcmpSignaling if !def.ty.is_vector() && !self.is_materialized(def.op) => {
                let (x, y) = (self.arg(&def, 0), self.arg(&def, 1));
                self.b.ins().fcmp(super::float::float_cc(FloatCc::from_code(def.aux)).complement(), x, y)
            }
            _ => {
                let x = self.arg(inst, 0);
                self.b.ins().bxor_imm_u(x, 1)
            }
        }
    }

    /// PF of the low byte: with a population count where the host has one, else by a table of 16 bits.
    fn parity(&mut self, x: clif::Value) -> clif::Value {
        let byte = self.narrow(x, types::I8);
        if self.host.has("has_popcnt") {
            let ones = self.b.ins().popcnt(byte);
            let odd = self.b.ins().band_imm_u(ones, 1);
            return self.b.ins().bxor_imm_u(odd, 1);
        }
        let high = self.b.ins().ushr_imm_u(byte, 4);
        let folded = self.b.ins().bxor(byte, high);
        let nibble = self.b.ins().band_imm_u(folded, 15);
        let nibble = self.b.ins().uextend(types::I32, nibble);
        let table = self.iconst(types::I32, EVEN_NIBBLES);
        let bit = self.b.ins().ushr(table, nibble);
        let bit = self.b.ins().band_imm_u(bit, 1);
        self.b.ins().ireduce(types::I8, bit)
    }

    /// `x` with its low `bits` bits replaced by `y`.
    fn insert_low(&mut self, x: clif::Value, y: clif::Value, bits: i64) -> clif::Value {
        let y = self.b.ins().uextend(types::I64, y);
        if self.on(Arch::Aarch64) {
            // extr and ror: one less than and, uxtb, orr.
            let rest = self.b.ins().ushr_imm_u(x, bits);
            let top = self.b.ins().ishl_imm_u(y, 64 - bits);
            let rotated = self.b.ins().bor(top, rest);
            return self.b.ins().rotl_imm_u(rotated, bits);
        }
        let rest = self.b.ins().band_imm_s(x, -1 << bits);
        self.b.ins().bor(rest, y)
    }

    fn high_product(&mut self, ty: Type, x: clif::Value, y: clif::Value, extend: Extend) -> clif::Value {
        if ty == Type::I64 {
            return match extend {
                Extend::Zero => self.b.ins().umulhi(x, y),
                Extend::Sign => self.b.ins().smulhi(x, y),
            };
        }
        let (x, y) = (self.extend(types::I64, x, extend), self.extend(types::I64, y, extend));
        let product = self.b.ins().imul(x, y);
        let high = self.b.ins().ushr_imm_u(product, i64::from(ty.bits()));
        self.b.ins().ireduce(clif_type(ty), high)
    }

    fn product_overflow(&mut self, ty: Type, x: clif::Value, y: clif::Value, extend: Extend) -> clif::Value {
        if ty == Type::I64 {
            return match extend {
                Extend::Zero => self.b.ins().umul_overflow(x, y).1,
                Extend::Sign => self.b.ins().smul_overflow(x, y).1,
            };
        }
        let (x, y) = (self.extend(types::I64, x, extend), self.extend(types::I64, y, extend));
        let product = self.b.ins().imul(x, y);
        let low = self.b.ins().ireduce(clif_type(ty), product);
        let fits = self.extend(types::I64, low, extend);
        self.b.ins().icmp(IntCC::NotEqual, product, fits)
    }

    fn extend(&mut self, ty: clif::Type, x: clif::Value, extend: Extend) -> clif::Value {
        if self.b.func.dfg.value_type(x) == ty {
            return x;
        }
        match extend {
            Extend::Zero => self.b.ins().uextend(ty, x),
            Extend::Sign => self.b.ins().sextend(ty, x),
        }
    }

    /// `udiv`, `urem`: (high:low) / divisor. #DE for a zero divisor or a quotient that does not fit, which is high >= divisor.
    fn unsigned_division(&mut self, inst: &Inst, part: Part) -> clif::Value {
        let (high, low, divisor) = (self.arg(inst, 0), self.arg(inst, 1), self.arg(inst, 2));
        if self.as_const(inst.args[0]) == Some(0) {
            let faults = self.b.ins().icmp_imm_s(IntCC::Equal, divisor, 0);
            self.fault_unless_zero(faults, FaultKind::DivideError);
            return self.divide(inst.ty, low, divisor, part, Extend::Zero);
        }
        let faults = self.b.ins().icmp(IntCC::UnsignedGreaterThanOrEqual, high, divisor);
        self.fault_unless_zero(faults, FaultKind::DivideError);
        if inst.ty == Type::I64 {
            let narrow = self.b.ins().icmp_imm_s(IntCC::Equal, high, 0);
            let helper = if part == Part::Quotient { Helper::Udiv128 } else { Helper::Urem128 };
            return self.either(
                narrow,
                |l| l.divide(Type::I64, low, divisor, part, Extend::Zero),
                |l| l.call_table(helper as usize, &[high, low, divisor]),
            );
        }
        let dividend = self.dividend(inst.ty, high, low, Extend::Zero);
        let divisor = self.b.ins().uextend(types::I64, divisor);
        let result = self.divide(Type::I64, dividend, divisor, part, Extend::Zero);
        self.b.ins().ireduce(clif_type(inst.ty), result)
    }

    /// `sdiv`, `srem`. The usual case is a dividend that is `low` sign-extended (CDQ, CQO): one machine division.
    fn signed_division(&mut self, inst: &Inst, part: Part) -> clif::Value {
        let (high, low, divisor) = (self.arg(inst, 0), self.arg(inst, 1), self.arg(inst, 2));
        let zero = self.b.ins().icmp_imm_s(IntCC::Equal, divisor, 0);
        self.fault_unless_zero(zero, FaultKind::DivideError);
        match inst.ty {
            Type::I8 | Type::I16 => {
                let dividend = self.dividend(inst.ty, high, low, Extend::Sign);
                let divisor = self.b.ins().sextend(types::I64, divisor);
                let quotient = self.divide(Type::I64, dividend, divisor, Part::Quotient, Extend::Sign);
                self.fault_unless_fits(inst.ty, quotient);
                let result = match part {
                    Part::Quotient => quotient,
                    Part::Remainder => self.divide(Type::I64, dividend, divisor, Part::Remainder, Extend::Sign),
                };
                self.b.ins().ireduce(clif_type(inst.ty), result)
            }
            _ => {
                let sign = self.b.ins().sshr_imm_u(low, i64::from(inst.ty.bits()) - 1);
                let narrow = self.b.ins().icmp(IntCC::Equal, high, sign);
                self.either(
                    narrow,
                    |l| l.narrow_signed_division(inst.ty, low, divisor, part),
                    |l| l.wide_signed_division(inst.ty, high, low, divisor, part),
                )
            }
        }
    }

    /// low / divisor, where the quotient only fails to fit for the least number by -1.
    fn narrow_signed_division(&mut self, ty: Type, low: clif::Value, divisor: clif::Value, part: Part) -> clif::Value {
        let least = self.iconst(clif_type(ty), i64::MIN >> (64 - ty.bits()));
        let least = self.b.ins().icmp(IntCC::Equal, low, least);
        let minus_one = self.b.ins().icmp_imm_s(IntCC::Equal, divisor, -1);
        let faults = self.b.ins().band(least, minus_one);
        self.fault_unless_zero(faults, FaultKind::DivideError);
        self.divide(ty, low, divisor, part, Extend::Sign)
    }

    /// (high:low) / divisor out of line.
    fn wide_signed_division(
        &mut self,
        ty: Type,
        high: clif::Value,
        low: clif::Value,
        divisor: clif::Value,
        part: Part,
    ) -> clif::Value {
        let words = if ty == Type::I64 {
            [high, low, divisor]
        } else {
            let low = self.dividend(ty, high, low, Extend::Sign);
            [self.b.ins().sshr_imm_u(low, 63), low, self.b.ins().sextend(types::I64, divisor)]
        };
        let faults = self.call_table(Helper::SdivFaults as usize, &words);
        self.fault_unless_zero(faults, FaultKind::DivideError);
        let quotient = self.call_table(Helper::Sdiv128 as usize, &words);
        if ty != Type::I64 {
            self.fault_unless_fits(ty, quotient);
        }
        let result = match part {
            Part::Quotient => quotient,
            Part::Remainder => self.call_table(Helper::Srem128 as usize, &words),
        };
        self.narrow(result, clif_type(ty))
    }

    /// high:low of a type below 64 bits, as `i64`.
    fn dividend(&mut self, ty: Type, high: clif::Value, low: clif::Value, extend: Extend) -> clif::Value {
        let high = self.extend(types::I64, high, extend);
        let high = self.b.ins().ishl_imm_u(high, i64::from(ty.bits()));
        let low = self.b.ins().uextend(types::I64, low);
        self.b.ins().bor(high, low)
    }

    /// #DE if a quotient is no sign-extended value of `ty`.
    fn fault_unless_fits(&mut self, ty: Type, quotient: clif::Value) {
        let low = self.b.ins().ireduce(clif_type(ty), quotient);
        let back = self.b.ins().sextend(types::I64, low);
        let faults = self.b.ins().icmp(IntCC::NotEqual, back, quotient);
        self.fault_unless_zero(faults, FaultKind::DivideError);
    }

    /// The machine's division, which the checks above keep from trapping.
    fn divide(&mut self, ty: Type, x: clif::Value, y: clif::Value, part: Part, extend: Extend) -> clif::Value {
        let small = matches!(ty, Type::I8 | Type::I16);
        let (x, y) =
            if small { (self.extend(types::I32, x, extend), self.extend(types::I32, y, extend)) } else { (x, y) };
        let ins = self.b.ins();
        let result = match (part, extend) {
            (Part::Quotient, Extend::Zero) => ins.udiv(x, y),
            (Part::Remainder, Extend::Zero) => ins.urem(x, y),
            (Part::Quotient, Extend::Sign) => ins.sdiv(x, y),
            (Part::Remainder, Extend::Sign) => ins.srem(x, y),
        };
        if small { self.b.ins().ireduce(clif_type(ty), result) } else { result }
    }

    /// The value of `usual` if `cond` is not 0, else that of `rare`, whose code lies apart.
    pub(super) fn either(
        &mut self,
        cond: clif::Value,
        usual: impl FnOnce(&mut Self) -> clif::Value,
        rare: impl FnOnce(&mut Self) -> clif::Value,
    ) -> clif::Value {
        let (hot, cold, join) = (self.b.create_block(), self.b.create_block(), self.b.create_block());
        self.b.set_cold_block(cold);
        self.b.ins().brif(cond, hot, &[], cold, &[]);
        self.b.switch_to_block(hot);
        let value = usual(self);
        let result = self.b.append_block_param(join, self.b.func.dfg.value_type(value));
        self.b.ins().jump(join, &[value.into()]);
        self.b.switch_to_block(cold);
        let value = rare(self);
        self.b.ins().jump(join, &[value.into()]);
        self.b.switch_to_block(join);
        // So that it is seen at once that registers hold the same on both ways.
        [hot, cold, join].into_iter().for_each(|block| self.b.seal_block(block));
        result
    }
}

/// How a value is widened.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Extend {
    Zero,
    Sign,
}

/// Bit n: whether n has an even number of one bits.
const EVEN_NIBBLES: i64 = 0x9669;
