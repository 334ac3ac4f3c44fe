//! The memory that cases work on, at fixed guest addresses.
//!
//! # Safety
//! The pages are mapped where nothing was mapped before, owned by the one [`Pages`] that holds the lock, and unmapped
//! with it.

#![allow(unsafe_code)]

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Where code stands: below 2 GiB, so that 32-bit addresses reach code and data, and no power of two.
pub const CODE: u64 = 0x4567_8000;
/// Bytes for code.
pub const CODE_SIZE: u64 = 4096;
/// Memory that cases work on; what lies around it is unmapped.
pub const DATA: u64 = 0x4577_8000;
/// Bytes of it.
pub const DATA_SIZE: u64 = 3 * 4096;
/// Where a taken branch at the end of the code goes.
pub const TAKEN: u64 = CODE + CODE_SIZE - 32;

static LOCK: Mutex<()> = Mutex::new(());

/// The mapped pages, for one user at a time.
pub struct Pages {
    _lock: MutexGuard<'static, ()>,
}

impl Pages {
    /// Maps them.
    pub fn take() -> Pages {
        let lock = LOCK.lock().unwrap_or_else(PoisonError::into_inner);
        map(DATA, DATA_SIZE, libc::PROT_READ | libc::PROT_WRITE);
        if cfg!(target_arch = "x86_64") {
            map(CODE, CODE_SIZE, libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC);
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
        for (at, size) in [(CODE, CODE_SIZE), (DATA, DATA_SIZE)] {
            // SAFETY: mapped by `take` or not at all, and nothing else refers to it.
            unsafe { libc::munmap(at as *mut _, size as usize) };
        }
    }
}

fn map(at: u64, size: u64, prot: i32) {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED_NOREPLACE;
    // SAFETY: MAP_FIXED_NOREPLACE never replaces a mapping.
    let got = unsafe { libc::mmap(at as *mut _, size as usize, prot, flags, -1, 0) };
    assert_eq!(got as u64, at, "cannot map {at:#x}: {}", std::io::Error::last_os_error());
}
