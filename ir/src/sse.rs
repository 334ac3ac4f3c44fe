//! Floating point as SSE and AVX compute it, with every flag: binary16, binary32 and binary64 under MXCSR, in integers.
//!
//! The same on every host, whatever its own rounding mode, denormal handling and ideas about NaN are; what the
//! interpreter and the helpers compute with. An operation is exact integer arithmetic on significands followed by *one* call of
//! [`Fp::round`], which knows rounding, flushing, overflow and underflow.
//!
//! Between the two a number is `(sign, exp, sig: u128)` with bit 127 of `sig` set and the value `sig * 2^(exp - 127)`. Bits
//! lost further right are *jammed* into bit 0: with two bits or more between it and the last kept one, rounding comes out
//! the same.
//!
//! # What IEEE 754 leaves open (SDM vol. 1 4.9, 11.5, tables 4-7 and 14-15)
//! - The precedence is: signaling NaNs, quiet NaNs (which hide denormal operands), other invalid operations and division by
//!   zero, denormal operands, then what the result raises.
//! - NaN results are the first operand that is a NaN, quieted; with none, the negative quiet NaN without payload.
//! - Tininess is detected after rounding, as if the exponent had no bounds. A masked underflow needs an inexact result, an
//!   unmasked one does not.
//! - Denormals-are-zero acts on operands before anything else looks at them; flush-to-zero on masked underflow only.
//!
//! # Fast path
//! Where nothing but the precision flag can be raised and it was raised before, the host's own arithmetic gives the same bits:
//! nearest rounding, operands and result normal. The caller runs with the host's default control register.

use crate::region::FloatCc;
use crate::rounding::Rounding;
use std::cmp::Ordering;

/// Flags of MXCSR (SDM vol. 1 10.2.3).
pub(crate) const IE: u32 = 1 << 0;
pub(crate) const DE: u32 = 1 << 1;
pub(crate) const ZE: u32 = 1 << 2;
pub(crate) const OE: u32 = 1 << 3;
pub(crate) const UE: u32 = 1 << 4;
pub(crate) const PE: u32 = 1 << 5;
/// Those that are found before anything is computed: unmasked ones keep the rest from being raised.
pub(crate) const BEFORE: u32 = IE | DE | ZE;
const DAZ: u32 = 1 << 6;
const FTZ: u32 = 1 << 15;
/// Place of the masks: those of the flags, in their order.
const MASKS: u32 = 7;

/// A binary interchange format.
#[derive(Clone, Copy)]
struct Format {
    /// Bits of the fraction.
    fraction: u32,
    /// Exponent field of infinities and NaNs.
    special: u32,
}

const HALF: Format = Format { fraction: 10, special: 0x1f };
const SINGLE: Format = Format { fraction: 23, special: 0xff };
const DOUBLE: Format = Format { fraction: 52, special: 0x7ff };

impl Format {
    fn bias(self) -> i32 {
        self.special as i32 / 2
    }

    fn sign_bit(self) -> u64 {
        (u64::from(self.special) + 1) << self.fraction
    }

    fn infinity(self) -> u64 {
        u64::from(self.special) << self.fraction
    }

    fn quiet_bit(self) -> u64 {
        1 << (self.fraction - 1)
    }

    fn indefinite(self) -> u64 {
        self.sign_bit() | self.infinity() | self.quiet_bit()
    }

    fn signed(self, sign: bool, magnitude: u64) -> u64 {
        if sign { self.sign_bit() | magnitude } else { magnitude }
    }

    fn is_nan(self, bits: u64) -> bool {
        bits & !self.sign_bit() > self.infinity()
    }

    fn is_signaling(self, bits: u64) -> bool {
        self.is_nan(bits) && bits & self.quiet_bit() == 0
    }

    fn is_denormal(self, bits: u64) -> bool {
        let magnitude = bits & !self.sign_bit();
        magnitude != 0 && magnitude < 1 << self.fraction
    }

    /// Neither zero, denormal, infinite nor NaN.
    fn is_normal(self, bits: u64) -> bool {
        let exponent = bits & self.infinity();
        exponent != 0 && exponent != self.infinity()
    }

