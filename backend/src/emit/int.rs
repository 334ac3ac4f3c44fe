//! Scalar integers.
//!
//! Values narrower than a register may have anything above their type ([`super::regs::Val::zx`] says what is known); an operation
//! that looks at more than its type's bits (comparison, right shift, widening) cleans its operands first.

use super::encode::{self as e, Size, Widen, X};
use super::regs::{Imm, Loc, Val};
use super::{Bug, EmitError, Emitter, size_of};
use calque_ir::{Inst, Op, Type, Value};

impl Emitter {
    /// `Op::Iconst`: no code.
    #[inline]
    pub(super) fn constant(&mut self, inst: &Inst) {
        let zx = (64 - inst.imm().leading_zeros()) as u8;
        self.regs.values[self.at] = Val { loc: Loc::Imm(Imm::new(inst.imm())), zx };
    }

    /// Operations on integers and conditions.
    #[inline(never)]
    pub(super) fn int(&mut self, inst: &Inst) -> Result<(), EmitError> {
        let [a, b, c] = [inst.args[0], inst.args[1], inst.args[2]].map(Value);
        match inst.op {
            Op::Uextend => self.uextend(inst, a),
            Op::Sextend => self.sextend(inst, a),
            Op::Ireduce => self.ireduce(inst, a),
            Op::Bitcast => self.bitcast_to_int(inst, a),
            Op::Iadd => self.add(inst, a, b),
            Op::Isub => self.sub(inst, a, b),
            Op::Band | Op::Bor | Op::Bxor | Op::BandNot => self.logic(inst, a, b),
            Op::Imul => {
                let (x, y) = (self.x(a)?, self.x(b)?);
                let d = self.dest()?;
                self.word(e::op4(e::MADD, size_of(inst.ty), d, x, y, e::ZR));
                self.known_zero(size_of(inst.ty).bits());
                Ok(())
            }
            Op::Umulhi | Op::Smulhi => self.high_product(inst, a, b),
            Op::Ineg => {
                let x = self.x(a)?;
                let d = self.dest()?;
                self.word(e::op3(e::SUB, size_of(inst.ty), d, e::ZR, x));
                self.known_zero(size_of(inst.ty).bits());
                Ok(())
            }
            Op::Bnot => self.not(inst, a),
            Op::Ishl | Op::Ushr | Op::Sshr => self.shift(inst, a, b),
            Op::Rotl | Op::Rotr => self.rotate(inst, a, b),
            Op::Clz | Op::Ctz | Op::Popcnt | Op::Bswap => self.count_bits(inst, a),
            Op::InsertLow8 | Op::InsertHigh8 | Op::InsertLow16 => self.insert(inst, a, b),
            Op::Select => self.select(inst, a, b, c),
            Op::Udiv | Op::Urem | Op::Sdiv | Op::Srem => self.division(inst),
            _ => self.condition(),
        }
    }

    /// A condition whose value is wanted.
    fn condition(&mut self) -> Result<(), EmitError> {
        let cond = self.flags(Value(self.at as u32))?;
        let d = self.dest()?;
        self.cset(d, cond);
        self.known_zero(1);
        Ok(())
    }

    /// `to = from` with zeros above `ty`.
    pub(super) fn zero_extend_into(&mut self, to: X, from: X, ty: Type, zx: u8) {
        let bits = ty.bits();
        if u32::from(zx) <= bits || bits == 64 {
            if to != from {
                self.mov(Size::X, to, from);
            }
        } else if bits == 32 {
            self.mov(Size::W, to, from);
        } else {
            self.word(e::op_field(e::UBFM, Size::W, to, from, 0, bits - 1));
        }
    }

    /// The value with zeros above its type, in its own register or a scratch one.
    pub(super) fn zero_extended(&mut self, v: Value) -> Result<X, EmitError> {
        if self.as_imm(v).is_some() {
            return self.x(v);
        }
        let (ty, x) = (self.ty(v), self.x(v)?);
        let zx = self.val(v).zx;
        if u32::from(zx) <= ty.bits() {
            return Ok(x);
        }
        let s = self.scratch();
        self.zero_extend_into(s, x, ty, zx);
        Ok(s)
    }

