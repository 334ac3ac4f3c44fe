//! Single bits, bit scans and counts, byte swaps, BMI.

use super::flags::{Flag, FlagSet, Recipe};
use super::operand::{Atomic, Gpr};
use super::{Insn, Lifter};
use calque_ir::{Cc, Helper, Mem, Op, RmwOp, Type, Value};
use iced_x86::OpKind;

/// What BT, BTS, BTR, BTC do to the bit after copying it to CF.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum BitOp {
    Keep,
    Set,
    Reset,
    Flip,
}

/// From which end a scan or count goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum First {
    Lowest,
    Highest,
}

pub(super) fn bit_test(l: &mut Lifter<'_>, i: &Insn, op: BitOp) {
    let ty = l.op_type(i, 0);
    let top = u64::from(ty.bits()) - 1;
    let n = match i.op_kind(1) {
        OpKind::Register => {
            let n = l.read(i, 1);
            let mask = l.b.iconst(ty, top);
            l.b.binary(Op::Band, ty, n, mask)
        }
        _ => l.b.iconst(ty, i.immediate(1) & top),
    };
    let old =
        if i.op_kind(0) == OpKind::Memory { bit_in_memory(l, i, op, ty, n) } else { bit_in_register(l, i, op, ty, n) };
    let cf = match l.b.as_const(n) {
        Some(n) => l.bit(old, n as u32, ty),
        None => {
            let low = l.b.binary(Op::Ushr, ty, old, n);
            l.b.unary(Op::Ireduce, Type::I1, low)
        }
    };
    l.set_flags_undefined(FlagSet::ALL.without(FlagSet::CF.or(FlagSet::ZF)));
    l.set_flag(Flag::Cf, cf);
}

fn bit_mask(l: &mut Lifter<'_>, ty: Type, n: Value) -> Value {
    match l.b.as_const(n) {
        Some(n) => l.b.iconst(ty, 1 << n),
        None => {
            let one = l.b.iconst(ty, 1);
            l.b.binary(Op::Ishl, ty, one, n)
        }
    }
}

fn changed(l: &mut Lifter<'_>, op: BitOp, ty: Type, old: Value, mask: Value) -> Value {
    let op = match op {
        BitOp::Set => Op::Bor,
        BitOp::Reset => Op::BandNot,
        _ => Op::Bxor,
    };
    l.b.binary(op, ty, old, mask)
}

fn bit_in_register(l: &mut Lifter<'_>, i: &Insn, op: BitOp, ty: Type, n: Value) -> Value {
    let old = l.read(i, 0);
    if op != BitOp::Keep {
        let mask = bit_mask(l, ty, n);
        let new = changed(l, op, ty, old, mask);
        l.write(i, 0, new);
    }
    old
}

/// A bit of memory; a register index reaches beyond the operand (SDM vol. 2 3.1.1.9, BitBase).
fn bit_in_memory(l: &mut Lifter<'_>, i: &Insn, op: BitOp, ty: Type, n: Value) -> Value {
    let mut m = l.addr(i);
    if i.op_kind(1) == OpKind::Register {
        m = bit_string(l, i, m, ty);
    }
    if op == BitOp::Keep {
        return l.b.load(ty, m);
    }
    let mask = bit_mask(l, ty, n);
    if i.has_lock_prefix() {
        return match op {
            BitOp::Set => l.b.rmw(RmwOp::Or, ty, m, mask),
            BitOp::Flip => l.b.rmw(RmwOp::Xor, ty, m, mask),
            _ => {
                let keep = l.b.unary(Op::Bnot, ty, mask);
                l.b.rmw(RmwOp::And, ty, m, keep)
            }
        };
    }
    let old = l.b.load(ty, m);
    let new = changed(l, op, ty, old, mask);
    l.b.store(ty, m, new);
    old
}

/// The address of the word that holds the bit with the signed index in operand 1.
fn bit_string(l: &mut Lifter<'_>, i: &Insn, m: Mem, ty: Type) -> Mem {
    let index = l.read(i, 1);
    let index = if ty == Type::I64 { index } else { l.b.unary(Op::Sextend, Type::I64, index) };
    let log = l.b.iconst(Type::I64, u64::from(ty.bits().trailing_zeros()));
    let word = l.b.binary(Op::Sshr, Type::I64, index, log);
    let bytes = l.b.iconst(Type::I64, u64::from(ty.bytes().trailing_zeros()));
    let offset = l.b.binary(Op::Ishl, Type::I64, word, bytes);
    let at = l.addr_value(m);
    if !super::operand::has_narrow_address(i) {
        return Mem { base: Some(at), index: Some(offset), scale: 0, disp: 0 };
    }
    let sum = l.b.binary(Op::Iadd, Type::I64, at, offset);
    let low = l.b.unary(Op::Ireduce, Type::I32, sum);
    Mem::base(l.b.unary(Op::Uextend, Type::I64, low))
}

