//! Code that is kept from one run of a program to the next: most of a start-up is the same every time, and lifting and emitting it is nearly all that
//! a short run costs.
//!
//! - **What.** Blocks as tier 0 emits them (`backend::emit::SavedBlock`), from fixed pages only (`smc.rs`): a file's. So the next run gets the same
//!   code for the same bytes at the same address; guests' layout is the same run after run.
//! - **When it is right.** A block depends on the guest bytes that were read to make it, those looked ahead at included; on how it was lifted and
//!   emitted ([`Conditions`]); on the host's features, and on Calque. The first are saved with the block and compared each time, the conditions are
//!   part of the key, and a file of another Calque or host is as good as none (`store.rs`). What the file says of the program is there to replace
//!   files that have become useless; nothing relies on it.
//! - **When it is made.** A run notes what it emits ([`Saved::arrive`]). When it ends by `exit_group` or `execve` and that were enough places,
//!   all those are lifted and emitted once more and appended to the file. Children of forks save nothing;
//!   neither does a program's first run, which only leaves a file to be filled by the next: many a program runs once.
//! - **When it is used.** At the first arrival, in place of the first runs of `cold.rs` and of lifting and emitting. What runs a few times is not
//!   saved: restoring a block takes as long as three of its first runs.
//!
//! A block in the file, in words:
//!
//! | words  | what                                                             |
//! |--------|------------------------------------------------------------------|
//! | 1      | number of words, these included                                  |
//! | 1      | key of its [`Conditions`]                                        |
//! | 1      | bytes of its own instructions                                    |
//! | 2      | how many ranges were read; how many words their bytes take       |
//! | 2      | checksum of what follows                                         |
//! | 3 each | ranges: start, length                                            |
//! | .      | their bytes, each range from a whole word on                     |
//! | .      | the block                                                        |

mod store;

use crate::lockstep;
use crate::options::RunOptions;
use crate::process::Process;
use crate::smc::GuestCode;
use crate::tier::{Code, lock};
use calque_backend::sync::{Mutex, MutexGuard};
use calque_backend::{EmitOptions, Emitted, Emitter, HostIsa, MemoryOrder, SAVED_CELLS, SavedBlock};
use calque_frontend::{LiftOptions, Lifted};
use calque_ir::GuestAddr;
use hashbrown::HashMap;
use std::hash::{Hash, Hasher};
use std::ops::Range;
use std::path::Path;
use store::Store;
use twox_hash::{XxHash3_64, XxHash64};

/// New blocks below which a run saves nothing; neither does it below this share of what is saved.
const FEWEST: usize = 64;
const SHARE: usize = 8;

/// Most blocks that one run saves: 200 million instructions at its end.
const MOST: usize = 16 << 10;

/// Words that a block takes on average: three times what its code does.
const TYPICAL: usize = 112;

/// Words in front of a block's ranges.
const HEAD: usize = 7;

/// What emitted code depends on beside guest bytes, host and Calque.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Conditions {
    pub(crate) lift: LiftOptions,
    pub(crate) order: MemoryOrder,
}

impl Conditions {
    fn key(&self) -> u32 {
        let mut hasher = XxHash64::with_seed(0);
        self.hash(&mut hasher);
        hasher.finish() as u32
    }
}

/// The conditions asked for last, and their key: they change with an invalidation of all code only, and another epoch begins behind the change.
#[derive(Default)]
pub(crate) struct Now(Option<(u64, World)>);

/// Conditions, and their key.
pub(crate) type World = (u32, Conditions);

impl Now {
    /// The conditions in this epoch, which `code` is asked for if it is new.
    pub(crate) fn world(&mut self, epoch: u64, code: &Code) -> &World {
        if self.0.as_ref().is_none_or(|known| known.0 != epoch) {
            let conditions = code.conditions();
            self.0 = Some((epoch, (conditions.key(), conditions)));
        }
        &self.0.as_ref().expect("it has just been made").1
    }
}

/// What earlier runs have saved, and what this one may.
pub(crate) struct Saved {
    store: Store,
    words: Vec<u32>,
    index: HashMap<(u64, u32), Range<usize>>,
    /// None in children of forks: what a shell's do would be worth saving once and not in each, and what they share with their parent is
    /// its to save.
    arrived: Mutex<Option<Arrived>>,
}

/// What this run has emitted, as nothing was saved.
#[derive(Default)]
pub(crate) struct Arrived {
    places: Vec<(GuestAddr, u32)>,
    worlds: Vec<World>,
}

impl Arrived {
    fn note(&mut self, pc: GuestAddr, world: &World) {
        if self.places.len() == 4 * MOST {
            return;
        }
        if !self.worlds.iter().any(|known| known.0 == world.0) {
            self.worlds.push(*world);
        }
        self.places.push((pc, world.0));
    }
}

/// What keeps other threads out.
pub(crate) type FrozenSaved<'a> = MutexGuard<'a, Option<Arrived>>;

