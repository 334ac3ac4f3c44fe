//! Guest threads that a tracer has stopped: as much of ptrace(2) as leak checks need.
//!
//! LeakSanitizer stops all threads of a program from a process that it makes in the program's memory, reads their registers, and lets them go. Such
//! a process shares the translator's memory, too (`fork.rs`). The host's ptrace would stop threads inside the translator, with locks that the
//! tracer needs, and show the translator's registers. So a traced thread is kept at a place of rest (`group.rs`), where its `CpuState` is exact.
//!
//! What differs from the kernel's: a thread that sleeps in poll(2) and the like finds it ended with EINTR.
//!
//! # Safety
//! [`Registers`] of a listed thread point to its `CpuState`, a box that lives until the thread has left the list; nobody writes there while
//! it rests.

#![allow(unsafe_code)]

use crate::thread::Thread;
use calque_ir::CpuState;
use nix::errno::Errno;

/// Where the registers of a listed thread are.
pub(crate) struct Registers(*const CpuState);

// SAFETY: only followed under the group's lock, while the thread rests.
unsafe impl Send for Registers {}

impl Registers {
    pub(crate) fn of(cpu: &CpuState) -> Registers {
        Registers(cpu)
    }
}

impl Thread {
    /// Whether the thread can stop others: those of the process in whose memory it runs.
    pub fn can_trace(&self) -> bool {
        self.lodges
    }

    /// Stops guest thread `tid` (`PTRACE_ATTACH`). ESRCH if there is none, EPERM if it is stopped already.
    pub fn attach(&self, tid: i32) -> Result<(), Errno> {
        self.process.home.hold(tid, self.tid)
    }

    /// Whether thread `tid`, which this one has stopped, has not been waited for yet; it has, then.
    pub fn takes_stop(&self, tid: i32) -> bool {
        self.process.home.held(tid, self.tid, |_, told| !std::mem::replace(told, true)).unwrap_or(false)
    }

    /// Looks at the registers of thread `tid`, which this one has stopped; ESRCH if it has not.
    pub fn registers_of<R>(&self, tid: i32, look: impl FnOnce(&CpuState) -> R) -> Result<R, Errno> {
        // SAFETY: the thread is listed and rests, which it cannot leave meanwhile.
        self.process.home.held(tid, self.tid, |registers, _| look(unsafe { &*registers.0 }))
    }

    /// Lets thread `tid` go on, which this one has stopped; ESRCH if it has not.
    pub fn detach(&self, tid: i32) -> Result<(), Errno> {
        self.process.home.release(tid, self.tid)
    }
}
