//! The controller: turns, log, checkpoints, and how it ends.

use super::agent::{Command, Report, Run};
use super::birth;
use super::channel::Channel;
use super::follower::{Follower, Gone, News, Peer, Said, Stop, Target, When};
use super::meter::UNLIMITED;
use super::narrow;
#[cfg(target_arch = "x86_64")]
use super::native::Native;
use super::remote::{PAGE, Remote};
use super::report;
use super::rules::{self, Difference, Mask};
use super::state::{Reader, State, Writer};
use super::{Place, set_place};
use crate::memory::{MapOp, neighbourhood};
use crate::signal::signal_name;
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// What the leader is compared with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reference {
    /// The processor.
    Native,
    /// The interpreter of the IR.
    Interp,
}

/// How to compare.
#[derive(Clone, Debug)]
pub struct DiffOptions {
    pub against: Reference,
    /// Children of the program are compared, too.
    pub follow_forks: bool,
    /// How much the leader runs without a comparison, as its meter counts; 0: to the next event. `None`: what is good, where it counts.
    pub branches: Option<u64>,
    /// The command line that shows a difference again.
    pub command: String,
    /// No summary at the end.
    pub quiet: bool,
}

/// Exit status of a guest process that could not be started, and has said why.
pub const NOT_STARTED: i32 = 125;

/// Exit statuses of `calque diff`.
const SAME: i32 = 0;
const DIVERGED: i32 = 1;
const IMPOSSIBLE: i32 = 2;

/// Why a comparison ends early.
#[derive(Debug)]
pub(super) enum Trouble {
    /// The executions differ: a report.
    Diverged(String),
    /// They cannot be compared.
    Impossible(String),
}

impl From<io::Error> for Trouble {
    fn from(e: io::Error) -> Self {
        Trouble::Impossible(format!("the executions cannot be controlled: {e}"))
    }
}

type Result<T> = std::result::Result<T, Trouble>;

/// Runs the program that `start` starts, in a process of its own, and compares; the exit status.
pub fn diff(options: &DiffOptions, start: impl FnOnce() -> i32) -> i32 {
    let channel = match Channel::new() {
        Ok(channel) => channel,
        Err(e) => return refuse(&format!("no shared memory: {e}")),
    };
    let controller = std::process::id() as i32;
    // Orphans, which the followers are made to be, become children of ours.
    let _ = nix::sys::prctl::set_child_subreaper(true);
    let pid = match birth::fork_guest() {
        Ok(0) => {
            let descriptor = channel.descriptor();
            drop(channel);
            let follow = options.follow_forks;
            set_place(Some(Place { controller, descriptor, seat: 0, follow, child: None }));
            std::process::exit(start());
        }
        Ok(pid) => pid,
        Err(e) => return refuse(&format!("no second process: {}", e.desc())),
    };
    birth::ignore_keyboard();
    let shared =
        Arc::new(Shared { channel, options: options.clone(), worst: Mutex::new(SAME), pairs: Mutex::default() });
    let status = Shared::compare(&shared, 0, pid, None);
    loop {
        let pair = shared.pairs.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let Some(pair) = pair else { break };
        // A thread that panicked has said so.
        let _ = pair.join();
    }
    status.max(*shared.worst.lock().unwrap_or_else(PoisonError::into_inner))
}

fn refuse(why: &str) -> i32 {
    eprintln!("calque: cannot compare: {why}");
    IMPOSSIBLE
}

/// Whether the process that was to be the guest's has ended without one, and has said why.
fn has_been_refused(pid: i32) -> bool {
    let pid = Pid::from_raw(pid);
    waitpid(pid, Some(WaitPidFlag::WNOHANG | WaitPidFlag::__WALL)) == Ok(WaitStatus::Exited(pid, NOT_STARTED))
}

