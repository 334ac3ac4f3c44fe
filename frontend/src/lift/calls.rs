//! Calls inside a region: small functions that it calls are part of it.
//!
//! A call whose target is a block of the region is an edge, and the place behind the call is a block, too. Where the function returns,
//! the popped pc is compared with those places ([`Region::predicted`]) before the jump cache is asked: guest registers stay in
//! host registers all the way. The return address is pushed and popped as ever, and whatever else it may be leaves the region.
//!
//! A function is there once, whoever calls it; a recursive one calls itself. Where the profile knows a few likely targets of a computed
//! call or of a linkage stub's jump, those are taken in, too.

use super::region::Discovery;
use crate::decode::Window;
use calque_ir::{BlockId, Exit, GuestAddr, Op, Region, Target};
use hashbrown::HashMap;

/// Most guest instructions and blocks of a function that is taken in.
const MOST_INSNS: u32 = 40;
const MOST_BLOCKS: usize = 16;
/// Most guest instructions of the rest of the function that the region is a part of.
const MOST_OWN: u32 = 64;
/// Guest instructions up to which a region grows this way: what is compiled in several regions costs more than calls save.
const WHOLE: u32 = 100;
/// How deep calls nest.
const DEPTH: u32 = 3;
/// Most places that a return is compared with.
const MOST_RETURNS: usize = 4;

/// A call that discovery has seen, or a jump to a computed place.
#[derive(Clone, Copy)]
pub(super) struct Call {
    callee: GuestAddr,
    /// Where it returns to; a jump does not.
    ret: Option<GuestAddr>,
    /// Calls around it.
    depth: u32,
}

/// What discovery has seen of calls and returns.
#[derive(Default)]
pub(super) struct Calls {
    pub(super) seen: Vec<Call>,
    depth: u32,
    /// Whether there has been a return.
    returns: bool,
    /// Blocks that were there before the function that is being taken in, and whether it leads to one of them.
    before: usize,
    joins: bool,
}

impl Calls {
    pub(super) fn call(&mut self, callee: GuestAddr, ret: Option<GuestAddr>) {
        self.seen.push(Call { callee, ret, depth: self.depth });
    }

    pub(super) fn ret(&mut self) {
        self.returns = true;
    }

    /// What is asked about the function that is being taken in: others may be meanwhile.
    pub(super) fn taken_in(&self) -> (usize, bool) {
        (self.before, self.joins)
    }

    /// Goes on with that function.
    pub(super) fn go_on_with(&mut self, taken_in: (usize, bool)) {
        (self.before, self.joins) = taken_in;
    }

    /// An edge leads to `pc`, where one of the blocks `starts` is.
    pub(super) fn edge(&mut self, starts: &[GuestAddr], pc: GuestAddr) {
        self.joins |= starts[..self.before].contains(&pc);
    }
}

impl Discovery<'_> {
    /// Takes in what the code found so far calls, and goes on behind those calls.
    pub(super) fn enter_calls(&mut self, window: &mut Window) {
        self.max_insns = self.max_insns.min(WHOLE);
        let mut next = 0;
        while let Some(&call) = self.calls.seen.get(next) {
            next += 1;
            if call.ret.is_none_or(|ret| self.wants_no_flags(ret)) {
                self.attempt(|discovery| discovery.enter_call(call, window));
            }
        }
    }

    /// One call and what stands behind it; false if that is more than the region may have.
    fn enter_call(&mut self, call: Call, window: &mut Window) -> bool {
        if !self.is_start(call.callee) && !self.take_in(call, window) {
            return false;
        }
        if let Some(ret) = call.ret {
            self.calls.depth = call.depth;
            let known = self.starts.len();
            self.follow(ret);
            self.explore(known, window);
        }
        self.insns < self.max_insns
    }

    /// Adds the blocks of the called function; whether it is small and returns.
    fn take_in(&mut self, call: Call, window: &mut Window) -> bool {
        if call.depth >= DEPTH {
            return false;
        }
        self.calls.depth = call.depth + 1;
        let (starts, insns, calls) = (self.starts.len(), self.insns, self.calls.seen.len());
        let returned = std::mem::take(&mut self.calls.returns);
        (self.calls.before, self.calls.joins) = (starts, false);
        self.follow(call.callee);
        self.explore(starts, window);
        let most = if self.calls.joins { MOST_OWN } else { MOST_INSNS };
        // A linkage stub returns where it jumps to.
        let jumps: Vec<Call> = self.calls.seen[calls..].iter().filter(|jump| jump.ret.is_none()).copied().collect();
        for jump in jumps {
            if !self.is_start(jump.callee) {
                self.attempt(|discovery| discovery.take_in(jump, window));
            }
        }
        let fits = self.starts.len() <= starts + MOST_BLOCKS && self.insns <= insns + most;
        let taken = fits && self.calls.returns && self.starts.len() > starts;
        self.calls.returns |= returned;
        taken
    }
}

