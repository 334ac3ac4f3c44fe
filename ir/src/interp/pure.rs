//! The meaning of the pure operations: from operands to result, one arm an operation.
//!
//! Generic over where operands come from, so that the interpreter (frame slots) and constant folding (constants)
//! cannot disagree.

use super::float::{self, Float, Rounding};
use super::int;
pub(crate) use super::int::mask;
use super::lanes::{self, Lane, map, narrow, zip};
use crate::op::Op;
use crate::region::{Cc, FloatCc};
use crate::state::V128;
use crate::types::Type;

/// The operands of one instruction.
pub(crate) trait Operands {
    /// Operand 0, 1 or 2.
    fn arg(&self, slot: usize) -> V128;
    /// Type of operand 0.
    fn arg_type(&self) -> Type;
    /// The constant that `args[slot]` names in the region's pool.
    fn pool(&self, slot: usize) -> V128;
    /// The immediate.
    fn imm(&self) -> u64;
    /// Rounding control and the rest of MXCSR.
    fn mxcsr(&self) -> u32;
}

/// Floating-point lanes: `f(a)`.
macro_rules! float_map {
    ($ty:expr, $a:expr, $f:expr) => {
        match $ty {
            Type::F32 => scalar32($f(f32_of($a))),
            Type::F64 => scalar64($f(f64_of($a))),
            Type::F32x4 => map::<f32>($a, $f),
            _ => map::<f64>($a, $f),
        }
    };
}

/// Floating-point lanes: `f(a, b)`.
macro_rules! float_zip {
    ($ty:expr, $a:expr, $b:expr, $f:expr) => {
        match $ty {
            Type::F32 => scalar32($f(f32_of($a), f32_of($b))),
            Type::F64 => scalar64($f(f64_of($a), f64_of($b))),
            Type::F32x4 => zip::<f32>($a, $b, $f),
            _ => zip::<f64>($a, $b, $f),
        }
    };
}

/// Unsigned integer lanes: `f(a, b)`.
macro_rules! unsigned_zip {
    ($ty:expr, $a:expr, $b:expr, $f:expr) => {
        match $ty {
            Type::I8x16 => zip::<u8>($a, $b, $f),
            Type::I16x8 => zip::<u16>($a, $b, $f),
            Type::I32x4 => zip::<u32>($a, $b, $f),
            _ => zip::<u64>($a, $b, $f),
        }
    };
}

/// Signed integer lanes: `f(a, b)`.
macro_rules! signed_zip {
    ($ty:expr, $a:expr, $b:expr, $f:expr) => {
        match $ty {
            Type::I8x16 => zip::<i8>($a, $b, $f),
            Type::I16x8 => zip::<i16>($a, $b, $f),
            Type::I32x4 => zip::<i32>($a, $b, $f),
            _ => zip::<i64>($a, $b, $f),
        }
    };
}

