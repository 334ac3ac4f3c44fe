//! `Thread::run`: the loop that all guest code runs under.
//!
//! Each turn starts at a safepoint: registers are exact, RIP is where the guest goes on. There signals are delivered and
//! stale code is dropped; then the code at RIP runs in whichever engine has it, until it comes back with an [`Event`].
//!
//! # Safety
//! Enters generated code (`enter`), under the invariants of `backend::abi`; follows pointers that [`EntryCache`] keeps valid.

#![allow(unsafe_code)]

use crate::access::{self, Fault, GuestMemory};
use crate::arch::UnitThread;
use crate::cold::{self, ColdMaker, FirstRun, Made};
use crate::crash;
use crate::fault::{self, Pending};
use crate::fork;
use crate::group::REST;
use crate::lockstep;
use crate::memory::Prot;
use crate::options::Engine;
use crate::process::Process;
use crate::profile::{Profile, Recording};
use crate::signal;
use crate::smc::GuestCode;
use crate::stats;
use crate::syscall::Outcome;
use crate::thread::{Access, GuestFault, MemoryCause, Thread};
use crate::tier::{ColdBlock, Entry, Jit};
use crate::trial::Trial;
use crate::world::{Member, Polls};
use crate::xstate;
use calque_backend::{CodeKind, ExitReason, FlagsAtEntry, HostCode, JumpCache, abi};
use calque_frontend::decode::{Decoded, Window};
use calque_frontend::{LiftOptions, lift_block};
use calque_ir::addr::GUEST_PAGE;
use calque_ir::interp::{self, Frame, Next};
use calque_ir::state::MXCSR_DAZ;
use calque_ir::{Body, CpuState, FaultKind, GuestAddr};
use std::ptr::null;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Exit status when Calque itself cannot go on, as a shell's for a program that cannot be run.
const EXIT_NO_MEMORY: i32 = 126;

/// Bit of the interrupt word: translations were dropped, look at the epoch.
pub(crate) const CODE_CHANGED: u32 = 2;

/// What ends a run of guest code, with RIP where the guest goes on.
pub(crate) enum Event {
    /// Look at the interrupt word and the epoch.
    Safepoint,
    Syscall,
    Fault(GuestFault),
    /// The instruction at RIP writes to the page that the code it belongs to was made from.
    Step,
}

impl Event {
    /// What a fault that code has found means to the dispatcher.
    fn trap(kind: FaultKind) -> Event {
        match kind {
            FaultKind::FloatControl | FaultKind::SingleStep => Event::Safepoint,
            kind => Event::Fault(GuestFault::Trap(kind)),
        }
    }

    /// The code at `pc` cannot be fetched.
    pub(crate) fn fetch_fault(process: &Process, pc: GuestAddr) -> Event {
        Event::Fault(memory_fault(process, Fault { addr: pc, access: Access::Execute }))
    }
}

/// What a thread needs to find and run code.
pub(crate) struct Exec {
    entries: EntryCache,
    frame: Frame,
    /// What indirect jumps in generated code look into; made when first needed.
    jumps: Option<Arc<JumpCache>>,
    /// The same for emitted code.
    tier0_jumps: Option<Arc<JumpCache>>,
    /// Makes emitted code; large, and not on every host.
    maker: Option<Box<ColdMaker>>,
    /// Arrivals that a countdown stands for that has ended on the way to RIP; 0 if none has.
    sampled: u32,
    /// Arrivals that the next countdown stands for.
    period: u32,
    /// What the thread tries out meanwhile.
    trial: Option<Trial>,
    /// How generated code was left last: what to improve once the target is known.
    last_exit: LastExit,
    /// The epoch that `entries` and `jumps` are good for.
    epoch: u64,
    /// For identical translation.
    pub(crate) units: UnitThread,
}

// SAFETY: the pointers are to entries that `known` owns and that any thread may use.
unsafe impl Send for EntryCache {}

