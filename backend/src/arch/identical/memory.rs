//! What only identical translation asks of code memory: a place near the guest's programs, and displacements that change in published
//! code.
//!
//! # Safety
//! The invariants of `cache/memory.rs`.
#![allow(unsafe_code)]

use crate::cache::memory::RUNS;
use crate::cache::{CacheError, CodeMemory};
use std::os::fd::{AsRawFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU8, Ordering};

/// Units start at multiples of this: there are many short ones, and what they leave free between them is fetched in vain.
const ALIGNMENT: usize = 16;

impl CodeMemory {
    /// As `new`, with the executable mapping at `place` if nothing is there.
    pub(crate) fn near(place: usize, size: usize) -> Result<Self, CacheError> {
        Self::with_executable(size, ALIGNMENT, |size, file| map_free(NonNull::new(place as *mut u8)?, size, RUNS, file))
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

    /// The offset that the displacement at offset `at` leads to.
    #[cfg(all(test, feature = "models"))]
    pub(crate) fn leads_to(&self, at: u32) -> u32 {
        assert!(at as usize + 4 <= self.used());
        // SAFETY: inside the mapping.
        let displacement = unsafe { self.writable.add(at as usize).cast::<u32>().read_unaligned() };
        at.wrapping_add(4).wrapping_add(displacement)
    }

    /// Clears the byte at offset `at`, the displacement of a JRCXZ, which then leads to the next instruction: one store of a byte.
    pub(crate) fn clear_byte(&self, at: u32) {
        assert!((at as usize) < self.used());
        // SAFETY: inside the mapping.
        unsafe { self.writable.add(at as usize).cast::<AtomicU8>().as_ref().store(0, Ordering::Release) };
    }
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
