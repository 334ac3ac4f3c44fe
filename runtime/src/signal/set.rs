//! Signal numbers and sets. Both hosts number signals as x86-64 does (`asm-generic/signal.h`).

use libc::{SIGBUS, SIGFPE, SIGILL, SIGKILL, SIGSEGV, SIGSTOP, SIGTRAP};
use libc::{SIGCHLD, SIGCONT, SIGTSTP, SIGTTIN, SIGTTOU, SIGURG, SIGWINCH};

/// A set of signals 1..=64 as the kernel stores it: bit n-1 is signal n.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(transparent)]
pub struct SigSet(pub u64);

/// Signals that a fault in the thread itself raises, and that Calque needs for its own ends.
pub const SYNCHRONOUS: SigSet = SigSet::of(&[SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP]);
/// Signals that cannot be caught, blocked or ignored.
pub(super) const UNCATCHABLE: SigSet = SigSet::of(&[SIGKILL, SIGSTOP]);

/// Signals that do not end a process by default (signal(7)).
pub(super) const HARMLESS: SigSet =
    SigSet::of(&[SIGCHLD, SIGCONT, SIGSTOP, SIGTSTP, SIGTTIN, SIGTTOU, SIGURG, SIGWINCH]);

impl SigSet {
    /// No signal.
    pub const EMPTY: SigSet = SigSet(0);
    /// Every signal.
    pub const ALL: SigSet = SigSet(!0);

    /// The set of these signals.
    pub const fn of(signals: &[i32]) -> SigSet {
        let mut bits = 0;
        let mut i = 0;
        while i < signals.len() {
            bits |= 1 << (signals[i] - 1);
            i += 1;
        }
        SigSet(bits)
    }

    /// Whether signal `n` is in it.
    pub const fn contains(self, n: i32) -> bool {
        self.0 >> (n - 1) & 1 != 0
    }

    /// Both sets' signals.
    pub const fn union(self, other: SigSet) -> SigSet {
        SigSet(self.0 | other.0)
    }

    /// This set's signals that are not in `other`.
    pub const fn minus(self, other: SigSet) -> SigSet {
        SigSet(self.0 & !other.0)
    }

    /// This set without the signals that nobody can block.
    pub const fn blockable(self) -> SigSet {
        self.minus(UNCATCHABLE)
    }
}

/// Whether `n` is a signal number.
pub(super) fn is_valid(n: i32) -> bool {
    (1..=64).contains(&n)
}

/// `SIGSEGV`, `SIGRT3`, ...
pub fn signal_name(n: i32) -> String {
    match nix::sys::signal::Signal::try_from(n) {
        Ok(signal) => signal.as_str().to_owned(),
        Err(_) if n >= 32 => format!("SIGRT{}", n - 32),
        Err(_) => format!("signal {n}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_have_the_kernels_bits() {
        assert_eq!(SigSet::of(&[1, 64]).0, 1 << 63 | 1);
        assert!(SYNCHRONOUS.contains(SIGSEGV) && !SYNCHRONOUS.contains(libc::SIGCHLD));
        assert_eq!(SigSet::ALL.blockable().0, !(1 << 8 | 1 << 18));
        assert_eq!(signal_name(11), "SIGSEGV");
        assert_eq!(signal_name(34), "SIGRT2");
    }
}
