//! 80-bit extended precision, as the x87 computes it (SDM vol. 1 4.2, 4.8 and 8.5).
//!
//! Every operation is exact integer arithmetic on 64-bit significands followed by *one* call of [`round`], which
//! knows the precision and rounding controls, the wrapped exponents of unmasked overflow and underflow, and C1.
//! (A general soft-float library has neither 24- and 53-bit results with a 15-bit exponent, nor unnormals, nor
//! C1; with them missing, little of it could be used.)
//!
//! Between operation and `round` a number is `(sign, exp, sig: u128)` with bit 127 of `sig` set and the value
//! `sig * 2^(exp - BIAS - 127)`. Bits that were lost further right are *jammed* into bit 0: with at least two bits
//! between it and the last kept one, rounding comes out the same.
//!
//! Invariants:
//! 1. Nothing here touches the x87 unit: an operation returns a [`Done`], `x87.rs` decides what becomes of it.
//! 2. The order of precedence is the SDM's (4.9.2): unsupported and signaling operands, quiet NaNs, other invalid
//!    operations and division by zero, denormal operands, then what the result raises.

use crate::rounding::Rounding;
use std::cmp::Ordering;

/// Exception flags as in the status word (SDM vol. 1 8.1.3).
pub(crate) const IE: u16 = 1 << 0;
pub(crate) const DE: u16 = 1 << 1;
pub(crate) const ZE: u16 = 1 << 2;
pub(crate) const OE: u16 = 1 << 3;
pub(crate) const UE: u16 = 1 << 4;
pub(crate) const PE: u16 = 1 << 5;

/// Exponent of 1.0.
pub(crate) const BIAS: i32 = 16383;
const EXP_SPECIAL: i32 = 0x7fff;
const INTEGER_BIT: u64 = 1 << 63;
const QUIET_BIT: u64 = 1 << 62;
/// What unmasked overflow subtracts from the exponent and unmasked underflow adds (SDM vol. 1 8.5.4).
const WRAP: i32 = 24576;

/// An extended-precision number as it stands in a register.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct F80 {
    pub(crate) mant: u64,
    /// Sign in bit 15, biased exponent below.
    pub(crate) se: u16,
}

/// What kind of number an encoding is (SDM vol. 1 tables 4-3 and 8-3).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Class {
    Zero,
    /// Exponent field 0 and a nonzero significand, pseudo-denormals included.
    Denormal,
    Normal,
    Infinite,
    Quiet,
    Signaling,
    /// Unnormals, pseudo-infinities and pseudo-NaNs.
    Unsupported,
}

/// What the control word says about an operation.
#[derive(Clone, Copy)]
pub(crate) struct Env {
    pub(crate) rounding: Rounding,
    /// Significant bits of the result: 24, 53 or 64.
    pub(crate) precision: u32,
    /// Masked exceptions, as flags.
    pub(crate) masked: u16,
}

impl Env {
    /// The environment of a control word (SDM vol. 1 8.1.5).
    pub(crate) fn new(control: u16) -> Self {
        let precision = match control >> 8 & 3 {
            0 => 24,
            2 => 53,
            _ => 64,
        };
        Self { rounding: Rounding::from_bits(u32::from(control >> 10)), precision, masked: control & 0x3f }
    }

    /// The same without precision control, which only add, subtract, multiply, divide and square root obey.
    pub(crate) fn full(self) -> Self {
        Self { precision: 64, ..self }
    }
}

/// Result of an operation.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Done {
    pub(crate) value: F80,
    /// Exceptions raised.
    pub(crate) raised: u16,
    /// C1: the magnitude was rounded up.
    pub(crate) up: bool,
}

impl Done {
    /// An exact result.
    pub(crate) fn exact(value: F80) -> Self {
        Self { value, raised: 0, up: false }
    }

    /// The masked response to an invalid operation.
    pub(crate) fn invalid() -> Self {
        Self { value: F80::INDEFINITE, raised: IE, up: false }
    }

    /// The same, with more exceptions.
    pub(crate) fn with(self, raised: u16) -> Self {
        Self { raised: self.raised | raised, ..self }
    }
}

/// The four operations, with the codes that the lifter passes; the reversed ones swap their operands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Arith {
    Add,
    Mul,
    Sub,
    SubR,
    Div,
    DivR,
}

