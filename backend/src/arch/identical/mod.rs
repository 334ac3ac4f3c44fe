//! Identical translation: tier 0 on x86-64 hosts.
//!
//! Guest instructions are copied into code memory as they are; only what transfers control, or must not run natively, is
//! rewritten. The guest's registers, flags, vector and x87 state stay in the host's own registers, so they are exact at
//! every instruction by construction. (The term and the idea are VMware's: Adams and Agesen, ASPLOS 2006.)
//!
//! - `classify`: what becomes of an instruction, one table.
//! - `unit`: from guest bytes to the host code of one *unit*: a run of guest instructions with one entry.
//! - `sites`: from a host pc in a unit back to the guest instruction, and what is to be repaired there.
//! - `blocks`: all units of a process: code memory, links, landings, removal.
//! - `area`: the words that code reaches through the GS base.
//! - `enter`: the assembly between the dispatcher and units, and around signal handlers.
//!
//! # Registers
//! Inside units every host register is the guest's, RSP and the FS base included; the GS base is that of the thread's [`Area`].
//! Instructions that name GS or its base are never copied. What a rewritten sequence needs, it spills to the area, and it
//! only uses instructions that leave the flags alone.
//!
//! # Exits and links
//! A direct exit is a `jmp` or `jcc` with a 32-bit displacement that leads to its *stub*, which says where it came from and
//! leaves. Linking patches the displacement: one aligned store (within 8 bytes) through the writable alias of code memory, which other threads
//! that execute it see before or after. Computed jumps index the thread's table of *landings* by the low 16 bits of the target
//! (`Area::landings`). A landing belongs to one guest pc for good: it checks the whole pc, then jumps to the unit, or leaves if
//! there is none; if the pc is another, it goes on to the next landing with that index.
//!
//! # Removal
//! A unit is taken out of use by pointing the exits that lead to it back at their stubs, and its landing at the exit. Threads
//! inside go on until they leave it, and nobody gets in any more: no thread has to be stopped or asked.
//!
//! # Counting
//! Where somebody wants to stop a program at an exact place (`calque diff`), each branch, or each instruction, begins with a
//! count: of the instruction itself, and down from the thread's budget. A unit is left in front of a counted instruction that the budget does not
//! allow. So "in front of this branch, when it has run so often" names one moment of an execution. What the interpreter runs in between,
//! the runtime counts.
//!
//! # Interruption
//! There are no polls. The host's signal handler leaves units itself: [`Blocks::interrupt`] says how for a given host pc.
//! At the first host instruction of a guest instruction nothing is to be repaired; inside a rewritten sequence the table of `sites`
//! says what is, or that the handler is to let one host instruction run and ask again.

mod area;
mod blocks;
mod classify;
mod emit;
mod enter;
mod sites;
mod unit;

pub use area::Area;
pub use blocks::{Blocks, Found, Frozen, Made, TranslateError};
pub use enter::{Exit, Redirect, enter, is_supported, leave_at, resume, signal_entry};
pub use unit::Counted;
