//! A short run of the comparison with the processor; `cargo run --release -p calque-tests --bin difftest` is the long one.

#![cfg(target_arch = "x86_64")]

use calque_difftest::{
    self as difftest,
    generate::Generator,
    guest::Guest,
    native::{self, Native},
};

#[test]
fn every_lifted_instruction_does_what_the_processor_does() {
    let (mut native, mut guest) = (Native::take(), Guest::new());
    let mut reports = Vec::new();
    for (mnemonic, codes) in difftest::subjects() {
        let mut g = Generator::new(mnemonic as u64);
        let cases = std::iter::repeat_with(|| difftest::single(&mut g, &codes)).flatten().take(6);
        reports.extend(cases.filter_map(|case| native::check(&mut native, &mut guest, &case).err()).take(1));
    }
    let texts: Vec<String> = reports.iter().take(10).map(|r| r.to_string()).collect();
    assert!(reports.is_empty(), "{}\n{} instructions differ", texts.join("\n"), reports.len());
}

#[test]
fn sequences_do_what_the_processor_does() {
    let (mut native, mut guest) = (Native::take(), Guest::new());
    let codes: Vec<_> = difftest::subjects().into_iter().flat_map(|(_, codes)| codes).collect();
    let mut g = Generator::new(1);
    for n in 0..400 {
        let case = match n % 2 {
            0 => difftest::looped(&mut g, &codes, 1 + n / 2 % 4),
            _ => difftest::sequence(&mut g, &codes, 2 + n / 2 % 8),
        };
        if let Err(report) = native::check(&mut native, &mut guest, &case) {
            panic!("sequence {n}\n{report}");
        }
    }
}
