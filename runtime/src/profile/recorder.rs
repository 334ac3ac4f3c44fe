//! What one thread has executed: its shadow call stack, and instructions by context and by call.
//!
//! Generated code, or the interpreter, tells of each CALL, RET and jump that may leave a function, after the instructions up to it
//! are counted (`now` below is the thread's sum). Units carry most of that out by themselves (`backend::shadow`), and tell of the rest.
//!
//! **Contexts** are a tree: a node for a function called from a context. A function that is in the context already gets the node it has
//! there, so that recursion makes the tree neither deep nor large, and no function is twice on a path.
//!
//! **Edges** are calls from one place of one context of one function. Each counts its calls when they return, and the instructions until then. The
//! rest follows ([`Recorder::totals`]): what a context has executed by itself is what the edges to it have executed, less what the edges from it
//! have; calls of one place are added up over contexts (those of inner calls of the same function again, as callgrind counts).
//!
//! **The stack pointer decides** which calls are over. A frame is live as long as the stack pointer is at or below the
//! place of its return address:
//! - RET that finds its address where the frame on top says is the return from it, if it goes back into the caller;
//! - whatever is told with a stack pointer above a frame's place (longjmp, an exception that has been caught) ends that frame;
//! - a jump into another function is a *tail call*: a frame at the same place, which ends together with the one below. Jumping
//!   back to a function of such a chain (`f` to `f.cold` and back) ends the frames above it instead.
//! - A call of a linkage stub is the call of what the stub jumps to: inside the stub a context of its own runs, from which the jump is an
//!   edge that takes the place of the frame's first. What the stub has executed is the caller's.
//! - A signal handler runs on a *segment* of its own: frames below are not looked at before it ends, and what it executes is
//!   not theirs. It ends by `rt_sigreturn`, or by a jump to a stack pointer that is not the handler's.
//!
//! Below the frames of a segment, and of a thread, is one that no stack pointer is above.
//!
//! Stacks that a program switches by itself (coroutines) look like longjmp one way and like a deep call the other way:
//! sums stay right, contexts do not.

use super::Lookup;
use super::functions::{FunctionId, ROOT};
use super::shadow::{Chain, Shadow};
use crate::arch;
use calque_backend::shadow::{
    Edge, Ends, Frame, Leads, NO_FUNCTION, NO_SP, of_place, place, slot, slot_of, slot_of_jump,
};
use calque_ir::Helper;
use hashbrown::HashMap;

/// A context.
#[derive(Clone, Copy)]
struct Node {
    function: FunctionId,
    parent: u32,
    /// Addresses that are certainly in the function.
    low: u64,
    high: u64,
    /// A linkage stub, called from `parent`.
    is_stub: bool,
    /// Where that is called.
    site: u64,
}

/// What an edge is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// A call of the program's.
    Call,
    /// One of a linkage stub.
    OfStub,
    /// No call: how a thread or a signal handler begins.
    Start,
}

/// What is known of an edge beside what is in the shadow stack.
#[derive(Clone, Copy)]
struct Way {
    kind: Kind,
    from: u32,
    to: u32,
    site: u64,
    function: FunctionId,
    /// If it leaves a linkage stub, the call of that, which counts only calls that have ended there.
    behind: Option<u32>,
    /// Instructions of the linkage stub that it leaves: of each call, and what some have executed beyond that.
    stub: u64,
    stub_more: u64,
}

/// Frames below `base` wait for a signal handler to end.
struct Segment {
    base: usize,
    /// `floor` of what was interrupted.
    floor: usize,
    /// Address of the signal frame.
    sp: u64,
    /// The alternate stack it is on, if it is.
    alt: Option<(u64, u64)>,
    /// The thread's sum at its start.
    entered: u64,
}

/// A transfer of control that units tell of.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Transfer {
    pub(super) event: Helper,
    pub(super) site: u64,
    /// `None` if it is computed.
    pub(super) target: Option<u64>,
    /// The counter of the instructions that it ends; where it is a call, its edges count them.
    pub(super) counter: u32,
}

/// Where control is transferred.
#[derive(Clone, Copy)]
struct From {
    /// Number of the transfer; 0 if no unit makes it.
    number: u32,
    site: u64,
    /// Where units look for its edges.
    slot: usize,
}

