//! Scalar integers: a value of a narrow type lives zero-extended in a `u64`.

use crate::region::Cc;
use crate::types::Type;

/// All ones of the type's width (64 bits for vectors and none, which have no use for it).
#[inline(always)]
pub(crate) fn mask(ty: Type) -> u64 {
    const MASKS: [u64; Type::ALL.len()] = {
        let mut masks = [u64::MAX; Type::ALL.len()];
        masks[Type::I1 as usize] = 1;
        masks[Type::I8 as usize] = 0xff;
        masks[Type::I16 as usize] = 0xffff;
        masks[Type::I32 as usize] = 0xffff_ffff;
        masks[Type::F32 as usize] = 0xffff_ffff;
        masks
    };
    MASKS[ty as usize]
}

/// The signed value.
#[inline(always)]
pub(super) fn signed(ty: Type, v: u64) -> i64 {
    let unused = mask(ty).leading_zeros();
    (v << unused) as i64 >> unused
}

/// Comparison by condition code.
#[inline(always)]
pub(super) fn compare(cc: Cc, ty: Type, a: u64, b: u64) -> bool {
    let unused = mask(ty).leading_zeros();
    let (x, y) = ((a << unused) as i64, (b << unused) as i64);
    match cc {
        Cc::Equal => a == b,
        Cc::NotEqual => a != b,
        Cc::SignedLessThan => x < y,
        Cc::SignedGreaterThanOrEqual => x >= y,
        Cc::SignedGreaterThan => x > y,
        Cc::SignedLessThanOrEqual => x <= y,
        Cc::UnsignedLessThan => a < b,
        Cc::UnsignedGreaterThanOrEqual => a >= b,
        Cc::UnsignedGreaterThan => a > b,
        Cc::UnsignedLessThanOrEqual => a <= b,
    }
}

/// Signed product of two values of the type.
#[inline(always)]
pub(super) fn product(ty: Type, a: u64, b: u64) -> i128 {
    i128::from(signed(ty, a)) * i128::from(signed(ty, b))
}

/// Signed overflow of a sum, 0 or 1: both operands differ in sign from the result.
#[inline(always)]
pub(super) fn sum_overflow(ty: Type, a: u64, b: u64, r: u64) -> u64 {
    top_bit(ty, (a ^ r) & (b ^ r))
}

/// Signed overflow of a difference, 0 or 1: the operands differ in sign, and the result from the first.
#[inline(always)]
pub(super) fn difference_overflow(ty: Type, a: u64, b: u64, r: u64) -> u64 {
    top_bit(ty, (a ^ b) & (a ^ r))
}

/// Top bit of `v`, as 0 or 1.
#[inline(always)]
fn top_bit(ty: Type, v: u64) -> u64 {
    v >> (ty.bits() - 1) & 1
}

/// Rotation to the left; `count` below the width.
#[inline(always)]
pub(super) fn rotl(ty: Type, v: u64, count: u64) -> u64 {
    let back = (u64::from(ty.bits()) - count) & 63;
    (v << (count & 63) | v >> back) & mask(ty)
}

/// Rotation to the right; `count` below the width.
#[inline(always)]
pub(super) fn rotr(ty: Type, v: u64, count: u64) -> u64 {
    let back = (u64::from(ty.bits()) - count) & 63;
    (v >> (count & 63) | v << back) & mask(ty)
}

/// Quotient and remainder of the unsigned (high:low)/divisor, `None` where DIV raises #DE.
pub(super) fn udivrem(ty: Type, high: u64, low: u64, divisor: u64) -> Option<(u64, u64)> {
    if high >= divisor {
        return None; // the quotient does not fit, or the divisor is 0
    }
    if high == 0 {
        return Some((low / divisor, low % divisor));
    }
    let dividend = u128::from(high) << ty.bits() | u128::from(low);
    let divisor = u128::from(divisor);
    Some(((dividend / divisor) as u64, (dividend % divisor) as u64))
}

/// Quotient and remainder of the signed (high:low)/divisor, truncated, `None` where IDIV raises #DE.
pub(super) fn sdivrem(ty: Type, high: u64, low: u64, divisor: u64) -> Option<(u64, u64)> {
    let dividend = i128::from(signed(ty, high)) << ty.bits() | i128::from(low);
    let divisor = i128::from(signed(ty, divisor));
    let (quotient, remainder) = match (i64::try_from(dividend), i64::try_from(divisor)) {
        (Ok(n), Ok(d)) if n != i64::MIN && d != 0 => (i128::from(n / d), i128::from(n % d)),
        _ => (dividend.checked_div(divisor)?, dividend.checked_rem(divisor)?),
    };
    let fits = quotient >> (ty.bits() - 1) == quotient >> 127;
    fits.then_some((quotient as u64 & mask(ty), remainder as u64 & mask(ty)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rotations_by_zero_and_by_most() {
        for ty in [Type::I8, Type::I16, Type::I32, Type::I64] {
            let v = 0x8123_4567_89ab_cdef & mask(ty);
            assert_eq!(rotl(ty, v, 0), v);
            assert_eq!(rotl(ty, v, u64::from(ty.bits()) - 1), rotr(ty, v, 1));
        }
    }

    #[test]
    fn division_faults_where_the_sdm_says() {
        assert_eq!(udivrem(Type::I8, 1, 0, 2), Some((0x80, 0)));
        assert_eq!(udivrem(Type::I8, 2, 0, 2), None);
        assert_eq!(udivrem(Type::I64, 0, 1, 0), None);
        assert_eq!(udivrem(Type::I64, 1, 0, 2), Some((1 << 63, 0)));
        assert_eq!(sdivrem(Type::I32, 0xffff_ffff, 0x8000_0000, 0xffff_ffff), None);
        assert_eq!(sdivrem(Type::I32, 0xffff_ffff, 0xffff_fff9, 2), Some((0xffff_fffd, 0xffff_ffff)));
        assert_eq!(sdivrem(Type::I64, u64::MAX, 1 << 63, u64::MAX), None);
        assert_eq!(sdivrem(Type::I64, u64::MAX, 1 << 63, 1), Some((1 << 63, 0)));
        assert_eq!(sdivrem(Type::I8, 0, 0, 0), None);
    }
}