/// BSF, BSR: the destination stays as it is, all 64 bits, if the source is 0, as AMD documents and Intel does.
pub(super) fn bit_scan(l: &mut Lifter<'_>, i: &Insn, end: First) {
    let ty = l.op_type(i, 0);
    let v = l.read(i, 1);
    let old = l.read(i, 0);
    let found = match end {
        First::Lowest => l.b.unary(Op::Ctz, ty, v),
        First::Highest => {
            let zeros = l.b.unary(Op::Clz, ty, v);
            let top = l.b.iconst(ty, u64::from(ty.bits()) - 1);
            l.b.binary(Op::Bxor, ty, zeros, top)
        }
    };
    let is_zero = l.compare_zero(Cc::Equal, ty, v);
    match Gpr::from_iced(i.op0_register()) {
        Some(Gpr::R32(n)) => {
            let (full, found) = (l.gpr64(n), l.b.unary(Op::Uextend, Type::I64, found));
            let r = l.b.select(Type::I64, is_zero, full, found);
            l.write_gpr(Gpr::R64(n), r);
        }
        _ => {
            let r = l.b.select(ty, is_zero, old, found);
            l.write(i, 0, r);
        }
    }
    l.set_flags_only(FlagSet::ZF, Recipe::Logic { r: v }, ty);
}

/// TZCNT, LZCNT: the width for 0, with CF.
pub(super) fn bit_count(l: &mut Lifter<'_>, i: &Insn, end: First) {
    let ty = l.op_type(i, 0);
    let v = l.read(i, 1);
    let r = l.b.unary(if end == First::Lowest { Op::Ctz } else { Op::Clz }, ty, v);
    let cf = l.compare_zero(Cc::Equal, ty, v);
    l.write(i, 0, r);
    l.set_flags_only(FlagSet::ZF, Recipe::Logic { r }, ty);
    l.set_flag(Flag::Cf, cf);
}

pub(super) fn popcnt(l: &mut Lifter<'_>, i: &Insn) {
    let ty = l.op_type(i, 0);
    let v = l.read(i, 1);
    let r = l.b.unary(Op::Popcnt, ty, v);
    l.write(i, 0, r);
    l.set_flags_only(FlagSet::ZF, Recipe::Logic { r: v }, ty);
    l.set_flags_const(FlagSet::ALL.without(FlagSet::ZF), false);
}

/// BSWAP; of a 16-bit register, which is undefined, it gives 0 as processors do.
pub(super) fn bswap(l: &mut Lifter<'_>, i: &Insn) {
    let ty = l.op_type(i, 0);
    let r = if ty == Type::I16 {
        l.b.iconst(ty, 0)
    } else {
        let v = l.read(i, 0);
        l.b.unary(Op::Bswap, ty, v)
    };
    l.write(i, 0, r);
}

pub(super) fn movbe(l: &mut Lifter<'_>, i: &Insn) {
    let ty = l.op_type(i, 0);
    let v = l.read(i, 1);
    let v = l.b.unary(Op::Bswap, ty, v);
    l.write(i, 0, v);
}

/// ANDN (BMI1).
pub(super) fn andn(l: &mut Lifter<'_>, i: &Insn) {
    let ty = l.op_type(i, 0);
    let (a, b) = (l.read(i, 1), l.read(i, 2));
    let r = l.b.binary(Op::BandNot, ty, b, a);
    l.write(i, 0, r);
    l.set_flags(Recipe::Logic { r }, ty);
}

/// What the BLS* instructions make of x and x - 1.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum LowestBit {
    /// BLSI: x & -x, CF = x != 0.
    Isolate,
    /// BLSMSK: x ^ (x - 1), CF = x == 0.
    Mask,
    /// BLSR: x & (x - 1), CF = x == 0.
    Clear,
}

