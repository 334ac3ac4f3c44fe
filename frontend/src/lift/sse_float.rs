//! SSE floating point: arithmetic, compares, conversions.
//!
//! Packed arithmetic is `sse_int::vec` with a float shape. Scalars are computed as scalars and put into lane 0,
//! which the backend keeps in float registers. Rounding mode, exception flags and unmasked exceptions are the engine's
//! (MXCSR). Where an instruction is made of operations on more lanes than it has, the others are zeros, which raise nothing.

use super::flags::Recipe;
use super::operand::{Alignment, vector_of};
use super::sse_int::every_other;
use super::sse_move::has_xmm;
use super::string::{StringOp, string};
use super::vex::{first_source, is_vex, second_source, sse_alignment, vec_unary_with, vec_with};
use super::{Insn, Lifter};
use calque_ir::{FloatCc, Helper, Op, Type, Value};

/// ADDSS and kin: lane 0 of the destination and a scalar.
pub(super) fn scalar(l: &mut Lifter<'_>, i: &Insn, op: Op, ty: Type) {
    let b = l.read_xmm_low_or_mem(i, second_source(i), ty);
    let a = l.read_xmm_low_or_mem(i, first_source(i), ty);
    let r = l.b.binary(op, ty, a, b);
    l.write_xmm_low(i, ty, r);
}

/// MINPS and kin.
pub(super) fn minimum(l: &mut Lifter<'_>, i: &Insn, op: Op, shape: Type) {
    let ones_below_sign = if shape.lane() == Type::F32 { [0x7fff_ffff_7fff_ffff; 2] } else { [i64::MAX as u64; 2] };
    vec_with(l, i, |l, a, b| {
        let r = l.b.binary(op, shape, a, b);
        if !l.opts.flushing {
            return r;
        }
        let (zero, magnitude) = (l.b.vconst([0, 0]), l.b.vconst(ones_below_sign));
        let flushed = l.b.compare_floats(Op::Fcmp, FloatCc::Equal, shape, r, zero);
        let lost = l.b.binary(Op::Band, Type::V128, flushed, magnitude);
        let kept = l.b.unary(Op::Bnot, Type::V128, lost);
        l.b.binary(Op::Band, Type::V128, r, kept)
    });
}

/// MINSS and kin.
pub(super) fn scalar_minimum(l: &mut Lifter<'_>, i: &Insn, op: Op, ty: Type) {
    let b = l.read_xmm_low_or_mem(i, second_source(i), ty);
    let a = l.read_xmm_low_or_mem(i, first_source(i), ty);
    let mut r = l.b.binary(op, ty, a, b);
    if l.opts.flushing {
        let int = Type::int(ty.bits());
        let (zero, sign) = (l.b.iconst(int, 0), l.b.iconst(int, 1 << (ty.bits() - 1)));
        let zero = l.b.unary(Op::Bitcast, ty, zero);
        let flushed = l.b.compare_floats(Op::Fcmp, FloatCc::Equal, ty, r, zero);
        let bits = l.b.unary(Op::Bitcast, int, r);
        let sign = l.b.binary(Op::Band, int, bits, sign);
        let bits = l.b.select(int, flushed, sign, bits);
        r = l.b.unary(Op::Bitcast, ty, bits);
    }
    l.write_xmm_low(i, ty, r);
}

/// SQRTSS, SQRTSD.
pub(super) fn scalar_sqrt(l: &mut Lifter<'_>, i: &Insn, ty: Type) {
    let a = l.read_xmm_low_or_mem(i, second_source(i), ty);
    let r = l.b.unary(Op::Sqrt, ty, a);
    l.write_xmm_low(i, ty, r);
}

/// An operation of the source alone, on packed lanes: SQRTPS, CVTDQ2PS...
pub(super) fn vec_unary(l: &mut Lifter<'_>, i: &Insn, op: Op, ty: Type) {
    vec_unary_with(l, i, |l, a| l.b.unary(op, ty, a));
}

/// RCPSS, RSQRTSS: the vector helper on lane 0.
pub(super) fn scalar_estimate(l: &mut Lifter<'_>, i: &Insn, helper: Helper) {
    let a = l.read_xmm_low_or_mem(i, second_source(i), Type::F32);
    let v = l.b.unary(Op::ScalarToVector, Type::F32x4, a);
    let r = l.b.call(helper, &[v]);
    let r = l.b.extract_lane(Type::F32x4, r, 0);
    l.write_xmm_low(i, Type::F32, r);
}

