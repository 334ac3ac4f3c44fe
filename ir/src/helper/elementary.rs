//! Transcendental functions of the x87 (SDM vol. 1 8.3.7, 8.3.8), in integer arithmetic.
//!
//! Numbers are [`Wide`]: sign, exponent and a 128-bit significand. Sums of Taylor series in them are good to about 2^-120,
//! so one rounding to 64 bits gives the nearest number in all but one of 2^50 cases. Processors promise less than one unit
//! in the last place; they mostly deliver the nearest, too.
//!
//! Host floating point would be faster, but has 53 bits, depends on the host's rounding mode, which is the guest's,
//! and raises exceptions that the guest may have unmasked.
//!
//! Angles are reduced by the 66-bit pi of the processors, *not* by pi: that is what programs see.

use std::cmp::Ordering;

/// `sig * 2^(exp - 127)` with bit 127 of `sig` set, or zero.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wide {
    pub(crate) sign: bool,
    pub(crate) exp: i32,
    pub(crate) sig: u128,
}

const TOP: u128 = 1 << 127;
/// Relative size from which on a term of a series does not count.
const NEGLIGIBLE: i32 = 126;

const ZERO: Wide = Wide { sign: false, exp: 0, sig: 0 };
const ONE: Wide = Wide { sign: false, exp: 0, sig: TOP };
const LN_2: Wide = Wide { sign: false, exp: -1, sig: 0xb172_17f7_d1cf_79ab_c9e3_b398_03f2_f6af };
const LOG2_E: Wide = Wide { sign: false, exp: 0, sig: 0xb8aa_3b29_5c17_f0bb_be87_fed0_691d_3e88 };
pub(crate) const PI: Wide = Wide { sign: false, exp: 1, sig: 0xc90f_daa2_2168_c234_c4c6_628b_80dc_1cd1 };
const HALF_PI: Wide = Wide { exp: 0, ..PI };
/// pi as processors know it: 68 bits, the last two of which are zero, of weight 2^-66 (SDM vol. 1 8.3.8).
const PI_66: u128 = 0xc_90fd_aa22_168c_234c;
const PI_66_BITS: i32 = 68;

/// Upper half of the product.
fn mul_high(a: u128, b: u128) -> u128 {
    let (a1, a0, b1, b0) = (a >> 64, a & u128::from(u64::MAX), b >> 64, b & u128::from(u64::MAX));
    let (low, mid1, mid2, high) = (a0 * b0, a1 * b0, a0 * b1, a1 * b1);
    let carry = ((low >> 64) + (mid1 & u128::from(u64::MAX)) + (mid2 & u128::from(u64::MAX))) >> 64;
    high + (mid1 >> 64) + (mid2 >> 64) + carry
}

impl Wide {
    /// From a 64-bit significand with its top bit set and an unbiased exponent.
    pub(crate) fn new(sign: bool, exp: i32, sig: u64) -> Self {
        Wide { sign, exp, sig: u128::from(sig) << 64 }
    }

    fn from_int(v: i32) -> Self {
        Wide { sign: v < 0, exp: 127, sig: u128::from(v.unsigned_abs()) }.normalized()
    }

    /// Moves the top bit to its place.
    fn normalized(self) -> Self {
        if self.sig == 0 {
            return ZERO;
        }
        let shift = self.sig.leading_zeros();
        Wide { exp: self.exp - shift as i32, sig: self.sig << shift, ..self }
    }

    pub(crate) fn is_zero(self) -> bool {
        self.sig == 0
    }

    fn negated(self) -> Self {
        Wide { sign: !self.sign, ..self }
    }

    fn abs(self) -> Self {
        Wide { sign: false, ..self }
    }

    /// Order of magnitudes of nonzero numbers.
    fn cmp_abs(self, other: Self) -> Ordering {
        (self.exp, self.sig).cmp(&(other.exp, other.sig))
    }

    pub(crate) fn mul(self, other: Self) -> Self {
        if self.is_zero() || other.is_zero() {
            return ZERO;
        }
        let sig = mul_high(self.sig, other.sig);
        Wide { sign: self.sign != other.sign, exp: self.exp + other.exp + 1, sig }.normalized()
    }

