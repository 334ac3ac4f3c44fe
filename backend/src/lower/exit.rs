//! Ways out of a region: through a cell to another region, to the dispatcher with a reason, to a fault; and polls.
//!
//! All of them store the dirty registers first, but for those that they pass on in host registers. What is rarely taken lies in cold
//! blocks behind the region's code.

use super::Lowering;
use super::regs::{DEFERRED, PASSED, RegSet, STATE, STATUS};
use crate::abi::{self, LEAVE_CELL, LEAVE_PASSING_CELL, Leave, RESOLVE_CELL};
use crate::compile::{Budget, ExitSite};
use crate::jump_cache;
use calque_ir::{BlockId, CpuState, Exit, FaultKind, GuestAddr, Inst, Target, Value as IrValue};
use cranelift_codegen::ir::{self as clif, AbiParam, BlockCall, InstBuilder, Signature, condcodes::IntCC, types};
use cranelift_codegen::isa::CallConv;
use std::mem::offset_of;

/// Most predicted places that a computed one is compared with in turn: a jump through a table takes ten instructions.
const MOST_COMPARED: usize = 4;

/// How the places that a switch leads to become places in a table: by distance from the lowest, in steps small enough to tell them apart.
pub(super) struct Slots {
    pub(super) base: u64,
    shift: u32,
    count: usize,
}

impl Slots {
    /// Most slots for each place, and the longest step in bits.
    const SPARSE: usize = 16;
    const LONGEST: u32 = 12;

    /// The longest step that serves, for the shortest table; `None` if even that would be too long.
    fn of(places: &[u64]) -> Option<Slots> {
        let (base, last) = (*places.iter().min()?, *places.iter().max()?);
        (0..=Self::LONGEST).rev().find_map(|shift| {
            let slots = Slots { base, shift, count: usize::try_from((last - base) >> shift).ok()?.checked_add(1)? };
            (slots.count <= places.len() * Self::SPARSE && slots.tell_apart(places)).then_some(slots)
        })
    }

    fn tell_apart(&self, places: &[u64]) -> bool {
        let mut taken = vec![false; self.count];
        places.iter().all(|pc| !std::mem::replace(&mut taken[self.of_pc(*pc)], true))
    }

    fn of_pc(&self, pc: u64) -> usize {
        ((pc - self.base) >> self.shift) as usize
    }
}