/// What all pairs share.
pub(super) struct Shared {
    pub(super) channel: Channel,
    pub(super) options: DiffOptions,
    /// Highest exit status so far.
    worst: Mutex<i32>,
    /// Threads that compare children.
    pairs: Mutex<Vec<std::thread::JoinHandle<()>>>,
}

impl Shared {
    /// Compares what runs at a seat until it ends: the first process, or a child with the special instructions that its parent has met.
    fn compare(shared: &Arc<Shared>, seat: u32, pid: i32, child: Option<Vec<u64>>) -> i32 {
        let first = child.is_none();
        let verdict = Pair::begin(shared, seat, pid, child.unwrap_or_default()).and_then(|mut pair| {
            let verdict = pair.run();
            if verdict.is_err() {
                pair.end_guest();
            }
            verdict
        });
        match verdict {
            Ok(ending) => {
                if !shared.options.quiet && (first || ending.turns > 0) {
                    eprintln!("calque: {ending}");
                }
                ending.status
            }
            Err(Trouble::Diverged(report)) => {
                eprint!("{report}");
                DIVERGED
            }
            Err(Trouble::Impossible(_)) if first && has_been_refused(pid) => IMPOSSIBLE,
            Err(Trouble::Impossible(why)) => refuse(&why),
        }
    }

    /// Compares a child of the guest's on a thread of its own.
    fn compare_child(self: &Arc<Self>, seat: u32, pid: i32, special: Vec<u64>) {
        let shared = Arc::clone(self);
        let thread = std::thread::spawn(move || {
            let status = Shared::compare(&shared, seat, pid, Some(special));
            let mut worst = shared.worst.lock().unwrap_or_else(PoisonError::into_inner);
            *worst = status.max(*worst);
        });
        self.pairs.lock().unwrap_or_else(PoisonError::into_inner).push(thread);
    }
}

/// How an execution ended that was the same on both sides.
pub(super) struct Ending {
    status: i32,
    turns: u64,
    faults: u64,
    signals: u64,
    /// Comparisons at places between two events.
    places: u64,
    comparisons: u64,
    how: String,
}

impl std::fmt::Display for Ending {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Ending { turns, faults, signals, places, comparisons, how, .. } = self;
        write!(
            f,
            "same: {turns} system calls, {faults} faults, {signals} signals, {places} places between, memory compared {comparisons} times; {how}"
        )
    }
}

/// What has happened to the leader since the checkpoint.
pub(super) struct Record {
    /// Time stamps given out before it happened.
    pub(super) times: Vec<u64>,
    /// State before it.
    pub(super) before: State,
    /// A signal was delivered, when so much had run since the event before: nothing in the program itself leads to it.
    pub(super) signal: Option<u64>,
    pub(super) news: News,
}

/// What the leader has come to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Happening {
    Call,
    Fault,
    Signal,
}

/// What came of an act.
enum Acted {
    Done,
    /// `execve`: the leader has begun another program.
    OtherProgram,
    /// The leader's process has ended: it has sent itself a signal, or somebody else has.
    Ended,
}

/// A pair of executions.
pub(super) struct Pair {
    pub(super) shared: Arc<Shared>,
    pub(super) leader: Peer,
    pub(super) follower: Follower,
    pub(super) checkpoint: Peer,
    pub(super) log: Vec<Record>,
    /// Time stamps since the last record.
    pub(super) times: Vec<u64>,
    /// All special instructions.
    pub(super) special: Vec<u64>,
    /// Files that mappings in the log need.
    files: Vec<File>,
    /// The state at which both sides were last seen equal.
    pub(super) last: State,
    next_checkpoint: Instant,
    ending: Ending,
}

