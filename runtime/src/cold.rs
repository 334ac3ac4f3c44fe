//! Cold code by the emitter (`backend::emit`): what AArch64 hosts run before Cranelift, and beside it.
//!
//! A block is emitted when the dispatcher arrives at it for the second time, and published beside compiled regions in the same code cache.
//! Where it is hot, its region is emitted in its place ([`Code::emit_region`]). That stays when the region is compiled, for whoever is on the way
//! there; exits lead to the compiled region then, and jump caches forget the pc. Exits of either kind of code are linked to either kind of target.
//!
//! **First runs.** Two thirds of the blocks that a start-up comes by run once, and most of the others a few times. So with `auto` the first
//! arrival only lifts the block and has the interpreter run it, which costs less than half of emitting, publishing and linking it; nothing is
//! published, and only a bit of the thread's says that it has been there. What was lifted is kept for a while ([`FirstRuns`]): most second
//! arrivals come soon. The next ones run it again, which costs a seventh of emitting it, up to [`RUNS`] in all; whoever comes later,
//! or finds it gone, emits it. Only fixed code is tried so: of other pages, what was read would have to be compared.
//!
//! What an earlier run of the program has saved (`saved/`) is restored at the first arrival, which costs half of lifting and emitting, all told.
//!
//! **Heat.** Emitted code counts no executions. Its countdown (`emit/exit.rs`) brings each thread back once in [`period`] backward jumps,
//! calls, returns, and arrivals from compiled regions; the place it was about to go to has then run about as often as the period is long. Where
//! that says nothing new, because a region is being compiled there or would not pay (`trial.rs`), the next countdowns are longer.
//!
//! **Stale code.** Emitted blocks look at no interrupt word between countdowns. So whoever drops an entry takes its pc out of every
//! thread's jump cache at once ([`crate::world::World::forget_jump`]), the cells are unlinked by the cache, and a write that makes code stale has
//! its effect before the next block (`fault.rs`, case 1), and blocks of memory that may change end behind stores.

use crate::memory::{CodePage, GuestMap};
use crate::options::Engine;
use crate::process::Process;
use crate::saved::Now;
use crate::smc::{GuestCode, Known, Origin};
use crate::stats;
use crate::tier::{Code, ColdBlock, Entry, Jit};
use crate::trial;
use calque_backend::{
    CacheError, CodeKind, EmitError, EmitOptions, Emitted, Emitter, FlagsAtEntry, HostIsa, Translation,
};
use calque_frontend::lift;
use calque_frontend::{LiftOptions, Lifted};
use calque_ir::{Block, Body, GuestAddr, Inst, Region, pass};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

/// Most arrivals that one countdown stands for.
const PERIOD: u32 = 256;

/// Emitted code is worth replacing after so many times the arrivals after which interpreting is: it runs at 2 to 3 times native speed
/// instead of 50.
const PATIENCE: u32 = 4;

/// What became of an attempt to emit a block.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Made {
    /// There is code, or a block for the interpreter.
    Runnable,
    /// The entry was dropped, or the cache is full: back to a safepoint.
    Nothing,
    /// The guest may not execute what is there.
    Unfetchable,
}

/// Arrivals at an entry of emitted code after which its region goes on trial.
pub(crate) fn threshold(hot: u32) -> u32 {
    hot.saturating_mul(PATIENCE)
}

/// Backward jumps, calls and returns from one countdown to the next, where nothing is known.
pub(crate) fn period(hot: u32) -> u32 {
    threshold(hot).clamp(1, PERIOD)
}

/// How much longer countdowns get where they have nothing to tell: each costs as much as some hundred instructions.
const LONGEST: u32 = 16;

/// The countdown behind one that stood for `arrivals`: twice as long if those were not worth counting.
pub(crate) fn next_period(hot: u32, arrivals: u32, counted: bool) -> u32 {
    let shortest = period(hot);
    if counted { shortest } else { arrivals.saturating_mul(2).min(LONGEST * shortest) }
}

/// A countdown that a signal handler has ended is below this when it is noticed; one that has run out is not.
pub(crate) const ENDED: i32 = -2;

/// What became of an attempt: `None` if it is worth another.
fn made(entry: &Entry, admitted: bool) -> Option<Made> {
    match admitted {
        true => Some(Made::Runnable),
        false => (!entry.is_usable()).then_some(Made::Nothing),
    }
}

