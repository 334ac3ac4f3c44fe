//! What one thread has executed: its shadow call stack, and instructions by context and by call.
//!
//! Generated code, or the interpreter, tells of each CALL, RET and jump that may leave a function, after the instructions up to it
//! are counted (`now` below is the thread's sum). What has been executed since the last event belongs to the function on top.
//!
//! **Contexts** are a tree: a node for a function called from a context. A function that is in the context already gets the node it has
//! there, so that recursion makes the tree neither deep nor large, and no function is twice on a path.
//!
//! **Calls** are counted by call site and function, with the instructions until the return (those of inner calls of the same
//! function again, as callgrind counts).
//!
//! **The stack pointer decides** which calls are over. A frame is live as long as the stack pointer is at or below the
//! place of its return address:
//! - RET that finds its address where the frame on top says is the return from it, if it goes back into the caller;
//! - whatever is told with a stack pointer above a frame's place (longjmp, an exception that has been caught) ends that frame;
//! - a jump into another function is a *tail call*: a frame at the same place, which ends together with the one below. Jumping
//!   back to a function of such a chain (`f` to `f.cold` and back) ends the frames above it instead.
//! - A call of a linkage stub is the call of what the stub jumps to.
//! - A signal handler runs on a *segment* of its own: frames below are not looked at before it ends, and what it executes is
//!   not theirs. It ends by `rt_sigreturn`, or by a jump to a stack pointer that is not the handler's.
//!
//! Stacks that a program switches by itself (coroutines) look like longjmp one way and like a deep call the other way:
//! sums stay right, contexts do not.

use super::Lookup;
use super::functions::{FunctionId, ROOT};
use crate::arch;
use calque_ir::Helper;
use hashbrown::HashMap;

/// A call that has not returned.
#[derive(Clone, Copy)]
struct Frame {
    /// Where the return address is on the guest's stack.
    sp: u64,
    /// The thread's sum when it was called, less what is not its own.
    entered: u64,
    /// Context of the caller.
    node: u32,
    /// The call in `calls`, and [`TAIL`].
    call: u32,
}

/// In `Frame::call`: a tail call.
const TAIL: u32 = 1 << 31;
/// In `Frame::call`: no call of the program's, or one that is not known yet.
const NO_CALL: u32 = TAIL - 1;

/// A context.
#[derive(Clone, Copy)]
pub(super) struct Node {
    pub(super) function: FunctionId,
    pub(super) parent: u32,
    /// Instructions executed here.
    pub(super) insns: u64,
    /// Addresses that are certainly in the function.
    low: u64,
    high: u64,
}

/// Calls from one place of one function.
#[derive(Clone, Copy)]
pub(super) struct Call {
    pub(super) site: u64,
    pub(super) function: FunctionId,
    pub(super) calls: u64,
    pub(super) insns: u64,
}

/// Frames below `base` wait for a signal handler to end.
#[derive(Clone)]
struct Segment {
    base: usize,
    /// `floor`, `node`, `stub_site` of what was interrupted.
    floor: usize,
    node: u32,
    stub_site: u64,
    /// Address of the signal frame.
    sp: u64,
    /// The alternate stack it is on, if it is.
    alt: Option<(u64, u64)>,
    /// The thread's sum at its start.
    entered: u64,
}

/// A call that has been looked up before.
#[derive(Clone, Copy)]
struct Known {
    site: u64,
    target: u64,
    node: u32,
    child: u32,
    call: u32,
}

/// A transfer of control that units log.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Transfer {
    pub(super) event: Helper,
    pub(super) site: u64,
    /// `None` if it is computed.
    pub(super) target: Option<u64>,
}

/// Where a transfer has gone the last time.
#[derive(Clone, Copy)]
struct Last {
    target: u64,
    /// From this context,
    node: u32,
    /// into this one,
    child: u32,
    /// as this call.
    call: u32,
}

impl Last {
    const NONE: Last = Last { target: 0, node: u32::MAX, child: 0, call: NO_CALL };
}

/// A transfer that has been met.
#[derive(Clone, Copy)]
struct Met {
    is: Transfer,
    last: Last,
    /// Of a call of a linkage stub: where that has gone.
    behind: Last,
}

/// Whether control comes to an address by a call, so that a function without a name begins there.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Entered {
    Yes,
    No,
}

