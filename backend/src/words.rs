//! AArch64 instructions that Cranelift has no operation for: stand-ins of the same form (`respell.rs`), whose opcode is replaced.
//!
//! | form                            | stand-in                   | becomes                              |
//! |---------------------------------|----------------------------|--------------------------------------|
//! | three registers                 | `sqmul_round_sat` SQRDMULH | PMULL, PMULL2, UMULL, UABD, USHL...  |
//! | two registers                   | `popcnt.i8x16`    CNT      | AESMC, AESIMC, UADDLP                |
//! | two or three, destination tied  | `fma.f32x4`       FMLA     | AESE, AESD, SHA256H and kin          |
//! | a rounding to an integral value | `nearest`         FRINTN   | FRINTX, FRINTI                       |
//! | three scalars                   | `fmin`            FMIN     | FCMGT                                |
//! | one general register, or two    | `bitrev`          RBIT     | MRS                                  |
//!
//! Invariant: the instruction writes the register that its stand-in does, and reads no other general or vector registers.
//!
//! Encodings: Arm Architecture Reference Manual for A-profile, C4.1.96 "Data Processing -- Scalar Floating-Point and Advanced SIMD",
//! C6.2 (MRS, RBIT).

/// What a stand-in becomes: a word without its registers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Word {
    pub(crate) like: Like,
    pub(crate) word: u32,
}

/// Stand-ins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Like {
    /// `sqrdmulh vd.8h, vn.8h, vm.8h`
    Sqrdmulh,
    /// `cnt vd.16b, vn.16b`
    Cnt,
    /// `fmla vd.4s, vn.4s, vm.4s`; what it becomes has no Rm.
    Fmla,
    /// The same where what it becomes has three registers.
    FmlaOfThree,
    /// `frintn`, of a scalar or of four or two lanes, with the bit that says whether they are doubles.
    Frintn(Shape),
    /// `fmin` of scalars, with that bit.
    Fmin,
    /// `rbit xd, xn`; what it becomes has no Rn.
    Rbit,
}

/// What a floating-point instruction works on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Shape {
    Scalar,
    Lanes,
}

/// Rounds to an integral value as FPCR says, and is inexact where that changes it.
pub(crate) fn frintx(shape: Shape) -> Word {
    let word = if shape == Shape::Lanes { 0x6e21_9800 } else { 0x1e27_4000 };
    Word { like: Like::Frintn(shape), word }
}

/// Rounds a scalar to an integral value as FPCR says.
pub(crate) const FRINTI: Word = Word { like: Like::Frintn(Shape::Scalar), word: 0x1e27_c000 };

/// A mask that says whether one scalar is greater than the other; any NaN is an invalid operation.
pub(crate) const FCMGT: Word = Word { like: Like::Fmin, word: 0x7ea0_e400 };

/// Reads FPSR.
pub(crate) const MRS_FPSR: Word = Word { like: Like::Rbit, word: 0xd53b_4420 };

impl Like {
    /// Mask and value of the fixed bits, and the register fields that stay.
    fn pattern(self) -> (u32, u32, u32) {
        match self {
            Like::Sqrdmulh => (0xffe0_fc00, 0x6e60_b400, 0x001f_03ff),
            Like::Cnt => (0xffff_fc00, 0x4e20_5800, 0x0000_03ff),
            Like::Fmla => (0xffe0_fc00, 0x4e20_cc00, 0x0000_03ff),
            Like::FmlaOfThree => (0xffe0_fc00, 0x4e20_cc00, 0x001f_03ff),
            Like::Frintn(Shape::Scalar) => (0xffbf_fc00, 0x1e24_4000, 0x0040_03ff),
            Like::Frintn(Shape::Lanes) => (0xffbf_fc00, 0x4e21_8800, 0x0040_03ff),
            Like::Fmin => (0xffa0_fc00, 0x1e20_5800, 0x005f_03ff),
            Like::Rbit => (0xffff_fc00, 0xdac0_0000, 0x0000_001f),
        }
    }
}

impl Word {
    /// Replaces the stand-ins in `code`; how many there were.
    pub(crate) fn replace(self, code: &mut [u8]) -> usize {
        let (mask, value, registers) = self.like.pattern();
        let (words, _) = code.as_chunks_mut::<4>();
        let mut found = 0;
        for word in words.iter_mut().filter(|w| u32::from_le_bytes(**w) & mask == value) {
            *word = (self.word | u32::from_le_bytes(*word) & registers).to_le_bytes();
            found += 1;
        }
        found
    }
}

/// Comparisons of two scalars become such that take any NaN for an invalid operation: FCMP becomes FCMPE. Those of a register with
/// itself look for NaNs and stay (`lower/float.rs`).
pub(crate) fn signal_quiet_nans(code: &mut [u8]) {
    const FCMP: (u32, u32) = (0xffa0_fc1f, 0x1e20_2000);
    let (words, _) = code.as_chunks_mut::<4>();
    for word in words {
        let old = u32::from_le_bytes(*word);
        if old & FCMP.0 == FCMP.1 && old >> 5 & 31 != old >> 16 & 31 {
            *word = (old | 0x10).to_le_bytes();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Expected words are GNU as's.
    #[test]
    fn floats_keep_their_width() {
        let one = |word: Word, old: u32| {
            let mut code = old.to_le_bytes();
            assert_eq!(word.replace(&mut code), 1);
            u32::from_le_bytes(code)
        };
        assert_eq!(one(frintx(Shape::Scalar), 0x1e64_4083), 0x1e67_4083); // frintn d3, d4
        assert_eq!(one(FRINTI, 0x1e24_4083), 0x1e27_c083);
        assert_eq!(one(frintx(Shape::Lanes), 0x4e61_8883), 0x6e61_9883); // frintn v3.2d, v4.2d
        assert_eq!(one(FCMGT, 0x1e65_5883), 0x7ee5_e483); // fmin d3, d4, d5
        assert_eq!(one(MRS_FPSR, 0xdac0_0043), 0xd53b_4423); // rbit x3, x2
        let mut code = [0x1e65_2080u32, 0x1e64_2080].map(u32::to_le_bytes).concat(); // fcmp d4, d5; fcmp d4, d4
        signal_quiet_nans(&mut code);
        assert_eq!(code, [0x1e65_2090u32, 0x1e64_2080].map(u32::to_le_bytes).concat());
    }

    #[test]
    fn words_keep_their_registers() {
        // sqrdmulh v3.8h, v4.8h, v5.8h -> pmull v3.1q, v4.1d, v5.1d
        let mut code = 0x6e65_b483u32.to_le_bytes();
        assert_eq!(Word { like: Like::Sqrdmulh, word: 0x0ee0_e000 }.replace(&mut code), 1);
        assert_eq!(u32::from_le_bytes(code), 0x0ee5_e083);
        assert_eq!(Word { like: Like::Cnt, word: 0x4e28_6800 }.replace(&mut code), 0);
    }
}
