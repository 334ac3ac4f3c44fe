//! `Call`: one system call of a guest thread on its way to the host.
//!
//! Invariants:
//! 1. A handler runs only after [`Call::admit`]: every argument whose type says that the kernel follows it is null or
//!    lies in the guest's part of the address space, and no descriptor is one of Calque's own.
//! 2. Code pages in buffers that the kernel writes have been given up before the call (`prepare_kernel_write`), so
//!    the kernel does not meet write-protected pages, and stay so until the call ends.
//! 3. A call that sleeps goes through [`Call::host`], which a signal can keep from starting; a handler hands that error
//!    on at once, having changed nothing in the guest. Whether a call that has slept starts again is the host
//!    kernel's decision: `SA_RESTART` is mirrored to it, so EINTR is the guest's result.

use crate::host;
use crate::row::{Arg, Dir, How, IOV_MAX, Restart, Row};
use crate::table;
use bytemuck::{AnyBitPattern, NoUninit};
use calque_runtime::load::in_sysroot;
use calque_runtime::memory::{is_guest_address, is_guests};
use calque_runtime::signal::NOT_STARTED;
use calque_runtime::{GuestAddr, Outcome, Process, Thread, access, hidden};
use nix::errno::Errno;
use std::ffi::{CString, OsStr};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// `PATH_MAX` (linux/limits.h), with the NUL.
pub(crate) const PATH_MAX: usize = 4096;

/// `AT_FDCWD` (linux/fcntl.h).
pub(crate) const AT_FDCWD: u64 = libc::AT_FDCWD as u64;

/// A system call: its row and arguments.
pub(crate) struct Call<'a> {
    pub thread: &'a mut Thread,
    pub row: &'static Row,
    pub args: [u64; 6],
    /// A signal came before the call had an effect: it is made again after the signal's delivery.
    not_started: bool,
    /// Paths in the sysroot that stand in for the guest's own.
    paths: Vec<CString>,
    /// Buffers in memory that may be executed, which the kernel writes until the call ends.
    written: Vec<(GuestAddr, u64)>,
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        for (addr, len) in self.written.drain(..) {
            self.thread.process.mem.end_kernel_write(addr, len);
        }
    }
}

