//! What the system calls about signals do to a thread; `syscalls` fetches their arguments.

use super::deliver::ThreadSignals;
use super::{AltStack, NOT_STARTED, SigSet, host};
use crate::thread::Thread;
use libc::{SIG_BLOCK, SIG_SETMASK, SIG_UNBLOCK};
use nix::errno::Errno;
use std::sync::atomic::Ordering::Relaxed;

/// `MINSIGSTKSZ` of x86-64 (asm/signal.h), in bytes.
const MIN_STACK: u64 = 2048;

/// A system call that a signal keeps from beginning: deliver, then begin again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SignalFirst;

impl ThreadSignals {
    /// `rt_sigprocmask`: the new mask by `how`.
    fn changed_mask(&self, how: i32, set: SigSet) -> Result<SigSet, Errno> {
        match how {
            SIG_BLOCK => Ok(self.mask.union(set)),
            SIG_UNBLOCK => Ok(self.mask.minus(set)),
            SIG_SETMASK => Ok(set),
            _ => Err(Errno::EINVAL),
        }
    }
}

impl Thread {
    /// `rt_sigprocmask`: changes the mask by `how` and gives the old one. A signal that came before the change is to be
    /// delivered before it: then nothing has changed.
    pub fn change_mask(&mut self, how: i32, set: SigSet) -> Result<Result<SigSet, Errno>, SignalFirst> {
        if self.signals.is_due() {
            return Err(SignalFirst);
        }
        let old = self.signals.mask;
        let new = match self.signals.changed_mask(how, set) {
            Ok(new) => new,
            Err(errno) => return Ok(Err(errno)),
        };
        if new.blockable() != old {
            self.signals.set_mask(new);
            self.notice_held();
        }
        Ok(Ok(old))
    }

    /// Asks for a safepoint if a held signal has become deliverable.
    fn notice_held(&self) {
        if self.signals.is_due() {
            self.cpu.rt.interrupt.fetch_or(host::SIGNAL, Relaxed);
        }
    }

    /// Makes `call`, one that waits with another mask (`rt_sigsuspend`, `ppoll`, `pselect6`, `epoll_pwait`): it gets the
    /// mask to hand to the kernel, and returns as [`Thread::host_syscall`] does. Handlers that end the wait run
    /// with that mask and return to the old one.
    pub fn with_mask(&mut self, mask: SigSet, call: impl FnOnce(&mut Thread, SigSet) -> i64) -> i64 {
        if self.signals.is_due() {
            self.cpu.rt.interrupt.fetch_or(host::SIGNAL, Relaxed);
            return NOT_STARTED;
        }
        let old = self.signals.mask;
        self.signals.mask = mask.blockable();
        self.signals.saved_mask = Some(old);
        self.notice_held();
        let result = call(self, self.signals.mask.minus(super::SYNCHRONOUS));
        if !self.signals.is_due() {
            self.signals.saved_mask = None;
            self.signals.mask = old;
        }
        result
    }

    /// `rt_sigpending`, of what Calque holds itself; the kernel knows the rest.
    pub fn held_signals(&self) -> SigSet {
        self.signals.held()
    }

    /// `sigaltstack`: the stack in use, with `SS_ONSTACK` if the thread is on it.
    pub fn alt_stack(&self) -> AltStack {
        let alt = self.signals.alt;
        let state = match alt.size {
            0 => AltStack::DISABLE,
            _ if alt.holds(self.cpu.gpr[RSP]) => AltStack::ONSTACK,
            _ => 0,
        };
        AltStack::new(alt.sp, state | alt.flags & AltStack::AUTODISARM, alt.size)
    }

    /// `sigaltstack`: sets the stack (`kernel/signal.c: do_sigaltstack`).
    pub fn set_alt_stack(&mut self, stack: AltStack) -> Result<(), Errno> {
        let current = self.signals.alt;
        if current.size != 0 && current.holds(self.cpu.gpr[RSP]) {
            return Err(Errno::EPERM);
        }
        match stack.flags & !AltStack::AUTODISARM {
            AltStack::DISABLE => self.signals.alt = AltStack::new(0, stack.flags, 0),
            0 | AltStack::ONSTACK if stack.size < MIN_STACK => return Err(Errno::ENOMEM),
            0 | AltStack::ONSTACK => self.signals.alt = stack,
            _ => return Err(Errno::EINVAL),
        }
        Ok(())
    }
}

const RSP: usize = 4;
