//! Rows of SSE, AVX and BMI, and their operands: an opcode behind 0x0f, 0x0f 0x38 or 0x0f 0x3a with its mandatory prefix has at most one row for the
//! legacy encoding and VEX together (SDM vol. 2, 2.3 and appendix A).

use super::{B, R, R32, R64, Reader, Registers, memory};
use iced_x86::Code::{self, *};
use iced_x86::{Instruction, OpKind, Register};

/// How the operands are encoded. A VEX form has a first source more where the name says `Nds`.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Shape {
    /// `reg, rm`.
    Load,
    /// `rm, reg`.
    Store,
    /// `reg, [first source,] rm`.
    Nds,
    /// The same with an immediate byte.
    LoadImm,
    NdsImm,
    /// `Nds` and `Store`, of memory only.
    NdsMemory,
    StoreMemory,
    /// Moves of a scalar: `Load` from memory; between registers `Nds`, which is another code with VEX. `Store` to memory.
    LoadScalar,
    StoreScalar,
    /// `reg, rm` with an XMM register or memory for `rm`.
    Broadcast,
    /// `reg, [first source,] rm` with a general `rm`.
    FromGpr,
    FromGprNds,
    /// `rm, reg` with a general `rm`.
    StoreGpr,
    /// `reg, rm` with a general `reg`; of registers only.
    ToGpr,
    Mask,
    /// All general: `reg, first source, rm`; `reg, rm, first source`; `reg, rm, immediate`.
    GprNds,
    GprCount,
    GprImm,
}
use Shape::*;

/// An opcode with its mandatory prefix.
#[derive(Clone, Copy)]
struct Row {
    map: u8,
    prefix: u8,
    op: u8,
    shape: Shape,
    /// Its codes: legacy without and with REX.W, VEX with the first and the second vector length, or width where an operand is general.
    codes: [Code; 4],
}

const fn row(map: u8, prefix: u8, op: u8, shape: Shape, codes: [Code; 4]) -> Row {
    Row { map, prefix, op, shape, codes }
}

/// Mandatory prefixes by VEX's numbers (SDM vol. 2 table 2-6).
const NONE: u8 = 0;
const P66: u8 = 1;
const PF3: u8 = 2;
const PF2: u8 = 3;

