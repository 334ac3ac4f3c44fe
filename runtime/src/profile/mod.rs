//! Profiles: exact counts of executed guest instructions, by block, by context and by call.
//!
//! | file           | what                                                                      |
//! |----------------|---------------------------------------------------------------------------|
//! | `blocks.rs`    | which instructions each counter counts                                    |
//! | `counters.rs`  | the counters' memory                                                      |
//! | `recorder.rs`  | a thread's calls and contexts                                             |
//! | `shadow.rs`    | the memory of its shadow call stack                                       |
//! | `elf.rs`       | functions of ELF files                                                    |
//! | `functions.rs` | functions of guest addresses                                              |
//! | `report.rs`    | everything put together, for whoever writes it down                       |
//! | `perf.rs`      | `--perf`: what Linux's `perf` wants to know of translations               |
//!
//! The lifter ends each block with a `count` and calls a helper where control may leave a function
//! (`LiftOptions::profile`); [`Profile::assign`] gives each `count` its counter. An instruction is counted when it is complete, as
//! a processor's counter of retired instructions does: those that fault are not, REP counts as one however often it repeats. A block
//! that a fault leaves in the middle has not reached its `count`; [`Profile::left_early`] sees to what it has executed before.
//!
//! # Who may touch what
//! 1. A [`Recording`] belongs to its guest thread: helpers work on it while the thread is inside generated code, with no lock; everything
//!    else (the interpreter, signals, faults) holds the recording's lock.
//! 2. [`Profile::write`] stops the world, so that nobody is inside generated code, and takes each recording's lock.
//! 3. Locks nest in this order: the translator's, `recordings`, a recording's, `tables`, those of memory. So `fork` takes them
//!    (`Process::before_fork`).
//! 4. A process writes its profile when it ends, and one time only: whoever comes first keeps the lock. A vfork child is a guest of its parent's
//!    process and is counted there until it executes something.
//!
//! # Safety
//! `cpu.rt.recorder` points to the recording of the thread whose registers `cpu` are, from [`Thread::start_recording`] to
//! [`Thread::stop_recording`]; rules 1 and 2 keep references to it apart.

#![allow(unsafe_code)]

mod blocks;
mod counters;
mod elf;
mod functions;
pub mod perf;
mod recorder;
pub mod report;
mod shadow;

pub(crate) use blocks::Blocks;
pub(crate) use counters::{Counters, bump};
pub(crate) use functions::Place;

use crate::arch;
use crate::options::RunOptions;
use crate::process::Process;
use crate::signal::AltStack;
use crate::thread::Thread;
use crate::world::{LONG_STOP, World};
use calque_ir::{CpuState, GuestAddr, Helper, Op, Region};
use functions::{Found, FunctionTable};
use hashbrown::{DefaultHashBuilder, HashMap, HashTable};
use recorder::{Recorder, Transfer};
use report::{Merged, Report};
use std::cell::UnsafeCell;
use std::ffi::OsString;
use std::hash::BuildHasher;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

/// How to profile.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ProfileOptions {
    /// Arguments of `calque profile` that children get, too.
    pub arguments: Vec<OsString>,
    /// The process that was profiled first.
    pub root: u32,
    /// How many programs this process has executed before.
    pub images: u32,
    pub wanted: Wanted,
    pub registers: Registers,
}

/// Which of the host's registers units count in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Registers {
    All,
    /// As on a host that has no AVX-512: for tests.
    WithoutAvx512,
}

/// What a report is to hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wanted {
    Everything,
    /// Only how many instructions there were.
    Total,
}

impl ProfileOptions {
    /// Arguments for a program that is executed in place of this one.
    pub fn to_args(&self) -> Vec<OsString> {
        let mut args = self.arguments.clone();
        args.push(format!("--root={}", self.root).into());
        args.push(format!("--image={}", self.images + 1).into());
        if self.registers == Registers::WithoutAvx512 {
            args.push("--narrow".into());
        }
        args
    }

