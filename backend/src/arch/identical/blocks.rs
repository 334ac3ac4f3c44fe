//! All units of a process: where they are, how they are joined, and how they go out of use.
//!
//! One lock guards everything that the dispatcher changes. Units themselves run without it, and what it changes under them is a
//! single displacement (see `mod.rs`). Records are small and in the order of code memory, so a host pc is found by bisection.
//!
//! The host's signal handler takes the lock only when it has interrupted a unit or a landing: its thread does not hold it then.

use super::area::{Area, MOST_COUNTERS};
use super::emit::{Code, RCX, RIP, SPILL};
use super::enter;
use super::sites::{self, Phase, Rule};
use super::unit::{Counted, Exits, Translator, UnitExit, World};
use crate::cache::{CacheError, CodeMemory};
use hashbrown::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Where code memory lies if the addresses are free: 32-bit displacements reach the first 2 GiB of the address space from there, where
/// the runtime puts programs and libraries.
const PLACE: usize = 0x7000_0000;
/// Most bytes of code memory.
const MOST: usize = 0x0ff0_0000;

/// Why there is no unit.
#[derive(Debug, thiserror::Error)]
pub enum TranslateError {
    /// Code memory is used up: stop the world and [`Blocks::reset`].
    #[error("the code cache is full")]
    Full,
}

/// What is known of a guest pc.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Found {
    /// The host code of its unit.
    Unit(u64),
    /// Its instruction is the interpreter's.
    Odd,
}

/// What became of a guest pc.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Made {
    pub found: Found,
    /// Guest instructions of the unit.
    pub insns: u32,
    /// Bytes of its host code.
    pub len: usize,
}

/// What a signal handler does with the host pc that it has interrupted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Interruption {
    /// Not in a unit, or about to leave by itself.
    None,
    /// Registers are the guest's, but for `spilled`, whose value is in the area. The guest goes on at `pc`, or where
    /// the area says. `counted` is the counter of an instruction that has been counted and has not run.
    At { pc: Option<u64>, spilled: Option<u8>, counted: Option<u32> },
    /// Neither before nor behind a guest instruction: run one host instruction, then ask again.
    Step,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Unit,
    Odd,
    Landing,
}

struct Record {
    pc: u64,
    /// Place in code memory.
    start: u32,
    len: u32,
    /// Where its items begin; they end where the next record's do.
    items: u32,
    /// The last exit that was joined to it, as a list through `Exit::next`, plus 1.
    incoming: u32,
    kind: Kind,
    removed: bool,
}

/// A direct exit of a unit.
struct Exit {
    /// Place in code memory of the displacement, and of the stub.
    at: u32,
    stub: u32,
    target: u64,
    /// Next exit with the same target, plus 1.
    next: u32,
    /// The record that it is joined to, plus 1.
    linked: u32,
}

struct State {
    translator: Translator,
    by_pc: HashMap<u64, u32>,
    /// Place in code memory of the landings, and of the displacement of their jump.
    landings: HashMap<u64, (u32, u32)>,
    /// Place of the last landing made for an index. It goes on to the one before if the pc is another.
    heads: HashMap<u16, u32>,
    records: Vec<Record>,
    exits: Vec<Exit>,
    items: Vec<u8>,
    /// Records made from a guest page.
    pages: HashMap<u64, Vec<u32>>,
    /// Counters by guest pc.
    counters: HashMap<u64, u32>,
    buffer: Vec<u8>,
}

/// The units of a process.
pub struct Blocks {
    memory: CodeMemory,
    exits: Exits,
    miss: u64,
    gone: u64,
    state: Mutex<State>,
    /// Resets so far.
    generation: AtomicU64,
}

/// Units that nobody else can look up, make or drop for the moment.
pub struct Frozen<'a> {
    _state: MutexGuard<'a, State>,
}

const PAGE: u64 = 4096;

