//! Compares instructions with the processor: `difftest [--seed N] [--count N] [--sequences N] [MNEMONIC...]`.
//! `difftest --cases N` prints N lines for `tests/insn/*.case` for each mnemonic instead.

#[cfg(target_arch = "x86_64")]
fn main() -> std::process::ExitCode {
    use calque_difftest::{
        self as difftest,
        generate::Generator,
        guest::Guest,
        native::{self, Native},
    };
    let (mut seed, mut count, mut sequences, mut cases, mut only) = (1u64, 200usize, 20_000usize, 0usize, Vec::new());
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let mut number = || args.next().and_then(|v| v.parse().ok()).expect("a number behind the option");
        match arg.as_str() {
            "--seed" => seed = number(),
            "--count" => count = number() as usize,
            "--sequences" => sequences = number() as usize,
            "--cases" => cases = number() as usize,
            _ => only.push(arg.to_lowercase()),
        }
    }
    let subjects: Vec<_> = difftest::subjects()
        .into_iter()
        .filter(|(m, _)| only.is_empty() || only.contains(&format!("{m:?}").to_lowercase()))
        .collect();
    if cases > 0 {
        for (mnemonic, codes) in &subjects {
            let mut g = Generator::new(seed ^ (*mnemonic as u64) << 32);
            let codes = std::iter::repeat_with(|| difftest::single(&mut g, codes)).flatten();
            codes.take(cases).for_each(|case| {
                println!("{:?}\t{}", case.insns()[0].cpuid_features()[0], calque_difftest::line::line_of(&case.code))
            });
        }
        let codes: Vec<_> = subjects.iter().flat_map(|(_, codes)| codes.iter().copied()).collect();
        let mut g = Generator::new(seed);
        for n in 0..sequences {
            let case = match n % 2 {
                0 => difftest::looped(&mut g, &codes, 1 + n / 2 % 3),
                _ => difftest::sequence(&mut g, &codes, 2 + n / 2 % 8),
            };
            println!("sequence\t{}", calque_difftest::line::line_of(&case.code));
        }
        return std::process::ExitCode::SUCCESS;
    }
    let (mut native, mut guest) = (Native::take(), Guest::new());
    let (mut failed, mut ran) = (0, 0);
    for (mnemonic, codes) in &subjects {
        let mut g = Generator::new(seed ^ (*mnemonic as u64) << 32);
        let mut shown = 0;
        for _ in 0..count {
            let Some(case) = difftest::single(&mut g, codes) else { continue };
            ran += 1;
            if let Err(report) = native::check(&mut native, &mut guest, &case) {
                if shown == 0 {
                    println!("{mnemonic:?}\n{report}");
                }
                shown += 1;
            }
        }
        if shown > 0 {
            println!("{mnemonic:?}: {shown} of {count} differ\n");
            failed += 1;
        }
    }
    let codes: Vec<_> = subjects.iter().flat_map(|(_, codes)| codes.iter().copied()).collect();
    let mut g = Generator::new(seed);
    let mut different = 0;
    for n in 0..if codes.is_empty() { 0 } else { sequences } {
        let case = match n % 4 {
            0 => difftest::looped(&mut g, &codes, 1 + n / 4 % 4),
            1 => difftest::sequence(&mut g, &codes, 2 + n / 4 % 30),
            _ => difftest::sequence(&mut g, &codes, 2 + n / 4 % 4),
        };
        if let Err(report) = native::check(&mut native, &mut guest, &case) {
            different += 1;
            if different <= 5 {
                println!("sequence {n}\n{report}");
            }
        }
    }
    println!(
        "{} mnemonics, {ran} cases, {failed} mnemonics differ; {different} of {sequences} sequences differ",
        subjects.len()
    );
    std::process::ExitCode::from(u8::from(failed + different > 0))
}

#[cfg(not(target_arch = "x86_64"))]
fn main() {
    eprintln!("difftest compares with an x86-64 processor, and this is none");
    std::process::exit(2);
}