/// Makes the follower for a leader that stands where it is now.
pub(super) fn follower_of(shared: &Shared, leader: &Peer, state: &State, special: &[u64]) -> Result<Follower> {
    match shared.options.against {
        #[cfg(target_arch = "x86_64")]
        Reference::Native => {
            let mut native = Native::attach(leader.native()?, state)?;
            special.iter().for_each(|&pc| native.mark_special(pc));
            Ok(Follower::Native(Box::new(native)))
        }
        #[cfg(not(target_arch = "x86_64"))]
        Reference::Native => {
            // There is no processor for which they would be marked.
            let _ = special;
            Err(Trouble::Impossible("this machine has no x86-64 processor; use --against interp".into()))
        }
        Reference::Interp => {
            let peer = leader.fork(&shared.channel)?;
            let mut w = Writer::default();
            peer.ask(w.word(Command::Interpret as u64)).map_err(|Gone| io::Error::other("no follower"))?;
            Ok(Follower::Engine(Box::new((peer, Some(*state)))))
        }
    }
}

/// How long between checkpoints at first; later as long as they are cheap in comparison.
const CHECKPOINT: Duration = Duration::from_millis(250);
/// Part of the time that checkpoints may take is one in so many.
const CHECKPOINT_SHARE: u32 = 6;

impl Pair {
    fn begin(shared: &Arc<Shared>, seat: u32, pid: i32, special: Vec<u64>) -> Result<Pair> {
        let leader = Peer::meet(&shared.channel, seat, pid, false)?;
        if !leader.counts && shared.options.branches.is_some_and(|branches| branches != 0) {
            let why = "--branches: this engine does not count them; use --engine interp, jit or tiered";
            return Err(Trouble::Impossible(why.into()));
        }
        Pair::around(shared, leader, special)
    }

    /// A pair whose leader has just begun, or begun another program, and has met these special instructions: it tells of none twice.
    fn around(shared: &Arc<Shared>, leader: Peer, special: Vec<u64>) -> Result<Pair> {
        let checkpoint = leader.fork(&shared.channel)?;
        let last = checkpoint.state;
        let follower = follower_of(shared, &checkpoint, &last, &special)?;
        let ending =
            Ending { status: SAME, turns: 0, faults: 0, signals: 0, places: 0, comparisons: 0, how: String::new() };
        Ok(Pair {
            shared: Arc::clone(shared),
            leader,
            follower,
            checkpoint,
            log: Vec::new(),
            times: Vec::new(),
            special,
            files: Vec::new(),
            last,
            next_checkpoint: Instant::now() + CHECKPOINT,
            ending,
        })
    }

    /// Ends the guest after a difference.
    fn end_guest(&self) {
        let _ = nix::sys::signal::kill(Pid::from_raw(self.leader.pid), Signal::SIGKILL);
        let _ = waitpid(Pid::from_raw(self.leader.pid), None);
    }

    /// Turn after turn until the program ends.
    fn run(&mut self) -> Result<Ending> {
        loop {
            if let Some(ending) = self.turn()? {
                return Ok(ending);
            }
            if Instant::now() >= self.next_checkpoint {
                self.make_checkpoint()?;
            }
        }
    }

    fn turn(&mut self) -> Result<Option<Ending>> {
        const BRANCHES: u64 = 20_000_000;
        let budget = match self.shared.options.branches.unwrap_or(BRANCHES) {
            0 => UNLIMITED,
            branches => branches,
        };
        let said = match self.leader.run(&Run { budget, most: 0, target: None }, Duration::MAX) {
            Ok(said) => said,
            Err(Gone) => return Ok(Some(self.leader_ended())),
        };
        self.special.extend(&said.special);
        self.times.extend(&said.times);
        match follow(&mut self.follower, &self.leader.remote, &said, &self.last)? {
            Followed::Equal => self.last = said.state,
            Followed::Differs(mismatch) => return Err(self.diverged(mismatch)),
        }
        match said.what {
            w if w == Report::Syscall as u64 => {
                self.ending.turns += 1;
                self.syscall(&said)
            }
            w if w == Report::Fault as u64 => {
                self.ending.faults += 1;
                let [signo, _, _, handled] = Reader(&said.rest).array();
                if handled == 0 {
                    self.compare_memory()?;
                    self.let_go();
                    let how = format!("both ended with {}", signal_name(signo as i32));
                    return Ok(Some(self.ended(how)));
                }
                let acted = self.act(Happening::Fault, &said)?;
                self.go_on(acted)
            }
            w if w == Report::Signal as u64 => {
                self.ending.signals += 1;
                let acted = self.act(Happening::Signal, &said)?;
                self.go_on(acted)
            }
            _ => {
                self.ending.places += 1;
                Ok(None)
            }
        }
    }

