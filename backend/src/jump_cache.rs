//! Where computed jumps of generated code find their targets.
//!
//! A thread's [`JumpCache`] has two levels. Every computed jump and return probes the **first** itself: small, direct-mapped, the address of a slot
//! made by replacing bits of the table's. The **second** is behind it for programs whose targets push each other out of the first; it is sixteen times as
//! large, is made when that has happened [`OFTEN`] times, and holds all that is inserted from then on. Only stubs probe it: [`resolve`], and for tier 0
//! `calque_tier0_resolve`, which is the same in assembly. What they find there they put into the first level. Without it the dispatcher had to be asked, for some
//! 1,100 instructions in place of 25: a third of what `cc1` executed, and a third of `sqlite3`.
//!
//! What code stands at a pc depends on whether it reads the status flags that it is entered with ([`FlagsAtEntry`]): only stubs find code that does,
//! for which they settle the flags.
//!
//! # Removal
//! Only the owning thread looks into its cache and inserts, others may [`JumpCache::remove`] what has become stale. Two pairs of steps may cross, and in
//! each one sees the other's first, for between the steps of both there is a fence (Dekker):
//! - insertion, then a look whether the translation has been taken out of use; and taking it out of use, then removal;
//! - a copy into the first level, then a second look at the second; and removal from the second, then from the first.
#![allow(unsafe_code)]

use crate::abi::HostCode;
use crate::cache::Translation;
use crate::sync::{AtomicU32, AtomicU64, fence};
use calque_ir::GuestAddr;
use std::mem::offset_of;
use std::ptr::{null, with_exposed_provenance};
use std::sync::OnceLock;
use std::sync::atomic::Ordering;

/// Whether a region may read the status flags that it is entered with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FlagsAtEntry {
    Dead,
    Wanted,
}

/// In the pc by which code is known that wants flags: no address then, so that inline probes do not find it.
pub(crate) const WANTED: u64 = 1 << 63;

impl FlagsAtEntry {
    fn key(self, pc: GuestAddr) -> u64 {
        pc.0 ^ if self == FlagsAtEntry::Wanted { WANTED } else { 0 }
    }
}

/// Entries of the first level: 64 KiB a thread.
pub(crate) const ENTRIES: usize = if cfg!(feature = "models") { 2 } else { 4096 };

/// The slot of a pc is `(pc ^ pc >> shift) % entries`: functions are aligned to 16 bytes, so that the low bits alone would leave
/// most slots to returns.
pub(crate) const SHIFT: u32 = 12;

/// The same of the second level: 1 MiB a thread.
pub(crate) const SECOND_ENTRIES: usize = if cfg!(feature = "models") { 4 } else { 65536 };
pub(crate) const SECOND_SHIFT: u32 = 16;

/// How often an entry must have been pushed out of the first level for there to be a second.
const OFTEN: u32 = if cfg!(feature = "models") { 1 } else { 1024 };

/// Bytes of an entry.
pub(crate) const ENTRY_BYTES: usize = size_of::<Entry>();

#[repr(C)]
struct Entry {
    key: AtomicU64,
    code: AtomicU64,
}

/// What stubs and generated code know of a cache: the first level, and behind it the address of the second, or 0. Aligned to the first's size,
/// so that a slot's address is made by replacing bits.
#[repr(C, align(65536))]
struct Table {
    entries: [Entry; ENTRIES],
    second: AtomicU64,
}

const _: () = assert!(offset_of!(Table, second) == ENTRIES * ENTRY_BYTES);
const _: () = assert!(ENTRIES * ENTRY_BYTES == 65536 || cfg!(feature = "models"));

/// One thread's caches; see the head of this file. `cpu.rt.jump_cache` or `cpu.rt.tier0_jumps` holds [`JumpCache::address`].
pub struct JumpCache {
    table: Box<Table>,
    second: OnceLock<Box<[Entry]>>,
    /// How often an entry has been pushed out of the first level.
    displaced: AtomicU32,
}

impl Entry {
    /// An entry of slot `slot` that matches nothing: its pc, below the first page, belongs to the neighbour's slot.
    fn empty(slot: usize) -> Entry {
        Entry { key: AtomicU64::new(slot as u64 ^ 1), code: AtomicU64::new(0) }
    }

    fn clear(&self, slot: usize) {
        self.key.store(slot as u64 ^ 1, Ordering::Relaxed);
    }

    fn set(&self, key: u64, code: u64) {
        self.code.store(code, Ordering::Relaxed);
        self.key.store(key, Ordering::Relaxed);
    }

    /// Forgets `pc`.
    fn remove(&self, pc: GuestAddr, slot: usize) {
        if self.key.load(Ordering::Relaxed) << 1 == pc.0 << 1 {
            self.clear(slot);
        }
    }
}

fn slot(pc: GuestAddr) -> usize {
    (pc.0 ^ pc.0 >> SHIFT) as usize % ENTRIES
}

fn second_slot(pc: GuestAddr) -> usize {
    (pc.0 ^ pc.0 >> SECOND_SHIFT) as usize % SECOND_ENTRIES
}

