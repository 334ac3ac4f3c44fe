//! AArch64 instruction words (Arm ARM C4, C6, C7): one row an instruction, and the few shapes they come in.
//!
//! Rows give the 32-bit form of integer instructions; [`Size::X`] sets bit 31. Vector rows give the 128-bit form (Q = 1). The golden
//! listings of `tests/lower/tier0` show what binutils make of the words.

/// A general register, 0..31; 31 is the zero register or SP, as the instruction says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct X(pub(crate) u8);

/// A vector register, 0..32.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct V(pub(crate) u8);

/// The zero register.
pub(crate) const ZR: X = X(31);
/// The stack pointer, in the instructions where 31 means it.
pub(crate) const SP: X = X(31);

/// Operand size of integer instructions: 32 or 64 bits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Size {
    W,
    X,
}

impl Size {
    /// Bit 31.
    fn sf(self) -> u32 {
        (self as u32) << 31
    }

    /// Bits of an operand.
    pub(crate) fn bits(self) -> u32 {
        32 << self as u32
    }
}

/// A condition code (Arm ARM C1.2.4).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
#[allow(dead_code, reason = "the list is the manual's")]
pub(crate) enum Cond {
    Eq,
    Ne,
    Cs,
    Cc,
    Mi,
    Pl,
    Vs,
    Vc,
    Hi,
    Ls,
    Ge,
    Lt,
    Gt,
    Le,
}

impl Cond {
    /// The opposite.
    pub(crate) fn not(self) -> Cond {
        const ALL: [Cond; 14] = {
            use Cond::*;
            [Eq, Ne, Cs, Cc, Mi, Pl, Vs, Vc, Hi, Ls, Ge, Lt, Gt, Le]
        };
        ALL[self as usize ^ 1]
    }
}

macro_rules! rows {
    ($ty:ident: $($name:ident = $bits:literal;)*) => {
        $( pub(crate) const $name: $ty = $ty($bits); )*
    };
}

/// `op rd, rn, rm`, the operand rm perhaps shifted.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Op3(pub(crate) u32);
/// `op rd, rn, #imm12`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct OpImm(pub(crate) u32);
/// `op rd, rn, #bitmask`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct OpMask(pub(crate) u32);
/// `op rd, rn`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Op2(pub(crate) u32);
/// `op rd, rn, rm, ra`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Op4(pub(crate) u32);
/// `op rd, rn, rm, cond`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct OpCond(pub(crate) u32);
/// `op rd, rn, #immr, #imms`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct OpField(pub(crate) u32);
/// Scalar floating point, `op rd, rn[, rm]`; bit 22 is set for `f64`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fp(pub(crate) u32);
/// Vector, `op vd, vn[, vm]`; the lane size goes into bits 22, 23 where the instruction has one.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Vec3(pub(crate) u32);

rows! { Op3:
    ADD   = 0x0b00_0000;    ADDS = 0x2b00_0000;
    SUB   = 0x4b00_0000;    SUBS = 0x6b00_0000;
    AND   = 0x0a00_0000;    ANDS = 0x6a00_0000;
    ORR   = 0x2a00_0000;    ORN  = 0x2a20_0000;
    EOR   = 0x4a00_0000;
    BIC   = 0x0a20_0000;
    ADCS  = 0x3a00_0000;    SBCS = 0x7a00_0000;
    UDIV  = 0x1ac0_0800;    SDIV = 0x1ac0_0c00;
    LSLV  = 0x1ac0_2000;    LSRV = 0x1ac0_2400;
    ASRV  = 0x1ac0_2800;    RORV = 0x1ac0_2c00;
    SMULH = 0x1b40_7c00;    UMULH = 0x1bc0_7c00;
}

rows! { OpImm:
    ADD_IMM = 0x1100_0000;  ADDS_IMM = 0x3100_0000;
    SUB_IMM = 0x5100_0000;  SUBS_IMM = 0x7100_0000;
}

rows! { OpMask:
    AND_MASK = 0x1200_0000; ANDS_MASK = 0x7200_0000;
    ORR_MASK = 0x3200_0000; EOR_MASK = 0x5200_0000;
}

