//! What CPUID announces (`runtime/src/cpuid.rs`) is lifted: every instruction of those features has a row.

use calque_frontend::lift::table::{self, Status};
use iced_x86::{Code, CpuidFeature};

/// The announced features, in iced's names. `MULTIBYTENOP` and the like, which have no CPUID bit, are baseline.
const ANNOUNCED: &[CpuidFeature] = &[
    CpuidFeature::X64,
    CpuidFeature::CX8,
    CpuidFeature::CMOV,
    CpuidFeature::FPU,
    CpuidFeature::FPU387,
    CpuidFeature::MMX,
    CpuidFeature::FXSR,
    CpuidFeature::SSE,
    CpuidFeature::SSE2,
    CpuidFeature::SSE3,
    CpuidFeature::SSSE3,
    CpuidFeature::SSE4_1,
    CpuidFeature::SSE4_2,
    CpuidFeature::POPCNT,
    CpuidFeature::CMPXCHG16B,
    CpuidFeature::MOVBE,
    CpuidFeature::PCLMULQDQ,
    CpuidFeature::AES,
    CpuidFeature::SHA,
    CpuidFeature::VAES,
    CpuidFeature::VPCLMULQDQ,
    CpuidFeature::GFNI,
    CpuidFeature::BMI1,
    CpuidFeature::BMI2,
    CpuidFeature::AVX,
    CpuidFeature::AVX2,
    CpuidFeature::FMA,
    CpuidFeature::F16C,
    CpuidFeature::XSAVE,
    CpuidFeature::ADX,
    CpuidFeature::LZCNT,
    CpuidFeature::FSGSBASE,
    CpuidFeature::RDPID,
    CpuidFeature::RDRAND,
    CpuidFeature::RDSEED,
    CpuidFeature::RDTSCP,
    CpuidFeature::CLFLUSHOPT,
    CpuidFeature::CLWB,
    CpuidFeature::PREFETCHW,
    CpuidFeature::PAUSE,
];

/// Exceptions: x87 mnemonics with a WAIT in front, which decodes as an instruction of its own; what did something on an
/// 8087 only.
const EXCEPT: &[&str] = &["Fstenv", "Fstcw", "Fclex", "Finit", "Fsave", "Fstsw", "Feni", "Fdisi"];

#[test]
fn announced_features_are_lifted() {
    let lifted: Vec<_> = table::rows().filter(|r| r.status != Status::Unimplemented).map(|r| r.mnemonic).collect();
    let mut missing: Vec<String> = Code::values()
        .filter(|code| {
            let op = code.op_code();
            let announced = code.cpuid_features().iter().all(|f| ANNOUNCED.contains(f));
            op.is_instruction() && op.mode64() && announced && op.cpl3() && !lifted.contains(&code.mnemonic())
        })
        .map(|code| format!("{:?}", code.mnemonic()))
        .collect();
    missing.dedup();
    missing.retain(|name| !EXCEPT.contains(&name.as_str()));
    assert!(missing.is_empty(), "announced but not lifted: {missing:?}");
}