    /// The value sign-extended to `size`, in a scratch register if its type is narrower.
    pub(super) fn sign_extended(&mut self, v: Value, size: Size) -> Result<X, EmitError> {
        if let Some(k) = self.signed_imm(v) {
            let s = self.scratch();
            self.mov_imm(s, if size == Size::W { k as u64 & 0xffff_ffff } else { k as u64 });
            return Ok(s);
        }
        let (ty, x) = (self.ty(v), self.x(v)?);
        if ty.bits() >= size.bits() {
            return Ok(x);
        }
        let s = self.scratch();
        self.word(e::op_field(e::SBFM, size, s, x, 0, ty.bits() - 1));
        Ok(s)
    }

    fn uextend(&mut self, inst: &Inst, a: Value) -> Result<(), EmitError> {
        let from = self.ty(a);
        if let Some(imm) = self.as_imm(a) {
            self.define(Loc::Imm(Imm::new(imm)), 64);
            return Ok(());
        }
        let x = self.x(a)?;
        let zx = self.val(a).zx;
        if u32::from(zx) <= from.bits() {
            self.alias(a, zx);
            return Ok(());
        }
        let d = self.dest()?;
        self.zero_extend_into(d, x, from, zx);
        self.known_zero(from.bits());
        let _ = inst;
        Ok(())
    }

    fn sextend(&mut self, inst: &Inst, a: Value) -> Result<(), EmitError> {
        let from = self.ty(a).bits();
        if let Some(imm) = self.as_imm(a) {
            let wide = (imm << (64 - from)) as i64 >> (64 - from);
            let mask = u64::MAX >> (64 - inst.ty.bits());
            self.define(Loc::Imm(Imm::new(wide as u64 & mask)), inst.ty.bits() as u8);
            return Ok(());
        }
        let x = self.x(a)?;
        if self.extended_by_load(a) {
            self.alias(a, size_of(inst.ty).bits() as u8);
            return Ok(());
        }
        let d = self.dest()?;
        self.word(e::op_field(e::SBFM, size_of(inst.ty), d, x, 0, from - 1));
        self.known_zero(size_of(inst.ty).bits());
        Ok(())
    }

    fn ireduce(&mut self, inst: &Inst, a: Value) -> Result<(), EmitError> {
        let bits = inst.ty.bits();
        if let Some(imm) = self.as_imm(a) {
            self.define(Loc::Imm(Imm::new(imm & (u64::MAX >> (64 - bits)))), bits as u8);
            return Ok(());
        }
        if let (Loc::Sum(base, disp), Type::I32) = (self.val(a).loc, inst.ty) {
            self.define(Loc::Sum(base, disp), 64);
            return Ok(());
        }
        let x = self.x(a)?;
        if inst.ty == Type::I1 {
            let d = self.dest()?;
            self.word(e::op_mask(e::AND_MASK, Size::W, d, x, 1).expect("one bit"));
            self.known_zero(1);
            return Ok(());
        }
        let zx = self.val(a).zx;
        self.alias(a, zx);
        Ok(())
    }

    fn bitcast_to_int(&mut self, inst: &Inst, a: Value) -> Result<(), EmitError> {
        let v = self.v(a)?;
        let d = self.dest()?;
        self.word(e::fmov_to_x(size_of(inst.ty), d, v));
        self.known_zero(inst.ty.bits());
        Ok(())
    }

    /// A constant operand as a signed number of its type.
    fn signed_imm(&self, v: Value) -> Option<i64> {
        let unused = 64 - self.ty(v).bits();
        Some((self.as_imm(v)? << unused) as i64 >> unused)
    }

    fn add(&mut self, inst: &Inst, a: Value, b: Value) -> Result<(), EmitError> {
        let (a, b) = if self.as_imm(a).is_some() { (b, a) } else { (a, b) };
        if let Some(k) = self.signed_imm(b) {
            return self.add_constant(inst, a, k);
        }
        let (x, y) = (self.x(a)?, self.x(b)?);
        let d = self.dest()?;
        self.word(e::op3(e::ADD, size_of(inst.ty), d, x, y));
        self.known_zero(size_of(inst.ty).bits());
        Ok(())
    }

