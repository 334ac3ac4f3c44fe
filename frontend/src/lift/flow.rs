//! Which flags are still read behind each block of a region: the look-ahead of `ahead.rs` made exact for the region's own blocks
//! by solving the equations of its graph, and extended by a second question: read by whom?
//!
//! - A flag is *read* if code of the region reads it, or may read it in a known place outside: it must be put.
//! - A flag is *unknown* if it lives up to a return or an indirect jump, and only there. Nobody knows whether anything reads it then,
//!   and nearly nothing does. Such flags are deferred (`ir/src/deferred.rs`): what they can be computed from is kept, and they are computed
//!   where the jump's target wants them.
//!
//! In precise mode all flags are unknown in front of an instruction that may fault, too: a signal handler may look at them.
//!
//! A block that changes some flags and lets others through has the others put before it: deferred flags are all six or none, so it
//! could not defer again. That makes invariant 3 of `deferred.rs` hold.

use super::LiftOptions;
use super::ahead::{self, NOTHING};
use super::flags::FlagSet;
use super::glance::{Glance, Next};
use crate::decode::{CodeReader, Decoded, Window};
use calque_ir::GuestAddr;
use hashbrown::HashMap;

/// Flags that are live at a place.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Live {
    pub(super) read: FlagSet,
    pub(super) unknown: FlagSet,
}

impl Live {
    /// Read, all of `flags`.
    pub(super) fn read(flags: FlagSet) -> Live {
        Live { read: flags, unknown: FlagSet::NONE }
    }

    /// All of them.
    pub(super) fn all(self) -> FlagSet {
        self.read.or(self.unknown)
    }

    /// Whatever is alive in one of two places.
    pub(super) fn or(self, other: Live) -> Live {
        Live { read: self.read.or(other.read), unknown: self.unknown.or(other.unknown) }
    }

    /// The same without flags that need no care.
    pub(super) fn and(self, flags: FlagSet) -> Live {
        Live { read: self.read.and(flags), unknown: self.unknown.and(flags) }
    }

    pub(super) fn is_empty(self) -> bool {
        self.all().is_empty()
    }

    /// Whether a computed jump may lead there with the flags as they are: not computed, or where all code keeps them exact, deferred.
    pub(super) fn takes_deferred(self, opts: &LiftOptions) -> bool {
        self.read.is_empty() && (opts.precise_everywhere || self.unknown.is_empty())
    }
}

/// All flags, wanted by nobody knows whom.
pub(super) const UNKNOWN: Live = Live { read: FlagSet::NONE, unknown: FlagSet::ALL };

/// What a run of instructions does to flags.
#[derive(Clone, Copy, Default)]
pub(super) struct Run {
    /// Read before they are overwritten.
    pub(super) reads: FlagSet,
    /// Always overwritten.
    pub(super) kills: FlagSet,
    /// Whether it changes any.
    changes: bool,
    /// Whether a signal handler may look at all six before any is changed.
    shown: bool,
}

impl Run {
    /// One more instruction, which a signal handler may look in front of if it may `stop`.
    pub(super) fn add(&mut self, insn: &Glance, stop: bool) {
        match stop {
            true if self.changes => self.reads = self.reads.or(FlagSet::ALL.without(self.kills)),
            true => self.shown = true,
            false => {}
        }
        self.reads = self.reads.or(insn.reads.without(self.kills));
        self.kills = self.kills.or(insn.kills);
        self.changes |= insn.changes;
    }

    /// What is live in front of it, given what is `behind`.
    pub(super) fn live(&self, behind: Live) -> Live {
        let through = if self.changes { Live::read(behind.all()) } else { behind };
        let unknown = if self.shown { FlagSet::ALL } else { through.unknown };
        Live { read: self.reads.or(through.read.without(self.kills)), unknown }
    }
}

/// The flags that are live at the region's block starts and at the places that its exits lead to.
pub(super) struct FlagFlow {
    live: HashMap<GuestAddr, Live>,
    called: HashMap<GuestAddr, Live>,
}

impl FlagFlow {
    pub(super) fn of(code: &dyn CodeReader, starts: &[GuestAddr], opts: &LiftOptions) -> FlagFlow {
        let mut flow = FlagFlow { live: HashMap::new(), called: HashMap::new() };
        // Other code is left to with flags deferred only where it expects that, or lets them through.
        let outside = |live: Live| if opts.precise || opts.defers { live } else { Live::read(live.all()) };
        flow.live.extend(starts.iter().map(|pc| (*pc, Live::default())));
        let mut window = Window::new();
        let runs: Vec<(Run, Next)> =
            starts.iter().map(|&start| run(code, &mut window, start, &flow.live, opts)).collect();
        let mut meet = |pc| {
            flow.live.entry(pc).or_insert_with(|| outside(ahead::live_at(code, NOTHING, pc, opts)));
        };
        for (_, next) in &runs {
            match *next {
                Next::At(a) => meet(a),
                Next::Both(a, b) => [a, b].into_iter().for_each(&mut meet),
                Next::Called(pc) if opts.enters_calls() && starts.contains(&pc) => {}
                Next::Called(pc) => {
                    flow.called.entry(pc).or_insert_with(|| outside(ahead::live_at_call(code, NOTHING, pc, opts)));
                }
                Next::Computed | Next::Outside | Next::Behind => {}
            }
        }
        while flow.step(starts, &runs) {}
        flow
    }