/// Result of a pure operation.
///
/// # Panics
/// For operations with effects: they are the interpreter's.
#[inline(always)]
pub(crate) fn eval(op: Op, ty: Type, aux: u16, o: &impl Operands) -> V128 {
    let (a, b, c) = (|| o.arg(0), || o.arg(1), || o.arg(2));
    let (x, y, z) = (|| o.arg(0)[0], || o.arg(1)[0], || o.arg(2)[0]);
    match op {
        Op::Iconst => scalar(o.imm()),
        Op::Vconst => o.pool(0),

        Op::Bitcast | Op::Uextend => scalar(x()),
        Op::Sextend => scalar(int::signed(o.arg_type(), x()) as u64 & int::mask(ty)),
        Op::Ireduce => scalar(x() & int::mask(ty)),
        Op::Ineg if ty.is_vector() => unsigned_zip!(ty, [0, 0], a(), |p, q| p.wrapping_sub(q)),
        Op::Ineg => scalar(x().wrapping_neg() & int::mask(ty)),
        Op::Bnot if ty.is_vector() => a().map(|w| !w),
        Op::Bnot => scalar(!x() & int::mask(ty)),
        Op::Clz => scalar(u64::from(x().leading_zeros()) - (64 - u64::from(ty.bits()))),
        Op::Ctz => scalar(u64::from(x().trailing_zeros().min(ty.bits()))),
        Op::Popcnt => scalar(u64::from(x().count_ones())),
        Op::Bswap => scalar(x().swap_bytes() >> (64 - ty.bits())),
        Op::Parity => flag((x() as u8).count_ones() & 1 == 0),

        Op::Iadd if ty.is_vector() => unsigned_zip!(ty, a(), b(), |p, q| p.wrapping_add(q)),
        Op::Iadd => scalar(x().wrapping_add(y()) & int::mask(ty)),
        Op::Isub if ty.is_vector() => unsigned_zip!(ty, a(), b(), |p, q| p.wrapping_sub(q)),
        Op::Isub => scalar(x().wrapping_sub(y()) & int::mask(ty)),
        Op::Imul if ty.is_vector() => unsigned_zip!(ty, a(), b(), |p, q| p.wrapping_mul(q)),
        Op::Imul => scalar(x().wrapping_mul(y()) & int::mask(ty)),
        Op::Umulhi if ty.is_vector() => zip::<u16>(a(), b(), |p, q| (u32::from(p) * u32::from(q) >> 16) as u16),
        Op::Umulhi => scalar((u128::from(x()) * u128::from(y()) >> ty.bits()) as u64),
        Op::Smulhi if ty.is_vector() => zip::<i16>(a(), b(), |p, q| (i32::from(p) * i32::from(q) >> 16) as i16),
        Op::Smulhi => scalar((signed_product(ty, x(), y()) >> ty.bits()) as u64 & int::mask(ty)),
        Op::Band => words(a(), b(), |p, q| p & q),
        Op::Bor => words(a(), b(), |p, q| p | q),
        Op::Bxor => words(a(), b(), |p, q| p ^ q),
        Op::BandNot => words(a(), b(), |p, q| p & !q),
        Op::Ishl => scalar(x() << (y() & 63) & int::mask(ty)),
        Op::Ushr => scalar(x() >> (y() & 63)),
        Op::Sshr => scalar((int::signed(ty, x()) >> (y() & 63)) as u64 & int::mask(ty)),
        Op::Rotl => scalar(int::rotl(ty, x(), y())),
        Op::Rotr => scalar(int::rotr(ty, x(), y())),
        Op::InsertLow8 => scalar(x() & !0xff | y()),
        Op::InsertHigh8 => scalar(x() & !0xff00 | y() << 8),
        Op::InsertLow16 => scalar(x() & !0xffff | y()),

        Op::Icmp if ty.is_vector() => lane_compare(Cc::from_code(aux), ty, a(), b()),
        Op::Icmp => flag(int::compare(Cc::from_code(aux), ty, x(), y())),
        Op::Fcmp => float_compare(FloatCc::from_code(aux), ty, a(), b()),
        Op::Select => {
            if x() != 0 {
                b()
            } else {
                c()
            }
        }

        Op::UaddOverflow => flag(x().wrapping_add(y()) & int::mask(ty) < x()),
        Op::SaddOverflow => sum_overflow(ty, x(), y(), x().wrapping_add(y())),
        Op::SsubOverflow => difference_overflow(ty, x(), y(), x().wrapping_sub(y())),
        Op::UmulOverflow => flag(u128::from(x()) * u128::from(y()) > u128::from(int::mask(ty))),
        Op::SmulOverflow => smul_overflow(ty, x(), y()),
        Op::UaddOverflowCin => flag(u128::from(x()) + u128::from(y()) + u128::from(z()) > u128::from(int::mask(ty))),
        Op::SaddOverflowCin => sum_overflow(ty, x(), y(), x().wrapping_add(y()).wrapping_add(z())),
        Op::UsubOverflowBin => flag(u128::from(x()) < u128::from(y()) + u128::from(z())),
        Op::SsubOverflowBin => difference_overflow(ty, x(), y(), x().wrapping_sub(y()).wrapping_sub(z())),
        Op::HalfCarry => scalar((x() ^ y() ^ z()) >> 4 & 1),

        Op::Fadd => float_zip!(ty, a(), b(), |p, q| float::with_nan(p + q, p, q)),
        Op::Fsub => float_zip!(ty, a(), b(), |p, q| float::with_nan(p - q, p, q)),
        Op::Fmul => float_zip!(ty, a(), b(), |p, q| float::with_nan(p * q, p, q)),
        Op::Fdiv => float_zip!(ty, a(), b(), |p, q| float::with_nan(p / q, p, q)),
        Op::Sqrt => float_map!(ty, a(), float::sqrt),
        Op::Fmadd | Op::Fmsub | Op::Fnmadd | Op::Fnmsub => fused(op, ty, [a(), b(), c()]),
        Op::Ceil => float_map!(ty, a(), |p| float::integral(p, Rounding::Up)),
        Op::Floor => float_map!(ty, a(), |p| float::integral(p, Rounding::Down)),
        Op::Trunc => float_map!(ty, a(), |p| float::integral(p, Rounding::Zero)),
        Op::Nearest => float_map!(ty, a(), |p| float::integral(p, Rounding::Nearest)),
        Op::Fmin => float_zip!(ty, a(), b(), float::min),
        Op::Fmax => float_zip!(ty, a(), b(), float::max),
        Op::Fpromote => scalar64(float::promote(f32_of(a()))),
        Op::Fdemote => scalar32(float::demote(f64_of(a()))),
        Op::FvpromoteLow => {
            let [low, high, ..] = f32::split(a());
            f64::join([float::promote(low), float::promote(high)])
        }
        Op::Fvdemote => {
            let [low, high] = f64::split(a());
            f32::join([float::demote(low), float::demote(high), 0.0, 0.0])
        }
        Op::FcvtFromSint => convert_from_int(ty, o.arg_type(), a()),
        Op::FcvtLowFromSint => {
            let [low, high, ..] = i32::split(a());
            f64::join([f64::from(low), f64::from(high)])
        }
        Op::FcvtToSint => convert_to_int(ty, o.arg_type(), a(), Rounding::of_mxcsr(o.mxcsr())),
        Op::FcvtToSintTrunc => convert_to_int(ty, o.arg_type(), a(), Rounding::Zero),
        Op::FcvtLowToSint => convert_low_to_int(a(), Rounding::of_mxcsr(o.mxcsr())),
        Op::FcvtLowToSintTrunc => convert_low_to_int(a(), Rounding::Zero),

        Op::Splat => splat(ty, x()),
        Op::ExtractLane => scalar(extract(ty, a(), aux)),
        Op::InsertLane => insert(ty, a(), y(), aux),
        Op::ScalarToVector => [x(), 0],
        Op::Concat => [x(), y()],
        Op::Shuffle => shuffle(a(), b(), o.pool(2)),
        Op::Swizzle => swizzle(a(), b()),
        Op::HighBits => scalar(high_bits(ty, a())),
        Op::Vshl => vector_shift(ty, a(), y(), Shift::Left),
        Op::Vushr => vector_shift(ty, a(), y(), Shift::Unsigned),
        Op::Vsshr => vector_shift(ty, a(), y(), Shift::Signed),
        Op::UaddSat => unsigned_zip!(ty, a(), b(), |p, q| p.saturating_add(q)),
        Op::SaddSat => signed_zip!(ty, a(), b(), |p, q| p.saturating_add(q)),
        Op::UsubSat => unsigned_zip!(ty, a(), b(), |p, q| p.saturating_sub(q)),
        Op::SsubSat => signed_zip!(ty, a(), b(), |p, q| p.saturating_sub(q)),
        Op::Umin => unsigned_zip!(ty, a(), b(), |p, q| p.min(q)),
        Op::Umax => unsigned_zip!(ty, a(), b(), |p, q| p.max(q)),
        Op::Smin => signed_zip!(ty, a(), b(), |p, q| p.min(q)),
        Op::Smax => signed_zip!(ty, a(), b(), |p, q| p.max(q)),
        Op::AvgRound => unsigned_zip!(ty, a(), b(), |p, q| (p | q) - ((p ^ q) >> 1)),
        Op::Snarrow if ty == Type::I8x16 => narrow::<i16, i8>(a(), b(), |p| p.clamp(-0x80, 0x7f) as i8),
        Op::Snarrow => narrow::<i32, i16>(a(), b(), |p| p.clamp(-0x8000, 0x7fff) as i16),
        Op::Unarrow if ty == Type::I8x16 => narrow::<i16, u8>(a(), b(), |p| p.clamp(0, 0xff) as u8),
        Op::Unarrow => narrow::<i32, u16>(a(), b(), |p| p.clamp(0, 0xffff) as u16),
        Op::Maddwd => {
            let (p, q) = (i16::split(a()), i16::split(b()));
            let product = |i: usize| i32::from(p[i]) * i32::from(q[i]);
            i32::join(std::array::from_fn(|i| product(2 * i).wrapping_add(product(2 * i + 1))))
        }
        Op::Muludq => zip::<u64>(a(), b(), |p, q| u64::from(p as u32) * u64::from(q as u32)),
        Op::Sad => {
            let (p, q) = (u8::split(a()), u8::split(b()));
            u64::join(std::array::from_fn(|i| (8 * i..8 * i + 8).map(|k| u64::from(p[k].abs_diff(q[k]))).sum()))
        }

        Op::Nop
        | Op::Insn
        | Op::Count
        | Op::Get
        | Op::Put
        | Op::Udiv
        | Op::Urem
        | Op::Sdiv
        | Op::Srem
        | Op::Load
        | Op::Store
        | Op::Rmw
        | Op::Cas
        | Op::Fence
        | Op::Call
        | Op::FaultIf => unreachable!("{} is not pure", op.name()),
    }
}

