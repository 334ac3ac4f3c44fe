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
//! A tracer keeps threads at rest in the same way ([`ThreadGroup::hold`]), until it lets them go (`trace.rs`).
//!
//! The list also says which thread of the guest's is the last: with it and its status the process ends (`kernel/exit.c:
//! synchronize_group_exit`), whatever threads the translator has beside it.

use crate::signal::host;
use crate::threads::own_id;
use crate::trace::Registers;
use nix::errno::Errno;
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
    process: i32,
    tid: i32,
    whose: Whose,
    state: State,
    hold: Option<Hold>,
}

/// Whose thread it is.
pub(crate) enum Whose {
    Guest(Registers),
    Translator,
}

/// By whom a thread is kept at rest.
struct Hold {
    tracer: i32,
    /// The tracer has heard that it rests.
    told: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Running,
    Resting,
    /// About to be gone.
    Leaving,
}

impl Listed {
    /// The calling thread.
    fn own(whose: Whose) -> Listed {
        let [process, tid] = own_id();
        Listed { process, tid, whose, state: State::Running, hold: None }
    }

    fn is_gone(&self) -> bool {
        self.state == State::Leaving && !host::exists([self.process, self.tid])
    }

    fn is_guests(&self) -> bool {
        matches!(self.whose, Whose::Guest(_)) && self.state != State::Leaving
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
        !threads.iter().any(Listed::is_guests)
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
    own_id()[1]
}

/// How long who stops threads waits for them: one may be in a system call that no signal ends, and which holds no lock.
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
        threads.push(Listed::own(whose));
        Membership { group: self }
    }

    /// Keeps the list as it is until the guard is dropped: for `fork`.
    pub(crate) fn freeze(&self) -> Frozen<'_> {
        Frozen { _threads: self.lock() }
    }

    /// In the child of a fork: its only thread is the calling one, with these registers.
    pub(crate) fn after_fork_in_child(&self, registers: Registers) {
        *self.lock() = vec![Listed::own(Whose::Guest(registers))];
        self.ending.store(false, Ordering::SeqCst);
    }

    /// The calling thread rests while it does this, which must not have anything to do with the translator (R1).
    pub(crate) fn rest<R>(&self, during: impl FnOnce() -> R) -> R {
        let tid = own_tid();
        set(&mut self.lock(), tid, State::Resting);
        let result = during();
        let mut threads = self.lock();
        let is_held = |threads: &[Listed]| threads.iter().any(|thread| thread.tid == tid && thread.hold.is_some());
        while self.ending.load(Ordering::SeqCst) || is_held(&threads) {
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
            let [process, _] = own_id();
            running.iter().for_each(|&tid| host::send_to_rest([process, tid]));
            std::thread::sleep(ROUND);
        }
        Stopped { group: self, _threads: None }
    }

    /// Brings guest thread `tid` to rest and keeps it there for `tracer`. ESRCH if there is no such thread, or it does not come to rest; EPERM if
    /// it is kept already.
    pub(crate) fn hold(&self, tid: i32, tracer: i32) -> Result<(), Errno> {
        let of = |thread: &&mut Listed| thread.tid == tid && thread.is_guests();
        match self.lock().iter_mut().find(of) {
            None => return Err(Errno::ESRCH),
            Some(Listed { hold: Some(_), .. }) => return Err(Errno::EPERM),
            Some(thread) => thread.hold = Some(Hold { tracer, told: false }),
        }
        let start = Instant::now();
        while start.elapsed() < LONGEST_WAY {
            match self.lock().iter_mut().find(of) {
                None => break,
                Some(thread) if thread.state == State::Resting => return Ok(()),
                Some(thread) => host::send_to_rest([thread.process, tid]),
            }
            std::thread::sleep(ROUND);
        }
        // It has ended, or sleeps too deeply: whoever gets its number next is not held.
        self.let_go(|thread| thread.tid == tid);
        Err(Errno::ESRCH)
    }

    /// Looks at what `tracer` keeps at rest: the registers of thread `tid`, and whether the tracer has heard of it; ESRCH if it does not.
    pub(crate) fn held<R>(
        &self,
        tid: i32,
        tracer: i32,
        look: impl FnOnce(&Registers, &mut bool) -> R,
    ) -> Result<R, Errno> {
        let mut threads = self.lock();
        let mut all = threads.iter_mut().filter(|thread| thread.tid == tid && thread.state == State::Resting);
        all.find_map(|thread| match (&thread.whose, &mut thread.hold) {
            (Whose::Guest(registers), Some(hold)) if hold.tracer == tracer => Some((registers, &mut hold.told)),
            _ => None,
        })
        .map(|(registers, told)| look(registers, told))
        .ok_or(Errno::ESRCH)
    }

    /// Lets thread `tid` go on, which `tracer` keeps.
    pub(crate) fn release(&self, tid: i32, tracer: i32) -> Result<(), Errno> {
        self.held(tid, tracer, |_, _| ())?;
        self.let_go(|thread| thread.tid == tid);
        Ok(())
    }

    /// `tracer` is no more.
    pub(crate) fn release_all(&self, tracer: i32) {
        self.let_go(|thread| thread.hold.as_ref().is_some_and(|hold| hold.tracer == tracer));
    }

    fn let_go(&self, which: impl Fn(&Listed) -> bool) {
        self.lock().iter_mut().filter(|thread| which(thread)).for_each(|thread| thread.hold = None);
        self.resumed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use calque_ir::CpuState;
    use nix::sys::signal::{SigSet, Signal};
    use std::sync::mpsc;

    #[test]
    fn who_ends_instead_of_resting_is_not_held() {
        let (group, (tell, hear)) = (ThreadGroup::default(), mpsc::channel());
        std::thread::scope(|scope| {
            scope.spawn(|| {
                // What sends it to rest has no handler here.
                SigSet::from(Signal::SIGTRAP).thread_block().unwrap();
                let cpu = CpuState::new();
                let member = group.join(Whose::Guest(Registers::of(&cpu)));
                tell.send(own_tid()).unwrap();
                while group.lock().iter().all(|thread| thread.hold.is_none()) {
                    std::thread::yield_now();
                }
                drop(member);
            });
            let tid = hear.recv().unwrap();
            assert_eq!(group.hold(tid, 1), Err(Errno::ESRCH));
            assert_eq!(group.held(tid, 1, |_, _| ()), Err(Errno::ESRCH));
            assert!(group.lock().iter().all(|thread| thread.hold.is_none()));
        });
    }
}
