//! `CodeCache`: where translations live, how they are joined, and how they are found again.
//!
//! Code memory and cells are handed out in order and given back all at once by [`CodeCache::reset`]: translations are small
//! and many, and a full cache is rare, so that the simplest scheme that is safe with running threads wins. [`CodeCache::remove`]
//! takes a translation out of use at once (nobody arrives at it any more) and leaves its bytes until then.
//!
//! Invariants:
//! 1. A cell holds its unlinked stub or the entry of a translation that is not removed. Links and removals happen under one lock,
//!    and a link to a removed translation is refused.
//! 2. Cells change by one atomic store, so threads that run generated code see the old or the new target.
//! 3. `find_by_host_pc` is called from signal handlers: it takes no lock and allocates nothing. The index it reads only grows
//!    (addresses are handed out in increasing order under the publish lock) until `reset`.
//! 4. The branch of a tier-0 exit goes to its way out, which jumps through the cell, or straight to where the cell leads, if that is
//!    in reach. It is changed behind the cell, under the same lock; until other threads see the change they take the old way, which
//!    is as good, or end up where the code was that is removed: so `remove` waits until they cannot.
//! 5. `reset` and `after_fork_in_child` run while no thread is inside generated code, or in a signal handler that asks
//!    about it.

mod cells;
mod index;
pub(crate) mod memory;
#[cfg(all(test, feature = "models"))]
mod models;

use crate::abi::{CodeKind, FIXED_CELLS, HostCode};
use crate::arch;
use crate::compile::{CompileError, CompileOptions, Compiled, Compiler};
use crate::emit::Emitted;
use crate::emit::encode;
use crate::emit::entry::{self, Stub};
use crate::jump_cache::FlagsAtEntry;
use crate::sync::{AtomicBool, Mutex, MutexGuard};
use calque_ir::{GuestAddr, Region};
use cells::Cells;
use index::Index;
pub(crate) use memory::CodeMemory;
use smallvec::SmallVec;
use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, PoisonError};

/// Why the cache cannot do what it is asked.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    /// The system gives no memory.
    #[error("cannot map memory for translated code: {0}")]
    Map(#[source] io::Error),
    /// A security policy forbids to execute memory files.
    #[error(
        "the system refuses to execute generated code from a memory file (sysctl vm.memfd_noexec, SELinux execmem?): {0}"
    )]
    ExecRefused(#[source] io::Error),
    /// Code memory or cells are used up: stop the world and [`CodeCache::reset`].
    #[error("the code cache is full")]
    Full,
    /// The region does not compile.
    #[error(transparent)]
    Compile(#[from] CompileError),
}

/// A region's code in the cache.
pub struct Translation {
    /// Guest pc of the entry.
    pub pc: GuestAddr,
    /// Where code of the same kind, and the dispatcher, enter.
    pub code: HostCode,
    /// How it takes the guest's registers.
    pub kind: CodeKind,
    /// The guest bytes that a compiled region was made of.
    pub source: Box<[(GuestAddr, u32)]>,
    /// Number of guest instructions.
    pub guest_insns: u32,
    /// What the jump cache has to know of a compiled region; nothing is known of an emitted block.
    pub flags_at_entry: FlagsAtEntry,
    /// Cells of its direct exits.
    pub cells: Range<u32>,
    /// First byte of the code in the executable mapping, and number of bytes.
    start: HostCode,
    len: usize,
    /// (code offset, guest pc): from this offset on code belongs to the guest instruction at that pc. Sorted. An emitted block has a few.
    pcs: SmallVec<[(u32, GuestAddr); 4]>,
    removed: AtomicBool,
    /// Where code of the other kind enters, once there is such code.
    adapter: OnceLock<HostCode>,
    /// Cells that jump here; of most translations, few.
    incoming: Mutex<SmallVec<[u32; 4]>>,
}

impl Translation {
    /// Address range of the code: first byte and length.
    pub fn host_range(&self) -> (HostCode, usize) {
        (self.start, self.len)
    }

    /// Whether [`CodeCache::remove`] took it out of use.
    pub fn is_removed(&self) -> bool {
        self.removed.load(Ordering::Acquire)
    }

    /// Guest pc of the instruction that the code at `pc` belongs to. Signal-safe.
    pub fn guest_pc(&self, pc: HostCode) -> GuestAddr {
        let offset = pc.0.wrapping_sub(self.start.0) as u32;
        let next = self.pcs.partition_point(|&(start, _)| start <= offset);
        next.checked_sub(1).map_or(self.pc, |i| self.pcs[i].1)
    }
}

impl std::fmt::Debug for Translation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Translation({:?} at {:?}, {} bytes)", self.pc, self.start, self.len)
    }
}