impl Arith {
    /// From its discriminant.
    pub(crate) fn from_code(code: u64) -> Self {
        match code {
            0 => Self::Add,
            1 => Self::Mul,
            2 => Self::Sub,
            3 => Self::SubR,
            4 => Self::Div,
            _ => Self::DivR,
        }
    }
}

impl F80 {
    pub(crate) const ZERO: F80 = F80 { mant: 0, se: 0 };
    pub(crate) const ONE: F80 = F80 { mant: INTEGER_BIT, se: BIAS as u16 };
    /// The QNaN floating-point indefinite.
    pub(crate) const INDEFINITE: F80 = F80 { mant: INTEGER_BIT | QUIET_BIT, se: 0xffff };

    pub(crate) fn pack(sign: bool, exp: i32, mant: u64) -> Self {
        Self { mant, se: u16::from(sign) << 15 | exp as u16 }
    }

    pub(crate) fn infinity(sign: bool) -> Self {
        Self::pack(sign, EXP_SPECIAL, INTEGER_BIT)
    }

    pub(crate) fn zero(sign: bool) -> Self {
        Self::pack(sign, 0, 0)
    }

    pub(crate) fn sign(self) -> bool {
        self.se >> 15 != 0
    }

    pub(crate) fn negated(self) -> Self {
        Self { se: self.se ^ 0x8000, ..self }
    }

    /// The biased exponent field.
    fn exp_field(self) -> i32 {
        i32::from(self.se & 0x7fff)
    }

    pub(crate) fn class(self) -> Class {
        let integer = self.mant & INTEGER_BIT != 0;
        match self.exp_field() {
            0 if self.mant == 0 => Class::Zero,
            0 => Class::Denormal,
            _ if !integer => Class::Unsupported,
            EXP_SPECIAL if self.mant == INTEGER_BIT => Class::Infinite,
            EXP_SPECIAL if self.mant & QUIET_BIT != 0 => Class::Quiet,
            EXP_SPECIAL => Class::Signaling,
            _ => Class::Normal,
        }
    }

    /// Biased exponent and significand with the integer bit set, of a finite nonzero number.
    pub(crate) fn normalized(self) -> (i32, u64) {
        let shift = self.mant.leading_zeros();
        (self.exp_field().max(1) - shift as i32, self.mant << shift)
    }

    /// DE if the operand is a denormal.
    pub(crate) fn denormal_flag(self) -> u16 {
        if self.class() == Class::Denormal { DE } else { 0 }
    }

    fn is_nan(self) -> bool {
        matches!(self.class(), Class::Quiet | Class::Signaling)
    }

    fn quieted(self) -> Self {
        Self { mant: self.mant | QUIET_BIT, ..self }
    }

    /// From a signed integer: always exact.
    pub(crate) fn from_i64(v: i64) -> Self {
        if v == 0 {
            return Self::ZERO;
        }
        let shift = v.unsigned_abs().leading_zeros();
        Self::pack(v < 0, BIAS + 63 - shift as i32, v.unsigned_abs() << shift)
    }

    /// From the bits of an `f32`: exact, signaling NaNs stay so. The flag is DE for a denormal.
    pub(crate) fn from_f32(bits: u32) -> (Self, u16) {
        let exp = (bits >> 23 & 0xff) as i32;
        Self::widen(bits >> 31 != 0, exp, u64::from(bits & 0x7f_ffff) << 40, 0xff)
    }

    /// From the bits of an `f64`, likewise.
    pub(crate) fn from_f64(bits: u64) -> (Self, u16) {
        let exp = (bits >> 52 & 0x7ff) as i32;
        Self::widen(bits >> 63 != 0, exp, (bits & ((1 << 52) - 1)) << 11, 0x7ff)
    }

    /// From a narrower format: `fraction` stands right below the integer bit, `special` is the exponent of NaNs.
    fn widen(sign: bool, exp: i32, fraction: u64, special: i32) -> (Self, u16) {
        let bias = special / 2;
        match exp {
            0 if fraction == 0 => (Self::zero(sign), 0),
            0 => {
                let shift = fraction.leading_zeros();
                (Self::pack(sign, 1 - bias + BIAS - shift as i32, fraction << shift), DE)
            }
            _ if exp == special => (Self::pack(sign, EXP_SPECIAL, fraction | INTEGER_BIT), 0),
            _ => (Self::pack(sign, exp - bias + BIAS, fraction | INTEGER_BIT), 0),
        }
    }
}

