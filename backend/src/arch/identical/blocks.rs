//! All units of a process: where they are, how they are joined, and how they go out of use.
//!
//! One lock guards everything that the dispatcher changes. Units themselves run without it, and what it changes under them is a
//! single displacement (see `mod.rs`). Records are small and in the order of code memory, so a host pc is found by bisection.
//!
//! The host's signal handler takes the lock only when it has interrupted a unit or a landing: its thread does not hold it then.

use super::area::{Area, MOST_COUNTERS};
use super::calls;
use super::classify::Avx512;
use super::emit::{Code, LAST_RETURN, RCX, RIP, RSP, SP, STRAYED, Sum, TRANSFER};
use super::enter;
use super::sites::{self, Away, Phase, Rule, Sequence, Site};
use super::tables::{Exit, Far, Index, Kind, MOST, Record};
use super::unit::{
    BEFORE_POINT, Check, Clocks, Counted, Entry, Exits, Profiler, Source, Translated, Translator, Way, World,
};
use crate::cache::{CacheError, CodeMemory};
use crate::sync::{AtomicBool, AtomicU64, Mutex, MutexGuard};
use hashbrown::{HashMap, HashSet};
use std::sync::PoisonError;
use std::sync::atomic::Ordering;

#[cfg(all(test, feature = "models"))]
#[path = "models.rs"]
mod models;

/// Where code memory lies if the addresses are free: 32-bit displacements reach the first 2 GiB of the address space from there, where
/// the runtime puts programs and libraries. Wine's loader is linked to 0x7d00_0000, and what Windows shares with programs is at 0x7ffe_0000.
const PLACE: usize = 0x6000_0000;
/// Changes of what a unit takes for constant, a checked one its constants and a linkage stub's its target, after which it depends on that no longer.
const CHANGES_OFTEN: u32 = 2;

/// Why there is no unit.
#[derive(Debug, thiserror::Error)]
pub enum TranslateError {
    /// Code memory is used up: stop the world and [`Blocks::reset`].
    #[error("the code cache is full")]
    Full,
    /// It is the first instruction of AVX-512: stop the world and [`Blocks::copy_avx512`].
    #[error("the state of AVX-512 is not kept")]
    Avx512,
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
pub(super) enum Interruption {
    /// Not in a unit, or about to leave by itself.
    None,
    /// Registers are the guest's, but for R11, which is in the area, and what is `away`. The guest goes on at `pc`, or where
    /// the area says. `counted` is the counter of an instruction that has been counted and has not run; `run`, where units are
    /// profiled, that of the instructions of a part, and how many of them have run; `fetches` says that the host instruction reads
    /// guest code.
    At { pc: Option<u64>, away: Away, counted: Option<u32>, run: [u32; 2], fetches: bool },
    /// Neither before nor behind a guest instruction, which is at `pc`: run one host instruction, then ask again.
    Step { pc: u64 },
}

/// Stubs of exits are made so many at a time, in places of their own: what is seldom run is not between what often is.
const STUBS: usize = 1024;
/// More than the exits of a unit.
const MOST_EXITS: usize = 256;

struct State {
    translator: Translator,
    by_pc: Index,
    /// Place in code memory of the displacement of the landings' jumps.
    landings: HashMap<u64, u32>,
    /// Place of the last landing made for an index. It goes on to the one before if the pc is another.
    heads: HashMap<u16, u32>,
    records: Vec<Record>,
    exits: Vec<Exit>,
    /// Addresses of records and exits.
    far: Far,
    /// Places in code memory of [`STUBS`] exits' stubs each.
    stubs: Vec<u32>,
    items: Vec<u8>,
    /// Records made from a guest page.
    pages: HashMap<u64, Vec<u32>>,
    /// Counters by guest pc.
    counters: HashMap<u64, u32>,
    /// Where units are profiled: the counter of a record's instructions, by its place.
    parts: HashMap<u32, u32>,
    /// How often the unit of a guest pc has found something changed.
    changes: HashMap<u64, u32>,
    /// Divisions that have faulted.
    guarded: HashSet<u64>,
    buffer: Vec<u8>,
}

impl State {
    fn new(translator: Translator, header: &Header) -> State {
        let returns = Record::of_no_unit(header.returns as u32, 0);
        State {
            translator,
            by_pc: Index::default(),
            landings: HashMap::new(),
            heads: HashMap::new(),
            records: vec![returns],
            exits: Vec::new(),
            far: Far::default(),
            stubs: Vec::new(),
            items: header.items.clone(),
            pages: HashMap::new(),
            counters: HashMap::new(),
            parts: HashMap::new(),
            changes: HashMap::new(),
            guarded: HashSet::new(),
            buffer: Vec::new(),
        }
    }
}

impl State {
    /// The guest pc that exit number `exit` leads to.
    fn target(&self, exit: u32) -> u64 {
        self.exits[exit as usize].target(&self.far)
    }

