//! `calque run`: from the command line to a running guest.

use crate::args::RunArgs;
use crate::program;
use crate::refuse;
use calque_runtime::profile::ProfileOptions;
use calque_runtime::{Process, RunOptions, load, lockstep};
use std::ffi::{CString, OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;
use std::process::ExitCode;

/// Where programs are looked for when `PATH` is unset, as in bash.
const DEFAULT_PATH: &str = "/usr/local/bin:/usr/local/sbin:/usr/bin:/usr/sbin:/bin:/sbin";

/// Runs the program that the arguments name; comes back only if it cannot be started.
pub(crate) fn run(args: &RunArgs, profile: Option<ProfileOptions>) -> ExitCode {
    lockstep::set_place(args.under);
    run_with(args, RunOptions { profile, ..args.engine.options(args.sysroot.clone()) })
}

/// Runs the program that the arguments name, with these options.
pub(crate) fn run_with(args: &RunArgs, options: RunOptions) -> ExitCode {
    let name = &args.command[0];
    let search = std::env::var_os("PATH").unwrap_or_else(|| DEFAULT_PATH.into());
    let path = match program::find(name, &search, options.sysroot.as_deref()) {
        Ok(path) => path,
        Err(e) => return refuse(&e.to_string(), e.status()),
    };
    let mut argv = args.command.clone();
    if let Some(argv0) = &args.argv0 {
        argv[0].clone_from(argv0);
    }
    start(&path, argv, environment(&args.env), options)
}

/// Starts the program in the file `path`; comes back only if it cannot be started.
pub(crate) fn start(path: &Path, argv: Vec<OsString>, env: Vec<OsString>, options: RunOptions) -> ExitCode {
    let refuse = |e: load::LoadError| refuse(&e.to_string(), e.exit_code() as u8);
    let program = match load::resolve(path, c_strings(argv), options.sysroot.as_deref()) {
        Ok(program) => program,
        Err(e) => return refuse(e),
    };
    let process = match Process::new(options, Box::new(calque_syscalls::LinuxSyscalls)) {
        Ok(process) => process,
        Err(e) => return crate::refuse(&format!("no room for a guest in this process: {e}"), 126),
    };
    match load::load(process, program, c_strings(env)) {
        Ok(thread) => thread.run_first(),
        Err(e) => refuse(e),
    }
}

/// The environment of this process with the changes of `-E`.
fn environment(changes: &[OsString]) -> Vec<OsString> {
    let mut env: Vec<OsString> = std::env::vars_os()
        .map(|(mut name, value)| {
            name.push("=");
            name.push(value);
            name
        })
        .collect();
    for change in changes {
        let name = variable(change);
        env.retain(|entry| variable(entry) != name);
        if change.as_bytes().contains(&b'=') {
            env.push(change.clone());
        }
    }
    env
}

/// The name in `NAME=VALUE`.
fn variable(entry: &OsStr) -> &[u8] {
    entry.as_bytes().split(|b| *b == b'=').next().unwrap_or_default()
}

/// Strings as the kernel takes them. Those of this process's own command line and environment hold no NUL.
fn c_strings(strings: Vec<OsString>) -> Vec<CString> {
    strings.into_iter().filter_map(|s| CString::new(s.into_vec()).ok()).collect()
}
