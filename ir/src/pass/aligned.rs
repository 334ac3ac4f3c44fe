//! Checks of alignment that an earlier one implies, across blocks.
//!
//! `movaps [rdi+rax], xmm0` in a loop that adds 16 to RAX: once the sum of the two registers is known to be a multiple of 16, it is so in
//! every round. A check is `fault_if` of `(base + (index << scale) + constant) & 15 != 0`. What is known is the value modulo 16 of such sums of
//! registers (*facts*); a forward dataflow analysis carries them from block to block, through additions of constants to the
//! registers. A check whose answer is known to be no goes.
//!
//! Invariant: a fact holds on every path to its place: nothing is known at the entry, and where paths meet only what all of them
//! know.

use super::dead::NOP;
use crate::op::Op;
use crate::reg::Reg;
use crate::region::{BlockId, Cc, Inst, Region, Value};
use crate::types::Type;

const BYTES: u64 = 16;

/// A sum of registers, the second shifted left by a scale.
type Sum = (Option<u16>, Option<(u16, u8)>);

/// Sums whose value modulo 16 is known, sorted.
type Facts = Vec<(Sum, u64)>;

/// What a value is: a register at the block's start and a constant.
type Symbol = Option<(u16, u64)>;

/// Removes the checks that cannot fail.
pub(super) fn run(region: &mut Region) {
    if region.blocks.len() < 2 || !region.insts.iter().any(|i| i.op == Op::FaultIf) {
        return;
    }
    let mut known: Vec<Option<Facts>> = vec![None; region.blocks.len()];
    known[0] = Some(Facts::new());
    let mut changed = true;
    while changed {
        changed = false;
        for id in region.block_ids() {
            let Some(facts) = known[id.0 as usize].clone() else { continue };
            let behind = Walk::new(facts).block(region, id, &mut Vec::new());
            for to in region.successors(id).map(|to| to.0 as usize) {
                let met = match &known[to] {
                    None => behind.clone(),
                    Some(facts) => facts.iter().filter(|fact| behind.contains(fact)).copied().collect(),
                };
                changed |= known[to].replace(met.clone()) != Some(met);
            }
        }
    }
    let mut implied = Vec::new();
    for id in region.block_ids() {
        if let Some(facts) = known[id.0 as usize].take() {
            Walk::new(facts).block(region, id, &mut implied);
        }
    }
    implied.into_iter().for_each(|i| region.insts[i] = NOP);
}

/// One walk through a block.
struct Walk {
    facts: Facts,
    /// What the registers hold.
    regs: [Symbol; Reg::COUNT],
    /// What the block's values are, from its first on.
    values: Vec<Symbol>,
    start: usize,
}

impl Walk {
    fn new(facts: Facts) -> Walk {
        Walk { facts, regs: std::array::from_fn(|reg| Some((reg as u16, 0))), values: Vec::new(), start: 0 }
    }

    /// The facts behind the block; adds the checks that they imply to `implied`.
    fn block(mut self, region: &Region, id: BlockId, implied: &mut Vec<usize>) -> Facts {
        let block = &region.blocks[id.0 as usize];
        self.start = block.start as usize;
        for at in block.start as usize..block.end as usize {
            let inst = &region.insts[at];
            let symbol = self.symbol(region, inst);
            self.values.push(symbol);
            if inst.op == Op::Put {
                self.regs[inst.aux as usize] =
                    if inst.ty == Type::I64 { self.value(Value(inst.args[0])) } else { None };
            }
            let Some((sum, wanted)) = self.check(region, inst) else { continue };
            match self.facts.iter().find(|(known, _)| *known == sum) {
                Some((_, residue)) if *residue == wanted => implied.push(at),
                Some(_) => {}
                None => self.facts.push((sum, wanted)),
            }
        }
        self.at_the_end()
    }

