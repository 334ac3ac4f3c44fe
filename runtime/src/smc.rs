//! Code that changes: reading guest code so that changes are noticed, and dropping translations of what has changed.
//!
//! A page is marked in the guest map *before* its bytes are read for translation ([`GuestCode`]); from then on whatever changes
//! it reports it as stale (`memory/mod.rs`, M3). Stale ranges are drained by the dispatcher before it runs anything, and
//! before anything is published.
//!
//! Invariants:
//! - **I1** A translation is registered under its pages and published in one critical section of [`Pages`], in which stale
//!   ranges have been drained and the count of invalidations is still what it was before the bytes were read. So a translation of
//!   bytes that have changed since is never published, and what changes later finds it registered.
//! - **I2** After an invalidation the epoch is higher; each thread clears its caches when it sees that, and is asked to
//!   leave generated code to see it.

use crate::access;
use crate::memory::GuestMap;
use crate::profile::{Bounds, Profile};
use crate::tier::{Code, Entry};
use calque_frontend::CodeReader;
use calque_frontend::decode::MAX_INSN;
use calque_ir::addr::GUEST_PAGE;
use calque_ir::{GuestAddr, GuestRange};
use hashbrown::HashMap;
use std::cell::Cell;
use std::sync::Arc;

/// Executable guest memory, for the lifter. Marks what it reads.
pub(crate) struct GuestCode<'a> {
    map: &'a GuestMap,
    /// The page marked last.
    marked: Cell<Option<GuestAddr>>,
    bounds: Bounds<'a>,
}

impl<'a> GuestCode<'a> {
    pub(crate) fn new(map: &'a GuestMap) -> Self {
        Self::profiled(map, None)
    }

    /// The same with a profile that knows where functions end, if there is one.
    pub(crate) fn profiled(map: &'a GuestMap, profile: Option<&'a Profile>) -> Self {
        Self { map, marked: Cell::new(None), bounds: Bounds::new(profile) }
    }

    /// Whether the page of `pc` is executable; marks it.
    fn mark(&self, pc: GuestAddr) -> bool {
        let page = pc.page();
        if self.marked.get() == Some(page) {
            return true;
        }
        let executable = self.map.mark_code(page);
        if executable {
            self.marked.set(Some(page));
        }
        executable
    }

    /// Reads within the page of `pc`.
    fn read_page(&self, pc: GuestAddr, buf: &mut [u8]) -> usize {
        let len = buf.len().min((GUEST_PAGE - pc.0 % GUEST_PAGE) as usize);
        if self.mark(pc) && access::read_bytes(pc, &mut buf[..len]).is_ok() { len } else { 0 }
    }
}

impl CodeReader for GuestCode<'_> {
    fn read(&self, pc: GuestAddr, buf: &mut [u8; MAX_INSN]) -> usize {
        self.read_run(pc, buf)
    }

    fn leaves_function(&self, from: GuestAddr, to: GuestAddr) -> bool {
        self.bounds.leaves(from, to)
    }

    fn read_run(&self, pc: GuestAddr, buf: &mut [u8]) -> usize {
        let first = self.read_page(pc, buf);
        // On into the next page only for the sake of one instruction: what is behind may be data that is written.
        if first == 0 || first >= MAX_INSN || first == buf.len() {
            return first;
        }
        let end = buf.len().min(MAX_INSN);
        first + self.read_page(pc.wrapping_add(first as u64), &mut buf[first..end])
    }
}

/// Which entries have translations made from which page.
#[derive(Default)]
pub(crate) struct Pages {
    entries: HashMap<u64, Vec<Arc<Entry>>>,
    /// Number of invalidations so far.
    pub(crate) invalidations: u64,
}

impl Pages {
    /// Registers what was translated from the ranges `source`.
    pub(crate) fn register(&mut self, entry: &Arc<Entry>, source: &[(GuestAddr, u32)]) {
        let mut last = None;
        for &(start, len) in source {
            let end = start.0 + u64::from(len.max(1));
            for page in (start.page().0..end).step_by(GUEST_PAGE as usize) {
                if last != Some(page) {
                    self.entries.entry(page).or_default().push(Arc::clone(entry));
                    last = Some(page);
                }
            }
        }
    }

    /// Takes the entries of the pages in `range`.
    fn take(&mut self, range: GuestRange) -> Vec<Arc<Entry>> {
        let pages = (range.start.page().0..range.end.0).step_by(GUEST_PAGE as usize);
        let pages_in_range = range.size() / GUEST_PAGE;
        if pages_in_range as usize > self.entries.len() {
            // A large range unmapped: cheaper to look through what there is.
            let hit: Vec<u64> = self.entries.keys().copied().filter(|&p| range.contains(GuestAddr(p))).collect();
            return hit.iter().filter_map(|page| self.entries.remove(page)).flatten().collect();
        }
        pages.filter_map(|page| self.entries.remove(&page)).flatten().collect()
    }

    /// Drops all translations from what the map reports as stale; whether there was any.
    pub(crate) fn drain_stale(&mut self, map: &GuestMap, code: &Code) -> bool {
        let stale = map.take_stale();
        for range in &stale {
            for entry in self.take(*range) {
                code.drop_entry(&entry);
            }
            if let Some(units) = &code.units {
                units.remove(*range);
            }
        }
        if stale.is_empty() {
            return false;
        }
        self.invalidations += 1;
        code.advance_epoch();
        true
    }

    /// Drops all translations.
    pub(crate) fn drain_all(&mut self, code: &Code) {
        for (_, entries) in self.entries.drain() {
            entries.iter().for_each(|entry| code.drop_entry(entry));
        }
        self.invalidations += 1;
        code.advance_epoch();
    }
}
