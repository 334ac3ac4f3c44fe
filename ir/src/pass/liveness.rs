//! Which guest registers are live where.

use super::{Options, Precise};
use crate::addr::GuestAddr;
use crate::op::Op;
use crate::reg::Reg;
use crate::region::{BlockId, Exit, Region, Target};

/// A set of guest registers.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct RegSet(u64);

impl RegSet {
    /// No register.
    pub const EMPTY: RegSet = RegSet(0);
    /// Every register.
    pub const ALL: RegSet = RegSet(u64::MAX >> (64 - Reg::COUNT));

    /// The set of one register.
    pub fn of(reg: Reg) -> RegSet {
        Self::of_index(reg.index())
    }

    pub(super) fn of_index(index: usize) -> RegSet {
        RegSet(1 << index)
    }

    /// Whether `reg` is in the set.
    pub fn contains(self, reg: Reg) -> bool {
        self.0 >> reg.index() & 1 != 0
    }

    /// Whether the two sets share a register.
    pub fn intersects(self, other: RegSet) -> bool {
        self.0 & other.0 != 0
    }
}

impl std::ops::BitOr for RegSet {
    type Output = RegSet;

    fn bitor(self, other: RegSet) -> RegSet {
        RegSet(self.0 | other.0)
    }
}

impl std::ops::Sub for RegSet {
    type Output = RegSet;

    fn sub(self, other: RegSet) -> RegSet {
        RegSet(self.0 & !other.0)
    }
}

impl FromIterator<Reg> for RegSet {
    fn from_iter<I: IntoIterator<Item = Reg>>(regs: I) -> RegSet {
        regs.into_iter().fold(RegSet::EMPTY, |set, reg| set | RegSet::of(reg))
    }
}

/// What is live at a guest pc outside the region: the frontend scans the code there.
pub trait ExitLiveness {
    /// Registers that code from `pc` on may read before it writes them.
    fn live_out(&self, pc: GuestAddr) -> RegSet;
}

/// Nothing is known: everything is live.
pub struct AllLive;

impl ExitLiveness for AllLive {
    fn live_out(&self, _: GuestAddr) -> RegSet {
        RegSet::ALL
    }
}

/// MXCSR is read by every floating-point operation without a `get`.
fn always() -> RegSet {
    RegSet::of(Reg::MXCSR)
}

/// Deferred flags, which only unknown places may want (`deferred.rs`).
fn deferred() -> RegSet {
    Reg::DEFERRED.into_iter().collect()
}

/// A block's effect on liveness: `live_in = reads | (live_out - writes)`.
#[derive(Clone, Copy, Default)]
struct Summary {
    reads: RegSet,
    writes: RegSet,
}

/// Registers live at the start of each block.
#[derive(Default)]
pub(super) struct Liveness {
    live_in: Vec<RegSet>,
    summaries: Vec<Summary>,
}

impl Liveness {
    /// Solves the region's equations, counting every `get` as a read.
    pub(super) fn solve(&mut self, region: &Region, options: &Options<'_>) {
        self.live_in.clear();
        self.live_in.resize(region.blocks.len(), always());
        if !region.blocks.iter().any(|b| b.exit.targets().any(|t| matches!(t, Target::Block(_)))) {
            return; // nobody asks for a block's live_in
        }
        self.summaries.clear();
        self.summaries.extend(region.block_ids().map(|id| summary(region, id, options)));
        let mut changed = true;
        while changed {
            changed = false;
            for id in region.block_ids().rev() {
                let Summary { reads, writes } = self.summaries[id.0 as usize];
                let live = reads | (self.live_out(region, id, options) - writes);
                changed |= live != self.live_in[id.0 as usize];
                self.live_in[id.0 as usize] = live;
            }
        }
    }

    /// Registers live behind a block.
    pub(super) fn live_out(&self, region: &Region, id: BlockId, options: &Options<'_>) -> RegSet {
        // Where only unknown places look at deferred flags.
        let unseen = if options.precise == Precise::Yes { RegSet::default() } else { deferred() };
        let of_target = |target| match target {
            Target::Pc(pc) => options.exits.live_out(pc) - unseen,
            Target::Block(to) if to <= id && options.precise != Precise::No => RegSet::ALL,
            Target::Block(to) => self.live_in[to.0 as usize],
        };
        match region.blocks[id.0 as usize].exit {
            Exit::Goto(target) => always() | of_target(target),
            Exit::Branch { taken, fallthrough, .. } => always() | of_target(taken) | of_target(fallthrough),
            Exit::Call { target: target @ Target::Block(_), .. } => always() | of_target(target),
            Exit::Call { target: Target::Pc(pc), .. } => always() | (options.exits.live_out(pc) - unseen),
            Exit::Syscall { .. } | Exit::Fault { .. } => RegSet::ALL - unseen,
            _ => RegSet::ALL,
        }
    }
}

fn summary(region: &Region, id: BlockId, options: &Options<'_>) -> Summary {
    let mut s = Summary::default();
    for inst in region.block_insts(id).iter().rev() {
        match inst.op {
            Op::Get => s.reads = s.reads | RegSet::of_index(inst.aux as usize),
            Op::Put => {
                let reg = RegSet::of_index(inst.aux as usize);
                (s.reads, s.writes) = (s.reads - reg, s.writes | reg);
            }
            _ if options.precise.at(inst.op) => s.reads = RegSet::ALL,
            _ => {}
        }
    }
    s
}
