//! Conditions: each is one instruction that sets NZCV, and a condition code.
//!
//! Narrow types are compared in the top bits of 32: shifted left, carries and signs are where the host looks for them.

use super::encode::{self as e, Cond, Op3, Size, Widen, X};
use super::regs::{Held, Loc};
use super::{EmitError, Emitter, size_of};
use calque_ir::{Cc, FloatCc, Inst, Op, Type, Value};

/// The host's name of a comparison.
pub(super) fn cond_of(cc: Cc) -> Cond {
    match cc {
        Cc::Equal => Cond::Eq,
        Cc::NotEqual => Cond::Ne,
        Cc::SignedLessThan => Cond::Lt,
        Cc::SignedGreaterThanOrEqual => Cond::Ge,
        Cc::SignedGreaterThan => Cond::Gt,
        Cc::SignedLessThanOrEqual => Cond::Le,
        Cc::UnsignedLessThan => Cond::Cc,
        Cc::UnsignedGreaterThanOrEqual => Cond::Cs,
        Cc::UnsignedGreaterThan => Cond::Hi,
        Cc::UnsignedLessThanOrEqual => Cond::Ls,
    }
}

/// The comparison with the number above or below `k`, of so many bits, that says the same as that with `k`, if there is one.
fn next_to(k: i64, cc: Cc, bits: u32) -> Option<(i64, Cc)> {
    use Cc::*;
    let (step, cc) = match cc {
        SignedLessThanOrEqual => (1, SignedLessThan),
        SignedGreaterThan => (1, SignedGreaterThanOrEqual),
        SignedLessThan => (-1, SignedLessThanOrEqual),
        SignedGreaterThanOrEqual => (-1, SignedGreaterThan),
        UnsignedLessThanOrEqual => (1, UnsignedLessThan),
        UnsignedGreaterThan => (1, UnsignedGreaterThanOrEqual),
        UnsignedLessThan => (-1, UnsignedLessThanOrEqual),
        UnsignedGreaterThanOrEqual => (-1, UnsignedGreaterThan),
        Equal | NotEqual => return None,
    };
    // Not over the end of the numbers: of signed ones beside their highest and lowest, of others beside -1 and 0.
    let next = k.checked_add(step)?;
    let ends = if is_signed(cc) { [i64::MAX, i64::MIN].map(|end| end >> (64 - bits)) } else { [-1, 0] };
    (!ends.contains(&k)).then_some((next, cc))
}

fn is_signed(cc: Cc) -> bool {
    use Cc::*;
    matches!(cc, SignedLessThan | SignedGreaterThanOrEqual | SignedGreaterThan | SignedLessThanOrEqual)
}

/// What holds after `fcmp` (Arm ARM, FCMP: unordered is C and V); `None` for those that take two conditions.
pub(super) fn float_cond(cc: FloatCc) -> Option<Cond> {
    Some(match cc {
        FloatCc::Ordered => Cond::Vc,
        FloatCc::Unordered => Cond::Vs,
        FloatCc::Equal => Cond::Eq,
        FloatCc::NotEqual => Cond::Ne,
        FloatCc::LessThan => Cond::Mi,
        FloatCc::LessThanOrEqual => Cond::Ls,
        FloatCc::GreaterThan => Cond::Gt,
        FloatCc::GreaterThanOrEqual => Cond::Ge,
        FloatCc::UnorderedOrLessThan => Cond::Lt,
        FloatCc::UnorderedOrLessThanOrEqual => Cond::Le,
        FloatCc::UnorderedOrGreaterThan => Cond::Hi,
        FloatCc::UnorderedOrGreaterThanOrEqual => Cond::Pl,
        FloatCc::OrderedNotEqual | FloatCc::UnorderedOrEqual => return None,
    })
}

