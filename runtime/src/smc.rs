//! Code that changes: reading guest code so that changes are noticed, and what becomes of translations of what has changed.
//!
//! A page is marked in the guest map *before* its bytes are read for translation ([`GuestCode`]); from then on whatever changes
//! it reports it as stale (`memory/mod.rs`, M3). Stale ranges are drained by the dispatcher before it runs anything, and
//! before anything is published.
//!
//! Code generators write beside code that stays: another function in the same page, a page whose protection they change to write
//! and back. So entries of memory that may change are not dropped with their page but *shelved*: nobody arrives at them, and
//! the next thread that wants one compares the bytes it was made of ([`Origin`]) and takes it off the shelf, or drops it.
//!
//! How a page's code is made, by how the page may change (`CodePage`):
//!
//! | page      | noticed by       | interpreter                   | compiled                       |
//! |-----------|------------------|-------------------------------|--------------------------------|
//! | Fixed     | system calls     | blocks                        | regions                        |
//! | Changing  | system calls     | blocks                        | regions                        |
//! | Writable  | write protection | blocks that end behind stores | regions with exact registers   |
//! | Checked   | itself           | checked blocks                | checked blocks                 |
//!
//! Units of copied instructions (`arch/units.rs`) are dropped with their page, as they cost next to nothing to make, and trap behind a
//! store that faults. Those of checked pages are checked, too.
//!
//! A page becomes checked when it is written to again and again. Where a tier finds out that code of it is hot ([`GuestMap::trust`]: units, which
//! count their checks; emitted code, which would be compiled), the page is protected again until the next write, which a fault tells of. A
//! page that was written to all the same takes longer each time.
//!
//! A region that writes to its own page faults; as its registers are exact, the thread leaves it, interprets that one instruction, and
//! goes on with code made of what it has written (`Thread::step`).
//!
//! Invariants:
//! - **I1** A translation is registered under its pages and published in one critical section of [`Pages`], in which stale
//!   ranges have been drained, and none since its bytes were read overlaps them. So a translation of bytes that have changed since is
//!   never published, and what changes later finds it registered. The same holds where an entry leaves the shelf.
//! - **I2** After an invalidation the epoch is higher; each thread clears its caches when it sees that, and is asked to
//!   leave generated code to see it.
//! - **I3** A shelved entry has no code that can be entered: its cell links are gone, and caches were cleared (I2).

use crate::access;
use crate::lockstep::{self, Sabotage};
use crate::memory::{CodePage, GuestMap};
use crate::profile::{Bounds, Profile};
use crate::stats::{self, Stats};
use crate::tier::{Code, Entry};
use calque_frontend::decode::MAX_INSN;
use calque_frontend::lift::{FlagMemo, MOST_CHECKED, Profile as Executed, checked_extent, takes_deferred};
use calque_frontend::{CodeReader, Constants, LiftOptions, Lifted, lift_checked, lift_region};
use calque_ir::addr::GUEST_PAGE;
use calque_ir::{GuestAddr, GuestRange, Region};
use hashbrown::HashMap;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::sync::Arc;

/// Pages that are known to be marked, each with how it may change, at the place that its number gives.
type Pairs<const N: usize> = [Cell<Option<(GuestAddr, CodePage)>>; N];

/// What a thread's translations have found out, for the next ones.
pub(crate) struct Known {
    marked: Pairs<256>,
    /// Of fixed pages only.
    flags: FlagMemo,
    /// The epoch of the code in which all of it was found.
    since: Cell<u64>,
}

impl Default for Known {
    fn default() -> Self {
        Self { marked: std::array::from_fn(|_| Cell::default()), flags: FlagMemo::default(), since: Cell::new(0) }
    }
}

impl Known {
    /// The same, without what may have become stale meanwhile, in this epoch of the code.
    pub(crate) fn still(&self, map: &GuestMap, epoch: u64) -> &Self {
        if self.since.replace(epoch) != epoch || map.any_stale() {
            self.marked.iter().for_each(|page| page.set(None));
            self.flags.clear();
        }
        self
    }
}

/// Executable guest memory, for the lifter. Marks what it reads.
pub(crate) struct GuestCode<'a> {
    map: &'a GuestMap,
    /// Pages marked last: code calls and looks ahead to a few.
    marked: Pairs<4>,
    /// What earlier translations have found out.
    known: Option<&'a Known>,
    /// How what was read may change, by the page for which that is worst.
    worst: Cell<CodePage>,
    /// What was read of pages that may change.
    ranges: RefCell<Vec<(GuestAddr, u32)>>,
    /// Whether what was read of fixed pages is noted there, too.
    notes: bool,
    /// What checked blocks do with theirs.
    constants: Constants,
    bounds: Bounds<'a>,
}