    /// Place in code memory of the stub of exit number `exit`: it says which exit that is, and leaves.
    fn stub(&self, exit: u32) -> u32 {
        stub_at(&self.stubs, exit)
    }

    /// Number of the record of `pc`.
    #[inline]
    fn find(&self, pc: u64) -> Option<u32> {
        self.by_pc.get(pc, &self.records, &self.far)
    }

    /// What stands at this place in code memory, and whose it is.
    fn site(&self, offset: usize) -> Option<(&Record, Site)> {
        let next = self.records.partition_point(|record| record.start() as usize <= offset);
        let record = &self.records[next.checked_sub(1)?];
        let inside = offset - record.start() as usize;
        let end = self.records.get(next).map_or(self.items.len(), Record::items);
        sites::find(&self.items[record.items()..end], record.pc(&self.far), inside).map(|site| (record, site))
    }
}

/// Place of an exit's stub in tables of them.
fn stub_at(tables: &[u32], exit: u32) -> u32 {
    tables[exit as usize / STUBS] + (exit as usize % STUBS * Code::STUB) as u32
}

/// The units of a process.
pub struct Blocks {
    memory: CodeMemory,
    header: Header,
    exits: Exits,
    miss: u64,
    gone: u64,
    no_call: u64,
    state: Mutex<State>,
    /// Resets so far.
    generation: AtomicU64,
    keeps_avx512: AtomicBool,
}

/// Units that nobody else can look up, make or drop for the moment.
pub struct Frozen<'a> {
    _state: MutexGuard<'a, State>,
}

const PAGE: u64 = 4096;

impl Blocks {
    /// No units, with room for `budget` bytes of code. Those that are profiled count in `sum`.
    pub fn new(budget: usize, sum: Sum) -> Result<Blocks, CacheError> {
        let memory = CodeMemory::near(PLACE, budget.clamp(1 << 20, MOST))?;
        let mut header = Header::new(memory.base(), sum);
        let (link, syscall) = (header.thunk(enter::exit_link()), header.thunk(enter::exit_syscall()));
        let (odd, miss) = (header.thunk(enter::exit_odd()), header.thunk(enter::exit_miss()));
        let (gone, stop) = (header.thunk(enter::exit_gone()), header.thunk(enter::exit_stop()));
        let (changed, often) = (header.thunk(enter::exit_changed()), header.thunk(enter::exit_often()));
        let Returns { no_call, no_return, no_point, strayed, look_up, jump, ret, tell } = header.returns(stop);
        let at = memory.allocate(header.code.len()).expect("new code memory has room for its header");
        memory.write(at, &header.code.bytes);
        let exits =
            Exits { link, syscall, odd, stop, changed, often, no_return, strayed, no_point, look_up, jump, ret, tell };
        let state = Mutex::new(State::new(Translator::new(), &header));
        Ok(Blocks {
            memory,
            header,
            exits,
            miss,
            gone,
            no_call,
            state,
            generation: AtomicU64::new(0),
            keeps_avx512: AtomicBool::new(false),
        })
    }