    /// Sign, exponent and significand with bit 63 set.
    fn unpack(self, bits: u64) -> Number {
        let sign = bits & self.sign_bit() != 0;
        let magnitude = bits & !self.sign_bit();
        let (exponent, fraction) = ((magnitude >> self.fraction) as i32, magnitude & ((1 << self.fraction) - 1));
        match (exponent, fraction) {
            (0, 0) => Number { sign, kind: Kind::Zero, exp: 0, sig: 0 },
            (0, f) => {
                let shift = f.leading_zeros();
                let exp = 1 - self.bias() - self.fraction as i32 + 63 - shift as i32;
                Number { sign, kind: Kind::Finite, exp, sig: f << shift }
            }
            (e, _) if e as u32 == self.special => Number { sign, kind: Kind::Infinite, exp: 0, sig: 0 },
            (e, f) => {
                let sig = (f | 1 << self.fraction) << (63 - self.fraction);
                Number { sign, kind: Kind::Finite, exp: e - self.bias(), sig }
            }
        }
    }
}

/// An operand that is no NaN: `sig * 2^(exp - 63)`.
#[derive(Clone, Copy)]
struct Number {
    sign: bool,
    kind: Kind,
    exp: i32,
    sig: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Zero,
    Finite,
    Infinite,
}

/// `v >> n`, with bit 0 set if any lost bit was.
fn shift_right_jam(v: u128, n: u32) -> u128 {
    match n {
        0 => v,
        1..=127 => v >> n | u128::from(v << (128 - n) != 0),
        _ => u128::from(v != 0),
    }
}

/// Two-operand arithmetic.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Arith {
    Add,
    Sub,
    Mul,
    Div,
}

/// How a rounding to an integral number treats a fraction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Precision {
    /// Raises PE.
    Raised,
    /// Raises nothing (bit 3 of ROUNDPS's immediate).
    Suppressed,
}

/// Whether a comparison takes a quiet NaN for an invalid operation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Signaling {
    Yes,
    No,
}

/// The unit: MXCSR, and the flags raised since it was made.
#[derive(Clone, Copy)]
pub(crate) struct Fp {
    mxcsr: u32,
    pub(crate) raised: u32,
}

/// A float type of Rust, as bits of a format.
pub(crate) trait Float: Copy {
    #[doc(hidden)]
    const FORMAT: Format2;
    fn bits(self) -> u64;
    fn of(bits: u64) -> Self;
    fn host(op: Arith, a: Self, b: Self) -> Self;
}

/// A [`Format`] that only this file looks into.
#[derive(Clone, Copy)]
pub(crate) struct Format2(Format);

macro_rules! float {
    ($ty:ident $bits:ident $format:ident) => {
        impl Float for $ty {
            const FORMAT: Format2 = Format2($format);
            #[inline(always)]
            fn bits(self) -> u64 {
                u64::from(self.to_bits())
            }
            #[inline(always)]
            fn of(bits: u64) -> Self {
                $ty::from_bits(bits as $bits)
            }
            #[inline(always)]
            fn host(op: Arith, a: Self, b: Self) -> Self {
                match op {
                    Arith::Add => a + b,
                    Arith::Sub => a - b,
                    Arith::Mul => a * b,
                    Arith::Div => a / b,
                }
            }
        }
    };
}

float!(f32 u32 SINGLE);
float!(f64 u64 DOUBLE);

impl Fp {
    #[inline(always)]
    pub(crate) fn new(mxcsr: u32) -> Fp {
        Fp { mxcsr, raised: 0 }
    }

    /// Raised and unmasked, of `flags`.
    #[inline(always)]
    pub(crate) fn unmasked(self, flags: u32) -> u32 {
        flags & !(self.mxcsr >> MASKS)
    }

    /// MXCSR's rounding mode.
    pub(crate) fn rounding(self) -> Rounding {
        Rounding::from_bits(self.mxcsr >> 13)
    }

    /// Nearest, and an inexact result would change nothing: raised before, and masked.
    #[inline(always)]
    fn is_plain(self) -> bool {
        self.mxcsr & (3 << 13 | PE | PE << MASKS) == PE | PE << MASKS
    }

