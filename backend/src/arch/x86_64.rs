//! The x86-64 host.
//!
//! # Safety
//! `enter` is a hand-written function with the System V convention. It saves the callee-saved registers, records its stack
//! pointer in `cpu.rt.host_sp`, and calls the generated code with `cpu` and `abi::ARGUMENTS` in RDI, RSI, RDX, RCX, R8 and R9,
//! which is Cranelift's `Tail` convention for integer arguments. Whatever leaves generated code arrives at `fault_return` with the recorded
//! stack pointer: the exit stubs by `ret`, a signal handler by setting both registers. Nothing else is relied on there.
//!
//! The stack pointer is a multiple of 16 before the call, as the convention asks.
#![allow(unsafe_code)]

use crate::abi::{REASON_LEAVE, REASON_LINK};
use crate::emit::entry::Stub;
use crate::isa::Arch;
use calque_ir::CpuState;
use calque_ir::state::V128;
use std::arch::{asm, global_asm, is_x86_feature_detected};
use std::mem::offset_of;

/// The architecture of this process.
pub(crate) const NATIVE: Arch = Arch::X86_64;

/// The host registers of `abi::ARGUMENTS` from and to `cpu.gpr`.
macro_rules! load_arguments {
    () => {
        "mov rsi, [rdi + {gpr} + 8 * 4]; mov rdx, [rdi + {gpr}]; mov rcx, [rdi + {gpr} + 8 * 7]
         mov r8, [rdi + {gpr} + 8 * 6]; mov r9, [rdi + {gpr} + 8 * 2]"
    };
}
macro_rules! store_arguments {
    () => {
        "mov [rdi + {gpr} + 8 * 4], rsi; mov [rdi + {gpr}], rdx; mov [rdi + {gpr} + 8 * 7], rcx
         mov [rdi + {gpr} + 8 * 6], r8; mov [rdi + {gpr} + 8 * 2], r9"
    };
}

// Frame, from `host_sp` up: host MXCSR (4 bytes), cpu (8), the outer `host_sp` (8), six callee-saved registers.
global_asm!(
    ".text",
    ".p2align 4",
    ".globl calque_enter",
    ".hidden calque_enter",
    ".type calque_enter, @function",
    "calque_enter:",
    "push rbp",
    "push rbx",
    "push r12",
    "push r13",
    "push r14",
    "push r15",
    "sub rsp, 24",
    "stmxcsr [rsp]",
    "mov [rsp + 8], rdi",
    "mov rax, [rdi + {host_sp}]",
    "mov [rsp + 16], rax",
    "mov [rdi + {host_sp}], rsp",
    "ldmxcsr [rdi + {mxcsr}]",
    "mov rax, rsi",
    load_arguments!(),
    "call rax",
    ".globl calque_fault_return",
    ".hidden calque_fault_return",
    "calque_fault_return:",
    "mov rdi, [rsp + 8]",
    "stmxcsr [rdi + {mxcsr}]",
    "ldmxcsr [rsp]",
    "mov rax, [rsp + 16]",
    "mov [rdi + {host_sp}], rax",
    "add rsp, 24",
    "pop r15",
    "pop r14",
    "pop r13",
    "pop r12",
    "pop rbx",
    "pop rbp",
    "ret",
    ".size calque_enter, . - calque_enter",
    ".p2align 4",
    ".globl calque_exit_link",
    ".hidden calque_exit_link",
    ".type calque_exit_link, @function",
    "calque_exit_link:",
    store_arguments!(),
    "mov dword ptr [rdi + {reason}], {link}",
    "ret",
    ".size calque_exit_link, . - calque_exit_link",
    ".p2align 4",
    ".globl calque_exit_leave",
    ".hidden calque_exit_leave",
    ".type calque_exit_leave, @function",
    "calque_exit_leave:",
    "mov dword ptr [rdi + {reason}], {leave}",
    "ret",
    ".size calque_exit_leave, . - calque_exit_leave",
    ".p2align 4",
    ".globl calque_exit_leave_passing",
    ".hidden calque_exit_leave_passing",
    ".type calque_exit_leave_passing, @function",
    "calque_exit_leave_passing:",
    store_arguments!(),
    "jmp calque_exit_leave",
    ".size calque_exit_leave_passing, . - calque_exit_leave_passing",
    ".p2align 4",
    ".globl calque_exit_resolve",
    ".hidden calque_exit_resolve",
    ".type calque_exit_resolve, @function",
    "calque_exit_resolve:",
    store_arguments!(),
    // The return address to `enter` lies on the stack: 8 bytes more align it.
    "push rdi",
    "call {resolve}",
    "pop rdi",
    "test rax, rax",
    "jz calque_exit_leave",
    load_arguments!(),
    "jmp rax",
    ".size calque_exit_resolve, . - calque_exit_resolve",
    host_sp = const offset_of!(CpuState, rt.host_sp),
    mxcsr = const offset_of!(CpuState, mxcsr),
    reason = const offset_of!(CpuState, rt.exit_reason),
    gpr = const offset_of!(CpuState, gpr),
    resolve = sym crate::abi::resolve,
    link = const REASON_LINK,
    leave = const REASON_LEAVE,
);

