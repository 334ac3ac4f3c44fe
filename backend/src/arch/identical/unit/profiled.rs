//! What units do for profiles: counts of what they execute, and the shadow call stack (see `identical/mod.rs`, `shadow.rs`).
//!
//! A call looks for its edge in the context that runs, and pushes a frame; a return finds itself in the last frame, adds what has been
//! executed since the call to the edge, and pops it. A linkage stub's jump says which edge the call that came to it really is. A computed
//! jump only looks whether it stays in its function. Everything else, and whatever is not as expected, leaves for the recorder
//! (`Words::transfer`), when the part is counted and control has gone to where it goes.
//!
//! All of it leaves the flags alone, and is single-stepped through where a signal arrives in it (`Phase::Step`). So between two guest
//! instructions, what has been executed is either counted, or in the part that `Interruption::At::run` tells of.

use super::super::area::{TransferKind, Way};
use super::super::emit::{FOUND, LAST_RETURN, NEW_EDGE, POINT, R10, R11, RCX, RIP, RSP, SP, SPILL, TRANSFER};
use super::super::sites::{self, Rule, Sequence};
use super::{Callee, Pass, Thunk};
use crate::shadow::{Edge, Frame, slot, slot_of_jump};
use iced_x86::{Instruction, Register};
use std::mem::offset_of;

/// No user address is this high.
const BEYOND: u64 = 1 << 48;

/// Instructions that are counted together, and their counter. There may be none.
#[derive(Clone, Copy, Default)]
pub(super) struct Block {
    counter: u32,
    n: u32,
}

/// A direct exit that is counted when it is taken.
#[derive(Clone, Copy)]
pub(super) struct Taken {
    /// Its displacement, to be patched.
    at: u32,
    target: u64,
    block: Block,
    /// The branch, if it leaves the function.
    leaves: Option<u64>,
}

/// What has been translated and not been counted.
#[derive(Default)]
pub(super) struct Part {
    start: u64,
    lengths: Vec<u8>,
    /// The last instruction, if it goes on to the next in any case.
    last: Option<u64>,
    /// The stack pointer may have been moved to anywhere.
    moves_stack: bool,
}

/// Where an edge is looked for.
enum Chain {
    /// In this slot of the context that runs.
    Slot(usize),
    /// In the slot that number and target say.
    Hashed,
    /// Behind the last call.
    Behind,
}

/// Ways of a call that are not the usual one: behind everything else, so that what runs lies close together.
pub(super) struct Unusual {
    lookup: Lookup,
    call: u64,
    point: u64,
    /// Displacement of the jump that is taken if the call is from above the last frame.
    above: usize,
}

/// A lookup of an edge.
struct Lookup {
    number: u32,
    target: Option<u64>,
    /// Displacements of the jumps that are taken if the first edge of the chain is another.
    others: Vec<usize>,
    /// Offset of what follows when it is found.
    found: usize,
    /// Where the last frame is from R10 then.
    last: Way,
}

impl Pass<'_, '_> {
    pub(super) fn is_profiled(&self) -> bool {
        self.world.profiler.is_some()
    }

    /// The instruction at hand is part of what follows.
    pub(super) fn note(&mut self, insn: &Instruction, is_copied: bool) {
        if self.is_profiled() {
            if self.part.lengths.is_empty() {
                self.part.start = insn.ip();
            }
            self.part.lengths.push(insn.len() as u8);
            self.part.last = is_copied.then_some(insn.ip());
            self.part.moves_stack |= is_copied && sets_stack(insn);
        }
    }

    /// Ends the unit where one function goes on into the next.
    pub(super) fn falls_out(&mut self) -> bool {
        let Some(last) = self.part.last else { return false };
        let leaves = self.leaves(last, self.pc);
        if leaves.is_some() {
            let block = self.take_block();
            self.depart(block, leaves, self.pc);
            self.stubs();
        }
        leaves.is_some()
    }

    /// `from`, if going to `to` leaves its function.
    fn leaves(&mut self, from: u64, to: u64) -> Option<u64> {
        let profiler = self.world.profiler.as_mut()?;
        profiler.leaves(from, to).then_some(from)
    }

    /// The part so far.
    fn block(&mut self) -> Block {
        let (Some(profiler), [_, ..]) = (&mut self.world.profiler, &self.part.lengths[..]) else {
            return Block::default();
        };
        let n = self.part.lengths.len() as u32;
        let counter = profiler.counter(self.part.start, &self.part.lengths);
        match self.unit.entries.last_mut() {
            Some(entry) => entry.counter = counter,
            None => self.unit.counter = counter,
        }
        Block { counter, n }
    }