impl<'a> GuestCode<'a> {
    pub(crate) fn new(map: &'a GuestMap) -> Self {
        Self::profiled(map, None)
    }

    /// The same with a profile that knows where functions end, if there is one.
    pub(crate) fn profiled(map: &'a GuestMap, profile: Option<&'a Profile>) -> Self {
        let (marked, worst) = (Default::default(), Cell::new(CodePage::Fixed));
        let (ranges, constants) = (RefCell::default(), Constants::Compared);
        Self { map, marked, known: None, worst, ranges, notes: false, constants, bounds: Bounds::new(profile) }
    }

    /// How the page of `pc` may change, if it is executable; marks it.
    fn mark(&self, pc: GuestAddr) -> Option<CodePage> {
        let page = pc.page();
        let table = self.known.map_or(&self.marked[..], |known| &known.marked);
        let known = &table[(page.0 / GUEST_PAGE) as usize & (table.len() - 1)];
        let kind = match known.get() {
            Some((marked, kind)) if marked == page => kind,
            _ => self.map.code_page(page)?,
        };
        known.set(Some((page, kind)));
        self.worst.set(self.worst.get().max(kind));
        Some(kind)
    }

    /// The same, where something is known already: pages are marked as long as nothing has become stale since that was found out.
    pub(crate) fn with(map: &'a GuestMap, known: &'a Known) -> Self {
        Self { known: Some(known), ..Self::new(map) }
    }

    /// The same with a note of everything that is read ([`GuestCode::noted`]).
    pub(crate) fn noting(map: &'a GuestMap) -> Self {
        Self { notes: true, ..Self::new(map) }
    }

    /// The same for translations of this entry.
    pub(crate) fn of(self, entry: &Entry) -> Self {
        Self { constants: entry.constants(), ..self }
    }

    /// Whether the guest may execute what is at `pc`.
    pub(crate) fn may_run(&self, pc: GuestAddr) -> bool {
        self.mark(pc).is_some()
    }

    /// Whether all that was read so far is fixed.
    pub(crate) fn is_fixed(&self) -> bool {
        self.worst.get() == CodePage::Fixed
    }

    /// Reads within the page of `pc`.
    #[inline(always)]
    fn read_page(&self, pc: GuestAddr, buf: &mut [u8]) -> usize {
        let len = buf.len().min((GUEST_PAGE - pc.0 % GUEST_PAGE) as usize);
        let kind = self.mark(pc).filter(|_| access::read_bytes(pc, &mut buf[..len]).is_ok());
        let Some(kind) = kind else {
            if self.notes {
                self.ranges.borrow_mut().push((pc, 0));
            }
            return 0;
        };
        if kind != CodePage::Fixed || self.notes {
            self.ranges.borrow_mut().push((pc, len as u32));
        }
        len
    }

    /// Goes on behind the bytes of `buf` that the page of `pc` has had, as far as one instruction reaches; how many there are then.
    #[cold]
    fn read_on(&self, pc: GuestAddr, first: usize, buf: &mut [u8]) -> usize {
        let end = buf.len().min(MAX_INSN);
        first + self.read_page(pc.wrapping_add(first as u64), &mut buf[first..end])
    }

    /// Reads as [`CodeReader::read_run`] does, but nothing of checked pages.
    #[cfg_attr(not(target_arch = "x86_64"), allow(dead_code, reason = "only units use it"))]
    pub(crate) fn read_unchecked(&self, pc: GuestAddr, buf: &mut [u8]) -> usize {
        if self.mark(pc) == Some(CodePage::Checked) {
            return 0;
        }
        let read = self.read_run(pc, buf);
        let left = (GUEST_PAGE - pc.0 % GUEST_PAGE) as usize;
        if self.worst.get() == CodePage::Checked { read.min(left) } else { read }
    }

    /// Reads the bytes of the block at `pc` as checked translations are made of them; how many.
    #[cfg_attr(not(target_arch = "x86_64"), allow(dead_code, reason = "only units use it"))]
    pub(crate) fn read_block(&self, pc: GuestAddr, buf: &mut [u8; MOST_CHECKED]) -> usize {
        let readable = self.read_run(pc, buf);
        checked_extent(pc, &buf[..readable])
    }

    /// Lifts the block at `pc`, for the interpreter or the emitter, as its page demands.
    pub(crate) fn lift_block(&self, lifted: &mut Lifted, pc: GuestAddr, options: &LiftOptions) {
        lockstep::lifted(self.block(lifted, pc, options));
    }

