//! `cargo xtask`: set-up, tests and measurements, the same commands for newcomers and for continuous integration.
//!
//! | file         | what                                                              |
//! |--------------|-------------------------------------------------------------------|
//! | `apt.rs`     | Debian packages: installed as root, or only unpacked into `target/tools` |
//! | `setup.rs`   | what the tests need beside Rust, and whether it is there          |
//! | `count.rs`   | executed instructions per guest instruction on AArch64            |
//! | `counting.rs`| the emulators that count them                                     |
//! | `test.rs`    | the steps of `cargo xtask test` and their summary                 |
//! | `shell.rs`   | running commands                                                  |

#![forbid(unsafe_code)]

mod apt;
mod count;
mod counting;
mod setup;
mod shell;
mod test;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// Set-up, tests and measurements.
#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Fetch what the tests need: C compilers, the AArch64 toolchain, emulators, an x86-64 sysroot
    Setup,
    /// Format check, lints, and all tests on x86-64 and AArch64
    Test(test::Args),
    /// Count executed instructions on an emulated AArch64; writes bench/COUNTS.md
    Count(count::Args),
    /// Measure against the machine itself and other translators; writes bench/RESULTS.md
    Bench {
        /// Arguments of calque-bench
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
}

fn main() -> ExitCode {
    std::env::set_current_dir(shell::root()).expect("the workspace is there");
    let done = match Cli::parse().command {
        Command::Setup => setup::Tools::fetch().report(),
        Command::Test(args) => test::test(&args),
        Command::Count(args) => count::count(&args),
        Command::Bench { args } => bench(&args),
    };
    if done { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn bench(args: &[String]) -> bool {
    let tools = setup::Tools::fetch();
    let mut command = shell::cargo(&["run", "--release", "-p", "calque-bench", "--"]);
    command.args(args).env("PATH", tools.search_path());
    shell::cargo(&["build", "--release", "-p", "calque"]).status().is_ok_and(|s| s.success())
        && command.status().is_ok_and(|s| s.success())
}