    fn sub(&mut self, inst: &Inst, a: Value, b: Value) -> Result<(), EmitError> {
        if let Some(k) = self.signed_imm(b) {
            return self.add_constant(inst, a, k.wrapping_neg());
        }
        let (x, y) = (self.xz(a)?, self.x(b)?);
        let d = self.dest()?;
        self.word(e::op3(e::SUB, size_of(inst.ty), d, x, y));
        self.known_zero(size_of(inst.ty).bits());
        Ok(())
    }

    /// `a + k`: not computed yet if `a` is a guest register, because addresses and `put` can take it as it is.
    fn add_constant(&mut self, inst: &Inst, a: Value, k: i64) -> Result<(), EmitError> {
        if let Some(imm) = self.as_imm(a) {
            let mask = u64::MAX >> (64 - inst.ty.bits());
            self.define(Loc::Imm(Imm::new(imm.wrapping_add(k as u64) & mask)), 64);
            return Ok(());
        }
        if inst.ty == Type::I64
            && let Ok(disp) = i32::try_from(k)
        {
            let (base, before) = match self.val(a).loc {
                Loc::X(r) if is_home(r) => (Some(r), 0),
                Loc::Sum(r, before) => (Some(r), before),
                _ => (None, 0),
            };
            if let (Some(base), Some(disp)) = (base, before.checked_add(disp)) {
                self.define(Loc::Sum(base, disp), 64);
                return Ok(());
            }
        }
        let x = self.x(a)?;
        if k == 0 {
            let zx = self.val(a).zx;
            self.alias(a, zx);
            return Ok(());
        }
        let d = self.dest()?;
        self.add_sized(size_of(inst.ty), d, x, k);
        self.known_zero(size_of(inst.ty).bits());
        Ok(())
    }

    fn logic(&mut self, inst: &Inst, a: Value, b: Value) -> Result<(), EmitError> {
        let size = size_of(inst.ty);
        let (a, b) = if self.as_imm(a).is_some() && inst.op != Op::BandNot { (b, a) } else { (a, b) };
        let (op, mask_op) = match inst.op {
            Op::Band => (e::AND, e::AND_MASK),
            Op::Bor => (e::ORR, e::ORR_MASK),
            Op::Bxor => (e::EOR, e::EOR_MASK),
            _ => (e::BIC, e::AND_MASK),
        };
        let [zx, zy] = [a, b].map(|v| self.val(v).zx);
        let zx = match inst.op {
            Op::Band => zx.min(zy),
            Op::BandNot => zx,
            _ => zx.max(zy),
        }
        .min(size.bits() as u8);
        if let Some(imm) = self.as_imm(b) {
            let imm = if inst.op == Op::BandNot { !imm } else { imm };
            // Bits above the type do not matter: repeat the constant, so that more of them are bitmasks.
            let imm = match inst.ty {
                Type::I8 if inst.op == Op::Band => imm & 0xff,
                Type::I16 if inst.op == Op::Band => imm & 0xffff,
                _ => imm,
            };
            let x = self.x(a)?;
            let probe = e::op_mask(mask_op, size, x, x, imm);
            if probe.is_some() {
                let d = self.dest()?;
                self.word(e::op_mask(mask_op, size, d, x, imm).expect("as probed"));
                self.known_zero(u32::from(zx));
                return Ok(());
            }
        }
        let (x, y) = (self.xz(a)?, self.xz(b)?);
        let d = self.dest()?;
        self.word(e::op3(op, size, d, x, y));
        self.known_zero(u32::from(zx));
        Ok(())
    }

    fn not(&mut self, inst: &Inst, a: Value) -> Result<(), EmitError> {
        let x = self.xz(a)?;
        let d = self.dest()?;
        if inst.ty == Type::I1 {
            if x == e::ZR {
                self.mov_imm(d, 1);
            } else {
                self.word(e::op_mask(e::EOR_MASK, Size::W, d, x, 1).expect("one bit"));
            }
            self.known_zero(1);
        } else {
            self.word(e::op3(e::ORN, size_of(inst.ty), d, e::ZR, x));
            self.known_zero(size_of(inst.ty).bits());
        }
        Ok(())
    }