#[rustfmt::skip]
static ROWS: [Row; 136] = [
    row(0x0f, NONE, 0x10, Load, [Movups_xmm_xmmm128, Movups_xmm_xmmm128, VEX_Vmovups_xmm_xmmm128, VEX_Vmovups_ymm_ymmm256]),
    row(0x0f, NONE, 0x11, Store, [Movups_xmmm128_xmm, Movups_xmmm128_xmm, VEX_Vmovups_xmmm128_xmm, VEX_Vmovups_ymmm256_ymm]),
    row(0x0f, P66, 0x10, Load, [Movupd_xmm_xmmm128, Movupd_xmm_xmmm128, VEX_Vmovupd_xmm_xmmm128, VEX_Vmovupd_ymm_ymmm256]),
    row(0x0f, P66, 0x11, Store, [Movupd_xmmm128_xmm, Movupd_xmmm128_xmm, VEX_Vmovupd_xmmm128_xmm, VEX_Vmovupd_ymmm256_ymm]),
    row(0x0f, NONE, 0x28, Load, [Movaps_xmm_xmmm128, Movaps_xmm_xmmm128, VEX_Vmovaps_xmm_xmmm128, VEX_Vmovaps_ymm_ymmm256]),
    row(0x0f, NONE, 0x29, Store, [Movaps_xmmm128_xmm, Movaps_xmmm128_xmm, VEX_Vmovaps_xmmm128_xmm, VEX_Vmovaps_ymmm256_ymm]),
    row(0x0f, P66, 0x28, Load, [Movapd_xmm_xmmm128, Movapd_xmm_xmmm128, VEX_Vmovapd_xmm_xmmm128, VEX_Vmovapd_ymm_ymmm256]),
    row(0x0f, P66, 0x29, Store, [Movapd_xmmm128_xmm, Movapd_xmmm128_xmm, VEX_Vmovapd_xmmm128_xmm, VEX_Vmovapd_ymmm256_ymm]),
    row(0x0f, P66, 0x6f, Load, [Movdqa_xmm_xmmm128, Movdqa_xmm_xmmm128, VEX_Vmovdqa_xmm_xmmm128, VEX_Vmovdqa_ymm_ymmm256]),
    row(0x0f, P66, 0x7f, Store, [Movdqa_xmmm128_xmm, Movdqa_xmmm128_xmm, VEX_Vmovdqa_xmmm128_xmm, VEX_Vmovdqa_ymmm256_ymm]),
    row(0x0f, PF3, 0x6f, Load, [Movdqu_xmm_xmmm128, Movdqu_xmm_xmmm128, VEX_Vmovdqu_xmm_xmmm128, VEX_Vmovdqu_ymm_ymmm256]),
    row(0x0f, PF3, 0x7f, Store, [Movdqu_xmmm128_xmm, Movdqu_xmmm128_xmm, VEX_Vmovdqu_xmmm128_xmm, VEX_Vmovdqu_ymmm256_ymm]),
    row(0x0f, PF3, 0x10, LoadScalar, [Movss_xmm_xmmm32, Movss_xmm_xmmm32, VEX_Vmovss_xmm_m32, VEX_Vmovss_xmm_xmm_xmm]),
    row(0x0f, PF3, 0x11, StoreScalar, [Movss_xmmm32_xmm, Movss_xmmm32_xmm, VEX_Vmovss_m32_xmm, INVALID]),
    row(0x0f, PF2, 0x10, LoadScalar, [Movsd_xmm_xmmm64, Movsd_xmm_xmmm64, VEX_Vmovsd_xmm_m64, VEX_Vmovsd_xmm_xmm_xmm]),
    row(0x0f, PF2, 0x11, StoreScalar, [Movsd_xmmm64_xmm, Movsd_xmmm64_xmm, VEX_Vmovsd_m64_xmm, INVALID]),
    row(0x0f, NONE, 0x12, NdsMemory, [Movlps_xmm_m64, Movlps_xmm_m64, VEX_Vmovlps_xmm_xmm_m64, INVALID]),
    row(0x0f, NONE, 0x13, StoreMemory, [Movlps_m64_xmm, Movlps_m64_xmm, VEX_Vmovlps_m64_xmm, INVALID]),
    row(0x0f, P66, 0x12, NdsMemory, [Movlpd_xmm_m64, Movlpd_xmm_m64, VEX_Vmovlpd_xmm_xmm_m64, INVALID]),
    row(0x0f, P66, 0x13, StoreMemory, [Movlpd_m64_xmm, Movlpd_m64_xmm, VEX_Vmovlpd_m64_xmm, INVALID]),
    row(0x0f, NONE, 0x16, NdsMemory, [Movhps_xmm_m64, Movhps_xmm_m64, VEX_Vmovhps_xmm_xmm_m64, INVALID]),
    row(0x0f, NONE, 0x17, StoreMemory, [Movhps_m64_xmm, Movhps_m64_xmm, VEX_Vmovhps_m64_xmm, INVALID]),
    row(0x0f, P66, 0x16, NdsMemory, [Movhpd_xmm_m64, Movhpd_xmm_m64, VEX_Vmovhpd_xmm_xmm_m64, INVALID]),
    row(0x0f, P66, 0x17, StoreMemory, [Movhpd_m64_xmm, Movhpd_m64_xmm, VEX_Vmovhpd_m64_xmm, INVALID]),
    row(0x0f, NONE, 0x14, Nds, [Unpcklps_xmm_xmmm128, Unpcklps_xmm_xmmm128, VEX_Vunpcklps_xmm_xmm_xmmm128, VEX_Vunpcklps_ymm_ymm_ymmm256]),
    row(0x0f, P66, 0x14, Nds, [Unpcklpd_xmm_xmmm128, Unpcklpd_xmm_xmmm128, VEX_Vunpcklpd_xmm_xmm_xmmm128, VEX_Vunpcklpd_ymm_ymm_ymmm256]),
    row(0x0f, NONE, 0x15, Nds, [Unpckhps_xmm_xmmm128, Unpckhps_xmm_xmmm128, VEX_Vunpckhps_xmm_xmm_xmmm128, VEX_Vunpckhps_ymm_ymm_ymmm256]),
    row(0x0f, P66, 0x15, Nds, [Unpckhpd_xmm_xmmm128, Unpckhpd_xmm_xmmm128, VEX_Vunpckhpd_xmm_xmm_xmmm128, VEX_Vunpckhpd_ymm_ymm_ymmm256]),
    row(0x0f, NONE, 0x54, Nds, [Andps_xmm_xmmm128, Andps_xmm_xmmm128, VEX_Vandps_xmm_xmm_xmmm128, VEX_Vandps_ymm_ymm_ymmm256]),
    row(0x0f, P66, 0x54, Nds, [Andpd_xmm_xmmm128, Andpd_xmm_xmmm128, VEX_Vandpd_xmm_xmm_xmmm128, VEX_Vandpd_ymm_ymm_ymmm256]),
    row(0x0f, NONE, 0x55, Nds, [Andnps_xmm_xmmm128, Andnps_xmm_xmmm128, VEX_Vandnps_xmm_xmm_xmmm128, VEX_Vandnps_ymm_ymm_ymmm256]),
    row(0x0f, P66, 0x55, Nds, [Andnpd_xmm_xmmm128, Andnpd_xmm_xmmm128, VEX_Vandnpd_xmm_xmm_xmmm128, VEX_Vandnpd_ymm_ymm_ymmm256]),
    row(0x0f, NONE, 0x56, Nds, [Orps_xmm_xmmm128, Orps_xmm_xmmm128, VEX_Vorps_xmm_xmm_xmmm128, VEX_Vorps_ymm_ymm_ymmm256]),
    row(0x0f, P66, 0x56, Nds, [Orpd_xmm_xmmm128, Orpd_xmm_xmmm128, VEX_Vorpd_xmm_xmm_xmmm128, VEX_Vorpd_ymm_ymm_ymmm256]),
    row(0x0f, NONE, 0x57, Nds, [Xorps_xmm_xmmm128, Xorps_xmm_xmmm128, VEX_Vxorps_xmm_xmm_xmmm128, VEX_Vxorps_ymm_ymm_ymmm256]),
    row(0x0f, P66, 0x57, Nds, [Xorpd_xmm_xmmm128, Xorpd_xmm_xmmm128, VEX_Vxorpd_xmm_xmm_xmmm128, VEX_Vxorpd_ymm_ymm_ymmm256]),
    row(0x0f, NONE, 0x58, Nds, [Addps_xmm_xmmm128, Addps_xmm_xmmm128, VEX_Vaddps_xmm_xmm_xmmm128, VEX_Vaddps_ymm_ymm_ymmm256]),
    row(0x0f, P66, 0x58, Nds, [Addpd_xmm_xmmm128, Addpd_xmm_xmmm128, VEX_Vaddpd_xmm_xmm_xmmm128, VEX_Vaddpd_ymm_ymm_ymmm256]),
    row(0x0f, NONE, 0x59, Nds, [Mulps_xmm_xmmm128, Mulps_xmm_xmmm128, VEX_Vmulps_xmm_xmm_xmmm128, VEX_Vmulps_ymm_ymm_ymmm256]),
    row(0x0f, P66, 0x59, Nds, [Mulpd_xmm_xmmm128, Mulpd_xmm_xmmm128, VEX_Vmulpd_xmm_xmm_xmmm128, VEX_Vmulpd_ymm_ymm_ymmm256]),
    row(0x0f, NONE, 0x5c, Nds, [Subps_xmm_xmmm128, Subps_xmm_xmmm128, VEX_Vsubps_xmm_xmm_xmmm128, VEX_Vsubps_ymm_ymm_ymmm256]),
    row(0x0f, P66, 0x5c, Nds, [Subpd_xmm_xmmm128, Subpd_xmm_xmmm128, VEX_Vsubpd_xmm_xmm_xmmm128, VEX_Vsubpd_ymm_ymm_ymmm256]),
    row(0x0f, NONE, 0x5d, Nds, [Minps_xmm_xmmm128, Minps_xmm_xmmm128, VEX_Vminps_xmm_xmm_xmmm128, VEX_Vminps_ymm_ymm_ymmm256]),
    row(0x0f, P66, 0x5d, Nds, [Minpd_xmm_xmmm128, Minpd_xmm_xmmm128, VEX_Vminpd_xmm_xmm_xmmm128, VEX_Vminpd_ymm_ymm_ymmm256]),
    row(0x0f, NONE, 0x5e, Nds, [Divps_xmm_xmmm128, Divps_xmm_xmmm128, VEX_Vdivps_xmm_xmm_xmmm128, VEX_Vdivps_ymm_ymm_ymmm256]),
    row(0x0f, P66, 0x5e, Nds, [Divpd_xmm_xmmm128, Divpd_xmm_xmmm128, VEX_Vdivpd_xmm_xmm_xmmm128, VEX_Vdivpd_ymm_ymm_ymmm256]),
    row(0x0f, NONE, 0x5f, Nds, [Maxps_xmm_xmmm128, Maxps_xmm_xmmm128, VEX_Vmaxps_xmm_xmm_xmmm128, VEX_Vmaxps_ymm_ymm_ymmm256]),
    row(0x0f, P66, 0x5f, Nds, [Maxpd_xmm_xmmm128, Maxpd_xmm_xmmm128, VEX_Vmaxpd_xmm_xmm_xmmm128, VEX_Vmaxpd_ymm_ymm_ymmm256]),
    row(0x0f, PF3, 0x58, Nds, [Addss_xmm_xmmm32, Addss_xmm_xmmm32, VEX_Vaddss_xmm_xmm_xmmm32, INVALID]),
    row(0x0f, PF2, 0x58, Nds, [Addsd_xmm_xmmm64, Addsd_xmm_xmmm64, VEX_Vaddsd_xmm_xmm_xmmm64, INVALID]),
    row(0x0f, PF3, 0x59, Nds, [Mulss_xmm_xmmm32, Mulss_xmm_xmmm32, VEX_Vmulss_xmm_xmm_xmmm32, INVALID]),
    row(0x0f, PF2, 0x59, Nds, [Mulsd_xmm_xmmm64, Mulsd_xmm_xmmm64, VEX_Vmulsd_xmm_xmm_xmmm64, INVALID]),
    row(0x0f, PF3, 0x5c, Nds, [Subss_xmm_xmmm32, Subss_xmm_xmmm32, VEX_Vsubss_xmm_xmm_xmmm32, INVALID]),
    row(0x0f, PF2, 0x5c, Nds, [Subsd_xmm_xmmm64, Subsd_xmm_xmmm64, VEX_Vsubsd_xmm_xmm_xmmm64, INVALID]),
    row(0x0f, PF3, 0x5d, Nds, [Minss_xmm_xmmm32, Minss_xmm_xmmm32, VEX_Vminss_xmm_xmm_xmmm32, INVALID]),
    row(0x0f, PF2, 0x5d, Nds, [Minsd_xmm_xmmm64, Minsd_xmm_xmmm64, VEX_Vminsd_xmm_xmm_xmmm64, INVALID]),
    row(0x0f, PF3, 0x5e, Nds, [Divss_xmm_xmmm32, Divss_xmm_xmmm32, VEX_Vdivss_xmm_xmm_xmmm32, INVALID]),
    row(0x0f, PF2, 0x5e, Nds, [Divsd_xmm_xmmm64, Divsd_xmm_xmmm64, VEX_Vdivsd_xmm_xmm_xmmm64, INVALID]),
    row(0x0f, PF3, 0x5f, Nds, [Maxss_xmm_xmmm32, Maxss_xmm_xmmm32, VEX_Vmaxss_xmm_xmm_xmmm32, INVALID]),
    row(0x0f, PF2, 0x5f, Nds, [Maxsd_xmm_xmmm64, Maxsd_xmm_xmmm64, VEX_Vmaxsd_xmm_xmm_xmmm64, INVALID]),
    row(0x0f, PF3, 0x51, Nds, [Sqrtss_xmm_xmmm32, Sqrtss_xmm_xmmm32, VEX_Vsqrtss_xmm_xmm_xmmm32, INVALID]),
    row(0x0f, PF2, 0x51, Nds, [Sqrtsd_xmm_xmmm64, Sqrtsd_xmm_xmmm64, VEX_Vsqrtsd_xmm_xmm_xmmm64, INVALID]),
    row(0x0f, NONE, 0x51, Load, [Sqrtps_xmm_xmmm128, Sqrtps_xmm_xmmm128, VEX_Vsqrtps_xmm_xmmm128, VEX_Vsqrtps_ymm_ymmm256]),
    row(0x0f, P66, 0x51, Load, [Sqrtpd_xmm_xmmm128, Sqrtpd_xmm_xmmm128, VEX_Vsqrtpd_xmm_xmmm128, VEX_Vsqrtpd_ymm_ymmm256]),
    row(0x0f, NONE, 0x5b, Load, [Cvtdq2ps_xmm_xmmm128, Cvtdq2ps_xmm_xmmm128, VEX_Vcvtdq2ps_xmm_xmmm128, VEX_Vcvtdq2ps_ymm_ymmm256]),
    row(0x0f, PF3, 0x5b, Load, [Cvttps2dq_xmm_xmmm128, Cvttps2dq_xmm_xmmm128, VEX_Vcvttps2dq_xmm_xmmm128, VEX_Vcvttps2dq_ymm_ymmm256]),
    row(0x0f, PF3, 0x5a, Nds, [Cvtss2sd_xmm_xmmm32, Cvtss2sd_xmm_xmmm32, VEX_Vcvtss2sd_xmm_xmm_xmmm32, INVALID]),
    row(0x0f, PF2, 0x5a, Nds, [Cvtsd2ss_xmm_xmmm64, Cvtsd2ss_xmm_xmmm64, VEX_Vcvtsd2ss_xmm_xmm_xmmm64, INVALID]),
    row(0x0f, NONE, 0x2e, Load, [Ucomiss_xmm_xmmm32, Ucomiss_xmm_xmmm32, VEX_Vucomiss_xmm_xmmm32, INVALID]),
    row(0x0f, P66, 0x2e, Load, [Ucomisd_xmm_xmmm64, Ucomisd_xmm_xmmm64, VEX_Vucomisd_xmm_xmmm64, INVALID]),
    row(0x0f, NONE, 0x2f, Load, [Comiss_xmm_xmmm32, Comiss_xmm_xmmm32, VEX_Vcomiss_xmm_xmmm32, INVALID]),
    row(0x0f, P66, 0x2f, Load, [Comisd_xmm_xmmm64, Comisd_xmm_xmmm64, VEX_Vcomisd_xmm_xmmm64, INVALID]),
    row(0x0f, PF3, 0x2a, FromGprNds, [Cvtsi2ss_xmm_rm32, Cvtsi2ss_xmm_rm64, VEX_Vcvtsi2ss_xmm_xmm_rm32, VEX_Vcvtsi2ss_xmm_xmm_rm64]),
    row(0x0f, PF3, 0x2c, ToGpr, [Cvttss2si_r32_xmmm32, Cvttss2si_r64_xmmm32, VEX_Vcvttss2si_r32_xmmm32, VEX_Vcvttss2si_r64_xmmm32]),
    row(0x0f, PF2, 0x2a, FromGprNds, [Cvtsi2sd_xmm_rm32, Cvtsi2sd_xmm_rm64, VEX_Vcvtsi2sd_xmm_xmm_rm32, VEX_Vcvtsi2sd_xmm_xmm_rm64]),
    row(0x0f, PF2, 0x2c, ToGpr, [Cvttsd2si_r32_xmmm64, Cvttsd2si_r64_xmmm64, VEX_Vcvttsd2si_r32_xmmm64, VEX_Vcvttsd2si_r64_xmmm64]),
    row(0x0f, P66, 0x6e, FromGpr, [Movd_xmm_rm32, Movq_xmm_rm64, VEX_Vmovd_xmm_rm32, VEX_Vmovq_xmm_rm64]),
    row(0x0f, P66, 0x7e, StoreGpr, [Movd_rm32_xmm, Movq_rm64_xmm, VEX_Vmovd_rm32_xmm, VEX_Vmovq_rm64_xmm]),
    row(0x0f, PF3, 0x7e, Load, [Movq_xmm_xmmm64, Movq_xmm_xmmm64, VEX_Vmovq_xmm_xmmm64, INVALID]),
    row(0x0f, P66, 0xd6, Store, [Movq_xmmm64_xmm, Movq_xmmm64_xmm, VEX_Vmovq_xmmm64_xmm, INVALID]),
    row(0x0f, P66, 0xd7, Mask, [Pmovmskb_r32_xmm, Pmovmskb_r64_xmm, VEX_Vpmovmskb_r32_xmm, VEX_Vpmovmskb_r32_ymm]),
    row(0x0f, P66, 0x60, Nds, [Punpcklbw_xmm_xmmm128, Punpcklbw_xmm_xmmm128, VEX_Vpunpcklbw_xmm_xmm_xmmm128, VEX_Vpunpcklbw_ymm_ymm_ymmm256]),
    row(0x0f, P66, 0x61, Nds, [Punpcklwd_xmm_xmmm128, Punpcklwd_xmm_xmmm128, VEX_Vpunpcklwd_xmm_xmm_xmmm128, VEX_Vpunpcklwd_ymm_ymm_ymmm256]),
    row(0x0f, P66, 0x62, Nds, [Punpckldq_xmm_xmmm128, Punpckldq_xmm_xmmm128, VEX_Vpunpckldq_xmm_xmm_xmmm128, VEX_Vpunpckldq_ymm_ymm_ymmm256]),
    row(0x0f, P66, 0x67, Nds, [Packuswb_xmm_xmmm128, Packuswb_xmm_xmmm128, VEX_Vpackuswb_xmm_xmm_xmmm128, VEX_Vpackuswb_ymm_ymm_ymmm256]),
    row(0x0f, P66, 0x64, Nds, [Pcmpgtb_xmm_xmmm128, Pcmpgtb_xmm_xmmm128, VEX_Vpcmpgtb_xmm_xmm_xmmm128, VEX_Vpcmpgtb_ymm_ymm_ymmm256]),
    row(0x0f, P66, 0x65, Nds, [Pcmpgtw_xmm_xmmm128, Pcmpgtw_xmm_xmmm128, VEX_Vpcmpgtw_xmm_xmm_xmmm128, VEX_Vpcmpgtw_ymm_ymm_ymmm256]),
    row(0x0f, P66, 0x66, Nds, [Pcmpgtd_xmm_xmmm128, Pcmpgtd_xmm_xmmm128, VEX_Vpcmpgtd_xmm_xmm_xmmm128, VEX_Vpcmpgtd_ymm_ymm_ymmm256]),
    row(0x0f, P66, 0x68, Nds, [Punpckhbw_xmm_xmmm128, Punpckhbw_xmm_xmmm128, VEX_Vpunpckhbw_xmm_xmm_xmmm128, VEX_Vpunpckhbw_ymm_ymm_ymmm256]),
    row(0x0f, P66, 0x69, Nds, [Punpckhwd_xmm_xmmm128, Punpckhwd_xmm_xmmm128, VEX_Vpunpckhwd_xmm_xmm_xmmm128, VEX_Vpunpckhwd_ymm_ymm_ymmm256]),
    row(0x0f, P66, 0x6a, Nds, [Punpckhdq_xmm_xmmm128, Punpckhdq_xmm_xmmm128, VEX_Vpunpckhdq_xmm_xmm_xmmm128, VEX_Vpunpckhdq_ymm_ymm_ymmm256]),
    row(0x0f, P66, 0x6c, Nds, [Punpcklqdq_xmm_xmmm128, Punpcklqdq_xmm_xmmm128, VEX_Vpunpcklqdq_xmm_xmm_xmmm128, VEX_Vpunpcklqdq_ymm_ymm_ymmm256]),
    row(0x0f, P66, 0x6d, Nds, [Punpckhqdq_xmm_xmmm128, Punpckhqdq_xmm_xmmm128, VEX_Vpunpckhqdq_xmm_xmm_xmmm128, VEX_Vpunpckhqdq_ymm_ymm_ymmm256]),
    row(0x0f, P66, 0x74, Nds, [Pcmpeqb_xmm_xmmm128, Pcmpeqb_xmm_xmmm128, VEX_Vpcmpeqb_xmm_xmm_xmmm128, VEX_Vpcmpeqb_ymm_ymm_ymmm256]),
    row(0x0f, P66, 0x75, Nds, [Pcmpeqw_xmm_xmmm128, Pcmpeqw_xmm_xmmm128, VEX_Vpcmpeqw_xmm_xmm_xmmm128, VEX_Vpcmpeqw_ymm_ymm_ymmm256]),
    row(0x0f, P66, 0x76, Nds, [Pcmpeqd_xmm_xmmm128, Pcmpeqd_xmm_xmmm128, VEX_Vpcmpeqd_xmm_xmm_xmmm128, VEX_Vpcmpeqd_ymm_ymm_ymmm256]),
    row(0x0f, P66, 0xd4, Nds, [Paddq_xmm_xmmm128, Paddq_xmm_xmmm128, VEX_Vpaddq_xmm_xmm_xmmm128, VEX_Vpaddq_ymm_ymm_ymmm256]),
    row(0x0f, P66, 0xd5, Nds, [Pmullw_xmm_xmmm128, Pmullw_xmm_xmmm128, VEX_Vpmullw_xmm_xmm_xmmm128, VEX_Vpmullw_ymm_ymm_ymmm256]),
    row(0x0f, P66, 0xd8, Nds, [Psubusb_xmm_xmmm128, Psubusb_xmm_xmmm128, VEX_Vpsubusb_xmm_xmm_xmmm128, VEX_Vpsubusb_ymm_ymm_ymmm256]),
    row(0x0f, P66, 0xda, Nds, [Pminub_xmm_xmmm128, Pminub_xmm_xmmm128, VEX_Vpminub_xmm_xmm_xmmm128, VEX_Vpminub_ymm_ymm_ymmm256]),
    row(0x0f, P66, 0xdb, Nds, [Pand_xmm_xmmm128, Pand_xmm_xmmm128, VEX_Vpand_xmm_xmm_xmmm128, VEX_Vpand_ymm_ymm_ymmm256]),
    row(0x0f, P66, 0xde, Nds, [Pmaxub_xmm_xmmm128, Pmaxub_xmm_xmmm128, VEX_Vpmaxub_xmm_xmm_xmmm128, VEX_Vpmaxub_ymm_ymm_ymmm256]),
    row(0x0f, P66, 0xdf, Nds, [Pandn_xmm_xmmm128, Pandn_xmm_xmmm128, VEX_Vpandn_xmm_xmm_xmmm128, VEX_Vpandn_ymm_ymm_ymmm256]),
    row(0x0f, P66, 0xeb, Nds, [Por_xmm_xmmm128, Por_xmm_xmmm128, VEX_Vpor_xmm_xmm_xmmm128, VEX_Vpor_ymm_ymm_ymmm256]),
    row(0x0f, P66, 0xef, Nds, [Pxor_xmm_xmmm128, Pxor_xmm_xmmm128, VEX_Vpxor_xmm_xmm_xmmm128, VEX_Vpxor_ymm_ymm_ymmm256]),
    row(0x0f, P66, 0xf4, Nds, [Pmuludq_xmm_xmmm128, Pmuludq_xmm_xmmm128, VEX_Vpmuludq_xmm_xmm_xmmm128, VEX_Vpmuludq_ymm_ymm_ymmm256]),
    row(0x0f, P66, 0xf8, Nds, [Psubb_xmm_xmmm128, Psubb_xmm_xmmm128, VEX_Vpsubb_xmm_xmm_xmmm128, VEX_Vpsubb_ymm_ymm_ymmm256]),
    row(0x0f, P66, 0xf9, Nds, [Psubw_xmm_xmmm128, Psubw_xmm_xmmm128, VEX_Vpsubw_xmm_xmm_xmmm128, VEX_Vpsubw_ymm_ymm_ymmm256]),
    row(0x0f, P66, 0xfa, Nds, [Psubd_xmm_xmmm128, Psubd_xmm_xmmm128, VEX_Vpsubd_xmm_xmm_xmmm128, VEX_Vpsubd_ymm_ymm_ymmm256]),
    row(0x0f, P66, 0xfb, Nds, [Psubq_xmm_xmmm128, Psubq_xmm_xmmm128, VEX_Vpsubq_xmm_xmm_xmmm128, VEX_Vpsubq_ymm_ymm_ymmm256]),
    row(0x0f, P66, 0xfc, Nds, [Paddb_xmm_xmmm128, Paddb_xmm_xmmm128, VEX_Vpaddb_xmm_xmm_xmmm128, VEX_Vpaddb_ymm_ymm_ymmm256]),
    row(0x0f, P66, 0xfd, Nds, [Paddw_xmm_xmmm128, Paddw_xmm_xmmm128, VEX_Vpaddw_xmm_xmm_xmmm128, VEX_Vpaddw_ymm_ymm_ymmm256]),
    row(0x0f, P66, 0xfe, Nds, [Paddd_xmm_xmmm128, Paddd_xmm_xmmm128, VEX_Vpaddd_xmm_xmm_xmmm128, VEX_Vpaddd_ymm_ymm_ymmm256]),
    row(0x0f, P66, 0x70, LoadImm, [Pshufd_xmm_xmmm128_imm8, Pshufd_xmm_xmmm128_imm8, VEX_Vpshufd_xmm_xmmm128_imm8, VEX_Vpshufd_ymm_ymmm256_imm8]),
    row(0x0f, PF2, 0x70, LoadImm, [Pshuflw_xmm_xmmm128_imm8, Pshuflw_xmm_xmmm128_imm8, VEX_Vpshuflw_xmm_xmmm128_imm8, VEX_Vpshuflw_ymm_ymmm256_imm8]),
    row(0x0f, NONE, 0xc6, NdsImm, [Shufps_xmm_xmmm128_imm8, Shufps_xmm_xmmm128_imm8, VEX_Vshufps_xmm_xmm_xmmm128_imm8, VEX_Vshufps_ymm_ymm_ymmm256_imm8]),
    row(0x0f, P66, 0xc6, NdsImm, [Shufpd_xmm_xmmm128_imm8, Shufpd_xmm_xmmm128_imm8, VEX_Vshufpd_xmm_xmm_xmmm128_imm8, VEX_Vshufpd_ymm_ymm_ymmm256_imm8]),
    row(0x38, P66, 0x00, Nds, [Pshufb_xmm_xmmm128, Pshufb_xmm_xmmm128, VEX_Vpshufb_xmm_xmm_xmmm128, VEX_Vpshufb_ymm_ymm_ymmm256]),
    row(0x38, P66, 0x17, Load, [Ptest_xmm_xmmm128, Ptest_xmm_xmmm128, VEX_Vptest_xmm_xmmm128, VEX_Vptest_ymm_ymmm256]),
    row(0x38, P66, 0x29, Nds, [Pcmpeqq_xmm_xmmm128, Pcmpeqq_xmm_xmmm128, VEX_Vpcmpeqq_xmm_xmm_xmmm128, VEX_Vpcmpeqq_ymm_ymm_ymmm256]),
    row(0x38, P66, 0x37, Nds, [Pcmpgtq_xmm_xmmm128, Pcmpgtq_xmm_xmmm128, VEX_Vpcmpgtq_xmm_xmm_xmmm128, VEX_Vpcmpgtq_ymm_ymm_ymmm256]),
    row(0x38, P66, 0x39, Nds, [Pminsd_xmm_xmmm128, Pminsd_xmm_xmmm128, VEX_Vpminsd_xmm_xmm_xmmm128, VEX_Vpminsd_ymm_ymm_ymmm256]),
    row(0x38, P66, 0x3b, Nds, [Pminud_xmm_xmmm128, Pminud_xmm_xmmm128, VEX_Vpminud_xmm_xmm_xmmm128, VEX_Vpminud_ymm_ymm_ymmm256]),
    row(0x3a, P66, 0x0f, NdsImm, [Palignr_xmm_xmmm128_imm8, Palignr_xmm_xmmm128_imm8, VEX_Vpalignr_xmm_xmm_xmmm128_imm8, VEX_Vpalignr_ymm_ymm_ymmm256_imm8]),
    row(0x38, P66, 0x78, Broadcast, [INVALID, INVALID, VEX_Vpbroadcastb_xmm_xmmm8, VEX_Vpbroadcastb_ymm_xmmm8]),
    row(0x38, P66, 0x79, Broadcast, [INVALID, INVALID, VEX_Vpbroadcastw_xmm_xmmm16, VEX_Vpbroadcastw_ymm_xmmm16]),
    row(0x38, P66, 0x58, Broadcast, [INVALID, INVALID, VEX_Vpbroadcastd_xmm_xmmm32, VEX_Vpbroadcastd_ymm_xmmm32]),
    row(0x38, P66, 0x59, Broadcast, [INVALID, INVALID, VEX_Vpbroadcastq_xmm_xmmm64, VEX_Vpbroadcastq_ymm_xmmm64]),
    row(0x38, NONE, 0xf2, GprNds, [INVALID, INVALID, VEX_Andn_r32_r32_rm32, VEX_Andn_r64_r64_rm64]),
    row(0x38, NONE, 0xf7, GprCount, [INVALID, INVALID, VEX_Bextr_r32_rm32_r32, VEX_Bextr_r64_rm64_r64]),
    row(0x38, P66, 0xf7, GprCount, [INVALID, INVALID, VEX_Shlx_r32_rm32_r32, VEX_Shlx_r64_rm64_r64]),
    row(0x38, PF3, 0xf7, GprCount, [INVALID, INVALID, VEX_Sarx_r32_rm32_r32, VEX_Sarx_r64_rm64_r64]),
    row(0x38, PF2, 0xf7, GprCount, [INVALID, INVALID, VEX_Shrx_r32_rm32_r32, VEX_Shrx_r64_rm64_r64]),
    row(0x38, NONE, 0xf5, GprCount, [INVALID, INVALID, VEX_Bzhi_r32_rm32_r32, VEX_Bzhi_r64_rm64_r64]),
    row(0x38, PF2, 0xf6, GprNds, [INVALID, INVALID, VEX_Mulx_r32_r32_rm32, VEX_Mulx_r64_r64_rm64]),
    row(0x3a, PF2, 0xf0, GprImm, [INVALID, INVALID, VEX_Rorx_r32_rm32_imm8, VEX_Rorx_r64_rm64_imm8]),
];

