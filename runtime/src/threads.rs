//! Which host threads are the guest's.
//!
//! The host process has others, too: the compile thread, those that sleep for children in their parent's memory (`fork.rs`), an emulator's. Programs
//! count their threads, and some insist on having one before they shut themselves in; so /proc shows the guest its own.
//!
//! The thread that has a process's id is not in the list: the kernel shows it until the process ends. A child in its parent's memory is a
//! process of its own, whose further threads are in the same list.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// A host thread: its process, and itself.
pub(crate) type Id = [i32; 2];

/// The calling thread.
pub(crate) fn own_id() -> Id {
    [nix::unistd::getpid().as_raw(), nix::unistd::gettid().as_raw()]
}

/// Threads that guests have made.
#[derive(Default)]
pub struct Threads {
    listed: Mutex<Vec<Id>>,
}

/// A list that nobody else can use for the moment.
pub(crate) struct Frozen<'a> {
    _listed: MutexGuard<'a, Vec<Id>>,
}

/// A thread in the list, until dropped.
pub(crate) struct Listed<'a> {
    threads: &'a Threads,
    id: Id,
}

impl Drop for Listed<'_> {
    fn drop(&mut self) {
        self.threads.lock().retain(|id| *id != self.id);
    }
}

impl Threads {
    fn lock(&self) -> MutexGuard<'_, Vec<Id>> {
        self.listed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lists the calling thread, which has just been made.
    pub(crate) fn list(&self) -> Listed<'_> {
        let id = own_id();
        self.lock().push(id);
        Listed { threads: self, id }
    }

    /// The guest's threads of the calling process, its first one first.
    pub fn here(&self) -> Vec<i32> {
        let process = nix::unistd::getpid().as_raw();
        let listed = self.lock();
        let further = listed.iter().filter(|[of, _]| *of == process).map(|[_, thread]| *thread);
        std::iter::once(process).chain(further).collect()
    }

    /// Keeps every other thread out until the guard is dropped: for `fork`.
    pub(crate) fn freeze(&self) -> Frozen<'_> {
        Frozen { _listed: self.lock() }
    }

    /// In the child of a fork, whose only thread is its first.
    pub(crate) fn after_fork_in_child(&self) {
        self.lock().clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_is_listed_until_its_end() {
        let threads = Threads::default();
        let first = nix::unistd::getpid().as_raw();
        std::thread::scope(|scope| {
            let further = || {
                let listed = threads.list();
                assert_eq!(threads.here(), [first, listed.id[1]]);
            };
            scope.spawn(further);
        });
        assert_eq!(threads.here(), [first]);
    }
}
