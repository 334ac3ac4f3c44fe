//! Discovery of a region: the guest blocks reached from a pc over direct edges.
//!
//! First the instructions are only decoded, to find where blocks start; then each block is lifted up to the next
//! start. An edge is followed if the profile says that its target has run; the others are side exits. Small functions that are called are
//! taken in (`calls.rs`), and the cases of a switch (`switches.rs`); other calls and computed jumps leave the region.
//!
//! Invariants:
//! 1. Block starts are exact: no guest instruction is lifted twice unless two paths decode the bytes differently.
//! 2. Blocks are numbered in reverse postorder, the entry 0: an edge goes to a lower number only where it closes a loop,
//!    which is where engines poll.
//! 3. Only its entry may be code that the guest may not execute: nobody would notice that it becomes executable, so what leads there
//!    leaves the region.

use super::ahead::{self, NOTHING};
use super::calls::{self, Calls};
use super::flow::FlagFlow;
use super::unroll::unroll;
use super::{LiftOptions, Lifter};
use crate::decode::{CodeReader, Decoded, Window};
use calque_ir::{BlockId, Builder, Exit, GuestAddr, Region, Target};
use hashbrown::HashMap;
use iced_x86::{FlowControl, OpKind};

/// Numbers the blocks in reverse postorder; a branch's fallthrough directly behind it where that is possible.
fn renumber(region: &mut Region) {
    let mut order = Vec::with_capacity(region.blocks.len());
    let mut seen = vec![false; region.blocks.len()];
    // Beside the entry, what nothing leads to: behind the rest.
    for root in region.block_ids() {
        let from = order.len();
        if !seen[root.0 as usize] {
            postorder(region, root, &mut seen, &mut order);
            order[from..].reverse();
        }
    }
    let mut numbers = vec![BlockId(0); order.len()];
    for (n, id) in order.iter().enumerate() {
        numbers[id.0 as usize] = BlockId(n as u32);
    }
    region.blocks = order.iter().map(|id| region.blocks[id.0 as usize]).collect();
    for block in &mut region.blocks {
        block.exit.for_each_target(|target| {
            if let Target::Block(to) = target {
                *to = numbers[to.0 as usize];
            }
        });
    }
    for (from, to) in &mut region.predicted {
        (*from, *to) = (numbers[from.0 as usize], numbers[to.0 as usize]);
    }
    region.predicted.sort_by_key(|(from, _)| *from);
}

fn postorder(region: &Region, root: BlockId, seen: &mut [bool], order: &mut Vec<BlockId>) {
    let mut path = vec![(root, region.successors(root))];
    seen[root.0 as usize] = true;
    while let Some((id, successors)) = path.last_mut() {
        match successors.next() {
            Some(to) if !seen[to.0 as usize] => {
                seen[to.0 as usize] = true;
                path.push((to, region.successors(to)));
            }
            Some(_) => {}
            None => {
                order.push(*id);
                path.pop();
            }
        }
    }
}

/// What is known of earlier executions.
pub trait Profile {
    /// Whether the block at `pc` has been executed.
    fn executed(&self, pc: GuestAddr) -> bool;

    /// Where the computed jump or call at this pc is likely to lead, most likely first.
    fn likely_targets(&self, jump: GuestAddr) -> Vec<GuestAddr>;

    /// Where the computed jump at this pc has led; nowhere if that is not known, or too many places.
    fn all_targets(&self, jump: GuestAddr) -> Vec<GuestAddr>;
}

/// The profile of `--engine jit`, where nothing has run before: follows every edge.
pub struct EveryBlock;

impl Profile for EveryBlock {
    fn executed(&self, _: GuestAddr) -> bool {
        true
    }

    fn likely_targets(&self, _: GuestAddr) -> Vec<GuestAddr> {
        Vec::new()
    }

    fn all_targets(&self, _: GuestAddr) -> Vec<GuestAddr> {
        Vec::new()
    }
}

