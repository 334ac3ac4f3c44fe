//! Whose a synchronous host fault is.
//!
//! Runs inside the host's signal handler, but a *synchronous* fault interrupts the thread at a known instruction: an
//! access primitive or generated code. Neither holds a lock or is inside the allocator (M4 of `memory`), so locks and memory
//! are available here.
//!
//! 1. A write to a page that is write-protected only because it holds translated code: drop the translations, unprotect, and
//!    let the instruction run again (`smc.rs`), in the interpreter if its own translation comes from that page.
//! 2. An access primitive: resume at its landing, which reports the failure.
//! 3. Generated code whose ordered access is not aligned, on hosts that mind: carry it out here.
//! 4. Generated code otherwise: leave it through the dispatcher's exit, with the fault recorded for `Thread::run`.
//! 5. Anything else is a bug of ours.
//!
//! # Safety
//! Writes the interrupted context, which the kernel has given to the handler.

#![allow(unsafe_code)]

use crate::arch;
use crate::arch::{CarriedOut, FaultOf};
use crate::dispatch::CODE_CHANGED;
use crate::memory::Prot;
use crate::stats;
use crate::thread::Access;
use calque_backend::{CodeKind, Translation, abi};
use calque_ir::{CpuState, GuestAddr};
use std::cell::Cell;
use std::ptr::null_mut;
use std::sync::atomic::Ordering;

thread_local! {
    /// Registers of the guest thread that this host thread runs; null elsewhere.
    static CPU: Cell<*mut CpuState> = const { Cell::new(null_mut()) };
    /// What the handler found out about the fault with which it left generated code.
    static PENDING: Cell<Option<Pending>> = const { Cell::new(None) };
}

/// Makes `cpu` the calling host thread's, for the time that it runs guest code.
pub(crate) fn set_current(cpu: *mut CpuState) {
    CPU.set(cpu);
}

/// What the host handler does with a fault.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Verdict {
    /// The context is set up: return from the handler.
    Resume,
    /// Not a guest's fault: report a bug and die.
    NotOurs,
}

/// Decides about a synchronous SIGSEGV, SIGBUS, SIGFPE, SIGILL or SIGTRAP (`si_code > 0`) of the calling thread.
pub(crate) fn classify(signo: i32, info: &libc::siginfo_t, context: &mut libc::ucontext_t) -> Verdict {
    let addr = GuestAddr(arch::fault_address(info));
    if signo == libc::SIGSEGV && arch::context_is_write(context) && unprotect(addr) {
        match units() {
            Some(units) => units.leave_behind(context),
            None => leave_if_modified(addr, context),
        }
        end_countdown(context);
        return Verdict::Resume;
    }
    if signo == libc::SIGTRAP && info.si_code == TRAP_TRACE {
        leave_unit(context);
        return Verdict::Resume;
    }
    if leave_generated_code(signo, info, context) {
        return Verdict::Resume;
    }
    // Last: the table of our own accesses is long, and guests fault more often than those do.
    let Some(landing) = arch::fixup(arch::context_pc(context)) else { return Verdict::NotOurs };
    arch::context_set_pc(context, landing);
    arch::context_set_fault(context);
    Verdict::Resume
}

/// A fault of the guest inside generated code.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Pending {
    pub(crate) signo: i32,
    /// `si_code`.
    pub(crate) code: i32,
    pub(crate) addr: GuestAddr,
    pub(crate) access: Access,
    /// The exception's vector, where the host says so.
    pub(crate) vector: Option<u64>,
    /// Entry of the translation; 0 for units.
    pub(crate) region: usize,
}

/// The fault with which generated code was left.
pub(crate) fn take_pending() -> Pending {
    try_take_pending().expect("the handler has recorded the fault")
}

/// The fault with which generated code was left, if it was a fault.
pub(crate) fn try_take_pending() -> Option<Pending> {
    PENDING.take()
}