    /// Whether the process that ends is the one that was profiled first.
    pub fn is_root(&self, report: &Report) -> bool {
        self.root == report.pid
    }
}

/// Writes a report down; called by the thread that ends the process, or executes another program.
pub type Writer = fn(&Report, &ProfileOptions);

static WRITER: OnceLock<Writer> = OnceLock::new();

/// Says what is to be made of the numbers at the end.
pub fn set_writer(writer: Writer) {
    WRITER.get_or_init(|| writer);
}

/// Finds functions, for recorders.
trait Lookup {
    /// The function at `pc`; `entered`: it is called there.
    fn function(&self, pc: u64, entered: bool) -> Found;
    /// Transfers from number `first` on.
    fn transfers(&self, first: usize, each: &mut dyn FnMut(Transfer));
}

/// The profile of a process.
pub(crate) struct Profile {
    options: ProfileOptions,
    tables: Mutex<Tables>,
    recordings: Mutex<Recordings>,
    /// The process that is profiled: not the vfork child that runs in its memory.
    pid: AtomicU32,
    writing: Mutex<()>,
}

struct Tables {
    functions: FunctionTable,
    blocks: Blocks,
    /// Counters of the instructions of compiled regions: by entry of the code, in the order of pcs.
    regions: HashMap<usize, Box<[(GuestAddr, u32)]>>,
    /// Transfers of control that units tell of, and their numbers.
    transfers: Vec<Transfer>,
    transfer_numbers: HashTable<u32>,
    hasher: DefaultHashBuilder,
}

#[derive(Default)]
struct Recordings {
    running: Vec<Arc<Recording>>,
    /// What threads have executed that are gone.
    ended: Merged,
}

/// What a thread records in.
pub(crate) struct Recording {
    counters: Counters,
    /// The thread's registers.
    cpu: *const CpuState,
    lock: Mutex<()>,
    recorder: UnsafeCell<Recorder>,
}

// SAFETY: `recorder` and `cpu` are only used under rules 1 and 2; `stop_recording` takes the recording off the list before the registers go.
unsafe impl Send for Recording {}
// SAFETY: as above.
unsafe impl Sync for Recording {}

impl Recording {
    /// The thread's sum.
    fn now(&self) -> u64 {
        // SAFETY: the registers outlive the recording's time in the list. Volatile: their thread may be in the interpreter, one
        // instruction further.
        unsafe { (&raw const (*self.cpu).rt.insns).read_volatile() }
    }

    /// The recorder, for what units leave to it.
    ///
    /// # Safety
    /// Rule 1: the calling thread is the recording's, and counts as inside generated code; and there is no other reference.
    #[expect(clippy::mut_from_ref, reason = "the cell is the thread's")]
    unsafe fn of_units(&self) -> &mut Recorder {
        // SAFETY: rule 1.
        unsafe { &mut *self.recorder.get() }
    }

    /// Units go on from here: address of the last frame of the shadow stack, and whether a signal handler runs.
    ///
    /// # Safety
    /// As `of_units`.
    #[cfg_attr(not(target_arch = "x86_64"), expect(dead_code, reason = "there are no units"))]
    pub(crate) unsafe fn before_units(&self) -> (u64, bool) {
        // SAFETY: the caller's.
        unsafe { self.of_units() }.frame()
    }

    /// Units have left the shadow stack with its last frame there, the thread's sum at `now`, and perhaps a transfer to `pc`.
    ///
    /// # Safety
    /// As `of_units`.
    #[cfg_attr(not(target_arch = "x86_64"), expect(dead_code, reason = "there are no units"))]
    pub(crate) unsafe fn after_units(&self, frame: u64, now: u64, left: Option<arch::Transfer>, pc: u64) {
        // SAFETY: the caller's.
        let recorder = unsafe { self.of_units() };
        recorder.set_frame(frame);
        if let Some(left) = left {
            recorder.transfer(now, &left, pc, &Current);
        }
    }