/// Lifts the region whose entry is `pc`.
pub fn lift_region(code: &dyn CodeReader, pc: GuestAddr, profile: &dyn Profile, opts: &LiftOptions) -> Region {
    let Found { starts, targets } = Discovery::new(code, profile, opts).run(pc);
    let mut b = Builder::new();
    let mut l = Lifter::new(&mut b, code, opts);
    if !opts.precise || opts.precise_everywhere {
        let flow = FlagFlow::of(code, &starts, opts);
        l.b.region_mut().flags_dead = flow.at(pc).is_some_and(|live| live.takes_deferred(opts));
        l.flow = Some(flow);
    }
    let ids: HashMap<GuestAddr, BlockId> = starts.iter().map(|pc| (*pc, l.b.create_block(*pc))).collect();
    let runs = starts
        .iter()
        .map(|start| {
            let stop = |pc: GuestAddr| pc != *start && ids.contains_key(&pc);
            (*start, l.lift_run(*start, ids[start], opts.block_insns, stop))
        })
        .collect();
    let mut region = l.finish(runs);
    for block in &mut region.blocks {
        link(&mut block.exit, &ids, opts);
    }
    if opts.enters_calls() {
        calls::predict(&mut region, &ids, &targets, |pc| ahead::live_at(code, NOTHING, pc, opts).is_empty());
    }
    unroll(&mut region);
    renumber(&mut region);
    region
}

/// Turns targets that are blocks of the region into edges.
fn link(exit: &mut Exit, ids: &HashMap<GuestAddr, BlockId>, opts: &LiftOptions) {
    let resolve = |target: &mut Target| {
        if let Target::Pc(pc) = *target
            && let Some(id) = ids.get(&pc)
        {
            *target = Target::Block(*id);
        }
    };
    if opts.enters_calls() || !matches!(exit, Exit::Call { .. }) {
        exit.for_each_target(resolve);
    }
}

/// What discovery has found.
struct Found {
    starts: Vec<GuestAddr>,
    targets: HashMap<GuestAddr, Vec<GuestAddr>>,
}

pub(super) struct Discovery<'a> {
    code: &'a dyn CodeReader,
    pub(super) profile: &'a dyn Profile,
    pub(super) opts: &'a LiftOptions,
    /// Block starts in the order found.
    pub(super) starts: Vec<GuestAddr>,
    /// Instruction start to whether a block starts there.
    pub(super) seen: HashMap<GuestAddr, bool>,
    pub(super) insns: u32,
    pub(super) calls: Calls,
    /// Computed jumps other than those of linkage stubs.
    pub(super) switches: Vec<GuestAddr>,
    /// Where computed jumps and calls are predicted to lead, by their pc. Only to where no flags are wanted.
    pub(super) targets: HashMap<GuestAddr, Vec<GuestAddr>>,
    /// Most guest instructions of the region.
    pub(super) max_insns: u32,
}

impl<'a> Discovery<'a> {
    fn new(code: &'a dyn CodeReader, profile: &'a dyn Profile, opts: &'a LiftOptions) -> Self {
        Self {
            code,
            profile,
            opts,
            starts: Vec::new(),
            seen: HashMap::new(),
            insns: 0,
            calls: Calls::default(),
            switches: Vec::new(),
            targets: HashMap::new(),
            max_insns: opts.max_insns,
        }
    }

    fn run(mut self, pc: GuestAddr) -> Found {
        let mut window = Window::new();
        self.add(pc);
        self.explore(0, &mut window);
        if self.opts.enters_calls() {
            self.enter_switches(&mut window);
            self.enter_calls(&mut window);
        }
        Found { starts: self.starts, targets: self.targets }
    }

    /// Decodes the blocks from the one of this number on, and what they lead to.
    pub(super) fn explore(&mut self, mut done: usize, window: &mut Window) {
        while let Some(&start) = self.starts.get(done) {
            if self.decode(window, start) || done == 0 {
                done += 1;
            } else {
                self.starts.remove(done);
                self.seen.remove(&start);
            }
        }
    }

    /// Whether a block of the region starts at `pc`.
    pub(super) fn is_start(&self, pc: GuestAddr) -> bool {
        self.seen.get(&pc) == Some(&true)
    }

    /// Whether a computed jump to `pc` need not have any flags ready.
    pub(super) fn wants_no_flags(&self, pc: GuestAddr) -> bool {
        ahead::live_at(self.code, NOTHING, pc, self.opts).is_empty()
    }

