//! Code memory: one memory file mapped twice, executable and writable, so that no page is ever both.
//!
//! # Safety
//! 1. Both mappings cover the same `size` bytes of the file for the life of the `CodeMemory`.
//! 2. Bytes are written only into ranges handed out by `allocate` and not yet published, by the thread that got them; what
//!    is published is never written again before `reset`, which needs every thread to be outside generated code, except for
//!    single branches ([`CodeMemory::patch`] on x86-64, [`CodeMemory::replace_branch`] on AArch64).
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
const ALIGNMENT: usize = 32;

/// `MFD_EXEC` (include/uapi/linux/memfd.h, Linux 6.3): asks for an executable file where the sysctl `vm.memfd_noexec` is 1.
const MFD_EXEC: libc::c_uint = 0x10;

pub(crate) struct CodeMemory {
    executable: NonNull<u8>,
    writable: NonNull<u8>,
    size: usize,
    used: AtomicUsize,
}

// SAFETY: the mappings belong to the process, not to a thread; concurrent writes are excluded by invariant 2.
unsafe impl Send for CodeMemory {}
// SAFETY: as above.
unsafe impl Sync for CodeMemory {}

impl CodeMemory {
    /// Reserves `size` bytes; pages are allocated as they are written.
    pub(crate) fn new(size: usize) -> Result<Self, CacheError> {
        Self::executable_at(None, size)
    }

    /// The same, with the executable mapping at `place` if nothing is there.
    pub(crate) fn near(place: usize, size: usize) -> Result<Self, CacheError> {
        Self::executable_at(NonNull::new(place as *mut u8), size)
    }

    fn executable_at(place: Option<NonNull<u8>>, size: usize) -> Result<Self, CacheError> {
        let limit = FileLimit::raised()?;
        let size = size.min(limit.hard()) & !(PAGE - 1);
        let file = memory_file(size)?;
        let writable = map(None, size, libc::PROT_READ | libc::PROT_WRITE, &file).map_err(CacheError::Map)?;
        let runs = libc::PROT_READ | libc::PROT_EXEC;
        let executable = match place.and_then(|place| map_free(place, size, runs, &file)) {
            Some(executable) => executable,
            None => map(None, size, runs, &file).map_err(CacheError::ExecRefused)?,
        };
        Ok(Self { executable, writable, size, used: AtomicUsize::new(0) })
    }

    /// Takes `len` bytes; `None` if the memory is full. The offset is from the start of both mappings.
    pub(crate) fn allocate(&self, len: usize) -> Option<usize> {
        let step = len.next_multiple_of(ALIGNMENT);
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

    /// Where the next `allocate` begins.
    pub(crate) fn peek(&self) -> usize {
        self.used()
    }

    /// Host address of offset 0.
    pub(crate) fn base(&self) -> u64 {
        self.executable.as_ptr() as u64
    }

    /// Makes the 32-bit displacement at offset `at`, the end of an instruction, lead to offset `to`: one store, which threads that run the code
    /// see whole, because the displacement lies in an aligned 8-byte word (SDM vol. 3 9.1.1). Beside `clear_byte` the one write to published code.
    pub(crate) fn patch(&self, at: u32, to: u32) {
        assert!(at as usize + 4 <= self.used() && at % 8 <= 4);
        let displacement = to.wrapping_sub(at + 4);
        // SAFETY: inside the mapping; a misaligned store as the processor makes it, not as an atomic of Rust's.
        unsafe { self.writable.add(at as usize).cast::<u32>().write_unaligned(displacement) };
    }

    /// Clears the byte at offset `at`, the displacement of a JRCXZ, which then leads to the next instruction: one store of a byte.
    pub(crate) fn clear_byte(&self, at: u32) {
        assert!((at as usize) < self.used());
        // SAFETY: inside the mapping.
        unsafe {
            self.writable.add(at as usize).cast::<std::sync::atomic::AtomicU8>().as_ref().store(0, Ordering::Release)
        };
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
        map(Some(self.executable), self.size, libc::PROT_READ | libc::PROT_EXEC, &file)
            .map_err(CacheError::ExecRefused)?;
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

/// Maps the whole file at `at`, if nothing is there.
fn map_free(at: NonNull<u8>, size: usize, protection: i32, file: &OwnedFd) -> Option<NonNull<u8>> {
    let flags = libc::MAP_SHARED | libc::MAP_FIXED_NOREPLACE;
    // SAFETY: a new mapping, which replaces none. Kernels before 4.17 take the address as a hint; then the mapping is not what
    // was asked for, and goes again.
    unsafe {
        let p = libc::mmap(at.as_ptr().cast(), size, protection, flags, file.as_raw_fd(), 0);
        if p == libc::MAP_FAILED {
            return None;
        }
        if p.cast() != at.as_ptr() {
            libc::munmap(p, size);
            return None;
        }
    }
    Some(at)
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
