//! `calque-bench`: whole programs and single mechanisms, beside the machine itself and other translators.
//!
//! | file          | what                                                       |
//! |---------------|------------------------------------------------------------|
//! | `programs.rs` | the programs, and how they are made                        |
//! | `inputs.rs`   | what they work on                                          |
//! | `runner.rs`   | native, Calque's engines, and each translator found        |
//! | `measure.rs`  | one run: wall and processor time, peak memory              |
//! | `report.rs`   | tables and means                                           |
//! | `micro.rs`    | nanobenchmarks of guests; lifting and compiling            |
//!
//! Runs are interleaved: a round runs every program under every runner once, so that a slow moment of the machine hits
//! all of them. The best round counts, the spread is printed.

mod inputs;
mod measure;
mod micro;
mod programs;
mod report;
mod runner;
mod scripts;

use clap::Parser;
use measure::Sample;
use programs::Group;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Measures Calque against the machine itself and other translators.
#[derive(Parser)]
pub(crate) struct Args {
    /// Rounds; the best counts
    #[arg(long, default_value_t = 5)]
    rounds: u32,
    /// One round, without other translators, nothing written: a first look
    #[arg(long)]
    quick: bool,
    /// Only programs whose name contains one of these, or whose group is one of these; nothing written
    #[arg(long, value_delimiter = ',', value_name = "NAME,...")]
    only: Vec<String>,
    /// Engines of Calque's to measure
    #[arg(long, value_delimiter = ',', default_value = "auto", value_name = "ENGINE,...")]
    engines: Vec<String>,
    /// Other translators to measure, "all" of those on PATH, or "none" [default: all, with --quick none]
    #[arg(long, value_delimiter = ',', value_name = "NAME,...")]
    peers: Vec<String>,
    /// The calque to measure
    #[arg(long, default_value = "target/release/calque")]
    calque: PathBuf,
    /// Leave the single mechanisms out
    #[arg(long)]
    no_micro: bool,
    /// Nothing but the single mechanisms
    #[arg(long, conflicts_with = "no_micro")]
    only_micro: bool,
    /// Write the report there, whatever was measured [default: bench/RESULTS.md]
    #[arg(long)]
    output: Option<PathBuf>,
}

impl Args {
    /// Where the report goes: the checked-in file only gets whole ones.
    fn output(&self) -> Option<PathBuf> {
        let whole = !self.quick && self.only.is_empty() && !self.only_micro && !self.no_micro;
        self.output.clone().or_else(|| whole.then(|| "bench/RESULTS.md".into()))
    }

    fn peers(&self) -> Vec<String> {
        match (self.peers.is_empty(), self.quick) {
            (false, _) => self.peers.clone(),
            (true, quick) => vec![if quick { "none" } else { "all" }.into()],
        }
    }

    fn rounds(&self) -> u32 {
        if self.quick { 1 } else { self.rounds.max(1) }
    }
}

/// Runs of a start-up program in a round: they are short.
const STARTUP_RUNS: u32 = 5;

fn main() -> ExitCode {
    let args = Args::parse();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("bench lies in the workspace");
    std::env::set_current_dir(root).expect("the workspace is there");
    let runners = match runner::all(&args.calque, &args.engines, &args.peers()) {
        Ok(runners) => runners,
        Err(message) => {
            eprintln!("calque-bench: {message}");
            return ExitCode::FAILURE;
        }
    };
    let mut text = String::from("# Measurements\n\nWritten by `cargo xtask bench`.\n\n");
    report::machine(&mut text, &runners, args.rounds());
    if !args.only_micro {
        whole_programs(&mut text, &args, &runners);
    }
    if args.only_micro || (args.only.is_empty() && !args.no_micro) {
        text += &micro::report(&runners, args.rounds().min(3));
    }
    println!("{text}");
    let Some(output) = args.output() else { return ExitCode::SUCCESS };
    match std::fs::write(&output, text) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("calque-bench: {}: {e}", output.display());
            ExitCode::FAILURE
        }
    }
}

fn whole_programs(text: &mut String, args: &Args, runners: &[runner::Runner]) {
    let (programs, missing) = programs::all(&args.only);
    let mut results = report::Results::new(programs.len(), runners.len());
    for round in 0..args.rounds() {
        for (p, program) in programs.iter().enumerate() {
            let runs = if program.group == Group::Startup { STARTUP_RUNS } else { 1 };
            for _ in 0..runs {
                for (r, runner) in runners.iter().enumerate() {
                    if results.is_hopeless(p, r) {
                        continue;
                    }
                    let sample = measure::run(&runner.command(&program.words), program.work.path());
                    let (name, runner) = (program.name, &runner.name);
                    eprintln!("round {} of {}: {name} {runner}: {}", round + 1, args.rounds(), Brief(&sample));
                    results.add(p, r, sample);
                }
            }
        }
    }
    report::programs(text, &programs, runners, &results, &missing);
}

/// One line about a run, for the terminal.
struct Brief<'a>(&'a Result<Sample, String>);

impl std::fmt::Display for Brief<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Ok(s) => write!(f, "{:.3} s (processor {:.3} s)", s.wall, s.cpu),
            Err(e) => f.write_str(e),
        }
    }
}
