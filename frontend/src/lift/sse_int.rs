//! SSE and MMX integer arithmetic, logic, compares and shifts.

use super::flags::{Flag, FlagSet};
use super::mmx::is_mmx;
use super::operand::Alignment;
use super::vex::{Halves, first_source, second_source, sse_alignment, vec_halves, vec_unary_with, vec_with};
use super::{Insn, Lifter};
use calque_ir::{Cc, Helper, Op, Type, Value};
use iced_x86::OpKind;

/// Lane-wise operation of destination and source. Serves packed floats as well.
pub(super) fn vec(l: &mut Lifter<'_>, i: &Insn, op: Op, shape: Type) {
    vec_with(l, i, |l, a, b| l.b.binary(op, shape, a, b));
}

/// PXOR, PSUBx: of a register with itself zero, whatever it held.
pub(super) fn vec_cancel(l: &mut Lifter<'_>, i: &Insn, op: Op, shape: Type) {
    let second = second_source(i);
    if i.op_kind(second) == OpKind::Register && i.op_register(first_source(i)) == i.op_register(second) {
        let zero = l.b.vconst([0, 0]);
        return l.write_vec(i, 0, zero);
    }
    vec(l, i, op, shape);
}

/// PANDN and kin: the complement of the destination and the source.
pub(super) fn vec_andnot(l: &mut Lifter<'_>, i: &Insn) {
    vec_with(l, i, |l, a, b| l.b.binary(Op::BandNot, Type::V128, b, a));
}

/// PCMPEQx, PCMPGTx: all ones where the comparison holds.
pub(super) fn vec_compare(l: &mut Lifter<'_>, i: &Insn, cc: Cc, shape: Type) {
    vec_with(l, i, |l, a, b| l.b.icmp(cc, shape, a, b));
}

/// PSLLx, PSRLx, PSRAx: by an immediate or by the low 64 bits of the last operand.
pub(super) fn vec_shift(l: &mut Lifter<'_>, i: &Insn, op: Op, shape: Type) {
    let last = i.op_count() - 1;
    let count = match i.op_kind(last) {
        OpKind::Immediate8 => l.b.iconst(Type::I64, i.immediate(last)),
        _ => {
            let v = l.read_vec(i, last, sse_alignment(i));
            l.b.extract_lane(Type::I64x2, v, 0)
        }
    };
    let a = l.read_halves(i, last - 1, Alignment::Any);
    let r = a.map(l, |l, _, a| l.b.binary(op, shape, a, count));
    l.write_halves(i, 0, r);
}

/// PABSx: the larger of a lane and its negation.
pub(super) fn vec_abs(l: &mut Lifter<'_>, i: &Insn, shape: Type) {
    vec_unary_with(l, i, |l, a| {
        let zero = l.b.vconst([0, 0]);
        let negated = l.b.binary(Op::Isub, shape, zero, a);
        // The least number is its own negation, and stays.
        l.b.binary(Op::Smax, shape, a, negated)
    });
}

/// PSIGNx: destination lanes negated, cleared or kept by the sign of the source's.
pub(super) fn vec_sign(l: &mut Lifter<'_>, i: &Insn, shape: Type) {
    vec_with(l, i, |l, a, b| {
        let zero = l.b.vconst([0, 0]);
        let negative = l.b.icmp(Cc::SignedLessThan, shape, b, zero);
        let is_zero = l.b.icmp(Cc::Equal, shape, b, zero);
        let flipped = l.b.binary(Op::Bxor, Type::V128, a, negative);
        let signed = l.b.binary(Op::Isub, shape, flipped, negative);
        l.b.binary(Op::BandNot, Type::V128, signed, is_zero)
    });
}

/// PHADDx, PHSUBx: `op` of even and odd lanes of destination and source.
pub(super) fn vec_horizontal(l: &mut Lifter<'_>, i: &Insn, op: Op, shape: Type) {
    let width = shape.lane().bytes() as u8;
    let bytes = if is_mmx(i) { 8 } else { 16 };
    vec_with(l, i, |l, a, b| {
        let even = l.b.shuffle(a, b, every_other(width, bytes, 0));
        let odd = l.b.shuffle(a, b, every_other(width, bytes, width));
        l.b.binary(op, shape, even, odd)
    });
}

/// Indices of every other lane of two vectors of `bytes` bytes, from byte `first` on.
pub(super) fn every_other(width: u8, bytes: u8, first: u8) -> [u8; 16] {
    std::array::from_fn(|k| {
        let k = k as u8;
        let at = k / width * 2 * width + first + k % width;
        match at {
            _ if k >= bytes => 0x80,
            at if at < bytes => at,
            at => at - bytes + 16,
        }
    })
}

/// PMADDUBSW: unsigned bytes of the destination times signed ones of the source, added in pairs with saturation.
pub(super) fn pmaddubsw(l: &mut Lifter<'_>, i: &Insn) {
    let shape = Type::I16x8;
    vec_with(l, i, |l, a, b| {
        let eight = l.b.iconst(Type::I64, 8);
        let low = l.b.vconst([0x00ff_00ff_00ff_00ff; 2]);
        let a_even = l.b.binary(Op::Band, Type::V128, a, low);
        let a_odd = l.b.binary(Op::Vushr, shape, a, eight);
        let b_high = l.b.binary(Op::Vshl, shape, b, eight);
        let b_even = l.b.binary(Op::Vsshr, shape, b_high, eight);
        let b_odd = l.b.binary(Op::Vsshr, shape, b, eight);
        let even = l.b.binary(Op::Imul, shape, a_even, b_even);
        let odd = l.b.binary(Op::Imul, shape, a_odd, b_odd);
        l.b.binary(Op::SaddSat, shape, even, odd)
    });
}