/// MOVHLPS and MOVLHPS, which are the same opcodes as `NdsMemory` without prefix: legacy and VEX.
fn between_halves(prefix: u8, op: u8, vex: bool) -> Code {
    match (prefix, op, vex) {
        (NONE, 0x12, false) => Movhlps_xmm_xmm,
        (NONE, 0x12, true) => VEX_Vmovhlps_xmm_xmm_xmm,
        (NONE, 0x16, false) => Movlhps_xmm_xmm,
        (NONE, 0x16, true) => VEX_Vmovlhps_xmm_xmm_xmm,
        _ => INVALID,
    }
}

/// An opcode that the middle bits of ModRM complete; with VEX the first source is the destination.
struct Digit {
    map: u8,
    prefix: u8,
    op: u8,
    digit: u8,
    /// As in [`Row`]; general operands have VEX only.
    codes: [Code; 4],
}

const fn digit(map: u8, prefix: u8, op: u8, digit: u8, codes: [Code; 4]) -> Digit {
    Digit { map, prefix, op, digit, codes }
}

#[rustfmt::skip]
static DIGITS: [Digit; 13] = [
    digit(0x0f, P66, 0x71, 2, [Psrlw_xmm_imm8, Psrlw_xmm_imm8, VEX_Vpsrlw_xmm_xmm_imm8, VEX_Vpsrlw_ymm_ymm_imm8]),
    digit(0x0f, P66, 0x71, 4, [Psraw_xmm_imm8, Psraw_xmm_imm8, VEX_Vpsraw_xmm_xmm_imm8, VEX_Vpsraw_ymm_ymm_imm8]),
    digit(0x0f, P66, 0x71, 6, [Psllw_xmm_imm8, Psllw_xmm_imm8, VEX_Vpsllw_xmm_xmm_imm8, VEX_Vpsllw_ymm_ymm_imm8]),
    digit(0x0f, P66, 0x72, 2, [Psrld_xmm_imm8, Psrld_xmm_imm8, VEX_Vpsrld_xmm_xmm_imm8, VEX_Vpsrld_ymm_ymm_imm8]),
    digit(0x0f, P66, 0x72, 4, [Psrad_xmm_imm8, Psrad_xmm_imm8, VEX_Vpsrad_xmm_xmm_imm8, VEX_Vpsrad_ymm_ymm_imm8]),
    digit(0x0f, P66, 0x72, 6, [Pslld_xmm_imm8, Pslld_xmm_imm8, VEX_Vpslld_xmm_xmm_imm8, VEX_Vpslld_ymm_ymm_imm8]),
    digit(0x0f, P66, 0x73, 2, [Psrlq_xmm_imm8, Psrlq_xmm_imm8, VEX_Vpsrlq_xmm_xmm_imm8, VEX_Vpsrlq_ymm_ymm_imm8]),
    digit(0x0f, P66, 0x73, 3, [Psrldq_xmm_imm8, Psrldq_xmm_imm8, VEX_Vpsrldq_xmm_xmm_imm8, VEX_Vpsrldq_ymm_ymm_imm8]),
    digit(0x0f, P66, 0x73, 6, [Psllq_xmm_imm8, Psllq_xmm_imm8, VEX_Vpsllq_xmm_xmm_imm8, VEX_Vpsllq_ymm_ymm_imm8]),
    digit(0x0f, P66, 0x73, 7, [Pslldq_xmm_imm8, Pslldq_xmm_imm8, VEX_Vpslldq_xmm_xmm_imm8, VEX_Vpslldq_ymm_ymm_imm8]),
    digit(0x38, NONE, 0xf3, 1, [INVALID, INVALID, VEX_Blsr_r32_rm32, VEX_Blsr_r64_rm64]),
    digit(0x38, NONE, 0xf3, 2, [INVALID, INVALID, VEX_Blsmsk_r32_rm32, VEX_Blsmsk_r64_rm64]),
    digit(0x38, NONE, 0xf3, 3, [INVALID, INVALID, VEX_Blsi_r32_rm32, VEX_Blsi_r64_rm64]),
];