rows! { Op2:
    RBIT  = 0x5ac0_0000;    CLZ = 0x5ac0_1000;
    REV16 = 0x5ac0_0400;    REV32 = 0x5ac0_0800;
    REV64 = 0x5ac0_0c00;
}

rows! { Op4:
    MADD   = 0x1b00_0000;   MSUB = 0x1b00_8000;
    UMADDL = 0x1ba0_0000;   SMADDL = 0x1b20_0000;
}

rows! { OpCond:
    CSEL = 0x1a80_0000;     CSINC = 0x1a80_0400;
}

rows! { OpField:
    SBFM = 0x1300_0000;     BFM = 0x3300_0000;
    UBFM = 0x5300_0000;
}

rows! { Fp:
    FADD   = 0x1e20_2800;   FSUB = 0x1e20_3800;
    FMUL   = 0x1e20_0800;   FDIV = 0x1e20_1800;
    FSQRT  = 0x1e21_c000;   FMOV = 0x1e20_4000;
    FRINTN = 0x1e24_4000;   FRINTP = 0x1e24_c000;
    FRINTM = 0x1e25_4000;   FRINTZ = 0x1e25_c000;
    FRINTX = 0x1e27_4000;   FRINTI = 0x1e27_c000;
    FCVT_TO_F64 = 0x1e22_c000;
}

rows! { Vec3:
    VADD   = 0x4e20_8400;   VSUB = 0x6e20_8400;   VMUL = 0x4e20_9c00;   VNEG = 0x6e20_b800;
    CMEQ   = 0x6e20_8c00;   CMGT = 0x4e20_3400;   CMGE = 0x4e20_3c00;   CMHI = 0x6e20_3400;   CMHS = 0x6e20_3c00;
    SQADD  = 0x4e20_0c00;   UQADD = 0x6e20_0c00;  SQSUB = 0x4e20_2c00;  UQSUB = 0x6e20_2c00;
    SMAX   = 0x4e20_6400;   SMIN = 0x4e20_6c00;   UMAX = 0x6e20_6400;   UMIN = 0x6e20_6c00;
    URHADD = 0x6e20_1400;   UABD = 0x6e20_7400;
    VAND   = 0x4e20_1c00;   VBIC = 0x4e60_1c00;   VORR = 0x4ea0_1c00;   VEOR = 0x6e20_1c00;
    BSL    = 0x6e60_1c00;   BIF = 0x6ee0_1c00;    VNOT = 0x6e20_5800;   CNT = 0x4e20_5800;
    SSHL   = 0x4e20_4400;   USHL = 0x6e20_4400;
    SQXTN  = 0x0e21_4800;   SQXTN2 = 0x4e21_4800; SQXTUN = 0x2e21_2800; SQXTUN2 = 0x6e21_2800; XTN = 0x0e21_2800;
    SMULL  = 0x0e20_c000;   SMULL2 = 0x4e20_c000; UMULL = 0x2e20_c000;  UMULL2 = 0x6e20_c000;
    ADDP   = 0x4e20_bc00;   UADDLP = 0x6e20_2800; ADDV = 0x4e31_b800;
    UZP1   = 0x4e00_1800;   UZP2 = 0x4e00_5800;   ZIP1 = 0x4e00_3800;   ZIP2 = 0x4e00_7800;
    TBL1   = 0x4e00_0000;   TBL2 = 0x4e00_2000;
    VFADD  = 0x4e20_d400;   VFSUB = 0x4ea0_d400;  VFMUL = 0x6e20_dc00;  VFDIV = 0x6e20_fc00;
    VFSQRT = 0x6ea1_f800;   VFNEG = 0x6ea0_f800;  VFMLA = 0x4e20_cc00;
    FCMEQ  = 0x4e20_e400;   FCMGE = 0x6e20_e400;  FCMGT = 0x6ea0_e400;
    VFRINTN = 0x4e21_8800;  VFRINTP = 0x4ea1_8800; VFRINTM = 0x4e21_9800; VFRINTZ = 0x4ea1_9800; VFRINTX = 0x6e21_9800;
    VFCVTZS = 0x4ea1_b800;  VSCVTF = 0x4e21_d800;
    FCVTL  = 0x0e61_7800;   FCVTN = 0x0e61_6800;
    SQRDMULH = 0x6e20_b400; VREV64 = 0x4e20_0800;
    AESE   = 0x4e28_4800;   AESD = 0x4e28_5800;   AESMC = 0x4e28_6800;  AESIMC = 0x4e28_7800;
    PMULL  = 0x0ee0_e000;   PMULL2 = 0x4ee0_e000;
    SHA256H = 0x5e00_4000;  SHA256H2 = 0x5e00_5000; SHA256SU0 = 0x5e28_2800; SHA256SU1 = 0x5e00_6000;
    FMAXV  = 0x6e30_f800;   FMAXP_PAIR = 0x7e70_f800;
}

