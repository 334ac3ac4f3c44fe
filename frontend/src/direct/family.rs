//! The families: what each row's instructions do.

use super::flags::product_overflows;
use super::operand::{Aligned, Bits, General, bits_of, general, mask, signed, vector};
use super::{Machine, Outcome, Refusal, Step};
use crate::lift::{Cond, Gpr, Insn};
use calque_ir::interp::Host;
use iced_x86::{Code, OpKind};

/// Operations on two numbers.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Binary {
    Add,
    Adc,
    Sub,
    Sbb,
    And,
    Or,
    Xor,
}

/// Whether the result is written.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Dest {
    Writeback,
    FlagsOnly,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Unary {
    Inc,
    Dec,
    Neg,
    Not,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Shift {
    Left,
    Right,
    Arithmetic,
    RotateLeft,
    RotateRight,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Extend {
    Zero,
    Sign,
}

/// From which end a scan goes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum First {
    Lowest,
    Highest,
}

pub(super) const RAX: usize = 0;
pub(super) const RDX: usize = 2;
const RSP: usize = 4;
const RBP: usize = 5;

/// Data transfer.
impl<H: Host> Machine<'_, H> {
    #[inline]
    pub(super) fn mov(&mut self, i: &Insn) -> Outcome {
        let bits = bits_of(i, 0)?;
        let v = self.read(i, 1, bits)?;
        self.write(i, bits, v)
    }

    #[inline]
    pub(super) fn extend(&mut self, i: &Insn, how: Extend) -> Outcome {
        let (from, to) = (bits_of(i, 1)?, bits_of(i, 0)?);
        let v = self.read(i, 1, from)?;
        let v = if how == Extend::Sign { signed(from, v) as u64 & mask(to) } else { v };
        self.write(i, to, v)
    }

    #[inline]
    pub(super) fn lea(&mut self, i: &Insn) -> Outcome {
        let addr = self.effective_addr(i)?;
        self.set(general(i.op0_register())?, addr);
        Ok(Step::Next)
    }

    /// Of registers: with memory it is locked.
    pub(super) fn xchg(&mut self, i: &Insn) -> Outcome {
        if i.op0_kind() != OpKind::Register || i.op1_kind() != OpKind::Register {
            return Err(Refusal::Unknown);
        }
        let (a, b) = (general(i.op0_register())?, general(i.op1_register())?);
        let (old, new) = (self.get(a), self.get(b));
        self.set(a, new);
        self.set(b, old);
        Ok(Step::Next)
    }

    #[inline]
    fn push_value(&mut self, v: u64) -> Outcome {
        let to = self.cpu.gpr[RSP].wrapping_sub(8);
        self.store(to, 64, v)?;
        self.cpu.gpr[RSP] = to;
        Ok(Step::Next)
    }

    /// Of 64 bits.
    #[inline]
    pub(super) fn push(&mut self, i: &Insn) -> Outcome {
        let wide = match i.op0_kind() {
            OpKind::Register | OpKind::Memory => bits_of(i, 0)? == 64,
            kind => matches!(kind, OpKind::Immediate8to64 | OpKind::Immediate32to64),
        };
        if !wide {
            return Err(Refusal::Unknown);
        }
        let v = self.read(i, 0, 64)?;
        self.push_value(v)
    }

    /// To a register of 64 bits.
    #[inline]
    pub(super) fn pop(&mut self, i: &Insn) -> Outcome {
        let OpKind::Register = i.op0_kind() else { return Err(Refusal::Unknown) };
        let to = general(i.op0_register())?;
        if to.bits() != 64 {
            return Err(Refusal::Unknown);
        }
        let v = self.load(self.cpu.gpr[RSP], 64)?;
        self.cpu.gpr[RSP] = self.cpu.gpr[RSP].wrapping_add(8);
        self.set(to, v);
        Ok(Step::Next)
    }

    pub(super) fn leave(&mut self, i: &Insn) -> Outcome {
        if i.code() != Code::Leaveq {
            return Err(Refusal::Unknown);
        }
        let frame = self.cpu.gpr[RBP];
        let v = self.load(frame, 64)?;
        (self.cpu.gpr[RSP], self.cpu.gpr[RBP]) = (frame.wrapping_add(8), v);
        Ok(Step::Next)
    }

    #[inline]
    pub(super) fn cmov(&mut self, i: &Insn, cond: Cond) -> Outcome {
        let bits = bits_of(i, 0)?;
        let (new, to) = (self.read(i, 1, bits)?, general(i.op0_register())?);
        let v = if self.holds(cond) { new } else { self.get(to) };
        self.set(to, v);
        Ok(Step::Next)
    }

    #[inline]
    pub(super) fn setcc(&mut self, i: &Insn, cond: Cond) -> Outcome {
        self.write(i, 8, self.holds(cond).into())
    }

    /// CWDE, CDQE.
    pub(super) fn extend_accumulator(&mut self, _: &Insn, from: Gpr, to: Gpr) -> Outcome {
        let v = signed(from.ty().bits(), self.get(General::of(from))) as u64;
        self.set(General::of(to), v);
        Ok(Step::Next)
    }

    /// CDQ, CQO.
    pub(super) fn sign_to_rdx(&mut self, _: &Insn, from: Gpr, to: Gpr) -> Outcome {
        let sign = signed(from.ty().bits(), self.get(General::of(from))) >> 63;
        self.set(General::of(to), sign as u64);
        Ok(Step::Next)
    }
}