    pub(crate) fn add(self, other: Self) -> Self {
        if self.is_zero() {
            return other;
        }
        if other.is_zero() {
            return self;
        }
        let (big, small) = if self.cmp_abs(other).is_ge() { (self, other) } else { (other, self) };
        let shift = (big.exp - small.exp) as u32;
        let low = small.sig.checked_shr(shift).unwrap_or(0);
        if big.sign != small.sign {
            return Wide { sig: big.sig - low, ..big }.normalized();
        }
        match big.sig.overflowing_add(low) {
            (sig, false) => Wide { sig, ..big },
            (sig, true) => Wide { exp: big.exp + 1, sig: sig >> 1 | TOP, ..big },
        }
    }

    fn sub(self, other: Self) -> Self {
        self.add(other.negated())
    }

    /// Quotient by long division; the divisor is not zero.
    fn div(self, other: Self) -> Self {
        if self.is_zero() {
            return ZERO;
        }
        let (mut rest, mut quotient, mut carry) = (self.sig, 0u128, false);
        for _ in 0..128 {
            quotient <<= 1;
            if carry || rest >= other.sig {
                rest = rest.wrapping_sub(other.sig);
                quotient |= 1;
            }
            carry = rest >> 127 != 0;
            rest <<= 1;
        }
        Wide { sign: self.sign != other.sign, exp: self.exp - other.exp, sig: quotient }.normalized()
    }

    fn div_small(self, n: u64) -> Self {
        if self.is_zero() {
            return ZERO;
        }
        let n = u128::from(n);
        let (quotient, rest) = (self.sig / n, self.sig % n);
        let shift = quotient.leading_zeros();
        Wide { sign: self.sign, exp: self.exp - shift as i32, sig: quotient << shift | ((rest << shift) / n) }
    }

    /// Square root of a positive number: 64 bits by integer root, the rest by one step of Newton's.
    fn sqrt(self) -> Self {
        let odd = self.exp & 1;
        // Even exponents: the root of sig / 2, scaled.
        let root = (self.sig >> (1 - odd)).isqrt();
        let first = Wide { sign: false, exp: self.exp.div_euclid(2), sig: root << 64 };
        let next = first.normalized().add(self.div(first.normalized()));
        Wide { exp: next.exp - 1, ..next }
    }

    /// Whether this does not count in a sum of the size of `total`.
    fn negligible_in(self, total: Self) -> bool {
        self.is_zero() || self.exp < total.exp - NEGLIGIBLE
    }
}

/// Sum of `first`, `first * factor(1)`, `first * factor(1) * factor(2)`...
fn series(first: Wide, mut factor: impl FnMut(Wide, u64) -> Wide) -> Wide {
    let (mut sum, mut term, mut n) = (first, first, 1);
    loop {
        term = factor(term, n);
        if term.negligible_in(sum) {
            return sum;
        }
        sum = sum.add(term);
        n += 1;
    }
}

/// 2^x - 1 for -1 <= x <= 1.
pub(crate) fn exp2m1(x: Wide) -> Wide {
    let t = x.mul(LN_2);
    series(t, |term, n| term.mul(t).div_small(n + 1))
}

/// Sum of s^(2n+1)/(2n+1): atanh with `sign` +, atan with `sign` -.
fn odd_powers(s: Wide, alternating: bool) -> Wide {
    let square = s.mul(s);
    let square = if alternating { square.negated() } else { square };
    let (mut power, mut sum, mut n) = (s, s, 1);
    loop {
        power = power.mul(square);
        n += 2;
        let term = power.div_small(n);
        if term.negligible_in(sum) {
            return sum;
        }
        sum = sum.add(term);
    }
}

/// log2(x) of a positive number.
pub(crate) fn log2(x: Wide) -> Wide {
    // The significand between sqrt(1/2) and sqrt(2).
    const SQRT_2: u128 = 0xb504_f333_f9de_6484_597d_89b3_754a_be9f;
    let whole = if x.sig > SQRT_2 { x.exp + 1 } else { x.exp };
    let m = Wide { exp: x.exp - whole, ..x };
    let s = m.sub(ONE).div(m.add(ONE));
    Wide::from_int(whole).add(log2_of_ratio(s))
}