/// The predicate of CMPPS and kin (SDM vol. 2A table 3-1): bits 0..3 of the immediate, with VEX bits 0..5. Bit 4 only
/// turns around whether a quiet NaN raises the invalid flag.
fn predicate(i: &Insn) -> Predicate {
    use FloatCc::*;
    let imm = i.immediate8() & if is_vex(i) { 31 } else { 7 };
    let signaling = matches!(imm & 15, 1 | 2 | 5 | 6 | 9 | 10 | 13 | 14) != (imm & 16 != 0);
    let op = if signaling { Op::FcmpSignaling } else { Op::Fcmp };
    let holds = |cc| Predicate { op, cc, outcome: None };
    holds(match imm & 15 {
        0 => Equal,
        1 => LessThan,
        2 => LessThanOrEqual,
        3 => Unordered,
        4 => NotEqual,
        5 => UnorderedOrGreaterThanOrEqual,
        6 => UnorderedOrGreaterThan,
        7 => Ordered,
        8 => UnorderedOrEqual,
        9 => UnorderedOrLessThan,
        10 => UnorderedOrLessThanOrEqual,
        11 => return Predicate { outcome: Some(Outcome::Never), ..holds(Unordered) },
        12 => OrderedNotEqual,
        13 => GreaterThanOrEqual,
        14 => GreaterThan,
        _ => return Predicate { outcome: Some(Outcome::Always), ..holds(Unordered) },
    })
}

/// When a lane of a comparison becomes all ones.
struct Predicate {
    /// [`Op::Fcmp`] or [`Op::FcmpSignaling`].
    op: Op,
    cc: FloatCc,
    /// What comes out whatever is compared; exceptions are raised all the same.
    outcome: Option<Outcome>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Never,
    Always,
}

/// CMPPS, CMPPD.
pub(super) fn compare_packed(l: &mut Lifter<'_>, i: &Insn, shape: Type) {
    let Predicate { op, cc, outcome } = predicate(i);
    vec_with(l, i, |l, a, b| {
        let mask = l.b.compare_floats(op, cc, shape, a, b);
        match outcome {
            None => mask,
            Some(Outcome::Never) => l.b.vconst([0, 0]),
            Some(Outcome::Always) => l.b.vconst([u64::MAX; 2]),
        }
    });
}

/// CMPSS, CMPSD: lane 0 becomes a mask.
pub(super) fn compare_scalar(l: &mut Lifter<'_>, i: &Insn, ty: Type) {
    let b = l.read_xmm_low_or_mem(i, second_source(i), ty);
    let a = l.read_xmm_low_or_mem(i, first_source(i), ty);
    let Predicate { op, cc, outcome } = predicate(i);
    let compared = l.b.compare_floats(op, cc, ty, a, b);
    let holds = match outcome {
        None => compared,
        Some(outcome) => l.b.iconst(Type::I1, u64::from(outcome == Outcome::Always)),
    };
    let int = Type::int(ty.bits());
    let (ones, zero) = (l.b.iconst(int, u64::MAX), l.b.iconst(int, 0));
    let mask = l.b.select(int, holds, ones, zero);
    l.write_xmm_low(i, int, mask);
}

/// CMPSD, a mnemonic that SSE2 and the string instructions share.
pub(super) fn cmpsd(l: &mut Lifter<'_>, i: &Insn) {
    match has_xmm(i) {
        true => compare_scalar(l, i, Type::F64),
        false => string(l, i, StringOp::Cmps, Type::I32),
    }
}

/// COMISS, UCOMISS and the SD forms, which differ in which NaNs raise the invalid flag: `op`. It compares for the exceptions'
/// sake; conditions compare again where they are asked for, and the first that is takes the place of this one (`pass/fold.rs`).
pub(super) fn compare_to_flags(l: &mut Lifter<'_>, i: &Insn, op: Op, ty: Type) {
    let b = l.read_xmm_low_or_mem(i, second_source(i), ty);
    let a = l.read_xmm_low_or_mem(i, first_source(i), ty);
    l.b.compare_floats(op, FloatCc::Unordered, ty, a, b);
    l.set_flags(Recipe::Float { a, b }, ty);
}