/// Makes the calling thread, interrupted by a signal at `context`, leave the unit that it is in.
pub(crate) fn leave_unit(context: &mut libc::ucontext_t) {
    if !CPU.get().is_null()
        && let Some(units) = units()
    {
        units.interrupt(context);
    }
}

fn units() -> Option<&'static arch::Units> {
    crate::process::current().and_then(|process| process.code.units.as_ref())
}

/// Cases 3 and 4: whether the context is in generated code; it will resume in the dispatcher.
fn leave_generated_code(signo: i32, info: &libc::siginfo_t, context: &mut libc::ucontext_t) -> bool {
    let cpu = CPU.get();
    if cpu.is_null() || !matches!(signo, libc::SIGSEGV | libc::SIGBUS | libc::SIGFPE | libc::SIGILL) {
        return false;
    }
    let access = if arch::context_is_write(context) { Access::Write } else { Access::Read };
    // Linux reports a non-canonical address as SI_KERNEL without an address (arch/x86/kernel/traps.c).
    let addr = if info.si_code == SI_KERNEL { NOT_CANONICAL } else { arch::fault_address(info) };
    let vector = arch::context_trap(context);
    let pending = Pending { signo, code: info.si_code, addr: GuestAddr(addr), access, vector, region: 0 };
    match units().map_or(FaultOf::NoUnit, |units| units.fault(context)) {
        FaultOf::NoUnit => {}
        FaultOf::Guest => {
            PENDING.set(Some(pending));
            return true;
        }
        FaultOf::Sequence => return true,
    }
    let pc = arch::context_pc(context) as usize;
    let jit = crate::process::current().and_then(|process| process.code.jit.as_ref());
    let Some((translation, guest_pc)) = jit.and_then(|jit| jit.cache.find_by_host_pc(pc)) else { return false };
    let region = translation.code.0;
    let (of_itself, epoch) = (Cell::new(false), epoch());
    if signo == libc::SIGBUS && info.si_code == libc::BUS_ADRALN {
        let may = |addr: u64, bytes: usize, access| {
            let ends = [addr, addr.wrapping_add(bytes as u64 - 1)];
            of_itself
                .set(access != Access::Read && ends.into_iter().any(|end| is_made_from(translation, GuestAddr(end))));
            !of_itself.get() && may_access(addr, bytes, access)
        };
        let carried_out = arch::emulate_unaligned(context, may);
        if carried_out != CarriedOut::Not {
            if carried_out == CarriedOut::Plain
                && let Some(process) = crate::process::current()
            {
                process.code.count_unaligned(&process.stats, translation, guest_pc);
            }
            if self::epoch() != epoch {
                end_countdown(context);
            }
            return true;
        }
    }
    let addr = GuestAddr(arch::whole_address(context, pending.addr.0));
    let pending = Pending { addr, ..pending };
    let one_by_one = of_itself.get() || arch::is_at_pair(context);
    let pending = if one_by_one { Pending { signo: TO_INTERPRET, ..pending } } else { pending };
    PENDING.set(Some(Pending { region, ..pending }));
    if translation.kind == CodeKind::Tier0 {
        // SAFETY: the registers of this thread, which is inside emitted code.
        arch::take_emitted_registers(context, unsafe { &mut *cpu });
    }
    leave(cpu, guest_pc, context);
    true
}

/// `Pending::signo` of an instruction that the interpreter is to execute: it writes to the page that its own translation was made from, or
/// it or the next faults, of which emitted code makes one.
pub(crate) const TO_INTERPRET: i32 = 0;

/// Leaves generated code if what it was made from is about to be written to by itself: what follows may not be what it was.
fn leave_if_modified(addr: GuestAddr, context: &mut libc::ucontext_t) {
    let cpu = CPU.get();
    let Some(code) = crate::process::current().map(|process| &process.code).filter(|_| !cpu.is_null()) else { return };
    let Some(jit) = &code.jit else { return };
    let Some((translation, pc)) = jit.cache.find_by_host_pc(arch::context_pc(context) as usize) else { return };
    if is_made_from(translation, addr) {
        let region = translation.code.0;
        PENDING.set(Some(Pending { signo: TO_INTERPRET, code: 0, addr, access: Access::Write, vector: None, region }));
        leave(cpu, pc, context);
    }
}

