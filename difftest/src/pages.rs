//! The memory that cases work on, at fixed guest addresses.
//!
//! | address                 | what                                                                  |
//! |-------------------------|-----------------------------------------------------------------------|
//! | [`CODE`]                | the code under test, on x86-64 hosts; nobody can write to it there    |
//! | [`DATA`], 3 pages       | read and written                                                      |
//! | behind it, 1 page       | [`tail`]: only read, so that a store across this edge must do nothing |
//! | around                  | unmapped                                                              |
//!
//! # Safety
//! The pages are mapped where nothing was mapped before, owned by the one [`Pages`] that holds the lock, and unmapped
//! with it. The code page is shared with the child that runs it (`native.rs`), and written through another mapping: a store of the code under
//! test that leads there faults in the child as in every engine. The data pages are private, so that each process has its own.

#![allow(unsafe_code)]

use std::ptr::null_mut;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Where code stands: below 2 GiB, so that 32-bit addresses reach code and data, and no power of two.
pub const CODE: u64 = 0x4567_8000;
/// Bytes for code.
pub const CODE_SIZE: u64 = 4096;
/// Memory that cases work on.
pub const DATA: u64 = 0x4577_8000;
/// Bytes of it that can be written.
pub const DATA_SIZE: u64 = 3 * 4096;
/// Bytes behind them that can only be read.
pub const TAIL_SIZE: u64 = 4096;
/// A bit of MXCSR that AMD's processors have and the guest's has not: SSE does not insist on alignment.
pub(crate) const MISALIGNED: u32 = 1 << 17;
/// Where a taken branch at the end of the code goes.
pub const TAKEN: u64 = CODE + CODE_SIZE - 32;

static LOCK: Mutex<()> = Mutex::new(());

/// Contents of the page that can only be read.
pub fn tail() -> &'static [u8; TAIL_SIZE as usize] {
    static TAIL: [u8; TAIL_SIZE as usize] = {
        let mut bytes = [0; TAIL_SIZE as usize];
        let mut i = 0;
        while i < bytes.len() {
            bytes[i] = (i as u32).wrapping_mul(0x9e37_79b1).rotate_left(9) as u8;
            i += 1;
        }
        bytes
    };
    &TAIL
}

/// The mapped pages, for one user at a time.
pub struct Pages {
    _lock: MutexGuard<'static, ()>,
    /// The code page where it can be written; null on other hosts.
    code: *mut u8,
}

impl Pages {
    /// Maps them.
    pub fn take() -> Pages {
        let lock = LOCK.lock().unwrap_or_else(PoisonError::into_inner);
        map(DATA, DATA_SIZE + TAIL_SIZE, libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE);
        // SAFETY: the last page was just mapped; nothing else knows of it.
        unsafe {
            let end = DATA + DATA_SIZE;
            (end as *mut u8).copy_from_nonoverlapping(tail().as_ptr(), tail().len());
            assert_eq!(libc::mprotect(end as *mut _, TAIL_SIZE as usize, libc::PROT_READ), 0);
        }
        let code = if cfg!(target_arch = "x86_64") { map_code() } else { null_mut() };
        Pages { _lock: lock, code }
    }

    /// A byte of the code page as the code under test can read it, on x86-64 hosts.
    pub fn code(&self, at: usize) -> Option<u8> {
        let is_there = !self.code.is_null() && at < CODE_SIZE as usize;
        // SAFETY: the page is mapped and ours.
        is_there.then(|| unsafe { *self.code.add(at) })
    }

    /// Writes at `offset` into the code page.
    #[cfg(target_arch = "x86_64")]
    pub fn set_code(&mut self, offset: u64, bytes: &[u8]) {
        assert!(offset + bytes.len() as u64 <= CODE_SIZE);
        // SAFETY: the code page is mapped, ours, and the bytes fit.
        unsafe { self.code.add(offset as usize).copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
    }

    /// Sets the data pages.
    pub fn set_data(&mut self, data: &[u8]) {
        assert_eq!(data.len() as u64, DATA_SIZE);
        // SAFETY: the data pages are mapped and ours.
        unsafe { (DATA as *mut u8).copy_from_nonoverlapping(data.as_ptr(), data.len()) };
    }

    /// Reads the data pages.
    pub fn get_data(&mut self, data: &mut [u8]) {
        assert_eq!(data.len() as u64, DATA_SIZE);
        // SAFETY: the data pages are mapped and ours.
        unsafe { data.as_mut_ptr().copy_from_nonoverlapping(DATA as *const u8, data.len()) };
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        let code = self.code as u64;
        for (at, size) in [(CODE, CODE_SIZE), (DATA, DATA_SIZE + TAIL_SIZE), (code, CODE_SIZE)] {
            // SAFETY: mapped by `take` or not at all, and nothing else refers to it.
            unsafe { libc::munmap(at as *mut _, size as usize) };
        }
    }
}

/// Maps the code page, and again where it can be written.
fn map_code() -> *mut u8 {
    let check = |done: bool, what: &str| assert!(done, "{what}: {}", std::io::Error::last_os_error());
    // SAFETY: a new file, mapped where nothing is; the mappings keep it.
    unsafe {
        let fd = libc::memfd_create(c"calque-difftest".as_ptr(), 0);
        check(fd >= 0 && libc::ftruncate(fd, CODE_SIZE as i64) == 0, "cannot make a memory file");
        let (size, read, write) = (CODE_SIZE as usize, libc::PROT_READ, libc::PROT_WRITE);
        let fixed = libc::MAP_SHARED | libc::MAP_FIXED_NOREPLACE;
        let run = libc::mmap(CODE as *mut _, size, read | libc::PROT_EXEC, fixed, fd, 0);
        check(run as u64 == CODE, "cannot map the code page");
        let alias = libc::mmap(null_mut(), size, read | write, libc::MAP_SHARED, fd, 0);
        check(alias != libc::MAP_FAILED, "cannot map the code page for writing");
        libc::close(fd);
        alias.cast()
    }
}

fn map(at: u64, size: u64, prot: i32, sharing: i32) {
    let flags = sharing | libc::MAP_ANONYMOUS | libc::MAP_FIXED_NOREPLACE;
    // SAFETY: MAP_FIXED_NOREPLACE never replaces a mapping.
    let got = unsafe { libc::mmap(at as *mut _, size as usize, prot, flags, -1, 0) };
    assert_eq!(got as u64, at, "cannot map {at:#x}: {}", std::io::Error::last_os_error());
}
