//! Either follower: the processor, or another engine.

use super::agent::{Command, Report, Run};
use super::channel::{Channel, Seat, Turn, is_alive};
use super::meter::UNLIMITED;
#[cfg(target_arch = "x86_64")]
use super::native::Native;
use super::remote::Remote;
use super::state::{Reader, State, Writer};
use crate::memory::MapOp;
use std::io;
use std::time::Duration;

/// Where to run to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Target {
    pub(crate) pc: u64,
    pub(crate) gpr: [u64; 16],
    pub(crate) when: When,
}

/// Which arrival at a target's pc is meant.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum When {
    /// The arrival of this number since the run began; 0: no run.
    Visits(u64),
    /// When so much has run since the last event, as the leader's meter counts.
    Done(u64),
    /// The first with the target's registers.
    Registers,
}

/// Why a follower, or a leader, has stopped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Stop {
    /// At the target, or where it was asked to stop.
    Reached,
    /// Behind a SYSCALL instruction that nobody has carried out yet.
    Syscall,
    Fault {
        signo: i32,
        code: i32,
        addr: u64,
    },
    /// Came by the target often, or for long, without having its registers.
    Lost,
}

/// What an agent says.
pub(crate) struct Said {
    pub(crate) what: u64,
    pub(crate) state: State,
    pub(crate) special: Vec<u64>,
    pub(crate) times: Vec<u64>,
    /// Arrivals in the run where it stopped, the last included, if they were counted.
    pub(crate) visits: Option<u64>,
    /// What has run since the last event, as the meter counts.
    pub(crate) done: u64,
    /// Whether the run has run anything.
    pub(crate) moved: bool,
    /// Words behind.
    pub(crate) rest: Vec<u64>,
}

/// An agent, seen from the controller. Its process ends with it.
pub(crate) struct Peer {
    pub(crate) seat: Seat,
    pub(crate) number: u32,
    pub(crate) pid: i32,
    pub(crate) remote: Remote,
    /// Address of its interrupt word.
    pub(crate) interrupt: u64,
    /// Whether it tells places (`meter.rs`).
    pub(crate) counts: bool,
    /// Its registers when it said hello.
    pub(crate) state: State,
    /// Whether it is to be killed when it is no longer needed: not so the guest's own process.
    pub(crate) owned: bool,
}

impl Drop for Peer {
    fn drop(&mut self) {
        if self.owned {
            let pid = nix::unistd::Pid::from_raw(self.pid);
            let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
            let _ = nix::sys::wait::waitpid(pid, Some(nix::sys::wait::WaitPidFlag::__WALL));
        }
    }
}

/// The agent's process has ended.
#[derive(Debug)]
pub(crate) struct Gone;

impl Peer {
    /// The agent that says hello at a seat.
    pub(crate) fn meet(channel: &Channel, number: u32, pid: i32, owned: bool) -> io::Result<Peer> {
        let seat = channel.seat(number);
        let gone = || io::Error::other("the guest's process ended before it began");
        let said = listen(&seat, pid, Duration::MAX).map_err(|Gone| gone())?.ok_or_else(gone)?;
        let mut rest = Reader(&said.rest);
        let (interrupt, pid, counts) = (rest.word(), rest.word() as i32, rest.word() != 0);
        Ok(Peer { seat, number, pid, remote: Remote::open(pid)?, interrupt, counts, state: said.state, owned })
    }

    /// The same process after `execve`, which has said hello again.
    pub(crate) fn meet_again(old: &Peer, channel: &Channel) -> io::Result<Peer> {
        let Peer { number, pid, interrupt, counts, state, .. } = *old;
        let (seat, remote) = (channel.seat(number), Remote::open(pid)?);
        Ok(Peer { seat, number, pid, remote, interrupt, counts, state, owned: false })
    }

    /// Sends a message and waits for the answer.
    pub(crate) fn ask(&self, message: &Writer) -> Result<Said, Gone> {
        self.seat.send(Turn::Agent, &message.0);
        listen(&self.seat, self.pid, Duration::MAX).map(|said| said.expect("without a limit there is an answer"))
    }

    /// Lets the agent run; after `period` it is asked to stop.
    pub(crate) fn run(&self, run: &Run, period: Duration) -> Result<Said, Gone> {
        let mut w = Writer::default();
        run.write(w.word(Command::Run as u64));
        self.seat.send(Turn::Agent, &w.0);
        loop {
            if let Some(said) = listen(&self.seat, self.pid, period)? {
                return Ok(said);
            }
            // The highest byte of the interrupt word (`agent::ASK`).
            self.remote.write(self.interrupt + 3, &[1]);
        }
    }

