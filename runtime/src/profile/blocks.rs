//! What the counters count: the block behind each number.

use super::counters::CAPACITY;
use super::functions::Place;
use calque_ir::{GuestAddr, Inst, Op, Region};
use hashbrown::{DefaultHashBuilder, HashMap, HashTable};
use std::hash::BuildHasher;

/// Instructions one behind the other.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Block<'a> {
    pub(super) pc: u64,
    /// The file they are from, and where it was mapped: another one may be mapped there later.
    pub(super) place: Place,
    /// Their lengths in bytes.
    lengths: &'a [u8],
}

impl<'a> Block<'a> {
    /// Pcs and lengths of the instructions.
    pub(crate) fn insns(self) -> impl Iterator<Item = (u64, u8)> + 'a {
        self.lengths.iter().scan(self.pc, |pc, len| {
            let here = *pc;
            *pc += u64::from(*len);
            Some((here, *len))
        })
    }

    /// How many of the instructions stand before `pc`; `None` if `pc` is none of them.
    pub(super) fn before(self, pc: GuestAddr) -> Option<usize> {
        self.insns().position(|(at, _)| at == pc.0)
    }
}

/// A block, with the place of its lengths in [`Blocks::lengths`].
struct Stored {
    pc: u64,
    place: Place,
    from: u32,
    n: u32,
}

impl Stored {
    fn with<'a>(&self, lengths: &'a [u8]) -> Block<'a> {
        let from = self.from as usize;
        Block { pc: self.pc, place: self.place, lengths: &lengths[from..from + self.n as usize] }
    }
}

/// All blocks; the number of one is that of its counter. Number 0 stands for what there is no room for.
#[derive(Default)]
pub(crate) struct Blocks {
    list: Vec<Stored>,
    /// Lengths of instructions, block by block.
    lengths: Vec<u8>,
    /// Numbers by block.
    numbers: HashTable<u32>,
    hasher: DefaultHashBuilder,
}

impl Blocks {
    /// Gives each `count` of `region` its counter. The same instructions have the same one, whoever translates them how often.
    /// `place` says where a pc is.
    pub(crate) fn assign(&mut self, region: &mut Region, place: &mut dyn FnMut(GuestAddr) -> Place) {
        let marks = region.insts.iter().filter(|inst| inst.op == Op::Insn);
        let lengths: HashMap<u64, u8> = marks.map(|inst| (inst.imm(), inst.aux as u8)).collect();
        for inst in region.insts.iter_mut().filter(|inst| inst.op == Op::Count) {
            let (n, _, pc) = inst.counted();
            let mut at = pc.0;
            let walk = (0..n).map(|_| {
                let len = lengths.get(&at).copied().unwrap_or(1);
                at += u64::from(len);
                len
            });
            let lengths: Vec<u8> = walk.collect();
            inst.args = Inst::count_args(n, self.number_of(pc.0, place(pc), &lengths), pc);
        }
    }

    /// The counter of the instructions of these lengths from `pc` on.
    pub(crate) fn counter(&mut self, pc: GuestAddr, lengths: &[u8], place: Place) -> u32 {
        self.number_of(pc.0, place, lengths)
    }

    fn number_of(&mut self, pc: u64, place: Place, lengths: &[u8]) -> u32 {
        let Blocks { list, lengths: all, numbers, hasher } = self;
        let block = Block { pc, place, lengths };
        let hash = hasher.hash_one(block);
        if let Some(number) = numbers.find(hash, |number| list[*number as usize - 1].with(all) == block) {
            return *number;
        }
        let number = list.len() as u32 + 1;
        if number as usize >= CAPACITY {
            return 0;
        }
        list.push(Stored { pc, place, from: all.len() as u32, n: lengths.len() as u32 });
        all.extend_from_slice(lengths);
        numbers.insert_unique(hash, number, |number| hasher.hash_one(list[*number as usize - 1].with(all)));
        number
    }

    /// The block with this number.
    pub(super) fn get(&self, number: u32) -> Option<Block<'_>> {
        self.list.get((number as usize).checked_sub(1)?).map(|block| block.with(&self.lengths))
    }

    /// One more than the highest number.
    pub(crate) fn used(&self) -> u32 {
        self.list.len() as u32 + 1
    }

    /// All blocks with their numbers.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, Block<'_>)> {
        (1..).zip(self.list.iter().map(|block| block.with(&self.lengths)))
    }
}
