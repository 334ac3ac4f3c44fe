//! Cold code by the emitter (`backend::emit`): what AArch64 hosts run before Cranelift, and beside it.
//!
//! A block is emitted when the dispatcher has arrived at it a few times, and published beside compiled regions in the same code cache.
//! Where it is hot, its region is emitted in its place ([`Code::emit_region`]). That stays when the region is compiled, for whoever is on the way
//! there; exits lead to the compiled region then, and jump caches forget the pc. Exits of either kind of code are linked to either kind of target.
//!
//! **First runs.** Two thirds of the blocks that a start-up comes by run once, and most of the others a few times. So with `auto` instructions
//! are carried out straight from their bytes at first (`frontend/src/direct`), which costs a tenth of lifting, emitting, publishing and linking them;
//! nothing is kept for good but a count of the arrivals at each place ([`FirstRuns`]). Blocks that begin with an instruction that cannot be are lifted
//! each time for the interpreter. After [`RUNS`] arrivals a place is emitted. Only fixed code is tried so: of other pages, what was read would have
//! to be compared.
//!
//! What an earlier run of the program has saved (`saved/`) is restored at the first arrival: places that it had to emit.
//!
//! **Heat.** Emitted code counts no executions. Its countdown (`emit/exit.rs`) brings each thread back once in [`period`] backward jumps,
//! calls, returns, and arrivals from compiled regions; the place it was about to go to has then run about as often as the period is long. Where
//! that says nothing new, because a region is being compiled there or would not pay (`trial.rs`), the next countdowns are longer.
//!
//! **Stale code.** Emitted blocks look at no interrupt word between countdowns. So whoever drops an entry takes its pc out of every
//! thread's jump cache at once ([`crate::world::World::forget_jump`]), the cells are unlinked by the cache, and a write that makes code stale has
//! its effect before the next block (`fault.rs`, case 1), and blocks of memory that may change end behind stores.

use crate::access::{Fault, GuestMemory};
use crate::memory::{CodePage, GuestMap};
use crate::options::Engine;
use crate::process::Process;
use crate::saved::{Now, World};
use crate::smc::{GuestCode, Known, Origin};
use crate::stats;
use crate::tier::{Code, ColdBlock, Entry, Jit};
use crate::trial;
use calque_backend::{
    CacheError, CodeKind, EmitError, EmitOptions, Emitted, Emitter, FlagsAtEntry, HostIsa, Translation,
};
use calque_frontend::decode::MAX_INSN;
use calque_frontend::direct::{Direct, End, Source};
use calque_frontend::lift;
use calque_frontend::{CodeReader, LiftOptions, Lifted};
use calque_ir::{Body, CpuState, GuestAddr, Region, pass};
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
    direct: Direct,
    now: Now,
}

impl ColdMaker {
    pub(crate) fn new(host: HostIsa) -> Self {
        Self {
            emitter: Emitter::new(host),
            lifted: Lifted::default(),
            known: Known::default(),
            first_runs: FirstRuns::default(),
            direct: Direct::default(),
            now: Now::default(),
        }
    }
}

/// How often a thread has arrived at places, up to [`RUNS`] or a little more: by each pc's hash.
struct FirstRuns(Vec<u8>);

/// Places that are told apart, a power of two: large programs have some ten thousand blocks.
const PLACES: usize = 1 << 17;

/// Arrivals at a place before it is emitted: five sixths of those that a start-up comes by never are, then.
const RUNS: u8 = 8;

/// As how many arrivals one counts at which a block had to be lifted.
const LIFTED: u8 = 4;

impl Default for FirstRuns {
    fn default() -> Self {
        // Memory that costs nothing until it is used.
        Self(vec![0; PLACES])
    }
}

impl FirstRuns {
    fn at(&mut self, pc: GuestAddr) -> &mut u8 {
        &mut self.0[(pc.0 >> 1 ^ pc.0 >> 18) as usize % PLACES]
    }
}

/// Fixed code, and nothing else.
struct Fixed<'a>(GuestCode<'a>);

impl Fixed<'_> {
    /// Lifts the block at `pc`, if it is such code.
    fn lift_block(&self, lifted: &mut Lifted, pc: GuestAddr, options: &LiftOptions) -> bool {
        let Fixed(code) = self;
        let lifts = code.may_run(pc) && code.is_fixed();
        if lifts {
            code.lift_block(lifted, pc, options);
        }
        lifts && code.is_fixed()
    }
}

impl CodeReader for Fixed<'_> {
    fn read(&self, pc: GuestAddr, buf: &mut [u8; MAX_INSN]) -> usize {
        self.read_run(pc, buf)
    }

    fn read_run(&self, pc: GuestAddr, buf: &mut [u8]) -> usize {
        let read = self.0.read_run(pc, buf);
        if self.0.is_fixed() { read } else { 0 }
    }
}