unsafe extern "C" {
    fn calque_enter(cpu: *mut CpuState, code: usize);
}

/// See `abi::enter`.
///
/// # Safety
/// As `abi::enter`.
pub(crate) unsafe fn enter(cpu: &mut CpuState, code: usize) {
    // SAFETY: the caller's contract is the trampoline's.
    unsafe { calque_enter(cpu, code) }
}

/// See `abi::enter_tier0`.
///
/// # Safety
/// As `abi::enter`.
pub(crate) unsafe fn enter_tier0(_: &mut CpuState, _: usize) {
    unreachable!("the emitter's code is AArch64 code, which is not published on this host");
}

/// No code of the emitter runs here, so its cells lead nowhere.
pub(crate) fn tier0_stub(_: Stub) -> usize {
    0
}

/// Nothing to do: x86 keeps instruction fetch coherent with stores, also through another mapping (SDM vol. 3 11.6).
pub(crate) fn sync_icache(_code: *const u8, _written: *const u8, _len: usize) {}

/// The same.
pub(crate) fn sync_other_threads() {}

/// MXCSR of `cpu` becomes the host's: after the guest wrote it inside a region.
pub(crate) extern "C" fn load_fp_control(cpu: &mut CpuState) {
    // SAFETY: loads a control register from a readable word; reserved bits are never set in `cpu.mxcsr` (LDMXCSR of the
    // guest checks them).
    unsafe { asm!("ldmxcsr [{}]", in(reg) &raw const cpu.mxcsr, options(nostack, preserves_flags)) }
}

/// MXCSR is the host's own.
pub(crate) fn expresses(_: u32) -> bool {
    true
}

/// The host's MXCSR, with the exception flags raised so far, becomes `cpu`'s: before the guest reads it.
pub(crate) extern "C" fn save_fp_control(cpu: &mut CpuState) {
    // SAFETY: stores a control register to a writable word.
    unsafe { asm!("stmxcsr [{}]", in(reg) &raw mut cpu.mxcsr, options(nostack, preserves_flags)) }
}

/// Not called on this host: Cranelift has the instruction.
pub(crate) fn cas128(_address: u64, _expected: V128, _new: V128) -> V128 {
    unreachable!("x86-64 code has CMPXCHG16B inline")
}

/// Cranelift setting, whether this processor has it.
#[rustfmt::skip]
pub(crate) fn native_features() -> Vec<(&'static str, bool)> {
    vec![
        ("has_cmpxchg16b",      is_x86_feature_detected!("cmpxchg16b")),
        ("has_sse3",            is_x86_feature_detected!("sse3")),
        ("has_ssse3",           is_x86_feature_detected!("ssse3")),
        ("has_sse41",           is_x86_feature_detected!("sse4.1")),
        ("has_sse42",           is_x86_feature_detected!("sse4.2")),
        ("has_popcnt",          is_x86_feature_detected!("popcnt")),
        ("has_avx",             is_x86_feature_detected!("avx")),
        ("has_avx2",            is_x86_feature_detected!("avx2")),
        ("has_fma",             is_x86_feature_detected!("fma")),
        ("has_bmi1",            is_x86_feature_detected!("bmi1")),
        ("has_bmi2",            is_x86_feature_detected!("bmi2")),
        ("has_lzcnt",           is_x86_feature_detected!("lzcnt")),
        ("aes",                 is_x86_feature_detected!("aes")),
        ("pclmulqdq",           is_x86_feature_detected!("pclmulqdq")),
        ("has_avx512f",         is_x86_feature_detected!("avx512f")),
        ("has_avx512dq",        is_x86_feature_detected!("avx512dq")),
        ("has_avx512vl",        is_x86_feature_detected!("avx512vl")),
        ("has_avx512bitalg",    is_x86_feature_detected!("avx512bitalg")),
        ("has_avx512vbmi",      is_x86_feature_detected!("avx512vbmi")),
    ]
}