/// How generated code came to the pc that the dispatcher looks for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum LastExit {
    /// Not from generated code.
    None,
    /// Through this unlinked cell.
    Cell(u32),
    /// By an indirect jump, in this kind of code, that missed the jump cache.
    Indirect(CodeKind),
    /// Where the control words of floating point matter: behind what has changed them, or in front of what cannot be done as they say.
    Floats,
    /// With a fault, in front of the `count` of this counter; 0 if there is none.
    Fault { unreached: u32 },
}

/// A thread's direct-mapped cache of entries.
///
/// Invariant: a slot's pointer is null or that of the entry at its `owner`'s place in `known`, which keeps it alive.
struct EntryCache {
    /// Zeroed memory, which costs nothing until touched; so is `owners`.
    slots: Vec<*const Entry>,
    /// Indices in `known`, for slots in use.
    owners: Vec<u32>,
    known: Vec<Arc<Entry>>,
}

/// Lines of a thread's cache, a power of two.
const SLOTS: usize = 32768;

#[inline]
fn slot_of(pc: u64) -> usize {
    (pc ^ pc >> 15) as usize % SLOTS
}

impl EntryCache {
    fn new() -> Self {
        Self { slots: vec![null(); SLOTS], owners: vec![0; SLOTS], known: Vec::new() }
    }

    /// The entry for `pc`, if it is in the cache.
    #[inline]
    fn find(&self, pc: u64) -> Option<&Entry> {
        // SAFETY: the invariant; entries are only taken out of `known` through `&mut self`.
        let entry = unsafe { self.slots[slot_of(pc)].as_ref() };
        entry.filter(|entry| entry.pc.0 == pc)
    }

    /// The owner of the entry for `pc`.
    fn owner(&self, pc: u64) -> Option<&Arc<Entry>> {
        self.find(pc)?;
        self.known.get(self.owners[slot_of(pc)] as usize)
    }

    /// Puts an entry into the cache.
    fn remember(&mut self, entry: Arc<Entry>) {
        let slot = slot_of(entry.pc.0);
        let pointer = Arc::as_ptr(&entry);
        if self.slots[slot].is_null() {
            self.owners[slot] = self.known.len() as u32;
            self.known.push(entry);
        } else {
            self.known[self.owners[slot] as usize] = entry;
        }
        self.slots[slot] = pointer;
    }

    /// Takes the entry for `pc` out.
    fn remove(&mut self, pc: u64) {
        if self.find(pc).is_none() {
            return;
        }
        let slot = slot_of(pc);
        self.slots[slot] = null();
        let place = self.owners[slot] as usize;
        self.known.swap_remove(place);
        if let Some(moved) = self.known.get(place) {
            self.owners[slot_of(moved.pc.0)] = place as u32;
        }
    }

    /// Takes all out.
    fn clear(&mut self) {
        self.known.drain(..).for_each(|entry| self.slots[slot_of(entry.pc.0)] = null());
    }
}

impl Exec {
    /// Empties the caches: they may hold what has been dropped since.
    fn forget(&mut self, epoch: u64) {
        self.entries.clear();
        self.jumps.iter().chain(&self.tier0_jumps).for_each(|jumps| jumps.clear());
        self.last_exit = LastExit::None;
        self.epoch = epoch;
    }

    /// Computed jumps come back to the dispatcher, all of them.
    pub(crate) fn forget_jumps(&self) {
        self.jumps.iter().for_each(|jumps| jumps.clear());
    }

    /// What comes next has nothing to do with how generated code was left last.
    pub(crate) fn left_nowhere(&mut self) {
        self.last_exit = LastExit::None;
    }

    pub(crate) fn new() -> Self {
        Self {
            entries: EntryCache::new(),
            frame: Frame::default(),
            jumps: None,
            tier0_jumps: None,
            maker: None,
            sampled: 0,
            period: 0,
            trial: None,
            last_exit: LastExit::None,
            epoch: 0,
            units: UnitThread::default(),
        }
    }