impl Emitter {
    /// Sets the host's flags so that the condition that is yielded says what `i1` value `v` is.
    pub(super) fn flags(&mut self, v: Value) -> Result<Cond, EmitError> {
        let i = v.0 as usize;
        let inst = self.insts[i];
        if i != self.at && self.val(v).loc != Loc::Flags {
            let x = self.xz(v)?;
            self.word(
                e::op_imm(e::SUBS_IMM, Size::W, e::ZR, x, 0)
                    .filter(|_| x != e::ZR)
                    .unwrap_or_else(|| e::op3(e::SUBS, Size::W, e::ZR, e::ZR, e::ZR)),
            );
            return Ok(Cond::Ne);
        }
        let [a, b, c] = [inst.args[0], inst.args[1], inst.args[2]].map(Value);
        match inst.op {
            Op::Icmp => self.compare(&inst, a, b),
            Op::Fcmp | Op::FcmpSignaling => self.compare_floats(&inst, a, b),
            Op::Bnot => Ok(self.flags(a)?.not()),
            Op::UaddOverflow => self.overflow(e::ADDS, Cond::Cs, a, b),
            Op::SaddOverflow => self.overflow(e::ADDS, Cond::Vs, a, b),
            Op::SsubOverflow => self.overflow(e::SUBS, Cond::Vs, a, b),
            Op::UmulOverflow => self.product_overflow(inst.ty, a, b, false),
            Op::SmulOverflow => self.product_overflow(inst.ty, a, b, true),
            Op::UaddOverflowCin => self.overflow_with_carry(Cond::Cs, a, b, c),
            Op::SaddOverflowCin => self.overflow_with_carry(Cond::Vs, a, b, c),
            Op::UsubOverflowBin => self.overflow_with_borrow(Cond::Cc, a, b, c),
            Op::SsubOverflowBin => self.overflow_with_borrow(Cond::Vs, a, b, c),
            Op::HalfCarry => self.half_carry(a, b, c),
            Op::Parity => self.parity(a),
            _ => Err(EmitError::NoCode(inst.op)),
        }
    }

    fn compare(&mut self, inst: &Inst, a: Value, b: Value) -> Result<Cond, EmitError> {
        let cc = Cc::from_code(inst.aux);
        let cond = cond_of(cc);
        if self.val(a).loc == Loc::Flags && self.insts[a.0 as usize].op == Op::Band {
            self.test_bits(a)?;
            return Ok(cond);
        }
        let bits = inst.ty.bits();
        if let Some(imm) = self.as_imm(b) {
            return self.compare_constant(inst.ty, cc, a, imm);
        }
        match inst.ty {
            Type::I64 | Type::I32 | Type::I1 => {
                let (x, y) = (self.xz(a)?, self.x(b)?);
                self.set_flags(e::op3(e::SUBS, size_of(inst.ty), e::ZR, x, y));
            }
            _ if is_signed(cc) => {
                let (x, y) = (self.at_top(a, 0)?, self.x(b)?);
                self.word(e::op3_lsl(e::SUBS, Size::W, e::ZR, x, y, 32 - bits));
            }
            _ => {
                let x = self.zero_extended(a)?;
                let y = self.x(b)?;
                if u32::from(self.val(b).zx) <= bits {
                    self.word(e::op3(e::SUBS, Size::W, e::ZR, x, y));
                } else {
                    self.compare_widened(x, y, inst.ty);
                }
            }
        }
        Ok(cond)
    }

    fn compare_constant(&mut self, ty: Type, cc: Cc, a: Value, imm: u64) -> Result<Cond, EmitError> {
        let (size, bits) = (size_of(ty), ty.bits());
        let clean = bits >= 32 || u32::from(self.val(a).zx) <= bits;
        if imm == 0 && !clean && matches!(cc, Cc::Equal | Cc::NotEqual) {
            let x = self.x(a)?;
            self.word(e::op_mask(e::ANDS_MASK, Size::W, e::ZR, x, u64::MAX >> (64 - bits)).expect("low ones"));
            return Ok(cond_of(cc));
        }
        let signed = |imm: u64| (imm << (64 - bits)) as i64 >> (64 - bits);
        let (x, k) = match ty {
            Type::I32 | Type::I64 => (self.x(a)?, signed(imm)),
            _ if is_signed(cc) => (self.sign_extended(a, Size::W)?, signed(imm)),
            _ => (self.zero_extended(a)?, imm as i64),
        };
        if self.compare_imm(size, x, k) {
            return Ok(cond_of(cc));
        }
        if let Some((next_k, next_cc)) = next_to(k, cc, bits.max(32))
            && self.compare_imm(size, x, next_k)
        {
            return Ok(cond_of(next_cc));
        }
        let s = self.scratch_constant(if size == Size::W { k as u64 & 0xffff_ffff } else { k as u64 });
        self.word(e::op3(e::SUBS, size, e::ZR, x, s));
        Ok(cond_of(cc))
    }

