//! `docs/ISA.md` from the table: what is lifted, by the extension that CPUID announces it under.
//!
//! The document is checked against the table; `BLESS=1 cargo test -p calque-frontend isa` writes it anew.

use super::table::{self, Status};
use iced_x86::{Code, EncodingKind, Mnemonic};
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fmt::Write;

const HEAD: &str = "\
# Instructions

What Calque lifts in 64-bit mode, by CPUID feature (iced-x86's names). Written by `BLESS=1 cargo test -p calque-frontend isa`
from `frontend/src/lift/table.rs`; do not edit. An instruction that is not lifted raises SIGILL in the guest and is named on
stderr. CPUID announces a feature only if all of it is lifted; but AVX-512, which is not, where identical translation copies it from programs as it is.

| feature | lifted | not lifted |
|---|---|---|
";

const DEVIATIONS: &str = "
## Deviations

Where a result is not that of the processor that Calque is compared with (AMD family 26), by name. Everything else is compared by
`calque difftest insn` and `tests/insn`.

| name | engines | what |
|---|---|---|
| denormal-flag | compiled code on AArch64 without FEAT_AFP | MXCSR.DE is not raised: that host does not tell of denormal operands. |
| early-underflow | compiled code on AArch64 without FEAT_AFP | A result counts as tiny before it is rounded: where rounding makes it the least normal number, \
UE is raised beside PE, and with FTZ and DAZ the result is zero. |
| fused-denormal | compiled code on AArch64 with FEAT_AFP, in qemu 11 | A fused operation with an operand that is a NaN raises DE if another \
is denormal. |
| fused-invalid | compiled code on AArch64 | A fused product of zero and infinity raises IE also if the addend is a quiet NaN. |
| top-byte | compiled code on AArch64 | An access by a non-canonical address that names mapped memory but for its topmost byte, which that \
host ignores, succeeds; a processor raises #GP. (Where such an access faults, it raises #GP here, too.) |
| transcendental | all but identical translation | FSIN, FCOS, FSINCOS, FPTAN, FPATAN, F2XM1, FYL2X and FYL2XP1 give the nearest \
number, but for one in 2^50; processors promise one within 1 ulp. |
| dead-flags | tier 0 on AArch64 | In the frame of the first memory fault or other exception that a handler of a process sees, status flags that the program overwrites \
before it reads them may have older values. |
| masked-address | all but identical translation | MASKMOVQ and MASKMOVDQU do not touch bytes that are masked out; processors may (SDM vol. 2). |

With an exception that is not masked, and on AArch64 without FEAT_AFP with only one of FTZ and DAZ, no compiled code runs but the interpreter, \
which has none of the first four.
";

fn document() -> String {
    let lifted: HashSet<Mnemonic> =
        table::rows().filter(|r| r.status != Status::Unimplemented).map(|r| r.mnemonic).collect();
    let mut features: BTreeMap<String, [BTreeSet<String>; 2]> = BTreeMap::new();
    for code in Code::values().filter(|c| c.op_code().mode64() && c.mnemonic() != Mnemonic::INVALID) {
        let name = code.cpuid_features().iter().map(|f| format!("{f:?}")).collect::<Vec<_>>().join(" + ");
        // AVX-512 shares mnemonics with AVX.
        let is_lifted = lifted.contains(&code.mnemonic()) && code.encoding() != EncodingKind::EVEX;
        let which = usize::from(!is_lifted);
        features.entry(name).or_default()[which].insert(format!("{:?}", code.mnemonic()).to_uppercase());
    }
    let list = |set: &BTreeSet<String>| set.iter().cloned().collect::<Vec<_>>().join(" ");
    let mut out = HEAD.to_owned();
    let mut absent = Vec::new();
    for (name, [yes, no]) in &features {
        if yes.is_empty() {
            absent.push(name.clone());
            continue;
        }
        writeln!(out, "| {name} | {} | {} |", list(yes), list(no)).expect("to a string");
    }
    write!(out, "\nNothing of: {}.\n{DEVIATIONS}", absent.join(", ")).expect("to a string");
    out
}

#[test]
fn isa_document_is_current() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/ISA.md");
    let expected = document();
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(path, &expected).expect("docs/ is writable");
    }
    let found = std::fs::read_to_string(path).unwrap_or_default();
    assert!(found == expected, "docs/ISA.md is out of date; accept with BLESS=1 cargo test -p calque-frontend isa");
}