    /// From now on leaves to the interpreter what differs from run to run: before anything is translated.
    pub fn gate(&self) {
        self.lock().translator.gate();
    }

    /// From now on units read these clocks themselves, unless that is gated: before anything is translated.
    pub fn read(&self, clocks: Clocks) {
        self.lock().translator.read(clocks);
    }

    /// CPUID announces AVX-512: before anything is translated.
    pub fn await_avx512(&self) {
        self.lock().translator.set_avx512(Avx512::Awaited);
    }

    /// From now on copies instructions of AVX-512, and keeps their state. No thread may be inside a unit.
    pub fn copy_avx512(&self) {
        self.lock().translator.set_avx512(Avx512::Copied);
        self.keeps_avx512.store(true, Ordering::Release);
    }

    /// Whether the state of AVX-512 is kept. Threads inside units know it by [`Area::keep_avx512`].
    pub fn keeps_avx512(&self) -> bool {
        self.keeps_avx512.load(Ordering::Acquire)
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
        Area::new(self.gone, self.no_call, self.header.code.sum)
    }

    /// Where the host's return goes that belongs to a frame of the shadow stack (`Frame::point`) that no unit has pushed.
    pub fn no_point(&self) -> u64 {
        self.exits.no_point
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
        for (number, exit) in (0..).zip(&state.exits) {
            let linked = if exit.is_linked() { state.find(state.target(number)) } else { None };
            let to = linked.map_or_else(|| state.stub(number), |i| state.records[i as usize].start());
            self.memory.patch(exit.place(), to);
        }
        for (pc, &jump) in &state.landings {
            self.memory.patch(jump, self.landing_target(&state, *pc));
        }
        Ok(())
    }

    /// Where the landing of `pc` leads.
    fn landing_target(&self, state: &State, pc: u64) -> u32 {
        let gone = (self.gone - self.memory.base()) as u32;
        let record = state.find(pc).map(|i| &state.records[i as usize]);
        record.filter(|record| record.kind() == Kind::Unit).map_or(gone, Record::start)
    }

    /// What is known of `pc`.
    pub fn find(&self, pc: u64) -> Option<Found> {
        let state = self.lock();
        state.find(pc).map(|i| self.found(&state.records[i as usize]))
    }

    /// Host address and bytes of the code of the unit at `pc`, if there is one.
    pub fn place(&self, pc: u64) -> Option<(u64, usize)> {
        let state = self.lock();
        let i = state.find(pc)? as usize;
        let (record, next) = (&state.records[i], state.records.get(i + 1));
        let end = next.map_or(self.memory.peek(), |next| next.start() as usize);
        let start = record.start() as usize;
        (record.kind() == Kind::Unit).then(|| (self.memory.base() + start as u64, end - start))
    }

    fn found(&self, record: &Record) -> Found {
        match record.kind() {
            Kind::Odd => Found::Odd,
            _ => Found::Unit(self.memory.base() + u64::from(record.start())),
        }
    }

    /// The target of an exit. Code memory is not reset meanwhile.
    pub fn target(&self, exit: u32) -> u64 {
        self.lock().target(exit)
    }

    /// How many exits there are.
    #[cfg(test)]
    pub(super) fn exits(&self) -> u32 {
        self.lock().exits.len() as u32
    }

    /// What is known of `pc`, the target of an exit of code memory's `generation`; joins the two if it is a unit, and there still is that exit.
    pub fn follow(&self, exit: u32, pc: u64, generation: u64) -> Option<Found> {
        let mut state = self.lock();
        let i = state.find(pc)?;
        let found = self.found(&state.records[i as usize]);
        if found != Found::Odd && self.generation() == generation {
            self.link(&mut state, exit, i);
        }
        Some(found)
    }

