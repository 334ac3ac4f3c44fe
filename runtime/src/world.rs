//! Who is inside generated code, and waiting until nobody is.
//!
//! Code memory can only be given back when no thread runs in it. A thread announces that it enters, then looks whether
//! somebody wants the world to stop; the stopper raises its wish, then looks who is inside. Both orders are sequentially
//! consistent, so one of them sees the other (Dekker).
//!
//! # Safety
//! A member's interrupt word is reached through a pointer that is valid while the member is registered: [`Membership`] takes it
//! out when the thread stops running.

#![allow(unsafe_code)]

use crate::signal::host;
use crate::threads::own_id;
use calque_backend::JumpCache;
use calque_backend::sync::{AtomicBool, Mutex, MutexGuard, yield_now};
use calque_ir::GuestAddr;
use std::sync::atomic::{AtomicI32, AtomicU32, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

/// One guest thread.
pub(crate) struct Member {
    interrupt: *const AtomicU32,
    /// What its computed jumps look into.
    jumps: Vec<Arc<JumpCache>>,
    inside: AtomicBool,
    /// Host process and thread, if its code has no polls: a signal makes it leave. The process may be one that only shares our memory.
    unpolled: Option<[AtomicI32; 2]>,
}

impl Member {
    /// Has it leave generated code without polls; false if there is no such thread any more.
    fn kick(&self) -> bool {
        let id = self.unpolled.as_ref().map(|id| id.each_ref().map(|number| number.load(Ordering::Relaxed)));
        id.is_none_or(host::kick)
    }
}

// SAFETY: the word is atomic, and the pointer valid while registered.
unsafe impl Send for Member {}
// SAFETY: as above.
unsafe impl Sync for Member {}

/// Whether generated code looks at the interrupt word.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Polls {
    /// On each cycle.
    EachCycle,
    /// Never: units of identical translation.
    None,
}

/// Time for all threads to leave generated code where one that does not costs speed, or a result.
pub(crate) const SHORT_STOP: Duration = Duration::from_secs(1);
pub(crate) const LONG_STOP: Duration = Duration::from_secs(10);

/// Rounds of waiting for a thread before it is kicked (again).
const PATIENCE: u32 = 1000;

/// All guest threads of the process.
#[derive(Default)]
pub(crate) struct World {
    members: Mutex<Vec<Arc<Member>>>,
    stopping: AtomicBool,
}

/// A registered thread, until dropped.
pub(crate) struct Membership<'a> {
    world: &'a World,
    pub(crate) member: Arc<Member>,
}

impl Drop for Membership<'_> {
    fn drop(&mut self) {
        self.world.lock().retain(|m| !Arc::ptr_eq(m, &self.member));
    }
}

impl World {
    /// Locks the list, for `fork` too.
    pub(crate) fn lock(&self) -> MutexGuard<'_, Vec<Arc<Member>>> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Registers the calling thread.
    pub(crate) fn join(&self, interrupt: &AtomicU32, jumps: Vec<Arc<JumpCache>>, polls: Polls) -> Membership<'_> {
        let unpolled = (polls == Polls::None).then(|| own_id().map(AtomicI32::new));
        let member = Arc::new(Member { interrupt, jumps, inside: AtomicBool::new(false), unpolled });
        self.lock().push(Arc::clone(&member));
        Membership { world: self, member }
    }

    /// In the child of a fork: only `survivor` is left, the calling thread, which is another than in the parent.
    pub(crate) fn after_fork_in_child(&self, survivor: &AtomicU32) {
        let mut members = self.lock();
        members.retain(|m| std::ptr::eq(m.interrupt, survivor));
        for (number, own) in members.iter().flat_map(|m| &m.unpolled).flat_map(|id| id.iter().zip(own_id())) {
            number.store(own, Ordering::Relaxed);
        }
        drop(members);
        self.stopping.store(false, Ordering::SeqCst);
    }

    /// Takes out a thread that has ended without saying so: a vfork child that executed another program.
    pub(crate) fn forget(&self, interrupt: &AtomicU32) {
        self.lock().retain(|m| !std::ptr::eq(m.interrupt, interrupt));
    }

    /// Sets `bit` in the interrupt words of all threads.
    pub(crate) fn interrupt_all(&self, bit: u32) {
        for member in self.lock().iter() {
            // SAFETY: registered, so valid.
            unsafe { (*member.interrupt).fetch_or(bit, Ordering::Relaxed) };
        }
    }

    /// Takes `pc` out of all jump caches: computed jumps there come back to the dispatcher once.
    pub(crate) fn forget_jump(&self, pc: GuestAddr) {
        self.lock().iter().flat_map(|member| &member.jumps).for_each(|jumps| jumps.remove(pc));
    }

    /// The calling thread, `member`, is about to run generated code. False: the world is to stop; do not.
    #[inline]
    pub(crate) fn enter(&self, member: &Member) -> bool {
        member.inside.store(true, Ordering::SeqCst);
        if self.stopping.load(Ordering::SeqCst) {
            member.inside.store(false, Ordering::Release);
            return false;
        }
        true
    }

    /// The calling thread has left generated code.
    #[inline]
    pub(crate) fn leave(&self, member: &Member) {
        member.inside.store(false, Ordering::Release);
    }

    /// Runs `action` while no thread is inside generated code; the calling thread is not. `bit` makes the others leave. False if one does
    /// not within `most`: it waits there for memory that perhaps the calling thread is to give it (userfaultfd(2)).
    pub(crate) fn stopped(&self, bit: u32, most: Duration, action: impl FnOnce()) -> bool {
        while self.stopping.swap(true, Ordering::SeqCst) {
            yield_now();
        }
        self.interrupt_all(bit);
        let alone = self.wait_until_nobody_is_inside(most);
        if alone {
            action();
        }
        self.stopping.store(false, Ordering::SeqCst);
        alone
    }

    fn wait_until_nobody_is_inside(&self, most: Duration) -> bool {
        let start = Instant::now();
        for round in 0u32.. {
            let mut members = self.lock();
            let inside = |m: &Arc<Member>| m.inside.load(Ordering::SeqCst);
            if !members.iter().any(inside) {
                return true;
            }
            if round % PATIENCE == 0 {
                // One that was killed with the rest of its process, while another goes on in its memory, never leaves.
                members.retain(|m| !inside(m) || m.kick());
                if start.elapsed() > most {
                    return false;
                }
            }
            drop(members);
            yield_now();
        }
        unreachable!("rounds have no end")
    }
}