impl From {
    /// A transfer that no unit makes.
    fn elsewhere(site: u64, target: u64) -> From {
        From { number: 0, site, slot: slot_of((site >> 2 ^ target >> 4) as usize) }
    }
}

/// Whether control comes to an address by a call, so that a function without a name begins there.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Entered {
    Yes,
    No,
}

/// Most contexts: beyond, functions are added to what is known of them without their callers.
const MOST_NODES: usize = 1 << 20;
/// `top_sp` where there is no call under way.
const NO_FRAME: u64 = u64::MAX;

/// The record of one thread.
pub(super) struct Recorder {
    shadow: Shadow,
    /// Frames below belong to what a signal has interrupted.
    floor: usize,
    segments: Vec<Segment>,
    nodes: Vec<Node>,
    /// By edge.
    ways: Vec<Way>,
    children: HashMap<(u32, FunctionId), u32>,
    /// Transfers that units tell of, by number less 1.
    transfers: Vec<Transfer>,
    /// Where the host's return goes that belongs to a frame which no unit has pushed.
    no_point: u64,
    /// Blocks that were left in the middle: counter and number of instructions that were executed, how often.
    pub(super) partial: HashMap<(u32, u32), u64>,
}

/// What a thread has executed, with open calls added as if they returned now.
pub(super) struct Totals {
    /// Parents stand before their children.
    pub(super) contexts: Vec<Executed>,
    pub(super) calls: Vec<Called>,
    /// Counters that calls stand for, and how often there were calls.
    pub(super) counts: Vec<(u32, u64)>,
}

/// A context, and instructions executed there.
pub(super) struct Executed {
    pub(super) function: FunctionId,
    pub(super) parent: u32,
    /// It is part of its parent.
    pub(super) is_stub: bool,
    pub(super) insns: u64,
}

/// Calls from one place of one context.
pub(super) struct Called {
    pub(super) site: u64,
    pub(super) function: FunctionId,
    pub(super) calls: u64,
    pub(super) insns: u64,
}

impl Recorder {
    /// Nothing yet; the host's returns that no unit's call belongs to go to `no_point`.
    pub(super) fn new(no_point: u64) -> Self {
        let mut recorder = Self {
            shadow: Shadow::new(),
            floor: 0,
            segments: Vec::new(),
            nodes: Vec::new(),
            ways: Vec::new(),
            children: HashMap::new(),
            transfers: Vec::new(),
            no_point,
            partial: HashMap::new(),
        };
        recorder.add_node(Node { function: ROOT, parent: 0, low: 0, high: 0, is_stub: false, site: 0 });
        recorder
    }

    /// The thread starts at `pc`.
    pub(super) fn start(&mut self, now: u64, pc: u64, lookup: &dyn Lookup) {
        let edge = self.edge(Kind::Start, 0, From::elsewhere(0, pc), pc, Entered::Yes, now, lookup);
        self.push(NO_SP, Ends::ByReturn, now, edge, self.no_point);
    }

    /// A CALL at `site` of `target`; its return address is at `sp`.
    pub(super) fn call(&mut self, now: u64, site: u64, target: u64, sp: u64, lookup: &dyn Lookup) {
        self.call_from(now, From::elsewhere(site, target), target, sp, self.no_point, lookup);
    }

    fn call_from(&mut self, now: u64, mut from: From, target: u64, sp: u64, mut point: u64, lookup: &dyn Lookup) {
        if sp >= self.top_sp() {
            self.unwind(now, sp.wrapping_add(1));
        }
        if from.number != 0 && !self.is_here(from.site) {
            // Another function than it seems: it is to be seen where the call returns to. Units do not find the edge.
            (from.slot, point) = (from.slot ^ 1, self.no_point);
        }
        let edge = self.edge(Kind::Call, self.shadow.running(), from, target, Entered::Yes, now, lookup);
        self.push(sp, Ends::ByReturn, now, edge, point);
    }