/// `v >> n`, with bit 0 set if any lost bit was.
fn shift_right_jam(v: u128, n: u32) -> u128 {
    match n {
        0 => v,
        1..=127 => v >> n | u128::from(v << (128 - n) != 0),
        _ => u128::from(v != 0),
    }
}

/// A significand rounded to its top `precision` bits.
struct Rounded {
    /// 64 bits; 0 after a carry out of the top.
    sig: u64,
    carry: bool,
    inexact: bool,
    up: bool,
}

#[inline]
fn round_sig(sign: bool, sig: u128, precision: u32, rounding: Rounding) -> Rounded {
    let lost = 128 - precision;
    let kept = sig >> lost;
    let half = sig >> (lost - 1) & 1 != 0;
    let sticky = sig & ((1 << (lost - 1)) - 1) != 0;
    let up = rounding.increments(sign, kept & 1 != 0, half, sticky);
    let kept = (kept + u128::from(up)) << (64 - precision);
    Rounded { sig: kept as u64, carry: kept >> 64 != 0, inexact: half || sticky, up }
}

/// Rounds a normalized result (bit 127 of `sig` set) into a register.
#[inline]
pub(crate) fn round(sign: bool, exp: i32, sig: u128, env: Env) -> Done {
    let r = round_sig(sign, sig, env.precision, env.rounding);
    // The common case: nowhere near the ends of the exponent's range, nor carried into the next power of two.
    if !r.carry && (1..EXP_SPECIAL).contains(&exp) {
        let raised = if r.inexact { PE } else { 0 };
        return Done { value: F80::pack(sign, exp, r.sig), raised, up: r.up };
    }
    round_at_the_ends(sign, exp, sig, env)
}

/// The same for results that may underflow or overflow.
#[cold]
fn round_at_the_ends(sign: bool, mut exp: i32, sig: u128, env: Env) -> Done {
    let mut r = round_sig(sign, sig, env.precision, env.rounding);
    let mut raised = 0;
    // Tininess is detected after rounding, as if the exponent had no bounds (SDM vol. 1 4.9.1.5).
    if exp + i32::from(r.carry) < 1 {
        if env.masked & UE != 0 {
            r = round_sig(sign, shift_right_jam(sig, (1 - exp) as u32), env.precision, env.rounding);
            let raised = if r.inexact { UE | PE } else { 0 };
            // Rounding up to the least normal number sets the integer bit, and with it the exponent.
            let exp = i32::from(r.sig & INTEGER_BIT != 0);
            return Done { value: F80::pack(sign, exp, r.sig), raised, up: r.up };
        }
        exp += WRAP;
        raised |= UE;
    }
    if r.carry {
        exp += 1;
        r.sig = INTEGER_BIT;
    }
    if exp >= EXP_SPECIAL {
        if env.masked & OE != 0 {
            return overflow(sign, env);
        }
        exp -= WRAP;
        raised |= OE;
    }
    // Beyond the wrapped range only FSCALE gets: it answers with zero or infinity.
    match exp {
        ..1 => return Done { value: F80::zero(sign), raised: raised | PE, up: false },
        EXP_SPECIAL.. => return Done { value: F80::infinity(sign), raised: raised | PE, up: true },
        _ => {}
    }
    let inexact = if r.inexact { PE } else { 0 };
    Done { value: F80::pack(sign, exp, r.sig), raised: raised | inexact, up: r.up }
}

/// Masked response to overflow (SDM vol. 1 table 4-11).
fn overflow(sign: bool, env: Env) -> Done {
    let up = env.rounding.increments(sign, true, true, true);
    let largest = F80::pack(sign, EXP_SPECIAL - 1, u64::MAX << (64 - env.precision));
    Done { value: if up { F80::infinity(sign) } else { largest }, raised: OE | PE, up }
}

