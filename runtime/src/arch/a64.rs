//! A64 instructions of generated code that access memory, decoded where they fault. Ordered and atomic accesses fault at addresses
//! that x86-64 allows, and `aarch64.rs` then carries them out otherwise; of all others the address is of interest, whose topmost
//! byte the host ignores and does not report. Pure, so that every host can test it.
//!
//! Encodings: Arm Architecture Reference Manual for A-profile, C4.1.94 "Loads and Stores".

/// What such an instruction does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Ordered {
    /// LDAR, LDAPR, LDAPUR and its sign-extending forms.
    Load(Extend),
    /// STLR, STLUR.
    Store,
    /// LDAXR, LDXR: the start of a [`Loop`].
    LoadExclusive,
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
    Sub,
    And,
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
            Fetch::Sub => old.wrapping_sub(operand),
            Fetch::And => old & operand,
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
    const ROWS: [(u32, u32, Ordered); 14] = [
        // mask        value
        (0x3fff_fc00, 0x08df_fc00, Ordered::Load(Extend::Zero)),
        (0x3fff_fc00, 0x38bf_c000, Ordered::Load(Extend::Zero)),
        (0x3fe0_0c00, 0x1940_0000, Ordered::Load(Extend::Zero)),
        (0x3fe0_0c00, 0x1980_0000, Ordered::Load(Extend::Sign(64))),
        (0x3fe0_0c00, 0x19c0_0000, Ordered::Load(Extend::Sign(32))),
        (0x3fff_fc00, 0x089f_fc00, Ordered::Store),
        (0x3fe0_0c00, 0x1900_0000, Ordered::Store),
        (0x3fff_7c00, 0x085f_7c00, Ordered::LoadExclusive),
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

/// The address that a load or store accesses, from its base `register`'s number or its index's; `None` for any other instruction, and for
/// what generated code never has (literals, SVE, memory copies).
pub(crate) fn address(word: u32, register: impl Fn(usize) -> u64) -> Option<u64> {
    let bits = |low: u32, count: u32| word >> low & ((1 << count) - 1);
    let signed = |low: u32, count: u32| (((word << (32 - low - count)) as i32) >> (32 - count)) as i64;
    let base = register(bits(5, 5) as usize);
    let vector = bits(26, 1) == 1;
    // log2 of the bytes of a single register.
    let scale = if vector { bits(30, 2) | bits(23, 1) << 2 } else { bits(30, 2) };
    let offset = match (bits(27, 3), bits(24, 2)) {
        // Ordered and exclusive, and the vector structures: no offset.
        (0b001, 0b00) if !vector => 0,
        (0b001, 0b00 | 0b01) if vector => 0,
        // LDAPUR, STLUR.
        (0b011, 0b01) if !vector && bits(21, 1) == 0 => signed(12, 9),
        // Pairs; behind the access if 23..25 are 01.
        (0b101, 0b00 | 0b01) => {
            let scale = if vector { 2 + bits(30, 2) } else { 2 + bits(31, 1) };
            if bits(23, 2) == 0b01 { 0 } else { signed(15, 7) << scale }
        }
        (0b111, 0b01) => i64::from(bits(10, 12)) << scale,
        (0b111, 0b00) => match (bits(21, 1), bits(10, 2)) {
            (0, 0b01) => 0, // behind the access
            (0, _) => signed(12, 9),
            (1, 0b10) => {
                let index = register(bits(16, 5) as usize);
                let index = match bits(13, 3) {
                    0b010 => u64::from(index as u32),
                    0b110 => index as i32 as i64 as u64,
                    _ => index,
                };
                (index << if bits(12, 1) == 1 { scale } else { 0 }) as i64
            }
            (1, 0b00) if !vector => 0, // atomic
            _ => return None,
        },
        _ => return None,
    };
    Some(base.wrapping_add_signed(offset))
}

/// A loop of exclusive accesses as Cranelift makes it, from LDAXR to CBNZ. It is carried out as a whole: what its store does at an
/// address that its load could not reserve is up to the implementation, and failing forever is one choice.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Loop {
    pub(crate) op: LoopOp,
    /// Register of the second operand, or of the expected value.
    pub(crate) operand: usize,
    /// Register of the value that is stored.
    pub(crate) source: usize,
    /// Words from LDAXR to what follows the loop.
    pub(crate) words: u64,
}