    fn syscall(&mut self, said: &Said) -> Result<Option<Ending>> {
        let gpr = &said.state.gpr;
        let (nr, first) = (gpr[0], gpr[7]);
        let clone_flags = match nr {
            nr::CLONE => first,
            nr::CLONE3 => self.leader.remote.word(first).unwrap_or(0),
            _ => 0,
        };
        if clone_flags & libc::CLONE_VM as u64 != 0 && clone_flags & libc::CLONE_VFORK as u64 == 0 {
            return Err(Trouble::Impossible(
                "the program starts a second thread; only programs with one thread can be compared".into(),
            ));
        }
        match nr {
            nr::EXIT | nr::EXIT_GROUP => {
                self.compare_memory()?;
                self.let_go();
                return Ok(Some(self.ended(format!("both exited with {}", first as u8))));
            }
            nr::SHMAT => {
                return Err(Trouble::Impossible("the program attaches System V shared memory".into()));
            }
            _ => {}
        }
        let acted = self.act(Happening::Call, said)?;
        self.go_on(acted)
    }

    /// After what the leader has carried out: an ending, if it was the last thing.
    fn go_on(&mut self, acted: Acted) -> Result<Option<Ending>> {
        match acted {
            Acted::Done => Ok(None),
            Acted::Ended => Ok(Some(self.leader_ended())),
            Acted::OtherProgram => {
                let leader = Peer::meet_again(&self.leader, &self.shared.channel)?;
                let Ending { turns, faults, signals, places, comparisons, .. } = self.ending;
                *self = Pair::around(&self.shared.clone(), leader, Vec::new())?;
                self.ending = Ending { status: SAME, turns, faults, signals, places, comparisons, how: String::new() };
                Ok(None)
            }
        }
    }

    /// Has the leader carry out what it has come to, and gives the follower what came of it.
    fn act(&mut self, what: Happening, come: &Said) -> Result<Acted> {
        let signal = (what == Happening::Signal).then_some(come.done);
        let mut w = Writer::default();
        let Ok(said) = self.leader.ask(w.word(Command::Act as u64)) else {
            return Ok(Acted::Ended);
        };
        if said.what == Report::Hello as u64 {
            self.leader.interrupt = Reader(&said.rest).word();
            return Ok(Acted::OtherProgram);
        }
        let mut rest = Reader(&said.rest);
        let (maps, ranges, child) = (rest.words(), rest.words(), rest.word());
        let maps = maps.chunks_exact(MapOp::WORDS).map(|op| MapOp(op.try_into().expect("whole operations"))).collect();
        let mut news = News { state: said.state, maps, written: Vec::new() };
        for range in ranges.chunks_exact(2) {
            news.written.push((range[0], self.leader.remote.bytes(range[0], range[1] as usize)));
        }
        self.open_files(&mut news);
        let vectors = what != Happening::Call || !self.last.same_vectors(&news.state);
        self.follower.adopt(&news, vectors)?;
        let before = std::mem::replace(&mut self.last, news.state);
        self.special.extend(&said.special);
        let times = std::mem::take(&mut self.times);
        self.log.push(Record { times, before, signal, news });
        if child != 0 && said.state.gpr[0] as i64 > 0 {
            self.shared.compare_child(child as u32, said.state.gpr[0] as i32, self.special.clone());
        }
        Ok(Acted::Done)
    }

