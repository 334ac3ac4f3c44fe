//! Code memory: one memory file mapped twice, executable and writable, so that no page is ever both.
//!
//! # Safety
//! 1. Both mappings cover the same `size` bytes of the file for the life of the `CodeMemory`.
//! 2. Bytes are written only into ranges handed out by `allocate` and not yet published, by the thread that got them; what
//!    is published is never written again before `reset`, which needs every thread to be outside generated code, except for
//!    single branches (`patch` and `clear_byte` of `arch/identical/memory.rs`, [`CodeMemory::replace_branch`] on AArch64).
//! 3. After `fork` the child shares the file with its parent until it has called `unshare`.
#![allow(unsafe_code)]

use super::CacheError;
use crate::abi::HostCode;
use crate::arch;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

/// Code starts at multiples of this: a fetch window of current processors.
const FETCHED: usize = 32;

/// `MFD_EXEC` (include/uapi/linux/memfd.h, Linux 6.3): asks for an executable file where the sysctl `vm.memfd_noexec` is 1.
const MFD_EXEC: libc::c_uint = 0x10;

pub(crate) struct CodeMemory {
    pub(crate) executable: NonNull<u8>,
    pub(crate) writable: NonNull<u8>,
    size: usize,
    /// Code starts at multiples of this.
    alignment: usize,
    used: AtomicUsize,
}

// SAFETY: the mappings belong to the process, not to a thread; concurrent writes are excluded by invariant 2.
unsafe impl Send for CodeMemory {}
// SAFETY: as above.
unsafe impl Sync for CodeMemory {}

impl CodeMemory {
    /// Reserves `size` bytes; pages are allocated as they are written.
    pub(crate) fn new(size: usize) -> Result<Self, CacheError> {
        Self::with_executable(size, FETCHED, |_, _| None)
    }

    /// The same, with the executable mapping where `place` puts it, given the size and the file; anywhere if it yields `None`. Code starts at
    /// multiples of `alignment`.
    pub(crate) fn with_executable(
        size: usize,
        alignment: usize,
        place: impl FnOnce(usize, &OwnedFd) -> Option<NonNull<u8>>,
    ) -> Result<Self, CacheError> {
        let limit = FileLimit::raised()?;
        let size = size.min(limit.hard()) & !(PAGE - 1);
        let file = memory_file(size)?;
        let writable = map(None, size, libc::PROT_READ | libc::PROT_WRITE, &file).map_err(CacheError::Map)?;
        let executable = match place(size, &file) {
            Some(executable) => executable,
            None => map(None, size, RUNS, &file).map_err(CacheError::ExecRefused)?,
        };
        Ok(Self { executable, writable, size, alignment, used: AtomicUsize::new(0) })
    }

    /// Takes `len` bytes; `None` if the memory is full. The offset is from the start of both mappings.
    pub(crate) fn allocate(&self, len: usize) -> Option<usize> {
        let step = len.next_multiple_of(self.alignment);
        let take = |used: usize| used.checked_add(step).filter(|&end| end <= self.size);
        self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).ok()
    }

    /// Writes code into a range that `allocate` gave out, and makes it ready for execution.
    pub(crate) fn write(&self, offset: usize, code: &[u8]) {
        self.write_here(offset, code);
        arch::sync_other_threads();
    }

    /// The same for code that other threads come upon only where nothing has been fetched before: without asking them to drop what
    /// they have prefetched.
    pub(crate) fn write_here(&self, offset: usize, code: &[u8]) {
        assert!(offset + code.len() <= self.used.load(Ordering::Relaxed));
        // SAFETY: the range lies inside both mappings (checked against `used` <= `size`), and nobody else reads or
        // writes it (invariant 2).
        let (executable, written) = unsafe {
            let written = self.writable.add(offset);
            written.copy_from_nonoverlapping(NonNull::from(code).cast(), code.len());
            (self.executable.add(offset), written)
        };
        arch::sync_icache(executable.as_ptr(), written.as_ptr(), code.len());
    }

    /// The same for instruction words of AArch64.
    pub(crate) fn write_words(&self, offset: usize, code: &[u32]) {
        // SAFETY: the bytes of a slice; AArch64's instructions are little-endian as both hosts' data are.
        self.write_here(offset, unsafe { std::slice::from_raw_parts(code.as_ptr().cast(), size_of_val(code)) });
    }

    /// Replaces the branch at `offset`, one of AArch64's `b`, by another: one store, and one of the instructions that may be changed
    /// while other threads run them (Arm ARM B2.2.5). They see it at once or soon; [`arch::sync_other_threads`] makes it at once.
    pub(crate) fn replace_branch(&self, offset: usize, word: u32) {
        assert!(offset + 4 <= self.used() && offset.is_multiple_of(4));
        // SAFETY: inside both mappings, aligned; the mapping is only written here and before publication.
        let (executable, written) = unsafe {
            let written = self.writable.add(offset);
            written.cast::<AtomicU32>().as_ref().store(word.to_le(), Ordering::Release);
            (self.executable.add(offset), written)
        };
        arch::sync_icache(executable.as_ptr(), written.as_ptr(), 4);
    }

    /// Where code at `offset` runs.
    pub(crate) fn address(&self, offset: usize) -> HostCode {
        HostCode(self.executable.as_ptr() as usize + offset)
    }

    /// Offset of an address inside the executable mapping.
    pub(crate) fn offset(&self, pc: usize) -> Option<usize> {
        pc.checked_sub(self.executable.as_ptr() as usize).filter(|&o| o < self.size)
    }

    /// Bytes in use.
    pub(crate) fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// Forgets everything; the pages go back to the system.
    pub(crate) fn reset(&self) {
        self.used.store(0, Ordering::Relaxed);
        // SAFETY: frees the file's pages under our own mapping; no thread executes there (invariant 2). If it fails, the
        // pages merely stay allocated.
        unsafe { libc::madvise(self.writable.as_ptr().cast(), self.size, libc::MADV_REMOVE) };
    }

    /// In the child after `fork`: a file of its own at the same addresses, with the same code.
    pub(crate) fn unshare(&self) -> Result<(), CacheError> {
        let _limit = FileLimit::raised()?;
        let file = memory_file(self.size)?;
        let used = self.used();
        // SAFETY: reads the `used` bytes of the executable mapping, which nobody writes (invariant 2).
        let code = unsafe { std::slice::from_raw_parts(self.executable.as_ptr(), used) };
        let copied = nix::sys::uio::pwrite(&file, code, 0).map_err(|e| CacheError::Map(e.into()))?;
        if copied != used {
            return Err(CacheError::Map(io::ErrorKind::WriteZero.into()));
        }
        map(Some(self.writable), self.size, libc::PROT_READ | libc::PROT_WRITE, &file).map_err(CacheError::Map)?;
        map(Some(self.executable), self.size, RUNS, &file).map_err(CacheError::ExecRefused)?;
        Ok(())
    }

    /// Both mappings, as (address, length): what the guest must neither see nor touch.
    pub(crate) fn mappings(&self) -> [(usize, usize); 2] {
        [(self.executable.as_ptr() as usize, self.size), (self.writable.as_ptr() as usize, self.size)]
    }
}