/// Lines of the cache of known calls, a power of two.
const KNOWN: usize = 4096;
/// Most contexts: beyond, functions are added to what is known of them without their callers.
const MOST_NODES: usize = 1 << 20;
/// `top_sp` where there is no frame.
const NO_FRAME: u64 = u64::MAX;

/// The record of one thread.
#[derive(Clone)]
pub(super) struct Recorder {
    frames: Vec<Frame>,
    /// Frames below belong to what a signal has interrupted.
    floor: usize,
    /// `sp` of the frame on top.
    top_sp: u64,
    /// The context that runs.
    node: u32,
    /// The thread's sum at the last event.
    mark: u64,
    /// The call of a linkage stub whose target is not known yet, 0 if there is none.
    stub_site: u64,
    segments: Vec<Segment>,
    pub(super) nodes: Vec<Node>,
    pub(super) calls: Vec<Call>,
    children: HashMap<(u32, FunctionId), u32>,
    call_numbers: HashMap<(u64, FunctionId), u32>,
    known: Box<[Known]>,
    /// Transfers that units log, by number.
    transfers: Vec<Met>,
    /// The last call among them.
    caller: u32,
    /// Blocks that were left in the middle: counter and number of instructions that were executed, how often.
    pub(super) partial: HashMap<(u32, u32), u64>,
}

impl Recorder {
    /// Nothing yet.
    pub(super) fn new() -> Self {
        let nothing = Known { site: 0, target: 0, node: u32::MAX, child: 0, call: NO_CALL };
        Self {
            frames: Vec::with_capacity(256),
            floor: 0,
            top_sp: NO_FRAME,
            node: 0,
            mark: 0,
            stub_site: 0,
            segments: Vec::new(),
            nodes: vec![Node { function: ROOT, parent: 0, insns: 0, low: 0, high: 0 }],
            calls: Vec::new(),
            children: HashMap::new(),
            call_numbers: HashMap::new(),
            known: vec![nothing; KNOWN].into(),
            transfers: Vec::new(),
            caller: 0,
            partial: HashMap::new(),
        }
    }

    /// The thread starts at `pc`.
    pub(super) fn start(&mut self, now: u64, pc: u64, lookup: &dyn Lookup) {
        self.mark = now;
        self.node = self.child(0, pc, lookup).0;
    }

    /// A CALL at `site` of `target`; its return address is at `sp`.
    #[inline]
    pub(super) fn call(&mut self, now: u64, site: u64, target: u64, sp: u64, lookup: &dyn Lookup) {
        if sp >= self.top_sp {
            self.unwind(now, sp.wrapping_add(1));
        }
        let (child, call) = self.look_up(site, target, Entered::Yes, lookup);
        self.begin(now, site, sp, child, call);
    }

    /// A call from the context that runs, with this context and number.
    #[inline]
    fn begin(&mut self, now: u64, site: u64, sp: u64, child: u32, call: u32) {
        self.account(now);
        if call == NO_CALL {
            self.stub_site = site;
        } else {
            self.calls[call as usize].calls += 1;
        }
        self.push(Frame { sp, entered: now, node: self.node, call }, child);
    }

    /// What units have logged, the last transfer first; the thread's sum is `now` before, and at the end as returned.
    pub(super) fn replay(&mut self, log: &[arch::Transfer], mut now: u64, lookup: &dyn Lookup) -> u64 {
        for logged in log.iter().rev() {
            now += logged.insns;
            if !self.replay_usual(now, logged) {
                self.replay_any(now, logged, lookup);
            }
        }
        now
    }

    /// Carries out a transfer that goes as it went before, from the context it came from then; false if it does not.
    #[inline]
    fn replay_usual(&mut self, now: u64, logged: &arch::Transfer) -> bool {
        let Some(transfer) = self.transfers.get(logged.number as usize) else { return false };
        let target = transfer.is.target.unwrap_or(logged.target);
        match transfer.is.event {
            Helper::ProfileCall => {
                let Last { target: to, node, child, call } = transfer.last;
                let usual = (to, node) == (target, self.node) && logged.sp < self.top_sp;
                if usual {
                    self.caller = logged.number;
                    self.begin(now, transfer.is.site, logged.sp, child, call);
                }
                usual
            }
            Helper::ProfileReturn => {
                let usual = self.is_return(logged.sp.wrapping_sub(8))
                    && self.frames.last().is_some_and(|frame| {
                        let node = &self.nodes[frame.node as usize];
                        (node.low..node.high).contains(&target)
                    });
                if usual {
                    self.account(now);
                    self.pop(now);
                }
                usual
            }
            _ if logged.sp > self.top_sp || !self.segments.is_empty() => false,
            _ if self.stub_site == 0 => {
                let node = &self.nodes[self.node as usize];
                (node.low..node.high).contains(&target)
            }
            _ => {
                let caller = &self.transfers[self.caller as usize];
                let Last { target: to, node, child, call } = caller.behind;
                let usual = (to, node, caller.is.site) == (target, self.node, self.stub_site);
                if usual {
                    self.leave_stub(now, child, call);
                }
                usual
            }
        }
    }