impl Lowering<'_> {
    /// The exit of the current block, of which the `late` instructions are still to be lowered.
    pub(super) fn exit(&mut self, exit: Exit, late: &[u32]) {
        match exit {
            Exit::Goto(target) | Exit::Call { target, .. } => self.goto(target),
            Exit::Branch { cond, taken, fallthrough } => self.branch(cond, taken, fallthrough),
            Exit::Indirect(v) | Exit::Return(v) | Exit::CallIndirect { target: v, .. } => self.indirect(v, late),
            Exit::Syscall { next } => self.leave_at(Leave::Syscall as u64, next),
            Exit::Fault { kind, pc } => self.leave_at(abi::leave_fault(kind, 0), pc),
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
        self.poll_branch(cond, taken, fallthrough);
        if matches!((taken, fallthrough), (Target::Pc(_), Target::Pc(_))) {
            // Both ways store the same.
            let linked = self.linked();
            self.store_to_leave(linked);
            self.regs.dirty = self.regs.dirty.without(linked).without(DEFERRED);
        }
        let then = self.edge(taken);
        let otherwise = self.edge(fallthrough);
        self.b.ins().brif(cond, then, &[], otherwise, &[]);
        for (edge, target) in [(then, taken), (otherwise, fallthrough)] {
            if let Target::Pc(pc) = target {
                self.b.switch_to_block(edge);
                self.link(pc);
            }
        }
    }

    /// The CLIF block where an edge arrives: a new one if it leaves the region.
    fn edge(&mut self, target: Target) -> clif::Block {
        match target {
            Target::Block(to) => self.blocks[to.0 as usize],
            Target::Pc(_) => self.b.create_block(),
        }
    }

    /// What an exit to known code stores.
    fn linked(&self) -> RegSet {
        self.sets.seen().without(PASSED)
    }

    /// A direct exit through a cell of its own.
    fn link(&mut self, target: GuestAddr) {
        let cell = self.options.first_cell + self.out.exits.len() as u32;
        self.out.exits.push(ExitSite { cell, target, stub: 0 });
        self.store_to_leave(self.linked());
        let code = self.load_cell(cell);
        self.jump_to(code);
    }

    /// Back to the dispatcher, which goes on at `pc`.
    fn leave_at(&mut self, word: u64, pc: GuestAddr) {
        self.store_to_leave(self.sets.seen());
        let pc = self.iconst(types::I64, pc.0 as i64);
        self.leave_stored(word, pc);
    }

    /// The same, with what the guest needs in `CpuState` already. All such exits of a region share their last steps.
    fn leave_stored(&mut self, word: u64, pc: clif::Value) {
        let word = self.iconst(types::I64, word as i64);
        let block = *self.leave.get_or_insert_with(|| {
            let block = self.b.create_block();
            self.b.set_cold_block(block);
            self.b.append_block_param(block, types::I64);
            self.b.append_block_param(block, types::I64);
            block
        });
        self.b.ins().jump(block, &[pc.into(), word.into()]);
    }

    /// The shared end of all exits to the dispatcher, if there are any.
    pub(super) fn finish_leaves(&mut self) {
        let Some(block) = self.leave else { return };
        self.b.switch_to_block(block);
        let &[pc, word] = self.b.block_params(block) else { unreachable!("two parameters were appended") };
        self.store_state(pc, offset_of!(CpuState, rip));
        self.store_state(word, offset_of!(CpuState, rt.exit_detail));
        let code = self.load_cell(LEAVE_CELL);
        // The stub looks at no guest register: they are all in `CpuState`.
        let mut signature = Signature::new(CallConv::Tail);
        signature.params = vec![AbiParam::new(types::I64)];
        let (signature, cpu) = (self.b.import_signature(signature), self.cpu);
        self.b.ins().return_call_indirect(signature, code, &[cpu]);
    }

    fn load_cell(&mut self, cell: u32) -> clif::Value {
        let cells = self.load_state(types::I64, offset_of!(CpuState, rt.cells));
        self.b.ins().load(types::I64, STATE, cells, (8 * cell) as i32)
    }

    /// On to the region at `code`.
    fn jump_to(&mut self, code: clif::Value) {
        let (tail, arguments) = (self.tail, self.arguments());
        self.b.ins().return_call_indirect(tail, code, &arguments);
    }

    /// A jump to a computed pc: straight to its code if the thread's jump cache knows it and it wants no flags. Otherwise
    /// `abi::resolve` goes on, for which they are made ready.
    fn indirect(&mut self, pc: IrValue, late: &[u32]) {
        let pc = self.value(pc);
        if self.region.predicted_of(self.block).next().is_some() {
            self.predicted(pc);
        }
        let entry = self.jump_entry(pc);
        let known = self.b.ins().load(types::I64, STATE, entry, 0);
        let hit = self.b.ins().icmp(IntCC::Equal, known, pc);
        let (to, miss) = (self.b.create_block(), self.b.create_block());
        self.b.set_cold_block(miss);
        // Where nobody wants flags; in precise mode somebody may before they are overwritten.
        let seen = if self.is_precise() { RegSet::ALL } else { RegSet::ALL.without(STATUS).without(DEFERRED) };
        self.store_dirty(seen.without(PASSED));
        self.b.ins().brif(hit, to, &[], miss, &[]);

        self.b.switch_to_block(to);
        let code = self.b.ins().load(types::I64, STATE, entry, 8);
        self.jump_to(code);

        self.b.switch_to_block(miss);
        late.iter().for_each(|&at| self.lower_inst(at));
        self.store_dirty(STATUS.union(DEFERRED));
        self.store_state(pc, offset_of!(CpuState, rip));
        let jump = self.iconst(types::I64, self.pc.0 as i64);
        self.store_state(jump, offset_of!(CpuState, rt.jump));
        let code = self.load_cell(RESOLVE_CELL);
        self.jump_to(code);
    }

    /// Goes to the predicted block whose pc is the computed one, if there is one and nothing else is to be done first. Otherwise the probe
    /// finds a region, which polls.
    fn predicted(&mut self, pc: clif::Value) {
        let (region, from) = (self.region, self.block);
        let probe = self.b.create_block();
        if region.predicted_of(from).any(|to| self.loops.closes(from, to)) {
            let interrupted = self.interrupted();
            self.branch_or(interrupted, probe);
        }
        match self.slots(from) {
            Some(slots) => self.switch(pc, slots, probe),
            None => {
                for to in region.predicted_of(from) {
                    let expected = self.pc_value(region.blocks[to.0 as usize].pc);
                    let hit = self.b.ins().icmp(IntCC::Equal, pc, expected);
                    self.branch_or(hit, self.blocks[to.0 as usize]);
                }
                self.b.ins().jump(probe, &[]);
            }
        }
        self.b.switch_to_block(probe);
    }

    /// The table of the block's exit, if it is a switch.
    pub(super) fn slots(&self, block: BlockId) -> Option<Slots> {
        let places: Vec<u64> =
            self.region.predicted_of(block).map(|to| self.region.blocks[to.0 as usize].pc.0).collect();
        if places.len() > MOST_COMPARED { Slots::of(&places) } else { None }
    }

    /// Goes to that of the predicted blocks whose pc is the computed one, or else to `probe`.
    fn switch(&mut self, pc: clif::Value, slots: Slots, probe: clif::Block) {
        let cases = self.region.predicted_of(self.block).map(|to| {
            let distance = self.region.blocks[to.0 as usize].pc.0 - slots.base;
            (distance, self.blocks[to.0 as usize], self.b.create_block())
        });
        let cases: Vec<(u64, clif::Block, clif::Block)> = cases.collect();
        let mut places = vec![probe; slots.count];
        for (distance, _, compare) in &cases {
            places[slots.of_pc(slots.base + distance)] = *compare;
        }
        // A call of a block is a list of its own: it grows with the block's parameters.
        let lists = &mut self.b.func.dfg.value_lists;
        let calls: Vec<_> = places.iter().map(|place| BlockCall::new(*place, [], lists)).collect();
        let table = clif::JumpTableData::new(BlockCall::new(probe, [], lists), &calls);
        let table = self.b.create_jump_table(table);
        let base = self.pc_value(GuestAddr(slots.base));
        let distance = self.b.ins().isub(pc, base);
        let slot = self.b.ins().ushr_imm_u(distance, i64::from(slots.shift));
        // What is lost here is compared there.
        let slot = self.b.ins().ireduce(types::I32, slot);
        self.b.ins().br_table(slot, table);
        for (expected, to, compare) in cases {
            self.b.switch_to_block(compare);
            let hit = self.b.ins().icmp_imm_u(IntCC::Equal, distance, expected as i64);
            self.b.ins().brif(hit, to, &[], probe, &[]);
        }
    }

    /// Goes to `block` if `cond` is not 0, and on otherwise.
    fn branch_or(&mut self, cond: clif::Value, block: clif::Block) {
        let on = self.b.create_block();
        self.b.ins().brif(cond, block, &[], on, &[]);
        self.b.switch_to_block(on);
    }

    /// The jump cache's entry for `pc` (`jump_cache::slot`). Cranelift is to have it in a register, not to sum it up at each access.
    fn jump_entry(&mut self, pc: clif::Value) -> clif::Value {
        const LOG2: i64 = jump_cache::ENTRY_BYTES.ilog2() as i64;
        let cache = self.load_state(types::I64, offset_of!(CpuState, rt.jump_cache));
        let page = self.b.ins().ushr_imm_u(pc, i64::from(jump_cache::SHIFT) - LOG2);
        let low = self.b.ins().ishl_imm_u(pc, LOG2);
        let mixed = self.b.ins().bxor(page, low);
        let offset = self.b.ins().band_imm_u(mixed, (jump_cache::ENTRIES as i64 - 1) << LOG2);
        let entry = self.b.ins().iadd(cache, offset);
        self.opaque(entry)
    }

    /// Leaves at the region's entry if the thread is wanted elsewhere. Nothing is loaded yet, and the arguments are as they came.
    pub(super) fn poll_entry(&mut self) {
        let interrupted = self.interrupted();
        let (out, on) = self.branch_off(interrupted);
        self.b.switch_to_block(out);
        let pc = self.iconst(types::I64, self.region.pc().0 as i64);
        self.store_state(pc, offset_of!(CpuState, rip));
        let word = self.iconst(types::I64, Leave::Interrupt as i64);
        self.store_state(word, offset_of!(CpuState, rt.exit_detail));
        let code = self.load_cell(LEAVE_PASSING_CELL);
        self.jump_to(code);
        self.b.switch_to_block(on);
    }

    /// Polls before a branch that may close a loop. Before, not on the edge: a block of its own on the edge would cost the
    /// loop a second jump. Which way the guest goes is looked at again if it is interrupted.
    fn poll_branch(&mut self, cond: clif::Value, taken: Target, fallthrough: Target) {
        let closes = |target| matches!(target, Target::Block(to) if self.loops.closes(self.block, to));
        if !closes(taken) && !closes(fallthrough) {
            return;
        }
        let interrupted = self.interrupted();
        let (out, on) = self.branch_off(interrupted);
        self.b.switch_to_block(out);
        let [taken, fallthrough] = [taken, fallthrough].map(|target| self.resume_at(target));
        self.store_to_leave(taken.1.union(fallthrough.1));
        let [taken, fallthrough] = [taken, fallthrough].map(|(pc, _)| self.iconst(types::I64, pc.0 as i64));
        let pc = self.b.ins().select(cond, taken, fallthrough);
        self.leave_stored(Leave::Interrupt as u64, pc);
        self.b.switch_to_block(on);
    }

    /// Guest pc of a target, and the registers that are wanted there.
    fn resume_at(&self, target: Target) -> (GuestAddr, RegSet) {
        match target {
            Target::Block(to) => (self.region.blocks[to.0 as usize].pc, self.sets.wanted_at(to)),
            Target::Pc(pc) => (pc, RegSet::ALL),
        }
    }

    /// Polls before a jump that closes a loop.
    fn poll_edge(&mut self, to: BlockId) {
        if self.loops.closes(self.block, to) {
            self.poll(self.sets.wanted_at(to), self.region.blocks[to.0 as usize].pc);
        }
    }

    fn poll(&mut self, wanted: RegSet, pc: GuestAddr) {
        let interrupted = self.interrupted();
        self.cold_exit(interrupted, Leave::Interrupt as u64, wanted, pc);
    }

    /// Whether the thread is asked to leave generated code.
    fn interrupted(&mut self) -> clif::Value {
        let interrupt = self.load_state(types::I32, offset_of!(CpuState, rt.interrupt));
        let interrupted = self.b.ins().icmp_imm_u(IntCC::NotEqual, interrupt, 0);
        if self.options.budget == Budget::None {
            return interrupted;
        }
        let insns = self.load_state(types::I64, offset_of!(CpuState, rt.insns));
        let spent = self.b.ins().icmp_imm_s(IntCC::SignedLessThan, insns, 0);
        self.b.ins().bor(interrupted, spent)
    }

    /// `Op::FaultIf`.
    pub(super) fn fault_if(&mut self, inst: &Inst) {
        let cond = self.value(IrValue(inst.args[0]));
        self.fault_unless_zero(cond, FaultKind::from_code(inst.aux));
    }

    /// Raises a fault of the current instruction if `cond` is not 0.
    pub(super) fn fault_unless_zero(&mut self, cond: clif::Value, kind: FaultKind) {
        self.cold_exit(cond, abi::leave_fault(kind, self.counter_ahead()), self.sets.seen(), self.pc);
    }

    /// Leaves with `word` at `pc` if `cond` is not 0; the guest wants the `wanted` registers there.
    fn cold_exit(&mut self, cond: clif::Value, word: u64, wanted: RegSet, pc: GuestAddr) {
        let (out, on) = self.branch_off(cond);
        self.b.switch_to_block(out);
        self.store_to_leave(wanted);
        let pc = self.iconst(types::I64, pc.0 as i64);
        self.leave_stored(word, pc);
        self.b.switch_to_block(on);
    }

    /// Goes to a new cold block if `cond` is not 0; that block, and the one where the code goes on.
    pub(super) fn branch_off(&mut self, cond: clif::Value) -> (clif::Block, clif::Block) {
        let (out, on) = (self.b.create_block(), self.b.create_block());
        self.b.set_cold_block(out);
        self.b.ins().brif(cond, out, &[], on, &[]);
        (out, on)
    }
}
