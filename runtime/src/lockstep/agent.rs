//! The agent: what runs in a guest process that is under a controller, in place of the dispatcher's loop.
//!
//! It does what it is told: run until something happens and say what; then carry out the system call, the fault or the
//! signal that has happened, and say what came of it, mappings changed and memory written by "the kernel" included. An agent that replays or
//! follows is told what came of it elsewhere instead.

use super::birth::{self, Side};
use super::channel::{Seat, Turn, is_alive};
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
use hashbrown::HashMap;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Bit of the interrupt word: the controller asks for a stop. It writes the word's highest byte.
pub(crate) const ASK: u32 = 1 << 24;
/// Bit of the interrupt word: leave after each block.
const STEP: u32 = 1 << 16;

/// A run of so many steps may become this many times as long, to stop at a good place.
pub(crate) const STRETCH: u64 = 4;

/// What the controller says, as first word of its messages.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u64)]
pub(crate) enum Command {
    /// steps (0: any number), whether a target follows, target pc, 16 registers: run.
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
    /// state, address of the interrupt word.
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

struct Agent<'a> {
    thread: &'a mut Thread,
    member: &'a Member,
    seat: Seat,
    place: Place,
    pending: Pending,
    /// Visits in the last run to where it stopped, plus 1; 0: not counted.
    visits: u64,
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
    let mut agent = Agent { thread, member, seat, place, pending: Pending::Nothing, visits: 0, moved: false };
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
                    self.plain(Report::Done);
                }
                c if c == Command::Release as u64 => {
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
        w.words(&special).words(&times).word(self.visits).word(self.moved.into());
    }

    fn hello(&self) {
        let mut w = Writer::default();
        w.word(Report::Hello as u64).state(&State::of(&self.thread.cpu));
        self.events(&mut w);
        w.word(&raw const self.thread.cpu.rt.interrupt as u64).word(std::process::id().into());
        self.say(&mut w);
    }

    /// `Command::Run`.
    fn advance(&mut self, message: &mut Reader<'_>) {
        let [steps, targeted, pc] = message.array();
        let gpr: [u64; 16] = message.array();
        let mut done = 0;
        (self.visits, self.moved) = (0, false);
        // Each block for itself where somebody counts or compares.
        let stepping = steps != 0 || targeted != 0;
        let mut visits: HashMap<u64, u32> = HashMap::new();
        loop {
            fault::set_current(&raw mut *self.thread.cpu);
            let interrupt = self.thread.cpu.rt.interrupt.load(Ordering::Relaxed);
            if interrupt & host::SIGNAL != 0 {
                if self.thread.signals.is_due() {
                    if let Some(event) = self.finish_repetition() {
                        return self.report(event);
                    }
                    self.pending = Pending::Signal;
                    return self.plain(Report::Signal);
                }
                signal::deliver_pending(self.thread);
            }
            let here = done > 0 && targeted != 0 && self.thread.cpu.rip == pc && self.thread.cpu.gpr == gpr;
            let enough = steps != 0 && done >= steps && self.is_rare(&mut visits, done, steps);
            if here || interrupt & ASK != 0 || enough {
                if let Some(event) = self.finish_repetition() {
                    return self.report(event);
                }
                self.thread.cpu.rt.interrupt.fetch_and(!ASK, Ordering::Relaxed);
                if steps != 0 {
                    self.visits = 2 + u64::from(visits.get(&self.thread.cpu.rip).copied().unwrap_or(0));
                }
                return self.plain(Report::Stop);
            }
            self.thread.cpu.rt.interrupt.fetch_and(!CODE_CHANGED, Ordering::Relaxed);
            self.thread.settle();
            let event =
                if stepping { self.one_block(targeted.checked_mul(pc)) } else { self.thread.run_any(self.member) };
            done += 1;
            self.moved = true;
            if steps > 1 {
                *visits.entry(self.thread.cpu.rip).or_default() += 1;
            }
            match event {
                Event::Safepoint | Event::Fault(GuestFault::Trap(FaultKind::SingleStep)) => {}
                Event::Fault(GuestFault::Trap(FaultKind::Stale)) => self.thread.translate_anew(),
                Event::Step => {
                    let event = self.thread.run_short(self.member, Some(1));
                    if !matches!(event, Event::Safepoint) {
                        return self.report(event);
                    }
                }
                event => return self.report(event),
            }
        }
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

    /// Whether RIP is a good place to stop after `done` steps when `steps` were asked for: one that a follower who runs at
    /// full speed, and stops at each visit, finds soon. Where there is none, any will do.
    fn is_rare(&self, visits: &mut HashMap<u64, u32>, done: u64, steps: u64) -> bool {
        const FEW: u32 = 2;
        steps == 1
            || done >= steps.saturating_mul(STRETCH)
            || visits.get(&self.thread.cpu.rip).is_none_or(|&n| n <= FEW)
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
                let syscalls = Arc::clone(&self.thread.process.syscalls);
                outputs = syscalls.outputs(self.thread, nr, args, self.thread.cpu.gpr[0]);
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
            self.thread.process.prepare_kernel_write(GuestAddr(range[0]), range[1]);
        }
        state.load(&mut self.thread.cpu);
        self.pending = Pending::Nothing;
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
        let process = Arc::clone(&self.thread.process);
        let mask = host::block_all();
        let new = self.seat.other(seat);
        let quiet = process.before_fork();
        let side = birth::copy(&new, self.place.controller);
        drop(quiet);
        if side == Ok(Side::Copy) {
            process.after_fork_in_child(&self.thread.cpu.rt.interrupt);
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
        let event = self.thread.run_short(self.member, Some(1));
        self.report(event);
    }
}