/// The result when an operand is a NaN or unsupported (SDM vol. 1 table 4-7): the NaN with the larger significand.
pub(crate) fn nan_result(a: F80, b: F80) -> Option<Done> {
    let (ca, cb) = (a.class(), b.class());
    if ca == Class::Unsupported || cb == Class::Unsupported {
        return Some(Done::invalid());
    }
    if !a.is_nan() && !b.is_nan() {
        return None;
    }
    let raised = if ca == Class::Signaling || cb == Class::Signaling { IE } else { 0 };
    let value = match (ca, cb) {
        _ if !b.is_nan() => a,
        _ if !a.is_nan() => b,
        // One signaling, one quiet: the quiet one.
        (Class::Signaling, Class::Quiet) => b,
        (Class::Quiet, Class::Signaling) => a,
        // Equal significands: the positive one.
        _ => match a.mant.cmp(&b.mant) {
            Ordering::Greater => a,
            Ordering::Less => b,
            Ordering::Equal => F80 { se: a.se & b.se, ..a },
        },
    };
    Some(Done { value: value.quieted(), raised, up: false })
}

/// The same for one operand.
pub(crate) fn nan_operand(a: F80) -> Option<Done> {
    match a.class() {
        Class::Unsupported => Some(Done::invalid()),
        Class::Signaling => Some(Done { value: a.quieted(), raised: IE, up: false }),
        Class::Quiet => Some(Done::exact(a)),
        _ => None,
    }
}

/// `a op b`. `pre` are exceptions of an operand's conversion from memory (DE).
pub(crate) fn arith(op: Arith, a: F80, b: F80, pre: u16, env: Env) -> Done {
    if let Some(done) = nan_result(a, b) {
        return done;
    }
    let done = match op {
        Arith::Add => add(a, b, env),
        Arith::Sub => add(a, b.negated(), env),
        Arith::SubR => add(b, a.negated(), env),
        Arith::Mul => mul(a, b, env),
        Arith::Div => div(a, b, env),
        Arith::DivR => div(b, a, env),
    };
    // An invalid operation or a division by zero comes before the denormal operand.
    if done.raised & (IE | ZE) != 0 {
        return done;
    }
    with_denormal(done, pre | a.denormal_flag() | b.denormal_flag(), env)
}

/// Adds DE; unmasked, it keeps the operation from being carried out, and so from raising anything else.
pub(crate) fn with_denormal(done: Done, denormal: u16, env: Env) -> Done {
    if denormal & !env.masked != 0 { Done { raised: DE, up: false, ..done } } else { done.with(denormal) }
}

fn add(a: F80, b: F80, env: Env) -> Done {
    use Class::{Infinite, Zero};
    match (a.class(), b.class()) {
        (Infinite, Infinite) if a.sign() != b.sign() => return Done::invalid(),
        (Infinite, _) => return Done::exact(a),
        (_, Infinite) => return Done::exact(b),
        (Zero, Zero) if a.sign() == b.sign() => return Done::exact(a),
        (Zero, Zero) => return Done::exact(F80::zero(env.rounding == Rounding::Down)),
        (Zero, _) => return renormalize(b, env),
        (_, Zero) => return renormalize(a, env),
        _ => {}
    }
    let ((ea, sa), (eb, sb)) = (a.normalized(), b.normalized());
    let (big, (eb, sb), (es, ss)) =
        if (ea, sa) >= (eb, sb) { (a, (ea, sa), (eb, sb)) } else { (b, (eb, sb), (ea, sa)) };
    // One bit of headroom for the carry.
    let large = u128::from(sb) << 63;
    let small = shift_right_jam(u128::from(ss) << 63, (eb - es) as u32);
    let sum = if a.sign() == b.sign() { large + small } else { large - small };
    if sum == 0 {
        return Done::exact(F80::zero(env.rounding == Rounding::Down));
    }
    let shift = sum.leading_zeros();
    round(big.sign(), eb + 1 - shift as i32, sum << shift, env)
}

/// `a` itself, rounded to the precision in force.
fn renormalize(a: F80, env: Env) -> Done {
    let (exp, sig) = a.normalized();
    round(a.sign(), exp, u128::from(sig) << 64, env)
}

fn mul(a: F80, b: F80, env: Env) -> Done {
    use Class::{Infinite, Zero};
    let sign = a.sign() != b.sign();
    match (a.class(), b.class()) {
        (Infinite, Zero) | (Zero, Infinite) => return Done::invalid(),
        (Infinite, _) | (_, Infinite) => return Done::exact(F80::infinity(sign)),
        (Zero, _) | (_, Zero) => return Done::exact(F80::zero(sign)),
        _ => {}
    }
    let ((ea, sa), (eb, sb)) = (a.normalized(), b.normalized());
    let product = u128::from(sa) * u128::from(sb);
    let shift = product.leading_zeros();
    round(sign, ea + eb - BIAS + 1 - shift as i32, product << shift, env)
}

