//! Operands: registers of any width, addresses, memory.
//!
//! Values are zero-extended to 64 bits.

use super::{Machine, Outcome, Refusal, Step};
use crate::lift::{Gpr, Insn};
use calque_ir::interp::Host;
use calque_ir::state::V128;
use iced_x86::{OpKind, Register};

/// Bits of an integer: 8, 16, 32 or 64.
pub(super) type Bits = u32;

#[inline]
pub(super) fn mask(bits: Bits) -> u64 {
    u64::MAX >> (64 - bits)
}

/// The value, sign-extended.
#[inline]
pub(super) fn signed(bits: Bits, v: u64) -> i64 {
    (v << (64 - bits)) as i64 >> (64 - bits)
}

/// A general register of any width: its number, and where in it the value is. None has no bits.
#[derive(Clone, Copy)]
pub(super) struct General {
    n: u8,
    at: u8,
    bits: u8,
}

/// By iced's numbers.
static GENERAL: [General; 256] = {
    let (mut table, mut r) = ([General { n: 0, at: 0, bits: 0 }; 256], 0);
    while r < table.len() {
        if let Some(gpr) = Gpr::of_register(r) {
            table[r] = General::of(gpr);
        }
        r += 1;
    }
    table
};

impl General {
    pub(super) const fn of(r: Gpr) -> Self {
        let (n, at, bits) = match r {
            Gpr::R64(n) => (n, 0, 64),
            Gpr::R32(n) => (n, 0, 32),
            Gpr::R16(n) => (n, 0, 16),
            Gpr::R8(n) => (n, 0, 8),
            Gpr::High8(n) => (n, 8, 8),
        };
        Self { n: n as u8, at, bits }
    }

    #[inline]
    pub(super) fn bits(self) -> Bits {
        self.bits.into()
    }
}

/// A general register, or what is not to be carried out here: segment registers and the like.
#[inline]
pub(super) fn general(r: Register) -> Result<General, Refusal> {
    let general = GENERAL[r as usize & 255];
    if general.bits == 0 { Err(Refusal::Unknown) } else { Ok(general) }
}

/// Number of an XMM register.
#[inline]
pub(super) fn vector(r: Register) -> Result<usize, Refusal> {
    let n = (r as usize).wrapping_sub(Register::XMM0 as usize);
    if n < 16 { Ok(n) } else { Err(Refusal::Unknown) }
}

/// An immediate operand of this kind, sign-extended where the instruction does so.
#[inline]
fn immediate(i: &Insn, kind: OpKind) -> u64 {
    match kind {
        OpKind::Immediate8 => i.immediate8().into(),
        OpKind::Immediate8to16 | OpKind::Immediate8to32 | OpKind::Immediate8to64 => i.immediate8() as i8 as u64,
        OpKind::Immediate16 => i.immediate16().into(),
        OpKind::Immediate32 => i.immediate32().into(),
        OpKind::Immediate32to64 => i.immediate32() as i32 as u64,
        _ => i.immediate64(),
    }
}

/// Width of an integer operand in a register or in memory.
#[inline(always)]
pub(super) fn bits_of(i: &Insn, op: u32) -> Result<Bits, Refusal> {
    match i.op_kind(op) {
        OpKind::Register => Ok(general(i.op_register(op))?.bits()),
        _ => Ok(i.memory_size().size() as u32 * 8),
    }
}