impl Blocks {
    /// No units, with room for `budget` bytes of code.
    pub fn new(budget: usize) -> Result<Blocks, CacheError> {
        let memory = CodeMemory::near(PLACE, budget.clamp(1 << 20, MOST))?;
        let mut header = Header::new(memory.base());
        let exits = Exits {
            link: header.thunk(enter::exit_link()),
            syscall: header.thunk(enter::exit_syscall()),
            odd: header.thunk(enter::exit_odd()),
            stop: header.thunk(enter::exit_stop()),
        };
        let (miss, gone) = (header.thunk(enter::exit_miss()), header.thunk(enter::exit_gone()));
        let state = State {
            translator: Translator::new(),
            by_pc: HashMap::new(),
            landings: HashMap::new(),
            heads: HashMap::new(),
            records: Vec::new(),
            exits: Vec::new(),
            items: Vec::new(),
            pages: HashMap::new(),
            counters: HashMap::new(),
            buffer: Vec::new(),
        };
        let blocks = Blocks { memory, exits, miss, gone, state: Mutex::new(state), generation: AtomicU64::new(0) };
        blocks.write_header(&header);
        Ok(blocks)
    }

    fn write_header(&self, header: &Header) {
        let at = self.memory.allocate(header.code.len()).expect("new code memory has room for its header");
        self.memory.write(at, &header.code.bytes);
    }

    /// From now on leaves to the interpreter what differs from run to run: before anything is translated.
    pub fn gate(&self) {
        self.lock().translator.gate();
    }

    /// From now on units count these instructions. Units that do otherwise go out of use.
    pub fn count(&self, what: Counted) {
        self.remove(0, u64::MAX);
        self.lock().translator.counted = what;
    }

    /// What units count.
    pub fn counted(&self) -> Counted {
        self.lock().translator.counted
    }

    /// The counter of the instruction at `pc`; 0 if there is no room for one.
    pub fn counter(&self, pc: u64) -> u32 {
        counter_of(&mut self.lock().counters, pc)
    }

    /// One more than the highest counter in use.
    pub fn counters(&self) -> u32 {
        self.lock().counters.len() as u32 + 1
    }

    /// An area for a thread.
    pub fn area(&self) -> std::io::Result<Area> {
        Area::new(self.miss)
    }

