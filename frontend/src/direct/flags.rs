//! Status flags, computed at once: two dozen instructions, where deferring them would take as many at the next condition.

use super::Machine;
use super::operand::{Bits, mask};
use crate::lift::Cond;
use calque_ir::interp::Host;

/// Places in `CpuState::flags`.
const CF: usize = 0;
const PF: usize = 1;
const AF: usize = 2;
const ZF: usize = 3;
const SF: usize = 4;
const OF: usize = 5;

/// Bit `n`.
#[inline]
fn bit(v: u64, n: u32) -> u64 {
    v >> n & 1
}

/// Flags of results (SDM vol. 1 3.4.3.1). Operands and results are zero-extended.
impl<H: Host> Machine<'_, H> {
    /// CF, AF and OF as given, each 0 or 1; the others by the result.
    #[inline]
    fn put_flags(&mut self, bits: Bits, r: u64, cf: u64, af: u64, of: u64) {
        // Bit n: whether n has an even number of ones.
        const EVEN: u64 = 0x9669;
        let pf = EVEN >> ((r ^ r >> 4) & 15) & 1;
        let low = cf | pf << 8 | af << 16 | u64::from(r == 0) << 24;
        self.cpu.flags[..4].copy_from_slice(&(low as u32).to_le_bytes());
        self.cpu.flags[SF] = bit(r, bits - 1) as u8;
        self.cpu.flags[OF] = of as u8;
    }

    /// Of a + b + carry = r.
    #[inline]
    pub(super) fn flags_of_sum(&mut self, bits: Bits, a: u64, b: u64, r: u64) {
        let carries = a & b | (a | b) & !r;
        self.put_flags(bits, r, bit(carries, bits - 1), bit(carries, 3), bit((a ^ r) & (b ^ r), bits - 1));
    }

    /// Of a - b - borrow = r.
    #[inline]
    pub(super) fn flags_of_difference(&mut self, bits: Bits, a: u64, b: u64, r: u64) {
        let borrows = !a & b | (!a | b) & r;
        self.put_flags(bits, r, bit(borrows, bits - 1), bit(borrows, 3), bit((a ^ b) & (a ^ r), bits - 1));
    }

    #[inline]
    pub(super) fn flags_of_logic(&mut self, bits: Bits, r: u64) {
        self.put_flags(bits, r, 0, 0, 0);
    }

    /// Of a shift: AF stays.
    #[inline]
    pub(super) fn flags_of_shift(&mut self, bits: Bits, r: u64, cf: u64, of: u64) {
        self.put_flags(bits, r, cf, u64::from(self.cpu.flags[AF]), of);
    }

    /// Of INC and DEC, by those of adding and subtracting 1: CF stays.
    #[inline]
    pub(super) fn keep_carry(&mut self, flags_of: impl FnOnce(&mut Self)) {
        let cf = self.cpu.flags[CF];
        flags_of(self);
        self.cpu.flags[CF] = cf;
    }

    /// CF and OF, and nothing else.
    #[inline]
    pub(super) fn set_carry_and_overflow(&mut self, cf: bool, of: bool) {
        (self.cpu.flags[CF], self.cpu.flags[OF]) = (cf.into(), of.into());
    }

    pub(super) fn set_carry(&mut self, cf: bool) {
        self.cpu.flags[CF] = cf.into();
    }

    pub(super) fn set_zero(&mut self, zf: bool) {
        self.cpu.flags[ZF] = zf.into();
    }

    /// 0 or 1.
    #[inline]
    pub(super) fn carry(&self) -> u64 {
        u64::from(self.cpu.flags[CF])
    }

    /// SDM vol. 1 appendix B.
    #[inline]
    pub(super) fn holds(&self, cond: Cond) -> bool {
        let flag = |n: usize| self.cpu.flags[n] != 0;
        let less = || flag(SF) != flag(OF);
        match cond {
            Cond::O => flag(OF),
            Cond::No => !flag(OF),
            Cond::B => flag(CF),
            Cond::Ae => !flag(CF),
            Cond::E => flag(ZF),
            Cond::Ne => !flag(ZF),
            Cond::Be => flag(CF) || flag(ZF),
            Cond::A => !(flag(CF) || flag(ZF)),
            Cond::S => flag(SF),
            Cond::Ns => !flag(SF),
            Cond::P => flag(PF),
            Cond::Np => !flag(PF),
            Cond::L => less(),
            Cond::Ge => !less(),
            Cond::Le => less() || flag(ZF),
            Cond::G => !(less() || flag(ZF)),
        }
    }
}

/// Whether the product of two numbers, as signed ones, does not fit.
pub(super) fn product_overflows(bits: Bits, a: i64, b: i64) -> bool {
    let product = i128::from(a) * i128::from(b);
    let least = -(i128::from(mask(bits) >> 1) + 1);
    product < least || product > -(least + 1)
}