    /// Carries out a transfer, and remembers how it has gone.
    #[cold]
    fn replay_any(&mut self, now: u64, logged: &arch::Transfer, lookup: &dyn Lookup) {
        let (number, sp) = (logged.number as usize, logged.sp);
        if number >= self.transfers.len() {
            let first = self.transfers.len();
            let learn = &mut |is| self.transfers.push(Met { is, last: Last::NONE, behind: Last::NONE });
            lookup.transfers(first, learn);
        }
        let Transfer { event, site, target } = self.transfers[number].is;
        let target = target.unwrap_or(logged.target);
        match event {
            Helper::ProfileCall => {
                self.caller = logged.number;
                self.call(now, site, target, sp, lookup);
                self.transfers[number].last = self.last(target);
            }
            Helper::ProfileReturn => self.ret(now, site, target, sp.wrapping_sub(8), lookup),
            _ => {
                let stub_site = self.stub_site;
                self.jump(now, site, target, sp, lookup);
                let caller = &self.transfers[self.caller as usize];
                if self.stub_site == 0 && caller.is.site == stub_site {
                    self.transfers[self.caller as usize].behind = self.last(target);
                }
            }
        }
    }

    /// The call on top, of `target`.
    fn last(&self, target: u64) -> Last {
        let top = self.frames.last().filter(|frame| frame.call & TAIL == 0);
        top.map_or(Last::NONE, |frame| Last { target, node: frame.node, child: self.node, call: frame.call })
    }

    /// A RET to `target`, found at `sp`.
    #[inline]
    pub(super) fn ret(&mut self, now: u64, site: u64, target: u64, sp: u64, lookup: &dyn Lookup) {
        if !self.is_return(sp) {
            return self.ret_slowly(now, site, target, sp, lookup);
        }
        self.account(now);
        self.pop(now);
        let node = &self.nodes[self.node as usize];
        if !(node.low..node.high).contains(&target) {
            self.stray(now, site, target, sp, lookup);
        }
    }

    /// A jump at `site` to `target`.
    #[inline]
    pub(super) fn jump(&mut self, now: u64, site: u64, target: u64, sp: u64, lookup: &dyn Lookup) {
        if sp > self.top_sp || !self.segments.is_empty() {
            self.unwind(now, sp);
        }
        let node = &self.nodes[self.node as usize];
        if self.stub_site != 0 || !(node.low..node.high).contains(&target) {
            self.jump_out(now, site, target, sp, lookup);
        }
    }

    /// A signal handler begins at `pc`; its return address is at `sp`, perhaps on the alternate stack `alt`.
    pub(super) fn enter_handler(&mut self, now: u64, pc: u64, sp: u64, alt: Option<(u64, u64)>, lookup: &dyn Lookup) {
        self.account(now);
        let base = self.frames.len();
        let Recorder { floor, node, stub_site, .. } = *self;
        self.segments.push(Segment { base, floor, node, stub_site, sp, alt, entered: now });
        (self.floor, self.node, self.stub_site) = (base, 0, 0);
        let child = self.child(0, pc, lookup).0;
        self.push(Frame { sp, entered: now, node: 0, call: NO_CALL }, child);
    }

    /// `rt_sigreturn`.
    pub(super) fn leave_handler(&mut self, now: u64) {
        self.account(now);
        self.end_segment(now);
    }

    /// `counter` was not reached: only `n` instructions of its block have been executed.
    pub(super) fn left_early(&mut self, counter: u32, n: u32) {
        *self.partial.entry((counter, n)).or_insert(0) += 1;
    }