/// Predicts where computed jumps lead: returns behind the calls whose target they are reached from, others to those of their `targets` that
/// are blocks. Only to where no flags are wanted.
pub(super) fn predict(
    region: &mut Region,
    ids: &HashMap<GuestAddr, BlockId>,
    targets: &HashMap<GuestAddr, Vec<GuestAddr>>,
    wants_no_flags: impl Fn(GuestAddr) -> bool,
) {
    for id in region.block_ids() {
        if let Exit::Indirect(_) | Exit::CallIndirect { .. } = region.blocks[id.0 as usize].exit {
            let known = last_pc(region, id).and_then(|jump| targets.get(&jump)).into_iter().flatten();
            region.predicted.extend(known.filter_map(|pc| ids.get(pc)).map(|to| (id, *to)));
        }
    }
    let mut returns = Vec::new();
    for id in region.block_ids() {
        let (callees, ret) = match region.blocks[id.0 as usize].exit {
            Exit::Call { target: Target::Block(callee), ret } => (vec![callee], ret),
            Exit::CallIndirect { ret, .. } => (region.predicted_of(id).collect(), ret),
            _ => continue,
        };
        // It may be a block for another reason, and want flags.
        if let Some(&behind) = ids.get(&ret).filter(|_| wants_no_flags(ret)) {
            let from = callees.into_iter().flat_map(|callee| returns_of(region, ids, callee));
            returns.extend(from.map(|from| (from, behind)));
        }
    }
    returns.sort_unstable();
    returns.dedup();
    let mut count = (BlockId(0), 0);
    returns.retain(|&(from, _)| {
        count = if count.0 == from { (from, count.1 + 1) } else { (from, 1) };
        count.1 <= MOST_RETURNS
    });
    region.predicted.extend(returns);
    region.predicted.sort_by_key(|(from, _)| *from);
}

/// The pc of a block's last guest instruction.
fn last_pc(region: &Region, block: BlockId) -> Option<GuestAddr> {
    let last = region.block_insts(block).iter().rev().find(|inst| inst.op == Op::Insn);
    last.map(|inst| GuestAddr(inst.imm()))
}

/// The blocks that end in a return of the function at `callee`.
fn returns_of(region: &Region, ids: &HashMap<GuestAddr, BlockId>, callee: BlockId) -> Vec<BlockId> {
    let (mut seen, mut open, mut returns) = (vec![false; region.blocks.len()], vec![callee], Vec::new());
    while let Some(at) = open.pop() {
        if std::mem::replace(&mut seen[at.0 as usize], true) {
            continue;
        }
        match region.blocks[at.0 as usize].exit {
            Exit::Return(_) => returns.push(at),
            // On behind the call: what is called returns there.
            Exit::Call { ret, .. } | Exit::CallIndirect { ret, .. } => open.extend(ids.get(&ret)),
            _ => open.extend(region.successors(at)),
        }
    }
    returns
}
