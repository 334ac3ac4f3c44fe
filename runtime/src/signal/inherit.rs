//! The signal state that Calque was started with, which is the guest's.
//!
//! Rust's runtime ignores SIGPIPE and installs SIGSEGV and SIGBUS handlers before `main`; so what `execve` handed on is
//! read before that, by a constructor.
//!
//! # Safety
//! The constructor runs before Rust's runtime is up: it makes system calls and writes two atomics, nothing else.

#![allow(unsafe_code)]

use super::{SigSet, host};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

static IGNORED: AtomicU64 = AtomicU64::new(0);
static BLOCKED: AtomicU64 = AtomicU64::new(0);

// SAFETY: the linker collects such pointers; the C library calls each once, with arguments that C allows to ignore.
#[used]
#[unsafe(link_section = ".init_array")]
static CONSTRUCTOR: extern "C" fn() = record;

extern "C" fn record() {
    let ignored = (1..=64).filter(|&n| host::is_ignored(n)).map(|n| 1u64 << (n - 1)).sum();
    IGNORED.store(ignored, Relaxed);
    BLOCKED.store(host::mask().0, Relaxed);
}

/// Signals that were ignored.
pub fn ignored() -> SigSet {
    SigSet(IGNORED.load(Relaxed))
}

/// Signals that were blocked.
pub fn blocked() -> SigSet {
    SigSet(BLOCKED.load(Relaxed))
}
