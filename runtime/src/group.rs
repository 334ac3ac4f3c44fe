//! The host threads of one process, and bringing them to rest before it ends.
//!
//! Problem: `exit_group`, `execve` and a deadly fault end all other threads of a process wherever they are. Where processes share memory
//! (`fork.rs`), others go on in it, with the same translator: a lock that such a thread held, the allocator's among them, would be held for ever.
//!
//! Approach: who is about to end its process stops its other threads at *places of rest* first ([`ThreadGroup::stop`]). A guest thread rests at a
//! safepoint, to which a signal sends it from wherever it is, a sleeping system call included; the compile thread between two compilations;
//! and who sleeps for a child in its memory does so anyway.
//!
//! Invariants
//! - **R1** A thread at rest holds no lock of the translator's, and is not inside the allocator.
//! - **R2** It leaves the place under the group's lock, and not while the process is ending. Who ends it holds that lock from the moment at which
//!   all rest until the process is gone. Only threads of the process ever want it, so it may die with it.
//! - **R3** A thread is listed before who makes it can come to rest; who has left the list is gone when the kernel says so. So the list is complete.
//!
//! A process that is *killed* is stopped nowhere: see `killed.rs`.
//!
//! The list also says which thread of the guest's is the last: with it and its status the process ends (`kernel/exit.c:
//! synchronize_group_exit`), whatever threads the translator has beside it.

use crate::signal::host;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Bit of the interrupt word: come to rest.
pub(crate) const REST: u32 = 4;

/// The threads of one host process.
#[derive(Default)]
pub(crate) struct ThreadGroup {
    threads: Mutex<Vec<Listed>>,
    /// Somebody ends the process.
    ending: AtomicBool,
    /// Nobody ends it after all.
    resumed: Condvar,
}

struct Listed {
    tid: i32,
    whose: Whose,
    state: State,
}

/// Whose thread it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Whose {
    Guest,
    Translator,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Running,
    Resting,
    /// About to be gone.
    Leaving,
}

impl Listed {
    fn is_gone(&self) -> bool {
        self.state == State::Leaving && !host::exists([nix::unistd::getpid().as_raw(), self.tid])
    }
}

fn set(threads: &mut [Listed], tid: i32, state: State) {
    threads.iter_mut().filter(|thread| thread.tid == tid).for_each(|thread| thread.state = state);
}

/// The calling thread's place in the list, until dropped.
pub(crate) struct Membership<'a> {
    group: &'a ThreadGroup,
}

impl Membership<'_> {
    /// The calling thread, one of the guest's but not the first, ends; whether it is the last.
    pub(crate) fn end(&self) -> bool {
        let mut threads = self.group.lock();
        set(&mut threads, own_tid(), State::Leaving);
        let is_alive = |thread: &Listed| thread.whose == Whose::Guest && thread.state != State::Leaving;
        !threads.iter().any(is_alive)
    }

    /// The same of the first thread, which does nothing more but end: the kernel never says that it is gone.
    pub(crate) fn end_first(self) -> bool {
        let last = self.end();
        self.group.lock().retain(|thread| thread.tid != own_tid());
        last
    }
}

impl Drop for Membership<'_> {
    fn drop(&mut self) {
        // Not the number that it began with: a fork may lie in between.
        set(&mut self.group.lock(), own_tid(), State::Leaving);
    }
}

/// All other threads of the process rest until this is dropped.
pub(crate) struct Stopped<'a> {
    group: &'a ThreadGroup,
    /// None where nobody else uses the memory, or one did not come to rest.
    _threads: Option<MutexGuard<'a, Vec<Listed>>>,
}

impl Drop for Stopped<'_> {
    fn drop(&mut self) {
        self.group.ending.store(false, Ordering::SeqCst);
        self.group.resumed.notify_all();
    }
}

/// A list that nobody else can use for the moment.
pub(crate) struct Frozen<'a> {
    _threads: MutexGuard<'a, Vec<Listed>>,
}

fn own_tid() -> i32 {
    nix::unistd::gettid().as_raw()
}

/// How long the end of a process waits for its threads: one may be in a system call that no signal ends, and which holds no lock.
const LONGEST_WAY: Duration = Duration::from_secs(10);
/// Between two looks at them.
const ROUND: Duration = Duration::from_micros(100);

impl ThreadGroup {
    fn lock(&self) -> MutexGuard<'_, Vec<Listed>> {
        self.threads.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lists the calling thread.
    pub(crate) fn join(&self, whose: Whose) -> Membership<'_> {
        let mut threads = self.lock();
        threads.retain(|thread| !thread.is_gone());
        threads.push(Listed { tid: own_tid(), whose, state: State::Running });
        Membership { group: self }
    }

    /// Keeps the list as it is until the guard is dropped: for `fork`.
    pub(crate) fn freeze(&self) -> Frozen<'_> {
        Frozen { _threads: self.lock() }
    }

    /// In the child of a fork: its only thread is the calling one.
    pub(crate) fn after_fork_in_child(&self) {
        *self.lock() = vec![Listed { tid: own_tid(), whose: Whose::Guest, state: State::Running }];
        self.ending.store(false, Ordering::SeqCst);
    }

    /// The calling thread rests while it does this, which must not have anything to do with the translator (R1).
    pub(crate) fn rest<R>(&self, during: impl FnOnce() -> R) -> R {
        let tid = own_tid();
        set(&mut self.lock(), tid, State::Resting);
        let result = during();
        let mut threads = self.lock();
        while self.ending.load(Ordering::SeqCst) {
            threads = self.resumed.wait(threads).unwrap_or_else(PoisonError::into_inner);
        }
        set(&mut threads, tid, State::Running);
        result
    }

    /// Whether threads are to come to rest.
    pub(crate) fn is_ending(&self) -> bool {
        self.ending.load(Ordering::Relaxed)
    }

    /// Brings all other threads to rest, for who is about to end the process, if others go on in its memory. That is asked once threads know
    /// of the end, so that no thread makes such a process unseen.
    pub(crate) fn stop(&self, others_go_on: impl FnOnce() -> bool) -> Stopped<'_> {
        while self.ending.swap(true, Ordering::SeqCst) {
            // Another ends it already.
            self.rest(|| ());
        }
        let (own, start) = (own_tid(), Instant::now());
        let others = others_go_on();
        while others && start.elapsed() < LONGEST_WAY {
            let threads = self.lock();
            let awaited = |thread: &&Listed| thread.tid != own && thread.state != State::Resting && !thread.is_gone();
            let running: Vec<i32> = threads.iter().filter(awaited).map(|thread| thread.tid).collect();
            if running.is_empty() {
                return Stopped { group: self, _threads: Some(threads) };
            }
            drop(threads);
            let process = nix::unistd::getpid().as_raw();
            running.iter().for_each(|&tid| host::send_to_rest([process, tid]));
            std::thread::sleep(ROUND);
        }
        Stopped { group: self, _threads: None }
    }
}