pub(super) fn lowest_bit(l: &mut Lifter<'_>, i: &Insn, op: LowestBit) {
    let ty = l.op_type(i, 0);
    let x = l.read(i, 1);
    let one = l.b.iconst(ty, 1);
    let (r, cc) = match op {
        LowestBit::Isolate => {
            let minus = l.b.unary(Op::Ineg, ty, x);
            (l.b.binary(Op::Band, ty, x, minus), Cc::NotEqual)
        }
        LowestBit::Mask | LowestBit::Clear => {
            let less = l.b.binary(Op::Isub, ty, x, one);
            let ir = if op == LowestBit::Mask { Op::Bxor } else { Op::Band };
            (l.b.binary(ir, ty, x, less), Cc::Equal)
        }
    };
    let cf = l.compare_zero(cc, ty, x);
    l.write(i, 0, r);
    l.set_flags(Recipe::Logic { r }, ty);
    l.set_flag(Flag::Cf, cf);
}

/// `v` with the bits from `n` (0..=255, type `ty`) on cleared.
fn low_bits(l: &mut Lifter<'_>, ty: Type, v: Value, n: Value) -> (Value, Value) {
    let width = l.b.iconst(ty, u64::from(ty.bits()));
    let beyond = l.b.icmp(Cc::UnsignedGreaterThanOrEqual, ty, n, width);
    let mask = l.b.iconst(ty, u64::from(ty.bits()) - 1);
    let within = l.b.binary(Op::Band, ty, n, mask);
    let ones = l.b.iconst(ty, u64::MAX);
    let above = l.b.binary(Op::Ishl, ty, ones, within);
    let cut = l.b.binary(Op::BandNot, ty, v, above);
    (l.b.select(ty, beyond, v, cut), beyond)
}

/// BZHI (BMI2).
pub(super) fn bzhi(l: &mut Lifter<'_>, i: &Insn) {
    let ty = l.op_type(i, 0);
    let (v, n) = (l.read(i, 1), l.read(i, 2));
    let mask = l.b.iconst(ty, 0xff);
    let n = l.b.binary(Op::Band, ty, n, mask);
    let (r, beyond) = low_bits(l, ty, v, n);
    l.write(i, 0, r);
    l.set_flags(Recipe::Logic { r }, ty);
    l.set_flag(Flag::Cf, beyond);
}

/// PDEP, PEXT (BMI2): no flags.
pub(super) fn by_mask(l: &mut Lifter<'_>, i: &Insn, helper: Helper) {
    let ty = l.op_type(i, 0);
    let operands = [1, 2].map(|op| {
        let v = l.read_as(i, op, ty);
        if ty == Type::I64 { v } else { l.b.unary(Op::Uextend, Type::I64, v) }
    });
    let r = l.b.call(helper, &operands);
    let r = if ty == Type::I64 { r } else { l.b.unary(Op::Ireduce, ty, r) };
    l.write(i, 0, r);
}

/// BEXTR (BMI1): start in bits 0..8 of the control, length in 8..16.
pub(super) fn bextr(l: &mut Lifter<'_>, i: &Insn) {
    let ty = l.op_type(i, 0);
    let (v, control) = (l.read(i, 1), l.read(i, 2));
    let (byte, eight) = (l.b.iconst(ty, 0xff), l.b.iconst(ty, 8));
    let start = l.b.binary(Op::Band, ty, control, byte);
    let len = l.b.binary(Op::Ushr, ty, control, eight);
    let len = l.b.binary(Op::Band, ty, len, byte);
    let top = l.b.iconst(ty, u64::from(ty.bits()) - 1);
    let within = l.b.binary(Op::Band, ty, start, top);
    let beyond = l.b.icmp(Cc::UnsignedGreaterThan, ty, start, top);
    let shifted = l.b.binary(Op::Ushr, ty, v, within);
    let zero = l.b.iconst(ty, 0);
    let shifted = l.b.select(ty, beyond, zero, shifted);
    let (r, _) = low_bits(l, ty, shifted, len);
    l.write(i, 0, r);
    l.set_flags(Recipe::Logic { r }, ty);
}

/// ADCX, ADOX (ADX): ADC whose carry is `flag` and that writes no other.
pub(super) fn add_carry_flag(l: &mut Lifter<'_>, i: &Insn, flag: Flag) {
    let ty = l.op_type(i, 0);
    let b = l.read(i, 1);
    let c = l.flag(flag);
    let (a, _) = l.modify(i, 0, Atomic::None, |l, a| {
        let wide = l.b.unary(Op::Uextend, ty, c);
        let r = l.b.binary(Op::Iadd, ty, a, b);
        l.b.binary(Op::Iadd, ty, r, wide)
    });
    let out = l.b.ternary(Op::UaddOverflowCin, ty, a, b, c);
    l.set_flag(flag, out);
}