/// PMULDQ: products of the even signed 32-bit lanes.
pub(super) fn pmuldq(l: &mut Lifter<'_>, i: &Insn) {
    vec_with(l, i, |l, a, b| {
        let product = |l: &mut Lifter<'_>, lane| {
            let mut signed = |v| {
                let v = l.b.extract_lane(Type::I32x4, v, lane);
                l.b.unary(Op::Sextend, Type::I64, v)
            };
            let (a, b) = (signed(a), signed(b));
            l.b.binary(Op::Imul, Type::I64, a, b)
        };
        let (low, high) = (product(l, 0), product(l, 2));
        l.b.binary(Op::Concat, Type::I64x2, low, high)
    });
}

/// The sign bits that VTESTPS and VTESTPD look at.
pub(super) const SIGNS_32: u64 = 1 << 63 | 1 << 31;
pub(super) const SIGNS_64: u64 = 1 << 63;

/// PTEST: ZF is whether source AND destination is zero, CF whether source AND NOT destination is. VTESTPS and VTESTPD
/// look at the lanes' sign bits only: `mask`.
pub(super) fn ptest(l: &mut Lifter<'_>, i: &Insn, mask: u64) {
    let b = l.read_halves(i, 1, sse_alignment(i));
    let a = l.read_halves(i, 0, Alignment::Any);
    let and = b.zip(l, a, |l, _, b, a| l.b.binary(Op::Band, Type::V128, b, a));
    let rest = b.zip(l, a, |l, _, b, a| l.b.binary(Op::BandNot, Type::V128, b, a));
    let (zf, cf) = (is_zero(l, and, mask), is_zero(l, rest, mask));
    l.set_flags_const(FlagSet::ALL, false);
    l.set_flag(Flag::Zf, zf);
    l.set_flag(Flag::Cf, cf);
}

/// `i1`: whether all bits of `mask`, in each 64 bits, are 0.
fn is_zero(l: &mut Lifter<'_>, v: Halves, mask: u64) -> Value {
    let v = match v.high {
        Some(high) => l.b.binary(Op::Bor, Type::V128, v.low, high),
        None => v.low,
    };
    let low = l.b.extract_lane(Type::I64x2, v, 0);
    let high = l.b.extract_lane(Type::I64x2, v, 1);
    let mut any = l.b.binary(Op::Bor, Type::I64, low, high);
    if mask != u64::MAX {
        let mask = l.b.iconst(Type::I64, mask);
        any = l.b.binary(Op::Band, Type::I64, any, mask);
    }
    l.compare_zero(Cc::Equal, Type::I64, any)
}

/// CRC32 (polynomial 0x11EDC6F41) of 1 to 8 bytes.
pub(super) fn crc32(l: &mut Lifter<'_>, i: &Insn) {
    let ty = l.op_type(i, 1);
    let v = l.read(i, 1);
    let v = if ty == Type::I64 { v } else { l.b.unary(Op::Uextend, Type::I64, v) };
    let to = l.op_type(i, 0);
    let old = l.read(i, 0);
    let old = if to == Type::I64 { l.b.unary(Op::Ireduce, Type::I32, old) } else { old };
    let bytes = l.b.iconst(Type::I32, u64::from(ty.bytes()));
    let r = l.b.call(Helper::Crc32, &[old, v, bytes]);
    let r = if to == Type::I64 { l.b.unary(Op::Uextend, Type::I64, r) } else { r };
    l.write(i, 0, r);
}

/// A helper of destination and source. `alignment` is of the memory form.
pub(super) fn vec_call(l: &mut Lifter<'_>, i: &Insn, helper: Helper) {
    vec_with(l, i, |l, a, b| l.b.call(helper, &[a, b]));
}

/// A helper of the source alone.
pub(super) fn vec_call_unary(l: &mut Lifter<'_>, i: &Insn, helper: Helper) {
    vec_unary_with(l, i, |l, a| l.b.call(helper, &[a]));
}

/// A helper of destination, source and immediate.
pub(super) fn vec_call_imm(l: &mut Lifter<'_>, i: &Insn, helper: Helper) {
    vec_call_imm_halves(l, i, helper, |_, imm| imm);
}

/// MPSADBW: bits 3..6 of the immediate are the upper half's.
pub(super) fn mpsadbw(l: &mut Lifter<'_>, i: &Insn) {
    vec_call_imm_halves(l, i, Helper::Mpsadbw, |half, imm| imm >> (3 * half));
}

fn vec_call_imm_halves(l: &mut Lifter<'_>, i: &Insn, helper: Helper, imm: impl Fn(u8, u8) -> u8) {
    vec_halves(l, i, |l, half, a, b| {
        let imm = l.b.iconst(Type::I32, u64::from(imm(half, i.immediate8())));
        l.b.call(helper, &[a, b, imm])
    });
}

/// AESKEYGENASSIST: a helper of source and immediate.
pub(super) fn vec_call_unary_imm(l: &mut Lifter<'_>, i: &Insn, helper: Helper) {
    vec_unary_with(l, i, |l, a| {
        let imm = l.b.iconst(Type::I32, u64::from(i.immediate8()));
        l.b.call(helper, &[a, imm])
    });
}

/// SHA256RNDS2: a helper of destination, source and XMM0.
pub(super) fn vec_call_xmm0(l: &mut Lifter<'_>, i: &Insn, helper: Helper) {
    vec_with(l, i, |l, a, b| {
        let c = l.xmm(0);
        l.b.call(helper, &[a, b, c])
    });
}