/// What makes emitted code: one for each thread.
pub(crate) struct ColdMaker {
    emitter: Emitter,
    lifted: Lifted,
    known: Known,
    first_runs: FirstRuns,
    now: Now,
}

impl ColdMaker {
    pub(crate) fn new(host: HostIsa) -> Self {
        Self {
            emitter: Emitter::new(host),
            lifted: Lifted::default(),
            known: Known::default(),
            first_runs: FirstRuns::default(),
            now: Now::default(),
        }
    }
}

/// Where a thread has been, and what it has lifted there.
struct FirstRuns {
    /// A bit for each pc's hash: places that share one are taken for visited.
    visited: Vec<u64>,
    /// Which of the blocks kept was lifted at each place last, counted from 1; 0 for none.
    places: Vec<u32>,
    /// The blocks kept, with what they are made of in the next three, one behind the other: a block by itself would cost more to find room for than
    /// to lift. Where there is no more room, all are forgotten.
    kept: Vec<Kept>,
    blocks: Vec<Block>,
    insts: Vec<Inst>,
    pool: Vec<[u64; 2]>,
}

/// A block lifted for its first run.
struct Kept {
    /// Where it was lifted, and in which epoch of the code: each invalidation begins another. None once it has been taken.
    from: Option<(GuestAddr, u64)>,
    /// How often it has run.
    runs: u32,
    source: (GuestAddr, u32),
    guest_insns: u32,
    blocks: Range<u32>,
    insts: Range<u32>,
    pool: Range<u32>,
}

/// Runs of a kept block before it is emitted: of hello's blocks that run again, six tenths run at most so often.
const RUNS: u32 = 4;

/// What is to be done with a block.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Arrival {
    /// Lift and run it.
    First,
    /// Run the block kept of this number.
    Again(usize),
    /// Emit it.
    Enough,
}

/// Room for operations of the blocks kept: 4,000 of usual ones. With a quarter, bash's start-up takes 5 % more.
const INSTS: usize = 1 << 16;

/// Places that are told apart, a power of two.
const PLACES: usize = 1 << 13;

/// Bits for places visited, a power of two: large programs have some ten thousand blocks.
const VISITED: usize = 1 << 18;

impl Default for FirstRuns {
    fn default() -> Self {
        let (visited, places) = (vec![0; VISITED / 64], vec![0; PLACES]);
        // Memory that costs nothing until it is used.
        let insts = Vec::with_capacity(INSTS);
        Self { visited, places, kept: Vec::new(), blocks: Vec::new(), insts, pool: Vec::new() }
    }
}

impl FirstRuns {
    /// Whether this is the first visit.
    fn visit(&mut self, pc: GuestAddr) -> bool {
        let bit = (pc.0 ^ pc.0 >> 18) as usize % VISITED;
        let word = &mut self.visited[bit / 64];
        let before = *word;
        *word |= 1 << (bit % 64);
        *word != before
    }

    /// What an arrival at `pc` calls for in this epoch.
    fn arrive(&mut self, pc: GuestAddr, epoch: u64) -> Arrival {
        let first = self.visit(pc);
        match self.find(pc, epoch) {
            Some(n) if self.kept[n].runs < RUNS => Arrival::Again(n),
            None if first => Arrival::First,
            _ => Arrival::Enough,
        }
    }

    /// The number of the block that was lifted at `pc` in this epoch, if it is still kept.
    fn find(&self, pc: GuestAddr, epoch: u64) -> Option<usize> {
        let n = self.places[place(pc)].checked_sub(1)? as usize;
        (self.kept.get(n)?.from == Some((pc, epoch))).then_some(n)
    }

    /// Keeps the block that has been lifted at `pc` in this epoch, and is about to run.
    fn keep(&mut self, pc: GuestAddr, epoch: u64, region: &Region) {
        let &[source] = &region.source[..] else { return };
        if self.insts.len() + region.insts.len() > INSTS {
            self.forget();
        }
        let (from, guest_insns) = (Some((pc, epoch)), region.guest_insns);
        let blocks = append(&mut self.blocks, &region.blocks);
        let insts = append(&mut self.insts, &region.insts);
        let pool = append(&mut self.pool, &region.pool);
        self.kept.push(Kept { from, runs: 1, source, guest_insns, blocks, insts, pool });
        self.places[place(pc)] = self.kept.len() as u32;
    }