/// Why no more blocks were carried out.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stopped {
    /// The next one is to be emitted, or something else is to be done first.
    Enough,
    /// It begins with what is not known there.
    Unknown,
    Fault(Fault),
}

/// What came of an arrival that nothing is emitted for.
pub(crate) enum FirstRun<'m> {
    /// Instructions were carried out, up to where RIP is now; the one there may have faulted.
    Ran(Option<Fault>),
    /// This block is to be interpreted.
    Lifted(Body<'m>),
}

impl Code {
    /// Whether the emitted block at `pc` may read the flags that it is entered with.
    pub(crate) fn flags_at(&self, map: &GuestMap, maker: &ColdMaker, pc: GuestAddr) -> FlagsAtEntry {
        let code = GuestCode::with(map, maker.known.still(map, self.epoch()));
        let takes = code.takes_deferred(pc, &self.lift_options());
        if takes { FlagsAtEntry::Dead } else { FlagsAtEntry::Wanted }
    }

    /// Carries out what is at RIP and behind it, or lifts it for the interpreter; none if it is to be emitted, as it has run often enough
    /// or somebody else has made code of it.
    pub(crate) fn first_run<'m>(
        &self,
        process: &Process,
        maker: &'m mut ColdMaker,
        cpu: &mut CpuState,
    ) -> Option<FirstRun<'m>> {
        if self.engine != Engine::Auto {
            return None;
        }
        let ColdMaker { lifted, known, first_runs, direct, now, .. } = maker;
        let epoch = self.epoch();
        let world = now.world(epoch, self);
        let code = Fixed(GuestCode::with(&process.mem, known.still(&process.mem, epoch)));
        let (blocks, stopped) = self.carry_out(process, cpu, &code, (first_runs, direct), (epoch, world));
        let pc = GuestAddr(cpu.rip);
        if stopped == Stopped::Unknown && code.lift_block(lifted, pc, &world.1.lift) {
            *first_runs.at(pc) += LIFTED;
            stats::add(&process.stats.first_runs, 1);
            stats::add(&process.stats.first_run_insns, lifted.region().guest_insns.into());
            return Some(FirstRun::Lifted(lifted.region().body()));
        }
        let fault = if let Stopped::Fault(fault) = stopped { Some(fault) } else { None };
        (blocks > 0).then_some(FirstRun::Ran(fault))
    }

    /// Carries out blocks of fixed code from RIP on; how many it were, and why no more.
    fn carry_out(
        &self,
        process: &Process,
        cpu: &mut CpuState,
        code: &Fixed<'_>,
        (first_runs, direct): (&mut FirstRuns, &mut Direct),
        (epoch, world): (u64, &World),
    ) -> (u64, Stopped) {
        let (saved, ordered) = (self.saved.get(), self.is_ordered());
        let (mut source, mut memory) = (Source::new(code, epoch), GuestMemory { ordered });
        let (mut blocks, mut insns) = (0, 0);
        let stopped = loop {
            let pc = GuestAddr(cpu.rip);
            let runs = first_runs.at(pc);
            // Only where there are several threads can somebody else have made code.
            let has_code = saved.is_some_and(|saved| saved.knows(pc, world)) || ordered && self.is_known(pc);
            if *runs >= RUNS || has_code {
                break Stopped::Enough;
            }
            let (end, done) = direct.run(&mut source, cpu, &mut memory, world.1.lift.block_insns);
            if end == End::Before && done == 0 {
                break Stopped::Unknown;
            }
            *runs += 1;
            (blocks, insns) = (blocks + 1, insns + u64::from(done));
            if let End::Fault(fault) = end {
                break Stopped::Fault(fault);
            }
            if process.wants_dispatcher(cpu, epoch) {
                break Stopped::Enough;
            }
        };
        stats::add(&process.stats.first_runs, blocks);
        stats::add(&process.stats.first_run_insns, insns);
        (blocks, stopped)
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
        let ColdMaker { emitter, lifted, known, now, .. } = maker;
        let epoch = self.epoch();
        let code = GuestCode::with(&process.mem, known.still(&process.mem, epoch)).of(entry);
        if !code.may_run(entry.pc) {
            return Some(Made::Unfetchable);
        }
        let world = now.world(epoch, self);
        if let Some(saved) = self.saved.get() {
            saved.arrive(entry.pc, world);
        }
        code.lift_block(lifted, entry.pc, &world.1.lift);
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

    #[test]
    fn countdowns_get_longer_while_they_tell_nothing() {
        let hot = 500;
        let longer = |period: u32| next_period(hot, period, false);
        assert_eq!(longer(PERIOD), 2 * PERIOD);
        assert_eq!((0..10).fold(PERIOD, |period, _| longer(period)), LONGEST * PERIOD);
        assert_eq!(next_period(hot, LONGEST * PERIOD, true), PERIOD);
    }
}