    /// The facts in terms of what the registers hold now.
    fn at_the_end(self) -> Facts {
        let now = |reg: u16| self.regs[reg as usize].filter(|(from, _)| *from == reg).map(|(_, added)| added);
        let moved = |&((base, index), residue): &(Sum, u64)| {
            let base_added = base.map_or(Some(0), now)?;
            let index_added = index.map_or(Some(0), |(reg, scale)| Some(now(reg)? << scale))?;
            let residue = residue.wrapping_add(base_added).wrapping_add(index_added) % BYTES;
            Some(((base, index), residue))
        };
        let mut facts: Facts = self.facts.iter().filter_map(moved).collect();
        facts.sort_unstable();
        facts
    }

    fn value(&self, v: Value) -> Symbol {
        *self.values.get((v.0 as usize).checked_sub(self.start)?)?
    }

    fn symbol(&self, region: &Region, inst: &Inst) -> Symbol {
        match inst.op {
            Op::Get if inst.ty == Type::I64 => self.regs[inst.aux as usize],
            Op::Iadd | Op::Isub if inst.ty == Type::I64 => {
                let (reg, added) = self.value(Value(inst.args[0]))?;
                let constant = constant(region, inst.args[1])?;
                let more = if inst.op == Op::Iadd { constant } else { constant.wrapping_neg() };
                Some((reg, added.wrapping_add(more)))
            }
            _ => None,
        }
    }

    /// If an instruction checks an alignment of 16: the sum, and what it has to be modulo 16.
    fn check(&self, region: &Region, inst: &Inst) -> Option<(Sum, u64)> {
        if inst.op != Op::FaultIf {
            return None;
        }
        let odd = &region.insts[inst.args[0] as usize];
        let compares = odd.op == Op::Icmp && odd.ty == Type::I64 && Cc::from_code(odd.aux) == Cc::NotEqual;
        if !compares || constant(region, odd.args[1]) != Some(0) {
            return None;
        }
        let low = &region.insts[odd.args[0] as usize];
        if low.op != Op::Band || low.ty != Type::I64 || constant(region, low.args[1]) != Some(BYTES - 1) {
            return None;
        }
        let (sum, added) = self.sum(region, Value(low.args[0]))?;
        Some((sum, added.wrapping_neg() % BYTES))
    }

    /// An address as registers and a constant.
    fn sum(&self, region: &Region, address: Value) -> Option<(Sum, u64)> {
        if let Some((reg, added)) = self.value(address) {
            return Some(((Some(reg), None), added));
        }
        let inst = &region.insts[address.0 as usize];
        let (x, y) = (Value(inst.args[0]), inst.args[1]);
        match inst.op {
            Op::Iadd => match constant(region, y) {
                Some(constant) => self.sum(region, x).map(|(sum, added)| (sum, added.wrapping_add(constant))),
                None => {
                    let (base, base_added) = self.value(x)?;
                    let (index, scale, index_added) = self.scaled(region, Value(y))?;
                    Some(((Some(base), Some((index, scale))), base_added.wrapping_add(index_added)))
                }
            },
            Op::Isub => {
                let constant = constant(region, y)?;
                self.sum(region, x).map(|(sum, added)| (sum, added.wrapping_sub(constant)))
            }
            _ => None,
        }
    }

    fn scaled(&self, region: &Region, index: Value) -> Option<(u16, u8, u64)> {
        if let Some((reg, added)) = self.value(index) {
            return Some((reg, 0, added));
        }
        let inst = &region.insts[index.0 as usize];
        let scale = constant(region, inst.args[1]).filter(|scale| inst.op == Op::Ishl && *scale < 4)?;
        let (reg, added) = self.value(Value(inst.args[0]))?;
        Some((reg, scale as u8, added << scale))
    }
}

fn constant(region: &Region, v: u32) -> Option<u64> {
    let inst = region.insts.get(v as usize)?;
    (inst.op == Op::Iconst).then(|| inst.imm())
}