    fn forget(&mut self) {
        self.places.fill(0);
        self.kept.clear();
        self.blocks.clear();
        self.insts.clear();
        self.pool.clear();
    }

    /// Block number `n`, which is about to run once more, and the number of its guest instructions.
    fn again(&mut self, n: usize) -> (Body<'_>, u32) {
        self.kept[n].runs += 1;
        (self.body(n), self.kept[n].guest_insns)
    }

    fn body(&self, n: usize) -> Body<'_> {
        let kept = &self.kept[n];
        let (blocks, insts) = (part(&self.blocks, &kept.blocks), part(&self.insts, &kept.insts));
        Body { blocks, insts, pool: part(&self.pool, &kept.pool), predicted: &[] }
    }

    /// Makes `region` the block that was lifted at `pc` in this epoch, if it is still kept, which it is no longer.
    fn take(&mut self, pc: GuestAddr, epoch: u64, region: &mut Region) -> bool {
        let Some(n) = self.find(pc, epoch) else { return false };
        let Body { blocks, insts, pool, .. } = self.body(n);
        region.blocks.clear();
        region.blocks.extend_from_slice(blocks);
        region.insts.clear();
        region.insts.extend_from_slice(insts);
        region.pool.clear();
        region.pool.extend_from_slice(pool);
        region.predicted.clear();
        let kept = &mut self.kept[n];
        region.source.clear();
        region.source.push(kept.source);
        (region.guest_insns, region.flags_dead) = (kept.guest_insns, false);
        kept.from = None;
        true
    }
}

fn place(pc: GuestAddr) -> usize {
    (pc.0 ^ pc.0 >> 13) as usize % PLACES
}

/// Puts `items` behind those of `all`; where they are.
fn append<T: Copy>(all: &mut Vec<T>, items: &[T]) -> Range<u32> {
    let start = all.len() as u32;
    all.extend_from_slice(items);
    start..all.len() as u32
}

fn part<'a, T>(all: &'a [T], range: &Range<u32>) -> &'a [T] {
    &all[range.start as usize..range.end as usize]
}

impl Code {
    /// Whether the emitted block at `pc` may read the flags that it is entered with.
    pub(crate) fn flags_at(&self, map: &GuestMap, maker: &ColdMaker, pc: GuestAddr) -> FlagsAtEntry {
        let code = GuestCode::with(map, maker.known.still(map, self.epoch()));
        let takes = code.takes_deferred(pc, &self.lift_options());
        if takes { FlagsAtEntry::Dead } else { FlagsAtEntry::Wanted }
    }

