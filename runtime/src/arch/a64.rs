//! The A64 instructions with which generated code makes ordered and atomic accesses, decoded: they fault at addresses
//! that x86-64 allows, and `aarch64.rs` then carries them out otherwise. Pure, so that every host can test it.
//!
//! Encodings: Arm Architecture Reference Manual for A-profile, C4.1.94 "Loads and Stores".

/// What such an instruction does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Ordered {
    /// LDAR, LDAPR, LDAPUR and its sign-extending forms.
    Load(Extend),
    /// STLR, STLUR.
    Store,
    /// LDAXR, LDXR.
    LoadExclusive,
    /// STLXR, STXR; the status goes to `rs`.
    StoreExclusive,
    /// CAS and its ordered forms: compares with `rs`, where the old value goes.
    CompareSwap,
    /// LDADD and relatives: the old value goes to `rt`.
    Fetch(Fetch),
}

/// What a load makes of the bits above the loaded ones.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Extend {
    Zero,
    /// Copies of the sign up to this number of bits, zeros above.
    Sign(u32),
}

impl Extend {
    /// The register's value after `value` of `bytes` bytes was loaded.
    #[cfg(any(test, target_arch = "aarch64"))]
    pub(crate) fn apply(self, value: u64, bytes: usize) -> u64 {
        let Extend::Sign(bits) = self else { return value };
        let above = 64 - 8 * bytes as u32;
        let signed = ((value << above) as i64 >> above) as u64;
        signed & u64::MAX >> (64 - bits)
    }
}

/// How a fetching operation makes the new value out of the old one and `rs`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fetch {
    Add,
    /// Clears the bits of `rs`.
    Clear,
    Xor,
    Set,
    Swap,
}

impl Fetch {
    #[cfg(target_arch = "aarch64")]
    pub(crate) fn apply(self, old: u64, operand: u64) -> u64 {
        match self {
            Fetch::Add => old.wrapping_add(operand),
            Fetch::Clear => old & !operand,
            Fetch::Xor => old ^ operand,
            Fetch::Set => old | operand,
            Fetch::Swap => operand,
        }
    }
}

/// A decoded instruction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Instruction {
    pub(crate) op: Ordered,
    /// Bytes accessed: 1, 2, 4, 8.
    pub(crate) bytes: usize,
    /// Added to `rn` for the address.
    pub(crate) offset: i64,
    /// Register numbers; 31 is zero (`rn`: the stack pointer).
    pub(crate) rs: usize,
    pub(crate) rn: usize,
    pub(crate) rt: usize,
}

