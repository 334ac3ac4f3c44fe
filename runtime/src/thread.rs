//! `Thread`: what belongs to one guest thread. Its host thread is the only one that touches it; what others
//! need to reach they reach through `World` (the interrupt word) and `Threads` (the tid).

use crate::dispatch::Exec;
use crate::group::ThreadGroup;
use crate::process::Process;
use crate::profile::Recording;
use crate::signal::ThreadSignals;
use calque_ir::{CpuState, FaultKind, GuestAddr};
use std::sync::Arc;

/// One guest thread, run by one host thread.
pub struct Thread {
    pub process: &'static Process,
    /// Registers; boxed, so that their address is stable for generated code and signal handlers.
    pub cpu: Box<CpuState>,
    /// Thread id, the host kernel's.
    pub tid: i32,
    /// Mask, alternate stack, pending faults.
    pub signals: ThreadSignals,
    /// Where to store 0 and wake a futex at thread exit (`set_tid_address`, `CLONE_CHILD_CLEARTID`).
    pub clear_child_tid: Option<GuestAddr>,
    /// It is a process in its parent's memory (`fork.rs`).
    pub(crate) lodges: bool,
    /// The threads of its host process.
    pub(crate) group: Arc<ThreadGroup>,
    /// What the dispatcher needs to find code.
    pub(crate) exec: Exec,
    /// For crash reports.
    pub(crate) recent: crate::crash::RecentCalls,
    /// What it last handed to `execve`.
    pub(crate) request: crate::exec::Request,
    /// Where it counts what it executes, while a profile is made.
    pub(crate) recording: Option<Arc<Recording>>,
}

/// Something the guest did that the processor answers with an exception. CPU state is as before the instruction,
/// except for [`FaultKind::Breakpoint`], where RIP stands behind it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum GuestFault {
    /// #PF: what a signal's `si_addr` and error code show.
    Memory { addr: GuestAddr, access: Access, cause: MemoryCause },
    /// Any other exception.
    Trap(FaultKind),
}

/// What a faulting access wanted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Access {
    Read,
    Write,
    Execute,
}

/// Why memory could not be accessed: the signal and its code.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MemoryCause {
    /// SIGSEGV, SEGV_MAPERR: nothing is mapped there.
    Unmapped,
    /// SIGSEGV, SEGV_ACCERR: the protection forbids it.
    Protection,
    /// The same, as it forbids any access: for the processor, the page is not present.
    Inaccessible,
    /// SIGBUS, BUS_ADRERR: behind the end of a mapped file.
    PastEndOfFile,
}

impl Thread {
    /// A thread of `process` with the registers of a program start, for the calling host thread.
    pub fn new(process: &'static Process) -> Thread {
        Thread {
            process,
            cpu: Box::new(CpuState { xcr0: process.code.xcr0, ..CpuState::new() }),
            tid: nix::unistd::gettid().as_raw(),
            signals: ThreadSignals::default(),
            clear_child_tid: None,
            lodges: false,
            group: Arc::clone(&process.home),
            exec: Exec::new(),
            recent: Default::default(),
            request: Default::default(),
            recording: None,
        }
    }
}