    /// An operand as the operation sees it.
    fn operand(self, format: Format, bits: u64) -> u64 {
        if self.mxcsr & DAZ != 0 && format.is_denormal(bits) { bits & format.sign_bit() } else { bits }
    }

    /// The NaN that comes of these operands, if one is: raises IE for signaling ones.
    fn nan_of(&mut self, format: Format, operands: &[u64]) -> Option<u64> {
        let first = operands.iter().copied().find(|v| format.is_nan(*v))?;
        if operands.iter().any(|v| format.is_signaling(*v)) {
            self.raised |= IE;
        }
        Some(first | format.quiet_bit())
    }

    fn invalid(&mut self, format: Format) -> u64 {
        self.raised |= IE;
        format.indefinite()
    }

    fn denormals(&mut self, format: Format, operands: &[u64]) {
        if operands.iter().any(|v| format.is_denormal(*v)) {
            self.raised |= DE;
        }
    }

    /// Sum, difference, product, quotient.
    #[inline(always)]
    pub(crate) fn arith<T: Float>(&mut self, op: Arith, a: T, b: T) -> T {
        if self.is_plain() {
            let r = T::host(op, a, b);
            let format = T::FORMAT.0;
            if [a, b, r].iter().all(|v| format.is_normal(v.bits())) {
                return r;
            }
        }
        T::of(self.arith_bits(T::FORMAT.0, op, a.bits(), b.bits()))
    }

    #[cold]
    #[inline(never)]
    fn arith_bits(&mut self, format: Format, op: Arith, a: u64, b: u64) -> u64 {
        let (a, b) = (self.operand(format, a), self.operand(format, b));
        if let Some(nan) = self.nan_of(format, &[a, b]) {
            return nan;
        }
        let (x, mut y) = (format.unpack(a), format.unpack(b));
        if op == Arith::Sub {
            y.sign = !y.sign;
        }
        match op {
            Arith::Add | Arith::Sub => {
                if x.kind == Kind::Infinite && y.kind == Kind::Infinite && x.sign != y.sign {
                    return self.invalid(format);
                }
                self.denormals(format, &[a, b]);
                self.sum(format, x, y)
            }
            Arith::Mul => {
                if matches!((x.kind, y.kind), (Kind::Zero, Kind::Infinite) | (Kind::Infinite, Kind::Zero)) {
                    return self.invalid(format);
                }
                self.denormals(format, &[a, b]);
                self.product(format, x, y)
            }
            Arith::Div => self.quotient(format, [a, b], x, y),
        }
    }

    fn sum(&mut self, format: Format, x: Number, y: Number) -> u64 {
        match (x.kind, y.kind) {
            (Kind::Infinite, _) => return format.signed(x.sign, format.infinity()),
            (_, Kind::Infinite) => return format.signed(y.sign, format.infinity()),
            (Kind::Zero, Kind::Zero) => return format.signed(self.sign_of_zero(x.sign, y.sign), 0),
            _ => {}
        }
        let wide = |n: Number| Wide { sign: n.sign, exp: n.exp + 1, sig: u128::from(n.sig) << 63 };
        match (x.kind, y.kind) {
            (Kind::Zero, _) => self.finish(format, wide(y)),
            (_, Kind::Zero) => self.finish(format, wide(x)),
            _ => self.add_wide(format, wide(x), wide(y)),
        }
    }

    /// The sign of an exact zero sum.
    fn sign_of_zero(self, a: bool, b: bool) -> bool {
        if a == b { a } else { self.rounding() == Rounding::Down }
    }

    /// Sum of two nonzero numbers whose bit 127 is clear.
    fn add_wide(&mut self, format: Format, x: Wide, y: Wide) -> u64 {
        let (x, y) = (x.below_the_top(), y.below_the_top());
        let (big, small) = if (x.exp, x.sig) >= (y.exp, y.sig) { (x, y) } else { (y, x) };
        let aligned = shift_right_jam(small.sig, (big.exp - small.exp) as u32);
        // Leading zeros can make the one with the larger exponent the lesser.
        let (sign, sig) = match (big.sign == small.sign, big.sig >= aligned) {
            (true, _) => (big.sign, big.sig + aligned),
            (false, true) => (big.sign, big.sig - aligned),
            (false, false) => (small.sign, aligned - big.sig),
        };
        if sig == 0 {
            return format.signed(self.sign_of_zero(x.sign, y.sign), 0);
        }
        self.finish(format, Wide { sign, sig, ..big })
    }