    fn high_product(&mut self, inst: &Inst, a: Value, b: Value) -> Result<(), EmitError> {
        let signed = inst.op == Op::Smulhi;
        if inst.ty == Type::I64 {
            let (x, y) = (self.x(a)?, self.x(b)?);
            let d = self.dest()?;
            self.word(e::op3(if signed { e::SMULH } else { e::UMULH }, Size::X, d, x, y));
            return Ok(());
        }
        let s = self.scratch();
        self.wide_product(s, a, b, signed)?;
        let d = self.dest()?;
        self.word(e::op_field(e::UBFM, Size::X, d, s, inst.ty.bits(), 63));
        Ok(())
    }

    /// `to` = the 64-bit product of two narrower values.
    pub(super) fn wide_product(&mut self, to: X, a: Value, b: Value, signed: bool) -> Result<(), EmitError> {
        let (x, y) = if self.ty(a) == Type::I32 {
            (self.x(a)?, self.x(b)?)
        } else if signed {
            (self.sign_extended(a, Size::W)?, self.sign_extended(b, Size::W)?)
        } else {
            (self.zero_extended(a)?, self.zero_extended(b)?)
        };
        self.word(e::op4(if signed { e::SMADDL } else { e::UMADDL }, Size::X, to, x, y, e::ZR));
        Ok(())
    }

    fn shift(&mut self, inst: &Inst, a: Value, b: Value) -> Result<(), EmitError> {
        let (size, bits) = (size_of(inst.ty), inst.ty.bits());
        let n = self.as_imm(b).map(|n| n as u32);
        match (inst.op, n) {
            (_, Some(0)) if self.as_imm(a).is_none() => {
                self.x(a)?;
                let zx = self.val(a).zx;
                self.alias(a, zx);
                return Ok(());
            }
            (Op::Ishl, Some(n)) => {
                let x = self.x(a)?;
                let d = self.dest()?;
                self.word(e::op_field(e::UBFM, size, d, x, size.bits() - n, size.bits() - 1 - n));
                self.known_zero(size.bits());
            }
            (Op::Ushr, Some(n)) => {
                let x = self.x(a)?;
                let d = self.dest()?;
                self.word(e::op_field(e::UBFM, size, d, x, n, bits - 1));
                self.known_zero(bits - n);
            }
            (Op::Sshr, Some(n)) => {
                let x = self.x(a)?;
                let d = self.dest()?;
                self.word(e::op_field(e::SBFM, size, d, x, n, bits - 1));
                self.known_zero(size.bits());
            }
            (op, None) => {
                let x = match op {
                    Op::Ishl => self.x(a)?,
                    Op::Ushr => self.zero_extended(a)?,
                    _ => self.sign_extended(a, size)?,
                };
                let y = self.x(b)?;
                let d = self.dest()?;
                let op = match op {
                    Op::Ishl => e::LSLV,
                    Op::Ushr => e::LSRV,
                    _ => e::ASRV,
                };
                self.word(e::op3(op, size, d, x, y));
                self.known_zero(size.bits());
            }
            _ => return Err(EmitError::Internal(Bug::NoShift)),
        }
        Ok(())
    }

    fn rotate(&mut self, inst: &Inst, a: Value, b: Value) -> Result<(), EmitError> {
        let (size, bits) = (size_of(inst.ty), inst.ty.bits());
        let x = self.repeated(a)?;
        if let Some(n) = self.as_imm(b) {
            let n = n as u32 & (bits - 1);
            let right = if inst.op == Op::Rotr { n } else { (bits - n) & (bits - 1) };
            let d = self.dest()?;
            self.word(e::extr(size, d, x, x, right));
        } else {
            let mut y = self.x(b)?;
            if inst.op == Op::Rotl {
                let s = self.scratch();
                self.word(e::op3(e::SUB, size, s, e::ZR, y));
                y = s;
            }
            let d = self.dest()?;
            self.word(e::op3(e::RORV, size, d, x, y));
        }
        self.known_zero(size.bits());
        Ok(())
    }

    /// The bits of a narrow value repeated through 32 bits, so that a 32-bit rotation is one of it.
    fn repeated(&mut self, v: Value) -> Result<X, EmitError> {
        let bits = self.ty(v).bits();
        if bits >= 32 {
            return self.x(v);
        }
        let x = self.zero_extended(v)?;
        let s = self.scratch();
        if bits == 8 {
            self.word(e::op3_lsl(e::ORR, Size::W, s, x, x, 8));
            self.word(e::op3_lsl(e::ORR, Size::W, s, s, s, 16));
        } else {
            self.word(e::op3_lsl(e::ORR, Size::W, s, x, x, 16));
        }
        Ok(s)
    }

