//! `SignalActions`: the guest's dispositions, and the host's that follow from them.

use super::frame::KernelSigaction;
use super::set::{HARMLESS, SYNCHRONOUS, UNCATCHABLE, is_valid};
use super::{SigSet, host, inherit};
use crate::process;
use libc::{SA_NOCLDSTOP, SA_NOCLDWAIT, SA_RESTART};
use nix::errno::Errno;
use std::sync::{Mutex, MutexGuard};

/// `SIG_DFL`.
pub const SIG_DFL: u64 = 0;
/// `SIG_IGN`.
pub const SIG_IGN: u64 = 1;

/// Flags of `sa_flags` that x86-64 Linux knows (`UAPI_SA_FLAGS`, linux/signal_types.h); others are cleared when set.
const KNOWN_FLAGS: u64 = 0x1 | 0x2 | 0x4 | 0x800 | SA_RESTORER | 0x0800_0000 | 0x1000_0000 | 0x4000_0000 | 0x8000_0000;
/// `SA_RESTORER` of x86 (asm/signal.h).
pub(super) const SA_RESTORER: u64 = 0x0400_0000;
/// Flags that mean the same to the host's kernel when it decides about a signal of the guest.
const MIRRORED_FLAGS: u64 = SA_RESTART as u64 | SA_NOCLDSTOP as u64 | SA_NOCLDWAIT as u64;

/// Dispositions of signals 1..=64, shared by the threads of a guest process (`CLONE_SIGHAND`).
pub struct SignalActions {
    table: Mutex<[KernelSigaction; 64]>,
}

impl Default for SignalActions {
    /// Everything at its default, but for what Calque was started with ignored (POSIX `execve`).
    fn default() -> Self {
        let ignored = inherit::ignored();
        let table = std::array::from_fn(|i| KernelSigaction {
            handler: if ignored.contains(i as i32 + 1) { SIG_IGN } else { SIG_DFL },
            ..KernelSigaction::default()
        });
        Self { table: Mutex::new(table) }
    }
}

impl SignalActions {
    /// A copy for a child process.
    pub fn duplicate(&self) -> SignalActions {
        SignalActions { table: Mutex::new(*self.lock()) }
    }

    /// Handlers become defaults; what is ignored stays so.
    pub fn forget_handlers(&self) {
        for action in self.lock().iter_mut().filter(|action| action.handler != SIG_IGN) {
            *action = KernelSigaction::default();
        }
    }

    /// What the guest wants done about `signo`.
    pub fn get(&self, signo: i32) -> KernelSigaction {
        self.lock()[signo as usize - 1]
    }

    /// `rt_sigaction`: sets the disposition if there is a new one, and gives the old one.
    pub fn replace(&self, signo: i32, new: Option<KernelSigaction>) -> Result<KernelSigaction, Errno> {
        if !is_valid(signo) || new.is_some() && UNCATCHABLE.contains(signo) {
            return Err(Errno::EINVAL);
        }
        let mut table = self.lock();
        let old = table[signo as usize - 1];
        if let Some(mut action) = new {
            action.flags &= KNOWN_FLAGS;
            action.mask = SigSet(action.mask).blockable().0;
            table[signo as usize - 1] = action;
            mirror(signo, &action);
            if SYNCHRONOUS.contains(signo) && action.handler > SIG_IGN {
                // The handler will look at registers.
                process::current().inspect(|process| process.require_precise_faults(signo));
            }
        }
        Ok(old)
    }

    /// Puts `signo` back to its default: SA_RESETHAND, or a signal that is forced on a thread that blocks it.
    pub fn reset(&self, signo: i32) {
        self.lock()[signo as usize - 1].handler = SIG_DFL;
        mirror(signo, &KernelSigaction::default());
    }

    /// Signals that the guest ignores.
    pub fn ignored(&self) -> SigSet {
        let table = self.lock();
        SigSet((0..64).filter(|&i| table[i].handler == SIG_IGN).map(|i| 1 << i).sum())
    }

    /// Makes the host's dispositions what these say: in a child that has taken over a copy, and at start.
    pub fn mirror_all(&self) {
        let table = self.lock();
        for signo in (1..=64).filter(|&n| !UNCATCHABLE.contains(n)) {
            mirror(signo, &table[signo as usize - 1]);
        }
    }

    fn lock(&self) -> MutexGuard<'_, [KernelSigaction; 64]> {
        self.table.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// Whether a profile is to be written before the process dies.
fn profiles() -> bool {
    process::current().is_some_and(|process| process.options.profile.is_some())
}

/// Sets the host's disposition of one signal from the guest's.
fn mirror(signo: i32, action: &KernelSigaction) {
    let flags = action.flags & MIRRORED_FLAGS;
    match action.handler {
        _ if SYNCHRONOUS.contains(signo) => host::install(signo, 0),
        SIG_DFL if profiles() && !HARMLESS.contains(signo) => host::install(signo, flags),
        SIG_DFL | SIG_IGN => host::set_disposition(signo, action.handler, flags),
        _ => host::install(signo, flags),
    }
}
