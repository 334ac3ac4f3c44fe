//! What is known of units and their exits, in few bytes: large programs have a hundred thousand of them. Both are numbered, and refer to each other
//! by number. A place in code memory leaves the upper bits of its word to marks.

use super::unit::Way;
use hashbrown::HashTable;

/// Most bytes of code memory.
pub(super) const MOST: usize = 0x0ff0_0000;

/// Bits of a place in code memory.
const PLACE: u32 = (1 << 28) - 1;
/// Above them, in an exit.
const LINKED: u32 = 1 << 30;
/// Above them, in a record.
const WAY: u32 = 28;
const REMOVED: u32 = 1 << 30;
/// In both: the address is in [`Far`].
const FAR: u32 = 1 << 31;
/// Above where a record's items begin: they take less room than the code.
const KIND: u32 = 30;

const _: () =
    assert!(MOST <= PLACE as usize && PLACE < 1 << WAY && Way::Returns as u32 == 2 && Kind::Landing as u32 == 2);

/// Addresses in 32 bits: those above 4 GiB stand in a list.
#[derive(Default)]
pub(super) struct Far(Vec<u64>);

impl Far {
    /// The word for an address, and its mark.
    fn pack(&mut self, address: u64) -> (u32, u32) {
        u32::try_from(address).map_or_else(
            |_| {
                self.0.push(address);
                (self.0.len() as u32 - 1, FAR)
            },
            |low| (low, 0),
        )
    }

    #[inline]
    fn unpack(&self, word: u32, marks: u32) -> u64 {
        if marks & FAR == 0 { word.into() } else { self.0[word as usize] }
    }

    pub(super) fn bytes(&self) -> usize {
        self.0.len() * size_of::<u64>()
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(super) enum Kind {
    Unit,
    Odd,
    Landing,
}

/// A piece of code memory, and the guest pc that it belongs to. It ends where the next record's begins, and so do its items.
pub(super) struct Record {
    pc: u32,
    /// Place in code memory, way, `REMOVED`, `FAR`.
    start: u32,
    /// Where its items begin, and the kind.
    items: u32,
    /// The last exit that was joined to it, as a list through `Exit::next`, plus 1.
    pub(super) incoming: u32,
}

impl Record {
    /// `way`, for units: how it is come to beside by exits and landings.
    pub(super) fn new(pc: u64, start: u32, items: usize, kind: Kind, way: Way, far: &mut Far) -> Record {
        let (pc, mark) = far.pack(pc);
        let items = items as u32 | (kind as u32) << KIND;
        Record { pc, start: start | (way as u32) << WAY | mark, items, incoming: 0 }
    }

    /// Of code at this place that belongs to no guest pc.
    pub(super) fn of_no_unit(start: u32, items: usize) -> Record {
        Record::new(0, start, items, Kind::Landing, Way::Start, &mut Far::default())
    }

    #[inline]
    pub(super) fn pc(&self, far: &Far) -> u64 {
        far.unpack(self.pc, self.start)
    }

    pub(super) fn start(&self) -> u32 {
        self.start & PLACE
    }

    pub(super) fn items(&self) -> usize {
        (self.items & ((1 << KIND) - 1)) as usize
    }

    pub(super) fn kind(&self) -> Kind {
        match self.items >> KIND {
            0 => Kind::Unit,
            1 => Kind::Odd,
            _ => Kind::Landing,
        }
    }

    pub(super) fn way(&self) -> Way {
        match self.start >> WAY & 3 {
            0 => Way::Start,
            1 => Way::Falls,
            _ => Way::Returns,
        }
    }

    /// Marks it as removed; whether it has been already.
    pub(super) fn remove(&mut self) -> bool {
        let was = self.start & REMOVED != 0;
        self.start |= REMOVED;
        was
    }
}

/// A direct exit of a unit. Its number says where its stub is.
pub(super) struct Exit {
    target: u32,
    /// Place in code memory of the displacement, `LINKED` if it is joined to the unit of its target, `FAR`.
    at: u32,
    /// Next exit that is joined to the same unit, plus 1.
    pub(super) next: u32,
}

impl Exit {
    /// The displacement at place `at`, which leads to `target`.
    pub(super) fn new(at: u32, target: u64, far: &mut Far) -> Exit {
        let (target, mark) = far.pack(target);
        Exit { target, at: at | mark, next: 0 }
    }

    pub(super) fn target(&self, far: &Far) -> u64 {
        far.unpack(self.target, self.at)
    }

    pub(super) fn place(&self) -> u32 {
        self.at & PLACE
    }

    pub(super) fn is_linked(&self) -> bool {
        self.at & LINKED != 0
    }

    pub(super) fn set_linked(&mut self, linked: bool) {
        self.at = self.at & !LINKED | if linked { LINKED } else { 0 };
    }
}

/// Records by guest pc, of units and of what is the interpreter's.
#[derive(Default)]
pub(super) struct Index(HashTable<u32>);

impl Index {
    /// Fibonacci hashing; the table looks at both ends of a hash.
    fn hash(pc: u64) -> u64 {
        let product = pc.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        product ^ product >> 32
    }

    #[inline]
    pub(super) fn get(&self, pc: u64, records: &[Record], far: &Far) -> Option<u32> {
        self.0.find(Self::hash(pc), |&i| records[i as usize].pc(far) == pc).copied()
    }

    pub(super) fn insert(&mut self, index: u32, records: &[Record], far: &Far) {
        let pc = |index: u32| records[index as usize].pc(far);
        self.0.insert_unique(Self::hash(pc(index)), index, |&i| Self::hash(pc(i)));
    }

    pub(super) fn remove(&mut self, index: u32, records: &[Record], far: &Far) {
        if let Ok(entry) = self.0.find_entry(Self::hash(records[index as usize].pc(far)), |&i| i == index) {
            entry.remove();
        }
    }

    pub(super) fn bytes(&self) -> usize {
        self.0.len() * (size_of::<u32>() + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_hold_everything() {
        let mut far = Far::default();
        let last = MOST as u32 - 1;
        for pc in [0, 0x40_1000, 0xffff_ffff, 0x1_0000_0000, 0x3eff_0000_1234] {
            for kind in [Kind::Unit, Kind::Odd, Kind::Landing] {
                for way in [Way::Start, Way::Falls, Way::Returns] {
                    let mut record = Record::new(pc, last, last as usize, kind, way, &mut far);
                    for removed in [false, true] {
                        assert_eq!((record.pc(&far), record.start(), record.items()), (pc, last, last as usize));
                        assert_eq!((record.kind(), record.way(), record.remove()), (kind, way, removed));
                    }
                }
            }
            let mut exit = Exit::new(last, pc, &mut far);
            for linked in [false, true, false] {
                exit.set_linked(linked);
                assert_eq!((exit.target(&far), exit.place(), exit.is_linked()), (pc, last, linked));
            }
        }
    }
}