    /// Whether generated code is entered at `pc` although it cannot compute with floats as the control words say: unless it would leave again at once.
    fn enters_uncarried(&self, pc: u64) -> bool {
        self.last_exit != LastExit::Floats && !self.entries.find(pc).is_some_and(Entry::computes)
    }

    /// Remembers where the computed jump goes that has missed its cache.
    fn remember_jump(&self, from: CodeKind, process: &Process, jit: &Jit, entry: &Entry) {
        let maker = self.maker.as_ref();
        entry.with_translation(|translation| {
            let Some(code) = jit.cache.entry_from(translation, from) else { return };
            let flags = match translation.kind {
                CodeKind::Tail => translation.flags_at_entry,
                CodeKind::Tier0 => {
                    maker.map_or(FlagsAtEntry::Wanted, |m| process.code.flags_at(&process.mem, m, entry.pc))
                }
            };
            let jumps = match from {
                CodeKind::Tail => self.jumps.as_deref(),
                CodeKind::Tier0 => self.tier0_jumps.as_deref(),
            };
            jumps.inspect(|jumps| jumps.insert_usable(translation, code, flags));
        });
    }

    /// Whether the entry for `pc` is remembered.
    #[inline]
    #[cfg_attr(not(target_arch = "x86_64"), allow(dead_code, reason = "only units use it"))]
    pub(crate) fn knows(&self, pc: u64) -> bool {
        self.entries.find(pc).is_some()
    }

    /// The entry for `pc`, if it is remembered, and the interpreter's values.
    #[inline]
    #[cfg_attr(not(target_arch = "x86_64"), allow(dead_code, reason = "only units use it"))]
    pub(crate) fn known(&mut self, pc: u64) -> Option<(&Entry, &mut Frame)> {
        Some((self.entries.find(pc)?, &mut self.frame))
    }

    /// Remembers an entry that has something to run.
    #[cfg_attr(not(target_arch = "x86_64"), allow(dead_code, reason = "only units use it"))]
    pub(crate) fn remember(&mut self, entry: &Arc<Entry>) {
        self.entries.remember(Arc::clone(entry));
    }
}

impl Thread {
    /// Runs the guest thread on the calling host thread until it exits; its exit code. If the guest ends the whole
    /// process, this does not return.
    pub(crate) fn run(&mut self) -> i32 {
        let process = self.process;
        let _attachment = signal::attach(self);
        if let Some(jit) = process.code.jit.as_ref().filter(|_| process.code.emits) {
            self.exec.maker.get_or_insert_with(|| Box::new(ColdMaker::new(jit.host.clone())));
            self.exec.period = cold::period(process.code.hot);
            self.cpu.rt.tier0_jumps = self.exec.tier0_jumps.get_or_insert_default().address();
        }
        if let Some(jit) = &process.code.jit {
            let jumps = self.exec.jumps.get_or_insert_default();
            self.cpu.rt.jump_cache = jumps.address();
            self.cpu.rt.cells = jit.cache.cells_address();
            self.cpu.rt.helpers = jit.helpers.as_ptr() as u64;
        }
        let polls = if process.code.units.is_some() { Polls::None } else { Polls::EachCycle };
        let jumps = self.exec.jumps.iter().chain(&self.exec.tier0_jumps).cloned().collect();
        let membership = process.code.world.join(&self.cpu.rt.interrupt, jumps, polls);
        if let Some(units) = &process.code.units
            && let Err(error) = self.exec.units.prepare(units, &mut self.cpu)
        {
            eprintln!("calque: no memory for a thread: {error}");
            self.end_process(EXIT_NO_MEMORY);
        }
        self.start_recording();
        if let (Some(units), Some(_)) = (&process.code.units, lockstep::place()) {
            units.gate();
        }
        if let Some(place) = lockstep::place()
            && let lockstep::Ending::Exit(code) = lockstep::agent(self, &membership.member, place)
        {
            return code;
        }
        loop {
            self.poll();
            if self.cpu.flags_rest & TRAP_FLAG != 0 {
                if let Some(code) = self.trace() {
                    self.stop_recording();
                    return code;
                }
                continue;
            }
            match self.run_any(&membership.member) {
                Event::Safepoint => {}
                Event::Syscall => {
                    if let Some(code) = self.syscall() {
                        self.stop_recording();
                        return code;
                    }
                }
                Event::Fault(GuestFault::Trap(kind)) if self.is_outdated(kind) => self.translate_anew(kind),
                Event::Fault(fault) => self.fault(fault),
                Event::Step => self.step(),
            }
        }
    }