    fn block<'l>(&self, lifted: &'l mut Lifted, pc: GuestAddr, options: &LiftOptions) -> &'l mut Region {
        let kind = self.mark(pc);
        if kind == Some(CodePage::Checked) {
            let block_insns = LiftOptions::default().block_insns;
            return lifted.set(lift_checked(self, pc, self.constants, &LiftOptions { block_insns, ..*options }));
        }
        match kind {
            Some(CodePage::Writable) => lifted.block(self, pc, &LiftOptions { end_at_stores: true, ..*options }),
            _ => lifted.block(self, pc, options),
        }
        // Over a page's edge into a checked one.
        if self.worst.get() == CodePage::Checked {
            lifted.set(lift_checked(self, pc, self.constants, options));
        }
        lifted.region_mut()
    }

    /// Whether code at `pc` may be arrived at with the flags deferred: not if what it does may change unnoticed.
    pub(crate) fn takes_deferred(&self, pc: GuestAddr, options: &LiftOptions) -> bool {
        takes_deferred(self, pc, options) && self.worst.get() != CodePage::Checked
    }

    /// Lifts the region at `pc` as its pages demand; whether its registers must be exact.
    pub(crate) fn lift_region(&self, pc: GuestAddr, executed: &dyn Executed, options: &LiftOptions) -> (Region, bool) {
        let (mut region, precise) = self.region(pc, executed, options);
        lockstep::lifted(&mut region);
        (region, precise)
    }

    fn region(&self, pc: GuestAddr, executed: &dyn Executed, options: &LiftOptions) -> (Region, bool) {
        let kind = self.mark(pc);
        let precise = options.precise || kind == Some(CodePage::Writable);
        if kind != Some(CodePage::Checked) {
            let region = lift_region(self, pc, executed, &LiftOptions { precise, ..*options });
            match self.worst.get() {
                CodePage::Fixed | CodePage::Changing => return (region, precise),
                CodePage::Writable if precise => return (region, precise),
                CodePage::Writable => {
                    let options = LiftOptions { precise: true, ..*options };
                    return (lift_region(self, pc, executed, &options), true);
                }
                CodePage::Checked => {}
            }
        }
        // Code that all others may lead to with deferred flags has to end the deferral where it puts its own.
        let defers = options.precise && options.precise_everywhere;
        (lift_checked(self, pc, self.constants, &LiftOptions { defers, ..*options }), options.precise)
    }

    /// All that was read, as it stands now; `None` if it may change, or code was looked for where there is none, which may change as well.
    pub(crate) fn noted(&self) -> Option<Vec<(GuestAddr, Box<[u8]>)>> {
        let mut ranges = self.ranges.take();
        if !self.is_fixed() || ranges.iter().any(|range| range.1 == 0) {
            return None;
        }
        join(&mut ranges);
        Some(ranges.into_iter().map(|(start, len)| (start, read(start, len))).collect())
    }

    /// Whether these bytes are there, and fixed.
    pub(crate) fn holds(&self, start: GuestAddr, bytes: &[u8]) -> bool {
        const PART: usize = 256;
        let mut buf = [0; PART];
        let mut is_there = |(n, part): (usize, &[u8])| {
            let read = &mut buf[..part.len()];
            access::read_bytes(start.wrapping_add((n * PART) as u64), read).is_ok() && read == part
        };
        pages(start, bytes.len() as u32).all(|page| self.mark(page).is_some())
            && self.is_fixed()
            && bytes.chunks(PART).enumerate().all(&mut is_there)
    }

    /// What `region`, lifted from here, depends on, as it stands now. To be asked for before stale ranges are drained (I1).
    pub(crate) fn origin(&self, region: &Region) -> Origin {
        let kind = self.worst.get();
        if self.is_fixed() {
            return Origin::default();
        }
        let mut ranges = region.source.to_vec();
        ranges.extend(self.ranges.take());
        join(&mut ranges);
        let copy = |&(start, len): &(GuestAddr, u32)| Copied { start, bytes: read(start, len) };
        let copies = ranges.iter().map(copy).collect();
        Origin { kind, ranges, copies }
    }
}

/// Sorts ranges, and makes one of those that overlap or meet.
fn join(ranges: &mut Vec<(GuestAddr, u32)>) {
    ranges.sort_unstable();
    ranges.dedup_by(|next, last| {
        let end = last.0.0 + u64::from(last.1);
        let joins = next.0.0 <= end;
        if joins {
            last.1 = (end.max(next.0.0 + u64::from(next.1)) - last.0.0) as u32;
        }
        joins
    });
}

