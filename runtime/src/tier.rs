//! Translations of the process, and which tier runs what.
//!
//! Each guest pc where the dispatcher has ever looked has one [`Entry`]: the block lifted for the interpreter, the region
//! compiled from there, and its heat. Threads find entries through a direct-mapped cache of their own, then through the
//! shared map.
//!
//! Heat is counted where loops and calls begin: at targets of backward edges, of calls, returns and indirect jumps, and of exits from
//! generated code. Blocks inside a loop body do not get hot by themselves, so a loop is compiled once and not once a block.

use crate::memory::GuestMap;
use crate::options::{Engine, RunOptions};
use crate::smc::{GuestCode, Pages};
use crate::stats::{self, Stats};
use calque_frontend::{LiftOptions, Profile, lift_block};
use calque_ir::{Exit, GuestAddr, Region};
use hashbrown::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

/// What is known of one guest pc.
pub struct Entry {
    pub pc: GuestAddr,
    cold: OnceLock<ColdBlock>,
    heat: AtomicU32,
    /// Its translations are made from bytes that have changed; it is no longer in the map.
    dropped: AtomicBool,
}

/// A block for the interpreter.
pub struct ColdBlock {
    pub region: Region,
    /// Whether its exit is a call, a return or an indirect jump, whose target counts as warm.
    far_exit: bool,
}

impl ColdBlock {
    fn new(region: Region) -> Self {
        let near = |exit: &Exit| matches!(exit, Exit::Goto(_) | Exit::Branch { .. });
        let far_exit = !region.blocks.iter().all(|b| near(&b.exit));
        Self { region, far_exit }
    }

    /// Whether going on at `next` from here is where loops and functions begin.
    #[inline]
    pub fn warms(&self, next: GuestAddr) -> bool {
        self.far_exit || next <= self.region.blocks[0].pc
    }
}

impl Entry {
    fn new(pc: GuestAddr) -> Self {
        Self { pc, cold: OnceLock::new(), heat: AtomicU32::new(0), dropped: AtomicBool::new(false) }
    }

    /// The interpreter's block, if it has been lifted.
    #[inline]
    pub fn cold(&self) -> Option<&ColdBlock> {
        self.cold.get()
    }

    /// Counts an arrival over a warm edge; the new count. Exact enough where threads race.
    #[inline]
    pub fn warm(&self) -> u32 {
        let heat = self.heat.load(Ordering::Relaxed).saturating_add(1);
        self.heat.store(heat, Ordering::Relaxed);
        heat
    }
}

/// Number of maps that entries are spread over, a power of two.
const SHARDS: usize = 16;

/// All translations of a process.
pub struct Code {
    shards: [Mutex<HashMap<u64, Arc<Entry>>>; SHARDS],
    pages: Mutex<Pages>,
    /// Raised at each invalidation (I2 of `smc.rs`).
    epoch: AtomicU64,
    /// Registers must be exact wherever the guest may fault.
    precise: AtomicBool,
    pub engine: Engine,
    pub hot: u32,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Code {
    pub fn new(options: &RunOptions) -> Code {
        Code {
            shards: Default::default(),
            pages: Mutex::default(),
            epoch: AtomicU64::new(0),
            precise: AtomicBool::new(false),
            engine: options.engine,
            hot: options.hot.max(1),
        }
    }

    /// Higher after each invalidation.
    #[inline]
    pub fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    pub(crate) fn advance_epoch(&self) {
        self.epoch.fetch_add(1, Ordering::Release);
    }

    /// The entry for `pc`, made if there is none.
    pub fn entry(&self, pc: GuestAddr) -> Arc<Entry> {
        let mut shard = lock(self.shard(pc));
        Arc::clone(shard.entry(pc.0).or_insert_with(|| Arc::new(Entry::new(pc))))
    }

    fn shard(&self, pc: GuestAddr) -> &Mutex<HashMap<u64, Arc<Entry>>> {
        &self.shards[(pc.0 ^ pc.0 >> 7) as usize % SHARDS]
    }

    /// Forgets an entry whose bytes have changed.
    pub(crate) fn drop_entry(&self, entry: &Arc<Entry>) {
        if !entry.dropped.swap(true, Ordering::AcqRel) {
            let mut shard = lock(self.shard(entry.pc));
            if shard.get(&entry.pc.0).is_some_and(|known| Arc::ptr_eq(known, entry)) {
                shard.remove(&entry.pc.0);
            }
        }
    }

    /// Drops what has become stale.
    pub fn drain_stale(&self, map: &GuestMap, stats: &Stats) {
        if lock(&self.pages).drain_stale(map, self) {
            stats::add(&stats.invalidations, 1);
        }
    }

    /// From now on registers are exact wherever the guest may fault: drops translations that were made without.
    pub fn require_precise(&self) {
        if !self.precise.swap(true, Ordering::AcqRel) {
            lock(&self.pages).drain_all(self);
        }
    }

    /// How to lift now.
    pub fn lift_options(&self) -> LiftOptions {
        LiftOptions { precise: self.precise.load(Ordering::Acquire), ..LiftOptions::default() }
    }

    /// Lifts the interpreter's block of `entry`; false if the entry was dropped meanwhile.
    pub fn lift_cold(&self, entry: &Arc<Entry>, map: &GuestMap, stats: &Stats) -> bool {
        loop {
            let before = lock(&self.pages).invalidations;
            let region = lift_block(&GuestCode::new(map), entry.pc, &self.lift_options());
            let mut pages = lock(&self.pages);
            pages.drain_stale(map, self);
            if entry.dropped.load(Ordering::Acquire) {
                return false;
            }
            if pages.invalidations == before {
                // I1: registered and published while the pages are locked.
                pages.register(entry, &region.source);
                stats::add(&stats.cold_blocks, 1);
                stats::add(&stats.cold_insns, u64::from(region.guest_insns));
                // Another thread may have been faster: then its block is the same.
                let _ = entry.cold.set(ColdBlock::new(region));
                return true;
            }
        }
    }
}

impl Profile for Code {
    fn executed(&self, pc: GuestAddr) -> bool {
        lock(self.shard(pc)).get(&pc.0).is_some_and(|entry| entry.cold().is_some())
    }
}