    /// Runs code from RIP on, in any tier, until something asks for the dispatcher.
    pub(crate) fn run_any(&mut self, member: &Member) -> Event {
        match self.process.code.running_units() {
            Some(units) => self.run_units(units, member),
            None => self.run_code(member),
        }
    }

    /// Delivers signals and drops stale code. Registers are exact and RIP is where the guest goes on.
    fn poll(&mut self) {
        // Each time: a vfork child shares its parent's thread-local storage.
        fault::set_current(&raw mut *self.cpu);
        let interrupt = &self.cpu.rt.interrupt;
        if interrupt.load(Ordering::Relaxed) != 0 {
            if interrupt.fetch_and(!(CODE_CHANGED | REST), Ordering::Relaxed) & REST != 0 {
                self.group.rest(|| ());
            }
            signal::deliver_pending(self);
        }
        self.settle();
    }

    /// Drops stale code.
    pub(crate) fn settle(&mut self) {
        self.process.drain_stale();
        self.process.code.make_room();
        if self.process.mem.is_shared() {
            self.process.code.require_order();
        }
        let epoch = self.process.code.epoch();
        if epoch != self.exec.epoch {
            self.exec.forget(epoch);
        }
    }

    /// Carries out the system call that RIP stands behind; the code with which it ends the thread, if it does.
    pub(crate) fn syscall(&mut self) -> Option<i32> {
        // SDM vol. 2, SYSCALL.
        self.cpu.gpr[1] = self.cpu.rip;
        self.cpu.gpr[11] = self.cpu.rflags();
        stats::add(&self.process.stats.syscalls, 1);
        self.recent.begin(&self.cpu);
        match self.process.syscalls.syscall(self) {
            Outcome::Continue => {
                self.recent.end(&self.cpu);
                None
            }
            Outcome::Interrupted => {
                signal::restart_call(self);
                None
            }
            Outcome::ExitThread(code) => Some(code),
            Outcome::ExitProcess(code) => self.end_process(code),
        }
    }

    /// Ends the process that the thread belongs to.
    pub(crate) fn end_process(&self, code: i32) -> ! {
        let _stopped = fork::before_end(self, &self.group);
        self.process.exit(code)
    }

    fn fault(&mut self, fault: GuestFault) {
        stats::add(&self.process.stats.faults, 1);
        let unsupported = match fault {
            GuestFault::Trap(FaultKind::Unimplemented) => Some("instruction not implemented"),
            GuestFault::Trap(FaultKind::Compatibility) => Some("32-bit code or system call, which is not supported,"),
            _ => None,
        };
        if let Some(what) = unsupported {
            let pc = GuestAddr(self.cpu.rip);
            eprintln!("calque: {what} at {pc}: {}", crash::instruction(pc));
        }
        signal::raise(self, fault);
    }