    /// What a unit has left to be done here: the transfer, which has gone to `target`.
    pub(super) fn transfer(&mut self, now: u64, left: &arch::Transfer, target: u64, lookup: &dyn Lookup) {
        let number = left.number as usize;
        if number > self.transfers.len() {
            let first = self.transfers.len();
            lookup.transfers(first, &mut |transfer| self.transfers.push(transfer));
        }
        let Transfer { event, site, target: known, .. } = self.transfers[number - 1];
        let slot = match event {
            Helper::ProfileCall => slot(left.number, if known.is_none() { Some(target) } else { None }),
            _ => slot_of_jump(left.number),
        };
        let from = From { number: left.number, site, slot };
        match event {
            _ if left.strayed => self.stray(now, from, target, left.sp.wrapping_sub(8), lookup),
            Helper::ProfileCall => self.call_from(now, from, target, left.sp, left.point, lookup),
            Helper::ProfileReturn => self.ret_from(now, from, target, left.sp.wrapping_sub(8), lookup),
            _ => self.jump_from(now, from, target, left.sp, lookup),
        }
    }

    /// Address of the last frame, and whether a signal handler runs, for units.
    pub(super) fn frame(&self) -> (u64, bool) {
        (self.shadow.address(), !self.segments.is_empty())
    }

    /// Units have left the shadow stack with its last frame there.
    pub(super) fn set_frame(&mut self, address: u64) {
        self.shadow.set_address(address);
    }

    /// No host return goes to where one did before: code memory was given back.
    pub(super) fn forget_points(&mut self) {
        let point = self.no_point;
        (0..self.shadow.depth()).for_each(|i| self.shadow.frame(i).point = point);
    }

    /// A RET to `target`, found at `sp`.
    pub(super) fn ret(&mut self, now: u64, site: u64, target: u64, sp: u64, lookup: &dyn Lookup) {
        self.ret_from(now, From::elsewhere(site, target), target, sp, lookup);
    }

    fn ret_from(&mut self, now: u64, from: From, target: u64, sp: u64, lookup: &dyn Lookup) {
        if !self.is_return(sp) {
            return self.ret_slowly(now, from, target, sp, lookup);
        }
        self.pop(now);
        if !self.is_here(target) {
            self.stray(now, from, target, sp, lookup);
        }
    }

    /// A jump at `site` to `target`.
    pub(super) fn jump(&mut self, now: u64, site: u64, target: u64, sp: u64, lookup: &dyn Lookup) {
        self.jump_from(now, From::elsewhere(site, target), target, sp, lookup);
    }

    fn jump_from(&mut self, now: u64, from: From, target: u64, sp: u64, lookup: &dyn Lookup) {
        if sp > self.top_sp() || !self.segments.is_empty() {
            self.unwind(now, sp);
        }
        if self.nodes[self.shadow.running() as usize].is_stub || !self.is_here(target) {
            self.jump_out(now, from, target, sp, lookup);
        }
    }

    /// A signal handler begins at `pc`; its return address is at `sp`, perhaps on the alternate stack `alt`.
    pub(super) fn enter_handler(&mut self, now: u64, pc: u64, sp: u64, alt: Option<(u64, u64)>, lookup: &dyn Lookup) {
        let (base, floor) = (self.shadow.depth(), self.floor);
        self.segments.push(Segment { base, floor, sp, alt, entered: now });
        self.floor = base;
        let (context, point) = (self.shadow.context(0), self.no_point);
        self.shadow.push(Frame {
            own: 0,
            place: place(NO_SP, Ends::ByReturn),
            entered: now,
            edge: self.shadow.no_edge(),
            context,
            point,
        });
        let edge = self.edge(Kind::Start, 0, From::elsewhere(0, pc), pc, Entered::Yes, now, lookup);
        self.push(sp, Ends::ByReturn, now, edge, point);
    }

    /// `rt_sigreturn`.
    pub(super) fn leave_handler(&mut self, now: u64) {
        self.end_segment(now);
    }

    /// `counter` was not reached: only `n` instructions of its block have been executed.
    pub(super) fn left_early(&mut self, counter: u32, n: u32) {
        *self.partial.entry((counter, n)).or_insert(0) += 1;
    }