    /// The block at `pc`, to be run by the interpreter right away; none if it is to be emitted, as it has run so before or somebody else
    /// has made code of it.
    pub(crate) fn first_run<'m>(&self, process: &Process, maker: &'m mut ColdMaker, pc: GuestAddr) -> Option<Body<'m>> {
        if self.engine != Engine::Auto {
            return None;
        }
        let ColdMaker { lifted, known, first_runs, now, .. } = maker;
        let epoch = self.epoch();
        let (world, saved) = (now.world(epoch, self), self.saved.get());
        if saved.is_some_and(|saved| saved.knows(pc, world)) {
            return None;
        }
        let (body, guest_insns) = match first_runs.arrive(pc, epoch) {
            Arrival::Enough => return None,
            Arrival::Again(n) => first_runs.again(n),
            Arrival::First => {
                let code = GuestCode::with(&process.mem, known.still(&process.mem, epoch));
                // Only where there are several threads can somebody else have made code.
                if self.is_ordered() && self.is_known(pc) || !code.may_run(pc) || !code.is_fixed() {
                    return None;
                }
                code.lift_block(lifted, pc, &world.1.lift);
                if !code.is_fixed() {
                    return None;
                }
                first_runs.keep(pc, epoch, lifted.region());
                if let Some(saved) = saved {
                    saved.arrive(pc, world);
                }
                (lifted.region().body(), lifted.region().guest_insns)
            }
        };
        stats::add(&process.stats.first_runs, 1);
        stats::add(&process.stats.first_run_insns, u64::from(guest_insns));
        Some(body)
    }

    /// How to lift what is emitted.
    pub(crate) fn emitted_options(&self) -> LiftOptions {
        LiftOptions { defers: true, ..self.lift_options() }
    }

    /// Makes code for the block at `entry`, unless it has some.
    pub(crate) fn emit_cold(&self, process: &Process, jit: &Jit, maker: &mut ColdMaker, entry: &Arc<Entry>) -> Made {
        // Asking for the time costs as much as translating an instruction.
        let start = process.options.stats.then(Instant::now);
        let _compiling = jit.compiling.enter();
        let made = loop {
            if let Some(made) = self.try_emit(process, jit, maker, entry) {
                break made;
            }
        };
        if let Some(start) = start {
            stats::add(&process.stats.emit_ns, start.elapsed().as_nanos() as u64);
        }
        made
    }

    /// One attempt; `None` if guest code changed meanwhile.
    fn try_emit(&self, process: &Process, jit: &Jit, maker: &mut ColdMaker, entry: &Arc<Entry>) -> Option<Made> {
        let before = self.invalidations();
        if !entry.is_usable() {
            return Some(Made::Nothing);
        }
        if let Some(made) = self.try_restore(process, jit, maker, entry, before) {
            return made;
        }
        let ColdMaker { emitter, lifted, known, first_runs, now } = maker;
        let epoch = self.epoch();
        let code = GuestCode::with(&process.mem, known.still(&process.mem, epoch)).of(entry);
        if !code.may_run(entry.pc) {
            return Some(Made::Unfetchable);
        }
        let world = now.world(epoch, self);
        if let Some(saved) = self.saved.get() {
            saved.arrive(entry.pc, world);
        }
        if !(code.is_fixed() && first_runs.take(entry.pc, epoch, lifted.region_mut())) {
            code.lift_block(lifted, entry.pc, &world.1.lift);
        }
        self.mark_unaligned(lifted.region_mut());
        let region = lifted.region();
        let origin = code.origin(region);
        let translation = match self.publish_emitted(jit, emitter, region) {
            Ok(translation) => translation,
            Err(NotEmitted::CacheFull) => return Some(self.cache_full(jit)),
            Err(NotEmitted::Refused(error)) => {
                stats::add(&process.stats.emit_failures, 1);
                if process.options.stats {
                    eprintln!("calque: block at {}: {error}", entry.pc);
                }
                let region = lifted.take();
                let source = region.source.clone();
                let publish = || {
                    entry.give_up();
                    entry.set_cold(ColdBlock::new(region));
                };
                return made(entry, self.admit(&process.mem, entry, &source, origin, before, publish));
            }
        };
        stats::add(&process.stats.checked_blocks, u64::from(origin.kind() == CodePage::Checked));
        let made = self.admit_block(process, jit, entry, &translation, &region.source, (origin, before));
        if made == Some(Made::Runnable) {
            stats::add(&process.stats.emitted_blocks, 1);
            stats::add(&process.stats.emitted_insns, u64::from(translation.guest_insns));
        }
        made
    }

    /// Restores the block at `entry` that an earlier run has saved: `None` if there is none that still holds, else what became of it.
    fn try_restore(
        &self,
        process: &Process,
        jit: &Jit,
        maker: &mut ColdMaker,
        entry: &Arc<Entry>,
        before: u64,
    ) -> Option<Option<Made>> {
        let saved = self.saved.get()?;
        let ColdMaker { emitter, known, now, .. } = maker;
        let epoch = self.epoch();
        let code = GuestCode::with(&process.mem, known.still(&process.mem, epoch));
        let found = saved.find(entry.pc, now.world(epoch, self), &code)?;
        if self.unaligned.is_seen_in(found.source) {
            return None;
        }
        let first_cell = jit.cache.reserve_cells(found.block.cells_needed(), CodeKind::Tier0);
        let Some(first_cell) = first_cell else { return Some(Some(self.cache_full(jit))) };
        let translation = match publish(jit, &emitter.restore(&found.block, first_cell)) {
            Ok(translation) => translation,
            Err(_) => return Some(Some(self.cache_full(jit))),
        };
        let made = self.admit_block(process, jit, entry, &translation, &[found.source], (Origin::default(), before));
        if made == Some(Made::Runnable) {
            stats::add(&process.stats.saved_blocks, 1);
            stats::add(&process.stats.saved_insns, u64::from(translation.guest_insns));
        }
        Some(made)
    }

    /// Has threads run this code at `entry`, unless guest code has changed since there were `before` invalidations.
    fn admit_block(
        &self,
        process: &Process,
        jit: &Jit,
        entry: &Arc<Entry>,
        translation: &Arc<Translation>,
        source: &[(GuestAddr, u32)],
        (origin, before): (Origin, u64),
    ) -> Option<Made> {
        let publish = || entry.set_tier0(Arc::clone(translation));
        let made = made(entry, self.admit(&process.mem, entry, source, origin, before, publish));
        match made {
            Some(Made::Runnable) => self.tell_perf(translation),
            _ => jit.cache.remove(translation),
        }
        made
    }

    /// Emits the region at `entry` in place of its block, if there is more of it than that and its code is none that must be watched. Whether it may be
    /// worth compiling; then it is not emitted yet if that `waits`.
    pub(crate) fn emit_region(
        &self,
        process: &Process,
        maker: &mut ColdMaker,
        entry: &Arc<Entry>,
        waits: bool,
    ) -> bool {
        let Some(jit) = &self.jit else { return false };
        let _compiling = jit.compiling.enter();
        let before = self.invalidations();
        let code = GuestCode::new(&process.mem);
        let (mut region, _) = code.lift_region(entry.pc, &Emittable(self), &self.emitted_options());
        let is_candidate = trial::is_candidate(&region, &jit.host);
        let origin = code.origin(&region);
        let is_watched = !matches!(origin.kind(), CodePage::Fixed | CodePage::Changing);
        if is_watched || is_block(&region) || is_candidate && waits {
            return is_candidate;
        }
        pass::optimize_in_place(
            &mut region,
            &pass::Options { precise: pass::Precise::Yes, ..pass::Options::default() },
        );
        self.mark_unaligned(&mut region);
        match self.publish_emitted(jit, &mut maker.emitter, &region) {
            Ok(translation) => self.replace_block(process, jit, entry, translation, &region, (origin, before)),
            Err(NotEmitted::CacheFull) => drop(self.cache_full(jit)),
            Err(NotEmitted::Refused(_)) => stats::add(&process.stats.emit_failures, 1),
        }
        is_candidate
    }

    /// Emits a block or a region, and puts it where it can run; nobody arrives there yet.
    fn publish_emitted(
        &self,
        jit: &Jit,
        emitter: &mut Emitter,
        region: &Region,
    ) -> Result<Arc<Translation>, NotEmitted> {
        let first_cell = jit.cache.reserve_cells(Emitter::cells_needed(region), CodeKind::Tier0);
        let first_cell = first_cell.ok_or(NotEmitted::CacheFull)?;
        // Precision that is called for since the region was lifted makes code that is only slower.
        let options =
            EmitOptions { memory_order: self.memory_order(), first_cell, precise_everywhere: self.is_precise() };
        publish(jit, &emitter.emit(region, &options).map_err(NotEmitted::Refused)?)
    }

    /// Has threads run the region of `entry` instead of its block, unless guest code has changed since there were `before` invalidations.
    fn replace_block(
        &self,
        process: &Process,
        jit: &Jit,
        entry: &Arc<Entry>,
        translation: Arc<Translation>,
        region: &Region,
        (origin, before): (Origin, u64),
    ) {
        let publish = || {
            if let Some(block) = entry.replace_tier0(Arc::clone(&translation)) {
                jit.cache.redirect(&block, &translation);
                jit.cache.remove(&block);
            }
        };
        if !self.admit(&process.mem, entry, &region.source, origin, before, publish) {
            return jit.cache.remove(&translation);
        }
        self.world.forget_jump(entry.pc);
        self.cool(region);
        self.tell_perf(&translation);
        stats::add(&process.stats.emitted_regions, 1);
        stats::add(&process.stats.emitted_region_insns, u64::from(region.guest_insns));
    }

    fn cache_full(&self, jit: &Jit) -> Made {
        jit.full.store(true, Ordering::Release);
        self.world.interrupt_all(crate::dispatch::CODE_CHANGED);
        Made::Nothing
    }
}

