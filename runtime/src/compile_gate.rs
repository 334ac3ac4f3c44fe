//! Compilations, which fill the code cache, and its resets keep each other out.
//!
//! A compilation announces itself, then looks whether a reset is under way; a reset raises its wish, then looks for compilations. Both orders
//! are sequentially consistent, so one of them sees the other (Dekker). Compilations never wait for each other.

use calque_backend::sync::{AtomicBool, AtomicUsize, yield_now};
use std::sync::atomic::Ordering;

#[derive(Default)]
pub(crate) struct CompileGate {
    /// Compilations under way.
    compiling: AtomicUsize,
    /// No compilation may begin.
    resetting: AtomicBool,
}

/// A compilation under way.
pub(crate) struct Compiling<'a>(&'a CompileGate);

impl Drop for Compiling<'_> {
    fn drop(&mut self) {
        self.0.compiling.fetch_sub(1, Ordering::Release);
    }
}

impl CompileGate {
    /// Announces a compilation, until the guard is dropped; waits while the cache is being reset.
    pub(crate) fn enter(&self) -> Compiling<'_> {
        loop {
            self.compiling.fetch_add(1, Ordering::SeqCst);
            if !self.resetting.load(Ordering::SeqCst) {
                return Compiling(self);
            }
            self.compiling.fetch_sub(1, Ordering::Release);
            while self.resetting.load(Ordering::SeqCst) {
                yield_now();
            }
        }
    }

    /// Runs `action` while there is no compilation. One thread at a time.
    pub(crate) fn shut(&self, action: impl FnOnce()) {
        self.resetting.store(true, Ordering::SeqCst);
        while self.compiling.load(Ordering::SeqCst) != 0 {
            yield_now();
        }
        action();
        self.resetting.store(false, Ordering::SeqCst);
    }

    /// In the child of a fork: what was being compiled stayed in the parent.
    pub(crate) fn after_fork_in_child(&self) {
        self.compiling.store(0, Ordering::Release);
        self.resetting.store(false, Ordering::Release);
    }
}