    fn product(&mut self, format: Format, x: Number, y: Number) -> u64 {
        let sign = x.sign != y.sign;
        match (x.kind, y.kind) {
            (Kind::Infinite, _) | (_, Kind::Infinite) => format.signed(sign, format.infinity()),
            (Kind::Zero, _) | (_, Kind::Zero) => format.signed(sign, 0),
            _ => self.finish(format, Wide::product(x, y)),
        }
    }

    fn quotient(&mut self, format: Format, operands: [u64; 2], x: Number, y: Number) -> u64 {
        let sign = x.sign != y.sign;
        match (x.kind, y.kind) {
            (Kind::Infinite, Kind::Infinite) | (Kind::Zero, Kind::Zero) => return self.invalid(format),
            (Kind::Finite, Kind::Zero) => {
                self.raised |= ZE;
                return format.signed(sign, format.infinity());
            }
            _ => self.denormals(format, &operands),
        }
        match (x.kind, y.kind) {
            (Kind::Infinite, _) => format.signed(sign, format.infinity()),
            (Kind::Zero, _) | (_, Kind::Infinite) => format.signed(sign, 0),
            _ => {
                // 64 bits or 65 of quotient, and whether there is a remainder.
                let (n, d) = (u128::from(x.sig) << 64, u128::from(y.sig));
                let sig = (n / d) << 62 | u128::from(n % d != 0);
                self.finish(format, Wide { sign, exp: x.exp - y.exp + 1, sig })
            }
        }
    }

    /// Square root.
    pub(crate) fn sqrt<T: Float>(&mut self, a: T) -> T {
        let format = T::FORMAT.0;
        let a = self.operand(format, a.bits());
        if let Some(nan) = self.nan_of(format, &[a]) {
            return T::of(nan);
        }
        let x = format.unpack(a);
        if x.kind == Kind::Zero {
            return T::of(a);
        }
        if x.sign {
            return T::of(self.invalid(format));
        }
        if x.kind == Kind::Infinite {
            return T::of(a);
        }
        self.denormals(format, &[a]);
        // The radicand is sig * 2^(exp - 63), with an even exponent under 127 bits of integer.
        let odd = x.exp.rem_euclid(2) as u32;
        let radicand = u128::from(x.sig) << (63 + odd);
        let root = radicand.isqrt();
        let sig = root << 63 | u128::from(root * root != radicand);
        T::of(self.finish(format, Wide { sign: false, exp: x.exp.div_euclid(2) + 1, sig }))
    }

    /// `a * b + c`, rounded once.
    pub(crate) fn fused<T: Float>(&mut self, [a, b, c]: [T; 3], negate_product: bool, negate_sum: bool) -> T {
        let format = T::FORMAT.0;
        let [a, b, c] = [a, b, c].map(|v| self.operand(format, v.bits()));
        T::of(self.fused_bits(format, [a, b, c], negate_product, negate_sum))
    }

    fn fused_bits(&mut self, format: Format, [a, b, c]: [u64; 3], negate_product: bool, negate_sum: bool) -> u64 {
        if let Some(nan) = self.nan_of(format, &[a, b, c]) {
            return nan;
        }
        let (x, y, mut z) = (format.unpack(a), format.unpack(b), format.unpack(c));
        let sign = (x.sign != y.sign) != negate_product;
        z.sign = z.sign != negate_sum;
        let infinite = x.kind == Kind::Infinite || y.kind == Kind::Infinite;
        let zero = x.kind == Kind::Zero || y.kind == Kind::Zero;
        if infinite && (zero || z.kind == Kind::Infinite && z.sign != sign) {
            return self.invalid(format);
        }
        self.denormals(format, &[a, b, c]);
        if infinite {
            return format.signed(sign, format.infinity());
        }
        if z.kind == Kind::Infinite {
            return format.signed(z.sign, format.infinity());
        }
        let addend = Wide { sign: z.sign, exp: z.exp + 1, sig: u128::from(z.sig) << 63 };
        match (zero, z.kind == Kind::Zero) {
            (true, true) => format.signed(self.sign_of_zero(sign, z.sign), 0),
            (true, false) => self.finish(format, addend),
            (false, true) => self.finish(format, Wide { sign, ..Wide::product(x, y) }),
            (false, false) => {
                let product = Wide { sign, ..Wide::product(x, y) };
                // Bit 127 must be clear; the lowest bits of the product of two of at most 53 bits are zero.
                let product = Wide { sig: product.sig >> 1, exp: product.exp + 1, ..product };
                self.add_wide(format, product, addend)
            }
        }
    }