    /// Runs code from RIP on, in any engine, until something asks for the dispatcher.
    pub(crate) fn run_code(&mut self, member: &Member) -> Event {
        let mut warm = true;
        // A signal may have been delivered since: RIP need not be where generated code was going.
        (self.exec.last_exit, self.exec.sampled) = (LastExit::None, 0);
        loop {
            let pc = self.cpu.rip;
            let carried = abi::carries_floats(&self.cpu);
            self.cpu.rt.uncarried = u32::from(!carried);
            let code = &self.process.code;
            if !carried && (!code.require_guarded_floats() || code.epoch() != self.exec.epoch)
                || self.cpu.mxcsr & MXCSR_DAZ != 0 && !code.require_flushing()
            {
                return Event::Safepoint;
            }
            let compiled = carried || self.exec.enters_uncarried(pc);
            stats::add(&self.process.stats.uncarried_floats, u64::from(!compiled));
            let runs = |entry: &Entry| code.can_run(entry, compiled);
            let event = match self.exec.entries.find(pc).is_some_and(runs) {
                true => self.run_entry(member, compiled, &mut warm),
                false => match self.try_out(compiled) {
                    Some(ran) => ran,
                    None => {
                        if let Some(event) = self.prepare(GuestAddr(pc), compiled) {
                            return event;
                        }
                        self.run_entry(member, compiled, &mut warm)
                    }
                },
            };
            if !carried && self.exec.last_exit == LastExit::Floats {
                self.exec.entries.find(pc).inspect(|entry| entry.left_for_floats(GuestAddr(self.cpu.rip)));
            }
            if let Some(event) = event {
                if let LastExit::Fault { unreached } = self.exec.last_exit {
                    self.left_early(unreached, GuestAddr(self.cpu.rip));
                }
                return event;
            }
            if self.process.wants_dispatcher(&self.cpu, self.exec.epoch) {
                return Event::Safepoint;
            }
        }
    }

    /// Runs the code of the entry for RIP, which is in the cache, in the best engine that has it.
    #[inline]
    fn run_entry(&mut self, member: &Member, compiled: bool, warm: &mut bool) -> Option<Event> {
        let Thread { exec, cpu, process, recording, .. } = self;
        let pc = cpu.rip;
        let Some(entry) = exec.entries.find(pc) else { return Some(Event::Safepoint) };
        let arrivals = std::mem::take(&mut exec.sampled);
        if arrivals != 0
            && let (Some(entry), Some(maker)) = (exec.entries.owner(pc), &mut exec.maker)
        {
            exec.period = process.code.sampled(process, entry, arrivals, &mut exec.trial, maker);
            cpu.rt.countdown = exec.period as i32;
        }
        if let (Some(code), Some(jit)) = (entry.runnable().filter(|_| compiled), &process.code.jit) {
            match exec.last_exit {
                LastExit::None | LastExit::Floats | LastExit::Fault { .. } => {}
                LastExit::Cell(cell) => link(process, jit, cell, entry),
                LastExit::Indirect(from) => exec.remember_jump(from, process, jit, entry),
            }
            *warm = true;
            return enter(cpu, process, jit, member, code, exec);
        }
        exec.last_exit = LastExit::None;
        if *warm
            && compiled
            && process.code.calls_for_action(entry.warm())
            && let Some(entry) = exec.entries.owner(pc)
        {
            process.code.act(process, entry);
        }
        let Some(block) = entry.cold() else { return Some(Event::Safepoint) };
        entry.count_run();
        let (event, unreached) = interpret_recorded(cpu, process, recording.as_ref(), block, &mut exec.frame, warm);
        if unreached != 0 {
            exec.last_exit = LastExit::Fault { unreached };
        }
        event
    }

    /// Where cold code is emitted: runs what is at RIP, which is worth no code so far; what came of it, if that was done.
    #[inline]
    fn try_out(&mut self, compiled: bool) -> Option<Option<Event>> {
        let Thread { exec, cpu, process, .. } = self;
        let maker = exec.maker.as_mut().filter(|_| compiled)?;
        let ran = process.code.first_run(process, maker, cpu)?;
        (exec.last_exit, exec.sampled) = (LastExit::None, 0);
        Some(match ran {
            FirstRun::Ran(fault) => fault.map(|fault| Event::Fault(memory_fault(process, second_half(process, fault)))),
            FirstRun::Lifted(body) => run_body(cpu, process, body, &mut exec.frame),
        })
    }

    /// Whether a trap of this kind says that the translation of what is at RIP is not good any more: a checked block has found other bytes;
    /// or an instruction can be fetched by now, which nobody hears of, as its page was no code page (M3).
    pub(crate) fn is_outdated(&self, kind: FaultKind) -> bool {
        let code = GuestCode::new(&self.process.mem);
        let can_fetch = || Window::<32>::new().one(&code, GuestAddr(self.cpu.rip)).0 != Decoded::Unfetchable;
        kind == FaultKind::Stale || kind == FaultKind::Fetch && can_fetch()
    }