    /// Everything, with what open calls have executed so far.
    pub(super) fn totals(&self, now: u64) -> Totals {
        let mut insns: Vec<u64> = self.shadow.edges().map(|edge| edge.insns).collect();
        let mut calls_of: Vec<i64> = self.shadow.edges().map(Edge::returned).collect();
        let (mut end, mut segments) = (now, self.segments.iter().rev().peekable());
        for (i, frame) in self.shadow.frames().iter().enumerate().rev() {
            while let Some(segment) = segments.next_if(|segment| i < segment.base) {
                end = segment.entered;
            }
            if let Some(edge) = self.shadow.edge_of(frame) {
                insns[edge as usize] = insns[edge as usize].wrapping_add(end.wrapping_sub(frame.entered));
                calls_of[edge as usize] += 1;
            }
        }
        for (edge, way) in self.ways.iter().enumerate() {
            if let Some(stub) = way.behind {
                calls_of[stub as usize] += calls_of[edge];
            }
        }
        let context =
            |node: &Node| Executed { function: node.function, parent: node.parent, is_stub: node.is_stub, insns: 0 };
        let mut contexts: Vec<Executed> = self.nodes.iter().map(context).collect();
        let (mut calls, mut counts) = (Vec::new(), Vec::new());
        for (((edge, way), insns), called) in self.shadow.edges().zip(&self.ways).zip(insns).zip(calls_of) {
            let called = called as u64;
            if let Some(transfer) = (edge.number as usize).checked_sub(1).map(|number| &self.transfers[number])
                && transfer.event == Helper::ProfileCall
            {
                counts.push((transfer.counter, called));
            }
            if way.kind == Kind::OfStub {
                continue;
            }
            let below = insns.wrapping_sub(way.stub.wrapping_mul(called).wrapping_add(way.stub_more));
            let own = &mut contexts[way.to as usize].insns;
            *own = own.wrapping_add(below);
            let caller = &mut contexts[self.caller(way.from) as usize].insns;
            *caller = caller.wrapping_sub(below);
            if way.kind == Kind::Call {
                let from = &self.nodes[way.from as usize];
                let site = if from.is_stub { from.site } else { way.site };
                calls.push(Called { site, function: way.function, calls: called, insns });
            }
        }
        // Nothing runs where threads and handlers start.
        contexts[0].insns = 0;
        Totals { contexts, calls, counts }
    }

    /// Forgets all numbers, but not where the thread is: in the child of a fork.
    pub(super) fn clear(&mut self) {
        for (edge, way) in (0..).zip(&mut self.ways) {
            let edge = self.shadow.edge(edge);
            (edge.calls, edge.insns, way.stub_more) = (0, 0, 0);
        }
        for i in 0..self.shadow.depth() {
            let frame = self.shadow.frame(i);
            frame.entered = 0;
            let frame = *frame;
            if let Some(edge) = self.shadow.edge_of(&frame) {
                // It was the parent that called.
                let calls = &mut self.shadow.edge(edge).calls;
                *calls = calls.wrapping_add(Edge::of_calls(-1));
            }
        }
        self.segments.iter_mut().for_each(|segment| segment.entered = 0);
        self.partial.clear();
    }

    fn push(&mut self, sp: u64, ends: Ends, now: u64, edge: u32, point: u64) {
        let place = place(sp, ends);
        let (context, edge) = (self.shadow.edge(edge).context, self.shadow.edge_address(edge));
        self.shadow.push(Frame { own: 0, place, entered: now, edge, context, point });
    }

    /// Where the return address of the call on top is.
    #[inline]
    fn top_sp(&self) -> u64 {
        match of_place(self.shadow.last().place).0 {
            NO_SP => NO_FRAME,
            sp => sp,
        }
    }

    /// Whether a RET that finds its address at `sp` returns from the call on top, which no tail call has taken over.
    #[inline]
    fn is_return(&self, sp: u64) -> bool {
        self.shadow.last().place == place(sp, Ends::ByReturn)
    }

    #[inline]
    fn top_is_tail(&self) -> bool {
        is_tail(self.shadow.last())
    }

    /// Whether `target` is certainly in the function that runs.
    fn is_here(&self, target: u64) -> bool {
        let node = &self.nodes[self.shadow.running() as usize];
        (node.low..node.high).contains(&target)
    }

    /// The call on top is over.
    fn pop(&mut self, now: u64) {
        let frame = *self.shadow.last();
        if let Some(edge) = self.shadow.edge_of(&frame) {
            let edge = self.shadow.edge(edge);
            edge.insns = edge.insns.wrapping_add(now.wrapping_sub(frame.entered));
            edge.calls = edge.calls.wrapping_add(Edge::of_calls(1));
        }
        self.shadow.pop();
    }

