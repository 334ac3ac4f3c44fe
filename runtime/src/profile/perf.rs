//! `--perf`: lets Linux's `perf` name translated code after the guest functions it was made from.
//!
//! Two files, written as code is published: `/tmp/perf-PID.map` (tools/perf/Documentation/jit-interface.txt: start, size and name in a
//! line), for tools that look addresses up themselves, and `/tmp/jit-PID.dump`, which `perf inject --jit` puts into the recording with the
//! code itself (jitdump-specification.txt in the same place). `perf` learns of the second from an executable mapping of it.
//!
//! # Safety
//! Maps one page of a file that nobody looks at, gives descriptors of its own to other files, and reads code that has just been published.

#![allow(unsafe_code)]

use super::functions::FunctionTable;
use calque_backend::{Arch, HostIsa};
use calque_ir::GuestAddr;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::ptr::null_mut;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Where the two files are.
const DIR: &str = "/tmp";
/// `JITHEADER_MAGIC` and version of the format.
const MAGIC: u32 = 0x4a69_5444;
const VERSION: u32 = 1;
/// Bytes of the header, and of a record's head.
const HEADER: u32 = 40;
const RECORD: u32 = 16;
/// `JIT_CODE_LOAD`.
const CODE_LOAD: u32 = 0;

/// What `perf` is told.
pub struct Perf {
    state: Mutex<State>,
}

struct State {
    pid: u32,
    files: Option<Files>,
    functions: FunctionTable,
    /// Number of the next translation.
    index: u64,
}

struct Files {
    map: File,
    dump: File,
}

/// `perf` at rest, for `fork`.
pub(crate) struct Frozen<'a>(#[allow(dead_code, reason = "held")] MutexGuard<'a, State>);

impl Perf {
    /// Opens the files of this process; a line on stderr if that fails. Separate debug files are in `debug_dirs`.
    pub(crate) fn new(debug_dirs: Vec<PathBuf>) -> Perf {
        let state = State { pid: 0, files: None, functions: FunctionTable::new(debug_dirs), index: 0 };
        Perf { state: Mutex::new(state) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps other threads out: for `fork`.
    pub(crate) fn freeze(&self) -> Frozen<'_> {
        Frozen(self.lock())
    }

    /// Tells of code that has just been published: made from what is at `pc`, `len` bytes from `start` on.
    pub(crate) fn published(&self, pc: GuestAddr, start: u64, len: usize) {
        let mut state = self.lock();
        if state.pid != std::process::id() {
            // At first, and in a child of a fork, which has files of its own.
            state.pid = std::process::id();
            let old = state.files.take();
            state.files = Files::create(state.pid, old).inspect_err(|e| eprintln!("calque: --perf: {e}")).ok();
        }
        let name = state.name(pc);
        let index = state.index;
        state.index += 1;
        let Some(files) = &mut state.files else { return };
        if let Err(error) = files.add(&name, index, start, len) {
            eprintln!("calque: --perf: {error}");
            state.files = None;
        }
    }
}

impl State {
    /// Demangled function and file of the region at `pc`.
    fn name(&mut self, pc: GuestAddr) -> String {
        let found = self.functions.at(pc, false);
        let function = &self.functions.functions[found.function as usize];
        let name = match &function.name {
            Some(name) => addr2line::demangle_auto(name.into(), None).into_owned(),
            None => format!("{pc}"),
        };
        match self.functions.file_name(function.place) {
            Some(file) => format!("{name} [{file}]"),
            None => name,
        }
    }
}

impl Files {
    /// The files of process `pid`, under the descriptors of `old` if that has some.
    fn create(pid: u32, old: Option<Files>) -> io::Result<Files> {
        let map = File::create(format!("{DIR}/perf-{pid}.map"))?;
        let path = format!("{DIR}/jit-{pid}.dump");
        let dump = File::options().read(true).write(true).create(true).truncate(true).open(path)?;
        let Files { map, dump } = match old {
            Some(old) => {
                replace(&old.map, &map)?;
                replace(&old.dump, &dump)?;
                old
            }
            None => Files { map: hide(map)?, dump: hide(dump)? },
        };
        (&dump).write_all(&header(pid))?;
        announce(&dump)?;
        Ok(Files { map, dump })
    }

    fn add(&mut self, name: &str, index: u64, start: u64, len: usize) -> io::Result<()> {
        writeln!(self.map, "{start:x} {len:x} {name}")?;
        // SAFETY: code that has just been published, which stays until a reset, for which this thread would have to stop.
        let code = unsafe { std::slice::from_raw_parts(start as *const u8, len) };
        let size = RECORD as usize + 8 + 4 * 8 + name.len() + 1 + len;
        let mut record = Vec::with_capacity(size);
        record.extend(CODE_LOAD.to_ne_bytes());
        record.extend((size as u32).to_ne_bytes());
        record.extend(now().to_ne_bytes());
        let tid = nix::unistd::gettid().as_raw() as u32;
        record.extend(std::process::id().to_ne_bytes());
        record.extend(tid.to_ne_bytes());
        [start, start, len as u64, index].iter().for_each(|word| record.extend(word.to_ne_bytes()));
        record.extend(name.as_bytes());
        record.push(0);
        record.extend(code);
        self.dump.write_all(&record)
    }
}

/// The same file under a descriptor that the guest does not see.
fn hide(file: File) -> io::Result<File> {
    Ok(File::from(crate::hidden::hide(&file)?))
}

/// Lets the descriptor of `old` stand for the file of `new`.
fn replace(old: &File, new: &File) -> io::Result<()> {
    // SAFETY: both are open; the old file is not used any more.
    let result = unsafe { libc::dup3(new.as_raw_fd(), old.as_raw_fd(), libc::O_CLOEXEC) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn header(pid: u32) -> Vec<u8> {
    // EM_X86_64 and EM_AARCH64 (elf.h).
    let machine: u32 = match HostIsa::native().arch {
        Arch::X86_64 => 62,
        Arch::Aarch64 => 183,
    };
    let mut out = Vec::new();
    [MAGIC, VERSION, HEADER, machine, 0, pid].iter().for_each(|word| out.extend(word.to_ne_bytes()));
    [now(), 0].iter().for_each(|word| out.extend(word.to_ne_bytes()));
    out
}

/// Lets `perf` see that there is a dump: it records executable mappings.
fn announce(dump: &File) -> io::Result<()> {
    // SAFETY: a new mapping that is never touched.
    let page = unsafe {
        libc::mmap(null_mut(), 4096, libc::PROT_READ | libc::PROT_EXEC, libc::MAP_PRIVATE, dump.as_raw_fd(), 0)
    };
    if page == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// The clock that `perf record -k mono` stamps with.
fn now() -> u64 {
    let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC).expect("there is a monotonic clock");
    now.tv_sec() as u64 * 1_000_000_000 + now.tv_nsec() as u64
}
