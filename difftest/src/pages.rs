//! The memory that cases work on, at fixed guest addresses.
//!
//! | address                 | what                                                                  |
//! |-------------------------|-----------------------------------------------------------------------|
//! | [`CODE`]                | the code under test, for the processor                                |
//! | [`DATA`], 3 pages       | read and written                                                      |
//! | behind it, 1 page       | [`tail`]: only read, so that a store across this edge must do nothing |
//! | around                  | unmapped                                                              |
//!
//! # Safety
//! The pages are mapped where nothing was mapped before, owned by the one [`Pages`] that holds the lock, and unmapped
//! with it. The code page is shared with the child that runs it (`native.rs`); the data pages are private, so that each
//! process has its own.

#![allow(unsafe_code)]

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
        if cfg!(target_arch = "x86_64") {
            map(CODE, CODE_SIZE, libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC, libc::MAP_SHARED);
        }
        Pages { _lock: lock }
    }

    /// Writes at `offset` into the code page.
    #[cfg(target_arch = "x86_64")]
    pub fn set_code(&mut self, offset: u64, bytes: &[u8]) {
        assert!(offset + bytes.len() as u64 <= CODE_SIZE);
        // SAFETY: the code page is mapped, ours, and the bytes fit.
        unsafe { ((CODE + offset) as *mut u8).copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
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
        for (at, size) in [(CODE, CODE_SIZE), (DATA, DATA_SIZE + TAIL_SIZE)] {
            // SAFETY: mapped by `take` or not at all, and nothing else refers to it.
            unsafe { libc::munmap(at as *mut _, size as usize) };
        }
    }
}

fn map(at: u64, size: u64, prot: i32, sharing: i32) {
    let flags = sharing | libc::MAP_ANONYMOUS | libc::MAP_FIXED_NOREPLACE;
    // SAFETY: MAP_FIXED_NOREPLACE never replaces a mapping.
    let got = unsafe { libc::mmap(at as *mut _, size as usize, prot, flags, -1, 0) };
    assert_eq!(got as u64, at, "cannot map {at:#x}: {}", std::io::Error::last_os_error());
}
