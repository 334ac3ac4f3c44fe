//! The agent: what runs in a guest process that is under a controller, in place of the dispatcher's loop.
//!
//! It does what it is told: run until something happens and say what; then carry out the system call, the fault or the
//! signal that has happened, and say what came of it, mappings changed and memory written by "the kernel" included. An agent that replays or
//! follows is told what came of it elsewhere instead.

use super::birth::{self, Side};
use super::channel::{Seat, Turn, is_alive};
use super::follower::{Target, When};
use super::meter::{Meter, UNLIMITED};
use super::state::{Reader, State, Writer};
use super::watch;
use super::{Place, Sabotage, is_broken, set_place};
use crate::dispatch::{CODE_CHANGED, Event};
use crate::fault;
use crate::memory::MapOp;
use crate::signal::{self, host};
use crate::thread::{GuestFault, Thread};
use crate::world::Member;
use calque_ir::{FaultKind, GuestAddr, GuestRange};
use std::fs::File;
use std::os::fd::AsRawFd;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Bit of the interrupt word: the controller asks for a stop. It writes the word's highest byte.
pub(crate) const ASK: u32 = 1 << 24;
/// Bit of the interrupt word: leave after each block.
const STEP: u32 = 1 << 16;

/// The last part of the way to a target where blocks are counted, in instructions: more than any region executes between two polls.
const LAST_PART: u64 = 1 << 14;

/// What the controller says, as first word of its messages.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u64)]
pub(crate) enum Command {
    /// [`Run`]: run.
    Run = 1,
    /// Carry out the system call, the fault or the signals that `Run` came to.
    Act,
    /// state, mapping changes, ranges about to be written: take over what happened elsewhere.
    Adopt,
    /// seat: make a copy of this process that listens there.
    Fork,
    /// Make a copy of this process that the processor runs.
    Native,
    /// Run one instruction.
    Step,
    /// pc: describe the instruction.
    Describe,
    /// Time stamps and such for the instructions to come.
    Feed,
    /// Run nothing but the interpreter from now on.
    Interpret,
    /// Go on without a controller.
    Release,
}

/// What the agent says, as first word of its messages.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u64)]
pub(crate) enum Report {
    /// state, address of the interrupt word, process, whether it counts.
    Hello = 1,
    /// A system call; state before it.
    Syscall,
    /// A fault: number, code, address, whether the guest handles it; state.
    Fault,
    /// A signal waits to be delivered.
    Signal,
    /// Stopped on request.
    Stop,
    /// Carried out: state, mapping changes, ranges written, seat of a child.
    Done,
    /// text
    Text,
}

/// The synchronous fault that waits for `Act`.
enum Pending {
    Nothing,
    Syscall,
    Fault(GuestFault),
    Signal,
}

/// What `Command::Run` asks for.
pub(crate) struct Run {
    /// How much may run, in units of the meter; then the run stops at a good place.
    pub(crate) budget: u64,
    /// Most arrivals at a place that it may stop at.
    pub(crate) most: u64,
    pub(crate) target: Option<Target>,
}

impl Run {
    pub(crate) fn write(&self, w: &mut Writer) {
        w.word(self.budget).word(self.most);
        let (kind, number) = match self.target.map(|target| target.when) {
            None => (0, 0),
            Some(When::Visits(n)) => (1, n),
            Some(When::Done(n)) => (2, n),
            Some(When::Registers) => (3, 0),
        };
        w.word(kind).word(number);
        w.word(self.target.map_or(0, |target| target.pc)).0.extend(self.target.map_or([0; 16], |target| target.gpr));
    }

    fn read(message: &mut Reader<'_>) -> Run {
        let [budget, most, kind, number, pc] = message.array();
        let gpr = message.array();
        let when = match kind {
            0 => None,
            1 => Some(When::Visits(number)),
            2 => Some(When::Done(number)),
            _ => Some(When::Registers),
        };
        Run { budget, most, target: when.map(|when| Target { pc, gpr, when }) }
    }
}

/// How far a run has come.
#[derive(Default)]
struct Progress {
    /// RIP at its start.
    start: u64,
    /// Blocks, or other stretches of code, that have run.
    blocks: u64,
    /// Arrivals at the target.
    hits: u64,
    /// Places that were not good enough.
    tries: u32,
    /// A signal waits to be delivered.
    due: bool,
}