    /// Flags of a `band`.
    fn test_bits(&mut self, v: Value) -> Result<(), EmitError> {
        let inst = self.insts[v.0 as usize];
        let (mut a, mut b) = (Value(inst.args[0]), Value(inst.args[1]));
        if self.as_imm(a).is_some() {
            std::mem::swap(&mut a, &mut b);
        }
        let (size, bits) = (size_of(inst.ty), inst.ty.bits());
        if let Some(imm) = self.as_imm(b) {
            let x = self.x(a)?;
            if let Some(word) = e::op_mask(e::ANDS_MASK, size, e::ZR, x, imm) {
                self.word(word);
                return Ok(());
            }
            // Narrow constants are zero-extended, so nothing above the type is looked at.
            let y = self.xz(b)?;
            self.word(e::op3(e::ANDS, size, e::ZR, x, y));
            return Ok(());
        }
        let (x, y) = (self.x(a)?, self.x(b)?);
        let clean = [a, b].iter().any(|&v| u32::from(self.val(v).zx) <= bits);
        if bits >= 32 || clean {
            if x == y {
                // TEST r,r of a whole register.
                self.word(e::op_imm(e::SUBS_IMM, size, e::ZR, x, 0).expect("zero"));
            } else {
                self.word(e::op3(e::ANDS, size, e::ZR, x, y));
            }
            return Ok(());
        }
        let mask = u64::MAX >> (64 - bits);
        if x == y {
            self.word(e::op_mask(e::ANDS_MASK, Size::W, e::ZR, x, mask).expect("low ones"));
            return Ok(());
        }
        let s = self.scratch();
        self.word(e::op3(e::AND, Size::W, s, x, y));
        self.word(e::op_mask(e::ANDS_MASK, Size::W, e::ZR, s, mask).expect("low ones"));
        Ok(())
    }

    /// A narrow value in the top bits of a 32-bit scratch register, with `fill` below; others as they are.
    fn at_top(&mut self, v: Value, fill: u64) -> Result<X, EmitError> {
        let (bits, x) = (self.ty(v).bits(), self.x(v)?);
        if bits >= 32 {
            return Ok(x);
        }
        let s = self.scratch();
        self.word(e::op_field(e::UBFM, Size::W, s, x, bits, bits - 1));
        if fill != 0 {
            self.word(e::op_mask(e::ORR_MASK, Size::W, s, s, u64::MAX >> (32 + bits)).expect("low ones"));
        }
        Ok(s)
    }

    fn overflow(&mut self, op: Op3, cond: Cond, a: Value, b: Value) -> Result<Cond, EmitError> {
        let bits = self.ty(a).bits();
        if bits >= 32
            && let Some(imm) = self.as_imm(b)
        {
            let x = self.x(a)?;
            let op = if op == e::ADDS { e::ADDS_IMM } else { e::SUBS_IMM };
            if let Some(word) = e::op_imm(op, size_of(self.ty(a)), e::ZR, x, imm) {
                self.set_flags(word);
                return Ok(cond);
            }
        }
        let (x, y) = (self.at_top(a, 0)?, self.x(b)?);
        let size = size_of(self.ty(a));
        let shift = 32u32.saturating_sub(bits);
        self.set_flags(e::op3_lsl(op, size, e::ZR, x, y, shift));
        Ok(cond)
    }

    /// Emits an instruction that only sets flags, unless they are as it would set them: the flags of one subtraction are often stored
    /// one behind the other.
    pub(super) fn set_flags(&mut self, word: u32) {
        let (rn, rm) = (word >> 5 & 31, word >> 16 & 31);
        let at = self.flags_at;
        let hold = at >= self.barrier
            && at < self.code.len()
            && sets_same(self.code[at], word)
            && self.code[at + 1..].iter().all(|&later| keeps_flags(later, rn, rm));
        if !hold {
            self.flags_at = self.code.len();
            self.word(word);
        }
    }

