//! Profiling: what counts executed guest instructions.
//!
//! A `count` stands at the end of a block, behind everything that may fault. Where a fault leaves in the middle, the runtime
//! learns which count was not reached: from the leave word of faults that the code finds itself, and for host faults from
//! the list of source locations.

use super::Lowering;
use super::regs::STATE;
use calque_ir::{CpuState, Inst, Op};
use cranelift_codegen::ir::{InstBuilder, types};
use std::mem::offset_of;

impl Lowering<'_> {
    /// `Op::Count`.
    pub(super) fn count(&mut self, inst: &Inst) {
        let (n, counter, _) = inst.counted();
        let counters = self.load_state(types::I64, offset_of!(CpuState, rt.counters));
        let at = (8 * counter) as i32;
        let old = self.b.ins().load(types::I64, STATE, counters, at);
        let one = self.iconst(types::I64, 1);
        let new = self.b.ins().iadd(old, one);
        self.b.ins().store(STATE, new, counters, at);
        let sum = offset_of!(CpuState, rt.insns);
        let old = self.load_state(types::I64, sum);
        let n = self.iconst(types::I64, i64::from(n));
        let new = self.b.ins().iadd(old, n);
        self.store_state(new, sum);
    }

    /// The counter of the next count in this block; 0 if nothing is counted here.
    pub(super) fn counter_ahead(&self) -> u32 {
        let end = self.region.blocks[self.block.0 as usize].end as usize;
        let rest = self.region.insts.get(self.at..end).unwrap_or_default();
        rest.iter().find(|inst| inst.op == Op::Count).map_or(0, |inst| inst.counted().1)
    }
}