struct Agent<'a> {
    thread: &'a mut Thread,
    member: &'a Member,
    seat: Seat,
    place: Place,
    pending: Pending,
    meter: Meter,
    /// Arrivals in the last run where it stopped, if that is a place.
    visits: Option<u64>,
    /// What has run since the last event, as the meter counts.
    done: u64,
    /// Whether the last run has run anything.
    moved: bool,
}

/// How the agent's loop ends.
pub(crate) enum Ending {
    /// The guest thread has ended with this code.
    Exit(i32),
    /// Nobody controls this process any more.
    Released,
}

/// How long an agent waits for a word before it looks whether the controller still lives.
const PATIENCE: Duration = Duration::from_secs(2);

/// Runs `thread` under the controller at `place`.
pub(crate) fn run(thread: &mut Thread, member: &Member, place: Place) -> Ending {
    let seat = match Seat::open(place.controller, place.descriptor, place.seat) {
        Ok(seat) => seat,
        Err(e) => {
            eprintln!("calque: the controller of this comparison cannot be reached: {e}");
            return Ending::Exit(2);
        }
    };
    watch::start();
    thread.process.mem.record_changes();
    let meter = Meter::new(thread);
    let mut agent =
        Agent { thread, member, seat, place, pending: Pending::Nothing, meter, visits: None, done: 0, moved: false };
    agent.hello();
    agent.serve()
}