    /// A flag's value in a scratch register, without the host's flags where that is no longer; `None` for the others.
    pub(super) fn flag_without_flags(&mut self, v: Value) -> Result<Option<X>, EmitError> {
        let inst = self.insts[v.0 as usize];
        let [a, b, c] = [inst.args[0], inst.args[1], inst.args[2]].map(Value);
        match inst.op {
            Op::Parity => {
                let s = self.odd_bits(a)?;
                self.word(e::op_mask(e::EOR_MASK, Size::W, s, s, 1).expect("one bit"));
                self.word(e::op_mask(e::AND_MASK, Size::W, s, s, 1).expect("one bit"));
                Ok(Some(s))
            }
            Op::HalfCarry => {
                let s = self.carries(a, b, c)?;
                self.word(e::op_field(e::UBFM, Size::W, s, s, 4, 4));
                Ok(Some(s))
            }
            Op::Icmp if Cc::from_code(inst.aux) == Cc::SignedLessThan && self.as_imm(b) == Some(0) => {
                if self.val(a).loc == Loc::Flags {
                    return Ok(None);
                }
                let (x, top) = (self.x(a)?, inst.ty.bits() - 1);
                let s = self.scratch();
                self.word(e::op_field(e::UBFM, size_of(inst.ty), s, x, top, top));
                Ok(Some(s))
            }
            Op::Fcmp if is_twofold(&inst) => {
                let (x, y) = (self.v(a)?, self.v(b)?);
                self.set_flags(e::fcmp(inst.ty == Type::F64, x, y));
                Ok(Some(self.taken_together(FloatCc::from_code(inst.aux))))
            }
            _ => Ok(None),
        }
    }

    fn product_overflow(&mut self, ty: Type, a: Value, b: Value, signed: bool) -> Result<Cond, EmitError> {
        let s = self.scratch();
        if ty == Type::I64 {
            let (x, y) = (self.x(a)?, self.x(b)?);
            if signed {
                let low = self.scratch();
                self.word(e::op3(e::SMULH, Size::X, s, x, y));
                self.word(e::op4(e::MADD, Size::X, low, x, y, e::ZR));
                self.word(e::op3_asr(e::SUBS, Size::X, e::ZR, s, low, 63));
            } else {
                self.word(e::op3(e::UMULH, Size::X, s, x, y));
                self.word(e::op_imm(e::SUBS_IMM, Size::X, e::ZR, s, 0).expect("zero"));
            }
            return Ok(Cond::Ne);
        }
        self.wide_product(s, a, b, signed)?;
        if signed {
            let widen = match ty {
                Type::I8 => Widen::Sxtb,
                Type::I16 => Widen::Sxth,
                _ => Widen::Sxtw,
            };
            self.word(e::op3_widen(e::SUBS, Size::X, e::ZR, s, s, widen));
        } else {
            self.word(e::op3_lsr(e::SUBS, Size::X, e::ZR, e::ZR, s, ty.bits()));
        }
        Ok(Cond::Ne)
    }

    fn overflow_with_carry(&mut self, cond: Cond, a: Value, b: Value, c: Value) -> Result<Cond, EmitError> {
        let size = size_of(self.ty(a));
        // The ones below a narrow operand carry the carry up.
        let (x, y) = (self.at_top(a, 1)?, self.at_top(b, 0)?);
        let carry = self.xz(c)?;
        if carry == e::ZR {
            self.word(e::op3(e::ADDS, Size::W, e::ZR, e::ZR, e::ZR));
        } else {
            self.word(e::op_imm(e::SUBS_IMM, Size::W, e::ZR, carry, 1).expect("one"));
        }
        self.word(e::op3(e::ADCS, size, e::ZR, x, y));
        Ok(cond)
    }

    fn overflow_with_borrow(&mut self, cond: Cond, a: Value, b: Value, c: Value) -> Result<Cond, EmitError> {
        let size = size_of(self.ty(a));
        let (x, y) = (self.at_top(a, 0)?, self.at_top(b, 0)?);
        let borrow = self.xz(c)?;
        self.word(e::op3(e::SUBS, Size::W, e::ZR, e::ZR, borrow));
        self.word(e::op3(e::SBCS, size, e::ZR, x, y));
        Ok(cond)
    }

    fn half_carry(&mut self, a: Value, b: Value, c: Value) -> Result<Cond, EmitError> {
        let s = self.carries(a, b, c)?;
        self.word(e::op_mask(e::ANDS_MASK, Size::W, e::ZR, s, 1 << 4).expect("one bit"));
        Ok(Cond::Ne)
    }