/// How a load or store names memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum At {
    /// `[base, #disp]`, in the scaled or unscaled form.
    Disp(X, i32),
    /// `[base, index, lsl #(scale)]`, scale 0 or the access's own.
    Index(X, X, bool),
}

/// What a load or store moves: bits 30, 31 and 26, log2 of its bytes, and the `opc` field for loads.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Access {
    bits: u32,
    pub(crate) log2: u8,
}

#[rustfmt::skip]
impl Access {
    pub(crate) const STRB:  Access = Access { bits: 0x0000_0000, log2: 0 };
    pub(crate) const LDRB:  Access = Access { bits: 0x0040_0000, log2: 0 };
    pub(crate) const LDRSB_X: Access = Access { bits: 0x0080_0000, log2: 0 };
    pub(crate) const LDRSB: Access = Access { bits: 0x00c0_0000, log2: 0 };
    pub(crate) const STRH:  Access = Access { bits: 0x4000_0000, log2: 1 };
    pub(crate) const LDRH:  Access = Access { bits: 0x4040_0000, log2: 1 };
    pub(crate) const LDRSH_X: Access = Access { bits: 0x4080_0000, log2: 1 };
    pub(crate) const LDRSH: Access = Access { bits: 0x40c0_0000, log2: 1 };
    pub(crate) const STRW:  Access = Access { bits: 0x8000_0000, log2: 2 };
    pub(crate) const LDRW:  Access = Access { bits: 0x8040_0000, log2: 2 };
    pub(crate) const LDRSW: Access = Access { bits: 0x8080_0000, log2: 2 };
    pub(crate) const STRX:  Access = Access { bits: 0xc000_0000, log2: 3 };
    pub(crate) const LDRX:  Access = Access { bits: 0xc040_0000, log2: 3 };
    pub(crate) const STRS:  Access = Access { bits: 0x8400_0000, log2: 2 };
    pub(crate) const LDRS:  Access = Access { bits: 0x8440_0000, log2: 2 };
    pub(crate) const STRD:  Access = Access { bits: 0xc400_0000, log2: 3 };
    pub(crate) const LDRD:  Access = Access { bits: 0xc440_0000, log2: 3 };
    pub(crate) const STRQ:  Access = Access { bits: 0x0480_0000, log2: 4 };
    pub(crate) const LDRQ:  Access = Access { bits: 0x04c0_0000, log2: 4 };
}

impl Access {
    /// Whether `[base, #disp]` has a form.
    pub(crate) fn reaches(self, disp: i32) -> bool {
        (-256..256).contains(&disp) || disp >= 0 && disp & ((1 << self.log2) - 1) == 0 && disp >> self.log2 < 4096
    }
}

/// The word of a load or store of register `rt` (general or vector).
pub(crate) fn access(what: Access, rt: u8, at: At) -> u32 {
    let place = match at {
        At::Disp(base, disp) if (-256..0).contains(&disp) || disp & ((1 << what.log2) - 1) != 0 => {
            0x3800_0000 | (disp as u32 & 0x1ff) << 12 | (base.0 as u32) << 5
        }
        At::Disp(base, disp) => 0x3900_0000 | ((disp as u32) >> what.log2) << 10 | (base.0 as u32) << 5,
        At::Index(base, index, scaled) => {
            0x3820_6800 | (scaled as u32) << 12 | (index.0 as u32) << 16 | (base.0 as u32) << 5
        }
    };
    what.bits | place | rt as u32
}

