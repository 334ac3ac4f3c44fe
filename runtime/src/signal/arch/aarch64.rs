//! AArch64 hosts.
//!
//! # Safety
//! Assembly routines with the C calling convention; see the items.

#![allow(unsafe_code)]

use super::Window;
use libc::c_void;
use std::arch::global_asm;

global_asm!(
    // i64 calque_window(const u32 *interrupt, u64 nr, const u64 args[6])
    ".p2align 4",
    ".globl calque_window",
    ".hidden calque_window",
    "calque_window:",
    "mov x9, x0",
    "mov x8, x1",
    "mov x10, x2",
    "ldp x0, x1, [x10]",
    "ldp x2, x3, [x10, 16]",
    "ldp x4, x5, [x10, 32]",
    ".globl calque_window_check",
    ".hidden calque_window_check",
    "calque_window_check:",
    "ldr w11, [x9]",
    "cbnz w11, calque_window_interrupted",
    "svc 0",
    ".globl calque_window_end",
    ".hidden calque_window_end",
    "calque_window_end:",
    "ret",
    ".globl calque_window_interrupted",
    ".hidden calque_window_interrupted",
    "calque_window_interrupted:",
    "mov x0, {not_started}",
    "ret",
    // i64 calque_clone_vfork(u64 flags, void *stack_top, u64 parent_tid, void (*f)(void *), void *arg, u64 child_tid)
    // Only the parent returns: the child has nothing of this function's but its registers.
    ".p2align 4",
    ".globl calque_clone_vfork",
    ".hidden calque_clone_vfork",
    "calque_clone_vfork:",
    "mov x9, x3",
    "mov x10, x4",
    "mov x3, xzr",
    "mov x4, x5",
    "mov x8, 220",
    "svc 0",
    "cbz x0, 2f",
    "ret",
    "2:",
    "mov x29, xzr",
    "mov x30, xzr",
    "mov x0, x10",
    "blr x9",
    "udf 0",
    not_started = const crate::signal::NOT_STARTED,
);

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

/// `SA_RESTORER`: none needed, the kernel returns through the vDSO.
pub(crate) const SA_RESTORER: u64 = 0;

/// Address for `sa_restorer`.
pub(crate) fn restorer() -> usize {
    0
}

/// See [`Window`].
pub(crate) fn window() -> Window {
    Window {
        check: calque_window_check as *const () as u64,
        end: calque_window_end as *const () as u64,
        interrupted: calque_window_interrupted as *const () as u64,
    }
}

/// One system call, unless `*interrupt` is set before it begins.
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