/// CVTSI2SS, CVTSI2SD: the integer's width is the operand's.
pub(super) fn from_int(l: &mut Lifter<'_>, i: &Insn, ty: Type) {
    let v = l.read(i, second_source(i));
    let r = l.b.unary(Op::FcvtFromSint, ty, v);
    l.write_xmm_low(i, ty, r);
}

/// CVTSS2SI, CVTSD2SI and the truncating forms.
pub(super) fn to_int(l: &mut Lifter<'_>, i: &Insn, op: Op, from: Type) {
    let v = l.read_xmm_low_or_mem(i, second_source(i), from);
    let ty = l.op_type(i, 0);
    let r = l.b.unary(op, ty, v);
    l.write(i, 0, r);
}

/// CVTSS2SD, CVTSD2SS.
pub(super) fn convert_scalar(l: &mut Lifter<'_>, i: &Insn, op: Op, from: Type, to: Type) {
    let v = l.read_xmm_low_or_mem(i, second_source(i), from);
    let r = l.b.unary(op, to, v);
    l.write_xmm_low(i, to, r);
}

/// CVTPS2PI, CVTTPS2PI: the low half of the source; what lies above raises nothing.
pub(super) fn cvtps2pi(l: &mut Lifter<'_>, i: &Insn, op: Op) {
    l.check_x87(); // before anything is raised
    vec_unary_with(l, i, |l, a| {
        let low = l.b.extract_lane(Type::I64x2, a, 0);
        let low = l.b.unary(Op::ScalarToVector, Type::I64x2, low);
        l.b.unary(op, Type::I32x4, low)
    });
}

/// CVTPD2PI, CVTTPD2PI.
pub(super) fn cvtpd2pi(l: &mut Lifter<'_>, i: &Insn, op: Op) {
    l.check_x87();
    vec_unary(l, i, op, Type::I32x4);
}

/// CVTPI2PS: two integers to the low half; the upper half stays.
pub(super) fn cvtpi2ps(l: &mut Lifter<'_>, i: &Insn) {
    let v = l.read_vec(i, 1, Alignment::Any);
    let low = l.b.extract_lane(Type::I64x2, v, 0);
    let v = l.b.unary(Op::ScalarToVector, Type::I64x2, low);
    let r = l.b.unary(Op::FcvtFromSint, Type::F32x4, v);
    let low = l.b.extract_lane(Type::I64x2, r, 0);
    let old = l.read_xmm(i, 0);
    let new = l.b.insert_lane(Type::I64x2, old, low, 0);
    l.write_vec(i, 0, new);
}

/// ADDSUBPS, ADDSUBPD: even lanes subtract, odd ones add.
pub(super) fn addsub(l: &mut Lifter<'_>, i: &Insn, shape: Type) {
    vec_with(l, i, |l, a, b| {
        alternating(l, shape, [a, b], |l, op, [a, b]| {
            let op = if op == Parity::Even { Op::Fsub } else { Op::Fadd };
            l.b.binary(op, shape, a, b)
        })
    });
}

/// The lanes of one operation out of two.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Parity {
    Even,
    Odd,
}

