//! Deferred status flags: where a region leaves to an unknown place (a return, an indirect jump), or may fault while a signal handler
//! would see its registers, nobody is likely to read its flags, and computing all six takes twenty instructions. So it leaves what
//! they can be computed from in three registers (`Reg::DEFERRED`), and [`CpuState::settle_flags`] computes them where somebody looks.
//!
//! Invariants:
//! 1. While `FLAGS_KIND` is not 0, all six status flags are what it says, whatever their own registers hold, or they are dead.
//! 2. `FLAGS_KIND` is 0 everywhere outside the engines: whoever leaves a region settles. Code that puts flags makes it 0 where it leaves
//!    to a known place, or what it defers where signal handlers find exact registers.
//! 3. Flags that code may read before it overwrites them are in their registers where it is entered, also if all six are deferred
//!    besides; those are all six if it changes some and lets others live (`frontend/src/lift/flow.rs`, `ahead.rs`). So a `get` of a flag
//!    never needs to look at `FLAGS_KIND`.

use crate::state::CpuState;
use crate::types::Type;

/// Flags that are still to be computed.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Deferred {
    /// Operands; the bits above the operation's width do not count.
    pub a: u64,
    pub b: u64,
    /// [`kind_of`] an operation, 0 for none.
    pub kind: u32,
}

/// An operation whose flags can be deferred.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum Setter {
    /// a + b.
    Add = 1,
    /// a - b.
    Sub = 2,
    /// A logic operation with result a: CF = OF = AF = 0.
    Logic = 3,
    /// a + b + the carry of [`CARRY_SHIFT`].
    Adc = 4,
    /// a - b - the carry of [`CARRY_SHIFT`].
    Sbb = 5,
}

/// Bit of `FLAGS_KIND` that holds a carry in.
pub const CARRY_SHIFT: u32 = 16;

/// The value of `FLAGS_KIND` for an operation on integers of type `ty`: bits 0..8 the setter, 8..16 the width, 16 the carry in.
pub fn kind_of(setter: Setter, ty: Type) -> u32 {
    setter as u32 | ty.bits() << 8
}

impl Deferred {
    /// CF PF AF ZF SF OF, each 0 or 1 (SDM vol. 1 3.4.3.1); `None` if nothing is deferred.
    fn flags(&self) -> Option<[u8; 6]> {
        let bits = self.kind >> 8 & 0xff;
        let shift = 64u32.checked_sub(bits)?;
        // Operands at the upper end of a word, so that carries and signs are the word's.
        let (a, b) = (self.a << shift, self.b << shift);
        let c = u64::from(self.kind >> CARRY_SHIFT & 1) << shift;
        let overflows = |r: i128| i64::try_from(r).is_err();
        let (r, carry, overflow) = match self.kind & 0xff {
            1 | 4 => {
                let (wide, signed) =
                    (u128::from(a) + u128::from(b) + u128::from(c), i128::from(a as i64) + i128::from(b as i64));
                (wide as u64, wide >> 64 != 0, overflows(signed + i128::from(c)))
            }
            2 | 5 => {
                let (taken, signed) = (u128::from(b) + u128::from(c), i128::from(a as i64) - i128::from(b as i64));
                (a.wrapping_sub(taken as u64), u128::from(a) < taken, overflows(signed - i128::from(c)))
            }
            3 => (a, false, false),
            _ => return None,
        };
        let half = if self.kind & 0xff == 3 { 0 } else { (self.a ^ self.b ^ r >> shift) >> 4 & 1 };
        let even = ((r >> shift) as u8).count_ones().is_multiple_of(2);
        Some([carry, even, half != 0, r == 0, (r as i64) < 0, overflow].map(u8::from))
    }
}

impl CpuState {
    /// Computes deferred flags, if there are any.
    #[inline]
    pub fn settle_flags(&mut self) {
        if self.deferred.kind != 0 {
            self.settle_pending();
        }
    }

    #[cold]
    fn settle_pending(&mut self) {
        if let Some(flags) = self.deferred.flags() {
            self.flags[..6].copy_from_slice(&flags);
        }
        self.deferred.kind = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settled(setter: Setter, ty: Type, a: u64, b: u64) -> [u8; 6] {
        let mut cpu = CpuState::new();
        cpu.deferred = Deferred { a, b, kind: kind_of(setter, ty) };
        cpu.settle_flags();
        assert_eq!(cpu.deferred.kind, 0);
        std::array::from_fn(|i| cpu.flags[i])
    }

    //                                             CF PF AF ZF SF OF
    #[rustfmt::skip]
    const CASES: [(Setter, Type, u64, u64, [u8; 6]); 8] = [
        (Setter::Add,   Type::I8,  0xff,     1,     [1, 1, 1, 1, 0, 0]),
        (Setter::Add,   Type::I8,  0x7f,     1,     [0, 0, 1, 0, 1, 1]),
        (Setter::Add,   Type::I32, u64::MAX, 1,     [1, 1, 1, 1, 0, 0]),
        (Setter::Sub,   Type::I64, 0,        1,     [1, 1, 1, 0, 1, 0]),
        (Setter::Sub,   Type::I16, 0x8000,   1,     [0, 1, 1, 0, 0, 1]),
        (Setter::Sub,   Type::I32, 5,        5,     [0, 1, 0, 1, 0, 0]),
        (Setter::Logic, Type::I32, 1 << 31,  0,     [0, 1, 0, 0, 1, 0]),
        (Setter::Logic, Type::I8,  0x100,    0,     [0, 1, 0, 1, 0, 0]),
    ];

    #[test]
    fn with_a_carry() {
        let flags =
            |setter, ty, a, b, c: u32| Deferred { a, b, kind: kind_of(setter, ty) | c << CARRY_SHIFT }.flags().unwrap();
        //                                                           CF PF AF ZF SF OF
        assert_eq!(flags(Setter::Adc, Type::I8, 0xff, 0, 1), [1, 1, 1, 1, 0, 0]);
        assert_eq!(flags(Setter::Adc, Type::I8, 0x7f, 0, 1), [0, 0, 1, 0, 1, 1]);
        assert_eq!(flags(Setter::Adc, Type::I64, u64::MAX, u64::MAX, 1), [1, 1, 1, 0, 1, 0]);
        assert_eq!(flags(Setter::Sbb, Type::I32, 0, 0, 1), [1, 1, 1, 0, 1, 0]);
        assert_eq!(flags(Setter::Sbb, Type::I64, 0, u64::MAX, 1), [1, 1, 1, 1, 0, 0]);
        assert_eq!(flags(Setter::Sbb, Type::I16, 0x8000, 0, 1), [0, 1, 1, 0, 0, 1]);
        assert_eq!(flags(Setter::Sbb, Type::I32, 5, 4, 0), [0, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn as_the_manual_says() {
        for (setter, ty, a, b, flags) in CASES {
            assert_eq!(settled(setter, ty, a, b), flags, "{setter:?} {ty:?} {a:#x} {b:#x}");
        }
    }
}
