//! The shadow call stack of a profiled thread, as its units and the recorder share it.
//!
//! A frame stands for a call under way. It says which *edge* was taken, a call from one place of one context of one target, and which
//! context runs. A context finds its edges in a *slot* that the transfer of control says; edges that share a slot are chained, to one that
//! is no edge and its own next. The recorder makes contexts and edges and links them; units look them up, count on them, push frames and pop them.
//!
//! **Slots are shared.** Most contexts have one edge or two, some have hundreds. So a context has few slots of its own, and looks in those of the
//! [`WINDOW`] contexts from itself on, which lie one behind the other. A chain may hold edges of several contexts then; but what has
//! the same transfer and target has the same slot, so that an edge with the right ones in a chain is one of the context that looks.

use std::mem::offset_of;

/// Contexts whose slots one may use.
pub const WINDOW: usize = 32;
const OWN_SLOTS: usize = 6;
/// Words of a context.
const WORDS: usize = size_of::<Context>() / 8;

/// A call that has not returned.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Frame {
    /// Its address; see [`Edge::calls`].
    pub own: u64,
    /// The thread's sum when it was called, and what is not its own.
    pub entered: u64,
    /// See [`place`].
    pub place: u64,
    /// The call; what ends chains if it is nobody's.
    pub edge: *mut Edge,
    /// The context that runs while this frame is the last.
    pub context: *mut Context,
    /// Where the host's return goes.
    pub point: u64,
}

/// `Frame::place` of a call, from where its return address is on the guest's stack: a complement, so that a return adds its own and has 0.
pub const fn place(sp: u64, ends: Ends) -> u64 {
    !(sp << 1 | ends as u64)
}

/// With what a call ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ends {
    ByReturn,
    /// With the call below: it is a tail call.
    WithCaller,
}

/// What [`place`] was made of.
pub const fn of_place(place: u64) -> (u64, Ends) {
    (!place >> 1, if place & 1 == 0 { Ends::WithCaller } else { Ends::ByReturn })
}

/// Above all stacks: where a frame is that nothing returns from.
pub const NO_SP: u64 = 1 << 48;

/// Where an edge leads.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum Leads {
    /// It is what ends a chain.
    Nowhere,
    /// Into the function that is called.
    ByCall,
    /// Into the function that is jumped to: a tail call, if none of those that this one is in comes back.
    ByJump,
    /// To where the function has been: a jump inside it.
    Inside,
}

/// Calls that are alike. In one line of the host's cache: a thread has many, and each call is of one.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub struct Edge {
    /// The transfer of control; 0 for one that no unit makes.
    pub number: u32,
    pub leads: Leads,
    /// Complement of the target.
    pub target: u64,
    /// Calls that have returned, times the way from a frame to the one before: a unit's return adds how far last frame and sum, as a pair, have
    /// moved from the pair in the frame to the pair here. See [`Edge::returned`].
    pub calls: u64,
    /// Instructions from calls to returns.
    pub insns: u64,
    pub next: *mut Edge,
    /// The context that the call leads to.
    pub context: *mut Context,
    /// Of a call of a linkage stub: the chain of the stub's jumps.
    pub behind: *mut Edge,
    /// Its number in the recorder.
    pub index: u32,
}

impl Edge {
    /// What [`Edge::calls`] is `n` calls.
    pub fn of_calls(n: i64) -> u64 {
        (-n * size_of::<Frame>() as i64) as u64
    }

    /// How many calls have returned.
    pub fn returned(&self) -> i64 {
        -(self.calls as i64 / size_of::<Frame>() as i64)
    }
}

/// A function in the context of its callers.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub struct Context {
    /// Its function; [`NO_FUNCTION`] of a linkage stub.
    pub function: u32,
    /// Its number in the recorder.
    pub index: u32,
    /// A word that is no slot, so that slots come in pairs.
    pub unused: u64,
    pub slots: [*mut Edge; OWN_SLOTS],
}

const _: () =
    assert!(offset_of!(Frame, own) == 0 && offset_of!(Frame, entered) == 8 && size_of::<Frame>().is_multiple_of(16));
const _: () = assert!(offset_of!(Edge, calls) == 16 && offset_of!(Edge, insns) == 24);
const _: () = assert!(size_of::<Edge>() == 64 && WORDS == 8 && WINDOW * WORDS <= 256);

/// See [`Context::function`].
pub const NO_FUNCTION: u32 = u32::MAX;

/// The slot of a jump that leaves its function.
pub fn slot_of_jump(number: u32) -> usize {
    slot(number, None) ^ 1
}

/// The slot of a call, to `target` if that is computed: as a number of words from the context's start. That of no other context's call is
/// the word `slot ^ 1`.
pub fn slot(number: u32, target: Option<u64>) -> usize {
    slot_of(target.map_or(number as usize, |target| usize::from(crc32(number, target) as u8)))
}

/// The slot for a hash.
pub fn slot_of(hash: usize) -> usize {
    let slot = hash % (WINDOW * OWN_SLOTS);
    slot / OWN_SLOTS * WORDS + WORDS - OWN_SLOTS + slot % OWN_SLOTS
}

/// The instruction CRC32 of a quadword (SDM vol. 2, CRC32).
fn crc32(seed: u32, value: u64) -> u32 {
    let shift = |crc: u64, _| crc >> 1 ^ if crc & 1 != 0 { 0x82f6_3b78 } else { 0 };
    let low = (0..32).fold(u64::from(seed) ^ value & 0xffff_ffff, shift);
    (0..32).fold(low ^ value >> 32, shift) as u32
}

#[cfg(test)]
mod tests {
    #[test]
    fn hashes_as_the_processor_does() {
        assert_eq!(super::crc32(1, 0x1234_5678_9abc_def0), 0xe3b0_5619);
        assert_eq!(super::crc32(u32::MAX, 0x7000_1230), 0x1527_3c44);
    }
}