impl<'a> Call<'a> {
    pub(crate) fn new(thread: &'a mut Thread, row: &'static Row, args: [u64; 6]) -> Call<'a> {
        Call { thread, row, args, not_started: false, paths: Vec::new(), written: Vec::new() }
    }

    /// Carries the call out; RAX gets its result.
    pub(crate) fn run(&mut self) -> Outcome {
        let result = match self.row.how {
            How::Ctl(handler) => match self.admit() {
                Ok(()) => return handler(self),
                Err(errno) => Err(errno),
            },
            How::Do(handler) => self.admit().and_then(|()| handler(self)),
            How::Pass => self.admit().and_then(|()| self.pass()),
            How::Fail(errno) => Err(errno),
            How::Nosys => Err(Errno::ENOSYS),
        };
        self.finish(result)
    }

    /// What the guest sees of `result`.
    pub(crate) fn finish(&mut self, result: Result<u64, Errno>) -> Outcome {
        if self.not_started {
            return Outcome::Interrupted;
        }
        self.thread.cpu.gpr[0] = match result {
            Ok(value) => value,
            Err(errno) => -(errno as i64) as u64,
        };
        Outcome::Continue
    }

    /// Checks what the arguments point to (invariants 1 and 2).
    pub(crate) fn admit(&mut self) -> Result<(), Errno> {
        for (i, &arg) in self.row.args.iter().enumerate() {
            let value = self.args[i];
            match arg {
                _ if arg.is_number() => {}
                Arg::Fd | Arg::DirFd if hidden::is_hidden(value as i32) => return Err(Errno::EBADF),
                Arg::Fd | Arg::DirFd => {}
                // The kernel might follow it although no type says how; handlers check their own.
                Arg::Ptr if !is_guest_address(value) && matches!(self.row.how, How::Pass) => return Err(Errno::EFAULT),
                Arg::Ptr => {}
                _ => self.admit_memory(i, arg)?,
            }
        }
        Ok(())
    }

    /// Checks the memory behind argument `i`.
    fn admit_memory(&mut self, i: usize, arg: Arg) -> Result<(), Errno> {
        let args = self.args;
        for (dir, addr, len) in arg.buffers(&args, i) {
            if addr != 0 && len != 0 {
                self.admit_buffer(dir, addr, len)?;
            }
        }
        match arg {
            Arg::InIov(n) => self.admit_iov(Dir::In, args[i], args[n as usize]),
            Arg::OutIov(n) => self.admit_iov(Dir::Out, args[i], args[n as usize]),
            Arg::InMsg => self.admit_msg(Dir::In, args[i]),
            Arg::OutMsg => self.admit_msg(Dir::Out, args[i]),
            Arg::InMmsg(n) => self.admit_mmsg(Dir::In, args[i], args[n as usize]),
            Arg::OutMmsg(n) => self.admit_mmsg(Dir::Out, args[i], args[n as usize]),
            _ => Ok(()),
        }
    }

    fn admit_buffer(&mut self, dir: Dir, addr: u64, len: u64) -> Result<(), Errno> {
        let len = guests_own(addr, len)?;
        if dir == Dir::Out {
            self.will_be_written(GuestAddr(addr), len);
        }
        Ok(())
    }

    /// The kernel is going to write there.
    pub(crate) fn will_be_written(&mut self, addr: GuestAddr, len: u64) {
        if self.thread.process.prepare_kernel_write(addr, len) {
            self.written.push((addr, len));
        }
    }

    fn admit_iov(&mut self, dir: Dir, iov: u64, count: u64) -> Result<(), Errno> {
        each_in_iov(dir, iov, count, &mut |dir, base, len| self.admit_buffer(dir, base, len))
    }

    fn admit_msg(&mut self, dir: Dir, msg: u64) -> Result<(), Errno> {
        each_in_msg(dir, msg, &mut |dir, base, len| self.admit_buffer(dir, base, len))
    }

    fn admit_mmsg(&mut self, dir: Dir, msgs: u64, count: u64) -> Result<(), Errno> {
        (0..count.min(IOV_MAX)).try_for_each(|i| self.admit_msg(dir, msgs + i * crate::row::MMSGHDR))
    }

    /// The host's call of the same name, with the same arguments but for paths that the sysroot has.
    pub(crate) fn pass(&mut self) -> Result<u64, Errno> {
        let nr = table::host_number(self.row).ok_or(Errno::ENOSYS)?;
        let mut args = self.args;
        for i in 0..self.row.args.len() {
            if matches!(self.row.args[i], Arg::Path) {
                args[i] = self.path(i)?;
            }
        }
        self.host(nr, args)
    }

    /// Makes a host call: interruptible if the row says that the call sleeps.
    pub(crate) fn host<const N: usize>(&mut self, nr: libc::c_long, args: [u64; N]) -> Result<u64, Errno> {
        if self.row.restart == Restart::Quick {
            return host::quick(nr, args);
        }
        let result = self.thread.host_syscall(nr, host::six(args));
        self.sleeper_result(result)
    }

    /// Makes a host call that waits with the guest's signal mask `mask` instead of the thread's: `call` gets the mask for
    /// the kernel (see `Thread::with_mask`).
    pub(crate) fn host_with_mask<const N: usize>(
        &mut self,
        mask: u64,
        nr: libc::c_long,
        args: impl FnOnce(u64) -> [u64; N],
    ) -> Result<u64, Errno> {
        let result = self.thread.with_mask(calque_runtime::signal::SigSet(mask), |thread, mask| {
            thread.host_syscall(nr, host::six(args(host::ptr(&mask.0))))
        });
        self.sleeper_result(result)
    }

    fn sleeper_result(&mut self, result: i64) -> Result<u64, Errno> {
        if result == NOT_STARTED {
            self.not_started = true;
            return Err(Errno::EINTR);
        }
        if (-4095..0).contains(&result) { Err(Errno::from_raw(-result as i32)) } else { Ok(result as u64) }
    }

    /// What the call has done before a signal kept the rest from starting is not done again.
    pub(crate) fn has_started(&mut self) {
        self.not_started = false;
    }

    /// The call that a signal kept from starting is made again after it.
    pub(crate) fn not_started(&mut self) -> Errno {
        self.not_started = true;
        Errno::EINTR
    }

    pub(crate) fn process(&self) -> &Process {
        self.thread.process
    }

    /// Argument `i` as an address.
    pub(crate) fn addr(&self, i: usize) -> GuestAddr {
        GuestAddr(self.args[i])
    }

    /// Argument `i` as an `int`.
    pub(crate) fn int(&self, i: usize) -> i32 {
        self.args[i] as i32
    }

    /// Argument `i` as an `unsigned int`.
    pub(crate) fn uint(&self, i: usize) -> u32 {
        self.args[i] as u32
    }

    /// Reads what argument `i` points to.
    pub(crate) fn read<T: AnyBitPattern + NoUninit>(&self, i: usize) -> Result<T, Errno> {
        Ok(access::read(self.addr(i))?)
    }

    /// Reads what argument `i` points to unless it is null.
    pub(crate) fn read_opt<T: AnyBitPattern + NoUninit>(&self, i: usize) -> Result<Option<T>, Errno> {
        if self.args[i] == 0 { Ok(None) } else { self.read(i).map(Some) }
    }

    /// Writes to where argument `i` points; 0 for the guest.
    pub(crate) fn write<T: NoUninit>(&self, i: usize, value: &T) -> Result<u64, Errno> {
        access::write(self.addr(i), value)?;
        Ok(0)
    }

    /// The text at argument `i`.
    pub(crate) fn text(&self, i: usize) -> Result<Vec<u8>, Errno> {
        text_at(self.args[i])
    }

    /// A pointer to the path at argument `i` for the host's kernel: the guest's own, or the sysroot's where the sysroot has
    /// such a file, or the guest's program for /proc/self/exe.
    pub(crate) fn path(&mut self, i: usize) -> Result<u64, Errno> {
        self.path_at(self.args[i])
    }

    /// The same for the path at `at`.
    pub(crate) fn path_at(&mut self, at: u64) -> Result<u64, Errno> {
        if at == 0 {
            return Ok(0);
        }
        let text = text_at(at)?;
        match crate::proc::exe(&text, self.process()).or_else(|| self.in_sysroot(&text)) {
            Some(path) => Ok(self.keep(path)),
            None => Ok(at),
        }
    }

    /// [`Call::path`] where a link at the end is looked at itself.
    pub(crate) fn path_nofollow(&mut self, i: usize) -> Result<u64, Errno> {
        self.path_nofollow_at(self.args[i])
    }

    /// The same for the path at `at`.
    pub(crate) fn path_nofollow_at(&mut self, at: u64) -> Result<u64, Errno> {
        if at == 0 || self.process().options.sysroot.is_none() {
            return Ok(at);
        }
        let text = text_at(at)?;
        let path = Path::new(OsStr::from_bytes(&text));
        let (Some(dir), Some(name)) = (path.parent(), path.file_name()) else { return Ok(at) };
        if is_the_machines(path) {
            return Ok(at);
        }
        let root = self.process().options.sysroot.as_deref();
        let found = in_sysroot(dir, root).join(name);
        if found == path || found.symlink_metadata().is_err() {
            return Ok(at);
        }
        Ok(self.keep(c_path(found)))
    }

    /// The file of the sysroot that an absolute `path` means, if it has such a file.
    fn in_sysroot(&self, path: &[u8]) -> Option<CString> {
        let path = Path::new(OsStr::from_bytes(path));
        if is_the_machines(path) {
            return None;
        }
        let root = self.process().options.sysroot.as_deref()?;
        let found = in_sysroot(path, Some(root));
        (found != path).then(|| c_path(found))
    }

    /// A pointer to `path` that stays valid until the call returns.
    pub(crate) fn keep(&mut self, path: CString) -> u64 {
        let pointer = path.as_ptr() as u64; // the heap block of a CString stays where it is when the vector grows
        self.paths.push(path);
        pointer
    }
}

