//! AArch64 hosts.
//!
//! # Safety
//! Assembly routines with the C calling convention; see the items.

#![allow(unsafe_code)]

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

/// `SA_RESTORER`: none needed, the kernel returns through the vDSO.
pub(crate) const SA_RESTORER: u64 = 0;

/// Address for `sa_restorer`.
pub(crate) fn restorer() -> usize {
    0
}