/// Operand `at`, which ModRM says is memory or one of `registers`.
fn rm(r: &mut Reader<'_>, modrm: u8, at: u32, registers: &Registers, out: &mut Instruction) {
    if modrm < 0xc0 {
        out.set_op_kind(at, OpKind::Memory);
        memory(r, modrm, out);
    } else {
        out.set_op_register(at, registers[r.number(modrm, B)]);
    }
}

/// An instruction of [`DIGITS`].
fn completed(
    r: &mut Reader<'_>,
    vex: Option<Vex>,
    (map, prefix, op): (usize, u8, u8),
    out: &mut Instruction,
) -> Option<Code> {
    let modrm = r.byte();
    let map = [0x0f, 0x38, 0x3a][map];
    let found = DIGITS.iter().find(|d| (d.map, d.prefix, d.op, d.digit) == (map, prefix, op, modrm >> 3 & 7))?;
    let (general, wide, in_memory) = (found.map == 0x38, r.wide(), modrm < 0xc0);
    let (long, second) = match vex {
        None => (false, usize::from(wide)),
        Some(vex) if general && vex.long || !general && wide => return None,
        Some(vex) => (vex.long, 2 + usize::from(if general { wide } else { vex.long })),
    };
    let registers = match (general, wide, long) {
        (true, true, _) => &R64,
        (true, false, _) => &R32,
        (false, _, true) => &YMM,
        (false, _, false) => &XMM,
    };
    let code = found.codes[second];
    if code == INVALID || in_memory && !general {
        return None;
    }
    let at = u32::from(vex.is_some());
    if let Some(vex) = vex {
        out.set_op0_register(registers[vex.first]);
    }
    rm(r, modrm, at, registers, out);
    if !general {
        out.set_op_kind(at + 1, OpKind::Immediate8);
        out.set_immediate8(r.byte());
    }
    Some(code)
}