/// The text at `at`.
pub(crate) fn text_at(at: u64) -> Result<Vec<u8>, Errno> {
    access::read_cstr(GuestAddr(at), PATH_MAX - 1)
}

/// Checks that a buffer is the guest's; how much of it the kernel may follow, which takes at most MAX_RW_COUNT bytes.
pub(crate) fn guests_own(addr: u64, len: u64) -> Result<u64, Errno> {
    let len = len.min(0x7fff_f000);
    if addr.checked_add(len).is_some_and(|end| is_guests(addr, end)) { Ok(len) } else { Err(Errno::EFAULT) }
}

/// Takes a buffer: direction, address, length.
type EachBuffer<'a> = &'a mut dyn FnMut(Dir, u64, u64) -> Result<(), Errno>;

/// The buffers of a `struct iovec[count]`. What cannot be read or is too long here is left to the kernel, which refuses it, too.
pub(crate) fn each_in_iov(dir: Dir, iov: u64, count: u64, each: EachBuffer<'_>) -> Result<(), Errno> {
    let count = count.min(IOV_MAX) as usize;
    let buffers = access::read_slice::<[u64; 2]>(GuestAddr(iov), count).unwrap_or_default();
    buffers.into_iter().filter(|[_, len]| *len != 0).try_for_each(|[base, len]| each(dir, base, len))
}