/// log2((1 + s) / (1 - s)).
fn log2_of_ratio(s: Wide) -> Wide {
    if s.is_zero() {
        return ZERO;
    }
    let atanh = odd_powers(s, false).mul(LOG2_E);
    Wide { exp: atanh.exp + 1, ..atanh }
}

/// log2(1 + x) for x > -1, good for small x.
pub(crate) fn log2_plus1(x: Wide) -> Wide {
    if x.exp >= -2 {
        return log2(ONE.add(x));
    }
    let two = Wide { exp: 1, ..ONE };
    log2_of_ratio(x.div(two.add(x)))
}

/// arctan(y/x) of numbers that are not both zero, in the quadrant of (x, y).
pub(crate) fn atan2(y: Wide, x: Wide) -> Wide {
    let steep = x.is_zero() || !y.is_zero() && y.cmp_abs(x).is_gt();
    let (n, d) = if steep { (x, y) } else { (y, x) };
    let a = atan_of_fraction(n.abs().div(d.abs()));
    let a = if steep { HALF_PI.sub(a) } else { a };
    let a = if x.sign { PI.sub(a) } else { a };
    Wide { sign: y.sign, ..a }
}

/// arctan(a) for 0 <= a <= 1: the angle is halved until the series is short.
fn atan_of_fraction(mut a: Wide) -> Wide {
    let mut halvings = 0;
    while !a.is_zero() && a.exp > -4 {
        // tan(v/2) = tan v / (1 + sqrt(1 + tan^2 v))
        a = a.div(ONE.add(ONE.add(a.mul(a)).sqrt()));
        halvings += 1;
    }
    if a.is_zero() {
        return ZERO;
    }
    let angle = odd_powers(a, true);
    Wide { exp: angle.exp + halvings, ..angle }
}

/// An angle reduced to -pi/4..=pi/4, and the quarter turns taken off, modulo 4.
pub(crate) struct Angle {
    rest: Wide,
    quarters: u8,
}

impl Angle {
    /// Reduces `sig * 2^(exp - 63)`; the exponent is below 63.
    pub(crate) fn reduce(sign: bool, exp: i32, sig: u64) -> Self {
        // Remainder by a quarter turn, in units of its last bit, 2^(1 - PI_66_BITS): exact.
        const UNIT: i32 = 1 - PI_66_BITS;
        let shift = exp - 63 - UNIT;
        let x = Wide::new(sign, exp, sig);
        if exp < -1 {
            return Self { rest: x, quarters: 0 };
        }
        let (mut rest, mut quarters, mut left) = (u128::from(sig), 0u128, shift);
        // At most 59 bits a step: the remainder has 68.
        while left > 0 {
            let n = left.min(59);
            rest <<= n;
            // Modulo 4.
            let kept = if n < 2 { (quarters & 3) << n } else { 0 };
            quarters = kept + rest / PI_66;
            rest %= PI_66;
            left -= n;
        }
        let mut negative = false;
        if rest > PI_66 / 2 {
            (rest, negative, quarters) = (PI_66 - rest, true, quarters + 1);
        }
        let rest = Wide { sign: negative, exp: UNIT + 127, sig: rest }.normalized();
        let quarters = (quarters & 3) as u8;
        match sign {
            false => Self { rest, quarters },
            true => Self { rest: rest.negated(), quarters: quarters.wrapping_neg() & 3 },
        }
    }

    pub(crate) fn sin(&self) -> Wide {
        let v = if self.quarters & 1 == 0 { sine(self.rest) } else { cosine(self.rest) };
        if self.quarters & 2 == 0 { v } else { v.negated() }
    }

    pub(crate) fn cos(&self) -> Wide {
        let v = if self.quarters & 1 == 0 { cosine(self.rest) } else { sine(self.rest).negated() };
        if self.quarters & 2 == 0 { v } else { v.negated() }
    }

    pub(crate) fn tan(&self) -> Wide {
        self.sin().div(self.cos())
    }
}

fn sine(t: Wide) -> Wide {
    let square = t.mul(t).negated();
    series(t, |term, n| term.mul(square).div_small(2 * n * (2 * n + 1)))
}

fn cosine(t: Wide) -> Wide {
    let square = t.mul(t).negated();
    series(ONE, |term, n| term.mul(square).div_small((2 * n - 1) * 2 * n))
}
