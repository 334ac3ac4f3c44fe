//! x86-64 hosts.
//!
//! # Safety
//! Assembly routines with the C calling convention; see the items.

#![allow(unsafe_code)]

use std::arch::global_asm;

global_asm!(
    // i64 calque_window(const u32 *interrupt, u64 nr, const u64 args[6]); the kernel clobbers RCX and R11.
    ".p2align 4",
    ".globl calque_window",
    ".hidden calque_window",
    "calque_window:",
    "mov r11, rdi",
    "mov rax, rsi",
    "mov rcx, rdx",
    "mov rdi, [rcx]",
    "mov rsi, [rcx + 8]",
    "mov rdx, [rcx + 16]",
    "mov r10, [rcx + 24]",
    "mov r8, [rcx + 32]",
    "mov r9, [rcx + 40]",
    ".hidden calque_window_check",
    ".globl calque_window_check",
    "calque_window_check:",
    "cmp dword ptr [r11], 0",
    "jne calque_window_interrupted",
    "syscall",
    ".hidden calque_window_end",
    ".globl calque_window_end",
    "calque_window_end:",
    "ret",
    ".hidden calque_window_interrupted",
    ".globl calque_window_interrupted",
    "calque_window_interrupted:",
    "mov rax, {not_started}",
    "ret",
    // What a host handler returns to: rt_sigreturn.
    ".p2align 4",
    ".globl calque_restorer",
    ".hidden calque_restorer",
    "calque_restorer:",
    "mov eax, 15",
    "syscall",
    "ud2",
    // i64 calque_clone_vfork(u64 flags, void *stack_top, u64 parent_tid, void (*f)(void *), void *arg, u64 child_tid)
    // Only the parent returns: the child has nothing of this function's but its registers.
    ".p2align 4",
    ".globl calque_clone_vfork",
    ".hidden calque_clone_vfork",
    "calque_clone_vfork:",
    "mov r10, r9",
    "mov r9, rcx",
    "mov rcx, r8",
    "xor r8d, r8d",
    "mov [rsi - 16], rcx",
    "sub rsi, 16",
    "mov eax, 56",
    "syscall",
    "test rax, rax",
    "jz 2f",
    "ret",
    "2:",
    "xor ebp, ebp",
    "pop rdi",
    "pop rax",
    "call r9",
    "ud2",
    not_started = const crate::signal::NOT_STARTED,
);

unsafe extern "C" {
    fn calque_restorer();
}

/// `SA_RESTORER` (asm/signal.h).
pub(crate) const SA_RESTORER: u64 = 0x0400_0000;

/// Address for `sa_restorer`.
pub(crate) fn restorer() -> usize {
    calque_restorer as *const () as usize
}