/// `len` bytes of guest memory; fewer where it ends.
fn read(start: GuestAddr, len: u32) -> Box<[u8]> {
    let mut bytes = vec![0; len as usize];
    if access::read_bytes(start, &mut bytes).is_err() {
        bytes.clear();
    }
    bytes.into()
}

/// What translations of one entry were made from: of fixed bytes nothing is known.
pub(crate) struct Origin {
    kind: CodePage,
    /// What was read of pages that may change, and the bytes.
    ranges: Vec<(GuestAddr, u32)>,
    copies: Vec<Copied>,
}

#[derive(Clone)]
struct Copied {
    start: GuestAddr,
    bytes: Box<[u8]>,
}

impl Default for Origin {
    fn default() -> Self {
        Self { kind: CodePage::Fixed, ranges: Vec::new(), copies: Vec::new() }
    }
}

impl Origin {
    /// This, and what another translation of the entry was made from.
    pub(crate) fn with(&self, other: Origin) -> Origin {
        let ranges = [&self.ranges[..], &other.ranges].concat();
        Origin { kind: self.kind.max(other.kind), ranges, copies: [&self.copies[..], &other.copies].concat() }
    }

    pub(crate) fn kind(&self) -> CodePage {
        self.kind
    }

    pub(crate) fn ranges(&self) -> &[(GuestAddr, u32)] {
        &self.ranges
    }

    /// Whether translations compare their bytes, and need not any more.
    fn is_outgrown(&self, map: &GuestMap) -> bool {
        let checks = |page: GuestAddr| map.code_page(page) == Some(CodePage::Checked);
        self.kind == CodePage::Checked && !self.ranges.iter().any(|&(start, len)| pages(start, len).any(checks))
    }

    /// Whether memory is what it was, and may change in no worse way. Marks its pages.
    fn holds(&self, map: &GuestMap) -> bool {
        let page_holds = |page: GuestAddr| map.code_page(page).is_some_and(|kind| kind <= self.kind);
        self.ranges.iter().all(|&(start, len)| pages(start, len).all(page_holds))
            && self.copies.iter().all(|copied| read(copied.start, copied.bytes.len() as u32) == copied.bytes)
    }
}

/// The pages of `len` bytes.
fn pages(start: GuestAddr, len: u32) -> impl Iterator<Item = GuestAddr> {
    let end = start.0 + u64::from(len.max(1));
    (start.page().0..end).step_by(GUEST_PAGE as usize).map(GuestAddr)
}

impl CodeReader for GuestCode<'_> {
    fn read(&self, pc: GuestAddr, buf: &mut [u8; MAX_INSN]) -> usize {
        self.read_run(pc, buf)
    }

    fn leaves_function(&self, from: GuestAddr, to: GuestAddr) -> bool {
        self.bounds.leaves(from, to)
    }

    /// Of pages that may change in other ways, what is read has to be noted each time.
    fn memo(&self) -> Option<&FlagMemo> {
        self.known.filter(|_| self.is_fixed()).map(|known| &known.flags)
    }

    fn read_run(&self, pc: GuestAddr, buf: &mut [u8]) -> usize {
        let first = self.read_page(pc, buf);
        // On into the next page only for the sake of one instruction: what is behind may be data that is written.
        if first == 0 || first >= MAX_INSN || first == buf.len() {
            return first;
        }
        self.read_on(pc, first, buf)
    }
}

/// Which entries have translations made from which page.
#[derive(Default)]
pub(crate) struct Pages {
    entries: HashMap<u64, Vec<Arc<Entry>>>,
    /// Number of invalidations so far.
    pub(crate) invalidations: u64,
    /// What the last ones were of.
    recent: VecDeque<(u64, GuestRange)>,
}

/// Invalidations that are remembered: a compilation takes milliseconds, a code generator some of those between writes.
const RECENT: usize = 256;