    /// The part, which ends here.
    pub(super) fn take_block(&mut self) -> Block {
        let block = self.block();
        self.part.lengths.clear();
        self.part.last = None;
        self.part.moves_stack = false;
        block
    }

    fn count_block(&mut self, block: Block) {
        if block.n != 0 {
            self.code.count_in(block.counter);
            self.code.count_insns(block.n);
        }
    }

    /// Counts the part, which ends here; the guest is at `pc`.
    pub(super) fn settle(&mut self, pc: u64) {
        if self.is_profiled() {
            let mut sequence = Sequence::at(self.code.len());
            let block = self.take_block();
            self.count_block(block);
            sequence.rule(self.code.len(), Rule::STEP);
            sites::put_sequence(&mut self.unit.items, 0, sequence.list());
            sites::put_pc(&mut self.unit.items, pc);
        }
    }

    /// A direct exit by the instruction at hand, which is counted behind the unit's end where units are profiled.
    pub(super) fn way_out(&mut self, opcode: &[u8], insn: &Instruction, target: u64) {
        if !self.is_profiled() {
            return self.exit(opcode, target);
        }
        let leaves = if target == insn.next_ip() { None } else { self.leaves(insn.ip(), target) };
        let block = self.block();
        self.code.put(opcode);
        self.unit.taken.push(Taken { at: self.code.len() as u32, target, block, leaves });
        self.code.put(&[0; 4]);
    }

    /// Counts what is left by each of the exits of `way_out`.
    pub(super) fn count_taken(&mut self) {
        for i in 0..self.unit.taken.len() {
            let Taken { at, target, block, leaves } = self.unit.taken[i];
            let here = self.code.here();
            self.code.patch(at as usize, here);
            self.depart(block, leaves, target);
        }
    }

    /// Ends the unit with the jump at `pc`.
    pub(super) fn count_jump(&mut self, pc: u64, target: u64) {
        let (leaves, block) = (self.leaves(pc, target), self.take_block());
        self.depart(block, leaves, target);
        self.stubs();
    }

    /// Counts the part, which ends with the instruction at hand; the rule of the host instructions that follow.
    pub(super) fn count_here(&mut self) -> Rule {
        if !self.is_profiled() {
            return Rule::BEFORE;
        }
        let block = self.take_block();
        self.count_block(block);
        self.rule(Rule::STEP);
        Rule::STEP
    }

    /// Counts a block and goes to `target`: by way of the recorder, if the jump leaves its function.
    fn depart(&mut self, block: Block, leaves: Option<u64>, target: u64) {
        let mut sequence = Sequence::at(self.code.len());
        self.count_block(block);
        sequence.rule(self.code.len(), Rule::STEP);
        if let Some(site) = leaves {
            let number = self.transfer(TransferKind::Jump, site, Some(target), block);
            self.code.store64(RIP, target);
            self.leave_function(number);
            sequence.rule(self.code.len(), Rule::STEP);
        }
        sites::put_sequence(&mut self.unit.items, 0, sequence.list());
        sites::put_pc(&mut self.unit.items, target);
        sequence.begin(self.code.len());
        self.exit(&[0xe9], target);
        sequence.rule(self.code.len(), Rule::BEFORE);
        sites::put_sequence(&mut self.unit.items, 0, sequence.list());
    }

    fn transfer(&mut self, kind: TransferKind, site: u64, target: Option<u64>, block: Block) -> u32 {
        let profiler = self.world.profiler.as_mut().expect("only units that are profiled ask");
        profiler.transfer(kind, site, target, block.counter)
    }

    /// A jump out of its function to the pc at `Area::rip`. What follows is where it goes on.
    fn leave_function(&mut self, number: u32) {
        self.spill();
        self.code.load_edge(slot_of_jump(number), Way::Nowhere);
        self.code.store(R10, NEW_EDGE, R11);
        self.code.store32(TRANSFER, number);
        // The place behind this store and the jump.
        let at = self.code.len();
        self.code.store64(FOUND, self.code.base);
        self.code.jump(self.world.exits.jump);
        let found = self.code.here();
        self.code.bytes.truncate(at);
        self.code.store64(FOUND, found);
        self.code.jump(self.world.exits.jump);
    }

    /// Leaves for the recorder, with control at the pc at `Area::rip`.
    fn tell(&mut self, number: u32) {
        self.code.store32(TRANSFER, number);
        self.code.save(SP, RSP);
        self.code.jump(self.world.exits.stop);
    }