/// Arithmetic and logic.
impl<H: Host> Machine<'_, H> {
    #[inline]
    pub(super) fn binary(&mut self, i: &Insn, op: Binary, dest: Dest) -> Outcome {
        let bits = bits_of(i, 0)?;
        let (b, carry) = (self.read(i, 1, bits)?, self.carry());
        let result = |a: u64| match op {
            Binary::Add => a.wrapping_add(b),
            Binary::Adc => a.wrapping_add(b).wrapping_add(carry),
            Binary::Sub => a.wrapping_sub(b),
            Binary::Sbb => a.wrapping_sub(b).wrapping_sub(carry),
            Binary::And => a & b,
            Binary::Or => a | b,
            Binary::Xor => a ^ b,
        };
        let (a, r) = match dest {
            Dest::Writeback => self.modify(i, bits, result)?,
            Dest::FlagsOnly => {
                let a = self.read(i, 0, bits)?;
                (a, result(a) & mask(bits))
            }
        };
        match op {
            Binary::Add | Binary::Adc => self.flags_of_sum(bits, a, b, r),
            Binary::Sub | Binary::Sbb => self.flags_of_difference(bits, a, b, r),
            Binary::And | Binary::Or | Binary::Xor => self.flags_of_logic(bits, r),
        }
        Ok(Step::Next)
    }

    #[inline]
    pub(super) fn unary(&mut self, i: &Insn, op: Unary) -> Outcome {
        let bits = bits_of(i, 0)?;
        let (a, r) = self.modify(i, bits, |a| match op {
            Unary::Inc => a.wrapping_add(1),
            Unary::Dec => a.wrapping_sub(1),
            Unary::Neg => a.wrapping_neg(),
            Unary::Not => !a,
        })?;
        match op {
            Unary::Inc => self.keep_carry(|m| m.flags_of_sum(bits, a, 1, r)),
            Unary::Dec => self.keep_carry(|m| m.flags_of_difference(bits, a, 1, r)),
            Unary::Neg => self.flags_of_difference(bits, 0, a, r),
            Unary::Not => {}
        }
        Ok(Step::Next)
    }

    /// IMUL with two and three operands: of the flags, only CF and OF are defined.
    pub(super) fn imul(&mut self, i: &Insn) -> Outcome {
        let (first, second) = match i.op_count() {
            1 => return Err(Refusal::Unknown),
            2 => (0, 1),
            _ => (1, 2),
        };
        let bits = bits_of(i, 0)?;
        let (a, b) = (self.read(i, first, bits)?, self.read(i, second, bits)?);
        self.set(general(i.op0_register())?, a.wrapping_mul(b));
        let overflows = product_overflows(bits, signed(bits, a), signed(bits, b));
        self.set_carry_and_overflow(overflows, overflows);
        Ok(Step::Next)
    }

    /// MUL of 32 and 64 bits.
    pub(super) fn mul(&mut self, i: &Insn) -> Outcome {
        let (bits, low, high) = wide_accumulator(i)?;
        let product = u128::from(self.read(i, 0, bits)?) * u128::from(self.get(low));
        let upper = (product >> bits) as u64;
        self.set(low, product as u64);
        self.set(high, upper);
        self.set_carry_and_overflow(upper != 0, upper != 0);
        Ok(Step::Next)
    }

    /// DIV of 32 and 64 bits, of a number that is no wider than that: flags are undefined.
    pub(super) fn div(&mut self, i: &Insn) -> Outcome {
        let (bits, low, high) = wide_accumulator(i)?;
        let (divisor, a) = (self.read(i, 0, bits)?, self.get(low));
        let Some(quotient) = a.checked_div(divisor).filter(|_| self.get(high) == 0) else {
            return Err(Refusal::Unknown);
        };
        self.set(low, quotient);
        self.set(high, a - quotient * divisor);
        Ok(Step::Next)
    }

    /// Shifts and rotates: nothing happens to flags at a count of 0.
    #[inline]
    pub(super) fn shift(&mut self, i: &Insn, how: Shift) -> Outcome {
        let bits = bits_of(i, 0)?;
        let n = self.read(i, 1, 8)? as u32 & if bits == 64 { 63 } else { 31 };
        let within = n & (bits - 1);
        let (a, r) = self.modify(i, bits, |a| match how {
            Shift::Left => a << n,
            Shift::Right => a >> n,
            Shift::Arithmetic => (signed(bits, a) >> n) as u64,
            Shift::RotateLeft => a << within | a >> 1 >> (bits - 1 - within),
            Shift::RotateRight => a >> within | a << 1 << (bits - 1 - within),
        })?;
        if n == 0 {
            return Ok(Step::Next);
        }
        let (top, below) = (r >> (bits - 1), r >> (bits - 2) & 1);
        match how {
            Shift::Left => {
                let out = if n <= bits { a >> (bits - n) & 1 } else { 0 };
                self.flags_of_shift(bits, r, out, out ^ top);
            }
            Shift::Right => self.flags_of_shift(bits, r, a >> (n - 1) & 1, a >> (bits - 1)),
            Shift::Arithmetic => self.flags_of_shift(bits, r, (signed(bits, a) >> (n - 1)) as u64 & 1, 0),
            Shift::RotateLeft => self.set_carry_and_overflow(r & 1 != 0, r & 1 != top),
            Shift::RotateRight => self.set_carry_and_overflow(top != 0, top != below),
        }
        Ok(Step::Next)
    }

    /// BT of a register.
    pub(super) fn bit_test(&mut self, i: &Insn) -> Outcome {
        let OpKind::Register = i.op0_kind() else { return Err(Refusal::Unknown) };
        let bits = bits_of(i, 0)?;
        let (v, n) = (self.read(i, 0, bits)?, self.read(i, 1, bits)?);
        self.set_carry(v >> (n % u64::from(bits)) & 1 != 0);
        Ok(Step::Next)
    }

    /// BSF, BSR of 32 and 64 bits: the destination stays if the source is 0.
    pub(super) fn bit_scan(&mut self, i: &Insn, end: First) -> Outcome {
        let bits = bits_of(i, 0)?;
        let v = self.read(i, 1, bits)?;
        if v != 0 {
            let n = if end == First::Lowest { v.trailing_zeros() } else { 63 - v.leading_zeros() };
            self.set(general(i.op0_register())?, n.into());
        }
        self.set_zero(v == 0);
        Ok(Step::Next)
    }

    pub(super) fn nop(&mut self, _: &Insn) -> Outcome {
        Ok(Step::Next)
    }
}