/// The pre-indexed form of a load or store at `[base, #disp]`.
pub(crate) const PRE_INDEX: u32 = 0xc00;
/// The post-indexed form.
pub(crate) const POST_INDEX: u32 = 0x400;

/// Registers of a three-operand instruction.
fn d_n_m(rd: u8, rn: u8, rm: u8) -> u32 {
    rd as u32 | (rn as u32) << 5 | (rm as u32) << 16
}

pub(crate) fn op3(op: Op3, size: Size, rd: X, rn: X, rm: X) -> u32 {
    op.0 | size.sf() | d_n_m(rd.0, rn.0, rm.0)
}

/// With rm shifted left by `amount`.
pub(crate) fn op3_lsl(op: Op3, size: Size, rd: X, rn: X, rm: X, amount: u32) -> u32 {
    op3(op, size, rd, rn, rm) | amount << 10
}

/// With rm shifted right by `amount`, zeros in.
pub(crate) fn op3_lsr(op: Op3, size: Size, rd: X, rn: X, rm: X, amount: u32) -> u32 {
    op3(op, size, rd, rn, rm) | 1 << 22 | amount << 10
}

/// With rm shifted right by `amount`, sign bits in.
pub(crate) fn op3_asr(op: Op3, size: Size, rd: X, rn: X, rm: X, amount: u32) -> u32 {
    op3(op, size, rd, rn, rm) | 2 << 22 | amount << 10
}

/// How an operand of an addition, subtraction or comparison is widened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Widen {
    Uxtb = 0,
    Uxth = 1,
    Uxtw = 2,
    Sxtb = 4,
    Sxth = 5,
    Sxtw = 6,
}

/// `add`, `sub` and kin with rm widened.
pub(crate) fn op3_widen(op: Op3, size: Size, rd: X, rn: X, rm: X, widen: Widen) -> u32 {
    op3(op, size, rd, rn, rm) | 1 << 21 | (widen as u32) << 13
}

/// `add`, `sub` and kin with an immediate of 12 bits, perhaps shifted by 12; `None` if it is no such number.
pub(crate) fn op_imm(op: OpImm, size: Size, rd: X, rn: X, imm: u64) -> Option<u32> {
    let field = match imm {
        0..0x1000 => (imm as u32) << 10,
        _ if imm & 0xfff == 0 && imm < 1 << 24 => 1 << 22 | ((imm >> 12) as u32) << 10,
        _ => return None,
    };
    Some(op.0 | size.sf() | field | d_n_m(rd.0, rn.0, 0))
}

/// `and`, `orr`, `eor` with a bitmask immediate; `None` if `imm` is none.
pub(crate) fn op_mask(op: OpMask, size: Size, rd: X, rn: X, imm: u64) -> Option<u32> {
    Some(op.0 | size.sf() | bitmask(size, imm)? | d_n_m(rd.0, rn.0, 0))
}

/// The N, immr and imms fields of a bitmask immediate (Arm ARM, `DecodeBitMasks`): a rotated run of ones, repeated in elements
/// of 2 to 64 bits.
fn bitmask(size: Size, imm: u64) -> Option<u32> {
    let imm = if size == Size::W { imm & 0xffff_ffff | imm << 32 } else { imm };
    if imm == 0 || imm == u64::MAX {
        return None;
    }
    let mut width = 64;
    while width > 2 && imm.rotate_right(width / 2) == imm {
        width /= 2;
    }
    let mask = u64::MAX >> (64 - width);
    let element = imm & mask;
    // Rotate so that the run of ones starts at bit 0.
    let low_ones = (!element).trailing_zeros();
    let start = if element & 1 != 0 && low_ones < width {
        let high_ones = (!(element << (64 - width))).leading_zeros();
        (width - high_ones) % width
    } else {
        element.trailing_zeros()
    };
    let run = ((element >> start) | element << ((width - start) % 64) & mask) & mask;
    if run & run.wrapping_add(1) != 0 {
        return None;
    }
    let ones = run.trailing_ones();
    let immr = (width - start) % width;
    let imms = (!(width * 2 - 1) & 0x3f) | (ones - 1);
    let n = u32::from(width == 64);
    Some(n << 22 | immr << 16 | (imms & 0x3f) << 10)
}