    /// Makes `pc` a block start; splits the block that it lies in by the way.
    fn add(&mut self, pc: GuestAddr) {
        let full = self.starts.len() >= self.opts.max_blocks as usize || self.insns >= self.max_insns;
        let known = self.seen.get(&pc).copied();
        if known == Some(true) {
            return self.calls.edge(&self.starts, pc);
        }
        // A start inside decoded code costs nothing but a block: limits are for new code.
        if full && known.is_none() && !self.starts.is_empty() {
            return;
        }
        self.seen.insert(pc, true);
        self.starts.push(pc);
    }

    /// Decodes the block at `start` as far as new instructions reach and adds its successors; false if the guest may not execute what is
    /// there (3).
    fn decode(&mut self, window: &mut Window, start: GuestAddr) -> bool {
        let (code, limit) = (self.code, self.opts.block_insns);
        let (mut n, mut fetchable) = (0, true);
        window.walk(code, start, |what, i| {
            let at = GuestAddr(i.ip());
            if what != Decoded::Insn {
                fetchable = n > 0 || what != Decoded::Unfetchable;
                return false;
            }
            if n > 0 && self.seen.contains_key(&at) {
                self.calls.edge(&self.starts, at);
                if self.opts.profile || self.opts.count {
                    // Two paths that decode the bytes differently up to here: no instruction twice (1).
                    self.add(at);
                }
                return false;
            }
            if n == limit {
                self.follow(at);
                return false;
            }
            n += 1;
            self.insns += u32::from(!self.seen.contains_key(&at)) | u32::from(n == 1);
            self.seen.entry(at).or_insert(false);
            let near = i.op0_kind() == OpKind::NearBranch64;
            match i.flow_control() {
                FlowControl::Next | FlowControl::XbeginXabortXend => return true,
                FlowControl::UnconditionalBranch if near => self.follow(GuestAddr(i.near_branch_target())),
                FlowControl::ConditionalBranch => {
                    self.follow(GuestAddr(i.next_ip()));
                    self.follow(GuestAddr(i.near_branch_target()));
                }
                FlowControl::Call if near => {
                    self.calls.call(GuestAddr(i.near_branch_target()), Some(GuestAddr(i.next_ip())));
                }
                FlowControl::IndirectCall => self.computed(at, Some(GuestAddr(i.next_ip()))),
                FlowControl::IndirectBranch if i.is_ip_rel_memory_operand() => self.computed(at, None),
                FlowControl::IndirectBranch => self.switches.push(at),
                FlowControl::Return => self.calls.ret(),
                _ => {}
            }
            false
        });
        fetchable
    }

    /// Notes where a computed call, or the jump of a linkage stub, at `jump` is likely to lead.
    fn computed(&mut self, jump: GuestAddr, ret: Option<GuestAddr>) {
        if self.opts.enters_calls() {
            let targets = self.without_flags(self.profile.likely_targets(jump));
            targets.iter().for_each(|target| self.calls.call(*target, ret));
            self.targets.insert(jump, targets);
        }
    }

    /// Those of the places where a computed jump need not have any flags ready.
    pub(super) fn without_flags(&self, mut places: Vec<GuestAddr>) -> Vec<GuestAddr> {
        places.retain(|place| self.wants_no_flags(*place));
        places
    }

    /// Undoes what `f` has found if it says so.
    pub(super) fn attempt(&mut self, f: impl FnOnce(&mut Self) -> bool) {
        let (starts, insns, seen) = (self.starts.len(), self.insns, self.seen.clone());
        let (calls, switches) = (self.calls.seen.len(), self.switches.len());
        let around = self.calls.taken_in();
        let keeps = f(self);
        self.calls.go_on_with(around);
        if !keeps {
            self.starts.truncate(starts);
            self.calls.seen.truncate(calls);
            self.switches.truncate(switches);
            (self.insns, self.seen) = (insns, seen);
        }
    }

    /// Makes `pc` a block start if it has run.
    pub(super) fn follow(&mut self, pc: GuestAddr) {
        if self.seen.contains_key(&pc) || self.profile.executed(pc) {
            self.add(pc);
        }
    }
}
