//! From a difference to the first instruction that makes it.
//!
//! A [`Walk`] goes from the checkpoint along the log again, with a fresh pair of executions, and compares more and more often: first
//! at every so many events, at last behind each block. Where both are equal it makes a checkpoint of its own,
//! from which the next, finer walk starts. The last interval is run an instruction at a time on both sides.
//!
//! A difference that shows in a block and not in its instructions one by one (a translation of bytes that have
//! changed, an optimisation) is laid at the door of the instruction that, on the follower's side, wrote last what differs.

use super::agent::{Command, Report, Run};
use super::control::{Followed, Pair, Trouble, follow, follower_of, memory_difference};
use super::follower::{Follower, Gone, Peer, Stop, Target, When, stop_of};
use super::meter::UNLIMITED;
use super::rules::{self, Difference, Mask};
use super::state::{State, Writer};
use iced_x86::{Decoder, DecoderOptions, FlowControl, Instruction};
use std::io;
use std::time::Duration;

/// What was found.
pub(super) struct Found {
    pub(super) pc: u64,
    pub(super) before: State,
    pub(super) rows: Vec<Difference>,
    /// What is special about how both ended, if they did not end alike.
    pub(super) what: Option<String>,
    pub(super) how: How,
    /// Words about the instruction, from the process that has it mapped.
    pub(super) words: String,
}

/// How sure the instruction is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum How {
    /// Run alone, it gives another result.
    Alone,
    /// It wrote last what differs behind its block.
    LastWriter,
}

type Result<T> = std::result::Result<T, Trouble>;

/// A pair that goes along the log.
struct Walk<'a> {
    pair: &'a Pair,
    /// Where to begin again, when that is no longer the pair's own checkpoint.
    base: Option<Peer>,
    base_at: Position,
    leader: Peer,
    follower: Follower,
    at: Position,
    last: State,
}

/// A place between two events.
#[derive(Clone, Copy)]
struct Position {
    /// Index of the next record.
    index: usize,
    /// Whether the leader has got the time stamps up to there.
    fed: bool,
}

enum Progress {
    /// Between two events.
    Middle,
    /// Behind an event.
    Event,
    /// Where the difference was seen, and there is none.
    End,
    Differs,
}

/// How long the leader may run: one that has gone astray may never come to an event.
const PATIENCE: Duration = Duration::from_secs(8);

/// Comparisons that each walk aims at.
const PARTS: u64 = 16;

/// Instructions of a block that are run one by one.
const MOST_STEPS: usize = 4096;

/// Finds the instruction. `None` if the same way leads to no difference this time.
pub(super) fn narrow(pair: &Pair) -> Result<Option<Found>> {
    let mut walk = Walk::new(pair)?;
    // Events first: some of them, then each.
    let stride = pair.log.len() / PARTS as usize;
    if stride > 1 {
        if !walk.search(stride, 0)? {
            return Ok(None);
        }
        walk.restart()?;
    }
    if !walk.search(1, 0)? {
        return Ok(None);
    }
    walk.restart()?;
    // Then blocks: more and more of them up to the difference, then fewer and fewer.
    let Some(mut steps) = walk.gallop()? else { return Ok(None) };
    while steps > 1 {
        walk.restart()?;
        steps = (steps / PARTS).max(1);
        if !walk.search(1, steps)? {
            break;
        }
    }
    walk.restart()?;
    if let Some(found) = walk.one_by_one()? {
        return Ok(Some(found));
    }
    walk.restart()?;
    walk.last_writer(steps)
}