    /// Adds what open calls have executed, as if they returned now.
    pub(super) fn close(&mut self, now: u64) {
        self.account(now);
        while !self.segments.is_empty() {
            self.end_segment(now);
        }
        while self.frames.len() > self.floor {
            self.pop(now);
        }
    }

    /// The record with open calls closed; this one goes on.
    pub(super) fn closed(&self, now: u64) -> Recorder {
        let mut copy = self.clone();
        copy.close(now);
        copy
    }

    /// Forgets all numbers, but not where the thread is: in the child of a fork.
    pub(super) fn clear(&mut self) {
        self.mark = 0;
        self.nodes.iter_mut().for_each(|node| node.insns = 0);
        self.calls.iter_mut().for_each(|call| (call.calls, call.insns) = (0, 0));
        self.frames.iter_mut().for_each(|frame| frame.entered = 0);
        self.segments.iter_mut().for_each(|segment| segment.entered = 0);
        self.partial.clear();
    }

    /// What has been executed since the last event is the running context's.
    #[inline]
    fn account(&mut self, now: u64) {
        self.nodes[self.node as usize].insns += now - self.mark;
        self.mark = now;
    }

    #[inline]
    fn push(&mut self, frame: Frame, node: u32) {
        self.top_sp = frame.sp;
        self.frames.push(frame);
        self.node = node;
    }

    /// Whether a RET that finds its address at `sp` returns from the call on top, which no tail call has taken over.
    #[inline]
    fn is_return(&self, sp: u64) -> bool {
        sp == self.top_sp && !self.top_is_tail()
    }

    #[inline]
    fn top_is_tail(&self) -> bool {
        self.frames.last().is_some_and(|frame| frame.call & TAIL != 0)
    }

    /// The call on top is over.
    #[inline]
    fn pop(&mut self, now: u64) {
        let Some(frame) = self.frames.pop() else { return };
        if let Some(call) = self.calls.get_mut((frame.call & !TAIL) as usize) {
            call.insns += now - frame.entered;
        }
        self.node = frame.node;
        self.top_sp = if self.frames.len() > self.floor { self.frames[self.frames.len() - 1].sp } else { NO_FRAME };
    }

