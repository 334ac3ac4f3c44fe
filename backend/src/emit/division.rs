//! Division with x86's faults: #DE for a divisor of zero and for a quotient that does not fit.
//!
//! The usual dividends, zero-extended or sign-extended from one register (`xor edx,edx`, CDQ), are recognized by how they were made
//! and take one host division. A remainder right behind its quotient is a multiplication.

use super::encode::{self as e, Cond, Size, X};
use super::entry::CALL_RESULT;
use super::regs::Loc;
use super::{EmitError, Emitter, Reach, size_of};
use calque_ir::{FaultKind, Helper, Inst, Op, Type, Value};

/// Which instruction divides, and whether operands have signs.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Kind {
    signed: bool,
    remainder: bool,
}

impl Emitter {
    /// `udiv`, `urem`, `sdiv`, `srem`.
    pub(super) fn division(&mut self, inst: &Inst) -> Result<(), EmitError> {
        let kind =
            Kind { signed: matches!(inst.op, Op::Sdiv | Op::Srem), remainder: matches!(inst.op, Op::Urem | Op::Srem) };
        if kind.remainder
            && let Some(quotient) = self.quotient_before(inst)
        {
            return self.remainder_of(inst, quotient);
        }
        if kind.signed { self.signed_division(inst, kind) } else { self.unsigned_division(inst, kind) }
    }

    /// The value of a division of the same operands earlier in the block, if it is still there.
    fn quotient_before(&self, inst: &Inst) -> Option<Value> {
        let op = if inst.op == Op::Urem { Op::Udiv } else { Op::Sdiv };
        let same = |i: &Inst| i.op == op && i.ty == inst.ty && i.args[..3] == inst.args[..3];
        let at = (self.block_start..self.at).rev().take(8).find(|&i| same(&self.insts[i]))?;
        matches!(self.regs.values[at].loc, Loc::X(_)).then_some(Value(at as u32))
    }

    /// low - quotient * divisor; the division has raised what there was to raise.
    fn remainder_of(&mut self, inst: &Inst, quotient: Value) -> Result<(), EmitError> {
        let (q, low, by) = (self.x(quotient)?, self.x(Value(inst.args[1]))?, self.x(Value(inst.args[2]))?);
        let d = self.dest()?;
        self.word(e::op4(e::MSUB, size_of(inst.ty), d, q, by, low));
        self.known_zero(size_of(inst.ty).bits());
        Ok(())
    }

    /// Divides x by y, which the checks keep from being wrong.
    fn divide(&mut self, kind: Kind, size: Size, x: X, y: X) -> Result<(), EmitError> {
        let op = if kind.signed { e::SDIV } else { e::UDIV };
        if !kind.remainder {
            let d = self.dest()?;
            self.word(e::op3(op, size, d, x, y));
            return Ok(());
        }
        let d = self.dest_apart(&[x, y])?;
        self.word(e::op3(op, size, d, x, y));
        self.word(e::op4(e::MSUB, size, d, d, y, x));
        Ok(())
    }

    fn unsigned_division(&mut self, inst: &Inst, kind: Kind) -> Result<(), EmitError> {
        let [high, low, by] = [inst.args[0], inst.args[1], inst.args[2]].map(Value);
        let size = size_of(inst.ty);
        if self.as_imm(high) == Some(0) {
            let (x, y) = (self.zero_extended(low)?, self.zero_extended(by)?);
            self.fault_if_zero(size, y)?;
            self.divide(kind, size, x, y)?;
            self.known_zero(size.bits());
            return Ok(());
        }
        if inst.ty == Type::I64 {
            return self.wide_division(inst, kind);
        }
        let (h, y) = (self.zero_extended(high)?, self.zero_extended(by)?);
        self.word(e::op3(e::SUBS, Size::W, e::ZR, h, y));
        self.fault_on(Cond::Cs, FaultKind::DivideError)?;
        let x = self.dividend(h, low)?;
        // The divisor's upper half must be zero for the 64-bit division.
        let y = self.clean_word(by, y);
        self.divide(kind, Size::X, x, y)
    }

    /// A value below 64 bits, as a 64-bit number: `x` is it, clean to 32 bits at least where narrow.
    fn clean_word(&mut self, v: Value, x: X) -> X {
        if self.ty(v) != Type::I32 || self.val(v).zx <= 32 {
            return x;
        }
        let s = self.scratch();
        self.mov(Size::W, s, x);
        s
    }

    /// `h << bits | low` in a scratch register.
    fn dividend(&mut self, h: X, low: Value) -> Result<X, EmitError> {
        let (bits, x) = (self.ty(low).bits(), self.x(low)?);
        let s = self.scratch_from(h);
        self.word(e::op_field(e::UBFM, Size::X, s, h, 64 - bits, 63 - bits));
        self.word(e::op_field(e::BFM, Size::X, s, x, 0, bits - 1));
        Ok(s)
    }