    /// Drops that translation.
    pub(crate) fn translate_anew(&mut self, kind: FaultKind) {
        let (process, pc) = (&self.process, GuestAddr(self.cpu.rip));
        match kind {
            FaultKind::Fetch => process.code.drop_unfetchable(&process.stats, pc),
            _ => process.code.recheck(&process.mem, &process.stats, pc),
        }
        self.exec.entries.remove(pc.0);
        self.exec.jumps.iter().for_each(|jumps| jumps.remove(pc));
        self.exec.last_exit = LastExit::None;
    }

    /// Runs the one instruction at RIP, with TF set, and the trap behind it. The exit code, if it was the thread's end.
    fn trace(&mut self) -> Option<i32> {
        match self.interpret_one_alone() {
            Some(Event::Fault(fault)) => {
                self.fault(fault);
                return None;
            }
            Some(Event::Syscall) => {
                if let Some(code) = self.syscall() {
                    return Some(code);
                }
            }
            _ => {}
        }
        self.fault(GuestFault::Trap(FaultKind::SingleStep));
        None
    }

    /// The same without a trap.
    fn step(&mut self) {
        if let Some(Event::Fault(fault)) = self.interpret_one_alone() {
            self.fault(fault);
        }
    }

    /// Interprets the one instruction at RIP, of which no translation is kept.
    fn interpret_one_alone(&mut self) -> Option<Event> {
        let process = self.process;
        let options = LiftOptions { block_insns: 1, ..process.code.lift_options() };
        let profile = process.code.profile.as_ref();
        let code = GuestCode::profiled(&process.mem, profile);
        let mut region = lift_block(&code, GuestAddr(self.cpu.rip), &options);
        profile.inspect(|profile| profile.assign(&mut region));
        let block = ColdBlock::new(region);
        self.exec.last_exit = LastExit::None;
        let recording = self.recording.clone();
        let _guard = Thread::recorder_guard(recording.as_ref());
        interpret(&mut self.cpu, process, &block, &mut self.exec.frame, &mut false)
    }

    /// Finds or makes the entry for `pc`, with code that can run, which is the interpreter's block unless `compiled` code may. An
    /// event if there is none.
    fn prepare(&mut self, pc: GuestAddr, compiled: bool) -> Option<Event> {
        let process = &self.process;
        let entry = process.code.entry(pc);
        if !entry.is_usable() && !process.code.reclaim(&process.mem, &process.stats, &entry) {
            return Some(Event::Safepoint);
        }
        let runs = || process.code.can_run(&entry, compiled);
        if !runs() {
            let maker = self.exec.maker.as_mut().filter(|_| compiled);
            if maker.is_none() && !process.mem.mark_code(pc) {
                return Some(Event::fetch_fault(process, pc));
            }
            if compiled && process.code.engine == Engine::Jit {
                process.code.request(process, &entry);
            }
            if let (Some(jit), Some(maker)) = (&process.code.jit, maker) {
                match process.code.emit_cold(process, jit, maker, &entry) {
                    Made::Runnable => {}
                    Made::Nothing => return Some(Event::Safepoint),
                    Made::Unfetchable => return Some(Event::fetch_fault(process, pc)),
                }
            }
            if !runs() && !process.code.lift_cold(&entry, &process.mem, &process.stats) {
                return Some(Event::Safepoint);
            }
        }
        self.exec.entries.remember(entry);
        None
    }
}

/// TF in `CpuState::flags_rest` (SDM vol. 1 3.4.3.3).
const TRAP_FLAG: u32 = 1 << 8;

/// Joins the exit that led to `entry` with it.
fn link(process: &Process, jit: &Jit, cell: u32, entry: &Entry) {
    if entry.with_translation(|translation| jit.cache.link(cell, translation)).is_some() {
        stats::add(&process.stats.links, 1);
    }
}

