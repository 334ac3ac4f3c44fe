//! `execve`: the guest process becomes another program.
//!
//! The host process executes Calque again (`/proc/self/exe`) with the same options, the program, and its arguments; what the
//! kernel keeps across `execve` (descriptors, mask, ignored signals, timers, limits) is kept because the host's
//! state is the guest's. Programs that the host itself runs (AArch64 ones on AArch64) are executed as they are.
//!
//! Everything that can fail is tried before: the file is resolved as the new Calque will resolve it, so that a guest sees
//! ENOENT, EACCES, ENOEXEC... and goes on.
//!
//! The environment is passed as it is, but for variables that the host's own dynamic linker and allocator would act upon
//! (`LD_PRELOAD` of x86-64 libraries...): these travel as options `-E NAME=VALUE`.
//!
//! # Safety
//! One raw `execve` with vectors built here, and one duplicated descriptor.

#![allow(unsafe_code)]

use crate::fork;
use crate::load;
use crate::profile::Ends;
use crate::signal::{SIG_DFL, SIG_IGN, SYNCHRONOUS, host};
use crate::thread::Thread;
use nix::errno::Errno;
use std::ffi::{CStr, CString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The running Calque's own file.
const SELF: &CStr = c"/proc/self/exe";

/// Executes `path` in place of the guest program. Returns only if that is not possible.
pub fn exec(thread: &mut Thread, path: &Path, argv: Vec<CString>, envp: Vec<CString>) -> Errno {
    let options = &thread.process.options;
    let Ok(target) = CString::new(path.as_os_str().as_bytes()) else { return Errno::EINVAL };
    match load::resolve(path, argv.clone(), options.sysroot.as_deref()) {
        Ok(_) => {}
        // The host's kernel knows best whether it can run what is no x86-64 program.
        Err(error) if error.errno() == Errno::ENOEXEC => return replace(thread, Request::new(target, argv, envp)),
        Err(error) => return error.errno(),
    }
    let (kept, moved): (Vec<_>, Vec<_>) = envp.into_iter().partition(|var| !acts_on_host(var));
    let mut args: Vec<CString> = vec![c"calque".into(), options.command().into()];
    args.extend(options.to_args().iter().filter_map(|arg| CString::new(arg.as_bytes()).ok()));
    args.extend(crate::lockstep::exec_argument());
    for var in moved {
        args.extend([c"-E".into(), var]);
    }
    let mut argv = argv.into_iter();
    let argv0 = argv.next().unwrap_or_default();
    args.extend([c"--argv0".into(), argv0, c"--".into(), explicit(target)]);
    args.extend(argv);
    replace(thread, Request::new(SELF.into(), args, kept))
}

/// A path with a slash in it: the command line looks others up in PATH, `execve` does not.
fn explicit(path: CString) -> CString {
    if path.as_bytes().contains(&b'/') {
        return path;
    }
    let dotted = [b"./", path.as_bytes()].concat();
    CString::new(dotted).expect("a C string has no NUL inside")
}

/// Whether the host's dynamic linker or C library would act upon this variable.
fn acts_on_host(var: &CStr) -> bool {
    [&b"LD_"[..], b"GLIBC_TUNABLES=", b"MALLOC_"].iter().any(|name| var.to_bytes().starts_with(name))
}

/// What is handed to the kernel. It belongs to the `Thread`, so that the parent of a vfork child, whose stack frames nobody unwinds, frees it.
#[derive(Default)]
pub(crate) struct Request {
    path: CString,
    /// What the vectors point to.
    _strings: [Vec<CString>; 2],
    /// NULL-terminated vectors of the addresses of arguments and environment.
    argv_pointers: Vec<usize>,
    envp_pointers: Vec<usize>,
}

impl Request {
    fn new(path: CString, argv: Vec<CString>, envp: Vec<CString>) -> Self {
        let pointers = |strings: &[CString]| strings.iter().map(|s| s.as_ptr() as usize).chain([0]).collect();
        let (argv_pointers, envp_pointers) = (pointers(&argv), pointers(&envp));
        Self { path, _strings: [argv, envp], argv_pointers, envp_pointers }
    }
}

/// The system call, with the signal state that the guest's own `execve` would hand on.
fn replace(thread: &mut Thread, request: Request) -> Errno {
    let group = Arc::clone(&thread.group);
    let _stopped = fork::before_end(thread, &group);
    thread.process.write_profile(Ends::Executes);
    if std::ptr::eq(&*group, &*thread.process.home) {
        thread.process.code.save(thread.process);
    }
    thread.request = request;
    let Request { path, argv_pointers, envp_pointers, .. } = &thread.request;
    let handed_on = thread.signals.actions.ignored();
    let synchronous: Vec<i32> = (1..=64).filter(|&n| SYNCHRONOUS.contains(n)).collect();
    let mask = host::set_mask_exactly(thread.signals.mask());
    thread.signals.hand_back_held();
    for &signo in &synchronous {
        host::set_disposition(signo, if handed_on.contains(signo) { SIG_IGN } else { SIG_DFL }, 0);
    }
    // SAFETY: NUL-terminated strings in NULL-terminated vectors that live until the call returns.
    unsafe { libc::syscall(libc::SYS_execve, path.as_ptr(), argv_pointers.as_ptr(), envp_pointers.as_ptr()) };
    let errno = Errno::last();
    for &signo in &synchronous {
        host::install(signo, 0);
    }
    host::set_mask_exactly(mask);
    errno
}

/// The path of the file behind an open descriptor, for `execveat(AT_EMPTY_PATH)`: its name if it still has one. A file without
/// one (a memory file) is executed through a duplicate that survives `execve`, and that the new program sees as one more open
/// descriptor.
pub fn path_of_descriptor(fd: i32) -> PathBuf {
    let link = |fd: i32| PathBuf::from(format!("/proc/self/fd/{fd}"));
    match std::fs::read_link(link(fd)) {
        Ok(path) if path.is_absolute() && path.exists() => path,
        // SAFETY: duplicates a descriptor of the guest's; -1 for one that is not open names no file.
        _ => link(unsafe { libc::fcntl(fd, libc::F_DUPFD, DUPLICATE) }),
    }
}

/// Lowest number of such a duplicate: out of the way of what programs expect to be free.
const DUPLICATE: i32 = 100;
