//! Descriptors that Calque holds itself. They live at high numbers, out of the way of a guest that expects the lowest free
//! ones, and are refused to it by the syscalls layer: EBADF, as if they were not open.
//!
//! Rust's runtime opens /dev/null in place of standard descriptors that are closed at start. The guest is to find them
//! closed, except for standard error, where Calque itself may have something to say.
//!
//! # Safety
//! Takes ownership of a descriptor number that the kernel has just given. The constructor runs before Rust's runtime is
//! up: it makes system calls and writes an atomic, nothing else.

#![allow(unsafe_code)]

use nix::fcntl::{FcntlArg, fcntl};
use nix::sys::resource::{Resource, getrlimit};
use std::os::fd::{AsFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicI32, AtomicU32, Ordering::Relaxed};

/// Lowest number for a descriptor of our own, where RLIMIT_NOFILE allows it (its usual value is 1024).
const FIRST: RawFd = 960;

/// No descriptor.
const NONE: RawFd = -1;

/// The hidden descriptors, `NONE` for the rest: more than there are calls of `hide`.
static HIDDEN: [AtomicI32; 8] = [const { AtomicI32::new(NONE) }; 8];

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

/// Whether a hidden descriptor would have one of the high numbers.
pub(crate) fn has_high_numbers() -> bool {
    getrlimit(Resource::RLIMIT_NOFILE).is_ok_and(|(limit, _)| limit > FIRST as u64)
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

/// Bit n: descriptor n, 0 or 1, was closed when Calque started.
static CLOSED: AtomicU32 = AtomicU32::new(0);

// SAFETY: the linker collects such pointers; the C library calls each once, with arguments that C allows to ignore.
#[used]
#[unsafe(link_section = ".init_array")]
static CONSTRUCTOR: extern "C" fn() = record_closed;

extern "C" fn record_closed() {
    for fd in 0..2 {
        // SAFETY: asks about a descriptor.
        if unsafe { libc::fcntl(fd, libc::F_GETFD) } == -1 {
            CLOSED.fetch_or(1 << fd, Relaxed);
        }
    }
}

/// Closes what stands in for standard input and output that were closed at start. To be called before the guest runs.
pub fn close_stand_ins() {
    for fd in (0..2).filter(|fd| CLOSED.load(Relaxed) >> fd & 1 != 0) {
        // SAFETY: /dev/null, opened by Rust's runtime; nothing of ours uses standard input or output.
        unsafe { libc::close(fd) };
    }
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
