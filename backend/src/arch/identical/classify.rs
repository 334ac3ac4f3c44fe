//! What becomes of a guest instruction, by its code, on the host's processor.

use super::evex::Evex;
use iced_x86::{Code, CpuidFeature, Instruction, Mnemonic, Register};

/// What becomes of the instructions of AVX-512.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Avx512 {
    /// They are the interpreter's, which refuses them.
    Refused,
    /// CPUID announces them, but there has been none so far: their state is not kept.
    Awaited,
    Copied,
}

/// What becomes of an instruction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(super) enum Kind {
    /// Not looked up yet.
    Unknown,
    /// Runs as it is.
    Copy,
    /// Runs as it is, and uses MMX registers if it names one.
    CopyMaybeMmx,
    /// Runs as it is, and uses x87 or MMX registers.
    CopyX87,
    /// The interpreter's: differs between guest and host, or the host lacks it.
    Odd,
    /// Of AVX-512, the first one: its state is to be kept from now on.
    Avx512,
    Jcc,
    /// JRCXZ and LOOPcc: 8-bit displacements only.
    ShortOnly,
    Jump,
    Call,
    JumpIndirect,
    CallIndirect,
    Return,
    Syscall,
    /// CPUID where it reads a clock (`unit::clock`): the interpreter's otherwise.
    Clock,
}

/// Instructions that must not run natively, although the processor has them.
#[rustfmt::skip]
const ODD: &[Mnemonic] = &[
    // Show the translator, or what CPUID does not announce.
    Mnemonic::Cpuid, Mnemonic::Xgetbv, Mnemonic::Rdpid,
    // System and ID flags live in CpuState; TF must not trap here.
    Mnemonic::Pushfq, Mnemonic::Pushf, Mnemonic::Popfq, Mnemonic::Popf,
    // The GS base is ours.
    Mnemonic::Rdgsbase, Mnemonic::Wrgsbase, Mnemonic::Swapgs, Mnemonic::Lgs, Mnemonic::Lfs, Mnemonic::Lss,
    // Show where the last x87 instruction lies, or more of the state than the guest knows of.
    Mnemonic::Fnstenv, Mnemonic::Fstenv, Mnemonic::Fldenv, Mnemonic::Fnsave, Mnemonic::Fsave, Mnemonic::Frstor,
    Mnemonic::Fxsave, Mnemonic::Fxsave64, Mnemonic::Fxrstor, Mnemonic::Fxrstor64,
    Mnemonic::Xsave, Mnemonic::Xsave64, Mnemonic::Xrstor, Mnemonic::Xrstor64, Mnemonic::Xsaveopt, Mnemonic::Xsaveopt64,
    Mnemonic::Xsavec, Mnemonic::Xsavec64, Mnemonic::Xsaves, Mnemonic::Xsaves64, Mnemonic::Xrstors, Mnemonic::Xrstors64,
    // Traps, and what this kernel may do differently for other segments and gates.
    Mnemonic::Int, Mnemonic::Int1, Mnemonic::Int3, Mnemonic::Ud0, Mnemonic::Ud1, Mnemonic::Ud2, Mnemonic::Sysenter, Mnemonic::Sysexit,
    Mnemonic::Sysret, Mnemonic::Iretq, Mnemonic::Iretd, Mnemonic::Iret, Mnemonic::Retf,
    Mnemonic::Sgdt, Mnemonic::Sidt, Mnemonic::Sldt, Mnemonic::Str, Mnemonic::Smsw, Mnemonic::Lar, Mnemonic::Lsl, Mnemonic::Verr, Mnemonic::Verw,
];

/// Extensions whose instructions are copied where the host has them; every other is the interpreter's, which refuses what is
/// not announced.
fn host_has(feature: CpuidFeature) -> bool {
    use CpuidFeature::*;
    match feature {
        INTEL8086 | INTEL186 | INTEL286 | INTEL386 | INTEL486 | X64 | CMOV | CPUID | MULTIBYTENOP | PAUSE | MSR
        | CX8 | FPU | FPU287 | FPU387 | MMX | SSE | SSE2 | CLFSH | PREFETCHW | SYSCALL | FXSR | INTEL8086_ONLY
        | FSGSBASE => true,
        // No-operations where control-flow enforcement is off, as it is in this process.
        CET_IBT | CET_SS => true,
        // The gate answers with the same counter and the same number (`runtime::gate`).
        TSC | RDTSCP => true,
        SSE3 => has("sse3"),
        SSSE3 => has("ssse3"),
        SSE4_1 => has("sse4.1"),
        SSE4_2 => has("sse4.2"),
        POPCNT => has("popcnt"),
        LZCNT => has("lzcnt"),
        BMI1 => has("bmi1"),
        BMI2 => has("bmi2"),
        MOVBE => has("movbe"),
        ADX => has("adx"),
        AES => has("aes"),
        PCLMULQDQ => has("pclmulqdq"),
        CMPXCHG16B => has("cmpxchg16b"),
        AVX => has("avx"),
        AVX2 => has("avx2"),
        FMA => has("fma"),
        F16C => has("f16c"),
        SHA => has("sha"),
        GFNI => has("gfni"),
        VAES => has("vaes"),
        VPCLMULQDQ => has("vpclmulqdq"),
        RDRAND => has("rdrand"),
        RDSEED => has("rdseed"),
        _ => false,
    }
}

