//! Whose a synchronous host fault is.
//!
//! Runs inside the host's signal handler, but a *synchronous* fault interrupts the thread at a known instruction: an
//! access primitive or generated code. Neither holds a lock or is inside the allocator (M4), so locks and memory are
//! available here.
//!
//! 1. A write to a page that is write-protected only because it holds translated code: unprotect, mark stale, and
//!    let the instruction run again (`smc.rs`).
//! 2. An access primitive: resume at its landing, which reports the failure.
//! 3. Generated code: leave it through the dispatcher's exit, with the fault recorded for `Thread::run`.
//! 4. Anything else is a bug of ours.

use crate::arch;
use calque_ir::GuestAddr;

/// What the host handler does with a fault.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// The context is set up: return from the handler.
    Resume,
    /// Not a guest's fault: report a bug and die.
    NotOurs,
}

/// Decides about a synchronous SIGSEGV, SIGBUS, SIGFPE or SIGILL (`si_code > 0`) of the calling thread.
pub fn classify(signal: i32, info: &libc::siginfo_t, context: &mut libc::ucontext_t) -> Verdict {
    if signal == libc::SIGSEGV && arch::context_is_write(context) {
        let process = crate::process::current();
        if process.is_some_and(|p| p.mem.unprotect_code(GuestAddr(arch::fault_address(info)))) {
            return Verdict::Resume;
        }
    }
    if let Some(landing) = arch::fixup(arch::context_pc(context)) {
        arch::context_set_pc(context, landing);
        arch::context_set_fault(context);
        return Verdict::Resume;
    }
    Verdict::NotOurs
}
