//! Compiling hot code, in the background where there is a core to spare.
//!
//! One compile thread, started with the first request. It takes the hottest entry that waits, so a burst of requests does not
//! keep the important one waiting. It never runs guest code and has every asynchronous signal blocked, so that the guest's
//! signals go to guest threads. Its priority is lower than theirs.
//!
//! Guest threads only ever append to `incoming`, whose lock nobody keeps for longer than that. Looking for the hottest among thousands
//! happens in `waiting`, which is the compile thread's. Where both are locked, `waiting` is first.
//!
//! A child that runs in its parent's memory (`fork.rs`) starts none: it would be a thread of the child's, and when the child executes another
//! program it would be gone, whatever it held. What such a child asks for waits for a request of the parent's.
//!
//! After a fork the child has no compile thread: [`Queue::after_fork_in_child`] lets the next request start one.
//!
//! # Safety
//! Asks the kernel for a lower priority of the calling thread: no memory is involved.

#![allow(unsafe_code)]

use crate::group::{ThreadGroup, Whose};
use crate::process::Process;
use crate::signal::host;
use crate::tier::{Entry, Jit};
use arc_swap::ArcSwapOption;
use calque_backend::Compiler;
use std::cell::Cell;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Entries that wait for the compiler.
pub(crate) struct Queue {
    incoming: Mutex<Vec<Arc<Entry>>>,
    waiting: Mutex<Waiting>,
    /// The compile thread, once it runs.
    worker: ArcSwapOption<std::thread::Thread>,
    started: AtomicBool,
    /// The process that the memory belongs to, whose thread the compile thread is.
    home: AtomicU32,
}

/// A queue that nobody else can use for the moment.
pub(crate) struct Frozen<'a> {
    _waiting: MutexGuard<'a, Waiting>,
    _incoming: MutexGuard<'a, Vec<Arc<Entry>>>,
}

/// How much nicer to others the compile thread is than guest threads (setpriority(2)).
const NICER: i32 = 5;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

thread_local! {
    /// For compilations in a guest thread.
    static COMPILER: Cell<Option<Box<Compiler>>> = const { Cell::new(None) };
}

/// What the compile thread has to do.
#[derive(Default)]
struct Waiting {
    entries: Vec<Arc<Entry>>,
    /// What it does now.
    current: Option<Arc<Entry>>,
}

impl Queue {
    pub(crate) fn new() -> Self {
        Self {
            incoming: Mutex::default(),
            waiting: Mutex::default(),
            worker: ArcSwapOption::empty(),
            started: AtomicBool::new(false),
            home: AtomicU32::new(std::process::id()),
        }
    }

    /// Lets the compile thread know of a hot entry.
    pub(crate) fn push(&self, process: &'static Process, entry: Arc<Entry>) {
        lock(&self.incoming).push(entry);
        self.worker.load().iter().for_each(|worker| worker.unpark());
        if !self.started.load(Ordering::Acquire) && std::process::id() == self.home.load(Ordering::Relaxed) {
            self.start(process);
        }
    }

    /// Starts the compile thread, if there is none. In the process that the memory belongs to.
    pub(crate) fn start(&self, process: &'static Process) {
        if !self.started.swap(true, Ordering::AcqRel) {
            // The thread inherits the mask: no signal of the guest's can reach it.
            let mask = host::block_all();
            let setxid = host::Setxid::keep();
            let spawned = std::thread::Builder::new().name("calque-compile".into()).spawn(move || worker(process));
            setxid.restore();
            host::set_mask_exactly(mask);
            // Without a thread (RLIMIT_NPROC) the guest goes on in the interpreter.
            self.started.store(spawned.is_ok(), Ordering::Release);
        }
    }

    /// Keeps every other thread out until the guard is dropped: for `fork`.
    pub(crate) fn freeze(&self) -> Frozen<'_> {
        Frozen { _waiting: lock(&self.waiting), _incoming: lock(&self.incoming) }
    }

    /// Everything that waits, with what has come in since.
    fn all(&self) -> MutexGuard<'_, Waiting> {
        let mut waiting = lock(&self.waiting);
        waiting.entries.append(&mut lock(&self.incoming));
        waiting
    }

    /// In the child of a fork: its compile thread stayed in the parent, with what it was at.
    pub(crate) fn after_fork_in_child(&self) {
        let mut waiting = lock(&self.waiting);
        let unfinished = waiting.current.take();
        waiting.entries.extend(unfinished);
        self.started.store(false, Ordering::Release);
        self.home.store(std::process::id(), Ordering::Relaxed);
    }

    /// Takes `entry` out of the queue; false if it does not wait there.
    pub(crate) fn take(&self, entry: &Arc<Entry>) -> bool {
        let mut waiting = self.all();
        let place = waiting.entries.iter().position(|waits| Arc::ptr_eq(waits, entry));
        place.map(|i| waiting.entries.swap_remove(i)).is_some()
    }

    /// The hottest entry that waits; rests while there is none, or the process ends.
    fn pop(&self, group: &ThreadGroup) -> Arc<Entry> {
        loop {
            if group.is_ending() {
                group.rest(|| ());
            }
            let mut waiting = self.all();
            let hottest = (0..waiting.entries.len()).max_by_key(|&i| waiting.entries[i].heat());
            waiting.current = hottest.map(|i| waiting.entries.swap_remove(i));
            if let Some(entry) = &waiting.current {
                return Arc::clone(entry);
            }
            drop(waiting);
            // Not by a condition variable, which would have its lock at the end.
            group.rest(std::thread::park);
        }
    }

    /// Compiles `entry` in the calling thread.
    pub(crate) fn compile_now(&self, process: &Process, jit: &Jit, entry: &Arc<Entry>) {
        // Taken out meanwhile: what was killed here is not met again (`killed.rs`).
        let mut compiler = COMPILER.take().unwrap_or_else(|| Box::new(Compiler::new(jit.host.clone())));
        process.code.compile(process, jit, &mut compiler, entry);
        COMPILER.set(Some(compiler));
    }
}

fn worker(process: &'static Process) {
    let Some(jit) = &process.code.jit else { return };
    // 0: the calling thread (on Linux, niceness is a thread's). Where it is refused, the thread runs as any other.
    // SAFETY: no memory is involved.
    unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, libc::getpriority(libc::PRIO_PROCESS, 0) + NICER) };
    let mut compiler = Compiler::new(jit.host.clone());
    let _member = process.home.join(Whose::Translator);
    jit.queue.worker.store(Some(Arc::new(std::thread::current())));
    loop {
        let entry = jit.queue.pop(&process.home);
        process.code.compile(process, jit, &mut compiler, &entry);
    }
}