    /// Replaces the leader's descriptors in mapping changes by our own. A file that cannot be opened again is
    /// given as contents.
    fn open_files(&mut self, news: &mut News) {
        for op in &mut news.maps {
            let Some(fd) = op.file() else { continue };
            match File::open(format!("/proc/{}/fd/{fd}", self.leader.pid)) {
                Ok(file) => {
                    op.0[4] = file.as_raw_fd() as u64;
                    self.files.push(file);
                }
                Err(_) => {
                    op.0[4] = u64::MAX;
                    news.written.push((op.0[1], self.leader.remote.bytes(op.0[1], op.0[2] as usize)));
                }
            }
        }
    }

    /// Lets the guest carry out its last act.
    fn let_go(&self) {
        let mut w = Writer::default();
        self.leader.seat.send(super::channel::Turn::Agent, &w.word(Command::Act as u64).0);
    }

    fn ended(&mut self, how: String) -> Ending {
        let _ = waitpid(Pid::from_raw(self.leader.pid), Some(WaitPidFlag::__WALL));
        let Ending { turns, faults, signals, places, comparisons, .. } = self.ending;
        Ending { status: SAME, turns, faults, signals, places, comparisons, how }
    }

    /// The leader's process has ended without saying so.
    fn leader_ended(&mut self) -> Ending {
        let how = match waitpid(Pid::from_raw(self.leader.pid), Some(WaitPidFlag::__WALL)) {
            Ok(WaitStatus::Signaled(_, signal, _)) => format!("ended by {signal}"),
            _ => "its process has ended".to_owned(),
        };
        let Ending { turns, faults, signals, places, comparisons, .. } = self.ending;
        Ending { status: SAME, turns, faults, signals, places, comparisons, how }
    }

    fn compare_memory(&mut self) -> Result<()> {
        self.ending.comparisons += 1;
        match memory_difference(&self.leader.remote, &self.follower)? {
            None => Ok(()),
            Some(row) => Err(self.diverged(Mismatch { what: "memory differs".into(), rows: vec![row] })),
        }
    }

    /// Compares all memory; then the present is the checkpoint.
    fn make_checkpoint(&mut self) -> Result<()> {
        let start = Instant::now();
        self.compare_memory()?;
        self.checkpoint = self.leader.fork(&self.shared.channel)?;
        self.log.clear();
        self.files.clear();
        self.times.clear();
        self.next_checkpoint = Instant::now() + CHECKPOINT.max(start.elapsed() * CHECKPOINT_SHARE);
        Ok(())
    }

    fn diverged(&mut self, mismatch: Mismatch) -> Trouble {
        match narrow::narrow(self) {
            Ok(found) => Trouble::Diverged(report::text(self, &mismatch, found.as_ref())),
            Err(trouble) => trouble,
        }
    }
}

/// System calls that mean something to the controller (arch/x86/entry/syscalls/syscall_64.tbl).
mod nr {
    pub(super) const SHMAT: u64 = 30;
    pub(super) const CLONE: u64 = 56;
    pub(super) const FORK: u64 = 57;
    pub(super) const VFORK: u64 = 58;
    pub(super) const EXIT: u64 = 60;
    pub(super) const EXIT_GROUP: u64 = 231;
    pub(super) const CLONE3: u64 = 435;
}

/// Whether a system call may make a process.
pub(super) fn makes_child(number: u64) -> bool {
    matches!(number, nr::CLONE | nr::FORK | nr::VFORK | nr::CLONE3)
}

/// A difference between the two sides.
#[derive(Clone, Debug)]
pub(super) struct Mismatch {
    pub(super) what: String,
    pub(super) rows: Vec<Difference>,
}

/// What came of following the leader.
pub(super) enum Followed {
    Equal,
    Differs(Mismatch),
}

