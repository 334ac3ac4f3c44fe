//! Descriptors that Calque holds itself. They live at high numbers, out of the way of a guest that expects the lowest free
//! ones, and are refused to it: EBADF, as if they were not open.
//!
//! # Safety
//! Takes ownership of a descriptor number that the kernel has just given.

#![allow(unsafe_code)]

use nix::fcntl::{FcntlArg, fcntl};
use std::os::fd::{AsFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Lowest number for a descriptor of our own, if RLIMIT_NOFILE allows it.
const FIRST: RawFd = 960;

/// Bit n: descriptor `FIRST + n` is hidden.
static HIDDEN: AtomicU64 = AtomicU64::new(0);

/// Whether the guest may not see `fd`.
pub(crate) fn is_hidden(fd: RawFd) -> bool {
    let at = fd.wrapping_sub(FIRST) as u32;
    at < 64 && HIDDEN.load(Relaxed) >> at & 1 != 0
}

/// All hidden descriptors, in order.
pub(crate) fn all() -> impl Iterator<Item = RawFd> {
    let set = HIDDEN.load(Relaxed);
    (0..64).filter(move |at| set >> at & 1 != 0).map(|at| FIRST + at)
}

/// A hidden duplicate of `fd`, closed by execve. Where the descriptor limit leaves no room up there, it stays visible.
pub(crate) fn hide(fd: impl AsFd) -> nix::Result<OwnedFd> {
    let high = fcntl(fd.as_fd(), FcntlArg::F_DUPFD_CLOEXEC(FIRST))
        .or_else(|_| fcntl(fd.as_fd(), FcntlArg::F_DUPFD_CLOEXEC(0)))?;
    let at = high.wrapping_sub(FIRST) as u32;
    if at < 64 {
        HIDDEN.fetch_or(1 << at, Relaxed);
    }
    // SAFETY: fcntl has just made it.
    Ok(unsafe { OwnedFd::from_raw_fd(high) })
}