pub(crate) fn op2(op: Op2, size: Size, rd: X, rn: X) -> u32 {
    op.0 | size.sf() | d_n_m(rd.0, rn.0, 0)
}

pub(crate) fn op4(op: Op4, size: Size, rd: X, rn: X, rm: X, ra: X) -> u32 {
    op.0 | size.sf() | d_n_m(rd.0, rn.0, rm.0) | (ra.0 as u32) << 10
}

pub(crate) fn op_cond(op: OpCond, size: Size, rd: X, rn: X, rm: X, cond: Cond) -> u32 {
    op.0 | size.sf() | d_n_m(rd.0, rn.0, rm.0) | (cond as u32) << 12
}

pub(crate) fn op_field(op: OpField, size: Size, rd: X, rn: X, immr: u32, imms: u32) -> u32 {
    op.0 | size.sf() | (size as u32) << 22 | immr << 16 | imms << 10 | d_n_m(rd.0, rn.0, 0)
}

/// `extr rd, rn, rm, #lsb`: the low half of rn:rm shifted right.
pub(crate) fn extr(size: Size, rd: X, rn: X, rm: X, lsb: u32) -> u32 {
    0x1380_0000 | size.sf() | (size as u32) << 22 | lsb << 10 | d_n_m(rd.0, rn.0, rm.0)
}

/// `ccmp rn, #imm5, #nzcv, cond`.
pub(crate) fn ccmp_imm(size: Size, rn: X, imm: u32, nzcv: u32, cond: Cond) -> u32 {
    0x7a40_0800 | size.sf() | imm << 16 | (cond as u32) << 12 | (rn.0 as u32) << 5 | nzcv
}

/// `ccmp rn, rm, #nzcv, cond`.
pub(crate) fn ccmp(size: Size, rn: X, rm: X, nzcv: u32, cond: Cond) -> u32 {
    0x7a40_0000 | size.sf() | (cond as u32) << 12 | nzcv | d_n_m(0, rn.0, rm.0)
}

/// `movz`, `movn`, `movk`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mov {
    N = 0x1280_0000,
    Z = 0x5280_0000,
    K = 0x7280_0000,
}

pub(crate) fn mov_imm(op: Mov, size: Size, rd: X, imm: u16, half: u32) -> u32 {
    op as u32 | size.sf() | half << 21 | (imm as u32) << 5 | rd.0 as u32
}

/// The 16 bits that a MOVZ or MOVK moves.
pub(crate) fn mov_half(word: u32) -> u32 {
    word >> 5 & 0xffff
}

/// The same instruction with others.
pub(crate) fn with_mov_half(word: u32, half: u32) -> u32 {
    word & !(0xffff << 5) | half << 5
}

pub(crate) fn fp(op: Fp, double: bool, rd: V, rn: V, rm: V) -> u32 {
    op.0 | (double as u32) << 22 | d_n_m(rd.0, rn.0, rm.0)
}

/// One-operand instructions.
pub(crate) fn fp1(op: Fp, double: bool, rd: V, rn: V) -> u32 {
    op.0 | (double as u32) << 22 | d_n_m(rd.0, rn.0, 0)
}

/// `fcvt sd, dn`.
pub(crate) fn fcvt_to_f32(rd: V, rn: V) -> u32 {
    0x1e62_4000 | d_n_m(rd.0, rn.0, 0)
}

/// `fmadd` (0), `fmsub` (0x8000), `fnmadd` (0x20_0000), `fnmsub` (0x20_8000).
pub(crate) fn fp4(which: u32, double: bool, rd: V, rn: V, rm: V, ra: V) -> u32 {
    0x1f00_0000 | which | (double as u32) << 22 | d_n_m(rd.0, rn.0, rm.0) | (ra.0 as u32) << 10
}