/// Lets the follower come to where the leader, whose memory is `remote`, has stopped, and compares.
pub(super) fn follow(follower: &mut Follower, remote: &Remote, said: &Said, last: &State) -> Result<Followed> {
    if said.what == Report::Syscall as u64 || said.what == Report::Fault as u64 {
        return follow_to_event(follower, said, last);
    }
    let leader = &said.state;
    if !said.moved {
        return Ok(Followed::Equal);
    }
    // More arrivals than these would take longer than anybody waits.
    const MOST_VISITS: u64 = 1 << 16;
    let visits = said.visits.filter(|&visits| visits <= MOST_VISITS);
    let target = Target { pc: leader.rip, gpr: leader.gpr, when: visits.map_or(When::Registers, When::Visits) };
    // Without a number, a place is one with all registers and all memory of the leader's: that of a loop that only waits.
    const TRIES: usize = 64;
    for _ in 0..if visits.is_some() { 1 } else { TRIES } {
        let stop = follower.run(Some(&target), &said.special, &said.times)?;
        let expected = follower.state()?;
        if stop == Stop::Lost {
            break;
        }
        if stop != Stop::Reached {
            let what = format!("expected {}, got on", words(&stop, expected.rip));
            let rows = rules::differences(Some(last), &expected, leader, Mask::ALL);
            return Ok(Followed::Differs(Mismatch { what, rows }));
        }
        let mut code = follower.remote().bytes(target.pc, 64);
        follower.clean_code(target.pc, &mut code);
        let mask = Mask { flags: rules::flags_live_at(&code, target.pc), ..Mask::ALL };
        let rows = rules::differences(Some(last), &expected, leader, mask);
        if rows.is_empty() && (visits.is_some() || memory_difference(remote, follower)?.is_none()) {
            return Ok(Followed::Equal);
        }
        if visits.is_some() {
            return Ok(Followed::Differs(Mismatch { what: format!("states differ at {:#x}", target.pc), rows }));
        }
    }
    Err(Trouble::Impossible(UNPLACED.into()))
}

/// A signal came where places are not counted, or too often to wait for it, and registers and memory alone do not tell when.
const UNPLACED: &str = "a signal came in the middle of a loop, and which of its turns cannot be told";

/// The same where the leader has come to a system call or a fault.
fn follow_to_event(follower: &mut Follower, said: &Said, last: &State) -> Result<Followed> {
    let leader = &said.state;
    let (stop, stopped) = (follower.run(None, &said.special, &said.times)?, super::follower::stop_of(said));
    let mut expected = follower.state()?;
    if stop != stopped {
        let rows = rules::differences(Some(last), &expected, leader, Mask::ALL);
        let what = format!("expected {}, got {}", words(&stop, expected.rip), words(&stopped, leader.rip));
        return Ok(Followed::Differs(Mismatch { what, rows }));
    }
    let mask = if stop == Stop::Syscall {
        // The processor stops with ENOSYS in RAX, and the number beside it.
        expected.gpr[0] = follower.syscall_number()?;
        let from = leader.rip.saturating_sub(64);
        let mut code = follower.remote().bytes(from, 64);
        follower.clean_code(from, &mut code);
        Mask { flags: rules::flags_at_syscall(&code, leader.rip), syscall: true, pc_only: false }
    } else {
        // Rule `fault-state`: code without a handler for faults keeps no exact state at them.
        Mask { pc_only: true, ..Mask::ALL }
    };
    let rows = rules::differences(Some(last), &expected, leader, mask);
    if rows.is_empty() {
        return Ok(Followed::Equal);
    }
    let what = format!("states differ at {}", words(&stop, expected.rip));
    Ok(Followed::Differs(Mismatch { what, rows }))
}

fn words(stop: &Stop, pc: u64) -> String {
    match stop {
        Stop::Reached => format!("nothing special at {pc:#x}"),
        Stop::Syscall => format!("the system call at {:#x}", pc.wrapping_sub(2)),
        Stop::Fault { signo, code, addr } => {
            format!("{} (code {code}, address {addr:#x}) at {pc:#x}", signal_name(*signo))
        }
        Stop::Lost => format!("never these registers at {pc:#x}"),
    }
}

