//! The memory of a thread's counters: one 8-byte word a counted block, at the address that `cpu.rt.counters` holds.
//!
//! Each thread has room for every counter there can be, as memory that costs nothing until touched: so a counter is a constant offset in
//! generated code, and nothing ever moves. Where units run, the room is part of what they reach anyway (`backend::identical::Area`).
//!
//! # Safety
//! The mapping is private to this value, or lent to it. Words are only added to by the owning thread, in generated code or through
//! [`bump`]; others read them while that thread stands still.

#![allow(unsafe_code)]

use crate::lockstep;
use calque_ir::CpuState;
use nix::errno::Errno;
use std::ptr::null_mut;
use std::sync::atomic::Ordering;

/// Counters of a thread: 32 MiB of address space. Code beyond that is counted together, in counter 0.
pub(super) const CAPACITY: usize = 1 << 22;

const BYTES: usize = 8 * CAPACITY;

/// The counters of one thread.
pub(crate) struct Counters {
    words: *mut u64,
    is_lent: bool,
}

// SAFETY: the memory belongs to this value, which any thread may own.
unsafe impl Send for Counters {}

impl Counters {
    /// Most counters, as a number of blocks.
    pub(crate) const MOST: u32 = CAPACITY as u32;

    /// Counters that are all zero.
    pub(crate) fn new() -> Result<Counters, Errno> {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: a new mapping.
        let base = unsafe { libc::mmap(null_mut(), BYTES, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0) };
        if base == libc::MAP_FAILED { Err(Errno::last()) } else { Ok(Counters { words: base.cast(), is_lent: false }) }
    }

    /// Counters at the [`Counters::MOST`] words from `words` on, which are zero.
    ///
    /// # Safety
    /// They lie at the start of a private anonymous page, live as long as this value, and nobody else counts there.
    pub(super) unsafe fn lent(words: *mut u64) -> Counters {
        Counters { words, is_lent: true }
    }

    /// For `cpu.rt.counters`.
    pub(crate) fn address(&self) -> u64 {
        self.words as u64
    }

    /// The value of counter `i`.
    pub(crate) fn get(&self, i: usize) -> u64 {
        assert!(i < CAPACITY);
        // SAFETY: inside the mapping. Volatile: generated code writes there.
        unsafe { self.words.add(i).read_volatile() }
    }

    /// Sets all to zero: in the child of a fork.
    pub(crate) fn clear(&self) {
        // SAFETY: private anonymous pages of our own, which read as zeros from now on.
        unsafe { libc::madvise(self.words.cast(), BYTES, libc::MADV_DONTNEED) };
    }
}

impl Drop for Counters {
    fn drop(&mut self) {
        if !self.is_lent {
            // SAFETY: our mapping; the thread that counted there has stopped.
            unsafe { libc::munmap(self.words.cast(), BYTES) };
        }
    }
}

/// `Op::Count` for the interpreter: adds 1 to counter `i` of the thread whose registers `cpu` are.
pub(crate) fn bump(cpu: &CpuState, i: u32) {
    assert!((i as usize) < CAPACITY);
    let word = (cpu.rt.counters as *mut u64).wrapping_add(i as usize);
    if cpu.rt.counters != 0 {
        // SAFETY: blocks with counts only run in threads that record, whose counters these are.
        unsafe { *word += 1 };
    }
    if (cpu.rt.insns as i64) < 0 {
        // The budget is used up (`lockstep::Meter`).
        cpu.rt.interrupt.fetch_or(lockstep::ASK, Ordering::Relaxed);
    }
}
