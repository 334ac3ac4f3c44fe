//! Dead code: `put`s that nobody reads, pure operations that nobody uses. One backward walk, then compaction.

use super::liveness::{Liveness, RegSet};
use super::{Marks, Options};
use crate::helper::{Helper, HelperEffect};
use crate::op::{Effect, Op};
use crate::region::{BlockId, Exit, Inst, Region, Target, Value};
use crate::types::Type;

/// What a removed instruction becomes.
pub(super) const NOP: Inst = Inst { op: Op::Nop, ty: Type::None, aux: 0, args: [0; 4] };

/// Working memory of the pass.
#[derive(Default)]
pub(super) struct Dead {
    liveness: Liveness,
    used: Vec<bool>,
    renumbered: Vec<u32>,
}

impl Dead {
    /// Turns what is dead into `nop`.
    pub(super) fn run(&mut self, region: &mut Region, options: &Options<'_>) {
        self.liveness.solve(region, options);
        self.used.clear();
        self.used.resize(region.insts.len(), false);
        for id in region.block_ids() {
            let live = self.liveness.live_out(region, id, options);
            self.block(region, id, live, options);
        }
    }

    fn block(&mut self, region: &mut Region, id: BlockId, mut live: RegSet, options: &Options<'_>) {
        let block = &region.blocks[id.0 as usize];
        if let Some(v) = block.exit.value() {
            self.used[v.0 as usize] = true;
        }
        let (start, end) = (block.start as usize, block.end as usize);
        let mut mark_needed = false;
        for i in (start..end).rev() {
            let inst = &mut region.insts[i];
            match inst.op {
                Op::Insn if options.marks == Marks::FaultsOnly && !mark_needed => *inst = NOP,
                Op::Insn => mark_needed = false,
                Op::Put => {
                    let reg = RegSet::of_index(inst.aux as usize);
                    if live.intersects(reg) {
                        live = live - reg;
                    } else {
                        *inst = NOP;
                    }
                }
                _ if !self.used[i] && removable(inst) => *inst = NOP,
                Op::Get => live = live | RegSet::of_index(inst.aux as usize),
                op if op.may_stop() || op.raises() => {
                    mark_needed = true;
                    if options.precise.at(op) {
                        live = RegSet::ALL;
                    }
                }
                _ => {}
            }
            for v in region.insts[i].uses() {
                self.used[v.0 as usize] = true;
            }
        }
    }

    /// Removes the `nop`s and renumbers values.
    pub(super) fn compact(&mut self, region: &mut Region) {
        self.renumbered.clear();
        let mut kept = 0u32;
        for inst in &region.insts {
            self.renumbered.push(kept);
            kept += u32::from(inst.op != Op::Nop);
        }
        self.renumbered.push(kept);
        let renumber = |v: u32| self.renumbered.get(v as usize).copied().unwrap_or(v);
        region.insts.retain_mut(|inst| {
            let slots = inst.value_slots();
            for slot in 0..4 {
                if slots >> slot & 1 != 0 {
                    inst.args[slot] = renumber(inst.args[slot]); // `Value::NONE` stays itself
                }
            }
            inst.op != Op::Nop
        });
        for block in &mut region.blocks {
            (block.start, block.end) = (renumber(block.start), renumber(block.end));
            block.exit.map_value(|v| Value(renumber(v.0)));
        }
    }
}

/// Whether an instruction without uses may go (P1).
fn removable(inst: &Inst) -> bool {
    match inst.op.effect() {
        Effect::Pure | Effect::ReadsReg => true,
        Effect::Helper => Helper::from_code(inst.aux).effect() == HelperEffect::Pure,
        Effect::WritesReg | Effect::Raises | Effect::Faults | Effect::Memory | Effect::Marker => false,
    }
}

/// Turns a conditional exit whose targets agree into `goto`.
pub(super) fn merge_targets(exit: Exit) -> Exit {
    match exit {
        Exit::Branch { taken: Target::Pc(a), fallthrough: Target::Pc(b), .. } if a == b => Exit::Goto(Target::Pc(a)),
        Exit::Branch { taken: Target::Block(a), fallthrough: Target::Block(b), .. } if a == b => {
            Exit::Goto(Target::Block(a))
        }
        other => other,
    }
}
