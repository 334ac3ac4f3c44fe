//! The golden suites. `BLESS=1` accepts what differs, `FILTER=name` picks files.

use calque_difftest::line::{Bless, Runner};
use calque_tests::{counts, golden, ir_case, ir_doc};
use std::cell::RefCell;

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
