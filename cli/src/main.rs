//! `calque`: run x86-64 Linux programs on this machine, and look at how they are translated.
//!
//! | file         | what                                                              |
//! |--------------|-------------------------------------------------------------------|
//! | `args.rs`    | the command line                                                  |
//! | `program.rs` | from a name to a file to run: PATH, sysroot, `#!`, clear refusals |
//! | `run.rs`     | `calque run`                                                      |
//! | `diff.rs`    | `calque diff`                                                     |
//! | `profile/`   | `calque profile`: a run with counts, written in several formats   |
//! | `lift.rs`    | `calque lift`: bytes to assembly, IR and host code                |
//! | `difftest.rs`| `calque difftest`: instructions against this machine's processor  |
//! | `demo.rs`    | `calque demo`: the guest program inside this one                  |

#![forbid(unsafe_code)]

mod args;
mod demo;
mod diff;
mod difftest;
mod lift;
mod profile;
mod program;
mod run;

use args::{Cli, Command};
use std::process::ExitCode;

fn main() -> ExitCode {
    let cli = Cli::read(args::with_run(std::env::args_os()));
    match cli.command {
        Command::Run(args) => run::run(&args, None),
        Command::Diff(args) => diff::diff(&args),
        Command::Profile(args) => profile::profile(&args),
        Command::Lift(args) => lift::lift(&args),
        Command::Difftest(args) => difftest::difftest(&args),
        Command::Demo(args) => demo::demo(&args),
    }
}

/// Prints the one line that says why nothing was run, and gives the exit status for it.
fn refuse(message: &str, status: u8) -> ExitCode {
    eprintln!("calque: {message}");
    ExitCode::from(status)
}
