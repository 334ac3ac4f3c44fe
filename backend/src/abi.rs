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
//! - a computed jump looks into the thread's [`JumpCache`] itself, which knows regions that want no flags
//!   ([`FlagsAtEntry::Dead`]). Otherwise it jumps through [`RESOLVE_CELL`], with `cpu.rip` and the flags stored, to the stub `exit_resolve`,
//!   which calls [`resolve`] and goes on there, or leaves;
//! - every other exit jumps through [`LEAVE_CELL`], which holds `exit_leave`, and leaves the encoded reason in `cpu.rt.exit_detail`; all registers are in
//!   `CpuState`. `cpu.rip` says where the guest goes on. `exit_leave_passing` does the same for [`ARGUMENTS`] in host registers.
//!
//! # Safety
//! Invariants that [`enter`] relies on:
//! 1. `cpu.rt.cells`, `helpers` and `jump_cache` point to live tables of a [`crate::CodeCache`], of
//!    [`crate::helpers::table`] and of a [`JumpCache`].
//! 2. Every code address in these tables is the entry of a translation of that cache, compiled for this host, and
//!    stays mapped while any thread is inside `enter` (the runtime stops the world before `CodeCache::reset`).
#![allow(unsafe_code)]

use crate::arch;
use crate::cache::Translation;
use crate::emit::entry::FROM_TIER0;
use crate::sync::{AtomicU64, fence};
use calque_ir::state::{MXCSR_MASKS, X87_MASKS};
use calque_ir::{CpuState, FaultKind, GuestAddr, Reg};
use std::sync::atomic::Ordering;

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
/// Called by `exit_resolve` only: `cpu.rt.jump_cache` points to the thread's [`JumpCache`].
pub(crate) unsafe extern "C" fn resolve(cpu: &mut CpuState) -> u64 {
    cpu.settle_flags();
    let pc = GuestAddr(cpu.rip);
    // SAFETY: the address of a `JumpCache`'s entries, alive as long as the thread runs generated code.
    let entry = unsafe { &*(cpu.rt.jump_cache as *const JumpEntry).add(JumpCache::slot(pc)) };
    if entry.pc.load(Ordering::Relaxed) == FlagsAtEntry::Wanted.key(pc) {
        return entry.code.load(Ordering::Relaxed);
    }
    cpu.rt.exit_detail = Leave::Indirect as u64;
    0
}

/// Whether a region may read the status flags that it is entered with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FlagsAtEntry {
    Dead,
    Wanted,
}

impl FlagsAtEntry {
    /// What the jump cache knows a pc by: one that is no address where flags must be ready, so that only [`resolve`] finds it.
    fn key(self, pc: GuestAddr) -> u64 {
        pc.0 ^ u64::from(self == FlagsAtEntry::Wanted) << 63
    }
}

/// Entries of a [`JumpCache`]: 64 KiB a thread.
pub const JUMP_CACHE_ENTRIES: usize = if cfg!(feature = "models") { 2 } else { 4096 };

/// The slot of a pc is `(pc ^ pc >> shift) % entries`: functions are aligned to 16 bytes, so that the low bits alone would leave
/// most slots to returns.
pub(crate) const JUMP_CACHE_SHIFT: u32 = 12;

/// Bytes of an entry.
pub(crate) const JUMP_ENTRY_BYTES: usize = size_of::<JumpEntry>();

#[repr(C)]
struct JumpEntry {
    pc: AtomicU64,
    code: AtomicU64,
}

/// One thread's direct-mapped table from guest pc to code, which indirect jumps probe inline.
/// Only the owning thread looks into it and inserts; others may [`JumpCache::remove`] what has become stale.
/// `cpu.rt.jump_cache` holds [`JumpCache::address`].
pub struct JumpCache {
    table: Box<Table>,
}

/// Aligned to its size, so that a slot's address is made by replacing bits.
#[repr(C, align(65536))]
struct Table {
    entries: [JumpEntry; JUMP_CACHE_ENTRIES],
}

const _: () = assert!(JUMP_CACHE_ENTRIES * JUMP_ENTRY_BYTES == 65536 || cfg!(feature = "models"));

impl JumpEntry {
    /// An entry of slot `slot` that matches nothing: its pc, below the first page, belongs to the neighbour's slot.
    fn empty(slot: usize) -> JumpEntry {
        JumpEntry { pc: AtomicU64::new(slot as u64 ^ 1), code: AtomicU64::new(0) }
    }

    fn clear(&self, slot: usize) {
        self.pc.store(slot as u64 ^ 1, Ordering::Relaxed);
    }
}

impl JumpCache {
    /// An empty table.
    pub fn new() -> Self {
        Self { table: Box::new(Table { entries: std::array::from_fn(JumpEntry::empty) }) }
    }

    /// For `cpu.rt.jump_cache`; valid as long as `self`, also when it moves.
    pub fn address(&self) -> u64 {
        self.table.entries.as_ptr() as u64
    }

    /// Remembers that `pc` is translated at `code`, forgetting another pc of the same slot.
    pub fn insert(&self, pc: GuestAddr, code: HostCode, flags: FlagsAtEntry) {
        let entry = &self.table.entries[Self::slot(pc)];
        entry.code.store(code.0 as u64, Ordering::Relaxed);
        entry.pc.store(flags.key(pc), Ordering::Relaxed);
    }

    /// The same for `code` of `translation`, which another thread may be taking out of use: it removes `pc` here behind
    /// [`crate::CodeCache::remove`]. Of its two steps and the two here, one pair sees the other's first (Dekker).
    pub fn insert_usable(&self, translation: &Translation, code: HostCode, flags: FlagsAtEntry) {
        self.insert(translation.pc, code, flags);
        fence(Ordering::SeqCst);
        if translation.is_removed() {
            self.remove(translation.pc);
        }
    }

    /// Forgets `pc`.
    pub fn remove(&self, pc: GuestAddr) {
        fence(Ordering::SeqCst);
        let entry = &self.table.entries[Self::slot(pc)];
        if entry.pc.load(Ordering::Relaxed) << 1 == pc.0 << 1 {
            entry.clear(Self::slot(pc));
        }
    }

    /// Forgets everything: after code was removed.
    pub fn clear(&self) {
        self.table.entries.iter().enumerate().for_each(|(slot, entry)| entry.clear(slot));
    }

    /// What generated code finds for `pc`.
    #[cfg(all(test, feature = "models"))]
    pub(crate) fn find(&self, pc: GuestAddr) -> Option<HostCode> {
        let entry = &self.table.entries[Self::slot(pc)];
        let known = entry.pc.load(Ordering::Relaxed) == pc.0;
        known.then(|| HostCode(entry.code.load(Ordering::Relaxed) as usize))
    }

    fn slot(pc: GuestAddr) -> usize {
        (pc.0 ^ pc.0 >> JUMP_CACHE_SHIFT) as usize % JUMP_CACHE_ENTRIES
    }
}

impl Default for JumpCache {
    fn default() -> Self {
        Self::new()
    }
}