    /// Code memory was given back.
    ///
    /// # Safety
    /// As `of_units`.
    #[cfg_attr(not(target_arch = "x86_64"), expect(dead_code, reason = "there are no units"))]
    pub(crate) unsafe fn forget_points(&self) {
        // SAFETY: the caller's.
        unsafe { self.of_units() }.forget_points();
    }

    /// Works on the recorder while its thread does not.
    fn with<R>(&self, work: impl FnOnce(&mut Recorder) -> R) -> R {
        let _guard = lock(&self.lock);
        // SAFETY: rules 1 and 2: the thread is the caller's own, outside generated code, or stands still.
        work(unsafe { &mut *self.recorder.get() })
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The profile at rest, for `fork`.
pub(crate) struct Frozen<'a> {
    _recordings: MutexGuard<'a, Recordings>,
    _tables: MutexGuard<'a, Tables>,
}

impl Lookup for Profile {
    fn function(&self, pc: u64, entered: bool) -> Found {
        lock(&self.tables).functions.at(GuestAddr(pc), entered)
    }

    fn transfers(&self, first: usize, each: &mut dyn FnMut(Transfer)) {
        lock(&self.tables).transfers[first..].iter().copied().for_each(each);
    }
}

impl Profile {
    /// The profile that the options ask for.
    pub(crate) fn new(options: &RunOptions) -> Option<Profile> {
        Some(Profile {
            options: options.profile.clone()?,
            tables: Mutex::new(Tables {
                functions: FunctionTable::new(options.debug_dirs.clone()),
                blocks: Blocks::default(),
                regions: HashMap::new(),
                transfers: Vec::new(),
                transfer_numbers: HashTable::new(),
                hasher: DefaultHashBuilder::default(),
            }),
            recordings: Mutex::default(),
            pid: AtomicU32::new(std::process::id()),
            writing: Mutex::default(),
        })
    }

    /// Gives each `count` of a region its counter.
    pub(crate) fn assign(&self, region: &mut Region) {
        let mut tables = lock(&self.tables);
        let Tables { functions, blocks, .. } = &mut *tables;
        blocks.assign(region, &mut |pc| functions.place(pc));
    }

    /// What is mapped at `pc`, for units.
    #[cfg_attr(not(target_arch = "x86_64"), expect(dead_code, reason = "there are no units"))]
    pub(crate) fn place(&self, pc: GuestAddr) -> Place {
        lock(&self.tables).functions.place(pc)
    }

    /// The counter of the instructions of these lengths from `pc` on, for units.
    #[cfg_attr(not(target_arch = "x86_64"), expect(dead_code, reason = "there are no units"))]
    pub(crate) fn counter_of_part(&self, pc: GuestAddr, lengths: &[u8], place: Place) -> u32 {
        lock(&self.tables).blocks.counter(pc, lengths, place)
    }

    /// The number of a transfer of control, from 1, for units.
    #[cfg_attr(not(target_arch = "x86_64"), expect(dead_code, reason = "there are no units"))]
    pub(crate) fn transfer(&self, event: Helper, site: u64, target: Option<u64>, counter: u32) -> u32 {
        let mut tables = lock(&self.tables);
        let Tables { transfers, transfer_numbers, hasher, .. } = &mut *tables;
        let transfer = Transfer { event, site, target, counter };
        let hash = hasher.hash_one(transfer);
        let known = transfer_numbers.find(hash, |number| transfers[*number as usize - 1] == transfer);
        known.copied().unwrap_or_else(|| {
            transfers.push(transfer);
            let number = transfers.len() as u32;
            transfer_numbers.insert_unique(hash, number, |number| hasher.hash_one(transfers[*number as usize - 1]));
            number
        })
    }

