//! What the counters count: the block behind each number.

use super::counters::CAPACITY;
use super::functions::Place;
use calque_ir::{GuestAddr, Inst, Op, Region};
use hashbrown::{DefaultHashBuilder, HashMap, HashTable};
use std::hash::BuildHasher;

/// Instructions one behind the other.
#[derive(Debug)]
pub(crate) struct Block {
    pub(super) pc: u64,
    /// The file they are from, and where it was mapped: another one may be mapped there later.
    pub(super) place: Place,
    /// Their lengths in bytes.
    lengths: Box<[u8]>,
}

impl Block {
    /// Pcs and lengths of the instructions.
    pub(crate) fn insns(&self) -> impl Iterator<Item = (u64, u8)> + '_ {
        self.lengths.iter().scan(self.pc, |pc, len| {
            let here = *pc;
            *pc += u64::from(*len);
            Some((here, *len))
        })
    }

    /// How many of the instructions stand before `pc`; `None` if `pc` is none of them.
    pub(super) fn before(&self, pc: GuestAddr) -> Option<usize> {
        self.insns().position(|(at, _)| at == pc.0)
    }
}

/// All blocks; the number of one is that of its counter. Number 0 stands for what there is no room for.
#[derive(Default)]
pub(crate) struct Blocks {
    list: Vec<Block>,
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
        let Blocks { list, numbers, hasher } = self;
        let hash = hasher.hash_one((pc, place, lengths));
        let is_it = |number: &u32| {
            let block = &list[*number as usize - 1];
            (block.pc, block.place, &*block.lengths) == (pc, place, lengths)
        };
        if let Some(number) = numbers.find(hash, is_it) {
            return *number;
        }
        let number = list.len() as u32 + 1;
        if number as usize >= CAPACITY {
            return 0;
        }
        list.push(Block { pc, place, lengths: lengths.into() });
        let hash_of = |number: &u32| {
            let block = &list[*number as usize - 1];
            hasher.hash_one((block.pc, block.place, &*block.lengths))
        };
        numbers.insert_unique(hash, number, hash_of);
        number
    }

    /// The block with this number.
    pub(super) fn get(&self, number: u32) -> Option<&Block> {
        self.list.get((number as usize).checked_sub(1)?)
    }

    /// One more than the highest number.
    pub(crate) fn used(&self) -> u32 {
        self.list.len() as u32 + 1
    }

    /// All blocks with their numbers.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, &Block)> {
        (1..).zip(&self.list)
    }
}