impl Table {
    /// Where a jump to `pc` goes on whose inline probe has failed, with all flags settled.
    fn find(&self, pc: GuestAddr) -> Option<u64> {
        let entry = &self.entries[slot(pc)];
        if entry.key.load(Ordering::Relaxed) == FlagsAtEntry::Wanted.key(pc) {
            return Some(entry.code.load(Ordering::Relaxed));
        }
        // SAFETY: null, or the second level, which is as large and lives as long as the cache.
        let other = unsafe {
            let second = with_exposed_provenance::<Entry>(self.second.load(Ordering::Relaxed) as usize);
            if second.is_null() { null() } else { second.add(second_slot(pc)) }.as_ref()?
        };
        let key = other.key.load(Ordering::Relaxed);
        if key << 1 != pc.0 << 1 {
            return None;
        }
        let code = other.code.load(Ordering::Relaxed);
        entry.set(key, code);
        fence(Ordering::SeqCst);
        if other.key.load(Ordering::Relaxed) != key {
            entry.clear(slot(pc));
            return None;
        }
        Some(code)
    }
}

/// [`Table::find`] in the cache at this address.
///
/// # Safety
/// The [`JumpCache::address`] of a cache that is alive.
pub(crate) unsafe fn resolve(address: u64, pc: GuestAddr) -> Option<HostCode> {
    // SAFETY: the caller's promise.
    let table = unsafe { &*with_exposed_provenance::<Table>(address as usize) };
    table.find(pc).map(|code| HostCode(code as usize))
}

impl JumpCache {
    /// An empty one, with no second level.
    pub fn new() -> Self {
        let mut table = Box::<Table>::new_uninit();
        let at = table.as_mut_ptr();
        for slot in 0..ENTRIES {
            // SAFETY: inside the table, which is nobody else's.
            unsafe { (&raw mut (*at).entries[slot]).write(Entry::empty(slot)) };
        }
        // SAFETY: as above; now both fields are written.
        let table = unsafe {
            (&raw mut (*at).second).write(AtomicU64::new(0));
            table.assume_init()
        };
        Self { table, second: OnceLock::new(), displaced: AtomicU32::new(0) }
    }

    /// For `cpu.rt.jump_cache`; valid as long as `self`, also when it moves.
    pub fn address(&self) -> u64 {
        (&raw const *self.table).expose_provenance() as u64
    }

    /// Remembers that `pc` is translated at `code`, forgetting what others have been in its slots.
    pub fn insert(&self, pc: GuestAddr, code: HostCode, flags: FlagsAtEntry) {
        let (key, code) = (flags.key(pc), code.0 as u64);
        let entry = &self.table.entries[slot(pc)];
        let before = entry.key.load(Ordering::Relaxed);
        if before != slot(pc) as u64 ^ 1 && before << 1 != pc.0 << 1 {
            self.displace();
        }
        entry.set(key, code);
        if let Some(second) = self.second.get() {
            second[second_slot(pc)].set(key, code);
        }
    }

    /// Notes that an entry is pushed out of the first level; makes the second if that happens often.
    fn displace(&self) {
        let displaced = self.displaced.load(Ordering::Relaxed) + 1;
        self.displaced.store(displaced.min(OFTEN), Ordering::Relaxed);
        if displaced == OFTEN {
            let second = self.second.get_or_init(|| (0..SECOND_ENTRIES).map(Entry::empty).collect());
            self.table.second.store(second.as_ptr().expose_provenance() as u64, Ordering::Relaxed);
        }
    }

    /// The same for `code` of `translation`, which another thread may be taking out of use: it removes `pc` here behind
    /// [`crate::CodeCache::remove`].
    pub fn insert_usable(&self, translation: &Translation, code: HostCode, flags: FlagsAtEntry) {
        self.insert(translation.pc, code, flags);
        fence(Ordering::SeqCst);
        if translation.is_removed() {
            self.remove(translation.pc);
        }
    }

    /// Forgets `pc`.
    pub fn remove(&self, pc: GuestAddr) {
        fence(Ordering::SeqCst);
        if let Some(second) = self.second.get() {
            second[second_slot(pc)].remove(pc, second_slot(pc));
            fence(Ordering::SeqCst);
        }
        self.table.entries[slot(pc)].remove(pc, slot(pc));
    }

    /// Forgets everything: after code was removed.
    pub fn clear(&self) {
        let second = self.second.get().map_or(&[][..], |second| second);
        for level in [second, &self.table.entries] {
            level.iter().enumerate().for_each(|(slot, entry)| entry.clear(slot));
        }
    }

    /// What an inline probe finds for `pc`.
    #[cfg(all(test, feature = "models"))]
    pub(crate) fn find(&self, pc: GuestAddr) -> Option<HostCode> {
        let entry = &self.table.entries[slot(pc)];
        let known = entry.key.load(Ordering::Relaxed) == pc.0;
        known.then(|| HostCode(entry.code.load(Ordering::Relaxed) as usize))
    }

    /// What a stub finds for `pc`, behind an inline probe that has failed.
    #[cfg(all(test, feature = "models"))]
    pub(crate) fn resolve(&self, pc: GuestAddr) -> Option<HostCode> {
        self.table.find(pc).map(|code| HostCode(code as usize))
    }
}

impl Default for JumpCache {
    fn default() -> Self {
        Self::new()
    }
}