/// One operation in the even lanes, another in the odd ones. Each sees zeros in the other's lanes, where it raises nothing
/// and gives a zero.
pub(super) fn alternating<const N: usize>(
    l: &mut Lifter<'_>,
    shape: Type,
    operands: [Value; N],
    f: impl Fn(&mut Lifter<'_>, Parity, [Value; N]) -> Value,
) -> Value {
    let even: u64 = if shape.lane() == Type::F32 { 0xffff_ffff } else { u64::MAX };
    let masks = match shape.lane() {
        Type::F32 => [[even; 2], [!even; 2]],
        _ => [[even, 0], [0, even]],
    };
    let [even, odd] = [(Parity::Even, masks[0]), (Parity::Odd, masks[1])].map(|(lanes, mask)| {
        let mask = l.b.vconst(mask);
        let masked = operands.map(|v| l.b.binary(Op::Band, Type::V128, v, mask));
        let r = f(l, lanes, masked);
        l.b.binary(Op::Band, Type::V128, r, mask)
    });
    l.b.binary(Op::Bor, Type::V128, even, odd)
}

/// HADDPS, HSUBPS and PD forms: even lanes op odd lanes, of the destination, then of the source.
pub(super) fn horizontal(l: &mut Lifter<'_>, i: &Insn, op: Op, shape: Type) {
    let width = shape.lane().bytes() as u8;
    vec_with(l, i, |l, a, b| {
        let even = l.b.shuffle(a, b, every_other(width, 16, 0));
        let odd = l.b.shuffle(a, b, every_other(width, 16, width));
        l.b.binary(op, shape, even, odd)
    });
}

/// DPPS, DPPD: the sum of the products that the immediate's upper half chooses, in the lanes that its lower half does. Products and
/// sums are steps of their own: an unmasked exception in one keeps the next from being made.
pub(super) fn dot_product(l: &mut Lifter<'_>, i: &Insn, shape: Type) {
    let imm = i.immediate8();
    let (width, lanes) = (shape.lane().bytes() as u8, shape.lanes() as u8);
    // Lane numbers as byte indices of a shuffle; lanes of `lanes` and above are zero.
    let by_lane = |lane: &dyn Fn(u8) -> u8| -> [u8; 16] {
        std::array::from_fn(|k| match lane(k as u8 / width) {
            n if n < lanes => n * width + k as u8 % width,
            _ => 0x80,
        })
    };
    let chosen = |bit: u8, lane: u8, there: u8| if imm >> (bit + lane) & 1 != 0 { there } else { lanes };
    let b = l.read_halves(i, second_source(i), sse_alignment(i));
    let a = l.read_halves(i, first_source(i), Alignment::Any);
    let mut sum = a.zip(l, b, |l, _, a, b| {
        // Lanes that are not chosen raise nothing.
        let [a, b] = [a, b].map(|v| l.b.shuffle(v, v, by_lane(&|n| chosen(4, n, n))));
        l.b.binary(Op::Fmul, shape, a, b)
    });
    // (p0 + p1) + (p2 + p3) in lane 0.
    let mut step = 1;
    while step < lanes {
        l.next_step();
        sum = sum.map(l, |l, _, v| {
            let other = l.b.shuffle(v, v, by_lane(&|n| n ^ step));
            l.b.binary(Op::Fadd, shape, v, other)
        });
        step *= 2;
    }
    let r = sum.map(l, |l, _, v| match (0..lanes).any(|n| imm >> n & 1 != 0) {
        true => l.b.shuffle(v, v, by_lane(&|n| chosen(0, n, 0))),
        false => l.b.vconst([0, 0]),
    });
    l.write_halves(i, 0, r);
}

/// The operation for an immediate of ROUNDPS (SDM vol. 2B table 4-18) that names a rounding mode and wants no precision
/// exception, as compilers use it.
fn static_rounding(i: &Insn) -> Option<Op> {
    const MXCSR: u8 = 4;
    const QUIET: u8 = 8;
    let imm = i.immediate8();
    let fixed = [Op::Nearest, Op::Floor, Op::Ceil, Op::Trunc][usize::from(imm & 3)];
    (imm & (MXCSR | QUIET) == QUIET).then_some(fixed)
}

/// ROUNDPS, ROUNDPD; the helper is for all other immediates.
pub(super) fn round_packed(l: &mut Lifter<'_>, i: &Insn, shape: Type, helper: Helper) {
    vec_unary_with(l, i, |l, a| match static_rounding(i) {
        Some(op) => l.b.unary(op, shape, a),
        None => round_by_immediate(l, i, helper, a),
    });
}

/// ROUNDSS, ROUNDSD.
pub(super) fn round_scalar(l: &mut Lifter<'_>, i: &Insn, ty: Type, helper: Helper) {
    let a = l.read_xmm_low_or_mem(i, second_source(i), ty);
    let r = match static_rounding(i) {
        Some(op) => l.b.unary(op, ty, a),
        None => {
            let v = l.b.unary(Op::ScalarToVector, vector_of(ty), a);
            let r = round_by_immediate(l, i, helper, v);
            l.b.extract_lane(vector_of(ty), r, 0)
        }
    };
    l.write_xmm_low(i, ty, r);
}

fn round_by_immediate(l: &mut Lifter<'_>, i: &Insn, helper: Helper, v: Value) -> Value {
    let how = rounding_mode(l, i);
    l.b.call(helper, &[v, how])
}

/// The immediate that chooses a rounding mode, as helpers take it.
pub(super) fn rounding_mode(l: &mut Lifter<'_>, i: &Insn) -> Value {
    l.b.iconst(Type::I32, u64::from(i.immediate8()))
}