fn publish(jit: &Jit, emitted: &Emitted<'_>) -> Result<Arc<Translation>, NotEmitted> {
    match jit.cache.publish_emitted(emitted) {
        Ok(translation) => Ok(translation),
        Err(CacheError::Full) => Err(NotEmitted::CacheFull),
        Err(error) => unreachable!("publishing fails for lack of room only: {error}"),
    }
}

/// Why there is no emitted code.
enum NotEmitted {
    /// There is no room for it.
    CacheFull,
    /// The emitter has none for this region.
    Refused(EmitError),
}

/// Whether a region is no more than its entry's block.
fn is_block(region: &Region) -> bool {
    region.block_ids().all(|id| region.successors(id).next().is_none())
}

/// The profile that regions are emitted by: switches stay outside, whose cases the jump cache finds as fast as comparisons do, and what is compiled.
struct Emittable<'a>(&'a Code);

impl lift::Profile for Emittable<'_> {
    fn executed(&self, pc: GuestAddr) -> bool {
        self.0.executed(pc) && !self.0.is_compiled(pc)
    }

    fn likely_targets(&self, jump: GuestAddr) -> Vec<GuestAddr> {
        self.0.likely_targets(jump)
    }

    fn all_targets(&self, _: GuestAddr) -> Vec<GuestAddr> {
        Vec::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use calque_frontend::decode::Bytes;

    #[test]
    fn a_place_is_visited_for_the_first_time_once() {
        let mut runs = FirstRuns::default();
        let pcs = (0..1000).map(|n| GuestAddr(0x40_1000 + 7 * n));
        assert!(pcs.clone().all(|pc| runs.visit(pc)));
        assert!(!pcs.clone().any(|pc| runs.visit(pc)));
    }

    /// A block of `insns` guest instructions.
    fn lifted(pc: GuestAddr, insns: usize) -> Lifted {
        let mut lifted = Lifted::default();
        lifted.block(
            &Bytes { pc, bytes: &[&vec![0x90; insns - 1][..], &[0xc3]].concat() },
            pc,
            &LiftOptions::default(),
        );
        lifted
    }

    #[test]
    fn a_kept_block_runs_a_few_times() {
        let (mut runs, pc) = (FirstRuns::default(), GuestAddr(0x40_1000));
        let block = lifted(pc, 3);
        assert_eq!(runs.arrive(pc, 5), Arrival::First);
        runs.keep(pc, 5, block.region());
        for n in 1..=RUNS {
            assert_eq!(runs.arrive(pc, 5), if n < RUNS { Arrival::Again(0) } else { Arrival::Enough });
            assert_eq!(runs.arrive(pc, 6), Arrival::Enough, "it may have changed");
            let (body, insns) = runs.again(0);
            assert_eq!((body.insts, body.blocks, insns), (&block.region().insts[..], &block.region().blocks[..], 3));
        }
    }

    #[test]
    fn what_was_lifted_is_taken_once_and_only_if_nothing_changed() {
        let (mut runs, pc) = (FirstRuns::default(), GuestAddr(0x40_1000));
        let (block, mut region) = (lifted(pc, 3), lifted(GuestAddr(0x50_0000), 7).take());
        runs.keep(pc, 5, block.region());
        assert!(!runs.take(pc, 6, &mut region));
        assert!(!runs.take(GuestAddr(pc.0 ^ 0x100_1000), 5, &mut region));
        assert!(runs.take(pc, 5, &mut region));
        assert_eq!(&region, block.region());
        assert!(!runs.take(pc, 5, &mut region));
    }

    #[test]
    fn the_last_blocks_are_kept() {
        let mut runs = FirstRuns::default();
        let pcs: Vec<_> = (0..2000).map(|n| GuestAddr(0x40_0000 + 3 * n)).collect();
        for &pc in &pcs {
            runs.keep(pc, 5, lifted(pc, 60).region());
        }
        let kept = pcs.iter().map(|&pc| runs.find(pc, 5).is_some());
        let first = kept.clone().position(|kept| kept).unwrap();
        assert!(first > 0 && kept.skip(first).all(|kept| kept));
        assert!(runs.insts.len() <= INSTS && runs.insts.capacity() == INSTS);
    }

    #[test]
    fn countdowns_get_longer_while_they_tell_nothing() {
        let hot = 500;
        let longer = |period: u32| next_period(hot, period, false);
        assert_eq!(longer(PERIOD), 2 * PERIOD);
        assert_eq!((0..10).fold(PERIOD, |period, _| longer(period)), LONGEST * PERIOD);
        assert_eq!(next_period(hot, LONGEST * PERIOD, true), PERIOD);
    }
}
