//! Guest registers as `get` and `put` name them.

use crate::types::Type;

/// A guest register. General registers in the encoding order of the SDM (vol. 2 table 3-1).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
#[repr(transparent)]
pub struct Reg(u8);

#[allow(missing_docs)]
impl Reg {
    pub const RAX: Reg = Reg(0);
    pub const RCX: Reg = Reg(1);
    pub const RDX: Reg = Reg(2);
    pub const RBX: Reg = Reg(3);
    pub const RSP: Reg = Reg(4);
    pub const RBP: Reg = Reg(5);
    pub const RSI: Reg = Reg(6);
    pub const RDI: Reg = Reg(7);
    pub const R8: Reg = Reg(8);
    pub const R9: Reg = Reg(9);
    pub const R10: Reg = Reg(10);
    pub const R11: Reg = Reg(11);
    pub const R12: Reg = Reg(12);
    pub const R13: Reg = Reg(13);
    pub const R14: Reg = Reg(14);
    pub const R15: Reg = Reg(15);
    pub const XMM0: Reg = Reg(16);
    pub const YMMH0: Reg = Reg(32);
    pub const CF: Reg = Reg(48);
    pub const PF: Reg = Reg(49);
    pub const AF: Reg = Reg(50);
    pub const ZF: Reg = Reg(51);
    pub const SF: Reg = Reg(52);
    pub const OF: Reg = Reg(53);
    pub const DF: Reg = Reg(54);
    /// The bits of RFLAGS that have no register of their own (TF, AC, ID...), in place.
    pub const FLAGS_REST: Reg = Reg(55);
    pub const FS_BASE: Reg = Reg(56);
    pub const GS_BASE: Reg = Reg(57);
    pub const MXCSR: Reg = Reg(58);
    /// Deferred status flags: what computed them, 0 if they are in their own registers (`ir/src/deferred.rs`).
    pub const FLAGS_KIND: Reg = Reg(59);
    /// First operand, or the result, of what computed the deferred flags.
    pub const FLAGS_A: Reg = Reg(60);
    /// Second operand.
    pub const FLAGS_B: Reg = Reg(61);
    /// The last x87 instruction that is no control instruction (`ir/src/helper/x87_pointers.rs`).
    pub const X87_CODE: Reg = Reg(62);
    /// The memory operand of the last one that had one.
    pub const X87_DATA: Reg = Reg(63);

    /// Number of registers: `index` is below it.
    pub const COUNT: usize = 64;
    /// The six status flags, in the order CF PF AF ZF SF OF.
    pub const STATUS: [Reg; 6] = [Reg::CF, Reg::PF, Reg::AF, Reg::ZF, Reg::SF, Reg::OF];
    /// Deferred flags.
    pub const DEFERRED: [Reg; 3] = [Reg::FLAGS_KIND, Reg::FLAGS_A, Reg::FLAGS_B];
}

/// What kind of register a [`Reg`] is, with its number within the kind.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RegKind {
    /// 64-bit general register 0..16.
    Gpr(usize),
    /// Low 128 bits of vector register 0..16.
    Xmm(usize),
    /// Bits 128..256 of vector register 0..16.
    YmmHi(usize),
    /// One-bit flag: index into `CpuState::flags`.
    Flag(usize),
    /// `FLAGS_REST`, `FS_BASE`, `GS_BASE`, `MXCSR`, deferred flags, or x87 pointers.
    Special,
}

const GPR_NAMES: [&str; 16] =
    ["rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15"];
const XMM_NAMES: [&str; 16] = [
    "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", "xmm13",
    "xmm14", "xmm15",
];
const YMMH_NAMES: [&str; 16] = [
    "ymmh0", "ymmh1", "ymmh2", "ymmh3", "ymmh4", "ymmh5", "ymmh6", "ymmh7", "ymmh8", "ymmh9", "ymmh10", "ymmh11",
    "ymmh12", "ymmh13", "ymmh14", "ymmh15",
];
const REST_NAMES: [&str; 16] = [
    "cf",
    "pf",
    "af",
    "zf",
    "sf",
    "of",
    "df",
    "flags_rest",
    "fsbase",
    "gsbase",
    "mxcsr",
    "flags_kind",
    "flags_a",
    "flags_b",
    "x87_code",
    "x87_data",
];

impl Reg {
    /// General register `n`, 0..16.
    #[inline]
    pub fn gpr(n: usize) -> Reg {
        assert!(n < 16);
        Reg(n as u8)
    }

    /// Low half of vector register `n`, 0..16.
    #[inline]
    pub fn xmm(n: usize) -> Reg {
        assert!(n < 16);
        Reg(Self::XMM0.0 + n as u8)
    }

    /// High half of vector register `n`, 0..16.
    #[inline]
    pub fn ymmh(n: usize) -> Reg {
        assert!(n < 16);
        Reg(Self::YMMH0.0 + n as u8)
    }

    /// The register with this [`Reg::index`].
    #[inline]
    pub fn from_index(i: usize) -> Option<Reg> {
        (i < Self::COUNT).then_some(Reg(i as u8))
    }

    /// Every register.
    pub fn all() -> impl Iterator<Item = Reg> {
        (0..Self::COUNT as u8).map(Reg)
    }

    /// 0..COUNT, dense.
    #[inline]
    pub fn index(self) -> usize {
        self.0 as usize
    }

    /// The same as a constant expression.
    pub const fn number(self) -> u32 {
        self.0 as u32
    }

    /// Kind and number within it.
    #[inline]
    pub fn kind(self) -> RegKind {
        match self.0 {
            n @ 0..16 => RegKind::Gpr(n as usize),
            n @ 16..32 => RegKind::Xmm(n as usize - 16),
            n @ 32..48 => RegKind::YmmHi(n as usize - 32),
            n @ 48..55 => RegKind::Flag(n as usize - 48),
            _ => RegKind::Special,
        }
    }

    /// The type of the whole register.
    #[inline]
    pub fn ty(self) -> Type {
        match self.kind() {
            RegKind::Gpr(_) => Type::I64,
            RegKind::Xmm(_) | RegKind::YmmHi(_) => Type::V128,
            RegKind::Flag(_) => Type::I1,
            RegKind::Special if [Reg::MXCSR, Reg::FLAGS_REST, Reg::FLAGS_KIND].contains(&self) => Type::I32,
            RegKind::Special => Type::I64,
        }
    }

    /// Text form: the assembler's name in lower case.
    pub fn name(self) -> &'static str {
        match self.kind() {
            RegKind::Gpr(n) => GPR_NAMES[n],
            RegKind::Xmm(n) => XMM_NAMES[n],
            RegKind::YmmHi(n) => YMMH_NAMES[n],
            _ => REST_NAMES[self.index() - 48],
        }
    }
}

impl std::fmt::Display for Reg {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}