/// `fmadd` and kin, lane by lane.
fn fused(op: Op, ty: Type, args: [V128; 3]) -> V128 {
    let lane32 = |n: usize| fused_lane(op, args.map(|v| f32::from_bits((v[n / 2] >> (32 * (n & 1))) as u32)));
    let lane64 = |n: usize| fused_lane(op, args.map(|v| f64::from_bits(v[n])));
    let pair = |n: usize| u64::from(lane32(n).to_bits()) | u64::from(lane32(n + 1).to_bits()) << 32;
    match ty {
        Type::F32 => scalar32(lane32(0)),
        Type::F64 => scalar64(lane64(0)),
        Type::F32x4 => [pair(0), pair(2)],
        _ => [lane64(0).to_bits(), lane64(1).to_bits()],
    }
}

fn fused_lane<T: Float + std::ops::Neg<Output = T>>(op: Op, [a, b, c]: [T; 3]) -> T {
    if let Some(nan) = [a, b, c].into_iter().find(|v| v.is_nan()) {
        return nan.quiet();
    }
    let a = if matches!(op, Op::Fnmadd | Op::Fnmsub) { -a } else { a };
    let c = if matches!(op, Op::Fmsub | Op::Fnmsub) { -c } else { c };
    let r = a.mul_add(b, c);
    if r.is_nan() { T::indefinite() } else { r }
}