    /// Ends the calls whose places are below `sp`, and the handlers whose stack it is not on.
    #[cold]
    fn unwind(&mut self, now: u64, sp: u64) {
        self.account(now);
        loop {
            while self.top_sp < sp {
                self.stub_site = 0;
                self.pop(now);
            }
            let left = |segment: &Segment| match segment.alt {
                Some((low, high)) => !(low..=high).contains(&sp),
                None => self.top_sp == NO_FRAME && sp > segment.sp + 8,
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
        while self.frames.len() > segment.base {
            self.pop(now);
        }
        for frame in &mut self.frames[segment.floor..] {
            frame.entered += now - segment.entered;
        }
        (self.floor, self.node, self.stub_site) = (segment.floor, segment.node, segment.stub_site);
        self.top_sp = if self.frames.len() > self.floor { self.frames[self.frames.len() - 1].sp } else { NO_FRAME };
    }

    /// A RET that is not simply the return from the call on top.
    #[cold]
    fn ret_slowly(&mut self, now: u64, site: u64, target: u64, sp: u64, lookup: &dyn Lookup) {
        self.unwind(now, sp);
        while self.top_sp == sp && self.top_is_tail() {
            self.pop(now);
        }
        if self.top_sp == sp {
            self.pop(now);
        }
        self.stray(now, site, target, sp, lookup);
    }

    /// Control went to `target` by a RET: if that is not in the function that runs, it was no return, but a jump.
    #[cold]
    fn stray(&mut self, now: u64, site: u64, target: u64, sp: u64, lookup: &dyn Lookup) {
        let node = self.nodes[self.node as usize];
        if (node.low..node.high).contains(&target) {
            return;
        }
        if self.top_sp == NO_FRAME {
            // Out of all that has been seen: a thread that was started in the middle.
            self.node = self.child(node.parent, target, lookup).0;
            return;
        }
        self.jump_out(now, site, target, sp, lookup);
    }

    /// A jump to where another function may be.
    #[cold]
    fn jump_out(&mut self, now: u64, site: u64, target: u64, sp: u64, lookup: &dyn Lookup) {
        if self.stub_site != 0 {
            let (child, call) = self.look_up(self.stub_site, target, Entered::Yes, lookup);
            if call == NO_CALL {
                return; // from stub to stub
            }
            return self.leave_stub(now, child, call);
        }
        let (child, call) = self.look_up(site, target, Entered::No, lookup);
        if call == NO_CALL {
            self.account(now);
            self.stub_site = site;
            self.push(Frame { sp, entered: now, node: self.node, call: NO_CALL | TAIL }, self.node);
            return;
        }
        let function = self.nodes[child as usize].function;
        if function == self.nodes[self.node as usize].function {
            return;
        }
        self.account(now);
        if !self.back_in_chain(now, function) {
            self.calls[call as usize].calls += 1;
            self.push(Frame { sp, entered: now, node: self.node, call: call | TAIL }, child);
        }
    }

    /// The linkage stub that was called goes on as this call, into this context.
    #[inline]
    fn leave_stub(&mut self, now: u64, child: u32, call: u32) {
        self.account(now);
        self.stub_site = 0;
        self.calls[call as usize].calls += 1;
        if let Some(frame) = self.frames.last_mut() {
            frame.call = call | frame.call & TAIL;
        }
        self.node = child;
    }

    /// Ends tail calls down to the one that left `function`, if there is such a one.
    fn back_in_chain(&mut self, now: u64, function: FunctionId) -> bool {
        let chain = self.frames[self.floor..].iter().rev().take_while(|frame| frame.call & TAIL != 0);
        let Some(depth) = chain.map(|frame| self.nodes[frame.node as usize].function).position(|f| f == function)
        else {
            return false;
        };
        (0..=depth).for_each(|_| self.pop(now));
        true
    }

    /// Context and number of a call from the context that runs; [`NO_CALL`] for that of a linkage stub.
    #[inline]
    fn look_up(&mut self, site: u64, target: u64, entered: Entered, lookup: &dyn Lookup) -> (u32, u32) {
        let mixed = (site ^ target.rotate_left(32)).wrapping_add(u64::from(self.node) << 20);
        let slot = (mixed.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 48) as usize % KNOWN;
        let known = &self.known[slot];
        if (known.site, known.target, known.node) == (site, target, self.node) {
            return (known.child, known.call);
        }
        self.learn(slot, site, target, entered, lookup)
    }

    #[cold]
    fn learn(&mut self, slot: usize, site: u64, target: u64, entered: Entered, lookup: &dyn Lookup) -> (u32, u32) {
        let node = self.node;
        let (child, function, stub) = self.child_of(node, target, entered, lookup);
        let call = if stub { NO_CALL } else { self.call_number(site, function) };
        self.known[slot] = Known { site, target, node, child, call };
        (child, call)
    }

    fn call_number(&mut self, site: u64, function: FunctionId) -> u32 {
        let calls = &mut self.calls;
        *self.call_numbers.entry((site, function)).or_insert_with(|| {
            calls.push(Call { site, function, calls: 0, insns: 0 });
            calls.len() as u32 - 1
        })
    }

    fn child(&mut self, parent: u32, pc: u64, lookup: &dyn Lookup) -> (u32, FunctionId, bool) {
        self.child_of(parent, pc, Entered::Yes, lookup)
    }

    /// The context of the function at `pc` when it is called from `parent`; the function, and whether it is a linkage stub.
    fn child_of(&mut self, parent: u32, pc: u64, entered: Entered, lookup: &dyn Lookup) -> (u32, FunctionId, bool) {
        let found = lookup.function(pc, entered == Entered::Yes);
        if found.stub {
            return (parent, found.function, true);
        }
        let node = match self.children.get(&(parent, found.function)) {
            Some(node) => *node,
            None => {
                let node = self.ancestor(parent, found.function).unwrap_or_else(|| {
                    let parent = if self.nodes.len() < MOST_NODES { parent } else { 0 };
                    self.nodes.push(Node {
                        function: found.function,
                        parent,
                        insns: 0,
                        low: found.low,
                        high: found.high,
                    });
                    self.nodes.len() as u32 - 1
                });
                self.children.insert((parent, found.function), node);
                node
            }
        };
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
        let mut r = Recorder::new();
        r.start(0, 0x100, &Hundreds);
        r
    }

    /// (site, function, calls, instructions), by site.
    fn calls(r: &Recorder) -> Vec<(u64, u32, u64, u64)> {
        let made = r.calls.iter().filter(|c| (c.calls, c.insns) != (0, 0));
        let mut calls: Vec<_> = made.map(|c| (c.site, c.function, c.calls, c.insns)).collect();
        calls.sort_unstable();
        calls
    }

    /// (path, instructions) of each context that executed anything.
    fn contexts(r: &Recorder) -> Vec<(Vec<u32>, u64)> {
        let path = |mut n: u32| {
            let mut path = Vec::new();
            while n != 0 {
                path.insert(0, r.nodes[n as usize].function);
                n = r.nodes[n as usize].parent;
            }
            path
        };
        let ran = (0..r.nodes.len() as u32).filter(|n| r.nodes[*n as usize].insns != 0);
        ran.map(|n| (path(n), r.nodes[n as usize].insns)).collect()
    }

    #[test]
    fn calls_and_returns() {
        let mut r = started();
        r.call(10, 0x110, 0x200, 0x8000, &Hundreds);
        r.call(13, 0x220, 0x300, 0x7f00, &Hundreds);
        r.ret(18, 0x330, 0x225, 0x7f00, &Hundreds);
        r.ret(20, 0x240, 0x115, 0x8000, &Hundreds);
        r.close(26);
        assert_eq!(calls(&r), [(0x110, 2, 1, 10), (0x220, 3, 1, 5)]);
        assert_eq!(contexts(&r), [(vec![1], 16), (vec![1, 2], 5), (vec![1, 2, 3], 5)]);
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
        r.close(60);
        assert_eq!(contexts(&r), [(vec![1], 60)]);
        assert_eq!(calls(&r), [(0x110, 1, 4, (54 - 10) + (53 - 20) + (52 - 30) + (51 - 40))]);
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
        r.close(40);
        assert_eq!(calls(&r), [(0x110, 2, 1, 30), (0x210, 3, 1, 15), (0x310, 4, 1, 5)]);
        assert_eq!(contexts(&r), [(vec![1], 10), (vec![1, 2], 15), (vec![1, 2, 3], 10), (vec![1, 2, 3, 4], 5)]);
    }

    #[test]
    fn tail_calls_end_with_their_caller() {
        let mut r = started();
        r.call(10, 0x110, 0x200, 0x8000, &Hundreds);
        r.jump(15, 0x210, 0x300, 0x8000, &Hundreds);
        r.ret(25, 0x310, 0x115, 0x8000, &Hundreds);
        r.close(30);
        assert_eq!(calls(&r), [(0x110, 2, 1, 15), (0x210, 3, 1, 10)]);
        assert_eq!(contexts(&r), [(vec![1], 15), (vec![1, 2], 5), (vec![1, 2, 3], 10)]);
    }

    #[test]
    fn cold_parts_come_back() {
        let mut r = started();
        for round in 0..3 {
            r.jump(10 * round + 4, 0x110, 0x200, 0x8000, &Hundreds);
            r.jump(10 * round + 9, 0x210, 0x118, 0x8000, &Hundreds);
        }
        r.close(30);
        assert_eq!(r.frames.len(), 0);
        assert_eq!(calls(&r), [(0x110, 2, 3, 15)]);
        assert_eq!(contexts(&r), [(vec![1], 15), (vec![1, 2], 15)]);
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
        r.close(200);
        assert_eq!(calls(&r), [(0x110, 2, 2, 22)]);
        assert_eq!(contexts(&r), [(vec![1], 180), (vec![1, 2], 20)]);
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
        r.close(30);
        assert_eq!(calls(&r), [(0x110, 2, 1, 8), (0x310, 4, 1, 2)]);
        assert_eq!(contexts(&r), [(vec![1], 10), (vec![1, 2], 8), (vec![3], 8), (vec![3, 4], 2), (vec![5], 2)]);
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
            r.close(30);
            assert!(r.segments.is_empty());
            assert_eq!(calls(&r), [(0x110, 2, 1, 15), (0x310, 4, 1, 2)], "{alt:?}");
        }
    }

    #[test]
    fn forked_children_start_from_zero() {
        let mut r = started();
        r.call(10, 0x110, 0x200, 0x8000, &Hundreds);
        r.clear();
        r.ret(5, 0x210, 0x115, 0x8000, &Hundreds);
        r.close(7);
        assert_eq!(contexts(&r), [(vec![1], 2), (vec![1, 2], 5)]);
        assert_eq!(calls(&r), [(0x110, 2, 0, 5)]);
    }
}
