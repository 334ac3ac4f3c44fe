//! `docs/ISA.md` from the table: what is lifted, by the extension that CPUID announces it under.
//!
//! The document is checked against the table; `BLESS=1 cargo test -p calque-frontend isa` writes it anew.

use super::table::{self, Status};
use iced_x86::{Code, Mnemonic};
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fmt::Write;

const HEAD: &str = "\
# Instructions

What Calque lifts in 64-bit mode, by CPUID feature (iced-x86's names). Written by `BLESS=1 cargo test -p calque-frontend isa`
from `frontend/src/lift/table.rs`; do not edit. An instruction that is not lifted raises SIGILL in the guest and is named on
stderr. CPUID announces a feature only if all of it is lifted.

| feature | lifted | not lifted |
|---|---|---|
";

fn document() -> String {
    let lifted: HashSet<Mnemonic> =
        table::rows().filter(|r| r.status != Status::Unimplemented).map(|r| r.mnemonic).collect();
    let mut features: BTreeMap<String, [BTreeSet<String>; 2]> = BTreeMap::new();
    for code in Code::values().filter(|c| c.op_code().mode64() && c.mnemonic() != Mnemonic::INVALID) {
        let name = code.cpuid_features().iter().map(|f| format!("{f:?}")).collect::<Vec<_>>().join(" + ");
        let which = usize::from(!lifted.contains(&code.mnemonic()));
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
    write!(out, "\nNothing of: {}.\n", absent.join(", ")).expect("to a string");
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
