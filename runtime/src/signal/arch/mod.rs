//! What signal handling needs of the host's architecture; each file has the same items.
//!
//! | item                   | what                                                                        |
//! |------------------------|-----------------------------------------------------------------------------|
//! | `window_syscall`       | one system call behind a check of the interrupt word, which a handler can rewind |
//! | `window`               | code addresses of that routine: check, end, and where to go instead          |
//! | `restorer`             | return address for host handlers where the kernel wants one, else 0          |
//! | `clone_vfork`          | `clone(CLONE_VM \| CLONE_VFORK)` whose child runs a function on its own stack |

#[cfg(target_arch = "aarch64")]
mod aarch64;
#[cfg(target_arch = "x86_64")]
mod x86_64;

#[cfg(target_arch = "aarch64")]
pub(crate) use aarch64::*;
#[cfg(target_arch = "x86_64")]
pub(crate) use x86_64::*;

/// Code addresses of `window_syscall`.
#[derive(Clone, Copy)]
pub(crate) struct Window {
    /// The load of the interrupt word: from here on a handler's word might be missed.
    pub(crate) check: u64,
    /// Behind the system call instruction.
    pub(crate) end: u64,
    /// Returns [`super::NOT_STARTED`].
    pub(crate) interrupted: u64,
}
