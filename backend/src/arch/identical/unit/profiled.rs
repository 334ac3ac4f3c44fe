//! What units do for profiles: counts of what they execute, and a log of transfers of control (see `identical/mod.rs`).
//!
//! All of it leaves the flags alone, and is single-stepped through where a signal arrives in it (`Phase::Step`). So between two guest
//! instructions, what has been executed is either counted, or in the part that `Interruption::At::run` tells of.

use super::super::area::TransferKind;
use super::super::emit::{R11, RCX, RIP, SPILL};
use super::super::sites::{self, Rule, Sequence};
use super::Pass;
use iced_x86::Instruction;

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

    /// Counts a block, tells of the jump out of a function if it is one, and goes to `target`.
    fn depart(&mut self, block: Block, leaves: Option<u64>, target: u64) {
        let mut sequence = Sequence::at(self.code.len());
        let full = match leaves {
            Some(site) => self.tell(&mut sequence, block, TransferKind::Jump, site, Some(target)),
            None => {
                self.count_block(block);
                sequence.rule(self.code.len(), Rule::STEP);
                None
            }
        };
        sites::put_sequence(&mut self.unit.items, 0, sequence.list());
        sites::put_pc(&mut self.unit.items, target);
        sequence.begin(self.code.len());
        self.exit(&[0xe9], target);
        sequence.rule(self.code.len(), Rule::BEFORE);
        self.leave_full(&mut sequence, full, Some(target));
        sites::put_sequence(&mut self.unit.items, 0, sequence.list());
    }

    /// Counts a block and writes the transfer that it ends with into the log: to `target`, or to the pc at `Area::rip`, which is in R11 then.
    /// What goes on from here is for `leave_full`.
    pub(super) fn tell(
        &mut self,
        sequence: &mut Sequence,
        block: Block,
        kind: TransferKind,
        site: u64,
        target: Option<u64>,
    ) -> Option<usize> {
        let number = self.world.profiler.as_mut()?.transfer(kind, site, target);
        self.code.count_in(block.counter);
        sequence.rule(self.code.len(), Rule::STEP);
        let full = self.code.log(block.n, number, target.is_none());
        self.code.restore(RCX, SPILL);
        sequence.rule(self.code.len(), Rule::STEP);
        Some(full)
    }

    /// Where `tell` goes if the log is full: the unit is left, with the guest at the transfer's target.
    pub(super) fn leave_full(&mut self, sequence: &mut Sequence, full: Option<usize>, target: Option<u64>) {
        let Some(full) = full else { return };
        self.code.land_short(full);
        if let Some(target) = target {
            self.code.store64(RIP, target);
        }
        self.code.restore(RCX, SPILL);
        self.code.jump(self.world.exits.stop);
        sequence.rule(self.code.len(), Rule::STEP);
    }

    /// `tell` of the instruction at hand, which goes to the pc at `Area::rip`; `index` as it is then, and what is for `leave_full`.
    pub(super) fn tell_computed(&mut self, kind: TransferKind, index: u8) -> (u8, Option<usize>) {
        let mut sequence = std::mem::take(&mut self.sequence);
        let block = self.take_block();
        let full = self.tell(&mut sequence, block, kind, self.pc, None);
        self.sequence = sequence;
        (if full.is_some() { R11 } else { index }, full)
    }
}