    /// Saves RCX and R10, which gets the last frame.
    fn spill(&mut self) {
        self.code.spill();
        self.code.load_frame();
    }

    /// Looks in a chain, with the last frame, or one on this way from it, in R10, for the edge of a transfer to `target`, or to the pc at
    /// `Area::rip`: R11, and the frame's behind the last one.
    fn look_up(&mut self, number: u32, chain: Chain, target: Option<u64>, last: Way) -> Lookup {
        match chain {
            Chain::Slot(slot) => self.code.load_edge(slot, last),
            Chain::Behind => self.code.load_edge_behind(),
            Chain::Hashed => {
                self.code.restore(R11, RIP);
                self.code.load_hashed_edge(number, last);
            }
        }
        let new_edge = NEW_EDGE.wrapping_add_signed(last.bytes().into());
        self.code.store(R10, new_edge, R11);
        self.code.is_edge_of(number);
        let mut others = vec![self.code.jump_unless_zero()];
        if target.is_none() {
            self.code.load(RCX, R11, offset_of!(Edge, target));
            self.code.restore(R11, RIP);
            self.code.subtract_from_r11();
            others.push(self.code.jump_unless_zero());
            self.code.load(R11, R10, new_edge);
        }
        Lookup { number, target, others, found: self.code.len(), last }
    }

    /// The ways of `look_up` on which the edge is not the first of its chain, with what else is left to the recorder at the jumps with these
    /// displacements.
    fn look_further(&mut self, lookup: &Lookup, point: u64, others: &[usize]) {
        let mut found = self.code.base + lookup.found as u64;
        if lookup.last != Way::Nowhere && !lookup.others.is_empty() {
            let again = self.code.here();
            self.code.go(Way::ToNext);
            self.code.jump(std::mem::replace(&mut found, again));
        }
        let tell = |pass: &mut Self, way: u64| {
            if lookup.last != Way::Nowhere {
                pass.code.go(lookup.last);
            }
            pass.code.store32(TRANSFER, lookup.number);
            pass.code.store64(POINT, point);
            if let Some(target) = lookup.target {
                pass.code.store64(RIP, target);
            }
            pass.code.store64(FOUND, found);
            pass.code.jump(way);
        };
        for (ways, to) in [(&lookup.others[..], self.world.exits.look_up), (others, self.world.exits.tell)] {
            if !ways.is_empty() {
                let here = self.code.here();
                ways.iter().for_each(|&at| self.code.patch(at, here));
                tell(self, to);
            }
        }
    }

    /// The thunk of a call behind the host's: counts what it ends, pushes a frame, and goes to the callee.
    pub(super) fn call(&mut self, sequence: &mut Sequence, thunk: &Thunk) {
        let target = if let Callee::At(target) = thunk.to { Some(target) } else { None };
        let number = self.transfer(TransferKind::Call, thunk.call, target, thunk.block);
        // What follows may be another function: that is for the recorder.
        let leaves = self.leaves(thunk.call, thunk.next).is_some();
        let point = if leaves { self.world.exits.no_point } else { self.code.base + u64::from(thunk.point) };
        self.code.spill();
        self.code.count_and_go(Way::ToNext, thunk.block.n);
        // Whoever calls from above the frame before, or from its place, has left that unseen.
        self.code.compare_place(Way::ToPrevious, 2);
        self.code.is_negative();
        let above = self.code.jump_unless_zero();
        self.code.take_place();
        self.code.store(R10, offset_of!(Frame, place), RCX);
        let chain = target.map_or(Chain::Hashed, |_| Chain::Slot(slot(number, None)));
        let lookup = self.look_up(number, chain, target, Way::ToPrevious);
        self.code.load(RCX, R11, offset_of!(Edge, context));
        self.code.store(R10, offset_of!(Frame, context), RCX);
        self.code.enter_frame();
        self.code.store64_at_r10(offset_of!(Frame, point), point);
        self.code.unspill();
        sequence.rule(self.code.len(), Rule::STEP);
        match thunk.to {
            Callee::At(target) => {
                self.exit(&[0xe9], target);
                sequence.rule(self.code.len(), Rule::STEP);
            }
            Callee::Computed(_) => {
                self.take_landing(None);
                sequence.rule(self.code.len(), Rule::DONE);
            }
        }
        self.unit.unusual.push(Unusual { lookup, call: thunk.call, point, above });
    }