/// Numbers for `--stats`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct CacheStats {
    /// Bytes of code memory in use, and as many as there may be.
    pub code_bytes: u64,
    pub budget_bytes: u64,
    /// Cells in use.
    pub cells: u64,
    /// Translations since the last reset.
    pub translations: u64,
    /// Events since the start.
    pub published: u64,
    pub links: u64,
    pub removed: u64,
    pub resets: u64,
}

#[derive(Default)]
struct Counters {
    published: AtomicU64,
    links: AtomicU64,
    removed: AtomicU64,
    resets: AtomicU64,
}

/// Translated code of one process, shared by its threads.
pub struct CodeCache {
    memory: CodeMemory,
    cells: Cells,
    index: Index,
    budget: usize,
    /// Held while translations are published, linked or removed.
    lock: Mutex<()>,
    counters: Counters,
}

/// A budget for code memory that real programs do not fill.
pub const DEFAULT_BUDGET: usize = 256 << 20;

/// Bytes of code memory a cell, as a bound: an exit takes more code than that.
const BYTES_PER_CELL: usize = 32;

impl CodeCache {
    /// A cache with room for `budget` bytes of code; memory is taken as it is used.
    pub fn new(budget: usize) -> Result<Self, CacheError> {
        let budget = budget.next_multiple_of(1 << 16);
        Self::with_cells(budget, (budget / BYTES_PER_CELL) as u32)
    }

    fn with_cells(budget: usize, cells: u32) -> Result<Self, CacheError> {
        Ok(Self {
            memory: CodeMemory::new(budget)?,
            cells: Cells::new(cells)?,
            index: Index::new(),
            budget,
            lock: Mutex::new(()),
            counters: Counters::default(),
        })
    }

    /// For `cpu.rt.cells`.
    pub fn cells_address(&self) -> u64 {
        self.cells.address()
    }

    /// Compiles a region and publishes it. [`CacheError::Full`] asks for a [`CodeCache::reset`].
    pub fn translate(
        &self,
        compiler: &mut Compiler,
        region: &Region,
        options: &CompileOptions,
    ) -> Result<Arc<Translation>, CacheError> {
        let first_cell = self.reserve_cells(compiler.cells_needed(region), CodeKind::Tail).ok_or(CacheError::Full)?;
        let compiled = compiler.compile(region, &CompileOptions { first_cell, ..*options })?;
        self.publish(compiled, first_cell)
    }

    /// Reserves cells for [`CompileOptions::first_cell`]; `None` if the cache is full.
    pub fn reserve_cells(&self, count: u32, kind: CodeKind) -> Option<u32> {
        self.cells.reserve(count, kind)
    }

    /// Puts a compiled region where it can run.
    fn publish(&self, compiled: Compiled, first_cell: u32) -> Result<Arc<Translation>, CacheError> {
        let _guard = self.locked();
        let offset = self.memory.allocate(compiled.code.len()).ok_or(CacheError::Full)?;
        self.memory.write(offset, &compiled.code);
        let start = self.memory.address(offset);
        for exit in &compiled.exits {
            self.cells.prepare(exit.cell, exit.target, HostCode(start.0 + exit.stub as usize));
        }
        Ok(self.published(Translation {
            pc: compiled.pc,
            code: HostCode(start.0 + compiled.entry as usize),
            kind: CodeKind::Tail,
            source: compiled.source.into(),
            guest_insns: compiled.guest_insns,
            flags_at_entry: compiled.flags_at_entry,
            cells: first_cell..first_cell + compiled.exits.len() as u32,
            start,
            len: compiled.code.len(),
            pcs: compiled.pcs.into(),
            removed: AtomicBool::new(false),
            adapter: OnceLock::new(),
            incoming: Mutex::default(),
        }))
    }

