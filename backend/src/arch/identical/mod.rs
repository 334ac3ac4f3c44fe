//! Identical translation: tier 0 on x86-64 hosts.
//!
//! Guest instructions are copied into code memory as they are; only what transfers control, or must not run natively, is
//! rewritten. The guest's registers, flags, vector and x87 state stay in the host's own registers, so they are exact at
//! every instruction by construction. (The term and the idea are VMware's: Adams and Agesen, ASPLOS 2006.)
//!
//! - `classify`: what becomes of an instruction, one table.
//! - `evex`: how long an EVEX-encoded instruction is, and which of its operands are rewritten.
//! - `unit`: from guest bytes to the host code of one *unit*: a run of guest instructions; `unit/profiled`: what is counted there for profiles;
//!   `unit/checked`: what is compared before it;
//!   `unit/guarded`: divisions that have faulted; `unit/linkage`: jumps to libraries' functions; `unit/clock`: reading a clock.
//! - `calls`: what profiled units share of keeping the shadow call stack.
//! - `sites`: from a host pc in a unit back to the guest instruction, and what is to be repaired there.
//! - `blocks`: all units of a process: code memory, links, landings, removal.
//! - `tables`: what that knows of each unit and exit.
//! - `memory`: code memory near the guest's programs.
//! - `area`: the words that code reaches through the GS base.
//! - `enter`: the assembly between the dispatcher and units, and around signal handlers.
//!
//! # Registers
//! Inside units every host register is the guest's, RSP and the FS base included, but for R11 and the GS base, which is that of the
//! thread's [`Area`]. The guest's R11 is in the area at every guest instruction; the host's is free for rewritten sequences, which
//! so spill nothing: a register that each call and return stored and loaded again would tie them together in one chain of
//! store forwarding, 7 cycles each. Of a program's instructions 1 % name R11; they are copied with a load in front, unless the unit knows that
//! the host's holds the guest's, and a store behind. Instructions that name GS or its base are never copied. Rewritten sequences only use
//! instructions that leave the flags alone.
//!
//! # AVX-512
//! Opmasks, ZMM16 to ZMM31 and the upper halves of the other ZMM registers are not kept until the guest comes to its first instruction that has to
//! do with them, so guests that come to none do not pay for them. Then the world is stopped once ([`Blocks::copy_avx512`]); from there on, units copy
//! such instructions, and every way in and out moves all of that state, because Rust's code (the C library's `memcpy`) uses it, too. Where units are
//! profiled or counted, CPUID does not announce AVX-512, and its instructions are refused.
//!
//! # Exits and links
//! A direct exit is a `jmp` or `jcc` with a 32-bit displacement that leads to its *stub*, which says where it came from and
//! leaves. Stubs run once each, and lie apart from units, so that what is run often lies closely. Linking patches the displacement: one aligned store (within 8 bytes) through the writable alias of code memory, which other threads
//! that execute it see before or after. Computed jumps index the thread's table of *landings* by the low 16 bits of the target
//! (`Area::landings`). A landing belongs to one guest pc for good: it checks the whole pc, then jumps to the unit, or leaves if
//! there is none; if the pc is another, it goes on to the next landing with that index.
//!
//! # Calls and returns
//! A guest's call is a call of the host, so that the processor's return stack predicts the return. Behind it stands its *return point*; the
//! call goes over that, puts the guest's return address in the place of the host's, and the return point in the thread's *return
//! table*, in the slot of the return address's low 8 bits. A return takes the return point from the slot and goes there by a return of the
//! host. The return point checks the whole pc; whoever came by a slot that is another's goes on through the landings. A return from a stack
//! that cannot be written to is done when the host's `push` faults, so it goes on as well.
//!
//! The host's address is below where the stack pointer will be. The return leaves in the area what belongs there (`Words::below`), and the
//! return point puts that back: the guest's address, or, where the return pops arguments (RET of a constant, which V8's functions end with), the last of these. A
//! return that went any other way than by one of the host's would leave the host's return stack one too high, and each return from there
//! outwards would be predicted wrong.
//!
//! The guest's return address is stored at once, also where it takes R11 to do it (code above 2 GiB, as JITs have): the POP of the return is forwarded
//! from one store, but would wait for two halves to be in the cache.
//!
//! Behind the return point goes on what follows the call, as an entry of its own into the same unit; the call's thunk, with the jump to the
//! callee, stands at the unit's end. There is one copy of every call (`unit::Entry`): with two, the slot would have the return point of the one and the return stack that
//! of the other.
//!
//! # Removal
//! A unit is taken out of use by pointing the exits that lead to it back at their stubs, and its landing at the exit, and by
//! having its return points find every return another's. Threads
//! inside go on until they leave it, and nobody gets in any more: no thread has to be stopped or asked.
//!
//! # Code that changes unnoticed
//! Units made of it are *checked* (`unit/checked.rs`): they compare their bytes with guest memory before they run.
//!
//! # Counting
//! Where somebody wants to stop a program at an exact place (`calque diff`), each branch, or each instruction, begins with a
//! count: of the instruction itself, and down from the thread's budget. A unit is left in front of a counted instruction that the budget does not
//! allow. So "in front of this branch, when it has run so often" names one moment of an execution. What the interpreter runs in between,
//! the runtime counts.
//!
//! # Profiles
//! Units that are profiled (`unit/profiled.rs`) count instructions where control leaves what follows one instruction behind the other, a
//! *part*: at a branch that is taken, a call, a return. So what falls through costs nothing. The counter belongs to the instructions
//! from the part's start to the exit; a call's part is counted by the call's edge. Every part adds its instructions to the thread's sum.
//!
//! Where control may leave a function, the unit keeps the shadow call stack (`crate::shadow`): frames, with the sum at the call, and edges, found
//! in the context that runs by the number of the transfer, and by the target if that is computed. The host's return goes to the return point that
//! the frame says, in place of the return table, so there may be several copies of a call; a return point that is another's has its return
//! looked at by the recorder. Flags are left alone, so comparisons are sums that JRCXZ looks at; the sign of one, the byte that BSWAP brings
//! down. RCX and R10 are spilled meanwhile.
//! What is not usual, but known, is done out of line (`calls`), and what is not known, by the recorder, behind the unit's exit: that a
//! transfer is for it, the words say (`Words::transfer`).
//!
//! Sum and last frame change with every part and every call. In memory each change waits for the one before to be forwarded from store to load,
//! 6 cycles; so where the host has AVX-512 they are in XMM16, which profiled guests do not have, as a pair, and change both by one VPADDQ, which leaves
//! the flags alone, too ([`Sum`]). A frame holds that pair as it was at the call, and an edge the differences to the returns, added up: so
//! counting calls costs nothing beside counting instructions (`Edge::calls`). RCX and R10 are spilled to K1 and K2 there.
//!
//! # Interruption
//! There are no polls. The host's signal handler leaves units itself: [`Blocks::interrupt`] says how for a given host pc.
//! At the first host instruction of a guest instruction nothing is to be repaired; inside a rewritten sequence the table of `sites`
//! says what is, or that the handler is to let one host instruction run and ask again.

mod area;
mod blocks;
mod calls;
mod classify;
mod emit;
mod enter;
mod evex;
mod memory;
mod sites;
mod tables;
mod unit;

pub use area::{Area, MOST_COUNTERS, Transfer, TransferKind};
pub use blocks::{Blocks, Found, Frozen, Made, TranslateError};
pub use emit::Sum;
pub use enter::{
    Back, Cause, Exit, Redirect, Standing, enter, has_avx512, is_supported, leave_at, resume, signal_entry,
};
pub use unit::{Clocks, Counted, Profiler, Source};