/// Bytes compared at a time.
const CHUNK: u64 = 1 << 20;

/// The first difference in the guest's memory: pages that one of both has for itself are compared.
pub(super) fn memory_difference(leader: &Remote, follower: &Follower) -> Result<Option<Difference>> {
    let remote = follower.remote();
    let maps = std::fs::read_to_string(format!("/proc/{}/maps", remote.pid))?;
    let kept = kept_by(remote.pid, &maps)?;
    let is_guests = |start: &u64| *start != birth::STUB && !kept.iter().any(|range| range.contains(start));
    for line in maps.lines() {
        let Some((start, end)) = range_of(line).filter(|(start, _)| is_guests(start)) else { continue };
        for at in (start..end).step_by(CHUNK as usize) {
            if let Some(row) = chunk_difference(leader, follower, at, end.min(at + CHUNK)) {
                return Ok(Some(row));
            }
        }
    }
    Ok(None)
}

/// Where in the mappings of an agent or its copy the translator lives (`memory/layout.rs`): around its image, its stack, and the channel, which
/// lies where the kernel maps memory for it. Another agent's lie elsewhere.
fn kept_by(pid: i32, maps: &str) -> Result<Vec<std::ops::Range<u64>>> {
    let image = std::fs::read_link(format!("/proc/{pid}/exe"))?;
    let image = image.to_string_lossy();
    let is_ours = |line: &str| line.ends_with(&*image) || line.ends_with("[stack]") || line.contains(Channel::NAME);
    let ours = maps.lines().filter(|line| is_ours(line)).filter_map(range_of);
    Ok(ours.map(|(start, _)| neighbourhood(start)).chain(std::iter::once(VSYSCALL..u64::MAX)).collect())
}

/// The page of `vsyscall`, in kernel space.
const VSYSCALL: u64 = 0xffff_ffff_ff60_0000;

/// Start and end in a line of `/proc/PID/maps`.
fn range_of(line: &str) -> Option<(u64, u64)> {
    let (start, end) = line.split_whitespace().next()?.split_once('-')?;
    Some((u64::from_str_radix(start, 16).ok()?, u64::from_str_radix(end, 16).ok()?))
}

fn chunk_difference(leader: &Remote, follower: &Follower, start: u64, end: u64) -> Option<Difference> {
    let remote = follower.remote();
    let (ours, theirs) = (leader.own_pages(start, end), remote.own_pages(start, end));
    let mut page = 0;
    while page < ours.len() {
        let run = (page..ours.len()).take_while(|&n| ours[n] || theirs[n]).count();
        if run == 0 {
            page += 1;
            continue;
        }
        let (at, len) = (start + page as u64 * PAGE, run * PAGE as usize);
        let (got, mut expected) = (leader.bytes(at, len), remote.bytes(at, len));
        if got != expected {
            follower.clean_code(at, &mut expected);
        }
        if let Some(n) = (0..got.len().min(expected.len())).find(|&n| got[n] != expected[n]) {
            return Some(memory_row(at, n, &expected, &got));
        }
        if got.len() != expected.len() {
            let text = |bytes: &[u8]| format!("{} bytes can be read", bytes.len());
            let name = format!("[{at:#x}]");
            return Some(Difference { name, before: String::new(), expected: text(&expected), got: text(&got) });
        }
        page += run;
    }
    None
}

fn memory_row(at: u64, n: usize, expected: &[u8], got: &[u8]) -> Difference {
    let from = n & !7;
    let text = |bytes: &[u8]| {
        let end = bytes.len().min(from + 16);
        bytes[from..end].iter().map(|b| format!("{b:02x}")).collect::<Vec<_>>().join(" ")
    };
    Difference {
        name: format!("[{:#x}]", at + from as u64),
        before: String::new(),
        expected: text(expected),
        got: text(got),
    }
}
