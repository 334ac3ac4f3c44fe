//! Compiling hot code, in the background where there is a core to spare.
//!
//! One compile thread, started with the first request. It takes the hottest entry that waits, so a burst of requests does not
//! keep the important one waiting. It never runs guest code and has every asynchronous signal blocked, so that the guest's
//! signals go to guest threads.
//!
//! After a fork the child has no compile thread: [`Queue::after_fork_in_child`] lets the next request start one.

use crate::process::Process;
use crate::signal::host;
use crate::tier::{Entry, Jit};
use calque_backend::Compiler;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// Entries that wait for the compiler.
#[derive(Default)]
pub struct Queue {
    waiting: Mutex<Vec<Arc<Entry>>>,
    ready: Condvar,
    started: AtomicBool,
    /// For compilations in guest threads.
    inline: Mutex<Option<Compiler>>,
}

impl Queue {
    /// Lets the compile thread know of a hot entry.
    pub fn push(&self, process: &Arc<Process>, entry: Arc<Entry>) {
        self.lock().push(entry);
        self.ready.notify_one();
        if !self.started.swap(true, Ordering::AcqRel) {
            let process = Arc::clone(process);
            // The thread inherits the mask: no signal of the guest's can reach it.
            let mask = host::block_all();
            let spawned = std::thread::Builder::new().name("calque-compile".into()).spawn(move || worker(&process));
            host::set_mask_exactly(mask);
            // Without a thread (RLIMIT_NPROC) the guest goes on in the interpreter.
            self.started.store(spawned.is_ok(), Ordering::Release);
        }
    }

    /// Locks the queue, for `fork`.
    pub fn lock(&self) -> MutexGuard<'_, Vec<Arc<Entry>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// In the child of a fork: its compile thread stayed in the parent.
    pub fn after_fork_in_child(&self) {
        self.started.store(false, Ordering::Release);
    }

    /// The hottest entry that waits; sleeps while there is none.
    fn pop(&self) -> Arc<Entry> {
        let mut waiting = self.lock();
        loop {
            let hottest = (0..waiting.len()).max_by_key(|&i| waiting[i].heat());
            match hottest {
                Some(i) => return waiting.swap_remove(i),
                None => waiting = self.ready.wait(waiting).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }

    /// Compiles `entry` in the calling thread.
    pub fn compile_now(&self, process: &Process, jit: &Jit, entry: &Arc<Entry>) {
        let mut compiler = self.inline.lock().unwrap_or_else(PoisonError::into_inner);
        let compiler = compiler.get_or_insert_with(|| Compiler::new(jit.host.clone()));
        process.code.compile(process, jit, compiler, entry);
    }
}

fn worker(process: &Arc<Process>) {
    let Some(jit) = &process.code.jit else { return };
    let mut compiler = Compiler::new(jit.host.clone());
    loop {
        let entry = jit.queue.pop();
        process.code.compile(process, jit, &mut compiler, &entry);
    }
}