    fn count_bits(&mut self, inst: &Inst, a: Value) -> Result<(), EmitError> {
        let (size, bits) = (size_of(inst.ty), inst.ty.bits());
        match inst.op {
            Op::Clz => {
                let x = self.zero_extended(a)?;
                let d = self.dest()?;
                self.word(e::op2(e::CLZ, size, d, x));
                if bits < 32 {
                    self.add_sized(Size::W, d, d, i64::from(bits) - 32);
                }
            }
            Op::Ctz => {
                let mut x = self.x(a)?;
                if bits < 32 {
                    let s = self.scratch();
                    self.word(e::op_mask(e::ORR_MASK, Size::W, s, x, 1 << bits).expect("one bit"));
                    x = s;
                }
                let d = self.dest()?;
                self.word(e::op2(e::RBIT, size, d, x));
                self.word(e::op2(e::CLZ, size, d, d));
            }
            Op::Popcnt => {
                let x = self.zero_extended(a)?;
                let (d, s) = (self.dest()?, self.v_scratch());
                self.word(e::fmov_from_x(size, s, x));
                // The bytes of the low half only: Q = 0.
                self.word(e::vec2(e::CNT, 0, s, s) & !(1 << 30));
                self.word(e::vec2(e::ADDV, 0, s, s) & !(1 << 30));
                self.word(e::fmov_to_x(Size::W, d, s));
            }
            _ if bits == 8 => {
                self.x(a)?;
                let zx = self.val(a).zx;
                self.alias(a, zx);
                return Ok(());
            }
            _ => {
                let x = self.x(a)?;
                let d = self.dest()?;
                let op = match bits {
                    16 => e::REV16,
                    32 => e::REV32,
                    _ => e::REV64,
                };
                self.word(e::op2(op, size, d, x));
            }
        }
        self.known_zero(size.bits());
        Ok(())
    }

    /// `insert_low8` and kin: one instruction where the result goes to the register that is changed.
    fn insert(&mut self, inst: &Inst, a: Value, b: Value) -> Result<(), EmitError> {
        let (x, y) = (self.x(a)?, self.x(b)?);
        let d = if x == y { self.dest()? } else { self.dest_apart(&[y])? };
        if d != x {
            self.mov(Size::X, d, x);
        }
        let (immr, imms) = match inst.op {
            Op::InsertLow8 => (0, 7),
            Op::InsertHigh8 => (56, 7),
            _ => (0, 15),
        };
        self.word(e::op_field(e::BFM, Size::X, d, y, immr, imms));
        Ok(())
    }

    fn select(&mut self, inst: &Inst, c: Value, a: Value, b: Value) -> Result<(), EmitError> {
        let (x, y) = (self.xz(a)?, self.xz(b)?);
        let zx = self.val(a).zx.max(self.val(b).zx);
        let cond = self.flags(c)?;
        let d = self.dest()?;
        self.word(e::op_cond(e::CSEL, size_of(inst.ty), d, x, y, cond));
        self.known_zero(u32::from(zx).min(size_of(inst.ty).bits()));
        Ok(())
    }

    /// Compares with a constant: `cmp` or `cmn`, or `None` if it takes a register.
    pub(super) fn compare_imm(&mut self, size: Size, x: X, k: i64) -> bool {
        let (op, magnitude) = if k < 0 { (e::ADDS_IMM, k.unsigned_abs()) } else { (e::SUBS_IMM, k as u64) };
        match e::op_imm(op, size, e::ZR, x, magnitude) {
            Some(word) => {
                self.set_flags(word);
                true
            }
            None => false,
        }
    }

    /// `cmp x, y` with y zero-extended from a narrow type.
    pub(super) fn compare_widened(&mut self, x: X, y: X, ty: Type) {
        let widen = match ty {
            Type::I8 => Widen::Uxtb,
            Type::I16 => Widen::Uxth,
            _ => Widen::Uxtw,
        };
        self.word(e::op3_widen(e::SUBS, Size::W, e::ZR, x, y, widen));
    }
}

/// Whether a guest register lives here.
pub(super) fn is_home(r: X) -> bool {
    matches!(r.0, 3..=7 | 19..=29)
}