/// Runs generated code; `None` goes on at RIP.
pub(crate) fn enter(
    cpu: &mut CpuState,
    process: &Process,
    jit: &Jit,
    member: &Member,
    (code, kind): (HostCode, CodeKind),
    exec: &mut Exec,
) -> Option<Event> {
    let last_exit = &mut exec.last_exit;
    *last_exit = LastExit::None;
    if !process.code.world.enter(member) {
        std::thread::yield_now();
        return Some(Event::Safepoint);
    }
    stats::add(&process.stats.enters, 1);
    // SAFETY: `run` has set the tables; `code` is a translation of this process's cache, which is only reset while no
    // member of the world is inside.
    let reason = unsafe {
        match kind {
            CodeKind::Tail => abi::enter(cpu, code),
            CodeKind::Tier0 => abi::enter_tier0(cpu, code),
        }
    };
    if let ExitReason::Arrived(code) = reason {
        let (translation, _) = jit.cache.find_by_host_pc(code.0).expect("code stays while a thread is inside");
        cpu.rip = translation.pc.0;
    }
    process.code.world.leave(member);
    if cpu.rt.countdown < 0 {
        stats::add(&process.stats.countdowns, 1);
        exec.sampled = if cpu.rt.countdown > cold::ENDED { exec.period } else { 0 };
        cpu.rt.countdown = exec.period as i32;
    }
    match reason {
        ExitReason::Link { cell } => {
            cpu.rip = jit.cache.cell_target(cell).0;
            *last_exit = LastExit::Cell(cell);
            stats::add(&process.stats.unlinked_exits, 1);
            None
        }
        ExitReason::Indirect => {
            *last_exit = LastExit::Indirect(abi::left_from(cpu));
            process.code.jumps.led(GuestAddr(cpu.rt.jump), GuestAddr(cpu.rip));
            stats::add(&process.stats.missed_jumps, 1);
            None
        }
        ExitReason::Arrived(_) => None,
        ExitReason::Syscall => Some(Event::Syscall),
        ExitReason::Fault(FaultKind::FloatControl) => {
            *last_exit = LastExit::Floats;
            None
        }
        ExitReason::Fault(kind) => {
            *last_exit = LastExit::Fault { unreached: abi::counter_ahead(cpu) };
            Some(Event::trap(kind))
        }
        ExitReason::Interrupt => Some(Event::Safepoint),
        ExitReason::HostFault => {
            let pending = fault::take_pending();
            let counter = |profile: &Profile| profile.counter(pending.region, GuestAddr(cpu.rip));
            *last_exit = LastExit::Fault { unreached: process.code.profile.as_ref().map_or(0, counter) };
            Some(match pending.signo {
                fault::TO_INTERPRET => Event::Step,
                _ => Event::Fault(host_fault(process, pending)),
            })
        }
    }
}

/// As `interpret`, of a thread that may record; also the counter of what a fault has left in the middle, or 0.
#[inline]
pub(crate) fn interpret_recorded(
    cpu: &mut CpuState,
    process: &Process,
    recording: Option<&Arc<Recording>>,
    block: &ColdBlock,
    frame: &mut Frame,
    warm: &mut bool,
) -> (Option<Event>, u32) {
    let guard = Thread::recorder_guard(recording);
    let event = interpret(cpu, process, block, frame, warm);
    drop(guard);
    let unreached = match (&event, &process.code.profile) {
        (Some(Event::Fault(_)), Some(profile)) => profile.counter_in(&block.region, GuestAddr(cpu.rip)),
        _ => 0,
    };
    (event, unreached)
}

/// Runs the interpreter's block; `None` goes on at RIP, `warm` says whether as a loop head or function entry.
#[inline]
pub(crate) fn interpret(
    cpu: &mut CpuState,
    process: &Process,
    block: &ColdBlock,
    frame: &mut Frame,
    warm: &mut bool,
) -> Option<Event> {
    let event = run_body(cpu, process, block.region.body(), frame);
    if event.is_none() {
        *warm = block.warms(GuestAddr(cpu.rip));
    }
    event
}