    /// Ends the calls whose places are below `sp`, and the handlers whose stack it is not on.
    #[cold]
    fn unwind(&mut self, now: u64, sp: u64) {
        loop {
            while self.top_sp() < sp {
                self.pop(now);
            }
            let left = |segment: &Segment| match segment.alt {
                Some((low, high)) => !(low..=high).contains(&sp),
                None => self.top_sp() == NO_FRAME && sp > segment.sp + 8,
            };
            if !self.segments.last().is_some_and(left) {
                return;
            }
            self.end_segment(now);
        }
    }

    /// The signal handler on top is over, one way or another: what it has executed is nobody's below.
    fn end_segment(&mut self, now: u64) {
        let Some(segment) = self.segments.pop() else { return };
        while self.shadow.depth() > segment.base {
            self.pop(now);
        }
        for i in segment.floor..segment.base {
            let frame = self.shadow.frame(i);
            frame.entered = frame.entered.wrapping_add(now - segment.entered);
        }
        self.floor = segment.floor;
    }

    /// A RET that is not simply the return from the call on top.
    #[cold]
    fn ret_slowly(&mut self, now: u64, from: From, target: u64, sp: u64, lookup: &dyn Lookup) {
        self.unwind(now, sp);
        while self.top_sp() == sp && self.top_is_tail() {
            self.pop(now);
        }
        if self.top_sp() == sp {
            self.pop(now);
        }
        self.stray(now, from, target, sp, lookup);
    }

    /// Control went to `target` by a RET: if that is not in the function that runs, it was no return, but a jump.
    #[cold]
    fn stray(&mut self, now: u64, from: From, target: u64, sp: u64, lookup: &dyn Lookup) {
        if self.is_here(target) {
            return;
        }
        if self.top_sp() == NO_FRAME {
            // Out of all that has been seen: a thread that was started in the middle.
            self.pop(now);
            return self.start(now, target, lookup);
        }
        self.jump_out(now, from, target, sp, lookup);
    }

    /// A jump to where another function may be.
    #[cold]
    fn jump_out(&mut self, now: u64, from: From, target: u64, sp: u64, lookup: &dyn Lookup) {
        let running = self.shadow.running();
        if self.nodes[running as usize].is_stub {
            return self.leave_stub(now, running, from, target, lookup);
        }
        let edge = self.edge(Kind::Call, running, from, target, Entered::No, now, lookup);
        let way = self.ways[edge as usize];
        if way.kind == Kind::Call
            && (way.function == self.nodes[running as usize].function || self.back_in_chain(now, way.function))
        {
            return;
        }
        self.push(sp, Ends::WithCaller, now, edge, self.no_point);
    }

    /// The linkage stub that was called goes on to `target`.
    fn leave_stub(&mut self, now: u64, stub: u32, from: From, target: u64, lookup: &dyn Lookup) {
        if lookup.function(target, true).stub {
            return; // from stub to stub
        }
        let edge = self.edge(Kind::Call, stub, from, target, Entered::Yes, now, lookup);
        let (context, edge_address) = (self.shadow.edge(edge).context, self.shadow.edge_address(edge));
        let top = self.shadow.depth() - 1;
        let frame = self.shadow.frame(top);
        let executed = now.wrapping_sub(frame.entered);
        (frame.edge, frame.context) = (edge_address, context);
        let way = &mut self.ways[edge as usize];
        way.stub_more = way.stub_more.wrapping_add(executed.wrapping_sub(way.stub));
    }

    /// Ends tail calls down to the one that left `function`, if there is such a one.
    fn back_in_chain(&mut self, now: u64, function: FunctionId) -> bool {
        let frames = &self.shadow.frames()[self.floor..];
        let chain = frames.iter().rev().take_while(|frame| is_tail(frame)).count();
        let below = self.shadow.contexts_from_top().skip(1).take(chain);
        let Some(depth) = below.map(|context| self.nodes[context as usize].function).position(|f| f == function) else {
            return false;
        };
        (0..=depth).for_each(|_| self.pop(now));
        true
    }

    /// The context that calls from here are from.
    fn caller(&self, node: u32) -> u32 {
        let of = &self.nodes[node as usize];
        if of.is_stub { of.parent } else { node }
    }