    /// Remembers the counters of a region that is compiled at host address `code`: a host fault there only gives a guest pc.
    pub(crate) fn compiled(&self, code: usize, region: &Region) {
        let mut tables = lock(&self.tables);
        let mut counters: Vec<(GuestAddr, u32)> = Vec::new();
        for inst in region.insts.iter().filter(|inst| inst.op == Op::Count) {
            let counter = inst.counted().1;
            let block = tables.blocks.get(counter);
            counters.extend(block.iter().flat_map(|block| block.insns()).map(|(pc, _)| (GuestAddr(pc), counter)));
        }
        counters.sort_unstable();
        tables.regions.insert(code, counters.into());
    }

    /// The counter of the instruction at `pc` in the region compiled at `code`.
    pub(crate) fn counter(&self, code: usize, pc: GuestAddr) -> u32 {
        let tables = lock(&self.tables);
        let Some(counters) = tables.regions.get(&code) else { return 0 };
        counters.binary_search_by_key(&pc, |&(at, _)| at).map_or(0, |i| counters[i].1)
    }

    /// The counter of the `count` in `region` that the instruction at `pc` stands in front of.
    pub(crate) fn counter_in(&self, region: &Region, pc: GuestAddr) -> u32 {
        let tables = lock(&self.tables);
        let counts = region.insts.iter().filter(|inst| inst.op == Op::Count);
        let holds = |counter: &u32| tables.blocks.get(*counter).is_some_and(|block| block.before(pc).is_some());
        counts.map(|inst| inst.counted().1).find(holds).unwrap_or(0)
    }

    /// What is certainly in the function around `from`, from where to where, and whether it is a linkage stub.
    pub(crate) fn extent(&self, from: GuestAddr) -> (u64, u64, bool) {
        let found = lock(&self.tables).functions.at(from, false);
        (found.low, found.high, found.stub)
    }

    /// Keeps other threads out until the guard is dropped: for `fork`.
    pub(crate) fn freeze(&self) -> Frozen<'_> {
        Frozen { _recordings: lock(&self.recordings), _tables: lock(&self.tables) }
    }

    /// In the child of a fork: counts from zero, and only what the calling thread does.
    pub(crate) fn after_fork_in_child(&self, survivor: &AtomicU32) {
        self.pid.store(std::process::id(), Ordering::Relaxed);
        let mut recordings = lock(&self.recordings);
        recordings.ended = Merged::default();
        // SAFETY: the registers are those of a thread of the parent's, whose memory the child has a copy of.
        recordings.running.retain(|r| std::ptr::eq(unsafe { &raw const (*r.cpu).rt.interrupt }, survivor));
        for recording in &recordings.running {
            // SAFETY: nobody else is left, and the calling thread is not in generated code.
            let recorder = unsafe { &mut *recording.recorder.get() };
            recorder.clear();
            recording.counters.clear();
        }
    }

    /// Whether this is the profiled process itself.
    fn is_own(&self) -> bool {
        self.pid.load(Ordering::Relaxed) == std::process::id()
    }

    /// Writes the profile, because the process ends as `how` says or executes another program. Once it has ended, nobody comes back from here.
    fn write(&self, world: &World, interrupt: u32, ends: Ends) {
        if !self.is_own() {
            return;
        }
        let guard = lock(&self.writing);
        let mut report = None;
        if !world.stopped(interrupt, LONG_STOP, || report = Some(self.report())) {
            eprintln!("calque: no profile: a thread waits inside its code for memory");
        }
        if let Some(mut report) = report {
            report.ended = Some(ends);
            if let Some(writer) = WRITER.get() {
                writer(&report, &self.options);
            }
        }
        if ends != Ends::Executes {
            // The process is about to end: another thread that wants to end it waits here for that.
            std::mem::forget(guard);
        }
    }

