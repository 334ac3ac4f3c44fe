//! Translations by host address: an append-only list that signal handlers search without a lock.
//!
//! The list is cut into chunks that double in size, so that it grows without moving what a reader may be looking at. Entries
//! are in the order of their addresses, because code memory is handed out in that order.
//!
//! # Safety
//! 1. `push` and `reset` are called under the cache's publish lock; `reset` only while nobody searches.
//! 2. Entries below `len` are translations that the list owns, and do not change; `len` is stored with release order after the entry.
#![allow(unsafe_code)]

use super::Translation;
use crate::sync::{AtomicPtr, AtomicUsize};
use std::ptr::null_mut;
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};

/// log2 of the first chunk's entries.
const FIRST: u32 = if cfg!(feature = "models") { 0 } else { 8 };
/// Chunks: room for more translations than code memory can hold.
const CHUNKS: usize = 24;

pub(super) struct Index {
    chunks: [OnceLock<Box<[AtomicPtr<Translation>]>>; CHUNKS],
    len: AtomicUsize,
}

/// Chunk and place in it of entry `i`: chunk k holds `1 << (FIRST + k)` entries.
fn place(i: usize) -> (usize, usize) {
    let chunk = ((i >> FIRST) + 1).ilog2();
    (chunk as usize, i - (((1 << chunk) - 1) << FIRST))
}

impl Index {
    pub(super) fn new() -> Self {
        Self { chunks: [const { OnceLock::new() }; CHUNKS], len: AtomicUsize::new(0) }
    }

    /// Number of entries.
    pub(super) fn len(&self) -> usize {
        self.len.load(Ordering::Acquire)
    }

    /// Appends a translation with a higher address than all before (invariant 1).
    pub(super) fn push(&self, translation: Arc<Translation>) {
        let i = self.len.load(Ordering::Relaxed);
        let (chunk, at) = place(i);
        let empty = || (0..1usize << (FIRST as usize + chunk)).map(|_| AtomicPtr::new(null_mut())).collect();
        let entries = self.chunks[chunk].get_or_init(empty);
        entries[at].store(Arc::into_raw(translation).cast_mut(), Ordering::Relaxed);
        self.len.store(i + 1, Ordering::Release);
    }

    /// The translation whose code contains `pc`.
    pub(super) fn find(&self, pc: usize) -> Option<&Translation> {
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let middle = low.midpoint(high);
            if self.get(middle)?.start.0 <= pc { low = middle + 1 } else { high = middle }
        }
        let found = self.get(low.checked_sub(1)?)?;
        (pc < found.start.0 + found.len).then_some(found)
    }

    /// Forgets all entries (invariant 1).
    pub(super) fn reset(&self) {
        self.len.store(0, Ordering::Release);
        for entry in self.chunks.iter().filter_map(OnceLock::get).flatten() {
            let translation = entry.swap(null_mut(), Ordering::Relaxed);
            if !translation.is_null() {
                // SAFETY: `push` has left it to the list, and nobody looks at it any more (invariant 1).
                drop(unsafe { Arc::from_raw(translation) });
            }
        }
    }

    /// Entry `i`, below `len`.
    pub(super) fn get(&self, i: usize) -> Option<&Translation> {
        let (chunk, at) = place(i);
        let entry = self.chunks[chunk].get()?.get(at)?;
        // SAFETY: the list owns it until `reset`, during which nobody searches (invariants 1 and 2).
        unsafe { entry.load(Ordering::Relaxed).as_ref() }
    }
}

impl Drop for Index {
    fn drop(&mut self) {
        self.reset();
    }
}