    /// The number of the edge of this kind from context `node` to `target`.
    #[expect(clippy::too_many_arguments, reason = "what an edge is")]
    fn edge(
        &mut self,
        kind: Kind,
        node: u32,
        from: From,
        target: u64,
        entered: Entered,
        now: u64,
        lookup: &dyn Lookup,
    ) -> u32 {
        let is_it = |edge: &&Edge| {
            (edge.number, !edge.target) == (from.number, target) && self.ways[edge.index as usize].site == from.site
        };
        let left = self.nodes[node as usize].is_stub;
        let call = if left { self.shadow.edge_of(self.shadow.last()) } else { None };
        let chain = call.map_or(Chain::Slot(node, from.slot), Chain::Behind);
        if let Some(edge) = self.shadow.chain(chain).find(is_it) {
            return edge.index;
        }
        let caller = self.caller(node);
        let (to, function, is_stub) = self.child_of(caller, target, entered, lookup);
        let kind = if is_stub && kind == Kind::Call { Kind::OfStub } else { kind };
        let to = if kind == Kind::OfStub {
            let found = lookup.function(target, false);
            let function = self.nodes[caller as usize].function;
            let (low, high, site) = (found.low, found.high, from.site);
            self.add_node(Node { function, parent: caller, low, high, is_stub: true, site })
        } else {
            to
        };
        let stub = if left { now.wrapping_sub(self.shadow.last().entered) } else { 0 };
        self.ways.push(Way { kind, from: node, to, site: from.site, function, behind: call, stub, stub_more: 0 });
        let leads = match entered {
            Entered::Yes => Leads::ByCall,
            Entered::No if kind == Kind::Call && function == self.nodes[node as usize].function => Leads::Inside,
            Entered::No => Leads::ByJump,
        };
        self.shadow.add_edge(chain, from.number, target, (to, leads))
    }

    fn add_node(&mut self, node: Node) -> u32 {
        self.nodes.push(node);
        self.shadow.add_context(if node.is_stub { NO_FUNCTION } else { node.function });
        self.nodes.len() as u32 - 1
    }

    /// The context of the function at `pc` when it is called from `parent`; the function, and whether it is a linkage stub.
    fn child_of(&mut self, parent: u32, pc: u64, entered: Entered, lookup: &dyn Lookup) -> (u32, FunctionId, bool) {
        let found = lookup.function(pc, entered == Entered::Yes);
        if found.stub {
            return (parent, found.function, true);
        }
        if let Some(node) = self.children.get(&(parent, found.function)) {
            return (*node, found.function, false);
        }
        let node = self.ancestor(parent, found.function).unwrap_or_else(|| {
            let parent = if self.nodes.len() < MOST_NODES { parent } else { 0 };
            let (low, high, function) = (found.low, found.high, found.function);
            self.add_node(Node { function, parent, low, high, is_stub: false, site: 0 })
        });
        self.children.insert((parent, found.function), node);
        (node, found.function, false)
    }

    /// The node of `function` on the way from `node` to the root.
    fn ancestor(&self, mut node: u32, function: FunctionId) -> Option<u32> {
        loop {
            if self.nodes[node as usize].function == function {
                return Some(node);
            }
            if node == 0 {
                return None;
            }
            node = self.nodes[node as usize].parent;
        }
    }
}

fn is_tail(frame: &Frame) -> bool {
    of_place(frame.place).1 == Ends::WithCaller
}

#[cfg(test)]
mod tests {
    use super::super::functions::Found;
    use super::*;

    /// Functions of 0x100 bytes each; those from 0xf000 on are linkage stubs.
    struct Hundreds;

    impl Lookup for Hundreds {
        fn transfers(&self, _: usize, _: &mut dyn FnMut(Transfer)) {}

        fn function(&self, pc: u64, _: bool) -> Found {
            let low = pc & !0xff;
            Found { function: (pc >> 8) as u32, low, high: low + 0x100, stub: low >= 0xf000 }
        }
    }

    fn started() -> Recorder {
        let mut r = Recorder::new(0);
        r.start(0, 0x100, &Hundreds);
        r
    }