impl<H: Host> Machine<'_, H> {
    #[inline]
    pub(super) fn get(&self, r: General) -> u64 {
        self.cpu.gpr[usize::from(r.n & 15)] >> r.at & mask(r.bits())
    }

    /// Writes a register; 32 bits clear those above (SDM vol. 1 3.4.1.1).
    #[inline]
    pub(super) fn set(&mut self, r: General, v: u64) {
        let (whole, mask) = (&mut self.cpu.gpr[usize::from(r.n & 15)], mask(r.bits()));
        let kept = if r.bits >= 32 { 0 } else { *whole & !(mask << r.at) };
        *whole = kept | (v & mask) << r.at;
    }

    /// The memory operand's address without its segment base.
    #[inline]
    pub(super) fn effective_addr(&self, i: &Insn) -> Result<u64, Refusal> {
        let part = |r: Register| match GENERAL[r as usize & 255] {
            General { n, bits: 64, .. } => Ok(self.cpu.gpr[usize::from(n & 15)]),
            _ if r == Register::None || r == Register::RIP => Ok(0),
            // Computed modulo 2^32.
            _ => Err(Refusal::Unknown),
        };
        let (base, index) = (part(i.memory_base())?, part(i.memory_index())?);
        if i.memory_displ_size() == 4 {
            return Err(Refusal::Unknown);
        }
        let scaled = index << i.memory_index_scale().trailing_zeros();
        Ok(i.memory_displacement64().wrapping_add(base).wrapping_add(scaled))
    }

    #[inline]
    pub(super) fn addr(&self, i: &Insn) -> Result<u64, Refusal> {
        let base = match i.segment_prefix() {
            Register::FS => self.cpu.fs_base,
            Register::GS => self.cpu.gs_base,
            _ => 0,
        };
        Ok(self.effective_addr(i)?.wrapping_add(base))
    }

    /// An access has failed.
    #[cold]
    fn failed<T>(&mut self, fault: H::Fault) -> Result<T, Refusal> {
        self.fault = Some(fault);
        Err(Refusal::Fault)
    }

    #[inline]
    pub(super) fn load(&mut self, addr: u64, bits: Bits) -> Result<u64, Refusal> {
        match self.host.load(addr, bits / 8) {
            Ok(v) => Ok(v),
            Err(fault) => self.failed(fault),
        }
    }

    #[inline]
    pub(super) fn store(&mut self, addr: u64, bits: Bits, v: u64) -> Result<(), Refusal> {
        match self.host.store(addr, bits / 8, v) {
            Ok(()) => Ok(()),
            Err(fault) => self.failed(fault),
        }
    }

    /// Reads an integer operand; immediates are of this width.
    #[inline(always)]
    pub(super) fn read(&mut self, i: &Insn, op: u32, bits: Bits) -> Result<u64, Refusal> {
        match i.op_kind(op) {
            OpKind::Register => Ok(self.get(general(i.op_register(op))?)),
            OpKind::Memory => self.read_memory(i, bits),
            kind => Ok(immediate(i, kind) & mask(bits)),
        }
    }

    #[inline(never)]
    fn read_memory(&mut self, i: &Insn, bits: Bits) -> Result<u64, Refusal> {
        let addr = self.addr(i)?;
        self.load(addr, bits)
    }

    /// Writes operand 0.
    #[inline]
    pub(super) fn write(&mut self, i: &Insn, bits: Bits, v: u64) -> Outcome {
        match i.op0_kind() {
            OpKind::Register => self.set(general(i.op0_register())?, v),
            _ => {
                let addr = self.addr(i)?;
                self.store(addr, bits, v)?;
            }
        }
        Ok(Step::Next)
    }

    /// Replaces operand 0 by a function of its value: the old one and the new one.
    #[inline(always)]
    pub(super) fn modify(&mut self, i: &Insn, bits: Bits, f: impl FnOnce(u64) -> u64) -> Result<(u64, u64), Refusal> {
        if i.op0_kind() == OpKind::Register {
            let r = general(i.op0_register())?;
            let old = self.get(r);
            let new = f(old) & mask(bits);
            self.set(r, new);
            return Ok((old, new));
        }
        let addr = self.addr(i)?;
        let old = self.load(addr, bits)?;
        let new = f(old) & mask(bits);
        self.store(addr, bits, new)?;
        Ok((old, new))
    }

    /// A vector operand in a register or in memory, which must be `aligned` to its size or need not.
    #[inline]
    pub(super) fn read_vector(&mut self, i: &Insn, op: u32, aligned: Aligned) -> Result<V128, Refusal> {
        if i.op_kind(op) == OpKind::Register {
            return Ok(self.cpu.xmm[vector(i.op_register(op))?]);
        }
        let addr = aligned.check(self.addr(i)?)?;
        match self.host.load128(addr) {
            Ok(v) => Ok(v),
            Err(fault) => self.failed(fault),
        }
    }

    /// The same to operand 0.
    #[inline]
    pub(super) fn write_vector(&mut self, i: &Insn, aligned: Aligned, v: V128) -> Outcome {
        if i.op0_kind() == OpKind::Register {
            self.cpu.xmm[vector(i.op0_register())?] = v;
            return Ok(Step::Next);
        }
        let addr = aligned.check(self.addr(i)?)?;
        match self.host.store128(addr, v) {
            Ok(()) => Ok(Step::Next),
            Err(fault) => self.failed(fault),
        }
    }
}

/// Whether vectors in memory must be aligned to their size.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Aligned {
    Yes,
    No,
}

impl Aligned {
    /// #GP is not raised here.
    #[inline]
    pub(super) fn check(self, addr: u64) -> Result<u64, Refusal> {
        if self == Aligned::Yes && !addr.is_multiple_of(16) { Err(Refusal::Unknown) } else { Ok(addr) }
    }
}