pub(crate) fn fcmp(double: bool, rn: V, rm: V) -> u32 {
    0x1e20_2000 | (double as u32) << 22 | d_n_m(0, rn.0, rm.0)
}

/// `fcmpe`: any NaN is an invalid operation.
pub(crate) fn fcmpe(double: bool, rn: V, rm: V) -> u32 {
    fcmp(double, rn, rm) | 0x10
}

/// `fccmp`: where `cond` holds a comparison, else these flags.
pub(crate) fn fccmp(double: bool, rn: V, rm: V, nzcv: u8, cond: Cond) -> u32 {
    0x1e20_0400 | (double as u32) << 22 | (cond as u32) << 12 | d_n_m(nzcv, rn.0, rm.0)
}

pub(crate) fn fcsel(double: bool, rd: V, rn: V, rm: V, cond: Cond) -> u32 {
    0x1e20_0c00 | (double as u32) << 22 | (cond as u32) << 12 | d_n_m(rd.0, rn.0, rm.0)
}

/// `fmov` from a general register of this size.
pub(crate) fn fmov_from_x(size: Size, rd: V, rn: X) -> u32 {
    0x1e27_0000 | size.sf() | (size as u32) << 22 | d_n_m(rd.0, rn.0, 0)
}

/// `fmov` to a general register of this size.
pub(crate) fn fmov_to_x(size: Size, rd: X, rn: V) -> u32 {
    0x1e26_0000 | size.sf() | (size as u32) << 22 | d_n_m(rd.0, rn.0, 0)
}

/// `scvtf` from a general register.
pub(crate) fn scvtf(size: Size, double: bool, rd: V, rn: X) -> u32 {
    0x1e22_0000 | size.sf() | (double as u32) << 22 | d_n_m(rd.0, rn.0, 0)
}

/// `fcvtzs` to a general register.
pub(crate) fn fcvtzs(size: Size, double: bool, rd: X, rn: V) -> u32 {
    0x1e38_0000 | size.sf() | (double as u32) << 22 | d_n_m(rd.0, rn.0, 0)
}

/// Vector instruction whose lanes are `8 << log2` bits wide.
pub(crate) fn vec3(op: Vec3, log2: u32, rd: V, rn: V, rm: V) -> u32 {
    op.0 | log2 << 22 | d_n_m(rd.0, rn.0, rm.0)
}

/// One operand.
pub(crate) fn vec2(op: Vec3, log2: u32, rd: V, rn: V) -> u32 {
    op.0 | log2 << 22 | d_n_m(rd.0, rn.0, 0)
}

/// Bits 16..23 of shifts by immediates: element size and count.
pub(crate) enum VecShift {
    /// `shl`: count from 0.
    Left = 0x4f00_5400,
    /// `ushr`: count from 1 to the width.
    Unsigned = 0x6f00_0400,
    /// `sshr`.
    Signed = 0x4f00_0400,
}

pub(crate) fn vec_shift(op: VecShift, lane_bits: u32, rd: V, rn: V, count: u32) -> u32 {
    let left = matches!(op, VecShift::Left);
    let field = if left { lane_bits + count } else { 2 * lane_bits - count };
    op as u32 | field << 16 | d_n_m(rd.0, rn.0, 0)
}

/// `sshll` / `ushll` by 0: lanes of the low half widened to `2 * lane_bits`.
pub(crate) fn widen_low(signed: bool, lane_bits: u32, rd: V, rn: V) -> u32 {
    let op = if signed { 0x0f00_a400 } else { 0x2f00_a400 };
    op | lane_bits << 16 | d_n_m(rd.0, rn.0, 0)
}

/// `imm5` of lane instructions: the lane's size in its lowest one bit, its number above.
fn lane_field(log2: u32, lane: u32) -> u32 {
    (1 | lane << 1) << log2 << 16
}