    /// (site, function, calls, instructions), by site, if everything returned now.
    fn calls(r: &Recorder, now: u64) -> Vec<(u64, u32, u64, u64)> {
        let calls = r.totals(now).calls.into_iter().filter(|c| (c.calls, c.insns) != (0, 0));
        let mut sums: HashMap<(u64, u32), (u64, u64)> = HashMap::new();
        for call in calls {
            let sum = sums.entry((call.site, call.function)).or_default();
            *sum = (sum.0 + call.calls, sum.1 + call.insns);
        }
        let mut calls: Vec<_> =
            sums.into_iter().map(|((site, function), (calls, insns))| (site, function, calls, insns)).collect();
        calls.sort_unstable();
        calls
    }

    /// (path, instructions) of each context that executed anything.
    fn contexts(r: &Recorder, now: u64) -> Vec<(Vec<u32>, u64)> {
        let contexts = r.totals(now).contexts;
        let path = |mut n: usize| {
            let mut path = Vec::new();
            while n != 0 {
                path.insert(0, contexts[n].function);
                n = contexts[n].parent as usize;
            }
            path
        };
        let ran = (0..contexts.len()).filter(|n| contexts[*n].insns != 0);
        ran.map(|n| (path(n), contexts[n].insns)).collect()
    }

    #[test]
    fn calls_and_returns() {
        let mut r = started();
        r.call(10, 0x110, 0x200, 0x8000, &Hundreds);
        r.call(13, 0x220, 0x300, 0x7f00, &Hundreds);
        r.ret(18, 0x330, 0x225, 0x7f00, &Hundreds);
        r.ret(20, 0x240, 0x115, 0x8000, &Hundreds);
        assert_eq!(calls(&r, 26), [(0x110, 2, 1, 10), (0x220, 3, 1, 5)]);
        assert_eq!(contexts(&r, 26), [(vec![1], 16), (vec![1, 2], 5), (vec![1, 2, 3], 5)]);
    }

    /// Their slots are shared, and the same functions call the same others from the same places in each.
    #[test]
    fn contexts_keep_their_edges_apart() {
        let mut r = started();
        let (callers, callees) = (2..0x40u64, 0x80..0xa0u64);
        let mut now = 0;
        for _ in 0..2 {
            for caller in callers.clone() {
                r.call(now, 0x110, caller << 8, 0x8000, &Hundreds);
                for callee in callees.clone() {
                    r.call(now, 0x210, callee << 8, 0x7000, &Hundreds);
                    now += caller + callee;
                    r.ret(now, callee << 8, caller << 8 | 5, 0x7000, &Hundreds);
                }
                r.ret(now, caller << 8, 0x115, 0x8000, &Hundreds);
            }
        }
        let contexts: HashMap<_, _> = contexts(&r, now).into_iter().collect();
        assert_eq!(contexts.len(), callers.clone().count() * callees.clone().count());
        for (caller, callee) in callers.flat_map(|caller| callees.clone().map(move |callee| (caller, callee))) {
            assert_eq!(contexts[&vec![1, caller as u32, callee as u32]], 2 * (caller + callee));
        }
    }

    #[test]
    fn recursion_is_one_context() {
        let mut r = started();
        for depth in 0..4u64 {
            r.call(10 * (depth + 1), 0x110, 0x100, 0x8000 - 16 * depth, &Hundreds);
        }
        for depth in (0..4u64).rev() {
            r.ret(50 + 4 - depth, 0x130, 0x115, 0x8000 - 16 * depth, &Hundreds);
        }
        assert_eq!(contexts(&r, 60), [(vec![1], 60)]);
        assert_eq!(calls(&r, 60), [(0x110, 1, 4, (54 - 10) + (53 - 20) + (52 - 30) + (51 - 40))]);
    }

    #[test]
    fn longjmp_ends_what_it_leaves() {
        let mut r = started();
        r.call(10, 0x110, 0x200, 0x8000, &Hundreds);
        r.call(20, 0x210, 0x300, 0x7000, &Hundreds);
        r.call(30, 0x310, 0x400, 0x6000, &Hundreds);
        // Function 4 jumps back into function 2, whose stack pointer is between.
        r.jump(35, 0x410, 0x218, 0x7400, &Hundreds);
        r.ret(40, 0x240, 0x115, 0x8000, &Hundreds);
        assert_eq!(calls(&r, 40), [(0x110, 2, 1, 30), (0x210, 3, 1, 15), (0x310, 4, 1, 5)]);
        assert_eq!(contexts(&r, 40), [(vec![1], 10), (vec![1, 2], 15), (vec![1, 2, 3], 10), (vec![1, 2, 3, 4], 5)]);
    }

