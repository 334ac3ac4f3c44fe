//! The golden suites. `BLESS=1` accepts what differs, `FILTER=name` picks files.

use calque_difftest::line::{Bless, Runner};
use calque_frontend::lift::table::{self, Status};
use calque_tests::{counts, golden, ir_case, ir_doc};
use iced_x86::{Decoder, DecoderOptions};
use std::cell::RefCell;
use std::collections::HashSet;

#[test]
fn ir() {
    golden::run_suite("ir", "ir", |_, text| ir_case::expected(text));
}

#[test]
fn the_tables_of_docs_ir_md_are_current() {
    let path = golden::root().join("docs/IR.md");
    let text = std::fs::read_to_string(&path).expect("docs/IR.md");
    if let Err(message) = golden::check(&path, &text, &ir_doc::expected(&text)) {
        panic!("{message}");
    }
}

#[test]
fn insn() {
    let runner = RefCell::new(Runner::new(if golden::bless() { Bless::Yes } else { Bless::No }));
    golden::run_suite("insn", "case", |_, text| runner.borrow_mut().expected(text));
}

/// Rows whose results are the host's own, or that leave the code: what they do is compared by whole programs (`tests/prog/host_answers`).
const WITHOUT_CASES: [&str; 9] =
    ["Syscall", "Cpuid", "Rdtsc", "Rdtscp", "Rdpid", "Rdrand", "Rdseed", "Rdfsbase", "Rdgsbase"];

#[test]
fn every_row_has_a_case() {
    let mut missing: HashSet<String> = table::rows()
        .filter(|row| row.status != Status::Unimplemented)
        .map(|row| format!("{:?}", row.mnemonic))
        .filter(|name| !WITHOUT_CASES.contains(&&**name))
        .collect();
    for file in std::fs::read_dir(golden::dir("insn")).expect("tests/insn").map(|file| file.expect("a file").path()) {
        for line in std::fs::read_to_string(&file).expect("text").lines().filter(|line| !line.starts_with(';')) {
            let bytes = line.split_once(" | ").and_then(|(code, _)| code.rsplit_once(" [")?.1.strip_suffix(']'));
            let bytes: Vec<u8> =
                bytes.unwrap_or("").split(' ').filter_map(|b| u8::from_str_radix(b, 16).ok()).collect();
            for insn in &mut Decoder::new(64, &bytes, DecoderOptions::NONE) {
                missing.remove(&format!("{:?}", insn.mnemonic()));
            }
        }
    }
    assert!(missing.is_empty(), "no line of tests/insn/*.case has {missing:?}");
}

#[test]
fn counts() {
    let failures: Vec<String> = ["x86_64", "aarch64"]
        .into_iter()
        .filter_map(|host| {
            let path = golden::root().join(format!("tests/lower/counts-{host}.txt"));
            let text = std::fs::read_to_string(&path).unwrap_or_default();
            golden::check(&path, &text, &counts::document(host)).err()
        })
        .collect();
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}
