//! Descriptors that Calque holds itself. They live at high numbers, out of the way of a guest that expects the lowest free
//! ones, and are refused to it by the syscalls layer: EBADF, as if they were not open.
//!
//! # Safety
//! Takes ownership of a descriptor number that the kernel has just given.

#![allow(unsafe_code)]

use nix::fcntl::{FcntlArg, fcntl};
use std::os::fd::{AsFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicI32, Ordering::Relaxed};

/// Lowest number for a descriptor of our own, where RLIMIT_NOFILE allows it (its usual value is 1024).
const FIRST: RawFd = 960;

/// No descriptor.
const NONE: RawFd = -1;

/// The hidden descriptors, `NONE` for the rest. There are as many as there are calls of `hide`.
static HIDDEN: [AtomicI32; 4] = [const { AtomicI32::new(NONE) }; 4];

/// Whether the guest may not see `fd`.
pub fn is_hidden(fd: RawFd) -> bool {
    fd != NONE && HIDDEN.iter().any(|slot| slot.load(Relaxed) == fd)
}

/// All hidden descriptors, in order.
pub fn all() -> Vec<RawFd> {
    let mut all: Vec<_> = HIDDEN.iter().map(|slot| slot.load(Relaxed)).filter(|&fd| fd != NONE).collect();
    all.sort_unstable();
    all
}

/// A hidden duplicate of `fd`, closed by execve. It stays hidden, and is to stay open, until the process ends.
pub fn hide(fd: impl AsFd) -> nix::Result<OwnedFd> {
    let high = fcntl(fd.as_fd(), FcntlArg::F_DUPFD_CLOEXEC(FIRST))
        .or_else(|_| fcntl(fd.as_fd(), FcntlArg::F_DUPFD_CLOEXEC(0)))?;
    let free = HIDDEN.iter().find(|slot| slot.compare_exchange(NONE, high, Relaxed, Relaxed).is_ok());
    assert!(free.is_some(), "room for every descriptor of our own");
    // SAFETY: fcntl has just made it.
    Ok(unsafe { OwnedFd::from_raw_fd(high) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsRawFd;

    #[test]
    fn a_duplicate_is_hidden_and_the_original_is_not() {
        let (reader, _writer) = nix::unistd::pipe().unwrap();
        let own = hide(&reader).unwrap();
        assert!(is_hidden(own.as_raw_fd()) && all().contains(&own.as_raw_fd()));
        assert!(!is_hidden(reader.as_raw_fd()) && !is_hidden(-1));
    }
}
