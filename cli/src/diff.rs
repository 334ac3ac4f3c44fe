//! `calque diff`: two executions of one program, compared.

use crate::args::{Against, DiffArgs};
use crate::run;
use calque_runtime::RunOptions;
use calque_runtime::lockstep::{self, DiffOptions, Reference};
use std::ffi::OsString;
use std::process::ExitCode;

/// Compares; the exit status says what came of it.
pub(crate) fn diff(args: &DiffArgs) -> ExitCode {
    let options = DiffOptions {
        against: match args.against {
            Against::Native => Reference::Native,
            Against::Interp => Reference::Interp,
        },
        follow_forks: args.follow_forks,
        branches: args.branches,
        command: std::env::args_os().map(quoted).collect::<Vec<_>>().join(" "),
        quiet: args.quiet,
    };
    // What is compiled when must not depend on how fast another thread is: a difference has to show again.
    let run_options =
        RunOptions { sync_compile: true, crash_report: false, ..args.run.engine.options(args.run.sysroot.clone()) };
    let status = lockstep::diff(&options, || {
        if let Some(what) = args.sabotage {
            lockstep::sabotage(what);
        }
        // Comes back only if the program cannot be started.
        let _ = run::run_with(&args.run, run_options);
        lockstep::NOT_STARTED
    });
    ExitCode::from(status as u8)
}

/// A word as a shell takes it.
fn quoted(word: OsString) -> String {
    let word = word.to_string_lossy().into_owned();
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_=+,./:@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) { word } else { format!("'{}'", word.replace('\'', "'\\''")) }
}