/// Runs a region's body in the interpreter; `None` goes on at RIP.
#[inline]
fn run_body(cpu: &mut CpuState, process: &Process, body: Body<'_>, frame: &mut Frame) -> Option<Event> {
    let mut memory = GuestMemory { ordered: process.code.is_ordered() };
    match interp::run_body(body, cpu, &mut memory, frame) {
        Ok(Next::Pc(next)) => {
            cpu.rip = next.0;
            None
        }
        Ok(Next::Syscall { next }) => {
            cpu.rip = next.0;
            Some(Event::Syscall)
        }
        Ok(Next::Fault { kind: FaultKind::ExtendedState, pc }) => {
            cpu.rip = pc.0;
            xstate::finish(cpu).err().map(|fault| Event::Fault(memory_fault(process, second_half(process, fault))))
        }
        Ok(Next::Fault { kind, pc }) => {
            cpu.rip = pc.0;
            Some(Event::trap(kind))
        }
        Err(trap) => {
            cpu.rip = trap.pc.0;
            Some(Event::Fault(memory_fault(process, second_half(process, trap.fault))))
        }
    }
}

/// The guest's fault that a host fault in generated code stands for.
pub(crate) fn host_fault(process: &Process, pending: Pending) -> GuestFault {
    match pending.signo {
        libc::SIGFPE if pending.code == FPE_INTDIV => GuestFault::Trap(FaultKind::DivideError),
        libc::SIGFPE if pending.vector == Some(MATH_FAULT) => GuestFault::Trap(FaultKind::X87Float),
        libc::SIGILL => GuestFault::Trap(FaultKind::InvalidOpcode),
        libc::SIGFPE => GuestFault::Trap(FaultKind::SimdFloat),
        _ => memory_fault(process, Fault { addr: pending.addr, access: pending.access }),
    }
}

/// Vector of #MF (SDM vol. 3 table 6-1).
const MATH_FAULT: u64 = 16;

/// `si_code` of an integer division by zero or overflow (asm-generic/siginfo.h).
const FPE_INTDIV: i32 = 1;

/// Most bytes of one access.
const MAX_ACCESS: u64 = 64;

/// The fault of an access of which only the beginning is known: on the next page, if it reaches there and the first allows it.
fn second_half(process: &Process, fault: Fault) -> Fault {
    let (page, next) = (fault.addr.page(), fault.addr.page().wrapping_add(GUEST_PAGE));
    let writable = || process.mem.mapping(page).is_some_and(|mapping| mapping.prot.contains(Prot::WRITE));
    let reaches = next.0.wrapping_sub(fault.addr.0) < MAX_ACCESS;
    let allowed = || access::read::<u8>(fault.addr).is_ok() && (fault.access != Access::Write || writable());
    if reaches && allowed() { Fault { addr: next, ..fault } } else { fault }
}

/// The fault that the processor and Linux make of an access that the host refused.
pub(crate) fn memory_fault(process: &Process, fault: Fault) -> GuestFault {
    // A non-canonical address is not a page fault (SDM vol. 1 3.3.7.1).
    if (fault.addr.0 as i64) << 16 >> 16 != fault.addr.0 as i64 {
        return GuestFault::Trap(FaultKind::GeneralProtection);
    }
    let needed = match fault.access {
        Access::Read => Prot::READ,
        Access::Write => Prot::WRITE,
        Access::Execute => Prot::EXEC,
    };
    let cause = match process.mem.mapping(fault.addr) {
        None => MemoryCause::Unmapped,
        Some(mapping) if mapping.prot.contains(needed) => MemoryCause::PastEndOfFile,
        Some(mapping) if mapping.prot.is_empty() => MemoryCause::Inaccessible,
        Some(_) => MemoryCause::Protection,
    };
    GuestFault::Memory { addr: fault.addr, access: fault.access, cause }
}
