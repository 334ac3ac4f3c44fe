//! How generated code is entered, how it leaves, and the tables it reads on the way.
//!
//! Generated functions have Cranelift's `Tail` convention; their arguments are the [`CpuState`] and the guest registers of
//! [`ARGUMENTS`], which most regions use: they travel from region to region in host registers, and all but RSP only there: what
//! `CpuState` has of them is stale until the stubs below store them.
//! Functions never return by themselves: every way out is a tail jump through an 8-byte *cell* of the table at `cpu.rt.cells`:
//!
//! - a direct exit jumps through its own cell. A linked cell holds the code of the target region; an unlinked one a stub that leaves
//!   the cell's number in `cpu.rt.exit_detail` and jumps to `exit_link`, which records [`ExitReason::Link`] and returns to the caller
//!   of [`enter`];
//! - a computed jump looks into the thread's [`JumpCache`](jump_cache::JumpCache) itself, which knows regions that want no flags. Otherwise it jumps through [`RESOLVE_CELL`], with `cpu.rip` and the flags stored, to the stub `exit_resolve`,
//!   which calls [`resolve`] and goes on there, or leaves;
//! - every other exit jumps through [`LEAVE_CELL`], which holds `exit_leave`, and leaves the encoded reason in `cpu.rt.exit_detail`; all registers are in
//!   `CpuState`. `cpu.rip` says where the guest goes on. `exit_leave_passing` does the same for [`ARGUMENTS`] in host registers.
//!
//! # Safety
//! Invariants that [`enter`] relies on:
//! 1. `cpu.rt.cells`, `helpers` and `jump_cache` point to live tables of a [`crate::CodeCache`], of
//!    [`crate::helpers::table`] and of a [`jump_cache::JumpCache`].
//! 2. Every code address in these tables is the entry of a translation of that cache, compiled for this host, and
//!    stays mapped while any thread is inside `enter` (the runtime stops the world before `CodeCache::reset`).
#![allow(unsafe_code)]

use crate::arch;
use crate::emit::entry::FROM_TIER0;
use crate::jump_cache;
use calque_ir::state::{MXCSR_MASKS, X87_MASKS};
use calque_ir::{CpuState, FaultKind, GuestAddr, Reg};

/// Address of machine code in this process.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(transparent)]
pub struct HostCode(pub usize);

impl std::fmt::Debug for HostCode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "host:{:#x}", self.0)
    }
}

/// Why generated code came back to the dispatcher.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ExitReason {
    /// Through the unlinked cell of this number; [`crate::CodeCache::cell_target`] knows the guest pc. `cpu.rip` is stale.
    Link { cell: u32 },
    /// To `cpu.rip`, which the jump cache does not know.
    Indirect,
    /// On the way from code of the `Tail` convention to tier 0's at this address, with the countdown at its end. `cpu.rip` is stale.
    Arrived(HostCode),
    /// SYSCALL; `cpu.rip` is behind it.
    Syscall,
    /// The instruction at `cpu.rip` faults (INT3: the one before).
    Fault(FaultKind),
    /// `cpu.rt.interrupt` was set; the guest goes on at `cpu.rip`.
    Interrupt,
    /// A signal handler left generated code through [`fault_return`]; it has recorded the rest.
    HostFault,
}

/// `Rt::exit_reason` after an exit through an unlinked cell; `exit_detail` is the cell.
pub(crate) const REASON_LINK: u32 = 0;
/// `Rt::exit_reason` after any other exit; `exit_detail` is a leave word.
pub(crate) const REASON_LEAVE: u32 = 1;
/// `Rt::exit_reason` of [`ExitReason::Arrived`]; `exit_detail` is the code.
pub(crate) const REASON_ARRIVED: u32 = 3;
/// `Rt::exit_reason` that a signal handler stores before it resumes at [`fault_return`].
pub const REASON_HOST_FAULT: u32 = 2;

/// The cell that holds `exit_leave`.
pub(crate) const LEAVE_CELL: u32 = 0;

/// The cell that holds `exit_resolve`. Those before are of tier 0's stubs.
pub(crate) const RESOLVE_CELL: u32 = 6;

/// The cell that holds `exit_leave_passing`.
pub(crate) const LEAVE_PASSING_CELL: u32 = 7;

/// The cell that holds `exit_link`, for the stubs of unlinked cells (`link_stub.rs`).
pub(crate) const LINK_CELL: u32 = 8;

/// Cells that are no exit's: the last of them is `Stub::Resolve`'s.
pub(crate) const FIXED_CELLS: u32 = 10;

/// How code takes and leaves the guest's registers.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum CodeKind {
    /// In `CpuState`, some of them in arguments of the `Tail` convention, too: Cranelift's.
    #[default]
    Tail,
    /// In fixed host registers: tier 0 on AArch64 (`emit/regs.rs`).
    Tier0,
}

/// The guest registers that are passed as arguments behind `cpu`: as many as `Tail` passes in registers on both hosts, and the ones
/// that calls and returns use most. The trampolines in `arch/` name them again.
pub(crate) const ARGUMENTS: [Reg; 5] = [Reg::RSP, Reg::RAX, Reg::RDI, Reg::RSI, Reg::RDX];

