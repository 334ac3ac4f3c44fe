//! The memory of a thread's shadow call stack (`backend::shadow`): frames, contexts and edges, which units work on while the thread is inside.
//!
//! Frames lie one behind the other in a mapping that costs nothing until touched. Contexts and edges stay where they are as long as the
//! stack lives. Both are known by their numbers here; frames by their place, from 0.
//!
//! # Safety
//! All of it belongs to this value and is only reached through it, or by units of the thread it is lent to, which does not use this value
//! meanwhile. Pointers in frames, contexts and edges lead to what this value holds; chains end in `end`.

#![allow(unsafe_code)]

use calque_backend::shadow::{Context, Edge, Frame, Leads, SLOTS};
use std::ptr::null_mut;

/// Most calls under way. A call takes at least a word of the guest's stack.
const MOST_FRAMES: usize = 1 << 23;
const BYTES: usize = MOST_FRAMES * size_of::<Frame>();
/// Behind them: a unit's call that finds no room faults.
const GUARD: usize = 4096;

/// Edges one behind the other.
#[derive(Clone, Copy)]
pub(super) enum Chain {
    /// In this slot of a context.
    Slot(u32, usize),
    /// Of the jumps of a linkage stub, behind its call.
    Behind(u32),
}

pub(super) struct Shadow {
    frames: *mut Frame,
    depth: usize,
    contexts: Vec<*mut Context>,
    edges: Vec<*mut Edge>,
    end: *mut Edge,
}

// SAFETY: what the pointers lead to belongs to the value.
unsafe impl Send for Shadow {}

impl Shadow {
    /// A stack with nothing on it.
    pub(super) fn new() -> Shadow {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: a new mapping.
        let frames = unsafe { libc::mmap(null_mut(), BYTES + GUARD, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0) };
        assert!(frames != libc::MAP_FAILED, "no memory for a thread's shadow stack");
        // SAFETY: the end of that mapping.
        unsafe { libc::mprotect(frames.wrapping_byte_add(BYTES), GUARD, libc::PROT_NONE) };
        let end = Box::into_raw(Box::new(no_edge(null_mut())));
        // SAFETY: just made.
        unsafe { ((*end).next, (*end).behind) = (end, end) };
        Shadow { frames: frames.cast(), depth: 0, contexts: Vec::new(), edges: Vec::new(), end }
    }

    pub(super) fn depth(&self) -> usize {
        self.depth
    }

    /// Frame number `i`, to be changed.
    #[inline]
    pub(super) fn frame(&mut self, i: usize) -> &mut Frame {
        assert!(i < self.depth);
        // SAFETY: one of the frames.
        unsafe { &mut *self.frames.add(i) }
    }

    /// All frames, the first one first.
    pub(super) fn frames(&self) -> &[Frame] {
        // SAFETY: the frames that are there, which nobody changes meanwhile.
        unsafe { std::slice::from_raw_parts(self.frames, self.depth) }
    }

    /// The last frame, of which there is one.
    #[inline]
    pub(super) fn last(&self) -> &Frame {
        &self.frames()[self.depth - 1]
    }

    #[inline]
    pub(super) fn push(&mut self, frame: Frame) {
        assert!(self.depth < MOST_FRAMES, "more than {MOST_FRAMES} calls are under way");
        self.depth += 1;
        *self.frame(self.depth - 1) = frame;
    }

    #[inline]
    pub(super) fn pop(&mut self) {
        self.depth -= 1;
    }

    /// Address of the last frame, for units.
    pub(super) fn address(&self) -> u64 {
        self.frames.wrapping_add(self.depth.wrapping_sub(1)) as u64
    }

    /// Units have left the stack with its last frame there.
    pub(super) fn set_address(&mut self, address: u64) {
        self.depth = (address - self.frames as u64) as usize / size_of::<Frame>() + 1;
    }