impl Agent<'_> {
    fn serve(&mut self) -> Ending {
        loop {
            let Some(words) = self.seat.receive(Turn::Agent, PATIENCE) else {
                if !is_alive(self.place.controller) {
                    std::process::exit(2);
                }
                continue;
            };
            let mut message = Reader(&words);
            match message.word() {
                c if c == Command::Run as u64 => self.advance(&mut message),
                c if c == Command::Act as u64 => {
                    if let Some(ending) = self.act() {
                        return ending;
                    }
                }
                c if c == Command::Adopt as u64 => self.adopt(&mut message),
                c if c == Command::Fork as u64 => self.fork(message.word() as u32),
                c if c == Command::Native as u64 => self.native(),
                c if c == Command::Step as u64 => self.step(),
                c if c == Command::Describe as u64 => {
                    let text = super::describe::describe(self.thread, GuestAddr(message.word()));
                    let mut w = Writer::default();
                    self.say(w.word(Report::Text as u64).text(&text));
                }
                c if c == Command::Feed as u64 => {
                    watch::feed(message.words());
                    self.plain(Report::Done);
                }
                c if c == Command::Interpret as u64 => {
                    self.thread.process.code.only_interpret();
                    self.meter.end(self.thread);
                    self.plain(Report::Done);
                }
                c if c == Command::Release as u64 => {
                    self.meter.end(self.thread);
                    set_place(None);
                    return Ending::Released;
                }
                other => unreachable!("command {other}"),
            }
        }
    }

    fn say(&self, message: &mut Writer) {
        self.seat.send(Turn::Controller, &message.0);
    }

    /// A report with nothing but the state.
    fn plain(&self, report: Report) {
        let mut w = Writer::default();
        w.word(report as u64).state(&State::of(&self.thread.cpu));
        self.events(&mut w);
        self.say(&mut w);
    }

    /// What the controller has to know besides: instructions that only the translator can run, and time stamps.
    fn events(&self, w: &mut Writer) {
        let (special, times) = watch::take();
        w.words(&special).words(&times);
        w.word(self.visits.map_or(0, |visits| visits + 1)).word(self.done).word(self.moved.into());
    }

    fn hello(&self) {
        let mut w = Writer::default();
        w.word(Report::Hello as u64).state(&State::of(&self.thread.cpu));
        self.events(&mut w);
        w.word(&raw const self.thread.cpu.rt.interrupt as u64).word(std::process::id().into());
        w.word(self.meter.counts().into());
        self.say(&mut w);
    }

    /// `Command::Run`.
    fn advance(&mut self, message: &mut Reader<'_>) {
        let run = Run::read(message);
        let target = run.target.as_ref();
        let start = self.thread.cpu.rip;
        let stepping = self.is_stepped(&run);
        self.meter.begin(self.thread, run.budget.min(self.way_to(target)));
        self.thread.cpu.rt.interrupt.fetch_and(!ASK, Ordering::Relaxed);
        let mut progress = Progress { start, ..Progress::default() };
        (self.visits, self.moved) = (None, false);
        let event = loop {
            fault::set_current(&raw mut *self.thread.cpu);
            let interrupt = self.thread.cpu.rt.interrupt.load(Ordering::Relaxed);
            if interrupt & host::SIGNAL != 0 {
                progress.due |= self.thread.signals.is_due();
                if !progress.due {
                    signal::deliver_pending(self.thread);
                }
            }
            if target.is_some_and(|target| self.is_at(target, &mut progress)) {
                break Event::Safepoint;
            }
            let over = progress.due || interrupt & ASK != 0 || self.is_over(&run, &progress);
            if over && !self.meter.is_place(self.thread) {
                self.meter.allow(self.thread, 0);
            } else if over && self.is_good_place(&run, &mut progress) {
                match self.finish_repetition() {
                    Some(event) => break event,
                    None if progress.due => {
                        self.pending = Pending::Signal;
                        return self.finished(&progress, Report::Signal);
                    }
                    None => break Event::Safepoint,
                }
            }
            // What is due waits for a good place; what has come since the look is looked at next time.
            let seen = if progress.due { CODE_CHANGED | ASK | host::SIGNAL } else { CODE_CHANGED | ASK };
            self.thread.cpu.rt.interrupt.fetch_and(!seen, Ordering::Relaxed);
            self.thread.settle();
            let event = if stepping {
                self.one_block(target.map(|target| target.pc))
            } else {
                self.thread.run_any(self.member)
            };
            progress.blocks += 1;
            self.moved = true;
            match event {
                Event::Safepoint => {}
                Event::Fault(GuestFault::Trap(kind)) if self.thread.is_outdated(kind) => {
                    self.thread.translate_anew(kind)
                }
                Event::Step => {
                    let event = self.thread.run_short(self.member, Some(1));
                    if !matches!(event, Event::Safepoint) {
                        break event;
                    }
                }
                event => break event,
            }
        };
        self.done += self.meter.used(self.thread);
        match event {
            Event::Safepoint => self.finished(&progress, Report::Stop),
            event => self.report(event),
        }
    }

    /// How far it is at least to the target. Units stop there by themselves; elsewhere the last part of the way is stepped.
    fn way_to(&self, target: Option<&Target>) -> u64 {
        let Some(Target { when: When::Done(n), .. }) = target else { return UNLIMITED };
        let left = n.saturating_sub(self.done);
        if self.meter.counts_branches() {
            return left;
        }
        if left > LAST_PART { left - LAST_PART } else { UNLIMITED }
    }

    /// Whether each block is run for itself.
    fn is_stepped(&self, run: &Run) -> bool {
        match &run.target {
            Some(Target { when: When::Done(_), .. }) if self.meter.counts() => {
                self.way_to(run.target.as_ref()) == UNLIMITED
            }
            Some(_) => true,
            None => run.budget < UNLIMITED && !self.meter.counts(),
        }
    }

    /// Says that a run has stopped at a place.
    fn finished(&mut self, progress: &Progress, report: Report) {
        if report == Report::Signal {
            self.done += self.meter.used(self.thread);
        }
        self.visits = self.arrivals(progress);
        self.plain(report);
    }

    /// Arrivals at RIP in this run, the present one included; `None` if that is no place.
    fn arrivals(&self, progress: &Progress) -> Option<u64> {
        let executed = self.meter.executed(self.thread)?;
        Some(executed + u64::from(self.thread.cpu.rip != progress.start))
    }

    /// Whether the run has come to its target.
    fn is_at(&self, target: &Target, progress: &mut Progress) -> bool {
        let cpu = &self.thread.cpu;
        let here = cpu.rip == target.pc && progress.blocks > 0;
        match target.when {
            When::Visits(n) => {
                progress.hits += u64::from(here);
                here && progress.hits >= n || n == 0
            }
            When::Done(n) => cpu.rip == target.pc && self.done + self.meter.used(self.thread) == n,
            When::Registers => here && cpu.gpr == target.gpr,
        }
    }

    /// Whether what the run was given is used up.
    fn is_over(&self, run: &Run, progress: &Progress) -> bool {
        if self.meter.counts() { self.meter.is_spent(self.thread) } else { progress.blocks >= run.budget }
    }

    /// Whether a run that is over can stop here: at a place that whoever follows, and stops at each arrival, comes to soon. If not, it may go
    /// on to the next one.
    fn is_good_place(&mut self, run: &Run, progress: &mut Progress) -> bool {
        /// Arrivals at a place that is good at once; and one more for so much that has run, to keep the follower's time in proportion.
        const FEW: u64 = 64;
        const SHARE: u64 = 4096;
        /// Places that are looked at before the best of them will do, or the run goes on.
        const TRIES: u32 = 4096;
        if !self.meter.counts() {
            return true;
        }
        let arrivals = self.arrivals(progress).unwrap_or(u64::MAX);
        if arrivals <= FEW + self.meter.used(self.thread) / SHARE {
            return true;
        }
        progress.tries += 1;
        if progress.tries < TRIES {
            self.meter.allow(self.thread, 1);
            return false;
        }
        if arrivals <= run.most || progress.due {
            return true;
        }
        progress.tries = 0;
        self.meter.allow(self.thread, if progress.due { 1 } else { run.budget });
        false
    }

    /// Says what a run has come to.
    fn report(&mut self, event: Event) {
        match event {
            Event::Safepoint | Event::Step => self.plain(Report::Stop),
            Event::Syscall => {
                self.pending = Pending::Syscall;
                // SDM vol. 2, SYSCALL.
                self.thread.cpu.gpr[1] = self.thread.cpu.rip;
                self.thread.cpu.gpr[11] = self.thread.cpu.rflags();
                self.plain(Report::Syscall);
            }
            Event::Fault(fault) => self.report_fault(fault),
        }
    }

    /// Runs a string instruction to its end: between its repetitions the processor cannot be stopped. An event if it faults.
    fn finish_repetition(&mut self) -> Option<Event> {
        if !crate::crash::repeats(GuestAddr(self.thread.cpu.rip)) {
            return None;
        }
        let interrupt = self.thread.cpu.rt.interrupt.swap(0, Ordering::Relaxed);
        let event = self.thread.run_short(self.member, Some(1));
        self.thread.cpu.rt.interrupt.fetch_or(interrupt, Ordering::Relaxed);
        (!matches!(event, Event::Safepoint)).then_some(event)
    }

    /// Runs one block, or up to `target` if that lies inside.
    fn one_block(&mut self, target: Option<u64>) -> Event {
        let pc = self.thread.cpu.rip;
        let reach = target.and_then(|target| target.checked_sub(pc)).filter(|&d| d > 0 && d < super::LONGEST_BLOCK);
        if reach.is_some() || !self.thread.process.code.interprets() {
            return self.thread.run_short(self.member, reach);
        }
        self.thread.cpu.rt.interrupt.fetch_or(STEP, Ordering::Relaxed);
        let event = self.thread.run_code(self.member);
        self.thread.cpu.rt.interrupt.fetch_and(!STEP, Ordering::Relaxed);
        if matches!(event, Event::Safepoint) { self.finish_repetition().unwrap_or(event) } else { event }
    }

    fn report_fault(&mut self, fault: GuestFault) {
        if fault == GuestFault::Trap(FaultKind::Unimplemented) {
            let pc = GuestAddr(self.thread.cpu.rip);
            eprintln!("calque: instruction not implemented at {pc}: {}", crate::crash::instruction(pc));
        }
        let (signo, code, addr, handled) = signal::preview(self.thread, fault);
        if is_broken(Sabotage::Signal) {
            self.thread.cpu.rip += crate::crash::length(GuestAddr(self.thread.cpu.rip));
            return self.plain(Report::Stop);
        }
        self.pending = Pending::Fault(fault);
        let mut w = Writer::default();
        w.word(Report::Fault as u64).state(&State::of(&self.thread.cpu));
        self.events(&mut w);
        w.word(signo as u64).word(code as u64).word(addr).word(handled.into());
        self.say(&mut w);
    }

    /// `Command::Act`.
    fn act(&mut self) -> Option<Ending> {
        let mut child = 0;
        let mut outputs: Vec<GuestRange> = Vec::new();
        self.thread.signals.frames.clear();
        self.thread.process.mem.take_changes();
        self.done = 0;
        match std::mem::replace(&mut self.pending, Pending::Nothing) {
            Pending::Nothing => {}
            Pending::Signal => signal::deliver_pending(self.thread),
            Pending::Fault(fault) => signal::raise(self.thread, fault),
            Pending::Syscall => {
                let gpr = &self.thread.cpu.gpr;
                let (nr, args) = (gpr[0], [gpr[7], gpr[6], gpr[2], gpr[10], gpr[8], gpr[9]]);
                let own = std::process::id();
                let seat = if self.place.follow && super::control::makes_child(nr) { self.seat.claim() } else { None };
                self.place.child = seat;
                if let Some(code) = self.thread.syscall() {
                    return Some(Ending::Exit(code));
                }
                if std::process::id() != own {
                    return self.in_child(seat);
                }
                child = seat.unwrap_or(0);
                outputs = self.thread.process.syscalls.outputs(self.thread, nr, args, self.thread.cpu.gpr[0]);
            }
        }
        outputs.append(&mut self.thread.signals.frames);
        let maps = self.thread.process.mem.take_changes();
        let mut w = Writer::default();
        w.word(Report::Done as u64).state(&State::of(&self.thread.cpu));
        self.events(&mut w);
        w.words(&maps.iter().flat_map(|op| op.0).collect::<Vec<_>>());
        w.words(&outputs.iter().flat_map(|r| [r.start.0, r.size()]).collect::<Vec<_>>());
        w.word(child.into());
        self.say(&mut w);
        None
    }

    /// In a child of the guest's: under a controller of its own, or under none.
    fn in_child(&mut self, seat: Option<u32>) -> Option<Ending> {
        let Some(seat) = seat else {
            self.meter.end(self.thread);
            set_place(None);
            return Some(Ending::Released);
        };
        self.seat = self.seat.other(seat);
        self.place.seat = seat;
        set_place(Some(self.place));
        self.hello();
        None
    }

    /// `Command::Adopt`.
    fn adopt(&mut self, message: &mut Reader<'_>) {
        let state = message.state();
        let maps = message.words();
        let ranges = message.words();
        for op in maps.chunks_exact(MapOp::WORDS) {
            let op = MapOp(op.try_into().expect("whole operations"));
            self.repeat(&op);
        }
        for range in ranges.chunks_exact(2) {
            self.thread.process.give_up_code(GuestAddr(range[0]), range[1]);
        }
        state.load(&mut self.thread.cpu);
        self.pending = Pending::Nothing;
        self.done = 0;
        self.plain(Report::Done);
    }

    /// Changes mappings as another process has.
    fn repeat(&self, op: &MapOp) {
        let mem = &self.thread.process.mem;
        let file = op.file().and_then(|fd| File::open(format!("/proc/{}/fd/{fd}", self.place.controller)).ok());
        if let Err(e) = mem.repeat(op, file.as_ref().map(AsRawFd::as_raw_fd)) {
            eprintln!("calque: a mapping cannot be made again: {}", e.desc());
        }
    }

    /// `Command::Fork`.
    fn fork(&mut self, seat: u32) {
        let process = self.thread.process;
        let mask = host::block_all();
        let new = self.seat.other(seat);
        let quiet = process.before_fork();
        let side = birth::copy(&new, self.place.controller);
        drop(quiet);
        if side == Ok(Side::Copy) {
            process.after_fork_in_child(&self.thread.cpu);
            birth::close_all();
            self.thread.tid = nix::unistd::gettid().as_raw();
            self.thread.cpu.rt.interrupt.store(0, Ordering::Relaxed);
            self.seat = new;
            self.seat.announce(std::process::id());
            self.hello();
            return;
        }
        host::set_mask_exactly(mask);
        self.made(side);
    }

    /// `Command::Native`.
    fn native(&mut self) {
        let mask = host::block_all();
        let side = birth::copy(&self.seat, self.place.controller);
        if side == Ok(Side::Copy) {
            birth::close_all();
            birth::expose(&self.thread.process.mem);
            if !birth::make_stub() {
                std::process::exit(2);
            }
            self.seat.announce(std::process::id());
            birth::sleep_forever();
        }
        host::set_mask_exactly(mask);
        self.made(side);
    }

    /// Says whether a copy has been made.
    fn made(&self, side: Result<Side, nix::errno::Errno>) {
        let mut w = Writer::default();
        self.say(w.word(Report::Done as u64).word(side.is_err().into()));
    }

    /// `Command::Step`.
    fn step(&mut self) {
        self.thread.settle();
        if !self.meter.counts_branches() {
            self.meter.begin(self.thread, UNLIMITED);
            self.thread.cpu.rt.interrupt.fetch_and(!ASK, Ordering::Relaxed);
            let event = self.thread.run_short(self.member, Some(1));
            return self.report(event);
        }
        self.meter.count_instructions(self.thread);
        self.meter.begin(self.thread, 1);
        let event = loop {
            self.thread.cpu.rt.interrupt.fetch_and(!CODE_CHANGED, Ordering::Relaxed);
            self.thread.settle();
            match self.thread.run_any(self.member) {
                Event::Safepoint if !self.meter.is_spent(self.thread) => {}
                event => break event,
            }
        };
        self.report(event);
    }
}