/// Decodes an instruction word; `None` for any other instruction.
pub(crate) fn decode(word: u32) -> Option<Instruction> {
    #[rustfmt::skip]
    const ROWS: [(u32, u32, Ordered); 15] = [
        // mask        value
        (0x3fff_fc00, 0x08df_fc00, Ordered::Load(Extend::Zero)),
        (0x3fff_fc00, 0x38bf_c000, Ordered::Load(Extend::Zero)),
        (0x3fe0_0c00, 0x1940_0000, Ordered::Load(Extend::Zero)),
        (0x3fe0_0c00, 0x1980_0000, Ordered::Load(Extend::Sign(64))),
        (0x3fe0_0c00, 0x19c0_0000, Ordered::Load(Extend::Sign(32))),
        (0x3fff_fc00, 0x089f_fc00, Ordered::Store),
        (0x3fe0_0c00, 0x1900_0000, Ordered::Store),
        (0x3fff_7c00, 0x085f_7c00, Ordered::LoadExclusive),
        (0x3fe0_7c00, 0x0800_7c00, Ordered::StoreExclusive),
        (0x3fa0_7c00, 0x08a0_7c00, Ordered::CompareSwap),
        (0x3f20_fc00, 0x3820_0000, Ordered::Fetch(Fetch::Add)),
        (0x3f20_fc00, 0x3820_1000, Ordered::Fetch(Fetch::Clear)),
        (0x3f20_fc00, 0x3820_2000, Ordered::Fetch(Fetch::Xor)),
        (0x3f20_fc00, 0x3820_3000, Ordered::Fetch(Fetch::Set)),
        (0x3f20_fc00, 0x3820_8000, Ordered::Fetch(Fetch::Swap)),
    ];
    let (_, _, op) = ROWS.into_iter().find(|(mask, value, _)| word & mask == *value)?;
    let field = |low: u32| (word >> low & 31) as usize;
    // imm9 (20:12) of LDAPUR and STLUR.
    let unscaled = word & 0x3f20_0c00 == 0x1900_0000;
    let offset = if unscaled { i64::from((word << 11) as i32 >> 23) } else { 0 };
    Some(Instruction { op, bytes: 1 << (word >> 30), offset, rs: field(16), rn: field(5), rt: field(0) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decodes_what_the_assembler_writes() {
        let insn = |op, bytes, rs, rn, rt| Some(Instruction { op, bytes, offset: 0, rs, rn, rt });
        #[rustfmt::skip]
        let cases = [
            (0x88df_fc41, insn(Ordered::Load(Extend::Zero), 4, 31, 2, 1)),                    // ldar w1, [x2]
            (0xc8df_fc41, insn(Ordered::Load(Extend::Zero), 8, 31, 2, 1)),                    // ldar x1, [x2]
            (0x78bf_c041, insn(Ordered::Load(Extend::Zero), 2, 31, 2, 1)),                    // ldaprh w1, [x2]
            (0x489f_fc41, insn(Ordered::Store, 2, 31, 2, 1)),                   // stlrh w1, [x2]
            (0xc85f_fc41, insn(Ordered::LoadExclusive, 8, 31, 2, 1)),           // ldaxr x1, [x2]
            (0x8803_fc41, insn(Ordered::StoreExclusive, 4, 3, 2, 1)),           // stlxr w3, w1, [x2]
            (0xc8e3_fc41, insn(Ordered::CompareSwap, 8, 3, 2, 1)),              // casal x3, x1, [x2]
            (0xb8e3_0041, insn(Ordered::Fetch(Fetch::Add), 4, 3, 2, 1)),        // ldaddal w3, w1, [x2]
            (0xb8e3_1041, insn(Ordered::Fetch(Fetch::Clear), 4, 3, 2, 1)),      // ldclral w3, w1, [x2]
            (0xf8e3_2041, insn(Ordered::Fetch(Fetch::Xor), 8, 3, 2, 1)),        // ldeoral x3, x1, [x2]
            (0x38e3_3041, insn(Ordered::Fetch(Fetch::Set), 1, 3, 2, 1)),        // ldsetalb w3, w1, [x2]
            (0xf8e3_8041, insn(Ordered::Fetch(Fetch::Swap), 8, 3, 2, 1)),       // swpal x3, x1, [x2]
            (0xf940_0041, None),                                                // ldr x1, [x2]
            (0xc87f_fc41, None),                                                // ldaxp x1, xzr.. pair
        ];
        for (word, expected) in cases {
            assert_eq!(decode(word), expected, "{word:#x}");
        }
    }

    #[test]
    fn decodes_unscaled_forms() {
        #[rustfmt::skip]
        let cases = [
            (0xd95f_8041, Ordered::Load(Extend::Zero), 8, -8),      // ldapur x1, [x2, #-8]
            (0x1940_1041, Ordered::Load(Extend::Zero), 1, 1),       // ldapurb w1, [x2, #1]
            (0x5980_2041, Ordered::Load(Extend::Sign(64)), 2, 2),   // ldapursh x1, [x2, #2]
            (0x19c0_0041, Ordered::Load(Extend::Sign(32)), 1, 0),   // ldapursb w1, [x2]
            (0x990f_f041, Ordered::Store, 4, 255),                  // stlur w1, [x2, #255]
        ];
        for (word, op, bytes, offset) in cases {
            let got = decode(word).expect("known");
            assert_eq!((got.op, got.bytes, got.offset, got.rn, got.rt), (op, bytes, offset, 2, 1), "{word:#x}");
        }
        assert_eq!(Extend::Sign(32).apply(0x80, 1), 0xffff_ff80);
        assert_eq!(Extend::Sign(64).apply(0x8000, 2), !0x7fff);
        assert_eq!(Extend::Sign(64).apply(0x7fff, 2), 0x7fff);
        assert_eq!(Extend::Zero.apply(0x80, 1), 0x80);
    }
}