impl Saved {
    /// What is saved in `dir` of `program`; `None` if nothing can be.
    pub(crate) fn open(dir: &Path, program: &Path, host: &HostIsa) -> Option<Self> {
        let (store, words) = Store::open(dir, program, host)?;
        let index = index(&words);
        Some(Self { store, words, index, arrived: Mutex::new(Some(Arrived::default())) })
    }

    /// Whether there is a block for `pc`, by the looks of it.
    pub(crate) fn knows(&self, pc: GuestAddr, world: &World) -> bool {
        self.index.contains_key(&(pc.0, world.0))
    }

    /// The block for `pc` if guest memory is what it was made from.
    pub(crate) fn find(&self, pc: GuestAddr, world: &World, code: &GuestCode<'_>) -> Option<Found<'_>> {
        let found = Found::read(&self.words[self.index.get(&(pc.0, world.0))?.clone()])?;
        found.ranges().all(|(start, bytes)| code.holds(start, bytes)).then_some(found)
    }

    /// Notes that a block is emitted at `pc` that was not saved.
    pub(crate) fn arrive(&self, pc: GuestAddr, world: &World) {
        if let Some(arrived) = &mut *lock(&self.arrived) {
            arrived.note(pc, world);
        }
    }

    /// Keeps other threads out until the guard is dropped.
    pub(crate) fn freeze(&self) -> FrozenSaved<'_> {
        lock(&self.arrived)
    }

    /// In the child of a fork.
    pub(crate) fn after_fork_in_child(&self) {
        *lock(&self.arrived) = None;
    }

    /// The new places, and under which conditions they are wanted; none if there are too few.
    fn take_arrived(&self) -> Arrived {
        let mut arrived = lock(&self.arrived).take().unwrap_or_default();
        arrived.places.sort_unstable();
        arrived.places.dedup();
        arrived.places.retain(|&(pc, key)| !self.index.contains_key(&(pc.0, key)));
        if arrived.places.len() < FEWEST.max(self.index.len() / SHARE) {
            return Arrived::default();
        }
        arrived.places.truncate(MOST);
        arrived
    }
}

/// Where blocks are in a file's words.
fn index(words: &[u32]) -> HashMap<(u64, u32), Range<usize>> {
    let mut index = HashMap::with_capacity(words.len() / TYPICAL);
    let mut at = 0;
    while let Some(&len) = words.get(at) {
        let range = at..at + len as usize;
        let Some(record) = words.get(range.clone()).filter(|record| record.len() > HEAD) else { break };
        if let Some(pc) = pc_of(record) {
            index.insert((pc, record[1]), range.clone());
        }
        at = range.end;
    }
    index
}

/// The guest pc of a block, which stands behind what it was made from.
fn pc_of(record: &[u32]) -> Option<u64> {
    let at = HEAD + 3 * record[3] as usize + record[4] as usize;
    let &[low, high] = record.get(at..at + 2)? else { return None };
    Some(whole(low, high))
}

fn whole(low: u32, high: u32) -> u64 {
    u64::from(low) | u64::from(high) << 32
}

/// A block that was found.
pub(crate) struct Found<'a> {
    pub(crate) block: SavedBlock<'a>,
    /// Where its own instructions are.
    pub(crate) source: (GuestAddr, u32),
    ranges: &'a [[u32; 3]],
    bytes: &'a [u8],
}

impl<'a> Found<'a> {
    /// `None` if it is not what was written.
    fn read(record: &'a [u32]) -> Option<Self> {
        let (&[_, _, source, ranges, bytes, low, high], rest) = record.split_first_chunk()?;
        if checksum(rest) != [low, high] {
            return None;
        }
        let (ranges, rest) = rest.split_at_checked(3 * ranges as usize)?;
        let (bytes, rest) = rest.split_at_checked(bytes as usize)?;
        let block = SavedBlock::read(rest)?;
        let bytes = bytemuck::cast_slice(bytes);
        Some(Self { block, source: (block.pc, source), ranges: ranges.as_chunks().0, bytes })
    }

    /// What was read to make it: where, and the bytes.
    fn ranges(&self) -> impl Iterator<Item = (GuestAddr, &'a [u8])> + use<'a> {
        let (mut at, bytes) = (0, self.bytes);
        self.ranges.iter().map(move |&[low, high, len]| {
            let range = at..(at + len as usize).min(bytes.len());
            at = range.end.next_multiple_of(4);
            (GuestAddr(whole(low, high)), &bytes[range])
        })
    }
}

fn checksum(words: &[u32]) -> [u32; 2] {
    let sum = XxHash3_64::oneshot(bytemuck::cast_slice(words));
    [sum as u32, (sum >> 32) as u32]
}

/// Puts a block behind `words`, with what was read to make it.
fn write(words: &mut Vec<u32>, key: u32, emitted: &Emitted<'_>, source_len: u32, read: &[(GuestAddr, Box<[u8]>)]) {
    let start = words.len();
    let bytes: usize = read.iter().map(|(_, bytes)| bytes.len().div_ceil(4)).sum();
    words.extend([0, key, source_len, read.len() as u32, bytes as u32, 0, 0]);
    for (pc, bytes) in read {
        words.extend([pc.0 as u32, (pc.0 >> 32) as u32, bytes.len() as u32]);
    }
    for (_, bytes) in read {
        let (whole, rest) = bytes.as_chunks::<4>();
        words.extend(whole.iter().map(|word| u32::from_ne_bytes(*word)));
        if !rest.is_empty() {
            let mut last = [0; 4];
            last[..rest.len()].copy_from_slice(rest);
            words.push(u32::from_ne_bytes(last));
        }
    }
    emitted.save(words);
    words[start] = (words.len() - start) as u32;
    [words[start + 5], words[start + 6]] = checksum(&words[start + HEAD..]);
}

impl Code {
    /// From now on code of `program` is used that earlier runs have saved, if this engine does so.
    pub(crate) fn use_saved(&self, options: &RunOptions, program: &Path) {
        let (Some(jit), Some(dir)) = (&self.jit, &options.cache_dir) else { return };
        let is_plain = !options.perf && lockstep::place().is_none();
        if self.emits
            && is_plain
            && let Some(saved) = Saved::open(dir, program, &jit.host)
        {
            assert!(self.saved.set(saved).is_ok(), "one program in a process");
        }
    }

