//! Which flags are still read behind each block of a region: the look-ahead of `ahead.rs` made exact for the region's own blocks
//! by solving the equations of its graph, and extended by a second question: read by whom?
//!
//! - A flag is *read* if code of the region reads it, or may read it in a known place outside: it must be put.
//! - A flag is *unknown* if it lives up to a return or an indirect jump, and only there. Nobody knows whether anything reads it then,
//!   and nearly nothing does. Such flags are deferred (`ir/src/deferred.rs`): what they can be computed from is kept, and they are computed
//!   where the jump's target wants them.
//!
//! A block that changes some flags and lets others through has the others put before it: deferred flags are all six or none, so it
//! could not defer again. That makes invariant 3 of `deferred.rs` hold.

use super::ahead;
use super::flags::FlagSet;
use super::{Insn, LiftOptions};
use crate::decode::{CodeReader, Decoded, Window};
use calque_ir::GuestAddr;
use hashbrown::HashMap;
use iced_x86::{FlowControl, MemorySize, Mnemonic, OpKind};

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

    /// Whatever is alive in one of two places.
    pub(super) fn or(self, other: Live) -> Live {
        Live { read: self.read.or(other.read), unknown: self.unknown.or(other.unknown) }
    }

    /// The same without flags that need no care.
    pub(super) fn and(self, flags: FlagSet) -> Live {
        Live { read: self.read.and(flags), unknown: self.unknown.and(flags) }
    }

    pub(super) fn is_empty(self) -> bool {
        self.read.or(self.unknown).is_empty()
    }
}

/// All flags, wanted by nobody knows whom.
pub(super) const UNKNOWN: Live = Live { read: FlagSet::NONE, unknown: FlagSet::ALL };

/// What a guest block does to flags.
struct Summary {
    /// Read before they are overwritten.
    reads: FlagSet,
    /// Always overwritten.
    kills: FlagSet,
    /// Whether it changes any.
    changes: bool,
    next: Next,
}

/// Where a block goes on.
#[derive(Clone, Copy)]
enum Next {
    /// At one of these.
    At(GuestAddr, Option<GuestAddr>),
    Call(GuestAddr),
    /// At a computed pc.
    Computed,
    /// In the kernel, or in a signal handler.
    Outside,
}

/// The flags that are live at the region's block starts and at the places that its exits lead to.
pub(super) struct FlagFlow {
    live: HashMap<GuestAddr, Live>,
    called: HashMap<GuestAddr, Live>,
}

impl FlagFlow {
    pub(super) fn of(code: &dyn CodeReader, starts: &[GuestAddr], opts: &LiftOptions) -> FlagFlow {
        let mut flow = FlagFlow { live: HashMap::new(), called: HashMap::new() };
        flow.live.extend(starts.iter().map(|pc| (*pc, Live::default())));
        let mut window = Window::new();
        let summaries: Vec<Summary> =
            starts.iter().map(|&start| summary(code, &mut window, start, &flow.live, opts.block_insns)).collect();
        for s in &summaries {
            match s.next {
                Next::At(a, b) => {
                    for pc in std::iter::once(a).chain(b) {
                        flow.live.entry(pc).or_insert_with(|| Live::read(ahead::live_at(code, pc, opts)));
                    }
                }
                Next::Call(pc) => {
                    flow.called.entry(pc).or_insert_with(|| Live::read(ahead::live_at_call(code, pc, opts)));
                }
                Next::Computed | Next::Outside => {}
            }
        }
        while flow.step(starts, &summaries) {}
        flow
    }

    /// One round of the equations; whether anything changed.
    fn step(&mut self, starts: &[GuestAddr], summaries: &[Summary]) -> bool {
        let mut changed = false;
        for (start, s) in starts.iter().zip(summaries).rev() {
            let out = match s.next {
                Next::At(a, b) => b.map_or(self.live[&a], |b| self.live[&a].or(self.live[&b])),
                Next::Call(pc) => self.called[&pc],
                Next::Computed => UNKNOWN,
                Next::Outside => Live::read(FlagSet::ALL),
            };
            let through = if s.changes { Live::read(out.read.or(out.unknown)) } else { out };
            let live = Live { read: s.reads.or(through.read.without(s.kills)), unknown: through.unknown };
            changed |= self.live.insert(*start, live) != Some(live);
        }
        changed
    }

    /// The flags that are live at `pc`, if the region has a block or an exit there.
    pub(super) fn at(&self, pc: GuestAddr) -> Option<Live> {
        self.live.get(&pc).copied()
    }

    /// The same for the target of a call.
    pub(super) fn at_call(&self, pc: GuestAddr) -> Option<Live> {
        self.called.get(&pc).copied()
    }
}

fn summary(
    code: &dyn CodeReader,
    window: &mut Window,
    start: GuestAddr,
    starts: &HashMap<GuestAddr, Live>,
    limit: u32,
) -> Summary {
    let mut s = Summary { reads: FlagSet::NONE, kills: FlagSet::NONE, changes: false, next: Next::Outside };
    let mut n = 0;
    window.walk(code, start, |what, i| {
        let at = GuestAddr(i.ip());
        if n > 0 && (n == limit || what == Decoded::Unfetchable || starts.contains_key(&at)) {
            s.next = Next::At(at, None);
            return false;
        }
        if what != Decoded::Insn {
            return false;
        }
        n += 1;
        s.reads = s.reads.or(ahead::from_rflags(i.rflags_read()).without(s.kills));
        s.kills = s.kills.or(ahead::kills(i));
        s.changes |= !ahead::from_rflags(i.rflags_modified()).is_empty();
        match next(i) {
            Some(next) => s.next = next,
            None => return true,
        }
        false
    });
    s
}

/// Where an instruction that ends a block goes on; `None` for the others.
fn next(i: &Insn) -> Option<Next> {
    let near = i.op0_kind() == OpKind::NearBranch64;
    let far = matches!(i.memory_size(), MemorySize::SegPtr16 | MemorySize::SegPtr32 | MemorySize::SegPtr64);
    let target = GuestAddr(i.near_branch_target());
    Some(match i.flow_control() {
        FlowControl::Next | FlowControl::XbeginXabortXend => return None,
        FlowControl::UnconditionalBranch if near => Next::At(target, None),
        FlowControl::ConditionalBranch if near => Next::At(target, Some(GuestAddr(i.next_ip()))),
        FlowControl::Call if near => Next::Call(target),
        FlowControl::IndirectBranch | FlowControl::IndirectCall if !far => Next::Computed,
        FlowControl::Return if i.mnemonic() == Mnemonic::Ret => Next::Computed,
        _ => Next::Outside,
    })
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