impl Pages {
    /// Registers what was translated from `ranges`.
    pub(crate) fn register(&mut self, entry: &Arc<Entry>, ranges: &[(GuestAddr, u32)]) {
        let (mut last, again) = (None, entry.register());
        for page in ranges.iter().flat_map(|&(start, len)| pages(start, len)) {
            if last == Some(page) {
                continue;
            }
            let known = self.entries.entry(page.0).or_default();
            // Of an entry on several pages, some may never have been stale.
            if !again || !known.iter().any(|e| Arc::ptr_eq(e, entry)) {
                known.push(Arc::clone(entry));
            }
            last = Some(page);
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

    /// Whether any of `ranges` has been invalidated since there were `before` invalidations.
    fn changed_since(&self, before: u64, ranges: &[(GuestAddr, u32)]) -> bool {
        if self.invalidations == before {
            return false;
        }
        let forgotten = self.recent.front().is_none_or(|(first, _)| *first > before + 1);
        let hit = |range: &GuestRange| {
            let pages = ranges.iter().flat_map(|&(start, len)| pages(start, len));
            pages.into_iter().any(|page| range.contains(page))
        };
        forgotten || self.recent.iter().any(|(number, range)| *number > before && hit(range))
    }

    /// Shelves or drops all translations from what the map reports as stale; whether there was any.
    pub(crate) fn drain_stale(&mut self, map: &GuestMap, code: &Code) -> bool {
        let before = self.invalidations;
        map.drain_stale(|mut stale| {
            if lockstep::is_broken(Sabotage::Stale) {
                stale.clear();
            }
            if !stale.is_empty() {
                self.invalidate(stale, map, code);
            }
        });
        self.invalidations != before
    }

    fn invalidate(&mut self, stale: Vec<GuestRange>, map: &GuestMap, code: &Code) {
        self.invalidations += 1;
        for range in stale {
            let mapped = map.is_mapped(range.start, range.size());
            for entry in self.take(range) {
                if mapped { code.shelve(&entry) } else { code.drop_entry(&entry) }
            }
            if let Some(units) = &code.units {
                units.remove(range);
            }
            if self.recent.len() == RECENT {
                self.recent.pop_front();
            }
            self.recent.push_back((self.invalidations, range));
        }
        code.advance_epoch();
    }

    /// Drops all translations.
    pub(crate) fn drain_all(&mut self, code: &Code) {
        self.entries.clear();
        code.drop_entries();
        self.invalidations += 1;
        self.recent.clear();
        code.advance_epoch();
    }
}

impl Code {
    /// Publishes a translation of `entry` from the guest bytes `source`, made since there were `before` invalidations, by `publish`; false
    /// if what it was made of has changed (I1).
    pub(crate) fn admit(
        &self,
        map: &GuestMap,
        entry: &Arc<Entry>,
        source: &[(GuestAddr, u32)],
        origin: Origin,
        before: u64,
        publish: impl FnOnce(),
    ) -> bool {
        let ranges = if origin.kind() == CodePage::Fixed { source } else { origin.ranges() };
        let mut pages = self.pages();
        pages.drain_stale(map, self);
        if !entry.is_usable() || pages.changed_since(before, ranges) {
            return false;
        }
        pages.register(entry, ranges);
        entry.made_from(origin);
        publish();
        true
    }

    /// Takes a shelved entry off the shelf if nothing has changed, else drops it; whether it can be used.
    #[cold]
    pub(crate) fn reclaim(&self, map: &GuestMap, stats: &Stats, entry: &Arc<Entry>) -> bool {
        loop {
            let before = self.pages().invalidations;
            let origin = entry.origin();
            let (outgrown, holds) = (origin.is_outgrown(map), origin.holds(map));
            let mut pages = self.pages();
            pages.drain_stale(map, self);
            if entry.is_usable() || entry.is_dropped() {
                return entry.is_usable();
            }
            if outgrown || !holds {
                stats::add(&stats.retranslations, 1);
                self.replace_entry(entry, (!holds).into());
                return false;
            }
            if !pages.changed_since(before, origin.ranges()) {
                pages.register(entry, origin.ranges());
                self.unshelve(entry);
                stats::add(&stats.reclaimed, 1);
                return true;
            }
        }
    }

    /// A checked translation has found that its bytes are not what they were: drops the entry of `pc` unless it is a newer one.
    #[cold]
    pub(crate) fn recheck(&self, map: &GuestMap, stats: &Stats, pc: GuestAddr) {
        let entry = self.entry(pc);
        if entry.is_usable() && !entry.origin().holds(map) {
            stats::add(&stats.retranslations, 1);
            self.replace_entry(&entry, 1);
        }
    }

    /// What was made for `pc`, where not all of an instruction could be fetched, is good no more.
    #[cold]
    pub(crate) fn drop_unfetchable(&self, stats: &Stats, pc: GuestAddr) {
        stats::add(&stats.retranslations, 1);
        self.drop_entry(&self.entry(pc));
        if let Some(units) = &self.units {
            units.remove(GuestRange { start: pc, end: pc.wrapping_add(MAX_INSN as u64) });
        }
    }
}