/// Extensions of AVX-512 with VEX-encoded instructions, those on opmasks. EVEX-encoded ones are not looked up (`evex`).
fn is_of_avx512(feature: &CpuidFeature) -> bool {
    use CpuidFeature::{AVX512BW, AVX512DQ, AVX512F};
    matches!(feature, AVX512F | AVX512BW | AVX512DQ)
}

#[cfg(target_arch = "x86_64")]
fn has(name: &str) -> bool {
    macro_rules! detect {
        ($($feature:tt)*) => { match name { $( $feature => std::arch::is_x86_feature_detected!($feature), )* _ => false } };
    }
    detect!("sse3" "ssse3" "sse4.1" "sse4.2" "popcnt" "lzcnt" "bmi1" "bmi2" "movbe" "adx" "aes" "pclmulqdq" "cmpxchg16b" "avx"
        "avx2" "fma" "f16c" "sha" "gfni" "vaes" "vpclmulqdq" "rdrand" "rdseed")
}

fn is_x87(feature: &CpuidFeature) -> bool {
    matches!(feature, CpuidFeature::FPU | CpuidFeature::FPU287 | CpuidFeature::FPU387 | CpuidFeature::MMX)
}

/// Extensions with instructions on MMX registers beside those on XMM registers.
fn extends_mmx(feature: &CpuidFeature) -> bool {
    matches!(feature, CpuidFeature::SSE | CpuidFeature::SSE2 | CpuidFeature::SSSE3)
}

fn classify(insn: &Instruction, avx512: Avx512) -> Kind {
    use Code::*;
    let code = insn.code();
    match code {
        Jmp_rel8_64 | Jmp_rel32_64 => return Kind::Jump,
        Call_rel32_64 => return Kind::Call,
        Jmp_rm64 => return Kind::JumpIndirect,
        Call_rm64 => return Kind::CallIndirect,
        Retnq | Retnq_imm16 => return Kind::Return,
        Syscall => return Kind::Syscall,
        Jrcxz_rel8_64 | Jecxz_rel8_64 | Loop_rel8_64_RCX | Loop_rel8_64_ECX | Loope_rel8_64_RCX | Loope_rel8_64_ECX
        | Loopne_rel8_64_RCX | Loopne_rel8_64_ECX => return Kind::ShortOnly,
        _ => {}
    }
    if code.is_jcc_short_or_near() {
        return Kind::Jcc;
    }
    let transfers = !matches!(code.flow_control(), iced_x86::FlowControl::Next);
    // A MOV to a segment register replaces the base of FS or GS (SDM vol. 3 3.4.4.1).
    let segment =
        matches!(code, Mov_Sreg_rm16 | Mov_Sreg_r32m16 | Mov_Sreg_r64m16 | Popq_FS | Popw_FS | Popq_GS | Popw_GS);
    if transfers || segment || insn.is_privileged() || ODD.contains(&code.mnemonic()) {
        return Kind::Odd;
    }
    let features = code.cpuid_features();
    if features.iter().all(is_of_avx512) {
        return avx512.kind();
    }
    if !features.iter().all(|&f| host_has(f)) {
        return Kind::Odd;
    }
    match features {
        _ if features.iter().any(is_x87) => Kind::CopyX87,
        _ if features.iter().any(extends_mmx) => Kind::CopyMaybeMmx,
        _ => Kind::Copy,
    }
}

/// What differs from run to run: has to come through the runtime's gate if that is to be recorded.
#[rustfmt::skip]
const CHANCE: &[Mnemonic] = &[Mnemonic::Rdtsc, Mnemonic::Rdtscp, Mnemonic::Rdrand, Mnemonic::Rdseed];

/// The kinds of codes seen so far.
pub(super) struct Kinds {
    seen: Vec<Kind>,
    gated: bool,
    avx512: Avx512,
}

impl Avx512 {
    fn kind(self) -> Kind {
        match self {
            Avx512::Refused => Kind::Odd,
            Avx512::Awaited => Kind::Avx512,
            Avx512::Copied => Kind::Copy,
        }
    }
}

impl Kinds {
    pub(super) fn new() -> Kinds {
        Kinds { seen: vec![Kind::Unknown; Code::values().len()], gated: false, avx512: Avx512::Refused }
    }

    /// From now on nothing runs natively that differs from run to run.
    pub(super) fn gate(&mut self) {
        self.gated = true;
    }

    /// From now on this becomes of the instructions of AVX-512.
    pub(super) fn set_avx512(&mut self, avx512: Avx512) {
        self.avx512 = avx512;
        self.seen.fill(Kind::Unknown);
    }

    /// What becomes of an EVEX-encoded instruction.
    pub(super) fn of_evex(&self, evex: &Evex) -> Kind {
        if evex.gs { Kind::Odd } else { self.avx512.kind() }
    }

    #[inline]
    pub(super) fn of(&mut self, insn: &Instruction) -> Kind {
        if insn.is_invalid() || insn.segment_prefix() == Register::GS {
            return Kind::Odd;
        }
        let slot = &mut self.seen[insn.code() as usize];
        if *slot == Kind::Unknown {
            let chance = self.gated && CHANCE.contains(&insn.mnemonic());
            *slot = if chance { Kind::Odd } else { classify(insn, self.avx512) };
        }
        match *slot {
            Kind::CopyMaybeMmx if insn.op0_register().is_mm() || insn.op1_register().is_mm() => Kind::CopyX87,
            Kind::CopyMaybeMmx => Kind::Copy,
            kind => kind,
        }
    }
}