/// What the loop stores.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum LoopOp {
    Fetch(Fetch),
    /// `source`, if the old value is `operand`; else it stores nothing.
    CompareSwap,
}

/// Most words of a [`Loop`].
pub(crate) const LOOP_WORDS: usize = 5;

/// Decodes the loop that begins with the LDAXR `words[0]`.
pub(crate) fn decode_loop(words: &[u32; LOOP_WORDS]) -> Option<Loop> {
    let old = decode(words[0]).filter(|i| i.op == Ordered::LoadExclusive)?.rt as u32;
    let store = |at: usize| (words[at] & 0x3fe0_7c00 == 0x0800_7c00).then(|| (words[at] & 31) as usize);
    let closes = |at: usize| words[at] & 0x7f00_0000 == 0x3500_0000;
    let (from_old, operand) = (words[1] >> 5 & 31 == old, (words[1] >> 16 & 31) as usize);
    if let Some(source) = store(1).filter(|_| closes(2)) {
        return Some(Loop { op: LoopOp::Fetch(Fetch::Swap), operand: source, source, words: 3 });
    }
    // SUBS XZR, old, operand, shifted by nothing or extended; then B.NE.
    if words[1] & 0x7fc0_001f == 0x6b00_001f || words[1] & 0x7fe0_001f == 0x6b20_001f {
        let source = store(3).filter(|_| from_old && closes(4) && words[2] & 0xff00_001f == 0x5400_0001)?;
        return Some(Loop { op: LoopOp::CompareSwap, operand, source, words: 5 });
    }
    // Logical and arithmetic of two registers, shifted by nothing (C4.1.96).
    let op = match words[1] & 0x7fe0_fc00 {
        0x0b00_0000 => Fetch::Add,
        0x4b00_0000 => Fetch::Sub,
        0x0a00_0000 => Fetch::And,
        0x2a00_0000 => Fetch::Set,
        0x4a00_0000 => Fetch::Xor,
        _ => return None,
    };
    let source = store(2).filter(|&source| from_old && closes(3) && source as u32 == words[1] & 31)?;
    Some(Loop { op: LoopOp::Fetch(op), operand, source, words: 4 })
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
            (0x8803_fc41, None),                                                // stlxr w3, w1, [x2]
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
    fn addresses_are_those_of_the_assembler() {
        // x1 to x30 hold 0x1000 times their number, but for x9 and x10: what an index is made of.
        let register = |n: usize| match n {
            9 => 0xffff_ffff_ffff_fff8,
            10 => 0x1_8000_0000,
            31 => 0x1f_0000,
            n => 0x1000 * n as u64,
        };
        #[rustfmt::skip]
        let cases = [
            (0xf940_0041, Some(0x2000)),                // ldr x1, [x2]
            (0xf940_0441, Some(0x2008)),                // ldr x1, [x2, #8]
            (0x3940_0441, Some(0x2001)),                // ldrb w1, [x2, #1]
            (0x7980_0441, Some(0x2002)),                // ldrsh x1, [x2, #2]
            (0xb900_07e1, Some(0x1f_0004)),             // str w1, [sp, #4]
            (0xf85f_8041, Some(0x1ff8)),                // ldur x1, [x2, #-8]
            (0xf840_8441, Some(0x2000)),                // ldr x1, [x2], #8
            (0xf840_8c41, Some(0x2008)),                // ldr x1, [x2, #8]!
            (0xf869_6841, Some(0x1ff8)),                // ldr x1, [x2, x9]
            (0xf869_7841, Some(0x1fc0)),                // ldr x1, [x2, x9, lsl #3]
            (0xb86a_4841, Some(0x8000_2000)),           // ldr w1, [x2, w10, uxtw]
            (0xb86a_d841, Some(0xffff_fffe_0000_2000)),  // ldr w1, [x2, w10, sxtw #2]
            (0x3dc0_0441, Some(0x2010)),                // ldr q1, [x2, #16]
            (0xfd40_0441, Some(0x2008)),                // ldr d1, [x2, #8]
            (0x3ce9_7841, Some(0x1f80)),                // ldr q1, [x2, x9, lsl #4]
            (0x3c9f_0041, Some(0x1ff0)),                // stur q1, [x2, #-16]
            (0xa940_8041, Some(0x2008)),                // ldp x1, x0, [x2, #8]
            (0x6940_8041, Some(0x2004)),                // ldpsw x1, x0, [x2, #4]
            (0xad7f_8041, Some(0x1ff0)),                // ldp q1, q0, [x2, #-16]
            (0xa8c1_0041, Some(0x2000)),                // ldp x1, x0, [x2], #16
            (0xc8df_fc41, Some(0x2000)),                // ldar x1, [x2]
            (0x990f_f041, Some(0x20ff)),                // stlur w1, [x2, #255]
            (0xc8e3_fc41, Some(0x2000)),                // casal x3, x1, [x2]
            (0xf8e3_2041, Some(0x2000)),                // ldeoral x3, x1, [x2]
            (0x4c40_7041, Some(0x2000)),                // ld1 {v1.16b}, [x2]
            (0x0d40_8041, Some(0x2000)),                // ld1 {v1.s}[0], [x2]
            (0x5800_0041, None),                        // ldr x1, pc+8
            (0x8b01_0041, None),                        // add x1, x2, x1
        ];
        for (word, expected) in cases {
            assert_eq!(address(word, register), expected, "{word:#x}");
        }
    }

    #[test]
    fn decodes_loops() {
        let fetch = |op, words| Some(Loop { op: LoopOp::Fetch(op), operand: 26, source: 28, words });
        let cas = Some(Loop { op: LoopOp::CompareSwap, operand: 26, source: 28, words: 5 });
        #[rustfmt::skip]
        let cases = [
            // ldaxr; add w28, w27, w26; stlxr w24, w28, [x25]; cbnz x24
            ([0x885f_ff3b, 0x0b1a_037c, 0x8818_ff3c, 0xb5ff_ffb8, 0], fetch(Fetch::Add, 4)),
            ([0xc85f_ff3b, 0x8a1a_037c, 0xc818_ff3c, 0xb5ff_ffb8, 0], fetch(Fetch::And, 4)),
            ([0xc85f_ff3b, 0xcb1a_037c, 0xc818_ff3c, 0xb5ff_ffb8, 0], fetch(Fetch::Sub, 4)),
            ([0xc85f_ff3b, 0xaa1a_037c, 0xc818_ff3c, 0xb5ff_ffb8, 0], fetch(Fetch::Set, 4)),
            ([0xc85f_ff3b, 0xca1a_037c, 0xc818_ff3c, 0xb5ff_ffb8, 0], fetch(Fetch::Xor, 4)),
            // ldaxr; stlxr w24, x26, [x25]; cbnz x24
            ([0xc85f_ff3b, 0xc818_ff3a, 0xb5ff_ffd8, 0, 0],
                Some(Loop { op: LoopOp::Fetch(Fetch::Swap), operand: 26, source: 26, words: 3 })),
            // ldaxrh; cmp x27, w26, uxth; b.ne; stlxrh; cbnz
            ([0x485f_ff3b, 0xeb3a_237f, 0x5400_0061, 0x4818_ff3c, 0xb5ff_ff98], cas),
            // ldaxr; cmp x27, x26; b.ne; stlxr; cbnz
            ([0xc85f_ff3b, 0xeb1a_037f, 0x5400_0061, 0xc818_ff3c, 0xb5ff_ff98], cas),
            // No loop: the store's value comes from elsewhere.
            ([0xc85f_ff3b, 0xcb1a_037c, 0xc818_ff3d, 0xb5ff_ffb8, 0], None),
        ];
        for (words, expected) in cases {
            assert_eq!(decode_loop(&words), expected, "{words:#x?}");
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