/// What `exit_detail` says behind an exit through [`LEAVE_CELL`]: the reason in bits 0..8, a fault kind in bits 8..16, in the upper
/// half the counter of a `count` that a fault in the middle of a block has not reached.
#[derive(Clone, Copy)]
#[repr(u64)]
pub(crate) enum Leave {
    Indirect = 0,
    Syscall = 1,
    Interrupt = 2,
    Fault = 3,
}

/// The word of an exit with a fault of the guest, in front of a `count` of this counter (0: of none).
pub(crate) fn leave_fault(kind: FaultKind, counter: u32) -> u64 {
    Leave::Fault as u64 | (kind as u64) << 8 | u64::from(counter) << 32
}

/// After [`ExitReason::Fault`]: the counter that was not reached, 0 if there is none.
pub fn counter_ahead(cpu: &CpuState) -> u32 {
    (cpu.rt.exit_detail >> 32) as u32
}

fn decode_leave(word: u64) -> ExitReason {
    match word & 0xff {
        0 => ExitReason::Indirect,
        1 => ExitReason::Syscall,
        2 => ExitReason::Interrupt,
        _ => ExitReason::Fault(FaultKind::from_code((word >> 8 & 0xff) as u16)),
    }
}

/// Whether generated code computes with floats as the guest's control words say. It has no way to stop at an exception, and
/// not every host has all of MXCSR's control bits; the interpreter does without the host's unit. Where it does not,
/// only code may be entered that asks `cpu.rt.uncarried` before it computes ([`calque_ir::Op::Uncarried`]).
pub fn carries_floats(cpu: &CpuState) -> bool {
    let masked = cpu.mxcsr & MXCSR_MASKS == MXCSR_MASKS && cpu.x87.control & X87_MASKS == X87_MASKS;
    masked && arch::expresses(cpu.mxcsr)
}

/// Runs generated code at `code` until it leaves, with the guest's rounding mode and denormal handling in the host's
/// FP control register, as far as that [`carries_floats`]. Guest registers are in `cpu` before and after.
///
/// # Safety
/// The invariants of this file; `code` is an entry of a live translation.
pub unsafe fn enter(cpu: &mut CpuState, code: HostCode) -> ExitReason {
    // SAFETY: `code` is generated code with the ABI that the trampoline expects (invariant 2), and `cpu`'s tables are
    // live (invariant 1).
    unsafe { arch::enter(cpu, code.0) };
    cpu.settle_flags();
    exit_reason(cpu)
}

/// The same for code of tier 0.
///
/// # Safety
/// The same; `code` is an entry of tier-0 code.
pub unsafe fn enter_tier0(cpu: &mut CpuState, code: HostCode) -> ExitReason {
    // SAFETY: as above.
    unsafe { arch::enter_tier0(cpu, code.0) };
    cpu.settle_flags();
    exit_reason(cpu)
}

/// What kind of code it was that came back last.
pub fn left_from(cpu: &CpuState) -> CodeKind {
    if cpu.rt.exit_reason & FROM_TIER0 != 0 { CodeKind::Tier0 } else { CodeKind::Tail }
}

fn exit_reason(cpu: &CpuState) -> ExitReason {
    match cpu.rt.exit_reason & !FROM_TIER0 {
        REASON_LINK => ExitReason::Link { cell: cpu.rt.exit_detail as u32 },
        REASON_LEAVE => decode_leave(cpu.rt.exit_detail),
        REASON_ARRIVED => ExitReason::Arrived(HostCode(cpu.rt.exit_detail as usize)),
        _ => ExitReason::HostFault,
    }
}

/// Where a signal handler sets the host pc, with the host stack pointer set to `cpu.rt.host_sp`, to leave generated
/// code at a fault: [`enter`] then returns with what `cpu.rt.exit_reason` says ([`REASON_HOST_FAULT`]).
pub fn fault_return() -> HostCode {
    HostCode(arch::fault_return())
}

/// What [`LINK_CELL`] holds.
pub(crate) fn exit_link() -> HostCode {
    HostCode(arch::exit_link())
}

/// What [`LEAVE_CELL`] holds.
pub(crate) fn exit_leave() -> HostCode {
    HostCode(arch::exit_leave())
}

/// What [`LEAVE_PASSING_CELL`] holds.
pub(crate) fn exit_leave_passing() -> HostCode {
    HostCode(arch::exit_leave_passing())
}

/// What [`RESOLVE_CELL`] holds.
pub(crate) fn exit_resolve() -> HostCode {
    HostCode(arch::exit_resolve())
}

/// Where a computed jump to `cpu.rip` goes on that has not found its target by itself: in a region that wants flags, for which they
/// are computed here, or in none (0): then the word to leave with is in `cpu.rt.exit_detail`.
///
/// # Safety
/// Called by `exit_resolve` only: `cpu.rt.jump_cache` points to the thread's [`jump_cache::JumpCache`].
pub(crate) unsafe extern "C" fn resolve(cpu: &mut CpuState) -> u64 {
    cpu.settle_flags();
    // SAFETY: the address of a `JumpCache`, alive as long as the thread runs generated code.
    let code = unsafe { jump_cache::resolve(cpu.rt.jump_cache, GuestAddr(cpu.rip)) };
    code.map_or_else(
        || {
            cpu.rt.exit_detail = Leave::Indirect as u64;
            0
        },
        |code| code.0 as u64,
    )
}
