//! AArch64 instructions that Cranelift has no operation for: stand-ins of the same form (`respell.rs`), whose opcode is replaced.
//!
//! | form                            | stand-in                   | becomes                              |
//! |---------------------------------|----------------------------|--------------------------------------|
//! | three registers                 | `sqmul_round_sat` SQRDMULH | PMULL, PMULL2, UMULL, UABD, USHL...  |
//! | two registers                   | `popcnt.i8x16`    CNT      | AESMC, AESIMC, UADDLP                |
//! | two registers, destination tied | `fma.f32x4`       FMLA     | AESE, AESD                           |
//!
//! Invariant: the instruction reads and writes the registers that its stand-in does, and nothing else.
//!
//! Encodings: Arm Architecture Reference Manual for A-profile, C4.1.96 "Data Processing -- Scalar Floating-Point and Advanced SIMD".

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
}

impl Like {
    /// Mask and value of the fixed bits, and the register fields that stay.
    fn pattern(self) -> (u32, u32, u32) {
        match self {
            Like::Sqrdmulh => (0xffe0_fc00, 0x6e60_b400, 0x001f_03ff),
            Like::Cnt => (0xffff_fc00, 0x4e20_5800, 0x0000_03ff),
            Like::Fmla => (0xffe0_fc00, 0x4e20_cc00, 0x0000_03ff),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_keep_their_registers() {
        // sqrdmulh v3.8h, v4.8h, v5.8h -> pmull v3.1q, v4.1d, v5.1d
        let mut code = 0x6e65_b483u32.to_le_bytes();
        assert_eq!(Word { like: Like::Sqrdmulh, word: 0x0ee0_e000 }.replace(&mut code), 1);
        assert_eq!(u32::from_le_bytes(code), 0x0ee5_e083);
        assert_eq!(Word { like: Like::Cnt, word: 0x4e28_6800 }.replace(&mut code), 0);
    }
}