    /// Makes a copy that listens at another seat.
    pub(crate) fn fork(&self, channel: &Channel) -> io::Result<Peer> {
        let number = channel.free_seat().ok_or_else(|| io::Error::other("too many processes"))?;
        let seat = channel.seat(number);
        let mut w = Writer::default();
        self.simple(w.word(Command::Fork as u64).word(number.into()))?;
        let pid = seat.announced(Duration::from_secs(20)).ok_or_else(|| io::Error::other("no copy"))?;
        Peer::meet(channel, number, pid, true)
    }

    /// Makes a copy for the processor to run; its number.
    #[cfg_attr(not(target_arch = "x86_64"), allow(dead_code, reason = "only a native follower uses it"))]
    pub(crate) fn native(&self) -> io::Result<i32> {
        let mut w = Writer::default();
        self.simple(w.word(Command::Native as u64))?;
        self.seat.announced(Duration::from_secs(20)).ok_or_else(|| io::Error::other("no native process"))
    }

    fn simple(&self, message: &Writer) -> io::Result<()> {
        self.seat.send(Turn::Agent, &message.0);
        loop {
            if let Some(words) = self.seat.receive(Turn::Controller, Duration::from_millis(500)) {
                return if words[1] == 0 { Ok(()) } else { Err(io::Error::other("no more processes")) };
            }
            if !is_alive(self.pid) {
                return Err(io::Error::other("the guest's process ended"));
            }
        }
    }

    /// Gives the agent what happened elsewhere.
    pub(crate) fn adopt(&self, news: &News) -> io::Result<()> {
        let mut w = Writer::default();
        w.word(Command::Adopt as u64).state(&news.state);
        w.words(&news.maps.iter().flat_map(|op| op.0).collect::<Vec<_>>());
        w.words(&news.written.iter().flat_map(|(at, bytes)| [*at, bytes.len() as u64]).collect::<Vec<_>>());
        self.ask(&w).map_err(|Gone| io::Error::other("the guest's process ended"))?;
        for (at, bytes) in &news.written {
            self.remote.write(*at, bytes);
        }
        Ok(())
    }

    /// Time stamps for the instructions to come.
    pub(crate) fn feed(&self, times: &[u64]) -> io::Result<()> {
        if times.is_empty() {
            return Ok(());
        }
        let mut w = Writer::default();
        w.word(Command::Feed as u64).words(times);
        self.ask(&w).map(drop).map_err(|Gone| io::Error::other("the guest's process ended"))
    }

    /// Words about an instruction.
    pub(crate) fn describe(&self, pc: u64) -> String {
        let mut w = Writer::default();
        self.seat.send(Turn::Agent, &w.word(Command::Describe as u64).word(pc).0);
        match self.seat.receive(Turn::Controller, Duration::from_secs(60)) {
            Some(words) => Reader(&words[1..]).text(),
            None => String::new(),
        }
    }
}

/// Waits for an agent's word; `None` when the time is up.
fn listen(seat: &Seat, pid: i32, limit: Duration) -> Result<Option<Said>, Gone> {
    const SLICE: Duration = Duration::from_millis(200);
    let mut left = limit;
    loop {
        if let Some(words) = seat.receive(Turn::Controller, left.min(SLICE)) {
            let mut r = Reader(&words);
            let (what, state) = (r.word(), r.state());
            let (special, times, visits) = (r.words(), r.words(), r.word().checked_sub(1));
            let (done, moved) = (r.word(), r.word() != 0);
            return Ok(Some(Said { what, state, special, times, visits, done, moved, rest: r.0.to_vec() }));
        }
        left = left.saturating_sub(SLICE);
        if left.is_zero() {
            return Ok(None);
        }
        if ended(pid) {
            return Err(Gone);
        }
    }
}

/// Whether a process has ended; a child of ours that has is left for whoever asks for its status.
fn ended(pid: i32) -> bool {
    use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
    let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT | WaitPidFlag::__WALL;
    match waitid(Id::Pid(nix::unistd::Pid::from_raw(pid)), flags) {
        Ok(WaitStatus::StillAlive) => false,
        Ok(_) => true,
        Err(_) => !is_alive(pid),
    }
}

/// What came of a system call, a fault or a signal.
#[derive(Clone)]
pub(crate) struct News {
    pub(crate) state: State,
    pub(crate) maps: Vec<MapOp>,
    pub(crate) written: Vec<(u64, Vec<u8>)>,
}

/// What follows the leader.
pub(crate) enum Follower {
    #[cfg(target_arch = "x86_64")]
    Native(Box<Native>),
    Engine(Box<(Peer, Option<State>)>),
}