    /// Rounds a nonzero number.
    fn finish(&mut self, format: Format, wide: Wide) -> u64 {
        let shift = wide.sig.leading_zeros();
        self.round(format, wide.sign, wide.exp - shift as i32, wide.sig << shift)
    }

    /// Rounds `sig * 2^(exp - 127)`, bit 127 set.
    fn round(&mut self, format: Format, sign: bool, exp: i32, sig: u128) -> u64 {
        self.round_by(format, self.rounding(), self.mxcsr & FTZ != 0, sign, exp, sig)
    }

    fn round_by(&mut self, format: Format, mode: Rounding, flush: bool, sign: bool, exp: i32, sig: u128) -> u64 {
        let precision = format.fraction + 1;
        let r = round_sig(mode, sign, sig, precision);
        let biased = exp + format.bias();
        let inexact = if r.inexact { PE } else { 0 };
        if biased + i32::from(r.carry) < 1 {
            if self.unmasked(UE) != 0 {
                self.raised |= UE | inexact;
                return 0;
            }
            if flush {
                self.raised |= UE | PE;
                return format.signed(sign, 0);
            }
            let r = round_sig(mode, sign, shift_right_jam(sig, (1 - biased) as u32), precision);
            if r.inexact {
                self.raised |= UE | PE;
            }
            // Rounding up to the least normal number sets the bit above the fraction, and with it the exponent.
            return format.signed(sign, r.kept);
        }
        let biased = biased + i32::from(r.carry);
        if biased >= format.special as i32 {
            self.raised |= OE | if self.unmasked(OE) != 0 { inexact } else { PE };
            let to_infinity = match mode {
                Rounding::Nearest => true,
                Rounding::Down => sign,
                Rounding::Up => !sign,
                Rounding::Zero => false,
            };
            return format.signed(sign, format.infinity() - u64::from(!to_infinity));
        }
        self.raised |= inexact;
        let kept = if r.carry { 1 << format.fraction } else { r.kept };
        format.signed(sign, (biased as u64) << format.fraction | kept & ((1 << format.fraction) - 1))
    }

    /// MINSS and MAXSS: `less` says what makes the first operand the result; the second is, for NaNs and two zeros.
    pub(crate) fn select<T: Float>(&mut self, a: T, b: T, chosen: Ordering) -> T {
        let format = T::FORMAT.0;
        let (p, q) = (self.operand(format, a.bits()), self.operand(format, b.bits()));
        if self.order(format, p, q, Signaling::Yes) == Some(chosen) { T::of(p) } else { T::of(q) }
    }

    /// How two operands compare; `None` is unordered.
    fn order(&mut self, format: Format, a: u64, b: u64, signaling: Signaling) -> Option<Ordering> {
        if format.is_nan(a) || format.is_nan(b) {
            if signaling == Signaling::Yes || format.is_signaling(a) || format.is_signaling(b) {
                self.raised |= IE;
            }
            return None;
        }
        self.denormals(format, &[a, b]);
        let key = |v: u64| {
            let magnitude = (v & !format.sign_bit()) as i64;
            if v & format.sign_bit() != 0 { -magnitude } else { magnitude }
        };
        Some(key(a).cmp(&key(b)))
    }

