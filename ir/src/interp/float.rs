//! Floating point as SSE does it, on any host.
//!
//! Sums, products and roots are the host's own (both hosts are IEEE 754), under whatever rounding mode the runtime
//! has installed. What IEEE 754 leaves open is spelled out here:
//!
//! - **NaN results** (SDM vol. 1 table 4-7): the first operand if it is a NaN, else the second, quieted; where no
//!   operand is a NaN (0/0, inf-inf, sqrt(-1)), the "real indefinite", a *negative* quiet NaN without payload.
//! - **MINSS and MAXSS** are comparisons, not IEEE minimum.
//! - **Conversions to integers** give the "integer indefinite" (only the sign bit set) for NaN and out of range.

use crate::helper::simd::round_integral;
use crate::op::Op;
use crate::region::FloatCc;
use crate::types::Type;

/// Rounding mode of MXCSR bits 13..15 (SDM vol. 1 4.8.4).
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Rounding {
    Nearest,
    Down,
    Up,
    Zero,
}

impl Rounding {
    /// The mode that an MXCSR value selects.
    pub(super) fn of_mxcsr(mxcsr: u32) -> Rounding {
        [Rounding::Nearest, Rounding::Down, Rounding::Up, Rounding::Zero][(mxcsr >> 13 & 3) as usize]
    }
}

/// What is the same for `f32` and `f64`.
pub(super) trait Float: Copy + PartialOrd {
    /// The NaN of an invalid operation.
    fn indefinite() -> Self;
    fn is_nan(self) -> bool;
    /// The NaN with its quiet bit set.
    fn quiet(self) -> Self;
    fn sqrt(self) -> Self;
    /// `self * b + c`, rounded once.
    fn mul_add(self, b: Self, c: Self) -> Self;
    /// To an integral value.
    fn round_by(self, mode: Rounding) -> Self;
    /// To `i32`, truncated.
    fn to_i32(self) -> i32;
    /// To `i64`, truncated.
    fn to_i64(self) -> i64;
}

macro_rules! float {
    ($ty:ident, $bits:ident, $indefinite:literal, $quiet:literal) => {
        impl Float for $ty {
            #[inline(always)]
            fn indefinite() -> Self {
                $ty::from_bits($indefinite)
            }
            #[inline(always)]
            fn is_nan(self) -> bool {
                self != self
            }
            #[inline(always)]
            fn quiet(self) -> Self {
                $ty::from_bits(self.to_bits() | $quiet)
            }
            #[inline(always)]
            fn sqrt(self) -> Self {
                $ty::sqrt(self)
            }
            #[inline(always)]
            fn mul_add(self, b: Self, c: Self) -> Self {
                $ty::mul_add(self, b, c)
            }
            fn round_by(self, mode: Rounding) -> Self {
                match mode {
                    // The host's own may go by its rounding mode.
                    Rounding::Nearest => round_integral(f64::from(self), 0) as $ty,
                    Rounding::Down => self.floor(),
                    Rounding::Up => self.ceil(),
                    Rounding::Zero => self.trunc(),
                }
            }
            #[inline(always)]
            fn to_i32(self) -> i32 {
                let wide = f64::from(self);
                if wide > -2147483649.0 && wide < 2147483648.0 { wide as i32 } else { i32::MIN }
            }
            #[inline(always)]
            fn to_i64(self) -> i64 {
                if (-9223372036854775808.0..9223372036854775808.0).contains(&self) { self as i64 } else { i64::MIN }
            }
        }
    };
}

float!(f32, u32, 0xffc0_0000, 0x0040_0000);
float!(f64, u64, 0xfff8_0000_0000_0000, 0x0008_0000_0000_0000);

/// Gives the result `r` of an operation on `a` and `b` the NaN that x86 would give.
#[inline(always)]
pub(super) fn with_nan<T: Float>(r: T, a: T, b: T) -> T {
    if !r.is_nan() {
        r
    } else if a.is_nan() {
        a.quiet()
    } else if b.is_nan() {
        b.quiet()
    } else {
        T::indefinite()
    }
}

/// SQRTSS and kin.
#[inline(always)]
pub(super) fn sqrt<T: Float>(a: T) -> T {
    with_nan(a.sqrt(), a, a)
}

/// ROUNDSS and kin, by rounding mode.
#[inline(always)]
pub(super) fn ceil<T: Float>(a: T) -> T {
    with_nan(a.round_by(Rounding::Up), a, a)
}

#[inline(always)]
pub(super) fn floor<T: Float>(a: T) -> T {
    with_nan(a.round_by(Rounding::Down), a, a)
}

#[inline(always)]
pub(super) fn trunc<T: Float>(a: T) -> T {
    with_nan(a.round_by(Rounding::Zero), a, a)
}

#[inline(always)]
pub(super) fn nearest<T: Float>(a: T) -> T {
    with_nan(a.round_by(Rounding::Nearest), a, a)
}

/// MINSS and kin: the second operand unless the first is less.
#[inline(always)]
pub(super) fn min<T: Float>(a: T, b: T) -> T {
    if a < b { a } else { b }
}

