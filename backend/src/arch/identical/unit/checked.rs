//! Units of code that may change unnoticed, *checked* units: they compare the bytes that they were made of with what stands there now before
//! they do anything else, and leave if they differ.
//!
//! 1. The bytes that are decoded are the ones that are compared: both come from one copy (`Source::Checked`).
//! 2. The only way in leads through the check. So a call has a unit of its own, and what follows it, too.
//! 3. The copy ends behind an instruction that may store: what that has changed is seen by the next unit's check.
//!
//! Where only constants change, as in code that is patched with every call, a new unit for each would cost hundreds of times what the
//! store costs. So a unit that was found changed a few times is made *loose*: MOV takes its constant from guest memory, and
//! the check leaves it out. (The idea is Transmeta's: Dehnert et al., "The Transmeta Code Morphing Software", CGO 2003.)
//!
//! Each check counts down a word of the thread's (`Area::set_checks`), so that the runtime hears of code that is run often and not written.

use super::super::emit::{CHECKS, Code, GUEST_R11, R11, RCX, RIP, SPILL};
use super::super::sites::{self, Rule};
use super::Pass;
use iced_x86::{Code as Opcode, Decoder, DecoderOptions, Instruction};
use std::ops::Range;

/// Where the bytes of a unit come from.
pub enum Source<'a> {
    /// `code` copies guest code from a pc on, and returns how many bytes; 0 if it is not executable. When the bytes change, units are removed.
    /// `word` reads guest memory, if that can be without waiting.
    Noticed { code: &'a mut dyn FnMut(u64, &mut [u8]) -> usize, word: &'a dyn Fn(u64) -> Option<u64> },
    /// The bytes of one block, which may change unnoticed: up to the first instruction that stores or transfers control.
    Checked(&'a [u8]),
}

/// What a checked unit depends on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in super::super) enum Check {
    Exact,
    /// Not on constants of MOV.
    Loose,
}

/// Displacements, to be patched, of the jumps out of a check.
#[derive(Default)]
pub(super) struct WaysOut {
    changed: Vec<u32>,
    often: u32,
}

impl WaysOut {
    pub(super) fn clear(&mut self) {
        self.changed.clear();
    }
}

impl Pass<'_, '_> {
    /// Fills `window` from the pc at hand on; the bytes there are.
    pub(super) fn read(&mut self, window: &mut [u8]) -> usize {
        match &mut self.world.source {
            Source::Noticed { code, .. } => code(self.pc, window),
            Source::Checked(bytes) if self.pc == self.start => {
                window[..bytes.len()].copy_from_slice(bytes);
                bytes.len()
            }
            Source::Checked(_) => 0,
        }
    }

    /// Begins a checked unit, of these bytes.
    pub(super) fn check(&mut self, bytes: &[u8]) {
        let Some(check) = self.world.check else { return };
        let constants = if check == Check::Loose { constants(bytes) } else { Vec::new() };
        self.sequence.begin(self.code.len());
        self.code.save(SPILL, RCX);
        self.rule(Rule::BEFORE);
        self.code.restore(RCX, CHECKS);
        self.code.add_rcx(u32::MAX);
        self.code.save(CHECKS, RCX);
        // jrcxz over the jump over the jump out
        self.code.put(&[0xe3, 2, 0xeb, 5]);
        self.unit.checked.often = way_out(self.code);
        self.code.load_constant(R11, self.start);
        for (at, width) in words(bytes.len(), &constants) {
            let mut word = [0; 4];
            word[..width].copy_from_slice(&bytes[at..at + width]);
            self.code.load_ecx_at_r11(at as u8, width);
            self.code.skip_if_ecx_is(u32::from_le_bytes(word));
            let way_out = way_out(self.code);
            self.unit.checked.changed.push(way_out);
            self.rule(Rule::fetch_spilled(RCX));
        }
        self.code.restore(RCX, SPILL);
        self.rule(Rule::fetch_spilled(RCX));
        sites::put_sequence(&mut self.unit.items, 0, self.sequence.list());
    }

    /// Ends a checked unit: where the check leaves to.
    pub(super) fn checked_stubs(&mut self) {
        if self.world.check.is_none() {
            return;
        }
        let (exits, here) = (self.world.exits, self.code.here());
        self.unit.checked.changed.iter().for_each(|&at| self.code.patch(at as usize, here));
        self.leave_check(exits.changed);
        let here = self.code.here();
        self.code.patch(self.unit.checked.often as usize, here);
        self.leave_check(exits.often);
    }

    fn leave_check(&mut self, to: u64) {
        self.code.restore(RCX, SPILL);
        self.code.store64(RIP, self.start);
        self.code.jump(to);
    }

    /// In a loose unit, appends a MOV whose constant is in guest memory; whether it is one.
    pub(super) fn loose(&mut self, insn: &Instruction) -> bool {
        let Some(constant) = constant_of(insn).filter(|_| self.world.check == Some(Check::Loose)) else { return false };
        let reg = insn.op0_register().full_register() as u8 - iced_x86::Register::RAX as u8;
        self.code.load_constant(R11, insn.ip() + constant.start as u64);
        self.rule(Rule::BEFORE);
        self.code.load_at_r11(reg, constant.len());
        self.rule(Rule::FETCH);
        self.r11 = reg == R11;
        if self.r11 {
            self.code.save(GUEST_R11, R11);
            self.rule(Rule::STEP);
        }
        self.end(insn.len());
        true
    }
}

/// A `jmp` to be patched: where its displacement is.
fn way_out(code: &mut Code) -> u32 {
    code.put(&[0xe9, 0, 0, 0, 0]);
    code.len() as u32 - 4
}

/// Which bytes of a MOV are its constant, if that is as wide as the register.
fn constant_of(insn: &Instruction) -> Option<Range<usize>> {
    let width = match insn.code() {
        Opcode::Mov_r32_imm32 => 4,
        Opcode::Mov_r64_imm64 => 8,
        _ => return None,
    };
    Some(insn.len() - width..insn.len())
}

/// Where constants are in the code `bytes`.
fn constants(bytes: &[u8]) -> Vec<Range<usize>> {
    let insns = Decoder::new(64, bytes, DecoderOptions::NONE).into_iter();
    let of = |insn: Instruction| {
        constant_of(&insn).map(|range| range.start + insn.ip() as usize..range.end + insn.ip() as usize)
    };
    insns.filter_map(of).collect()
}

/// What is to be compared of `len` bytes, as offsets and widths of 4, 2 and 1: all but what is in `without`.
fn words(len: usize, without: &[Range<usize>]) -> Vec<(usize, usize)> {
    let ends = without.iter().map(|range| range.start).chain([len]);
    let starts = [0].into_iter().chain(without.iter().map(|range| range.end));
    let mut words = Vec::new();
    for (mut at, end) in starts.zip(ends) {
        while at < end {
            let width = [4, 2, 1].into_iter().find(|width| at + width <= end).expect("one byte fits");
            words.push((at, width));
            at += width;
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn constants_are_left_out() {
        // nop; mov eax, 1; mov r10, 2; add eax, 3; ret
        let code = [0x90, 0xb8, 1, 0, 0, 0, 0x49, 0xba, 2, 0, 0, 0, 0, 0, 0, 0, 0x05, 3, 0, 0, 0, 0xc3];
        let constants = constants(&code);
        assert_eq!(constants, [2..6, 8..16]);
        assert_eq!(words(code.len(), &constants), [(0, 2), (6, 2), (16, 4), (20, 2)]);
        assert_eq!(words(7, &[]), [(0, 4), (4, 2), (6, 1)]);
    }
}
