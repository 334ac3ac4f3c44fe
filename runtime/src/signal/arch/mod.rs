//! What signal handling needs of the host's architecture.
//!
//! Each file has the assembly routines declared here, and what a host handler returns to: `SA_RESTORER`, and `restorer`, its address where the
//! kernel wants one, else 0.
//!
//! # Safety
//! The routines follow the C calling convention; see [`window_syscall`] and [`clone_vfork`].

#![allow(unsafe_code)]

use libc::c_void;

#[cfg(target_arch = "aarch64")]
mod aarch64;
#[cfg(target_arch = "x86_64")]
mod x86_64;

#[cfg(target_arch = "aarch64")]
pub(crate) use aarch64::{SA_RESTORER, restorer};
#[cfg(target_arch = "x86_64")]
pub(crate) use x86_64::{SA_RESTORER, restorer};

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

unsafe extern "C" {
    fn calque_window(interrupt: *const u32, nr: u64, args: *const u64) -> i64;
    fn calque_window_check();
    fn calque_window_end();
    fn calque_window_interrupted();
    fn calque_clone_vfork(
        flags: u64,
        stack_top: *mut u8,
        ptid: u64,
        f: extern "C" fn(*mut c_void) -> !,
        arg: *mut c_void,
        ctid: u64,
    ) -> i64;
}

/// See [`Window`].
pub(crate) fn window() -> Window {
    Window {
        check: calque_window_check as *const () as u64,
        end: calque_window_end as *const () as u64,
        interrupted: calque_window_interrupted as *const () as u64,
    }
}

/// One system call, unless `*interrupt` is set before it begins; a handler can rewind it up to the call.
///
/// # Safety
/// `interrupt` is valid; the call with these arguments does nothing to Rust's memory that its caller has not allowed.
pub(crate) unsafe fn window_syscall(interrupt: *const u32, nr: u64, args: &[u64; 6]) -> i64 {
    // SAFETY: the caller's promise.
    unsafe { calque_window(interrupt, nr, args.as_ptr()) }
}

/// `clone` with `CLONE_VM | CLONE_VFORK` among the flags: the child calls `f(arg)` on the stack that ends at `stack_top`.
///
/// # Safety
/// `stack_top` is 16-byte aligned with enough room below; `f` touches the parent's memory only as a sibling
/// thread that shares the parent's thread-local storage may.
pub(crate) unsafe fn clone_vfork(
    flags: u64,
    stack_top: *mut u8,
    ptid: u64,
    ctid: u64,
    f: extern "C" fn(*mut c_void) -> !,
    arg: *mut c_void,
) -> i64 {
    // SAFETY: the caller's promise.
    unsafe { calque_clone_vfork(flags, stack_top, ptid, f, arg, ctid) }
}