    /// What the thunks of calls have left for the unit's end.
    pub(super) fn unusual_ways(&mut self) {
        for Unusual { lookup, call, point, above } in std::mem::take(&mut self.unit.unusual) {
            sites::put_pc(&mut self.unit.items, call);
            let mut sequence = Sequence::at(self.code.len());
            self.look_further(&lookup, point, &[above]);
            sequence.rule(self.code.len(), Rule::STEP);
            sites::put_sequence(&mut self.unit.items, 0, sequence.list());
        }
    }

    /// A return to the pc at `Area::rip`, which is popped.
    pub(super) fn return_told(&mut self, insn: &Instruction) {
        let block = self.take_block();
        let number = self.transfer(TransferKind::Return, insn.ip(), None, block);
        if insn.op_count() == 1 {
            self.count_block(block);
            self.code.save(SP, RSP);
            self.code.adjust_rsp(u32::from(insn.immediate16()));
            self.code.store32(TRANSFER, number);
            self.code.jump(self.world.exits.stop);
            self.rule(Rule::STEP);
            return self.end_unit(insn);
        }
        self.code.count_in(block.counter);
        self.code.spill();
        self.code.count_and_go(Way::ToPrevious, block.n);
        self.code.compare_place(Way::ToNext, 1 - 2 * 8);
        let other = self.code.jump_unless_zero();
        self.code.leave_frame();
        self.code.load(R11, R10, size_of::<Frame>() + offset_of!(Frame, point));
        self.code.store32(LAST_RETURN, number);
        self.code.unspill();
        self.rule(Rule::STEP);
        self.code.push_r11();
        self.rule(Rule::DONE);
        self.code.ret();
        let here = self.code.here();
        self.code.patch(other, here);
        self.code.go(Way::ToNext);
        self.code.store32(TRANSFER, number);
        self.code.jump(self.world.exits.ret);
        self.rule(Rule::STEP);
        self.end_unit(insn);
    }

    /// A jump to the pc at `Area::rip`.
    pub(super) fn jump_told(&mut self, insn: &Instruction) {
        let (moves_stack, block) = (self.part.moves_stack, self.take_block());
        let number = self.transfer(TransferKind::Jump, insn.ip(), None, block);
        let profiler = self.world.profiler.as_mut().expect("only units that are profiled ask");
        let (low, high, is_stub) = profiler.extent(insn.ip());
        self.count_block(block);
        if is_stub {
            return self.leave_stub(insn, number);
        }
        if moves_stack {
            self.tell(number);
            self.rule(Rule::STEP);
            return self.end_unit(insn);
        }
        let mut outside = None;
        if low != 0 || high < BEYOND {
            self.code.save(SPILL, RCX);
            self.code.restore(R11, RIP);
            self.code.is_between(low, high.min(BEYOND));
            outside = Some(self.code.jump_unless_zero());
            self.code.restore(RCX, SPILL);
            self.rule(Rule::STEP);
        }
        self.take_landing(None);
        self.rule(Rule::DONE);
        if let Some(outside) = outside {
            let here = self.code.here();
            self.code.patch(outside, here);
            self.code.restore(RCX, SPILL);
            self.leave_function(number);
            self.rule(Rule::STEP);
            self.take_landing(None);
            self.rule(Rule::DONE);
        }
        self.end_unit(insn);
    }

    /// The jump of a linkage stub: the last frame is of the call that came to it.
    fn leave_stub(&mut self, insn: &Instruction, number: u32) {
        self.spill();
        let lookup = self.look_up(number, Chain::Behind, None, Way::Nowhere);
        self.code.load(RCX, R11, offset_of!(Edge, context));
        self.code.store(R10, offset_of!(Frame, context), RCX);
        self.code.store(R10, offset_of!(Frame, edge), R11);
        self.code.unspill();
        self.rule(Rule::STEP);
        self.take_landing(None);
        self.rule(Rule::DONE);
        self.look_further(&lookup, 0, &[]);
        self.rule(Rule::STEP);
        self.end_unit(insn);
    }

    /// Ends the unit behind an instruction that has gone elsewhere.
    fn end_unit(&mut self, insn: &Instruction) {
        self.end(insn.len());
        self.stubs();
    }
}

/// Whether an instruction may move the stack pointer to another stack, or to another function's part of this one.
fn sets_stack(insn: &Instruction) -> bool {
    insn.op_count() != 0
        && insn.op0_register() == Register::RSP
        && insn.is_stack_instruction() == (insn.mnemonic() == iced_x86::Mnemonic::Pop)
        && !matches!(insn.mnemonic(), iced_x86::Mnemonic::Add | iced_x86::Mnemonic::Sub | iced_x86::Mnemonic::And)
}