/// Where in [`ROWS`] an opcode stands, by map, prefix and opcode; one more than that, 0 for nowhere.
static PLACES: [[[u8; 256]; 4]; 3] = {
    let (mut places, mut n) = ([[[0; 256]; 4]; 3], 0);
    while n < ROWS.len() {
        let Row { map, prefix, op, .. } = ROWS[n];
        let map = match map {
            0x0f => 0,
            0x38 => 1,
            _ => 2,
        };
        places[map][prefix as usize][op as usize] = n as u8 + 1;
        n += 1;
    }
    places
};

#[rustfmt::skip]
static XMM: Registers = {
    use Register::*;
    [XMM0, XMM1, XMM2, XMM3, XMM4, XMM5, XMM6, XMM7, XMM8, XMM9, XMM10, XMM11, XMM12, XMM13, XMM14, XMM15]
};
#[rustfmt::skip]
static YMM: Registers = {
    use Register::*;
    [YMM0, YMM1, YMM2, YMM3, YMM4, YMM5, YMM6, YMM7, YMM8, YMM9, YMM10, YMM11, YMM12, YMM13, YMM14, YMM15]
};

/// What VEX says beside what a REX prefix does.
#[derive(Clone, Copy)]
pub(super) struct Vex {
    /// The first source.
    pub(super) first: usize,
    /// Vectors of 256 bits.
    pub(super) long: bool,
}