impl Drop for CodeMemory {
    fn drop(&mut self) {
        for (address, len) in self.mappings() {
            // SAFETY: our own mappings, which nothing refers to any more.
            unsafe { libc::munmap(address as *mut libc::c_void, len) };
        }
    }
}

/// Protection of the mapping that is executed.
pub(crate) const RUNS: i32 = libc::PROT_READ | libc::PROT_EXEC;

/// Largest page of any host, in bytes.
const PAGE: usize = 64 << 10;

/// The guest's soft limit for file sizes (`ulimit -f`), out of force while this lives: it is not meant for our memory file.
struct FileLimit {
    soft: libc::rlim_t,
    hard: libc::rlim_t,
}

impl FileLimit {
    fn raised() -> Result<Self, CacheError> {
        let (soft, hard) = getrlimit(Resource::RLIMIT_FSIZE).map_err(|e| CacheError::Map(e.into()))?;
        let limit = Self { soft, hard };
        if soft != hard {
            setrlimit(Resource::RLIMIT_FSIZE, hard, hard).map_err(|e| CacheError::Map(e.into()))?;
        }
        Ok(limit)
    }

    /// Most bytes that a file may have all the same.
    fn hard(&self) -> usize {
        usize::try_from(self.hard).unwrap_or(usize::MAX)
    }
}

impl Drop for FileLimit {
    fn drop(&mut self) {
        if self.soft != self.hard {
            // Lowering a soft limit cannot fail.
            let _ = setrlimit(Resource::RLIMIT_FSIZE, self.soft, self.hard);
        }
    }
}

fn memory_file(size: usize) -> Result<OwnedFd, CacheError> {
    let create = |flags: libc::c_uint| {
        // SAFETY: a system call with a constant string.
        unsafe { libc::memfd_create(c"calque-code".as_ptr(), flags) }
    };
    let mut fd = create(libc::MFD_CLOEXEC | MFD_EXEC);
    if fd < 0 {
        fd = create(libc::MFD_CLOEXEC);
    }
    if fd < 0 {
        return Err(CacheError::Map(io::Error::last_os_error()));
    }
    // SAFETY: a new descriptor that nobody else owns.
    let file = unsafe { OwnedFd::from_raw_fd(fd) };
    nix::unistd::ftruncate(&file, size as i64).map_err(|e| CacheError::Map(e.into()))?;
    Ok(file)
}

/// Maps the whole file, over `at` if given.
fn map(at: Option<NonNull<u8>>, size: usize, protection: i32, file: &OwnedFd) -> io::Result<NonNull<u8>> {
    let (address, fixed) = at.map_or((std::ptr::null_mut(), 0), |a| (a.as_ptr(), libc::MAP_FIXED));
    // SAFETY: either a new mapping, or one that replaces our own of the same size.
    let p = unsafe { libc::mmap(address.cast(), size, protection, libc::MAP_SHARED | fixed, file.as_raw_fd(), 0) };
    if p == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    Ok(NonNull::new(p.cast()).expect("mmap does not map page 0 unasked"))
}