fn div(a: F80, b: F80, env: Env) -> Done {
    use Class::{Infinite, Zero};
    let sign = a.sign() != b.sign();
    match (a.class(), b.class()) {
        (Infinite, Infinite) | (Zero, Zero) => return Done::invalid(),
        (Infinite, _) => return Done::exact(F80::infinity(sign)),
        (_, Zero) => return Done { value: F80::infinity(sign), raised: ZE, up: false },
        (Zero, _) | (_, Infinite) => return Done::exact(F80::zero(sign)),
        _ => {}
    }
    let ((ea, sa), (eb, sb)) = (a.normalized(), b.normalized());
    // 65 bits of quotient, then 63 more.
    let d = u128::from(sb);
    let divide = |n: u128| (n / d, n - n / d * d);
    let (q, r) = divide(u128::from(sa) << 64);
    let (q2, r2) = divide(r << 63);
    let quotient = q << 63 | q2 | u128::from(r2 != 0);
    let shift = quotient.leading_zeros();
    round(sign, ea - eb + BIAS - shift as i32, quotient << shift, env)
}

/// Square root.
pub(crate) fn sqrt(a: F80, env: Env) -> Done {
    if let Some(done) = nan_operand(a) {
        return done;
    }
    match a.class() {
        Class::Zero => return Done::exact(a),
        _ if a.sign() => return Done::invalid(),
        Class::Infinite => return Done::exact(a),
        _ => {}
    }
    let (exp, sig) = a.normalized();
    // value = sig * 2^(exp - BIAS - 63): make the exponent of the radicand even.
    let e = exp - BIAS;
    let radicand = u128::from(sig) << if e & 1 == 0 { 63 } else { 64 };
    let root = radicand.isqrt();
    let rest = radicand - root * root;
    // Half a unit is exceeded if rest > root, and never met.
    let tail = if rest == 0 { 0 } else { 1 | u128::from(rest > root) << 63 };
    let done = round(false, e.div_euclid(2) + BIAS, root << 64 | tail, env);
    with_denormal(done, a.denormal_flag(), env)
}

/// Result of a comparison.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Relation {
    Greater,
    Less,
    Equal,
    Unordered,
}

/// Which NaNs make a comparison invalid.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Nans {
    /// FCOM: all.
    Signal,
    /// FUCOM: signaling ones.
    Quiet,
}

/// Compares a with b: relation and exceptions.
pub(crate) fn compare(a: F80, b: F80, nans: Nans) -> (Relation, u16) {
    let (ca, cb) = (a.class(), b.class());
    let either = |class| ca == class || cb == class;
    if either(Class::Unsupported) || either(Class::Signaling) {
        return (Relation::Unordered, IE);
    }
    if either(Class::Quiet) {
        return (Relation::Unordered, if nans == Nans::Signal { IE } else { 0 });
    }
    let key = |v: F80| match v.class() {
        Class::Zero => (i32::MIN, 0),
        Class::Infinite => (EXP_SPECIAL, 0),
        _ => v.normalized(),
    };
    let magnitude = key(a).cmp(&key(b));
    let relation = match (a.sign(), b.sign()) {
        _ if ca == Class::Zero && cb == Class::Zero => Ordering::Equal,
        (false, false) => magnitude,
        (true, true) => magnitude.reverse(),
        (true, false) => Ordering::Less,
        (false, true) => Ordering::Greater,
    };
    let relation = match relation {
        Ordering::Less => Relation::Less,
        Ordering::Equal => Relation::Equal,
        Ordering::Greater => Relation::Greater,
    };
    (relation, a.denormal_flag() | b.denormal_flag())
}

/// A narrower IEEE format.
pub(crate) struct Narrow {
    precision: u32,
    exp_bits: u32,
}

pub(crate) const SINGLE: Narrow = Narrow { precision: 24, exp_bits: 8 };
pub(crate) const DOUBLE: Narrow = Narrow { precision: 53, exp_bits: 11 };

/// Result of a conversion to a narrower format or an integer, right-aligned.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bits {
    pub(crate) bits: u64,
    pub(crate) raised: u16,
    pub(crate) up: bool,
}