    /// Comparison by condition code.
    pub(crate) fn compare<T: Float>(&mut self, cc: FloatCc, signaling: Signaling, a: T, b: T) -> bool {
        let format = T::FORMAT.0;
        let (a, b) = (self.operand(format, a.bits()), self.operand(format, b.bits()));
        let order = self.order(format, a, b, signaling);
        let (unordered, less, equal, greater) = (
            order.is_none(),
            order == Some(Ordering::Less),
            order == Some(Ordering::Equal),
            order == Some(Ordering::Greater),
        );
        match cc {
            FloatCc::Ordered => !unordered,
            FloatCc::Unordered => unordered,
            FloatCc::Equal => equal,
            FloatCc::NotEqual => !equal,
            FloatCc::OrderedNotEqual => less || greater,
            FloatCc::UnorderedOrEqual => unordered || equal,
            FloatCc::LessThan => less,
            FloatCc::LessThanOrEqual => less || equal,
            FloatCc::GreaterThan => greater,
            FloatCc::GreaterThanOrEqual => greater || equal,
            FloatCc::UnorderedOrLessThan => unordered || less,
            FloatCc::UnorderedOrLessThanOrEqual => unordered || less || equal,
            FloatCc::UnorderedOrGreaterThan => unordered || greater,
            FloatCc::UnorderedOrGreaterThanOrEqual => unordered || greater || equal,
        }
    }

    /// CVTSS2SD.
    pub(crate) fn promote(&mut self, a: f32) -> f64 {
        f64::from_bits(self.convert(SINGLE, DOUBLE, a.bits()))
    }

    /// CVTSD2SS.
    pub(crate) fn demote(&mut self, a: f64) -> f32 {
        f32::of(self.convert(DOUBLE, SINGLE, a.bits()))
    }

    /// VCVTPH2PS: denormals are neither raised nor taken for zeros.
    pub(crate) fn widen_half(&mut self, h: u16) -> u32 {
        let h = u64::from(h);
        if HALF.is_nan(h) {
            return self.nan_of(HALF, &[h]).map_or(0, |nan| convert_nan(HALF, SINGLE, nan)) as u32;
        }
        self.convert_number(HALF, SINGLE, HALF.unpack(h)) as u32
    }

    /// VCVTPS2PH: results are never flushed.
    pub(crate) fn narrow_to_half(&mut self, bits: u32, mode: Rounding) -> u16 {
        let a = self.operand(SINGLE, u64::from(bits));
        if let Some(nan) = self.nan_of(SINGLE, &[a]) {
            return convert_nan(SINGLE, HALF, nan) as u16;
        }
        self.denormals(SINGLE, &[a]);
        let x = SINGLE.unpack(a);
        match x.kind {
            Kind::Finite => self.round_by(HALF, mode, false, x.sign, x.exp, u128::from(x.sig) << 64) as u16,
            _ => self.convert_number(SINGLE, HALF, x) as u16,
        }
    }

    fn convert(&mut self, from: Format, to: Format, a: u64) -> u64 {
        let a = self.operand(from, a);
        if let Some(nan) = self.nan_of(from, &[a]) {
            return convert_nan(from, to, nan);
        }
        self.denormals(from, &[a]);
        self.convert_number(from, to, from.unpack(a))
    }

    fn convert_number(&mut self, _: Format, to: Format, x: Number) -> u64 {
        match x.kind {
            Kind::Zero => to.signed(x.sign, 0),
            Kind::Infinite => to.signed(x.sign, to.infinity()),
            Kind::Finite => self.round(to, x.sign, x.exp, u128::from(x.sig) << 64),
        }
    }

    /// From a signed integer.
    pub(crate) fn int_to_float<T: Float>(&mut self, v: i64) -> T {
        let format = T::FORMAT.0;
        if v == 0 {
            return T::of(0);
        }
        let shift = v.unsigned_abs().leading_zeros();
        T::of(self.round(format, v < 0, 63 - shift as i32, u128::from(v.unsigned_abs() << shift) << 64))
    }