    /// a ^ b ^ c in a scratch register.
    fn carries(&mut self, a: Value, b: Value, c: Value) -> Result<X, EmitError> {
        let (x, y, z) = (self.xz(a)?, self.xz(b)?, self.xz(c)?);
        let s = self.last_scratch(&[x, y]);
        self.word(e::op3(e::EOR, Size::W, s, x, y));
        self.word(e::op3(e::EOR, Size::W, s, s, z));
        Ok(s)
    }

    /// A scratch register among `of`, else a new one.
    fn last_scratch(&mut self, of: &[X]) -> X {
        let found = of.iter().copied().find(|r| matches!(r.0, 0 | 16 | 17));
        if found.is_some() {
            self.held = Held::Nothing;
        }
        found.unwrap_or_else(|| self.scratch())
    }

    fn parity(&mut self, a: Value) -> Result<Cond, EmitError> {
        let s = self.odd_bits(a)?;
        self.word(e::op_mask(e::ANDS_MASK, Size::W, e::ZR, s, 1).expect("one bit"));
        Ok(Cond::Eq)
    }

    /// Bit 0 of a scratch register: whether the low byte has an odd number of one bits.
    fn odd_bits(&mut self, a: Value) -> Result<X, EmitError> {
        let x = self.xz(a)?;
        let s = self.last_scratch(&[x]);
        self.word(e::op3_lsr(e::EOR, Size::W, s, x, x, 4));
        self.word(e::op3_lsr(e::EOR, Size::W, s, s, s, 2));
        self.word(e::op3_lsr(e::EOR, Size::W, s, s, s, 1));
        Ok(s)
    }

    fn compare_floats(&mut self, inst: &Inst, a: Value, b: Value) -> Result<Cond, EmitError> {
        let cc = FloatCc::from_code(inst.aux);
        let (x, y) = (self.v(a)?, self.v(b)?);
        let double = inst.ty == Type::F64;
        self.set_flags(if inst.op == Op::Fcmp { e::fcmp(double, x, y) } else { e::fcmpe(double, x, y) });
        if let Some(cond) = float_cond(cc) {
            return Ok(cond);
        }
        let s = self.taken_together(cc);
        self.word(e::op_imm(e::SUBS_IMM, Size::W, e::ZR, s, 0).expect("zero"));
        Ok(Cond::Ne)
    }

    /// Equal or unordered, and its opposite, which take two conditions, in a scratch register, once the host's flags are those of the comparison.
    fn taken_together(&mut self, cc: FloatCc) -> X {
        let s = self.scratch();
        if cc == FloatCc::UnorderedOrEqual {
            self.cset(s, Cond::Eq);
            self.word(e::op_cond(e::CSINC, Size::W, s, s, e::ZR, Cond::Vc));
        } else {
            self.cset(s, Cond::Ne);
            self.word(e::op_cond(e::CSEL, Size::W, s, s, e::ZR, Cond::Vc));
        }
        s
    }
}

/// Whether a comparison takes two of the host's conditions.
fn is_twofold(inst: &Inst) -> bool {
    inst.op == Op::Fcmp && !inst.ty.is_vector() && float_cond(FloatCc::from_code(inst.aux)).is_none()
}

/// Whether an instruction that has been executed sets the flags as another one would: the same, or FCMPE in place of FCMP.
fn sets_same(before: u32, word: u32) -> bool {
    let is_fcmp = word & 0xffa0_fc1f == 0x1e20_2000;
    before == word || is_fcmp && before == word | 0x10
}

/// Whether an instruction leaves the host's flags and these two registers alone: stores of integers into `CpuState`, and what makes
/// such.
fn keeps_flags(word: u32, rn: u32, rm: u32) -> bool {
    if word & 0x3fc0_03e0 == 0x3900_0040 {
        return true;
    }
    let rd = word & 31;
    let sets = word >> 29 & 1 != 0;
    // Arm ARM C4.1: conditional select; logical, of a register and of a mask; bit fields; additions; `movz`.
    let selects = word & 0x7fe0_0800 == 0x1a80_0000;
    let logic = (word & 0x1f00_0000 == 0x0a00_0000 || word & 0x1f80_0000 == 0x1200_0000) && word >> 29 & 3 != 3;
    let adds = (word & 0x1f00_0000 == 0x0b00_0000 || word & 0x1f80_0000 == 0x1100_0000) && !sets;
    let moves = word & 0x1f80_0000 == 0x1300_0000 || word & 0x1f80_0000 == 0x1280_0000;
    rd != rn && rd != rm && (selects || logic || adds || moves)
}