/// Converts to `f32` or `f64`: FST.
pub(crate) fn to_narrow(a: F80, format: &Narrow, env: Env) -> Bits {
    let fraction_bits = format.precision - 1;
    let special = (1i32 << format.exp_bits) - 1;
    let pack = |exp: i32, sig: u64| {
        let fraction = sig >> (64 - format.precision) & ((1 << fraction_bits) - 1);
        u64::from(a.sign()) << (fraction_bits + format.exp_bits) | (exp as u64) << fraction_bits | fraction
    };
    let exact = |bits| Bits { bits, raised: 0, up: false };
    if let Some(nan) = nan_operand(a) {
        // The sign of the indefinite is its own.
        let sign = u64::from(nan.value.sign()) << (fraction_bits + format.exp_bits);
        let bits = pack(special, nan.value.mant) & !(1 << (fraction_bits + format.exp_bits)) | sign;
        return Bits { bits, raised: nan.raised, up: false };
    }
    match a.class() {
        Class::Zero => return exact(pack(0, 0)),
        Class::Infinite => return exact(pack(special, INTEGER_BIT)),
        _ => {}
    }
    let (exp, sig) = a.normalized();
    let (exp, sig) = (exp - BIAS + special / 2, u128::from(sig) << 64);
    let r = round_sig(a.sign(), sig, format.precision, env.rounding);
    if exp + i32::from(r.carry) < 1 {
        let r = round_sig(a.sign(), shift_right_jam(sig, (1 - exp) as u32), format.precision, env.rounding);
        let raised = if r.inexact { UE | PE } else { 0 };
        // Unmasked, an exact denormal underflows as well.
        let raised = if env.masked & UE == 0 { raised | UE } else { raised };
        return Bits { bits: pack(i32::from(r.sig & INTEGER_BIT != 0), r.sig), raised, up: r.up };
    }
    if exp + i32::from(r.carry) >= special {
        let up = env.rounding.increments(a.sign(), true, true, true);
        let bits = if up { pack(special, 0) } else { pack(special - 1, u64::MAX) };
        return Bits { bits, raised: OE | PE, up };
    }
    Bits { bits: pack(exp + i32::from(r.carry), r.sig), raised: if r.inexact { PE } else { 0 }, up: r.up }
}

/// The integer part as magnitude, rounded by `rounding`: magnitude, whether inexact, whether rounded up. `None`
/// if it is 2^64 or more. The operand is finite.
pub(crate) fn to_magnitude(a: F80, rounding: Rounding) -> Option<(u64, bool, bool)> {
    if a.class() == Class::Zero {
        return Some((0, false, false));
    }
    let (exp, sig) = a.normalized();
    let point = BIAS + 63 - exp;
    if point < 0 {
        return None;
    }
    // The integer part stands in the upper half.
    let fixed = shift_right_jam(u128::from(sig) << 64, point as u32);
    let r = round_sig(a.sign(), fixed, 64, rounding);
    (!r.carry).then_some((r.sig, r.inexact, r.up))
}

/// Converts to a signed integer of `width` bits (16, 32, 64): FIST, FISTTP. Out of range: the indefinite and IE.
pub(crate) fn to_int(a: F80, width: u32, rounding: Rounding) -> Bits {
    let min = 1u64 << (width - 1);
    let indefinite = Bits { bits: min, raised: IE, up: false };
    if matches!(a.class(), Class::Unsupported | Class::Quiet | Class::Signaling | Class::Infinite) {
        return indefinite;
    }
    let Some((magnitude, inexact, up)) = to_magnitude(a, rounding) else { return indefinite };
    if magnitude > min || magnitude == min && !a.sign() {
        return indefinite;
    }
    let value = if a.sign() { magnitude.wrapping_neg() } else { magnitude };
    Bits { bits: value & (u64::MAX >> (64 - width)), raised: if inexact { PE } else { 0 }, up }
}

/// Rounds to an integer in floating-point format: FRNDINT.
pub(crate) fn to_integral(a: F80, env: Env) -> Done {
    if let Some(done) = nan_operand(a) {
        return done;
    }
    if matches!(a.class(), Class::Zero | Class::Infinite) || a.exp_field() >= BIAS + 63 {
        return Done::exact(a);
    }
    let (magnitude, inexact, up) = to_magnitude(a, env.rounding).expect("below 2^63");
    let value = if magnitude == 0 {
        F80::zero(a.sign())
    } else {
        let shift = magnitude.leading_zeros();
        F80::pack(a.sign(), BIAS + 63 - shift as i32, magnitude << shift)
    };
    let done = Done { value, raised: if inexact { PE } else { 0 }, up };
    with_denormal(done, a.denormal_flag(), env)
}