/// A scalar in its slot.
#[inline(always)]
pub(super) fn scalar(v: u64) -> V128 {
    [v, 0]
}

/// A condition in its slot.
#[inline(always)]
fn flag(v: bool) -> V128 {
    [u64::from(v), 0]
}

#[inline(always)]
fn f32_of(v: V128) -> f32 {
    f32::from_bits(v[0] as u32)
}

#[inline(always)]
fn f64_of(v: V128) -> f64 {
    f64::from_bits(v[0])
}

#[inline(always)]
fn scalar32(v: f32) -> V128 {
    [u64::from(v.to_bits()), 0]
}

#[inline(always)]
fn scalar64(v: f64) -> V128 {
    [v.to_bits(), 0]
}

#[inline(always)]
fn words(a: V128, b: V128, f: impl Fn(u64, u64) -> u64) -> V128 {
    [f(a[0], b[0]), f(a[1], b[1])]
}

/// Signed overflow of a sum: both operands differ in sign from the result.
#[inline(always)]
fn sum_overflow(ty: Type, a: u64, b: u64, r: u64) -> V128 {
    scalar(int::top_bit(ty, (a ^ r) & (b ^ r)))
}

/// Signed overflow of a difference: the operands differ in sign, and the result from the first.
#[inline(always)]
fn difference_overflow(ty: Type, a: u64, b: u64, r: u64) -> V128 {
    scalar(int::top_bit(ty, (a ^ b) & (a ^ r)))
}