    fn link(&self, state: &mut State, exit: u32, to: u32) {
        let record = &mut state.records[to as usize];
        let from = &mut state.exits[exit as usize];
        if !from.is_linked() {
            from.next = std::mem::replace(&mut record.incoming, exit + 1);
            self.memory.patch(from.place(), record.start());
            from.set_linked(true);
        }
    }

    /// The unit at `pc` has found that something is not as when it was made, a checked one its bytes, a linkage stub's its target: takes it out of use.
    pub fn changed(&self, pc: u64) {
        let mut guard = self.lock();
        let state = &mut *guard;
        if let Some(index) = state.find(pc) {
            *state.changes.entry(pc).or_default() += 1;
            self.remove_record(state, index);
        }
    }

    /// The division at `pc` has faulted: from now on units leave in front of it where it would again because it divides by zero.
    pub fn guard(&self, pc: u64) {
        if self.lock().guarded.insert(pc) {
            self.remove(pc, pc + 1);
        }
    }

    /// Makes the unit at `pc`, or finds that there is none to be made. `source` copies guest code. Whether the bytes are
    /// still the same is the caller's to look after: it keeps others from calling `remove`, and `unchanged` says so before the unit can be found.
    /// `None` if they have changed. With a profiler, the unit counts what it executes and keeps the shadow stack.
    pub fn translate(
        &self,
        pc: u64,
        profiler: Option<&mut dyn Profiler>,
        source: Source<'_>,
        unchanged: &mut dyn FnMut() -> bool,
    ) -> Result<Option<Made>, TranslateError> {
        let mut guard = self.lock();
        let state = &mut *guard;
        self.make_stubs(state)?;
        let start = self.memory.peek() as u32;
        let mut bytes = std::mem::take(&mut state.buffer);
        bytes.clear();
        let mut code = Code { bytes, base: self.memory.base() + u64::from(start), sum: self.header.code.sum };
        let (by_pc, records, far, counters) = (&state.by_pc, &state.records, &state.far, &mut state.counters);
        let (guarded, stubs) = (&state.guarded, &state.stubs);
        let changes_often = state.changes.get(&pc).is_some_and(|changes| *changes >= CHANGES_OFTEN);
        let (check, source) = match source {
            Source::Checked(bytes) => {
                (Some(if changes_often { Check::Loose } else { Check::Exact }), Source::Checked(bytes))
            }
            Source::Noticed { code, word } => (None, Source::Noticed { code, word }),
        };
        let mut world = World {
            source,
            check,
            changes_often,
            known: &|pc| by_pc.get(pc, records, far).is_some(),
            guarded: &|pc| guarded.contains(&pc),
            counter: &mut |pc| counter_of(counters, pc),
            profiler: profiler.map(|profiler| -> &mut dyn Profiler { profiler }),
            exits: self.exits,
            first_exit: state.exits.len() as u32,
            stub: &|exit| self.memory.base() + u64::from(stub_at(stubs, exit)),
        };
        let translated = state.translator.translate(pc, &mut code, &mut world);
        let is_unit = translated == Translated::Unit;
        let result = if !unchanged() {
            Ok(None)
        } else if translated == Translated::Avx512 {
            Err(TranslateError::Avx512)
        } else if check.is_some() && !is_unit {
            // Not for long, perhaps.
            Ok(Some(Made { found: Found::Odd, insns: 0, len: 0 }))
        } else if self.memory.allocate(code.len()).is_none() {
            Err(TranslateError::Full)
        } else {
            self.memory.write(start as usize, &code.bytes);
            let kind = if is_unit { Kind::Unit } else { Kind::Odd };
            let found = self.add(state, pc, start, kind);
            Ok(Some(Made { found, insns: state.translator.unit.insns, len: code.len() }))
        };
        state.buffer = code.bytes;
        result
    }