    /// A new context of `function`, with the next number.
    pub(super) fn add_context(&mut self, function: u32) {
        let context = Context { slots: [self.end; SLOTS], function, index: self.contexts.len() as u32 };
        self.contexts.push(Box::into_raw(Box::new(context)));
    }

    pub(super) fn context(&self, index: u32) -> *mut Context {
        self.contexts[index as usize]
    }

    /// The number of the context that runs.
    #[inline]
    pub(super) fn running(&self) -> u32 {
        // SAFETY: frames lead to contexts.
        unsafe { (*self.last().context).index }
    }

    /// The number of the context of each frame, the last one first.
    pub(super) fn contexts_from_top(&self) -> impl Iterator<Item = u32> {
        // SAFETY: frames lead to contexts.
        self.frames().iter().rev().map(|frame| unsafe { (*frame.context).index })
    }

    /// A new edge to a context, first of a chain; its number.
    pub(super) fn add_edge(&mut self, at: Chain, number: u32, target: u64, (to, leads): (u32, Leads)) -> u32 {
        let (context, index) = (self.contexts[to as usize], self.edges.len() as u32);
        // SAFETY: one of the contexts, or of the edges; so below.
        let chain = unsafe {
            match at {
                Chain::Slot(context, slot) => &mut (*self.contexts[context as usize]).slots[slot],
                Chain::Behind(edge) => &mut (*self.edges[edge as usize]).behind,
            }
        };
        let edge = Edge { number, leads, target: !target, next: *chain, context, index, ..no_edge(self.end) };
        *chain = Box::into_raw(Box::new(edge));
        self.edges.push(*chain);
        index
    }

    /// The edges of a chain.
    pub(super) fn chain(&self, at: Chain) -> impl Iterator<Item = &Edge> {
        // SAFETY: as above.
        let mut next = unsafe {
            match at {
                Chain::Slot(context, slot) => (*self.contexts[context as usize]).slots[slot],
                Chain::Behind(edge) => (*self.edges[edge as usize]).behind,
            }
        };
        std::iter::from_fn(move || {
            // SAFETY: chains lead from edge to edge, which nobody changes meanwhile.
            let edge = unsafe { &*next };
            next = edge.next;
            (edge.leads != Leads::Nowhere).then_some(edge)
        })
    }

    /// What stands in a frame for a call of nobody's.
    pub(super) fn no_edge(&self) -> *mut Edge {
        self.end
    }

    #[inline]
    pub(super) fn edge(&mut self, index: u32) -> &mut Edge {
        // SAFETY: one of the edges.
        unsafe { &mut *self.edges[index as usize] }
    }

    pub(super) fn edge_address(&self, index: u32) -> *mut Edge {
        self.edges[index as usize]
    }

    /// The number of the edge of a frame, if it has one.
    #[inline]
    pub(super) fn edge_of(&self, frame: &Frame) -> Option<u32> {
        // SAFETY: frames lead to edges, or to what ends chains.
        let edge = unsafe { &*frame.edge };
        (edge.leads != Leads::Nowhere).then_some(edge.index)
    }

    /// All edges by their numbers.
    pub(super) fn edges(&self) -> impl Iterator<Item = &Edge> {
        // SAFETY: edges, which nobody changes meanwhile.
        self.edges.iter().map(|edge| unsafe { &**edge })
    }
}

fn no_edge(behind: *mut Edge) -> Edge {
    let (next, context) = (null_mut(), null_mut());
    let leads = Leads::Nowhere;
    Edge { number: 0, leads, target: 0, next, calls: 0, insns: 0, context, behind, index: u32::MAX }
}

impl Drop for Shadow {
    fn drop(&mut self) {
        // SAFETY: made by `new`, `add_context` and `add_edge`, and reached by nobody any more.
        unsafe {
            libc::munmap(self.frames.cast(), BYTES + GUARD);
            self.contexts.iter().for_each(|context| drop(Box::from_raw(*context)));
            self.edges.iter().chain([&self.end]).for_each(|edge| drop(Box::from_raw(*edge)));
        }
    }
}