#[inline(always)]
fn signed_product(ty: Type, a: u64, b: u64) -> i128 {
    i128::from(int::signed(ty, a)) * i128::from(int::signed(ty, b))
}

#[inline(always)]
fn smul_overflow(ty: Type, a: u64, b: u64) -> V128 {
    let product = signed_product(ty, a, b);
    flag(product >> (ty.bits() - 1) != product >> 127)
}

fn lane_compare(cc: Cc, ty: Type, a: V128, b: V128) -> V128 {
    match ty {
        Type::I8x16 => lanes::mask::<u8, u8>(a, b, |p, q| int::compare(cc, Type::I8, p.into(), q.into())),
        Type::I16x8 => lanes::mask::<u16, u16>(a, b, |p, q| int::compare(cc, Type::I16, p.into(), q.into())),
        Type::I32x4 => lanes::mask::<u32, u32>(a, b, |p, q| int::compare(cc, Type::I32, p.into(), q.into())),
        _ => lanes::mask::<u64, u64>(a, b, |p, q| int::compare(cc, Type::I64, p, q)),
    }
}

fn float_compare(cc: FloatCc, ty: Type, a: V128, b: V128) -> V128 {
    match ty {
        Type::F32 => flag(float::compare(cc, f32_of(a), f32_of(b))),
        Type::F64 => flag(float::compare(cc, f64_of(a), f64_of(b))),
        Type::F32x4 => lanes::mask::<f32, u32>(a, b, |p, q| float::compare(cc, p, q)),
        _ => lanes::mask::<f64, u64>(a, b, |p, q| float::compare(cc, p, q)),
    }
}

fn convert_from_int(to: Type, from: Type, a: V128) -> V128 {
    match to {
        Type::F32 => scalar32(int::signed(from, a[0]) as f32),
        Type::F64 => scalar64(int::signed(from, a[0]) as f64),
        _ => f32::join(i32::split(a).map(|lane| lane as f32)),
    }
}

fn convert_to_int(to: Type, from: Type, a: V128, mode: Rounding) -> V128 {
    match (to, from) {
        (Type::I32, Type::F32) => scalar(u64::from(f32_of(a).round_by(mode).to_i32() as u32)),
        (Type::I32, _) => scalar(u64::from(f64_of(a).round_by(mode).to_i32() as u32)),
        (Type::I64, Type::F32) => scalar(f32_of(a).round_by(mode).to_i64() as u64),
        (Type::I64, _) => scalar(f64_of(a).round_by(mode).to_i64() as u64),
        _ => i32::join(f32::split(a).map(|lane| lane.round_by(mode).to_i32())),
    }
}