    /// To a signed integer of `bits` bits; the integer indefinite for NaN and out of range.
    pub(crate) fn float_to_int<T: Float>(&mut self, bits: u32, a: T, mode: Rounding) -> i64 {
        let format = T::FORMAT.0;
        let a = self.operand(format, a.bits());
        let indefinite = i64::MIN >> (64 - bits);
        let x = format.unpack(a);
        if format.is_nan(a) || x.kind == Kind::Infinite || x.exp > 63 {
            self.raised |= IE;
            return indefinite;
        }
        if x.kind == Kind::Zero {
            return 0;
        }
        // In units of 2^-64.
        let fixed = shift_right_jam(u128::from(x.sig) << 64, (63 - x.exp).min(128) as u32);
        let (whole, rest) = ((fixed >> 64) as u64, fixed as u64);
        let up = mode.increments(x.sign, whole & 1 != 0, rest >> 63 != 0, rest << 1 != 0);
        let magnitude = i128::from(whole) + i128::from(up);
        let v = if x.sign { -magnitude } else { magnitude };
        if v < i128::from(indefinite) || v > -(i128::from(indefinite) + 1) {
            self.raised |= IE;
            return indefinite;
        }
        if rest != 0 {
            self.raised |= PE;
        }
        v as i64
    }

    /// To an integral number.
    pub(crate) fn integral<T: Float>(&mut self, a: T, mode: Rounding, precision: Precision) -> T {
        let format = T::FORMAT.0;
        let a = self.operand(format, a.bits());
        if let Some(nan) = self.nan_of(format, &[a]) {
            return T::of(nan);
        }
        let x = format.unpack(a);
        if x.kind != Kind::Finite || x.exp >= format.fraction as i32 {
            return T::of(a);
        }
        let fixed = shift_right_jam(u128::from(x.sig) << 64, (63 - x.exp).min(128) as u32);
        let (whole, rest) = ((fixed >> 64) as u64, fixed as u64);
        if rest != 0 && precision == Precision::Raised {
            self.raised |= PE;
        }
        let whole = whole + u64::from(mode.increments(x.sign, whole & 1 != 0, rest >> 63 != 0, rest << 1 != 0));
        if whole == 0 {
            return T::of(format.signed(x.sign, 0));
        }
        let shift = whole.leading_zeros();
        let exp = (63 - shift as i32 + format.bias()) as u64;
        let fraction = (whole << shift << 1) >> (64 - format.fraction);
        T::of(format.signed(x.sign, exp << format.fraction | fraction))
    }
}

/// A NaN in another format: the top of its payload, quiet.
fn convert_nan(from: Format, to: Format, nan: u64) -> u64 {
    let sign = nan & from.sign_bit() != 0;
    let payload = (nan & ((1 << from.fraction) - 1)) << (63 - from.fraction);
    to.signed(sign, to.infinity() | to.quiet_bit() | payload >> (63 - to.fraction))
}

/// A nonzero number, `sig * 2^(exp - 127)`.
#[derive(Clone, Copy)]
struct Wide {
    sign: bool,
    exp: i32,
    sig: u128,
}

impl Wide {
    /// The same with bit 126 as the highest that is set.
    fn below_the_top(self) -> Wide {
        let shift = self.sig.leading_zeros() as i32 - 1;
        Wide { exp: self.exp - shift, sig: self.sig << shift, ..self }
    }

    fn product(x: Number, y: Number) -> Wide {
        Wide { sign: x.sign != y.sign, exp: x.exp + y.exp + 1, sig: u128::from(x.sig) * u128::from(y.sig) }
    }
}

/// A significand rounded to its top `precision` bits, `kept`; 0 above a carry.
struct Rounded {
    kept: u64,
    carry: bool,
    inexact: bool,
}