    fn report(&self) -> Report {
        let recordings = lock(&self.recordings);
        if self.options.wanted == Wanted::Total {
            let running = recordings.running.iter().map(|recording| recording.now());
            return Report::of_total(recordings.ended.total() + running.sum::<u64>());
        }
        let mut merged = recordings.ended.clone();
        let used = lock(&self.tables).blocks.used();
        for recording in &recordings.running {
            recording.with(|recorder| merged.add(recorder, &recording.counters, used, recording.now()));
        }
        let mut tables = lock(&self.tables);
        let Tables { functions, blocks, .. } = &mut *tables;
        Report::new(&merged, functions, blocks)
    }
}

/// How the profiled program came to its end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ends {
    /// With this exit code.
    Exits(i32),
    /// By this signal.
    Dies(i32),
    /// It executes another program.
    Executes,
}

impl Process {
    /// Writes the profile, if one was asked for.
    pub(crate) fn write_profile(&self, ends: Ends) {
        if let Some(profile) = &self.code.profile {
            profile.write(&self.code.world, crate::dispatch::CODE_CHANGED, ends);
        }
    }
}

impl Thread {
    /// From now on the thread's registers lead to a recording, if a profile was asked for.
    pub(crate) fn start_recording(&mut self) {
        let process = self.process;
        let Some(profile) = &process.code.profile else { return };
        let counters = match self.exec.units.counters() {
            // SAFETY: the area is the thread's; `stop_recording` takes the recording off the list before it goes.
            Some(words) => Ok(unsafe { Counters::lent(words) }),
            None => Counters::new(),
        };
        let counters = match counters {
            Ok(counters) => counters,
            Err(errno) => panic!("no memory for a thread's counters: {errno}"),
        };
        let recording = Arc::new(Recording {
            counters,
            cpu: &raw const *self.cpu,
            lock: Mutex::new(()),
            recorder: UnsafeCell::new(Recorder::new(self.exec.units.no_point(&process.code))),
        });
        let (now, pc) = (self.cpu.rt.insns, self.cpu.rip);
        recording.with(|recorder| recorder.start(now, pc, profile));
        self.cpu.rt.counters = recording.counters.address();
        self.cpu.rt.recorder = Arc::as_ptr(&recording) as u64;
        lock(&profile.recordings).running.push(Arc::clone(&recording));
        self.recording = Some(recording);
    }

    /// In the child of a fork, behind [`Profile::after_fork_in_child`].
    pub(crate) fn count_from_zero(&mut self) {
        if self.recording.is_some() {
            self.cpu.rt.insns = 0;
        }
    }

    /// The thread has ended, or is a vfork child that has gone its way.
    pub(crate) fn stop_recording(&mut self) {
        let process = self.process;
        let (Some(profile), Some(recording)) = (&process.code.profile, self.recording.take()) else { return };
        let now = self.cpu.rt.insns;
        let last = {
            let mut recordings = lock(&profile.recordings);
            recordings.running.retain(|running| !Arc::ptr_eq(running, &recording));
            let used = lock(&profile.tables).blocks.used();
            let Recordings { ended, running } = &mut *recordings;
            recording.with(|recorder| ended.add(recorder, &recording.counters, used, now));
            running.is_empty()
        };
        (self.cpu.rt.counters, self.cpu.rt.recorder) = (0, 0);
        if last {
            // The last thread ends the process without saying so.
            process.write_profile(Ends::Exits(0));
        }
    }