    /// Puts an emitted block where it can run.
    pub fn publish_emitted(&self, emitted: &Emitted<'_>) -> Result<Arc<Translation>, CacheError> {
        let _guard = self.locked();
        let len = 4 * emitted.code.len();
        let offset = self.memory.allocate(len).ok_or(CacheError::Full)?;
        self.memory.write_words(offset, emitted.code);
        let cells = emitted.first_cell..emitted.first_cell + emitted.exits.len() as u32;
        let way_out = HostCode(arch::tier0_stub(Stub::Link));
        for (cell, exit) in cells.clone().zip(emitted.exits) {
            if let Some(branch) = exit.branch {
                self.cells.set_branch(cell, offset as u32 + 4 * branch, emitted.code[branch as usize]);
            }
            self.cells.prepare(cell, exit.target, way_out);
        }
        let start = self.memory.address(offset);
        Ok(self.published(Translation {
            pc: emitted.pc,
            code: start,
            kind: CodeKind::Tier0,
            source: Box::default(),
            guest_insns: emitted.guest_insns,
            flags_at_entry: FlagsAtEntry::Wanted,
            cells,
            start,
            len,
            pcs: SmallVec::from_slice(emitted.pcs),
            removed: AtomicBool::new(false),
            adapter: OnceLock::new(),
            incoming: Mutex::default(),
        }))
    }

    /// With the publish lock held.
    fn published(&self, translation: Translation) -> Arc<Translation> {
        let translation = Arc::new(translation);
        self.index.push(translation.clone());
        self.counters.published.fetch_add(1, Ordering::Relaxed);
        translation
    }

    /// Guest pc that the exit of `cell` goes to.
    pub fn cell_target(&self, cell: u32) -> GuestAddr {
        self.cells.target(cell)
    }

    /// Makes the exit of `cell` jump straight to `to`, unless that was removed meanwhile.
    pub fn link(&self, cell: u32, to: &Translation) {
        let _guard = self.locked();
        if to.is_removed() {
            return;
        }
        let Some(code) = self.entry_for(to, self.cells.kind(cell)) else { return };
        if self.cells.linked_to(cell) == code {
            return;
        }
        lock(&to.incoming).push(cell);
        self.lead(cell, code);
        self.counters.links.fetch_add(1, Ordering::Relaxed);
    }

    /// Where code of this kind enters `to`: for jump caches. `None` if the code cache is full.
    pub fn entry_from(&self, to: &Translation, from: CodeKind) -> Option<HostCode> {
        let _guard = self.locked();
        self.entry_for(to, from)
    }

    /// The same, with the publish lock held. An adapter is made when the first exit of the other kind wants one.
    fn entry_for(&self, to: &Translation, from: CodeKind) -> Option<HostCode> {
        if to.kind == from {
            return Some(to.code);
        }
        if let Some(&adapter) = to.adapter.get() {
            return Some(adapter);
        }
        let offset = self.memory.allocate(4 * entry::ADAPTER_WORDS)?;
        let at = self.memory.address(offset);
        let stub = if to.kind == CodeKind::Tier0 { Stub::Arrive } else { Stub::ToTail };
        let words = entry::adapter(stub, at.0, to.code.0).map(u32::to_le_bytes);
        self.memory.write(offset, words.as_flattened());
        Some(*to.adapter.get_or_init(|| at))
    }

    /// Makes the exits that jump to `from` jump to `to` instead, which is at the same guest pc. `from` stays in use for whoever is on
    /// the way there.
    pub fn redirect(&self, from: &Translation, to: &Translation) {
        let _guard = self.locked();
        if to.is_removed() {
            return;
        }
        for cell in lock(&from.incoming).drain(..) {
            let linked = self.cells.linked_to(cell);
            let stands = linked == from.code || Some(&linked) == from.adapter.get();
            if stands && let Some(code) = self.entry_for(to, self.cells.kind(cell)) {
                lock(&to.incoming).push(cell);
                self.lead(cell, code);
            }
        }
    }

    /// Makes an exit jump to `code`, with the publish lock held.
    fn lead(&self, cell: u32, code: HostCode) {
        self.cells.link(cell, code);
        if let Some((offset, way_out)) = self.cells.branch(cell) {
            let distance = (code.0 as i64 - self.memory.address(offset as usize).0 as i64) / 4;
            let reaches = (-(1 << 25)..1 << 25).contains(&distance);
            self.memory.replace_branch(offset as usize, if reaches { encode::b(distance as i32) } else { way_out });
        }
    }