    fn signed_division(&mut self, inst: &Inst, kind: Kind) -> Result<(), EmitError> {
        let [high, low, by] = [inst.args[0], inst.args[1], inst.args[2]].map(Value);
        let (size, bits) = (size_of(inst.ty), inst.ty.bits());
        if bits >= 32 && self.is_sign_of(high, low) {
            let (x, y) = (self.x(low)?, self.x(by)?);
            self.fault_if_zero(size, y)?;
            // The least number by -1 does not fit: x - 1 overflows only for it.
            self.word(e::op_imm(e::ADDS_IMM, size, e::ZR, y, 1).expect("one"));
            self.word(e::ccmp_imm(size, x, 1, 0, Cond::Eq));
            self.fault_on(Cond::Vs, FaultKind::DivideError)?;
            self.divide(kind, size, x, y)?;
            self.known_zero(size.bits());
            return Ok(());
        }
        if inst.ty == Type::I64 {
            return self.wide_division(inst, kind);
        }
        if inst.ty == Type::I32 {
            return self.signed_division_32(inst, kind);
        }
        let h = self.sign_extended(high, Size::X)?;
        let x = self.dividend(h, low)?;
        let y = self.sign_extended(by, Size::X)?;
        self.fault_if_zero(Size::W, y)?;
        self.checked_signed(inst, kind, x, y)
    }

    /// A dividend of 64 bits, which itself may overflow.
    fn signed_division_32(&mut self, inst: &Inst, kind: Kind) -> Result<(), EmitError> {
        let [high, low, by] = [inst.args[0], inst.args[1], inst.args[2]].map(Value);
        let h = self.x(high)?;
        let x = self.dividend(h, low)?;
        let y = self.scratch();
        let from = self.x(by)?;
        self.word(e::op_field(e::SBFM, Size::X, y, from, 0, 31));
        self.fault_if_zero(Size::X, y)?;
        self.checked_signed(inst, kind, x, y)
    }

    /// Divides as 64-bit numbers and faults if the quotient does not fit the type. (The least 64-bit number by -1 gives itself, which
    /// fits nothing narrower.)
    fn checked_signed(&mut self, inst: &Inst, kind: Kind, x: X, y: X) -> Result<(), EmitError> {
        // Not in the destination: that may be a guest register, which a fault must find as it was.
        let (q, back) = (self.temp()?, self.scratch());
        self.word(e::op3(e::SDIV, Size::X, q, x, y));
        self.word(e::op_field(e::SBFM, Size::X, back, q, 0, inst.ty.bits() - 1));
        self.word(e::op3(e::SUBS, Size::X, e::ZR, back, q));
        self.fault_on(Cond::Ne, FaultKind::DivideError)?;
        let d = self.dest_apart(&[x, y, q])?;
        if kind.remainder {
            self.word(e::op4(e::MSUB, Size::X, d, q, y, x));
        } else {
            self.mov(Size::X, d, q);
        }
        Ok(())
    }

    /// Whether `high` is the sign of `low` in every bit, by how it was made.
    fn is_sign_of(&self, high: Value, low: Value) -> bool {
        let def = self.insts[high.0 as usize];
        let width = u64::from(self.ty(low).bits()) - 1;
        let count = self.insts.get(def.args[1] as usize);
        def.op == Op::Sshr
            && def.args[0] == low.0
            && count.is_some_and(|count| count.op == Op::Iconst && count.imm() == width)
    }

    fn fault_if_zero(&mut self, size: Size, y: X) -> Result<(), EmitError> {
        let label = self.fault_label(FaultKind::DivideError);
        self.branch(e::cb(false, size, y, 0), Reach::Bits19, label);
        Ok(())
    }

    /// 128 by 64 bits: one host division if the high half is what the low half extends to, else a helper.
    fn wide_division(&mut self, inst: &Inst, kind: Kind) -> Result<(), EmitError> {
        let args = [inst.args[0], inst.args[1], inst.args[2]].map(Value);
        // Before the ways part: both go on with the same values in the same places.
        self.spill_vectors()?;
        let [h, x, y] = [self.x(args[0])?, self.x(args[1])?, self.x(args[2])?];
        let result = CALL_RESULT;
        let (fast, join) = (self.label(), self.label());
        let helper = match (kind.signed, kind.remainder) {
            (false, false) => Helper::Udiv128,
            (false, true) => Helper::Urem128,
            (true, false) => Helper::Sdiv128,
            (true, true) => Helper::Srem128,
        };
        if kind.signed {
            // Divisors of 0 and -1 may fault, which the helper finds out.
            let slow = self.label();
            self.branch(e::cb(false, Size::X, y, 0), Reach::Bits19, slow);
            self.word(e::op_imm(e::ADDS_IMM, Size::X, e::ZR, y, 1).expect("one"));
            self.branch(e::b_cond(Cond::Eq, 0), Reach::Bits19, slow);
            self.word(e::op3_asr(e::SUBS, Size::X, e::ZR, h, x, 63));
            self.branch(e::b_cond(Cond::Eq, 0), Reach::Bits19, fast);
            self.place(slow);
            self.call_with(Helper::SdivFaults, &args)?;
            let label = self.fault_label(FaultKind::DivideError);
            self.branch(e::cb(true, Size::W, result, 0), Reach::Bits19, label);
        } else {
            self.word(e::op3(e::SUBS, Size::X, e::ZR, h, y));
            self.fault_on(Cond::Cs, FaultKind::DivideError)?;
            self.branch(e::cb(false, Size::X, h, 0), Reach::Bits19, fast);
        }
        self.call_with(helper, &args)?;
        self.branch(e::b(0), Reach::Bits26, join);
        self.place(fast);
        let op = if kind.signed { e::SDIV } else { e::UDIV };
        if kind.remainder {
            let q = X(30);
            self.word(e::op3(op, Size::X, q, x, y));
            self.word(e::op4(e::MSUB, Size::X, result, q, y, x));
        } else {
            self.word(e::op3(op, Size::X, result, x, y));
        }
        self.place(join);
        let d = self.dest()?;
        self.mov(Size::X, d, result);
        Ok(())
    }
}
