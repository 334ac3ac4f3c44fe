//! Emitted blocks as words that outlive the process: for a later run of the same program.
//!
//! Emitted code has no host address in it (invariant 3 of the emitter), so it is the same in every run but for the numbers of its cells. It is
//! saved with cells from 0 on; where it is restored, its own are added.
//!
//! | words              | what                                                      |
//! |--------------------|-----------------------------------------------------------|
//! | 2                  | guest pc                                                  |
//! | 1                  | guest instructions                                        |
//! | 4                  | how many there are of each of the following               |
//! | 1 each             | code                                                      |
//! | 1 each             | places in it where the number of a cell is                |
//! | 3 each             | exits: target; place of the branch, or [`NO_BRANCH`]      |
//! | 3 each             | where accesses of a guest instruction begin; its pc       |

use super::{Emitted, EmittedExit, Emitter};
use calque_ir::GuestAddr;

/// Of an exit that is left only to be counted.
const NO_BRANCH: u32 = u32::MAX;

/// Cells from this one on do not fit the instruction that moves their number.
const CELLS: u32 = 1 << 16;

/// A block as it was saved.
#[derive(Clone, Copy, Debug)]
pub struct SavedBlock<'a> {
    pub pc: GuestAddr,
    guest_insns: u32,
    code: &'a [u32],
    numbers: &'a [u32],
    exits: &'a [[u32; 3]],
    pcs: &'a [[u32; 3]],
}

fn halves(addr: GuestAddr) -> [u32; 2] {
    [addr.0 as u32, (addr.0 >> 32) as u32]
}

fn addr(low: u32, high: u32) -> GuestAddr {
    GuestAddr(u64::from(low) | u64::from(high) << 32)
}

impl<'a> SavedBlock<'a> {
    /// The block that [`Emitted::save`] has put there; `None` if it is none.
    pub fn read(words: &'a [u32]) -> Option<Self> {
        let (&[low, high, guest_insns, code, numbers, exits, pcs], rest) = words.split_first_chunk()?;
        let (code, rest) = rest.split_at_checked(code as usize)?;
        let (numbers, rest) = rest.split_at_checked(numbers as usize)?;
        let (exits, rest) = rest.split_at_checked(3 * exits as usize)?;
        let pcs = rest.get(..3 * pcs as usize)?;
        Some(Self {
            pc: addr(low, high),
            guest_insns,
            code,
            numbers,
            exits: exits.as_chunks().0,
            pcs: pcs.as_chunks().0,
        })
    }

    /// How many exit cells its code uses.
    pub fn cells_needed(&self) -> u32 {
        self.exits.len() as u32
    }
}

impl Emitted<'_> {
    /// Puts a block behind `words` that was emitted with cells from 0 on.
    ///
    /// # Panics
    /// If it was emitted with others.
    pub fn save(&self, words: &mut Vec<u32>) {
        assert_eq!(self.first_cell, 0, "the cells of a block that is saved");
        words.extend(halves(self.pc));
        words.push(self.guest_insns);
        words.extend([self.code.len(), self.numbers.len(), self.exits.len(), self.pcs.len()].map(|n| n as u32));
        words.extend(self.code);
        words.extend(self.numbers);
        for exit in self.exits {
            words.extend(halves(exit.target));
            words.push(exit.branch.unwrap_or(NO_BRANCH));
        }
        for &(offset, pc) in self.pcs {
            words.push(offset);
            words.extend(halves(pc));
        }
    }
}

impl Emitter {
    /// A saved block with these cells; `None` if their numbers do not fit.
    pub fn restore(&mut self, saved: &SavedBlock<'_>, first_cell: u32) -> Option<Emitted<'_>> {
        if first_cell + saved.cells_needed() > CELLS {
            return None;
        }
        self.clear();
        self.code.extend(saved.code);
        for &at in saved.numbers {
            // MOVZ's immediate is in bits 5 to 20.
            *self.code.get_mut(at as usize)? += first_cell << 5;
        }
        let branch = |place: u32| (place != NO_BRANCH).then_some(place);
        let exits = saved.exits.iter();
        self.exits.extend(exits.map(|&[low, high, at]| EmittedExit { target: addr(low, high), branch: branch(at) }));
        self.pcs.extend(saved.pcs.iter().map(|&[offset, low, high]| (offset, addr(low, high))));
        Some(self.emitted(saved.pc, saved.guest_insns, saved.code.len() as u32, first_cell))
    }
}