    /// Sees to it that there are stubs for the exits of one more unit.
    fn make_stubs(&self, state: &mut State) -> Result<(), TranslateError> {
        if state.exits.len() + MOST_EXITS <= state.stubs.len() * STUBS {
            return Ok(());
        }
        let first = (state.stubs.len() * STUBS) as u32;
        let start = self.memory.allocate(STUBS * Code::STUB).ok_or(TranslateError::Full)?;
        let bytes = Vec::with_capacity(STUBS * Code::STUB);
        let mut code = Code { bytes, base: self.memory.base() + start as u64, sum: self.header.code.sum };
        (first..first + STUBS as u32).for_each(|exit| code.stub(exit, self.exits.link));
        self.memory.write(start, &code.bytes);
        state.stubs.push(start as u32);
        state.records.push(Record::of_no_unit(start as u32, state.items.len()));
        Ok(())
    }

    /// Records what the translator has made, and joins what can be joined.
    fn add(&self, state: &mut State, pc: u64, start: u32, kind: Kind) -> Found {
        let index = state.records.len() as u32;
        let first_exit = state.exits.len() as u32;
        let unit = std::mem::take(&mut state.translator.unit);
        let items = state.items.len();
        let entries = [Entry { pc, at: 0, items: 0, way: Way::Start, counter: unit.counter }];
        let entries = entries.iter().chain(&unit.entries);
        for entry in entries.clone() {
            let (start, items) = (start + entry.at, items + entry.items as usize);
            let record = Record::new(entry.pc, start, items, kind, entry.way, &mut state.far);
            state.records.push(record);
            state.by_pc.insert(state.records.len() as u32 - 1, &state.records, &state.far);
            if entry.counter != 0 {
                state.parts.insert(start, entry.counter);
            }
        }
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
            let far = &mut state.far;
            state.exits.extend(unit.exits.iter().map(|exit| Exit::new(start + exit.at, exit.target, far)));
            for exit in first_exit..state.exits.len() as u32 {
                if let Some(to) = state.find(state.target(exit))
                    && state.records[to as usize].kind() == Kind::Unit
                {
                    self.link(state, exit, to);
                }
            }
            for entry in entries {
                if let Some(&jump) = state.landings.get(&entry.pc) {
                    self.memory.patch(jump, start + entry.at);
                }
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
        let record = state.find(pc).map(|i| &state.records[i as usize])?;
        let unit = if record.kind() == Kind::Unit { record.start() } else { return None };
        let start = self.memory.peek() as u32;
        let (bytes, sum) = (Vec::with_capacity(64), self.header.code.sum);
        let mut code = Code { bytes, base: self.memory.base() + u64::from(start), sum };
        let mut sequence = Sequence::at(0);
        let next = head.map_or(self.miss, |head| head + Code::MOVE_RCX_AWAY.len() as u64);
        let jump = write_landing(&mut code, &mut sequence, pc, next, self.memory.base() + u64::from(unit));
        self.memory.allocate(code.len())?;
        self.memory.write(start as usize, &code.bytes);
        let items = state.items.len();
        sites::put_sequence(&mut state.items, 0, sequence.list());
        state.records.push(Record::new(pc, start, items, Kind::Landing, Way::Start, &mut state.far));
        state.landings.insert(pc, start + jump as u32);
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
                let inner =
                    state.records[index as usize + 1..].iter().take_while(|record| record.way() != Way::Start).count();
                (index + 1..=index + inner as u32).for_each(|index| self.remove_record(state, index));
            }
        }
    }

    fn remove_record(&self, state: &mut State, index: u32) {
        let record = &mut state.records[index as usize];
        if record.remove() {
            return;
        }
        let (pc, mut next) = (record.pc(&state.far), std::mem::take(&mut record.incoming));
        if record.way() == Way::Returns {
            self.memory.clear_byte(record.start() - BEFORE_POINT);
        }
        state.by_pc.remove(index, &state.records, &state.far);
        while let Some(number) = next.checked_sub(1) {
            let stub = state.stub(number);
            let exit = &mut state.exits[number as usize];
            next = std::mem::take(&mut exit.next);
            exit.set_linked(false);
            self.memory.patch(exit.place(), stub);
        }
        if let Some(&jump) = state.landings.get(&pc) {
            self.memory.patch(jump, self.landing_target(state, pc));
        }
    }

    /// Gives all memory back. No thread may be inside a unit.
    pub fn reset(&self) {
        let mut state = self.lock();
        self.memory.reset();
        let at = self.memory.allocate(self.header.code.len()).expect("empty code memory has room for its header");
        self.memory.write(at, &self.header.code.bytes);
        let translator = std::mem::replace(&mut state.translator, Translator::new());
        let counters = std::mem::take(&mut state.counters);
        *state = State { counters, ..State::new(translator, &self.header) };
        self.generation.fetch_add(1, Ordering::Release);
    }

    /// Whether a host pc is inside a unit, where registers are the guest's.
    pub fn contains(&self, host_pc: u64) -> bool {
        self.memory.offset(host_pc as usize).is_some()
    }

    /// What a signal handler does at this host pc. Takes the lock only if it is in code memory.
    pub(super) fn interrupt(&self, host_pc: u64) -> Interruption {
        let Some(offset) = self.memory.offset(host_pc as usize) else { return Interruption::None };
        let state = self.lock();
        match state.site(offset) {
            None => Interruption::None,
            Some((record, site)) => match site.rule {
                Rule { phase: phase @ (Phase::Before | Phase::Fetch), away, counted } => Interruption::At {
                    pc: Some(site.pc),
                    away,
                    counted: counted.then(|| state.counters.get(&site.pc).copied().unwrap_or(0)),
                    run: [state.parts.get(&record.start()).copied().unwrap_or(0), site.before],
                    fetches: phase == Phase::Fetch,
                },
                Rule { phase: Phase::Done, away, .. } => {
                    Interruption::At { pc: None, away, counted: None, run: [0; 2], fetches: false }
                }
                Rule { phase: Phase::Step, .. } => Interruption::Step { pc: site.pc },
            },
        }
    }

    /// The guest instruction at a host pc, of which these are the low 32 bits.
    pub(super) fn guest_pc(&self, host_pc: u32) -> Option<u64> {
        let base = self.memory.base();
        let host_pc = base + u64::from(host_pc.wrapping_sub(base as u32));
        let offset = self.memory.offset(host_pc as usize)?;
        self.lock().site(offset).map(|(_, site)| site.pc)
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
            + state.far.bytes()
            + state.items.len()
            + state.by_pc.bytes()
            + state.landings.len() * size_of::<(u64, u32)>();
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

/// The landing of `pc`, which goes on at `next`, with RCX in R11, if RIP is another; the offset of the displacement of its jump to `unit`.
fn write_landing(code: &mut Code, sequence: &mut Sequence, pc: u64, next: u64, unit: u64) -> usize {
    code.move_rcx_away();
    sequence.rule(code.len(), Rule::DONE);
    code.restore(RCX, RIP);
    code.check_rip(pc, next);
    code.move_rcx_back();
    sequence.rule(code.len(), Rule::DONE_RCX_AWAY);
    code.align_patch(1);
    code.put(&[0xe9]);
    let jump = code.len();
    code.relative(unit);
    sequence.rule(code.len(), Rule::DONE);
    jump
}

/// Code memory begins with jumps to the exits in `enter`, which 32-bit displacements may not reach from units, and the
/// way of returns whose return point is not known.
struct Header {
    code: Code,
    /// Where that way begins, and its items.
    returns: usize,
    items: Vec<u8>,
}

impl Header {
    fn new(base: u64, sum: Sum) -> Header {
        Header { code: Code { bytes: Vec::new(), base, sum }, returns: 0, items: Vec::new() }
    }

    /// `jmp [rip]` and the address.
    fn thunk(&mut self, to: u64) -> u64 {
        let at = self.code.here();
        self.code.put(&[0xff, 0x25, 0, 0, 0, 0]);
        self.code.put(&to.to_le_bytes());
        at
    }

    /// The ways that units share: behind returns, and for profiles.
    fn returns(&mut self, stop: u64) -> Returns {
        self.returns = self.code.len();
        let mut sequence = Sequence::at(self.returns);
        let no_call = self.code.here();
        self.code.put_back_below();
        sequence.rule(self.code.len(), Rule::STEP);
        self.code.load_index();
        self.code.jump_landing();
        sequence.rule(self.code.len(), Rule::DONE);
        let no_return = self.code.here();
        self.code.move_rcx_back();
        sequence.rule(self.code.len(), Rule::DONE_RCX_AWAY);
        self.code.load_index();
        self.code.jump_landing();
        sequence.rule(self.code.len(), Rule::DONE);
        let no_point = self.code.here();
        self.code.put_back_below();
        self.code.move_rcx_away();
        let strayed = self.code.here();
        self.code.move_rcx_back();
        self.code.copy32(TRANSFER, LAST_RETURN);
        self.code.store32(STRAYED, 1);
        self.code.save(SP, RSP);
        self.code.jump(stop);
        let sum = self.code.sum;
        let fits = "the ways of profiles are encodable";
        let look_up = self.code.here();
        self.code.put(&calls::look_up(look_up, stop, sum).expect(fits));
        let jump = self.code.here();
        self.code.put(&calls::jump(jump, stop, sum).expect(fits));
        let ret = self.code.here();
        let (way, push) = calls::ret(ret, stop, sum).expect(fits);
        self.code.put(&way[..push]);
        sequence.rule(self.code.len(), Rule::STEP);
        self.code.put(&way[push..]);
        // A return from a stack that cannot be written to.
        sequence.rule(self.code.len() - way.len() + push + PUSH, Rule::DONE);
        let tell = self.code.here();
        self.code.unspill();
        self.code.save(SP, RSP);
        self.code.jump(stop);
        sequence.rule(self.code.len(), Rule::STEP);
        sites::put_sequence(&mut self.items, 0, sequence.list());
        Returns { no_call, no_return, no_point, strayed, look_up, jump, ret, tell }
    }
}

/// Bytes of `push r11`.
const PUSH: usize = 2;

/// See `Exits`.
struct Returns {
    /// Where returns come to that no call has left a return point for, and those that have come to another's, with RCX in R11.
    no_call: u64,
    no_return: u64,
    /// The same where units are profiled.
    no_point: u64,
    strayed: u64,
    look_up: u64,
    jump: u64,
    ret: u64,
    tell: u64,
}

#[cfg(all(test, not(feature = "models")))]
mod tests {
    use super::*;

    #[test]
    fn calls_and_returns_take_few_items() {
        let blocks = Blocks::new(1 << 20, Sum::InMemory).expect("there is memory");
        let before = blocks.lock().items.len();
        // call, forward; ret
        let bytes = [0xe8, 0, 1, 0, 0, 0xc3];
        let mut code = |pc: u64, buf: &mut [u8]| {
            let left = bytes.get((pc - 0x1000) as usize..).unwrap_or_default();
            buf[..left.len()].copy_from_slice(left);
            left.len()
        };
        let source = Source::Noticed { code: &mut code, word: &|_| None };
        assert!(matches!(blocks.translate(0x1000, None, source, &mut || true), Ok(Some(Made { insns: 2, .. }))));
        // The two as known sequences, the thunk's pc and steps.
        assert_eq!(blocks.lock().items[before..].len(), 2 + 2 + 5 + 2);
    }
}
