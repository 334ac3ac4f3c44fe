//! Discovery of a region: the guest blocks reached from a pc over direct edges.
//!
//! First the instructions are only decoded, to find where blocks start; then each block is lifted up to the next
//! start. An edge is followed if the profile says that its target has run; the others are side exits. Calls, returns and
//! indirect jumps leave the region.
//!
//! Invariants:
//! 1. Block starts are exact: no guest instruction is lifted twice unless two paths decode the bytes differently.
//! 2. Blocks are numbered in reverse postorder, the entry 0: an edge goes to a lower number only where it closes a loop,
//!    which is where engines poll.
//! 3. Only its entry may be code that the guest may not execute: nobody would notice that it becomes executable, so what leads there
//!    leaves the region.

use super::flow::{FlagFlow, Live};
use super::unroll::unroll;
use super::{LiftOptions, Lifter};
use crate::decode::{CodeReader, Decoded, Window};
use calque_ir::{BlockId, Exit, GuestAddr, Region, Target};
use hashbrown::HashMap;
use iced_x86::{FlowControl, OpKind};

/// Numbers the blocks in reverse postorder; a branch's fallthrough directly behind it where that is possible.
fn renumber(region: &mut Region) {
    let mut order = Vec::with_capacity(region.blocks.len());
    let mut seen = vec![false; region.blocks.len()];
    // Return addresses of calls are reached from outside only: behind the rest.
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
    region.blocks = order.iter().map(|id| region.blocks[id.0 as usize].clone()).collect();
    for block in &mut region.blocks {
        block.exit.for_each_target(|target| {
            if let Target::Block(to) = target {
                *to = numbers[to.0 as usize];
            }
        });
    }
}

fn postorder(region: &Region, root: BlockId, seen: &mut [bool], order: &mut Vec<BlockId>) {
    let mut path = vec![(root, region.blocks[root.0 as usize].exit.targets())];
    seen[root.0 as usize] = true;
    while let Some((id, targets)) = path.last_mut() {
        match targets.next() {
            Some(Target::Block(to)) if !seen[to.0 as usize] => {
                seen[to.0 as usize] = true;
                path.push((to, region.blocks[to.0 as usize].exit.targets()));
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
}

/// The profile of `--engine jit`, where nothing has run before: follows every edge.
pub struct EveryBlock;

impl Profile for EveryBlock {
    fn executed(&self, _: GuestAddr) -> bool {
        true
    }
}

/// Lifts the region whose entry is `pc`.
pub fn lift_region(code: &dyn CodeReader, pc: GuestAddr, profile: &dyn Profile, opts: &LiftOptions) -> Region {
    let starts = Discovery::new(code, profile, opts).run(pc);
    let mut l = Lifter::new(code, opts);
    if !opts.precise {
        let flow = FlagFlow::of(code, &starts, opts);
        l.b.region_mut().flags_dead = flow.at(pc).is_some_and(Live::is_empty);
        l.flow = Some(flow);
    }
    let mut window = Window::<128>::new();
    let ids: HashMap<GuestAddr, BlockId> = starts.iter().map(|pc| (*pc, l.b.create_block(*pc))).collect();
    let runs = starts
        .iter()
        .map(|start| {
            let stop = |pc: GuestAddr| pc != *start && ids.contains_key(&pc);
            (*start, l.lift_run(&mut window, *start, ids[start], opts.block_insns, stop))
        })
        .collect();
    let mut region = l.finish(runs);
    for block in &mut region.blocks {
        link(&mut block.exit, &ids);
    }
    unroll(&mut region);
    renumber(&mut region);
    region
}

/// Turns targets that are blocks of the region into edges; calls leave it even where the callee is known.
fn link(exit: &mut Exit, ids: &HashMap<GuestAddr, BlockId>) {
    let resolve = |target: &mut Target| {
        if let Target::Pc(pc) = *target
            && let Some(id) = ids.get(&pc)
        {
            *target = Target::Block(*id);
        }
    };
    if !matches!(exit, Exit::Call { .. }) {
        exit.for_each_target(resolve);
    }
}

struct Discovery<'a> {
    code: &'a dyn CodeReader,
    profile: &'a dyn Profile,
    opts: &'a LiftOptions,
    /// Block starts in the order found.
    starts: Vec<GuestAddr>,
    /// Instruction start to whether a block starts there.
    seen: HashMap<GuestAddr, bool>,
    insns: u32,
}

impl<'a> Discovery<'a> {
    fn new(code: &'a dyn CodeReader, profile: &'a dyn Profile, opts: &'a LiftOptions) -> Self {
        Self { code, profile, opts, starts: Vec::new(), seen: HashMap::new(), insns: 0 }
    }

    fn run(mut self, pc: GuestAddr) -> Vec<GuestAddr> {
        let mut window = Window::new();
        self.add(pc);
        let mut done = 0;
        while let Some(&start) = self.starts.get(done) {
            if self.decode(&mut window, start) || done == 0 {
                done += 1;
            } else {
                self.starts.remove(done);
                self.seen.remove(&start);
            }
        }
        self.starts
    }

    /// Makes `pc` a block start; splits the block that it lies in by the way.
    fn add(&mut self, pc: GuestAddr) {
        let full = self.starts.len() >= self.opts.max_blocks as usize || self.insns >= self.opts.max_insns;
        let known = self.seen.get(&pc).copied();
        // A start inside decoded code costs nothing but a block: limits are for new code.
        if known == Some(true) || full && known.is_none() && !self.starts.is_empty() {
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
                FlowControl::Call | FlowControl::IndirectCall if self.opts.through_calls => {
                    self.follow(GuestAddr(i.next_ip()));
                }
                _ => {}
            }
            false
        });
        fetchable
    }

    fn follow(&mut self, pc: GuestAddr) {
        if self.seen.contains_key(&pc) || self.profile.executed(pc) {
            self.add(pc);
        }
    }
}