    /// One round of the equations; whether anything changed.
    fn step(&mut self, starts: &[GuestAddr], runs: &[(Run, Next)]) -> bool {
        let mut changed = false;
        for (start, (run, next)) in starts.iter().zip(runs).rev() {
            let behind = match *next {
                Next::At(a) => self.live[&a],
                Next::Both(a, b) => self.live[&a].or(self.live[&b]),
                Next::Called(pc) => self.called.get(&pc).copied().unwrap_or_else(|| self.live[&pc]),
                Next::Computed => UNKNOWN,
                Next::Outside | Next::Behind => Live::read(FlagSet::ALL),
            };
            let live = run.live(behind);
            changed |= self.live.insert(*start, live) != Some(live);
        }
        changed
    }

    /// The flags that are live at `pc`, if the region has a block or an exit there.
    pub(super) fn at(&self, pc: GuestAddr) -> Option<Live> {
        self.live.get(&pc).copied()
    }

    /// The same for the target of a call, which may be a block of the region.
    pub(super) fn at_call(&self, pc: GuestAddr) -> Option<Live> {
        self.called.get(&pc).copied().or_else(|| self.at(pc))
    }
}

/// What the block at `start` does to flags, and where it leads.
fn run(
    code: &dyn CodeReader,
    window: &mut Window,
    start: GuestAddr,
    starts: &HashMap<GuestAddr, Live>,
    opts: &LiftOptions,
) -> (Run, Next) {
    let (mut run, mut next) = (Run::default(), Next::Outside);
    let mut n = 0;
    window.walk(code, start, |what, i| {
        let at = GuestAddr(i.ip());
        if n > 0 && (n == opts.block_insns || what == Decoded::Unfetchable || starts.contains_key(&at)) {
            next = Next::At(at);
            return false;
        }
        if what != Decoded::Insn {
            return false;
        }
        n += 1;
        let insn = ahead::look(i);
        run.add(&insn, ahead::may_stop(i, opts));
        if insn.next != Next::Behind {
            next = insn.next;
        }
        insn.next == Next::Behind
    });
    (run, next)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::Bytes;

    const BASE: u64 = 0x1000;

    fn at(bytes: &[u8], starts: &[u64]) -> Vec<Live> {
        let starts: Vec<_> = starts.iter().map(|n| GuestAddr(BASE + n)).collect();
        let code = Bytes { pc: GuestAddr(BASE), bytes };
        let flow = FlagFlow::of(&code, &starts, &LiftOptions::default());
        starts.iter().map(|&pc| flow.at(pc).unwrap()).collect()
    }

    #[test]
    fn returns_want_what_nobody_knows() {
        assert_eq!(at(&[0x5b, 0xc3], &[0]), [UNKNOWN]); // pop rbx; ret
        assert_eq!(at(&[0x48, 0x01, 0xd8, 0xc3], &[0]), [Live::default()]); // add rax,rbx; ret
    }

    #[test]
    fn what_a_block_cannot_defer_is_read() {
        // inc rbx; ret: CF goes through
        assert_eq!(at(&[0x48, 0xff, 0xc3, 0xc3], &[0]), [Live::read(FlagSet::CF)]);
        // shl rax,cl; ret
        assert_eq!(at(&[0x48, 0xd3, 0xe0, 0xc3], &[0]), [Live::read(FlagSet::ALL)]);
    }

    #[test]
    fn flags_flow_through_the_graph() {
        // 0: jne 3; 2: nop; 3: setb al; 6: ret
        let live = at(&[0x75, 0x01, 0x90, 0x0f, 0x92, 0xc0, 0xc3], &[0, 2, 3]);
        let behind = Live { read: FlagSet::CF, unknown: FlagSet::ALL };
        assert_eq!(live, [Live { read: FlagSet::CF.or(FlagSet::ZF), ..behind }, behind, behind]);
    }

    #[test]
    fn loops_settle() {
        // 0: dec rcx; 3: jne 0; 5: ret
        let live = at(&[0x48, 0xff, 0xc9, 0x75, 0xfb, 0xc3], &[0, 5]);
        assert_eq!(live, [Live::read(FlagSet::CF), UNKNOWN]);
    }
}