/// MAXSS and kin.
#[inline(always)]
pub(super) fn max<T: Float>(a: T, b: T) -> T {
    if a > b { a } else { b }
}

/// CVTSS2SD: a NaN keeps the top of its payload and becomes quiet.
#[inline(always)]
pub(super) fn promote(a: f32) -> f64 {
    if a.is_nan() {
        let bits = u64::from(a.to_bits());
        f64::from_bits((bits & 0x8000_0000) << 32 | 0x7ff8 << 48 | (bits & 0x7f_ffff) << 29)
    } else {
        f64::from(a)
    }
}

/// CVTSD2SS: a NaN keeps the top of its payload and becomes quiet.
#[inline(always)]
pub(super) fn demote(a: f64) -> f32 {
    if a.is_nan() {
        let bits = a.to_bits();
        f32::from_bits((bits >> 32) as u32 & 0x8000_0000 | 0x7fc0_0000 | (bits >> 29) as u32 & 0x3f_ffff)
    } else {
        a as f32
    }
}

/// CVTSS2SI and kin: an `i32` or `i64` in a word.
pub(super) fn to_int<T: Float>(ty: Type, a: T, mode: Rounding) -> u64 {
    let whole = a.round_by(mode);
    if ty == Type::I32 { u64::from(whole.to_i32() as u32) } else { whole.to_i64() as u64 }
}

/// Comparison by condition code.
#[inline(always)]
pub(super) fn compare<T: Float>(cc: FloatCc, a: T, b: T) -> bool {
    let unordered = a.is_nan() || b.is_nan();
    match cc {
        FloatCc::Ordered => !unordered,
        FloatCc::Unordered => unordered,
        FloatCc::Equal => a == b,
        FloatCc::NotEqual => a != b,
        FloatCc::OrderedNotEqual => !unordered && a != b,
        FloatCc::UnorderedOrEqual => unordered || a == b,
        FloatCc::LessThan => a < b,
        FloatCc::LessThanOrEqual => a <= b,
        FloatCc::GreaterThan => a > b,
        FloatCc::GreaterThanOrEqual => a >= b,
        FloatCc::UnorderedOrLessThan => unordered || a < b,
        FloatCc::UnorderedOrLessThanOrEqual => unordered || a <= b,
        FloatCc::UnorderedOrGreaterThan => unordered || a > b,
        FloatCc::UnorderedOrGreaterThanOrEqual => unordered || a >= b,
    }
}

/// VFMADD and kin. The product's or the addend's sign is changed by the operation, a NaN's is not.
pub(super) fn fused<T: Float + std::ops::Neg<Output = T>>(op: Op, [a, b, c]: [T; 3]) -> T {
    if let Some(nan) = [a, b, c].into_iter().find(|v| v.is_nan()) {
        return nan.quiet();
    }
    let a = if matches!(op, Op::Fnmadd | Op::Fnmsub) { -a } else { a };
    let c = if matches!(op, Op::Fmsub | Op::Fnmsub) { -c } else { c };
    let r = a.mul_add(b, c);
    if r.is_nan() { T::indefinite() } else { r }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_nan_wins_and_is_quieted() {
        let (snan, qnan) = (f32::from_bits(0x7f80_0001), f32::from_bits(0xffc0_0002));
        assert_eq!(with_nan(snan + qnan, snan, qnan).to_bits(), 0x7fc0_0001);
        assert_eq!(with_nan(qnan + snan, qnan, snan).to_bits(), 0xffc0_0002);
        assert_eq!(with_nan(1.0 + snan, 1.0, snan).to_bits(), 0x7fc0_0001);
    }

    #[test]
    fn invalid_operations_give_the_negative_indefinite() {
        let zero = std::hint::black_box(0.0f64);
        assert_eq!(with_nan(zero / zero, zero, zero).to_bits(), 0xfff8_0000_0000_0000);
        assert_eq!(sqrt(-1.0f32).to_bits(), 0xffc0_0000);
        assert_eq!(sqrt(-0.0f64).to_bits(), (-0.0f64).to_bits());
    }

    #[test]
    fn minimum_of_zeros_and_nans_is_the_second() {
        assert_eq!(min(0.0f64, -0.0).to_bits(), (-0.0f64).to_bits());
        assert_eq!(max(f64::NAN, 1.0), 1.0);
        assert!(max(1.0, f64::NAN).is_nan());
    }

    #[test]
    fn conversions_out_of_range_give_the_integer_indefinite() {
        assert_eq!((2147483647.9f64).to_i32(), i32::MAX);
        assert_eq!((2147483648.0f64).to_i32(), i32::MIN);
        assert_eq!((-2147483648.9f64).to_i32(), i32::MIN);
        assert_eq!(f32::NAN.to_i64(), i64::MIN);
        assert_eq!((9.3e18f32).to_i64(), i64::MIN);
    }

    #[test]
    fn nan_payloads_survive_conversion() {
        assert_eq!(promote(f32::from_bits(0xff80_0001)).to_bits(), 0xfff8_0000_2000_0000);
        assert_eq!(demote(f64::from_bits(0x7ff0_0000_2000_0000)).to_bits(), 0x7fc0_0001);
    }
}