/// Width of the operand, and rAX and rDX of that.
fn wide_accumulator(i: &Insn) -> Result<(Bits, General, General), Refusal> {
    match bits_of(i, 0)? {
        bits @ 32 => Ok((bits, General::of(Gpr::R32(RAX)), General::of(Gpr::R32(RDX)))),
        bits @ 64 => Ok((bits, General::of(Gpr::R64(RAX)), General::of(Gpr::R64(RDX)))),
        _ => Err(Refusal::Unknown),
    }
}

/// Control transfer.
impl<H: Host> Machine<'_, H> {
    #[inline]
    pub(super) fn jcc(&mut self, i: &Insn, cond: Cond) -> Outcome {
        let to = if self.holds(cond) { i.near_branch_target() } else { i.next_ip() };
        Ok(Step::Jump(to))
    }

    /// Where a near jump or call goes.
    #[inline]
    fn target(&mut self, i: &Insn) -> Result<u64, Refusal> {
        match i.op0_kind() {
            OpKind::NearBranch64 => Ok(i.near_branch_target()),
            OpKind::Register | OpKind::Memory if bits_of(i, 0)? == 64 => self.read(i, 0, 64),
            _ => Err(Refusal::Unknown),
        }
    }

    #[inline]
    pub(super) fn jmp(&mut self, i: &Insn) -> Outcome {
        self.target(i).map(Step::Jump)
    }

    #[inline]
    pub(super) fn call(&mut self, i: &Insn) -> Outcome {
        let to = self.target(i)?;
        self.push_value(i.next_ip())?;
        Ok(Step::Jump(to))
    }

    #[inline]
    pub(super) fn ret(&mut self, i: &Insn) -> Outcome {
        if i.code() != Code::Retnq {
            return Err(Refusal::Unknown);
        }
        let to = self.load(self.cpu.gpr[RSP], 64)?;
        self.cpu.gpr[RSP] = self.cpu.gpr[RSP].wrapping_add(8);
        Ok(Step::Jump(to))
    }
}