/// Whether a region is made from the page of `addr`, to which it could write. Elsewhere registers are not exact, and such code is not of a page that
/// could be written to when it was made. Emitted blocks of such pages end behind their stores.
fn is_made_from(translation: &Translation, addr: GuestAddr) -> bool {
    let of_page = |&(start, len): &(GuestAddr, u32)| {
        let last = start.wrapping_add(u64::from(len.max(1)) - 1);
        start.page() <= addr && addr.page() <= last.page()
    };
    translation.kind == CodeKind::Tail
        && translation.source.iter().any(of_page)
        && crate::process::current().is_some_and(|process| process.code.is_of_writable_page(translation.pc))
}

fn epoch() -> u64 {
    crate::process::current().map_or(0, |process| process.code.epoch())
}

/// Makes the context resume in the dispatcher, with the guest at `pc`.
fn leave(cpu: *mut CpuState, pc: GuestAddr, context: &mut libc::ucontext_t) {
    // SAFETY: the registers of this thread, which is inside generated code and not in Rust.
    unsafe {
        (*cpu).rip = pc.0;
        (*cpu).rt.exit_reason = abi::REASON_HOST_FAULT;
        arch::context_set_sp(context, (*cpu).rt.host_sp);
    }
    arch::context_set_pc(context, abi::fault_return().0 as u64);
}

/// Whether the guest has this access to these bytes. The write protection of code pages is lifted: it cannot be when the
/// access faults here.
fn may_access(addr: u64, bytes: usize, access: Access) -> bool {
    let Some(process) = crate::process::current() else { return false };
    let needed = if access == Access::Read { Prot::READ } else { Prot::READ | Prot::WRITE };
    if access != Access::Read {
        process.give_up_code(GuestAddr(addr), bytes as u64);
    }
    let allowed = |at: u64| process.mem.mapping(GuestAddr(at)).is_some_and(|m| m.prot.contains(needed));
    allowed(addr) && allowed(addr.wrapping_add(bytes as u64 - 1))
}

/// `si_code` of a trap behind one instruction (asm-generic/siginfo.h).
const TRAP_TRACE: i32 = 2;
/// `si_code` of exceptions without a better one (asm-generic/siginfo.h).
const SI_KERNEL: i32 = 0x80;
/// Stands for any non-canonical address.
const NOT_CANONICAL: u64 = 1 << 63;

/// Has emitted code, which does not look at the interrupt word, leave soon.
fn end_countdown(context: &mut libc::ucontext_t) {
    let Some(process) = crate::process::current().filter(|process| process.code.emits) else { return };
    let Some(jit) = &process.code.jit else { return };
    let found = jit.cache.find_by_host_pc(arch::context_pc(context) as usize);
    if found.is_some_and(|(translation, _)| translation.kind == CodeKind::Tier0) {
        arch::end_countdown(context);
    }
}

/// Case 1: whether `addr` lay in a protected code page and can be written now.
fn unprotect(addr: GuestAddr) -> bool {
    let Some(process) = crate::process::current() else { return false };
    let done = process.mem.unprotect_code(addr, || process.drain_stale());
    if done {
        stats::add(&process.stats.code_writes, 1);
        interrupt(CODE_CHANGED);
    }
    done
}

/// Sets a bit in the interrupt word of the guest thread that the calling host thread runs, if it runs one.
pub(crate) fn interrupt(bit: u32) {
    let cpu = CPU.get();
    if !cpu.is_null() {
        // SAFETY: points to the thread's registers while it runs guest code; the word is atomic.
        unsafe { (*cpu).rt.interrupt.fetch_or(bit, Ordering::Relaxed) };
    }
}