impl Follower {
    pub(crate) fn remote(&self) -> &Remote {
        match self {
            #[cfg(target_arch = "x86_64")]
            Follower::Native(native) => &native.remote,
            Follower::Engine(engine) => &engine.0.remote,
        }
    }

    /// Runs until the next system call or fault, or the target. Special instructions and time stamps are the leader's.
    #[cfg_attr(not(target_arch = "x86_64"), allow(unused_variables, reason = "only a native follower needs them"))]
    pub(crate) fn run(&mut self, target: Option<&Target>, special: &[u64], times: &[u64]) -> io::Result<Stop> {
        match self {
            #[cfg(target_arch = "x86_64")]
            Follower::Native(native) => {
                special.iter().for_each(|&pc| native.mark_special(pc));
                native.times.extend(times);
                native.run(target)
            }
            Follower::Engine(engine) => {
                let (peer, state) = &mut **engine;
                peer.feed(times)?;
                let run = Run { budget: UNLIMITED, most: u64::MAX, target: target.copied() };
                let said = peer.run(&run, Duration::MAX);
                let said = said.map_err(|Gone| io::Error::other("the follower's process ended"))?;
                *state = Some(said.state);
                Ok(stop_of(&said))
            }
        }
    }

    pub(crate) fn state(&self) -> io::Result<State> {
        match self {
            #[cfg(target_arch = "x86_64")]
            Follower::Native(native) => native.state(),
            Follower::Engine(engine) => engine.1.ok_or_else(|| io::Error::other("no state yet")),
        }
    }

    /// At a system call: its number.
    pub(crate) fn syscall_number(&self) -> io::Result<u64> {
        match self {
            #[cfg(target_arch = "x86_64")]
            Follower::Native(native) => native.syscall_number(),
            Follower::Engine(..) => Ok(self.state()?.gpr[0]),
        }
    }

    /// Runs one instruction.
    pub(crate) fn step(&mut self) -> io::Result<Option<Stop>> {
        match self {
            #[cfg(target_arch = "x86_64")]
            Follower::Native(native) => native.step(),
            Follower::Engine(engine) => {
                let (peer, state) = &mut **engine;
                let mut w = Writer::default();
                let said = peer.ask(w.word(Command::Step as u64));
                let said = said.map_err(|Gone| io::Error::other("the follower's process ended"))?;
                *state = Some(said.state);
                let stop = stop_of(&said);
                Ok((stop != Stop::Reached).then_some(stop))
            }
        }
    }

    /// Takes over what happened to the leader. `vectors`: the call may have changed vectors or x87 state.
    #[cfg_attr(not(target_arch = "x86_64"), allow(unused_variables, reason = "only a native follower needs them"))]
    pub(crate) fn adopt(&mut self, news: &News, vectors: bool) -> io::Result<()> {
        match self {
            #[cfg(target_arch = "x86_64")]
            Follower::Native(native) => {
                for op in &news.maps {
                    native.repeat(op, std::process::id() as i32)?;
                }
                for (at, bytes) in &news.written {
                    native.remote.write(*at, bytes);
                }
                if vectors { native.set_state(&news.state) } else { native.set_general(&news.state) }
            }
            Follower::Engine(engine) => {
                let (peer, state) = &mut **engine;
                *state = Some(news.state);
                peer.adopt(news)
            }
        }
    }

    /// Instructions that only the leader's engine can run, and time stamps, before the follower meets them.
    #[cfg_attr(not(target_arch = "x86_64"), allow(unused_variables, reason = "only a native follower needs them"))]
    pub(crate) fn learn(&mut self, special: &[u64], times: &[u64]) {
        match self {
            #[cfg(target_arch = "x86_64")]
            Follower::Native(native) => {
                special.iter().for_each(|&pc| native.mark_special(pc));
                native.times.extend(times);
            }
            // A process that has gone will be noticed at the next run.
            Follower::Engine(engine) => drop(engine.0.feed(times)),
        }
    }

    /// The guest's own bytes of code read from the follower.
    pub(crate) fn clean_code(&self, at: u64, bytes: &mut [u8]) {
        match self {
            #[cfg(target_arch = "x86_64")]
            Follower::Native(native) => native.without_breakpoints(at, bytes),
            Follower::Engine(..) => {
                let _ = (at, bytes);
            }
        }
    }
}

/// What a report says about where the agent has stopped.
pub(crate) fn stop_of(said: &Said) -> Stop {
    match said.what {
        w if w == Report::Syscall as u64 => Stop::Syscall,
        w if w == Report::Fault as u64 => {
            let [signo, code, addr] = Reader(&said.rest).array();
            Stop::Fault { signo: signo as i32, code: code as i32, addr }
        }
        _ => Stop::Reached,
    }
}
