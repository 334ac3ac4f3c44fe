//! Exact places in an execution of the agent's: how much has run, and how often a pc has been come by.
//!
//! A *place* is a pc and the number of arrivals there since the run began. No two moments of a run are the same place, so whoever
//! follows needs a breakpoint and a count, and no guess.
//!
//! | engine | counts | places |
//! |---|---|---|
//! | identical translation | branches, each by its pc (`identical::Counted`) | in front of branches |
//! | interpreter, compiled regions | instructions, by block (`Op::Count`) | where code can be left |
//! | emitted code | nothing | none |
//!
//! A block that contains a pc has come by it as often as it has run: blocks have no way out in the middle but faults, which begin a
//! new run.

use crate::arch::Counted;
use crate::profile::{Blocks, Counters, Place};
use crate::thread::Thread;
use calque_ir::Region;
use hashbrown::HashMap;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// What a budget counts up to: the sign of `cpu.rt.insns` (`calque_backend::Budget`).
const SPENT: u64 = 1 << 63;
/// A budget that nothing uses up.
pub(crate) const UNLIMITED: u64 = 1 << 62;

/// Blocks that are counted, once a meter needs them.
static BLOCKS: Mutex<Option<Tally>> = Mutex::new(None);

#[derive(Default)]
struct Tally {
    blocks: Blocks,
    /// Numbers of the blocks that contain a pc, for the first `indexed` blocks.
    by_pc: HashMap<u64, Vec<u32>>,
    indexed: usize,
}

fn tally() -> MutexGuard<'static, Option<Tally>> {
    BLOCKS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether there are any: asked for each translation, without a lock.
static COUNTING: AtomicBool = AtomicBool::new(false);

/// Gives each `count` of a region that has just been lifted its counter.
#[inline]
pub(super) fn lifted(region: &mut Region) {
    if COUNTING.load(Relaxed)
        && let Some(tally) = tally().as_mut()
    {
        tally.blocks.assign(region, &mut |_| Place::Memory);
    }
}

/// What counts.
enum Kind {
    Units,
    Blocks(Counters),
    Nothing,
}

/// The meter of an agent's thread.
pub(super) struct Meter {
    kind: Kind,
    given: u64,
}

impl Meter {
    /// The meter for what `thread` runs on: before it runs anything.
    pub(super) fn new(thread: &mut Thread) -> Meter {
        let code = &thread.process.code;
        let kind = if let Some(units) = &code.units {
            units.count(Counted::Branches);
            thread.exec.units.counts(Counted::Branches);
            Kind::Units
        } else if code.emits {
            Kind::Nothing
        } else {
            match Counters::new() {
                Ok(counters) => {
                    *tally() = Some(Tally::default());
                    COUNTING.store(true, Relaxed);
                    thread.cpu.rt.counters = counters.address();
                    code.count_blocks(true);
                    Kind::Blocks(counters)
                }
                Err(_) => Kind::Nothing,
            }
        };
        Meter { kind, given: UNLIMITED }
    }

    /// Whether there are places at all.
    pub(super) fn counts(&self) -> bool {
        !matches!(self.kind, Kind::Nothing)
    }

    /// Whether places are in front of branches only.
    pub(super) fn counts_branches(&self) -> bool {
        matches!(self.kind, Kind::Units)
    }

    /// From now on single instructions are counted where branches were.
    pub(super) fn count_instructions(&self, thread: &mut Thread) {
        if let Some(units) = thread.process.code.units.as_ref().filter(|units| units.counted() != Counted::Instructions)
        {
            units.count(Counted::Instructions);
            thread.exec.units.counts(Counted::Instructions);
        }
    }

    /// Begins a run: nothing has been executed, and so much may be.
    pub(super) fn begin(&mut self, thread: &mut Thread, budget: u64) {
        self.given = budget.min(UNLIMITED);
        match &self.kind {
            Kind::Units => thread.exec.units.clear_counts(&thread.process.code),
            Kind::Blocks(counters) => counters.clear(),
            Kind::Nothing => {}
        }
        self.set(thread, self.given);
    }

    /// Lets so much more run.
    pub(super) fn allow(&mut self, thread: &mut Thread, more: u64) {
        let used = self.used(thread);
        self.given = used.saturating_add(more).min(UNLIMITED);
        self.set(thread, self.given - used);
    }

    fn set(&self, thread: &mut Thread, left: u64) {
        match self.kind {
            Kind::Units => thread.exec.units.set_budget(left),
            Kind::Blocks(_) => thread.cpu.rt.insns = SPENT - left,
            Kind::Nothing => {}
        }
    }

    /// How much has run since the run began.
    pub(super) fn used(&self, thread: &Thread) -> u64 {
        match self.kind {
            Kind::Units => self.given - thread.exec.units.budget(),
            Kind::Blocks(_) => thread.cpu.rt.insns.wrapping_sub(SPENT - self.given),
            Kind::Nothing => 0,
        }
    }

    /// Whether the budget is used up.
    pub(super) fn is_spent(&self, thread: &Thread) -> bool {
        self.counts() && self.used(thread) >= self.given
    }

    /// Whether RIP can be where a run stops.
    pub(super) fn is_place(&self, thread: &Thread) -> bool {
        !self.counts_branches() || self.executed(thread).is_some()
    }

    /// How often the instruction at RIP has been executed in this run; `None` if that is no place.
    pub(super) fn executed(&self, thread: &Thread) -> Option<u64> {
        let pc = thread.cpu.rip;
        match &self.kind {
            Kind::Units => thread.exec.units.executed(&thread.process.code, pc),
            Kind::Blocks(counters) => {
                let mut tally = tally();
                let Tally { blocks, by_pc, indexed } = tally.as_mut()?;
                for (number, block) in blocks.iter().skip(*indexed) {
                    block.insns().for_each(|(at, _)| by_pc.entry(at).or_default().push(number));
                    *indexed += 1;
                }
                // Counter 0 stands for many.
                let whole = blocks.used() < Counters::MOST && !crate::crash::repeats(calque_ir::GuestAddr(pc));
                let numbers = by_pc.get(&pc).map_or(&[][..], Vec::as_slice);
                whole.then(|| numbers.iter().map(|&n| counters.get(n as usize)).sum())
            }
            Kind::Nothing => None,
        }
    }

    /// The thread goes on without a controller.
    pub(super) fn end(&mut self, thread: &mut Thread) {
        let code = &thread.process.code;
        match &mut self.kind {
            Kind::Units => {
                code.units.iter().for_each(|units| units.count(Counted::Nothing));
                thread.exec.units.counts(Counted::Nothing);
            }
            Kind::Blocks(_) => {
                code.count_blocks(false);
                *tally() = None;
                COUNTING.store(false, Relaxed);
                thread.cpu.rt.insns = 0;
                thread.cpu.rt.counters = 0;
            }
            Kind::Nothing => {}
        }
        self.kind = Kind::Nothing;
    }
}