/// The code of opcode `op` in map 0 (0x0f), 1 or 2 with this mandatory prefix, with its operands in `out`; none if it has no row here.
pub(super) fn operands(
    r: &mut Reader<'_>,
    vex: Option<Vex>,
    (map, prefix, op): (usize, u8, u8),
    out: &mut Instruction,
) -> Option<Code> {
    let place = PLACES[map][prefix as usize][op as usize];
    let Some(Row { shape, codes, .. }) = usize::from(place).checked_sub(1).map(|n| &ROWS[n]) else {
        return completed(r, vex, (map, prefix, op), out);
    };
    let (wide, long) = (r.wide(), vex.is_some_and(|vex| vex.long));
    let general = matches!(shape, FromGpr | FromGprNds | StoreGpr | ToGpr | GprNds | GprCount | GprImm);
    let modrm = r.byte();
    let in_memory = modrm < 0xc0;
    let mut code = match vex {
        None => codes[usize::from(wide && (general || *shape == Mask))],
        Some(_) if general && !long => codes[2 + usize::from(wide)],
        Some(_) if general || wide => INVALID,
        Some(_) => codes[2 + usize::from(long)],
    };
    let vectors = if long { &YMM } else { &XMM };
    let generals = if wide { &R64 } else { &R32 };
    let (reg_file, rm_file) = match shape {
        Broadcast => (vectors, &XMM),
        FromGpr | FromGprNds | StoreGpr => (vectors, generals),
        ToGpr => (generals, vectors),
        Mask => (generals, vectors),
        GprNds | GprCount | GprImm => (generals, generals),
        _ => (vectors, vectors),
    };
    let mut nds = matches!(shape, Nds | NdsImm | NdsMemory | FromGprNds | GprNds | GprCount);
    match shape {
        NdsMemory if !in_memory && !long => code = between_halves(prefix, op, vex.is_some()),
        NdsMemory | StoreMemory if !in_memory => return None,
        Mask if in_memory => return None,
        LoadScalar | StoreScalar if long || !in_memory && *shape == StoreScalar && vex.is_some() => return None,
        LoadScalar if vex.is_some() && !in_memory => {
            code = codes[3];
            nds = true;
        }
        LoadScalar | StoreScalar if vex.is_some() => code = codes[2],
        _ => {}
    }
    let first = vex.filter(|_| nds);
    if code == INVALID || vex.is_some_and(|vex| vex.first != 0) && first.is_none() {
        return None;
    }
    let reg = reg_file[r.number(modrm >> 3, R)];
    match (shape, first) {
        (Store | StoreMemory | StoreScalar | StoreGpr, _) => {
            rm(r, modrm, 0, rm_file, out);
            out.set_op1_register(reg);
        }
        (GprCount, Some(vex)) => {
            out.set_op0_register(reg);
            rm(r, modrm, 1, rm_file, out);
            out.set_op2_register(generals[vex.first]);
        }
        (_, Some(vex)) => {
            out.set_op0_register(reg);
            out.set_op1_register(if *shape == GprNds { generals } else { vectors }[vex.first]);
            rm(r, modrm, 2, rm_file, out);
        }
        (_, None) => {
            out.set_op0_register(reg);
            rm(r, modrm, 1, rm_file, out);
        }
    }
    if matches!(shape, LoadImm | NdsImm | GprImm) {
        out.set_op_kind(2 + u32::from(first.is_some()), OpKind::Immediate8);
        out.set_immediate8(r.byte());
    }
    Some(code)
}
