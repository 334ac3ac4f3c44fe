//! Translations by host address: an append-only list that signal handlers search without a lock.
//!
//! The list is cut into chunks that double in size, so that it grows without moving what a reader may be looking at. Entries
//! are in the order of their addresses, because code memory is handed out in that order.
//!
//! # Safety
//! 1. `push` and `reset` are called under the cache's publish lock; `reset` only while nobody searches.
//! 2. Entries below `len` are initialized and do not change; `len` is stored with release order after the entry.
#![allow(unsafe_code)]

use super::Translation;
use std::cell::UnsafeCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// log2 of the first chunk's entries.
const FIRST: u32 = 8;
/// Chunks: room for more translations than code memory can hold.
const CHUNKS: usize = 24;

type Chunk = Vec<Arc<Translation>>;

pub(super) struct Index {
    chunks: [UnsafeCell<Chunk>; CHUNKS],
    len: AtomicUsize,
}

// SAFETY: written under a lock, read only below `len` (invariants 1 and 2).
unsafe impl Sync for Index {}

/// Chunk and place in it of entry `i`: chunk k holds `1 << (FIRST + k)` entries.
fn place(i: usize) -> (usize, usize) {
    let chunk = ((i >> FIRST) + 1).ilog2();
    (chunk as usize, i - (((1 << chunk) - 1) << FIRST))
}

impl Index {
    pub(super) fn new() -> Self {
        Self { chunks: [const { UnsafeCell::new(Vec::new()) }; CHUNKS], len: AtomicUsize::new(0) }
    }

    /// Number of entries.
    pub(super) fn len(&self) -> usize {
        self.len.load(Ordering::Acquire)
    }

    /// Appends a translation with a higher address than all before (invariant 1).
    pub(super) fn push(&self, translation: Arc<Translation>) {
        let i = self.len.load(Ordering::Relaxed);
        let (chunk, at) = place(i);
        // SAFETY: only the holder of the publish lock writes (invariant 1); the vector has its full capacity before its first
        // entry is visible and never moves, so readers of entries below `len` are not disturbed.
        let entries = unsafe { &mut *self.chunks[chunk].get() };
        if at == 0 {
            entries.reserve_exact(1 << (FIRST as usize + chunk));
        }
        entries.push(translation);
        self.len.store(i + 1, Ordering::Release);
    }

    /// The translation whose code contains `pc`.
    pub(super) fn find(&self, pc: usize) -> Option<&Translation> {
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let middle = low.midpoint(high);
            if self.get(middle).start.0 <= pc { low = middle + 1 } else { high = middle }
        }
        let found = self.get(low.checked_sub(1)?);
        (pc < found.start.0 + found.len).then_some(found)
    }

    /// Forgets all entries (invariant 1).
    pub(super) fn reset(&self) {
        self.len.store(0, Ordering::Release);
        for chunk in &self.chunks {
            // SAFETY: nobody searches and nobody else writes (invariant 1).
            unsafe { (*chunk.get()).clear() };
        }
    }

    fn get(&self, i: usize) -> &Translation {
        let (chunk, at) = place(i);
        // SAFETY: `i` is below `len` (invariant 2), so the entry is initialized; reading through a pointer to it does not
        // touch the vector's length, which `push` may be changing.
        unsafe { &*(*self.chunks[chunk].get()).as_ptr().add(at) }
    }
}
