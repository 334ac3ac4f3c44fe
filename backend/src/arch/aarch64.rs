//! The AArch64 host.
//!
//! # Safety
//! `enter` is a hand-written function with the AAPCS64 convention. It saves the callee-saved registers, records its stack
//! pointer in `cpu.rt.host_sp`, and calls the generated code with `cpu` and `abi::ARGUMENTS` in X2 to X7, which is Cranelift's
//! `Tail` convention for integer arguments. Whatever leaves generated code arrives at `fault_return` with the recorded stack
//! pointer: the exit stubs by `ret` (generated code keeps the link register), a signal handler by setting both registers.
//! Nothing else is relied on there.
#![allow(unsafe_code)]

use crate::abi::{REASON_LEAVE, REASON_LINK};
use crate::emit::regs::{SLOTS, SLOTS_AT};
use crate::isa::Arch;
use calque_ir::CpuState;
use calque_ir::state::{MXCSR_DAZ, MXCSR_FTZ, V128};
use once_cell::race::OnceBool;
use std::arch::{asm, global_asm, is_aarch64_feature_detected};
use std::mem::offset_of;
use std::sync::atomic::{AtomicBool, Ordering};

/// The architecture of this process.
pub(crate) const NATIVE: Arch = Arch::Aarch64;

/// The host registers of `abi::ARGUMENTS` from and to `cpu.gpr`.
macro_rules! load_arguments {
    () => {
        "ldr x3, [x2, #{gpr} + 8 * 4]\nldr x4, [x2, #{gpr}]\nldr x5, [x2, #{gpr} + 8 * 7]
         ldr x6, [x2, #{gpr} + 8 * 6]\nldr x7, [x2, #{gpr} + 8 * 2]"
    };
}
macro_rules! store_arguments {
    () => {
        "str x3, [x2, #{gpr} + 8 * 4]\nstr x4, [x2, #{gpr}]\nstr x5, [x2, #{gpr} + 8 * 7]
         str x6, [x2, #{gpr} + 8 * 6]\nstr x7, [x2, #{gpr} + 8 * 2]"
    };
}

// Frame, from `host_sp` up: frame record (16 bytes), x19..x28 (80), d8..d15 (64), cpu (8), the outer `host_sp` (8), tier 0's spill
// slots.
global_asm!(
    ".text",
    ".p2align 4",
    ".globl calque_enter",
    ".hidden calque_enter",
    ".type calque_enter, %function",
    "calque_enter:",
    "stp x29, x30, [sp, #-{frame}]!",
    "stp x19, x20, [sp, #16]",
    "stp x21, x22, [sp, #32]",
    "stp x23, x24, [sp, #48]",
    "stp x25, x26, [sp, #64]",
    "stp x27, x28, [sp, #80]",
    "stp d8, d9, [sp, #96]",
    "stp d10, d11, [sp, #112]",
    "stp d12, d13, [sp, #128]",
    "stp d14, d15, [sp, #144]",
    "mov x29, sp",
    "ldr x9, [x0, #{host_sp}]",
    "stp x0, x9, [sp, #160]",
    "str x29, [x0, #{host_sp}]",
    "mov x17, x2",
    "mov x2, x0",
    load_arguments!(),
    "blr x1",
    ".globl calque_fault_return",
    ".hidden calque_fault_return",
    "calque_fault_return:",
    "ldp x0, x9, [sp, #160]",
    "str x9, [x0, #{host_sp}]",
    "ldp d14, d15, [sp, #144]",
    "ldp d12, d13, [sp, #128]",
    "ldp d10, d11, [sp, #112]",
    "ldp d8, d9, [sp, #96]",
    "ldp x27, x28, [sp, #80]",
    "ldp x25, x26, [sp, #64]",
    "ldp x23, x24, [sp, #48]",
    "ldp x21, x22, [sp, #32]",
    "ldp x19, x20, [sp, #16]",
    "ldp x29, x30, [sp], #{frame}",
    "ret",
    ".size calque_enter, . - calque_enter",
    ".p2align 4",
    ".globl calque_exit_link",
    ".hidden calque_exit_link",
    ".type calque_exit_link, %function",
    "calque_exit_link:",
    store_arguments!(),
    "mov w9, #{link}",
    "str w9, [x2, #{reason}]",
    "ret",
    ".size calque_exit_link, . - calque_exit_link",
    ".p2align 4",
    ".globl calque_exit_leave",
    ".hidden calque_exit_leave",
    ".type calque_exit_leave, %function",
    "calque_exit_leave:",
    "mov w9, #{leave}",
    "str w9, [x2, #{reason}]",
    "ret",
    ".size calque_exit_leave, . - calque_exit_leave",
    ".p2align 4",
    ".globl calque_exit_leave_passing",
    ".hidden calque_exit_leave_passing",
    ".type calque_exit_leave_passing, %function",
    "calque_exit_leave_passing:",
    store_arguments!(),
    "b calque_exit_leave",
    ".size calque_exit_leave_passing, . - calque_exit_leave_passing",
    ".p2align 4",
    ".globl calque_exit_resolve",
    ".hidden calque_exit_resolve",
    ".type calque_exit_resolve, %function",
    "calque_exit_resolve:",
    store_arguments!(),
    "stp x2, x30, [sp, #-16]!",
    "mov x0, x2",
    "bl {resolve}",
    "ldp x2, x30, [sp], #16",
    "cbz x0, calque_exit_leave",
    load_arguments!(),
    "br x0",
    ".size calque_exit_resolve, . - calque_exit_resolve",
    host_sp = const offset_of!(CpuState, rt.host_sp),
    reason = const offset_of!(CpuState, rt.exit_reason),
    resolve = sym crate::abi::resolve,
    gpr = const offset_of!(CpuState, gpr),
    link = const REASON_LINK,
    leave = const REASON_LEAVE,
    frame = const SLOTS_AT + 16 * SLOTS,
);

unsafe extern "C" {
    fn calque_enter(cpu: *mut CpuState, code: usize, tier0: usize);
}

/// See `abi::enter`.
///
/// # Safety
/// As `abi::enter`.
pub(crate) unsafe fn enter(cpu: &mut CpuState, code: usize) {
    let host = read_fpcr();
    load_fp_control(cpu);
    // SAFETY: the caller's contract is the trampoline's.
    unsafe { calque_enter(cpu, code, 0) }
    save_fp_control(cpu);
    write_fpcr(host);
}

/// See `abi::enter_tier0`.
///
/// # Safety
/// As `abi::enter`.
pub(crate) unsafe fn enter_tier0(cpu: &mut CpuState, code: usize) {
    let host = read_fpcr();
    load_fp_control(cpu);
    // SAFETY: the caller's contract is the trampoline's; the stub takes the code's address where the trampoline leaves it.
    unsafe { calque_enter(cpu, super::aarch64_tier0::tier0_enter(), code) }
    save_fp_control(cpu);
    write_fpcr(host);
}

/// Cleans the data cache and invalidates the instruction cache for new code (Arm ARM K13.5, "self-modifying code"), for this thread.
pub(crate) fn sync_icache(code: *const u8, written: *const u8, len: usize) {
    let ctr: u64;
    // SAFETY: reads the cache type register, which Linux lets user space read.
    unsafe { asm!("mrs {}, ctr_el0", out(reg) ctr, options(nomem, nostack, preserves_flags)) };
    // DminLine and IminLine: log2 of words (Arm ARM D24.2.34).
    let (data_line, code_line) = (4usize << (ctr >> 16 & 15), 4usize << (ctr & 15));
    for line in lines(written, len, data_line) {
        // SAFETY: maintains the cache of a mapped range.
        unsafe { asm!("dc cvau, {}", in(reg) line, options(nostack, preserves_flags)) };
    }
    // SAFETY: a barrier.
    unsafe { asm!("dsb ish", options(nostack, preserves_flags)) };
    for line in lines(code, len, code_line) {
        // SAFETY: maintains the cache of a mapped range.
        unsafe { asm!("ic ivau, {}", in(reg) line, options(nostack, preserves_flags)) };
    }
    // SAFETY: barriers.
    unsafe { asm!("dsb ish", "isb", options(nostack, preserves_flags)) };
}

/// Addresses of the cache lines that a range touches.
fn lines(start: *const u8, len: usize, line: usize) -> impl Iterator<Item = usize> {
    let first = start as usize & !(line - 1);
    (first..start as usize + len).step_by(line)
}

/// `membarrier(MEMBARRIER_CMD_PRIVATE_EXPEDITED_SYNC_CORE)`: an `isb` on every processor that runs a thread of ours
/// (include/uapi/linux/membarrier.h). Where the kernel lacks it, code reaches other threads through the atomic store of a
/// cell or a lock only after the `ic ivau` above, which all processors see.
pub(crate) fn sync_other_threads() {
    const REGISTER_SYNC_CORE: i32 = 1 << 6;
    const SYNC_CORE: i32 = 1 << 5;
    static REGISTERED: AtomicBool = AtomicBool::new(false);
    let membarrier = |command: i32| {
        // SAFETY: a system call without pointers.
        unsafe { libc::syscall(libc::SYS_membarrier, command, 0, 0) };
    };
    if !REGISTERED.load(Ordering::Relaxed) {
        membarrier(REGISTER_SYNC_CORE);
        REGISTERED.store(true, Ordering::Relaxed);
    }
    membarrier(SYNC_CORE);
}

/// What FEAT_AFP adds. FPCR.AH: NaN results, minimum and maximum are x86's, and FZ is about results only. FPCR.NEP: scalar operations
/// keep the other lanes of their first operand (of their destination, if they have one operand; `fmadd` of its addend), as SSE's do.
const ALTERNATE: u64 = 1 << 1 | 1 << 2;

/// MXCSR's rounding control (bits 13, 14: nearest, down, up, zero) as FPCR.RMode (bits 22, 23: nearest, up, down, zero).
/// Flush-to-zero (bit 15) is FPCR.FZ (bit 24), denormals-are-zero (bit 6) is FPCR.FIZ (bit 0) where the host has FEAT_AFP; elsewhere
/// FZ is both (Arm ARM C5.2.8).
fn fpcr_of(mxcsr: u32, alternate: bool) -> u64 {
    let mxcsr = u64::from(mxcsr);
    let rounding = (mxcsr >> 14 & 1) << 22 | (mxcsr >> 13 & 1) << 23;
    let (results, operands) = (mxcsr >> 15 & 1, mxcsr >> 6 & 1);
    match alternate {
        true => rounding | results << 24 | operands | ALTERNATE,
        false => rounding | (results | operands) << 24,
    }
}

/// Whether the processor has FEAT_AFP. It is asked itself: the kernel's word for it is younger than the feature.
fn has_alternate_floats() -> bool {
    static HAS: OnceBool = OnceBool::new();
    HAS.get_or_init(|| {
        let host = read_fpcr();
        let nan: u64;
        // SAFETY: divides zero by zero with another control register, and puts that back; the invalid flag is nobody's here.
        unsafe {
            asm!(
                "msr fpcr, {alternate}",
                "fdiv {result:d}, {zero:d}, {zero:d}",
                "msr fpcr, {host}",
                "fmov {nan}, {result:d}",
                alternate = in(reg) host | ALTERNATE,
                host = in(reg) host,
                zero = in(vreg) 0.0f64,
                result = out(vreg) _,
                nan = out(reg) nan,
                options(nomem, nostack, preserves_flags),
            );
        }
        nan >> 63 == 1
    })
}

const FPCR_FZ: u64 = 1 << 24;

/// Without FEAT_AFP, FPCR.FZ is denormals-are-zero and flush-to-zero.
pub(crate) fn expresses(mxcsr: u32) -> bool {
    (mxcsr & MXCSR_FTZ != 0) == (mxcsr & MXCSR_DAZ != 0) || has_alternate_floats()
}

/// FPSR's cumulative flags (IOC DZC OFC UFC IXC at 0..5) as MXCSR's (IE, ZE OE UE PE at 2..6), raised while FPCR was `fpcr`. A result
/// that is flushed to zero is an underflow and, to x86, inexact. IDC (7) tells of an operand that is denormal (DE) where the host has
/// FEAT_AFP, elsewhere of one that was flushed, which to x86 is nothing.
fn mxcsr_flags_of(fpsr: u64, fpcr: u64) -> u32 {
    let bit = |from: u32, to: u32| (fpsr >> from & 1) << to;
    let flushed = if fpcr & FPCR_FZ != 0 { bit(3, 5) } else { 0 };
    let denormal = if fpcr & ALTERNATE != 0 { bit(7, 1) } else { 0 };
    (bit(0, 0) | denormal | bit(1, 2) | bit(2, 3) | bit(3, 4) | bit(4, 5) | flushed) as u32
}

fn read_fpcr() -> u64 {
    let fpcr: u64;
    // SAFETY: reads a control register.
    unsafe { asm!("mrs {}, fpcr", out(reg) fpcr, options(nomem, nostack, preserves_flags)) };
    fpcr
}

fn write_fpcr(fpcr: u64) {
    // SAFETY: writes a control register of this thread; the values are rounding modes that the callers restore.
    unsafe { asm!("msr fpcr, {}", in(reg) fpcr, options(nostack, preserves_flags)) };
}

fn read_fpsr() -> u64 {
    let fpsr: u64;
    // SAFETY: reads a status register.
    unsafe { asm!("mrs {}, fpsr", out(reg) fpsr, options(nomem, nostack, preserves_flags)) };
    fpsr
}

fn clear_fpsr() {
    // SAFETY: clears the cumulative flags of this thread.
    unsafe { asm!("msr fpsr, xzr", options(nostack, preserves_flags)) };
}

/// `cpu.mxcsr` becomes the host's: after the guest wrote it inside a region. Flags raised from now on are counted afresh.
pub(crate) extern "C" fn load_fp_control(cpu: &mut CpuState) {
    write_fpcr(fpcr_of(cpu.mxcsr, has_alternate_floats()));
    clear_fpsr();
}

/// The exception flags raised so far go into `cpu.mxcsr`: before the guest reads it.
pub(crate) extern "C" fn save_fp_control(cpu: &mut CpuState) {
    cpu.mxcsr |= mxcsr_flags_of(read_fpsr(), read_fpcr());
}

/// Compare-and-swap of 16 aligned bytes of guest memory. The loaded pair is one access only if the store succeeds (Arm ARM
/// B2.2.1), so the old value is written back where it differs. The barrier keeps later loads behind the store.
pub(crate) fn cas128(address: u64, expected: V128, new: V128) -> V128 {
    let (low, high): (u64, u64);
    // SAFETY: the generated code has just read and written both halves through the same address.
    unsafe {
        asm!(
            "2:",
            "ldaxp {low}, {high}, [{address}]",
            "cmp {low}, {expected_low}",
            "ccmp {high}, {expected_high}, #0, eq",
            "csel {store_low}, {new_low}, {low}, eq",
            "csel {store_high}, {new_high}, {high}, eq",
            "stlxp {failed:w}, {store_low}, {store_high}, [{address}]",
            "cbnz {failed:w}, 2b",
            "dmb ish",
            address = in(reg) address,
            expected_low = in(reg) expected[0],
            expected_high = in(reg) expected[1],
            new_low = in(reg) new[0],
            new_high = in(reg) new[1],
            low = out(reg) low,
            high = out(reg) high,
            store_low = out(reg) _,
            store_high = out(reg) _,
            failed = out(reg) _,
            options(nostack),
        );
    }
    [low, high]
}

/// Cranelift setting or feature of `isa.rs`, whether this processor has it.
pub(crate) fn native_features() -> Vec<(&'static str, bool)> {
    vec![
        ("has_lse", is_aarch64_feature_detected!("lse")),
        ("lrcpc", is_aarch64_feature_detected!("rcpc")),
        ("lrcpc2", is_aarch64_feature_detected!("rcpc2")),
        ("afp", has_alternate_floats()),
        ("aes", is_aarch64_feature_detected!("aes")),
        ("pclmulqdq", is_aarch64_feature_detected!("pmull")),
        ("sha2", is_aarch64_feature_detected!("sha2")),
    ]
}
