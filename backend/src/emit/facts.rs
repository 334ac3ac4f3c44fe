//! What is known of guest registers where a block of a region begins.
//!
//! - Which **upper bits** of registers are zero, and which upper lanes of the vectors in host registers: what is known at the end of every block that leads there
//!   ([`Joins`]). A block that is led to from one that is emitted behind it, a loop's head for instance, knows nothing.
//! - Which **upper halves**, those in `CpuState`, are zero because the region has stored zeros there on every way ([`UpperHalves`]): a data flow
//!   over the region before it is emitted, loops included. So the VEX-encoded instructions of a function store them once.
//!
//! Nothing is known at the region's entry. No other block is entered from outside: whoever leaves comes back by an entry.

use super::Emitter;
use super::regs::Known;
use calque_ir::helper::HelperEffect;
use calque_ir::reg::RegKind;
use calque_ir::{Block, BlockId, Helper, Inst, Op, Reg, Region};

/// What the blocks emitted so far know at their ends, by the block they lead to.
#[derive(Default)]
pub(super) struct Joins {
    blocks: Vec<Join>,
}

#[derive(Clone, Copy)]
struct Join {
    known: Known,
    /// How many edges have been counted in.
    ways: u32,
}

impl Joins {
    pub(super) fn start(&mut self, blocks: usize) {
        self.blocks.clear();
        if blocks > 1 {
            self.blocks.resize(blocks, Join { known: Known::default(), ways: 0 });
        }
    }

    /// An edge leads to `to`, where this is known.
    fn add(&mut self, to: BlockId, known: &Known) {
        let Some(join) = self.blocks.get_mut(to.0 as usize) else { return };
        if join.ways == 0 {
            join.known = *known;
        } else {
            join.known.meet(known);
        }
        join.ways += 1;
    }

    /// What is known where block `n` begins, to which so many edges lead.
    fn at(&self, n: usize, ways_in: u32) -> Known {
        let join = self.blocks.get(n).filter(|join| n > 0 && join.ways == ways_in && ways_in > 0);
        join.map_or_else(Known::default, |join| join.known)
    }
}

/// Upper halves that are zero where each block begins, a bit each.
#[derive(Default)]
pub(super) struct UpperHalves {
    at: Vec<u16>,
    changes: Vec<Change>,
}

/// What a block does to them.
#[derive(Clone, Copy, Default)]
struct Change {
    cleared: u16,
    filled: u16,
}

impl Change {
    fn of(insts: &[Inst], is_zero: impl Fn(u32) -> bool) -> Self {
        let mut change = Change::default();
        for inst in insts {
            match inst.op {
                Op::Put => {
                    if let Some(RegKind::YmmHi(n)) = Reg::from_index(inst.aux as usize).map(Reg::kind) {
                        let (set, unset) = match is_zero(inst.args[0]) {
                            true => (&mut change.cleared, &mut change.filled),
                            false => (&mut change.filled, &mut change.cleared),
                        };
                        *set |= 1 << n;
                        *unset &= !(1 << n);
                    }
                }
                Op::Call if Helper::from_code(inst.aux).effect() != HelperEffect::Pure => {
                    change = Change { cleared: 0, filled: u16::MAX };
                }
                _ => {}
            }
        }
        change
    }
}

impl UpperHalves {
    /// Looks at a region; of a single block there is nothing to know.
    pub(super) fn start(&mut self, region: &Region) {
        let UpperHalves { at, changes } = self;
        at.clear();
        if region.blocks.len() < 2 {
            return;
        }
        let is_zero = |v: u32| is_zero_vector(&region.insts, &region.pool, v);
        let insts = |block: &Block| &region.insts[block.start as usize..block.end as usize];
        changes.clear();
        changes.extend(region.blocks.iter().map(|block| Change::of(insts(block), is_zero)));
        if changes.iter().all(|change| change.cleared == 0) {
            return;
        }
        // All, until a way is found on which they are not.
        at.resize(region.blocks.len(), u16::MAX);
        at[0] = 0;
        let mut again = true;
        while std::mem::take(&mut again) {
            for (n, change) in changes.iter().enumerate() {
                let behind = at[n] & !change.filled | change.cleared;
                for to in region.successors(BlockId(n as u32)) {
                    let there = &mut at[to.0 as usize];
                    let before = std::mem::replace(there, *there & behind);
                    again |= *there != before;
                }
            }
        }
    }

    fn at(&self, n: usize) -> u16 {
        self.at.get(n).copied().unwrap_or(0)
    }
}

/// Whether `v` is the vector constant 0.
pub(super) fn is_zero_vector(insts: &[Inst], pool: &[[u64; 2]], v: u32) -> bool {
    let def = &insts[v as usize];
    def.op == Op::Vconst && pool[def.args[0] as usize] == [0; 2]
}

impl Emitter {
    /// Block `n` begins; what is known of registers besides, if it is only come to from the last one, is known still.
    pub(super) fn begin_with_facts(&mut self, n: usize, is_only_behind_last: bool) {
        if !is_only_behind_last {
            self.regs.know(self.joins.at(n, self.ways_in[n]));
        }
        self.zeroed = self.upper_halves.at(n);
    }

    /// Block `n` has been emitted.
    pub(super) fn pass_facts_on(&mut self, region: &Region, n: usize) {
        for to in region.successors(BlockId(n as u32)) {
            // The next one finds them as they are, if nothing else leads there.
            if to.0 as usize > n && !(to.0 as usize == n + 1 && self.ways_in[n + 1] == 1) {
                self.joins.add(to, &self.regs.known_of_all());
            }
        }
    }
}