    /// Makes an exit return to the dispatcher, with the publish lock held. Whether its branch had to be changed, which other threads
    /// may not see at once.
    fn lead_out(&self, cell: u32) -> bool {
        let linked = self.cells.is_linked(cell);
        self.cells.unlink(cell);
        let branch = self.cells.branch(cell).filter(|_| linked);
        if let Some((offset, way_out)) = branch {
            self.memory.replace_branch(offset as usize, way_out);
        }
        branch.is_some()
    }

    /// Makes the exit of `cell` return to the dispatcher again.
    pub fn unlink(&self, cell: u32) {
        let _guard = self.locked();
        if self.lead_out(cell) {
            arch::sync_other_threads();
        }
    }

    /// Takes a translation out of use: no exit arrives at it any more, and its own exits lead to the dispatcher. Threads that
    /// are inside go on until they leave. The caller clears the jump caches.
    pub fn remove(&self, translation: &Translation) {
        let _guard = self.locked();
        if translation.removed.swap(true, Ordering::AcqRel) {
            return;
        }
        let mut changed = false;
        for cell in lock(&translation.incoming).drain(..) {
            let linked = self.cells.linked_to(cell);
            if linked == translation.code || Some(&linked) == translation.adapter.get() {
                changed |= self.lead_out(cell);
            }
        }
        for cell in translation.cells.clone() {
            self.lead_out(cell);
        }
        if changed {
            arch::sync_other_threads();
        }
        self.counters.removed.fetch_add(1, Ordering::Relaxed);
    }

    /// Puts a removed translation to use again: it is what it was, and gets joined anew. Not after a [`CodeCache::reset`].
    pub fn restore(&self, translation: &Translation) {
        let _guard = self.locked();
        translation.removed.store(false, Ordering::Release);
    }

    /// The translation that contains the code at `pc` and the guest instruction it belongs to. Signal-safe (invariant 3); the
    /// reference is good until `reset`, which cannot happen while a thread is inside.
    pub fn find_by_host_pc(&self, pc: usize) -> Option<(&Translation, GuestAddr)> {
        self.memory.offset(pc)?;
        let translation = self.index.find(pc)?;
        Some((translation, translation.guest_pc(HostCode(pc))))
    }

    /// Drops all code. No thread may be inside generated code, and every jump cache must be cleared (invariant 4).
    pub fn reset(&self) {
        let _guard = self.locked();
        self.index.reset();
        self.cells.reset();
        self.memory.reset();
        self.counters.resets.fetch_add(1, Ordering::Relaxed);
    }

    /// Keeps other threads from changing the cache until the guard is dropped: around `fork`.
    pub fn freeze(&self) -> MutexGuard<'_, ()> {
        self.locked()
    }

    /// In the child after `fork`, before it runs generated code: gives the child code memory of its own.
    pub fn after_fork_in_child(&self) -> Result<(), CacheError> {
        self.memory.unshare()?;
        // While the child copied, the parent may have led exits to code that the child does not have. Cells were the child's own.
        let _guard = self.locked();
        for cell in FIXED_CELLS..self.cells.used() {
            if self.cells.is_linked(cell) {
                self.lead(cell, self.cells.linked_to(cell));
            } else if let Some((offset, way_out)) = self.cells.branch(cell) {
                self.memory.replace_branch(offset as usize, way_out);
            }
        }
        Ok(())
    }

    /// The mappings of code memory as (address, length), which the guest must neither see nor touch.
    pub fn mappings(&self) -> [(usize, usize); 2] {
        self.memory.mappings()
    }

    /// Numbers as of now.
    pub fn stats(&self) -> CacheStats {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        CacheStats {
            code_bytes: self.memory.used() as u64,
            budget_bytes: self.budget as u64,
            cells: u64::from(self.cells.used()),
            translations: self.index.len() as u64,
            published: get(&self.counters.published),
            links: get(&self.counters.links),
            removed: get(&self.counters.removed),
            resets: get(&self.counters.resets),
        }
    }

    fn locked(&self) -> MutexGuard<'_, ()> {
        lock(&self.lock)
    }
}

/// Locks; what a panicking thread left behind is consistent (each change is one store).
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
