//! The memory of a thread's shadow call stack (`backend::shadow`): frames, contexts and edges, which units work on while the thread is inside.
//!
//! Frames lie one behind the other in a mapping that costs nothing until touched. Contexts and edges stay where they are as long as the
//! stack lives. Both are known by their numbers here; frames by their place, from 0.
//!
//! # Safety
//! All of it belongs to this value and is only reached through it, or by units of the thread it is lent to, which does not use this value
//! meanwhile. Pointers in frames, contexts and edges lead to what this value holds; chains end in `end`.

#![allow(unsafe_code)]

use calque_backend::shadow::{Context, Edge, Frame, Leads, WINDOW};
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
    contexts: Slab<Context>,
    edges: Slab<Edge>,
    end: *mut Edge,
}

/// Values that stay where they are, numbered from 0.
struct Slab<T> {
    chunks: Vec<*mut [T]>,
    len: usize,
    /// What is where no value is yet.
    blank: T,
    /// How many blank ones follow each value at least.
    tail: usize,
}

impl<T: Copy> Slab<T> {
    /// In a chunk, beside the tail.
    const CHUNK: usize = 1024;

    fn new(blank: T, tail: usize) -> Self {
        Self { chunks: Vec::new(), len: 0, blank, tail }
    }

    /// The place of the next value, which counts from now on.
    fn grow(&mut self) -> *mut T {
        if self.len.is_multiple_of(Self::CHUNK) {
            self.chunks.push(Box::into_raw(vec![self.blank; Self::CHUNK + self.tail].into_boxed_slice()));
        }
        self.len += 1;
        self.at(self.len as u32 - 1)
    }

    fn at(&self, index: u32) -> *mut T {
        let index = index as usize;
        assert!(index < self.len);
        self.chunks[index / Self::CHUNK].cast::<T>().wrapping_add(index % Self::CHUNK)
    }
}

impl<T> Drop for Slab<T> {
    fn drop(&mut self) {
        // SAFETY: made by `grow`, and reached by nobody any more.
        self.chunks.iter().for_each(|chunk| drop(unsafe { Box::from_raw(*chunk) }));
    }
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
        let blank = Context { function: 0, index: 0, unused: 0, slots: [end; _] };
        let (contexts, edges) = (Slab::new(blank, WINDOW - 1), Slab::new(no_edge(end), 0));
        Shadow { frames: frames.cast(), depth: 0, contexts, edges, end }
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
        let own = self.address();
        *self.frame(self.depth - 1) = Frame { own, ..frame };
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
        // A call that has found no room behind the last frame has not come about.
        self.depth = ((address - self.frames as u64) as usize / size_of::<Frame>() + 1).min(MOST_FRAMES);
    }

    /// A new context of `function`, with the next number.
    pub(super) fn add_context(&mut self, function: u32) {
        let index = self.contexts.len as u32;
        let context = self.contexts.grow();
        // SAFETY: one of the contexts. Its slots may be in use.
        unsafe { ((*context).function, (*context).index) = (function, index) };
    }

    pub(super) fn context(&self, index: u32) -> *mut Context {
        self.contexts.at(index)
    }

    /// A slot of a context, or of one in its window.
    fn slot(&self, context: u32, slot: usize) -> *mut *mut Edge {
        self.contexts.at(context).cast::<*mut Edge>().wrapping_add(slot)
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
        let (context, index) = (self.context(to), self.edges.len as u32);
        let edge = self.edges.grow();
        // SAFETY: one of the slots, or of the edges; so below.
        unsafe {
            let chain = match at {
                Chain::Slot(context, slot) => self.slot(context, slot),
                Chain::Behind(edge) => &raw mut (*self.edges.at(edge)).behind,
            };
            *edge = Edge { number, leads, target: !target, next: *chain, context, index, ..no_edge(self.end) };
            *chain = edge;
        }
        index
    }

    /// The edges of a chain.
    pub(super) fn chain(&self, at: Chain) -> impl Iterator<Item = &Edge> {
        // SAFETY: as above.
        let mut next = unsafe {
            match at {
                Chain::Slot(context, slot) => *self.slot(context, slot),
                Chain::Behind(edge) => (*self.edges.at(edge)).behind,
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
        unsafe { &mut *self.edges.at(index) }
    }

    pub(super) fn edge_address(&self, index: u32) -> *mut Edge {
        self.edges.at(index)
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
        (0..self.edges.len as u32).map(|index| unsafe { &*self.edges.at(index) })
    }
}

fn no_edge(behind: *mut Edge) -> Edge {
    let (next, context) = (null_mut(), null_mut());
    let leads = Leads::Nowhere;
    Edge { number: 0, leads, target: 0, next, calls: 0, insns: 0, context, behind, index: u32::MAX }
}

impl Drop for Shadow {
    fn drop(&mut self) {
        // SAFETY: made by `new`, and reached by nobody any more.
        unsafe {
            libc::munmap(self.frames.cast(), BYTES + GUARD);
            drop(Box::from_raw(self.end));
        }
    }
}
