//! Whole programs under the `calque` binary: what comes out must be what comes out on the processor itself.
//!
//! | file          | what                                                                           |
//! |---------------|--------------------------------------------------------------------------------|
//! | `guests.rs`   | `tests/prog/*`: compiled here, run with every engine                           |
//! | `shell.rs`    | Debian's programs: busybox, and bash, perl, python3 of an x86-64 sysroot       |
//! | `cli.rs`      | the command line: refusals, `demo`, `lift`                                     |
//! | `crash.rs`    | crash reports: deaths by fault, and silence                                    |
//! | `diff.rs`     | `calque diff`: what is the same, and what is broken on purpose                 |
//! | `saved.rs`    | code that is kept from one run to the next                                     |
//! | `command.rs`  | starting calque, with a time limit                                             |
//!
//! The environment says what there is beside the C compiler (`cargo xtask test` sets it):
//!
//! | variable               | meaning                                                                |
//! |------------------------|------------------------------------------------------------------------|
//! | `CALQUE_TEST_BINARY`   | another calque than the one built with these tests                     |
//! | `CALQUE_TEST_RUNNER`   | emulator that the `calque` binary has to be started through            |
//! | `CALQUE_TEST_NO_EXEC`  | programs started by a guest cannot run (no binfmt_misc for the above)  |
//! | `CALQUE_TEST_BUSYBOX`  | a static x86-64 busybox                                                |
//! | `CALQUE_TEST_SYSROOT`  | root of an x86-64 system                                               |
//! | `BLESS=1`              | record what the processor does as the expected output                  |

mod cli;
mod command;
mod crash;
mod diff;
mod guests;
mod profile;
mod saved;
mod shell;

use libtest_mimic::{Arguments, Trial};
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut trials: Vec<Trial> = Vec::new();
    let mut skipped: Vec<String> = Vec::new();
    guests::collect(&mut trials, &mut skipped);
    shell::collect(&mut trials, &mut skipped);
    cli::collect(&mut trials, &mut skipped);
    crash::collect(&mut trials, &mut skipped);
    diff::collect(&mut trials, &mut skipped);
    profile::collect(&mut trials, &mut skipped);
    saved::collect(&mut trials);
    let code = libtest_mimic::run(&Arguments::from_args(), trials).exit_code();
    for why in skipped {
        println!("skipped: {why}");
    }
    code
}