    /// How blocks are emitted now.
    pub(crate) fn conditions(&self) -> Conditions {
        Conditions { lift: self.emitted_options(), order: self.memory_order() }
    }

    /// Saves what this run has come by, before it ends.
    pub(crate) fn save(&self, process: &Process) {
        let (Some(saved), Some(jit)) = (self.saved.get(), &self.jit) else { return };
        let arrived = saved.take_arrived();
        if !arrived.places.is_empty() && !saved.store.is_begun() {
            return saved.store.begin();
        }
        let mut emitter = Emitter::new(jit.host.clone());
        let (mut lifted, mut words) = (Lifted::default(), Vec::new());
        for (pc, key) in arrived.places {
            let Some((_, conditions)) = arrived.worlds.iter().find(|world| world.0 == key) else { continue };
            let code = GuestCode::noting(&process.mem);
            if !code.may_run(pc) {
                continue;
            }
            code.lift_block(&mut lifted, pc, &conditions.lift);
            let options = EmitOptions {
                memory_order: conditions.order,
                first_cell: SAVED_CELLS,
                precise_everywhere: conditions.lift.precise_everywhere,
            };
            let &[(_, source_len)] = &lifted.region().source[..] else { continue };
            let (Some(read), Ok(emitted)) = (code.noted(), emitter.emit(lifted.region(), &options)) else { continue };
            write(&mut words, key, &emitted, source_len, &read);
        }
        if !words.is_empty() {
            saved.store.append(&words);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn emitted(pc: u64) -> Emitted<'static> {
        Emitted {
            pc: GuestAddr(pc),
            code: &[1, 2, 3],
            hot_words: 3,
            first_cell: SAVED_CELLS,
            numbers: &[],
            exits: &[],
            pcs: &[(0, GuestAddr(0x1000))],
            guest_insns: 1,
        }
    }

    fn file(pcs: &[u64]) -> Vec<u32> {
        let mut words = Vec::new();
        for &pc in pcs {
            let read =
                [(GuestAddr(pc), Box::from(&b"\x90\x90\xc3"[..])), (GuestAddr(pc + 64), Box::from(&b"abcd"[..]))];
            write(&mut words, 7, &emitted(pc), 3, &read);
        }
        words
    }

    #[test]
    fn blocks_are_found_with_what_they_were_made_from() {
        let words = file(&[0x1000, 0x7fff_1234_5678]);
        let index = index(&words);
        assert_eq!(index.len(), 2);
        let found = Found::read(&words[index[&(0x7fff_1234_5678, 7)].clone()]).expect("it is whole");
        assert_eq!(found.source, (GuestAddr(0x7fff_1234_5678), 3));
        let ranges: Vec<_> = found.ranges().collect();
        assert_eq!(
            ranges,
            [(GuestAddr(0x7fff_1234_5678), &b"\x90\x90\xc3"[..]), (GuestAddr(0x7fff_1234_56b8), &b"abcd"[..])]
        );
    }

    #[test]
    fn damage_is_noticed() {
        let whole = file(&[0x1000]);
        for at in 5..whole.len() {
            let mut words = whole.clone();
            words[at] ^= 0x10;
            assert!(Found::read(&words).is_none(), "word {at}");
        }
        for len in 0..whole.len() {
            assert!(index(&whole[..len]).is_empty(), "{len} words");
        }
        let twice = file(&[0x1000, 0x2000]);
        assert_eq!(index(&twice[..twice.len() - 1]).len(), 1, "what is whole is of use");
    }

    #[test]
    fn conditions_differ_by_key() {
        let base = Conditions { lift: LiftOptions::default(), order: MemoryOrder::Plain };
        let precise = Conditions { lift: LiftOptions { precise: true, ..base.lift }, ..base };
        let ordered = Conditions { order: MemoryOrder::Tso, ..base };
        let keys = [base, precise, ordered, base].map(|conditions| conditions.key());
        assert_eq!(keys[0], keys[3]);
        assert!(keys[0] != keys[1] && keys[0] != keys[2] && keys[1] != keys[2]);
    }
}
