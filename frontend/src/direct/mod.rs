//! Carries out plain instructions straight from their bytes: what code that hardly ever runs twice is best served with.
//!
//! Lifting an instruction takes five times what carrying it out does, and most of what a start-up comes by runs once. So [`Direct`] decodes
//! an instruction and does what it says to the registers and to memory. It knows the integer instructions that
//! compilers make nearly everything of, and moves of vectors; it stops in front of all others, which the caller lifts.
//!
//! | file         | what                                        |
//! |--------------|---------------------------------------------|
//! | `table.rs`   | the instructions it knows, as rows          |
//! | `operand.rs` | operands, addresses, memory                 |
//! | `flags.rs`   | status flags and conditions                 |
//! | `family.rs`  | what a row's instructions do                |
//!
//! Invariants:
//! 1. The lifter and the interpreter are the specification. A test has both carry out every instruction of the table, in every form
//!    that is decoded here, and `calque difftest` compares this engine with the processor as it does the others.
//! 2. An instruction that is refused, or that faults, has changed nothing: memory is read and written before the first register. (RIP is
//!    that of the instruction.)
//! 3. All flags are in their registers behind each instruction: nothing is deferred. Those that the SDM leaves undefined stay as they
//!    were, but AF, which a logic operation clears.

mod family;
mod flags;
mod operand;
mod table;
#[cfg(test)]
mod tests;

use crate::decode::{CodeReader, Window};
use crate::lift::Insn;
use crate::plain;
use calque_ir::interp::Host;
use calque_ir::{CpuState, GuestAddr};
use std::ops::Range;

/// Why no more was carried out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End<F> {
    /// Control was transferred, or there were enough instructions.
    Behind,
    /// The next instruction is none of those that are known here, or its bytes are not.
    Before,
    /// A memory access of the next instruction failed.
    Fault(F),
}

/// What an instruction that was carried out does with control.
#[derive(Clone, Copy)]
enum Step {
    Next,
    Jump(u64),
}

/// Why one was not.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Refusal {
    Unknown,
    /// [`Machine::fault`].
    Fault,
}

type Outcome = Result<Step, Refusal>;

/// What instructions work on, and how the last access has failed.
struct Machine<'a, H: Host> {
    cpu: &'a mut CpuState,
    host: &'a mut H,
    fault: Option<H::Fault>,
}

impl<H: Host> Machine<'_, H> {
    /// Nothing is carried out any more.
    fn end(&mut self, refusal: Refusal) -> End<H::Fault> {
        match (refusal, self.fault.take()) {
            (Refusal::Fault, Some(fault)) => End::Fault(fault),
            _ => End::Before,
        }
    }
}

/// Code that is the same as long as it has the same version.
pub struct Source<'a> {
    code: &'a dyn CodeReader,
    version: u64,
    window: Window<64>,
}

impl<'a> Source<'a> {
    /// Nothing has been read yet.
    pub fn new(code: &'a dyn CodeReader, version: u64) -> Self {
        Self { code, version, window: Window::new() }
    }
}

/// What carries instructions out. It keeps those that it has decoded for a while: next arrivals come soon.
pub struct Direct {
    /// The blocks' instructions, one block behind the other. Where there is no more room, all are forgotten.
    insns: Vec<Insn>,
    blocks: Vec<Block>,
    /// Which block was decoded at each place last, counted from 1; 0 for none.
    places: Vec<u32>,
}

/// Instructions that were carried out one after the other.
struct Block {
    pc: u64,
    version: u64,
    insns: Range<u32>,
}

/// Room for instructions: 3,000 blocks of usual ones.
const INSNS: usize = 1 << 14;

/// Places that are told apart, a power of two.
const PLACES: usize = 1 << 13;

impl Default for Direct {
    fn default() -> Self {
        // Memory that costs nothing until it is used.
        Self { insns: Vec::with_capacity(INSNS), blocks: Vec::new(), places: vec![0; PLACES] }
    }
}

fn place(pc: u64) -> usize {
    (pc ^ pc >> 13) as usize % PLACES
}

impl Direct {
    /// Carries out instructions from RIP on, at most `limit` and up to the first that transfers control; RIP is where the guest goes
    /// on. Also how many it were.
    pub fn run<H: Host>(
        &mut self,
        source: &mut Source<'_>,
        cpu: &mut CpuState,
        host: &mut H,
        limit: u32,
    ) -> (End<H::Fault>, u32) {
        let (pc, mut machine) = (cpu.rip, Machine { cpu, host, fault: None });
        let known = self.find(pc, source.version);
        let Range { start, end: decoded } = known.clone().unwrap_or_else(|| self.room(limit));
        let mut at = start;
        let end = loop {
            if at >= decoded {
                if known.is_some() || at - start == limit as usize {
                    break End::Behind;
                }
                if !self.decode(source, machine.cpu.rip) {
                    break End::Before;
                }
            }
            let insn = &self.insns[at];
            match table::carry_out(&mut machine, insn) {
                Ok(Step::Next) => machine.cpu.rip = insn.next_ip(),
                Ok(Step::Jump(to)) => {
                    machine.cpu.rip = to;
                    at += 1;
                    break End::Behind;
                }
                Err(refusal) => break machine.end(refusal),
            }
            at += 1;
        };
        if known.is_none() {
            self.keep(pc, source.version, start..at);
        }
        (end, (at - start) as u32)
    }

    /// Where the instructions are that were carried out at `pc` before.
    fn find(&self, pc: u64, version: u64) -> Option<Range<usize>> {
        let block = self.blocks.get(self.places[place(pc)].checked_sub(1)? as usize)?;
        let Range { start, end } = block.insns;
        (block.pc == pc && block.version == version).then_some(start as usize..end as usize)
    }

    /// Where the next block begins, behind which there is room for so many instructions.
    fn room(&mut self, limit: u32) -> Range<usize> {
        if self.insns.len() + limit as usize > INSNS {
            self.places.fill(0);
            self.blocks.clear();
            self.insns.clear();
        }
        self.insns.len()..self.insns.len()
    }

    /// Decodes one more; false if it cannot be.
    #[inline]
    fn decode(&mut self, source: &mut Source<'_>, pc: u64) -> bool {
        let bytes = source.window.read(source.code, GuestAddr(pc));
        let mut insn = Insn::default();
        let is_plain = plain::decode(bytes, pc, &mut insn);
        if is_plain {
            self.insns.push(insn);
        }
        is_plain
    }

    /// Keeps a block, if there are any instructions in it.
    fn keep(&mut self, pc: u64, version: u64, insns: Range<usize>) {
        self.insns.truncate(insns.end);
        if !insns.is_empty() {
            self.blocks.push(Block { pc, version, insns: insns.start as u32..insns.end as u32 });
            self.places[place(pc)] = self.blocks.len() as u32;
        }
    }
}
