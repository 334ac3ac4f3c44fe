//! Emitted blocks as words that outlive the process: for a later run of the same program.
//!
//! Emitted code has no host address in it (invariant 3 of the emitter), so it is the same in every run but for the numbers of its cells. It is
//! saved with cells from [`SAVED_CELLS`] on, whose numbers take a MOVZ and a MOVK; where it is restored, these get its own.
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

use super::encode as e;
use super::{Emitted, EmittedExit, Emitter};
use calque_ir::GuestAddr;

/// Of an exit that is left only to be counted.
const NO_BRANCH: u32 = u32::MAX;

/// The first cell of a block that is saved: of its number, and the next ones, no half can be left out, and none is a mask that ORR makes (two runs
/// of ones, and other bits below).
pub const SAVED_CELLS: u32 = 0x5_0100;

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
    /// Puts a block behind `words` that was emitted with cells from [`SAVED_CELLS`] on.
    ///
    /// # Panics
    /// If it was emitted with others.
    pub fn save(&self, words: &mut Vec<u32>) {
        assert_eq!(self.first_cell, SAVED_CELLS, "the cells of a block that is saved");
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
    /// A saved block with these cells.
    pub fn restore(&mut self, saved: &SavedBlock<'_>, first_cell: u32) -> Emitted<'_> {
        self.clear();
        self.code.extend(saved.code);
        for &at in saved.numbers {
            let [low, high] = [at, at + 1].map(|at| e::mov_half(self.code[at as usize]));
            let cell = (low | high << 16) - SAVED_CELLS + first_cell;
            for (at, half) in [(at, cell & 0xffff), (at + 1, cell >> 16)] {
                self.code[at as usize] = e::with_mov_half(self.code[at as usize], half);
            }
        }
        let branch = |place: u32| (place != NO_BRANCH).then_some(place);
        let exits = saved.exits.iter();
        self.exits.extend(exits.map(|&[low, high, at]| EmittedExit { target: addr(low, high), branch: branch(at) }));
        self.pcs.extend(saved.pcs.iter().map(|&[offset, low, high]| (offset, addr(low, high))));
        self.emitted(saved.pc, saved.guest_insns, saved.code.len() as u32, first_cell)
    }
}