/// Vectors, of legacy SSE: what is above 128 bits stays.
impl<H: Host> Machine<'_, H> {
    pub(super) fn move_vector(&mut self, i: &Insn, aligned: Aligned) -> Outcome {
        let v = self.read_vector(i, 1, aligned)?;
        self.write_vector(i, aligned, v)
    }

    /// MOVD, MOVQ: the lowest `bits` of a vector register from and to anywhere.
    pub(super) fn move_low(&mut self, i: &Insn, bits: Bits) -> Outcome {
        let v = match i.op1_kind() {
            OpKind::Register if i.op1_register().is_xmm() => self.cpu.xmm[vector(i.op1_register())?][0] & mask(bits),
            _ => self.read(i, 1, bits)?,
        };
        if i.op0_kind() == OpKind::Register && i.op0_register().is_xmm() {
            self.cpu.xmm[vector(i.op0_register())?] = [v, 0];
            return Ok(Step::Next);
        }
        self.write(i, bits, v)
    }

    /// PXOR, XORPS.
    pub(super) fn xor_vectors(&mut self, i: &Insn) -> Outcome {
        let (to, b) = (vector(i.op0_register())?, self.read_vector(i, 1, Aligned::Yes)?);
        let a = self.cpu.xmm[to];
        self.cpu.xmm[to] = [a[0] ^ b[0], a[1] ^ b[1]];
        Ok(Step::Next)
    }

    pub(super) fn unpack_low_quadwords(&mut self, i: &Insn) -> Outcome {
        let (to, b) = (vector(i.op0_register())?, self.read_vector(i, 1, Aligned::Yes)?);
        self.cpu.xmm[to][1] = b[0];
        Ok(Step::Next)
    }
}