    /// Raised by each reset: areas are to be cleared.
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Keeps other threads from changing anything until the guard is dropped: around `fork`.
    pub fn freeze(&self) -> Frozen<'_> {
        Frozen { _state: self.lock() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// In the child after `fork`, before it runs units: gives the child code memory of its own.
    pub fn after_fork_in_child(&self) -> Result<(), CacheError> {
        self.memory.unshare()?;
        // While the child copied, the parent may have joined exits to units that the child does not have.
        let state = self.lock();
        for exit in &state.exits {
            let to = exit.linked.checked_sub(1).map_or(exit.stub, |i| state.records[i as usize].start);
            self.memory.patch(exit.at, to);
        }
        for (pc, &(_, jump)) in &state.landings {
            self.memory.patch(jump, self.landing_target(&state, *pc));
        }
        Ok(())
    }

    /// Where the landing of `pc` leads.
    fn landing_target(&self, state: &State, pc: u64) -> u32 {
        let gone = (self.gone - self.memory.base()) as u32;
        let record = state.by_pc.get(&pc).map(|&i| &state.records[i as usize]);
        record.filter(|record| record.kind == Kind::Unit).map_or(gone, |record| record.start)
    }

    /// What is known of `pc`.
    pub fn find(&self, pc: u64) -> Option<Found> {
        let state = self.lock();
        state.by_pc.get(&pc).map(|&i| self.found(&state.records[i as usize]))
    }

    fn found(&self, record: &Record) -> Found {
        match record.kind {
            Kind::Odd => Found::Odd,
            _ => Found::Unit(self.memory.base() + u64::from(record.start)),
        }
    }

    /// The target of an exit, and what is known of it; joins the two if it is a unit.
    pub fn follow(&self, exit: u32) -> (u64, Option<Found>) {
        let mut state = self.lock();
        let target = state.exits[exit as usize].target;
        let Some(&i) = state.by_pc.get(&target) else { return (target, None) };
        let found = self.found(&state.records[i as usize]);
        if found != Found::Odd {
            self.link(&mut state, exit, i);
        }
        (target, Some(found))
    }

    fn link(&self, state: &mut State, exit: u32, to: u32) {
        let record = &mut state.records[to as usize];
        let from = &mut state.exits[exit as usize];
        if from.linked == 0 {
            from.linked = to + 1;
            from.next = std::mem::replace(&mut record.incoming, exit + 1);
            self.memory.patch(from.at, record.start);
        }
    }

    /// Makes the unit at `pc`, or finds that there is none to be made. `read` copies guest code. Whether the bytes are
    /// still the same is the caller's to look after: it keeps others from calling `remove`, and `unchanged` says so before the unit can be found.
    /// `None` if they have changed.
    pub fn translate(
        &self,
        pc: u64,
        read: &mut dyn FnMut(u64, &mut [u8]) -> usize,
        unchanged: &mut dyn FnMut() -> bool,
    ) -> Result<Option<Made>, TranslateError> {
        let mut guard = self.lock();
        let state = &mut *guard;
        let start = self.memory.peek() as u32;
        let mut bytes = std::mem::take(&mut state.buffer);
        bytes.clear();
        let mut code = Code { bytes, base: self.memory.base() + u64::from(start) };
        let (by_pc, counters) = (&state.by_pc, &mut state.counters);
        let mut world = World {
            read,
            known: &|pc| by_pc.contains_key(&pc),
            counter: &mut |pc| counter_of(counters, pc),
            exits: self.exits,
            first_exit: state.exits.len() as u32,
        };
        let is_unit = state.translator.translate(pc, &mut code, &mut world);
        let result = if !unchanged() {
            Ok(None)
        } else if self.memory.allocate(code.len()).is_none() {
            Err(TranslateError::Full)
        } else {
            self.memory.write(start as usize, &code.bytes);
            let kind = if is_unit { Kind::Unit } else { Kind::Odd };
            let found = self.add(state, pc, start, code.len() as u32, kind);
            Ok(Some(Made { found, insns: state.translator.unit.insns, len: code.len() }))
        };
        state.buffer = code.bytes;
        result
    }

    /// Records what the translator has made, and joins what can be joined.
    fn add(&self, state: &mut State, pc: u64, start: u32, len: u32, kind: Kind) -> Found {
        let index = state.records.len() as u32;
        let first_exit = state.exits.len() as u32;
        state.records.push(Record {
            pc,
            start,
            len,
            items: state.items.len() as u32,
            incoming: 0,
            kind,
            removed: false,
        });
        state.by_pc.insert(pc, index);
        let unit = std::mem::take(&mut state.translator.unit);
        state.items.extend_from_slice(&unit.items);
        let odd = [(pc, 15)];
        for &(from, len) in if kind == Kind::Odd { &odd[..] } else { &unit.source[..] } {
            for page in (from / PAGE..=(from + u64::from(len) - 1) / PAGE).map(|page| page * PAGE) {
                let records = state.pages.entry(page).or_default();
                if records.last() != Some(&index) {
                    records.push(index);
                }
            }
        }
        if kind == Kind::Unit {
            let exit =
                |e: &UnitExit| Exit { at: start + e.at, stub: start + e.stub, target: e.target, next: 0, linked: 0 };
            state.exits.extend(unit.exits.iter().map(exit));
            for exit in first_exit..state.exits.len() as u32 {
                if let Some(&to) = state.by_pc.get(&state.exits[exit as usize].target)
                    && state.records[to as usize].kind == Kind::Unit
                {
                    self.link(state, exit, to);
                }
            }
            if let Some(&(_, jump)) = state.landings.get(&pc) {
                self.memory.patch(jump, start);
            }
        }
        state.translator.unit = unit;
        self.found(&state.records[index as usize])
    }

    /// The landing that computed jumps to `pc`, which has a unit, begin at; `None` if there is no room. From there they come to the
    /// landings of all pcs with the same index.
    pub fn landing(&self, pc: u64) -> Option<u64> {
        let mut guard = self.lock();
        let state = &mut *guard;
        let head = state.heads.get(&(pc as u16)).map(|&at| self.memory.base() + u64::from(at));
        if state.landings.contains_key(&pc) {
            return head;
        }
        let record = state.by_pc.get(&pc).map(|&i| &state.records[i as usize])?;
        let unit = if record.kind == Kind::Unit { record.start } else { return None };
        let start = self.memory.peek() as u32;
        let mut code = Code { bytes: Vec::with_capacity(64), base: self.memory.base() + u64::from(start) };
        let mut list = Vec::with_capacity(3);
        let next = head.unwrap_or(self.miss);
        let jump = write_landing(&mut code, &mut list, pc, next, self.memory.base() + u64::from(unit));
        self.memory.allocate(code.len())?;
        self.memory.write(start as usize, &code.bytes);
        let items = state.items.len() as u32;
        sites::put_sequence(&mut state.items, 0, &list);
        let len = code.len() as u32;
        state.records.push(Record { pc, start, len, items, incoming: 0, kind: Kind::Landing, removed: false });
        state.landings.insert(pc, (start, start + jump as u32));
        state.heads.insert(pc as u16, start);
        Some(code.base)
    }

    /// Takes the units made from guest bytes in `start..end` out of use.
    pub fn remove(&self, start: u64, end: u64) {
        let mut guard = self.lock();
        let state = &mut *guard;
        let first = start / PAGE * PAGE;
        let pages: Vec<u64> = if (end - first) / PAGE > state.pages.len() as u64 {
            state.pages.keys().copied().filter(|page| (first..end).contains(page)).collect()
        } else {
            (first..end).step_by(PAGE as usize).collect()
        };
        for page in pages {
            for index in state.pages.remove(&page).unwrap_or_default() {
                self.remove_record(state, index);
            }
        }
    }

    fn remove_record(&self, state: &mut State, index: u32) {
        let record = &mut state.records[index as usize];
        if std::mem::replace(&mut record.removed, true) {
            return;
        }
        let (pc, mut next) = (record.pc, std::mem::take(&mut record.incoming));
        state.by_pc.remove(&pc);
        while let Some(exit) = next.checked_sub(1) {
            let exit = &mut state.exits[exit as usize];
            next = std::mem::take(&mut exit.next);
            exit.linked = 0;
            self.memory.patch(exit.at, exit.stub);
        }
        if let Some(&(_, jump)) = state.landings.get(&pc) {
            self.memory.patch(jump, self.landing_target(state, pc));
        }
    }

    /// Gives all memory back. No thread may be inside a unit.
    pub fn reset(&self) {
        let mut state = self.lock();
        let header = self.memory.header(HEADER);
        self.memory.reset();
        let at = self.memory.allocate(HEADER).expect("empty code memory has room for its header");
        self.memory.write(at, &header);
        state.by_pc = HashMap::new();
        state.landings = HashMap::new();
        state.heads = HashMap::new();
        state.pages = HashMap::new();
        (state.records, state.exits, state.items) = (Vec::new(), Vec::new(), Vec::new());
        self.generation.fetch_add(1, Ordering::Release);
    }

    /// Whether a host pc is inside a unit, where registers are the guest's.
    pub fn contains(&self, host_pc: u64) -> bool {
        self.memory.offset(host_pc as usize).is_some()
    }

    /// What a signal handler does at this host pc. Takes the lock only if it is in code memory.
    pub fn interrupt(&self, host_pc: u64) -> Interruption {
        let Some(offset) = self.memory.offset(host_pc as usize) else { return Interruption::None };
        if offset < HEADER {
            return Interruption::None;
        }
        let state = self.lock();
        let next = state.records.partition_point(|record| record.start as usize <= offset);
        let Some(record) = next.checked_sub(1).map(|i| &state.records[i]) else { return Interruption::None };
        let inside = offset - record.start as usize;
        if inside >= record.len as usize {
            return Interruption::None;
        }
        let end = state.records.get(next).map_or(state.items.len(), |next| next.items as usize);
        match sites::find(&state.items[record.items as usize..end], record.pc, inside) {
            None => Interruption::None,
            Some(site) => match site.rule {
                Rule { phase: Phase::Before, spilled, counted } => Interruption::At {
                    pc: Some(site.pc),
                    spilled,
                    counted: counted.then(|| state.counters.get(&site.pc).copied().unwrap_or(0)),
                },
                Rule { phase: Phase::Done, spilled, .. } => Interruption::At { pc: None, spilled, counted: None },
                Rule { phase: Phase::Step, .. } => Interruption::Step,
            },
        }
    }

    /// The mappings of code memory as (address, length), which the guest must neither see nor touch.
    pub fn mappings(&self) -> [(usize, usize); 2] {
        self.memory.mappings()
    }

    /// Bytes of code, and of tables about it.
    pub fn sizes(&self) -> [u64; 2] {
        let state = self.lock();
        let table = state.records.len() * size_of::<Record>()
            + state.exits.len() * size_of::<Exit>()
            + state.items.len()
            + state.by_pc.len() * size_of::<(u64, u32)>()
            + state.landings.len() * size_of::<(u64, (u32, u32))>();
        [self.memory.used() as u64, table as u64]
    }
}

/// The counter of the instruction at `pc`, given out at its first translation.
fn counter_of(counters: &mut HashMap<u64, u32>, pc: u64) -> u32 {
    let next = counters.len() as u32 + 1;
    if (next as usize) < MOST_COUNTERS {
        *counters.entry(pc).or_insert(next)
    } else {
        counters.get(&pc).copied().unwrap_or(0)
    }
}

/// The landing of `pc`, which goes on at `next` if RIP is another; the offset of the displacement of its jump to `unit`.
fn write_landing(code: &mut Code, list: &mut Vec<(usize, Rule)>, pc: u64, next: u64, unit: u64) -> usize {
    let done = Rule::done_spilled(RCX);
    code.restore(RCX, RIP);
    list.push((code.len(), done));
    let begin = code.len();
    let minus = pc.wrapping_neg();
    if minus as i64 == i64::from(minus as i32) {
        code.add_rcx(minus as u32);
        list.push((code.len() - begin, done));
    } else {
        // All 64 bits: with RAX, which waits in the scratch word of the area meanwhile.
        const RAX: u8 = 0;
        code.save(enter::SCRATCH, RAX);
        code.load_constant(RAX, minus);
        code.add_rcx_reg(RAX);
        code.restore(RAX, enter::SCRATCH);
        list.push((code.len() - begin, Rule::STEP));
    }
    let begin = code.len();
    // jrcxz over the jump to `next`
    code.put(&[0xe3, 5]);
    code.jump(next);
    code.restore(RCX, SPILL);
    code.align_patch(1);
    code.put(&[0xe9]);
    let jump = code.len();
    code.relative(unit);
    list.push((code.len() - begin, done));
    jump
}

/// Code memory begins with jumps to the exits in `enter`, which 32-bit displacements may not reach from units.
struct Header {
    code: Code,
}

/// Bytes of one jump: `jmp [rip]` and the address.
const THUNK: usize = 14;
const HEADER: usize = 6 * THUNK;

impl Header {
    fn new(base: u64) -> Header {
        Header { code: Code { bytes: Vec::with_capacity(HEADER), base } }
    }

    fn thunk(&mut self, to: u64) -> u64 {
        let at = self.code.here();
        self.code.put(&[0xff, 0x25, 0, 0, 0, 0]);
        self.code.put(&to.to_le_bytes());
        at
    }
}
