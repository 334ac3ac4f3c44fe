//! The ends of tier 0 on AArch64: how its code is entered, left, calls helpers, and meets code of the `Tail` convention.
//!
//! In tier 0 all guest registers are in host registers (`emit/regs.rs` lists them), elsewhere in `CpuState`: each stub loads or stores
//! all of them. The stubs stand in fixed cells (`emit/entry.rs`), so that generated code names no address.
//!
//! | stub       | arrives with                                      | goes                                                |
//! |------------|---------------------------------------------------|-----------------------------------------------------|
//! | `enter`    | x2 `CpuState`, x17 tier-0 code; guest in memory   | to the code                                         |
//! | `arrive`   | the same, from code of the `Tail` convention      | as `enter`, or back to be counted                   |
//! | `to_tail`  | x17 code of the `Tail` convention                 | to the code, guest in memory and in its arguments   |
//! | `link`     | x17 number of a cell                              | to the caller of `enter`, `ExitReason::Link`        |
//! | `leave`    | x16 guest pc, x17 leave word                      | to the caller of `enter`                            |
//! | `call`     | x8 helper, x16 x17 x0 arguments, x30 return       | back, result in x16                                 |
//! | `resolve`  | x16 guest pc, x8 its slot in the jump cache       | to its code, with flags if wanted; or as `leave`    |
//!
//! # Safety
//! The stubs run on the stack of `calque_enter`, whose frame `arch/aarch64.rs` describes: SP is `cpu.rt.host_sp` in generated code, so
//! that leaving is a jump to `calque_fault_return`. Tier-0 code uses all registers that `calque_enter` saves.
#![allow(unsafe_code)]

use crate::abi::{Leave, REASON_ARRIVED, REASON_LEAVE, REASON_LINK};
use crate::emit::entry::{FROM_TIER0, Stub};
use crate::jump_cache;
use calque_ir::CpuState;
use std::arch::global_asm;
use std::mem::offset_of;