/// `dup vd.T, vn.T[lane]`.
pub(crate) fn dup_lane(log2: u32, rd: V, rn: V, lane: u32) -> u32 {
    0x4e00_0400 | lane_field(log2, lane) | d_n_m(rd.0, rn.0, 0)
}

/// `mov bd/hd/sd/dd, vn.T[lane]`: a lane as a scalar, zeros above.
pub(crate) fn scalar_lane(log2: u32, rd: V, rn: V, lane: u32) -> u32 {
    0x5e00_0400 | lane_field(log2, lane) | d_n_m(rd.0, rn.0, 0)
}

/// `dup vd.T, xn`.
pub(crate) fn dup_x(log2: u32, rd: V, rn: X) -> u32 {
    0x4e00_0c00 | lane_field(log2, 0) | d_n_m(rd.0, rn.0, 0)
}

/// `mov vd.T[lane], xn`.
pub(crate) fn ins_x(log2: u32, rd: V, lane: u32, rn: X) -> u32 {
    0x4e00_1c00 | lane_field(log2, lane) | d_n_m(rd.0, rn.0, 0)
}

/// `mov vd.T[lane], vn.T[from]`.
pub(crate) fn ins_lane(log2: u32, rd: V, lane: u32, rn: V, from: u32) -> u32 {
    0x6e00_0400 | lane_field(log2, lane) | from << log2 << 11 | d_n_m(rd.0, rn.0, 0)
}

/// `umov xd, vn.T[lane]`, zero-extended.
pub(crate) fn umov(log2: u32, rd: X, rn: V, lane: u32) -> u32 {
    0x0e00_3c00 | u32::from(log2 == 3) << 30 | lane_field(log2, lane) | d_n_m(rd.0, rn.0, 0)
}

/// `ext vd.16b, vn.16b, vm.16b, #bytes`.
pub(crate) fn ext(rd: V, rn: V, rm: V, bytes: u32) -> u32 {
    0x6e00_0000 | bytes << 11 | d_n_m(rd.0, rn.0, rm.0)
}

/// `movi vd.16b, #byte`.
pub(crate) fn movi_bytes(rd: V, byte: u8) -> u32 {
    0x4f00_e400 | (byte as u32 >> 5) << 16 | (byte as u32 & 31) << 5 | rd.0 as u32
}

/// `b`, to a place `words` words away.
pub(crate) fn b(words: i32) -> u32 {
    0x1400_0000 | words as u32 & 0x03ff_ffff
}

pub(crate) fn b_cond(cond: Cond, words: i32) -> u32 {
    0x5400_0000 | (words as u32 & 0x7_ffff) << 5 | cond as u32
}

/// `cbz`, `cbnz`.
pub(crate) fn cb(nonzero: bool, size: Size, rt: X, words: i32) -> u32 {
    0x3400_0000 | size.sf() | (nonzero as u32) << 24 | (words as u32 & 0x7_ffff) << 5 | rt.0 as u32
}

/// A conditional branch, `cbz` or `tbz` that goes to the same place where the one given does not.
pub(crate) fn inverted(branch: u32) -> u32 {
    if branch & 0xff00_0010 == 0x5400_0000 { branch ^ 1 } else { branch ^ 1 << 24 }
}

/// `tbz`, `tbnz`.
pub(crate) fn tb(nonzero: bool, rt: X, bit: u32, words: i32) -> u32 {
    let bit = (bit >> 5) << 31 | (bit & 31) << 19;
    0x3600_0000 | (nonzero as u32) << 24 | bit | (words as u32 & 0x3fff) << 5 | rt.0 as u32
}

pub(crate) fn br(rn: X) -> u32 {
    0xd61f_0000 | (rn.0 as u32) << 5
}

pub(crate) fn blr(rn: X) -> u32 {
    0xd63f_0000 | (rn.0 as u32) << 5
}

/// `adrp rd, pages`.
pub(crate) fn adrp(rd: X, pages: i32) -> u32 {
    0x9000_0000 | (pages as u32 & 3) << 29 | (pages as u32 >> 2 & 0x7_ffff) << 5 | rd.0 as u32
}

