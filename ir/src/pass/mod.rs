//! Passes over a region: what is dead goes, what is known is folded.
//!
//! Ours because Cranelift's optimizer costs more than it gains here and reorders guest memory accesses. Every pass
//! is linear in the region's size and allocates nothing per instruction: cold code goes through here too.
//!
//! 1. `dead` (backward): `put`s of registers that nothing reads any more, flags first of all, and pure operations
//!    without a use. What is live behind an exit comes from [`ExitLiveness`].
//! 2. `fold` (forward): `get` after `put` becomes the value; constants, identities and conversions are folded;
//!    sums and shifts move into memory operands.
//! 3. `aligned`: checks of alignment that an earlier one implies.
//! 4. `dead` again, for what they left unused; then the list is compacted.
//!
//! # Invariants
//! - P1: no memory access, fault or fence is removed, duplicated or moved, but for a `fault_if` that never faults; `insn` marks
//!   keep their place.
//! - P2: at every exit, live registers hold what they held without the passes.
//! - P3: with [`Precise::Yes`], the same holds at every operation that may fault and at backward edges, for *all*
//!   registers: a signal handler sees the true state. Without it, registers that the guest itself would never
//!   look at may be stale there.

mod address;
mod aligned;
mod dead;
mod fold;
mod liveness;
mod simplify;

pub use liveness::{AllLive, ExitLiveness, RegSet};

use crate::region::Region;
use std::cell::Cell;

/// Whether somebody can look at the registers in the middle of a region (P3).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Precise {
    No,
    /// At backward edges only.
    Edges,
    Yes,
}

impl Precise {
    /// Whether the registers must be exact at this operation.
    fn at(self, op: crate::op::Op) -> bool {
        self == Precise::Yes && op.may_stop()
    }
}

/// Which `insn` marks survive.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Marks {
    /// All.
    Keep,
    /// Those of instructions that may fault: a step less per guest instruction for the interpreter.
    FaultsOnly,
}

/// What the passes may assume.
#[derive(Clone, Copy)]
pub struct Options<'a> {
    pub precise: Precise,
    pub marks: Marks,
    pub exits: &'a dyn ExitLiveness,
}

impl Default for Options<'_> {
    fn default() -> Self {
        Self { precise: Precise::No, marks: Marks::Keep, exits: &AllLive }
    }
}

/// The passes with their working memory: keep one per thread.
#[derive(Default)]
pub struct Optimizer {
    dead: dead::Dead,
    fold: fold::Fold,
}

impl Optimizer {
    /// Runs every pass.
    pub fn optimize(&mut self, region: &mut Region, options: &Options<'_>) {
        self.dead.run(region, options);
        self.fold.run(region);
        aligned::run(region);
        self.dead.run(region, options);
        self.dead.compact(region);
    }

    /// Without folding: for code whose guest registers have places of their own, where a value that is folded would be kept beside the register's.
    pub fn optimize_in_place(&mut self, region: &mut Region, options: &Options<'_>) {
        self.dead.run(region, options);
        aligned::run(region);
        self.dead.run(region, options);
        self.dead.compact(region);
    }

    /// Dead code only: for code that may run once.
    pub fn optimize_cold(&mut self, region: &mut Region, options: &Options<'_>) {
        self.dead.run(region, options);
        self.dead.compact(region);
    }
}

/// [`Optimizer::optimize`] with all registers live at exits, in the thread's own working memory.
pub fn optimize(region: &mut Region) {
    optimize_with(region, &Options::default());
}

/// [`Optimizer::optimize`] in the thread's own working memory.
pub fn optimize_with(region: &mut Region, options: &Options<'_>) {
    with_optimizer(|optimizer| optimizer.optimize(region, options));
}

/// [`Optimizer::optimize_in_place`] in the thread's own working memory.
pub fn optimize_in_place(region: &mut Region, options: &Options<'_>) {
    with_optimizer(|optimizer| optimizer.optimize_in_place(region, options));
}

thread_local!(static OPTIMIZER: Cell<Option<Box<Optimizer>>> = const { Cell::new(None) });

/// Takes it out meanwhile: who is killed here, in memory that others go on with, leaves nothing half done.
fn with_optimizer(action: impl FnOnce(&mut Optimizer)) {
    let mut optimizer = OPTIMIZER.take().unwrap_or_default();
    action(&mut optimizer);
    OPTIMIZER.set(Some(optimizer));
}