    #[test]
    fn tail_calls_end_with_their_caller() {
        let mut r = started();
        r.call(10, 0x110, 0x200, 0x8000, &Hundreds);
        r.jump(15, 0x210, 0x300, 0x8000, &Hundreds);
        r.ret(25, 0x310, 0x115, 0x8000, &Hundreds);
        assert_eq!(calls(&r, 30), [(0x110, 2, 1, 15), (0x210, 3, 1, 10)]);
        assert_eq!(contexts(&r, 30), [(vec![1], 15), (vec![1, 2], 5), (vec![1, 2, 3], 10)]);
    }

    #[test]
    fn cold_parts_come_back() {
        let mut r = started();
        for round in 0..3 {
            r.jump(10 * round + 4, 0x110, 0x200, 0x8000, &Hundreds);
            r.jump(10 * round + 9, 0x210, 0x118, 0x8000, &Hundreds);
        }
        assert_eq!(r.shadow.depth(), 1);
        assert_eq!(calls(&r, 30), [(0x110, 2, 3, 15)]);
        assert_eq!(contexts(&r, 30), [(vec![1], 15), (vec![1, 2], 15)]);
    }

    #[test]
    fn stubs_are_part_of_the_call() {
        let mut r = started();
        for round in 0..2 {
            let now = 100 * round;
            r.call(now + 10, 0x110, 0xf010, 0x8000, &Hundreds);
            r.jump(now + 11, 0xf016, 0x200, 0x8000, &Hundreds);
            r.ret(now + 21, 0x210, 0x115, 0x8000, &Hundreds);
        }
        assert_eq!(calls(&r, 200), [(0x110, 2, 2, 22)]);
        assert_eq!(contexts(&r, 200), [(vec![1], 180), (vec![1, 2], 20)]);
    }

    #[test]
    fn handlers_are_nobodys_callees() {
        let mut r = started();
        r.call(10, 0x110, 0x200, 0x8000, &Hundreds);
        r.enter_handler(15, 0x300, 0x7000, None, &Hundreds);
        r.call(18, 0x310, 0x400, 0x6f00, &Hundreds);
        r.ret(20, 0x410, 0x315, 0x6f00, &Hundreds);
        r.ret(25, 0x320, 0x500, 0x7000, &Hundreds);
        r.leave_handler(27);
        r.ret(30, 0x210, 0x115, 0x8000, &Hundreds);
        assert_eq!(calls(&r, 30), [(0x110, 2, 1, 8), (0x310, 4, 1, 2)]);
        assert_eq!(contexts(&r, 30), [(vec![1], 10), (vec![1, 2], 8), (vec![3], 8), (vec![3, 4], 2), (vec![5], 2)]);
    }

    #[test]
    fn jumping_out_of_a_handler_ends_it() {
        for alt in [None, Some((0x9000, 0xa000))] {
            let mut r = started();
            r.call(10, 0x110, 0x200, 0x8000, &Hundreds);
            let sp = if alt.is_some() { 0x9f00 } else { 0x7000 };
            r.enter_handler(15, 0x300, sp, alt, &Hundreds);
            r.call(18, 0x310, 0x400, sp - 0x100, &Hundreds);
            r.jump(20, 0x410, 0x218, 0x7c00, &Hundreds);
            r.ret(30, 0x220, 0x115, 0x8000, &Hundreds);
            assert!(r.segments.is_empty());
            assert_eq!(calls(&r, 30), [(0x110, 2, 1, 15), (0x310, 4, 1, 2)], "{alt:?}");
        }
    }

    #[test]
    fn forked_children_start_from_zero() {
        let mut r = started();
        r.call(10, 0x110, 0x200, 0x8000, &Hundreds);
        r.clear();
        r.ret(5, 0x210, 0x115, 0x8000, &Hundreds);
        assert_eq!(contexts(&r, 7), [(vec![1], 2), (vec![1, 2], 5)]);
        assert_eq!(calls(&r, 7), [(0x110, 2, 0, 5)]);
    }
}
