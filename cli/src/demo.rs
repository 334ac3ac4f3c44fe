//! `calque demo`: a small x86-64 program, carried inside, for machines that have none.

use crate::args::DemoArgs;
use crate::{refuse, run};
use nix::sys::memfd::{MFdFlags, memfd_create};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::process::ExitCode;

/// Made from `cli/demo/demo.s`; `tests/programs/cli.rs` builds it again and compares what it prints.
const GUEST: &[u8] = include_bytes!("../demo/demo.elf");

/// Runs the guest from a file that exists in memory only.
pub(crate) fn demo(args: &DemoArgs) -> ExitCode {
    match in_memory(GUEST) {
        Ok(file) => {
            let path = format!("/proc/self/fd/{}", file.as_raw_fd());
            run::start(path.as_ref(), vec!["demo".into()], Vec::new(), args.engine.options(None))
        }
        Err(e) => refuse(&format!("no memory file for the demo: {e}"), 126),
    }
}

fn in_memory(bytes: &[u8]) -> io::Result<File> {
    let mut file = File::from(memfd_create(c"demo", MFdFlags::MFD_CLOEXEC)?);
    file.write_all(bytes)?;
    Ok(file)
}
