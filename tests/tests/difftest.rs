//! A short run of the comparison with the processor; `calque difftest insn` is the long one.

#![cfg(target_arch = "x86_64")]

use calque_difftest::campaign::{self, Plan, Row};
use calque_difftest::guest::Engine;

fn run(rows: Vec<Row>, count: u64, states: usize) {
    let plan = Plan { rows, seed: 1, count, states, engines: Engine::ALL.to_vec(), only: None };
    let summary = campaign::run(&plan, |_| {});
    let texts: Vec<String> = summary.failures.iter().map(|f| format!("{}\n{}\n", f.report, f.line)).collect();
    assert!(summary.differ.is_empty(), "{}\n{} rows differ", texts.concat(), summary.differ.len());
    assert_eq!(summary.cases, count);
}

#[test]
fn every_lifted_instruction_does_what_the_processor_does() {
    let rows = campaign::singles(|_| true);
    let count = 8 * rows.len() as u64;
    run(rows, count, 4);
}

#[test]
fn sequences_do_what_the_processor_does() {
    run(vec![campaign::sequences(campaign::singles(|_| true))], 800, 2);
}