    /// Runs the interpreter, or looks at the recording otherwise, while no report is being made.
    pub(crate) fn recorder_guard(recording: Option<&Arc<Recording>>) -> Option<MutexGuard<'_, ()>> {
        recording.map(|recording| lock(&recording.lock))
    }

    /// A block was left at `pc`, which has not been executed, in front of the `count` of `counter`.
    pub(crate) fn left_early(&mut self, counter: u32, pc: GuestAddr) {
        let Some(profile) = &self.process.code.profile else { return };
        let before = lock(&profile.tables).blocks.get(counter).and_then(|block| block.before(pc));
        if let Some(n @ 1..) = before {
            self.left_after(counter, n as u32);
        }
    }

    /// Of the instructions that `counter` counts, only the first `n` have been executed.
    pub(crate) fn left_after(&mut self, counter: u32, n: u32) {
        if let Some(recording) = &self.recording {
            self.cpu.rt.insns += u64::from(n);
            recording.with(|recorder| recorder.left_early(counter, n));
        }
    }

    /// A signal frame has been pushed, perhaps on the alternate stack, and the handler is next.
    pub(crate) fn record_handler(&mut self, alt: AltStack) {
        let (Some(profile), Some(recording)) = (&self.process.code.profile, &self.recording) else { return };
        let (now, pc, sp) = (self.cpu.rt.insns, self.cpu.rip, self.cpu.gpr[RSP]);
        let stack = (alt.sp, alt.sp.saturating_add(alt.size));
        let alt = (alt.size != 0 && (stack.0..stack.1).contains(&sp)).then_some(stack);
        recording.with(|recorder| recorder.enter_handler(now, pc, sp, alt, profile));
    }

    /// `rt_sigreturn`.
    pub(crate) fn record_handler_end(&mut self) {
        if let Some(recording) = &self.recording {
            recording.with(|recorder| recorder.leave_handler(self.cpu.rt.insns));
        }
    }
}

const RSP: usize = 4;

/// Carries out a profiling helper, under the ABI of `ir/src/helper.rs`.
pub(crate) fn helper(cpu: &mut CpuState, helper: Helper, site: u64, target: u64, sp: u64) -> u64 {
    let entry = match helper {
        Helper::ProfileCall => call,
        Helper::ProfileReturn => ret,
        _ => jump,
    };
    entry(cpu, site, target, sp)
}

macro_rules! events {
    ($( $name:ident; )*) => {
        $(
            /// Hands the event to the thread's recorder.
            pub(crate) extern "C" fn $name(cpu: &mut CpuState, site: u64, target: u64, sp: u64) -> u64 {
                let recording = cpu.rt.recorder as *const Recording;
                // SAFETY: code that is lifted for profiling only runs in threads that record; rule 1.
                let recorder = unsafe { &mut *(*recording).recorder.get() };
                recorder.$name(cpu.rt.insns, site, target, sp, &Current);
                0
            }
        )*
    };
}

events! {
    call;
    ret;
    jump;
}

/// Looks functions up in the profile of this process.
struct Current;

impl Lookup for Current {
    fn function(&self, pc: u64, entered: bool) -> Found {
        let profile = crate::process::current().and_then(|process| process.code.profile.as_ref());
        profile.map_or(Found::NOTHING, |profile| profile.function(pc, entered))
    }

    fn transfers(&self, first: usize, each: &mut dyn FnMut(Transfer)) {
        let profile = crate::process::current().and_then(|process| process.code.profile.as_ref());
        profile.iter().for_each(|profile| profile.transfers(first, each));
    }
}

/// Guest code with the bounds of its functions, for the lifter.
pub(crate) struct Bounds<'a> {
    profile: Option<&'a Profile>,
    last: std::cell::Cell<(u64, u64)>,
}

impl<'a> Bounds<'a> {
    pub(crate) fn new(profile: Option<&'a Profile>) -> Self {
        Self { profile, last: std::cell::Cell::new((0, 0)) }
    }

    /// Whether `to` is in another function than `from`.
    pub(crate) fn leaves(&self, from: GuestAddr, to: GuestAddr) -> bool {
        let Some(profile) = self.profile else { return false };
        let (low, high) = self.last.get();
        if !(low..high).contains(&from.0) {
            let (low, high, _) = profile.extent(from);
            self.last.set((low, high));
        }
        let (low, high) = self.last.get();
        !(low..high).contains(&to.0)
    }
}