/// `ldr xt, literal`.
pub(crate) fn ldr_literal(rt: X, words: i32) -> u32 {
    0x5800_0000 | (words as u32 & 0x7_ffff) << 5 | rt.0 as u32
}

/// `ldr qt, literal`.
pub(crate) fn ldr_literal_q(rt: V, words: i32) -> u32 {
    0x9c00_0000 | (words as u32 & 0x7_ffff) << 5 | rt.0 as u32
}

/// `ldr st, literal` or `ldr dt, literal`.
pub(crate) fn ldr_literal_fp(double: bool, rt: V, words: i32) -> u32 {
    0x1c00_0000 | (double as u32) << 30 | (words as u32 & 0x7_ffff) << 5 | rt.0 as u32
}

/// `ldp xt, xu, [xn]`.
pub(crate) fn ldp(rt: X, ru: X, rn: X) -> u32 {
    0xa940_0000 | (ru.0 as u32) << 10 | (rn.0 as u32) << 5 | rt.0 as u32
}

/// `stp qt, qu, [xn, #disp]`, if the displacement is in reach.
pub(crate) fn stp_q(rt: V, ru: V, rn: X, disp: i32) -> Option<u32> {
    let units = disp / 16;
    let fits = disp % 16 == 0 && (-64..64).contains(&units);
    let registers = u32::from(ru.0) << 10 | u32::from(rn.0) << 5 | u32::from(rt.0);
    fits.then_some(0xad00_0000 | (units as u32 & 0x7f) << 15 | registers)
}

/// `mrs xt, fpsr`.
pub(crate) fn mrs_fpsr(rt: X) -> u32 {
    0xd53b_4420 | u32::from(rt.0)
}

/// Ordered and atomic accesses at `[rn]`; log2 of the bytes goes into bits 30, 31.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ordered(u32);

rows! { Ordered:
    LDAR    = 0x08df_fc00;
    LDAPR   = 0x38bf_c000;
    STLR    = 0x089f_fc00;
    LDAXR   = 0x085f_fc00;
    STLXR   = 0x0800_fc00;
    LDADDAL = 0x38e0_0000;
    LDCLRAL = 0x38e0_1000;
    LDEORAL = 0x38e0_2000;
    LDSETAL = 0x38e0_3000;
    SWPAL   = 0x38e0_8000;
    CASAL   = 0x08e0_fc00;
}

/// `op rs, rt, [rn]`; instructions without rs have `STLR`'s or `LDAR`'s ones there already.
pub(crate) fn ordered(op: Ordered, log2: u32, rs: X, rt: X, rn: X) -> u32 {
    op.0 | log2 << 30 | d_n_m(rt.0, rn.0, rs.0)
}

/// `ldapur rt, [rn, #disp]`, zero-extending, or `stlur`; the displacement of 9 bits is signed.
pub(crate) fn ordered_at(load: bool, log2: u32, rt: X, rn: X, disp: i32) -> u32 {
    0x1900_0000 | log2 << 30 | (load as u32) << 22 | (disp as u32 & 0x1ff) << 12 | d_n_m(rt.0, rn.0, 0)
}

/// `ldaxp xt, xu, [xn]`.
pub(crate) fn ldaxp(rt: X, ru: X, rn: X) -> u32 {
    0xc87f_8000 | (ru.0 as u32) << 10 | (rn.0 as u32) << 5 | rt.0 as u32
}

/// `stlxp ws, xt, xu, [xn]`.
pub(crate) fn stlxp(rs: X, rt: X, ru: X, rn: X) -> u32 {
    0xc820_8000 | (rs.0 as u32) << 16 | (ru.0 as u32) << 10 | (rn.0 as u32) << 5 | rt.0 as u32
}

/// `dmb ish`: everything.
pub(crate) const DMB_ISH: u32 = 0xd503_3bbf;
/// `dmb ishld`: loads before it against everything behind it.
pub(crate) const DMB_ISHLD: u32 = 0xd503_39bf;
/// `dmb ishst`: stores before it against stores behind it.
pub(crate) const DMB_ISHST: u32 = 0xd503_3abf;
