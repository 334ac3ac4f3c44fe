//! Operations on lanes that are more than one closure a lane.

use super::int;
use super::lanes::{self, Lane, map};
use crate::region::{Cc, FloatCc};
use crate::sse::{Fp, Signaling};
use crate::state::V128;
use crate::types::Type;

/// Lane masks of an integer comparison.
pub(super) fn compare(cc: Cc, ty: Type, a: V128, b: V128) -> V128 {
    match ty {
        Type::I8x16 => lanes::mask::<u8, u8>(a, b, |p, q| int::compare(cc, Type::I8, p.into(), q.into())),
        Type::I16x8 => lanes::mask::<u16, u16>(a, b, |p, q| int::compare(cc, Type::I16, p.into(), q.into())),
        Type::I32x4 => lanes::mask::<u32, u32>(a, b, |p, q| int::compare(cc, Type::I32, p.into(), q.into())),
        _ => lanes::mask::<u64, u64>(a, b, |p, q| int::compare(cc, Type::I64, p, q)),
    }
}

/// Lane masks of a floating comparison.
pub(super) fn float_compare(fp: &mut Fp, cc: FloatCc, signaling: Signaling, ty: Type, a: V128, b: V128) -> V128 {
    match ty {
        Type::F32x4 => lanes::mask::<f32, u32>(a, b, |p, q| fp.compare(cc, signaling, p, q)),
        _ => lanes::mask::<f64, u64>(a, b, |p, q| fp.compare(cc, signaling, p, q)),
    }
}

pub(super) fn splat(ty: Type, v: u64) -> V128 {
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

pub(super) fn extract(ty: Type, v: &V128, lane: u16) -> u64 {
    let (word, shift, mask) = lane_place(ty, lane);
    v[word] >> shift & mask
}

pub(super) fn insert(ty: Type, mut v: V128, scalar: u64, lane: u16) -> V128 {
    let (word, shift, mask) = lane_place(ty, lane);
    v[word] = v[word] & !(mask << shift) | scalar << shift;
    v
}

pub(super) fn shuffle(a: V128, b: V128, indices: V128) -> V128 {
    let (a, b) = (lanes::to_bytes(a), lanes::to_bytes(b));
    let pick = |i: u8| match i {
        0..16 => a[i as usize],
        16..32 => b[i as usize - 16],
        _ => 0,
    };
    lanes::from_bytes(lanes::to_bytes(indices).map(pick))
}

pub(super) fn swizzle(a: V128, indices: V128) -> V128 {
    let a = lanes::to_bytes(a);
    map::<u8>(indices, |i| if i & 0x80 != 0 { 0 } else { a[i as usize & 15] })
}

pub(super) fn high_bits(ty: Type, v: V128) -> u64 {
    let bits = ty.lane().bits() as u16;
    (0..128 / bits).map(|i| (v[(i * bits / 64) as usize] >> (((i + 1) * bits - 1) & 63) & 1) << i).sum()
}

/// Kinds of vector shift.
#[derive(Clone, Copy)]
pub(super) enum Shift {
    Left,
    Unsigned,
    Signed,
}

/// All lanes by one count; counts of the lane width and more are meaningful.
pub(super) fn shift(ty: Type, v: V128, count: u64, kind: Shift) -> V128 {
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

/// PMADDWD.
pub(super) fn maddwd(a: V128, b: V128) -> V128 {
    let (p, q) = (i16::split(a), i16::split(b));
    let product = |i: usize| i32::from(p[i]) * i32::from(q[i]);
    i32::join(std::array::from_fn(|i| product(2 * i).wrapping_add(product(2 * i + 1))))
}

/// PSADBW.
pub(super) fn sad(a: V128, b: V128) -> V128 {
    let (p, q) = (u8::split(a), u8::split(b));
    u64::join(std::array::from_fn(|i| (8 * i..8 * i + 8).map(|k| u64::from(p[k].abs_diff(q[k]))).sum()))
}

/// VFMADDPS and kin, lane by lane.
pub(super) fn fused(fp: &mut Fp, ty: Type, args: [V128; 3], product: bool, sum: bool) -> V128 {
    match ty {
        Type::F32x4 => {
            let lanes = args.map(f32::split);
            f32::join(std::array::from_fn(|n| fp.fused(lanes.map(|v| v[n]), product, sum)))
        }
        _ => {
            let lanes = args.map(f64::split);
            f64::join(std::array::from_fn(|n| fp.fused(lanes.map(|v| v[n]), product, sum)))
        }
    }
}