/// a * 2^trunc(b): FSCALE.
pub(crate) fn scale(a: F80, b: F80, env: Env) -> Done {
    use Class::{Infinite, Zero};
    if let Some(done) = nan_result(a, b) {
        return done;
    }
    let denormal = a.denormal_flag() | b.denormal_flag();
    let done = match (a.class(), b.class()) {
        (Zero, Infinite) if !b.sign() => return Done::invalid(),
        (Infinite, Infinite) if b.sign() => return Done::invalid(),
        (_, Infinite) => Done::exact(if b.sign() { F80::zero(a.sign()) } else { F80::infinity(a.sign()) }),
        (Zero | Infinite, _) => Done::exact(a),
        _ => {
            let (exp, sig) = a.normalized();
            // More than 2^16 is beyond every exponent either way.
            let n = to_magnitude(b, Rounding::Zero).map_or(1 << 17, |(m, ..)| m.min(1 << 17)) as i32;
            round(a.sign(), if b.sign() { exp - n } else { exp + n }, u128::from(sig) << 64, env)
        }
    };
    with_denormal(done, denormal, env)
}

/// How FPREM and FPREM1 round the quotient.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Quotient {
    Truncated,
    Nearest,
}

/// What is known of the quotient of FPREM and FPREM1.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Low {
    /// A NaN or an invalid operation.
    NotDivided,
    /// The remainder is a partial one.
    Partial,
    /// The low three bits.
    Bits(u8),
}

/// Remainder of a by b: FPREM, FPREM1 (SDM vol. 2A).
pub(crate) fn remainder(a: F80, b: F80, quotient: Quotient, env: Env) -> (Done, Low) {
    use Class::{Infinite, Zero};
    if let Some(done) = nan_result(a, b) {
        return (done, Low::NotDivided);
    }
    let denormal = a.denormal_flag() | b.denormal_flag();
    match (a.class(), b.class()) {
        (Infinite, _) | (_, Zero) => return (Done::invalid(), Low::NotDivided),
        (Zero, _) => return (with_denormal(Done::exact(a), denormal, env), Low::Bits(0)),
        (_, Infinite) => return (with_denormal(renormalize(a, env.full()), denormal, env), Low::Bits(0)),
        _ => {}
    }
    let ((ea, sa), (eb, sb)) = (a.normalized(), b.normalized());
    let d = ea - eb;
    if d >= 64 {
        // Partial: take off 32 to 63 bits of the quotient.
        let n = (d & 31) as u32 + 32;
        let rest = (u128::from(sa) << n) % u128::from(sb);
        return (remainder_result(a.sign(), eb + d - n as i32, rest, denormal, env), Low::Partial);
    }
    if d < -1 || d < 0 && quotient == Quotient::Truncated {
        return (with_denormal(renormalize(a, env.full()), denormal, env), Low::Bits(0));
    }
    // In units of b's last bit, halved so that d = -1 has none below its own.
    let n = u128::from(sa) << (d + 1);
    let m = u128::from(sb) << 1;
    let (mut q, mut rest, mut sign) = (n / m, n % m, a.sign());
    let past_half = (rest << 1) > m || (rest << 1) == m && q & 1 != 0;
    if quotient == Quotient::Nearest && past_half {
        (q, rest, sign) = (q + 1, m - rest, !sign);
    }
    let sign = if rest == 0 { a.sign() } else { sign };
    (remainder_result(sign, eb - 1, rest, denormal, env), Low::Bits((q & 7) as u8))
}

/// The exact remainder `rest * 2^(exp - BIAS - 63)`.
fn remainder_result(sign: bool, exp: i32, rest: u128, denormal: u16, env: Env) -> Done {
    if rest == 0 {
        return with_denormal(Done::exact(F80::zero(sign)), denormal, env);
    }
    let shift = rest.leading_zeros();
    with_denormal(round(sign, exp + 64 - shift as i32, rest << shift, env.full()), denormal, env)
}