fn round_sig(mode: Rounding, sign: bool, sig: u128, precision: u32) -> Rounded {
    let lost = 128 - precision;
    let kept = (sig >> lost) as u64;
    let half = sig >> (lost - 1) & 1 != 0;
    let sticky = sig & ((1 << (lost - 1)) - 1) != 0;
    let kept = kept + u64::from(mode.increments(sign, kept & 1 != 0, half, sticky));
    Rounded { kept, carry: kept >> precision != 0, inexact: half || sticky }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEFAULT: u32 = 0x1f80;

    fn fp(mxcsr: u32) -> Fp {
        Fp::new(mxcsr)
    }

    #[test]
    fn the_host_agrees_where_it_can() {
        let mut seed = 1u64;
        let mut random = || {
            seed = seed.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
            seed ^ seed >> 29
        };
        for _ in 0..100_000 {
            let (a, b, c) = (f64::from_bits(random()), f64::from_bits(random()), f64::from_bits(random()));
            if [a, b, c].iter().any(|v| v.is_nan()) {
                continue;
            }
            for op in [Arith::Add, Arith::Sub, Arith::Mul, Arith::Div] {
                let want = f64::host(op, a, b);
                let got = fp(DEFAULT).arith(op, a, b);
                assert!(want.to_bits() == got.to_bits() || want.is_nan() && got.is_nan(), "{a:e} {op:?} {b:e}");
            }
            let (want, got) = (a.mul_add(b, c), fp(DEFAULT).fused([a, b, c], false, false));
            assert!(want.to_bits() == got.to_bits() || want.is_nan() && got.is_nan(), "{a:e} * {b:e} + {c:e}");
            let (want, got) = (a.sqrt(), fp(DEFAULT).sqrt(a));
            assert!(want.to_bits() == got.to_bits() || want.is_nan() && got.is_nan(), "sqrt {a:e}");
            assert_eq!((a as f32).to_bits(), fp(DEFAULT).demote(a).to_bits(), "{a:e}");
        }
    }

    #[test]
    fn flags_are_raised() {
        let raised = |f: &dyn Fn(&mut Fp)| {
            let mut fp = fp(DEFAULT);
            f(&mut fp);
            fp.raised
        };
        assert_eq!(raised(&|fp| _ = fp.arith(Arith::Div, 1.0f64, 0.0)), ZE);
        assert_eq!(raised(&|fp| _ = fp.arith(Arith::Div, 0.0f64, 0.0)), IE);
        assert_eq!(raised(&|fp| _ = fp.arith(Arith::Div, 1.0f64, 3.0)), PE);
        assert_eq!(raised(&|fp| _ = fp.arith(Arith::Mul, f64::MAX, 2.0)), OE | PE);
        assert_eq!(raised(&|fp| _ = fp.arith(Arith::Mul, f64::MIN_POSITIVE, 0.3)), UE | PE);
        assert_eq!(raised(&|fp| _ = fp.arith(Arith::Add, f64::from_bits(1), 0.0)), DE);
        assert_eq!(raised(&|fp| _ = fp.float_to_int(32, 1e10f64, Rounding::Nearest)), IE);
        assert_eq!(raised(&|fp| _ = fp.float_to_int(32, 1.5f64, Rounding::Nearest)), PE);
    }

    #[test]
    fn the_first_nan_wins_and_is_quieted() {
        let (snan, qnan) = (f32::from_bits(0x7f80_0001), f32::from_bits(0xffc0_0002));
        let add = |a: f32, b: f32| fp(DEFAULT).arith(Arith::Add, a, b).to_bits();
        assert_eq!(add(snan, qnan), 0x7fc0_0001);
        assert_eq!(add(qnan, snan), 0xffc0_0002);
        assert_eq!(add(1.0, snan), 0x7fc0_0001);
        assert_eq!(fp(DEFAULT).arith(Arith::Div, 0.0f64, 0.0).to_bits(), 0xfff8_0000_0000_0000);
        assert_eq!(fp(DEFAULT).sqrt(-1.0f32).to_bits(), 0xffc0_0000);
    }

    #[test]
    fn conversions_out_of_range_give_the_integer_indefinite() {
        let mut fp = fp(DEFAULT);
        assert_eq!(fp.float_to_int(32, 2147483647.9f64, Rounding::Zero), i64::from(i32::MAX));
        assert_eq!(fp.float_to_int(32, 2147483648.0f64, Rounding::Zero), i64::from(i32::MIN));
        assert_eq!(fp.float_to_int(64, f32::NAN, Rounding::Zero), i64::MIN);
        assert_eq!(fp.float_to_int(64, 9.3e18f32, Rounding::Zero), i64::MIN);
    }

    #[test]
    fn nan_payloads_survive_conversion() {
        assert_eq!(fp(DEFAULT).promote(f32::from_bits(0xff80_0001)).to_bits(), 0xfff8_0000_2000_0000);
        assert_eq!(fp(DEFAULT).demote(f64::from_bits(0x7ff0_0000_2000_0000)).to_bits(), 0x7fc0_0001);
    }
}