fn convert_low_to_int(a: V128, mode: Rounding) -> V128 {
    let [low, high] = f64::split(a).map(|lane| lane.round_by(mode).to_i32());
    i32::join([low, high, 0, 0])
}

fn splat(ty: Type, v: u64) -> V128 {
    let word = match ty.lane().bits() {
        8 => v * 0x0101_0101_0101_0101,
        16 => v * 0x0001_0001_0001_0001,
        32 => v | v << 32,
        _ => v,
    };
    [word, word]
}

/// Word that holds a lane, the lane's bit position in it, and its mask before shifting.
#[inline(always)]
fn lane_place(ty: Type, lane: u16) -> (usize, u32, u64) {
    let bits = ty.lane().bits();
    let at = u32::from(lane) * bits;
    ((at / 64) as usize & 1, at % 64, int::mask(ty.lane()))
}

fn extract(ty: Type, v: V128, lane: u16) -> u64 {
    let (word, shift, mask) = lane_place(ty, lane);
    v[word] >> shift & mask
}

fn insert(ty: Type, mut v: V128, scalar: u64, lane: u16) -> V128 {
    let (word, shift, mask) = lane_place(ty, lane);
    v[word] = v[word] & !(mask << shift) | scalar << shift;
    v
}

fn shuffle(a: V128, b: V128, indices: V128) -> V128 {
    let (a, b) = (lanes::to_bytes(a), lanes::to_bytes(b));
    let pick = |i: u8| match i {
        0..16 => a[i as usize],
        16..32 => b[i as usize - 16],
        _ => 0,
    };
    lanes::from_bytes(lanes::to_bytes(indices).map(pick))
}

fn swizzle(a: V128, indices: V128) -> V128 {
    let a = lanes::to_bytes(a);
    map::<u8>(indices, |i| if i & 0x80 != 0 { 0 } else { a[i as usize & 15] })
}

fn high_bits(ty: Type, v: V128) -> u64 {
    let bits = ty.lane().bits() as u16;
    (0..128 / bits).map(|i| (v[(i * bits / 64) as usize] >> ((i + 1) * bits - 1 & 63) & 1) << i).sum()
}

/// Kinds of vector shift.
#[derive(Clone, Copy)]
enum Shift {
    Left,
    Unsigned,
    Signed,
}

/// All lanes by one count; counts of the lane width and more are meaningful.
fn vector_shift(ty: Type, v: V128, count: u64, kind: Shift) -> V128 {
    let bits = u64::from(ty.lane().bits());
    let n = match kind {
        Shift::Signed => count.min(bits - 1),
        _ if count >= bits => return [0, 0],
        _ => count,
    };
    match (ty, kind) {
        (Type::I8x16, Shift::Left) => map::<u8>(v, |lane| lane << n),
        (Type::I16x8, Shift::Left) => map::<u16>(v, |lane| lane << n),
        (Type::I32x4, Shift::Left) => map::<u32>(v, |lane| lane << n),
        (_, Shift::Left) => map::<u64>(v, |lane| lane << n),
        (Type::I8x16, Shift::Unsigned) => map::<u8>(v, |lane| lane >> n),
        (Type::I16x8, Shift::Unsigned) => map::<u16>(v, |lane| lane >> n),
        (Type::I32x4, Shift::Unsigned) => map::<u32>(v, |lane| lane >> n),
        (_, Shift::Unsigned) => map::<u64>(v, |lane| lane >> n),
        (Type::I8x16, Shift::Signed) => map::<i8>(v, |lane| lane >> n),
        (Type::I16x8, Shift::Signed) => map::<i16>(v, |lane| lane >> n),
        (Type::I32x4, Shift::Signed) => map::<i32>(v, |lane| lane >> n),
        (_, Shift::Signed) => map::<i64>(v, |lane| lane >> n),
    }
}