/// The buffers of a `struct msghdr`: name, namelen, iov, iovlen, control, controllen, flags.
pub(crate) fn each_in_msg(dir: Dir, msg: u64, each: EachBuffer<'_>) -> Result<(), Errno> {
    let Ok(header) = access::read::<[u64; 7]>(GuestAddr(msg)) else { return Ok(()) };
    let [name, namelen, iov, iovlen, control, controllen, _] = header;
    if name != 0 {
        each(dir, name, namelen & 0xffff_ffff)?;
    }
    if control != 0 {
        each(dir, control, controllen)?;
    }
    each_in_iov(dir, iov, iovlen, each)
}

/// Whether a path belongs to the machine or its users rather than to the system of programs and libraries that a sysroot
/// is. A sysroot made of packages has these directories, too, but empty.
fn is_the_machines(path: &Path) -> bool {
    const DIRECTORIES: [&str; 12] =
        ["/proc", "/sys", "/dev", "/run", "/tmp", "/var/tmp", "/var/run", "/home", "/root", "/mnt", "/media", "/srv"];
    path == Path::new("/") || DIRECTORIES.iter().any(|directory| path.starts_with(directory))
}

/// A path for the kernel.
fn c_path(path: PathBuf) -> CString {
    CString::new(path.into_os_string().into_vec()).expect("made of paths without a NUL")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sysroot_holds_programs_and_libraries_only() {
        for path in ["/", "//", "/proc", "/proc/self/maps", "/tmp/x", "/var/tmp/", "/dev/null"] {
            assert!(is_the_machines(Path::new(path)), "{path}");
        }
        for path in ["/usr", "/lib64/ld-linux-x86-64.so.2", "/etc/passwd", "/process", "/var/lib", "relative"] {
            assert!(!is_the_machines(Path::new(path)), "{path}");
        }
    }
}
