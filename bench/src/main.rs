//! `calque-bench`: whole programs and single mechanisms, beside the machine itself and other translators.
//!
//! | file          | what                                                       |
//! |---------------|------------------------------------------------------------|
//! | `programs.rs` | the programs, and how they are made                        |
//! | `runner.rs`   | native, Calque, and each translator found on PATH          |
//! | `measure.rs`  | one run: wall and processor time, peak memory              |
//! | `report.rs`   | tables and means                                           |
//! | `micro.rs`    | lift, compile, interpret, dispatch, system call            |
//!
//! Runs are interleaved: a round runs every program under every runner once, so that a slow moment of the machine hits
//! all of them. The best round counts, the spread is printed.

mod measure;
mod micro;
mod programs;
mod report;
mod runner;

use clap::Parser;
use measure::Sample;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Measures Calque against the machine itself and other translators.
#[derive(Parser)]
pub(crate) struct Args {
    /// Rounds; the best counts
    #[arg(long, default_value_t = 5)]
    rounds: u32,
    /// Only programs whose name contains this
    #[arg(long)]
    only: Option<String>,
    /// The calque to measure
    #[arg(long, default_value = "target/release/calque")]
    calque: PathBuf,
    /// Leave the single mechanisms out
    #[arg(long)]
    no_micro: bool,
    /// Write the report there
    #[arg(long, default_value = "bench/RESULTS.md")]
    output: PathBuf,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("bench lies in the workspace");
    std::env::set_current_dir(root).expect("the workspace is there");
    let runners = match runner::all(&args.calque) {
        Ok(runners) => runners,
        Err(message) => {
            eprintln!("calque-bench: {message}");
            return ExitCode::FAILURE;
        }
    };
    let (programs, missing) = programs::all(args.only.as_deref());
    let mut results = report::Results::new(programs.len(), runners.len());
    for round in 0..args.rounds {
        for (p, program) in programs.iter().enumerate() {
            for (r, runner) in runners.iter().enumerate() {
                let sample = measure::run(&runner.command(&program.words), program.work.path());
                eprintln!(
                    "round {} of {}: {} {}: {}",
                    round + 1,
                    args.rounds,
                    program.name,
                    runner.name,
                    Brief(&sample)
                );
                results.add(p, r, sample);
            }
        }
    }
    let micro = if args.no_micro { String::new() } else { micro::report(&runners) };
    let text = report::text(&programs, &runners, &results, &missing, args.rounds) + &micro;
    println!("{text}");
    match std::fs::write(&args.output, text) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("calque-bench: {}: {e}", args.output.display());
            ExitCode::FAILURE
        }
    }
}

/// One line about a run, for the terminal.
struct Brief<'a>(&'a Result<Sample, String>);

impl std::fmt::Display for Brief<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Ok(s) => write!(f, "{:.3} s", s.wall),
            Err(e) => f.write_str(e),
        }
    }
}