global_asm!(
    ".text",
    ".macro calque_tier0_registers pair",
    "\\pair x4, x19, [x2, #{gpr}]",
    "\\pair x7, x20, [x2, #{gpr} + 16]",
    "\\pair x3, x21, [x2, #{gpr} + 32]",
    "\\pair x6, x5, [x2, #{gpr} + 48]",
    "\\pair x22, x23, [x2, #{gpr} + 64]",
    "\\pair x24, x25, [x2, #{gpr} + 80]",
    "\\pair x26, x27, [x2, #{gpr} + 96]",
    "\\pair x28, x29, [x2, #{gpr} + 112]",
    "\\pair q16, q17, [x2, #{xmm}]",
    "\\pair q18, q19, [x2, #{xmm} + 32]",
    "\\pair q20, q21, [x2, #{xmm} + 64]",
    "\\pair q22, q23, [x2, #{xmm} + 96]",
    "\\pair q24, q25, [x2, #{xmm} + 128]",
    "\\pair q26, q27, [x2, #{xmm} + 160]",
    "\\pair q28, q29, [x2, #{xmm} + 192]",
    "\\pair q30, q31, [x2, #{xmm} + 224]",
    ".endm",
    ".macro calque_tier0_passed",
    "str x4, [x2, #{gpr}]",
    "str x7, [x2, #{gpr} + 16]",
    "str x3, [x2, #{gpr} + 32]",
    "stp x6, x5, [x2, #{gpr} + 48]",
    ".endm",
    // x17: the entry of pc x16 in the second level, by x0; to `none` if there is no such level.
    ".macro calque_second_level none",
    "orr x17, x8, #{first_bytes} - 1",
    "ldur x17, [x17, #1]",
    "cbz x17, \\none",
    "eor x0, x16, x16, lsr #{second_shift}",
    "ubfiz x0, x0, #4, #{second_bits}",
    "add x17, x17, x0",
    ".endm",
    ".p2align 4",
    ".globl calque_tier0_arrive",
    ".hidden calque_tier0_arrive",
    ".type calque_tier0_arrive, %function",
    "calque_tier0_arrive:",
    "ldr w0, [x2, #{countdown}]",
    "subs w0, w0, #1",
    "str w0, [x2, #{countdown}]",
    "b.mi 6f",
    ".globl calque_tier0_enter",
    ".hidden calque_tier0_enter",
    ".type calque_tier0_enter, %function",
    "calque_tier0_enter:",
    // What code of the `Tail` convention passes is in no other place.
    "calque_tier0_passed",
    "calque_tier0_registers ldp",
    "ldr w1, [x2, #{countdown}]",
    "ldr x8, [x2, #{jumps}]",
    "ldr x9, [x2, #{cells}]",
    "br x17",
    "6:",
    "calque_tier0_passed",
    "mov w16, #{arrived}",
    "str w16, [x2, #{reason}]",
    "str x17, [x2, #{detail}]",
    "b calque_fault_return",
    ".size calque_tier0_enter, . - calque_tier0_enter",
    ".p2align 4",
    ".globl calque_tier0_to_tail",
    ".hidden calque_tier0_to_tail",
    ".type calque_tier0_to_tail, %function",
    "calque_tier0_to_tail:",
    "calque_tier0_registers stp",
    "str w1, [x2, #{countdown}]",
    "adrp x30, calque_fault_return",
    "add x30, x30, :lo12:calque_fault_return",
    "br x17",
    ".size calque_tier0_to_tail, . - calque_tier0_to_tail",
    ".p2align 4",
    ".globl calque_tier0_link",
    ".hidden calque_tier0_link",
    ".type calque_tier0_link, %function",
    "calque_tier0_link:",
    "mov w16, #{link}",
    "b 2f",
    ".globl calque_tier0_leave",
    ".hidden calque_tier0_leave",
    ".type calque_tier0_leave, %function",
    "calque_tier0_leave:",
    "str x16, [x2, #{rip}]",
    "mov w16, #{leave}",
    "2:",
    "str w16, [x2, #{reason}]",
    "str x17, [x2, #{detail}]",
    "str w1, [x2, #{countdown}]",
    "calque_tier0_registers stp",
    "b calque_fault_return",
    ".size calque_tier0_leave, . - calque_tier0_leave",
    ".p2align 4",
    ".globl calque_tier0_call",
    ".hidden calque_tier0_call",
    ".type calque_tier0_call, %function",
    "calque_tier0_call:",
    "stp x30, x1, [sp, #-368]!",
    "stp x2, x3, [sp, #16]",
    "stp x4, x5, [sp, #32]",
    "stp x6, x7, [sp, #48]",
    "stp x10, x11, [sp, #64]",
    "stp x12, x13, [sp, #80]",
    "stp x14, x15, [sp, #96]",
    "stp q16, q17, [sp, #112]",
    "stp q18, q19, [sp, #144]",
    "stp q20, q21, [sp, #176]",
    "stp q22, q23, [sp, #208]",
    "stp q24, q25, [sp, #240]",
    "stp q26, q27, [sp, #272]",
    "stp q28, q29, [sp, #304]",
    "stp q30, q31, [sp, #336]",
    "mov x3, x0",
    "mov x0, x2",
    "mov x1, x16",
    "mov x2, x17",
    "blr x8",
    "mov x16, x0",
    "ldp q30, q31, [sp, #336]",
    "ldp q28, q29, [sp, #304]",
    "ldp q26, q27, [sp, #272]",
    "ldp q24, q25, [sp, #240]",
    "ldp q22, q23, [sp, #208]",
    "ldp q20, q21, [sp, #176]",
    "ldp q18, q19, [sp, #144]",
    "ldp q16, q17, [sp, #112]",
    "ldp x14, x15, [sp, #96]",
    "ldp x12, x13, [sp, #80]",
    "ldp x10, x11, [sp, #64]",
    "ldp x6, x7, [sp, #48]",
    "ldp x4, x5, [sp, #32]",
    "ldp x2, x3, [sp, #16]",
    "ldp x30, x1, [sp], #368",
    "ldr x8, [x2, #{jumps}]",
    "ldr x9, [x2, #{cells}]",
    "ret",
    ".size calque_tier0_call, . - calque_tier0_call",
    ".p2align 4",
    ".globl calque_tier0_resolve",
    ".hidden calque_tier0_resolve",
    ".type calque_tier0_resolve, %function",
    "calque_tier0_resolve:",
    // The countdown has ended?
    "tbnz w1, #31, 4f",
    // Code that wants no flags, in the second level.
    "calque_second_level 2f",
    "ldr x30, [x17]",
    "cmp x30, x16",
    "b.eq 6f",
    "2:",
    "ldr w17, [x2, #{kind}]",
    "cbnz w17, 5f",
    // Code that wants them, in either.
    "3:",
    "ldp x17, x0, [x8]",
    "eor x30, x16, #{wanted}",
    "cmp x17, x30",
    "b.ne 7f",
    "br x0",
    "7:",
    "calque_second_level 4f",
    "ldr x0, [x17]",
    "cmp x0, x30",
    "b.ne 4f",
    // Found there, with key x30: a copy for the first level, if it still stands there then.
    "6:",
    "ldr x0, [x17, #8]",
    "stp x30, x0, [x8]",
    "dmb ish",
    "ldr x17, [x17]",
    "cmp x17, x30",
    "b.ne 8f",
    "br x0",
    "8:",
    "ubfx x17, x8, #4, #{slot_bits}",
    "eor x17, x17, #1",
    "str x17, [x8]",
    "4:",
    "mov x17, #{indirect}",
    "b calque_tier0_leave",
    "5:",
    "stp x8, x16, [sp, #-336]!",
    "stp x1, x2, [sp, #16]",
    "stp x3, x4, [sp, #32]",
    "stp x5, x6, [sp, #48]",
    "str x7, [sp, #64]",
    "stp q16, q17, [sp, #80]",
    "stp q18, q19, [sp, #112]",
    "stp q20, q21, [sp, #144]",
    "stp q22, q23, [sp, #176]",
    "stp q24, q25, [sp, #208]",
    "stp q26, q27, [sp, #240]",
    "stp q28, q29, [sp, #272]",
    "stp q30, q31, [sp, #304]",
    "mov x0, x2",
    "bl {settle}",
    "ldp q30, q31, [sp, #304]",
    "ldp q28, q29, [sp, #272]",
    "ldp q26, q27, [sp, #240]",
    "ldp q24, q25, [sp, #208]",
    "ldp q22, q23, [sp, #176]",
    "ldp q20, q21, [sp, #144]",
    "ldp q18, q19, [sp, #112]",
    "ldp q16, q17, [sp, #80]",
    "ldr x7, [sp, #64]",
    "ldp x5, x6, [sp, #48]",
    "ldp x3, x4, [sp, #32]",
    "ldp x1, x2, [sp, #16]",
    "ldp x8, x16, [sp], #336",
    "ldr x9, [x2, #{cells}]",
    "b 3b",
    ".size calque_tier0_resolve, . - calque_tier0_resolve",
    gpr = const offset_of!(CpuState, gpr),
    xmm = const offset_of!(CpuState, xmm),
    rip = const offset_of!(CpuState, rip),
    kind = const offset_of!(CpuState, deferred.kind),
    wanted = const jump_cache::WANTED,
    slot_bits = const jump_cache::ENTRIES.ilog2(),
    first_bytes = const jump_cache::ENTRIES * jump_cache::ENTRY_BYTES,
    second_shift = const jump_cache::SECOND_SHIFT,
    second_bits = const jump_cache::SECOND_ENTRIES.ilog2(),
    settle = sym settle,
    indirect = const Leave::Indirect as u64,
    countdown = const offset_of!(CpuState, rt.countdown),
    jumps = const offset_of!(CpuState, rt.tier0_jumps),
    cells = const offset_of!(CpuState, rt.cells),
    reason = const offset_of!(CpuState, rt.exit_reason),
    detail = const offset_of!(CpuState, rt.exit_detail),
    arrived = const REASON_ARRIVED,
    link = const REASON_LINK | FROM_TIER0,
    leave = const REASON_LEAVE | FROM_TIER0,
);

/// Computes deferred flags for code that wants them.
extern "C" fn settle(cpu: &mut CpuState) {
    cpu.settle_flags();
}

unsafe extern "C" {
    fn calque_tier0_arrive();
    fn calque_tier0_enter();
    fn calque_tier0_to_tail();
    fn calque_tier0_link();
    fn calque_tier0_leave();
    fn calque_tier0_call();
    fn calque_tier0_resolve();
}

/// Where tier 0 is entered from the trampoline, which leaves the address of the code in x17.
pub(super) fn tier0_enter() -> usize {
    calque_tier0_enter as unsafe extern "C" fn() as usize
}

/// Address of a stub.
pub(crate) fn tier0_stub(stub: Stub) -> usize {
    let stub: unsafe extern "C" fn() = match stub {
        Stub::Link => calque_tier0_link,
        Stub::Leave => calque_tier0_leave,
        Stub::Call => calque_tier0_call,
        Stub::Arrive => calque_tier0_arrive,
        Stub::ToTail => calque_tier0_to_tail,
        Stub::Resolve => calque_tier0_resolve,
    };
    stub as usize
}
