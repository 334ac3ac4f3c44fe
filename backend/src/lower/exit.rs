//! Ways out of a region: through a cell to another region, to the dispatcher with a reason, to a fault; and polls.
//!
//! All of them store the dirty registers first. What is rarely taken lies in cold blocks behind the region's code.

use super::Lowering;
use super::regs::RegSet;
use crate::abi::{self, LEAVE_CELL, Leave};
use crate::compile::ExitSite;
use calque_ir::{BlockId, CpuState, Exit, FaultKind, GuestAddr, Inst, Target, Value as IrValue};
use cranelift_codegen::ir::{self as clif, InstBuilder, condcodes::IntCC, types};
use std::mem::offset_of;

impl Lowering<'_> {
    /// The exit of the current block.
    pub(super) fn exit(&mut self, exit: Exit) {
        match exit {
            Exit::Goto(target) | Exit::Call { target, .. } => self.goto(target),
            Exit::Branch { cond, taken, fallthrough } => self.branch(cond, taken, fallthrough),
            Exit::Indirect(v) | Exit::Return(v) | Exit::CallIndirect { target: v, .. } => self.indirect(v),
            Exit::Syscall { next } => self.leave_at(Leave::Syscall as u64, next),
            Exit::Fault { kind, pc } => self.leave_at(abi::leave_fault(kind), pc),
            Exit::None => unreachable!("{} has no exit", self.block),
        }
    }

    fn goto(&mut self, target: Target) {
        match target {
            Target::Block(to) => {
                self.poll_edge(to);
                let to = self.blocks[to.0 as usize];
                self.b.ins().jump(to, &[]);
            }
            Target::Pc(pc) => self.link(pc),
        }
    }

    fn branch(&mut self, cond: IrValue, taken: Target, fallthrough: Target) {
        let cond = self.value(cond);
        let then = self.edge(taken);
        let otherwise = self.edge(fallthrough);
        self.b.ins().brif(cond, then.block, &[], otherwise.block, &[]);
        for (edge, target) in [(then, taken), (otherwise, fallthrough)] {
            if edge.is_new {
                self.b.switch_to_block(edge.block);
                self.goto(target);
            }
        }
    }

    /// The CLIF block where an edge arrives: the target itself if nothing has to be done on the way.
    fn edge(&mut self, target: Target) -> Edge {
        match target {
            Target::Block(to) if to > self.block => Edge { block: self.blocks[to.0 as usize], is_new: false },
            _ => Edge { block: self.b.create_block(), is_new: true },
        }
    }

    /// A direct exit through a cell of its own.
    fn link(&mut self, target: GuestAddr) {
        let cell = self.options.first_cell + self.out.exits.len() as u32;
        self.out.exits.push(ExitSite { cell, target });
        self.store_dirty(RegSet::ALL);
        let word = self.iconst(types::I64, i64::from(cell));
        self.jump_through(cell, word);
    }

    /// Back to the dispatcher, which goes on at `pc`.
    fn leave_at(&mut self, word: u64, pc: GuestAddr) {
        self.store_dirty(RegSet::ALL);
        self.leave_stored(word, pc);
    }

    /// The same, with what the guest needs in `CpuState` already.
    fn leave_stored(&mut self, word: u64, pc: GuestAddr) {
        let pc = self.iconst(types::I64, pc.0 as i64);
        self.store_state(pc, offset_of!(CpuState, rip));
        let word = self.iconst(types::I64, word as i64);
        self.jump_through(LEAVE_CELL, word);
    }

    fn jump_through(&mut self, cell: u32, word: clif::Value) {
        let cells = self.load_state(types::I64, offset_of!(CpuState, rt.cells));
        let code = self.b.ins().load(types::I64, super::regs::STATE, cells, (8 * cell) as i32);
        let (tail, cpu) = (self.tail, self.cpu);
        self.b.ins().return_call_indirect(tail, code, &[cpu, word]);
    }

    /// A jump to a computed pc: straight to its code if the thread's jump cache knows it.
    fn indirect(&mut self, pc: IrValue) {
        let pc = self.value(pc);
        let cache = self.load_state(types::I64, offset_of!(CpuState, rt.jump_cache));
        let mask = self.iconst(types::I64, abi::JUMP_CACHE_ENTRIES as i64 - 1);
        let slot = self.b.ins().band(pc, mask);
        let log2 = self.iconst(types::I64, 4);
        let at = self.b.ins().ishl(slot, log2);
        let entry = self.b.ins().iadd(cache, at);
        let known = self.b.ins().load(types::I64, super::regs::STATE, entry, 0);
        let hit = self.b.ins().icmp(IntCC::Equal, known, pc);
        let (to, miss) = (self.b.create_block(), self.b.create_block());
        self.b.set_cold_block(miss);
        self.store_dirty(RegSet::ALL);
        self.b.ins().brif(hit, to, &[], miss, &[]);

        self.b.switch_to_block(to);
        let code = self.b.ins().load(types::I64, super::regs::STATE, entry, 8);
        let (tail, cpu) = (self.tail, self.cpu);
        self.b.ins().return_call_indirect(tail, code, &[cpu, pc]);

        self.b.switch_to_block(miss);
        self.store_state(pc, offset_of!(CpuState, rip));
        let word = self.iconst(types::I64, Leave::Indirect as i64);
        self.jump_through(LEAVE_CELL, word);
    }

    /// Leaves at the region's entry if the thread is wanted elsewhere. Nothing is loaded yet.
    pub(super) fn poll_entry(&mut self) {
        self.poll(RegSet::default(), self.region.pc());
    }

    /// Polls on an edge that closes a loop.
    fn poll_edge(&mut self, to: BlockId) {
        if to <= self.block {
            self.poll(self.sets.wanted_at(to), self.region.blocks[to.0 as usize].pc);
        }
    }

    fn poll(&mut self, wanted: RegSet, pc: GuestAddr) {
        let interrupt = self.load_state(types::I32, offset_of!(CpuState, rt.interrupt));
        let interrupted = self.b.ins().icmp_imm_u(IntCC::NotEqual, interrupt, 0);
        self.cold_exit(interrupted, Leave::Interrupt as u64, wanted, pc);
    }

    /// `Op::FaultIf`.
    pub(super) fn fault_if(&mut self, inst: &Inst) {
        let cond = self.value(IrValue(inst.args[0]));
        self.fault_unless_zero(cond, FaultKind::from_code(inst.aux));
    }

    /// Raises a fault of the current instruction if `cond` is not 0.
    pub(super) fn fault_unless_zero(&mut self, cond: clif::Value, kind: FaultKind) {
        self.cold_exit(cond, abi::leave_fault(kind), RegSet::ALL, self.pc);
    }

    /// Leaves with `word` at `pc` if `cond` is not 0; the guest wants the `wanted` registers there.
    fn cold_exit(&mut self, cond: clif::Value, word: u64, wanted: RegSet, pc: GuestAddr) {
        let (out, on) = (self.b.create_block(), self.b.create_block());
        self.b.set_cold_block(out);
        self.b.ins().brif(cond, out, &[], on, &[]);
        self.b.switch_to_block(out);
        self.store_dirty(wanted);
        self.leave_stored(word, pc);
        self.b.switch_to_block(on);
    }
}

/// Where one way of a branch arrives.
#[derive(Clone, Copy)]
struct Edge {
    block: clif::Block,
    is_new: bool,
}