impl<'a> Walk<'a> {
    fn new(pair: &'a Pair) -> Result<Walk<'a>> {
        let (leader, follower) = duo(pair, &pair.checkpoint)?;
        let at = Position { index: 0, fed: false };
        Ok(Walk { pair, base: None, base_at: at, leader, follower, at, last: pair.checkpoint.state })
    }

    fn base(&self) -> &Peer {
        self.base.as_ref().unwrap_or(&self.pair.checkpoint)
    }

    /// Begins again at the last place where both were equal.
    fn restart(&mut self) -> Result<()> {
        let (leader, follower) = duo(self.pair, self.base())?;
        self.last = self.base().state;
        (self.leader, self.follower, self.at) = (leader, follower, self.base_at);
        Ok(())
    }

    /// Makes the present the place to begin again.
    fn save(&mut self) -> Result<()> {
        self.base = Some(self.leader.fork(&self.pair.shared.channel)?);
        self.base_at = self.at;
        Ok(())
    }

    /// Goes on until a difference shows; whether one has.
    fn search(&mut self, stride: usize, steps: u64) -> Result<bool> {
        let mut since = 0;
        loop {
            let end = match self.advance(steps)? {
                Progress::Differs => return Ok(true),
                Progress::End => true,
                Progress::Middle | Progress::Event => false,
            };
            since += 1;
            if since >= stride || end || self.at.index == self.pair.log.len() {
                since = 0;
                if memory_difference(&self.leader.remote, &self.follower)?.is_some() {
                    return Ok(true);
                }
                if !end {
                    self.save()?;
                }
            }
            if end {
                return Ok(false);
            }
        }
    }

    /// Runs the leader to the next event, or for so many blocks, and lets the follower come after.
    fn advance(&mut self, steps: u64) -> Result<Progress> {
        self.feed()?;
        let (record, target) = (self.pair.log.get(self.at.index), self.target());
        let said = self.leader.run(&run_of(steps, target), PATIENCE).map_err(gone)?;
        if !matches!(follow(&mut self.follower, &self.leader.remote, &said, &self.last)?, Followed::Equal) {
            return Ok(Progress::Differs);
        }
        self.last = said.state;
        let here = target.is_some_and(|t| match t.when {
            When::Done(n) => said.state.rip == t.pc && said.done == n,
            _ => said.state.rip == t.pc && said.state.gpr == t.gpr,
        });
        if said.what == Report::Stop as u64 && !here {
            return Ok(Progress::Middle);
        }
        let Some(record) = record else { return Ok(Progress::End) };
        self.leader.adopt(&record.news)?;
        self.follower.adopt(&record.news, true)?;
        self.at = Position { index: self.at.index + 1, fed: false };
        self.last = record.news.state;
        Ok(Progress::Event)
    }

    /// Goes on in longer and longer steps until a difference shows: the length of the last.
    fn gallop(&mut self) -> Result<Option<u64>> {
        const FIRST: u64 = 64;
        const LONGEST: u64 = 1 << 24;
        let mut steps = FIRST;
        loop {
            let end = match self.advance(steps)? {
                Progress::Differs => return Ok(Some(steps)),
                progress => matches!(progress, Progress::End),
            };
            if memory_difference(&self.leader.remote, &self.follower)?.is_some() {
                return Ok(Some(steps));
            }
            if end {
                return Ok(None);
            }
            self.save()?;
            steps = steps.saturating_mul(2).min(LONGEST);
        }
    }

    /// Gives the leader the time stamps up to the next event.
    fn feed(&mut self) -> Result<()> {
        if !std::mem::replace(&mut self.at.fed, true) {
            let times = self.pair.log.get(self.at.index).map_or(&self.pair.times, |r| &r.times);
            self.leader.feed(times)?;
        }
        Ok(())
    }

    /// Where the next event is to happen, if nothing in the program leads to it.
    fn target(&self) -> Option<Target> {
        let record = self.pair.log.get(self.at.index)?;
        let when = When::Done(record.signal?);
        Some(Target { pc: record.before.rip, gpr: record.before.gpr, when })
    }

    /// The instruction at the follower's RIP.
    fn instruction(&self, pc: u64) -> Instruction {
        let mut code = self.follower.remote().bytes(pc, 15);
        self.follower.clean_code(pc, &mut code);
        Decoder::with_ip(64, &code, pc, DecoderOptions::NONE).decode()
    }

    /// Lets the follower run one instruction, repetitions included.
    fn follower_step(&mut self, insn: &Instruction) -> Result<Option<Stop>> {
        let repeats = insn.has_rep_prefix() || insn.has_repne_prefix();
        loop {
            let stop = self.follower.step()?;
            if stop.is_some() || !repeats || self.follower.state()?.rip != insn.ip() {
                return Ok(stop);
            }
        }
    }

    /// Runs both sides an instruction at a time until they differ.
    fn one_by_one(&mut self) -> Result<Option<Found>> {
        let mut before = self.last;
        let mut known = !(before.rflags ^ self.follower.state()?.rflags) & rules::STATUS;
        self.feed()?;
        for _ in 0..MOST_STEPS {
            let insn = self.instruction(before.rip);
            let mut w = Writer::default();
            let said = self.leader.ask(w.word(Command::Step as u64)).map_err(gone)?;
            self.follower.learn(&said.special, &said.times);
            let stop = self.follower_step(&insn)?.unwrap_or(Stop::Reached);
            let expected = self.follower.state()?;
            known = rules::known_after(known, &insn);
            let stopped = stop_of(&said);
            let mask = Mask { flags: known, ..Mask::ALL };
            let ends = stop != Stop::Reached || stopped != Stop::Reached;
            let mut rows =
                if ends { Vec::new() } else { rules::differences(Some(&before), &expected, &said.state, mask) };
            if !ends {
                rows.extend(memory_difference(&self.leader.remote, &self.follower)?);
            }
            let what = (stop != stopped).then(|| format!("expected {}, got {}", ending(&stop), ending(&stopped)));
            if !rows.is_empty() || what.is_some() {
                let words = self.base().describe(before.rip);
                return Ok(Some(Found { pc: before.rip, before, rows, what, how: How::Alone, words }));
            }
            if ends {
                break;
            }
            before = expected;
        }
        Ok(None)
    }

    /// The instruction that wrote last what differs behind the interval.
    fn last_writer(&mut self, steps: u64) -> Result<Option<Found>> {
        let start = self.last;
        self.feed()?;
        let target = self.target();
        let said = self.leader.run(&run_of(steps, target), PATIENCE).map_err(gone)?;
        self.follower.learn(&said.special, &said.times);
        let trace = self.trace(start, said.state.rip, steps == 1)?;
        let Some(end) = trace.last() else { return Ok(None) };
        let mut rows = rules::differences(None, end, &said.state, Mask { flags: 0, ..Mask::ALL });
        let memory = memory_difference(&self.leader.remote, &self.follower)?;
        let mut first = trace.len();
        for row in &rows {
            let written = (1..trace.len()).rev().find(|&n| rules::differs_in(&trace[n - 1], &trace[n], &row.name));
            first = first.min(written.unwrap_or(trace.len()));
        }
        if let Some(row) = memory {
            first = first.min(self.last_store(start, trace.len(), &row)?.unwrap_or(trace.len()));
            rows.push(row);
        }
        let Some(before) = first.checked_sub(1).and_then(|n| trace.get(n)).filter(|_| first < trace.len()) else {
            return Ok(None);
        };
        let words = self.base().describe(before.rip);
        Ok(Some(Found { pc: before.rip, before: *before, rows, what: None, how: How::LastWriter, words }))
    }

    /// The follower's states from `start` until it stands at `end`, or behind the first jump if that is the end of `one_block`, or cannot
    /// go on.
    fn trace(&mut self, start: State, end: u64, one_block: bool) -> Result<Vec<State>> {
        const MOST: usize = 20_000;
        let mut trace = vec![start];
        while trace.len() < MOST {
            let insn = self.instruction(trace[trace.len() - 1].rip);
            let stop = self.follower_step(&insn)?;
            trace.push(self.follower.state()?);
            let over = one_block && insn.flow_control() != FlowControl::Next;
            if stop.is_some() || over || trace[trace.len() - 1].rip == end {
                break;
            }
        }
        Ok(trace)
    }

    /// The number of the last of `len` states behind a store to the memory of `row`.
    fn last_store(&mut self, start: State, len: usize, row: &Difference) -> Result<Option<usize>> {
        let digits = row.name.trim_start_matches("[0x").trim_end_matches(']');
        let Ok(at) = u64::from_str_radix(digits, 16) else { return Ok(None) };
        let (leader, follower) = duo(self.pair, self.base())?;
        (self.leader, self.follower) = (leader, follower);
        let (mut found, mut state) = (None, start);
        let mut seen = self.follower.remote().bytes(at, 16);
        for n in 1..len {
            let insn = self.instruction(state.rip);
            self.follower_step(&insn)?;
            state = self.follower.state()?;
            let now = self.follower.remote().bytes(at, 16);
            if now != seen {
                found = Some(n);
            }
            seen = now;
        }
        Ok(found)
    }
}

/// A run of so many steps; 0: to the next event.
fn run_of(steps: u64, target: Option<Target>) -> Run {
    /// Most arrivals at a place: what takes a follower about a second.
    const MOST: u64 = 50_000;
    Run { budget: if steps == 0 { UNLIMITED } else { steps }, most: MOST, target }
}

/// A leader and a follower that begin where `base` sleeps.
fn duo(pair: &Pair, base: &Peer) -> Result<(Peer, Follower)> {
    let leader = base.fork(&pair.shared.channel)?;
    let follower = follower_of(&pair.shared, base, &base.state, &pair.special)?;
    Ok((leader, follower))
}

fn gone(_: Gone) -> Trouble {
    Trouble::Impossible(io::Error::other("the re-execution ended by itself").to_string())
}

fn ending(stop: &Stop) -> String {
    match stop {
        Stop::Reached => "to go on".into(),
        Stop::Syscall => "a system call".into(),
        Stop::Fault { signo, code, addr } => {
            format!("{} (code {code}, address {addr:#x})", crate::signal::signal_name(*signo))
        }
        Stop::Lost => "to be here".into(),
    }
}
